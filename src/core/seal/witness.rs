//! The store and the audit witness each other (P10).
//!
//! Every audit line says how far the store had come; the store notes, per node and sink, where the
//! chain of lines stood. At unseal both are compared. A store behind what the audit has seen was put
//! back to an earlier state. An audit behind what the store has noted was cut or replaced, and can
//! then say nothing about the store. Either way nothing is revoked before an administrator has looked:
//! the leases in the store may be those of a past in which other credentials were in use.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use crate::types::id::NamespaceId;

use super::super::audit::chain::Witness;
use super::super::context::{Core, Unsealed};
use super::super::error::CoreError;
use super::super::records::{Precondition, kinds};
use super::super::view::View;

/// Lines younger than this are not noted: with an audit that is not forced to the disk at each line,
/// power loss can take the last ones, and that must not look like somebody cut them.
const SETTLED_AFTER: Duration = Duration::from_secs(10);

/// Where each sink's chain stands, by the sink's name.
type Heads = BTreeMap<String, Witness>;

/// Heads seen a while ago, to be noted once they are surely on the disk.
#[derive(Default)]
pub(super) struct Unsettled {
    seen: Option<(Heads, Duration)>,
    /// What this node has noted last. Nobody else writes there, or two nodes have one name.
    noted: Option<Heads>,
}

/// What the comparison says.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Verdict {
    /// They agree.
    Sound,
    /// The store is older than the audit.
    StoreBehind { witnessed: u64, sequence: u64 },
    /// No sink goes on from where the store saw it.
    AuditLost { sinks: Vec<String> },
    /// Some sinks do not, others do.
    AuditPartlyLost { sinks: Vec<String> },
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sound => f.write_str("the store and the audit agree"),
            Self::StoreBehind { witnessed, sequence } => write!(
                f,
                "the store was put back to an earlier state: it stands at {sequence}, and the audit \
                 has seen it at {witnessed}"
            ),
            Self::AuditLost { sinks } => write!(
                f,
                "the audit ({}) does not go on from where the store saw it, so nothing shows that \
                 the store was not put back; or another node has this node's name",
                sinks.join(", ")
            ),
            Self::AuditPartlyLost { sinks } => {
                write!(
                    f,
                    "the audit ({}) does not go on from where the store saw it",
                    sinks.join(", ")
                )
            }
        }
    }
}

fn judge(sequence: u64, heads: &Heads, noted: &Heads) -> Verdict {
    let witnessed = heads.values().map(|head| head.store_sequence).max().unwrap_or(0);
    if witnessed > sequence {
        return Verdict::StoreBehind { witnessed, sequence };
    }
    let goes_on = |name: &String, noted: &Witness| {
        heads.get(name).is_some_and(|head| {
            head.seq > noted.seq || (head.seq == noted.seq && head.hash == noted.hash)
        })
    };
    // A sink that is no longer configured is no loss as long as another one vouches.
    let (sound, lost): (Vec<_>, Vec<_>) = noted.iter().partition(|(name, at)| goes_on(name, at));
    let sinks: Vec<String> = lost.into_iter().map(|(name, _)| name.clone()).collect();
    match (sound.is_empty(), sinks.is_empty()) {
        (_, true) => Verdict::Sound,
        (true, false) => Verdict::AuditLost { sinks },
        (false, false) => Verdict::AuditPartlyLost { sinks },
    }
}

impl Core {
    fn audit_heads(&self) -> Heads {
        let sinks = self.audit.sinks().into_iter();
        sinks.filter_map(|sink| Some((sink.name, sink.head?))).collect()
    }

    fn heads_name(&self) -> String {
        format!("audit-heads/{}", self.seal.node_name)
    }

    /// Compares store and audit, and holds revocations back when they disagree.
    pub(super) async fn judge_store(&self, unsealed: &Unsealed) -> Result<(), CoreError> {
        let heads = self.audit_heads();
        if heads.is_empty() {
            // No audit, because the configuration says so: there is no witness.
            return Ok(());
        }
        let noted = core_view(unsealed).get_fresh::<Heads>(&self.heads_name()).await?;
        let sequence = self.storage.sequence().await?;
        let verdict = judge(sequence, &heads, &noted.map(|e| e.value).unwrap_or_default());
        match &verdict {
            Verdict::Sound => {}
            Verdict::AuditPartlyLost { .. } => self.report("audit_behind", &verdict).await,
            Verdict::AuditLost { .. } => {
                unsealed.leases.set_hold(verdict.to_string()).await?;
                self.report("audit_behind", &verdict).await;
            }
            Verdict::StoreBehind { .. } => {
                unsealed.leases.set_hold(verdict.to_string()).await?;
                self.report("store_behind", &verdict).await;
            }
        }
        self.audit.observe_store_sequence(sequence);
        Ok(())
    }

    async fn report(&self, event: &'static str, message: &impl fmt::Display) {
        metrics::counter!("leasehold_witness_failures_total", "event" => event).increment(1);
        tracing::error!(event, "{message}");
        let detail = json!({ "message": message.to_string() });
        if let Err(error) = self.audit.record_event(event, &detail).await {
            tracing::error!(%error, "the audit did not take this");
        }
    }

    /// Notes in the store where the audit stands, as of a while ago.
    ///
    /// # Errors
    /// When the store fails.
    pub(super) async fn note_audit_heads(&self, unsealed: &Unsealed) -> Result<(), CoreError> {
        let now = self.clock.monotonic();
        let settled = {
            let mut ceremonies = self.seal.ceremonies();
            let is_settled = |seen: &(Heads, Duration)| now.saturating_sub(seen.1) >= SETTLED_AFTER;
            match &ceremonies.unsettled.seen {
                Some(seen) if !is_settled(seen) => None,
                Some(_) | None => ceremonies.unsettled.seen.replace((self.audit_heads(), now)),
            }
        };
        let Some((heads, _)) = settled.filter(|(heads, _)| !heads.is_empty()) else {
            return Ok(());
        };
        let view = core_view(unsealed);
        let name = self.heads_name();
        let noted = view.get_fresh::<Heads>(&name).await?.map(|entry| entry.value);
        // While a hold is in force, the old note is the evidence.
        if noted.as_ref() == Some(&heads) || unsealed.leases.hold().is_some() {
            return Ok(());
        }
        let ours = self.seal.ceremonies().unsettled.noted.take();
        if ours.is_some() && noted != ours {
            // When either is unsealed again, its audit will not go on from what the other has noted.
            let message = format!(
                "the store's note of this node's audit is not what this node wrote: another node is \
                 called {:?} too (node_name), or the store was put back while this one ran",
                self.seal.node_name
            );
            self.report("node_name_shared", &message).await;
        }
        view.write(&name, &heads, Precondition::Any).await?;
        self.seal.ceremonies().unsettled.noted = Some(heads);
        Ok(())
    }

    /// Lets revocations go on: an administrator has looked. From here on, this store and this audit
    /// are what later ones are compared with.
    ///
    /// # Errors
    /// When the audit does not take it, or the store fails; the hold then stays.
    pub async fn release_hold(&self, unsealed: &Unsealed, by: &str) -> Result<(), CoreError> {
        let Some(hold) = unsealed.leases.hold() else { return Ok(()) };
        let sequence = self.storage.sequence().await?;
        let detail = json!({ "hold": hold.reason, "since": hold.since.to_rfc3339(), "by": by });
        self.audit
            .rebase_store_sequence(sequence, &detail)
            .await
            .map_err(|error| CoreError::AuditUnavailable(Box::new(error)))?;
        core_view(unsealed).remove(&self.heads_name()).await?;
        self.seal.ceremonies().unsettled = Unsettled::default();
        unsealed.leases.release_hold().await
    }
}

pub(super) fn core_view(unsealed: &Unsealed) -> View {
    View::new(Arc::clone(&unsealed.records), NamespaceId::ROOT, kinds::CORE, String::new())
}

#[cfg(test)]
mod tests {
    use super::super::super::audit::chain::ChainHash;
    use super::*;

    fn at(seq: u64, hash: u8, store_sequence: u64) -> Witness {
        Witness { seq, hash: ChainHash::from_bytes([hash; 32]), store_sequence }
    }

    fn heads(heads: &[(&str, Witness)]) -> Heads {
        heads.iter().map(|(name, head)| ((*name).to_owned(), *head)).collect()
    }

    #[test]
    fn a_store_that_goes_on_is_sound() {
        let noted = heads(&[("a", at(5, 5, 50))]);
        for now in [at(5, 5, 50), at(9, 9, 100)] {
            assert_eq!(judge(100, &heads(&[("a", now)]), &noted), Verdict::Sound);
        }
        assert_eq!(judge(0, &heads(&[("a", Witness::GENESIS)]), &heads(&[])), Verdict::Sound);
    }

    #[test]
    fn an_older_store_is_found_by_whichever_sink_saw_most() {
        let now = heads(&[("a", at(9, 9, 90)), ("b", at(9, 9, 101))]);
        let verdict = Verdict::StoreBehind { witnessed: 101, sequence: 100 };
        assert_eq!(judge(100, &now, &heads(&[])), verdict);
    }

    #[test]
    fn an_audit_that_was_cut_or_replaced_is_found() {
        let noted = heads(&[("a", at(5, 5, 50))]);
        let lost = Verdict::AuditLost { sinks: vec!["a".into()] };
        for now in [at(4, 4, 40), at(5, 6, 50), Witness::GENESIS] {
            assert_eq!(judge(100, &heads(&[("a", now)]), &noted), lost);
        }
        // Renamed or taken out of the configuration, with nobody else to vouch.
        assert_eq!(judge(100, &heads(&[("b", at(9, 9, 90))]), &noted), lost);
    }

    #[test]
    fn one_sink_that_goes_on_vouches_for_the_store() {
        let noted = heads(&[("a", at(5, 5, 50)), ("b", at(7, 7, 50))]);
        let now = heads(&[("a", Witness::GENESIS), ("b", at(7, 7, 50))]);
        let verdict = Verdict::AuditPartlyLost { sinks: vec!["a".into()] };
        assert_eq!(judge(100, &now, &noted), verdict);
    }
}
