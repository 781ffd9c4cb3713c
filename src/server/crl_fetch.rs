//! Fetches revocation lists over HTTP, from the hosts that the configuration names and no others.
//!
//! Who may write a list's URL is a question of policies, and must not become a way to make the server
//! send requests wherever somebody likes. Nothing of an answer but a list is ever shown. Plain HTTP is
//! fine for lists, which are signed.

use std::time::Duration;

use async_trait::async_trait;
use http_body_util::Full;
use hyper::{Method, StatusCode, header};
use tokio_rustls::TlsConnector;

use super::config::Auth;
use super::files::{self, FileError};
use super::outgoing::{self, Hosts, Target};
use crate::core::crl_source::{CrlSource, CrlSourceError};
use crate::crypto::x509::crl::CRL_BYTES_MAX;
use crate::types::time::Ttl;

/// Longest time for one list, connecting included.
const FETCH_MAX: Duration = Duration::from_secs(20);

/// The fetcher of a server.
pub struct CrlFetcher {
    hosts: Hosts,
    tls: Option<TlsConnector>,
    refresh_every: Ttl,
}

impl CrlFetcher {
    /// As the configuration says. Reads the file of authorities.
    ///
    /// # Errors
    /// When that file cannot be used.
    pub fn new(config: &Auth) -> Result<Self, FileError> {
        let path = &config.crl_ca_file;
        let tls = if path.as_os_str().is_empty() {
            None
        } else {
            let anchors = files::read_anchors(path)?;
            Some(outgoing::connector(&anchors).map_err(|error| files::tls_fault(path, error))?)
        };
        Ok(Self {
            hosts: Hosts::new(&config.crl_hosts, "auth.crl_hosts"),
            tls,
            refresh_every: config.crl_refresh_interval.ttl(),
        })
    }

    /// Takes a URL apart, and refuses it unless its host is allowed.
    fn target(&self, url: &str) -> Result<Target, CrlSourceError> {
        let target = self.hosts.target(url).map_err(CrlSourceError::Refused)?;
        if target.tls && self.tls.is_none() {
            let text = "is https, which needs auth.crl_ca_file in the configuration";
            return Err(CrlSourceError::Refused(text.into()));
        }
        Ok(target)
    }

    async fn get(&self, target: Target) -> Result<Vec<u8>, String> {
        let accepted = "application/pkix-crl, application/x-pem-file, */*";
        let request = outgoing::base(Method::GET, &target)
            .header(header::ACCEPT, accepted)
            .body(Full::default())
            .map_err(|_| "is no URL that can be asked for".to_owned())?;
        let tls = if target.tls { self.tls.clone() } else { None };
        let (status, list) = outgoing::ask(&target, tls, request, CRL_BYTES_MAX).await?;
        if status.is_redirection() {
            return Err("redirects, which is not followed: name the list's own URL".into());
        }
        if status != StatusCode::OK {
            return Err(format!("answered with status {}", status.as_u16()));
        }
        Ok(list)
    }
}

#[async_trait]
impl CrlSource for CrlFetcher {
    async fn fetch(&self, url: &str) -> Result<Vec<u8>, CrlSourceError> {
        let target = self.target(url)?;
        let fetched = tokio::time::timeout(FETCH_MAX, self.get(target)).await;
        fetched
            .unwrap_or_else(|_| Err("did not answer in time".into()))
            .map_err(CrlSourceError::Failed)
    }

    fn refresh_every(&self) -> Ttl {
        self.refresh_every
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_authorities_no_https_is_asked() {
        let hosts = vec!["crl.example.org".to_owned()];
        let fetcher = CrlFetcher::new(&Auth { crl_hosts: hosts, ..Auth::default() }).unwrap();
        assert!(fetcher.target("http://crl.example.org/ca.crl").is_ok());
        for url in ["https://crl.example.org/ca.crl", "http://other.example.org/ca.crl"] {
            let refused = fetcher.target(url);
            assert!(matches!(refused, Err(CrlSourceError::Refused(_))), "{url}: {refused:?}");
        }
    }
}
