//! Whether the values of a configuration can be used, each by itself and together.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use super::{ByteSize, Config, Period, Problem, SealType, StorageType, is_empty};
use crate::core::spiffe::TrustDomain;

/// Longest wait for the end of a body or of an answer that may be configured.
const PERIOD_MAX: Period = Period::from_secs(3600);

impl Config {
    /// Everything that is wrong with the values, each by itself and together.
    pub(super) fn judge(&self) -> Vec<Problem> {
        let mut found = Vec::new();
        self.judge_server(&mut found);
        self.judge_listeners(&mut found);
        self.judge_trust(&mut found);
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
        if crate::server::telemetry::parse_level(&server.log_level).is_err() {
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

    fn judge_storage(&self, found: &mut Vec<Problem>) {
        let storage = &self.storage;
        let sources = usize::from(!storage.url.is_empty())
            + usize::from(!is_empty(&storage.url_file))
            + usize::from(!storage.url_env.is_empty());
        match storage.kind {
            StorageType::Sqlite => {
                if sources > 0 || !is_empty(&storage.ca_file) {
                    let text = "url, url_file, url_env and ca_file belong to type = \"postgresql\"";
                    found.push(Problem::new("storage.type", text));
                }
            }
            StorageType::Postgresql => {
                if sources != 1 {
                    let text = "exactly one of url, url_file and url_env is required";
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
            if !is_empty(&sink.path) && !seen.insert(&sink.path) {
                found.push(Problem::new(format!("audit[{index}].path"), "is used twice"));
            }
        }
    }
}

fn required(found: &mut Vec<Problem>, key: String, missing: bool) {
    if missing {
        found.push(Problem::new(key, "is required"));
    }
}

/// Whether a PostgreSQL URL or key-value string has a password in it.
fn carries_password(url: &str) -> bool {
    let authority = url.split_once("://").map_or("", |(_, rest)| rest);
    let authority = authority.split(['/', '?']).next().unwrap_or_default();
    let userinfo = authority.rsplit_once('@').map_or("", |(userinfo, _)| userinfo);
    userinfo.contains(':') || url.contains("password")
}
