use std::collections::BTreeMap;
use std::time::Duration;

use super::*;
use crate::auth::cert::CertMethod;
use crate::auth::identity::IdentityRoutes;
use crate::core::acl::CheckRequest;
use crate::core::audit::broker::AuditBroker;
use crate::core::caller::Caller;
use crate::core::context::{Core, CoreSettings, Parts, Unsealed};
use crate::core::crl_source::NoCrlSource;
use crate::core::lease::LeaseSettings;
use crate::core::mount::{MountClass, MountConfig, NewMount, Registry};
use crate::core::peer::{ConnectionInfo, VerifiedPeer};
use crate::core::policy::PolicyName;
use crate::core::reply::AuthReply;
use crate::core::route;
use crate::core::scratch::{NOW, Scratch};
use crate::core::seal::SealState;
use crate::core::spiffe::TrustDomain;
use crate::core::token::{NewToken, TokenKind};
use crate::core::trust::{TrustBundle, TrustStore};
use crate::crypto::x509::Anchors;
use crate::crypto::x509::crl::Crls;
use crate::pki::{Ca, NOT_BEFORE_SECS, Spec};
use crate::types::id::RequestId;
use crate::types::path::ApiPath;
use crate::types::secret::SecretString;
use crate::types::time::{ManualClock, Ttl};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

const NOW_SECS: u64 = 1_800_000_000;

const WEB: &str = r#"
path "secret/data/reports/*" { capabilities = ["read", "list"] }
path "secret/data/web" { capabilities = ["read", "update"] }
path "auth/token/create" { capabilities = ["update"] }
path "auth/token/create/*" { capabilities = ["update"] }
path "auth/token/create-orphan" { capabilities = ["update"] }
"#;

struct Server {
    core: Arc<Core>,
    unsealed: Arc<Unsealed>,
    clock: Arc<ManualClock>,
    ca: Ca,
    _scratch: Scratch,
}

/// How a request comes.
#[derive(Default)]
struct Who<'w> {
    token: Option<&'w str>,
    peer: Option<&'w Arc<VerifiedPeer>>,
    remote: Option<&'w str>,
}

fn by_token(token: &str) -> Who<'_> {
    Who { token: Some(token), ..Who::default() }
}

fn by_certificate(peer: &Arc<VerifiedPeer>) -> Who<'_> {
    Who { peer: Some(peer), ..Who::default() }
}

impl Server {
    /// A server that trusts one CA, with a role for `spiffe://example.org/web*` that has policy web.
    async fn new() -> Self {
        let scratch = Scratch::new();
        let clock = Arc::new(ManualClock::new(NOW));
        let ca = Ca::root("ca");
        let trust = Arc::new(TrustStore::new());
        let anchors = Anchors::from_certificates(vec![ca.der.clone()]).unwrap();
        let domain = TrustDomain::parse("example.org").unwrap();
        trust.set_bundles(vec![
            TrustBundle::new("corp", Some(domain), anchors, Crls::none()).unwrap(),
        ]);
        let mut registry = Registry::default();
        let roles = trust.clone();
        registry.methods.insert(
            "cert",
            Box::new(move |facts| {
                Ok(Arc::new(CertMethod::new(roles.clone(), Arc::new(NoCrlSource), facts)))
            }),
        );
        let parts = Parts {
            storage: scratch.storage.clone(),
            clock: clock.clone(),
            registry,
            audit: AuditBroker::unaudited(clock.clone()),
            trust,
            seal: SealState::new(Vec::new(), "test"),
            settings: CoreSettings {
                cluster_name: "test".into(),
                default_ttl: Ttl::from_secs(3600),
                max_ttl: Ttl::from_secs(86_400),
                leases: LeaseSettings::default(),
                cache_bytes: 1 << 20,
                clock_jump_max: Ttl::from_secs(3600),
                trust_clock: false,
            },
            node: 1,
        };
        let core = Core::new(parts, true);
        let unsealed = Unsealed::open(&core, scratch.keyring.clone()).await.unwrap();
        let mount = NewMount {
            path: "cert".into(),
            class: MountClass::Auth,
            kind: "cert".into(),
            description: String::new(),
            options: BTreeMap::new(),
            config: MountConfig::default(),
        };
        unsealed.mounts.enable(mount).await.unwrap();
        let server = Self { core, unsealed, clock, ca, _scratch: scratch };
        server.policy("web", WEB).await;
        let role = json!({
            "allowed_uri_sans": "spiffe://example.org/web*",
            "token_policies": "web",
            "token_ttl": "1h",
        });
        server.role("web", role).await;
        server
    }

    async fn policy(&self, name: &str, text: &str) {
        let name = PolicyName::parse(name).unwrap();
        self.unsealed.policies.set(&name, text.to_owned(), NOW, None).await.unwrap();
    }

    /// Writes a cert role, as root would.
    async fn role(&self, name: &str, body: Value) {
        let mounted = self.unsealed.mounts.at("auth/cert/").unwrap();
        let method = mounted.method().unwrap();
        let path = format!("certs/{name}");
        let (route, params) = route::find(method.routes(), &path).unwrap();
        let request = crate::core::engine::AuthRequest {
            operation: Operation::Update,
            route,
            params,
            fields: fields(body),
            peer: None,
            remote: std::net::IpAddr::from([127, 0, 0, 1]),
            locked: false,
        };
        let root = self.root().await;
        let caller = self.caller(&by_token(&root)).await.unwrap();
        let full = ApiPath::parse(&format!("auth/cert/{path}")).unwrap();
        let permit = caller.authorize(&CheckRequest::new(&full, Operation::Update)).unwrap();
        method.handle(&mounted.context(), &permit, request).await.unwrap();
        self.unsealed.callers.forget();
    }

    async fn root(&self) -> String {
        self.unsealed.tokens.create_root().await.unwrap().plain.expose().to_owned()
    }

    fn svid(&self, path: &str) -> Arc<VerifiedPeer> {
        self.peer(&Spec::svid(&format!("spiffe://example.org/{path}")))
    }

    fn peer(&self, spec: &Spec) -> Arc<VerifiedPeer> {
        let issued = self.ca.issue(spec);
        Arc::new(VerifiedPeer::from_handshake(std::slice::from_ref(&issued.der)).unwrap())
    }

    fn connection(who: &Who<'_>) -> ConnectionInfo {
        ConnectionInfo {
            peer: who.peer.cloned(),
            remote: format!("{}:1", who.remote.unwrap_or("127.0.0.1")).parse().unwrap(),
            listener: "test".into(),
            id: 1,
        }
    }

    async fn caller(&self, who: &Who<'_>) -> Result<Arc<Caller>, CoreError> {
        self.core.caller(&self.unsealed, who.token, &Self::connection(who)).await
    }

    /// One request to a table, judged as the pipeline does.
    async fn call_table(
        &self,
        table: &dyn SystemRoutes,
        who: &Who<'_>,
        operation: Operation,
        path: &str,
        body: Value,
    ) -> Result<Reply, CoreError> {
        let connection = Self::connection(who);
        let caller = self.caller(who).await?;
        let rest = path.strip_prefix(table.prefix()).unwrap();
        let (route, params) = route::find(table.routes(), rest).unwrap();
        assert!(route.serves(operation), "{path}");
        let body = object(body);
        let full = ApiPath::parse(path).unwrap();
        let permit = caller.authorize(&CheckRequest {
            path: &full,
            operation,
            parameters: Some(&body),
            wrap_ttl: None,
        })?;
        if route.access == crate::core::route::Access::Sudo && !permit.sudo() {
            return Err(CoreError::denied("needs sudo"));
        }
        let token = who.token.map(|token| SecretString::new(token.to_owned()));
        let ctx = SystemContext {
            core: &self.core,
            unsealed: &self.unsealed,
            caller: &caller,
            request_id: &RequestId::random().unwrap(),
            connection: &connection,
            token: token.as_ref(),
            wrap_ttl: None,
        };
        let request = EngineRequest {
            operation,
            route,
            params,
            fields: Fields::new(body),
            merge_patch: false,
            caller: &caller.facts,
        };
        let reply = table.handle(&ctx, &permit, request).await;
        self.unsealed.callers.forget();
        reply
    }

    async fn call(&self, who: &Who<'_>, path: &str, body: Value) -> Result<Reply, CoreError> {
        let path = format!("auth/token/{path}");
        self.call_table(&TokenRoutes, who, Operation::Update, &path, body).await
    }

    async fn read(&self, who: &Who<'_>, path: &str) -> Result<Map<String, Value>, CoreError> {
        let path = format!("auth/token/{path}");
        let reply = self.call_table(&TokenRoutes, who, Operation::Read, &path, json!({})).await?;
        Ok(reply.data.unwrap())
    }

    async fn create(&self, who: &Who<'_>, body: Value) -> Result<Made, CoreError> {
        self.make(who, "create", body).await
    }

    async fn make(&self, who: &Who<'_>, path: &str, body: Value) -> Result<Made, CoreError> {
        let reply = self.call(who, path, body).await?;
        let auth = reply.auth.unwrap();
        let plain = auth.client_token.expose().to_owned();
        Ok(Made { auth, plain, warnings: reply.warnings })
    }

    /// A token as a log-in by that certificate gives it.
    async fn login(&self, peer: &Arc<VerifiedPeer>) -> String {
        let caller = self.caller(&by_certificate(peer)).await.unwrap();
        let crate::core::caller::Via::Certificate { grant, .. } = &caller.via else { panic!() };
        let mounted = self.unsealed.mounts.at("auth/cert/").unwrap();
        let entity = caller.entity.as_ref().unwrap();
        self.unsealed.identity.ensure(entity).await.unwrap();
        let path = "auth/cert/login";
        let id = entity.id.clone();
        let new =
            NewToken::for_login(grant, &mounted.facts, TokenKind::Service, path, id, Vec::new());
        self.unsealed.tokens.create(new).await.unwrap().plain.expose().to_owned()
    }

    async fn may(&self, who: &Who<'_>, operation: Operation, path: &str) -> bool {
        let caller = self.caller(who).await.unwrap();
        let path = ApiPath::parse(path).unwrap();
        caller.authorize(&CheckRequest::new(&path, operation)).is_ok()
    }
}

#[derive(Debug)]
struct Made {
    auth: AuthReply,
    plain: String,
    warnings: Vec<String>,
}

fn object(value: Value) -> Map<String, Value> {
    value.as_object().unwrap().clone()
}

fn fields(value: Value) -> Fields {
    Fields::new(object(value))
}

fn refusal<T: std::fmt::Debug>(result: Result<T, CoreError>) -> String {
    match result {
        Err(CoreError::Denied { reason }) => format!("denied: {reason}"),
        Err(error) => error.to_string(),
        Ok(value) => panic!("not refused: {value:?}"),
    }
}

#[tokio::test]
async fn a_job_asks_by_its_certificate_for_one_path_and_one_minute() {
    let server = Server::new().await;
    let job = server.svid("web/report");
    let body = json!({"scopes": ["read:secret/data/reports/*"], "ttl": "1m"});
    let made = server.create(&by_certificate(&job), body).await.unwrap();
    assert!(made.plain.starts_with("lhs."));
    assert_eq!((made.auth.lease_duration, made.auth.orphan), (Ttl::from_secs(60), true));
    assert!(made.auth.entity_id.is_some());
    let token = by_token(&made.plain);
    assert!(server.may(&token, Operation::Read, "secret/data/reports/july").await);
    for (operation, path) in [
        (Operation::List, "secret/data/reports/july"),
        (Operation::Read, "secret/data/web"),
        (Operation::Update, "secret/data/web"),
        (Operation::Update, "auth/token/create"),
        (Operation::Update, "auth/token/renew-self"),
    ] {
        assert!(!server.may(&token, operation, path).await, "{operation} {path}");
    }
    // The certificate itself still may.
    assert!(server.may(&by_certificate(&job), Operation::Update, "secret/data/web").await);
    server.clock.advance(Duration::from_secs(60));
    assert!(refusal(server.caller(&token).await.map(|_| ())).contains("expired"));
}

#[tokio::test]
async fn nobody_gives_what_he_lacks() {
    let server = Server::new().await;
    server.policy("other", r#"path "other/*" { capabilities = ["read"] }"#).await;
    let web = server.svid("web");
    let login = server.login(&web).await;
    let with_token = Who { token: Some(&login), peer: Some(&web), remote: None };
    for who in [&by_certificate(&web), &with_token] {
        for (body, expected) in [
            (json!({"policies": ["other"]}), "must be subset"),
            (json!({"policies": ["web", "OTHER"]}), "must be subset"),
            (json!({"policies": ["root"]}), "must be subset"),
            (json!({"policies": [" root"]}), "policies"),
            (json!({"scopes": ["read:other/*"]}), "scopes"),
            (json!({"scopes": ["update:secret/data/reports/*"]}), "scopes"),
            (json!({"scopes": ["read:*"]}), "scopes"),
            (json!({"scopes": []}), "scopes"),
            (json!({"scopes": ["sudo:secret/data/web"]}), "scopes"),
            (json!({"id": "chosen"}), "root privileges"),
            (json!({"no_parent": true}), "sudo"),
            (json!({"period": "1h"}), "sudo"),
            (json!({"type": "root"}), "type"),
            (json!({"ttl": "-1s"}), "ttl"),
            (json!({"ttl": "99999999999h"}), "ttl"),
            (json!({"entity_alias": "x"}), "entity_alias"),
            (json!({"lease_owner": "me"}), "lease_owner"),
        ] {
            let text = refusal(server.create(who, body.clone()).await);
            assert!(text.contains(expected), "{body}: {text}");
        }
    }
    // The control.
    server.create(&with_token, json!({"policies": ["web"]})).await.unwrap();
}

#[tokio::test]
async fn a_narrowed_token_has_children_as_narrow_at_most() {
    let server = Server::new().await;
    let web = server.svid("web");
    let scopes = json!({"scopes": ["read:secret/data/reports/*", "update:auth/token/create"]});
    let narrow = server.create(&by_certificate(&web), scopes.clone()).await.unwrap();
    let who = by_token(&narrow.plain);
    let child = server.create(&who, json!({})).await.unwrap();
    assert!(!child.auth.orphan);
    let shown = server.unsealed.tokens.lookup(&child.plain).await.unwrap().unwrap();
    assert_eq!(shown.entry.scopes, ["read:secret/data/reports/*", "update:auth/token/create"]);
    assert!(!server.may(&by_token(&child.plain), Operation::Read, "secret/data/web").await);
    for wider in ["read:secret/data/web", "list:secret/data/reports/x", "read:secret/*"] {
        let text = refusal(server.create(&who, json!({"scopes": [wider]})).await);
        assert!(text.contains("scopes"), "{text}");
    }
    let body = json!({"scopes": ["read:secret/data/reports/july"]});
    let narrower = server.create(&who, body).await.unwrap();
    let narrower = by_token(&narrower.plain);
    assert!(server.may(&narrower, Operation::Read, "secret/data/reports/july").await);
    assert!(!server.may(&narrower, Operation::Read, "secret/data/reports/june").await);
}

#[tokio::test]
async fn a_narrowed_root_is_no_root() {
    let server = Server::new().await;
    let root = server.root().await;
    let body =
        json!({"scopes": ["read:secret/*", "update:auth/token/create"], "policies": ["root"]});
    let narrow = server.create(&by_token(&root), body).await.unwrap();
    assert!(!narrow.auth.lease_duration.is_zero());
    let who = by_token(&narrow.plain);
    assert!(server.may(&who, Operation::Read, "secret/data/x").await);
    assert!(!server.may(&who, Operation::Update, "sys/policies/acl/x").await);
    for body in [
        json!({"id": "chosen"}),
        json!({"no_parent": true}),
        json!({"policies": ["root"], "scopes": ["read:*"]}),
    ] {
        refusal(server.create(&who, body).await);
    }
    let child = server.create(&who, json!({})).await.unwrap();
    assert!(!server.may(&by_token(&child.plain), Operation::Read, "sys/mounts").await);
}

#[tokio::test]
async fn root_may_choose_but_an_ending_root_gives_no_endless_one() {
    let server = Server::new().await;
    let root = server.root().await;
    let root = by_token(&root);
    let chosen = server.create(&root, json!({"id": "my-token", "policies": "web"})).await.unwrap();
    assert_eq!(chosen.plain, "my-token");
    assert!(server.may(&by_token("my-token"), Operation::Read, "secret/data/web").await);
    let endless = server.create(&root, json!({})).await.unwrap();
    assert_eq!(endless.auth.policies, ["root"]);
    assert!(endless.auth.lease_duration.is_zero() && !endless.auth.renewable);
    let ending = server.create(&root, json!({"ttl": "1h"})).await.unwrap();
    let text = refusal(server.create(&by_token(&ending.plain), json!({})).await);
    assert!(text.contains("give a ttl"), "{text}");
    let missing = server.create(&root, json!({"policies": ["nowhere"]})).await.unwrap();
    assert_eq!(missing.warnings, ["Policy \"nowhere\" does not exist"]);
}

#[tokio::test]
async fn lifetimes_end_with_the_certificate_and_with_the_parent() {
    let server = Server::new().await;
    let spec = Spec::svid("spiffe://example.org/web").between(NOT_BEFORE_SECS, NOW_SECS + 600);
    let short = server.peer(&spec);
    let made = server.create(&by_certificate(&short), json!({"ttl": "1h"})).await.unwrap();
    assert_eq!(made.auth.lease_duration, Ttl::from_secs(600));
    assert!(made.warnings[0].contains("certificate"), "{:?}", made.warnings);
    // Neither a child nor an orphan gets away from it.
    for path in ["create", "create-orphan"] {
        let child = server.make(&by_token(&made.plain), path, json!({"ttl": "1h"})).await.unwrap();
        assert_eq!(child.auth.lease_duration, Ttl::from_secs(600), "{path}");
    }
    let web = server.svid("web");
    let parent = server.create(&by_certificate(&web), json!({"ttl": "5m"})).await.unwrap();
    let child = server.create(&by_token(&parent.plain), json!({"ttl": "1h"})).await.unwrap();
    assert_eq!(child.auth.lease_duration, Ttl::from_secs(300));
    let who = by_token(&parent.plain);
    let orphan = server.make(&who, "create-orphan", json!({"ttl": "1h"})).await;
    assert_eq!(orphan.unwrap().auth.lease_duration, Ttl::from_secs(3600));
}

#[tokio::test]
async fn the_maximum_of_the_cert_role_bounds_what_its_certificates_ask_for() {
    let server = Server::new().await;
    server.role("web", json!({"token_max_ttl": "2h"})).await;
    let web = server.svid("web");
    let made = server.create(&by_certificate(&web), json!({"ttl": "20h"})).await.unwrap();
    assert_eq!(made.auth.lease_duration, Ttl::from_secs(7200));
    server.clock.advance(Duration::from_secs(7000));
    let who = by_token(&made.plain);
    let renewed = server.call(&who, "renew-self", json!({"increment": "1h"})).await.unwrap();
    assert_eq!(renewed.auth.unwrap().lease_duration, Ttl::from_secs(200));
}

#[tokio::test]
async fn limited_and_batch_tokens_have_no_children() {
    let server = Server::new().await;
    let web = server.svid("web");
    for body in [json!({"num_uses": 5}), json!({"type": "batch"})] {
        let made = server.create(&by_certificate(&web), body.clone()).await.unwrap();
        let text = refusal(server.create(&by_token(&made.plain), json!({})).await);
        assert!(text.contains("create") || text.contains("generate"), "{body}: {text}");
    }
}

#[tokio::test]
async fn a_login_token_is_good_with_its_certificate_alone_and_renewed_by_it() {
    let server = Server::new().await;
    let (web, sibling, again) = (server.svid("web"), server.svid("web2"), server.svid("web"));
    let token = server.login(&web).await;
    let with = |peer| Who { token: Some(&token), peer: Some(peer), remote: None };
    server.clock.advance(Duration::from_secs(1800));
    let renewed = server.call(&with(&web), "renew-self", json!({})).await.unwrap();
    assert_eq!(renewed.auth.unwrap().lease_duration, Ttl::from_secs(3600));
    // A sibling of the same CA, and even another certificate of the same identity.
    for other in [&sibling, &again] {
        let text = refusal(server.call(&with(other), "renew-self", json!({})).await);
        assert!(text.contains("another certificate"), "{text}");
    }
    assert!(refusal(server.caller(&by_token(&token)).await.map(|_| ())).contains("certificate"));
    // Somebody with the right to renew any token has not the right to be somebody else.
    let root = server.root().await;
    let body = json!({"token": token});
    for peer in [None, Some(&sibling), Some(&again)] {
        let who = Who { token: Some(&root), peer, remote: None };
        refusal(server.call(&who, "renew", body.clone()).await);
    }
    // The role no longer lets the identity in.
    server.role("web", json!({"allowed_uri_sans": "spiffe://example.org/db"})).await;
    refusal(server.call(&with(&web), "renew-self", json!({})).await);
}

#[tokio::test]
async fn without_binding_the_identity_renews_and_its_siblings_do_not() {
    let server = Server::new().await;
    let mounted = server.unsealed.mounts.at("auth/cert/").unwrap();
    let method = mounted.method().unwrap();
    let (route, params) = route::find(method.routes(), "config").unwrap();
    let root = server.root().await;
    let caller = server.caller(&by_token(&root)).await.unwrap();
    let full = ApiPath::parse("auth/cert/config").unwrap();
    let permit = caller.authorize(&CheckRequest::new(&full, Operation::Update)).unwrap();
    let request = crate::core::engine::AuthRequest {
        operation: Operation::Update,
        route,
        params,
        fields: fields(json!({"disable_binding": true})),
        peer: None,
        remote: std::net::IpAddr::from([127, 0, 0, 1]),
        locked: false,
    };
    method.handle(&mounted.context(), &permit, request).await.unwrap();
    server.unsealed.callers.forget();
    let (web, sibling, again) = (server.svid("web"), server.svid("web2"), server.svid("web"));
    let token = server.login(&web).await;
    let with = |peer| Who { token: Some(&token), peer: Some(peer), remote: None };
    server.call(&with(&again), "renew-self", json!({})).await.unwrap();
    let text = refusal(server.call(&with(&sibling), "renew-self", json!({})).await);
    assert!(text.contains("another identity"), "{text}");
}

#[tokio::test]
async fn roles_make_the_tokens_they_say() {
    let server = Server::new().await;
    let root = server.root().await;
    let root = by_token(&root);
    let role = json!({
        "allowed_policies": "ops,dev",
        "allowed_policies_glob": "app-*",
        "disallowed_policies": "app-admin",
        "orphan": true,
        "token_period": "10m",
        "token_explicit_max_ttl": "1h",
        "token_bound_cidrs": "10.0.0.0/8",
        "path_suffix": "x",
        "renewable": true,
    });
    server.call(&root, "roles/ops", role).await.unwrap();
    let shown = server.read(&root, "roles/ops").await.unwrap();
    assert_eq!((&shown["token_period"], &shown["orphan"]), (&json!(600), &json!(true)));
    let web = server.svid("web");
    let who = by_certificate(&web);
    let made = server.make(&who, "create/ops", json!({"policies": ["app-web"]})).await.unwrap();
    assert_eq!(made.auth.token_policies, ["app-web", "default"]);
    assert_eq!((made.auth.lease_duration, made.auth.orphan), (Ttl::from_secs(600), true));
    let all = server.make(&who, "create/ops", json!({})).await.unwrap();
    assert_eq!(all.auth.token_policies, ["default", "dev", "ops"]);
    for refused in ["app-admin", "web", "root", "Root"] {
        let body = json!({"policies": [refused]});
        refusal(server.make(&who, "create/ops", body).await);
    }
    assert!(refusal(server.make(&who, "create/none", json!({})).await).contains("unknown role"));
    // Bound to the role's addresses.
    let outside = by_token(&made.plain);
    assert!(refusal(server.caller(&outside).await.map(|_| ())).contains("addresses"));
    let inside = Who { token: Some(&made.plain), remote: Some("10.1.1.1"), peer: None };
    let lookup = server.read(&inside, "lookup-self").await.unwrap();
    assert_eq!(lookup["path"], "auth/token/create/ops/x");
    assert_eq!((&lookup["role"], &lookup["period"]), (&json!("ops"), &json!(600)));
    // Periodic, up to the explicit maximum.
    for _ in 0..7 {
        server.clock.advance(Duration::from_secs(500));
        server.call(&inside, "renew-self", json!({"increment": "5h"})).await.unwrap();
    }
    let lookup = server.read(&inside, "lookup-self").await.unwrap();
    assert_eq!(lookup["ttl"], 100);
    server.clock.advance(Duration::from_secs(100));
    assert!(server.caller(&inside).await.is_err());
    let names =
        server.call_table(&TokenRoutes, &root, Operation::List, "auth/token/roles", json!({}));
    assert_eq!(names.await.unwrap().data.unwrap()["keys"], json!(["ops"]));
}

#[tokio::test]
async fn lookups_say_what_stock_clients_read() {
    let server = Server::new().await;
    let root = server.root().await;
    let root = by_token(&root);
    let body = json!({
        "policies": "web", "ttl": "10m", "meta": {"team": "x"}, "display_name": "a b", "num_uses": 9,
        "lease_owner": "entity",
    });
    let made = server.create(&root, body).await.unwrap();
    let data =
        server.call(&root, "lookup", json!({"token": made.plain})).await.unwrap().data.unwrap();
    assert_eq!(data["id"], json!(made.plain));
    for (name, value) in [
        ("accessor", json!(made.auth.accessor)),
        ("creation_time", json!(NOW_SECS)),
        ("creation_ttl", json!(600)),
        ("display_name", json!("token-a-b")),
        ("entity_id", json!("")),
        ("explicit_max_ttl", json!(0)),
        ("lease_owner", json!("entity")),
        ("meta", json!({"team": "x"})),
        ("num_uses", json!(9)),
        ("orphan", json!(false)),
        ("path", json!("auth/token/create")),
        ("policies", json!(["default", "web"])),
        ("renewable", json!(true)),
        ("ttl", json!(600)),
        ("type", json!("service")),
    ] {
        assert_eq!(data[name], value, "{name}");
    }
    assert!(data["expire_time"].as_str().unwrap().ends_with('Z'));
    let by_accessor = json!({"accessor": made.auth.accessor});
    let data = server.call(&root, "lookup-accessor", by_accessor).await.unwrap().data.unwrap();
    assert_eq!(data["id"], "");
    refusal(server.call(&root, "lookup", json!({"token": "lhs.nonsense"})).await);
    refusal(server.call(&root, "lookup-accessor", json!({"accessor": "x"})).await);
    refusal(server.call(&root, "lookup", json!({})).await);
    let web = server.svid("web");
    let own = server.read(&by_certificate(&web), "lookup-self").await.unwrap();
    assert_eq!((&own["type"], &own["role"]), (&json!("certificate"), &json!("web")));
}

#[tokio::test]
async fn tokens_are_revoked_by_all_their_names() {
    let server = Server::new().await;
    let root = server.root().await;
    let root = by_token(&root);
    let make = async || server.create(&root, json!({"policies": "web"})).await.unwrap();
    let (a, b, c) = (make().await, make().await, make().await);
    let child = server.create(&by_token(&c.plain), json!({})).await.unwrap();
    server.call(&root, "revoke", json!({"token": a.plain})).await.unwrap();
    server.call(&root, "revoke", json!({"token": a.plain})).await.unwrap();
    server.call(&root, "revoke-accessor", json!({"accessor": b.auth.accessor})).await.unwrap();
    refusal(server.call(&root, "revoke-accessor", json!({"accessor": "x"})).await);
    server.call(&root, "revoke-orphan", json!({"token": c.plain})).await.unwrap();
    for dead in [&a, &b, &c] {
        assert!(server.caller(&by_token(&dead.plain)).await.is_err());
    }
    assert!(server.caller(&by_token(&child.plain)).await.is_ok());
    server.call(&by_token(&child.plain), "revoke-self", json!({})).await.unwrap();
    assert!(server.caller(&by_token(&child.plain)).await.is_err());
    let web = server.svid("web");
    let text = refusal(server.call(&by_certificate(&web), "revoke-self", json!({})).await);
    assert!(text.contains("no token"), "{text}");
    let sudo_only = server.create(&root, json!({"policies": "web"})).await.unwrap();
    let body = json!({"token": sudo_only.plain});
    let who = by_certificate(&web);
    assert!(refusal(server.call(&who, "revoke-orphan", body).await).contains("denied"));
    let list =
        server.call_table(&TokenRoutes, &root, Operation::List, "auth/token/accessors", json!({}));
    assert_eq!(list.await.unwrap().data.unwrap()["keys"].as_array().unwrap().len(), 3);
    assert!(server.call(&root, "tidy", json!({})).await.unwrap().status == Status::Accepted);
}

#[tokio::test]
async fn a_disabled_entity_is_refused_with_token_and_with_certificate() {
    let server = Server::new().await;
    let root = server.root().await;
    let root = by_token(&root);
    let web = server.svid("web");
    let made = server.create(&by_certificate(&web), json!({})).await.unwrap();
    let id = made.auth.entity_id.unwrap();
    let path = format!("identity/entity/id/{id}");
    let update = async |body| {
        server.call_table(&IdentityRoutes, &root, Operation::Update, &path, body).await
    };
    update(json!({"policies": ["extra"], "metadata": {"team": "x"}})).await.unwrap();
    let caller = server.caller(&by_certificate(&web)).await.unwrap();
    assert_eq!(caller.policies(), ["default", "extra", "web"]);
    assert_eq!(caller.entity.as_ref().unwrap().metadata["team"], "x");
    refusal(update(json!({"policies": ["root"]})).await);
    update(json!({"disabled": true})).await.unwrap();
    for who in [&by_certificate(&web), &by_token(&made.plain)] {
        assert!(refusal(server.caller(who).await.map(|_| ())).contains("disabled"));
    }
    update(json!({"disabled": false})).await.unwrap();
    server.caller(&by_certificate(&web)).await.unwrap();
    let alias = json!({"alias_name": "spiffe://example.org/web",
        "alias_mount_accessor": server.unsealed.mounts.at("auth/cert/").unwrap().entry.accessor});
    let found = server
        .call_table(&IdentityRoutes, &root, Operation::Update, "identity/lookup/entity", alias)
        .await
        .unwrap();
    assert_eq!(found.data.unwrap()["id"], json!(id));
}

#[tokio::test]
async fn an_identity_can_be_given_policies_before_it_comes() {
    let server = Server::new().await;
    let root = server.root().await;
    let root = by_token(&root);
    let accessor = server.unsealed.mounts.at("auth/cert/").unwrap().entry.accessor.clone();
    let body = json!({"name": "spiffe://example.org/web", "mount_accessor": accessor});
    let stored = server
        .call_table(&IdentityRoutes, &root, Operation::Update, "identity/entity-alias", body)
        .await
        .unwrap();
    let id = stored.data.unwrap()["canonical_id"].as_str().unwrap().to_owned();
    let path = format!("identity/entity/id/{id}");
    let body = json!({"policies": "early"});
    server.call_table(&IdentityRoutes, &root, Operation::Update, &path, body).await.unwrap();
    let web = server.svid("web");
    let caller = server.caller(&by_certificate(&web)).await.unwrap();
    assert_eq!(caller.identity_policies, ["early"]);
    let body = json!({"name": "x", "mount_accessor": "nowhere"});
    let call =
        server.call_table(&IdentityRoutes, &root, Operation::Update, "identity/entity-alias", body);
    assert!(refusal(call.await).contains("mount_accessor"));
}

#[tokio::test]
async fn the_addresses_of_a_cert_role_bind_the_certificate_itself() {
    let server = Server::new().await;
    server.role("web", json!({"token_bound_cidrs": "10.0.0.0/8"})).await;
    let web = server.svid("web");
    let from = |remote| Who { peer: Some(&web), remote: Some(remote), token: None };
    // Also when the standing is remembered from a request that was let through.
    for _ in 0..2 {
        server.caller(&from("10.0.0.1")).await.unwrap();
        assert!(refusal(server.caller(&from("11.0.0.1")).await.map(|_| ())).contains("addresses"));
    }
    let made = server.create(&from("10.0.0.1"), json!({})).await.unwrap();
    let outside = Who { token: Some(&made.plain), remote: Some("11.0.0.1"), peer: None };
    assert!(refusal(server.caller(&outside).await.map(|_| ())).contains("addresses"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    /// Asked for any mixture of policies: the token has some of the caller's, or there is none.
    #[test]
    fn policies_of_children_are_policies_of_their_parents(
        own in proptest::collection::btree_set("[a-d]", 1..4),
        asked in proptest::collection::vec("[a-eA-E]|root|default", 0..5),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let server = Server::new().await;
            let root = server.root().await;
            let mut policies: Vec<String> = own.iter().cloned().collect();
            policies.push("web".into());
            let body = json!({"policies": policies});
            let parent = server.create(&by_token(&root), body).await.unwrap();
            let made = server.create(&by_token(&parent.plain), json!({"policies": asked})).await;
            let inside = asked.iter().all(|name| {
                parent.auth.policies.contains(&name.to_ascii_lowercase())
            });
            match made {
                Ok(made) => {
                    prop_assert!(inside);
                    let has = |name: &String| parent.auth.policies.contains(name);
                    prop_assert!(made.auth.policies.iter().all(has));
                }
                Err(_) => prop_assert!(!inside),
            }
            Ok(())
        })?;
    }
}
