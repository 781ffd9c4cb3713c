//! Roles as methods keep them: each under its name, below `role/`.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::core::engine::{AuthRequest, EngineContext, Grant, Renewal, TokenParameters};
use crate::core::error::CoreError;
use crate::core::fields::Fields;
use crate::core::operation::Operation;
use crate::core::reply::Reply;
use crate::core::route::Params;
use crate::core::view::Entry;

/// Most roles of one mount.
const ROLES_MAX: usize = 4096;
/// Longest name of a role, in bytes.
const NAME_BYTES_MAX: usize = 128;

/// A role that is nothing but its settings.
pub(super) trait Role: Serialize + DeserializeOwned + Default {
    /// This role with the fields that are given.
    ///
    /// # Errors
    /// When a field is wrong, or the role would not do with them.
    fn updated(self, fields: &Fields) -> Result<Self, CoreError>;

    /// As it is shown.
    fn to_json(&self) -> Map<String, Value>;
}

/// Reads, writes or removes the role that the path names.
///
/// # Errors
/// When there is none, or it cannot be so.
pub(super) async fn serve<R: Role>(
    ctx: &EngineContext<'_>,
    request: &AuthRequest<'_>,
) -> Result<Reply, CoreError> {
    let name = checked_name("name", request.params.get("name"))?;
    match request.operation {
        Operation::Read => {
            let role = ctx.view.get::<R>(&at(name)).await?.ok_or(CoreError::NotFound)?;
            Ok(Reply::data(Value::Object(role.value.to_json())))
        }
        Operation::Delete => {
            ctx.view.remove(&at(name)).await?;
            Ok(Reply::empty())
        }
        Operation::Create | Operation::Update => {
            let before = ctx.view.get_fresh::<R>(&at(name)).await?;
            if before.is_none() && ctx.view.list("role/").await?.len() >= ROLES_MAX {
                return Err(CoreError::invalid("there are too many roles"));
            }
            let precondition = Entry::expected(before.as_ref());
            let role = before.map(|entry| entry.value).unwrap_or_default();
            let role = role.updated(&request.fields)?;
            ctx.view.write(&at(name), &role, precondition).await?;
            Ok(Reply::empty())
        }
        Operation::List | Operation::Patch => Err(CoreError::Unsupported),
    }
}

/// The names of all roles.
///
/// # Errors
/// When the store fails.
pub(super) async fn listed(ctx: &EngineContext<'_>) -> Result<Reply, CoreError> {
    Reply::listing(ctx.view.list("role/").await?)
}

/// Whether the role that the path names is there.
///
/// # Errors
/// When the store fails.
pub(super) async fn exists(
    ctx: &EngineContext<'_>,
    params: &Params<'_>,
) -> Result<Option<bool>, CoreError> {
    Ok(Some(ctx.view.get_record(&at(params.get("name"))).await?.is_some()))
}

/// The role that somebody asks for; none also when no role can be called so.
///
/// # Errors
/// When the store fails.
pub(super) async fn asked_for<R: Role>(
    ctx: &EngineContext<'_>,
    name: &str,
) -> Result<Option<R>, CoreError> {
    match checked_name("role", name) {
        Ok(name) => Ok(ctx.view.get::<R>(&at(name)).await?.map(|entry| entry.value)),
        Err(_) => Ok(None),
    }
}

/// The role that a token was given by, for its renewal.
///
/// # Errors
/// When it is gone.
pub(super) async fn of_token<R: DeserializeOwned>(
    ctx: &EngineContext<'_>,
    renewal: &Renewal<'_>,
) -> Result<R, CoreError> {
    let role = ctx.view.get::<R>(&at(renewal.role)).await?;
    let role = role.ok_or_else(|| CoreError::denied("there is no such role any more"))?;
    Ok(role.value)
}

/// The grant of a token that is renewed: as it was, with what the role says now. Who is let in is not
/// asked again, because what somebody logged in with is not there any more.
pub(super) fn renewed(
    ctx: &EngineContext<'_>,
    renewal: Renewal<'_>,
    token: TokenParameters,
) -> Grant {
    let metadata = renewal.metadata.clone();
    Grant { metadata, ..Grant::new(ctx.mount, renewal.alias.to_owned(), renewal.role, token) }
}

/// A name as roles have it. Upper and lower case are two names, as they are to policies.
///
/// # Errors
/// When no role can be called so.
pub(super) fn checked_name<'n>(field: &str, name: &'n str) -> Result<&'n str, CoreError> {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.@+".contains(&byte);
    if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.bytes().all(good) {
        let problem = "must be of letters, digits and -_.@+, and at most 128 bytes long";
        return Err(CoreError::field(field, problem));
    }
    Ok(name)
}

/// Where a role is kept.
pub(super) fn at(name: &str) -> String {
    format!("role/{name}")
}
