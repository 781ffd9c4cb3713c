//! Requests to other servers: to identity providers and the like. The core and the auth methods know
//! no network: the server brings this.

use async_trait::async_trait;

use crate::types::secret::{SecretBytes, SecretString};

/// Asks other servers, by HTTPS, or by HTTP on the loopback interface.
#[async_trait]
pub trait Outgoing: Send + Sync + 'static {
    /// Sends `request` and answers with whatever status came back. Redirects are not followed.
    ///
    /// # Errors
    /// `Refused` and `Busy` before anything is sent, `Failed` afterwards.
    async fn send(&self, request: OutgoingRequest<'_>) -> Result<OutgoingAnswer, OutgoingError>;

    /// Whether `url` is one that may be asked.
    ///
    /// # Errors
    /// `Refused`, saying why not.
    fn check(&self, url: &str) -> Result<(), OutgoingError>;
}

/// What is asked of another server.
pub struct OutgoingRequest<'a> {
    /// Where.
    pub url: &'a str,
    /// PEM: the authorities that the server's certificate is checked against. Empty for those that
    /// the configuration names.
    pub authorities: &'a str,
    /// The value of the `Authorization` header.
    pub authorization: Option<&'a SecretString>,
    /// What is sent.
    pub payload: Payload<'a>,
    /// Largest answer, in bytes.
    pub answer_bytes_max: usize,
}

/// What is sent with a request.
#[derive(Clone, Copy)]
pub enum Payload<'a> {
    /// Nothing: a GET.
    None,
    /// A POST of an HTML form, encoded already.
    Form(&'a SecretString),
    /// A POST of JSON.
    Json(&'a SecretBytes),
}

/// What came back.
#[derive(Debug)]
pub struct OutgoingAnswer {
    /// The HTTP status.
    pub status: u16,
    /// The body: tokens may be in it.
    pub body: SecretBytes,
}

/// Why there is no answer. The texts hold nothing of what was received.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OutgoingError {
    /// The URL is none that may be asked, or the authorities cannot be read.
    #[error("{0}")]
    Refused(String),
    /// The server could not be reached or trusted, or did not answer properly or in time.
    #[error("{0}")]
    Failed(String),
    /// Too many requests are under way.
    #[error("too many requests to other servers are under way")]
    Busy,
}
