//! `sys/policies/password`.

use async_trait::async_trait;
use serde_json::json;

use super::policies::decoded;
use crate::core::acl::permit::Permit;
use crate::core::context::{SystemContext, SystemRoutes};
use crate::core::engine::EngineRequest;
use crate::core::error::CoreError;
use crate::core::operation::Operation;
use crate::core::reply::Reply;
use crate::core::route::{Answer, FieldKind, FieldSpec, Params, RouteSpec, field, route};

/// The table.
pub struct PasswordPolicyRoutes;

const LIST: &str = "password-policy-list";
const ONE: &str = "password-policy";
const GENERATE: &str = "password-policy-generate";

const FIELDS: &[FieldSpec] =
    &[field("policy", FieldKind::Text, "The password policy in HCL or JSON, or that in base64.")];

static ROUTES: &[RouteSpec] = &[
    route(LIST, "policies/password", "Names of password policies.", &[Operation::List], &[]),
    route(
        ONE,
        "policies/password/:name",
        "One password policy.",
        &[Operation::Create, Operation::Delete, Operation::Read, Operation::Update],
        FIELDS,
    )
    .reads(Answer::Data(&[field("policy", FieldKind::Text, "The password policy.")])),
    route(
        GENERATE,
        "policies/password/:name/generate",
        "A password that the policy generates.",
        &[Operation::Read],
        &[],
    )
    .reads(Answer::Data(&[field("password", FieldKind::Secret, "The password.")])),
];

#[async_trait]
impl SystemRoutes for PasswordPolicyRoutes {
    fn prefix(&self) -> &'static str {
        "sys/"
    }

    fn routes(&self) -> &'static [RouteSpec] {
        ROUTES
    }

    async fn exists(
        &self,
        ctx: &SystemContext<'_>,
        route: &'static RouteSpec,
        params: &Params<'_>,
    ) -> Result<Option<bool>, CoreError> {
        if route.name != ONE {
            return Ok(None);
        }
        // A name that cannot be is refused when it is written, not while it is judged who may.
        let text = ctx.unsealed.passwords.text(params.get("name")).await;
        match text {
            Ok(text) => Ok(Some(text.is_some())),
            Err(CoreError::Field(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn handle(
        &self,
        ctx: &SystemContext<'_>,
        _permit: &Permit,
        request: EngineRequest<'_>,
    ) -> Result<Reply, CoreError> {
        let policies = &ctx.unsealed.passwords;
        let name = request.params.get("name");
        match (request.route.name, request.operation) {
            (LIST, Operation::List) => Reply::listing(policies.names().await?),
            (GENERATE, Operation::Read) => {
                let policy = policies.compiled(name).await?.ok_or(CoreError::NotFound)?;
                Ok(Reply::data(json!({ "password": policy.generate()?.expose() })))
            }
            (ONE, Operation::Read) => {
                let text = policies.text(name).await?.ok_or(CoreError::NotFound)?;
                Ok(Reply::data(json!({ "policy": text })))
            }
            (ONE, Operation::Create | Operation::Update) => {
                let text = request.fields.required_text("policy")?;
                let warning = policies.set(name, decoded(text)).await?;
                Ok(warning.into_iter().fold(Reply::empty(), Reply::warn))
            }
            (ONE, Operation::Delete) => {
                policies.remove(name).await?;
                Ok(Reply::empty())
            }
            _ => Err(CoreError::Unsupported),
        }
    }
}
