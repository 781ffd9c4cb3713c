//! Ceremonies as requests and answers: the fields they take and the JSON that stock clients read.
//! Used by the paths that work without a caller, and by their counterparts for administrators.

use std::sync::Arc;

use data_encoding::{BASE64, HEXLOWER};
use serde_json::{Value, json};

use crate::types::secret::SecretBytes;

use super::super::context::Core;
use super::super::error::CoreError;
use super::super::fields::Fields;
use super::super::guess::Guesser;
use super::super::route::{FieldKind, FieldSpec, field};
use super::endpoints::{Done, Undo};
use super::generate_root::{GenerateRootOutcome, GenerateRootStatus};
use super::rekey::{Asker, RekeyOutcome, RekeyPlan, RekeyStatus};

pub(super) const REKEY_FIELDS: &[FieldSpec] = &[
    field("secret_shares", FieldKind::Integer, "how many shares to make"),
    field("secret_threshold", FieldKind::Integer, "how many of them open"),
    field("require_verification", FieldKind::Boolean, "the new shares have to be proven first"),
    field("nonce", FieldKind::Text, "when giving up: the nonce of the attempt"),
    field("pgp_keys", FieldKind::List, "not supported"),
    field("backup", FieldKind::Boolean, "not supported"),
];

pub(super) const GENERATE_ROOT_FIELDS: &[FieldSpec] = &[
    field("otp", FieldKind::Secret, "the pad under which the token leaves; drawn when left out"),
    field("nonce", FieldKind::Text, "when giving up: the nonce of the attempt"),
    field("pgp_key", FieldKind::Text, "not supported"),
];

pub(super) const REKEY_SHOWN: &[FieldSpec] = &[
    field("backup", FieldKind::Boolean, "always false"),
    field("n", FieldKind::Integer, "how many shares are made"),
    field("nonce", FieldKind::Text, "which attempt it is; empty for none"),
    field("pgp_fingerprints", FieldKind::List, "always null").or_null(),
    field("progress", FieldKind::Integer, "how many shares were given"),
    field("required", FieldKind::Integer, "how many are needed"),
    field("started", FieldKind::Boolean, "whether an attempt is under way"),
    field("t", FieldKind::Integer, "how many of the new shares open"),
    field("verification_nonce", FieldKind::Text, "which verification it is").if_any(),
    field("verification_required", FieldKind::Boolean, "the new shares have to be proven first"),
];

/// As [`REKEY_SHOWN`], or with the last share the new ones.
pub(super) const REKEYED: &[FieldSpec] = &[
    field("backup", FieldKind::Boolean, "always false"),
    field("complete", FieldKind::Boolean, "true when this was the last share").if_any(),
    field("keys", FieldKind::List, "the new shares, in hexadecimal").if_any(),
    field("keys_base64", FieldKind::List, "the same in base64").if_any(),
    field("n", FieldKind::Integer, "how many shares are made").if_any(),
    field("nonce", FieldKind::Text, "which attempt it is"),
    field("pgp_fingerprints", FieldKind::List, "always null").or_null(),
    field("progress", FieldKind::Integer, "how many shares were given").if_any(),
    field("required", FieldKind::Integer, "how many are needed").if_any(),
    field("started", FieldKind::Boolean, "whether an attempt is under way").if_any(),
    field("t", FieldKind::Integer, "how many of the new shares open").if_any(),
    field("verification_nonce", FieldKind::Text, "which verification it is").if_any(),
    field("verification_required", FieldKind::Boolean, "the new shares have to be proven first"),
];

pub(super) const VERIFY_SHOWN: &[FieldSpec] = &[
    field("n", FieldKind::Integer, "how many new shares there are"),
    field("nonce", FieldKind::Text, "which verification it is; empty for none"),
    field("progress", FieldKind::Integer, "how many of them were given"),
    field("started", FieldKind::Boolean, "whether a verification is under way"),
    field("t", FieldKind::Integer, "how many of them open"),
];

/// As [`VERIFY_SHOWN`], or that it is over.
pub(super) const VERIFIED: &[FieldSpec] = &[
    field("complete", FieldKind::Boolean, "true when this was the last share").if_any(),
    field("n", FieldKind::Integer, "how many new shares there are").if_any(),
    field("nonce", FieldKind::Text, "which verification it is"),
    field("progress", FieldKind::Integer, "how many of them were given").if_any(),
    field("started", FieldKind::Boolean, "whether a verification is under way").if_any(),
    field("t", FieldKind::Integer, "how many of them open").if_any(),
];

pub(super) const GENERATE_ROOT_SHOWN: &[FieldSpec] = &[
    field("complete", FieldKind::Boolean, "whether the token was made"),
    field("encoded_root_token", FieldKind::Text, "the token under the pad; empty until then"),
    field("encoded_token", FieldKind::Text, "the same"),
    field("nonce", FieldKind::Text, "which attempt it is; empty for none"),
    field("otp", FieldKind::Secret, "the pad, told once to who began without one"),
    field("otp_length", FieldKind::Integer, "how long a pad has to be"),
    field("pgp_fingerprint", FieldKind::Text, "always empty"),
    field("progress", FieldKind::Integer, "how many shares were given"),
    field("required", FieldKind::Integer, "how many are needed"),
    field("started", FieldKind::Boolean, "whether an attempt is under way"),
];

/// `body` with the fields of `further` in it.
pub(super) fn with(mut body: Value, further: Value) -> Value {
    if let (Value::Object(body), Value::Object(further)) = (&mut body, further) {
        body.extend(further);
    }
    body
}

/// Refuses what would have to be encrypted to somebody.
pub(super) fn refuse_pgp(fields: &Fields, names: &[&str]) -> Result<(), CoreError> {
    for name in names {
        let given = match fields.get(name) {
            None => false,
            Some(Value::Array(list)) => !list.is_empty(),
            Some(Value::String(text)) => !text.is_empty(),
            Some(_) => true,
        };
        if given {
            return Err(CoreError::field(*name, "is not supported"));
        }
    }
    Ok(())
}

/// How many shares, and how many of them open; zero of both for none.
pub(super) fn split(fields: &Fields) -> Result<(u8, u8), CoreError> {
    let number = |name: &str| {
        let number = fields.integer(name)?.unwrap_or(0);
        u8::try_from(number).map_err(|_| CoreError::field(name, "must be at most 255"))
    };
    let (shares, threshold) = (number("secret_shares")?, number("secret_threshold")?);
    match (shares, threshold) {
        (0, 0) | (1, 1) => {}
        (0, _) => return Err(CoreError::field("secret_shares", "must be at least 1")),
        (_, 0) => return Err(CoreError::field("secret_threshold", "must be at least 1")),
        (_, 1) => {
            return Err(CoreError::field(
                "secret_threshold",
                "must be at least 2 when there is more than one share",
            ));
        }
        (shares, threshold) if threshold > shares => {
            return Err(CoreError::field("secret_threshold", "must be at most secret_shares"));
        }
        _ => {}
    }
    Ok((shares, threshold))
}

/// Shares in both spellings.
pub(super) fn keys_json(keys: &[SecretBytes]) -> (Vec<String>, Vec<String>) {
    (
        keys.iter().map(|key| HEXLOWER.encode(key.expose())).collect(),
        keys.iter().map(|key| BASE64.encode(key.expose())).collect(),
    )
}

fn key_and_nonce(
    fields: &Fields,
) -> Result<(crate::types::secret::SecretString, String), CoreError> {
    let key = fields.secret("key")?.filter(|key| !key.expose().is_empty());
    let key = key.ok_or_else(|| CoreError::field("key", "is required"))?;
    Ok((key, fields.required_text("nonce")?))
}

/// The nonce that cancels: the one given, or else the one that the asker may know; `None` for
/// administrators.
fn cancelling<'a>(
    fields: &Fields,
    asker: Asker<'a>,
    told: String,
) -> Result<Option<String>, CoreError> {
    match asker {
        Asker::Knowing => Ok(None),
        Asker::Named(_) => Ok(Some(fields.text("nonce")?.unwrap_or(told))),
    }
}

pub(super) async fn rekey_start(
    core: &Arc<Core>,
    fields: &Fields,
    starter: String,
) -> Result<Done, CoreError> {
    refuse_pgp(fields, &["pgp_keys"])?;
    if fields.boolean("backup")?.unwrap_or(false) {
        return Err(CoreError::field("backup", "is not supported"));
    }
    let (shares, threshold) = split(fields)?;
    if shares == 0 {
        return Err(CoreError::field("secret_shares", "is required"));
    }
    let verify = fields.boolean("require_verification")?.unwrap_or(false);
    core.rekey_start(RekeyPlan { shares, threshold, verify }, starter).await?;
    rekey_status(core, Asker::Knowing).await
}

pub(super) async fn rekey_status(core: &Core, asker: Asker<'_>) -> Result<Done, CoreError> {
    Ok(Done::ok(rekey_status_json(&core.rekey_status(asker).await?)))
}

fn rekey_status_json(status: &RekeyStatus) -> Value {
    let body = json!({
        "nonce": status.nonce,
        "started": status.attempt.is_some(),
        "t": status.attempt.map_or(0, |plan| plan.threshold),
        "n": status.attempt.map_or(0, |plan| plan.shares),
        "progress": status.progress,
        "required": status.required,
        "pgp_fingerprints": null,
        "backup": false,
        "verification_required": status.attempt.is_some_and(|plan| plan.verify),
    });
    if status.verification_nonce.is_empty() {
        return body;
    }
    with(body, json!({ "verification_nonce": status.verification_nonce }))
}

pub(super) async fn rekey_cancel(
    core: &Core,
    fields: &Fields,
    asker: Asker<'_>,
) -> Result<Done, CoreError> {
    let status = core.rekey_status(asker).await?;
    let told = if status.nonce.is_empty() { status.verification_nonce } else { status.nonce };
    core.rekey_cancel(cancelling(fields, asker, told)?.as_deref()).await?;
    Ok(Done::empty())
}

pub(super) async fn rekey_update(
    core: &Core,
    fields: &Fields,
    giver: &Guesser,
) -> Result<Done, CoreError> {
    let (key, nonce) = key_and_nonce(fields)?;
    Ok(Done::ok(match core.rekey_update(key.expose(), &nonce, giver).await? {
        RekeyOutcome::More(status) => rekey_status_json(&status),
        RekeyOutcome::Done { keys, nonce, verification_nonce, verify } => {
            let (hex, base64) = keys_json(&keys);
            json!({
                "complete": true,
                "nonce": nonce,
                "keys": hex,
                "keys_base64": base64,
                "pgp_fingerprints": null,
                "backup": false,
                "verification_required": verify,
                "verification_nonce": verification_nonce,
            })
        }
    }))
}

pub(super) fn verify_status(core: &Core, asker: Asker<'_>) -> Result<Done, CoreError> {
    let status = core.verification_status(asker)?;
    let (shares, threshold) = status.split.unwrap_or_default();
    Ok(Done::ok(json!({
        "nonce": status.nonce,
        "started": status.split.is_some(),
        "t": threshold,
        "n": shares,
        "progress": status.progress,
    })))
}

pub(super) fn verify_restart(
    core: &Core,
    fields: &Fields,
    asker: Asker<'_>,
) -> Result<Done, CoreError> {
    let told = core.verification_status(asker)?.nonce;
    core.verification_restart(cancelling(fields, asker, told)?.as_deref())?;
    verify_status(core, asker)
}

pub(super) async fn verify_update(
    core: &Core,
    fields: &Fields,
    giver: &Guesser,
) -> Result<Done, CoreError> {
    let (key, nonce) = key_and_nonce(fields)?;
    if core.verification_update(key.expose(), &nonce, giver).await? {
        return Ok(Done::ok(json!({ "complete": true, "nonce": nonce })));
    }
    verify_status(core, Asker::Knowing)
}

pub(super) async fn generate_root_start(
    core: &Core,
    fields: &Fields,
    starter: String,
) -> Result<Done, CoreError> {
    refuse_pgp(fields, &["pgp_key"])?;
    let otp = fields.secret("otp")?.filter(|otp| !otp.expose().is_empty());
    let fresh = core.generate_root_start(otp, starter).await?;
    let status = core.generate_root_status(Asker::Knowing).await?;
    let body = generate_root_json(core, &status);
    Ok(Done::ok(match fresh {
        Some(otp) => with(body, json!({ "otp": otp.expose() })),
        None => body,
    }))
}

pub(super) async fn generate_root_status(core: &Core, asker: Asker<'_>) -> Result<Done, CoreError> {
    let status = core.generate_root_status(asker).await?;
    Ok(Done::ok(generate_root_json(core, &status)))
}

fn generate_root_json(core: &Core, status: &GenerateRootStatus) -> Value {
    json!({
        "started": status.started,
        "nonce": status.nonce,
        "progress": status.progress,
        "required": status.required,
        "complete": false,
        "encoded_token": "",
        "encoded_root_token": "",
        "pgp_fingerprint": "",
        "otp": "",
        "otp_length": core.otp_length(),
    })
}

pub(super) async fn generate_root_cancel(
    core: &Core,
    fields: &Fields,
    asker: Asker<'_>,
) -> Result<Done, CoreError> {
    let told = core.generate_root_status(asker).await?.nonce;
    core.generate_root_cancel(cancelling(fields, asker, told)?.as_deref()).await?;
    Ok(Done::empty())
}

pub(super) async fn generate_root_update(
    core: &Core,
    fields: &Fields,
    giver: &Guesser,
) -> Result<Done, CoreError> {
    let (key, nonce) = key_and_nonce(fields)?;
    match core.generate_root_update(key.expose(), &nonce, giver).await? {
        GenerateRootOutcome::More(status) => Ok(Done::ok(generate_root_json(core, &status))),
        GenerateRootOutcome::Done { encoded, accessor, status } => {
            let token = encoded.expose();
            let done =
                json!({ "complete": true, "encoded_token": token, "encoded_root_token": token });
            let body = with(generate_root_json(core, &status), done);
            let undo = accessor.map_or(Undo::Nothing, Undo::RootToken);
            Ok(Done { status: 200, body, undo })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(value: Value) -> Fields {
        Fields::new(value.as_object().unwrap().clone())
    }

    #[test]
    fn splits_that_cannot_be_made_are_refused_by_field() {
        let of = |shares: Value, threshold: Value| {
            split(&fields(json!({"secret_shares": shares, "secret_threshold": threshold})))
        };
        assert_eq!(of(json!(5), json!(3)).unwrap(), (5, 3));
        assert_eq!(of(json!("255"), json!(255)).unwrap(), (255, 255));
        assert_eq!(of(json!(1), json!(1)).unwrap(), (1, 1));
        assert_eq!(split(&fields(json!({}))).unwrap(), (0, 0));
        for (shares, threshold, field) in [
            (json!(0), json!(1), "secret_shares"),
            (json!(3), json!(0), "secret_threshold"),
            (json!(3), json!(1), "secret_threshold"),
            (json!(3), json!(4), "secret_threshold"),
            (json!(256), json!(2), "secret_shares"),
            (json!(-1), json!(2), "secret_shares"),
            (json!([]), json!(2), "secret_shares"),
        ] {
            let error = of(shares, threshold).unwrap_err();
            assert!(error.to_string().contains(field), "{error}");
        }
    }

    #[test]
    fn empty_pgp_fields_are_what_stock_clients_send() {
        for empty in [json!({"pgp_keys": null}), json!({"pgp_keys": []}), json!({"pgp_keys": ""})] {
            refuse_pgp(&fields(empty), &["pgp_keys"]).unwrap();
        }
        for given in [json!({"pgp_keys": ["x"]}), json!({"pgp_keys": "x"}), json!({"pgp_keys": 1})]
        {
            assert!(refuse_pgp(&fields(given), &["pgp_keys"]).is_err());
        }
    }
}
