//! What administrators do with the seal: seal it, rotate its keys, replace its shares, release a hold.

use async_trait::async_trait;
use serde_json::{Value, json};

use crate::crypto::keyring::TermInfo;

use super::super::acl::permit::Permit;
use super::super::context::{SystemContext, SystemRoutes};
use super::super::engine::EngineRequest;
use super::super::error::CoreError;
use super::super::fields::Fields;
use super::super::guess::Guesser;
use super::super::operation::Operation;
use super::super::reply::{Reply, Shape};
use super::super::route::{Answer, FieldKind, FieldSpec, RouteSpec, field, route};
use super::ceremony_api;
use super::endpoints::{self, suite};
use super::generate_root::without_pad;
use super::rekey::Asker;
use super::rotate::RotationSettings;

/// The table below `sys/` for the seal.
#[derive(Debug)]
pub struct SealRoutes;

const READ: &[Operation] = &[Operation::Read];
const UPDATE: &[Operation] = &[Operation::Update];
const READ_UPDATE: &[Operation] = &[Operation::Read, Operation::Update];
const ALL: &[Operation] = &[Operation::Read, Operation::Update, Operation::Delete];

const SHARE: &[FieldSpec] = &[
    field("key", FieldKind::Secret, "a share, hexadecimal or base64"),
    field("nonce", FieldKind::Text, "the nonce of the attempt"),
];
const SUITE: &[FieldSpec] = &[field("suite", FieldKind::Text, "aes256-gcm or chacha20-poly1305")];
const ROTATION: &[FieldSpec] = &[
    field("enabled", FieldKind::Boolean, "whether keys are rotated by themselves"),
    field("interval", FieldKind::Duration, "longest age of a key; zero for no limit"),
    field("max_operations", FieldKind::Integer, "most encryptions under a key"),
];

static ROUTES: &[RouteSpec] = &[
    route("step-down", "step-down", "refused: every node is active", UPDATE, &[]).sudo(),
    route(
        "decode-token",
        "decode-token",
        "takes the pad off a root token that was generated",
        UPDATE,
        &[
            field("encoded_token", FieldKind::Secret, "the token under the pad"),
            field("otp", FieldKind::Secret, "the pad"),
        ],
    )
    .public()
    .writes(Answer::Data(&[field("token", FieldKind::Secret, "the token")])),
    route("seal", "seal", "forgets the keys; nothing is served until unsealed", UPDATE, &[]).sudo(),
    route("key-status", "key-status", "the keys in use, and how far re-wrapping is", READ, &[])
        .reads(Answer::Top(KEY_STATUS)),
    route("rotate", "rotate", "makes a further key and re-wraps everything", UPDATE, SUITE).sudo(),
    route("rotate-keyring", "rotate/keyring", "the same under another name", UPDATE, SUITE).sudo(),
    route("rotate-config", "rotate/config", "when keys are rotated", READ_UPDATE, ROTATION)
        .sudo()
        .reads(Answer::Top(ROTATION)),
    route(
        "rotate-keyring-config",
        "rotate/keyring/config",
        "the same under another name",
        READ_UPDATE,
        ROTATION,
    )
    .sudo()
    .reads(Answer::Top(ROTATION)),
    route(
        "rotate-root",
        "rotate/root/init",
        "begins, shows or gives up making new shares",
        ALL,
        ceremony_api::REKEY_FIELDS,
    )
    .sudo()
    .reads(Answer::Data(ceremony_api::REKEY_SHOWN))
    .writes(Answer::Data(ceremony_api::REKEY_SHOWN)),
    route("rotate-root-update", "rotate/root/update", "takes in one old share", UPDATE, SHARE)
        .sudo()
        .writes(Answer::Data(ceremony_api::REKEYED)),
    route("rotate-root-verify", "rotate/root/verify", "takes in one new share", ALL, SHARE)
        .sudo()
        .reads(Answer::Data(ceremony_api::VERIFY_SHOWN))
        .writes(Answer::Data(ceremony_api::VERIFIED))
        .deletes(Answer::Data(ceremony_api::VERIFY_SHOWN)),
    route(
        "hold",
        "hold",
        "whether revocations and rotations are held back; holds or releases them",
        ALL,
        &[field("reason", FieldKind::Text, "why they are held back")],
    )
    .sudo()
    .reads(Answer::Data(&[
        field("held", FieldKind::Boolean, "whether they are held back"),
        field("reason", FieldKind::Text, "why").or_null(),
        field("since", FieldKind::Time, "since when").or_null(),
    ])),
];

const ENCRYPTIONS: FieldSpec = field("encryptions", FieldKind::Integer, "how often it was used");
const INSTALLED: FieldSpec = field("install_time", FieldKind::Time, "when it was made");
const CIPHER: FieldSpec = field("suite", FieldKind::Text, "aes256-gcm or chacha20-poly1305");
const TERM: FieldSpec = field("term", FieldKind::Integer, "its number");
const KEY_STATUS: &[FieldSpec] = &[
    ENCRYPTIONS,
    INSTALLED,
    field(
        "rewrap",
        FieldKind::Object(&[field("pending", FieldKind::Integer, "records under older keys")]),
        "how far re-wrapping is",
    ),
    CIPHER,
    TERM,
    field(
        "terms",
        FieldKind::Objects(&[ENCRYPTIONS, INSTALLED, CIPHER, TERM]),
        "all keys that there are",
    ),
];

#[async_trait]
impl SystemRoutes for SealRoutes {
    fn prefix(&self) -> &'static str {
        "sys/"
    }

    fn routes(&self) -> &'static [RouteSpec] {
        ROUTES
    }

    async fn handle(
        &self,
        ctx: &SystemContext<'_>,
        _permit: &Permit,
        request: EngineRequest<'_>,
    ) -> Result<Reply, CoreError> {
        let (core, fields) = (ctx.core, &request.fields);
        let looks = request.operation == Operation::Read;
        let giver = Guesser::on(ctx.connection);
        match (request.route.name, request.operation) {
            ("seal", _) => seal(ctx).await,
            ("step-down", _) => Err(CoreError::invalid(
                "there is no leader that could step down: every node is active; to take this one \
                 out of service, seal it or stop its process",
            )),
            ("decode-token", _) => decode_token(fields),
            ("key-status", _) => key_status(ctx).await,
            ("rotate" | "rotate-keyring", _) => {
                core.rotate_keys(ctx.unsealed, suite(fields)?).await?;
                Ok(Reply::empty())
            }
            ("rotate-config" | "rotate-keyring-config", _) if looks => rotation(ctx).await,
            ("rotate-config" | "rotate-keyring-config", _) => set_rotation(ctx, &request).await,
            ("rotate-root", Operation::Read) => {
                ceremony_api::rekey_status(core, Asker::Knowing).await.map(reply)
            }
            ("rotate-root", Operation::Delete) => {
                ceremony_api::rekey_cancel(core, fields, Asker::Knowing).await.map(reply)
            }
            ("rotate-root", _) => {
                let starter = request.caller.private_key.clone();
                ceremony_api::rekey_start(core, fields, starter).await.map(reply)
            }
            ("rotate-root-update", _) => {
                ceremony_api::rekey_update(core, fields, &giver).await.map(reply)
            }
            ("rotate-root-verify", Operation::Read) => {
                ceremony_api::verify_status(core, Asker::Knowing).map(reply)
            }
            ("rotate-root-verify", Operation::Delete) => {
                ceremony_api::verify_restart(core, fields, Asker::Knowing).map(reply)
            }
            ("rotate-root-verify", _) => {
                ceremony_api::verify_update(core, fields, &giver).await.map(reply)
            }
            ("hold", _) => hold(ctx, &request).await,
            _ => Err(CoreError::Unsupported),
        }
    }
}

fn reply(answer: endpoints::Done) -> Reply {
    Reply::data(answer.body)
}

fn decode_token(fields: &Fields) -> Result<Reply, CoreError> {
    let required = |name: &'static str| {
        let given = fields.secret(name)?.filter(|text| !text.expose().is_empty());
        given.ok_or_else(|| CoreError::field(name, "is required"))
    };
    let token = without_pad(&required("encoded_token")?, &required("otp")?)?;
    Ok(Reply::data(json!({ "token": token.expose() })))
}

async fn seal(ctx: &SystemContext<'_>) -> Result<Reply, CoreError> {
    if let Some(sealing) = ctx.core.begin_seal().await {
        // This very request still uses the keys: its end is not waited for here.
        tokio::spawn(sealing.finished());
    }
    Ok(Reply::empty())
}

async fn key_status(ctx: &SystemContext<'_>) -> Result<Reply, CoreError> {
    let status = ctx.core.key_status(ctx.unsealed).await?;
    let term = |term: &TermInfo| {
        json!({
            "term": term.term,
            "suite": term.suite.name(),
            "install_time": term.created_at.to_rfc3339(),
            "encryptions": term.encryptions,
        })
    };
    let terms: Vec<Value> = status.terms.iter().map(term).collect();
    let further = json!({ "terms": terms, "rewrap": { "pending": status.pending } });
    let body = ceremony_api::with(term(&status.active), further);
    Ok(Reply::data(body).shaped(Shape::EnvelopeAndTop))
}

async fn rotation(ctx: &SystemContext<'_>) -> Result<Reply, CoreError> {
    let settings = ctx.core.rotation_settings(ctx.unsealed).await?;
    let body = json!({
        "enabled": settings.enabled,
        "interval": settings.interval.as_secs(),
        "max_operations": settings.max_operations,
    });
    Ok(Reply::data(body).shaped(Shape::EnvelopeAndTop))
}

async fn set_rotation(
    ctx: &SystemContext<'_>,
    request: &EngineRequest<'_>,
) -> Result<Reply, CoreError> {
    let present = ctx.core.rotation_settings(ctx.unsealed).await?;
    let fields = &request.fields;
    let settings = RotationSettings {
        enabled: fields.boolean("enabled")?.unwrap_or(present.enabled),
        interval: fields.duration("interval")?.unwrap_or(present.interval),
        max_operations: fields.integer("max_operations")?.unwrap_or(present.max_operations),
    };
    ctx.core.set_rotation_settings(ctx.unsealed, settings).await?;
    Ok(Reply::empty())
}

async fn hold(ctx: &SystemContext<'_>, request: &EngineRequest<'_>) -> Result<Reply, CoreError> {
    match request.operation {
        Operation::Read | Operation::List => {
            let hold = ctx.unsealed.leases.hold();
            Ok(Reply::data(json!({
                "held": hold.is_some(),
                "reason": hold.as_ref().map(|hold| hold.reason.as_str()),
                "since": hold.as_ref().map(|hold| hold.since.to_rfc3339()),
            })))
        }
        Operation::Delete => {
            ctx.core.release_hold(ctx.unsealed, &request.caller.display_name).await?;
            Ok(Reply::empty())
        }
        Operation::Create | Operation::Patch | Operation::Update => {
            let reason = request.fields.required_text("reason")?;
            ctx.unsealed.leases.set_hold(reason).await?;
            Ok(Reply::empty())
        }
    }
}
