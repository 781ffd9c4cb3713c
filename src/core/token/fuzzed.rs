//! How tokens are told from other texts, for the fuzz targets. No build without the feature `failpoints`
//! has it.

use super::plain::{self, Presented};

/// What a presented text claims to be: sealed facts, or, without any, a token that is stored. `None`
/// for what was never a token.
pub fn presented(text: &str) -> Option<Vec<u8>> {
    plain::classify(text).map(|presented| match presented {
        Presented::Stored => Vec::new(),
        Presented::Batch(sealed) => sealed,
    })
}

/// The batch token that carries these facts.
pub fn batch(sealed: &[u8]) -> String {
    plain::batch(sealed).expose().to_owned()
}
