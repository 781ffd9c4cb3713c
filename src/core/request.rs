//! A request, as the core takes it: parsed, bounded, and free of HTTP.

use serde_json::{Map, Value};

use crate::types::id::RequestId;
use crate::types::path::ApiPath;
use crate::types::secret::SecretString;
use crate::types::time::{Timestamp, Ttl};

use super::audit::ticket::AuditReceipt;
use super::error::CoreError;
use super::mfa::Shown;
use super::operation::Operation;
use super::peer::ConnectionInfo;
use super::quota::Allowance;
use super::reply::Reply;

/// What the caller's method says; whether a write creates is found out by the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// DELETE.
    Delete,
    /// LIST.
    List,
    /// PATCH.
    Patch,
    /// GET.
    Read,
    /// POST or PUT.
    Write,
}

impl Verb {
    /// The operation, as far as the verb alone tells.
    pub const fn operation(self) -> Operation {
        match self {
            Self::Delete => Operation::Delete,
            Self::List => Operation::List,
            Self::Patch => Operation::Patch,
            Self::Read => Operation::Read,
            Self::Write => Operation::Update,
        }
    }
}

/// One request.
pub struct Request {
    /// Shown to the caller, in logs and in the audit.
    pub id: RequestId,
    /// When it arrived.
    pub received_at: Timestamp,
    /// What the method says.
    pub verb: Verb,
    /// Below `/v1/`.
    pub path: ApiPath,
    /// Body and query, merged; the body wins.
    pub fields: Map<String, Value>,
    /// The token presented.
    pub token: Option<SecretString>,
    /// The connection it came on.
    pub connection: ConnectionInfo,
    /// Wrap the answer for that long.
    pub wrap_ttl: Option<Ttl>,
    /// The codes of a second factor that come with a log-in.
    pub codes: Vec<Shown>,
    /// Makes an issuing request safe to repeat.
    pub idempotency_key: Option<String>,
}

/// Where a request led.
#[derive(Debug)]
pub(in crate::core) struct ServedBy {
    /// The route, for metrics.
    pub(in crate::core) route: String,
    /// The kind of the mount; empty where there is none.
    pub(in crate::core) mount_type: String,
    /// Where the client stands with its quota; none where there is no quota.
    pub(in crate::core) allowance: Option<Allowance>,
}

impl ServedBy {
    /// A request of which the route alone is known.
    pub(in crate::core) fn route(route: &str) -> Self {
        Self { route: route.to_owned(), mount_type: String::new(), allowance: None }
    }
}

/// An answer that the audit has accepted. There is no other way to make one, so nothing is answered
/// that was not recorded.
#[derive(Debug)]
pub struct Answered {
    /// What is answered.
    pub result: Result<Reply, CoreError>,
    served: ServedBy,
    receipt: AuditReceipt,
}

impl Answered {
    /// Joins an answer with the proof that it was recorded.
    pub(in crate::core) fn new(
        result: Result<Reply, CoreError>,
        served: ServedBy,
        receipt: AuditReceipt,
    ) -> Self {
        Self { result, served, receipt }
    }

    /// The route that served it, such as `kv/data/*path`: for metrics.
    pub fn route(&self) -> &str {
        &self.served.route
    }

    /// The kind of the mount that served it, such as `kv`, or `system` for the server itself.
    pub fn mount_type(&self) -> &str {
        &self.served.mount_type
    }

    /// Where the client stands with its quota, when the answer is to say so.
    pub fn allowance(&self) -> Option<Allowance> {
        self.served.allowance.filter(|left| left.told || self.result.is_err())
    }

    /// Which request it answers.
    pub fn request_id(&self) -> &RequestId {
        self.receipt.request_id()
    }
}
