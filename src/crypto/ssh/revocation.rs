//! Revocation lists in the form of OpenSSH (its `PROTOCOL.krl`), which `RevokedKeys` of `sshd` reads.

use super::public::SshPublicKey;
use super::wire::Writer;
use crate::types::time::Timestamp;

/// `SSHKRL`, an end of line, and a zero.
const MAGIC: u64 = 0x5353_484b_524c_0a00;
const FORMAT_VERSION: u32 = 1;
const CERTIFICATES: u8 = 1;
const SERIAL_LIST: u8 = 0x20;
const KEY_ID: u8 = 0x23;

/// What is revoked of one authority.
#[derive(Debug)]
pub struct SshRevoked<'a> {
    /// Who signed the certificates.
    pub authority: &'a SshPublicKey,
    /// Certificates by their serial number. Never zero, which OpenSSH takes for none.
    pub serials: Vec<u64>,
    /// Certificates by what servers log of them.
    pub key_ids: Vec<&'a str>,
}

/// The list. `version` tells an older one from a newer.
pub fn ssh_revocation_list(
    version: u64,
    made_at: Timestamp,
    revoked: &[SshRevoked<'_>],
) -> Vec<u8> {
    let mut list = Writer::with_capacity(1024);
    list.raw(&MAGIC.to_be_bytes())
        .uint32(FORMAT_VERSION)
        .uint64(version)
        .uint64(u64::try_from(made_at.as_secs()).unwrap_or(0))
        // No flags, nothing in what is reserved, no comment.
        .uint64(0)
        .string(&[])
        .string(&[]);
    for SshRevoked { authority, serials, key_ids } in revoked {
        let mut section = Writer::with_capacity(1024);
        section.string(authority.blob()).string(&[]);
        if !serials.is_empty() {
            let mut numbers = Writer::with_capacity(8 * serials.len());
            for serial in serials {
                numbers.uint64(*serial);
            }
            section.raw(&[SERIAL_LIST]).string(numbers.bytes());
        }
        if !key_ids.is_empty() {
            let mut ids = Writer::with_capacity(64 * key_ids.len());
            for id in key_ids {
                ids.string(id.as_bytes());
            }
            section.raw(&[KEY_ID]).string(ids.bytes());
        }
        list.raw(&[CERTIFICATES]).string(section.bytes());
    }
    list.bytes().to_vec()
}
