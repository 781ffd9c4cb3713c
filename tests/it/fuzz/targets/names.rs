//! Texts that people write and send: paths, policies, templates, SQL, durations.

use leasehold::core::acl::{Acl, CheckRequest, CompiledPolicy};
use leasehold::core::operation::Operation;
use leasehold::core::policy::format::formatted;
use leasehold::core::policy::password::PasswordPolicy;
use leasehold::core::policy::template::{Template, TemplateValues};
use leasehold::core::policy::{Policy, PolicyName, Rule};
use leasehold::core::scope::ScopeSet;
use leasehold::core::spiffe::{SpiffeId, TrustDomain};
use leasehold::engines::database::statement::{Statements, Values, Variable};
use leasehold::engines::database::username::NameTemplate;
use leasehold::types::path::ApiPath;
use leasehold::types::time::{Timestamp, Ttl};
use serde_json::json;

use super::{text, two};

/// A path is canonical, reads back as itself, and has one escaped spelling that means the same.
pub fn path(input: &[u8]) {
    let Some(raw) = text(input) else { return };
    let Ok(path) = ApiPath::from_encoded(raw) else { return };
    let canonical = path.as_str();
    assert_eq!(ApiPath::parse(canonical).as_ref(), Ok(&path));
    assert!(path.segments().all(|segment| !matches!(segment, "" | "." | "..")), "{path:?}");
    assert!(!canonical.contains(char::is_control) && !canonical.starts_with('/'), "{path:?}");
    let escape = |byte: u8| match byte {
        b'/' => "/".to_owned(),
        byte => format!("%{byte:02X}"),
    };
    let escaped: String = canonical.bytes().map(escape).collect();
    assert_eq!(ApiPath::from_encoded(&escaped).as_ref(), Ok(&path));
    let dir = path.to_dir();
    assert!(dir.is_dir() && dir.to_dir() == dir && dir.trimmed() == path.trimmed(), "{path:?}");
}

/// A policy with one rule, and a path in many spellings: access is given where the two agree letter by
/// letter, as somebody would judge who has never seen the index.
pub fn grant(input: &[u8]) {
    let Some((pattern, path)) = two(input) else { return };
    if Template::is_template(pattern) {
        return;
    }
    let policy = json!({ "path": { pattern: { "capabilities": ["read"] } } }).to_string();
    let name = PolicyName::parse("fuzzed").unwrap();
    let Ok(compiled) = CompiledPolicy::compile(&name, &policy) else { return };
    let acl = Acl::new(vec![compiled], &TemplateValues::default());
    let others = [
        path.to_owned(),
        pattern.to_owned(),
        path.to_uppercase(),
        path.to_lowercase(),
        pattern.to_uppercase(),
        path.replace('/', "//"),
        path.replace('/', "/./"),
        path.replace('/', "%2F"),
        format!("{path}."),
        format!("{path}%20"),
        format!("{path}%00"),
        format!("{path}/"),
        format!("/{path}"),
        format!("x/../{path}"),
        path.replacen('a', "%61", 1),
        path.replacen('a', "%2561", 1),
    ];
    for spelling in others {
        let Ok(read) = ApiPath::from_encoded(&spelling) else { continue };
        let allowed = acl.check(&CheckRequest::new(&read, Operation::Read)).allowed;
        let expected = agree(pattern, read.as_str());
        assert_eq!(allowed, expected, "{pattern:?} and {spelling:?}, which is {read:?}");
    }
}

fn agree(pattern: &str, path: &str) -> bool {
    let pattern = pattern.strip_prefix('/').unwrap_or(pattern);
    let (literal, open) = match pattern.strip_suffix('*') {
        Some(literal) => (literal, true),
        None => (pattern, false),
    };
    let ours: Vec<&str> = literal.split('/').collect();
    if !ours.contains(&"+") {
        return if open { path.starts_with(literal) } else { path == literal };
    }
    let theirs: Vec<&str> = path.split('/').collect();
    let same = |(own, segment): (&&str, &&str)| *own == "+" || own == segment;
    let Some((last, before)) = ours.split_last().filter(|_| open) else {
        return ours.len() == theirs.len() && ours.iter().zip(&theirs).all(same);
    };
    theirs.len() >= ours.len()
        && before.iter().zip(&theirs).all(same)
        && theirs[before.len()].starts_with(last)
}

pub const POLICY_WORDS: &[&str] = &[
    "path \"a/b\" {\n",
    "capabilities = [\"read\", \"list\"]\n",
    "}\n",
    "\"sudo\"",
    "\"deny\"",
    "allowed_parameters = { \"a\" = [\"x\", 1] }\n",
    "denied_parameters",
    "required_parameters = [\"a\"]",
    "min_wrapping_ttl = \"1s\"",
    "/* ",
    "*/",
    "# ",
    "\\\"",
    "{{identity.entity.name}}",
    "[",
    "]",
    "=",
    ",",
];

/// A policy in the one style means the same and is in that style already.
pub fn policy(input: &[u8]) {
    let Some(text) = text(input) else { return };
    let name = PolicyName::parse("fuzzed").unwrap();
    let parsed = Policy::parse(&name, text);
    if let Ok(compiled) = CompiledPolicy::compile(&name, text) {
        let acl = Acl::new(vec![compiled], &TemplateValues::default());
        for path in ["a", "a/b", "a/b/c", "secret/data/x"] {
            let path = ApiPath::parse(path).unwrap();
            acl.capabilities(&path);
            acl.reaches_below(path.as_str());
        }
    }
    let Ok(styled) = formatted(text) else { return };
    assert_eq!(formatted(&styled).as_ref(), Ok(&styled), "not settled: {text:?}");
    match (parsed, Policy::parse(&name, &styled)) {
        (Ok(before), Ok(after)) => {
            let (before, after) = (before.rules(), after.rules());
            assert_eq!(parts(before), parts(after), "{text:?} to {styled:?}");
        }
        (Err(_), Err(_)) => {}
        (before, after) => panic!("{before:?} became {after:?}: {text:?} to {styled:?}"),
    }
}

/// What rules say, piece by piece: maps show theirs in any order.
fn parts(rules: &[Rule]) -> Vec<String> {
    let text = format!("{rules:?}");
    let pieces = text.split([',', '{', '}', '[', ']']);
    let mut pieces: Vec<String> = pieces.map(|piece| piece.trim().to_owned()).collect();
    pieces.sort();
    pieces
}

/// What scopes print is the same scopes.
pub fn scope(input: &[u8]) {
    let Some(text) = text(input) else { return };
    let lines: Vec<&str> = text.lines().collect();
    let Ok(scopes) = ScopeSet::parse(&lines) else { return };
    assert_eq!(ScopeSet::parse(&scopes.to_texts()).as_ref(), Ok(&scopes));
    assert_eq!(scopes.covers(&scopes), Ok(()));
}

pub const TEMPLATE_WORDS: &[&str] = &[
    "{{identity.entity.name}}",
    "{{identity.entity.id}}",
    "{{identity.entity.metadata.team}}",
    "{{identity.groups.names.ops.id}}",
    "{{",
    "}}",
    "/",
    "*",
    "+",
    "..",
];

/// What a caller is called never makes more of a path than one part of one segment.
pub fn template(input: &[u8]) {
    let Some((template, value)) = two(input) else { return };
    let Ok(template) = Template::parse(template) else { return };
    let values = TemplateValues {
        entity_id: Some(value.to_owned()),
        entity_name: Some(value.to_owned()),
        entity_metadata: [("team".to_owned(), value.to_owned())].into(),
        ..TemplateValues::default()
    };
    let Some(pattern) = template.resolve(&values) else { return };
    let mut literal = String::new();
    let mut rest = template.as_str();
    while let Some((before, after)) = rest.split_once("{{") {
        literal += before;
        rest = after.split_once("}}").unwrap().1;
    }
    literal += rest;
    for mark in ['/', '*', '+'] {
        let (own, made) = (literal.matches(mark).count(), pattern.as_str().matches(mark).count());
        assert_eq!(own, made, "{mark} in {pattern} of {template:?}");
    }
}

pub const PASSWORD_WORDS: &[&str] = &[
    "length = 20\n",
    "rule \"charset\" {\n",
    "charset = \"abc\"\n",
    "min-chars = 1\n",
    "}\n",
    "100",
    "\"\"",
];

/// A password is what its policy asks for.
pub fn password_policy(input: &[u8]) {
    let Some(text) = text(input) else { return };
    let Ok(policy) = PasswordPolicy::parse(text) else { return };
    let password = policy.generate().unwrap();
    assert!(policy.satisfied_by(&password), "{text:?}");
    assert_eq!(password.expose().chars().count(), policy.length(), "{text:?}");
}

/// A duration reads back from its seconds.
pub fn duration(input: &[u8]) {
    let Some(text) = text(input) else { return };
    let Ok(ttl) = Ttl::parse(text) else { return };
    let secs = ttl.as_secs();
    assert_eq!(Ttl::parse(&secs.to_string()), Ok(ttl));
    assert_eq!(Ttl::parse(&format!("{secs}s")), Ok(ttl));
    assert_eq!(Ttl::from_json(&json!(secs)), Ok(ttl));
}

/// An identity reads back as itself, and its trust domain is in the one spelling.
pub fn spiffe(input: &[u8]) {
    let Some(text) = text(input) else { return };
    if let Ok(domain) = TrustDomain::parse(text) {
        assert_eq!(TrustDomain::parse(domain.as_str()).as_ref(), Ok(&domain));
    }
    let Ok(id) = SpiffeId::parse(text) else { return };
    assert_eq!(SpiffeId::parse(id.as_str()).as_ref(), Ok(&id));
    assert_eq!(id.as_str(), text, "an identity has one spelling");
    assert_eq!(id.as_str(), format!("spiffe://{}{}", id.trust_domain().as_str(), id.path()));
    assert!(!id.path().split('/').any(|part| matches!(part, "." | "..")), "{text:?}");
}

/// Longest name that a database takes whole, in bytes.
const USER_NAME_BYTES_MAX: usize = 63;

/// No template makes a name that the database would cut off.
pub fn username(input: &[u8]) {
    let Some((template, rest)) = two(input) else { return };
    let (display, role) = rest.split_once('\n').unwrap_or((rest, "role"));
    let Ok(template) = NameTemplate::parse(template) else { return };
    let name = template.render(display, role, Timestamp::from_secs(1_800_000_000)).unwrap();
    assert!(name.len() <= USER_NAME_BYTES_MAX, "{name:?}");
    assert!(!name.contains(char::is_control) && !name.contains('\\'), "{name:?}");
}

pub const SQL_WORDS: &[&str] = &[
    "{{name}}",
    "{{password}}",
    "{{expiration}}",
    "\"{{name}}\"",
    "'{{password}}'",
    ";",
    "--",
    "/*",
    "*/",
    "$$",
    "$x$",
    "E'",
    "U&\"",
    "'",
    "\"",
    "\\",
];

/// Whatever the values are, a statement stays one statement.
pub fn statements(input: &[u8]) {
    let Some(text) = text(input) else { return };
    let all = [Variable::Name, Variable::Password, Variable::Expiration];
    let Ok(parsed) = Statements::parse(&[text], &all) else { return };
    let hostile = [
        Values { name: "plain", password: "plain", expiration: "2030-01-01" },
        Values { name: "a\"; DROP TABLE x; --", password: "a'; DROP TABLE x; --", expiration: ";" },
        Values { name: "$$;$x$;", password: "\\'; x; '", expiration: "*/;/*" },
    ];
    for values in hostile {
        let Ok(rendered) = parsed.render(&values) else { continue };
        assert_eq!(rendered.len(), parsed.len(), "{text:?}");
        for statement in &rendered {
            let again = Statements::parse(&[statement.as_str()], &[]);
            // Text that looks like a place for a value is refused, not run.
            let Ok(again) = again else { continue };
            assert_eq!(again.len(), 1, "{text:?} became {:?}", statement.as_str());
        }
    }
}
