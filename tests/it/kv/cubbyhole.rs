//! The private place of each caller.

use super::*;

fn caller(private_key: &str) -> CallerFacts {
    CallerFacts { private_key: private_key.to_owned(), end_is_told: true, ..CallerFacts::default() }
}

async fn read(hole: &Mount, who: &CallerFacts, path: &str) -> Result<Value, u16> {
    let reply = hole.call_as(who, Operation::Read, path, Value::Null).await;
    reply.map(data_of).map_err(|error| error.status())
}

#[tokio::test]
async fn nobody_sees_what_another_stored() {
    let store = Store::new();
    let hole = store.mount("cubbyhole", &[]);
    // One key that begins like another, and one caller who tries to reach the other by path.
    let (alice, bob, carol) = (caller("aa"), caller("aab"), caller("entity-aa"));
    assert_eq!(hole.exists("s").await, None);
    for (who, secret) in [(&alice, "a"), (&bob, "b")] {
        let body = json!({ "secret": secret });
        assert_done(hole.call_as(who, Operation::Update, "x/s", body).await);
    }
    assert_eq!(read(&hole, &alice, "x/s").await, Ok(json!({"secret": "a"})));
    assert_eq!(read(&hole, &bob, "x/s").await, Ok(json!({"secret": "b"})));
    assert_eq!(read(&hole, &carol, "x/s").await, Err(404));
    assert_eq!(read(&hole, &bob, "aa/x/s").await, Err(404));
    for (who, expected) in [(&alice, Some(json!(["x/"]))), (&carol, None)] {
        let listed = hole.call_as(who, Operation::List, "", Value::Null).await;
        assert_eq!(listed.ok().map(|reply| reply.data.unwrap()["keys"].clone()), expected);
    }
    assert_done(hole.call_as(&carol, Operation::Delete, "x/s", Value::Null).await);
    assert_done(hole.call_as(&bob, Operation::Delete, "x/s", Value::Null).await);
    assert_eq!(read(&hole, &bob, "x/s").await, Err(404));
    assert_eq!(read(&hole, &alice, "x/s").await, Ok(json!({"secret": "a"})));
}

#[tokio::test]
async fn all_of_it_goes_with_its_caller_and_nothing_else() {
    let store = Store::new();
    let hole = store.mount("cubbyhole", &[]);
    let (alice, bob) = (caller("aa"), caller("aab"));
    for path in ["one", "dir/two", "dir/deeper/three"] {
        for who in [&alice, &bob] {
            assert_done(hole.call_as(who, Operation::Update, path, json!({"at": path})).await);
        }
    }
    hole.engine.caller_gone(&hole.ctx(), "aa").await.unwrap();
    hole.engine.caller_gone(&hole.ctx(), "aa").await.unwrap();
    assert_eq!(read(&hole, &alice, "one").await, Err(404));
    assert_eq!(read(&hole, &alice, "dir/deeper/three").await, Err(404));
    assert_eq!(read(&hole, &bob, "dir/deeper/three").await, Ok(json!({"at": "dir/deeper/three"})));
    // A key that is no name must not empty the whole mount.
    for key in ["", "/", "aab/"] {
        assert!(hole.engine.caller_gone(&hole.ctx(), key).await.is_err(), "{key}");
    }
    assert_eq!(read(&hole, &bob, "one").await, Ok(json!({"at": "one"})));
    hole.engine.caller_gone(&hole.ctx(), "aab").await.unwrap();
    assert_eq!(store.rows().await, 0);
}

#[tokio::test]
async fn whose_end_nobody_tells_stores_nothing() {
    let store = Store::new();
    let hole = store.mount("cubbyhole", &[]);
    let batch = CallerFacts { end_is_told: false, ..caller("bb") };
    for operation in [Operation::Update, Operation::Read, Operation::List, Operation::Delete] {
        let reply = hole.call_as(&batch, operation, "s", json!({"x": 1})).await;
        assert_eq!(refusal(reply).0, 400, "{operation}");
    }
    let nobody = CallerFacts { end_is_told: true, ..CallerFacts::default() };
    let reply = hole.call_as(&nobody, Operation::Update, "s", json!({"x": 1})).await;
    assert_eq!(refusal(reply).0, 500);
    assert_eq!(store.rows().await, 0);
}

#[tokio::test]
async fn what_is_refused() {
    let store = Store::new();
    let hole = store.mount("cubbyhole", &[]);
    let alice = caller("aa");
    let write = |path: &'static str, body| hole.call_as(&alice, Operation::Update, path, body);
    assert_eq!(refusal(write("s", json!({})).await).0, 400);
    assert_eq!(refusal(write("", json!({"x": 1})).await).0, 400);
    assert_eq!(refusal(write("dir/", json!({"x": 1})).await).0, 400);
    assert_eq!(read(&hole, &alice, "").await, Err(400));
    assert_eq!(store.rows().await, 0);
}
