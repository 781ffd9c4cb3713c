//! The program as a user runs it, where it needs no server.

mod apply;
mod demo;
mod dev;
mod lease;
mod shown;
mod transit;

use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;

use leasehold::audit::file::{FileSink, FileSinkConfig, SyncPolicy};
use leasehold::cli::ca::Authority;
use leasehold::cli::throwaway_postgres::{SUPERUSER, ThrowawayPostgres};
use leasehold::core::audit::broker::{AuditBroker, BrokerConfig};
use leasehold::types::time::{Clock, SystemClock};
use serde_json::json;

fn leasehold(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_leasehold"));
    command.args(args).env_clear();
    command
}

fn run(args: &[&str]) -> Output {
    leasehold(args).output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

fn openssl(args: &[&str]) -> String {
    let output = Command::new("openssl").args(args).output().unwrap();
    assert!(output.status.success(), "openssl {args:?}: {}", text(&output.stderr));
    text(&output.stdout).to_owned()
}

#[test]
fn the_version_is_data() {
    let output = run(&["version"]);
    assert!(output.status.success());
    assert_eq!(text(&output.stdout), concat!("leasehold ", env!("CARGO_PKG_VERSION"), "\n"));
}

#[test]
fn completions_are_made_for_every_shell_and_name_the_commands() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let output = run(&["completion", shell]);
        assert!(output.status.success(), "{shell}");
        assert!(text(&output.stdout).contains("generate-root"), "{shell}");
    }
}

#[test]
fn a_wrong_command_or_flag_exits_with_one_and_says_so_on_standard_error() {
    for args in
        [&["nosuch"][..], &["read"], &["write", "-nosuch", "x"], &["read", "-format=x", "p"]]
    {
        let output = run(args);
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{args:?}");
    }
}

#[test]
fn no_server_is_a_local_failure_with_a_hint() {
    let dir = tempfile::tempdir().unwrap();
    Authority::create(SystemClock.now()).unwrap().save(dir.path()).unwrap();
    // A port that was free a moment ago, with nobody behind it.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("https://{}", listener.local_addr().unwrap());
    drop(listener);
    let output = leasehold(&["status"])
        .env("LEASEHOLD_ADDR", &address)
        .env("LEASEHOLD_CACERT", dir.path().join("ca.pem"))
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let lines: Vec<&str> = text(&output.stderr).lines().collect();
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(lines[0].starts_with(&format!("error: cannot connect to {address}")), "{lines:?}");
    assert!(lines[1].starts_with("hint: ") && lines[1].contains("LEASEHOLD_ADDR"), "{lines:?}");
}

fn dev_cert(dir: &Path, args: &[&str]) -> Output {
    leasehold(&["dev", "cert", "--dir"]).arg(dir).args(args).output().unwrap()
}

#[test]
fn dev_certificates_satisfy_openssl() {
    let dir = tempfile::tempdir().unwrap();
    Authority::create(SystemClock.now()).unwrap().save(dir.path()).unwrap();
    let id = "spiffe://dev.leasehold.internal/workload/web";
    let output = dev_cert(
        dir.path(),
        &["--uri", id, "--dns", "web.internal", "--cn", "web", "--ttl", "1h", "--out", "web"],
    );
    assert!(output.status.success(), "{}", text(&output.stderr));
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    openssl(&[
        "verify",
        "-x509_strict",
        "-purpose",
        "sslclient",
        "-CAfile",
        &path("ca.pem"),
        &path("web.pem"),
    ]);
    let shown = openssl(&["x509", "-in", &path("web.pem"), "-noout", "-text"]);
    for part in [
        &format!("URI:{id}, DNS:web.internal"),
        "X509v3 Key Usage: critical\n                Digital Signature\n",
        "TLS Web Client Authentication",
        "CA:FALSE",
        "CN = web",
    ] {
        assert!(shown.contains(part), "no {part:?} in {shown}");
    }
    let public = openssl(&["x509", "-in", &path("web.pem"), "-noout", "-pubkey"]);
    assert_eq!(openssl(&["pkey", "-in", &path("web.key"), "-pubout"]), public);
}

#[test]
fn dev_certificates_are_not_made_from_nonsense() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dev_cert(dir.path(), &["--cn", "x", "--out", "x"]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(text(&missing.stderr).contains("ca.pem"), "{}", text(&missing.stderr));

    Authority::create(SystemClock.now()).unwrap().save(dir.path()).unwrap();
    for (args, word) in [
        (&["--out", "x"][..], "needs a URI"),
        (&["--uri", "http://x/y", "--out", "x"], "spiffe://"),
        (&["--cn", "x", "--ttl=-1h", "--out", "x"], "negative"),
        (&["--cn", "x", "--ttl", "0", "--out", "x"], "zero"),
        (&["--cn", "x", "--out", "ca"], "not a name"),
    ] {
        let output = dev_cert(dir.path(), args);
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        assert!(text(&output.stderr).contains(word), "{args:?}: {}", text(&output.stderr));
    }
    assert!(!dir.path().join("x.pem").exists());
    assert!(dev_cert(dir.path(), &["--cn", "x", "--out", "x"]).status.success());
}

async fn can_log_in(port: u16, password: &str) -> bool {
    let mut config = tokio_postgres::Config::new();
    config.host("127.0.0.1").port(port).user(SUPERUSER).password(password).dbname("postgres");
    let Ok((client, connection)) = config.connect(tokio_postgres::NoTls).await else {
        return false;
    };
    let driver = tokio::spawn(connection);
    let answer = client.query_one("SELECT 1", &[]).await;
    drop(client);
    driver.await.unwrap().unwrap();
    answer.is_ok()
}

#[tokio::test]
async fn a_throwaway_postgres_asks_for_its_password_and_is_gone_when_dropped() {
    let server = ThrowawayPostgres::start().await.unwrap();
    let (port, password) = (server.port(), server.password().duplicate());
    assert!(can_log_in(port, password.expose()).await);
    assert!(!can_log_in(port, "wrong").await);
    drop(server);
    assert!(!can_log_in(port, password.expose()).await);
}

/// An audit log with five entries, and the record of its end beside it.
async fn audit_log(path: &Path) {
    let config = FileSinkConfig {
        name: "f".into(),
        path: path.into(),
        sync: SyncPolicy::Always,
        lend: false,
    };
    let sink = FileSink::open(config, Arc::new(SystemClock)).unwrap();
    let broker =
        AuditBroker::new(vec![Arc::new(sink)], BrokerConfig::default(), Arc::new(SystemClock))
            .unwrap();
    for n in 0..5 {
        broker.record_event("tested", &json!({ "n": n })).await.unwrap();
    }
    broker.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn audit_verify_names_an_edited_a_removed_and_a_moved_line() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("audit.log");
    audit_log(&log).await;
    let intact = std::fs::read_to_string(&log).unwrap();
    let lines: Vec<&str> = intact.lines().collect();
    let verify = |lines: &[&str]| {
        std::fs::write(&log, format!("{}\n", lines.join("\n"))).unwrap();
        leasehold(&["audit", "verify"]).arg(&log).output().unwrap()
    };
    let output = verify(&lines);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(text(&output.stdout).starts_with(&format!("Success! {} entries", lines.len())));

    let edited = lines[2].replacen("tested", "teased", 1);
    assert_ne!(edited, lines[2]);
    let mut with_edit = lines.clone();
    with_edit[2] = &edited;
    let mut without_third = lines.clone();
    without_third.remove(2);
    let mut swapped = lines.clone();
    swapped.swap(2, 3);
    let cut = &lines[..lines.len() - 1];
    for (lines, place, word) in [
        (&with_edit[..], 3, "was edited"),
        (&without_third, 3, "are missing before"),
        (&swapped, 4, "out of order"),
        (cut, cut.len(), "are missing after"),
    ] {
        let output = verify(lines);
        assert_eq!(output.status.code(), Some(1), "{word}");
        let named = text(&output.stdout);
        assert!(named.contains(&format!("audit.log:{place}:")), "{word}: {named}");
        assert!(named.contains(word), "{word}: {named}");
    }
}

#[test]
fn the_document_of_this_version_needs_no_server() {
    let output = run(&["openapi"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
    assert!(document["paths"].get("/{database_mount_path}/creds/{name}").is_some());
}
