//! `auth/token/roles`.

use serde_json::json;

use crate::core::context::SystemContext;
use crate::core::error::CoreError;
use crate::core::fields::Fields;
use crate::core::operation::Operation;
use crate::core::reply::Reply;
use crate::core::route::{FieldKind, FieldSpec, field};
use crate::core::token::{RoleTokenType, TokenRole, cidrs, policy_names};
use crate::types::glob::Glob;

/// Longest role name and path suffix, in bytes.
const NAME_BYTES_MAX: usize = 128;
/// Most patterns in one list.
const GLOBS_MAX: usize = 256;

pub(super) const FIELDS: &[FieldSpec] = &[
    field("allowed_entity_aliases", FieldKind::List, "Not supported: must be empty."),
    field("allowed_policies", FieldKind::List, "Policies that may be asked for."),
    field("allowed_policies_glob", FieldKind::List, "Patterns of them."),
    field("bound_cidrs", FieldKind::List, "Older name of token_bound_cidrs."),
    field("disallowed_policies", FieldKind::List, "Policies that may not be asked for."),
    field("disallowed_policies_glob", FieldKind::List, "Patterns of them."),
    field("explicit_max_ttl", FieldKind::Duration, "Older name of token_explicit_max_ttl."),
    field("orphan", FieldKind::Boolean, "Make tokens without a parent."),
    field("path_suffix", FieldKind::Text, "Shown at the end of the creation path."),
    field("period", FieldKind::Duration, "Older name of token_period."),
    field("renewable", FieldKind::Boolean, "Make renewable tokens (default true)."),
    field("token_bound_cidrs", FieldKind::List, "Addresses the tokens can be used from."),
    field("token_explicit_max_ttl", FieldKind::Duration, "Maximum fixed when a token is made."),
    field("token_no_default_policy", FieldKind::Boolean, "Leave out the default policy."),
    field("token_num_uses", FieldKind::Integer, "Uses of each token; 0 for no limit."),
    field("token_period", FieldKind::Duration, "Lifetime that each renewal gives."),
    field("token_type", FieldKind::Text, "service, batch, default-service or default-batch."),
];

pub(super) const SHOWN: &[FieldSpec] = &[
    field("allowed_entity_aliases", FieldKind::List, "Always empty."),
    field("allowed_policies", FieldKind::List, "Policies that may be asked for."),
    field("allowed_policies_glob", FieldKind::List, "Patterns of them."),
    field("disallowed_policies", FieldKind::List, "Policies that may not be asked for."),
    field("disallowed_policies_glob", FieldKind::List, "Patterns of them."),
    field("explicit_max_ttl", FieldKind::Duration, "Older name of token_explicit_max_ttl."),
    field("name", FieldKind::Text, "Its name."),
    field("orphan", FieldKind::Boolean, "Whether tokens have no parent."),
    field("path_suffix", FieldKind::Text, "Shown at the end of the creation path."),
    field("period", FieldKind::Duration, "Older name of token_period."),
    field("renewable", FieldKind::Boolean, "Whether tokens can be renewed."),
    field("token_bound_cidrs", FieldKind::List, "Addresses the tokens can be used from."),
    field("token_explicit_max_ttl", FieldKind::Duration, "Maximum fixed when a token is made."),
    field("token_no_default_policy", FieldKind::Boolean, "Whether the default policy is left out."),
    field("token_num_uses", FieldKind::Integer, "Uses of each token; 0 for no limit."),
    field("token_period", FieldKind::Duration, "Lifetime that each renewal gives."),
    field("token_type", FieldKind::Text, "service, batch, default-service or default-batch."),
];

pub(super) async fn serve(
    ctx: &SystemContext<'_>,
    operation: Operation,
    name: &str,
    fields: &Fields,
) -> Result<Reply, CoreError> {
    let roles = ctx.unsealed.tokens.roles();
    match operation {
        Operation::Read => {
            let role = roles.get(name).await?.ok_or(CoreError::NotFound)?;
            Ok(shown(name, &role))
        }
        Operation::Delete => {
            roles.remove(name).await?;
            Ok(Reply::empty())
        }
        Operation::Create | Operation::Update => {
            if name.is_empty() || name.len() > NAME_BYTES_MAX {
                return Err(CoreError::field("role", "must be 1 to 128 bytes"));
            }
            roles.update(name, |role| edit(role, fields)).await?;
            Ok(Reply::empty())
        }
        Operation::List | Operation::Patch => Err(CoreError::Unsupported),
    }
}

pub(super) async fn list(ctx: &SystemContext<'_>) -> Result<Reply, CoreError> {
    Reply::listing(ctx.unsealed.tokens.roles().names().await?)
}

fn edit(role: &mut TokenRole, fields: &Fields) -> Result<(), CoreError> {
    if fields.list("allowed_entity_aliases")?.is_some_and(|list| !list.is_empty()) {
        return Err(CoreError::field("allowed_entity_aliases", "is not supported"));
    }
    let older = |name: &'static str, older: &'static str| {
        if fields.get(name).is_some() { name } else { older }
    };
    let policies = [
        ("allowed_policies", &mut role.allowed_policies),
        ("disallowed_policies", &mut role.disallowed_policies),
    ];
    for (name, policies) in policies {
        if let Some(list) = fields.list(name)? {
            *policies = policy_names(name, &list)?;
        }
    }
    if role.allowed_policies.iter().any(|policy| policy == "root") {
        return Err(CoreError::field("allowed_policies", "must not contain the root policy"));
    }
    let globs = [
        ("allowed_policies_glob", &mut role.allowed_policies_glob),
        ("disallowed_policies_glob", &mut role.disallowed_policies_glob),
    ];
    for (name, globs) in globs {
        if let Some(list) = fields.list(name)? {
            if list.len() > GLOBS_MAX {
                return Err(CoreError::field(name, "has more than 256 elements"));
            }
            // Policy names are lower case, so are the patterns for them.
            *globs = list.iter().map(|text| Glob::new(text.to_ascii_lowercase())).collect();
        }
    }
    if let Some(flag) = fields.boolean("orphan")? {
        role.orphan = flag;
    }
    if let Some(flag) = fields.boolean("renewable")? {
        role.renewable = flag;
    }
    if let Some(flag) = fields.boolean("token_no_default_policy")? {
        role.no_default_policy = flag;
    }
    if let Some(suffix) = fields.text("path_suffix")? {
        role.path_suffix = checked_suffix(suffix)?;
    }
    if let Some(period) = fields.duration(older("token_period", "period"))? {
        role.period = period;
    }
    let name = older("token_explicit_max_ttl", "explicit_max_ttl");
    if let Some(ttl) = fields.duration(name)? {
        role.explicit_max_ttl = ttl;
    }
    if let Some(uses) = fields.integer("token_num_uses")? {
        role.num_uses = uses;
    }
    let name = older("token_bound_cidrs", "bound_cidrs");
    if let Some(list) = fields.list(name)? {
        role.bound_cidrs = cidrs(name, &list)?;
    }
    if let Some(text) = fields.text("token_type")? {
        role.token_type = RoleTokenType::parse(&text).ok_or_else(|| {
            CoreError::field(
                "token_type",
                "must be service, batch, default-service or default-batch",
            )
        })?;
    }
    consistent(role)
}

fn checked_suffix(suffix: String) -> Result<String, CoreError> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if suffix.len() > NAME_BYTES_MAX || !suffix.chars().all(allowed) {
        return Err(CoreError::field("path_suffix", "takes up to 128 of letters, digits, - _ ."));
    }
    Ok(suffix)
}

fn consistent(role: &TokenRole) -> Result<(), CoreError> {
    if !role.explicit_max_ttl.is_zero() && role.period > role.explicit_max_ttl {
        return Err(CoreError::field("token_period", "is longer than token_explicit_max_ttl"));
    }
    let batch = role.token_type == RoleTokenType::Batch;
    if batch && (!role.period.is_zero() || role.num_uses > 0) {
        let problem = "cannot be batch together with token_period or token_num_uses";
        return Err(CoreError::field("token_type", problem));
    }
    Ok(())
}

fn shown(name: &str, role: &TokenRole) -> Reply {
    Reply::data(json!({
        "allowed_entity_aliases": [],
        "allowed_policies": role.allowed_policies,
        "allowed_policies_glob": role.allowed_policies_glob,
        "disallowed_policies": role.disallowed_policies,
        "disallowed_policies_glob": role.disallowed_policies_glob,
        "explicit_max_ttl": role.explicit_max_ttl,
        "name": name,
        "orphan": role.orphan,
        "path_suffix": role.path_suffix,
        "period": role.period,
        "renewable": role.renewable,
        "token_bound_cidrs": role.bound_cidrs,
        "token_explicit_max_ttl": role.explicit_max_ttl,
        "token_no_default_policy": role.no_default_policy,
        "token_num_uses": role.num_uses,
        "token_period": role.period,
        "token_type": role.token_type.as_str(),
    }))
}
