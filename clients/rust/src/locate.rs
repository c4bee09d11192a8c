//! Finds the worker's program.
//!
//! Owns the search order. Refuses to start what it finds.

use std::path::{Path, PathBuf};

use crate::error::{Error, ErrorKind, Result};

const COMMAND: &str = "omni-bridge";

const VARIABLE: &str = "OMNI_BRIDGE_COMMAND";

/// A path is taken as it is; a bare name is looked for next to the running executable, then on `PATH`. Without a command, the
/// variable `OMNI_BRIDGE_COMMAND` names one, else it is `omni-bridge`.
pub(crate) fn find_command(command: Option<&Path>) -> Result<PathBuf> {
    let configured = std::env::var_os(VARIABLE).filter(|value| !value.is_empty()).map(PathBuf::from);
    let command = command.or(configured.as_deref()).unwrap_or(Path::new(COMMAND));
    if command.components().count() > 1 {
        return Ok(command.to_owned());
    }
    let beside = std::env::current_exe().ok().and_then(|exe| Some(exe.parent()?.to_owned()));
    let path = std::env::var_os("PATH").unwrap_or_default();
    find(command, beside.as_deref(), std::env::split_paths(&path))
}

fn find(name: &Path, beside: Option<&Path>, path: impl Iterator<Item = PathBuf>) -> Result<PathBuf> {
    let file = name.with_extension(std::env::consts::EXE_EXTENSION);
    // The bundle is a folder of the same name with the program in it.
    let near = beside.into_iter().flat_map(|folder| [folder.join(&file), folder.join(name).join(&file)]);
    // The feature `bundle` puts one into the target folder, which is not the folder of tests and examples.
    let built = option_env!("OMNI_BRIDGE_BUNDLE_PROGRAM").filter(|_| name == Path::new(COMMAND)).map(PathBuf::from);
    let found = near.chain(built).chain(path.map(|folder| folder.join(&file))).find(|candidate| is_program(candidate));
    found.ok_or_else(|| {
        let beside = beside.map_or_else(String::new, |folder| format!("beside the executable (in {}), nor ", folder.display()));
        let said = format!("there is no {} {beside}on PATH; install it, or give its path", file.display());
        Error::new(ErrorKind::WorkerNotFound, said)
    })
}

fn is_program(file: &Path) -> bool {
    let Ok(data) = file.metadata() else { return false };
    #[cfg(unix)]
    let may_run = std::os::unix::fs::PermissionsExt::mode(&data.permissions()) & 0o111 != 0;
    #[cfg(not(unix))]
    let may_run = true;
    data.is_file() && may_run
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn program(folder: &Path) -> PathBuf {
        std::fs::create_dir_all(folder).unwrap();
        let file = folder.join(COMMAND);
        std::fs::write(&file, "").unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
        file
    }

    #[test]
    fn the_program_beside_the_executable_comes_before_the_one_on_path() {
        let root = std::env::temp_dir().join(format!("omni-bridge-client-{}", std::process::id()));
        let (beside, first, second) = (root.join("beside"), root.join("first"), root.join("second"));
        std::fs::create_dir_all(&beside).unwrap();
        let search = || find(Path::new(COMMAND), Some(&beside), [first.clone(), second.clone()].into_iter());

        let error = search().unwrap_err();
        assert_eq!(error.kind(), &ErrorKind::WorkerNotFound);
        assert!(error.message().contains("beside"), "{error}");
        let on_path = program(&second);
        std::fs::create_dir_all(first.join(COMMAND)).unwrap(); // a folder of that name is none
        assert_eq!(search().unwrap(), on_path);
        let bundle = program(&beside.join(COMMAND));
        assert_eq!(search().unwrap(), bundle);
        std::fs::remove_dir_all(beside.join(COMMAND)).unwrap();
        let near = program(&beside);
        assert_eq!(search().unwrap(), near);
        std::fs::set_permissions(&near, std::fs::Permissions::from_mode(0o644)).unwrap(); // a file that can't run is none
        assert_eq!(search().unwrap(), on_path);
        std::fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn a_path_is_taken_as_it_is() {
        for path in ["./omni-bridge", "/opt/omni-bridge", "bin/omni-bridge"] {
            assert_eq!(find_command(Some(Path::new(path))).unwrap(), Path::new(path));
        }
    }
}
