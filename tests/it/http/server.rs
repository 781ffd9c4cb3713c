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
