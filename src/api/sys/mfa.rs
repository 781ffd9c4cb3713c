//! `sys/mfa/validate`: the second factor of a log-in that waits for it.

use async_trait::async_trait;
use serde_json::Value;

use crate::core::acl::permit::Permit;
use crate::core::context::{SystemContext, SystemRoutes};
use crate::core::engine::EngineRequest;
use crate::core::error::CoreError;
use crate::core::login;
use crate::core::mfa::Shown;
use crate::core::operation::Operation;
use crate::core::reply::Reply;
use crate::core::route::{Answer, FieldKind, RouteSpec, field, route};
use crate::types::secret::SecretString;

/// Most methods for which codes are shown at once.
const CODES_MAX: usize = 16;

static ROUTES: &[RouteSpec] = &[route(
    "mfa-validate",
    "mfa/validate",
    "Show the second factor of a log-in, for its token.",
    &[Operation::Update],
    &[
        field("mfa_request_id", FieldKind::Text, "Which log-in, as it was answered."),
        field("mfa_payload", FieldKind::Map, "A list of one code for each method, by its id."),
    ],
)
.public()
.writes(Answer::Token)];

/// The table.
pub struct MfaValidation;

#[async_trait]
impl SystemRoutes for MfaValidation {
    fn prefix(&self) -> &'static str {
        "sys/"
    }

    fn routes(&self) -> &'static [RouteSpec] {
        ROUTES
    }

    async fn handle(
        &self,
        ctx: &SystemContext<'_>,
        _permit: &Permit,
        request: EngineRequest<'_>,
    ) -> Result<Reply, CoreError> {
        let id = request.fields.required_text("mfa_request_id")?;
        let bad = |problem: &str| CoreError::field("mfa_payload", problem.to_owned());
        let payload = request.fields.object("mfa_payload")?.ok_or_else(|| bad("is required"))?;
        if payload.len() > CODES_MAX {
            return Err(bad("has more than 16 elements"));
        }
        let mut codes = Vec::new();
        for (method, shown) in payload {
            let code = match shown {
                Value::Array(list) => match list.as_slice() {
                    [Value::String(code)] => code,
                    _ => return Err(bad("must have a list of one code for each method")),
                },
                Value::String(code) => code,
                Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => {
                    return Err(bad("must have a list of one code for each method"));
                }
            };
            // Stock clients write `passcode=123456`, too.
            let code = code.strip_prefix("passcode=").unwrap_or(code);
            let code = SecretString::new(code.to_owned());
            codes.push(Shown { method: method.clone(), code });
        }
        login::validate(ctx.unsealed, ctx.connection, &id, &codes).await
    }
}
