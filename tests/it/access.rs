//! Every route of every table, tried by those who may not and by those who just may.
//!
//! The routes are read from the tables that the server itself is built from, and compared with the
//! list at the end of this file, which says what each is meant to be: a route that is new, gone or
//! opened to others fails here until somebody has thought about it.

pub(crate) mod routes;

use std::collections::BTreeSet;
use std::sync::Arc;

use leasehold::core::engine::MountFacts;
use leasehold::core::operation::Operation;
use leasehold::core::route::{Access, RouteSpec};
use leasehold::core::seal::endpoints;
use leasehold::core::trust::TrustStore;
use leasehold::server::config::Auth;
use leasehold::server::run::{self, Network};
use leasehold::types::id::MountAccessor;
use leasehold::types::time::Ttl;
use serde_json::{Value, json};

use crate::support::broker::{Broker, Caller, Setup};
use crate::support::wire::Answer;
use routes::{EXPECTED, Expected};

/// One route, as a table has it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Found {
    /// With the prefix of its table or mount.
    pattern: String,
    access: &'static str,
    operations: String,
}

fn found(prefix: &str, route: &RouteSpec) -> Found {
    Found {
        pattern: format!("{prefix}{}", route.pattern),
        access: match route.access {
            Access::Anybody => "anybody",
            Access::Caller => "caller",
            Access::Identified => "identified",
            Access::Public => "public",
            Access::Sudo => "sudo",
        },
        operations: operations(route.operations),
    }
}

fn operations(list: &[Operation]) -> String {
    let names: BTreeSet<&str> = list.iter().map(|operation| operation.as_str()).collect();
    names.into_iter().collect::<Vec<_>>().join(" ")
}

/// Where the engines and methods of the registry are mounted here, and with which options. Each
/// has to be there.
pub(crate) const MOUNTS: &[(&str, &str, &[(&str, &str)])] = &[
    ("cubbyhole/", "cubbyhole", &[]),
    ("kv1/", "kv", &[("version", "1")]),
    ("kv2/", "kv", &[("version", "2")]),
    ("database/", "database", &[]),
    ("ssh/", "ssh", &[]),
    ("totp/", "totp", &[]),
    ("transit/", "transit", &[]),
    ("auth/cert/", "cert", &[]),
    ("auth/approle/", "approle", &[]),
    ("auth/ldap/", "ldap", &[]),
    ("auth/userpass/", "userpass", &[]),
    ("auth/jwt/", "jwt", &[]),
    ("auth/oidc/", "oidc", &[]),
    ("auth/kubernetes/", "kubernetes", &[]),
];

/// All tables of this build, each with what its paths begin with.
pub(crate) fn tables() -> Vec<(&'static str, &'static [RouteSpec])> {
    let system = run::tables(Box::new(String::new), Access::Caller);
    let mut all: Vec<_> = system.iter().map(|table| (table.prefix(), table.routes())).collect();
    let network = Network::new(&Auth::default()).unwrap();
    let registry = run::registry(&Arc::new(TrustStore::new()), network);
    let kinds: BTreeSet<&str> =
        registry.engines.keys().chain(registry.methods.keys()).copied().collect();
    let mounted: BTreeSet<&str> = MOUNTS.iter().map(|(_, kind, _)| *kind).collect();
    assert_eq!(kinds, mounted, "every engine and method is mounted here");
    for (path, kind, options) in MOUNTS {
        let options = options.iter().map(|(name, value)| ((*name).into(), (*value).into()));
        let facts = MountFacts {
            path: (*path).into(),
            accessor: MountAccessor::new("any"),
            options: options.collect(),
            default_ttl: Ttl::from_secs(60),
            max_ttl: Ttl::from_secs(60),
        };
        let routes = match registry.engines.get(kind) {
            Some(build) => build(&facts).unwrap().routes(),
            None => registry.methods[kind](&facts).unwrap().routes(),
        };
        all.push((path, routes));
    }
    all
}

fn all_routes() -> BTreeSet<Found> {
    let routes = |(prefix, table): (&'static str, &'static [RouteSpec])| {
        table.iter().map(move |route| found(prefix, route))
    };
    tables().into_iter().flat_map(routes).collect()
}

#[test]
fn every_route_is_in_the_list() {
    let listed: BTreeSet<Found> = EXPECTED
        .iter()
        .map(|one| Found {
            pattern: one.pattern.to_owned(),
            access: one.access,
            operations: one.operations.to_owned(),
        })
        .collect();
    assert_eq!(listed.len(), EXPECTED.len(), "a route is listed twice");
    let all = all_routes();
    let unlisted: Vec<_> = all.difference(&listed).collect();
    let gone: Vec<_> = listed.difference(&all).collect();
    assert!(unlisted.is_empty() && gone.is_empty(), "not listed: {unlisted:#?}\ngone: {gone:#?}");
}

/// How an operation is asked for.
pub(crate) fn method(operation: &str) -> &'static str {
    match operation {
        "create" | "update" => "POST",
        "delete" => "DELETE",
        "list" => "LIST",
        "patch" => "PATCH",
        "read" => "GET",
        other => panic!("no method for {other}"),
    }
}

async fn ask(caller: &Caller, operation: &str, one: &Expected) -> Answer {
    let media_type =
        if operation == "patch" { "application/merge-patch+json" } else { "application/json" };
    let body = if matches!(operation, "create" | "patch" | "update") { one.body } else { "" };
    let headers = [("content-type", media_type)];
    let body = body.replace("$TOKEN", caller.token().unwrap_or_default());
    caller.request(method(operation), one.path, &headers, body.as_bytes()).await
}

fn quiet() -> Setup {
    Setup { server: "log_level = \"info\"".into(), ..Setup::default() }
}

/// A furnished broker, and tokens for it.
struct World {
    broker: Broker,
    root: Caller,
    policies: std::sync::atomic::AtomicU32,
}

impl World {
    async fn new() -> Self {
        let broker = Broker::ready(quiet()).await;
        let root = broker.root();
        for (path, kind, options) in MOUNTS.iter().filter(|(path, ..)| *path != "cubbyhole/") {
            let options: serde_json::Map<String, Value> =
                options.iter().map(|(name, value)| ((*name).into(), json!(value))).collect();
            let at = match path.strip_prefix("auth/") {
                Some(method) => format!("sys/auth/{}", method.trim_end_matches('/')),
                None => format!("sys/mounts/{}", path.trim_end_matches('/')),
            };
            root.write(&at, json!({ "type": kind, "options": options })).await.ok();
        }
        Self { broker, root, policies: std::sync::atomic::AtomicU32::new(0) }
    }

    /// Somebody with exactly these capabilities on exactly this path.
    async fn with(&self, path: &str, capabilities: &[&str]) -> Caller {
        let number = self.policies.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let name = format!("only-{number}");
        // JSON, so that no path needs quoting.
        let policy = json!({ "path": { path: { "capabilities": capabilities } } }).to_string();
        self.root
            .write(&format!("sys/policies/acl/{name}"), json!({ "policy": policy }))
            .await
            .ok();
        let body = json!({ "policies": [name], "no_default_policy": true });
        let made = self.root.write("auth/token/create", body).await.ok();
        let token = made["auth"]["client_token"].as_str().unwrap();
        self.broker.admin().with_token(token)
    }
}

const CAPABILITIES: &[&str] = &["create", "delete", "list", "patch", "read", "update"];

/// What a policy must grant for the operation, as far as this test cannot tell create from update.
fn needed(operation: &str) -> &'static [&'static str] {
    match operation {
        "create" | "update" => &["create", "update"],
        "delete" => &["delete"],
        "list" => &["list"],
        "patch" => &["patch"],
        _ => &["read"],
    }
}

#[tokio::test]
async fn nobody_gets_anywhere_without_the_capability() {
    let world = World::new().await;
    let broker = &world.broker;
    let revoked = world.with("*", CAPABILITIES).await;
    let expiring = {
        let body = json!({ "ttl": "1s", "policies": ["root"] });
        let made = world.root.write("auth/token/create", body).await.ok();
        broker.admin().with_token(made["auth"]["client_token"].as_str().unwrap())
    };
    revoked.write("auth/token/revoke-self", json!({})).await.ok();
    crate::support::wire::soon(async {
        while expiring.read("auth/token/lookup-self").await.status != 403 {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    })
    .await;
    let strangers = [
        ("nobody", broker.nobody()),
        ("a certificate that no role knows", broker.admin()),
        ("garbage for a token", broker.admin().with_token("hvs.garbage")),
        ("a token of another broker", broker.admin().with_token(&foreign_token().await)),
        ("a revoked token", revoked),
        ("an expired token", expiring),
    ];
    for one in EXPECTED.iter().filter(|one| one.access != "public") {
        for operation in one.operations.split(' ') {
            for (who, stranger) in &strangers {
                let answer = ask(stranger, operation, one).await;
                let what = format!("{who}: {operation} {}: {}", one.pattern, answer.body);
                if one.access == "anybody" && stranger.token().is_none() {
                    // What is for all, of which there is nothing here.
                    assert!(matches!(answer.status, 200 | 403), "{what}");
                    assert!(!answer.body.contains("kv1/"), "{what}");
                    continue;
                }
                assert_eq!(answer.status, 403, "{what}");
                assert_eq!(answer.json(), json!({ "errors": ["permission denied"] }), "{what}");
            }
            if matches!(one.access, "anybody" | "identified") {
                continue;
            }
            // Everything on this path but what it takes.
            let others: Vec<&str> = CAPABILITIES
                .iter()
                .chain(&["sudo"])
                .filter(|name| !needed(operation).contains(name))
                .copied()
                .collect();
            let without = ask(&world.with(one.path, &others).await, operation, one).await;
            let what = format!("without: {operation} {}: {}", one.pattern, without.body);
            assert_eq!(without.status, 403, "{what}");
            if one.access == "sudo" {
                let without = world.with(one.path, needed(operation)).await;
                let without = ask(&without, operation, one).await;
                let what = format!("without sudo: {operation} {}: {}", one.pattern, without.body);
                assert_eq!(without.status, 403, "{what}");
            }
            // An explicit denial beats all else.
            let denied = [needed(operation), &["sudo", "deny"]].concat();
            let denied = ask(&world.with(one.path, &denied).await, operation, one).await;
            assert_eq!(denied.status, 403, "denied: {operation} {}", one.pattern);
        }
    }
    // What is not there is not told from what may not be seen.
    for path in ["nowhere", "nowhere/at/all", "sys/nowhere", "auth/nowhere/login", "identity/x"] {
        let nothing = world.with("elsewhere", CAPABILITIES).await;
        assert_eq!(nothing.read(path).await.status, 403, "{path}");
        let allowed = world.with(path, CAPABILITIES).await;
        assert_eq!(allowed.read(path).await.error(404), "", "{path}");
    }
}

async fn foreign_token() -> String {
    let other = Broker::ready(quiet()).await;
    other.root_token()
}

#[tokio::test]
async fn the_capability_is_enough_and_sealing_ends_it() {
    let world = World::new().await;
    let broker = &world.broker;
    // Sealing comes last, for obvious reasons.
    let (seal, open): (Vec<_>, Vec<_>) = EXPECTED.iter().partition(|one| one.pattern == "sys/seal");
    for one in open.into_iter().filter(|one| one.access != "public") {
        for operation in one.operations.split(' ') {
            let mut capabilities = needed(operation).to_vec();
            if one.access == "sudo" {
                capabilities.push("sudo");
            }
            if matches!(one.access, "anybody" | "identified") {
                only_own_business(&world, operation, one).await;
                continue;
            }
            let caller = world.with(one.path, &capabilities).await;
            let answer = ask(&caller, operation, one).await;
            let what = format!("{operation} {}: {} {}", one.pattern, answer.status, answer.body);
            assert!(![401, 403, 405].contains(&answer.status) && answer.status < 500, "{what}");
            // An operation that the route does not list is refused, whatever one may do.
            for other in CAPABILITIES {
                let listed = one.operations.split(' ').any(|name| method(name) == method(other));
                // DELETE of a tuning is that of a mount called so, and of this that of a method called
                // so. Neither has to be there.
                let of_a_name = one.pattern.ends_with("/tune")
                    || one.pattern.starts_with("identity/mfa/method/totp/");
                if !listed && !of_a_name {
                    let answer = ask(&world.root, other, one).await;
                    let what = format!("{other} {}: {}", one.pattern, answer.body);
                    // Another route may have the same path for that, and miss what it needs.
                    assert!(matches!(answer.status, 400 | 404 | 405), "{what}");
                }
            }
        }
    }
    for one in EXPECTED.iter().filter(|one| one.access == "public") {
        for operation in one.operations.split(' ') {
            let answer = ask(&broker.nobody(), operation, one).await;
            let what = format!("{operation} {}: {} {}", one.pattern, answer.status, answer.body);
            if one.pattern == "auth/cert/login" {
                assert_eq!(answer.status, 403, "there is no certificate to log in with: {what}");
                continue;
            }
            assert!(![403, 405].contains(&answer.status) && answer.status < 500, "{what}");
        }
    }
    for spec in endpoints::specs() {
        for operation in operations(spec.operations).split(' ') {
            let answer = look(&broker.nobody(), operation, spec).await;
            let what = format!("{operation} {}: {} {}", spec.pattern, answer.status, answer.body);
            // Open to all who reach the listener; the empty bodies of this test are refused, and a
            // ceremony is ended only by who began it or knows its nonce.
            let ends = operation == "delete";
            assert!(
                matches!(answer.status, 200 | 204 | 400) || (ends && answer.status == 403),
                "{what}"
            );
        }
    }
    let sealer = world.with("sys/seal", &["update", "sudo"]).await;
    assert_eq!(seal.len(), 1);
    assert_eq!(sealer.write("sys/seal", json!({})).await.status, 204);
    sealed(&world).await;
}

/// What any caller may ask shows a mount to who has some business below it, and to nobody else.
async fn only_own_business(world: &World, operation: &str, one: &Expected) {
    let inside = world.with("kv1/y", &["read"]).await;
    let outside = world.with(one.path, &["read"]).await;
    let (seen, unseen) = (ask(&inside, operation, one).await, ask(&outside, operation, one).await);
    assert_eq!(seen.status, 200, "{}", seen.body);
    assert!(seen.body.contains("kv1/") || one.path.contains("kv1/"), "{}", seen.body);
    assert!(!seen.body.contains("kv2/"), "{}", seen.body);
    if one.path.ends_with("kv1/y") {
        assert_eq!(unseen.status, 403, "{}", unseen.body);
    } else {
        assert!(!unseen.body.contains("kv1/"), "{}", unseen.body);
    }
}

async fn look(caller: &Caller, operation: &str, spec: &RouteSpec) -> Answer {
    caller.request(method(operation), spec.pattern, &[], b"").await
}

/// Everything but the seal's own paths answers 503, to everybody.
async fn sealed(world: &World) {
    let broker = &world.broker;
    crate::support::wire::soon(async {
        while broker.admin().read("sys/seal-status").await.ok()["sealed"] != json!(true) {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    })
    .await;
    world.root.hang_up().await;
    let root = broker.root();
    for caller in [&root, &broker.nobody()] {
        for one in EXPECTED {
            for operation in one.operations.split(' ') {
                let answer = ask(caller, operation, one).await;
                let what = format!("{operation} {}: {}", one.pattern, answer.body);
                assert_eq!(answer.status, 503, "{what}");
                assert_eq!(answer.json(), json!({ "errors": ["Vault is sealed"] }), "{what}");
            }
        }
        assert_eq!(caller.read("no/such/path").await.status, 503);
    }
    for (path, status) in [
        ("sys/init", 200),
        ("sys/seal-status", 200),
        ("sys/health", 503),
        ("sys/health?sealedcode=299", 299),
        ("sys/leader", 200),
        // A root token can only be made in a store that is open.
        ("sys/generate-root/attempt", 503),
    ] {
        assert_eq!(broker.nobody().read(path).await.status, status, "{path}");
    }
}
