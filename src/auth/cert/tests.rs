use serde_json::json;

use super::*;
use crate::auth::scratch::{Call, answered, granted, renewal_of};
use crate::core::crl_source::NoCrlSource;
use crate::core::scratch::{NOW, Scratch, ScratchMount};
use crate::core::spiffe::TrustDomain;
use crate::core::trust::TrustBundle;
use crate::crypto::x509::Anchors;
use crate::pki::{Ca, Issued, NOT_BEFORE_SECS, Spec};
use crate::types::time::{Timestamp, Ttl};
use rcgen::{ExtendedKeyUsagePurpose, KeyUsagePurpose};

const NOW_SECS: u64 = 1_800_000_000;

struct Mount {
    method: CertMethod,
    trust: Arc<TrustStore>,
    mount: ScratchMount,
    _scratch: Scratch,
}

impl Mount {
    /// A mount on a server that trusts `ca` as the bundle "corp" of trust domain "example.org".
    fn new(ca: &Ca) -> Self {
        let scratch = Scratch::new();
        let trust = Arc::new(TrustStore::new());
        trust.set_bundles(vec![bundle("corp", "example.org", ca)]);
        let mount = ScratchMount::new(&scratch, "auth/cert/");
        Self {
            method: CertMethod::new(trust.clone(), Arc::new(NoCrlSource), &mount.facts),
            trust,
            mount,
            _scratch: scratch,
        }
    }

    fn ctx(&self) -> EngineContext<'_> {
        self.mount.ctx()
    }

    async fn call(
        &self,
        operation: Operation,
        path: &str,
        body: Value,
        peer: Option<&Arc<VerifiedPeer>>,
    ) -> Result<AuthOutcome, CoreError> {
        let call = Call { peer, ..Call::new(operation, path, body) };
        call.to(&self.method, &self.mount).await
    }

    async fn write(&self, path: &str, body: Value) -> Result<(), CoreError> {
        self.call(Operation::Update, path, body, None).await.map(|_| ())
    }

    async fn read(&self, path: &str) -> Result<Value, CoreError> {
        Ok(answered(self.call(Operation::Read, path, json!({}), None).await?))
    }

    async fn login(&self, peer: &Arc<VerifiedPeer>, body: Value) -> Result<Grant, CoreError> {
        Ok(granted(self.call(Operation::Update, "login", body, Some(peer)).await?))
    }

    async fn identify(&self, peer: &Arc<VerifiedPeer>) -> Result<Grant, CoreError> {
        match self.method.identify(&self.ctx(), peer).await? {
            Recognition::Known(grant) => Ok(*grant),
            Recognition::Unknown(reason) => Err(CoreError::denied(reason)),
            Recognition::NotConcerned => panic!("not concerned"),
        }
    }
}

fn bundle(name: &str, domain: &str, ca: &Ca) -> TrustBundle {
    let anchors = Anchors::from_certificates(vec![ca.der.clone()]).unwrap();
    let domain = TrustDomain::parse(domain).unwrap();
    TrustBundle::new(name, Some(domain), anchors, Crls::none()).unwrap()
}

fn peer(issued: &Issued) -> Arc<VerifiedPeer> {
    Arc::new(VerifiedPeer::from_handshake(std::slice::from_ref(&issued.der)).unwrap())
}

fn svid(ca: &Ca, path: &str) -> Arc<VerifiedPeer> {
    peer(&ca.issue(&Spec::svid(&format!("spiffe://example.org/{path}"))))
}

fn reason<T: std::fmt::Debug>(result: Result<T, CoreError>) -> String {
    match result {
        Err(CoreError::Denied { reason }) => reason,
        other => panic!("not denied: {other:?}"),
    }
}

fn bad_field<T: std::fmt::Debug>(result: Result<T, CoreError>) -> String {
    match result {
        Err(CoreError::Field(error)) => error.field,
        other => panic!("no field error: {other:?}"),
    }
}

fn crl_pem(der: &[u8]) -> String {
    let body = data_encoding::BASE64.encode(der);
    format!("-----BEGIN X509 CRL-----\n{body}\n-----END X509 CRL-----\n")
}

#[tokio::test]
async fn a_certificate_that_matches_one_role_is_an_identity_and_a_login() {
    let ca = Ca::root("ca");
    let mount = Mount::new(&ca);
    let role = json!({
        "allowed_uri_sans": "spiffe://example.org/ns/*",
        "token_policies": "web",
        "token_ttl": "10m",
        "display_name": "the web",
    });
    mount.write("certs/web", role).await.unwrap();
    let peer = svid(&ca, "ns/prod/web");
    for grant in [
        mount.identify(&peer).await.unwrap(),
        mount.login(&peer, json!({})).await.unwrap(),
        mount.login(&peer, json!({"name": "web"})).await.unwrap(),
    ] {
        assert_eq!(grant.alias, "spiffe://example.org/ns/prod/web");
        assert_eq!((grant.role.as_str(), grant.display_name.as_str()), ("web", "the web"));
        assert_eq!(grant.token.policies, ["web"]);
        assert_eq!(grant.bound_certificate, Some(*peer.fingerprint()));
        assert_eq!(grant.not_after, Some(peer.not_after()));
        assert_eq!(grant.metadata["cert_name"], "web");
        assert!(grant.alias_metadata.is_empty());
    }
}

/// Every refusal that an administrator or an auditor may ask about, beside the allowed twin.
#[tokio::test]
async fn what_must_be_refused_is_refused_for_its_own_reason() {
    let (ca, other) = (Ca::root("ca"), Ca::root("other"));
    let mount = Mount::new(&ca);
    mount.trust.set_bundles(vec![
        bundle("corp", "example.org", &ca),
        bundle("partner", "partner.example", &other),
    ]);
    let role = json!({"allowed_uri_sans": "spiffe://example.org/*", "token_policies": "web"});
    mount.write("certs/web", role).await.unwrap();
    let serial: &[u8] = &[0x0a, 0x0b];
    let list = crl_pem(&ca.crl(&[serial], NOW_SECS + 100));
    mount.write("crls/corp", json!({"crl": list})).await.unwrap();

    let uri = "spiffe://example.org/web";
    let client = [ExtendedKeyUsagePurpose::ServerAuth];
    let signing = [KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign];
    let cases = [
        ("expired", ca.issue(&Spec::svid(uri).between(NOT_BEFORE_SECS, NOW_SECS - 1)), "expired"),
        ("future", ca.issue(&Spec::svid(uri).between(NOW_SECS + 1, NOW_SECS + 9)), "not valid yet"),
        ("no clientAuth", ca.issue(&Spec::leaf().cn("web").eku(&client)), "client authentication"),
        ("no clientAuth, SVID", ca.issue(&Spec::svid(uri).eku(&client)), "clientAuth"),
        ("CA", ca.issue(&Spec::leaf().cn("web").authority(true)), "certification authority"),
        ("CA, SVID", ca.issue(&Spec::svid(uri).authority(true)), "signing certificate"),
        ("signs", ca.issue(&Spec::svid(uri).key_usage(&signing)), "key usage"),
        ("revoked", ca.issue(&Spec::svid(uri).serial(serial)), "revoked"),
        ("crossed", other.issue(&Spec::svid(uri)), "issuer is unknown"),
        ("stranger", Spec::svid(uri).self_signed(), "issuer is unknown"),
        ("no bundle", ca.issue(&Spec::svid("spiffe://c.example/web")), "no bundle is configured"),
        ("other domain", other.issue(&Spec::svid("spiffe://partner.example/web")), "no URI"),
        ("two URIs", ca.issue(&Spec::svid(uri).uri("https://x.example")), "more than one URI"),
        ("no role", ca.issue(&Spec::leaf().cn("web")), "no URI"),
    ];
    for (name, issued, expected) in cases {
        let peer = peer(&issued);
        for refusal in [
            reason(mount.identify(&peer).await),
            reason(mount.login(&peer, json!({})).await),
            reason(mount.login(&peer, json!({"name": "web"})).await),
        ] {
            assert!(refusal.contains(expected), "{name}: {refusal}");
        }
    }
    mount.identify(&svid(&ca, "web")).await.unwrap();
    assert!(
        reason(mount.call(Operation::Update, "login", json!({}), None).await).contains("no cert")
    );
}

#[tokio::test]
async fn several_matching_roles_are_refused_by_name_unless_one_is_chosen() {
    let ca = Ca::root("ca");
    let mount = Mount::new(&ca);
    for name in ["a", "b"] {
        let role = json!({"allowed_uri_sans": "spiffe://example.org/*"});
        mount.write(&format!("certs/{name}"), role).await.unwrap();
    }
    let peer = svid(&ca, "web");
    assert_eq!(reason(mount.identify(&peer).await), "the certificate matches several roles: a, b");
    assert!(reason(mount.login(&peer, json!({})).await).contains("several roles: a, b"));
    assert_eq!(mount.login(&peer, json!({"name": "b"})).await.unwrap().role, "b");
    assert!(reason(mount.login(&peer, json!({"name": "c"})).await).contains("no role of the name"));
}

#[tokio::test]
async fn every_kind_of_name_is_matched_whole_and_all_kinds_must_match() {
    let ca = Ca::root("ca");
    let mount = Mount::new(&ca);
    let oid = [1, 3, 6, 1, 4, 1, 55555, 1];
    let full = || {
        Spec::leaf()
            .cn("web-1")
            .ou("payments")
            .dns("web.example.org")
            .email("ops@example.org")
            .text_extension(&oid, "tier-gold")
    };
    let role = json!({
        "allowed_common_names": "web-*",
        "allowed_dns_sans": ["*.example.org"],
        "allowed_email_sans": "ops@example.org",
        "allowed_organizational_units": "payments",
        "required_extensions": "1.3.6.1.4.1.55555.1:tier-*",
        "allowed_metadata_extensions": "1.3.6.1.4.1.55555.1",
    });
    mount.write("certs/web", role).await.unwrap();
    let grant = mount.identify(&peer(&ca.issue(&full()))).await.unwrap();
    assert_eq!(grant.alias, "dns:web.example.org@bundle:corp");
    assert_eq!(grant.metadata["1-3-6-1-4-1-55555-1"], "tier-gold");
    let base = || Spec::leaf().ou("payments").email("ops@example.org");
    for (spec, expected) in [
        (base().cn("xweb-1").dns("web.example.org"), "common name"),
        (base().dns("web.example.org"), "common name"),
        (base().cn("web-1").dns("web.example.org.evil.com"), "DNS"),
        (base().cn("web-1").dns("web.example.org"), "extension"),
        (Spec::leaf().cn("web-1").dns("a.example.org").ou("x").email("ops@example.org"), "unit"),
        (Spec::leaf().cn("web-1").dns("a.example.org").ou("payments"), "e-mail"),
    ] {
        let refusal = reason(mount.identify(&peer(&ca.issue(&spec))).await);
        assert!(refusal.contains(expected), "{expected}: {refusal}");
    }
}

#[tokio::test]
async fn stars_in_spiffe_patterns_stay_inside_the_path() {
    let (ca, partner) = (Ca::root("ca"), Ca::root("partner"));
    let mount = Mount::new(&ca);
    mount.trust.set_bundles(vec![
        bundle("corp", "example.org", &ca),
        bundle("partner", "example.org.partner.example", &partner),
    ]);
    for pattern in [
        "spiffe://*/web",
        "spiffe://example.*/web",
        "spiffe://example.org*",
        "spiffe://example.org",
        "spiffe://example.org/a//b",
        "spiffe://example.org/../b",
        "SPIFFE://example.org/*",
        "spiffe:*",
    ] {
        let role = json!({"allowed_uri_sans": pattern});
        assert_eq!(bad_field(mount.write("certs/x", role).await), "allowed_uri_sans", "{pattern}");
    }
    let role = json!({"allowed_uri_sans": ["spiffe://example.org/web*", "*", "https://*"]});
    mount.write("certs/web", role).await.unwrap();
    mount.identify(&svid(&ca, "web/1")).await.unwrap();
    // A star alone is for other URIs; it never stands for a SPIFFE ID.
    assert!(reason(mount.identify(&svid(&ca, "db")).await).contains("no URI"));
    let foreign = Spec::svid("spiffe://example.org.partner.example/web");
    assert!(reason(mount.identify(&peer(&partner.issue(&foreign))).await).contains("no URI"));
    let web = ca.issue(&Spec::leaf().uri("https://web.example"));
    let grant = mount.identify(&peer(&web)).await.unwrap();
    assert_eq!(grant.alias, "uri:https://web.example@bundle:corp");
}

#[tokio::test]
async fn a_role_with_certificates_of_its_own_trusts_those_alone() {
    let (ca, own, other) = (Ca::root("ca"), Ca::root("own"), Ca::root("other"));
    let mount = Mount::new(&ca);
    mount.write("certs/own", json!({"certificate": own.pem()})).await.unwrap();
    let same_name = Spec::leaf().cn("web");
    let grant = mount.identify(&peer(&own.issue(&same_name))).await.unwrap();
    assert_eq!(grant.alias, "cn:web@role:own");
    // The server trusts this chain, the role does not.
    let refusal = reason(mount.identify(&peer(&ca.issue(&same_name))).await);
    assert!(refusal.contains("does not trust"), "{refusal}");
    // Equal names from two sources are two identities.
    mount.write("certs/other", json!({"certificate": other.pem()})).await.unwrap();
    let grant = mount.identify(&peer(&other.issue(&same_name))).await.unwrap();
    assert_eq!(grant.alias, "cn:web@role:other");
    // Gone with the role, without a restart.
    mount.call(Operation::Delete, "certs/own", json!({}), None).await.unwrap();
    let refusal = reason(mount.identify(&peer(&own.issue(&same_name))).await);
    assert!(refusal.contains("issuer is unknown"), "{refusal}");
}

#[tokio::test]
async fn a_pinned_certificate_is_compared_whole() {
    let (ca, own) = (Ca::root("ca"), Ca::root("own"));
    let mount = Mount::new(&ca);
    let spec = Spec::leaf().cn("web").serial(&[7]);
    let (pinned, twin) = (own.issue(&spec), own.issue(&spec));
    mount.write("certs/pin", json!({"certificate": pinned.pem()})).await.unwrap();
    mount.identify(&peer(&pinned)).await.unwrap();
    // Same issuer, subject and serial number, another key.
    assert!(reason(mount.identify(&peer(&twin)).await).contains("issuer is unknown"));
    assert!(reason(mount.login(&peer(&twin), json!({"name": "pin"})).await).contains("unknown"));
    let list = crl_pem(&own.crl(&[&[7]], NOW_SECS + 100));
    mount.write("crls/own", json!({"crl": list})).await.unwrap();
    assert!(reason(mount.identify(&peer(&pinned)).await).contains("revoked"));
}

#[tokio::test]
async fn a_role_can_choose_among_the_configured_bundles() {
    let (ca, other) = (Ca::root("ca"), Ca::root("other"));
    let mount = Mount::new(&ca);
    mount.trust.set_bundles(vec![
        bundle("corp", "example.org", &ca),
        bundle("partner", "partner.example", &other),
    ]);
    let role = json!({"allowed_common_names": "*", "trust_domain": "corp"});
    mount.write("certs/web", role).await.unwrap();
    let spec = Spec::leaf().cn("web");
    let grant = mount.identify(&peer(&ca.issue(&spec))).await.unwrap();
    assert_eq!(grant.alias, "cn:web@bundle:corp");
    let refusal = reason(mount.identify(&peer(&other.issue(&spec))).await);
    assert!(refusal.contains("does not trust"), "{refusal}");
    mount.write("certs/web", json!({"trust_domain": "example.org"})).await.unwrap();
    mount.identify(&svid(&ca, "web")).await.unwrap();
}

#[tokio::test]
async fn renewal_asks_for_the_certificate_again() {
    let (ca, other) = (Ca::root("ca"), Ca::root("other"));
    let mount = Mount::new(&ca);
    let role = json!({"allowed_uri_sans": "spiffe://example.org/*", "token_ttl": 60});
    mount.write("certs/web", role).await.unwrap();
    let (first, sibling) = (svid(&ca, "web"), svid(&ca, "db"));
    let renewed = async |peer: Option<&Arc<VerifiedPeer>>| {
        mount.method.renewal(&mount.ctx(), renewal_of("web", peer)).await
    };
    let grant = renewed(Some(&first)).await.unwrap();
    assert_eq!(
        (grant.token.ttl, grant.bound_certificate),
        (Ttl::from_secs(60), Some(*first.fingerprint()))
    );
    // A sibling of the same CA is another identity and another certificate: the core compares both.
    let grant = renewed(Some(&sibling)).await.unwrap();
    assert_ne!(
        (grant.alias.as_str(), grant.bound_certificate),
        ("spiffe://example.org/web", Some(*first.fingerprint()))
    );
    assert!(reason(renewed(None).await).contains("no certificate"));
    let crossed = peer(&other.issue(&Spec::svid("spiffe://example.org/web")));
    assert!(reason(renewed(Some(&crossed)).await).contains("unknown"));
    mount.call(Operation::Delete, "certs/web", json!({}), None).await.unwrap();
    assert!(reason(renewed(Some(&first)).await).contains("no role"));
}

#[tokio::test]
async fn settings_decide_about_binding_and_metadata() {
    let ca = Ca::root("ca");
    let mount = Mount::new(&ca);
    mount.write("certs/web", json!({"allowed_uri_sans": "spiffe://example.org/*"})).await.unwrap();
    mount
        .write("config", json!({"disable_binding": true, "enable_identity_alias_metadata": "true"}))
        .await
        .unwrap();
    let grant = mount.identify(&svid(&ca, "web")).await.unwrap();
    assert_eq!(grant.bound_certificate, None);
    assert_eq!(grant.alias_metadata["spiffe_id"], "spiffe://example.org/web");
    assert_eq!(mount.read("config").await.unwrap()["disable_binding"], true);
}

#[tokio::test]
async fn roles_that_would_let_in_anybody_or_mean_nothing_are_refused() {
    let ca = Ca::root("ca");
    let mount = Mount::new(&ca);
    let pem = ca.pem();
    for (role, field) in [
        (json!({}), "certificate"),
        (json!({"token_policies": "x"}), "certificate"),
        (json!({"certificate": "nonsense"}), "certificate"),
        (json!({"certificate": pem, "trust_domain": "corp"}), "trust_domain"),
        (json!({"allowed_dns_sans": [""]}), "allowed_dns_sans"),
        (json!({"allowed_dns_sans": [{}]}), "allowed_dns_sans"),
        (json!({"allowed_dns_sans": "a", "required_extensions": "x:y"}), "required_extensions"),
        (json!({"allowed_dns_sans": "a", "required_extensions": "1.2"}), "required_extensions"),
        (json!({"allowed_dns_sans": "a", "ocsp_enabled": true}), "ocsp_enabled"),
        (json!({"allowed_dns_sans": "a", "token_policies": "root"}), "token_policies"),
        (json!({"allowed_dns_sans": "a", "token_ttl": 9, "token_max_ttl": 8}), "token_ttl"),
    ] {
        assert_eq!(bad_field(mount.write("certs/x", role.clone()).await), field, "{role}");
    }
    assert!(matches!(mount.read("certs/x").await, Err(CoreError::NotFound)));
    for (list, field) in [
        (json!({}), "crl"),
        (json!({"crl": "nonsense"}), "crl"),
        (json!({"crl": "x", "url": "https://x.example"}), "url"),
        (json!({"crl": "x", "on_expiry": "shrug"}), "on_expiry"),
    ] {
        assert_eq!(bad_field(mount.write("crls/x", list.clone()).await), field, "{list}");
    }
}

#[tokio::test]
async fn roles_and_lists_are_read_back_as_they_were_written() {
    let ca = Ca::root("ca");
    let mount = Mount::new(&ca);
    mount.write("certs/web", json!({"allowed_dns_sans": "a,b", "token_ttl": "1h"})).await.unwrap();
    mount.write("certs/web", json!({"token_policies": ["p"]})).await.unwrap();
    let role = mount.read("certs/web").await.unwrap();
    assert_eq!(role["allowed_dns_sans"], json!(["a", "b"]));
    assert_eq!((&role["token_ttl"], &role["token_policies"]), (&json!(3600), &json!(["p"])));
    mount.write("crls/x", json!({"crl": crl_pem(&ca.crl(&[&[5]], NOW_SECS + 1))})).await.unwrap();
    let list = mount.read("crls/x").await.unwrap();
    assert_eq!((&list["serials"], &list["revoked_count"]), (&json!({"05": {}}), &json!(1)));
    for path in ["certs", "crls"] {
        let outcome = mount.call(Operation::List, path, json!({}), None).await.unwrap();
        let AuthOutcome::Respond(reply) = outcome else { panic!("a log-in") };
        assert_eq!(reply.data.unwrap()["keys"].as_array().unwrap().len(), 1);
    }
}

#[tokio::test]
async fn what_is_stored_is_in_force_after_a_restart_and_gone_when_unloaded() {
    let (ca, own) = (Ca::root("ca"), Ca::root("own"));
    let mount = Mount::new(&ca);
    mount.write("certs/own", json!({"certificate": own.pem()})).await.unwrap();
    let web = peer(&own.issue(&Spec::leaf().cn("web")));
    let later = Timestamp::from_secs(NOW.as_secs() + 1);
    mount.method.unload();
    assert!(mount.trust.accepts(web.leaf(), &[], later).is_err());
    let trust = Arc::new(TrustStore::new());
    let again = CertMethod::new(trust.clone(), Arc::new(NoCrlSource), &mount.mount.facts);
    // The handshake comes before the first request, so loading must not wait for one.
    again.load(&mount.ctx()).await.unwrap();
    trust.accepts(web.leaf(), &[], NOW).unwrap();
    let found = again.identify(&mount.ctx(), &web).await.unwrap();
    assert!(matches!(found, Recognition::Known(_)));
}
