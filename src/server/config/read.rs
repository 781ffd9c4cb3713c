//! Reading sections of a TOML document so that every problem is found in one run.

use std::fmt;

use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeTable, DeValue, ValueDeserializer};

/// Something wrong with a configuration, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The line of the file, counted from 1, where there is one.
    pub line: Option<usize>,
    /// The key: `listener[0].address`.
    pub key: String,
    /// What is wrong with it.
    pub text: String,
}

impl Problem {
    /// A problem that belongs to a key and to no line.
    pub fn new(key: impl Into<String>, text: impl Into<String>) -> Self {
        Self { line: None, key: key.into(), text: text.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(line) = self.line {
            write!(f, "line {line}: ")?;
        }
        match self.key.as_str() {
            "" => f.write_str(&self.text),
            key => write!(f, "{key}: {}", self.text),
        }
    }
}

/// The document, and the problems found in it so far.
pub(super) struct Document<'a> {
    text: &'a str,
    root: DeTable<'a>,
    problems: Vec<Problem>,
}

impl<'a> Document<'a> {
    /// Parses the text; every syntax error at once.
    pub(super) fn parse(text: &'a str) -> Result<Self, Vec<Problem>> {
        let (root, errors) = DeTable::parse_recoverable(text);
        let mut document =
            Self { text, root: root.into_inner(), problems: Vec::with_capacity(errors.len()) };
        for error in errors {
            let line = error.span().map(|span| document.line_at(span.start));
            document.problems.push(Problem {
                line,
                key: String::new(),
                text: format!("not TOML: {}", error.message()),
            });
        }
        if document.problems.is_empty() { Ok(document) } else { Err(document.problems) }
    }

    /// Reads the table `name`; defaults where it is absent.
    pub(super) fn section<S: Section>(&mut self, name: &str) -> S {
        match self.root.remove(name) {
            None => S::default(),
            Some(value) => self.table(name.to_owned(), value),
        }
    }

    /// Reads the array of tables `name`; empty where it is absent.
    pub(super) fn sections<S: Section>(&mut self, name: &str) -> Vec<S> {
        let Some(value) = self.root.remove(name) else { return Vec::new() };
        let line = self.line_at(value.span().start);
        let DeValue::Array(items) = value.into_inner() else {
            let text = format!("must be written as [[{name}]], once for each");
            self.problems.push(Problem { line: Some(line), key: name.to_owned(), text });
            return Vec::new();
        };
        items
            .into_iter()
            .enumerate()
            .map(|(index, item)| self.table(format!("{name}[{index}]"), item))
            .collect()
    }

    /// Ends the reading: what nobody asked for is unknown.
    pub(super) fn finish(mut self, known: &[&str]) -> Vec<Problem> {
        let rest: Vec<_> = std::mem::take(&mut self.root).into_iter().collect();
        for (key, _) in rest {
            self.unknown("", &key, known);
        }
        self.problems
    }

    fn table<S: Section>(&mut self, path: String, value: Spanned<DeValue<'a>>) -> S {
        let line = self.line_at(value.span().start);
        let DeValue::Table(table) = value.into_inner() else {
            let text = "must be a table".to_owned();
            self.problems.push(Problem { line: Some(line), key: path, text });
            return S::default();
        };
        let mut fields = Fields { document: self, path, table };
        let section = S::read(&mut fields);
        let Fields { document, path, table } = fields;
        for (key, _) in table {
            document.unknown(&path, &key, S::KEYS);
        }
        section
    }

    fn unknown(&mut self, path: &str, key: &Spanned<impl AsRef<str>>, known: &[&str]) {
        let name = key.get_ref().as_ref();
        let text = match nearest(name, known) {
            Some(near) => format!("unknown key; did you mean {near}?"),
            None => format!("unknown key; known here: {}", known.join(", ")),
        };
        let key_path = if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
        let line = self.line_at(key.span().start);
        self.problems.push(Problem { line: Some(line), key: key_path, text });
    }

    fn line_at(&self, offset: usize) -> usize {
        1 + self.text.bytes().take(offset).filter(|byte| *byte == b'\n').count()
    }
}

/// One table while its fields are being read.
pub(super) struct Fields<'d, 'a> {
    document: &'d mut Document<'a>,
    path: String,
    table: DeTable<'a>,
}

impl Fields<'_, '_> {
    /// The value of `key`; `default` where it is absent or wrong, which is then a problem.
    pub(super) fn take<T: DeserializeOwned>(&mut self, key: &str, default: T) -> T {
        let Some(value) = self.table.remove(key) else { return default };
        let line = self.document.line_at(value.span().start);
        match T::deserialize(ValueDeserializer::from(value)) {
            Ok(value) => value,
            Err(error) => {
                self.document.problems.push(Problem {
                    line: Some(line),
                    key: format!("{}.{key}", self.path),
                    text: error.message().to_owned(),
                });
                default
            }
        }
    }
}

/// A table of the configuration.
pub(super) trait Section: Default {
    /// Every key it may have.
    const KEYS: &'static [&'static str];
    /// Takes what it knows.
    fn read(fields: &mut Fields<'_, '_>) -> Self;
}

/// The key of a field: its name, or what stands in its place.
macro_rules! key {
    ($field:ident) => {
        stringify!($field)
    };
    ($field:ident $key:literal) => {
        $key
    };
}
pub(super) use key;

/// A section: its fields, their defaults and the reading of them, written once.
macro_rules! section {
    (
        $(#[$doc:meta])*
        pub struct $name:ident {
            $(
                $(#[$field_doc:meta])*
                $field:ident $(as $key:literal)?: $type:ty = $default:expr,
            )*
        }
    ) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
        pub struct $name {
            $( $(#[$field_doc])* $(#[serde(rename = $key)])? pub $field: $type, )*
        }

        impl Default for $name {
            fn default() -> Self {
                Self { $( $field: $default, )* }
            }
        }

        impl read::Section for $name {
            const KEYS: &'static [&'static str] = &[$( read::key!($field $($key)?), )*];

            fn read(fields: &mut read::Fields<'_, '_>) -> Self {
                Self { $( $field: fields.take(read::key!($field $($key)?), $default), )* }
            }
        }
    };
}
pub(super) use section;

/// The known key that `name` is probably a slip of: at most a third of it is different.
fn nearest<'k>(name: &str, known: &[&'k str]) -> Option<&'k str> {
    known
        .iter()
        .map(|candidate| (distance(name, candidate), *candidate))
        .filter(|(distance, candidate)| *distance * 3 <= candidate.len())
        .min()
        .map(|(_, candidate)| candidate)
}

/// Levenshtein's distance in bytes.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (cell, y) in row.iter_mut().skip(1).zip(b.bytes()) {
            let replace = diagonal + usize::from(x != y);
            diagonal = *cell;
            *cell = replace.min(left + 1).min(diagonal + 1);
            left = *cell;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or(a.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_recognised_and_strangers_are_not() {
        let known = ["max_body", "max_connections", "data_dir"];
        assert_eq!(nearest("max_bdoy", &known), Some("max_body"));
        assert_eq!(nearest("datadir", &known), Some("data_dir"));
        assert_eq!(nearest("colour", &known), None);
        assert_eq!((distance("kitten", "sitting"), distance("", "abc")), (3, 3));
    }
}
