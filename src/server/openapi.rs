//! The OpenAPI document of this build, without a server.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use crate::api::openapi::{self, Place};
use crate::core::engine::MountFacts;
use crate::core::error::CoreError;
use crate::core::operation::Operation;
use crate::core::route::{self, Access};
use crate::core::trust::TrustStore;
use crate::types::id::MountAccessor;
use crate::types::time::Ttl;

use super::config::Auth;
use super::run::{self, Network};

/// All that this build can serve, with the path of each mount a parameter.
///
/// # Errors
/// When an engine or method cannot be made, which is a fault.
pub fn generic() -> Result<Value, CoreError> {
    let mut places = vec![Place::seal()];
    for table in run::tables(Box::new(String::new), Access::Caller) {
        places.push(Place::system(table.prefix(), table.routes()));
    }
    let network = Network::new(&Auth::default())
        .map_err(|error| CoreError::internal(format!("no other servers: {error}")))?;
    let registry = run::registry(&Arc::new(TrustStore::new()), network);
    for (kind, build) in &registry.engines {
        for options in variants(kind) {
            let facts = facts(kind, &options);
            places.push(Place::mount(&facts.path, kind, &options, build(&facts)?.routes()));
        }
    }
    for (kind, build) in &registry.methods {
        let facts = facts(&format!("auth/{kind}"), &BTreeMap::new());
        places.push(Place::mount(&facts.path, kind, &facts.options, build(&facts)?.routes()));
    }
    let places: Vec<Place> = places.into_iter().map(Place::anywhere).collect();
    Ok(openapi::document(&places))
}

/// Whether a path of the server itself takes `sudo` for an operation, named as policies name it. Of
/// mounts nothing is known here.
pub fn needs_sudo(path: &str, operation: &str) -> bool {
    let Some(operation) = OPERATIONS.into_iter().find(|one| one.as_str() == operation) else {
        return false;
    };
    let tables = run::tables(Box::new(String::new), Access::Caller);
    let mut found = tables.iter().filter_map(|table| {
        let rest = path.strip_prefix(table.prefix())?;
        // A list is asked of a directory.
        let slash = if operation == Operation::List && !rest.ends_with('/') { "/" } else { "" };
        let rest = format!("{rest}{slash}");
        Some(route::select(table.routes(), &rest, operation)?.0)
    });
    found.next().is_some_and(|route| route.access == Access::Sudo)
}

const OPERATIONS: [Operation; 6] = [
    Operation::Create,
    Operation::Delete,
    Operation::List,
    Operation::Patch,
    Operation::Read,
    Operation::Update,
];

/// The options that make different tables of one kind.
fn variants(kind: &str) -> Vec<BTreeMap<String, String>> {
    let version = |number: &str| BTreeMap::from([("version".to_owned(), number.to_owned())]);
    if kind == "kv" { vec![version("1"), version("2")] } else { vec![BTreeMap::new()] }
}

fn facts(path: &str, options: &BTreeMap<String, String>) -> MountFacts {
    MountFacts {
        path: format!("{path}/"),
        accessor: MountAccessor::new("any"),
        options: options.clone(),
        default_ttl: Ttl::from_secs(3600),
        max_ttl: Ttl::from_secs(3600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_is_the_same_every_time_and_names_no_mount() {
        let first = generic().unwrap();
        assert_eq!(first.to_string(), generic().unwrap().to_string());
        let paths = first["paths"].as_object().unwrap();
        for path in [
            "/sys/health",
            "/sys/internal/specs/openapi",
            "/auth/token/create",
            "/cubbyhole/{path}",
            "/{kv_v1_mount_path}/{path}",
            "/{kv_v2_mount_path}/data/{path}",
            "/auth/{approle_mount_path}/role/{name}/secret-id",
        ] {
            assert!(paths.contains_key(path), "{path}");
        }
    }
}
