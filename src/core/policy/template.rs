//! Paths that depend on who asks: `secret/data/{{identity.entity.id}}/*`. Names in engines' roles, too.
//!
//! A value that is missing, empty, or that could change the shape of the path (`*`, `+`, `/`, `..`,
//! control characters, braces) makes a granting rule match nothing. A *denying* rule then denies
//! everywhere it might apply: an attacker who can make his name unresolvable gains nothing.

use std::collections::BTreeMap;

use super::pattern::{Pattern, PatternError};

/// What templates can ask about a caller. Fill in what is known; what is absent resolves nothing.
#[derive(Clone, Debug, Default)]
pub struct TemplateValues {
    /// `identity.entity.id`
    pub entity_id: Option<String>,
    /// `identity.entity.name`
    pub entity_name: Option<String>,
    /// `identity.entity.metadata.<key>`
    pub entity_metadata: BTreeMap<String, String>,
    /// `identity.entity.aliases.<mount accessor>.…`, by accessor.
    pub aliases: BTreeMap<String, AliasValues>,
    /// The groups that the entity is a member of, for `identity.groups.…`.
    pub groups: Vec<GroupValues>,
}

/// One alias of the caller's entity.
#[derive(Clone, Debug, Default)]
pub struct AliasValues {
    /// `….id`
    pub id: String,
    /// `….name`
    pub name: String,
    /// `….metadata.<key>`
    pub metadata: BTreeMap<String, String>,
    /// `….custom_metadata.<key>`
    pub custom_metadata: BTreeMap<String, String>,
}

/// One group of the caller's entity.
#[derive(Clone, Debug, Default)]
pub struct GroupValues {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// `….metadata.<key>`
    pub metadata: BTreeMap<String, String>,
}

/// A path with placeholders, checked as far as it can be without values.
#[derive(Clone, Debug)]
pub struct Template {
    text: Box<str>,
    parts: Vec<Part>,
}

#[derive(Clone, Debug)]
enum Part {
    Literal(Box<str>),
    Value(Placeholder),
}

#[derive(Clone, Debug)]
enum Placeholder {
    EntityId,
    EntityName,
    EntityMetadata(Box<str>),
    Alias(Box<str>, AliasField),
    GroupById(Box<str>, GroupField),
    GroupByName(Box<str>, GroupField),
}

#[derive(Clone, Debug)]
enum AliasField {
    Id,
    Name,
    Metadata(Box<str>),
    CustomMetadata(Box<str>),
}

#[derive(Clone, Debug)]
enum GroupField {
    Id,
    Name,
    Metadata(Box<str>),
}

impl Template {
    /// Whether a path has placeholders.
    pub fn is_template(path: &str) -> bool {
        path.contains("{{") || path.contains("}}")
    }

    /// Parses a path with placeholders.
    ///
    /// # Errors
    /// Unbalanced braces, unknown placeholders, and whatever is wrong with the path around them.
    pub fn parse(path: &str) -> Result<Self, TemplateError> {
        let path = path.strip_prefix('/').unwrap_or(path);
        // The pattern that comes of it would drop a second slash too.
        if path.starts_with('/') {
            return Err(PatternError::EmptySegment.into());
        }
        let template = Self::parse_text(path)?;
        // Any harmless value shows whether the path around the placeholders is sound.
        Pattern::parse(&template.fill(|_| Some("x")).unwrap_or_default())?;
        Ok(template)
    }

    /// Parses text with placeholders that is not a path.
    ///
    /// # Errors
    /// Unbalanced braces and unknown placeholders.
    pub fn parse_text(text: &str) -> Result<Self, TemplateError> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("{{") {
            let (inside, tail) = after.split_once("}}").ok_or(TemplateError::Unbalanced)?;
            if !before.is_empty() {
                parts.push(Part::Literal(before.into()));
            }
            parts.push(Part::Value(Placeholder::parse(inside.trim())?));
            rest = tail;
        }
        if !rest.is_empty() {
            parts.push(Part::Literal(rest.into()));
        }
        let template = Self { text: text.into(), parts };
        if template.literals().any(|literal| literal.contains("}}")) {
            return Err(TemplateError::Unbalanced);
        }
        Ok(template)
    }

    /// The text for one caller, or `None` when a value is missing or empty. What a value may hold is
    /// for whoever uses the text to judge.
    pub fn text(&self, values: &TemplateValues) -> Option<String> {
        self.fill(|placeholder| placeholder.value(values).filter(|value| !value.is_empty()))
    }

    /// As written, without a leading slash.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The pattern for one caller, or `None` when a value is missing or unsafe.
    pub fn resolve(&self, values: &TemplateValues) -> Option<Pattern> {
        let filled = self.fill(|placeholder| placeholder.value(values).filter(|v| is_safe(v)))?;
        Pattern::parse(&filled).ok()
    }

    /// What matches wherever this could apply, whatever the values are.
    pub(in crate::core) fn envelope(&self) -> Envelope {
        // A control character marks the places of values: no path and no literal has one.
        let marked = self.fill(|_| Some("\0")).unwrap_or_default();
        let (literal, open) = match marked.strip_suffix('*') {
            Some(literal) => (literal, true),
            None => (marked.as_str(), false),
        };
        let segment = |text: &str| match (text.split_once('\0'), text.rsplit_once('\0')) {
            (Some((before, _)), Some((_, after))) => {
                EnvelopeSegment::Around(before.into(), after.into())
            }
            (_, _) if text == "+" => EnvelopeSegment::Around("".into(), "".into()),
            (_, _) => EnvelopeSegment::Literal(text.into()),
        };
        Envelope { segments: literal.split('/').map(segment).collect(), open }
    }

    fn literals(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().filter_map(|part| match part {
            Part::Literal(text) => Some(&**text),
            Part::Value(_) => None,
        })
    }

    fn fill<'v>(&self, value: impl Fn(&Placeholder) -> Option<&'v str>) -> Option<String> {
        let mut out = String::with_capacity(self.text.len());
        for part in &self.parts {
            match part {
                Part::Literal(text) => out.push_str(text),
                Part::Value(placeholder) => out.push_str(value(placeholder)?),
            }
        }
        Some(out)
    }
}

/// Whether a value stays one part of one segment.
fn is_safe(value: &str) -> bool {
    !value.is_empty()
        && value != "."
        && !value.contains("..")
        && !value.contains("{{")
        && !value.contains("}}")
        && !value.chars().any(|c| matches!(c, '*' | '+' | '/') || c.is_control())
}

impl Placeholder {
    fn parse(text: &str) -> Result<Self, TemplateError> {
        let unknown = || TemplateError::Unknown { name: super::error::quote(text) };
        let rest = text.strip_prefix("identity.").ok_or_else(unknown)?;
        if let Some(rest) = rest.strip_prefix("entity.") {
            return match rest {
                "id" => Some(Self::EntityId),
                "name" => Some(Self::EntityName),
                _ => Self::entity_part(rest),
            }
            .ok_or_else(unknown);
        }
        let rest = rest.strip_prefix("groups.").ok_or_else(unknown)?;
        let parsed = if let Some(rest) = rest.strip_prefix("ids.") {
            group_part(rest, ".name", GroupField::Name)
                .map(|(id, field)| Self::GroupById(id, field))
        } else if let Some(rest) = rest.strip_prefix("names.") {
            group_part(rest, ".id", GroupField::Id)
                .map(|(name, field)| Self::GroupByName(name, field))
        } else {
            None
        };
        parsed.ok_or_else(unknown)
    }

    fn entity_part(rest: &str) -> Option<Self> {
        if let Some(key) = rest.strip_prefix("metadata.") {
            return (!key.is_empty()).then(|| Self::EntityMetadata(key.into()));
        }
        let (accessor, field) = rest.strip_prefix("aliases.")?.split_once('.')?;
        let field = match field {
            "id" => AliasField::Id,
            "name" => AliasField::Name,
            _ => match field.split_once('.')? {
                ("metadata", key) if !key.is_empty() => AliasField::Metadata(key.into()),
                ("custom_metadata", key) if !key.is_empty() => {
                    AliasField::CustomMetadata(key.into())
                }
                (_, _) => return None,
            },
        };
        (!accessor.is_empty()).then(|| Self::Alias(accessor.into(), field))
    }

    fn value<'v>(&self, values: &'v TemplateValues) -> Option<&'v str> {
        let text = match self {
            Self::EntityId => values.entity_id.as_ref(),
            Self::EntityName => values.entity_name.as_ref(),
            Self::EntityMetadata(key) => values.entity_metadata.get(&**key),
            Self::Alias(accessor, field) => {
                let alias = values.aliases.get(&**accessor)?;
                match field {
                    AliasField::Id => Some(&alias.id),
                    AliasField::Name => Some(&alias.name),
                    AliasField::Metadata(key) => alias.metadata.get(&**key),
                    AliasField::CustomMetadata(key) => alias.custom_metadata.get(&**key),
                }
            }
            Self::GroupById(id, field) => {
                field.of(values.groups.iter().find(|group| *group.id == **id)?)
            }
            Self::GroupByName(name, field) => {
                field.of(values.groups.iter().find(|group| *group.name == **name)?)
            }
        };
        text.map(String::as_str)
    }
}

impl GroupField {
    fn of<'v>(&self, group: &'v GroupValues) -> Option<&'v String> {
        match self {
            Self::Id => Some(&group.id),
            Self::Name => Some(&group.name),
            Self::Metadata(key) => group.metadata.get(&**key),
        }
    }
}

/// Splits `<group><suffix>` or `<group>.metadata.<key>`. Group names may have dots, so a text that
/// reads both ways is refused.
fn group_part(rest: &str, suffix: &str, field: GroupField) -> Option<(Box<str>, GroupField)> {
    let plain = rest.strip_suffix(suffix).filter(|group| !group.is_empty());
    let keyed = rest.split_once(".metadata.").filter(|(g, k)| !g.is_empty() && !k.is_empty());
    match (plain, keyed) {
        (Some(group), None) => Some((group.into(), field)),
        (None, Some((group, key))) => Some((group.into(), GroupField::Metadata(key.into()))),
        (Some(_), Some(_)) | (None, None) => None,
    }
}

/// All that a template could match, for any values.
#[derive(Clone, Debug)]
pub(in crate::core) struct Envelope {
    segments: Vec<EnvelopeSegment>,
    open: bool,
}

#[derive(Clone, Debug)]
enum EnvelopeSegment {
    Literal(Box<str>),
    /// Something between these two.
    Around(Box<str>, Box<str>),
}

impl Envelope {
    pub(in crate::core) fn matches(&self, path: &str) -> bool {
        let mut ours = self.segments.iter().peekable();
        let mut theirs = path.split('/');
        loop {
            match (ours.next(), theirs.next()) {
                (Some(own), Some(segment)) if self.open && ours.peek().is_none() => {
                    return match own {
                        EnvelopeSegment::Literal(text) => segment.starts_with(&**text),
                        EnvelopeSegment::Around(before, _) => segment.starts_with(&**before),
                    };
                }
                (Some(own), Some(segment)) => {
                    let fits = match own {
                        EnvelopeSegment::Literal(text) => **text == *segment,
                        EnvelopeSegment::Around(before, after) => {
                            segment.starts_with(&**before) && segment.ends_with(&**after)
                        }
                    };
                    if !fits {
                        return false;
                    }
                }
                (None, None) => return true,
                (_, _) => return false,
            }
        }
    }
}

/// Why a templated path was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// `{{` without `}}` or the reverse.
    #[error("the path has '{{{{' or '}}}}' without its counterpart")]
    Unbalanced,
    /// A placeholder that does not exist.
    #[error("unknown template {name:?}: use identity.entity… or identity.groups…")]
    Unknown {
        /// What stood between the braces.
        name: String,
    },
    /// The path around the placeholders.
    #[error(transparent)]
    Pattern(#[from] PatternError),
}
