//! As much of JSON Schema (2020-12) as the document uses. A keyword that it does not know is a fault of
//! the test, so that nothing is taken for checked that is not.

use serde_json::Value;

/// Checks values against the schemas of one document.
pub(super) struct Validator<'d> {
    document: &'d Value,
}

impl<'d> Validator<'d> {
    pub(super) fn new(document: &'d Value) -> Self {
        Self { document }
    }

    /// What a reference refers to, or the value itself.
    pub(super) fn resolved<'v>(&self, value: &'v Value) -> &'v Value
    where
        'd: 'v,
    {
        match value.get("$ref").and_then(Value::as_str) {
            Some(to) => self.document.pointer(to.trim_start_matches('#')).unwrap(),
            None => value,
        }
    }

    /// References that lead nowhere.
    pub(super) fn loose_ends(&self) -> Vec<String> {
        let mut found = Vec::new();
        self.look_for_loose_ends(self.document, &mut found);
        found
    }

    fn look_for_loose_ends(&self, value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(map) => {
                if let Some(to) = map.get("$ref").and_then(Value::as_str)
                    && self.document.pointer(to.trim_start_matches('#')).is_none()
                {
                    found.push(to.to_owned());
                }
                map.values().for_each(|value| self.look_for_loose_ends(value, found));
            }
            Value::Array(list) => {
                list.iter().for_each(|value| self.look_for_loose_ends(value, found));
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }

    /// What of `value` is not as `schema` says.
    pub(super) fn faults(&self, schema: &Value, value: &Value) -> Vec<String> {
        let mut faults = Vec::new();
        self.check(schema, value, "", &mut faults);
        faults
    }

    fn holds(&self, schema: &Value, value: &Value) -> bool {
        self.faults(schema, value).is_empty()
    }

    fn check(&self, schema: &Value, value: &Value, at: &str, faults: &mut Vec<String>) {
        let schema = self.resolved(schema);
        if let Value::Bool(allowed) = schema {
            if !allowed {
                faults.push(format!("{at} is not known"));
            }
            return;
        }
        let mut fault = |what: String| faults.push(format!("{at}: {what}"));
        for (keyword, rule) in schema.as_object().unwrap() {
            match keyword.as_str() {
                "description" | "title" | "deprecated" | "then" | "additionalProperties" => {}
                "type" => {
                    let of = |name: &Value| is_of(value, name.as_str().unwrap());
                    let allowed =
                        rule.as_array().map_or_else(|| of(rule), |names| names.iter().any(of));
                    if !allowed {
                        fault(format!("is not of the type {rule}: {value}"));
                    }
                }
                "const" if value != rule => fault(format!("is {value}, not {rule}")),
                "const" => {}
                "minLength" => {
                    let least = rule.as_u64().unwrap();
                    if value.as_str().is_some_and(|text| (text.len() as u64) < least) {
                        fault("is too short".to_owned());
                    }
                }
                "minimum" => {
                    if value.as_f64().is_some_and(|number| number < rule.as_f64().unwrap()) {
                        fault(format!("{value} is below {rule}"));
                    }
                }
                "format" => {
                    let time = rule == "date-time";
                    if time && value.as_str().is_some_and(|text| !is_time(text)) {
                        fault(format!("is not a time: {value}"));
                    }
                    assert!(
                        time || rule == "password" || rule == "binary",
                        "unknown format {rule}"
                    );
                }
                "anyOf" => {
                    let any = rule.as_array().unwrap();
                    if !any.iter().any(|one| self.holds(one, value)) {
                        let why: Vec<_> = any.iter().map(|one| self.faults(one, value)).collect();
                        fault(format!("fits none of its schemas: {why:?}"));
                    }
                }
                "required" => {
                    for name in rule.as_array().unwrap() {
                        if value.is_object() && value.get(name.as_str().unwrap()).is_none() {
                            fault(format!("{name} is missing"));
                        }
                    }
                }
                "items" | "properties" | "if" => {}
                other => panic!("unknown keyword {other}"),
            }
        }
        self.check_below(schema, value, at, faults);
    }

    fn check_below(&self, schema: &Value, value: &Value, at: &str, faults: &mut Vec<String>) {
        if let Some(condition) = schema.get("if")
            && self.holds(condition, value)
        {
            self.check(&schema["then"], value, at, faults);
        }
        if let (Some(items), Value::Array(list)) = (schema.get("items"), value) {
            for (index, item) in list.iter().enumerate() {
                self.check(items, item, &format!("{at}/{index}"), faults);
            }
        }
        let Value::Object(map) = value else { return };
        let known = schema.get("properties");
        for (name, member) in map {
            let at = format!("{at}/{name}");
            match (known.and_then(|known| known.get(name)), schema.get("additionalProperties")) {
                (Some(schema), _) | (None, Some(schema)) => self.check(schema, member, &at, faults),
                (None, None) => {}
            }
        }
    }
}

fn is_of(value: &Value, name: &str) -> bool {
    match name {
        "array" => value.is_array(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "null" => value.is_null(),
        "number" => value.is_number(),
        "object" => value.is_object(),
        "string" => value.is_string(),
        other => panic!("unknown type {other}"),
    }
}

/// Whether it is a time, or stands for one in a recorded answer.
fn is_time(text: &str) -> bool {
    let digits = |range| text.get(range).is_some_and(|part: &str| part.parse::<u16>().is_ok());
    text == "<time>" || (text.ends_with('Z') && digits(0..4) && digits(5..7) && digits(11..13))
}

#[test]
fn it_finds_what_is_wrong() {
    use serde_json::json;
    let document = json!({ "s": {
        "type": "object",
        "properties": {
            "n": { "type": ["integer", "null"], "minimum": 0 },
            "t": { "type": "string", "format": "date-time" },
            "l": { "type": "array", "items": { "type": "string" } },
            "e": { "const": "" },
            "o": { "anyOf": [{ "$ref": "#/s" }, { "type": "null" }] },
        },
        "required": ["n"],
        "additionalProperties": false,
        "if": { "properties": { "n": { "type": "null" } } },
        "then": { "required": ["t"] },
    } });
    let validator = Validator::new(&document);
    let schema = json!({ "$ref": "#/s" });
    for good in [
        json!({ "n": 1 }),
        json!({ "n": null, "t": "<time>" }),
        json!({ "n": 0, "t": "2030-01-02T03:04:05.6Z", "l": ["a"], "e": "", "o": { "n": 1 } }),
    ] {
        assert_eq!(validator.faults(&schema, &good), [""; 0], "{good}");
    }
    for bad in [
        json!([]),
        json!({}),
        json!({ "n": -1 }),
        json!({ "n": 1.5 }),
        json!({ "n": "1" }),
        json!({ "n": null }),
        json!({ "n": 1, "more": 1 }),
        json!({ "n": 1, "t": "yesterday" }),
        json!({ "n": 1, "l": [1] }),
        json!({ "n": 1, "e": "x" }),
        json!({ "n": 1, "o": { "n": 1, "more": 1 } }),
    ] {
        assert!(!validator.holds(&schema, &bad), "{bad}");
    }
    assert_eq!(validator.loose_ends(), [""; 0]);
    assert_eq!(Validator::new(&schema).loose_ends(), ["#/s"]);
}
