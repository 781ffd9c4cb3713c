//! The keys that other servers publish, and what an identity provider says of itself (OpenID Connect
//! Discovery 1.0): fetched when they are needed, kept while they are good.
//!
//! Log-ins are public, so a flood of them must not become a flood of requests: whatever a token says,
//! a provider is asked no more than once in [`PAUSE`] by each mount and node. When it cannot be asked,
//! the keys that were good go on being good, and for a day at the most.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use serde_json::{Map, Value};
use tokio::sync::Mutex;

use crate::core::outgoing::{Outgoing, OutgoingError, OutgoingRequest, Payload};
use crate::crypto::jose::{KeySet, parse_object};
use crate::types::time::{Clock, Timestamp, Ttl};

/// Largest document, in bytes.
pub(in crate::auth) const DOCUMENT_BYTES_MAX: usize = 512 * 1024;
/// Longest URL that a provider names.
const URL_BYTES_MAX: usize = 2048;
/// How old keys become before they are fetched again.
pub(in crate::auth) const FRESH: Ttl = Ttl::from_secs(15 * 60);
/// How old keys become at most when they cannot be fetched.
pub(in crate::auth) const KEPT: Ttl = Ttl::from_secs(24 * 3600);
/// Shortest time between the end of an attempt to fetch and the next.
pub(in crate::auth) const PAUSE: Ttl = Ttl::from_secs(10);

/// Where keys are, with the authorities (PEM) of the servers in question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::auth) enum Source {
    /// A set of keys.
    Keys { url: String, authorities: String },
    /// A provider that says where they are.
    Issuer { url: String, authorities: String },
}

/// What was fetched.
pub(in crate::auth) struct Provider {
    pub(in crate::auth) keys: KeySet,
    /// Of an issuer.
    pub(in crate::auth) discovery: Option<Discovery>,
}

/// What an identity provider says of itself.
#[derive(Clone, Debug)]
pub(in crate::auth) struct Discovery {
    pub(in crate::auth) issuer: String,
    pub(in crate::auth) authorization_endpoint: Option<String>,
    pub(in crate::auth) token_endpoint: Option<String>,
    pub(in crate::auth) userinfo_endpoint: Option<String>,
    /// How clients may prove who they are to the token endpoint.
    pub(in crate::auth) client_authentication: Vec<String>,
}

struct Kept {
    source: Source,
    provider: Arc<Provider>,
    fetched_at: Timestamp,
}

/// The providers of one mount: the one that its configuration names.
pub(in crate::auth) struct Providers {
    outgoing: Arc<dyn Outgoing>,
    kept: ArcSwapOption<Kept>,
    /// What was tried last, and when that ended. Held while fetching.
    tried: Mutex<Option<(Source, Timestamp)>>,
}

impl Providers {
    pub(in crate::auth) fn new(outgoing: Arc<dyn Outgoing>) -> Self {
        Self { outgoing, kept: ArcSwapOption::empty(), tried: Mutex::new(None) }
    }

    pub(in crate::auth) fn outgoing(&self) -> &dyn Outgoing {
        self.outgoing.as_ref()
    }

    /// Fetches at once, for whoever has just named `source`, and keeps what comes.
    pub(in crate::auth) async fn fetch(
        &self,
        source: &Source,
        now: Timestamp,
    ) -> Result<Arc<Provider>, OutgoingError> {
        let provider = Arc::new(fetch(self.outgoing(), source).await?);
        let kept = Kept { source: source.clone(), provider: provider.clone(), fetched_at: now };
        self.kept.store(Some(Arc::new(kept)));
        Ok(provider)
    }

    /// What `source` publishes: as it was, if that is new enough and `suffices`, else fetched, unless
    /// that was tried a moment ago.
    pub(in crate::auth) async fn get(
        &self,
        source: &Source,
        clock: &dyn Clock,
        suffices: impl Fn(&Provider) -> bool,
    ) -> Result<Arc<Provider>, OutgoingError> {
        let now = clock.now();
        let kept = self.kept(source, now);
        if let Some(kept) = &kept
            && suffices(&kept.provider)
        {
            let age = now.millis_since(kept.fetched_at);
            if (0..FRESH.as_millis()).contains(&age) {
                return Ok(kept.provider.clone());
            }
            // Old, and good for now: one of the log-ins fetches, the others do not wait for it.
            let Ok(tried) = self.tried.try_lock() else { return Ok(kept.provider.clone()) };
            return match self.attempt(tried, source, clock).await {
                Some(Ok(provider)) => Ok(provider),
                Some(Err(error)) => {
                    tracing::warn!(%error, "the keys of an identity provider were not renewed");
                    Ok(kept.provider.clone())
                }
                None => Ok(kept.provider.clone()),
            };
        }
        let tried = self.tried.lock().await;
        // Somebody else may have fetched while this waited.
        if let Some(kept) = self.kept(source, clock.now())
            && suffices(&kept.provider)
        {
            return Ok(kept.provider.clone());
        }
        let attempt = self.attempt(tried, source, clock).await;
        if let Some(Err(error)) = &attempt {
            tracing::warn!(%error, "the keys of an identity provider were not fetched");
        }
        match (attempt, kept) {
            (Some(Ok(provider)), _) => Ok(provider),
            // What is known does not suffice; the caller finds that out.
            (_, Some(kept)) => Ok(kept.provider.clone()),
            (Some(Err(error)), None) => Err(error),
            (None, None) => Err(OutgoingError::Failed("could not be asked a moment ago".into())),
        }
    }

    /// Fetches, unless that was tried a moment ago.
    async fn attempt(
        &self,
        mut tried: tokio::sync::MutexGuard<'_, Option<(Source, Timestamp)>>,
        source: &Source,
        clock: &dyn Clock,
    ) -> Option<Result<Arc<Provider>, OutgoingError>> {
        // Read here: whoever waited for the lock may have waited for long. A clock that was set back
        // makes no attempt older.
        let began = clock.now();
        let lately = tried.as_ref().is_some_and(|(last, ended)| {
            last == source && began.millis_since(*ended) < PAUSE.as_millis()
        });
        if lately {
            return None;
        }
        // Noted twice, because an attempt may be cut off.
        *tried = Some((source.clone(), began));
        let fetched = self.fetch(source, began).await;
        *tried = Some((source.clone(), clock.now()));
        Some(fetched)
    }

    fn kept(&self, source: &Source, now: Timestamp) -> Option<Arc<Kept>> {
        let kept = self.kept.load_full()?;
        let good = kept.source == *source && now < kept.fetched_at.plus(KEPT);
        good.then_some(kept)
    }
}

/// A document that another server publishes, as a JSON object.
pub(in crate::auth) async fn document(
    outgoing: &dyn Outgoing,
    url: &str,
    authorities: &str,
) -> Result<Vec<u8>, OutgoingError> {
    let request = OutgoingRequest {
        url,
        authorities,
        authorization: None,
        payload: Payload::None,
        answer_bytes_max: DOCUMENT_BYTES_MAX,
    };
    let answer = outgoing.send(request).await?;
    match answer.status {
        200 => Ok(answer.body.expose().to_vec()),
        status => Err(OutgoingError::Failed(format!("answered with status {status}"))),
    }
}

async fn fetch(outgoing: &dyn Outgoing, source: &Source) -> Result<Provider, OutgoingError> {
    match source {
        Source::Keys { url, authorities } => {
            Ok(Provider { keys: keys(outgoing, url, authorities).await?, discovery: None })
        }
        Source::Issuer { url, authorities } => {
            let about = format!("{}/.well-known/openid-configuration", url.trim_end_matches('/'));
            let about = document(outgoing, &about, authorities).await?;
            let (discovery, keys_url) = discovered(&about, url)?;
            let keys = keys(outgoing, &keys_url, authorities).await?;
            Ok(Provider { keys, discovery: Some(discovery) })
        }
    }
}

async fn keys(
    outgoing: &dyn Outgoing,
    url: &str,
    authorities: &str,
) -> Result<KeySet, OutgoingError> {
    let set = document(outgoing, url, authorities).await?;
    KeySet::from_jwks(&set).map_err(|error| OutgoingError::Failed(error.to_string()))
}

/// What a provider says of itself, and where its keys are.
fn discovered(document: &[u8], url: &str) -> Result<(Discovery, String), OutgoingError> {
    let failed = |text: &str| OutgoingError::Failed(text.to_owned());
    let about = parse_object(document).map_err(|_| failed("does not describe itself in JSON"))?;
    // OpenID Connect Discovery §4.3: otherwise one provider could speak for another.
    let issuer = url_at(&about, "issuer")?.unwrap_or_default();
    if issuer != url {
        return Err(failed("says that it is the issuer of another URL than this, to the letter"));
    }
    let keys =
        url_at(&about, "jwks_uri")?.ok_or_else(|| failed("does not say where its keys are"))?;
    let methods = match about.get("token_endpoint_auth_methods_supported") {
        // §3: what is meant when nothing is said.
        None => vec!["client_secret_basic".to_owned()],
        Some(methods) => {
            let methods = methods.as_array().into_iter().flatten();
            methods.filter_map(Value::as_str).map(str::to_owned).collect()
        }
    };
    let discovery = Discovery {
        issuer,
        authorization_endpoint: url_at(&about, "authorization_endpoint")?,
        token_endpoint: url_at(&about, "token_endpoint")?,
        userinfo_endpoint: url_at(&about, "userinfo_endpoint")?,
        client_authentication: methods,
    };
    Ok((discovery, keys))
}

fn url_at(about: &Map<String, Value>, name: &str) -> Result<Option<String>, OutgoingError> {
    match about.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(url)) if url.len() <= URL_BYTES_MAX => Ok(Some(url.clone())),
        Some(_) => Err(OutgoingError::Failed(format!("has no usable {name}"))),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use async_trait::async_trait;

    use super::*;
    use crate::core::outgoing::OutgoingAnswer;
    use crate::core::scratch::NOW;
    use crate::types::time::ManualClock;

    /// A provider that takes half a minute to fail.
    struct Slow {
        clock: Arc<ManualClock>,
        asked: AtomicUsize,
    }

    #[async_trait]
    impl Outgoing for Slow {
        async fn send(&self, _: OutgoingRequest<'_>) -> Result<OutgoingAnswer, OutgoingError> {
            self.asked.fetch_add(1, Ordering::SeqCst);
            self.clock.advance(Duration::from_secs(30));
            Err(OutgoingError::Failed("did not answer in time".into()))
        }

        fn check(&self, _: &str) -> Result<(), OutgoingError> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn a_slow_provider_is_left_alone_after_it_failed_and_not_while_it_does() {
        let clock = Arc::new(ManualClock::new(NOW));
        let slow = Arc::new(Slow { clock: clock.clone(), asked: AtomicUsize::new(0) });
        let providers = Providers::new(slow.clone());
        let url = "https://keys.example.org/".to_owned();
        let source = Source::Keys { url, authorities: String::new() };
        let get = async || providers.get(&source, clock.as_ref(), |_| true).await.is_err();
        let asked = || slow.asked.load(Ordering::SeqCst);
        // Those that waited for the first come when it has just ended.
        assert!(get().await && get().await && get().await);
        assert_eq!(asked(), 1);
        clock.advance(Duration::from_millis(9_999));
        assert!(get().await);
        assert_eq!(asked(), 1);
        clock.advance(Duration::from_millis(1));
        assert!(get().await);
        assert_eq!(asked(), 2);
        // A clock that is set back is no reason to ask.
        clock.set_wall(NOW);
        assert!(get().await);
        assert_eq!(asked(), 2);
    }
}
