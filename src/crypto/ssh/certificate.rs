//! Certificates in the form of OpenSSH (its `PROTOCOL.certkeys`).

use std::collections::BTreeMap;

use data_encoding::BASE64;

use super::private::{SshKeyError, SshPrivateKey, SshRsaSignature};
use super::public::SshPublicKey;
use super::wire::Writer;
use crate::types::secret::{RandomError, fill_random};
use crate::types::time::Timestamp;

/// Most principals of one certificate: as many as OpenSSH takes.
const PRINCIPALS_MAX: usize = 256;
/// Longest principal, key id, and name or value of an option, in bytes.
const TEXT_BYTES_MAX: usize = 4096;
/// Bytes of the random beginning, without which equal requests would give equal certificates.
const NONCE_BYTES: usize = 32;

/// What a certificate vouches for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SshCertificateKind {
    /// Somebody who logs in.
    User,
    /// A machine that is logged in to.
    Host,
}

/// What is going to be signed.
#[derive(Debug)]
pub struct SshCertificate<'a> {
    /// Whose key it is.
    pub key: &'a SshPublicKey,
    /// User or host.
    pub kind: SshCertificateKind,
    /// Told apart by it in revocation lists.
    pub serial: u64,
    /// What servers log.
    pub key_id: &'a str,
    /// The user or host names it is for. Never none: that would be all of them.
    pub principals: &'a [String],
    /// First moment, rounded down to a second.
    pub valid_after: Timestamp,
    /// The moment it ends, rounded down to a second.
    pub valid_before: Timestamp,
    /// What a server has to know and heed, or else refuse.
    pub critical_options: &'a BTreeMap<String, String>,
    /// What is permitted.
    pub extensions: &'a BTreeMap<String, String>,
}

impl SshCertificate<'_> {
    /// The certificate signed by `ca`, as a line without a comment or an end.
    ///
    /// # Errors
    /// No principals, names or values that are no text of one line, a span of no time, no randomness,
    /// and when signing fails.
    pub fn sign(
        &self,
        ca: &SshPrivateKey,
        rsa: SshRsaSignature,
    ) -> Result<String, SshCertificateError> {
        self.check()?;
        let (Ok(after), Ok(before)) =
            (u64::try_from(self.valid_after.as_secs()), u64::try_from(self.valid_before.as_secs()))
        else {
            return Err(SshCertificateError::Span);
        };
        if after >= before {
            return Err(SshCertificateError::Span);
        }
        let mut nonce = [0u8; NONCE_BYTES];
        fill_random(&mut nonce)?;
        let algorithm = self.key.kind().certificate_algorithm();
        let mut principals = Writer::with_capacity(1024);
        for principal in self.principals {
            principals.string(principal.as_bytes());
        }
        let mut body = Writer::with_capacity(4096);
        body.string(algorithm.as_bytes())
            .string(&nonce)
            .raw(self.key.parts())
            .uint64(self.serial)
            .uint32(match self.kind {
                SshCertificateKind::User => 1,
                SshCertificateKind::Host => 2,
            })
            .string(self.key_id.as_bytes())
            .string(principals.bytes())
            .uint64(after)
            .uint64(before)
            .string(options(self.critical_options).bytes())
            .string(options(self.extensions).bytes())
            // Reserved, and empty.
            .string(&[])
            .string(ca.public().blob());
        let signature = ca.sign(body.bytes(), rsa)?;
        body.string(&signature);
        Ok(format!("{algorithm} {}", BASE64.encode(body.bytes())))
    }

    fn check(&self) -> Result<(), SshCertificateError> {
        if self.principals.is_empty() || self.principals.len() > PRINCIPALS_MAX {
            return Err(SshCertificateError::Principals);
        }
        // A comma would separate two in what OpenSSH shows and in lists of its options; the others
        // are patterns to some readers.
        let plain =
            |name: &String| is_text(name) && !name.contains([' ', ',', '*', '?', '!', '"', '\'']);
        if !self.principals.iter().all(plain) {
            return Err(SshCertificateError::Principal);
        }
        if !is_text(self.key_id) || self.key_id.contains(',') {
            return Err(SshCertificateError::KeyId);
        }
        let is_option = |(name, value): (&String, &String)| {
            is_text(name)
                && !name.contains([' ', ',', '=', '"'])
                && (value.is_empty() || is_text(value))
        };
        if !self.critical_options.iter().chain(self.extensions).all(is_option) {
            return Err(SshCertificateError::Option);
        }
        Ok(())
    }
}

/// Text of one line, and not none.
fn is_text(text: &str) -> bool {
    !text.is_empty() && text.len() <= TEXT_BYTES_MAX && !text.chars().any(char::is_control)
}

/// Names in order, each with its value inside a string of its own, or without.
fn options(options: &BTreeMap<String, String>) -> Writer {
    let mut out = Writer::with_capacity(1024);
    for (name, value) in options {
        let mut data = Writer::with_capacity(value.len() + 4);
        if !value.is_empty() {
            data.string(value.as_bytes());
        }
        out.string(name.as_bytes()).string(data.bytes());
    }
    out
}

/// Why nothing was signed.
#[derive(Debug, thiserror::Error)]
pub enum SshCertificateError {
    /// No principals, or more than OpenSSH takes.
    #[error("a certificate takes 1 to 256 principals: without any it would be for everybody")]
    Principals,
    /// A principal that is no plain name.
    #[error(
        "a principal is empty, or holds spaces, commas, quotes, wildcards or control characters"
    )]
    Principal,
    /// A key id that is no text of one line.
    #[error("the key id is empty, too long, or holds commas or control characters")]
    KeyId,
    /// An option or extension that is no text of one line.
    #[error("an option or extension is not a plain name, or its value not text of one line")]
    Option,
    /// It would end before it begins.
    #[error("the certificate would end before it begins")]
    Span,
    /// The signature.
    #[error(transparent)]
    Key(#[from] SshKeyError),
    /// No randomness.
    #[error(transparent)]
    Random(#[from] RandomError),
}
