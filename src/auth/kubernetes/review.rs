//! Whose token it is: by the cluster (`authentication.k8s.io/v1` TokenReview), or by what a token that
//! was checked here says itself.

use serde_json::{Map, Value, json};

use crate::auth::jose::Refusal;
use crate::auth::jose::claims::{Claims, Leeways};
use crate::core::outgoing::{Outgoing, OutgoingError, OutgoingRequest, Payload};
use crate::crypto::jose::{UncheckedToken, parse_object};
use crate::types::secret::{SecretBytes, SecretString};
use crate::types::time::Timestamp;

use super::CLOCK_SKEW;
use super::config::Config;
use super::role::Role;

/// Largest answer of a cluster, in bytes.
const ANSWER_BYTES_MAX: usize = 256 * 1024;
/// Longest name, in bytes: as in Kubernetes.
const NAME_BYTES_MAX: usize = 253;

/// A service account.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ServiceAccount {
    pub(super) name: String,
    pub(super) namespace: String,
    pub(super) uid: String,
}

/// Asks the cluster whose `token` is, for `audience` unless that is empty.
///
/// # Errors
/// Outside when the cluster cannot say, inside when it says no.
pub(super) async fn reviewed(
    outgoing: &dyn Outgoing,
    config: &Config,
    audience: &str,
    token: &SecretString,
) -> Result<Result<ServiceAccount, Refusal>, OutgoingError> {
    let mut spec = json!({ "token": token.expose() });
    if !audience.is_empty()
        && let Some(spec) = spec.as_object_mut()
    {
        spec.insert("audiences".to_owned(), json!([audience]));
    }
    let review = json!({
        "apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": spec,
    });
    let review = SecretBytes::new(review.to_string().into_bytes());
    let url = format!("{}/apis/authentication.k8s.io/v1/tokenreviews", config.kubernetes_host);
    let reviewer = config.reviewer().unwrap_or(token);
    let bearer = SecretString::new(format!("Bearer {}", reviewer.expose()));
    let request = OutgoingRequest {
        url: &url,
        authorities: &config.kubernetes_ca_cert,
        authorization: Some(&bearer),
        payload: Payload::Json(&review),
        answer_bytes_max: ANSWER_BYTES_MAX,
    };
    let answer = outgoing.send(request).await?;
    match answer.status {
        200 | 201 => {}
        // Without a reviewer, the token in question is what the cluster did not accept.
        401 | 403 if config.reviewer().is_none() => {
            return Ok(Err(Refusal::new("the cluster does not accept the token to ask with it")));
        }
        status => return Err(OutgoingError::Failed(format!("answered with status {status}"))),
    }
    let answer = parse_object(answer.body.expose())
        .map_err(|error| OutgoingError::Failed(format!("gave an answer that {error}")))?;
    Ok(account_of(&answer, audience))
}

/// Refuses a token before the cluster is asked about it that no cluster could find good: log-ins are
/// public, and each question takes one of the mount's few places. What it says of itself is believed
/// in no other way.
pub(super) fn plausible(
    token: &UncheckedToken<'_>,
    role: &Role,
    now: Timestamp,
) -> Result<(), Refusal> {
    let claims = Claims::new(token.unchecked_claims()?);
    // The tokens of old, which are kept in secrets, do not expire.
    if claims.named("exp").is_some() {
        let leeway = CLOCK_SKEW;
        let leeways = Leeways { expiration: leeway, not_before: leeway, issued_at: leeway };
        claims.check_times(now, leeways)?;
    }
    let (namespace, name) = subject_of(&claims)?;
    if !role.lets_in(name, namespace) {
        return Err(Refusal::new("the role is for other service accounts"));
    }
    Ok(())
}

/// The namespace and the name in the subject of a service account's token.
fn subject_of(claims: &Claims) -> Result<(&str, &str), Refusal> {
    let subject = claims.text("sub")?.unwrap_or_default();
    split(subject).ok_or_else(|| Refusal::new("the token is not a service account's"))
}

/// The namespace and the name in the name of a user that a service account is.
fn split(username: &str) -> Option<(&str, &str)> {
    let (namespace, name) = username.strip_prefix("system:serviceaccount:")?.split_once(':')?;
    (!name.contains(':')).then_some((namespace, name))
}

/// The account that a review says it is.
fn account_of(answer: &Map<String, Value>, audience: &str) -> Result<ServiceAccount, Refusal> {
    let kind = answer.get("kind").and_then(Value::as_str);
    let status = answer.get("status").and_then(Value::as_object);
    let (Some("TokenReview"), Some(status)) = (kind, status) else {
        return Err(Refusal::new("the cluster's answer is no token review"));
    };
    let error = status.get("error").and_then(Value::as_str).is_some_and(|text| !text.is_empty());
    if error || status.get("authenticated") != Some(&json!(true)) {
        return Err(Refusal::new("the cluster says that the token is nobody's"));
    }
    // A cluster that knows nothing of audiences says so by naming none: its token may be for anybody.
    if !audience.is_empty() {
        let audiences = status.get("audiences").and_then(Value::as_array);
        if !audiences.is_some_and(|all| all.iter().any(|one| one == audience)) {
            return Err(Refusal::new(
                "the cluster does not say that the token is for the audience",
            ));
        }
    }
    let user = status.get("user").and_then(Value::as_object);
    let of = |name: &str| user.and_then(|user| user.get(name)).and_then(Value::as_str);
    let (namespace, name) = split(of("username").unwrap_or_default())
        .ok_or_else(|| Refusal::new("the token is not a service account's"))?;
    account(name, namespace, of("uid").unwrap_or_default())
}

/// The account that the token says it is, in the form of bound tokens or in that of older ones.
pub(super) fn account_in(claims: &Claims) -> Result<ServiceAccount, Refusal> {
    let (namespace, name) = subject_of(claims)?;
    let text = |name: &str| claims.get(name).and_then(Value::as_str);
    let uid = text("/kubernetes.io/serviceaccount/uid");
    let uid = uid.or_else(|| {
        claims.named("kubernetes.io/serviceaccount/service-account.uid").and_then(Value::as_str)
    });
    // What it says twice has to be the same.
    for (pointer, said) in
        [("/kubernetes.io/serviceaccount/name", name), ("/kubernetes.io/namespace", namespace)]
    {
        if text(pointer).is_some_and(|other| other != said) {
            return Err(Refusal::new("the token names two service accounts"));
        }
    }
    account(name, namespace, uid.unwrap_or_default())
}

fn account(name: &str, namespace: &str, uid: &str) -> Result<ServiceAccount, Refusal> {
    let usable = |text: &str| {
        !text.is_empty()
            && text.len() <= NAME_BYTES_MAX
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-.".contains(&byte))
    };
    if ![name, namespace, uid].into_iter().all(usable) {
        return Err(Refusal::new("the service account has no usable name, namespace or uid"));
    }
    let [name, namespace, uid] = [name, namespace, uid].map(str::to_owned);
    Ok(ServiceAccount { name, namespace, uid })
}
