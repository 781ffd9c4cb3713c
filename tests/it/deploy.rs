//! What is shipped for deployment.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap()
}

#[test]
fn the_service_is_confined() {
    let analyzed = Command::new("systemd-analyze")
        .args(["security", "--offline=true", "--no-pager", "--threshold=20"])
        .arg(root().join("deploy/leasehold.service"))
        .output();
    match analyzed {
        // Ten times the exposure level: 20 is 2.0.
        Ok(output) => {
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout))
        }
        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::NotFound, "{error}"),
    }
}

#[test]
fn the_service_gives_the_program_what_it_asks_for() {
    let unit = read("deploy/leasehold.service");
    for line in [
        "Type=notify",
        "ExecReload=/bin/kill -HUP $MAINPID",
        "LimitMEMLOCK=infinity",
        "LimitCORE=0",
        "MemorySwapMax=0",
    ] {
        assert!(unit.lines().any(|l| l == line), "{line}");
    }
}

#[test]
fn the_image_is_built_with_the_rust_that_the_package_asks_for_and_runs_as_nobody() {
    let package: toml::Table = read("Cargo.toml").parse().unwrap();
    let version = package["package"]["rust-version"].as_str().unwrap();
    let image = read("deploy/Dockerfile");
    assert!(image.contains(&format!("FROM rust:{version}-")), "{version}");
    let last = image.rsplit("\nFROM ").next().unwrap();
    assert!(last.starts_with("scratch\n") && last.contains("\nUSER 65532:65532\n"));
}

/// The blocks of the guide that follow a line `<!-- tested: NAME -->`, in order.
fn tested_blocks(name: &str) -> Vec<String> {
    let guide = read("deploy/README.md");
    let marker = format!("<!-- tested: {name} -->\n");
    let blocks = guide.split(&marker).skip(1).map(|after| {
        let body = after.split("```").nth(1).unwrap();
        body.split_once('\n').unwrap().1.to_owned()
    });
    blocks.collect()
}

fn run_in(dir: &Path, script: &str) {
    let output = Command::new("bash")
        .args(["-euo", "pipefail", "-c", script])
        .current_dir(dir)
        .env("CA_PASSPHRASE", "of the test")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{script}\n{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

/// The guide's authority and its configuration, made by the guide's own commands, pass the server's
/// own check.
#[test]
fn the_guide_leads_to_a_configuration_that_is_good() {
    let dir = tempfile::tempdir().unwrap();
    let scripts = tested_blocks("authority");
    assert!(scripts.len() >= 4, "the guide lost its blocks");
    for script in scripts {
        run_in(dir.path(), &script);
    }
    for (list, certificate) in [("-crl_check", "revoked"), ("-crl_check", "admin")] {
        let verified = Command::new("openssl")
            .args(["verify", list, "-CAfile", "ca.pem", "-CRLfile", "ca.crl"])
            .arg(format!("{certificate}.pem"))
            .current_dir(dir.path())
            .output()
            .unwrap();
        assert_eq!(verified.status.success(), certificate == "admin", "{certificate}");
    }
    let [configuration] = &tested_blocks("configuration")[..] else { panic!("one is expected") };
    let here = dir.path().display();
    let configuration = configuration
        .replace("/etc/leasehold/tls/", &format!("{here}/"))
        .replace("/etc/leasehold/trust/example.org.pem", &format!("{here}/ca.pem"))
        .replace("/etc/leasehold/trust/example.org.crl", &format!("{here}/ca.crl"))
        .replace("/etc/leasehold/", &format!("{here}/"))
        .replace("/run/credentials/leasehold.service/", &format!("{here}/"));
    assert!(!configuration.contains("\"/etc/"), "a path has no file: {configuration}");
    fs::write(dir.path().join("database-url"), "postgresql://leasehold:x@db.example.org/l")
        .unwrap();
    fs::copy(dir.path().join("ca.pem"), dir.path().join("database-ca.pem")).unwrap();
    fs::write(dir.path().join("leasehold.toml"), configuration).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_leasehold"))
        .args(["server", "--check", "--config"])
        .arg(dir.path().join("leasehold.toml"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
