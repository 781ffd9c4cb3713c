use data_encoding::{BASE64, BASE64URL_NOPAD};
use futures_util::future::join_all;
use serde_json::{Value, json};

use super::*;
use crate::core::engine::CallerFacts;
use crate::core::fields::Fields;
use crate::core::operation::Operation::{Create, Delete, List, Read, Update};
use crate::core::reply::Reply;
use crate::core::route;
use crate::core::scratch::{Scratch, ScratchMount};
use crate::crypto::digest::Hash;
use crate::crypto::key_wrap;
use crate::crypto::rsa::RsaHash;

mod abuse;
mod leaving;
mod openbao;
mod rules;
mod versions;

/// A mount as one node has it.
pub(super) struct Node {
    pub(super) engine: TransitEngine,
    pub(super) mount: ScratchMount,
}

pub(super) const CIPHERS: [&str; 4] =
    ["aes128-gcm96", "aes256-gcm96", "chacha20-poly1305", "xchacha20-poly1305"];
const SIGNERS: [&str; 5] = ["ed25519", "ecdsa-p256", "ecdsa-p384", "ecdsa-p521", "rsa-2048"];
/// `hello`.
pub(super) const HELLO: &str = "aGVsbG8=";
const OTHER: &str = "b3RoZXI=";

impl Node {
    pub(super) fn new(scratch: &Scratch) -> Self {
        Self::metered(scratch, 8, 1 << 20)
    }

    /// One whose allowances are of so many messages, of which a version may encrypt so many.
    pub(super) fn metered(scratch: &Scratch, allowance: u64, max: u64) -> Self {
        let engine = TransitEngine::metered(Arc::new(work_queue()), allowance, max);
        Self { engine, mount: ScratchMount::new(scratch, "transit/") }
    }

    pub(super) async fn call(
        &self,
        operation: Operation,
        path: &str,
        body: Value,
    ) -> Result<Reply, CoreError> {
        let (route, params) = route::select(self.engine.routes(), path, operation).unwrap();
        let fields = body.as_object().unwrap().clone();
        let unknown: Vec<_> = fields.keys().filter(|name| !route.knows_field(name)).collect();
        assert!(unknown.is_empty(), "the table does not know {unknown:?}");
        let caller = CallerFacts::default();
        let fields = Fields::new(fields);
        let request =
            EngineRequest { operation, route, params, fields, merge_patch: false, caller: &caller };
        let permit = self.mount.permit(operation, path);
        match self.engine.handle(&self.mount.ctx(), &permit, request).await? {
            Outcome::Respond(reply) => Ok(reply),
            Outcome::Issue(_) => panic!("nothing is leased"),
        }
    }

    /// A write that is done.
    pub(super) async fn put(&self, path: &str, body: Value) -> Value {
        let reply = self.call(Update, path, body).await.unwrap();
        reply.data.map_or(Value::Null, Value::Object)
    }

    pub(super) async fn get(&self, path: &str) -> Value {
        Value::Object(self.call(Read, path, json!({})).await.unwrap().data.unwrap())
    }

    /// The status and text of a write that is refused.
    pub(super) async fn refused(&self, path: &str, body: Value) -> (u16, String) {
        let error = self.call(Update, path, body).await.unwrap_err();
        (error.status(), error.public_text())
    }

    pub(super) async fn make(&self, name: &str, body: Value) {
        self.put(&format!("keys/{name}"), body).await;
    }

    pub(super) async fn encrypt(&self, name: &str) -> String {
        let data = self.put(&format!("encrypt/{name}"), json!({ "plaintext": HELLO })).await;
        data["ciphertext"].as_str().unwrap().to_owned()
    }

    pub(super) async fn decrypt(&self, name: &str, ciphertext: &str) -> Result<String, CoreError> {
        let body = json!({ "ciphertext": ciphertext });
        let reply = self.call(Update, &format!("decrypt/{name}"), body).await?;
        Ok(reply.data.unwrap()["plaintext"].as_str().unwrap().to_owned())
    }

    /// Everything that is stored for the mount.
    pub(super) async fn rows(&self) -> u64 {
        let storage = self.mount.view.records().storage();
        storage.count(crate::core::records::kinds::MOUNT_DATA, Timestamp::MAX).await.unwrap().total
    }

    /// What another node changed is heard of.
    pub(super) fn hears(&self) {
        self.mount.view.records().forget();
    }
}

fn text(data: &Value, field: &str) -> String {
    data[field].as_str().unwrap_or_else(|| panic!("no {field} in {data}")).to_owned()
}

#[tokio::test]
async fn what_each_cipher_encrypts_it_decrypts() {
    let scratch = Scratch::new();
    let node = Node::new(&scratch);
    for kind in CIPHERS.into_iter().chain(["rsa-2048"]) {
        node.make(kind, json!({ "type": kind })).await;
        let (one, other) = (node.encrypt(kind).await, node.encrypt(kind).await);
        assert_ne!(one, other, "{kind}");
        assert!(one.starts_with("vault:v1:"), "{one}");
        assert_eq!(node.decrypt(kind, &one).await.unwrap(), HELLO);
        for plaintext in [String::new(), BASE64.encode(&[7; 190])] {
            let body = json!({ "plaintext": plaintext });
            let sealed = node.put(&format!("encrypt/{kind}"), body).await;
            let sealed = text(&sealed, "ciphertext");
            assert_eq!(node.decrypt(kind, &sealed).await.unwrap(), plaintext, "{kind}");
        }
        for form in ["plaintext", "wrapped"] {
            let made = node.put(&format!("datakey/{form}/{kind}"), json!({ "bits": 512 })).await;
            let key = node.decrypt(kind, &text(&made, "ciphertext")).await.unwrap();
            assert_eq!(BASE64.decode(key.as_bytes()).unwrap().len(), 64);
            assert_eq!(made.get("plaintext"), (form == "plaintext").then_some(&json!(key)));
        }
    }
    for kind in CIPHERS {
        let at = format!("encrypt/{kind}");
        let body = json!({ "plaintext": HELLO, "associated_data": OTHER });
        let sealed = text(&node.put(&at, body).await, "ciphertext");
        assert!(node.decrypt(kind, &sealed).await.is_err());
        let body = json!({ "ciphertext": sealed, "associated_data": OTHER });
        assert_eq!(node.put(&format!("decrypt/{kind}"), body).await["plaintext"], HELLO);
        let large = BASE64.encode(&vec![1; 200_000]);
        let sealed = text(&node.put(&at, json!({ "plaintext": large })).await, "ciphertext");
        assert_eq!(node.decrypt(kind, &sealed).await.unwrap(), large, "off the serving threads");
    }
}

#[tokio::test]
async fn derived_keys_need_their_context_and_convergent_ones_repeat_themselves() {
    let scratch = Scratch::new();
    let node = Node::new(&scratch);
    for kind in CIPHERS {
        for convergent in [false, true] {
            let name = format!("{kind}-{convergent}");
            let body =
                json!({ "type": kind, "derived": true, "convergent_encryption": convergent });
            node.make(&name, body).await;
            let seal = |context: &'static str, aad: &'static str| {
                let body = json!({
                    "plaintext": HELLO, "context": context, "associated_data": aad,
                });
                let at = format!("encrypt/{name}");
                let node = &node;
                async move { text(&node.put(&at, body).await, "ciphertext") }
            };
            let (one, again) = (seal(OTHER, "").await, seal(OTHER, "").await);
            assert_eq!(one == again, convergent);
            assert_ne!(one, seal(HELLO, "").await, "of another context");
            // The same nonce for other associated data would give the key away.
            let with_aad = seal(OTHER, HELLO).await;
            assert_ne!(one[..25], with_aad[..25], "{name}");
            assert_eq!(with_aad == seal(OTHER, HELLO).await, convergent);
            let at = format!("decrypt/{name}");
            let body = json!({ "ciphertext": one, "context": OTHER });
            assert_eq!(node.put(&at, body).await["plaintext"], HELLO);
            for context in [json!(HELLO), json!(""), Value::Null] {
                let (status, _) =
                    node.refused(&at, json!({ "ciphertext": one, "context": context })).await;
                assert_eq!(status, 400);
            }
        }
    }
    let (status, error) =
        node.refused("encrypt/aes256-gcm96-true", json!({ "plaintext": "" })).await;
    assert_eq!((status, error.contains("\"context\" is required")), (400, true));
}

/// Signs with these fields, and checks that the signature is good for them, and for nothing else.
async fn sign(node: &Node, name: &str, extra: Value) -> String {
    let with = |input: &str, more: Value| {
        let mut body = extra.as_object().unwrap().clone();
        body.insert("input".into(), json!(input));
        body.extend(more.as_object().unwrap().clone());
        Value::Object(body)
    };
    let signed = node.put(&format!("sign/{name}"), with(HELLO, json!({}))).await;
    let signature = text(&signed, "signature");
    let at = format!("verify/{name}");
    let claim = json!({ "signature": signature });
    assert_eq!(node.put(&at, with(HELLO, claim.clone())).await["valid"], true, "{name} {extra}");
    assert_eq!(node.put(&at, with(OTHER, claim)).await["valid"], false, "{name} {extra}");
    signature
}

#[tokio::test]
async fn what_each_type_signs_it_verifies() {
    let scratch = Scratch::new();
    let node = Node::new(&scratch);
    for kind in SIGNERS {
        node.make(kind, json!({ "type": kind })).await;
        sign(&node, kind, json!({})).await;
        for hash in ["sha2-256", "sha2-384", "sha2-512"] {
            sign(&node, kind, json!({ "hash_algorithm": hash })).await;
            sign(&node, &format!("{kind}/{hash}"), json!({})).await;
        }
        let jws = sign(&node, kind, json!({ "marshaling_algorithm": "jws" })).await;
        let bytes = BASE64URL_NOPAD.decode(jws.strip_prefix("vault:v1:").unwrap().as_bytes());
        let lengths = [64, 64, 96, 132, 256];
        let at = SIGNERS.iter().position(|one| *one == kind).unwrap();
        assert_eq!(bytes.unwrap().len(), lengths[at], "{kind}");
    }
    for (padding, salt) in [("pss", "hash"), ("pss", "auto"), ("pss", "32"), ("pkcs1v15", "auto")] {
        let manner = json!({ "signature_algorithm": padding, "salt_length": salt });
        let signature = sign(&node, "rsa-2048", manner).await;
        let other = if padding == "pss" { "pkcs1v15" } else { "pss" };
        let body = json!({ "input": HELLO, "signature": signature, "signature_algorithm": other });
        assert_eq!(node.put("verify/rsa-2048", body).await["valid"], false);
    }
    // A digest that is made elsewhere gives a signature of what it was made of.
    let digest = BASE64.encode(&Hash::Sha512.digest(b"hello"));
    for kind in ["ecdsa-p256", "ecdsa-p384", "ecdsa-p521", "rsa-2048"] {
        let at = format!("sign/{kind}/sha2-512");
        let signed = node.put(&at, json!({ "input": digest, "prehashed": true })).await;
        let body = json!({ "input": HELLO, "signature": text(&signed, "signature") });
        assert_eq!(node.put(&format!("verify/{kind}/sha2-512"), body).await["valid"], true);
        let (status, _) = node.refused(&at, json!({ "input": HELLO, "prehashed": true })).await;
        assert_eq!(status, 400, "{kind}: as long as no digest");
    }
}

#[tokio::test]
async fn derived_ed25519_keys_sign_for_their_context() {
    let scratch = Scratch::new();
    let node = Node::new(&scratch);
    node.make("d", json!({ "type": "ed25519", "derived": true })).await;
    let signed = node.put("sign/d", json!({ "input": HELLO, "context": OTHER })).await;
    let read = node.call(Read, "keys/d", json!({ "context": OTHER })).await.unwrap();
    let told = &read.data.unwrap()["keys"]["1"]["public_key"];
    assert_eq!(*told, signed["public_key"]);
    assert_eq!(node.get("keys/d").await["keys"]["1"]["public_key"], "");
    let claim = |context: &str| json!({ "input": HELLO, "context": context, "signature": text(&signed, "signature") });
    assert_eq!(node.put("verify/d", claim(OTHER)).await["valid"], true);
    assert_eq!(node.put("verify/d", claim(HELLO)).await["valid"], false);
    assert_eq!(node.refused("sign/d", json!({ "input": HELLO })).await.0, 400);
}

#[tokio::test]
async fn every_key_authenticates_by_hmac() {
    let scratch = Scratch::new();
    let node = Node::new(&scratch);
    node.make("long", json!({ "type": "hmac", "key_size": 512 })).await;
    for kind in ["hmac", "aes256-gcm96", "ed25519"] {
        node.make(kind, json!({ "type": kind })).await;
    }
    for name in ["hmac", "long", "aes256-gcm96", "ed25519"] {
        for hash in ["sha2-224", "sha2-256", "sha2-384", "sha2-512"] {
            let at = format!("{name}/{hash}");
            let mac =
                text(&node.put(&format!("hmac/{at}"), json!({ "input": HELLO })).await, "hmac");
            for (input, valid) in [(HELLO, true), (OTHER, false)] {
                let body = json!({ "input": input, "hmac": mac });
                assert_eq!(node.put(&format!("verify/{at}"), body).await["valid"], valid, "{at}");
            }
            let cut = &mac[..mac.len() - 4];
            let body = json!({ "input": HELLO, "hmac": format!("{cut}") });
            let cut = node.call(Update, &format!("verify/{at}"), body).await;
            assert!(cut.is_err() || cut.unwrap().data.unwrap()["valid"] == false, "{at}: cut off");
        }
    }
    assert_eq!(node.get("keys/long").await["key_size"], 512);
}

#[tokio::test]
async fn keys_are_described_as_stock_clients_expect() {
    let scratch = Scratch::new();
    let node = Node::new(&scratch);
    assert!(matches!(node.call(List, "keys", json!({})).await, Err(CoreError::NotFound)));
    assert!(matches!(node.call(Read, "keys/a", json!({})).await, Err(CoreError::NotFound)));
    let made = node.put("keys/a", json!({})).await;
    assert_eq!(made["type"], "aes256-gcm96");
    assert_eq!(made["keys"], json!({ "1": crate::core::scratch::NOW.as_secs() }));
    assert_eq!(
        (&made["min_decryption_version"], &made["min_available_version"]),
        (&json!(1), &json!(0))
    );
    assert_eq!(made, node.get("keys/a").await);
    let again = node.call(Update, "keys/a", json!({ "type": "rsa-2048" })).await.unwrap();
    assert_eq!((again.warnings.len(), &again.data.unwrap()["type"]), (1, &json!("aes256-gcm96")));
    for kind in SIGNERS {
        let made = node.put(&format!("keys/{kind}"), json!({ "type": kind })).await;
        let version = &made["keys"]["1"];
        assert_eq!(made["supports_signing"], true);
        assert_eq!(
            version["public_key"].as_str().unwrap().starts_with("-----BEGIN PUBLIC"),
            kind != "ed25519"
        );
    }
    let listed = node.call(List, "keys", json!({})).await.unwrap().data.unwrap();
    assert_eq!(listed["keys"].as_array().unwrap().len(), 1 + SIGNERS.len());
}

#[tokio::test]
async fn batches_say_what_became_of_each_item() {
    let scratch = Scratch::new();
    let node = Node::new(&scratch);
    node.make("k", json!({})).await;
    let items = json!([
        { "plaintext": HELLO, "reference": "good" },
        { "plaintext": "%%", "reference": "bad" },
        { "plaintext": HELLO, "key_version": 7 },
    ]);
    let body = json!({ "batch_input": items, "partial_failure_response_code": 207 });
    let reply = node.call(Update, "encrypt/k", body).await.unwrap();
    assert_eq!(reply.http_status(), 207);
    let results = reply.data.unwrap()["batch_results"].clone();
    assert_eq!(
        (&results[0]["reference"], &results[1]["reference"]),
        (&json!("good"), &json!("bad"))
    );
    let errors: Vec<_> = (0..3).map(|n| results[n].get("error").is_some()).collect();
    assert_eq!(errors, [false, true, true]);
    let sealed = text(&results[0], "ciphertext");
    let items = json!([{ "ciphertext": sealed }, { "ciphertext": "vault:v1:AAAA" }]);
    let reply = node.call(Update, "decrypt/k", json!({ "batch_input": items })).await.unwrap();
    assert_eq!(reply.http_status(), 400);
    assert_eq!(reply.data.unwrap()["batch_results"][0]["plaintext"], HELLO);
    let reply = node.call(Update, "rewrap/k", json!({ "batch_input": items })).await.unwrap();
    assert_eq!(reply.http_status(), 200, "as stock servers answer it");
    assert!(reply.data.unwrap()["batch_results"][1].get("error").is_some());

    node.make("s", json!({ "type": "ecdsa-p256" })).await;
    let many: Vec<_> = (0..40).map(|n| json!({ "input": HELLO, "reference": n })).collect();
    let signed = node.put("sign/s", json!({ "batch_input": many })).await;
    let results = signed["batch_results"].as_array().unwrap();
    assert_eq!(results.len(), 40);
    let claims: Vec<_> = results
        .iter()
        .map(|one| json!({ "input": HELLO, "signature": one["signature"] }))
        .chain([
            json!({ "input": HELLO }),
            json!({ "input": OTHER, "signature": results[0]["signature"] }),
        ])
        .collect();
    let verified = node.put("verify/s", json!({ "batch_input": claims })).await;
    let verified = verified["batch_results"].as_array().unwrap();
    assert!(verified[..40].iter().all(|one| one["valid"] == true));
    assert!(verified[40].get("error").is_some());
    assert_eq!(verified[41]["valid"], false);
    let macs = node.put("hmac/s", json!({ "batch_input": [{ "input": HELLO }, {}] })).await;
    assert!(macs["batch_results"][0].get("hmac").is_some());
    assert!(macs["batch_results"][1].get("error").is_some());
}

#[tokio::test]
async fn random_bytes_and_digests_are_those_of_the_tools() {
    let scratch = Scratch::new();
    let node = Node::new(&scratch);
    for (path, length) in [("random", 32), ("random/8", 8), ("random/platform/9", 9)] {
        let bytes = text(&node.put(path, json!({})).await, "random_bytes");
        assert_eq!(BASE64.decode(bytes.as_bytes()).unwrap().len(), length);
    }
    let sum = text(&node.put("hash", json!({ "input": HELLO })).await, "sum");
    assert_eq!(sum, "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824");
    assert_eq!(node.refused("hash/md5", json!({ "input": HELLO })).await.0, 400);
}
