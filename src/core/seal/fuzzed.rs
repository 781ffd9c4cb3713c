//! How shares are read, for the fuzz targets. No build without the feature `failpoints` has it.

use super::shares;

/// The bytes of a share in any of its spellings; `None` for what is no share.
pub fn share(text: &str) -> Option<Vec<u8>> {
    shares::parse_share(text).ok().map(|share| share.expose().to_vec())
}
