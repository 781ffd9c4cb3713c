use std::collections::BTreeMap;

use super::read::Section;
use super::*;

const DOCUMENTED: &str = include_str!("../../../config/leasehold.toml");

const MINIMAL: &str = r#"
[[listener]]
address = "127.0.0.1:8200"
certificate = "a"
key = "b"
[[audit]]
path = "audit.log"
"#;

fn problems(text: &str) -> Vec<String> {
    let found = Config::parse(&format!("{MINIMAL}\n{text}")).unwrap_err();
    found.iter().map(|problem| format!("{}: {}", problem.key, problem.text)).collect()
}

#[test]
fn little_is_required() {
    let config = Config::parse(MINIMAL).unwrap();
    assert_eq!(config.listeners[0].client_certificate, ClientCertificate::Required);
    assert_eq!(config.listeners[0].name, "127.0.0.1:8200");
    assert_eq!(config.storage.path, Path::new("/var/lib/leasehold/leasehold.db"));
    assert_eq!(config.seals, [Seal::default()]);
    assert_eq!(config.audit_sinks[0].name, "audit.log");
    assert_eq!(config.server, Server::default());
}

#[test]
fn nodes_that_share_a_store_have_names_of_their_own() {
    let name = |text: &str, host: &str| {
        let config = Config::parse(&format!("{MINIMAL}\n{text}")).unwrap();
        config.node_name(host.to_owned())
    };
    let shared = "[storage]\ntype = \"postgresql\"\nurl_file = \"url\"";
    assert_eq!(name("", "a"), "a");
    assert_eq!(name(shared, "a"), "a 127.0.0.1:8200");
    let named = format!("[server]\nnode_name = \"b\"\n{shared}");
    assert_eq!(name(&named, "a"), "b");
}

#[test]
fn every_problem_is_reported_at_once_with_its_line() {
    let text = "\
[server]
max_bdoy = 3
handshake_timeout = \"0s\"
request_timeout = \"soon\"
max_connections = -1
log_level = \"loud\"
[[listener]]
address = \"here\"
client_certificate = \"maybe\"
[trust]
[serverr]
[leases]
default_ttl = \"8d\"
";
    let found: Vec<String> =
        Config::parse(text).unwrap_err().iter().map(ToString::to_string).collect();
    for expected in [
        "line 2: server.max_bdoy: unknown key; did you mean max_body?",
        "line 4: server.request_timeout: is not a duration; use seconds or a form such as \"1h30m\"",
        "line 10: trust: must be written as [[trust]], once for each",
        "line 11: serverr: unknown key; did you mean server?",
        "server.handshake_timeout: must be between 1s and 1h",
        "server.log_level: is no level; use off, error, warn, info, debug or trace",
        "listener[0].address: is not an address and port such as 0.0.0.0:8200 or [::]:8200",
        "listener[0].certificate: is required",
        "listener[0].key: is required",
        "audit: at least one [[audit]] is required: nothing is answered unaudited",
        "leases.default_ttl: is longer than leases.max_ttl",
    ] {
        assert!(found.iter().any(|line| line == expected), "{expected} is not in {found:#?}");
    }
    for start in ["line 5: server.max_connections: ", "line 9: listener[0].client_certificate: "] {
        assert!(found.iter().any(|line| line.starts_with(start)), "{start} is not in {found:#?}");
    }
    assert_eq!(found.len(), 13, "{found:#?}");
}

#[test]
fn what_is_not_toml_is_reported_line_by_line() {
    let found = Config::parse("[server\nmax_body = 3\n\n[[audit]]\npath = 1 2\n").unwrap_err();
    let lines: Vec<_> = found.iter().filter_map(|problem| problem.line).collect();
    assert!(lines.contains(&1) && lines.contains(&5), "{found:?}");
}

#[test]
fn values_must_fit_together() {
    for (text, expected) in [
        ("[storage]\nurl = \"postgres://h/d\"", "storage.type"),
        ("[storage]\ntype = \"postgresql\"", "storage.url"),
        ("[storage]\ntype = \"postgresql\"\nurl = \"a\"\nurl_file = \"b\"", "storage.url"),
        ("[storage]\ntype = \"postgresql\"\nurl_file = \"b\"\npath = \"p\"", "storage.path"),
        ("[storage]\ntype = \"postgresql\"\nurl = \"postgres://u:pw@h/d\"", "storage.url"),
        ("[storage]\ntype = \"postgresql\"\nurl = \"postgres://h/d?password=x\"", "storage.url"),
        ("[storage]\ntype = \"mysql\"", "storage.type"),
        ("[[seal]]\ntype = \"static-file\"", "seal[0].key_file"),
        ("[[seal]]\nkey_file = \"k\"", "seal[0].key_file"),
        ("[[seal]]\n[[seal]]", "seal[1].type"),
        ("[[audit]]\npath = \"audit.log\"", "audit[1].path"),
        ("[[audit]]\npath = \"b\"\nsync = \"2h\"", "audit[1].sync"),
        ("[[trust]]\nbundle = \"b\"", "trust[0].name"),
        ("[[trust]]\ntrust_domain = \"a.b\"", "trust[0].bundle"),
        ("[[trust]]\ntrust_domain = \"spiffe://a\"\nbundle = \"b\"", "trust[0].trust_domain"),
        (
            "[[trust]]\ntrust_domain = \"a\"\nbundle = \"b\"\n\
             [[trust]]\nname = \"x\"\ntrust_domain = \"a\"\nbundle = \"b\"",
            "trust[1].trust_domain",
        ),
        (
            "[[listener]]\naddress = \"127.0.0.1:8200\"\ncertificate = \"a\"\nkey = \"b\"\n\
             name = \"x\"",
            "listener[1].address",
        ),
        ("[limits]\nheader_bytes = 100", "limits.header_bytes"),
        ("[server]\nmax_body = \"2GiB\"", "server.max_body"),
        ("[leases]\nmax_ttl = \"0s\"\ndefault_ttl = 0", "leases.default_ttl"),
    ] {
        let found = problems(text);
        assert!(found.iter().any(|line| line.starts_with(&format!("{expected}: "))), "{found:?}");
        assert!(found.iter().all(|line| !line.contains("pw@")), "{found:?}");
    }
}

#[test]
fn the_effective_configuration_reads_back_as_itself() {
    for text in [MINIMAL, DOCUMENTED] {
        let config = Config::parse(text).unwrap();
        let printed = config.to_toml().unwrap();
        assert_eq!(Config::parse(&printed).unwrap(), config, "{printed}");
    }
}

#[test]
fn a_database_url_is_taken_from_where_it_is_kept() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "postgres://u:hunter2@h/d\n").unwrap();
    let storage = Storage { url_file: file.path().to_owned(), ..Storage::default() };
    assert_eq!(storage.resolve_url().unwrap().expose(), "postgres://u:hunter2@h/d");
    let storage = Storage { url_file: "/nonexistent/url".into(), ..Storage::default() };
    assert_eq!(storage.resolve_url().unwrap_err().key, "storage.url_file");
    let storage = Storage { url: "postgres://h/d".into(), ..Storage::default() };
    assert_eq!(storage.resolve_url().unwrap().expose(), "postgres://h/d");
}

#[test]
fn the_documented_file_has_every_key_with_its_default() {
    Config::parse(DOCUMENTED).unwrap();
    let mut documented: BTreeMap<(String, String), String> = BTreeMap::new();
    let mut section = String::new();
    for line in DOCUMENTED.lines() {
        if line.starts_with('[') {
            section = line.trim_matches(['[', ']']).to_owned();
        } else if let Some((key, value)) = line.trim_start_matches("# ").split_once(" = ")
            && key.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
        {
            documented.insert((section.clone(), key.to_owned()), value.to_owned());
        }
    }
    fn expect<S: Section + Serialize>(
        name: &str,
        documented: &mut BTreeMap<(String, String), String>,
    ) {
        let defaults = toml::Table::try_from(S::default()).unwrap();
        for key in S::KEYS {
            let written = documented.remove(&(name.to_owned(), (*key).to_owned()));
            let written = written.unwrap_or_else(|| panic!("{name}.{key} is not documented"));
            let default = defaults[*key].to_string();
            // Where the default is nothing, the file shows an example.
            if default != "\"\"" && default != "[]" {
                assert_eq!(written, default, "{name}.{key}");
            }
        }
    }
    expect::<Server>("server", &mut documented);
    expect::<Listener>("listener", &mut documented);
    expect::<Trust>("trust", &mut documented);
    expect::<Auth>("auth", &mut documented);
    expect::<super::Storage>("storage", &mut documented);
    expect::<Seal>("seal", &mut documented);
    expect::<AuditSink>("audit", &mut documented);
    expect::<Leases>("leases", &mut documented);
    expect::<Limits>("limits", &mut documented);
    expect::<Telemetry>("telemetry", &mut documented);
    assert!(documented.is_empty(), "keys that do not exist: {documented:?}");
}
