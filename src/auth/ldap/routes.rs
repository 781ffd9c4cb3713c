//! The table of paths.

use crate::core::operation::Operation::{Create, Delete, List, Read, Update};
use crate::core::route::{Answer, FieldKind, FieldSpec, RouteSpec, field, route};
use crate::core::token::{with_shown_token_fields, with_token_fields};

const POLICIES: FieldSpec =
    field("policies", FieldKind::List, "Policies that log-ins get beside those of the mount.");

pub(super) static ROUTES: &[RouteSpec] = &[
    route(
        "ldap-config",
        "config",
        "The directory, and what tokens get. The password and key are never shown.",
        &[Read, Update],
        CONFIG,
    )
    .reads(Answer::Data(SHOWN)),
    route("ldap-groups", "groups", "The names of groups with policies.", &[List], &[]),
    route(
        "ldap-group",
        "groups/:name",
        "The policies of a group.",
        &[Create, Read, Update, Delete],
        &[POLICIES],
    )
    .reads(Answer::Data(&[POLICIES])),
    route("ldap-users", "users", "The names of users with policies or groups.", &[List], &[]),
    route(
        "ldap-user",
        "users/:name",
        "The policies of a user, and groups beside those of the directory.",
        &[Create, Read, Update, Delete],
        &[POLICIES, field("groups", FieldKind::List, "Further groups.")],
    )
    .reads(Answer::Data(&[
        POLICIES,
        field("groups", FieldKind::Text, "Further groups, with commas between them."),
    ])),
    route(
        "ldap-login",
        "login/:username",
        "A token, for the password that the directory knows.",
        &[Update],
        &[field("password", FieldKind::Secret, "The password.")],
    )
    .public()
    .writes(Answer::Token),
];

const CONFIG: &[FieldSpec] = with_token_fields![
    field(
        "anonymous_group_search",
        FieldKind::Boolean,
        "Without binddn: search groups as nobody, not as who logs in.",
    ),
    field("binddn", FieldKind::Text, "The account that searches; nobody where it is left out."),
    field("bindpass", FieldKind::Secret, "Its password."),
    field("case_sensitive_names", FieldKind::Boolean, "Whether names are told apart by case."),
    field(
        "certificate",
        FieldKind::Text,
        "PEM of the authorities that the directory's certificate must chain to.",
    ),
    field("client_tls_cert", FieldKind::Text, "PEM of a certificate to present to the directory."),
    field("client_tls_key", FieldKind::Secret, "PEM of its key."),
    field("connection_timeout", FieldKind::Duration, "How long to wait for one server."),
    field("deny_null_bind", FieldKind::Boolean, "Always true: an empty password proves nothing."),
    field(
        "dereference_aliases",
        FieldKind::Text,
        "Whether aliases of the directory are followed: never, finding, searching or always.",
    ),
    field("discoverdn", FieldKind::Boolean, "Without binddn: search people as nobody."),
    field(
        "groupattr",
        FieldKind::Text,
        "The attribute of what groupfilter finds that names groups."
    ),
    field("groupdn", FieldKind::Text, "Where groups are; without it none are searched."),
    field("groupfilter", FieldKind::Text, "What finds the groups of {{.Username}} or {{.UserDN}}.",),
    field("insecure_tls", FieldKind::Boolean, "Always false: the directory has to prove itself."),
    field("max_page_size", FieldKind::Integer, "Groups asked for at a time; 0 for all at once."),
    field("request_timeout", FieldKind::Duration, "How long to wait for the directory in all."),
    field("starttls", FieldKind::Boolean, "Begin TLS on connections to ldap:// servers."),
    field("tls_max_version", FieldKind::Text, "tls12 or tls13."),
    field("tls_min_version", FieldKind::Text, "tls12 or tls13."),
    field(
        "upndomain",
        FieldKind::Text,
        "The domain that names have in Active Directory, as in name@domain.",
    ),
    field(
        "url",
        FieldKind::Text,
        "ldaps://host or ldap://host; several, with commas between them."
    ),
    field(
        "use_token_groups",
        FieldKind::Boolean,
        "Groups are those of tokenGroups, as Active Directory has it; groupfilter does not count.",
    ),
    field("userattr", FieldKind::Text, "The attribute with the name that people have."),
    field("userdn", FieldKind::Text, "Where people are."),
    field("userfilter", FieldKind::Text, "What finds the one entry of {{.Username}}."),
    field(
        "username_as_alias",
        FieldKind::Boolean,
        "The identity is the name that was typed, rather than userattr.",
    ),
];

const SHOWN: &[FieldSpec] = with_shown_token_fields![
    field("anonymous_group_search", FieldKind::Boolean, "Whether groups are searched as nobody.",),
    field("binddn", FieldKind::Text, "The account that searches."),
    field("case_sensitive_names", FieldKind::Boolean, "Whether names are told apart by case."),
    field("certificate", FieldKind::Text, "PEM of the authorities."),
    field("client_tls_cert", FieldKind::Text, "PEM of the certificate that is presented."),
    field("connection_timeout", FieldKind::Duration, "How long to wait for one server."),
    field("deny_null_bind", FieldKind::Boolean, "True."),
    field("dereference_aliases", FieldKind::Text, "Whether aliases are followed."),
    field("discoverdn", FieldKind::Boolean, "Whether people are searched as nobody."),
    field("groupattr", FieldKind::Text, "The attribute that names groups."),
    field("groupdn", FieldKind::Text, "Where groups are."),
    field("groupfilter", FieldKind::Text, "What finds groups."),
    field("insecure_tls", FieldKind::Boolean, "False."),
    field("max_page_size", FieldKind::Integer, "Groups asked for at a time."),
    field("request_timeout", FieldKind::Duration, "How long to wait for the directory in all."),
    field("starttls", FieldKind::Boolean, "Whether TLS is begun on ldap:// connections."),
    field("tls_max_version", FieldKind::Text, "tls12 or tls13."),
    field("tls_min_version", FieldKind::Text, "tls12 or tls13."),
    field("upndomain", FieldKind::Text, "The domain of names."),
    field("url", FieldKind::Text, "The servers."),
    field("use_token_groups", FieldKind::Boolean, "Whether groups are those of tokenGroups."),
    field("userattr", FieldKind::Text, "The attribute with the name that people have."),
    field("userdn", FieldKind::Text, "Where people are."),
    field("userfilter", FieldKind::Text, "What finds people."),
    field("username_as_alias", FieldKind::Boolean, "Whether the identity is what was typed."),
];
