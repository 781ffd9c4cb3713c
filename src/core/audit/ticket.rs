//! Ticket and receipt: what makes an unaudited answer impossible to write.

use std::fmt;

use tokio::sync::OwnedSemaphorePermit;

use super::AuditError;
use super::broker::AuditBroker;
use super::entry::{CallerSummary, Draft, MountSummary, OperationSummary, Outcome};
use super::redact::RedactedData;
use crate::types::id::RequestId;

type Undo = Box<dyn FnOnce() + Send + Sync>;

/// An operation that is being audited. Finish it to get the receipt that an answer needs; dropping it
/// records the operation as aborted.
#[must_use = "an operation whose ticket is dropped is recorded as aborted"]
pub struct AuditTicket {
    broker: AuditBroker,
    /// `None` once the entry is on its way.
    draft: Option<Box<Draft>>,
    /// What is done when the operation is not finished.
    undo: Option<Undo>,
    /// Fields of the answer that stay readable.
    shown: Vec<String>,
    /// Room in the queue for the entry.
    _slot: OwnedSemaphorePermit,
}

impl AuditTicket {
    pub(super) fn new(
        broker: AuditBroker,
        summary: OperationSummary,
        slot: OwnedSemaphorePermit,
    ) -> Self {
        let draft = Draft {
            summary,
            mount: None,
            caller: None,
            reason: None,
            request: None,
            response: None,
        };
        Self { broker, draft: Some(Box::new(draft)), undo: None, shown: Vec::new(), _slot: slot }
    }

    /// Who the caller turned out to be.
    pub fn set_caller(&mut self, caller: CallerSummary) {
        self.change(|draft| draft.caller = Some(caller));
    }

    /// Which mount the path led to.
    pub fn set_mount(&mut self, mount: MountSummary) {
        self.change(|draft| draft.mount = Some(mount));
    }

    /// The operation, once it is known more precisely (a write turns out to be a `create`).
    pub fn set_operation(&mut self, operation: &'static str) {
        self.change(|draft| draft.summary.operation = operation);
    }

    /// Why it was refused, for the auditor and never for the caller. Must hold no secret.
    pub fn set_reason(&mut self, reason: impl Into<String>) {
        self.change(|draft| draft.reason = Some(reason.into()));
    }

    /// What the caller sent, made with [`Redaction::value`](super::redact::Redaction::value). Left out
    /// while sealed, when there is no key.
    pub fn set_request_data(&mut self, data: RedactedData) {
        self.change(|draft| draft.request = Some(data));
    }

    /// What the caller gets, likewise.
    pub fn set_response_data(&mut self, data: RedactedData) {
        self.change(|draft| draft.response = Some(data));
    }

    /// Has `undo` done, instead of what was said before, unless the operation is finished: when its
    /// request is given up, or no sink accepts the entry.
    pub fn unless_finished(&mut self, undo: impl FnOnce() + Send + Sync + 'static) {
        self.undo = Some(Box::new(undo));
    }

    /// These top-level fields of the answer were declared harmless by an administrator.
    pub fn show_in_response(&mut self, keys: &[String]) {
        self.shown = keys.to_vec();
    }

    /// The fields of the answer that stay readable.
    pub fn shown_in_response(&self) -> Vec<String> {
        self.shown.clone()
    }

    /// Which request this is.
    pub fn request_id(&self) -> Option<&RequestId> {
        self.draft.as_ref().map(|draft| &draft.summary.request_id)
    }

    /// Records how the operation ended, and waits until a sink has accepted the entry.
    ///
    /// # Errors
    /// When no sink accepted it in time. The answer must not leave then, and what was issued has to be
    /// taken back. The entry may still be written later.
    pub async fn finish(mut self, outcome: Outcome) -> Result<AuditReceipt, AuditError> {
        // Only this function empties the draft, and it takes the ticket.
        let draft = self.draft.take().ok_or(AuditError::NoSink)?;
        if let Some(sequence) = outcome.store_sequence {
            self.broker.observe_store_sequence(sequence);
        }
        self.broker.record(draft.body(Some(&outcome))).await?;
        self.undo = None;
        Ok(AuditReceipt { request_id: draft.summary.request_id })
    }

    fn change(&mut self, change: impl FnOnce(&mut Draft)) {
        if let Some(draft) = &mut self.draft {
            change(draft);
        }
    }
}

impl fmt::Debug for AuditTicket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuditTicket").field("draft", &self.draft).finish_non_exhaustive()
    }
}

impl Drop for AuditTicket {
    fn drop(&mut self) {
        if let Some(undo) = self.undo.take() {
            undo();
        }
        if let Some(draft) = self.draft.take() {
            self.broker.record_aborted(draft.body(None));
        }
    }
}

/// Proof that a sink has accepted an operation's entry. Only [`AuditTicket::finish`] makes one.
#[must_use = "an answer is built from its receipt"]
#[derive(Debug)]
pub struct AuditReceipt {
    request_id: RequestId,
}

impl AuditReceipt {
    /// Which request's entry was accepted.
    pub fn request_id(&self) -> &RequestId {
        &self.request_id
    }
}
