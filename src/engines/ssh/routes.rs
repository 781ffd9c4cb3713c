//! The paths of the engine.

use crate::core::operation::Operation::{Create, Delete, List, Read, Update};
use crate::core::route::FieldKind::{
    Boolean, Duration, Integer, List as ListOf, Map, Objects, Secret, Text,
};
use crate::core::route::{Answer, FieldSpec, RouteSpec, field, route};

pub(super) const CA: &str = "signing-key";
pub(super) const CREDENTIALS: &str = "one-time-password";
pub(super) const ISSUE: &str = "issue-certificate";
pub(super) const LOOKUP: &str = "lookup-roles";
pub(super) const PUBLIC_KEY: &str = "signing-key-text";
pub(super) const REVOCATION_LIST: &str = "revocation-list";
pub(super) const REVOKE: &str = "revoke-certificate";
pub(super) const REVOKED: &str = "revoked-certificates";
pub(super) const ROLE: &str = "role";
pub(super) const ROLES: &str = "roles";
pub(super) const SIGN: &str = "sign-certificate";
pub(super) const UNREVOKE: &str = "unrevoke-certificate";
pub(super) const VERIFY: &str = "verify-password";
pub(super) const ZERO_ADDRESS: &str = "zero-address";

pub(super) const ROUTES: &[RouteSpec] = &[
    route(
        CA,
        "config/ca",
        "Make or take over the key that certificates are signed with; show its public half.",
        &[Read, Update, Delete],
        &[
            field("generate_signing_key", Boolean, "Make a new key (the default without one)."),
            field("private_key", Secret, "A key in OpenSSH's form or PEM, not encrypted."),
            field("public_key", Text, "Its public half, to be checked against it."),
            KEY_TYPE,
            KEY_BITS,
        ],
    )
    .reads(Answer::Data(PUBLIC_HALF))
    .writes(Answer::Maybe(PUBLIC_HALF)),
    route(PUBLIC_KEY, "public_key", "The public half of the signing key.", &[Read], &[])
        .public()
        .reads(Answer::Raw("text/plain; charset=utf-8")),
    route(
        ZERO_ADDRESS,
        "config/zeroaddress",
        "Which roles give passwords for any machine.",
        &[Read, Update, Delete],
        ROLE_NAMES,
    )
    .reads(Answer::Data(ROLE_NAMES)),
    route(ROLES, "roles", "List the roles.", &[List], &[]).lists(Answer::Keys(&[field(
        "key_info",
        Map,
        "The kind of each role.",
    )])),
    route(
        ROLE,
        "roles/:name",
        "Define who may get which certificate, or a password for which machines.",
        &[Create, Read, Update, Delete],
        ROLE_FIELDS,
    )
    .reads(Answer::Data(ROLE_DESCRIPTION)),
    route(
        SIGN,
        "sign/:name",
        "Sign a certificate for a key of the caller's.",
        &[Update],
        &[
            field("public_key", Text, "The key, as ssh-keygen writes it."),
            CERT_TYPE,
            CRITICAL_OPTIONS,
            EXTENSIONS,
            KEY_ID,
            TTL,
            VALID_PRINCIPALS,
        ],
    )
    .writes(Answer::Data(&[SERIAL_NUMBER, SIGNED_KEY])),
    route(
        ISSUE,
        "issue/:name",
        "Make a key and sign a certificate for it.",
        &[Update],
        &[
            KEY_TYPE,
            KEY_BITS,
            CERT_TYPE,
            CRITICAL_OPTIONS,
            EXTENSIONS,
            KEY_ID,
            TTL,
            VALID_PRINCIPALS,
        ],
    )
    .writes(Answer::Data(&[
        field("private_key", Secret, "The new key in OpenSSH's form."),
        field("private_key_type", Text, "Its kind."),
        SERIAL_NUMBER,
        SIGNED_KEY,
    ])),
    route(
        CREDENTIALS,
        "creds/:name",
        "Lease a password for one user on one machine, which works once.",
        &[Update],
        &[IP, field("username", Text, "The user; the role's `default_user` when left out.")],
    )
    .writes(Answer::Lease(&[
        field("key", Secret, "The password."),
        field("key_type", Text, "Always `otp`."),
        IP,
        field("port", Integer, "Where the machine's SSH server listens."),
        USERNAME,
    ])),
    route(
        VERIFY,
        "verify",
        "Whether a password is good, for the machine it is typed at; it is used up by that.",
        &[Update],
        &[field("otp", Secret, "The password.")],
    )
    .public()
    .writes(Answer::Data(&[
        IP.if_any(),
        field("message", Text, "What a trial of the connection is answered with.").if_any(),
        field("role_name", Text, "The role that gave it.").if_any(),
        USERNAME.if_any(),
    ])),
    route(
        REVOCATION_LIST,
        "krl",
        "The certificates that are revoked, as sshd reads it.",
        &[Read],
        &[],
    )
    .public()
    .reads(Answer::Raw("application/octet-stream")),
    route(
        REVOKE,
        "revoke",
        "Put a certificate, or all with one key id, on the list of those that are revoked.",
        &[Update],
        REVOKED_FIELDS,
    )
    .writes(Answer::Data(REVOKED_ANSWER)),
    route(
        UNREVOKE,
        "unrevoke",
        "Take a certificate, or a key id, off that list.",
        &[Update],
        REVOKED_FIELDS,
    )
    .writes(Answer::Data(REVOKED_ANSWER)),
    route(REVOKED, "revoked", "What is on that list.", &[Read], &[]).reads(Answer::Data(&[
        LIST_VERSION,
        field(
            "authorities",
            Objects(&[
                field("public_key", Text, "The key that signed."),
                field("serial_numbers", ListOf, "Certificates, in hexadecimal."),
                field("key_ids", ListOf, "Key ids."),
            ]),
            "What is revoked of each signing key.",
        ),
    ])),
    route(LOOKUP, "lookup", "Which roles give passwords for a machine.", &[Update], &[IP])
        .writes(Answer::Data(ROLE_NAMES)),
];

const CERT_TYPE: FieldSpec = field("cert_type", Text, "user (the default) or host.");
const CRITICAL_OPTIONS: FieldSpec =
    field("critical_options", Map, "Options beside the role's own, such as `source-address`.");
const EXTENSIONS: FieldSpec =
    field("extensions", Map, "What is permitted, instead of the role's own choice.");
const IP: FieldSpec = field("ip", Text, "The address of the machine.");
const KEY_BITS: FieldSpec = field("key_bits", Integer, "Bits of a new key; 0 for the usual.");
const KEY_ID: FieldSpec = field("key_id", Text, "What servers log of the certificate.");
const KEY_TYPE: FieldSpec =
    field("key_type", Text, "Kind of a new key: ed25519 (the default), ec or rsa.");
const LIST_VERSION: FieldSpec = field("version", Integer, "How often the list was changed.");
const REVOKED_ANSWER: &[FieldSpec] = &[LIST_VERSION];
const REVOKED_FIELDS: &[FieldSpec] = &[
    field("serial_number", Text, "One certificate: its number in hexadecimal, as it was answered."),
    field("serial", Text, "The same in decimal, as servers log it."),
    field("key_id", Text, "All certificates with this key id, those to come as well."),
    field("public_key", Text, "The key that signed them (the present one)."),
];
const SERIAL_NUMBER: FieldSpec =
    field("serial_number", Text, "The certificate's number, in hexadecimal.");
const SIGNED_KEY: FieldSpec = field("signed_key", Text, "The certificate, as a line of text.");
const TTL: FieldSpec = field("ttl", Duration, "Wanted lifetime.");
const USERNAME: FieldSpec = field("username", Text, "The user.");
const VALID_PRINCIPALS: FieldSpec =
    field("valid_principals", ListOf, "The user or host names it is for.");

const PUBLIC_HALF: &[FieldSpec] = &[field("public_key", Text, "The public half.")];
const ROLE_NAMES: &[FieldSpec] = &[field("roles", ListOf, "Names of roles.")];

const ROLE_FIELDS: &[FieldSpec] = &[
    field("key_type", Text, "ca for certificates, otp for passwords."),
    field(
        "algorithm_signer",
        Text,
        "For RSA signing keys: rsa-sha2-512 (the default) or rsa-sha2-256.",
    ),
    field("allow_bare_domains", Boolean, "Host certificates for the `allowed_domains` themselves."),
    field("allow_host_certificates", Boolean, "Sign host certificates."),
    field("allow_subdomains", Boolean, "Host certificates for names below the `allowed_domains`."),
    field("allow_user_certificates", Boolean, "Sign user certificates."),
    field("allow_user_key_ids", Boolean, "Let callers choose the key id."),
    field("allowed_critical_options", ListOf, "Critical options that callers may choose."),
    field("allowed_domains", ListOf, "Domains that host certificates may be for."),
    field("allowed_domains_template", Boolean, "Whether the domains are identity templates."),
    field("allowed_extensions", ListOf, "Extensions that callers may choose; * for all."),
    field("allowed_user_key_lengths", Map, "Kinds of keys that are signed, with their bits."),
    field("allowed_users", ListOf, "User names that callers may choose; * for all."),
    field("allowed_users_template", Boolean, "Whether the user names are identity templates."),
    field("allow_empty_principals", Boolean, "Not supported."),
    field("cidr_list", ListOf, "Machines that passwords are for (CIDR)."),
    field("default_critical_options", Map, "Critical options of every user certificate."),
    field("default_extensions", Map, "Extensions when the caller chooses none."),
    field("default_extensions_template", Boolean, "Whether their values are identity templates."),
    field("default_user", Text, "The user when the caller names none."),
    field("default_user_template", Boolean, "Whether the user is an identity template."),
    field("exclude_cidr_list", ListOf, "Machines that passwords are not for (CIDR)."),
    field("key_id_format", Text, "The key id: text with `{{token_display_name}}` and the like."),
    field("max_ttl", Duration, "Longest lifetime."),
    field("not_before_duration", Duration, "How long before now certificates begin (30 seconds)."),
    field("port", Integer, "Where the machines' SSH servers listen (22)."),
    field("ttl", Duration, "Usual lifetime."),
];

const ROLE_DESCRIPTION: &[FieldSpec] = &[
    field("key_type", Text, "ca or otp."),
    field("algorithm_signer", Text, "How RSA signing keys sign.").if_any(),
    field("allow_bare_domains", Boolean, "Host certificates for the domains themselves.").if_any(),
    field("allow_host_certificates", Boolean, "Signs host certificates.").if_any(),
    field("allow_subdomains", Boolean, "Host certificates for names below the domains.").if_any(),
    field("allow_user_certificates", Boolean, "Signs user certificates.").if_any(),
    field("allow_user_key_ids", Boolean, "Callers choose the key id.").if_any(),
    field("allowed_critical_options", Text, "Critical options that callers may choose.").if_any(),
    field("allowed_domains", Text, "Domains that host certificates may be for.").if_any(),
    field("allowed_domains_template", Boolean, "Whether those are templates.").if_any(),
    field("allowed_extensions", Text, "Extensions that callers may choose.").if_any(),
    field("allowed_user_key_lengths", Map, "Kinds of keys that are signed.").if_any(),
    field("allowed_users", Text, "User names that callers may choose."),
    field("allowed_users_template", Boolean, "Whether those are templates."),
    field("cidr_list", Text, "Machines that passwords are for.").if_any(),
    field("default_critical_options", Map, "Critical options of every certificate.").if_any(),
    field("default_extensions", Map, "Extensions when the caller chooses none.").if_any(),
    field("default_extensions_template", Boolean, "Whether their values are templates.").if_any(),
    field("default_user", Text, "The user when the caller names none."),
    field("default_user_template", Boolean, "Whether that is a template."),
    field("exclude_cidr_list", Text, "Machines that passwords are not for.").if_any(),
    field("key_id_format", Text, "The key id.").if_any(),
    field("max_ttl", Duration, "Longest lifetime."),
    field("not_before_duration", Duration, "How long before now certificates begin.").if_any(),
    field("port", Integer, "Where the machines' SSH servers listen.").if_any(),
    field("ttl", Duration, "Usual lifetime."),
];
