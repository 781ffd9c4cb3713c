//! Secrets that callers store and read back.
//!
//! A mount is of version 1 or 2, as its option `version` says (1 when it says nothing). Version 1
//! keeps one value for each path; version 2 keeps several versions of it. Nothing is leased.
//!
//! The two keep their records differently, so a mount stays with the version it was mounted with: a
//! change of the option is refused, because what was stored before would seem to be lost.

mod v1;
mod v2;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::core::engine::{Engine, MountFacts};
use crate::core::error::CoreError;
use crate::core::route::Params;

const OPTION: &str = "version";

/// Which of the two a mount is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

impl Version {
    fn of(options: &BTreeMap<String, String>) -> Result<Self, CoreError> {
        match options.get(OPTION).map(String::as_str) {
            None | Some("" | "1") => Ok(Self::One),
            Some("2") => Ok(Self::Two),
            Some(_) => Err(CoreError::field("options.version", "must be 1 or 2")),
        }
    }

    /// Refuses options that would make another version of a mount that is in service.
    fn refuse_change(self, options: &BTreeMap<String, String>) -> Result<(), CoreError> {
        if Self::of(options)? == self {
            return Ok(());
        }
        Err(CoreError::field(
            "options.version",
            "cannot be changed: mount the other version at another path and copy the secrets",
        ))
    }
}

/// Makes the engine of a mount: the builder for the registry.
///
/// # Errors
/// When the option `version` is neither 1 nor 2.
pub fn build(facts: &MountFacts) -> Result<Arc<dyn Engine>, CoreError> {
    Ok(match Version::of(&facts.options)? {
        Version::One => Arc::new(v1::PlainKv),
        Version::Two => Arc::new(v2::VersionedKv::new()),
    })
}

/// The path of one secret, as the routes capture it: not empty, and not a directory.
fn secret_path<'p>(params: &Params<'p>) -> Result<&'p str, CoreError> {
    let path = params.get("path");
    if path.is_empty() || path.ends_with('/') {
        return Err(CoreError::invalid("the path names no secret: it is empty or ends in '/'"));
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(version: &str) -> BTreeMap<String, String> {
        [(OPTION.to_owned(), version.to_owned())].into()
    }

    #[test]
    fn a_mount_without_a_version_is_of_version_1() {
        assert_eq!(Version::of(&BTreeMap::new()).unwrap(), Version::One);
        assert_eq!(Version::of(&options("2")).unwrap(), Version::Two);
        for unknown in ["0", "3", "2 ", "v2"] {
            assert_eq!(Version::of(&options(unknown)).unwrap_err().status(), 400, "{unknown}");
        }
    }

    #[test]
    fn a_mount_keeps_its_version() {
        let other = BTreeMap::from([("other".to_owned(), "x".to_owned())]);
        Version::One.refuse_change(&other).unwrap();
        Version::One.refuse_change(&options("1")).unwrap();
        Version::Two.refuse_change(&options("2")).unwrap();
        assert!(Version::One.refuse_change(&options("2")).is_err());
        assert!(Version::Two.refuse_change(&options("1")).is_err());
        assert!(Version::Two.refuse_change(&other).is_err());
    }
}
