//! Answers of `sys/`: mounts, policies, audit, metrics, wrapping.

use serde_json::{Value, json};

use super::stage::Stage;

const POLICY: &str = r#"
    path "kv1/*" { capabilities = ["read", "list"] }
    path "sys/internal/ui/resultant-acl" { capabilities = ["read"] }
"#;

#[tokio::test]
async fn mounts_answer_as_recorded() {
    let mut stage = Stage::open("mounts").await;
    stage.get("sys/mounts").await;
    let mount = json!({
        "type": "kv", "description": "for the tests", "options": { "version": "2" },
        "config": { "default_lease_ttl": "1h", "max_lease_ttl": "2h" },
    });
    stage.post("sys/mounts/team/a", mount.clone()).await;
    stage.post("sys/mounts/team/a", mount.clone()).await;
    stage.post("sys/mounts/team", mount).await;
    stage.post("sys/mounts/other", json!({ "type": "nothing" })).await;
    stage.post("sys/mounts/other", json!({})).await;
    stage.post("sys/mounts/other", json!({ "type": "kv", "unknown": 1 })).await;
    stage.get("sys/mounts/team/a").await;
    stage.get("sys/mounts/nowhere").await;
    stage.get("sys/mounts/team/a/tune").await;
    stage.post("sys/mounts/team/a/tune", json!({ "max_lease_ttl": "soon" })).await;
    let tuned = json!({
        "description": "tuned", "max_lease_ttl": "3h", "listing_visibility": "unauth",
        "audit_non_hmac_request_keys": ["a"], "audit_non_hmac_response_keys": ["b"],
    });
    stage.post("sys/mounts/team/a/tune", tuned).await;
    stage.get("sys/mounts/team/a/tune").await;
    let headers = json!({ "passthrough_request_headers": ["X-One"] });
    stage.post("sys/mounts/team/a/tune", headers).await;
    let headers = json!({ "allowed_response_headers": "Set-Cookie" });
    stage.post("sys/mounts/team/a/tune", headers).await;
    stage.get("sys/mounts/nowhere/tune").await;
    stage.post("sys/remount", json!({ "from": "nowhere", "to": "elsewhere" })).await;
    let moved = stage.post("sys/remount", json!({ "from": "team/a", "to": "team/b" })).await;
    let id = moved["data"]["migration_id"].as_str().unwrap();
    stage.get(&format!("sys/remount/status/{id}")).await;
    stage.get("sys/remount/status/none").await;
    stage.delete("sys/mounts/team/b").await;
    stage.delete("sys/mounts/team/b").await;
    stage.delete("sys/mounts/cubbyhole").await;

    stage.get("sys/auth").await;
    stage.post("sys/auth/people", json!({ "type": "cert", "description": "people" })).await;
    stage.post("sys/auth/people", json!({ "type": "cert" })).await;
    stage.post("sys/auth/robots", json!({ "type": "kv" })).await;
    stage.get("sys/auth/people").await;
    stage.get("sys/auth/nowhere").await;
    stage.get("sys/auth/people/tune").await;
    stage.post("sys/auth/people/tune", json!({ "token_type": "paper" })).await;
    stage.post("sys/auth/people/tune", json!({ "token_type": "default-batch" })).await;
    stage.get("sys/auth/people/tune").await;
    stage.delete("sys/auth/people").await;
    stage.delete("sys/auth/people").await;

    stage.get("sys/internal/ui/mounts").await;
    stage.get("sys/internal/ui/mounts/kv1/some/secret").await;
    stage.get("sys/internal/ui/mounts/nowhere").await;
    stage.finish();
}

#[tokio::test]
async fn policies_answer_as_recorded() {
    let mut stage = Stage::open("policies").await;
    for (one, list) in [("sys/policies/acl", "sys/policies/acl"), ("sys/policy", "sys/policy")] {
        let reader = format!("{one}/reader");
        stage.list(list).await;
        stage.get(list).await;
        stage.get(&reader).await;
        stage.post(&reader, json!({ "policy": "path \"x\" {" })).await;
        stage.post(&reader, json!({})).await;
        stage.post(&reader, json!({ "policy": POLICY })).await;
        stage.get(&reader).await;
        stage.post(&reader, json!({ "rules": POLICY, "cas": 7 })).await;
        stage.post(&reader, json!({ "rules": POLICY, "cas": 1 })).await;
        stage.get(&reader).await;
        stage.list(list).await;
        stage.get(&format!("{one}/root")).await;
        for name in ["root", "default", "reader", "reader"] {
            stage.delete(&format!("{one}/{name}")).await;
        }
        stage.post(&format!("{one}/root"), json!({ "policy": POLICY })).await;
    }
    stage.post("sys/policies/acl/reader", json!({ "policy": POLICY })).await;
    let made = stage.root.write("auth/token/create", json!({ "policies": ["reader"] })).await.ok();
    let (token, accessor) = (&made["auth"]["client_token"], &made["auth"]["accessor"]);
    let reader = stage.broker.admin().with_token(token.as_str().unwrap());
    for path in ["sys/capabilities-self", "sys/capabilities", "sys/capabilities-accessor"] {
        for paths in [json!(["kv1/x"]), json!(["kv1/x", "kv2/x"]), Value::Null] {
            let body = json!({ "paths": paths, "token": token, "accessor": accessor });
            let body = match path {
                "sys/capabilities-self" => json!({ "paths": paths }),
                _ => body,
            };
            if path == "sys/capabilities-self" {
                stage.ask_as("reader", &reader, "POST", path, body).await;
            } else {
                stage.post(path, body).await;
            }
        }
    }
    stage.post("sys/capabilities-self", json!({ "path": "kv1/x" })).await;
    stage.post("sys/capabilities", json!({ "token": "hvs.none", "paths": ["a"] })).await;
    stage.post("sys/capabilities-accessor", json!({ "accessor": "none", "paths": ["a"] })).await;
    stage.get("sys/internal/ui/resultant-acl").await;
    stage.ask_as("reader", &reader, "GET", "sys/internal/ui/resultant-acl", Value::Null).await;
    stage.list("sys/policies/detailed/acl").await;
    let asked = json!({ "path": "kv1/x", "operation": "read", "policies": ["reader"] });
    stage.post("sys/explain", asked).await;
    let asked = json!({ "path": "kv1/x", "operation": "delete", "accessor": accessor });
    stage.post("sys/explain", asked).await;
    stage.post("sys/explain", json!({ "path": "kv1/x" })).await;
    stage.post("sys/explain", json!({ "path": "kv1/x", "entity_id": "none" })).await;
    stage.finish();
}

#[tokio::test]
async fn the_server_answers_as_recorded() {
    let mut stage = Stage::open("server").await;
    let log = stage.broker.audit_path().display().to_string();
    stage.know(&log, "/audit.log");
    stage.get("sys/audit").await;
    stage.post("sys/audit-hash/file", json!({ "input": "text" })).await;
    stage.post("sys/audit-hash/file", json!({})).await;
    stage.post("sys/audit-hash/none", json!({ "input": "text" })).await;
    let sink = json!({ "type": "file", "options": { "file_path": log } });
    stage.post("sys/audit/file", sink.clone()).await;
    stage.post("sys/audit/other", sink).await;
    stage.post("sys/audit/file", json!({ "type": "socket" })).await;
    let elsewhere = json!({ "type": "file", "options": { "file_path": "/etc/shadow" } });
    stage.post("sys/audit/file", elsewhere).await;
    stage.delete("sys/audit/file").await;
    stage.delete("sys/audit/other").await;
    process(&mut stage).await;
    stage.get("sys/metrics?format=prometheus").await;
    stage.get("sys/metrics?format=xml").await;
    stage.get("sys/internal/specs/openapi").await;
    stage.get("sys/internal/specs/openapi?generic_mount_paths=perhaps").await;
    stage.get("sys/internal/specs/path-help/kv2/data/app").await;
    stage.get("sys/internal/specs/path-help/sys/health").await;
    stage.get("sys/internal/specs/path-help/nowhere").await;
    stage.get("sys/hold").await;
    stage.post("sys/hold", json!({})).await;
    stage.post("sys/hold", json!({ "reason": "looking" })).await;
    stage.get("sys/hold").await;
    stage.delete("sys/hold").await;
    stage.delete("sys/hold").await;
    for path in ["nowhere", "sys/nowhere", "identity/nowhere", "auth/nowhere/login"] {
        stage.get(path).await;
    }
    stage.post("kv1/", json!({ "a": "b" })).await;
    stage.get("kv1/../sys/mounts").await;
    let root = stage.root.clone();
    let namespace = [("x-vault-namespace", "team")];
    stage.ask_with("", &root, "GET", "sys/mounts", &namespace, Value::Null).await;
    stage.finish();
}

/// What the process tells of itself.
async fn process(stage: &mut Stage) {
    stage.get_shape("sys/host-info").await;
    stage.get_shape("sys/in-flight-req").await;
    stage.get_shape("sys/ha-status").await;
    stage.get_shape("sys/config/state/sanitized").await;
    stage.get("sys/config/cors").await;
    stage.post("sys/config/cors", json!({})).await;
    stage.post("sys/config/cors", json!({ "allowed_origins": "https://a.example/b" })).await;
    let origins = json!({ "allowed_origins": ["https://a.example"], "allowed_headers": "X-One" });
    stage.post("sys/config/cors", origins).await;
    stage.get("sys/config/cors").await;
    stage.delete("sys/config/cors").await;
    stage.get("sys/config/cors").await;
    for path in ["sys/internal/ui/namespaces", "sys/internal/ui/version"] {
        stage.get(path).await;
    }
    let header = "sys/config/ui/headers/x-frame-options";
    stage.list("sys/config/ui/headers").await;
    stage.get(header).await;
    stage.post(header, json!({})).await;
    stage.post("sys/config/ui/headers/set-cookie", json!({ "values": ["a"] })).await;
    stage.post(header, json!({ "values": ["DENY", "SAMEORIGIN"] })).await;
    stage.get(header).await;
    stage.get(&format!("{header}?multivalue=true")).await;
    stage.list("sys/config/ui/headers").await;
    stage.delete(header).await;
    stage.delete(header).await;
    counters(stage).await;
    stage.get("sys/loggers").await;
    stage.post("sys/loggers/core", json!({ "level": "debug" })).await;
    stage.get("sys/loggers/core").await;
    stage.get("sys/loggers/h2").await;
    stage.post("sys/loggers/h2", json!({ "level": "debug" })).await;
    stage.post("sys/loggers", json!({ "level": "loud" })).await;
    stage.post("sys/loggers", json!({ "level": "error" })).await;
    stage.get("sys/loggers").await;
    stage.delete("sys/loggers/core").await;
    stage.delete("sys/loggers").await;
    stage.get("sys/loggers").await;
    // What there is grows with every engine and method.
    stage.get_shape("sys/plugins/catalog").await;
    stage.ask_shape("LIST", "sys/plugins/catalog").await;
    stage.list("sys/plugins/catalog/database").await;
    stage.get("sys/plugins/catalog/database").await;
    stage.list("sys/plugins/catalog/other").await;
    stage.get("sys/plugins/catalog/secret/kv").await;
    stage.get("sys/plugins/catalog/secret/none").await;
}

async fn counters(stage: &mut Stage) {
    stage.get_shape("sys/internal/counters/requests").await;
    stage.get_shape("sys/internal/counters/tokens").await;
    stage.get("sys/internal/counters/entities").await;
    stage.get("sys/internal/counters/activity?start_time=0").await;
    stage.get("sys/internal/counters/activity/monthly").await;
    stage.get("sys/internal/counters/config").await;
    stage.ask_shape("LIST", "sys/version-history").await;
    stage.post("sys/step-down", json!({})).await;
}

#[tokio::test]
async fn wrapping_answers_as_recorded() {
    let mut stage = Stage::open("wrapping").await;
    let root = stage.root.clone();
    let ttl = [("x-vault-wrap-ttl", "5m")];
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    stage.post("sys/wrapping/wrap", json!({ "a": "b" })).await;
    for bad in ["0", "soon"] {
        let ttl = [("x-vault-wrap-ttl", bad)];
        stage.ask_with("", &root, "POST", "sys/wrapping/wrap", &ttl, json!({ "a": "b" })).await;
    }
    let wrapped =
        stage.ask_with("", &root, "POST", "sys/wrapping/wrap", &ttl, json!({ "a": "b" })).await;
    let token = text(&wrapped["wrap_info"]["token"]);
    stage.post("sys/wrapping/lookup", json!({ "token": token })).await;
    let own = stage.broker.admin().with_token(&token);
    stage.ask_as("wrapping token", &own, "GET", "sys/wrapping/lookup", Value::Null).await;
    let rewrapped = stage.post("sys/wrapping/rewrap", json!({ "token": token })).await;
    stage.post("sys/wrapping/rewrap", json!({ "token": token })).await;
    let token = text(&rewrapped["wrap_info"]["token"]);
    let own = stage.broker.admin().with_token(&token);
    stage.ask_as("wrapping token", &own, "POST", "sys/wrapping/unwrap", Value::Null).await;
    for path in ["sys/wrapping/lookup", "sys/wrapping/unwrap"] {
        stage.post(path, json!({ "token": token })).await;
        stage.post(path, json!({ "token": "hvs.none" })).await;
    }
    let made =
        stage.ask_with("", &root, "POST", "auth/token/create", &ttl, json!({ "ttl": "1h" })).await;
    let token = text(&made["wrap_info"]["token"]);
    stage.post("sys/wrapping/unwrap", json!({ "token": token })).await;
    // A failure, and nothing that could be wrapped.
    stage.ask_with("", &root, "GET", "kv1/none", &ttl, Value::Null).await;
    stage.ask_with("", &root, "POST", "kv1/x", &ttl, json!({ "a": "b" })).await;
    stage.finish();
}
