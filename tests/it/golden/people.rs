//! Answers about names and passwords, and about who is locked.

use serde_json::{Value, json};

use super::stage::Stage;
use crate::support::broker::Setup;
use crate::support::pki::Ca;
use crate::support::slapd::{BASE, BROKER, Slapd};

#[tokio::test]
async fn users_answer_as_recorded() {
    let mut stage = Stage::open("userpass").await;
    stage.list("auth/userpass/users").await;
    stage.get("auth/userpass/users/ann").await;
    stage.post("auth/userpass/users/ann", json!({ "token_policies": "default" })).await;
    stage.post("auth/userpass/users/Ann", json!({ "password": "correct horse" })).await;
    let user = json!({ "password": "correct horse", "token_policies": "default", "ttl": "1h" });
    stage.post("auth/userpass/users/ann", user).await;
    stage.get("auth/userpass/users/ann").await;
    stage.list("auth/userpass/users").await;
    stage.post("auth/userpass/users/ann/policies", json!({})).await;
    stage.post("auth/userpass/users/ann/policies", json!({ "policies": ["default"] })).await;
    stage.post("auth/userpass/users/ann/password", json!({})).await;
    stage.post("auth/userpass/users/ann/password", json!({ "password": "battery" })).await;
    stage.post("auth/userpass/users/bob/password", json!({ "password": "battery" })).await;

    let nobody = stage.broker.nobody();
    let login = "auth/userpass/login/ann";
    let made =
        stage.ask_as("nobody", &nobody, "POST", login, json!({ "password": "battery" })).await;
    let token = made["auth"]["client_token"].as_str().unwrap();
    let ann = stage.broker.nobody().with_token(token);
    stage.ask_as("ann", &ann, "GET", "auth/token/lookup-self", Value::Null).await;
    stage.ask_as("ann", &ann, "POST", "auth/token/renew-self", json!({})).await;
    stage.ask_as("nobody", &nobody, "POST", login, json!({})).await;
    let wrong = json!({ "password": "correct horse" });
    stage.ask_as("nobody", &nobody, "POST", "auth/userpass/login/bob", wrong.clone()).await;
    stage.get("sys/locked-users").await;
    for _ in 0..6 {
        stage.ask_as("nobody", &nobody, "POST", login, wrong.clone()).await;
    }
    let listed = stage.get("sys/locked-users").await;
    let mount = &listed["data"]["by_namespace"][0]["mount_accessors"][0];
    let accessor = mount["mount_accessor"].as_str().unwrap().to_owned();
    stage.get("sys/locked-users?mount_accessor=none").await;
    stage.post(&format!("sys/locked-users/{accessor}/unlock/ann"), json!({})).await;
    stage.post(&format!("sys/locked-users/{accessor}/unlock/ann"), json!({})).await;
    stage.get("sys/locked-users").await;
    stage.get("sys/auth/userpass/tune").await;
    let config = json!({ "user_lockout_config": { "lockout_threshold": 0 } });
    stage.post("sys/auth/userpass/tune", config).await;
    let config = json!({ "user_lockout_config": {
        "lockout_threshold": "3", "lockout_duration": "1h", "lockout_counter_reset": 600,
        "lockout_disable": "false",
    } });
    stage.post("sys/auth/userpass/tune", config.clone()).await;
    stage.get("sys/auth/userpass/tune").await;
    stage.post("sys/mounts/kv1/tune", config).await;
    stage.delete("auth/userpass/users/ann").await;
    stage.delete("auth/userpass/users/ann").await;
    stage.finish();
}

#[tokio::test]
async fn roles_and_secret_ids_answer_as_recorded() {
    let mut stage = Stage::open("approle").await;
    let role = "auth/approle/role/web";
    stage.list("auth/approle/role").await;
    stage.get(role).await;
    stage.post(role, json!({ "bind_secret_id": false })).await;
    stage.post(role, json!({ "local_secret_ids": true })).await;
    let body = json!({ "token_policies": "default", "secret_id_num_uses": 9, "role_id": "web-1" });
    stage.post(role, body).await;
    stage.get(role).await;
    stage.list("auth/approle/role").await;
    for (path, field, value) in [
        ("role-id", "role_id", json!("web-2")),
        ("bind-secret-id", "bind_secret_id", json!(true)),
        ("secret-id-bound-cidrs", "secret_id_bound_cidrs", json!("127.0.0.0/8")),
        ("secret-id-num-uses", "secret_id_num_uses", json!(5)),
        ("secret-id-ttl", "secret_id_ttl", json!("1h")),
        ("policies", "token_policies", json!(["default"])),
        ("period", "token_period", json!(60)),
        ("token-ttl", "token_ttl", json!("1h")),
        ("token-max-ttl", "token_max_ttl", json!("2h")),
        ("token-num-uses", "token_num_uses", json!(7)),
        ("token-bound-cidrs", "token_bound_cidrs", json!("127.0.0.0/8")),
    ] {
        let at = format!("{role}/{path}");
        stage.post(&at, json!({})).await;
        stage.post(&at, json!({ field: value })).await;
        stage.get(&at).await;
        if path != "role-id" {
            stage.delete(&at).await;
        }
    }
    stage.get(&format!("{role}/local-secret-ids")).await;

    let (secret, accessor) = (format!("{role}/secret-id"), format!("{role}/secret-id-accessor"));
    stage.list(&secret).await;
    let made = stage.post(&secret, json!({ "metadata": "{\"a\":\"b\"}", "ttl": "1h" })).await;
    let known = json!({ "secret_id": made["data"]["secret_id"] });
    let by_accessor = json!({ "secret_id_accessor": made["data"]["secret_id_accessor"] });
    stage.post(&secret, json!({ "cidr_list": "nowhere" })).await;
    stage.list(&secret).await;
    let chosen = json!({ "secret_id": "chosen", "num_uses": 1 });
    stage.post(&format!("{role}/custom-secret-id"), chosen.clone()).await;
    stage.post(&format!("{role}/custom-secret-id"), chosen.clone()).await;
    stage.post(&format!("{secret}/lookup"), known.clone()).await;
    stage.post(&format!("{secret}/lookup"), json!({ "secret_id": "none" })).await;
    stage.post(&format!("{accessor}/lookup"), by_accessor.clone()).await;
    stage.post(&format!("{accessor}/lookup"), json!({ "secret_id_accessor": "none" })).await;

    let nobody = stage.broker.nobody();
    let login = "auth/approle/login";
    stage.ask_as("nobody", &nobody, "POST", login, json!({})).await;
    let right = json!({ "role_id": "web-2", "secret_id": "chosen" });
    stage.ask_as("nobody", &nobody, "POST", login, right.clone()).await;
    stage.ask_as("nobody", &nobody, "POST", login, right).await;
    let unknown = json!({ "role_id": "web-1", "secret_id": "chosen" });
    stage.ask_as("nobody", &nobody, "POST", login, unknown).await;

    stage.post("auth/approle/tidy/secret-id", json!({})).await;
    stage.post(&format!("{accessor}/destroy"), by_accessor.clone()).await;
    stage.post(&format!("{accessor}/destroy"), by_accessor).await;
    stage.post(&format!("{secret}/destroy"), known.clone()).await;
    stage.ask("DELETE", &format!("{secret}/destroy"), known).await;
    let made = stage.root.write(&secret, json!({})).await.data();
    let by_accessor = json!({ "secret_id_accessor": made["secret_id_accessor"] });
    stage.ask("DELETE", &format!("{accessor}/destroy"), by_accessor).await;
    stage.delete(role).await;
    stage.delete(role).await;
    stage.finish();
}

#[tokio::test]
async fn a_directory_answers_as_recorded() {
    let directory = tokio::task::spawn_blocking(|| {
        let directory = Slapd::start(&Ca::root("directories"));
        directory.person("uid=ann", "ann", "");
        directory.group("Ops", &[&format!("uid=ann,ou=people,{BASE}")]);
        directory
    });
    let directory = directory.await.unwrap();
    let tables = format!("[auth]\nldap_hosts = [{:?}]\n", directory.address());
    let mut stage = Stage::open_with("ldap", Setup { tables, ..Setup::default() }).await;
    stage.know(&directory.address(), "<directory>");
    let config = "auth/ldap/config";
    stage.get(config).await;
    stage.post(config, json!({ "url": "ldaps://db.internal", "userdn": BASE })).await;
    stage.post(config, json!({ "insecure_tls": true })).await;
    let settings = json!({
        "url": format!("ldap://{}", directory.address()), "binddn": BROKER.0, "bindpass": BROKER.1,
        "userdn": format!("ou=people,{BASE}"), "userattr": "uid",
        "groupdn": format!("ou=groups,{BASE}"), "token_policies": "default", "token_ttl": "1h",
    });
    stage.post(config, settings).await;
    stage.get(config).await;
    for (path, other) in [("auth/ldap/groups", "Ops"), ("auth/ldap/users", "Ann")] {
        stage.list(path).await;
        stage.post(&format!("{path}/{other}"), json!({ "policies": "default" })).await;
        let path_of = |name: &str| format!("{path}/{}", name.to_lowercase());
        let body = json!({ "policies": ["reader"], "groups": "others" });
        stage.get(&path_of(other)).await;
        stage.post(&path_of(other), body).await;
        stage.get(&path_of(other)).await;
        stage.list(path).await;
    }
    let nobody = stage.broker.nobody();
    let login = "auth/ldap/login/ann";
    for password in ["ann-secret", "wrong", ""] {
        let body = json!({ "password": password });
        stage.ask_as("nobody", &nobody, "POST", login, body).await;
    }
    directory.stop();
    let body = json!({ "password": "ann-secret" });
    stage.ask_as("nobody", &nobody, "POST", login, body).await;
    stage.delete("auth/ldap/groups/ops").await;
    stage.delete("auth/ldap/users/ann").await;
    stage.delete("auth/ldap/users/ann").await;
    stage.finish();
}
