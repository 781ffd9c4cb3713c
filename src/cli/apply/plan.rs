//! What differs between a document and a server, and the writes that would make it the same.

use serde_json::{Map, Value};

use super::document::{Ask, Document, Mount, Object, Policy, Wanted};
use super::secrets::is_masked;
use super::territory::Territory;
use crate::cli::error::CliError;
use crate::cli::meaning::{answered, is_unset, same};
use crate::cli::session::Environment;
use crate::client::{Client, ClientError, Request, Verb};
use crate::types::secret::SecretString;

/// Settings that a mount may leave to the server: their own value, zero if not set, is in the
/// listing, while `tune` answers what is in effect.
const LISTED: &[&str] = &["default_lease_ttl", "max_lease_ttl"];

/// What sort of thing a step is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Policy,
    PasswordPolicy,
    Engine,
    Method,
    Config,
    Quota,
}

impl Kind {
    /// For people and for programs.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Policy => "policy",
            Self::PasswordPolicy => "password policy",
            Self::Engine => "secrets engine",
            Self::Method => "auth method",
            Self::Config => "config",
            Self::Quota => "quota",
        }
    }

    /// Where the server keeps things of this sort; a config has its whole path for a name.
    pub(super) const fn home(self) -> &'static str {
        match self {
            Self::Policy => "sys/policies/acl/",
            Self::PasswordPolicy => "sys/policies/password/",
            Self::Engine => "sys/mounts/",
            Self::Method => "sys/auth/",
            Self::Config => "",
            Self::Quota => "sys/quotas/",
        }
    }
}

/// What becomes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Create,
    Update,
    Delete,
}

/// One field that is to change.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Difference {
    pub(super) field: String,
    pub(super) from: Option<Value>,
    pub(super) to: To,
}

/// What a field is to become.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum To {
    /// This.
    Value(Value),
    /// What must not be shown.
    Hidden,
    /// What the server will answer at that path once it is there.
    Later(String),
}

/// A value to send.
#[derive(Debug)]
pub(super) enum Given {
    Plain(Value),
    Secret(SecretString),
    /// What the server will answer by then.
    Later(Ask),
    /// The same, as a list.
    LaterAll(Vec<Ask>),
}

/// One request.
#[derive(Debug)]
pub(super) enum Deed {
    Write { path: String, fields: Vec<(String, Given)> },
    Delete { path: String },
}

/// One thing that is to change, and the requests that change it.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) kind: Kind,
    pub(super) action: Action,
    pub(super) name: String,
    pub(super) differences: Vec<Difference>,
    pub(super) notes: Vec<String>,
    pub(super) deeds: Vec<Deed>,
}

/// All that is to change, in the order in which it can be done.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) steps: Vec<Step>,
    /// How many things are as they should be.
    pub(super) in_place: usize,
    /// Fields of what is in place that the server does not answer, so that nobody can tell.
    pub(super) unread: Vec<String>,
}

/// How the plan will be used.
#[derive(Clone, Copy, Debug)]
pub(super) struct Purpose {
    /// Only to see: secrets that are not there are no reason to fail.
    pub(super) check: bool,
    /// Write secrets that cannot be compared.
    pub(super) write_secrets: bool,
}

/// Reads a server against a document.
pub(super) struct Planner<'a> {
    pub(super) client: &'a Client,
    env: &'a Environment,
    purpose: Purpose,
    pub(super) territory: Territory,
    pub(super) plan: Plan,
}

impl<'a> Planner<'a> {
    /// Looks at what is mounted.
    ///
    /// # Errors
    /// As the server answers.
    pub(super) async fn start(
        client: &'a Client,
        env: &'a Environment,
        purpose: Purpose,
        document: &Document,
    ) -> Result<Self, CliError> {
        let mut found = Vec::new();
        for path in ["sys/mounts", "sys/auth"] {
            let data = find(client, path).await?.ok_or(CliError::Answer("mounts"))?;
            let Value::Object(listing) = data else { return Err(CliError::Answer("mounts")) };
            found.push(listing);
        }
        let (methods, engines) = (found.pop().unwrap_or_default(), found.pop().unwrap_or_default());
        let territory = Territory::new(engines, methods, document);
        Ok(Self { client, env, purpose, territory, plan: Plan::default() })
    }

    /// Compares everything in the document.
    ///
    /// # Errors
    /// As the server answers; paths that are no configuration; secrets that are not there.
    pub(super) async fn compare(&mut self, document: &Document) -> Result<(), CliError> {
        for policy in &document.policies {
            self.policy(Kind::Policy, policy).await?;
        }
        for policy in &document.password_policies {
            self.policy(Kind::PasswordPolicy, policy).await?;
        }
        for mount in &document.mounts {
            self.mount(Kind::Engine, mount).await?;
        }
        for mount in &document.auth {
            self.mount(Kind::Method, mount).await?;
        }
        for object in &document.config {
            self.object(Kind::Config, object).await?;
        }
        for object in &document.quotas {
            self.object(Kind::Quota, object).await?;
        }
        Ok(())
    }

    fn settle(&mut self, step: Step) {
        if step.differences.is_empty() && step.action == Action::Update {
            self.plan.in_place += 1;
        } else {
            self.plan.steps.push(step);
        }
    }

    async fn policy(&mut self, kind: Kind, policy: &Policy) -> Result<(), CliError> {
        let path = format!("{}{}", kind.home(), policy.name);
        let wanted = Value::String(policy.text.clone());
        let found = find(self.client, &path).await?;
        let before = found.as_ref().and_then(|data| data.get("policy")).cloned();
        let action = if found.is_some() { Action::Update } else { Action::Create };
        let mut differences = Vec::new();
        if !before.as_ref().is_some_and(|before| same("policy", &wanted, before)) {
            differences.push(Difference {
                field: "policy".to_owned(),
                from: before,
                to: To::Value(wanted.clone()),
            });
        }
        let fields = vec![("policy".to_owned(), Given::Plain(wanted))];
        self.settle(Step {
            kind,
            action,
            name: policy.name.clone(),
            differences,
            notes: Vec::new(),
            deeds: vec![Deed::Write { path, fields }],
        });
        Ok(())
    }

    async fn mount(&mut self, kind: Kind, mount: &Mount) -> Result<(), CliError> {
        let path = format!("{}{}", kind.home(), mount.path);
        let Some(listed) = self.territory.listed(kind, &mount.path).cloned() else {
            self.settle(created_mount(kind, mount, &path));
            return Ok(());
        };
        let there = listed.get("type").and_then(Value::as_str).unwrap_or_default();
        if there != mount.kind {
            return Err(CliError::local(
                format!("{} is of type {there}, not {}", mount.path, mount.kind),
                "a type cannot be changed: correct the document, or unmount it, which deletes \
                 what it holds",
            ));
        }
        let tune_path = format!("{path}/tune");
        let mut tuned = find(self.client, &tune_path).await?.unwrap_or_default();
        if let (Some(tuned), Some(config)) = (tuned.as_object_mut(), listed.get("config")) {
            for name in LISTED {
                tuned.insert((*name).to_owned(), config.get(*name).cloned().unwrap_or_default());
            }
        }
        let mut differences = Vec::new();
        let mut fields = Vec::new();
        if let Some(description) = &mount.description {
            let wanted = Value::String(description.clone());
            let found = listed.get("description").unwrap_or(&Value::Null);
            if !same("description", &wanted, found) {
                differences.push(difference("description", Some(found), &wanted));
                fields.push(("description".to_owned(), Given::Plain(wanted)));
            }
        }
        let options = listed.get("options").unwrap_or(&Value::Null);
        let changed = within("options", &mount.options, options);
        if !changed.is_empty() {
            let wanted = Value::Object(mount.options.clone());
            fields.push(("options".to_owned(), Given::Plain(wanted)));
            differences.extend(changed);
        }
        for (name, wanted) in &mount.tune {
            let found = tuned.get(name);
            let changed = match (wanted, found) {
                (_, None) => {
                    self.plan.unread.push(format!("{} {name}", mount.path));
                    continue;
                }
                (Value::Object(wanted), Some(found)) => within(name, wanted, found),
                (wanted, Some(found)) if same(name, wanted, found) => Vec::new(),
                (wanted, Some(found)) => vec![difference(name, Some(found), wanted)],
            };
            if !changed.is_empty() {
                fields.push((name.clone(), Given::Plain(wanted.clone())));
                differences.extend(changed);
            }
        }
        self.settle(Step {
            kind,
            action: Action::Update,
            name: mount.path.clone(),
            differences,
            notes: Vec::new(),
            deeds: vec![Deed::Write { path: tune_path, fields }],
        });
        Ok(())
    }

    async fn object(&mut self, kind: Kind, object: &Object) -> Result<(), CliError> {
        let place = self.territory.place(&object.path).map_err(|reason| {
            CliError::local(
                format!("line {}: {}: {reason}", object.line, object.path),
                "docs/apply.md says what a document may set",
            )
        })?;
        let found = if place.is_there {
            find(self.client, &object.path)
                .await
                .map_err(|error| error.at(format!("line {}: {}", object.line, object.path)))?
        } else {
            None
        };
        let step = match found {
            None => self.created(kind, object).await?,
            Some(mut data) => {
                if place.kind == "approle" {
                    self.add_role_id(object, &mut data).await?;
                }
                let mut step = self.changed(kind, object, &data, place.is_whole).await?;
                if place.is_whole && !step.differences.is_empty() {
                    self.complete(object, &data, &mut step)?;
                }
                step
            }
        };
        self.settle(step);
        Ok(())
    }

    /// The role ID of a role is answered beside it.
    async fn add_role_id(&self, object: &Object, data: &mut Value) -> Result<(), CliError> {
        if object.fields.iter().any(|(name, _)| name == "role_id")
            && let Some(answer) = find(self.client, &format!("{}/role-id", object.path)).await?
            && let (Some(id), Some(data)) = (answer.get("role_id"), data.as_object_mut())
        {
            data.insert("role_id".to_owned(), id.clone());
        }
        Ok(())
    }

    async fn created(&self, kind: Kind, object: &Object) -> Result<Step, CliError> {
        let mut differences = Vec::new();
        let mut fields = Vec::new();
        for (name, wanted) in &object.fields {
            let (to, given) = match wanted {
                Wanted::Plain(value) => {
                    (To::Value(value.clone()), Some(Given::Plain(value.clone())))
                }
                Wanted::Secret(_) if self.purpose.check => (To::Hidden, None),
                Wanted::Secret(source) => {
                    let secret = source.read(self.env, &object.path, name)?;
                    (To::Hidden, Some(Given::Secret(secret)))
                }
                Wanted::Answer(ask) => self.answer(ask).await?,
                Wanted::Answers(asks) => self.answers(asks).await?,
            };
            differences.push(Difference { field: name.clone(), from: None, to });
            fields.extend(given.map(|given| (name.clone(), given)));
        }
        Ok(step(kind, Action::Create, object, differences, fields))
    }

    async fn answer(&self, ask: &Ask) -> Result<(To, Option<Given>), CliError> {
        Ok(match ask_now(self.client, ask).await? {
            Some(value) => (To::Value(value.clone()), Some(Given::Plain(value))),
            None => (To::Later(ask.path.clone()), Some(Given::Later(ask.clone()))),
        })
    }

    async fn answers(&self, asks: &[Ask]) -> Result<(To, Option<Given>), CliError> {
        let mut known = Vec::new();
        for ask in asks {
            match ask_now(self.client, ask).await? {
                Some(value) => known.push(value),
                None => {
                    let later = Given::LaterAll(asks.to_vec());
                    return Ok((To::Later(ask.path.clone()), Some(later)));
                }
            }
        }
        let known = Value::Array(known);
        Ok((To::Value(known.clone()), Some(Given::Plain(known))))
    }

    async fn changed(
        &mut self,
        kind: Kind,
        object: &Object,
        data: &Value,
        is_whole: bool,
    ) -> Result<Step, CliError> {
        let mut differences = Vec::new();
        let mut fields = Vec::new();
        let mut withheld = Vec::new();
        for (name, wanted) in &object.fields {
            let found = answered(data, name);
            let (to, given) = match wanted {
                Wanted::Plain(value) => {
                    (To::Value(value.clone()), Some(Given::Plain(value.clone())))
                }
                Wanted::Answer(ask) => self.answer(ask).await?,
                Wanted::Answers(asks) => self.answers(asks).await?,
                Wanted::Secret(source) => {
                    let shown = found.and_then(Value::as_str).filter(|text| !is_masked(text));
                    if shown.is_none() && !self.purpose.write_secrets {
                        withheld.push(name.clone());
                        continue;
                    }
                    let secret = match source.read(self.env, &object.path, name) {
                        Ok(secret) => secret,
                        Err(_) if self.purpose.check => {
                            withheld.push(name.clone());
                            continue;
                        }
                        Err(error) => return Err(error),
                    };
                    if shown.is_none_or(|shown| !secret.ct_eq(shown.trim_end())) {
                        let field = name.clone();
                        differences.push(Difference { field, from: None, to: To::Hidden });
                        fields.push((name.clone(), Given::Secret(secret)));
                    }
                    continue;
                }
            };
            match (&to, found) {
                (To::Value(value), Some(found)) if same(name, value, found) => {}
                (To::Value(_), None) => self.plan.unread.push(format!("{} {name}", object.path)),
                (To::Value(_) | To::Hidden | To::Later(_), found) => {
                    differences.push(Difference { field: name.clone(), from: found.cloned(), to });
                }
            }
            fields.extend(given.map(|given| (name.clone(), given)));
        }
        let mut step = step(kind, Action::Update, object, differences, fields);
        if !withheld.is_empty() {
            let names = withheld.join(", ");
            if step.differences.is_empty() {
                self.plan.unread.push(format!("{} {names}", object.path));
            } else if !is_whole {
                step.notes.push(format!("{names}: left as it is; -write-secrets writes it too"));
            }
        }
        Ok(step)
    }

    /// Adds to the change of what is written whole all that would be unset by it: secrets of the
    /// document, and what is set on the server and nowhere in the document.
    fn complete(&self, object: &Object, data: &Value, step: &mut Step) -> Result<(), CliError> {
        let Some(Deed::Write { fields, .. }) = step.deeds.first_mut() else { return Ok(()) };
        let mut has_secret = false;
        for (name, wanted) in &object.fields {
            let Wanted::Secret(source) = wanted else { continue };
            has_secret = true;
            if fields.iter().any(|(given, _)| given == name) {
                continue;
            }
            step.differences.push(Difference { field: name.clone(), from: None, to: To::Hidden });
            if !self.purpose.check {
                let secret = source.read(self.env, &object.path, name)?;
                fields.push((name.clone(), Given::Secret(secret)));
            }
        }
        let mut unnamed = false;
        for (name, value) in data.as_object().into_iter().flatten() {
            let is_named = object.fields.iter().any(|(given, _)| given == name);
            // What is false may be true where it is left out.
            if is_unset(name, value) && !value.is_boolean() {
                continue;
            }
            // What there is instead of a secret in an answer.
            unnamed |=
                name.ends_with("_set") && *value == Value::Bool(true) || name == "oidc_client_id";
            if !is_named && !name.ends_with("_set") {
                fields.push((name.clone(), Given::Plain(value.clone())));
            }
        }
        if unnamed && !has_secret {
            step.notes.push(
                "a secret that is set there and not in the document is unset by this: it is \
                 written whole"
                    .to_owned(),
            );
        }
        Ok(())
    }
}

fn step(
    kind: Kind,
    action: Action,
    object: &Object,
    differences: Vec<Difference>,
    fields: Vec<(String, Given)>,
) -> Step {
    let path = object.path.clone();
    let name = path.strip_prefix(kind.home()).unwrap_or(&path).to_owned();
    let deeds = vec![Deed::Write { path, fields }];
    Step { kind, action, name, differences, notes: Vec::new(), deeds }
}

fn created_mount(kind: Kind, mount: &Mount, path: &str) -> Step {
    let plain = |value: &Value| Given::Plain(value.clone());
    let kind_value = Value::String(mount.kind.clone());
    let mut differences = vec![difference("type", None, &kind_value)];
    let mut fields = vec![("type".to_owned(), plain(&kind_value))];
    if let Some(description) = &mount.description {
        let value = Value::String(description.clone());
        differences.push(difference("description", None, &value));
        fields.push(("description".to_owned(), plain(&value)));
    }
    if !mount.options.is_empty() {
        let value = Value::Object(mount.options.clone());
        differences.push(difference("options", None, &value));
        fields.push(("options".to_owned(), plain(&value)));
    }
    let mut deeds = vec![Deed::Write { path: path.to_owned(), fields }];
    if !mount.tune.is_empty() {
        differences.extend(mount.tune.iter().map(|(name, value)| difference(name, None, value)));
        let fields = mount.tune.iter().map(|(name, value)| (name.clone(), plain(value))).collect();
        deeds.push(Deed::Write { path: format!("{path}/tune"), fields });
    }
    let (name, notes) = (mount.path.clone(), Vec::new());
    Step { kind, action: Action::Create, name, differences, notes, deeds }
}

fn difference(field: &str, from: Option<&Value>, to: &Value) -> Difference {
    Difference { field: field.to_owned(), from: from.cloned(), to: To::Value(to.clone()) }
}

/// The differences of the members of an object that are wanted; others are the server's own.
fn within(object: &str, wanted: &Map<String, Value>, found: &Value) -> Vec<Difference> {
    let differing = wanted.iter().filter_map(|(name, wanted)| {
        let found = found.get(name);
        let equal = same(name, wanted, found.unwrap_or(&Value::Null));
        (!equal).then(|| difference(&format!("{object}.{name}"), found, wanted))
    });
    differing.collect()
}

/// What the server answers to `ask`; `None` when it is not there.
///
/// # Errors
/// As [`find`].
pub(super) async fn ask_now(client: &Client, ask: &Ask) -> Result<Option<Value>, CliError> {
    match find(client, &ask.path).await {
        Ok(found) => Ok(found.and_then(|data| data.get(&ask.field).cloned())),
        // Of a mount that is not there, servers say that the question makes no sense.
        Err(error) if error.status() == Some(400) => Ok(None),
        Err(error) => Err(error),
    }
}

/// What the server answers at `path`; `None` when there is nothing.
///
/// # Errors
/// As the server answers; an answer that is a lease or a token, which no configuration is.
pub(super) async fn find(client: &Client, path: &str) -> Result<Option<Value>, CliError> {
    let reply = match client.send(Request::new(Verb::Read, path).retried()).await {
        Ok(reply) => reply,
        Err(ClientError::Refused(refusal)) if refusal.status == 404 => return Ok(None),
        Err(error) => return Err(CliError::from(error).at(format!("cannot read {path}"))),
    };
    let lease = reply.body.get("lease_id").and_then(Value::as_str).filter(|id| !id.is_empty());
    if lease.is_some() || reply.body.get("auth").is_some_and(Value::is_object) {
        return Err(CliError::local(
            format!("{path} hands out credentials, it is not configuration"),
            "take it out of the document, and revoke the lease that reading it has just made",
        ));
    }
    Ok(Some(reply.data().clone()))
}
