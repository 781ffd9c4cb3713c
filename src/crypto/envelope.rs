//! The sealed form of a record: the only thing that storage takes.
//!
//! ```text
//! version 1 │ suite 1 │ term 4 │ nonce 12 │ wrapped data key 32 + 16 │ body n + 16
//! ╰── header ───────────────╯  ╰── under the term's KEK ──────────╯  ╰ under the data key ╯
//! ```
//!
//! Each version of each record has a data key of its own. It encrypts one message in its life, so the
//! body's nonce is fixed at zero: a nonce is a danger only when a key meets it twice. The data key is
//! wrapped under the term's key with a random nonce. Both are bound to the record's place and
//! revision, so what is moved, swapped or put back elsewhere does not open. The body is not bound to
//! the term: re-wrapping moves 32 bytes and leaves the body alone.

use std::fmt;

use super::aead::{AeadError, AeadKey, KEY_BYTES, NONCE_BYTES, SealError, Suite, TAG_BYTES};
use super::blind::Tag;
use super::keyring::{Keyring, Term};
use crate::types::id::NamespaceId;
use crate::types::secret::{SecretArray, SecretBytes};

const VERSION: u8 = 1;
const LABEL_BODY: &[u8] = b"leasehold/v1/record/body";
const LABEL_DATA_KEY: &[u8] = b"leasehold/v1/record/data-key";
/// See the module's text: the key is fresh, so the nonce need not be.
const BODY_NONCE: [u8; NONCE_BYTES] = [0; NONCE_BYTES];

const HEADER_BYTES: usize = 6;
const WRAPPED_BYTES: usize = NONCE_BYTES + KEY_BYTES + TAG_BYTES;

/// What sealing adds to a body, in bytes.
pub const OVERHEAD_BYTES: usize = HEADER_BYTES + WRAPPED_BYTES + TAG_BYTES;

/// Where a record is and which version of it this is. Opens only where it was sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordContext {
    /// Tenant.
    pub namespace: NamespaceId,
    /// Record kind.
    pub kind: u16,
    /// Blind tag of what the record is listed under.
    pub parent: Tag,
    /// Blind tag of the record's name.
    pub name: Tag,
    /// The record's revision.
    pub rev: u64,
}

impl RecordContext {
    /// Associated data: every part but the label has a fixed length, and no label is the beginning
    /// of another, so different contexts give different bytes.
    fn associated_data(&self, label: &[u8], header: &[u8]) -> Vec<u8> {
        [
            label,
            header,
            &self.namespace.0.to_be_bytes(),
            &self.kind.to_be_bytes(),
            self.parent.as_bytes(),
            self.name.as_bytes(),
            &self.rev.to_be_bytes(),
        ]
        .concat()
    }

    fn body_data(&self, suite: Suite) -> Vec<u8> {
        self.associated_data(LABEL_BODY, &[VERSION, suite.id()])
    }

    fn data_key_data(&self, header: &[u8; HEADER_BYTES]) -> Vec<u8> {
        self.associated_data(LABEL_DATA_KEY, header)
    }
}

/// Why a record was not sealed or opened.
#[derive(Debug, thiserror::Error)]
pub enum EnvelopeError {
    /// Truncated, or a layout or suite that this build does not know.
    #[error("not a sealed record that this build can read")]
    Unreadable,
    /// The key it needs was destroyed, or this keyring is older than the record.
    #[error("the record needs key term {0}, which the keyring does not hold")]
    UnknownTerm(u32),
    /// Damaged, or not sealed with this key for this place and revision.
    #[error(transparent)]
    DoesNotOpen(#[from] AeadError),
    /// The active term has wrapped all it safely can: rotate.
    #[error("key term {0} is used up; rotate the keyring")]
    UsedUp(u32),
    /// Too long, or no randomness.
    #[error(transparent)]
    Seal(#[from] SealError),
}

/// A sealed record: header, wrapped data key and encrypted body in one byte string.
#[derive(Clone, PartialEq, Eq)]
pub struct SealedRecord {
    suite: Suite,
    term: u32,
    bytes: Vec<u8>,
}

impl SealedRecord {
    /// Takes over bytes read back from storage, if they have the shape of a sealed record.
    ///
    /// # Errors
    /// [`EnvelopeError::Unreadable`].
    pub fn from_stored(bytes: Vec<u8>) -> Result<Self, EnvelopeError> {
        if bytes.len() < OVERHEAD_BYTES {
            return Err(EnvelopeError::Unreadable);
        }
        let Some([VERSION, suite, term @ ..]) = bytes.first_chunk::<HEADER_BYTES>() else {
            return Err(EnvelopeError::Unreadable);
        };
        let suite = Suite::from_id(*suite).ok_or(EnvelopeError::Unreadable)?;
        let term = u32::from_be_bytes(*term);
        Ok(Self { suite, term, bytes })
    }

    /// The key-encryption-key term that wraps the data key.
    pub fn term(&self) -> u32 {
        self.term
    }

    /// The suite of the body.
    pub fn suite(&self) -> Suite {
        self.suite
    }

    /// The stored form.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    fn parts(&self) -> Option<Parts<'_>> {
        let (header, rest) = self.bytes.split_first_chunk()?;
        let (wrapped, body) = rest.split_at_checked(WRAPPED_BYTES)?;
        Some(Parts { header, wrapped, body })
    }
}

struct Parts<'r> {
    header: &'r [u8; HEADER_BYTES],
    wrapped: &'r [u8],
    body: &'r [u8],
}

impl fmt::Debug for SealedRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SealedRecord")
            .field("term", &self.term)
            .field("suite", &self.suite)
            .field("len", &self.bytes.len())
            .finish()
    }
}

/// Seals `plaintext` for `context` under the active term.
///
/// # Errors
/// [`EnvelopeError::UsedUp`] or [`EnvelopeError::Seal`].
pub fn seal(
    keyring: &Keyring,
    context: &RecordContext,
    plaintext: &[u8],
) -> Result<SealedRecord, EnvelopeError> {
    let suite = keyring.active_suite();
    let data_key = AeadKey::random().map_err(SealError::from)?;
    let term = keyring.active();
    let mut bytes = header_and_data_key(term, context, suite, &data_key, plaintext.len())?;
    data_key.seal_onto(&mut bytes, suite, &BODY_NONCE, &context.body_data(suite), plaintext)?;
    Ok(SealedRecord { suite, term: term.number, bytes })
}

/// Opens a record where it was sealed.
///
/// # Errors
/// [`EnvelopeError::UnknownTerm`], [`EnvelopeError::DoesNotOpen`] or [`EnvelopeError::Unreadable`].
pub fn open(
    keyring: &Keyring,
    context: &RecordContext,
    record: &SealedRecord,
) -> Result<SecretBytes, EnvelopeError> {
    let (data_key, body) = unwrap_data_key(keyring, context, record)?;
    let suite = record.suite;
    Ok(data_key.open(suite, &BODY_NONCE, &context.body_data(suite), body)?)
}

/// The same record with its data key wrapped under the active term. The body is neither decrypted
/// nor changed: it keeps the suite it was sealed with until the record is next written.
///
/// # Errors
/// As [`open`] and [`seal`].
pub fn rewrap(
    keyring: &Keyring,
    context: &RecordContext,
    record: &SealedRecord,
) -> Result<SealedRecord, EnvelopeError> {
    let (data_key, body) = unwrap_data_key(keyring, context, record)?;
    let (term, suite) = (keyring.active(), record.suite);
    let mut bytes = header_and_data_key(term, context, suite, &data_key, body.len())?;
    bytes.extend_from_slice(body);
    Ok(SealedRecord { suite, term: term.number, bytes })
}

fn unwrap_data_key<'r>(
    keyring: &Keyring,
    context: &RecordContext,
    record: &'r SealedRecord,
) -> Result<(AeadKey, &'r [u8]), EnvelopeError> {
    let Parts { header, wrapped, body } = record.parts().ok_or(EnvelopeError::Unreadable)?;
    let term = keyring.term(record.term).ok_or(EnvelopeError::UnknownTerm(record.term))?;
    let plain = term.kek.open_random(term.suite, &context.data_key_data(header), wrapped)?;
    let data_key = SecretArray::from_slice(plain.expose()).ok_or(EnvelopeError::Unreadable)?;
    Ok((AeadKey::new(data_key), body))
}

/// All of a record but its body, in a vector with room for a body of `body_len` bytes.
fn header_and_data_key(
    term: &Term,
    context: &RecordContext,
    suite: Suite,
    data_key: &AeadKey,
    body_len: usize,
) -> Result<Vec<u8>, EnvelopeError> {
    if !term.count_encryption() {
        return Err(EnvelopeError::UsedUp(term.number));
    }
    let [a, b, c, d] = term.number.to_be_bytes();
    let header = [VERSION, suite.id(), a, b, c, d];
    let associated_data = context.data_key_data(&header);
    let wrapped = term.kek.seal_random(term.suite, &associated_data, data_key.expose())?;
    let mut bytes = Vec::with_capacity(OVERHEAD_BYTES.saturating_add(body_len));
    bytes.extend_from_slice(&header);
    bytes.extend_from_slice(&wrapped);
    Ok(bytes)
}

#[cfg(test)]
mod tests;
