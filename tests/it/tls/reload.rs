//! Files that change under a running server.

use std::fs::{self, Permissions};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use leasehold::server::Listeners;
use leasehold::server::config::{Config, Listener, Trust};
use leasehold::server::files;
use leasehold::server::reload::{Reloaded, Reloader};
use rustls::version::TLS13;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;

use super::{App, NOW_SECS};
use crate::support::pki::{Ca, Issued, Spec};
use crate::support::wire::{Client, get, soon};

/// A server whose certificate, bundle and revocation list are files.
struct OnFiles {
    directory: tempfile::TempDir,
    config: Config,
    app: App,
    address: SocketAddr,
    reloader: Option<Reloader>,
    stop: CancellationToken,
    servers: Ca,
    clients: Ca,
}

impl OnFiles {
    async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (servers, clients) = (Ca::root("servers"), Ca::root("clients"));
        let file = |name: &str| directory.path().join(name);
        let config = Config {
            listeners: vec![Listener {
                name: "api".into(),
                address: "127.0.0.1:0".into(),
                certificate: file("server.pem"),
                key: file("server.key"),
                ..Listener::default()
            }],
            trust: vec![Trust {
                name: "a".into(),
                trust_domain: "a.example".into(),
                bundle: file("bundle.pem"),
                crls: vec![file("clients.crl")],
                ..Trust::default()
            }],
            ..Config::default()
        };
        let mut server = Self {
            directory,
            config,
            app: App::new(),
            address: ([127, 0, 0, 1], 0).into(),
            reloader: None,
            stop: CancellationToken::new(),
            servers,
            clients,
        };
        server.show(&server.servers.issue(&Spec::server()));
        server.write("bundle.pem", server.clients.pem().as_bytes());
        server.write("clients.crl", &server.clients.crl(&[], NOW_SECS + 1000));
        let (listeners, reloader) =
            Listeners::bind(&server.config, server.app.trust.clone(), server.app.clock.clone())
                .await
                .unwrap();
        server.address = listeners.addresses().unwrap()[0].1;
        server.reloader = Some(reloader);
        tokio::spawn(listeners.serve(server.app.router(), server.stop.clone()));
        server
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        fs::write(self.path(name), bytes).unwrap();
    }

    fn show(&self, identity: &Issued) {
        self.write("server.pem", identity.pem().as_bytes());
        self.write("server.key", identity.key_pem.as_bytes());
        fs::set_permissions(self.path("server.key"), Permissions::from_mode(0o600)).unwrap();
    }

    fn look(&mut self) -> Reloaded {
        self.reloader.as_mut().unwrap().look()
    }

    fn client(&self, leaf: &Issued) -> Client {
        Client::new(&self.servers.der, &TLS13, Some((leaf, &[])))
    }

    fn workload(&self, serial: &[u8]) -> Issued {
        self.clients.issue(&Spec::svid("spiffe://a.example/x").serial(serial))
    }
}

async fn status(stream: &mut TlsStream<TcpStream>) -> u16 {
    get(stream, "/whoami").await.unwrap().status
}

fn shown(stream: &TlsStream<TcpStream>) -> Vec<u8> {
    stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
}

const CHANGED: Reloaded = Reloaded { changed: 1, failing: 0 };
const FAILING: Reloaded = Reloaded { changed: 0, failing: 1 };

#[tokio::test]
async fn a_revoked_certificate_is_refused_on_open_connections_too() {
    let mut server = OnFiles::start().await;
    let (revoked, spared) = (server.workload(&[7]), server.workload(&[8]));
    let mut open = server.client(&revoked).connect(server.address).await.unwrap();
    let mut other = server.client(&spared).connect(server.address).await.unwrap();
    assert_eq!((status(&mut open).await, status(&mut other).await), (200, 200));
    server.write("clients.crl", &server.clients.crl(&[&[7]], NOW_SECS + 1000));
    assert_eq!(server.look(), CHANGED);
    assert_eq!((status(&mut open).await, status(&mut other).await), (403, 200));
    server.client(&revoked).refused(server.address).await;
    server.client(&spared).connect(server.address).await.unwrap();
    // A list that goes stale refuses everybody, until a new one comes.
    server.app.clock.advance(Duration::from_secs(1000));
    assert_eq!(status(&mut other).await, 403);
    server.write("clients.crl", &server.clients.crl(&[&[7]], NOW_SECS + 2000));
    assert_eq!(server.look(), CHANGED);
    assert_eq!((status(&mut open).await, status(&mut other).await), (403, 200));
}

#[tokio::test]
async fn a_new_certificate_is_shown_to_newcomers() {
    let mut server = OnFiles::start().await;
    let client = server.client(&server.workload(&[1]));
    let mut open = client.connect(server.address).await.unwrap();
    let first = shown(&open);
    assert_eq!(server.look(), Reloaded::default());
    let renewed = server.servers.issue(&Spec::server().cn("renewed"));
    server.show(&renewed);
    assert_eq!(server.look(), CHANGED);
    let newcomer = client.connect(server.address).await.unwrap();
    assert_eq!(shown(&newcomer), renewed.der.to_vec());
    assert_ne!(shown(&newcomer), first);
    assert_eq!(status(&mut open).await, 200, "connections are not dropped");
}

#[tokio::test]
async fn bad_files_leave_the_old_ones_in_effect() {
    let mut server = OnFiles::start().await;
    let leaf = server.workload(&[1]);
    let client = server.client(&leaf);
    let first = shown(&client.connect(server.address).await.unwrap());
    let good: Vec<(&str, Vec<u8>)> = ["server.pem", "server.key", "bundle.pem", "clients.crl"]
        .map(|name| (name, fs::read(server.path(name)).unwrap()))
        .into();
    let foreign = server.servers.issue(&Spec::server());
    for (name, bad) in [
        ("server.pem", b"nothing".to_vec()),
        // Halfway through a rotation: the new certificate, and still the old key.
        ("server.pem", foreign.pem().into_bytes()),
        ("server.key", b"-----BEGIN PRIVATE KEY-----\n".to_vec()),
        ("bundle.pem", Vec::new()),
        ("bundle.pem", leaf.pem().into_bytes()),
        ("clients.crl", b"0".to_vec()),
    ] {
        server.write(name, &bad);
        assert_eq!(server.look(), FAILING, "{name}");
        assert_eq!(server.look(), FAILING, "{name}, the same again");
        let mut stream = client.connect(server.address).await.unwrap();
        assert_eq!((shown(&stream), status(&mut stream).await), (first.clone(), 200), "{name}");
        for (name, bytes) in &good {
            server.write(name, bytes);
        }
        assert_eq!(server.look(), CHANGED);
    }
    fs::remove_file(server.path("bundle.pem")).unwrap();
    fs::set_permissions(server.path("server.key"), Permissions::from_mode(0o604)).unwrap();
    assert_eq!(server.look(), Reloaded { changed: 0, failing: 2 });
    fs::set_permissions(server.path("server.key"), Permissions::from_mode(0o600)).unwrap();
    server.write("bundle.pem", server.clients.pem().as_bytes());
    assert_eq!(server.look(), Reloaded { changed: 2, failing: 0 });
}

#[tokio::test]
async fn a_bundle_that_changes_its_mind_ends_open_identities() {
    let mut server = OnFiles::start().await;
    let successor = Ca::root("successor");
    let mut open = server.client(&server.workload(&[1])).connect(server.address).await.unwrap();
    assert_eq!(status(&mut open).await, 200);
    server.write("bundle.pem", successor.pem().as_bytes());
    assert_eq!(server.look(), CHANGED);
    assert_eq!(status(&mut open).await, 403);
    let heir = successor.issue(&Spec::svid("spiffe://a.example/x"));
    let mut stream = server.client(&heir).connect(server.address).await.unwrap();
    assert_eq!(status(&mut stream).await, 200);
}

#[tokio::test]
async fn a_hangup_reloads_at_once() {
    let mut server = OnFiles::start().await;
    let (hangup, heard) = watch::channel(0);
    let reloader = server.reloader.take().unwrap();
    let running = tokio::spawn(reloader.run(Duration::from_secs(3600), heard));
    let renewed = server.servers.issue(&Spec::server());
    server.show(&renewed);
    hangup.send_modify(|count| *count += 1);
    let client = server.client(&server.workload(&[1]));
    soon(async {
        while shown(&client.connect(server.address).await.unwrap()) != renewed.der.to_vec() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    running.abort();
}

#[tokio::test]
async fn a_server_does_not_start_on_bad_files_and_a_check_names_them_all() {
    let server = OnFiles::start().await;
    assert!(files::check(&server.config).is_empty());
    server.write("bundle.pem", b"nothing");
    fs::set_permissions(server.path("server.key"), Permissions::from_mode(0o644)).unwrap();
    let found: Vec<String> = files::check(&server.config).iter().map(ToString::to_string).collect();
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[0].contains("server.key") && found[0].contains("everybody"), "{found:?}");
    assert!(found[1].contains("bundle.pem") && found[1].contains("no certificate"), "{found:?}");
    let trust = Arc::new(leasehold::core::trust::TrustStore::new());
    let refused = Listeners::bind(&server.config, trust, server.app.clock.clone()).await;
    assert!(refused.is_err());
}
