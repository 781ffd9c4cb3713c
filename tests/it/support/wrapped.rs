//! Keys as they are wrapped to be brought in.

use aws_lc_rs::key_wrap::{AES_256, AesKek, KeyWrapPadded};
use aws_lc_rs::rsa::{OAEP_SHA256_MGF1SHA256, OaepPublicEncryptingKey, PublicEncryptingKey};
use data_encoding::BASE64;

/// `key`, wrapped under the public key in PEM.
pub fn wrapped(public_pem: &str, key: &[u8]) -> String {
    let lines: String = public_pem.lines().filter(|line| !line.starts_with("-----")).collect();
    let der = BASE64.decode(lines.as_bytes()).unwrap();
    let public = OaepPublicEncryptingKey::new(PublicEncryptingKey::from_der(&der).unwrap());
    let public = public.unwrap();
    let wrapping = [0x5a; 32];
    let mut out = vec![0; public.ciphertext_size()];
    let sealed = public.encrypt(&OAEP_SHA256_MGF1SHA256, &wrapping, &mut out, None).unwrap();
    let mut inside = vec![0; key.len() + 15];
    let kek = AesKek::new(&AES_256, &wrapping).unwrap();
    let inside = kek.wrap_with_padding(key, &mut inside).unwrap();
    BASE64.encode(&[&*sealed, &*inside].concat())
}
