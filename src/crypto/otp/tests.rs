use super::*;

fn key(text: &str) -> SecretBytes {
    SecretBytes::copy_of(text.as_bytes())
}

fn parameters(algorithm: OtpAlgorithm, digits: OtpDigits, skew: u8) -> TotpParameters {
    TotpParameters::new(algorithm, digits, Ttl::from_secs(30), skew).unwrap()
}

// RFC 4226 appendix D.
#[test]
fn counters_give_the_codes_of_rfc_4226() {
    let key = key("12345678901234567890");
    let codes = [
        "755224", "287082", "359152", "969429", "338314", "254676", "287922", "162583", "399871",
        "520489",
    ];
    for (counter, code) in codes.iter().enumerate() {
        let made = hotp(OtpAlgorithm::Sha1, OtpDigits::Six, &key, counter as u64);
        assert!(made.ct_eq(code), "{counter}");
    }
}

// RFC 6238 appendix B, with the key lengths of its reference code (erratum 2866).
#[test]
fn times_give_the_codes_of_rfc_6238() {
    let long = "1234567890".repeat(7);
    let keys = [&long[..20], &long[..32], &long[..64]].map(key);
    let rows = [
        (59, ["94287082", "46119246", "90693936"]),
        (1_111_111_109, ["07081804", "68084774", "25091201"]),
        (1_111_111_111, ["14050471", "67062674", "99943326"]),
        (1_234_567_890, ["89005924", "91819424", "93441116"]),
        (2_000_000_000, ["69279037", "90698825", "38618901"]),
        (20_000_000_000, ["65353130", "77737706", "47863826"]),
    ];
    let algorithms = [OtpAlgorithm::Sha1, OtpAlgorithm::Sha256, OtpAlgorithm::Sha512];
    for (secs, codes) in rows {
        for ((algorithm, key), code) in algorithms.into_iter().zip(&keys).zip(codes) {
            let parameters = parameters(algorithm, OtpDigits::Eight, 0);
            let now = Timestamp::from_secs(secs);
            let step = parameters.step_at(now);
            assert!(parameters.code(key, step).ct_eq(code), "{algorithm:?} at {secs}");
            assert_eq!(parameters.verify(key, code, now), Some(step));
        }
    }
}

#[test]
fn a_code_counts_only_within_its_skew() {
    let key = key("12345678901234567890");
    for skew in [0, 1] {
        let parameters = parameters(OtpAlgorithm::Sha1, OtpDigits::Six, skew);
        let now = Timestamp::from_secs(1_800_000_000);
        let present = parameters.step_at(now);
        assert_eq!(parameters.begin_of(present), now);
        for offset in -2i64..=2 {
            let step = present.checked_add_signed(offset).unwrap();
            let code = parameters.code(&key, step);
            let counts = offset.unsigned_abs() <= u64::from(skew);
            assert_eq!(parameters.verify(&key, code.expose(), now), counts.then_some(step));
        }
    }
    // Nothing underflows at the beginning of time, nor before it.
    let parameters = parameters(OtpAlgorithm::Sha1, OtpDigits::Six, 1);
    for millis in [0, -1, i64::MIN] {
        let now = Timestamp::from_millis(millis);
        assert_eq!(parameters.verify(&key, "755224", now), Some(0));
    }
    assert_eq!(parameters.verify(&key, "755224", Timestamp::MAX), None);
}

#[test]
fn what_is_no_code_is_refused() {
    let key = key("12345678901234567890");
    let parameters = parameters(OtpAlgorithm::Sha1, OtpDigits::Six, 0);
    let now = Timestamp::from_secs(30);
    assert_eq!(parameters.verify(&key, "287082", now), Some(1));
    for code in [
        "",
        "28708",
        "2870820",
        "0287082",
        "+87082",
        "-87082",
        " 287082",
        "287082\n",
        "28708٢",
        "２８７０８２",
        "287083",
        "94287082",
    ] {
        assert_eq!(parameters.verify(&key, code, now), None, "{code:?}");
    }
}

#[test]
fn parameters_outside_their_bounds_are_refused() {
    let make = |secs, skew| {
        TotpParameters::new(OtpAlgorithm::Sha1, OtpDigits::Six, Ttl::from_secs(secs), skew)
    };
    assert_eq!(make(0, 0), Err(OtpError::Period));
    assert_eq!(make(3601, 0), Err(OtpError::Period));
    assert_eq!(make(30, 2), Err(OtpError::Skew));
    assert!(make(3600, 1).is_ok());
    for digits in [0, 1, 5, 7, 9, 10] {
        assert_eq!(OtpDigits::try_from(digits), Err(OtpError::Digits));
    }
    let stored = serde_json::to_string(&TotpParameters::default()).unwrap();
    assert_eq!(stored, r#"{"algorithm":"SHA1","digits":6,"period":30,"skew":1}"#);
    assert_eq!(serde_json::from_str::<TotpParameters>(&stored).unwrap(), TotpParameters::default());
}

#[test]
fn addresses_are_read_as_services_write_them() {
    let secret = "Y64VEVMBTSXCYIWRSHRNDZW62MPGVU2G";
    let full = format!(
        "otpauth://totp/ACME%20Co:ann%40example.com?secret={secret}&issuer=ACME+Co\
         &algorithm=sha256&digits=8&period=60"
    );
    let read = OtpAuth::parse(&full).unwrap();
    assert_eq!((read.issuer(), read.account()), (Some("ACME Co"), "ann@example.com"));
    let parameters = read.parameters();
    assert_eq!(parameters.algorithm(), OtpAlgorithm::Sha256);
    assert_eq!(parameters.digits(), OtpDigits::Eight);
    assert_eq!((parameters.period(), parameters.skew()), (Ttl::from_secs(60), 1));
    assert!(encode_secret(read.key()).ct_eq(secret));

    let plain = format!("otpauth://totp/ann?secret={}", secret.to_lowercase());
    let read = OtpAuth::parse(&plain).unwrap();
    assert_eq!((read.issuer(), read.account()), (None, "ann"));
    assert_eq!(read.parameters(), TotpParameters::default());
    for issuer in ["otpauth://totp/Corp:%20ann?", "otpauth://totp/ann?issuer=Corp&image=https%3A&"]
    {
        let read = OtpAuth::parse(&format!("{issuer}secret={secret}")).unwrap();
        assert_eq!((read.issuer(), read.account()), (Some("Corp"), "ann"));
    }
}

#[test]
fn an_address_that_is_written_is_read_again() {
    let parameters = parameters(OtpAlgorithm::Sha512, OtpDigits::Eight, 1);
    for (issuer, account) in
        [(None, "ann"), (Some("A&B=?#/%+ Ltd"), "a b+c/d?e#f&g=h%i@j"), (Some("Größe"), "ß")]
    {
        let key = SecretBytes::random(20).unwrap();
        let made = OtpAuth::new(issuer, account, key, parameters).unwrap();
        let uri = made.to_uri();
        let read = OtpAuth::parse(uri.expose()).unwrap();
        assert_eq!((read.issuer(), read.account()), (issuer, account), "{}", uri.expose());
        assert_eq!(read.parameters(), parameters);
        assert!(read.key().ct_eq(made.key().expose()));
    }
}

#[test]
fn addresses_that_are_wrong_are_refused_with_the_reason() {
    use OtpUriError as E;
    let secret = "secret=Y64VEVMBTSXCYIWRSHRNDZW62MPGVU2G";
    let long = "A".repeat(2100);
    for (uri, error) in [
        (String::new(), E::Form),
        (format!("https://totp/a?{secret}"), E::Form),
        (format!("OTPAUTH://totp/a?{secret}"), E::Form),
        (format!("otpauth://hotp/a?{secret}&counter=1"), E::Type),
        (format!("otpauth://totp/?{secret}"), E::NoAccount),
        (format!("otpauth://totp/Corp:?{secret}"), E::NoAccount),
        (format!("otpauth://totp/a:b:c?{secret}"), E::Name),
        (format!("otpauth://totp/a%0Ab?{secret}"), E::Name),
        (format!("otpauth://totp/a?{secret}&issuer=x%3Ay"), E::Name),
        (format!("otpauth://totp/a/b?{secret}"), E::Form),
        (format!("otpauth://totp/a%2?{secret}"), E::Form),
        (format!("otpauth://totp/a%zz?{secret}"), E::Form),
        (format!("otpauth://totp/%ff?{secret}"), E::Form),
        (format!("otpauth://totp/a?{secret}#x"), E::Form),
        (format!("otpauth://totp/a?{secret}&"), E::Form),
        (format!("otpauth://totp/X:a?{secret}&issuer=Y"), E::Issuers),
        (format!("otpauth://totp/a?{secret}&{secret}"), E::Twice),
        (format!("otpauth://totp/a?{secret}&counter=1"), E::Unknown),
        (format!("otpauth://totp/a?{secret}&digits=7"), E::Parameters(OtpError::Digits)),
        (format!("otpauth://totp/a?{secret}&digits=six"), E::Parameters(OtpError::Digits)),
        (format!("otpauth://totp/a?{secret}&period=0"), E::Parameters(OtpError::Period)),
        (format!("otpauth://totp/a?{secret}&period=-1"), E::Parameters(OtpError::Period)),
        (format!("otpauth://totp/a?{secret}&algorithm=MD5"), E::Algorithm),
        ("otpauth://totp/a".to_owned(), E::NoSecret),
        ("otpauth://totp/a?digits=6".to_owned(), E::NoSecret),
        ("otpauth://totp/a?secret=".to_owned(), E::SecretLength),
        ("otpauth://totp/a?secret=Y64VEVMB".to_owned(), E::SecretLength),
        ("otpauth://totp/a?secret=Y64VEVMBTSXCYIW1".to_owned(), E::SecretEncoding),
        ("otpauth://totp/a?secret=Y64VEVMBTSXCYIWRS".to_owned(), E::SecretEncoding),
        (format!("otpauth://totp/a?secret={long}"), E::Form),
    ] {
        assert_eq!(OtpAuth::parse(&uri).err(), Some(error), "{uri}");
    }
}

#[test]
fn secrets_are_read_in_every_spelling_and_written_in_one() {
    // RFC 4648 section 10 has only short examples; this is "12345678901234567890".
    for text in [
        "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ",
        "gezdgnbvgy3tqojqgezdgnbvgy3tqojq",
        "GEZD GNBV GY3T QOJQ GEZD GNBV GY3T QOJQ",
    ] {
        let key = decode_secret(text).unwrap();
        assert_eq!(key.expose(), b"12345678901234567890");
        assert!(encode_secret(&key).ct_eq("GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"));
    }
    assert_eq!(decode_secret("GEZDGNBVGY3TQOJQGE======").unwrap().expose(), b"12345678901");
    assert_eq!(decode_secret(&"A".repeat(4000)).err(), Some(OtpUriError::SecretLength));
}

proptest::proptest! {
    #[test]
    fn no_text_makes_the_reader_fail_otherwise_than_by_refusing(text in ".{0,80}") {
        let _ = OtpAuth::parse(&format!("otpauth://totp/{text}"));
        let _ = decode_secret(&text);
    }
}
