//! Whether a role lets in whoever a token is about, and as whom.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::auth::jose::Refusal;
use crate::auth::jose::claims::{Claims, Leeways};
use crate::core::engine::{EngineContext, Grant};
use crate::types::glob::Glob;
use crate::types::time::Timestamp;

use super::role::{BoundType, Role};

/// Longest name of an identity or group, and longest note, in bytes.
const NAME_BYTES_MAX: usize = 1024;
/// Most groups of one token.
const GROUPS_MAX: usize = 1024;

/// Whether the token comes from one of `issuers`, all of which have to be the same.
pub(super) fn check_issuer<'i>(
    claims: &Claims,
    mut issuers: impl Iterator<Item = &'i str>,
) -> Result<(), Refusal> {
    let issuer = claims.text("iss")?;
    match issuers.any(|expected| issuer != Some(expected)) {
        true => Err(Refusal::new("the token is not the issuer's")),
        false => Ok(()),
    }
}

/// Whether the token is good now, as far as `role` says.
pub(super) fn check_times(role: &Role, claims: &Claims, now: Timestamp) -> Result<(), Refusal> {
    let skew = role.clock_skew_leeway.or_clock_skew();
    let leeways = Leeways {
        expiration: role.expiration_leeway.or(skew),
        not_before: role.not_before_leeway.or(skew),
        issued_at: skew,
    };
    claims.check_times(now, leeways)?;
    if role.max_age.is_zero() {
        return Ok(());
    }
    // OpenID Connect Core §3.1.3.7, 13.
    let asked = claims.time("auth_time")?;
    let asked = asked.ok_or_else(|| Refusal::new("the claim auth_time is missing"))?;
    if now > asked.plus(role.max_age).plus(skew) {
        return Err(Refusal::new("the issuer asked too long ago who it is"));
    }
    Ok(())
}

/// Whom `role` lets in by claims whose issuer, audience and times were checked.
pub(super) fn grant(
    ctx: &EngineContext<'_>,
    name: &str,
    role: Role,
    claims: &Claims,
) -> Result<Grant, Refusal> {
    if !role.bound_subject.is_empty() && claims.text("sub")? != Some(&role.bound_subject) {
        return Err(Refusal::new("the token is about another subject"));
    }
    for (claim, allowed) in &role.bound_claims {
        check_bound(claims, claim, allowed, role.bound_claims_type)?;
    }
    let user = match role.user_claim_json_pointer {
        true => claims.get(&role.user_claim),
        false => claims.named(&role.user_claim),
    };
    let alias = name_in(user, &role.user_claim)?;
    let groups = groups(&role, claims)?;
    let mut metadata = BTreeMap::new();
    for (claim, note) in &role.claim_mappings {
        if let Some(value) = claims.get(claim) {
            metadata.insert(note.clone(), note_of(value, claim)?);
        }
    }
    let alias_metadata = metadata.clone();
    metadata.insert("role".to_owned(), name.to_owned());
    Ok(Grant { alias_metadata, groups, metadata, ..Grant::new(ctx.mount, alias, name, role.token) })
}

fn check_bound(
    claims: &Claims,
    claim: &str,
    allowed: &[Value],
    compared: BoundType,
) -> Result<(), Refusal> {
    let found = claims.get(claim);
    let found = found.ok_or_else(|| Refusal::new(format!("the bound claim {claim} is missing")))?;
    let values = found.as_array().map_or(std::slice::from_ref(found), Vec::as_slice);
    let matches = |expected: &Value, value: &Value| match (compared, expected, value) {
        (BoundType::Glob, Value::String(pattern), Value::String(text)) => {
            Glob::new(pattern.as_str()).matches(text)
        }
        (BoundType::Glob, _, _) => false,
        // Of one type as well: the number 1 is not the text "1", and true is neither.
        (BoundType::String, expected, value) => expected == value,
    };
    let any = values.iter().any(|value| allowed.iter().any(|expected| matches(expected, value)));
    if any {
        Ok(())
    } else {
        Err(Refusal::new(format!("the bound claim {claim} has another value")))
    }
}

fn groups(role: &Role, claims: &Claims) -> Result<Vec<String>, Refusal> {
    if role.groups_claim.is_empty() {
        return Ok(Vec::new());
    }
    let claim = &role.groups_claim;
    // Providers leave it out for who is in none.
    let Some(found) = claims.get(claim) else { return Ok(Vec::new()) };
    let values = found.as_array().map_or(std::slice::from_ref(found), Vec::as_slice);
    if values.len() > GROUPS_MAX {
        return Err(Refusal::new(format!("the claim {claim} lists more than 1024 groups")));
    }
    let mut groups: Vec<String> =
        values.iter().map(|value| name_in(Some(value), claim)).collect::<Result<_, _>>()?;
    groups.sort_unstable();
    groups.dedup();
    Ok(groups)
}

/// A name: text of a length that names have, on one line.
fn name_in(value: Option<&Value>, claim: &str) -> Result<String, Refusal> {
    let refused = |problem: &str| Refusal::new(format!("the claim {claim} {problem}"));
    let text = value.ok_or_else(|| refused("is missing"))?;
    let text = text.as_str().ok_or_else(|| refused("is not text"))?;
    if text.is_empty() || text.len() > NAME_BYTES_MAX || text.chars().any(char::is_control) {
        return Err(refused("is empty, too long, or has a control character"));
    }
    Ok(text.to_owned())
}

fn note_of(value: &Value, claim: &str) -> Result<String, Refusal> {
    match value {
        Value::Number(number) => Ok(number.to_string()),
        Value::Bool(flag) => Ok(flag.to_string()),
        Value::String(text) if text.is_empty() => Ok(String::new()),
        Value::Null | Value::String(_) | Value::Array(_) | Value::Object(_) => {
            name_in(Some(value), claim)
        }
    }
}
