//! What the PostgreSQL store adds: several nodes, a server that may go away, TLS.

use std::path::Path;
use std::time::Duration;

use futures_util::future::join_all;
use leasehold::storage::Invalidation;
use leasehold::storage::postgres::{PostgresOptions, PostgresStorage};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::sync::broadcast::Receiver;

use super::*;

async fn try_connect(
    url: &str,
    ca_file: Option<&Path>,
) -> Result<Arc<PostgresStorage>, StorageError> {
    let url = SecretString::new(url.to_owned());
    PostgresStorage::connect(&url, ca_file, PostgresOptions::default()).await
}

async fn connect(url: &str) -> Arc<PostgresStorage> {
    try_connect(url, None).await.unwrap()
}

async fn hear(invalidations: &mut Receiver<Invalidation>) -> Invalidation {
    tokio::time::timeout(Duration::from_secs(30), invalidations.recv())
        .await
        .expect("nothing was heard")
        .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_start_together_do_not_collide() {
    let url = TestPostgres::shared().database();
    let nodes = join_all((0..6).map(|_| connect(&url))).await;
    for (number, node) in (0..).zip(&nodes) {
        node.commit(vec![insert(row(number))]).await.unwrap();
    }
    assert_eq!(nodes[0].count(KIND, Timestamp::MAX).await.unwrap().total, 6);
}

#[tokio::test]
async fn a_node_hears_what_others_changed_and_not_what_it_changed_itself() {
    let url = TestPostgres::shared().database();
    let (ours, theirs) = (connect(&url).await, connect(&url).await);
    let mut heard = ours.invalidations();
    ours.commit(vec![insert(row(1))]).await.unwrap();
    // Refused, so there is nothing to hear of.
    theirs.commit(vec![insert(row(2)), insert(row(1))]).await.unwrap_err();
    theirs.commit(vec![insert(row(3)), delete(&row(1))]).await.unwrap();
    match hear(&mut heard).await {
        Invalidation::Rows(rows) => assert_eq!(rows, [key(3), key(1)]),
        Invalidation::Everything => panic!("nothing was lost"),
    }
    // More rows than one notification can name.
    theirs.commit((100..500).map(|n| insert(row(n))).collect()).await.unwrap();
    let mut named = vec![];
    while named.len() < 400 {
        match hear(&mut heard).await {
            Invalidation::Rows(rows) => named.extend(rows),
            Invalidation::Everything => panic!("nothing was lost"),
        }
    }
    assert_eq!(named, (100..500).map(key).collect::<Vec<_>>());
    assert!(heard.try_recv().is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_server_is_an_error_and_its_return_needs_nobody() {
    let server = TestPostgres::start();
    let store = connect(&server.database()).await;
    store.commit(vec![insert(row(1))]).await.unwrap();
    let mut heard = store.invalidations();
    server.stop();
    assert!(matches!(store.get(key(1)).await, Err(StorageError::Unavailable(_))));
    let commit = store.commit(vec![insert(row(2))]).await;
    assert!(matches!(commit, Err(StorageError::Unavailable(_))), "{commit:?}");
    assert!(matches!(hear(&mut heard).await, Invalidation::Everything), "contact was lost");
    let unreachable = try_connect(&server.url("test_0"), None).await.unwrap_err();
    assert!(matches!(unreachable, StorageError::Unavailable(_)), "{unreachable:?}");
    assert!(!format!("{unreachable:?}").contains(server.password()), "{unreachable:?}");

    server.start_again();
    assert_eq!(store.get(key(1)).await.unwrap(), Some(row(1)));
    store.commit(vec![insert(row(2))]).await.unwrap();
    // What others change is heard of again, and until then caches are emptied over and over.
    let other = connect(&server.url("test_0")).await;
    for number in 100.. {
        other.commit(vec![insert(row(number))]).await.unwrap();
        match hear(&mut heard).await {
            Invalidation::Rows(_) => break,
            Invalidation::Everything => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_too_long_for_a_connection_is_told_so() {
    let server = TestPostgres::shared();
    let url = server.database();
    let options = PostgresOptions { max_connections: 1, wait_max: Duration::from_millis(20) };
    let store =
        PostgresStorage::connect(&SecretString::new(url.clone()), None, options).await.unwrap();
    store.commit(vec![insert(row(1))]).await.unwrap();
    // Somebody else holds the row, so that the only connection waits for it.
    let (holder, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await.unwrap();
    let driver = tokio::spawn(connection);
    holder.batch_execute("BEGIN; SELECT 1 FROM record FOR UPDATE").await.unwrap();
    let waiting = tokio::spawn({
        let store = store.clone();
        async move { store.commit(vec![delete(&row(1))]).await }
    });
    let (_, database) = url.rsplit_once('/').unwrap();
    let blocked = "SELECT count(*) FROM pg_stat_activity \
         WHERE application_name = 'leasehold' AND wait_event_type = 'Lock' \
         AND datname = current_database()";
    while server.sql(database, blocked) != "1" {
        tokio::task::yield_now().await;
    }
    assert!(matches!(store.get(key(1)).await, Err(StorageError::Busy)));
    holder.batch_execute("ROLLBACK").await.unwrap();
    waiting.await.unwrap().unwrap();
    assert_eq!(store.get(key(1)).await.unwrap(), None);
    driver.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_is_given_up_leaves_no_transaction_behind() {
    let server = TestPostgres::shared();
    let url = server.database();
    let options = PostgresOptions { max_connections: 1, ..PostgresOptions::default() };
    let store = PostgresStorage::connect(&SecretString::new(url), None, options).await.unwrap();
    for number in 0..50u64 {
        let mut commit = Box::pin(store.commit(vec![insert(row(number))]));
        // Given up after as many steps as this is the number of the attempt.
        for _ in 0..number {
            if futures_util::poll!(&mut commit).is_ready() {
                break;
            }
            tokio::time::sleep(Duration::from_micros(200)).await;
        }
        drop(commit);
        store.commit(vec![insert(row(1000 + number))]).await.unwrap();
    }
    let count = store.count(KIND, Timestamp::MAX).await.unwrap().total;
    assert!((50..=100).contains(&count), "{count}");
}

#[tokio::test]
async fn a_server_that_acknowledges_too_early_is_overruled() {
    let server = TestPostgres::start();
    server.sql("postgres", "ALTER SYSTEM SET synchronous_commit = off");
    server.sql("postgres", "SELECT pg_reload_conf()");
    let url = server.database();
    let store = connect(&url).await;
    let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await.unwrap();
    let driver = tokio::spawn(connection);
    let default: String = client.query_one("SHOW synchronous_commit", &[]).await.unwrap().get(0);
    assert_eq!(default, "off", "else this test proves nothing");
    // A function in place of the table's default tells what our sessions run with.
    client
        .batch_execute(
            "CREATE TABLE seen (setting text); \
             CREATE FUNCTION look() RETURNS trigger LANGUAGE plpgsql AS \
             'BEGIN INSERT INTO seen VALUES (current_setting(''synchronous_commit'')); \
              RETURN NULL; END'; \
             CREATE TRIGGER look AFTER INSERT ON record EXECUTE FUNCTION look()",
        )
        .await
        .unwrap();
    store.commit(vec![insert(row(1))]).await.unwrap();
    let seen: String = client.query_one("SELECT setting FROM seen", &[]).await.unwrap().get(0);
    assert_eq!(seen, "on");
    driver.abort();
}

#[tokio::test]
async fn a_read_only_server_is_told_from_a_lost_one() {
    let server = TestPostgres::shared();
    let url = server.database();
    let store = connect(&url).await;
    store.commit(vec![insert(row(1))]).await.unwrap();
    store.close().await;
    let (_, database) = url.rsplit_once('/').unwrap();
    server.sql(
        "postgres",
        &format!("ALTER DATABASE {database} SET default_transaction_read_only = on"),
    );
    let url = format!("{url}?options=-c%20default_transaction_read_only%3Doff");
    let store = connect(&url).await;
    store.commit(vec![insert(row(2))]).await.unwrap();
    let other = PostgresStorage::connect(
        &SecretString::new(url.replace("Doff", "Don")),
        None,
        PostgresOptions::default(),
    )
    .await;
    // The schema is there, so a node can start and answer; what it cannot do is write.
    let other = other.unwrap();
    assert_eq!(other.get(key(2)).await.unwrap(), Some(row(2)));
    let refused = other.commit(vec![insert(row(3))]).await;
    assert!(matches!(refused, Err(StorageError::Full(_))), "{refused:?}");
}

struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    directory: tempfile::TempDir,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("ca.pem"), issuer.pem()).unwrap();
        Self { issuer, directory }
    }

    fn file(&self) -> std::path::PathBuf {
        self.directory.path().join("ca.pem")
    }

    fn issue(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (certificate.pem(), key.serialize_pem())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_is_as_strict_as_the_url_says() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let (certificate, key) = authority.issue("localhost");
    let server = TestPostgres::start_with_tls(&certificate, &key);
    let by_address = server.database();
    let by_name = by_address.replace("127.0.0.1", "localhost");
    let (ours, theirs) = (authority.file(), stranger.file());
    let (ours, theirs) = (Some(ours.as_path()), Some(theirs.as_path()));
    let encrypted = "SELECT coalesce(bool_and(ssl)::text, 'none') FROM pg_stat_ssl \
         JOIN pg_stat_activity USING (pid) WHERE application_name = 'leasehold'";
    for (url, mode, ca_file, outcome) in [
        (&by_address, "disable", None, Some("false")),
        (&by_address, "prefer", None, Some("true")),
        (&by_address, "require", None, Some("true")),
        (&by_address, "require", ours, Some("true")),
        (&by_address, "require", theirs, None),
        (&by_address, "verify-ca", ours, Some("true")),
        (&by_address, "verify-ca", theirs, None),
        (&by_name, "verify-full", ours, Some("true")),
        (&by_name, "verify-full", theirs, None),
        // The right authority, the wrong name.
        (&by_address, "verify-full", ours, None),
        // Unsaid: as strict as what is given allows.
        (&by_address, "", None, Some("true")),
        (&by_name, "", ours, Some("true")),
        (&by_address, "", ours, None),
    ] {
        let url = if mode.is_empty() { url.clone() } else { format!("{url}?sslmode={mode}") };
        match (try_connect(&url, ca_file).await, outcome) {
            (Ok(store), Some(expected)) => {
                assert_eq!(server.sql("postgres", encrypted), expected, "{url}");
                store.close().await;
                drop(store);
                while server.sql("postgres", encrypted) != "none" {
                    tokio::task::yield_now().await;
                }
            }
            (Err(StorageError::Unavailable(_)), None) => {}
            (result, outcome) => panic!("{url}: {result:?} instead of {outcome:?}"),
        }
    }

    let without_tls = TestPostgres::shared().database();
    let refused = try_connect(&format!("{without_tls}?sslmode=require"), None).await;
    assert!(matches!(refused, Err(StorageError::Unavailable(_))), "{refused:?}");
    connect(&format!("{without_tls}?sslmode=prefer")).await;
}

#[tokio::test]
async fn schemas_keep_stores_apart_in_one_database() {
    let server = TestPostgres::shared();
    let url = server.database();
    let (_, database) = url.rsplit_once('/').unwrap();
    server.sql(database, "CREATE SCHEMA one; CREATE SCHEMA two");
    let one = connect(&format!("{url}?options=-c%20search_path%3Done")).await;
    let two = connect(&format!("{url}?options=-c%20search_path%3Dtwo")).await;
    one.commit(vec![insert(row(1))]).await.unwrap();
    assert_eq!(two.get(key(1)).await.unwrap(), None);
    two.commit(vec![insert(row(1))]).await.unwrap();
}

#[tokio::test]
async fn every_question_is_answered_by_an_index_in_its_order() {
    let server = TestPostgres::start();
    // The server logs the plan of whatever our sessions run.
    let url = format!(
        "{}?options=-c%20session_preload_libraries%3Dauto_explain%20\
         -c%20auto_explain.log_min_duration%3D0",
        server.database()
    );
    let store = connect(&url).await;
    let rows = (0..500)
        .map(|n| Row { due_at: Some(Timestamp::from_millis(1)), ..labelled_row(n, &[50, n]) });
    store.commit(rows.map(insert).collect()).await.unwrap();
    let (root, now) = (NamespaceId::ROOT, Timestamp::from_millis(1));
    store.list(root, KIND, tag(PARENT), None, 10).await.unwrap();
    store.labelled(root, KIND, tag(50), None, 10).await.unwrap();
    store.count_labelled(root, KIND, tag(50), 10).await.unwrap();
    store.due(KIND, now, 10).await.unwrap();
    store.next_due(KIND).await.unwrap();
    store.count(KIND, now).await.unwrap();
    store.wrapped_below(2, Some(key(7)), 10).await.unwrap();
    store.count_wrapped_below(2).await.unwrap();
    store.meta("m").await.unwrap();
    let claimed = store.claim(KIND, now, 1, Timestamp::MAX, 10).await.unwrap();
    store.reseal(vec![(claimed[0].key, 1, sealed(2, b""))]).await.unwrap();
    let childless = Change::RequireChildless { guard: key(1), kind: KIND, parent: tag(1) };
    let fewer = Change::RequireFewer { namespace: root, kind: KIND, label: tag(50), max: 1000 };
    let meta = Change::PutMeta { name: "m", value: Some(vec![1]), expect: None };
    let other_meta =
        Change::PutMeta { name: "m", value: Some(vec![2]), expect: Some(Some(vec![1])) };
    let no_meta = Change::PutMeta { name: "m", value: None, expect: Some(Some(vec![2])) };
    let unlabelled = Row { labels: vec![], ..next(&claimed[1]) };
    store
        .commit(vec![
            Change::RequireRow { key: key(1) },
            childless,
            fewer,
            replace(unlabelled),
            delete(&claimed[2]),
            meta,
            other_meta,
            no_meta,
            Change::RaiseTermFloor { term: 1 },
        ])
        .await
        .unwrap();
    store.close().await;

    let log = server.log();
    let mut questions = std::collections::BTreeSet::new();
    for plan in log.split("LOG:  duration:").skip(1) {
        let plan = plan.split("\n2").next().unwrap();
        let question = plan.lines().find(|line| line.contains("Query Text:")).unwrap();
        if ["record", "label", "meta"].iter().any(|table| question.contains(&format!(" {table} ")))
        {
            questions.insert(question.to_owned());
            for bad in ["Seq Scan", "Sort", "Bitmap", "Hash", "Merge"] {
                assert!(!plan.contains(bad), "{bad}: {plan}");
            }
            // What is left to look at once an index has found the row: whether it is claimed, its
            // revision or value, or, in a walk over all rows, its term.
            for filter in plan.lines().filter(|line| line.contains("Filter:")) {
                let columns = ["claimed_until", "(rev ", "(value ", "(term "];
                assert!(columns.iter().any(|column| filter.contains(column)), "{plan}");
            }
        }
    }
    assert!(questions.len() >= 24, "{}: {questions:#?}", questions.len());
}
