use data_encoding::HEXLOWER;
use proptest::prelude::*;
use proptest::sample::subsequence;
use serde_json::Value;

use super::*;

fn bytes(value: &Value) -> Vec<u8> {
    HEXLOWER.decode(value.as_str().unwrap().as_bytes()).unwrap()
}

fn shares_of(value: &Value) -> Vec<SecretBytes> {
    value.as_array().unwrap().iter().map(|share| SecretBytes::new(bytes(share))).collect()
}

fn threshold_of(value: &Value) -> u8 {
    value["threshold"].as_u64().unwrap().try_into().unwrap()
}

fn copies(shares: &[SecretBytes], which: &[usize]) -> Vec<SecretBytes> {
    which.iter().map(|i| SecretBytes::copy_of(shares[*i].expose())).collect()
}

/// Multiplication from the definition: polynomials as integers, then long division by 0x11b.
fn mul_by_definition(a: u8, b: u8) -> u8 {
    let mut product: u32 = 0;
    for bit in 0..8 {
        if b & (1 << bit) != 0 {
            product ^= u32::from(a) << bit;
        }
    }
    for bit in (8..16).rev() {
        if product & (1 << bit) != 0 {
            product ^= 0x11b << (bit - 8);
        }
    }
    product.try_into().unwrap()
}

#[test]
fn the_field_is_that_of_aes() {
    // FIPS 197 §4.2 and §4.2.1.
    assert_eq!(mul(0x57, 0x83), 0xc1);
    assert_eq!(mul(0x57, 0x13), 0xfe);
    for a in 0..=255 {
        for b in 0..=255 {
            assert_eq!(mul(a, b), mul_by_definition(a, b), "{a} times {b}");
        }
    }
    assert!((1..=255).all(|a| mul(a, invert(a)) == 1));
    assert_eq!(invert(0), 0);
}

/// From the two products in FIPS 197 §4.2: the line 0xff + 0x57·x goes through (0x83, 0x3e) and
/// (0x13, 0x01). The point comes last in a share.
#[test]
fn a_share_is_the_values_and_then_the_point() {
    let shares = evaluate(&[0xff, 0x00], &[0x57, 0x57], &[0x83, 0x13]);
    assert_eq!(shares[0].expose(), [0x3e, 0xc1, 0x83]);
    assert_eq!(shares[1].expose(), [0x01, 0xfe, 0x13]);
    assert_eq!(combine(&shares, 2).unwrap().expose(), [0xff, 0x00]);
}

#[test]
fn sharings_made_by_another_program_agree() {
    let vectors: Value =
        serde_json::from_str(include_str!("../../../tests/vectors/crypto.json")).unwrap();
    let sharings = vectors["sharings"].as_array().unwrap();
    assert_eq!(sharings.len(), 3);
    for sharing in sharings {
        let (secret, threshold) = (bytes(&sharing["secret"]), threshold_of(sharing));
        let theirs = shares_of(&sharing["shares"]);
        let ours = evaluate(&secret, &bytes(&sharing["coefficients"]), &bytes(&sharing["points"]));
        assert_eq!(ours.len(), theirs.len());
        assert!(ours.iter().zip(&theirs).all(|(ours, theirs)| ours.ct_eq(theirs.expose())));
        assert!(combine(&theirs, threshold).unwrap().ct_eq(&secret));
        assert!(combine(&theirs[..threshold.into()], threshold).unwrap().ct_eq(&secret));
    }
}

#[test]
fn any_three_unseal_keys_of_an_openbao_server_give_its_key() {
    let sharing: Value =
        serde_json::from_str(include_str!("../../../tests/vectors/openbao-shares.json")).unwrap();
    let (secret, shares) = (bytes(&sharing["secret"]), shares_of(&sharing["shares"]));
    for a in 0..5 {
        for b in 0..5 {
            for c in 0..5 {
                if a != b && b != c && a != c {
                    let three = copies(&shares, &[a, b, c]);
                    assert!(combine(&three, 3).unwrap().ct_eq(&secret), "{a} {b} {c}");
                }
            }
        }
    }
}

#[test]
fn one_of_one_is_allowed_and_nothing_else_without_a_threshold() {
    let shares = split(b"alone", 1, 1).unwrap();
    assert_eq!(shares[0].len(), 6);
    assert!(combine(&shares, 1).unwrap().ct_eq(b"alone"));
    for (shares, threshold) in [(0, 0), (1, 0), (0, 1), (2, 1), (255, 1), (1, 2), (5, 6), (5, 0)] {
        let refused = split(b"secret", shares, threshold);
        assert!(matches!(refused, Err(ShamirError::Threshold)), "{threshold} of {shares}");
    }
}

#[test]
fn a_secret_has_a_length() {
    assert!(matches!(split(b"", 3, 2), Err(ShamirError::SecretLength)));
    assert!(matches!(split(&[0; SECRET_BYTES_MAX + 1], 3, 2), Err(ShamirError::SecretLength)));
    assert!(split(&[0; SECRET_BYTES_MAX], 2, 2).is_ok());
}

#[test]
fn the_largest_sharing_works() {
    let shares = split(b"0123456789abcdef", 255, 255).unwrap();
    let points: std::collections::HashSet<u8> =
        shares.iter().map(|share| *share.expose().last().unwrap()).collect();
    assert_eq!(points.len(), 255);
    assert!(!points.contains(&0));
    assert!(combine(&shares, 255).unwrap().ct_eq(b"0123456789abcdef"));
    assert!(!combine(&shares[1..], 254).unwrap().ct_eq(b"0123456789abcdef"));
}

#[test]
fn bad_sets_of_shares_are_refused() {
    let refused = |shares: &[&[u8]], threshold| {
        let shares: Vec<_> = shares.iter().map(|share| SecretBytes::copy_of(share)).collect();
        combine(&shares, threshold).unwrap_err()
    };
    assert!(matches!(refused(&[], 0), ShamirError::TooFew { have: 0, need: 1 }));
    assert!(matches!(refused(&[], 2), ShamirError::TooFew { have: 0, need: 2 }));
    assert!(matches!(refused(&[b"a\x01"], 2), ShamirError::TooFew { have: 1, need: 2 }));
    assert!(matches!(refused(&[b"a\x01", b"b\x01"], 2), ShamirError::Duplicate));
    for malformed in [&b"b\0"[..], b"bc\x02", b"\x02", b""] {
        assert!(matches!(refused(&[b"a\x01", malformed], 2), ShamirError::Malformed));
        assert!(matches!(refused(&[malformed, b"a\x01"], 2), ShamirError::Malformed));
    }
}

#[test]
fn a_damaged_share_gives_another_secret() {
    let shares = split(&[7; 32], 3, 2).unwrap();
    let mut damaged = shares[0].expose().to_vec();
    damaged[5] ^= 1;
    let pair = [SecretBytes::new(damaged), SecretBytes::copy_of(shares[1].expose())];
    assert!(!combine(&pair, 2).unwrap().ct_eq(&[7; 32]));
}

/// If the leading coefficient could not be zero, no share of a 2-sharing would ever equal the secret,
/// and each share would rule out one value of each byte.
#[test]
fn a_share_says_nothing_about_the_secret() {
    let mut seen = [0u32; 256];
    for _ in 0..16 {
        let shares = split(&[0x5a; SECRET_BYTES_MAX], 2, 2).unwrap();
        for y in &shares[0].expose()[..SECRET_BYTES_MAX] {
            seen[usize::from(*y)] += 1;
        }
    }
    // 256 are expected of each value, with a standard deviation of 16: ten of those is far enough
    // never to be met by chance.
    for (value, count) in seen.iter().enumerate() {
        assert!((96..=416).contains(count), "value {value} was met {count} times");
    }
}

/// Whatever the secret, a missing share exists that makes one share fit it.
#[test]
fn one_share_of_two_fits_every_secret() {
    let known = split(&[0x5a], 2, 2).unwrap().remove(0);
    let x = *known.expose().last().unwrap();
    let other = if x == 1 { 2 } else { 1 };
    let secrets: std::collections::HashSet<u8> = (0..=255)
        .map(|y| {
            let pair = [SecretBytes::copy_of(known.expose()), SecretBytes::new(vec![y, other])];
            combine(&pair, 2).unwrap().expose()[0]
        })
        .collect();
    assert_eq!(secrets.len(), 256);
}

#[test]
fn sharing_twice_gives_other_shares() {
    let [a, b] = [(), ()].map(|()| split(&[1; 32], 3, 2).unwrap());
    assert!(a.iter().all(|a| b.iter().all(|b| !a.ct_eq(b.expose()))));
}

fn sharings() -> impl Strategy<Value = (Vec<u8>, u8, Vec<usize>)> {
    (2u8..=12, 2u8..=12).prop_flat_map(|(shares, threshold)| {
        let threshold = threshold.min(shares);
        let which: Vec<usize> = (0..shares.into()).collect();
        (
            proptest::collection::vec(any::<u8>(), 16..48),
            Just(shares),
            subsequence(which, usize::from(threshold)).prop_shuffle(),
        )
    })
}

proptest! {
    #[test]
    fn any_threshold_of_shares_recovers_and_one_fewer_does_not(
        (secret, shares, which) in sharings()
    ) {
        let threshold = u8::try_from(which.len()).unwrap();
        let all = split(&secret, shares, threshold).unwrap();
        prop_assert_eq!(all.len(), usize::from(shares));
        prop_assert!(combine(&copies(&all, &which), threshold).unwrap().ct_eq(&secret));
        prop_assert!(combine(&all, threshold).unwrap().ct_eq(&secret));

        let fewer = copies(&all, &which[1..]);
        let refused = matches!(combine(&fewer, threshold), Err(ShamirError::TooFew { .. }));
        prop_assert!(refused);
        // Not even for someone who leaves the check out.
        prop_assert!(!combine(&fewer, 1).unwrap().ct_eq(&secret));
    }

    #[test]
    fn arbitrary_shares_never_panic(
        shares in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..5), 0..6),
        threshold in any::<u8>(),
    ) {
        let shares: Vec<SecretBytes> = shares.into_iter().map(SecretBytes::new).collect();
        if let Ok(secret) = combine(&shares, threshold) {
            prop_assert!(shares.len() >= usize::from(threshold));
            prop_assert_eq!(secret.len() + 1, shares[0].len());
        }
    }
}
