use std::thread::{Scope, ScopedJoinHandle};

/// One job at a time that goes on beside its caller. Forcing a file to the disk takes as long as
/// making the next one.
pub(crate) struct Beside<'scope, 'env, T> {
    scope: &'scope Scope<'scope, 'env>,
    job: Option<ScopedJoinHandle<'scope, T>>,
}

impl<'scope, 'env, T: Send + 'scope> Beside<'scope, 'env, T> {
    pub(crate) fn new(scope: &'scope Scope<'scope, 'env>) -> Self {
        Self { scope, job: None }
    }

    /// Begins `job`. Whoever cares for the result of the one before has waited for it.
    pub(crate) fn begin(&mut self, job: impl FnOnce() -> T + Send + 'scope) {
        self.job = Some(self.scope.spawn(job));
    }

    /// Waits for the job begun last, and returns its result, once.
    pub(crate) fn wait(&mut self) -> Option<T> {
        let done = self.job.take()?.join();
        Some(done.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    }
}
