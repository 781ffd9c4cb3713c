//! `leasehold import`: copies what a Vault or OpenBao server has, through its API.
//!
//! Nothing about the progress is kept: a second run reads both sides and goes on with what is not
//! the same yet. What is read from the source is written to this server and nowhere else.

mod copy;
mod database;
mod history;
mod identity;
mod kv;
mod ledger;
mod methods;
mod mounts;
mod progress;
mod side;
mod ssh;
mod totp;
mod transit;

use std::path::PathBuf;

use serde_json::{Map, Value};

use super::Finish;
use super::error::CliError;
use super::session::Session;
use copy::{Context, Mode, Said, written};
use identity::Ties;
use ledger::{Entry, Ledger};
use mounts::{Class, Mounted};
use progress::Progress;
use side::Side;

/// Most secrets in progress at once, whatever is asked for.
const CONCURRENCY_MAX: u8 = 64;
/// Policies that every server has for itself.
const OWN_POLICIES: &[&str] = &["root", "default", "control-group", "response-wrapping"];
/// Engines that every server has for itself.
const OWN_ENGINES: &[&str] =
    &["system", "identity", "cubbyhole", "ns_system", "ns_identity", "ns_cubbyhole"];

/// A part that can be imported by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// Path policies and password policies
    Policies,
    /// Secrets of kv
    Kv,
    /// Auth methods, their roles, users and groups, and token roles
    Auth,
    /// Entities and groups
    Identity,
    /// Databases and their roles
    Database,
    /// Quotas on requests and on leases
    Quotas,
    /// Roles of ssh
    Ssh,
    /// Mounts of totp, whose keys cannot be read out
    Totp,
    /// Keys of transit that are exportable
    Transit,
}

/// `leasehold import`
#[derive(Debug, clap::Args)]
pub struct Import {
    #[command(flatten)]
    from: side::From,
    /// Only say what would be copied, and what cannot be
    #[arg(long)]
    dry_run: bool,
    /// Import these parts alone, separated by commas
    #[arg(long, value_enum, value_name = "PARTS", value_delimiter = ',')]
    only: Vec<Part>,
    /// Import this mount alone, such as secret or auth/approle; may be given several times
    #[arg(long, value_name = "PATH")]
    mount: Vec<String>,
    /// Replace what is here already and different
    #[arg(long)]
    overwrite: bool,
    /// Secrets in progress at once
    #[arg(long, value_name = "NUMBER", default_value_t = 4,
          value_parser = clap::value_parser!(u8).range(1..=i64::from(CONCURRENCY_MAX)))]
    concurrency: u8,
    /// Most requests to the other server in a second; 0 for no bound
    #[arg(long, value_name = "NUMBER", default_value_t = 500)]
    rate: u32,
    /// Write the whole report to this file, as JSON
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
}

impl Import {
    /// Copies, compares both sides, and reports.
    ///
    /// # Errors
    /// What keeps the import from going on; what was done until then is reported first.
    pub async fn run(self, session: &mut Session<'_>) -> Result<Finish, CliError> {
        let client = self.from.client(&session.process.env)?;
        let source = Side::new("the server to copy from", &client, self.rate).await;
        let target = Side::new("this server", &session.client, 0).await;
        let mode = if self.dry_run { Mode::DryRun } else { Mode::Copy };
        let mut ctx = Context {
            source,
            target,
            mode,
            overwrite: self.overwrite,
            concurrency: usize::from(self.concurrency),
            ledger: Ledger::default(),
            output: &mut session.process.output,
        };
        let walked = self.walks(&mut ctx).await;
        ctx.output.end_progress()?;
        let (ledger, output) = (ctx.ledger, ctx.output);
        let finished = walked.is_ok();
        if output.is_document() {
            output.document(&ledger.to_json(finished))?;
        } else {
            ledger.show(output)?;
        }
        if let Some(path) = &self.report {
            ledger.save(path, finished)?;
        }
        walked?;
        Ok(if ledger.differs() { Finish::Drift } else { Finish::Done })
    }

    async fn walks(&self, ctx: &mut Context<'_>) -> Result<(), CliError> {
        self.walk(ctx).await?;
        if ctx.mode == Mode::Copy {
            ctx.mode = Mode::Compare;
            self.walk(ctx).await?;
        }
        Ok(())
    }

    fn wants(&self, part: Part) -> bool {
        self.only.is_empty() || self.only.contains(&part)
    }

    /// Whether a mount is asked for. With mounts named, what belongs to none is not.
    fn wants_mount(&self, path: &str) -> bool {
        self.mount.is_empty() || self.mount.iter().any(|one| one.trim_matches('/') == path)
    }

    async fn walk(&self, ctx: &mut Context<'_>) -> Result<(), CliError> {
        let mut progress = Progress::default();
        let methods = mounts::listed(ctx, Class::Method).await?;
        let engines = mounts::listed(ctx, Class::Engine).await?;
        self.check_mounts(&engines, &methods)?;
        let everything = self.mount.is_empty();
        if everything && self.wants(Part::Policies) {
            policies(ctx, "password policy", "sys/policies/password").await?;
            policies(ctx, "policy", "sys/policies/acl").await?;
        }
        self.engines(ctx, &engines, &mut progress).await?;
        if self.wants(Part::Auth) {
            self.methods(ctx, &methods).await?;
        }
        if everything && self.wants(Part::Identity) {
            let here = mounts::here(ctx, Class::Method).await?;
            identity::contents(ctx, &Ties { there: &methods, here: &here }).await?;
        }
        // Last: they are for paths of mounts.
        if everything && self.wants(Part::Quotas) {
            quotas(ctx).await?;
        }
        if everything && self.only.is_empty() {
            audit_devices(ctx).await?;
        }
        Ok(())
    }

    /// A mount that is misspelled must not look like an empty one.
    fn check_mounts(&self, engines: &[Mounted], methods: &[Mounted]) -> Result<(), CliError> {
        for wanted in &self.mount {
            let path = wanted.trim_matches('/');
            let found = engines.iter().any(|one| one.path == path)
                || methods.iter().any(|one| Some(one.path.as_str()) == path.strip_prefix("auth/"));
            if !found {
                return Err(CliError::local(
                    format!("nothing is mounted at {path} on the server to copy from"),
                    "name a mount as its sys/mounts does, or auth/ and its path",
                ));
            }
        }
        Ok(())
    }

    async fn engines(
        &self,
        ctx: &mut Context<'_>,
        engines: &[Mounted],
        progress: &mut Progress,
    ) -> Result<(), CliError> {
        let here = mounts::here(ctx, Class::Engine).await?;
        for engine in engines {
            if OWN_ENGINES.contains(&engine.kind.as_str()) || !self.wants_mount(&engine.path) {
                continue;
            }
            let path = engine.path.as_str();
            match engine.kind.as_str() {
                "kv" | "generic" if !self.wants(Part::Kv) => {}
                "database" if !self.wants(Part::Database) => {}
                "kv" if mounts::mount(ctx, Class::Engine, engine, &here).await? => {
                    if engine.is_versioned() {
                        kv_settings(ctx, path).await?;
                    }
                    kv::secrets(ctx, path, engine.is_versioned(), progress).await?;
                }
                "database" if mounts::mount(ctx, Class::Engine, engine, &here).await? => {
                    database::contents(ctx, path).await?;
                }
                "transit" if !self.wants(Part::Transit) => {}
                "transit" if mounts::mount(ctx, Class::Engine, engine, &here).await? => {
                    transit::keys(ctx, path).await?;
                }
                "ssh" if !self.wants(Part::Ssh) => {}
                "ssh" if mounts::mount(ctx, Class::Engine, engine, &here).await? => {
                    ssh::contents(ctx, path).await?;
                }
                "totp" if !self.wants(Part::Totp) => {}
                "totp" if mounts::mount(ctx, Class::Engine, engine, &here).await? => {
                    totp::keys(ctx, path).await?;
                }
                "kv" | "database" | "ssh" | "totp" | "transit" => {}
                kind if self.only.is_empty() => {
                    let (reason, next) = why_not(kind);
                    let reason = format!("{kind}: {reason}");
                    ctx.leave(Entry::left("secrets engine", path, reason, next));
                }
                _ => {}
            }
        }
        Ok(())
    }

    async fn methods(&self, ctx: &mut Context<'_>, methods: &[Mounted]) -> Result<(), CliError> {
        let here = mounts::here(ctx, Class::Method).await?;
        for method in methods {
            if !self.wants_mount(&format!("auth/{}", method.path)) {
                continue;
            }
            if !methods::is_known(&method.kind) {
                ctx.leave(Entry::left(
                    "auth method",
                    &method.path,
                    format!("{}: not available here", method.kind),
                    "move who logs in by it to a certificate, or another method",
                ));
            } else if method.kind == "token"
                || mounts::mount(ctx, Class::Method, method, &here).await?
            {
                methods::contents(ctx, method).await?;
            }
        }
        Ok(())
    }
}

/// Why the contents of an engine stay where they are, and what to do.
fn why_not(kind: &str) -> (&'static str, &'static str) {
    match kind {
        "pki" => (
            "private keys of authorities cannot be read out",
            "let the authority here be signed by the old one, or import its key from where you \
             keep it",
        ),
        "generic" => ("an old form of kv", "upgrade it to kv there, and run it again"),
        _ => ("not available here", "leave what needs it on the old server"),
    }
}

/// Path policies, or password policies.
async fn policies(ctx: &mut Context<'_>, kind: &'static str, at: &str) -> Result<(), CliError> {
    for name in ctx.names(kind, at).await? {
        if kind == "policy" && OWN_POLICIES.contains(&name.as_str()) {
            continue;
        }
        let path = format!("{at}/{name}");
        if let Some(data) = ctx.there(kind, &path).await?
            && let Some(text) = data.get("policy")
        {
            let mut fields = Map::new();
            fields.insert("policy".to_owned(), text.clone());
            ctx.settle(kind, &path, &Said::only(fields), Map::new()).await?;
        }
    }
    Ok(())
}

/// Quotas by path, of both kinds.
async fn quotas(ctx: &mut Context<'_>) -> Result<(), CliError> {
    for at in ["sys/quotas/rate-limit", "sys/quotas/lease-count"] {
        for name in ctx.names("quota", at).await? {
            let path = format!("{at}/{name}");
            if let Some(data) = ctx.there("quota", &path).await? {
                let said = Said::of(&data, &["name", "type", "counter", "inheritable"]);
                ctx.settle("quota", &path, &said, Map::new()).await?;
            }
        }
    }
    Ok(())
}

/// Where entries of the audit go is for the operator to say, not for the API.
async fn audit_devices(ctx: &mut Context<'_>) -> Result<(), CliError> {
    let Some(data) = ctx.there("audit device", "sys/audit").await? else { return Ok(()) };
    for (path, device) in data.as_object().into_iter().flatten() {
        let text = |pointer: &str| device.pointer(pointer).and_then(Value::as_str);
        let Some(kind) = text("/type") else { continue };
        let place = text("/options/file_path").or_else(|| text("/options/address"));
        let to = place.map(|place| format!(" to {place}")).unwrap_or_default();
        ctx.leave(Entry::left(
            "audit device",
            path.trim_end_matches('/'),
            format!("{kind}{to}: the configuration says where the audit goes"),
            "name a sink in [audit] of this server's configuration; docs/audit.md",
        ));
    }
    Ok(())
}

/// What a kv mount with versions asks of all its secrets.
async fn kv_settings(ctx: &mut Context<'_>, mount: &str) -> Result<(), CliError> {
    let path = format!("{mount}/config");
    let Some(data) = ctx.there("kv settings", &path).await? else { return Ok(()) };
    let fields = written(&data, &[]);
    if fields.is_empty() {
        return Ok(());
    }
    // As long as nothing is set here, it is nobody's choice.
    let unset = match ctx.target.read(&path).await {
        Ok(found) => found.is_none_or(|found| written(&found, &[]).is_empty()),
        Err(trouble) => return ctx.refused("kv settings", &path, trouble),
    };
    let overwrite = ctx.overwrite;
    ctx.overwrite = overwrite || unset;
    let settled = ctx.settle("kv settings", &path, &Said::only(fields), Map::new()).await;
    ctx.overwrite = overwrite;
    settled.map(drop)
}
