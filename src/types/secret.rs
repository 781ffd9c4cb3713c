//! Values that must never be printed, compared in variable time, or left in memory.
//!
//! None of these types is `Clone`, `PartialEq`, `Display` or `Serialize`. Reading one is spelled
//! [`expose`](SecretBytes::expose), so that a reviewer can search for every place that does.

use std::fmt;

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// Secret bytes of any length, wiped when dropped.
pub struct SecretBytes(Zeroizing<Vec<u8>>);

impl SecretBytes {
    /// Takes over `bytes`; the caller keeps no copy.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// Copies `bytes` into a secret of its own.
    pub fn copy_of(bytes: &[u8]) -> Self {
        Self::new(bytes.to_vec())
    }

    /// `len` bytes from the operating system's generator.
    ///
    /// # Errors
    /// When the operating system has no randomness to give.
    pub fn random(len: usize) -> Result<Self, RandomError> {
        let mut bytes = Zeroizing::new(vec![0u8; len]);
        fill_random(&mut bytes)?;
        Ok(Self(bytes))
    }

    /// The bytes themselves.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Equality in time that depends only on the lengths.
    pub fn ct_eq(&self, other: &[u8]) -> bool {
        self.0.as_slice().ct_eq(other).into()
    }
}

impl fmt::Debug for SecretBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretBytes")
    }
}

/// A secret of exactly `N` bytes: a key, a seed, a tag key. Boxed, so that moving it moves a pointer.
pub struct SecretArray<const N: usize>(Box<Zeroizing<[u8; N]>>);

impl<const N: usize> SecretArray<N> {
    /// `N` bytes from the operating system's generator, written in place.
    ///
    /// # Errors
    /// When the operating system has no randomness to give.
    pub fn random() -> Result<Self, RandomError> {
        let mut boxed = Box::new(Zeroizing::new([0u8; N]));
        fill_random(boxed.as_mut_slice())?;
        Ok(Self(boxed))
    }

    /// Builds the secret in place with `fill`.
    pub fn init_with(fill: impl FnOnce(&mut [u8; N])) -> Self {
        let mut boxed = Box::new(Zeroizing::new([0u8; N]));
        fill(&mut boxed);
        Self(boxed)
    }

    /// Copies `bytes` when there are exactly `N` of them.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        (bytes.len() == N).then(|| Self::init_with(|out| out.copy_from_slice(bytes)))
    }

    /// The bytes themselves.
    pub fn expose(&self) -> &[u8; N] {
        &self.0
    }

    /// An explicit second copy, for the few places where a key has two owners.
    pub fn duplicate(&self) -> Self {
        Self::init_with(|out| out.copy_from_slice(self.expose()))
    }

    /// Constant-time equality.
    pub fn ct_eq(&self, other: &[u8; N]) -> bool {
        self.0.as_slice().ct_eq(other.as_slice()).into()
    }
}

impl<const N: usize> fmt::Debug for SecretArray<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretArray<{N}>")
    }
}

/// Secret text, wiped when dropped.
pub struct SecretString(Zeroizing<String>);

impl SecretString {
    /// Takes over `text`; the caller keeps no copy.
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// The text itself.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// An explicit second copy, for the few places where a secret has two owners.
    pub fn duplicate(&self) -> Self {
        Self::new(self.0.as_str().to_owned())
    }

    /// Equality in time that depends only on the lengths.
    pub fn ct_eq(&self, other: &str) -> bool {
        self.0.as_bytes().ct_eq(other.as_bytes()).into()
    }
}

impl fmt::Debug for SecretString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretString")
    }
}

impl<'de> serde::Deserialize<'de> for SecretString {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::new)
    }
}

/// The operating system gave no randomness.
#[derive(Debug, thiserror::Error)]
#[error("the operating system's random generator failed")]
pub struct RandomError;

/// Fills `out` from the operating system's generator.
///
/// # Errors
/// When the operating system has no randomness to give.
pub fn fill_random(out: &mut [u8]) -> Result<(), RandomError> {
    #[cfg(feature = "failpoints")]
    if seeded::fill(out) {
        return Ok(());
    }
    getrandom::fill(out).map_err(|_| RandomError)
}

/// What a test has decided in place of the operating system, so that a schedule can be played again. No
/// build without the feature `failpoints` has it.
#[cfg(feature = "failpoints")]
pub mod seeded {
    use std::cell::Cell;

    thread_local! {
        static STATE: Cell<u64> = const { Cell::new(0) };
    }

    /// Until it is dropped, its thread gets what a seed decides.
    #[derive(Debug)]
    #[must_use]
    pub struct Seeded {
        before: u64,
    }

    /// From now on this thread gets what `seed` decides.
    pub fn begin(seed: u64) -> Seeded {
        // Zero is what an xorshift never leaves; here it stands for the operating system.
        Seeded { before: STATE.replace(seed | 1) }
    }

    impl Drop for Seeded {
        fn drop(&mut self) {
            STATE.set(self.before);
        }
    }

    /// Fills `out`, if it is decided here.
    pub(super) fn fill(out: &mut [u8]) -> bool {
        let mut state = STATE.get();
        if state == 0 {
            return false;
        }
        for chunk in out.chunks_mut(8) {
            // Marsaglia's xorshift64*: what is drawn has to look random, and need not be secret.
            state ^= state >> 12;
            state ^= state << 25;
            state ^= state >> 27;
            let drawn = state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_be_bytes();
            for (byte, drawn) in chunk.iter_mut().zip(drawn) {
                *byte = drawn;
            }
        }
        STATE.set(state);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_prints_the_type_and_nothing_else() {
        assert_eq!(format!("{:?}", SecretString::new("hunter2".into())), "SecretString");
        assert_eq!(format!("{:?}", SecretBytes::copy_of(b"hunter2")), "SecretBytes");
        assert_eq!(format!("{:?}", SecretArray::<4>::init_with(|o| o.fill(7))), "SecretArray<4>");
    }

    #[test]
    fn equality_is_by_content_and_length() {
        let secret = SecretBytes::copy_of(b"abc");
        assert!(secret.ct_eq(b"abc"));
        assert!(!secret.ct_eq(b"abd"));
        assert!(!secret.ct_eq(b"abcd"));
    }

    #[cfg(feature = "failpoints")]
    #[test]
    fn a_seed_decides_for_its_thread_and_its_time() {
        let drawn = || SecretArray::<20>::random().unwrap().expose().to_owned();
        let one_and_two = |seed| {
            let _seeded = seeded::begin(seed);
            (drawn(), drawn())
        };
        let (one, two) = one_and_two(7);
        assert_ne!(one, two);
        assert_eq!(one_and_two(7), (one, two));
        assert_ne!(one_and_two(8).0, one);
        assert_ne!(drawn(), drawn());
        let _seeded = seeded::begin(7);
        assert!(std::thread::spawn(move || drawn() != one).join().unwrap());
        assert_eq!(drawn(), one);
    }

    #[test]
    fn random_secrets_differ() {
        let (a, b) = (SecretArray::<32>::random().unwrap(), SecretArray::<32>::random().unwrap());
        assert!(!a.ct_eq(b.expose()));
    }
}
