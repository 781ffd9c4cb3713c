//! Tokens of issuers and log-ins in a browser, through HTTPS and on several nodes, with an issuer that
//! says what no honest one would.

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::support::broker::{Broker, Caller, Setup};
use crate::support::needles::Needles;
use crate::support::postgres::TestPostgres;
use crate::support::signer::{self, RSA};
use crate::support::site::Site;
use crate::support::wire::Answer;

const REFUSAL: &str = "invalid role or token";
const BACK: &str = "http://localhost:8250/oidc/callback";
/// The year 2100.
const LATE: u64 = 4_102_444_800;

/// An issuer, and how a broker is set up that may ask it.
async fn issuer(setup: Setup) -> (Site, Setup) {
    let site = Site::start(None).await;
    let about = json!({
        "issuer": site.url(""), "jwks_uri": site.url("/keys"), "token_endpoint": site.url("/token"),
        "authorization_endpoint": site.url("/authorize"),
    });
    site.answer("/.well-known/openid-configuration", 200, &about);
    site.answer("/keys", 200, &signer::jwks(&[&RSA]));
    let tables = format!("[auth]\noutgoing_hosts = [\"{}\"]\n", site.address);
    (site, Setup { tables, ..setup })
}

/// Mounts and roles for tokens and for browsers.
async fn furnish(root: &Caller, site: &Site) {
    root.write("sys/auth/sso", json!({ "type": "oidc" })).await.ok();
    let config = json!({
        "oidc_discovery_url": site.url(""), "oidc_client_id": "broker",
        "oidc_client_secret": "needle-client-secret",
    });
    root.write("auth/sso/config", config).await.ok();
    let app = json!({ "role_type": "jwt", "bound_audiences": "broker", "user_claim": "sub" });
    root.write("auth/sso/role/app", app).await.ok();
    let web = json!({ "user_claim": "sub", "allowed_redirect_uris": BACK });
    root.write("auth/sso/role/web", web).await.ok();
}

fn claims(site: &Site) -> Value {
    json!({ "iss": site.url(""), "sub": "needle-ann-of-the-issuer", "aud": "broker", "exp": LATE })
}

async fn begin(caller: &Caller, site: &Site) -> String {
    let body = json!({ "role": "web", "redirect_uri": BACK });
    let begun = caller.write("auth/sso/oidc/auth_url", body).await.data();
    let url = begun["auth_url"].as_str().unwrap().to_owned();
    let of = |name: &str| {
        let rest = url.split_once(&format!("&{name}=")).unwrap().1;
        rest.split('&').next().unwrap().to_owned()
    };
    let mut identity = claims(site);
    identity["nonce"] = json!(of("nonce"));
    site.answer("/token", 200, &json!({ "id_token": RSA.sign(&identity) }));
    format!("auth/sso/oidc/callback?code=needle-code&state={}", of("state"))
}

fn token(answer: &Answer) -> bool {
    answer.status == 200 && answer.json()["auth"]["client_token"].is_string()
}

#[tokio::test]
async fn the_reason_of_a_refusal_is_in_the_audit_and_secrets_are_nowhere() {
    let (site, setup) = issuer(Setup::default()).await;
    let broker = Broker::ready(setup).await;
    furnish(&broker.root(), &site).await;
    let nobody = broker.nobody();
    let right = RSA.sign(&claims(&site));
    let mut expired = claims(&site);
    expired["exp"] = json!(1_000);
    for (role, given, reason) in [
        ("app", RSA.sign(&expired), "the token has expired"),
        ("none", right.clone(), "there is no such role"),
        (
            "app",
            signer::sign_hs256(RSA.public_pem().as_bytes(), "rsa", &claims(&site)),
            "algorithm",
        ),
    ] {
        let body = json!({ "role": role, "jwt": given });
        let answer = nobody.write("auth/sso/login", body).await;
        assert_eq!(answer.error(400), REFUSAL);
        let entry = broker.audited(&answer);
        assert!(entry["outcome"]["reason"].as_str().unwrap().contains(reason), "{entry}");
    }
    let made = nobody.write("auth/sso/login", json!({ "role": "app", "jwt": right })).await;
    assert!(token(&made), "{}", made.body);
    let callback = begin(&nobody, &site).await;
    assert!(token(&nobody.read(&callback).await));
    let needles =
        ["needle-client-secret", "needle-code", &right, callback.rsplit('=').next().unwrap()];
    let mut log = broker.log();
    log += &std::fs::read_to_string(broker.audit_path()).unwrap();
    for needle in needles {
        assert!(!log.contains(needle), "{needle} is in the log or the audit");
    }
    // Nor does any of it lie open in the store, names included.
    let mut needles = Needles::new();
    for needle in ["needle-client-secret", "needle-ann-of-the-issuer"] {
        needles.add(needle, needle.as_bytes());
    }
    for entry in std::fs::read_dir(broker.data_dir()).unwrap() {
        let path = entry.unwrap().path();
        let found = needles.found_in(&std::fs::read(&path).unwrap());
        assert!(found.is_empty(), "{found:?} in {}", path.display());
    }
}

#[tokio::test]
async fn an_administrator_of_a_mount_cannot_make_the_broker_ask_elsewhere() {
    let (site, setup) = issuer(Setup::default()).await;
    let inside = Site::start(None).await;
    inside.answer("/keys", 200, &signer::jwks(&[&RSA]));
    inside.answer("/token", 200, &json!({ "id_token": "x" }));
    let broker = Broker::ready(setup).await;
    let root = broker.root();
    furnish(&root, &site).await;
    site.asked();
    let refused = root.write("auth/sso/config", json!({ "jwks_url": inside.url("/keys") })).await;
    assert!(refused.error(400).contains("auth.outgoing_hosts"), "{}", refused.body);
    // Not by what a provider says of itself either.
    for (name, path) in [("jwks_uri", "/keys"), ("token_endpoint", "/token")] {
        let mut about = json!({
            "issuer": site.url(""), "jwks_uri": site.url("/keys"),
            "token_endpoint": site.url("/token"), "authorization_endpoint": site.url("/authorize"),
        });
        about[name] = json!(inside.url(path));
        site.answer("/.well-known/openid-configuration", 200, &about);
        let config = json!({ "oidc_discovery_url": site.url(""), "oidc_client_id": "broker" });
        let written = root.write("auth/sso/config", config).await;
        if name == "jwks_uri" {
            assert!(written.error(400).contains("auth.outgoing_hosts"), "{}", written.body);
            continue;
        }
        written.ok();
        let callback = begin(&broker.nobody(), &site).await;
        let answer = broker.nobody().read(&callback).await;
        assert_eq!(answer.status, 502, "{}", answer.body);
        assert!(!answer.body.contains(&inside.address.to_string()), "{}", answer.body);
    }
    assert!(inside.asked().is_empty(), "it was asked all the same");
}

#[tokio::test]
async fn any_node_finishes_a_log_in_and_one_of_them_once() {
    let server = TestPostgres::shared();
    let setup = Setup { postgres: Some(server.database()), ..Setup::default() };
    let (site, setup) = issuer(setup).await;
    let first = Broker::ready(setup).await;
    furnish(&first.root(), &site).await;
    let second = first.beside().await;
    let callback = begin(&first.nobody(), &site).await;
    let callers: Vec<Caller> = (0..4).flat_map(|_| [first.nobody(), second.nobody()]).collect();
    let answers = join_all(callers.iter().map(|caller| caller.read(&callback))).await;
    assert_eq!(answers.iter().filter(|answer| token(answer)).count(), 1);
    for answer in answers.iter().filter(|answer| !token(answer)) {
        assert_eq!(answer.error(400), REFUSAL);
    }
}
