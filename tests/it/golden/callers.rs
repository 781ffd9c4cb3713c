//! Answers about those who call: tokens, identities, certificates.

use data_encoding::BASE64;
use leasehold::crypto::otp::{TotpParameters, decode_secret};
use leasehold::types::time::{Clock, SystemClock};
use serde_json::{Value, json};

use super::stage::Stage;
use crate::support::broker::DOMAIN;
use crate::support::pki::{Ca, NOT_AFTER_SECS, Spec};

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}")).to_owned()
}

#[tokio::test]
async fn tokens_answer_as_recorded() {
    let mut stage = Stage::open("tokens").await;
    let asked = json!({
        "policies": ["default"], "ttl": "1h", "display_name": "job", "meta": { "team": "a" },
        "num_uses": 9, "explicit_max_ttl": "2h",
    });
    let made = stage.post("auth/token/create", asked).await;
    let (token, accessor) = (text(&made["auth"]["client_token"]), text(&made["auth"]["accessor"]));
    stage.post("auth/token/create", json!({ "policies": ["none", "default"], "ttl": "1h" })).await;
    stage.post("auth/token/create", json!({ "period": "1h", "no_default_policy": true })).await;
    stage.post("auth/token/create", json!({ "type": "batch", "ttl": "1h" })).await;
    let scoped = json!({ "scopes": ["read:kv1/*"], "ttl": "1h", "bind_certificate": true });
    stage.post("auth/token/create", scoped).await;
    stage.post("auth/token/create", json!({ "ttl": "-1h" })).await;
    stage.post("auth/token/create", json!({ "type": "paper" })).await;
    stage.post("auth/token/create", json!({ "entity_alias": "x" })).await;
    stage.post("auth/token/create-orphan", json!({ "ttl": "1h" })).await;

    let own = stage.broker.admin().with_token(&token);
    stage.ask_as("job", &own, "GET", "auth/token/lookup-self", Value::Null).await;
    stage.ask_as("job", &own, "POST", "auth/token/lookup-self", json!({})).await;
    stage.post("auth/token/lookup-self", json!({})).await;
    let renew = json!({ "increment": "30m" });
    stage.ask_as("job", &own, "POST", "auth/token/renew-self", renew).await;
    stage.ask_as("job", &own, "POST", "auth/token/create", json!({ "ttl": "10m" })).await;
    stage.ask_as("job", &own, "GET", "kv1/x", Value::Null).await;
    stage.get("auth/token/lookup-self").await;
    stage.post("auth/token/renew-self", json!({})).await;
    stage.post("auth/token/lookup", json!({ "token": token })).await;
    stage.get(&format!("auth/token/lookup?token={token}")).await;
    stage.post("auth/token/lookup", json!({})).await;
    stage.post("auth/token/lookup", json!({ "token": "hvs.none" })).await;
    stage.post("auth/token/lookup-accessor", json!({ "accessor": accessor })).await;
    stage.post("auth/token/lookup-accessor", json!({ "accessor": "none" })).await;
    stage.post("auth/token/renew", json!({ "token": token, "increment": "1h" })).await;
    stage.post("auth/token/renew", json!({ "token": "hvs.none" })).await;
    stage.post("auth/token/renew-accessor", json!({ "accessor": accessor })).await;
    stage.post("auth/token/renew-accessor", json!({ "accessor": "none" })).await;

    roles(&mut stage).await;
    ends(&mut stage, &token).await;
    stage.finish();
}

async fn roles(stage: &mut Stage) {
    stage.list("auth/token/roles").await;
    stage.get("auth/token/roles/job").await;
    stage.post("auth/token/roles/job", json!({ "allowed_policies": ["root"] })).await;
    let role = json!({
        "allowed_policies": ["default"], "path_suffix": "jobs", "renewable": false,
        "token_explicit_max_ttl": "2h", "token_num_uses": 3,
        "token_bound_cidrs": ["127.0.0.0/8"],
    });
    stage.post("auth/token/roles/job", role).await;
    stage.get("auth/token/roles/job").await;
    stage.list("auth/token/roles").await;
    let made = stage.post("auth/token/create/job", json!({ "ttl": "1h" })).await;
    let own = stage.broker.admin().with_token(&text(&made["auth"]["client_token"]));
    stage.ask_as("token of the role", &own, "GET", "auth/token/lookup-self", Value::Null).await;
    stage.post("auth/token/create/none", json!({})).await;
    stage.delete("auth/token/roles/job").await;
    stage.delete("auth/token/roles/job").await;
}

async fn ends(stage: &mut Stage, token: &str) {
    stage.list("auth/token/accessors").await;
    stage.post("auth/token/tidy", json!({})).await;
    stage.post("auth/token/revoke", json!({ "token": token })).await;
    stage.post("auth/token/revoke", json!({ "token": token })).await;
    stage.post("auth/token/revoke", json!({})).await;
    for path in ["revoke-self", "revoke-accessor", "revoke-orphan"] {
        let made = stage.root.write("auth/token/create", json!({ "ttl": "1h" })).await.ok();
        let (token, accessor) = (&made["auth"]["client_token"], &made["auth"]["accessor"]);
        let at = format!("auth/token/{path}");
        match path {
            "revoke-self" => {
                let own = stage.broker.admin().with_token(&text(token));
                stage.ask_as("child", &own, "POST", &at, json!({})).await;
                stage.ask_as("child", &own, "POST", &at, json!({})).await;
            }
            "revoke-accessor" => {
                stage.post(&at, json!({ "accessor": accessor })).await;
                stage.post(&at, json!({ "accessor": accessor })).await;
            }
            _ => {
                stage.post(&at, json!({ "token": token })).await;
                stage.post(&at, json!({ "token": token })).await;
            }
        }
    }
}

#[tokio::test]
async fn identities_answer_as_recorded() {
    let mut stage = Stage::open("identity").await;
    stage.list("identity/entity/id").await;
    stage.list("identity/entity/name").await;
    let methods = stage.root.read("sys/auth").await.data();
    let accessor = &methods["cert/"]["accessor"];
    stage.post("identity/entity-alias", json!({ "name": "x", "mount_accessor": "none" })).await;
    let alias = json!({ "name": "spiffe://test.example/web", "mount_accessor": accessor });
    let stored = stage.post("identity/entity-alias", alias).await;
    let id = text(&stored["data"]["id"]);
    let entity = stage.root.read(&format!("identity/entity/id/{id}")).await.data();
    let name = text(&entity["name"]);
    stage.know(&name, "<name>");
    for (by, value) in [("id", id), ("name", name)] {
        let at = format!("identity/entity/{by}/{value}");
        stage.get(&at).await;
        stage.post(&at, json!({ "policies": ["root"] })).await;
        stage.post(&at, json!({ "metadata": { "team": "a" }, "policies": ["default"] })).await;
        stage.get(&at).await;
        stage.get(&format!("identity/entity/{by}/none")).await;
        stage.post(&format!("identity/entity/{by}/none"), json!({ "policies": [] })).await;
        stage.list(&format!("identity/entity/{by}")).await;
        stage.post("identity/lookup/entity", json!({ by: value })).await;
    }
    let alias =
        json!({ "alias_name": "spiffe://test.example/web", "alias_mount_accessor": accessor });
    stage.post("identity/lookup/entity", alias).await;
    stage.post("identity/lookup/entity", json!({ "name": "none" })).await;
    stage.post("identity/lookup/entity", json!({})).await;
    stage.finish();
}

#[tokio::test]
async fn entities_made_by_hand_answer_as_recorded() {
    let mut stage = Stage::open("entities").await;
    let methods = stage.root.read("sys/auth").await.data();
    let (cert, other) = (&methods["cert/"]["accessor"], &methods["userpass/"]["accessor"]);
    let asked = json!({ "name": "Ann", "metadata": { "team": "a" }, "policies": ["default"] });
    let ann = text(&stage.post("identity/entity", asked).await["data"]["id"]);
    stage.know(&ann, "<ann>");
    stage.post("identity/entity", json!({ "name": "ann", "disabled": false })).await;
    stage.post("identity/entity", json!({ "id": "none" })).await;
    stage.post("identity/entity", json!({ "name": "a/b" })).await;
    let bob = stage.post("identity/entity/name/bob", json!({ "policies": "default" })).await;
    let bob = text(&bob["data"]["id"]);
    stage.know(&bob, "<bob>");
    stage.post("identity/entity/name/bob", json!({ "name": "Ann" })).await;

    stage.list("identity/entity-alias/id").await;
    let mut ids = Vec::new();
    for (who, mount, name) in [(&ann, cert, "spiffe://test.example/ann"), (&bob, other, "bob")] {
        let body = json!({
            "name": name, "mount_accessor": mount, "canonical_id": who,
            "custom_metadata": { "since": "today" },
        });
        let made = stage.post("identity/entity-alias", body).await;
        ids.push(text(&made["data"]["id"]));
        stage.know(&ids[ids.len() - 1], &format!("<alias of {name}>"));
        // While there is one alone: ids are random, and so is the order of two.
        if ids.len() == 1 {
            stage.list("identity/entity-alias/id").await;
        }
    }
    let taken = json!({ "name": "x", "mount_accessor": cert, "canonical_id": ann });
    stage.post("identity/entity-alias", taken).await;
    let at = format!("identity/entity-alias/id/{}", ids[1]);
    stage.get(&at).await;
    stage.post(&at, json!({ "custom_metadata": { "since": "yesterday" } })).await;
    stage.get("identity/entity-alias/id/none").await;
    stage.post("identity/entity-alias/id/none", json!({})).await;

    stage.post("identity/entity/merge", json!({ "to_entity_id": ann })).await;
    let merge = json!({ "from_entity_ids": [bob], "to_entity_id": ann });
    stage.post("identity/entity/merge", merge).await;
    stage.get(&format!("identity/entity/id/{bob}")).await;
    stage.delete(&at).await;
    stage.delete(&at).await;
    stage.post("identity/entity/batch-delete", json!({})).await;
    stage.post("identity/entity/batch-delete", json!({ "entity_ids": [ann] })).await;
    stage.get(&format!("identity/entity/id/{ann}")).await;
    for by in ["id", "name"] {
        stage.root.write("identity/entity/name/eve", json!({})).await.ok();
        let eve = stage.root.read("identity/entity/name/eve").await.data();
        let eve = text(&eve[by]);
        stage.know(&eve, "<eve>");
        stage.delete(&format!("identity/entity/{by}/{eve}")).await;
    }
    stage.finish();
}

#[tokio::test]
async fn second_factors_answer_as_recorded() {
    let mut stage = Stage::open("mfa").await;
    let at = "identity/mfa/method/totp";
    stage.list("identity/mfa/method").await;
    stage.post(at, json!({})).await;
    stage.post(at, json!({ "issuer": "x", "digits": 7 })).await;
    stage.post(at, json!({ "issuer": "x", "qr_size": 2000 })).await;
    stage.post(at, json!({ "issuer": "x", "skew": 2 })).await;
    stage.post(at, json!({ "issuer": "x", "max_validation_attempts": 11 })).await;
    let made = stage.post(at, json!({ "issuer": "Leasehold", "method_name": "phone" })).await;
    let method = text(&made["data"]["method_id"]);
    stage.know(&method, "<method>");
    let one = format!("{at}/{method}");
    stage.post(&one, json!({ "max_validation_attempts": 3, "qr_size": 0 })).await;
    stage.post(at, json!({ "issuer": "x", "method_name": "phone" })).await;
    stage.get(&one).await;
    stage.get(&format!("identity/mfa/method/{method}")).await;
    stage.list("identity/mfa/method").await;
    stage.list(at).await;
    stage.get(&format!("{at}/none")).await;

    let ann = json!({ "password": "correct horse battery", "token_policies": "self" });
    stage.root.write("auth/userpass/users/ann", ann.clone()).await.ok();
    let policy = r#"path "identity/mfa/method/totp/generate" { capabilities = ["update"] }"#;
    stage.root.write("sys/policies/acl/self", json!({ "policy": policy })).await.ok();
    let password = json!({ "password": "correct horse battery" });
    let admin = stage.broker.admin();
    let auth = admin.write("auth/userpass/login/ann", password.clone()).await.ok();
    let own = admin.with_token(&text(&auth["auth"]["client_token"]));
    let entity = text(&auth["auth"]["entity_id"]);
    stage.know(&entity, "<ann>");
    let body = json!({ "method_id": method });
    let generate = format!("{at}/generate");
    let made = stage.ask_as("ann", &own, "POST", &generate, body.clone()).await;
    let url = text(&made["data"]["url"]);
    let secret = url.split("secret=").nth(1).unwrap().split('&').next().unwrap().to_owned();
    stage.ask_as("ann", &own, "POST", &generate, body.clone()).await;
    let theirs = json!({ "method_id": method, "entity_id": entity });
    stage.post(&format!("{at}/admin-generate"), theirs.clone()).await;
    stage.post(&format!("{at}/admin-generate"), body).await;

    let at = "identity/mfa/login-enforcement";
    stage.list(at).await;
    stage.post(&format!("{at}/people"), json!({ "mfa_method_ids": [method] })).await;
    stage.post(&format!("{at}/people"), json!({ "mfa_method_ids": ["none"] })).await;
    let people = json!({ "mfa_method_ids": [method], "policies": ["self"] });
    stage.post(&format!("{at}/people"), people).await;
    stage.get(&format!("{at}/people")).await;
    stage.get(&format!("{at}/none")).await;
    stage.list(at).await;
    stage.delete(&one).await;

    let bob = json!({ "password": "correct horse battery", "token_policies": "self" });
    stage.root.write("auth/userpass/users/bob", bob).await.ok();
    let admin = stage.broker.admin();
    let first = admin.write("auth/userpass/login/bob", password.clone()).await.error(400);
    let bob = first.split("the entity ").nth(1).unwrap().split(' ').next().unwrap().to_owned();
    stage.know(&bob, "<bob>");
    stage.post("auth/userpass/login/bob", password.clone()).await;

    let waits = stage.post("auth/userpass/login/ann", password).await;
    let id = text(&waits["auth"]["mfa_requirement"]["mfa_request_id"]);
    stage.post("sys/mfa/validate", json!({ "mfa_request_id": id })).await;
    let shown =
        |code: &str| json!({ "mfa_request_id": id, "mfa_payload": { method.clone(): [code] } });
    stage.post("sys/mfa/validate", shown("0")).await;
    let parameters = TotpParameters::default();
    let key = decode_secret(&secret).unwrap();
    let code = parameters.code(&key, parameters.step_at(SystemClock.now()));
    stage.know(code.expose(), "<code>");
    stage.post("sys/mfa/validate", shown(code.expose())).await;
    stage.post("sys/mfa/validate", shown(code.expose())).await;
    stage.post("identity/mfa/method/totp/admin-destroy", theirs).await;
    stage.delete(&format!("{at}/people")).await;
    stage.delete(&one).await;
    stage.delete(&one).await;
    stage.finish();
}

#[tokio::test]
async fn groups_answer_as_recorded() {
    let mut stage = Stage::open("groups").await;
    let methods = stage.root.read("sys/auth").await.data();
    let mount = &methods["userpass/"]["accessor"];
    let ann = stage.root.write("identity/entity", json!({ "name": "ann" })).await.data();
    let ann = text(&ann["id"]);
    stage.know(&ann, "<ann>");
    stage.list("identity/group/id").await;
    let body = json!({
        "name": "team", "policies": ["default"], "metadata": { "floor": "2" },
        "member_entity_ids": [ann],
    });
    let team = text(&stage.post("identity/group", body).await["data"]["id"]);
    stage.know(&team, "<team>");
    stage.list("identity/group/id").await;
    stage.post("identity/group", json!({ "type": "x" })).await;
    stage.post("identity/group", json!({ "member_entity_ids": ["none"] })).await;
    let org = json!({ "member_group_ids": [team] });
    let org = text(&stage.post("identity/group/name/org", org).await["data"]["id"]);
    stage.know(&org, "<org>");
    let circle = json!({ "member_group_ids": [org] });
    stage.post(&format!("identity/group/id/{team}"), circle).await;
    stage.post(&format!("identity/group/id/{team}"), json!({ "policies": [] })).await;
    stage.post("identity/group/name/org", json!({ "type": "external" })).await;
    stage.get(&format!("identity/group/id/{team}")).await;
    stage.get("identity/group/name/org").await;
    stage.get("identity/group/id/none").await;
    stage.get("identity/group/name/none").await;
    stage.get(&format!("identity/entity/id/{ann}")).await;

    let made = stage.post("identity/group/name/admins", json!({ "type": "external" })).await;
    let admins = text(&made["data"]["id"]);
    stage.know(&admins, "<admins>");
    stage.list("identity/group-alias/id").await;
    let alias = json!({ "name": "cn=a", "mount_accessor": mount, "canonical_id": admins });
    let made = stage.post("identity/group-alias", alias).await;
    let alias = text(&made["data"]["id"]);
    stage.know(&alias, "<alias>");
    let internal = json!({ "name": "cn=b", "mount_accessor": mount, "canonical_id": team });
    stage.post("identity/group-alias", internal).await;
    let at = format!("identity/group-alias/id/{alias}");
    stage.get(&at).await;
    stage.post(&at, json!({ "canonical_id": admins })).await;
    stage.list("identity/group-alias/id").await;
    stage.get("identity/group/name/admins").await;
    for by in [
        json!({ "name": "TEAM" }),
        json!({ "id": org }),
        json!({ "alias_id": alias }),
        json!({ "alias_name": "cn=a", "alias_mount_accessor": mount }),
        json!({ "name": "none" }),
        json!({}),
    ] {
        stage.post("identity/lookup/group", by).await;
    }
    stage.list("identity/group/name").await;
    stage.delete(&at).await;
    stage.delete(&format!("identity/group/id/{team}")).await;
    stage.delete("identity/group/name/org").await;
    stage.delete("identity/group/name/org").await;
    stage.finish();
}

#[tokio::test]
async fn certificates_answer_as_recorded() {
    let mut stage = Stage::open("cert").await;
    stage.list("auth/cert/certs").await;
    stage.get("auth/cert/certs/web").await;
    stage.post("auth/cert/certs/web", json!({ "certificate": "none" })).await;
    stage.post("auth/cert/certs/web", json!({ "token_policies": ["default"] })).await;
    let uri = format!("spiffe://{DOMAIN}/web");
    let role = json!({
        "allowed_uri_sans": uri, "token_policies": "default", "token_ttl": "1h",
        "display_name": "the web",
    });
    stage.post("auth/cert/certs/web", role).await;
    stage.get("auth/cert/certs/web").await;
    let ca = Ca::root("own");
    let role = json!({ "certificate": ca.pem(), "allowed_common_names": "*.example" });
    stage.post("auth/cert/certs/own", role).await;
    stage.get("auth/cert/certs/own").await;
    stage.list("auth/cert/certs").await;

    stage.get("auth/cert/config").await;
    stage.post("auth/cert/config", json!({ "disable_binding": "perhaps" })).await;
    let config = json!({ "enable_identity_alias_metadata": true });
    stage.post("auth/cert/config", config).await;
    stage.get("auth/cert/config").await;

    stage.list("auth/cert/crls").await;
    stage.get("auth/cert/crls/own").await;
    stage.post("auth/cert/crls/own", json!({ "crl": "none" })).await;
    stage.post("auth/cert/crls/own", json!({ "url": "ftp://lists.example/" })).await;
    let list = BASE64.encode(&ca.crl(&[&[0x11, 0x22]], NOT_AFTER_SECS));
    let list = format!("-----BEGIN X509 CRL-----\n{list}\n-----END X509 CRL-----\n");
    stage.post("auth/cert/crls/own", json!({ "crl": list })).await;
    stage.get("auth/cert/crls/own").await;
    stage.list("auth/cert/crls").await;
    stage.delete("auth/cert/crls/own").await;
    stage.delete("auth/cert/crls/own").await;

    let spec = Spec::svid(&uri).serial(&[0x0a, 0x0b, 0x0c]);
    let leaf = stage.broker.pki.clients.issue(&spec);
    let web = stage.broker.caller(&leaf);
    let made = stage.ask_as("web", &web, "POST", "auth/cert/login", json!({})).await;
    stage.ask_as("web", &web, "POST", "auth/cert/login", json!({ "name": "web" })).await;
    stage.ask_as("web", &web, "POST", "auth/cert/login", json!({ "name": "own" })).await;
    stage.ask_as("web", &web, "POST", "auth/cert/login", json!({ "name": "none" })).await;
    let token = text(&made["auth"]["client_token"]);
    let token = stage.broker.caller(&leaf).with_token(&token);
    stage.ask_as("web's token", &token, "GET", "auth/token/lookup-self", Value::Null).await;
    stage.ask_as("web's token", &token, "POST", "auth/token/renew-self", json!({})).await;
    let other = stage.broker.caller(&stage.broker.svid("web"));
    let other = other.with_token(token.token().unwrap());
    let path = "auth/token/lookup-self";
    stage.ask_as("web's token, another's certificate", &other, "GET", path, Value::Null).await;
    stage.ask_as("web", &web, "GET", path, Value::Null).await;
    stage.ask_as("web", &web, "POST", "auth/token/renew-self", json!({})).await;
    let nobody = stage.broker.nobody();
    stage.ask_as("nobody", &nobody, "POST", "auth/cert/login", json!({})).await;
    let admin = stage.broker.admin();
    stage.ask_as("unknown", &admin, "POST", "auth/cert/login", json!({})).await;
    stage.ask_as("unknown", &admin, "GET", path, Value::Null).await;
    stage.delete("auth/cert/certs/own").await;
    stage.delete("auth/cert/certs/own").await;
    stage.finish();
}
