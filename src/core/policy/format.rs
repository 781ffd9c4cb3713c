//! Policies in one style: two blanks for each level, one field a line, lists on one line while they
//! fit. Comments stay; what the policy means does not change.

use super::error::SyntaxProblem;
use super::syntax;

/// Longest line that a list may make.
const LINE_CHARS_MAX: usize = 100;

/// The text in that style.
///
/// # Errors
/// The line of the first mistake, and what it is. JSON is one: it has a style of its own.
pub fn formatted(text: &str) -> Result<String, (u32, SyntaxProblem)> {
    // What parses has its braces and quotes in pairs, so the printer need not doubt them.
    syntax::parse(text).map_err(|failure| (failure.line, failure.problem))?;
    let mut printer = Printer { pieces: pieces(text), at: 0, lines: Vec::new(), depth: 0 };
    printer.body();
    let mut out = printer.lines.join("\n");
    if !out.is_empty() {
        out.push('\n');
    }
    Ok(out)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token {
    Close,
    Comma,
    Comment,
    Equals,
    ListClose,
    ListOpen,
    Open,
    /// A key, a label, a string, a number.
    Word,
}

#[derive(Clone, Copy, Debug)]
struct Piece<'a> {
    token: Token,
    text: &'a str,
    /// Line breaks between the piece before and this one.
    breaks: usize,
}

fn pieces(text: &str) -> Vec<Piece<'_>> {
    let mut out = Vec::new();
    let mut rest = text;
    loop {
        let trimmed = rest.trim_start_matches([' ', '\t', '\r', '\n']);
        let (blank, _) = rest.split_at(rest.len() - trimmed.len());
        let breaks = blank.matches('\n').count();
        let Some(first) = trimmed.chars().next() else { return out };
        let (token, length) = match first {
            '{' => (Token::Open, 1),
            '}' => (Token::Close, 1),
            '[' => (Token::ListOpen, 1),
            ']' => (Token::ListClose, 1),
            '=' => (Token::Equals, 1),
            ',' => (Token::Comma, 1),
            '"' => (Token::Word, string_length(trimmed)),
            _ if trimmed.starts_with("/*") => {
                (Token::Comment, trimmed.find("*/").map_or(trimmed.len(), |end| end + 2))
            }
            '#' | '/' => (Token::Comment, trimmed.find('\n').unwrap_or(trimmed.len())),
            _ => {
                let ends = |c: char| c.is_whitespace() || "{}[]=,\"#/".contains(c);
                (Token::Word, trimmed.find(ends).unwrap_or(trimmed.len()))
            }
        };
        let (text, after) = trimmed.split_at(length);
        out.push(Piece { token, text: text.trim_end(), breaks });
        rest = after;
    }
}

/// A quoted string at the start of `text`, quotes included.
fn string_length(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

struct Printer<'a> {
    pieces: Vec<Piece<'a>>,
    at: usize,
    lines: Vec<String>,
    depth: usize,
}

impl<'a> Printer<'a> {
    fn peek(&self) -> Option<Piece<'a>> {
        self.pieces.get(self.at).copied()
    }

    fn line(&mut self, text: &str) {
        self.lines.push(format!("{}{text}", "  ".repeat(self.depth)));
    }

    /// A blank line where the author left some, but not right after an opening brace.
    fn gap(&mut self, breaks: usize) {
        let wanted = self.lines.last().is_some_and(|last| !last.ends_with(['{', '[']));
        if breaks > 1 && wanted {
            self.lines.push(String::new());
        }
    }

    /// Fields and comments up to the closing brace, which is taken, or the end.
    fn body(&mut self) {
        while let Some(piece) = self.peek() {
            match piece.token {
                Token::Close => {
                    self.at += 1;
                    return;
                }
                Token::Comment => {
                    self.at += 1;
                    self.comment(piece);
                }
                Token::Comma => self.at += 1,
                Token::Word => self.field(),
                Token::Equals | Token::ListClose | Token::ListOpen | Token::Open => self.at += 1,
            }
        }
    }

    fn comment(&mut self, piece: Piece<'a>) {
        match self.lines.last_mut() {
            Some(last) if piece.breaks == 0 => {
                last.push(' ');
                last.push_str(piece.text);
            }
            _ => {
                self.gap(piece.breaks);
                self.line(piece.text);
            }
        }
    }

    /// `key = value`, `key { … }` or `key "label" { … }`. Comments inside go before it.
    fn field(&mut self) {
        let breaks = self.peek().map_or(0, |piece| piece.breaks);
        let mut head = String::new();
        // Not to be read off the head: a quoted key may have an equals sign in it.
        let mut assigned = false;
        let mut gap = Some(breaks);
        while let Some(piece) = self.peek() {
            self.at += 1;
            match piece.token {
                Token::Comment => {
                    self.gap(gap.take().unwrap_or_default());
                    self.line(piece.text);
                }
                Token::Word if assigned => {
                    head.push_str(piece.text);
                    break;
                }
                Token::Word => {
                    if !head.is_empty() {
                        head.push(' ');
                    }
                    head.push_str(piece.text);
                }
                Token::Equals => {
                    head.push_str(" = ");
                    assigned = true;
                }
                Token::Open => {
                    self.gap(gap.take().unwrap_or_default());
                    return self.block(head.trim_end());
                }
                Token::ListOpen => {
                    self.gap(gap.take().unwrap_or_default());
                    let items = self.items();
                    return self.list(&head, &items, "");
                }
                Token::Close | Token::Comma | Token::ListClose => {
                    self.at -= 1;
                    break;
                }
            }
        }
        self.gap(gap.unwrap_or_default());
        self.line(&head);
    }

    fn block(&mut self, head: &str) {
        if self.peek().is_some_and(|piece| piece.token == Token::Close) {
            self.at += 1;
            return self.line(&format!("{head} {{}}"));
        }
        self.line(&format!("{head} {{"));
        self.depth += 1;
        self.body();
        self.depth -= 1;
        self.line("}");
    }

    /// A list, of which `items` stand between the brackets, with `tail` behind it.
    fn list(&mut self, head: &str, items: &[Piece<'a>], tail: &str) {
        let spread = items.iter().any(|item| matches!(item.token, Token::Comment | Token::Open));
        let whole = format!("{head}[{}]{tail}", flat(items));
        let fits = whole.chars().count() + 2 * self.depth <= LINE_CHARS_MAX;
        if fits && !spread {
            return self.line(&whole);
        }
        self.line(&format!("{head}["));
        self.depth += 1;
        let mut rest = items;
        while let Some(first) = rest.first() {
            let (item, after) = rest.split_at(item_length(rest));
            rest = after;
            self.item(*first, item);
        }
        self.depth -= 1;
        self.line(&format!("]{tail}"));
    }

    /// One item of a list that has a line for each, or what stands between two.
    fn item(&mut self, first: Piece<'a>, item: &[Piece<'a>]) {
        let inside = item.get(1..item.len().saturating_sub(1)).unwrap_or_default();
        match first.token {
            Token::Comma => {}
            Token::Comment => self.comment(first),
            Token::ListOpen => self.list("", inside, ","),
            Token::Open => {
                self.line("{");
                let lines = std::mem::take(&mut self.lines);
                let depth = self.depth + 1;
                let mut object = Printer { pieces: inside.to_vec(), at: 0, lines, depth };
                object.body();
                self.lines = object.lines;
                self.line("},");
            }
            Token::Close | Token::Equals | Token::ListClose | Token::Word => {
                self.line(&format!("{},", flat(item)));
            }
        }
    }

    /// All up to the bracket that closes the list, which is taken.
    fn items(&mut self) -> Vec<Piece<'a>> {
        let (mut depth, mut out) = (0_usize, Vec::new());
        while let Some(piece) = self.peek() {
            self.at += 1;
            match piece.token {
                Token::ListClose if depth == 0 => return out,
                Token::ListOpen | Token::Open => depth += 1,
                Token::ListClose | Token::Close => depth = depth.saturating_sub(1),
                Token::Comma | Token::Comment | Token::Equals | Token::Word => {}
            }
            out.push(piece);
        }
        out
    }
}

/// How many pieces the first item has.
fn item_length(pieces: &[Piece<'_>]) -> usize {
    let mut depth = 0_usize;
    for (at, piece) in pieces.iter().enumerate() {
        match piece.token {
            Token::ListOpen | Token::Open => depth += 1,
            Token::ListClose | Token::Close => depth = depth.saturating_sub(1),
            Token::Comma | Token::Comment | Token::Equals | Token::Word => {}
        }
        if depth == 0 {
            return at + 1;
        }
    }
    pieces.len()
}

/// Values without comments and objects on one line; a comma after the last is left out.
fn flat(pieces: &[Piece<'_>]) -> String {
    let mut out = String::new();
    for (at, piece) in pieces.iter().enumerate() {
        let next = pieces.get(at + 1).map(|piece| piece.token);
        match piece.token {
            Token::Comma if matches!(next, None | Some(Token::ListClose)) => {}
            Token::Comma => out.push_str(", "),
            Token::Close
            | Token::Comment
            | Token::Equals
            | Token::ListClose
            | Token::ListOpen
            | Token::Open
            | Token::Word => out.push_str(piece.text),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::syntax::{Field, Node};
    use super::*;

    fn shown(text: &str) -> String {
        formatted(text).unwrap()
    }

    #[test]
    fn a_policy_gets_its_style_and_keeps_its_comments() {
        let text = "# top\n\n\n\npath   \"a/*\"   {capabilities=[ \"read\",\n \"list\" , ] # why\n\n\
                    allowed_parameters = {\"x\"=[],\n  \"*\" = [] }\n\n\n  /* b */ max_wrapping_ttl=\"1h\"\n}\n\
                    path \"b\" { }\n// end";
        let styled = "# top\n\npath \"a/*\" {\n  capabilities = [\"read\", \"list\"] # why\n\n  \
                      allowed_parameters = {\n    \"x\" = []\n    \"*\" = []\n  }\n\n  /* b */\n  \
                      max_wrapping_ttl = \"1h\"\n}\npath \"b\" {}\n// end\n";
        assert_eq!(shown(text), styled);
        assert_eq!(shown(styled), styled);
    }

    #[test]
    fn what_looks_like_a_field_inside_of_quotes_is_text() {
        let text = "path \"a = {\" {\n  allowed_parameters = {\n    \"b = c\" = []\n    \
                    \"d = [\" = [\"e = f\"]\n  }\n}\n";
        assert_eq!(shown(text), text);
    }

    #[test]
    fn a_list_that_is_long_or_commented_has_a_line_for_each_item() {
        let long = "x".repeat(60);
        let text =
            format!("a = [\"{long}\", \"{long}\"]\nb = [ # first\n \"1\",\n # two\n \"2\" ]");
        let styled = format!(
            "a = [\n  \"{long}\",\n  \"{long}\",\n]\nb = [ # first\n  \"1\",\n  # two\n  \"2\",\n]\n"
        );
        assert_eq!(shown(&text), styled);
        assert_eq!(shown(&styled), styled);
    }

    #[test]
    fn objects_in_a_list_keep_their_fields_and_comments_apart() {
        let text = "a = [{ b = 1 # why\n c = [[2 # two\n], 3] }, 4]";
        let styled = "a = [\n  {\n    b = 1 # why\n    c = [\n      [\n        2, # two\n      ],\n      \
                      3,\n    ]\n  },\n  4,\n]\n";
        assert_eq!(shown(text), styled);
        assert_eq!(shown(styled), styled);
    }

    #[test]
    fn what_does_not_parse_is_refused_with_its_line() {
        for (text, line) in [("path \"a\" {\n  x =\n}", 3), ("a = \"", 1), ("{\"path\": {}}", 1)] {
            assert_eq!(formatted(text).unwrap_err().0, line, "{text}");
        }
        assert_eq!(shown(""), "");
    }

    /// What the fields say, wherever they stand.
    fn meant(fields: &[Field]) -> String {
        let all: Vec<_> =
            fields.iter().map(|one| format!("{}: {}", one.key, said(&one.value))).collect();
        format!("{{{}}}", all.join(", "))
    }

    fn said(node: &Node) -> String {
        match node {
            Node::Object(fields) => meant(fields),
            Node::List(items) => {
                format!("[{}]", items.iter().map(said).collect::<Vec<_>>().join(", "))
            }
            Node::Null | Node::Bool(_) | Node::Number(_) | Node::Text(_) => format!("{node:?}"),
        }
    }

    fn value() -> impl Strategy<Value = String> {
        let leaf = prop_oneof![
            "[a-z/*+ #=,{}\\[\\]]{0,12}".prop_map(|text| format!("\"{text}\"")),
            "[1-9][0-9]{0,5}",
            Just("true".to_owned()),
        ];
        leaf.prop_recursive(3, 20, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4)
                    .prop_map(|items| format!("[{}]", items.join(" ,\n"))),
                prop::collection::vec(("[a-z]{1,5}", inner), 0..4).prop_map(|fields| {
                    let fields: Vec<_> =
                        fields.iter().map(|(key, value)| format!("{key}={value}")).collect();
                    format!("{{{}\n}}", fields.join("\n#c\n"))
                }),
            ]
        })
    }

    proptest! {
        #[test]
        fn the_meaning_stays_and_the_style_is_stable(
            fields in prop::collection::vec(("[a-z]{1,6}", value()), 0..5)
        ) {
            let text: String =
                fields.iter().map(|(key, value)| format!("{key} = {value} // x\n")).collect();
            let styled = shown(&text);
            prop_assert_eq!(shown(&styled), styled.clone());
            let (before, after) = (syntax::parse(&text).unwrap(), syntax::parse(&styled).unwrap());
            prop_assert_eq!(meant(&before), meant(&after), "{}", styled);
        }
    }
}
