//! The HCL that policies are written in, read into a tree with line numbers.
//!
//! Recursion is bounded by [`NESTING_MAX`] before it happens, so no text can exhaust the stack,
//! and repeated keys are kept: dropping one could drop a `deny`.

use serde_json::Number;

use super::error::SyntaxProblem;

/// Deepest nesting of blocks and lists. A policy needs four.
pub(super) const NESTING_MAX: u32 = 16;

/// A value of HCL or JSON.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Node {
    Null,
    Bool(bool),
    Number(Number),
    Text(String),
    List(Vec<Node>),
    Object(Vec<Field>),
}

/// One key and its value. Keys may repeat.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Field {
    pub key: String,
    /// Of the key; none for JSON.
    pub line: Option<u32>,
    pub value: Node,
}

/// A syntax error and its line.
#[derive(Debug)]
pub(super) struct Failure {
    pub line: u32,
    pub problem: SyntaxProblem,
}

/// Reads a whole text.
pub(super) fn parse(text: &str) -> Result<Vec<Field>, Failure> {
    Parser { rest: text, line: 1 }.body(0, false)
}

struct Parser<'a> {
    rest: &'a str,
    line: u32,
}

impl<'a> Parser<'a> {
    fn fail<T>(&self, problem: SyntaxProblem) -> Result<T, Failure> {
        Err(Failure { line: self.line, problem })
    }

    fn expected<T>(&self, expected: &'static str) -> Result<T, Failure> {
        self.fail(match self.peek() {
            Some(found) => SyntaxProblem::Unexpected { expected, found },
            None => SyntaxProblem::End { expected },
        })
    }

    fn peek(&self) -> Option<char> {
        self.rest.chars().next()
    }

    fn bump(&mut self) -> Option<char> {
        let mut chars = self.rest.chars();
        let c = chars.next()?;
        self.rest = chars.as_str();
        if c == '\n' {
            self.line = self.line.saturating_add(1);
        }
        Some(c)
    }

    fn take_while(&mut self, keep: impl Fn(char) -> bool) -> &'a str {
        let end = self.rest.find(|c| !keep(c)).unwrap_or(self.rest.len());
        let (taken, rest) = self.rest.split_at(end);
        self.rest = rest;
        taken
    }

    /// Skips white space and comments.
    fn blank(&mut self) -> Result<(), Failure> {
        loop {
            if self.rest.starts_with('#') || self.rest.starts_with("//") {
                self.take_while(|c| c != '\n');
            } else if self.rest.starts_with("/*") {
                let opened = self.line;
                let Some(length) = self.rest.find("*/") else {
                    return Err(Failure { line: opened, problem: SyntaxProblem::OpenComment });
                };
                let (comment, rest) = self.rest.split_at(length + 2);
                let lines = comment.bytes().filter(|b| *b == b'\n').count();
                self.line = self.line.saturating_add(u32::try_from(lines).unwrap_or(u32::MAX));
                self.rest = rest;
            } else if matches!(self.peek(), Some(' ' | '\t' | '\r' | '\n')) {
                self.bump();
            } else {
                return Ok(());
            }
        }
    }

    /// Fields up to the closing brace, or up to the end of the text.
    fn body(&mut self, depth: u32, braced: bool) -> Result<Vec<Field>, Failure> {
        if depth > NESTING_MAX {
            return self.fail(SyntaxProblem::TooDeep);
        }
        let mut fields = Vec::new();
        loop {
            self.blank()?;
            match self.peek() {
                None if !braced => return Ok(fields),
                None => return self.expected("\"}\""),
                Some('}') if braced => {
                    self.bump();
                    return Ok(fields);
                }
                Some(_) => fields.push(self.field(depth)?),
            }
            self.blank()?;
            if braced && self.peek() == Some(',') {
                self.bump();
            }
        }
    }

    /// `key = value`, `key { … }` or `key "label" { … }`.
    fn field(&mut self, depth: u32) -> Result<Field, Failure> {
        let line = Some(self.line);
        let key = self.key()?;
        self.blank()?;
        match self.peek() {
            Some('=') => {
                self.bump();
                self.blank()?;
                Ok(Field { key, line, value: self.value(depth)? })
            }
            Some('{') => Ok(Field { key, line, value: self.value(depth)? }),
            Some('"') => {
                let label_line = Some(self.line);
                let label = self.text()?;
                self.blank()?;
                match self.peek() {
                    Some('{') => {}
                    Some('"') => return self.fail(SyntaxProblem::Labels),
                    Some(_) | None => return self.expected("\"{\""),
                }
                let value = self.value(depth)?;
                let inner = Field { key: label, line: label_line, value };
                Ok(Field { key, line, value: Node::Object(vec![inner]) })
            }
            Some(_) | None => self.expected("\"=\" or \"{\""),
        }
    }

    fn key(&mut self) -> Result<String, Failure> {
        match self.peek() {
            Some('"') => self.text(),
            Some(c) if c.is_ascii_alphabetic() || c == '_' => Ok(self.word().to_owned()),
            Some(_) | None => self.expected("a key"),
        }
    }

    fn word(&mut self) -> &'a str {
        self.take_while(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'))
    }

    fn value(&mut self, depth: u32) -> Result<Node, Failure> {
        match self.peek() {
            Some('"') => self.text().map(Node::Text),
            Some('{') => {
                self.bump();
                self.body(depth + 1, true).map(Node::Object)
            }
            Some('[') => self.list(depth + 1),
            Some('<') => self.fail(SyntaxProblem::HereDocument),
            Some(c) if c.is_ascii_digit() || c == '-' => self.number(),
            Some(c) if c.is_ascii_alphabetic() => {
                let before = self.rest;
                match self.word() {
                    "true" => Ok(Node::Bool(true)),
                    "false" => Ok(Node::Bool(false)),
                    _ => {
                        self.rest = before;
                        self.expected("a value")
                    }
                }
            }
            Some(_) | None => self.expected("a value"),
        }
    }

    fn list(&mut self, depth: u32) -> Result<Node, Failure> {
        if depth > NESTING_MAX {
            return self.fail(SyntaxProblem::TooDeep);
        }
        self.bump();
        let mut items = Vec::new();
        loop {
            self.blank()?;
            if self.peek() == Some(']') {
                self.bump();
                return Ok(Node::List(items));
            }
            items.push(self.value(depth)?);
            self.blank()?;
            match self.peek() {
                Some(',') => {
                    self.bump();
                }
                Some(']') => {}
                Some(_) | None => return self.expected("\",\" or \"]\""),
            }
        }
    }

    fn number(&mut self) -> Result<Node, Failure> {
        let digits = self.take_while(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'));
        match serde_json::from_str::<Number>(digits) {
            Ok(number) => Ok(Node::Number(number)),
            Err(_) => self.fail(SyntaxProblem::Number),
        }
    }

    /// A quoted string, on one line.
    fn text(&mut self) -> Result<String, Failure> {
        self.bump();
        let mut out = String::new();
        loop {
            match self.peek() {
                None | Some('\n') => return self.fail(SyntaxProblem::OpenString),
                Some('"') => {
                    self.bump();
                    return Ok(out);
                }
                Some('\\') => {
                    self.bump();
                    out.push(self.escape()?);
                }
                Some('$') if self.rest.starts_with("${") => {
                    return self.fail(SyntaxProblem::Interpolation);
                }
                Some(c) => {
                    self.bump();
                    out.push(c);
                }
            }
        }
    }

    fn escape(&mut self) -> Result<char, Failure> {
        let digits = match self.peek() {
            Some('u') => 4,
            Some('U') => 8,
            Some(c @ ('"' | '\\')) => {
                self.bump();
                return Ok(c);
            }
            Some('n') => {
                self.bump();
                return Ok('\n');
            }
            Some('r') => {
                self.bump();
                return Ok('\r');
            }
            Some('t') => {
                self.bump();
                return Ok('\t');
            }
            Some(_) | None => return self.fail(SyntaxProblem::Escape),
        };
        self.bump();
        let mut code = 0u32;
        for _ in 0..digits {
            let Some(digit) = self.peek().and_then(|c| c.to_digit(16)) else {
                return self.fail(SyntaxProblem::Escape);
            };
            self.bump();
            code = code.wrapping_mul(16).wrapping_add(digit);
        }
        match char::from_u32(code) {
            Some(c) => Ok(c),
            None => self.fail(SyntaxProblem::Escape),
        }
    }
}
