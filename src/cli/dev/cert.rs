//! `leasehold dev cert`: client certificates of the throw-away authority.

use std::path::PathBuf;

use crate::cli::ca::{Authority, Subject};
use crate::cli::error::CliError;
use crate::cli::session::Process;
use crate::types::time::{Clock, SystemClock, Ttl};

/// `leasehold dev cert`
#[derive(Debug, clap::Args)]
pub struct Cert {
    /// Directory with ca.pem and ca.key
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// SPIFFE ID
    #[arg(long, value_name = "URI")]
    uri: Option<String>,
    /// DNS name; may be given several times
    #[arg(long, value_name = "NAME")]
    dns: Vec<String>,
    /// Common name
    #[arg(long, value_name = "NAME")]
    cn: Option<String>,
    /// Organizational unit
    #[arg(long, value_name = "NAME")]
    ou: Option<String>,
    /// How long it is valid
    #[arg(long, value_name = "DURATION", default_value = "24h")]
    ttl: String,
    /// Where to put it: NAME.pem and NAME.key in the directory
    #[arg(long, value_name = "NAME")]
    out: String,
}

impl Cert {
    pub(super) fn run(self, process: &mut Process) -> Result<(), CliError> {
        let ttl = match Ttl::parse(&self.ttl) {
            Ok(ttl) if !ttl.is_zero() => ttl,
            Ok(_) => return Err(CliError::local("-ttl is zero", "give for example -ttl 1h")),
            Err(error) => {
                return Err(CliError::local(format!("-ttl {error}"), "give for example -ttl 1h"));
            }
        };
        let name = self.out.strip_suffix(".pem").unwrap_or(&self.out);
        if matches!(name, "" | "ca" | "server") || name.ends_with('/') {
            return Err(CliError::local(
                format!("-out \"{}\" is not a name for a client certificate", self.out),
                "choose another name",
            ));
        }
        let authority = Authority::load(&self.dir)?;
        let subject = Subject {
            uri: self.uri,
            dns: self.dns,
            common_name: self.cn,
            organizational_unit: self.ou,
        };
        authority.client(&subject, ttl, SystemClock.now())?.save(&self.dir, name)?;
        let shown = self.dir.join(name);
        process.output.line(&format!("{}.pem", shown.display()))?;
        process.output.line(&format!("{}.key", shown.display()))
    }
}
