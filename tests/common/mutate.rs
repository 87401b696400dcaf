//! Runs a fuzzer's target on the stable toolchain: every seed, then seeds changed at random, the same ones in every
//! run. The torch crate's tests use it, too.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tinyres_format::{Draws, Stream};

/// The longest input that mutation makes, in bytes.
const LONGEST: usize = 16_384;
/// How long one input may take. The slowest takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(60);

pub fn list(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

/// Runs the seeds of `target` in the directory `fuzz`, then `runs` mutations of them, or as many as `TINYRES_FUZZ_RUNS`
/// says. The input that it panics or hangs on is kept in a file. Seeds called `whole` must be taken.
pub fn run(fuzz: &Path, name: &str, target: fn(&[u8]) -> bool, runs: u64) {
    let runs = std::env::var("TINYRES_FUZZ_RUNS").map_or(runs, |count| count.parse().unwrap());
    let files = list(&fuzz.join("seeds").join(name));
    let seeds: Vec<_> = files.iter().map(|file| fs::read(file).unwrap()).collect();
    let whole: Vec<_> = files
        .iter()
        .map(|file| file.file_stem() == Some("whole".as_ref()))
        .collect();
    let current = Arc::new(Mutex::new(Vec::new()));
    let (progress, watch) = channel();
    let worker = std::thread::spawn({
        let current = Arc::clone(&current);
        move || {
            for at in 0..seeds.len() as u64 + runs {
                let seed = usize::try_from(at).ok().filter(|&at| at < seeds.len());
                let input = seed.map_or_else(|| mutated(&seeds, at), |seed| seeds[seed].clone());
                current
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .clone_from(&input);
                let taken = target(&input);
                assert!(
                    taken || !seed.is_some_and(|seed| whole[seed]),
                    "a whole seed is refused"
                );
                progress.send(()).expect("the test waits");
            }
        }
    });
    let end = loop {
        match watch.recv_timeout(PATIENCE) {
            Ok(()) => {}
            Err(RecvTimeoutError::Timeout) => break "hangs",
            Err(RecvTimeoutError::Disconnected) if worker.join().is_ok() => return,
            Err(RecvTimeoutError::Disconnected) => break "fails",
        }
    };
    let input = current
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .clone();
    let kept = std::env::temp_dir().join(format!(
        "tinyres-fuzz-{name}-{:08x}",
        crc32fast::hash(&input)
    ));
    fs::write(&kept, &input).unwrap();
    panic!(
        "{name} {end} on {}: mend it, and keep the file in fuzz/seeds/{name}",
        kept.display()
    );
}

/// A seed after one to eight changes that follow from `at`.
fn mutated(seeds: &[Vec<u8>], at: u64) -> Vec<u8> {
    let draws = Draws::new(0, Stream::Sample, at);
    let mut next = 0;
    let mut below = |bound: usize| {
        next += 1;
        usize::try_from(draws.below(next, bound as u64)).expect("below a usize")
    };
    let mut bytes = seeds[below(seeds.len())].clone();
    for _ in 0..=below(8) {
        let (start, other) = (below(bytes.len() + 1), &seeds[below(seeds.len())]);
        let stop = bytes.len().min(start + 1 + below(16));
        let from = below(other.len() + 1);
        let until = other.len().min(from + 1 + below(16));
        let byte = u8::try_from(below(256)).expect("a byte");
        match below(7) {
            0 => bytes[start..stop]
                .iter_mut()
                .take(1)
                .for_each(|old| *old = byte),
            1 => bytes[start..stop]
                .iter_mut()
                .take(1)
                .for_each(|old| *old ^= 1 << (byte % 8)),
            2 => bytes[start..stop].fill([0, 0xFF, 0x7F, b'0', b'9'][usize::from(byte) % 5]),
            3 => drop(bytes.drain(start..stop)),
            4 => drop(bytes.splice(start..start, other[from..until].iter().copied())),
            5 => drop(bytes.splice(start..stop, other[from..until].iter().copied())),
            _ => bytes.truncate(if byte < 16 { start } else { LONGEST }),
        }
    }
    bytes.truncate(LONGEST);
    bytes
}
