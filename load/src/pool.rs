//! The threads that check what a batch touches: a rayon pool of this crate's own, one per process.
//!
//! `fork` copies no threads, so in a child a pool of the parent's would wait without end; rayon's global pool
//! cannot be replaced. This one is made again in each process that uses it. Nothing here waits for a lock, since a
//! thread of the parent may have held it when the child was made.

use std::process;
use std::sync::mpsc::channel;
use std::thread;

use once_cell::race::OnceBox;
use rayon::{ThreadPool, ThreadPoolBuilder};

/// The pool of a process, and a place for those of its children.
struct Own {
    process: u32,
    pool: ThreadPool,
    /// In a child: the child's pool. That of the parent is left as it is, since to drop it means to wake its threads.
    next: OnceBox<Own>,
}

static FIRST: OnceBox<Own> = OnceBox::new();

/// Runs `work` in the loader's pool: rayon's parallel iterators in it use the pool's threads. There are as many as
/// rayon starts by itself (`RAYON_NUM_THREADS`, or one a core), or fewer if the system allows no more. If it allows
/// none, the calling thread does the work alone.
///
/// Useful for any work with rayon in a process that may have come from `fork`, such as a worker of a Python
/// program.
pub fn install<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    if let Some(pool) = pool() {
        return pool.install(work);
    }
    // Makes the calling thread a pool of one, so that rayon does not start its global pool. It fails if the thread is
    // in a pool already, which will do.
    let _ = (ThreadPoolBuilder::new().num_threads(1))
        .use_current_thread()
        .build();
    work()
}

/// The pool of this process, or `None` if the system allows no thread.
fn pool() -> Option<&'static ThreadPool> {
    let process = process::id();
    let mut place = &FIRST;
    loop {
        match place.get() {
            Some(own) if own.process == process => return Some(&own.pool),
            Some(other) => place = &other.next,
            None => {
                let (pool, next) = (start()?, OnceBox::new());
                // Fails if another thread was first: then the loop finds the pool of that one.
                let _ = place.set(Box::new(Own {
                    process,
                    pool,
                    next,
                }));
            }
        }
    }
}

/// Starts a pool, of fewer threads if the system allows no more. It leaves one for the rest of the process, since to load
/// takes at least one.
fn start() -> Option<ThreadPool> {
    let (end, ended) = channel::<()>();
    // It waits until the other end is dropped.
    let left = thread::Builder::new().spawn(move || ended.recv()).ok()?;
    let pool = largest();
    drop(end);
    let _ = left.join();
    pool
}

/// The largest pool that the system allows.
fn largest() -> Option<ThreadPool> {
    let named = || ThreadPoolBuilder::new().thread_name(|_| "verify".to_owned());
    if let Ok(pool) = named().build() {
        return Some(pool);
    }
    let mut count = thread::available_parallelism().map_or(1, usize::from);
    loop {
        match named().num_threads(count).build() {
            Ok(pool) => return Some(pool),
            Err(_) if count > 1 => count /= 2,
            Err(_) => return None,
        }
    }
}
