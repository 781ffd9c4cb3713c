//! Answers about names and passwords, and about who is locked.

use serde_json::{Value, json};

use super::stage::Stage;

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
