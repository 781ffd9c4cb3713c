//! The database engine.

pub mod password;
mod sql;
pub mod statement;
pub mod username;
