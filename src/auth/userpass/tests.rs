use std::sync::Arc;

use serde_json::json;

use super::*;
use crate::auth::scratch::{Call, answered, granted, renewal_of};
use crate::core::scratch::{Scratch, ScratchMount};
use crate::types::time::Ttl;

struct Mount {
    method: UserpassMethod,
    mount: ScratchMount,
    _scratch: Scratch,
}

impl Mount {
    fn new() -> Self {
        let scratch = Scratch::new();
        Self {
            method: UserpassMethod::new(Arc::new(PasswordWork::default())),
            mount: ScratchMount::new(&scratch, "auth/team/people/"),
            _scratch: scratch,
        }
    }

    fn ctx(&self) -> EngineContext<'_> {
        self.mount.ctx()
    }

    async fn call(
        &self,
        operation: Operation,
        path: &str,
        body: Value,
        locked: bool,
    ) -> Result<AuthOutcome, CoreError> {
        let call = Call { locked, ..Call::new(operation, path, body) };
        call.to(&self.method, &self.mount).await
    }

    async fn write(&self, path: &str, body: Value) -> Result<(), CoreError> {
        self.call(Operation::Update, path, body, false).await.map(|_| ())
    }

    async fn read(&self, path: &str) -> Result<Value, CoreError> {
        Ok(answered(self.call(Operation::Read, path, json!({}), false).await?))
    }

    async fn login(&self, name: &str, password: &str, locked: bool) -> Result<Grant, CoreError> {
        let body = json!({ "password": password });
        Ok(granted(self.call(Operation::Update, &format!("login/{name}"), body, locked).await?))
    }

    async fn reason(&self, name: &str, password: &str, locked: bool) -> String {
        let error = self.login(name, password, locked).await.unwrap_err();
        assert!(matches!(error, CoreError::Denied { .. }), "{error}");
        error.reason().unwrap()
    }
}

#[tokio::test]
async fn a_password_is_a_log_in_and_is_never_read_back() {
    let mount = Mount::new();
    let body = json!({ "password": "correct horse", "token_policies": "a,b", "token_ttl": "1h" });
    mount.write("users/ann", body).await.unwrap();
    let grant = mount.login("ANN", "correct horse", false).await.unwrap();
    assert_eq!((grant.alias.as_str(), grant.role.as_str()), ("ann", "ann"));
    assert_eq!(grant.display_name, "team-people-ann");
    assert_eq!(grant.metadata["username"], "ann");
    assert_eq!(grant.token.policies, ["a", "b"]);
    let shown = mount.read("users/ann").await.unwrap();
    assert_eq!(shown["token_policies"], json!(["a", "b"]));
    let stored = mount.mount.view.get_record(&at("ann")).await.unwrap().unwrap();
    for text in [shown.to_string(), String::from_utf8(stored.body.expose().to_vec()).unwrap()] {
        assert!(!text.contains("correct") && !text.contains("horse"), "{text}");
    }
    assert!(!shown.to_string().contains("pass"));
}

#[tokio::test]
async fn only_the_audit_learns_why_a_log_in_is_refused() {
    let mount = Mount::new();
    mount.write("users/ann", json!({ "password": "right" })).await.unwrap();
    assert_eq!(mount.reason("ann", "wrong", false).await, "wrong password");
    assert_eq!(mount.reason("bob", "right", false).await, "there is no such user");
    // Names that nobody can have are names that nobody has.
    assert_eq!(mount.reason("ann:", "right", false).await, "there is no such user");
    assert_eq!(mount.reason(&"a".repeat(200), "right", false).await, "there is no such user");
    assert_eq!(mount.reason("ann", "right", true).await, "locked");
    for (name, body) in [("ann", json!({})), ("bob", json!({ "password": "" }))] {
        let error = mount.write(&format!("login/{name}"), body).await.unwrap_err();
        assert!(matches!(error, CoreError::Field(_)), "{error}");
    }
    // Who is claimed is told in one spelling, and only of log-ins.
    for (path, claimed) in [("login/Ann", Some("ann")), ("users/ann", None)] {
        let call = Call::new(Operation::Update, path, json!({}));
        let claim = mount.method.claim(&call.request(&mount.method)).map(|claim| claim.alias);
        assert_eq!(claim.as_deref(), claimed);
    }
}

#[tokio::test]
async fn parts_change_alone_and_the_rest_stays() {
    let mount = Mount::new();
    let body = json!({ "password": "old", "token_policies": "a", "token_num_uses": 3 });
    mount.write("users/ann", body).await.unwrap();
    mount.write("users/ann/password", json!({ "password": "new" })).await.unwrap();
    assert_eq!(mount.reason("ann", "old", false).await, "wrong password");
    let body = json!({ "policies": ["b"], "token_num_uses": 9 });
    mount.write("users/ann/policies", body).await.unwrap();
    let token = mount.login("ann", "new", false).await.unwrap().token;
    assert_eq!((token.policies, token.num_uses), (vec!["b".to_owned()], 3));
    mount.write("users/ann", json!({ "token_ttl": 60 })).await.unwrap();
    let token = mount.login("ann", "new", false).await.unwrap().token;
    assert_eq!((token.policies, token.ttl), (vec!["b".to_owned()], Ttl::from_secs(60)));
    for path in ["users/bob/password", "users/bob/policies"] {
        let body = json!({ "password": "x", "policies": "x" });
        assert!(matches!(mount.write(path, body).await, Err(CoreError::NotFound)));
    }
}

#[tokio::test]
async fn what_makes_no_user_is_refused_by_field() {
    let mount = Mount::new();
    let long = "x".repeat(1025);
    for (path, body, field) in [
        ("users/ann", json!({}), "password"),
        ("users/ann", json!({ "password": "" }), "password"),
        ("users/ann", json!({ "password": long }), "password"),
        ("users/ann", json!({ "password": "x", "token_policies": "root" }), "token_policies"),
        ("users/Ann", json!({ "password": "x" }), "username"),
        ("users/a n", json!({ "password": "x" }), "username"),
        ("users/\u{e4}nn", json!({ "password": "x" }), "username"),
    ] {
        let error = mount.write(path, body).await.unwrap_err();
        assert!(matches!(&error, CoreError::Field(e) if e.field == field), "{path}: {error}");
    }
    assert!(matches!(mount.read("users/ann").await, Err(CoreError::NotFound)));
}

#[tokio::test]
async fn who_is_gone_does_not_renew() {
    let mount = Mount::new();
    mount.write("users/ann", json!({ "password": "x", "token_period": 60 })).await.unwrap();
    let grant = mount.method.renewal(&mount.ctx(), renewal_of("ann", None)).await.unwrap();
    assert_eq!((grant.alias.as_str(), grant.token.period), ("ann", Ttl::from_secs(60)));
    mount.call(Operation::Delete, "users/ann", json!({}), false).await.unwrap();
    let refused = mount.method.renewal(&mount.ctx(), renewal_of("ann", None)).await;
    assert!(matches!(refused, Err(CoreError::Denied { .. })));
    assert_eq!(mount.reason("ann", "x", false).await, "there is no such user");
}
