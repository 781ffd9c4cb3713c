//! The paths of the engine.

use crate::core::operation::Operation::{Create, Delete, List, Patch, Read, Update};
use crate::core::route::FieldKind::{
    Any, Boolean, Duration, Integer, Integers, Map, Object, Text, Time,
};
use crate::core::route::{Answer, FieldSpec, RouteSpec, field, route};

pub(super) const CONFIG: &str = "config";
pub(super) const DATA: &str = "data";
pub(super) const DELETE: &str = "delete-versions";
pub(super) const UNDELETE: &str = "undelete-versions";
pub(super) const DESTROY: &str = "destroy-versions";
pub(super) const METADATA: &str = "metadata";
pub(super) const SUBKEYS: &str = "subkeys";

pub(super) const ROUTES: &[RouteSpec] = &[
    route(CONFIG, "config", "Defaults of all secrets of the mount.", &[Read, Update], SETTINGS)
        .reads(Answer::Data(SETTINGS_SHOWN)),
    route(
        DATA,
        "data/*path",
        "Read, write, patch and delete versions of a secret.",
        &[Create, Read, Update, Patch, Delete],
        &[
            field("data", Map, "The secret, or the merge patch to the latest version."),
            field("options", Map, "`cas`: the version that must be the latest; 0 for none yet."),
            field("version", Integer, "Which version to read; the latest when left out.")
                .in_query(),
        ],
    )
    .reads(Answer::OrGone(&[
        field("data", Map, "The secret; null when the version is deleted.").or_null(),
        field("metadata", Object(VERSION_FACTS), "What is known of the version."),
    ]))
    .writes(Answer::OrGone(WRITTEN)),
    route(DELETE, "delete/*path", "Hide versions of a secret.", &[Update], VERSIONS),
    route(UNDELETE, "undelete/*path", "Show hidden versions again.", &[Update], VERSIONS),
    route(
        DESTROY,
        "destroy/*path",
        "Remove the contents of versions for ever.",
        &[Update],
        VERSIONS,
    ),
    route(
        METADATA,
        "metadata/*path",
        "List secrets; read, change and remove what is known of one, with all its versions.",
        &[Create, Read, Update, Patch, Delete, List],
        METADATA_FIELDS,
    )
    .reads(Answer::Data(METADATA_SHOWN)),
    route(
        SUBKEYS,
        "subkeys/*path",
        "The shape of a version, without its values.",
        &[Read],
        &[
            field("version", Integer, "Which version; the latest when left out."),
            field("depth", Integer, "How many levels to show; 0 for all."),
        ],
    )
    .reads(Answer::OrGone(&[
        field("metadata", Object(VERSION_FACTS), "What is known of the version."),
        field("subkeys", Map, "Its names; null when the version is deleted.").or_null(),
    ])),
];

const MAX_VERSIONS: FieldSpec =
    field("max_versions", Integer, "Versions to keep; 0 for the mount's, or 10.");
const CAS_REQUIRED: FieldSpec =
    field("cas_required", Boolean, "Refuse writes that do not name the latest version.");
const DELETE_VERSION_AFTER: FieldSpec =
    field("delete_version_after", Duration, "Hide each version that long after it was written.");

const SETTINGS: &[FieldSpec] = &[MAX_VERSIONS, CAS_REQUIRED, DELETE_VERSION_AFTER];

const METADATA_FIELDS: &[FieldSpec] = &[
    MAX_VERSIONS,
    CAS_REQUIRED,
    DELETE_VERSION_AFTER,
    field("custom_metadata", Map, "Text by name, shown with every version."),
];

const VERSIONS: &[FieldSpec] = &[field("versions", Integers, "The numbers of the versions.")];

const CREATED: FieldSpec = field("created_time", Time, "When it was written.");
// Clients expect empty text where there is no time.
const DELETED: FieldSpec = field("deletion_time", Text, "When it is or was hidden; or empty.");
const DESTROYED: FieldSpec = field("destroyed", Boolean, "Whether its contents are gone for ever.");
const CUSTOM: FieldSpec =
    field("custom_metadata", Object(&[field("*", Text, "A note.")]), "Notes.").or_null();
const NUMBER: FieldSpec = field("version", Integer, "Its number.");

const VERSION_FACTS: &[FieldSpec] = &[CREATED, CUSTOM, DELETED, DESTROYED, NUMBER];

/// A version that was written; of a patch of a deleted one, what a read of that would show.
const WRITTEN: &[FieldSpec] = &[
    CREATED.if_any(),
    CUSTOM.if_any(),
    DELETED.if_any(),
    DESTROYED.if_any(),
    NUMBER.if_any(),
    field("data", Any, "Null, when the version to patch is deleted.").or_null().if_any(),
    field("metadata", Object(VERSION_FACTS), "What is known of the deleted version.").if_any(),
];

const SETTINGS_SHOWN: &[FieldSpec] = &[
    field("cas_required", Boolean, "Whether writes have to name the latest version."),
    field("delete_version_after", Text, "When versions are hidden, such as 3h25m19s."),
    field("max_versions", Integer, "Versions that are kept; 0 for the default."),
];

const METADATA_SHOWN: &[FieldSpec] = &[
    field("cas_required", Boolean, "Whether writes have to name the latest version."),
    field("created_time", Time, "When the first version was written."),
    field("current_version", Integer, "The latest version."),
    CUSTOM,
    field("delete_version_after", Text, "When versions are hidden, such as 3h25m19s."),
    field("max_versions", Integer, "Versions that are kept; 0 for the mount's, or 10."),
    field("oldest_version", Integer, "The oldest version that is kept; 0 for the first."),
    field("updated_time", Time, "When anything was last changed."),
    field(
        "versions",
        Object(&[field("*", Object(&[CREATED, DELETED, DESTROYED]), "One version.")]),
        "What is known of each, by its number.",
    ),
];
