//! An HTTPS client for this server's API: certificates both ways, one answer per request.
//!
//! Speaks HTTP/1.1 over TLS 1.2 or 1.3 and nothing else; plain HTTP is refused. Connections are
//! kept and reused. A request is sent once, unless the caller asks for retries of a read.

mod connection;
mod curl;
mod error;
mod request;
mod settings;
mod tls;

use std::time::Duration;

use serde_json::Value;

use crate::types::secret::{SecretString, fill_random};
use connection::{Address, Connections};
use curl::Files;

pub use error::{ClientError, Refusal};
pub use request::{Reply, Request, Verb};
pub use settings::{ADDRESS_DEFAULT, Settings, variable};

/// Attempts made for a read that may be retried, the first included.
const ATTEMPTS_MAX: u32 = 5;
/// Longest pause between two attempts, whatever the server asks for.
const PAUSE_MILLIS_MAX: u64 = 10_000;

/// A handle on one server. Cheap to use from several tasks at once.
pub struct Client {
    connections: Connections,
    token: Option<SecretString>,
    namespace: Option<String>,
    timeout: Duration,
    files: Files,
}

impl Client {
    /// Reads the certificate files that `settings` name and prepares TLS. Connects to nothing yet.
    ///
    /// # Errors
    /// A malformed address, an unreadable or malformed certificate or key.
    pub fn new(settings: Settings) -> Result<Self, ClientError> {
        let address = Address::parse(&settings.address, settings.server_name.as_deref())?;
        let tls = tls::connector(&settings)?;
        let files = Files {
            ca_cert: settings.ca_cert,
            client_cert: settings.client_cert,
            client_key: settings.client_key,
        };
        Ok(Self {
            files,
            connections: Connections::new(address, tls),
            token: settings.token,
            namespace: settings.namespace,
            timeout: settings.timeout,
        })
    }

    /// The base address, without a slash at the end.
    pub fn address(&self) -> &str {
        self.connections.address()
    }

    /// Presents `token` from now on, or only the certificate when `None`.
    pub fn set_token(&mut self, token: Option<SecretString>) {
        self.token = token;
    }

    /// The token that requests carry.
    pub fn token(&self) -> Option<&SecretString> {
        self.token.as_ref()
    }

    /// Whether requests carry a token.
    pub fn has_token(&self) -> bool {
        self.token.is_some()
    }

    /// `request` as a command line of curl: as it would be sent, but for tokens, which are not shown.
    pub fn curl(&self, request: &Request) -> String {
        let (token, namespace) = (self.token.as_ref(), self.namespace.as_deref());
        curl::command(request, self.address(), &self.files, token, namespace)
    }

    /// Sends `request` and waits for the whole answer.
    ///
    /// # Errors
    /// See [`ClientError`]; any status outside 200-299 is [`ClientError::Refused`].
    pub async fn send(&self, request: Request) -> Result<Reply, ClientError> {
        let attempts = if request.retry && request.verb.is_read() { ATTEMPTS_MAX } else { 1 };
        let mut attempt = 1;
        loop {
            let error = match self.send_once(&request).await {
                Ok(reply) => return Ok(reply),
                Err(error) => error,
            };
            match error.retry_after() {
                Some(pause) if attempt < attempts => {
                    tokio::time::sleep(backoff(attempt, pause)).await;
                    attempt += 1;
                }
                Some(_) | None => return Err(error),
            }
        }
    }

    async fn send_once(&self, request: &Request) -> Result<Reply, ClientError> {
        let message = request.to_http(
            self.connections.authority(),
            self.token.as_ref(),
            self.namespace.as_deref(),
        )?;
        let exchange = self.connections.exchange(message, request.verb.is_read());
        match tokio::time::timeout(self.timeout, exchange).await {
            Ok(answer) => Reply::from_answer(answer?),
            Err(_) => Err(ClientError::Timeout {
                address: self.address().to_owned(),
                secs: self.timeout.as_secs(),
            }),
        }
    }

    /// GET.
    ///
    /// # Errors
    /// As [`Client::send`].
    pub async fn read(&self, path: &str) -> Result<Reply, ClientError> {
        self.send(Request::new(Verb::Read, path)).await
    }

    /// GET with `list=true`, as every proxy passes on.
    ///
    /// # Errors
    /// As [`Client::send`].
    pub async fn list(&self, path: &str) -> Result<Reply, ClientError> {
        self.send(Request::new(Verb::List, path)).await
    }

    /// POST of a JSON body.
    ///
    /// # Errors
    /// As [`Client::send`].
    pub async fn write(&self, path: &str, body: Value) -> Result<Reply, ClientError> {
        self.send(Request::new(Verb::Write, path).body(body)).await
    }

    /// DELETE.
    ///
    /// # Errors
    /// As [`Client::send`].
    pub async fn delete(&self, path: &str) -> Result<Reply, ClientError> {
        self.send(Request::new(Verb::Delete, path)).await
    }
}

/// Doubles with every attempt, at least what the server asked for, with up to half as much again
/// at random so that many clients do not come back together.
fn backoff(attempt: u32, asked: Duration) -> Duration {
    let doubled = 100u64.saturating_mul(1 << attempt.min(10));
    let floor = u64::try_from(asked.as_millis()).unwrap_or(PAUSE_MILLIS_MAX);
    let base = doubled.max(floor).min(PAUSE_MILLIS_MAX);
    let mut random = [0u8; 4];
    // Without randomness the pause is merely not spread.
    let spread = match fill_random(&mut random) {
        Ok(()) => u64::from(u32::from_le_bytes(random)) % (base / 2 + 1),
        Err(_) => 0,
    };
    Duration::from_millis(base + spread)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_honour_the_server_and_stay_bounded() {
        for attempt in 1..40 {
            let pause = backoff(attempt, Duration::ZERO).as_millis();
            let base = (100u128 << attempt.min(10)).min(10_000);
            assert!(pause >= base && pause <= base + base / 2, "{attempt}: {pause}");
        }
        assert!(backoff(1, Duration::from_secs(3)) >= Duration::from_secs(3));
        assert!(backoff(1, Duration::from_secs(86_400)) <= Duration::from_secs(15));
    }
}
