use std::collections::BTreeMap;

use data_encoding::BASE64URL_NOPAD;
use percent_encoding::percent_decode_str;

use super::*;
use crate::auth::jwt::state::STATE_TTL;
use crate::core::outgoing::OutgoingError;
use crate::crypto::digest::sha256;
use crate::signer::{OTHER_RSA, P256};

const BACK: &str = "http://localhost:8250/oidc/callback";
const CLIENT: &str = "the broker";

async fn world() -> World {
    let client = json!({ "oidc_client_id": CLIENT, "oidc_client_secret": "s&cret:1" });
    let world = World::with_issuer(&[&RSA], client).await;
    world.write("role/dev", browser_role()).await.unwrap();
    world
}

fn browser_role() -> Value {
    json!({
        "user_claim": "sub", "allowed_redirect_uris": [BACK, "https://ui.example.org/cb"],
        "token_policies": "dev",
    })
}

fn pairs(text: &str) -> BTreeMap<String, String> {
    let decoded = |text: &str| percent_decode_str(text).decode_utf8().unwrap().into_owned();
    let pairs = text.split('&').map(|pair| pair.split_once('=').unwrap());
    pairs.map(|(name, value)| (decoded(name), decoded(value))).collect()
}

impl World {
    /// What the browser takes to the issuer.
    async fn begin(&self, more: Value) -> BTreeMap<String, String> {
        let body = changed(json!({ "role": "dev", "redirect_uri": BACK }), &more);
        let begun = self.write("oidc/auth_url", body).await.unwrap();
        let url = begun["auth_url"].as_str().unwrap().to_owned();
        pairs(url.strip_prefix(&format!("{ISSUER}/authorize?")).expect("where it leads to"))
    }

    /// What the issuer gives for the next code.
    fn give(&self, signer: &Signer, claims: &Value) {
        let given = json!({ "id_token": signer.sign(claims), "access_token": "at-1" });
        self.others.answer(&format!("{ISSUER}/token"), 200, &given);
    }

    async fn finish(
        &self,
        begun: &BTreeMap<String, String>,
        more: Value,
    ) -> Result<Grant, CoreError> {
        let brought = changed(json!({ "state": begun["state"], "code": "c0de" }), &more);
        Ok(granted(self.call(Operation::Read, "oidc/callback", brought).await?))
    }
}

/// What an honest ID token says about that log-in.
fn identity(begun: &BTreeMap<String, String>, changes: &Value) -> Value {
    let mut claims = with(&json!({ "aud": CLIENT, "nonce": begun["nonce"] }));
    for (name, value) in changes.as_object().unwrap() {
        claims[name] = value.clone();
    }
    claims.as_object_mut().unwrap().retain(|_, value| !value.is_null());
    claims
}

#[tokio::test]
async fn a_browser_that_comes_back_with_a_code_is_a_log_in() {
    let world = world().await;
    world.write("role/dev", json!({ "oidc_scopes": "email", "max_age": "1h" })).await.unwrap();
    let begun = world.begin(json!({ "client_nonce": "mine" })).await;
    for (name, value) in [
        ("response_type", "code"),
        ("client_id", CLIENT),
        ("redirect_uri", BACK),
        ("scope", "openid email"),
        ("code_challenge_method", "S256"),
        ("max_age", "3600"),
    ] {
        assert_eq!(begun[name], value, "{name}");
    }
    world.others.asked();
    world.give(&RSA, &identity(&begun, &json!({ "auth_time": NOW.as_secs() - 10 })));
    let back = json!({ "client_nonce": "mine", "iss": ISSUER });
    let grant = world.finish(&begun, back).await.unwrap();
    assert_eq!((grant.alias.as_str(), grant.role.as_str()), ("ann-1", "dev"));
    assert_eq!(grant.token.policies, ["dev"]);
    // Only the code was traded: the token says all that is needed.
    let [asked] = &world.others.asked()[..] else { panic!("one request") };
    assert_eq!(asked.url, format!("{ISSUER}/token"));
    // RFC 6749 §2.3.1.
    let credential = data_encoding::BASE64.encode(b"the%20broker:s%26cret%3A1");
    assert_eq!(asked.authorization, format!("Basic {credential}"));
    let form = pairs(&asked.body);
    assert_eq!((form["code"].as_str(), form["redirect_uri"].as_str()), ("c0de", BACK));
    assert_eq!(form["grant_type"], "authorization_code");
    assert!(!form.contains_key("client_secret"));
    let challenge = BASE64URL_NOPAD.encode(&sha256(form["code_verifier"].as_bytes()));
    assert_eq!(challenge, begun["code_challenge"]);
}

#[tokio::test]
async fn each_log_in_has_its_own_state_nonce_and_challenge_and_shows_none_of_its_secrets() {
    let world = world().await;
    let (one, other) = (world.begin(json!({})).await, world.begin(json!({})).await);
    for name in ["state", "nonce", "code_challenge"] {
        assert_ne!(one[name], other[name], "{name}");
    }
    let state = BASE64URL_NOPAD.decode(one["state"].as_bytes()).unwrap();
    let shown = String::from_utf8_lossy(&state);
    assert!(!shown.contains("dev") && !shown.contains("nonce"), "{shown}");
    assert_eq!(world.mount.view.list("used/").await.unwrap().len(), 0, "nothing is stored");
}

#[tokio::test]
async fn only_what_a_role_allows_begins() {
    let world = world().await;
    world.write("role/app", role()).await.unwrap();
    for body in [
        json!({ "role": "none", "redirect_uri": BACK }),
        json!({ "role": "", "redirect_uri": BACK }),
        json!({ "role": "app", "redirect_uri": BACK }),
        json!({ "role": "dev", "redirect_uri": "http://localhost:8250/other" }),
        json!({ "role": "dev", "redirect_uri": "http://127.0.0.1:8250/oidc/callback" }),
        json!({ "role": "dev", "redirect_uri": "https://ui.example.org/cb/" }),
        json!({ "role": "dev", "redirect_uri": "https://ui.example.org.evil.example/cb" }),
        json!({ "role": "dev", "redirect_uri": "http://localhost:8250@evil.example/oidc/callback" }),
    ] {
        let error = world.write("oidc/auth_url", body.clone()).await.unwrap_err();
        assert!(error.public_text().starts_with("invalid role or redirect_uri"), "{body}: {error}");
    }
    for port in ["", ":1", ":65535"] {
        let uri = format!("http://localhost{port}/oidc/callback");
        assert_eq!(world.begin(json!({ "redirect_uri": uri })).await["redirect_uri"], uri);
    }
    // A mount without a client begins nothing, and one whose issuer is not asked by https neither.
    world.write("config", json!({ "oidc_discovery_url": ISSUER })).await.unwrap();
    let body = json!({ "role": "dev", "redirect_uri": BACK });
    assert!(world.write("oidc/auth_url", body).await.is_err());
}

#[tokio::test]
async fn an_id_token_that_is_not_about_this_log_in_is_refused() {
    let world = world().await;
    let now = NOW.as_secs();
    for (changes, expected) in [
        (json!({ "nonce": "another" }), "another log-in"),
        (json!({ "nonce": null }), "another log-in"),
        (json!({ "nonce": "" }), "another log-in"),
        (json!({ "aud": "broker" }), "for others"),
        (json!({ "aud": null }), "for nobody"),
        (json!({ "aud": [CLIENT, "x"] }), "azp is missing"),
        (json!({ "aud": [CLIENT, "x"], "azp": "x" }), "another client"),
        (json!({ "azp": "x" }), "another client"),
        (json!({ "iss": "https://other.example" }), "not the issuer's"),
        (json!({ "iss": null }), "not the issuer's"),
        (json!({ "exp": now - 60 }), "expired"),
        (json!({ "exp": null }), "exp is missing"),
        (json!({ "iat": now + 61 }), "iat is in the future"),
        (json!({ "nbf": now + 61 }), "nbf is in the future"),
        (json!({ "sub": null }), "sub is missing"),
    ] {
        let begun = world.begin(json!({})).await;
        world.give(&RSA, &identity(&begun, &changes));
        let refused = reason(world.finish(&begun, json!({})).await);
        assert!(refused.contains(expected), "{changes}: {refused}");
    }
    let begun = world.begin(json!({})).await;
    let several = json!({ "aud": [CLIENT, "x"], "azp": CLIENT });
    world.give(&RSA, &identity(&begun, &several));
    world.finish(&begun, json!({})).await.unwrap();
    // Who it is was asked too long ago, or it is not said when.
    world.write("role/dev", json!({ "max_age": 60 })).await.unwrap();
    for (auth_time, expected) in [
        (json!(now - 121), "too long ago"),
        (json!(null), "is missing"),
        (json!("x"), "not a time"),
    ] {
        let begun = world.begin(json!({})).await;
        world.give(&RSA, &identity(&begun, &json!({ "auth_time": auth_time })));
        let refused = reason(world.finish(&begun, json!({})).await);
        assert!(refused.contains(expected), "{refused}");
    }
}

#[tokio::test]
async fn an_id_token_counts_by_its_signature_and_not_by_its_way() {
    let world = world().await;
    for signer in [&*OTHER_RSA, &*P256] {
        let begun = world.begin(json!({})).await;
        world.give(signer, &identity(&begun, &json!({})));
        reason(world.finish(&begun, json!({})).await);
    }
    let begun = world.begin(json!({})).await;
    let claims = identity(&begun, &json!({}));
    for token in [
        json!(signer::sign_hs256(RSA.public_pem().as_bytes(), "rsa", &claims)),
        // By OpenID Connect, symmetric signatures are made with the client's secret. Not here.
        json!(signer::sign_hs256(b"s&cret:1", "rsa", &claims)),
        json!(RSA.sign_as(&json!({ "alg": "none" }), &claims)),
        json!(RSA.sign_as(&json!({ "alg": "PS256" }), &claims)),
        json!(RSA.sign_as(&json!({ "typ": "at+jwt" }), &claims)),
        json!(RSA.sign_as(&json!({ "kid": "other" }), &claims)),
        json!({}),
        json!(null),
    ] {
        let given = json!({ "id_token": token, "access_token": "at-1" });
        world.others.answer(&format!("{ISSUER}/token"), 200, &given);
        reason(world.finish(&begun, json!({})).await);
    }
    // The algorithms are the configuration's choice.
    world.give(&RSA, &claims);
    world.finish(&begun, json!({})).await.unwrap();
}

#[tokio::test]
async fn a_state_is_good_once_here_for_a_while_and_for_whoever_began() {
    let world = world().await;
    let begun = world.begin(json!({ "client_nonce": "mine" })).await;
    world.give(&RSA, &identity(&begun, &json!({})));
    let mine = || json!({ "client_nonce": "mine" });
    for nonce in [json!("yours"), json!("min"), json!(""), json!(null)] {
        let refused = reason(world.finish(&begun, json!({ "client_nonce": nonce })).await);
        assert_eq!(refused, "the log-in was begun by somebody else");
    }
    let state = &begun["state"];
    for position in [0, 2, 40, state.len() - 2] {
        let mut changed = state.clone().into_bytes();
        changed[position] = if changed[position] == b'A' { b'B' } else { b'A' };
        let changed = String::from_utf8(changed).unwrap();
        let back = json!({ "client_nonce": "mine", "state": changed });
        assert_eq!(
            reason(world.finish(&begun, back).await),
            "the state is none that this mount gave"
        );
    }
    for wrong in ["x", "....", &"A".repeat(9000)] {
        let back = json!({ "client_nonce": "mine", "state": wrong });
        assert_eq!(
            reason(world.finish(&begun, back).await),
            "the state is none that this mount gave"
        );
    }
    // One of many that come at once is let in, and nobody after it.
    let together = (0..8).map(|_| world.finish(&begun, mine()));
    let results = futures_util::future::join_all(together).await;
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1);
    assert_eq!(reason(world.finish(&begun, mine()).await), "the state was used before");
    // Another mount in the same store takes none of ours.
    let other = World::new();
    let mount = ScratchMount::new(&world.scratch, "auth/other/");
    let late = world.begin(json!({})).await;
    let call =
        Call::new(Operation::Read, "oidc/callback", json!({ "state": late["state"], "code": "x" }));
    let refused = call.to(&other.method, &mount).await.map(granted);
    assert_eq!(reason(refused), "the state is none that this mount gave");
    // Nor is one taken late.
    world.mount.manual.advance(std::time::Duration::from_secs(STATE_TTL.as_secs()));
    assert_eq!(reason(world.finish(&late, json!({})).await), "the log-in took too long");
    // What was noted of used ones is forgotten in the end.
    assert_eq!(world.mount.view.list("used/").await.unwrap().len(), 1);
    world.method.tick(&world.ctx()).await.unwrap();
    world.mount.manual.advance(std::time::Duration::from_secs(cadence::EVERY.as_secs()));
    world.method.tick(&world.ctx()).await.unwrap();
    assert_eq!(world.mount.view.list("used/").await.unwrap().len(), 0);
}

#[tokio::test]
async fn a_second_node_finishes_what_the_first_began_and_only_one_of_them_does() {
    let world = world().await;
    let beside = World {
        others: world.others.clone(),
        method: JwtMethod::new(world.others.clone()),
        mount: ScratchMount::new(&world.scratch, "auth/sso/"),
        scratch: Scratch::new(),
    };
    let begun = world.begin(json!({})).await;
    world.give(&RSA, &identity(&begun, &json!({})));
    beside.finish(&begun, json!({})).await.unwrap();
    assert_eq!(reason(world.finish(&begun, json!({})).await), "the state was used before");
}

#[tokio::test]
async fn what_changed_meanwhile_counts() {
    let world = world().await;
    let begun = world.begin(json!({})).await;
    world.give(&RSA, &identity(&begun, &json!({})));
    let moved = json!({ "allowed_redirect_uris": "https://ui.example.org/cb" });
    world.write("role/dev", moved).await.unwrap();
    assert!(reason(world.finish(&begun, json!({})).await).contains("redirect URI"));
    world.write("role/dev", browser_role()).await.unwrap();
    world
        .write("role/dev", json!({ "bound_claims": { "email": "bob@example.org" } }))
        .await
        .unwrap();
    assert!(reason(world.finish(&begun, json!({})).await).contains("bound claim email"));
    world.call(Operation::Delete, "role/dev", json!({})).await.unwrap();
    assert_eq!(reason(world.finish(&begun, json!({})).await), "there is no such role");
}

#[tokio::test]
async fn what_the_issuer_does_not_put_into_the_token_it_is_asked_for_about_the_same_user() {
    let world = world().await;
    let role = json!({ "groups_claim": "groups", "bound_claims": { "dept": "it" } });
    world.write("role/dev", role).await.unwrap();
    let me = format!("{ISSUER}/me");
    for (about, expected) in [
        (json!({ "sub": "ann-1", "dept": "it", "groups": ["x"], "email": "evil" }), Ok(())),
        (json!({ "sub": "bob-1", "dept": "it" }), Err("another user's")),
        (json!({ "dept": "it" }), Err("another user's")),
        (json!({ "sub": "ann-1", "dept": "hr" }), Err("bound claim dept")),
        (json!({ "sub": "ann-1" }), Err("bound claim dept")),
    ] {
        let begun = world.begin(json!({})).await;
        world.give(&RSA, &identity(&begun, &json!({ "groups": ["dev"] })));
        world.others.answer(&me, 200, &about);
        world.others.asked();
        let finished = world.finish(&begun, json!({})).await;
        let asked = world.others.asked();
        assert_eq!((asked[1].url.as_str(), asked[1].authorization.as_str()), (&*me, "Bearer at-1"));
        match expected {
            // What the token says itself is not overwritten.
            Ok(()) => assert_eq!(finished.unwrap().groups, ["dev"]),
            Err(expected) => assert!(reason(finished).contains(expected), "{about}"),
        }
    }
    let begun = world.begin(json!({})).await;
    world.give(&RSA, &identity(&begun, &json!({})));
    world.others.answer(&me, 401, &json!({}));
    assert!(reason(world.finish(&begun, json!({})).await).contains("does not say"));
}

#[tokio::test]
async fn a_code_that_the_issuer_refuses_is_no_log_in_and_an_issuer_that_is_gone_no_refusal() {
    let world = world().await;
    let token = format!("{ISSUER}/token");
    let begun = world.begin(json!({})).await;
    for (status, body) in
        [(400, json!({ "error": "invalid_grant" })), (401, json!({})), (200, json!({}))]
    {
        world.others.answer(&token, status, &body);
        reason(world.finish(&begun, json!({})).await);
    }
    world.others.answer(&token, 503, &json!({}));
    let error = world.finish(&begun, json!({})).await.unwrap_err();
    assert!(matches!(error, CoreError::Upstream { .. }), "{error:?}");
    world.others.fail(&token, OutgoingError::Failed("no route to 10.1.2.3".into()));
    let error = world.finish(&begun, json!({})).await.unwrap_err();
    assert!(matches!(error, CoreError::Upstream { .. }), "{error:?}");
    assert!(!error.public_text().contains("10.1"), "{error}");
    let back = json!({ "iss": "https://other.example" });
    assert_eq!(reason(world.finish(&begun, back).await), "the code is another issuer's");
    let back = json!({ "nonce": "another" });
    assert_eq!(reason(world.finish(&begun, back).await), "the nonce is another log-in's");
    for back in [json!({ "code": "" }), json!({ "code": null }), json!({ "state": "" })] {
        let error = world.finish(&begun, back).await.unwrap_err();
        assert!(matches!(error, CoreError::Field(_)), "{error}");
    }
    // None of that has used the state up.
    world.give(&RSA, &identity(&begun, &json!({})));
    world.finish(&begun, json!({})).await.unwrap();
}

#[tokio::test]
async fn a_client_proves_itself_as_the_issuer_says() {
    let world = world().await;
    let about = |methods: Value| {
        json!({
            "issuer": ISSUER, "jwks_uri": format!("{ISSUER}/keys"), "token_endpoint": format!("{ISSUER}/token"),
            "authorization_endpoint": format!("{ISSUER}/authorize?tenant=x"),
            "token_endpoint_auth_methods_supported": methods,
        })
    };
    let at = format!("{ISSUER}/.well-known/openid-configuration");
    for (methods, secret, authorization, form) in [
        (json!(["client_secret_post"]), "s", "", "&client_id=the%20broker&client_secret=s"),
        (json!(["client_secret_post", "client_secret_basic"]), "s", "Basic ", ""),
        (json!(["none"]), "", "", "&client_id=the%20broker"),
    ] {
        world.others.answer(&at, 200, &about(methods));
        let config = json!({ "oidc_discovery_url": ISSUER, "oidc_client_id": CLIENT,
            "oidc_client_secret": secret });
        world.write("config", config).await.unwrap();
        let body = json!({ "role": "dev", "redirect_uri": BACK });
        let url = world.write("oidc/auth_url", body).await.unwrap()["auth_url"].clone();
        let query = url.as_str().unwrap().split_once("/authorize?tenant=x&").unwrap().1;
        let begun = pairs(query);
        world.give(&RSA, &identity(&begun, &json!({})));
        world.others.asked();
        world.finish(&begun, json!({})).await.unwrap();
        let asked = world.others.asked().remove(0);
        assert!(asked.authorization.starts_with(authorization), "{}", asked.authorization);
        assert_eq!(asked.authorization.is_empty(), authorization.is_empty());
        assert!(asked.body.ends_with(form), "{}", asked.body);
    }
    world.others.answer(&at, 200, &about(json!(["private_key_jwt"])));
    let config = json!({ "oidc_discovery_url": ISSUER, "oidc_client_id": CLIENT, "oidc_client_secret": "s" });
    world.write("config", config).await.unwrap();
    let begun = {
        let body = json!({ "role": "dev", "redirect_uri": BACK });
        let url = world.write("oidc/auth_url", body).await.unwrap()["auth_url"].clone();
        pairs(url.as_str().unwrap().split_once("/authorize?tenant=x&").unwrap().1)
    };
    assert!(reason(world.finish(&begun, json!({})).await).contains("no client secrets"));
}

#[test]
fn the_callback_makes_a_token_although_it_is_a_read() {
    let callback = routes::ROUTES.iter().find(|route| route.name == "oidc-callback").unwrap();
    assert!(callback.makes(Operation::Read));
}
