use proptest::prelude::*;

use super::*;
use crate::types::time::Timestamp;

const NOW: Timestamp = Timestamp::from_secs(1_700_000_000);

fn keyring(suite: Suite) -> Keyring {
    Keyring::generate(suite, NOW).unwrap()
}

fn context() -> RecordContext {
    RecordContext {
        namespace: NamespaceId(1),
        kind: 2,
        parent: Tag::from_bytes([3; 16]),
        name: Tag::from_bytes([4; 16]),
        rev: 5,
    }
}

fn stored(record: &SealedRecord) -> Vec<u8> {
    record.as_bytes().to_vec()
}

#[test]
fn what_is_sealed_opens_where_it_was_sealed() {
    for suite in Suite::ALL {
        let keyring = keyring(suite);
        for plaintext in [&b""[..], b"x", &[7; 5000]] {
            let record = seal(&keyring, &context(), plaintext).unwrap();
            assert_eq!((record.term(), record.suite()), (1, suite));
            assert_eq!(record.as_bytes().len(), plaintext.len() + OVERHEAD_BYTES);
            let read = SealedRecord::from_stored(stored(&record)).unwrap();
            assert_eq!(read, record);
            assert!(open(&keyring, &context(), &read).unwrap().ct_eq(plaintext));
        }
    }
}

/// A record that is moved, swapped, listed elsewhere or put back at a later revision.
#[test]
fn any_other_place_or_revision_is_refused() {
    let good = context();
    let elsewhere = [
        RecordContext { namespace: NamespaceId(0), ..good },
        RecordContext { kind: 3, ..good },
        RecordContext { parent: Tag::from_bytes([9; 16]), ..good },
        RecordContext { name: Tag::from_bytes([9; 16]), ..good },
        RecordContext { parent: good.name, name: good.parent, ..good },
        RecordContext { rev: 4, ..good },
        RecordContext { rev: 6, ..good },
    ];
    for suite in Suite::ALL {
        let keyring = keyring(suite);
        let record = seal(&keyring, &good, b"body").unwrap();
        for other in elsewhere {
            let opened = open(&keyring, &other, &record);
            assert!(matches!(opened, Err(EnvelopeError::DoesNotOpen(_))), "{other:?}");
            assert!(rewrap(&keyring, &other, &record).is_err(), "{other:?}");
        }
    }
}

#[test]
fn each_bit_of_the_context_counts() {
    let bits = |context: &RecordContext| context.associated_data(b"", b"");
    let good = bits(&context());
    assert_eq!(good.len(), 4 + 2 + 16 + 16 + 8);
    for bit in 0..64 {
        let rev = RecordContext { rev: context().rev ^ (1 << bit), ..context() };
        assert_ne!(bits(&rev), good);
    }
    for bit in 0..32 {
        let namespace = NamespaceId(context().namespace.0 ^ (1 << bit));
        assert_ne!(bits(&RecordContext { namespace, ..context() }), good);
    }
    for bit in 0..16 {
        let kind = context().kind ^ (1 << bit);
        assert_ne!(bits(&RecordContext { kind, ..context() }), good);
    }
}

#[test]
fn every_flipped_bit_is_refused() {
    for suite in Suite::ALL {
        let keyring = keyring(suite);
        let record = seal(&keyring, &context(), b"body").unwrap();
        for bit in 0..record.as_bytes().len() * 8 {
            let mut bad = stored(&record);
            bad[bit / 8] ^= 1 << (bit % 8);
            let opened =
                SealedRecord::from_stored(bad).and_then(|bad| open(&keyring, &context(), &bad));
            assert!(opened.is_err(), "bit {bit}");
        }
    }
}

#[test]
fn every_truncation_is_an_error() {
    let keyring = keyring(Suite::Aes256Gcm);
    let record = seal(&keyring, &context(), b"some body of the record").unwrap();
    for len in 0..record.as_bytes().len() {
        let cut = record.as_bytes()[..len].to_vec();
        match SealedRecord::from_stored(cut) {
            Ok(cut) => {
                assert!(len >= OVERHEAD_BYTES);
                assert!(open(&keyring, &context(), &cut).is_err(), "length {len}");
            }
            Err(error) => {
                assert!(len < OVERHEAD_BYTES);
                assert!(matches!(error, EnvelopeError::Unreadable), "length {len}");
            }
        }
    }
    let longer = [record.as_bytes(), &[0]].concat();
    let longer = SealedRecord::from_stored(longer).unwrap();
    assert!(open(&keyring, &context(), &longer).is_err());
}

#[test]
fn unknown_layouts_and_suites_are_unreadable() {
    let record = seal(&keyring(Suite::Aes256Gcm), &context(), b"").unwrap();
    for (position, value) in [(0, 0), (0, 2), (1, 0), (1, 3), (1, 255)] {
        let mut bad = stored(&record);
        bad[position] = value;
        assert!(matches!(SealedRecord::from_stored(bad), Err(EnvelopeError::Unreadable)));
    }
}

#[test]
fn a_key_or_a_body_from_another_record_does_not_fit() {
    let keyring = keyring(Suite::Aes256Gcm);
    let [a, b] = [b"aaaa", b"bbbb"].map(|body| seal(&keyring, &context(), body).unwrap());
    let (key_of_a, body_of_b) = (
        &a.as_bytes()[..HEADER_BYTES + WRAPPED_BYTES],
        &b.as_bytes()[HEADER_BYTES + WRAPPED_BYTES..],
    );
    let mixed = SealedRecord::from_stored([key_of_a, body_of_b].concat()).unwrap();
    assert!(open(&keyring, &context(), &mixed).is_err());
}

#[test]
fn the_same_body_never_looks_the_same() {
    let keyring = keyring(Suite::Aes256Gcm);
    let [a, b] = [(), ()].map(|()| seal(&keyring, &context(), b"same").unwrap());
    // Wrapping nonce, wrapped key and body all differ: the key of each is fresh.
    assert_ne!(a.as_bytes()[6..18], b.as_bytes()[6..18]);
    assert_ne!(a.as_bytes()[18..66], b.as_bytes()[18..66]);
    assert_ne!(a.as_bytes()[66..], b.as_bytes()[66..]);
}

#[test]
fn rewrapping_changes_the_term_and_leaves_the_body() {
    for (from, to) in [
        (Suite::Aes256Gcm, Suite::ChaCha20Poly1305),
        (Suite::ChaCha20Poly1305, Suite::Aes256Gcm),
        (Suite::Aes256Gcm, Suite::Aes256Gcm),
    ] {
        let first = keyring(from);
        let record = seal(&first, &context(), b"body").unwrap();
        let second = first.rotate(to, NOW).unwrap();
        let moved = rewrap(&second, &context(), &record).unwrap();
        assert_eq!((moved.term(), moved.suite()), (2, from));
        assert_eq!(moved.as_bytes().len(), record.as_bytes().len());
        let body = HEADER_BYTES + WRAPPED_BYTES;
        assert_eq!(moved.as_bytes()[body..], record.as_bytes()[body..]);
        assert!(open(&second, &context(), &moved).unwrap().ct_eq(b"body"));
        assert!(open(&second.destroy_below(2).unwrap(), &context(), &moved).is_ok());
        assert!(open(&second.destroy_below(2).unwrap(), &context(), &record).is_err());
    }
}

#[test]
fn a_term_number_written_over_another_does_not_open() {
    let first = keyring(Suite::Aes256Gcm);
    let record = seal(&first, &context(), b"body").unwrap();
    let second = first.rotate(Suite::Aes256Gcm, NOW).unwrap();
    let mut forged = stored(&record);
    forged[5] = 2;
    let forged = SealedRecord::from_stored(forged).unwrap();
    assert!(matches!(open(&second, &context(), &forged), Err(EnvelopeError::DoesNotOpen(_))));
}

#[test]
fn another_keyring_does_not_open_it() {
    let record = seal(&keyring(Suite::Aes256Gcm), &context(), b"body").unwrap();
    let other = keyring(Suite::Aes256Gcm);
    assert!(open(&other, &context(), &record).is_err());
}

#[test]
fn debug_shows_the_shape_and_no_bytes() {
    let record = seal(&keyring(Suite::Aes256Gcm), &context(), b"body").unwrap();
    assert_eq!(format!("{record:?}"), "SealedRecord { term: 1, suite: Aes256Gcm, len: 86 }");
}

proptest! {
    #[test]
    fn arbitrary_stored_bytes_never_open_and_never_panic(
        mut bytes in proptest::collection::vec(any::<u8>(), 0..200),
        plausible in any::<bool>(),
    ) {
        if plausible && bytes.len() > HEADER_BYTES {
            bytes[..HEADER_BYTES].copy_from_slice(&[1, 1, 0, 0, 0, 1]);
        }
        let keyring = keyring(Suite::Aes256Gcm);
        let opened =
            SealedRecord::from_stored(bytes).and_then(|record| open(&keyring, &context(), &record));
        prop_assert!(opened.is_err());
    }
}
