//! Where revocation lists are fetched from that are named by a URL. The core and the auth methods
//! know no network: the server brings this.

use async_trait::async_trait;

use crate::types::time::Ttl;

/// Fetches revocation lists.
#[async_trait]
pub trait CrlSource: Send + Sync + 'static {
    /// The bytes at `url`, in PEM or DER, unjudged. Bounded in size and time.
    ///
    /// # Errors
    /// `Refused` before anything is sent, `Failed` afterwards.
    async fn fetch(&self, url: &str) -> Result<Vec<u8>, CrlSourceError>;

    /// How old a fetched list may become before it is fetched again.
    fn refresh_every(&self) -> Ttl;
}

/// Why a list was not fetched. The texts hold nothing of what was received.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CrlSourceError {
    /// The URL is none that may be fetched.
    #[error("{0}")]
    Refused(String),
    /// Its host did not answer with a list.
    #[error("{0}")]
    Failed(String),
}

/// Fetches nothing: for tests of what needs no network.
#[cfg(test)]
pub(crate) struct NoCrlSource;

#[cfg(test)]
#[async_trait]
impl CrlSource for NoCrlSource {
    async fn fetch(&self, _url: &str) -> Result<Vec<u8>, CrlSourceError> {
        Err(CrlSourceError::Refused("is not fetched".into()))
    }

    fn refresh_every(&self) -> Ttl {
        Ttl::MAX
    }
}
