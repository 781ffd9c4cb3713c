//! Where a request may go: URLs taken apart, and held against the hosts that the configuration names.

use std::net::IpAddr;

use hyper::http::uri::{Scheme, Uri};

/// Longest URL.
const URL_BYTES_MAX: usize = 2048;

/// The hosts that may be asked for one purpose.
pub(in crate::server) struct Hosts {
    allowed: Vec<String>,
    /// Which key of the configuration lists them.
    key: &'static str,
}

/// Where something is.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::server) struct Target {
    /// Whether it is asked by HTTPS.
    pub(in crate::server) tls: bool,
    /// A name or address.
    pub(in crate::server) host: String,
    /// Its port.
    pub(in crate::server) port: u16,
    /// For the Host header.
    pub(in crate::server) authority: String,
    /// The path, with the query.
    pub(in crate::server) path: String,
}

impl Hosts {
    /// The hosts that `key` of the configuration lists: `host`, at the standard port, or `host:port`.
    pub(in crate::server) fn new(list: &[String], key: &'static str) -> Self {
        Self { allowed: list.iter().map(|host| host.to_ascii_lowercase()).collect(), key }
    }

    /// Takes a URL apart.
    ///
    /// # Errors
    /// What is wrong with it, or that its host is not allowed. Nothing of it is quoted.
    pub(in crate::server) fn target(&self, url: &str) -> Result<Target, String> {
        let refused = |text: &str| text.to_owned();
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
        if !self.allowed.iter().any(allowed) {
            return Err(format!("is on a host that {} of the configuration lacks", self.key));
        }
        Ok(Target {
            tls,
            host: host.trim_start_matches('[').trim_end_matches(']').to_owned(),
            port,
            authority: if port == standard { host } else { with_port },
            path: uri.path_and_query().map_or("/", |path| path.as_str()).to_owned(),
        })
    }
}

impl Target {
    /// Whether it is named as part of this machine.
    pub(in crate::server) fn is_loopback(&self) -> bool {
        self.host == "localhost"
            || self.host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(list: &[&str]) -> Hosts {
        let list: Vec<String> = list.iter().map(|host| (*host).to_owned()).collect();
        Hosts::new(&list, "auth.crl_hosts")
    }

    #[test]
    fn only_hosts_that_are_allowed_are_asked() {
        let hosts = hosts(&["crl.example.org", "10.0.0.1:8080", "[::1]:8080", "Upper.Example"]);
        for url in [
            "http://crl.example.org/ca.crl",
            "http://CRL.example.org:80/ca.crl?x=y",
            "https://crl.example.org/ca.crl",
            "https://crl.example.org:443/ca.crl",
            "http://10.0.0.1:8080/ca.crl",
            "http://[::1]:8080/",
            "http://upper.example",
        ] {
            hosts.target(url).unwrap_or_else(|error| panic!("{url}: {error}"));
        }
        for url in [
            "",
            "ca.crl",
            "/ca.crl",
            "crl.example.org/ca.crl",
            "file:///etc/passwd",
            "ftp://crl.example.org/ca.crl",
            "http://crl.example.org:8080/",
            "https://crl.example.org:80/",
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
        ] {
            assert!(hosts.target(url).is_err(), "{url}: {:?}", hosts.target(url));
        }
        let long = format!("http://crl.example.org/{}", "x".repeat(URL_BYTES_MAX));
        assert!(hosts.target(&long).is_err());
    }

    #[test]
    fn without_any_host_nothing_is_asked() {
        let hosts = hosts(&[]);
        for url in ["http://127.0.0.1/", "http://localhost/", "http:///", "http://:80/"] {
            assert!(hosts.target(url).is_err(), "{url}");
        }
    }

    #[test]
    fn this_machine_is_told_from_others_by_its_own_names_alone() {
        let all =
            ["127.0.0.1", "127.9.9.9", "[::1]", "localhost", "10.0.0.1", "localhost.evil.org"];
        let hosts = hosts(&all);
        let loopback: Vec<bool> = all
            .iter()
            .map(|host| hosts.target(&format!("http://{host}/")).unwrap().is_loopback())
            .collect();
        assert_eq!(loopback, [true, true, true, true, false, false]);
    }
}
