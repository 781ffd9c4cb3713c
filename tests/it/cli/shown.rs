//! Requests that are shown instead of sent, and the commands that look after the server.

use std::process::Command;

use serde_json::json;

use super::dev::{Dev, fresh};
use super::{leasehold, text};

/// Runs a line in a shell that finds the program.
fn shell(dev: &Dev, line: &str) -> std::process::Output {
    let program = leasehold(&[]).get_program().to_owned();
    let bin = std::path::Path::new(&program).parent().unwrap().to_owned();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let set = dev.as_("admin", &[]);
    let mut command = Command::new("sh");
    command.arg("-c").arg(line).env_clear();
    for (name, value) in set.get_envs() {
        command.env(name, value.unwrap());
    }
    command.env("PATH", path).output().unwrap()
}

#[test]
fn a_request_is_shown_as_curl_that_works_and_holds_no_token() {
    let (_temp, dev) = fresh();
    let made = dev.json("admin", &["token", "create", "-policy=admin"]);
    let token = made["auth"]["client_token"].as_str().unwrap().to_owned();
    // Kept where `print token` finds it.
    dev.ok("admin", &["login", &token]);
    let put = ["kv", "put", "-output-curl-string", "secret/shown", "a=it's $HOME", "b=2"];
    let line = dev.ok("admin", &put);
    assert!(line.starts_with("curl ") && line.lines().count() == 1, "{line}");
    assert!(!line.contains(&token), "{line}");
    assert_eq!(dev.run("admin", &["kv", "get", "secret/shown"]).status.code(), Some(2));
    let output = shell(&dev, &format!("{} --fail --silent", line.trim()));
    assert!(output.status.success(), "{line}\n{}", text(&output.stderr));
    let kept = dev.json("admin", &["kv", "get", "secret/shown"])["data"]["data"].clone();
    assert_eq!(kept, json!({ "a": "it's $HOME", "b": "2" }));

    for args in [
        &["read", "auth/token/lookup-self"][..],
        &["token", "lookup", &token],
        &["token", "revoke", &token],
        &["write", "kv/x", &format!("a={token}")],
        &["read", &format!("kv/{token}")],
        &["unwrap", &token],
        &["list", "-wrap-ttl=5m", "secret/metadata"],
    ] {
        let line = dev.ok("admin", &[args, &["-output-curl-string"]].concat());
        assert!(line.starts_with("curl ") && !line.contains(&token), "{args:?}: {line}");
    }
    dev.ok("admin", &["token", "lookup"]);
    let both = dev.run("admin", &["read", "-output-curl-string", "-output-policy", "x"]);
    assert_eq!(both.status.code(), Some(1));
    let many = dev.run("admin", &["apply", "-output-curl-string", "-f", "nothing.toml"]);
    assert_eq!(many.status.code(), Some(1), "{}", text(&many.stderr));
    assert!(text(&many.stderr).contains("more than one request"), "{}", text(&many.stderr));
}

#[test]
fn the_policy_that_a_request_needs_is_enough_for_it() {
    let (temp, dev) = fresh();
    let file = temp.path().join("needed.hcl");
    for (number, args) in [
        &["kv", "get", "secret/hello"][..],
        &["kv", "put", "secret/hello", "a=b"],
        &["list", "secret/metadata"],
        &["read", "sys/host-info"],
        &["audit", "list"],
        &["version-history"],
    ]
    .into_iter()
    .enumerate()
    {
        dev.ok("admin", &["kv", "put", "secret/hello", "a=b"]);
        let policy = dev.ok("admin", &[args, &["-output-policy"]].concat());
        std::fs::write(&file, &policy).unwrap();
        let name = format!("needed-{number}");
        dev.ok("admin", &["policy", "write", &name, file.to_str().unwrap()]);
        // Asking what kind of mount it is needs some business there, which this is.
        let made = dev.json("admin", &["token", "create", &format!("-policy={name}")]);
        let token = made["auth"]["client_token"].as_str().unwrap();
        let output = dev.as_("admin", args).env("LEASEHOLD_TOKEN", token).output().unwrap();
        assert!(output.status.success(), "{args:?}\n{policy}{}", text(&output.stderr));
    }
}

#[test]
fn quotas_audit_and_versions_are_looked_after() {
    let (_temp, dev) = fresh();
    let version = env!("CARGO_PKG_VERSION");
    assert!(dev.ok("admin", &["version-history"]).contains(version));
    assert_eq!(dev.json("admin", &["version-history"])["keys"], json!([version]));
    let said = dev.refused("admin", &["operator", "step-down"]);
    assert!(said.contains("every node is active"), "{said}");

    let limit = ["quota", "rate-limit"];
    let rate = |args: &[&str]| dev.ok("admin", &[&limit[..], args].concat());
    rate(&["create", "web", "-path=secret", "-rate=50.5", "-interval=2s", "-group-by=ip"]);
    rate(&["create", "web", "-block-interval=1m"]);
    assert_eq!(rate(&["list", "-format=yaml"]).trim(), "- web");
    let shown = dev.json("admin", &["quota", "rate-limit", "read", "web"])["data"].clone();
    assert_eq!((&shown["rate"], &shown["interval"]), (&json!(50.5), &json!(2)));
    assert_eq!((&shown["block_interval"], &shown["group_by"]), (&json!(60), &json!("ip")));
    rate(&["delete", "web"]);
    dev.refused("admin", &["quota", "rate-limit", "read", "web"]);
    dev.ok("admin", &["quota", "lease-count", "create", "db", "-path=database", "-max-leases=7"]);
    dev.ok("admin", &["quota", "lease-count", "create", "db", "-group-by=entity"]);
    let read = ["quota", "lease-count", "read", "db", "-field=group_by"];
    assert_eq!(dev.ok("admin", &read).trim(), "entity");
    assert_eq!(
        dev.ok("admin", &["quota", "lease-count", "read", "db", "-field=max_leases"]).trim(),
        "7"
    );
    assert!(dev.ok("admin", &["quota", "lease-count", "list"]).contains("db"));
    dev.ok("admin", &["quota", "lease-count", "delete", "db"]);
    let wrong = dev.refused("admin", &["quota", "lease-count", "create", "db", "-path=nowhere"]);
    assert!(wrong.contains("max_leases") || wrong.contains("path"), "{wrong}");

    let sinks = dev.json("admin", &["audit", "list"]);
    let (path, sink) =
        sinks.as_object().unwrap().iter().find(|(_, one)| one.get("type").is_some()).unwrap();
    let name = path.trim_end_matches('/');
    let file = format!("file_path={}", sink["options"]["file_path"].as_str().unwrap());
    dev.ok("admin", &["audit", "enable", &format!("-path={name}"), "file", &file]);
    let said = dev.refused("admin", &["audit", "enable", "-path=other", "file", "file_path=/x"]);
    assert!(said.contains("[[audit]]"), "{said}");
    let said = dev.refused("admin", &["audit", "disable", name]);
    assert!(said.contains("[[audit]]"), "{said}");
}
