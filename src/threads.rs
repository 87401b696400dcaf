//! Threads: as many as the system allows, and OpenMP threads that sleep early while they wait. The global pool and OpenMP
//! are for the programs only, as both are decisions about the whole process.

use std::process::Command;
use std::sync::mpsc::{Receiver, channel};
use std::thread::{self, JoinHandle};

use rayon::{ThreadPool, ThreadPoolBuildError, ThreadPoolBuilder};

/// Starts rayon's global pool, with fewer threads than there are cores if the system allows no more of them. rayon itself
/// would panic. Returns false if the calling thread is the only one: then no other thread may use the pool, as it would wait
/// for the calling one.
pub fn start_pool() -> bool {
    let wanted = thread::available_parallelism().map_or(1, usize::from);
    // One more is left for what is not done in the pool.
    let count = startable(wanted + 1).saturating_sub(1);
    let pool = match count {
        0 => ThreadPoolBuilder::new().num_threads(1).use_current_thread(),
        count if count < wanted => ThreadPoolBuilder::new().num_threads(count),
        _ => ThreadPoolBuilder::new(),
    };
    // Fails if there is a pool already, which will do.
    let _ = pool.build_global();
    count > 0
}

/// A pool of `count` threads, one a core for 0; of fewer if the system allows no more.
///
/// # Errors
/// That of the system if it allows none.
pub fn pool(count: usize) -> Result<ThreadPool, ThreadPoolBuildError> {
    let mut count = match count {
        0 => thread::available_parallelism().map_or(1, usize::from),
        count => count,
    };
    loop {
        match ThreadPoolBuilder::new().num_threads(count).build() {
            Err(_) if count > 1 => count /= 2,
            built => return built,
        }
    }
}

/// Bytes of the stack of a thread that OpenMP starts, unless a user says otherwise. Only what is touched takes memory.
const STACK: usize = 8 << 20;

/// The number of threads, up to `wanted`, that can be started at this moment and run at once.
#[must_use]
pub fn startable(wanted: usize) -> usize {
    let begin = |_| -> Option<(_, JoinHandle<()>)> {
        let (end, over): (_, Receiver<()>) = channel();
        let wait = move || {
            // An error: the other end is dropped.
            let _ = over.recv();
        };
        let builder = thread::Builder::new().stack_size(STACK);
        Some((end, builder.spawn(wait).ok()?))
    };
    let (ends, threads): (Vec<_>, Vec<_>) = (0..wanted).map_while(begin).unzip();
    drop(ends);
    let ended = threads.into_iter().map(JoinHandle::join);
    ended.filter(Result::is_ok).count()
}

/// The variables by which people choose how the threads of libgomp wait.
const CHOSEN: [&str; 2] = ["GOMP_SPINCOUNT", "OMP_WAIT_POLICY"];
/// Rounds of the loop in which a thread waits before it sleeps. libgomp's own 300,000 are longer than a slice of
/// the scheduler: on a busy machine the thread that waits then burns the core that the one it waits for needs.
/// `benches/busy.py` compares other numbers. This one costs a quiet machine about 5% (AMD Zen 5).
const SPINS: &str = "1000";

/// Makes the OpenMP threads of `command` sleep early. libgomp reads this when it is loaded, before `main`, so it can be
/// told to a program that is about to be started, and not to this one. Returns false, and changes nothing, if the
/// environment already says how they wait.
pub fn sleep_early(command: &mut Command) -> bool {
    let chosen = CHOSEN.iter().any(|name| std::env::var_os(name).is_some());
    if !chosen {
        command.env(CHOSEN[0], SPINS);
    }
    !chosen
}
