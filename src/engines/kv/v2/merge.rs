//! JSON Merge Patch (RFC 7396) and the shape of a value.

use serde_json::{Map, Value};

/// Applies `patch` to `target` (RFC 7396 §2): `null` removes, objects merge, the rest replaces.
pub(super) fn merge(target: &mut Map<String, Value>, patch: &Map<String, Value>) {
    for (name, change) in patch {
        match change {
            Value::Null => {
                target.remove(name);
            }
            Value::Object(change) => {
                let member = target.entry(name.as_str()).or_insert(Value::Null);
                // What is no object counts as an empty one.
                if !member.is_object() {
                    *member = Value::Object(Map::new());
                }
                if let Value::Object(member) = member {
                    merge(member, change);
                }
            }
            Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
                target.insert(name.clone(), change.clone());
            }
        }
    }
}

/// The names in `value`, `depth` levels deep (0 for all), with `null` in place of every value.
pub(super) fn shape(value: &Map<String, Value>, depth: u64) -> Map<String, Value> {
    let shape_of = |member: &Value| match member {
        Value::Object(inner) if depth != 1 && !inner.is_empty() => {
            Value::Object(shape(inner, depth.saturating_sub(1)))
        }
        Value::Null
        | Value::Bool(_)
        | Value::Number(_)
        | Value::String(_)
        | Value::Array(_)
        | Value::Object(_) => Value::Null,
    };
    value.iter().map(|(name, member)| (name.clone(), shape_of(member))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn object(value: Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    /// RFC 7396, appendix A: the cases whose target and patch are objects.
    #[test]
    fn the_examples_of_the_rfc_hold() {
        for (target, patch, result) in [
            (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "b"}), json!({"b": "c"}), json!({"a": "b", "b": "c"})),
            (json!({"a": "b"}), json!({"a": null}), json!({})),
            (json!({"a": "b", "b": "c"}), json!({"a": null}), json!({"b": "c"})),
            (json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "c"}), json!({"a": ["b"]}), json!({"a": ["b"]})),
            (
                json!({"a": {"b": "c"}}),
                json!({"a": {"b": "d", "c": null}}),
                json!({"a": {"b": "d"}}),
            ),
            (json!({"a": [{"b": "c"}]}), json!({"a": [1]}), json!({"a": [1]})),
            (json!({"e": null}), json!({"a": 1}), json!({"e": null, "a": 1})),
            (json!({}), json!({"a": {"bb": {"ccc": null}}}), json!({"a": {"bb": {}}})),
        ] {
            let mut merged = object(target);
            merge(&mut merged, &object(patch));
            assert_eq!(Value::Object(merged), result);
        }
    }

    #[test]
    fn a_shape_has_names_and_no_values() {
        let value = object(json!({"a": {"b": {"c": 1}, "d": [{"e": 2}]}, "f": {}, "g": "x"}));
        for (depth, expected) in [
            (0, json!({"a": {"b": {"c": null}, "d": null}, "f": null, "g": null})),
            (1, json!({"a": null, "f": null, "g": null})),
            (2, json!({"a": {"b": null, "d": null}, "f": null, "g": null})),
            (9, json!({"a": {"b": {"c": null}, "d": null}, "f": null, "g": null})),
        ] {
            assert_eq!(Value::Object(shape(&value, depth)), expected, "{depth}");
        }
    }
}
