//! The threads that check what a batch touches: a rayon pool of this crate's own, one per process.
//!
//! `fork` copies no threads, so in a child a pool of the parent's would wait without end; rayon's global pool
//! cannot be replaced. This one is made again in each process that uses it. Nothing here waits for a lock of another
//! process, since a thread of the parent may have held it when the child was made.

use std::process;
use std::sync::mpsc::channel;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

use once_cell::race::OnceBox;
use rayon::{ThreadPool, ThreadPoolBuilder};

/// The pool of a process, and a place for those of its children.
struct Own {
    process: u32,
    pool: ThreadPool,
    /// Held by who has the [`turn()`].
    turn: Mutex<()>,
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
    if let Some(own) = own() {
        return own.pool.install(work);
    }
    // Makes the calling thread a pool of one, so that rayon does not start its global pool. It fails if the thread is
    // in a pool already, which will do.
    let _ = (ThreadPoolBuilder::new().num_threads(1))
        .use_current_thread()
        .build();
    work()
}

/// Waits until no other thread has the turn. Who has it has the pool to itself, among those who ask for it: where two share
/// the pool, the work of each takes as long as that of both.
///
/// A thread of a pool gets none and does not wait: while its own work is done, it takes up other work, which may ask, too.
pub(super) fn turn() -> Option<MutexGuard<'static, ()>> {
    let own = own().filter(|_| rayon::current_thread_index().is_none())?;
    Some(own.turn.lock().unwrap_or_else(PoisonError::into_inner))
}

/// The pool of this process, or `None` if the system allows no thread.
fn own() -> Option<&'static Own> {
    let process = process::id();
    let mut place = &FIRST;
    loop {
        match place.get() {
            Some(own) if own.process == process => return Some(own),
            Some(other) => place = &other.next,
            None => {
                let (pool, next) = (start()?, OnceBox::new());
                // Fails if another thread was first: then the loop finds the pool of that one.
                let _ = place.set(Box::new(Own {
                    process,
                    pool,
                    turn: Mutex::new(()),
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Duration;

    use rayon::prelude::*;

    use super::*;

    #[test]
    fn one_thread_has_the_turn() {
        let at_work = AtomicU32::new(0);
        let work = || {
            let _turn = turn();
            assert_eq!(at_work.fetch_add(1, Ordering::SeqCst), 0);
            install(|| thread::sleep(Duration::from_millis(1)));
            assert_eq!(at_work.fetch_sub(1, Ordering::SeqCst), 1);
        };
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(work);
            }
        });
    }

    #[test]
    fn threads_of_pools_do_not_wait_for_their_turn() {
        // Such a thread takes up the next number while it waits for the work of the one before.
        let other = ThreadPoolBuilder::new().num_threads(2).build().unwrap();
        let count = |_| {
            let _turn = turn();
            install(|| (0..100).into_par_iter().count())
        };
        let sum = || (0..1000).into_par_iter().map(count).sum::<usize>();
        assert_eq!(other.install(sum), 100_000);
        assert_eq!(install(sum), 100_000);
    }

    #[test]
    fn a_panic_gives_the_turn_back() {
        let panicked = thread::spawn(|| {
            let _turn = turn();
            panic!("of a test");
        });
        assert!(panicked.join().is_err());
        assert!(turn().is_some());
    }
}
