//! The broker itself: who may do what, what is owed back, and when. Knows no HTTP.

pub mod operation;
