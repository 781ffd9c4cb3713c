//! Wrapping tokens and unseal shares that are guessed: who guesses is slowed down and then locked, and nobody else is.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use leasehold::api::sys::lockouts::LockoutRoutes;
use leasehold::api::sys::wrapping::WrappingRoutes;
use leasehold::auth::approle::ApproleMethod;
use leasehold::core::engine::AuthMethod;
use leasehold::core::error::CoreError;
use leasehold::core::guess::Guesser;
use leasehold::core::mount::Registry;
use leasehold::core::peer::ConnectionInfo;
use leasehold::core::reply::Reply;
use leasehold::core::request::{Request, Verb};
use leasehold::core::seal::{Asker as SealAsker, GenerateRootOutcome};
use leasehold::types::id::RequestId;
use leasehold::types::path::ApiPath;
use leasehold::types::secret::SecretString;
use leasehold::types::time::Ttl;
use serde_json::{Value, json};

use crate::support::broker::{Broker, Setup};
use crate::support::core::{TestCore, TestSetup};
use crate::support::target::Targets;

const HERE: [u8; 4] = [192, 0, 2, 1];
const ELSEWHERE: [u8; 4] = [192, 0, 2, 2];

/// Somebody who asks: with a token or without, from somewhere.
#[derive(Clone)]
struct Asker<'t> {
    test: &'t TestCore,
    token: Option<String>,
    from: [u8; 4],
}

impl Asker<'_> {
    async fn ask(&self, verb: Verb, path: &str, body: Value) -> Result<Reply, CoreError> {
        let request = Request {
            id: RequestId::random().unwrap(),
            received_at: self.test.core.clock.now(),
            verb,
            path: ApiPath::parse(path).unwrap(),
            fields: body.as_object().unwrap().clone(),
            token: self.token.clone().map(SecretString::new),
            connection: ConnectionInfo {
                peer: None,
                remote: SocketAddr::from((self.from, 4)),
                listener: "test".into(),
                id: 7,
            },
            wrap_ttl: path.ends_with("/wrap").then_some(Ttl::from_secs(3600)),
            codes: Vec::new(),
            idempotency_key: None,
        };
        self.test.core.handle(request).await.unwrap().result
    }

    async fn write(&self, path: &str, body: Value) -> Result<Reply, CoreError> {
        self.ask(Verb::Write, path, body).await
    }

    async fn wrapped(&self) -> String {
        let reply = self.write("sys/wrapping/wrap", json!({ "a": 1 })).await.unwrap();
        reply.wrap.unwrap().token.expose().to_owned()
    }

    /// 0 when a token is let through or is none, else for how long one has to wait.
    async fn tries(&self, part: &str, token: &str) -> u64 {
        match self.write(&format!("sys/wrapping/{part}"), json!({ "token": token })).await {
            Err(CoreError::TooMany { retry_after, .. }) => retry_after.as_secs(),
            Err(error) => {
                assert_eq!(error.status(), 400, "{error}");
                0
            }
            Ok(_) => 0,
        }
    }
}

fn guess(number: usize) -> String {
    format!("s.{number:024}")
}

async fn start() -> TestCore {
    let mut registry: Registry = Targets::new().registry();
    let build = |_: &_| Ok(Arc::new(ApproleMethod::default()) as Arc<dyn AuthMethod>);
    registry.methods.insert("approle", Box::new(build));
    let test = TestCore::start(TestSetup { registry, ..TestSetup::new() }).await;
    test.core.install(vec![Box::new(WrappingRoutes), Box::new(LockoutRoutes)]);
    test.mount_method("approle", "approle/").await;
    test
}

async fn root(test: &TestCore) -> Asker<'_> {
    let token = test.unsealed.tokens.create_root().await.unwrap().plain.expose().to_owned();
    Asker { test, token: Some(token), from: ELSEWHERE }
}

/// Somebody with an identity, at the address that all share.
async fn identity<'t>(root: &Asker<'t>, name: &str) -> (Asker<'t>, String) {
    let role = json!({
        "role_id": name, "bind_secret_id": false, "secret_id_bound_cidrs": ["192.0.2.0/24"],
    });
    root.write(&format!("auth/approle/role/{name}"), role).await.unwrap();
    let nobody = Asker { token: None, from: HERE, ..root.clone() };
    let made = nobody.write("auth/approle/login", json!({ "role_id": name })).await.unwrap();
    let auth = made.auth.unwrap();
    let id = format!("entity:{}", auth.entity_id.unwrap());
    (Asker { token: Some(auth.client_token.expose().to_owned()), ..nobody }, id)
}

async fn locked(root: &Asker<'_>) -> Value {
    let listed = root.ask(Verb::Read, "sys/locked-users", json!({})).await.unwrap();
    Value::Object(listed.data.unwrap())
}

#[tokio::test]
async fn whoever_guesses_is_slowed_down_then_locked_and_nobody_beside_is() {
    let test = start().await;
    let root = root(&test).await;
    let ((guesser, id), (other, _)) =
        (identity(&root, "guesser").await, identity(&root, "other").await);
    let nobody = Asker { token: None, ..guesser.clone() };
    let right = root.wrapped().await;
    let mut waits = Vec::new();
    for number in 0..10 {
        let part = ["lookup", "unwrap", "rewrap"][number % 3];
        assert_eq!(guesser.tries(part, &guess(number)).await, 0, "{number}");
        // The right one is refused as any other meanwhile, and is not used up by that.
        let wait = if number < 2 { 0 } else { guesser.tries("unwrap", &right).await };
        waits.push(wait);
        if number < 9 {
            test.clock.advance(Duration::from_secs(wait));
        }
    }
    assert_eq!(waits, [0, 0, 1, 2, 4, 8, 16, 32, 60, 900]);
    // Somebody else at the same address, and who comes from there as nobody, is let through.
    assert_eq!(other.tries("lookup", &right).await, 0);
    assert_eq!(nobody.tries("lookup", &right).await, 0);
    // The lock follows the identity.
    let elsewhere = Asker { from: ELSEWHERE, ..guesser.clone() };
    assert_eq!(elsewhere.tries("lookup", &right).await, 900);
    let listed = locked(&root).await;
    let mounts = &listed["by_namespace"][0]["mount_accessors"];
    assert_eq!(listed["total"], 1);
    assert_eq!(mounts[0]["mount_accessor"], "wrapping");
    assert_eq!(mounts[0]["alias_identifiers"], json!([id]));
    root.write(&format!("sys/locked-users/wrapping/unlock/{id}"), json!({})).await.unwrap();
    assert_eq!(locked(&root).await["total"], 0);
    let got = guesser.write("sys/wrapping/unwrap", json!({ "token": right })).await.unwrap();
    assert_eq!(got.data.unwrap()["a"], 1);
}

#[tokio::test]
async fn who_gives_wrong_shares_is_locked_and_listed_and_nobody_else_waits() {
    let test = start().await;
    let root = root(&test).await;
    let giver = |from: [u8; 4]| {
        Guesser::on(&ConnectionInfo {
            peer: None,
            remote: SocketAddr::from((from, 4)),
            listener: "test".into(),
            id: 7,
        })
    };
    let (here, elsewhere) = (giver(HERE), giver(ELSEWHERE));
    test.core.generate_root_start(None, "starter".to_owned()).await.unwrap();
    let nonce = test.core.generate_root_status(SealAsker::Knowing).await.unwrap().nonce;
    let wrong = format!("{}01", "ab".repeat(32));
    let give = async |share: &str, giver: &Guesser| match test
        .core
        .generate_root_update(share, &nonce, giver)
        .await
    {
        Ok(_) => 0,
        Err(CoreError::TooMany { retry_after, .. }) => retry_after.as_secs(),
        Err(error) => {
            assert_eq!(error.status(), 400, "{error}");
            0
        }
    };
    let mut waits = Vec::new();
    for _ in 0..60 {
        assert_eq!(give(&wrong, &here).await, 0);
        // The right one is refused as any other meanwhile.
        let wait = if waits.len() < 3 { 0 } else { give(&test.share, &here).await };
        waits.push(wait);
        if waits.len() < 60 {
            test.clock.advance(Duration::from_secs(wait));
        }
    }
    assert_eq!(waits[..10], [0, 0, 0, 1, 2, 4, 8, 16, 32, 60]);
    assert_eq!(waits.last(), Some(&900));
    let listed = locked(&root).await;
    let mounts = &listed["by_namespace"][0]["mount_accessors"];
    assert_eq!((&listed["total"], &mounts[0]["mount_accessor"]), (&json!(1), &json!("unseal")));
    assert_eq!(mounts[0]["alias_identifiers"], json!(["address:192.0.2.1"]));
    let at = "sys/locked-users/unseal/unlock/address:192.0.2.1";
    root.write(at, json!({})).await.unwrap();
    assert_eq!(locked(&root).await["total"], 0);
    // And locked again, it delays nobody.
    while give(&wrong, &here).await == 0 {}
    let made = test.core.generate_root_update(&test.share, &nonce, &elsewhere).await.unwrap();
    assert!(matches!(made, GenerateRootOutcome::Done { .. }));
}

#[tokio::test]
async fn what_was_given_once_is_no_guess() {
    let test = start().await;
    let root = root(&test).await;
    let (reader, _) = identity(&root, "reader").await;
    let (used, over) = (root.wrapped().await, root.wrapped().await);
    assert!(reader.write("sys/wrapping/unwrap", json!({ "token": used })).await.is_ok());
    for _ in 0..20 {
        assert_eq!(reader.tries("unwrap", &used).await, 0);
    }
    test.clock.advance(Duration::from_secs(3601));
    for _ in 0..20 {
        assert_eq!(reader.tries("lookup", &over).await, 0);
    }
    // A token that is there and wraps nothing was not guessed, either, and tells no more.
    let own = reader.token.clone().unwrap();
    let refused = root.write("sys/wrapping/lookup", json!({ "token": own })).await.unwrap_err();
    assert_eq!(refused.status(), 400);
    assert_eq!(locked(&root).await["total"], 0);
}

#[tokio::test]
async fn an_address_is_given_more_room_and_then_waits_too() {
    let test = start().await;
    let root = root(&test).await;
    let (other, _) = identity(&root, "other").await;
    let nobody = Asker { token: None, from: HERE, ..root.clone() };
    let right = root.wrapped().await;
    // An unknown token of one's own makes nobody somebody else.
    let pretender = Asker { token: Some(guess(999)), ..nobody.clone() };
    for number in 0..50 {
        let asker = if number % 2 == 0 { &nobody } else { &pretender };
        assert_eq!(asker.tries("lookup", &guess(number)).await, 0, "{number}");
    }
    assert_eq!(nobody.tries("lookup", &right).await, 1);
    assert_eq!(pretender.tries("lookup", &right).await, 1);
    assert_eq!(other.tries("lookup", &right).await, 0);
    let elsewhere = Asker { from: ELSEWHERE, ..nobody.clone() };
    assert_eq!(elsewhere.tries("lookup", &right).await, 0);
    root.write("sys/locked-users/wrapping/unlock/address:192.0.2.1", json!({})).await.unwrap();
    assert_eq!(nobody.tries("lookup", &right).await, 0);
}

/// On a server that runs, by certificates that it has verified.
#[tokio::test]
async fn who_gives_wrong_shares_waits_while_another_certificate_unseals() {
    let server = "log_level = \"info\"".into();
    let broker = Broker::start(Setup { shares: (3, 2), server, ..Setup::default() });
    broker.init().await;
    let (keys, holder) = (broker.keys(), broker.admin());
    let guesser = broker.caller(&broker.svid("guesser"));
    let give = async |share: &str| guesser.write("sys/unseal", json!({ "key": share })).await;
    // Two make a set. A machine that is slow lets pauses pass: then there are more of them.
    let mut sets = 0;
    let wait = 'guessing: loop {
        for point in 1..3 {
            let answer = give(&format!("{sets:064x}{point:02x}")).await;
            if answer.status == 429 {
                break 'guessing answer.header("retry-after").unwrap().parse::<u64>().unwrap();
            }
            assert_eq!(answer.status, if point == 1 { 200 } else { 400 }, "{}", answer.body);
        }
        sets += 1;
        assert!(sets < 10, "nobody is slowed down");
    };
    assert!(sets > 3 && wait > 0, "{wait} seconds after {sets} sets");
    let given = holder.write("sys/unseal", json!({ "key": keys[0] })).await.ok();
    assert_eq!(given["sealed"], json!(true));
    // Whatever the guesser goes on giving, a right share among it, is not for the holder to bear.
    give(&keys[1]).await;
    give(&format!("{sets:064x}03")).await;
    assert_eq!(holder.read("sys/seal-status").await.ok()["sealed"], json!(true));
    let given = holder.write("sys/unseal", json!({ "key": keys[1] })).await.ok();
    assert_eq!(given["sealed"], json!(false));
    let refused = |entry: &Value| entry["outcome"]["status"] == 429;
    assert!(broker.audit().iter().any(refused), "who had to wait is in the audit");
}
