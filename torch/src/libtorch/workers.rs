//! Workers: threads that compute whole tasks, each by itself. libtorch divides every operation among its threads and joins
//! them after it, so one thread that the scheduler holds up holds up all of them, many times a step. A worker
//! takes the next task when it is free and waits for the others at the end alone.
//!
//! Results do not depend on which worker has which task: they come in the order of the tasks, and every worker
//! computes with the same number of libtorch's threads.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rayon::ThreadPool;
use tch::Device;
use tinyres::threads::{pool, startable};

use super::{LOADER, ffi, set_threads, threads};
use crate::{Error, Result};

/// Threads that compute whole tasks.
#[derive(Debug)]
pub struct Workers {
    /// `None`: the calling thread is the only worker.
    pool: Option<ThreadPool>,
    /// Threads of libtorch in each worker.
    threads: usize,
}

impl Workers {
    /// The calling thread alone, with all threads that libtorch has there. For a GPU, which has threads of its own.
    #[must_use]
    pub fn calling_thread() -> Self {
        Self {
            pool: None,
            threads: threads(),
        }
    }

    /// Makes as many workers as the calling thread has threads of libtorch, but no more than `most`; with `most` below the
    /// threads, each worker has several. Where the system starts no more threads, fewer workers do the same.
    #[must_use]
    pub fn new(most: usize) -> Self {
        let all = threads();
        let count = all.min(most).max(1);
        let mut workers = Self {
            pool: None,
            threads: all / count,
        };
        let helpers = count * (workers.threads - 1);
        // OpenMP ends the process if it cannot start a thread, and whoever loads or decodes needs one, too.
        let needed = count + helpers + LOADER;
        if count == 1 || startable(needed) < needed {
            return workers;
        }
        workers.pool = pool(count).ok();
        if let Some(pool) = &workers.pool {
            let ready = pool.broadcast(|_| {
                set_threads(workers.threads);
                ffi::start_threads().is_ok()
            });
            // Threads that start from now on take the number that was set last.
            set_threads(all);
            if ready.contains(&false) {
                workers.pool = None;
            }
        }
        workers
    }

    /// Makes as many workers as there are threads for what `device` computes.
    pub(crate) fn on(device: Device) -> Self {
        match device {
            Device::Cpu => Self::new(usize::MAX),
            _ => Self::calling_thread(),
        }
    }

    /// The number of workers.
    #[must_use]
    pub fn count(&self) -> usize {
        self.pool
            .as_ref()
            .map_or(1, ThreadPool::current_num_threads)
    }

    /// Calls `work` with each of `tasks` and the number of the worker that has it, and returns what it returns, in the
    /// order of the tasks. Workers take tasks in this order: give the largest ones first.
    ///
    /// # Errors
    /// The error of the first task that failed, [`Error::Panicked`] if it panicked.
    pub fn each<T: Send, R: Send>(
        &self,
        tasks: Vec<T>,
        work: impl Fn(usize, T) -> Result<R> + Sync,
    ) -> Result<Vec<R>> {
        let queue = Mutex::new(tasks.into_iter().enumerate());
        let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).next();
        let take = |worker| {
            let mut done = Vec::new();
            while let Some((index, task)) = next() {
                let result = catch_unwind(AssertUnwindSafe(|| work(worker, task)));
                done.push((index, result.unwrap_or_else(|panic| Err(panicked(&*panic)))));
            }
            done
        };
        let mut done = match &self.pool {
            Some(pool) => pool
                .broadcast(|at| take(at.index()))
                .into_iter()
                .flatten()
                .collect(),
            None => {
                let all = threads();
                if self.threads == all {
                    take(0)
                } else {
                    set_threads(self.threads);
                    let done = take(0);
                    set_threads(all);
                    done
                }
            }
        };
        done.sort_unstable_by_key(|&(index, _)| index);
        done.into_iter().map(|(_, result)| result).collect()
    }
}

/// A value for each worker, such as a network: no two threads may use the same tensors at once.
#[derive(Debug)]
pub(crate) struct PerWorker<S>(Vec<Mutex<S>>);

impl<S> PerWorker<S> {
    /// One by `make` for each of `workers`.
    ///
    /// # Errors
    /// The first of `make`.
    pub(crate) fn new(workers: &Workers, make: impl Fn() -> Result<S>) -> Result<Self> {
        let each = (0..workers.count()).map(|_| Ok(Mutex::new(make()?)));
        Ok(Self(each.collect::<Result<_>>()?))
    }

    /// The value of `worker`.
    pub(crate) fn of(&self, worker: usize) -> MutexGuard<'_, S> {
        self.0[worker]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Divides `0..total` into `count` ranges, whose lengths differ by at most one.
pub(crate) fn equal_parts(total: i64, count: i64) -> Vec<Range<i64>> {
    let start = |part| total * part / count;
    (0..count)
        .map(|part| start(part)..start(part + 1))
        .collect()
}

fn panicked(panic: &(dyn std::any::Any + Send)) -> Error {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| Some(panic.downcast_ref::<String>()?));
    Error::Panicked(text.unwrap_or("no reason given").to_owned())
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::*;

    #[test]
    fn results_come_in_the_order_of_the_tasks_whoever_has_them() {
        set_threads(3);
        let workers = Workers::new(2);
        assert_eq!(workers.count(), 2);
        // Each waits for the other: both are at work at once.
        let both = Barrier::new(2);
        let done = workers.each((0..9).collect(), |worker, task: i32| {
            if task < 2 {
                both.wait();
            }
            Ok((worker < 2 && threads() == 1, task * task))
        });
        let squares: Vec<_> = (0..9).map(|task| (true, task * task)).collect();
        assert_eq!(done.unwrap(), squares);
        assert_eq!(threads(), 3);
    }

    #[test]
    fn parts_are_equal_to_one() {
        assert_eq!(equal_parts(7, 3), [0..2, 2..4, 4..7]);
        assert_eq!(equal_parts(6, 1).first(), Some(&(0..6)));
    }

    #[test]
    fn few_tasks_have_several_threads_each() {
        set_threads(4);
        for workers in [Workers::new(2), Workers::new(1), Workers::calling_thread()] {
            let each = 4 / workers.count();
            let done = workers.each(vec![(); 3], |_, ()| Ok(threads()));
            assert_eq!(done.unwrap(), [each; 3]);
        }
        set_threads(1);
        assert_eq!(Workers::new(9).count(), 1);
    }

    #[test]
    fn first_error_is_returned_and_a_panic_is_one() {
        set_threads(2);
        for workers in [Workers::new(2), Workers::new(1)] {
            let fail = |_, task: i32| match task {
                3 => panic!("task {task}"),
                5 => Err(Error::Exhausted),
                _ => Ok(()),
            };
            match workers.each((0..8).collect(), fail) {
                Err(Error::Panicked(text)) => assert_eq!(text, "task 3"),
                other => panic!("{other:?}"),
            }
        }
    }
}
