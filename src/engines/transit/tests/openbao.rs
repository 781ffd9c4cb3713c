//! Backups that OpenBao 2.7.2 wrote: `t`, a cipher of which version 1 was trimmed and 2 may not decrypt,
//! and `e`, a key on P-521. The last version of the one encrypted `hello`, the other signed it.

use super::*;

const WRITTEN: &str = include_str!("openbao.json");

fn written() -> Value {
    serde_json::from_str(WRITTEN).unwrap()
}

fn backup(document: &Value) -> Value {
    json!({ "backup": BASE64.encode(document.to_string().as_bytes()) })
}

#[tokio::test]
async fn a_backup_of_openbao_is_a_key_with_all_its_versions() {
    let scratch = Scratch::new();
    let node = Node::new(&scratch);
    let written = written();
    node.put("restore", backup(&written["t"])).await;
    let sealed = text(&written, "ciphertext");
    assert_eq!(node.decrypt("t", &sealed).await.unwrap(), HELLO);
    let told = node.get("keys/t").await;
    for (field, value) in [
        ("type", json!("aes128-gcm96")),
        ("latest_version", json!(3)),
        ("min_available_version", json!(2)),
        ("min_decryption_version", json!(3)),
        ("min_encryption_version", json!(3)),
        ("auto_rotate_period", json!(7200)),
        ("exportable", json!(true)),
        ("soft_deleted", json!(false)),
    ] {
        assert_eq!(told[field], value, "{field}");
    }
    node.put("keys/t/config", json!({ "min_decryption_version": 2 })).await;
    assert_eq!(node.get("keys/t").await["keys"].as_object().unwrap().len(), 2);
    node.put("keys/t/rotate", json!({})).await;
    assert!(node.encrypt("t").await.starts_with("vault:v4:"));

    node.put("restore/other", backup(&written["e"])).await;
    let claim = json!({ "input": HELLO, "signature": written["signature"] });
    assert_eq!(node.put("verify/other", claim).await["valid"], true);
    // What came from there leaves again in the form of ours.
    let again = node.get("backup/other").await;
    node.put("restore/third", json!({ "backup": again["backup"] })).await;
    let (one, other) = (node.get("keys/other").await, node.get("keys/third").await);
    assert_eq!(one["keys"], other["keys"]);
}

/// Which backup, and what is done to it.
type Damage<'a> = (&'a str, &'a dyn Fn(&mut Value));

#[tokio::test]
async fn damaged_backups_of_openbao_are_refused() {
    let scratch = Scratch::new();
    let node = Node::new(&scratch);
    let written = written();
    let rows = node.rows().await;
    let changes: [Damage<'_>; 16] = [
        ("t", &|v| v["policy"]["type"] = json!(12)),
        ("t", &|v| v["policy"]["type"] = json!(2)),
        ("t", &|v| v["policy"]["type"] = json!(0)),
        ("t", &|v| v["policy"]["derived"] = json!(true)),
        ("t", &|v| v["policy"]["convergent_encryption"] = json!(true)),
        ("t", &|v| v["policy"]["latest_version"] = json!(4)),
        ("t", &|v| v["policy"]["latest_version"] = json!(u64::MAX)),
        ("t", &|v| v["policy"]["min_available_version"] = json!(1)),
        ("t", &|v| v["policy"]["archive_min_version"] = json!(u64::MAX)),
        ("t", &|v| v["policy"]["auto_rotate_period"] = json!(1_000_000_000)),
        ("t", &|v| v["archived_keys"]["keys"] = json!([])),
        ("t", &|v| v["archived_keys"]["keys"][1]["key"] = json!(HELLO)),
        ("t", &|v| v["archived_keys"]["keys"][1]["hmac_key"] = Value::Null),
        ("e", &|v| v["archived_keys"]["keys"][1]["ec_d"] = json!(7)),
        ("e", &|v| v["archived_keys"]["keys"][1]["ec_x"] = json!(-7)),
        ("e", &|v| v["policy"]["type"] = json!(6)),
    ];
    for (at, (name, change)) in changes.into_iter().enumerate() {
        let mut document = written[name].clone();
        change(&mut document);
        let (status, error) = node.refused("restore/new", backup(&document)).await;
        assert_eq!(status, 400, "{at}: {error}");
    }
    assert_eq!(node.rows().await, rows);
}
