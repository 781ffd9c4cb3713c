use rcgen::{ExtendedKeyUsagePurpose as Eku, KeyUsagePurpose as Usage};

use super::*;
use crate::core::spiffe::SpiffeIdError;
use crate::pki::{Ca, Spec};

fn peer(spec: &Spec) -> Result<VerifiedPeer, PeerError> {
    VerifiedPeer::from_handshake(&[Ca::root("root").issue(spec).der])
}

#[test]
fn facts_are_read_from_the_leaf() {
    let root = Ca::root("root");
    let sub = root.intermediate(&Spec::ca("sub").ou("CA"));
    let spec = Spec::leaf()
        .cn("web")
        .ou("payments")
        .dns("Web.example.org")
        .email("web@example.org")
        .uri("https://example.org/x")
        .serial(&[0x7f, 0x01])
        .between(1_700_000_000, 1_900_000_000)
        .text_extension(&[1, 2, 3, 4], "hello")
        .extension(&[1, 2, 3, 5], false, &[0x02, 1, 1]);
    let leaf = sub.issue(&spec);
    let peer = VerifiedPeer::from_handshake(&[leaf.der.clone(), sub.der.clone()]).unwrap();
    assert_eq!(peer.common_name(), Some("web"));
    assert_eq!(peer.organizational_units(), ["payments"]);
    assert_eq!(peer.dns_sans(), ["Web.example.org"]);
    assert_eq!(peer.email_sans(), ["web@example.org"]);
    assert_eq!(peer.uri_sans(), ["https://example.org/x"]);
    assert_eq!(peer.spiffe_verdict(), Ok(None));
    assert_eq!(peer.serial(), "7f:01");
    assert_eq!(peer.not_before(), Timestamp::from_secs(1_700_000_000));
    assert_eq!(peer.not_after(), Timestamp::from_secs(1_900_000_000));
    assert_eq!(peer.extension_text("1.2.3.4"), Some("hello"));
    assert_eq!(peer.extension_text("1.2.3.5"), None);
    assert_eq!(peer.extension("1.2.3.5"), Some([0x02, 1, 1].as_slice()));
    assert_eq!(peer.extension("1.2.3.6"), None);
    assert_eq!(peer.leaf(), &leaf.der);
    assert_eq!(peer.intermediates(), [sub.der]);
    assert_eq!(peer.x5t_s256().len(), 43);
    assert!(peer.authority_key_id().is_some_and(|id| id.contains(':')));
}

#[test]
fn names_that_could_break_a_log_line_make_no_peer() {
    for spec in [
        Spec::leaf().cn("a\nb"),
        Spec::leaf().cn(""),
        Spec::leaf().ou("\u{1b}[31m"),
        Spec::leaf().dns("a\0b"),
        Spec::leaf().uri("https://a/\r\nb"),
        Spec::leaf().email("\t"),
    ] {
        assert_eq!(peer(&spec).unwrap_err(), PeerError::UnprintableName);
    }
    let many = (0..257).fold(Spec::leaf(), |spec, n| spec.dns(&format!("h{n}")));
    assert_eq!(peer(&many).unwrap_err(), PeerError::TooManyNames);
    assert_eq!(VerifiedPeer::from_handshake(&[]).unwrap_err(), PeerError::NoCertificate);
}

#[test]
fn x1_to_x4_leaves_keep_every_svid_rule() {
    const ID: &str = "spiffe://example.org/web";
    const KEY_USAGE: [u64; 4] = [2, 5, 29, 15];
    for (spec, error) in [
        (Spec::svid(ID).uri("spiffe://example.org/other"), SvidError::SeveralUriNames),
        (Spec::svid(ID).uri("https://example.org/"), SvidError::SeveralUriNames),
        (Spec::svid("https://example.org/").uri(ID), SvidError::SeveralUriNames),
        (Spec::svid("spiffe://example.org"), SvidError::RootPath),
        (Spec::svid("spiffe://example.org/"), SvidError::Id(SpiffeIdError::PathSegment)),
        (Spec::svid("SPIFFE://example.org/web"), SvidError::Id(SpiffeIdError::Scheme)),
        (Spec::svid("spiffe:example.org/web"), SvidError::Id(SpiffeIdError::Scheme)),
        (Spec::svid(ID).authority(true), SvidError::IsCa),
        (Spec::svid(ID).key_usage(&[]), SvidError::KeyUsageMissing),
        (
            Spec::svid(ID).key_usage(&[]).extension(&KEY_USAGE, false, &[3, 2, 7, 0x80]),
            SvidError::KeyUsageNotCritical,
        ),
        (Spec::svid(ID).key_usage(&[Usage::KeyEncipherment]), SvidError::NoDigitalSignature),
        (
            Spec::svid(ID).key_usage(&[Usage::DigitalSignature, Usage::KeyCertSign]),
            SvidError::SigningKeyUsage,
        ),
        (
            Spec::svid(ID).key_usage(&[Usage::DigitalSignature, Usage::CrlSign]),
            SvidError::SigningKeyUsage,
        ),
        (Spec::svid(ID).eku(&[Eku::ClientAuth]), SvidError::ExtendedKeyUsage),
        (Spec::svid(ID).eku(&[Eku::ServerAuth]), SvidError::ExtendedKeyUsage),
    ] {
        let peer = peer(&spec).unwrap();
        assert_eq!(peer.spiffe_verdict(), Err(error));
        assert_eq!(peer.spiffe_id(), None);
    }
    for spec in [
        Spec::svid(ID),
        Spec::svid(ID).eku(&[]),
        Spec::svid(ID).dns("a.example.org").dns("b.example.org"),
        Spec::leaf().uri(ID),
    ] {
        let peer = peer(&spec).unwrap();
        assert_eq!(peer.spiffe_id().map(SpiffeId::as_str), Some(ID));
    }
}

#[test]
fn x4_an_empty_subject_needs_critical_names() {
    let mut san = vec![0x30, 26, 0x86, 24];
    san.extend_from_slice(b"spiffe://example.org/web");
    let spec = |critical| Spec::leaf().extension(&[2, 5, 29, 17], critical, &san);
    assert_eq!(peer(&spec(false)).unwrap().spiffe_verdict(), Err(SvidError::NameNotCritical));
    assert!(peer(&spec(true)).unwrap().spiffe_id().is_some());
}

#[test]
fn x5_signing_certificates_have_no_path() {
    let root = Ca::root("root");
    let check = |spec: &Spec| {
        let sub = root.intermediate(spec);
        let leaf = sub.issue(&Spec::svid("spiffe://example.org/web"));
        let peer = VerifiedPeer::from_handshake(&[leaf.der, sub.der]).unwrap();
        peer.spiffe_verdict().map(|_| ())
    };
    assert_eq!(check(&Spec::ca("sub")), Ok(()));
    assert_eq!(check(&Spec::ca("sub").uri("spiffe://example.org")), Ok(()));
    assert_eq!(check(&Spec::ca("sub").uri("spiffe://example.org/ca")), Err(SvidError::IssuerPath));
}
