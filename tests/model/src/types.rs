//! Stands for `crate::types`.

pub mod sync;
pub mod time;
