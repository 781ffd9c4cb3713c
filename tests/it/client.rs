//! The HTTPS client against the server's real edge: what it sends, and how it tells failures apart.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Router};
use leasehold::client::{Client, ClientError, Request as Ask, Settings, Verb};
use leasehold::core::peer::ConnectionInfo;
use leasehold::core::spiffe::TrustDomain;
use leasehold::core::trust::{TrustBundle, TrustStore};
use leasehold::crypto::x509::Anchors;
use leasehold::crypto::x509::crl::Crls;
use leasehold::server::accept::{ConnectionLimits, Connections};
use leasehold::server::config::{ClientCertificate, Config};
use leasehold::server::listening::Listening;
use leasehold::server::tls::{ListenerTls, ServerIdentity};
use leasehold::types::secret::SecretString;
use leasehold::types::time::SystemClock;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use crate::support::pki::{Ca, Issued, Spec};

/// What the handlers share.
#[derive(Clone, Default)]
struct Seen {
    requests: Arc<AtomicU32>,
    // How many more times `/v1/busy` refuses.
    busy: Arc<AtomicU32>,
}

async fn echo(
    State(seen): State<Seen>,
    Extension(connection): Extension<ConnectionInfo>,
    headers: HeaderMap,
    request: Request,
) -> Response {
    seen.requests.fetch_add(1, Ordering::SeqCst);
    let header = |name: &str| headers.get(name).and_then(|v| v.to_str().ok().map(str::to_owned));
    let peer = connection.peer.as_ref();
    let spiffe = peer.and_then(|peer| peer.spiffe_id()).map(ToString::to_string);
    match request.uri().path() {
        "/v1/busy" if seen.busy.load(Ordering::SeqCst) > 0 => {
            seen.busy.fetch_sub(1, Ordering::SeqCst);
            let body = json!({ "errors": ["busy"] }).to_string();
            (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "0")], body).into_response()
        }
        "/v1/page" => "<html>".into_response(),
        "/v1/never" => std::future::pending().await,
        _ => json!({ "data": {
            "method": request.method().as_str(),
            "target": request.uri().to_string(),
            "token": header("x-vault-token"),
            "request": header("x-vault-request"),
            "connection": connection.id,
            "spiffe": spiffe,
        }})
        .to_string()
        .into_response(),
    }
}

struct Edge {
    dir: TempDir,
    seen: Seen,
    address: SocketAddr,
    connections: Arc<Connections>,
    server_ca: Ca,
    client_ca: Ca,
    stop: CancellationToken,
}

impl Edge {
    async fn start(mode: ClientCertificate) -> Self {
        let (server_ca, client_ca) = (Ca::root("servers"), Ca::root("clients"));
        let trust = Arc::new(TrustStore::new());
        let domain = TrustDomain::parse("a.example").unwrap();
        let anchors = Anchors::from_certificates(vec![client_ca.der.clone()]).unwrap();
        trust
            .set_bundles(vec![TrustBundle::new("a", Some(domain), anchors, Crls::none()).unwrap()]);
        let shown = server_ca.issue(&Spec::server());
        let identity =
            ServerIdentity::from_pem(shown.pem().as_bytes(), shown.key_pem.as_bytes()).unwrap();
        let clock = Arc::new(SystemClock);
        let tls = ListenerTls::new(identity, mode, trust, clock.clone()).unwrap();
        let listening = Listening::bind("api", "127.0.0.1:0", Arc::new(tls)).await.unwrap();
        let address = listening.address().unwrap();
        let connections =
            Connections::new(ConnectionLimits::from_config(&Config::default()), clock);
        let (stop, seen) = (CancellationToken::new(), Seen::default());
        let router = Router::new().fallback(echo).with_state(seen.clone());
        tokio::spawn(listening.serve(router, connections.clone(), stop.clone()));
        let dir = TempDir::new().unwrap();
        Self { dir, seen, address, connections, server_ca, client_ca, stop }
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    fn settings(&self, leaf: Option<&Issued>) -> Settings {
        Settings {
            address: format!("https://{}", self.address),
            ca_cert: Some(self.file("ca.pem", &self.server_ca.pem())),
            client_cert: leaf.map(|leaf| self.file("client.pem", &leaf.pem())),
            client_key: leaf.map(|leaf| self.file("client.key", &leaf.key_pem)),
            timeout: Duration::from_secs(20),
            ..Settings::default()
        }
    }

    fn friend(&self) -> Client {
        let leaf = self.client_ca.issue(&Spec::svid("spiffe://a.example/friend"));
        Client::new(self.settings(Some(&leaf))).unwrap()
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn failure(client: &Client, request: Ask) -> ClientError {
    match client.send(request).await {
        Ok(reply) => panic!("answered {}", reply.status),
        Err(error) => error,
    }
}

fn read(path: &str) -> Ask {
    Ask::new(Verb::Read, path)
}

fn data<'a>(body: &'a Value, name: &str) -> &'a Value {
    &body["data"][name]
}

#[tokio::test]
async fn a_request_arrives_as_it_was_meant_with_the_certificate_and_the_token() {
    let edge = Edge::start(ClientCertificate::Required).await;
    let mut client = edge.friend();
    client.set_token(Some(SecretString::new("tok".to_owned())));
    let reply = client.list("secret/metadata/a b").await.unwrap();
    assert_eq!(data(&reply.body, "method"), "GET");
    assert_eq!(data(&reply.body, "target"), "/v1/secret/metadata/a%20b?list=true");
    assert_eq!(data(&reply.body, "token"), "tok");
    assert_eq!(data(&reply.body, "request"), "true");
    assert_eq!(data(&reply.body, "spiffe"), "spiffe://a.example/friend");
}

#[tokio::test]
async fn a_connection_serves_many_requests_and_a_dead_one_is_replaced() {
    let edge = Edge::start(ClientCertificate::Required).await;
    let client = edge.friend();
    let connection = async || client.read("x").await.unwrap().data()["connection"].clone();
    let first = connection().await;
    assert_eq!(connection().await, first);
    edge.connections.close_all(Duration::ZERO);
    assert_ne!(connection().await, first);
}

#[tokio::test]
async fn a_server_of_another_authority_or_name_is_not_trusted() {
    let edge = Edge::start(ClientCertificate::Optional).await;
    let other = edge.file("other.pem", &Ca::root("others").pem());
    for settings in [
        Settings { ca_cert: Some(other), ..edge.settings(None) },
        Settings { server_name: Some("elsewhere.example".to_owned()), ..edge.settings(None) },
    ] {
        let client = Client::new(settings).unwrap();
        let error = failure(&client, read("x")).await;
        assert!(matches!(error, ClientError::ServerNotTrusted { .. }), "{error}");
    }
    assert_eq!(edge.seen.requests.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_missing_and_a_foreign_client_certificate_are_told_apart() {
    let edge = Edge::start(ClientCertificate::Required).await;
    let foreign = Ca::root("others").issue(&Spec::svid("spiffe://a.example/friend"));
    for leaf in [None, Some(&foreign)] {
        let client = Client::new(edge.settings(leaf)).unwrap();
        let error = failure(&client, read("x")).await;
        let ClientError::CertificateRefused { presented, .. } = error else { panic!("{error:?}") };
        assert_eq!(presented, leaf.is_some());
    }
    assert_eq!(edge.seen.requests.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_busy_server_is_asked_again_only_for_reads_that_may_be_repeated() {
    let edge = Edge::start(ClientCertificate::Required).await;
    let client = edge.friend();
    let sent = |request: Ask| {
        let (client, seen) = (&client, &edge.seen);
        async move {
            seen.busy.store(2, Ordering::SeqCst);
            seen.requests.store(0, Ordering::SeqCst);
            let status = client.send(request).await.map(|reply| reply.status);
            (status.map_err(|error| error.status()), seen.requests.load(Ordering::SeqCst))
        }
    };
    assert_eq!(sent(read("busy").retried()).await, (Ok(200), 3));
    assert_eq!(sent(read("busy")).await, (Err(Some(503)), 1));
    let write = Ask::new(Verb::Write, "busy").body(json!({})).retried();
    assert_eq!(sent(write).await, (Err(Some(503)), 1));
}

#[tokio::test]
async fn an_answer_that_is_not_json_and_one_that_never_comes_are_failures() {
    let edge = Edge::start(ClientCertificate::Required).await;
    let client = edge.friend();
    let error = failure(&client, read("page")).await;
    assert!(matches!(error, ClientError::NotJson { status: 200, .. }), "{error}");
    let leaf = edge.client_ca.issue(&Spec::svid("spiffe://a.example/friend"));
    let timeout = Duration::from_millis(300);
    let hasty = Client::new(Settings { timeout, ..edge.settings(Some(&leaf)) }).unwrap();
    let error = failure(&hasty, read("never")).await;
    assert!(matches!(error, ClientError::Timeout { .. }), "{error}");
}
