//! The audit of clients that the handshake refused: they never get as far as a request.

use std::net::SocketAddr;

use serde_json::json;
use tokio::sync::Semaphore;

use super::tls::HandshakeError;
use crate::core::audit::broker::AuditBroker;

/// Most refusals being recorded at once. Beyond it they are only counted: clients that nobody knows
/// must not be able to fill the audit's queue.
const RECORDING_MAX: usize = 64;

/// Records refused handshakes.
pub(super) struct RefusalAudit {
    audit: AuditBroker,
    turns: Semaphore,
}

impl RefusalAudit {
    pub(super) fn new(audit: AuditBroker) -> Self {
        Self { audit, turns: Semaphore::new(RECORDING_MAX) }
    }

    /// Records that a client was refused, as well as the audit allows: the client is gone already.
    pub(super) async fn record(&self, listener: &str, remote: SocketAddr, error: &HandshakeError) {
        let Ok(_turn) = self.turns.try_acquire() else {
            not_recorded();
            return;
        };
        let detail = json!({
            "listener": listener,
            "remote": remote,
            "reason": error.as_str(),
            "explanation": error.to_string(),
            "certificate": error.certificate(),
        });
        if let Err(error) = self.audit.record_event("handshake_refused", &detail).await {
            not_recorded();
            tracing::error!(%error, "a refused handshake is not in the audit");
        }
    }
}

fn not_recorded() {
    metrics::counter!("leasehold_handshake_refusals_unaudited_total").increment(1);
}
