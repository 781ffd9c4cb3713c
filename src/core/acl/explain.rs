//! Why a request is allowed or denied, in full, for administrators.

use serde::Serialize;

use super::index::{OwnedRule, RuleIndex};
use super::{Acl, CheckRequest, Found, Reason};
use crate::core::operation::Operation;
use crate::core::policy::capability::CapabilitySet;
use crate::core::policy::pattern::Pattern;
use crate::core::route::Access;

/// Most losing rules listed.
const OTHERS_MAX: usize = 100;

/// A decision and all that led to it.
#[derive(Debug, Serialize)]
pub struct Explanation {
    /// The path asked for.
    pub path: String,
    /// The operation asked for.
    pub operation: Operation,
    /// The decision.
    pub allowed: bool,
    /// Whether root-protected paths are open to the caller here.
    pub sudo: bool,
    /// Why, in one sentence.
    pub reason: String,
    /// The policies that were asked, by name.
    pub policies: Vec<String>,
    /// The rule that decided, if there is one.
    pub matched: Option<RuleReport>,
    /// The capability that the rule lacks, when that is why.
    pub missing_capability: Option<&'static str>,
    /// The parameter that is refused or missing, when that is why.
    pub refused_parameter: Option<String>,
    /// Rules that match the path as well but are less specific; at most 100, best first.
    pub others: Vec<RuleReport>,
    /// Denying rules of this caller whose template has no usable value: each denies wherever it
    /// might apply.
    pub unresolved_denials: Vec<UnresolvedReport>,
    /// What the caller is narrowed to, if it is.
    pub scopes: Option<Vec<String>>,
}

/// One path pattern and what it grants over all policies that have it.
#[derive(Debug, Serialize)]
pub struct RuleReport {
    /// The path of the rule.
    pub path: String,
    /// The policies that have it.
    pub policies: Vec<String>,
    /// What they grant together.
    pub capabilities: Vec<&'static str>,
}

/// One denying rule without values for its template.
#[derive(Debug, Serialize)]
pub struct UnresolvedReport {
    /// The path of the rule, with its template.
    pub path: String,
    /// The policy that has it.
    pub policy: String,
    /// Whether it is why this request is denied.
    pub applies: bool,
}

impl Explanation {
    /// Of somebody whose standing counts no more, whatever policies say.
    pub fn without_standing(request: &CheckRequest<'_>, reason: String) -> Self {
        Self {
            path: request.path.as_str().to_owned(),
            operation: request.operation,
            allowed: false,
            sudo: false,
            reason,
            policies: Vec::new(),
            matched: None,
            missing_capability: None,
            refused_parameter: None,
            others: Vec::new(),
            unresolved_denials: Vec::new(),
            scopes: None,
        }
    }

    /// The same at a path that demands `access`.
    pub fn at(self, access: Option<Access>) -> Self {
        match access {
            Some(Access::Public) => {
                self.open("the path is open to everybody who reaches the listener")
            }
            Some(Access::Anybody | Access::Identified) => {
                self.open("the path is open to every caller")
            }
            Some(Access::Sudo) if self.allowed && !self.sudo => Self {
                allowed: false,
                reason: format!("{}, but the path needs the sudo capability", self.reason),
                missing_capability: Some("sudo"),
                ..self
            },
            Some(Access::Caller | Access::Sudo) | None => self,
        }
    }

    /// No rule is asked.
    fn open(mut self, reason: &str) -> Self {
        if let Some(rule) = self.matched.take() {
            self.others.insert(0, rule);
        }
        let reason = format!("{reason}, whatever policies say");
        Self { allowed: true, reason, missing_capability: None, refused_parameter: None, ..self }
    }
}

impl Acl {
    /// As [`Acl::check`], with everything that led to the decision. Slow: for administrators.
    pub fn explain(&self, request: &CheckRequest<'_>) -> Explanation {
        let decision = self.check(request);
        let path = request.path.as_str();
        let found = self.find(path, request.operation);
        let winner = found.as_ref().map(|found| found.pattern);
        let missing = matches!(decision.reason, Reason::MissingCapability { .. });
        let refused = match decision.reason {
            Reason::Constraint { refusal, .. } => refusal.parameter().map(str::to_owned),
            Reason::Root
            | Reason::Granted { .. }
            | Reason::NoRule
            | Reason::Denied { .. }
            | Reason::MissingCapability { .. }
            | Reason::UnresolvedDenial { .. }
            | Reason::OutsideScopes => None,
        };
        Explanation {
            path: path.to_owned(),
            operation: request.operation,
            allowed: decision.allowed,
            sudo: decision.sudo,
            reason: decision.reason.to_string(),
            policies: self.policies.iter().map(|p| p.name().to_string()).collect(),
            matched: found.as_ref().map(report),
            missing_capability: missing.then_some(request.operation.as_str()),
            refused_parameter: refused,
            others: self.others(path, request.operation, winner),
            unresolved_denials: self
                .unresolved
                .iter()
                .map(|denial| UnresolvedReport {
                    path: denial.text.to_string(),
                    policy: denial.policy.to_string(),
                    applies: denial.applies(path, request.operation),
                })
                .collect(),
            scopes: self.scopes.as_ref().map(|scopes| scopes.to_texts()),
        }
    }

    fn others(
        &self,
        path: &str,
        operation: Operation,
        winner: Option<&Pattern>,
    ) -> Vec<RuleReport> {
        let bare = super::without_slash(path, operation);
        let mut patterns: Vec<&Pattern> = self
            .indexes()
            .flat_map(RuleIndex::rules)
            .map(|rule| &rule.pattern)
            .filter(|pattern| Some(*pattern) != winner)
            .filter(|p| p.matches(path) || bare.is_some_and(|bare| p.matches(bare)))
            .collect();
        patterns.sort_by_key(|pattern| std::cmp::Reverse(pattern.priority()));
        patterns.dedup();
        patterns.truncate(OTHERS_MAX);
        patterns.iter().filter_map(|p| self.found(p)).map(|found| report(&found)).collect()
    }
}

fn report(found: &Found<'_>) -> RuleReport {
    let mut policies: Vec<String> =
        found.rules().map(|rule: &OwnedRule| rule.policy.to_string()).collect();
    policies.sort();
    policies.dedup();
    let capabilities = found.capabilities();
    RuleReport {
        path: found.pattern.to_string(),
        policies,
        capabilities: if capabilities.is_empty() {
            CapabilitySet::DENY.names()
        } else {
            capabilities.names()
        },
    }
}
