//! The broker itself: who may do what, what is owed back, and when. Knows no HTTP.

pub mod acl;
pub mod audit;
mod cache;
pub mod error;
pub mod fields;
pub mod lifetime;
pub mod operation;
pub mod peer;
pub mod policy;
pub mod records;
pub mod reply;
pub mod route;
pub mod scope;
pub mod spiffe;
pub mod trust;
pub mod view;
