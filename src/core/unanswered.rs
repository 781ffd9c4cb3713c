//! What was made for an answer that does not leave is taken back: the caller has given up, the audit
//! did not take the entry, or the answer could not be wrapped.

use std::sync::Arc;

use super::audit::ticket::AuditTicket;
use super::context::Unsealed;
use super::reply::{Made, Reply};

/// Has the leases of an answer taken back when nobody waits for it any more.
pub(super) fn withdraw_unless_finished(
    ticket: &mut AuditTicket,
    unsealed: &Unsealed,
    reply: &Reply,
) {
    let made = reply.made().leases;
    if !made.is_empty() {
        let leases = Arc::clone(&unsealed.leases);
        ticket.unless_finished(move || made.iter().for_each(|lease| leases.withdraw(lease)));
    }
}

/// Takes back what was made with an answer that cannot leave.
pub(super) async fn take_back(unsealed: &Unsealed, made: Made) {
    for lease in &made.leases {
        unsealed.leases.withdraw(lease);
    }
    for accessor in &made.tokens {
        if let Err(error) = unsealed.tokens.revoke_by_accessor(accessor).await {
            tracing::error!(error = %error, "a token whose answer did not leave is not revoked");
        }
    }
}
