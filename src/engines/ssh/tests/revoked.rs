//! Certificates that are taken back.

use super::*;
use crate::core::engine::Outcome;
use crate::core::reply::Shape;

impl World {
    async fn list(&self) -> Vec<u8> {
        let asked = ask(&self.engine, &self.mount, &self.caller, Read, "krl", json!({})).await;
        let Outcome::Respond(reply) = asked.unwrap() else { panic!("a lease") };
        let Shape::Raw { body, .. } = reply.shape else { panic!("no list") };
        body
    }

    async fn revoke(&self, body: Value) -> Value {
        self.ok(Update, "revoke", body).await
    }

    async fn has(&self, serial: u64) -> bool {
        self.list().await.windows(8).any(|part| part == serial.to_be_bytes())
    }
}

#[tokio::test]
async fn what_is_revoked_is_on_the_list_on_every_node_and_can_be_taken_off() {
    let world = World::with(json!({})).await;
    let empty = world.list().await;
    assert!(empty.starts_with(b"SSHKRL\n\0") && empty.len() == 44, "{empty:?}");
    let serial = world.sign(json!({})).await.unwrap().serial;
    let other = World {
        mount: ScratchMount::new(&world._scratch, "ssh/"),
        _scratch: Scratch::new(),
        ..World::empty()
    };
    assert!(!world.has(serial).await && !other.has(serial).await);
    let answer = world.revoke(json!({ "serial_number": format!("{serial:016x}") })).await;
    assert_eq!(answer, json!({ "version": 1 }));
    other.mount.view.records().forget();
    assert!(world.has(serial).await && other.has(serial).await);
    let again = world.revoke(json!({ "serial": serial.to_string() })).await;
    assert_eq!(again, json!({ "version": 1 }), "nothing is new");
    let told = world.ok(Read, "revoked", json!({})).await;
    assert_eq!(told["authorities"][0]["serial_numbers"], json!([format!("{serial:016x}")]));
    let ca = world.ok(Read, "config/ca", json!({})).await;
    assert_eq!(told["authorities"][0]["public_key"], ca["public_key"]);
    let answer = world.ok(Update, "unrevoke", json!({ "serial": serial.to_string() })).await;
    assert_eq!(answer, json!({ "version": 2 }));
    assert!(!world.has(serial).await);
    assert_eq!(world.ok(Read, "revoked", json!({})).await["authorities"], json!([]));
}

#[tokio::test]
async fn no_certificate_is_signed_with_a_key_id_that_is_revoked() {
    let world = World::with(json!({ "allow_user_key_ids": true })).await;
    world.revoke(json!({ "key_id": "lost laptop" })).await;
    assert!(world.list().await.ends_with(b"\0\0\0\x0blost laptop"));
    let refused = world.sign(json!({ "key_id": "lost laptop" })).await;
    assert!(refused.err().unwrap().to_string().contains("revoked"));
    assert!(world.sign(json!({ "key_id": "new laptop" })).await.is_ok());
    // Of that authority: a new one begins anew, and the list keeps what is revoked of the old one.
    let old = world.ok(Read, "config/ca", json!({})).await["public_key"].clone();
    world.ok(Delete, "config/ca", json!({})).await;
    let error = world.tried(Update, "unrevoke", json!({ "key_id": "lost laptop" })).await;
    assert_eq!(error.unwrap_err().status(), 400, "of which key?");
    world.ok(Update, "config/ca", json!({})).await;
    assert!(world.sign(json!({ "key_id": "lost laptop" })).await.is_ok());
    assert!(world.list().await.ends_with(b"lost laptop"));
    let body = json!({ "key_id": "lost laptop", "public_key": old });
    world.ok(Update, "unrevoke", body).await;
    assert_eq!(world.list().await.len(), 44);
}

#[tokio::test]
async fn a_serial_number_is_forgotten_when_its_certificate_has_ended_and_no_sooner() {
    let mut world = World::with(json!({})).await;
    let first = world.sign(json!({ "ttl": "1h" })).await.unwrap();
    world.revoke(json!({ "serial": first.serial.to_string() })).await;
    let mut version = 1;
    // Somebody lowers the mount's limit meanwhile.
    world.mount.facts.max_ttl = Ttl::from_secs(60);
    while world.mount.ctx().clock.now() < Timestamp::from_secs(first.before) {
        world.mount.manual.advance(Duration::from_secs(600));
        world.revoke(json!({ "key_id": format!("{version}") })).await;
        version += 1;
        let ended = world.mount.ctx().clock.now() >= Timestamp::from_secs(first.before);
        assert!(ended || world.has(first.serial).await);
    }
    // A day later, which is the longest that a certificate of this mount ever lasted.
    world.mount.manual.advance(Duration::from_secs(2 * 86_400));
    world.revoke(json!({ "key_id": "last" })).await;
    assert!(!world.has(first.serial).await);
    assert_eq!(world.ok(Read, "revoked", json!({})).await["version"], version + 1);
}

#[tokio::test]
async fn signing_writes_no_more_than_once_an_hour() {
    let world = World::with(json!({})).await;
    let rev =
        || async { world.mount.view.get_record("horizon").await.unwrap().map(|record| record.rev) };
    assert_eq!(rev().await, None);
    for _ in 0..5 {
        world.sign(json!({})).await.unwrap();
        world.mount.manual.advance(Duration::from_secs(60));
    }
    assert_eq!(rev().await, Some(1));
    for hour in 2..5 {
        world.mount.manual.advance(Duration::from_secs(2 * 86_400));
        for _ in 0..5 {
            world.sign(json!({})).await.unwrap();
            world.mount.manual.advance(Duration::from_secs(60));
        }
        assert_eq!(rev().await, Some(hour));
    }
}

#[tokio::test]
async fn what_names_no_certificate_is_refused_and_the_list_is_bounded() {
    let world = World::empty();
    let error = world.tried(Update, "revoke", json!({ "serial": "7" })).await.unwrap_err();
    assert!(error.to_string().contains("config/ca"), "{error}");
    assert_eq!(world.list().await.len(), 44, "there is always a list");
    world.ok(Update, "config/ca", json!({})).await;
    for (field, body) in [
        ("serial_number", json!({})),
        ("serial_number", json!({ "serial_number": "x" })),
        ("serial_number", json!({ "serial_number": "0" })),
        ("serial_number", json!({ "serial_number": "-1" })),
        ("serial_number", json!({ "serial_number": "+1" })),
        ("serial_number", json!({ "serial_number": "1".repeat(17) })),
        ("serial_number", json!({ "serial_number": "7", "key_id": "x" })),
        ("serial", json!({ "serial": "18446744073709551616" })),
        ("serial", json!({ "serial": "a" })),
        ("key_id", json!({ "key_id": "a\nb" })),
        ("key_id", json!({ "key_id": "a,b" })),
        ("public_key", json!({ "key_id": "a", "public_key": "ssh-ed25519 AAAA" })),
    ] {
        names_field(world.tried(Update, "revoke", body).await, field);
    }
    let body = json!({ "serial": u64::MAX.to_string() });
    world.revoke(body).await;
    assert!(world.has(u64::MAX).await);
}
