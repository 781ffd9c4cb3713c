//! Password policies as stock clients write and use them.

use leasehold::core::policy::password::PasswordPolicy;
use leasehold::types::secret::SecretString;
use serde_json::json;

use super::world::{CREATE, shared, unique};

const TEXT: &str = "length = 32\n\
    rule \"charset\" {\n  charset = \"abcdefghijklmnopqrstuvwxyz\"\n  min-chars = 4\n}\n\
    rule \"charset\" {\n  charset = \"!@#$%^&*\"\n  min-chars = 4\n}\n";

#[tokio::test]
async fn a_policy_is_kept_as_written_and_generates() {
    let world = shared().await;
    let root = world.broker.root();
    let name = unique("Strict-");
    let path = format!("sys/policies/password/{name}");
    let parsed = PasswordPolicy::parse(TEXT).unwrap();
    let base64 = data_encoding::BASE64.encode(TEXT.as_bytes());
    for text in [TEXT, &base64] {
        assert_eq!(root.write(&path, json!({ "policy": text })).await.status, 204);
        assert_eq!(root.read(&path).await.data(), json!({ "policy": TEXT }));
        let answer = root.read(&format!("{path}/generate")).await;
        let password = answer.data()["password"].as_str().unwrap().to_owned();
        assert!(parsed.satisfied_by(&SecretString::new(password.clone())), "{password}");
        // The audit knows that there was one, and not which.
        let entry = world.broker.audited(&answer).to_string();
        assert!(entry.contains("hmac-sha256:") && !entry.contains(&password), "{entry}");
    }
    let listed = root.list("sys/policies/password").await.data();
    assert!(listed["keys"].as_array().unwrap().contains(&json!(name)));
    let pin = "length = 4\nrule \"charset\" { charset = \"0123456789\" }";
    let weak = root.write(&path, json!({ "policy": pin })).await.ok();
    assert!(weak["warnings"][0].as_str().unwrap().contains("13 bits"), "{weak}");
    assert_eq!(root.delete(&path).await.status, 204);
    assert_eq!(root.delete(&path).await.status, 204);
    assert_eq!(root.read(&path).await.status, 404);
    assert_eq!(root.read(&format!("{path}/generate")).await.status, 404);
}

#[tokio::test]
async fn bad_policies_are_refused_by_their_line_and_change_nothing() {
    let world = shared().await;
    let root = world.broker.root();
    let path = format!("sys/policies/password/{}", unique("kept"));
    root.write(&path, json!({ "policy": TEXT })).await.ok();
    let huge = format!("length = 8\nrule \"charset\" {{ charset = \"{}\" }}", "a".repeat(500_000));
    for (text, needle) in [
        (TEXT.replace("32", "1000000000"), "line 1: passwords have 4 to 100 characters"),
        (TEXT.replace("32", "7"), "ask for 8 characters, and there are 7"),
        (TEXT.replace("charset\" {", "words\" {"), "no rule \\\"words\\\""),
        (huge, "longer than 16 KiB"),
        (String::new(), "is required"),
    ] {
        let answer = root.write(&path, json!({ "policy": text })).await;
        assert_eq!(answer.status, 400);
        assert!(answer.body.contains("field \\\"policy\\\""), "{}", answer.body);
        assert!(answer.body.contains(needle), "{needle}: {}", answer.body);
    }
    for policy in [json!(["a"]), json!({ "length": 8 })] {
        root.write(&path, json!({ "policy": policy })).await.error(400);
    }
    assert_eq!(
        root.write("sys/policies/password/a%20b", json!({"policy": TEXT})).await.status,
        400
    );
    assert_eq!(root.read(&path).await.data()["policy"], TEXT);
}

#[tokio::test]
async fn to_generate_is_not_to_read_and_a_lease_follows_the_policy() {
    let world = shared().await;
    let root = world.broker.root();
    let name = unique("leased");
    let path = format!("sys/policies/password/{name}");
    root.write(&path, json!({ "policy": TEXT })).await.ok();
    let only = format!(
        "path \"{path}/generate\" {{ capabilities = [\"read\"] }}\n\
         path \"database/creds/{name}\" {{ capabilities = [\"read\"] }}"
    );
    let (caller, _) = world.workload(&only).await;
    caller.read(&format!("{path}/generate")).await.ok();
    assert_eq!(caller.read(&path).await.status, 403);
    assert_eq!(caller.write(&path, json!({ "policy": TEXT })).await.status, 403);
    assert_eq!(caller.list("sys/policies/password").await.status, 403);

    let mut config = world.database_config(&world.database);
    config["password_policy"] = json!(name);
    root.write(&format!("database/config/{name}"), config).await.ok();
    let role = json!({ "db_name": name, "creation_statements": CREATE, "default_ttl": "1h" });
    root.write(&format!("database/roles/{name}"), role).await.ok();
    let leased = caller.read(&format!("database/creds/{name}")).await.data();
    let password = SecretString::new(leased["password"].as_str().unwrap().to_owned());
    assert!(PasswordPolicy::parse(TEXT).unwrap().satisfied_by(&password));

    root.delete(&path).await.ok();
    let refused = caller.read(&format!("database/creds/{name}")).await.error(400);
    assert!(refused.contains(&format!("no password policy \"{name}\"")), "{refused}");
    let leases = root.list(&format!("sys/leases/lookup/database/creds/{name}")).await.data();
    assert_eq!(leases["keys"].as_array().unwrap().len(), 1, "only the first one: {leases}");
}
