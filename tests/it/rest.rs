//! Nothing readable at rest, over a whole broker: everything that stores something is used, and then
//! the files of the store are searched while the server runs; its logs, its audit and the log of the
//! database that it made credentials on, too.

mod used;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use data_encoding::{BASE64, BASE64URL, HEXLOWER, HEXUPPER};
use leasehold::core::records::kinds;
use rusqlite::Connection;

use crate::support::broker::Setup;
use crate::support::needles::{Hit, Needles};
use crate::support::postgres::TestPostgres;
use used::{DIRECTORY, Used};

/// Where the planted text is, and what it says.
const PLANT: &str = "planted";
const PLANTED: &str = "canary~~~planted???text>>>";
/// Names of what must be found, so that a search that looks at nothing fails.
const CLEAR: &str = "in clear by design: ";
/// Most bytes of a row that its beginning is told by.
const BEGINNING: usize = 32;

fn is_clear(hit: &Hit) -> bool {
    hit.what.starts_with(CLEAR)
}

/// A copy of a directory, taken file by file from under the servers that write to it.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let from = entry.unwrap().path();
        let to = to.join(from.file_name().unwrap());
        if from.is_dir() {
            copy(&from, &to);
        } else if let Err(error) = fs::copy(&from, to) {
            // Some are temporary.
            assert_eq!(error.kind(), std::io::ErrorKind::NotFound, "{}", from.display());
        }
    }
}

/// Which needles are in which files, and which files there are.
fn search(needles: &Needles, directory: &Path) -> (BTreeSet<(String, Hit)>, BTreeSet<String>) {
    let (mut hits, mut files) = (BTreeSet::new(), BTreeSet::new());
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if path.is_dir() {
            let (below, further) = search(needles, &path);
            hits.extend(below.into_iter().map(|(file, hit)| (format!("{name}/{file}"), hit)));
            files.extend(further.into_iter().map(|file| format!("{name}/{file}")));
            continue;
        }
        let found = needles.found_in(&fs::read(&path).unwrap());
        hits.extend(found.into_iter().map(|hit| (name.clone(), hit)));
        files.insert(name);
    }
    (hits, files)
}

/// Puts a text into the copy in every form that is looked for.
fn plant(directory: &Path) {
    let text = PLANTED.as_bytes();
    let mut planted = vec![
        text.to_vec(),
        text.iter().rev().copied().collect(),
        HEXLOWER.encode(text).into_bytes(),
        HEXUPPER.encode(text).into_bytes(),
        PLANTED.encode_utf16().flat_map(u16::to_le_bytes).collect(),
    ];
    for before in ["", "1", "12"] {
        let whole = format!("{before}{PLANTED}");
        planted.push(BASE64.encode(whole.as_bytes()).into_bytes());
        planted.push(BASE64URL.encode(whole.as_bytes()).into_bytes());
    }
    fs::write(directory.join(PLANT), planted.join(&b"\n"[..])).unwrap();
}

/// Searches the copy for everything known, and for what must be there.
fn nothing_shows(used: &mut Used, directory: &Path, rows: &[Vec<u8>], schema: &str) {
    plant(directory);
    let needles = &mut used.known.all;
    needles.add(PLANT, PLANTED.as_bytes());
    let mut clear = vec![format!("{CLEAR}schema"), format!("{CLEAR}cluster")];
    needles.add(&clear[0], schema.as_bytes());
    needles.add(&clear[1], used.cluster_id.as_bytes());
    assert!(rows.len() > 10, "what was written is in the store: {}", rows.len());
    for (number, row) in rows.iter().enumerate() {
        clear.push(format!("{CLEAR}row {number}"));
        needles.add(&clear[2 + number], row);
    }
    let (hits, files) = search(needles, directory);
    let shown: Vec<_> = hits
        .iter()
        .filter(|(file, hit)| file != PLANT && !(is_clear(hit) && hit.form != "reversed"))
        .collect();
    assert!(shown.is_empty(), "readable in the store: {shown:#?}");
    let planted: BTreeSet<_> =
        hits.iter().filter(|(file, _)| file == PLANT).map(|(_, hit)| hit.form).collect();
    assert_eq!(planted.len(), 11, "{planted:?}");
    for what in clear {
        assert!(hits.iter().any(|(_, hit)| hit.what == what), "no {what} in {files:?}");
    }
}

/// Neither the audit nor the server's log at its most talkative tell what is in requests; nor does
/// the target's log tell a password.
fn nothing_is_said(used: &Used) {
    let audit = fs::read_to_string(used.broker.audit_path()).unwrap();
    assert!(audit.contains(&format!("{DIRECTORY}/canary-path")), "paths are there to be read");
    assert_eq!(used.known.contents.found_in(audit.as_bytes()), BTreeSet::new(), "in the audit");

    let log = used.broker.log();
    assert!(log.contains("a statement on a database target failed"), "it is talkative:\n{log}");
    assert_eq!(used.known.contents.found_in(log.as_bytes()), BTreeSet::new(), "in the log");

    let log = used.target.log();
    for said in ["CREATE ROLE \"v-", "ALTER ROLE \"canary_", "SCRAM-SHA-256$"] {
        assert!(log.contains(said), "the target logs statements: {said}");
    }
    assert_eq!(used.known.secrets.found_in(log.as_bytes()), BTreeSet::new(), "in the target's log");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_whole_broker_leaves_nothing_readable_in_its_files() {
    let mut used = Used::start(Setup { shares: (3, 2), ..Setup::default() }).await;
    let file = used.broker.data_dir().join("leasehold.db");
    let (rows, logical) = sqlite_rows(&file);
    let directory = tempfile::tempdir().unwrap();
    copy(&used.broker.data_dir(), directory.path());
    let wal = fs::metadata(directory.path().join("leasehold.db-wal")).unwrap();
    assert!(wal.len() > 0, "the log of the store is part of the copy");
    fs::write(directory.path().join("rows"), logical).unwrap();
    nothing_shows(&mut used, directory.path(), &rows, "record_parent");
    nothing_is_said(&used);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_whole_broker_leaves_nothing_readable_in_postgresql() {
    // It would log all that it is sent.
    let store = tokio::task::spawn_blocking(|| {
        TestPostgres::start_with_settings("log_statement = 'all'\n")
    })
    .await
    .unwrap();
    let url = store.database();
    let database = url.rsplit('/').next().unwrap();
    let setup = Setup { postgres: Some(url.clone()), shares: (3, 2), ..Setup::default() };
    let mut used = Used::start(setup).await;
    store.sql(database, "CHECKPOINT");
    let rows = postgres_rows(&store, database);
    let directory = tempfile::tempdir().unwrap();
    copy(&store.data_dir(), directory.path());
    for part in ["base", "global", "pg_wal"] {
        assert!(directory.path().join(part).is_dir(), "{part} is part of the copy");
    }
    let dump = store.dump(database);
    assert!(dump.contains("COPY public.record"), "the dump has the records");
    fs::write(directory.path().join("dump.sql"), dump).unwrap();
    let log = store.log();
    assert!(log.contains("INSERT INTO record"), "the store logs statements");
    fs::write(directory.path().join("log"), log).unwrap();
    nothing_shows(&mut used, directory.path(), &rows, "commit_sequence");
    nothing_is_said(&used);
}

/// How each record of an engine begins; and all that is in the tables, row by row, where no page
/// ends in the middle.
fn sqlite_rows(file: &Path) -> (Vec<Vec<u8>>, Vec<u8>) {
    let store = Connection::open(file).unwrap();
    let bodies = "SELECT sealed FROM record WHERE kind = ?1";
    let mut bodies = store.prepare(bodies).unwrap();
    let kind = kinds::MOUNT_DATA.0;
    let rows = bodies.query_map([kind], |row| row.get::<_, Vec<u8>>(0)).unwrap();
    let rows = rows.map(|row| row.unwrap()[..BEGINNING].to_vec()).collect();
    let mut logical = Vec::new();
    for (table, columns) in [
        ("record", &["name", "parent", "labels", "sealed"][..]),
        ("label", &["tag", "name"]),
        ("meta", &["CAST(name AS BLOB)", "value"]),
    ] {
        for column in columns {
            let mut all = store.prepare(&format!("SELECT {column} FROM {table}")).unwrap();
            for cell in all.query_map([], |row| row.get::<_, Vec<u8>>(0)).unwrap() {
                logical.extend(cell.unwrap());
                logical.push(b'\n');
            }
        }
    }
    (rows, logical)
}

fn postgres_rows(store: &TestPostgres, database: &str) -> Vec<Vec<u8>> {
    let kind = kinds::MOUNT_DATA.0;
    let sql = format!(
        "SELECT encode(substr(sealed, 1, {BEGINNING}), 'hex') FROM record WHERE kind = {kind}"
    );
    let text = store.sql(database, &sql);
    text.lines().map(|line| HEXLOWER.decode(line.as_bytes()).unwrap()).collect()
}
