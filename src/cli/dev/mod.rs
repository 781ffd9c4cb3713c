//! `leasehold dev`: a whole broker for a developer's machine, with its own throw-away authority.

mod broker;
mod cert;
mod directory;
mod setup;

use std::path::{Path, PathBuf};

use super::error::CliError;
use super::session::Process;
use crate::server::signals;

pub use broker::{Broker, Storage};

/// `leasehold dev`
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Dev {
    #[command(flatten)]
    start: Start,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Make a client certificate
    Cert(cert::Cert),
}

#[derive(Debug, clap::Args)]
struct Start {
    /// Where everything is kept; a later start goes on with it [default: ~/.leasehold-dev]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Address and port to listen on
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8200")]
    listen: String,
    /// sqlite, or the postgres:// URL of an empty database [default: as before, at first sqlite]
    #[arg(long, value_name = "KIND")]
    storage: Option<Storage>,
}

impl Dev {
    /// Makes a certificate, or starts a broker and runs it until it is told to stop.
    ///
    /// # Errors
    /// Whatever keeps the broker from starting or a certificate from being made.
    pub fn run(self, process: &mut Process) -> Result<(), CliError> {
        match self.command {
            Some(Command::Cert(command)) => command.run(process),
            None => super::multi_threaded()?.block_on(self.start.run(process)),
        }
    }
}

impl Start {
    async fn run(self, process: &mut Process) -> Result<(), CliError> {
        let dir = match self.dir {
            Some(dir) => dir,
            None => (process.env)("HOME")
                .filter(|home| !home.is_empty())
                .map(|home| Path::new(&home).join(".leasehold-dev"))
                .ok_or_else(|| {
                    CliError::local("there is no home directory to keep the broker in", "give -dir")
                })?,
        };
        let signals = signals::listen().map_err(CliError::system("cannot wait for signals"))?;
        let mut broker = Broker::start(&dir, &self.listen, self.storage, signals.hangup).await?;
        for line in pasteable(&broker) {
            process.output.line(&line)?;
        }
        process.output.line(&format!("ready {}", broker.address()))?;
        tokio::select! {
            () = signals.stop.cancelled() => broker.stop().await,
            error = broker.ended() => Err(error),
        }
    }
}

fn pasteable(broker: &Broker) -> Vec<String> {
    let file = |name: &str| quoted(&broker.dir().join(name).display().to_string());
    let program = std::env::current_exe()
        .map_or_else(|_| "leasehold".to_owned(), |path| quoted(&path.display().to_string()));
    let (address, ca) = (broker.address(), file("ca.pem"));
    let curl = |who: &str| {
        format!(
            "curl --cacert {ca} --cert {} --key {}",
            file(&format!("{who}.pem")),
            file(&format!("{who}.key"))
        )
    };
    let export = |who: &str| {
        format!(
            "export LEASEHOLD_ADDR={address} LEASEHOLD_CACERT={ca} LEASEHOLD_CLIENT_CERT={} \
             LEASEHOLD_CLIENT_KEY={}",
            file(&format!("{who}.pem")),
            file(&format!("{who}.key")),
        )
    };
    vec![
        "A broker for development. Its authority and its unseal keys lie in its directory:"
            .to_owned(),
        "do not keep real secrets in it.".to_owned(),
        String::new(),
        "# read a secret as a workload, with nothing but its certificate".to_owned(),
        format!("{} {address}/v1/secret/data/hello", curl("workload")),
        export("workload"),
        format!("{program} kv get secret/hello"),
        String::new(),
        "# look after the broker as its administrator".to_owned(),
        format!("{} {address}/v1/sys/mounts", curl("admin")),
        export("admin"),
        format!("{program} secrets list"),
        String::new(),
        "# make a certificate for another workload".to_owned(),
        format!(
            "{program} dev cert --dir {} --uri spiffe://{}/workload/web --out web",
            quoted(&broker.dir().display().to_string()),
            super::ca::TRUST_DOMAIN,
        ),
        String::new(),
    ]
}

/// For a POSIX shell, left alone where that is safe.
fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-:+=@%".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pasted_paths_survive_the_shell() {
        assert_eq!(quoted("/tmp/a-b/c.pem"), "/tmp/a-b/c.pem");
        assert_eq!(quoted("/tmp/my dir"), "'/tmp/my dir'");
        assert_eq!(quoted("it's"), r"'it'\''s'");
        assert_eq!(quoted("$HOME;x"), "'$HOME;x'");
    }
}
