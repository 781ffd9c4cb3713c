//! The paths of the engine.

use crate::core::operation::Operation::{Create, Delete, List, Read, Update};
use crate::core::route::FieldKind::{Boolean, Duration, Integer, Map, Objects, Secret, Text};
use crate::core::route::{Answer, FieldSpec, RouteSpec, field, route};
use crate::core::tools::{HASH_ANSWER, HASH_FIELDS, RANDOM_ANSWER, RANDOM_FIELDS};

pub(super) const BACKUP: &str = "backup";
pub(super) const CONFIG: &str = "key-config";
pub(super) const DATA_KEY: &str = "data-key";
pub(super) const DECRYPT: &str = "decrypt";
pub(super) const ENCRYPT: &str = "encrypt";
pub(super) const EXPORT: &str = "export";
pub(super) const EXPORT_VERSION: &str = "export-version";
pub(super) const HASH: &str = "hash";
pub(super) const HASH_BY: &str = "hash-by";
pub(super) const HMAC: &str = "hmac";
pub(super) const HMAC_BY: &str = "hmac-by";
pub(super) const IMPORT: &str = "import";
pub(super) const IMPORT_VERSION: &str = "import-version";
pub(super) const KEY: &str = "key";
pub(super) const KEYS: &str = "keys";
pub(super) const RANDOM: &str = "random";
pub(super) const RANDOM_SOME: &str = "random-some";
pub(super) const RANDOM_SOURCE: &str = "random-source";
pub(super) const RESTORE: &str = "restore";
pub(super) const RESTORE_AS: &str = "restore-as";
pub(super) const REWRAP: &str = "rewrap";
pub(super) const ROTATE: &str = "rotate-key";
pub(super) const SETTINGS: &str = "settings";
pub(super) const SIGN: &str = "sign";
pub(super) const SIGN_BY: &str = "sign-by";
pub(super) const SOFT_DELETE: &str = "soft-delete-key";
pub(super) const SOFT_DELETE_RESTORE: &str = "soft-delete-restore-key";
pub(super) const TRIM: &str = "trim-key";
pub(super) const VERIFY: &str = "verify";
pub(super) const VERIFY_BY: &str = "verify-by";
pub(super) const WRAPPING_KEY: &str = "wrapping-key";

const KEY_ANSWER: Answer = Answer::Data(KEY_FACTS);
const SEALED_ANSWER: Answer = Answer::Data(SEALED);

pub(super) const ROUTES: &[RouteSpec] = &[
    route(KEYS, "keys", "List the keys.", &[List], &[]),
    route(KEY, "keys/:name", "Make, read and delete a key.", &[Read, Update, Delete], KEY_FIELDS)
        .reads(KEY_ANSWER)
        .writes(KEY_ANSWER),
    route(CONFIG, "keys/:name/config", "Change what a key allows.", &[Update], CONFIG_FIELDS)
        .writes(KEY_ANSWER),
    route(ROTATE, "keys/:name/rotate", "Make a new version of a key.", &[Update], &[])
        .writes(KEY_ANSWER),
    route(
        TRIM,
        "keys/:name/trim",
        "Destroy the oldest versions of a key.",
        &[Update],
        &[field("min_available_version", Integer, "The oldest version that stays.")],
    )
    .writes(KEY_ANSWER),
    route(
        SOFT_DELETE,
        "keys/:name/soft-delete",
        "Take a key out of use, without losing anything.",
        &[Delete],
        &[],
    )
    .deletes(KEY_ANSWER),
    route(
        SOFT_DELETE_RESTORE,
        "keys/:name/soft-delete-restore",
        "Take a soft-deleted key back into use.",
        &[Update],
        &[],
    )
    .writes(KEY_ANSWER),
    route(SETTINGS, "config/keys", "What holds for all keys.", &[Read, Update], SETTINGS_FIELDS)
        .reads(Answer::Data(SETTINGS_FIELDS))
        .writes(Answer::Data(SETTINGS_FIELDS)),
    route(IMPORT, "keys/:name/import", "Bring in a key.", &[Update], IMPORT_FIELDS),
    route(
        IMPORT_VERSION,
        "keys/:name/import_version",
        "Bring in a version of an imported key.",
        &[Update],
        WRAPPED_FIELDS,
    ),
    route(
        WRAPPING_KEY,
        "wrapping_key",
        "The public key under which keys are wrapped that are brought in.",
        &[Read],
        &[],
    )
    .reads(Answer::Data(&[field("public_key", Text, "RSA of 4096 bits, in PEM.")])),
    route(ENCRYPT, "encrypt/:name", "Encrypt.", &[Create, Update], ENCRYPT_FIELDS)
        .writes(Answer::OrPartly(SEALED)),
    route(DECRYPT, "decrypt/:name", "Decrypt.", &[Update], DECRYPT_FIELDS).writes(
        Answer::OrPartly(&[OPENED.if_any(), results(&[OPENED.if_any(), ERROR, REFERENCE])]),
    ),
    route(
        REWRAP,
        "rewrap/:name",
        "Encrypt anew what was encrypted with an older version.",
        &[Update],
        REWRAP_FIELDS,
    )
    .writes(SEALED_ANSWER),
    route(
        DATA_KEY,
        "datakey/:plaintext/:name",
        "A random key, encrypted, and in clear when asked for.",
        &[Update],
        DATA_KEY_FIELDS,
    )
    .writes(Answer::Data(&[
        CIPHERTEXT,
        KEY_VERSION,
        field("plaintext", Secret, "The random key, in base64.").if_any(),
    ])),
    route(SIGN, "sign/:name", "Sign.", &[Update], SIGN_FIELDS).writes(SIGNED_ANSWER),
    route(SIGN_BY, "sign/:name/:urlalgorithm", "Sign, by one hash.", &[Update], SIGN_FIELDS)
        .writes(SIGNED_ANSWER),
    route(VERIFY, "verify/:name", "Verify a signature or an HMAC.", &[Update], VERIFY_FIELDS)
        .writes(VALID_ANSWER),
    route(
        VERIFY_BY,
        "verify/:name/:urlalgorithm",
        "Verify a signature or an HMAC, by one hash.",
        &[Update],
        VERIFY_FIELDS,
    )
    .writes(VALID_ANSWER),
    route(HMAC, "hmac/:name", "Authenticate by HMAC.", &[Update], HMAC_FIELDS).writes(HMAC_ANSWER),
    route(
        HMAC_BY,
        "hmac/:name/:urlalgorithm",
        "Authenticate by HMAC, with one hash.",
        &[Update],
        HMAC_FIELDS,
    )
    .writes(HMAC_ANSWER),
    route(EXPORT, "export/:type/:name", "Read out a key.", &[Read], &[]).reads(EXPORTED_ANSWER),
    route(
        EXPORT_VERSION,
        "export/:type/:name/:version",
        "Read out one version of a key.",
        &[Read],
        &[],
    )
    .reads(EXPORTED_ANSWER),
    route(BACKUP, "backup/:name", "Read out a key with all that belongs to it.", &[Read], &[])
        .reads(Answer::Data(&[field("backup", Secret, "The key, in clear.")])),
    route(RESTORE, "restore", "Bring back a key from its backup.", &[Update], RESTORE_FIELDS),
    route(
        RESTORE_AS,
        "restore/:name",
        "Bring back a key under another name.",
        &[Update],
        RESTORE_FIELDS,
    ),
    route(RANDOM, "random", "Random bytes.", &[Update], RANDOM_FIELDS).writes(RANDOM_ANSWER),
    route(
        RANDOM_SOME,
        "random/:urlbytes",
        "So many random bytes, or those of one source.",
        &[Update],
        RANDOM_FIELDS,
    )
    .writes(RANDOM_ANSWER),
    route(
        RANDOM_SOURCE,
        "random/:source/:urlbytes",
        "So many random bytes of one source.",
        &[Update],
        RANDOM_FIELDS,
    )
    .writes(RANDOM_ANSWER),
    route(HASH, "hash", "The digest of what is sent.", &[Update], HASH_FIELDS).writes(HASH_ANSWER),
    route(
        HASH_BY,
        "hash/:urlalgorithm",
        "The digest of what is sent, by one algorithm.",
        &[Update],
        HASH_FIELDS,
    )
    .writes(HASH_ANSWER),
];

const CONTEXT: FieldSpec = field("context", Text, "What a derived key is derived for, in base64.");
const AAD: FieldSpec =
    field("associated_data", Secret, "What is authenticated with the message, in base64.");
const ERROR: FieldSpec = field("error", Text, "Why it was not done.").if_any();
const MAC: FieldSpec = field("hmac", Text, "The HMAC: vault:v1:….");
const REFERENCE: FieldSpec = field("reference", Text, "What the caller calls the item.");
const PARTIAL: FieldSpec = field(
    "partial_failure_response_code",
    Integer,
    "The status when some items of a batch were not done (default 400).",
);
const WANTED: FieldSpec =
    field("key_version", Integer, "The version to use (default: the newest).");
const OPENED: FieldSpec = field("plaintext", Secret, "What was encrypted, in base64.");
const KEY_VERSION: FieldSpec = field("key_version", Integer, "The version that was used.");
const CIPHERTEXT: FieldSpec = field("ciphertext", Text, "What was encrypted: vault:v1:….");
const EXPORTABLE: FieldSpec =
    field("exportable", Boolean, "Whether the key may be read out; cannot be taken back.");
const BACKUP_ALLOWED: FieldSpec = field(
    "allow_plaintext_backup",
    Boolean,
    "Whether a backup may be read out; cannot be taken back.",
);
const AUTO_ROTATE: FieldSpec =
    field("auto_rotate_period", Duration, "Time between rotations; 0 for none.");
const KIND: FieldSpec = field(
    "type",
    Text,
    "aes256-gcm96 (the default), aes128-gcm96, chacha20-poly1305, xchacha20-poly1305, ed25519, \
     ecdsa-p256, ecdsa-p384, ecdsa-p521, rsa-2048, rsa-3072, rsa-4096, hmac.",
);
const DERIVED: FieldSpec = field("derived", Boolean, "Whether each context has a key of its own.");
const CONVERGENT: FieldSpec =
    field("convergent_encryption", Boolean, "Whether the same message gives the same ciphertext.");

/// A list of such requests.
const fn batch(item: &'static [FieldSpec]) -> FieldSpec {
    field("batch_input", Objects(item), "Many at once: the same fields, for each.")
}

/// What became of them.
const fn results(item: &'static [FieldSpec]) -> FieldSpec {
    field("batch_results", Objects(item), "What became of each item of a batch.").if_any()
}

const KEY_FIELDS: &[FieldSpec] = &[
    KIND,
    DERIVED,
    CONVERGENT,
    EXPORTABLE,
    BACKUP_ALLOWED,
    AUTO_ROTATE,
    field("key_size", Integer, "Bytes of a key of type hmac, 32 to 512 (default 32)."),
    CONTEXT.in_query(),
];
const CONFIG_FIELDS: &[FieldSpec] = &[
    field("min_decryption_version", Integer, "The oldest version that decrypts and verifies."),
    field("min_encryption_version", Integer, "The oldest version that encrypts and signs."),
    field("deletion_allowed", Boolean, "Whether the key may be deleted."),
    EXPORTABLE,
    BACKUP_ALLOWED,
    AUTO_ROTATE,
];
const SETTINGS_FIELDS: &[FieldSpec] =
    &[field("disable_upsert", Boolean, "Whether encrypting makes no key that is not there.")];
const KEY_FACTS: &[FieldSpec] = &[
    field("name", Text, "Its name."),
    KIND,
    DERIVED,
    field("kdf", Text, "How keys are derived: hkdf_sha256.").if_any(),
    CONVERGENT.if_any(),
    field("convergent_encryption_version", Integer, "Which construction: 3.").if_any(),
    field("key_size", Integer, "Bytes of a key of type hmac.").if_any(),
    EXPORTABLE,
    BACKUP_ALLOWED,
    field("deletion_allowed", Boolean, "Whether it may be deleted."),
    field("latest_version", Integer, "Its newest version."),
    field(
        "min_available_version",
        Integer,
        "The oldest version that was not trimmed; 0: none was.",
    ),
    field("min_decryption_version", Integer, "The oldest version that decrypts and verifies."),
    field("min_encryption_version", Integer, "The oldest version that encrypts and signs."),
    field("auto_rotate_period", Integer, "Seconds between rotations; 0 for none."),
    field("soft_deleted", Boolean, "Whether it is out of use until it is restored."),
    field("imported_key", Boolean, "Whether it was brought in."),
    field("imported_key_allow_rotation", Boolean, "Whether versions may be made here.").if_any(),
    field("supports_encryption", Boolean, "Whether it encrypts."),
    field("supports_decryption", Boolean, "Whether it decrypts."),
    field("supports_signing", Boolean, "Whether it signs."),
    field("supports_derivation", Boolean, "Whether it may be derived."),
    field("keys", Map, "When each version was made, and its public key if it has one."),
];
const WRAPPED_FIELDS: &[FieldSpec] = &[
    field("ciphertext", Secret, "The key, wrapped: RSA-OAEP, then AES-KWP."),
    field("hash_function", Text, "The hash of OAEP: SHA256 (the default), SHA384, SHA512."),
];
const IMPORT_FIELDS: &[FieldSpec] = &[
    field("ciphertext", Secret, "The key, wrapped: RSA-OAEP, then AES-KWP."),
    field("hash_function", Text, "The hash of OAEP: SHA256 (the default), SHA384, SHA512."),
    KIND,
    field("allow_rotation", Boolean, "Whether it may have versions that are made here."),
    DERIVED,
    CONVERGENT,
    EXPORTABLE,
    BACKUP_ALLOWED,
    AUTO_ROTATE,
];
const PLAINTEXT: FieldSpec = field("plaintext", Secret, "What to encrypt, in base64.");
const ENCRYPT_FIELDS: &[FieldSpec] = &[
    PLAINTEXT,
    CONTEXT,
    AAD,
    WANTED,
    batch(&[PLAINTEXT, CONTEXT, AAD, WANTED, REFERENCE]),
    PARTIAL,
    field("type", Text, "The type of the key, if it is made by this."),
    field("convergent_encryption", Boolean, "Whether it is convergent, if it is made by this."),
];
const DECRYPT_FIELDS: &[FieldSpec] =
    &[CIPHERTEXT, CONTEXT, AAD, batch(&[CIPHERTEXT, CONTEXT, AAD, REFERENCE]), PARTIAL];
const REWRAP_FIELDS: &[FieldSpec] =
    &[CIPHERTEXT, CONTEXT, AAD, WANTED, batch(&[CIPHERTEXT, CONTEXT, AAD, WANTED, REFERENCE])];
const DATA_KEY_FIELDS: &[FieldSpec] =
    &[field("bits", Integer, "128, 256 (the default) or 512."), CONTEXT, AAD, WANTED];
const SEALED: &[FieldSpec] = &[
    CIPHERTEXT.if_any(),
    KEY_VERSION.if_any(),
    results(&[CIPHERTEXT.if_any(), KEY_VERSION.if_any(), ERROR, REFERENCE]),
];
const INPUT: FieldSpec = field("input", Secret, "The message, in base64.");
const HASH_NAME: FieldSpec = field(
    "hash_algorithm",
    Text,
    "sha2-256 (the default); sha2- or sha3-, and 224, 256, 384 or 512; for HMACs also sha1; not \
     for ed25519.",
);
const ALGORITHM: FieldSpec = field("algorithm", Text, "The same by its older name.");
const PREHASHED: FieldSpec =
    field("prehashed", Boolean, "Whether the input is a digest already; not for ed25519.");
const PADDING: FieldSpec =
    field("signature_algorithm", Text, "Of RSA: pss (the default) or pkcs1v15.");
const MARSHALING: FieldSpec =
    field("marshaling_algorithm", Text, "How it is written: asn1 (the default) or jws.");
const SALT: FieldSpec = field("salt_length", Text, "Of PSS: auto (the default), hash or a number.");
const SIGNATURE: FieldSpec = field("signature", Text, "The signature: vault:v1:….");
const SIGN_FIELDS: &[FieldSpec] = &[
    INPUT,
    HASH_NAME,
    ALGORITHM,
    PREHASHED,
    PADDING,
    MARSHALING,
    SALT,
    CONTEXT,
    WANTED,
    batch(&[INPUT, CONTEXT, REFERENCE]),
];
const PUBLIC_KEY: FieldSpec = field("public_key", Text, "The public key, of a derived key.");
const SIGNED_ANSWER: Answer = Answer::Data(&[
    SIGNATURE.if_any(),
    KEY_VERSION.if_any(),
    PUBLIC_KEY.if_any(),
    results(&[SIGNATURE.if_any(), KEY_VERSION.if_any(), PUBLIC_KEY.if_any(), ERROR, REFERENCE]),
]);
const VERIFY_FIELDS: &[FieldSpec] = &[
    INPUT,
    SIGNATURE,
    MAC,
    HASH_NAME,
    ALGORITHM,
    PREHASHED,
    PADDING,
    MARSHALING,
    SALT,
    CONTEXT,
    batch(&[INPUT, SIGNATURE, MAC, CONTEXT, REFERENCE]),
];
const VALID: FieldSpec = field("valid", Boolean, "Whether it is one of this key.").if_any();
const VALID_ANSWER: Answer = Answer::Data(&[VALID, results(&[VALID, ERROR, REFERENCE])]);
const HMAC_FIELDS: &[FieldSpec] =
    &[INPUT, HASH_NAME, ALGORITHM, WANTED, batch(&[INPUT, REFERENCE])];
const HMAC_ANSWER: Answer =
    Answer::Data(&[MAC.if_any(), results(&[MAC.if_any(), ERROR, REFERENCE])]);
const EXPORTED_ANSWER: Answer = Answer::Data(&[
    field("name", Text, "The key."),
    KIND,
    field("keys", Map, "The material of each version."),
]);
const RESTORE_FIELDS: &[FieldSpec] = &[
    field("backup", Secret, "What the backup was, of ours or of OpenBao's."),
    field("force", Boolean, "Whether a key of that name is replaced."),
];
