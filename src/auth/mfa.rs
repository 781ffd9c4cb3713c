//! `identity/mfa/`: one-time passwords as a second factor, and of whom they are demanded.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use async_trait::async_trait;
use serde_json::{Value, json};

use crate::core::acl::permit::Permit;
use crate::core::context::{SystemContext, SystemRoutes};
use crate::core::engine::EngineRequest;
use crate::core::error::CoreError;
use crate::core::fields::Fields;
use crate::core::identity::Entity;
use crate::core::mfa::{Enforcement, Enrolled, Method, Settings};
use crate::core::mount::Backend;
use crate::core::operation::Operation;
use crate::core::reply::Reply;
use crate::core::route::{Answer, FieldKind, FieldSpec, RouteSpec, field, route};
use crate::core::token::policy_names;
use crate::crypto::otp::barcode::{PIXELS_DEFAULT, PIXELS_MAX};
use crate::crypto::otp::{
    OTP_KEY_BYTES_DEFAULT, OTP_KEY_BYTES_MAX, OTP_KEY_BYTES_MIN, OtpAlgorithm, OtpDigits, OtpError,
    TotpParameters,
};
use crate::types::id::{EntityId, MountAccessor, random_uuid};

/// Most elements of a list.
const LIST_MAX: usize = 100;
/// Longest name, in bytes.
const NAME_BYTES_MAX: usize = 256;
/// Wrong codes after which a shared secret is locked when nothing is said.
const ATTEMPTS_DEFAULT: u64 = 5;
/// Most wrong codes that can be allowed.
const ATTEMPTS_MAX: u64 = 10;

const METHOD_FIELDS: &[FieldSpec] = &[
    field("method_name", FieldKind::Text, "A name for people, and for the header X-Vault-MFA."),
    field("issuer", FieldKind::Text, "Who the codes are for, as apps show it."),
    field("algorithm", FieldKind::Text, "SHA1 (default), SHA256 or SHA512."),
    field("digits", FieldKind::Integer, "6 (default) or 8."),
    field("period", FieldKind::Duration, "How long one code is the present one; 30 seconds."),
    field("skew", FieldKind::Integer, "Codes before and after the present one that count; 1."),
    field("key_size", FieldKind::Integer, "Bytes of a shared secret; 20."),
    field("max_validation_attempts", FieldKind::Integer, "Wrong codes until it is locked; 5."),
    field("qr_size", FieldKind::Integer, "Width of barcodes in pixels; 0 for none (default 200)."),
];

const METHOD: &[FieldSpec] = &[
    field("algorithm", FieldKind::Text, "The hash."),
    field("digits", FieldKind::Integer, "How long codes are."),
    field("id", FieldKind::Text, "Its id."),
    field("issuer", FieldKind::Text, "Who the codes are for."),
    field("key_size", FieldKind::Integer, "Bytes of a shared secret."),
    field("max_validation_attempts", FieldKind::Integer, "Wrong codes until it is locked."),
    field("name", FieldKind::Text, "Its name."),
    field("namespace_id", FieldKind::Text, "Always root."),
    field("period", FieldKind::Integer, "How long one code is the present one, in seconds."),
    field("qr_size", FieldKind::Integer, "Width of barcodes in pixels; 0 for none."),
    field("skew", FieldKind::Integer, "Codes before and after the present one that count."),
    field("type", FieldKind::Text, "Always totp."),
];

const ENFORCEMENT_FIELDS: &[FieldSpec] = &[
    field("mfa_method_ids", FieldKind::List, "The methods, one of which has to be proven."),
    field("auth_method_accessors", FieldKind::List, "For log-ins by these auth mounts."),
    field("auth_method_types", FieldKind::List, "For log-ins by auth mounts of these types."),
    field("identity_group_ids", FieldKind::List, "For the members of these groups."),
    field("identity_entity_ids", FieldKind::List, "For these entities."),
    field("policies", FieldKind::List, "For whoever would get one of these policies."),
];

const ENFORCEMENT: &[FieldSpec] = &[
    field("auth_method_accessors", FieldKind::List, "Its auth mounts."),
    field("auth_method_types", FieldKind::List, "Its types of auth mounts."),
    field("id", FieldKind::Text, "Its id."),
    field("identity_entity_ids", FieldKind::List, "Its entities."),
    field("identity_group_ids", FieldKind::List, "Its groups."),
    field("mfa_method_ids", FieldKind::List, "Its methods."),
    field("name", FieldKind::Text, "Its name."),
    field("namespace_id", FieldKind::Text, "Always root."),
    field("policies", FieldKind::List, "Its policies."),
];

const SECRET: &[FieldSpec] = &[
    field("barcode", FieldKind::Secret, "The address as a QR code: a PNG image in base64.")
        .if_any(),
    field("url", FieldKind::Secret, "The shared secret, as an otpauth address for apps."),
];

const BY_ADMIN: &[FieldSpec] = &[
    field("method_id", FieldKind::Text, "The method."),
    field("entity_id", FieldKind::Text, "Whose shared secret."),
];

const LIST: &[Operation] = &[Operation::List];
const WRITE: &[Operation] = &[Operation::Update];
const READ_WRITE_DELETE: &[Operation] = &[Operation::Delete, Operation::Read, Operation::Update];
const ALL: &[Operation] =
    &[Operation::Create, Operation::Delete, Operation::Read, Operation::Update];

static ROUTES: &[RouteSpec] = &[
    route("mfa-methods", "mfa/method", "The ids of all MFA methods.", LIST, &[]),
    route(
        "totp-methods",
        "mfa/method/totp",
        "The ids of all TOTP methods; a write makes one.",
        &[Operation::List, Operation::Update],
        METHOD_FIELDS,
    )
    .writes(Answer::Data(&[field("method_id", FieldKind::Text, "Its id.")])),
    route(
        "totp-generate",
        "mfa/method/totp/generate",
        "Make a shared secret for the caller, who has none yet.",
        WRITE,
        &[field("method_id", FieldKind::Text, "The method.")],
    )
    .writes(Answer::Maybe(SECRET)),
    route(
        "totp-admin-generate",
        "mfa/method/totp/admin-generate",
        "Make a shared secret for an entity that has none yet.",
        WRITE,
        BY_ADMIN,
    )
    .writes(Answer::Maybe(SECRET)),
    route(
        "totp-admin-destroy",
        "mfa/method/totp/admin-destroy",
        "Forget an entity's shared secret.",
        WRITE,
        BY_ADMIN,
    ),
    route("totp-method", "mfa/method/totp/:id", "A method.", READ_WRITE_DELETE, METHOD_FIELDS)
        .reads(Answer::Data(METHOD)),
    route("mfa-method", "mfa/method/:id", "A method.", &[Operation::Read], &[])
        .reads(Answer::Data(METHOD)),
    route("mfa-enforcements", "mfa/login-enforcement", "All enforcements.", LIST, &[]),
    route(
        "mfa-enforcement",
        "mfa/login-enforcement/:name",
        "Of whom a second factor is demanded at log-in.",
        ALL,
        ENFORCEMENT_FIELDS,
    )
    .reads(Answer::Data(ENFORCEMENT)),
];

/// The table.
pub struct MfaRoutes;

#[async_trait]
impl SystemRoutes for MfaRoutes {
    fn prefix(&self) -> &'static str {
        "identity/"
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
        let (mfa, fields) = (&ctx.unsealed.mfa, &request.fields);
        let settings = mfa.settings().await?;
        let id = || request.params.get("id");
        match (request.route.name, request.operation) {
            ("mfa-methods" | "totp-methods", Operation::List) => {
                Reply::listing(settings.methods.keys().cloned().collect())
            }
            ("mfa-enforcements", _) => {
                Reply::listing(settings.enforcements.keys().cloned().collect())
            }
            ("totp-methods", _) => {
                let method = method_of(fields, new_method()?)?;
                mfa.change(|all| {
                    all.methods.insert(method.id.clone(), method.clone());
                    Ok(())
                })
                .await?;
                Ok(Reply::data(json!({ "method_id": method.id })))
            }
            ("totp-method" | "mfa-method", Operation::Read) => {
                Ok(Reply::data(shown(settings.methods.get(id()).ok_or(CoreError::NotFound)?)))
            }
            ("totp-method", Operation::Delete) => {
                mfa.delete_method(id()).await?;
                Ok(Reply::empty())
            }
            ("totp-method", _) => {
                mfa.change(|all| {
                    let known = all.methods.get_mut(id()).ok_or(CoreError::NotFound)?;
                    *known = method_of(fields, known.clone())?;
                    Ok(())
                })
                .await?;
                Ok(Reply::empty())
            }
            ("totp-generate", _) => {
                let nobody = || CoreError::invalid("the caller has no entity");
                let entity = ctx.caller.entity.as_ref().ok_or_else(nobody)?;
                // A caller by certificate may not have been stored yet.
                ctx.unsealed.identity.ensure(entity).await?;
                generate(ctx, entity, fields).await
            }
            ("totp-admin-generate", _) => {
                let entity = entity_of(ctx, fields).await?;
                generate(ctx, &entity, fields).await
            }
            ("totp-admin-destroy", _) => {
                let entity = entity_of(ctx, fields).await?;
                mfa.forget_secret(&entity.id, &known_method(&settings, fields)?.id).await?;
                Ok(Reply::empty())
            }
            _ => enforcement(ctx, &request).await,
        }
    }
}

async fn entity_of(
    ctx: &SystemContext<'_>,
    fields: &Fields,
) -> Result<std::sync::Arc<Entity>, CoreError> {
    let id = EntityId::new(fields.required_text("entity_id")?);
    let found = ctx.unsealed.identity.get(&id).await?;
    found.ok_or_else(|| CoreError::field("entity_id", "is not the id of an entity"))
}

async fn generate(
    ctx: &SystemContext<'_>,
    entity: &Entity,
    fields: &Fields,
) -> Result<Reply, CoreError> {
    let mfa = &ctx.unsealed.mfa;
    let settings = mfa.settings().await?;
    let method = known_method(&settings, fields)?;
    let row = ctx.unsealed.identity.row_key(&entity.id);
    Ok(match mfa.enrol(entity, row, method).await? {
        Enrolled::Now { url, barcode } => {
            let image = barcode.map(|image| ("barcode".to_owned(), json!(image.expose())));
            let address = ("url".to_owned(), json!(url.expose()));
            Reply { data: Some(image.into_iter().chain([address]).collect()), ..Reply::default() }
        }
        Enrolled::Already => Reply::empty()
            .warn("the entity has a shared secret for the method already; destroy that one first"),
    })
}

fn known_method<'s>(settings: &'s Settings, fields: &Fields) -> Result<&'s Method, CoreError> {
    let id = fields.required_text("method_id")?;
    let unknown = || CoreError::field("method_id", "is not the id of a method");
    settings.methods.get(&id).ok_or_else(unknown)
}

/// A method of which nothing was said.
fn new_method() -> Result<Method, CoreError> {
    Ok(Method {
        id: random_uuid()?,
        name: String::new(),
        issuer: String::new(),
        parameters: TotpParameters::default(),
        key_bytes: OTP_KEY_BYTES_DEFAULT,
        barcode_pixels: PIXELS_DEFAULT,
        attempts_max: ATTEMPTS_DEFAULT,
    })
}

/// `usual` with what the fields say.
fn method_of(fields: &Fields, usual: Method) -> Result<Method, CoreError> {
    let text = |name: &str, usual: &str| -> Result<String, CoreError> {
        let text = fields.text(name)?.unwrap_or_else(|| usual.to_owned());
        let odd = |c: char| c.is_control() || c == ':';
        if text.len() > NAME_BYTES_MAX || text.contains(odd) {
            return Err(CoreError::field(name, "is too long, or has a colon or control character"));
        }
        Ok(text)
    };
    let number = |name: &str, usual: u64, range: RangeInclusive<u64>| -> Result<u64, CoreError> {
        let number = fields.integer(name)?.unwrap_or(usual);
        if range.contains(&number) {
            return Ok(number);
        }
        let problem = format!("must be {} to {}", range.start(), range.end());
        Err(CoreError::field(name, problem))
    };
    let issuer = text("issuer", &usual.issuer)?;
    if issuer.is_empty() {
        return Err(CoreError::field("issuer", "is required"));
    }
    let key_sizes = OTP_KEY_BYTES_MIN as u64..=OTP_KEY_BYTES_MAX as u64;
    let key_bytes = number("key_size", usual.key_bytes as u64, key_sizes)?;
    let pixels = number("qr_size", usual.barcode_pixels.into(), 0..=PIXELS_MAX.into())?;
    let attempts = number("max_validation_attempts", usual.attempts_max, 0..=ATTEMPTS_MAX)?;
    Ok(Method {
        name: text("method_name", &usual.name)?,
        issuer,
        parameters: parameters_of(fields, usual.parameters)?,
        key_bytes: usize::try_from(key_bytes).unwrap_or(OTP_KEY_BYTES_DEFAULT),
        barcode_pixels: u32::try_from(pixels).unwrap_or(PIXELS_DEFAULT),
        // Zero is what stock clients send who did not think about it.
        attempts_max: if attempts == 0 { ATTEMPTS_DEFAULT } else { attempts },
        id: usual.id,
    })
}

fn parameters_of(fields: &Fields, usual: TotpParameters) -> Result<TotpParameters, CoreError> {
    let algorithm = match fields.text("algorithm")? {
        Some(text) => {
            let unknown = || CoreError::field("algorithm", "must be SHA1, SHA256 or SHA512");
            OtpAlgorithm::parse(&text).ok_or_else(unknown)?
        }
        None => usual.algorithm(),
    };
    let digits = fields.integer("digits")?.unwrap_or(usual.digits().count().into());
    let digits = OtpDigits::try_from(u8::try_from(digits).unwrap_or(u8::MAX))
        .map_err(|error| CoreError::field("digits", error.to_string()))?;
    let period = fields.duration("period")?.unwrap_or(usual.period());
    let skew = fields.integer("skew")?.unwrap_or(usual.skew().into());
    let skew = u8::try_from(skew).unwrap_or(u8::MAX);
    TotpParameters::new(algorithm, digits, period, skew).map_err(|error| {
        let field = if error == OtpError::Skew { "skew" } else { "period" };
        CoreError::field(field, error.to_string())
    })
}

fn shown(method: &Method) -> Value {
    json!({
        "algorithm": method.parameters.algorithm().as_str(),
        "digits": method.parameters.digits().count(),
        "id": method.id,
        "issuer": method.issuer,
        "key_size": method.key_bytes,
        "max_validation_attempts": method.attempts_max,
        "name": method.name,
        "namespace_id": "root",
        "period": method.parameters.period().as_secs(),
        "qr_size": method.barcode_pixels,
        "skew": method.parameters.skew(),
        "type": "totp",
    })
}

async fn enforcement(
    ctx: &SystemContext<'_>,
    request: &EngineRequest<'_>,
) -> Result<Reply, CoreError> {
    let (mfa, name) = (&ctx.unsealed.mfa, request.params.get("name"));
    match request.operation {
        Operation::Read => {
            let settings = mfa.settings().await?;
            let known = settings.enforcements.get(name).ok_or(CoreError::NotFound)?;
            Ok(Reply::data(json!({
                "auth_method_accessors": known.accessors,
                "auth_method_types": known.kinds,
                "id": known.id,
                "identity_entity_ids": known.entities,
                "identity_group_ids": known.groups,
                "mfa_method_ids": known.methods,
                "name": known.name,
                "namespace_id": "root",
                "policies": known.policies,
            })))
        }
        Operation::Delete => {
            mfa.change(|all| {
                all.enforcements.remove(name);
                Ok(())
            })
            .await?;
            Ok(Reply::empty())
        }
        Operation::Create | Operation::List | Operation::Patch | Operation::Update => {
            if name.len() > NAME_BYTES_MAX || name.chars().any(char::is_control) {
                return Err(CoreError::field("name", "is too long or has a control character"));
            }
            let said = Said::read(&request.fields)?;
            let unknown = said.check(ctx).await?;
            let id = random_uuid()?;
            mfa.change(|all| {
                let known = all.enforcements.entry(name.to_owned()).or_default();
                if known.id.is_empty() {
                    (known.id, known.name) = (id.clone(), name.to_owned());
                }
                said.apply(known);
                Ok(())
            })
            .await?;
            let warn = |reply: Reply, policy: &String| {
                reply.warn(format!("there is no policy {policy:?}: nobody is covered by that yet"))
            };
            Ok(unknown.iter().fold(Reply::empty(), warn))
        }
    }
}

/// What a write says about an enforcement; `None` leaves it.
struct Said {
    methods: Option<Vec<String>>,
    accessors: Option<BTreeSet<String>>,
    kinds: Option<BTreeSet<String>>,
    groups: Option<BTreeSet<String>>,
    entities: Option<BTreeSet<EntityId>>,
    policies: Option<BTreeSet<String>>,
}

impl Said {
    fn read(fields: &Fields) -> Result<Self, CoreError> {
        let list = |field: &str| -> Result<Option<Vec<String>>, CoreError> {
            let list = fields.list(field)?;
            if list.as_ref().is_some_and(|list| list.len() > LIST_MAX) {
                return Err(CoreError::field(field, format!("has more than {LIST_MAX} elements")));
            }
            Ok(list)
        };
        let set = |field: &str| list(field).map(|list| list.map(|list| list.into_iter().collect()));
        let policies = list("policies")?.map(|list| policy_names("policies", &list)).transpose()?;
        let entities = list("identity_entity_ids")?;
        Ok(Self {
            methods: list("mfa_method_ids")?,
            accessors: set("auth_method_accessors")?,
            kinds: set("auth_method_types")?,
            groups: set("identity_group_ids")?,
            entities: entities.map(|list| list.into_iter().map(EntityId::new).collect()),
            policies: policies.map(|list| list.into_iter().collect()),
        })
    }

    /// Refuses what there is not: an enforcement with a typing mistake would cover nobody, and nobody
    /// would notice. Answers the policies that there are not, which may come later.
    async fn check(&self, ctx: &SystemContext<'_>) -> Result<Vec<String>, CoreError> {
        let unsealed = ctx.unsealed;
        let missing = |field: &str, text: &str, what: &str| {
            CoreError::field(field, format!("has {text:?}, which is not {what}"))
        };
        for accessor in self.accessors.iter().flatten() {
            let mounted = unsealed.mounts.by_accessor(&MountAccessor::new(accessor.as_str()));
            if !mounted.is_some_and(|mounted| matches!(mounted.backend, Backend::Auth(_))) {
                let what = "the accessor of an auth mount";
                return Err(missing("auth_method_accessors", accessor, what));
            }
        }
        for kind in self.kinds.iter().flatten() {
            if !ctx.core.registry().methods.contains_key(kind.as_str()) {
                return Err(missing("auth_method_types", kind, "a type of auth mounts"));
            }
        }
        for group in self.groups.iter().flatten() {
            if unsealed.identity.groups().get(group).await?.is_none() {
                return Err(missing("identity_group_ids", group, "the id of a group"));
            }
        }
        for entity in self.entities.iter().flatten() {
            if unsealed.identity.get(entity).await?.is_none() {
                let what = "the id of an entity";
                return Err(missing("identity_entity_ids", entity.as_str(), what));
            }
        }
        let known = unsealed.policies.names().await?;
        let unknown = self.policies.iter().flatten().filter(|policy| !known.contains(policy));
        Ok(unknown.cloned().collect())
    }

    fn apply(&self, enforcement: &mut Enforcement) {
        fn set<T: Clone>(field: &mut T, said: &Option<T>) {
            if let Some(said) = said {
                field.clone_from(said);
            }
        }
        set(&mut enforcement.methods, &self.methods);
        set(&mut enforcement.accessors, &self.accessors);
        set(&mut enforcement.kinds, &self.kinds);
        set(&mut enforcement.groups, &self.groups);
        set(&mut enforcement.entities, &self.entities);
        set(&mut enforcement.policies, &self.policies);
    }
}
