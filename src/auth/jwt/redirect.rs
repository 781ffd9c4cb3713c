//! Where a browser may be sent back to with a code.

/// The names under which a machine means itself (RFC 8252 §7.3, §8.3).
const LOOPBACK: [&str; 3] = ["127.0.0.1", "[::1]", "localhost"];

/// Whether a role may allow `uri`: by HTTPS, or by HTTP on the machine of whoever logs in.
///
/// # Errors
/// Why not.
pub(super) fn check(uri: &str) -> Result<(), &'static str> {
    if !uri.bytes().all(|byte| byte.is_ascii_graphic()) || uri.contains(['#', '*', '\\']) {
        return Err("must be of URIs without fragments, patterns and spaces");
    }
    if split_loopback(uri).is_some() {
        return Ok(());
    }
    match uri.strip_prefix("https://") {
        Some(rest) if !rest.is_empty() && !rest.starts_with(['/', '?']) && !rest.contains('@') => {
            Ok(())
        }
        Some(_) | None => {
            Err("must be https, or http to 127.0.0.1, [::1] or localhost: a code goes there")
        }
    }
}

/// Whether `uri` is one of those that are allowed: the same to the letter (RFC 9700 §2.1), but for the
/// port on the machine itself, which is whatever is free there (RFC 8252 §7.3).
pub(super) fn is_allowed(uri: &str, allowed: &[String]) -> bool {
    let own = split_loopback(uri);
    check(uri).is_ok()
        && allowed
            .iter()
            .any(|known| known == uri || (own.is_some() && own == split_loopback(known)))
}

/// Host and rest of an address of the machine itself, without the port.
fn split_loopback(uri: &str) -> Option<(&str, &str)> {
    let rest = uri.strip_prefix("http://")?;
    let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let (host, port) = match authority.strip_prefix('[').and_then(|inner| inner.find(']')) {
        Some(end) => authority.split_at(end + 2),
        None => authority.split_at(authority.find(':').unwrap_or(authority.len())),
    };
    let port_is_one = match port.strip_prefix(':') {
        Some(digits) => digits.parse::<u16>().is_ok_and(|port| port.to_string() == digits),
        None => port.is_empty(),
    };
    (port_is_one && LOOPBACK.contains(&host)).then_some((host, path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_browser_goes_back_to_the_letter_but_for_a_port_of_its_own_machine() {
        let allowed = ["https://ui.example.org/callback", "http://localhost:8250/oidc/callback"]
            .map(str::to_owned);
        for uri in [
            "https://ui.example.org/callback",
            "http://localhost:8250/oidc/callback",
            "http://localhost:49152/oidc/callback",
            "http://localhost/oidc/callback",
        ] {
            assert!(is_allowed(uri, &allowed), "{uri}");
        }
        for uri in [
            "",
            "https://ui.example.org/callback/",
            "https://ui.example.org/callback?x=y",
            "https://ui.example.org/CALLBACK",
            "https://ui.example.org:443/callback",
            "https://ui.example.org:8443/callback",
            "https://ui.example.org.evil.example/callback",
            "https://evil.example/https://ui.example.org/callback",
            "http://ui.example.org/callback",
            "https://localhost:8250/oidc/callback",
            "http://127.0.0.1:8250/oidc/callback",
            "http://[::1]:8250/oidc/callback",
            "http://localhost:8250/oidc/callback/../evil",
            "http://localhost:8250/oidc/callback?next=x",
            "http://localhost:8250@evil.example/oidc/callback",
            "http://localhost@evil.example/oidc/callback",
            "http://localhost.evil.example:8250/oidc/callback",
            "http://localhost:08250/oidc/callback",
            "http://localhost:+8250/oidc/callback",
            "http://localhost:/oidc/callback",
            "http://localhost:99999/oidc/callback",
            "http://localhost:8250\\@evil.example/oidc/callback",
            "http://localhost:8250/oidc/callback#x",
            "http://localhost:8250/oidc/callback ",
            "HTTP://localhost:8250/oidc/callback",
        ] {
            assert!(!is_allowed(uri, &allowed), "{uri}");
        }
        assert!(!is_allowed("https://ui.example.org/callback", &[]));
    }

    #[test]
    fn a_code_is_sent_nowhere_in_clear() {
        for uri in ["https://a/b", "http://127.0.0.1/x", "http://[::1]:1/x", "http://localhost"] {
            assert_eq!(check(uri), Ok(()), "{uri}");
        }
        for uri in [
            "",
            "https://",
            "https:///x",
            "http://a/b",
            "ftp://a/b",
            "app:/x",
            "/x",
            "https://a/*",
            "https://a@b/c",
            "https://a/b#c",
            "https://a/ b",
            "http://127.0.0.2/x",
            "http://[::2]/x",
            "http://[::1]x/y",
            "http://[::1/x",
            "javascript:alert(1)",
        ] {
            assert!(check(uri).is_err(), "{uri}");
        }
    }
}
