//! Whole requests, at the real edge and the real core, with everything mounted that needs no other
//! server. An input is a request as people write it down: the method and the path, headers, an empty
//! line and the body. `$root` stands for the root token.

use std::cell::RefCell;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::Request;
use http_body_util::BodyExt;
use leasehold::api::{self, EdgeLimits};
use leasehold::core::peer::ConnectionInfo;
use leasehold::core::route::Access;
use leasehold::server::config::Auth;
use leasehold::server::run::{Network, registry, tables};
use leasehold::storage::sqlite::{SqliteOptions, SqliteStorage};
use serde_json::Value;
use tower::ServiceExt;

use crate::support::core::{TestCore, TestSetup};

pub const WORDS: &[&str] = &[
    "GET ",
    "POST ",
    "LIST ",
    "PATCH ",
    "DELETE ",
    "/v1/sys/",
    "/v1/kv/data/a",
    "/v1/transit/decrypt/k",
    "\nx-vault-token: $root",
    "\nx-vault-wrap-ttl: 60s",
    "\nx-vault-namespace: a",
    "\nx-forwarded-client-cert: a",
    "\ncontent-type: application/merge-patch+json",
    "\ncontent-type: application/x-www-form-urlencoded",
    "\n\n",
    "?list=true",
    "?help=1",
    "{\"",
    "\":",
    "\"}",
    "[",
    "null",
    "1e999",
    "-1",
    "9223372036854775808",
    "\\ud800",
    "%2e%2e",
    "vault:v1:",
];

/// Inputs that one store takes before there is another: what they leave behind must not add up.
const INPUTS_MAX: u64 = 5_000;
/// Longest input. What is longer is refused for its length, which takes no search to find.
const INPUT_BYTES_MAX: usize = 64 * 1024;

struct World {
    test: TestCore,
    app: axum::Router,
    root: String,
    served: u64,
    _directory: tempfile::TempDir,
}

impl World {
    async fn new() -> Self {
        let mut setup = TestSetup::new();
        let auth: Auth = Default::default();
        setup.registry = registry(&setup.trust, Network::new(&auth).unwrap());
        let directory = tempfile::tempdir_in(super::wire::scratch()).unwrap();
        let path = directory.path().join("leasehold.db");
        let storage = SqliteStorage::open(&path, SqliteOptions::default()).unwrap();
        let test = TestCore::start_on(storage, setup).await;
        test.core.install(tables(Box::new(String::new), Access::Caller));
        for (kind, path) in [("transit", "transit/"), ("totp", "totp/"), ("ssh", "ssh/")] {
            test.mount(kind, path).await;
        }
        test.mount_method("approle", "approle/").await;
        let limits =
            EdgeLimits { body_bytes_max: 1 << 20, request_timeout: Duration::from_secs(30) };
        let app = api::router(test.core.clone(), limits);
        let root = test.root_token.clone();
        let world = Self { test, app, root, served: 0, _directory: directory };
        for (path, body) in [
            ("sys/mounts/kv", r#"{"type":"kv","options":{"version":"2"}}"#),
            ("sys/mounts/plain", r#"{"type":"kv","options":{"version":"1"}}"#),
            ("transit/keys/k", "{}"),
            ("transit/keys/sign", r#"{"type":"ed25519"}"#),
            ("totp/keys/k", r#"{"generate":true,"issuer":"i","account_name":"a"}"#),
            ("ssh/config/ca", r#"{"generate_signing_key":true,"key_type":"ed25519"}"#),
            ("ssh/roles/r", r#"{"key_type":"ca","allow_user_certificates":true}"#),
            ("auth/approle/role/r", "{}"),
            ("kv/data/a", r#"{"data":{"a":1}}"#),
        ] {
            let head = format!("POST /v1/{path}\nx-vault-token: $root\n\n{body}");
            let (status, answer) = world.ask(head.as_bytes()).await.unwrap();
            assert!(status < 300, "{path}: {}", String::from_utf8_lossy(&answer));
        }
        world
    }

    /// The status and the body of the answer; `None` for what is no request at all.
    async fn ask(&self, input: &[u8]) -> Option<(u16, Vec<u8>)> {
        let end = input.windows(2).position(|two| two == b"\n\n").unwrap_or(input.len());
        let (head, body) = input.split_at(end);
        let head = std::str::from_utf8(head).ok()?;
        let body = body.get(2..).unwrap_or_default();
        let mut lines = head.lines();
        let (method, path) = lines.next()?.split_once(' ')?;
        let mut request = Request::builder().method(method).uri(path);
        for line in lines {
            let (name, value) = line.split_once(": ")?;
            request = request.header(name, value.replace("$root", &self.root));
        }
        let connection = ConnectionInfo {
            peer: None,
            remote: SocketAddr::from((Ipv4Addr::LOCALHOST, 1)),
            listener: Arc::from("fuzz"),
            id: 1,
        };
        let request = request.extension(connection).body(Body::from(body.to_vec())).ok()?;
        let answer = self.app.clone().oneshot(request).await.unwrap();
        let status = answer.status().as_u16();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        Some((status, body.to_vec()))
    }
}

thread_local! {
    static RUNTIME: tokio::runtime::Runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    static WORLD: RefCell<Option<World>> = const { RefCell::new(None) };
}

/// A request is answered: never with an error of the server's own, and in JSON.
pub fn request(input: &[u8]) {
    if input.len() > INPUT_BYTES_MAX {
        return;
    }
    RUNTIME.with(|runtime| {
        WORLD.with_borrow_mut(|place| {
            let usable =
                |world: &World| world.served < INPUTS_MAX && world.test.core.unsealed().is_ok();
            if !place.as_ref().is_some_and(usable) {
                *place = Some(runtime.block_on(World::new()));
            }
            let world = place.as_mut().unwrap();
            world.served += 1;
            let Some((status, body)) = runtime.block_on(world.ask(input)) else { return };
            let shown = String::from_utf8_lossy(&body);
            // 503 is right while it is sealed, and where a request had to wait too long.
            assert!(status < 500 || matches!(status, 501 | 503), "{status}: {shown}");
            let head = input.starts_with(b"HEAD ");
            assert!(!head || body.is_empty(), "HEAD with a body");
            if status >= 400 && !body.is_empty() {
                let read: Value = serde_json::from_slice(&body).unwrap();
                assert!(
                    read["errors"].is_array() || read["data"].is_object() || status == 501,
                    "{shown}"
                );
            }
        });
    });
}
