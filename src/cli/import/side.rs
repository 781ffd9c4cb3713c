//! The two servers of an import, each behind the same few calls.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::Mutex;
use tokio::time::{Interval, MissedTickBehavior};

use crate::cli::error::{CliError, with_causes};
use crate::cli::session::Environment;
use crate::client::{Client, ClientError, Refusal, Request, Settings, Verb};
use crate::types::secret::SecretString;

/// Names that are asked for at once.
const PAGE_NAMES: usize = 10_000;
/// How often a request that came too soon is sent again.
const ATTEMPTS_MAX: u32 = 8;
/// Longest pause before that, in seconds.
const PAUSE_SECS_MAX: u64 = 60;

/// Where the other server is, and who we are there.
#[derive(Debug, clap::Args)]
pub(super) struct From {
    /// Address of the Vault or OpenBao server to copy from, https://host:port
    #[arg(long, value_name = "URL")]
    from: String,
    /// File with the token to present there [env: LEASEHOLD_FROM_TOKEN, the token itself]
    #[arg(long, value_name = "FILE")]
    from_token_file: Option<PathBuf>,
    /// CA file to trust that server by [env: LEASEHOLD_FROM_CACERT]
    #[arg(long, value_name = "FILE")]
    from_ca_cert: Option<PathBuf>,
    /// Client certificate file for that server [env: LEASEHOLD_FROM_CLIENT_CERT]
    #[arg(long, value_name = "FILE")]
    from_client_cert: Option<PathBuf>,
    /// Client key file for that server [env: LEASEHOLD_FROM_CLIENT_KEY]
    #[arg(long, value_name = "FILE")]
    from_client_key: Option<PathBuf>,
    /// Name to expect in that server's certificate [env: LEASEHOLD_FROM_TLS_SERVER_NAME]
    #[arg(long, value_name = "NAME")]
    from_tls_server_name: Option<String>,
    /// Namespace there to copy from [env: LEASEHOLD_FROM_NAMESPACE]
    #[arg(long, value_name = "NAME")]
    from_namespace: Option<String>,
}

impl From {
    /// A client for it. Only variables of its own count, so that the two servers cannot be mixed up.
    ///
    /// # Errors
    /// No token; files that cannot be read.
    pub(super) fn client(&self, env: &Environment) -> Result<Client, CliError> {
        let text = |name: &str| env(&format!("LEASEHOLD_FROM_{name}")).filter(|v| !v.is_empty());
        let file = |given: &Option<PathBuf>, name| given.clone().or(text(name).map(PathBuf::from));
        let token = match &self.from_token_file {
            Some(path) => Some(
                std::fs::read_to_string(path)
                    .map_err(CliError::system(format!("cannot read {}", path.display())))?,
            ),
            None => text("TOKEN"),
        };
        let token = token.map(SecretString::new).ok_or_else(|| {
            CliError::local(
                "no token for the server to copy from",
                "set LEASEHOLD_FROM_TOKEN, or give -from-token-file",
            )
        })?;
        let settings = Settings {
            address: self.from.clone(),
            ca_cert: file(&self.from_ca_cert, "CACERT"),
            client_cert: file(&self.from_client_cert, "CLIENT_CERT"),
            client_key: file(&self.from_client_key, "CLIENT_KEY"),
            server_name: self.from_tls_server_name.clone().or(text("TLS_SERVER_NAME")),
            token: Some(SecretString::new(token.expose().trim().to_owned())),
            namespace: self.from_namespace.clone().or(text("NAMESPACE")),
            ..Settings::default()
        };
        Client::new(settings).map_err(|error| CliError::from(error).at("the server to copy from"))
    }
}

/// Why a call came to nothing.
pub(super) enum Trouble {
    /// This one thing was refused; others may go well.
    Refused {
        /// The HTTP status.
        status: u16,
        /// What the server said.
        reason: String,
    },
    /// No use in going on.
    Stop(CliError),
}

/// One server.
pub(super) struct Side<'c> {
    name: &'static str,
    client: &'c Client,
    pace: Option<Mutex<Interval>>,
    /// Whether the caller may ask who it is, by which an end of its token is noticed.
    knows_itself: bool,
}

impl<'c> Side<'c> {
    /// `name` is for people; at most `rate` requests are sent in a second, if that is not zero.
    pub(super) async fn new(name: &'static str, client: &'c Client, rate: u32) -> Self {
        let pace = (rate > 0).then(|| {
            let mut interval = tokio::time::interval(Duration::from_secs(1) / rate);
            interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
            Mutex::new(interval)
        });
        let knows_itself = client.read("auth/token/lookup-self").await.is_ok();
        Self { name, client, pace, knows_itself }
    }

    /// The data at `path`; `None` when there is none.
    pub(super) async fn read(&self, path: &str) -> Result<Option<Value>, Trouble> {
        let whole = self.ask(|| Request::new(Verb::Read, path).retried()).await?;
        Ok(whole.map(inner))
    }

    /// One version of a kv secret: its values; `None` when it has none any more.
    pub(super) async fn version(&self, path: &str, number: u64) -> Result<Option<Value>, Trouble> {
        let number = number.to_string();
        let request = || Request::new(Verb::Read, path).query("version", &number).retried();
        let data = self.ask(request).await?.map(inner);
        Ok(data.and_then(|mut data| data.get_mut("data").map(Value::take)).filter(Value::is_object))
    }

    /// The names below `path`; none when there is nothing.
    pub(super) async fn list(&self, path: &str) -> Result<Vec<String>, Trouble> {
        let whole = self.ask(|| Request::new(Verb::List, path).retried()).await?;
        Ok(names(whole))
    }

    /// The names below `path`, page by page where the server has pages; none when there is nothing.
    pub(super) async fn list_paged(&self, path: &str) -> Result<Vec<String>, Trouble> {
        let (limit, mut all) = (PAGE_NAMES.to_string(), BTreeSet::new());
        loop {
            let after: Option<String> = all.last().cloned();
            let request = || {
                let request = Request::new(Verb::List, path).query("limit", &limit).retried();
                after.iter().fold(request, |request, after| request.query("after", after))
            };
            let page = names(self.ask(request).await?);
            let (length, before) = (page.len(), all.len());
            all.extend(page);
            // A server without pages answers all of them, each time.
            if length != PAGE_NAMES || all.len() == before {
                return Ok(all.into_iter().collect());
            }
        }
    }

    /// Writes, and answers what the server warned of and what it answered.
    pub(super) async fn write(
        &self,
        path: &str,
        body: Value,
    ) -> Result<(Vec<String>, Value), Trouble> {
        for attempt in 1.. {
            self.wait().await;
            match self.client.write(path, body.clone()).await {
                Ok(reply) => {
                    let warnings = reply.warnings().map(str::to_owned).collect();
                    return Ok((warnings, inner(reply.body)));
                }
                Err(error) => self.again(error, attempt).await?,
            }
        }
        Ok((Vec::new(), Value::Null))
    }

    async fn ask(&self, request: impl Fn() -> Request) -> Result<Option<Value>, Trouble> {
        for attempt in 1.. {
            self.wait().await;
            match self.client.send(request()).await {
                Ok(reply) => return Ok(Some(reply.body)),
                Err(ClientError::Refused(refusal)) if refusal.status == 404 => return Ok(None),
                Err(error) => self.again(error, attempt).await?,
            }
        }
        Ok(None)
    }

    async fn wait(&self) {
        if let Some(pace) = &self.pace {
            pace.lock().await.tick().await;
        }
    }

    /// Waits if the request came too soon, which means that nothing was done; else judges.
    async fn again(&self, error: ClientError, attempt: u32) -> Result<(), Trouble> {
        if let ClientError::Refused(refusal) = &error
            && refusal.status == 429
            && attempt < ATTEMPTS_MAX
        {
            let pause = refusal.retry_after.unwrap_or(Duration::from_secs(1));
            tokio::time::sleep(pause.min(Duration::from_secs(PAUSE_SECS_MAX))).await;
            return Ok(());
        }
        Err(self.judge(error).await)
    }

    async fn judge(&self, error: ClientError) -> Trouble {
        let refused = |status, reason| Trouble::Refused { status, reason };
        match error {
            ClientError::Refused(refusal) => match refusal.status {
                429 | 502..=504 => self.stop(&ClientError::Refused(refusal)),
                403 if self.knows_itself && self.has_ended().await => {
                    self.stop(&ClientError::Refused(refusal))
                }
                status => refused(status, said(&refusal)),
            },
            error @ (ClientError::TooLarge { .. }
            | ClientError::NotJson { .. }
            | ClientError::Path(_)) => refused(0, error.to_string()),
            error @ (ClientError::Address { .. }
            | ClientError::File { .. }
            | ClientError::Pem { .. }
            | ClientError::HalfIdentity
            | ClientError::NoAuthorities
            | ClientError::Identity(_)
            | ClientError::HeaderValue(_)
            | ClientError::Connect { .. }
            | ClientError::ServerNotTrusted { .. }
            | ClientError::CertificateRefused { .. }
            | ClientError::Handshake { .. }
            | ClientError::Interrupted { .. }
            | ClientError::Timeout { .. }) => self.stop(&error),
        }
    }

    async fn has_ended(&self) -> bool {
        let asked = self.client.read("auth/token/lookup-self").await;
        asked.is_err_and(|error| error.status() == Some(403))
    }

    fn stop(&self, error: &ClientError) -> Trouble {
        Trouble::Stop(CliError::local(
            format!("{} does not go on: {}", self.name, with_causes(error)),
            "put that right and run the same command again: it goes on from there",
        ))
    }
}

/// Only what the server said; which request it was means nothing to who reads the report.
fn said(refusal: &Refusal) -> String {
    refusal.to_string()
}

/// The names that an answer lists.
fn names(whole: Option<Value>) -> Vec<String> {
    let keys = whole.map(inner).and_then(|data| data.get("keys").cloned());
    let keys = keys.as_ref().and_then(Value::as_array).cloned().unwrap_or_default();
    keys.into_iter().filter_map(|key| key.as_str().map(str::to_owned)).collect()
}

/// The data of an answer, or all of it where it has no envelope.
fn inner(mut body: Value) -> Value {
    match body.get_mut("data").map(Value::take) {
        Some(data) if !data.is_null() => data,
        Some(_) | None => body,
    }
}
