//! Leases on a real PostgreSQL, from the command line.

use super::dev::{Dev, fresh};
use super::leasehold;
use crate::support::postgres::TestPostgres;

const CREATION: &str = "creation_statements=CREATE ROLE \"{{name}}\" WITH LOGIN \
                        PASSWORD '{{password}}' VALID UNTIL '{{expiration}}'";

fn connect(dev: &Dev, postgres: &TestPostgres) {
    let url = format!(
        "connection_url=postgresql://{{{{username}}}}:{{{{password}}}}@127.0.0.1:{}/postgres\
         ?sslmode=disable",
        postgres.port()
    );
    let password = format!("password={}", postgres.password());
    dev.ok(
        "admin",
        &[
            "write",
            "database/config/pg",
            "plugin_name=postgresql-database-plugin",
            &url,
            "username=root",
            &password,
            "allowed_roles=*",
        ],
    );
    for role in ["reporting", "billing"] {
        let path = format!("database/roles/{role}");
        dev.ok("admin", &["write", &path, "db_name=pg", "default_ttl=10m", "max_ttl=1h", CREATION]);
    }
}

struct Leased {
    id: String,
    user: String,
    password: String,
}

fn lease(dev: &Dev, role: &str) -> Leased {
    let answer = dev.json("workload", &["read", &format!("database/creds/{role}")]);
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    Leased {
        id: text(&answer["lease_id"]),
        user: text(&answer["data"]["username"]),
        password: text(&answer["data"]["password"]),
    }
}

#[test]
fn leases_are_found_by_what_they_belong_to_and_their_revocation_kills_the_login() {
    let postgres = TestPostgres::shared();
    let (_temp, dev) = fresh();
    connect(&dev, postgres);
    let (one, other) = (lease(&dev, "reporting"), lease(&dev, "billing"));
    let lets_in = |lease: &Leased| postgres.can_log_in(&lease.user, &lease.password, "postgres");
    assert!(lets_in(&one) && lets_in(&other));

    let ids = |args: &[&str]| {
        let found = dev.json("admin", &[&["lease", "list"], args].concat());
        let leases = found["leases"].as_array().unwrap().clone();
        let mut ids: Vec<String> =
            leases.iter().map(|lease| lease["id"].as_str().unwrap().to_owned()).collect();
        ids.sort_unstable();
        ids
    };
    assert_eq!(ids(&["-mount=database"]), [other.id.clone(), one.id.clone()]);
    assert_eq!(ids(&["-mount=database", "-role=reporting"]), std::slice::from_ref(&one.id));
    let owner = dev.json("workload", &["token", "lookup"])["data"]["entity_id"].clone();
    assert_eq!(ids(&["-entity", owner.as_str().unwrap()]).len(), 2);
    let names = dev.json("admin", &["lease", "list", "database/creds/"]);
    assert_eq!(names, serde_json::json!(["billing/", "reporting/"]));
    assert_eq!(dev.json("admin", &["lease", "count"])["lease_count"], 2);

    let renewed = dev.json("workload", &["lease", "renew", "-increment=20m", &one.id]);
    assert_eq!(renewed["lease_duration"], 1200);
    let planned =
        dev.json("admin", &["lease", "revoke", "-prefix", "-dry-run", "database/creds/reporting"]);
    assert_eq!(planned["lease_ids"], serde_json::json!([one.id]));
    assert!(lets_in(&one));

    let args =
        ["--uri=spiffe://dev.leasehold.internal/workload/web", "--out=web", "--ttl=1h", "--dir"];
    let made = leasehold(&[&["dev", "cert"], &args[..]].concat()).arg(dev.dir()).output().unwrap();
    assert!(made.status.success());
    dev.refused("web", &["lease", "lookup", &one.id]);
    dev.run("web", &["lease", "revoke", &one.id]);
    assert!(lets_in(&one), "another workload's lease was revoked");

    dev.ok("workload", &["lease", "revoke", &one.id]);
    assert!(!lets_in(&one) && lets_in(&other));
    dev.refused("workload", &["lease", "lookup", &one.id]);
    assert!(dev.ok("admin", &["lease", "overdue"]).lines().count() == 2);
}

#[test]
fn a_bulk_revocation_is_followed_until_every_credential_is_dead() {
    let postgres = TestPostgres::shared();
    let (_temp, dev) = fresh();
    connect(&dev, postgres);
    let leased: Vec<Leased> = (0..5).map(|_| lease(&dev, "reporting")).collect();
    let kept = lease(&dev, "billing");
    let done = dev.json("admin", &["lease", "revoke", "-prefix", "database/creds/reporting/"]);
    assert_eq!(
        (done["data"]["complete"].as_bool(), done["data"]["total"].as_u64()),
        (Some(true), Some(5))
    );
    for lease in &leased {
        assert!(!postgres.can_log_in(&lease.user, &lease.password, "postgres"));
    }
    assert!(postgres.can_log_in(&kept.user, &kept.password, "postgres"));
}
