//! Answers about what issuers of tokens say, and about log-ins in a browser.

use serde_json::{Value, json};

use super::stage::Stage;
use crate::support::broker::Setup;
use crate::support::pki::{Ca, Spec};
use crate::support::signer::{self, RSA};
use crate::support::site::Site;

/// The year 2100: honest tokens are good for as long as the tests run.
const LATE: u64 = 4_102_444_800;

async fn issuer() -> (Site, Setup) {
    let site = Site::start(None).await;
    let about = json!({
        "issuer": site.url(""), "jwks_uri": site.url("/keys"), "token_endpoint": site.url("/token"),
        "authorization_endpoint": site.url("/authorize"),
    });
    site.answer("/.well-known/openid-configuration", 200, &about);
    site.answer("/keys", 200, &signer::jwks(&[&RSA]));
    let tables = format!("[auth]\noutgoing_hosts = [\"{}\"]\n", site.address);
    (site, Setup { tables, ..Setup::default() })
}

async fn recorded(area: &'static str, mount: &str) {
    let (site, setup) = issuer().await;
    let mut stage = Stage::open_with(area, setup).await;
    stage.know(&site.address.to_string(), "<issuer>");
    let at = |path: &str| format!("auth/{mount}/{path}");
    let role = json!({
        "role_type": "jwt", "bound_audiences": "broker", "user_claim": "sub",
        "bound_claims": { "team": ["red", "blue"] }, "claim_mappings": { "team": "team" },
        "groups_claim": "groups", "token_policies": "default", "token_ttl": "1h",
    });
    stage.get(&at("config")).await;
    stage.list(&at("role")).await;
    stage.get(&at("role/app")).await;
    stage.post(&at("config"), json!({})).await;
    stage.post(&at("config"), json!({ "jwks_url": "https://169.254.169.254/keys" })).await;
    stage.post(&at("config"), json!({ "jwks_url": site.url("/nothing") })).await;
    stage.post(&at("config"), json!({ "jwks_url": site.url("/keys") })).await;
    let config = json!({
        "oidc_discovery_url": site.url(""), "oidc_client_id": "broker",
        "oidc_client_secret": "client-secret", "default_role": "web",
    });
    stage.post(&at("config"), config).await;
    stage.get(&at("config")).await;
    stage.post(&at("role/app"), json!({ "role_type": "jwt", "user_claim": "sub" })).await;
    stage.post(&at("role/app"), role).await;
    stage.get(&at("role/app")).await;
    let back = "http://localhost:8250/oidc/callback";
    let web = json!({ "user_claim": "sub", "allowed_redirect_uris": back, "token_ttl": "1h" });
    stage.post(&at("role/web"), web).await;
    stage.list(&at("role")).await;

    let claims = json!({
        "iss": site.url(""), "sub": "ann", "aud": "broker", "team": "red", "groups": ["dev"],
        "exp": LATE,
    });
    let token = RSA.sign(&claims);
    stage.know(&token, "<issuer's token>");
    let nobody = stage.broker.nobody();
    let login = at("login");
    let right = json!({ "role": "app", "jwt": token });
    let made = stage.ask_as("nobody", &nobody, "POST", &login, right).await;
    let client_token = made["auth"]["client_token"].as_str().unwrap();
    let ann = stage.broker.nobody().with_token(client_token);
    stage.ask_as("ann", &ann, "POST", "auth/token/renew-self", json!({})).await;
    for body in [
        json!({}),
        json!({ "role": "app", "jwt": "x.y.z" }),
        json!({ "role": "none", "jwt": token }),
        json!({ "role": "web", "jwt": token }),
    ] {
        stage.ask_as("nobody", &nobody, "POST", &login, body).await;
    }

    let auth_url = at("oidc/auth_url");
    let wrong = json!({ "redirect_uri": "https://evil.example/" });
    stage.ask_as("nobody", &nobody, "POST", &auth_url, wrong).await;
    let begun =
        stage.ask_as("nobody", &nobody, "POST", &auth_url, json!({ "redirect_uri": back })).await;
    let url = begun["data"]["auth_url"].as_str().unwrap().to_owned();
    let of = |name: &str| {
        let rest = url.split_once(&format!("&{name}=")).unwrap().1;
        rest.split('&').next().unwrap().to_owned()
    };
    let (state, nonce) = (of("state"), of("nonce"));
    stage.know(&state, "<state>");
    let mut identity = claims.clone();
    identity["nonce"] = json!(nonce);
    site.answer("/token", 200, &json!({ "id_token": RSA.sign(&identity), "access_token": "x" }));
    let callback = format!("{}?code=c0de&state={state}", at("oidc/callback"));
    stage.ask_as("nobody", &nobody, "GET", &at("oidc/callback"), Value::Null).await;
    stage.ask_as("nobody", &nobody, "GET", &callback, Value::Null).await;
    stage.ask_as("nobody", &nobody, "GET", &callback, Value::Null).await;
    stage.delete(&at("role/app")).await;
    stage.delete(&at("role/app")).await;
    stage.ask_as("ann", &ann, "POST", "auth/token/renew-self", json!({})).await;
    stage.finish();
}

#[tokio::test]
async fn tokens_of_issuers_answer_as_recorded() {
    recorded("jwt", "jwt").await;
}

#[tokio::test]
async fn browsers_answer_as_recorded() {
    recorded("oidc", "oidc").await;
}

#[tokio::test]
async fn service_accounts_answer_as_recorded() {
    let ca = Ca::root("cluster");
    let cluster = Site::start(Some(&ca.issue(&Spec::server()))).await;
    let tables = format!("[auth]\noutgoing_hosts = [\"{}\"]\n", cluster.address);
    let setup = Setup { tables, ..Setup::default() };
    let mut stage = Stage::open_with("kubernetes", setup).await;
    stage.know(&cluster.address.to_string(), "<cluster>");
    let host = format!("https://{}", cluster.address);
    let (config, role) = ("auth/kubernetes/config", "auth/kubernetes/role/web");
    stage.get(config).await;
    stage.list("auth/kubernetes/role").await;
    stage.get(role).await;
    stage.post(config, json!({})).await;
    stage.post(config, json!({ "kubernetes_host": "https://169.254.169.254" })).await;
    let right = json!({
        "kubernetes_host": host, "kubernetes_ca_cert": ca.pem(), "token_reviewer_jwt": "reviewer",
    });
    stage.post(config, right).await;
    stage.get(config).await;
    stage.post(role, json!({ "bound_service_account_names": "web" })).await;
    let bound = json!({
        "bound_service_account_names": "web", "bound_service_account_namespaces": "shop",
        "audience": "broker", "token_policies": "default", "token_ttl": "1h",
    });
    stage.post(role, bound).await;
    stage.get(role).await;
    stage.list("auth/kubernetes/role").await;

    let user = json!({
        "username": "system:serviceaccount:shop:web", "uid": "9d0e1c2b-1111-4222-8333-444444444444",
    });
    let review = |authenticated: bool| {
        let audiences = json!(["broker"]);
        let status =
            json!({ "authenticated": authenticated, "user": user, "audiences": audiences });
        json!({ "kind": "TokenReview", "apiVersion": "authentication.k8s.io/v1", "status": status })
    };
    let reviews = "/apis/authentication.k8s.io/v1/tokenreviews";
    cluster.answer(reviews, 201, &review(true));
    let token = RSA.sign(&json!({ "sub": "system:serviceaccount:shop:web" }));
    stage.know(&token, "<service account's token>");
    let (nobody, login) = (stage.broker.nobody(), "auth/kubernetes/login");
    let right = json!({ "role": "web", "jwt": token });
    let made = stage.ask_as("nobody", &nobody, "POST", login, right.clone()).await;
    let asked = cluster.asked();
    assert_eq!(asked.len(), 1, "asked by TLS, trusted by the mount's authority");
    assert_eq!(
        (asked[0].line.as_str(), asked[0].authorization.as_str()),
        (&*format!("POST {reviews} HTTP/1.1"), "Bearer reviewer")
    );
    let web = stage.broker.nobody().with_token(made["auth"]["client_token"].as_str().unwrap());
    stage.ask_as("web", &web, "POST", "auth/token/renew-self", json!({})).await;
    for body in
        [json!({}), json!({ "role": "web", "jwt": "x" }), json!({ "role": "no", "jwt": token })]
    {
        stage.ask_as("nobody", &nobody, "POST", login, body).await;
    }
    cluster.answer(reviews, 201, &review(false));
    stage.ask_as("nobody", &nobody, "POST", login, right.clone()).await;
    cluster.answer(reviews, 500, &json!({}));
    stage.ask_as("nobody", &nobody, "POST", login, right).await;
    stage.delete(role).await;
    stage.delete(role).await;
    stage.finish();
}
