//! Names that follow from who asks.

use std::sync::Arc;

use super::*;
use crate::core::policy::template::{AliasValues, TemplateValues};

/// A caller whose alias at the mount `ldap` has this name, and whose entity is called `ann`.
fn caller(alias: &str) -> CallerFacts {
    let alias = AliasValues { name: alias.to_owned(), ..AliasValues::default() };
    let metadata = [("team", "web"), ("empty", ""), ("host", "WEB1.example"), ("star", "*")];
    let metadata = metadata.map(|(key, value)| (key.to_owned(), value.to_owned()));
    let identity = TemplateValues {
        entity_name: Some("ann".to_owned()),
        entity_metadata: metadata.into(),
        aliases: [("ldap".to_owned(), alias)].into(),
        ..TemplateValues::default()
    };
    CallerFacts { identity: Arc::new(identity), ..CallerFacts::default() }
}

async fn world(alias: &str, role: Value) -> World {
    let world = World { caller: caller(alias), ..World::empty() };
    world.ok(Update, "config/ca", json!({})).await;
    world.role(role).await.unwrap();
    world
}

const ALIAS: &str = "{{identity.entity.aliases.ldap.name}}";

#[tokio::test]
async fn a_role_is_for_the_user_that_its_template_names() {
    let role = json!({
        "allowed_users": [ALIAS, "svc-{{identity.entity.metadata.team}}", "app"],
        "allowed_users_template": true,
        "default_user": "{{identity.entity.name}}", "default_user_template": true,
    });
    let one = world("ann.smith", role.clone()).await;
    assert_eq!(one.sign(json!({})).await.unwrap().principals, ["ann"]);
    for name in ["ann.smith", "svc-web", "app", "ann"] {
        let body = json!({ "valid_principals": name });
        assert_eq!(one.sign(body).await.unwrap().principals, [name]);
    }
    for name in ["bob", "svc-db", ALIAS, "svc-"] {
        names_field(one.sign(json!({ "valid_principals": name })).await, "valid_principals");
    }
    let read = one.ok(Read, "roles/r", json!({})).await;
    assert_eq!(read["allowed_users_template"], true);
    assert!(read["allowed_users"].as_str().unwrap().contains(ALIAS), "as it was written");

    // Without an entity the templates name nobody, and what is no template still counts.
    let nobody = World { caller: CallerFacts::default(), ..one };
    names_field(nobody.sign(json!({})).await, "valid_principals");
    assert!(nobody.sign(json!({ "valid_principals": "app" })).await.is_ok());
    names_field(nobody.sign(json!({ "valid_principals": "svc-" })).await, "valid_principals");
}

#[tokio::test]
async fn a_value_that_is_no_plain_name_names_nobody() {
    for bad in ["*", "a,root", "a b", "root\n", "", "a?", "!root", "\"root\""] {
        let role = json!({
            "allowed_users": ALIAS, "allowed_users_template": true,
            "default_user": ALIAS, "default_user_template": true,
        });
        let world = world(bad, role).await;
        names_field(world.sign(json!({})).await, "valid_principals");
        for wanted in [bad, "root", "a", "anything"] {
            let body = json!({ "valid_principals": [wanted] });
            assert!(world.sign(body).await.is_err(), "{bad:?} {wanted:?}");
        }
    }
}

#[tokio::test]
async fn domains_and_extensions_are_templates_where_the_role_says_so() {
    let login = "login@example.com";
    let role = json!({
        "allow_host_certificates": true, "allow_bare_domains": true,
        "allowed_domains": ["{{identity.entity.metadata.host}}", "{{identity.entity.metadata.star}}"],
        "allowed_domains_template": true,
        "default_extensions": { login: ALIAS, "permit-pty": "" },
        "default_extensions_template": true,
    });
    let one = world("ann.smith", role.clone()).await;
    let host = |name: &str| json!({ "cert_type": "host", "valid_principals": name });
    assert!(one.sign(host("web1.example")).await.is_ok());
    assert!(one.sign(host("web2.example")).await.is_err());
    let body = json!({ "public_key": public_key(SshKeyType::Ed25519) });
    let signed = one.ok(Update, "sign/r", body).await;
    let line = signed["signed_key"].as_str().unwrap().split(' ').nth(1).unwrap().trim_end();
    let blob = data_encoding::BASE64.decode(line.as_bytes()).unwrap();
    assert!(blob.windows(9).any(|part| part == b"ann.smith"));

    for bad in ["", "two\nlines"] {
        let world = World { caller: caller(bad), ..world("x", role.clone()).await };
        let error = world.sign(json!({})).await.err().unwrap();
        assert!(error.status() == 400 && error.to_string().contains(login), "{error}");
    }
}

#[tokio::test]
async fn passwords_are_for_the_user_that_the_template_names() {
    let world = World { caller: caller("ann.smith"), ..World::empty() };
    let role = json!({
        "key_type": "otp", "cidr_list": "10.0.0.0/8",
        "default_user": ALIAS, "default_user_template": true,
    });
    world.tried(Update, "roles/otp", role).await.unwrap();
    let (_, made) = world.lease(json!({ "ip": "10.1.2.3" })).await.unwrap();
    assert_eq!(made["username"], "ann.smith");
    let other = world.lease(json!({ "ip": "10.1.2.3", "username": "root" })).await;
    assert_eq!(other.unwrap_err().status(), 400);
    let nobody = World { caller: CallerFacts::default(), ..world };
    assert_eq!(nobody.lease(json!({ "ip": "10.1.2.3" })).await.unwrap_err().status(), 400);
}
