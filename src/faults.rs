//! Turns a fault in a mapped shard into an error message that names the shard, and an abort into an exit.
//!
//! For the binaries only: it replaces the SIGBUS, SIGSEGV and SIGABRT handlers of the whole process. With exit code 1
//! instead of a signal then end:
//!
//! - A shard that is cut while it is mapped, or a disk that fails.
//! - An abort, by which Rust and C++ end a program that gets no memory: both have said why by then.
//! - A null pointer where no memory is left: oneDNN, below libtorch, uses some of its objects without asking
//!   if there was memory for them.
//!
//! Any other SIGBUS or SIGSEGV ends the program as it would without this module.

use std::ffi::{c_int, c_void};
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use nix::libc;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, raise, sigaction, signal};
use nix::unistd::{pause, write};
use tinyres_format::{MapGuard, set_map_hook};

use crate::text::printable;

/// Installs the handlers. They write `prefix` and the message to stderr, and exit with code 1.
///
/// Call it at the start of the program: it covers the maps that are opened after it. The first call
/// decides, later ones do nothing.
///
/// # Panics
/// Never: the system refuses a handler only for signals that cannot be caught.
pub(crate) fn report(prefix: &str) {
    if PREFIX.set(prefix.to_owned()).is_err() {
        return;
    }
    set_map_hook(watch);
    // Uses the alternate stack where a thread has one. All other signals are blocked, so that none
    // interrupts the writing of the message.
    let flags = SaFlags::SA_SIGINFO | SaFlags::SA_ONSTACK;
    let action = SigAction::new(SigHandler::SigAction(on_fault), flags, SigSet::all());
    #[expect(unsafe_code, reason = "a signal handler may do little")]
    // SAFETY: `on_fault` does only what is allowed in a signal handler: it reads atomics and memory
    // that is never freed, and calls write, pause, signal, raise and _exit. It takes no lock and
    // allocates nothing.
    let installed = unsafe { sigaction(Signal::SIGBUS, &action) };
    installed.expect("SIGBUS can be caught");
    let action = SigAction::new(SigHandler::SigAction(on_null), flags, SigSet::all());
    #[expect(unsafe_code, reason = "a signal handler may do little")]
    // SAFETY: `on_null` reads memory that is never freed, and calls mmap, munmap, sigaction, write and _exit.
    let before = unsafe { sigaction(Signal::SIGSEGV, &action) };
    let _ = BEFORE.set(before.expect("SIGSEGV can be caught"));
    let action = SigAction::new(
        SigHandler::Handler(on_abort),
        SaFlags::empty(),
        SigSet::all(),
    );
    #[expect(unsafe_code, reason = "a signal handler may do little")]
    // SAFETY: `on_abort` reads memory that is never freed, and calls write and _exit.
    let installed = unsafe { sigaction(Signal::SIGABRT, &action) };
    installed.expect("SIGABRT can be caught");
}

/// Text before the message on stderr; set by [`report`].
static PREFIX: OnceLock<String> = OnceLock::new();
/// The action of SIGSEGV before: Rust's own handler, which tells that a stack overflowed.
static BEFORE: OnceLock<SigAction> = OnceLock::new();
/// The head of the list of watched ranges.
static FIRST: Watched = Watched {
    range: 0..0,
    message: String::new(),
    live: AtomicBool::new(false),
    next: OnceLock::new(),
};
/// The tail of the list. Only threads that add to the list take the lock; the handler follows `next`
/// from [`FIRST`] and needs none.
static LAST: Mutex<&Watched> = Mutex::new(&FIRST);

/// An address range in which a fault is reported.
///
/// Never freed, since a handler in another thread may be reading it: some 200 bytes for each map.
struct Watched {
    range: Range<usize>,
    /// The complete message, because the handler cannot allocate.
    message: String,
    live: AtomicBool,
    next: OnceLock<&'static Watched>,
}

/// Marks its range as no longer mapped when it is dropped.
struct Guard(&'static Watched);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.live.store(false, Ordering::Release);
    }
}

/// Watches `range`, into which the file at `path` is mapped.
fn watch(range: Range<usize>, path: &Path) -> MapGuard {
    let prefix = PREFIX.get().map_or("", String::as_str);
    let message = format!(
        "{prefix}{}: its bytes can no longer be read: the disk failed, or the file was cut while in use; copy or pack it again\n",
        printable(&path.display().to_string())
    );
    let watched: &Watched = Box::leak(Box::new(Watched {
        range,
        message,
        live: AtomicBool::new(true),
        next: OnceLock::new(),
    }));
    let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
    // Cannot fail: the last element has no next one yet, and both change only under the lock.
    let _ = last.next.set(watched);
    *last = watched;
    Box::new(Guard(watched))
}

/// Returns the live map that contains `address`. If a thread has just faulted there, it is borrowing
/// the map, so the map neither begins nor ends in the meantime.
fn find(address: usize) -> Option<&'static Watched> {
    std::iter::successors(Some(&FIRST), |watched| watched.next.get().copied())
        .find(|watched| watched.range.contains(&address) && watched.live.load(Ordering::Acquire))
}

extern "C" fn on_fault(_: c_int, info: *mut libc::siginfo_t, _: *mut c_void) {
    #[expect(unsafe_code, reason = "the kernel passes the address by pointer")]
    // SAFETY: with SA_SIGINFO the kernel gives every handler a siginfo_t, and for SIGBUS it has the
    // address filled in, unless a process sent the signal: then any bytes will do for a number.
    let (by_kernel, address) = unsafe { ((*info).si_code > 0, (*info).si_addr().addr()) };
    if by_kernel && let Some(watched) = find(address) {
        static REPORTED: AtomicBool = AtomicBool::new(false);
        if REPORTED.swap(true, Ordering::AcqRel) {
            // Another thread has met the fault, too, and ends the program as soon as it has written.
            loop {
                pause();
            }
        }
        end(&[&watched.message]);
    }
    #[expect(unsafe_code, reason = "changing a handler is unsafe in general")]
    // SAFETY: the default action runs no handler, so none can do what a handler must not.
    let _ = unsafe { signal(Signal::SIGBUS, SigHandler::SigDfl) };
    if !by_kernel {
        // A fault comes again by itself when this returns.
        let _ = raise(Signal::SIGBUS);
    }
}

extern "C" fn on_null(_: c_int, info: *mut libc::siginfo_t, _: *mut c_void) {
    #[expect(unsafe_code, reason = "the kernel passes the address by pointer")]
    // SAFETY: as in `on_fault`.
    let (by_kernel, address) = unsafe { ((*info).si_code > 0, (*info).si_addr().addr()) };
    if by_kernel && address < 4096 && !can_map(1 << 20) {
        let prefix = PREFIX.get().map_or("", String::as_str);
        end(&[
            prefix,
            "not enough memory: free some, or ask for less at once (--batch, --threads)\n",
        ]);
    }
    let default = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
    #[expect(unsafe_code, reason = "changing a handler is unsafe in general")]
    // SAFETY: both are what the process would have without this module.
    let _ = unsafe { sigaction(Signal::SIGSEGV, BEFORE.get().unwrap_or(&default)) };
    if !by_kernel {
        // A fault comes again by itself when this returns.
        let _ = raise(Signal::SIGSEGV);
    }
}

/// Tells if the system still gives this process `bytes` of memory.
fn can_map(bytes: usize) -> bool {
    let (access, kind) = (
        libc::PROT_READ | libc::PROT_WRITE,
        libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
    );
    #[expect(unsafe_code, reason = "malloc must not be called in a signal handler")]
    // SAFETY: a new map that nobody else knows, and which ends here.
    unsafe {
        let map = libc::mmap(std::ptr::null_mut(), bytes, access, kind, -1, 0);
        map != libc::MAP_FAILED && libc::munmap(map, bytes) == 0
    }
}

extern "C" fn on_abort(_: c_int) {
    let prefix = PREFIX.get().map_or("", String::as_str);
    end(&[
        prefix,
        "the program had to end, for the reason above; where that is memory, free some, or ask for less at once (--batch, --threads)\n",
    ]);
}

/// Writes `parts` to stderr, and ends the process.
fn end(parts: &[&str]) -> ! {
    for part in parts {
        let mut rest = part.as_bytes();
        while let Ok(written @ 1..) = write(io::stderr(), rest) {
            rest = &rest[written..];
        }
    }
    #[expect(
        unsafe_code,
        reason = "`std::process::exit` runs code that a signal handler must not run"
    )]
    // SAFETY: `_exit` may be called anywhere.
    unsafe {
        libc::_exit(1)
    }
}
