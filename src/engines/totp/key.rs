//! Keys: made or taken over, described, removed.

use data_encoding::BASE64;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::code::{Guard, guard_name};
use crate::core::engine::EngineContext;
use crate::core::error::CoreError;
use crate::core::fields::Fields;
use crate::core::records::{Batch, Precondition};
use crate::core::reply::Reply;
use crate::core::stored::StoredSecret;
use crate::core::view::{Entry, PutOptions};
use crate::crypto::otp::barcode::{self, PIXELS_DEFAULT, PIXELS_MAX};
use crate::crypto::otp::{
    OTP_KEY_BYTES_DEFAULT, OTP_KEY_BYTES_MAX, OTP_KEY_BYTES_MIN, OtpAlgorithm, OtpAuth, OtpDigits,
    OtpUriError, TotpParameters, decode_secret, encode_secret,
};
use crate::types::secret::{SecretBytes, SecretString};

/// Where the records of keys are.
pub(super) const DIRECTORY: &str = "keys/";

/// A key, as stored below `keys/`.
#[derive(Serialize, Deserialize)]
pub(super) struct KeyRecord {
    /// In base32.
    secret: StoredSecret,
    pub(super) parameters: TotpParameters,
    issuer: String,
    account: String,
}

impl KeyRecord {
    fn new(key: &OtpAuth, parameters: TotpParameters) -> Self {
        Self {
            secret: StoredSecret::new(encode_secret(key.key())),
            parameters,
            issuer: key.issuer().unwrap_or_default().to_owned(),
            account: key.account().to_owned(),
        }
    }

    /// The shared secret.
    pub(super) fn key(&self) -> Result<SecretBytes, CoreError> {
        decode_secret(self.secret.secret().expose())
            .map_err(|_| CoreError::internal("a stored key is not base32"))
    }
}

/// The name of the record of a key.
pub(super) fn record_name(name: &str) -> String {
    format!("{DIRECTORY}{name}")
}

/// The key of that name.
pub(super) async fn load(ctx: &EngineContext<'_>, name: &str) -> Result<KeyRecord, CoreError> {
    let entry: Option<Entry<KeyRecord>> = ctx.view.get(&record_name(name)).await?;
    entry.map(|entry| entry.value).ok_or(CoreError::NotFound)
}

/// What a write asks for: one of three ways to come by a secret.
enum Source {
    Generate { bytes: usize, export: bool, pixels: u32 },
    Address(SecretString),
    Secret(SecretString),
}

impl Source {
    fn read(fields: &Fields) -> Result<Self, CoreError> {
        let given = |name| -> Result<Option<SecretString>, CoreError> {
            Ok(fields.secret(name)?.filter(|text| !text.expose().is_empty()))
        };
        let (url, key) = (given("url")?, given("key")?);
        match (fields.boolean("generate")?.unwrap_or(false), url, key) {
            (true, None, None) => {
                let default = OTP_KEY_BYTES_DEFAULT as u64;
                let size = fields.integer("key_size")?.unwrap_or(default);
                let bytes = usize::try_from(size)
                    .ok()
                    .filter(|size| (OTP_KEY_BYTES_MIN..=OTP_KEY_BYTES_MAX).contains(size));
                let pixels = fields.integer("qr_size")?.unwrap_or(PIXELS_DEFAULT.into());
                let pixels = u32::try_from(pixels)
                    .ok()
                    .filter(|pixels| *pixels <= PIXELS_MAX)
                    .ok_or_else(|| CoreError::field("qr_size", "must be 0 to 1024"))?;
                Ok(Self::Generate {
                    bytes: bytes
                        .ok_or_else(|| CoreError::field("key_size", "must be 16 to 128 bytes"))?,
                    export: fields.boolean("exported")?.unwrap_or(true),
                    pixels,
                })
            }
            (true, _, _) => {
                Err(CoreError::field("generate", "excludes url and key: the secret is made here"))
            }
            (false, Some(url), None) => Ok(Self::Address(url)),
            (false, None, Some(key)) => Ok(Self::Secret(key)),
            (false, Some(_), Some(_)) => Err(CoreError::field("key", "is in the url already")),
            (false, None, None) => Err(CoreError::field("key", "is required, or url, or generate")),
        }
    }
}

/// The settings, those that are not sent being as `usual`.
fn parameters(fields: &Fields, usual: TotpParameters) -> Result<TotpParameters, CoreError> {
    let algorithm = match fields.text("algorithm")? {
        Some(text) => OtpAlgorithm::parse(&text)
            .ok_or_else(|| CoreError::field("algorithm", "must be SHA1, SHA256 or SHA512"))?,
        None => usual.algorithm(),
    };
    let digits = match fields.integer("digits")? {
        Some(digits) => OtpDigits::try_from(u8::try_from(digits).unwrap_or(u8::MAX))
            .map_err(|error| CoreError::field("digits", error.to_string()))?,
        None => usual.digits(),
    };
    let period = fields.duration("period")?.unwrap_or(usual.period());
    let skew = fields.integer("skew")?.unwrap_or(usual.skew().into());
    let skew = u8::try_from(skew).unwrap_or(u8::MAX);
    TotpParameters::new(algorithm, digits, period, skew).map_err(|error| {
        let field = if skew > 1 { "skew" } else { "period" };
        CoreError::field(field, error.to_string())
    })
}

fn refused(field: &'static str) -> impl Fn(OtpUriError) -> CoreError {
    move |error| CoreError::field(field, error.to_string())
}

pub(super) async fn write(
    ctx: &EngineContext<'_>,
    name: &str,
    fields: &Fields,
) -> Result<Reply, CoreError> {
    let source = Source::read(fields)?;
    let issuer = fields.text("issuer")?;
    let account = fields.text("account_name")?.filter(|account| !account.is_empty());
    let usual = TotpParameters::default();
    let (record, reply) = match source {
        Source::Generate { bytes, export, pixels } => {
            let account = account
                .ok_or_else(|| CoreError::field("account_name", "is required for a new secret"))?;
            if issuer.as_deref().unwrap_or_default().is_empty() {
                return Err(CoreError::field("issuer", "is required for a new secret"));
            }
            let parameters = parameters(fields, usual)?;
            let secret = SecretBytes::random(bytes)?;
            let key = OtpAuth::new(issuer.as_deref(), &account, secret, parameters)
                .map_err(refused("account_name"))?;
            let reply = if export { exported(&key, pixels)? } else { Reply::empty() };
            (KeyRecord::new(&key, parameters), reply)
        }
        Source::Address(url) => {
            for said in ["issuer", "account_name", "algorithm", "digits", "period"] {
                if fields.contains(said) {
                    return Err(CoreError::field(said, "is what the url says"));
                }
            }
            let key = OtpAuth::parse(url.expose().trim()).map_err(refused("url"))?;
            let parameters = parameters(fields, key.parameters())?;
            (KeyRecord::new(&key, parameters), Reply::empty())
        }
        Source::Secret(text) => {
            let parameters = parameters(fields, usual)?;
            let secret = decode_secret(text.expose().trim()).map_err(refused("key"))?;
            let account = account.as_deref().unwrap_or(name);
            let key = OtpAuth::new(issuer.as_deref(), account, secret, parameters)
                .map_err(refused("account_name"))?;
            (KeyRecord::new(&key, parameters), Reply::empty())
        }
    };
    // What was accepted or guessed wrong before was so of another secret.
    let mut batch = Batch::new();
    let put = PutOptions::default;
    ctx.view.put(&mut batch, &record_name(name), &record, Precondition::Any, put())?;
    ctx.view.put(&mut batch, &guard_name(name), &Guard::default(), Precondition::Any, put())?;
    ctx.view.commit(&batch).await?;
    Ok(reply)
}

/// The one answer that a secret is in.
fn exported(key: &OtpAuth, pixels: u32) -> Result<Reply, CoreError> {
    let uri = key.to_uri();
    let mut data = Map::new();
    if pixels > 0 {
        let image = barcode::png(&uri, pixels)
            .map_err(|error| CoreError::field("qr_size", error.to_string()))?;
        data.insert("barcode".to_owned(), Value::String(BASE64.encode(image.expose())));
    }
    data.insert("url".to_owned(), Value::String(uri.expose().to_owned()));
    Ok(Reply { data: Some(data), ..Reply::default() })
}

pub(super) async fn read(ctx: &EngineContext<'_>, name: &str) -> Result<Reply, CoreError> {
    let key = load(ctx, name).await?;
    Ok(Reply::data(json!({
        "account_name": key.account,
        "algorithm": key.parameters.algorithm().as_str(),
        "digits": key.parameters.digits().count(),
        "issuer": key.issuer,
        "period": key.parameters.period().as_secs(),
        "skew": key.parameters.skew(),
    })))
}

pub(super) async fn remove(ctx: &EngineContext<'_>, name: &str) -> Result<Reply, CoreError> {
    let mut batch = Batch::new();
    ctx.view.delete(&mut batch, &record_name(name), Precondition::Any);
    ctx.view.delete(&mut batch, &guard_name(name), Precondition::Any);
    ctx.view.commit(&batch).await?;
    Ok(Reply::empty())
}
