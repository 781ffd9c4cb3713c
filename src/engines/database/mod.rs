//! The database engine.

pub mod driver;
pub mod password;
pub mod postgres;
mod sql;
pub mod statement;
pub mod username;
