//! `tinyres` and `tinyres-torch`: completions and man pages without it, and how it is started.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

/// `tinyres`, in a directory of its own where no `tinyres-torch` is found.
fn alone(dir: &Path, args: &[&str]) -> Output {
    let program = dir.join("tinyres");
    if !program.exists() {
        std::fs::hard_link(assert_cmd::cargo::cargo_bin!("tinyres"), &program).unwrap();
    }
    let mut command = Command::new(program);
    command.args(args).env("PATH", dir).output().unwrap()
}

fn dir() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

#[test]
fn completions_without_torch_cover_the_other_commands_and_say_so() {
    let dir = dir();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let output = alone(dir.path(), &["completions", shell]);
        let (out, err) = (output.stdout, String::from_utf8_lossy(&output.stderr));
        let out = String::from_utf8(out).unwrap();
        assert!(output.status.success(), "{shell}: {err}");
        assert!(err.contains("flags of train"), "{shell}: {err}");
        assert!(out.contains("val-fraction"), "{shell}: {out}");
        assert!(!out.contains("optimizer"), "{shell}: {out}");
    }
}

#[test]
fn man_pages_without_torch_are_one_for_each_command() {
    let dir = dir();
    let pages = dir.path().join("man");
    let output = alone(dir.path(), &["man", pages.to_str().unwrap()]);
    assert!(output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("flags of train"));
    let page = std::fs::read_to_string(pages.join("tinyres-pack.1")).unwrap();
    assert!(page.contains("val\\-fraction"), "{page}");
    assert!(pages.join("tinyres.1").exists() && pages.join("tinyres-train.1").exists());
}

#[test]
fn a_command_that_needs_torch_says_how_to_build_it() {
    let output = alone(dir().path(), &["train", "shards"]);
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(err.contains("this command needs tinyres-torch"), "{err}");
}

#[test]
fn a_command_of_view_has_its_help_without_it_and_says_how_to_get_it() {
    let dir = dir();
    let help = alone(dir.path(), &["view", "--help"]);
    assert!(String::from_utf8_lossy(&help.stdout).contains("--allow-host"));
    let output = alone(dir.path(), &["view", "shards"]);
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(err.contains("this command needs tinyres-view"), "{err}");
    assert!(
        err.contains("pip install 'tinyres[view]'")
            && err.contains("cargo build --release -p tinyres-view"),
        "{err}"
    );
}

/// libgomp reads its environment before `main`, so the program that becomes `tinyres-torch` must set it.
#[test]
fn torch_is_told_to_wait_without_long_spinning_unless_the_user_says_how() {
    let dir = dir();
    alone(dir.path(), &["--version"]);
    let torch = dir.path().join("tinyres-torch");
    let script = "#!/bin/sh\necho \"$GOMP_SPINCOUNT,$OMP_WAIT_POLICY $*\"\n";
    std::fs::write(&torch, script).unwrap();
    std::fs::set_permissions(&torch, Permissions::from_mode(0o755)).unwrap();
    let started = |variable: Option<(&str, &str)>| {
        let mut command = Command::new(dir.path().join("tinyres"));
        command
            .env_remove("GOMP_SPINCOUNT")
            .env_remove("OMP_WAIT_POLICY");
        let output = command
            .args(["eval", "run", "shards"])
            .envs(variable)
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let by_default = started(None);
    let (spins, rest) = by_default.split_once(',').unwrap();
    assert!(
        (1..300_000).contains(&spins.parse::<u32>().unwrap()),
        "{by_default}"
    );
    assert_eq!(rest, " eval run shards\n");
    assert_eq!(
        started(Some(("GOMP_SPINCOUNT", "7"))),
        "7, eval run shards\n"
    );
    assert_eq!(
        started(Some(("OMP_WAIT_POLICY", "active"))),
        ",active eval run shards\n"
    );
}
