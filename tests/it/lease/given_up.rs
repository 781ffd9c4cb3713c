//! Requests whose answer does not leave: given up by their caller at any moment, or not audited. What
//! they leased is taken back at once.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;

use async_trait::async_trait;
use http_body_util::BodyExt;
use leasehold::api::EdgeLimits;
use leasehold::audit::file::{FileSink, FileSinkConfig, SyncPolicy};
use leasehold::core::acl::permit::Permit;
use leasehold::core::audit::AuditSink;
use leasehold::core::engine::{
    AuthMethod, AuthOutcome, AuthRequest, EngineContext, Grant, MountFacts, Renewal,
};
use leasehold::core::operation::Operation;
use leasehold::core::peer::ConnectionInfo;
use leasehold::core::request::{Request, Verb};
use leasehold::core::route::{Answer, RouteSpec, route};
use leasehold::types::id::RequestId;
use leasehold::types::path::ApiPath;
use leasehold::types::secret::SecretString;
use serde_json::Map;
use tempfile::TempDir;
use tower::ServiceExt;

use super::sweep::{Running, until};
use super::*;
use crate::support::sink::Watched;

const MINUTE: Ttl = Ttl::from_secs(60);

/// A world with a real audit.
async fn audited() -> (World, Arc<FileSink>, TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("audit.log");
    let config =
        FileSinkConfig { name: "file".into(), path, sync: SyncPolicy::Always, lend: false };
    let mut sink = None;
    let world = World::with(|setup| {
        let opened = Arc::new(FileSink::open(config, setup.clock.clone()).unwrap());
        sink = Some(opened.clone());
        setup.sinks.push(opened);
    })
    .await;
    (world, sink.unwrap(), directory)
}

fn request(token: &str, name: &str, wrap_ttl: Option<Ttl>) -> Request {
    Request {
        id: RequestId::random().unwrap(),
        received_at: START,
        verb: Verb::Read,
        path: ApiPath::parse(&format!("db/creds/{name}")).unwrap(),
        fields: Map::new(),
        token: Some(SecretString::new(token.to_owned())),
        connection: ConnectionInfo {
            peer: None,
            remote: SocketAddr::from(([127, 0, 0, 1], 4)),
            listener: "test".into(),
            id: 7,
        },
        wrap_ttl,
        codes: Vec::new(),
        idempotency_key: None,
    }
}

async fn root(world: &World) -> String {
    world.test.unsealed.tokens.create_root().await.unwrap().plain.expose().to_owned()
}

/// Drops a future when it has been polled so often and is not done.
async fn polled<F: Future>(times: usize, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut left = times;
    std::future::poll_fn(move |cx| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        future.as_mut().poll(cx).map(Some)
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_is_given_up_at_any_moment_leaves_nothing() {
    let (world, _sink, _directory) = audited().await;
    let (token, running) = (root(&world).await, Running::start(&world));
    for wrap_ttl in [None, Some(MINUTE)] {
        let mut answered_after = None;
        for times in 0..200 {
            let name = format!("u{times}-{}", wrap_ttl.is_some());
            let asked = world.test.core.handle(request(&token, &name, wrap_ttl));
            if let Some(answered) = polled(times, asked).await {
                assert!(answered.unwrap().result.is_ok());
                assert_eq!(world.targets.live(), BTreeSet::from([name]));
                answered_after = Some(times);
                break;
            }
            // It goes on for as long as it takes.
            until("it is over", async || world.test.core.outliving.count() == 0).await;
            // Time for an intent that came to be after its request was given up, not for a lease.
            let mut secs = 0..200;
            until("nothing is leased", async || {
                world.advance(secs.next().map_or(0, |_| 1));
                world.rows().await.is_empty()
            })
            .await;
            assert_eq!(world.targets.live(), BTreeSet::new(), "given up after {times} polls");
        }
        let times = answered_after.expect("it is answered some time");
        assert!(times > 3, "{times}: there was hardly a moment to give up at");
        for row in world.rows().await {
            world.leases().revoke(&row.id).await.unwrap();
        }
    }
    running.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_takes_too_long_is_answered_and_goes_on_to_its_end() {
    let (world, _sink, directory) = audited().await;
    let (token, running) = (root(&world).await, Running::start(&world));
    let limits = EdgeLimits { body_bytes_max: 1 << 20, request_timeout: Duration::from_millis(20) };
    let router = leasehold::api::router(world.test.core.clone(), limits);
    world.targets.set("pg", Mood::Hanging);
    let asked = axum::http::Request::get("/v1/db/creds/slow")
        .header("x-vault-token", &token)
        .extension(request(&token, "slow", None).connection)
        .body(axum::body::Body::empty())
        .unwrap();
    let answer = router.oneshot(asked).await.unwrap();
    assert_eq!(answer.status(), 503);
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    // It may have been done all the same, and is not said to be undone.
    assert!(String::from_utf8_lossy(&body).contains("is not known"), "{body:?}");
    assert_eq!(world.test.core.outliving.count(), 1);
    assert_eq!(world.test.core.in_flight.now().len(), 1, "it is still listed");
    world.targets.set("pg", Mood::Up);
    until("it is over", async || world.test.core.outliving.count() == 0).await;
    assert_eq!(world.test.core.in_flight.now().len(), 0);
    assert_eq!(world.targets.issues(), 1);
    // Nobody has the credential, so nobody shall.
    until("it is taken back", async || world.targets.live().is_empty()).await;
    until("it is forgotten", async || world.rows().await.is_empty()).await;
    let audit = std::fs::read_to_string(directory.path().join("audit.log")).unwrap();
    let entry = audit.lines().find(|line| line.contains("db/creds/slow")).unwrap();
    assert!(entry.contains("nobody waited for the answer"), "{entry}");
    running.end().await;
}

/// Logs everybody in who comes with a GET, as browsers do at the end of their log-in.
struct Callback(Arc<AtomicUsize>);

#[async_trait]
impl AuthMethod for Callback {
    fn routes(&self) -> &'static [RouteSpec] {
        static ROUTES: &[RouteSpec] =
            &[route("callback", "callback", "A token.", &[Operation::Read], &[])
                .public()
                .reads(Answer::Token)];
        ROUTES
    }

    async fn handle(
        &self,
        _ctx: &EngineContext<'_>,
        _permit: &Permit,
        _request: AuthRequest<'_>,
    ) -> Result<AuthOutcome, CoreError> {
        self.0.fetch_add(1, Ordering::SeqCst);
        Err(CoreError::denied("for the test"))
    }

    async fn renewal(
        &self,
        _ctx: &EngineContext<'_>,
        _renewal: Renewal<'_>,
    ) -> Result<Grant, CoreError> {
        Err(CoreError::Unsupported)
    }
}

#[tokio::test]
async fn a_log_in_by_a_read_is_not_begun_while_nothing_can_be_audited() {
    let handled = Arc::new(AtomicUsize::new(0));
    let method = handled.clone();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("audit.log");
    let config =
        FileSinkConfig { name: "file".into(), path, sync: SyncPolicy::Always, lend: false };
    let mut sink = None;
    let world = World::with(|setup| {
        let build = move |_: &MountFacts| -> Result<Arc<dyn AuthMethod>, CoreError> {
            Ok(Arc::new(Callback(method.clone())))
        };
        setup.registry.methods.insert("browser", Box::new(build));
        let opened = FileSink::open(config, setup.clock.clone()).unwrap();
        let opened = Arc::new(Watched::new(opened));
        sink = Some(opened.clone());
        setup.sinks.push(opened);
    })
    .await;
    world.test.mount_method("browser", "browser/").await;
    let asked = || Request {
        path: ApiPath::parse("auth/browser/callback").unwrap(),
        token: None,
        ..request("", "", None)
    };
    let refused = world.test.core.handle(asked()).await.unwrap().result.unwrap_err();
    assert_eq!((refused.status(), handled.load(Ordering::SeqCst)), (403, 1));
    sink.unwrap().failing.store(true, Ordering::SeqCst);
    let refused = world.test.core.handle(asked()).await.unwrap().result.unwrap_err();
    assert!(matches!(refused, CoreError::AuditUnavailable(_)), "{refused:?}");
    assert_eq!(handled.load(Ordering::SeqCst), 1, "and no code was exchanged");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_is_not_audited_leaves_nothing_wrapped_or_not() {
    let (world, sink, _directory) = audited().await;
    let (token, running) = (root(&world).await, Running::start(&world));
    sink.close().await;
    for (name, wrap_ttl) in [("plain", None), ("wrapped", Some(MINUTE))] {
        let issued = world.targets.issues();
        let refused = world.test.core.handle(request(&token, name, wrap_ttl)).await.unwrap_err();
        assert!(matches!(refused, CoreError::AuditUnavailable(_)), "{refused:?}");
        assert_eq!(world.targets.issues(), issued + 1, "there was something to take back");
        until("it is taken back", async || world.targets.live().is_empty()).await;
        until("it is forgotten", async || world.rows().await.is_empty()).await;
    }
    running.end().await;
}
