//! What is asked of passwords, how much of what clients may have, and the tools.

use serde_json::json;

use super::stage::Stage;

const DIGITS: &str = "length = 20\nrule \"charset\" { charset = \"0123456789\" }\n";
/// Generates what can be guessed.
const WEAK: &str = "length = 8\nrule \"charset\" { charset = \"a\" }\n";

#[tokio::test]
async fn password_policies_answer_as_recorded() {
    let mut stage = Stage::open("passwords").await;
    let (list, one) = ("sys/policies/password", "sys/policies/password/digits");
    let generate = "sys/policies/password/digits/generate";
    for path in [one, generate] {
        stage.get(path).await;
    }
    stage.list(list).await;
    stage.post(one, json!({})).await;
    stage.post(one, json!({ "policy": "length = 1000000000" })).await;
    stage.post(one, json!({ "policy": DIGITS })).await;
    stage.get(one).await;
    stage.list(list).await;
    stage.post(one, json!({ "policy": WEAK })).await;
    stage.get(generate).await;
    stage.delete(one).await;
    stage.delete(one).await;
    stage.post("sys/policies/password/a%20b", json!({ "policy": DIGITS })).await;
    stage.finish();
}

#[tokio::test]
async fn quotas_answer_as_recorded() {
    let mut stage = Stage::open("quotas").await;
    let config = "sys/quotas/config";
    stage.get(config).await;
    stage.post(config, json!({ "rate_limit_exempt_paths": ["kv1/open/*"] })).await;
    stage.post(config, json!({ "rate_limit_exempt_paths": ["a//b"] })).await;
    stage.post(config, json!({ "enable_rate_limit_response_headers": true })).await;
    stage.post(config, json!({ "enable_rate_limit_audit_logging": false })).await;
    stage.get(config).await;

    let (list, one) = ("sys/quotas/rate-limit", "sys/quotas/rate-limit/slow");
    stage.list(list).await;
    stage.get(one).await;
    for body in [json!({}), json!({ "rate": 0 }), json!({ "rate": 1, "group_by": "entity" })] {
        stage.post(one, body).await;
    }
    stage.post(one, json!({ "path": "kv1/x", "rate": 1, "interval": "1d" })).await;
    stage.get(one).await;
    stage.list(list).await;
    stage.get("kv1/x").await;
    stage.get("kv1/x").await;
    stage.delete(one).await;
    stage.delete(one).await;

    let (list, one) = ("sys/quotas/lease-count", "sys/quotas/lease-count/few");
    stage.list(list).await;
    stage.get(one).await;
    for body in [
        json!({}),
        json!({ "path": "nowhere", "max_leases": 1 }),
        json!({ "path": "database", "max_leases": 1, "group_by": "client" }),
    ] {
        stage.post(one, body).await;
    }
    stage.post(one, json!({ "path": "database", "role": "app", "max_leases": 20 })).await;
    stage.post(one, json!({ "group_by": "entity" })).await;
    stage.get(one).await;
    stage.list(list).await;
    stage.delete(one).await;
    stage.finish();
}

#[tokio::test]
async fn tools_answer_as_recorded() {
    let mut stage = Stage::open("tools").await;
    for (path, body) in [
        ("sys/tools/random", json!({ "bytes": 8 })),
        ("sys/tools/random/8", json!({ "format": "hex" })),
        ("sys/tools/random/platform/8", json!({})),
    ] {
        stage.post(path, body).await;
    }
    for path in ["sys/tools/random/seal/8", "sys/tools/random/131073"] {
        stage.post(path, json!({})).await;
    }
    stage.post("sys/tools/random", json!({ "format": "text" })).await;
    for path in ["sys/tools/hash", "sys/tools/hash/sha2-512", "sys/tools/hash/sha3-256"] {
        stage.post(path, json!({ "input": "YWJj" })).await;
    }
    stage.post("sys/tools/hash", json!({ "input": "?" })).await;
    stage.finish();
}
