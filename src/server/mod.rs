//! The running server: configuration, TLS, connections, logs and metrics, and the process itself.
//! The only place that wires the parts together.
//!
//! Of a connection: `accept` takes it, `tls` shakes hands and makes the peer, `requests` bounds what
//! comes in, and the router that was handed to [`Listeners::serve`] answers.

pub mod accept;
pub mod audit_verify;
pub mod config;
pub mod crl_fetch;
mod facts;
pub mod files;
mod host;
pub mod key_text;
pub mod key_transfer;
pub mod listening;
pub mod openapi;
pub mod outgoing;
pub mod policy_text;
pub mod postgres_login;
pub mod process;
mod refusals;
pub mod reload;
mod requests;
pub mod run;
pub mod signals;
mod stacks;
pub mod telemetry;
pub mod tls;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::core::trust::TrustStore;
use crate::types::time::Clock;
use accept::{ConnectionLimits, Connections};
use config::Config;
use files::{FileError, Loaded};
use listening::Listening;
use reload::Reloader;
use tls::{ListenerTls, TlsError};

/// Every listener of the configuration, bound and not yet accepting.
pub struct Listeners {
    listening: Vec<Listening>,
    connections: Arc<Connections>,
    drain_timeout: Duration,
}

impl Listeners {
    /// Loads certificates and bundles, and binds. The [`Reloader`] keeps what was loaded up to date;
    /// run it beside [`Listeners::serve`].
    ///
    /// # Errors
    /// Files that cannot be used, and addresses that cannot be bound.
    pub async fn bind(
        config: &Config,
        trust: Arc<TrustStore>,
        clock: Arc<dyn Clock>,
    ) -> Result<(Self, Reloader), BindError> {
        let limits = ConnectionLimits::from_config(config);
        let mut reloader = reload::load_bundles(&config.trust, trust.clone())?;
        let mut listening = Vec::with_capacity(config.listeners.len());
        for listener in &config.listeners {
            let Loaded { digest, value } = files::load_identity(listener);
            let tls = ListenerTls::new(
                value?,
                listener.client_certificate,
                trust.clone(),
                clock.clone(),
            )?;
            let tls = Arc::new(tls);
            reloader.watch_listener(listener, digest, tls.clone());
            let unbound = |source| BindError::Address { address: listener.address.clone(), source };
            let bound = Listening::bind(&listener.name, &listener.address, tls).await;
            listening.push(bound.map_err(unbound)?);
        }
        let connections = Connections::new(limits, clock);
        let drain_timeout = config.server.drain_timeout.duration();
        Ok((Self { listening, connections, drain_timeout }, reloader))
    }

    /// The name and address of each listener.
    ///
    /// # Errors
    /// When the system does not tell.
    pub fn addresses(&self) -> io::Result<Vec<(Arc<str>, SocketAddr)>> {
        self.listening.iter().map(|one| Ok((one.name().clone(), one.address()?))).collect()
    }

    /// The connections of all listeners, for closing them on seal.
    pub fn connections(&self) -> Arc<Connections> {
        self.connections.clone()
    }

    /// Serves `app` on every listener until `stop`; returns when every connection is closed.
    pub async fn serve(self, app: Router, stop: CancellationToken) {
        let mut accepting = JoinSet::new();
        for one in self.listening {
            accepting.spawn(one.serve(app.clone(), self.connections.clone(), stop.clone()));
        }
        while let Some(ended) = accepting.join_next().await {
            // The error of a panic would quote what it was about.
            if let Err(error) = ended.unwrap_or_else(|_| Err(io::Error::other("it panicked"))) {
                tracing::error!(%error, "a listener has ended, and the server with it");
                stop.cancel();
            }
        }
        self.connections.drain(self.drain_timeout).await;
    }
}

/// Why the server does not listen.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// An address that cannot be bound.
    #[error("cannot listen on {address}")]
    Address {
        /// The address.
        address: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A file that cannot be used.
    #[error(transparent)]
    File(#[from] FileError),
    /// TLS that cannot be set up.
    #[error(transparent)]
    Tls(#[from] TlsError),
}
