use super::*;
use crate::types::time::Timestamp;

#[test]
fn what_is_sealed_opens() {
    for suite in Suite::ALL {
        let keyring = Keyring::generate(suite, Timestamp::from_secs(1)).unwrap();
        let tag = Tag::from_bytes([1; 16]);
        let context =
            RecordContext { namespace: NamespaceId::ROOT, kind: 7, parent: tag, name: tag, rev: 1 };
        let record = seal(&keyring, &context, b"hunter2").unwrap();
        assert_eq!(open(&keyring, &context, &record).unwrap().expose(), b"hunter2");
    }
}
