//! From the tree of a policy to its rules.

use std::sync::Arc;

use serde_json::Value;

use super::POLICY_PATHS_MAX;
use super::capability::CapabilitySet;
use super::constraint::{Constraints, ParameterMap};
use super::error::{Place, PolicyProblem, quote};
use super::pattern::Pattern;
use super::syntax::{Field, Node};
use super::template::Template;
use crate::types::time::Ttl;

/// One path of a policy and what it grants there.
#[derive(Clone, Debug)]
pub struct Rule {
    /// Where it applies.
    pub target: Target,
    /// What it grants; nothing but `deny` when that is among them.
    pub capabilities: CapabilitySet,
    /// Under which conditions, if any.
    pub constraints: Option<Arc<Constraints>>,
}

/// Where a rule applies.
#[derive(Clone, Debug)]
pub enum Target {
    /// At these paths, for everybody.
    Fixed(Pattern),
    /// At paths that depend on who asks.
    Templated(Template),
}

type Problem = (Place, PolicyProblem);

/// Reads the fields of a whole policy.
pub(super) fn read(fields: Vec<Field>) -> Result<Vec<Rule>, Problem> {
    let mut rules = Vec::new();
    for field in fields {
        let place = field.line.map_or_else(Place::default, Place::line);
        match (field.key.as_str(), field.value) {
            ("path", Node::Object(paths)) => read_paths(paths, &mut rules)?,
            ("path", Node::List(items)) => {
                for item in items {
                    let Node::Object(paths) = item else {
                        return Err((place, wrong("path", "an object or a list of objects")));
                    };
                    read_paths(paths, &mut rules)?;
                }
            }
            ("path", _) => return Err((place, wrong("path", "a block with a path"))),
            // What a policy is called is decided by where it is written to.
            ("name", Node::Text(_)) => {}
            ("name", _) => return Err((place, wrong("name", "a string"))),
            (key, _) => return Err((place, PolicyProblem::UnknownKey { key: quote(key) })),
        }
    }
    Ok(rules)
}

fn read_paths(paths: Vec<Field>, rules: &mut Vec<Rule>) -> Result<(), Problem> {
    for Field { key: path, line, value } in paths {
        let bodies = match value {
            Node::Object(body) => vec![body],
            Node::List(items) => items
                .into_iter()
                .map(|item| match item {
                    Node::Object(body) => Ok(body),
                    Node::Null
                    | Node::Bool(_)
                    | Node::Number(_)
                    | Node::Text(_)
                    | Node::List(_) => Err((Place::at(line, &path), wrong(&path, "a block"))),
                })
                .collect::<Result<_, _>>()?,
            Node::Null | Node::Bool(_) | Node::Number(_) | Node::Text(_) => {
                return Err((Place::at(line, &path), wrong(&path, "a block")));
            }
        };
        for body in bodies {
            if rules.len() >= POLICY_PATHS_MAX {
                return Err((Place::at(line, &path), PolicyProblem::TooManyPaths));
            }
            rules.push(read_rule(&path, line, body)?);
        }
    }
    Ok(())
}

fn read_rule(path: &str, line: Option<u32>, body: Vec<Field>) -> Result<Rule, Problem> {
    let here = |problem| (Place::at(line, path), problem);
    let target = if Template::is_template(path) {
        Target::Templated(Template::parse(path).map_err(|e| here(PolicyProblem::Template(e)))?)
    } else {
        Target::Fixed(Pattern::parse(path).map_err(|e| here(PolicyProblem::Pattern(e)))?)
    };
    let mut capabilities = CapabilitySet::NONE;
    let mut constraints = Constraints::default();
    let mut seen: Vec<String> = Vec::new();
    for Field { key, line: key_line, value } in body {
        let there = |problem| (Place::at(key_line.or(line), path), problem);
        if seen.contains(&key) {
            return Err(there(PolicyProblem::DuplicateKey { key: quote(&key) }));
        }
        match key.as_str() {
            "capabilities" => {
                capabilities = capabilities | read_capabilities(value).map_err(there)?;
            }
            "policy" => capabilities = capabilities | read_legacy(value).map_err(there)?,
            "allowed_parameters" => {
                constraints.allowed = read_parameters(&key, value, false).map_err(there)?;
            }
            "denied_parameters" => {
                constraints.denied = read_parameters(&key, value, true).map_err(there)?;
            }
            "required_parameters" => {
                constraints.required = texts(&key, value)
                    .map_err(there)?
                    .into_iter()
                    .map(|name| name.to_lowercase().into())
                    .collect();
            }
            "min_wrapping_ttl" => {
                constraints.min_wrapping_ttl = read_ttl(&key, &value).map_err(there)?;
            }
            "max_wrapping_ttl" => {
                constraints.max_wrapping_ttl = read_ttl(&key, &value).map_err(there)?;
            }
            "pagination_limit" => {
                constraints.pagination_limit = read_limit(&key, &value).map_err(there)?;
            }
            "comment" if matches!(value, Node::Text(_)) => {}
            "comment" => return Err(there(wrong(&key, "a string"))),
            _ => return Err(there(PolicyProblem::UnknownKey { key: quote(&key) })),
        }
        seen.push(key);
    }
    let (min, max) = (constraints.min_wrapping_ttl, constraints.max_wrapping_ttl);
    if !max.is_zero() && min > max {
        return Err(here(PolicyProblem::WrappingBounds));
    }
    let capabilities = capabilities.settled();
    let bound = !constraints.is_empty() && capabilities != CapabilitySet::DENY;
    Ok(Rule { target, capabilities, constraints: bound.then(|| Arc::new(constraints)) })
}

fn read_capabilities(value: Node) -> Result<CapabilitySet, PolicyProblem> {
    let mut set = CapabilitySet::NONE;
    for name in texts("capabilities", value)? {
        let one = CapabilitySet::named(&name)
            .ok_or_else(|| PolicyProblem::UnknownCapability { name: quote(&name) })?;
        set = set | one;
    }
    Ok(set)
}

fn read_legacy(value: Node) -> Result<CapabilitySet, PolicyProblem> {
    let Node::Text(name) = value else {
        return Err(wrong("policy", "a string"));
    };
    CapabilitySet::legacy(&name)
        .ok_or_else(|| PolicyProblem::UnknownLegacyPolicy { name: quote(&name) })
}

fn read_parameters(key: &str, value: Node, deny: bool) -> Result<ParameterMap, PolicyProblem> {
    let expected = "an object of lists";
    let mut fields = Vec::new();
    match value {
        Node::Object(own) => fields = own,
        // JSON translated from HCL wraps blocks in lists.
        Node::List(items) => {
            for item in items {
                let Node::Object(own) = item else { return Err(wrong(key, expected)) };
                fields.extend(own);
            }
        }
        Node::Null | Node::Bool(_) | Node::Number(_) | Node::Text(_) => {
            return Err(wrong(key, expected));
        }
    }
    let mut map = ParameterMap::default();
    for Field { key: parameter, value, .. } in fields {
        let Node::List(items) = value else { return Err(wrong(key, expected)) };
        if parameter == "*" && !items.is_empty() {
            return Err(PolicyProblem::StarValues { key: key.to_owned() });
        }
        let values = items.into_iter().map(plain).collect();
        let parameter = parameter.to_lowercase();
        if !map.insert(&parameter, values, deny) {
            return Err(PolicyProblem::DuplicateKey { key: quote(&parameter) });
        }
    }
    Ok(map)
}

fn read_ttl(key: &str, value: &Node) -> Result<Ttl, PolicyProblem> {
    let value = match value {
        Node::Text(text) => Value::String(text.clone()),
        Node::Number(number) => Value::Number(number.clone()),
        Node::Null | Node::Bool(_) | Node::List(_) | Node::Object(_) => {
            return Err(wrong(key, "a duration"));
        }
    };
    Ttl::from_json(&value)
        .map_err(|problem| PolicyProblem::Duration { key: key.to_owned(), problem })
}

fn read_limit(key: &str, value: &Node) -> Result<u64, PolicyProblem> {
    let Node::Number(number) = value else {
        return Err(wrong(key, "a whole number"));
    };
    number.as_u64().ok_or_else(|| wrong(key, "a whole number"))
}

fn texts(key: &str, value: Node) -> Result<Vec<String>, PolicyProblem> {
    let Node::List(items) = value else {
        return Err(wrong(key, "a list of strings"));
    };
    let text = |item| match item {
        Node::Text(text) => Ok(text),
        Node::Null | Node::Bool(_) | Node::Number(_) | Node::List(_) | Node::Object(_) => {
            Err(wrong(key, "a list of strings"))
        }
    };
    items.into_iter().map(text).collect()
}

/// The same value as requests carry it.
fn plain(node: Node) -> Value {
    match node {
        Node::Null => Value::Null,
        Node::Bool(value) => Value::Bool(value),
        Node::Number(value) => Value::Number(value),
        Node::Text(value) => Value::String(value),
        Node::List(items) => Value::Array(items.into_iter().map(plain).collect()),
        Node::Object(fields) => {
            Value::Object(fields.into_iter().map(|f| (f.key, plain(f.value))).collect())
        }
    }
}

fn wrong(key: &str, expected: &'static str) -> PolicyProblem {
    PolicyProblem::WrongType { key: quote(key), expected }
}
