//! Log-ins that wait for their second factor.

use serde::{Deserialize, Serialize};

use crate::core::engine::Grant;
use crate::core::error::CoreError;
use crate::core::peer::ConnectionInfo;
use crate::core::records::{Batch, Precondition, kinds};
use crate::core::view::{Entry, PutOptions};
use crate::storage::{PAGE_ROWS_MAX, StorageError};
use crate::types::id::{EntityId, MountAccessor, NamespaceId, random_uuid};
use crate::types::time::{Timestamp, Ttl};

use super::{Enforcement, Mfa, refused};

/// How long a log-in waits for its second factor.
pub const PENDING_FOR: Ttl = Ttl::from_secs(300);
/// Most log-ins of one identity that wait; a further one takes the place of the oldest. Those that
/// begin at the very same moment may be more, until the next.
const WAITING_MAX: usize = 8;
const BASE: &str = "pending/";

/// The certificate that a request came with, by its SHA-256 fingerprint in hexadecimal. A log-in that
/// began with one goes on with the same; one that began without goes on without.
pub fn certificate_of(connection: &ConnectionInfo) -> Option<String> {
    let peer = connection.peer.as_ref()?;
    Some(data_encoding::HEXLOWER.encode(peer.fingerprint()))
}

/// A log-in that waits for its second factor.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Pending {
    /// What the method granted.
    pub grant: Grant,
    /// By which mount.
    pub mount: MountAccessor,
    /// At which path.
    pub path: String,
    /// To whom.
    pub entity: EntityId,
    /// What it waits for.
    pub enforcements: Vec<Enforcement>,
    /// The certificate that it came with.
    pub certificate: Option<String>,
    /// When it came.
    pub began_at: Timestamp,
}

fn is_over(began_at: Timestamp, now: Timestamp) -> bool {
    now >= began_at.plus(PENDING_FOR)
}

impl Mfa {
    /// Lets a log-in wait. Answers its request id.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn wait(&self, pending: &Pending) -> Result<String, CoreError> {
        let (view, label) = (self.view(BASE), format!("entity:{}", pending.entity));
        let mut waiting = Vec::new();
        let mut after = None;
        loop {
            let (records, next) = self
                .records
                .labelled(NamespaceId::ROOT, kinds::MFA, &label, after, PAGE_ROWS_MAX)
                .await?;
            for record in &records {
                let known = record.decode::<Pending>()?;
                waiting.push((known.began_at, view.relative(record).to_owned()));
            }
            after = next;
            if after.is_none() {
                break;
            }
        }
        // The oldest make room, and those that are over go anyway.
        waiting.sort_unstable_by(|a, b| b.cmp(a));
        let (mut batch, now) = (Batch::new(), self.clock.now());
        for (n, (began_at, id)) in waiting.iter().enumerate() {
            if n + 1 >= WAITING_MAX || is_over(*began_at, now) {
                view.delete(&mut batch, id, Precondition::Any);
            }
        }
        let id = random_uuid()?;
        let options = PutOptions { due_at: None, labels: vec![label] };
        view.put(&mut batch, &id, pending, Precondition::Absent, options)?;
        view.commit(&batch).await?;
        Ok(id)
    }

    /// The log-in of that request id, when it still waits and came with `certificate`.
    ///
    /// # Errors
    /// `Refused`, whatever the reason.
    pub async fn waiting(
        &self,
        id: &str,
        certificate: Option<&str>,
    ) -> Result<Entry<Pending>, CoreError> {
        let unknown = || refused("the request id is unknown, used or over");
        if id.is_empty() || id.contains('/') {
            return Err(unknown());
        }
        let found = self.view(BASE).get_fresh::<Pending>(id).await?.ok_or_else(unknown)?;
        if is_over(found.value.began_at, self.clock.now()) {
            return Err(unknown());
        }
        if found.value.certificate.as_deref() != certificate {
            return Err(refused("the log-in came with another certificate, or without one"));
        }
        Ok(found)
    }

    /// Ends the wait of a log-in that is let in now: of two who try, one does.
    ///
    /// # Errors
    /// `Refused` when somebody else did.
    pub async fn admit(&self, id: &str, pending: &Entry<Pending>) -> Result<(), CoreError> {
        let mut batch = Batch::new();
        self.view(BASE).delete(&mut batch, id, Precondition::Rev(pending.rev));
        match self.view(BASE).commit(&batch).await {
            Err(CoreError::Storage(StorageError::Conflict)) => {
                Err(refused("the request id was used meanwhile"))
            }
            other => other,
        }
    }

    /// Removes the log-ins that waited too long. Answers how many.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn tidy(&self) -> Result<usize, CoreError> {
        let (view, now) = (self.view(BASE), self.clock.now());
        let mut removed = 0;
        for (id, entry) in view.entries::<Pending>("").await? {
            if is_over(entry.value.began_at, now) {
                view.remove(&id).await?;
                removed += 1;
            }
        }
        Ok(removed)
    }
}
