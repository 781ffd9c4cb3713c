//! A new root token, when enough shares ask for one.
//!
//! The token leaves as its exclusive-or with a one-time pad that whoever began the attempt has: who
//! gives the last share sees nothing of use.

use std::time::Duration;

use data_encoding::{BASE64, BASE64_NOPAD};
use zeroize::Zeroizing;

use crate::types::id::{Accessor, random_base62};
use crate::types::secret::SecretString;

use super::super::context::Core;
use super::super::error::CoreError;
use super::super::guess::Guesser;
use super::super::token::SERVICE_TOKEN_BYTES;
use super::gather::{Gathered, Given, Purpose};
use super::rekey::{Asker, check_nonce};
use super::shares::ShareSet;

/// Gathering shares for a root token.
pub(super) struct GenerateRoot {
    pub(super) set: ShareSet,
    otp: SecretString,
    starter: String,
    pub(super) touched: Duration,
}

/// Where an attempt stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GenerateRootStatus {
    /// Whether there is one.
    pub started: bool,
    /// Tells it from others; empty for those who are not told.
    pub nonce: String,
    /// Shares given so far.
    pub progress: usize,
    /// Shares it takes.
    pub required: u8,
}

/// What came of a share.
pub enum GenerateRootOutcome {
    /// More are needed.
    More(GenerateRootStatus),
    /// The token.
    Done {
        /// Under the pad, base64 without padding.
        encoded: SecretString,
        /// Its handle, to take it back when the answer cannot leave.
        accessor: Option<Accessor>,
        /// Where the attempt ended.
        status: GenerateRootStatus,
    },
}

impl Core {
    /// How long a pad has to be, in bytes: as long as a token.
    pub fn otp_length(&self) -> usize {
        SERVICE_TOKEN_BYTES
    }

    /// Begins an attempt under `otp`, or under a fresh pad, which is returned.
    ///
    /// # Errors
    /// `Invalid` when one is in progress or the pad has another length; `Sealed`.
    pub async fn generate_root_start(
        &self,
        otp: Option<SecretString>,
        starter: String,
    ) -> Result<Option<SecretString>, CoreError> {
        let _turn = self.seal.turn.lock().await;
        self.unsealed()?;
        if self.stored_seal().await?.value.shared().next().is_none() {
            return Err(CoreError::invalid("there are no unseal shares; a slot opens by itself"));
        }
        if otp.as_ref().is_some_and(|otp| otp.expose().len() != SERVICE_TOKEN_BYTES) {
            return Err(CoreError::field(
                "otp",
                format!("must be {SERVICE_TOKEN_BYTES} characters long"),
            ));
        }
        let now = self.clock.monotonic();
        let mut ceremonies = self.seal.ceremonies();
        ceremonies.drop_idle(now);
        if ceremonies.generate_root.is_some() {
            return Err(CoreError::invalid("root generation already in progress"));
        }
        let (otp, fresh) = match otp {
            Some(given) => (given, None),
            None => {
                let pad = SecretString::new(random_base62(SERVICE_TOKEN_BYTES)?);
                (pad.duplicate(), Some(pad))
            }
        };
        ceremonies.generate_root =
            Some(GenerateRoot { set: ShareSet::begin()?, otp, starter, touched: now });
        Ok(fresh)
    }

    /// Where the attempt stands, as told to `asker`.
    ///
    /// # Errors
    /// `Sealed`, or when the store fails.
    pub async fn generate_root_status(
        &self,
        asker: Asker<'_>,
    ) -> Result<GenerateRootStatus, CoreError> {
        self.unsealed()?;
        let stored = self.stored_seal().await?.value;
        let required = stored.shared().map(|slot| slot.threshold).max().unwrap_or(0);
        let mut ceremonies = self.seal.ceremonies();
        ceremonies.drop_idle(self.clock.monotonic());
        let attempt = ceremonies.generate_root.as_ref();
        Ok(GenerateRootStatus {
            started: attempt.is_some(),
            nonce: attempt.map(|a| asker.told(&a.starter, a.set.nonce())).unwrap_or_default(),
            progress: attempt.map_or(0, |attempt| attempt.set.len()),
            required,
        })
    }

    /// Gives up the attempt. Without `nonce` for administrators.
    ///
    /// # Errors
    /// `Denied` when the nonce is another one's.
    pub async fn generate_root_cancel(&self, nonce: Option<&str>) -> Result<(), CoreError> {
        let _turn = self.seal.turn.lock().await;
        self.unsealed()?;
        let mut ceremonies = self.seal.ceremonies();
        if let Some(attempt) = &ceremonies.generate_root {
            check_nonce(nonce, &[Some(attempt.set.nonce())])?;
        }
        ceremonies.generate_root = None;
        Ok(())
    }

    /// Takes in a share.
    ///
    /// # Errors
    /// As [`Core::rekey_update`].
    pub async fn generate_root_update(
        &self,
        key: &str,
        nonce: &str,
        giver: &Guesser,
    ) -> Result<GenerateRootOutcome, CoreError> {
        let _turn = self.seal.turn.lock().await;
        let unsealed = self.unsealed()?;
        let stored = self.stored_seal().await?.value;
        self.seal.ceremonies().drop_idle(self.clock.monotonic());
        let slots: Vec<_> = stored.shared().cloned().collect();
        let given = Given { key, nonce: Some(nonce), giver };
        let gathered = self.gather(Purpose::GenerateRoot, given, &slots, &stored.cluster_id);
        let Gathered::Opened { root, slot } = gathered.await? else {
            if let Some(attempt) = &mut self.seal.ceremonies().generate_root {
                attempt.touched = self.clock.monotonic();
            }
            let status = self.generate_root_status(Asker::Knowing).await?;
            return Ok(GenerateRootOutcome::More(status));
        };
        self.refuse_foreign_root(&root)?;
        self.prove(&slot).await?;
        let attempt = self.seal.ceremonies().generate_root.take();
        let attempt =
            attempt.ok_or_else(|| super::gather::nothing_in_progress(Purpose::GenerateRoot))?;
        let issued = unsealed.tokens.create_root().await?;
        let status = GenerateRootStatus {
            started: true,
            nonce: nonce.to_owned(),
            progress: usize::from(slot.threshold),
            required: slot.threshold,
        };
        Ok(GenerateRootOutcome::Done {
            encoded: under_pad(&issued.plain, &attempt.otp),
            accessor: issued.token.entry.accessor.clone(),
            status,
        })
    }
}

fn under_pad(token: &SecretString, otp: &SecretString) -> SecretString {
    let bytes = token.expose().bytes().zip(otp.expose().bytes());
    let mixed: Zeroizing<Vec<u8>> = Zeroizing::new(bytes.map(|(t, o)| t ^ o).collect());
    SecretString::new(BASE64_NOPAD.encode(&mixed))
}

/// The token, from what it is under a pad.
///
/// # Errors
/// `Invalid` when the two do not belong together: what comes out is no token then.
pub(super) fn without_pad(
    encoded: &SecretString,
    otp: &SecretString,
) -> Result<SecretString, CoreError> {
    let text = encoded.expose().as_bytes();
    let bytes = BASE64_NOPAD.decode(text).or_else(|_| BASE64.decode(text));
    let bytes =
        Zeroizing::new(bytes.map_err(|_| CoreError::field("encoded_token", "must be in base64"))?);
    if bytes.len() != otp.expose().len() {
        return Err(CoreError::field("otp", "must be as long as the token"));
    }
    let mixed = bytes.iter().zip(otp.expose().bytes()).map(|(token, otp)| char::from(token ^ otp));
    let token = SecretString::new(mixed.collect());
    let is_token = |c: char| c.is_ascii_alphanumeric() || ".-_".contains(c);
    if !token.expose().chars().all(is_token) {
        return Err(CoreError::field("otp", "is not the pad of this token"));
    }
    Ok(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_comes_out_from_under_its_pad_and_no_other() {
        let secret = |text: &str| SecretString::new(text.to_owned());
        let (token, pad) = (secret("hvs.abcDEF012"), secret("0123456789abc"));
        let encoded = under_pad(&token, &pad);
        assert_eq!(without_pad(&encoded, &pad).unwrap().expose(), token.expose());
        let padded =
            secret(&BASE64.encode(&BASE64_NOPAD.decode(encoded.expose().as_bytes()).unwrap()));
        assert_eq!(without_pad(&padded, &pad).unwrap().expose(), token.expose());
        for (encoded, pad) in [
            (&encoded, secret("012345678")),
            (&encoded, secret("ZZZZZZZZZZZZZ")),
            (&secret("!"), pad),
            (&encoded, secret("\u{e9}123456789ab")),
        ] {
            assert!(without_pad(encoded, &pad).is_err());
        }
    }
}
