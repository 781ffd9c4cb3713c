mod chains;

use super::*;
use crate::crypto::x509::crl::{Crl, ExpiredCrl, UnknownStatus};
use crate::pki::{Ca, Issued, NOT_BEFORE_SECS, Spec};

const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);
const NOW_SECS: u64 = 1_800_000_000;

fn anchors(ca: &Ca) -> Anchors {
    Anchors::from_certificates(vec![ca.der.clone()]).unwrap()
}

fn bundle(name: &str, domain: Option<&str>, ca: &Ca) -> TrustBundle {
    let domain = domain.map(|domain| TrustDomain::parse(domain).unwrap());
    TrustBundle::new(name, domain, anchors(ca), Crls::none()).unwrap()
}

fn lists(ca: &Ca, serials: &[&[u8]]) -> Crls {
    let mut crls = Crls::new(UnknownStatus::Accept);
    let list = Crl::from_der(&ca.crl(serials, NOW_SECS + 100)).unwrap();
    crls.push(Arc::new(list), ExpiredCrl::Refuse);
    crls
}

fn peer(issued: &Issued) -> VerifiedPeer {
    VerifiedPeer::from_handshake(std::slice::from_ref(&issued.der)).unwrap()
}

fn role_of(name: &str, ca: &Ca) -> RoleTrust {
    RoleTrust { role: name.into(), anchors: anchors(ca), pinned: Vec::new() }
}

fn refused(error: ChainError) -> Result<Arc<TrustVerdict>, TrustError> {
    Err(TrustError::Chain(error))
}

#[test]
fn x6_svids_are_judged_by_the_bundle_of_their_own_domain() {
    let (a, b, plain) = (Ca::root("a"), Ca::root("b"), Ca::root("plain"));
    let store = TrustStore::new();
    store.set_bundles(vec![
        bundle("a", Some("a.example"), &a),
        bundle("b", Some("b.example"), &b),
        bundle("plain", None, &plain),
    ]);
    let by = |ca: &Ca, uri| store.judge(&peer(&ca.issue(&Spec::svid(uri))), NOW);
    assert_eq!(by(&a, "spiffe://a.example/x").unwrap().bundles().collect::<Vec<_>>(), ["a"]);
    assert_eq!(by(&b, "spiffe://a.example/x"), refused(ChainError::UnknownIssuer));
    assert_eq!(by(&plain, "spiffe://a.example/x"), refused(ChainError::UnknownIssuer));
    assert_eq!(by(&a, "spiffe://c.example/x"), Err(TrustError::TrustDomain));
    // The handshake only asks for possession and for some path.
    let crossed = b.issue(&Spec::svid("spiffe://a.example/x"));
    assert_eq!(store.accepts(&crossed.der, &[], NOW), Ok(()));
    // Certificates outside SPIFFE may come from any bundle.
    let web = by_cn(&store, &a).unwrap();
    assert_eq!(web.bundles().collect::<Vec<_>>(), ["a"]);
    assert!(by_cn(&store, &plain).unwrap().by_configuration());
}

fn by_cn(store: &TrustStore, ca: &Ca) -> Result<Arc<TrustVerdict>, TrustError> {
    store.judge(&peer(&ca.issue(&Spec::leaf().cn("web"))), NOW)
}

#[test]
fn broken_svids_are_refused_even_when_a_role_pins_them() {
    let ca = Ca::root("a");
    let leaf = ca.issue(&Spec::svid("spiffe://a.example/x").uri("spiffe://a.example/y"));
    let store = TrustStore::new();
    store.set_bundles(vec![bundle("a", Some("a.example"), &ca)]);
    let role =
        RoleTrust { role: "r".into(), anchors: anchors(&ca), pinned: vec![leaf.der.clone()] };
    store.set_role_anchors("cert/", vec![role]);
    assert_eq!(store.judge(&peer(&leaf), NOW), Err(SvidError::SeveralUriNames.into()));
}

#[test]
fn changes_reach_a_peer_that_was_judged_before() {
    let ca = Ca::root("a");
    let leaf = ca.issue(&Spec::leaf().cn("web").serial(&[9]));
    let store = TrustStore::new();
    let peer = peer(&leaf);
    assert_eq!(store.judge(&peer, NOW), refused(ChainError::UnknownIssuer));
    let before = store.generation();
    store.set_bundles(vec![bundle("a", None, &ca)]);
    assert!(store.generation() > before);
    assert!(store.judge(&peer, NOW).is_ok());
    store.set_role_crls("cert/", lists(&ca, &[&[9]]));
    assert_eq!(store.judge(&peer, NOW), refused(ChainError::Revoked));
    assert_eq!(store.accepts(&leaf.der, &[], NOW), Err(ChainError::Revoked));
    store.clear_roles();
    assert!(store.judge(&peer, NOW).is_ok());
    store.set_bundles(Vec::new());
    assert_eq!(store.judge(&peer, NOW), refused(ChainError::UnknownIssuer));
}

#[test]
fn a_chain_that_was_verified_once_is_not_trusted_for_ever() {
    let ca = Ca::root("a");
    let spec = Spec::leaf().cn("web").serial(&[9]).between(NOT_BEFORE_SECS, NOW_SECS + 10);
    let (leaf, other) = (ca.issue(&spec), Ca::root("a").issue(&spec));
    let store = TrustStore::new();
    store.set_bundles(vec![bundle("a", None, &ca)]);
    let accepts =
        |issued: &Issued, millis: i64| store.accepts(&issued.der, &[], NOW.plus_millis(millis));
    assert_eq!(accepts(&leaf, 0), Ok(()));
    // The same names and number under another key are another chain.
    assert!(accepts(&other, 0).is_err());
    assert_eq!(accepts(&leaf, 10_000), Ok(()));
    assert_eq!(accepts(&leaf, 11_000), Err(ChainError::Expired));
    let before_birth = (NOT_BEFORE_SECS as i64 - 1) * 1000;
    assert_eq!(
        store.accepts(&leaf.der, &[], Timestamp::from_secs(0).plus_millis(before_birth)),
        Err(ChainError::NotYetValid)
    );
    // What one source vouched for is nothing to another that comes to stand in its place.
    store.set_bundles(vec![bundle("b", None, &Ca::root("b"))]);
    assert_eq!(accepts(&leaf, 0), Err(ChainError::UnknownIssuer));
    store.set_bundles(vec![bundle("b", None, &Ca::root("b")), bundle("a", None, &ca)]);
    assert_eq!(accepts(&leaf, 0), Ok(()));
    store.set_role_crls("cert/", lists(&ca, &[&[9]]));
    assert_eq!(accepts(&leaf, 0), Err(ChainError::Revoked));
}

#[test]
fn sources_with_one_ca_are_told_apart_by_what_they_ask() {
    let ca = Ca::root("a");
    let strict =
        TrustBundle::new("strict", None, anchors(&ca), Crls::new(UnknownStatus::Refuse)).unwrap();
    let store = TrustStore::new();
    for bundles in [
        vec![bundle("lenient", None, &ca), strict.clone()],
        vec![strict.clone(), bundle("lenient", None, &ca)],
        vec![bundle("other", None, &Ca::root("a")), strict, bundle("lenient", None, &ca)],
    ] {
        store.set_bundles(bundles);
        // Of the lenient kind as well, and of another key with the same name.
        store.set_role_anchors(
            "cert/",
            vec![role_of("same", &ca), role_of("other", &Ca::root("a"))],
        );
        for _ in 0..2 {
            let verdict = by_cn(&store, &ca).unwrap();
            assert_eq!(verdict.bundles().collect::<Vec<_>>(), ["lenient"]);
            assert!(verdict.by_role("cert/", "same") && !verdict.by_role("cert/", "other"));
        }
    }
}

#[test]
fn time_alone_ends_a_kept_judgement() {
    let ca = Ca::root("a");
    let store = TrustStore::new();
    store.set_bundles(vec![bundle("a", None, &ca)]);
    let peer = peer(&ca.issue(&Spec::leaf().cn("web").between(NOT_BEFORE_SECS, NOW_SECS + 10)));
    let after = |secs: i64| store.judge(&peer, NOW.plus_millis(secs * 1000));
    assert!(after(0).is_ok());
    assert!(after(10).is_ok());
    assert_eq!(after(11), refused(ChainError::Expired));
    assert!(after(0).is_ok(), "a clock set back is looked at again");
    // A list that goes stale.
    store.set_role_crls("cert/", lists(&ca, &[]));
    let leaf = ca.issue(&Spec::leaf().cn("web"));
    let peer = super::VerifiedPeer::from_handshake(&[leaf.der]).unwrap();
    assert!(store.judge(&peer, NOW.plus_millis(99_999)).is_ok());
    let stale = store.judge(&peer, NOW.plus_millis(100_000));
    assert_eq!(stale, refused(ChainError::CrlExpired));
}

#[test]
fn roles_trust_their_own_ca_and_their_pinned_certificates() {
    let (ca, other) = (Ca::root("role"), Ca::root("other"));
    let pinned = other.issue(&Spec::leaf().cn("pinned").serial(&[3]));
    // The same names and number from the same authority, and not the same certificate.
    let twin = other.issue(&Spec::leaf().cn("pinned").serial(&[3]));
    let store = TrustStore::new();
    store.set_role_anchors(
        "cert/",
        vec![
            RoleTrust { role: "ca".into(), anchors: anchors(&ca), pinned: Vec::new() },
            RoleTrust {
                role: "pin".into(),
                anchors: Anchors::default(),
                pinned: vec![pinned.der.clone()],
            },
        ],
    );
    let by_ca = by_cn(&store, &ca).unwrap();
    assert!(by_ca.by_role("cert/", "ca") && !by_ca.by_role("cert/", "pin"));
    assert!(!by_ca.by_role("other/", "ca") && !by_ca.by_configuration());
    assert!(store.judge(&peer(&pinned), NOW).unwrap().by_role("cert/", "pin"));
    assert_eq!(store.accepts(&pinned.der, &[], NOW), Ok(()));
    assert_eq!(store.accepts(&twin.der, &[], NOW), Err(ChainError::UnknownIssuer));
    assert_eq!(store.judge(&peer(&twin), NOW), refused(ChainError::UnknownIssuer));
    store.set_role_crls("cert/", lists(&other, &[&[3]]));
    assert_eq!(store.judge(&peer(&pinned), NOW), refused(ChainError::Revoked));
    store.set_role_anchors("cert/", Vec::new());
    assert_eq!(by_cn(&store, &ca), refused(ChainError::UnknownIssuer));
}

#[test]
fn a_certificate_revoked_for_a_bundle_is_not_accepted_by_way_of_a_role() {
    let ca = Ca::root("a");
    let leaf = ca.issue(&Spec::leaf().cn("web").serial(&[9]));
    let store = TrustStore::new();
    let revoking = TrustBundle::new("a", None, anchors(&ca), lists(&ca, &[&[9]])).unwrap();
    store.set_bundles(vec![revoking]);
    let role = RoleTrust { role: "r".into(), anchors: anchors(&ca), pinned: Vec::new() };
    store.set_role_anchors("cert/", vec![role]);
    assert_eq!(store.accepts(&leaf.der, &[], NOW), Err(ChainError::Revoked));
    assert_eq!(store.judge(&peer(&leaf), NOW), refused(ChainError::Revoked));
}

#[test]
fn x5_bundles_of_trust_domains_hold_signing_certificates_only() {
    let domain = || Some(TrustDomain::parse("a.example").unwrap());
    let with_path = Ca::root_from(&Spec::ca("a").uri("spiffe://a.example/ca"));
    let no_usage = Ca::root_from(&Spec::ca("a").key_usage(&[]));
    for ca in [&with_path, &no_usage] {
        let refused = TrustBundle::new("a", domain(), anchors(ca), Crls::none());
        assert_eq!(refused.unwrap_err(), BundleError::Anchor { position: 1 });
        assert!(TrustBundle::new("a", None, anchors(ca), Crls::none()).is_ok());
    }
    let good = Ca::root_from(&Spec::ca("a").uri("spiffe://a.example"));
    assert!(TrustBundle::new("a", domain(), anchors(&good), Crls::none()).is_ok());
}
