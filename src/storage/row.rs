//! Rows as both databases keep them: signed integers and byte strings, checked when they are read back.

use super::{Kind, PAGE_ROWS_MAX, Page, Row, RowKey, StorageError};
use crate::crypto::blind::Tag;
use crate::crypto::envelope::SealedRecord;
use crate::types::id::NamespaceId;
use crate::types::time::Timestamp;

const TAG_BYTES: usize = 16;

/// A row as a database returns it, before it is believed.
#[derive(Debug)]
pub(super) struct RawRow<'a> {
    pub namespace: i64,
    pub kind: i64,
    pub name: &'a [u8],
    pub parent: &'a [u8],
    pub rev: i64,
    pub due_at: Option<i64>,
    pub labels: &'a [u8],
    pub sealed: &'a [u8],
}

impl RawRow<'_> {
    /// The row, if everything in it has the form that it was written in.
    pub fn parse(self) -> Result<Row, StorageError> {
        let key = self.key()?;
        let damaged = |what: &str| {
            StorageError::Corrupt(format!("record {:?} of kind {}: {what}", key.name, key.kind.0))
        };
        Ok(Row {
            key,
            parent: tag(self.parent).ok_or_else(|| damaged("parent tag"))?,
            rev: u64::try_from(self.rev).map_err(|_| damaged("revision"))?,
            due_at: self.due_at.map(Timestamp::from_millis),
            labels: labels_from_bytes(self.labels).ok_or_else(|| damaged("labels"))?,
            sealed: SealedRecord::from_stored(self.sealed.to_vec())
                .map_err(|_| damaged("sealed bytes"))?,
        })
    }

    /// Its key alone.
    pub fn key(&self) -> Result<RowKey, StorageError> {
        let damaged = || StorageError::Corrupt("the key of a record".to_owned());
        Ok(RowKey {
            namespace: NamespaceId(u32::try_from(self.namespace).map_err(|_| damaged())?),
            kind: Kind(u16::try_from(self.kind).map_err(|_| damaged())?),
            name: tag(self.name).ok_or_else(damaged)?,
        })
    }
}

/// Collects rows of a listing. A damaged row is reported and left out: one bad row must not stop the
/// sweep or hide its neighbours. Asked for by name ([`super::Storage::get`]) it is an error.
#[derive(Debug, Default)]
pub(super) struct Rows {
    rows: Vec<Row>,
    seen: usize,
    last: Option<Tag>,
}

impl Rows {
    /// Takes in one row.
    pub fn add(&mut self, raw: RawRow<'_>) {
        self.seen += 1;
        self.last = tag(raw.name).or(self.last);
        match raw.parse() {
            Ok(row) => self.rows.push(row),
            Err(error) => {
                metrics::counter!("leasehold_storage_damaged_rows_total").increment(1);
                tracing::error!(%error, "a damaged record was left out of a listing");
            }
        }
    }

    /// How many were taken in, damaged ones too.
    pub fn seen(&self) -> usize {
        self.seen
    }

    /// The readable rows.
    pub fn into_vec(self) -> Vec<Row> {
        self.rows
    }

    /// The rows as a page. `more`: whether the database holds further ones.
    pub fn into_page(self, more: bool) -> Page {
        Page { rows: self.rows, next: self.last.filter(|_| more) }
    }
}

/// The tag, if there are as many bytes as a tag has.
pub(super) fn tag(bytes: &[u8]) -> Option<Tag> {
    bytes.try_into().ok().map(Tag::from_bytes)
}

/// Labels as the column keeps them.
pub(super) fn labels_to_bytes(labels: &[Tag]) -> Vec<u8> {
    labels.iter().flat_map(|label| *label.as_bytes()).collect()
}

/// Labels as the column kept them.
pub(super) fn labels_from_bytes(bytes: &[u8]) -> Option<Vec<Tag>> {
    let (tags, rest) = bytes.as_chunks::<TAG_BYTES>();
    rest.is_empty().then(|| tags.iter().map(|bytes| Tag::from_bytes(*bytes)).collect())
}

/// A revision as the databases keep it.
pub(super) fn rev_to_sql(rev: u64) -> Result<i64, StorageError> {
    i64::try_from(rev).map_err(|_| StorageError::Corrupt("a revision out of range".to_owned()))
}

/// A limit within what one page may hold.
pub(super) fn page_limit(limit: usize) -> usize {
    limit.clamp(1, PAGE_ROWS_MAX)
}

/// A limit as SQL takes it.
pub(super) fn limit_to_sql(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

/// A count or bound as SQL takes it.
pub(super) fn count_to_sql(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// A count as SQL gives it.
pub(super) fn count_from_sql(count: i64) -> u64 {
    u64::try_from(count).unwrap_or(0)
}

/// The revision that a row must carry that follows `expect`.
pub(super) fn check_next_rev(row: &Row, expect: super::Expect) -> Result<(), StorageError> {
    let before = match expect {
        super::Expect::Absent => 0,
        super::Expect::Rev(rev) => rev,
    };
    if before.checked_add(1) == Some(row.rev) {
        Ok(())
    } else {
        Err(StorageError::Corrupt(format!(
            "a change from revision {before} to {} was asked for",
            row.rev
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw<'a>(name: &'a [u8], labels: &'a [u8], sealed: &'a [u8]) -> RawRow<'a> {
        RawRow {
            namespace: 0,
            kind: 7,
            name,
            parent: &[0; 16],
            rev: 1,
            due_at: None,
            labels,
            sealed,
        }
    }

    #[test]
    fn labels_keep_their_order() {
        let labels = [Tag::from_bytes([9; 16]), Tag::from_bytes([1; 16])];
        assert_eq!(labels_from_bytes(&labels_to_bytes(&labels)).unwrap(), labels);
        assert_eq!(labels_from_bytes(&[]).unwrap(), []);
        assert_eq!(labels_from_bytes(&[0; 17]), None);
    }

    #[test]
    fn damaged_rows_are_refused_by_name_and_left_out_of_listings() {
        for row in [raw(&[0; 15], &[], &[]), raw(&[0; 16], &[1], &[]), raw(&[0; 16], &[], &[1])] {
            assert!(matches!(row.parse(), Err(StorageError::Corrupt(_))));
        }
        let mut rows = Rows::default();
        rows.add(raw(&[3; 16], &[1], &[]));
        assert_eq!(rows.seen(), 1);
        let page = rows.into_page(true);
        assert!(page.rows.is_empty());
        assert_eq!(page.next, Some(Tag::from_bytes([3; 16])), "the listing goes on behind it");
    }
}
