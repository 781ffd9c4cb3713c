//! The documentation, held against what it speaks of.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use leasehold::core::engine::MountFacts;
use leasehold::core::route::{Access, RouteSpec};
use leasehold::core::seal::endpoints;
use leasehold::core::trust::TrustStore;
use leasehold::engines;
use leasehold::engines::database::DatabaseEngine;
use leasehold::engines::transit::{self, TransitEngine};
use leasehold::server::config::Auth;
use leasehold::server::run::{self, Network};
use leasehold::types::id::MountAccessor;
use leasehold::types::time::Ttl;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn files(dir: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            found.extend(files(&path, ending));
        } else if name.ends_with(ending) {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn pages() -> Vec<(PathBuf, String)> {
    let pages = files(&root(), ".md").into_iter();
    pages.map(|path| (path.clone(), fs::read_to_string(path).unwrap())).collect()
}

/// The fenced blocks of a page: language and text.
fn blocks(page: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut open: Option<(String, String)> = None;
    for line in page.lines() {
        match (line.trim_start().strip_prefix("```"), &mut open) {
            (Some(_), Some(_)) => found.extend(open.take()),
            (Some(language), None) => open = Some((language.trim().to_owned(), String::new())),
            (None, Some((_, text))) => {
                text.push_str(line);
                text.push('\n');
            }
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "a fence is not closed");
    found
}

/// What stands in backticks outside of fences.
fn quotations(page: &str) -> Vec<String> {
    let mut fenced = false;
    let prose = page.lines().filter(|line| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        !fence && !fenced
    });
    let prose: Vec<&str> = prose.collect();
    prose.join("\n").split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

#[test]
fn every_link_to_a_file_leads_somewhere() {
    let mut broken = Vec::new();
    for (path, text) in pages() {
        for (at, _) in text.match_indices("](") {
            let target = text[at + 2..].split(')').next().unwrap();
            let file = target.split('#').next().unwrap();
            if file.is_empty() || file.contains("://") || file.starts_with("mailto:") {
                continue;
            }
            if !path.parent().unwrap().join(file).exists() {
                broken.push(format!("{}: {target}", path.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

/// The commands of a shell block that run this program, each as its arguments.
fn invocations(block: &str) -> Vec<Vec<String>> {
    let joined = block.replace("\\\n", " ");
    let lines = joined.lines().filter(|line| !line.trim_start().starts_with('#'));
    let parts = lines.flat_map(|line| line.split(['|', ';']).flat_map(|part| part.split("&&")));
    let parts = parts.flat_map(|part| part.split("$("));
    parts
        .filter_map(|part| {
            let mut words: Vec<&str> = part.split_whitespace().collect();
            while words.first().is_some_and(|word| word.contains('=') || *word == "sudo") {
                words.remove(0);
            }
            if words.starts_with(&["-u", "leasehold"]) {
                words.drain(..2);
            }
            if words.starts_with(&["cargo", "run", "--release", "--"]) {
                words.drain(..3);
                words[0] = "leasehold";
            }
            let program = words.first()?.rsplit('/').next()?;
            (program == "leasehold").then(|| words[1..].iter().map(|&w| w.to_owned()).collect())
        })
        .collect()
}

fn help(words: &[String]) -> Option<String> {
    let output = Command::new(env!("CARGO_BIN_EXE_leasehold"))
        .args(words)
        .arg("--help")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
}

#[test]
fn every_command_shown_exists_with_its_flags() {
    let mut helps: BTreeMap<Vec<String>, Option<String>> = BTreeMap::new();
    let (mut seen, mut wrong) = (0, Vec::new());
    for (path, text) in pages() {
        let blocks = blocks(&text).into_iter().filter(|(language, _)| language == "sh");
        for arguments in blocks.flat_map(|(_, block)| invocations(&block)) {
            seen += 1;
            let shown = arguments.join(" ");
            let plain = |word: &&String| {
                word.chars().all(|c| c.is_ascii_lowercase() || c == '-') && !word.starts_with('-')
            };
            let words: Vec<String> = arguments.iter().take_while(plain).cloned().collect();
            let Some(help) = helps.entry(words.clone()).or_insert_with(|| help(&words)) else {
                wrong.push(format!("{}: leasehold {shown}", path.display()));
                continue;
            };
            let known =
                |flag: &str| help.split([' ', ',', '\n', '[', ']', '=']).any(|word| word == flag);
            for flag in arguments.iter().filter(|word| word.starts_with('-') && word.len() > 1) {
                let name = flag.trim_start_matches('-').split('=').next().unwrap();
                if !known(&format!("--{name}")) && !known(&format!("-{name}")) {
                    wrong.push(format!("{}: {flag} of leasehold {shown}", path.display()));
                }
            }
        }
    }
    assert!(seen > 20, "only {seen} commands were found");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// `section.key` of everything in the sample configuration, commented out or not.
fn configuration_keys() -> BTreeSet<String> {
    let text = fs::read_to_string(root().join("config/leasehold.toml")).unwrap();
    let (mut section, mut keys) = (String::new(), BTreeSet::new());
    for line in text.lines() {
        let line = line.strip_prefix("# ").unwrap_or(line);
        if line.starts_with('[') {
            section = line.trim_matches(['[', ']']).to_owned();
        } else if let Some((key, _)) = line.split_once(" = ")
            && key.chars().all(|c| c.is_ascii_lowercase() || c == '_')
        {
            keys.insert(format!("{section}.{key}"));
        }
    }
    assert!(keys.contains("storage.url_file") && keys.contains("server.max_body"));
    keys
}

#[test]
fn every_key_of_the_configuration_that_is_named_exists() {
    let keys = configuration_keys();
    let sections: BTreeSet<&str> = keys.iter().filter_map(|key| key.split('.').next()).collect();
    let mut wrong = Vec::new();
    for (path, text) in pages() {
        for quoted in quotations(&text) {
            let key = quoted.split(" = ").next().unwrap();
            let Some((section, name)) = key.split_once('.') else { continue };
            let is_key = !name.is_empty() && name.chars().all(|c| c.is_lowercase() || c == '_');
            if sections.contains(section) && is_key && name != "rs" && !keys.contains(key) {
                wrong.push(format!("{}: {key}", path.display()));
            }
        }
        for (language, block) in blocks(&text) {
            if language != "toml" {
                continue;
            }
            let table: toml::Table = block.parse().unwrap();
            for (section, value) in &table {
                let tables = value.as_array().cloned().unwrap_or_else(|| vec![value.clone()]);
                for key in tables.iter().flat_map(|table| table.as_table().unwrap().keys()) {
                    if !keys.contains(&format!("{section}.{key}")) {
                        wrong.push(format!("{}: {section}.{key}", path.display()));
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn source() -> String {
    let mut text = String::new();
    for dir in ["src", "tests"] {
        for file in files(&root().join(dir), ".rs") {
            text.push_str(&fs::read_to_string(file).unwrap());
        }
    }
    text
}

#[test]
fn every_metric_named_is_recorded() {
    let source = source();
    let mut wrong = BTreeSet::new();
    for (path, text) in pages() {
        for (at, _) in text.match_indices("leasehold_") {
            let name: String = text[at..]
                .chars()
                .take_while(|c| c.is_ascii_lowercase() || *c == '_' || c.is_ascii_digit())
                .collect();
            let name = ["_bucket", "_count", "_sum"]
                .iter()
                .find_map(|suffix| name.strip_suffix(suffix))
                .unwrap_or(&name);
            if !source.contains(&format!("\"{name}\"")) {
                wrong.insert(format!("{}: {name}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn each_promise_names_tests_that_exist() {
    let source = source();
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let mut promises = 0;
    for line in readme.lines().filter(|line| line.starts_with("| **P")) {
        promises += 1;
        let tests = line.rsplit('|').nth(1).unwrap();
        let names: Vec<&str> = tests.split('`').skip(1).step_by(2).collect();
        assert!(!names.is_empty(), "no test stands for this: {line}");
        for name in names {
            assert!(source.contains(&format!("fn {name}(")), "there is no test {name}");
        }
    }
    assert_eq!(promises, 10);
}

#[test]
fn every_decision_is_numbered_once_and_listed() {
    let dir = root().join("docs/decisions");
    let index = fs::read_to_string(dir.join("README.md")).unwrap();
    let mut numbers = BTreeSet::new();
    for path in files(&dir, ".md") {
        let name = path.file_name().unwrap().to_str().unwrap();
        if name == "README.md" {
            continue;
        }
        let number = name.split('-').next().unwrap();
        assert!(
            number.len() == 4 && number.parse::<u16>().is_ok(),
            "docs/decisions/{name} has no number: give it the next, and list it in README.md"
        );
        assert!(numbers.insert(number.to_owned()), "{number} is there twice");
        assert!(index.contains(&format!("]({name})")), "{name} is not in the index");
    }
}

fn routes() -> Vec<(&'static str, String, &'static RouteSpec)> {
    let facts = |version: &str| MountFacts {
        path: String::new(),
        accessor: MountAccessor::new("x"),
        options: BTreeMap::from([("version".to_owned(), version.to_owned())]),
        default_ttl: Ttl::from_secs(1),
        max_ttl: Ttl::from_secs(1),
    };
    let mut found = Vec::new();
    for spec in endpoints::specs() {
        found.push(("the seal", spec.pattern.to_owned(), spec));
    }
    for table in &run::tables(Box::new(String::new), Access::Caller) {
        for spec in table.routes() {
            found.push(("server", format!("{}{}", table.prefix(), spec.pattern), spec));
        }
    }
    let network = Network::new(&Auth::default()).unwrap();
    for (name, build) in &run::registry(&Arc::new(TrustStore::new()), network).methods {
        let method = build(&facts("")).unwrap();
        found.extend(method.routes().iter().map(|spec| (*name, spec.pattern.to_owned(), spec)));
    }
    let engines = [
        ("kv 1", engines::kv::build(&facts("1")).unwrap()),
        ("kv 2", engines::kv::build(&facts("2")).unwrap()),
        ("cubbyhole", engines::cubbyhole::build(&facts("")).unwrap()),
        ("database", Arc::new(DatabaseEngine::new())),
        ("ssh", engines::ssh::build(&facts("")).unwrap()),
        ("totp", engines::totp::build(&facts("")).unwrap()),
        ("transit", Arc::new(TransitEngine::new(Arc::new(transit::work_queue())))),
    ];
    for (name, engine) in &engines {
        found.extend(engine.routes().iter().map(|s| (*name, s.pattern.to_owned(), s)));
    }
    found
}
#[test]
fn every_route_is_on_the_page_of_the_api_with_its_fields() {
    let page = fs::read_to_string(root().join("docs/api.md")).unwrap();
    let mut missing = BTreeSet::new();
    for (place, pattern, spec) in routes() {
        let names = spec.fields.iter().map(|field| field.name).filter(|name| *name != "*");
        for name in names.chain([pattern.as_str()]) {
            if !page.contains(&format!("`{name}`")) {
                missing.insert(format!("{place}: {name}"));
            }
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
}
