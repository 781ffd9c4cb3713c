//! `leasehold apply` against a live broker.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

use super::dev::{Dev, fresh};
use super::text;

const SECRETS: [(&str, &str); 2] =
    [("DATABASE_PASSWORD", "hunter2-database"), ("ANNS_PASSWORD", "hunter2-ann")];

fn example() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("config/broker.example.toml")
}

fn apply(dev: &Dev, file: &Path, flags: &[&str]) -> Command {
    let file = file.to_str().unwrap();
    let mut command = dev.as_("admin", &[&["apply", "-f", file][..], flags].concat());
    command.envs(SECRETS);
    command
}

fn ran(mut command: Command) -> Output {
    let output = command.output().unwrap();
    for (_, secret) in SECRETS {
        for stream in [&output.stdout, &output.stderr] {
            assert!(!text(stream).contains(secret), "printed: {}", text(stream));
        }
    }
    output
}

#[track_caller]
fn applied(dev: &Dev, file: &Path, flags: &[&str]) -> Value {
    let flags = [&["-auto-approve", "-format=json"][..], flags].concat();
    let output = ran(apply(dev, file, &flags));
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// What `-check` finds: its exit status and the changes as `action kind name: fields`.
#[track_caller]
fn checked(dev: &Dev, file: &Path, flags: &[&str]) -> (i32, Vec<String>) {
    let output = ran(apply(dev, file, &[&["-check", "-format=json"][..], flags].concat()));
    let status = output.status.code().unwrap();
    if status == 1 {
        return (1, text(&output.stderr).lines().map(str::to_owned).collect());
    }
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    let changes = found["changes"].as_array().unwrap().iter().map(|change| {
        let fields: Vec<_> = change["fields"]
            .as_array()
            .unwrap()
            .iter()
            .map(|f| f["field"].as_str().unwrap())
            .collect();
        let word = |name: &str| change[name].as_str().unwrap().to_owned();
        format!("{} {} {}: {}", word("action"), word("kind"), word("name"), fields.join(","))
    });
    (status, changes.collect())
}

fn written(dir: &Path, document: &str) -> PathBuf {
    let file = dir.join("broker.toml");
    std::fs::write(&file, document).unwrap();
    file
}

#[test]
fn the_example_is_applied_once_and_every_drift_from_it_is_noticed_and_put_right() {
    let (_temp, dev) = fresh();
    let file = example();
    let (status, missing) = checked(&dev, &file, &[]);
    assert_eq!(status, 2, "{missing:?}");
    let first = applied(&dev, &file, &[]);
    let changes = first["changes"].as_array().unwrap();
    assert_eq!(changes.len(), missing.len());
    assert!(changes.iter().all(|change| change["done"] == true), "{changes:?}");
    // What dev mounts already is there, and is not made again.
    assert!(missing.iter().any(|change| change.starts_with("update secrets_engine secret")));
    assert!(missing.iter().any(|change| change.starts_with("create auth_method approle")));

    assert_eq!(checked(&dev, &file, &[]), (0, vec![]), "a second plan is empty");
    assert_eq!(applied(&dev, &file, &[])["changes"], Value::Array(vec![]));

    for (by_hand, expected) in [
        (
            &["write", "sys/policies/acl/web", "policy=path \"x\" { capabilities = [\"read\"] }"][..],
            "update policy web: policy",
        ),
        (
            &[
                "write",
                "sys/policies/password/long",
                "policy=length = 8\nrule \"charset\" { charset = \"ab\" }",
            ],
            "update password_policy long: policy",
        ),
        (
            &["write", "sys/mounts/database/tune", "default_lease_ttl=2h"],
            "update secrets_engine database: default_lease_ttl",
        ),
        (
            &["write", "sys/mounts/secret/tune", "description=other"],
            "update secrets_engine secret: description",
        ),
        (
            &["write", "sys/auth/approle/tune", "listing_visibility=unauth"],
            "update auth_method approle: listing_visibility",
        ),
        (
            &["write", "secret/config", "max_versions=5"],
            "update config secret/config: max_versions",
        ),
        (
            &["write", "database/config/main", "allowed_roles=*", "username=other"],
            "update config database/config/main: username,allowed_roles",
        ),
        (
            &[
                "write",
                "database/roles/web",
                "db_name=main",
                "default_ttl=5m",
                "creation_statements=CREATE ROLE \"{{name}}\" LOGIN PASSWORD '{{password}}'",
            ],
            "update config database/roles/web: creation_statements,default_ttl",
        ),
        (
            &[
                "write",
                "auth/approle/role/deployer",
                "token_policies=deployer,web",
                "token_ttl=16m",
            ],
            "update config auth/approle/role/deployer: token_policies,token_ttl",
        ),
        (
            &["write", "auth/people/users/ann", "token_policies=web"],
            "update config auth/people/users/ann: token_policies",
        ),
        (
            &["write", "auth/token/roles/job", "token_explicit_max_ttl=11m"],
            "update config auth/token/roles/job: token_explicit_max_ttl",
        ),
        (
            &["write", "sys/quotas/rate-limit/database", "path=database", "rate=99", "interval=1s"],
            "update quota rate-limit/database: rate",
        ),
        (
            &["delete", "sys/quotas/lease-count/web"],
            "create quota lease-count/web: path,role,max_leases",
        ),
        (
            &["delete", "auth/approle/role/deployer"],
            "create config auth/approle/role/deployer: token_policies,token_ttl,secret_id_ttl,\
             secret_id_num_uses,token_bound_cidrs",
        ),
        (&["delete", "sys/policies/acl/deployer"], "create policy deployer: policy"),
    ] {
        dev.ok("admin", by_hand);
        assert_eq!(checked(&dev, &file, &[]), (2, vec![expected.to_owned()]), "{by_hand:?}");
        applied(&dev, &file, &[]);
        assert_eq!(checked(&dev, &file, &[]), (0, vec![]), "{by_hand:?}");
    }
}

#[test]
fn secrets_come_from_elsewhere_are_written_once_and_never_shown() {
    let (temp, dev) = fresh();
    let file = written(
        temp.path(),
        r#"
        [auth.people]
        type = "userpass"
        [config."auth/people/users/ann"]
        token_ttl = "10m"
        password = { from_file = "ann" }
        "#,
    );
    let login = |password: &str| {
        let mut command = dev.as_(
            "admin",
            &["write", "-field=token", "auth/people/login/ann", &format!("password={password}")],
        );
        command.output().unwrap().status.success()
    };
    // Nothing is changed when one is missing, and looking needs none.
    assert_eq!(checked(&dev, &file, &[]).0, 2);
    let output = ran(apply(&dev, &file, &["-auto-approve"]));
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("needs password"), "{}", text(&output.stderr));
    assert!(!dev.ok("admin", &["auth", "list"]).contains("people"));

    std::fs::write(temp.path().join("ann"), "hunter2-ann\n").unwrap();
    applied(&dev, &file, &[]);
    assert!(login("hunter2-ann"), "as in the file, without the line break");
    // What nobody can compare is no difference, and another change leaves it as it is.
    dev.ok("admin", &["write", "auth/people/users/ann/password", "password=of her own choice"]);
    assert_eq!(checked(&dev, &file, &[]), (0, vec![]));
    dev.ok("admin", &["write", "auth/people/users/ann", "token_ttl=11m"]);
    let second = applied(&dev, &file, &[]);
    assert_eq!(second["changes"][0]["fields"][0]["field"], "token_ttl");
    assert!(second["changes"][0]["notes"][0].as_str().unwrap().contains("-write-secrets"));
    assert!(login("of her own choice"));
    let forced = applied(&dev, &file, &["-write-secrets"]);
    assert_eq!(forced["changes"][0]["fields"][0]["secret"], true);
    assert!(login("hunter2-ann"));
}

#[test]
fn what_is_written_whole_loses_nothing_by_a_change() {
    let (temp, dev) = fresh();
    let key = serde_json::to_string(crate::support::signer::RSA.public_pem()).unwrap();
    let document = |issuer: &str, secret: &str| {
        format!(
            "[auth.k8s]\ntype = \"kubernetes\"\n[config.\"auth/k8s/config\"]\n\
             pem_keys = [{key}]\nissuer = \"{issuer}\"\n{secret}"
        )
    };
    let secret = "token_reviewer_jwt = { from_env = \"DATABASE_PASSWORD\" }";
    let file = written(temp.path(), &document("one", secret));
    let config = || -> Value {
        let read = dev.ok("admin", &["read", "-format=json", "auth/k8s/config"]);
        serde_json::from_str::<Value>(&read).unwrap()["data"].clone()
    };
    applied(&dev, &file, &[]);
    assert_eq!(config()["token_reviewer_jwt_set"], true);
    assert_eq!(checked(&dev, &file, &[]), (0, vec![]));
    // By hand: what the document does not speak of, and what it does.
    let pem = crate::support::signer::RSA.public_pem();
    let by_hand = [
        "write".to_owned(),
        "auth/k8s/config".to_owned(),
        format!("pem_keys={pem}"),
        "issuer=two".to_owned(),
        "disable_iss_validation=false".to_owned(),
        "token_reviewer_jwt=by-hand".to_owned(),
    ];
    dev.ok("admin", &by_hand.each_ref().map(String::as_str));
    let update = "update config auth/k8s/config: issuer,token_reviewer_jwt".to_owned();
    assert_eq!(checked(&dev, &file, &[]), (2, vec![update]));
    applied(&dev, &file, &[]);
    let made = config();
    assert_eq!(made["issuer"], "one");
    assert_eq!(made["token_reviewer_jwt_set"], true, "the secret went with the change");
    assert_eq!(made["disable_iss_validation"], false, "what the document leaves out stays");
    assert_eq!(checked(&dev, &file, &[]), (0, vec![]));
    // A secret that the document does not name cannot be kept, and that is said.
    let file = written(temp.path(), &document("three", ""));
    let plan = applied(&dev, &file, &[]);
    let note = plan["changes"][0]["notes"][0].as_str().unwrap();
    assert!(note.contains("unset by this"), "{note}");
}

#[test]
fn a_name_that_differs_in_case_alone_is_pruned() {
    let (temp, dev) = fresh();
    let document = "[auth.approle]\ntype = \"approle\"\n[config.\"auth/approle/role/web\"]\n\
                    token_ttl = 60\n[policies.Mixed]\npolicy = 'path \"x\" {}'";
    let file = written(temp.path(), document);
    applied(&dev, &file, &[]);
    dev.ok("admin", &["write", "auth/approle/role/WEB", "token_policies=admin"]);
    let flags = ["-prune", "auth/approle/role,policies"];
    let (status, changes) = checked(&dev, &file, &flags);
    assert_eq!(status, 2);
    let deletions: Vec<_> =
        changes.iter().filter(|change| change.starts_with("delete")).cloned().collect();
    assert!(deletions.contains(&"delete config auth/approle/role/WEB: ".to_owned()), "{changes:?}");
    assert!(!deletions.iter().any(|change| change.contains("ixed")), "{changes:?}");
    assert!(!deletions.iter().any(|change| change.contains("role/web")), "{changes:?}");
}

#[test]
fn mistakes_and_refusals_change_nothing_and_look_like_no_drift() {
    let (temp, dev) = fresh();
    for (document, word) in [
        ("[mounts.secret]\ntype = \"database\"", "cannot be changed"),
        ("[config.\"secret/data/x\"]\na = \"b\"", "holds secrets"),
        ("[config.\"nowhere/x\"]\na = \"b\"", "nothing is mounted there"),
        ("[config.\"secret/config\"]\nmax_versions = 3\nmax = 1\n[mount.x]\ntype=\"kv\"", "line 4"),
    ] {
        let file = written(temp.path(), document);
        let (status, said) = checked(&dev, &file, &[]);
        assert_eq!(status, 1, "{document}: {said:?}");
        assert!(said.iter().any(|line| line.contains(word)), "{document}: {said:?}");
    }
    let file = written(temp.path(), "[policies.p]\npolicy = 'path \"a\" {'");
    let output = ran(apply(&dev, &file, &[]));
    assert_eq!(output.status.code(), Some(1), "no terminal, no approval");
    assert!(text(&output.stderr).contains("-auto-approve"), "{}", text(&output.stderr));
    // A caller who may not look cannot tell, which is not the status of a difference.
    let mut command = dev.as_("workload", &["apply", "-check", "-f", file.to_str().unwrap()]);
    assert_eq!(command.output().unwrap().status.code(), Some(1));
}

#[test]
fn what_the_server_chose_is_read_even_from_what_the_same_run_creates() {
    let (temp, dev) = fresh();
    let file = written(
        temp.path(),
        "[config.\"auth/token/roles/job\"]\n\
         path_suffix = { from_read = \"sys/auth/late\", field = \"type\" }\n\
         allowed_policies_glob = [{ from_read = \"sys/auth/late\", field = \"accessor\" }]\n\
         [auth.late]\ntype = \"approle\"\n",
    );
    applied(&dev, &file, &[]);
    let accessor = dev.json("admin", &["read", "sys/auth/late"])["data"]["accessor"].clone();
    let role = dev.json("admin", &["read", "auth/token/roles/job"])["data"].clone();
    assert_eq!(role["allowed_policies_glob"], serde_json::json!([accessor]));
    assert_eq!(role["path_suffix"], "approle");
    assert_eq!(checked(&dev, &file, &[]), (0, vec![]));
}

#[test]
fn it_stops_at_the_first_failure_says_what_was_done_and_goes_on_from_there() {
    let (temp, dev) = fresh();
    let file = written(
        temp.path(),
        "[policies.a]\npolicy = 'path \"a\" { capabilities = [\"read\"] }'\n\
         [policies.b]\npolicy = 'path \"b\" {'\n\
         [policies.c]\npolicy = 'path \"c\" { capabilities = [\"read\"] }'\n",
    );
    let output = ran(apply(&dev, &file, &["-auto-approve"]));
    assert_eq!(output.status.code(), Some(2), "the server refused");
    let said = text(&output.stderr);
    assert!(said.contains("1 of 3 changes made") && said.contains("policy b"), "{said}");
    let listed = dev.ok("admin", &["policy", "list"]);
    assert!(listed.contains("\na\n") && !listed.contains("\nc\n"), "{listed}");
    let file = written(
        temp.path(),
        &std::fs::read_to_string(&file).unwrap().replace("\"b\" {'", "\"b\" {}'"),
    );
    assert_eq!(applied(&dev, &file, &[])["in_place"], 1);
    assert_eq!(checked(&dev, &file, &[]), (0, vec![]));
}

#[test]
fn nothing_is_deleted_but_what_prune_names_and_no_data_without_a_second_word() {
    let (temp, dev) = fresh();
    dev.ok("admin", &["secrets", "enable", "-path=empty", "kv-v2"]);
    dev.ok("admin", &["auth", "enable", "approle"]);
    dev.ok("admin", &["write", "auth/approle/role/old", "token_ttl=5m"]);
    let file = written(
        temp.path(),
        "[mounts.secret]\ntype = \"kv-v2\"\n[mounts.database]\ntype = \"database\"\n\
         [config.\"auth/approle/role/web\"]\ntoken_ttl = \"5m\"\n\
         [policies.admin]\nfile = \"admin.hcl\"\n",
    );
    let admin = dev.ok("admin", &["policy", "read", "admin"]);
    std::fs::write(temp.path().join("admin.hcl"), admin).unwrap();
    let made = applied(&dev, &file, &[]);
    assert_eq!(made["changes"].as_array().unwrap().len(), 1, "nothing is deleted unasked: {made}");

    let (status, found) = checked(&dev, &file, &["-prune=auth/approle/role,policies,mounts"]);
    assert_eq!(status, 2);
    let mut found = found;
    found.sort();
    assert_eq!(
        found,
        [
            "delete config auth/approle/role/old: ",
            "delete policy workload: ",
            "delete secrets_engine empty: ",
        ]
    );
    applied(&dev, &file, &["-prune=auth/approle/role,policies,mounts"]);
    let (status, _) = checked(&dev, &file, &["-prune=auth/approle/role,policies,mounts"]);
    assert_eq!(status, 0);

    // `secret` holds something: taken out of the document, it needs the second word.
    let file = written(temp.path(), "[mounts.database]\ntype = \"database\"\n");
    let output = ran(apply(&dev, &file, &["-auto-approve", "-prune=mounts"]));
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("-prune-data"), "{}", text(&output.stderr));
    assert!(dev.ok("admin", &["kv", "get", "secret/hello"]).contains("greeting"));
    applied(&dev, &file, &["-prune=mounts", "-prune-data"]);
    assert!(!dev.ok("admin", &["secrets", "list"]).contains("secret/"));
    // Whatever is asked, secrets are no collection that can be pruned.
    for scope in ["secret/metadata", "identity/entity/id", "sys/auth", "database"] {
        let (status, _) = checked(&dev, &file, &[&format!("-prune={scope}")]);
        assert_eq!(status, 1, "{scope}");
    }
}
