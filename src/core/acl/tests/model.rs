//! The ACL against a model that is written from the documentation, rule by rule, and does not
//! share a line with it.

use std::cmp::Ordering;

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
struct ModelRule {
    path: String,
    capabilities: Vec<&'static str>,
}

fn wildcard(path: &str) -> Option<usize> {
    let mut offset = 0;
    for segment in path.split('/') {
        if segment == "+" {
            return Some(offset);
        }
        if segment.ends_with('*') {
            return Some(offset + segment.len() - 1);
        }
        offset += segment.len() + 1;
    }
    None
}

fn matches(rule: &str, path: &str) -> bool {
    let (rule, open) = match rule.strip_suffix('*') {
        Some(rule) => (rule, true),
        None => (rule, false),
    };
    if !rule.split('/').any(|segment| segment == "+") {
        return if open { path.starts_with(rule) } else { path == rule };
    }
    let rule: Vec<&str> = rule.split('/').collect();
    let path: Vec<&str> = path.split('/').collect();
    if path.len() < rule.len() || (!open && path.len() != rule.len()) {
        return false;
    }
    (0..rule.len()).all(|i| {
        rule[i] == "+"
            || rule[i] == path[i]
            || (open && i == rule.len() - 1 && path[i].starts_with(rule[i]))
    })
}

/// The five documented criteria: `Less` when `a` is of lower priority.
fn compare(a: &str, b: &str) -> Ordering {
    let pluses = |path: &str| path.split('/').filter(|segment| *segment == "+").count();
    let first = wildcard(a).cmp(&wildcard(b));
    if first.is_ne() {
        return first;
    }
    if a.ends_with('*') != b.ends_with('*') {
        return if a.ends_with('*') { Ordering::Less } else { Ordering::Greater };
    }
    if pluses(a) != pluses(b) {
        return if pluses(a) > pluses(b) { Ordering::Less } else { Ordering::Greater };
    }
    if a.len() != b.len() {
        return a.len().cmp(&b.len());
    }
    a.cmp(b)
}

/// The rule that judges, and whether it allows.
fn model(rules: &[ModelRule], operation: &str, path: &str) -> Option<(String, bool)> {
    let mut paths = vec![path];
    if operation == "list" {
        paths.push(path.strip_suffix('/').unwrap_or(path));
    }
    let exact = paths.iter().find_map(|path| {
        rules.iter().find(|rule| wildcard(&rule.path).is_none() && rule.path == *path)
    });
    let chosen = exact.or_else(|| {
        paths.iter().find_map(|path| {
            let mut best: Option<&ModelRule> = None;
            for rule in rules {
                if wildcard(&rule.path).is_some() && matches(&rule.path, path) {
                    let better = |old: &ModelRule| compare(&old.path, &rule.path).is_lt();
                    if best.is_none_or(better) {
                        best = Some(rule);
                    }
                }
            }
            best
        })
    })?;
    let same: Vec<&ModelRule> = rules.iter().filter(|rule| rule.path == chosen.path).collect();
    let has = |name: &str| same.iter().any(|rule| rule.capabilities.contains(&name));
    Some((chosen.path.clone(), has(operation) && !has("deny")))
}

fn any_rule() -> impl Strategy<Value = ModelRule> {
    let path = "([ab]{1,2}|\\+|a\\+)(/([ab]{1,2}|\\+)){0,3}(/|/\\*|\\*)?|\\*"
        .prop_filter("refused", |path| Pattern::parse(path).is_ok());
    let capabilities = proptest::sample::subsequence(vec!["read", "list", "update"], 0..=3);
    (path, capabilities, proptest::bool::weighted(0.15)).prop_map(|(path, mut names, deny)| {
        if deny {
            names.push("deny");
        }
        ModelRule { path, capabilities: names }
    })
}

fn any_path() -> impl Strategy<Value = String> {
    "([ab]{1,2}|a\\+|\\+|\\*)(/([ab]{1,2}|\\*)){0,4}/?"
}

/// The path of one of the rules with something in the place of its wildcards, or any path.
fn near(policies: &[Vec<ModelRule>], pick: &proptest::sample::Index, fill: &[String]) -> String {
    let rules = policies.concat();
    let mut fill = fill.iter().cycle();
    let mut next = || fill.next().unwrap().clone();
    if rules.is_empty() {
        return next();
    }
    let rule = &pick.get(&rules).path;
    let segment = |s: &str| match s.strip_suffix('*') {
        _ if s == "+" => next(),
        Some(head) => format!("{head}{}", next()),
        None => s.to_owned(),
    };
    rule.split('/').map(segment).collect::<Vec<_>>().join("/")
}

fn any_operation() -> impl Strategy<Value = Operation> {
    proptest::sample::select(vec![Operation::Read, Operation::List, Operation::Update])
}

fn compile(rules: &[ModelRule]) -> String {
    let text = |rule: &ModelRule| {
        format!("path {:?} {{ capabilities = {:?} }}\n", rule.path, rule.capabilities)
    };
    rules.iter().map(text).collect()
}

fn build(policies: &[Vec<ModelRule>]) -> Acl {
    let texts: Vec<String> = policies.iter().map(|rules| compile(rules)).collect();
    acl(&texts.iter().map(String::as_str).collect::<Vec<_>>())
}

fn any_policies() -> impl Strategy<Value = Vec<Vec<ModelRule>>> {
    proptest::collection::vec(proptest::collection::vec(any_rule(), 0..10), 1..4)
}

fn any_scopes() -> impl Strategy<Value = ScopeSet> {
    let scope = ("read|list|update|read,list", any_rule())
        .prop_map(|(names, rule)| format!("{names}:{}", rule.path));
    proptest::collection::vec(scope, 1..3).prop_map(|texts| ScopeSet::parse(&texts).unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn the_acl_judges_as_the_model(
        policies in any_policies(),
        far in proptest::option::weighted(0.2, any_path()),
        pick in any::<proptest::sample::Index>(),
        fill in proptest::collection::vec("[ab]{1,2}", 4),
        operation in any_operation(),
    ) {
        let at = far.unwrap_or_else(|| near(&policies, &pick, &fill));
        let acl = build(&policies);
        let expected = model(&policies.concat(), operation.as_str(), &at);
        let at = path(&at);
        let decision = acl.check(&CheckRequest::new(&at, operation));
        prop_assert_eq!(decision.allowed, expected.as_ref().is_some_and(|(_, allowed)| *allowed));
        let rule = match decision.reason {
            Reason::Granted { rule }
            | Reason::Denied { rule }
            | Reason::MissingCapability { rule, .. }
            | Reason::Constraint { rule, .. } => Some(rule.to_owned()),
            Reason::Root
            | Reason::NoRule
            | Reason::UnresolvedDenial { .. }
            | Reason::OutsideScopes => None,
        };
        prop_assert_eq!(rule, expected.map(|(rule, _)| rule));
    }

    #[test]
    fn how_rules_are_spread_over_policies_does_not_matter(
        policies in any_policies(),
        at in any_path(),
        operation in any_operation(),
    ) {
        let path = path(&at);
        let apart = build(&policies);
        let together = build(&[policies.concat()]);
        let request = CheckRequest::new(&path, operation);
        prop_assert_eq!(apart.check(&request), together.check(&request));
        prop_assert_eq!(apart.capabilities(&path), together.capabilities(&path));
    }

    #[test]
    fn scopes_never_widen(
        policies in any_policies(),
        scopes in any_scopes(),
        narrower in any_scopes(),
        at in any_path(),
        operation in any_operation(),
    ) {
        let at = path(&at);
        let request = CheckRequest::new(&at, operation);
        let plain = build(&policies);
        let narrowed = build(&policies).narrowed(Arc::new(scopes.clone()));
        let narrow = narrowed.check(&request);
        let wide = plain.check(&request);
        prop_assert_eq!(narrow.allowed, wide.allowed && scopes.permits(&at, operation));
        prop_assert!(!narrow.sudo);
        if narrowed.covers(&narrower).is_ok() {
            let twice = build(&policies).narrowed(Arc::new(narrower));
            if twice.check(&request).allowed {
                prop_assert!(narrow.allowed);
            }
        }
    }

    /// A scope that is accepted names nothing that the caller lacks: under its pattern, only a
    /// rule that does not cover the whole pattern can refuse.
    #[test]
    fn an_accepted_scope_is_granted_but_for_more_specific_rules(
        policies in any_policies(),
        scope in any_rule(),
        at in any_path(),
        operation in any_operation(),
    ) {
        let acl = build(&policies);
        let scopes = ScopeSet::parse(&[format!("{operation}:{}", scope.path)]).unwrap();
        let at = path(&at);
        if acl.covers(&scopes).is_err() || !matches(&scope.path, at.as_str()) {
            return Ok(());
        }
        let decision = acl.check(&CheckRequest::new(&at, operation));
        let pattern = Pattern::parse(&scope.path).unwrap();
        match decision.reason {
            Reason::Granted { .. } => {}
            Reason::Denied { rule } | Reason::MissingCapability { rule, .. } => {
                prop_assert!(!Pattern::parse(rule).unwrap().contains(&pattern), "{}", rule);
            }
            Reason::Root
            | Reason::NoRule
            | Reason::Constraint { .. }
            | Reason::UnresolvedDenial { .. }
            | Reason::OutsideScopes => prop_assert!(false, "{:?}", decision),
        }
    }
}
