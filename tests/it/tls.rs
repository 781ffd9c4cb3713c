//! The server's edge against real clients: who gets in, as whom, for how long, and how much of
//! everything.

mod connections;
mod reload;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::routing::{get, post};
use axum::{Extension, Router};
use http_body_util::BodyExt;
use leasehold::core::peer::ConnectionInfo;
use leasehold::core::spiffe::TrustDomain;
use leasehold::core::trust::{RoleTrust, TrustBundle, TrustStore};
use leasehold::crypto::x509::Anchors;
use leasehold::crypto::x509::crl::Crls;
use leasehold::server::accept::{ConnectionLimits, Connections};
use leasehold::server::config::{ClientCertificate, Config};
use leasehold::server::listening::Listening;
use leasehold::server::tls::{ListenerTls, ServerIdentity};
use leasehold::types::time::{Clock, ManualClock, Timestamp};
use rcgen::ExtendedKeyUsagePurpose as Eku;
use rustls::version::{TLS12, TLS13};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::support::pki::{Ca, Issued, NOT_AFTER_SECS, NOT_BEFORE_SECS, Spec};
use crate::support::wire::{Client, exchange, soon};

const NOW_SECS: u64 = 1_800_000_000;

/// What the handlers of these tests see.
#[derive(Clone)]
struct App {
    trust: Arc<TrustStore>,
    clock: Arc<ManualClock>,
    // `/hold` adds a permit to the first when it begins, and takes one of the second to end.
    entered: Arc<Semaphore>,
    release: Arc<Semaphore>,
}

impl App {
    fn new() -> Self {
        let now = Timestamp::from_secs(i64::try_from(NOW_SECS).unwrap());
        Self {
            trust: Arc::new(TrustStore::new()),
            clock: Arc::new(ManualClock::new(now)),
            entered: Arc::new(Semaphore::new(0)),
            release: Arc::new(Semaphore::new(0)),
        }
    }

    fn router(&self) -> Router {
        Router::new()
            .route("/whoami", get(who_am_i))
            .route("/hold", get(hold))
            .route("/length", post(length))
            .with_state(self.clone())
    }
}

/// Answers as the core does: facts only about a peer that is trusted at this moment.
async fn who_am_i(
    State(app): State<App>,
    Extension(connection): Extension<ConnectionInfo>,
) -> impl IntoResponse {
    let Some(peer) = &connection.peer else { return (StatusCode::OK, "nobody".to_owned()) };
    match app.trust.judge(peer, app.clock.now()) {
        Ok(verdict) => {
            let facts = serde_json::json!({
                "spiffe": peer.spiffe_id().map(ToString::to_string),
                "cn": peer.common_name(),
                "serial": peer.serial(),
                "fingerprint": peer.x5t_s256(),
                "bundles": verdict.bundles().collect::<Vec<_>>(),
                "by_role": verdict.by_role("cert/", "pinned"),
                "listener": &*connection.listener,
                "connection": connection.id,
            });
            (StatusCode::OK, facts.to_string())
        }
        Err(error) => (StatusCode::FORBIDDEN, error.to_string()),
    }
}

async fn hold(State(app): State<App>) -> &'static str {
    app.entered.add_permits(1);
    app.release.acquire().await.unwrap().forget();
    "done"
}

async fn length(request: Request) -> Result<String, StatusCode> {
    let body = request.into_body().collect().await.map_err(|_| StatusCode::PAYLOAD_TOO_LARGE)?;
    Ok(body.to_bytes().len().to_string())
}

fn limits() -> ConnectionLimits {
    ConnectionLimits::from_config(&Config::default())
}

/// A server with these handlers, a CA that clients trust, and one that it trusts as `a.example`.
struct Broker {
    app: App,
    address: SocketAddr,
    connections: Arc<Connections>,
    stop: CancellationToken,
    drained: JoinHandle<()>,
    server_ca: Ca,
    client_ca: Ca,
}

impl Broker {
    async fn start(mode: ClientCertificate, limits: ConnectionLimits) -> Self {
        Self::start_draining(mode, limits, Duration::from_secs(20)).await
    }

    async fn start_draining(
        mode: ClientCertificate,
        limits: ConnectionLimits,
        drain: Duration,
    ) -> Self {
        let (server_ca, client_ca) = (Ca::root("servers"), Ca::root("clients"));
        let app = App::new();
        app.trust.set_bundles(vec![bundle("a", Some("a.example"), &client_ca)]);
        let shown = server_ca.issue(&Spec::server());
        let identity =
            ServerIdentity::from_pem(shown.pem().as_bytes(), shown.key_pem.as_bytes()).unwrap();
        let tls = ListenerTls::new(identity, mode, app.trust.clone(), app.clock.clone()).unwrap();
        let listening = Listening::bind("api", "127.0.0.1:0", Arc::new(tls)).await.unwrap();
        let address = listening.address().unwrap();
        let connections = Connections::new(limits, app.clock.clone());
        let stop = CancellationToken::new();
        let serving = listening.serve(app.router(), connections.clone(), stop.clone());
        let drained = tokio::spawn({
            let connections = connections.clone();
            async move {
                serving.await.unwrap();
                connections.drain(drain).await;
            }
        });
        Self { app, address, connections, stop, drained, server_ca, client_ca }
    }

    fn client(&self, leaf: &Issued) -> Client {
        Client::new(&self.server_ca.der, &TLS13, Some((leaf, &[])))
    }

    fn stranger(&self) -> Client {
        Client::new(&self.server_ca.der, &TLS13, None)
    }

    /// A client that is let in and trusted.
    fn friend(&self) -> Client {
        self.client(&self.client_ca.issue(&Spec::svid("spiffe://a.example/friend")))
    }

    async fn who_am_i(&self, client: &Client) -> (u16, String) {
        let mut stream = client.connect(self.address).await.unwrap();
        let answer = crate::support::wire::get(&mut stream, "/whoami").await.unwrap();
        (answer.status, answer.body)
    }
}

fn bundle(name: &str, domain: Option<&str>, ca: &Ca) -> TrustBundle {
    let domain = domain.map(|domain| TrustDomain::parse(domain).unwrap());
    let anchors = Anchors::from_certificates(vec![ca.der.clone()]).unwrap();
    TrustBundle::new(name, domain, anchors, Crls::none()).unwrap()
}

fn facts(body: &str) -> serde_json::Value {
    serde_json::from_str(body).unwrap()
}

#[tokio::test]
async fn a_required_certificate_is_required() {
    let broker = Broker::start(ClientCertificate::Required, limits()).await;
    broker.stranger().refused(broker.address).await;
    let (status, body) = broker.who_am_i(&broker.friend()).await;
    assert_eq!(status, 200);
    assert_eq!(facts(&body)["spiffe"], "spiffe://a.example/friend");
    assert_eq!(facts(&body)["listener"], "api");
}

#[tokio::test]
async fn an_optional_certificate_is_judged_when_it_comes() {
    let broker = Broker::start(ClientCertificate::Optional, limits()).await;
    assert_eq!(broker.who_am_i(&broker.stranger()).await, (200, "nobody".to_owned()));
    let forged = Ca::root("clients").issue(&Spec::svid("spiffe://a.example/x"));
    broker.client(&forged).refused(broker.address).await;
    let (_, body) = broker.who_am_i(&broker.friend()).await;
    assert_eq!(facts(&body)["bundles"], serde_json::json!(["a"]));
}

#[tokio::test]
async fn bad_certificates_are_refused_and_not_told_why() {
    let broker = Broker::start(ClientCertificate::Required, limits()).await;
    let ca = &broker.client_ca;
    let good = || Spec::svid("spiffe://a.example/x");
    let namesake = Ca::root("clients");
    for (leaf, what) in [
        (ca.issue(&good().between(NOT_BEFORE_SECS, NOW_SECS - 1)), "expired"),
        (ca.issue(&good().between(NOW_SECS + 1, NOT_AFTER_SECS)), "not yet valid"),
        (ca.issue(&good().eku(&[Eku::ServerAuth])), "without clientAuth"),
        (ca.issue(&Spec::ca("sub")), "a CA"),
        (namesake.issue(&good()), "signed by a namesake"),
        (good().self_signed(), "signed by itself"),
        (Ca::root("x").issue(&good()), "of a stranger"),
    ] {
        let error = broker.client(&leaf).refused(broker.address).await;
        // One alert for all.
        assert!(error.to_string().contains("CertificateUnknown"), "{what}: {error}");
    }
    let (status, _) = broker.who_am_i(&broker.client(&ca.issue(&good()))).await;
    assert_eq!(status, 200);
    // In TLS 1.2, the certificate travels earlier; the answer is the same.
    let expired = ca.issue(&good().between(NOT_BEFORE_SECS, NOW_SECS - 1));
    let client = Client::new(&broker.server_ca.der, &TLS12, Some((&expired, &[])));
    let error = client.refused(broker.address).await;
    assert!(error.to_string().contains("CertificateUnknown"), "{error}");
}

#[tokio::test]
async fn possession_is_not_identity() {
    let broker = Broker::start(ClientCertificate::Required, limits()).await;
    let ca = &broker.client_ca;
    let other = Ca::root("other");
    broker.app.trust.set_bundles(vec![
        bundle("a", Some("a.example"), ca),
        bundle("b", Some("b.example"), &other),
    ]);
    for (leaf, what) in [
        (
            ca.issue(&Spec::svid("spiffe://a.example/x").uri("spiffe://a.example/y")),
            "x1 two URI names",
        ),
        (ca.issue(&Spec::svid("spiffe://a.example")), "x2 no path"),
        (ca.issue(&Spec::svid("spiffe://A.example/x")), "id2 upper case"),
        (ca.issue(&Spec::svid("spiffe://a.example/x/../y")), "id3 dot segments"),
        (ca.issue(&Spec::svid("spiffe://a.example/x").key_usage(&[])), "x3 no key usage"),
        (ca.issue(&Spec::svid("spiffe://b.example/x")), "x6 another domain's ID"),
        (other.issue(&Spec::svid("spiffe://a.example/x")), "x6 another domain's CA"),
        (ca.issue(&Spec::svid("spiffe://c.example/x")), "x6 an unknown domain"),
    ] {
        let (status, body) = broker.who_am_i(&broker.client(&leaf)).await;
        assert_eq!(status, 403, "{what}: {body}");
    }
    let (status, _) = broker.who_am_i(&broker.friend()).await;
    assert_eq!(status, 200);
}

#[tokio::test]
async fn the_identity_is_the_leafs_whatever_comes_along() {
    let broker = Broker::start(ClientCertificate::Required, limits()).await;
    let sub = broker.client_ca.intermediate(&Spec::ca("sub").uri("spiffe://a.example"));
    let bystander = broker.client_ca.intermediate(&Spec::ca("bystander"));
    let leaf = sub.issue(&Spec::svid("spiffe://a.example/leaf").serial(&[0x7f, 1]));
    let chain: [&Ca; 3] = [&bystander, &sub, &broker.client_ca];
    let client = Client::new(&broker.server_ca.der, &TLS13, Some((&leaf, &chain)));
    let (status, body) = broker.who_am_i(&client).await;
    assert_eq!(status, 200, "{body}");
    assert_eq!(facts(&body)["spiffe"], "spiffe://a.example/leaf");
    assert_eq!(facts(&body)["serial"], "7f:01");
    // Without the link, there is no path.
    let client = Client::new(&broker.server_ca.der, &TLS13, Some((&leaf, &[&bystander])));
    client.refused(broker.address).await;
    // Nine certificates are too many, even where two would do.
    let crowd = [&sub; 8];
    let client = Client::new(&broker.server_ca.der, &TLS13, Some((&leaf, &crowd)));
    client.refused(broker.address).await;
}

#[tokio::test]
async fn roles_and_pins_take_effect_without_a_restart() {
    let broker = Broker::start(ClientCertificate::Required, limits()).await;
    let pinned = Spec::leaf().cn("pinned").self_signed();
    let twin = Spec::leaf().cn("pinned").self_signed();
    broker.client(&pinned).refused(broker.address).await;
    let role = RoleTrust {
        role: "pinned".into(),
        anchors: Anchors::default(),
        pinned: vec![pinned.der.clone()],
    };
    broker.app.trust.set_role_anchors("cert/", vec![role]);
    let (status, body) = broker.who_am_i(&broker.client(&pinned)).await;
    assert_eq!((status, &facts(&body)["by_role"]), (200, &serde_json::json!(true)));
    broker.client(&twin).refused(broker.address).await;
    let mut open = broker.client(&pinned).connect(broker.address).await.unwrap();
    let ask = "GET /whoami HTTP/1.1\r\nHost: test\r\n\r\n";
    assert_eq!(exchange(&mut open, ask).await.unwrap().status, 200);
    broker.app.trust.clear_roles();
    assert_eq!(exchange(&mut open, ask).await.unwrap().status, 403);
    broker.client(&pinned).refused(broker.address).await;
}

#[tokio::test]
async fn a_certificate_that_expires_ends_its_open_connection() {
    let broker = Broker::start(ClientCertificate::Required, limits()).await;
    let spec = Spec::svid("spiffe://a.example/x").between(NOT_BEFORE_SECS, NOW_SECS + 60);
    let client = broker.client(&broker.client_ca.issue(&spec));
    let mut open = client.connect(broker.address).await.unwrap();
    let ask = "GET /whoami HTTP/1.1\r\nHost: test\r\n\r\n";
    assert_eq!(exchange(&mut open, ask).await.unwrap().status, 200);
    broker.app.clock.advance(Duration::from_secs(60));
    assert_eq!(exchange(&mut open, ask).await.unwrap().status, 200);
    broker.app.clock.advance(Duration::from_secs(1));
    assert_eq!(exchange(&mut open, ask).await.unwrap().status, 403);
    client.refused(broker.address).await;
}

#[tokio::test]
async fn nothing_is_offered_for_resumption() {
    let broker = Broker::start(ClientCertificate::Required, limits()).await;
    let leaf = broker.client_ca.issue(&Spec::svid("spiffe://a.example/x"));
    for version in [&TLS13, &TLS12] {
        let client = Client::new(&broker.server_ca.der, version, Some((&leaf, &[])));
        let (status, _) = broker.who_am_i(&client).await;
        assert_eq!((status, client.offered.count()), (200, 0), "{version:?}");
    }
    // The control: what a server offers when nobody forbids it.
    for version in [&TLS13, &TLS12] {
        let client = Client::new(&broker.server_ca.der, version, None);
        offering_server(&broker.server_ca, &client).await;
        assert!(client.offered.count() > 0, "{version:?}");
    }
}

/// One connection with a server of rustls' defaults.
async fn offering_server(ca: &Ca, client: &Client) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let acceptor = ca.issue(&Spec::server()).acceptor();
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    let serve = async {
        let (tcp, _) = socket.accept().await.unwrap();
        let mut stream = acceptor.accept(tcp).await.unwrap();
        stream.write_all(b"x").await.unwrap();
        stream.shutdown().await.unwrap();
    };
    let read = async {
        let mut stream = client.connect(address).await.unwrap();
        stream.read_exact(&mut [0; 1]).await.unwrap();
    };
    soon(async { tokio::join!(serve, read) }).await;
}

#[tokio::test]
async fn both_protocols_and_both_versions_are_served() {
    let broker = Broker::start(ClientCertificate::Required, limits()).await;
    let leaf = broker.client_ca.issue(&Spec::svid("spiffe://a.example/x"));
    for version in [&TLS13, &TLS12] {
        let client = || Client::new(&broker.server_ca.der, version, Some((&leaf, &[])));
        let client1 = client().alpn(&[b"http/1.1"]);
        assert_eq!(broker.who_am_i(&client1).await.0, 200);
        let stream = client().alpn(&[b"h2"]).connect(broker.address).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(b"h2".as_slice()));
        let mut h2 = connections::http2(stream).await;
        let (status, body) = connections::ask(&mut h2, "/whoami", &[]).await;
        assert_eq!(status, 200);
        assert_eq!(facts(&body)["spiffe"], "spiffe://a.example/x");
        let error = client().alpn(&[b"h3"]).connect(broker.address).await.unwrap_err();
        assert!(error.to_string().contains("NoApplicationProtocol"), "{error}");
    }
}
