//! How the root key is guarded.

/// The seal's own state.
pub struct SealState;
