//! The broker itself: who may do what, what is owed back, and when. Knows no HTTP.

mod cache;
pub mod error;
pub mod fields;
pub mod audit;
pub mod operation;
pub mod records;
pub mod reply;
pub mod route;
pub mod view;
