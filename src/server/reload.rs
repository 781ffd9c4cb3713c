//! Keeps certificates, trust bundles and revocation lists as their files say.
//!
//! A reconciler: it looks at every file, on a signal and at an interval, and puts what changed into
//! effect. What cannot be used is logged once for each new content, counted, and leaves in effect
//! what was there before.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::config::{Listener, Trust};
use super::files::{self, FileError, Loaded};
use super::tls::ListenerTls;
use crate::core::supervise::count_panic;
use crate::core::trust::{TrustBundle, TrustStore};

/// What one look at the files led to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reloaded {
    /// How many certificates and bundles were put into effect.
    pub changed: usize,
    /// How many cannot be used as they are now.
    pub failing: usize,
}

/// Looks at the files behind the listeners and the trust store.
pub struct Reloader {
    identities: Vec<Watched<Listener, Arc<ListenerTls>>>,
    bundles: Vec<Watched<Trust, TrustBundle>>,
    trust: Arc<TrustStore>,
}

struct Watched<C, T> {
    config: C,
    digest: [u8; 32],
    failing: bool,
    current: T,
}

impl<C, T> Watched<C, T> {
    /// The new value when the content has changed and can be used. Content that loading cannot bear is
    /// like any other that cannot be used: the other files are still looked at.
    fn take_change<L>(&mut self, name: &str, load: impl FnOnce(&C) -> Loaded<L>) -> Option<L> {
        let Ok(loaded) = catch_unwind(AssertUnwindSafe(|| load(&self.config))) else {
            count_panic("reload");
            tracing::error!(%name, "not reloaded, it panicked: the old one stays in effect");
            self.failing = true;
            // Whatever comes next is something else.
            self.digest = [0; 32];
            return None;
        };
        if loaded.digest == self.digest {
            return None;
        }
        self.digest = loaded.digest;
        let usable = log_outcome(name, loaded.value);
        self.failing = usable.is_none();
        usable
    }
}

fn log_outcome<L>(name: &str, value: Result<L, FileError>) -> Option<L> {
    let outcome = if value.is_ok() { "ok" } else { "failed" };
    metrics::counter!("leasehold_reloads_total", "outcome" => outcome).increment(1);
    match value {
        Ok(value) => {
            tracing::info!(%name, "reloaded");
            Some(value)
        }
        Err(error) => {
            tracing::error!(%name, %error, "not reloaded: the old one stays in effect");
            None
        }
    }
}

/// The trust bundles of the configuration, loaded for the first time into `trust`.
pub(super) fn load_bundles(
    configured: &[Trust],
    trust: Arc<TrustStore>,
) -> Result<Reloader, FileError> {
    let mut bundles = Vec::with_capacity(configured.len());
    for config in configured {
        let Loaded { digest, value } = files::load_bundle(config);
        bundles.push(Watched { config: config.clone(), digest, failing: false, current: value? });
    }
    trust.set_bundles(bundles.iter().map(|bundle| bundle.current.clone()).collect());
    Ok(Reloader { identities: Vec::new(), bundles, trust })
}

impl Reloader {
    /// Watches the files of a listener as well, whose `identity` has just been loaded into `tls`.
    pub(super) fn watch_listener(
        &mut self,
        config: &Listener,
        digest: [u8; 32],
        tls: Arc<ListenerTls>,
    ) {
        let config = config.clone();
        self.identities.push(Watched { config, digest, failing: false, current: tls });
    }

    /// Looks at every file once. Blocks on the file system.
    pub fn look(&mut self) -> Reloaded {
        let mut seen = Reloaded::default();
        for listener in &mut self.identities {
            let name = format!("listener {}", listener.config.name);
            if let Some(identity) = listener.take_change(&name, files::load_identity) {
                listener.current.replace_identity(identity);
                seen.changed += 1;
            }
            seen.failing += usize::from(listener.failing);
        }
        let mut bundles_changed = 0;
        for bundle in &mut self.bundles {
            let name = format!("trust {}", bundle.config.name);
            if let Some(value) = bundle.take_change(&name, files::load_bundle) {
                bundle.current = value;
                bundles_changed += 1;
            }
            seen.failing += usize::from(bundle.failing);
        }
        if bundles_changed > 0 {
            let current = self.bundles.iter().map(|bundle| bundle.current.clone()).collect();
            self.trust.set_bundles(current);
        }
        seen.changed += bundles_changed;
        metrics::gauge!("leasehold_reloads_failing")
            .set(f64::from(u32::try_from(seen.failing).unwrap_or(u32::MAX)));
        seen
    }

    /// Looks at every `interval`, and whenever `hangup` changes. Runs until it is dropped.
    pub async fn run(self, interval: Duration, mut hangup: watch::Receiver<u64>) {
        let mut reloader = Some(self);
        loop {
            tokio::select! {
                () = tokio::time::sleep(interval) => {}
                Ok(()) = hangup.changed() => {}
            }
            let Some(mut mine) = reloader.take() else { return };
            // File systems may hang; the threads that serve requests must not.
            let looked = tokio::task::spawn_blocking(move || {
                mine.look();
                mine
            });
            match looked.await {
                Ok(back) => reloader = Some(back),
                Err(_) => tracing::error!("reloading has stopped"),
            }
        }
    }
}
