//! What the core answers, before it is put into an envelope.

use serde_json::{Map, Value};

use super::error::CoreError;
use crate::types::id::{Accessor, EntityId, LeaseId};
use crate::types::secret::SecretString;
use crate::types::time::{Timestamp, Ttl};

/// What kind of success it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Status {
    /// Done, with or without data (200, or 204 when there is nothing to say).
    #[default]
    Ok,
    /// Taken on, not finished yet (202).
    Accepted,
    /// The thing is gone, but there is something to say about it (404 with data).
    Gone,
    /// Some of it was not done; the data says what (this status, which is one that has a body).
    Partly(u16),
}

/// How the data is laid out in the answer.
#[derive(Debug, Default)]
pub enum Shape {
    /// In the usual envelope.
    #[default]
    Envelope,
    /// In the envelope, and its fields at the top level as well (some `sys/` routes).
    EnvelopeAndTop,
    /// The data alone.
    Bare,
    /// Not JSON at all.
    Raw {
        /// Media type.
        content_type: &'static str,
        /// The body.
        body: Vec<u8>,
    },
}

/// A token that was issued with this answer.
#[derive(Debug)]
pub struct AuthReply {
    /// The token itself: it exists in clear for this one answer.
    pub client_token: SecretString,
    /// Its handle.
    pub accessor: Accessor,
    /// All policies in force.
    pub policies: Vec<String>,
    /// Those that come from the token.
    pub token_policies: Vec<String>,
    /// Those that come from the entity and its groups.
    pub identity_policies: Vec<String>,
    /// What the method noted about the caller.
    pub metadata: Map<String, Value>,
    /// Lifetime.
    pub lease_duration: Ttl,
    /// Whether it can be renewed.
    pub renewable: bool,
    /// The owner.
    pub entity_id: Option<EntityId>,
    /// `service` or `batch`.
    pub token_type: &'static str,
    /// Whether it has no parent.
    pub orphan: bool,
    /// How often it can be used; 0 is without limit.
    pub num_uses: u64,
}

/// A lease that was issued or renewed with this answer.
#[derive(Clone, Debug)]
pub struct LeaseReply {
    /// Its id.
    pub id: LeaseId,
    /// Whether it can be renewed.
    pub renewable: bool,
    /// Lifetime from now.
    pub duration: Ttl,
}

/// A wrapping token that stands for this answer.
#[derive(Debug)]
pub struct WrapReply {
    /// The token.
    pub token: SecretString,
    /// Its handle.
    pub accessor: Accessor,
    /// How long it can be unwrapped.
    pub ttl: Ttl,
    /// When it was made.
    pub created_at: Timestamp,
    /// The path of the request whose answer it holds.
    pub creation_path: String,
    /// Accessor of the token inside, if one is.
    pub wrapped_accessor: Option<Accessor>,
    /// What was made with the answer inside.
    pub inside: Made,
}

/// What came into being with an answer, and has to go when the answer cannot leave.
#[derive(Debug, Default)]
pub struct Made {
    /// Leases.
    pub leases: Vec<LeaseId>,
    /// Tokens, by their accessors.
    pub tokens: Vec<Accessor>,
}

/// An answer.
#[derive(Debug, Default)]
pub struct Reply {
    /// What kind of success.
    pub status: Status,
    /// The data.
    pub data: Option<Map<String, Value>>,
    /// What the caller should know although it worked.
    pub warnings: Vec<String>,
    /// A token issued.
    pub auth: Option<AuthReply>,
    /// What has to be shown for a token, instead of one.
    pub mfa: Option<Value>,
    /// A lease issued.
    pub lease: Option<LeaseReply>,
    /// The token or lease was there before: renewed, or answered once more.
    pub existing: bool,
    /// How long the data holds when there is no lease: the `lease_duration` of such an answer, after
    /// which clients ask again. Zero when nothing is said.
    pub refresh_after: Ttl,
    /// The token that stands for the real answer.
    pub wrap: Option<WrapReply>,
    /// How it is laid out.
    pub shape: Shape,
}

impl Reply {
    /// The HTTP status that says it.
    pub fn http_status(&self) -> u16 {
        match (self.status, &self.shape) {
            (Status::Accepted, _) => 202,
            (Status::Gone, _) => 404,
            (Status::Partly(code), _) => code,
            (Status::Ok, Shape::Bare | Shape::Raw { .. }) => 200,
            (Status::Ok, Shape::Envelope | Shape::EnvelopeAndTop) if self.is_silent() => 204,
            (Status::Ok, Shape::Envelope | Shape::EnvelopeAndTop) => 200,
        }
    }

    /// Whether there is nothing to say.
    pub(in crate::core) fn is_silent(&self) -> bool {
        self.data.is_none()
            && self.warnings.is_empty()
            && self.auth.is_none()
            && self.mfa.is_none()
            && self.lease.is_none()
            && self.wrap.is_none()
    }

    /// What has to be taken back when this cannot be answered.
    pub fn made(&self) -> Made {
        let mut made = Made::default();
        if !self.existing {
            made.leases.extend(self.lease.iter().map(|lease| lease.id.clone()));
            made.tokens.extend(self.auth.iter().map(|auth| auth.accessor.clone()));
        }
        if let Some(wrap) = &self.wrap {
            made.leases.extend(wrap.inside.leases.iter().cloned());
            made.tokens.extend(wrap.inside.tokens.iter().cloned());
            made.tokens.push(wrap.accessor.clone());
        }
        made
    }

    /// The lease that it is about, be it wrapped.
    pub fn lease_id(&self) -> Option<&LeaseId> {
        let wrapped = || self.wrap.as_ref()?.inside.leases.first();
        self.lease.as_ref().map(|lease| &lease.id).or_else(wrapped)
    }

    /// Lends what the audit records of the answer, hidden there by keyed hashes: the data, the
    /// token when one was issued, or what has to be shown for one.
    pub fn with_audit_view(&mut self, look: impl FnOnce(&Value)) {
        if let Some(auth) = &self.auth {
            let token = auth.client_token.expose();
            let mut view = serde_json::json!({
                "auth": {
                    "client_token": token,
                    "accessor": auth.accessor,
                    "policies": auth.policies,
                    "display_name": auth.metadata.get("display_name"),
                },
            });
            look(&view);
            // The serialised copy is ours to wipe as soon as it was looked at.
            if let Some(Value::String(copy)) = view.pointer_mut("/auth/client_token") {
                zeroize::Zeroize::zeroize(copy);
            }
            return;
        }
        if let Some(requirement) = &self.mfa {
            look(&serde_json::json!({ "auth": { "mfa_requirement": requirement } }));
            return;
        }
        if let Some(data) = self.data.take() {
            let view = Value::Object(data);
            look(&view);
            if let Value::Object(data) = view {
                self.data = Some(data);
            }
        }
    }

    /// Success without anything to say (204).
    pub fn empty() -> Self {
        Self::default()
    }

    /// Success with data. Anything but an object becomes no data.
    pub fn data(value: Value) -> Self {
        Self {
            data: match value {
                Value::Object(map) => Some(map),
                Value::Null
                | Value::Bool(_)
                | Value::Number(_)
                | Value::String(_)
                | Value::Array(_) => None,
            },
            ..Self::default()
        }
    }

    /// A list of names under `keys`, as LIST answers.
    pub fn keys(names: Vec<String>) -> Self {
        Self::data(serde_json::json!({ "keys": names }))
    }

    /// The same for LIST of a directory, which is not there while nothing is in it.
    ///
    /// # Errors
    /// `NotFound` when there is no name.
    pub fn listing(names: Vec<String>) -> Result<Self, CoreError> {
        if names.is_empty() { Err(CoreError::NotFound) } else { Ok(Self::keys(names)) }
    }

    /// A token.
    pub fn auth(auth: AuthReply) -> Self {
        Self { auth: Some(auth), ..Self::default() }
    }

    /// A log-in that has to show this for its token.
    pub fn mfa(requirement: Value) -> Self {
        Self { mfa: Some(requirement), ..Self::default() }
    }

    /// The same with another layout.
    #[must_use]
    pub fn shaped(mut self, shape: Shape) -> Self {
        self.shape = shape;
        self
    }

    /// The same with another status.
    #[must_use]
    pub fn with_status(mut self, status: Status) -> Self {
        self.status = status;
        self
    }

    /// The same with a further warning.
    #[must_use]
    pub fn warn(mut self, warning: impl Into<String>) -> Self {
        self.warnings.push(warning.into());
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn issued(existing: bool) -> Reply {
        let lease = LeaseReply { id: LeaseId::new("l"), renewable: true, duration: Ttl::ZERO };
        Reply { lease: Some(lease), existing, ..Reply::default() }
    }

    #[test]
    fn what_was_made_is_taken_back_and_what_was_there_is_not() {
        assert_eq!(issued(false).made().leases, [LeaseId::new("l")]);
        assert_eq!(issued(true).made().leases, []);
        let wrap = WrapReply {
            token: SecretString::new("t".to_owned()),
            accessor: Accessor::new("w"),
            ttl: Ttl::ZERO,
            created_at: Timestamp::default(),
            creation_path: String::new(),
            wrapped_accessor: None,
            inside: issued(false).made(),
        };
        let wrapped = Reply { wrap: Some(wrap), ..Reply::default() };
        let made = wrapped.made();
        assert_eq!((made.leases, made.tokens), (vec![LeaseId::new("l")], vec![Accessor::new("w")]));
        assert_eq!(wrapped.lease_id(), Some(&LeaseId::new("l")));
    }
}
