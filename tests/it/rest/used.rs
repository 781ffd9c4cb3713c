//! A broker of which everything was used that stores something, and what is known of it: each text
//! begins with a word that nothing else would say, as far as it is ours to choose.

use data_encoding::BASE64;
use leasehold::core::records::kinds;
use serde_json::{Value, json};

use crate::support::broker::{Broker, Caller, DOMAIN, Setup};
use crate::support::needles::Needles;
use crate::support::opened::Opened;
use crate::support::pki::{Ca, NOT_AFTER_SECS, Spec};
use crate::support::postgres::TestPostgres;

/// Below which one secret is.
pub(super) const DIRECTORY: &str = "canary-two/data/canary-directory";
/// An address of the loopback network by which nothing else is reached.
const HOST: &str = "127.83.191.47";
const DATABASE: &str = "canary_database_name";
const DATABASE_ROOT: &str = "canary_database_root";
const FIRST_ROOT_PASSWORD: &str = "canary-first-root-password";
const STATIC_USER: &str = "canary_static_user";
const CREATE: &str = "CREATE ROLE \"{{name}}\" WITH LOGIN PASSWORD '{{password}}' \
     VALID UNTIL '{{expiration}}'; GRANT SELECT ON TABLE canary_stock TO \"{{name}}\"";
const POLICY: &str = r#"
    # canary-policy-comment
    path "canary-two/*" { capabilities = ["read", "create", "update"] }
    path "canary-database/creds/*" { capabilities = ["read"] }
    path "canary-ruled-path/*" { capabilities = ["deny"] }
"#;

/// Texts, by where they may not be.
pub(super) struct Known {
    /// All of them: not in the store.
    pub(super) all: Needles,
    /// What is in requests and answers: not in the logs and the audit either.
    pub(super) contents: Needles,
    /// Keys, tokens, passwords and values: nowhere.
    pub(super) secrets: Needles,
}

impl Known {
    /// Paths, names and addresses.
    fn name(&mut self, text: &str) {
        self.all.add(text, text.as_bytes());
    }

    fn names(&mut self, texts: &[&str]) {
        texts.iter().for_each(|text| self.name(text));
    }

    fn contents(&mut self, texts: &[&str]) {
        for text in texts {
            self.all.add(text, text.as_bytes());
            self.contents.add(text, text.as_bytes());
        }
    }

    fn secret(&mut self, what: &str, text: &[u8]) {
        for needles in [&mut self.all, &mut self.contents, &mut self.secrets] {
            needles.add(what, text);
        }
    }

    fn secrets(&mut self, texts: &[&str]) {
        texts.iter().for_each(|text| self.secret(text, text.as_bytes()));
    }

    /// The token of an answer, and what names it.
    fn token(&mut self, what: &str, auth: &Value) -> String {
        let token = text(auth, "client_token");
        self.secret(what, token.as_bytes());
        self.name(&text(auth, "accessor"));
        token
    }
}

fn text(data: &Value, field: &str) -> String {
    data[field].as_str().unwrap_or_else(|| panic!("no {field} in {data}")).to_owned()
}

/// A broker after real use.
pub(super) struct Used {
    pub(super) broker: Broker,
    pub(super) target: TestPostgres,
    pub(super) known: Known,
    /// In clear in every store.
    pub(super) cluster_id: String,
    root: Caller,
}

impl Used {
    pub(super) async fn start(setup: Setup) -> Self {
        let target = tokio::task::spawn_blocking(target).await.unwrap();
        let broker = Broker::ready(setup).await;
        let root = broker.root();
        let status = broker.nobody().read("sys/seal-status").await.ok();
        let known =
            Known { all: Needles::new(), contents: Needles::new(), secrets: Needles::new() };
        let cluster_id = text(&status, "cluster_id");
        let mut used = Self { broker, target, known, cluster_id, root };
        used.keep_secrets().await;
        used.make_tokens().await;
        used.know_people().await;
        used.lease_credentials().await;
        used.use_keys().await;
        used.wrap().await;
        used.open().await;
        used
    }

    async fn ok(&self, path: &str, body: Value) -> Value {
        self.root.write(path, body).await.ok()
    }

    async fn keep_secrets(&mut self) {
        let mount = json!({
            "type": "kv", "options": { "version": "2" }, "description": "canary-description",
            "config": { "audit_non_hmac_request_keys": ["canary-tuned-key"] },
        });
        self.ok("sys/mounts/canary-two", mount).await;
        let tuned = json!({ "description": "canary-tuned-description", "max_lease_ttl": "9h" });
        self.ok("sys/mounts/canary-two/tune", tuned).await;
        self.ok("sys/mounts/canary-one", json!({ "type": "kv" })).await;
        let path = format!("{DIRECTORY}/canary-path");
        for value in ["canary-first-value", "canary-second-value", "canary-third-value"] {
            let data = json!({ "canary-key": value, "more": { "deep": ["canary-deep-value"] } });
            self.ok(&path, json!({ "data": data })).await;
        }
        self.root.delete(&path).await.ok();
        let destroyed = path.replace("/data/", "/destroy/");
        self.ok(&destroyed, json!({ "versions": [1] })).await;
        let metadata = json!({ "custom_metadata": { "canary-note": "canary-note-text" } });
        self.ok(&path.replace("/data/", "/metadata/"), metadata).await;
        // More than one page of any store.
        let large = "canary-large-value ".repeat(3000);
        self.ok("canary-two/data/canary-large", json!({ "data": { "large": large } })).await;
        for number in 0..8 {
            let path = format!("canary-one/canary-plain-path-{number}");
            self.ok(&path, json!({ "canary-plain-key": "canary-plain-value" })).await;
        }
        let note = json!({ "canary-cubby-key": "canary-cubby-value" });
        self.ok("cubbyhole/canary-cubby-path", note).await;
        let known = &mut self.known;
        known.names(&["canary-two", "canary-one", "canary-directory", "canary-path"]);
        known.names(&["canary-large", "canary-plain-path", "canary-cubby-path", "canary-key"]);
        known.names(&["canary-plain-key", "canary-cubby-key", "canary-note", "canary-tuned-key"]);
        known.contents(&["canary-description", "canary-tuned-description", "canary-note-text"]);
        known.secrets(&["canary-first-value", "canary-second-value", "canary-third-value"]);
        known.secrets(&["canary-deep-value", "canary-large-value", "canary-plain-value"]);
        known.secrets(&["canary-cubby-value"]);
    }

    async fn make_tokens(&mut self) {
        self.ok("sys/policies/acl/canary-policy", json!({ "policy": POLICY })).await;
        let asked = json!({
            "policies": ["canary-policy"], "display_name": "canary-token-display", "ttl": "2h",
            "meta": { "canary-meta-key": "canary-meta-value" },
        });
        let made = self.ok("auth/token/create", asked.clone()).await;
        let token = self.known.token("service token", &made["auth"]);
        let own = self.broker.admin().with_token(&token);
        own.read("auth/token/lookup-self").await.ok();
        own.write("canary-two/data/canary-large", json!({ "data": {} })).await.ok();
        let mut batch = asked;
        batch["type"] = json!("batch");
        let made = self.ok("auth/token/create", batch).await;
        let token = text(&made["auth"], "client_token");
        self.known.secret("batch token", token.as_bytes());
        let own = self.broker.admin().with_token(&token);
        own.read("auth/token/lookup-self").await.ok();
        let role = json!({ "allowed_policies": "canary-policy", "path_suffix": "canary-suffix" });
        self.ok("auth/token/roles/canary-token-role", role).await;
        let made = self.ok("auth/token/create/canary-token-role", json!({})).await;
        let token = self.known.token("token of a role", &made["auth"]);
        self.ok("auth/token/lookup", json!({ "token": token })).await;
        let made = self.ok("auth/token/create", json!({ "ttl": "1h" })).await;
        let token = self.known.token("revoked token", &made["auth"]);
        self.ok("auth/token/revoke", json!({ "token": token })).await;
        let known = &mut self.known;
        known.names(&["canary-policy", "canary-token-display", "canary-token-role"]);
        known.names(&["canary-meta-key", "canary-suffix"]);
        known.contents(&["canary-policy-comment", "canary-ruled-path", "canary-meta-value"]);
    }

    async fn know_people(&mut self) {
        let method = json!({ "type": "cert", "description": "canary-method-description" });
        self.ok("sys/auth/canary-cert", method).await;
        let spiffe = format!("spiffe://{DOMAIN}/canary-workload");
        let role = json!({
            "allowed_uri_sans": [spiffe], "token_policies": ["canary-policy"],
            "display_name": "canary-cert-display",
        });
        self.ok("auth/canary-cert/certs/canary-spiffe-role", role).await;
        let ca = Ca::root("canary authority");
        let role = json!({
            "certificate": ca.pem(), "token_policies": ["canary-policy"],
            "allowed_common_names": ["canary-common-name"],
            "allowed_organizational_units": ["canary-unit"],
            "allowed_dns_sans": ["canary.dns.example"],
        });
        self.ok("auth/canary-cert/certs/canary-own-role", role).await;
        let serial = b"canary serial";
        let crl = BASE64.encode(&ca.crl(&[serial], NOT_AFTER_SECS));
        let list = format!("-----BEGIN X509 CRL-----\n{crl}\n-----END X509 CRL-----\n");
        self.ok("auth/canary-cert/crls/canary-list", json!({ "crl": list })).await;

        let workload = self.broker.caller(&self.broker.svid("canary-workload"));
        workload.read("canary-two/data/canary-large").await.ok();
        let spec = Spec::leaf().cn("canary-common-name").ou("canary-unit");
        let person = self.broker.caller(&ca.issue(&spec.dns("canary.dns.example")));
        for caller in [&workload, &person] {
            let made = caller.write("auth/canary-cert/login", json!({})).await.ok();
            self.known.token("token of a log-in", &made["auth"]);
            let id = text(&made["auth"], "entity_id");
            let entity = format!("identity/entity/id/{id}");
            let known = self.root.read(&entity).await.data();
            self.known.names(&[&id, &text(&known, "name")]);
            let note = json!({ "metadata": { "canary-entity-key": "canary-entity-note" } });
            self.ok(&entity, note).await;
        }
        let methods = self.root.read("sys/auth").await.data();
        let accessor = text(&methods["canary-cert/"], "accessor");
        let alias = json!({ "name": "canary-alias", "mount_accessor": accessor });
        self.ok("identity/entity-alias", alias).await;

        let known = &mut self.known;
        let (pem, list) = (ca.pem(), crl.as_bytes());
        known.all.add("authority in PEM", pem.lines().nth(2).unwrap().as_bytes());
        known.all.add("authority", &ca.der[ca.der.len() / 2..][..32]);
        known.all.add("list in PEM", &list[list.len() / 2..][..32]);
        known.names(&["canary serial", "canary authority", "canary-list", &spiffe, &accessor]);
        known.names(&["canary-workload", "canary-common-name", "canary-unit", "canary-alias"]);
        known.names(&["canary.dns.example", "canary-spiffe-role", "canary-own-role"]);
        known.names(&["canary-cert-display", "canary-entity-key", "canary-cert/"]);
        known.contents(&["canary-method-description", "canary-entity-note"]);
    }

    async fn lease_credentials(&mut self) {
        self.ok("sys/mounts/canary-database", json!({ "type": "database" })).await;
        let address = format!("{HOST}:{}/{DATABASE}?sslmode=disable", self.target.port());
        let config = json!({
            "plugin_name": "postgresql-database-plugin",
            "connection_url": format!("postgresql://{{{{username}}}}:{{{{password}}}}@{address}"),
            "username": DATABASE_ROOT, "password": FIRST_ROOT_PASSWORD,
            "allowed_roles": ["canary-reader", "canary-static"],
        });
        self.ok("canary-database/config/canary-target", config.clone()).await;
        let role = json!({
            "db_name": "canary-target", "creation_statements": CREATE, "default_ttl": "1h",
            "verify": true,
        });
        self.ok("canary-database/roles/canary-reader", role).await;
        let role = json!({
            "db_name": "canary-target", "username": STATIC_USER, "rotation_period": "24h",
        });
        self.ok("canary-database/static-roles/canary-static", role).await;
        self.keep_static_password("first static password").await;
        self.ok("canary-database/rotate-role/canary-static", json!({})).await;
        let password = self.keep_static_password("second static password").await;
        assert!(self.target.can_log_in(STATIC_USER, &password, DATABASE));

        let workload = self.broker.caller(&self.broker.svid("canary-workload"));
        let repeated = [("idempotency-key", "canary-idempotency-key")];
        self.lease(&workload, &repeated, "first leased password").await;
        self.ok("canary-database/rotate-root/canary-target", json!({})).await;
        assert!(!self.target.can_log_in(DATABASE_ROOT, FIRST_ROOT_PASSWORD, DATABASE));
        let root = self.broker.root();
        let revoked = self.lease(&root, &[], "second leased password").await;
        self.ok("sys/leases/revoke", json!({ "lease_id": revoked })).await;
        let renewed = self.lease(&root, &[], "third leased password").await;
        self.ok("sys/leases/renew", json!({ "lease_id": renewed })).await;

        self.fail_to_lease(config).await;

        let known = &mut self.known;
        known.names(&["canary-database/", "canary-target", "canary-reader", "canary-static"]);
        known.names(&[HOST, DATABASE, DATABASE_ROOT, STATIC_USER, "canary-idempotency-key"]);
        known.contents(&["canary_stock", "WITH LOGIN PASSWORD '{{password}}'"]);
        known.secrets(&[FIRST_ROOT_PASSWORD]);
    }

    /// Keys that encrypt and sign for others.
    async fn use_keys(&mut self) {
        self.ok("sys/mounts/canary-transit", json!({ "type": "transit" })).await;
        let message = BASE64.encode(b"canary-transit-plaintext");
        for (name, kind, part) in [
            ("canary-cipher-key", "aes256-gcm96", "encryption-key"),
            ("canary-signing-key", "ed25519", "signing-key"),
        ] {
            let key = json!({ "type": kind, "exportable": true });
            self.ok(&format!("canary-transit/keys/{name}"), key).await;
            for part in [part, "hmac-key"] {
                let exported = format!("canary-transit/export/{part}/{name}");
                let exported = self.root.read(&exported).await.data();
                let key = BASE64.decode(text(&exported["keys"], "1").as_bytes()).unwrap();
                self.known.secret(&format!("{part} of {name}"), &key[..32]);
            }
            self.known.name(name);
        }
        let body = json!({ "plaintext": message });
        let sealed = self.ok("canary-transit/encrypt/canary-cipher-key", body).await;
        let body = json!({ "ciphertext": sealed["data"]["ciphertext"] });
        self.ok("canary-transit/decrypt/canary-cipher-key", body).await;
        self.ok("canary-transit/sign/canary-signing-key", json!({ "input": message })).await;
        self.known.name("canary-transit/");
        self.known.secrets(&["canary-transit-plaintext"]);
    }

    /// What goes wrong is what gets logged.
    async fn fail_to_lease(&mut self, mut config: Value) {
        config["password"] = json!("canary-wrong-password");
        let refused = self.root.write("canary-database/config/canary-locked", config).await;
        assert!(refused.status >= 400, "{}", refused.body);
        let broken = format!("{CREATE}; GRANT SELECT ON TABLE canary_nowhere TO \"{{{{name}}}}\"");
        let role = json!({ "db_name": "canary-target", "creation_statements": broken });
        self.ok("canary-database/roles/canary-reader", role).await;
        let refused = self.root.read("canary-database/creds/canary-reader").await;
        assert!(refused.status >= 400, "{}", refused.body);
        let stranger = self.broker.admin().with_token("hvs.canary-forged-token");
        stranger.read("canary-database/creds/canary-reader").await.error(403);
        self.known.secrets(&["canary-wrong-password", "hvs.canary-forged-token"]);
        // The audit tells what the target said, and that names tables.
        self.known.name("canary_nowhere");
    }

    async fn keep_static_password(&mut self, what: &str) -> String {
        let shown = self.root.read("canary-database/static-creds/canary-static").await.data();
        let password = text(&shown, "password");
        self.known.secret(what, password.as_bytes());
        password
    }

    /// Leases a user that works; answers the lease's id.
    async fn lease(&mut self, by: &Caller, headers: &[(&str, &str)], what: &str) -> String {
        let path = "canary-database/creds/canary-reader";
        let leased = by.request("GET", path, headers, b"").await.ok();
        let (user, password) =
            (text(&leased["data"], "username"), text(&leased["data"], "password"));
        assert!(self.target.can_log_in(&user, &password, DATABASE));
        let id = text(&leased, "lease_id");
        self.known.secret(what, password.as_bytes());
        self.known.names(&[&user, &id, id.rsplit('/').next().unwrap()]);
        id
    }

    async fn wrap(&mut self) {
        let body = json!({ "canary-wrapped-key": "canary-wrapped-value" }).to_string();
        let ttl = [("x-vault-wrap-ttl", "10m")];
        for (method, path) in [
            ("POST", "sys/wrapping/wrap"),
            ("POST", "sys/wrapping/wrap"),
            ("GET", "canary-one/canary-plain-path-1"),
        ] {
            let info = self.root.request(method, path, &ttl, body.as_bytes()).await.ok();
            let info = &info["wrap_info"];
            self.known.secret("wrapping token", text(info, "token").as_bytes());
            self.known.name(&text(info, "accessor"));
        }
        self.known.name("canary-wrapped-key");
        self.known.secrets(&["canary-wrapped-value"]);
    }

    /// What only the shares lead to. That they do shows that what is searched for is in the store.
    async fn open(&mut self) {
        let opened = Opened::of(&self.broker).await;
        let mounts = self.root.read("sys/mounts").await.data();
        let uuid = text(&mounts["canary-database/"], "uuid");
        let base = format!("{uuid}/");
        let config = opened.record(kinds::MOUNT_DATA, &base, "config/canary-target").await;
        let password = text(&config, "password");
        assert!(self.target.can_log_in(DATABASE_ROOT, &password, DATABASE), "it was rotated");
        let known = &mut self.known;
        known.secret("second root password", password.as_bytes());
        known.name(&uuid);
        for (key, share) in self.broker.keys().iter().zip(&opened.shares) {
            known.secret("share as it was told", key.as_bytes());
            known.secret("share", &share.expose()[..32]);
        }
        known.secret("unseal key", opened.unseal_key.expose());
        known.secret("root key", opened.root.expose());
        known.secret("root token", self.broker.root_token().as_bytes());
    }
}

/// A database server that logs all that it is told, with somebody who may make users.
fn target() -> TestPostgres {
    let addresses = format!("listen_addresses = '127.0.0.1, {HOST}'\n");
    let target = TestPostgres::start_with_settings(&addresses);
    target.sql("postgres", &format!("CREATE DATABASE {DATABASE}"));
    for sql in [
        "CREATE TABLE canary_stock (x int)",
        &format!("CREATE ROLE {DATABASE_ROOT} SUPERUSER LOGIN PASSWORD '{FIRST_ROOT_PASSWORD}'"),
        &format!("CREATE ROLE {STATIC_USER} LOGIN PASSWORD 'not the broker''s doing'"),
        "ALTER SYSTEM SET log_statement = 'all'",
        "SELECT pg_reload_conf()",
    ] {
        target.sql(DATABASE, sql);
    }
    target
}
