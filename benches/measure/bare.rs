//! The bare server: axum over rustls with client certificates, and a constant for an answer. What any
//! server costs that does nothing.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// What clients of a broker look for in its answers.
const FIELDS: &str = r#"{"auth":{"client_token":"s.bare"},"lease_id":"database/creds/bench/bare","wrap_info":{"token":"s.wrap"},"data":""#;

/// A bare server in a process of its own, as the broker is.
pub struct Bare {
    child: Child,
    /// It ends when this does, also when nobody is left to end it.
    _stdin: ChildStdin,
    pub address: SocketAddr,
}

impl Bare {
    /// Serves an answer of `size` bytes with the certificates in `dir`: `server.pem`, `server.key`, and
    /// `clients.pem` for the authority of the clients.
    pub fn start(dir: &Path, size: usize) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--serve-bare", dir.to_str().unwrap(), &size.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let stdin = child.stdin.take().unwrap();
        Self { child, _stdin: stdin, address: line.trim().parse().unwrap() }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The process itself.
pub fn serve(dir: &str, size: usize) {
    std::thread::spawn(|| {
        let _ = std::io::stdin().read(&mut [0]);
        std::process::exit(0);
    });
    let acceptor = TlsAcceptor::from(Arc::new(tls(Path::new(dir))));
    let padding = "x".repeat(size.saturating_sub(FIELDS.len() + 2));
    let body: &'static str = Box::leak(format!("{FIELDS}{padding}\"}}").into_boxed_str());
    let app = Router::new().fallback(async move || ([("content-type", "application/json")], body));
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        println!("{}", listener.local_addr().unwrap());
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (acceptor, app) = (acceptor.clone(), app.clone());
            tokio::spawn(async move {
                let _ = stream.set_nodelay(true);
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let service = TowerToHyperService::new(app);
                let _ = Builder::new(TokioExecutor::new())
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            });
        }
    });
}

fn tls(dir: &Path) -> ServerConfig {
    let read = |name: &str| std::fs::read(dir.join(name)).unwrap();
    let certificates = |name: &str| -> Vec<CertificateDer<'static>> {
        CertificateDer::pem_slice_iter(&read(name)).map(Result::unwrap).collect()
    };
    let mut roots = RootCertStore::empty();
    for certificate in certificates("clients.pem") {
        roots.add(certificate).unwrap();
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .build()
        .unwrap();
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(
            certificates("server.pem"),
            PrivateKeyDer::from_pem_slice(&read("server.key")).unwrap(),
        )
        .unwrap();
    // As the broker does, and for the same reason.
    config.send_tls13_tickets = 0;
    config
}
