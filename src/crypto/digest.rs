//! Plain hashes: fingerprints, chains, and digests that callers ask for.

use aws_lc_rs::digest::{self, SHA1_FOR_LEGACY_USE_ONLY};
use sha2::{Digest, Sha224, Sha256, Sha384, Sha512};
use sha3::{Sha3_224, Sha3_256, Sha3_384, Sha3_512};

/// SHA-256 (FIPS 180-4) of `bytes`.
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// A hash that callers can ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hash {
    /// SHA-1 (FIPS 180-4), 20 bytes. Others can make two messages with one digest: for HMACs alone.
    Sha1,
    /// SHA-224 (FIPS 180-4), 28 bytes.
    Sha224,
    /// SHA-256, 32 bytes.
    Sha256,
    /// SHA-384, 48 bytes.
    Sha384,
    /// SHA-512, 64 bytes.
    Sha512,
    /// SHA3-224 (FIPS 202), 28 bytes.
    Sha3x224,
    /// SHA3-256, 32 bytes.
    Sha3x256,
    /// SHA3-384, 48 bytes.
    Sha3x384,
    /// SHA3-512, 64 bytes.
    Sha3x512,
}

impl Hash {
    /// Every one.
    pub const ALL: [Self; 9] = [
        Self::Sha1,
        Self::Sha224,
        Self::Sha256,
        Self::Sha384,
        Self::Sha512,
        Self::Sha3x224,
        Self::Sha3x256,
        Self::Sha3x384,
        Self::Sha3x512,
    ];

    /// Its name in requests.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sha1 => "sha1",
            Self::Sha224 => "sha2-224",
            Self::Sha256 => "sha2-256",
            Self::Sha384 => "sha2-384",
            Self::Sha512 => "sha2-512",
            Self::Sha3x224 => "sha3-224",
            Self::Sha3x256 => "sha3-256",
            Self::Sha3x384 => "sha3-384",
            Self::Sha3x512 => "sha3-512",
        }
    }

    /// The one with that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|hash| hash.name() == name)
    }

    /// Whether nobody is known to find two messages with one digest.
    pub const fn resists_collisions(self) -> bool {
        !matches!(self, Self::Sha1)
    }

    /// Length of a digest, in bytes.
    pub const fn bytes(self) -> usize {
        match self {
            Self::Sha1 => 20,
            Self::Sha224 | Self::Sha3x224 => 28,
            Self::Sha256 | Self::Sha3x256 => 32,
            Self::Sha384 | Self::Sha3x384 => 48,
            Self::Sha512 | Self::Sha3x512 => 64,
        }
    }

    /// The digest of `bytes`.
    pub fn digest(self, bytes: &[u8]) -> Vec<u8> {
        match self {
            Self::Sha1 => digest::digest(&SHA1_FOR_LEGACY_USE_ONLY, bytes).as_ref().to_vec(),
            Self::Sha224 => Sha224::digest(bytes).to_vec(),
            Self::Sha256 => Sha256::digest(bytes).to_vec(),
            Self::Sha384 => Sha384::digest(bytes).to_vec(),
            Self::Sha512 => Sha512::digest(bytes).to_vec(),
            Self::Sha3x224 => Sha3_224::digest(bytes).to_vec(),
            Self::Sha3x256 => Sha3_256::digest(bytes).to_vec(),
            Self::Sha3x384 => Sha3_384::digest(bytes).to_vec(),
            Self::Sha3x512 => Sha3_512::digest(bytes).to_vec(),
        }
    }
}

#[cfg(test)]
mod tests {
    use data_encoding::HEXLOWER;

    use super::*;

    #[test]
    fn the_digest_is_that_of_the_standard() {
        // FIPS 180-4 example, "abc".
        assert_eq!(
            HEXLOWER.encode(&sha256(b"abc")),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }

    #[test]
    fn every_hash_has_its_name_its_length_and_its_digest() {
        // "abc", the examples of FIPS 180-4 and FIPS 202.
        for (name, begin) in [
            ("sha1", "a9993e364706816aba3e2571"),
            ("sha2-224", "23097d223405d8228642a477"),
            ("sha2-256", "ba7816bf8f01cfea414140de"),
            ("sha2-384", "cb00753f45a35e8bb5a03d69"),
            ("sha2-512", "ddaf35a193617abacc417349"),
            ("sha3-224", "e642824c3f8cf24ad09234ee"),
            ("sha3-256", "3a985da74fe225b2045c172d"),
            ("sha3-384", "ec01498288516fc926459f58"),
            ("sha3-512", "b751850b1a57168a5693cd92"),
        ] {
            let hash = Hash::from_name(name).unwrap();
            let digest = hash.digest(b"abc");
            assert_eq!((hash.name(), digest.len()), (name, hash.bytes()));
            assert!(HEXLOWER.encode(&digest).starts_with(begin), "{name}");
            assert_eq!(hash.resists_collisions(), name != "sha1");
        }
        assert_eq!(Hash::from_name("md5"), None);
    }
}
