//! Leasehold.
fn main() {}
