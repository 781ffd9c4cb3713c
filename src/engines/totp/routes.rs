//! The paths of the engine.

use crate::core::operation::Operation::{Create, Delete, List, Read, Update};
use crate::core::route::FieldKind::{Boolean, Duration, Integer, Secret, Text};
use crate::core::route::{Answer, FieldSpec, RouteSpec, field, route};

pub(super) const CODE: &str = "code";
pub(super) const KEY: &str = "key";
pub(super) const KEYS: &str = "keys";
pub(super) const UNLOCK: &str = "unlock-key";

pub(super) const ROUTES: &[RouteSpec] = &[
    route(KEYS, "keys", "List the keys.", &[List], &[]),
    route(
        KEY,
        "keys/:name",
        "Make a key or take one over, describe it, remove it.",
        &[Create, Read, Update, Delete],
        KEY_FIELDS,
    )
    .reads(Answer::Data(DESCRIPTION))
    .writes(Answer::Maybe(EXPORT)),
    route(
        UNLOCK,
        "keys/:name/unlock",
        "Let codes of a key be checked again after too many wrong ones.",
        &[Update],
        &[],
    ),
    route(
        CODE,
        "code/:name",
        "The present code of a key, or whether a code counts.",
        &[Read, Update],
        &[field("code", Secret, "The code to check.")],
    )
    .reads(Answer::Data(&[field("code", Secret, "The present code.")]))
    .writes(Answer::Data(&[field("valid", Boolean, "Whether the code counts, and did now.")])),
];

const ACCOUNT: FieldSpec = field("account_name", Text, "Whose key it is.");
const ALGORITHM: FieldSpec = field("algorithm", Text, "SHA1 (the default), SHA256 or SHA512.");
const DIGITS: FieldSpec = field("digits", Integer, "Digits of a code: 6 (the default) or 8.");
const ISSUER: FieldSpec = field("issuer", Text, "The service that codes are for.");
const PERIOD: FieldSpec = field("period", Duration, "How long a code is the present one.");
const SKEW: FieldSpec =
    field("skew", Integer, "Periods before and after its own that a code counts in: 0 or 1.");

const KEY_FIELDS: &[FieldSpec] = &[
    field("generate", Boolean, "Make a new secret here."),
    field("exported", Boolean, "Answer the new secret, once (the default)."),
    field("key_size", Integer, "Bytes of the new secret: 16 to 128 (default 20)."),
    field("qr_size", Integer, "Width of the barcode in pixels; 0 for none (default 200)."),
    field("url", Secret, "An otpauth address with secret and settings."),
    field("key", Secret, "A secret in base32."),
    ACCOUNT,
    ALGORITHM,
    DIGITS,
    ISSUER,
    PERIOD,
    SKEW,
];

const DESCRIPTION: &[FieldSpec] = &[ACCOUNT, ALGORITHM, DIGITS, ISSUER, PERIOD, SKEW];

const EXPORT: &[FieldSpec] = &[
    field("barcode", Secret, "The address as a QR code: a PNG image in base64.").if_any(),
    field("url", Secret, "The otpauth address, with the secret."),
];
