//! The part of BER (X.690) that LDAP uses: one-byte tags and definite lengths (RFC 4511 §5.1).
//!
//! Nothing here recurses over what it reads, and nothing is believed about a length before it was
//! compared with what there is.

use zeroize::Zeroizing;

pub(super) const BOOLEAN: u8 = 0x01;
pub(super) const INTEGER: u8 = 0x02;
pub(super) const OCTET_STRING: u8 = 0x04;
pub(super) const ENUMERATED: u8 = 0x0a;
pub(super) const SEQUENCE: u8 = 0x30;
pub(super) const SET: u8 = 0x31;

/// Most bytes that a length takes here: lengths of up to four gigabytes.
const LENGTH_BYTES_MAX: usize = 4;

/// What was read is not what LDAP is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed")]
pub(super) struct Malformed;

/// How many bytes follow the first byte of a length: none in the short form.
///
/// # Errors
/// The indefinite form, or a length of more than four bytes.
pub(super) fn length_bytes(first: u8) -> Result<usize, Malformed> {
    if first < 0x80 {
        return Ok(0);
    }
    let more = usize::from(first & 0x7f);
    if more == 0 || more > LENGTH_BYTES_MAX { Err(Malformed) } else { Ok(more) }
}

/// The length whose first byte and further bytes are these.
pub(super) fn length(first: u8, more: &[u8]) -> usize {
    match more {
        [] => usize::from(first),
        more => more.iter().fold(0, |sum, byte| (sum << 8) | usize::from(*byte)),
    }
}

/// Reads one element after the other.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next element: its tag and content.
    pub(super) fn element(&mut self) -> Result<(u8, &'a [u8]), Malformed> {
        let (tag, first, rest) = match self.rest {
            // A tag of more than one byte begins with all five number bits set.
            [tag, first, rest @ ..] if tag & 0x1f != 0x1f => (*tag, *first, rest),
            _ => return Err(Malformed),
        };
        let (more, rest) = rest.split_at_checked(length_bytes(first)?).ok_or(Malformed)?;
        let (content, rest) = rest.split_at_checked(length(first, more)).ok_or(Malformed)?;
        self.rest = rest;
        Ok((tag, content))
    }

    /// The content of the next element, which must have this tag.
    pub(super) fn expect(&mut self, tag: u8) -> Result<&'a [u8], Malformed> {
        match self.element()? {
            (found, content) if found == tag => Ok(content),
            _ => Err(Malformed),
        }
    }

    /// The content of the next element if it has this tag.
    pub(super) fn optional(&mut self, tag: u8) -> Result<Option<&'a [u8]>, Malformed> {
        match self.rest.first() {
            Some(next) if *next == tag => self.expect(tag).map(Some),
            Some(_) | None => Ok(None),
        }
    }

    /// The next element as a number that is not negative.
    pub(super) fn number(&mut self, tag: u8) -> Result<u32, Malformed> {
        match self.expect(tag)? {
            bytes @ [first, ..] if bytes.len() <= 4 && *first < 0x80 => {
                Ok(bytes.iter().fold(0, |sum, byte| (sum << 8) | u32::from(*byte)))
            }
            _ => Err(Malformed),
        }
    }
}

/// Writes elements. What it holds may be a password, so it is wiped.
#[derive(Default)]
pub(super) struct Writer {
    bytes: Zeroizing<Vec<u8>>,
}

impl Writer {
    /// An element with this content.
    pub(super) fn element(&mut self, tag: u8, content: &[u8]) {
        self.bytes.push(tag);
        match u8::try_from(content.len()) {
            Ok(short) if short < 0x80 => self.bytes.push(short),
            Ok(_) | Err(_) => {
                let length = content.len().to_be_bytes();
                let zeros = length.iter().take_while(|byte| **byte == 0).count();
                let significant = length.get(zeros..).unwrap_or_default();
                // A length has at most eight bytes.
                self.bytes.push(0x80 | u8::try_from(significant.len()).unwrap_or_default());
                self.bytes.extend_from_slice(significant);
            }
        }
        self.bytes.extend_from_slice(content);
    }

    /// An element that is made of others.
    pub(super) fn nested(&mut self, tag: u8, fill: impl FnOnce(&mut Self)) {
        let mut inner = Self::default();
        fill(&mut inner);
        self.element(tag, &inner.bytes);
    }

    /// Elements that are written already.
    pub(super) fn written(&mut self, elements: &[u8]) {
        self.bytes.extend_from_slice(elements);
    }

    /// Text, or other octets.
    pub(super) fn octets(&mut self, content: &[u8]) {
        self.element(OCTET_STRING, content);
    }

    pub(super) fn number(&mut self, tag: u8, value: u32) {
        let bytes = value.to_be_bytes();
        let mut content = bytes.as_slice();
        while let [0, rest @ ..] = content
            && rest.first().is_some_and(|next| *next < 0x80)
        {
            content = rest;
        }
        match content.first() {
            // The first bit is the sign.
            Some(first) if *first >= 0x80 => self.element(tag, &[&[0], content].concat()),
            Some(_) | None => self.element(tag, content),
        }
    }

    pub(super) fn boolean(&mut self, value: bool) {
        self.element(BOOLEAN, &[if value { 0xff } else { 0 }]);
    }

    pub(super) fn finish(self) -> Zeroizing<Vec<u8>> {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_have_their_shortest_form() {
        for (value, bytes) in [
            (0, &[2, 1, 0][..]),
            (127, &[2, 1, 127]),
            (128, &[2, 2, 0, 128]),
            (256, &[2, 2, 1, 0]),
            (0x7fff_ffff, &[2, 4, 0x7f, 0xff, 0xff, 0xff]),
        ] {
            let mut writer = Writer::default();
            writer.number(INTEGER, value);
            let written = writer.finish();
            assert_eq!(written.as_slice(), bytes);
            assert_eq!(Reader::new(&written).number(INTEGER), Ok(value));
        }
    }

    #[test]
    fn what_does_not_add_up_is_refused() {
        for bytes in [
            &[][..],
            &[4],
            &[4, 1],
            &[4, 0x80, 0, 0],
            &[4, 0x81],
            &[4, 0x84, 0xff, 0xff, 0xff, 0xff],
            &[4, 0x85, 0, 0, 0, 0, 1, 0],
            &[0x1f, 0x81, 0, 0],
        ] {
            assert_eq!(Reader::new(bytes).element(), Err(Malformed), "{bytes:?}");
        }
        for bytes in [&[2, 0][..], &[2, 1, 0x80], &[2, 5, 0, 0, 0, 0, 1], &[4, 1, 0]] {
            assert_eq!(Reader::new(bytes).number(INTEGER), Err(Malformed), "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(contents in prop::collection::vec(
            prop::collection::vec(any::<u8>(), 0..400), 0..5,
        )) {
            let mut writer = Writer::default();
            writer.nested(SEQUENCE, |inner| contents.iter().for_each(|one| inner.octets(one)));
            let written = writer.finish();
            let mut outer = Reader::new(&written);
            let mut inner = Reader::new(outer.expect(SEQUENCE).unwrap());
            for one in &contents {
                prop_assert_eq!(inner.expect(OCTET_STRING).unwrap(), one.as_slice());
            }
            prop_assert!(inner.is_empty() && outer.is_empty());
        }

        #[test]
        fn no_input_is_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let mut reader = Reader::new(&bytes);
            while let Ok((_, content)) = reader.element() {
                prop_assert!(content.len() <= bytes.len());
                let _ = Reader::new(content).number(INTEGER);
            }
        }
    }
}
