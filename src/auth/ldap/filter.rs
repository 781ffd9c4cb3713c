//! Search filters: written by an administrator with places for names in them, sent as BER.
//!
//! A filter is taken apart once, with its places still empty (RFC 4515). Names are put into the
//! parts, never into text that is read as a filter afterwards: whatever a name holds, it is compared
//! and cannot become anything else.

use super::ber::Writer;
use super::name::{hex, is_attribute};

/// Longest text of a filter, in bytes.
const FILTER_BYTES_MAX: usize = 4096;
/// How deeply filters may lie in each other.
const DEPTH_MAX: usize = 16;

const AND: u8 = 0xa0;
const OR: u8 = 0xa1;
const NOT: u8 = 0xa2;
const EQUAL: u8 = 0xa3;
const SUBSTRINGS: u8 = 0xa4;
const GREATER_OR_EQUAL: u8 = 0xa5;
const LESS_OR_EQUAL: u8 = 0xa6;
const PRESENT: u8 = 0x87;
const APPROXIMATE: u8 = 0xa8;
const EXTENSIBLE: u8 = 0xa9;

/// A filter that is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum FilterError {
    /// It ends too early, or goes on too long.
    #[error("is no filter such as (uid={{{{.Username}}}}): each part needs its own parentheses")]
    Syntax,
    /// `{{…}}` with something that nobody fills in, or where no value is.
    #[error(
        "may hold {{{{.Username}}}} and, for groups, {{{{.UserDN}}}} where a value is, \
         {{{{.UserAttr}}}} where an attribute is, and no other {{{{ }}}}"
    )]
    Template,
    /// Too long or too deep.
    #[error("is longer than 4096 bytes, or lies more than 16 levels deep")]
    TooMuch,
    /// Nothing in it tells one person from another.
    #[error("must compare an attribute with the name, as (uid={{{{.Username}}}}) does")]
    Unnamed,
}

/// What is put into the places of a filter.
#[derive(Clone, Copy, Debug)]
pub(super) struct Names<'a> {
    /// For `{{.Username}}`.
    pub username: &'a str,
    /// For `{{.UserDN}}`.
    pub user_dn: &'a str,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Bytes(Vec<u8>),
    Username,
    UserDn,
}

/// A value, in pieces.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Template(Vec<Piece>);

impl Template {
    fn fill(&self, names: Names<'_>) -> Vec<u8> {
        let mut out = Vec::new();
        for piece in &self.0 {
            out.extend_from_slice(match piece {
                Piece::Bytes(bytes) => bytes,
                Piece::Username => names.username.as_bytes(),
                Piece::UserDn => names.user_dn.as_bytes(),
            });
        }
        out
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Node {
    Set { tag: u8, parts: Vec<Node> },
    Compare { tag: u8, attribute: String, value: Template },
    Present(String),
    Substrings { attribute: String, parts: Vec<(u8, Template)> },
    Extensible { attribute: String, rule: String, dn: bool, value: Template },
}

/// A filter with places for names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Filter(Node);

impl Filter {
    /// Reads a filter. `{{.UserAttr}}` stands for `user_attribute`.
    ///
    /// # Errors
    /// When it is none.
    pub(super) fn parse(text: &str, user_attribute: &str) -> Result<Self, FilterError> {
        if text.len() > FILTER_BYTES_MAX {
            return Err(FilterError::TooMuch);
        }
        let mut parser = Parser { rest: text.trim(), user_attribute };
        let node = parser.node(0)?;
        if parser.rest.is_empty() { Ok(Self(node)) } else { Err(FilterError::Syntax) }
    }

    /// What finds every entry that there is.
    pub(super) fn any_entry() -> Self {
        Self(Node::Present("objectClass".to_owned()))
    }

    /// What finds the entries whose attribute has one of these values.
    pub(super) fn one_of<'v>(attribute: &str, values: impl IntoIterator<Item = &'v [u8]>) -> Self {
        let equal = |value: &[u8]| Node::Compare {
            tag: EQUAL,
            attribute: attribute.to_owned(),
            value: Template(vec![Piece::Bytes(value.to_vec())]),
        };
        Self(Node::Set { tag: OR, parts: values.into_iter().map(equal).collect() })
    }

    /// Reads the filter that people are found by, which compares some attribute with their name.
    ///
    /// # Errors
    /// When it is none, or finds no one person.
    pub(super) fn parse_for_people(text: &str, user_attribute: &str) -> Result<Self, FilterError> {
        let filter = Self::parse(text, user_attribute)?;
        if filter.0.uses(&Piece::UserDn) {
            return Err(FilterError::Template);
        }
        if filter.naming().is_empty() { Err(FilterError::Unnamed) } else { Ok(filter) }
    }

    /// The attributes that are compared with the name.
    pub(super) fn naming_attributes(&self) -> impl Iterator<Item = &str> {
        self.naming().into_iter().map(|(attribute, _)| attribute)
    }

    /// What each of those attributes is compared with, for a name.
    pub(super) fn naming_values(&self, username: &str) -> Vec<(&str, Vec<u8>)> {
        let names = Names { username, user_dn: "" };
        self.naming().into_iter().map(|(name, value)| (name, value.fill(names))).collect()
    }

    fn naming(&self) -> Vec<(&str, &Template)> {
        let mut found = Vec::new();
        self.0.naming(&mut found);
        found
    }

    /// Writes it with its places filled in.
    pub(super) fn write(&self, writer: &mut Writer, names: Names<'_>) {
        self.0.write(writer, names);
    }
}

impl Node {
    fn naming<'a>(&'a self, found: &mut Vec<(&'a str, &'a Template)>) {
        match self {
            // What must not hold names nobody.
            Self::Set { tag: NOT, .. } => {}
            Self::Set { parts, .. } => parts.iter().for_each(|part| part.naming(found)),
            Self::Compare { tag: EQUAL, attribute, value }
                if value.0.contains(&Piece::Username) =>
            {
                found.push((attribute, value));
            }
            Self::Compare { .. }
            | Self::Present(_)
            | Self::Substrings { .. }
            | Self::Extensible { .. } => {}
        }
    }

    fn uses(&self, piece: &Piece) -> bool {
        match self {
            Self::Set { parts, .. } => parts.iter().any(|part| part.uses(piece)),
            Self::Compare { value, .. } | Self::Extensible { value, .. } => value.0.contains(piece),
            Self::Present(_) => false,
            Self::Substrings { parts, .. } => {
                parts.iter().any(|(_, value)| value.0.contains(piece))
            }
        }
    }

    fn write(&self, writer: &mut Writer, names: Names<'_>) {
        match self {
            Self::Set { tag, parts } => {
                writer.nested(*tag, |inner| parts.iter().for_each(|part| part.write(inner, names)));
            }
            Self::Compare { tag, attribute, value } => writer.nested(*tag, |inner| {
                inner.octets(attribute.as_bytes());
                inner.octets(&value.fill(names));
            }),
            Self::Present(attribute) => writer.element(PRESENT, attribute.as_bytes()),
            Self::Substrings { attribute, parts } => writer.nested(SUBSTRINGS, |inner| {
                inner.octets(attribute.as_bytes());
                inner.nested(super::ber::SEQUENCE, |list| {
                    parts.iter().for_each(|(tag, value)| list.element(*tag, &value.fill(names)));
                });
            }),
            Self::Extensible { attribute, rule, dn, value } => {
                writer.nested(EXTENSIBLE, |inner| {
                    for (tag, text) in [(0x81, rule), (0x82, attribute)] {
                        if !text.is_empty() {
                            inner.element(tag, text.as_bytes());
                        }
                    }
                    inner.element(0x83, &value.fill(names));
                    if *dn {
                        inner.element(0x84, &[0xff]);
                    }
                });
            }
        }
    }
}

struct Parser<'a> {
    rest: &'a str,
    user_attribute: &'a str,
}

impl<'a> Parser<'a> {
    fn take(&mut self, token: &str) -> bool {
        match self.rest.strip_prefix(token) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    /// A filter in its parentheses.
    fn node(&mut self, depth: usize) -> Result<Node, FilterError> {
        if depth == DEPTH_MAX {
            return Err(FilterError::TooMuch);
        }
        if !self.take("(") {
            return Err(FilterError::Syntax);
        }
        let node = if self.take("&") {
            self.set(AND, depth)?
        } else if self.take("|") {
            self.set(OR, depth)?
        } else if self.take("!") {
            Node::Set { tag: NOT, parts: vec![self.node(depth + 1)?] }
        } else {
            self.item()?
        };
        if self.take(")") { Ok(node) } else { Err(FilterError::Syntax) }
    }

    fn set(&mut self, tag: u8, depth: usize) -> Result<Node, FilterError> {
        let mut parts = Vec::new();
        while self.rest.starts_with('(') {
            parts.push(self.node(depth + 1)?);
        }
        // An empty set matches everything or nothing (RFC 4526): here it is a slip.
        if parts.is_empty() { Err(FilterError::Syntax) } else { Ok(Node::Set { tag, parts }) }
    }

    fn item(&mut self) -> Result<Node, FilterError> {
        let equals = self.rest.find('=').ok_or(FilterError::Syntax)?;
        let (head, rest) = self.rest.split_at(equals);
        self.rest = rest.strip_prefix('=').unwrap_or(rest);
        for (mark, tag) in [('>', GREATER_OR_EQUAL), ('<', LESS_OR_EQUAL), ('~', APPROXIMATE)] {
            if let Some(head) = head.strip_suffix(mark) {
                let attribute = self.attribute(head)?;
                return Ok(Node::Compare { tag, attribute, value: self.value()? });
            }
        }
        if let Some(head) = head.strip_suffix(':') {
            return self.extensible(head);
        }
        let attribute = self.attribute(head)?;
        self.equality(attribute)
    }

    /// `attribute:dn:rule:=value`, of which one of attribute and rule may be missing.
    fn extensible(&mut self, head: &str) -> Result<Node, FilterError> {
        let mut parts = head.split(':');
        let attribute = match parts.next() {
            None | Some("") => String::new(),
            Some(name) => self.attribute(name)?,
        };
        let mut next = parts.next();
        let dn = next == Some("dn");
        if dn {
            next = parts.next();
        }
        let rule = match next {
            None => String::new(),
            Some(rule) if is_attribute(rule) => rule.to_owned(),
            Some(_) => return Err(FilterError::Syntax),
        };
        if parts.next().is_some() || (attribute.is_empty() && rule.is_empty()) {
            return Err(FilterError::Syntax);
        }
        Ok(Node::Extensible { attribute, rule, dn, value: self.value()? })
    }

    fn equality(&mut self, attribute: String) -> Result<Node, FilterError> {
        let mut values = vec![self.value()?];
        while self.take("*") {
            values.push(self.value()?);
        }
        match values.as_mut_slice() {
            [value] => {
                let value = std::mem::take(value);
                return Ok(Node::Compare { tag: EQUAL, attribute, value });
            }
            [first, last] if first.0.is_empty() && last.0.is_empty() => {
                return Ok(Node::Present(attribute));
            }
            _ => {}
        }
        let last = values.len() - 1;
        let mut parts = Vec::new();
        for (index, value) in values.into_iter().enumerate() {
            let tag = match index {
                0 => 0x80,
                index if index == last => 0x82,
                _ => 0x81,
            };
            match value.0.is_empty() {
                false => parts.push((tag, value)),
                // Nothing between two stars.
                true if tag == 0x81 => return Err(FilterError::Syntax),
                true => {}
            }
        }
        Ok(Node::Substrings { attribute, parts })
    }

    fn attribute(&self, text: &str) -> Result<String, FilterError> {
        let name = match placeholder(text) {
            Some((".UserAttr", "")) => self.user_attribute,
            Some(_) => return Err(FilterError::Template),
            None if text.contains("{{") => return Err(FilterError::Template),
            None => text,
        };
        // Options, as in cn;lang-en.
        let mut parts = name.split(';');
        let good = parts.next().is_some_and(is_attribute)
            && parts.all(|option| {
                !option.is_empty() && option.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            });
        if good { Ok(name.to_owned()) } else { Err(FilterError::Syntax) }
    }

    /// A value up to the next star or parenthesis.
    fn value(&mut self) -> Result<Template, FilterError> {
        let mut pieces = Vec::new();
        let mut bytes = Vec::new();
        loop {
            if self.rest.starts_with("{{") {
                let (name, rest) = placeholder(self.rest).ok_or(FilterError::Template)?;
                let piece = match name {
                    ".Username" => Piece::Username,
                    ".UserDN" => Piece::UserDn,
                    _ => return Err(FilterError::Template),
                };
                if !bytes.is_empty() {
                    pieces.push(Piece::Bytes(std::mem::take(&mut bytes)));
                }
                pieces.push(piece);
                self.rest = rest;
                continue;
            }
            let mut chars = self.rest.chars();
            match chars.next() {
                None | Some('(' | '\0') => return Err(FilterError::Syntax),
                Some('*' | ')') => break,
                Some('\\') => {
                    let [high, low, ..] = chars.as_str().as_bytes() else {
                        return Err(FilterError::Syntax);
                    };
                    let (Some(high), Some(low)) = (hex(*high), hex(*low)) else {
                        return Err(FilterError::Syntax);
                    };
                    bytes.push(high << 4 | low);
                    chars.next();
                    chars.next();
                }
                Some(c) => {
                    let mut buffer = [0u8; 4];
                    bytes.extend_from_slice(c.encode_utf8(&mut buffer).as_bytes());
                }
            }
            self.rest = chars.as_str();
        }
        if !bytes.is_empty() {
            pieces.push(Piece::Bytes(bytes));
        }
        Ok(Template(pieces))
    }
}

/// The name in `{{…}}` at the head of `text`, and what follows.
fn placeholder(text: &str) -> Option<(&str, &str)> {
    let (name, rest) = text.strip_prefix("{{")?.split_once("}}")?;
    Some((name.trim(), rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::auth::ldap::ber::Reader;

    const DEFAULT_GROUPS: &str =
        "(|(memberUid={{.Username}})(member={{.UserDN}})(uniqueMember={{.UserDN}}))";

    fn written(text: &str, username: &str) -> Vec<u8> {
        let filter = Filter::parse(text, "uid").unwrap();
        let mut writer = Writer::default();
        filter.write(&mut writer, Names { username, user_dn: "cn=x" });
        writer.finish().to_vec()
    }

    /// Tags and leaf contents, in the order of the bytes.
    fn leaves(bytes: &[u8]) -> Vec<(u8, Vec<u8>)> {
        let mut reader = Reader::new(bytes);
        let mut found = Vec::new();
        while !reader.is_empty() {
            let (tag, content) = reader.element().unwrap();
            if tag & 0x20 == 0 {
                found.push((tag, content.to_vec()));
            } else {
                found.push((tag, Vec::new()));
                found.extend(leaves(content));
            }
        }
        found
    }

    fn shown(text: &str, username: &str) -> Vec<(u8, String)> {
        let leaves = leaves(&written(text, username)).into_iter();
        leaves.map(|(tag, content)| (tag, String::from_utf8(content).unwrap())).collect()
    }

    fn of(parts: &[(u8, &str)]) -> Vec<(u8, String)> {
        parts.iter().map(|(tag, text)| (*tag, (*text).to_owned())).collect()
    }

    #[test]
    fn every_form_has_its_bytes() {
        for (text, parts) in [
            ("(uid=ann)", &[(EQUAL, ""), (4, "uid"), (4, "ann")][..]),
            ("(cn;lang-en=a)", &[(EQUAL, ""), (4, "cn;lang-en"), (4, "a")]),
            ("(age>=5)", &[(GREATER_OR_EQUAL, ""), (4, "age"), (4, "5")]),
            ("(age<=5)", &[(LESS_OR_EQUAL, ""), (4, "age"), (4, "5")]),
            ("(cn~=ann)", &[(APPROXIMATE, ""), (4, "cn"), (4, "ann")]),
            ("(mail=*)", &[(PRESENT, "mail")]),
            (
                "(cn=a*b*c)",
                &[(SUBSTRINGS, ""), (4, "cn"), (0x30, ""), (0x80, "a"), (0x81, "b"), (0x82, "c")],
            ),
            ("(cn=*b)", &[(SUBSTRINGS, ""), (4, "cn"), (0x30, ""), (0x82, "b")]),
            ("(cn=a*)", &[(SUBSTRINGS, ""), (4, "cn"), (0x30, ""), (0x80, "a")]),
            ("(!(a=b))", &[(NOT, ""), (EQUAL, ""), (4, "a"), (4, "b")]),
            ("(cn=a\\2a\\28b)", &[(EQUAL, ""), (4, "cn"), (4, "a*(b")]),
            (
                "(userAccountControl:1.2.840.113556.1.4.803:=2)",
                &[
                    (EXTENSIBLE, ""),
                    (0x81, "1.2.840.113556.1.4.803"),
                    (0x82, "userAccountControl"),
                    (0x83, "2"),
                ],
            ),
            ("({{.UserAttr}}=x)", &[(EQUAL, ""), (4, "uid"), (4, "x")]),
            ("({{ .UserAttr }}={{ .Username }}@x)", &[(EQUAL, ""), (4, "uid"), (4, "ann@x")]),
            ("(o=x={y})", &[(EQUAL, ""), (4, "o"), (4, "x={y}")]),
        ] {
            assert_eq!(shown(text, "ann"), of(parts), "{text}");
        }
        let dn = leaves(&written("(:dn:2.4.6:=x)", "ann"));
        assert_eq!(dn[1..], [(0x81, b"2.4.6".to_vec()), (0x83, b"x".to_vec()), (0x84, vec![0xff])]);
    }

    #[test]
    fn what_is_no_filter_is_refused() {
        for text in [
            "",
            "uid=x",
            "(uid=x",
            "(uid=x))",
            "(uid=x)(cn=y)",
            "()",
            "(&)",
            "(|)",
            "(!)",
            "(=x)",
            "(!(a=b)(c=d))",
            "(uid=a(b)",
            "(uid=\\)",
            "(uid=\\2)",
            "(uid=\\zz)",
            "(u id=x)",
            "(uid=a**b)",
            "(uid=x\0)",
            "(:=x)",
            "(a:b:c:d:=x)",
            "(cn;=x)",
            "(uid)",
            "(&(a=b)x)",
            "(cn:dn:bad rule:=x)",
        ] {
            assert_eq!(Filter::parse(text, "uid"), Err(FilterError::Syntax), "{text:?}");
        }
        for text in [
            "(uid={{.Password}})",
            "(uid={{)",
            "(uid={{.Username})",
            "(uid={{printf 1}})",
            "({{.Username}}=x)",
            "(x{{.UserAttr}}=x)",
            "(uid={{.UserAttr}})",
            "(uid={{range .}}x{{end}})",
            "(uid={{.Username | html}})",
        ] {
            assert_eq!(Filter::parse(text, "uid"), Err(FilterError::Template), "{text:?}");
        }
        let deep = format!("{}(a=b){}", "(!".repeat(16), ")".repeat(16));
        let long = format!("(a={})", "x".repeat(FILTER_BYTES_MAX));
        for text in [deep, long, "(&".repeat(2000)] {
            assert_eq!(Filter::parse(&text, "uid"), Err(FilterError::TooMuch));
        }
    }

    #[test]
    fn a_filter_for_people_names_them() {
        let parse = |text| Filter::parse_for_people(text, "uid");
        for text in ["(uid=ann)", "(cn=*{{.Username}}*)", "(!(uid={{.Username}}))", "(uid=*)"] {
            assert_eq!(parse(text), Err(FilterError::Unnamed), "{text}");
        }
        let error = parse("(&(uid={{.Username}})(manager={{.UserDN}}))").unwrap_err();
        assert_eq!(error, FilterError::Template);
        let text = "(&(objectClass=person)(|({{.UserAttr}}={{.Username}})(mail={{.Username}}@x)))";
        let filter = parse(text).unwrap();
        assert_eq!(filter.naming_attributes().collect::<Vec<_>>(), ["uid", "mail"]);
        let values = filter.naming_values("ann");
        assert_eq!(values, [("uid", b"ann".to_vec()), ("mail", b"ann@x".to_vec())]);
    }

    proptest! {
        /// Whatever a name holds, the filter has the same shape and the name is compared as it is.
        #[test]
        fn a_name_is_only_ever_compared(name in any::<String>()) {
            let plain = leaves(&written(DEFAULT_GROUPS, "ann"));
            let odd = leaves(&written(DEFAULT_GROUPS, &name));
            prop_assert_eq!(plain.len(), odd.len());
            for (plain, odd) in plain.into_iter().zip(odd) {
                prop_assert_eq!(plain.0, odd.0);
                if plain.1 == b"ann" {
                    prop_assert_eq!(odd.1, name.as_bytes());
                } else {
                    prop_assert_eq!(plain.1, odd.1);
                }
            }
        }

        #[test]
        fn no_text_is_a_panic(text in "[(){}.&|!=*:\\\\a-c UsernameDAttr]{0,60}") {
            let _ = Filter::parse_for_people(&text, "uid");
        }
    }
}
