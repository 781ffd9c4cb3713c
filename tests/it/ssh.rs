//! Certificates and one-time passwords of the engine `ssh`, from a live broker, with OpenSSH as the
//! judge.

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::support::broker::{Broker, Caller, Setup};
use crate::support::sshd::{HOST, Login, TestSshd, USER};
use crate::support::wire::soon;

/// How a role of certificates is set up here, beside what a test is about.
fn role(extra: Value) -> Value {
    let mut role = json!({
        "key_type": "ca", "allow_user_certificates": true, "allowed_users": [USER, "app"],
        "default_user": USER, "ttl": "10m",
    });
    role.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    role
}

/// A broker with signing keys for users and for hosts, and a server that trusts the first and shows a
/// certificate of the second.
struct World {
    broker: Broker,
    root: Caller,
    sshd: TestSshd,
    users: String,
    hosts: String,
    key: PathBuf,
    public_key: String,
}

impl World {
    async fn new() -> Self {
        let broker = Broker::ready(Setup::default()).await;
        let root = broker.root();
        let mut sshd = TestSshd::new();
        let users = authority(&root, "users", json!({})).await;
        let hosts = authority(&root, "hosts", json!({})).await;
        root.write(
            "hosts/roles/host",
            json!({
                "key_type": "ca", "allow_host_certificates": true, "allow_subdomains": true,
                "allowed_domains": "test.example", "ttl": "1h",
            }),
        )
        .await
        .ok();
        let certificate = host_certificate(&root, &sshd, HOST).await;
        sshd.start(&certificate, std::slice::from_ref(&users));
        let public_key = sshd.make_key("user_key", &["-t", "ed25519"]);
        let key = sshd.path("user_key");
        Self { broker, root, sshd, users, hosts, key, public_key }
    }

    /// A certificate for the user's key by a role like this.
    async fn sign(&self, extra: Value, request: Value) -> String {
        self.root.write("users/roles/r", role(extra)).await.ok();
        let mut body = json!({ "public_key": self.public_key });
        body.as_object_mut().unwrap().extend(request.as_object().unwrap().clone());
        text(&self.root.write("users/sign/r", body).await.data()["signed_key"])
    }

    fn log_in(&self, certificate: &str, arguments: &[&str]) -> Login {
        self.sshd.log_in(&self.key, certificate, &self.hosts, arguments)
    }

    #[track_caller]
    fn is_let_in(&self, certificate: &str) {
        let login = self.log_in(certificate, &["echo", "inside"]);
        let log = || self.sshd.log();
        assert!(login.succeeded, "{}\n{}", login.messages, log());
        assert_eq!(login.output, "inside");
    }

    #[track_caller]
    fn is_refused(&self, certificate: &str, why: &str) {
        let login = self.log_in(certificate, &["echo", "inside"]);
        assert!(!login.succeeded && login.output.is_empty(), "let in");
        assert!(login.messages.contains("Permission denied"), "{}", login.messages);
        assert!(self.sshd.log().contains(why), "{why} is not in\n{}", self.sshd.log());
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}")).to_owned()
}

/// Mounts the engine and gives it a signing key; answers the public half, as anybody may read it.
async fn authority(root: &Caller, mount: &str, config: Value) -> String {
    root.write(&format!("sys/mounts/{mount}"), json!({ "type": "ssh" })).await.ok();
    root.write(&format!("{mount}/config/ca"), config).await.ok();
    let public = root.read(&format!("{mount}/public_key")).await;
    assert_eq!(public.header("content-type"), Some("text/plain; charset=utf-8"));
    assert_eq!(
        root.read(&format!("{mount}/config/ca")).await.data()["public_key"],
        public.body.trim()
    );
    public.body.trim().to_owned()
}

async fn host_certificate(root: &Caller, sshd: &TestSshd, name: &str) -> String {
    let body = json!({
        "public_key": sshd.host_key(), "cert_type": "host", "valid_principals": name,
    });
    text(&root.write("hosts/sign/host", body).await.data()["signed_key"])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sshd_lets_in_whom_a_certificate_names_and_nobody_else() {
    let world = World::new().await;
    let certificate = world.sign(json!({}), json!({})).await;
    world.is_let_in(&certificate);
    let shown = world.sshd.shown(&certificate);
    let accepted = "Accepted publickey for root";
    let log = world.sshd.log();
    assert!(log.contains(accepted) && log.contains("ID leasehold-root-"), "{log}");
    for part in ["user certificate", "Critical Options: (none)", "Extensions: (none)"] {
        assert!(shown.contains(part), "{shown}");
    }

    let other_user = world.sign(json!({}), json!({ "valid_principals": "app" })).await;
    world.is_refused(&other_user, "name is not a listed principal");

    // Signed by an authority that the server does not know.
    let other = authority(&world.root, "others", json!({})).await;
    world.root.write("others/roles/r", role(json!({}))).await.ok();
    let body = json!({ "public_key": world.public_key });
    let foreign = world.root.write("others/sign/r", body).await.data();
    let foreign = text(&foreign["signed_key"]);
    let failed = format!("CA ED25519 {}", world.sshd.fingerprint(&other));
    world.is_refused(&foreign, &failed);
    assert_eq!(world.sshd.log().matches(accepted).count(), 1);

    // Of a host, not of a user.
    world
        .root
        .write(
            "users/roles/r",
            role(json!({
                "allow_user_certificates": false, "allow_host_certificates": true,
                "allowed_domains": USER, "allow_bare_domains": true,
            })),
        )
        .await
        .ok();
    let body = json!({
        "public_key": world.public_key, "cert_type": "host", "valid_principals": USER,
    });
    let host = text(&world.root.write("users/sign/r", body).await.data()["signed_key"]);
    assert!(world.sshd.shown(&host).contains("host certificate"));
    assert!(!world.log_in(&host, &["echo", "inside"]).succeeded, "let in");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sshd_heeds_options_extensions_and_the_end() {
    let world = World::new().await;
    let forced = json!({ "default_critical_options": { "force-command": "echo forced" } });
    let certificate = world.sign(forced, json!({})).await;
    let login = world.log_in(&certificate, &["echo", "inside"]);
    assert_eq!((login.succeeded, login.output.as_str()), (true, "forced"), "{}", login.messages);

    let sources = json!({ "allowed_critical_options": "source-address" });
    let from = |cidr: &str| json!({ "critical_options": { "source-address": cidr } });
    let here = world.sign(sources.clone(), from("127.0.0.0/8")).await;
    world.is_let_in(&here);
    let elsewhere = world.sign(sources, from("10.0.0.0/8")).await;
    world.is_refused(&elsewhere, "not from a permitted source address");

    let without = world.sign(json!({}), json!({})).await;
    let login = world.log_in(&without, &["-tt", "echo", "inside"]);
    assert!(login.messages.contains("PTY allocation request failed"), "{}", login.messages);
    let pty = json!({ "default_extensions": { "permit-pty": "" } });
    let with = world.sign(pty, json!({})).await;
    let login = world.log_in(&with, &["-tt", "echo", "inside"]);
    assert!(login.succeeded && !login.messages.contains("PTY allocation"), "{}", login.messages);

    // It ends by itself. sshd reads the clock in whole seconds.
    let short = world.sign(json!({}), json!({ "ttl": "12s" })).await;
    world.is_let_in(&short);
    soon(async {
        while world.log_in(&short, &["echo", "inside"]).succeeded {
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        }
    })
    .await;
    world.is_refused(&short, "Certificate invalid: expired");

    // With whoever asked for it, too: the rest of a token's life, not the role's ten minutes.
    let policy = r#"path "users/sign/r" { capabilities = ["update"] }"#;
    world.root.write("sys/policies/acl/signer", json!({ "policy": policy })).await.ok();
    let body = json!({ "policies": ["signer"], "ttl": "5m", "display_name": "ann" });
    let token = world.root.write("auth/token/create", body).await.ok();
    let caller = world.broker.admin().with_token(&text(&token["auth"]["client_token"]));
    let body = json!({ "public_key": world.public_key, "ttl": "9m" });
    let answer = caller.write("users/sign/r", body).await.ok();
    let warning = text(&answer["warnings"][0]);
    assert!(warning.contains("the end of the caller's own token"), "{warning}");
    let shown = world.sshd.shown(&text(&answer["data"]["signed_key"]));
    assert!(shown.contains("Key ID: \"leasehold-token-ann-"), "{shown}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sshd_refuses_what_is_revoked() {
    let world = World::new().await;
    // As a host asks for it: without a token, and without a certificate.
    let host = world.broker.nobody();
    let fetched = || async {
        let list = host.read("users/krl").await;
        assert_eq!(
            (list.status, list.header("content-type")),
            (200, Some("application/octet-stream"))
        );
        world.sshd.revoke(&list.bytes);
    };
    let serial = |certificate: &str| {
        let shown = world.sshd.shown(certificate);
        let line = shown.lines().find_map(|line| line.trim().strip_prefix("Serial: "));
        line.unwrap().to_owned()
    };
    fetched().await;
    let named = json!({ "allow_user_key_ids": true });
    let first = world.sign(named.clone(), json!({})).await;
    let second = world.sign(named.clone(), json!({ "key_id": "lost laptop" })).await;
    let third = world.sign(named.clone(), json!({ "key_id": "new laptop" })).await;
    let all = [first.as_str(), &second, &third];
    for certificate in all {
        world.is_let_in(certificate);
    }
    assert_eq!(world.sshd.revoked(&all).0, [false; 3]);

    // By the number in the server's log, which is a decimal one.
    world.root.write("users/revoke", json!({ "serial": serial(&first) })).await.ok();
    world.root.write("users/revoke", json!({ "key_id": "lost laptop" })).await.ok();
    fetched().await;
    let (found, listed) = world.sshd.revoked(&all);
    assert_eq!(found, [true, true, false], "{listed}");
    for part in [
        "KRL version 2",
        &format!("serial: {}", serial(&first)),
        "id: lost laptop",
        &format!("CA key ssh-ed25519 {}", world.sshd.fingerprint(&world.users)),
    ] {
        assert!(listed.contains(part), "{part} is not in\n{listed}");
    }
    world.is_refused(&first, "revoked by file");
    world.is_refused(&second, "revoked by file");
    world.is_let_in(&third);

    world.root.write("users/unrevoke", json!({ "serial": serial(&first) })).await.ok();
    fetched().await;
    world.is_let_in(&first);
    let body = json!({ "public_key": world.public_key, "key_id": "lost laptop" });
    let refused = world.root.write("users/sign/r", body).await.error(400);
    assert!(refused.contains("revoked"), "{refused}");
    // Who may fetch the list may not change it.
    assert_eq!(host.write("users/revoke", json!({ "serial": "7" })).await.status, 403);
    assert_eq!(host.read("users/revoked").await.status, 403);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_name_of_an_identity_decides_who_one_logs_in_as() {
    let world = World::new().await;
    let policy = r#"path "users/sign/r" { capabilities = ["update"] }"#;
    world.root.write("sys/policies/acl/signer", json!({ "policy": policy })).await.ok();
    world.root.write("sys/auth/people", json!({ "type": "userpass" })).await.ok();
    let methods = world.root.read("sys/auth").await.data();
    let accessor = text(&methods["people/"]["accessor"]);
    let template = format!("{{{{identity.entity.aliases.{accessor}.name}}}}");
    let templated = json!({
        "allowed_users": [template.clone()], "allowed_users_template": true,
        "default_user": template, "default_user_template": true,
    });
    world.root.write("users/roles/r", role(templated)).await.ok();
    let mut certificates = Vec::new();
    for name in [USER, "ann"] {
        let password = "correct horse battery";
        let body = json!({ "password": password, "token_policies": "signer" });
        world.root.write(&format!("auth/people/users/{name}"), body).await.ok();
        let at = format!("auth/people/login/{name}");
        let token = world.broker.admin().write(&at, json!({ "password": password })).await.ok();
        let caller = world.broker.admin().with_token(&text(&token["auth"]["client_token"]));
        let body = json!({ "public_key": world.public_key });
        certificates.push(text(&caller.write("users/sign/r", body).await.data()["signed_key"]));
        let other = if name == USER { "ann" } else { USER };
        let body = json!({ "public_key": world.public_key, "valid_principals": other });
        let refused = caller.write("users/sign/r", body).await.error(400);
        assert!(refused.contains("valid_principals"), "{refused}");
    }
    world.is_let_in(&certificates[0]);
    world.is_refused(&certificates[1], "name is not a listed principal");
    // Without an identity there is nobody to be.
    let body = json!({ "public_key": world.public_key });
    assert_eq!(world.root.write("users/sign/r", body).await.status, 400);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ssh_knows_hosts_by_their_certificate_alone() {
    let world = World::new().await;
    let certificate = world.sign(json!({}), json!({})).await;
    world.is_let_in(&certificate);
    let unknown = world.sshd.log_in(&world.key, &certificate, &world.users, &["echo", "inside"]);
    assert!(!unknown.succeeded && unknown.messages.contains("Host key verification failed"));

    // A certificate of another host of the same domain.
    let mut other = TestSshd::new();
    let shown = host_certificate(&world.root, &other, "web.test.example").await;
    other.start(&shown, std::slice::from_ref(&world.users));
    let login = other.log_in(&world.key, &certificate, &world.hosts, &["echo", "inside"]);
    assert!(!login.succeeded, "let in");
    assert!(login.messages.contains("Certificate invalid"), "{}", login.messages);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn signing_keys_of_every_kind_and_origin_are_understood() {
    let broker = Broker::ready(Setup::default()).await;
    let root = broker.root();
    let mut sshd = TestSshd::new();
    let hosts = authority(&root, "hosts", json!({})).await;
    let host_role = json!({
        "key_type": "ca", "allow_host_certificates": true, "allow_subdomains": true,
        "allowed_domains": "test.example",
    });
    root.write("hosts/roles/host", host_role).await.ok();
    let host = host_certificate(&root, &sshd, HOST).await;
    let mut mounts = Vec::new();
    for (mount, kind) in [
        ("made-a", "ecdsa-p256"),
        ("made-b", "ecdsa-p384"),
        ("made-c", "ecdsa-p521"),
        ("made-d", "rsa-3072"),
    ] {
        mounts.push((mount, authority(&root, mount, json!({ "key_type": kind })).await));
    }
    // Keys that ssh-keygen made, in its own form and in PEM.
    for (mount, arguments) in [
        ("own-ed25519", &["-t", "ed25519"][..]),
        ("own-ecdsa", &["-t", "ecdsa", "-b", "521"]),
        ("own-rsa", &["-t", "rsa", "-b", "3072"]),
        ("pkcs8-ecdsa", &["-t", "ecdsa", "-b", "384", "-m", "PKCS8"]),
        ("pkcs8-rsa", &["-t", "rsa", "-b", "3072", "-m", "PKCS8"]),
        ("pem-rsa", &["-t", "rsa", "-b", "3072", "-m", "PEM"]),
        ("pem-ecdsa", &["-t", "ecdsa", "-b", "256", "-m", "PEM"]),
    ] {
        let public = sshd.make_key(mount, arguments);
        let private = fs::read_to_string(sshd.path(mount)).unwrap();
        let config = json!({ "private_key": private, "public_key": public });
        let told = authority(&root, mount, config).await;
        assert_eq!(told, public.split(' ').take(2).collect::<Vec<_>>().join(" "), "{mount}");
        mounts.push((mount, told));
    }
    // The server trusts all of them, so each login tells whether that one's signature is good.
    let authorities: Vec<String> = mounts.iter().map(|(_, public)| public.clone()).collect();
    sshd.start(&host, &authorities);
    for (mount, _) in &mounts {
        root.write(&format!("{mount}/roles/r"), role(json!({}))).await.ok();
        let made = root.write(&format!("{mount}/issue/r"), json!({})).await.data();
        sshd.write("issued", &text(&made["private_key"]));
        let certificate = text(&made["signed_key"]);
        let login = sshd.log_in(&sshd.path("issued"), &certificate, &hosts, &["echo", mount]);
        assert!(login.succeeded, "{mount}: {}\n{}", login.messages, sshd.log());
        assert_eq!(&login.output, mount);
    }
    // Keys of users, of every kind that is made here.
    for (kind, bits) in [("ed25519", 0), ("ec", 256), ("ec", 384), ("ec", 521), ("rsa", 2048)] {
        let body = json!({ "key_type": kind, "key_bits": bits });
        let made = root.write("made-a/issue/r", body).await.data();
        sshd.write("issued", &text(&made["private_key"]));
        let algorithm = sshd.public_half("issued").split(' ').next().unwrap().to_owned();
        assert_eq!(made["private_key_type"], algorithm);
        let certificate = text(&made["signed_key"]);
        let login = sshd.log_in(&sshd.path("issued"), &certificate, &hosts, &["echo", kind]);
        assert!(login.succeeded, "{kind} {bits}: {}\n{}", login.messages, sshd.log());
    }
}

#[tokio::test]
async fn a_one_time_password_lives_once_and_no_longer_than_its_lease() {
    let broker = Broker::ready(Setup::default()).await;
    let root = broker.root();
    root.write("sys/mounts/ssh", json!({ "type": "ssh" })).await.ok();
    let otp = json!({
        "key_type": "otp", "default_user": "app", "cidr_list": "10.0.0.0/8", "ttl": "5m",
    });
    root.write("ssh/roles/otp", otp).await.ok();
    let wanted = json!({ "ip": "10.1.2.3" });
    let answer = root.write("ssh/creds/otp", wanted.clone()).await;
    let made = answer.ok();
    assert_eq!((&made["lease_duration"], &made["renewable"]), (&json!(300), &json!(false)));
    let password = text(&made["data"]["key"]);

    // What a host's helper does: without a token, and without a certificate.
    let helper = broker.nobody();
    let verify = |otp: &str| json!({ "otp": otp });
    assert_eq!(helper.write("ssh/verify", verify("x")).await.error(400), "OTP not found");
    let good = helper.write("ssh/verify", verify(&password)).await;
    let expected = json!({ "ip": "10.1.2.3", "role_name": "otp", "username": "app" });
    assert_eq!(good.data(), expected);
    assert_eq!(helper.write("ssh/verify", verify(&password)).await.error(400), "OTP not found");

    let lease = text(&made["lease_id"]);
    let body = json!({ "lease_id": lease });
    assert_eq!(root.write("sys/leases/revoke", body).await.status, 204);
    let made = root.write("ssh/creds/otp", wanted).await.ok();
    let body = json!({ "lease_id": made["lease_id"] });
    assert_eq!(root.write("sys/leases/revoke", body).await.status, 204);
    let revoked = text(&made["data"]["key"]);
    assert_eq!(helper.write("ssh/verify", verify(&revoked)).await.error(400), "OTP not found");

    // Nothing else of the engine is open to those without a token.
    assert_eq!(helper.write("ssh/creds/otp", json!({ "ip": "10.1.2.3" })).await.status, 403);
    assert_eq!(helper.read("ssh/roles/otp").await.status, 403);
    // The audit has who verified, and no password.
    let entry = broker.audited(&good);
    assert_eq!(entry["path"], "ssh/verify", "{entry}");
    let audit = fs::read_to_string(broker.audit_path()).unwrap();
    assert!(!audit.contains(&password) && !audit.contains(&revoked));
}
