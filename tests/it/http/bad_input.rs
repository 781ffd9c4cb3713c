//! Whatever is sent: an answer in the four hundreds that names what is wrong, and a server that goes
//! on. Never a 500.

use serde_json::{Value, json};

use super::world::{World, shared, unique};
use crate::support::broker::Caller;
use crate::support::wire::Answer;

/// A refusal says what is wrong, and repeats nothing of `secret`.
#[track_caller]
fn assert_refused(answer: &Answer, names: &str, what: &str) {
    assert!((400..500).contains(&answer.status), "{what}: {} {}", answer.status, answer.body);
    let said = answer.error(answer.status);
    assert!(said.contains(names), "{what}: {names:?} is not in {said:?}");
}

async fn assert_well(root: &Caller) {
    root.hang_up().await;
    let answer = root.read("sys/health").await;
    assert_eq!(answer.ok()["sealed"], false);
}

#[tokio::test]
async fn bodies_that_are_not_json_objects() {
    let world = shared().await;
    let root = world.broker.root();
    let path = format!("kv/{}", unique("json"));
    let deep = format!("{{\"a\":{}1{}}}", "[".repeat(100), "]".repeat(100));
    let abyss = format!("{{\"a\":{}", "[".repeat(300_000));
    let objects = format!("{}1{}", "{\"a\":".repeat(70), "}".repeat(70));
    let wide = format!("{{\"a\":[{}0]}}", "0,".repeat(70_000));
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("text", b"not json".to_vec()),
        ("half", b"{\"a\":".to_vec()),
        ("two", b"{} {}".to_vec()),
        ("a list", b"[1]".to_vec()),
        ("a string", b"\"x\"".to_vec()),
        ("a number", b"7".to_vec()),
        ("a comma too many", b"{\"a\":1,}".to_vec()),
        ("single quotes", b"{'a':1}".to_vec()),
        ("NaN", b"{\"a\":NaN}".to_vec()),
        ("an endless number", format!("{{\"a\":{}}}", "9".repeat(10_000)).into_bytes()),
        ("a control character", b"{\"a\":\"\x01\"}".to_vec()),
        ("a lone surrogate", b"{\"a\":\"\\ud800\"}".to_vec()),
        ("not UTF-8", b"{\"a\":\"\xff\xfe\"}".to_vec()),
        ("not UTF-8 in a key", b"{\"\xff\":1}".to_vec()),
        ("overlong UTF-8", b"{\"a\":\"\xc0\xaf\"}".to_vec()),
        ("a key twice", b"{\"size\":1,\"size\":2}".to_vec()),
        ("a key twice below", b"{\"a\":{\"size\":1,\"size\":2}}".to_vec()),
        ("a key twice, escaped", b"{\"size\":1,\"s\\u0069ze\":2}".to_vec()),
        ("deep lists", deep.into_bytes()),
        ("an abyss", abyss.into_bytes()),
        ("deep objects", objects.into_bytes()),
        ("too many values", wide.into_bytes()),
        ("zero bytes", vec![0; 100]),
    ];
    for (what, body) in &cases {
        let answer =
            root.request("POST", &path, &[("content-type", "application/json")], body).await;
        assert_refused(&answer, "body", what);
        assert_eq!(world.broker.audited(&answer)["outcome"]["status"], answer.status, "{what}");
        if what.contains("twice") {
            assert_refused(&answer, "size", what);
        }
    }
    assert_eq!(root.read(&path).await.status, 404, "nothing of it was kept");
    assert_well(&root).await;
}

#[tokio::test]
async fn bodies_that_are_too_large() {
    let world = shared().await;
    let root = world.broker.root();
    let path = format!("kv/{}", unique("large"));
    let body = |bytes: usize| json!({ "a": "x".repeat(bytes) }).to_string().into_bytes();
    let fits = root.request("POST", &path, &[], &body((1 << 20) - 100)).await;
    assert!(fits.status == 204 || fits.status == 400, "{} {}", fits.status, fits.body);
    let over = root.request("POST", &path, &[], &body(1 << 20)).await;
    assert_eq!(over.status, 413, "{}", over.body);
    assert!(over.error(413).contains("1048576"), "{}", over.body);
    world.broker.audited(&over);
    root.hang_up().await;
    let token = world.broker.root_token();
    let chunk = format!("10000\r\n{}\r\n", "x".repeat(0x10000)).repeat(17);
    let chunked = format!(
        "POST /v1/{path} HTTP/1.1\r\nhost: x\r\nx-vault-token: {token}\r\n\
         transfer-encoding: chunked\r\n\r\n{chunk}0\r\n\r\n"
    );
    assert_eq!(root.raw(chunked.as_bytes()).await.status, 413);
    assert_well(&root).await;
}

#[tokio::test]
async fn paths_that_are_not_canonical() {
    let world = shared().await;
    let root = world.broker.root();
    for path in [
        "secret/data/../../sys/mounts",
        "secret/data/./x",
        "secret//data/x",
        "/secret/data/x",
        "secret/data/a%2fb",
        "secret/data/%2e%2e/x",
        "secret/data/%00",
        "secret/data/%ff",
        "secret/data/a%0ab",
        "secret/data/%",
        "secret/data/%zz",
        "secret/data/\u{7f}",
        "secret/data/%C2%85",
        "secret/data/..%2f..%2fsys",
        "secret/data/..",
        "..",
        "%2e%2e/sys/mounts",
    ] {
        for method in ["GET", "POST", "LIST", "DELETE"] {
            let answer = root.request(method, path, &[], b"").await;
            assert!((400..500).contains(&answer.status), "{method} {path}: {}", answer.body);
            if answer.header("x-request-id").is_some() {
                world.broker.audited(&answer);
            }
        }
    }
    let long = format!("secret/data/{}", "x".repeat(20_000));
    let answer = root.read(&long).await;
    assert!((400..500).contains(&answer.status), "{}", answer.status);
    let segments = format!("secret/data/{}", "x/".repeat(2000));
    let answer = root.read(&segments).await;
    assert!((400..500).contains(&answer.status), "{}", answer.status);
    for path in ["no/such/mount", "sys/no-such-path", "secret/nothing/x", "auth/none/login"] {
        for method in ["GET", "POST", "DELETE", "LIST"] {
            let answer = root.request(method, path, &[], b"{}").await;
            assert_eq!(answer.status, 404, "{method} {path}: {}", answer.body);
            assert_eq!(answer.json(), json!({ "errors": [] }), "{method} {path}");
        }
    }
    // Outside the API there is nothing at all.
    root.hang_up().await;
    for path in ["/", "/v2/sys/mounts", "/v1", "/favicon.ico", "/v1x/sys/mounts"] {
        let text = format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n");
        assert_eq!(root.raw(text.as_bytes()).await.status, 404, "{path}");
    }
    assert_well(&root).await;
}

#[tokio::test]
async fn methods_queries_and_headers_that_make_no_sense() {
    let world = shared().await;
    let root = world.broker.root();
    for method in ["OPTIONS", "TRACE", "CONNECT", "HEAD", "PROPFIND", "FOO"] {
        let answer = root.request(method, "kv/x", &[], b"").await;
        assert!((400..500).contains(&answer.status), "{method}: {}", answer.status);
        root.hang_up().await;
    }
    for (path, names) in [
        ("secret/data/x?version=1&version=2", "version"),
        ("secret/data/x?version=minus", "version"),
        ("secret/data/x?version=-1", "version"),
        ("secret/data/x?version=99999999999999999999", "version"),
        ("secret/data/x?version=%ff", "UTF-8"),
    ] {
        assert_refused(&root.read(path).await, names, path);
    }
    let long = format!("secret/data/x?v={}", "x".repeat(9000));
    assert_refused(&root.read(&long).await, "query", "a long query");
    for (name, value, names) in [
        ("x-vault-wrap-ttl", "-5", "X-Vault-Wrap-TTL"),
        ("x-vault-wrap-ttl", "soon", "X-Vault-Wrap-TTL"),
        ("x-vault-wrap-ttl", "99999999999999999999s", "X-Vault-Wrap-TTL"),
        ("x-vault-wrap-ttl", "9999h", "X-Vault-Wrap-TTL"),
        ("x-vault-namespace", "team-a", "namespace"),
        ("authorization", "Bearer another", "tokens"),
    ] {
        let answer = root.request("GET", "sys/mounts", &[(name, value)], b"").await;
        assert_refused(&answer, names, value);
    }
    let twice = [("x-vault-wrap-ttl", "1m"), ("x-vault-wrap-ttl", "2m")];
    let answer = root.request("GET", "sys/mounts", &twice, b"").await;
    assert_refused(&answer, "x-vault-wrap-ttl", "a header twice");
    let plain = root.request("PATCH", "secret/data/x", &[], b"{\"data\":{}}").await;
    assert_eq!(plain.status, 415, "{}", plain.body);
    // What is no HTTP at all ends the connection, and no other.
    for bytes in [&b"\x16\x03\x01\x02\x00"[..], b"GET\r\n\r\n", b"\r\n\r\n\r\n\r\n\0\0\0\0"] {
        let own = world.broker.root();
        let _ = own.try_raw(bytes).await.map(|answer| assert!(answer.status >= 400));
    }
    assert_well(&root).await;
}

/// Values of every wrong type, and right ones out of bounds.
fn wrong_values(kind: &str) -> Vec<Value> {
    let mut values = vec![json!([[1]]), json!([null])];
    if kind != "map" {
        values.push(json!({ "a": 1 }));
    }
    match kind {
        "duration" => values.extend([
            json!(-1),
            json!("-1s"),
            json!("1 fortnight"),
            json!("99999999999999999999"),
            json!("9223372036854775807h"),
            json!(1e300),
            json!(true),
            json!("1h-1m"),
        ]),
        "integer" => values.extend([
            json!(-1),
            json!(1.5),
            json!("x"),
            json!(99_999_999_999_999_999_999_f64),
            json!(true),
        ]),
        "boolean" => values.extend([json!("maybe"), json!(2), json!(-1)]),
        "map" => values.extend([json!("x"), json!(7), json!(true), json!([1])]),
        _ => values.extend([json!(["a", { "b": 1 }])]),
    }
    values
}

#[tokio::test]
async fn fields_of_the_wrong_type_are_named() {
    let world = shared().await;
    let root = world.broker.root();
    let n = unique("typed");
    let database = world.database_config(&world.database);
    let leased = root.read("database/creds/reader").await.ok();
    let lease = leased["lease_id"].clone();
    // Each body is good but for the one field.
    let cases: Vec<(String, Value, &[(&str, &str)])> = vec![
        (
            "auth/token/create".into(),
            json!({ "policies": ["default"] }),
            &[
                ("ttl", "duration"),
                ("explicit_max_ttl", "duration"),
                ("period", "duration"),
                ("num_uses", "integer"),
                ("renewable", "boolean"),
                ("no_parent", "boolean"),
                ("meta", "map"),
                ("display_name", "text"),
                ("policies", "list"),
                ("scopes", "list"),
                ("type", "text"),
                ("bind_certificate", "boolean"),
            ],
        ),
        (
            format!("sys/mounts/{n}"),
            json!({ "type": "kv" }),
            &[("type", "text"), ("config", "map"), ("options", "map"), ("description", "text")],
        ),
        (
            "sys/mounts/kv/tune".into(),
            json!({}),
            &[
                ("default_lease_ttl", "duration"),
                ("max_lease_ttl", "duration"),
                ("description", "text"),
                ("options", "map"),
                ("audit_non_hmac_request_keys", "list"),
            ],
        ),
        (
            format!("sys/policies/acl/{n}"),
            json!({ "policy": "path \"a\" {\n capabilities = [\"read\"]\n}" }),
            &[("policy", "text"), ("cas", "integer")],
        ),
        (
            format!("auth/cert/certs/{n}"),
            json!({ "allowed_common_names": ["nobody-at-all"] }),
            &[
                ("allowed_uri_sans", "list"),
                ("certificate", "text"),
                ("token_ttl", "duration"),
                ("token_num_uses", "integer"),
                ("token_bound_cidrs", "list"),
                ("token_no_default_policy", "boolean"),
                ("required_extensions", "list"),
            ],
        ),
        (format!("secret/data/{n}"), json!({ "data": {} }), &[("data", "map"), ("options", "map")]),
        (
            format!("secret/metadata/{n}"),
            json!({}),
            &[
                ("max_versions", "integer"),
                ("cas_required", "boolean"),
                ("delete_version_after", "duration"),
                ("custom_metadata", "map"),
            ],
        ),
        (format!("secret/delete/{n}"), json!({}), &[("versions", "list-of-integers")]),
        (
            format!("database/config/{n}"),
            database,
            &[
                ("verify_connection", "boolean"),
                ("max_open_connections", "integer"),
                ("max_connection_lifetime", "duration"),
                ("connection_url", "text"),
                ("allowed_roles", "list"),
                ("password", "text"),
                ("plugin_name", "text"),
            ],
        ),
        (
            format!("database/roles/{n}"),
            json!({ "db_name": "pg", "creation_statements": super::world::CREATE }),
            &[
                ("default_ttl", "duration"),
                ("max_ttl", "duration"),
                ("creation_statements", "list"),
                ("verify", "boolean"),
                ("db_name", "text"),
            ],
        ),
        (
            "sys/leases/search".into(),
            json!({ "mount": "kv/" }),
            &[("limit", "integer"), ("overdue", "boolean"), ("mount", "text")],
        ),
        ("sys/leases/renew".into(), json!({ "lease_id": lease }), &[("increment", "duration")]),
        ("sys/capabilities-self".into(), json!({}), &[("paths", "list")]),
        (
            "sys/explain".into(),
            json!({ "path": "x", "policies": ["default"] }),
            &[("path", "text"), ("operation", "text"), ("parameters", "map")],
        ),
        (
            "sys/rotate/config".into(),
            json!({}),
            &[("interval", "duration"), ("enabled", "boolean")],
        ),
        ("sys/unseal".into(), json!({}), &[("key", "text"), ("reset", "boolean")]),
    ];
    for (path, good, fields) in cases {
        for (name, kind) in fields {
            for value in wrong_values(kind) {
                let mut body = good.clone();
                body[*name] = value.clone();
                let answer = root.write(&path, body).await;
                let shown: String = value.to_string().chars().take(60).collect();
                assert_refused(&answer, name, &format!("{path} {name}={shown}"));
                assert!(answer.status == 400, "{path} {name}={shown}: {}", answer.status);
            }
        }
    }
    root.write("sys/leases/revoke", json!({ "lease_id": lease })).await.ok();
    assert_well(&root).await;
}

#[tokio::test]
async fn unknown_fields_are_told_and_ignored() {
    let world = shared().await;
    let root = world.broker.root();
    let body = json!({ "policies": ["default"], "tll": "1h" });
    let made = root.write("auth/token/create", body).await.ok();
    assert!(made["warnings"].to_string().contains("tll"), "{made}");
}

#[tokio::test]
async fn sql_in_names_stays_in_names() {
    let world = shared().await;
    let root = world.broker.root();
    let evil = r#"x"; DROP TABLE stock; --"#;
    let name = unique("quoted");
    let role = json!({
        "db_name": "pg",
        "creation_statements": super::world::CREATE,
        "default_ttl": "1h",
    });
    root.write(&format!("database/roles/{name}"), role).await.ok();
    // The user's name is made from the display name of who asks.
    let body = json!({ "policies": ["root"], "display_name": evil, "ttl": "1h" });
    let made = root.write("auth/token/create", body).await.ok();
    let token = made["auth"]["client_token"].as_str().unwrap();
    let leased = world.broker.admin().with_token(token);
    let leased = leased.read(&format!("database/creds/{name}")).await.ok();
    assert!(leased["data"]["username"].is_string());
    let server = crate::support::postgres::TestPostgres::shared();
    assert_eq!(server.sql(&world.database, "SELECT count(*) FROM stock"), "0");
    let revoke = json!({ "lease_id": leased["lease_id"] });
    root.write("sys/leases/revoke", revoke).await.ok();
}

#[tokio::test]
async fn random_requests_do_no_harm() {
    let world = shared().await;
    let root = world.broker.root();
    let mut random = Random(0x1eac_e401_d000_0001);
    let paths = [
        "sys/mounts/x",
        "sys/policies/acl/x",
        "auth/token/create",
        "auth/token/roles/x",
        "auth/cert/certs/x",
        "secret/data/fuzz",
        "secret/metadata/fuzz",
        "kv/fuzz",
        "database/roles/fuzz",
        "sys/wrapping/wrap",
        "sys/leases/search",
        "sys/explain",
        "identity/lookup/entity",
        "sys/capabilities-self",
        "sys/unseal",
        "cubbyhole/fuzz",
    ];
    let names = [
        "type", "policy", "ttl", "policies", "scopes", "data", "options", "path", "paths", "meta",
        "token", "key", "id", "name", "config", "period", "db_name", "version", "versions",
    ];
    for _ in 0..600 {
        let path = paths[random.below(paths.len())];
        let method = ["GET", "POST", "PUT", "DELETE", "LIST", "PATCH"][random.below(6)];
        let mut body = serde_json::Map::new();
        for _ in 0..random.below(4) {
            body.insert(names[random.below(names.len())].into(), random.value(3));
        }
        let text = Value::Object(body).to_string();
        let headers = [("content-type", "application/merge-patch+json")];
        let answer = root.request(method, path, &headers, text.as_bytes()).await;
        assert!(answer.status < 500, "{method} {path} {text}: {} {}", answer.status, answer.body);
    }
    for path in paths {
        if path.ends_with("fuzz") || path.ends_with("/x") {
            let _ = root.delete(path).await;
        }
    }
    check_log(world);
    assert_well(&root).await;
}

fn check_log(world: &World) {
    let log = world.broker.log();
    assert!(!log.contains("panicked"), "{log}");
}

/// SplitMix64: reproducible, and good enough to be a nuisance.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit as u64).unwrap()
    }

    fn value(&mut self, depth: usize) -> Value {
        match self.below(if depth == 0 { 6 } else { 8 }) {
            0 => Value::Null,
            1 => json!(self.next().is_multiple_of(2)),
            2 => json!(self.next() as i64),
            3 => json!(self.next() as f64 / 3.0),
            4 => json!(["", "x", "-1s", "root", "1h", "a/b", "\u{0}", "\u{202e}é"][self.below(8)]),
            5 => json!("y".repeat(self.below(3000))),
            6 => (0..self.below(3)).map(|_| self.value(depth - 1)).collect(),
            _ => json!({ "k": self.value(depth - 1) }),
        }
    }
}
