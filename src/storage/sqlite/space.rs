//! Giving space back. Pages that ended rows have left are used again by what comes next; beyond a share
//! of the file they go back to the file system, a few at a time, when nobody waits for the writer.

use std::time::Duration;

use rusqlite::Connection;

/// How long nothing has to be queued before the next few go.
pub(super) const REST: Duration = Duration::from_millis(10);
/// Free pages may be one in so many: the file is at most a fifth larger than the pages in use, which are not
/// full themselves.
const SHARE: i64 = 6;
/// As many are kept in any case (1 MiB).
const KEPT_PAGES: i64 = 256;
/// How many go in one transaction: whoever comes meanwhile waits no longer than for another commit.
const STEP_PAGES: i64 = 64;

/// Whether there are more free pages than may be.
pub(super) fn is_wasted(db: &Connection) -> rusqlite::Result<bool> {
    let number = |pragma: &str| -> rusqlite::Result<i64> {
        db.prepare_cached(pragma)?.query_row([], |row| row.get(0))
    };
    let free = number("PRAGMA freelist_count")?;
    Ok(free > KEPT_PAGES && free > number("PRAGMA page_count")? / SHARE)
}

/// Gives a few back, in a transaction of its own.
pub(super) fn give_back(db: &Connection) -> rusqlite::Result<()> {
    let mut statement = db.prepare_cached(&format!("PRAGMA incremental_vacuum({STEP_PAGES})"))?;
    // Each row of the answer is a page.
    let mut pages = statement.query([])?;
    while pages.next()?.is_some() {}
    Ok(())
}
