//! Requests that are given up half-way, by a client that disconnects at any moment: what they change
//! counts on this node as it does in the store.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use leasehold::core::context::Core;
use leasehold::core::error::CoreError;
use leasehold::core::peer::ConnectionInfo;
use leasehold::core::reply::Reply;
use leasehold::core::request::{Answered, Request, Verb};
use leasehold::core::route::Access;
use leasehold::core::token::{LeaseOwner, NewLifetime, NewToken, TokenKind};
use leasehold::server::run;
use leasehold::types::id::{EntityId, RequestId};
use leasehold::types::path::ApiPath;
use leasehold::types::secret::SecretString;
use leasehold::types::time::Ttl;
use serde_json::{Value, json};

use crate::support::core::{START, TestCore, TestSetup};
use crate::support::target::Targets;

const DAY: Ttl = Ttl::from_secs(86_400);

struct Office {
    test: TestCore,
    root: String,
}

impl Office {
    async fn open() -> Self {
        let registry = Targets::new().registry();
        let test = TestCore::start(TestSetup { registry, ..TestSetup::new() }).await;
        test.core.install(run::tables(Box::new(String::new), Access::Caller));
        let root = test.unsealed.tokens.create_root().await.unwrap().plain;
        Self { root: root.expose().to_owned(), test }
    }

    fn ask(
        &self,
        token: &str,
        verb: Verb,
        path: &str,
        body: Value,
    ) -> impl Future<Output = Result<Answered, CoreError>> + Send + use<> {
        let connection = ConnectionInfo {
            peer: None,
            remote: SocketAddr::from(([127, 0, 0, 1], 4)),
            listener: "test".into(),
            id: 7,
        };
        let request = Request {
            id: RequestId::random().unwrap(),
            received_at: START,
            verb,
            path: ApiPath::parse(path).unwrap(),
            fields: body.as_object().unwrap().clone(),
            token: Some(SecretString::new(token.to_owned())),
            connection,
            wrap_ttl: None,
            codes: Vec::new(),
            idempotency_key: None,
        };
        let core: Arc<Core> = self.test.core.clone();
        async move { core.handle(request).await }
    }

    async fn root(&self, verb: Verb, path: &str, body: Value) -> Reply {
        self.ask(&self.root, verb, path, body).await.unwrap().result.unwrap()
    }

    /// A token of that entity, without any policy of its own but the default.
    async fn token_of(&self, entity: &str) -> String {
        let new = NewToken {
            kind: TokenKind::Service,
            chosen: None,
            parent: None,
            policies: vec!["default".into()],
            inherits_identity: true,
            scopes: Vec::new(),
            entity_id: Some(EntityId::new(entity)),
            meta: BTreeMap::new(),
            display_name: "member".into(),
            path: "auth/token/create".into(),
            role: None,
            mount: None,
            auth_role: None,
            auth_alias: None,
            groups: Vec::new(),
            lifetime: Some(NewLifetime {
                wanted: DAY,
                default_ttl: DAY,
                role_max: Ttl::ZERO,
                mount_max: DAY,
                explicit_max: Ttl::ZERO,
                period: Ttl::ZERO,
                not_after: None,
            }),
            num_uses: 0,
            renewable: false,
            bound_cidrs: Vec::new(),
            bound_certificate: None,
            lease_owner: LeaseOwner::Token,
        };
        self.test.unsealed.tokens.create(new).await.unwrap().plain.expose().to_owned()
    }

    async fn may(&self, token: &str) -> bool {
        let asked = self.ask(token, Verb::Read, "sys/policies/acl/look", json!({}));
        asked.await.unwrap().result.is_ok()
    }

    async fn nothing_goes_on(&self) {
        let waiting = async {
            while self.test.core.outliving.count() > 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), waiting).await.unwrap();
    }
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
async fn a_right_that_is_taken_away_is_gone_although_nobody_waited_for_the_answer() {
    let office = Office::open().await;
    let look = json!({ "policy": r#"path "sys/policies/acl/look" { capabilities = ["read"] }"# });
    office.root(Verb::Write, "sys/policies/acl/look", look).await;
    let made = office.root(Verb::Write, "identity/entity", json!({ "name": "member" })).await;
    let entity = made.data.unwrap()["id"].as_str().unwrap().to_owned();
    let token = office.token_of(&entity).await;
    let with = json!({ "policies": ["look"], "member_entity_ids": [entity] });
    let without = json!({ "policies": [], "member_entity_ids": [entity] });
    let group = "identity/group/name/team";
    // How often a request waits is the store's affair: gone through until it was given up often enough.
    let mut moments = 0;
    for times in (1..6).cycle().take(500) {
        office.root(Verb::Write, group, with.clone()).await;
        assert!(office.may(&token).await, "and the node remembers that");
        let asked = office.ask(&office.root, Verb::Write, group, without.clone());
        if polled(times, asked).await.is_none() {
            moments += 1;
            office.nothing_goes_on().await;
        }
        let stored = office.root(Verb::Read, group, json!({})).await.data.unwrap();
        assert_eq!(stored["policies"], json!([]), "given up after {times} polls");
        assert!(!office.may(&token).await, "given up after {times} polls");
        if moments > 12 {
            return;
        }
    }
    panic!("given up at {moments} moments only");
}
