//! Calling an engine as the core does, for its unit tests.

use serde_json::Value;

use crate::core::engine::{CallerFacts, Engine, EngineRequest, LeasePlan, Outcome};
use crate::core::error::CoreError;
use crate::core::fields::Fields;
use crate::core::operation::Operation;
use crate::core::route;
use crate::core::scratch::ScratchMount;

/// Serves one request by somebody whose policies allow everything.
pub(super) async fn ask(
    engine: &dyn Engine,
    mount: &ScratchMount,
    caller: &CallerFacts,
    operation: Operation,
    path: &str,
    body: Value,
) -> Result<Outcome, CoreError> {
    let (route, params) = route::select(engine.routes(), path, operation).unwrap();
    let fields = Fields::new(body.as_object().unwrap().clone());
    let permit = mount.permit(operation, path);
    let request = EngineRequest { operation, route, params, fields, merge_patch: false, caller };
    engine.handle(&mount.ctx(), &permit, request).await
}

/// The data that an outcome answers; null when there is none.
pub(super) fn answered(outcome: Outcome) -> Value {
    match outcome {
        Outcome::Respond(reply) => reply.data.map_or(Value::Null, Value::Object),
        Outcome::Issue(_) => panic!("a lease"),
    }
}

/// The credential that an outcome plans.
pub(super) fn planned(outcome: Outcome) -> LeasePlan {
    match outcome {
        Outcome::Issue(plan) => plan,
        Outcome::Respond(_) => panic!("no lease"),
    }
}
