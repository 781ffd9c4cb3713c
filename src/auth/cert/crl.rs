//! Revocation lists of a mount: given as they are, or fetched from where they are published.
//!
//! A fetched list travels over a network that nobody trusts, so it counts only when an authority that
//! is trusted here has signed it. A refresh replaces a list by one of the same authority that is no
//! older, and by nothing else; whatever goes wrong, the list in effect stays, and the failure shows.

use std::sync::Arc;

use data_encoding::{BASE64, HEXLOWER};
use futures_util::stream::{self, StreamExt};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::core::crl_source::CrlSourceError;
use crate::core::engine::{AuthRequest, EngineContext};
use crate::core::error::CoreError;
use crate::core::fields::Fields;
use crate::core::operation::Operation;
use crate::core::records::{Batch, Precondition};
use crate::core::reply::Reply;
use crate::core::view::{Entry, PutOptions};
use crate::crypto::x509::crl::{Crl, CrlError, Crls, ExpiredCrl};
use crate::types::time::{Timestamp, Ttl};

use super::CertMethod;

/// Most lists of one mount.
const CRLS_MAX: usize = 64;
/// Most serial numbers shown of one list.
const SERIALS_SHOWN_MAX: usize = 10_000;
/// Lists of one mount that are fetched at the same time.
const FETCHED_AT_ONCE: usize = 4;
/// How long before its next update a list is fetched again at the latest.
const BEFORE_NEXT_UPDATE: Ttl = Ttl::from_secs(600);

/// A revocation list.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct StoredCrl {
    pem: String,
    accept_expired: bool,
    /// Where it is fetched from.
    #[serde(default)]
    url: Option<String>,
}

/// What became of fetching a list. Beside the list, which may be large and seldom changes.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Fetches {
    /// When it was last fetched.
    fetched_at: Option<Timestamp>,
    /// Why the last attempt failed, if it did.
    failure: Option<String>,
}

impl StoredCrl {
    fn lists(&self) -> Result<Vec<Crl>, CrlError> {
        Crl::from_file_bytes(self.pem.as_bytes())
    }

    fn parsed(&self) -> Result<Vec<Crl>, CoreError> {
        self.lists().map_err(|_| CoreError::internal("a stored revocation list does not parse"))
    }

    pub(super) fn add_to(&self, crls: &mut Crls) -> Result<(), CoreError> {
        let expired = if self.accept_expired { ExpiredCrl::Accept } else { ExpiredCrl::Refuse };
        for list in self.parsed()? {
            crls.push(Arc::new(list), expired);
        }
        Ok(())
    }

    fn next_update(&self) -> Result<Option<Timestamp>, CoreError> {
        Ok(self.parsed()?.iter().filter_map(Crl::next_update).min())
    }

    fn to_json(&self, fetches: Option<&Fetches>) -> Result<Value, CoreError> {
        let lists = self.parsed()?;
        let serials: Map<String, Value> = lists
            .iter()
            .flat_map(Crl::revoked_serials)
            .take(SERIALS_SHOWN_MAX)
            .map(|serial| (HEXLOWER.encode(serial), json!({})))
            .collect();
        let issued_at = lists.iter().map(Crl::issued_at).min();
        let next_update = lists.iter().filter_map(Crl::next_update).min();
        let mut shown = json!({
            "serials": serials,
            "revoked_count": lists.iter().map(Crl::revoked_count).sum::<usize>(),
            "issued_at": issued_at.map(|at| at.to_rfc3339()),
            "next_update": next_update.map(|at| at.to_rfc3339()),
            "on_expiry": if self.accept_expired { "accept" } else { "refuse" },
        });
        if let (Some(url), Some(shown)) = (&self.url, shown.as_object_mut()) {
            let fetched_at = fetches.and_then(|fetches| fetches.fetched_at);
            shown.insert("url".into(), json!(url));
            shown.insert("fetched_at".into(), json!(fetched_at.map(|at| at.to_rfc3339())));
            shown.insert("failure".into(), json!(fetches.and_then(|f| f.failure.as_ref())));
        }
        Ok(shown)
    }
}

fn list_at(name: &str) -> String {
    format!("crl/{name}")
}

fn fetches_at(name: &str) -> String {
    format!("crl-fetches/{name}")
}

impl CertMethod {
    pub(super) async fn serve_crl(
        &self,
        ctx: &EngineContext<'_>,
        request: &AuthRequest<'_>,
    ) -> Result<Reply, CoreError> {
        let name = request.params.get("name");
        match request.operation {
            Operation::Read => {
                let crl = ctx.view.get::<StoredCrl>(&list_at(name)).await?;
                let crl = crl.ok_or(CoreError::NotFound)?.value;
                let fetches = ctx.view.get::<Fetches>(&fetches_at(name)).await?;
                let fetches = fetches.map(|entry| entry.value);
                Ok(Reply::data(crl.to_json(fetches.as_ref())?))
            }
            Operation::Delete => {
                let _changing = self.changing.lock().await;
                let mut batch = Batch::new();
                ctx.view.delete(&mut batch, &list_at(name), Precondition::Any);
                ctx.view.delete(&mut batch, &fetches_at(name), Precondition::Any);
                ctx.view.commit(&batch).await?;
                self.reload(ctx).await?;
                Ok(Reply::empty())
            }
            Operation::Create | Operation::Update => {
                // Before the lock: it may take as long as a network takes.
                let crl = self.read_crl(&request.fields).await?;
                let _changing = self.changing.lock().await;
                let before = ctx.view.get_fresh::<StoredCrl>(&list_at(name)).await?;
                if before.is_none() && ctx.view.list("crl/").await?.len() >= CRLS_MAX {
                    return Err(CoreError::invalid("there are too many revocation lists"));
                }
                self.store_crl(ctx, name, &crl, Entry::expected(before.as_ref())).await?;
                self.reload(ctx).await?;
                Ok(Reply::empty())
            }
            Operation::List | Operation::Patch => Err(CoreError::Unsupported),
        }
    }

    async fn read_crl(&self, fields: &Fields) -> Result<StoredCrl, CoreError> {
        let accept_expired = match fields.text("on_expiry")?.as_deref() {
            None | Some("" | "refuse") => false,
            Some("accept") => true,
            Some(_) => return Err(CoreError::field("on_expiry", "must be refuse or accept")),
        };
        let given = fields.text("crl")?.filter(|pem| !pem.is_empty());
        let url = fields.text("url")?.filter(|url| !url.is_empty());
        let stored = match (given, url) {
            (Some(_), Some(_)) => {
                return Err(CoreError::field("url", "and the list itself exclude each other"));
            }
            (None, None) => {
                return Err(CoreError::field("crl", "is required, or \"url\" where the list is"));
            }
            (Some(pem), None) => {
                let stored = StoredCrl { pem, accept_expired, url: None };
                stored.lists().map_err(|error| CoreError::field("crl", error.to_string()))?;
                stored
            }
            (None, Some(url)) => {
                let pem = self.fetch_crl(&url).await?;
                StoredCrl { pem, accept_expired, url: Some(url) }
            }
        };
        Ok(stored)
    }

    /// The lists at `url`, in PEM, signed by authorities that are trusted here.
    async fn fetch_crl(&self, url: &str) -> Result<String, CoreError> {
        let wrong = |problem: &str| CoreError::field("url", problem);
        let fetched = self.crl_source.fetch(url).await.map_err(|error| match error {
            CrlSourceError::Refused(text) => wrong(&text),
            CrlSourceError::Failed(message) => {
                CoreError::Upstream { target: "the revocation list".into(), message }
            }
        })?;
        let lists = Crl::from_file_bytes(&fetched).map_err(|error| {
            wrong(&format!("does not lead to a list that can be used: {error}"))
        })?;
        if !lists.iter().all(|list| self.trust.vouches_for(list)) {
            return Err(wrong(
                "leads to a list that no authority has signed that is trusted here itself \
                 (authorities below one are not known by their certificates)",
            ));
        }
        match String::from_utf8(fetched) {
            Ok(pem) if pem.contains("-----BEGIN") => Ok(pem),
            Ok(der) => Ok(pem_of(der.as_bytes())),
            Err(der) => Ok(pem_of(der.as_bytes())),
        }
    }

    async fn store_crl(
        &self,
        ctx: &EngineContext<'_>,
        name: &str,
        crl: &StoredCrl,
        precondition: Precondition,
    ) -> Result<(), CoreError> {
        let mut batch = Batch::new();
        ctx.view.put(&mut batch, &list_at(name), crl, precondition, PutOptions::default())?;
        if crl.url.is_some() {
            let fetches = Fetches { fetched_at: Some(ctx.clock.now()), failure: None };
            let any = Precondition::Any;
            ctx.view.put(&mut batch, &fetches_at(name), &fetches, any, PutOptions::default())?;
        } else {
            ctx.view.delete(&mut batch, &fetches_at(name), Precondition::Any);
        }
        ctx.view.commit(&batch).await
    }

    /// Fetches the lists that are due. What fails keeps the list in effect, and is tried again.
    pub(super) async fn refresh_crls(&self, ctx: &EngineContext<'_>) -> Result<(), CoreError> {
        let stored = ctx.view.entries::<StoredCrl>("crl/").await?;
        let mut outcomes = stream::iter(stored)
            .map(|(at, entry)| async move {
                let name = at.strip_prefix("crl/").unwrap_or(&at);
                self.refresh_crl(ctx, name, entry).await
            })
            .buffer_unordered(FETCHED_AT_ONCE);
        let mut result = Ok(());
        while let Some(outcome) = outcomes.next().await {
            result = result.and(outcome);
        }
        result
    }

    async fn refresh_crl(
        &self,
        ctx: &EngineContext<'_>,
        name: &str,
        entry: Entry<StoredCrl>,
    ) -> Result<(), CoreError> {
        let Some(url) = entry.value.url.clone() else { return Ok(()) };
        let fetches = ctx.view.get_fresh::<Fetches>(&fetches_at(name)).await?;
        let fetches = fetches.map(|entry| entry.value).unwrap_or_default();
        let every = self.crl_source.refresh_every();
        if !is_due(&fetches, entry.value.next_update()?, ctx.clock.now(), every) {
            return Ok(());
        }
        let fetched = match self.fetch_crl(&url).await {
            Ok(pem) => goes_on_from(&entry.value, pem),
            Err(error) => Err(error),
        };
        let outcome = if fetched.is_ok() { "ok" } else { "failed" };
        metrics::counter!("leasehold_crl_fetches_total", "outcome" => outcome).increment(1);
        match fetched {
            Ok(fresh) => self.replace_crl(ctx, name, entry, fresh).await,
            Err(error) => {
                let mount = &ctx.mount.path;
                tracing::warn!(mount, list = name, %error, "a revocation list was not refreshed");
                let fetches = Fetches { failure: Some(error.to_string()), ..fetches };
                self.note_failure(ctx, name, &entry, &fetches).await
            }
        }
    }

    async fn replace_crl(
        &self,
        ctx: &EngineContext<'_>,
        name: &str,
        before: Entry<StoredCrl>,
        fresh: StoredCrl,
    ) -> Result<(), CoreError> {
        let _changing = self.changing.lock().await;
        let changed = fresh.pem != before.value.pem;
        match self.store_crl(ctx, name, &fresh, Precondition::Rev(before.rev)).await {
            // Somebody has given another list meanwhile, or taken it away.
            Err(error) if error.is_conflict() => Ok(()),
            Ok(()) if changed => {
                tracing::info!(
                    mount = ctx.mount.path,
                    list = name,
                    "a revocation list was renewed"
                );
                self.reload(ctx).await.map(|_| ())
            }
            other => other,
        }
    }

    async fn note_failure(
        &self,
        ctx: &EngineContext<'_>,
        name: &str,
        list: &Entry<StoredCrl>,
        fetches: &Fetches,
    ) -> Result<(), CoreError> {
        let _changing = self.changing.lock().await;
        let now = ctx.view.get_fresh::<StoredCrl>(&list_at(name)).await?;
        if now.is_none_or(|now| now.rev != list.rev) {
            return Ok(());
        }
        ctx.view.write(&fetches_at(name), fetches, Precondition::Any).await
    }
}

/// Whether a list has to be fetched: it is old, about to be stale, or could not be fetched last time.
fn is_due(fetches: &Fetches, next_update: Option<Timestamp>, now: Timestamp, every: Ttl) -> bool {
    fetches.failure.is_some()
        || fetches.fetched_at.is_none_or(|at| now.millis_since(at) >= every.as_millis())
        || next_update.is_some_and(|next| next.millis_since(now) <= BEFORE_NEXT_UPDATE.as_millis())
}

/// What was fetched, if it may take the place of what is in effect: of each authority a list that is
/// no older and covers no less, and of no other authority. Otherwise whoever sits on the way could bring
/// back a list from before a revocation, or add one that the honest file then never catches up with.
fn goes_on_from(before: &StoredCrl, pem: String) -> Result<StoredCrl, CoreError> {
    let fresh = StoredCrl { pem, accept_expired: before.accept_expired, url: before.url.clone() };
    let lists = fresh.parsed()?;
    let known = before.parsed()?;
    let replaced = known.iter().all(|old| lists.iter().any(|list| list.supersedes(old)));
    let expected = lists.iter().all(|list| known.iter().any(|old| list.supersedes(old)));
    if replaced && expected {
        return Ok(fresh);
    }
    Err(CoreError::field(
        "url",
        "leads to a list that is older than the one in effect, or another's",
    ))
}

fn pem_of(der: &[u8]) -> String {
    let body = BASE64.encode(der);
    format!("-----BEGIN X509 CRL-----\n{body}\n-----END X509 CRL-----\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::Ca;

    #[test]
    fn what_was_fetched_replaces_its_own_and_brings_no_other() {
        let (ours, other) = (Ca::root("ours"), Ca::root("other"));
        let file = |cas: &[&Ca], issued: u64| -> String {
            cas.iter().map(|ca| pem_of(&ca.crl_of(&[], issued, issued + 1000))).collect()
        };
        let before =
            StoredCrl { pem: file(&[&ours], 1_800_000_000), accept_expired: false, url: None };
        assert!(goes_on_from(&before, file(&[&ours], 1_800_000_001)).is_ok());
        for (authorities, issued) in [
            (&[&ours][..], 1_799_999_999),
            (&[&other], 1_800_000_001),
            // The honest file could never take the place of this one.
            (&[&ours, &other], 1_800_000_001),
        ] {
            assert!(goes_on_from(&before, file(authorities, issued)).is_err());
        }
    }

    #[test]
    fn a_list_is_due_when_it_is_old_or_about_to_be_stale_or_failed() {
        let now = Timestamp::from_secs(1_000_000);
        let ago =
            |secs: i64| Fetches { fetched_at: Some(now.plus_millis(-secs * 1000)), failure: None };
        let in_secs = |secs: i64| Some(now.plus_millis(secs * 1000));
        let hour = Ttl::from_secs(3600);
        assert!(!is_due(&ago(3599), None, now, hour));
        assert!(is_due(&ago(3600), None, now, hour));
        assert!(is_due(&Fetches::default(), None, now, hour));
        assert!(!is_due(&ago(10), in_secs(601), now, hour));
        assert!(is_due(&ago(10), in_secs(600), now, hour));
        assert!(is_due(&ago(10), in_secs(-600), now, hour));
        assert!(is_due(&Fetches { failure: Some("x".into()), ..ago(10) }, None, now, hour));
    }
}
