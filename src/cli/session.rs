//! One command's view of the server: connection flags, the stored token, prompts.

use std::io::Read;
use std::path::PathBuf;

use clap::ValueEnum;
use serde_json::Value;

use super::error::CliError;
use super::output::{Format, Output};
use super::token_file::TokenFile;
use super::values;
use crate::client::{Client, Reply, Request, Settings, Verb, variable};
use crate::server::openapi;
use crate::types::secret::SecretString;

/// Flags that every command takes.
#[derive(Debug, Default, clap::Args)]
#[command(next_help_heading = "Connection and output")]
pub struct GlobalFlags {
    /// Server address, https://host:port [env: LEASEHOLD_ADDR]
    #[arg(long, global = true, value_name = "URL")]
    pub address: Option<String>,
    /// CA file to trust the server by [env: LEASEHOLD_CACERT]
    #[arg(long, global = true, value_name = "FILE")]
    pub ca_cert: Option<PathBuf>,
    /// Client certificate file [env: LEASEHOLD_CLIENT_CERT]
    #[arg(long, global = true, value_name = "FILE")]
    pub client_cert: Option<PathBuf>,
    /// Client key file [env: LEASEHOLD_CLIENT_KEY]
    #[arg(long, global = true, value_name = "FILE")]
    pub client_key: Option<PathBuf>,
    /// Name to expect in the server's certificate [env: LEASEHOLD_TLS_SERVER_NAME]
    #[arg(long, global = true, value_name = "NAME")]
    pub tls_server_name: Option<String>,
    /// Namespace [env: LEASEHOLD_NAMESPACE]
    #[arg(long, global = true, value_name = "NAME")]
    pub namespace: Option<String>,
    /// Present the certificate alone, whatever token is set or stored
    #[arg(long, global = true)]
    pub no_token: bool,
    /// Have the answer wrapped in a single-use token that lives this long [env: LEASEHOLD_WRAP_TTL]
    #[arg(long, global = true, value_name = "DURATION")]
    pub wrap_ttl: Option<String>,
    /// Form of the output [env: LEASEHOLD_FORMAT] [default: table]
    #[arg(long, global = true, value_enum, value_name = "FORM")]
    pub format: Option<Format>,
    /// Print this field alone, exactly as it is
    #[arg(long, global = true, value_name = "NAME")]
    pub field: Option<String>,
    /// Print the request as a command line of curl, with no token in it, instead of sending it
    #[arg(long, global = true, conflicts_with = "output_policy")]
    pub output_curl_string: bool,
    /// Print the policy that the request needs instead of sending it
    #[arg(long, global = true)]
    pub output_policy: bool,
}

impl GlobalFlags {
    /// The form of the output: as the flag says, else as the environment does.
    ///
    /// # Errors
    /// A form in the environment that there is not.
    pub fn format(&self, process: &Process) -> Result<Format, CliError> {
        if let Some(format) = self.format {
            return Ok(format);
        }
        let Some((name, text)) = variable(&process.env, "FORMAT") else {
            return Ok(Format::default());
        };
        Format::from_str(&text, true).map_err(|_| {
            CliError::local(format!("{name} is none of table, json, yaml"), format!("unset {name}"))
        })
    }
}

/// Looks up an environment variable.
pub type Environment = Box<dyn Fn(&str) -> Option<String> + Send + Sync>;

/// The process around a command, so that tests can stand in for it.
pub struct Process {
    /// The environment it was started with.
    pub env: Environment,
    /// Standard input.
    pub stdin: Box<dyn Read + Send>,
    /// Whether a person types at `stdin`.
    pub stdin_is_terminal: bool,
    /// Where output goes.
    pub output: Output,
}

impl Process {
    /// `given`, or what `-` or a pipe brings on standard input, or what a person types unseen.
    ///
    /// # Errors
    /// Nothing given, or input that cannot be read.
    pub fn secret(&mut self, given: Option<&str>, prompt: &str) -> Result<SecretString, CliError> {
        let text = match given {
            Some("-") => values::text("-", self.stdin.as_mut())?,
            Some(text) => text.to_owned(),
            None if self.stdin_is_terminal => rpassword::prompt_password(prompt)
                .map_err(CliError::system("cannot read from the terminal"))?,
            None => values::text("-", self.stdin.as_mut())?,
        };
        let secret = SecretString::new(text);
        let trimmed = secret.expose().trim();
        if trimmed.is_empty() {
            return Err(CliError::local(
                format!("{} is empty", prompt.trim_end_matches([' ', ':']).to_lowercase()),
                "type it at the prompt, or pipe it into the command",
            ));
        }
        Ok(SecretString::new(trimmed.to_owned()))
    }
}

/// A connected command.
pub struct Session<'a> {
    /// The server.
    pub client: Client,
    /// The process around us.
    pub process: &'a mut Process,
    /// The file that `login` keeps its token in; `None` without a home directory.
    pub token_file: Option<TokenFile>,
    wrap_ttl: Option<String>,
    showing: Option<Showing>,
}

/// What is printed of a request that is not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Showing {
    /// A command line of curl.
    Curl,
    /// The policy that it needs.
    Policy,
}

impl<'a> Session<'a> {
    /// Puts flags before the environment before the stored token.
    ///
    /// # Errors
    /// Settings that make no sense, unreadable certificate files or token file.
    pub fn open(flags: GlobalFlags, process: &'a mut Process) -> Result<Self, CliError> {
        let mut settings = Settings::from_env(&process.env).map_err(|(name, reason)| {
            CliError::local(format!("{name} {reason}"), format!("correct or unset {name}"))
        })?;
        if let Some(address) = flags.address {
            settings.address = address;
        }
        settings.ca_cert = flags.ca_cert.or(settings.ca_cert);
        settings.client_cert = flags.client_cert.or(settings.client_cert);
        settings.client_key = flags.client_key.or(settings.client_key);
        settings.server_name = flags.tls_server_name.or(settings.server_name);
        settings.namespace = flags.namespace.or(settings.namespace);
        let token_file =
            (process.env)("HOME").filter(|home| !home.is_empty()).map(TokenFile::in_home);
        if flags.no_token {
            settings.token = None;
        } else if settings.token.is_none()
            && let Some(file) = &token_file
        {
            settings.token = file.load()?;
        }
        let wrap_ttl =
            flags.wrap_ttl.or_else(|| variable(&process.env, "WRAP_TTL").map(|(_, value)| value));
        let client = Client::new(settings)?;
        let showing = match (flags.output_curl_string, flags.output_policy) {
            (true, _) => Some(Showing::Curl),
            (false, true) => Some(Showing::Policy),
            (false, false) => None,
        };
        Ok(Self { client, process, token_file, wrap_ttl, showing })
    }

    /// Where output goes.
    pub fn output(&mut self) -> &mut Output {
        &mut self.process.output
    }

    /// Refuses to go on when a request was to be shown, for commands that make many.
    ///
    /// # Errors
    /// A local mistake.
    pub fn refuse_showing(&self) -> Result<(), CliError> {
        match self.showing {
            None => Ok(()),
            Some(_) => Err(CliError::local(
                "this command makes more than one request, which depend on each other",
                "leave out -output-curl-string and -output-policy",
            )),
        }
    }

    /// Sends a request, wrapped if `-wrap-ttl` says so.
    ///
    /// # Errors
    /// As [`Client::send`]; `Shown` when it was only to be shown.
    pub async fn send(&self, request: Request) -> Result<Reply, CliError> {
        let request = match &self.wrap_ttl {
            Some(ttl) => request.header("x-vault-wrap-ttl", ttl),
            None => request,
        };
        match self.showing {
            None => Ok(self.client.send(request).await?),
            Some(Showing::Curl) => Err(CliError::Shown(self.client.curl(&request))),
            Some(Showing::Policy) => Err(CliError::Shown(needed(&request))),
        }
    }

    /// GET.
    ///
    /// # Errors
    /// As [`Client::send`].
    pub async fn read(&self, path: &str) -> Result<Reply, CliError> {
        self.send(Request::new(Verb::Read, path)).await
    }

    /// LIST.
    ///
    /// # Errors
    /// As [`Client::send`].
    pub async fn list(&self, path: &str) -> Result<Reply, CliError> {
        self.send(Request::new(Verb::List, path)).await
    }

    /// POST.
    ///
    /// # Errors
    /// As [`Client::send`].
    pub async fn write(&self, path: &str, body: Value) -> Result<Reply, CliError> {
        self.send(Request::new(Verb::Write, path).body(body)).await
    }

    /// DELETE.
    ///
    /// # Errors
    /// As [`Client::send`].
    pub async fn delete(&self, path: &str) -> Result<Reply, CliError> {
        self.send(Request::new(Verb::Delete, path)).await
    }

    /// As [`Process::secret`].
    ///
    /// # Errors
    /// As [`Process::secret`].
    pub fn secret(&mut self, given: Option<&str>, prompt: &str) -> Result<SecretString, CliError> {
        self.process.secret(given, prompt)
    }
}

/// The policy that a request needs, in HCL.
fn needed(request: &Request) -> String {
    let (operation, mut capabilities) = match request.verb() {
        Verb::Read => ("read", vec!["read"]),
        Verb::List => ("list", vec!["list"]),
        Verb::Write => ("update", vec!["create", "update"]),
        Verb::Patch => ("patch", vec!["patch"]),
        Verb::Delete => ("delete", vec!["delete"]),
    };
    if openapi::needs_sudo(request.path(), operation) {
        capabilities.push("sudo");
    }
    // The strings of HCL are those of JSON.
    let path = Value::from(request.path());
    let names: Vec<String> = capabilities.iter().map(|name| format!("{name:?}")).collect();
    format!("path {path} {{\n  capabilities = [{}]\n}}", names.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_policy_of_a_request_names_sudo_where_the_server_asks_for_it() {
        for (verb, path, expected) in [
            (Verb::Read, "secret/data/a", r#"["read"]"#),
            (Verb::Write, "secret/data/a", r#"["create", "update"]"#),
            (Verb::Write, "sys/seal", r#"["create", "update", "sudo"]"#),
            (Verb::List, "sys/leases/lookup/a", r#"["list", "sudo"]"#),
            (Verb::Write, "sys/leases/lookup", r#"["create", "update"]"#),
            (Verb::List, "auth/token/accessors", r#"["list", "sudo"]"#),
            (Verb::Delete, "sys/mounts/a\"b", r#"["delete"]"#),
        ] {
            let text = needed(&Request::new(verb, path));
            let quoted = Value::from(path);
            assert_eq!(text, format!("path {quoted} {{\n  capabilities = {expected}\n}}"));
        }
    }
}
