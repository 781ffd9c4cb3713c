//! The check itself: every promise is broken once, and that is found. What can be broken in the world is
//! broken there; where the server would not let it, the book is changed that says what was promised.

use std::fs::File;
use std::io::Write;
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::time::Duration;

use futures_util::FutureExt;
use serde_json::{Value, json};

use super::World;
use super::clerk::{BRIEF, Clerk, Desk, Fate, LONG, Standing};
use super::relay::{Fault, Relay};
use crate::support::broker::Setup;

const YEAR_MILLIS: i64 = 365 * 24 * 3600 * 1000;

struct Scene {
    world: World,
    clerks: [Clerk; 1],
}

impl Scene {
    async fn set() -> Self {
        let mut world = World::with_clock(Setup::default()).await;
        world.settling_max = Duration::from_secs(1);
        Self { world, clerks: [Clerk::new("plant")] }
    }

    /// A credential, and the user's name.
    async fn lease(&mut self, owner: Option<usize>) -> (usize, String) {
        let desk = Desk::at(&self.world.nodes[0]);
        self.clerks[0].lease(&self.world, &desk, LONG, owner, false).await.unwrap();
        let last = self.clerks[0].credentials.len() - 1;
        (last, self.clerks[0].credentials[last].user.clone())
    }

    async fn on_target(&self, sql: &str) {
        self.world.target.batch_execute(sql).await.unwrap();
    }

    async fn ask(&self, method: &str, path: &str, body: Value) {
        let root = self.world.nodes[0].root();
        let body = if body.is_null() { String::new() } else { body.to_string() };
        root.request(method, path, &[], body.as_bytes()).await.ok();
    }

    async fn is_sound(&mut self) {
        self.world.check(0, &mut self.clerks, false).await;
    }

    /// Something is wrong, and the check says what.
    async fn is_found(&mut self, what: &str, settled: bool) {
        let check = self.world.check(0, &mut self.clerks, settled);
        let outcome = AssertUnwindSafe(check).catch_unwind().await;
        let said = outcome.expect_err(&format!("not found: {what}"));
        let said = said
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| said.downcast_ref::<&str>().copied())
            .unwrap();
        assert!(said.contains(what), "instead of {what:?}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_credential_that_nobody_leased_or_that_is_lost_is_found() {
    let mut scene = Scene::set().await;
    let prefix = scene.world.prefix.clone();
    scene.is_sound().await;
    scene.on_target(&format!("CREATE ROLE \"{prefix}stray-x\" LOGIN")).await;
    scene.is_found("no lease names", false).await;
    scene.on_target(&format!("DROP ROLE \"{prefix}stray-x\"")).await;
    scene.is_sound().await;

    let (first, user) = scene.lease(None).await;
    scene.on_target(&format!("ALTER ROLE \"{user}\" NOLOGIN")).await;
    scene.is_found("an answered credential does not work", false).await;
    scene.on_target(&format!("ALTER ROLE \"{user}\" LOGIN")).await;
    scene.is_sound().await;
    scene.on_target(&format!("ALTER ROLE \"{user}\" PASSWORD 'another'")).await;
    scene.clerks[0].credentials[first].touched = true;
    scene.is_found("PostgreSQL refuses an answered credential", false).await;

    let (second, _) = scene.lease(None).await;
    scene.clerks[0].credentials[first].fate = Fate::Dead;
    scene.is_found("a dead credential is there", false).await;
    scene.clerks[0].credentials[first].fate = Fate::Ending;
    let lease = scene.clerks[0].credentials[second].lease.clone();
    scene.ask("POST", "sys/leases/revoke", json!({ "lease_id": lease })).await;
    scene.is_found("an answered lease is lost", false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_credential_that_lives_too_long_is_found() {
    let mut scene = Scene::set().await;
    let desk = Desk::at(&scene.world.nodes[0]);
    for _ in 0..2 {
        scene.clerks[0].make_token(&scene.world, &desk).await.unwrap();
    }
    let (first, user) = scene.lease(Some(1)).await;
    scene.is_sound().await;
    for end in ["2099-01-01", "infinity"] {
        scene.on_target(&format!("ALTER ROLE \"{user}\" VALID UNTIL '{end}'")).await;
        scene.is_found("it outlives its lease on the target", false).await;
    }
    let revoke = json!({ "lease_id": scene.clerks[0].credentials[first].lease });
    scene.ask("POST", "sys/leases/revoke", revoke).await;
    scene.clerks[0].credentials[first].fate = Fate::Dead;
    scene.is_sound().await;

    // Prolonged, which nobody asked for.
    let (second, _) = scene.lease(None).await;
    let renew =
        json!({ "lease_id": scene.clerks[0].credentials[second].lease, "increment": "40h" });
    scene.ask("POST", "sys/leases/renew", renew).await;
    scene.is_found("it lives longer than asked", false).await;
    let one = &mut scene.clerks[0].credentials[second];
    (one.over_at, one.max_at) = (one.over_at + YEAR_MILLIS, one.over_at);
    scene.is_found("it lives longer than it may", false).await;
    scene.clerks[0].credentials[second].max_at += YEAR_MILLIS;
    scene.is_sound().await;

    let (third, _) = scene.lease(Some(1)).await;
    scene.is_sound().await;
    let end = scene.clerks[0].credentials[third].over_at - 60_000;
    scene.clerks[0].tokens[1].over_at = end;
    scene.is_found("it outlives its token", false).await;
    scene.clerks[0].tokens[1].touched = true;
    scene.is_found("a token ends too late", false).await;
    scene.clerks[0].tokens[1].over_at += YEAR_MILLIS;
    scene.clerks[0].tokens[1].lives_until += YEAR_MILLIS;
    scene.clerks[0].tokens[1].touched = true;
    scene.is_found("a token ends too early", false).await;
    scene.clerks[0].tokens[1].lives_until -= YEAR_MILLIS;
    scene.clerks[0].credentials[third].lives_until += YEAR_MILLIS;
    scene.is_found("it ends too early", false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_that_does_not_end_is_found() {
    let mut scene = Scene::set().await;
    let relay = Relay::before(scene.world.server.port()).await;
    scene.world.reach_target_at(relay.port()).await;
    let desk = Desk::at(&scene.world.nodes[0]);
    scene.clerks[0].make_token(&scene.world, &desk).await.unwrap();
    scene.lease(Some(0)).await;
    scene.clerks[0].lease(&scene.world, &desk, BRIEF, None, false).await.unwrap();
    // Nothing can be taken back.
    relay.set(Fault::Reset);
    scene.world.pass_time_alive();
    scene.is_found("not everything was taken back", true).await;
    relay.set(Fault::Nothing);
    scene.clerks[0].credentials[0].fate = Fate::Doomed;
    scene.is_found("its token was revoked", false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_and_is_gone_is_found() {
    let mut scene = Scene::set().await;
    let desk = Desk::at(&scene.world.nodes[0]);
    scene.clerks[0].write_secret(&desk, 0).await.unwrap();
    scene.clerks[0].write_policy(&desk, 0).await.unwrap();
    scene.clerks[0].make_token(&scene.world, &desk).await.unwrap();
    scene.is_sound().await;
    let secret = scene.clerks[0].secrets.keys().next().unwrap().clone();
    scene.ask("POST", &secret, json!({ "data": { "value": 1, "twin": 2 } })).await;
    scene.is_found("was written by halves", false).await;
    scene.ask("POST", &secret, json!({ "data": { "value": 99, "twin": 99 } })).await;
    scene.is_found("is Some(99)", false).await;
    scene.ask("DELETE", &secret.replace("/data/", "/metadata/"), Value::Null).await;
    scene.is_found("is None", false).await;
    scene.clerks[0].secrets.clear();
    let policy = scene.clerks[0].policies.keys().next().unwrap().clone();
    scene.ask("DELETE", &policy, Value::Null).await;
    scene.is_found("is None", false).await;
    scene.clerks[0].policies.clear();
    scene.is_sound().await;

    let token = &mut scene.clerks[0].tokens[0];
    (token.standing, token.touched) = (Standing::Revoked, true);
    scene.is_found("a revoked token works", false).await;
    let token = &mut scene.clerks[0].tokens[0];
    (token.standing, token.touched) = (Standing::Live, true);
    let revoke = json!({ "token": token.token });
    scene.ask("POST", "auth/token/revoke", revoke).await;
    scene.is_found("a token that was answered is lost", false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_audit_does_not_say_is_found() {
    let mut scene = Scene::set().await;
    let (first, _) = scene.lease(None).await;
    let id = scene.clerks[0].answered[0].id.clone();
    let said = scene.world.recorded();
    let lease = scene.clerks[0].credentials[first].lease.clone();
    let seen = scene.world.look(&scene.world.nodes[0].root()).await;
    let covered = |recorded: &super::trail::Recorded, clerks: &mut [Clerk]| {
        let cover = AssertUnwindSafe(|| recorded.cover(&seen, clerks, None));
        let outcome = std::panic::catch_unwind(cover);
        outcome.err().map(|said| said.downcast_ref::<String>().unwrap().clone())
    };
    let mut silent = said.clone();
    silent.requests.remove(&id);
    let found = covered(&silent, &mut scene.clerks).unwrap();
    assert!(found.contains("was answered and is not in the audit"), "{found}");
    let mut silent = said.clone();
    silent.issued.remove(&lease);
    let found = covered(&silent, &mut scene.clerks).unwrap();
    assert!(found.contains("no entry says who got"), "{found}");
    assert_eq!(covered(&said, &mut scene.clerks), None);
    let mut silent = said;
    silent.named.remove(&lease);
    let found = covered(&silent, &mut scene.clerks).unwrap();
    assert!(found.contains("no entry names"), "{found}");
    scene.is_sound().await;

    // A line that is long read, and is changed.
    let (path, stderr) =
        (scene.world.nodes[0].audit_path(), scene.world.nodes[0].dir().join("log"));
    replace(&path, "\"type\":\"operation\"", "\"type\":\"operatioN\"");
    scene.is_found("Edited", true).await;
    replace(&path, "\"type\":\"operatioN\"", "\"type\":\"operation\"");
    scene.is_sound().await;
    File::options().append(true).open(&stderr).unwrap().write_all(b"panicked at\n").unwrap();
    scene.is_found("panicked 1 times", false).await;
    replace(&stderr, "panicked at\n", "");
    scene.is_sound().await;
    // A line that is cut out before it was read.
    for _ in 0..3 {
        scene.world.nodes[0].root().read("sys/mounts").await.ok();
    }
    let log = std::fs::read_to_string(&path).unwrap();
    let mut lines: Vec<_> = log.lines().collect();
    lines.remove(lines.len() - 2);
    std::fs::write(&path, lines.join("\n") + "\n").unwrap();
    scene.is_found("Missing", false).await;
}

/// Replaces the first of these texts in a file.
fn replace(path: &Path, from: &str, to: &str) {
    let text = std::fs::read_to_string(path).unwrap();
    assert!(text.contains(from));
    std::fs::write(path, text.replacen(from, to, 1)).unwrap();
}
