//! What has ended leaves nothing behind: a store through which much has passed is as small as before.

use std::collections::BTreeMap;

use leasehold::core::guess::Guesser;
use leasehold::core::peer::ConnectionInfo;
use leasehold::core::reply::Reply;
use leasehold::core::token::{LeaseOwner, NewLifetime, NewToken, TokenKind};
use leasehold::core::wrap;
use leasehold::storage::Kind;

use super::*;
use crate::support::target::Mood;

/// Beyond every kind there is.
const KINDS: u16 = 32;
/// More than are looked at together.
const OPERATIONS: usize = 150;

/// How many rows of each kind there are, of those that have any.
pub(super) async fn rows_of_each_kind(storage: &dyn Storage) -> BTreeMap<u16, u64> {
    let mut rows = BTreeMap::new();
    for kind in 0..KINDS {
        let count = storage.count(Kind(kind), START).await.unwrap().total;
        if count > 0 {
            rows.insert(kind, count);
        }
    }
    rows
}

fn token(secs: u64, parent: Option<&str>, num_uses: u64) -> NewToken {
    NewToken {
        kind: TokenKind::Service,
        chosen: None,
        parent: parent.map(str::to_owned),
        policies: vec!["app".into()],
        inherits_identity: false,
        scopes: Vec::new(),
        entity_id: None,
        meta: BTreeMap::new(),
        display_name: "token".into(),
        path: "auth/token/create".into(),
        role: None,
        mount: None,
        auth_role: None,
        auth_alias: None,
        groups: Vec::new(),
        lifetime: Some(NewLifetime { wanted: Ttl::from_secs(secs), ..NewLifetime::default() }),
        num_uses,
        renewable: true,
        bound_cidrs: Vec::new(),
        bound_certificate: None,
        lease_owner: LeaseOwner::Token,
    }
}

/// Tokens with children, uses, cubbyholes, and leases of their own.
async fn tokens_come(node: &Node) {
    let unsealed = node.core.unsealed().unwrap();
    let cubbyhole = unsealed.mounts.at("cubbyhole/").unwrap();
    for n in 0..5 {
        let parent = unsealed.tokens.create(token(600 + n, None, 0)).await.unwrap();
        let hash = parent.token.stored_name().unwrap().to_owned();
        for uses in [0, 1] {
            let child = unsealed.tokens.create(token(300, Some(&hash), uses)).await.unwrap();
            let _ = unsealed.tokens.consume_use(&child.token).await.unwrap();
        }
        let at = format!("{hash}/deep/down/secret");
        cubbyhole
            .view
            .write(&at, &"s", leasehold::core::records::Precondition::Absent)
            .await
            .unwrap();
        node.issue_to(&format!("token-{n}"), Owner::Token(hash), None, 400).await;
    }
}

async fn wrapped_answers_come(node: &Node) {
    let unsealed = node.core.unsealed().unwrap();
    let remote = std::net::SocketAddr::from(([127, 0, 0, 1], 4));
    let connection = ConnectionInfo { peer: None, remote, listener: "test".into(), id: 1 };
    for read in [true, false] {
        let reply = Reply::data(serde_json::json!({ "a": "secret" }));
        let ttl = Ttl::from_secs(500);
        let wrapped = wrap::wrap(&unsealed, reply, ttl, "secret/x").await.unwrap();
        let token = wrapped.wrap.unwrap().token;
        if read {
            let guesser = Guesser::of(&node.core, &unsealed, None, &connection).await.unwrap();
            wrap::unwrap(&unsealed, &guesser, token.expose()).await.unwrap();
        }
    }
}

/// Leases that expire, with and without idempotency keys, that are revoked in bulk, and that fail.
async fn leases_come(node: &Node, targets: &Targets) {
    for n in 0..20 {
        let key = (n % 2 == 0).then(|| format!("key-{n}"));
        let owner = Owner::Entity(EntityId::new("alice"));
        node.issue_to(&format!("lease-{n}"), owner, key.as_deref(), 200 + n).await;
    }
    targets.set("pg", Mood::Down);
    node.leases.revoke_all(Selector::Entities(vec![EntityId::new("alice")])).await.unwrap();
    node.pass(60).await;
    assert!(node.leases.count_overdue().await.unwrap() > 0);
    targets.set("pg", Mood::Up);
    for _ in 1..OPERATIONS {
        node.leases.revoke_all(Selector::Prefix("none/".into())).await.unwrap();
    }
}

async fn what_has_ended_leaves_no_row(storage: Arc<dyn Storage>, labels: impl AsyncFn() -> u64) {
    let targets = Targets::new();
    let node = Node::first(storage.clone(), &targets).await;
    // Until every job has left its note.
    node.pass_in_steps(2 * 3600, 20).await;
    let before = (rows_of_each_kind(storage.as_ref()).await, labels().await);

    tokens_come(&node).await;
    wrapped_answers_come(&node).await;
    leases_come(&node, &targets).await;
    let full = (rows_of_each_kind(storage.as_ref()).await, labels().await);
    assert!(full.0.values().sum::<u64>() > before.0.values().sum::<u64>() + 150, "{full:?}");
    assert!(full.1 > before.1, "{full:?}");

    // A day later all that expires has, but bulk revocations can be asked about for a week.
    node.pass_in_steps(86_400, 120).await;
    soon("nothing lives", async || targets.live().is_empty()).await;
    let operations = leasehold::core::records::kinds::OPERATION.0;
    let mut expected = before.clone();
    expected.0.insert(operations, OPERATIONS as u64);
    let left = async || rows_of_each_kind(storage.as_ref()).await;
    later(&node, "only bulk revocations are left", async || left().await == expected.0).await;
    node.pass_in_steps(7 * 86_400, 600).await;
    let left = async || (rows_of_each_kind(storage.as_ref()).await, labels().await);
    later(&node, "only what was there before is left", async || left().await == before).await;
    node.scheduler.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_has_ended_leaves_no_row_on_sqlite() {
    let (directory, storage) = sqlite();
    let path = directory.path().join("leasehold.db");
    what_has_ended_leaves_no_row(storage, async || {
        let db = rusqlite::Connection::open(&path).unwrap();
        let count: i64 = db.query_row("SELECT count(*) FROM label", [], |row| row.get(0)).unwrap();
        u64::try_from(count).unwrap()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_has_ended_leaves_no_row_on_postgresql() {
    let server = TestPostgres::shared();
    let url = server.database();
    let name = url.rsplit('/').next().unwrap().split('?').next().unwrap().to_owned();
    what_has_ended_leaves_no_row(connect(&url).await, async || {
        server.sql(&name, "SELECT count(*) FROM label").trim().parse().unwrap()
    })
    .await;
}

/// An answer that is kept for a token that has just ended could never be removed.
#[tokio::test]
async fn nothing_is_kept_for_a_token_that_has_ended() {
    let (_directory, storage) = sqlite();
    let targets = Targets::new();
    let setup = TestSetup { registry: targets.registry(), ..TestSetup::new() };
    let test = TestCore::start_on(storage.clone(), setup).await;
    let unsealed = &test.unsealed;
    let before = rows_of_each_kind(storage.as_ref()).await;
    let made = unsealed.tokens.create(token(600, None, 0)).await.unwrap();
    let caller = test.core.caller_of_token(unsealed, made.plain.expose()).await.unwrap();
    let row = caller.facts.row.unwrap();
    let mounted = unsealed.mounts.at("cubbyhole/").unwrap();
    let write = async |n: u32| {
        use leasehold::core::records::{Batch, Precondition};
        use leasehold::core::view::PutOptions;
        let mut batch = Batch::new();
        let (at, options) = (format!("{}/{n}", caller.facts.private_key), PutOptions::default());
        mounted.view.put(&mut batch, &at, &n, Precondition::Any, options).unwrap();
        batch.only_for(row);
        mounted.view.commit(&batch).await
    };
    write(1).await.unwrap();
    unsealed.tokens.revoke(&made.token).await.unwrap();
    assert!(write(2).await.unwrap_err().is_conflict());
    assert_eq!(rows_of_each_kind(storage.as_ref()).await, before);
}
