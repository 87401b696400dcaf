//! Long work for Python: it runs in a pool of its own, so that it is safe in a forked process, while the calling thread
//! reports progress and listens for signals.

use std::ffi::CString;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use pyo3::exceptions::{PyRuntimeError, PyRuntimeWarning};
use pyo3::prelude::*;
use pyo3::types::PyString;
use rayon::ThreadPool;
use tinyres::event::{Event, Observer};
use tinyres::threads;

use crate::error;

/// Time between two looks for signals, and between two reports of progress.
const TICK: Duration = Duration::from_millis(50);

/// A pool of `count` threads, one a core for 0.
pub(crate) fn pool(count: usize) -> PyResult<ThreadPool> {
    let failed = |error| PyRuntimeError::new_err(format!("cannot start a thread: {error}"));
    threads::pool(count).map_err(failed)
}

/// Carries out `work` in `pool`, without the interpreter's lock. Meanwhile calls `progress` with the images done, all
/// images (`total`, or those that `work` announces) and the unit. An exception of `progress`, and one that Python raises
/// for a signal, sets `stop` and is passed on when `work` has ended.
pub(crate) fn watched<R: Send>(
    py: Python<'_>,
    pool: &ThreadPool,
    progress: Option<Py<PyAny>>,
    stop: &AtomicBool,
    total: Option<u64>,
    work: impl FnOnce(&mut dyn Observer) -> R + Send,
) -> PyResult<R> {
    let watched = Watched::new(total);
    let progress = progress.as_ref();
    let (result, raised) = py.detach(|| {
        let (ended, ends) = channel();
        let watched = &watched;
        pool.in_place_scope(|scope| {
            scope.spawn(move |_| {
                // The receiver waits for it.
                let _ = ended.send(work(&mut &*watched));
            });
            let mut raised = None;
            loop {
                match ends.recv_timeout(TICK) {
                    Ok(result) => break (Some(result), raised),
                    Err(RecvTimeoutError::Disconnected) => break (None, raised),
                    Err(RecvTimeoutError::Timeout) if raised.is_some() => {}
                    Err(RecvTimeoutError::Timeout) => {
                        raised = watched.report(progress).err();
                        stop.store(raised.is_some(), Ordering::Relaxed);
                    }
                }
            }
        })
    });
    if let Some(raised) = raised {
        return Err(raised);
    }
    watched.report(progress)?;
    // The scope passes a panic on, so there is a result.
    result.ok_or_else(|| PyRuntimeError::new_err("the work ended without a result"))
}

/// Progress, written by the thread that works and read by the caller's.
struct Watched {
    total: AtomicU64,
    /// True if the total is known from the start, and not that of the present task.
    is_whole: bool,
    /// Images of the splits before the present one.
    before: AtomicU64,
    done: AtomicU64,
    reported: AtomicU64,
    /// A message for people, and whether it is a warning.
    said: Mutex<Vec<(bool, String)>>,
}

impl Watched {
    fn new(total: Option<u64>) -> Self {
        Self {
            total: AtomicU64::new(total.unwrap_or(0)),
            is_whole: total.is_some(),
            before: AtomicU64::new(0),
            done: AtomicU64::new(0),
            reported: AtomicU64::new(u64::MAX),
            said: Mutex::default(),
        }
    }

    /// Calls `progress` with what is new, passes on what was said, and lets Python handle signals.
    fn report(&self, progress: Option<&Py<PyAny>>) -> PyResult<()> {
        let said = std::mem::take(&mut *self.said.lock().unwrap_or_else(PoisonError::into_inner));
        let done = self.done.load(Ordering::Relaxed);
        Python::attach(|py| {
            py.check_signals()?;
            for (is_warning, text) in said {
                if is_warning {
                    let text = CString::new(text.replace('\0', ""))?;
                    let kind = py.get_type::<PyRuntimeWarning>();
                    PyErr::warn(py, &kind, &text, 1)?;
                } else {
                    let logger = py
                        .import("logging")?
                        .call_method1("getLogger", ("tinyres",))?;
                    logger.call_method1("info", ("%s", error::in_python(py, &text)?))?;
                }
            }
            if let Some(progress) = progress
                && self.reported.swap(done, Ordering::Relaxed) != done
            {
                let total = self.total.load(Ordering::Relaxed);
                progress.call1(py, (done, total, PyString::intern(py, "img")))?;
            }
            Ok(())
        })
    }
}

impl Observer for &Watched {
    fn on(&mut self, event: &Event) {
        let say = |is_warning, text: &String| {
            let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
            said.push((is_warning, text.clone()));
        };
        match event {
            Event::Begin { total, .. } => {
                if !self.is_whole {
                    self.total.store(*total, Ordering::Relaxed);
                }
                self.before
                    .store(self.done.load(Ordering::Relaxed), Ordering::Relaxed);
            }
            Event::Advance { done } => {
                let before = self.before.load(Ordering::Relaxed);
                self.done.store(before + done, Ordering::Relaxed);
            }
            Event::End | Event::Status(_) => {}
            Event::Notice(text) => say(false, text),
            Event::Warning(text) => say(true, text),
        }
    }
}
