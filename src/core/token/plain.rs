//! What a bearer token looks like.
//!
//! `lhs.` and 24 random base62 characters (142 bits) and 6 of a checksum; `lhb.`, base64url and 6 of
//! a checksum for batch tokens. Prefix and checksum let secret scanners find leaked tokens without
//! false alarms, and let the server refuse garbage without asking the store.

use data_encoding::BASE64URL_NOPAD;
use zeroize::Zeroizing;

use crate::types::id::random_base62;
use crate::types::secret::{RandomError, SecretString};

/// Start of service tokens.
pub const SERVICE_PREFIX: &str = "lhs.";
/// Start of batch tokens.
pub const BATCH_PREFIX: &str = "lhb.";
/// Longest token accepted, in bytes.
pub const TOKEN_BYTES_MAX: usize = 8192;

/// Length of the service tokens that are made here.
pub const SERVICE_TOKEN_BYTES: usize = SERVICE_PREFIX.len() + RANDOM_CHARS + CHECKSUM_CHARS;

const RANDOM_CHARS: usize = 24;
const CHECKSUM_CHARS: usize = 6;
/// Longest token that root may choose.
const CHOSEN_BYTES_MAX: usize = 255;
const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// What a presented text claims to be, once its checksum is right.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Presented {
    /// A stored token: made by us, or chosen by root.
    Stored,
    /// Sealed facts.
    Batch(Vec<u8>),
}

/// A fresh service token.
pub(super) fn service() -> Result<SecretString, RandomError> {
    let random = Zeroizing::new(random_base62(RANDOM_CHARS)?);
    Ok(with_checksum(SERVICE_PREFIX, &random))
}

/// The batch token that carries `sealed`.
pub(super) fn batch(sealed: &[u8]) -> SecretString {
    with_checksum(BATCH_PREFIX, &BASE64URL_NOPAD.encode(sealed))
}

/// Judges by the form alone. `None` for what was never a token.
pub(super) fn classify(text: &str) -> Option<Presented> {
    if text.len() > TOKEN_BYTES_MAX {
        return None;
    }
    let Some((start, _)) = text.split_once('.') else {
        return is_choosable(text).then_some(Presented::Stored);
    };
    let (body, sum) = text.split_at_checked(text.len().checked_sub(CHECKSUM_CHARS)?)?;
    if checksum(body) != sum.as_bytes() {
        return None;
    }
    let content = body.get(start.len() + 1..)?;
    if body.starts_with(SERVICE_PREFIX) {
        let shaped =
            content.len() == RANDOM_CHARS && content.bytes().all(|b| b.is_ascii_alphanumeric());
        shaped.then_some(Presented::Stored)
    } else if body.starts_with(BATCH_PREFIX) {
        BASE64URL_NOPAD.decode(content.as_bytes()).ok().map(Presented::Batch)
    } else {
        None
    }
}

/// Whether root may choose `text` as a token: printable ASCII without a dot, at most 255 bytes.
pub(super) fn is_choosable(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= CHOSEN_BYTES_MAX
        && text.bytes().all(|b| b.is_ascii_graphic() && b != b'.')
}

fn with_checksum(prefix: &str, content: &str) -> SecretString {
    let mut text = String::with_capacity(prefix.len() + content.len() + CHECKSUM_CHARS);
    text.push_str(prefix);
    text.push_str(content);
    let sum = checksum(&text);
    text.extend(sum.iter().map(|byte| char::from(*byte)));
    SecretString::new(text)
}

/// CRC-32 of the text as six base62 digits, the most significant first.
fn checksum(text: &str) -> [u8; CHECKSUM_CHARS] {
    let mut rest = crc32(text.as_bytes());
    let mut digits = [b'0'; CHECKSUM_CHARS];
    for digit in digits.iter_mut().rev() {
        *digit = BASE62.get(rest as usize % BASE62.len()).copied().unwrap_or(b'0');
        rest /= 62;
    }
    digits
}

/// CRC-32 as in ISO-HDLC, Ethernet and zip.
fn crc32(bytes: &[u8]) -> u32 {
    let step = |sum: u32| if sum & 1 == 1 { (sum >> 1) ^ 0xedb8_8320 } else { sum >> 1 };
    !bytes
        .iter()
        .fold(u32::MAX, |sum, byte| (0..8).fold(sum ^ u32::from(*byte), |sum, _| step(sum)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_checksum_is_the_published_crc() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
        assert_eq!(&checksum("123456789"), b"3jZRME");
    }

    #[test]
    fn fresh_tokens_have_the_documented_form() {
        let token = service().unwrap();
        let text = token.expose();
        assert_eq!((text.len(), text.get(..4)), (34, Some("lhs.")));
        assert!(text[4..].bytes().all(|b| b.is_ascii_alphanumeric()));
        assert_eq!(classify(text), Some(Presented::Stored));
        assert_eq!(classify(batch(b"facts").expose()), Some(Presented::Batch(b"facts".to_vec())));
    }

    #[test]
    fn what_was_never_a_token_is_refused_by_its_form() {
        let long = "a".repeat(256);
        let valid = service().unwrap();
        let doubled = format!("{}{}", valid.expose(), valid.expose());
        let padded = format!(" {}", valid.expose());
        let other = with_checksum("hvs.", "000000000000000000000000");
        let short = with_checksum(SERVICE_PREFIX, "0");
        for text in [
            "",
            ".",
            "lhs.",
            "lhs.000000000000000000000000000000",
            "lhb.AAAA",
            "has space",
            "umläut",
            "a.b",
            &long,
            &doubled,
            &padded,
            other.expose(),
            short.expose(),
        ] {
            assert_eq!(classify(text), None, "{text:?}");
        }
        assert_eq!(classify("chosen-by-root"), Some(Presented::Stored));
    }

    proptest! {
        #[test]
        fn any_single_change_is_noticed(position in 0usize..34, byte in 0x21u8..0x7f) {
            let token = service().unwrap();
            let mut changed = token.expose().as_bytes().to_vec();
            prop_assume!(changed[position] != byte && position != 3);
            changed[position] = byte;
            prop_assert_eq!(classify(std::str::from_utf8(&changed).unwrap()), None);
        }

        #[test]
        fn no_text_makes_it_panic(text in "\\PC{0,64}|lh[sb]\\.[0-9A-Za-z_-]{0,64}") {
            let _ = classify(&text);
        }
    }
}
