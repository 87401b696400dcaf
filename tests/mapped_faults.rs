//! Faults in mapped files. They end the process, so each case runs in a process of its own: this test
//! program again, with the case named in an environment variable.

use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Barrier;

use nix::libc;
use nix::sys::signal::{Signal, raise};
use tinyres::ui::prepare_process;
use tinyres_format::Map;

const CASE: &str = "TINYRES_TEST_FAULT";
const FILE: &str = "TINYRES_TEST_FILE";

#[expect(unsafe_code, reason = "the test breaks the rule of the map on purpose")]
fn map(path: &Path) -> Map {
    // SAFETY: broken on purpose: the file is cut while it is mapped, but nothing read then is used.
    unsafe { Map::open(path) }.unwrap()
}

fn touch(map: &Map) {
    std::hint::black_box(map.iter().fold(0u8, |sum, byte| sum ^ byte));
}

/// Reads a field of an object that is not there.
fn read_null() {
    #[expect(unsafe_code, reason = "the test does on purpose what faulty code does")]
    // SAFETY: nothing lies there, so the process ends here.
    unsafe {
        std::hint::black_box(std::ptr::without_provenance::<u8>(8).read_volatile());
    }
}

/// The code of each process. Run as a test, it does nothing.
#[test]
fn child() {
    let Ok(case) = std::env::var(CASE) else {
        return;
    };
    let path = PathBuf::from(std::env::var_os(FILE).unwrap());
    let other = path.with_file_name("another");
    fs::write(&other, [1; 8192]).unwrap();
    let cut = || {
        File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .set_len(5000)
    };
    match &case[..] {
        "one thread" => {
            prepare_process();
            let maps = [map(&other), map(&path), map(&other)];
            cut().unwrap();
            maps.iter().for_each(touch);
        }
        "many threads" => {
            prepare_process();
            let map = map(&path);
            cut().unwrap();
            let together = Barrier::new(8);
            std::thread::scope(|scope| {
                for _ in 0..8 {
                    scope.spawn(|| {
                        together.wait();
                        touch(&map);
                    });
                }
            });
        }
        "not reported" => {
            let map = map(&path);
            cut().unwrap();
            touch(&map);
        }
        "mapped before" => {
            let map = map(&path);
            prepare_process();
            cut().unwrap();
            touch(&map);
        }
        "no map of ours" => {
            prepare_process();
            // The foreign map is likely to get the addresses of these, which are unmapped.
            for _ in 0..3 {
                drop(map(&path));
            }
            let file = File::open(&path).unwrap();
            #[expect(unsafe_code, reason = "the test breaks the rule of the map on purpose")]
            // SAFETY: as in `map`.
            let foreign = unsafe { memmap2::Mmap::map(&file) }.unwrap();
            cut().unwrap();
            std::hint::black_box(foreign.iter().fold(0u8, |sum, byte| sum ^ byte));
        }
        "sent" => {
            prepare_process();
            let map = map(&path);
            raise(Signal::SIGBUS).unwrap();
            touch(&map);
        }
        "whole" => {
            prepare_process();
            touch(&map(&path));
        }
        "null" => {
            prepare_process();
            read_null();
        }
        "null without memory" => {
            prepare_process();
            let limit = libc::rlimit {
                rlim_cur: 1 << 20,
                rlim_max: 1 << 20,
            };
            #[expect(unsafe_code, reason = "nothing safe takes the memory away")]
            // SAFETY: changes what this process gets from now on.
            let set = unsafe { libc::setrlimit(libc::RLIMIT_AS, &raw const limit) };
            assert_eq!(set, 0);
            read_null();
        }
        other => panic!("no case {other}"),
    }
}

fn run(case: &str) -> (Output, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("train-00000.bin");
    fs::write(&path, vec![7; 1 << 20]).unwrap();
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["child", "--exact", "--nocapture"])
        .env(CASE, case)
        .env(FILE, &path)
        .env_remove("CLICOLOR_FORCE")
        .current_dir(dir.path()) // for the core that the system may dump
        .output()
        .unwrap();
    (output, path)
}

#[test]
fn a_fault_in_a_map_names_its_file() {
    for case in ["one thread", "many threads"] {
        let (output, path) = run(case);
        assert_eq!(output.status.code(), Some(1), "{case}: {output:?}");
        let expected = format!(
            "error: {}: its bytes can no longer be read: the disk failed, or the file was cut while in use; copy or pack it again\n",
            path.display()
        );
        assert_eq!(
            String::from_utf8(output.stderr).unwrap(),
            expected,
            "{case}"
        );
    }
}

#[test]
fn a_null_pointer_is_told_as_missing_memory_where_there_is_none() {
    let (output, _) = run("null without memory");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert_eq!(
        String::from_utf8(output.stderr).unwrap(),
        "error: not enough memory: free some, or ask for less at once (--batch, --threads)\n"
    );
    let (output, _) = run("null");
    let signal = output.status.signal();
    assert_eq!(signal, Some(Signal::SIGSEGV as i32), "{output:?}");
}

#[test]
fn any_other_fault_ends_the_program_with_sigbus() {
    for case in ["not reported", "mapped before", "no map of ours", "sent"] {
        let (output, _) = run(case);
        let signal = output.status.signal();
        assert_eq!(signal, Some(Signal::SIGBUS as i32), "{case}: {output:?}");
        assert_eq!(String::from_utf8(output.stderr).unwrap(), "", "{case}");
    }
    assert!(run("whole").0.status.success());
}
