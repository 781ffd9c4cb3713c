//! The paths that work without a caller: the seal's own, and what load balancers ask. Free of HTTP;
//! the answers are bare JSON, without an envelope.
//!
//! Whatever is more than a look is audited, without its data: while the server is sealed there is no
//! key to hash it with, and shares are not for the audit in any form. The looks are not: they tell no
//! secret, are asked every second, and have to be answered when the audit is down too.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::crypto::aead::Suite;
use crate::types::id::{Accessor, RequestId};
use crate::types::path::ApiPath;
use crate::types::secret::SecretString;

use super::super::acl::CheckRequest;
use super::super::audit::entry::Outcome;
use super::super::context::{Core, Phase};
use super::super::error::CoreError;
use super::super::fields::Fields;
use super::super::guess::Guesser;
use super::super::operation::Operation;
use super::super::peer::ConnectionInfo;
use super::super::pipeline::{log_failure, refused_by_audit, summary};
use super::super::request::Verb;
use super::super::route::{Answer, FieldKind, FieldSpec, RouteSpec, field, route};
use super::super::token::Use;
use super::rekey::Asker;
use super::{InitPlan, ceremony_api};

/// What an endpoint does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    GenerateRoot,
    GenerateRootUpdate,
    Health,
    Init,
    Leader,
    Rekey,
    RekeyUpdate,
    RekeyVerify,
    SealBackends,
    SealStatus,
    Unseal,
}

/// One path that works without a caller.
#[derive(Debug)]
struct Row {
    kind: Kind,
    spec: RouteSpec,
}

const LOOK: &[Operation] = &[Operation::Read];
const WRITE: &[Operation] = &[Operation::Update];
const LOOK_WRITE: &[Operation] = &[Operation::Read, Operation::Update];
const ATTEMPT: &[Operation] = &[Operation::Read, Operation::Update, Operation::Delete];

const KEY: FieldSpec = field("key", FieldKind::Secret, "a share, hexadecimal or base64");
const NONCE: FieldSpec = field("nonce", FieldKind::Text, "the nonce of the attempt");

const fn row(
    kind: Kind,
    name: &'static str,
    pattern: &'static str,
    summary: &'static str,
    operations: &'static [Operation],
    fields: &'static [FieldSpec],
) -> Row {
    Row { kind, spec: route(name, pattern, summary, operations, fields).public() }
}

impl Row {
    /// The same with this answer to reads and writes.
    const fn answers(mut self, answer: Answer) -> Self {
        self.spec = self.spec.reads(answer).writes(answer);
        self
    }

    /// The same with this answer to writes.
    const fn writes(mut self, answer: Answer) -> Self {
        self.spec = self.spec.writes(answer);
        self
    }

    /// The same with this answer to deletes.
    const fn deletes(mut self, answer: Answer) -> Self {
        self.spec = self.spec.deletes(answer);
        self
    }
}

const INITIALIZED: FieldSpec =
    field("initialized", FieldKind::Boolean, "whether the store is initialised");
const SEALED: FieldSpec = field("sealed", FieldKind::Boolean, "whether the keys are forgotten");
const VERSION: FieldSpec = field("version", FieldKind::Text, "the version of this server");
const CLUSTER_ID: FieldSpec = field("cluster_id", FieldKind::Text, "not said while sealed");
const CLUSTER_NAME: FieldSpec = field("cluster_name", FieldKind::Text, "not said while sealed");

const HEALTH: &[FieldSpec] = &[
    field("clock_skew_ms", FieldKind::Integer, "always 0"),
    CLUSTER_ID.if_any(),
    CLUSTER_NAME.if_any(),
    field("echo_duration_ms", FieldKind::Integer, "always 0"),
    field("enterprise", FieldKind::Boolean, "always false"),
    INITIALIZED,
    field("performance_standby", FieldKind::Boolean, "always false: every node is active"),
    field("replication_dr_mode", FieldKind::Text, "always disabled"),
    field("replication_performance_mode", FieldKind::Text, "always disabled"),
    SEALED,
    field("server_time_utc", FieldKind::Integer, "seconds since 1970"),
    field("standby", FieldKind::Boolean, "always false: every node is active"),
    VERSION,
];

const SEAL_STATUS: &[FieldSpec] = &[
    CLUSTER_ID.if_any(),
    CLUSTER_NAME.if_any(),
    INITIALIZED,
    field("migration", FieldKind::Boolean, "always false"),
    field("n", FieldKind::Integer, "how many shares there are"),
    field("nonce", FieldKind::Text, "which attempt it is; empty for none"),
    field("progress", FieldKind::Integer, "how many shares were given"),
    field("recovery_seal", FieldKind::Boolean, "always false"),
    SEALED,
    field("storage_type", FieldKind::Text, "what the store is"),
    field("t", FieldKind::Integer, "how many shares open"),
    field("type", FieldKind::Text, "the kind of the seal"),
    VERSION,
];

const HEALTHY: FieldSpec = field("healthy", FieldKind::Boolean, "whether it could be used now");
const SEAL_BACKENDS: &[FieldSpec] = &[
    field(
        "backends",
        FieldKind::Objects(&[
            field("configured", FieldKind::Boolean, "whether this server is configured to use it"),
            HEALTHY,
            field("name", FieldKind::Text, "its kind"),
        ]),
        "each of them",
    ),
    field("fully_wrapped", FieldKind::Boolean, "always true: each opens everything"),
    field("healthy", FieldKind::Boolean, "whether all of them could be used now"),
];

/// Whether it is initialised; to who initialises it, the keys as well.
const INIT: &[FieldSpec] = &[
    field("keys", FieldKind::List, "the shares, in hexadecimal"),
    field("keys_base64", FieldKind::List, "the same in base64"),
    field("root_token", FieldKind::Secret, "the first token, which may do everything"),
];

static TABLE: [Row; 13] = [
    row(
        Kind::Init,
        "init",
        "sys/init",
        "whether the store is initialised; initialises it",
        LOOK_WRITE,
        &[
            field("secret_shares", FieldKind::Integer, "how many unseal shares to make"),
            field("secret_threshold", FieldKind::Integer, "how many of them open"),
            field("suite", FieldKind::Text, "aes256-gcm or chacha20-poly1305"),
            field("stored_shares", FieldKind::Integer, "not used"),
            field("pgp_keys", FieldKind::List, "not supported"),
            field("root_token_pgp_key", FieldKind::Text, "not supported"),
            field("recovery_shares", FieldKind::Integer, "not supported"),
            field("recovery_threshold", FieldKind::Integer, "not supported"),
            field("recovery_pgp_keys", FieldKind::List, "not supported"),
        ],
    )
    .answers(Answer::Bare(&[INITIALIZED]))
    .writes(Answer::Bare(INIT)),
    row(Kind::SealStatus, "seal-status", "sys/seal-status", "where the seal stands", LOOK, &[])
        .answers(Answer::Bare(SEAL_STATUS)),
    row(
        Kind::SealBackends,
        "seal-backend-status",
        "sys/seal-backend-status",
        "the ways to the root key, and whether they could be used now",
        LOOK,
        &[],
    )
    .answers(Answer::Bare(SEAL_BACKENDS)),
    row(
        Kind::Unseal,
        "unseal",
        "sys/unseal",
        "takes in one unseal share",
        WRITE,
        &[
            KEY,
            field("reset", FieldKind::Boolean, "forget the shares given so far"),
            field("migrate", FieldKind::Boolean, "not supported"),
        ],
    )
    .answers(Answer::Bare(SEAL_STATUS)),
    row(
        Kind::Health,
        "health",
        "sys/health",
        "whether requests are served, as a status",
        LOOK,
        &[
            field("activecode", FieldKind::Integer, "status while requests are served"),
            field("sealedcode", FieldKind::Integer, "status while sealed"),
            field("uninitcode", FieldKind::Integer, "status while not initialised"),
            field("standbyok", FieldKind::Boolean, "every node is active: without effect"),
            field("standbycode", FieldKind::Integer, "every node is active: without effect"),
            field("perfstandbyok", FieldKind::Boolean, "every node is active: without effect"),
        ],
    )
    .answers(Answer::Health(HEALTH)),
    row(Kind::Leader, "leader", "sys/leader", "every node is active", LOOK, &[]).answers(
        Answer::Bare(&[field(
            "ha_enabled",
            FieldKind::Boolean,
            "always false: there is no leader",
        )]),
    ),
    row(
        Kind::Rekey,
        "rekey",
        "sys/rekey/init",
        "begins, shows or gives up making new shares",
        ATTEMPT,
        ceremony_api::REKEY_FIELDS,
    )
    .answers(Answer::Bare(ceremony_api::REKEY_SHOWN)),
    row(
        Kind::RekeyUpdate,
        "rekey-update",
        "sys/rekey/update",
        "takes in one of the old shares",
        WRITE,
        &[KEY, NONCE],
    )
    .answers(Answer::Bare(ceremony_api::REKEYED)),
    row(
        Kind::RekeyVerify,
        "rekey-verify",
        "sys/rekey/verify",
        "takes in one of the new shares; shows or restarts that",
        ATTEMPT,
        &[KEY, NONCE],
    )
    .answers(Answer::Bare(ceremony_api::VERIFY_SHOWN))
    .writes(Answer::Bare(ceremony_api::VERIFIED))
    .deletes(Answer::Bare(ceremony_api::VERIFY_SHOWN)),
    row(
        Kind::GenerateRoot,
        "generate-root",
        "sys/generate-root/attempt",
        "begins, shows or gives up making a root token",
        ATTEMPT,
        ceremony_api::GENERATE_ROOT_FIELDS,
    )
    .answers(Answer::Bare(ceremony_api::GENERATE_ROOT_SHOWN)),
    row(
        Kind::GenerateRootUpdate,
        "generate-root-update",
        "sys/generate-root/update",
        "takes in one share",
        WRITE,
        &[KEY, NONCE],
    )
    .answers(Answer::Bare(ceremony_api::GENERATE_ROOT_SHOWN)),
    row(
        Kind::GenerateRoot,
        "generate-root-token",
        "sys/generate-root-token/attempt",
        "the same under another name",
        ATTEMPT,
        ceremony_api::GENERATE_ROOT_FIELDS,
    )
    .answers(Answer::Top(ceremony_api::GENERATE_ROOT_SHOWN)),
    row(
        Kind::GenerateRootUpdate,
        "generate-root-token-update",
        "sys/generate-root-token/update",
        "the same under another name",
        WRITE,
        &[KEY, NONCE],
    )
    .answers(Answer::Top(ceremony_api::GENERATE_ROOT_SHOWN)),
];

/// The table: what each path serves, and with which fields.
pub fn specs() -> impl Iterator<Item = &'static RouteSpec> {
    TABLE.iter().map(|row| &row.spec)
}

/// A path that works without a caller, and what is to be done there.
#[derive(Clone, Copy, Debug)]
pub struct Endpoint {
    row: &'static Row,
    verb: Verb,
}

impl Endpoint {
    /// Its name, for metrics.
    pub fn name(&self) -> &'static str {
        self.row.spec.name
    }

    /// The body as clients of this path read it: bare, or where the table says so in an envelope as well,
    /// as OpenBao's clients read one of the two names of generating a root token.
    fn shown(&self, body: Value, id: &RequestId) -> Value {
        let answer = self.row.spec.answers.to(self.verb.operation());
        if body.is_null() || !matches!(answer, Answer::Top(_)) {
            return body;
        }
        let envelope = json!({
            "request_id": id,
            "lease_id": "",
            "renewable": false,
            "lease_duration": 0,
            "data": body,
            "wrap_info": null,
            "warnings": null,
            "auth": null,
            "mount_type": "system",
        });
        ceremony_api::with(body, envelope)
    }

    /// Whether it is more than a look.
    fn is_audited(&self) -> bool {
        self.verb != Verb::Read
    }
}

/// The endpoint at `path`, whether it serves `verb` or not.
pub fn find(verb: Verb, path: &ApiPath) -> Option<Endpoint> {
    let row = TABLE.iter().find(|row| row.spec.pattern == path.as_str())?;
    Some(Endpoint { row, verb })
}

/// An answer, and what to take back when it cannot leave.
#[derive(Debug)]
pub(super) struct Done {
    pub(super) status: u16,
    pub(super) body: Value,
    pub(super) undo: Undo,
}

/// What was done that must not stay done without an entry in the audit.
#[derive(Debug)]
pub(super) enum Undo {
    /// Nothing: new shares that nobody got void no old ones.
    Nothing,
    /// A root token was made.
    RootToken(Accessor),
    /// The server was unsealed.
    Unsealed,
}

impl Done {
    pub(super) fn ok(body: Value) -> Self {
        Self { status: 200, body, undo: Undo::Nothing }
    }

    pub(super) fn empty() -> Self {
        Self { status: 204, body: Value::Null, undo: Undo::Nothing }
    }
}

/// A request to an endpoint.
struct Call<'a> {
    core: &'a Arc<Core>,
    endpoint: Endpoint,
    fields: &'a Fields,
    connection: &'a ConnectionInfo,
    token: Option<&'a SecretString>,
}

/// Serves a request: a status, and a body that is null when there is none.
///
/// # Errors
/// What the caller did wrong, or what failed. Whatever is audited is in the audit when this returns;
/// when that does not take it, the error is `AuditUnavailable` and nothing may be answered.
pub async fn serve(
    core: &Arc<Core>,
    endpoint: Endpoint,
    fields: Fields,
    connection: &ConnectionInfo,
    id: &RequestId,
    token: Option<SecretString>,
) -> Result<(u16, Value), CoreError> {
    let call = Call { core, endpoint, fields: &fields, connection, token: token.as_ref() };
    if !endpoint.is_audited() {
        return call.answer().await.map(|done| (done.status, endpoint.shown(done.body, id)));
    }
    let operation = endpoint.verb.operation();
    let path = endpoint.row.spec.pattern;
    let summary = summary(id, core.clock.now(), operation, path, connection);
    let mut ticket = core.audit.open(summary, true).await.map_err(refused_by_audit)?;
    let result = call.judged_answer().await;
    let mut ending =
        Outcome { store_sequence: core.storage.sequence().await.ok(), ..<_>::default() };
    match &result {
        Ok(answer) => ending.status = answer.status,
        Err(error) => {
            ending.status = error.status();
            ending.error = Some(error.public_text());
            if let Some(reason) = error.reason() {
                ticket.set_reason(reason);
            }
            log_failure(&ticket, error);
        }
    }
    if let Err(error) = ticket.finish(ending).await {
        if let Ok(answer) = result {
            call.take_back(answer.undo).await;
        }
        return Err(refused_by_audit(error));
    }
    result.map(|done| (done.status, endpoint.shown(done.body, id)))
}

impl Call<'_> {
    async fn judged_answer(&self) -> Result<Done, CoreError> {
        if let Some(peer) = &self.connection.peer {
            self.core
                .trust
                .judge(peer, self.core.clock.now())
                .map_err(|error| CoreError::denied(format!("certificate: {error}")))?;
        }
        self.answer().await
    }

    async fn answer(&self) -> Result<Done, CoreError> {
        let operation = self.endpoint.verb.operation();
        if !self.endpoint.row.spec.operations.contains(&operation) {
            return Err(CoreError::Unsupported);
        }
        let (core, fields) = (self.core, self.fields);
        match (self.endpoint.row.kind, operation) {
            (Kind::Health, _) => self.health().await,
            (Kind::Leader, _) => Ok(Done::ok(json!({ "ha_enabled": false }))),
            (Kind::SealStatus, _) => self.seal_status().await,
            (Kind::SealBackends, _) => self.seal_backends().await,
            (Kind::Init, Operation::Read) => {
                Ok(Done::ok(json!({ "initialized": core.is_initialized().await? })))
            }
            (Kind::Init, _) => self.init().await,
            (Kind::Unseal, _) => self.unseal().await,
            (Kind::Rekey, Operation::Read) => {
                let (name, sudo) = self.asker().await;
                ceremony_api::rekey_status(core, asker(&name, sudo)).await
            }
            (Kind::Rekey, Operation::Delete) => {
                let (name, sudo) = self.asker().await;
                ceremony_api::rekey_cancel(core, fields, asker(&name, sudo)).await
            }
            (Kind::Rekey, _) => ceremony_api::rekey_start(core, fields, self.name()).await,
            (Kind::RekeyUpdate, _) => ceremony_api::rekey_update(core, fields, &self.giver()).await,
            (Kind::RekeyVerify, Operation::Read) => {
                let (name, sudo) = self.asker().await;
                ceremony_api::verify_status(core, asker(&name, sudo))
            }
            (Kind::RekeyVerify, Operation::Delete) => {
                let (name, sudo) = self.asker().await;
                ceremony_api::verify_restart(core, fields, asker(&name, sudo))
            }
            (Kind::RekeyVerify, _) => {
                ceremony_api::verify_update(core, fields, &self.giver()).await
            }
            (Kind::GenerateRoot, Operation::Read) => {
                let (name, sudo) = self.asker().await;
                ceremony_api::generate_root_status(core, asker(&name, sudo)).await
            }
            (Kind::GenerateRoot, Operation::Delete) => {
                let (name, sudo) = self.asker().await;
                ceremony_api::generate_root_cancel(core, fields, asker(&name, sudo)).await
            }
            (Kind::GenerateRoot, _) => {
                ceremony_api::generate_root_start(core, fields, self.name()).await
            }
            (Kind::GenerateRootUpdate, _) => {
                ceremony_api::generate_root_update(core, fields, &self.giver()).await
            }
        }
    }

    /// Who asks: the certificate, or without one, the connection.
    fn name(&self) -> String {
        match &self.connection.peer {
            Some(peer) => format!("certificate {}", peer.x5t_s256()),
            None => format!("connection {}", self.connection.id),
        }
    }

    /// Who gives a share: as in [`Call::name`], but over all connections.
    fn giver(&self) -> Guesser {
        Guesser::on(self.connection)
    }

    /// Who asks, and whether they may do that to anybody's attempt.
    async fn asker(&self) -> (String, bool) {
        let sudo = match self.sudo().await {
            Ok(sudo) => sudo,
            Err(error) => {
                tracing::debug!(%error, "an asker without standing");
                false
            }
        };
        (self.name(), sudo)
    }

    async fn sudo(&self) -> Result<bool, CoreError> {
        // Only who brings a token claims to be an administrator here.
        let Some(token) = self.token else { return Ok(false) };
        let unsealed = self.core.unsealed()?;
        let caller = self.core.caller(&unsealed, Some(token.expose()), self.connection).await?;
        let path = ApiPath::parse(self.endpoint.row.spec.pattern)?;
        let check = CheckRequest::new(&path, self.endpoint.verb.operation());
        if !caller.acl.check(&check).sudo {
            return Ok(false);
        }
        if let Some(token) = caller.token()
            && unsealed.tokens.consume_use(token).await? == Use::Last
        {
            unsealed.tokens.revoke(token).await?;
        }
        Ok(true)
    }

    async fn take_back(&self, undo: Undo) {
        match undo {
            Undo::Nothing => {}
            Undo::RootToken(accessor) => {
                let Ok(unsealed) = self.core.unsealed() else { return };
                if let Err(error) = unsealed.tokens.revoke_by_accessor(&accessor).await {
                    tracing::error!(%error, "a root token that was not audited is not revoked");
                }
            }
            Undo::Unsealed => {
                self.core.seal().await;
            }
        }
    }

    async fn health(&self) -> Result<Done, CoreError> {
        // A store that fails must not hide that the server is sealed.
        let initialized = self.core.is_initialized().await.unwrap_or(false);
        let unsealed = matches!(&*self.core.phase(), Phase::Unsealed(_));
        // All of them, so that a load balancer's mistake shows before the day on which it counts.
        let active = status_code(self.fields, "activecode", 200)?;
        let sealed = status_code(self.fields, "sealedcode", 503)?;
        let fresh = status_code(self.fields, "uninitcode", 501)?;
        let status = match (initialized, unsealed) {
            (false, _) => fresh,
            (true, false) => sealed,
            (true, true) => active,
        };
        let mut body = json!({
            "initialized": initialized,
            "sealed": !unsealed,
            "standby": false,
            "performance_standby": false,
            "replication_performance_mode": "disabled",
            "replication_dr_mode": "disabled",
            "enterprise": false,
            "echo_duration_ms": 0,
            "clock_skew_ms": 0,
            "server_time_utc": self.core.clock.now().as_secs(),
            "version": env!("CARGO_PKG_VERSION"),
        });
        if unsealed && let Ok(status) = self.core.seal_status().await {
            body = self.with_cluster(body, status.cluster_id);
        }
        Ok(Done { status, body, undo: Undo::Nothing })
    }

    async fn seal_status(&self) -> Result<Done, CoreError> {
        let status = self.core.seal_status().await?;
        let body = json!({
            "type": status.kind,
            "initialized": status.initialized,
            "sealed": status.sealed,
            "t": status.threshold,
            "n": status.shares,
            "progress": status.progress,
            "nonce": status.nonce,
            "version": env!("CARGO_PKG_VERSION"),
            "migration": false,
            "recovery_seal": false,
            "storage_type": self.core.storage.name(),
        });
        Ok(Done::ok(self.with_cluster(body, status.cluster_id)))
    }

    async fn seal_backends(&self) -> Result<Done, CoreError> {
        let backends = self.core.seal_backends().await?;
        let shown = backends.iter().map(
            |one| json!({ "name": one.kind, "configured": one.configured, "healthy": one.healthy }),
        );
        Ok(Done::ok(json!({
            "healthy": backends.iter().all(|one| one.healthy),
            "fully_wrapped": true,
            "backends": shown.collect::<Vec<_>>(),
        })))
    }

    /// Which cluster it is; not said while sealed.
    fn with_cluster(&self, body: Value, id: Option<String>) -> Value {
        let name = &self.core.settings.cluster_name;
        match id {
            Some(id) => ceremony_api::with(body, json!({ "cluster_name": name, "cluster_id": id })),
            None => body,
        }
    }

    async fn unseal(&self) -> Result<Done, CoreError> {
        if self.fields.boolean("migrate")?.unwrap_or(false) {
            return Err(CoreError::field("migrate", "is not supported: slots stand side by side"));
        }
        if self.fields.boolean("reset")?.unwrap_or(false) {
            self.core.reset_unseal(&self.giver());
        } else {
            let was_sealed = self.core.unsealed().is_err();
            let key = self.fields.secret("key")?.filter(|key| !key.expose().is_empty());
            let key = key.ok_or_else(|| {
                CoreError::invalid(
                    "'key' must be specified in request body as JSON, or 'reset' set",
                )
            })?;
            let sealed = self.core.unseal(key.expose(), &self.giver()).await?.sealed;
            if was_sealed && !sealed {
                return Ok(Done { undo: Undo::Unsealed, ..self.seal_status().await? });
            }
        }
        self.seal_status().await
    }

    async fn init(&self) -> Result<Done, CoreError> {
        let fields = self.fields;
        ceremony_api::refuse_pgp(fields, &["pgp_keys", "root_token_pgp_key", "recovery_pgp_keys"])?;
        for name in ["recovery_shares", "recovery_threshold"] {
            if fields.integer(name)?.unwrap_or(0) != 0 {
                return Err(CoreError::field(
                    name,
                    "is not supported: ask for secret_shares, which open beside other slots",
                ));
            }
        }
        let (shares, threshold) = ceremony_api::split(fields)?;
        let plan =
            InitPlan { suite: suite(fields)?.unwrap_or(Suite::Aes256Gcm), shares, threshold };
        // The keys exist for one answer. It must not be the audit that keeps it from leaving.
        let begins = json!({ "shares": shares, "threshold": threshold });
        self.core.audit.record_event("initializing", &begins).await.map_err(refused_by_audit)?;
        let made = self.core.initialize(plan).await?;
        let (hex, base64) = ceremony_api::keys_json(&made.keys);
        let body = json!({
            "keys": hex,
            "keys_base64": base64,
            "root_token": made.root_token.expose(),
        });
        if let Err(error) = self.core.unseal_automatically().await {
            tracing::error!(%error, reason = error.reason(), "not unsealed after initialising");
        }
        Ok(Done::ok(body))
    }
}

fn asker(name: &str, sudo: bool) -> Asker<'_> {
    if sudo { Asker::Knowing } else { Asker::Named(name) }
}

/// The cipher asked for.
pub(super) fn suite(fields: &Fields) -> Result<Option<Suite>, CoreError> {
    let Some(name) = fields.text("suite")?.filter(|name| !name.is_empty()) else {
        return Ok(None);
    };
    let suite = Suite::from_name(&name);
    suite
        .map(Some)
        .ok_or_else(|| CoreError::field("suite", "must be \"aes256-gcm\" or \"chacha20-poly1305\""))
}

fn status_code(fields: &Fields, name: &str, default: u16) -> Result<u16, CoreError> {
    let Some(code) = fields.integer(name)? else { return Ok(default) };
    let code = u16::try_from(code).ok().filter(|code| (200..=599).contains(code));
    code.ok_or_else(|| CoreError::field(name, "must be a status between 200 and 599"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::route::Access;

    fn fields(value: Value) -> Fields {
        Fields::new(value.as_object().unwrap().clone())
    }

    #[test]
    fn every_path_is_found_and_parses_as_a_canonical_one() {
        for spec in specs() {
            let path = ApiPath::parse(spec.pattern).unwrap();
            assert_eq!(find(Verb::Read, &path).unwrap().name(), spec.name);
            assert_eq!(spec.access, Access::Public);
        }
        for other in ["sys/seal", "sys/init/x", "sys/unsealed", "init"] {
            assert!(find(Verb::Write, &ApiPath::parse(other).unwrap()).is_none(), "{other}");
        }
    }

    #[test]
    fn status_overrides_are_statuses() {
        assert_eq!(status_code(&fields(json!({})), "sealedcode", 503).unwrap(), 503);
        assert_eq!(
            status_code(&fields(json!({"sealedcode": "204"})), "sealedcode", 503).unwrap(),
            204
        );
        for bad in [json!(99), json!(0), json!(600), json!(-1), json!("x"), json!(70_000)] {
            assert!(status_code(&fields(json!({"sealedcode": bad})), "sealedcode", 503).is_err());
        }
    }
}
