//! The OpenAPI document and `?help=1`: what whoever asks can see, and no more.

use serde_json::Value;

use super::world::shared;

fn paths(document: &Value) -> Vec<&str> {
    document["paths"].as_object().unwrap().keys().map(String::as_str).collect()
}

#[tokio::test]
async fn the_document_has_the_mounts_that_the_caller_can_see() {
    let world = shared().await;
    let (reader, _) = world.workload(r#"path "secret/data/x" { capabilities = ["read"] }"#).await;
    let at = "sys/internal/specs/openapi";
    let answer = reader.read(at).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let (own, whole) = (answer.json(), world.broker.root().read(at).await.json());
    assert_eq!(own["openapi"], "3.1.0");
    assert!(paths(&own).contains(&"/secret/data/{path}"));
    assert!(paths(&own).contains(&"/sys/health"));
    assert!(!paths(&own).iter().any(|path| path.starts_with("/database/")), "{:?}", paths(&own));
    assert!(paths(&whole).contains(&"/database/creds/{name}"));
    let audited = world.broker.audited(&answer).to_string();
    assert!(audited.len() < 4096, "the document is not in the audit: {} bytes", audited.len());

    let generic = reader.read(&format!("{at}?generic_mount_paths=true")).await.json();
    assert!(paths(&generic).contains(&"/{kv_v2_mount_path}/data/{path}"));
    assert!(!generic.to_string().contains("secret/data"), "no mount is named");
    world.broker.nobody().read(at).await.error(403);
}

#[tokio::test]
async fn every_path_answers_help_to_who_can_see_it() {
    let world = shared().await;
    let (reader, _) = world.workload(r#"path "secret/data/x" { capabilities = ["read"] }"#).await;
    for (path, says) in [
        ("secret/data/x", "Read, write, patch and delete versions of a secret."),
        ("secret", "secret/subkeys/*path"),
        ("sys", "sys/leases/revoke-force/*prefix"),
        ("sys/unseal", "takes in one unseal share"),
        ("sys/leases/lookup", "lease_id (text)"),
        ("auth/token/create", "Make a token."),
        ("identity/entity/id/x", "One entity."),
    ] {
        let answer = reader.read(&format!("{path}?help=1")).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
        assert!(world.broker.audited(&answer).to_string().len() < 4096, "the audit has no copy");
        let answer = answer.json();
        let help = answer["help"].as_str().unwrap();
        assert!(help.contains(says), "{path}: {help}");
        assert!(!paths(&answer["openapi"]).is_empty(), "{path}");
        assert!(answer["see_also"].is_array());
    }
    let near = reader.read("sys/leases/lookup?help=1").await.json();
    let near = near["see_also"].as_array().unwrap();
    assert!(near.iter().any(|path| path == "sys/leases/renew"), "{near:?}");
    // Whether a mount is there is nobody's business who has none with it.
    for hidden in ["database/creds/reader", "nowhere/at/all"] {
        reader.read(&format!("{hidden}?help=1")).await.error(403);
    }
    world.broker.root().read("secret/nowhere?help=1").await.error(404);
    world.broker.nobody().read("secret/data/x?help=1").await.error(403);
    // A write says nothing about itself.
    world.broker.root().write("secret/data/x?help=1", Value::Null).await.error(400);
}
