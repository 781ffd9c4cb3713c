//! How leased users are named.
//!
//! A template is text with actions: `{{.DisplayName}}`, `{{.RoleName}}`, `{{random N}}` (base62),
//! `{{unix_time}}`, each followed by any of `| truncate N`, `| uppercase`, `| lowercase`. Whatever
//! comes from a caller keeps letters, digits, `.`, `_`, `@` and `-` of ASCII; anything else becomes
//! `-`, so that a name is safe to show in logs. (It is quoted in SQL all the same.)

use crate::types::id::random_base62;
use crate::types::secret::RandomError;
use crate::types::time::Timestamp;

/// Longest name PostgreSQL keeps, in bytes; it would cut a longer one off without an error.
pub const NAME_BYTES_MAX: usize = 63;
/// Least randomness in a name, in bits.
const NAME_RANDOM_BITS_MIN: usize = 60;
/// Longest template, in bytes.
const TEMPLATE_BYTES_MAX: usize = 1024;

/// The template used when none is configured: `v-<display>-<role>-<20 random>-<unix time>`.
pub const DEFAULT_TEMPLATE: &str = "v-{{.DisplayName | truncate 8}}-{{.RoleName | truncate 8}}-\
     {{random 20}}-{{unix_time}}";

/// A parsed template.
#[derive(Clone, Debug)]
pub struct NameTemplate(Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Action { source: Source, steps: Vec<Step> },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    DisplayName,
    RoleName,
    Random(usize),
    UnixTime,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Truncate(usize),
    Uppercase,
    Lowercase,
}

impl NameTemplate {
    /// Parses a template and proves that every name it makes fits and cannot be guessed.
    ///
    /// # Errors
    /// Unknown actions, malformed text, names that may grow too long or hold too little randomness.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        if text.len() > TEMPLATE_BYTES_MAX {
            return Err(TemplateError::TooLong);
        }
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, action)) = rest.split_once("{{") {
            let (action, after) = action.split_once("}}").ok_or(TemplateError::Open)?;
            parts.push(Part::Text(before.to_owned()));
            parts.push(parse_action(action)?);
            rest = after;
        }
        parts.push(Part::Text(rest.to_owned()));
        let template = Self(parts);
        template.check()?;
        Ok(template)
    }

    /// A name for a credential issued now.
    ///
    /// # Errors
    /// When the operating system has no randomness to give.
    pub fn render(
        &self,
        display_name: &str,
        role_name: &str,
        now: Timestamp,
    ) -> Result<String, RandomError> {
        let mut out = String::new();
        for part in &self.0 {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Action { source, steps } => {
                    let mut value = match source {
                        Source::DisplayName => plain(display_name),
                        Source::RoleName => plain(role_name),
                        Source::Random(length) => random_base62(*length)?,
                        Source::UnixTime => now.as_secs().to_string(),
                    };
                    for step in steps {
                        step.apply(&mut value);
                    }
                    out.push_str(&value);
                }
            }
        }
        Ok(out)
    }

    fn check(&self) -> Result<(), TemplateError> {
        let mut bytes = 0usize;
        let mut random_bits = 0usize;
        for part in &self.0 {
            match part {
                Part::Text(text) if text.contains(|c: char| c.is_control() || c == '\\') => {
                    return Err(TemplateError::Character);
                }
                Part::Text(text) => bytes = bytes.saturating_add(text.len()),
                Part::Action { source, steps } => {
                    let longest = steps.iter().fold(source.bytes_max(), |n, step| step.limit(n));
                    bytes = bytes.saturating_add(longest);
                    if matches!(source, Source::Random(_)) {
                        // 62 letters carry 5.95 bits, 36 carry 5.17; rounded down.
                        random_bits = random_bits.saturating_add(longest.saturating_mul(5));
                    }
                }
            }
        }
        if bytes > NAME_BYTES_MAX {
            return Err(TemplateError::NameTooLong);
        }
        if random_bits < NAME_RANDOM_BITS_MIN {
            return Err(TemplateError::Guessable);
        }
        Ok(())
    }
}

impl Source {
    fn bytes_max(self) -> usize {
        match self {
            Self::DisplayName | Self::RoleName => usize::MAX,
            Self::Random(length) => length,
            // Ten digits until the year 2286.
            Self::UnixTime => 10,
        }
    }
}

impl Step {
    fn limit(self, bytes: usize) -> usize {
        match self {
            Self::Truncate(length) => bytes.min(length),
            Self::Uppercase | Self::Lowercase => bytes,
        }
    }

    fn apply(self, value: &mut String) {
        match self {
            // Only ASCII gets here, so every length is a character boundary.
            Self::Truncate(length) => value.truncate(length),
            Self::Uppercase => value.make_ascii_uppercase(),
            Self::Lowercase => value.make_ascii_lowercase(),
        }
    }
}

fn parse_action(text: &str) -> Result<Part, TemplateError> {
    let mut stages = text.split('|').map(|stage| stage.split_whitespace().collect::<Vec<_>>());
    let source = match stages.next().unwrap_or_default().as_slice() {
        [".DisplayName"] => Source::DisplayName,
        [".RoleName"] => Source::RoleName,
        ["unix_time"] => Source::UnixTime,
        ["random", length] => Source::Random(number(length)?),
        other => return Err(unknown(other)),
    };
    let steps = stages
        .map(|stage| match stage.as_slice() {
            ["truncate", length] => number(length).map(Step::Truncate),
            ["uppercase"] => Ok(Step::Uppercase),
            ["lowercase"] => Ok(Step::Lowercase),
            other => Err(unknown(other)),
        })
        .collect::<Result<_, _>>()?;
    Ok(Part::Action { source, steps })
}

fn number(text: &str) -> Result<usize, TemplateError> {
    text.parse().ok().filter(|n| (1..=NAME_BYTES_MAX).contains(n)).ok_or(TemplateError::Number)
}

fn unknown(words: &[&str]) -> TemplateError {
    TemplateError::Unknown(words.first().unwrap_or(&"").chars().take(32).collect())
}

/// Text of a caller or operator as it may stand in a name.
pub(super) fn plain(text: &str) -> String {
    text.chars()
        .map(|c| {
            let fits = c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '@' | '-');
            if fits { c } else { '-' }
        })
        .collect()
}

/// Why a template was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// More than 1 KiB.
    #[error("is longer than 1024 bytes")]
    TooLong,
    /// `{{` without `}}`.
    #[error("has an action that is not closed with '}}}}'")]
    Open,
    /// An action or function that is not supported.
    #[error(
        "has the unknown action '{0}'; use .DisplayName, .RoleName, random N, unix_time, and \
         truncate N, uppercase, lowercase behind a '|'"
    )]
    Unknown(String),
    /// A length that is no number from 1 to 63.
    #[error("has a length that is not a number from 1 to 63")]
    Number,
    /// A control character or backslash in its text.
    #[error("has a control character or a backslash")]
    Character,
    /// A name might be cut off by PostgreSQL.
    #[error("may make names longer than 63 bytes; put '| truncate N' behind .DisplayName")]
    NameTooLong,
    /// A name might be guessed, or made twice.
    #[error("needs at least 12 random characters, as in {{{{random 20}}}}")]
    Guessable,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

    #[test]
    fn the_default_name_has_the_stock_form() {
        let template = NameTemplate::parse(DEFAULT_TEMPLATE).unwrap();
        let name = template.render("cert-payments", "readonly-all", NOW).unwrap();
        let rest = name.strip_prefix("v-cert-pay-readonly-").unwrap();
        let (random, time) = rest.split_once('-').unwrap();
        assert_eq!(random.len(), 20);
        assert_eq!(time, "1800000000");
        assert_ne!(name, template.render("cert-payments", "readonly-all", NOW).unwrap());
    }

    #[test]
    fn actions_are_applied_in_order() {
        let template =
            NameTemplate::parse("{{ .RoleName|uppercase | truncate 3 }}_{{random 12 | lowercase}}")
                .unwrap();
        let name = template.render("x", "reader", NOW).unwrap();
        assert!(name.starts_with("REA_"), "{name}");
        assert_eq!(name.len(), 16);
        assert_eq!(name[4..], name[4..].to_lowercase());
    }

    #[test]
    fn bad_templates_are_refused() {
        for (text, error) in [
            ("{{random 20", TemplateError::Open),
            ("{{printf \"%s\" .X}}", TemplateError::Unknown("printf".into())),
            ("{{.Other}}{{random 20}}", TemplateError::Unknown(".Other".into())),
            ("{{}}", TemplateError::Unknown(String::new())),
            ("{{random 20 | replace}}", TemplateError::Unknown("replace".into())),
            ("{{random}}", TemplateError::Unknown("random".into())),
            ("{{random 0}}", TemplateError::Number),
            ("{{random 99999999999999999999}}", TemplateError::Number),
            ("{{random 64}}", TemplateError::Number),
            ("{{.DisplayName}}{{random 20}}", TemplateError::NameTooLong),
            ("{{random 60}}xxxx", TemplateError::NameTooLong),
            ("plain", TemplateError::Guessable),
            ("{{random 20 | truncate 4}}", TemplateError::Guessable),
            ("a\nb{{random 20}}", TemplateError::Character),
        ] {
            assert_eq!(NameTemplate::parse(text).unwrap_err(), error, "{text}");
        }
    }

    proptest! {
        #[test]
        fn names_fit_and_are_plain(display in "\\PC{0,40}|[\"';\n\\\\]{0,40}", role in "\\PC{0,40}") {
            let template = NameTemplate::parse(DEFAULT_TEMPLATE).unwrap();
            let name = template.render(&display, &role, NOW).unwrap();
            prop_assert!(name.len() <= NAME_BYTES_MAX);
            prop_assert!(name.bytes().all(|b| b.is_ascii_alphanumeric() || b".-_@".contains(&b)));
        }

        #[test]
        fn parsing_never_panics(text in "(\\{\\{|\\}\\}|random|truncate| |\\||[0-9]|\\.RoleName|\u{e9}){0,16}") {
            if let Ok(template) = NameTemplate::parse(&text) {
                prop_assert!(template.render("d", "r", NOW).unwrap().len() <= NAME_BYTES_MAX);
            }
        }
    }
}
