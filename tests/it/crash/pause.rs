//! A node that stands still for longer than anything may stay in its hand, as a paused machine does,
//! while another goes on; and that then wakes up in the middle of what it was doing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::process::Signal;
use rustls::version::TLS13;
use serde_json::json;
use tokio::task::JoinSet;
use tokio_postgres::NoTls;

use super::clerk::{BRIEF, Clerk, Desk, LONG};
use super::{CREATE, Dice, LATER, World, number};
use crate::support::broker::Setup;
use crate::support::wire::{Client, answer, send, soon};

/// A node that waits on the target for a lock that the test has.
struct Stuck {
    session: tokio_postgres::Client,
    lock: String,
}

impl Stuck {
    /// Takes an advisory lock on the target.
    async fn on(world: &World, lock: &str) -> Self {
        let url = world.server.url(&world.database);
        let (session, connection) = tokio_postgres::connect(&url, NoTls).await.unwrap();
        tokio::spawn(connection);
        session.batch_execute(&format!("SELECT pg_advisory_lock({lock})")).await.unwrap();
        Self { session, lock: lock.to_owned() }
    }

    /// Waits until a node waits, stops it there, and lets its statement have the lock.
    async fn stop(self, world: &World) {
        let waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted \
             AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
        soon(async {
            while self.session.query_one(waiting, &[]).await.unwrap().get::<_, i64>(0) == 0 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
        world.nodes[0].signal(Signal::STOP);
        let unlock = format!("SELECT pg_advisory_unlock({})", self.lock);
        self.session.batch_execute(&unlock).await.unwrap();
    }
}

/// Two nodes, of which the second is started when the first stands still, and so much later.
async fn join_later(world: &mut World) {
    let other = world.nodes[0].beside_later(LATER).await;
    world.nodes.push(other);
    world.ahead.store(LATER.as_secs(), Ordering::SeqCst);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_stops_while_it_revokes_leaves_nothing_and_revives_nothing() {
    let mut world = World::on_postgres(1).await;
    let mut clerks = [Clerk::new("pause")];
    let desk = Desk::at(&world.nodes[0]);
    clerks[0].lease(&world, &desk, LONG, None, false).await.unwrap();
    clerks[0].lease(&world, &desk, BRIEF, None, false).await.unwrap();
    // What a revocation locks first.
    let lock = format!("hashtextextended('{}', 0)", clerks[0].credentials[1].user);
    Stuck::on(&world, &lock).await.stop(&world).await;
    join_later(&mut world).await;
    // The other takes over what the first has claimed, and is not kept out by its open transaction.
    world.check(1, &mut clerks, true).await;
    assert_eq!(clerks[0].credentials[1].fate, super::clerk::Fate::Dead);
    world.nodes[0].signal(Signal::CONT);
    // The first works on, and finds out that it was late.
    clerks[0].write_secret(&desk, 0).await.unwrap();
    for node in [0, 1] {
        world.check(node, &mut clerks, true).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_stops_while_it_issues_makes_no_credential_when_it_wakes_up() {
    let mut world = World::on_postgres(1).await;
    let mut clerks = [Clerk::new("pause")];
    let role = format!("{}slow", world.prefix);
    let creation = format!("SELECT pg_advisory_xact_lock(4711); {CREATE}");
    let body = json!({ "db_name": "pg", "creation_statements": creation });
    let root = world.nodes[0].root();
    root.write(&format!("database/roles/{role}"), body).await.ok();
    clerks[0].lease(&world, &Desk::at(&world.nodes[0]), LONG, None, false).await.unwrap();

    let stuck = Stuck::on(&world, "4711").await;
    let pki = &world.nodes[0].pki;
    let client = Client::new(&pki.servers.der, &TLS13, Some((&pki.admin, &[])));
    let mut asking = client.connect(world.nodes[0].address).await.unwrap();
    let token = world.nodes[0].root_token();
    let request = format!(
        "GET /v1/database/creds/{role} HTTP/1.1\r\nhost: test\r\nx-vault-token: {token}\r\n\r\n"
    );
    send(&mut asking, &request).await.unwrap();
    stuck.stop(&world).await;
    join_later(&mut world).await;
    // The other takes the intent back, which ends the first one's open transaction.
    world.check(1, &mut clerks, true).await;
    world.nodes[0].signal(Signal::CONT);
    let given = answer(&mut asking).await.unwrap();
    assert!(given.status >= 400, "it was revoked before it was there: {}", given.body);
    for node in [0, 1] {
        world.check(node, &mut clerks, true).await;
    }
    let users = format!("SELECT count(*) FROM pg_roles WHERE starts_with(rolname, '{role}')");
    assert_eq!(world.target.query_one(&users, &[]).await.unwrap().get::<_, i64>(0), 0);
}

/// How long the only server stands still while clerks are at work, in milliseconds: long enough for what
/// they had asked to be waiting. `LEASEHOLD_PAUSE_SECS` has it stand for longer than anything may be in hand.
const STANDSTILL_MILLIS: u64 = 700;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_stands_still_under_load_goes_on_where_it_was() {
    let pause = number("LEASEHOLD_PAUSE_SECS").map_or(STANDSTILL_MILLIS, |secs| secs * 1000);
    let pause = Duration::from_millis(pause);
    let world = Arc::new(World::with_clock(Setup::default()).await);
    let over = Arc::new(AtomicBool::new(false));
    let mut at_work = JoinSet::new();
    for n in 0..4 {
        let (world, over) = (world.clone(), over.clone());
        at_work.spawn(async move {
            let mut clerk = Clerk::new(&format!("still{n}"));
            clerk.patience += pause;
            let (mut desk, mut dice) = (Desk::at(&world.nodes[0]), Dice::new(n));
            while !over.load(Ordering::SeqCst) {
                // What stood still for that long may have lost its connections.
                if clerk.act(&world, &desk, &mut dice).await.is_err() {
                    desk = Desk::at(&world.nodes[0]);
                }
            }
            clerk
        });
    }
    let moment = Duration::from_millis(300);
    tokio::time::sleep(moment).await;
    world.nodes[0].signal(Signal::STOP);
    tokio::time::sleep(pause).await;
    world.nodes[0].signal(Signal::CONT);
    tokio::time::sleep(moment).await;
    over.store(true, Ordering::SeqCst);
    let mut clerks = at_work.join_all().await;
    world.check(0, &mut clerks, false).await;
    world.pass_time_alive();
    clerks[0].lease(&world, &Desk::at(&world.nodes[0]), BRIEF, None, false).await.unwrap();
    world.check(0, &mut clerks, true).await;
}
