//! Calling a method as the core does, for its unit tests.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use serde_json::Value;

use crate::core::engine::{AuthMethod, AuthOutcome, AuthRequest, Grant, Renewal};
use crate::core::error::CoreError;
use crate::core::fields::Fields;
use crate::core::operation::Operation;
use crate::core::peer::VerifiedPeer;
use crate::core::route;
use crate::core::scratch::ScratchMount;

/// A request to a method, by somebody whose policies allow everything.
pub(super) struct Call<'a> {
    pub(super) operation: Operation,
    /// Below the mount.
    pub(super) path: &'a str,
    pub(super) body: Value,
    pub(super) peer: Option<&'a Arc<VerifiedPeer>>,
    pub(super) locked: bool,
}

impl<'a> Call<'a> {
    pub(super) fn new(operation: Operation, path: &'a str, body: Value) -> Self {
        Self { operation, path, body, peer: None, locked: false }
    }

    /// Serves it.
    pub(super) async fn to(
        self,
        method: &dyn AuthMethod,
        mount: &ScratchMount,
    ) -> Result<AuthOutcome, CoreError> {
        let permit = mount.permit(self.operation, self.path);
        method.handle(&mount.ctx(), &permit, self.request(method)).await
    }

    /// As the method gets it.
    pub(super) fn request(self, method: &dyn AuthMethod) -> AuthRequest<'a> {
        let Self { operation, path, body, peer, locked } = self;
        let (route, params) = route::select(method.routes(), path, operation).unwrap();
        let fields = Fields::new(body.as_object().unwrap().clone());
        let remote = IpAddr::from([127, 0, 0, 1]);
        AuthRequest { operation, route, params, fields, peer, remote, locked }
    }
}

/// The data that an outcome answers; null when there is none.
pub(super) fn answered(outcome: AuthOutcome) -> Value {
    match outcome {
        AuthOutcome::Respond(reply) => reply.data.map_or(Value::Null, Value::Object),
        AuthOutcome::Login(_) => panic!("a log-in"),
    }
}

/// Whom an outcome lets in.
pub(super) fn granted(outcome: AuthOutcome) -> Grant {
    match outcome {
        AuthOutcome::Login(grant) => *grant,
        AuthOutcome::Respond(_) => panic!("no log-in"),
    }
}

/// The renewal of a token that was given by this role, to an alias of the same name.
pub(super) fn renewal_of<'a>(role: &'a str, peer: Option<&'a Arc<VerifiedPeer>>) -> Renewal<'a> {
    static NOTHING: BTreeMap<String, String> = BTreeMap::new();
    Renewal { role, alias: role, metadata: &NOTHING, policies: &[], peer }
}
