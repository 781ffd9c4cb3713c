//! The shape of the source: which module may use which, what each crate is confined to, and that no
//! file is forgotten.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Which top module may use which others. Anything else is refused.
const EDGES: &[(&str, &[&str])] = &[
    ("types", &[]),
    ("crypto", &["types"]),
    ("storage", &["crypto", "types"]),
    ("core", &["crypto", "storage", "types"]),
    ("engines", &["core", "crypto", "types"]),
    ("auth", &["core", "crypto", "types"]),
    ("audit", &["core", "crypto", "types"]),
    ("scheduler", &["core", "storage", "types"]),
    ("api", &["core", "types"]),
    ("client", &["types"]),
    (
        "server",
        &["api", "audit", "auth", "core", "crypto", "engines", "scheduler", "storage", "types"],
    ),
    ("cli", &["client", "server", "types"]),
];

/// Crates that only some modules may name.
const CONFINED: &[(&str, &[&str])] = &[
    ("axum", &["api", "server"]),
    ("hyper", &["api", "client", "server"]),
    ("rusqlite", &["storage"]),
    ("tokio_postgres", &["storage", "engines"]),
    ("deadpool_postgres", &["storage", "engines"]),
    ("aes_gcm", &["crypto"]),
    ("chacha20poly1305", &["crypto"]),
    ("hmac", &["crypto"]),
    ("sha2", &["crypto"]),
    ("pbkdf2", &["crypto"]),
    ("getrandom", &["types"]),
    ("rcgen", &["cli"]),
    ("clap", &["cli"]),
];

/// Names that say nothing about what is in a file.
const EMPTY_NAMES: &[&str] = &["util", "utils", "common", "helpers", "helper", "misc", "manager"];

const TOP_LEVEL: &[&str] = &[
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE",
    "README.md",
    "SECURITY.md",
    "benches",
    "config",
    "deploy",
    "docs",
    "migrations",
    "src",
    "target",
    "tests",
];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn rust_files(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|end| end == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

/// The top module that a source file belongs to; `None` for the two crate roots.
fn top_module(path: &Path) -> Option<String> {
    let relative = path.strip_prefix(root().join("src")).unwrap();
    let first = relative.components().next().unwrap().as_os_str().to_str().unwrap();
    let name = first.strip_suffix(".rs").unwrap_or(first).to_owned();
    (name != "lib" && name != "main").then_some(name)
}

fn is_test_file(path: &Path) -> bool {
    path.file_stem().is_some_and(|stem| stem == "tests")
        || path.components().any(|part| part.as_os_str() == "tests")
}

/// The text of a file without its trailing test module, comments and strings' worth of noise.
fn code(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    let end = text.find("#[cfg(test)]\nmod tests {").unwrap_or(text.len());
    text[..end].lines().map(|line| line.split("//").next().unwrap()).collect::<Vec<_>>().join("\n")
}

/// The modules named right after `crate::`, grouped imports included.
fn used_modules(code: &str) -> BTreeSet<String> {
    let mut used = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        if code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let rest = &code[at + "crate::".len()..];
        if let Some(group) = rest.strip_prefix('{') {
            let mut depth = 0;
            let mut name = String::new();
            for c in group.chars() {
                match c {
                    '{' => depth += 1,
                    '}' if depth == 0 => break,
                    '}' => depth -= 1,
                    ',' if depth == 0 => {
                        used.insert(std::mem::take(&mut name));
                    }
                    _ if depth == 0 => name.push(c),
                    _ => {}
                }
            }
            used.insert(name);
        } else {
            used.insert(rest.to_owned());
        }
    }
    used.into_iter()
        .filter_map(|text| {
            let text = text.trim_start();
            let end = text.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(text.len());
            (end > 0).then(|| text[..end].to_owned())
        })
        .collect()
}

#[test]
fn modules_use_only_what_the_architecture_allows() {
    let allowed: BTreeMap<&str, &[&str]> = EDGES.iter().copied().collect();
    let mut wrong = Vec::new();
    let mut seen = BTreeSet::new();
    for file in rust_files(&root().join("src")) {
        let Some(module) = top_module(&file) else { continue };
        seen.insert(module.clone());
        if is_test_file(&file) {
            continue;
        }
        let Some(targets) = allowed.get(module.as_str()) else {
            wrong.push(format!("{}: module {module} has no edges listed", file.display()));
            continue;
        };
        for used in used_modules(&code(&file)) {
            if used != module && !targets.contains(&used.as_str()) {
                wrong.push(format!("{}: {module} may not use {used}", file.display()));
            }
        }
    }
    assert!(seen.len() >= 10, "the scan found only {seen:?}");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_table_of_edges_has_no_cycle() {
    let edges: BTreeMap<&str, &[&str]> = EDGES.iter().copied().collect();
    fn reaches<'a>(
        edges: &BTreeMap<&'a str, &'a [&'a str]>,
        from: &'a str,
        goal: &str,
        depth: usize,
    ) -> bool {
        depth < 20
            && edges[from].iter().any(|next| *next == goal || reaches(edges, next, goal, depth + 1))
    }
    for (module, _) in EDGES {
        assert!(!reaches(&edges, module, module, 0), "{module} reaches itself");
    }
}

#[test]
fn crates_stay_where_they_belong() {
    let mut wrong = Vec::new();
    for file in rust_files(&root().join("src")) {
        let Some(module) = top_module(&file) else { continue };
        if is_test_file(&file) {
            continue;
        }
        let code = code(&file);
        for (name, modules) in CONFINED {
            let named = code.match_indices(&format!("{name}::")).any(|(at, _)| {
                !code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':')
            });
            if named && !modules.contains(&module.as_str()) {
                wrong.push(format!("{}: {module} may not use the crate {name}", file.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn files_are_named_after_what_is_in_them() {
    for file in rust_files(&root().join("src")) {
        let stem = file.file_stem().unwrap().to_str().unwrap();
        assert!(!EMPTY_NAMES.contains(&stem), "{}", file.display());
    }
}

#[test]
fn the_visible_top_level_is_the_documented_one() {
    for entry in fs::read_dir(root()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(
            name.starts_with('.') || TOP_LEVEL.contains(&name.as_str()),
            "{name} does not belong at the top level"
        );
    }
}

#[test]
fn main_only_parses_dispatches_and_exits() {
    let lines = fs::read_to_string(root().join("src/main.rs")).unwrap().lines().count();
    assert!(lines <= 40, "src/main.rs has {lines} lines");
}

#[test]
fn the_crate_root_exports_modules_and_nothing_else() {
    let text = fs::read_to_string(root().join("src/lib.rs")).unwrap();
    assert!(!text.contains("pub use"), "an item has one path");
}

#[test]
fn every_integration_test_file_is_listed() {
    let dir = root().join("tests/it");
    let main = fs::read_to_string(dir.join("main.rs")).unwrap();
    for entry in fs::read_dir(&dir).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let stem = name.strip_suffix(".rs").unwrap_or(&name);
        if stem == "main" || stem == "vectors" || stem == "snapshots" {
            continue;
        }
        assert!(main.contains(&format!("mod {stem};")), "tests/it/{name} is not in main.rs");
    }
}

/// A peer that did not come out of a handshake would be a forged identity.
#[test]
fn only_the_tls_server_makes_peers() {
    for file in rust_files(&root().join("src")) {
        let relative = file.strip_prefix(root().join("src")).unwrap().to_str().unwrap().to_owned();
        if is_test_file(&file) || relative == "core/peer.rs" {
            continue;
        }
        let makes = code(&file).contains("from_handshake(");
        assert_eq!(
            makes,
            relative == "server/tls.rs" || relative == "server/accept.rs" && makes,
            "{relative}"
        );
    }
}

/// Waiting for the wall clock makes tests slow and flaky; clocks are moved instead.
#[test]
fn no_test_is_skipped() {
    for file in rust_files(&root().join("tests")).into_iter().chain(rust_files(&root().join("src")))
    {
        let text = fs::read_to_string(&file).unwrap();
        let marker = ["#[ig", "nore"].concat();
        assert!(!text.contains(&marker), "{} skips a test", file.display());
    }
}

/// Each point at which tests kill the process is passed somewhere, and each that is passed is known.
#[cfg(feature = "failpoints")]
#[test]
fn every_fail_point_is_listed_once_and_used() {
    use leasehold::core::failpoint::FAIL_POINTS;
    let mut used = BTreeSet::new();
    for file in rust_files(&root().join("src")) {
        let code = code(&file);
        let parts = code.split("fail_point(\"").skip(1);
        used.extend(parts.map(|rest| rest.split('"').next().unwrap().to_owned()));
    }
    let listed: BTreeSet<String> = FAIL_POINTS.iter().map(|name| (*name).to_owned()).collect();
    assert_eq!(listed.len(), FAIL_POINTS.len(), "a fail point is listed twice");
    assert_eq!(listed, used);
}
