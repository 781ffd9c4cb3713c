//! The paths of the engine.

use crate::core::operation::Operation::{Create, Delete, List, Read, Update};
use crate::core::route::FieldKind::{
    Boolean, Duration, Integer, List as ListOf, Map, Secret, Text,
};
use crate::core::route::{FieldSpec, RouteSpec, field, route};

pub(super) const CONFIG: &str = "connection";
pub(super) const CONFIGS: &str = "connections";
pub(super) const RESET: &str = "reset-connection";
pub(super) const ROTATE_ROOT: &str = "rotate-root";
pub(super) const ROLE: &str = "role";
pub(super) const ROLES: &str = "roles";
pub(super) const CREDS: &str = "credentials";
pub(super) const STATIC_ROLE: &str = "static-role";
pub(super) const STATIC_ROLES: &str = "static-roles";
pub(super) const STATIC_CREDS: &str = "static-credentials";
pub(super) const ROTATE_ROLE: &str = "rotate-role";

pub(super) const ROUTES: &[RouteSpec] = &[
    route(CONFIGS, "config", "List the configured databases.", &[List], &[]),
    route(
        CONFIG,
        "config/:name",
        "Configure how to reach a database.",
        &[Create, Read, Update, Delete],
        CONFIG_FIELDS,
    ),
    route(RESET, "reset/:name", "Close the connections to a database.", &[Update], &[]),
    route(
        ROTATE_ROOT,
        "rotate-root/:name",
        "Give the configured user a new password that nobody has seen.",
        &[Update],
        &[],
    ),
    route(ROLES, "roles", "List the roles.", &[List], &[]),
    route(
        ROLE,
        "roles/:name",
        "Define what kind of user is made on request.",
        &[Create, Read, Update, Delete],
        ROLE_FIELDS,
    ),
    route(CREDS, "creds/:name", "Lease a new database user.", &[Read], &[]),
    route(STATIC_ROLES, "static-roles", "List the static roles.", &[List], &[]),
    route(
        STATIC_ROLE,
        "static-roles/:name",
        "Take over an existing database user and rotate its password.",
        &[Create, Read, Update, Delete],
        STATIC_ROLE_FIELDS,
    ),
    route(
        STATIC_CREDS,
        "static-creds/:name",
        "Read the present password of a static role.",
        &[Read],
        &[],
    ),
    route(
        ROTATE_ROLE,
        "rotate-role/:name",
        "Rotate the password of a static role now.",
        &[Update],
        &[],
    ),
];

const CONFIG_FIELDS: &[FieldSpec] = &[
    field("plugin_name", Text, "postgresql-database-plugin."),
    field("connection_url", Text, "URL with {{username}} and {{password}} in place of both."),
    field("username", Text, "The broker's own user."),
    field("password", Secret, "Its password; never answered."),
    field("allowed_roles", ListOf, "Roles that may use it; * for all."),
    field("verify_connection", Boolean, "Connect before saving (default true)."),
    field("root_rotation_statements", ListOf, "How rotate-root sets the password."),
    field("username_template", Text, "How leased users are named."),
    field("max_open_connections", Integer, "Most connections at a time (default 4)."),
    field("max_idle_connections", Integer, "Most of them kept open (default: all)."),
    field("max_connection_lifetime", Duration, "How long one is used; 0 for ever."),
    field("password_authentication", Text, "scram-sha-256."),
    field("password_policy", Text, "Not supported."),
    field("tls_ca", Text, "PEM of the CAs that sign the server's certificate."),
    field("tls_certificate", Text, "PEM of a client certificate chain."),
    field("private_key", Secret, "PEM of its key; never answered."),
];

const ROLE_FIELDS: &[FieldSpec] = &[
    field("db_name", Text, "The configured database."),
    field("creation_statements", ListOf, "SQL that makes {{name}} with {{password}}."),
    field(
        "revocation_statements",
        ListOf,
        "SQL that removes {{name}}; empty for the built-in way.",
    ),
    field("renew_statements", ListOf, "SQL run when a lease is renewed."),
    field("rollback_statements", ListOf, "SQL run when creation was refused."),
    field("default_ttl", Duration, "Lifetime when none is asked for."),
    field("max_ttl", Duration, "Longest lifetime."),
    field("credential_type", Text, "password."),
    field("credential_config", Map, "Not supported."),
    field("verify", Boolean, "Make one user and revoke it at once before saving."),
];

const STATIC_ROLE_FIELDS: &[FieldSpec] = &[
    field("db_name", Text, "The configured database."),
    field("username", Text, "The existing user to take over."),
    field("rotation_period", Duration, "Time between rotations, at least 5 seconds."),
    field("rotation_schedule", Text, "Or a cron expression of five fields, in UTC."),
    field("rotation_window", Duration, "How long after its hour a rotation may begin."),
    field("rotation_statements", ListOf, "SQL that sets {{password}} for {{name}}."),
    field("credential_type", Text, "password."),
    field("credential_config", Map, "Not supported."),
];
