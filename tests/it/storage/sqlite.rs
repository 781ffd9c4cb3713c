//! What the SQLite store adds: one process, private files, a disk that may be full, a sudden end.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use leasehold::storage::sqlite::{SqliteOptions, SqliteStorage};

use super::*;
use crate::support::wire::until;

fn open_at(path: &Path) -> Arc<SqliteStorage> {
    SqliteStorage::open(path, SqliteOptions::default()).unwrap()
}

#[tokio::test]
async fn files_are_for_their_owner_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a/b/leasehold.db");
    let store = open_at(&path);
    store.commit(vec![insert(row(1))]).await.unwrap();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(path.parent().unwrap()), 0o700);
    assert_eq!(mode(path.parent().unwrap().parent().unwrap()), 0o700);
    let mut files = 0;
    for entry in std::fs::read_dir(path.parent().unwrap()).unwrap() {
        let path = entry.unwrap().path();
        assert_eq!(mode(&path), 0o600, "{}", path.display());
        files += 1;
    }
    assert_eq!(files, 4, "the file, its WAL, its shared memory, its lock");
    store.close().await;

    // A file that somebody opened up is closed again.
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    let store = open_at(&path);
    assert_eq!(mode(&path), 0o600);
    store.close().await;
}

#[tokio::test]
async fn space_of_rows_that_ended_goes_back_to_the_file_system() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("leasehold.db");
    let store = open_at(&path);
    let large = |number| insert(Row { sealed: sealed(1, &[7; 4000]), ..row(number) });
    for first in (0..8_000).step_by(500) {
        store.commit((first..first + 500).map(large).collect()).await.unwrap();
    }
    let bytes = || std::fs::metadata(&path).unwrap().len();
    // Whatever is still in the WAL is moved once nobody writes for a moment.
    until(|| bytes() > 24 << 20).await;
    for first in (0..7_500).step_by(500) {
        let delete = |number| Change::Delete { key: key(number), rev: 1 };
        store.commit((first..first + 500).map(delete).collect()).await.unwrap();
    }
    // An eighth is left, and a third more than that, and what is kept in any case.
    until(|| bytes() < 12 << 20).await;
    for number in [7_500, 7_999] {
        assert_eq!(store.get(key(number)).await.unwrap().unwrap().sealed, sealed(1, &[7; 4000]));
    }
    store.close().await;
    let check = |sql| -> String {
        let store = rusqlite::Connection::open(&path).unwrap();
        store.query_row(sql, [], |row| row.get(0)).unwrap()
    };
    assert_eq!(check("PRAGMA integrity_check"), "ok");
}

#[tokio::test]
async fn a_second_server_is_kept_out() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("leasehold.db");
    let first = open_at(&path);
    let refused = SqliteStorage::open(&path, SqliteOptions::default()).unwrap_err();
    assert!(matches!(refused, StorageError::CannotOpen(_)), "{refused:?}");
    assert!(refused.to_string().contains("in use by another server"), "{refused}");
    first.close().await;
    open_at(&path).close().await;
}

#[tokio::test]
async fn what_is_no_store_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("leasehold.db");
    std::fs::write(&path, "certainly not a database, but long enough to have a header".repeat(50))
        .unwrap();
    let refused = SqliteStorage::open(&path, SqliteOptions::default()).unwrap_err();
    assert!(matches!(refused, StorageError::Corrupt(_)), "{refused:?}");
    let below_a_file = path.join("leasehold.db");
    let refused = SqliteStorage::open(&below_a_file, SqliteOptions::default()).unwrap_err();
    assert!(matches!(refused, StorageError::CannotOpen(_)), "{refused:?}");
}

#[tokio::test]
async fn the_wal_is_moved_into_the_file_and_emptied_at_the_end() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("leasehold.db");
    let wal = directory.path().join("leasehold.db-wal");
    let store = open_at(&path);
    let big = |n: u64| Row { sealed: sealed(1, &vec![1; 200_000]), ..row(n) };
    // About 80 MB, in batches that follow each other.
    for batch in 0..100u64 {
        store.commit((0..4).map(|n| insert(big(batch * 4 + n))).collect()).await.unwrap();
    }
    let length = std::fs::metadata(&wal).unwrap().len();
    assert!(length < 20_000_000, "{length} bytes of WAL");
    store.close().await;
    assert!(!wal.exists());
}

/// Acts as the child when this is set to the path of the store.
const CHILD: &str = "LEASEHOLD_TEST_WRITES_UNTIL_KILLED";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_acknowledged_write_survives_sigkill_and_others_are_atomic() {
    if let Some(path) = std::env::var_os(CHILD) {
        write_until_killed(Path::new(&path)).await;
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("leasehold.db");
    for acknowledged_at_least in [1u64, 7, 40, 150] {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "--nocapture", "--test-threads=1"])
            .arg("storage::sqlite::an_acknowledged_write_survives_sigkill_and_others_are_atomic")
            .env(CHILD, &path)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut acknowledged = vec![];
        let acknowledgement = |line: std::io::Result<String>| {
            line.unwrap().strip_prefix("acknowledged ").map(|number| number.parse().unwrap())
        };
        while acknowledged.len() as u64 <= acknowledged_at_least {
            let line = lines.next().expect("the child ended by itself");
            acknowledged.extend::<Option<u64>>(acknowledgement(line));
        }
        child.kill().unwrap();
        acknowledged.extend(lines.filter_map(acknowledgement));
        child.wait().unwrap();

        let store = open_at(&path);
        for number in acknowledged {
            assert!(store.get(key(number * 2)).await.unwrap().is_some(), "{number} was lost");
        }
        let mut after = None;
        loop {
            let page = store.list(NamespaceId::ROOT, KIND, tag(PARENT), after, 1000).await.unwrap();
            for row in &page.rows {
                let number = u64::from_be_bytes(row.key.name.as_bytes()[..8].try_into().unwrap());
                let twin = store.get(key(number ^ 1)).await.unwrap();
                assert!(twin.is_some(), "{number} came without its twin");
            }
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        store.close().await;
    }
}

/// Commits pairs of rows from several tasks, and says on standard output which are acknowledged.
async fn write_until_killed(path: &Path) -> ! {
    let store = open_at(path);
    let first = store.count(KIND, Timestamp::MAX).await.unwrap().total * 1000;
    let tasks: Vec<_> = (0..4u64)
        .map(|task| {
            let store = store.clone();
            tokio::spawn(async move {
                for number in (first + task..).step_by(4) {
                    let pair = vec![insert(row(number * 2)), insert(row(number * 2 + 1))];
                    store.commit(pair).await.unwrap();
                    let mut out = std::io::stdout().lock();
                    writeln!(out, "acknowledged {number}").unwrap();
                    out.flush().unwrap();
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    std::process::exit(1);
}

/// A file system of its own, small enough to fill.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// `None` where mounting is not permitted.
    fn mount(directory: &Path) -> Option<Self> {
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=2m", "tmpfs"])
            .arg(directory)
            .output()
            .ok()?;
        mounted.status.success().then(|| Self(directory.to_owned()))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[tokio::test]
async fn a_full_disk_refuses_writes_and_recovers_when_space_returns() {
    let directory = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::mount(directory.path()) else {
        println!("skipped: mounting a tmpfs is not permitted here");
        return;
    };
    let ballast = disk.0.join("ballast");
    std::fs::write(&ballast, vec![0; 700_000]).unwrap();
    let path = disk.0.join("leasehold.db");
    let store = open_at(&path);
    let big = |n: u64| Row { sealed: sealed(1, &vec![1; 20_000]), ..row(n) };
    let mut stored = 0u64;
    let refused = loop {
        match store.commit(vec![insert(big(stored))]).await {
            Ok(_) => stored += 1,
            Err(refused) => break refused,
        }
        assert!(stored < 1000, "the disk never filled");
    };
    assert!(matches!(refused, StorageError::Full(_)), "{refused:?}");
    assert!(stored > 5, "{stored}");

    // The store lives: what is there can be read, what was refused is not there, and it goes on saying
    // why it does not write.
    assert_eq!(store.get(key(0)).await.unwrap(), Some(big(0)));
    assert_eq!(store.get(key(stored)).await.unwrap(), None);
    let again = store.commit(vec![insert(big(stored)), insert(big(stored + 1))]).await;
    assert!(matches!(again, Err(StorageError::Full(_))), "{again:?}");

    std::fs::remove_file(&ballast).unwrap();
    store.commit(vec![insert(big(stored))]).await.unwrap();
    store.commit((0..stored).map(|n| delete(&row(n))).collect()).await.unwrap();
    store.close().await;
    let store = open_at(&path);
    assert_eq!(store.get(key(stored)).await.unwrap(), Some(big(stored)));
    assert_eq!(store.count(KIND, Timestamp::MAX).await.unwrap().total, 1);
    store.close().await;
}
