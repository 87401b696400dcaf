//! A job that runs while its caller goes on: forcing a file to the disk takes about as long as
//! making the next one. It runs one job at a time; it is not a thread pool.

use std::thread::{Scope, ScopedJoinHandle};

/// At most one job of a kind, on a thread of its own.
pub(crate) struct BackgroundJob<'scope, 'env, T> {
    scope: &'scope Scope<'scope, 'env>,
    running: Option<ScopedJoinHandle<'scope, T>>,
}

impl<'scope, 'env, T: Send + 'scope> BackgroundJob<'scope, 'env, T> {
    pub(crate) fn new(scope: &'scope Scope<'scope, 'env>) -> Self {
        Self {
            scope,
            running: None,
        }
    }

    /// Starts `job`. Call [`wait`](Self::wait) first: the result of an earlier job is lost.
    pub(crate) fn start(&mut self, job: impl FnOnce() -> T + Send + 'scope) {
        self.running = Some(self.scope.spawn(job));
    }

    /// Waits for the job started last and returns its result; `None` if that was done before.
    pub(crate) fn wait(&mut self) -> Option<T> {
        let done = self.running.take()?.join();
        Some(done.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    }
}
