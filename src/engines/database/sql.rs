//! The lexical structure of PostgreSQL's SQL: enough to know what a character is part of.
//!
//! Names and values reach statements as text, because `CREATE ROLE` takes no parameters. Whether
//! such text stays a name or a value is decided by the lexer alone, so this module follows the
//! rules of PostgreSQL's own (`scan.l`) with `standard_conforming_strings` on.

/// What a piece of SQL text is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Blanks and line ends.
    Space,
    /// `-- …` up to the end of the line, or `/* … */`, nested.
    Comment,
    /// A keyword or an unquoted name.
    Word,
    /// `'…'`.
    Literal,
    /// `E'…'`, where a backslash escapes, and what continues it.
    EscapeLiteral,
    /// `B'…'`, `X'…'`, `N'…'`, `U&'…'` and what continues them.
    PrefixedLiteral,
    /// `"…"`.
    Name,
    /// `U&"…"`.
    UnicodeName,
    /// `$tag$…$tag$`.
    DollarQuoted,
    /// `{{word}}` outside quotes and comments.
    Slot,
    /// Any other single character, digits included.
    Mark(char),
}

/// A piece of SQL text. The pieces of a text, put together again, are the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Piece<'a> {
    pub kind: Kind,
    pub text: &'a str,
}

/// Where SQL text ends in the middle of something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LexError {
    /// A string without its closing quote.
    #[error("a string is not closed")]
    Literal,
    /// A quoted name without its closing quote.
    #[error("a quoted name is not closed")]
    Name,
    /// A dollar-quoted string without its closing tag.
    #[error("a dollar-quoted string is not closed")]
    DollarQuoted,
    /// A block comment without its end.
    #[error("a comment is not closed")]
    Comment,
    /// A zero character, which PostgreSQL has no way to take.
    #[error("there is a zero character")]
    Zero,
}

/// Cuts `text` into pieces.
///
/// # Errors
/// What is left open at the end.
pub(super) fn pieces(text: &str) -> Result<Vec<Piece<'_>>, LexError> {
    if text.contains('\0') {
        return Err(LexError::Zero);
    }
    let mut out = Vec::new();
    let mut rest = text;
    // The last literal, while only blanks, line ends and line comments have followed it: a quote
    // after a line end then goes on with the same literal, by the same rules.
    let mut literal: Option<(Kind, bool)> = None;
    while let Some(first) = rest.chars().next() {
        let continued = literal.filter(|(_, line_ended)| *line_ended && first == '\'');
        let (kind, length) = match continued {
            Some((kind, _)) => (kind, quoted(rest, 1, kind == Kind::EscapeLiteral)?),
            None => piece(rest, first)?,
        };
        let (text, tail) = rest.split_at(length);
        match (kind, &mut literal) {
            (Kind::Space, Some((_, line_ended))) => {
                *line_ended |= text.contains(['\n', '\r']);
            }
            (Kind::Comment, Some(_)) if text.starts_with("--") => {}
            (Kind::Literal | Kind::EscapeLiteral | Kind::PrefixedLiteral, _) => {
                literal = Some((kind, false));
            }
            (_, _) => literal = None,
        }
        out.push(Piece { kind, text });
        rest = tail;
    }
    Ok(out)
}

/// The kind and the length in bytes of the piece that `rest` begins with.
fn piece(rest: &str, first: char) -> Result<(Kind, usize), LexError> {
    if is_space(first) {
        return Ok((Kind::Space, run(rest, is_space)));
    }
    if rest.starts_with("--") {
        return Ok((Kind::Comment, run(rest, |c| c != '\n' && c != '\r')));
    }
    if rest.starts_with("/*") {
        return block_comment(rest).map(|length| (Kind::Comment, length));
    }
    if let Some(length) = slot_length(rest) {
        return Ok((Kind::Slot, length));
    }
    match first {
        '\'' => Ok((Kind::Literal, quoted(rest, 1, false)?)),
        '"' => Ok((Kind::Name, quoted_name(rest, 1)?)),
        '$' => dollar_quoted(rest),
        _ if is_word_start(first) => word(rest),
        _ => Ok((Kind::Mark(first), first.len_utf8())),
    }
}

fn word(rest: &str) -> Result<(Kind, usize), LexError> {
    let bytes = rest.as_bytes();
    match (bytes.first().map(u8::to_ascii_lowercase), bytes.get(1), bytes.get(2)) {
        (Some(b'e'), Some(b'\''), _) => Ok((Kind::EscapeLiteral, quoted(rest, 2, true)?)),
        (Some(b'b' | b'x' | b'n'), Some(b'\''), _) => {
            Ok((Kind::PrefixedLiteral, quoted(rest, 2, false)?))
        }
        (Some(b'u'), Some(b'&'), Some(b'\'')) => {
            Ok((Kind::PrefixedLiteral, quoted(rest, 3, false)?))
        }
        (Some(b'u'), Some(b'&'), Some(b'"')) => Ok((Kind::UnicodeName, quoted_name(rest, 3)?)),
        _ => Ok((Kind::Word, run(rest, |c| is_word_start(c) || c.is_ascii_digit() || c == '$'))),
    }
}

/// The length of a literal whose content starts at `start`.
fn quoted(rest: &str, start: usize, backslash_escapes: bool) -> Result<usize, LexError> {
    let mut bytes = rest.bytes().enumerate().skip(start).peekable();
    while let Some((position, byte)) = bytes.next() {
        match byte {
            b'\\' if backslash_escapes => drop(bytes.next()),
            b'\'' if bytes.peek().is_some_and(|(_, next)| *next == b'\'') => drop(bytes.next()),
            b'\'' => return Ok(position + 1),
            _ => {}
        }
    }
    Err(LexError::Literal)
}

fn quoted_name(rest: &str, start: usize) -> Result<usize, LexError> {
    let mut bytes = rest.bytes().enumerate().skip(start).peekable();
    while let Some((position, byte)) = bytes.next() {
        match byte {
            b'"' if bytes.peek().is_some_and(|(_, next)| *next == b'"') => drop(bytes.next()),
            b'"' => return Ok(position + 1),
            _ => {}
        }
    }
    Err(LexError::Name)
}

fn dollar_quoted(rest: &str) -> Result<(Kind, usize), LexError> {
    let after = rest.get(1..).unwrap_or_default();
    let tag = run(after, |c| is_word_start(c) || c.is_ascii_digit());
    let closes = after.get(tag..).is_some_and(|tail| tail.starts_with('$'));
    if !closes || after.starts_with(|c: char| c.is_ascii_digit()) {
        return Ok((Kind::Mark('$'), 1));
    }
    let (delimiter, body) = rest.split_at(tag + 2);
    let end = body.find(delimiter).ok_or(LexError::DollarQuoted)?;
    Ok((Kind::DollarQuoted, 2 * delimiter.len() + end))
}

fn block_comment(rest: &str) -> Result<usize, LexError> {
    let mut depth = 0usize;
    let mut position = 0;
    while let Some(tail) = rest.get(position..).filter(|tail| !tail.is_empty()) {
        if tail.starts_with("/*") {
            depth += 1;
            position += 2;
        } else if tail.starts_with("*/") {
            depth -= 1;
            position += 2;
            if depth == 0 {
                return Ok(position);
            }
        } else {
            position += tail.chars().next().map_or(1, char::len_utf8);
        }
    }
    Err(LexError::Comment)
}

/// The length of the `{{word}}` that `rest` begins with.
pub(super) fn slot_length(rest: &str) -> Option<usize> {
    let inner = rest.strip_prefix("{{")?;
    let end = inner.find("}}")?;
    let word = inner.get(..end)?.trim();
    let is_word = !word.is_empty() && word.bytes().all(|b| b.is_ascii_alphabetic() || b == b'_');
    is_word.then_some(end + 4)
}

fn run(text: &str, belongs: impl Fn(char) -> bool) -> usize {
    text.find(|c| !belongs(c)).unwrap_or(text.len())
}

/// PostgreSQL's blanks. Others, such as the no-break space, are letters to it.
pub(super) fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r' | '\u{b}' | '\u{c}')
}

fn is_word_start(c: char) -> bool {
    c.is_ascii_alphabetic() || c == '_' || !c.is_ascii()
}

/// `name` as a quoted identifier.
pub(super) fn quote_name(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// `value` as a string literal that reads the same whatever `standard_conforming_strings` says.
pub(super) fn quote_literal(value: &str) -> String {
    let doubled = value.replace('\'', "''");
    if doubled.contains('\\') {
        format!("E'{}'", doubled.replace('\\', "\\\\"))
    } else {
        format!("'{doubled}'")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn kinds(text: &str) -> Vec<Kind> {
        pieces(text)
            .unwrap()
            .into_iter()
            .map(|piece| piece.kind)
            .filter(|kind| *kind != Kind::Space)
            .collect()
    }

    #[test]
    fn quotes_comments_and_words_are_told_apart() {
        use Kind::*;
        for (text, expected) in [
            ("'a''b'", vec![Literal]),
            (r"'a\' b", vec![Literal, Word]),
            (r"E'a\' b'", vec![EscapeLiteral]),
            (r"e'a\\' b", vec![EscapeLiteral, Word]),
            (r"N'a\' b", vec![PrefixedLiteral, Word]),
            ("'a'\n'b'", vec![Literal, Literal]),
            ("E'a'\n'b\\' c'", vec![EscapeLiteral, EscapeLiteral]),
            ("E'a'\n'b\\''", vec![EscapeLiteral, EscapeLiteral]),
            ("E'a' -- note\n'b\\' c'", vec![EscapeLiteral, Comment, EscapeLiteral]),
            (r"E'a' 'b\' c", vec![EscapeLiteral, Literal, Word]),
            ("name'x'", vec![Word, Literal]),
            ("type'x'", vec![Word, Literal]),
            ("\"a\"\"b\"", vec![Name]),
            ("U&\"a\" u&'b'", vec![UnicodeName, PrefixedLiteral]),
            ("$$ ; ' $$", vec![DollarQuoted]),
            ("$a$ $b$ $$ $a$", vec![DollarQuoted]),
            ("$1", vec![Mark('$'), Mark('1')]),
            ("a$$b", vec![Word]),
            ("/* a /* b */ ' */ x", vec![Comment, Word]),
            ("-- it's\nx", vec![Comment, Word]),
            ("{{name}} '{{name}}'", vec![Slot, Literal]),
            ("{{ name }}", vec![Slot]),
            ("{{1,2}}", [vec![Mark('{'); 2], vec![Mark('1'), Mark(','), Mark('2')]].concat()),
        ] {
            let got = kinds(text);
            assert!(got.starts_with(&expected), "{text:?}: {got:?}");
        }
    }

    #[test]
    fn what_is_left_open_is_refused() {
        for (text, error) in [
            ("'a", LexError::Literal),
            ("'a''", LexError::Literal),
            (r"E'a\'", LexError::Literal),
            ("\"a", LexError::Name),
            ("U&\"a", LexError::Name),
            ("$x$ $y$", LexError::DollarQuoted),
            ("/* /* */", LexError::Comment),
            ("a\0b", LexError::Zero),
        ] {
            assert_eq!(pieces(text), Err(error), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn pieces_cover_the_text_and_never_panic(
            text in "(['\"$\\\\E;\n \u{e9}a/*{}U&-]|\\$a\\$){0,24}",
        ) {
            if let Ok(pieces) = pieces(&text) {
                let whole: String = pieces.iter().map(|piece| piece.text).collect();
                prop_assert_eq!(whole, text);
            }
        }

        #[test]
        fn quoted_names_and_values_are_one_piece(value in "[^\0]{0,24}|['\"\\\\$;-]{0,12}") {
            prop_assert_eq!(kinds(&quote_name(&value)), vec![Kind::Name]);
            let literal = quote_literal(&value);
            prop_assert_eq!(kinds(&literal).len(), 1);
        }
    }
}
