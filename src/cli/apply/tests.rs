//! Documents: what is understood, and how mistakes are named.

use std::path::Path;

use serde_json::json;

use super::document::{Document, Wanted, parse};
use super::secrets::Source;

fn read(text: &str) -> Document {
    match parse(text, Path::new("/etc/broker")) {
        Ok(document) => document,
        Err(problems) => panic!("{problems:?}"),
    }
}

fn mistakes(text: &str) -> Vec<String> {
    match parse(text, Path::new("/etc/broker")) {
        Ok(document) => panic!("{document:?}"),
        Err(problems) => problems.iter().map(ToString::to_string).collect(),
    }
}

#[test]
fn everything_keeps_the_order_of_the_document() {
    let document = read(
        r#"
        [config."database/config/main"]
        plugin_name = "postgresql-database-plugin"
        password = { from_env = "PW" }
        tls_ca = { from_file = "ca.pem" }

        [mounts.zebra]
        type = "kv-v2"
        tune = { default_lease_ttl = "1h" }
        [mounts."a/b/"]
        type = "database"

        [config."auth/approle/role/web"]
        token_policies = ["a"]
        token_ttl = 60
        metadata = { env = "prod", file = "x" }
        mount_accessor = { from_read = "sys/auth/approle", field = "accessor" }
        members = [{ from_read = "identity/entity/name/a", field = "id" }]
        "#,
    );
    let paths: Vec<_> = document.mounts.iter().map(|mount| mount.path.as_str()).collect();
    assert_eq!(paths, ["zebra", "a/b"]);
    assert_eq!(document.mounts[0].kind, "kv");
    assert_eq!(document.mounts[0].options["version"], json!("2"));
    let paths: Vec<_> = document.config.iter().map(|object| object.path.as_str()).collect();
    assert_eq!(paths, ["database/config/main", "auth/approle/role/web"]);
    let [_, (_, password), (_, ca)] = document.config[0].fields.as_slice() else { panic!() };
    assert!(matches!(password, Wanted::Secret(Source::Env(name)) if name == "PW"));
    let file = Path::new("/etc/broker/ca.pem");
    assert!(matches!(ca, Wanted::Secret(Source::File(path)) if path == file));
    let [_, (_, ttl), (_, metadata), (_, accessor), (_, members)] =
        document.config[1].fields.as_slice()
    else {
        panic!()
    };
    assert!(matches!(members, Wanted::Answers(asks) if asks.len() == 1));
    assert!(matches!(ttl, Wanted::Plain(value) if *value == json!(60)));
    assert!(matches!(metadata, Wanted::Plain(value) if value["env"] == "prod"));
    assert!(matches!(accessor, Wanted::Answer(ask) if ask.field == "accessor"));
}

#[test]
fn every_mistake_is_named_with_its_line_and_column() {
    for (text, at, word) in [
        ("x = 1", "line 1, column 1", "unknown key x"),
        ("[mounts.kv]\ntype = \"kv\"\n  tipe = 1", "line 3, column 3", "known here: type"),
        ("[mounts.kv]\ntype = \"kv\"\ntune = { ttl = 1 }", "line 3, column 10", "unknown key ttl"),
        ("[mounts.kv]\ntype = 7", "line 2, column 8", "must be a string"),
        ("[mounts.kv]", "line 1, column 9", "type is required"),
        ("[mounts]\nkv = 1", "line 2, column 6", "must be a table"),
        ("[mounts.\"a/../b\"]\ntype = \"kv\"", "line 1, column 9", "no usable name"),
        ("[mounts.a]\ntype=\"kv\"\n[mounts.\"a/\"]\ntype=\"kv\"", "line 3", "stands here twice"),
        ("[policies.p]", "line 1, column 11", "policy or file is required"),
        ("[policies.p]\npolicy = \"\"\nfile = \"/dev/null\"", "line 1", "not both"),
        ("[policies.p]\nfile = \"/no/such\"", "line 2, column 8", "cannot read /no/such"),
        ("[quotas.speed.x]\nrate = 1", "line 1, column 9", "unknown key speed"),
        ("[config.\"auth/a/role/r\"]", "line 1, column 9", "at least one field"),
        ("[config.\"sys/auth/x\"]\ntype = \"a\"", "line 1", "belongs into [auth]"),
        ("[config.\"sys/policies/acl/x\"]\npolicy = \"a\"", "line 1", "belongs into [policies]"),
        ("[config.\"sys/seal\"]\na = 1", "line 1", "not configuration"),
        ("[config.\"d/config/m\"]\npassword = \"hunter2\"", "line 2, column 1", "from_env"),
        (
            "[config.\"d/config/m\"]\nconnection_url = \"postgresql://u:hunter2@h/d\"",
            "line 2, column 1",
            "holds a secret",
        ),
        (
            "[config.\"a/b\"]\nx = { from_env = \"A\", from_file = \"B\" }",
            "line 2",
            "a reference is",
        ),
        ("[config.\"a/b\"]\nx = { from_env = \"A\", as = \"B\" }", "line 2", "unknown key as"),
        (
            "[config.\"a/b\"]\nx = { from_read = \"secret/data/x\", field = \"y\" }",
            "line 2",
            "below",
        ),
        ("[config.\"a/b\"]\nx = [{ from_env = \"A\" }]", "line 2, column 6", "all or none"),
        ("[config.\"a/b\"]\nx = [2026-01-01]", "line 2, column 6", "in quotes"),
        ("[mounts.kv\n", "line 1", "not TOML"),
    ] {
        let found = mistakes(text);
        let hit = found.iter().any(|one| one.starts_with(at) && one.contains(word));
        assert!(hit, "{text:?}: expected {at}: {word}, got {found:?}");
        assert!(!found.iter().any(|one| one.contains("hunter2")), "{found:?}");
    }
}

#[test]
fn all_mistakes_are_named_at_once_in_the_order_of_the_text() {
    let found = mistakes("[mounts.a]\ntyp = 1\n[policies.p]\n[quotas.x.y]\n");
    let lines: Vec<_> = found.iter().map(|one| one.split(',').next().unwrap()).collect();
    assert_eq!(lines, ["line 1", "line 2", "line 3", "line 4"], "{found:?}");
}
