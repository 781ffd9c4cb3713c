//! A development broker and the commands against it, as users run them.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};

use leasehold::crypto::otp::{TotpParameters, decode_secret};
use leasehold::types::time::{Clock, SystemClock};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use super::{leasehold, text};

/// `leasehold dev` in a directory, stopped when dropped.
pub struct Dev {
    child: Child,
    // Kept open: a broker whose output nobody reads must not be what is tested.
    _out: BufReader<ChildStdout>,
    printed: Vec<String>,
    address: String,
    dir: PathBuf,
    home: TempDir,
}

impl Dev {
    pub fn start(dir: &Path) -> Self {
        let mut child = leasehold(&["dev", "-listen=127.0.0.1:0", "-dir"])
            .arg(dir)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut printed = Vec::new();
        let address = loop {
            let mut line = String::new();
            assert_ne!(out.read_line(&mut line).unwrap(), 0, "it ended: {printed:?}");
            match line.strip_prefix("ready ") {
                Some(address) => break address.trim().to_owned(),
                None => printed.push(line.trim().to_owned()),
            }
        };
        let home = TempDir::new().unwrap();
        Self { child, _out: out, printed, address, dir: dir.to_owned(), home }
    }

    /// Its directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// A command as `who`, by the certificate of the directory.
    pub fn as_(&self, who: &str, args: &[&str]) -> Command {
        let mut command = leasehold(args);
        command
            .env("HOME", self.home.path())
            .env("LEASEHOLD_ADDR", &self.address)
            .env("VAULT_CACERT", self.dir.join("ca.pem"))
            .env("LEASEHOLD_CLIENT_CERT", self.dir.join(format!("{who}.pem")))
            .env("LEASEHOLD_CLIENT_KEY", self.dir.join(format!("{who}.key")));
        command
    }

    pub fn run(&self, who: &str, args: &[&str]) -> Output {
        self.as_(who, args).output().unwrap()
    }

    #[track_caller]
    pub fn ok(&self, who: &str, args: &[&str]) -> String {
        let output = self.run(who, args);
        assert!(output.status.success(), "{args:?}: {}", text(&output.stderr));
        text(&output.stdout).to_owned()
    }

    #[track_caller]
    pub fn json(&self, who: &str, args: &[&str]) -> Value {
        serde_json::from_str(&self.ok(who, &[&["-format=json"], args].concat())).unwrap()
    }

    #[track_caller]
    pub fn refused(&self, who: &str, args: &[&str]) -> String {
        let output = self.run(who, args);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {}", text(&output.stdout));
        text(&output.stderr).to_owned()
    }

    fn file(&self, name: &str) -> String {
        std::fs::read_to_string(self.dir.join(name)).unwrap()
    }

    fn keys(&self) -> Vec<String> {
        let keys: Value = serde_json::from_str(&self.file("unseal-keys.json")).unwrap();
        let keys = keys["keys_base64"].as_array().unwrap();
        keys.iter().map(|key| key.as_str().unwrap().to_owned()).collect()
    }

    fn stop(mut self) -> bool {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
        self.child.wait().unwrap().success()
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        // After `stop` there is nothing left to kill.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A new one in a directory of its own.
pub fn fresh() -> (TempDir, Dev) {
    let temp = TempDir::new().unwrap();
    let dev = Dev::start(&temp.path().join("dev"));
    (temp, dev)
}

#[test]
fn what_dev_prints_can_be_pasted_into_a_shell() {
    let (_temp, dev) = fresh();
    let commands: Vec<&String> = dev
        .printed
        .iter()
        .filter(|line| line.contains("leasehold ") || line.starts_with("curl"))
        .collect();
    assert!(commands.len() >= 5, "{:?}", dev.printed);
    let start = dev.printed.iter().position(|line| line.starts_with('#')).unwrap();
    let script = format!("set -e\n{}", dev.printed[start..].join("\n"));
    let output = Command::new("sh").arg("-c").arg(&script).output().unwrap();
    assert!(output.status.success(), "{script}\n{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("hello"), "{}", text(&output.stdout));
    assert!(dev.dir.join("web.pem").exists());
}

#[test]
fn the_directory_holds_what_scripts_expect_and_a_second_start_goes_on_with_it() {
    let (_temp, dev) = fresh();
    for name in [
        "ca.pem",
        "admin.pem",
        "admin.key",
        "workload.pem",
        "workload.key",
        "root-token",
        "unseal-keys.json",
    ] {
        let mode = std::fs::metadata(dev.dir.join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    dev.ok("admin", &["kv", "put", "secret/kept", "a=1"]);
    let (dir, token) = (dev.dir.clone(), dev.file("root-token"));
    assert!(dev.stop());

    let dev = Dev::start(&dir);
    assert_eq!(dev.file("root-token"), token);
    assert_eq!(dev.ok("workload", &["kv", "get", "-field=a", "secret/kept"]), "1");
    let mut root = dev.as_("admin", &["token", "lookup", "-field=policies"]);
    let output = root.env("LEASEHOLD_TOKEN", &token).output().unwrap();
    assert_eq!(text(&output.stdout), r#"["root"]"#);
}

#[test]
fn keys_of_another_store_are_never_overwritten() {
    let (_temp, dev) = fresh();
    let (dir, keys) = (dev.dir.clone(), dev.file("unseal-keys.json"));
    assert!(dev.stop());
    std::fs::remove_file(dir.join("leasehold.db")).unwrap();
    let output = leasehold(&["dev", "-listen=127.0.0.1:0", "-dir"]).arg(&dir).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stdout));
    assert!(!text(&output.stdout).contains("ready"));
    assert_eq!(std::fs::read_to_string(dir.join("unseal-keys.json")).unwrap(), keys);
}

#[test]
fn versions_of_a_secret_are_written_checked_deleted_and_brought_back() {
    let (_temp, dev) = fresh();
    let at = "secret/app/db";
    dev.ok("admin", &["kv", "put", "-cas=0", at, "user=u", "password=first"]);
    let written = dev.json("admin", &["kv", "put", "-cas=1", at, "user=u", "password=second"]);
    assert_eq!(written["data"]["version"], 2);
    let stale = dev.refused("admin", &["kv", "put", "-cas=1", at, "password=third"]);
    assert!(stale.contains("-cas"), "{stale}");
    dev.ok("admin", &["kv", "patch", at, "host=h"]);
    let read = dev.json("workload", &["kv", "get", at]);
    let expected = serde_json::json!({"user": "u", "password": "second", "host": "h"});
    assert_eq!(read["data"]["data"], expected);
    assert_eq!(dev.ok("admin", &["kv", "get", "-version=1", "-field=password", at]), "first");
    assert_eq!(
        dev.json("admin", &["kv", "list", "-mount=secret", "app"]),
        serde_json::json!(["db"])
    );

    dev.ok("admin", &["kv", "delete", at]);
    let deleted = dev.run("admin", &["kv", "get", at]);
    assert_eq!(deleted.status.code(), Some(2));
    assert!(text(&deleted.stdout).contains("deletion_time"), "{}", text(&deleted.stdout));
    dev.ok("admin", &["kv", "undelete", "-versions=3", at]);
    dev.ok("admin", &["kv", "rollback", "-version=1", at]);
    assert_eq!(dev.ok("admin", &["kv", "get", "-field=password", at]), "first");
    dev.ok("admin", &["kv", "metadata", "put", "-custom-metadata=team=a", at]);
    dev.ok("admin", &["kv", "destroy", "-versions=1,2", at]);
    let metadata = dev.json("admin", &["kv", "metadata", "get", at]);
    assert_eq!(metadata["data"]["versions"]["1"]["destroyed"], true);
    assert_eq!(metadata["data"]["custom_metadata"]["team"], "a");
    dev.ok("admin", &["kv", "metadata", "delete", at]);
    dev.refused("admin", &["kv", "get", at]);
}

#[test]
fn the_unversioned_store_is_told_apart() {
    let (_temp, dev) = fresh();
    dev.ok("admin", &["secrets", "enable", "-path=team/plain", "-version=1", "kv"]);
    dev.ok("admin", &["kv", "put", "team/plain/a", "x=1"]);
    assert_eq!(dev.ok("admin", &["kv", "get", "-field=x", "team/plain/a"]), "1");
    let output = dev.run("admin", &["kv", "undelete", "-versions=1", "team/plain/a"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("version 1"), "{}", text(&output.stderr));
    dev.ok("admin", &["secrets", "move", "team/plain", "team/moved"]);
    assert_eq!(dev.ok("admin", &["kv", "get", "-field=x", "team/moved/a"]), "1");
    dev.ok("admin", &["secrets", "disable", "team/moved"]);
    assert!(!dev.ok("admin", &["secrets", "list"]).contains("team/"));
}

#[test]
fn a_narrow_token_reads_its_path_and_nothing_else() {
    let (_temp, dev) = fresh();
    dev.ok("admin", &["kv", "put", "secret/reports/nightly", "a=1"]);
    let token = dev.ok(
        "workload",
        &["token", "create", "-field=token", "-ttl=60s", "-scope=read:secret/data/reports/*"],
    );
    let with_token =
        |args: &[&str]| dev.as_("workload", args).env("VAULT_TOKEN", &token).output().unwrap();
    assert!(with_token(&["read", "secret/data/reports/nightly"]).status.success());
    let refused = with_token(&["read", "secret/data/hello"]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(text(&refused.stderr).starts_with("error: permission denied"));
    // The certificate alone may still do it, when the token is left out.
    assert!(with_token(&["-no-token", "read", "secret/data/hello"]).status.success());
    assert_eq!(dev.ok("admin", &["token", "capabilities", &token, "secret/data/hello"]), "deny\n");
    dev.ok("admin", &["token", "revoke", &token]);
    assert_eq!(with_token(&["token", "lookup"]).status.code(), Some(2));
}

#[test]
fn login_keeps_a_token_that_only_this_certificate_can_use() {
    let (_temp, dev) = fresh();
    dev.ok("admin", &["login"]);
    assert_eq!(dev.json("admin", &["token", "lookup"])["data"]["type"], "service");
    // The same home, another certificate: the token is bound to the first.
    dev.refused("workload", &["token", "lookup"]);
    let token = std::fs::read_to_string(dev.home.path().join(".leasehold-token")).unwrap();
    dev.ok("admin", &["token", "revoke", "-self"]);
    dev.refused("admin", &["token", "lookup"]);
    assert!(token.starts_with("lhs."), "{token}");
}

#[test]
fn login_with_a_password_reads_it_from_a_file_or_a_pipe() {
    let (_temp, dev) = fresh();
    let file = dev.home.path().join("password");
    std::fs::write(&file, "correct horse\n").unwrap();
    let at = format!("password=@{}", file.display());
    dev.ok("admin", &["auth", "enable", "userpass"]);
    let user = "auth/userpass/users/ann";
    dev.ok("admin", &["write", user, "password=correct horse", "token_policies=default"]);
    let login = ["login", "-method=userpass", "-token-only", "username=ann"];
    let token = dev.ok("workload", &[&login[..], &[&at]].concat());
    assert!(token.starts_with("lhs."), "{token}");
    dev.refused("workload", &[&login[..], &["password=wrong"]].concat());
    // Without a terminal it would come from standard input, which is empty here.
    assert_eq!(dev.run("workload", &login).status.code(), Some(1));
    dev.ok("workload", &["login", "-method=userpass", "username=ann", &at]);
    assert_eq!(dev.json("workload", &["token", "lookup"])["data"]["meta"]["username"], "ann");
}

#[test]
fn login_shows_the_code_of_a_second_factor_that_is_given_or_piped() {
    let (_temp, dev) = fresh();
    dev.ok("admin", &["auth", "enable", "userpass"]);
    let user = "auth/userpass/users/ann";
    dev.ok("admin", &["write", user, "password=correct horse", "token_policies=default"]);
    let login =
        ["login", "-method=userpass", "-no-store", "username=ann", "password=correct horse"];
    let first = dev.json("workload", &login);
    let totp = "identity/mfa/method/totp";
    let made = dev.json("admin", &["write", totp, "issuer=x", "method_name=phone", "qr_size=0"]);
    let method = format!("method_id={}", made["data"]["method_id"].as_str().unwrap());
    let entity = format!("entity_id={}", first["auth"]["entity_id"].as_str().unwrap());
    let made = dev.json("admin", &["write", &format!("{totp}/admin-generate"), &method, &entity]);
    let url = made["data"]["url"].as_str().unwrap();
    let secret = url.split("secret=").nth(1).unwrap().split('&').next().unwrap().to_owned();
    let demand = method.replace("method_id", "mfa_method_ids");
    let people = "identity/mfa/login-enforcement/people";
    dev.ok("admin", &["write", people, &demand, "auth_method_types=userpass"]);
    let code = |further: u64| {
        let parameters = TotpParameters::default();
        let step = parameters.step_at(SystemClock.now()) + further;
        parameters.code(&decode_secret(&secret).unwrap(), step).expose().to_owned()
    };
    // Nothing is given, and there is nothing to read it from.
    assert_eq!(dev.run("workload", &login).status.code(), Some(1));
    let wrong = dev.refused("workload", &[&login[..], &["-mfa=phone:12345"]].concat());
    assert!(wrong.contains("the second factor was not proven"), "{wrong}");
    let given = format!("-mfa=phone:{}", code(0));
    let token = dev.ok("workload", &[&login[..], &[&given, "-token-only"]].concat());
    assert!(token.starts_with("lhs."), "{token}");
    let mut child =
        dev.as_("workload", &login).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    writeln!(stdin, "{}", code(1)).unwrap();
    drop(stdin);
    assert!(child.wait_with_output().unwrap().status.success());
}

#[test]
fn login_with_a_secret_id_reads_it_from_a_file() {
    let (_temp, dev) = fresh();
    dev.ok("admin", &["auth", "enable", "approle"]);
    let role = "auth/approle/role/web";
    dev.ok("admin", &["write", role, "role_id=web-1", "token_policies=default"]);
    let made = dev.json("admin", &["write", "-force", &format!("{role}/secret-id")]);
    let file = dev.home.path().join("secret-id");
    std::fs::write(&file, format!("{}\n", made["data"]["secret_id"].as_str().unwrap())).unwrap();
    let at = format!("secret_id=@{}", file.display());
    dev.refused("workload", &["login", "-method=approle", "role_id=web-2", &at]);
    dev.ok("workload", &["login", "-method=approle", "role_id=web-1", &at]);
    assert_eq!(dev.json("workload", &["token", "lookup"])["data"]["meta"]["role_name"], "web");
}

#[test]
fn login_with_a_token_keeps_it_and_refuses_one_that_is_not_good() {
    let (_temp, dev) = fresh();
    let made = dev.json("admin", &["token", "create", "-policy=default", "-display-name=job"]);
    let token = made["auth"]["client_token"].as_str().unwrap();
    dev.refused("admin", &["login", "s.nosuchtokenatall"]);
    assert!(!dev.home.path().join(".leasehold-token").exists());
    assert_eq!(dev.ok("admin", &["login", "-no-print", token]), "");
    let shown = dev.ok("admin", &["-format=yaml", "token", "lookup"]);
    assert!(shown.contains("\n  display_name: token-job\n"), "{shown}");
    let from_environment = |name: &str, form: &str| {
        dev.as_("admin", &["token", "lookup"]).env(name, form).output().unwrap()
    };
    let shown = from_environment("BAO_FORMAT", "yaml").stdout;
    assert!(text(&shown).contains("\n  display_name: token-job\n"));
    assert_eq!(from_environment("VAULT_FORMAT", "xml").status.code(), Some(1));
}

#[test]
fn policies_are_written_read_and_explained() {
    let (_temp, dev) = fresh();
    let file = dev.home.path().join("p.hcl");
    std::fs::write(&file, "path \"secret/data/x\" { capabilities = [\"read\"] }\n").unwrap();
    dev.ok("admin", &["policy", "write", "narrow", file.to_str().unwrap()]);
    assert!(dev.ok("admin", &["policy", "read", "narrow"]).contains("secret/data/x"));
    let explained =
        dev.json("admin", &["policy", "explain", "-policy=narrow", "secret/data/x", "update"]);
    assert_eq!(explained["data"]["allowed"], false);
    assert_eq!(explained["data"]["missing_capability"], "update");
    let own = dev.json("admin", &["policy", "explain", "secret/data/x", "update"]);
    assert_eq!(own["data"]["allowed"], true);
    let shown =
        dev.ok("admin", &["policy", "explain", "-policy=narrow", "secret/data/x", "update"]);
    let stanza = "path \"secret/data/x\" { # narrow\n  capabilities = [\"read\"]\n}\n";
    assert!(shown.starts_with("denied: update on secret/data/x\n"), "{shown}");
    assert!(shown.contains(stanza), "{shown}");
    dev.ok("admin", &["policy", "delete", "narrow"]);
    dev.refused("admin", &["policy", "read", "narrow"]);
}

#[test]
fn an_explanation_is_by_all_that_the_caller_has() {
    let (_temp, dev) = fresh();
    let dir = dev.home.path();
    for (name, path, capabilities) in [
        ("asks", "sys/explain", "\"update\", \"sudo\""),
        ("own", "secret/data/of/{{identity.entity.id}}/*", "\"read\""),
        ("team", "secret/data/{{identity.groups.names.crew.metadata.dir}}/*", "\"read\""),
    ] {
        let file = dir.join(name);
        let text = format!("path \"{path}\" {{ capabilities = [{capabilities}] }}\n");
        std::fs::write(&file, text).unwrap();
        dev.ok("admin", &["policy", "write", name, file.to_str().unwrap()]);
    }
    dev.ok("admin", &["write", "auth/cert/certs/workload", "token_policies=asks,own"]);
    let accessor = dev.json("admin", &["auth", "list"])["cert/"]["accessor"].clone();
    let accessor = format!("mount_accessor={}", accessor.as_str().unwrap());
    let name = "name=spiffe://dev.leasehold.internal/workload/dev";
    let alias = ["write", "identity/entity-alias", name, &accessor];
    let alias = dev.json("admin", &alias);
    let entity = alias["data"]["canonical_id"].as_str().unwrap();
    let members = format!("member_entity_ids={entity}");
    let crew =
        ["write", "identity/group/name/crew", "metadata=dir=ours", "policies=team", &members];
    dev.ok("admin", &crew);
    let allowed = |who: &str, args: &[&str]| {
        let all = [&["policy", "explain"], args].concat();
        dev.json(who, &all)["data"]["allowed"] == Value::Bool(true)
    };
    let (mine, ours) = (format!("secret/data/of/{entity}/x"), "secret/data/ours/x");
    // What the server decides of a certificate, by its role, by its group, and with its own values.
    for path in [mine.as_str(), ours, "cubbyhole/x"] {
        assert!(allowed("workload", &[path]), "{path}");
        assert_ne!(dev.refused("workload", &["read", path]), "");
        assert!(!text(&dev.run("workload", &["read", path]).stderr).contains("denied"), "{path}");
    }
    assert!(!allowed("workload", &["secret/data/theirs/x"]));
    assert!(dev.refused("workload", &["read", "secret/data/theirs/x"]).contains("denied"));

    let with = format!("-entity={entity}");
    assert!(!allowed("admin", &["-policy=own", &mine]), "a template without values grants nothing");
    assert!(!allowed("admin", &[&with, &mine]));
    assert!(allowed("admin", &[&with, "-policy=own", &mine]));
    assert!(!allowed("admin", &[&with, "-no-default-policy", "cubbyhole/x"]));
    let shown = dev.run("admin", &["policy", "explain", &with, ours]);
    assert!(text(&shown.stdout).starts_with("allowed: read on secret/data/ours/x\n"));
    assert!(text(&shown.stdout).ends_with("\nPolicies asked: default, team\n"));
    assert!(text(&shown.stderr).contains("role"), "{}", text(&shown.stderr));
    dev.ok("admin", &["write", &format!("identity/entity/id/{entity}"), "disabled=true"]);
    let shown = dev.ok("admin", &["policy", "explain", &with, ours]);
    assert!(shown.contains(&format!("entity {entity} is disabled")), "{shown}");
}

#[test]
fn policies_are_formatted_without_a_server() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("p.hcl");
    let file = file.to_str().unwrap();
    let run = |args: &[&str]| leasehold(args).output().unwrap();
    std::fs::write(file, "path \"a\" {capabilities=[\"read\",]} # all\n").unwrap();
    assert_eq!(run(&["policy", "fmt", "-check", file]).status.code(), Some(1));
    assert!(run(&["policy", "fmt", file]).status.success());
    let styled = "path \"a\" {\n  capabilities = [\"read\"]\n} # all\n";
    assert_eq!(std::fs::read_to_string(file).unwrap(), styled);
    assert!(run(&["policy", "fmt", "-check", file]).status.success());
    // What the server would refuse stays as it is.
    let wrong = "path \"a\" {capabilities=[\"fly\"]}";
    std::fs::write(file, wrong).unwrap();
    let refused = run(&["policy", "fmt", file]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stderr).contains("fly"), "{}", text(&refused.stderr));
    assert_eq!(std::fs::read_to_string(file).unwrap(), wrong);
}

#[test]
fn mounts_are_tuned_and_moved() {
    let (_temp, dev) = fresh();
    dev.ok("admin", &["auth", "enable", "userpass"]);
    dev.ok("admin", &["auth", "move", "userpass", "people"]);
    assert!(dev.ok("admin", &["auth", "list"]).contains("people/"));
    dev.ok("admin", &["auth", "tune", "-user-lockout-threshold=3", "-token-type=batch", "people"]);
    let tuned = dev.json("admin", &["auth", "tune", "people"])["data"].clone();
    assert_eq!(tuned["user_lockout_config"]["lockout_threshold"], 3);
    assert_eq!(tuned["token_type"], "batch");
    dev.ok("admin", &["secrets", "enable", "-path=a", "kv"]);
    dev.ok("admin", &["secrets", "move", "a", "b"]);
    let audited = "-audit-non-hmac-request-keys=";
    let keys = [&format!("{audited}x"), &format!("{audited}y")];
    dev.ok("admin", &["secrets", "tune", keys[0], keys[1], "-description=d", "b"]);
    let field = "-field=audit_non_hmac_request_keys";
    assert_eq!(dev.ok("admin", &["secrets", "tune", field, "b"]), r#"["x","y"]"#);
    dev.ok("admin", &["secrets", "tune", audited, "b"]);
    assert_eq!(dev.ok("admin", &["secrets", "tune", field, "b"]), "[]");
    let list = dev.ok("admin", &["secrets", "list", "-format=yaml"]);
    assert!(list.contains("\n  description: d\n"), "{list}");
}

#[test]
fn the_token_in_use_is_printed_and_answers_are_wrapped_by_the_environment() {
    let (_temp, dev) = fresh();
    assert_eq!(dev.run("admin", &["print", "token"]).status.code(), Some(1));
    dev.ok("admin", &["login", "-no-print"]);
    let token = dev.ok("admin", &["print", "token"]);
    assert!(token.starts_with("lhs."), "{token}");
    let mut read = dev.as_("workload", &["-no-token", "read", "secret/data/hello"]);
    let wrapped = read.env("LEASEHOLD_WRAP_TTL", "60s").output().unwrap();
    assert!(text(&wrapped.stdout).contains("wrapping_token"), "{}", text(&wrapped.stdout));
}

#[test]
fn a_wrapped_answer_is_opened_once() {
    let (_temp, dev) = fresh();
    let wrapped = dev
        .ok("workload", &["-wrap-ttl=60s", "-field=wrapping_token", "read", "secret/data/hello"]);
    let opened = dev.json("workload", &["unwrap", &wrapped]);
    assert_eq!(opened["data"]["data"]["greeting"], "hello");
    dev.refused("workload", &["unwrap", &wrapped]);
}

#[test]
fn the_seal_is_shut_and_opened_with_any_two_shares() {
    let (_temp, dev) = fresh();
    dev.ok("admin", &["operator", "seal"]);
    assert_eq!(dev.run("admin", &["status"]).status.code(), Some(2));
    let sealed = dev.refused("workload", &["read", "secret/data/hello"]);
    assert!(sealed.contains("operator unseal"), "{sealed}");
    let keys = dev.keys();
    let progress = |args: &[&str]| dev.json("admin", args)["progress"].clone();
    assert_eq!(progress(&["operator", "unseal", &keys[2]]), 1);
    assert_eq!(progress(&["operator", "unseal", "-reset"]), 0);
    dev.ok("admin", &["operator", "unseal", &keys[2]]);
    dev.ok("admin", &["operator", "unseal", &keys[0]]);
    assert!(dev.run("admin", &["status"]).status.success());
    dev.ok("workload", &["read", "secret/data/hello"]);
}

#[test]
fn keys_are_rotated_and_shares_replaced_once_they_are_proven() {
    let (_temp, dev) = fresh();
    let rotated = dev.json("admin", &["operator", "rotate"]);
    assert_eq!(rotated["data"]["term"], 2);
    assert_eq!(rotated["data"]["rewrap"]["pending"], 0);
    let old = dev.keys();
    dev.ok(
        "admin",
        &["operator", "rekey", "-init", "-key-shares=2", "-key-threshold=2", "-verify"],
    );
    dev.ok("admin", &["operator", "rekey", &old[0]]);
    let done = dev.json("admin", &["operator", "rekey", &old[1]]);
    assert_eq!(done["complete"], true);
    let new: Vec<&str> =
        done["keys_base64"].as_array().unwrap().iter().map(|key| key.as_str().unwrap()).collect();
    for key in &new {
        dev.ok("admin", &["operator", "rekey", "-verify", key]);
    }
    dev.ok("admin", &["operator", "seal"]);
    dev.ok("admin", &["operator", "unseal", new[0]]);
    dev.ok("admin", &["operator", "unseal", new[1]]);
    assert!(dev.run("admin", &["status"]).status.success());
}

#[test]
fn a_root_token_takes_a_quorum_and_the_password_of_who_started() {
    let (_temp, dev) = fresh();
    let keys = dev.keys();
    let otp = dev.ok("admin", &["operator", "generate-root", "-init", "-field=otp"]);
    let first = dev.json("admin", &["operator", "generate-root", &keys[0]]);
    assert_eq!((first["complete"].as_bool(), first["progress"].as_u64()), (Some(false), Some(1)));
    let encoded = dev.ok("admin", &["operator", "generate-root", "-field=encoded_token", &keys[1]]);
    let decode = format!("-decode={encoded}");
    let token = dev.ok("admin", &["operator", "generate-root", &decode, &format!("-otp={otp}")]);
    let mut lookup = dev.as_("admin", &["token", "lookup", "-field=policies"]);
    let output = lookup.env("LEASEHOLD_TOKEN", token.trim()).output().unwrap();
    assert_eq!(text(&output.stdout), r#"["root"]"#);
}

/// Stopped when dropped.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_server_serves_what_dev_left_behind_and_stops_when_told() {
    let (_temp, dev) = fresh();
    let (dir, keys) = (dev.dir.clone(), dev.keys());
    // The port is free again once the broker is gone.
    let mut command = dev.as_("workload", &["status"]);
    let address = dev.address.strip_prefix("https://").unwrap().to_owned();
    let config = dir.join("leasehold.toml");
    let toml = std::fs::read_to_string(&config).unwrap().replace("127.0.0.1:0", &address);
    std::fs::write(&config, toml).unwrap();
    let home = TempDir::new().unwrap();
    let unseal = |key: &str| {
        let mut command = dev.as_("admin", &["operator", "unseal", key]);
        command.env("HOME", home.path());
        command
    };
    let mut unseals = [unseal(&keys[0]), unseal(&keys[2])];
    let mut read = dev.as_("workload", &["kv", "get", "-field=greeting", "secret/hello"]);
    assert!(dev.stop());

    let child = leasehold(&["server", "-config"]).arg(&config).spawn().unwrap();
    let mut server = Server(child);
    // Sealed: 2. No connection yet: 1.
    while command.output().unwrap().status.code() == Some(1) {
        assert!(server.0.try_wait().unwrap().is_none(), "the server ended");
    }
    assert_eq!(command.output().unwrap().status.code(), Some(2));
    for unseal in &mut unseals {
        assert!(unseal.output().unwrap().status.success());
    }
    assert_eq!(text(&read.output().unwrap().stdout), "hello");
    kill_process(Pid::from_child(&server.0), Signal::TERM).unwrap();
    assert!(server.0.wait().unwrap().success());
}

#[test]
fn a_configuration_is_checked_without_serving_and_every_problem_is_named() {
    let (_temp, dev) = fresh();
    let config = dev.dir.join("leasehold.toml");
    let check = || leasehold(&["server", "-check", "-config"]).arg(&config).output().unwrap();
    let good = check();
    assert!(good.status.success(), "{}", text(&good.stderr));
    assert!(text(&good.stdout).contains("request_timeout"), "defaults are shown too");
    let toml = std::fs::read_to_string(&config).unwrap();
    let bad =
        toml.replace("lock_memory = false", "lock_memory = 7").replace("[storage]", "[stroage]");
    std::fs::write(&config, bad).unwrap();
    let output = check();
    assert_eq!(output.status.code(), Some(1));
    for word in ["lock_memory", "stroage", "has 2 problems"] {
        assert!(text(&output.stderr).contains(word), "{word}: {}", text(&output.stderr));
    }
}

#[test]
fn what_an_audit_entry_hides_can_be_searched_for_by_its_hash() {
    let (_temp, dev) = fresh();
    dev.ok("admin", &["kv", "put", "secret/x", "password=hunter2"]);
    let listed = dev.json("admin", &["audit", "list"]);
    assert_eq!(listed["file/"]["healthy"], true);
    let hash = dev.ok("admin", &["audit", "hash", "-field=hash", "file/", "hunter2"]);
    let log = dev.file("audit.log");
    assert!(log.contains(&hash), "{hash}");
    assert!(!log.contains("hunter2"));
    dev.refused("workload", &["audit", "list"]);
    dev.refused("workload", &["audit", "hash", "file/", "hunter2"]);
    dev.refused("admin", &["audit", "hash", "nosuch/", "x"]);
}
