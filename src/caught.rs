//! Calls into crates that panic on some bytes or without memory: the panic becomes an error, and a program does not
//! print it.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};

thread_local! {
    /// True while this thread is in [`caught`].
    static CATCHING: Cell<bool> = const { Cell::new(false) };
}

/// Runs `work`. What it has changed must not be used again after an error.
///
/// # Errors
/// The text of its panic.
pub fn caught<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    let outer = CATCHING.replace(true);
    let done = catch_unwind(AssertUnwindSafe(work));
    CATCHING.set(outer);
    done.map_err(|panic| {
        let text = panic.downcast_ref::<&str>().copied();
        let text = text.or_else(|| Some(panic.downcast_ref::<String>()?));
        text.unwrap_or("no reason given").to_owned()
    })
}

/// Keeps panics that [`caught`] makes errors of from being printed. For programs: the panic hook is the process's.
pub fn hide_caught() {
    let print = take_hook();
    set_hook(Box::new(move |panic| {
        if !CATCHING.get() {
            print(panic);
        }
    }));
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;

    use super::*;

    #[test]
    fn only_panics_that_nobody_catches_are_printed() {
        static PRINTED: AtomicUsize = AtomicUsize::new(0);
        let before = take_hook();
        let own = thread::current().id();
        set_hook(Box::new(move |panic| {
            if thread::current().id() == own {
                PRINTED.fetch_add(1, Ordering::Relaxed);
            } else {
                // Another test prints it.
                before(panic);
            }
        }));
        hide_caught();
        let error = caught(|| caught(|| panic!("row {}", 4))).unwrap();
        assert_eq!(error, Err::<(), _>("row 4".to_owned()));
        assert_eq!(PRINTED.load(Ordering::Relaxed), 0);
        assert!(catch_unwind(|| panic!("own")).is_err());
        assert_eq!(PRINTED.load(Ordering::Relaxed), 1);
    }
}
