//! Values given on the command line: `key=value`, `key=@file`, `key=-`, `@file.json`, `-`.

use std::io::Read;

use serde_json::{Map, Value};
use zeroize::Zeroizing;

use super::error::CliError;

/// Largest value read from a file or standard input, in bytes.
const VALUE_BYTES_MAX: u64 = 32 << 20;

/// Builds one JSON object from `args`, in order. Values are text; a name given twice makes a list.
/// `-` and `@file` alone stand for a whole JSON object; `\@` and `\-` start a literal value.
///
/// # Errors
/// An argument of none of these forms, an unreadable file, JSON that is not an object.
pub fn parse(args: &[String], stdin: &mut dyn Read) -> Result<Map<String, Value>, CliError> {
    let mut out = Map::new();
    let mut stdin = Some(stdin);
    for arg in args {
        if arg == "-" {
            merge(&mut out, json_object(&read_stdin(&mut stdin)?, "standard input")?);
        } else if let Some(file) = arg.strip_prefix('@').filter(|_| !arg.contains('=')) {
            merge(&mut out, json_object(&read_file(file)?, file)?);
        } else {
            let Some((key, value)) = arg.split_once('=').filter(|(key, _)| !key.is_empty()) else {
                return Err(CliError::local(
                    format!("\"{arg}\" is not a value"),
                    "write key=value, key=@file, key=- for standard input, or @file.json",
                ));
            };
            let value = match value {
                "-" => as_text(&read_stdin(&mut stdin)?, key)?,
                _ => match (value.strip_prefix('@'), value.strip_prefix('\\')) {
                    (Some(file), _) => as_text(&read_file(file)?, key)?,
                    (None, Some(rest)) if rest.starts_with(['@', '-']) => rest.to_owned(),
                    (None, _) => value.to_owned(),
                },
            };
            add(&mut out, key, value);
        }
    }
    Ok(out)
}

/// `key=value` arguments where nothing is read from files, as for query parameters and options.
///
/// # Errors
/// An argument without `=`.
pub fn plain(args: &[String]) -> Result<Vec<(String, String)>, CliError> {
    args.iter()
        .map(|arg| match arg.split_once('=') {
            Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
            Some(_) | None => {
                Err(CliError::local(format!("\"{arg}\" is not key=value"), "write key=value"))
            }
        })
        .collect()
}

/// A whole text argument: itself, `@file`, or `-` for standard input.
///
/// # Errors
/// An unreadable file, or text that is not UTF-8.
pub fn text(arg: &str, stdin: &mut dyn Read) -> Result<String, CliError> {
    match arg.strip_prefix('@') {
        Some(file) => as_text(&read_file(file)?, file),
        None if arg == "-" => as_text(&read_stdin(&mut Some(stdin))?, "standard input"),
        None => Ok(arg.to_owned()),
    }
}

fn add(out: &mut Map<String, Value>, key: &str, text: String) {
    let value = Value::String(text);
    match out.get_mut(key) {
        None => {
            out.insert(key.to_owned(), value);
        }
        Some(Value::Array(list)) => list.push(value),
        Some(first) => *first = Value::Array(vec![first.take(), value]),
    }
}

fn merge(out: &mut Map<String, Value>, more: Map<String, Value>) {
    out.extend(more);
}

fn json_object(bytes: &[u8], from: &str) -> Result<Map<String, Value>, CliError> {
    match serde_json::from_slice(bytes) {
        Ok(Value::Object(object)) => Ok(object),
        // The parser's own message could repeat the secret it stumbled over.
        Ok(_) => Err(CliError::local(
            format!("{from} is JSON but not an object"),
            "give an object: {\"key\": \"value\"}",
        )),
        Err(error) => Err(CliError::local(
            format!("{from} is not JSON (line {}, column {})", error.line(), error.column()),
            "give one JSON object: {\"key\": \"value\"}",
        )),
    }
}

fn as_text(bytes: &[u8], what: &str) -> Result<String, CliError> {
    std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| {
        CliError::local(
            format!("the value of {what} is not UTF-8 text"),
            "encode binary data first, for example with base64",
        )
    })
}

fn read_file(path: &str) -> Result<Zeroizing<Vec<u8>>, CliError> {
    let file =
        std::fs::File::open(path).map_err(CliError::system(format!("cannot read {path}")))?;
    bounded(file, path)
}

fn read_stdin(stdin: &mut Option<&mut dyn Read>) -> Result<Zeroizing<Vec<u8>>, CliError> {
    match stdin.take() {
        Some(stdin) => bounded(stdin, "standard input"),
        None => Err(CliError::local(
            "standard input is asked for more than once",
            "give the other value by file: key=@file",
        )),
    }
}

fn bounded(source: impl Read, name: &str) -> Result<Zeroizing<Vec<u8>>, CliError> {
    let mut bytes = Zeroizing::new(Vec::new());
    source
        .take(VALUE_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(CliError::system(format!("cannot read {name}")))?;
    if u64::try_from(bytes.len()).is_ok_and(|len| len <= VALUE_BYTES_MAX) {
        Ok(bytes)
    } else {
        Err(CliError::local(format!("{name} is larger than 32 MiB"), "store less"))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parsed(args: &[&str], stdin: &str) -> Result<Value, String> {
        let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
        parse(&args, &mut stdin.as_bytes()).map(Value::Object).map_err(|error| error.what())
    }

    #[test]
    fn every_form_of_value_is_understood() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "from file\n").unwrap();
        let at = format!("f=@{}", file.path().display());
        assert_eq!(
            parsed(
                &["a=1", "b=x=y", "c=", &at, "d=-", "e=\\@home", "g=\\-", "h=\\n"],
                "from stdin"
            )
            .unwrap(),
            json!({"a": "1", "b": "x=y", "c": "", "f": "from file\n", "d": "from stdin",
                   "e": "@home", "g": "-", "h": "\\n"})
        );
    }

    #[test]
    fn a_name_given_twice_makes_a_list() {
        assert_eq!(parsed(&["a=1", "a=2", "a=3"], "").unwrap(), json!({"a": ["1", "2", "3"]}));
    }

    #[test]
    fn a_whole_object_comes_from_standard_input_or_a_file() {
        assert_eq!(parsed(&["-", "b=2"], r#"{"a": [1]}"#).unwrap(), json!({"a": [1], "b": "2"}));
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), r#"{"x": true}"#).unwrap();
        let at = format!("@{}", file.path().display());
        assert_eq!(parsed(&[&at], "").unwrap(), json!({"x": true}));
    }

    #[test]
    fn mistakes_are_named_without_repeating_secrets() {
        assert!(parsed(&["novalue"], "").unwrap_err().contains("novalue"));
        assert!(parsed(&["=x"], "").is_err());
        assert!(parsed(&["a=-", "b=-"], "x").unwrap_err().contains("more than once"));
        assert!(parsed(&["a=@/no/such/file"], "").unwrap_err().contains("/no/such/file"));
        let error = parsed(&["-"], r#"{"password": hunter2}"#).unwrap_err();
        assert!(!error.contains("hunter2") && error.contains("column"), "{error}");
        assert!(parsed(&["-"], "[1]").unwrap_err().contains("not an object"));
    }
}
