//! Which paths are configuration: known from what is mounted where.

use serde_json::{Map, Value};

use super::document::{Document, Mount};
use super::plan::Kind;

/// First segments below a mount that do something or hand something out.
const ACTIONS: &[&str] = &[
    "cache-config",
    "code",
    "creds",
    "datakey",
    "decrypt",
    "encrypt",
    "export",
    "hash",
    "hmac",
    "import",
    "issue",
    "login",
    "lookup",
    "random",
    "reset",
    "restore",
    "revoke",
    "rewrap",
    "rotate-role",
    "rotate-root",
    "sign",
    "sign-verbatim",
    "static-creds",
    "tidy",
    "verify",
    "backup",
];
/// The same as the last of three segments or more, behind a name.
const ACTIONS_OF_ONE: &[&str] =
    &["custom-secret-id", "import", "import_version", "login", "rotate", "secret-id", "trim"];
/// Methods whose `config` is written whole.
const WRITTEN_WHOLE: &[&str] = &["jwt", "kubernetes", "oidc"];
/// Last segments of paths whose entries `-prune` may delete.
const COLLECTIONS: &[&str] = &["role", "roles", "users", "groups", "certs", "static-roles"];

/// A path's mount.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// The type of the engine or method.
    pub(super) kind: String,
    /// Whether it is mounted yet.
    pub(super) is_there: bool,
    /// Whether a write of the path unsets what it leaves out.
    pub(super) is_whole: bool,
}

/// What is mounted, and what will be.
pub(super) struct Territory {
    engines: Map<String, Value>,
    methods: Map<String, Value>,
    /// Path with a slash at its end, type, version of kv.
    coming: Vec<(String, String, String)>,
}

impl Territory {
    /// From the two listings of a server and what the document adds.
    pub(super) fn new(
        engines: Map<String, Value>,
        methods: Map<String, Value>,
        document: &Document,
    ) -> Self {
        let coming = |prefix: &str, mount: &Mount| {
            let version = mount.options.get("version").map(ToString::to_string);
            let version = version.unwrap_or_default().trim_matches('"').to_owned();
            (format!("{prefix}{}/", mount.path), mount.kind.clone(), version)
        };
        let coming = document
            .mounts
            .iter()
            .map(|mount| coming("", mount))
            .chain(document.auth.iter().map(|mount| coming("auth/", mount)));
        Self { coming: coming.collect(), engines, methods }
    }

    /// The entry of a mount in the listing of its class.
    pub(super) fn listed(&self, kind: Kind, path: &str) -> Option<&Value> {
        self.class(kind).get(&format!("{path}/"))
    }

    /// The paths of all mounts of a class, without the slash at their end, and their types.
    pub(super) fn all(&self, kind: Kind) -> impl Iterator<Item = (&str, &Value)> {
        self.class(kind).iter().map(|(path, entry)| (path.trim_end_matches('/'), entry))
    }

    fn class(&self, kind: Kind) -> &Map<String, Value> {
        if kind == Kind::Method { &self.methods } else { &self.engines }
    }

    /// The mount that serves `path`, the part of the path below it, and the version of kv.
    fn find<'p>(&self, path: &'p str) -> Option<(Place, &'p str, String)> {
        let there = |prefix: &'static str, all: &Map<String, Value>| {
            let entries: Vec<_> = all
                .iter()
                .map(|(name, entry)| {
                    let text = |pointer: &str| {
                        entry
                            .pointer(pointer)
                            .and_then(Value::as_str)
                            .unwrap_or_default()
                            .to_owned()
                    };
                    (format!("{prefix}{name}"), text("/type"), text("/options/version"), true)
                })
                .collect();
            entries
        };
        let mut known = there("", &self.engines);
        known.extend(there("auth/", &self.methods));
        let coming = self.coming.iter().filter(|(name, _, _)| !known.iter().any(|k| k.0 == *name));
        let coming: Vec<_> = coming
            .map(|(name, kind, version)| (name.clone(), kind.clone(), version.clone(), false))
            .collect();
        let serving = known.into_iter().chain(coming);
        let (mount, kind, version, is_there) = serving
            .filter(|(mount, ..)| path.starts_with(mount.as_str()))
            .max_by_key(|(mount, ..)| mount.len())?;
        let rest = path.get(mount.len()..).unwrap_or_default();
        let is_whole = WRITTEN_WHOLE.contains(&kind.as_str()) && rest == "config";
        Some((Place { kind, is_there, is_whole }, rest, version))
    }

    /// The mount of a path that is configuration.
    ///
    /// # Errors
    /// Why it is not.
    pub(super) fn place(&self, path: &str) -> Result<Place, &'static str> {
        let (place, rest, version) =
            self.find(path).ok_or("nothing is mounted there, and nothing in the document is")?;
        let segments: Vec<&str> = rest.split('/').collect();
        let first = segments.first().copied().unwrap_or_default();
        let last = segments.last().copied().unwrap_or_default();
        let refused = match place.kind.as_str() {
            "kv" if version == "2" => {
                let fits = rest == "config" || first == "metadata" && segments.len() > 1;
                (!fits).then_some("holds secrets; of kv only config and metadata/… are set here")
            }
            "kv" | "cubbyhole" => Some("holds secrets, which do not belong here"),
            "token" => (first != "roles").then_some("is no role of tokens"),
            "identity" => matches!(last, "merge" | "generate" | "admin-generate" | "admin-destroy")
                .then_some("does something, it is not configuration"),
            _ => (ACTIONS.contains(&first) || segments.len() > 2 && ACTIONS_OF_ONE.contains(&last))
                .then_some("does something, it is not configuration"),
        };
        refused.map_or(Ok(place), Err)
    }

    /// Whether everything below a path that the document does not name may be deleted.
    ///
    /// # Errors
    /// Why not.
    pub(super) fn is_collection(&self, path: &str) -> Result<(), &'static str> {
        let (place, rest, _) = self.find(path).ok_or("nothing is mounted there")?;
        let fits = match place.kind.as_str() {
            "identity" => matches!(rest, "entity/name" | "group/name"),
            "database" if rest == "config" => true,
            "kv" | "cubbyhole" | "system" => false,
            _ => COLLECTIONS.contains(&rest),
        };
        if fits { Ok(()) } else { Err("is no collection of roles, users, groups or databases") }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn territory() -> Territory {
        let engines = json!({
            "secret/": {"type": "kv", "options": {"version": "2"}},
            "plain/": {"type": "kv", "options": {"version": "1"}},
            "database/": {"type": "database", "options": null},
            "team/db/": {"type": "database"},
            "team/": {"type": "kv", "options": {"version": "2"}},
            "identity/": {"type": "identity"},
            "transit/": {"type": "transit"},
        });
        let methods = json!({"approle/": {"type": "approle"}, "token/": {"type": "token"}});
        let coming = Mount {
            path: "people".to_owned(),
            kind: "userpass".to_owned(),
            description: None,
            options: Map::new(),
            tune: Map::new(),
        };
        let document = Document { auth: vec![coming], ..Document::default() };
        let object = |value: Value| value.as_object().unwrap().clone();
        Territory::new(object(engines), object(methods), &document)
    }

    #[test]
    fn secrets_and_actions_are_no_configuration() {
        let territory = territory();
        for path in [
            "secret/data/app",
            "secret/metadata",
            "secret/destroy/app",
            "plain/app",
            "plain/config",
            "database/creds/reader",
            "team/db/static-creds/x",
            "team/data/x",
            "auth/approle/login",
            "auth/approle/role/web/secret-id",
            "auth/token/create",
            "auth/people/login/ann",
            "identity/entity/merge",
            "transit/export/encryption-key/k",
            "transit/keys/k/rotate",
            "nowhere/x",
        ] {
            assert!(territory.place(path).is_err(), "{path}");
        }
        for (path, is_there) in [
            ("secret/config", true),
            ("secret/metadata/app/a", true),
            ("database/roles/creds", true),
            ("team/db/config/pg", true),
            ("auth/approle/role/rotate", true),
            ("auth/token/roles/job", true),
            ("auth/people/users/ann", false),
            ("identity/entity/name/web", true),
            ("transit/keys/k", true),
        ] {
            assert_eq!(territory.place(path).map(|place| place.is_there), Ok(is_there), "{path}");
        }
    }

    #[test]
    fn only_collections_of_configuration_can_be_pruned() {
        let territory = territory();
        for path in ["auth/approle/role", "database/config", "team/db/roles", "identity/group/name"]
        {
            assert_eq!(territory.is_collection(path), Ok(()), "{path}");
        }
        for path in [
            "secret/metadata",
            "secret",
            "plain",
            "team/roles",
            "transit/keys",
            "identity/entity/id",
            "auth/approle",
            "nowhere/role",
        ] {
            assert!(territory.is_collection(path).is_err(), "{path}");
        }
    }
}
