//! HMAC-SHA-256 (RFC 2104) and HKDF (RFC 5869): its expanding half for our own keys, the whole of it for
//! those of others.

use hmac::digest::FixedOutput;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::types::secret::{SecretArray, SecretBytes};

/// Length of an HMAC-SHA-256 key and of its output, in bytes.
pub(super) const HMAC_BYTES: usize = 32;
/// The block that SHA-256 works on, in bytes.
const BLOCK_BYTES: usize = 64;

/// A keyed state that has taken in the key block already: each use costs a copy of two chaining
/// values instead of two compressions. Boxed, so that moving it leaves nothing behind.
pub(super) struct HmacKey(Box<Hmac<Sha256>>);

impl HmacKey {
    /// Keys the state.
    pub(super) fn new(key: &[u8; HMAC_BYTES]) -> Self {
        // RFC 2104 §2: a key shorter than a block is padded with zeros. Doing so here makes the
        // length right by type, where the slice constructor returns an error that cannot happen.
        let mut block = Zeroizing::new([0u8; BLOCK_BYTES]);
        for (to, from) in block.iter_mut().zip(key) {
            *to = *from;
        }
        let block: &[u8; BLOCK_BYTES] = &block;
        Self(Box::new(Hmac::new(block.into())))
    }

    /// Writes the MAC of the concatenated `parts` to `out`.
    pub(super) fn mac_into(&self, parts: &[&[u8]], out: &mut [u8; HMAC_BYTES]) {
        let mut state = Hmac::clone(&self.0);
        for part in parts {
            state.update(part);
        }
        state.finalize_into(out.into());
    }

    /// The MAC of the concatenated `parts`.
    pub(super) fn mac(&self, parts: &[&[u8]]) -> [u8; HMAC_BYTES] {
        let mut out = [0u8; HMAC_BYTES];
        self.mac_into(parts, &mut out);
        out
    }
}

/// HKDF-Expand to one block, T(1) = HMAC(key, info ‖ 0x01), with `info` given in parts.
///
/// `key` is uniformly random, so HKDF-Extract may be left out (RFC 5869 §3.3). The block is written
/// where it will live: a general HKDF would leave copies of the derived key on the stack.
pub(super) fn expand(key: &[u8; HMAC_BYTES], info: &[&[u8]]) -> SecretArray<HMAC_BYTES> {
    let mut parts = info.to_vec();
    parts.push(&[1]);
    SecretArray::init_with(|out| HmacKey::new(key).mac_into(&parts, out))
}

/// HKDF without a salt: `len` bytes, of which there are at most 255 blocks, from a key of any kind.
pub(super) fn hkdf(key: &[u8], info: &[u8], len: usize) -> SecretBytes {
    // RFC 5869 §2.2: without a salt, a string of zeros as long as the hash.
    let prk = SecretArray::<HMAC_BYTES>::init_with(|out| {
        HmacKey::new(&[0; HMAC_BYTES]).mac_into(&[key], out);
    });
    let expander = HmacKey::new(prk.expose());
    let mut out = Zeroizing::new(Vec::with_capacity(len.next_multiple_of(HMAC_BYTES)));
    let mut block = Zeroizing::new([0u8; HMAC_BYTES]);
    for counter in 1..=u8::MAX {
        if out.len() >= len {
            break;
        }
        let previous: &[u8] = if counter == 1 { &[] } else { &*block };
        let previous = Zeroizing::new(previous.to_vec());
        expander.mac_into(&[&previous, info, &[counter]], &mut block);
        out.extend_from_slice(&*block);
    }
    out.truncate(len);
    SecretBytes::new(std::mem::take(&mut *out))
}

#[cfg(test)]
mod tests;
