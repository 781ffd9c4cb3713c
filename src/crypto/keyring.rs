//! The keyring: key-encryption keys by term, and the seed of every keyed hash.
//!
//! A keyring is never changed in place. Rotating and destroying give a new one, which the caller
//! stores durably before it puts it in the old one's stead; the old one is wiped when the last user
//! lets go of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use zeroize::Zeroizing;

use super::aead::{AeadKey, KEY_BYTES, SealError, Suite};
use super::blind::{AuditKey, BlindKey, TokenHashKey};
use super::kdf;
use super::root::RootKey;
use crate::types::secret::{RandomError, SecretArray};
use crate::types::time::Timestamp;

/// Most terms that a keyring holds at once.
pub const TERMS_MAX: usize = 1024;
/// Most data keys that one term wraps under random 96-bit nonces (NIST SP 800-38D §8.3).
pub const ENCRYPTIONS_MAX: u64 = 1 << 32;
/// Where a rotation is due: early, because each node counts for itself and a crash forgets some.
pub const ENCRYPTIONS_ROTATE: u64 = 1 << 30;

const VERSION: u8 = 1;
const LABEL_SEALED: &[u8] = b"leasehold/v1/keyring";
/// Number, suite, time of creation, encryptions, key.
const TERM_BYTES: usize = 4 + 1 + 8 + 8 + KEY_BYTES;

/// What a subkey of the keyring is for. The label texts are permanent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Label {
    /// Tags in the store ([`BlindKey`]).
    BlindIndex,
    /// Bearer tokens at rest ([`TokenHashKey`]).
    TokenHash,
    /// Values in the audit ([`AuditKey`]).
    AuditHmac,
    /// Links between audit entries.
    AuditChain,
    /// Sealing of batch tokens, which are not stored.
    BatchToken,
    /// Checksums over clear values that only this installation may make.
    Checksum,
    /// Sealing of what a log-in in progress carries with it, which is not stored.
    LoginState,
}

impl Label {
    /// The `info` of RFC 5869 that makes this subkey independent of all others.
    pub const fn info(self) -> &'static [u8] {
        match self {
            Self::BlindIndex => b"leasehold/v1/blind-index",
            Self::TokenHash => b"leasehold/v1/token-hash",
            Self::AuditHmac => b"leasehold/v1/audit-hmac",
            Self::AuditChain => b"leasehold/v1/audit-chain",
            Self::BatchToken => b"leasehold/v1/batch-token",
            Self::Checksum => b"leasehold/v1/checksum",
            Self::LoginState => b"leasehold/v1/login-state",
        }
    }
}

/// What is known about a term without its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TermInfo {
    /// Its number; later terms have higher ones.
    pub term: u32,
    /// The suite that wraps data keys under it, and that encrypts bodies while it is active.
    pub suite: Suite,
    /// When it was made.
    pub created_at: Timestamp,
    /// Data keys wrapped under it by this process, and by those whose count was stored.
    pub encryptions: u64,
    /// Whether new records use it.
    pub active: bool,
}

/// Why a keyring could not be made, stored or read.
#[derive(Debug, thiserror::Error)]
pub enum KeyringError {
    /// Wrong root key, wrong generation, or damaged.
    #[error("the keyring does not open with this root key at this generation")]
    DoesNotOpen,
    /// Its layout is not one that this build knows.
    #[error("the keyring has a layout that this build does not know")]
    Unreadable,
    /// The active term was to be destroyed, or a term above it was named.
    #[error("term {0} is not below the active term and cannot be destroyed")]
    StillNeeded(u32),
    /// There are [`TERMS_MAX`] terms, or no further number.
    #[error("the keyring has no room for a further term; destroy old terms first")]
    Full,
    /// Sealing failed.
    #[error("the keyring cannot be sealed")]
    Seal(#[source] SealError),
    /// No key could be drawn.
    #[error(transparent)]
    Random(#[from] RandomError),
}

/// One key-encryption key. A term has one suite for ever, so its key never meets two ciphers.
pub(super) struct Term {
    pub(super) number: u32,
    pub(super) suite: Suite,
    pub(super) kek: AeadKey,
    created_at: Timestamp,
    /// Shared with the copies of this term in later keyrings, so that no wrap goes uncounted.
    encryptions: Arc<AtomicU64>,
}

impl Term {
    fn generate(number: u32, suite: Suite, now: Timestamp) -> Result<Self, RandomError> {
        Ok(Self {
            number,
            suite,
            kek: AeadKey::random()?,
            created_at: now,
            encryptions: Arc::new(AtomicU64::new(0)),
        })
    }

    fn duplicate(&self) -> Self {
        Self {
            number: self.number,
            suite: self.suite,
            kek: self.kek.duplicate(),
            created_at: self.created_at,
            encryptions: Arc::clone(&self.encryptions),
        }
    }

    /// Counts one more wrap; false once the key has wrapped all it safely can.
    pub(super) fn count_encryption(&self) -> bool {
        self.encryptions.fetch_add(1, Ordering::Relaxed) < ENCRYPTIONS_MAX
    }

    fn info(&self, active: bool) -> TermInfo {
        TermInfo {
            term: self.number,
            suite: self.suite,
            created_at: self.created_at,
            encryptions: self.encryptions.load(Ordering::Relaxed),
            active,
        }
    }
}

/// All key-encryption keys in use, and the seed of the subkeys. Present only while unsealed.
pub struct Keyring {
    /// Never rotated: tags and token hashes must stay the same for as long as the data lives.
    seed: SecretArray<KEY_BYTES>,
    active: Term,
    /// In ascending order, all below the active term.
    older: Vec<Term>,
}

impl Keyring {
    /// A new keyring with term 1.
    ///
    /// # Errors
    /// When the operating system has no randomness to give.
    pub fn generate(suite: Suite, now: Timestamp) -> Result<Self, RandomError> {
        Ok(Self {
            seed: SecretArray::random()?,
            active: Term::generate(1, suite, now)?,
            older: Vec::new(),
        })
    }

    /// This keyring with a further, active term. The old terms still open what they wrapped.
    ///
    /// # Errors
    /// [`KeyringError::Full`] or [`KeyringError::Random`].
    pub fn rotate(&self, suite: Suite, now: Timestamp) -> Result<Self, KeyringError> {
        let number = self.active.number.checked_add(1).ok_or(KeyringError::Full)?;
        if self.older.len() + 1 >= TERMS_MAX {
            return Err(KeyringError::Full);
        }
        Ok(Self {
            seed: self.seed.duplicate(),
            active: Term::generate(number, suite, now)?,
            older: self.older.iter().chain([&self.active]).map(Term::duplicate).collect(),
        })
    }

    /// This keyring without the terms below `term`. What they still wrap is lost for good, so re-wrap
    /// it first ([`envelope::rewrap`](super::envelope::rewrap)).
    ///
    /// # Errors
    /// [`KeyringError::StillNeeded`] when that would take the active term.
    pub fn destroy_below(&self, term: u32) -> Result<Self, KeyringError> {
        if term > self.active.number {
            return Err(KeyringError::StillNeeded(self.active.number));
        }
        Ok(Self {
            seed: self.seed.duplicate(),
            active: self.active.duplicate(),
            older: self.older.iter().filter(|t| t.number >= term).map(Term::duplicate).collect(),
        })
    }

    /// The number of the term that new records use.
    pub fn active_term(&self) -> u32 {
        self.active.number
    }

    /// The suite that new records use.
    pub fn active_suite(&self) -> Suite {
        self.active.suite
    }

    /// What is known about each term, in ascending order.
    pub fn terms(&self) -> Vec<TermInfo> {
        let older = self.older.iter().map(|term| term.info(false));
        older.chain([self.active.info(true)]).collect()
    }

    /// Whether the term with that number is there.
    pub fn holds(&self, term: u32) -> bool {
        self.term(term).is_some()
    }

    /// Adds wraps under `term` that another copy of this keyring has counted.
    pub fn count_further(&self, term: u32, encryptions: u64) {
        if let Some(term) = self.term(term) {
            term.encryptions.fetch_add(encryptions, Ordering::Relaxed);
        }
    }

    /// Whether the active term has wrapped so much that it should be rotated now.
    pub fn rotation_due(&self) -> bool {
        self.active.encryptions.load(Ordering::Relaxed) >= ENCRYPTIONS_ROTATE
    }

    /// The subkey for `label`, by HKDF-Expand with SHA-256 from the seed.
    pub fn subkey(&self, label: Label) -> SecretArray<KEY_BYTES> {
        kdf::expand(self.seed.expose(), &[label.info()])
    }

    /// The key of the store's tags.
    pub fn blind_key(&self) -> BlindKey {
        BlindKey::new(&self.subkey(Label::BlindIndex))
    }

    /// The key of token hashes.
    pub fn token_hash_key(&self) -> TokenHashKey {
        TokenHashKey::new(&self.subkey(Label::TokenHash))
    }

    /// The key of hashed values in the audit.
    pub fn audit_key(&self) -> AuditKey {
        AuditKey::new(&self.subkey(Label::AuditHmac))
    }

    /// Seals the keyring for storage, with the active suite. `generation` grows with every stored
    /// keyring; it is bound in, so that an earlier one cannot be passed off as the present one.
    ///
    /// Layout: version, suite, nonce, ciphertext, tag.
    ///
    /// # Errors
    /// [`KeyringError::Seal`].
    pub fn seal_under(&self, root: &RootKey, generation: u64) -> Result<Vec<u8>, KeyringError> {
        let suite = self.active.suite;
        let header = [VERSION, suite.id()];
        let sealed = root
            .keyring_key(suite)
            .seal_random(suite, &associated_data(header, generation), &self.encode())
            .map_err(KeyringError::Seal)?;
        Ok([&header, sealed.as_slice()].concat())
    }

    /// Opens what [`seal_under`](Self::seal_under) made with the same root key and generation.
    ///
    /// # Errors
    /// [`KeyringError::DoesNotOpen`] or [`KeyringError::Unreadable`].
    pub fn open_under(
        root: &RootKey,
        generation: u64,
        sealed: &[u8],
    ) -> Result<Self, KeyringError> {
        let (header, sealed) = sealed.split_first_chunk::<2>().ok_or(KeyringError::Unreadable)?;
        let [VERSION, suite] = *header else { return Err(KeyringError::Unreadable) };
        let suite = Suite::from_id(suite).ok_or(KeyringError::Unreadable)?;
        let plain = root
            .keyring_key(suite)
            .open_random(suite, &associated_data(*header, generation), sealed)
            .map_err(|_| KeyringError::DoesNotOpen)?;
        Self::decode(plain.expose()).ok_or(KeyringError::Unreadable)
    }

    /// The term with that number, unless it was destroyed or never was.
    pub(super) fn term(&self, number: u32) -> Option<&Term> {
        self.older.iter().chain([&self.active]).find(|term| term.number == number)
    }

    /// The term that new records use.
    pub(super) fn active(&self) -> &Term {
        &self.active
    }

    /// The seed, then the terms in ascending order, the active one last.
    fn encode(&self) -> Zeroizing<Vec<u8>> {
        // Sized beforehand: a vector that grows leaves keys behind in the memory it gave back.
        let size = KEY_BYTES + (self.older.len() + 1) * TERM_BYTES;
        let mut out = Zeroizing::new(Vec::with_capacity(size));
        out.extend_from_slice(self.seed.expose());
        for term in self.older.iter().chain([&self.active]) {
            out.extend_from_slice(&term.number.to_be_bytes());
            out.push(term.suite.id());
            out.extend_from_slice(&term.created_at.as_millis().to_be_bytes());
            out.extend_from_slice(&term.encryptions.load(Ordering::Relaxed).to_be_bytes());
            out.extend_from_slice(term.kek.expose());
        }
        out
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (seed, bytes) = bytes.split_first_chunk::<KEY_BYTES>()?;
        let (terms, rest) = bytes.as_chunks::<TERM_BYTES>();
        if !rest.is_empty() || terms.len() > TERMS_MAX {
            return None;
        }
        let mut older = terms.iter().map(decode_term).collect::<Option<Vec<_>>>()?;
        if !older.is_sorted_by(|a, b| a.number < b.number) {
            return None;
        }
        let active = older.pop()?;
        Some(Self { seed: SecretArray::from_slice(seed)?, active, older })
    }
}

fn decode_term(bytes: &[u8; TERM_BYTES]) -> Option<Term> {
    let (number, rest) = bytes.split_first_chunk()?;
    let (suite, rest) = rest.split_first()?;
    let (created_at, rest) = rest.split_first_chunk()?;
    let (encryptions, kek) = rest.split_first_chunk()?;
    Some(Term {
        number: u32::from_be_bytes(*number),
        suite: Suite::from_id(*suite)?,
        kek: AeadKey::new(SecretArray::from_slice(kek)?),
        created_at: Timestamp::from_millis(i64::from_be_bytes(*created_at)),
        encryptions: Arc::new(AtomicU64::new(u64::from_be_bytes(*encryptions))),
    })
}

fn associated_data(header: [u8; 2], generation: u64) -> Vec<u8> {
    [LABEL_SEALED, header.as_slice(), &generation.to_be_bytes()].concat()
}

#[cfg(test)]
mod tests;
