//! The audit on real files: one chain whatever happens, and no receipt without a line.

use std::fs::{self, OpenOptions, Permissions};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::BoxFuture;
use leasehold::audit::file::{FileSink, FileSinkConfig, FileSinkError, SyncPolicy, recorded_head};
use leasehold::audit::verify::{Fault, Report, verify_files};
use leasehold::core::audit::broker::{AuditBroker, BrokerConfig};
use leasehold::core::audit::chain::Witness;
use leasehold::core::audit::entry::{OperationSummary, Outcome};
use leasehold::core::audit::redact::Redaction;
use leasehold::core::audit::ticket::AuditReceipt;
use leasehold::core::audit::{AuditError, AuditSink, Turn};
use leasehold::crypto::blind::AuditKey;
use leasehold::types::id::RequestId;
use leasehold::types::secret::SecretArray;
use leasehold::types::time::{Clock, SystemClock, Timestamp};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::sink::Watched;

fn sink(path: &Path, sync: SyncPolicy) -> Result<FileSink, FileSinkError> {
    let config = FileSinkConfig { name: "file".into(), path: path.into(), sync, lend: true };
    FileSink::open(config, Arc::new(SystemClock))
}

fn broker_with(path: &Path, sync: SyncPolicy) -> AuditBroker {
    let sinks: Vec<Arc<dyn AuditSink>> = vec![Arc::new(sink(path, sync).unwrap())];
    let config = BrokerConfig { wait: Duration::from_secs(60), ..BrokerConfig::default() };
    AuditBroker::new(sinks, config, Arc::new(SystemClock)).unwrap()
}

fn broker(path: &Path) -> AuditBroker {
    broker_with(path, SyncPolicy::Interval(Duration::from_secs(1)))
}

fn summary(path: &str) -> OperationSummary {
    OperationSummary {
        request_id: RequestId::new("r-1"),
        time: Timestamp::from_secs(1_700_000_000),
        operation: "read",
        path: path.into(),
        remote: None,
        listener: "main".into(),
        peer: None,
    }
}

async fn act(broker: &AuditBroker, path: &str) -> Result<AuditReceipt, AuditError> {
    let outcome = Outcome { status: 200, ..Outcome::default() };
    broker.open(summary(path), true).await?.finish(outcome).await
}

async fn acts(broker: &AuditBroker, count: usize) {
    for n in 0..count {
        let _receipt = act(broker, &format!("secret/data/{n}")).await.unwrap();
    }
}

fn entries(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn events(path: &Path) -> Vec<String> {
    let entries = entries(path).into_iter();
    entries.filter_map(|entry| Some(entry.get("event")?.as_str()?.to_owned())).collect()
}

fn verify(paths: &[&Path], expected: Option<Witness>) -> Report {
    let paths: Vec<PathBuf> = paths.iter().map(|path| (*path).into()).collect();
    verify_files(&paths, expected).unwrap()
}

#[track_caller]
fn assert_intact(paths: &[&Path], log: &Path) {
    let report = verify(paths, recorded_head(log).unwrap());
    assert!(report.is_intact(), "{:?}", report.problems);
    assert!(report.from_genesis);
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_entries_at_once_make_one_chain() {
    let dir = TempDir::new().unwrap();
    let log = dir.path().join("audit.log");
    let broker = broker(&log);
    let tasks: Vec<_> = (0..100)
        .map(|_| {
            let broker = broker.clone();
            tokio::spawn(async move { acts(&broker, 100).await })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let head = broker.witness().unwrap();
    assert_eq!(head.seq, 10_000);
    broker.close().await;
    assert_eq!(recorded_head(&log).unwrap(), Some(head));
    let report = verify(&[&log], Some(head));
    assert!(report.is_intact(), "{:?}", report.problems);
    assert_eq!((report.lines, report.head), (10_000, Some(head)));
    assert_eq!(act(&broker, "x").await.unwrap_err(), AuditError::NoSink);
    // Closing twice is harmless.
    broker.close().await;
}

#[tokio::test]
async fn an_entry_whose_request_is_given_up_is_written_and_delays_nobody() {
    let dir = TempDir::new().unwrap();
    let log = dir.path().join("audit.log");
    let broker = broker(&log);
    let ticket = broker.open(summary("given-up"), false).await.unwrap();
    let mut finishing = Box::pin(ticket.finish(Outcome { status: 200, ..Outcome::default() }));
    // It has the turn to write by now, and lets others go first.
    assert!(futures_util::poll!(&mut finishing).is_pending());
    let waiting = broker.open(summary("waiting"), false).await.unwrap();
    let mut waiting = Box::pin(waiting.finish(Outcome { status: 200, ..Outcome::default() }));
    assert!(futures_util::poll!(&mut waiting).is_pending());
    assert_eq!(entries(&log).len(), 0);
    drop(finishing);
    let _receipt = waiting.await.unwrap();
    let paths: Vec<_> = entries(&log).iter().map(|entry| entry["path"].clone()).collect();
    assert_eq!(paths, ["given-up", "waiting"]);
}

/// A clock by which everything takes as long as it is told.
struct Slow(AtomicU64, AtomicU64);

impl Clock for Slow {
    fn now(&self) -> Timestamp {
        Timestamp::from_secs(1_700_000_000)
    }
    fn monotonic(&self) -> Duration {
        let step = self.1.load(Ordering::SeqCst);
        Duration::from_millis(self.0.fetch_add(step, Ordering::SeqCst))
    }
    fn sleep(&self, time: Duration) -> BoxFuture<'_, ()> {
        SystemClock.sleep(time)
    }
    fn sleep_until(&self, _: Timestamp) -> BoxFuture<'_, ()> {
        Box::pin(std::future::pending())
    }
}

#[tokio::test]
async fn requests_write_no_log_that_is_slow() {
    let dir = TempDir::new().unwrap();
    let log = dir.path().join("audit.log");
    let sync = SyncPolicy::Interval(Duration::from_secs(1));
    let config = FileSinkConfig { name: "file".into(), path: log.clone(), sync, lend: true };
    let clock = Arc::new(Slow(AtomicU64::new(0), AtomicU64::new(0)));
    let sink = FileSink::open(config, clock.clone()).unwrap();
    let sink = Arc::new(Watched::new(sink));
    let broker =
        AuditBroker::new(vec![sink.clone()], BrokerConfig::default(), clock.clone()).unwrap();
    let turn_of_the_next = async || {
        acts(&broker, 1).await;
        sink.turns.lock().unwrap().pop().unwrap()
    };
    // The sink's own thread may have written one of them, as it does when it is at it already.
    let finds = async |turn| {
        for tries in 1..=100 {
            if turn_of_the_next().await == turn {
                return tries;
            }
        }
        panic!("no entry was answered {turn:?}");
    };
    assert_eq!(turn_of_the_next().await, Turn::Yours);
    assert_eq!(turn_of_the_next().await, Turn::Yours);
    clock.1.store(30, Ordering::SeqCst);
    let slow = finds(Turn::Taken).await;
    assert_eq!(turn_of_the_next().await, Turn::Taken, "it stays so for a while");
    // After a while it is tried again.
    clock.1.store(0, Ordering::SeqCst);
    clock.0.fetch_add(5_000, Ordering::SeqCst);
    assert_eq!(turn_of_the_next().await, Turn::Yours);
    broker.close().await;
    let report = verify(&[&log], None);
    assert!(report.is_intact(), "{:?}", report.problems);
    assert_eq!(report.lines, 4 + slow);
}

#[tokio::test]
async fn an_accepted_entry_is_in_the_file_at_once() {
    for sync in [SyncPolicy::Always, SyncPolicy::Interval(Duration::from_secs(3600))] {
        let dir = TempDir::new().unwrap();
        let log = dir.path().join("audit.log");
        let broker = broker_with(&log, sync);
        let _receipt = act(&broker, "secret/data/here").await.unwrap();
        assert_eq!(entries(&log)[0]["path"], "secret/data/here");
        assert_eq!(fs::metadata(&log).unwrap().permissions().mode() & 0o777, 0o600);
        let head = log.with_extension("log.head");
        assert_eq!(fs::metadata(head).unwrap().permissions().mode() & 0o777, 0o600);
    }
}

#[tokio::test]
async fn rotation_and_restart_go_on_with_the_chain() {
    let dir = TempDir::new().unwrap();
    let (log, old, older) =
        (dir.path().join("audit.log"), dir.path().join("audit.1"), dir.path().join("audit.2"));
    let first = broker(&log);
    acts(&first, 3).await;
    fs::rename(&log, &older).unwrap();
    // Until it is told, the sink goes on with the file it has.
    acts(&first, 2).await;
    first.reopen().await.unwrap();
    acts(&first, 4).await;
    // Nothing was rotated: nothing happens.
    first.reopen().await.unwrap();
    acts(&first, 1).await;
    first.close().await;
    assert_eq!((entries(&older).len(), entries(&log).len()), (5, 5));
    assert_intact(&[&older, &log], &log);

    // Rotated while the server was down: the record beside the log knows the end of the chain.
    fs::rename(&log, &old).unwrap();
    let second = broker(&log);
    assert_eq!(second.witness().unwrap().seq, 10);
    second.observe_store_sequence(77);
    acts(&second, 2).await;
    second.close().await;
    let third = broker(&log);
    assert_eq!(third.witness().unwrap().store_sequence, 77);
    acts(&third, 1).await;
    third.close().await;
    assert_intact(&[&older, &old, &log], &log);
    assert_eq!(events(&log), [""; 0]);
}

#[tokio::test]
async fn a_torn_line_is_moved_aside_and_told() {
    let dir = TempDir::new().unwrap();
    let log = dir.path().join("audit.log");
    for torn in [&b"{\"seq\":4,\"time\":\"2023"[..], b"{", &[0; 5000]] {
        let before = broker(&log);
        acts(&before, 3).await;
        before.close().await;
        OpenOptions::new().append(true).open(&log).unwrap().write_all(torn).unwrap();
        let after = broker(&log);
        acts(&after, 1).await;
        after.close().await;
        assert_intact(&[&log], &log);
        let aside = fs::read(dir.path().join("audit.log.torn")).unwrap();
        assert!(aside.strip_suffix(b"\n").unwrap().ends_with(torn));
    }
    assert_eq!(events(&log), ["torn_line"; 3]);
}

#[tokio::test]
async fn a_log_that_lost_its_end_while_the_server_was_down_is_told() {
    let dir = TempDir::new().unwrap();
    let log = dir.path().join("audit.log");
    let before = broker(&log);
    acts(&before, 5).await;
    before.close().await;
    let kept: Vec<String> = fs::read_to_string(&log).unwrap().lines().map(str::to_owned).collect();
    fs::write(&log, format!("{}\n{}\n", kept[0], kept[1])).unwrap();
    let after = broker(&log);
    acts(&after, 1).await;
    after.close().await;
    assert_eq!(events(&log), ["lines_missing"]);
    let report = verify(&[&log], recorded_head(&log).unwrap());
    let faults: Vec<_> = report.problems.iter().map(|p| (p.line, p.fault)).collect();
    assert_eq!(faults, [(3, Fault::Missing { from: 3, to: 5 })]);

    // The last line replaced by one with a right hash, or damaged.
    for (edit, event) in
        [(json!("forged"), "last_line_replaced"), (Value::Null, "last_line_damaged")]
    {
        let dir = TempDir::new().unwrap();
        let log = dir.path().join("audit.log");
        let before = broker(&log);
        acts(&before, 2).await;
        before.close().await;
        let mut text = fs::read_to_string(&log).unwrap();
        if edit.is_null() {
            text = text.replace("secret/data/1", "secret/data/2");
        } else {
            let first = text.lines().next().unwrap().to_owned();
            let other = dir.path().join("other.log");
            fs::write(&other, first.clone() + "\n").unwrap();
            let forger = broker(&other);
            let _receipt = act(&forger, "forged").await.unwrap();
            forger.close().await;
            text = fs::read_to_string(&other).unwrap();
        }
        fs::write(&log, text).unwrap();
        let after = broker(&log);
        acts(&after, 1).await;
        after.close().await;
        assert_eq!(events(&log), [event]);
        let report = verify(&[&log], recorded_head(&log).unwrap());
        let lines: Vec<u64> = report.problems.iter().map(|problem| problem.line).collect();
        assert_eq!(lines, [2], "{:?}", report.problems);
    }
}

#[tokio::test]
async fn a_deleted_log_is_noticed_at_the_next_entry() {
    let dir = TempDir::new().unwrap();
    let log = dir.path().join("audit.log");
    let broker = broker(&log);
    acts(&broker, 2).await;
    fs::remove_file(&log).unwrap();
    acts(&broker, 1).await;
    assert_eq!(events(&log), ["log_deleted"]);
    assert_eq!(entries(&log).len(), 2);
    broker.close().await;
    let report = verify(&[&log], recorded_head(&log).unwrap());
    assert!(report.is_intact());
    assert_eq!(report.first_seq, Some(3));
}

#[tokio::test]
async fn what_must_not_be_a_log_is_refused_by_name() {
    let dir = TempDir::new().unwrap();
    let interval = SyncPolicy::Interval(Duration::from_secs(1));
    let open = |path: &Path| sink(path, interval).map(drop).unwrap_err();
    let log = dir.path().join("audit.log");

    assert!(matches!(open(&dir.path().join("none/audit.log")), FileSinkError::Io { .. }));

    let exposed = dir.path().join("exposed");
    fs::write(&exposed, "").unwrap();
    fs::set_permissions(&exposed, Permissions::from_mode(0o620)).unwrap();
    assert!(matches!(open(&exposed), FileSinkError::Exposed { mode: 0o620, .. }));

    let link = dir.path().join("link");
    std::os::unix::fs::symlink("/dev/full", &link).unwrap();
    assert!(matches!(open(&link), FileSinkError::NotRegular { .. }));

    // Files of somebody else are not appended to, let alone cut.
    for content in ["root:x:0:0::/root:/bin/sh\n", "no newline"] {
        let alien = dir.path().join("alien");
        fs::write(&alien, content).unwrap();
        fs::set_permissions(&alien, Permissions::from_mode(0o600)).unwrap();
        assert!(matches!(open(&alien), FileSinkError::Unreadable { .. }));
        assert_eq!(fs::read_to_string(&alien).unwrap(), content);
    }

    let first = broker(&log);
    acts(&first, 1).await;
    assert!(matches!(open(&log), FileSinkError::InUse { .. }));
    first.close().await;
    assert!(sink(&log, interval).is_ok());
}

#[tokio::test]
async fn a_reopen_that_fails_leaves_the_sink_with_what_it_has() {
    let dir = TempDir::new().unwrap();
    let (log, old) = (dir.path().join("audit.log"), dir.path().join("audit.1"));
    let broker = broker(&log);
    acts(&broker, 1).await;
    fs::rename(&log, &old).unwrap();
    fs::create_dir(&log).unwrap();
    let failed = broker.reopen().await.unwrap_err();
    assert_eq!(failed[0].0, "file");
    acts(&broker, 1).await;
    assert_eq!(entries(&old).len(), 2);
    fs::remove_dir(&log).unwrap();
    broker.reopen().await.unwrap();
    acts(&broker, 1).await;
    broker.close().await;
    assert_intact(&[&old, &log], &log);
}

#[tokio::test]
async fn no_value_of_a_request_or_an_answer_is_in_the_file() {
    let dir = TempDir::new().unwrap();
    let log = dir.path().join("audit.log");
    let broker = broker(&log);
    let key = AuditKey::new(&SecretArray::init_with(|bytes| bytes.fill(7)));
    let redaction = Redaction::new(&key);
    let mut deep = json!("canary-deep");
    for _ in 0..100 {
        deep = json!([deep]);
    }
    let data = json!({
        "password": "canary-text", "pin": 493_817_265_u64, "pi": -27_182_818_284.5,
        "list": ["canary-item", {"inner": "canary-inner"}], "multi": "canary\nline",
        "canary-key-".repeat(20): true,
    });
    for value in [data, deep, json!("canary-bare"), json!({"long": "canary-long".repeat(10_000)})] {
        let mut ticket = broker.open(summary("secret/data/x"), false).await.unwrap();
        ticket.set_request_data(redaction.value(&value));
        ticket.set_response_data(redaction.value(&value));
        let _receipt = ticket.finish(Outcome::default()).await.unwrap();
    }
    broker.close().await;
    let text = fs::read_to_string(&log).unwrap();
    for canary in ["canary", "493817265", "27182818284"] {
        assert!(!text.contains(canary), "{canary}");
    }
    // The control: an auditor who has the key finds the value.
    assert_eq!(entries(&log)[0]["request"]["password"], key.hmac("canary-text"));
    assert_intact(&[&log], &log);
}

const DISK_LIMIT_BYTES: u64 = 20_000;
const DISK_LIMIT_ROLE: &str = "LEASEHOLD_TEST_DISK_LIMIT";

/// Runs itself again under a file size limit, the one way to a write that the kernel cuts short that
/// needs no privileges.
#[test]
fn a_full_disk_refuses_entries_and_space_brings_them_back() {
    if let Ok(log) = std::env::var(DISK_LIMIT_ROLE) {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        return runtime.block_on(write_until_full_and_on(Path::new(&log)));
    }
    for concurrent in ["1", "50"] {
        let dir = TempDir::new().unwrap();
        let log = dir.path().join("audit.log");
        // With the signal ignored, the write fails instead of ending the process.
        let output = Command::new("sh")
            .args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\""])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", "audit::a_full_disk_refuses_entries_and_space_brings_them_back"])
            .env(DISK_LIMIT_ROLE, &log)
            .env("LEASEHOLD_TEST_CONCURRENT", concurrent)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{said}");
        assert!(said.contains("1 passed"), "{said}");

        assert_intact(&[&log], &log);
        let entries = entries(&log);
        let recovered = entries.iter().find(|entry| entry["event"] == "sink_recovered").unwrap();
        assert!(recovered["detail"]["refused"].as_u64().unwrap() > 0);
        assert_eq!(entries.last().unwrap()["path"], "after");
    }
}

async fn write_until_full_and_on(log: &Path) {
    let concurrent: usize = std::env::var("LEASEHOLD_TEST_CONCURRENT").unwrap().parse().unwrap();
    let unlimited = getrlimit(Resource::Fsize);
    let limit = Rlimit { current: Some(DISK_LIMIT_BYTES), maximum: unlimited.maximum };
    setrlimit(Resource::Fsize, limit).unwrap();
    let broker = broker(log);
    let (mut accepted, mut refused) = (0, 0);
    while refused == 0 {
        let batch = (0..concurrent).map(|n| {
            let broker = broker.clone();
            tokio::spawn(async move { act(&broker, &format!("secret/data/{n}")).await })
        });
        for one in batch.collect::<Vec<_>>() {
            match one.await.unwrap() {
                Ok(_receipt) => accepted += 1,
                Err(error) => {
                    assert_eq!(error, AuditError::NoSink);
                    refused += 1;
                }
            }
        }
    }
    assert!(accepted > 0);
    assert!(fs::metadata(log).unwrap().len() <= DISK_LIMIT_BYTES);

    // Now not even the shortest line finds room.
    setrlimit(Resource::Fsize, Rlimit { current: Some(1), maximum: unlimited.maximum }).unwrap();
    assert_eq!(act(&broker, "refused").await.unwrap_err(), AuditError::NoSink);
    assert!(!broker.sinks()[0].healthy);
    assert_eq!(broker.ready(), Err(AuditError::NoSink));

    setrlimit(Resource::Fsize, unlimited).unwrap();
    // Acts are refused while the sink is known to fail; it finds out by itself that it works again.
    while broker.ready().is_err() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let _receipt = act(&broker, "after").await.unwrap();
    broker.close().await;
    let operations = entries(log).iter().filter(|entry| entry["type"] == "operation").count();
    assert_eq!(operations, accepted + 1, "what was refused is not in the file");
}
