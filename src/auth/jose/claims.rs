//! What a token says, once it is known who said it.

use serde_json::{Map, Value};

use super::Refusal;
use crate::types::time::{Timestamp, Ttl};

/// Latest time that a token may name, in seconds: the end of the year 9999.
const TIME_MAX: f64 = 253_402_300_799.0;
/// Longest leeway.
pub(in crate::auth) const LEEWAY_MAX: Ttl = Ttl::from_secs(600);

/// The claims of a token whose signature was checked.
#[derive(Debug)]
pub(in crate::auth) struct Claims(Value);

/// How much clocks may differ.
#[derive(Clone, Copy, Debug)]
pub(in crate::auth) struct Leeways {
    pub(in crate::auth) expiration: Ttl,
    pub(in crate::auth) not_before: Ttl,
    pub(in crate::auth) issued_at: Ttl,
}

impl Claims {
    pub(in crate::auth) fn new(claims: Map<String, Value>) -> Self {
        Self(Value::Object(claims))
    }

    /// A claim by its name, or by a JSON pointer (RFC 6901), which begins with a slash.
    pub(in crate::auth) fn get(&self, name: &str) -> Option<&Value> {
        let found = if name.starts_with('/') { self.0.pointer(name) } else { self.0.get(name) };
        found.filter(|value| !value.is_null())
    }

    /// A claim by its name, whatever that begins with.
    pub(in crate::auth) fn named(&self, name: &str) -> Option<&Value> {
        self.0.get(name).filter(|value| !value.is_null())
    }

    /// A claim that has to be text, if it is there.
    pub(in crate::auth) fn text(&self, name: &str) -> Result<Option<&str>, Refusal> {
        match self.named(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(Refusal::new(format!("the claim {name} is not text"))),
        }
    }

    /// Whom the token is for (RFC 7519 §4.1.3); nobody when it does not say.
    pub(in crate::auth) fn audiences(&self) -> Result<Vec<&str>, Refusal> {
        match self.named("aud") {
            None => Ok(Vec::new()),
            Some(Value::String(one)) => Ok(vec![one]),
            Some(Value::Array(several)) => {
                let texts: Option<Vec<&str>> = several.iter().map(Value::as_str).collect();
                texts.ok_or_else(|| Refusal::new("the claim aud holds something else than text"))
            }
            Some(_) => Err(Refusal::new("the claim aud is not text")),
        }
    }

    /// A NumericDate (RFC 7519 §2), down to the second. Text that looks like one is none.
    pub(in crate::auth) fn time(&self, name: &str) -> Result<Option<Timestamp>, Refusal> {
        let Some(value) = self.named(name) else { return Ok(None) };
        let number = if value.is_number() { value.as_f64() } else { None };
        let secs = number
            .filter(|secs| (0.0..=TIME_MAX).contains(secs))
            .ok_or_else(|| Refusal::new(format!("the claim {name} is not a time")))?;
        #[expect(clippy::cast_possible_truncation, reason = "bounded above")]
        Ok(Some(Timestamp::from_secs(secs.floor() as i64)))
    }

    /// Whether the token is good at this time. It has to say until when.
    pub(in crate::auth) fn check_times(
        &self,
        now: Timestamp,
        leeways: Leeways,
    ) -> Result<(), Refusal> {
        let expires = self.time("exp")?.ok_or_else(|| Refusal::new("the claim exp is missing"))?;
        if now >= expires.plus(leeways.expiration) {
            return Err(Refusal::new("the token has expired"));
        }
        for (name, leeway) in [("nbf", leeways.not_before), ("iat", leeways.issued_at)] {
            if let Some(from) = self.time(name)?
                && from > now.plus(leeway)
            {
                return Err(Refusal::new(format!("the claim {name} is in the future")));
            }
        }
        Ok(())
    }

    /// Whether the token is for one of `expected`. One that is for nobody is for nobody here.
    pub(in crate::auth) fn check_audience(&self, expected: &[String]) -> Result<(), Refusal> {
        let audiences = self.audiences()?;
        let is_expected = |one: &&str| expected.iter().any(|known| known == one);
        if audiences.iter().any(is_expected) {
            return Ok(());
        }
        Err(Refusal::new(match (audiences.is_empty(), expected.is_empty()) {
            (true, _) => "the token is for nobody, and the role binds audiences",
            (false, true) => "the token is for somebody, and the role binds no audience",
            (false, false) => "the token is for others than the role's audiences",
        }))
    }

    /// Adds what `others` say that these do not.
    pub(in crate::auth) fn complete(&mut self, others: Map<String, Value>) {
        if let Value::Object(claims) = &mut self.0 {
            for (name, value) in others {
                claims.entry(name).or_insert(value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(1_000_000);

    fn claims(value: Value) -> Claims {
        Claims::new(value.as_object().unwrap().clone())
    }

    fn good(value: Value) -> bool {
        let secs = Ttl::from_secs;
        let leeways = Leeways { expiration: secs(10), not_before: secs(20), issued_at: secs(30) };
        claims(value).check_times(NOW, leeways).is_ok()
    }

    #[test]
    fn times_count_to_the_second_with_a_leeway_for_each() {
        for (value, expected) in [
            (json!({ "exp": 1_000_001 }), true),
            (json!({ "exp": 999_991 }), true),
            (json!({ "exp": 999_990 }), false),
            (json!({ "exp": 999_990.9 }), false),
            (json!({ "exp": 1_000_001.5 }), true),
            (json!({ "exp": 1_000_001, "nbf": 1_000_020 }), true),
            (json!({ "exp": 1_000_001, "nbf": 1_000_021 }), false),
            (json!({ "exp": 1_000_001, "iat": 1_000_030 }), true),
            (json!({ "exp": 1_000_001, "iat": 1_000_031 }), false),
            (json!({ "exp": 253_402_300_799_u64 }), true),
        ] {
            assert_eq!(good(value.clone()), expected, "{value}");
        }
    }

    #[test]
    fn what_is_no_time_is_never_passed_over() {
        for bad in [
            json!("1000001"),
            json!("never"),
            json!(true),
            json!([1_000_001]),
            json!({}),
            json!(-1),
            json!(1e300),
            json!(253_402_300_800_u64),
            json!(u64::MAX),
            json!(null),
        ] {
            assert!(!good(json!({ "exp": bad })), "exp {bad}");
            if !bad.is_null() {
                assert!(!good(json!({ "exp": 1_000_001, "nbf": bad })), "nbf {bad}");
                assert!(!good(json!({ "exp": 1_000_001, "iat": bad })), "iat {bad}");
            }
        }
        let huge: Value = serde_json::from_str(r#"{"exp":1e999}"#).unwrap_or(json!({ "exp": "x" }));
        assert!(!good(huge));
        assert!(!good(json!({})));
    }

    #[test]
    fn an_audience_is_bound_or_there_is_none() {
        let ours = ["ours".to_owned(), "also".to_owned()];
        for (aud, expected) in [
            (json!("ours"), true),
            (json!(["x", "also"]), true),
            (json!("our"), false),
            (json!("ours "), false),
            (json!(["x"]), false),
            (json!([]), false),
            (json!(["ours", 7]), false),
            (json!({ "ours": 1 }), false),
            (json!(null), false),
        ] {
            let claims = claims(json!({ "aud": aud }));
            assert_eq!(claims.check_audience(&ours).is_ok(), expected, "{claims:?}");
            assert!(claims.check_audience(&[]).is_err());
        }
    }

    #[test]
    fn claims_are_found_by_name_and_by_pointer() {
        let claims = claims(json!({ "a": { "b/c": ["x"] }, "/a": 1, "n": null }));
        assert_eq!(claims.get("/a/b~1c/0"), Some(&json!("x")));
        assert_eq!(claims.get("/a"), claims.get("a"));
        assert_eq!(claims.named("/a"), Some(&json!(1)));
        for name in ["n", "/n", "/a/x", "x", ""] {
            assert_eq!(claims.get(name), None, "{name}");
        }
    }
}
