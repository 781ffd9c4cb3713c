//! A second factor at log-in: methods, whom they are demanded of, and the proof.
//!
//! Whoever passes a log-in that an enforcement covers gets no token yet but a request id, for which a
//! code of one method of each such enforcement has to be shown. What is pending is stored, so that any
//! node can take the code, and so is how far the codes of a shared secret are used up and how many
//! wrong ones were shown: neither restarts nor further nodes give a second use or more guesses.

mod enrolment;
mod pending;
mod settings;

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::types::id::{EntityId, NamespaceId};
use crate::types::secret::SecretString;
use crate::types::time::{Clock, Ttl};

use super::error::CoreError;
use super::identity::Snapshot;
use super::records::{Records, kinds};
use super::view::View;

pub use enrolment::{Enrolled, stage_merge, stage_removal};
pub use pending::{PENDING_FOR, Pending, certificate_of};
pub use settings::{Asks, Enforcement, Method, Settings};

/// How often a change is tried again when the same record is changed elsewhere meanwhile.
const ATTEMPTS: usize = 16;
/// How long wrong codes lock a shared secret, and how long one counts when no other follows.
const LOCKED_FOR: Ttl = Ttl::from_secs(15 * 60);
/// What every refusal of a code or a request id answers.
const REFUSED: &str = "the second factor was not proven";

/// A code that is shown for a method.
pub struct Shown {
    /// The method, by id or name.
    pub method: String,
    /// The code; empty for none.
    pub code: SecretString,
}

/// What one enforcement wants to see of an identity.
pub struct Wanted {
    /// The enforcement's name.
    pub enforcement: String,
    /// The methods that the identity has a shared secret for, one of which has to be proven.
    pub any: Vec<Method>,
}

/// The second factors of an unsealed server.
pub struct Mfa {
    records: Arc<Records>,
    clock: Arc<dyn Clock>,
    settings: Snapshot<Settings>,
}

impl Mfa {
    /// Those in `records`.
    pub fn new(records: Arc<Records>, clock: Arc<dyn Clock>) -> Self {
        Self { records, clock, settings: Snapshot::default() }
    }

    /// Another node has changed something.
    pub fn forget(&self) {
        self.settings.forget();
    }

    /// The enforcements that cover a log-in.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn demanded(&self, asks: &Asks<'_>) -> Result<Vec<Enforcement>, CoreError> {
        let settings = self.settings().await?;
        let covering = settings.enforcements.values().filter(|one| one.covers(asks));
        Ok(covering.cloned().collect())
    }

    /// What `entity` has to show for `enforcements`.
    ///
    /// # Errors
    /// `Invalid` when it has a shared secret for none of the methods of one of them.
    pub async fn wanted(
        &self,
        entity: &EntityId,
        enforcements: &[Enforcement],
    ) -> Result<Vec<Wanted>, CoreError> {
        let settings = self.settings().await?;
        let enrolled: BTreeSet<String> = self.enrolled(entity).await?.into_iter().collect();
        let wanted = |enforcement: &Enforcement| {
            let has = enforcement.methods.iter().filter(|id| enrolled.contains(*id));
            let any: Vec<_> = has.filter_map(|id| settings.methods.get(id)).cloned().collect();
            if any.is_empty() {
                return Err(CoreError::invalid(format!(
                    "the login enforcement {:?} demands a one-time password, and the entity {entity} has \
                     no secret to make one with: an administrator can give it one",
                    enforcement.name
                )));
            }
            Ok(Wanted { enforcement: enforcement.name.clone(), any })
        };
        enforcements.iter().map(wanted).collect()
    }

    /// Checks the codes that are shown for `enforcements`: of each, one method has to be proven. A
    /// code that counts is used up, whatever becomes of the others.
    ///
    /// # Errors
    /// `Refused`, whatever the reason; that stays in the audit.
    pub async fn prove(
        &self,
        entity: &EntityId,
        enforcements: &[Enforcement],
        shown: &[Shown],
    ) -> Result<(), CoreError> {
        let settings = self.settings().await?;
        let mut proven = BTreeSet::new();
        for enforcement in enforcements {
            if enforcement.methods.iter().any(|id| proven.contains(id)) {
                continue;
            }
            let code_of = |method: &Method| {
                let named = |one: &&Shown| {
                    one.method == method.id
                        || (!method.name.is_empty() && one.method == method.name)
                };
                shown.iter().find(named).filter(|one| !one.code.expose().is_empty())
            };
            let mut methods = enforcement.methods.iter().filter_map(|id| settings.methods.get(id));
            let found = methods.find_map(|method| Some((method, code_of(method)?)));
            let Some((method, shown)) = found else {
                let name = &enforcement.name;
                return Err(refused(format!("no code for the login enforcement {name:?}")));
            };
            self.check(entity, method, &shown.code).await?;
            proven.insert(method.id.clone());
        }
        Ok(())
    }

    fn view(&self, base: &str) -> View {
        view(&self.records, base)
    }
}

fn view(records: &Arc<Records>, base: &str) -> View {
    View::new(records.clone(), NamespaceId::ROOT, kinds::MFA, base.to_owned())
}

fn refused(reason: impl Into<String>) -> CoreError {
    CoreError::Refused { answer: REFUSED, reason: reason.into() }
}

#[cfg(test)]
mod tests;
