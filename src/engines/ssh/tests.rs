use std::time::Duration;

use serde_json::{Value, json};

use super::SshEngine;
use crate::core::engine::{CallerFacts, Engine, LeaseFacts};
use crate::core::error::CoreError;
use crate::core::operation::Operation::{self, Delete, List, Read, Update};
use crate::core::scratch::{NOW, Scratch, ScratchMount};
use crate::crypto::ssh::{SshKeyType, SshPrivateKey};
use crate::engines::scratch::{answered, ask, planned};
use crate::types::time::{Timestamp, Ttl};

mod revoked;
mod templates;

struct World {
    engine: SshEngine,
    mount: ScratchMount,
    caller: CallerFacts,
    _scratch: Scratch,
}

impl World {
    fn empty() -> Self {
        let scratch = Scratch::new();
        Self {
            engine: SshEngine::default(),
            mount: ScratchMount::new(&scratch, "ssh/"),
            caller: CallerFacts { display_name: "ann".to_owned(), ..CallerFacts::default() },
            _scratch: scratch,
        }
    }

    /// With a signing key and a role `r` like this, beside what every such role here has.
    async fn with(role: Value) -> Self {
        let world = Self::empty();
        world.ok(Update, "config/ca", json!({})).await;
        world.role(role).await.unwrap();
        world
    }

    async fn role(&self, extra: Value) -> Result<Value, CoreError> {
        let mut role = json!({
            "key_type": "ca", "allow_user_certificates": true, "allowed_users": "app,deploy",
            "default_user": "app", "ttl": "10m", "max_ttl": "1h",
        });
        role.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        self.tried(Update, "roles/r", role).await
    }

    async fn tried(
        &self,
        operation: Operation,
        path: &str,
        body: Value,
    ) -> Result<Value, CoreError> {
        let outcome = ask(&self.engine, &self.mount, &self.caller, operation, path, body).await;
        outcome.map(answered)
    }

    async fn ok(&self, operation: Operation, path: &str, body: Value) -> Value {
        self.tried(operation, path, body).await.unwrap()
    }

    async fn sign(&self, extra: Value) -> Result<Certificate, CoreError> {
        let mut body = json!({ "public_key": public_key(SshKeyType::Ed25519) });
        body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        let data = self.tried(Update, "sign/r", body).await?;
        Ok(Certificate::read(&data))
    }

    /// A password's lease, as the core makes it durable.
    async fn lease(&self, body: Value) -> Result<(Value, Value), CoreError> {
        let outcome =
            ask(&self.engine, &self.mount, &self.caller, Update, "creds/otp", body).await?;
        let plan = planned(outcome);
        assert!(!plan.renewable);
        let facts = facts(&plan.data);
        let data = self.engine.issue(&self.mount.ctx(), facts).await.unwrap();
        Ok((plan.data, Value::Object(data)))
    }
}

const LEASE_SECS: u64 = 600;

fn facts(data: &Value) -> LeaseFacts<'_> {
    LeaseFacts { data, role: "otp", expires_at: NOW.plus(Ttl::from_secs(LEASE_SECS)) }
}

fn public_key(kind: SshKeyType) -> String {
    SshPrivateKey::generate(kind).unwrap().public().to_line()
}

/// What a certificate on an Ed25519 key says.
struct Certificate {
    serial: u64,
    kind: u32,
    key_id: String,
    principals: Vec<String>,
    after: i64,
    before: i64,
    critical_options: Vec<(String, String)>,
    extensions: Vec<String>,
}

impl Certificate {
    fn read(data: &Value) -> Self {
        let line = data["signed_key"].as_str().unwrap();
        assert!(line.starts_with("ssh-ed25519-cert-v01@openssh.com ") && line.ends_with('\n'));
        let text = line.trim_end().split(' ').nth(1).unwrap();
        let blob = data_encoding::BASE64.decode(text.as_bytes()).unwrap();
        let mut rest = blob.as_slice();
        for _ in 0..3 {
            string(&mut rest);
        }
        let serial = u64::from_be_bytes(take(&mut rest, 8).try_into().unwrap());
        assert_eq!(data["serial_number"], format!("{serial:016x}"));
        let kind = u32::from_be_bytes(take(&mut rest, 4).try_into().unwrap());
        let key_id = text_of(string(&mut rest));
        let mut names = string(&mut rest);
        let mut principals = Vec::new();
        while !names.is_empty() {
            principals.push(text_of(string(&mut names)));
        }
        let mut moment = || i64::from_be_bytes(take(&mut rest, 8).try_into().unwrap());
        let (after, before) = (moment(), moment());
        let (mut critical, mut permitted) = (string(&mut rest), string(&mut rest));
        let mut critical_options = Vec::new();
        while !critical.is_empty() {
            let (name, mut value) = (string(&mut critical), string(&mut critical));
            critical_options.push((text_of(name), text_of(string(&mut value))));
        }
        let mut extensions = Vec::new();
        while !permitted.is_empty() {
            let (name, value) = (string(&mut permitted), string(&mut permitted));
            assert!(value.is_empty());
            extensions.push(text_of(name));
        }
        Self { serial, kind, key_id, principals, after, before, critical_options, extensions }
    }
}

fn take<'b>(rest: &mut &'b [u8], len: usize) -> &'b [u8] {
    let (taken, further) = rest.split_at(len);
    *rest = further;
    taken
}

fn string<'b>(rest: &mut &'b [u8]) -> &'b [u8] {
    let len = u32::from_be_bytes(take(rest, 4).try_into().unwrap());
    take(rest, len as usize)
}

fn text_of(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn names_field<T>(result: Result<T, CoreError>, field: &str) {
    let error = result.err().unwrap_or_else(|| panic!("{field} was let through"));
    assert_eq!(error.status(), 400);
    assert!(error.to_string().starts_with(&format!("field \"{field}\"")), "{error}");
}

#[tokio::test]
async fn a_certificate_says_what_was_asked_for_within_the_role() {
    let world = World::with(json!({ "default_extensions": { "permit-pty": "" } })).await;
    let made = world.sign(json!({})).await.unwrap();
    assert_eq!((made.kind, made.principals.as_slice()), (1, &["app".to_owned()][..]));
    assert_eq!(made.extensions, ["permit-pty"]);
    assert!(made.critical_options.is_empty());
    assert_eq!((made.after, made.before), (NOW.as_secs() - 30, NOW.as_secs() + 600));
    assert!(made.key_id.starts_with("leasehold-ann-") && made.key_id.len() == 14 + 64);
    let again = world.sign(json!({ "valid_principals": "deploy, app" })).await.unwrap();
    assert_eq!(again.principals, ["deploy", "app"]);
    assert_ne!(made.serial, again.serial);
    let issued = world.ok(Update, "issue/r", json!({ "ttl": 60 })).await;
    assert_eq!(Certificate::read(&issued).before, NOW.as_secs() + 60);
    assert_eq!(issued["private_key_type"], "ssh-ed25519");
    assert!(issued["private_key"].as_str().unwrap().starts_with("-----BEGIN OPENSSH"));
}

#[tokio::test]
async fn nobody_gets_a_certificate_for_everybody_or_for_somebody_else() {
    let world = World::with(json!({ "default_user": "" })).await;
    names_field(world.sign(json!({})).await, "valid_principals");
    names_field(world.sign(json!({ "valid_principals": "" })).await, "valid_principals");
    names_field(world.sign(json!({ "valid_principals": [] })).await, "valid_principals");
    for bad in ["root", "App", "app,root", "*", "app\nroot", "app\0", "app ,", "\u{a0}app", "a*"] {
        let result = world.sign(json!({ "valid_principals": [bad] })).await;
        names_field(result, "valid_principals");
    }
    assert!(world.sign(json!({ "valid_principals": "app,root" })).await.is_err());
    // Even a role for all users signs no patterns, and nothing for nobody.
    world.role(json!({ "default_user": "", "allowed_users": "*" })).await.unwrap();
    assert!(world.sign(json!({ "valid_principals": "root" })).await.is_ok());
    for bad in [json!(["*"]), json!(["ro*"]), json!(["!root"]), json!([])] {
        names_field(world.sign(json!({ "valid_principals": bad })).await, "valid_principals");
    }
    // A role that names nobody signs for nobody.
    world.role(json!({ "default_user": "", "allowed_users": "" })).await.unwrap();
    names_field(world.sign(json!({ "valid_principals": "app" })).await, "valid_principals");
}

#[tokio::test]
async fn a_forced_command_stays_and_only_named_options_can_be_added() {
    let world = World::with(json!({
        "default_critical_options": { "force-command": "/bin/backup" },
        "allowed_critical_options": "source-address",
        "default_extensions": { "permit-pty": "" },
        "allowed_extensions": "permit-port-forwarding",
    }))
    .await;
    let forced = ("force-command".to_owned(), "/bin/backup".to_owned());
    assert_eq!(
        world.sign(json!({})).await.unwrap().critical_options,
        std::slice::from_ref(&forced)
    );
    let source = json!({ "critical_options": { "source-address": "10.0.0.0/8" } });
    let made = world.sign(source).await.unwrap();
    let source = ("source-address".to_owned(), "10.0.0.0/8".to_owned());
    assert_eq!(made.critical_options, [forced, source]);
    for bad in [
        json!({ "force-command": "/bin/sh" }),
        json!({ "force-command": "" }),
        json!({ "verify-required": "" }),
        json!({ "source-address": "a\nb" }),
    ] {
        names_field(world.sign(json!({ "critical_options": bad })).await, "critical_options");
    }
    let chosen = json!({ "extensions": { "permit-port-forwarding": "" } });
    assert_eq!(world.sign(chosen).await.unwrap().extensions, ["permit-port-forwarding"]);
    let own = json!({ "extensions": { "permit-pty": "" } });
    assert_eq!(world.sign(own).await.unwrap().extensions, ["permit-pty"]);
    for bad in ["permit-X11-forwarding", "*", "", "a,b"] {
        names_field(world.sign(json!({ "extensions": { bad: "" } })).await, "extensions");
    }
}

#[tokio::test]
async fn a_certificate_ends_with_whoever_asked_for_it() {
    let mut world = World::with(json!({})).await;
    let before = |made: Certificate| made.before - NOW.as_secs();
    assert_eq!(before(world.sign(json!({ "ttl": "30m" })).await.unwrap()), 1800);
    assert_eq!(before(world.sign(json!({ "ttl": "30h" })).await.unwrap()), 3600);
    world.caller.expires_at = Some(NOW.plus(Ttl::from_secs(90)));
    assert_eq!(before(world.sign(json!({ "ttl": "30m" })).await.unwrap()), 90);
    assert_eq!(before(world.sign(json!({})).await.unwrap()), 90);
    world.caller.expires_at = Some(Timestamp::from_secs(NOW.as_secs()));
    assert_eq!(world.sign(json!({})).await.err().unwrap().status(), 403);
}

#[tokio::test]
async fn hosts_get_certificates_for_the_domains_of_their_role() {
    let role = json!({
        "allow_user_certificates": false, "allow_host_certificates": true,
        "allowed_domains": "Example.com,corp", "allow_subdomains": true,
        "default_extensions": { "permit-pty": "" },
    });
    let world = World::with(role.clone()).await;
    let host = |names: &str| json!({ "cert_type": "host", "valid_principals": names });
    let made = world.sign(host("DB.example.com,a.b.corp")).await.unwrap();
    assert_eq!((made.kind, made.extensions.len()), (2, 0));
    assert_eq!(made.principals, ["db.example.com", "a.b.corp"]);
    for bad in [
        "example.com",
        "corp",
        "badexample.com",
        ".example.com",
        "a..example.com",
        "*.example.com",
        "example.com.evil",
        "a b.corp",
        "x@y.corp",
        "",
    ] {
        names_field(world.sign(host(bad)).await, "valid_principals");
    }
    names_field(world.sign(json!({})).await, "cert_type");
    let mut options = host("a.corp");
    options["critical_options"] = json!({ "force-command": "x" });
    names_field(world.sign(options).await, "critical_options");
    let mut bare = role;
    bare["allow_bare_domains"] = json!(true);
    bare["allow_subdomains"] = json!(false);
    world.role(bare).await.unwrap();
    assert!(world.sign(host("corp")).await.is_ok());
    names_field(world.sign(host("a.corp")).await, "valid_principals");
}

#[tokio::test]
async fn key_ids_and_keys_are_what_the_role_allows() {
    let mut world =
        World::with(json!({ "key_id_format": "{{role_name}}/{{token_display_name}}" })).await;
    world.caller.display_name = "a\nb,{{public_key_hash}}".to_owned();
    assert_eq!(world.sign(json!({})).await.unwrap().key_id, "r/a_b___public_key_hash__");
    names_field(world.sign(json!({ "key_id": "mine" })).await, "key_id");
    world
        .role(json!({ "allow_user_key_ids": true, "allowed_user_key_lengths": { "ec": [256] } }))
        .await
        .unwrap();
    names_field(world.sign(json!({})).await, "public_key");
    for (kind, allowed) in [
        (SshKeyType::Ecdsa(crate::crypto::ssh::SshCurve::P256), true),
        (SshKeyType::Ecdsa(crate::crypto::ssh::SshCurve::P384), false),
        (SshKeyType::Rsa2048, false),
    ] {
        let body = json!({ "public_key": public_key(kind), "key_id": "mine" });
        assert_eq!(world.tried(Update, "sign/r", body).await.is_ok(), allowed, "{kind:?}");
    }
    world.role(json!({ "allow_user_key_ids": true })).await.unwrap();
    assert_eq!(world.sign(json!({ "key_id": "mine" })).await.unwrap().key_id, "mine");
    for bad in ["a\nb", "a,b", "a\0"] {
        names_field(world.sign(json!({ "key_id": bad })).await, "key_id");
    }
    for bad in ["", "ssh-ed25519 AAAA", "ssh-dss AAAAB3NzaC1kc3M="] {
        names_field(world.sign(json!({ "public_key": bad })).await, "public_key");
    }
}

#[tokio::test]
async fn roles_that_make_no_sense_are_refused_by_name() {
    let world = World::empty();
    for (field, extra) in [
        ("key_type", json!({ "key_type": "dynamic" })),
        ("key_type", json!({ "key_type": "" })),
        ("allow_user_certificates", json!({ "allow_user_certificates": false })),
        ("allowed_users", json!({ "allowed_users_template": true, "allowed_users": "{{x}}" })),
        ("allowed_users", json!({ "allowed_users_template": true, "allowed_users": "{{" })),
        (
            "default_user",
            json!({ "default_user_template": true, "default_user": "{{identity.token}}" }),
        ),
        (
            "allowed_domains",
            json!({ "allowed_domains_template": true, "allowed_domains": "{{identity.x}}.a" }),
        ),
        (
            "default_extensions",
            json!({ "default_extensions_template": true, "default_extensions": { "a": "}}" } }),
        ),
        ("allow_empty_principals", json!({ "allow_empty_principals": true })),
        ("allowed_users", json!({ "allowed_users": ["a b"] })),
        ("allowed_users", json!({ "allowed_users": "app*" })),
        ("default_user", json!({ "default_user": "*" })),
        ("allowed_critical_options", json!({ "allowed_critical_options": "*" })),
        ("default_critical_options", json!({ "default_critical_options": { "a,b": "x" } })),
        ("default_extensions", json!({ "default_extensions": { "a": "x\ny" } })),
        ("key_id_format", json!({ "key_id_format": "{{token_id}}" })),
        ("key_id_format", json!({ "key_id_format": "a,b" })),
        ("algorithm_signer", json!({ "algorithm_signer": "ssh-rsa" })),
        ("ttl", json!({ "ttl": "2h" })),
        ("not_before_duration", json!({ "not_before_duration": "48h" })),
        ("allowed_user_key_lengths", json!({ "allowed_user_key_lengths": { "dsa": 1024 } })),
        ("allowed_user_key_lengths", json!({ "allowed_user_key_lengths": { "rsa": 1024 } })),
        ("allowed_user_key_lengths", json!({ "allowed_user_key_lengths": { "rsa": "x" } })),
        ("default_user", json!({ "key_type": "otp", "default_user": "" })),
        ("cidr_list", json!({ "key_type": "otp", "cidr_list": "10.0.0.0/40" })),
        ("port", json!({ "key_type": "otp", "port": 70000 })),
    ] {
        let error = world.role(extra.clone()).await.unwrap_err();
        let text = error.to_string();
        assert!(text.starts_with(&format!("field \"{field}\"")), "{extra}: {text}");
    }
    assert_eq!(world.tried(List, "roles/", json!({})).await.unwrap_err().status(), 404);
    world.role(json!({})).await.unwrap();
    let listed = json!({ "keys": ["r"], "key_info": { "r": { "key_type": "ca" } } });
    assert_eq!(world.ok(List, "roles/", json!({})).await, listed);
    world.ok(Delete, "roles/r", json!({})).await;
    assert_eq!(world.tried(Read, "roles/r", json!({})).await.unwrap_err().status(), 404);
    assert_eq!(world.sign(json!({})).await.err().unwrap().status(), 400);
}

#[tokio::test]
async fn the_signing_key_is_made_or_taken_over_once_and_never_told() {
    let world = World::empty();
    world.role(json!({})).await.unwrap();
    assert_eq!(world.sign(json!({})).await.err().unwrap().status(), 400);
    assert_eq!(world.tried(Read, "config/ca", json!({})).await.unwrap_err().status(), 400);
    assert_eq!(world.tried(Read, "public_key", json!({})).await.unwrap_err().status(), 404);

    let key = SshPrivateKey::generate(SshKeyType::Ed25519).unwrap();
    let line = key.public().to_line();
    let text = key.to_openssh().unwrap();
    let weak = SshPrivateKey::generate(SshKeyType::Rsa2048).unwrap().to_openssh().unwrap();
    let other = public_key(SshKeyType::Ed25519);
    for (field, body) in [
        ("private_key", json!({ "private_key": "nothing" })),
        ("private_key", json!({ "generate_signing_key": false })),
        ("private_key", json!({ "public_key": line })),
        ("private_key", json!({ "private_key": text.expose(), "generate_signing_key": true })),
        ("private_key", json!({ "private_key": weak.expose() })),
        ("public_key", json!({ "private_key": text.expose(), "public_key": other })),
        ("key_type", json!({ "key_type": "dsa" })),
        ("key_bits", json!({ "key_type": "rsa", "key_bits": 2048 })),
        ("key_bits", json!({ "key_type": "ec", "key_bits": 224 })),
        ("key_bits", json!({ "key_bits": 512 })),
    ] {
        let error = world.tried(Update, "config/ca", body).await.unwrap_err().to_string();
        assert!(error.starts_with(&format!("field \"{field}\"")), "{field}: {error}");
        assert!(!error.contains("BEGIN"));
    }
    let body = json!({ "private_key": text.expose(), "public_key": line });
    assert_eq!(world.ok(Update, "config/ca", body).await, Value::Null);
    assert_eq!(world.ok(Read, "config/ca", json!({})).await, json!({ "public_key": line }));
    assert!(world.sign(json!({})).await.is_ok());
    assert_eq!(world.tried(Update, "config/ca", json!({})).await.unwrap_err().status(), 400);
    world.ok(Delete, "config/ca", json!({})).await;
    let made = world.ok(Update, "config/ca", json!({ "key_type": "ecdsa-p384" })).await;
    assert!(made["public_key"].as_str().unwrap().starts_with("ecdsa-sha2-nistp384 "));
}

async fn with_otp_role() -> World {
    let world = World::empty();
    let role = json!({
        "key_type": "otp", "default_user": "app", "allowed_users": "deploy",
        "cidr_list": "10.1.0.0/16,::1", "exclude_cidr_list": "10.1.9.0/24",
    });
    world.ok(Update, "roles/otp", role).await;
    world
}

#[tokio::test]
async fn a_password_works_once_and_not_after_its_lease() {
    let world = with_otp_role().await;
    let wanted = json!({ "ip": "10.1.2.3" });
    let (_, made) = world.lease(wanted.clone()).await.unwrap();
    let password = made["key"].as_str().unwrap();
    assert_eq!(password.len(), 24);
    assert_eq!((&made["username"], &made["port"]), (&json!("app"), &json!(22)));
    let body = json!({ "otp": password });
    let good = json!({ "ip": "10.1.2.3", "role_name": "otp", "username": "app" });
    let other = ask(&world.engine, &world.mount, &world.caller, Update, "verify", body.clone());
    let both = futures_util::future::join(world.tried(Update, "verify", body.clone()), other).await;
    let (one, other) = (both.0, both.1.map(answered));
    assert!(one.is_ok() != other.is_ok(), "one of two is let in");
    assert_eq!(one.or(other).unwrap(), good);
    let used = world.tried(Update, "verify", body).await.unwrap_err();
    assert_eq!((used.status(), used.to_string().as_str()), (400, "OTP not found"));

    // Revoked, and over.
    let (data, made) = world.lease(wanted.clone()).await.unwrap();
    for _ in 0..2 {
        world.engine.revoke(&world.mount.ctx(), facts(&data)).await.unwrap();
    }
    let body = json!({ "otp": made["key"] });
    assert!(world.tried(Update, "verify", body).await.is_err());
    let (_, made) = world.lease(wanted).await.unwrap();
    world.mount.manual.advance(Duration::from_secs(LEASE_SECS));
    let body = json!({ "otp": made["key"] });
    assert!(world.tried(Update, "verify", body).await.is_err());

    // Nothing is left of any of them.
    for dir in ["otp/", "ids/"] {
        assert!(world.mount.view.list(dir).await.unwrap().is_empty(), "{dir}");
    }
    // Nor does the record of a live one tell it.
    let (data, made) = world.lease(json!({ "ip": "::1" })).await.unwrap();
    assert!(!data.to_string().contains(made["key"].as_str().unwrap()));
    let [name] = &world.mount.view.list("otp/").await.unwrap()[..] else { panic!("not one") };
    let record = world.mount.view.get_record(&format!("otp/{name}")).await.unwrap().unwrap();
    let stored = format!("{name} {}", String::from_utf8_lossy(record.body.expose()));
    assert!(!stored.contains(made["key"].as_str().unwrap()));
}

#[tokio::test]
async fn passwords_are_for_the_users_and_machines_of_their_role() {
    let world = with_otp_role().await;
    for good in [
        json!({ "ip": "10.1.2.3", "username": "deploy" }),
        json!({ "ip": "::ffff:10.1.2.3", "username": "" }),
        json!({ "ip": "::1" }),
    ] {
        world.lease(good).await.unwrap();
    }
    for (field, bad) in [
        ("ip", json!({})),
        ("ip", json!({ "ip": "host.example" })),
        ("ip", json!({ "ip": "10.2.0.1" })),
        ("ip", json!({ "ip": "10.1.9.1" })),
        ("ip", json!({ "ip": "::ffff:10.1.9.1" })),
        ("username", json!({ "ip": "10.1.2.3", "username": "root" })),
    ] {
        let error = world.lease(bad).await.unwrap_err().to_string();
        assert!(error.starts_with(&format!("field \"{field}\"")), "{error}");
    }
    let at = |ip: &str| json!({ "ip": ip });
    assert_eq!(world.ok(Update, "lookup", at("10.1.2.3")).await, json!({ "roles": ["otp"] }));
    assert_eq!(world.ok(Update, "lookup", at("10.2.2.3")).await, json!({ "roles": [] }));

    // For any machine, if so named, but never for those excluded.
    assert_eq!(world.tried(Read, "config/zeroaddress", json!({})).await.unwrap_err().status(), 404);
    let roles = |names: &str| json!({ "roles": names });
    assert!(world.tried(Update, "config/zeroaddress", roles("otp,none")).await.is_err());
    // The name of the directory that roles are kept in is not that of a role.
    let error = world.tried(Update, "config/zeroaddress", json!({ "roles": [""] })).await;
    assert_eq!(error.unwrap_err().status(), 400);
    world.ok(Update, "config/zeroaddress", roles("otp")).await;
    let read = world.ok(Read, "config/zeroaddress", json!({})).await;
    assert_eq!(read, json!({ "roles": ["otp"] }));
    world.lease(at("10.2.2.3")).await.unwrap();
    assert!(world.lease(at("10.1.9.1")).await.is_err());
    assert_eq!(world.ok(Update, "lookup", at("10.2.2.3")).await, json!({ "roles": ["otp"] }));
    // A role made anew under the name is not.
    world.ok(Delete, "roles/otp", json!({})).await;
    assert_eq!(world.tried(Read, "config/zeroaddress", json!({})).await.unwrap_err().status(), 404);

    let echo = world.ok(Update, "verify", json!({ "otp": "verify-echo-request" })).await;
    assert_eq!(echo, json!({ "message": "verify-echo-response" }));
}
