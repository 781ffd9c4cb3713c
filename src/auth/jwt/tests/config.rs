use super::*;
use crate::core::outgoing::OutgoingError;
use crate::signer::P256;

#[tokio::test]
async fn a_configuration_that_cannot_work_is_refused_and_the_old_one_stays() {
    let world = World::with_issuer(&[&RSA], json!({ "default_role": "app" })).await;
    let before = world.read("config").await.unwrap();
    let pem = RSA.public_pem();
    for (config, expected) in [
        (json!({}), "exactly one of"),
        (json!({ "oidc_discovery_url": ISSUER, "jwks_url": "https://x/y" }), "exactly one of"),
        (json!({ "jwt_validation_pubkeys": [pem], "jwks_url": "https://x/y" }), "exactly one of"),
        (json!({ "jwt_validation_pubkeys": "none" }), "jwt_validation_pubkeys"),
        (json!({ "jwt_validation_pubkeys": [pem, "none"] }), "jwt_validation_pubkeys"),
        (json!({ "jwt_validation_pubkeys": pem, "jwks_ca_pem": "x" }), "jwks_ca_pem"),
        (json!({ "jwt_validation_pubkeys": pem, "jwt_supported_algs": "HS256" }), "must be a list"),
        (json!({ "jwt_validation_pubkeys": pem, "jwt_supported_algs": "none" }), "must be a list"),
        (json!({ "jwt_validation_pubkeys": pem, "jwt_supported_algs": "rs256" }), "must be a list"),
        (json!({ "jwt_validation_pubkeys": pem, "default_role": "a/b" }), "default_role"),
        (json!({ "jwt_validation_pubkeys": pem, "oidc_client_id": "x" }), "oidc_client_id"),
        (json!({ "oidc_discovery_url": ISSUER, "oidc_client_secret": "x" }), "oidc_client_secret"),
        (json!({ "oidc_discovery_url": ISSUER, "oidc_response_mode": "form_post" }), "query"),
        (json!({ "oidc_discovery_url": ISSUER, "oidc_response_types": "id_token" }), "code"),
        (json!({ "jwks_url": "https://nobody.example/keys" }), "status 404"),
        (json!({ "jwks_url": format!("{ISSUER}/.well-known/openid-configuration") }), "no set"),
        (json!({ "oidc_discovery_url": format!("{ISSUER}/") }), "another URL"),
    ] {
        let error = world.write("config", config.clone()).await.unwrap_err();
        assert!(error.public_text().contains(expected), "{config}: {error}");
    }
    assert_eq!(world.read("config").await.unwrap(), before);
    assert!(matches!(World::new().read("config").await, Err(CoreError::NotFound)));
}

#[tokio::test]
async fn an_issuer_is_taken_at_its_word_only_about_itself() {
    let world = World::new();
    let at = format!("{ISSUER}/.well-known/openid-configuration");
    world.others.answer(&format!("{ISSUER}/keys"), 200, &signer::jwks(&[&RSA]));
    let config = || json!({ "oidc_discovery_url": ISSUER });
    for (about, expected) in [
        (
            json!({ "issuer": "https://other.example", "jwks_uri": format!("{ISSUER}/keys") }),
            "another",
        ),
        (json!({ "jwks_uri": format!("{ISSUER}/keys") }), "another"),
        (json!({ "issuer": ISSUER }), "does not say where"),
        (json!({ "issuer": ISSUER, "jwks_uri": ["x"] }), "no usable jwks_uri"),
        (json!({ "issuer": ISSUER, "jwks_uri": "x".repeat(2049) }), "no usable jwks_uri"),
        (json!([]), "does not describe itself"),
    ] {
        world.others.answer(&at, 200, &about);
        let error = world.write("config", config()).await.unwrap_err();
        assert!(matches!(error, CoreError::Upstream { .. }), "{error}");
        assert!(error.public_text().contains(expected), "{about}: {error}");
    }
    let elsewhere = json!({ "issuer": ISSUER, "jwks_uri": "http://169.254.169.254/keys" });
    world.others.answer(&at, 200, &elsewhere);
    let refused = OutgoingError::Refused("is on a host that is not allowed".into());
    world.others.fail("http://169.254.169.254/keys", refused);
    let error = world.write("config", config()).await.unwrap_err();
    assert!(matches!(&error, CoreError::Field(e) if e.field == "oidc_discovery_url"), "{error}");
}

#[tokio::test]
async fn the_client_secret_is_never_read_back_and_never_lies_open() {
    let client = json!({ "oidc_client_id": "broker", "oidc_client_secret": "hunter2-hunter2" });
    let world = World::with_issuer(&[&RSA], client).await;
    let shown = world.read("config").await.unwrap();
    assert_eq!(shown["oidc_client_id"], "broker");
    assert!(!shown.to_string().contains("hunter2") && shown.get("oidc_client_secret").is_none());
    // Written whole: what is left out is gone.
    world.write("config", json!({ "oidc_discovery_url": ISSUER })).await.unwrap();
    assert_eq!(world.read("config").await.unwrap()["oidc_client_id"], "");
    let stored = world.mount.view.get::<Config>(CONFIG).await.unwrap().unwrap();
    assert!(stored.value.client_secret().is_none());
}

#[tokio::test]
async fn who_leaves_the_issuer_open_is_warned() {
    let world = World::new();
    let keys = json!({ "jwt_validation_pubkeys": [P256.public_pem()] });
    for (more, warnings) in [(json!({}), 1), (json!({ "bound_issuer": ISSUER }), 0)] {
        let config = changed(keys.clone(), &more);
        match world.call(Operation::Update, "config", config).await.unwrap() {
            AuthOutcome::Respond(reply) => assert_eq!(reply.warnings.len(), warnings, "{more}"),
            AuthOutcome::Login(_) => panic!("a log-in"),
        }
    }
}

#[tokio::test]
async fn a_role_that_would_let_in_too_many_or_nobody_is_refused() {
    let world = World::new();
    let web = json!({ "user_claim": "sub", "allowed_redirect_uris": "http://localhost:8250/cb" });
    world.write("role/web", web.clone()).await.unwrap();
    world.write("role/app", role()).await.unwrap();
    for (role, expected) in [
        (json!({ "role_type": "jwt", "user_claim": "sub" }), "bound_audiences"),
        (json!({ "role_type": "jwt", "bound_subject": "x" }), "user_claim"),
        (json!({ "user_claim": "sub" }), "allowed_redirect_uris"),
        (json!({ "role_type": "saml", "user_claim": "sub" }), "role_type"),
        (
            changed(web.clone(), &json!({ "allowed_redirect_uris": "http://evil.example/cb" })),
            "https",
        ),
        (
            changed(web.clone(), &json!({ "allowed_redirect_uris": "https://*.example/cb" })),
            "without",
        ),
        (changed(web.clone(), &json!({ "oidc_scopes": ["a b"] })), "oidc_scopes"),
        (changed(role(), &json!({ "bound_claims": { "a": [] } })), "at least one"),
        (changed(role(), &json!({ "bound_claims": { "a": {} } })), "bound_claims"),
        (changed(role(), &json!({ "bound_claims": { "a": [null] } })), "bound_claims"),
        (changed(role(), &json!({ "bound_claims": { "a": "" } })), "bound_claims"),
        (
            changed(role(), &json!({ "bound_claims": { "a": 1 }, "bound_claims_type": "glob" })),
            "text",
        ),
        (changed(role(), &json!({ "bound_claims_type": "regex" })), "bound_claims_type"),
        (changed(role(), &json!({ "claim_mappings": { "a": "role" } })), "claim_mappings"),
        (changed(role(), &json!({ "claim_mappings": { "a": "x", "b": "x" } })), "claim_mappings"),
        (changed(role(), &json!({ "verbose_oidc_logging": true })), "verbose_oidc_logging"),
        (changed(role(), &json!({ "token_policies": "root" })), "root"),
        (changed(role(), &json!({ "bound_audiences": vec!["a"; 257] })), "256"),
    ] {
        let error = world.write("role/new", role.clone()).await.unwrap_err();
        assert!(error.public_text().contains(expected), "{role}: {error}");
    }
    assert!(world.write("role/a%2Fb", role()).await.is_err());
    assert!(matches!(world.read("role/new").await, Err(CoreError::NotFound)));
    let shown = world.read("role/app").await.unwrap();
    assert_eq!((&shown["role_type"], &shown["clock_skew_leeway"]), (&json!("jwt"), &json!(0)));
    assert_eq!(shown["bound_audiences"], json!(["broker", "other"]));
    // What is not given stays.
    world.write("role/app", json!({ "clock_skew_leeway": -5 })).await.unwrap();
    let shown = world.read("role/app").await.unwrap();
    assert_eq!((&shown["user_claim"], &shown["clock_skew_leeway"]), (&json!("sub"), &json!(-1)));
}
