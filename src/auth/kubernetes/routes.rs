//! The table of paths.

use crate::core::operation::Operation;
use crate::core::route::{Answer, FieldKind, FieldSpec, RouteSpec, field, route};
use crate::core::token::{with_shown_token_fields, with_token_fields};

const HOST: FieldSpec = field(
    "kubernetes_host",
    FieldKind::Text,
    "Where the cluster's API is; without it tokens are judged by keys alone.",
);
const CA: FieldSpec = field(
    "kubernetes_ca_cert",
    FieldKind::Text,
    "PEM: authorities of the cluster's servers, instead of those of the server's configuration.",
);
const PEM_KEYS: FieldSpec = field(
    "pem_keys",
    FieldKind::List,
    "Keys that service accounts' tokens are signed with, in PEM.",
);
const JWKS_URL: FieldSpec =
    field("jwks_url", FieldKind::Text, "Where the cluster publishes these keys, instead.");
const ISSUER: FieldSpec = field("issuer", FieldKind::Text, "What the claim iss has to be.");
const NO_ISSUER: FieldSpec = field(
    "disable_iss_validation",
    FieldKind::Boolean,
    "Whether the claim iss does not count (default).",
);
const NO_LOCAL: FieldSpec = field(
    "disable_local_ca_jwt",
    FieldKind::Boolean,
    "Of no effect, and shown as true: no local files are read.",
);

const NAMES: FieldSpec = field(
    "bound_service_account_names",
    FieldKind::List,
    "Patterns, one of which the service account's name matches.",
);
const NAMESPACES: FieldSpec = field(
    "bound_service_account_namespaces",
    FieldKind::List,
    "Patterns, one of which its namespace matches.",
);
const AUDIENCE: FieldSpec = field("audience", FieldKind::Text, "Whom tokens have to be for.");
const ALIAS: FieldSpec = field(
    "alias_name_source",
    FieldKind::Text,
    "serviceaccount_uid (default) or serviceaccount_name: what the identity is named by.",
);

pub(super) static ROUTES: &[RouteSpec] = &[
    route(
        "kubernetes-config",
        "config",
        "How to find out whose a token is. Written whole.",
        &[Operation::Read, Operation::Update],
        &[
            HOST,
            CA,
            field(
                "token_reviewer_jwt",
                FieldKind::Secret,
                "What the cluster is asked with; the log-in's own token without.",
            ),
            PEM_KEYS,
            JWKS_URL,
            ISSUER,
            NO_ISSUER,
            NO_LOCAL,
        ],
    )
    .reads(Answer::Data(&[
        NO_ISSUER,
        NO_LOCAL,
        ISSUER,
        JWKS_URL,
        CA,
        HOST,
        PEM_KEYS,
        field("token_reviewer_jwt_set", FieldKind::Boolean, "Whether there is a reviewer's token."),
    ])),
    route("kubernetes-roles", "role", "The names of the roles.", &[Operation::List], &[]),
    route(
        "kubernetes-role",
        "role/:name",
        "A role: which service accounts, and what tokens get.",
        &[Operation::Create, Operation::Read, Operation::Update, Operation::Delete],
        with_token_fields![NAMES, NAMESPACES, AUDIENCE, ALIAS],
    )
    .reads(Answer::Data(with_shown_token_fields![ALIAS, AUDIENCE, NAMES, NAMESPACES])),
    route(
        "kubernetes-login",
        "login",
        "A token, for the token of a service account.",
        &[Operation::Update],
        &[
            field("role", FieldKind::Text, "The role."),
            field("jwt", FieldKind::Secret, "The service account's token."),
        ],
    )
    .public()
    .writes(Answer::Token),
];
