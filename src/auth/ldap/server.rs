//! Where a directory is, and whether it may be asked.

use std::net::IpAddr;
use std::sync::Arc;

use super::settings::SettingError;

/// Longest list of URLs, in bytes.
const URLS_BYTES_MAX: usize = 2048;
/// Most servers of one mount.
const SERVERS_MAX: usize = 8;
const FIELD: &str = "url";

/// The hosts that directories may be on, as the server's configuration names them: `host` at the
/// standard ports, or `host:port`.
#[derive(Clone, Debug)]
pub struct DirectoryHosts(Arc<[String]>);

impl DirectoryHosts {
    /// These and no others.
    pub fn new(hosts: &[String]) -> Self {
        Self(hosts.iter().map(|host| host.to_ascii_lowercase()).collect())
    }

    fn allow(&self, server: &Server) -> bool {
        let host = match server.host.parse::<IpAddr>() {
            Ok(IpAddr::V6(_)) => format!("[{}]", server.host),
            Ok(IpAddr::V4(_)) | Err(_) => server.host.clone(),
        };
        let with_port = format!("{host}:{}", server.port);
        let standard = server.port == server.scheme.standard_port();
        self.0.iter().any(|known| *known == with_port || (standard && *known == host))
    }
}

/// How a server is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scheme {
    /// In clear, at least to begin with.
    Ldap,
    /// Over TLS from the first byte.
    Ldaps,
}

impl Scheme {
    const fn standard_port(self) -> u16 {
        match self {
            Self::Ldap => 389,
            Self::Ldaps => 636,
        }
    }
}

/// One server of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Server {
    pub scheme: Scheme,
    /// A name or an address, in lower case and without brackets.
    pub host: String,
    pub port: u16,
}

impl Server {
    /// The servers in a comma-separated list of URLs, all of which must be allowed.
    ///
    /// # Errors
    /// Saying what is wrong with `url`.
    pub(super) fn list(text: &str, hosts: &DirectoryHosts) -> Result<Vec<Self>, SettingError> {
        let refused = |problem: &'static str| SettingError::new(FIELD, problem);
        if text.len() > URLS_BYTES_MAX {
            return Err(refused("is longer than 2048 bytes"));
        }
        let urls: Vec<&str> = text.split(',').map(str::trim).collect();
        if urls.len() > SERVERS_MAX {
            return Err(refused("names more than 8 servers"));
        }
        let servers: Vec<Self> = urls.into_iter().map(Self::parse).collect::<Result<_, _>>()?;
        if servers.iter().all(|server| hosts.allow(server)) {
            return Ok(servers);
        }
        Err(refused(
            "is on a host that auth.ldap_hosts of the server's configuration lacks: it lists hosts \
             as host or, where the port is not the standard one, host:port",
        ))
    }

    fn parse(url: &str) -> Result<Self, SettingError> {
        let refused = |problem: &'static str| SettingError::new(FIELD, problem);
        let (scheme, rest) = match url.split_once("://") {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("ldap") => (Scheme::Ldap, rest),
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("ldaps") => (Scheme::Ldaps, rest),
            Some(_) | None => return Err(refused("must begin with ldap:// or ldaps://")),
        };
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        let (host, port) = match authority.strip_prefix('[').map(|rest| rest.split_once(']')) {
            Some(Some((host, ""))) => (host, None),
            Some(Some((host, port))) => (host, port.strip_prefix(':')),
            Some(None) => return Err(refused("names no usable host")),
            None => match authority.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (authority, None),
            },
        };
        let v6 = authority.starts_with('[');
        let host = host.to_ascii_lowercase();
        let name = |text: &str| {
            !text.is_empty()
                && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b))
        };
        let usable = if v6 { matches!(host.parse(), Ok(IpAddr::V6(_))) } else { name(&host) };
        if !usable {
            return Err(refused("names no usable host; it is ldaps://host or ldaps://host:port"));
        }
        let port = match port {
            None if authority.ends_with([':', ']']) == v6 => scheme.standard_port(),
            None => return Err(refused("has no usable port")),
            Some(text) => match text.parse() {
                Ok(port) if port != 0 && !text.starts_with('+') => port,
                Ok(_) | Err(_) => return Err(refused("has no usable port")),
            },
        };
        Ok(Self { scheme, host, port })
    }

    /// Whether it is this machine, so that clear text is not seen by others.
    pub(super) fn is_local(&self) -> bool {
        self.host == "localhost"
            || self.host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(text: &str, hosts: &[&str]) -> Result<Vec<Server>, String> {
        let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
        Server::list(text, &DirectoryHosts::new(&hosts)).map_err(|error| error.problem)
    }

    #[test]
    fn servers_are_taken_apart_in_order() {
        let found = list(
            "ldaps://DC1.example.org, ldap://dc2.example.org:3268/,ldap://[::1]:1389,ldaps://[::1]",
            &["dc1.example.org", "DC2.example.org:3268", "[::1]:1389", "[::1]"],
        );
        let server = |scheme, host: &str, port| Server { scheme, host: host.to_owned(), port };
        let expected = vec![
            server(Scheme::Ldaps, "dc1.example.org", 636),
            server(Scheme::Ldap, "dc2.example.org", 3268),
            server(Scheme::Ldap, "::1", 1389),
            server(Scheme::Ldaps, "::1", 636),
        ];
        assert_eq!(found, Ok(expected.clone()));
        assert_eq!(
            expected.iter().map(Server::is_local).collect::<Vec<_>>(),
            [false, false, true, true]
        );
    }

    #[test]
    fn only_hosts_of_the_configuration_are_asked() {
        let hosts = ["dc1.example.org", "dc2.example.org:3268"];
        for (url, allowed) in [
            ("ldap://dc1.example.org", true),
            ("ldaps://dc1.example.org:636", true),
            ("ldap://dc1.example.org:3268", false),
            // The standard port of the other scheme is not the standard one.
            ("ldap://dc1.example.org:636", false),
            ("ldap://dc2.example.org:3268", true),
            ("ldap://dc2.example.org", false),
            ("ldap://127.0.0.1", false),
            ("ldap://dc1.example.org,ldap://evil.example", false),
            ("ldap://dc1.example.org.", false),
        ] {
            assert_eq!(list(url, &hosts).is_ok(), allowed, "{url}");
        }
        assert!(list("ldap://127.0.0.1", &[]).unwrap_err().contains("auth.ldap_hosts"));
    }

    #[test]
    fn what_is_no_server_is_refused() {
        for url in [
            "",
            "http://h",
            "ldapi:///",
            "ldap://",
            "ldap://u@h",
            "ldap://u:p@h",
            "ldap://h:0",
            "ldap://h:99999",
            "ldap://h:",
            "ldap://h:+1",
            "ldap://h/dc=x",
            "ldap://h?x",
            "ldap://[x]",
            "ldap://[::1",
            "ldap://[::1]x",
            "ldap://[::1]:",
            "ldap://h,",
            "ldap://h h",
            "ldap://::1",
        ] {
            let problem = list(url, &["h"]).unwrap_err();
            assert!(!problem.contains("auth.ldap_hosts"), "{url}: {problem}");
        }
    }
}
