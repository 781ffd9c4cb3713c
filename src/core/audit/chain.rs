//! The hash chain: one JSON object per line, each bound to the one before.
//!
//! A line is, byte for byte,
//!
//! ```text
//! {"seq":N,<entry>,"store_sequence":S,"prev":"<64 hex>","hash":"<64 hex>"}
//! ```
//!
//! `hash` is the SHA-256, in lower-case hex, of the line's bytes from its first brace up to and including
//! the quote that closes `prev`: everything but `,"hash":"…"}` and the newline. `prev` is the `hash` of
//! line N − 1, and 64 zeros in line 1. `store_sequence` is the highest store sequence that the writer
//! has seen when it wrote the line, so the last line alone witnesses how far the store had come.

use std::fmt;
use std::io::Write as _;

use data_encoding::HEXLOWER;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::entry::EntryBody;
use crate::crypto::digest::sha256;

/// Longest line that is written or read, in bytes without the newline.
pub const LINE_BYTES_MAX: usize = 1 << 20;

const SEQ_KEY: &[u8] = b"{\"seq\":";
const STORE_KEY: &[u8] = b",\"store_sequence\":";
const PREV_KEY: &[u8] = b",\"prev\":\"";
const HASH_KEY: &[u8] = b",\"hash\":\"";
const HASH_DIGITS: usize = 64;

/// The hash of a line.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ChainHash([u8; 32]);

impl ChainHash {
    /// What stands for the line before the first.
    pub const GENESIS: Self = Self([0; 32]);

    /// From 64 lower-case hex digits.
    pub fn parse(hex: &str) -> Option<Self> {
        let bytes = HEXLOWER.decode(hex.as_bytes()).ok()?;
        bytes.try_into().ok().map(Self)
    }

    /// From the 32 bytes of the digest.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes of the digest.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for ChainHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for ChainHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for ChainHash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ChainHash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| serde::de::Error::custom("expected 64 hex digits"))
    }
}

/// The end of a chain: what the store records, and what a backup of the store is judged by (P10).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Witness {
    /// Number of the last line; zero before the first.
    pub seq: u64,
    /// Hash of the last line.
    pub hash: ChainHash,
    /// Highest store sequence seen up to that line.
    pub store_sequence: u64,
}

impl Witness {
    /// The end of a chain that has no line yet.
    pub const GENESIS: Self = Self { seq: 0, hash: ChainHash::GENESIS, store_sequence: 0 };
}

/// What an entry says about the store's sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// The store had come at least this far.
    Seen(u64),
    /// An admin accepted an older store: from here on this is where it stands.
    Rebase(u64),
}

/// The writing end of a chain.
#[derive(Clone, Debug)]
pub struct Chain {
    head: Witness,
}

impl Chain {
    /// Goes on behind `head`.
    pub const fn after(head: Witness) -> Self {
        Self { head }
    }

    /// The last line's witness.
    pub const fn head(&self) -> Witness {
        self.head
    }

    /// Appends the next line, newline included, to `out`.
    pub fn append(&mut self, body: &EntryBody, mark: Mark, out: &mut Vec<u8>) {
        let start = out.len();
        let seq = self.head.seq.saturating_add(1);
        let store_sequence = match mark {
            Mark::Seen(sequence) => self.head.store_sequence.max(sequence),
            Mark::Rebase(sequence) => sequence,
        };
        // Writing to a Vec cannot fail.
        let _ = write!(out, "{{\"seq\":{seq}");
        out.extend_from_slice(body.as_bytes());
        let _ = write!(out, ",\"store_sequence\":{store_sequence}");
        out.extend_from_slice(PREV_KEY);
        out.extend_from_slice(HEXLOWER.encode(&self.head.hash.0).as_bytes());
        out.push(b'"');
        let hash = ChainHash(sha256(out.get(start..).unwrap_or_default()));
        out.extend_from_slice(HASH_KEY);
        out.extend_from_slice(HEXLOWER.encode(&hash.0).as_bytes());
        out.extend_from_slice(b"\"}\n");
        self.head = Witness { seq, hash, store_sequence };
    }
}

/// A line as read back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChainedLine {
    /// Its number, hash as stated, and store sequence.
    pub witness: Witness,
    /// The hash it says the line before has.
    pub prev: ChainHash,
    /// Whether the hash it states is the hash of its bytes.
    pub intact: bool,
}

/// Why bytes are not a line of a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LineFault {
    /// Longer than [`LINE_BYTES_MAX`].
    #[error("is longer than a line can be")]
    TooLong,
    /// No JSON object.
    #[error("is not a JSON object")]
    NotJson,
    /// JSON, but without number, store sequence, prev and hash in their places.
    #[error("is not an audit entry")]
    NotAnEntry,
}

impl ChainedLine {
    /// Reads a line, given without its newline.
    ///
    /// # Errors
    /// When it does not have the form of a line, whatever its hash says.
    pub fn parse(line: &[u8]) -> Result<Self, LineFault> {
        if line.len() > LINE_BYTES_MAX {
            return Err(LineFault::TooLong);
        }
        serde_json::from_slice::<serde::de::IgnoredAny>(line).map_err(|_| LineFault::NotJson)?;
        Self::split(line).ok_or(LineFault::NotAnEntry)
    }

    fn split(line: &[u8]) -> Option<Self> {
        let (rest, hash) = take_hash(line.strip_suffix(b"\"}")?)?;
        let covered = rest.strip_suffix(HASH_KEY)?;
        let (rest, prev) = take_hash(covered.strip_suffix(b"\"")?)?;
        let rest = rest.strip_suffix(PREV_KEY)?;
        let digits = rest.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
        let (rest, store_sequence) = rest.split_at_checked(rest.len() - digits)?;
        rest.strip_suffix(STORE_KEY)?;
        let rest = rest.strip_prefix(SEQ_KEY)?;
        let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let (seq, _) = rest.split_at_checked(digits)?;
        let witness = Witness { seq: number(seq)?, hash, store_sequence: number(store_sequence)? };
        Some(Self { witness, prev, intact: sha256(covered) == hash.0 })
    }
}

fn take_hash(text: &[u8]) -> Option<(&[u8], ChainHash)> {
    let (rest, hex) = text.split_at_checked(text.len().checked_sub(HASH_DIGITS)?)?;
    Some((rest, ChainHash::parse(std::str::from_utf8(hex).ok()?)?))
}

fn number(digits: &[u8]) -> Option<u64> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::audit::entry::event_body;
    use crate::types::time::Timestamp;

    fn body(name: &'static str) -> EntryBody {
        event_body(Timestamp::from_secs(1_700_000_000), name, &serde_json::json!({"n": 1}))
    }

    #[test]
    fn the_hash_is_the_sha256_of_everything_before_it() {
        let mut chain = Chain::after(Witness::GENESIS);
        let mut out = Vec::new();
        chain.append(&body("started"), Mark::Seen(7), &mut out);
        let line = String::from_utf8(out).unwrap();
        let covered = line.split(",\"hash\"").next().unwrap();
        let expected = HEXLOWER.encode(&sha256(covered.as_bytes()));
        assert_eq!(
            line,
            format!(
                "{{\"seq\":1,\"time\":\"2023-11-14T22:13:20Z\",\"type\":\"event\",\
                 \"event\":\"started\",\"detail\":{{\"n\":1}},\"store_sequence\":7,\
                 \"prev\":\"{}\",\"hash\":\"{expected}\"}}\n",
                "0".repeat(64)
            )
        );
    }

    #[test]
    fn lines_read_back_as_written_and_link_up() {
        let mut chain = Chain::after(Witness::GENESIS);
        let mut prev = Witness::GENESIS;
        for (mark, sequence) in
            [(Mark::Seen(5), 5), (Mark::Seen(3), 5), (Mark::Rebase(2), 2), (Mark::Seen(4), 4)]
        {
            let mut out = Vec::new();
            chain.append(&body("tick"), mark, &mut out);
            let line = ChainedLine::parse(out.strip_suffix(b"\n").unwrap()).unwrap();
            assert!(line.intact);
            assert_eq!(line.prev, prev.hash);
            assert_eq!(line.witness, chain.head());
            assert_eq!((line.witness.seq, line.witness.store_sequence), (prev.seq + 1, sequence));
            prev = line.witness;
        }
    }

    #[test]
    fn other_bytes_are_refused_by_name() {
        for (line, fault) in [
            (&b""[..], LineFault::NotJson),
            (b"garbage", LineFault::NotJson),
            (b"{\"seq\":1", LineFault::NotJson),
            (b"{\"seq\":1}", LineFault::NotAnEntry),
            (b"[]", LineFault::NotAnEntry),
            (b"\xff\xfe", LineFault::NotJson),
        ] {
            assert_eq!(ChainedLine::parse(line), Err(fault), "{line:?}");
        }
        let long = vec![b' '; LINE_BYTES_MAX + 1];
        assert_eq!(ChainedLine::parse(&long), Err(LineFault::TooLong));
    }
}
