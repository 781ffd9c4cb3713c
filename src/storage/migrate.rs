//! The schema's versions. What each may do is written in `migrations/README.md`.

use super::StorageError;

/// One step of the schema, forward only.
#[derive(Debug)]
pub(super) struct Migration {
    /// Its number; the first is 1 and none is left out.
    pub version: u32,
    /// The statements.
    pub sql: &'static str,
}

/// The steps of the SQLite schema.
pub(super) const SQLITE: &[Migration] =
    &[Migration { version: 1, sql: include_str!("../../migrations/sqlite/0001_records.sql") }];

/// The steps of the PostgreSQL schema.
pub(super) const POSTGRES: &[Migration] =
    &[Migration { version: 1, sql: include_str!("../../migrations/postgres/0001_records.sql") }];

/// The steps that a store at version `found` still lacks; 0 stands for an empty store.
///
/// # Errors
/// [`StorageError::NewerSchema`] when the store is ahead of this build.
pub(super) fn missing(
    steps: &'static [Migration],
    found: i64,
) -> Result<impl Iterator<Item = &'static Migration>, StorageError> {
    let known = steps.last().map_or(0, |step| step.version);
    let found = u32::try_from(found)
        .map_err(|_| StorageError::Corrupt(format!("schema version {found}")))?;
    if found > known {
        return Err(StorageError::NewerSchema { found, known });
    }
    Ok(steps.iter().filter(move |step| step.version > found))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_count_up_from_one_and_agree_between_the_stores() {
        for steps in [SQLITE, POSTGRES] {
            let versions: Vec<u32> = steps.iter().map(|step| step.version).collect();
            assert_eq!(versions, (1..=u32::try_from(steps.len()).unwrap()).collect::<Vec<_>>());
        }
        assert_eq!(SQLITE.len(), POSTGRES.len());
    }

    #[test]
    fn every_migration_file_is_listed() {
        for (directory, steps) in [("sqlite", SQLITE), ("postgres", POSTGRES)] {
            let path = format!("{}/migrations/{directory}", env!("CARGO_MANIFEST_DIR"));
            let mut files: Vec<String> = std::fs::read_dir(&path)
                .unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect();
            files.sort();
            assert_eq!(files.len(), steps.len(), "{path}: {files:?}");
            for (file, step) in files.iter().zip(steps) {
                assert!(file.starts_with(&format!("{:04}_", step.version)), "{file}");
                let text = std::fs::read_to_string(format!("{path}/{file}")).unwrap();
                assert_eq!(text, step.sql, "{file}");
            }
        }
    }

    #[test]
    fn a_newer_or_senseless_version_is_refused() {
        assert_eq!(missing(SQLITE, 0).unwrap().count(), SQLITE.len());
        assert_eq!(missing(SQLITE, 1).unwrap().count(), SQLITE.len() - 1);
        assert!(matches!(
            missing(SQLITE, 9999).map(Iterator::count),
            Err(StorageError::NewerSchema { found: 9999, known }) if known == SQLITE.len() as u32
        ));
        assert!(matches!(missing(SQLITE, -1).map(Iterator::count), Err(StorageError::Corrupt(_))));
    }
}
