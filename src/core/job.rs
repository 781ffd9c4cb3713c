//! Which node runs a scheduled job, and when it last ran: kept in the store, so that a cluster runs
//! each once.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::storage::StorageError;
use crate::types::id::NamespaceId;
use crate::types::time::{Timestamp, Ttl};

use super::error::CoreError;
use super::records::{Precondition, Records, kinds};
use super::view::View;

/// How long a node keeps a job without renewing its claim.
const HELD_FOR: Ttl = Ttl::from_secs(60);

/// A job, as stored.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Job {
    holder: u64,
    held_until: Timestamp,
    done_at: Option<Timestamp>,
}

/// The jobs of an unsealed server.
#[derive(Clone)]
pub struct Jobs {
    view: View,
    node: u64,
}

impl Jobs {
    /// The jobs in `records`, as seen by `node`.
    pub fn new(records: Arc<Records>, node: u64) -> Self {
        let view = View::new(records, NamespaceId::ROOT, kinds::JOB, String::new());
        Self { view, node }
    }

    /// When the job was last done by any node.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn done_at(&self, name: &str) -> Result<Option<Timestamp>, CoreError> {
        Ok(self.view.get_fresh::<Job>(name).await?.and_then(|entry| entry.value.done_at))
    }

    /// Takes the job for this node, or keeps it. False while another node has it. The conditional
    /// write is the check; a claim that is fresh costs no write.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn claim(&self, name: &str, now: Timestamp) -> Result<bool, CoreError> {
        let found = self.view.get_fresh::<Job>(name).await?;
        let (precondition, done_at) = match &found {
            None => (Precondition::Absent, None),
            Some(entry) => {
                let left = entry.value.held_until.millis_since(now);
                if entry.value.holder == self.node && left > HELD_FOR.as_millis() / 2 {
                    return Ok(true);
                }
                if entry.value.holder != self.node && left > 0 {
                    return Ok(false);
                }
                (Precondition::Rev(entry.rev), entry.value.done_at)
            }
        };
        let job = Job { holder: self.node, held_until: now.plus(HELD_FOR), done_at };
        match self.view.write(name, &job, precondition).await {
            Ok(()) => Ok(true),
            Err(CoreError::Storage(StorageError::Conflict)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Notes that the job was done at `now`.
    ///
    /// # Errors
    /// When the store fails; the job may then run once more, which does no harm.
    pub async fn done(&self, name: &str, now: Timestamp) -> Result<(), CoreError> {
        let job = Job { holder: self.node, held_until: now.plus(HELD_FOR), done_at: Some(now) };
        self.view.write(name, &job, Precondition::Any).await
    }

    /// Lets go of the job, if this node has it: whoever asks next may have it at once. The node must
    /// not be at it any more.
    ///
    /// # Errors
    /// When the store fails; the claim then ends by itself.
    pub async fn release(&self, name: &str, now: Timestamp) -> Result<(), CoreError> {
        let Some(entry) = self.view.get_fresh::<Job>(name).await? else { return Ok(()) };
        if entry.value.holder != self.node || entry.value.held_until <= now {
            return Ok(());
        }
        let job = Job { held_until: now, ..entry.value };
        match self.view.write(name, &job, Precondition::Rev(entry.rev)).await {
            // It was another node's by then.
            Err(CoreError::Storage(StorageError::Conflict)) => Ok(()),
            outcome => outcome,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::scratch::Scratch;

    const NOW: Timestamp = Timestamp::from_secs(1_000_000);

    #[tokio::test]
    async fn one_node_has_a_job_until_it_lets_go_or_is_gone() {
        let scratch = Scratch::new();
        let (a, b) = (Jobs::new(scratch.records.clone(), 1), Jobs::new(scratch.records.clone(), 2));
        assert!(a.claim("tidy", NOW).await.unwrap());
        assert!(!b.claim("tidy", NOW).await.unwrap());
        assert!(a.claim("tidy", NOW.plus(Ttl::from_secs(45))).await.unwrap(), "renewed");
        assert!(!b.claim("tidy", NOW.plus(Ttl::from_secs(70))).await.unwrap());
        assert!(b.claim("tidy", NOW.plus(Ttl::from_secs(200))).await.unwrap());
        assert!(!a.claim("tidy", NOW.plus(Ttl::from_secs(201))).await.unwrap());
        assert_eq!(a.done_at("tidy").await.unwrap(), None);
        b.done("tidy", NOW).await.unwrap();
        assert_eq!(a.done_at("tidy").await.unwrap(), Some(NOW));

        let now = NOW.plus(Ttl::from_secs(10));
        a.release("tidy", now).await.unwrap();
        assert!(!a.claim("tidy", now).await.unwrap(), "it was not its own to let go of");
        b.release("tidy", now).await.unwrap();
        assert!(a.claim("tidy", now).await.unwrap());
        assert_eq!(a.done_at("tidy").await.unwrap(), Some(NOW), "what was done stays known");
        b.release("never-claimed", now).await.unwrap();
    }
}
