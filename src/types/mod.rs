//! Values that every layer speaks: secrets, ids, paths and time. No I/O, no policy.

pub mod glob;
pub mod id;
pub mod path;
pub mod secret;
pub mod sync;
pub mod time;
