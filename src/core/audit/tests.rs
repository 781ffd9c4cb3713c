use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Value, json};

use super::broker::{AuditBroker, BrokerConfig};
use super::chain::{Chain, ChainedLine, Witness};
use super::entry::{CallerSummary, MountSummary, OperationSummary, Outcome, PeerSummary};
use super::redact::Redaction;
use super::{AuditError, AuditSink, PreparedEntry, SinkError, Turn};
use crate::crypto::blind::AuditKey;
use crate::types::id::{EntityId, LeaseId, MountAccessor, RequestId};
use crate::types::secret::SecretArray;
use crate::types::time::{SystemClock, Timestamp};

/// A sink in memory that can be told to fail or to stand still.
#[derive(Default)]
struct MemorySink {
    lines: Mutex<Vec<Vec<u8>>>,
    held: Mutex<Vec<PreparedEntry>>,
    failing: AtomicBool,
    stuck: AtomicBool,
}

impl MemorySink {
    fn take(&self, entry: PreparedEntry) {
        let mut lines = self.lines.lock().unwrap();
        let head = lines.last().map_or(Witness::GENESIS, |line| {
            ChainedLine::parse(line.strip_suffix(b"\n").unwrap()).unwrap().witness
        });
        let mut line = Vec::new();
        Chain::after(head).append(entry.body(), entry.mark(), &mut line);
        lines.push(line);
        entry.accept();
    }

    fn release(&self) {
        self.stuck.store(false, Ordering::SeqCst);
        let held = std::mem::take(&mut *self.held.lock().unwrap());
        held.into_iter().for_each(|entry| self.take(entry));
    }

    fn entries(&self) -> Vec<Value> {
        self.lines.lock().unwrap().iter().map(|l| serde_json::from_slice(l).unwrap()).collect()
    }
}

#[async_trait]
impl AuditSink for MemorySink {
    fn name(&self) -> &str {
        "memory"
    }

    fn target(&self) -> String {
        "memory".to_owned()
    }

    fn submit(&self, entry: PreparedEntry) -> Turn {
        if self.failing.load(Ordering::SeqCst) {
            let full = std::io::Error::from(std::io::ErrorKind::StorageFull);
            entry.refuse(SinkError::Write(Arc::new(full)));
        } else if self.stuck.load(Ordering::SeqCst) {
            self.held.lock().unwrap().push(entry);
        } else {
            self.take(entry);
        }
        Turn::Taken
    }

    fn healthy(&self) -> bool {
        !self.failing.load(Ordering::SeqCst)
    }

    fn head(&self) -> Option<Witness> {
        let lines = self.lines.lock().unwrap();
        let last = lines.last()?.strip_suffix(b"\n")?;
        ChainedLine::parse(last).ok().map(|line| line.witness)
    }

    async fn reopen(&self) -> Result<(), SinkError> {
        Ok(())
    }

    async fn close(&self) {}
}

fn key() -> AuditKey {
    AuditKey::new(&SecretArray::init_with(|bytes| bytes.fill(7)))
}

fn broker(sinks: &[&Arc<MemorySink>], wait_millis: u64) -> AuditBroker {
    let sinks = sinks.iter().map(|sink| Arc::clone(sink) as Arc<dyn AuditSink>).collect();
    let config = BrokerConfig { queue_entries: 4, wait: Duration::from_millis(wait_millis) };
    AuditBroker::new(sinks, config, Arc::new(SystemClock)).unwrap()
}

fn summary(path: &str) -> OperationSummary {
    OperationSummary {
        request_id: RequestId::new("r-1"),
        time: Timestamp::from_secs(1_700_000_000),
        operation: "update",
        path: path.into(),
        remote: Some("192.0.2.1:4711".parse().unwrap()),
        listener: "main".into(),
        peer: None,
    }
}

fn ok() -> Outcome {
    Outcome { status: 200, ..Outcome::default() }
}

const LONG: u64 = 60_000;

#[tokio::test]
async fn an_entry_says_who_did_what_and_hides_values() {
    let sink = Arc::new(MemorySink::default());
    let broker = broker(&[&sink], LONG);
    let key = key();
    let redaction = Redaction::new(&key);
    let peer = PeerSummary {
        spiffe_id: Some("spiffe://example.org/reports".into()),
        common_name: None,
        serial: "0a".into(),
        fingerprint: "ff".into(),
    };
    let summary = OperationSummary { peer: Some(peer), ..summary("database/creds/app") };
    let mut ticket = broker.open(summary, true).await.unwrap();
    ticket.set_caller(CallerSummary {
        entity_id: Some(EntityId::new("e-1")),
        display_name: "reports".into(),
        policies: vec!["default".into(), "reports".into()],
        accessor: Some(redaction.text("accessor")),
        token_type: "service",
        ..CallerSummary::default()
    });
    ticket.set_mount(MountSummary {
        kind: "database".into(),
        accessor: MountAccessor::new("database_12345678"),
        path: "database/".into(),
    });
    ticket.set_operation("read");
    ticket.set_request_data(redaction.value(&json!({"ttl": 60})));
    ticket.set_response_data(redaction.value(&json!({"password": "hunter2"})));
    let lease_id = Some(LeaseId::new("database/creds/app/x"));
    let outcome = Outcome { lease_id, store_sequence: Some(9), ..ok() };
    let receipt = ticket.finish(outcome).await.unwrap();
    assert_eq!(receipt.request_id().as_str(), "r-1");

    let mut entry = sink.entries().remove(0);
    entry.as_object_mut().unwrap().remove("hash");
    let hmac = |text: &str| key.hmac(text);
    assert_eq!(
        entry,
        json!({
            "seq": 1, "time": "2023-11-14T22:13:20Z", "type": "operation", "request_id": "r-1",
            "operation": "read", "path": "database/creds/app",
            "mount": {
                "type": "database", "accessor": "database_12345678", "path": "database/"
            },
            "remote": "192.0.2.1:4711", "listener": "main",
            "caller": {
                "entity_id": "e-1", "display_name": "reports",
                "policies": ["default", "reports"],
                "accessor": hmac("accessor"), "token_type": "service",
                "cert": {
                    "spiffe_id": "spiffe://example.org/reports", "serial": "0a",
                    "fingerprint": "ff"
                },
            },
            "outcome": {"status": 200}, "lease_id": "database/creds/app/x",
            "request": {"ttl": 60}, "response": {"password": hmac("hunter2")},
            "store_sequence": 9, "prev": "0".repeat(64),
        })
    );
    assert_eq!(broker.witness().unwrap().store_sequence, 9);
}

#[tokio::test]
async fn denials_carry_their_reason_and_dropped_tickets_are_aborted() {
    let sink = Arc::new(MemorySink::default());
    let broker = broker(&[&sink], LONG);
    let mut ticket = broker.open(summary("secret/data/x"), false).await.unwrap();
    ticket.set_reason("no policy grants read");
    let error = Some("permission denied".into());
    let _receipt = ticket.finish(Outcome { status: 403, error, ..ok() }).await.unwrap();
    drop(broker.open(summary("secret/data/y"), false).await.unwrap());
    // A caller that hangs up drops the future of the request, here before it was ever polled.
    drop(broker.open(summary("secret/data/z"), true).await.unwrap().finish(ok()));

    let outcomes: Vec<Value> = sink.entries().iter().map(|e| e["outcome"].clone()).collect();
    assert_eq!(
        outcomes,
        [
            json!({
                "status": 403, "error": "permission denied", "reason": "no policy grants read"
            }),
            json!({"aborted": true}),
            json!({"aborted": true}),
        ]
    );
}

#[tokio::test]
async fn no_working_sink_no_receipt_and_no_act() {
    let sink = Arc::new(MemorySink::default());
    let broker = broker(&[&sink], LONG);
    let read = broker.open(summary("secret/data/x"), false).await.unwrap();
    sink.failing.store(true, Ordering::SeqCst);
    assert_eq!(read.finish(ok()).await.unwrap_err(), AuditError::NoSink);
    let act = broker.open(summary("database/creds/app"), true).await;
    assert_eq!(act.unwrap_err(), AuditError::NoSink);
    assert!(!broker.sinks()[0].healthy);

    sink.failing.store(false, Ordering::SeqCst);
    let act = broker.open(summary("database/creds/app"), true).await.unwrap();
    assert!(act.finish(ok()).await.is_ok());
}

#[tokio::test]
async fn one_working_sink_suffices() {
    let (bad, good) = (Arc::new(MemorySink::default()), Arc::new(MemorySink::default()));
    bad.failing.store(true, Ordering::SeqCst);
    let broker = broker(&[&bad, &good], LONG);
    let ticket = broker.open(summary("x"), true).await.unwrap();
    assert!(ticket.finish(ok()).await.is_ok());
    bad.failing.store(false, Ordering::SeqCst);
    bad.stuck.store(true, Ordering::SeqCst);
    let ticket = broker.open(summary("x"), true).await.unwrap();
    assert!(ticket.finish(ok()).await.is_ok());
    assert_eq!(good.entries().len(), 2);
    assert_eq!(bad.entries().len(), 0);
}

#[tokio::test]
async fn a_stuck_sink_is_bounded_and_then_recovers() {
    let sink = Arc::new(MemorySink::default());
    sink.stuck.store(true, Ordering::SeqCst);
    let broker = broker(&[&sink], 20);
    let open = |mutating| {
        let broker = broker.clone();
        async move { broker.open(summary("x"), mutating).await }
    };
    // Waiting for the answer of a sink that gives none ends, and the next act is refused at once.
    let ticket = open(true).await.unwrap();
    assert_eq!(ticket.finish(ok()).await.unwrap_err(), AuditError::Overloaded);
    assert_eq!(open(true).await.unwrap_err(), AuditError::Overloaded);
    // Nothing grows: entries beyond the queue are refused at once.
    for _ in 0..10 {
        let _ = open(false).await.unwrap().finish(ok()).await.unwrap_err();
    }
    assert_eq!(broker.sinks()[0].pending, 4);
    // No more tickets than the queue holds.
    let tickets = [open(false).await, open(false).await, open(false).await, open(false).await];
    assert!(tickets.iter().all(Result::is_ok));
    assert_eq!(open(false).await.unwrap_err(), AuditError::Overloaded);
    drop(tickets);

    sink.release();
    assert_eq!(broker.sinks()[0].pending, 0);
    assert!(open(true).await.unwrap().finish(ok()).await.is_ok());
    assert_eq!(sink.entries().len(), 5);
}

#[tokio::test]
async fn without_sinks_only_when_said_in_as_many_words() {
    let config = BrokerConfig::default();
    let clock = Arc::new(SystemClock);
    let none = AuditBroker::new(Vec::new(), config, clock.clone());
    assert_eq!(none.unwrap_err(), AuditError::NoSink);
    let broker = AuditBroker::unaudited(clock);
    assert!(broker.open(summary("x"), true).await.unwrap().finish(ok()).await.is_ok());
    assert_eq!(broker.witness(), None);
}

#[tokio::test]
async fn the_witness_follows_the_store_and_an_accepted_older_one() {
    let sink = Arc::new(MemorySink::default());
    let broker = broker(&[&sink], LONG);
    broker.observe_store_sequence(40);
    broker.observe_store_sequence(7);
    broker.record_event("unsealed", &json!({})).await.unwrap();
    assert_eq!(broker.witness().unwrap().store_sequence, 40);
    broker.rebase_store_sequence(12, &json!({"witnessed": 40})).await.unwrap();
    broker.record_event("unsealed", &json!({})).await.unwrap();
    assert_eq!(broker.witness().unwrap().store_sequence, 12);
    assert_eq!(broker.witness().unwrap().seq, 3);
}

#[tokio::test]
async fn hostile_names_cannot_break_a_line_or_steer_a_terminal() {
    let sink = Arc::new(MemorySink::default());
    let broker = broker(&[&sink], LONG);
    let hostile = "a\r\n{\"seq\":9}\u{1b}[2J\"\\\u{0}\u{7f}\u{9b}31m\u{202e}\u{2028}\u{feff}é";
    let peer = PeerSummary {
        spiffe_id: Some(hostile.into()),
        common_name: Some(hostile.into()),
        serial: hostile.into(),
        fingerprint: hostile.into(),
    };
    let summary = OperationSummary { peer: Some(peer), ..summary(hostile) };
    let mut ticket = broker.open(summary, false).await.unwrap();
    ticket.set_reason(hostile);
    ticket.set_request_data(Redaction::new(&key()).value(&json!({hostile: hostile})));
    let _receipt = ticket.finish(ok()).await.unwrap();

    let line = sink.lines.lock().unwrap()[0].clone();
    let text = std::str::from_utf8(line.strip_suffix(b"\n").unwrap()).unwrap();
    let harmless = |c: char| c == 'é' || ('\u{20}'..'\u{7f}').contains(&c);
    assert!(text.chars().all(harmless), "{text:?}");
    let entry: Value = serde_json::from_str(text).unwrap();
    assert_eq!(entry["path"], hostile);
    assert_eq!(entry["caller"]["cert"]["common_name"], hostile);
    assert!(entry["request"][hostile].is_string());
}

#[tokio::test]
async fn overlong_fields_are_cut_and_the_line_stays_bounded() {
    let sink = Arc::new(MemorySink::default());
    let broker = broker(&[&sink], LONG);
    let endless = "\u{1}é".repeat(100_000);
    let peer = PeerSummary {
        spiffe_id: Some(endless.clone()),
        common_name: Some(endless.clone()),
        serial: endless.clone(),
        fingerprint: endless.clone(),
    };
    let summary = OperationSummary { peer: Some(peer), ..summary(&endless) };
    let mut ticket = broker.open(summary, false).await.unwrap();
    ticket.set_caller(CallerSummary {
        display_name: endless.clone(),
        policies: vec![endless.clone(); 1000],
        scopes: vec![endless.clone(); 1000],
        ..CallerSummary::default()
    });
    ticket.set_reason(endless.clone());
    ticket.set_request_data(Redaction::new(&key()).value(&json!({"a": endless.clone()})));
    let error = Some(endless.clone());
    let _receipt = ticket.finish(Outcome { error, ..ok() }).await.unwrap();
    let line = sink.lines.lock().unwrap()[0].clone();
    assert!(line.len() <= super::chain::LINE_BYTES_MAX, "{}", line.len());
    assert!(ChainedLine::parse(line.strip_suffix(b"\n").unwrap()).unwrap().intact);
    assert_eq!(sink.entries()[0]["caller"]["policies"].as_array().unwrap().len(), 129);
}

#[tokio::test]
async fn what_is_written_refused_and_waiting_is_measured() {
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    let sink = Arc::new(MemorySink::default());
    let broker = metrics::with_local_recorder(&recorder, || broker(&[&sink], LONG));
    let open = || broker.open(summary("x"), false);
    for _ in 0..3 {
        let _receipt = open().await.unwrap().finish(ok()).await.unwrap();
    }
    drop(open().await.unwrap());
    sink.failing.store(true, Ordering::SeqCst);
    let _ = open().await.unwrap().finish(ok()).await.unwrap_err();
    sink.failing.store(false, Ordering::SeqCst);
    sink.stuck.store(true, Ordering::SeqCst);
    drop((open().await.unwrap(), open().await.unwrap()));

    let text = recorder.handle().render();
    for line in [
        "leasehold_audit_entries_total{sink=\"memory\"} 4",
        "leasehold_audit_failures_total{sink=\"memory\"} 1",
        "leasehold_audit_aborted_total 3",
        "leasehold_audit_queue_depth{sink=\"memory\"} 2",
        "leasehold_audit_write_seconds_count{sink=\"memory\"} 4",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} in {text}");
    }
    sink.release();
}
