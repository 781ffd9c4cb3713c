//! Shamir's secret sharing over GF(2^8), in the share format that Vault's tools know.
//!
//! The field is that of AES: polynomials modulo x^8 + x^4 + x^3 + x + 1 (0x11b). Each byte of the
//! secret is the value at zero of a polynomial of its own; a share is the values of all of them at one
//! point, followed by the point: `y₀ y₁ … yₙ x`.
//!
//! Secrets meet no table and no branch, only masks and shifts: table look-ups leave traces in the
//! cache. The points `x` are not secret (they are the last byte of each share).

use std::hint::black_box;

use zeroize::Zeroizing;

use crate::types::secret::{RandomError, SecretBytes, fill_random};

/// Longest secret that is split, in bytes.
pub const SECRET_BYTES_MAX: usize = 4096;

/// Why a secret was not split or put together.
#[derive(Debug, thiserror::Error)]
pub enum ShamirError {
    /// Not 1 of 1, nor 2 ≤ threshold ≤ shares.
    #[error("the threshold must be at least 2 and at most the number of shares, or 1 of 1")]
    Threshold,
    /// Nothing to split, or more than [`SECRET_BYTES_MAX`].
    #[error("the secret must have 1 to {SECRET_BYTES_MAX} bytes")]
    SecretLength,
    /// Fewer shares than the threshold.
    #[error("{have} shares are too few, {need} are needed")]
    TooFew {
        /// How many were given.
        have: usize,
        /// How many it takes.
        need: u8,
    },
    /// A share has no point, the point zero, or another length than the others.
    #[error("a share is malformed or belongs to another secret")]
    Malformed,
    /// The same share twice.
    #[error("the same share was given twice")]
    Duplicate,
    /// No randomness.
    #[error(transparent)]
    Random(#[from] RandomError),
}

/// Splits `secret` into `shares` shares, any `threshold` of which bring it back while fewer say
/// nothing about it but its length.
///
/// # Errors
/// [`ShamirError::Threshold`], [`ShamirError::SecretLength`] or [`ShamirError::Random`].
pub fn split(secret: &[u8], shares: u8, threshold: u8) -> Result<Vec<SecretBytes>, ShamirError> {
    if !((shares, threshold) == (1, 1) || (2 <= threshold && threshold <= shares)) {
        return Err(ShamirError::Threshold);
    }
    if secret.is_empty() || secret.len() > SECRET_BYTES_MAX {
        return Err(ShamirError::SecretLength);
    }
    // All coefficients are uniform over all 256 values, the leading one too. Insisting that it be
    // non-zero looks tidier and is a leak: threshold - 1 holders could then rule out one value of
    // each secret byte, and enough sharings of the same secret would single it out (RUSTSEC-2024-0398).
    let coefficients = SecretBytes::random(secret.len() * (usize::from(threshold) - 1))?;
    let points = distinct_points(shares)?;
    Ok(evaluate(secret, coefficients.expose(), &points))
}

/// Puts a secret together again. All the shares given are used. Shares of different secrets, or a
/// damaged share, give wrong bytes rather than an error: the caller finds out by opening something
/// with them.
///
/// # Errors
/// [`ShamirError::TooFew`], [`ShamirError::Malformed`] or [`ShamirError::Duplicate`].
pub fn combine(shares: &[SecretBytes], threshold: u8) -> Result<SecretBytes, ShamirError> {
    if shares.is_empty() || shares.len() < usize::from(threshold) {
        return Err(ShamirError::TooFew { have: shares.len(), need: threshold.max(1) });
    }
    let mut parsed: Vec<(u8, &[u8])> = Vec::with_capacity(shares.len());
    for share in shares {
        let (x, y) = share.expose().split_last().ok_or(ShamirError::Malformed)?;
        if *x == 0 || y.is_empty() || parsed.first().is_some_and(|(_, p)| p.len() != y.len()) {
            return Err(ShamirError::Malformed);
        }
        if parsed.iter().any(|(known, _)| known == x) {
            return Err(ShamirError::Duplicate);
        }
        parsed.push((*x, y));
    }
    let length = parsed.first().map_or(0, |(_, y)| y.len());
    let mut secret = Zeroizing::new(vec![0u8; length]);
    for (x, y) in &parsed {
        // Lagrange's basis polynomial of this point, at zero; minus is plus in this field.
        let others = parsed.iter().map(|(other, _)| *other).filter(|other| other != x);
        let basis = others.fold(1, |acc, other| mul(acc, mul(other, invert(other ^ x))));
        for (to, from) in secret.iter_mut().zip(*y) {
            *to ^= mul(*from, basis);
        }
    }
    Ok(SecretBytes::new(std::mem::take(&mut *secret)))
}

/// The shares at `points`. `coefficients` holds, for each byte of the secret in turn, those of x¹ and
/// upwards.
fn evaluate(secret: &[u8], coefficients: &[u8], points: &[u8]) -> Vec<SecretBytes> {
    let per_byte = coefficients.len() / secret.len().max(1);
    let share_at = |x: u8| {
        let mut share = Vec::with_capacity(secret.len() + 1);
        for (position, byte) in secret.iter().enumerate() {
            // Horner's rule, from the highest power down.
            let powers = coefficients.iter().skip(position * per_byte).take(per_byte).rev();
            share.push(mul(powers.fold(0, |acc, c| mul(acc, x) ^ c), x) ^ byte);
        }
        share.push(x);
        SecretBytes::new(share)
    };
    points.iter().map(|x| share_at(*x)).collect()
}

/// `count` different points in random order, none of them zero, where the secret itself is.
fn distinct_points(count: u8) -> Result<Vec<u8>, RandomError> {
    let mut points = Vec::with_capacity(usize::from(count));
    let mut pool = [0u8; 64];
    while points.len() < usize::from(count) {
        fill_random(&mut pool)?;
        for x in pool {
            if x != 0 && points.len() < usize::from(count) && !points.contains(&x) {
                points.push(x);
            }
        }
    }
    Ok(points)
}

/// The product in GF(2^8). Eight rounds whatever the factors.
fn mul(a: u8, b: u8) -> u8 {
    let (mut a, mut product) = (a, 0);
    for bit in 0..8 {
        product ^= a & mask(b >> bit);
        a = (a << 1) ^ (0x1b & mask(a >> 7));
    }
    product
}

/// The inverse in GF(2^8), as a^254; zero for zero, which callers have excluded.
fn invert(a: u8) -> u8 {
    // 254 = 2 + 4 + … + 128.
    let (mut power, mut inverse) = (a, 1);
    for _ in 0..7 {
        power = mul(power, power);
        inverse = mul(inverse, power);
    }
    inverse
}

/// All ones when the lowest bit is set. Hidden from the optimiser, which might make it a branch.
fn mask(bits: u8) -> u8 {
    black_box(0u8.wrapping_sub(bits & 1))
}

#[cfg(test)]
mod tests;
