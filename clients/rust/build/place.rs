//! Checks a bundle against its checksum, and unpacks it.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::sha256;

const MARKER: &str = ".sha256-of-archive";

/// The checksum of a file in a list as `sha256sum` writes it.
pub(crate) fn pinned(list: &str, name: &str) -> Option<String> {
    let line = list.lines().filter(|line| !line.starts_with('#')).find(|line| line.split_whitespace().nth(1) == Some(name))?;
    line.split_whitespace().next().map(str::to_owned)
}

/// Unpacks `archive` as `folder/omni-bridge`, unless it is there already, and returns the program in it.
pub(crate) fn unpack(archive: &Path, checksum: &str, folder: &Path) -> Result<PathBuf, String> {
    let at = |what: &'static str| move |error: std::io::Error| format!("{what}: {error}");
    let bytes = std::fs::read(archive).map_err(at("the bundle can't be read"))?;
    let found = sha256::hex(&bytes);
    if !found.eq_ignore_ascii_case(checksum) {
        return Err(format!("{} has the SHA-256 {found}, but {checksum} is pinned", archive.display()));
    }
    let bundle = folder.join("omni-bridge");
    let program = bundle.join("omni-bridge").with_extension(std::env::consts::EXE_EXTENSION);
    if std::fs::read_to_string(bundle.join(MARKER)).is_ok_and(|marker| marker == found) {
        return Ok(program);
    }
    let temporary = folder.join(format!(".omni-bridge-{}", std::process::id()));
    std::fs::create_dir_all(&temporary).map_err(at("no temporary folder"))?;
    let status =
        Command::new("tar").arg("-xzf").arg(archive).arg("-C").arg(&temporary).status().map_err(at("tar can't be started"))?;
    let unpacked = temporary.join("omni-bridge");
    if !status.success() || !unpacked.is_dir() {
        return Err(format!("tar could not unpack a folder omni-bridge from {} ({status})", archive.display()));
    }
    std::fs::write(unpacked.join(MARKER), &found).map_err(at("the bundle can't be written"))?;
    if bundle.is_dir() {
        std::fs::remove_dir_all(&bundle).map_err(at("the previous bundle can't be removed"))?;
    }
    std::fs::rename(&unpacked, &bundle).map_err(at("the bundle can't be moved to its place"))?;
    std::fs::remove_dir_all(&temporary).map_err(at("the temporary folder can't be removed"))?;
    Ok(program)
}
