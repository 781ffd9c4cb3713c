//! Addresses as QR codes (ISO/IEC 18004), in PNG images that apps are shown.
//!
//! The image is of two colours and not compressed: an encoder for that is shorter than the care that a
//! further dependency takes, and what it wrote can be wiped.

use qrcode::{Color, EcLevel, QrCode};
use zeroize::Zeroizing;

use crate::types::secret::{SecretBytes, SecretString};

/// Width of an image in pixels when nothing is said.
pub const PIXELS_DEFAULT: u32 = 200;
/// Widest image, in pixels.
pub const PIXELS_MAX: u32 = 1024;
/// Light modules around the code, which readers need (section 9.1).
const QUIET_MODULES: usize = 4;
/// Most bytes in one stored block of a deflate stream (RFC 1951 section 3.2.4).
const BLOCK_BYTES_MAX: usize = 65_535;

/// Why there is no image.
#[derive(Debug, thiserror::Error)]
pub enum BarcodeError {
    /// The address is longer than a QR code can be.
    #[error("cannot be: the address is too long for a QR code")]
    TooLong,
    /// A module would be smaller than a pixel.
    #[error("is too small: this address takes at least {0} pixels")]
    TooSmall(usize),
}

/// The QR code of `text` in a PNG image (ISO/IEC 15948), `pixels` wide and high.
///
/// # Errors
/// When the text does not fit in a code, or the code not in so many pixels.
pub fn png(text: &SecretString, pixels: u32) -> Result<SecretBytes, BarcodeError> {
    let code = QrCode::with_error_correction_level(text.expose(), EcLevel::M)
        .map_err(|_| BarcodeError::TooLong)?;
    let modules = code.width();
    let colors = Zeroizing::new(
        code.into_colors().into_iter().map(|color| color == Color::Dark).collect::<Vec<_>>(),
    );
    let width = usize::try_from(pixels).unwrap_or(0);
    let framed = modules + 2 * QUIET_MODULES;
    let scale = width.checked_div(framed).filter(|scale| *scale > 0);
    let scale = scale.ok_or(BarcodeError::TooSmall(framed))?;
    // The code in the middle, its modules all of one size.
    let margin = (width - modules * scale) / 2;
    let module = |pixel: usize| {
        pixel
            .checked_sub(margin)
            .and_then(|inside| inside.checked_div(scale))
            .filter(|module| *module < modules)
    };
    let dark = |x: usize, y: usize| match (module(x), module(y)) {
        (Some(x), Some(y)) => colors.get(y * modules + x).copied().unwrap_or(false),
        (_, _) => false,
    };
    // One bit for each pixel, 1 for white; each row begins with the number of its filter, none.
    let mut rows = Zeroizing::new(Vec::with_capacity(width * (width / 8 + 2)));
    for y in 0..width {
        rows.push(0);
        for eight in 0..width.div_ceil(8) {
            let byte = (0..8).fold(0u8, |byte, bit| {
                let white = !dark(eight * 8 + bit, y);
                (byte << 1) | u8::from(white)
            });
            rows.push(byte);
        }
    }
    Ok(image(pixels, &rows))
}

fn image(pixels: u32, rows: &[u8]) -> SecretBytes {
    let mut header = Vec::new();
    header.extend(pixels.to_be_bytes());
    header.extend(pixels.to_be_bytes());
    // One bit deep, grey, and the only methods there are of compression, filtering and interlacing.
    header.extend([1, 0, 0, 0, 0]);
    // Reserved as a whole, so that growing leaves no copies behind.
    let mut out = Zeroizing::new(Vec::with_capacity(rows.len() + rows.len() / 1024 + 128));
    out.extend(b"\x89PNG\r\n\x1a\n");
    chunk(&mut out, *b"IHDR", &header);
    chunk(&mut out, *b"IDAT", &stored(rows));
    chunk(&mut out, *b"IEND", &[]);
    SecretBytes::copy_of(&out)
}

fn chunk(out: &mut Vec<u8>, kind: [u8; 4], data: &[u8]) {
    out.extend(u32::try_from(data.len()).unwrap_or(u32::MAX).to_be_bytes());
    out.extend(kind);
    out.extend(data);
    out.extend(crc32(kind.iter().chain(data)).to_be_bytes());
}

/// A zlib stream (RFC 1950) of stored blocks (RFC 1951 section 3.2.4).
fn stored(data: &[u8]) -> Zeroizing<Vec<u8>> {
    let mut out = Zeroizing::new(Vec::with_capacity(data.len() + data.len() / 1024 + 64));
    out.extend([0x78, 0x01]);
    let mut blocks = data.chunks(BLOCK_BYTES_MAX).peekable();
    while let Some(block) = blocks.next() {
        let len = u16::try_from(block.len()).unwrap_or(u16::MAX);
        out.push(u8::from(blocks.peek().is_none()));
        out.extend(len.to_le_bytes());
        out.extend((!len).to_le_bytes());
        out.extend(block);
    }
    out.extend(adler32(data).to_be_bytes());
    out
}

/// The checksum of PNG chunks (ISO/IEC 15948 annex D).
fn crc32<'b>(bytes: impl Iterator<Item = &'b u8>) -> u32 {
    !bytes.fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 }
        })
    })
}

/// The checksum of zlib streams (RFC 1950 section 8.2).
fn adler32(bytes: &[u8]) -> u32 {
    let (a, b) = bytes.iter().fold((1u32, 0u32), |(a, b), byte| {
        let a = (a + u32::from(*byte)) % 65_521;
        (a, (b + a) % 65_521)
    });
    (b << 16) | a
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text() -> SecretString {
        SecretString::new("otpauth://totp/Corp:ann?secret=GEZDGNBVGY3TQOJQ".repeat(3))
    }

    #[test]
    fn checksums_are_those_of_the_standards() {
        // "123456789", the usual check values of both.
        assert_eq!(crc32(b"123456789".iter()), 0xcbf4_3926);
        assert_eq!(adler32(b"Wikipedia"), 0x11e6_0398);
    }

    #[test]
    fn the_image_is_as_wide_as_asked_for_and_frames_the_code_in_white() {
        for pixels in [100u32, 200, 333, PIXELS_MAX] {
            let png = png(&text(), pixels).unwrap();
            let bytes = png.expose();
            assert_eq!(&bytes[..8], b"\x89PNG\r\n\x1a\n");
            assert_eq!(&bytes[16..24], [pixels.to_be_bytes(), pixels.to_be_bytes()].concat());
            // The rows, out of their stored blocks again.
            let begin = bytes.windows(4).position(|four| four == b"IDAT").unwrap() + 4;
            let len = u32::from_be_bytes(bytes[begin - 8..begin - 4].try_into().unwrap()) as usize;
            let mut stream = &bytes[begin + 2..begin + len - 4];
            let mut rows = Vec::new();
            while !stream.is_empty() {
                let len = u16::from_le_bytes([stream[1], stream[2]]);
                assert_eq!(u16::from_le_bytes([stream[3], stream[4]]), !len);
                rows.extend_from_slice(&stream[5..5 + usize::from(len)]);
                stream = &stream[5 + usize::from(len)..];
            }
            let width = pixels as usize;
            let stride = width.div_ceil(8) + 1;
            assert_eq!(rows.len(), stride * width);
            let dark = |x: usize, y: usize| rows[y * stride + 1 + x / 8] & (0x80 >> (x % 8)) == 0;
            assert!(rows.iter().step_by(stride).all(|filter| *filter == 0));
            assert!((0..width).all(|at| !dark(at, 0) && !dark(0, at) && !dark(width - 1, at)));
            let black = (0..width * width).filter(|at| dark(at % width, at / width)).count();
            assert!((width * width / 10..width * width / 2).contains(&black), "{black}");
        }
    }

    #[test]
    fn what_cannot_be_shown_is_refused() {
        assert!(matches!(png(&text(), 20), Err(BarcodeError::TooSmall(least)) if least > 20));
        let long = SecretString::new("x".repeat(4000));
        assert!(matches!(png(&long, 200), Err(BarcodeError::TooLong)));
    }
}
