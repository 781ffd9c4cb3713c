//! Where audit entries go, and how what was written is checked. The port is [`crate::core::audit`].

pub mod file;
pub mod verify;
