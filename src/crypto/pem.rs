//! Keys in the text form of RFC 7468, and what is inside a PKCS #8 key.

use data_encoding::BASE64;
use zeroize::Zeroizing;

use crate::types::secret::{SecretBytes, SecretString};

/// Characters of a line.
const LINE: usize = 64;

/// `der` between lines that say what it is, such as `PUBLIC KEY`.
pub fn text(label: &str, der: &[u8]) -> SecretString {
    let encoded = Zeroizing::new(BASE64.encode(der));
    let mut text = String::with_capacity(encoded.len() + encoded.len() / LINE + 80);
    text.push_str("-----BEGIN ");
    text.push_str(label);
    text.push_str("-----\n");
    let mut rest = encoded.as_str();
    while !rest.is_empty() {
        let (line, further) = rest.split_at_checked(LINE).unwrap_or((rest, ""));
        text.push_str(line);
        text.push('\n');
        rest = further;
    }
    text.push_str("-----END ");
    text.push_str(label);
    text.push_str("-----\n");
    SecretString::new(text)
}

/// The label and the contents of the one block in `text`.
pub fn der_of(text: &str) -> Option<(String, SecretBytes)> {
    let (_, rest) = text.split_once("-----BEGIN ")?;
    let (label, rest) = rest.split_once("-----")?;
    let (body, _) = rest.split_once("-----END ")?;
    let body = Zeroizing::new(body.split_whitespace().collect::<String>());
    Some((label.to_owned(), SecretBytes::new(BASE64.decode(body.as_bytes()).ok()?)))
}

/// Kinds of keys that go into a PKCS #8 structure (RFC 5958).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pkcs8 {
    /// A seed (RFC 8410 §7).
    Ed25519,
    /// The structure of RFC 5915.
    P256,
    /// The same.
    P384,
    /// The same.
    P521,
    /// The structure of RFC 8017 §A.1.2.
    Rsa,
}

impl Pkcs8 {
    /// The identifier of the algorithm, as DER.
    const fn algorithm(self) -> &'static [u8] {
        match self {
            Self::Ed25519 => &[0x06, 0x03, 0x2b, 0x65, 0x70],
            Self::P256 => &[
                0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48,
                0xce, 0x3d, 0x03, 0x01, 0x07,
            ],
            Self::P384 => &[
                0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x05, 0x2b, 0x81, 0x04,
                0x00, 0x22,
            ],
            Self::P521 => &[
                0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x05, 0x2b, 0x81, 0x04,
                0x00, 0x23,
            ],
            Self::Rsa => {
                &[0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00]
            }
        }
    }

    /// The structure with this key inside.
    pub fn of(self, key: &[u8]) -> SecretBytes {
        let seed = Zeroizing::new(match self {
            Self::Ed25519 => wrapped(0x04, key),
            Self::P256 | Self::P384 | Self::P521 | Self::Rsa => key.to_vec(),
        });
        let key = Zeroizing::new(wrapped(0x04, &seed));
        let version: &[u8] = &[0x02, 0x01, 0x00];
        let parts = Zeroizing::new([version, &wrapped(0x30, self.algorithm()), &key].concat());
        SecretBytes::new(wrapped(0x30, &parts))
    }
}

/// An element of DER.
fn wrapped(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len().to_be_bytes();
    let short: Vec<u8> = length.iter().copied().skip_while(|byte| *byte == 0).collect();
    let mut out = Vec::with_capacity(content.len() + 10);
    out.push(tag);
    match (short.as_slice(), u8::try_from(short.len())) {
        ([], _) => out.push(0),
        ([byte], _) if *byte < 0x80 => out.push(*byte),
        (bytes, count) => {
            out.push(0x80 | count.unwrap_or(8));
            out.extend_from_slice(bytes);
        }
    }
    out.extend_from_slice(content);
    out
}

/// The key inside a PKCS #8 structure (RFC 5958): of an RSA key, the structure of RFC 8017 §A.1.2.
pub(super) fn inside_pkcs8(der: &[u8]) -> Option<&[u8]> {
    let (body, _) = element(der, 0x30)?;
    let (_version, rest) = element(body, 0x02)?;
    let (_algorithm, rest) = element(rest, 0x30)?;
    let (key, _) = element(rest, 0x04)?;
    Some(key)
}

/// The contents of the first element, which has this tag, and what follows it.
fn element(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (first, rest) = der.split_first()?;
    let (length, rest) = rest.split_first()?;
    if *first != tag {
        return None;
    }
    let (length, rest) = match *length {
        short @ 0..0x80 => (usize::from(short), rest),
        long => {
            let (bytes, rest) = rest.split_at_checked(usize::from(long & 0x7f))?;
            if bytes.len() > 4 {
                return None;
            }
            (bytes.iter().fold(0, |length, byte| (length << 8) | usize::from(*byte)), rest)
        }
    };
    rest.split_at_checked(length)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lines_are_of_64_characters() {
        let text = text("PUBLIC KEY", &[0; 60]);
        let lines: Vec<_> = text.expose().lines().collect();
        assert_eq!(lines[0], "-----BEGIN PUBLIC KEY-----");
        assert_eq!((lines[1].len(), lines[2].len(), lines.len()), (64, 16, 4));
        assert_eq!(super::text("X", &[0; 48]).expose().lines().count(), 3);
    }

    #[test]
    fn the_inside_of_a_short_structure_is_found() {
        let der = [0x30, 10, 0x02, 1, 0, 0x30, 0, 0x04, 3, 7, 8, 9];
        assert_eq!(inside_pkcs8(&der), Some(&[7u8, 8, 9][..]));
        assert_eq!(inside_pkcs8(&der[..11]), None);
        assert_eq!(inside_pkcs8(&[0x30, 0x85, 0, 0, 0, 0, 1]), None);
    }

    proptest! {
        #[test]
        fn whatever_is_read_nothing_breaks(der in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = inside_pkcs8(&der);
        }
    }
}
