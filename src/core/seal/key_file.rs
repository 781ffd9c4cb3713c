//! The key file of the static slot: 32 bytes, or as many in hexadecimal.

use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;

use data_encoding::HEXLOWER_PERMISSIVE;
use zeroize::Zeroizing;

use crate::crypto::aead::KEY_BYTES;
use crate::types::secret::SecretArray;

/// A key, its hexadecimal form and a line's end.
const FILE_BYTES_MAX: usize = 2 * KEY_BYTES + 2;

/// Why a key file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// It cannot be read.
    #[error("it cannot be read")]
    Read(#[from] std::io::Error),
    /// Others than its owner have access.
    #[error("others than its owner can read it; make its mode 0600")]
    TooOpen,
    /// Neither 32 bytes nor 64 hexadecimal digits.
    #[error("it must hold 32 bytes, or 64 hexadecimal digits")]
    Malformed,
}

/// Where the key lies.
#[derive(Clone, Debug)]
pub struct KeyFile(PathBuf);

impl KeyFile {
    /// The key in the file at `path`, which only its owner may read.
    pub fn new(path: PathBuf) -> Self {
        Self(path)
    }

    /// Reads the key.
    ///
    /// # Errors
    /// [`KeyFileError`].
    pub fn read(&self) -> Result<SecretArray<KEY_BYTES>, KeyFileError> {
        let mut file = std::fs::File::open(&self.0)?;
        let metadata = file.metadata()?;
        if metadata.permissions().mode() & 0o077 != 0 {
            return Err(KeyFileError::TooOpen);
        }
        let length = usize::try_from(metadata.size()).unwrap_or(usize::MAX);
        if length > FILE_BYTES_MAX {
            return Err(KeyFileError::Malformed);
        }
        let mut bytes = Zeroizing::new(vec![0u8; length]);
        file.read_exact(&mut bytes)?;
        if let Some(key) = SecretArray::from_slice(&bytes) {
            return Ok(key);
        }
        let digits = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
        let digits = digits.strip_suffix(b"\r").unwrap_or(digits);
        let key = HEXLOWER_PERMISSIVE.decode(digits).map_err(|_| KeyFileError::Malformed)?;
        SecretArray::from_slice(&Zeroizing::new(key)).ok_or(KeyFileError::Malformed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(content: &[u8], mode: u32) -> (tempfile::TempDir, KeyFile) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        std::fs::write(&path, content).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        (directory, KeyFile::new(path))
    }

    #[test]
    fn bytes_and_digits_are_read() {
        let key = [0xab; KEY_BYTES];
        for content in [
            key.to_vec(),
            "ab".repeat(KEY_BYTES).into_bytes(),
            format!("{}\n", "AB".repeat(KEY_BYTES)).into_bytes(),
        ] {
            let (_directory, file) = file(&content, 0o600);
            assert!(file.read().unwrap().ct_eq(&key));
        }
    }

    #[test]
    fn other_content_and_open_files_are_refused() {
        for content in [&b""[..], &[1; 31], &[1; 33], b"zz", &[b'g'; 64], &[b'a'; 4096]] {
            let (_directory, file) = file(content, 0o600);
            assert!(matches!(file.read(), Err(KeyFileError::Malformed)), "{content:?}");
        }
        for mode in [0o640, 0o604, 0o660] {
            let (_directory, file) = file(&[7; KEY_BYTES], mode);
            assert!(matches!(file.read(), Err(KeyFileError::TooOpen)));
        }
        let missing = KeyFile::new("/nonexistent/key".into());
        assert!(matches!(missing.read(), Err(KeyFileError::Read(_))));
    }
}
