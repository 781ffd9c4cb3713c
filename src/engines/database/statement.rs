//! Operators' SQL with placeholders, and how values get into it without changing its structure.
//!
//! `{{name}}` and `{{username}}` stand for the user, `{{password}}` for its SCRAM verifier (never
//! for the clear password), `{{expiration}}` for the end of its life. What a placeholder becomes
//! depends on where it stands:
//!
//! | where | user name | password, expiration |
//! |---|---|---|
//! | `"…{{name}}…"` | doubled `"` | refused |
//! | `'…{{name}}…'` | doubled `'` | doubled `'`; the password must be the whole string |
//! | bare | a quoted identifier | a string literal |
//! | `E'…'`, `U&'…'`, `B'…'`, `$$…$$` | refused | refused |
//! | comments | left as it is | left as it is |
//!
//! Dollar-quoted bodies are refused because the language inside decides what text means there. Set
//! a value with `SELECT set_config('my.name', '{{name}}', true)` and read it in the body with
//! `current_setting('my.name')`.

use std::fmt;

use zeroize::Zeroizing;

use super::sql::{self, Kind, LexError, Piece};

/// Most bytes of SQL in one list of statements.
pub const STATEMENTS_BYTES_MAX: usize = 64 * 1024;
/// Most statements in one list.
pub const STATEMENTS_MAX: usize = 100;

/// What a placeholder stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variable {
    /// `{{name}}` or `{{username}}`: the user's name.
    Name,
    /// `{{password}}`: the SCRAM verifier of its password.
    Password,
    /// `{{expiration}}`: when the target itself must refuse it.
    Expiration,
}

impl Variable {
    fn parse(text: &str) -> Option<Self> {
        match text {
            "name" | "username" => Some(Self::Name),
            "password" => Some(Self::Password),
            "expiration" => Some(Self::Expiration),
            _ => None,
        }
    }
}

impl fmt::Display for Variable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Name => "{{name}}",
            Self::Password => "{{password}}",
            Self::Expiration => "{{expiration}}",
        })
    }
}

/// What the placeholders of one rendering become. A missing one was not allowed when parsing.
#[derive(Clone, Copy, Default)]
pub struct Values<'a> {
    /// The user's name.
    pub name: &'a str,
    /// The SCRAM verifier.
    pub password: &'a str,
    /// The end of life, as PostgreSQL reads it.
    pub expiration: &'a str,
}

impl<'a> Values<'a> {
    fn of(&self, variable: Variable) -> &'a str {
        match variable {
            Variable::Name => self.name,
            Variable::Password => self.password,
            Variable::Expiration => self.expiration,
        }
    }
}

/// SQL statements with placeholders, cut at the semicolons that end them.
#[derive(Clone, Debug, Default)]
pub struct Statements(Vec<Vec<Part>>);

#[derive(Clone, Debug)]
enum Part {
    Text(String),
    Slot { variable: Variable, place: Place },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Bare,
    InName,
    InLiteral,
}

impl Statements {
    /// Parses operators' SQL, in which only the `allowed` placeholders may stand.
    ///
    /// # Errors
    /// What is wrong, in the words of [`StatementError`]; nothing of the SQL is repeated.
    pub fn parse<T: AsRef<str>>(texts: &[T], allowed: &[Variable]) -> Result<Self, StatementError> {
        if texts.iter().map(|text| text.as_ref().len()).sum::<usize>() > STATEMENTS_BYTES_MAX {
            return Err(StatementError::TooLong);
        }
        let mut statements = Vec::new();
        for text in texts {
            let pieces = sql::pieces(text.as_ref())?;
            for statement in split(&pieces) {
                statements.push(parts(statement, allowed)?);
            }
        }
        if statements.len() > STATEMENTS_MAX {
            return Err(StatementError::TooMany);
        }
        Ok(Self(statements))
    }

    /// Whether there is nothing to run.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether any of them has this placeholder.
    pub fn uses(&self, wanted: Variable) -> bool {
        self.0.iter().flatten().any(|part| match part {
            Part::Slot { variable, .. } => *variable == wanted,
            Part::Text(_) => false,
        })
    }

    /// The statements with the values in place, in order, without their semicolons.
    ///
    /// # Errors
    /// A value that cannot stand where its placeholder is.
    pub fn render(&self, values: &Values<'_>) -> Result<Vec<Zeroizing<String>>, StatementError> {
        self.0.iter().map(|statement| render(statement, values)).collect()
    }
}

fn render(statement: &[Part], values: &Values<'_>) -> Result<Zeroizing<String>, StatementError> {
    let mut out = Zeroizing::new(String::new());
    for part in statement {
        match part {
            Part::Text(text) => out.push_str(text),
            Part::Slot { variable, place } => {
                let value = values.of(*variable);
                if value.contains('\0') {
                    return Err(StatementError::Zero);
                }
                match (place, variable) {
                    (Place::InName, _) => out.push_str(&value.replace('"', "\"\"")),
                    (Place::InLiteral, _) if value.contains('\\') => {
                        return Err(StatementError::Backslash);
                    }
                    (Place::InLiteral, _) => out.push_str(&value.replace('\'', "''")),
                    (Place::Bare, Variable::Name) => out.push_str(&sql::quote_name(value)),
                    (Place::Bare, Variable::Password | Variable::Expiration) => {
                        out.push_str(&sql::quote_literal(value));
                    }
                }
            }
        }
    }
    Ok(out)
}

/// Cuts at semicolons outside parentheses and outside `BEGIN ATOMIC … END` bodies; drops what holds
/// nothing but blanks and comments.
fn split<'a, 'b>(pieces: &'b [Piece<'a>]) -> Vec<&'b [Piece<'a>]> {
    let mut out = Vec::new();
    let mut start = 0;
    let mut parentheses = 0usize;
    let mut bodies = 0usize;
    let mut words: Vec<String> = Vec::new();
    for (position, piece) in pieces.iter().enumerate() {
        match piece.kind {
            Kind::Mark('(') => parentheses += 1,
            Kind::Mark(')') => parentheses = parentheses.saturating_sub(1),
            Kind::Mark(';') if parentheses == 0 && bodies == 0 => {
                out.extend(pieces.get(start..position));
                start = position + 1;
                words.clear();
            }
            Kind::Word => {
                let word = piece.text.to_ascii_lowercase();
                match word.as_str() {
                    "begin" if makes_routine(&words) => bodies += 1,
                    "case" if bodies > 0 => bodies += 1,
                    "end" => bodies = bodies.saturating_sub(1),
                    _ => {}
                }
                if words.len() < 4 {
                    words.push(word);
                }
            }
            Kind::Space
            | Kind::Comment
            | Kind::Literal
            | Kind::EscapeLiteral
            | Kind::PrefixedLiteral
            | Kind::Name
            | Kind::UnicodeName
            | Kind::DollarQuoted
            | Kind::Slot
            | Kind::Mark(_) => {}
        }
    }
    out.extend(pieces.get(start..));
    out.retain(|s| s.iter().any(|p| !matches!(p.kind, Kind::Space | Kind::Comment)));
    out
}

fn makes_routine(words: &[String]) -> bool {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    matches!(
        words.as_slice(),
        ["create", "function" | "procedure", ..]
            | ["create", "or", "replace", "function" | "procedure", ..]
    )
}

fn parts(pieces: &[Piece<'_>], allowed: &[Variable]) -> Result<Vec<Part>, StatementError> {
    refuse_transaction_control(pieces)?;
    let mut out = Vec::new();
    for (position, piece) in pieces.iter().enumerate() {
        match piece.kind {
            Kind::Slot => {
                let variable = variable_of(piece.text)?;
                check_allowed(variable, allowed)?;
                if !stands_alone(pieces, position) {
                    return Err(StatementError::NotAlone(variable));
                }
                out.push(Part::Slot { variable, place: Place::Bare });
            }
            Kind::Name | Kind::Literal => quoted_parts(piece, allowed, &mut out)?,
            Kind::EscapeLiteral | Kind::PrefixedLiteral | Kind::UnicodeName => {
                refuse_slots(piece.text, StatementError::Prefixed)?;
                out.push(Part::Text(piece.text.to_owned()));
            }
            Kind::DollarQuoted => {
                refuse_slots(piece.text, StatementError::DollarQuoted)?;
                out.push(Part::Text(piece.text.to_owned()));
            }
            Kind::Space | Kind::Comment | Kind::Word | Kind::Mark(_) => {
                out.push(Part::Text(piece.text.to_owned()));
            }
        }
    }
    Ok(out)
}

/// A placeholder inside `"…"` or `'…'`.
fn quoted_parts(
    piece: &Piece<'_>,
    allowed: &[Variable],
    out: &mut Vec<Part>,
) -> Result<(), StatementError> {
    let mut rest = piece.text;
    while let Some((before, slot, after)) = next_slot(rest) {
        let variable = variable_of(slot)?;
        check_allowed(variable, allowed)?;
        let place = if piece.kind == Kind::Name { Place::InName } else { Place::InLiteral };
        match (place, variable) {
            (Place::InName, Variable::Password | Variable::Expiration) => {
                return Err(StatementError::NotAName(variable));
            }
            (Place::InLiteral, Variable::Password) if (before, after) != ("'", "'") => {
                return Err(StatementError::PartOfString);
            }
            (Place::Bare | Place::InName | Place::InLiteral, _) => {}
        }
        out.push(Part::Text(before.to_owned()));
        out.push(Part::Slot { variable, place });
        rest = after;
    }
    out.push(Part::Text(rest.to_owned()));
    Ok(())
}

/// Text before the first `{{word}}`, it, and what follows.
fn next_slot(text: &str) -> Option<(&str, &str, &str)> {
    text.match_indices("{{").find_map(|(start, _)| {
        let (before, rest) = text.split_at(start);
        let (slot, after) = rest.split_at(sql::slot_length(rest)?);
        Some((before, slot, after))
    })
}

fn variable_of(slot: &str) -> Result<Variable, StatementError> {
    let word = slot.trim_matches(|c: char| matches!(c, '{' | '}') || c.is_whitespace());
    Variable::parse(word).ok_or_else(|| StatementError::Unknown(word.chars().take(32).collect()))
}

fn check_allowed(variable: Variable, allowed: &[Variable]) -> Result<(), StatementError> {
    if allowed.contains(&variable) { Ok(()) } else { Err(StatementError::NotHere(variable)) }
}

fn refuse_slots(text: &str, error: StatementError) -> Result<(), StatementError> {
    let mut rest = text;
    while let Some((_, slot, after)) = next_slot(rest) {
        if variable_of(slot).is_ok() {
            return Err(error);
        }
        rest = after;
    }
    Ok(())
}

/// Whether a bare placeholder is a token of its own once it is quoted: `E{{name}}`,
/// `{{name}}{{name}}` or `'a'{{password}}` would be read as something else.
fn stands_alone(pieces: &[Piece<'_>], position: usize) -> bool {
    let before = position.checked_sub(1).and_then(|p| pieces.get(p)).map(|p| p.kind);
    let after = pieces.get(position + 1).map(|p| p.kind);
    let open = match before {
        None | Some(Kind::Space | Kind::Comment) => true,
        Some(Kind::Mark(mark)) => "(,.=[|<>".contains(mark),
        Some(_) => false,
    };
    let close = match after {
        None | Some(Kind::Space | Kind::Comment) => true,
        Some(Kind::Mark(mark)) => "),.=]|<>:".contains(mark),
        Some(_) => false,
    };
    let quote = |piece: &&Piece<'_>| {
        matches!(piece.kind, Kind::Literal | Kind::EscapeLiteral | Kind::PrefixedLiteral)
    };
    let solid = |piece: &&Piece<'_>| !matches!(piece.kind, Kind::Space | Kind::Comment);
    let (left, right) = pieces.split_at(position);
    // A literal before or after would be continued by ours when a line end is between them.
    let beside_literal = left.iter().rev().find(solid).filter(quote).is_some()
        || right.iter().skip(1).find(solid).filter(quote).is_some();
    open && close && !beside_literal
}

/// Statements run in one transaction of ours, which they must not end.
fn refuse_transaction_control(pieces: &[Piece<'_>]) -> Result<(), StatementError> {
    let words: Vec<String> = pieces
        .iter()
        .filter(|piece| !matches!(piece.kind, Kind::Space | Kind::Comment))
        .take(2)
        .map(|piece| piece.text.to_ascii_lowercase())
        .collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["begin" | "start" | "commit" | "end" | "rollback" | "abort", ..]
        | ["prepare", "transaction"] => Err(StatementError::TransactionControl),
        _ => Ok(()),
    }
}

/// Why statements, or a value in them, were refused. None repeats any of the SQL.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StatementError {
    /// The SQL ends in the middle of something.
    #[error(transparent)]
    Lex(#[from] LexError),
    /// More than [`STATEMENTS_BYTES_MAX`] bytes.
    #[error("there are more than 64 KiB of SQL")]
    TooLong,
    /// More than [`STATEMENTS_MAX`].
    #[error("there are more than 100 statements")]
    TooMany,
    /// A placeholder that is none of ours.
    #[error("the placeholder '{{{{{0}}}}}' is not known; use name, username, password, expiration")]
    Unknown(String),
    /// A placeholder that has no value in this list.
    #[error("{0} has no value here")]
    NotHere(Variable),
    /// A bare placeholder that touches other text.
    #[error("{0} must stand in quotes, or apart from other names and strings")]
    NotAlone(Variable),
    /// A value where a name belongs.
    #[error("{0} stands inside double quotes, where a name belongs")]
    NotAName(Variable),
    /// `'…{{password}}…'`.
    #[error("{{{{password}}}} becomes a SCRAM verifier and must be the whole of its string")]
    PartOfString,
    /// In a string or name with a prefix.
    #[error("a placeholder stands in an E'', U&, B'', X'' or N'' string; use plain quotes")]
    Prefixed,
    /// In `$$…$$`.
    #[error(
        "a placeholder stands in a dollar-quoted body; use set_config('my.name', '{{{{name}}}}', \
         true) before it and current_setting('my.name') in it"
    )]
    DollarQuoted,
    /// `BEGIN`, `COMMIT` and the like.
    #[error("the statements run in one transaction and must not begin or end one themselves")]
    TransactionControl,
    /// A value with a backslash inside `'…'`.
    #[error("the name holds a backslash, which must not stand in a string; use it bare")]
    Backslash,
    /// A value with a zero character.
    #[error("a value holds a zero character")]
    Zero,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ALL: &[Variable] = &[Variable::Name, Variable::Password, Variable::Expiration];

    fn rendered(text: &str, name: &str) -> Result<Vec<String>, StatementError> {
        let values = Values { name, password: "SCRAM", expiration: "2030-01-01 00:00:00+00" };
        let statements = Statements::parse(&[text], ALL)?.render(&values)?;
        Ok(statements.iter().map(|s| s.as_str().to_owned()).collect())
    }

    #[test]
    fn placeholders_become_what_their_place_asks_for() {
        for (text, expected) in [
            (r#"CREATE ROLE "{{name}}""#, r#"CREATE ROLE "a""b'c""#),
            ("CREATE ROLE {{ username }}", r#"CREATE ROLE "a""b'c""#),
            (r#"ALTER ROLE "x_{{name}}_y""#, r#"ALTER ROLE "x_a""b'c_y""#),
            ("SELECT '{{name}}'", r#"SELECT 'a"b''c'"#),
            ("SELECT f({{name}},{{password}})", r#"SELECT f("a""b'c",'SCRAM')"#),
            ("PASSWORD '{{password}}'", "PASSWORD 'SCRAM'"),
            ("PASSWORD {{password}}", "PASSWORD 'SCRAM'"),
            ("UNTIL {{expiration}}::text", "UNTIL '2030-01-01 00:00:00+00'::text"),
            ("UNTIL '{{expiration}}'", "UNTIL '2030-01-01 00:00:00+00'"),
            ("SELECT 1 -- {{name}}\n", "SELECT 1 -- {{name}}\n"),
            ("SELECT '{{1,2},{3,4}}'", "SELECT '{{1,2},{3,4}}'"),
            ("DO $$ x {{y}} $$", "DO $$ x {{y}} $$"),
        ] {
            assert_eq!(rendered(text, "a\"b'c").unwrap(), [expected], "{text}");
        }
    }

    #[test]
    fn places_without_one_meaning_are_refused() {
        for (text, error) in [
            ("SELECT E'{{name}}'", StatementError::Prefixed),
            ("SELECT U&\"{{name}}\"", StatementError::Prefixed),
            ("DO $$ DROP ROLE \"{{name}}\" $$", StatementError::DollarQuoted),
            ("SELECT E{{name}}", StatementError::NotAlone(Variable::Name)),
            ("SELECT {{name}}{{name}}", StatementError::NotAlone(Variable::Name)),
            ("SELECT 'a'{{password}}", StatementError::NotAlone(Variable::Password)),
            ("SELECT E'a'\n{{expiration}}", StatementError::NotAlone(Variable::Expiration)),
            ("SELECT {{expiration}}\n'a'", StatementError::NotAlone(Variable::Expiration)),
            ("SELECT \"{{password}}\"", StatementError::NotAName(Variable::Password)),
            ("SELECT 'x{{password}}'", StatementError::PartOfString),
            ("SELECT {{nane}}", StatementError::Unknown("nane".into())),
            ("SELECT '{{nane}}'", StatementError::Unknown("nane".into())),
            ("SELECT 1; COMMIT", StatementError::TransactionControl),
            ("/* x */ rollback", StatementError::TransactionControl),
            ("SELECT '{{name}}", StatementError::Lex(LexError::Literal)),
        ] {
            assert_eq!(rendered(text, "x"), Err(error), "{text}");
        }
        let error = Statements::parse(&["x {{password}}"], &[Variable::Name]).unwrap_err();
        assert_eq!(error, StatementError::NotHere(Variable::Password));
        assert_eq!(rendered("SELECT '{{name}}'", "a\\"), Err(StatementError::Backslash));
        assert_eq!(rendered("SELECT {{name}}", "a\0"), Err(StatementError::Zero));
    }

    #[test]
    fn statements_end_at_semicolons_outside_of_everything() {
        for (text, count) in [
            ("", 0),
            (" ; ;-- only this\n;", 0),
            ("a;b", 2),
            ("a;b;", 2),
            ("SELECT ';', \";\", $$;$$ /* ; */ -- ;\n", 1),
            ("CREATE RULE r AS ON INSERT TO t DO (a; b); c", 2),
            ("CREATE FUNCTION f() BEGIN ATOMIC SELECT CASE WHEN x THEN 1 END; SELECT 2; END; c", 2),
        ] {
            assert_eq!(Statements::parse(&[text], ALL).unwrap().len(), count, "{text}");
        }
        assert_eq!(Statements::parse(&["a; b", "c"], ALL).unwrap().len(), 3);
    }

    #[test]
    fn sizes_are_bounded() {
        let many = "a;".repeat(STATEMENTS_MAX + 1);
        assert_eq!(Statements::parse(&[many], ALL).unwrap_err(), StatementError::TooMany);
        let long = "a".repeat(STATEMENTS_BYTES_MAX + 1);
        assert_eq!(Statements::parse(&[long], ALL).unwrap_err(), StatementError::TooLong);
    }

    /// Kinds in order, with neighbouring blanks as one.
    fn structure(text: &str) -> Vec<Kind> {
        sql::pieces(text).unwrap().into_iter().map(|piece| piece.kind).collect()
    }

    const TEMPLATES: &[&str] = &[
        r#"CREATE ROLE "{{name}}" WITH LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}'"#,
        "CREATE ROLE {{name}} LOGIN PASSWORD {{password}} VALID UNTIL {{expiration}}",
        r#"SELECT 'it''s {{name}}' , "q""{{name}}""" , '''{{expiration}}''' "#,
        "SELECT {{name}}.x=({{password}}),{{expiration}}::text -- {{name}}\n",
        "COMMENT ON ROLE \"{{name}}\" IS 'of {{name}}{{name}}' /* {{name}} */",
    ];

    proptest! {
        #[test]
        fn no_value_changes_the_structure(
            which in 0..TEMPLATES.len(),
            name in "[^\0\\\\]{0,16}|['\";$-]{0,12}|(\\$\\$|--|/\\*|\\*/|\n|'|\"|E'|;|\\{\\{name\\}\\}){0,8}",
            password in "[^\0\\\\]{0,16}|['\"$;]{0,8}",
            expiration in "[^\0\\\\]{0,16}|['\"$;]{0,8}",
        ) {
            let statements = Statements::parse(&[TEMPLATES[which]], ALL).unwrap();
            let plain = Values { name: "n", password: "p", expiration: "e" };
            let values = Values { name: &name, password: &password, expiration: &expiration };
            let expected = statements.render(&plain).unwrap();
            let got = statements.render(&values).unwrap();
            prop_assert_eq!(got.len(), expected.len());
            for (got, expected) in got.iter().zip(&expected) {
                prop_assert_eq!(structure(got), structure(expected), "{}", got.as_str());
            }
        }

        #[test]
        fn bare_values_may_hold_backslashes(name in "[^\0]{0,16}|[\\\\'\"]{0,8}") {
            let statements = Statements::parse(&["ALTER ROLE {{name}} X {{expiration}}"], ALL).unwrap();
            let values = Values { name: &name, password: "", expiration: &name };
            let got = statements.render(&values).unwrap();
            let kinds: Vec<Kind> = structure(&got[0]);
            prop_assert_eq!(kinds.len(), 9);
            prop_assert_eq!(kinds[4], Kind::Name);
            prop_assert!(matches!(kinds[8], Kind::Literal | Kind::EscapeLiteral));
        }

        #[test]
        fn parsing_never_panics(text in "\\PC{0,48}|(\\{\\{name\\}\\}|['\"$;E ()\n]){0,24}") {
            let _ = Statements::parse(&[text], ALL);
        }
    }
}
