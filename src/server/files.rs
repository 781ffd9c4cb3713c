//! The files that the configuration names: read, judged, and told apart by their content.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use zeroize::Zeroizing;

use super::config::{Config, Listener, Problem, Rule, SealType, StorageType, Trust};
use super::tls::{ServerIdentity, TlsError};
use crate::core::spiffe::{SpiffeIdError, TrustDomain};
use crate::core::trust::{BundleError, TrustBundle};
use crate::crypto::digest::sha256;
use crate::crypto::x509::crl::{Crl, CrlError, Crls, ExpiredCrl, UnknownStatus};
use crate::crypto::x509::{AnchorError, Anchors};

/// Largest file read, in bytes.
const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Permission bits that let everybody in.
const OTHERS: u32 = 0o007;

/// What was read, and a digest of it: the same digest means that nothing has changed.
#[derive(Debug)]
pub(super) struct Loaded<T> {
    pub(super) digest: [u8; 32],
    pub(super) value: Result<T, FileError>,
}

/// Reads a listener's certificate and key.
pub(super) fn load_identity(listener: &Listener) -> Loaded<ServerIdentity> {
    let chain = read(&listener.certificate);
    let key = read(&listener.key).and_then(|bytes| {
        if is_open_to_everybody(&listener.key) {
            return Err(FileError::new(&listener.key, FileFault::OpenToEverybody));
        }
        Ok(bytes)
    });
    let digest = digest_of([&chain, &key]);
    let value = chain.and_then(|chain| key.map(|key| (chain, key))).and_then(|(chain, key)| {
        ServerIdentity::from_pem(&chain, &key).map_err(|error| {
            let path = match error {
                TlsError::Key(_) => &listener.key,
                TlsError::Certificate(_) | TlsError::Identity(_) | TlsError::Protocol(_) => {
                    &listener.certificate
                }
            };
            FileError::new(path, FileFault::Tls(error))
        })
    });
    Loaded { digest, value }
}

/// Reads a trust bundle and its revocation lists.
pub(super) fn load_bundle(trust: &Trust) -> Loaded<TrustBundle> {
    let anchors = read(&trust.bundle);
    let lists: Vec<_> = trust.crls.iter().map(|path| (path, read(path))).collect();
    let digest = digest_of(std::iter::once(&anchors).chain(lists.iter().map(|(_, list)| list)));
    let value = anchors.and_then(|anchors| build_bundle(trust, &anchors, lists));
    Loaded { digest, value }
}

fn build_bundle(
    trust: &Trust,
    anchors: &[u8],
    lists: Vec<(&PathBuf, Content)>,
) -> Result<TrustBundle, FileError> {
    let fault = |path: &Path, fault| FileError::new(path, fault);
    let anchors = Anchors::from_pem(anchors)
        .map_err(|error| fault(&trust.bundle, FileFault::Anchors(error)))?;
    let mut crls = Crls::new(match trust.crl_missing {
        Rule::Accept => UnknownStatus::Accept,
        Rule::Refuse => UnknownStatus::Refuse,
    });
    let expired = match trust.crl_expired {
        Rule::Accept => ExpiredCrl::Accept,
        Rule::Refuse => ExpiredCrl::Refuse,
    };
    for (path, bytes) in lists {
        let found =
            Crl::from_file_bytes(&bytes?).map_err(|error| fault(path, FileFault::Crl(error)))?;
        for crl in found {
            crls.push(Arc::new(crl), expired);
        }
    }
    let domain = match trust.trust_domain.as_str() {
        "" => None,
        name => Some(
            TrustDomain::parse(name)
                .map_err(|error| fault(&trust.bundle, FileFault::TrustDomain(error)))?,
        ),
    };
    TrustBundle::new(&trust.name, domain, anchors, crls)
        .map_err(|error| fault(&trust.bundle, FileFault::Bundle(error)))
}

/// The authorities in the PEM file at `path`.
pub(super) fn read_anchors(path: &Path) -> Result<Anchors, FileError> {
    let pem = read(path)?;
    Anchors::from_pem(&pem).map_err(|error| FileError::new(path, FileFault::Anchors(error)))
}

/// TLS that cannot be set up with what is in the file at `path`.
pub(super) fn tls_fault(path: &Path, error: TlsError) -> FileError {
    FileError::new(path, FileFault::Tls(error))
}

/// Everything that is wrong with the files that `config` names. Binds and opens nothing.
pub fn check(config: &Config) -> Vec<Problem> {
    let mut found = Vec::new();
    for (index, listener) in config.listeners.iter().enumerate() {
        if let Err(error) = load_identity(listener).value {
            found.push(Problem::new(format!("listener[{index}]"), error.to_string()));
        }
    }
    for (index, trust) in config.trust.iter().enumerate() {
        if let Err(error) = load_bundle(trust).value {
            found.push(Problem::new(format!("trust[{index}]"), error.to_string()));
        }
    }
    for (index, seal) in config.seals.iter().enumerate() {
        if seal.kind == SealType::StaticFile {
            let private = read(&seal.key_file).and_then(|_| {
                if is_open_to_everybody(&seal.key_file) {
                    return Err(FileError::new(&seal.key_file, FileFault::OpenToEverybody));
                }
                Ok(())
            });
            if let Err(error) = private {
                found.push(Problem::new(format!("seal[{index}].key_file"), error.to_string()));
            }
        }
    }
    let authorities = [
        ("auth.crl_ca_file", &config.auth.crl_ca_file),
        ("auth.outgoing_ca_file", &config.auth.outgoing_ca_file),
    ];
    for (key, path) in authorities {
        if !path.as_os_str().is_empty()
            && let Err(error) = read_anchors(path)
        {
            found.push(Problem::new(key, error.to_string()));
        }
    }
    let storage = &config.storage;
    if storage.kind == StorageType::Postgresql {
        found.extend(storage.resolve_url().err());
        if !storage.ca_file.as_os_str().is_empty()
            && let Err(error) = read_anchors(&storage.ca_file)
        {
            found.push(Problem::new("storage.ca_file", error.to_string()));
        }
    }
    found
}

/// A file's bytes, which may be a key's.
type Content = Result<Zeroizing<Vec<u8>>, FileError>;

fn read(path: &Path) -> Content {
    let unreadable = |source| FileError::new(path, FileFault::Unreadable(source));
    let bytes = std::fs::metadata(path).map_err(unreadable)?.len();
    if bytes > FILE_BYTES_MAX {
        return Err(FileError::new(path, FileFault::TooLarge));
    }
    std::fs::read(path).map(Zeroizing::new).map_err(unreadable)
}

fn is_open_to_everybody(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|found| found.permissions().mode() & OTHERS != 0)
}

fn digest_of<'a>(files: impl IntoIterator<Item = &'a Content>) -> [u8; 32] {
    let mut digests = Vec::new();
    for file in files {
        match file {
            Ok(bytes) => digests.extend(sha256(bytes)),
            Err(error) => digests.extend(sha256(error.to_string().as_bytes())),
        }
    }
    sha256(&digests)
}

/// A file that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{}: {fault}", path.display())]
pub struct FileError {
    path: PathBuf,
    #[source]
    fault: FileFault,
}

impl FileError {
    fn new(path: &Path, fault: FileFault) -> Self {
        Self { path: path.to_owned(), fault }
    }
}

/// What is wrong with a file.
#[derive(Debug, thiserror::Error)]
enum FileFault {
    #[error("{0}")]
    Anchors(AnchorError),
    #[error("{0}")]
    Bundle(BundleError),
    #[error("{0}")]
    Crl(CrlError),
    #[error("everybody may read or write it; take those permissions away (chmod o=)")]
    OpenToEverybody,
    #[error("{0}")]
    Tls(TlsError),
    #[error("it is larger than 16 MiB")]
    TooLarge,
    #[error("{0}")]
    TrustDomain(SpiffeIdError),
    #[error("{0}")]
    Unreadable(std::io::Error),
}
