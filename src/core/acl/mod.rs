//! Judging requests by policies.
//!
//! A policy is compiled once ([`CompiledPolicy`]) and shared. An [`Acl`] is the policies of one
//! caller; making one costs little more than a vector, because nothing is merged: rules of several
//! policies on the same path are found and united while judging.
//!
//! Which rule judges a path, in this order, as stock servers do it:
//! 1. the rules whose path is exactly the request's;
//! 2. for LIST, those whose path is the request's without its final slash;
//! 3. the highest of the patterns that match: later first wildcard, not ending in `*`, fewer `+`,
//!    longer, lexicographically greater;
//! 4. for LIST, the same without the final slash.
//!
//! All rules with the pattern that was found count, of whichever policy, and no other rule does:
//! capabilities are united, `deny` takes everything, conditions are merged. A narrowed caller
//! ([`Acl::narrowed`]) can do what the policies *and* the scopes allow, and never has sudo.

pub mod explain;
mod index;
pub mod permit;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde_json::{Map, Value};

use index::{OwnedRule, RuleIndex};
use permit::{Denial, Permit};

use crate::core::operation::Operation;
use crate::core::policy::capability::CapabilitySet;
use crate::core::policy::constraint::{self, Refusal};
use crate::core::policy::error::PolicyError;
use crate::core::policy::pattern::{Kind, Pattern};
use crate::core::policy::template::{Envelope, Template, TemplateValues};
use crate::core::policy::{Policy, PolicyName, Rule, Target};
use crate::core::scope::{ScopeError, ScopeSet};
use crate::types::path::ApiPath;
use crate::types::time::Ttl;

/// A policy, ready to judge.
#[derive(Debug)]
pub struct CompiledPolicy {
    name: PolicyName,
    root: bool,
    fixed: RuleIndex,
    templated: Vec<(Template, Rule)>,
}

impl CompiledPolicy {
    /// Parses and compiles policy text.
    ///
    /// # Errors
    /// What is wrong with the text and where.
    pub fn compile(name: &PolicyName, text: &str) -> Result<Arc<Self>, PolicyError> {
        Policy::parse(name, text).map(Self::new)
    }

    /// Compiles a policy.
    pub fn new(policy: Policy) -> Arc<Self> {
        let name = policy.name().clone();
        let mut fixed = Vec::new();
        let mut templated = Vec::new();
        for rule in policy.into_rules() {
            match &rule.target {
                Target::Fixed(pattern) => fixed.push(owned(&name, pattern.clone(), &rule)),
                Target::Templated(template) => templated.push((template.clone(), rule)),
            }
        }
        Arc::new(Self { name, root: false, fixed: RuleIndex::new(fixed), templated })
    }

    /// The policy that grants everything. There is no text for it.
    pub fn root() -> Arc<Self> {
        Arc::new(Self {
            name: PolicyName::root(),
            root: true,
            fixed: RuleIndex::default(),
            templated: Vec::new(),
        })
    }

    /// Its name.
    pub fn name(&self) -> &PolicyName {
        &self.name
    }
}

fn owned(policy: &PolicyName, pattern: Pattern, rule: &Rule) -> OwnedRule {
    OwnedRule {
        policy: policy.clone(),
        pattern,
        capabilities: rule.capabilities,
        constraints: rule.constraints.clone(),
    }
}

/// What a caller wants to do.
#[derive(Clone, Copy, Debug)]
pub struct CheckRequest<'a> {
    /// Where. For a LIST, with a slash at the end ([`ApiPath::to_dir`]), as rules are written.
    pub path: &'a ApiPath,
    /// What.
    pub operation: Operation,
    /// The parameters of the request: body and query; for a LIST, only `limit` is judged.
    pub parameters: Option<&'a Map<String, Value>>,
    /// The lifetime asked for when the response is to be wrapped.
    pub wrap_ttl: Option<Ttl>,
}

impl<'a> CheckRequest<'a> {
    /// A request without parameters or wrapping.
    pub fn new(path: &'a ApiPath, operation: Operation) -> Self {
        Self { path, operation, parameters: None, wrap_ttl: None }
    }
}

/// The answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision<'a> {
    /// Whether it may be done.
    pub allowed: bool,
    /// Whether the caller may use root-protected paths here; false when not allowed.
    pub sudo: bool,
    /// Why.
    pub reason: Reason<'a>,
}

/// Why a request is allowed or denied. Displays as one sentence, for the audit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason<'a> {
    /// The root policy.
    Root,
    /// A rule grants it.
    Granted {
        /// The path of the rule.
        rule: &'a str,
    },
    /// No rule matches.
    NoRule,
    /// The rule that matches denies.
    Denied {
        /// The path of the rule.
        rule: &'a str,
    },
    /// The rule that matches does not grant the operation.
    MissingCapability {
        /// The path of the rule.
        rule: &'a str,
        /// What is missing.
        operation: Operation,
    },
    /// The rule grants it under a condition that is not met.
    Constraint {
        /// The path of the rule.
        rule: &'a str,
        /// The condition.
        refusal: Refusal<'a>,
    },
    /// A denying rule might apply, but its template has no usable value for this caller.
    UnresolvedDenial {
        /// The path of the rule, with its template.
        rule: &'a str,
    },
    /// The caller is narrowed to something else.
    OutsideScopes,
}

impl fmt::Display for Reason<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => f.write_str("the root policy grants everything"),
            Self::Granted { rule } => write!(f, "the rule {rule:?} grants it"),
            Self::NoRule => f.write_str("no rule matches the path"),
            Self::Denied { rule } => write!(f, "the rule {rule:?} denies it"),
            Self::MissingCapability { rule, operation } => {
                write!(f, "the rule {rule:?} does not grant {operation}")
            }
            Self::Constraint { rule, refusal } => write!(f, "the rule {rule:?}: {refusal}"),
            Self::UnresolvedDenial { rule } => {
                write!(f, "the denying rule {rule:?} has no usable value for this caller")
            }
            Self::OutsideScopes => f.write_str("the scopes of the token do not include it"),
        }
    }
}

/// What a caller's rules say about one path or pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Granted<'a> {
    /// The path; of a pattern, without its final `*`.
    pub path: &'a str,
    /// Whether it is that path alone.
    pub exact: bool,
    /// What may be done there, in order; `deny` alone when nothing may.
    pub capabilities: Vec<&'static str>,
}

/// A denying rule whose template could not be resolved: denies wherever it might apply.
#[derive(Debug)]
struct UnresolvedDenial {
    policy: PolicyName,
    text: Box<str>,
    envelope: Envelope,
}

impl UnresolvedDenial {
    fn applies(&self, path: &str, operation: Operation) -> bool {
        self.envelope.matches(path)
            || without_slash(path, operation).is_some_and(|bare| self.envelope.matches(bare))
    }
}

/// The policies of one caller.
#[derive(Debug)]
pub struct Acl {
    policies: Vec<Arc<CompiledPolicy>>,
    root: bool,
    /// Templated rules with this caller's values.
    resolved: Option<Box<RuleIndex>>,
    unresolved: Vec<UnresolvedDenial>,
    scopes: Option<Arc<ScopeSet>>,
}

/// The pattern that judges a path, and where its rules are.
pub(super) struct Found<'a> {
    acl: &'a Acl,
    pattern: &'a Pattern,
    /// The first index that has the pattern, by position.
    at: usize,
    first: &'a [OwnedRule],
}

impl<'a> Found<'a> {
    fn rules(&self) -> impl Iterator<Item = &'a OwnedRule> + Clone + use<'a> {
        let pattern = self.pattern;
        let others = self.acl.indexes().skip(self.at + 1);
        self.first.iter().chain(others.flat_map(move |index| index.with_pattern(pattern)))
    }

    fn capabilities(&self) -> CapabilitySet {
        let all = self.rules().map(|rule| rule.capabilities);
        all.fold(CapabilitySet::NONE, |sum, one| sum | one).settled()
    }
}

impl Acl {
    /// The policies of a caller with these template values.
    pub fn new(policies: Vec<Arc<CompiledPolicy>>, values: &TemplateValues) -> Self {
        let mut resolved = Vec::new();
        let mut unresolved = Vec::new();
        for policy in &policies {
            for (template, rule) in &policy.templated {
                match template.resolve(values) {
                    Some(pattern) => resolved.push(owned(&policy.name, pattern, rule)),
                    None if rule.capabilities.contains(CapabilitySet::DENY) => {
                        unresolved.push(UnresolvedDenial {
                            policy: policy.name.clone(),
                            text: template.as_str().into(),
                            envelope: template.envelope(),
                        });
                    }
                    None => {}
                }
            }
        }
        Self {
            root: policies.iter().any(|policy| policy.root),
            policies,
            resolved: (!resolved.is_empty()).then(|| Box::new(RuleIndex::new(resolved))),
            unresolved,
            scopes: None,
        }
    }

    /// The same, able to do only what the scopes include as well. Never widens: narrowing what is
    /// narrowed already must be asked of [`Acl::covers`] first, and replaces the scopes.
    pub fn narrowed(self, scopes: Arc<ScopeSet>) -> Self {
        Self { scopes: Some(scopes), ..self }
    }

    /// Whether everything is allowed: the root policy, and not narrowed.
    pub fn is_root(&self) -> bool {
        self.root && self.scopes.is_none()
    }

    /// Judges a request.
    pub fn check<'a>(&'a self, request: &CheckRequest<'a>) -> Decision<'a> {
        match self.judge(request) {
            Ok((sudo, reason)) => Decision { allowed: true, sudo, reason },
            Err(reason) => Decision { allowed: false, sudo: false, reason },
        }
    }

    /// Judges a request and issues the proof.
    ///
    /// # Errors
    /// A denial, with the reason for the audit.
    pub fn authorize(&self, request: &CheckRequest<'_>) -> Result<Permit, Denial> {
        match self.judge(request) {
            Ok((sudo, _)) => Ok(Permit::granted(request.path, request.operation, sudo)),
            Err(reason) => Err(Denial::new(reason.to_string())),
        }
    }

    fn judge<'a>(&'a self, request: &CheckRequest<'a>) -> Result<(bool, Reason<'a>), Reason<'a>> {
        let path = request.path.as_str();
        let operation = request.operation;
        if self.scopes.as_ref().is_some_and(|scopes| !scopes.permits(request.path, operation)) {
            return Err(Reason::OutsideScopes);
        }
        if self.root {
            return Ok((self.scopes.is_none(), Reason::Root));
        }
        if let Some(denial) = self.unresolved.iter().find(|d| d.applies(path, operation)) {
            return Err(Reason::UnresolvedDenial { rule: &denial.text });
        }
        let found = self.find(path, operation).ok_or(Reason::NoRule)?;
        let rule = found.pattern.as_str();
        let capabilities = found.capabilities();
        if capabilities.contains(CapabilitySet::DENY) {
            return Err(Reason::Denied { rule });
        }
        if !capabilities.contains(CapabilitySet::needed_by(operation)) {
            return Err(Reason::MissingCapability { rule, operation });
        }
        let constraints = found.rules().filter_map(|rule| rule.constraints.as_deref());
        constraint::judge(constraints, operation, request.parameters, request.wrap_ttl)
            .map_err(|refusal| Reason::Constraint { rule, refusal })?;
        let sudo = capabilities.contains(CapabilitySet::SUDO) && self.scopes.is_none();
        Ok((sudo, Reason::Granted { rule }))
    }

    /// The capabilities on a path, by name and in order, as `sys/capabilities` answers:
    /// `["root"]` for everything, `["deny"]` for nothing.
    pub fn capabilities(&self, path: &ApiPath) -> Vec<&'static str> {
        if self.is_root() {
            return vec!["root"];
        }
        let mut set = if self.root {
            OPERATIONS.iter().fold(CapabilitySet::NONE, |sum, operation| {
                sum | CapabilitySet::needed_by(*operation)
            })
        } else if self.unresolved.iter().any(|d| d.applies(path.as_str(), Operation::List)) {
            CapabilitySet::DENY
        } else {
            // Asked as for a LIST, so that a directory finds the rule without its slash too.
            self.find(path.as_str(), Operation::List)
                .map_or(CapabilitySet::NONE, |found| found.capabilities())
        };
        if let Some(scopes) = &self.scopes {
            set = set.without(CapabilitySet::SUDO | CapabilitySet::SCAN);
            for operation in OPERATIONS {
                if !scopes.permits(path, operation) {
                    set = set.without(CapabilitySet::needed_by(operation));
                }
            }
        }
        if set.is_empty() { CapabilitySet::DENY.names() } else { set.names() }
    }

    /// Whether the scopes name only what this caller has: each of their patterns must lie whole
    /// within one pattern whose rules grant the capability and that judges there unless a more
    /// specific rule does. What such a rule inside takes away stays taken away at use.
    ///
    /// # Errors
    /// The scope that names more.
    pub fn covers(&self, scopes: &ScopeSet) -> Result<(), ScopeError> {
        if let Some(own) = &self.scopes {
            own.covers(scopes)?;
        }
        if self.root {
            return Ok(());
        }
        for scope in scopes.iter() {
            for operation in OPERATIONS {
                if scope.names(operation) && !self.grants_all(scope.pattern(), operation) {
                    return Err(scope.not_covered(operation));
                }
            }
        }
        Ok(())
    }

    fn grants_all(&self, pattern: &Pattern, operation: Operation) -> bool {
        let found = if pattern.kind() == Kind::Exact {
            let path = pattern.as_str();
            if self.unresolved.iter().any(|denial| denial.applies(path, operation)) {
                return false;
            }
            self.find(path, operation)
        } else {
            self.indexes()
                .flat_map(RuleIndex::rules)
                .map(|rule| &rule.pattern)
                .filter(|rule| rule.contains(pattern))
                .max_by_key(|rule| rule.priority())
                .and_then(|rule| self.found(rule))
        };
        found.is_some_and(|found| {
            let capabilities = found.capabilities();
            capabilities.contains(CapabilitySet::needed_by(operation))
        })
    }

    /// Whether some rule could allow something below `dir`, a path that ends in a slash. For
    /// listings of what the caller has any business with; decides nothing.
    pub fn reaches_below(&self, dir: &str) -> bool {
        let reaches = |pattern: &str| {
            let fixed = pattern.split(['*', '+']).next().unwrap_or_default();
            fixed.starts_with(dir) || (fixed.len() < pattern.len() && dir.starts_with(fixed))
        };
        let rules = || self.indexes().flat_map(RuleIndex::rules);
        let granted = self.root
            || rules()
                .filter(|rule| !rule.capabilities.contains(CapabilitySet::DENY))
                .any(|rule| reaches(rule.pattern.as_str()));
        let scopes = self.scopes.as_deref();
        granted
            && scopes
                .is_none_or(|scopes| scopes.iter().any(|scope| reaches(scope.pattern().as_str())))
    }

    /// What the rules say, pattern by pattern; of a narrowed caller, what its scopes name. To be
    /// shown to the caller itself: decides nothing, and conditions on parameters are left out.
    pub fn granted(&self) -> Vec<Granted<'_>> {
        let mut found: BTreeMap<&Pattern, CapabilitySet> = BTreeMap::new();
        match &self.scopes {
            Some(scopes) => {
                for scope in scopes.iter() {
                    let named = OPERATIONS.into_iter().filter(|one| scope.names(*one));
                    let granted =
                        named.filter(|one| self.root || self.grants_all(scope.pattern(), *one));
                    let set = granted.fold(CapabilitySet::NONE, |sum, operation| {
                        sum | CapabilitySet::needed_by(operation)
                    });
                    let sum = found.entry(scope.pattern()).or_default();
                    *sum = *sum | set;
                }
            }
            None => {
                for rule in self.indexes().flat_map(RuleIndex::rules) {
                    let sum = found.entry(&rule.pattern).or_default();
                    *sum = *sum | rule.capabilities;
                }
            }
        }
        let granted = found.into_iter().map(|(pattern, set)| {
            let set = if set.is_empty() { CapabilitySet::DENY } else { set.settled() };
            let exact = pattern.kind() == Kind::Exact;
            Granted { path: pattern.literal(), exact, capabilities: set.names() }
        });
        granted.collect()
    }

    fn indexes(&self) -> impl Iterator<Item = &RuleIndex> + Clone {
        self.policies.iter().map(|policy| &policy.fixed).chain(self.resolved.as_deref())
    }

    /// The pattern that judges a path, in the order of the module's documentation.
    fn find(&self, path: &str, operation: Operation) -> Option<Found<'_>> {
        let bare = without_slash(path, operation);
        self.find_exact(path)
            .or_else(|| bare.and_then(|bare| self.find_exact(bare)))
            .or_else(|| self.find_wild(path))
            .or_else(|| bare.and_then(|bare| self.find_wild(bare)))
    }

    fn find_exact(&self, path: &str) -> Option<Found<'_>> {
        let mut indexes = self.indexes().map(|index| index.exact(path)).enumerate();
        let (at, first) = indexes.find(|(_, rules)| !rules.is_empty())?;
        Some(Found { acl: self, pattern: &first.first()?.pattern, at, first })
    }

    fn find_wild(&self, path: &str) -> Option<Found<'_>> {
        let best = self.indexes().filter_map(|index| index.best_wild(path));
        self.found(best.max_by_key(|pattern| pattern.priority())?)
    }

    /// The rules of a pattern that some index has.
    fn found<'a>(&'a self, pattern: &'a Pattern) -> Option<Found<'a>> {
        let mut indexes = self.indexes().map(|index| index.with_pattern(pattern)).enumerate();
        let (at, first) = indexes.find(|(_, rules)| !rules.is_empty())?;
        Some(Found { acl: self, pattern, at, first })
    }
}

const OPERATIONS: [Operation; 6] = [
    Operation::Create,
    Operation::Delete,
    Operation::List,
    Operation::Patch,
    Operation::Read,
    Operation::Update,
];

/// For a LIST, the path without its final slash, when it has one.
fn without_slash(path: &str, operation: Operation) -> Option<&str> {
    if operation == Operation::List { path.strip_suffix('/') } else { None }
}

#[cfg(test)]
mod tests;
