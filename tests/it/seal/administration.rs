//! What administrators do, through the pipeline that every request takes.

use std::collections::BTreeMap;

use leasehold::core::reply::Reply;
use leasehold::core::request::Request;
use leasehold::core::seal::SealRoutes;
use leasehold::core::token::{LeaseOwner, NewLifetime, NewToken, TokenKind};

use super::*;

struct Admin {
    node: Node,
    keys: Keys,
    _directory: tempfile::TempDir,
}

impl Admin {
    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let node = Node::new(sqlite(directory.path()).await).await;
        node.core.install(vec![Box::new(SealRoutes)]);
        let keys = node.init(3, 2).await;
        node.unseal(&keys).await.unwrap();
        Self { node, keys, _directory: directory }
    }

    async fn request(
        &self,
        token: &str,
        verb: Verb,
        path: &str,
        body: Value,
    ) -> Result<Reply, CoreError> {
        let request = Request {
            id: RequestId::random().unwrap(),
            received_at: NOW,
            verb,
            path: ApiPath::parse(path).unwrap(),
            fields: body.as_object().unwrap().clone(),
            token: Some(SecretString::new(token.to_owned())),
            connection: ConnectionInfo {
                peer: None,
                remote: SocketAddr::from(([127, 0, 0, 1], 4)),
                listener: "test".into(),
                id: 7,
            },
            wrap_ttl: None,
            codes: Vec::new(),
            idempotency_key: None,
        };
        self.node.core.handle(request).await.unwrap().result
    }

    async fn ok(&self, verb: Verb, path: &str, body: Value) -> Value {
        let root = self.keys.root_token.clone().unwrap();
        let reply = self.request(&root, verb, path, body).await.unwrap();
        reply.data.map_or(Value::Null, Value::Object)
    }

    /// A token with the policy that everybody has.
    async fn ordinary(&self) -> String {
        let new = NewToken {
            kind: TokenKind::Service,
            chosen: None,
            parent: None,
            policies: vec!["default".into()],
            inherits_identity: false,
            scopes: Vec::new(),
            entity_id: None,
            meta: BTreeMap::new(),
            display_name: "ordinary".into(),
            path: "auth/token/create".into(),
            role: None,
            mount: None,
            auth_role: None,
            auth_alias: None,
            groups: Vec::new(),
            lifetime: Some(NewLifetime {
                wanted: HOUR,
                default_ttl: HOUR,
                role_max: Ttl::ZERO,
                mount_max: HOUR,
                explicit_max: Ttl::ZERO,
                period: Ttl::ZERO,
                not_after: None,
            }),
            num_uses: 0,
            renewable: false,
            bound_cidrs: Vec::new(),
            bound_certificate: None,
            lease_owner: LeaseOwner::Token,
        };
        self.node.unsealed().tokens.create(new).await.unwrap().plain.expose().to_owned()
    }
}

#[tokio::test]
async fn nothing_of_it_is_for_ordinary_callers() {
    let admin = Admin::new().await;
    let token = admin.ordinary().await;
    for (verb, path) in [
        (Verb::Write, "sys/seal"),
        (Verb::Read, "sys/key-status"),
        (Verb::Write, "sys/rotate"),
        (Verb::Write, "sys/rotate/keyring"),
        (Verb::Read, "sys/rotate/config"),
        (Verb::Write, "sys/rotate/config"),
        (Verb::Write, "sys/rotate/root/init"),
        (Verb::Delete, "sys/rotate/root/init"),
        (Verb::Write, "sys/rotate/root/update"),
        (Verb::Write, "sys/rotate/root/verify"),
        (Verb::Read, "sys/hold"),
        (Verb::Write, "sys/hold"),
        (Verb::Delete, "sys/hold"),
    ] {
        let refused = admin.request(&token, verb, path, json!({})).await.unwrap_err();
        assert_eq!(refused.status(), 403, "{path}");
    }
    assert!(admin.node.core.unsealed().is_ok());
    assert_eq!(admin.node.unsealed().records.keyring().active_term(), 1);
}

#[tokio::test]
async fn keys_are_rotated_and_shown() {
    let admin = Admin::new().await;
    let before = admin.ok(Verb::Read, "sys/key-status", json!({})).await;
    assert_eq!(before["term"], json!(1));
    assert_eq!(before["rewrap"], json!({"pending": 0}));
    assert!(before["install_time"].as_str().unwrap().starts_with("2027-01-15T08:00:00"));
    admin.ok(Verb::Write, "sys/rotate", json!({})).await;
    admin.ok(Verb::Write, "sys/rotate/keyring", json!({"suite": "chacha20-poly1305"})).await;
    let after = admin.ok(Verb::Read, "sys/key-status", json!({})).await;
    assert_eq!((&after["term"], &after["suite"]), (&json!(3), &json!("chacha20-poly1305")));
    assert_eq!(after["terms"].as_array().unwrap().len(), 3);
    assert!(after["rewrap"]["pending"].as_u64().unwrap() > 0);

    admin.ok(Verb::Write, "sys/rotate/config", json!({"interval": "48h"})).await;
    let settings = admin.ok(Verb::Read, "sys/rotate/keyring/config", json!({})).await;
    assert_eq!(settings["interval"], json!(172_800));
    let root = admin.keys.root_token.clone().unwrap();
    for bad in [json!({"interval": "1h"}), json!({"max_operations": 5}), json!({"interval": -1})] {
        let refused = admin.request(&root, Verb::Write, "sys/rotate/config", bad).await;
        assert_eq!(refused.unwrap_err().status(), 400);
    }
    let refused = admin.request(&root, Verb::Write, "sys/rotate", json!({"suite": "rot13"})).await;
    assert_eq!(refused.unwrap_err().status(), 400);
}

#[tokio::test]
async fn shares_are_replaced_by_callers_with_sudo() {
    let admin = Admin::new().await;
    let storage = admin.node.core.storage.clone();
    let plan = json!({
        "secret_shares": 3, "secret_threshold": 2, "require_verification": true,
    });
    admin.ok(Verb::Write, "sys/rotate/root/init", plan.clone()).await;
    admin.ok(Verb::Delete, "sys/rotate/root/init", json!({})).await;
    let started = admin.ok(Verb::Write, "sys/rotate/root/init", plan).await;
    let mut last = Value::Null;
    for key in admin.keys.enough() {
        let share = json!({"key": key, "nonce": started["nonce"]});
        last = admin.ok(Verb::Write, "sys/rotate/root/update", share).await;
    }
    let new = Keys::of(&last, 2);
    assert!(!Node::opens(&storage, &new).await);
    for key in new.enough() {
        let share = json!({"key": key, "nonce": last["verification_nonce"]});
        admin.ok(Verb::Write, "sys/rotate/root/verify", share).await;
    }
    assert!(Node::opens(&storage, &new).await);
    assert!(!Node::opens(&storage, &admin.keys).await);
}

#[tokio::test]
async fn a_hold_is_set_seen_and_released() {
    let admin = Admin::new().await;
    assert_eq!(admin.ok(Verb::Read, "sys/hold", json!({})).await["held"], json!(false));
    admin.ok(Verb::Write, "sys/hold", json!({"reason": "look first"})).await;
    let held = admin.ok(Verb::Read, "sys/hold", json!({})).await;
    assert_eq!((&held["held"], &held["reason"]), (&json!(true), &json!("look first")));
    admin.ok(Verb::Delete, "sys/hold", json!({})).await;
    assert_eq!(admin.ok(Verb::Read, "sys/hold", json!({})).await["held"], json!(false));
}

#[tokio::test]
async fn sealing_by_request_answers_and_then_forgets_the_keys() {
    let admin = Admin::new().await;
    let records = Arc::downgrade(&admin.node.unsealed().records);
    admin.ok(Verb::Write, "sys/seal", json!({})).await;
    assert!(matches!(admin.node.core.unsealed(), Err(CoreError::Sealed)));
    let root = admin.keys.root_token.clone().unwrap();
    let refused = admin.request(&root, Verb::Read, "sys/key-status", json!({})).await;
    assert_eq!(refused.unwrap_err().status(), 503);
    crate::support::wire::until(|| records.strong_count() == 0).await;
    admin.node.unseal(&admin.keys).await.unwrap();
    admin.ok(Verb::Read, "sys/key-status", json!({})).await;
}
