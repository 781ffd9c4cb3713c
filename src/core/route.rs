//! The one table that routes requests, checks fields, and describes the API.

use std::collections::BTreeMap;

use super::operation::Operation;

/// Who may call a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// A caller whose policies grant the operation.
    Caller,
    /// As [`Access::Caller`], and the policies must grant `sudo` as well.
    Sudo,
    /// Any caller, whatever the policies: the route answers only with what the caller has some
    /// business with.
    Identified,
    /// As [`Access::Identified`], and anybody else who claims to be nobody: who presents no token and
    /// is known by no certificate is answered with what is for all.
    Anybody,
    /// Anybody who reaches the listener: log-ins.
    Public,
}

/// The form of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldKind {
    /// Any JSON value.
    Any,
    /// True or false.
    Boolean,
    /// Seconds, or text such as `1h30m`.
    Duration,
    /// A whole number.
    Integer,
    /// A list of whole numbers.
    Integers,
    /// A list of strings.
    List,
    /// An object.
    Map,
    /// A number.
    Number,
    /// An object with these fields; one called `*` stands for names that the table does not know.
    Object(&'static [FieldSpec]),
    /// A list of such objects.
    Objects(&'static [FieldSpec]),
    /// Text that is never logged or audited in clear.
    Secret,
    /// Text.
    Text,
    /// A time of RFC 3339, in UTC.
    Time,
}

/// One field of a request, or of an answer.
///
/// Requests may leave fields out; answers have them all, and none is null, unless it is said here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FieldSpec {
    /// Its name.
    pub name: &'static str,
    /// Its form.
    pub kind: FieldKind,
    /// What it means, in one line.
    pub about: &'static str,
    /// Whether an answer may have `null` there.
    pub nullable: bool,
    /// Whether an answer may leave it out.
    pub optional: bool,
    /// Whether it belongs in the query, also on a route that is written to.
    pub in_query: bool,
}

/// Shorthand for tables of fields.
pub const fn field(name: &'static str, kind: FieldKind, about: &'static str) -> FieldSpec {
    FieldSpec { name, kind, about, nullable: false, optional: false, in_query: false }
}

impl FieldSpec {
    /// The same in an answer that may have `null` there.
    pub const fn or_null(mut self) -> Self {
        self.nullable = true;
        self
    }

    /// The same in an answer that may leave it out.
    pub const fn if_any(mut self) -> Self {
        self.optional = true;
        self
    }

    /// The same for reads, lists and deletes of a route that is written to as well. Where nothing is
    /// written, every field belongs in the query anyway.
    pub const fn in_query(mut self) -> Self {
        self.in_query = true;
        self
    }
}

/// What a route answers to an operation that succeeded. A field called `*` stands for fields that the
/// caller chose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Nothing: 204, or 200 when there are warnings.
    Nothing,
    /// These fields below `data`.
    Data(&'static [FieldSpec]),
    /// As [`Answer::Data`] when there is something to say, else as [`Answer::Nothing`].
    Maybe(&'static [FieldSpec]),
    /// As [`Answer::Data`], and with 404 when what they describe is gone.
    OrGone(&'static [FieldSpec]),
    /// As [`Answer::Data`], and with 400, or the status that the caller chose, when some of what was
    /// asked for was not done.
    OrPartly(&'static [FieldSpec]),
    /// Work that takes time: as [`Answer::Maybe`], with 202 while it is not over.
    Begun(&'static [FieldSpec]),
    /// As [`Answer::Data`], with the same fields beside `data` as well.
    Top(&'static [FieldSpec]),
    /// These fields alone, without an envelope.
    Bare(&'static [FieldSpec]),
    /// These fields alone, with a status that says how things are and that the caller may choose.
    Health(&'static [FieldSpec]),
    /// A body of this media type, without an envelope.
    Raw(&'static str),
    /// `keys`, a list of names, and these fields beside it below `data`.
    Keys(&'static [FieldSpec]),
    /// A credential with these fields below `data`, under a lease.
    Lease(&'static [FieldSpec]),
    /// A lease that was there before.
    Renewed,
    /// A token, below `auth`.
    Token,
    /// A wrapping token, below `wrap_info`.
    Wrapped,
    /// Whatever was wrapped.
    Unwrapped,
}

/// What a route answers, by what was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answers {
    /// To a read.
    pub read: Answer,
    /// To a write of any kind.
    pub write: Answer,
    /// To a list.
    pub list: Answer,
    /// To a delete.
    pub delete: Answer,
}

impl Answers {
    /// What most routes answer. A read that answers nothing is an error in a table.
    const USUAL: Self = Self {
        read: Answer::Data(&[]),
        write: Answer::Nothing,
        list: Answer::Keys(&[]),
        delete: Answer::Nothing,
    };

    /// The answer to `operation`.
    pub const fn to(&self, operation: Operation) -> Answer {
        match operation {
            Operation::Read => self.read,
            Operation::Create | Operation::Patch | Operation::Update => self.write,
            Operation::List => self.list,
            Operation::Delete => self.delete,
        }
    }
}

/// One route below a mount.
#[derive(Clone, Copy, Debug)]
pub struct RouteSpec {
    /// Its name, unique within the engine: the stem of the operation id.
    pub name: &'static str,
    /// Segments; `:name` takes one segment, a final `*name` takes the rest (possibly nothing), and a
    /// `*name` before a last fixed segment takes all that precedes it.
    pub pattern: &'static str,
    /// What it is, in one line.
    pub summary: &'static str,
    /// Who may call it.
    pub access: Access,
    /// What it serves. A route that is written to lists `Update`, and `Create` too when it tells
    /// the two apart.
    pub operations: &'static [Operation],
    /// The fields it knows, of all its operations. Others are answered with a warning, unless the
    /// list holds one called `*`: then the route takes any field.
    pub fields: &'static [FieldSpec],
    /// What it answers.
    pub answers: Answers,
}

/// Shorthand for tables of routes: one for callers whose policies grant the operation.
pub const fn route(
    name: &'static str,
    pattern: &'static str,
    summary: &'static str,
    operations: &'static [Operation],
    fields: &'static [FieldSpec],
) -> RouteSpec {
    let answers = Answers::USUAL;
    RouteSpec { name, pattern, summary, access: Access::Caller, operations, fields, answers }
}

impl RouteSpec {
    /// The same for callers who are granted `sudo` as well.
    pub const fn sudo(mut self) -> Self {
        self.access = Access::Sudo;
        self
    }

    /// The same for any caller.
    pub const fn identified(mut self) -> Self {
        self.access = Access::Identified;
        self
    }

    /// The same for any caller, and for those who are none.
    pub const fn anybody(mut self) -> Self {
        self.access = Access::Anybody;
        self
    }

    /// The same for anybody who reaches the listener.
    pub const fn public(mut self) -> Self {
        self.access = Access::Public;
        self
    }

    /// The same with this answer to reads.
    pub const fn reads(mut self, answer: Answer) -> Self {
        self.answers.read = answer;
        self
    }

    /// The same with this answer to writes.
    pub const fn writes(mut self, answer: Answer) -> Self {
        self.answers.write = answer;
        self
    }

    /// The same with this answer to lists.
    pub const fn lists(mut self, answer: Answer) -> Self {
        self.answers.list = answer;
        self
    }

    /// The same with this answer to deletes.
    pub const fn deletes(mut self, answer: Answer) -> Self {
        self.answers.delete = answer;
        self
    }

    /// Whether `operation` is served; `Create` is served wherever `Update` is.
    pub fn serves(&self, operation: Operation) -> bool {
        self.operations.contains(&operation)
            || (operation == Operation::Create && self.operations.contains(&Operation::Update))
    }

    /// Whether `operation` makes something that has to be taken back when its answer cannot leave, be it
    /// a read: a token, or a credential.
    pub fn makes(&self, operation: Operation) -> bool {
        matches!(self.answers.to(operation), Answer::Lease(_) | Answer::Token | Answer::Wrapped)
    }

    /// Whether `field` is known here, in the pattern or in the list of fields.
    pub fn knows_field(&self, name: &str) -> bool {
        self.fields.iter().any(|f| f.name == name || f.name == "*")
            || self
                .pattern
                .split('/')
                .any(|part| part.strip_prefix([':', '*']).is_some_and(|param| param == name))
    }

    /// Whether it serves `path`, the path below the mount.
    pub fn matches(&self, path: &str) -> bool {
        self.captured(path).is_some()
    }

    /// What the pattern captures of `path`. A slash at the end does not count for patterns without a
    /// rest parameter.
    fn captured<'p>(&self, path: &'p str) -> Option<Params<'p>> {
        let trimmed = path.strip_suffix('/').unwrap_or(path);
        self.capture(if self.pattern.contains('*') { path } else { trimmed })
    }

    fn capture<'p>(&self, path: &'p str) -> Option<Params<'p>> {
        let mut params = BTreeMap::new();
        let mut rest = path;
        let mut done = path.is_empty();
        for part in self.pattern.split('/').filter(|part| !part.is_empty()) {
            if let Some(name) = part.strip_prefix('*') {
                let rest = match self.pattern.rsplit_once('/') {
                    Some((_, last)) if !last.starts_with('*') => {
                        rest.strip_suffix(last)?.strip_suffix('/')?
                    }
                    Some(_) | None => rest,
                };
                params.insert(name, rest);
                return Some(Params(params));
            }
            if done {
                return None;
            }
            let (segment, tail) = match rest.split_once('/') {
                Some((segment, tail)) => (segment, tail),
                None => (rest, ""),
            };
            done = segment.len() == rest.len();
            rest = tail;
            match part.strip_prefix(':') {
                Some(name) => {
                    params.insert(name, segment);
                }
                None if part == segment => {}
                None => return None,
            }
        }
        done.then_some(Params(params))
    }
}

/// What a route's pattern captured from the path.
#[derive(Clone, Debug, Default)]
pub struct Params<'p>(BTreeMap<&'static str, &'p str>);

impl<'p> Params<'p> {
    /// A captured parameter; empty when the pattern has none of that name.
    pub fn get(&self, name: &str) -> &'p str {
        self.0.get(name).copied().unwrap_or_default()
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &'p str)> + '_ {
        self.0.iter().map(|(name, value)| (*name, *value))
    }
}

/// Finds the route in `table` for `operation` at `path`, the path below the mount: the first whose
/// pattern matches and that serves the operation, else the first whose pattern matches.
pub fn select<'p>(
    table: &'static [RouteSpec],
    path: &'p str,
    operation: Operation,
) -> Option<(&'static RouteSpec, Params<'p>)> {
    let mut matching = all(table, path);
    let first = matching.next()?;
    if first.0.serves(operation) {
        return Some(first);
    }
    Some(matching.find(|(route, _)| route.serves(operation)).unwrap_or(first))
}

/// Finds the first route in `table` whose pattern matches `path`, the path below the mount. A slash
/// at the end does not count for patterns without a rest parameter.
pub fn find<'p>(
    table: &'static [RouteSpec],
    path: &'p str,
) -> Option<(&'static RouteSpec, Params<'p>)> {
    all(table, path).next()
}

fn all<'p>(
    table: &'static [RouteSpec],
    path: &'p str,
) -> impl Iterator<Item = (&'static RouteSpec, Params<'p>)> {
    table.iter().filter_map(move |route| route.captured(path).map(|params| (route, params)))
}

#[cfg(test)]
mod tests {
    use super::*;

    static TABLE: &[RouteSpec] = &[
        spec("config", "config"),
        spec("role", "roles/:name"),
        spec("roles", "roles"),
        spec("tune", "data/*path/tune"),
        spec("data", "data/*path"),
        spec("rest", "*path"),
    ];

    const fn spec(name: &'static str, pattern: &'static str) -> RouteSpec {
        route(name, pattern, "", &[Operation::Read, Operation::Update], &[])
    }

    fn found(path: &str) -> (&'static str, Vec<(&'static str, &str)>) {
        let (route, params) = find(TABLE, path).unwrap();
        (route.name, params.iter().collect())
    }

    #[test]
    fn patterns_capture_segments_and_rests() {
        assert_eq!(found("config"), ("config", vec![]));
        assert_eq!(found("roles/x"), ("role", vec![("name", "x")]));
        assert_eq!(found("roles/"), ("roles", vec![]));
        assert_eq!(found("roles"), ("roles", vec![]));
        assert_eq!(found("roles/x/y"), ("rest", vec![("path", "roles/x/y")]));
        assert_eq!(found("data/a/b"), ("data", vec![("path", "a/b")]));
        assert_eq!(found("data/a/b/tune"), ("tune", vec![("path", "a/b")]));
        assert_eq!(found("data/tune"), ("data", vec![("path", "tune")]));
        assert_eq!(found("data/a/"), ("data", vec![("path", "a/")]));
        assert_eq!(found("data/"), ("data", vec![("path", "")]));
        assert_eq!(found(""), ("rest", vec![("path", "")]));
    }

    #[test]
    fn a_route_that_serves_the_operation_is_preferred() {
        static LISTED: &[RouteSpec] = &[
            spec("one", "lookup"),
            RouteSpec { operations: &[Operation::List], ..spec("below", "lookup/*prefix") },
        ];
        let name = |operation| select(LISTED, "lookup/", operation).unwrap().0.name;
        assert_eq!(name(Operation::List), "below");
        assert_eq!(name(Operation::Read), "one");
        assert_eq!(name(Operation::Delete), "one");
    }

    #[test]
    fn create_is_served_where_update_is() {
        assert!(TABLE[0].serves(Operation::Create));
        assert!(!TABLE[0].serves(Operation::Delete));
    }
}
