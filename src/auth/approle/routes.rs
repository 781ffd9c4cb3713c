//! The table of paths.

use crate::core::operation::Operation;
use crate::core::route::{Answer, FieldKind, FieldSpec, RouteSpec, field, route};
use crate::core::token::{with_shown_token_fields, with_token_fields};

const PART: &[Operation] = &[Operation::Read, Operation::Update, Operation::Delete];
const WRITE: &[Operation] = &[Operation::Update];
const DESTROY: &[Operation] = &[Operation::Update, Operation::Delete];

const BIND_SECRET_ID: FieldSpec =
    field("bind_secret_id", FieldKind::Boolean, "Whether a log-in needs a secret ID (default).");
const BOUND_CIDRS: FieldSpec =
    field("secret_id_bound_cidrs", FieldKind::List, "Addresses that log-ins can come from.");
const NUM_USES: FieldSpec = field(
    "secret_id_num_uses",
    FieldKind::Integer,
    "How often a secret ID can be used; 0 for no limit.",
);
const SECRET_TTL: FieldSpec =
    field("secret_id_ttl", FieldKind::Duration, "How long a secret ID lives; 0 for no limit.");
const LOCAL: FieldSpec =
    field("local_secret_ids", FieldKind::Boolean, "Not supported: must be false.");
const ROLE_ID: FieldSpec = field(
    "role_id",
    FieldKind::Text,
    "What the role is logged in by; a random one when not given.",
);
const SECRET_ID: FieldSpec = field("secret_id", FieldKind::Secret, "The secret ID.");
const ACCESSOR: FieldSpec =
    field("secret_id_accessor", FieldKind::Text, "The accessor of the secret ID.");

const METADATA: FieldSpec =
    field("metadata", FieldKind::Any, "Notes on the tokens: an object of strings, or one as text.");
const CIDR_LIST: FieldSpec =
    field("cidr_list", FieldKind::List, "Addresses that it can be used from.");
const TOKEN_CIDRS: FieldSpec = field(
    "token_bound_cidrs",
    FieldKind::List,
    "Addresses that its tokens can be used from, instead of the role's.",
);
const USES: FieldSpec =
    field("num_uses", FieldKind::Integer, "How often it can be used; the role's when not given.");
const TTL: FieldSpec =
    field("ttl", FieldKind::Duration, "How long it lives; as the role says when not given.");

/// A setting of a role by itself: the first field is how it is shown.
const fn part(
    name: &'static str,
    pattern: &'static str,
    fields: &'static [FieldSpec],
) -> RouteSpec {
    let (shown, _) = fields.split_at(1);
    route(name, pattern, "One setting of a role.", PART, fields).reads(Answer::Data(shown))
}

/// A secret ID that was made.
const MADE: &[FieldSpec] = &[
    SECRET_ID,
    ACCESSOR,
    field("secret_id_num_uses", FieldKind::Integer, "How often it can be used; 0 for no limit."),
    field("secret_id_ttl", FieldKind::Duration, "How long it lives; 0 for no limit."),
];
/// What is known of a secret ID.
const KNOWN: &[FieldSpec] = &[
    CIDR_LIST,
    field("creation_time", FieldKind::Time, "When it was made."),
    field("expiration_time", FieldKind::Time, "When it ends; 0001-01-01T00:00:00Z for never."),
    field("last_updated_time", FieldKind::Time, "When it was last changed or used."),
    field("metadata", FieldKind::Map, "Notes on the tokens."),
    ACCESSOR,
    field("secret_id_num_uses", FieldKind::Integer, "Uses that are left; 0 for no limit."),
    field("secret_id_ttl", FieldKind::Duration, "How long it lives in all; 0 for no limit."),
    TOKEN_CIDRS,
];

pub(super) static ROUTES: &[RouteSpec] = &[
    route("approle-roles", "role", "The names of the roles.", &[Operation::List], &[]),
    route(
        "approle-role",
        "role/:name",
        "A role: what log-ins need, and what tokens get.",
        &[Operation::Create, Operation::Read, Operation::Update, Operation::Delete],
        with_token_fields![BIND_SECRET_ID, BOUND_CIDRS, NUM_USES, SECRET_TTL, LOCAL, ROLE_ID],
    )
    .reads(Answer::Data(with_shown_token_fields![
        BIND_SECRET_ID,
        BOUND_CIDRS,
        NUM_USES,
        SECRET_TTL,
        LOCAL
    ])),
    route(
        "approle-role-id",
        "role/:name/role-id",
        "What the role is logged in by.",
        &[Operation::Read, Operation::Update],
        &[ROLE_ID],
    )
    .reads(Answer::Data(&[ROLE_ID])),
    part("approle-bind-secret-id", "role/:name/bind-secret-id", &[BIND_SECRET_ID]),
    part("approle-bound-cidrs", "role/:name/secret-id-bound-cidrs", &[BOUND_CIDRS]),
    part("approle-num-uses", "role/:name/secret-id-num-uses", &[NUM_USES]),
    part("approle-secret-id-ttl", "role/:name/secret-id-ttl", &[SECRET_TTL]),
    part(
        "approle-policies",
        "role/:name/policies",
        &[
            field("token_policies", FieldKind::List, "Policies of the tokens."),
            field("policies", FieldKind::List, "Older name of token_policies."),
        ],
    ),
    part(
        "approle-token-ttl",
        "role/:name/token-ttl",
        &[field("token_ttl", FieldKind::Duration, "First lifetime of a token.")],
    ),
    part(
        "approle-token-max-ttl",
        "role/:name/token-max-ttl",
        &[field("token_max_ttl", FieldKind::Duration, "Maximum lifetime over all renewals.")],
    ),
    part(
        "approle-token-num-uses",
        "role/:name/token-num-uses",
        &[field("token_num_uses", FieldKind::Integer, "How often a token can be used.")],
    ),
    part(
        "approle-token-bound-cidrs",
        "role/:name/token-bound-cidrs",
        &[field("token_bound_cidrs", FieldKind::List, "Addresses of the tokens.")],
    ),
    part(
        "approle-period",
        "role/:name/period",
        &[
            field("token_period", FieldKind::Duration, "Lifetime that each renewal gives."),
            field("period", FieldKind::Duration, "Older name of token_period."),
        ],
    ),
    route(
        "approle-local-secret-ids",
        "role/:name/local-secret-ids",
        "One setting of a role.",
        &[Operation::Read],
        &[LOCAL],
    )
    .reads(Answer::Data(&[LOCAL])),
    route(
        "approle-secret-id",
        "role/:name/secret-id",
        "A new secret ID; the accessors of all.",
        &[Operation::List, Operation::Update],
        &[METADATA, CIDR_LIST, TOKEN_CIDRS, USES, TTL],
    )
    .writes(Answer::Data(MADE)),
    route(
        "approle-custom-secret-id",
        "role/:name/custom-secret-id",
        "A secret ID of one's own choice.",
        WRITE,
        &[SECRET_ID, METADATA, CIDR_LIST, TOKEN_CIDRS, USES, TTL],
    )
    .writes(Answer::Data(MADE)),
    route(
        "approle-secret-id-lookup",
        "role/:name/secret-id/lookup",
        "What is known of a secret ID.",
        WRITE,
        &[SECRET_ID],
    )
    .writes(Answer::Maybe(KNOWN)),
    route(
        "approle-secret-id-destroy",
        "role/:name/secret-id/destroy",
        "Ends a secret ID.",
        DESTROY,
        &[SECRET_ID],
    ),
    route(
        "approle-accessor-lookup",
        "role/:name/secret-id-accessor/lookup",
        "What is known of a secret ID, by its accessor.",
        WRITE,
        &[ACCESSOR],
    )
    .writes(Answer::Data(KNOWN)),
    route(
        "approle-accessor-destroy",
        "role/:name/secret-id-accessor/destroy",
        "Ends a secret ID, by its accessor.",
        DESTROY,
        &[ACCESSOR],
    ),
    route("approle-tidy", "tidy/secret-id", "Removes secret IDs that have expired.", WRITE, &[]),
    route(
        "approle-login",
        "login",
        "A token, for a role ID and a secret ID.",
        WRITE,
        &[ROLE_ID, SECRET_ID],
    )
    .public()
    .writes(Answer::Token),
];
