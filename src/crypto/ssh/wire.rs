//! The data types of SSH (RFC 4251 section 5), written and strictly read.

use zeroize::Zeroizing;

/// Something being written. What it holds is wiped: it may be a private key.
pub(super) struct Writer(Zeroizing<Vec<u8>>);

impl Writer {
    /// With room for what is going to be written, so that growing leaves no copies behind.
    pub(super) fn with_capacity(bytes: usize) -> Self {
        Self(Zeroizing::new(Vec::with_capacity(bytes)))
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    pub(super) fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(bytes);
        self
    }

    pub(super) fn uint32(&mut self, number: u32) -> &mut Self {
        self.raw(&number.to_be_bytes())
    }

    pub(super) fn uint64(&mut self, number: u64) -> &mut Self {
        self.raw(&number.to_be_bytes())
    }

    pub(super) fn string(&mut self, bytes: &[u8]) -> &mut Self {
        // Nothing that is written here comes near four gigabytes.
        self.uint32(u32::try_from(bytes.len()).unwrap_or(u32::MAX)).raw(bytes)
    }

    /// A number that is not negative, from its big-endian bytes.
    pub(super) fn mpint(&mut self, number: &[u8]) -> &mut Self {
        let number = without_leading_zeros(number);
        // A first bit of 1 would make it negative.
        if number.first().is_some_and(|first| first & 0x80 != 0) {
            let len = number.len().saturating_add(1);
            self.uint32(u32::try_from(len).unwrap_or(u32::MAX)).raw(&[0]).raw(number)
        } else {
            self.string(number)
        }
    }
}

/// Big-endian bytes of a number without zeros in front.
pub(super) fn without_leading_zeros(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    number.get(zeros..).unwrap_or_default()
}

/// Something being read. Each call takes the next item off the front, or answers `None`.
pub(super) struct Reader<'b>(&'b [u8]);

impl<'b> Reader<'b> {
    pub(super) fn new(bytes: &'b [u8]) -> Self {
        Self(bytes)
    }

    /// What has not been read yet.
    pub(super) fn rest(&self) -> &'b [u8] {
        self.0
    }

    pub(super) fn raw(&mut self, len: usize) -> Option<&'b [u8]> {
        let (bytes, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(bytes)
    }

    pub(super) fn uint32(&mut self) -> Option<u32> {
        Some(u32::from_be_bytes(self.raw(4)?.try_into().ok()?))
    }

    pub(super) fn string(&mut self) -> Option<&'b [u8]> {
        let len = usize::try_from(self.uint32()?).ok()?;
        self.raw(len)
    }

    /// A number above zero in its one proper form, as big-endian bytes without zeros in front.
    pub(super) fn mpint(&mut self) -> Option<&'b [u8]> {
        match self.string()? {
            [0, number @ ..] if number.first().is_some_and(|first| first & 0x80 != 0) => {
                Some(number)
            }
            number if number.first().is_some_and(|first| (1..0x80).contains(first)) => Some(number),
            _ => None,
        }
    }

    /// Whether everything was read.
    pub(super) fn end(&self) -> Option<()> {
        self.0.is_empty().then_some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mpint(hex: &str) -> String {
        let mut out = Writer::with_capacity(16);
        out.mpint(&data_encoding::HEXLOWER.decode(hex.as_bytes()).unwrap());
        data_encoding::HEXLOWER.encode(out.bytes())
    }

    // RFC 4251 section 5, the examples that are not negative.
    #[test]
    fn numbers_are_written_as_in_the_examples() {
        assert_eq!(mpint("00"), "00000000");
        assert_eq!(mpint("09a378f9b2e332a7"), "0000000809a378f9b2e332a7");
        assert_eq!(mpint("80"), "000000020080");
        assert_eq!(mpint("000080"), "000000020080");
    }

    #[test]
    fn only_proper_numbers_are_read() {
        let read = |bytes: &[u8]| Reader::new(bytes).mpint().map(<[u8]>::to_vec);
        assert_eq!(read(b"\0\0\0\x02\0\x80"), Some(vec![0x80]));
        assert_eq!(read(b"\0\0\0\x01\x7f"), Some(vec![0x7f]));
        for bad in [
            &b"\0\0\0\0"[..],
            b"\0\0\0\x01\0",
            b"\0\0\0\x01\x80",
            b"\0\0\0\x02\0\x7f",
            b"\0\0\0\x03\0\0\x80",
            b"\0\0\0\x02\x01",
            b"\0\0\0",
            b"\xff\xff\xff\xff\x01",
        ] {
            assert_eq!(read(bad), None, "{bad:?}");
        }
    }
}
