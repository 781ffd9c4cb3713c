//! Deleting what the document does not name, within the scopes that were asked for.

use std::collections::BTreeSet;

use serde_json::Value;

use super::document::{Document, Mount, Object, Policy};
use super::plan::{Action, Deed, Kind, Planner, Step};
use crate::cli::error::CliError;
use crate::client::{ClientError, Request, Verb};

/// Scopes by name; every other one is the path of a collection.
const SCOPES: &[&str] = &["policies", "password-policies", "mounts", "auth", "quotas"];
/// Policies that every server has.
const POLICIES_KEPT: &[&str] = &["root", "default"];
/// Types that the server mounts by itself.
const OWN_TYPES: &[&str] = &["system", "identity", "cubbyhole", "token"];

impl Planner<'_> {
    /// Plans the deletions, after everything else and in the opposite order.
    ///
    /// # Errors
    /// As the server answers; a scope that is none; a mount that may hold data without `data`.
    pub(super) async fn prune(
        &mut self,
        document: &Document,
        scopes: &[String],
        data: bool,
    ) -> Result<(), CliError> {
        let wants = |scope: &str| scopes.iter().any(|wanted| wanted == scope);
        let paths = scopes.iter().filter(|scope| !SCOPES.contains(&scope.as_str()));
        for path in paths.clone() {
            self.territory.is_collection(path.trim_end_matches('/')).map_err(|reason| {
                CliError::local(
                    format!("cannot prune {path}: it {reason}"),
                    format!("scopes are {} and paths like auth/approle/role", SCOPES.join(", ")),
                )
            })?;
        }
        if wants("quotas") {
            for kind in ["rate-limit", "lease-count"] {
                let at = format!("sys/quotas/{kind}");
                self.prune_below(Kind::Quota, &at, &named(&document.quotas)).await?;
            }
        }
        for path in paths {
            let at = path.trim_end_matches('/');
            self.prune_below(Kind::Config, at, &named(&document.config)).await?;
        }
        if wants("auth") {
            self.prune_mounts(Kind::Method, &document.auth, data).await?;
        }
        if wants("mounts") {
            self.prune_mounts(Kind::Engine, &document.mounts, data).await?;
        }
        for (scope, kind, policies) in [
            ("password-policies", Kind::PasswordPolicy, &document.password_policies),
            ("policies", Kind::Policy, &document.policies),
        ] {
            if wants(scope) {
                let at = kind.home().trim_end_matches('/');
                self.prune_below(kind, at, &policy_paths(kind, policies)).await?;
            }
        }
        Ok(())
    }

    /// Plans to delete the entries at `at` whose path is not among `kept`.
    async fn prune_below(
        &mut self,
        kind: Kind,
        at: &str,
        kept: &BTreeSet<String>,
    ) -> Result<(), CliError> {
        let there: BTreeSet<String> =
            self.names(at).await?.into_iter().map(|name| format!("{at}/{name}")).collect();
        // A server that knows a name in lower case alone lists it so; beside the name as it stands in
        // the document, one in lower case is another.
        let folded: BTreeSet<String> =
            kept.iter().filter(|path| !there.contains(*path)).map(|p| p.to_lowercase()).collect();
        for path in there {
            let name = path.strip_prefix(at).unwrap_or_default().trim_start_matches('/');
            let is_ours = kind == Kind::Policy && POLICIES_KEPT.contains(&name);
            let is_kept = kept.contains(&path) || folded.contains(&path);
            if !is_ours && !path.ends_with('/') && !is_kept {
                let shown = path.strip_prefix(kind.home()).unwrap_or(&path).to_owned();
                self.plan.steps.push(deletion(kind, shown, path, Vec::new()));
            }
        }
        Ok(())
    }

    async fn prune_mounts(
        &mut self,
        kind: Kind,
        kept: &[Mount],
        data: bool,
    ) -> Result<(), CliError> {
        let extra: Vec<(String, bool)> = self
            .territory
            .all(kind)
            .filter(|(_, entry)| {
                let own = entry.get("type").and_then(Value::as_str).unwrap_or_default();
                !OWN_TYPES.contains(&own)
            })
            .filter(|(path, _)| !kept.iter().any(|mount| mount.path == *path))
            .map(|(path, entry)| (path.to_owned(), entry.get("type") == Some(&"kv".into())))
            .collect();
        for (path, is_kv) in extra {
            // Only kv can say that it holds nothing; everything else is taken to hold something.
            let empty = is_kv
                && self.names(&path).await?.is_empty()
                && self.names(&format!("{path}/metadata")).await?.is_empty();
            if !empty && !data {
                return Err(CliError::local(
                    format!("pruning the {} {path} would delete what it holds", kind.name()),
                    "add it to the document, or give -prune-data as well",
                ));
            }
            let notes = if empty {
                Vec::new()
            } else {
                vec!["everything that it holds is deleted with it".to_owned()]
            };
            let api = format!("{}{path}", kind.home());
            self.plan.steps.push(deletion(kind, path, api, notes));
        }
        Ok(())
    }

    async fn names(&self, path: &str) -> Result<Vec<String>, CliError> {
        match self.client.send(Request::new(Verb::List, path).retried()).await {
            Ok(reply) => {
                let keys = reply.data().get("keys").and_then(Value::as_array).cloned();
                let keys = keys.unwrap_or_default().into_iter();
                Ok(keys.filter_map(|key| key.as_str().map(str::to_owned)).collect())
            }
            Err(ClientError::Refused(refusal)) if refusal.status == 404 => Ok(Vec::new()),
            Err(error) => Err(CliError::from(error).at(format!("cannot list {path}"))),
        }
    }
}

fn deletion(kind: Kind, name: String, path: String, notes: Vec<String>) -> Step {
    let deeds = vec![Deed::Delete { path }];
    Step { kind, action: Action::Delete, name, differences: Vec::new(), notes, deeds }
}

fn named(objects: &[Object]) -> BTreeSet<String> {
    objects.iter().map(|object| object.path.clone()).collect()
}

fn policy_paths(kind: Kind, policies: &[Policy]) -> BTreeSet<String> {
    policies.iter().map(|policy| format!("{}{}", kind.home(), policy.name)).collect()
}
