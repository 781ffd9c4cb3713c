//! The `userpass` method: who one is, by a name and a password.
//!
//! | Path | |
//! |---|---|
//! | `users/:username` | a user: the password, and what tokens get |
//! | `users/:username/password`, `users/:username/policies` | one of these alone |
//! | `login/:username` | a token, for the password |
//!
//! Passwords are kept as Argon2id hashes and cannot be read. A name that nobody has, a wrong password
//! and a locked name get the same answer after the same work. Names are lower-case; a log-in may spell
//! them otherwise. Tokens of a user that is deleted live on until they end, and cannot be renewed.

mod user;
mod work;

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use serde_json::Value;

use crate::core::acl::permit::Permit;
use crate::core::engine::{
    AuthMethod, AuthOutcome, AuthRequest, Claim, EngineContext, Grant, Renewal, TokenParameters,
};
use crate::core::error::CoreError;
use crate::core::operation::Operation;
use crate::core::records::Precondition;
use crate::core::reply::Reply;
use crate::core::route::{Answer, FieldKind, FieldSpec, Params, RouteSpec, field, route};
use crate::core::token::{
    parameters_json, read_parameters, with_shown_token_fields, with_token_fields,
};
use crate::core::view::Entry;

use user::{User, checked_name, password};

pub use work::PasswordWork;

/// What every refused log-in is answered.
const REFUSAL: &str = "invalid username or password";

const PASSWORD: FieldSpec =
    field("password", FieldKind::Secret, "The password. Required of a new user.");

static ROUTES: &[RouteSpec] = &[
    route("userpass-users", "users", "The names of the users.", &[Operation::List], &[]),
    route(
        "userpass-user",
        "users/:username",
        "A user: the password, and what tokens get.",
        &[Operation::Create, Operation::Read, Operation::Update, Operation::Delete],
        with_token_fields![PASSWORD],
    )
    .reads(Answer::Data(with_shown_token_fields![])),
    route(
        "userpass-password",
        "users/:username/password",
        "Another password.",
        &[Operation::Update],
        &[PASSWORD],
    ),
    route(
        "userpass-policies",
        "users/:username/policies",
        "Other policies.",
        &[Operation::Update],
        &[
            field("token_policies", FieldKind::List, "Policies of the tokens."),
            field("policies", FieldKind::List, "Older name of token_policies."),
        ],
    ),
    route(
        "userpass-login",
        "login/:username",
        "A token, for the password.",
        &[Operation::Update],
        &[PASSWORD],
    )
    .public()
    .writes(Answer::Token),
];

/// One mount of the method.
pub struct UserpassMethod {
    work: Arc<PasswordWork>,
}

impl UserpassMethod {
    /// Passwords are hashed by `work`, which all mounts share.
    pub fn new(work: Arc<PasswordWork>) -> Self {
        Self { work }
    }

    async fn login(
        &self,
        ctx: &EngineContext<'_>,
        request: &AuthRequest<'_>,
    ) -> Result<Grant, CoreError> {
        let given = password(&request.fields)?;
        let name = spelled(request);
        let found = match checked_name(&name) {
            // From the store, as one that is not there: what is remembered would be told by the time.
            Ok(name) => ctx.view.get_fresh(&at(name)).await?,
            Err(_) => None,
        };
        let (hash, token) = match found {
            Some(Entry { value: User { password, token }, .. }) => (Some(password), Some(token)),
            None => (None, None),
        };
        let right = self.work.verify(hash, given).await?;
        match token {
            None => Err(CoreError::denied("there is no such user")),
            Some(_) if !right => Err(CoreError::denied("wrong password")),
            Some(_) if request.locked => Err(CoreError::denied("locked")),
            Some(token) => Ok(grant(ctx, &name, token)),
        }
    }

    async fn serve_user(
        &self,
        ctx: &EngineContext<'_>,
        request: &AuthRequest<'_>,
    ) -> Result<Reply, CoreError> {
        let name = checked_name(request.params.get("username"))?;
        match request.operation {
            Operation::Read => {
                let user = stored(ctx, name).await?.ok_or(CoreError::NotFound)?;
                Ok(Reply::data(Value::Object(parameters_json(&user.value.token))))
            }
            Operation::Delete => {
                ctx.view.remove(&at(name)).await?;
                Ok(Reply::empty())
            }
            Operation::Create | Operation::Update => {
                let before = ctx.view.get_fresh::<User>(&at(name)).await?;
                let precondition = Entry::expected(before.as_ref());
                let (kept, token) = match before {
                    Some(Entry { value: User { password, token }, .. }) => (Some(password), token),
                    None => (None, TokenParameters::default()),
                };
                let token = read_parameters(&request.fields, token)?;
                let password = match kept {
                    Some(kept) if request.fields.get("password").is_none() => kept,
                    Some(_) | None => self.work.hash(password(&request.fields)?).await?,
                };
                ctx.view.write(&at(name), &User { password, token }, precondition).await?;
                Ok(Reply::empty())
            }
            Operation::List | Operation::Patch => Err(CoreError::Unsupported),
        }
    }

    /// Changes the password or the policies of a user that is there.
    async fn serve_part(
        &self,
        ctx: &EngineContext<'_>,
        request: &AuthRequest<'_>,
    ) -> Result<Reply, CoreError> {
        let name = checked_name(request.params.get("username"))?;
        let before = ctx.view.get_fresh::<User>(&at(name)).await?.ok_or(CoreError::NotFound)?;
        let precondition = Precondition::Rev(before.rev);
        let mut user = before.value;
        if request.route.name == "userpass-password" {
            user.password = self.work.hash(password(&request.fields)?).await?;
        } else {
            let fields = request.fields.only(&["token_policies", "policies"]);
            if fields.as_map().is_empty() {
                return Err(CoreError::field("token_policies", "is required"));
            }
            user.token = read_parameters(&fields, user.token)?;
        }
        ctx.view.write(&at(name), &user, precondition).await?;
        Ok(Reply::empty())
    }
}

#[async_trait]
impl AuthMethod for UserpassMethod {
    fn routes(&self) -> &'static [RouteSpec] {
        ROUTES
    }

    async fn exists(
        &self,
        ctx: &EngineContext<'_>,
        route: &'static RouteSpec,
        params: &Params<'_>,
    ) -> Result<Option<bool>, CoreError> {
        if route.name != "userpass-user" {
            return Ok(None);
        }
        Ok(Some(ctx.view.get_record(&at(params.get("username"))).await?.is_some()))
    }

    fn claim(&self, request: &AuthRequest<'_>) -> Option<Claim> {
        (request.route.name == "userpass-login")
            .then(|| Claim { alias: spelled(request), refusal: REFUSAL })
    }

    async fn handle(
        &self,
        ctx: &EngineContext<'_>,
        _permit: &Permit,
        request: AuthRequest<'_>,
    ) -> Result<AuthOutcome, CoreError> {
        let reply = match request.route.name {
            "userpass-login" => {
                return Ok(AuthOutcome::Login(Box::new(self.login(ctx, &request).await?)));
            }
            "userpass-user" => self.serve_user(ctx, &request).await?,
            "userpass-users" => Reply::listing(ctx.view.list("user/").await?)?,
            _ => self.serve_part(ctx, &request).await?,
        };
        Ok(reply.into())
    }

    async fn renewal(
        &self,
        ctx: &EngineContext<'_>,
        renewal: Renewal<'_>,
    ) -> Result<Grant, CoreError> {
        let user = stored(ctx, renewal.role).await?;
        let user = user.ok_or_else(|| CoreError::denied("there is no such user any more"))?;
        Ok(grant(ctx, renewal.role, user.value.token))
    }
}

/// The name that a log-in gives, in the spelling that users have.
fn spelled(request: &AuthRequest<'_>) -> String {
    request.params.get("username").to_ascii_lowercase()
}

fn grant(ctx: &EngineContext<'_>, name: &str, token: TokenParameters) -> Grant {
    Grant {
        metadata: BTreeMap::from([("username".to_owned(), name.to_owned())]),
        ..Grant::new(ctx.mount, name.to_owned(), name, token)
    }
}

fn at(name: &str) -> String {
    format!("user/{name}")
}

async fn stored(ctx: &EngineContext<'_>, name: &str) -> Result<Option<Entry<User>>, CoreError> {
    ctx.view.get(&at(name)).await
}

#[cfg(test)]
mod tests;
