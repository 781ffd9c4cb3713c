//! Bringing the schema up to date.

use deadpool_postgres::Client;

use super::super::migrate;
use super::{StorageError, failed};

/// Held by the one node that migrates. Any number nobody else uses in this database.
const LOCK: i64 = 0x1ea5_e401_d5ce_0001;

/// Runs what is missing, in one transaction, while other nodes that start wait.
pub(super) async fn migrate(client: &mut Client) -> Result<(), StorageError> {
    let transaction = client.transaction().await.map_err(failed)?;
    transaction.execute("SELECT pg_advisory_xact_lock($1)", &[&LOCK]).await.map_err(failed)?;
    let known: bool = transaction
        .query_one("SELECT to_regclass('schema_version') IS NOT NULL", &[])
        .await
        .and_then(|row| row.try_get(0))
        .map_err(failed)?;
    // Asked first, so that a node whose role may not create tables can start on a schema that is there.
    if !known {
        transaction
            .batch_execute("CREATE TABLE schema_version (version bigint PRIMARY KEY)")
            .await
            .map_err(failed)?;
    }
    let found: i64 = transaction
        .query_one("SELECT coalesce(max(version), 0) FROM schema_version", &[])
        .await
        .and_then(|row| row.try_get(0))
        .map_err(failed)?;
    for step in migrate::missing(migrate::POSTGRES, found)? {
        transaction.batch_execute(step.sql).await.map_err(failed)?;
        transaction
            .execute(
                "INSERT INTO schema_version (version) VALUES ($1)",
                &[&i64::from(step.version)],
            )
            .await
            .map_err(failed)?;
    }
    transaction.commit().await.map_err(failed)
}
