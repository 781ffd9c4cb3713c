//! Stands for `crate::crypto`.

pub mod envelope {
    pub struct SealedRecord;
}
