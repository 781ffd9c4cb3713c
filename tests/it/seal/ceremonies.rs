//! Init, unseal, seal, new shares, root tokens.

use data_encoding::BASE64_NOPAD;
use leasehold::core::context::Phase;
use leasehold::core::seal::{KeyFile, StaticFileSlot};
use leasehold::storage::Change;

use super::*;

async fn fresh() -> (tempfile::TempDir, Node) {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::new(sqlite(directory.path()).await).await;
    (directory, node)
}

#[tokio::test]
async fn the_way_from_nothing_to_unsealed_and_back() {
    let (_directory, node) = fresh().await;
    let before = node.ok(Verb::Read, "sys/seal-status", json!({})).await;
    assert_eq!((&before["initialized"], &before["sealed"]), (&json!(false), &json!(true)));
    assert_eq!(status(node.call(Verb::Read, "sys/health", json!({})).await), 501);
    assert_eq!(status(node.call(Verb::Write, "sys/unseal", json!({"key": "00"})).await), 400);
    assert_eq!(node.ok(Verb::Read, "sys/init", json!({})).await, json!({"initialized": false}));

    let keys = node.init(5, 3).await;
    assert_eq!((keys.hex.len(), keys.base64.len(), keys.hex[0].len()), (5, 5, 66));
    assert_eq!(node.ok(Verb::Read, "sys/init", json!({})).await, json!({"initialized": true}));
    assert_eq!(status(node.call(Verb::Read, "sys/health", json!({})).await), 503);
    assert!(matches!(node.core.unsealed(), Err(CoreError::Sealed)));

    let one = node.ok(Verb::Write, "sys/unseal", json!({"key": keys.hex[4]})).await;
    assert_eq!((&one["t"], &one["n"], &one["progress"]), (&json!(3), &json!(5), &json!(1)));
    assert_eq!(one["nonce"].as_str().unwrap().len(), 36);
    let again = node.ok(Verb::Write, "sys/unseal", json!({"key": keys.base64[4]})).await;
    assert_eq!((&again["progress"], &again["nonce"]), (&json!(1), &one["nonce"]));
    node.ok(Verb::Write, "sys/unseal", json!({"key": keys.base64[0]})).await;
    let done = node.ok(Verb::Write, "sys/unseal", json!({"key": keys.hex[2].to_uppercase()})).await;
    assert_eq!((&done["sealed"], &done["progress"]), (&json!(false), &json!(0)));
    assert_eq!(done["cluster_name"], json!("test"));
    assert_eq!(status(node.call(Verb::Read, "sys/health", json!({})).await), 200);
    let custom = node.call(Verb::Read, "sys/health", json!({"activecode": "299"})).await;
    assert_eq!(status(custom), 299);
    assert!(node.is_root(keys.root_token.as_ref().unwrap()).await);
    assert_eq!(node.ok(Verb::Read, "sys/leader", json!({})).await, json!({"ha_enabled": false}));
    // A further share of an unsealed server changes nothing.
    node.ok(Verb::Write, "sys/unseal", json!({"key": keys.hex[1]})).await;

    node.write(0..3).await;
    assert!(node.core.seal().await, "nobody holds on to the keys");
    assert!(matches!(&*node.core.phase(), Phase::Sealed));
    node.unseal(&keys).await.unwrap();
    node.assert_readable(0..3).await;
}

#[tokio::test]
async fn any_shares_open_and_too_few_do_not() {
    let (directory, node) = fresh().await;
    let keys = node.init(4, 2).await;
    for a in 0..4 {
        for b in (0..4).filter(|b| *b != a) {
            let fresh = Node::new(node.core.storage.clone()).await;
            fresh.ok(Verb::Write, "sys/unseal", json!({"key": keys.hex[a]})).await;
            assert!(fresh.core.unsealed().is_err());
            fresh.ok(Verb::Write, "sys/unseal", json!({"key": keys.hex[b]})).await;
            assert!(fresh.core.unsealed().is_ok(), "{a} and {b}");
        }
    }
    drop(directory);
}

#[tokio::test]
async fn a_wrong_set_is_refused_and_forgotten() {
    let (_directory, node) = fresh().await;
    let (_other_directory, other) = fresh().await;
    let keys = node.init(3, 2).await;
    let foreign = other.init(3, 2).await;
    let give = |key: &str| node.call(Verb::Write, "sys/unseal", json!({"key": key}));
    give(&keys.hex[0]).await.unwrap();
    // Two random points can be the same: then the share is refused as a contradiction, and no less.
    assert_eq!(status(give(&foreign.hex[0]).await), 400);
    let after = node.ok(Verb::Read, "sys/seal-status", json!({})).await;
    assert_eq!((&after["progress"], &after["nonce"]), (&json!(0), &json!("")));

    give(&keys.hex[0]).await.unwrap();
    node.ok(Verb::Write, "sys/unseal", json!({"reset": true})).await;
    assert_eq!(node.ok(Verb::Read, "sys/seal-status", json!({})).await["progress"], json!(0));
    for malformed in [json!({"key": "zz"}), json!({"key": ""}), json!({}), json!({"key": ["x"]})] {
        assert_eq!(status(node.call(Verb::Write, "sys/unseal", malformed).await), 400);
    }
    node.unseal(&keys).await.unwrap();
}

#[tokio::test]
async fn guessing_is_slowed_down_and_the_rightful_are_let_in_again() {
    let (_directory, node) = fresh().await;
    let keys = node.init(1, 1).await;
    let wrong = format!("{}01", "ab".repeat(32));
    let give = |key: &str| node.call(Verb::Write, "sys/unseal", json!({"key": key}));
    for _ in 0..4 {
        assert_eq!(status(give(&wrong).await), 400);
    }
    let refused = give(&keys.hex[0]).await.unwrap_err();
    assert_eq!(refused.status(), 429);
    node.clock.advance(Duration::from_secs(refused.retry_after().unwrap().as_secs()));
    give(&keys.hex[0]).await.unwrap();
    assert!(node.core.unsealed().is_ok());
}

#[tokio::test]
async fn a_stranger_neither_delays_nor_spoils_what_administrators_give() {
    let (_directory, node) = fresh().await;
    let keys = node.init(5, 3).await;
    let from = |address: [u8; 4], body: Value| {
        node.call_from(address, 1, None, Verb::Write, "sys/unseal", body)
    };
    let stranger = |body: Value| from([192, 0, 2, 66], body);
    let admin = |n: u8, key: &str| from([198, 51, 100, n], json!({"key": key}));
    // For points that no real share is for.
    let mut junk = (1..=255u8)
        .map(|point| format!("{point:02x}"))
        .filter(|point| !keys.hex.iter().any(|key| key.ends_with(point)))
        .map(|point| json!({"key": format!("{}{point}", "ab".repeat(32))}));
    let refused = loop {
        match stranger(junk.next().unwrap()).await {
            Ok(_) => {}
            Err(error) if error.status() == 400 => {}
            Err(error) => break error,
        }
    };
    assert_eq!(refused.status(), 429);
    assert_eq!(admin(1, &keys.hex[0]).await.unwrap().1["progress"], json!(1));
    // Back again, it begins a set that others would complete, and takes back what it can.
    node.clock.advance(Duration::from_secs(refused.retry_after().unwrap().as_secs()));
    stranger(junk.next().unwrap()).await.unwrap();
    stranger(json!({"reset": true})).await.unwrap();
    assert_eq!(stranger(junk.next().unwrap()).await.unwrap().1["progress"], json!(2));
    // Three that do not belong together; what the administrators gave is kept.
    assert_eq!(status(admin(2, &keys.hex[1]).await), 400);
    assert!(node.core.unsealed().is_err());
    assert_eq!(admin(3, &keys.hex[2]).await.unwrap().1["sealed"], json!(false));
    assert!(node.core.unsealed().is_ok());
}

#[tokio::test]
async fn of_many_who_initialise_one_wins() {
    let (_directory, node) = fresh().await;
    race_to_initialise(vec![node.core.storage.clone(); 8]).await;

    let url = postgres_url();
    let mut storages = Vec::new();
    for _ in 0..4 {
        storages.push(postgres(&url).await);
    }
    race_to_initialise(storages).await;
}

async fn race_to_initialise(storages: Vec<Arc<dyn Storage>>) {
    let mut racing = Vec::new();
    for storage in &storages {
        let node = Node::new(storage.clone()).await;
        racing.push(tokio::spawn(async move {
            let body = json!({"secret_shares": 3, "secret_threshold": 2});
            node.call(Verb::Write, "sys/init", body).await
        }));
    }
    let mut won = Vec::new();
    for one in racing {
        match one.await.unwrap() {
            Ok((_, body)) => won.push(Keys::of(&body, 2)),
            Err(error) => assert_eq!(error.status(), 400, "{error}"),
        }
    }
    assert_eq!(won.len(), 1);
    assert!(Node::opens(&storages[0], &won[0]).await);
}

#[tokio::test]
async fn what_initialising_cannot_do_is_refused_by_field() {
    let (_directory, node) = fresh().await;
    for (body, field) in [
        (json!({}), "secret_shares"),
        (json!({"secret_shares": 3, "secret_threshold": 4}), "secret_threshold"),
        (json!({"secret_shares": 1, "secret_threshold": 1, "pgp_keys": ["x"]}), "pgp_keys"),
        (
            json!({"secret_shares": 1, "secret_threshold": 1, "recovery_shares": 5}),
            "recovery_shares",
        ),
        (json!({"secret_shares": 1, "secret_threshold": 1, "suite": "rot13"}), "suite"),
    ] {
        let error = node.call(Verb::Write, "sys/init", body).await.unwrap_err();
        assert_eq!(error.status(), 400);
        assert!(error.to_string().contains(field), "{error}");
    }
    assert_eq!(node.core.storage.sequence().await.unwrap(), 0, "nothing was stored");
    assert_eq!(status(node.call(Verb::Delete, "sys/init", json!({})).await), 405);
}

#[tokio::test]
async fn a_changed_description_of_the_slots_opens_nothing() {
    let (_directory, node) = fresh().await;
    let keys = node.init(3, 2).await;
    let stored = node.core.storage.meta("seal").await.unwrap().unwrap();
    let text = String::from_utf8(stored).unwrap();
    assert!(text.contains("\"threshold\":2"), "{text}");
    let changed = text.replace("\"threshold\":2", "\"threshold\":1");
    let change = Change::PutMeta { name: "seal", value: Some(changed.into()), expect: None };
    node.core.storage.commit(vec![change]).await.unwrap();
    for key in &keys.hex {
        assert_eq!(status(node.call(Verb::Write, "sys/unseal", json!({"key": key})).await), 400);
    }
    assert!(node.core.unsealed().is_err());
}

#[tokio::test]
async fn sealing_waits_for_those_who_still_use_the_keys() {
    let (_directory, node) = fresh().await;
    let keys = node.init(1, 1).await;
    node.unseal(&keys).await.unwrap();
    let request = node.unsealed();
    let records = Arc::downgrade(&request.records);
    let sealing = node.core.begin_seal().await.unwrap();
    assert!(matches!(node.core.unsealed(), Err(CoreError::Sealed)), "new requests are refused");
    let waiting = tokio::spawn(sealing.finished());
    tokio::task::yield_now().await;
    assert!(!waiting.is_finished());
    drop(request);
    assert!(waiting.await.unwrap());
    assert_eq!(records.strong_count(), 0);
    assert!(node.core.begin_seal().await.is_none(), "there is nothing left to seal");
}

#[tokio::test]
async fn attempts_need_an_unsealed_server_and_end_with_it() {
    let (_directory, node) = fresh().await;
    let keys = node.init(1, 1).await;
    for path in ["sys/rekey/init", "sys/rekey/verify", "sys/generate-root/attempt"] {
        assert_eq!(status(node.call(Verb::Read, path, json!({})).await), 503, "{path}");
        assert_eq!(status(node.call(Verb::Delete, path, json!({})).await), 503, "{path}");
    }
    for path in ["sys/rekey/update", "sys/rekey/verify", "sys/generate-root/update"] {
        let body = json!({"key": keys.hex[0], "nonce": "n"});
        assert_eq!(status(node.call(Verb::Write, path, body).await), 503, "{path}");
    }
    let plan = json!({"secret_shares": 1, "secret_threshold": 1});
    assert_eq!(status(node.call(Verb::Write, "sys/rekey/init", plan.clone()).await), 503);
    node.unseal(&keys).await.unwrap();
    node.ok(Verb::Write, "sys/rekey/init", plan).await;
    node.core.seal().await;
    node.unseal(&keys).await.unwrap();
    let after = node.ok(Verb::Read, "sys/rekey/init", json!({})).await;
    assert_eq!(after["started"], json!(false));
}

#[tokio::test]
async fn both_sets_of_shares_open_until_the_new_ones_were_used() {
    let (_directory, node) = fresh().await;
    let storage = node.core.storage.clone();
    let old = node.init(5, 3).await;
    node.unseal(&old).await.unwrap();
    let (new, answer) = node.rekey(&old, 3, 2, false).await;
    assert_eq!(answer["verification_required"], json!(false));
    assert_eq!(node.ok(Verb::Read, "sys/rekey/init", json!({})).await["started"], json!(false));
    assert!(Node::opens(&storage, &old).await);
    assert!(Node::opens(&storage, &old).await, "the old ones prove nothing about the new");
    assert!(Node::opens(&storage, &new).await);
    assert!(!Node::opens(&storage, &old).await, "the new ones have opened it");
    assert!(Node::opens(&storage, &new).await);
}

#[tokio::test]
async fn new_shares_can_be_proven_without_sealing() {
    let (_directory, node) = fresh().await;
    let storage = node.core.storage.clone();
    let old = node.init(3, 2).await;
    node.unseal(&old).await.unwrap();
    let (new, answer) = node.rekey(&old, 3, 2, false).await;
    let nonce = answer["verification_nonce"].clone();
    for key in new.enough() {
        node.ok(Verb::Write, "sys/rekey/verify", json!({"key": key, "nonce": nonce})).await;
    }
    assert!(!Node::opens(&storage, &old).await);
    assert!(Node::opens(&storage, &new).await);
}

#[tokio::test]
async fn verified_shares_take_over_in_one_step() {
    let (_directory, node) = fresh().await;
    let storage = node.core.storage.clone();
    let old = node.init(3, 2).await;
    node.unseal(&old).await.unwrap();
    let (new, answer) = node.rekey(&old, 5, 3, true).await;
    assert_eq!(answer["verification_required"], json!(true));
    assert!(Node::opens(&storage, &old).await);
    assert!(!Node::opens(&storage, &new).await, "not stored before they are proven");
    let waits = node.ok(Verb::Read, "sys/rekey/init", json!({})).await;
    assert_eq!((&waits["started"], &waits["verification_required"]), (&json!(true), &json!(true)));
    let plan = json!({"secret_shares": 1, "secret_threshold": 1});
    assert_eq!(status(node.call(Verb::Write, "sys/rekey/init", plan).await), 400);

    let nonce = answer["verification_nonce"].clone();
    let give =
        |key: &str| node.call(Verb::Write, "sys/rekey/verify", json!({"key": key, "nonce": nonce}));
    give(&new.hex[0]).await.unwrap();
    give(&old.hex[0]).await.unwrap();
    assert_eq!(status(give(&old.hex[1]).await), 400, "old shares prove nothing");
    give(&new.hex[0]).await.unwrap();
    node.ok(Verb::Delete, "sys/rekey/verify", json!({"nonce": nonce})).await;
    for key in &new.hex[1..3] {
        let (_, body) = give(key).await.unwrap();
        assert_eq!(body["started"], json!(true));
    }
    let (_, done) = give(&new.hex[4]).await.unwrap();
    assert_eq!(done["complete"], json!(true));
    assert!(!Node::opens(&storage, &old).await);
    assert!(Node::opens(&storage, &new).await);
}

#[tokio::test]
async fn wrong_old_shares_make_no_new_ones() {
    let (_directory, node) = fresh().await;
    let (_other_directory, other) = fresh().await;
    let (old, foreign) = (node.init(1, 1).await, other.init(1, 1).await);
    node.unseal(&old).await.unwrap();
    let plan = json!({"secret_shares": 1, "secret_threshold": 1});
    let started = node.ok(Verb::Write, "sys/rekey/init", plan).await;
    let give = |key: &str, nonce: &Value| {
        node.call(Verb::Write, "sys/rekey/update", json!({"key": key, "nonce": nonce}))
    };
    assert_eq!(status(give(&foreign.hex[0], &started["nonce"]).await), 400);
    assert_eq!(status(give(&old.hex[0], &json!("another")).await), 400);
    assert_eq!(status(give(&old.hex[0], &json!("")).await), 400);
    let (_, done) = give(&old.hex[0], &started["nonce"]).await.unwrap();
    assert_eq!(done["complete"], json!(true));
}

#[tokio::test]
async fn only_the_starter_and_administrators_can_cancel() {
    let (_directory, node) = fresh().await;
    let keys = node.init(1, 1).await;
    node.unseal(&keys).await.unwrap();
    let root = keys.root_token.as_deref();
    let rekey = json!({"secret_shares": 1, "secret_threshold": 1});
    for (path, plan) in [("sys/rekey/init", rekey), ("sys/generate-root/attempt", json!({}))] {
        let started = node.ok(Verb::Write, path, plan.clone()).await;
        let nonce = started["nonce"].as_str().unwrap();
        assert_eq!(nonce.len(), 36);
        assert_eq!(status(node.call(Verb::Write, path, plan.clone()).await), 400, "one at a time");
        let stranger = |verb, body| node.call_as(2, None, verb, path, body);
        let (_, seen) = stranger(Verb::Read, json!({})).await.unwrap();
        assert_eq!((&seen["started"], &seen["nonce"]), (&json!(true), &json!("")));
        assert_eq!(node.ok(Verb::Read, path, json!({})).await["nonce"], json!(nonce));
        for guess in [json!({}), json!({"nonce": ""}), json!({"nonce": "x"})] {
            assert_eq!(status(stranger(Verb::Delete, guess).await), 403);
        }
        assert_eq!(
            status(node.call_as(2, Some("lhs.wrong"), Verb::Delete, path, json!({})).await),
            403
        );
        assert_eq!(node.ok(Verb::Read, path, json!({})).await["started"], json!(true));
        // The control: whoever knows the nonce, the starter, and root.
        stranger(Verb::Delete, json!({"nonce": nonce})).await.unwrap();
        node.ok(Verb::Write, path, plan.clone()).await;
        node.ok(Verb::Delete, path, json!({})).await;
        node.ok(Verb::Write, path, plan).await;
        node.call_as(2, root, Verb::Delete, path, json!({})).await.unwrap();
        assert_eq!(node.ok(Verb::Read, path, json!({})).await["started"], json!(false));
    }
}

#[tokio::test]
async fn an_idle_attempt_does_not_block_for_ever() {
    let (_directory, node) = fresh().await;
    let keys = node.init(1, 1).await;
    node.unseal(&keys).await.unwrap();
    node.call_as(2, None, Verb::Write, "sys/generate-root/attempt", json!({})).await.unwrap();
    node.clock.advance(Duration::from_secs(3599));
    assert_eq!(status(node.call(Verb::Write, "sys/generate-root/attempt", json!({})).await), 400);
    node.clock.advance(Duration::from_secs(1));
    node.ok(Verb::Write, "sys/generate-root/attempt", json!({})).await;
}

#[tokio::test]
async fn enough_shares_make_a_root_token_that_only_the_starter_can_read() {
    let (_directory, node) = fresh().await;
    let keys = node.init(3, 2).await;
    node.unseal(&keys).await.unwrap();
    for path in ["sys/generate-root", "sys/generate-root-token"] {
        let (attempt, update) = (format!("{path}/attempt"), format!("{path}/update"));
        let started = node.ok(Verb::Write, &attempt, json!({})).await;
        let otp = started["otp"].as_str().unwrap().to_owned();
        assert_eq!(json!(otp.len()), started["otp_length"]);
        assert_eq!(node.ok(Verb::Read, &attempt, json!({})).await["otp"], json!(""));
        let give = |key: &str| json!({"key": key, "nonce": started["nonce"]});
        let one = node.ok(Verb::Write, &update, give(&keys.hex[0])).await;
        assert_eq!((&one["progress"], &one["complete"]), (&json!(1), &json!(false)));
        let done = node.ok(Verb::Write, &update, give(&keys.hex[2])).await;
        assert_eq!(done["complete"], json!(true));
        let encoded = done["encoded_token"].as_str().unwrap();
        assert_eq!(done["encoded_root_token"], json!(encoded));
        let mixed = BASE64_NOPAD.decode(encoded.as_bytes()).unwrap();
        let token: Vec<u8> = mixed.iter().zip(otp.bytes()).map(|(m, o)| m ^ o).collect();
        let token = String::from_utf8(token).unwrap();
        assert!(node.is_root(&token).await, "{token}");
        assert_eq!(node.ok(Verb::Read, &attempt, json!({})).await["started"], json!(false));
    }
    let short = node.call(Verb::Write, "sys/generate-root/attempt", json!({"otp": "short"})).await;
    assert_eq!(status(short), 400);
}

#[tokio::test]
async fn a_key_file_opens_by_itself_beside_the_shares() {
    let directory = tempfile::tempdir().unwrap();
    let storage = sqlite(directory.path()).await;
    let key_file = |name: &str, key: [u8; 32]| {
        use std::os::unix::fs::PermissionsExt;
        let path = directory.path().join(name);
        std::fs::write(&path, key).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        Arc::new(StaticFileSlot::new(KeyFile::new(path))) as Arc<dyn SealSlot>
    };
    let start = |slot: Option<Arc<dyn SealSlot>>| {
        let clock = Arc::new(ManualClock::new(NOW));
        let audit = AuditBroker::unaudited(clock.clone());
        Node::with(storage.clone(), clock, audit, slot.into_iter().collect())
    };
    let right = key_file("right", [7; 32]);
    let node = start(Some(right.clone())).await;
    assert!(!node.core.unseal_automatically().await.unwrap(), "there is nothing to unseal");
    let keys = node.init(3, 2).await;
    assert!(node.core.unsealed().is_ok(), "initialising unseals where it can");
    assert!(node.is_root(keys.root_token.as_deref().unwrap()).await);
    node.write(0..1).await;
    node.core.seal().await;

    let again = start(Some(right)).await;
    assert!(again.core.unseal_automatically().await.unwrap());
    again.assert_readable(0..1).await;
    assert!(!again.core.unseal_automatically().await.unwrap(), "it is unsealed already");
    let wrong = start(Some(key_file("wrong", [8; 32]))).await;
    assert_eq!(wrong.core.unseal_automatically().await.unwrap_err().status(), 500);
    assert!(wrong.core.unsealed().is_err());
    let without = start(None).await;
    assert!(!without.core.unseal_automatically().await.unwrap());
    without.unseal(&keys).await.unwrap();
    without.assert_readable(0..1).await;
}

#[tokio::test]
async fn a_key_file_alone_has_no_shares_to_ask_for() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("key");
    std::fs::write(&path, "5a".repeat(32)).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(&path, mode).unwrap();
    let clock = Arc::new(ManualClock::new(NOW));
    let audit = AuditBroker::unaudited(clock.clone());
    let slot = Arc::new(StaticFileSlot::new(KeyFile::new(path)));
    let storage = sqlite(directory.path()).await;
    let node = Node::with(storage, clock, audit, vec![slot]).await;
    let made = node.ok(Verb::Write, "sys/init", json!({"secret_shares": 0})).await;
    assert_eq!(made["keys"], json!([]));
    assert!(node.is_root(made["root_token"].as_str().unwrap()).await);
    let status_body = node.ok(Verb::Read, "sys/seal-status", json!({})).await;
    assert_eq!((&status_body["type"], &status_body["n"]), (&json!("static-file"), &json!(0)));
    let plan = json!({"secret_shares": 1, "secret_threshold": 1});
    assert_eq!(status(node.call(Verb::Write, "sys/rekey/init", plan).await), 400);
    assert_eq!(status(node.call(Verb::Write, "sys/generate-root/attempt", json!({})).await), 400);
    node.core.seal().await;
    let share = json!({"key": format!("{}01", "5a".repeat(32))});
    assert_eq!(status(node.call(Verb::Write, "sys/unseal", share).await), 400);
}
