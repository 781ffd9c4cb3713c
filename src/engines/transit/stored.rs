//! Key material inside records. The store seals every record; this is the one way a key gets into one.

use data_encoding::BASE64;
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::Zeroizing;

use crate::types::secret::{SecretBytes, SecretString};

/// A key that is part of a stored record.
pub(super) struct StoredKey(SecretBytes);

impl StoredKey {
    pub(super) fn new(key: SecretBytes) -> Self {
        Self(key)
    }

    pub(super) fn secret(&self) -> &SecretBytes {
        &self.0
    }
}

impl Serialize for StoredKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&Zeroizing::new(BASE64.encode(self.0.expose())))
    }
}

impl<'de> Deserialize<'de> for StoredKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = SecretString::deserialize(deserializer)?;
        let bytes = BASE64.decode(text.expose().as_bytes());
        bytes.map(|bytes| Self(SecretBytes::new(bytes))).map_err(|_| D::Error::custom("no base64"))
    }
}
