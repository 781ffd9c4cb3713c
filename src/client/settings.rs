//! Where the server is and who we are, from flags and the environment.

use std::path::PathBuf;
use std::time::Duration;

use crate::types::secret::SecretString;
use crate::types::time::Ttl;

/// Where a server listens unless something else is said.
pub const ADDRESS_DEFAULT: &str = "https://127.0.0.1:8200";
/// Seconds that a whole request may take unless something else is said.
const TIMEOUT_SECS_DEFAULT: u64 = 60;

/// Everything a [`super::Client`] needs to know.
#[derive(Debug)]
pub struct Settings {
    /// `https://host:port`.
    pub address: String,
    /// PEM file of the authorities that may have signed the server's certificate; those of the
    /// system when absent.
    pub ca_cert: Option<PathBuf>,
    /// PEM file of our certificate and its chain.
    pub client_cert: Option<PathBuf>,
    /// PEM file of its private key.
    pub client_key: Option<PathBuf>,
    /// The name to expect in the server's certificate, when it is not the host of the address.
    pub server_name: Option<String>,
    /// The token to present; without one the certificate alone speaks.
    pub token: Option<SecretString>,
    /// The namespace to work in.
    pub namespace: Option<String>,
    /// How long a whole request may take.
    pub timeout: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            address: ADDRESS_DEFAULT.to_owned(),
            ca_cert: None,
            client_cert: None,
            client_key: None,
            server_name: None,
            token: None,
            namespace: None,
            timeout: Duration::from_secs(TIMEOUT_SECS_DEFAULT),
        }
    }
}

/// The first of `LEASEHOLD_*`, `BAO_*` and `VAULT_*` that is set and not empty, with its name.
/// `env` looks up one variable.
pub fn variable(env: &dyn Fn(&str) -> Option<String>, suffix: &str) -> Option<(String, String)> {
    ["LEASEHOLD_", "BAO_", "VAULT_"].iter().find_map(|prefix| {
        let name = format!("{prefix}{suffix}");
        env(&name).filter(|value| !value.is_empty()).map(|value| (name, value))
    })
}

impl Settings {
    /// What [`variable`] finds, then the defaults. `env` looks up one variable.
    ///
    /// # Errors
    /// The name of a variable whose value makes no sense, and why.
    pub fn from_env(env: &dyn Fn(&str) -> Option<String>) -> Result<Self, (String, &'static str)> {
        let either = |suffix: &str| variable(env, suffix);
        let text = |suffix: &str| either(suffix).map(|(_, value)| value);
        let timeout = match either("CLIENT_TIMEOUT") {
            None => Duration::from_secs(TIMEOUT_SECS_DEFAULT),
            Some((name, value)) => match Ttl::parse(&value) {
                Ok(ttl) if !ttl.is_zero() => ttl.into(),
                Ok(_) | Err(_) => return Err((name, "must be seconds or a duration like 1m30s")),
            },
        };
        Ok(Self {
            address: text("ADDR").unwrap_or_else(|| ADDRESS_DEFAULT.to_owned()),
            ca_cert: text("CACERT").map(PathBuf::from),
            client_cert: text("CLIENT_CERT").map(PathBuf::from),
            client_key: text("CLIENT_KEY").map(PathBuf::from),
            server_name: text("TLS_SERVER_NAME"),
            token: text("TOKEN").map(SecretString::new),
            namespace: text("NAMESPACE"),
            timeout,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn env(pairs: &[(&str, &str)]) -> impl Fn(&str) -> Option<String> {
        let map: HashMap<String, String> =
            pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        move |name| map.get(name).cloned()
    }

    #[test]
    fn our_own_names_win_and_the_stock_names_fill_the_gaps() {
        let settings = Settings::from_env(&env(&[
            ("LEASEHOLD_ADDR", "https://ours:1"),
            ("VAULT_ADDR", "https://theirs:1"),
            ("VAULT_CACERT", "/ca.pem"),
            ("BAO_CLIENT_KEY", "/bao.key"),
            ("VAULT_CLIENT_KEY", "/vault.key"),
            ("LEASEHOLD_TOKEN", ""),
            ("VAULT_TOKEN", "t"),
            ("VAULT_NAMESPACE", "team"),
            ("VAULT_CLIENT_TIMEOUT", "1m30s"),
        ]))
        .unwrap();
        assert_eq!(settings.address, "https://ours:1");
        assert_eq!(settings.ca_cert, Some(PathBuf::from("/ca.pem")));
        assert_eq!(settings.token.unwrap().expose(), "t");
        assert_eq!(settings.namespace.as_deref(), Some("team"));
        assert_eq!(settings.timeout, Duration::from_secs(90));
        assert_eq!(settings.client_key, Some(PathBuf::from("/bao.key")));
        assert_eq!(settings.client_cert, None);
    }

    #[test]
    fn nothing_set_means_the_defaults() {
        let settings = Settings::from_env(&env(&[])).unwrap();
        assert_eq!(settings.address, ADDRESS_DEFAULT);
        assert_eq!(settings.timeout, Duration::from_secs(60));
        assert!(settings.token.is_none());
    }

    #[test]
    fn a_timeout_that_makes_no_sense_is_named() {
        for value in ["0", "soon", "-1"] {
            let error = Settings::from_env(&env(&[("LEASEHOLD_CLIENT_TIMEOUT", value)]));
            assert_eq!(error.unwrap_err().0, "LEASEHOLD_CLIENT_TIMEOUT", "{value}");
        }
    }
}
