//! Random bytes and digests.

use data_encoding::{BASE64, HEXLOWER};
use serde_json::json;

use super::world::shared;

#[tokio::test]
async fn random_bytes_come_in_the_number_and_form_asked_for() {
    let world = shared().await;
    let (caller, _) =
        world.workload(r#"path "sys/tools/random/*" { capabilities = ["update"] }"#).await;
    let root = world.broker.root();
    for (path, body, bytes, hex) in [
        ("sys/tools/random", json!({}), 32, false),
        ("sys/tools/random", json!({ "bytes": 7, "format": "hex" }), 7, true),
        ("sys/tools/random/9", json!({ "bytes": 7 }), 9, false),
        ("sys/tools/random/platform", json!({ "bytes": "8" }), 8, false),
        ("sys/tools/random/platform/131072", json!({ "source": "seal" }), 131_072, false),
    ] {
        let answer = root.write(path, body).await;
        let text = answer.data()["random_bytes"].as_str().unwrap().to_owned();
        let form = if hex { HEXLOWER } else { BASE64 };
        assert_eq!(form.decode(text.as_bytes()).unwrap().len(), bytes, "{path}");
        let audited = world.broker.audited(&answer).to_string();
        assert!(!audited.contains(&text), "the audit knows what was given");
    }
    caller.write("sys/tools/random/8", json!({})).await.ok();
    assert_eq!(caller.write("sys/tools/random", json!({})).await.status, 403);
    assert_eq!(caller.write("sys/tools/hash", json!({ "input": "" })).await.status, 403);
    for (path, body) in [
        ("sys/tools/random/131073", json!({})),
        ("sys/tools/random/0", json!({})),
        ("sys/tools/random/platform/-1", json!({})),
        ("sys/tools/random/18446744073709551616", json!({})),
        ("sys/tools/random/seal", json!({})),
        ("sys/tools/random/all/8", json!({})),
        ("sys/tools/random", json!({ "bytes": 1.5 })),
        ("sys/tools/random", json!({ "format": "text" })),
    ] {
        root.write(path, body).await.error(400);
    }
}

#[tokio::test]
async fn digests_are_those_of_the_standard() {
    let world = shared().await;
    let root = world.broker.root();
    // FIPS 180-4 example, "abc".
    let long = "cb00753f45a35e8bb5a03d699ac65007272c32ab0eded1631a8b605a43ff5bed\
                8086072ba1e7cc2358baeca134c825a7";
    let answer = root.write("sys/tools/hash/sha2-384", json!({ "input": "YWJj" })).await;
    assert_eq!(answer.data()["sum"], long);
    let audited = world.broker.audited(&answer).to_string();
    assert!(!audited.contains("YWJj"), "{audited}");
    let body = json!({ "input": "YWJj", "algorithm": "sha2-512", "format": "base64" });
    let sum = root.write("sys/tools/hash", body).await.data()["sum"].as_str().unwrap().to_owned();
    assert_eq!(BASE64.decode(sum.as_bytes()).unwrap().len(), 64);
    // FIPS 202 example, "abc".
    let body = json!({ "input": "YWJj", "algorithm": "sha3-256" });
    let sum = "3a985da74fe225b2045c172d6bd390bd855f086e3e9d525b46bfe24511431532";
    assert_eq!(root.write("sys/tools/hash", body).await.data()["sum"], sum);
    for body in [
        json!({ "input": "YWJj", "algorithm": "sha3-257" }),
        json!({ "input": "YWJj", "algorithm": "md5" }),
        json!({ "input": "hunter2?" }),
        json!({ "input": ["YWJj"] }),
    ] {
        let refused = root.write("sys/tools/hash", body).await.error(400);
        assert!(!refused.contains("hunter2"), "{refused}");
    }
}
