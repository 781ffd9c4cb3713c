//! Keys and certificates of SSH: made, read and signed here; the arithmetic is aws-lc-rs's.

mod certificate;
mod private;
mod public;
mod revocation;
#[cfg(test)]
mod tests;
mod wire;

pub use certificate::{SshCertificate, SshCertificateError, SshCertificateKind};
pub use private::{SshKeyError, SshKeyType, SshPrivateKey, SshRsaSignature};
pub use public::{SSH_RSA_BITS_MIN, SshCurve, SshKind, SshPublicKey, SshPublicKeyError};
pub use revocation::{SshRevoked, ssh_revocation_list};
