//! Failures as a person sees them: what went wrong, and what to do next.

use crate::client::{ClientError, Refusal};

/// Exit status of a mistake on this side: nothing was asked of the server, or nothing came back.
pub const EXIT_LOCAL: u8 = 1;
/// Exit status when the server understood and refused, and of `status` on a sealed server.
pub const EXIT_REFUSED: u8 = 2;

/// Why a command did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The request to the server.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// A mistake that can be put right here.
    #[error("{what}")]
    Local {
        /// What is wrong.
        what: String,
        /// What to do about it.
        next: String,
    },
    /// The server took the request on, and it did not come to a good end yet.
    #[error("{what}")]
    Unfinished {
        /// What is not done.
        what: String,
        /// What to do about it.
        next: String,
    },
    /// A file or program on this machine.
    #[error("{what}")]
    System {
        /// What was being done.
        what: String,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
    /// The server answered, but not with what this command needs.
    #[error("the answer has no {0}")]
    Answer(&'static str),
    /// Our own output cannot be written.
    #[error("cannot write the output")]
    Output(#[source] std::io::Error),
    /// One of several things that a command does.
    #[error("{place}")]
    At {
        /// Which.
        place: String,
        /// Why it failed.
        #[source]
        source: Box<CliError>,
    },
    /// What was asked for instead of a request: how it would look. No failure.
    #[error("nothing was sent")]
    Shown(String),
    /// A comparison that came to no end, which must not look like one that found a difference.
    #[error("cannot tell whether anything differs")]
    Unchecked(#[source] Box<CliError>),
}

impl CliError {
    /// A mistake of the caller's, with what to do about it.
    pub fn local(what: impl Into<String>, next: impl Into<String>) -> Self {
        Self::Local { what: what.into(), next: next.into() }
    }

    /// Turns an I/O error into one that says what was being done.
    pub fn system(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        |source| Self::System { what, source }
    }

    /// The same, with which of several things failed.
    #[must_use]
    pub fn at(self, place: impl Into<String>) -> Self {
        Self::At { place: place.into(), source: Box::new(self) }
    }

    /// The exit status of the process.
    pub fn exit_code(&self) -> u8 {
        if let Self::At { source, .. } = self {
            return source.exit_code();
        }
        let refused =
            matches!(self, Self::Client(ClientError::Refused(_)) | Self::Unfinished { .. });
        if refused { EXIT_REFUSED } else { EXIT_LOCAL }
    }

    /// The status of a refusal, `None` for every other failure.
    pub fn status(&self) -> Option<u16> {
        self.refusal().map(|refusal| refusal.status)
    }

    /// What the server refused, if it did.
    fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Client(ClientError::Refused(refusal)) => Some(refusal),
            Self::At { source, .. } | Self::Unchecked(source) => source.refusal(),
            Self::Client(_)
            | Self::Local { .. }
            | Self::Unfinished { .. }
            | Self::System { .. }
            | Self::Answer(_)
            | Self::Shown(_)
            | Self::Output(_) => None,
        }
    }

    /// What is to be printed instead of having sent a request, if that was asked for.
    pub fn shown(&self) -> Option<&str> {
        match self {
            Self::Shown(text) => Some(text),
            Self::At { source, .. } | Self::Unchecked(source) => source.shown(),
            Self::Client(_)
            | Self::Local { .. }
            | Self::Unfinished { .. }
            | Self::System { .. }
            | Self::Answer(_)
            | Self::Output(_) => None,
        }
    }

    /// Whether nobody reads our output any more, so that nothing more need be said.
    pub fn is_broken_pipe(&self) -> bool {
        matches!(self, Self::Output(source) if source.kind() == std::io::ErrorKind::BrokenPipe)
    }

    /// One line: what failed, with its causes.
    pub fn what(&self) -> String {
        let mut out = with_causes(self);
        if let Some(id) = self.refusal().and_then(|refusal| refusal.request_id.as_ref()) {
            out.push_str(&format!(" [request {id}]"));
        }
        one_line(&out)
    }

    /// One line: what to do next.
    pub fn hint(&self) -> String {
        match self {
            Self::Client(error) => client_hint(error),
            Self::Local { next, .. } | Self::Unfinished { next, .. } => next.clone(),
            Self::System { source, .. } => system_hint(source.kind()).to_owned(),
            Self::Answer(_) => {
                "check that the address is a Leasehold server of this version".to_owned()
            }
            Self::Output(_) => "check where the output goes".to_owned(),
            Self::Shown(_) => "leave out -output-curl-string and -output-policy".to_owned(),
            Self::At { source, .. } | Self::Unchecked(source) => source.hint(),
        }
    }
}

fn system_hint(kind: std::io::ErrorKind) -> &'static str {
    if kind == std::io::ErrorKind::PermissionDenied {
        "run as a user who may, or name another file"
    } else if kind == std::io::ErrorKind::NotFound {
        "check the name"
    } else {
        "put that right and try again"
    }
}

/// An error and, each once, the causes behind it.
pub fn with_causes(error: &dyn std::error::Error) -> String {
    let mut out = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        // Some libraries repeat their cause in their own text.
        if !out.contains(&text) {
            out.push_str(": ");
            out.push_str(&text);
        }
        cause = error.source();
    }
    out
}

/// What a server sends may hold line breaks and terminal controls; our two lines must not.
fn one_line(text: &str) -> String {
    text.lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect::<Vec<_>>()
        .join("; ")
        .chars()
        .map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c })
        .collect()
}

fn client_hint(error: &ClientError) -> String {
    match error {
        ClientError::Address { .. } => {
            "set LEASEHOLD_ADDR or -address to https://host:port".to_owned()
        }
        ClientError::File { .. } | ClientError::Pem { .. } => {
            "check LEASEHOLD_CACERT, LEASEHOLD_CLIENT_CERT and LEASEHOLD_CLIENT_KEY".to_owned()
        }
        ClientError::HalfIdentity => {
            "set both LEASEHOLD_CLIENT_CERT and LEASEHOLD_CLIENT_KEY, or neither".to_owned()
        }
        ClientError::NoAuthorities => {
            "set LEASEHOLD_CACERT or -ca-cert to the CA that signed the server's certificate"
                .to_owned()
        }
        ClientError::Identity(_) => {
            "check that LEASEHOLD_CLIENT_KEY belongs to LEASEHOLD_CLIENT_CERT".to_owned()
        }
        ClientError::HeaderValue(what) => format!("check the {what} for line breaks and spaces"),
        ClientError::Path(_) => "write the path as mount/name, without a scheme".to_owned(),
        ClientError::Connect { address, .. } => format!(
            "is the server running at {address}? set LEASEHOLD_ADDR or -address if it is elsewhere"
        ),
        ClientError::ServerNotTrusted { .. } => {
            "set LEASEHOLD_CACERT or -ca-cert to the CA that signed the server's certificate, and \
             check that the address is a name in it"
                .to_owned()
        }
        ClientError::CertificateRefused { presented: false, .. } => {
            "present a client certificate: LEASEHOLD_CLIENT_CERT and LEASEHOLD_CLIENT_KEY"
                .to_owned()
        }
        ClientError::CertificateRefused { presented: true, .. } => {
            "check that the client certificate is in date, not revoked and from a CA that the \
             server trusts"
                .to_owned()
        }
        ClientError::Handshake { .. } => {
            "check that the address and port are a TLS listener of the server".to_owned()
        }
        ClientError::Interrupted { .. } | ClientError::Timeout { .. } => {
            "check the server, and whether the request took effect, before trying again".to_owned()
        }
        ClientError::TooLarge { .. } => "ask for less, for example with -limit".to_owned(),
        ClientError::NotJson { .. } => {
            "check that the address is this server's and not a proxy's".to_owned()
        }
        ClientError::Refused(refusal) => refusal_hint(refusal),
    }
}

fn refusal_hint(refusal: &Refusal) -> String {
    let says = |word: &str| refusal.errors.iter().any(|error| error.contains(word));
    match refusal.status {
        400 | 503 if says("not initialized") => "run: leasehold operator init".to_owned(),
        400 if says("check-and-set") => {
            "read the latest version, and give its number as -cas".to_owned()
        }
        400 => "check the names and values given; -h lists what the command takes".to_owned(),
        403 => "log in again if the token has ended, or ask an administrator for the capability: \
                `leasehold policy explain` says which is missing"
            .to_owned(),
        404 => "check the path; `leasehold list` shows what is there".to_owned(),
        405 => "this path does not support that operation".to_owned(),
        413 => "send less".to_owned(),
        429 => wait(refusal, "too much at once"),
        501 => "run: leasehold operator init".to_owned(),
        502 => "the system behind the server failed; check it, then try again".to_owned(),
        503 if says("sealed") => "run: leasehold operator unseal".to_owned(),
        503 => wait(refusal, "the server cannot answer now"),
        500..=599 => "look the request up in the server's log".to_owned(),
        _ => "look the request up in the server's log or audit".to_owned(),
    }
}

fn wait(refusal: &Refusal, why: &str) -> String {
    match refusal.retry_after {
        Some(pause) => format!("{why}; try again in {} s", pause.as_secs()),
        None => format!("{why}; try again later"),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn refused(status: u16, errors: &[&str]) -> CliError {
        CliError::Client(ClientError::Refused(Box::new(Refusal {
            status,
            errors: errors.iter().map(|e| (*e).to_owned()).collect(),
            request_id: Some("r-1".to_owned()),
            retry_after: Some(Duration::from_secs(3)),
            body: serde_json::Value::Null,
        })))
    }

    #[test]
    fn only_what_the_server_refused_exits_with_two() {
        assert_eq!(refused(403, &[]).exit_code(), EXIT_REFUSED);
        assert_eq!(CliError::local("a", "b").exit_code(), EXIT_LOCAL);
        assert_eq!(CliError::from(ClientError::HalfIdentity).exit_code(), EXIT_LOCAL);
    }

    #[test]
    fn refusals_lead_to_the_next_command() {
        for (status, error, word) in [
            (503, "Leasehold is sealed", "operator unseal"),
            (503, "the server is not initialized", "operator init"),
            (403, "permission denied", "policy explain"),
            (429, "too many live leases", "in 3 s"),
            (404, "", "leasehold list"),
        ] {
            let hint = refused(status, &[error]).hint();
            assert!(hint.contains(word), "{status}: {hint}");
        }
    }

    #[test]
    fn an_error_is_one_line_whatever_the_server_sends() {
        let what = refused(400, &["first\nsecond \u{1b}[31mred"]).what();
        assert_eq!(what, "first; second \u{fffd}[31mred (status 400) [request r-1]");
    }

    #[test]
    fn causes_follow_the_failure_they_explain() {
        let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        let error = CliError::Client(ClientError::Connect {
            address: "https://h:1".to_owned(),
            source: refused,
        });
        assert_eq!(error.what(), "cannot connect to https://h:1: connection refused");
        assert!(error.hint().contains("LEASEHOLD_ADDR"));
    }
}
