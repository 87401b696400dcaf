//! A job that runs while its caller goes on: forcing a file to the disk takes about as long as
//! making the next one, and a training need not wait for its checkpoints. It runs one job at a time; it is
//! not a thread pool.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Builder, Scope, ScopedJoinHandle};

/// At most one job of a kind, on a thread of its own.
#[derive(Debug)]
pub struct BackgroundJob<'scope, 'env, T> {
    scope: &'scope Scope<'scope, 'env>,
    running: Option<Running<'scope, T>>,
}

#[derive(Debug)]
enum Running<'scope, T> {
    Thread(ScopedJoinHandle<'scope, T>),
    /// No thread could be started, so the caller did it.
    Done(T),
}

impl<'scope, 'env, T: Send + 'scope> BackgroundJob<'scope, 'env, T> {
    /// No job yet. Jobs may borrow what `scope` may, and end before it does.
    #[must_use]
    pub fn new(scope: &'scope Scope<'scope, 'env>) -> Self {
        Self {
            scope,
            running: None,
        }
    }

    /// Starts `job`; carries it out at once if the system gives no thread. Call [`wait`](Self::wait) first:
    /// the result of an earlier job is lost.
    pub fn start(&mut self, job: impl FnOnce() -> T + Send + 'scope) {
        let job = Arc::new(Mutex::new(Some(job)));
        let take = |job: &Mutex<Option<_>>| {
            let job = job.lock().unwrap_or_else(PoisonError::into_inner).take();
            job.expect("either the thread or the caller takes it")
        };
        let theirs = Arc::clone(&job);
        let started = Builder::new().spawn_scoped(self.scope, move || take(&theirs)());
        self.running = Some(match started {
            Ok(thread) => Running::Thread(thread),
            Err(_) => Running::Done(take(&job)()),
        });
    }

    /// The result of the job started last if it has ended; `None` if it runs, or if its result was taken before.
    pub fn poll(&mut self) -> Option<T> {
        match &self.running {
            Some(Running::Thread(thread)) if !thread.is_finished() => None,
            _ => self.wait(),
        }
    }

    /// Waits for the job started last and returns its result; `None` if that was done before.
    ///
    /// # Panics
    /// If the job has.
    pub fn wait(&mut self) -> Option<T> {
        Some(match self.running.take()? {
            Running::Thread(thread) => thread
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
            Running::Done(done) => done,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn poll_gives_a_result_once_and_only_when_the_job_has_ended() {
        std::thread::scope(|scope| {
            let mut job = BackgroundJob::new(scope);
            assert_eq!(job.poll(), None);
            let (go, wait) = channel();
            job.start(move || wait.recv().unwrap());
            assert_eq!(job.poll(), None);
            go.send(7).unwrap();
            let result = loop {
                match job.poll() {
                    Some(result) => break result,
                    None => std::thread::yield_now(),
                }
            };
            assert_eq!((result, job.poll(), job.wait()), (7, None, None));
        });
    }
}
