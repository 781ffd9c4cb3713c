//! One request from end to end: audit ticket, phase, caller, permit, engine, lease, audit entry.

use std::sync::Arc;

use serde_json::{Map, Value};

use crate::types::id::RequestId;
use crate::types::path::ApiPath;
use crate::types::time::{Timestamp, Ttl};

use super::acl::CheckRequest;
use super::acl::permit::Permit;
use super::audit::AuditError;
use super::audit::entry::{
    CallerSummary, MountSummary, OperationSummary, Outcome as Ending, PeerSummary,
};
use super::audit::redact::Redaction;
use super::audit::ticket::AuditTicket;
use super::caller::{Caller, Via};
use super::context::{Core, SystemContext, SystemRoutes, Unsealed};
use super::engine::{AuthOutcome, AuthRequest, CallerFacts, EngineRequest, Outcome};
use super::error::CoreError;
use super::failpoint::{fail_point, leak_point, panic_point};
use super::fields::Fields;
use super::lease::{Issuing, Owner};
use super::login::LogIn;
use super::mount::{Backend, Mounted};
use super::operation::Operation;
use super::outliving::nobody_waits;
use super::peer::ConnectionInfo;
use super::reply::Reply;
use super::request::{Answered, Request, ServedBy, Verb};
use super::route::{self, Access, Params, RouteSpec};
use super::token::Use;
use super::unanswered::{take_back, withdraw_unless_finished};

/// The reason in the audit for an answer that went to nobody.
const UNHEARD: &str = "nobody waited for the answer: what was issued with it is taken back";

/// Where a path leads.
enum Place<'c, 'p> {
    /// To a table of the server itself.
    System(&'c dyn SystemRoutes, &'p str),
    /// To a mount.
    Mount(Arc<Mounted>, &'p str),
    /// Nowhere.
    Nowhere,
}

/// What a path was matched with.
struct Matched<'p> {
    route: &'static RouteSpec,
    params: Params<'p>,
}

impl Core {
    /// Serves one request. The answer, good or bad, is in the audit when this returns. Once begun, it
    /// is served to its end, also when this is dropped; what is issued for nobody is taken back.
    ///
    /// # Errors
    /// `AuditUnavailable` or `Overloaded` when no sink took the entry: then nothing may be answered,
    /// and what was issued is taken back.
    pub async fn handle(self: &Arc<Self>, request: Request) -> Result<Answered, CoreError> {
        let core = Arc::clone(self);
        self.outliving.see_through(async move { core.handle_whole(request).await }).await
    }

    async fn handle_whole(self: &Arc<Self>, request: Request) -> Result<Answered, CoreError> {
        let summary = summary(
            &request.id,
            request.received_at,
            request.verb.operation(),
            request.path.as_str(),
            &request.connection,
        );
        let _listed = self.in_flight.enter(&request);
        let mutating = request.verb.operation().is_write();
        let mut ticket = self.audit.open(summary, mutating).await.map_err(refused_by_audit)?;
        let mut served = ServedBy::route("none");
        let result = match self.outliving.admit() {
            Ok(()) => self.serve(&mut ticket, &mut served, request).await,
            Err(overloaded) => Err(overloaded),
        };
        let answered = self.conclude(ticket, served, result).await;
        if nobody_waits()
            && let Ok(Answered { result: Ok(reply), .. }) = &answered
            && let Ok(unsealed) = self.unsealed()
        {
            take_back(&unsealed, reply.made()).await;
        }
        answered
    }

    /// Records a request that was refused before it reached the core: its path or body was bad.
    ///
    /// # Errors
    /// As [`Core::handle`].
    pub async fn refuse(
        &self,
        id: RequestId,
        received_at: Timestamp,
        verb: Verb,
        path: &str,
        connection: &ConnectionInfo,
        error: CoreError,
    ) -> Result<Answered, CoreError> {
        let summary = summary(&id, received_at, verb.operation(), path, connection);
        let ticket = self.audit.open(summary, false).await.map_err(refused_by_audit)?;
        let served = ServedBy::route("refused");
        self.conclude(ticket, served, Err(error)).await
    }

    async fn conclude(
        &self,
        mut ticket: AuditTicket,
        served: ServedBy,
        mut result: Result<Reply, CoreError>,
    ) -> Result<Answered, CoreError> {
        let unsealed = self.unsealed().ok();
        let mut ending = Ending {
            store_sequence: unsealed.as_ref().map(|unsealed| unsealed.records.sequence()),
            ..Ending::default()
        };
        match &mut result {
            Ok(reply) => {
                ending.status = reply.http_status();
                ending.lease_id = reply.lease_id().cloned();
                if let Some(unsealed) = &unsealed {
                    withdraw_unless_finished(&mut ticket, unsealed, reply);
                    let shown = ticket.shown_in_response();
                    let redaction = Redaction::with_clear_keys(&unsealed.audit_key, &shown);
                    let wrapping = reply.wrap.as_ref();
                    ending.wrapping_accessor =
                        wrapping.map(|wrap| redaction.text(wrap.accessor.as_str()));
                    reply.with_audit_view(|view| {
                        panic_point("request.answer", || format!("{view:?}"));
                        ticket.set_response_data(redaction.value(view));
                    });
                }
            }
            Err(error) => {
                ending.status = error.status();
                ending.error = Some(error.public_text());
                if let Some(reason) = error.reason() {
                    ticket.set_reason(reason);
                }
                log_failure(&ticket, error);
            }
        }
        if nobody_waits() && result.is_ok() {
            ticket.set_reason(UNHEARD);
        }
        leak_point();
        fail_point("request.served");
        match ticket.finish(ending).await {
            Ok(receipt) => {
                fail_point("request.audited");
                Ok(Answered::new(result, served, receipt))
            }
            Err(error) => {
                if let (Ok(reply), Some(unsealed)) = (&result, &unsealed) {
                    take_back(unsealed, reply.made()).await;
                }
                Err(refused_by_audit(error))
            }
        }
    }

    async fn serve(
        self: &Arc<Self>,
        ticket: &mut AuditTicket,
        served: &mut ServedBy,
        mut request: Request,
    ) -> Result<Reply, CoreError> {
        let unsealed = self.unsealed()?;
        if request.verb == Verb::List {
            request.path = request.path.to_dir();
        }
        if let Some(ttl) = request.wrap_ttl {
            super::wrap::check_ttl(ttl)?;
        }
        let path = request.path.clone();
        let place = self.place(&unsealed, &path);
        served.mount_type = mount_type(&place).to_owned();
        if let Place::Mount(mounted, _) = &place {
            ticket.show_in_response(&mounted.entry.config.audit_non_hmac_response_keys);
            ticket.set_mount(MountSummary {
                kind: mounted.entry.kind.clone(),
                accessor: mounted.entry.accessor.clone(),
                path: mounted.entry.path.clone(),
            });
        }
        let clear = match &place {
            Place::Mount(mounted, _) => mounted.entry.config.audit_non_hmac_request_keys.as_slice(),
            Place::System(..) | Place::Nowhere => &[],
        };
        let redaction = Redaction::with_clear_keys(&unsealed.audit_key, clear);
        if !request.fields.is_empty() {
            let body = Value::Object(std::mem::take(&mut request.fields));
            ticket.set_request_data(redaction.value(&body));
            request.fields = into_map(body);
        }
        panic_point("request.serve", || format!("{:?}", request.fields));
        if let Some(peer) = &request.connection.peer {
            // Validity, revocation and trust are judged now, however old the connection is.
            self.trust
                .judge(peer, self.clock.now())
                .map_err(|error| CoreError::denied(format!("certificate: {error}")))?;
        }
        let matched = match &place {
            Place::System(table, rest) => matched(table.routes(), rest, request.verb),
            Place::Mount(mounted, rest) => matched(mounted.routes(), rest, request.verb),
            Place::Nowhere => None,
        };
        if let Some(found) = &matched {
            served.route = route_label(&place, found.route);
            // Whatever writes was asked before: what no sink would take is not begun.
            if found.route.makes(request.verb.operation()) {
                self.audit.ready().map_err(refused_by_audit)?;
            }
        }
        if let Some(found) = &matched
            && found.route.access == Access::Public
        {
            admit(&unsealed, None, &request, served).await?;
            return self.serve_public(&unsealed, &place, found, request).await;
        }
        let token = request.token.as_ref().map(|token| token.expose());
        let claims_nothing = token.is_none();
        let caller = match self.caller(&unsealed, token, &request.connection).await {
            Ok(caller) => caller,
            Err(unknown) => {
                // Guessing counts, too.
                admit(&unsealed, None, &request, served).await?;
                return match matched {
                    Some(found)
                        if found.route.access == Access::Anybody
                            && claims_nothing
                            && matches!(unknown, CoreError::Denied { .. }) =>
                    {
                        self.serve_public(&unsealed, &place, &found, request).await
                    }
                    Some(_) | None => Err(unknown),
                };
            }
        };
        ticket.set_caller(caller_summary(&caller, &redaction));
        admit(&unsealed, Some(&caller), &request, served).await?;
        let used = match caller.token() {
            Some(token) => unsealed.tokens.consume_use(token).await?,
            None => Use::More,
        };
        let result = self.serve_caller(&unsealed, ticket, &place, matched, &caller, request).await;
        let Some(hash) = caller.token().and_then(|token| token.stored_name()) else {
            return result;
        };
        match used {
            Use::More => result,
            Use::Last => spent(&unsealed, &caller, hash, result).await,
        }
    }

    fn place<'c, 'p>(&'c self, unsealed: &Unsealed, path: &'p ApiPath) -> Place<'c, 'p> {
        let tables = self.system().iter().filter_map(|table| {
            let rest = path.strip_mount(table.prefix())?;
            Some((table.as_ref(), rest))
        });
        let mut fallback = None;
        for (table, rest) in tables {
            // Several tables share `sys/`: the first that knows the path serves it.
            if route::find(table.routes(), rest).is_some() {
                return Place::System(table, rest);
            }
            fallback = Some(Place::System(table, rest));
        }
        if let Some(place) = fallback {
            return place;
        }
        match unsealed.mounts.route(path) {
            Some((mounted, rest)) => Place::Mount(mounted, rest),
            None => Place::Nowhere,
        }
    }

    /// Who may call what `operation` at `path` leads to; `None` when it leads nowhere.
    pub(super) fn access_at(
        &self,
        unsealed: &Unsealed,
        path: &ApiPath,
        operation: Operation,
    ) -> Option<Access> {
        let found = match self.place(unsealed, path) {
            Place::System(table, rest) => route::select(table.routes(), rest, operation),
            Place::Mount(mounted, rest) => route::select(mounted.routes(), rest, operation),
            Place::Nowhere => None,
        };
        found.map(|(route, _)| route.access)
    }

    async fn serve_public(
        self: &Arc<Self>,
        unsealed: &Arc<Unsealed>,
        place: &Place<'_, '_>,
        found: &Matched<'_>,
        request: Request,
    ) -> Result<Reply, CoreError> {
        let operation = request.verb.operation();
        if !found.route.serves(operation) {
            return Err(CoreError::Unsupported);
        }
        let permit = Permit::unauthenticated(&request.path, operation);
        let warnings = unknown_fields(found.route, &request.fields);
        let mut reply = match place {
            Place::Mount(mounted, _) if mounted.entry.disabling => return Err(mounted.closing()),
            Place::Mount(mounted, _) => match &mounted.backend {
                Backend::Auth(_) => {
                    let auth = AuthRequest {
                        operation,
                        route: found.route,
                        params: found.params.clone(),
                        fields: Fields::new(request.fields),
                        peer: request.connection.peer.as_ref(),
                        remote: request.connection.remote.ip(),
                        locked: false,
                    };
                    let log_in = LogIn {
                        path: request.path.as_str(),
                        connection: &request.connection,
                        codes: &request.codes,
                        at: self.clock.now(),
                    };
                    super::login::serve(unsealed, mounted, &permit, auth, &log_in).await?
                }
                Backend::Secret(engine) => {
                    let call = EngineRequest {
                        operation,
                        route: found.route,
                        params: found.params.clone(),
                        fields: Fields::new(request.fields),
                        merge_patch: false,
                        caller: &CallerFacts::default(),
                    };
                    match engine.handle(&mounted.context(), &permit, call).await? {
                        Outcome::Respond(reply) => reply,
                        Outcome::Issue(_) => {
                            return Err(CoreError::internal("a lease on a route that is public"));
                        }
                    }
                }
            },
            Place::System(table, _) => {
                let nobody = Arc::new(Caller::nobody());
                let ctx = SystemContext {
                    core: self,
                    unsealed,
                    caller: &nobody,
                    request_id: &request.id,
                    connection: &request.connection,
                    token: request.token.as_ref(),
                    wrap_ttl: request.wrap_ttl,
                };
                let call = EngineRequest {
                    operation,
                    route: found.route,
                    params: found.params.clone(),
                    fields: Fields::new(request.fields),
                    merge_patch: false,
                    caller: &nobody.facts,
                };
                table.handle(&ctx, &permit, call).await?
            }
            Place::Nowhere => return Err(CoreError::NotFound),
        };
        reply.warnings.extend(warnings);
        wrapped(unsealed, reply, request.wrap_ttl, request.path.as_str()).await
    }

    async fn serve_caller(
        self: &Arc<Self>,
        unsealed: &Arc<Unsealed>,
        ticket: &mut AuditTicket,
        place: &Place<'_, '_>,
        matched: Option<Matched<'_>>,
        caller: &Arc<Caller>,
        request: Request,
    ) -> Result<Reply, CoreError> {
        let ctx = SystemContext {
            core: self,
            unsealed,
            caller,
            request_id: &request.id,
            connection: &request.connection,
            token: request.token.as_ref(),
            wrap_ttl: request.wrap_ttl,
        };
        let operation = match (&matched, request.verb) {
            (Some(found), Verb::Write) => exists(&ctx, place, found).await?,
            (Some(_) | None, verb) => verb.operation(),
        };
        ticket.set_operation(operation.as_str());
        let permit = match &matched {
            Some(found) if matches!(found.route.access, Access::Anybody | Access::Identified) => {
                Permit::identified(&request.path, operation)
            }
            Some(_) | None => caller.authorize(&CheckRequest {
                path: &request.path,
                operation,
                parameters: Some(&request.fields),
                wrap_ttl: request.wrap_ttl,
            })?,
        };
        // Only now, so that nobody learns what is mounted by trying.
        let found = matched.ok_or(CoreError::NotFound)?;
        if !found.route.serves(operation) {
            return Err(CoreError::Unsupported);
        }
        if found.route.access == Access::Sudo && !permit.sudo() {
            return Err(CoreError::denied("the path needs the sudo capability"));
        }
        if let Place::Mount(mounted, _) = place
            && mounted.entry.disabling
            && operation.is_write()
        {
            return Err(mounted.closing());
        }
        let warnings = unknown_fields(found.route, &request.fields);
        let call = Call { found, operation, permit };
        let served = self.dispatch(&ctx, place, call, &request).await;
        // Also after a failure, of which it may be unknown what it has changed.
        if operation.is_write() && changes_standing(place) {
            unsealed.callers.forget();
        }
        let mut reply = served?;
        withdraw_unless_finished(ticket, unsealed, &reply);
        reply.warnings.extend(warnings);
        wrapped(unsealed, reply, request.wrap_ttl, request.path.as_str()).await
    }

    async fn dispatch(
        self: &Arc<Self>,
        ctx: &SystemContext<'_>,
        place: &Place<'_, '_>,
        call: Call<'_>,
        request: &Request,
    ) -> Result<Reply, CoreError> {
        let Call { found, operation, permit } = call;
        let fields = Fields::new(request.fields.clone());
        let caller = ctx.caller;
        let engine_request = |fields| EngineRequest {
            operation,
            route: found.route,
            params: found.params.clone(),
            fields,
            merge_patch: request.verb == Verb::Patch,
            caller: &caller.facts,
        };
        match place {
            Place::Nowhere => Err(CoreError::NotFound),
            Place::System(table, _) => table.handle(ctx, &permit, engine_request(fields)).await,
            Place::Mount(mounted, _) => match &mounted.backend {
                Backend::Secret(engine) => {
                    let context = mounted.context();
                    match engine.handle(&context, &permit, engine_request(fields)).await? {
                        Outcome::Respond(reply) => Ok(reply),
                        Outcome::Issue(plan) => issue(ctx, mounted, plan, request).await,
                    }
                }
                Backend::Auth(method) => {
                    let auth = AuthRequest {
                        operation,
                        route: found.route,
                        params: found.params.clone(),
                        fields,
                        peer: request.connection.peer.as_ref(),
                        remote: request.connection.remote.ip(),
                        locked: false,
                    };
                    match method.handle(&mounted.context(), &permit, auth).await? {
                        AuthOutcome::Respond(reply) => Ok(reply),
                        AuthOutcome::Login(_) => {
                            Err(CoreError::internal("a log-in on a route that is not public"))
                        }
                    }
                }
            },
        }
    }
}

/// Counts the request against the quota that covers it.
async fn admit(
    unsealed: &Unsealed,
    caller: Option<&Caller>,
    request: &Request,
    served: &mut ServedBy,
) -> Result<(), CoreError> {
    let (tokens, allowance) = (&unsealed.tokens, &mut served.allowance);
    unsealed.quotas.admit(tokens, &request.path, caller, &request.connection, allowance).await
}

struct Call<'p> {
    found: Matched<'p>,
    operation: Operation,
    permit: Permit,
}

async fn issue(
    ctx: &SystemContext<'_>,
    mounted: &Arc<Mounted>,
    plan: super::engine::LeasePlan,
    request: &Request,
) -> Result<Reply, CoreError> {
    if mounted.entry.disabling {
        return Err(mounted.closing());
    }
    let entity = ctx.caller.entity.as_deref();
    if let Some(entity) = entity {
        ctx.unsealed.identity.ensure(entity).await?;
    }
    let issuing = Issuing {
        mounted,
        path: request.path.as_str(),
        owner: ctx.caller.lease_owner(),
        entity: ctx.caller.facts.entity_id.clone(),
        former: entity.map(|entity| entity.merged_from.as_slice()).unwrap_or_default(),
        entity_row: entity.map(|entity| ctx.unsealed.identity.row_key(&entity.id)),
        asked_with: &ctx.caller.facts.private_key,
        caller_expires_at: ctx.caller.facts.expires_at,
        caller_row: ctx.caller.token_row(ctx.unsealed),
        idempotency_key: request.idempotency_key.as_deref(),
    };
    ctx.unsealed.leases.issue(issuing, plan).await
}

async fn exists(
    ctx: &SystemContext<'_>,
    place: &Place<'_, '_>,
    found: &Matched<'_>,
) -> Result<Operation, CoreError> {
    let exists = match place {
        Place::System(table, _) => table.exists(ctx, found.route, &found.params).await?,
        Place::Mount(mounted, _) => match &mounted.backend {
            Backend::Secret(engine) => {
                engine.exists(&mounted.context(), found.route, &found.params).await?
            }
            Backend::Auth(method) => {
                method.exists(&mounted.context(), found.route, &found.params).await?
            }
        },
        Place::Nowhere => None,
    };
    Ok(if exists == Some(false) { Operation::Create } else { Operation::Update })
}

/// Whether a write at this place can change what callers are or may.
fn changes_standing(place: &Place<'_, '_>) -> bool {
    match place {
        Place::System(table, _) => table.prefix() != "auth/token/",
        Place::Mount(mounted, _) => matches!(mounted.backend, Backend::Auth(_)),
        Place::Nowhere => false,
    }
}

/// The kind of what is mounted there, as stock clients know it.
fn mount_type<'a>(place: &'a Place<'_, '_>) -> &'a str {
    match place {
        Place::System(table, _) => match table.prefix() {
            "auth/token/" => "token",
            "identity/" => "identity",
            _ => "system",
        },
        Place::Mount(mounted, _) => &mounted.entry.kind,
        Place::Nowhere => "",
    }
}

/// Bounded in number: prefixes and kinds come from this build, not from callers.
fn route_label(place: &Place<'_, '_>, route: &RouteSpec) -> String {
    match place {
        Place::System(table, _) => format!("{}{}", table.prefix(), route.pattern),
        Place::Mount(mounted, _) => format!("{}/{}", mounted.entry.kind, route.pattern),
        Place::Nowhere => "none".to_owned(),
    }
}

fn matched<'p>(table: &'static [RouteSpec], rest: &'p str, verb: Verb) -> Option<Matched<'p>> {
    route::select(table, rest, verb.operation()).map(|(route, params)| Matched { route, params })
}

fn unknown_fields(route: &RouteSpec, fields: &Map<String, Value>) -> Vec<String> {
    let unknown: Vec<&str> =
        fields.keys().map(String::as_str).filter(|name| !route.knows_field(name)).collect();
    if unknown.is_empty() {
        return Vec::new();
    }
    vec![format!("Endpoint ignored these unrecognized parameters: [{}]", unknown.join(" "))]
}

fn into_map(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            Map::new()
        }
    }
}

pub(super) fn summary(
    id: &RequestId,
    time: Timestamp,
    operation: Operation,
    path: &str,
    connection: &ConnectionInfo,
) -> OperationSummary {
    OperationSummary {
        request_id: id.clone(),
        time,
        operation: operation.as_str(),
        path: path.to_owned(),
        remote: Some(connection.remote),
        listener: connection.listener.clone(),
        peer: connection.peer.as_ref().map(|peer| PeerSummary {
            spiffe_id: peer.spiffe_id().map(|id| id.as_str().to_owned()),
            common_name: peer.common_name().map(str::to_owned),
            serial: peer.serial().to_owned(),
            fingerprint: data_encoding::HEXLOWER.encode(peer.fingerprint()),
        }),
    }
}

fn caller_summary(caller: &Caller, redaction: &Redaction<'_>) -> CallerSummary {
    let (accessor, token_type, role, scopes) = match &caller.via {
        Via::Token(token) => (
            token.entry.accessor.as_ref().map(|accessor| redaction.text(accessor.as_str())),
            token.entry.token_type.as_str(),
            token.entry.role.clone(),
            token.entry.scopes.clone(),
        ),
        Via::Certificate { grant, .. } => {
            (None, "certificate", Some(grant.role.clone()), Vec::new())
        }
        Via::Nobody => (None, "none", None, Vec::new()),
    };
    CallerSummary {
        entity_id: caller.facts.entity_id.clone(),
        display_name: caller.facts.display_name.clone(),
        policies: caller.policies(),
        scopes,
        accessor,
        token_type,
        role,
    }
}

pub(super) fn refused_by_audit(error: AuditError) -> CoreError {
    CoreError::AuditUnavailable(Box::new(error))
}

/// Wraps an answer that is to be wrapped, has something in it, and is not wrapped yet.
async fn wrapped(
    unsealed: &Unsealed,
    reply: Reply,
    ttl: Option<Ttl>,
    path: &str,
) -> Result<Reply, CoreError> {
    // What a log-in has to show is no secret, and is asked for before there is anything to wrap.
    let wrappable = reply.wrap.is_none() && reply.mfa.is_none() && !reply.is_silent();
    let wanted = ttl.filter(|_| wrappable);
    let Some(ttl) = wanted else { return Ok(reply) };
    let made = reply.made();
    let result = super::wrap::wrap(unsealed, reply, ttl, path).await;
    if result.is_err() {
        take_back(unsealed, made).await;
    }
    result
}

/// Ends a token with its last use. What belonged to it is dead by then, and is not handed out as if
/// it lived.
async fn spent(
    unsealed: &Unsealed,
    caller: &Caller,
    hash: &str,
    result: Result<Reply, CoreError>,
) -> Result<Reply, CoreError> {
    if let Err(error) = unsealed.tokens.revoke_tree(hash).await {
        if let Ok(reply) = result {
            take_back(unsealed, reply.made()).await;
        }
        return Err(error);
    }
    let reply = result?;
    if matches!(caller.lease_owner(), Owner::Token(_)) && !reply.made().leases.is_empty() {
        take_back(unsealed, reply.made()).await;
        return Err(CoreError::invalid(
            "this was the token's last use, and what it is given ends with it: nothing was issued",
        ));
    }
    Ok(reply)
}

/// Failures of ours are logged once, here; what callers did wrong, and what a sealed server has to
/// refuse, is in the audit alone.
pub(super) fn log_failure(ticket: &AuditTicket, error: &CoreError) {
    if error.status() < 500 || matches!(error, CoreError::Sealed) {
        return;
    }
    let request_id = ticket.request_id().map(RequestId::as_str).unwrap_or_default();
    let reason = error.reason();
    tracing::error!(request_id, reason, error = %error, "request failed");
}

impl Caller {
    /// The caller of a path that is open to everybody.
    fn nobody() -> Self {
        Self {
            facts: CallerFacts::default(),
            via: Via::Nobody,
            entity: None,
            token_policies: Vec::new(),
            identity_policies: Vec::new(),
            external: Vec::new(),
            acl: super::acl::Acl::new(
                Vec::new(),
                &super::policy::template::TemplateValues::default(),
            ),
        }
    }
}
