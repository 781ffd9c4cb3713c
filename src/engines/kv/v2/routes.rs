//! The paths of the engine.

use crate::core::operation::Operation::{Create, Delete, List, Patch, Read, Update};
use crate::core::route::FieldKind::{Boolean, Duration, Integer, List as ListOf, Map};
use crate::core::route::{FieldSpec, RouteSpec, field, route};

pub(super) const CONFIG: &str = "config";
pub(super) const DATA: &str = "data";
pub(super) const DELETE: &str = "delete-versions";
pub(super) const UNDELETE: &str = "undelete-versions";
pub(super) const DESTROY: &str = "destroy-versions";
pub(super) const METADATA: &str = "metadata";
pub(super) const SUBKEYS: &str = "subkeys";

pub(super) const ROUTES: &[RouteSpec] = &[
    route(CONFIG, "config", "Defaults of all secrets of the mount.", &[Read, Update], SETTINGS),
    route(
        DATA,
        "data/*path",
        "Read, write, patch and delete versions of a secret.",
        &[Create, Read, Update, Patch, Delete],
        &[
            field("data", Map, "The secret, or the merge patch to the latest version."),
            field("options", Map, "`cas`: the version that must be the latest; 0 for none yet."),
            field("version", Integer, "Which version to read; the latest when left out."),
        ],
    ),
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
    ),
    route(
        SUBKEYS,
        "subkeys/*path",
        "The shape of a version, without its values.",
        &[Read],
        &[
            field("version", Integer, "Which version; the latest when left out."),
            field("depth", Integer, "How many levels to show; 0 for all."),
        ],
    ),
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

const VERSIONS: &[FieldSpec] = &[field("versions", ListOf, "The numbers of the versions.")];
