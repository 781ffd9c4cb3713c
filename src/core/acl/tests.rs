mod model;

use serde_json::json;

use super::*;
use crate::core::policy::DEFAULT_POLICY;

pub(super) fn name(text: &str) -> PolicyName {
    PolicyName::parse(text).unwrap()
}

pub(super) fn path(text: &str) -> ApiPath {
    ApiPath::parse(text).unwrap()
}

pub(super) fn acl_for(texts: &[&str], values: &TemplateValues) -> Acl {
    let compile =
        |(i, text): (usize, &&str)| CompiledPolicy::compile(&name(&format!("p{i}")), text).unwrap();
    Acl::new(texts.iter().enumerate().map(compile).collect(), values)
}

pub(super) fn acl(texts: &[&str]) -> Acl {
    acl_for(texts, &TemplateValues::default())
}

fn rule(path: &str, capabilities: &str) -> String {
    let names: Vec<String> = capabilities.split(' ').map(|name| format!("{name:?}")).collect();
    format!("path {path:?} {{ capabilities = [{}] }}\n", names.join(","))
}

fn may(acl: &Acl, operation: Operation, at: &str) -> bool {
    let path = path(at);
    let request = CheckRequest::new(&path, operation);
    let allowed = acl.check(&request).allowed;
    assert_eq!(acl.authorize(&request).is_ok(), allowed);
    assert_eq!(acl.explain(&request).allowed, allowed);
    allowed
}

/// The rule that judges a READ of the path.
fn judge_of(rules: &[&str], at: &str) -> String {
    let text: String = rules.iter().map(|path| rule(path, "read")).collect();
    let acl = acl(&[&text]);
    let path = path(at);
    let decision = acl.check(&CheckRequest::new(&path, Operation::Read));
    let Reason::Granted { rule } = decision.reason else { panic!("{decision:?}") };
    rule.to_owned()
}

#[test]
fn the_documented_order_of_rules_holds() {
    for (stronger, weaker, path) in [
        // Exact before everything.
        ("secret/foo", "secret/foo*", "secret/foo"),
        ("secret/foo", "secret/+", "secret/foo"),
        ("secret/foo", "+/foo", "secret/foo"),
        // 1. The first wildcard comes later.
        ("secret/foo/*", "secret/*", "secret/foo/bar"),
        ("secret/foo*", "secret/*", "secret/foo/bar"),
        ("secret/foo/+", "secret/+/bar", "secret/foo/bar"),
        ("secret/fo*", "secret/+/bar", "secret/foo/bar"),
        ("secret/+/bar", "secret*", "secret/foo/bar"),
        ("secret/+/*", "+/foo/bar", "secret/foo/bar"),
        // 2. Not ending in `*`.
        ("secret/+/bar", "secret/*", "secret/foo/bar"),
        ("secret/+/+", "secret/+/b*", "secret/foo/bar"),
        ("secret/+/+/baz", "secret/+/bar/b*", "secret/foo/bar/baz"),
        // 3. Fewer `+`.
        ("secret/*", "secret/+/+/foo/*", "secret/a/b/foo/x"),
        ("secret/+/bar/baz", "secret/+/+/baz", "secret/foo/bar/baz"),
        ("secret/+/b*", "secret/+/+/*", "secret/foo/bar/baz"),
        // 4. Longer.
        ("secret/+/bar/b*", "secret/+/bar/*", "secret/foo/bar/baz"),
        ("secret/+/bar/*", "secret/+/b*", "secret/foo/bar/baz"),
        // 5. Lexicographically greater. `+` sorts before letters.
        ("+/+/b/+", "+/+/+/b", "x/y/b/b"),
        ("+/b/+", "+/+/b", "x/b/b"),
        ("+/b/+/c", "+/+/c/c", "x/b/c/c"),
    ] {
        for rules in [[stronger, weaker], [weaker, stronger]] {
            assert_eq!(judge_of(&rules, path), stronger, "{rules:?}");
            let texts = rules.map(|path| rule(path, if path == weaker { "read" } else { "list" }));
            let both = acl(&[&texts[0], &texts[1]]);
            assert!(!may(&both, Operation::Read, path), "{rules:?} in two policies");
        }
    }
}

#[test]
fn a_denial_holds_on_its_path_and_loses_to_a_more_specific_grant() {
    let text = rule("secret/*", "create read update delete list sudo")
        + &rule("secret/super", "deny")
        + &rule("secret/+/private/*", "deny")
        + &rule("secret/team/private/mine", "read");
    let acl = acl(&[&text]);
    assert!(may(&acl, Operation::Read, "secret/a"));
    assert!(!may(&acl, Operation::Read, "secret/super"));
    assert!(may(&acl, Operation::Read, "secret/super/x"));
    assert!(may(&acl, Operation::Read, "secret/team/private/mine"));
    // The first wildcard of both is at the same place, both are open; more `+` is weaker.
    assert!(may(&acl, Operation::Read, "secret/x/private/y"));
}

#[test]
fn the_same_path_in_several_policies_is_united_and_deny_wins() {
    let read = rule("secret/*", "read");
    let update = rule("secret/*", "update sudo");
    let deny = rule("secret/*", "deny");
    let both = acl(&[&read, &update]);
    let at = path("secret/x");
    let decision = both.check(&CheckRequest::new(&at, Operation::Read));
    assert!(decision.allowed && decision.sudo);
    assert!(may(&both, Operation::Update, "secret/x"));
    assert!(!may(&both, Operation::Delete, "secret/x"));
    for texts in [[&read, &deny], [&deny, &read]] {
        let denied = acl(&[texts[0], texts[1]]);
        assert!(!may(&denied, Operation::Read, "secret/x"));
        assert_eq!(denied.capabilities(&at), ["deny"]);
        // Twice in one policy is the same.
        let one = acl(&[&format!("{}{}", texts[0], texts[1])]);
        assert!(!may(&one, Operation::Read, "secret/x"));
    }
    let json = r#"{"path": {"a": {"capabilities": ["read"]}, "a": {"capabilities": ["deny"]}}}"#;
    assert!(!may(&acl(&[json]), Operation::Read, "a"));
}

#[test]
fn listing_finds_the_rule_without_the_slash() {
    let exact = acl(&[&rule("secret/metadata/reports", "list read")]);
    assert!(may(&exact, Operation::List, "secret/metadata/reports/"));
    assert!(!may(&exact, Operation::Read, "secret/metadata/reports/"));
    let wild = acl(&[&rule("+/metadata", "list")]);
    assert!(may(&wild, Operation::List, "secret/metadata/"));
    // The path as asked comes first, however weak its pattern.
    let first = acl(&[&(rule("secret/*", "read") + &rule("secret/+", "list"))]);
    assert!(!may(&first, Operation::List, "secret/a/"));
    // An exact rule without the slash comes before a pattern with it.
    let exact_first = acl(&[&(rule("secret/a/*", "list") + &rule("secret/a", "deny"))]);
    assert!(!may(&exact_first, Operation::List, "secret/a/"));
}

#[test]
fn a_request_for_the_text_of_a_pattern_is_only_a_path() {
    let acl = acl(&[&(rule("secret/*", "deny") + &rule("secret/data/*", "read"))]);
    assert!(!may(&acl, Operation::Read, "secret/*"));
    assert!(!may(&acl, Operation::Read, "*"));
    assert!(may(&acl, Operation::Read, "secret/data/*"));
}

#[test]
fn capabilities_are_named_as_stock_does() {
    let text = rule("a/*", "update create sudo") + &rule("b", "list") + "path \"c\" {}\n";
    let acl = acl(&[&text]);
    assert_eq!(acl.capabilities(&path("a/x")), ["create", "sudo", "update"]);
    assert_eq!(acl.capabilities(&path("b/")), ["list"]);
    assert_eq!(acl.capabilities(&path("c")), ["deny"]);
    assert_eq!(acl.capabilities(&path("d")), ["deny"]);
    let root = Acl::new(vec![CompiledPolicy::root()], &TemplateValues::default());
    assert!(root.is_root());
    assert_eq!(root.capabilities(&path("d")), ["root"]);
    let at = path("sys/seal");
    let decision = root.check(&CheckRequest::new(&at, Operation::Update));
    assert!(decision.allowed && decision.sudo);
    let nobody = Acl::new(Vec::new(), &TemplateValues::default());
    assert!(!may(&nobody, Operation::Read, "a"));
}

#[test]
fn the_default_policy_lets_a_token_look_after_itself_only() {
    let default = CompiledPolicy::compile(&PolicyName::default_policy(), DEFAULT_POLICY).unwrap();
    let acl = Acl::new(vec![default], &TemplateValues::default());
    assert!(may(&acl, Operation::Read, "auth/token/lookup-self"));
    assert!(may(&acl, Operation::Update, "auth/token/revoke-self"));
    assert!(may(&acl, Operation::Create, "cubbyhole/x"));
    assert!(may(&acl, Operation::List, "cubbyhole/"));
    assert!(may(&acl, Operation::Update, "sys/wrapping/unwrap"));
    for (operation, at) in [
        (Operation::Update, "auth/token/create"),
        (Operation::Update, "auth/token/lookup"),
        (Operation::Update, "sys/leases/revoke"),
        (Operation::Read, "sys/policies/acl/default"),
        (Operation::Read, "secret/data/x"),
    ] {
        assert!(!may(&acl, operation, at), "{at}");
    }
}

fn refusal(rules: &[&str], body: &Value) -> Option<String> {
    let rules: Vec<String> = rules
        .iter()
        .map(|extra| {
            format!("path \"a\" {{ capabilities = [\"create\",\"read\",\"list\"]\n {extra} }}")
        })
        .collect();
    let acl = acl(&rules.iter().map(String::as_str).collect::<Vec<_>>());
    let at = path("a");
    let parameters = body.as_object();
    let request = CheckRequest { parameters, ..CheckRequest::new(&at, Operation::Create) };
    let explained = acl.explain(&request);
    let decision = acl.check(&request);
    assert_eq!(decision.allowed, explained.allowed);
    if decision.allowed {
        return None;
    }
    let Reason::Constraint { refusal, .. } = decision.reason else { panic!("{decision:?}") };
    assert_eq!(explained.refused_parameter.as_deref(), refusal.parameter());
    Some(refusal.parameter().unwrap_or("all").to_owned())
}

#[test]
fn parameters_are_judged_as_documented() {
    let foo_bar = r#"allowed_parameters = { "foo" = [] "bar" = ["zip", "zap"] }"#;
    let and_others = r#"allowed_parameters = { "bar" = ["zip", "zap"], "*" = [] }"#;
    let star = r#"allowed_parameters = { "*" = [] }"#;
    let globs = r#"allowed_parameters = { "bar" = ["foo-*", "*-end", "*mid*", "*"] }"#;
    let mixed = r#"allowed_parameters = { "n" = [1, true, ["x"]] }"#;
    let no_policies = r#"denied_parameters = { "policies" = ["admin"] }"#;
    let no_ttl = r#"denied_parameters = { "TTL" = [] }"#;
    let no_store = r#"denied_parameters = { "no_store" = [false, 7, "*x", "*"] }"#;
    let nothing = r#"denied_parameters = { "*" = [] }"#;
    let flag = r#"denied_parameters = { "flag" = [false, 7] }"#;
    let required = r#"required_parameters = ["Name", "id"]"#;
    for (rule, body, refused) in [
        (foo_bar, json!({"foo": "anything", "bar": "zap"}), None),
        (foo_bar, json!({"FOO": 1, "Bar": "zip"}), None),
        (foo_bar, json!({"bar": "zop"}), Some("bar")),
        (foo_bar, json!({"bar": ["zip"]}), Some("bar")),
        (foo_bar, json!({"bar": null}), Some("bar")),
        (foo_bar, json!({"baz": 1}), Some("baz")),
        (foo_bar, json!({}), None),
        (and_others, json!({"baz": 1, "bar": "zip"}), None),
        (and_others, json!({"baz": 1, "bar": "zop"}), Some("bar")),
        (star, json!({"anything": [1]}), None),
        (globs, json!({"bar": "foo-1"}), None),
        (globs, json!({"bar": "x-end"}), None),
        (globs, json!({"bar": "a mid b"}), None),
        (globs, json!({"bar": "*"}), None),
        (globs, json!({"bar": "other"}), Some("bar")),
        (mixed, json!({"n": 1}), None),
        (mixed, json!({"n": 1.0}), None),
        (mixed, json!({"n": true}), None),
        (mixed, json!({"n": ["x"]}), None),
        (mixed, json!({"n": "1"}), Some("n")),
        (mixed, json!({"n": 2}), Some("n")),
        (no_policies, json!({"policies": "reader", "x": 1}), None),
        (no_policies, json!({"policies": "admin"}), Some("policies")),
        (no_policies, json!({"Policies": "admin"}), Some("Policies")),
        (no_policies, json!({"policies": ["reader", "admin"]}), Some("policies")),
        (no_policies, json!({"policies": [["admin"]]}), Some("policies")),
        (no_policies, json!({"policies": "reader, admin"}), Some("policies")),
        (no_policies, json!({"policies": "administrator"}), None),
        (no_ttl, json!({"ttl": null}), Some("ttl")),
        (no_ttl, json!({"Ttl": 1}), Some("Ttl")),
        (no_ttl, json!({"max_ttl": 1}), None),
        (no_store, json!({"no_store": "whatever"}), Some("no_store")),
        (no_store, json!({"no_store": {"a": 1}}), Some("no_store")),
        (flag, json!({"flag": false}), Some("flag")),
        (flag, json!({"flag": "false"}), Some("flag")),
        (flag, json!({"flag": true}), None),
        (flag, json!({"flag": 7.0}), Some("flag")),
        (flag, json!({"flag": "7"}), Some("flag")),
        (flag, json!({"flag": 8}), None),
        (nothing, json!({"x": 1}), Some("all")),
        (nothing, json!({}), None),
        (required, json!({"name": 1, "id": null}), None),
        (required, json!({"NAME": 1, "id": 2}), Some("name")),
        (required, json!({"name": 1}), Some("id")),
        (required, Value::Null, Some("name")),
    ] {
        assert_eq!(refusal(&[rule], &body).as_deref(), refused, "{rule} {body}");
        // A second policy without conditions on the same path lifts none.
        assert_eq!(refusal(&["", rule], &body).as_deref(), refused, "{rule} {body}");
    }
}

#[test]
fn conditions_of_several_policies_are_merged() {
    let a = r#"allowed_parameters = { "x" = ["1"] "y" = ["1"] } required_parameters = ["x"]"#;
    let b = r#"allowed_parameters = { "x" = ["2"] "y" = [] } denied_parameters = { "z" = ["1"] }"#;
    let c = r#"denied_parameters = { "z" = [] } required_parameters = ["y"]
               allowed_parameters = { "*" = [] }"#;
    for rules in [[a, b], [b, a]] {
        assert_eq!(refusal(&rules, &json!({"x": "2", "y": "9"})), None);
        assert_eq!(refusal(&rules, &json!({"x": "1"})), None);
        assert_eq!(refusal(&rules, &json!({"x": "3"})).as_deref(), Some("x"));
        assert_eq!(refusal(&rules, &json!({"y": "1"})).as_deref(), Some("x"));
        assert_eq!(refusal(&rules, &json!({"x": "1", "z": "2"})).as_deref(), Some("z"));
    }
    for rules in [[a, b, c], [c, b, a], [b, c, a]] {
        assert_eq!(refusal(&rules, &json!({"x": "1", "y": "1", "w": 1})), None);
        assert_eq!(refusal(&rules, &json!({"x": "1"})).as_deref(), Some("y"));
        assert_eq!(refusal(&rules, &json!({"x": "1", "y": 1, "z": "2"})).as_deref(), Some("z"));
        assert_eq!(refusal(&rules, &json!({"x": "3", "y": 1})).as_deref(), Some("x"));
    }
}

#[test]
fn wrapping_bounds_hold_and_the_lower_of_two_counts() {
    let policy = |extra: &str| format!("path \"a\" {{ capabilities = [\"read\"]\n{extra} }}");
    let allowed = |rules: &[String], ttl: Option<u64>| {
        let acl = acl(&rules.iter().map(String::as_str).collect::<Vec<_>>());
        let at = path("a");
        let wrap_ttl = ttl.map(Ttl::from_secs);
        acl.check(&CheckRequest { wrap_ttl, ..CheckRequest::new(&at, Operation::Read) }).allowed
    };
    let both = [policy("min_wrapping_ttl = \"10s\"\nmax_wrapping_ttl = \"90s\"")];
    for (ttl, expected) in
        [(None, false), (Some(0), false), (Some(9), false), (Some(10), true), (Some(90), true)]
    {
        assert_eq!(allowed(&both, ttl), expected, "{ttl:?}");
    }
    assert!(!allowed(&both, Some(91)));
    assert!(!allowed(&[policy("max_wrapping_ttl = 90")], None));
    assert!(allowed(&[policy("min_wrapping_ttl = 0")], None));
    let merged = [both[0].clone(), policy("min_wrapping_ttl = 5\nmax_wrapping_ttl = 20")];
    assert!(allowed(&merged, Some(5)));
    assert!(!allowed(&merged, Some(4)));
    assert!(!allowed(&merged, Some(21)));
    // Merged into nothing at all: refused either way.
    let empty = [policy("min_wrapping_ttl = 50"), policy("max_wrapping_ttl = 20")];
    assert!(!allowed(&empty, Some(20)) && !allowed(&empty, Some(50)));
}

#[test]
fn pages_are_limited() {
    let text = "path \"a/\" { capabilities = [\"list\"]\n pagination_limit = 100 }";
    let strict = "path \"a/\" { capabilities = [\"list\"]\n pagination_limit = 50
                  required_parameters = [\"limit\", \"name\"] }";
    let allowed = |texts: &[&str], body: Value| {
        let at = path("a/");
        let parameters = body.as_object();
        let request = CheckRequest { parameters, ..CheckRequest::new(&at, Operation::List) };
        acl(texts).check(&request).allowed
    };
    assert!(allowed(&[text], json!({})));
    for good in [json!(1), json!(100), json!("100")] {
        assert!(allowed(&[text], json!({ "limit": good })), "{good}");
    }
    for bad in [json!(0), json!(-1), json!(101), json!("max"), json!("-1"), json!(null), json!(1.5)]
    {
        assert!(!allowed(&[text], json!({ "limit": bad })), "{bad}");
    }
    assert!(!allowed(&[text, strict], json!({})));
    assert!(!allowed(&[text, strict], json!({"limit": 51})));
    assert!(allowed(&[strict, text], json!({"limit": 50})));
}

#[test]
fn templates_grant_to_their_owner_only() {
    let text = rule("secret/data/{{identity.entity.name}}/*", "read");
    let caller = |name: &str| TemplateValues {
        entity_name: Some(name.to_owned()),
        ..TemplateValues::default()
    };
    let alice = acl_for(&[&text], &caller("alice"));
    assert!(may(&alice, Operation::Read, "secret/data/alice/x"));
    assert!(!may(&alice, Operation::Read, "secret/data/bob/x"));
    assert_eq!(alice.capabilities(&path("secret/data/alice/x")), ["read"]);
    for hostile in ["", "*", "+", "../", "alice/..", "al*", "{{identity.entity.id}}"] {
        let acl = acl_for(&[&text], &caller(hostile));
        for at in ["secret/data/alice/x", "secret/data/x/y", "secret/data//x"] {
            if let Ok(at) = ApiPath::parse(at) {
                assert!(!acl.check(&CheckRequest::new(&at, Operation::Read)).allowed, "{hostile}");
            }
        }
    }
    assert!(!may(&acl(&[&text]), Operation::Read, "secret/data/alice/x"));
}

#[test]
fn a_denial_without_values_denies_wherever_it_might_apply() {
    let text = rule("secret/*", "read list sudo")
        + &rule("secret/alice/x", "read")
        + &rule("secret/{{identity.entity.name}}/*", "deny");
    let named = |name: &str| TemplateValues {
        entity_name: Some(name.to_owned()),
        ..TemplateValues::default()
    };
    let bob = acl_for(&[&text], &named("bob"));
    assert!(!may(&bob, Operation::Read, "secret/bob/x"));
    assert!(may(&bob, Operation::Read, "secret/alice/x"));
    for values in [TemplateValues::default(), named("*"), named("a/b"), named("")] {
        let acl = acl_for(&[&text], &values);
        for at in ["secret/bob/x", "secret/alice/x", "secret/q/"] {
            assert!(!may(&acl, Operation::Read, at), "{at}");
            assert_eq!(acl.capabilities(&path(at)), ["deny"]);
        }
        assert!(may(&acl, Operation::Read, "secret/plain"));
        let at = path("secret/bob/x");
        let explained = acl.explain(&CheckRequest::new(&at, Operation::Read));
        assert!(explained.unresolved_denials[0].applies);
        assert!(acl.covers(&ScopeSet::parse(&["read:secret/alice/x"]).unwrap()).is_err());
    }
}

#[test]
fn a_denial_is_the_same_for_all_and_says_why_to_the_audit() {
    let acl = acl(&[&rule("secret/*", "read")]);
    let at = path("secret/x");
    let denial = acl.authorize(&CheckRequest::new(&at, Operation::Delete)).unwrap_err();
    assert_eq!(denial.to_string(), "permission denied");
    assert_eq!(denial.reason(), "the rule \"secret/*\" does not grant delete");
    let permit = acl.authorize(&CheckRequest::new(&at, Operation::Read)).unwrap();
    assert_eq!((permit.path(), permit.operation(), permit.sudo()), (&at, Operation::Read, false));
    let login = path("auth/cert/login");
    assert!(!Permit::unauthenticated(&login, Operation::Update).sudo());
}

#[test]
fn an_explanation_shows_the_winner_and_the_losers() {
    let acl = acl(&[
        &(rule("secret/+/x", "list") + &rule("secret/*", "read")),
        &(rule("secret/+/x", "delete") + &rule("*", "sudo") + &rule("other", "deny")),
    ]);
    let at = path("secret/a/x");
    let explained = acl.explain(&CheckRequest::new(&at, Operation::Read));
    let shown = serde_json::to_value(&explained).unwrap();
    assert_eq!(
        shown,
        json!({
            "path": "secret/a/x",
            "operation": "read",
            "allowed": false,
            "sudo": false,
            "reason": "the rule \"secret/+/x\" does not grant read",
            "policies": ["p0", "p1"],
            "matched": {
                "path": "secret/+/x", "policies": ["p0", "p1"], "capabilities": ["delete", "list"],
            },
            "missing_capability": "read",
            "refused_parameter": null,
            "others": [
                {"path": "secret/*", "policies": ["p0"], "capabilities": ["read"]},
                {"path": "*", "policies": ["p1"], "capabilities": ["sudo"]},
            ],
            "unresolved_denials": [],
            "scopes": null,
        })
    );
}

#[test]
fn scopes_only_take_away() {
    let scopes = |texts: &[&str]| Arc::new(ScopeSet::parse(texts).unwrap());
    let text = rule("secret/*", "read update sudo") + &rule("secret/data/reports/payroll", "deny");
    let narrowed = acl(&[&text]).narrowed(scopes(&["read,delete:secret/data/reports/*"]));
    let at = path("secret/data/reports/july");
    let decision = narrowed.check(&CheckRequest::new(&at, Operation::Read));
    assert!(decision.allowed && !decision.sudo);
    assert!(!may(&narrowed, Operation::Update, "secret/data/reports/july"));
    assert!(!may(&narrowed, Operation::Delete, "secret/data/reports/july"));
    assert!(!may(&narrowed, Operation::Read, "secret/data/other"));
    assert!(!may(&narrowed, Operation::Read, "secret/data/reports/payroll"));
    assert_eq!(narrowed.capabilities(&at), ["read"]);
    assert_eq!(narrowed.capabilities(&path("secret/data/other")), ["deny"]);

    let root = Acl::new(vec![CompiledPolicy::root()], &TemplateValues::default())
        .narrowed(scopes(&["read:secret/*"]));
    assert!(!root.is_root());
    assert_eq!(root.capabilities(&path("secret/x")), ["read"]);
    let decision = root.check(&CheckRequest::new(&at, Operation::Read));
    assert!(decision.allowed && !decision.sudo);
    assert!(!may(&root, Operation::Read, "sys/mounts"));
    assert!(root.covers(&ScopeSet::parse(&["read:secret/x"]).unwrap()).is_ok());
    assert!(root.covers(&ScopeSet::parse(&["update:secret/x"]).unwrap()).is_err());
}

#[test]
fn a_scope_cannot_name_what_the_caller_lacks() {
    let text = rule("secret/data/*", "read update")
        + &rule("secret/data/team/*", "read")
        + &rule("secret/data/team/no", "deny")
        + &rule("secret/metadata/reports", "list")
        + &rule("auth/+/login", "update")
        + &rule("kv/+/*", "read");
    let acl = acl(&[&text]);
    let covered = |text: &str| acl.covers(&ScopeSet::parse(&[text]).unwrap()).is_ok();
    for inside in [
        "read:secret/data/*",
        "read,update:secret/data/a/*",
        "read:secret/data/team/*",
        "read:secret/data/team/+/x",
        "list:secret/metadata/reports/",
        "update:auth/cert/login",
        "update:auth/+/login",
        "read:kv/a/*",
        "read:kv/+/b",
    ] {
        assert!(covered(inside), "{inside}");
    }
    for outside in [
        "read:secret/*",
        "read:*",
        "read,delete:secret/data/a",
        "update:secret/data/team/*",
        "update:secret/data/team/+/x",
        "read:secret/data/team/no",
        "list:secret/metadata/*",
        "update:auth/*",
        "update:auth/+/+",
        "read:kv/*",
        "read:kv/+",
        "read:nothing",
    ] {
        assert!(!covered(outside), "{outside}");
    }
}

fn granted(acl: &Acl) -> Vec<(String, bool, String)> {
    let shown = |one: Granted<'_>| (one.path.to_owned(), one.exact, one.capabilities.join(" "));
    acl.granted().into_iter().map(shown).collect()
}

#[test]
fn a_caller_is_shown_what_its_rules_say_taken_together() {
    let first = [rule("secret/*", "read"), rule("kv/a", "read update"), rule("kv/b", "read")];
    let second = [rule("secret/*", "list"), rule("kv/b", "deny"), rule("kv/+/c", "delete")];
    let shown = granted(&acl(&[&first.concat(), &second.concat()]));
    let one = |path: &str, exact, names: &str| (path.to_owned(), exact, names.to_owned());
    let expected = [
        one("kv/+/c", false, "delete"),
        one("kv/a", true, "read update"),
        one("kv/b", true, "deny"),
        one("secret/", false, "list read"),
    ];
    assert_eq!(shown, expected);
}

fn scope_set(texts: &[&str]) -> Arc<ScopeSet> {
    Arc::new(ScopeSet::parse(texts).unwrap())
}

#[test]
fn a_narrowed_caller_is_shown_no_more_than_its_scopes_and_its_rules() {
    let text = rule("secret/*", "read list sudo");
    let narrowed = acl(&[&text]).narrowed(scope_set(&["read,delete:secret/a/*"]));
    assert_eq!(granted(&narrowed), [("secret/a/".to_owned(), false, "read".to_owned())]);
    let root = Acl::new(vec![CompiledPolicy::root()], &TemplateValues::default());
    let root = root.narrowed(scope_set(&["read:kv/x"]));
    assert_eq!(granted(&root), [("kv/x".to_owned(), true, "read".to_owned())]);
}
