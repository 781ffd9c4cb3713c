//! Answers as aligned text.

use serde_json::Value;

/// A value on one line: text as it is, everything else as JSON; absent as `n/a`.
pub fn cell(value: &Value) -> String {
    match value {
        Value::Null => "n/a".to_owned(),
        Value::String(text) => text.clone(),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => value.to_string(),
    }
}

/// Seconds as people write them: `1h30m`, `45s`, `0s`.
pub fn duration(secs: i64) -> String {
    let (sign, mut left) =
        if secs < 0 { ("-", secs.unsigned_abs()) } else { ("", secs.unsigned_abs()) };
    let mut out = String::from(sign);
    for (unit, size) in [("h", 3600), ("m", 60), ("s", 1)] {
        if left >= size {
            out.push_str(&format!("{}{unit}", left / size));
            left %= size;
        }
    }
    if out.len() == sign.len() { "0s".to_owned() } else { out }
}

/// Text without terminal controls: a value must not be able to move the cursor or fake a line.
pub fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() && !matches!(c, '\n' | '\t') {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

/// Rows under headers with a rule between, columns four spaces apart.
pub fn columns(headers: &[&str], rows: &[Vec<String>]) -> String {
    let rows: Vec<Vec<String>> =
        rows.iter().map(|row| row.iter().map(|cell| printable(cell)).collect()).collect();
    let mut widths: Vec<usize> = headers.iter().map(|header| header.chars().count()).collect();
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let rule: Vec<String> =
        headers.iter().map(|header| "-".repeat(header.chars().count())).collect();
    let head: Vec<String> = headers.iter().map(|header| (*header).to_owned()).collect();
    let mut out = String::new();
    for row in [&head, &rule].into_iter().chain(&rows) {
        let mut line = String::new();
        for (index, (cell, width)) in row.iter().zip(&widths).enumerate() {
            line.push_str(cell);
            if index + 1 < row.len() {
                line.extend(std::iter::repeat_n(' ', width + 4 - cell.chars().count().min(*width)));
            }
        }
        out.push_str(line.trim_end_matches(' '));
        out.push('\n');
    }
    out
}

/// Key/Value rows under a centred heading.
pub fn titled(title: &str, rows: &[(String, String)]) -> String {
    let rows: Vec<_> = rows.iter().map(|(key, value)| vec![key.clone(), value.clone()]).collect();
    let body = columns(&["Key", "Value"], &rows);
    let width = body.lines().map(|line| line.chars().count()).max().unwrap_or(0).clamp(24, 60);
    format!("{:=^width$}\n{body}", format!(" {title} "))
}

/// What an enveloped answer holds, as Key/Value rows: lease, wrapping, token, data.
pub fn reply_rows(body: &Value) -> Vec<(String, String)> {
    let mut rows = Vec::new();
    let mut push = |key: &str, value: String| rows.push((key.to_owned(), value));
    let secs = |value: &Value| value.as_i64().map_or_else(|| cell(value), duration);
    if let Some(wrap) = body.get("wrap_info").and_then(Value::as_object) {
        push("wrapping_token", cell(wrap.get("token").unwrap_or(&Value::Null)));
        push("wrapping_accessor", cell(wrap.get("accessor").unwrap_or(&Value::Null)));
        push("wrapping_token_ttl", secs(wrap.get("ttl").unwrap_or(&Value::Null)));
        for key in ["creation_time", "creation_path", "wrapped_accessor"] {
            if let Some(value) = wrap.get(key).filter(|value| value.as_str() != Some("")) {
                push(&format!("wrapping_token_{key}"), cell(value));
            }
        }
        return rows;
    }
    if let Some(auth) = body.get("auth").and_then(Value::as_object) {
        for (key, label) in [
            ("client_token", "token"),
            ("accessor", "token_accessor"),
            ("lease_duration", "token_duration"),
            ("renewable", "token_renewable"),
            ("token_policies", "token_policies"),
            ("identity_policies", "identity_policies"),
            ("policies", "policies"),
        ] {
            if let Some(value) = auth.get(key) {
                push(label, if key == "lease_duration" { secs(value) } else { cell(value) });
            }
        }
        for (key, value) in auth.get("metadata").and_then(Value::as_object).into_iter().flatten() {
            push(&format!("token_meta_{key}"), cell(value));
        }
        return rows;
    }
    if let Some(id) = body.get("lease_id").and_then(Value::as_str).filter(|id| !id.is_empty()) {
        push("lease_id", id.to_owned());
        push("lease_duration", secs(body.get("lease_duration").unwrap_or(&Value::Null)));
        push("lease_renewable", cell(body.get("renewable").unwrap_or(&Value::Null)));
    }
    let data = match body.get("data") {
        Some(data) => data,
        // Answers without an envelope are all data.
        None => body,
    };
    for (key, value) in data.as_object().into_iter().flatten() {
        push(key, cell(value));
    }
    rows
}

/// One field of an answer: of its data first, then of what [`reply_rows`] shows.
pub fn reply_field(body: &Value, rows: &[(String, String)], name: &str) -> Option<String> {
    let data = body.get("data").filter(|data| !data.is_null()).unwrap_or(body);
    data.get(name)
        .map(cell)
        .or_else(|| rows.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn columns_align_and_carry_no_trailing_blanks() {
        let rows = [vec!["a".to_owned(), "1".to_owned()], vec!["longer".to_owned(), String::new()]];
        assert_eq!(
            columns(&["Key", "Value"], &rows),
            "Key       Value\n---       -----\na         1\nlonger\n"
        );
    }

    #[test]
    fn a_value_cannot_control_the_terminal() {
        let rows = [vec!["k".to_owned(), "a\u{1b}[2Jb\u{7}".to_owned()]];
        let text = columns(&["Key", "Value"], &rows);
        assert!(text.contains("a\\u{1b}[2Jb\\u{7}"), "{text}");
    }

    #[test]
    fn durations_read_as_people_write_them() {
        for (secs, text) in
            [(0, "0s"), (45, "45s"), (5400, "1h30m"), (86_400, "24h"), (-61, "-1m1s")]
        {
            assert_eq!(duration(secs), text);
        }
    }

    #[test]
    fn a_leased_answer_shows_the_lease_before_its_data() {
        let body = json!({"lease_id": "db/creds/r/x", "lease_duration": 3600, "renewable": true,
            "data": {"username": "u", "password": "p"}, "auth": null, "wrap_info": null});
        let rows = reply_rows(&body);
        let keys: Vec<_> = rows.iter().map(|(key, _)| key.as_str()).collect();
        assert_eq!(keys, ["lease_id", "lease_duration", "lease_renewable", "password", "username"]);
        assert_eq!(reply_field(&body, &rows, "username").as_deref(), Some("u"));
        assert_eq!(reply_field(&body, &rows, "lease_duration").as_deref(), Some("1h"));
        assert_eq!(reply_field(&body, &rows, "nosuch"), None);
    }

    #[test]
    fn a_login_shows_the_token_and_a_wrapped_answer_only_its_wrapping() {
        let login = json!({"data": null, "auth": {"client_token": "t", "accessor": "a",
            "lease_duration": 60, "renewable": true, "policies": ["default"],
            "metadata": {"n": "v"}}});
        let rows = reply_rows(&login);
        assert!(rows.contains(&("token".to_owned(), "t".to_owned())));
        assert!(rows.contains(&("token_meta_n".to_owned(), "v".to_owned())));
        let wrapped = json!({"wrap_info": {"token": "w", "accessor": "a", "ttl": 60,
            "creation_time": "2026", "creation_path": "p", "wrapped_accessor": ""}, "auth": null});
        assert_eq!(reply_rows(&wrapped)[0], ("wrapping_token".to_owned(), "w".to_owned()));
        assert_eq!(reply_rows(&wrapped).len(), 5);
    }
}
