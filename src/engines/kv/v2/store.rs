//! The records of a mount, and the one way to change them.

use std::borrow::Cow;
use std::hash::{BuildHasher, RandomState};

use serde_json::{Map, Value};
use tokio::sync::{Mutex, MutexGuard};

use super::metadata::Metadata;
use crate::core::error::CoreError;
use crate::core::records::{Batch, Precondition, Record};
use crate::core::view::{Entry, PutOptions, View};
use crate::types::time::Ttl;

/// How often a change is tried while other nodes change the same secret.
const ATTEMPTS: usize = 32;
const STRIPES: usize = 512;
/// Revision of every record of contents: they are written once.
const WRITTEN_ONCE: Precondition = Precondition::Rev(1);

/// Name of the record of what is known of a secret.
pub(super) fn metadata_name(path: &str) -> String {
    format!("meta/{path}")
}

/// Name of the record of one version's contents. All of them are in one directory, so that a new
/// secret needs no further ones: nobody lists them. Paths hold no control characters.
fn contents_name(path: &str, version: u64) -> String {
    format!("ver/{version}:{}", path.replace('/', "\u{1f}"))
}

/// What is known of a secret, from the store even when it is cached if `fresh`.
pub(super) async fn load(
    view: &View,
    path: &str,
    fresh: bool,
) -> Result<Option<Entry<Metadata>>, CoreError> {
    let name = metadata_name(path);
    if fresh { view.get_fresh(&name).await } else { view.get(&name).await }
}

/// The contents of a version. `None` when they are gone.
pub(super) async fn contents(
    view: &View,
    path: &str,
    version: u64,
) -> Result<Option<Record>, CoreError> {
    view.get_record(&contents_name(path, version)).await
}

/// A secret that is to be changed.
pub(super) struct Found {
    pub(super) metadata: Metadata,
    /// The contents of its latest version, when they were asked for and are there.
    pub(super) contents: Option<Record>,
}

/// What a change comes to.
pub(super) enum Change<'c> {
    /// Nothing.
    Keep,
    /// The secret goes, and with it the contents of these versions.
    Remove { shredded: Vec<u64> },
    /// The secret is as said now; the contents of a version come, those of others go.
    Save {
        metadata: Metadata,
        contents: Option<(u64, Cow<'c, Map<String, Value>>)>,
        shredded: Vec<u64>,
    },
}

impl Change<'_> {
    /// Only what is known of the secret changes.
    pub(super) fn metadata(metadata: Metadata) -> Self {
        Self::Save { metadata, contents: None, shredded: Vec::new() }
    }
}

/// Lets the writers of one secret go one after the other in this process, so that only other nodes
/// make a commit fail.
pub(super) struct Turns {
    stripes: Box<[Mutex<()>]>,
    hasher: RandomState,
}

impl Turns {
    pub(super) fn new() -> Self {
        let stripes = (0..STRIPES).map(|_| Mutex::new(())).collect();
        Self { stripes, hasher: RandomState::new() }
    }

    async fn of(&self, path: &str) -> Option<MutexGuard<'_, ()>> {
        let hash = usize::try_from(self.hasher.hash_one(path) % STRIPES as u64).unwrap_or(0);
        match self.stripes.get(hash) {
            Some(stripe) => Some(stripe.lock().await),
            None => None,
        }
    }

    /// Changes the secret at `path` as `edit` says, in one commit, and answers what `edit` answers.
    /// `edit` is asked again when another node was faster, and before it is believed that nothing is
    /// to be done, which may rest on something outdated.
    pub(super) async fn change<'c, R>(
        &self,
        view: &View,
        path: &str,
        with_contents: bool,
        mut edit: impl FnMut(Option<Found>) -> Result<(Change<'c>, R), CoreError>,
    ) -> Result<R, CoreError> {
        let _turn = self.of(path).await;
        let mut fresh = false;
        for _ in 0..ATTEMPTS {
            let entry = load(view, path, fresh).await?;
            let rev = entry.as_ref().map(|entry| entry.rev);
            let found = match entry {
                Some(entry) => Some(found(view, path, entry.value, with_contents).await?),
                None => None,
            };
            let (change, answer) = match edit(found) {
                Err(_) | Ok((Change::Keep, _)) if !fresh => {
                    fresh = true;
                    continue;
                }
                Ok(changed) => changed,
                Err(error) => return Err(error),
            };
            match commit(view, path, rev, change).await {
                Ok(()) => return Ok(answer),
                Err(error) if error.is_conflict() => fresh = true,
                Err(error) => return Err(error),
            }
        }
        Err(CoreError::Overloaded { retry_after: Ttl::from_secs(1) })
    }
}

async fn found(
    view: &View,
    path: &str,
    metadata: Metadata,
    with_contents: bool,
) -> Result<Found, CoreError> {
    let contents = match metadata.latest() {
        latest if with_contents && latest > 0 => contents(view, path, latest).await?,
        _ => None,
    };
    Ok(Found { metadata, contents })
}

async fn commit(
    view: &View,
    path: &str,
    rev: Option<u64>,
    change: Change<'_>,
) -> Result<(), CoreError> {
    let precondition = rev.map_or(Precondition::Absent, Precondition::Rev);
    let mut batch = Batch::new();
    let shredded = match change {
        Change::Keep => return Ok(()),
        Change::Remove { shredded } => {
            view.delete(&mut batch, &metadata_name(path), precondition);
            shredded
        }
        Change::Save { metadata, contents, shredded } => {
            let name = metadata_name(path);
            view.put(&mut batch, &name, &metadata, precondition, PutOptions::default())?;
            if let Some((version, contents)) = contents {
                let name = contents_name(path, version);
                let new = Precondition::Absent;
                view.put(&mut batch, &name, &contents, new, PutOptions::default())?;
            }
            shredded
        }
    };
    for version in shredded {
        view.delete(&mut batch, &contents_name(path, version), WRITTEN_ONCE);
    }
    view.commit(&batch).await
}
