//! The shared secrets that identities have for methods, and the check of their codes.

use std::collections::BTreeMap;
use std::sync::Arc;

use data_encoding::BASE64;
use serde::{Deserialize, Serialize};

use crate::core::error::CoreError;
use crate::core::identity::Entity;
use crate::core::records::{Batch, Precondition, Records, kinds};
use crate::core::stored::StoredSecret;
use crate::core::view::{Entry, PutOptions, View};
use crate::crypto::otp::{OtpAuth, TotpParameters, barcode, decode_secret, encode_secret};
use crate::storage::{Change, PAGE_ROWS_MAX, RowKey, StorageError};
use crate::types::id::{EntityId, NamespaceId};
use crate::types::secret::{SecretBytes, SecretString};
use crate::types::time::Timestamp;

use super::{ATTEMPTS, LOCKED_FOR, Method, Mfa, refused, view};

const BASE: &str = "enrolment/";
/// The label of shared secrets for which wrong codes were shown.
const FAILING: &str = "failing";

/// A shared secret, how far its codes are used up, and how many wrong ones were shown.
#[derive(Serialize, Deserialize)]
struct Enrolment {
    /// In base32.
    key: StoredSecret,
    /// As the method was when it was handed out: the app still makes codes like that.
    parameters: TotpParameters,
    /// The time step of the last code that was taken; it and all before it count no more.
    taken: Option<u64>,
    /// Codes in a row that did not count.
    failures: u64,
    /// When the last of them was shown.
    failed_at: Timestamp,
}

impl Enrolment {
    /// Failures that still count.
    fn failures(&self, now: Timestamp) -> u64 {
        if now < self.failed_at.plus(LOCKED_FOR) { self.failures } else { 0 }
    }

    fn is_locked(&self, method: &Method, now: Timestamp) -> bool {
        self.failures(now) >= method.attempts_max
    }

    /// Takes a code: what is to be stored then, and why it does not count if it does not.
    fn take(
        &mut self,
        code: &SecretString,
        now: Timestamp,
    ) -> Result<Option<&'static str>, CoreError> {
        let key = decode_secret(self.key.secret().expose())
            .map_err(|_| CoreError::internal("a stored shared secret does not parse"))?;
        let fault = match self.parameters.verify(&key, code.expose(), now) {
            None => "a wrong code",
            Some(step) if self.taken.is_some_and(|taken| step <= taken) => "a code that was used",
            Some(step) => {
                (self.taken, self.failures) = (Some(step), 0);
                return Ok(None);
            }
        };
        (self.failures, self.failed_at) = (self.failures(now).saturating_add(1), now);
        Ok(Some(fault))
    }
}

/// What asking for a shared secret gave.
pub enum Enrolled {
    /// There is one already.
    Already,
    /// A new one.
    Now {
        /// As an `otpauth` address.
        url: SecretString,
        /// The address as a QR code, a PNG image in base64, if the method has one made.
        barcode: Option<SecretString>,
    },
}

impl Mfa {
    /// Makes a shared secret for an entity that has none for the method. `row` is the entity's.
    ///
    /// # Errors
    /// When the store fails, or the names do not fit into an address or that into a barcode.
    pub async fn enrol(
        &self,
        entity: &Entity,
        row: RowKey,
        method: &Method,
    ) -> Result<Enrolled, CoreError> {
        let view = self.view(&base_of(&entity.id));
        if view.get_fresh::<Enrolment>(&method.id).await?.is_some() {
            return Ok(Enrolled::Already);
        }
        let key = SecretBytes::random(method.key_bytes)?;
        let enrolment = Enrolment {
            key: StoredSecret::new(encode_secret(&key)),
            parameters: method.parameters,
            taken: None,
            failures: 0,
            failed_at: Timestamp::from_secs(0),
        };
        // A colon would end the issuer.
        let account = entity.name.replace(':', "_");
        let address = OtpAuth::new(Some(&method.issuer), &account, key, method.parameters)
            .map_err(|error| CoreError::invalid(format!("the name of the entity {error}")))?;
        let url = address.to_uri();
        let barcode = match method.barcode_pixels {
            0 => None,
            pixels => {
                let image = barcode::png(&url, pixels)
                    .map_err(|error| CoreError::invalid(format!("the method's qr_size {error}")))?;
                Some(SecretString::new(BASE64.encode(image.expose())))
            }
        };
        let mut batch = Batch::new();
        put(&view, &mut batch, &method.id, &enrolment, Precondition::Absent)?;
        batch.also(Change::RequireRow { key: row });
        // Of the method, too: what is made for one that is deleted meanwhile would stay for good.
        batch.also(Change::RequireRow { key: self.method_row(&method.id) });
        match view.commit(&batch).await {
            Ok(()) => Ok(Enrolled::Now { url, barcode }),
            // Another one came first, or the entity or the method went: asked again, it is clear.
            Err(CoreError::Storage(StorageError::Conflict)) => Err(StorageError::Busy.into()),
            Err(error) => Err(error),
        }
    }

    /// Forgets an entity's shared secret for a method. One that is not there is no error.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn forget_secret(&self, entity: &EntityId, method: &str) -> Result<(), CoreError> {
        self.view(&base_of(entity)).remove(method).await
    }

    /// Forgets all shared secrets for a method that is gone.
    pub(super) async fn forget_secrets(&self, method: &str) -> Result<(), CoreError> {
        let label = method_label(method);
        loop {
            let (records, _) = self
                .records
                .labelled(NamespaceId::ROOT, kinds::MFA, &label, None, PAGE_ROWS_MAX)
                .await?;
            if records.is_empty() {
                return Ok(());
            }
            let (whole, mut batch) = (self.view(""), Batch::new());
            for record in &records {
                whole.delete(&mut batch, whole.relative(record), Precondition::Any);
            }
            whole.commit(&batch).await?;
        }
    }

    /// The methods that an entity has a shared secret for.
    pub(super) async fn enrolled(&self, entity: &EntityId) -> Result<Vec<String>, CoreError> {
        self.view(&base_of(entity)).list("").await
    }

    /// Takes a code, and counts it when it does not count. The conditional write is the check that
    /// nobody took or guessed one meanwhile, on any node.
    pub(super) async fn check(
        &self,
        entity: &EntityId,
        method: &Method,
        code: &SecretString,
    ) -> Result<(), CoreError> {
        let view = self.view(&base_of(entity));
        for _ in 0..ATTEMPTS {
            let found = view.get_fresh::<Enrolment>(&method.id).await?;
            let Some(Entry { value: mut enrolment, rev, .. }) = found else {
                return Err(refused("no shared secret for the method"));
            };
            let now = self.clock.now();
            if enrolment.is_locked(method, now) {
                return Err(refused("locked"));
            }
            let fault = enrolment.take(code, now)?;
            let mut batch = Batch::new();
            put(&view, &mut batch, &method.id, &enrolment, Precondition::Rev(rev))?;
            match view.commit(&batch).await {
                Ok(()) => {}
                Err(CoreError::Storage(StorageError::Conflict)) => continue,
                Err(error) => return Err(error),
            }
            let Some(fault) = fault else { return Ok(()) };
            if enrolment.is_locked(method, now) {
                let mount = format!("identity/mfa/{}", method.id);
                metrics::counter!("leasehold_login_lockouts_total", "mount" => mount).increment(1);
            }
            return Err(refused(fault));
        }
        Err(StorageError::Busy.into())
    }

    /// Who is locked now: the ids of entities, sorted, by the id of the method.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn locked(&self) -> Result<BTreeMap<String, Vec<String>>, CoreError> {
        let (settings, now) = (self.settings().await?, self.clock.now());
        let (whole, mut after) = (self.view(BASE), None);
        let mut locked: BTreeMap<String, Vec<String>> = BTreeMap::new();
        loop {
            let (records, next) = self
                .records
                .labelled(NamespaceId::ROOT, kinds::MFA, FAILING, after, PAGE_ROWS_MAX)
                .await?;
            for record in &records {
                let Some((entity, method)) = whole.relative(record).split_once('/') else {
                    continue;
                };
                let Some(known) = settings.methods.get(method) else { continue };
                if record.decode::<Enrolment>()?.is_locked(known, now) {
                    locked.entry(method.to_owned()).or_default().push(entity.to_owned());
                }
            }
            after = next;
            if after.is_none() {
                locked.values_mut().for_each(|entities| entities.sort_unstable());
                return Ok(locked);
            }
        }
    }

    /// Forgets the wrong codes of an entity for a method, on all nodes. One that has none is no error.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn unlock(&self, entity: &EntityId, method: &str) -> Result<(), CoreError> {
        let view = self.view(&base_of(entity));
        for _ in 0..ATTEMPTS {
            let Some(mut found) = view.get_fresh::<Enrolment>(method).await? else {
                return Ok(());
            };
            found.value.failures = 0;
            let mut batch = Batch::new();
            put(&view, &mut batch, method, &found.value, Precondition::Rev(found.rev))?;
            match view.commit(&batch).await {
                Err(CoreError::Storage(StorageError::Conflict)) => {}
                other => return other,
            }
        }
        Err(StorageError::Busy.into())
    }
}

fn base_of(entity: &EntityId) -> String {
    format!("{BASE}{entity}/")
}

fn method_label(method: &str) -> String {
    format!("method:{method}")
}

fn put(
    view: &View,
    batch: &mut Batch,
    method: &str,
    enrolment: &Enrolment,
    precondition: Precondition,
) -> Result<(), CoreError> {
    let mut labels = vec![method_label(method)];
    if enrolment.failures > 0 {
        labels.push(FAILING.to_owned());
    }
    view.put(batch, method, enrolment, precondition, PutOptions { due_at: None, labels })
}

/// Adds to `batch` that the shared secrets of `from` become `to`'s. Where both have one for a method,
/// that of `to` stays when `force`.
///
/// # Errors
/// `Invalid` where both have one otherwise.
pub async fn stage_merge(
    records: &Arc<Records>,
    batch: &mut Batch,
    from: &EntityId,
    to: &EntityId,
    force: bool,
) -> Result<(), CoreError> {
    let (old, new) = (view(records, &base_of(from)), view(records, &base_of(to)));
    for method in old.list("").await? {
        let Some(moved) = old.get_fresh::<Enrolment>(&method).await? else {
            return Err(StorageError::Conflict.into());
        };
        match new.get_fresh::<Enrolment>(&method).await? {
            Some(_) if !force => {
                return Err(CoreError::invalid(format!(
                    "{from} and {to} both have a shared secret for the MFA method {method}: say \
                     force to keep the latter, or destroy one"
                )));
            }
            Some(_) => {}
            None => put(&new, batch, &method, &moved.value, Precondition::Absent)?,
        }
        old.delete(batch, &method, Precondition::Rev(moved.rev));
    }
    Ok(())
}

/// Adds to `batch` that the shared secrets of `entity` are forgotten.
///
/// # Errors
/// When the store fails.
pub async fn stage_removal(
    records: &Arc<Records>,
    batch: &mut Batch,
    entity: &EntityId,
) -> Result<(), CoreError> {
    let view = view(records, &base_of(entity));
    for method in view.list("").await? {
        view.delete(batch, &method, Precondition::Any);
    }
    Ok(())
}
