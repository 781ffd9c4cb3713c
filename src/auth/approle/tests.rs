use std::time::Duration;

use futures_util::future::join_all;

use super::*;
use crate::auth::scratch::{Call, answered, granted, renewal_of};
use crate::core::scratch::{Scratch, ScratchMount};

struct Mount {
    method: ApproleMethod,
    mount: ScratchMount,
}

impl Mount {
    fn new(scratch: &Scratch) -> Self {
        Self {
            method: ApproleMethod::default(),
            mount: ScratchMount::new(scratch, "auth/approle/"),
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

    async fn answer(&self, operation: Operation, path: &str, body: Value) -> Value {
        answered(self.call(operation, path, body, false).await.unwrap())
    }

    async fn write(&self, path: &str, body: Value) -> Value {
        self.answer(Operation::Update, path, body).await
    }

    async fn read(&self, path: &str) -> Value {
        self.answer(Operation::Read, path, json!({})).await
    }

    async fn refused(&self, path: &str, body: Value) -> CoreError {
        self.call(Operation::Update, path, body, false).await.unwrap_err()
    }

    /// A role and its role ID.
    async fn role(&self, name: &str, body: Value) -> String {
        self.write(&format!("role/{name}"), body).await;
        text(&self.read(&format!("role/{name}/role-id")).await["role_id"])
    }

    async fn secret(&self, name: &str, body: Value) -> Value {
        self.write(&format!("role/{name}/secret-id"), body).await
    }

    async fn try_login(
        &self,
        role: &str,
        secret: &Value,
        locked: bool,
    ) -> Result<Grant, CoreError> {
        let body = json!({ "role_id": role, "secret_id": secret["secret_id"] });
        Ok(granted(self.call(Operation::Update, "login", body, locked).await?))
    }

    async fn reason(&self, role: &str, secret: &Value, locked: bool) -> String {
        let error = self.try_login(role, secret, locked).await.unwrap_err();
        assert!(matches!(error, CoreError::Denied { .. }), "{error}");
        error.reason().unwrap()
    }

    /// How many rows secret IDs have.
    async fn rows(&self) -> usize {
        let mut rows = 0;
        for dir in ["secret/", "accessor/"] {
            for key in self.mount.view.list(dir).await.unwrap() {
                rows += self.mount.view.list(&format!("{dir}{key}")).await.unwrap().len();
            }
        }
        rows
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

const NO_SECRET: &str = "the role has no such secret ID";
const ELSEWHERE: &str = "bound to other addresses";

#[tokio::test]
async fn a_role_id_and_a_secret_id_are_a_log_in() {
    let scratch = Scratch::new();
    let mount = Mount::new(&scratch);
    let role = mount.role("web", json!({ "token_policies": "a", "token_ttl": "1h" })).await;
    let notes = json!({ "metadata": r#"{"host":"n1","role_name":"root"}"#, "ttl": "1h" });
    let secret = mount.secret("web", notes).await;
    assert_eq!(
        (&secret["secret_id_ttl"], &secret["secret_id_num_uses"]),
        (&json!(3600), &json!(0))
    );
    let grant = mount.try_login(&role, &secret, false).await.unwrap();
    assert_eq!((grant.alias.as_str(), grant.role.as_str()), (role.as_str(), "web"));
    assert_eq!(grant.display_name, "approle-web");
    let notes = BTreeMap::from([("host", "n1"), ("role_name", "web")]);
    let noted: BTreeMap<_, _> =
        grant.metadata.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    assert_eq!(noted, notes);
    assert_eq!(grant.token.policies, ["a"]);
    // Neither of the two is anywhere in clear but in the role.
    for name in mount.mount.view.list("secret/").await.unwrap() {
        for hash in mount.mount.view.list(&format!("secret/{name}")).await.unwrap() {
            assert!(!hash.contains(&text(&secret["secret_id"])));
            let at = format!("secret/{name}{hash}");
            let record = mount.mount.view.get_record(&at).await.unwrap().unwrap();
            let body = String::from_utf8(record.body.expose().to_vec()).unwrap();
            assert!(!body.contains(&text(&secret["secret_id"])), "{body}");
        }
    }
}

#[tokio::test]
async fn what_does_not_belong_together_is_refused() {
    let scratch = Scratch::new();
    let mount = Mount::new(&scratch);
    let web = mount.role("web", json!({})).await;
    let db = mount.role("db", json!({})).await;
    let secret = mount.secret("web", json!({})).await;
    assert_eq!(mount.reason(&db, &secret, false).await, NO_SECRET);
    assert_eq!(mount.reason("nobody", &secret, false).await, "there is no such role ID");
    for wrong in ["x", ""] {
        let wrong = json!({ "secret_id": wrong });
        assert_eq!(mount.reason(&web, &wrong, false).await, NO_SECRET);
    }
    assert_eq!(mount.reason(&web, &json!({}), false).await, NO_SECRET);
    assert_eq!(mount.reason(&web, &secret, true).await, "locked");
    assert!(matches!(mount.refused("login", json!({})).await, CoreError::Field(_)));
    // The same text chosen for two roles is two secret IDs.
    let chosen = json!({ "secret_id": "mine" });
    mount.write("role/web/custom-secret-id", chosen.clone()).await;
    assert_eq!(mount.reason(&db, &chosen, false).await, NO_SECRET);
    mount.try_login(&web, &chosen, false).await.unwrap();
    let again = mount.refused("role/web/custom-secret-id", chosen.clone()).await;
    assert!(matches!(&again, CoreError::Field(e) if e.field == "secret_id"), "{again}");
    // A role made anew has nothing of the old one, whatever it is called.
    mount.call(Operation::Delete, "role/web", json!({}), false).await.unwrap();
    assert_eq!(mount.rows().await, 0);
    assert_eq!(mount.reason(&web, &chosen, false).await, "there is no such role ID");
    let anew = mount.role("web", json!({ "role_id": web })).await;
    assert_eq!(
        (anew.as_str(), mount.reason(&anew, &secret, false).await.as_str()),
        (web.as_str(), NO_SECRET)
    );
    let renewed = mount.method.renewal(&mount.ctx(), renewal_of("web", None)).await.unwrap();
    assert_eq!(renewed.alias, web);
    assert!(mount.method.renewal(&mount.ctx(), renewal_of("gone", None)).await.is_err());
}

#[tokio::test]
async fn of_fifty_parallel_log_ins_on_two_nodes_as_many_succeed_as_there_are_uses() {
    let scratch = Scratch::new();
    // Two mounts with caches of their own on one store, as on two nodes.
    let nodes = [Mount::new(&scratch), Mount::new(&scratch)];
    let role = nodes[0].role("web", json!({ "secret_id_num_uses": 10 })).await;
    for uses in [1, 10] {
        let secret = nodes[0].secret("web", json!({ "num_uses": uses })).await;
        let tries = (0..50).map(|n| nodes[n % 2].try_login(&role, &secret, false));
        let results = join_all(tries).await;
        let refused: Vec<_> = results.iter().filter_map(|result| result.as_ref().err()).collect();
        assert_eq!(50 - refused.len(), uses);
        assert!(refused.iter().all(|error| matches!(error, CoreError::Denied { .. })));
        assert_eq!(nodes[0].rows().await, 0, "nothing is left of one that is used up");
    }
    // What is refused for another reason costs no use.
    let secret = nodes[0].secret("web", json!({ "num_uses": 1 })).await;
    assert_eq!(nodes[0].reason(&role, &secret, true).await, "locked");
    nodes[1].try_login(&role, &secret, false).await.unwrap();
}

#[tokio::test]
async fn what_has_expired_is_refused_and_removed() {
    let scratch = Scratch::new();
    let mount = Mount::new(&scratch);
    let role = mount.role("web", json!({ "secret_id_ttl": "10m" })).await;
    let (short, long) =
        (mount.secret("web", json!({ "ttl": 60 })).await, mount.secret("web", json!({})).await);
    mount.mount.manual.advance(Duration::from_secs(59));
    mount.try_login(&role, &short, false).await.unwrap();
    mount.mount.manual.advance(Duration::from_secs(1));
    assert_eq!(mount.write("role/web/secret-id/lookup", short.clone()).await, Value::Null);
    assert_eq!(mount.reason(&role, &short, false).await, "the secret ID has expired");
    assert_eq!(mount.reason(&role, &short, false).await, NO_SECRET);
    assert_eq!(mount.rows().await, 2);
    mount.try_login(&role, &long, false).await.unwrap();
    // Nobody has to ask: tidying finds it, by hand or once an hour.
    mount.mount.manual.advance(Duration::from_secs(600));
    mount.write("tidy/secret-id", json!({})).await;
    assert_eq!(mount.rows().await, 0);
    mount.secret("web", json!({})).await;
    mount.method.tick(&mount.ctx()).await.unwrap();
    mount.mount.manual.advance(Duration::from_secs(3599));
    mount.method.tick(&mount.ctx()).await.unwrap();
    assert_eq!(mount.rows().await, 2);
    mount.mount.manual.advance(Duration::from_secs(1));
    mount.method.tick(&mount.ctx()).await.unwrap();
    assert_eq!(mount.rows().await, 0);
    // What an interrupted deletion has left is found as well, and what lives is not.
    mount.secret("web", json!({})).await;
    mount
        .mount
        .view
        .write("secret/gone/x", &1, crate::core::records::Precondition::Absent)
        .await
        .unwrap();
    mount
        .mount
        .view
        .write("accessor/old/x", &1, crate::core::records::Precondition::Absent)
        .await
        .unwrap();
    mount.write("tidy/secret-id", json!({})).await;
    assert_eq!(mount.rows().await, 2);
}

#[tokio::test]
async fn addresses_are_judged_before_a_use_is_taken() {
    let scratch = Scratch::new();
    let mount = Mount::new(&scratch);
    let elsewhere = json!(["10.0.0.0/8"]);
    let role = mount.role("web", json!({})).await;
    for field in ["cidr_list", "token_bound_cidrs"] {
        let secret = mount.secret("web", json!({ field: elsewhere, "num_uses": 1 })).await;
        assert!(mount.reason(&role, &secret, false).await.contains(ELSEWHERE), "{field}");
        let left = mount.write("role/web/secret-id/lookup", secret).await;
        assert_eq!(left["secret_id_num_uses"], 1, "{field}");
    }
    let secret = mount.secret("web", json!({ "num_uses": 1 })).await;
    for field in ["secret_id_bound_cidrs", "token_bound_cidrs"] {
        mount.write("role/web", json!({ field: elsewhere })).await;
        assert!(mount.reason(&role, &secret, false).await.contains(ELSEWHERE), "{field}");
        mount.write("role/web", json!({ field: [] })).await;
    }
    mount.try_login(&role, &secret, false).await.unwrap();
    // Without a secret ID the address is all there is, so there has to be one.
    let open = mount.refused("role/web", json!({ "bind_secret_id": false })).await;
    assert!(matches!(&open, CoreError::Field(e) if e.field == "bind_secret_id"), "{open}");
    let body = json!({ "bind_secret_id": false, "secret_id_bound_cidrs": "127.0.0.0/8" });
    mount.write("role/web", body).await;
    mount.try_login(&role, &json!({}), false).await.unwrap();
    assert_eq!(mount.reason(&role, &json!({}), true).await, "locked");
    let open = mount.call(Operation::Delete, "role/web/secret-id-bound-cidrs", json!({}), false);
    assert!(open.await.is_err());
    mount.refused("role/web/secret-id", json!({})).await;
}

#[tokio::test]
async fn a_secret_id_can_only_be_narrower_than_its_role() {
    let scratch = Scratch::new();
    let mount = Mount::new(&scratch);
    let body = json!({
        "secret_id_num_uses": 5, "secret_id_ttl": "1h",
        "secret_id_bound_cidrs": "127.0.0.0/8", "token_bound_cidrs": "127.0.0.0/8",
    });
    mount.role("web", body).await;
    for (body, field) in [
        (json!({ "num_uses": 6 }), "num_uses"),
        (json!({ "num_uses": 0 }), "num_uses"),
        (json!({ "ttl": "2h" }), "ttl"),
        (json!({ "ttl": 0 }), "ttl"),
        (json!({ "cidr_list": "10.0.0.1" }), "cidr_list"),
        (json!({ "cidr_list": "127.0.0.0/7" }), "cidr_list"),
        (json!({ "token_bound_cidrs": "0.0.0.0/0" }), "token_bound_cidrs"),
        (json!({ "metadata": "no json" }), "metadata"),
        (json!({ "metadata": { "a": ["b"] } }), "metadata"),
        (json!({ "metadata": { "a": "b".repeat(2000) } }), "metadata"),
    ] {
        let error = mount.refused("role/web/secret-id", body).await;
        assert!(matches!(&error, CoreError::Field(e) if e.field == field), "{error}");
    }
    let body = json!({ "num_uses": 4, "ttl": 60, "cidr_list": "127.0.0.1" });
    let made = mount.secret("web", body).await;
    assert_eq!((&made["secret_id_num_uses"], &made["secret_id_ttl"]), (&json!(4), &json!(60)));
    for (body, field) in [
        (json!({ "local_secret_ids": true }), "local_secret_ids"),
        (json!({ "role_id": "" }), "role_id"),
        (json!({ "token_policies": "root" }), "token_policies"),
        (json!({ "secret_id_bound_cidrs": "nonsense" }), "secret_id_bound_cidrs"),
    ] {
        let error = mount.refused("role/web", body).await;
        assert!(matches!(&error, CoreError::Field(e) if e.field == field), "{error}");
    }
}

#[tokio::test]
async fn every_setting_has_a_path_of_its_own() {
    let scratch = Scratch::new();
    let mount = Mount::new(&scratch);
    mount.role("web", json!({ "token_num_uses": 7 })).await;
    for (path, field, given, default) in [
        ("policies", "token_policies", json!(["a"]), json!([])),
        ("secret-id-num-uses", "secret_id_num_uses", json!(3), json!(0)),
        ("secret-id-ttl", "secret_id_ttl", json!(60), json!(0)),
        ("token-ttl", "token_ttl", json!(60), json!(0)),
        ("token-max-ttl", "token_max_ttl", json!(90), json!(0)),
        ("token-num-uses", "token_num_uses", json!(2), json!(0)),
        ("token-bound-cidrs", "token_bound_cidrs", json!(["10.0.0.0/8"]), json!([])),
        ("secret-id-bound-cidrs", "secret_id_bound_cidrs", json!(["10.0.0.0/8"]), json!([])),
        ("period", "token_period", json!(30), json!(0)),
        ("bind-secret-id", "bind_secret_id", json!(true), json!(true)),
    ] {
        let at = format!("role/web/{path}");
        let before = mount.read("role/web").await;
        // A setting changes by its own path alone.
        let body = json!({ field: given, "token_explicit_max_ttl": 5 });
        mount.write(&at, body).await;
        assert_eq!(mount.read(&at).await, json!({ field: given }), "{path}");
        let mut expected = before;
        expected[field] = given;
        assert_eq!(mount.read("role/web").await, expected, "{path}");
        assert!(matches!(mount.refused(&at, json!({})).await, CoreError::Field(_)), "{path}");
        mount.answer(Operation::Delete, &at, json!({})).await;
        assert_eq!(mount.read(&at).await, json!({ field: default }), "{path}");
    }
    let local = mount.read("role/web/local-secret-ids").await;
    assert_eq!(local, json!({ "local_secret_ids": false }));
    // A role ID is one role's.
    let old = text(&mount.read("role/web/role-id").await["role_id"]);
    mount.write("role/web/role-id", json!({ "role_id": "web-1" })).await;
    let secret = mount.secret("web", json!({})).await;
    mount.try_login("web-1", &secret, false).await.unwrap();
    assert_eq!(mount.reason(&old, &secret, false).await, "there is no such role ID");
    mount.role("db", json!({})).await;
    let taken = mount.refused("role/db/role-id", json!({ "role_id": "web-1" })).await;
    assert!(matches!(&taken, CoreError::Field(e) if e.field == "role_id"), "{taken}");
    // Names are what policies judge: upper and lower case are two roles.
    assert!(matches!(mount.refused("role/Web/secret-id", json!({})).await, CoreError::NotFound));
}

#[tokio::test]
async fn secret_ids_are_found_and_ended_by_themselves_and_by_their_accessors() {
    let scratch = Scratch::new();
    let mount = Mount::new(&scratch);
    let role = mount.role("web", json!({})).await;
    mount.role("db", json!({})).await;
    let secret = mount.secret("web", json!({ "metadata": { "a": "b" } })).await;
    let accessor = json!({ "secret_id_accessor": secret["secret_id_accessor"] });
    let by_secret = mount.write("role/web/secret-id/lookup", secret.clone()).await;
    let by_accessor = mount.write("role/web/secret-id-accessor/lookup", accessor.clone()).await;
    assert_eq!(by_secret, by_accessor);
    assert_eq!(by_secret["metadata"], json!({ "a": "b" }));
    assert_eq!(by_secret["expiration_time"], "0001-01-01T00:00:00Z");
    assert!(!by_secret.to_string().contains(&text(&secret["secret_id"])));
    let listed = mount.answer(Operation::List, "role/web/secret-id", json!({})).await;
    assert_eq!(listed["keys"], json!([secret["secret_id_accessor"]]));
    // Another role knows nothing of it, and cannot end it.
    assert_eq!(mount.write("role/db/secret-id/lookup", secret.clone()).await, Value::Null);
    for path in ["role/db/secret-id-accessor/lookup", "role/db/secret-id-accessor/destroy"] {
        assert!(matches!(mount.refused(path, accessor.clone()).await, CoreError::NotFound));
    }
    mount.write("role/db/secret-id/destroy", secret.clone()).await;
    mount.try_login(&role, &secret, false).await.unwrap();
    mount.write("role/web/secret-id-accessor/destroy", accessor).await;
    assert_eq!(mount.reason(&role, &secret, false).await, NO_SECRET);
    let secret = mount.secret("web", json!({})).await;
    mount.write("role/web/secret-id/destroy", secret.clone()).await;
    assert_eq!(mount.reason(&role, &secret, false).await, NO_SECRET);
    assert_eq!(mount.rows().await, 0);
}
