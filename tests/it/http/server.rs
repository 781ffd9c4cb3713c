//! The running server, as administrators see and steer it.

use serde_json::json;

use super::world::{shared, unique};

#[tokio::test]
async fn a_web_page_of_another_origin_does_nothing_by_its_users_certificate() {
    let world = shared().await;
    let root = world.broker.root();
    let policy = r#"path "kv/*" { capabilities = ["create", "update", "read"] }"#;
    let (browser, _) = world.workload(policy).await;
    let path = format!("kv/{}", unique("page"));
    let page = ("origin", "https://console.example");
    let form = ("content-type", "application/x-www-form-urlencoded");
    let post =
        async |headers: &[(&str, &str)]| browser.request("POST", &path, headers, b"a=b").await;
    // As a form or an image of any page could send it, without asking first.
    let answer = post(&[page, form]).await;
    assert_eq!(answer.error(403), "permission denied");
    let audited = world.broker.audited(&answer).to_string();
    assert!(audited.contains("sys/config/cors"), "{audited}");
    let image = browser.request("GET", &path, &[("sec-fetch-site", "cross-site")], b"").await;
    assert_eq!(image.status, 403);
    assert_eq!(browser.read(&path).await.status, 404, "nothing was written");
    let first = [page, ("access-control-request-method", "POST")];
    let asked = browser.request("OPTIONS", &path, &first, b"").await;
    assert_eq!((asked.status, asked.header("access-control-allow-origin")), (403, None));
    // Its own pages, as browsers send them.
    post(&[("origin", "https://test"), ("sec-fetch-site", "same-origin"), form]).await.ok();

    let cors = json!({ "allowed_origins": "https://Console.example", "allowed_headers": "X-One" });
    root.write("sys/config/cors", cors).await.ok();
    assert_eq!(
        root.read("sys/config/cors").await.data()["allowed_origins"],
        json!(["https://console.example"])
    );
    let answer = post(&[page, form]).await;
    answer.ok();
    assert_eq!(answer.header("access-control-allow-origin"), Some(page.1));
    assert_eq!(answer.header("access-control-allow-credentials"), None);
    assert_eq!(answer.header("vary"), Some("origin"));
    let asked = browser.request("OPTIONS", &path, &first, b"").await;
    assert_eq!(asked.status, 204);
    assert!(asked.header("access-control-allow-headers").unwrap().contains("x-one"));
    let refused = browser.request("GET", "kv/../x", &[page], b"").await;
    assert_eq!(refused.status, 400);
    assert!(refused.header("access-control-allow-origin").is_some(), "a page sees why");
    assert_eq!(post(&[("origin", "https://evil.example"), form]).await.status, 403);

    // Everybody is let in by a token alone.
    root.write("sys/config/cors", json!({ "allowed_origins": "*" })).await.ok();
    assert_eq!(post(&[page, form]).await.status, 403);
    let answer = root.request("GET", &path, &[page], b"").await;
    answer.ok();
    assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
    root.delete("sys/config/cors").await.ok();
    assert_eq!(root.request("GET", &path, &[page], b"").await.status, 403);
    assert_eq!(root.read("sys/config/cors").await.data()["enabled"], false);
}

#[tokio::test]
async fn an_auth_method_is_not_reached_around_sudo() {
    let world = shared().await;
    let root = world.broker.root();
    let name = unique("guarded");
    root.write(&format!("sys/auth/{name}"), json!({ "type": "userpass" })).await.ok();
    let all = r#"capabilities = ["create", "read", "update", "delete"]"#;
    let (caller, _) = world.token(&format!("path \"sys/mounts/*\" {{ {all} }}")).await;
    let (own, tune) = (format!("sys/mounts/auth/{name}"), format!("sys/mounts/auth/{name}/tune"));
    let settings = json!({ "token_type": "batch" });
    assert_eq!(caller.write(&tune, settings.clone()).await.status, 403);
    assert_eq!(caller.read(&tune).await.status, 403);
    assert_eq!(caller.read(&own).await.status, 400);
    // As for what is not there: nothing is said, and nothing is done.
    caller.delete(&own).await.ok();
    let seen = root.read(&format!("sys/auth/{name}")).await.data();
    assert_eq!(seen["config"]["token_type"], "default-service");
    // Stock command lines tune auth methods there, so who has sudo may.
    let lockout = json!({ "user_lockout_config": { "lockout_threshold": 3 } });
    root.write(&tune, settings).await.ok();
    root.write(&tune, lockout).await.ok();
    assert_eq!(root.read(&tune).await.data()["user_lockout_config"]["lockout_threshold"], 3);
}

#[tokio::test]
async fn what_is_being_served_is_listed() {
    let world = shared().await;
    let root = world.broker.root();
    let answer = root.read("sys/in-flight-req").await;
    let own = &answer.ok()[answer.header("x-request-id").unwrap()];
    assert_eq!(own["request_path"], "/v1/sys/in-flight-req");
    assert_eq!(own["request_method"], "read");
    assert!(own["client_remote_address"].as_str().unwrap().starts_with("127.0.0.1:"), "{own}");
    let again = root.read("sys/in-flight-req").await;
    let before = answer.header("x-request-id").unwrap();
    assert!(again.ok().get(before).is_none(), "it was answered");
}

#[tokio::test]
async fn the_sanitized_configuration_holds_no_place_of_a_secret() {
    let world = shared().await;
    let root = world.broker.root();
    let text = root.read("sys/config/state/sanitized").await.ok().to_string();
    let dir = world.broker.dir().to_str().unwrap();
    assert!(!text.contains(dir), "{text}");
    assert!(text.contains("\"storage\":{\"type\":\"sqlite\"}"), "{text}");
}

#[tokio::test]
async fn nobody_makes_the_server_write_files_or_stop_recording() {
    let world = shared().await;
    let root = world.broker.root();
    let victim = world.broker.dir().join("victim");
    let file = json!({ "type": "file", "options": { "file_path": victim } });
    for name in ["other", "file"] {
        root.write(&format!("sys/audit/{name}"), file.clone()).await.error(400);
    }
    assert!(!victim.exists());
    let sinks = root.read("sys/audit").await.data();
    let name = sinks.as_object().unwrap().keys().next().unwrap().trim_end_matches('/').to_owned();
    let said = root.delete(&format!("sys/audit/{name}")).await.error(400);
    assert!(said.contains("[[audit]]"), "{said}");
    assert_eq!(root.read("sys/audit").await.data().as_object().unwrap().len(), 1);
    root.write(&format!("sys/audit/{name}"), json!({ "type": "file" })).await.ok();
}

#[tokio::test]
async fn browsers_are_answered_with_the_headers_that_were_set_and_programs_are_not() {
    let world = shared().await;
    let root = world.broker.root();
    let at = |name: &str| format!("sys/config/ui/headers/{name}");
    let policy = "default-src 'none'";
    root.write(&at("content-security-policy"), json!({ "values": [policy] })).await.ok();
    root.write(&at("X-One"), json!({ "values": ["a", "b"] })).await.ok();
    for refused in ["X-Content-Type-Options", "Cache-Control", "Set-Cookie", "X-Vault-Token"] {
        root.write(&at(refused), json!({ "values": ["a"] })).await.error(400);
    }
    for value in ["a\r\nset-cookie: b", "", "a\u{e9}"] {
        root.write(&at("X-Two"), json!({ "values": [value] })).await.error(400);
    }
    let page = [("sec-fetch-site", "same-origin")];
    let seen = root.request("GET", "sys/internal/ui/mounts", &page, b"").await;
    seen.ok();
    assert_eq!(seen.header("content-security-policy"), Some(policy));
    assert_eq!(seen.header("x-one"), Some("a"));
    assert_eq!(seen.header("cache-control"), Some("no-store"));
    assert_eq!(seen.header("x-content-type-options"), Some("nosniff"));
    assert_eq!(seen.header("x-two"), None);
    // Also where nothing was served.
    let elsewhere = root.request("GET", "kv/x", &[("sec-fetch-site", "cross-site")], b"").await;
    assert_eq!((elsewhere.status, elsewhere.header("x-one")), (403, Some("a")));
    let program = root.read("sys/internal/ui/mounts").await;
    assert_eq!((program.header("x-one"), program.header("content-security-policy")), (None, None));
    root.delete(&at("x-one")).await.ok();
    root.delete(&at("Content-Security-Policy")).await.ok();
    let seen = root.request("GET", "sys/internal/ui/mounts", &page, b"").await;
    assert_eq!((seen.header("x-one"), seen.header("content-security-policy")), (None, None));
}

#[tokio::test]
async fn what_is_counted_is_what_there_is() {
    let world = shared().await;
    let root = world.broker.root();
    let total = async |path: &str| {
        let answer = root.read(&format!("sys/internal/counters/{path}")).await.data();
        let counters = &answer["counters"];
        let one = match counters.as_array() {
            Some(months) => &months[0],
            None => counters.as_object().unwrap().values().next().unwrap(),
        };
        one["total"].as_u64().unwrap()
    };
    // Others use the same broker meanwhile, and take away what they made.
    let mut made = Vec::new();
    for _ in 0..20 {
        made.push(world.token("path \"a\" { capabilities = [\"read\"] }").await);
    }
    assert!(total("tokens").await > 20);
    let before = total("requests").await;
    assert!(total("requests").await > before, "the request itself counts");
    let name = unique("counted");
    root.write("identity/entity", json!({ "name": name })).await.ok();
    assert!(total("entities").await > 0);
    assert_eq!(root.read("sys/internal/counters/activity").await.status, 204);
    let config = root.read("sys/internal/counters/config").await.data();
    assert_eq!(
        (&config["enabled"], &config["queries_available"]),
        (&json!("disable"), &json!(false))
    );
}

#[tokio::test]
async fn nobody_is_told_that_a_node_stepped_down_that_did_not() {
    let world = shared().await;
    let root = world.broker.root();
    let said = root.write("sys/step-down", json!({})).await.error(400);
    assert!(said.contains("every node is active"), "{said}");
    root.read("sys/mounts").await.ok();
}

#[tokio::test]
async fn the_version_is_noted_once_however_often_the_store_is_unsealed() {
    use crate::support::broker::{Broker, Setup};
    let broker = Broker::ready(Setup::default()).await;
    let first = broker.root().list("sys/version-history").await.data();
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(first["keys"], json!([version]));
    assert_eq!(first["key_info"][version]["previous_version"], json!(null));
    let since = first["key_info"][version]["timestamp_installed"].as_str().unwrap();
    assert!(since.starts_with("20") && since.ends_with('Z'), "{since}");
    broker.stop();
    broker.start_again();
    let seals = broker.nobody().read("sys/seal-backend-status").await.ok();
    broker.unseal().await;
    assert_eq!(broker.root().list("sys/version-history").await.data(), first);
    // Also while it was sealed: how it could be unsealed, and no more.
    let shamir = json!({ "name": "shamir", "configured": true, "healthy": true });
    assert_eq!(seals["backends"], json!([shamir]));
    assert_eq!(seals["healthy"], json!(true));
}

#[tokio::test]
async fn header_settings_of_a_mount_are_read_back_and_never_name_a_secret() {
    let world = shared().await;
    let root = world.broker.root();
    let name = unique("headers");
    let (at, tune) = (format!("sys/mounts/{name}"), format!("sys/mounts/{name}/tune"));
    let config = json!({ "passthrough_request_headers": ["X-One"] });
    let made = root.write(&at, json!({ "type": "kv", "config": config })).await.ok();
    assert!(made["warnings"][0].as_str().unwrap().contains("no effect"), "{made}");
    let both = json!({
        "passthrough_request_headers": ["X-One", "X-Two"], "allowed_response_headers": "X-Three",
    });
    let tuned = root.write(&tune, both).await.ok();
    assert_eq!(tuned["warnings"].as_array().unwrap().len(), 2, "{tuned}");
    for bad in ["Authorization", "x-vault-token", "Cookie", "a b"] {
        root.write(&tune, json!({ "passthrough_request_headers": [bad] })).await.error(400);
        root.write(&tune, json!({ "allowed_response_headers": [bad] })).await.error(400);
        let config = json!({ "allowed_response_headers": [bad] });
        let other = format!("sys/mounts/{}", unique("refused"));
        root.write(&other, json!({ "type": "kv", "config": config })).await.error(400);
    }
    let shown = root.read(&tune).await.data();
    assert_eq!(shown["passthrough_request_headers"], json!(["X-One", "X-Two"]));
    assert_eq!(shown["allowed_response_headers"], json!(["X-Three"]));
    let none = json!({ "passthrough_request_headers": [], "allowed_response_headers": [] });
    assert_eq!(root.write(&tune, none).await.status, 204, "nothing to warn of");
    root.delete(&at).await.ok();
}

#[tokio::test]
async fn a_mount_that_is_listed_to_all_is_seen_by_nobody_in_particular_and_no_other_is() {
    let world = shared().await;
    let root = world.broker.root();
    let (open, closed) = (unique("open"), unique("closed"));
    for name in [&open, &closed] {
        root.write(&format!("sys/auth/{name}"), json!({ "type": "userpass" })).await.ok();
        root.write(&format!("sys/mounts/{name}"), json!({ "type": "kv" })).await.ok();
    }
    let tune = async |path: String, visibility: &str| {
        root.write(&path, json!({ "listing_visibility": visibility })).await
    };
    tune(format!("sys/mounts/{open}/tune"), "everybody").await.error(400);
    let stranger = world.broker.caller(&world.broker.svid("stranger"));
    let (nobody, revoked) = (world.broker.nobody(), stranger.with_token("hvs.garbage"));
    let stranger = world.broker.caller(&world.broker.svid("stranger"));
    let listed = "sys/internal/ui/mounts";
    for somebody in [&nobody, &stranger] {
        let seen = somebody.read(listed).await.data().to_string();
        assert!(!seen.contains(&open) && !seen.contains("secret/"), "{seen}");
        assert_eq!(somebody.read(&format!("{listed}/{open}/x")).await.status, 403);
    }
    tune(format!("sys/auth/{open}/tune"), "unauth").await.ok();
    tune(format!("sys/mounts/{open}/tune"), "unauth").await.ok();
    for somebody in [&nobody, &stranger] {
        let seen = somebody.read(listed).await.data();
        for group in ["auth", "secret"] {
            assert!(seen[group].get(format!("{open}/")).is_some(), "{seen}");
            assert!(seen[group].get(format!("{closed}/")).is_none(), "{seen}");
        }
        // What it is, and no handle of it.
        let told = json!({ "description": "", "options": null, "type": "userpass" });
        assert_eq!(seen["auth"][format!("{open}/")], told);
        assert_eq!(somebody.read(&format!("{listed}/{open}/x")).await.data()["type"], "kv");
        assert_eq!(somebody.read(&format!("{listed}/{closed}/x")).await.status, 403);
        assert_eq!(somebody.read("sys/mounts").await.status, 403, "and nothing else");
    }
    // Who claims to be somebody has to be.
    assert_eq!(revoked.read(listed).await.status, 403);
    tune(format!("sys/mounts/{open}/tune"), "hidden").await.ok();
    let seen = nobody.read(listed).await.data();
    assert!(seen["secret"].get(format!("{open}/")).is_none(), "{seen}");
    for name in [&open, &closed] {
        root.delete(&format!("sys/auth/{name}")).await.ok();
        root.delete(&format!("sys/mounts/{name}")).await.ok();
    }
}
