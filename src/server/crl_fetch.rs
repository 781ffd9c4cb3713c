//! Fetches revocation lists over HTTP, from the hosts that the configuration names and no others.
//!
//! Who may write a list's URL is a question of policies, and must not become a way to make the server
//! send requests wherever somebody likes. So hosts are allowed one by one, redirects are not followed,
//! and nothing of an answer but a list is ever shown. Plain HTTP is fine for lists, which are signed.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1::handshake;
use hyper::header;
use hyper::http::uri::{Scheme, Uri};
use hyper_util::rt::TokioIo;
use rustls::RootCertStore;
use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_util::task::AbortOnDropHandle;

use super::config::Auth;
use super::files::{self, FileError};
use super::tls::TlsError;
use crate::core::crl_source::{CrlSource, CrlSourceError};
use crate::crypto::x509::crl::CRL_BYTES_MAX;
use crate::types::time::Ttl;

/// Longest URL.
const URL_BYTES_MAX: usize = 2048;
/// Longest time for one list, connecting included.
const FETCH_MAX: Duration = Duration::from_secs(20);

/// The fetcher of a server.
pub struct CrlFetcher {
    hosts: Vec<String>,
    tls: Option<TlsConnector>,
    refresh_every: Ttl,
}

/// Where a list is.
#[derive(Debug, PartialEq, Eq)]
struct Target {
    tls: bool,
    host: String,
    port: u16,
    /// For the Host header.
    authority: String,
    path: String,
}

impl CrlFetcher {
    /// As the configuration says. Reads the file of authorities.
    ///
    /// # Errors
    /// When that file cannot be used.
    pub fn new(config: &Auth) -> Result<Self, FileError> {
        let tls = if config.crl_ca_file.as_os_str().is_empty() {
            None
        } else {
            let mut roots = RootCertStore::empty();
            let anchors = files::read_anchors(&config.crl_ca_file)?;
            roots.add_parsable_certificates(anchors.certificates().iter().cloned());
            Some(connector(roots).map_err(|error| files::tls_fault(&config.crl_ca_file, error))?)
        };
        Ok(Self {
            hosts: config.crl_hosts.iter().map(|host| host.to_ascii_lowercase()).collect(),
            tls,
            refresh_every: config.crl_refresh_interval.ttl(),
        })
    }

    /// Takes a URL apart, and refuses it unless its host is allowed.
    fn target(&self, url: &str) -> Result<Target, CrlSourceError> {
        let refused = |text: &str| CrlSourceError::Refused(text.to_owned());
        if url.len() > URL_BYTES_MAX {
            return Err(refused("is longer than 2048 bytes"));
        }
        let uri: Uri = url.parse().map_err(|_| refused("is no URL"))?;
        let tls = match uri.scheme() {
            Some(scheme) if *scheme == Scheme::HTTP => false,
            Some(scheme) if *scheme == Scheme::HTTPS => true,
            Some(_) | None => return Err(refused("must begin with http:// or https://")),
        };
        let authority = uri.authority().ok_or_else(|| refused("has no host"))?;
        if authority.as_str().contains('@') {
            return Err(refused("must not hold a user name or password"));
        }
        let standard = if tls { 443 } else { 80 };
        let port = match authority.as_str().strip_prefix(authority.host()) {
            Some("") => standard,
            Some(_) | None => authority.port_u16().ok_or_else(|| refused("has no usable port"))?,
        };
        let host = authority.host().to_ascii_lowercase();
        let with_port = format!("{host}:{port}");
        let allowed = |known: &String| *known == with_port || (port == standard && *known == host);
        if !self.hosts.iter().any(allowed) {
            return Err(refused("is on a host that auth.crl_hosts of the configuration lacks"));
        }
        if tls && self.tls.is_none() {
            return Err(refused("is https, which needs auth.crl_ca_file in the configuration"));
        }
        Ok(Target {
            tls,
            host: host.trim_start_matches('[').trim_end_matches(']').to_owned(),
            port,
            authority: if port == standard { host } else { with_port },
            path: uri.path_and_query().map_or("/", |path| path.as_str()).to_owned(),
        })
    }

    async fn get(&self, target: Target) -> Result<Vec<u8>, CrlSourceError> {
        let failed = |text: String| CrlSourceError::Failed(text);
        let tcp = TcpStream::connect((target.host.as_str(), target.port))
            .await
            .map_err(|error| failed(format!("cannot be reached: {error}")))?;
        match &self.tls {
            Some(tls) if target.tls => {
                let name = ServerName::try_from(target.host.clone())
                    .map_err(|_| failed("has no usable host name".into()))?;
                let stream = tls
                    .connect(name, tcp)
                    .await
                    .map_err(|error| failed(format!("cannot be trusted: {error}")))?;
                exchange(stream, &target).await
            }
            Some(_) | None => exchange(tcp, &target).await,
        }
    }
}

#[async_trait]
impl CrlSource for CrlFetcher {
    async fn fetch(&self, url: &str) -> Result<Vec<u8>, CrlSourceError> {
        let target = self.target(url)?;
        let fetched = tokio::time::timeout(FETCH_MAX, self.get(target)).await;
        fetched.unwrap_or_else(|_| Err(CrlSourceError::Failed("did not answer in time".into())))
    }

    fn refresh_every(&self) -> Ttl {
        self.refresh_every
    }
}

fn connector(roots: RootCertStore) -> Result<TlsConnector, TlsError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Protocol)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
}

/// One request and its answer; the connection ends with it.
async fn exchange<S>(stream: S, target: &Target) -> Result<Vec<u8>, CrlSourceError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let failed = |text: String| CrlSourceError::Failed(text);
    let broken = |error: hyper::Error| failed(format!("broke off: {error}"));
    let (mut sender, connection) = handshake(TokioIo::new(stream)).await.map_err(broken)?;
    // What breaks the connection is reported by the request that is on it.
    let _driver = AbortOnDropHandle::new(tokio::spawn(async move {
        let _ = connection.await;
    }));
    let request = hyper::Request::get(target.path.as_str())
        .header(header::HOST, target.authority.as_str())
        .header(header::ACCEPT, "application/pkix-crl, application/x-pem-file, */*")
        .header(header::USER_AGENT, "leasehold")
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|_| failed("is no URL that can be asked for".into()))?;
    let answer = sender.send_request(request).await.map_err(broken)?;
    let status = answer.status();
    if status.is_redirection() {
        return Err(failed("redirects, which is not followed: name the list's own URL".into()));
    }
    if status != hyper::StatusCode::OK {
        return Err(failed(format!("answered with status {}", status.as_u16())));
    }
    match Limited::new(answer.into_body(), CRL_BYTES_MAX).collect().await {
        Ok(body) => Ok(body.to_bytes().to_vec()),
        Err(error) => Err(match error.downcast::<hyper::Error>() {
            Ok(error) => broken(*error),
            Err(_) => failed("is larger than 8 MiB".into()),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fetcher(hosts: &[&str]) -> CrlFetcher {
        let hosts = hosts.iter().map(|host| (*host).to_owned()).collect();
        CrlFetcher::new(&Auth { crl_hosts: hosts, ..Auth::default() }).unwrap()
    }

    #[test]
    fn only_hosts_that_are_allowed_are_asked() {
        let fetcher = fetcher(&["crl.example.org", "10.0.0.1:8080", "[::1]:8080", "Upper.Example"]);
        for url in [
            "http://crl.example.org/ca.crl",
            "http://CRL.example.org:80/ca.crl?x=y",
            "http://10.0.0.1:8080/ca.crl",
            "http://[::1]:8080/",
            "http://upper.example",
        ] {
            fetcher.target(url).unwrap_or_else(|error| panic!("{url}: {error}"));
        }
        for url in [
            "",
            "ca.crl",
            "/ca.crl",
            "crl.example.org/ca.crl",
            "file:///etc/passwd",
            "ftp://crl.example.org/ca.crl",
            "http://crl.example.org:8080/",
            "http://crl.example.org.evil.example/",
            "http://evil.example/crl.example.org",
            "http://evil.example/?crl.example.org",
            "http://crl.example.org@evil.example/",
            "http://evil.example@crl.example.org/",
            "http://crl.example.org./",
            "http://10.0.0.1/ca.crl",
            "http://169.254.169.254/latest/meta-data",
            "http://[::1]/",
            "http://crl.example.org:99999/",
            "http://crl.example.org:/",
            "http://crl.example.org\\@evil.example/",
            "http://crl.example.org/\r\nX: y",
            // No authorities are configured to trust it by.
            "https://crl.example.org/ca.crl",
        ] {
            assert!(
                matches!(fetcher.target(url), Err(CrlSourceError::Refused(_))),
                "{url}: {:?}",
                fetcher.target(url)
            );
        }
        let long = format!("http://crl.example.org/{}", "x".repeat(URL_BYTES_MAX));
        assert!(fetcher.target(&long).is_err());
    }

    #[test]
    fn without_any_host_nothing_is_asked() {
        let fetcher = fetcher(&[]);
        for url in ["http://127.0.0.1/", "http://localhost/", "http:///", "http://:80/"] {
            assert!(fetcher.target(url).is_err(), "{url}");
        }
    }
}
