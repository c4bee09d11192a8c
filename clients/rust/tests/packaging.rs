//! The package: its content, its public names, its licences, and the build script that places a bundle.

mod common;

#[allow(dead_code, reason = "a build script's modules")]
#[path = "../build/place.rs"]
mod place;
#[path = "../build/sha256.rs"]
mod sha256;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{soon, worker_command};
use omni_bridge_client::{Bridge, ChatRequest};

fn here() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn cargo(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO")).current_dir(here()).args(arguments).output().unwrap();
    assert!(output.status.success(), "cargo {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_digest_is_sha_256() {
    let cases = [
        (String::new(), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
        ("abc".into(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
        ("a".repeat(1_000), "41edece42d63e8d9bf515a9ba6932e1c20cbc9f5a5d134645adb5db1b9737ea3"),
        ("a".repeat(56), "b35439a4ac6f0948b6d6f9e3c6af0f5f590ce20f1bde7090ef7970686ec6738a"),
    ];
    for (text, digest) in cases {
        assert_eq!(sha256::hex(text.as_bytes()), digest, "{}", text.len());
    }
}

#[test]
fn a_pinned_checksum_is_found_by_the_files_name() {
    let list = "# comment  a.tar.gz\n11aa  a.tar.gz\n22bb  b.tar.gz\n";
    assert_eq!(place::pinned(list, "b.tar.gz").as_deref(), Some("22bb"));
    assert_eq!(place::pinned(list, "c.tar.gz"), None);
}

/// A bundle as bin/build-bundle lays it out, whose program is the worker of this checkout.
fn bundle(folder: &Path) -> PathBuf {
    use std::os::unix::fs::PermissionsExt;

    let inner = folder.join("source/omni-bridge");
    std::fs::create_dir_all(&inner).unwrap();
    let program = inner.join("omni-bridge");
    std::fs::write(&program, format!("#!/bin/sh\nexec '{}' \"$@\"\n", worker_command().display())).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let archive = folder.join("bundle.tar.gz");
    let status = Command::new("tar").arg("-czf").arg(&archive).arg("-C").arg(folder.join("source")).arg("omni-bridge").status();
    assert!(status.unwrap().success());
    archive
}

#[tokio::test]
async fn a_bundle_is_placed_beside_the_executables_once_its_checksum_is_right() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("bundle-{}", std::process::id()));
    let target = folder.join("debug");
    std::fs::create_dir_all(&target).unwrap();
    let archive = bundle(&folder);
    let checksum = sha256::hex(&std::fs::read(&archive).unwrap());

    let problem = place::unpack(&archive, &"0".repeat(64), &target).unwrap_err();
    assert!(problem.contains(&checksum) && problem.contains("pinned"), "{problem}");
    assert!(!target.join("omni-bridge").exists());
    std::fs::write(folder.join("broken.tar.gz"), "broken").unwrap();
    let broken = folder.join("broken.tar.gz");
    let problem = place::unpack(&broken, &sha256::hex(b"broken"), &target).unwrap_err();
    assert!(problem.contains("unpack"), "{problem}");

    let program = place::unpack(&archive, &checksum, &target).unwrap();
    assert_eq!(program, target.join("omni-bridge/omni-bridge"));
    let placed = std::fs::metadata(&program).unwrap().modified().unwrap();
    place::unpack(&archive, &checksum, &target).unwrap();
    assert_eq!(std::fs::metadata(&program).unwrap().modified().unwrap(), placed, "it is there already");
    let bridge = soon(Bridge::builder().command(&program).spawn()).await.unwrap();
    assert_eq!(soon(bridge.chat(ChatRequest::new("offline/echo").user("hi"))).await.unwrap().text(), "hi");
    soon(bridge.shutdown()).await;
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn the_package_has_what_a_user_needs_and_nothing_else() {
    let listed = cargo(&["package", "--list", "--allow-dirty", "--quiet"]);
    let files: BTreeSet<&str> = listed.lines().map(|line| line.split('/').next().unwrap()).collect();
    let wanted = ["Cargo.toml", "Cargo.toml.orig", "LICENSE", "README.md", "build", "bundles.sha256", "examples", "src"];
    let extra: Vec<_> =
        files.iter().filter(|file| !wanted.contains(file) && **file != "Cargo.lock" && **file != ".cargo_vcs_info.json").collect();
    assert!(extra.is_empty(), "not for a user: {extra:?}; see `include` in Cargo.toml");
    assert!(wanted.iter().all(|file| files.contains(file)), "{files:?}");
    assert_eq!(std::fs::read(here().join("LICENSE")).unwrap(), std::fs::read(common::repository().join("LICENSE")).unwrap());
}

fn metadata() -> serde_json::Value {
    serde_json::from_str(&cargo(&["metadata", "--format-version", "1", "--all-features"])).unwrap()
}

/// Of every crate that any feature brings. Another licence is a decision: it is added here by a person who has read it.
const LICENCES: &[&str] = &[
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "CC0-1.0",
    "CDLA-Permissive-2.0",
    "ISC",
    "LGPL-2.1-or-later",
    "MIT",
    "MIT-0",
    "OpenSSL",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
    "BSL-1.0",
];

#[test]
fn every_dependency_may_be_used_under_a_listed_licence() {
    for package in metadata()["packages"].as_array().unwrap() {
        let licence = package["license"].as_str().unwrap_or("none").replace(['(', ')'], "").replace('/', " OR ");
        // One alternative suffices, and all of its parts are needed.
        let is_listed = licence.split(" OR ").any(|choice| choice.split(" AND ").all(|part| LICENCES.contains(&part.trim())));
        assert!(is_listed, "{} is under {licence}", package["name"]);
    }
}

#[test]
fn no_feature_costs_few_dependencies() {
    let tree = cargo(&["tree", "--edges", "normal", "--prefix", "none", "--no-default-features"]);
    let crates: BTreeSet<&str> = tree.lines().filter_map(|line| line.split(' ').next()).collect();
    assert!(crates.len() <= 35, "{} crates: {crates:?}", crates.len());
}

/// The source files, each by its module.
fn sources() -> Vec<(String, String)> {
    let (mut sources, mut folders) = (Vec::new(), vec![here().join("src")]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let module = path.strip_prefix(here().join("src")).unwrap().with_extension("").display().to_string();
                sources.push((module, std::fs::read_to_string(&path).unwrap()));
            }
        }
    }
    sources
}

/// The names that a user can write, in `public-api.txt`: a change of the list is a change for users. Rewritten by
/// `UPDATE_PUBLIC_API=1 cargo test --test packaging`.
#[test]
fn the_public_names_are_those_of_the_list() {
    let mut names = BTreeSet::new();
    for (module, text) in sources() {
        names.extend(public_items(&text).into_iter().map(|item| format!("{module}: {item}")));
    }
    let list: String = names.iter().map(|name| format!("{name}\n")).collect();
    let file = here().join("public-api.txt");
    if std::env::var_os("UPDATE_PUBLIC_API").is_some() {
        std::fs::write(&file, &list).unwrap();
    }
    let known = std::fs::read_to_string(&file).unwrap_or_default();
    let (old, new): (BTreeSet<&str>, BTreeSet<&str>) = (known.lines().collect(), list.lines().collect());
    let (gone, added): (Vec<_>, Vec<_>) = (old.difference(&new).collect(), new.difference(&old).collect());
    assert!(gone.is_empty() && added.is_empty(), "gone: {gone:#?}\nadded: {added:#?}\nUPDATE_PUBLIC_API=1 writes the list");
}

/// `pub` items and signatures, each on one line, without bodies, tests and what is `pub(crate)`; and what this crate's macros make
/// items of.
fn public_items(text: &str) -> Vec<String> {
    const MACROS: &[&str] =
        &["results! {", "flags! {", "kinds! {", "object_setters! {", "open_enum! {", "plain_setters! {", "setters! {"];
    let code = text.split("#[cfg(test)]").next().unwrap_or_default();
    let mut items = Vec::new();
    let mut lines = code.lines();
    while let Some(line) = lines.next() {
        let trimmed = line.trim();
        if MACROS.contains(&trimmed) {
            let end = line.replace(trimmed, "}");
            let inner = lines.by_ref().take_while(|line| *line != end).map(str::trim);
            let named = inner.filter(|line| line.starts_with(|first: char| first.is_ascii_alphabetic()));
            items.extend(named.map(|line| format!("{trimmed} {line}")));
        }
        if !trimmed.starts_with("pub ") {
            continue;
        }
        let mut item = trimmed.to_owned();
        let ends = |item: &str| item.ends_with(['{', ';', ',', '}']) && (item.matches('(').count() == item.matches(')').count());
        while !ends(&item) {
            let Some(next) = lines.next() else { break };
            item = format!("{item} {}", next.trim());
        }
        items.push(item.trim_end_matches(['{', ';', ',']).trim().to_owned());
    }
    items
}

/// The public structs, enums, traits and type aliases of a source file, each with its doc comment; those of this crate's macros too.
fn documented_types(text: &str) -> Vec<(String, String)> {
    let code = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
    let (mut types, mut docs, mut macro_end) = (Vec::new(), String::new(), None);
    for line in code.lines() {
        let trimmed = line.trim();
        if let Some(doc) = trimmed.strip_prefix("///") {
            docs += &format!("{}\n", doc.strip_prefix(' ').unwrap_or(doc));
            continue;
        }
        if ["open_enum! {", "results! {"].contains(&trimmed) {
            macro_end = Some(line.replace(trimmed, "}"));
        }
        macro_end = macro_end.filter(|end| end != line);
        let item = ["pub struct ", "pub enum ", "pub trait ", "pub type "].iter().find_map(|start| trimmed.strip_prefix(start));
        let in_macro = macro_end.is_some() && trimmed.ends_with(" {") && !trimmed.ends_with("! {");
        if let Some(item) = item.or(in_macro.then_some(trimmed)) {
            let name: String = item.chars().take_while(|letter| letter.is_ascii_alphanumeric()).collect();
            // `$name` of a macro's definition has none.
            types.extend((!name.is_empty()).then(|| (name, std::mem::take(&mut docs))));
        }
        if !trimmed.starts_with('#') {
            docs.clear();
        }
    }
    types
}

/// Whether a doc comment has a code block that rustdoc compiles as Rust.
fn has_example(docs: &str) -> bool {
    let mut fences = docs.lines().filter_map(|line| line.trim().strip_prefix("```")).step_by(2);
    fences.any(|info| info.split(',').all(|word| ["", "rust", "no_run", "should_panic"].contains(&word.trim())))
}

#[test]
fn every_public_type_has_an_example() {
    let of_file = |(module, text): (String, String)| {
        documented_types(&text).into_iter().map(move |(name, docs)| (format!("{module}::{name}"), docs))
    };
    let types: Vec<_> = sources().into_iter().flat_map(of_file).collect();
    for known in ["bridge::Bridge", "mock::Script", "types/chat::CostSource", "types/services::EngineProcess", "error::ErrorKind"] {
        assert!(types.iter().any(|(name, _)| name == known), "{known} is not found in the sources");
    }
    let without: Vec<_> = types.iter().filter(|(_, docs)| !has_example(docs)).map(|(name, _)| name).collect();
    assert!(without.is_empty(), "these have no example in their doc comment (```, compiled as a doc test): {without:#?}");
}

#[test]
fn an_example_is_a_block_that_rustdoc_compiles() {
    let text_block = "/// A.\n///\n/// ```text\n/// x\n/// ```\n#[derive(Debug)]\npub struct A {\n";
    let types = documented_types(&format!("{text_block}    /// ```\n    /// x\n    /// ```\n    pub b: u8,\n}}\n"));
    assert_eq!(types.len(), 1);
    assert!(!has_example(&types[0].1), "neither a text block nor a member's example counts");
    assert!(has_example("A.\n\n```no_run\nx\n```\n") && !has_example("```ignore\nx\n```\n") && !has_example("A."));
}
