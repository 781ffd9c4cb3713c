//! Chains in the form of x509-limbo, judged as the listener judges them: the suite itself where
//! `LEASEHOLD_LIMBO` names it, and always cases of our own after its ideas.
//!
//! What the suite comes to, and each case in which we disagree with it, is recorded in
//! `docs/assurance.md`; the test holds the record against what it sees.

use std::collections::BTreeMap;

use rcgen::{ExtendedKeyUsagePurpose as Eku, KeyUsagePurpose as Usage};
use serde::Deserialize;

use super::*;
use crate::crypto::x509::{Purpose, certificates_from_pem, verify_chain_for};

const RECORD: &str = include_str!("../../../../docs/assurance.md");

#[derive(Deserialize)]
struct Suite {
    testcases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    id: String,
    features: Vec<String>,
    validation_kind: Kind,
    trusted_certs: Vec<String>,
    untrusted_intermediates: Vec<String>,
    peer_certificate: String,
    validation_time: Option<String>,
    expected_result: Expected,
    #[serde(default)]
    crls: Vec<String>,
}

#[derive(Clone, Copy, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "UPPERCASE")]
enum Kind {
    Client,
    Server,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "UPPERCASE")]
enum Expected {
    Success,
    Failure,
}

impl Case {
    /// Whether it is about something else than what a listener decides.
    fn is_left_out(&self) -> bool {
        // Another suite inside of this one, and limits that are parameters of a validator: here
        // they are fixed.
        self.id.starts_with("bettertls::") || self.features.iter().any(|f| f == "max-chain-depth")
    }

    fn now(&self) -> Timestamp {
        let Some(text) = &self.validation_time else { return NOW };
        let time = chrono::DateTime::parse_from_rfc3339(text).unwrap();
        Timestamp::from_secs(time.timestamp())
    }

    /// Judges the chain, from the files of the configuration to the peer. `Err` says why not.
    fn outcome(&self) -> Result<(), String> {
        let anchors = Anchors::from_pem(self.trusted_certs.concat().as_bytes());
        let anchors = anchors.map_err(|error| format!("anchors: {error}"))?;
        let mut crls = Crls::new(if self.crls.is_empty() {
            UnknownStatus::Accept
        } else {
            UnknownStatus::Refuse
        });
        for pem in &self.crls {
            let lists = Crl::from_file_bytes(pem.as_bytes());
            for list in lists.map_err(|error| format!("list: {error}"))? {
                crls.push(Arc::new(list), ExpiredCrl::Refuse);
            }
        }
        let sent = format!("{}\n{}", self.peer_certificate, self.untrusted_intermediates.concat());
        let chain = certificates_from_pem(sent.as_bytes()).map_err(|error| error.to_string())?;
        let (leaf, intermediates) = chain.split_first().unwrap();
        let purpose = match self.validation_kind {
            Kind::Client => Purpose::Client,
            Kind::Server => Purpose::Server,
        };
        verify_chain_for(purpose, leaf, intermediates, &anchors, &crls, self.now())
            .map_err(|error| error.to_string())?;
        VerifiedPeer::from_handshake(&chain).map_err(|error| format!("names: {error}"))?;
        Ok(())
    }
}

/// The cases of the record in which we disagree, each with what the suite expects.
fn recorded_deviations() -> BTreeMap<String, String> {
    let rows = RECORD.lines().filter_map(|line| line.strip_prefix("| `"));
    let rows = rows.filter_map(|row| row.split_once("` | "));
    let cases = rows.filter(|(id, _)| id.contains("::"));
    cases.map(|(id, rest)| (id.to_owned(), rest.split(" |").next().unwrap().to_owned())).collect()
}

#[test]
fn the_suite_of_limbo_comes_to_what_is_recorded() {
    let mut deviations = recorded_deviations();
    assert!(!deviations.is_empty(), "the record lists deviations");
    let Some(path) = std::env::var_os("LEASEHOLD_LIMBO") else {
        // Without the suite, that the record can be read is all that can be said.
        return;
    };
    let suite: Suite = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let (mut run, mut left_out, mut wrong) = (0, 0, Vec::new());
    for case in &suite.testcases {
        if case.is_left_out() {
            left_out += 1;
            continue;
        }
        run += 1;
        let outcome = case.outcome();
        let agrees = outcome.is_ok() == (case.expected_result == Expected::Success);
        let recorded = deviations.remove(&case.id);
        if agrees == recorded.is_some() {
            wrong.push(format!("{} {:?} {outcome:?}", case.id, case.expected_result));
        }
    }
    assert!(wrong.is_empty(), "not as recorded:\n{}", wrong.join("\n"));
    assert!(deviations.is_empty(), "recorded, and not in the suite: {deviations:?}");
    let recorded = recorded_deviations().len();
    let row = format!("| {run} | {} | {recorded} |", run - recorded);
    assert!(RECORD.lines().any(|line| line == row), "{row} (and {left_out} left out)");
}

/// A GeneralSubtree (RFC 5280 §4.2.1.10): the tag of a name, and its content.
fn subtree(tag: u8, name: &[u8]) -> Vec<u8> {
    let name = der(0x80 | tag, name);
    der(0x30, &name)
}

fn der(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut all = vec![tag, u8::try_from(content.len()).unwrap()];
    all.extend_from_slice(content);
    all
}

const PERMITTED: u8 = 0xa0;
const EXCLUDED: u8 = 0xa1;
const EMAIL: u8 = 1;
const DNS: u8 = 2;
const URI: u8 = 6;
const ADDRESS: u8 = 7;

/// An issuer below `root` whose names are constrained.
fn constrained(root: &Ca, list: u8, tag: u8, name: &[u8]) -> Ca {
    let constraints = der(0x30, &der(list, &subtree(tag, name)));
    root.intermediate(&Spec::ca("sub").extension(&[2, 5, 29, 30], true, &constraints))
}

/// Judges one of our own as those of the suite are judged.
fn judged(leaf: &Issued, intermediates: &[&Ca], root: &Ca) -> Result<(), String> {
    let case = Case {
        id: String::new(),
        features: Vec::new(),
        validation_kind: Kind::Client,
        trusted_certs: vec![root.pem()],
        untrusted_intermediates: intermediates.iter().map(|ca| ca.pem()).collect(),
        peer_certificate: leaf.pem(),
        validation_time: Some("2027-01-15T08:00:00Z".to_owned()),
        expected_result: Expected::Success,
        crls: Vec::new(),
    };
    case.outcome()
}

fn assert_refused(outcome: Result<(), String>, error: ChainError, what: &str) {
    assert_eq!(outcome, Err(error.to_string()), "{what}");
}

#[test]
fn names_outside_of_what_an_issuer_may_certify_are_refused() {
    let root = Ca::root("root");
    let permitted = constrained(&root, PERMITTED, DNS, b"a.example");
    let excluded = constrained(&root, EXCLUDED, DNS, b"a.example");
    for (names, inside) in [
        (&["a.example"][..], true),
        (&["x.y.a.example"], true),
        (&["A.Example"], true),
        (&["b.example"], false),
        (&["aa.example"], false),
        (&["a.example.b"], false),
    ] {
        let spec = names.iter().fold(Spec::leaf(), |spec, name| spec.dns(name));
        for (sub, good) in [(&permitted, inside), (&excluded, !inside)] {
            let outcome = judged(&sub.issue(&spec), &[sub], &root);
            if good {
                assert_eq!(outcome, Ok(()), "{names:?}");
            } else {
                assert_refused(outcome, ChainError::NameConstraint, "outside");
            }
        }
    }
    // Every name counts, not one of them; those of another kind are not constrained.
    for sub in [&permitted, &excluded] {
        let both = sub.issue(&Spec::leaf().dns("a.example").dns("b.example"));
        assert_refused(judged(&both, &[sub], &root), ChainError::NameConstraint, "one of two");
        let other = sub.issue(&Spec::leaf().uri("https://elsewhere.example/x"));
        assert_eq!(judged(&other, &[sub], &root), Ok(()));
    }
    // Below a constrained issuer, all are.
    let below = permitted.intermediate(&Spec::ca("below"));
    let leaf = below.issue(&Spec::leaf().dns("b.example"));
    let outcome = judged(&leaf, &[&below, &permitted], &root);
    assert_refused(outcome, ChainError::NameConstraint, "two below");
}

#[test]
fn constraints_that_are_not_understood_refuse_what_they_may_be_about() {
    let root = Ca::root("root");
    for list in [PERMITTED, EXCLUDED] {
        // On e-mail addresses: not understood, so that no address is certified by this issuer.
        let sub = constrained(&root, list, EMAIL, b"a.example");
        for address in ["me@a.example", "me@b.example"] {
            let leaf = sub.issue(&Spec::leaf().email(address));
            assert_refused(judged(&leaf, &[&sub], &root), ChainError::NameConstraint, address);
        }
        assert_eq!(judged(&sub.issue(&Spec::leaf().dns("a.example")), &[&sub], &root), Ok(()));
    }
    // By a mask with a hole in it.
    let sub = constrained(&root, PERMITTED, ADDRESS, &[10, 0, 0, 0, 255, 0, 255, 0]);
    let address = [0x30, 6, 0x87, 4, 10, 0, 0, 1];
    let leaf = sub.issue(&Spec::leaf().extension(&[2, 5, 29, 17], false, &address));
    assert_refused(judged(&leaf, &[&sub], &root), ChainError::NameConstraint, "mask");
}

#[test]
fn constraints_on_identities_of_workloads_are_never_passed_over() {
    let root = Ca::root("root");
    let leaf = Spec::svid("spiffe://a.example/x");
    for list in [PERMITTED, EXCLUDED] {
        for domain in [&b"a.example"[..], b"b.example"] {
            let sub = constrained(&root, list, URI, domain);
            let outcome = judged(&sub.issue(&leaf), &[&sub], &root);
            let inside = domain == b"a.example";
            if inside == (list == PERMITTED) {
                // Constraints on URIs may be understood or refused, and are refused.
                assert!(outcome.is_ok() || outcome == Err(ChainError::NameConstraint.to_string()));
            } else {
                assert_refused(outcome, ChainError::NameConstraint, "identity");
            }
        }
    }
}

#[test]
fn chains_are_no_longer_than_each_issuer_allows() {
    let root = Ca::root("root");
    let bounded =
        |issuer: &Ca, length: u8| issuer.intermediate(&Spec::ca("bounded").path_length(length));
    let none = bounded(&root, 0);
    assert_eq!(judged(&none.issue(&Spec::leaf()), &[&none], &root), Ok(()));
    let below = none.intermediate(&Spec::ca("below"));
    let outcome = judged(&below.issue(&Spec::leaf()), &[&below, &none], &root);
    assert_refused(outcome, ChainError::PathLength, "one below none");
    let one = bounded(&root, 1);
    let below = one.intermediate(&Spec::ca("below"));
    assert_eq!(judged(&below.issue(&Spec::leaf()), &[&below, &one], &root), Ok(()));
    // The order in which they are sent decides nothing.
    assert_eq!(judged(&below.issue(&Spec::leaf()), &[&one, &below], &root), Ok(()));
    let further = below.intermediate(&Spec::ca("further"));
    let outcome = judged(&further.issue(&Spec::leaf()), &[&further, &below, &one], &root);
    assert_refused(outcome, ChainError::PathLength, "two below one");
}

#[test]
fn issuers_are_bound_by_their_extensions() {
    let root = Ca::root("root");
    for (spec, expected) in [
        (Spec::ca("sub").extension(&[1, 2, 3], true, &[5, 0]), ChainError::CriticalExtension),
        // For servers alone, which an issuer hands down to whatever it issues.
        (Spec::ca("sub").eku(&[Eku::ServerAuth]), ChainError::ExtendedKeyUsage),
        (Spec::ca("sub").key_usage(&[Usage::DigitalSignature]), ChainError::KeyUsage),
        // The same extension a second time.
        (Spec::ca("sub").extension(&[2, 5, 29, 15], true, &[3, 2, 1, 6]), ChainError::Malformed),
        (
            Spec::ca("sub").extension(&[1, 2, 3], false, &[5, 0]).extension(
                &[1, 2, 3],
                false,
                &[5, 0],
            ),
            ChainError::Malformed,
        ),
    ] {
        let sub = root.intermediate(&spec);
        let outcome = judged(&sub.issue(&Spec::leaf()), &[&sub], &root);
        assert_refused(outcome, expected, "issuer");
    }
    let sub = root.intermediate(&Spec::ca("sub").eku(&[Eku::ClientAuth]));
    assert_eq!(judged(&sub.issue(&Spec::leaf()), &[&sub], &root), Ok(()));
    // Anchors too, when they are read.
    let root = Ca::root_from(&Spec::ca("root").extension(&[1, 2, 3], true, &[5, 0]));
    let refused = judged(&root.issue(&Spec::leaf()), &[], &root).unwrap_err();
    assert!(refused.contains("critical extension"), "{refused}");
    let root = Ca::root_from(&Spec::ca("root").extension(&[1, 2, 3], false, &[5, 0]));
    assert_eq!(judged(&root.issue(&Spec::leaf()), &[], &root), Ok(()));
}

#[test]
fn names_that_can_be_read_in_two_ways_are_refused() {
    let root = Ca::root("root");
    let sans = |content: &[u8]| Spec::leaf().extension(&[2, 5, 29, 17], false, content);
    assert!(judged(&root.issue(&sans(&[0x30, 3, 0x82, 1, b'a'])), &[], &root).is_ok());
    for (what, content) in [
        ("a NUL inside", &[0x30, 5, 0x82, 3, b'a', 0, b'b'][..]),
        ("no ASCII", &[0x30, 4, 0x82, 2, 0xc3, 0xa4]),
        ("longer than its sequence", &[0x30, 3, 0x82, 4, b'a']),
        ("trailing bytes", &[0x30, 3, 0x82, 1, b'a', 0]),
        ("a broken URI", &[0x30, 4, 0x86, 2, 0xff, 0xfe]),
    ] {
        assert!(judged(&root.issue(&sans(content)), &[], &root).is_err(), "{what}");
    }
    // Names a second time, in an extension of their own.
    let twice =
        Spec::leaf().dns("a.example").extension(&[2, 5, 29, 17], false, &[0x30, 3, 0x82, 1, b'b']);
    assert_refused(judged(&root.issue(&twice), &[], &root), ChainError::Malformed, "twice");
}
