//! Password policies: how long a generated password is, and what it is made of.
//!
//! The text is the one that stock servers take, in HCL or JSON:
//!
//! ```hcl
//! length = 20
//! rule "charset" {
//!   charset   = "abcdefghijklmnopqrstuvwxyz"
//!   min-chars = 1
//! }
//! rule "charset" {
//!   charset   = "0123456789"
//!   min-chars = 1
//! }
//! ```
//!
//! First each rule gets the characters that it asks for, then the rest is drawn from all characters of
//! all rules, then everything is shuffled; each choice is uniform. So a password that satisfies its
//! policy comes from a bounded number of draws, however tight the policy is. Two things differ from
//! stock, and are refused by name: characters beyond printable ASCII, which systems normalise and
//! encode each in its own way; and rules that together ask for more characters than there are, since
//! one character counts for one rule.

use zeroize::Zeroizing;

use super::error::{PasswordPolicyError, PasswordProblem, Place, quote};
use super::syntax::{Field, Node};
use super::{json, syntax};
use crate::types::secret::{RandomError, SecretString, fill_random};

/// Shortest password that a policy may ask for, in characters.
pub const PASSWORD_CHARS_MIN: usize = 4;
/// Longest password that a policy may ask for, in characters.
pub const PASSWORD_CHARS_MAX: usize = 100;
/// Largest text of a password policy, in bytes.
pub const PASSWORD_POLICY_BYTES_MAX: usize = 16 * 1024;
/// Most rules of one password policy.
pub const PASSWORD_RULES_MAX: usize = 32;

/// Random bytes fetched at a time.
const POOL_BYTES: usize = 64;

/// A password policy, as parsed.
#[derive(Debug)]
pub struct PasswordPolicy {
    length: usize,
    rules: Vec<Rule>,
    /// The characters of all rules, each once.
    all: Vec<u8>,
}

/// `rule "charset"`.
#[derive(Debug)]
struct Rule {
    /// Sorted, each once.
    charset: Vec<u8>,
    min_chars: usize,
}

type Refusal = (Option<u32>, PasswordProblem);

impl PasswordPolicy {
    /// Parses the text: JSON when it starts with `{`, HCL otherwise.
    ///
    /// # Errors
    /// What is wrong, and in which line.
    pub fn parse(text: &str) -> Result<Self, PasswordPolicyError> {
        let refuse = |place, problem| PasswordPolicyError { place, problem };
        if text.len() > PASSWORD_POLICY_BYTES_MAX {
            return Err(refuse(Place::default(), PasswordProblem::TooLarge));
        }
        let fields = if text.trim_start().starts_with('{') {
            json::parse(text).map_err(|e| refuse(Place::default(), PasswordProblem::Json(e)))?
        } else {
            syntax::parse(text)
                .map_err(|e| refuse(Place::line(e.line), PasswordProblem::Syntax(e.problem)))?
        };
        read(fields)
            .map_err(|(line, problem)| refuse(line.map(Place::line).unwrap_or_default(), problem))
    }

    /// Length of the passwords, in characters.
    pub fn length(&self) -> usize {
        self.length
    }

    /// How many bits a guesser lacks at least: those of the draws, without what shuffling adds.
    pub fn bits(&self) -> u32 {
        let mut rest = self.length;
        let mut outcomes = 0f64;
        for rule in &self.rules {
            outcomes += bits_of(rule.charset.len(), rule.min_chars);
            rest = rest.saturating_sub(rule.min_chars);
        }
        outcomes += bits_of(self.all.len(), rest);
        // At most 100 characters of 95 kinds: 657 bits.
        outcomes.floor() as u32
    }

    /// Whether `password` has the length, the characters and the number of each that the policy asks
    /// for.
    pub fn satisfied_by(&self, password: &SecretString) -> bool {
        let bytes = password.expose().as_bytes();
        bytes.len() == self.length
            && bytes.iter().all(|byte| self.all.contains(byte))
            && self.rules.iter().all(|rule| {
                let of_rule = bytes.iter().filter(|byte| rule.charset.contains(byte));
                of_rule.count() >= rule.min_chars
            })
    }

    /// A random password that satisfies the policy.
    ///
    /// # Errors
    /// When the operating system has no randomness to give.
    pub fn generate(&self) -> Result<SecretString, RandomError> {
        self.draw(&mut Dice::new(fill_random))
    }

    fn draw<F>(&self, dice: &mut Dice<F>) -> Result<SecretString, RandomError>
    where
        F: FnMut(&mut [u8]) -> Result<(), RandomError>,
    {
        let mut chars = Zeroizing::new(Vec::with_capacity(self.length));
        for rule in &self.rules {
            for _ in 0..rule.min_chars {
                chars.push(dice.one_of(&rule.charset)?);
            }
        }
        while chars.len() < self.length {
            chars.push(dice.one_of(&self.all)?);
        }
        // Fisher and Yates: every order is as likely as any other.
        for last in (1..chars.len()).rev() {
            let other = dice.below(last + 1)?;
            chars.swap(last, other);
        }
        let mut password = String::with_capacity(self.length);
        password.extend(chars.iter().copied().map(char::from));
        Ok(SecretString::new(password))
    }
}

fn bits_of(kinds: usize, draws: usize) -> f64 {
    let (kinds, draws) = (u32::try_from(kinds), u32::try_from(draws));
    f64::from(kinds.unwrap_or(1).max(1)).log2() * f64::from(draws.unwrap_or(0))
}

/// Uniform choices out of random bytes.
struct Dice<F> {
    fill: F,
    pool: Zeroizing<[u8; POOL_BYTES]>,
    used: usize,
}

impl<F: FnMut(&mut [u8]) -> Result<(), RandomError>> Dice<F> {
    fn new(fill: F) -> Self {
        Self { fill, pool: Zeroizing::new([0; POOL_BYTES]), used: POOL_BYTES }
    }

    fn byte(&mut self) -> Result<u8, RandomError> {
        loop {
            if let Some(byte) = self.pool.get(self.used) {
                self.used += 1;
                return Ok(*byte);
            }
            (self.fill)(self.pool.as_mut_slice())?;
            self.used = 0;
        }
    }

    /// A number below `end`, which is 1 to 256, each as likely as any other.
    fn below(&mut self, end: usize) -> Result<usize, RandomError> {
        let end = end.clamp(1, 256);
        // The largest multiple of `end` in a byte; what lies above would favour the first numbers.
        let fair = 256 - 256 % end;
        loop {
            let byte = usize::from(self.byte()?);
            if byte < fair {
                return Ok(byte % end);
            }
        }
    }

    fn one_of(&mut self, set: &[u8]) -> Result<u8, RandomError> {
        let at = self.below(set.len())?;
        set.get(at).copied().ok_or(RandomError)
    }
}

fn read(fields: Vec<Field>) -> Result<PasswordPolicy, Refusal> {
    let mut length = None;
    let mut rules = Vec::new();
    for field in fields {
        match field.key.as_str() {
            "length" => once(&mut length, &field, "length")?,
            "rule" => read_rules(field.value, field.line, &mut rules)?,
            _ => return Err(unknown(field)),
        }
    }
    let length = length.ok_or((None, PasswordProblem::NoLength))?;
    if !(PASSWORD_CHARS_MIN..=PASSWORD_CHARS_MAX).contains(&length) {
        return Err((None, PasswordProblem::Length));
    }
    let mut all: Vec<u8> = rules.iter().flat_map(|rule| rule.charset.iter().copied()).collect();
    if all.is_empty() {
        return Err((None, PasswordProblem::NoRule));
    }
    all.sort_unstable();
    all.dedup();
    // No sum overflows: each is bounded by its own rule's reading.
    let needed: usize = rules.iter().map(|rule| rule.min_chars).sum();
    if needed > length {
        return Err((None, PasswordProblem::Unsatisfiable { needed, length }));
    }
    Ok(PasswordPolicy { length, rules, all })
}

/// What `rule` holds: an object of kinds of rules, each an object or a list of objects.
fn read_rules(value: Node, line: Option<u32>, rules: &mut Vec<Rule>) -> Result<(), Refusal> {
    for kinds in objects(value, line, "rule")? {
        for field in kinds {
            if field.key != "charset" {
                return Err((field.line, PasswordProblem::RuleKind { kind: quote(&field.key) }));
            }
            for body in objects(field.value, field.line, "charset")? {
                if rules.len() == PASSWORD_RULES_MAX {
                    return Err((field.line, PasswordProblem::TooManyRules));
                }
                rules.push(read_rule(body, field.line)?);
            }
        }
    }
    Ok(())
}

/// One object, or a list of them, as HCL has it in JSON.
fn objects(value: Node, line: Option<u32>, key: &str) -> Result<Vec<Vec<Field>>, Refusal> {
    let wrong = || (line, PasswordProblem::wrong_type(key, "a block"));
    match value {
        Node::Object(fields) => Ok(vec![fields]),
        Node::List(items) => items
            .into_iter()
            .map(|item| match item {
                Node::Object(fields) => Ok(fields),
                Node::Null | Node::Bool(_) | Node::Number(_) | Node::Text(_) | Node::List(_) => {
                    Err(wrong())
                }
            })
            .collect(),
        Node::Null | Node::Bool(_) | Node::Number(_) | Node::Text(_) => Err(wrong()),
    }
}

fn read_rule(fields: Vec<Field>, line: Option<u32>) -> Result<Rule, Refusal> {
    let (mut charset, mut min_chars) = (None, None);
    for field in fields {
        match field.key.as_str() {
            "charset" if charset.is_some() => {
                return Err((field.line, PasswordProblem::twice("charset")));
            }
            "charset" => charset = Some(read_charset(&field)?),
            "min-chars" => once(&mut min_chars, &field, "min-chars")?,
            _ => return Err(unknown(field)),
        }
    }
    let charset = charset.ok_or((line, PasswordProblem::NoCharset))?;
    Ok(Rule { charset, min_chars: min_chars.unwrap_or(0) })
}

fn read_charset(field: &Field) -> Result<Vec<u8>, Refusal> {
    let refuse = |problem| Err((field.line, problem));
    let Node::Text(text) = &field.value else {
        return refuse(PasswordProblem::wrong_type("charset", "a string"));
    };
    if text.is_empty() {
        return refuse(PasswordProblem::NoCharset);
    }
    if !text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic()) {
        return refuse(PasswordProblem::Character);
    }
    // A character that is written twice is not twice as likely.
    let mut charset = text.clone().into_bytes();
    charset.sort_unstable();
    charset.dedup();
    Ok(charset)
}

/// Takes a number, which may be given once. What is too large for any policy is too large here.
fn once(slot: &mut Option<usize>, field: &Field, key: &'static str) -> Result<(), Refusal> {
    if slot.is_some() {
        return Err((field.line, PasswordProblem::twice(key)));
    }
    let number = match &field.value {
        Node::Number(number) => number.as_u64(),
        Node::Null | Node::Bool(_) | Node::Text(_) | Node::List(_) | Node::Object(_) => None,
    };
    let number = number.and_then(|number| usize::try_from(number).ok());
    let wrong = PasswordProblem::wrong_type(key, "a whole number, zero or above");
    let number = number.ok_or((field.line, wrong))?;
    if number > PASSWORD_CHARS_MAX {
        return Err((field.line, PasswordProblem::Length));
    }
    *slot = Some(number);
    Ok(())
}

fn unknown(field: Field) -> Refusal {
    (field.line, PasswordProblem::UnknownKey { key: quote(&field.key) })
}

#[cfg(test)]
mod tests;
