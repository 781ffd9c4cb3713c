//! `leasehold server`, and a server inside another command.

use std::net::SocketAddr;
use std::path::PathBuf;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::error::{CliError, with_causes};
use super::session::Process;
use crate::server::config::{Config, ConfigError, Problem};
use crate::server::telemetry::{self, Metrics};
use crate::server::{files, process as os, run, signals};

/// `leasehold server`
#[derive(Debug, clap::Args)]
pub struct Server {
    /// Configuration file
    #[arg(long, value_name = "FILE", default_value = "/etc/leasehold/leasehold.toml")]
    config: PathBuf,
    /// Report every problem of the configuration, or print what would be in effect, and exit
    #[arg(long)]
    check: bool,
    /// Begin at the machine's clock although the store has seen a later time: that time was wrong
    #[arg(long)]
    trust_clock: bool,
}

impl Server {
    /// Checks the configuration, or serves until told to stop.
    ///
    /// # Errors
    /// A configuration with problems, or whatever keeps the server from running.
    pub fn run(self, process: &mut Process) -> Result<(), CliError> {
        let config = match Config::load(&self.config) {
            Ok(config) => Config { trust_clock: self.trust_clock, ..config },
            Err(ConfigError::Unreadable { path, source }) => {
                return Err(CliError::system(format!("cannot read {}", path.display()))(source));
            }
            Err(ConfigError::Invalid { problems }) => return self.refuse(&problems, process),
        };
        if self.check {
            let problems = files::check(&config);
            if !problems.is_empty() {
                return self.refuse(&problems, process);
            }
            let text = config.to_toml().map_err(|error| {
                CliError::local(error.to_string(), "report this: the configuration itself is good")
            })?;
            process.output.line(text.trim_end())?;
            return process.output.note(&format!("{} is good.", self.config.display()));
        }
        super::multi_threaded()?.block_on(serve(&config))
    }

    fn refuse(&self, problems: &[Problem], process: &mut Process) -> Result<(), CliError> {
        let file = self.config.display();
        for problem in problems {
            process.output.note(&format!("{file}: {problem}"))?;
        }
        let count = match problems.len() {
            1 => "1 problem".to_owned(),
            count => format!("{count} problems"),
        };
        Err(CliError::local(
            format!("{file} has {count}"),
            "put right what is named above; config/leasehold.toml explains every key",
        ))
    }
}

async fn serve(config: &Config) -> Result<(), CliError> {
    let signals = signals::listen().map_err(CliError::system("cannot wait for signals"))?;
    let mut running = Running::start(config, signals.hangup).await?;
    os::notify_ready();
    let watchdog = tokio::spawn(os::keep_watchdog());
    tokio::select! {
        () = signals.stop.cancelled() => {}
        error = running.ended() => return Err(error),
    }
    os::notify_stopping();
    let stopped = running.stop().await;
    watchdog.abort();
    stopped
}

/// A server in this process.
pub struct Running {
    address: SocketAddr,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Running {
    /// Hardens the process, starts logging and metrics, and brings the server up; when this returns
    /// it answers requests. At most once in a process.
    ///
    /// # Errors
    /// Whatever keeps it from starting.
    pub async fn start(config: &Config, hangup: watch::Receiver<u64>) -> Result<Self, CliError> {
        telemetry::start_logging(config.server.log_format, &config.server.log_level)
            .map_err(|error| failed(&error))?;
        os::harden(config.server.lock_memory).map_err(|error| failed(&error))?;
        let metrics = Metrics::install().map_err(|error| failed(&error))?;
        let server =
            run::Server::start(config, &metrics, hangup).await.map_err(|error| failed(&error))?;
        let address = server.addresses().first().map(|(_, address)| *address);
        let address = address.ok_or(CliError::Answer("listener"))?;
        let stop = server.stop_token();
        Ok(Self { address, stop, task: tokio::spawn(server.wait()) })
    }

    /// Where its first listener listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits for an end that nobody asked for.
    pub async fn ended(&mut self) -> CliError {
        // Either way it is gone; why, it has logged.
        let _ = (&mut self.task).await;
        CliError::local("the server stopped by itself", "see what it logged before")
    }

    /// Stops it, after the requests in progress.
    ///
    /// # Errors
    /// When it did not come to an orderly end.
    pub async fn stop(self) -> Result<(), CliError> {
        self.stop.cancel();
        self.task.await.map_err(|error| failed(&error))
    }
}

fn failed(error: &dyn std::error::Error) -> CliError {
    CliError::local(
        format!("the server cannot run: {}", with_causes(error)),
        "put that right; leasehold server -check looks at a whole configuration",
    )
}
