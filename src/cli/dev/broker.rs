//! A broker in this process, from an empty directory to answering requests.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::Path;
use std::str::FromStr;

use tokio::sync::watch;

use super::directory::Directory;
use super::setup;
use crate::cli::error::CliError;
use crate::cli::server::Running;
use crate::client::{Client, Settings};
use crate::server::config::Config;
use crate::types::secret::SecretString;

/// Where a development broker keeps its records.
#[derive(Debug)]
pub enum Storage {
    /// A file in its directory.
    Sqlite,
    /// A PostgreSQL database, by its URL.
    Postgres(SecretString),
}

// The command line's parser wants to copy what it parsed.
impl Clone for Storage {
    fn clone(&self) -> Self {
        match self {
            Self::Sqlite => Self::Sqlite,
            Self::Postgres(url) => Self::Postgres(url.duplicate()),
        }
    }
}

impl FromStr for Storage {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "sqlite" {
            Ok(Self::Sqlite)
        } else if text.starts_with("postgres://") || text.starts_with("postgresql://") {
            Ok(Self::Postgres(SecretString::new(text.to_owned())))
        } else {
            Err("write sqlite, or a URL that begins with postgres://")
        }
    }
}

/// A running broker.
pub struct Broker {
    directory: Directory,
    address: String,
    server: Running,
}

impl Broker {
    /// Makes or reopens the broker in `dir` and starts it, on the storage it had before unless told
    /// otherwise; when this returns it answers requests.
    ///
    /// # Errors
    /// Whatever keeps it from starting.
    pub async fn start(
        dir: &Path,
        listen: &str,
        storage: Option<Storage>,
        hangup: watch::Receiver<u64>,
    ) -> Result<Self, CliError> {
        let listen = resolved(listen)?;
        let directory = Directory::prepare(dir, listen)?;
        let path = directory.configure(listen, &directory.storage(storage)?)?;
        let config = Config::load(&path)
            .map_err(|error| CliError::local(error.to_string(), "choose another -dir"))?;
        let server = Running::start(&config, hangup).await?;
        let address = format!("https://{}", reachable(server.address()));
        let broker = Self { directory, address, server };
        broker.open().await?;
        Ok(broker)
    }

    async fn open(&self) -> Result<(), CliError> {
        let mut admin = self.client("admin")?;
        setup::unseal(&admin, &self.directory).await?;
        let furnished = self.directory.file("furnished");
        if !furnished.exists() {
            admin.set_token(Some(self.directory.root_token()?));
            let ca = self.directory.file("ca.pem");
            let ca = std::fs::read_to_string(&ca)
                .map_err(CliError::system(format!("cannot read {}", ca.display())))?;
            setup::furnish(&admin, &ca).await?;
            crate::cli::ca::write_private(&furnished, b"")?;
        }
        Ok(())
    }

    /// Its base address.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Its directory.
    pub fn dir(&self) -> &Path {
        self.directory.path()
    }

    /// A client that presents the certificate `NAME.pem` of the directory and no token.
    ///
    /// # Errors
    /// When there is no such certificate.
    pub fn client(&self, name: &str) -> Result<Client, CliError> {
        Ok(Client::new(Settings {
            address: self.address.clone(),
            ca_cert: Some(self.directory.file("ca.pem")),
            client_cert: Some(self.directory.file(&format!("{name}.pem"))),
            client_key: Some(self.directory.file(&format!("{name}.key"))),
            ..Settings::default()
        })?)
    }

    /// Waits for an end that nobody asked for.
    pub async fn ended(&mut self) -> CliError {
        self.server.ended().await
    }

    /// Stops it, after the requests in progress.
    ///
    /// # Errors
    /// When it does not end well.
    pub async fn stop(self) -> Result<(), CliError> {
        self.server.stop().await
    }
}

fn resolved(listen: &str) -> Result<SocketAddr, CliError> {
    let wrong = || {
        CliError::local(
            format!("\"{listen}\" is not an address to listen on"),
            "write host:port, for example 127.0.0.1:8200",
        )
    };
    listen.to_socket_addrs().map_err(|_| wrong())?.next().ok_or_else(wrong)
}

/// Where a client on this machine finds a listener.
fn reachable(bound: SocketAddr) -> SocketAddr {
    let mut address = bound;
    if address.ip().is_unspecified() {
        address.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
    }
    address
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn storage_is_sqlite_or_a_postgres_url() {
        assert!(matches!("sqlite".parse(), Ok(Storage::Sqlite)));
        assert!(matches!("postgres://h/db".parse(), Ok(Storage::Postgres(_))));
        assert!("mysql://h/db".parse::<Storage>().is_err());
        assert!("/some/file".parse::<Storage>().is_err());
    }

    #[test]
    fn a_listener_on_every_interface_is_reached_on_this_machine() {
        assert_eq!(reachable("0.0.0.0:1".parse().unwrap()).to_string(), "127.0.0.1:1");
        assert_eq!(reachable("[::]:1".parse().unwrap()).to_string(), "127.0.0.1:1");
        assert_eq!(reachable("10.0.0.1:1".parse().unwrap()).to_string(), "10.0.0.1:1");
    }
}
