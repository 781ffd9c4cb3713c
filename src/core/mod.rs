//! The broker itself: who may do what, what is owed back, and when. Knows no HTTP.

pub mod acl;
pub mod audit;
mod cache;
pub mod caller;
pub mod clock_guard;
pub mod context;
pub mod crl_source;
pub mod engine;
pub mod error;
pub mod failpoint;
pub mod fields;
pub mod identity;
pub mod job;
pub mod lease;
pub mod lifetime;
mod login;
pub mod mount;
pub mod operation;
pub mod peer;
mod pipeline;
pub mod policies;
pub mod policy;
pub mod records;
pub mod reply;
pub mod request;
mod rewrap;
pub mod route;
pub mod scope;
#[cfg(test)]
pub(crate) mod scratch;
pub mod seal;
pub mod spiffe;
pub mod time_seen;
pub mod token;
pub mod trust;
pub mod view;
pub mod wrap;
