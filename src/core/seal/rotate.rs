//! The life of the keyring: a new term on request, on schedule or when the old one is worn; old rows
//! re-wrapped; old terms destroyed; counts kept.
//!
//! A new term is stored before it is used. Other nodes learn of it when they meet a row that it wraps
//! ([`Records`](super::super::records::Records) then asks for the stored keyring), or within
//! [`TEND_EVERY`]. Until then they go on writing under the old one, which is why destroying it raises
//! the store's floor of terms in the same commit: that fails while a row is left below, and afterwards
//! no row below can be written, by whichever node, however late.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::crypto::aead::Suite;
use crate::crypto::keyring::{ENCRYPTIONS_ROTATE, Keyring, KeyringError, TermInfo};
use crate::types::time::{Clock, Timestamp, Ttl};

use super::super::context::{Core, Unsealed};
use super::super::error::CoreError;
use super::super::records::Precondition;
use super::super::rewrap;
use super::witness::core_view;

const SETTINGS: &str = "rotation";
/// Fewest encryptions after which a term may be made to rotate.
const OPERATIONS_MIN: u64 = 1_000_000;
/// Shortest interval of rotation by time.
const INTERVAL_MIN: Ttl = Ttl::from_secs(24 * 3600);
/// How often the keys are looked after when nothing calls for it.
const TEND_EVERY: Ttl = Ttl::from_secs(30);
/// Encryptions that a crash may forget, of 2^32 that a term can bear.
const UNCOUNTED_MAX: u64 = 1 << 20;

/// When the keyring is rotated by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RotationSettings {
    /// Whether it is at all; a term that is used up is rotated all the same.
    pub enabled: bool,
    /// Age of a term; zero for no limit.
    pub interval: Ttl,
    /// Encryptions under a term.
    pub max_operations: u64,
}

impl Default for RotationSettings {
    fn default() -> Self {
        Self { enabled: true, interval: Ttl::ZERO, max_operations: ENCRYPTIONS_ROTATE }
    }
}

impl RotationSettings {
    fn check(&self) -> Result<(), CoreError> {
        if !(OPERATIONS_MIN..=ENCRYPTIONS_ROTATE).contains(&self.max_operations) {
            return Err(CoreError::field(
                "max_operations",
                format!("must be between {OPERATIONS_MIN} and {ENCRYPTIONS_ROTATE}"),
            ));
        }
        if !self.interval.is_zero() && self.interval < INTERVAL_MIN {
            return Err(CoreError::field("interval", "must be at least 24 hours, or zero"));
        }
        Ok(())
    }

    fn is_due(&self, term: &TermInfo, now: Timestamp) -> bool {
        let old = !self.interval.is_zero() && now >= term.created_at.plus(self.interval);
        self.enabled && (old || term.encryptions >= self.max_operations)
    }
}

/// What is shown about the keys.
#[derive(Clone, Debug)]
pub struct KeyStatus {
    /// All terms, the active one last.
    pub terms: Vec<TermInfo>,
    /// The active one.
    pub active: TermInfo,
    /// Rows that wait to be re-wrapped before older terms can be destroyed.
    pub pending: u64,
}

impl Core {
    /// Makes a further term, of `suite` or of the present one, and sets off the re-wrapping of what
    /// the older ones wrap. Gives its number.
    ///
    /// # Errors
    /// When the store fails, or there are too many terms.
    pub async fn rotate_keys(
        &self,
        unsealed: &Unsealed,
        suite: Option<Suite>,
    ) -> Result<u32, CoreError> {
        let now = self.clock.now();
        self.change_keyring(unsealed, |keyring| {
            let suite = suite.unwrap_or(keyring.active_suite());
            keyring.rotate(suite, now).map(Some).map_err(refused)
        })
        .await?;
        self.seal.key_work.notify_one();
        Ok(unsealed.records.keyring().active_term())
    }

    async fn change_keyring(
        &self,
        unsealed: &Unsealed,
        edit: impl Fn(&Keyring) -> Result<Option<Keyring>, CoreError> + Send + Sync,
    ) -> Result<Option<Arc<Keyring>>, CoreError> {
        self.seal.keys.change(self.storage.as_ref(), &unsealed.records, &[], edit).await
    }

    /// The terms, and how far re-wrapping is.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn key_status(&self, unsealed: &Unsealed) -> Result<KeyStatus, CoreError> {
        unsealed.records.renew_keyring().await?;
        let terms = unsealed.records.keyring().terms();
        let active = *terms.last().ok_or_else(|| CoreError::internal("a keyring without terms"))?;
        let pending = match terms.len() {
            1 => 0,
            _ => self.storage.count_wrapped_below(active.term).await?,
        };
        Ok(KeyStatus { terms, active, pending })
    }

    /// When the keyring is rotated by itself.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn rotation_settings(
        &self,
        unsealed: &Unsealed,
    ) -> Result<RotationSettings, CoreError> {
        let stored = core_view(unsealed).get_fresh(SETTINGS).await?;
        Ok(stored.map(|entry| entry.value).unwrap_or_default())
    }

    /// Sets when the keyring is rotated by itself.
    ///
    /// # Errors
    /// When a value is out of bounds, or the store fails.
    pub async fn set_rotation_settings(
        &self,
        unsealed: &Unsealed,
        settings: RotationSettings,
    ) -> Result<(), CoreError> {
        settings.check()?;
        core_view(unsealed).write(SETTINGS, &settings, Precondition::Any).await?;
        self.seal.key_work.notify_one();
        Ok(())
    }

    /// One round of all that keys need: takes over what other nodes did, notes where the audit and
    /// the counts stand, rotates when that is due, and re-wraps what is left under old terms. Safe
    /// to repeat, on every node.
    ///
    /// # Errors
    /// When the store fails; the next round goes on from there.
    pub async fn maintain_keys(&self, unsealed: &Arc<Unsealed>) -> Result<(), CoreError> {
        unsealed.records.renew_keyring().await?;
        self.note_audit_heads(unsealed).await?;
        self.save_counts(unsealed, UNCOUNTED_MAX).await?;
        self.rotate_when_due(unsealed).await?;
        rewrap::run(self, unsealed).await
    }

    async fn rotate_when_due(&self, unsealed: &Unsealed) -> Result<(), CoreError> {
        let (now, settings) = (self.clock.now(), self.rotation_settings(unsealed).await?);
        let is_due = |keyring: &Keyring| {
            keyring.rotation_due()
                || keyring.terms().last().is_some_and(|term| settings.is_due(term, now))
        };
        if !is_due(&unsealed.records.keyring()) {
            return Ok(());
        }
        // Asked again of the stored keyring: another node may have been faster.
        let rotated = self
            .change_keyring(unsealed, |keyring| match is_due(keyring) {
                true => keyring.rotate(keyring.active_suite(), now).map(Some).map_err(refused),
                false => Ok(None),
            })
            .await?;
        if let Some(keyring) = rotated {
            let detail = json!({ "term": keyring.active_term() });
            if let Err(error) = self.audit.record_event("keys_rotated", &detail).await {
                tracing::error!(%error, "the audit did not take that the keys were rotated");
            }
        }
        Ok(())
    }

    /// Stores how often the active term was used, once `at_least` uses would be forgotten.
    pub(super) async fn save_counts(
        &self,
        unsealed: &Unsealed,
        at_least: u64,
    ) -> Result<(), CoreError> {
        if self.seal.keys.uncounted(&unsealed.records) < at_least {
            return Ok(());
        }
        // No term is below the first: a copy.
        self.change_keyring(unsealed, |keyring| keyring.destroy_below(0).map(Some).map_err(refused))
            .await
            .map(|_| ())
    }

    /// Destroys the terms below `term`, of which the store must hold no row any more. False when one
    /// was left, or written meanwhile.
    ///
    /// # Errors
    /// When the store fails.
    pub(in crate::core) async fn destroy_terms_below(
        &self,
        unsealed: &Unsealed,
        term: u32,
    ) -> Result<bool, CoreError> {
        use crate::storage::{Change, StorageError};
        let floor = [Change::RaiseTermFloor { term }];
        let edit = |keyring: &Keyring| match keyring.terms().first() {
            Some(first) if first.term < term => {
                keyring.destroy_below(term).map(Some).map_err(refused)
            }
            Some(_) | None => Ok(None),
        };
        let (storage, records) = (self.storage.as_ref(), unsealed.records.as_ref());
        match self.seal.keys.change(storage, records, &floor, edit).await {
            Ok(Some(_)) => {
                let detail = json!({ "below": term });
                if let Err(error) = self.audit.record_event("key_terms_destroyed", &detail).await {
                    tracing::error!(%error, "the audit did not take that old keys were destroyed");
                }
                Ok(true)
            }
            Ok(None) => Ok(true),
            Err(CoreError::Storage(StorageError::Conflict)) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// Looks after the keys for as long as the server runs: at once when something calls for it, and every
/// [`TEND_EVERY`] otherwise. Holds on to nothing while it waits, nor across a seal.
pub async fn tend_keys(core: Arc<Core>) {
    let mut phases = core.phase_changes();
    loop {
        if let Ok(unsealed) = core.unsealed()
            && let Err(error) = core.maintain_keys(&unsealed).await
        {
            tracing::warn!(%error, reason = error.reason(), "the keys could not be looked after");
        }
        let clock: &Arc<dyn Clock> = &core.clock;
        tokio::select! {
            () = clock.sleep_until(clock.now().plus(TEND_EVERY)) => {}
            () = core.seal.key_work.notified() => {}
            _ = phases.changed() => {}
        }
    }
}

fn refused(error: KeyringError) -> CoreError {
    match error {
        KeyringError::Full => CoreError::invalid(error.to_string()),
        KeyringError::StillNeeded(_)
        | KeyringError::DoesNotOpen
        | KeyringError::Unreadable
        | KeyringError::Seal(_)
        | KeyringError::Random(_) => CoreError::internal(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn term(encryptions: u64) -> TermInfo {
        TermInfo {
            term: 1,
            suite: Suite::Aes256Gcm,
            created_at: Timestamp::from_secs(0),
            encryptions,
            active: true,
        }
    }

    #[test]
    fn rotation_is_due_by_use_and_by_age_when_enabled() {
        let day = Ttl::from_secs(24 * 3600);
        let by_age = RotationSettings { interval: day, ..RotationSettings::default() };
        let (early, late) = (Timestamp::from_secs(3600), Timestamp::from_secs(86_400));
        assert!(!by_age.is_due(&term(0), early));
        assert!(by_age.is_due(&term(0), late));
        assert!(!RotationSettings::default().is_due(&term(0), late));
        assert!(RotationSettings::default().is_due(&term(ENCRYPTIONS_ROTATE), early));
        let off = RotationSettings { enabled: false, ..by_age };
        assert!(!off.is_due(&term(ENCRYPTIONS_ROTATE), late));
    }

    #[test]
    fn settings_out_of_bounds_are_refused_by_name() {
        let with = |interval, max_operations| RotationSettings {
            enabled: true,
            interval: Ttl::from_secs(interval),
            max_operations,
        };
        with(0, OPERATIONS_MIN).check().unwrap();
        with(86_400, ENCRYPTIONS_ROTATE).check().unwrap();
        for (settings, field) in [
            (with(1, OPERATIONS_MIN), "interval"),
            (with(0, OPERATIONS_MIN - 1), "max_operations"),
            (with(0, ENCRYPTIONS_ROTATE + 1), "max_operations"),
        ] {
            assert!(settings.check().unwrap_err().to_string().contains(field));
        }
    }
}
