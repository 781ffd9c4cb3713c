//! Secrets inside records. The store seals every record; this is the one way a secret gets into one.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::types::secret::SecretString;

/// A secret that is part of a stored record. Its JSON form is the secret itself, so it belongs into
/// records and never into answers.
pub struct StoredSecret(SecretString);

impl StoredSecret {
    /// Takes over `secret`.
    pub fn new(secret: SecretString) -> Self {
        Self(secret)
    }

    /// The secret.
    pub fn secret(&self) -> &SecretString {
        &self.0
    }
}

impl Serialize for StoredSecret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0.expose())
    }
}

impl<'de> Deserialize<'de> for StoredSecret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        SecretString::deserialize(deserializer).map(Self)
    }
}
