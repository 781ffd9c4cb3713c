//! A mount that is taken down, as seen by whoever still has the table from before.

use std::net::SocketAddr;

use async_trait::async_trait;
use leasehold::core::acl::permit::Permit;
use leasehold::core::engine::{
    AuthMethod, AuthOutcome, AuthRequest, EngineContext, Grant, Renewal, TokenParameters, TokenType,
};
use leasehold::core::mount::Registry;
use leasehold::core::operation::Operation;
use leasehold::core::peer::ConnectionInfo;
use leasehold::core::request::{Request, Verb};
use leasehold::core::route::{RouteSpec, route};
use leasehold::core::token::TokenSelector;
use leasehold::types::id::RequestId;
use leasehold::types::path::ApiPath;

use super::*;
use crate::support::core::sqlite;

const ANYBODY: &str = "anybody";
static LOGINS: &[RouteSpec] = &[
    route("service", "service", "A service token.", &[Operation::Update], &[]).public(),
    route("batch", "batch", "A batch token.", &[Operation::Update], &[]).public(),
];

/// Lets everybody in.
struct Anybody;

#[async_trait]
impl AuthMethod for Anybody {
    fn routes(&self) -> &'static [RouteSpec] {
        LOGINS
    }

    async fn handle(
        &self,
        _ctx: &EngineContext<'_>,
        _permit: &Permit,
        request: AuthRequest<'_>,
    ) -> Result<AuthOutcome, CoreError> {
        let mut grant = grant();
        if request.route.name == "batch" {
            grant.token.token_type = TokenType::Batch;
        }
        Ok(AuthOutcome::Login(Box::new(grant)))
    }

    async fn renewal(
        &self,
        _ctx: &EngineContext<'_>,
        _renewal: Renewal<'_>,
    ) -> Result<Grant, CoreError> {
        Ok(grant())
    }
}

fn grant() -> Grant {
    Grant {
        alias: "alice".into(),
        alias_metadata: Default::default(),
        groups: Vec::new(),
        role: "role".into(),
        display_name: "alice".into(),
        metadata: Default::default(),
        token: TokenParameters { ttl: HOUR, ..TokenParameters::default() },
        bound_certificate: None,
        not_after: None,
    }
}

fn setup(node: u64) -> TestSetup {
    let mut registry: Registry = Targets::new().registry();
    registry.methods.insert(ANYBODY, Box::new(|_| Ok(Arc::new(Anybody) as Arc<dyn AuthMethod>)));
    TestSetup { registry, node, ..TestSetup::new() }
}

async fn log_in(node: &TestCore, kind: &str) -> Result<Reply, CoreError> {
    let request = Request {
        id: RequestId::random().unwrap(),
        received_at: START,
        verb: Verb::Write,
        path: ApiPath::parse(&format!("auth/open/{kind}")).unwrap(),
        fields: Default::default(),
        token: None,
        connection: ConnectionInfo {
            peer: None,
            remote: SocketAddr::from(([127, 0, 0, 1], 4)),
            listener: "test".into(),
            id: 1,
        },
        wrap_ttl: None,
        codes: Vec::new(),
        idempotency_key: None,
    };
    node.core.handle(request).await.unwrap().result
}

fn is_closing(error: &CoreError) -> bool {
    error.status() == 400 && error.public_text().contains("is being disabled")
}

async fn close(node: &TestCore, path: &str) {
    let close = |entry: &mut leasehold::core::mount::MountEntry| {
        entry.disabling = true;
        Ok(())
    };
    node.unsealed.mounts.tune(path, close).await.unwrap();
}

#[tokio::test]
async fn nothing_is_issued_on_a_mount_that_goes_meanwhile() {
    let world = World::new().await;
    world.issue("pg", "u1").await;
    // From here on, the request has the mount as it was when it was routed.
    close(&world.test, "db/").await;
    for idempotency_key in [None, Some("k")] {
        let issuing = Issuing { idempotency_key, ..world.issuing() };
        let error = world.leases().issue(issuing, plan("pg", "u2", HOUR)).await.unwrap_err();
        assert!(is_closing(&error), "{error}");
    }
    let accessor = world.mounted.facts.accessor.clone();
    world.leases().revoke_all(Selector::Mount(accessor)).await.unwrap();
    world.sweep().await;
    world.test.unsealed.mounts.remove("db/").await.unwrap();
    let error = world.try_issue("pg", "u3").await.unwrap_err();
    assert!(is_closing(&error), "{error}");
    assert_eq!((world.targets.issues(), world.targets.live().len()), (1, 0));
    assert_eq!((world.rows().await.len(), world.overdue().await.len()), (0, 0));
    // Another one at the same place is another mount, and takes on what it is asked for.
    let again = World { mounted: world.test.mount(KIND, "db/").await, ..world };
    again.issue("pg", "u4").await;
    let tuned = |entry: &mut leasehold::core::mount::MountEntry| {
        entry.description = "changed".into();
        Ok(())
    };
    again.test.unsealed.mounts.tune("db/", tuned).await.unwrap();
    again.test.unsealed.mounts.rename("db/", "moved/").await.unwrap();
    again.issue("pg", "u5").await;
}

#[tokio::test]
async fn nobody_logs_in_at_a_mount_that_another_node_takes_down() {
    let (_directory, storage) = sqlite();
    let first = TestCore::start_on(storage.clone(), setup(1)).await;
    let mount = first.mount_method(ANYBODY, "open/").await;
    // Nobody tells it of changes: it keeps the table that it began with.
    let second = TestCore::join(storage, setup(2), &first.share).await;
    for node in [&first, &second] {
        log_in(node, "service").await.unwrap();
        log_in(node, "batch").await.unwrap();
    }
    close(&first, "auth/open/").await;
    let of_mount = TokenSelector::Mount(mount.entry.accessor.clone());
    assert_eq!(first.unsealed.tokens.revoke_all(&of_mount).await.unwrap(), 2);
    for node in [&first, &second] {
        for kind in ["service", "batch"] {
            let error = log_in(node, kind).await.unwrap_err();
            assert!(is_closing(&error), "{kind}: {error}");
        }
    }
    first.unsealed.mounts.remove("auth/open/").await.unwrap();
    for kind in ["service", "batch"] {
        assert!(is_closing(&log_in(&second, kind).await.unwrap_err()), "{kind}");
    }
    assert_eq!(first.unsealed.tokens.revoke_all(&of_mount).await.unwrap(), 0, "no token is left");
}
