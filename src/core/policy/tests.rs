use proptest::prelude::*;

use super::capability::CapabilitySet;
use super::pattern::{Pattern, PatternError};
use super::template::{AliasValues, GroupValues, Template, TemplateError, TemplateValues};
use super::*;

fn parse(text: &str) -> Result<Policy, PolicyError> {
    Policy::parse(&PolicyName::parse("reports").unwrap(), text)
}

fn granted(text: &str) -> Vec<(String, Vec<&'static str>)> {
    let rules = parse(text).unwrap().into_rules();
    let path = |rule: &Rule| match &rule.target {
        Target::Fixed(pattern) => pattern.to_string(),
        Target::Templated(template) => template.as_str().to_owned(),
    };
    rules.iter().map(|rule| (path(rule), rule.capabilities.names())).collect()
}

fn refusal(text: &str) -> String {
    parse(text).unwrap_err().to_string()
}

#[test]
fn hcl_and_json_read_the_same() {
    let hcl = r#"
        name = "ignored" # where it is written to counts
        // everything below
        path "secret/*" { capabilities = ["create", "read"] }
        /* and not
           this */
        path "/secret/super-secret" {
          capabilities = ["deny",]
          comment      = "see the \"runbook\""
        }
        path "secret/restricted" {
          capabilities = ["create"]
          allowed_parameters = {
            "foo" = []
            "bar" = ["zip", "zap", 3, true], "*" = []
          }
          min_wrapping_ttl = "1s"
          max_wrapping_ttl = 90
        }
        path = { "old" = { policy = "sudo" } }
    "#;
    let json = r#"{"path": [
        {"secret/*": {"capabilities": ["create", "read"]}},
        {"/secret/super-secret": [{"capabilities": ["deny"]}],
         "secret/restricted": {"capabilities": ["create"],
            "allowed_parameters": [{"foo": [], "bar": ["zip"]}], "pagination_limit": 3}},
        {"old": {"policy": "sudo"}}], "name": ""}"#;
    let expected = [
        ("secret/*", vec!["create", "read"]),
        ("secret/super-secret", vec!["deny"]),
        ("secret/restricted", vec!["create"]),
        ("old", vec!["create", "delete", "list", "read", "sudo", "update"]),
    ]
    .map(|(path, names)| (path.to_owned(), names));
    assert_eq!(granted(hcl), expected);
    assert_eq!(granted(json), expected);
    let compact = r#"{"path": {"secret/*": {"capabilities": ["create", "read"]}}}"#;
    assert_eq!(granted(compact), expected[..1]);
}

#[test]
fn every_capability_and_legacy_word_is_read() {
    let all = r#"path "a" { capabilities =
        ["create","read","update","patch","delete","list","scan","sudo"] }"#;
    let sorted = ["create", "delete", "list", "patch", "read", "scan", "sudo", "update"];
    assert_eq!(granted(all), [("a".to_owned(), sorted.to_vec())]);
    for (word, names) in [
        ("deny", vec!["deny"]),
        ("read", vec!["list", "read"]),
        ("write", vec!["create", "delete", "list", "read", "update"]),
    ] {
        let text = format!(r#"path "a" {{ policy = "{word}" }}"#);
        assert_eq!(granted(&text), [("a".to_owned(), names)]);
    }
    assert_eq!(granted(r#"path "a" { policy = "write" capabilities = ["deny"] }"#)[0].1, ["deny"]);
    assert!(granted("").is_empty());
    assert!(granted("\u{feff}# nothing\n").is_empty());
    assert!(granted("{}").is_empty());
}

#[test]
fn errors_name_the_policy_the_line_and_the_path() {
    for (text, expected) in [
        (
            "path \"a\" {\n  capabilities = [\"reed\"]\n}",
            "policy \"reports\", line 2, path \"a\": unknown capability \"reed\": use create, read, \
             update, patch, delete, list, scan, sudo or deny",
        ),
        (
            "\n\npath \"a/*/b\" {}",
            "policy \"reports\", line 3, path \"a/*/b\": '*' matches only at the end of a path; \
             use '+' for one segment",
        ),
        (
            "path \"a\" {\n}\nrule \"b\" {}",
            "policy \"reports\", line 3: unknown or unsupported key \"rule\"",
        ),
        (
            "path \"a\" {\n expiration = \"2030-01-01T00:00:00Z\" }",
            "policy \"reports\", line 2, path \"a\": unknown or unsupported key \"expiration\"",
        ),
        (
            "path \"a\" { capabilities = [\"read\"]\ncapabilities = [\"deny\"] }",
            "policy \"reports\", line 2, path \"a\": the key \"capabilities\" is given twice",
        ),
        (
            "path \"a\" { capabilities = [\"read\" \"list\"] }",
            "policy \"reports\", line 1: expected \",\" or \"]\", found '\"'",
        ),
        ("path \"a\" {", "policy \"reports\", line 1: expected \"}\", found the end of the text"),
        ("path \"a\n\" {}", "policy \"reports\", line 1: a string is not closed on its line"),
        ("/* path", "policy \"reports\", line 1: a comment is not closed"),
        ("path \"${x}\" {}", "policy \"reports\", line 1: interpolation (\"${\") is not supported"),
        (
            r#"{"path": {"a": {"capabilities": "read"}}}"#,
            "policy \"reports\", path \"a\": \"capabilities\" must be a list of strings",
        ),
        (
            r#"{"path": {"a": {"capabilities": ["read"], "capabilities": ["deny"]}}}"#,
            "policy \"reports\", path \"a\": the key \"capabilities\" is given twice",
        ),
        (
            r#"{"path": {"a": {"allowed_parameters": {"*": ["x"]}}}}"#,
            "policy \"reports\", path \"a\": \"allowed_parameters\": the parameter \"*\" takes no \
             values but []",
        ),
        (
            r#"{"path": {"a": {"allowed_parameters": {"TTL": [], "ttl": ["1h"]}}}}"#,
            "policy \"reports\", path \"a\": the key \"ttl\" is given twice",
        ),
        (
            r#"{"path": {"a": {"min_wrapping_ttl": "2h", "max_wrapping_ttl": "1h"}}}"#,
            "policy \"reports\", path \"a\": min_wrapping_ttl is greater than max_wrapping_ttl",
        ),
        (
            r#"{"path": {"a": {"min_wrapping_ttl": "-1s"}}}"#,
            "policy \"reports\", path \"a\": \"min_wrapping_ttl\": ",
        ),
        (r#"{"path": 1}"#, "policy \"reports\": \"path\" must be a block with a path"),
        (r#"{"path": {"a": "read"}}"#, "policy \"reports\", path \"a\": \"a\" must be a block"),
        ("{\"path\": {}", "policy \"reports\": not valid JSON: EOF"),
    ] {
        let shown = refusal(text);
        assert!(shown.starts_with(expected), "{text}\n  {shown}\n  {expected}");
    }
    let long = format!("{} = 1", "k".repeat(200_000));
    assert!(refusal(&long).len() < 400);
}

#[test]
fn what_would_have_to_be_ignored_is_refused() {
    for key in [
        "expiration",
        "mfa_methods",
        "control_group",
        "list_scan_response_keys_filter_path",
        "response_keys_filter_path",
        "capabilites",
        "Capabilities",
        "sudo",
    ] {
        let text = format!(r#"path "a" {{ {key} = [] }}"#);
        assert!(refusal(&text).contains("unknown or unsupported key"), "{key}");
    }
    for value in ["<<EOF\nread\nEOF", "read", "var.x", "[var.x]", "1.2.3", "0x10", "\"\\q\""] {
        let text = format!(r#"path "a" {{ capabilities = {value} }}"#);
        assert!(parse(&text).is_err(), "{value}");
    }
    assert!(refusal(r#"path "a" "b" {}"#).contains("one label"));
    assert!(refusal(r#"path "a" = {}"#).contains("expected \"{\""));
}

#[test]
fn bounds_are_kept() {
    let many = |count: usize| {
        let paths: Vec<String> = (0..count).map(|i| format!("\"a{i}\":{{}}")).collect();
        format!("{{\"path\":{{{}}}}}", paths.join(","))
    };
    assert_eq!(parse(&many(POLICY_PATHS_MAX)).unwrap().rules().len(), POLICY_PATHS_MAX);
    assert!(refusal(&many(POLICY_PATHS_MAX + 1)).contains("more than 10000 paths"));
    assert!(refusal(&"#".repeat(POLICY_BYTES_MAX + 1)).contains("longer than 256 KiB"));
    assert!(parse(&"#".repeat(POLICY_BYTES_MAX)).is_ok());
}

#[test]
fn deep_nesting_is_refused_before_it_can_hurt() {
    let deep = POLICY_BYTES_MAX / 8;
    for (open, lead) in [("[", "a = "), ("{a=", "a "), ("a \"b\" {", ""), ("a={", "")] {
        let text = format!("{lead}{}", open.repeat(deep / open.len()));
        assert!(refusal(&text).contains("nested more than 16 deep"), "{open}");
    }
    for open in ["[", "{\"a\":"] {
        let text = format!("{{\"path\":{}", open.repeat(deep / open.len()));
        assert!(refusal(&text).contains("recursion limit"), "{open}");
    }
}

#[test]
fn the_root_policy_cannot_be_written() {
    for name in ["root", "Root", "ROOT"] {
        let name = PolicyName::parse(name).unwrap();
        assert!(name.is_root());
        let error = Policy::parse(&name, "").unwrap_err();
        assert!(matches!(error.problem(), PolicyProblem::Root));
    }
}

#[test]
fn policy_names_are_folded_once_and_never_trimmed() {
    assert_eq!(PolicyName::parse("Team/App-1").unwrap().as_str(), "team/app-1");
    for (text, error) in [
        ("", PolicyNameError::Empty),
        (" root", PolicyNameError::Character),
        ("root\n", PolicyNameError::Character),
        ("ŕoot", PolicyNameError::Character),
        ("\u{212a}", PolicyNameError::Character), // KELVIN SIGN, which folds to k
        ("a//b", PolicyNameError::Segment),
        ("../a", PolicyNameError::Segment),
        ("a/", PolicyNameError::Segment),
    ] {
        assert_eq!(PolicyName::parse(text), Err(error), "{text:?}");
    }
    assert_eq!(PolicyName::parse(&"a".repeat(257)), Err(PolicyNameError::TooLong));
    assert!(serde_json::from_str::<PolicyName>("\" a\"").is_err());
}

#[test]
fn the_default_policy_is_sound_and_grants_no_sudo() {
    let name = PolicyName::default_policy();
    let policy = Policy::parse(&name, DEFAULT_POLICY).unwrap();
    assert!(policy.rules().len() > 5);
    for rule in policy.rules() {
        assert!(!rule.capabilities.contains(CapabilitySet::SUDO));
        assert!(!rule.capabilities.is_empty());
    }
}

#[test]
fn patterns_that_no_request_can_match_are_refused() {
    for (text, error) in [
        ("", PatternError::Empty),
        ("/", PatternError::Empty),
        ("//", PatternError::EmptySegment),
        ("a//b", PatternError::EmptySegment),
        ("a//*", PatternError::EmptySegment),
        ("a/./b", PatternError::DotSegment),
        ("a/..", PatternError::DotSegment),
        ("../*", PatternError::DotSegment),
        ("a\nb", PatternError::Control),
        ("a\0*", PatternError::Control),
        ("a*b", PatternError::StarInside),
        ("a/*/b", PatternError::StarInside),
        ("a/**", PatternError::StarInside),
        ("+*", PatternError::PlusStar),
        ("a/+*", PatternError::PlusStar),
        ("a/{{x", PatternError::Braces),
    ] {
        assert_eq!(Pattern::parse(text), Err(error), "{text}");
    }
    assert_eq!(Pattern::parse(&"a".repeat(1025)), Err(PatternError::TooLong));
    assert_eq!(Pattern::parse(&"a/".repeat(65)), Err(PatternError::TooManySegments));
    for text in ["*", "+", "+/+", "a/.b*", "a/.*", "user+tag@example.org", "a/", "a/+/", "é/*"] {
        assert!(Pattern::parse(text).is_ok(), "{text}");
    }
}

#[test]
fn patterns_match_as_documented() {
    for (pattern, yes, no) in [
        ("secret/foo", &["secret/foo"][..], &["secret/food", "secret/foo/", "secret/foo/bar"][..]),
        ("secret/bar/*", &["secret/bar/zip", "secret/bar/a/b", "secret/bar/"], &["secret/bars/x"]),
        ("secret/zip-*", &["secret/zip-zap", "secret/zip-zap/zong"], &["secret/zip/zap"]),
        ("secret/+/teamb", &["secret/a/teamb"], &["secret/teamb", "secret/a/b/teamb"]),
        ("secret/+/+/teamb", &["secret/a/b/teamb"], &["secret/a/teamb"]),
        ("+/x*", &["a/x", "a/xy", "a/xy/z"], &["a", "a/b/x"]),
        ("a/+", &["a/b", "a/", "a/*", "a/+"], &["a", "a/b/", "a/b/c"]),
        ("a/+/*", &["a/b/", "a/b/c", "a/b/c/d"], &["a/b", "a/"]),
        ("u+v/x", &["u+v/x"], &["uxv/x", "u/x"]),
        ("*", &["anything/at/all"], &[]),
    ] {
        let parsed = Pattern::parse(pattern).unwrap();
        for path in yes {
            assert!(parsed.matches(path), "{pattern} {path}");
        }
        for path in no {
            assert!(!parsed.matches(path), "{pattern} {path}");
        }
    }
}

fn alice() -> TemplateValues {
    TemplateValues {
        entity_id: Some("e-1".into()),
        entity_name: Some("alice".into()),
        entity_metadata: [("team.name".to_owned(), "blue".to_owned())].into(),
        aliases: [(
            "auth_cert_1".to_owned(),
            AliasValues {
                id: "al-1".into(),
                name: "svc".into(),
                metadata: [("ns".to_owned(), "prod".to_owned())].into(),
                custom_metadata: [("tier".to_owned(), "gold".to_owned())].into(),
            },
        )]
        .into(),
        groups: vec![GroupValues {
            id: "g-1".into(),
            name: "ops.eu".into(),
            metadata: [("cost".to_owned(), "42".to_owned())].into(),
        }],
    }
}

#[test]
fn every_template_resolves() {
    for (template, expected) in [
        ("a/{{identity.entity.id}}/*", "a/e-1/*"),
        ("a/{{ identity.entity.name }}", "a/alice"),
        ("{{identity.entity.metadata.team.name}}/x", "blue/x"),
        ("a/{{identity.entity.aliases.auth_cert_1.id}}", "a/al-1"),
        ("a/{{identity.entity.aliases.auth_cert_1.name}}", "a/svc"),
        ("a/{{identity.entity.aliases.auth_cert_1.metadata.ns}}", "a/prod"),
        ("a/{{identity.entity.aliases.auth_cert_1.custom_metadata.tier}}", "a/gold"),
        ("a/{{identity.groups.ids.g-1.name}}/+", "a/ops.eu/+"),
        ("a/{{identity.groups.names.ops.eu.id}}", "a/g-1"),
        ("a/{{identity.groups.ids.g-1.metadata.cost}}", "a/42"),
        ("a/{{identity.groups.names.ops.eu.metadata.cost}}", "a/42"),
        ("/a/{{identity.entity.id}}-{{identity.entity.name}}", "a/e-1-alice"),
    ] {
        let parsed = Template::parse(template).unwrap();
        assert_eq!(parsed.resolve(&alice()).unwrap().as_str(), expected, "{template}");
        assert!(parsed.resolve(&TemplateValues::default()).is_none(), "{template}");
    }
    for template in [
        "a/{{identity.entity.metadata.none}}",
        "a/{{identity.entity.aliases.other.name}}",
        "a/{{identity.groups.ids.other.name}}",
    ] {
        assert!(Template::parse(template).unwrap().resolve(&alice()).is_none(), "{template}");
    }
}

#[test]
fn unsound_templates_are_refused() {
    for text in ["a/{{identity.entity.id", "a/identity.entity.id}}", "a/{{x}}}}"] {
        assert!(Template::parse(text).is_err(), "{text}");
    }
    for name in [
        "",
        "identity.entity",
        "identity.entity.",
        "identity.entity.metadata.",
        "identity.entity.aliases.x",
        "identity.entity.aliases..name",
        "identity.entity.aliases.x.metadata.",
        "identity.groups.ids.x",
        "identity.groups.ids..name",
        "identity.groups.ids.x.metadata.y.name",
        "entity.id",
        "Identity.Entity.Id",
    ] {
        let text = format!("a/{{{{{name}}}}}");
        let error = Template::parse(&text).unwrap_err();
        assert!(
            matches!(error, TemplateError::Unknown { .. } | TemplateError::Unbalanced),
            "{name}: {error}"
        );
    }
    for text in
        ["a//{{identity.entity.id}}", "*/{{identity.entity.id}}", "../{{identity.entity.id}}"]
    {
        assert!(matches!(Template::parse(text), Err(TemplateError::Pattern(_))), "{text}");
    }
}

#[test]
fn values_cannot_change_the_shape_of_a_path() {
    let template = Template::parse("a/{{identity.entity.name}}/*").unwrap();
    let huge = "x".repeat(2000);
    for hostile in [
        "",
        "*",
        "+",
        "a*",
        "a+b",
        "a/b",
        "/",
        ".",
        "..",
        "x..y",
        "a\0",
        "a\nb",
        "{{x",
        "x}}",
        "{{identity.entity.id}}",
        &huge,
    ] {
        let values = TemplateValues { entity_name: Some(hostile.to_owned()), ..alice() };
        assert!(template.resolve(&values).is_none(), "{hostile:?}");
    }
}

#[test]
fn an_envelope_matches_whatever_the_template_could() {
    for (template, yes, no) in [
        ("a/{{identity.entity.id}}/b", &["a/x/b"][..], &["a/x/c", "a/b", "a/x/b/c"][..]),
        ("a/u-{{identity.entity.id}}.x", &["a/u-1.x"], &["a/v-1.x", "a/u-1.y"]),
        ("a/{{identity.entity.id}}/*", &["a/x/", "a/x/y/z"], &["a/x", "b/x/y"]),
        ("a/u-{{identity.entity.id}}*", &["a/u-1", "a/u-1/z"], &["a/v-1"]),
        ("+/{{identity.entity.id}}/c*", &["q/w/cd"], &["q/w/d"]),
    ] {
        let envelope = Template::parse(template).unwrap().envelope();
        for path in yes {
            assert!(envelope.matches(path), "{template} {path}");
        }
        for path in no {
            assert!(!envelope.matches(path), "{template} {path}");
        }
    }
}

#[test]
fn containment_is_exact_at_the_edges() {
    for (outer, inner, expected) in [
        ("a", "a", true),
        ("a", "a*", false),
        ("a*", "a", true),
        ("a*", "ab*", true),
        ("ab*", "a*", false),
        ("a/*", "a/+/c", true),
        ("a/b*", "a/+/c", false),
        ("+/a", "+/a*", false),
        ("+/a*", "+/a", true),
        ("+/a*", "+/ab/c", true),
        ("+/a*", "+/+", false),
        ("+/*", "+/+", true),
        ("+/*", "a*", false),
        ("+/*", "a/*", true),
        ("+/b*", "a/*", false),
        ("+/b*", "a/bc*", true),
        ("+/b", "a/b*", false),
        ("+/+", "a/+", true),
        ("a/+", "+/+", false),
        ("+/+", "+/+/+", false),
        ("+/+/*", "+/+", false),
    ] {
        let [outer, inner] = [outer, inner].map(|text| Pattern::parse(text).unwrap());
        assert_eq!(outer.contains(&inner), expected, "{outer} {inner}");
    }
}

fn any_pattern() -> impl Strategy<Value = Pattern> {
    "([ab+]{1,2}/){0,3}[ab+]{0,2}\\*?".prop_filter_map("refused", |text| Pattern::parse(&text).ok())
}

proptest! {
    #[test]
    fn no_text_makes_the_parser_panic(text in "\\PC{0,80}") {
        let _ = parse(&text);
        let _ = parse(&format!("{{{text}"));
    }

    #[test]
    fn no_likely_text_makes_the_parser_panic(
        parts in proptest::collection::vec(
            proptest::sample::select(vec![
                "path", "\"a/*\"", "\"{{identity.entity.id}}\"", "{", "}", "[", "]", "=", ",", ":",
                "capabilities", "\"read\"", "\"deny\"", "allowed_parameters", "\"*\"", "policy",
                "#", "//", "/*", "*/", "\n", "\"", "\\", "\\u12", "1", "-", "true", "null", "<<E",
                "${", "é", "\0", "min_wrapping_ttl", "\"path\":", "\"a\":",
            ]),
            0..40,
        ),
        json in any::<bool>(),
    ) {
        let text = parts.join(" ");
        let _ = parse(&if json { format!("{{{text}}}") } else { text });
    }

    #[test]
    fn written_rules_are_read_back(
        paths in proptest::collection::vec("[a-z]{1,4}(/[a-z]{1,4}){0,3}(/\\*)?", 0..8),
    ) {
        let rule = |path: &String| format!("path \"{path}\" {{\n  capabilities = [\"read\"]\n}}\n");
        let hcl: String = paths.iter().map(rule).collect();
        let expected: Vec<_> = paths.iter().map(|p| (p.clone(), vec!["read"])).collect();
        prop_assert_eq!(granted(&hcl), expected);
    }

    #[test]
    fn a_pattern_that_contains_another_matches_all_it_matches(
        outer in any_pattern(),
        inner in any_pattern(),
        path in "([ab]{1,2}/){0,4}[ab]{0,2}",
    ) {
        if outer.contains(&inner) && inner.matches(&path) {
            prop_assert!(outer.matches(&path), "{} {} {}", outer, inner, path);
        }
        prop_assert!(inner.contains(&inner));
    }

    #[test]
    fn resolved_rules_lie_within_their_envelope(
        template in "(a|\\+|u-I)/(I|xIy|b)/?\\*?",
        name in "[a-z.]{1,4}",
        path in "(a|u-[a-z]{1,2})/x?[a-z]{1,4}y?(/[a-z])?/?",
    ) {
        let template = Template::parse(&template.replace('I', "{{identity.entity.name}}"));
        let values = TemplateValues { entity_name: Some(name), ..TemplateValues::default() };
        if let Ok(template) = template
            && let Some(pattern) = template.resolve(&values)
            && pattern.matches(&path)
        {
            prop_assert!(template.envelope().matches(&path), "{} {}", pattern, path);
        }
    }
}
