use super::*;
use crate::auth::jose::scratch::Others;
use crate::auth::scratch::{Call, answered, granted, renewal_of};
use crate::core::outgoing::OutgoingError;
use crate::core::scratch::{NOW, Scratch, ScratchMount};
use crate::signer::{self, OTHER_RSA, RSA};
use serde_json::{Value, json};

const HOST: &str = "https://k8s.example.org:6443";
const REVIEWS: &str = "https://k8s.example.org:6443/apis/authentication.k8s.io/v1/tokenreviews";
const UID: &str = "9d0e1c2b-0000-4000-8000-000000000001";

struct World {
    others: Arc<Others>,
    method: KubernetesMethod,
    mount: ScratchMount,
    _scratch: Scratch,
}

impl World {
    async fn new(config: Value) -> Self {
        let (others, scratch) = (Arc::new(Others::default()), Scratch::new());
        others.answer("https://keys.example.org/", 200, &signer::jwks(&[&RSA]));
        let method = KubernetesMethod::new(others.clone());
        let mount = ScratchMount::new(&scratch, "auth/k8s/");
        let world = Self { method, mount, others, _scratch: scratch };
        world.write("config", config).await.unwrap();
        world.write("role/web", role(&json!({}))).await.unwrap();
        world.others.asked();
        world
    }

    async fn reviewed() -> Self {
        let world = Self::new(json!({
            "kubernetes_host": format!("{HOST}/"), "kubernetes_ca_cert": "authorities",
            "token_reviewer_jwt": "reviewer-token",
        }))
        .await;
        world.others.answer(REVIEWS, 201, &review(&json!({})));
        world
    }

    async fn call(
        &self,
        operation: Operation,
        path: &str,
        body: Value,
    ) -> Result<AuthOutcome, CoreError> {
        Call::new(operation, path, body).to(&self.method, &self.mount).await
    }

    async fn write(&self, path: &str, body: Value) -> Result<Value, CoreError> {
        Ok(answered(self.call(Operation::Update, path, body).await?))
    }

    async fn login(&self, role: &str, token: &str) -> Result<Grant, CoreError> {
        let body = json!({ "role": role, "jwt": token });
        Ok(granted(self.call(Operation::Update, "login", body).await?))
    }
}

fn changed(mut value: Value, changes: &Value) -> Value {
    for (name, change) in changes.as_object().unwrap() {
        value[name] = change.clone();
    }
    value.as_object_mut().unwrap().retain(|_, value| !value.is_null());
    value
}

fn role(changes: &Value) -> Value {
    let role = json!({
        "bound_service_account_names": "web,api-*", "bound_service_account_namespaces": "shop",
        "token_policies": "shop",
    });
    changed(role, changes)
}

/// What an honest cluster answers, with its status changed.
fn review(changes: &Value) -> Value {
    let status = json!({
        "authenticated": true,
        "user": { "username": "system:serviceaccount:shop:web", "uid": UID },
    });
    json!({
        "apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {},
        "status": changed(status, changes),
    })
}

fn user(username: &str, uid: &str) -> Value {
    json!({ "user": { "username": username, "uid": uid } })
}

/// What a bound token says, with some of it changed.
fn claims(changes: &Value) -> Value {
    let now = NOW.as_secs();
    let claims = json!({
        "iss": "https://k8s.example.org", "sub": "system:serviceaccount:shop:web",
        "aud": ["broker"], "iat": now, "nbf": now, "exp": now + 3600,
        "kubernetes.io": { "namespace": "shop", "serviceaccount": { "name": "web", "uid": UID } },
    });
    changed(claims, changes)
}

fn token() -> String {
    RSA.sign(&claims(&json!({})))
}

fn reason(result: Result<Grant, CoreError>) -> String {
    let error = result.expect_err("it has to be refused");
    let CoreError::Refused { answer, reason } = error else { panic!("no refusal: {error:?}") };
    assert_eq!(answer, REFUSAL);
    reason
}

#[tokio::test]
async fn the_cluster_says_whose_a_token_is() {
    let world = World::reviewed().await;
    let token = token();
    let grant = world.login("web", &token).await.unwrap();
    assert_eq!((grant.alias.as_str(), grant.role.as_str()), (UID, "web"));
    assert_eq!(grant.display_name, "k8s-shop/web");
    assert_eq!(grant.metadata["service_account_name"], "web");
    assert_eq!(grant.alias_metadata["service_account_namespace"], "shop");
    assert_eq!((&grant.token.policies[..], grant.not_after), (&["shop".to_owned()][..], None));
    let asked = world.others.asked().remove(0);
    assert_eq!((asked.url.as_str(), asked.authorities.as_str()), (REVIEWS, "authorities"));
    assert_eq!(asked.authorization, "Bearer reviewer-token");
    let sent: Value = serde_json::from_str(&asked.body).unwrap();
    assert_eq!(sent["spec"], json!({ "token": token }));
    assert_eq!(
        (&sent["kind"], &sent["apiVersion"]),
        (&json!("TokenReview"), &json!("authentication.k8s.io/v1"))
    );
    world.write("role/web", json!({ "alias_name_source": "serviceaccount_name" })).await.unwrap();
    assert_eq!(world.login("web", &token).await.unwrap().alias, "shop/web");
    // Without a reviewer, a cluster is asked with the token itself.
    world.write("config", json!({ "kubernetes_host": HOST })).await.unwrap();
    world.others.asked();
    world.login("web", &token).await.unwrap();
    assert_eq!(world.others.asked()[0].authorization, format!("Bearer {token}"));
    world.others.answer(REVIEWS, 401, &json!({}));
    assert!(reason(world.login("web", &token).await).contains("does not accept"));
}

#[tokio::test]
async fn whatever_else_a_cluster_answers_lets_nobody_in() {
    let world = World::reviewed().await;
    for changes in [
        json!({ "authenticated": false }),
        json!({ "authenticated": null }),
        json!({ "authenticated": "true" }),
        json!({ "authenticated": 1 }),
        json!({ "error": "token expired" }),
        json!({ "user": null }),
        user("ann", UID),
        user("system:node:shop:web", UID),
        user("system:serviceaccount:shop", UID),
        user("system:serviceaccount:shop:web:x", UID),
        user("xsystem:serviceaccount:shop:web", UID),
        user("system:serviceaccount::web", UID),
        user("system:serviceaccount:shop:", UID),
        user("system:serviceaccount:shop:web", ""),
        user("system:serviceaccount:shop:web\n", UID),
        // Somebody else.
        user("system:serviceaccount:shop:worker", UID),
        user("system:serviceaccount:other:web", UID),
        user("system:serviceaccount:shop:Web", UID),
        user("system:serviceaccount:shop:xapi-1", UID),
    ] {
        world.others.answer(REVIEWS, 201, &review(&changes));
        reason(world.login("web", &token()).await);
    }
    for answer in
        [json!({}), json!([]), json!({ "kind": "Status", "status": review(&json!({}))["status"] })]
    {
        world.others.answer(REVIEWS, 200, &answer);
        assert!(world.login("web", &token()).await.is_err(), "{answer}");
    }
    for status in [301, 400, 401, 403, 404, 500] {
        world.others.answer(REVIEWS, status, &review(&json!({})));
        let error = world.login("web", &token()).await.unwrap_err();
        assert!(matches!(error, CoreError::Upstream { .. }), "{status}: {error:?}");
    }
    world.others.fail(REVIEWS, OutgoingError::Failed("no route to 10.9.8.7".into()));
    let error = world.login("web", &token()).await.unwrap_err();
    assert!(!error.public_text().contains("10.9"), "{error}");
    world.others.answer(REVIEWS, 201, &review(&user("system:serviceaccount:shop:api-1", UID)));
    world.login("web", &token()).await.unwrap();
}

#[tokio::test]
async fn an_audience_counts_only_when_the_cluster_says_so() {
    let world = World::reviewed().await;
    world.write("role/web", json!({ "audience": "broker" })).await.unwrap();
    for (audiences, lets_in) in [
        (json!(["broker"]), true),
        (json!(["x", "broker"]), true),
        (json!(["x"]), false),
        (json!([]), false),
        (json!("broker"), false),
        // One that knows nothing of audiences.
        (json!(null), false),
    ] {
        world.others.answer(REVIEWS, 201, &review(&json!({ "audiences": audiences })));
        let result = world.login("web", &token()).await;
        assert_eq!(result.is_ok(), lets_in, "{audiences}");
        let sent: Value = serde_json::from_str(&world.others.asked()[0].body).unwrap();
        assert_eq!(sent["spec"]["audiences"], json!(["broker"]));
    }
}

#[tokio::test]
async fn without_the_cluster_a_token_counts_by_its_signature_and_claims() {
    let pem = json!({ "pem_keys": [RSA.public_pem()], "issuer": "https://k8s.example.org",
        "disable_iss_validation": false });
    let published = json!({ "jwks_url": "https://keys.example.org/" });
    for (config, checks_issuer) in [(pem, true), (published, false)] {
        let world = World::new(config).await;
        assert!(reason(world.login("web", &token()).await).contains("names no audience"));
        world.write("role/web", json!({ "audience": "broker" })).await.unwrap();
        let grant = world.login("web", &token()).await.unwrap();
        assert_eq!((grant.alias.as_str(), &*grant.metadata["service_account_name"]), (UID, "web"));
        let now = NOW.as_secs();
        for changes in [
            json!({ "exp": now - 60 }),
            json!({ "exp": null }),
            json!({ "nbf": now + 61 }),
            json!({ "aud": ["x"] }),
            json!({ "aud": null }),
            json!({ "sub": "system:serviceaccount:shop:worker" }),
            json!({ "sub": "system:serviceaccount:other:web" }),
            json!({ "sub": "ann" }),
            json!({ "sub": null }),
            json!({ "kubernetes.io": null }),
            json!({ "kubernetes.io": { "namespace": "x", "serviceaccount": { "name": "web", "uid": UID } } }),
            json!({ "kubernetes.io": { "namespace": "shop", "serviceaccount": { "name": "x", "uid": UID } } }),
            json!({ "kubernetes.io": { "namespace": "shop", "serviceaccount": { "name": "web" } } }),
        ] {
            reason(world.login("web", &RSA.sign(&claims(&changes))).await);
        }
        let elsewhere = RSA.sign(&claims(&json!({ "iss": "https://other.example" })));
        assert_eq!(world.login("web", &elsewhere).await.is_err(), checks_issuer);
        for forged in [
            OTHER_RSA.sign_as(&json!({ "kid": "rsa" }), &claims(&json!({}))),
            signer::sign_hs256(RSA.public_pem().as_bytes(), "rsa", &claims(&json!({}))),
            RSA.sign_as(&json!({ "alg": "none" }), &claims(&json!({}))),
            RSA.sign_as(&json!({ "typ": "at+jwt" }), &claims(&json!({}))),
        ] {
            reason(world.login("web", &forged).await);
        }
    }
}

#[tokio::test]
async fn keys_are_a_check_before_the_cluster_is_asked() {
    let world = World::new(json!({ "kubernetes_host": HOST, "pem_keys": RSA.public_pem() })).await;
    world.others.answer(REVIEWS, 201, &review(&json!({})));
    let forged = OTHER_RSA.sign_as(&json!({ "kid": "rsa" }), &claims(&json!({})));
    reason(world.login("web", &forged).await);
    reason(world.login("web", "not a token").await);
    assert_eq!(world.others.asked_times(), 0);
    world.login("web", &token()).await.unwrap();
    // The cluster knows that the account is gone; the token does not.
    world.others.answer(REVIEWS, 201, &review(&json!({ "authenticated": false })));
    reason(world.login("web", &token()).await);
    assert_eq!(world.others.asked_times(), 2);
}

#[tokio::test]
async fn what_is_stored_is_bounded_and_the_reviewer_never_shown() {
    let world = World::reviewed().await;
    let shown = answered(world.call(Operation::Read, "config", json!({})).await.unwrap());
    assert_eq!(
        (&shown["kubernetes_host"], &shown["token_reviewer_jwt_set"]),
        (&json!(HOST), &json!(true))
    );
    assert!(!shown.to_string().contains("reviewer-token"));
    for (config, field) in [
        (json!({}), "kubernetes_host"),
        (
            json!({ "kubernetes_host": HOST, "disable_iss_validation": false, "issuer": "x" }),
            "disable_iss_validation",
        ),
        (
            json!({ "pem_keys": RSA.public_pem(), "disable_iss_validation": false }),
            "disable_iss_validation",
        ),
        (json!({ "pem_keys": "none" }), "pem_keys"),
        (
            json!({ "pem_keys": RSA.public_pem(), "jwks_url": "https://keys.example.org/" }),
            "jwks_url",
        ),
    ] {
        let error = world.write("config", config.clone()).await.unwrap_err();
        assert!(matches!(&error, CoreError::Field(e) if e.field == field), "{config}: {error}");
    }
    for (changes, field) in [
        (json!({ "bound_service_account_names": null }), "bound_service_account_names"),
        (json!({ "bound_service_account_namespaces": [] }), "bound_service_account_namespaces"),
        (
            json!({ "bound_service_account_names": "*", "bound_service_account_namespaces": "a,*" }),
            "bound_service_account_names",
        ),
        (
            json!({ "bound_service_account_names": ["x".repeat(254)] }),
            "bound_service_account_names",
        ),
        (json!({ "alias_name_source": "pod" }), "alias_name_source"),
    ] {
        let error = world.write("role/new", role(&changes)).await.unwrap_err();
        assert!(matches!(&error, CoreError::Field(e) if e.field == field), "{changes}: {error}");
    }
}

#[tokio::test]
async fn a_token_is_renewed_while_the_role_is_for_its_account() {
    let world = World::reviewed().await;
    let metadata = world.login("web", &token()).await.unwrap().metadata;
    let ctx = world.mount.ctx();
    let renewal = || Renewal { alias: UID, metadata: &metadata, ..renewal_of("web", None) };
    let grant = world.method.renewal(&ctx, renewal()).await.unwrap();
    assert_eq!((grant.alias.as_str(), &grant.metadata), (UID, &metadata));
    world.write("role/web", json!({ "bound_service_account_namespaces": "other" })).await.unwrap();
    assert!(world.method.renewal(&ctx, renewal()).await.is_err());
    world.write("role/web", role(&json!({}))).await.unwrap();
    assert!(world.method.renewal(&ctx, renewal()).await.is_ok());
    world.call(Operation::Delete, "role/web", json!({})).await.unwrap();
    assert!(world.method.renewal(&ctx, renewal()).await.is_err());
}

#[tokio::test]
async fn a_cluster_is_asked_about_no_token_that_it_could_not_find_good() {
    let world = World::reviewed().await;
    let now = NOW.as_secs();
    for changes in [
        json!({ "exp": now - 60 }),
        json!({ "exp": "never" }),
        json!({ "nbf": now + 61 }),
        json!({ "iat": now + 61 }),
        json!({ "sub": null }),
        json!({ "sub": 7 }),
        json!({ "sub": "ann" }),
        json!({ "sub": "system:serviceaccount:shop" }),
        json!({ "sub": "system:serviceaccount:shop:web:x" }),
        json!({ "sub": "system:serviceaccount:shop:worker" }),
        json!({ "sub": "system:serviceaccount:other:web" }),
    ] {
        reason(world.login("web", &OTHER_RSA.sign(&claims(&changes))).await);
        assert_eq!(world.others.asked_times(), 0, "{changes}");
    }
    // Tokens of old say neither until when nor in whose name but in their subject; and who signed
    // one is the cluster's to know.
    let old = json!({ "exp": null, "nbf": null, "iat": null, "aud": null, "kubernetes.io": null });
    world.login("web", &OTHER_RSA.sign(&claims(&old))).await.unwrap();
    assert_eq!(world.others.asked_times(), 1);
}
