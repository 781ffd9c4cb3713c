//! The certificate as identity: who is refused, why, and who learns why.

use rcgen::ExtendedKeyUsagePurpose as Eku;
use rustix::process::Signal;
use rustls::version::TLS12;
use serde_json::{Value, json};

use super::world::{World, shared, unique};
use crate::support::broker::{Caller, DOMAIN};
use crate::support::pki::{Ca, Issued, NOT_AFTER_SECS, NOT_BEFORE_SECS, Spec};
use crate::support::wire::{Answer, Client, soon};

const READ: &str = r#"path "secret/data/*" { capabilities = ["read"] }"#;
/// A moment that has been, and one that is far away.
const PAST_SECS: u64 = NOT_BEFORE_SECS + 86_400;
const FUTURE_SECS: u64 = NOT_AFTER_SECS - 86_400;

fn spiffe(path: &str) -> String {
    format!("spiffe://{DOMAIN}/{path}")
}

/// The entry of a refused handshake with a certificate of that name.
async fn handshake_refused(world: &World, common_name: &str) -> Value {
    soon(async {
        loop {
            let entries = world.broker.audit();
            let mut refused = entries.into_iter().filter(|entry| {
                entry["event"] == "handshake_refused"
                    && entry["detail"]["certificate"]["common_name"] == common_name
            });
            if let Some(entry) = refused.next() {
                return entry["detail"].clone();
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    })
    .await
}

/// The caller is told nothing; the audit is told `reason`.
fn assert_denied(world: &World, answer: &Answer, reason: &str) {
    assert_eq!(answer.error(403), "permission denied");
    let entry = world.broker.audited(answer);
    let said = entry["outcome"]["reason"].as_str().expect("a reason");
    assert!(said.contains(reason), "{reason:?} is not in {said:?}");
}

#[tokio::test]
async fn a_certificate_is_a_log_in() {
    let world = shared().await;
    let root = world.broker.root();
    let path = unique("secret/data/plain");
    root.write(&path, json!({ "data": { "k": "v" } })).await.ok();
    let (caller, name) = world.workload(READ).await;
    let answer = caller.read(&path).await;
    assert_eq!(answer.data()["data"], json!({ "k": "v" }));
    let entry = world.broker.audited(&answer);
    assert_eq!(entry["caller"]["cert"]["spiffe_id"], spiffe(&name));
    assert_eq!(entry["caller"]["role"], json!(name));
    assert_eq!(entry["caller"]["token_type"], "certificate");
    assert_eq!(caller.write(&path, json!({ "data": {} })).await.status, 403);
    // There is no token to show.
    assert_eq!(caller.read("auth/token/lookup-self").await.data()["id"], "");
}

#[tokio::test]
async fn bad_certificates_do_not_get_past_the_handshake() {
    let world = shared().await;
    let ca = &world.broker.pki.clients;
    let namesake = Ca::root("clients");
    let named = |stem: &str| {
        let name = unique(stem);
        (Spec::leaf().cn(&name).uri(&spiffe("handshake")), name)
    };
    let cases: Vec<(&str, Issued, String)> = [
        (
            "expired",
            &(|s: Spec| ca.issue(&s.between(NOT_BEFORE_SECS, PAST_SECS)))
                as &dyn Fn(Spec) -> Issued,
        ),
        ("not_yet_valid", &|s| ca.issue(&s.between(FUTURE_SECS, NOT_AFTER_SECS))),
        ("extended_key_usage", &|s| ca.issue(&s.eku(&[Eku::ServerAuth]))),
        ("extended_key_usage", &|s| ca.issue(&s.eku(&[Eku::CodeSigning, Eku::EmailProtection]))),
        ("is_ca", &|s| ca.issue(&s.authority(true))),
        ("bad_signature", &|s| namesake.issue(&s)),
        ("unknown_issuer", &|s| Ca::root("strangers").issue(&s)),
        ("unknown_issuer", &|s| s.self_signed()),
    ]
    .into_iter()
    .map(|(reason, make)| {
        let (spec, name) = named("refused");
        (reason, make(spec), name)
    })
    .collect();
    for (reason, leaf, name) in &cases {
        let error = world.broker.caller(leaf).refused().await;
        assert!(error.to_string().contains("CertificateUnknown"), "{reason}: {error}");
        let detail = handshake_refused(world, name).await;
        assert_eq!(detail["reason"], *reason, "{detail}");
        assert_eq!(detail["listener"], "api");
        assert_eq!(detail["certificate"]["uri_sans"], json!([spiffe("handshake")]));
        assert!(detail["remote"].as_str().unwrap().starts_with("127.0.0.1:"));
        assert_eq!(detail["certificate"]["fingerprint"].as_str().unwrap().len(), 64);
    }
    // TLS 1.2 says it at another moment, and no differently.
    let (spec, name) = named("refused");
    let leaf = ca.issue(&spec.between(NOT_BEFORE_SECS, PAST_SECS));
    let old = Client::new(&world.broker.pki.servers.der, &TLS12, Some((&leaf, &[])));
    let error = Caller::new(old, world.broker.address).refused().await;
    assert!(error.to_string().contains("CertificateUnknown"), "{error}");
    assert_eq!(handshake_refused(world, &name).await["reason"], "expired");
}

#[tokio::test]
async fn without_a_certificate_there_is_nothing_to_say_where_one_is_required() {
    let world = shared().await;
    let none = Client::new(&world.broker.pki.servers.der, &rustls::version::TLS13, None);
    let before = no_certificate_count(world);
    Caller::new(none, world.broker.address).refused().await;
    soon(async {
        while no_certificate_count(world) == before {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    })
    .await;
    // Where it is optional, nobody gets an answer all the same.
    let answer = world.broker.nobody().read("secret/data/x").await;
    assert_denied(world, &answer, "neither a token nor a certificate");
}

fn no_certificate_count(world: &World) -> usize {
    let entries = world.broker.audit();
    entries.iter().filter(|entry| entry["detail"]["reason"] == "no_certificate").count()
}

#[tokio::test]
async fn possession_of_a_certificate_is_not_a_role() {
    let world = shared().await;
    let answer = world.broker.caller(&world.broker.svid("unknown")).read("secret/data/x").await;
    assert_denied(world, &answer, "cert/");
    // One role: served. Two: refused, and the audit names both.
    let (caller, name) = world.workload(READ).await;
    assert_eq!(caller.read("secret/data/none").await.status, 404);
    let other = unique("second");
    let role = json!({ "allowed_uri_sans": [spiffe(&name)], "token_policies": ["default"] });
    let root = world.broker.root();
    root.write(&format!("auth/cert/certs/{other}"), role).await.ok();
    let answer = caller.read("secret/data/none").await;
    assert_denied(world, &answer, &name);
    assert_denied(world, &answer, &other);
    root.delete(&format!("auth/cert/certs/{other}")).await.ok();
    assert_eq!(caller.read("secret/data/none").await.status, 404);
    root.delete(&format!("auth/cert/certs/{name}")).await.ok();
    assert_eq!(caller.read("secret/data/none").await.status, 403);
}

#[tokio::test]
async fn the_rules_of_x509_svids_hold_exactly() {
    let world = shared().await;
    let ca = &world.broker.pki.clients;
    // One role looks at the SPIFFE ID, the other at nothing but the common name: a certificate that
    // breaks a rule is not let in by another of its names.
    let (name, cn) = (unique("any"), unique("cn"));
    world.admit(&name, READ).await;
    let root = world.broker.root();
    for (role, body) in [
        (&name, json!({ "allowed_uri_sans": [spiffe(&format!("{name}*"))] })),
        (&cn, json!({ "allowed_common_names": [cn], "token_policies": [name] })),
    ] {
        root.write(&format!("auth/cert/certs/{role}"), body).await.ok();
    }
    let good = || Spec::svid(&spiffe(&name));
    let control = world.broker.caller(&ca.issue(&good())).read("secret/data/x").await;
    assert_eq!(control.status, 404, "{}", control.body);
    let other = format!("spiffe://other.example/{name}");
    let cases = [
        ("two URI names", good().uri(&spiffe(&format!("{name}/b")))),
        ("a second URI of another scheme", good().uri("https://test.example/")),
        ("no path", Spec::svid(&format!("spiffe://{DOMAIN}"))),
        ("upper case", Spec::svid(&format!("spiffe://TEST.example/{name}"))),
        ("dot segments", Spec::svid(&spiffe(&format!("{name}/../x")))),
        ("an empty segment", Spec::svid(&spiffe(&format!("{name}//x")))),
        ("a slash at the end", Spec::svid(&spiffe(&format!("{name}/")))),
        ("a query", Spec::svid(&spiffe(&format!("{name}?x=y")))),
        ("a fragment", Spec::svid(&spiffe(&format!("{name}#x")))),
        ("a port", Spec::svid(&format!("spiffe://{DOMAIN}:443/{name}"))),
        ("user information", Spec::svid(&format!("spiffe://u@{DOMAIN}/{name}"))),
        ("percent encoding", Spec::svid(&spiffe(&format!("{name}%2f")))),
        ("no key usage", good().key_usage(&[])),
        ("another domain", Spec::svid(&other)),
    ];
    for (what, spec) in cases {
        for spec in [spec.clone(), spec.cn(&cn)] {
            let caller = world.broker.caller(&ca.issue(&spec));
            let answer = caller.read("secret/data/x").await;
            assert_eq!(answer.status, 403, "{what}: {}", answer.body);
            assert_eq!(answer.error(403), "permission denied", "{what}");
            let entry = world.broker.audited(&answer);
            assert!(entry["outcome"]["reason"].is_string(), "{what}: {entry}");
            let reason = entry["outcome"]["reason"].as_str().unwrap();
            assert!(!reason.is_empty() && reason != "permission denied", "{what}: {reason}");
            assert_eq!(entry["caller"].get("entity_id"), None, "{what}: {entry}");
        }
    }
}

#[tokio::test]
async fn roles_match_what_they_name_and_nothing_else() {
    let world = shared().await;
    let ca = &world.broker.pki.clients;
    let root = world.broker.root();
    let policy = unique("role-policy");
    root.write(&format!("sys/policies/acl/{policy}"), json!({ "policy": READ })).await.ok();
    let n = unique("n");
    let oid = "1.3.6.1.4.1.99999.7";
    let arcs = [1, 3, 6, 1, 4, 1, 99999, 7];
    let cases: Vec<(Value, Spec, Vec<Spec>)> = vec![
        (
            json!({ "allowed_dns_sans": [format!("*.{n}.example")] }),
            Spec::leaf().cn("x").dns(&format!("a.{n}.example")),
            vec![
                Spec::leaf().cn("x").dns(&format!("a.{n}.example.evil")),
                Spec::leaf().cn(&format!("a.{n}.example")),
            ],
        ),
        (
            json!({ "allowed_common_names": [format!("{n}-cn")] }),
            Spec::leaf().cn(&format!("{n}-cn")),
            vec![Spec::leaf().cn(&format!("{n}-cn2")), Spec::leaf().dns(&format!("{n}-cn"))],
        ),
        (
            json!({ "allowed_organizational_units": [format!("{n}-ou")], "allowed_common_names": ["c"] }),
            Spec::leaf().cn("c").ou(&format!("{n}-ou")),
            vec![Spec::leaf().cn("c").ou("other"), Spec::leaf().cn("d").ou(&format!("{n}-ou"))],
        ),
        (
            json!({ "required_extensions": [format!("{oid}:{n}-ext")] }),
            Spec::leaf().cn("e").text_extension(&arcs, &format!("{n}-ext")),
            vec![Spec::leaf().cn("e").text_extension(&arcs, "other"), Spec::leaf().cn("e")],
        ),
        (
            json!({ "allowed_email_sans": [format!("*@{n}.example")] }),
            Spec::leaf().cn("m").email(&format!("a@{n}.example")),
            vec![Spec::leaf().cn("m").email("a@other.example")],
        ),
    ];
    for (mut role, good, bad) in cases {
        role["token_policies"] = json!([policy]);
        let at = format!("auth/cert/certs/{}", unique("match"));
        root.write(&at, role.clone()).await.ok();
        let answer = world.broker.caller(&ca.issue(&good)).read("secret/data/x").await;
        assert_eq!(answer.status, 404, "{role}: {}", world.broker.audited(&answer));
        for spec in bad {
            let answer = world.broker.caller(&ca.issue(&spec)).read("secret/data/x").await;
            assert_eq!(answer.status, 403, "{role}");
        }
        root.delete(&at).await.ok();
    }
}

#[tokio::test]
async fn a_role_brings_its_own_authority_without_a_restart() {
    let world = shared().await;
    let root = world.broker.root();
    let policy = unique("own-ca");
    root.write(&format!("sys/policies/acl/{policy}"), json!({ "policy": READ })).await.ok();
    let ca = Ca::root("somebody's own");
    let (name, pinned_name) = (unique("own"), unique("pinned"));
    let leaf = ca.issue(&Spec::leaf().cn(&name).serial(&[0x11, 0x22]));
    let pinned = Spec::leaf().cn(&pinned_name).self_signed();
    let namesake = Spec::leaf().cn(&pinned_name).self_signed();
    for leaf in [&leaf, &pinned] {
        world.broker.caller(leaf).refused().await;
    }
    for (role, pem) in [(&name, ca.pem()), (&pinned_name, pinned.pem())] {
        let body = json!({ "certificate": pem, "token_policies": [policy] });
        root.write(&format!("auth/cert/certs/{role}"), body).await.ok();
    }
    let caller = world.broker.caller(&leaf);
    assert_eq!(caller.read("secret/data/x").await.status, 404);
    assert_eq!(world.broker.caller(&pinned).read("secret/data/x").await.status, 404);
    world.broker.caller(&namesake).refused().await;
    // A role's authority cannot speak for a trust domain.
    let impostor = ca.issue(&Spec::svid(&spiffe("admin")));
    let answer = world.broker.caller(&impostor).read("secret/data/x").await;
    assert_eq!(answer.error(403), "permission denied");
    // Its revocation list arrives over the API, and ends the open connection's standing.
    let crl = data_encoding::BASE64.encode(&ca.crl(&[&[0x11, 0x22]], NOT_AFTER_SECS));
    let pem = format!("-----BEGIN X509 CRL-----\n{crl}\n-----END X509 CRL-----\n");
    let list = format!("auth/cert/crls/{name}");
    root.write(&list, json!({ "crl": pem })).await.ok();
    let answer = caller.read("secret/data/x").await;
    assert_denied(world, &answer, "revoked");
    world.broker.caller(&leaf).refused().await;
    root.delete(&list).await.ok();
    assert_eq!(caller.read("secret/data/x").await.status, 404);
    // And the authority goes with the role.
    root.delete(&format!("auth/cert/certs/{name}")).await.ok();
    assert_eq!(caller.read("secret/data/x").await.status, 403);
    world.broker.caller(&leaf).refused().await;
}

#[tokio::test]
async fn a_revocation_reaches_connections_that_are_open() {
    let world = shared().await;
    let name = unique("revoked");
    world.admit(&name, READ).await;
    let serial = [0x7a, 0x01];
    let leaf = world.broker.pki.clients.issue(&Spec::svid(&spiffe(&name)).serial(&serial));
    let caller = world.broker.caller(&leaf);
    let login = caller.write("auth/cert/login", json!({})).await.ok();
    let token = login["auth"]["client_token"].as_str().unwrap();
    let with_token = world.broker.caller(&leaf).with_token(token);
    for caller in [&caller, &with_token] {
        assert_eq!(caller.read("secret/data/x").await.status, 404);
    }
    world.broker.write_crl(&[&serial]);
    world.broker.signal(Signal::HUP);
    let refused = soon(async {
        loop {
            let answer = caller.read("secret/data/x").await;
            if answer.status != 404 {
                return answer;
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    })
    .await;
    // The same connection all the time: nothing was dropped.
    assert_denied(world, &refused, "revoked");
    assert_denied(world, &with_token.read("secret/data/x").await, "revoked");
    world.broker.caller(&leaf).refused().await;
}

#[tokio::test]
async fn a_log_in_gives_a_token_that_is_bound_to_the_certificate() {
    let world = shared().await;
    let (caller, name) = world.workload(READ).await;
    let login = caller.write("auth/cert/login", json!({ "name": name })).await.ok();
    let auth = &login["auth"];
    assert_eq!(auth["token_type"], "service");
    assert!(auth["policies"].as_array().unwrap().contains(&json!(name)));
    let token = auth["client_token"].as_str().unwrap();
    // On its certificate it counts. On another one of the same identity it does not, nor on one that
    // is entitled to as much, nor without any.
    let leaf = world.broker.svid(&name);
    let answer = world.broker.caller(&leaf).with_token(token).read("secret/data/x").await;
    assert_denied(world, &answer, "bound to another certificate");
    let (_, other) = world.workload(READ).await;
    let elsewhere = world.broker.caller(&world.broker.svid(&other)).with_token(token);
    let answer = elsewhere.read("secret/data/x").await;
    assert_denied(world, &answer, "bound to another certificate");
    let answer = world.broker.nobody().with_token(token).read("secret/data/x").await;
    assert_denied(world, &answer, "bound to another certificate");
    let own = caller.with_token(token);
    assert_eq!(own.read("secret/data/x").await.status, 404);
    let wrong_role = json!({ "name": unique("no-such-role") });
    let again = world.broker.caller(&leaf);
    assert!(matches!(again.write("auth/cert/login", wrong_role).await.status, 400 | 403));
    let answer = world.broker.nobody().write("auth/cert/login", json!({})).await;
    assert!(matches!(answer.status, 400 | 403), "{}", answer.body);
}

#[tokio::test]
async fn claims_in_headers_are_refused_and_recorded() {
    let world = shared().await;
    let root = world.broker.root();
    let pem = data_encoding::BASE64.encode(world.broker.svid("admin").der.as_ref());
    for name in ["x-forwarded-client-cert", "x-ssl-client-cert", "client-cert", "ssl_client_cert"] {
        let answer = root.request("GET", "sys/mounts", &[(name, &pem)], b"").await;
        assert!(answer.error(400).contains(name), "{}", answer.body);
        let entry = world.broker.audited(&answer);
        assert_eq!(entry["outcome"]["status"], 400);
    }
}

#[tokio::test]
async fn entities_stand_for_identities_and_can_be_disabled() {
    let world = shared().await;
    let root = world.broker.root();
    let (caller, name) = world.workload(READ).await;
    let answer = caller.write("auth/cert/login", json!({})).await.ok();
    let id = answer["auth"]["entity_id"].as_str().unwrap().to_owned();
    assert!(!id.is_empty());
    let entity = root.read(&format!("identity/entity/id/{id}")).await.data();
    assert_eq!(entity["aliases"][0]["name"], spiffe(&name), "{entity}");
    assert_eq!(caller.read("secret/data/x").await.status, 404);
    let at = format!("identity/entity/id/{id}");
    root.write(&at, json!({ "disabled": true })).await.ok();
    assert_denied(world, &caller.read("secret/data/x").await, "disabled");
    let made_root = root.write(&at, json!({ "disabled": false, "policies": ["root"] })).await;
    assert!(made_root.error(400).contains("policies"), "{}", made_root.body);
    root.write(&at, json!({ "disabled": false })).await.ok();
    assert_eq!(caller.read("secret/data/x").await.status, 404);
}
