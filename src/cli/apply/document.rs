//! The document: what is to be set up, read from TOML with every mistake named by line and column.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Map, Value};
use toml::Spanned;
use toml::de::{DeTable, DeValue, ValueDeserializer};

use super::secrets::{Source, holds_a_secret, is_secret_name};

/// Largest file that is read, the document's own or one that it names, in bytes.
pub(super) const FILE_BYTES_MAX: u64 = 4 << 20;

const SECTIONS: &[&str] = &["policies", "password-policies", "mounts", "auth", "config", "quotas"];
const POLICY_KEYS: &[&str] = &["policy", "file"];
const MOUNT_KEYS: &[&str] = &["type", "description", "options", "tune"];
const TUNE_KEYS: &[&str] = &[
    "default_lease_ttl",
    "max_lease_ttl",
    "listing_visibility",
    "audit_non_hmac_request_keys",
    "audit_non_hmac_response_keys",
    "passthrough_request_headers",
    "allowed_response_headers",
    "token_type",
    "user_lockout_config",
];
const QUOTA_KINDS: &[&str] = &["rate-limit", "lease-count"];
/// Marks of an inline table that stands for a value which is elsewhere.
const REFERENCE_KEYS: &[&str] = &["from_env", "from_file", "from_read", "field"];
/// Where `from_read` may read: what names and identifies, never what is secret.
const READABLE: &[&str] = &["identity/", "sys/auth/", "sys/mounts/"];
/// Paths of the server itself that are configuration and have no section of their own.
const SYSTEM_CONFIG: &[&str] =
    &["sys/quotas/config", "sys/rotate/config", "sys/rotate/keyring/config"];
const SYSTEM_CONFIG_BELOW: &str = "sys/config/";

/// A mistake in the document, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Problem {
    line: usize,
    column: usize,
    text: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}: {}", self.line, self.column, self.text)
    }
}

/// What a broker is to have, each list in the order of the document.
#[derive(Debug, Default)]
pub(super) struct Document {
    pub(super) policies: Vec<Policy>,
    pub(super) password_policies: Vec<Policy>,
    pub(super) mounts: Vec<Mount>,
    pub(super) auth: Vec<Mount>,
    pub(super) config: Vec<Object>,
    pub(super) quotas: Vec<Object>,
}

/// A policy and its text.
#[derive(Debug)]
pub(super) struct Policy {
    pub(super) name: String,
    pub(super) text: String,
}

/// A secrets engine or auth method at a path, without the slash at its end.
#[derive(Debug)]
pub(super) struct Mount {
    pub(super) path: String,
    pub(super) kind: String,
    pub(super) description: Option<String>,
    pub(super) options: Map<String, Value>,
    pub(super) tune: Map<String, Value>,
}

impl Mount {
    /// `kv-v1` and `kv-v2` are short for a type and an option.
    fn spelled_out(mut self) -> Self {
        if let Some(version) = self.kind.strip_prefix("kv-v") {
            self.options.entry("version").or_insert_with(|| Value::String(version.to_owned()));
            self.kind = "kv".to_owned();
        }
        self
    }
}

/// A path that is configured by writing fields to it.
#[derive(Debug)]
pub(super) struct Object {
    pub(super) path: String,
    pub(super) line: usize,
    pub(super) fields: Vec<(String, Wanted)>,
}

/// What a field is to be.
#[derive(Debug)]
pub(super) enum Wanted {
    /// Written in the document.
    Plain(Value),
    /// Kept elsewhere, and never shown.
    Secret(Source),
    /// What the server answers at another path, such as an id that it chose.
    Answer(Ask),
    /// A list of such answers.
    Answers(Vec<Ask>),
}

/// A field of the answer at another path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ask {
    pub(super) path: String,
    pub(super) field: String,
}

type Table<'a> = Vec<(Spanned<std::borrow::Cow<'a, str>>, Spanned<DeValue<'a>>)>;

/// Reads `text`; files are named relative to `base`.
pub(super) fn parse(text: &str, base: &Path) -> Result<Document, Vec<Problem>> {
    let mut reader = Reader { text, base, problems: Vec::new() };
    let (root, errors) = DeTable::parse_recoverable(text);
    for error in errors {
        let at = error.span().unwrap_or_default();
        reader.problem(at, format!("not TOML: {}", error.message()));
    }
    if reader.problems.is_empty() {
        let document = reader.document(root.into_inner());
        if reader.problems.is_empty() {
            return Ok(document);
        }
    }
    reader.problems.sort_by_key(|problem| (problem.line, problem.column));
    Err(reader.problems)
}

struct Reader<'t> {
    text: &'t str,
    base: &'t Path,
    problems: Vec<Problem>,
}

impl Reader<'_> {
    fn document(&mut self, root: DeTable<'_>) -> Document {
        let mut document = Document::default();
        for (key, value) in in_order(root) {
            let name = key.get_ref().clone();
            match name.as_ref() {
                "policies" => document.policies = self.policies(value),
                "password-policies" => document.password_policies = self.policies(value),
                "mounts" => document.mounts = self.mounts(value),
                "auth" => document.auth = self.mounts(value),
                "config" => document.config = self.config(value),
                "quotas" => document.quotas = self.quotas(value),
                other => self.unknown(key.span(), other, SECTIONS),
            }
        }
        document
    }

    /// The entries of a section by checked name, each a table.
    fn entries<'a>(
        &mut self,
        section: Spanned<DeValue<'a>>,
    ) -> Vec<(String, Range<usize>, Table<'a>)> {
        let mut seen = BTreeSet::new();
        let mut out = Vec::new();
        for (key, value) in self.table(section, "a table of tables") {
            let at = key.span();
            let name = key.get_ref().trim_end_matches('/').to_owned();
            let bad = name.is_empty()
                || name.split('/').any(|part| matches!(part, "" | "." | ".."))
                || name.chars().any(char::is_control);
            if bad {
                self.problem(at, format!("\"{name}\" is no usable name or path"));
            } else if !seen.insert(name.clone()) {
                self.problem(at, format!("\"{name}\" stands here twice"));
            } else {
                let table = self.table(value, "a table");
                out.push((name, at, table));
            }
        }
        out
    }

    fn policies(&mut self, section: Spanned<DeValue<'_>>) -> Vec<Policy> {
        let mut out = Vec::new();
        for (name, at, table) in self.entries(section) {
            let (mut text, mut file) = (None, None);
            for (key, value) in table {
                match key.get_ref().as_ref() {
                    "policy" => text = self.text_at(value),
                    "file" => {
                        let place = value.span();
                        file = self.text_at(value).and_then(|path| self.file(place, &path));
                    }
                    other => self.unknown(key.span(), other, POLICY_KEYS),
                }
            }
            match (text, file) {
                (Some(text), None) | (None, Some(text)) => out.push(Policy { name, text }),
                (Some(_), Some(_)) => {
                    self.problem(at, format!("{name}: give policy or file, not both"));
                }
                (None, None) => self.problem(at, format!("{name}: policy or file is required")),
            }
        }
        out
    }

    fn mounts(&mut self, section: Spanned<DeValue<'_>>) -> Vec<Mount> {
        let mut out = Vec::new();
        for (path, at, table) in self.entries(section) {
            let mut kind = None;
            let mut mount = Mount {
                path,
                kind: String::new(),
                description: None,
                options: Map::new(),
                tune: Map::new(),
            };
            for (key, value) in table {
                match key.get_ref().as_ref() {
                    "type" => kind = self.text_at(value),
                    "description" => mount.description = self.text_at(value),
                    "options" => mount.options = self.plain_table(value, None),
                    "tune" => mount.tune = self.plain_table(value, Some(TUNE_KEYS)),
                    other => self.unknown(key.span(), other, MOUNT_KEYS),
                }
            }
            match kind {
                Some(kind) => out.push(Mount { kind, ..mount }.spelled_out()),
                None => self.problem(at, format!("{}: type is required", mount.path)),
            }
        }
        out
    }

    fn config(&mut self, section: Spanned<DeValue<'_>>) -> Vec<Object> {
        let mut out = Vec::new();
        for (path, at, table) in self.entries(section) {
            if let Some(reason) = not_configuration(&path) {
                self.problem(at.clone(), format!("{path}: {reason}"));
            }
            let fields = self.fields(table);
            if fields.is_empty() {
                self.problem(at.clone(), format!("{path}: at least one field is required"));
            }
            out.push(Object { path, line: self.place(at.start).0, fields });
        }
        out
    }

    fn quotas(&mut self, section: Spanned<DeValue<'_>>) -> Vec<Object> {
        let mut out = Vec::new();
        for (key, kind) in self.table(section, "a table of tables") {
            let name = key.get_ref().clone();
            if !QUOTA_KINDS.contains(&name.as_ref()) {
                self.unknown(key.span(), &name, QUOTA_KINDS);
                continue;
            }
            for (quota, at, table) in self.entries(kind) {
                let path = format!("sys/quotas/{name}/{quota}");
                let fields = self.fields(table);
                out.push(Object { path, line: self.place(at.start).0, fields });
            }
        }
        out
    }

    fn fields(&mut self, table: Table<'_>) -> Vec<(String, Wanted)> {
        let mut out = Vec::new();
        for (key, value) in table {
            let (at, name) = (key.span(), key.get_ref().to_string());
            if let Some(wanted) = self.wanted(&name, at, value) {
                out.push((name, wanted));
            }
        }
        out
    }

    fn wanted(
        &mut self,
        name: &str,
        at: Range<usize>,
        value: Spanned<DeValue<'_>>,
    ) -> Option<Wanted> {
        if is_reference(&value) {
            return self.reference(value);
        }
        if matches!(value.get_ref(), DeValue::Array(items) if items.iter().any(is_reference)) {
            return self.references(value);
        }
        let plain = self.value(value)?;
        if is_secret_name(name) && plain.as_str().is_some_and(|text| !text.is_empty()) {
            self.problem(
                at,
                format!(
                    "{name}: a secret does not belong here; write {{ from_env = \"NAME\" }} or \
                     {{ from_file = \"PATH\" }}"
                ),
            );
            return None;
        }
        if holds_a_secret(&plain) {
            self.problem(
                at,
                format!(
                    "{name}: holds a secret, which does not belong here; of an address, write {{{{username}}}}:{{{{password}}}} there, and \
                     password = {{ from_env = \"NAME\" }} beside it"
                ),
            );
            return None;
        }
        Some(Wanted::Plain(plain))
    }

    fn reference(&mut self, value: Spanned<DeValue<'_>>) -> Option<Wanted> {
        let at = value.span();
        let mut given: Vec<(String, Range<usize>, String)> = Vec::new();
        for (key, value) in self.table(value, "a table") {
            let (place, name) = (value.span(), key.get_ref().to_string());
            if !REFERENCE_KEYS.contains(&name.as_str()) {
                self.unknown(key.span(), &name, REFERENCE_KEYS);
            }
            given.push((name, place, self.text_at(value)?));
        }
        let parts: Vec<(&str, &str)> =
            given.iter().map(|(name, _, text)| (name.as_str(), text.as_str())).collect();
        match parts.as_slice() {
            [("from_env", name)] => Some(Wanted::Secret(Source::Env((*name).to_owned()))),
            [("from_file", path)] => Some(Wanted::Secret(Source::File(self.base.join(path)))),
            [("from_read", path), ("field", field)] | [("field", field), ("from_read", path)] => {
                if READABLE.iter().any(|start| path.starts_with(start)) {
                    let (path, field) = ((*path).to_owned(), (*field).to_owned());
                    return Some(Wanted::Answer(Ask { path, field }));
                }
                self.problem(at, format!("from_read reads below {} only", READABLE.join(", ")));
                None
            }
            _ => {
                self.problem(
                    at,
                    "a reference is { from_env = \"NAME\" }, { from_file = \"PATH\" } or \
                     { from_read = \"PATH\", field = \"NAME\" }"
                        .to_owned(),
                );
                None
            }
        }
    }

    /// A list in which all are read from the server.
    fn references(&mut self, value: Spanned<DeValue<'_>>) -> Option<Wanted> {
        let DeValue::Array(items) = value.into_inner() else { return None };
        let mut out = Vec::new();
        for item in items {
            let at = item.span();
            match self.reference(item)? {
                Wanted::Answer(ask) => out.push(ask),
                Wanted::Plain(_) | Wanted::Secret(_) | Wanted::Answers(_) => {
                    self.problem(at, "in a list, all or none are { from_read = … }".to_owned());
                    return None;
                }
            }
        }
        Some(Wanted::Answers(out))
    }

    /// A table of values as they are, with all its keys among `known`.
    fn plain_table(
        &mut self,
        value: Spanned<DeValue<'_>>,
        known: Option<&[&str]>,
    ) -> Map<String, Value> {
        let mut out = Map::new();
        for (key, value) in self.table(value, "a table") {
            let name = key.get_ref().to_string();
            if let Some(known) = known.filter(|known| !known.contains(&name.as_str())) {
                self.unknown(key.span(), &name, known);
            } else if let Some(value) = self.value(value) {
                out.insert(name, value);
            }
        }
        out
    }

    fn table<'a>(&mut self, value: Spanned<DeValue<'a>>, expected: &str) -> Table<'a> {
        let at = value.span();
        if let DeValue::Table(table) = value.into_inner() {
            return in_order(table);
        }
        self.problem(at, format!("must be {expected}"));
        Table::new()
    }

    fn text_at(&mut self, value: Spanned<DeValue<'_>>) -> Option<String> {
        let at = value.span();
        if let DeValue::String(text) = value.into_inner() {
            return Some(text.into_owned());
        }
        self.problem(at, "must be a string".to_owned());
        None
    }

    fn value(&mut self, value: Spanned<DeValue<'_>>) -> Option<Value> {
        let at = value.span();
        if let Some(place) = datetime(&value) {
            self.problem(place, "must be written in quotes: a date is text here".to_owned());
            return None;
        }
        match Value::deserialize(ValueDeserializer::from(value)) {
            Ok(value) => Some(value),
            Err(error) => {
                self.problem(at, error.message().to_owned());
                None
            }
        }
    }

    fn file(&mut self, at: Range<usize>, name: &str) -> Option<String> {
        let path = self.base.join(name);
        match read_file(&path) {
            Ok(text) => Some(text),
            Err(error) => {
                self.problem(at, format!("cannot read {}: {error}", path.display()));
                None
            }
        }
    }

    fn unknown(&mut self, at: Range<usize>, name: &str, known: &[&str]) {
        self.problem(at, format!("unknown key {name}; known here: {}", known.join(", ")));
    }

    fn problem(&mut self, at: Range<usize>, text: String) {
        let (line, column) = self.place(at.start);
        self.problems.push(Problem { line, column, text });
    }

    /// Line and column of an offset, both counted from 1, columns in characters.
    fn place(&self, offset: usize) -> (usize, usize) {
        let before = self.text.get(..offset).unwrap_or(self.text);
        let line = before.bytes().filter(|byte| *byte == b'\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        (line, column)
    }
}

/// Reads a small text file.
pub(super) fn read_file(path: &Path) -> std::io::Result<String> {
    let size = std::fs::metadata(path)?.len();
    if size > FILE_BYTES_MAX {
        return Err(std::io::Error::new(
            std::io::ErrorKind::FileTooLarge,
            format!("larger than {FILE_BYTES_MAX} bytes"),
        ));
    }
    std::fs::read_to_string(path)
}

/// The directory that files in the document at `path` are named from.
pub(super) fn base(path: &Path) -> PathBuf {
    path.parent().map(Path::to_owned).unwrap_or_default()
}

/// The entries of a table in the order of the text.
fn in_order(table: DeTable<'_>) -> Table<'_> {
    let mut entries: Table<'_> = table.into_iter().collect();
    entries.sort_by_key(|(key, _)| key.span().start);
    entries
}

fn is_reference(value: &Spanned<DeValue<'_>>) -> bool {
    let marks = |key: &str| REFERENCE_KEYS.iter().take(3).any(|mark| *mark == key);
    matches!(value.get_ref(), DeValue::Table(table) if table.keys().any(|key| marks(key.get_ref())))
}

/// Where the first date in a value stands.
fn datetime(value: &Spanned<DeValue<'_>>) -> Option<Range<usize>> {
    match value.get_ref() {
        DeValue::Datetime(_) => Some(value.span()),
        DeValue::Array(items) => items.iter().find_map(datetime),
        DeValue::Table(table) => table.values().find_map(datetime),
        DeValue::String(_) | DeValue::Integer(_) | DeValue::Float(_) | DeValue::Boolean(_) => None,
    }
}

/// Why a path of the server itself is not for this section.
fn not_configuration(path: &str) -> Option<&'static str> {
    if SYSTEM_CONFIG.contains(&path) || path.starts_with(SYSTEM_CONFIG_BELOW) {
        return None;
    }
    let below = |start: &str| path.starts_with(start);
    if below("sys/policies/acl") || below("sys/policy") {
        Some("belongs into [policies]")
    } else if below("sys/policies/password") {
        Some("belongs into [password-policies]")
    } else if below("sys/mounts") {
        Some("belongs into [mounts]")
    } else if below("sys/auth") {
        Some("belongs into [auth]")
    } else if below("sys/quotas") {
        Some("belongs into [quotas]")
    } else if below("sys/") || path == "sys" {
        Some("is not configuration that this document may set")
    } else {
        None
    }
}
