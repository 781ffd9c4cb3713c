//! The sealed form of a record: the only thing that storage takes.

/// A sealed record: header, wrapped data key and encrypted body in one byte string.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedRecord {
    term: u32,
    bytes: Vec<u8>,
}

impl SealedRecord {
    /// The key-encryption-key term that wraps the data key.
    pub fn term(&self) -> u32 {
        self.term
    }

    /// The stored form.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }
}
