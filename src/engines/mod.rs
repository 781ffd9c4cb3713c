//! What secrets and credentials are made by: one engine behind each mount.

pub mod database;
