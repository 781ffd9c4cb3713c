use super::*;
use crate::core::identity::Entity;
use crate::core::records::{Batch, Precondition};
use crate::core::scratch::{NOW, Scratch};
use crate::crypto::otp::{TotpParameters, decode_secret};
use crate::types::time::{ManualClock, Timestamp};
use std::time::Duration;

const WHO: &str = "e1";

fn node(scratch: &Scratch, clock: &Arc<ManualClock>) -> Mfa {
    Mfa::new(scratch.reopened(scratch.storage.clone()), clock.clone())
}

fn method(id: &str) -> Method {
    Method {
        id: id.into(),
        name: format!("phone of {id}"),
        issuer: "Leasehold".into(),
        parameters: TotpParameters::default(),
        key_bytes: 20,
        barcode_pixels: 0,
        attempts_max: 3,
    }
}

fn enforcement(methods: &[&str]) -> Enforcement {
    Enforcement {
        name: "all".into(),
        methods: methods.iter().map(|id| (*id).to_owned()).collect(),
        policies: ["p".to_owned()].into(),
        ..Enforcement::default()
    }
}

fn entity(id: &str) -> Entity {
    let text = format!(r#"{{"id":"{id}","name":"ann","created_at":0,"updated_at":0}}"#);
    serde_json::from_str(&text).unwrap()
}

async fn put_method(node: &Mfa, method: Method) -> Result<(), CoreError> {
    node.change(|all| {
        all.methods.insert(method.id.clone(), method.clone());
        Ok(())
    })
    .await
}

async fn put_enforcement(node: &Mfa, one: Enforcement) -> Result<(), CoreError> {
    node.change(|all| {
        all.enforcements.insert(one.name.clone(), one.clone());
        Ok(())
    })
    .await
}

async fn stored_entity(scratch: &Scratch, id: &str) -> crate::storage::RowKey {
    let entities = View::new(scratch.records.clone(), NamespaceId::ROOT, kinds::ENTITY, "".into());
    entities.write(id, &1, Precondition::Any).await.unwrap();
    scratch.records.key(&entities.full_name(id))
}

/// A stored entity with a shared secret, and its codes.
async fn enrolled(scratch: &Scratch, node: &Mfa, id: &str) -> impl Fn(Timestamp) -> String + use<> {
    let row = stored_entity(scratch, WHO).await;
    let method = method(id);
    put_method(node, method.clone()).await.unwrap();
    let Enrolled::Now { url, barcode } = node.enrol(&entity(WHO), row, &method).await.unwrap()
    else {
        panic!("enrolled before")
    };
    assert!(barcode.is_none());
    let again = node.enrol(&entity(WHO), row, &method).await.unwrap();
    assert!(matches!(again, Enrolled::Already));
    let secret = url.expose().split("secret=").nth(1).unwrap();
    let secret = secret.split('&').next().unwrap().to_owned();
    move |now| {
        let key = decode_secret(&secret).unwrap();
        let parameters = TotpParameters::default();
        parameters.code(&key, parameters.step_at(now)).expose().to_owned()
    }
}

fn shown(method: &str, code: &str) -> Shown {
    Shown { method: method.into(), code: SecretString::new(code.to_owned()) }
}

async fn prove_as(node: &Mfa, method: &str, code: &str) -> Result<(), String> {
    let (who, codes) = (EntityId::new(WHO), [shown(method, code)]);
    node.prove(&who, &[enforcement(&["m1"])], &codes).await.map_err(|error| {
        assert_eq!(error.to_string(), REFUSED);
        error.reason().unwrap().to_owned()
    })
}

async fn prove(node: &Mfa, code: &str) -> Result<(), String> {
    prove_as(node, "m1", code).await
}

fn wrong(code: &str) -> &'static str {
    if code == "000000" { "000001" } else { "000000" }
}

#[tokio::test]
async fn a_code_counts_once_over_all_nodes_and_none_before_it() {
    let scratch = Scratch::new();
    let clock = Arc::new(ManualClock::new(NOW));
    let (one, two) = (node(&scratch, &clock), node(&scratch, &clock));
    let code = enrolled(&scratch, &one, "m1").await;
    let (now, before) = (code(NOW), code(NOW.plus_millis(-30_000)));
    let (a, b) = tokio::join!(prove(&one, &now), prove(&two, &now));
    assert!(a.is_ok() != b.is_ok(), "{a:?} {b:?}");
    assert_eq!(prove(&two, &before).await.unwrap_err(), "a code that was used");
    // By the name of the method as well, and after a restart as before it.
    clock.advance(Duration::from_secs(30));
    let next = code(NOW.plus_millis(30_000));
    prove_as(&two, "phone of m1", &next).await.unwrap();
    assert!(prove(&node(&scratch, &clock), &next).await.is_err());
}

#[tokio::test]
async fn wrong_codes_lock_on_all_nodes_whatever_is_shown_then() {
    let scratch = Scratch::new();
    let clock = Arc::new(ManualClock::new(NOW));
    let (one, two) = (node(&scratch, &clock), node(&scratch, &clock));
    let code = enrolled(&scratch, &one, "m1").await;
    let right = code(NOW);
    // No code is no guess.
    for _ in 0..5 {
        assert!(prove(&one, "").await.unwrap_err().contains("no code"));
    }
    for (node, bad) in [(&one, wrong(&right)), (&two, "12345x"), (&one, "1234567")] {
        assert_eq!(prove(node, bad).await.unwrap_err(), "a wrong code");
    }
    for node in [&one, &two, &self::node(&scratch, &clock)] {
        assert_eq!(prove(node, &right).await.unwrap_err(), "locked");
    }
    assert_eq!(two.locked().await.unwrap()["m1"], [WHO]);
    two.unlock(&EntityId::new(WHO), "m1").await.unwrap();
    two.unlock(&EntityId::new("nobody"), "m1").await.unwrap();
    assert!(one.locked().await.unwrap().is_empty());
    // What was shown while it was locked was not taken.
    prove(&one, &right).await.unwrap();
    // The lock is over by itself, and what failed before it counts no more.
    for _ in 0..3 {
        prove(&one, wrong(&right)).await.unwrap_err();
    }
    clock.advance(Duration::from_secs(899));
    assert_eq!(prove(&one, "").await.unwrap_err(), "no code for the login enforcement \"all\"");
    assert_eq!(prove(&one, "000000").await.unwrap_err(), "locked");
    clock.advance(Duration::from_secs(1));
    let later = NOW.plus_millis(900_000);
    prove(&one, wrong(&code(later))).await.unwrap_err();
    prove(&one, &code(later)).await.unwrap();
}

#[tokio::test]
async fn guesses_made_all_at_once_are_counted_each() {
    let scratch = Scratch::new();
    let clock = Arc::new(ManualClock::new(NOW));
    let (one, two) = (node(&scratch, &clock), node(&scratch, &clock));
    let code = enrolled(&scratch, &one, "m1").await;
    let bad = wrong(&code(NOW));
    let (a, b, c, d, e) = tokio::join!(
        prove(&one, bad),
        prove(&two, bad),
        prove(&one, bad),
        prove(&two, bad),
        prove(&one, bad)
    );
    let all = [a, b, c, d, e].map(Result::unwrap_err);
    assert_eq!(all.iter().filter(|reason| *reason == "a wrong code").count(), 3, "{all:?}");
    assert_eq!(all.iter().filter(|reason| *reason == "locked").count(), 2, "{all:?}");
}

#[tokio::test]
async fn whoever_has_no_secret_is_told_so_and_proves_nothing() {
    let scratch = Scratch::new();
    let clock = Arc::new(ManualClock::new(NOW));
    let node = node(&scratch, &clock);
    let _codes = enrolled(&scratch, &node, "m1").await;
    put_method(&node, method("m2")).await.unwrap();
    let who = EntityId::new(WHO);
    let wanted = node.wanted(&who, &[enforcement(&["m2", "m1"])]).await.unwrap();
    assert_eq!(wanted[0].any, [method("m1")]);
    let demands = [enforcement(&["m1"]), enforcement(&["m2"])];
    let told = node.wanted(&who, &demands).await.err().unwrap();
    assert!(told.to_string().contains("e1 has no secret"), "{told}");
    let missing = node.prove(&who, &demands[1..], &[shown("m2", "000000")]).await.unwrap_err();
    assert_eq!(missing.reason().as_deref(), Some("no shared secret for the method"));
    // A code for another method is none.
    let other = node.prove(&who, &demands, &[shown("m2", "000000")]).await.unwrap_err();
    assert!(other.reason().unwrap().contains("no code"));
}

#[tokio::test]
async fn no_enforcement_names_a_method_that_there_is_not() {
    let scratch = Scratch::new();
    let clock = Arc::new(ManualClock::new(NOW));
    let (one, two) = (node(&scratch, &clock), node(&scratch, &clock));
    let _codes = enrolled(&scratch, &one, "m1").await;
    for bad in [enforcement(&["m1", "none"]), enforcement(&[])] {
        assert!(put_enforcement(&one, bad).await.is_err());
    }
    let nobody = Enforcement { policies: Default::default(), ..enforcement(&["m1"]) };
    assert!(put_enforcement(&one, nobody).await.is_err());
    let mut namesake = method("m2");
    for name in ["phone of m1", "m1"] {
        name.clone_into(&mut namesake.name);
        assert!(put_method(&two, namesake.clone()).await.is_err());
    }
    // Of naming and removing at the same time, on two nodes, one is refused.
    let (named, removed) =
        tokio::join!(put_enforcement(&one, enforcement(&["m1"])), two.delete_method("m1"));
    assert!(named.is_ok() != removed.is_ok(), "{named:?} {removed:?}");
    if named.is_ok() {
        one.change(|all| {
            all.enforcements.clear();
            Ok(())
        })
        .await
        .unwrap();
        assert!(one.delete_method("m1").await.unwrap());
    }
    assert!(!two.delete_method("m1").await.unwrap());
    // With the method its shared secrets went.
    assert!(one.enrolled(&EntityId::new(WHO)).await.unwrap().is_empty());
    let row = stored_entity(&scratch, WHO).await;
    assert!(two.enrol(&entity(WHO), row, &method("m1")).await.is_err());
}

#[tokio::test]
async fn secrets_follow_a_merge_and_go_with_their_entity() {
    let scratch = Scratch::new();
    let clock = Arc::new(ManualClock::new(NOW));
    let node = node(&scratch, &clock);
    let code = enrolled(&scratch, &node, "m1").await;
    let (from, to) = (EntityId::new(WHO), EntityId::new("e2"));
    let apply = async |batch: Batch| node.view("").commit(&batch).await.unwrap();
    prove(&node, wrong(&code(NOW))).await.unwrap_err();
    let mut batch = Batch::new();
    stage_merge(&scratch.records, &mut batch, &from, &to, false).await.unwrap();
    apply(batch).await;
    assert!(node.enrolled(&from).await.unwrap().is_empty());
    let row = stored_entity(&scratch, WHO).await;
    assert!(matches!(
        node.enrol(&entity(WHO), row, &method("m1")).await.unwrap(),
        Enrolled::Now { .. }
    ));
    let mut batch = Batch::new();
    let both = stage_merge(&scratch.records, &mut batch, &from, &to, false).await;
    assert!(both.unwrap_err().to_string().contains("both have"));
    let mut batch = Batch::new();
    stage_merge(&scratch.records, &mut batch, &from, &to, true).await.unwrap();
    apply(batch).await;
    // It is the old secret that stayed, and its wrong code is still counted.
    node.prove(&to, &[enforcement(&["m1"])], &[shown("m1", &code(NOW))]).await.unwrap();
    let mut batch = Batch::new();
    stage_removal(&scratch.records, &mut batch, &to).await.unwrap();
    apply(batch).await;
    assert!(node.enrolled(&to).await.unwrap().is_empty());
}

fn pending(at: Timestamp, certificate: Option<&str>) -> Pending {
    let facts = crate::core::scratch::ScratchMount::new(&Scratch::new(), "auth/x/").facts;
    Pending {
        grant: crate::core::engine::Grant::new(&facts, "ann".into(), "", Default::default()),
        mount: facts.accessor.clone(),
        path: "auth/x/login".into(),
        entity: EntityId::new(WHO),
        enforcements: vec![enforcement(&["m1"])],
        certificate: certificate.map(str::to_owned),
        began_at: at,
    }
}

#[tokio::test]
async fn a_log_in_waits_for_a_while_for_one_certificate_and_for_one_use() {
    let scratch = Scratch::new();
    let clock = Arc::new(ManualClock::new(NOW));
    let (one, two) = (node(&scratch, &clock), node(&scratch, &clock));
    let here = Some("c1");
    let id = one.wait(&pending(NOW, here)).await.unwrap();
    let open = one.wait(&pending(NOW, None)).await.unwrap();
    for (id, from) in [(&id, Some("c2")), (&id, None), (&open, here)] {
        let refused = two.waiting(id, from).await.unwrap_err();
        assert_eq!(refused.to_string(), REFUSED);
    }
    for bad in ["", "a/b", "none", "../turn"] {
        assert_eq!(two.waiting(bad, here).await.unwrap_err().to_string(), REFUSED);
    }
    let (a, b) = (one.waiting(&id, here).await.unwrap(), two.waiting(&id, here).await.unwrap());
    let (a, b) = tokio::join!(one.admit(&id, &a), two.admit(&id, &b));
    assert!(a.is_ok() != b.is_ok());
    assert!(one.waiting(&id, here).await.is_err());
    // However many are begun, few wait, and the newest do.
    let mut last = String::new();
    for n in 0..30 {
        clock.advance(Duration::from_secs(1));
        last = one.wait(&pending(NOW.plus_millis(1000 * n), here)).await.unwrap();
    }
    assert_eq!(one.view("pending/").list("").await.unwrap().len(), 8);
    assert!(one.waiting(&last, here).await.is_ok());
    clock.advance(Duration::from_secs(300));
    assert!(one.waiting(&last, here).await.is_err());
    assert_eq!(one.tidy().await.unwrap(), 8);
}
