use std::sync::Arc;

use rcgen::{ExtendedKeyUsagePurpose as Eku, KeyUsagePurpose as Usage};

use super::crl::{Crl, CrlError, ExpiredCrl, UnknownStatus};
use super::*;
use crate::pki::{Ca, Issued, NOT_AFTER_SECS, NOT_BEFORE_SECS, Spec};

const NOW_SECS: u64 = 1_800_000_000;

fn at(secs: u64) -> Timestamp {
    Timestamp::from_secs(i64::try_from(secs).unwrap())
}

fn anchors(cas: &[&Ca]) -> Anchors {
    Anchors::from_certificates(cas.iter().map(|ca| ca.der.clone()).collect()).unwrap()
}

fn crls(lists: &[Vec<u8>], expired: ExpiredCrl, unknown: UnknownStatus) -> Crls {
    let mut crls = Crls::new(unknown);
    for der in lists {
        crls.push(Arc::new(Crl::from_der(der).unwrap()), expired);
    }
    crls
}

fn verify(
    leaf: &Issued,
    chain: &[&Ca],
    roots: &[&Ca],
    crls: &Crls,
) -> Result<Timestamp, ChainError> {
    let intermediates: Vec<_> = chain.iter().map(|ca| ca.der.clone()).collect();
    verify_chain(&leaf.der, &intermediates, &anchors(roots), crls, at(NOW_SECS))
        .map(|verified| verified.until)
}

#[test]
fn a_good_chain_is_valid_until_its_first_certificate_expires() {
    let root = Ca::root("root");
    let sub = root.intermediate(&Spec::ca("sub").between(NOT_BEFORE_SECS, NOW_SECS + 50));
    let leaf = sub.issue(&Spec::leaf().cn("a"));
    assert_eq!(verify(&leaf, &[&sub], &[&root], &Crls::none()), Ok(at(NOW_SECS + 51)));
    let leaf = sub.issue(&Spec::leaf().cn("a").between(NOT_BEFORE_SECS, NOW_SECS));
    assert_eq!(verify(&leaf, &[&sub], &[&root], &Crls::none()), Ok(at(NOW_SECS + 1)));
}

#[test]
fn leaves_are_judged_by_their_own_extensions() {
    let root = Ca::root("root");
    for (spec, outcome) in [
        (Spec::leaf(), Ok(())),
        (Spec::leaf().eku(&[]), Ok(())),
        (Spec::leaf().key_usage(&[]), Ok(())),
        (Spec::leaf().eku(&[Eku::ServerAuth]), Err(ChainError::ExtendedKeyUsage)),
        (Spec::leaf().eku(&[Eku::Any]), Err(ChainError::ExtendedKeyUsage)),
        (Spec::leaf().authority(true), Err(ChainError::IsCa)),
        (Spec::leaf().key_usage(&[Usage::KeyEncipherment]), Err(ChainError::KeyUsage)),
        (
            Spec::leaf().key_usage(&[Usage::DigitalSignature, Usage::KeyCertSign]),
            Err(ChainError::KeyUsage),
        ),
        (Spec::leaf().between(NOT_BEFORE_SECS, NOW_SECS - 1), Err(ChainError::Expired)),
        (Spec::leaf().between(NOW_SECS + 1, NOT_AFTER_SECS), Err(ChainError::NotYetValid)),
        (Spec::leaf().between(NOW_SECS, NOW_SECS), Ok(())),
        (Spec::leaf().extension(&[1, 2, 3], true, &[5, 0]), Err(ChainError::CriticalExtension)),
        (Spec::leaf().extension(&[1, 2, 3], false, &[5, 0]), Ok(())),
        // A second key usage, and a basicConstraints that is no DER.
        (
            Spec::leaf().extension(&[2, 5, 29, 15], true, &[3, 2, 7, 128]),
            Err(ChainError::Malformed),
        ),
        (Spec::leaf().extension(&[2, 5, 29, 19], true, &[1, 1]), Err(ChainError::Malformed)),
    ] {
        let leaf = root.issue(&spec);
        let subject = X509Certificate::from_der(&leaf.der).unwrap().1;
        assert_eq!(
            verify(&leaf, &[], &[&root], &Crls::none()).map(|_| ()),
            outcome,
            "{:?}",
            subject.extensions()
        );
    }
}

#[test]
fn issuers_are_judged_too() {
    let root = Ca::root("root");
    let stranger = Ca::root("root");
    let leaf = stranger.issue(&Spec::leaf());
    assert_eq!(verify(&leaf, &[], &[&root], &Crls::none()), Err(ChainError::BadSignature));
    let other = Ca::root("other");
    assert_eq!(
        verify(&other.issue(&Spec::leaf()), &[&other], &[&root], &Crls::none()),
        Err(ChainError::UnknownIssuer)
    );
    for (spec, error) in [
        (Spec::ca("sub").authority(false), ChainError::IssuerNotCa),
        (Spec::ca("sub").key_usage(&[Usage::CrlSign]), ChainError::KeyUsage),
        (Spec::ca("sub").between(NOT_BEFORE_SECS, NOW_SECS - 1), ChainError::Expired),
        (Spec::ca("sub").between(NOW_SECS + 1, NOT_AFTER_SECS), ChainError::NotYetValid),
    ] {
        let sub = root.intermediate(&spec);
        let leaf = sub.issue(&Spec::leaf());
        assert_eq!(verify(&leaf, &[&sub], &[&root], &Crls::none()), Err(error));
    }
}

#[test]
fn an_expired_anchor_anchors_nothing() {
    let root = Ca::root_from(&Spec::ca("root").between(NOT_BEFORE_SECS, NOW_SECS - 1));
    let leaf = root.issue(&Spec::leaf());
    assert_eq!(verify(&leaf, &[], &[&root], &Crls::none()), Err(ChainError::Expired));
}

#[test]
fn chains_and_certificates_are_bounded() {
    let root = Ca::root("root");
    let leaf = root.issue(&Spec::leaf());
    let subs: Vec<Ca> = (0..8).map(|_| root.intermediate(&Spec::ca("sub"))).collect();
    let most: Vec<&Ca> = subs.iter().take(7).collect();
    assert!(verify(&leaf, &most, &[&root], &Crls::none()).is_ok());
    let over: Vec<&Ca> = subs.iter().collect();
    assert_eq!(verify(&leaf, &over, &[&root], &Crls::none()), Err(ChainError::TooLong));
    let fat = root.issue(&Spec::leaf().extension(&[1, 2, 3], false, &[0; CERTIFICATE_BYTES_MAX]));
    assert_eq!(verify(&fat, &[], &[&root], &Crls::none()), Err(ChainError::TooLarge));
}

#[test]
fn leaves_and_issuers_are_revoked_by_their_issuers_lists_alone() {
    let root = Ca::root("root");
    let sub = root.intermediate(&Spec::ca("sub").serial(&[7]));
    let leaf = sub.issue(&Spec::leaf().serial(&[0x7f, 1]));
    let check = |lists: &[Vec<u8>]| {
        let crls = crls(lists, ExpiredCrl::Refuse, UnknownStatus::Accept);
        verify(&leaf, &[&sub], &[&root], &crls)
    };
    let due = NOW_SECS + 1000;
    assert_eq!(check(&[sub.crl(&[&[9]], due), root.crl(&[], due + 9)]), Ok(at(due)));
    assert_eq!(check(&[sub.crl(&[&[0x7f, 1]], due)]), Err(ChainError::Revoked));
    assert_eq!(check(&[root.crl(&[&[7]], due)]), Err(ChainError::Revoked));
    // The leaf's serial number in its grandparent's list means another certificate.
    assert!(check(&[root.crl(&[&[0x7f, 1]], due)]).is_ok());
    // The first list of an issuer does not hide the second, in either order.
    let (old, new) = (sub.crl(&[], due), sub.crl(&[&[0x7f, 1]], due));
    assert_eq!(check(&[old.clone(), new.clone()]), Err(ChainError::Revoked));
    assert_eq!(check(&[new, old]), Err(ChainError::Revoked));
    // A list by an authority that only shares the name revokes nothing.
    let namesake = Ca::root("sub");
    assert!(check(&[namesake.crl(&[&[0x7f, 1]], due)]).is_ok());
}

#[test]
fn stale_and_missing_lists_mean_what_is_configured() {
    let root = Ca::root("root");
    let leaf = root.issue(&Spec::leaf().serial(&[5]));
    let stale = root.crl(&[], NOW_SECS);
    let stale_listing = root.crl(&[&[5]], NOW_SECS);
    let current = root.crl(&[], NOW_SECS + 1);
    let check = |lists: &[&Vec<u8>], expired, unknown| {
        let lists: Vec<_> = lists.iter().map(|list| (*list).clone()).collect();
        verify(&leaf, &[], &[&root], &crls(&lists, expired, unknown)).map(|_| ())
    };
    use ExpiredCrl::{Accept, Refuse};
    let (any, demanded) = (UnknownStatus::Accept, UnknownStatus::Refuse);
    assert_eq!(check(&[&stale], Refuse, any), Err(ChainError::CrlExpired));
    assert_eq!(check(&[&stale], Accept, any), Ok(()));
    assert_eq!(check(&[&stale], Accept, demanded), Err(ChainError::RevocationUnknown));
    assert_eq!(check(&[&stale_listing], Accept, any), Err(ChainError::Revoked));
    assert_eq!(check(&[&stale, &current], Refuse, demanded), Ok(()));
    assert_eq!(check(&[], Refuse, any), Ok(()));
    assert_eq!(check(&[], Refuse, demanded), Err(ChainError::RevocationUnknown));
}

#[test]
fn lists_that_cannot_be_judged_are_refused_when_read() {
    let root = Ca::root("root");
    let good = root.crl(&[&[1], &[2]], NOW_SECS + 1);
    assert_eq!(Crl::from_der(&good).unwrap().revoked_count(), 2);
    let mut trailing = good.clone();
    trailing.push(0);
    let truncated = &good[..good.len() - 1];
    for (der, error) in [
        (trailing.as_slice(), CrlError::Malformed),
        (truncated, CrlError::Malformed),
        (&[], CrlError::Malformed),
        (&vec![0; crl::CRL_BYTES_MAX + 1], CrlError::TooLarge),
    ] {
        assert_eq!(Crl::from_der(der).unwrap_err(), error);
    }
    assert_eq!(Crl::from_file_bytes(b"hello").unwrap_err(), CrlError::Empty);
    assert_eq!(Crl::from_file_bytes(&good).unwrap().len(), 1);
    let pem = format!(
        "-----BEGIN X509 CRL-----\n{}\n-----END X509 CRL-----\n",
        data_encoding::BASE64.encode(&good)
    );
    assert_eq!(Crl::from_file_bytes(pem.repeat(2).as_bytes()).unwrap().len(), 2);
    // The identifier of the CRL number turned into the delta indicator's.
    let marker = [0x06, 0x03, 0x55, 0x1d, 0x14];
    let position = good.windows(5).position(|window| window == marker).unwrap();
    let mut delta = good.clone();
    delta[position + 4] = 0x1b;
    assert_eq!(Crl::from_der(&delta).unwrap_err(), CrlError::Delta);
}

#[test]
fn anchors_must_be_authorities() {
    let root = Ca::root("root");
    let leaf = root.issue(&Spec::leaf());
    let no_sign = Ca::root_from(&Spec::ca("x").key_usage(&[Usage::CrlSign]));
    for (der, error) in [
        (leaf.der.clone(), AnchorError::NotCa { position: 2 }),
        (no_sign.der.clone(), AnchorError::KeyUsage { position: 2 }),
        (vec![1, 2, 3].into(), AnchorError::Malformed { position: 2 }),
    ] {
        let outcome = Anchors::from_certificates(vec![root.der.clone(), der]);
        assert_eq!(outcome.unwrap_err(), error);
    }
    let empty = Anchors::from_pem(b"").unwrap_err();
    assert_eq!(empty, AnchorError::Pem(PemError::NoCertificate));
    let both = format!("{}{}", root.pem(), leaf.key_pem);
    assert_eq!(Anchors::from_pem(both.as_bytes()).unwrap().certificates().len(), 1);
    assert_eq!(private_key_from_pem(root.pem().as_bytes()).unwrap_err(), PemError::NoKey);
    assert!(private_key_from_pem(both.as_bytes()).is_ok());
}
