//! The other programs of tinyres: they lie next to the one that runs, or in `PATH`.

use std::env;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The file of this program, if it is not that of the process.
static FILE: OnceLock<PathBuf> = OnceLock::new();

/// Says that this program lies in `file`, and not in that of the process: a script of Python.
pub(crate) fn started_as(file: &Path) {
    // A second call would say the same.
    let _ = FILE.set(file.to_owned());
}

/// The place of the program `name` next to this one.
pub(crate) fn place(name: &str) -> io::Result<PathBuf> {
    let itself = FILE.get().cloned().map_or_else(env::current_exe, Ok)?;
    Ok(itself.canonicalize().unwrap_or(itself).with_file_name(name))
}

/// A command that runs the program `name`, from its [`place`] or from `PATH`. If that one is a script, the program itself
/// lies elsewhere, so the place of this one is the last in its `PATH`.
pub(crate) fn command(name: &str) -> io::Result<Command> {
    let place = place(name)?;
    let path = env::var_os("PATH");
    let dirs = path.iter().flat_map(env::split_paths);
    let mut command = Command::new(match place.is_file() {
        true => place.as_path(),
        false => Path::new(name),
    });
    // A directory with a colon in its name cannot be in it.
    if let Ok(path) = env::join_paths(dirs.chain(place.parent().map(Path::to_owned))) {
        command.env("PATH", path);
    }
    Ok(command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_looked_for_in_the_directory_of_this_one_and_then_in_path() {
        let itself = env::current_exe().unwrap().canonicalize().unwrap();
        let (dir, name) = (itself.parent().unwrap(), itself.file_name().unwrap());
        let found = command(name.to_str().unwrap()).unwrap();
        assert_eq!(Path::new(found.get_program()), itself);
        let missing = command("no-such-program").unwrap();
        assert_eq!(missing.get_program(), "no-such-program");
        for command in [found, missing] {
            let (_, path) = command
                .get_envs()
                .find(|(name, _)| *name == "PATH")
                .unwrap();
            let last = env::split_paths(path.unwrap()).last();
            assert_eq!(last.as_deref(), Some(dir));
        }
    }
}
