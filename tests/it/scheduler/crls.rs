//! Revocation lists that are fetched: from a real server, that does what whoever sits on the way wants.

use std::net::SocketAddr;
use std::sync::Mutex;

use leasehold::auth::cert::CertMethod;
use leasehold::core::acl::{Acl, CheckRequest, CompiledPolicy};
use leasehold::core::engine::{AuthMethod, AuthOutcome, AuthRequest, MountFacts};
use leasehold::core::error::CoreError;
use leasehold::core::fields::Fields;
use leasehold::core::mount::Registry;
use leasehold::core::operation::Operation;
use leasehold::core::policy::template::TemplateValues;
use leasehold::core::route;
use leasehold::core::trust::{TrustBundle, TrustStore};
use leasehold::crypto::x509::crl::Crls;
use leasehold::crypto::x509::{Anchors, ChainError};
use leasehold::server::config::Auth;
use leasehold::server::crl_fetch::CrlFetcher;
use leasehold::types::path::ApiPath;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;

use super::jobs::Counted;
use super::*;
use crate::support::pki::{Ca, Issued, NOT_AFTER_SECS, Spec};

const HOUR: u64 = 3600;
/// Larger than any list that is taken.
const TOO_LARGE: usize = 8 * 1024 * 1024 + 1;

/// A web server that answers everything alike, and remembers what it was asked.
struct Site {
    address: SocketAddr,
    answer: Arc<Mutex<Vec<u8>>>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Site {
    async fn start(tls: Option<&Issued>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (answer, asked) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(Vec::new())));
        let acceptor = tls.map(Issued::acceptor);
        let (answers, requests) = (answer.clone(), asked.clone());
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let body = answers.lock().unwrap().clone();
                match &acceptor {
                    None => serve(tcp, body, &requests).await,
                    Some(acceptor) => {
                        if let Ok(stream) = acceptor.accept(tcp).await {
                            serve(stream, body, &requests).await;
                        }
                    }
                }
            }
        });
        Self { address, answer, asked }
    }

    fn url(&self) -> String {
        format!("http://{}/pki/ca.crl", self.address)
    }

    fn answers(&self, status: &str, headers: &str, body: &[u8]) {
        let length = body.len();
        let head = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n{headers}\r\n");
        *self.answer.lock().unwrap() = [head.as_bytes(), body].concat();
    }

    fn serves(&self, list: &[u8]) {
        self.answers("200 OK", "Content-Type: application/pkix-crl\r\n", list);
    }

    fn asked(&self) -> usize {
        self.asked.lock().unwrap().len()
    }
}

async fn serve<S>(mut stream: S, answer: Vec<u8>, asked: &Mutex<Vec<String>>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut head = Vec::new();
    let mut piece = [0u8; 1024];
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        match stream.read(&mut piece).await {
            Ok(0) | Err(_) => return,
            Ok(length) => head.extend_from_slice(&piece[..length]),
        }
    }
    asked.lock().unwrap().push(String::from_utf8(head).unwrap());
    // A client that has read enough hangs up.
    let _ = stream.write_all(&answer).await;
    let _ = stream.shutdown().await;
}

/// A node with a cert mount whose lists come from the network.
struct World {
    node: Node,
    trust: Arc<TrustStore>,
    method: Arc<Mounted>,
    _directory: tempfile::TempDir,
}

impl World {
    async fn new(config: &Auth, ca: &Ca) -> Self {
        let trust = Arc::new(TrustStore::new());
        let anchors = Anchors::from_certificates(vec![ca.der.clone()]).unwrap();
        trust.set_bundles(vec![TrustBundle::new("corp", None, anchors, Crls::none()).unwrap()]);
        let fetcher = Arc::new(CrlFetcher::new(config).unwrap());
        let targets = Targets::new();
        let mut registry: Registry = targets.registry();
        let known = trust.clone();
        let build = move |facts: &MountFacts| -> Result<Arc<dyn AuthMethod>, CoreError> {
            Ok(Arc::new(CertMethod::new(known.clone(), fetcher.clone(), facts)))
        };
        registry.methods.insert("cert", Box::new(build));
        let (directory, storage) = sqlite();
        let setup = TestSetup { registry, trust: trust.clone(), ..TestSetup::new() };
        let test = TestCore::start_on(storage, setup).await;
        test.mount(KIND, "db/").await;
        let method = test.mount_method("cert", "cert/").await;
        let node = Node::run(test, &targets, Arc::new(CronLibrary));
        Self { node, trust, method, _directory: directory }
    }

    async fn call(&self, operation: Operation, body: Value) -> Result<Value, CoreError> {
        let backend = self.method.method().unwrap();
        let (route, params) = route::find(backend.routes(), "crls/corp").unwrap();
        let full = ApiPath::parse("auth/cert/crls/corp").unwrap();
        let acl = Acl::new(vec![CompiledPolicy::root()], &TemplateValues::default());
        let permit = acl.authorize(&CheckRequest::new(&full, operation)).unwrap();
        let fields = Fields::new(body.as_object().cloned().unwrap_or_default());
        let remote = std::net::IpAddr::from([127, 0, 0, 1]);
        let locked = false;
        let request = AuthRequest { operation, route, params, fields, peer: None, remote, locked };
        match backend.handle(&self.method.context(), &permit, request).await? {
            AuthOutcome::Respond(reply) => Ok(Value::Object(reply.data.unwrap_or_default())),
            AuthOutcome::Login(_) => panic!("no log-in"),
        }
    }

    async fn name(&self, url: &str) -> Result<Value, CoreError> {
        self.call(Operation::Update, json!({ "url": url })).await
    }

    async fn shown(&self) -> Value {
        self.call(Operation::Read, Value::Null).await.unwrap()
    }

    fn revoked(&self, leaf: &Issued) -> bool {
        match self.trust.accepts(&leaf.der, &[], self.node.core.clock.now()) {
            Ok(()) => false,
            Err(ChainError::Revoked) => true,
            Err(other) => panic!("{other}"),
        }
    }

    /// Lets an hour pass, and the round after it.
    async fn an_hour(&self) {
        self.node.pass_in_steps(HOUR, 60).await;
    }

    /// Lets time pass in larger steps until something happens.
    async fn eventually(&self, what: &str, mut done: impl AsyncFnMut() -> bool) {
        for _ in 0..1000 {
            if done().await {
                return;
            }
            self.node.pass_in_steps(20, 20).await;
        }
        panic!("never happened: {what}");
    }

    /// Lets an hour pass, and waits for the failure that it brings.
    async fn fails(&self, why: &str) {
        self.an_hour().await;
        self.eventually(why, async || {
            self.shown().await["failure"].as_str().is_some_and(|said| said.contains(why))
        })
        .await;
    }
}

fn allowing(site: &Site) -> Auth {
    Auth { crl_hosts: vec![site.address.to_string()], ..Auth::default() }
}

/// When tests begin, in seconds since the Unix epoch.
fn start_secs() -> u64 {
    u64::try_from(START.as_millis() / 1000).unwrap()
}

#[tokio::test]
async fn a_list_is_fetched_when_it_is_named_and_again_while_it_is_kept() {
    let counted = Counted::from_here();
    let site = Site::start(None).await;
    let ca = Ca::root("corp");
    let world = World::new(&allowing(&site), &ca).await;
    let leaves: Vec<Issued> =
        [5u8, 6, 7].iter().map(|serial| ca.issue(&Spec::leaf().serial(&[*serial]))).collect();
    let revoked = || leaves.iter().map(|leaf| world.revoked(leaf)).collect::<Vec<_>>();
    assert_eq!(revoked(), [false, false, false]);

    site.serves(&ca.crl_of(&[&[5]], start_secs() - 100, NOT_AFTER_SECS));
    world.name(&site.url()).await.unwrap();
    assert_eq!(revoked(), [true, false, false]);
    let shown = world.shown().await;
    assert_eq!((&shown["url"], &shown["revoked_count"]), (&json!(site.url()), &json!(1)));
    assert_eq!((&shown["failure"], shown["fetched_at"].is_string()), (&Value::Null, true));
    let asked = site.asked.lock().unwrap()[0].clone();
    assert!(asked.starts_with("GET /pki/ca.crl HTTP/1.1\r\n"), "{asked}");
    assert!(asked.to_ascii_lowercase().contains(&format!("host: {}\r\n", site.address)));

    // The next list, in PEM. Not before it is time.
    let pem = |der: &[u8]| {
        let body = data_encoding::BASE64.encode(der);
        format!("-----BEGIN X509 CRL-----\n{body}\n-----END X509 CRL-----\n").into_bytes()
    };
    site.serves(&pem(&ca.crl_of(&[&[5], &[6]], start_secs(), NOT_AFTER_SECS)));
    world.node.pass_in_steps(HOUR - 300, 60).await;
    assert_eq!((site.asked(), revoked()), (1, vec![true, false, false]));
    world.eventually("the next list", async || world.revoked(&leaves[1])).await;
    assert_eq!(site.asked(), 2);

    // One about to be stale is fetched before it is.
    let stale_at = start_secs() + 3 * HOUR;
    site.serves(&ca.crl_of(&[&[6]], start_secs() + HOUR, stale_at));
    world.eventually("a list that ends", async || !world.revoked(&leaves[0])).await;
    site.serves(&ca.crl_of(&[&[6], &[7]], start_secs() + 2 * HOUR, NOT_AFTER_SECS));
    world.eventually("the one after it", async || world.revoked(&leaves[2])).await;
    assert!(world.node.core.clock.now() < Timestamp::from_secs(i64::try_from(stale_at).unwrap()));

    // Taken away, it counts no longer, and is not asked for any more.
    world.call(Operation::Delete, Value::Null).await.unwrap();
    assert_eq!(revoked(), [false, false, false]);
    let asked = site.asked();
    world.node.pass_in_steps(2 * HOUR, 60).await;
    assert_eq!(site.asked(), asked);
    assert!(counted.value("leasehold_crl_fetches_total{outcome=\"ok\"}").is_some());
    world.node.scheduler.shutdown().await;
}

#[tokio::test]
async fn whatever_goes_wrong_the_list_in_effect_stays_and_it_shows() {
    let counted = Counted::from_here();
    let (site, elsewhere) = (Site::start(None).await, Site::start(None).await);
    let (ca, other) = (Ca::root("corp"), Ca::root("corp"));
    let world = World::new(&allowing(&site), &ca).await;
    let leaf = ca.issue(&Spec::leaf().serial(&[5]));
    let next = start_secs() + 30 * HOUR;
    site.serves(&ca.crl_of(&[&[5]], start_secs(), next));
    world.name(&site.url()).await.unwrap();
    elsewhere.serves(&ca.crl_of(&[], start_secs() + 1, next));

    let redirect = format!("Location: {}\r\n", elsewhere.url());
    site.answers("302 Found", &redirect, b"");
    world.fails("redirects").await;
    site.answers("404 Not Found", "", b"");
    world.fails("status 404").await;
    site.serves(b"<html>no list at all</html>");
    world.fails("can be used").await;
    site.serves(&vec![0x30; TOO_LARGE]);
    world.fails("larger than 8 MiB").await;
    // Validly signed, and from before the revocation.
    site.serves(&ca.crl_of(&[], start_secs() - 1, next));
    world.fails("older than the one in effect").await;
    // Of the same name, and another key.
    site.serves(&other.crl_of(&[], start_secs() + 1, next));
    world.fails("no authority has signed").await;
    assert_eq!(elsewhere.asked(), 0, "a redirect was followed");
    assert!(world.revoked(&leaf));
    assert!(counted.value("leasehold_crl_fetches_total{outcome=\"failed\"}").is_some());

    // Past its next update, as the gauges say, it still revokes.
    world.node.pass_in_steps(31 * HOUR, 120).await;
    let expired = "leasehold_crls_expired{source=\"auth/cert/\"}";
    world.eventually("a stale list", async || counted.value(expired).as_deref() == Some("1")).await;
    let age = counted.value("leasehold_crl_age_seconds{source=\"auth/cert/\"}").unwrap();
    assert!(age.parse::<f64>().unwrap() >= 31.0 * 3600.0, "{age}");
    assert!(world.revoked(&leaf));

    // And the failure goes with its cause.
    site.serves(&ca.crl_of(&[&[5]], start_secs() + HOUR, NOT_AFTER_SECS));
    world.eventually("it is well again", async || world.shown().await["failure"].is_null()).await;
    world.eventually("none stale", async || counted.value(expired).as_deref() == Some("0")).await;
    world.node.scheduler.shutdown().await;
}

#[tokio::test]
async fn a_list_that_cannot_be_had_is_not_named() {
    let site = Site::start(None).await;
    let (ca, other) = (Ca::root("corp"), Ca::root("other"));
    let list = ca.crl_of(&[&[5]], start_secs(), NOT_AFTER_SECS);
    site.serves(&list);
    // No host is allowed unless the configuration says so.
    let world = World::new(&Auth::default(), &ca).await;
    let refused = world.name(&site.url()).await.unwrap_err();
    assert_eq!(refused.status(), 400);
    assert!(refused.public_text().contains("auth.crl_hosts"), "{refused}");
    assert_eq!(site.asked(), 0);
    world.node.scheduler.shutdown().await;

    let world = World::new(&allowing(&site), &ca).await;
    for (list, status) in [
        (other.crl(&[&[5]], NOT_AFTER_SECS), 400),
        (b"nonsense".to_vec(), 400),
        (vec![0x30; TOO_LARGE], 502),
    ] {
        site.serves(&list);
        assert_eq!(world.name(&site.url()).await.unwrap_err().status(), status);
    }
    site.serves(&list);
    let both = json!({ "url": site.url(), "crl": "x" });
    assert_eq!(world.call(Operation::Update, both).await.unwrap_err().status(), 400);
    assert_eq!(world.call(Operation::Update, json!({})).await.unwrap_err().status(), 400);
    assert!(matches!(world.call(Operation::Read, Value::Null).await, Err(CoreError::NotFound)));
    // Nobody listens there any more.
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    world.node.scheduler.shutdown().await;
    let world =
        World::new(&Auth { crl_hosts: vec![gone.to_string()], ..Auth::default() }, &ca).await;
    let refused = world.name(&format!("http://{gone}/")).await.unwrap_err();
    assert_eq!(refused.status(), 502);
    world.node.scheduler.shutdown().await;
}

#[tokio::test]
async fn over_https_the_host_is_checked_too() {
    let (ca, web) = (Ca::root("corp"), Ca::root("web"));
    let site = Site::start(Some(&web.issue(&Spec::server()))).await;
    site.serves(&ca.crl_of(&[&[5]], start_secs(), NOT_AFTER_SECS));
    let url = site.url().replace("http://", "https://");
    for (authority, status) in [(None, 400), (Some(&ca), 502), (Some(&web), 200)] {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let mut config = allowing(&site);
        if let Some(authority) = authority {
            std::io::Write::write_all(&mut file, authority.pem().as_bytes()).unwrap();
            config.crl_ca_file = file.path().to_owned();
        }
        let world = World::new(&config, &ca).await;
        match world.name(&url).await {
            Ok(_) => assert_eq!(status, 200),
            Err(error) => assert_eq!(error.status(), status, "{error}"),
        }
        let leaf = ca.issue(&Spec::leaf().serial(&[5]));
        assert_eq!(world.revoked(&leaf), status == 200);
        world.node.scheduler.shutdown().await;
    }
}
