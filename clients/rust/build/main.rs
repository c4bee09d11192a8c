//! With the feature `bundle`: puts the worker into the target folder. Without it: does nothing.

mod place;
mod sha256;

use std::path::{Path, PathBuf};
use std::process::Command;

const PATH: &str = "OMNI_BRIDGE_BUNDLE";
const URL: &str = "OMNI_BRIDGE_BUNDLE_URL";
const CHECKSUM: &str = "OMNI_BRIDGE_BUNDLE_SHA256";

fn main() {
    println!("cargo::rerun-if-changed=build");
    for variable in [PATH, URL, CHECKSUM, "DOCS_RS"] {
        println!("cargo::rerun-if-env-changed={variable}");
    }
    // docs.rs builds all features and has no network.
    if std::env::var_os("CARGO_FEATURE_BUNDLE").is_none() || std::env::var_os("DOCS_RS").is_some() {
        return;
    }
    match provide() {
        Ok(program) => println!("cargo::rustc-env=OMNI_BRIDGE_BUNDLE_PROGRAM={}", program.display()),
        Err(problem) => println!("cargo::error=the feature bundle of omni-bridge-client: {problem}"),
    }
}

fn provide() -> Result<PathBuf, String> {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let folder = PathBuf::from(variable("CARGO_MANIFEST_DIR").unwrap_or_default());
    let out = PathBuf::from(variable("OUT_DIR").unwrap_or_default());
    let [system, machine] = ["CARGO_CFG_TARGET_OS", "CARGO_CFG_TARGET_ARCH"].map(|name| variable(name).unwrap_or_default());
    let version = variable("CARGO_PKG_VERSION").unwrap_or_default();
    let name = format!("omni-bridge-{version}-{system}-{machine}.tar.gz");
    let archive = match (variable(PATH), variable(URL)) {
        (Some(path), _) => PathBuf::from(path),
        (None, Some(url)) => download(&format!("{}/{name}", url.trim_end_matches('/')), &out.join(&name))?,
        (None, None) => folder.join("bundle").join(&name),
    };
    println!("cargo::rerun-if-changed={}", archive.display());
    if !archive.is_file() {
        return Err(format!(
            "there is no {}. Set {PATH} to the path of {name}, or {URL} to the address of the folder that has it, or put it there. \
             bin/build-bundle makes it.",
            archive.display()
        ));
    }
    let pinned = std::fs::read_to_string(folder.join("bundles.sha256")).unwrap_or_default();
    let checksum = variable(CHECKSUM).or_else(|| place::pinned(&pinned, &name)).ok_or_else(|| {
        format!("bundles.sha256 of this crate has no checksum of {name}; for a bundle of your own, set {CHECKSUM} to its SHA-256")
    })?;
    // OUT_DIR is target/PROFILE/build/PACKAGE/out: the bundle goes where the executables go.
    let profile = out.ancestors().nth(3).ok_or("OUT_DIR has no parent folders")?;
    place::unpack(&archive, &checksum, profile)
}

fn download(url: &str, to: &Path) -> Result<PathBuf, String> {
    let status =
        Command::new("curl").args(["--fail", "--silent", "--show-error", "--location", "--output"]).arg(to).arg(url).status();
    match status {
        Ok(status) if status.success() => Ok(to.to_owned()),
        Ok(status) => Err(format!("curl could not get {url} ({status}); without a network, set {PATH} to a file")),
        Err(error) => Err(format!("curl can't be started: {error}; get {url} by other means, and set {PATH} to the file")),
    }
}
