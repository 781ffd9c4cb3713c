//! Roles, as they are written and stored.

use std::hint::black_box;
use std::sync::LazyLock;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::auth::role::at;
use crate::core::engine::{EngineContext, TokenParameters};
use crate::core::error::CoreError;
use crate::core::fields::Fields;
use crate::core::records::{Batch, Precondition};
use crate::core::token::{cidrs, parameters_json, read_parameters};
use crate::core::view::{Entry, PutOptions};
use crate::types::id::random_uuid;
use crate::types::time::Ttl;

use super::secret::keyed;

/// Longest role ID, in bytes.
const ROLE_ID_BYTES_MAX: usize = 256;

/// A role.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Role {
    /// What its secret IDs are stored under: a role that is made anew has none of the old one's.
    pub(super) key: String,
    pub(super) role_id: String,
    pub(super) bind_secret_id: bool,
    pub(super) secret_id_bound_cidrs: Vec<String>,
    pub(super) secret_id_num_uses: u64,
    pub(super) secret_id_ttl: Ttl,
    pub(super) token: TokenParameters,
}

/// What leads from a role ID to its role.
#[derive(Serialize, Deserialize)]
struct Pointer {
    role: String,
}

impl Role {
    /// A role with random ids and no settings.
    pub(super) fn new() -> Result<Self, CoreError> {
        Ok(Self::blank(random_uuid()?, random_uuid()?))
    }

    fn blank(key: String, role_id: String) -> Self {
        Self {
            key,
            role_id,
            bind_secret_id: true,
            secret_id_bound_cidrs: Vec::new(),
            secret_id_num_uses: 0,
            secret_id_ttl: Ttl::ZERO,
            token: TokenParameters::default(),
        }
    }

    /// The value of a setting when nothing was said.
    pub(super) fn default_of(setting: &str) -> Value {
        let blank = Self::blank(String::new(), String::new());
        blank.to_json().remove(setting).unwrap_or(Value::Null)
    }

    /// This role with the fields that are given.
    pub(super) fn updated(mut self, fields: &Fields) -> Result<Self, CoreError> {
        if fields.boolean("local_secret_ids")? == Some(true) {
            return Err(CoreError::field("local_secret_ids", "is not supported"));
        }
        if let Some(id) = fields.text("role_id")? {
            if id.is_empty() || id.len() > ROLE_ID_BYTES_MAX || id.chars().any(char::is_control) {
                let problem = "must be of 1 to 256 bytes without control characters";
                return Err(CoreError::field("role_id", problem));
            }
            self.role_id = id;
        }
        if let Some(flag) = fields.boolean("bind_secret_id")? {
            self.bind_secret_id = flag;
        }
        if let Some(list) = fields.list("secret_id_bound_cidrs")? {
            self.secret_id_bound_cidrs = cidrs("secret_id_bound_cidrs", &list)?;
        }
        if let Some(uses) = fields.integer("secret_id_num_uses")? {
            self.secret_id_num_uses = uses;
        }
        if let Some(ttl) = fields.duration("secret_id_ttl")? {
            self.secret_id_ttl = ttl;
        }
        self.token = read_parameters(fields, self.token)?;
        let open = self.secret_id_bound_cidrs.is_empty() && self.token.bound_cidrs.is_empty();
        if !self.bind_secret_id && open {
            let problem = "must stay true for a role that is bound to no addresses";
            return Err(CoreError::field("bind_secret_id", problem));
        }
        Ok(self)
    }

    pub(super) fn to_json(&self) -> Map<String, Value> {
        let mut shown = parameters_json(&self.token);
        for (name, value) in [
            ("bind_secret_id", json!(self.bind_secret_id)),
            ("local_secret_ids", json!(false)),
            ("secret_id_bound_cidrs", json!(self.secret_id_bound_cidrs)),
            ("secret_id_num_uses", json!(self.secret_id_num_uses)),
            ("secret_id_ttl", json!(self.secret_id_ttl)),
        ] {
            shown.insert(name.to_owned(), value);
        }
        shown
    }
}

fn pointer_at(ctx: &EngineContext<'_>, role_id: &str) -> String {
    format!("id/{}", keyed(ctx, "role", role_id))
}

/// Reads a role that is nobody's, as long as reading somebody's takes.
pub(super) fn read_nobodys() {
    static NOBODYS: LazyLock<String> = LazyLock::new(|| {
        let text = |length| "0".repeat(length);
        serde_json::to_string(&Role::blank(text(36), text(36))).unwrap_or_default()
    });
    let pointer = serde_json::from_str::<Pointer>(black_box("{\"role\":\"nobody\"}"));
    let role = serde_json::from_str::<Role>(black_box(&NOBODYS));
    let _ = black_box((pointer.is_ok(), role.is_ok()));
}

/// The role that is logged in by `role_id`, with its name. A role that is there is remembered after its
/// first log-in, and one that is not is looked for in the store each time.
pub(super) async fn by_id(
    ctx: &EngineContext<'_>,
    role_id: &str,
) -> Result<Option<(String, Role)>, CoreError> {
    let pointer = ctx.view.get::<Pointer>(&pointer_at(ctx, role_id)).await?;
    let Some(Entry { value: Pointer { role: name }, .. }) = pointer else { return Ok(None) };
    let role = ctx.view.get::<Role>(&at(&name)).await?;
    // A pointer that was read before the role changed leads nowhere.
    Ok(role.filter(|role| role.value.role_id == role_id).map(|role| (name, role.value)))
}

/// Stores `role` over what was read before, and what leads to it.
///
/// # Errors
/// When its role ID is another role's, or either was changed meanwhile.
pub(super) async fn save(
    ctx: &EngineContext<'_>,
    name: &str,
    before: Option<(&Role, u64)>,
    role: &Role,
) -> Result<(), CoreError> {
    let mut batch = Batch::new();
    let precondition = before.map_or(Precondition::Absent, |(_, rev)| Precondition::Rev(rev));
    ctx.view.put(&mut batch, &at(name), role, precondition, PutOptions::default())?;
    let old = before.map(|(role, _)| role.role_id.as_str());
    if old != Some(role.role_id.as_str()) {
        let pointer_at_new = pointer_at(ctx, &role.role_id);
        if ctx.view.get_fresh::<Pointer>(&pointer_at_new).await?.is_some() {
            return Err(CoreError::field("role_id", "is another role's"));
        }
        let pointer = Pointer { role: name.to_owned() };
        let options = PutOptions::default();
        ctx.view.put(&mut batch, &pointer_at_new, &pointer, Precondition::Absent, options)?;
        if let Some(old) = old {
            ctx.view.delete(&mut batch, &pointer_at(ctx, old), Precondition::Any);
        }
    }
    ctx.view.commit(&batch).await
}

/// Removes a role, what leads to it and all its secret IDs.
///
/// # Errors
/// When the store fails. What is left of the secret IDs then leads nowhere, and is tidied.
pub(super) async fn remove(
    ctx: &EngineContext<'_>,
    name: &str,
    role: Entry<Role>,
) -> Result<(), CoreError> {
    let mut batch = Batch::new();
    ctx.view.delete(&mut batch, &at(name), Precondition::Rev(role.rev));
    ctx.view.delete(&mut batch, &pointer_at(ctx, &role.value.role_id), Precondition::Any);
    ctx.view.commit(&batch).await?;
    super::secret::remove_all(ctx, &role.value.key).await
}
