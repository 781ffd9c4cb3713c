use std::collections::BTreeMap;

use super::*;
use crate::auth::jose::provider::{FRESH, KEPT, PAUSE};
use crate::auth::scratch::renewal_of;
use crate::core::outgoing::OutgoingError;
use crate::signer::{ED25519, OTHER_RSA, P256};
use crate::types::time::Ttl;

async fn world() -> World {
    let world = World::with_issuer(&[&RSA], json!({})).await;
    world.write("role/app", role()).await.unwrap();
    world
}

fn seconds(ttl: Ttl) -> std::time::Duration {
    std::time::Duration::from_secs(ttl.as_secs())
}

#[tokio::test]
async fn an_honest_token_is_a_log_in_as_its_role_says() {
    let world = world().await;
    let more = json!({
        "groups_claim": "groups",
        "claim_mappings": { "email": "mail", "/team/name": "team", "none": "none" },
    });
    world.write("role/app", more).await.unwrap();
    let grant = world.login("app", &honest_token()).await.unwrap();
    assert_eq!((grant.alias.as_str(), grant.role.as_str()), ("ann-1", "app"));
    assert_eq!(grant.display_name, "sso-ann-1");
    assert_eq!(grant.groups, ["dev", "ops"]);
    assert_eq!(grant.token.policies, ["apps"]);
    // A file or a pipe ends with a line break.
    world.login("app", &format!("{}\n", honest_token())).await.unwrap();
    // As long as the role says, not as long as the issuer's token.
    assert_eq!((grant.token.ttl.as_secs(), grant.not_after), (600, None));
    let text = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()
    };
    assert_eq!(grant.alias_metadata, text(&[("mail", "ann@example.org"), ("team", "red")]));
    assert_eq!(
        grant.metadata,
        text(&[("mail", "ann@example.org"), ("role", "app"), ("team", "red")])
    );
}

#[tokio::test]
async fn a_token_that_is_not_good_here_and_now_is_refused() {
    let world = world().await;
    let now = NOW.as_secs();
    for changes in [
        json!({}),
        json!({ "aud": ["x", "other"] }),
        json!({ "nbf": now + 59 }),
        json!({ "exp": now - 59 }),
        json!({ "nbf": null, "iat": null }),
    ] {
        world.login("app", &RSA.sign(&with(&changes))).await.unwrap();
    }
    for (changes, expected) in [
        (json!({ "exp": now - 60 }), "expired"),
        (json!({ "exp": 0 }), "expired"),
        (json!({ "exp": null }), "exp is missing"),
        (json!({ "exp": (now + 300).to_string() }), "exp is not a time"),
        (json!({ "exp": -1 }), "exp is not a time"),
        (json!({ "nbf": now + 61 }), "nbf is in the future"),
        (json!({ "nbf": "soon" }), "nbf is not a time"),
        (json!({ "iat": now + 61 }), "iat is in the future"),
        (json!({ "aud": "elsewhere" }), "for others"),
        (json!({ "aud": "brokers" }), "for others"),
        (json!({ "aud": "BROKER" }), "for others"),
        (json!({ "aud": ["x"] }), "for others"),
        (json!({ "aud": [] }), "for nobody"),
        (json!({ "aud": null }), "for nobody"),
        (json!({ "aud": { "broker": true } }), "aud is not text"),
        (json!({ "iss": "https://login.example.org/realm/" }), "not the issuer's"),
        (json!({ "iss": "https://login.example.org/other" }), "not the issuer's"),
        (json!({ "iss": null }), "not the issuer's"),
        (json!({ "iss": [ISSUER] }), "iss is not text"),
        (json!({ "sub": null }), "sub is missing"),
        (json!({ "sub": "" }), "sub is empty"),
        (json!({ "sub": 7 }), "sub is not text"),
        (json!({ "sub": ["ann-1"] }), "sub is not text"),
        (json!({ "sub": "ann\n1" }), "control character"),
        (json!({ "sub": "x".repeat(1025) }), "too long"),
    ] {
        let refused = reason(world.login("app", &RSA.sign(&with(&changes))).await);
        assert!(refused.contains(expected), "{changes}: {refused}");
    }
}

#[tokio::test]
async fn who_has_not_signed_as_was_agreed_is_refused_and_learns_nothing_of_roles() {
    let world = world().await;
    let honest = honest();
    let key = RSA.public_pem().as_bytes();
    for token in [
        OTHER_RSA.sign(&honest),
        OTHER_RSA.sign_as(&json!({ "kid": "rsa" }), &honest),
        OTHER_RSA.sign_as(&json!({ "kid": "rsa", "jwk": OTHER_RSA.jwk() }), &honest),
        P256.sign_as(&json!({ "kid": "rsa" }), &honest),
        RSA.sign_as(&json!({ "kid": "other" }), &honest),
        RSA.sign_as(&json!({ "alg": "none" }), &honest),
        RSA.sign_as(&json!({ "alg": "PS256" }), &honest),
        RSA.sign_as(&json!({ "typ": "logout+jwt" }), &honest),
        RSA.sign_as(&json!({ "crit": ["x"], "x": 1 }), &honest),
        signer::sign_hs256(key, "rsa", &honest),
        RSA.sign(&json!({ "x": "x".repeat(40_000) })),
        "not.a.token".to_owned(),
    ] {
        for role in ["app", "none", "no such role!"] {
            let error = world.login(role, &token).await.unwrap_err();
            assert_eq!(error.public_text(), REFUSAL);
            assert!(!error.reason().unwrap().contains("role"), "{error:?}");
        }
    }
    for role in ["none", "no such role!", "App"] {
        let refused = reason(world.login(role, &honest_token()).await);
        assert_eq!(refused, "there is no such role");
    }
    for body in
        [json!({ "role": "app" }), json!({ "role": "app", "jwt": "" }), json!({ "jwt": "x" })]
    {
        let error = world.write("login", body).await.unwrap_err();
        assert!(matches!(error, CoreError::Field(_)), "{error}");
    }
}

#[tokio::test]
async fn a_role_binds_audience_subject_and_claims() {
    let world = world().await;
    for (changes, lets_in) in [
        (json!({ "bound_subject": "ann-1" }), true),
        (json!({ "bound_subject": "ann" }), false),
        (json!({ "bound_claims": { "email": "ann@example.org" } }), true),
        (json!({ "bound_claims": { "email": ["bob@example.org", "ann@example.org"] } }), true),
        (json!({ "bound_claims": { "email": "*@example.org" } }), false),
        (json!({ "bound_claims": { "groups": ["ops"] } }), true),
        (json!({ "bound_claims": { "groups": "admin" } }), false),
        (json!({ "bound_claims": { "/team/name": "red" } }), true),
        (json!({ "bound_claims": { "/team/name": "blue" } }), false),
        (json!({ "bound_claims": { "/team": "red" } }), false),
        (json!({ "bound_claims": { "missing": "x" } }), false),
        (json!({ "bound_claims": { "email": "ann@example.org", "groups": "admin" } }), false),
        // A number or boolean is not its text.
        (json!({ "bound_claims": { "exp": (NOW.as_secs() + 300).to_string() } }), false),
        (json!({ "bound_claims": { "exp": NOW.as_secs() + 300 } }), true),
        (
            json!({ "bound_claims": { "email": "*@example.org" }, "bound_claims_type": "glob" }),
            true,
        ),
        (
            json!({ "bound_claims": { "email": "*@example.or" }, "bound_claims_type": "glob" }),
            false,
        ),
        (json!({ "bound_claims": { "groups": "d*" }, "bound_claims_type": "glob" }), true),
        (json!({ "bound_claims": { "exp": "*" }, "bound_claims_type": "glob" }), false),
        (json!({ "bound_audiences": [], "bound_subject": "ann-1" }), false),
    ] {
        world.write("role/one", changed(role(), &changes)).await.unwrap();
        let result = world.login("one", &honest_token()).await;
        assert_eq!(result.is_ok(), lets_in, "{changes}: {result:?}");
        world.call(Operation::Delete, "role/one", json!({})).await.unwrap();
    }
    // A token for nobody needs no audience, where the role binds something else.
    let unbound = changed(role(), &json!({ "bound_audiences": [], "bound_subject": "ann-1" }));
    world.write("role/one", unbound).await.unwrap();
    world.login("one", &RSA.sign(&with(&json!({ "aud": null })))).await.unwrap();
    // A role for browsers takes no tokens.
    let browser = json!({ "role_type": "oidc", "user_claim": "sub",
        "allowed_redirect_uris": "http://localhost/cb" });
    world.write("role/web", browser).await.unwrap();
    assert!(reason(world.login("web", &honest_token()).await).contains("for browsers"));
}

#[tokio::test]
async fn leeways_are_what_the_role_says_within_bounds() {
    let world = world().await;
    let late = |secs: i64| RSA.sign(&with(&json!({ "exp": NOW.as_secs() - secs })));
    let early = |secs: i64| RSA.sign(&with(&json!({ "nbf": NOW.as_secs() + secs })));
    for (leeways, late_max, early_max) in [
        (json!({}), 60, 60),
        (json!({ "clock_skew_leeway": "5s" }), 5, 5),
        (json!({ "clock_skew_leeway": -1 }), 0, 0),
        (json!({ "clock_skew_leeway": -1, "expiration_leeway": 150 }), 150, 0),
        (json!({ "expiration_leeway": "-1", "not_before_leeway": 600 }), 0, 600),
    ] {
        world.write("role/one", changed(role(), &leeways)).await.unwrap();
        for (token, good) in [
            (late(late_max - 1), true),
            (late(late_max), false),
            (early(early_max), true),
            (early(early_max + 1), false),
        ] {
            assert_eq!(world.login("one", &token).await.is_ok(), good, "{leeways}");
        }
        world.call(Operation::Delete, "role/one", json!({})).await.unwrap();
    }
    let forever = json!({ "expiration_leeway": 601 });
    let error = world.write("role/one", changed(role(), &forever)).await.unwrap_err();
    assert!(error.to_string().contains("expiration_leeway"), "{error}");
}

#[tokio::test]
async fn names_and_groups_come_from_claims_of_the_right_form() {
    let world = world().await;
    let by = |name: &str, pointer: bool| {
        changed(role(), &json!({ "user_claim": name, "user_claim_json_pointer": pointer }))
    };
    for (role, alias) in [
        (by("email", false), Some("ann@example.org")),
        (by("/team/name", true), Some("red")),
        (by("/team/name", false), None),
        (by("groups", false), None),
    ] {
        world.write("role/one", role).await.unwrap();
        let granted = world.login("one", &honest_token()).await.ok().map(|grant| grant.alias);
        assert_eq!(granted.as_deref(), alias);
    }
    world.write("role/one", changed(role(), &json!({ "groups_claim": "groups" }))).await.unwrap();
    for (groups, expected) in [
        (json!(["b", "a", "b"]), Some(vec!["a", "b"])),
        (json!("one"), Some(vec!["one"])),
        (json!([]), Some(vec![])),
        (json!(null), Some(vec![])),
        (json!(["a", 7]), None),
        (json!({ "a": 1 }), None),
        (json!([""]), None),
        (json!(vec!["g"; 1025]), None),
    ] {
        let token = RSA.sign(&with(&json!({ "groups": groups })));
        let found = world.login("one", &token).await.ok().map(|grant| grant.groups);
        assert_eq!(found, expected.map(|list| list.into_iter().map(str::to_owned).collect()));
    }
    let mapped = json!({ "claim_mappings": { "team": "team" } });
    world.write("role/one", changed(role(), &mapped)).await.unwrap();
    assert!(reason(world.login("one", &honest_token()).await).contains("team is not text"));
}

#[tokio::test]
async fn a_flood_of_unknown_keys_asks_the_issuer_once_in_a_while() {
    let world = world().await;
    for number in 0..50 {
        let token = RSA.sign_as(&json!({ "kid": format!("no-{number}") }), &honest());
        assert!(reason(world.login("app", &token).await).contains("not known"));
    }
    // What it says of itself, and its keys.
    assert_eq!(world.others.asked_times(), 2);
    world.login("app", &honest_token()).await.unwrap();
    assert_eq!(world.others.asked_times(), 0);
    world.mount.manual.advance(seconds(PAUSE));
    // A key that is new is known after a look, and one that is gone is not.
    world.publish(&[&OTHER_RSA]);
    world.login("app", &OTHER_RSA.sign(&honest())).await.unwrap();
    assert_eq!(world.others.asked_times(), 2);
    assert!(reason(world.login("app", &honest_token()).await).contains("not known"));
    assert_eq!(world.others.asked_times(), 0);
}

#[tokio::test]
async fn keys_that_were_good_are_kept_for_a_day_when_the_issuer_is_gone() {
    let world = world().await;
    let keys = format!("{ISSUER}/keys");
    world.others.fail(&keys, OutgoingError::Failed("cannot be reached: secret.internal".into()));
    let later = |ttl: Ttl| {
        world.mount.manual.advance(seconds(ttl));
        let now = world.mount.ctx().clock.now().as_secs();
        RSA.sign(&with(&json!({ "iat": now, "nbf": now, "exp": now + 300 })))
    };
    world.login("app", &later(Ttl::from_secs(FRESH.as_secs() - 1))).await.unwrap();
    assert_eq!(world.others.asked_times(), 0);
    let token = later(Ttl::from_secs(1));
    world.login("app", &token).await.unwrap();
    world.login("app", &token).await.unwrap();
    assert_eq!(world.others.asked_times(), 2, "it was tried, once");
    // An empty set or an error page is no reason to forget them either.
    world.others.answer(&keys, 200, &json!({ "keys": [] }));
    world.login("app", &later(FRESH)).await.unwrap();
    world.others.answer(&keys, 503, &json!({}));
    world.login("app", &later(FRESH)).await.unwrap();
    assert_eq!(world.others.asked_times(), 4);
    let token = later(KEPT);
    let error = world.login("app", &token).await.unwrap_err();
    assert!(matches!(error, CoreError::Upstream { .. }), "{error:?}");
    assert!(!error.public_text().contains("internal"), "{error}");
    // And when it is back, it is asked again.
    world.publish(&[&RSA]);
    let error = world.login("app", &token).await.unwrap_err();
    assert!(matches!(error, CoreError::Upstream { .. }), "{error:?}");
    world.login("app", &later(PAUSE)).await.unwrap();
}

#[tokio::test]
async fn too_much_at_once_is_turned_away_and_not_taken_for_a_refusal() {
    let world = world().await;
    world.mount.manual.advance(seconds(KEPT));
    world.others.fail(&format!("{ISSUER}/keys"), OutgoingError::Busy);
    let error = world.login("app", &honest_token()).await.unwrap_err();
    assert!(matches!(error, CoreError::Overloaded { .. }), "{error:?}");
}

#[tokio::test]
async fn keys_may_be_given_or_published_alone() {
    let world = World::new();
    world.write("role/app", role()).await.unwrap();
    assert_eq!(reason(world.login("app", &honest_token()).await), "the mount is not configured");
    let pems = [RSA.public_pem(), ED25519.public_pem()];
    world.write("config", json!({ "jwt_validation_pubkeys": pems })).await.unwrap();
    world.login("app", &ED25519.sign(&honest())).await.unwrap();
    world.login("app", &honest_token()).await.unwrap();
    assert!(reason(world.login("app", &P256.sign(&honest())).await).contains("not known"));
    let url = "https://keys.example.org/set";
    world.others.answer(url, 200, &signer::jwks(&[&P256]));
    let config = json!({
        "jwks_url": url, "jwks_ca_pem": "authorities", "bound_issuer": ISSUER,
        "jwt_supported_algs": "ES256", "default_role": "app",
    });
    world.write("config", config).await.unwrap();
    assert_eq!(world.others.asked()[0].authorities, "authorities");
    // By the default role, too.
    world.login("", &P256.sign(&honest())).await.unwrap();
    // The keys that were configured before do not count any more.
    world.login("app", &honest_token()).await.unwrap_err();
    let elsewhere = P256.sign(&with(&json!({ "iss": "https://elsewhere.example" })));
    assert!(reason(world.login("app", &elsewhere).await).contains("not the issuer's"));
    let config = json!({ "jwks_url": url, "jwt_supported_algs": "RS256" });
    world.write("config", config).await.unwrap();
    let refused = reason(world.login("app", &P256.sign(&honest())).await);
    assert!(refused.contains("algorithm that is not allowed"), "{refused}");
}

#[tokio::test]
async fn a_token_is_renewed_while_its_role_is_there() {
    let world = world().await;
    let metadata = BTreeMap::from([("role".to_owned(), "app".to_owned())]);
    let renewal = || Renewal { alias: "ann-1", metadata: &metadata, ..renewal_of("app", None) };
    world.write("role/app", json!({ "token_ttl": 60 })).await.unwrap();
    let grant = world.method.renewal(&world.ctx(), renewal()).await.unwrap();
    assert_eq!((grant.alias.as_str(), grant.token.ttl.as_secs()), ("ann-1", 60));
    assert_eq!((&grant.metadata, grant.role.as_str()), (&metadata, "app"));
    world.call(Operation::Delete, "role/app", json!({})).await.unwrap();
    let error = world.method.renewal(&world.ctx(), renewal()).await.unwrap_err();
    assert!(matches!(error, CoreError::Denied { .. }), "{error}");
}
