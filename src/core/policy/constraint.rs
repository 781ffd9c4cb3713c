//! Conditions that a rule puts on the parameters, the wrapping and the paging of a request.
//!
//! The rules of several policies on the same path act as one. They are never merged into a new
//! structure: [`judge`] walks them all, so judging allocates nothing for names in lower case.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;

use serde_json::{Map, Number, Value};

use crate::core::operation::Operation;
use crate::types::time::Ttl;

/// The conditions of one rule. Empty, zero and unset all mean "no condition".
#[derive(Clone, Debug, Default)]
pub struct Constraints {
    pub(super) allowed: ParameterMap,
    pub(super) denied: ParameterMap,
    pub(super) required: Vec<Box<str>>,
    pub(super) min_wrapping_ttl: Ttl,
    pub(super) max_wrapping_ttl: Ttl,
    pub(super) pagination_limit: u64,
}

impl Constraints {
    pub(super) fn is_empty(&self) -> bool {
        self.allowed.is_empty()
            && self.denied.is_empty()
            && self.required.is_empty()
            && self.min_wrapping_ttl.is_zero()
            && self.max_wrapping_ttl.is_zero()
            && self.pagination_limit == 0
    }
}

/// Parameter names in lower case, each with the values it is about; no values means any.
#[derive(Clone, Debug, Default)]
pub struct ParameterMap {
    /// Whether `*` is among the names.
    star: bool,
    names: HashMap<Box<str>, Vec<ValuePattern>>,
}

impl ParameterMap {
    fn is_empty(&self) -> bool {
        !self.star && self.names.is_empty()
    }

    /// Adds a name, which must be in lower case; false when it is there already.
    pub(super) fn insert(&mut self, name: &str, values: Vec<Value>, deny: bool) -> bool {
        if name == "*" {
            return !std::mem::replace(&mut self.star, true);
        }
        let patterns = values.into_iter().map(|value| ValuePattern::new(value, deny)).collect();
        self.names.insert(name.into(), patterns).is_none()
    }
}

/// What a value is compared with.
#[derive(Clone, Debug)]
enum ValuePattern {
    AnyText,
    Text(Box<str>),
    StartsWith(Box<str>),
    EndsWith(Box<str>),
    Contains(Box<str>),
    Value(Value),
}

impl ValuePattern {
    fn new(value: Value, deny: bool) -> Self {
        let Value::String(text) = value else { return Self::Value(value) };
        if text == "*" {
            // The reading that grants less, on either side; see the module `policy`.
            return if deny { Self::AnyText } else { Self::Text(text.into()) };
        }
        match (text.strip_prefix('*'), text.strip_suffix('*')) {
            (Some(tail), Some(_)) => Self::Contains(tail.strip_suffix('*').unwrap_or(tail).into()),
            (Some(tail), None) => Self::EndsWith(tail.into()),
            (None, Some(head)) => Self::StartsWith(head.into()),
            (None, None) => Self::Text(text.into()),
        }
    }

    fn matches_text(&self, text: &str) -> bool {
        match self {
            Self::AnyText => true,
            Self::Text(own) => **own == *text,
            Self::StartsWith(head) => text.starts_with(&**head),
            Self::EndsWith(tail) => text.ends_with(&**tail),
            Self::Contains(part) => text.contains(&**part),
            Self::Value(_) => false,
        }
    }

    /// Whether the value is exactly this: what an allowed value must be.
    fn is(&self, value: &Value) -> bool {
        match (self, value) {
            (Self::Value(Value::Number(own)), Value::Number(other)) => same_number(own, other),
            (Self::Value(own), other) => own == other,
            (_, Value::String(text)) => self.matches_text(text),
            (_, _) => false,
        }
    }

    /// How a boolean or a number is written as text.
    fn as_spelled(&self) -> Option<String> {
        if let Self::Value(own @ (Value::Bool(_) | Value::Number(_))) = self {
            return Some(own.to_string());
        }
        None
    }

    /// Whether the value is this in any spelling that an engine might read as this.
    fn is_or_holds(&self, value: &Value) -> bool {
        if self.is(value) {
            return true;
        }
        match value {
            Value::Array(items) => items.iter().any(|item| self.is_or_holds(item)),
            Value::String(text) => {
                let own = self.as_spelled();
                text.split(',').map(str::trim).any(|part| match &own {
                    Some(own) => own == part,
                    None => self.matches_text(part),
                })
            }
            Value::Bool(_) | Value::Number(_) => self.matches_text(&value.to_string()),
            Value::Null | Value::Object(_) => matches!(self, Self::AnyText),
        }
    }
}

fn same_number(a: &Number, b: &Number) -> bool {
    a == b || (a.is_f64() != b.is_f64() && a.as_f64() == b.as_f64())
}

/// Why the conditions refuse a request. Names are those of the request or of the rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal<'a> {
    /// A required parameter is missing.
    Required(&'a str),
    /// A parameter is denied, or this value of it.
    Denied(&'a str),
    /// All parameters are denied.
    AllDenied,
    /// A parameter is not among the allowed ones, or this value of it.
    NotAllowed(&'a str),
    /// The answer must be wrapped.
    WrappingRequired,
    /// The wrapping is shorter than the least lifetime.
    WrappingTooShort(Ttl),
    /// The wrapping is longer than the greatest lifetime.
    WrappingTooLong(Ttl),
    /// `limit` is not a number from 1 to this.
    PageLimit(u64),
}

impl<'a> Refusal<'a> {
    /// The parameter that is refused or missing.
    pub fn parameter(self) -> Option<&'a str> {
        match self {
            Self::Required(name) | Self::Denied(name) | Self::NotAllowed(name) => Some(name),
            Self::PageLimit(_) => Some("limit"),
            Self::AllDenied
            | Self::WrappingRequired
            | Self::WrappingTooShort(_)
            | Self::WrappingTooLong(_) => None,
        }
    }
}

impl fmt::Display for Refusal<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Required(name) => write!(f, "the parameter {name:?} is required"),
            Self::Denied(name) => write!(f, "the parameter {name:?} or its value is denied"),
            Self::AllDenied => f.write_str("no parameter is allowed"),
            Self::NotAllowed(name) => {
                write!(f, "the parameter {name:?} or its value is not allowed")
            }
            Self::WrappingRequired => f.write_str("the response must be wrapped"),
            Self::WrappingTooShort(min) => {
                write!(f, "the wrapping must last at least {} s", min.as_secs())
            }
            Self::WrappingTooLong(max) => {
                write!(f, "the wrapping must last at most {} s", max.as_secs())
            }
            Self::PageLimit(max) => write!(f, "limit must be a number from 1 to {max}"),
        }
    }
}

/// Judges a request by the conditions of all rules that share a path, merged as stock does: lists
/// of names are united, no values for a name wins over some, and of two bounds the lower counts.
pub fn judge<'a>(
    rules: impl Iterator<Item = &'a Constraints> + Clone,
    operation: Operation,
    parameters: Option<&'a Map<String, Value>>,
    wrap_ttl: Option<Ttl>,
) -> Result<(), Refusal<'a>> {
    if rules.clone().next().is_none() {
        return Ok(());
    }
    judge_wrapping(rules.clone(), wrap_ttl)?;
    match operation {
        Operation::Create | Operation::Patch | Operation::Read | Operation::Update => {
            judge_parameters(rules, parameters)
        }
        Operation::List => judge_page(rules, parameters),
        Operation::Delete => Ok(()),
    }
}

fn judge_wrapping<'a>(
    rules: impl Iterator<Item = &'a Constraints> + Clone,
    wrap_ttl: Option<Ttl>,
) -> Result<(), Refusal<'a>> {
    let least = |bound: fn(&Constraints) -> Ttl| {
        rules.clone().map(bound).filter(|ttl| !ttl.is_zero()).min()
    };
    let min = least(|c| c.min_wrapping_ttl);
    let max = least(|c| c.max_wrapping_ttl);
    if min.is_none() && max.is_none() {
        return Ok(());
    }
    let Some(ttl) = wrap_ttl.filter(|ttl| !ttl.is_zero()) else {
        return Err(Refusal::WrappingRequired);
    };
    match (min, max) {
        (_, Some(max)) if ttl > max => Err(Refusal::WrappingTooLong(max)),
        (Some(min), _) if ttl < min => Err(Refusal::WrappingTooShort(min)),
        (_, _) => Ok(()),
    }
}

fn judge_parameters<'a>(
    rules: impl Iterator<Item = &'a Constraints> + Clone,
    parameters: Option<&'a Map<String, Value>>,
) -> Result<(), Refusal<'a>> {
    for name in rules.clone().flat_map(|c| c.required.iter()) {
        // Only the spelling that the engine reads satisfies the rule.
        if !parameters.is_some_and(|given| given.contains_key(&**name)) {
            return Err(Refusal::Required(name));
        }
    }
    let Some(given) = parameters.filter(|given| !given.is_empty()) else {
        return Ok(());
    };
    if rules.clone().any(|c| c.denied.star) {
        return Err(Refusal::AllDenied);
    }
    let allowing = rules.clone().filter(|c| !c.allowed.is_empty());
    let limited = allowing.clone().any(|c| !c.allowed.names.is_empty());
    let others = allowing.clone().any(|c| c.allowed.star);
    for (name, value) in given {
        let folded = fold(name);
        let denied = rules.clone().filter_map(|c| c.denied.names.get(&*folded)).any(|values| {
            values.is_empty() || values.iter().any(|pattern| pattern.is_or_holds(value))
        });
        if denied {
            return Err(Refusal::Denied(name));
        }
        if !limited {
            continue;
        }
        let mut named = false;
        let mut fits = false;
        for values in allowing.clone().filter_map(|c| c.allowed.names.get(&*folded)) {
            named = true;
            fits |= values.is_empty() || values.iter().any(|pattern| pattern.is(value));
        }
        if !(fits || (!named && others)) {
            return Err(Refusal::NotAllowed(name));
        }
    }
    Ok(())
}

/// A LIST has no parameters but those of paging, so only `limit` is judged.
fn judge_page<'a>(
    rules: impl Iterator<Item = &'a Constraints> + Clone,
    parameters: Option<&'a Map<String, Value>>,
) -> Result<(), Refusal<'a>> {
    let given = parameters.and_then(|given| given.get("limit"));
    let required = || rules.clone().flat_map(|c| c.required.iter()).any(|name| &**name == "limit");
    let Some(given) = given else {
        return if required() { Err(Refusal::Required("limit")) } else { Ok(()) };
    };
    let Some(max) = rules.map(|c| c.pagination_limit).filter(|max| *max > 0).min() else {
        return Ok(());
    };
    let asked = match given {
        Value::Number(number) => number.as_u64(),
        Value::String(text) => text.parse().ok(),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    };
    match asked {
        Some(asked) if (1..=max).contains(&asked) => Ok(()),
        // Zero and less mean "everything" to engines.
        Some(_) | None => Err(Refusal::PageLimit(max)),
    }
}

fn fold(name: &str) -> Cow<'_, str> {
    if name.bytes().all(|b| b.is_ascii() && !b.is_ascii_uppercase()) {
        Cow::Borrowed(name)
    } else {
        Cow::Owned(name.to_lowercase())
    }
}
