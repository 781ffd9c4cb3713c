//! Log-ins with a second factor.

use std::sync::atomic::{AtomicU64, Ordering};

use leasehold::crypto::otp::{TotpParameters, decode_secret};
use leasehold::types::time::{Clock, SystemClock};
use serde_json::{Value, json};

use super::world::{World, unique};
use crate::support::broker::{Broker, Caller, Setup};
use crate::support::postgres::TestPostgres;
use crate::support::wire::{Answer, soon};

const PASSWORD: &str = "correct horse battery";
const TOTP: &str = "identity/mfa/method/totp";
const VALIDATE: &str = "sys/mfa/validate";
const ENFORCEMENT: &str = "identity/mfa/login-enforcement/people";

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}")).to_owned()
}

/// What an app has.
struct App {
    secret: String,
    taken: AtomicU64,
}

impl App {
    fn new(made: &Value) -> Self {
        let url = text(&made["url"]);
        let secret = url.split("secret=").nth(1).unwrap().split('&').next().unwrap();
        Self { secret: secret.to_owned(), taken: AtomicU64::new(0) }
    }

    /// A code that was not shown yet: of the present step, or once of the next one.
    fn code(&self) -> String {
        let parameters = TotpParameters::default();
        let present = parameters.step_at(SystemClock.now());
        let step = present.max(self.taken.load(Ordering::Relaxed) + 1);
        assert!(step <= present + 1, "that code does not count yet");
        self.taken.store(step, Ordering::Relaxed);
        parameters.code(&decode_secret(&self.secret).unwrap(), step).expose().to_owned()
    }

    /// A code that counts at no time near.
    fn wrong(&self) -> String {
        let parameters = TotpParameters::default();
        let key = decode_secret(&self.secret).unwrap();
        let present = parameters.step_at(SystemClock.now());
        let near: Vec<_> = (present - 2..=present + 4)
            .map(|step| parameters.code(&key, step).expose().to_owned())
            .collect();
        (0..).map(|n| format!("{n:06}")).find(|code| !near.contains(code)).unwrap()
    }
}

struct Stage {
    world: World,
    method: String,
    accessor: String,
    name: String,
    entity: String,
}

impl Stage {
    /// Somebody with a password; nothing demands a second factor yet.
    async fn new(setup: Setup) -> Self {
        let world = World::new(setup).await;
        let root = world.broker.root();
        root.write("sys/auth/userpass", json!({ "type": "userpass" })).await.ok();
        let accessor = text(&root.read("sys/auth/userpass").await.data()["accessor"]);
        let name = unique("ann");
        let user = json!({ "password": PASSWORD, "token_policies": "careful" });
        root.write(&format!("auth/userpass/users/{name}"), user).await.ok();
        let policy = r#"path "auth/token/create" { capabilities = ["update"] }"#;
        root.write("sys/policies/acl/careful", json!({ "policy": policy })).await.ok();
        let made = json!({ "issuer": "x", "method_name": "phone" });
        let method = text(&root.write(TOTP, made).await.data()["method_id"]);
        let login = world.broker.admin().write(&Self::at(&name), Self::body()).await.ok();
        let entity = text(&login["auth"]["entity_id"]);
        Self { world, method, accessor, name, entity }
    }

    fn at(name: &str) -> String {
        format!("auth/userpass/login/{name}")
    }

    fn body() -> Value {
        json!({ "password": PASSWORD })
    }

    fn theirs(&self) -> Value {
        json!({ "method_id": self.method, "entity_id": self.entity })
    }

    /// A new shared secret.
    async fn enrol(&self) -> App {
        let root = self.world.broker.root();
        root.write(&format!("{TOTP}/admin-destroy"), self.theirs()).await.ok();
        App::new(&root.write(&format!("{TOTP}/admin-generate"), self.theirs()).await.data())
    }

    async fn demand(&self, of: Value) {
        let mut body = of;
        body["mfa_method_ids"] = json!([self.method]);
        self.world.broker.root().write(ENFORCEMENT, body).await.ok();
    }

    async fn spare(&self) {
        self.world.broker.root().delete(ENFORCEMENT).await.ok();
    }

    async fn log_in(&self, caller: &Caller) -> Value {
        caller.write(&Self::at(&self.name), Self::body()).await.ok()["auth"].clone()
    }

    fn payload(&self, auth: &Value, code: &str) -> Value {
        let id = &auth["mfa_requirement"]["mfa_request_id"];
        assert!(id.is_string(), "{auth}");
        json!({ "mfa_request_id": id, "mfa_payload": { self.method.clone(): [code] } })
    }

    /// A log-in that brings the header.
    async fn log_in_with(&self, header: &str) -> Answer {
        let headers = [("x-vault-mfa", header)];
        let (at, body) = (Self::at(&self.name), Self::body().to_string());
        self.world.broker.admin().request("POST", &at, &headers, body.as_bytes()).await
    }

    /// The administrator's certificate with a token of an answer.
    fn bearer(&self, token: &Value) -> Caller {
        self.world.broker.admin().with_token(&text(token))
    }

    fn reason(&self, answer: &Answer) -> String {
        text(&self.world.broker.audited(answer)["outcome"]["reason"])
    }
}

#[tokio::test]
async fn every_condition_of_an_enforcement_covers_whom_it_names_and_nobody_else() {
    let stage = Stage::new(Setup::default()).await;
    let (root, admin) = (stage.world.broker.root(), stage.world.broker.admin());
    stage.enrol().await;
    let bob = json!({ "password": PASSWORD, "token_policies": "other" });
    root.write("auth/userpass/users/bob", bob).await.ok();
    let group = json!({ "name": "ops", "member_entity_ids": [stage.entity], "policies": ["ops"] });
    let group = text(&root.write("identity/group", group).await.data()["id"]);
    let nobody = json!({
        "auth_method_accessors": [], "auth_method_types": [], "identity_entity_ids": [],
        "identity_group_ids": [], "policies": [],
    });
    for (field, value, bob_too) in [
        ("auth_method_types", "userpass", true),
        ("auth_method_accessors", stage.accessor.as_str(), true),
        ("identity_entity_ids", stage.entity.as_str(), false),
        ("identity_group_ids", group.as_str(), false),
        ("policies", "careful", false),
        ("policies", "ops", false),
        ("policies", "default", true),
    ] {
        let mut demand = nobody.clone();
        demand[field] = json!([value]);
        stage.demand(demand).await;
        let auth = stage.log_in(&admin).await;
        assert_eq!((&auth["client_token"], &auth["policies"]), (&json!(""), &Value::Null));
        let any = &auth["mfa_requirement"]["mfa_constraints"]["people"]["any"];
        let one = json!({
            "id": stage.method, "name": "phone", "type": "totp", "uses_passcode": true,
        });
        assert_eq!(*any, json!([one]), "{field}");
        let other = admin.write(&Stage::at("bob"), Stage::body()).await;
        if bob_too {
            // He has no secret, is told so, and can be given one all the same.
            let told = other.error(400);
            assert!(told.contains("has no secret"), "{told}");
            let id = told.split("the entity ").nth(1).unwrap().split(' ').next().unwrap();
            assert_eq!(root.read(&format!("identity/entity/id/{id}")).await.status, 200);
        } else {
            assert!(other.ok()["auth"]["client_token"].is_string());
        }
    }
    for (field, value) in [
        ("auth_method_types", "userpas"),
        ("auth_method_accessors", "auth_userpass_none"),
        ("identity_entity_ids", "none"),
        ("identity_group_ids", "none"),
        ("policies", "Not/A/Policy\n"),
        ("mfa_method_ids", "none"),
    ] {
        root.write(ENFORCEMENT, json!({ field: [value] })).await.error(400);
    }
    root.delete(&format!("{TOTP}/{}", stage.method)).await.error(400);
}

#[tokio::test]
async fn a_log_in_that_is_covered_gives_a_token_for_a_code_and_for_nothing_else() {
    let stage = Stage::new(Setup::default()).await;
    let admin = stage.world.broker.admin();
    let before = stage.log_in(&admin).await;
    stage.demand(json!({ "auth_method_types": ["userpass"] })).await;
    let app = stage.enrol().await;
    let auth = stage.log_in(&admin).await;
    let code = app.code();
    // From another certificate, or without one, the request id is worth nothing; one that there is
    // not is answered alike, and so is a wrong code.
    let payload = stage.payload(&auth, &code);
    let mut unknown = payload.clone();
    unknown["mfa_request_id"] = json!("5f0d1d3c-0000-4000-8000-000000000000");
    let other = stage.world.broker.caller(&stage.world.broker.svid("other"));
    let answers = [
        other.write(VALIDATE, payload.clone()).await,
        stage.world.broker.nobody().write(VALIDATE, payload.clone()).await,
        admin.write(VALIDATE, unknown).await,
        admin.write(VALIDATE, stage.payload(&auth, &app.wrong())).await,
        admin.write(VALIDATE, stage.payload(&auth, "")).await,
    ];
    let told: Vec<_> = answers.iter().map(|answer| answer.error(400)).collect();
    assert!(told.iter().all(|one| *one == told[0]), "{told:?}");
    assert_eq!(stage.reason(&answers[3]), "a wrong code");
    // Nor is it a token by itself.
    let id = text(&payload["mfa_request_id"]);
    let bearer = stage.bearer(&json!(id));
    assert_eq!(bearer.read("auth/token/lookup-self").await.status, 403);
    let token = admin.write(VALIDATE, payload.clone()).await.ok();
    assert!(token["auth"]["mfa_requirement"].is_null());
    let own = stage.bearer(&token["auth"]["client_token"]);
    assert_eq!(own.read("auth/token/lookup-self").await.status, 200);
    // What was issued is renewed and makes children without another code, and so does what was
    // issued before.
    let old = stage.bearer(&before["client_token"]);
    for token in [own, old] {
        token.write("auth/token/renew-self", json!({})).await.ok();
        token.write("auth/token/create", json!({})).await.ok();
    }
    // Both are used up, for the next log-in, too.
    admin.write(VALIDATE, payload).await.error(400);
    let again = stage.log_in(&admin).await;
    let used = admin.write(VALIDATE, stage.payload(&again, &code)).await;
    assert_eq!(used.error(400), told[0]);
    assert_eq!(stage.reason(&used), "a code that was used");
    // No code and no request id is in the audit as it was.
    let audit = std::fs::read_to_string(stage.world.broker.audit_path()).unwrap();
    assert!(!audit.contains(&id) && !audit.contains(&format!("\"{code}\"")));
}

#[tokio::test]
async fn a_header_makes_it_one_request_and_the_token_can_be_wrapped_either_way() {
    let stage = Stage::new(Setup::default()).await;
    let admin = stage.world.broker.admin();
    stage.demand(json!({ "auth_method_accessors": [stage.accessor] })).await;
    let app = stage.enrol().await;
    let by_id = format!("{}:{}", stage.method, app.code());
    assert!(stage.log_in_with(&by_id).await.ok()["auth"]["client_token"].is_string());
    let again = stage.log_in_with(&by_id).await;
    again.error(400);
    assert_eq!(stage.reason(&again), "a code that was used");
    let by_name = format!("phone:passcode={}", app.code());
    assert!(stage.log_in_with(&by_name).await.ok()["auth"]["client_token"].is_string());
    // Without a code nothing is guessed; a code for another method is none.
    let app = stage.enrol().await;
    for header in [stage.method.clone(), format!("{}:", stage.method), "other:123456".into()] {
        for _ in 0..3 {
            let answer = stage.log_in_with(&header).await;
            answer.error(400);
            assert!(stage.reason(&answer).contains("no code"));
        }
    }
    stage.log_in_with("").await.error(400);
    stage.log_in_with(":123456").await.error(400);
    // What is demanded is not wrapped; the token is, if that request asks for it.
    let wrap = [("x-vault-wrap-ttl", "60")];
    let body = Stage::body().to_string();
    let at = Stage::at(&stage.name);
    let begun = admin.request("POST", &at, &wrap, body.as_bytes()).await.ok();
    assert!(begun["wrap_info"].is_null());
    let payload = stage.payload(&begun["auth"], &app.code()).to_string();
    let wrapped = admin.request("POST", VALIDATE, &wrap, payload.as_bytes()).await.ok();
    assert!(wrapped["auth"].is_null());
    let wrapping = stage.bearer(&wrapped["wrap_info"]["token"]);
    let unwrapped = wrapping.write("sys/wrapping/unwrap", json!({})).await.ok();
    assert!(!text(&unwrapped["auth"]["client_token"]).is_empty());
    let headers = [("x-vault-wrap-ttl", "60"), ("x-vault-mfa", &*format!("phone:{}", app.code()))];
    let one = admin.request("POST", &at, &headers, body.as_bytes()).await.ok();
    assert!(one["wrap_info"]["token"].is_string() && one["auth"].is_null());
}

#[tokio::test]
async fn wrong_codes_lock_the_second_factor_and_never_the_password() {
    let stage = Stage::new(Setup::default()).await;
    let (root, admin) = (stage.world.broker.root(), stage.world.broker.admin());
    stage.demand(json!({ "identity_entity_ids": [stage.entity] })).await;
    let app = stage.enrol().await;
    let auth = stage.log_in(&admin).await;
    for _ in 0..2 {
        admin.write(VALIDATE, stage.payload(&auth, &app.wrong())).await.error(400);
    }
    for _ in 0..3 {
        stage.log_in_with(&format!("phone:{}", app.wrong())).await.error(400);
    }
    let right = app.code();
    let locked = admin.write(VALIDATE, stage.payload(&auth, &right)).await;
    locked.error(400);
    assert_eq!(stage.reason(&locked), "locked");
    let listed = root.read("sys/locked-users").await.data();
    let expected = json!([{
        "alias_identifiers": [stage.entity], "counts": 1, "mount_accessor": stage.method,
    }]);
    assert_eq!(listed["by_namespace"][0]["mount_accessors"], expected);
    // The kill forgets what is in memory; this is not.
    stage.world.broker.kill();
    stage.world.broker.start_again();
    stage.world.broker.unseal().await;
    let (root, admin) = (stage.world.broker.root(), stage.world.broker.admin());
    admin.write(VALIDATE, stage.payload(&auth, &right)).await.error(400);
    let unlock = format!("sys/locked-users/{}/unlock/{}", stage.method, stage.entity);
    root.write(&unlock, json!({})).await.ok();
    assert_eq!(root.read("sys/locked-users").await.data()["total"], 0);
    // The log-in still waits; what was shown while it was locked was not taken.
    let token = admin.write(VALIDATE, stage.payload(&auth, &right)).await.ok();
    assert!(token["auth"]["client_token"].is_string());
}

#[tokio::test]
async fn a_shared_secret_is_shown_once_and_never_stored_as_it_is() {
    let stage = Stage::new(Setup::default()).await;
    let root = stage.world.broker.root();
    let own = stage.log_in(&stage.world.broker.admin()).await;
    let own = stage.bearer(&own["client_token"]);
    let generate = format!("{TOTP}/generate");
    let method = json!({ "method_id": stage.method });
    // Only whoever a policy lets, and only for themselves.
    own.write(&generate, method.clone()).await.error(403);
    let policy = format!(r#"path "{generate}" {{ capabilities = ["update"] }}"#);
    root.write("sys/policies/acl/careful", json!({ "policy": policy })).await.ok();
    let made = own.write(&generate, method.clone()).await.data();
    assert!(text(&made["barcode"]).starts_with("iVBOR"));
    let app = App::new(&made);
    for body in [method, stage.theirs()] {
        let again = own.write(&generate, body).await.ok();
        assert!(again["data"].is_null() && again["warnings"][0].is_string(), "{again}");
    }
    let admin = format!("{TOTP}/admin-generate");
    assert!(root.write(&admin, stage.theirs()).await.ok()["data"].is_null());
    own.write(&admin, stage.theirs()).await.error(403);
    root.write(&generate, json!({ "method_id": stage.method })).await.error(400);
    for path in [
        format!("{TOTP}/{}", stage.method),
        format!("identity/entity/id/{}", stage.entity),
        format!("identity/mfa/method/{}", stage.method),
    ] {
        let shown = root.read(&path).await.data().to_string();
        assert!(!shown.contains(&app.secret) && !shown.contains("otpauth"), "{shown}");
    }
    stage.world.broker.kill();
    for entry in std::fs::read_dir(stage.world.broker.data_dir()).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        let secret = app.secret.as_bytes();
        assert!(!bytes.windows(secret.len()).any(|window| window == secret));
    }
    let audit = std::fs::read_to_string(stage.world.broker.audit_path()).unwrap();
    assert!(!audit.contains(&app.secret));
}

#[tokio::test]
async fn a_certificate_that_is_covered_does_not_get_around_it_by_not_logging_in() {
    let stage = Stage::new(Setup::default()).await;
    let root = stage.world.broker.root();
    let policy = r#"path "kv/x" { capabilities = ["read"] }"#;
    let (caller, name) = stage.world.workload(policy).await;
    root.write("kv/x", json!({ "a": 1 })).await.ok();
    assert_eq!(caller.read("kv/x").await.status, 200);
    stage.demand(json!({ "policies": [name] })).await;
    let refused = caller.read("kv/x").await;
    refused.error(403);
    assert!(stage.reason(&refused).contains("second factor"));
    let told = caller.write("auth/cert/login", json!({})).await.error(400);
    let id = told.split("the entity ").nth(1).unwrap().split(' ').next().unwrap().to_owned();
    let body = json!({ "method_id": stage.method, "entity_id": id });
    let app = App::new(&root.write(&format!("{TOTP}/admin-generate"), body).await.data());
    let begun = caller.write("auth/cert/login", json!({})).await.ok()["auth"].clone();
    assert_eq!(caller.read("kv/x").await.status, 403);
    let payload = stage.payload(&begun, &app.code());
    let made = caller.write(VALIDATE, payload).await.ok();
    let caller = caller.with_token(&text(&made["auth"]["client_token"]));
    assert_eq!(caller.read("kv/x").await.status, 200);
    // Others with certificates go on without.
    let (other, _) = stage.world.workload(policy).await;
    assert_eq!(other.read("kv/x").await.status, 200);
    stage.demand(json!({ "auth_method_types": ["cert"] })).await;
    assert_eq!(other.read("kv/x").await.status, 403);
    stage.spare().await;
    assert_eq!(other.read("kv/x").await.status, 200);
}

#[tokio::test]
async fn nodes_share_what_is_demanded_what_waits_and_what_was_taken() {
    let server = tokio::task::spawn_blocking(TestPostgres::shared).await.unwrap();
    let setup = Setup { postgres: Some(server.database()), ..Setup::default() };
    let stage = Stage::new(setup).await;
    let other: Broker = stage.world.broker.beside().await;
    let (here, there) = (stage.world.broker.admin(), other.admin());
    let app = stage.enrol().await;
    let at = Stage::at(&stage.name);
    assert!(!text(&there.write(&at, Stage::body()).await.ok()["auth"]["client_token"]).is_empty());
    stage.demand(json!({ "auth_method_types": ["userpass"] })).await;
    // As soon as the other node has heard of it.
    let begun = soon(async {
        loop {
            let auth = there.write(&at, Stage::body()).await.ok()["auth"].clone();
            if auth["mfa_requirement"].is_object() {
                return auth;
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    })
    .await;
    let second = stage.log_in(&here).await;
    let code = app.code();
    // Begun there, finished here; and of two nodes that are shown one code at once, one takes it.
    let (first, last) = (stage.payload(&begun, &code), stage.payload(&second, &code));
    let (a, b) = tokio::join!(here.write(VALIDATE, first), there.write(VALIDATE, last));
    let mut statuses = [a.status, b.status];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 400]);
    // The one that was let in waits no longer, on either node; with a further code the other does.
    let code = app.code();
    let (used, open, node) =
        if a.status == 200 { (begun, second, there) } else { (second, begun, here) };
    node.write(VALIDATE, stage.payload(&used, &code)).await.error(400);
    node.write(VALIDATE, stage.payload(&open, &code)).await.ok();
}

#[tokio::test]
async fn what_waits_ends_with_its_time_its_mount_and_its_identity() {
    let stage = Stage::new(Setup::default()).await;
    let (root, admin) = (stage.world.broker.root(), stage.world.broker.admin());
    stage.demand(json!({ "identity_entity_ids": [stage.entity] })).await;
    let app = stage.enrol().await;
    let auth = stage.log_in(&admin).await;
    let entity = format!("identity/entity/id/{}", stage.entity);
    root.write(&entity, json!({ "disabled": true })).await.ok();
    admin.write(VALIDATE, stage.payload(&auth, &app.code())).await.error(403);
    root.write(&entity, json!({ "disabled": false })).await.ok();
    // Many are begun, and the first is not among those that wait.
    for _ in 0..8 {
        stage.log_in(&admin).await;
    }
    let old = admin.write(VALIDATE, stage.payload(&auth, &app.code())).await;
    old.error(400);
    assert_eq!(stage.reason(&old), "the request id is unknown, used or over");
    let app = stage.enrol().await;
    let auth = stage.log_in(&admin).await;
    // Whoever has been let in by then as somebody else is nobody that this log-in is of.
    root.delete(&entity).await.ok();
    admin.write(VALIDATE, stage.payload(&auth, &app.code())).await.error(403);
    stage.demand(json!({ "auth_method_types": ["userpass"], "identity_entity_ids": [] })).await;
    let told = admin.write(&Stage::at(&stage.name), Stage::body()).await.error(400);
    let id = told.split("the entity ").nth(1).unwrap().split(' ').next().unwrap().to_owned();
    assert_ne!(id, stage.entity);
    let body = json!({ "method_id": stage.method, "entity_id": id });
    let app = App::new(&root.write(&format!("{TOTP}/admin-generate"), body).await.data());
    let auth = stage.log_in(&admin).await;
    root.delete("sys/auth/userpass").await.ok();
    admin.write(VALIDATE, stage.payload(&auth, &app.code())).await.error(403);
}
