use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const USUAL: &str = r#"
# Length and three kinds.
length = 20
rule "charset" {
  charset   = "abcdefghijklmnopqrstuvwxyz"
  min-chars = 1
}
rule "charset" {
  charset   = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
  min-chars = 1
}
rule "charset" { charset = "0123456789", min-chars = 2 }
"#;

fn parse(text: &str) -> Result<PasswordPolicy, String> {
    PasswordPolicy::parse(text).map_err(|error| error.to_string())
}

fn refused(text: &str) -> String {
    parse(text).unwrap_err()
}

/// The same bytes at every run.
fn seeded(mut state: u64) -> Dice<impl FnMut(&mut [u8]) -> Result<(), RandomError>> {
    Dice::new(move |out: &mut [u8]| {
        for byte in out {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            *byte = (state >> 32) as u8;
        }
        Ok(())
    })
}

#[test]
fn the_stock_form_is_read_in_hcl_and_in_both_forms_of_json() {
    let bits = parse(USUAL).unwrap().bits();
    assert!((100..=120).contains(&bits), "{bits}");
    for text in [
        r#"{"length": 8, "rule": [{"charset": {"charset": "abc", "min-chars": 1}},
            {"charset": [{"charset": "012"}]}]}"#,
        r#"{"length": 8, "rule": {"charset": [{"charset": "abc", "min-chars": 1},
            {"charset": "012", "min-chars": 0}]}}"#,
        r#"{"length": 8, "rule": {"charset": {"charset": "cba", "min-chars": 1}},
            "rule": {"charset": {"charset": "210"}}}"#,
    ] {
        let policy = parse(text).unwrap();
        assert_eq!((policy.length(), policy.all.as_slice()), (8, &b"012abc"[..]), "{text}");
        assert_eq!(policy.rules.iter().map(|rule| rule.min_chars).collect::<Vec<_>>(), [1, 0]);
    }
}

#[test]
fn what_is_written_twice_is_not_twice_as_likely() {
    let policy = parse("length = 4\nrule \"charset\" { charset = \"aaaaaaaaab\" }").unwrap();
    assert_eq!(policy.all, b"ab");
    assert_eq!(policy.bits(), 4);
}

#[test]
fn bombs_and_riddles_are_refused_with_their_place() {
    let rule = |inside: &str| format!("length = 8\nrule \"charset\" {{ {inside} }}");
    for (text, needle) in [
        ("length = 1000000000".to_owned(), "line 1: passwords have 4 to 100 characters"),
        ("length = 3\nrule \"charset\" { charset = \"a\" }".to_owned(), "4 to 100 characters"),
        ("length = 101\nrule \"charset\" { charset = \"a\" }".to_owned(), "4 to 100 characters"),
        ("length = 1e400".to_owned(), "whole number"),
        ("length = -4".to_owned(), "whole number"),
        ("length = 4.5".to_owned(), "whole number"),
        ("length = \"20\"".to_owned(), "\"length\" must be a whole number"),
        ("length = 8\nlength = 9".to_owned(), "line 2: the key \"length\" is given twice"),
        ("length = 8".to_owned(), "no rule"),
        ("length = 8\nrule = []".to_owned(), "no rule"),
        ("rule \"charset\" { charset = \"a\" }".to_owned(), "no length"),
        (rule("min-chars = 1"), "line 2: a rule has no charset"),
        (rule("charset = \"\""), "a rule has no charset"),
        (rule("charset = [\"a\"]"), "\"charset\" must be a string"),
        (rule("charset = \"a\\n\""), "printable ASCII"),
        (rule("charset = \"\u{e9}\""), "printable ASCII"),
        (rule("charset = \"a\", charset = \"b\""), "\"charset\" is given twice"),
        (rule("charset = \"a\", min-chars = 9"), "ask for 9 characters, and there are 8"),
        (rule("charset = \"a\", min-chars = 18446744073709551615"), "4 to 100 characters"),
        (rule("charset = \"a\", max-chars = 9"), "unknown key \"max-chars\""),
        (rule("charset = \"a\"").replace("\"charset\" {", "\"words\" {"), "no rule \"words\""),
        (format!("{}\nseed = 1", rule("charset = \"a\"")), "line 3: unknown key \"seed\""),
        (rule(&format!("charset = \"{}\"", "a".repeat(1 << 20))), "longer than 16 KiB"),
        (
            format!("length = 8\n{}", "rule \"charset\" { charset = \"a\" }\n".repeat(33)),
            "32 rules",
        ),
        ("[".repeat(10_000), "expected a key"),
        (format!("length = {}", "[".repeat(9_000)), "16 deep"),
        (format!("{{\"length\": {}", "[".repeat(9_000)), "JSON"),
        ("{\"length\": 8, \"rule\": {\"charset\": {}}}".to_owned(), "a rule has no charset"),
        (String::new(), "no length"),
    ] {
        let error = refused(&text);
        assert!(error.contains(needle), "{needle}: {error}");
        assert!(error.len() < 300, "{error}");
    }
    let overlapping = format!("{USUAL}\nrule \"charset\" {{ charset = \"a\", min-chars = 17 }}");
    assert!(refused(&overlapping).contains("ask for 21 characters, and there are 20"));
}

#[test]
fn every_byte_of_the_generator_counts_alike() {
    // All bytes once, for every size of set: each number comes up equally often, exactly.
    for end in 1..=100usize {
        let mut next = 0usize;
        let mut dice = Dice::new(|out: &mut [u8]| {
            for byte in out {
                *byte = u8::try_from(next % 256).unwrap();
                next += 1;
            }
            Ok(())
        });
        let mut counts = vec![0; end];
        for _ in 0..(256 - 256 % end) {
            counts[dice.below(end).unwrap()] += 1;
        }
        assert!(counts.iter().all(|count| *count == 256 / end), "{end}: {counts:?}");
    }
}

#[test]
fn no_character_and_no_place_is_favoured() {
    let text = "length = 10\nrule \"charset\" { charset = \"abcdefghij\" }\n\
        rule \"charset\" { charset = \"0\", min-chars = 1 }";
    let policy = parse(text).unwrap();
    let mut dice = seeded(0x9e37_79b9_7f4a_7c15);
    let (mut letters, mut places) = (BTreeMap::<u8, u32>::new(), [0u32; 10]);
    for _ in 0..20_000 {
        let password = policy.draw(&mut dice).unwrap();
        for (place, byte) in password.expose().bytes().enumerate() {
            if byte == b'0' {
                places[place] += 1;
            } else {
                *letters.entry(byte).or_default() += 1;
            }
        }
    }
    // The seed is fixed, so this holds always or never; five standard deviations leave no doubt.
    let chi_square = |counts: &[u32]| {
        let mean = f64::from(counts.iter().sum::<u32>()) / counts.len() as f64;
        counts.iter().map(|count| (f64::from(*count) - mean).powi(2) / mean).sum::<f64>()
    };
    assert_eq!(letters.len(), 10);
    let letters: Vec<u32> = letters.into_values().collect();
    assert!(chi_square(&letters) < 33.0, "{letters:?}");
    assert!(chi_square(&places) < 33.0, "{places:?}");
    // The same measure finds a shuffle that leaves the required character in front.
    let mut biased = places;
    biased[0] += 2_000;
    assert!(chi_square(&biased) > 33.0);
}

#[test]
fn a_generator_that_fails_gives_no_password() {
    let mut dice = Dice::new(|_: &mut [u8]| Err(RandomError));
    assert!(parse(USUAL).unwrap().draw(&mut dice).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn every_password_satisfies_its_policy(
        length in PASSWORD_CHARS_MIN..=PASSWORD_CHARS_MAX,
        rules in prop::collection::vec(("[ -~]{1,120}", 0usize..40), 1..6),
    ) {
        let rules: Vec<_> = rules.iter().map(|(charset, min)| {
            serde_json::json!({ "charset": { "charset": charset, "min-chars": min } })
        }).collect();
        let needed: usize =
            rules.iter().map(|rule| rule["charset"]["min-chars"].as_u64().unwrap() as usize).sum();
        let text = serde_json::json!({ "length": length, "rule": rules }).to_string();
        match parse(&text) {
            Ok(policy) => {
                prop_assert!(needed <= length);
                for _ in 0..8 {
                    let password = policy.generate().unwrap();
                    prop_assert!(policy.satisfied_by(&password), "{}", text);
                    // Told apart from one that is not: a character from elsewhere, or one missing.
                    let mut other = password.expose().to_owned();
                    other.pop();
                    prop_assert!(!policy.satisfied_by(&SecretString::new(other.clone())));
                    other.push('\u{7f}');
                    prop_assert!(!policy.satisfied_by(&SecretString::new(other)));
                }
            }
            Err(error) => prop_assert!(needed > length, "{}: {}", text, error),
        }
    }

    #[test]
    fn no_text_breaks_the_parser(text in ".{0,300}") {
        let _ = parse(&text);
    }
}
