//! JSON as YAML 1.2: blocks for structure, and text in quotes unless it cannot be taken for
//! anything else. Numbers keep every digit that the server sent.

use serde_json::Value;

/// Longest name that YAML takes without announcing it (YAML 1.2.2 §7.4.2), less its quotes.
const NAME_BYTES_MAX: usize = 1000;

/// The document, ending with a line break.
pub fn rendered(value: &Value) -> String {
    let mut out = String::new();
    block(&mut out, value, 0, true);
    out
}

/// Writes `value` as lines; `begun` says that its first line stands indented already.
fn block(out: &mut String, value: &Value, indent: usize, mut begun: bool) {
    match value {
        Value::Object(members) if !members.is_empty() => {
            for (name, value) in members {
                pad(out, indent, std::mem::take(&mut begun));
                if name.len() > NAME_BYTES_MAX {
                    out.push_str("? ");
                    text(out, name);
                    out.push('\n');
                    pad(out, indent, false);
                } else {
                    text(out, name);
                }
                out.push(':');
                let nested = is_nested(value);
                out.push(if nested { '\n' } else { ' ' });
                block(out, value, indent + 2, !nested);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            for item in items {
                pad(out, indent, std::mem::take(&mut begun));
                out.push_str("- ");
                block(out, item, indent + 2, true);
            }
        }
        Value::Object(_) => out.push_str("{}\n"),
        Value::Array(_) => out.push_str("[]\n"),
        Value::String(value) => {
            text(out, value);
            out.push('\n');
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {
            out.push_str(&value.to_string());
            out.push('\n');
        }
    }
}

fn is_nested(value: &Value) -> bool {
    match value {
        Value::Object(members) => !members.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

fn pad(out: &mut String, indent: usize, begun: bool) {
    if !begun {
        out.extend(std::iter::repeat_n(' ', indent));
    }
}

fn text(out: &mut String, text: &str) {
    if is_plain(text) {
        out.push_str(text);
        return;
    }
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            // What YAML does not print or takes for a line break (§5.1, §5.4).
            '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}' => escape(out, c),
            _ if c.is_control() => escape(out, c),
            _ => out.push(c),
        }
    }
    out.push('"');
}

fn escape(out: &mut String, c: char) {
    out.push_str(&format!("\\u{:04x}", u32::from(c)));
}

/// Whether the text is a word that no version of YAML reads as anything but text.
fn is_plain(text: &str) -> bool {
    const TAKEN: [&str; 9] = ["true", "false", "yes", "no", "on", "off", "y", "n", "null"];
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "_-./".contains(c))
        && !TAKEN.iter().any(|taken| text.eq_ignore_ascii_case(taken))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;
    use yaml_rust2::{Yaml, YamlLoader};

    use super::*;

    /// What another program reads.
    fn read(text: &str) -> Value {
        let mut documents = YamlLoader::load_from_str(text).unwrap();
        assert_eq!(documents.len(), 1, "{text}");
        value(documents.remove(0))
    }

    fn value(yaml: Yaml) -> Value {
        match yaml {
            Yaml::Real(digits) => serde_json::from_str(&digits).unwrap(),
            Yaml::Integer(number) => json!(number),
            Yaml::String(text) => json!(text),
            Yaml::Boolean(is) => json!(is),
            Yaml::Array(items) => items.into_iter().map(value).collect(),
            Yaml::Hash(members) => {
                let named = |name: Yaml| name.into_string().unwrap();
                Value::Object(members.into_iter().map(|(n, v)| (named(n), value(v))).collect())
            }
            Yaml::Null => Value::Null,
            Yaml::Alias(_) | Yaml::BadValue => panic!("{yaml:?}"),
        }
    }

    #[test]
    fn it_reads_as_people_expect() {
        let shown = json!({
            "data": {"keys": ["a", "b/"], "none": [], "nothing": {}, "ttl": 3600, "on": true},
            "list": [{"x": 1, "y": null}, [1, [2]]],
            "warnings": null,
        });
        let text = "data:\n  keys:\n    - a\n    - b/\n  none: []\n  nothing: {}\n  \"on\": true\n  \
                    ttl: 3600\nlist:\n  - x: 1\n    \"y\": null\n  - - 1\n    - - 2\n\
                    warnings: null\n";
        assert_eq!(rendered(&shown), text);
        assert_eq!(read(text), shown);
    }

    #[test]
    fn numbers_keep_their_digits() {
        let text = "[1.10, 123456789012345678901234567890, 1e400, -0.0]";
        let numbers: Value = serde_json::from_str(text).unwrap();
        assert_eq!(
            rendered(&numbers),
            "- 1.10\n- 123456789012345678901234567890\n- 1e+400\n- -0.0\n"
        );
    }

    #[test]
    fn text_that_looks_like_something_else_stays_text() {
        for text in [
            "",
            " ",
            "~",
            "null",
            "NULL",
            "Yes",
            "off",
            "n",
            "0x1f",
            "1e3",
            "12:30:00",
            "2026-01-01",
            ".inf",
            "- a",
            "a: b",
            "a #b",
            "#a",
            "&a",
            "*a",
            "!a",
            "|",
            ">",
            "%a",
            "@a",
            "`a",
            "{}",
            "[]",
            "'",
            "\"",
            "\\",
            "a\nb",
            "a\r\n",
            "\t",
            "\u{1b}[2J",
            "\u{85}",
            "\u{2028}",
            "\u{feff}x",
            "---",
            "...",
            "= ",
            "<<",
            "é",
            "😀",
            "path/with-dots.and_more",
        ] {
            let value = json!({ text: [text] });
            let shown = rendered(&value);
            assert_eq!(read(&shown), value, "{shown}");
            assert!(!shown.contains('\u{1b}'));
        }
        let long = json!({ "k".repeat(5000): {"a": 1}, "b": 2 });
        assert_eq!(read(&rendered(&long)), long);
    }

    fn any_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                prop::collection::btree_map(any::<String>(), inner, 0..5)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn whatever_the_server_answers_can_be_read_back(value in any_value()) {
            prop_assert_eq!(read(&rendered(&value)), value);
        }
    }
}
