//! The table of paths.

use crate::core::operation::Operation;
use crate::core::route::{Answer, FieldKind, FieldSpec, RouteSpec, field, route};
use crate::core::token::{with_shown_token_fields, with_token_fields};

const ROLE: FieldSpec =
    field("role", FieldKind::Text, "The role; without it the mount's default role.");

const DISCOVERY_URL: FieldSpec =
    field("oidc_discovery_url", FieldKind::Text, "The issuer, which says where its keys are.");
const DISCOVERY_CA: FieldSpec = field(
    "oidc_discovery_ca_pem",
    FieldKind::Text,
    "PEM: authorities of the issuer's servers, instead of those of the server's configuration.",
);
const JWKS_URL: FieldSpec = field("jwks_url", FieldKind::Text, "Where a set of keys is.");
const JWKS_CA: FieldSpec = field(
    "jwks_ca_pem",
    FieldKind::Text,
    "PEM: authorities of that server, instead of those of the server's configuration.",
);
const PUBKEYS: FieldSpec =
    field("jwt_validation_pubkeys", FieldKind::List, "The keys themselves, in PEM.");
const BOUND_ISSUER: FieldSpec =
    field("bound_issuer", FieldKind::Text, "What the claim iss has to be.");
const ALGORITHMS: FieldSpec =
    field("jwt_supported_algs", FieldKind::List, "Algorithms that tokens may be signed with.");
const DEFAULT_ROLE: FieldSpec =
    field("default_role", FieldKind::Text, "The role of log-ins that name none.");
const CLIENT_ID: FieldSpec =
    field("oidc_client_id", FieldKind::Text, "What the issuer knows this mount by.");
const RESPONSE_MODE: FieldSpec =
    field("oidc_response_mode", FieldKind::Text, "How codes come back: query.");
const RESPONSE_TYPES: FieldSpec =
    field("oidc_response_types", FieldKind::List, "What comes back: code.");

const ROLE_TYPE: FieldSpec =
    field("role_type", FieldKind::Text, "jwt, or oidc (default): with a token, or in a browser.");
const BOUND_AUDIENCES: FieldSpec =
    field("bound_audiences", FieldKind::List, "Audiences, for one of which a token must be.");
const USER_CLAIM: FieldSpec =
    field("user_claim", FieldKind::Text, "The claim that names the identity.");
const USER_CLAIM_POINTER: FieldSpec = field(
    "user_claim_json_pointer",
    FieldKind::Boolean,
    "Whether user_claim is a JSON pointer where it begins with a slash.",
);
const BOUND_SUBJECT: FieldSpec =
    field("bound_subject", FieldKind::Text, "What the claim sub has to be.");
const BOUND_CLAIMS: FieldSpec = field(
    "bound_claims",
    FieldKind::Map,
    "Claims, each with a value or a list of values of which it must have one.",
);
const BOUND_CLAIMS_TYPE: FieldSpec = field(
    "bound_claims_type",
    FieldKind::Text,
    "string (default), or glob: what the values are compared as.",
);
const CLAIM_MAPPINGS: FieldSpec = field(
    "claim_mappings",
    FieldKind::Map,
    "Claims, each with the name under which token and identity are noted with it.",
);
const GROUPS_CLAIM: FieldSpec =
    field("groups_claim", FieldKind::Text, "The claim that lists the groups.");
const CLOCK_SKEW: FieldSpec = field(
    "clock_skew_leeway",
    FieldKind::Any,
    "How much clocks may differ; 0 for a minute, -1 for not at all.",
);
const EXPIRATION: FieldSpec = field(
    "expiration_leeway",
    FieldKind::Any,
    "How long a token is taken after it has expired; 0 for the clock skew, -1 for not at all.",
);
const NOT_BEFORE: FieldSpec = field(
    "not_before_leeway",
    FieldKind::Any,
    "How long a token is taken before it is good; 0 for the clock skew, -1 for not at all.",
);
const REDIRECT_URIS: FieldSpec = field(
    "allowed_redirect_uris",
    FieldKind::List,
    "Where a browser may be sent back to. The port of one's own machine does not count.",
);
const SCOPES: FieldSpec = field("oidc_scopes", FieldKind::List, "Scopes to ask for beside openid.");
const MAX_AGE: FieldSpec = field(
    "max_age",
    FieldKind::Duration,
    "How long ago the issuer may have asked who it is; 0 for no limit.",
);
const VERBOSE: FieldSpec =
    field("verbose_oidc_logging", FieldKind::Boolean, "Not supported: must be false.");

/// What is shown of a role: all fields but the older names of some.
const SHOWN_ROLE: &[FieldSpec] = with_shown_token_fields![
    REDIRECT_URIS,
    BOUND_AUDIENCES,
    BOUND_CLAIMS,
    BOUND_CLAIMS_TYPE,
    BOUND_SUBJECT,
    CLAIM_MAPPINGS,
    CLOCK_SKEW,
    EXPIRATION,
    GROUPS_CLAIM,
    MAX_AGE,
    NOT_BEFORE,
    SCOPES,
    ROLE_TYPE,
    USER_CLAIM,
    USER_CLAIM_POINTER,
    VERBOSE,
];

pub(super) static ROUTES: &[RouteSpec] = &[
    route(
        "jwt-config",
        "config",
        "Whose tokens count. Written whole.",
        &[Operation::Read, Operation::Update],
        &[
            DISCOVERY_URL,
            DISCOVERY_CA,
            JWKS_URL,
            JWKS_CA,
            PUBKEYS,
            BOUND_ISSUER,
            ALGORITHMS,
            DEFAULT_ROLE,
            CLIENT_ID,
            field(
                "oidc_client_secret",
                FieldKind::Secret,
                "The secret of this client, if it has one.",
            ),
            RESPONSE_MODE,
            RESPONSE_TYPES,
        ],
    )
    .reads(Answer::Data(&[
        BOUND_ISSUER,
        DEFAULT_ROLE,
        JWKS_CA,
        JWKS_URL,
        ALGORITHMS,
        PUBKEYS,
        CLIENT_ID,
        DISCOVERY_CA,
        DISCOVERY_URL,
        RESPONSE_MODE,
        RESPONSE_TYPES,
    ])),
    route("jwt-roles", "role", "The names of the roles.", &[Operation::List], &[]),
    route(
        "jwt-role",
        "role/:name",
        "A role: whom it lets in, and what tokens get.",
        &[Operation::Create, Operation::Read, Operation::Update, Operation::Delete],
        with_token_fields![
            ROLE_TYPE,
            BOUND_AUDIENCES,
            USER_CLAIM,
            USER_CLAIM_POINTER,
            BOUND_SUBJECT,
            BOUND_CLAIMS,
            BOUND_CLAIMS_TYPE,
            CLAIM_MAPPINGS,
            GROUPS_CLAIM,
            CLOCK_SKEW,
            EXPIRATION,
            NOT_BEFORE,
            REDIRECT_URIS,
            SCOPES,
            MAX_AGE,
            VERBOSE,
        ],
    )
    .reads(Answer::Data(SHOWN_ROLE)),
    route(
        "jwt-login",
        "login",
        "A token, for a token of the issuer's.",
        &[Operation::Update],
        &[ROLE, field("jwt", FieldKind::Secret, "The token.")],
    )
    .public()
    .writes(Answer::Token),
    route(
        "oidc-auth-url",
        "oidc/auth_url",
        "Where to send a browser to log in.",
        &[Operation::Update],
        &[
            ROLE,
            field("redirect_uri", FieldKind::Text, "Where the browser is to come back to."),
            field("client_nonce", FieldKind::Text, "To be given once more with the code."),
        ],
    )
    .public()
    .writes(Answer::Data(&[field("auth_url", FieldKind::Text, "Where to send the browser.")])),
    route(
        "oidc-callback",
        "oidc/callback",
        "A token, for the code that the browser came back with.",
        &[Operation::Read],
        &[
            field("state", FieldKind::Secret, "As the browser brought it."),
            field("code", FieldKind::Secret, "As the browser brought it."),
            field("client_nonce", FieldKind::Text, "As it was given for the address."),
            field(
                "nonce",
                FieldKind::Text,
                "As it is in the address, if the client took it from there.",
            ),
            field("iss", FieldKind::Text, "As the browser brought it, if it did."),
            field("id_token", FieldKind::Secret, "Passed over: the issuer is asked for one."),
        ],
    )
    .public()
    .reads(Answer::Token),
];
