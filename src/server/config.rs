//! The configuration: one TOML file, read once at start.
//!
//! An unknown key is an error, and every problem is reported in one run. No secret is written in
//! it: secrets are named by file or environment variable.

mod read;
mod value;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use read::Problem;
pub use value::{ByteSize, Period};

use crate::core::spiffe::TrustDomain;
use crate::types::secret::SecretString;
use read::{Document, section};

/// Longest wait for the end of a body or of an answer that may be configured.
const PERIOD_MAX: Period = Period::from_secs(3600);

/// The whole configuration. `config/leasehold.toml` explains every key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Config {
    /// `[server]`
    pub server: Server,
    /// `[[listener]]`
    #[serde(rename = "listener")]
    pub listeners: Vec<Listener>,
    /// `[[trust]]`
    pub trust: Vec<Trust>,
    /// `[auth]`
    pub auth: Auth,
    /// `[storage]`
    pub storage: Storage,
    /// `[[seal]]`
    #[serde(rename = "seal")]
    pub seals: Vec<Seal>,
    /// `[[audit]]`
    #[serde(rename = "audit")]
    pub audit_sinks: Vec<AuditSink>,
    /// `[leases]`
    pub leases: Leases,
    /// `[limits]`
    pub limits: Limits,
    /// `[telemetry]`
    pub telemetry: Telemetry,
    /// Said on the command line alone: the machine's clock counts although the store has seen a later
    /// time.
    #[serde(skip)]
    pub trust_clock: bool,
}

section! {
    /// The process itself.
    pub struct Server {
        /// Where the embedded store and what belongs to it live.
        data_dir: PathBuf = "/var/lib/leasehold".into(),
        /// The name under which clients see this cluster.
        cluster_name: String = "leasehold".to_owned(),
        /// What this node is called among those that share the store: by it the store knows whose audit log
        /// stood where. Empty for the host's name, on PostgreSQL with the first listener's address.
        node_name: String = String::new(),
        /// How log lines are written.
        log_format: LogFormat = LogFormat::Auto,
        /// What is logged: a level, or `target=level` pairs with commas.
        log_level: String = "info".to_owned(),
        /// Longest time from a request's head to its answer.
        request_timeout: Period = Period::from_secs(90),
        /// Largest request body.
        max_body: ByteSize = ByteSize::new(1 << 20),
        /// Most connections at once, over all listeners.
        max_connections: usize = 10_000,
        /// Most TLS handshakes in progress at once.
        max_handshakes: usize = 512,
        /// Longest TLS handshake, the wait for its turn included.
        handshake_timeout: Period = Period::from_secs(30),
        /// Longest wait for a connection's first request.
        header_timeout: Period = Period::from_secs(30),
        /// How long a connection may stay open without a request. Longer than stock clients keep one
        /// (90 seconds), so that it is they who close it and none is closed under a request.
        idle_timeout: Period = Period::from_secs(120),
        /// How long requests in progress may take to finish when the server stops.
        drain_timeout: Period = Period::from_secs(30),
        /// How often certificates, bundles and revocation lists are looked at for changes.
        reload_interval: Period = Period::from_secs(5),
        /// Whether memory is locked, so that it is never swapped out.
        lock_memory: bool = true,
    }
}

section! {
    /// One address that is listened on.
    pub struct Listener {
        /// Its name in logs, metrics and audit entries.
        name: String = String::new(),
        /// Address and port.
        address: String = String::new(),
        /// PEM file with the server's certificate and its intermediates.
        certificate: PathBuf = PathBuf::new(),
        /// PEM file with the certificate's private key.
        key: PathBuf = PathBuf::new(),
        /// Whether clients must present a certificate.
        client_certificate: ClientCertificate = ClientCertificate::Required,
    }
}

section! {
    /// One trust bundle: the authorities whose client certificates are accepted.
    pub struct Trust {
        /// Its name; the trust domain where it is left out.
        name: String = String::new(),
        /// The SPIFFE trust domain whose bundle it is, if it is one.
        trust_domain: String = String::new(),
        /// PEM file with the authorities' certificates.
        bundle: PathBuf = PathBuf::new(),
        /// Files with revocation lists, PEM or DER.
        crls: Vec<PathBuf> = Vec::new(),
        /// What becomes of certificates whose issuer's list has expired.
        crl_expired: Rule = Rule::Refuse,
        /// What becomes of certificates whose issuer has no list.
        crl_missing: Rule = Rule::Accept,
    }
}

section! {
    /// What auth methods may do.
    pub struct Auth {
        /// Hosts that revocation lists may be fetched from: `host` or `host:port`.
        crl_hosts: Vec<String> = Vec::new(),
        /// PEM file with the authorities that hosts of `https` lists are checked against.
        crl_ca_file: PathBuf = PathBuf::new(),
        /// How old a fetched list may become before it is fetched again.
        crl_refresh_interval: Period = Period::from_secs(3600),
        /// Hosts that LDAP directories may be on: `host` or `host:port`.
        ldap_hosts: Vec<String> = Vec::new(),
        /// Hosts that methods may ask, such as identity providers: `host` or `host:port`.
        outgoing_hosts: Vec<String> = Vec::new(),
        /// PEM file with the authorities that those are checked against where a mount names none.
        outgoing_ca_file: PathBuf = PathBuf::new(),
    }
}

section! {
    /// The store.
    pub struct Storage {
        /// Which kind.
        kind as "type": StorageType = StorageType::Sqlite,
        /// SQLite: the file; `leasehold.db` in the data directory where it is left out.
        path: PathBuf = PathBuf::new(),
        /// PostgreSQL: where it is, without a password.
        url: String = String::new(),
        /// PostgreSQL: a file that holds the whole URL.
        url_file: PathBuf = PathBuf::new(),
        /// PostgreSQL: PEM file with the authorities that its certificate is checked against.
        ca_file: PathBuf = PathBuf::new(),
        /// PostgreSQL: most connections at once.
        max_connections: usize = 16,
    }
}

section! {
    /// One way of unsealing.
    pub struct Seal {
        /// Which kind.
        kind as "type": SealType = SealType::Shamir,
        /// Static file: the file with the key.
        key_file: PathBuf = PathBuf::new(),
    }
}

section! {
    /// One place that audit entries go to.
    pub struct AuditSink {
        /// Which kind.
        kind as "type": AuditType = AuditType::File,
        /// Its name in metrics and answers; the path where it is left out.
        name: String = String::new(),
        /// The file.
        path: PathBuf = PathBuf::new(),
        /// Longest time until an accepted entry is on the disk; zero for none.
        sync: Period = Period::from_secs(1),
    }
}

section! {
    /// Bounds on leases and their revocation.
    pub struct Leases {
        /// Lifetime where neither the request nor the mount or role says one.
        default_ttl: Period = Period::from_secs(3600),
        /// Longest lifetime of any lease or token.
        max_ttl: Period = Period::from_secs(7 * 86_400),
        /// Most live leases of one identity; 0 for no bound.
        max_per_identity: u64 = 1_000,
        /// Most live leases of one role; 0 for no bound.
        max_per_role: u64 = 100_000,
        /// Most live leases of one mount; 0 for no bound.
        max_per_mount: u64 = 1_000_000,
        /// Most revocations in progress on one target.
        sweep_concurrency: usize = 4,
        /// Most revocations begun in one second, over all targets.
        sweep_rate: u32 = 1_000,
        /// The wall clock may jump ahead by this much before revocations are held.
        clock_jump_hold: Period = Period::from_secs(3600),
    }
}

section! {
    /// Bounds on what clients may send and on what may queue up.
    pub struct Limits {
        /// Largest head of one request.
        header_bytes: ByteSize = ByteSize::new(32 << 10),
        /// Most headers of one request.
        headers: usize = 64,
        /// Most HTTP/2 requests in progress on one connection.
        streams: u32 = 128,
        /// Most audited operations open at once, and most entries waiting for one sink.
        audit_queue: usize = 8_192,
        /// Longest wait for room in an audit queue and for a sink.
        audit_wait: Period = Period::from_secs(5),
    }
}

section! {
    /// What is told about the running server.
    pub struct Telemetry {
        /// Whether `sys/metrics` answers callers without a token or certificate.
        unauthenticated_metrics: bool = false,
    }
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogFormat {
    /// For humans on a terminal, JSON elsewhere.
    Auto,
    /// For humans.
    Human,
    /// One JSON object a line.
    Json,
}

/// Whether a listener's clients must present a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ClientCertificate {
    /// A connection without one is refused.
    Required,
    /// One is asked for, and judged as strictly when it comes.
    Optional,
}

/// What becomes of a certificate in a case that is left to the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rule {
    /// It is accepted.
    Accept,
    /// It is refused.
    Refuse,
}

/// The kinds of stores.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StorageType {
    /// Embedded, one file.
    Sqlite,
    /// PostgreSQL.
    Postgresql,
}

/// The kinds of seals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SealType {
    /// Shares held by people.
    Shamir,
    /// A key in a file, for development and tests.
    StaticFile,
}

/// The kinds of audit sinks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AuditType {
    /// JSON lines in a file.
    File,
}

/// The configuration cannot be used. Its message lists every problem, one a line.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {path}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The file says something that is wrong.
    #[error("{}", problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Invalid {
        /// All that is wrong.
        problems: Vec<Problem>,
    },
}

impl Config {
    /// By what this node's audit log is known in the store, on a host of that name. Several nodes of one
    /// host listen on addresses of their own; a store on SQLite has one node, wherever that listens.
    pub fn node_name(&self, host: String) -> String {
        if !self.server.node_name.is_empty() {
            return self.server.node_name.clone();
        }
        match (self.storage.kind, self.listeners.first()) {
            (StorageType::Postgresql, Some(listener)) => format!("{host} {}", listener.address),
            (StorageType::Postgresql, None) | (StorageType::Sqlite, _) => host,
        }
    }

    /// Reads the file at `path`.
    ///
    /// # Errors
    /// Every problem of the file itself; files that it names are looked at when they are loaded.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?;
        Self::parse(&text).map_err(|problems| ConfigError::Invalid { problems })
    }

    /// Reads a configuration from its text.
    ///
    /// # Errors
    /// Every problem at once.
    pub fn parse(text: &str) -> Result<Self, Vec<Problem>> {
        const SECTIONS: [&str; 10] = [
            "server",
            "listener",
            "trust",
            "auth",
            "storage",
            "seal",
            "audit",
            "leases",
            "limits",
            "telemetry",
        ];
        let mut document = Document::parse(text)?;
        let mut config = Self {
            server: document.section("server"),
            listeners: document.sections("listener"),
            trust: document.sections("trust"),
            auth: document.section("auth"),
            storage: document.section("storage"),
            seals: document.sections("seal"),
            audit_sinks: document.sections("audit"),
            leases: document.section("leases"),
            limits: document.section("limits"),
            telemetry: document.section("telemetry"),
            trust_clock: false,
        };
        let mut problems = document.finish(&SECTIONS);
        config.fill_in();
        // What was misread is not judged for being empty as well.
        let judged: Vec<Problem> = config
            .judge()
            .into_iter()
            .filter(|found| !problems.iter().any(|known| overlaps(&known.key, &found.key)))
            .collect();
        problems.extend(judged);
        if problems.is_empty() { Ok(config) } else { Err(problems) }
    }

    /// The configuration in effect, defaults included, as TOML. It holds no secret.
    ///
    /// # Errors
    /// When it cannot be written as TOML, which is a mistake of ours.
    pub fn to_toml(&self) -> Result<String, toml::ser::Error> {
        toml::to_string(self)
    }

    /// What can be derived from elsewhere where it is left out.
    fn fill_in(&mut self) {
        for trust in &mut self.trust {
            if trust.name.is_empty() {
                trust.name.clone_from(&trust.trust_domain);
            }
        }
        for sink in &mut self.audit_sinks {
            if sink.name.is_empty() {
                sink.name = sink.path.display().to_string();
            }
        }
        for listener in &mut self.listeners {
            if listener.name.is_empty() {
                listener.name.clone_from(&listener.address);
            }
        }
        if self.seals.is_empty() {
            self.seals.push(Seal::default());
        }
        if self.storage.kind == StorageType::Sqlite && is_empty(&self.storage.path) {
            self.storage.path = self.server.data_dir.join("leasehold.db");
        }
    }

    /// Everything that is wrong with the values, each by itself and together.
    fn judge(&self) -> Vec<Problem> {
        let mut found = Vec::new();
        self.judge_server(&mut found);
        self.judge_listeners(&mut found);
        self.judge_trust(&mut found);
        self.judge_auth(&mut found);
        self.judge_storage(&mut found);
        self.judge_sinks(&mut found);
        if self.leases.default_ttl > self.leases.max_ttl {
            found.push(Problem::new("leases.default_ttl", "is longer than leases.max_ttl"));
        }
        found
    }

    fn judge_server(&self, found: &mut Vec<Problem>) {
        let server = &self.server;
        for (key, period) in [
            ("server.request_timeout", server.request_timeout),
            ("server.handshake_timeout", server.handshake_timeout),
            ("server.header_timeout", server.header_timeout),
            ("server.idle_timeout", server.idle_timeout),
            ("server.reload_interval", server.reload_interval),
            ("limits.audit_wait", self.limits.audit_wait),
        ] {
            if period.is_zero() || period > PERIOD_MAX {
                found.push(Problem::new(key, format!("must be between 1s and {PERIOD_MAX}")));
            }
        }
        for (key, period) in [
            ("leases.default_ttl", self.leases.default_ttl),
            ("leases.max_ttl", self.leases.max_ttl),
            ("leases.clock_jump_hold", self.leases.clock_jump_hold),
        ] {
            if period.is_zero() {
                found.push(Problem::new(key, "must be at least 1s"));
            }
        }
        for (key, value) in [
            ("server.max_connections", server.max_connections),
            ("server.max_handshakes", server.max_handshakes),
            ("storage.max_connections", self.storage.max_connections),
            ("leases.sweep_concurrency", self.leases.sweep_concurrency),
            ("leases.sweep_rate", self.leases.sweep_rate as usize),
            ("limits.headers", self.limits.headers),
            ("limits.streams", self.limits.streams as usize),
            ("limits.audit_queue", self.limits.audit_queue),
        ] {
            if !(1..=1_000_000).contains(&value) {
                found.push(Problem::new(key, "must be between 1 and 1000000"));
            }
        }
        for (key, size, least, most) in [
            ("server.max_body", server.max_body, ByteSize::new(1 << 10), ByteSize::new(1 << 30)),
            (
                "limits.header_bytes",
                self.limits.header_bytes,
                ByteSize::new(8 << 10),
                ByteSize::new(1 << 20),
            ),
        ] {
            if !(least..=most).contains(&size) {
                found.push(Problem::new(key, format!("must be between {least} and {most}")));
            }
        }
        if is_empty(&server.data_dir) {
            found.push(Problem::new("server.data_dir", "must not be empty"));
        }
        if super::telemetry::parse_level(&server.log_level).is_err() {
            let text = "is no level; use off, error, warn, info, debug or trace";
            found.push(Problem::new("server.log_level", text));
        }
    }

    fn judge_listeners(&self, found: &mut Vec<Problem>) {
        if self.listeners.is_empty() {
            found.push(Problem::new("listener", "at least one [[listener]] is required"));
        }
        let mut seen = BTreeSet::new();
        for (index, listener) in self.listeners.iter().enumerate() {
            let key = |field: &str| format!("listener[{index}].{field}");
            required(found, key("certificate"), is_empty(&listener.certificate));
            required(found, key("key"), is_empty(&listener.key));
            required(found, key("address"), listener.address.is_empty());
            if !listener.address.is_empty() && listener.address.parse::<SocketAddr>().is_err() {
                let text = "is not an address and port such as 0.0.0.0:8200 or [::]:8200";
                found.push(Problem::new(key("address"), text));
            }
            if !seen.insert(format!("name {}", listener.name)) {
                found.push(Problem::new(key("name"), "is used twice"));
            }
            let any_port = listener.address.ends_with(":0");
            if !any_port && !seen.insert(format!("address {}", listener.address)) {
                found.push(Problem::new(key("address"), "is used twice"));
            }
        }
    }

    fn judge_trust(&self, found: &mut Vec<Problem>) {
        let mut seen = BTreeSet::new();
        for (index, trust) in self.trust.iter().enumerate() {
            let key = |field: &str| format!("trust[{index}].{field}");
            required(found, key("bundle"), is_empty(&trust.bundle));
            if trust.name.is_empty() {
                found.push(Problem::new(key("name"), "name or trust_domain is required"));
            }
            if !trust.trust_domain.is_empty()
                && let Err(error) = TrustDomain::parse(&trust.trust_domain)
            {
                found.push(Problem::new(key("trust_domain"), error.to_string()));
            }
            // Bundles of one trust domain are one bundle: in one file, not merged from several.
            let domain = &trust.trust_domain;
            if !domain.is_empty() && !seen.insert(format!("domain {domain}")) {
                found.push(Problem::new(key("trust_domain"), "is used twice"));
            }
            if !trust.name.is_empty() && !seen.insert(format!("name {}", trust.name)) {
                found.push(Problem::new(key("name"), "is used twice"));
            }
        }
    }

    fn judge_auth(&self, found: &mut Vec<Problem>) {
        let lists = [
            ("crl_hosts", &self.auth.crl_hosts),
            ("ldap_hosts", &self.auth.ldap_hosts),
            ("outgoing_hosts", &self.auth.outgoing_hosts),
        ];
        for (key, hosts) in lists {
            for (index, host) in hosts.iter().enumerate() {
                let names_host = |uri: hyper::Uri| {
                    uri.authority().is_some_and(|at| at.as_str() == host && !host.contains('@'))
                };
                if !format!("http://{host}/").parse().is_ok_and(names_host) {
                    let text = "is no host or host:port such as crl.example.org or [::1]:8080";
                    found.push(Problem::new(format!("auth.{key}[{index}]"), text));
                }
            }
        }
        let interval = self.auth.crl_refresh_interval;
        if interval < Period::from_secs(60) || interval > Period::from_secs(7 * 86_400) {
            found.push(Problem::new("auth.crl_refresh_interval", "must be between 1m and 7d"));
        }
    }

    fn judge_storage(&self, found: &mut Vec<Problem>) {
        let storage = &self.storage;
        let sources =
            usize::from(!storage.url.is_empty()) + usize::from(!is_empty(&storage.url_file));
        match storage.kind {
            StorageType::Sqlite => {
                if sources > 0 || !is_empty(&storage.ca_file) {
                    let text = "url, url_file and ca_file belong to type = \"postgresql\"";
                    found.push(Problem::new("storage.type", text));
                }
            }
            StorageType::Postgresql => {
                if sources != 1 {
                    let text = "exactly one of url and url_file is required";
                    found.push(Problem::new("storage.url", text));
                }
                if !is_empty(&storage.path) {
                    found.push(Problem::new("storage.path", "belongs to type = \"sqlite\""));
                }
            }
        }
        if carries_password(&storage.url) {
            let text = "carries a password; put the whole URL in a file and name it as url_file";
            found.push(Problem::new("storage.url", text));
        }
    }

    fn judge_sinks(&self, found: &mut Vec<Problem>) {
        for (index, seal) in self.seals.iter().enumerate() {
            let key = format!("seal[{index}].key_file");
            match seal.kind {
                SealType::StaticFile => required(found, key, is_empty(&seal.key_file)),
                SealType::Shamir if !is_empty(&seal.key_file) => {
                    found.push(Problem::new(key, "belongs to type = \"static-file\""));
                }
                SealType::Shamir => {}
            }
        }
        for (index, seal) in self.seals.iter().enumerate() {
            if self.seals.iter().take(index).any(|earlier| earlier.kind == seal.kind) {
                found.push(Problem::new(format!("seal[{index}].type"), "is used twice"));
            }
        }
        if self.audit_sinks.is_empty() {
            let text = "at least one [[audit]] is required: nothing is answered unaudited";
            found.push(Problem::new("audit", text));
        }
        let mut seen = BTreeSet::new();
        for (index, sink) in self.audit_sinks.iter().enumerate() {
            required(found, format!("audit[{index}].path"), is_empty(&sink.path));
            if sink.sync > PERIOD_MAX {
                let text = format!("must be at most {PERIOD_MAX}");
                found.push(Problem::new(format!("audit[{index}].sync"), text));
            }
            if !is_empty(&sink.path) && !seen.insert(&sink.path) {
                found.push(Problem::new(format!("audit[{index}].path"), "is used twice"));
            }
        }
    }
}

impl Storage {
    /// The URL of a PostgreSQL store, from wherever it is kept. Not from an environment variable: a
    /// process shows those to its user for as long as it runs, sealed or not.
    ///
    /// # Errors
    /// When the file that should hold it cannot be read.
    pub fn resolve_url(&self) -> Result<SecretString, Problem> {
        if !is_empty(&self.url_file) {
            let text = std::fs::read_to_string(&self.url_file)
                .map(zeroize::Zeroizing::new)
                .map_err(|error| Problem::new("storage.url_file", error.to_string()))?;
            return Ok(SecretString::new(text.trim().to_owned()));
        }
        Ok(SecretString::new(self.url.clone()))
    }
}

fn required(found: &mut Vec<Problem>, key: String, missing: bool) {
    if missing {
        found.push(Problem::new(key, "is required"));
    }
}

fn is_empty(path: &Path) -> bool {
    path.as_os_str().is_empty()
}

/// Whether one key is the other, or above it.
fn overlaps(known: &str, found: &str) -> bool {
    found == known || found.strip_prefix(known).is_some_and(|rest| rest.starts_with(['.', '[']))
}

/// Whether a PostgreSQL URL or key-value string has a password in it.
fn carries_password(url: &str) -> bool {
    let authority = url.split_once("://").map_or("", |(_, rest)| rest);
    let authority = authority.split(['/', '?']).next().unwrap_or_default();
    let userinfo = authority.rsplit_once('@').map_or("", |(userinfo, _)| userinfo);
    userinfo.contains(':') || url.contains("password")
}

#[cfg(test)]
mod tests;
