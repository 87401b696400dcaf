//! Makes an exception of a fault in a mapped shard: the file was cut while in use, or the disk failed.
//!
//! The kernel raises SIGBUS for a page that it cannot read, which ends a process. The handler here puts zeros in place
//! of the lost pages, notes that it did, and lets the program go on. Whoever has read the pages then asks
//! [`settle`] before the result is handed out. NumPy asks nobody, so a view of `Dataset.images` raises the exception in
//! Python's main thread, as Ctrl-C does. Any other SIGBUS goes to the handler that was there before, such as that of
//! Python's faulthandler.

use std::ffi::{c_int, c_void};
use std::hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher};
use std::iter::successors;
use std::ops::Range;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};

use nix::libc;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, raise, sigaction};
use once_cell::race::OnceBox;
use pyo3::prelude::*;
use tinyres_format::{MapGuard, set_map_hook};
use tinyres_load::Dataset;

use crate::error;

/// A range of addresses in which a file is mapped, or was.
///
/// Never freed, since a handler in another thread may be reading it: the next map of the same file uses it again.
/// Nothing waits for a lock: a child of `fork` would wait without end for one that another thread held.
struct Watched {
    path: PathBuf,
    hash: u64,
    state: AtomicU8,
    /// Addresses. Only a live entry has any.
    start: AtomicUsize,
    end: AtomicUsize,
    /// True once pages were lost.
    lost: AtomicBool,
    /// True if Python reads here by itself, by a view.
    view: AtomicBool,
    next: OnceBox<Watched>,
}

/// States of an entry.
const FREE: u8 = 0;
const TAKEN: u8 = 1;
const LIVE: u8 = 2;

static FIRST: OnceBox<Watched> = OnceBox::new();
/// The action of SIGBUS before.
static BEFORE: OnceBox<SigAction> = OnceBox::new();
/// True once any page was lost, which spares [`check`] the search.
static ANY: AtomicBool = AtomicBool::new(false);

thread_local! {
    /// True while this thread maps what Python will read by itself.
    static VIEWS: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

/// Installs the handler and watches the maps that are opened from now on. Later calls do nothing.
pub(crate) fn install() {
    static INSTALLED: AtomicBool = AtomicBool::new(false);
    if INSTALLED.swap(true, Ordering::AcqRel) {
        return;
    }
    set_map_hook(watch);
    let flags = SaFlags::SA_SIGINFO | SaFlags::SA_ONSTACK;
    let action = SigAction::new(SigHandler::SigAction(on_fault), flags, SigSet::empty());
    #[expect(unsafe_code, reason = "a signal handler may do little")]
    // SAFETY: SIGBUS for an address of ours comes from an instruction that reads a map, so no lock of the allocator or
    // of Python's list of calls is held by the thread. The handler reads memory that is never freed, calls mmap and
    // `Py_AddPendingCall`, which may be called without a thread state, and takes no lock of ours.
    let before = unsafe { sigaction(Signal::SIGBUS, &action) };
    if let Ok(before) = before {
        // The first call is the only one.
        let _ = BEFORE.set(Box::new(before));
    }
}

/// Runs `map`, whose maps Python will read by itself.
pub(crate) fn as_views<T>(map: impl FnOnce() -> T) -> T {
    VIEWS.set(true);
    let mapped = map();
    VIEWS.set(false);
    mapped
}

/// The result of work that has read maps of `data`, or an exception if pages of them were lost: then what was read
/// may be zeros, whatever the result says.
pub(crate) fn settle<T>(data: &Dataset, result: tinyres_load::Result<T>) -> PyResult<T> {
    check(data.addresses())?;
    result.map_err(|error| error::load_of(data, error))
}

/// Raises an exception if pages of maps in these ranges were lost.
pub(crate) fn check(ranges: impl Iterator<Item = Range<usize>>) -> PyResult<()> {
    if !ANY.load(Ordering::Acquire) {
        return Ok(());
    }
    for range in ranges {
        let lost = |watched: &&Watched| {
            watched.lost.load(Ordering::Acquire)
                && range.contains(&watched.start.load(Ordering::Acquire))
        };
        if let Some(watched) = live().find(lost) {
            return Err(error::lost(&watched.path));
        }
    }
    Ok(())
}

/// All entries that have ever been made.
fn all() -> impl Iterator<Item = &'static Watched> {
    successors(FIRST.get(), |watched| watched.next.get())
}

fn live() -> impl Iterator<Item = &'static Watched> {
    all().filter(|watched| watched.state.load(Ordering::Acquire) == LIVE)
}

/// Marks its entry as free when it is dropped.
struct Guard(&'static Watched);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.state.store(FREE, Ordering::Release);
    }
}

/// Watches `range`, into which the file at `path` is mapped.
fn watch(range: Range<usize>, path: &Path) -> MapGuard {
    let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(path.as_os_str().as_bytes());
    let same = |watched: &&Watched| watched.hash == hash && watched.path == path;
    let take = |watched: &&Watched| {
        let order = Ordering::AcqRel;
        (watched.state)
            .compare_exchange(FREE, TAKEN, order, Ordering::Relaxed)
            .is_ok()
    };
    let watched = (all().filter(same).find(take)).unwrap_or_else(|| append(path, hash));
    watched.start.store(range.start, Ordering::Relaxed);
    watched.end.store(range.end, Ordering::Relaxed);
    watched.lost.store(false, Ordering::Relaxed);
    watched.view.store(VIEWS.get(), Ordering::Relaxed);
    watched.state.store(LIVE, Ordering::Release);
    Box::new(Guard(watched))
}

/// Adds a taken entry at the end of the list.
fn append(path: &Path, hash: u64) -> &'static Watched {
    let mut entry = Some(Box::new(Watched {
        path: path.to_owned(),
        hash,
        state: AtomicU8::new(TAKEN),
        start: AtomicUsize::new(0),
        end: AtomicUsize::new(0),
        lost: AtomicBool::new(false),
        view: AtomicBool::new(false),
        next: OnceBox::new(),
    }));
    let mut place = &FIRST;
    loop {
        match (place.get(), entry.take()) {
            // This one: `set` below succeeded.
            (Some(own), None) => return own,
            (Some(other), back) => (place, entry) = (&other.next, back),
            // Gives the entry back if another thread was first.
            (None, Some(own)) => entry = place.set(own).err(),
            (None, None) => {}
        }
    }
}

extern "C" fn on_fault(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    #[expect(unsafe_code, reason = "the kernel passes the address by pointer")]
    // SAFETY: with SA_SIGINFO the kernel gives every handler a siginfo_t, and for SIGBUS it has the address filled in,
    // unless a process sent the signal: then any bytes will do for a number.
    let (by_kernel, address) = unsafe { ((*info).si_code > 0, (*info).si_addr().addr()) };
    // A thread that has just faulted in a map is borrowing it, so the map neither begins nor ends in the meantime.
    let found = live().find(|watched| {
        let (start, end) = (
            watched.start.load(Ordering::Acquire),
            watched.end.load(Ordering::Acquire),
        );
        (start..end).contains(&address)
    });
    if by_kernel
        && let Some(watched) = found
        && blank(address, watched.end.load(Ordering::Acquire))
    {
        ANY.store(true, Ordering::Release);
        if !watched.lost.swap(true, Ordering::AcqRel) && watched.view.load(Ordering::Acquire) {
            let entry = std::ptr::from_ref(watched).cast_mut().cast();
            #[expect(unsafe_code, reason = "the C interface of Python")]
            // SAFETY: may be called by any thread, with a thread state or without; `entry` is never freed.
            unsafe {
                pyo3::ffi::Py_AddPendingCall(Some(raise_lost), entry);
            }
        }
        return;
    }
    match BEFORE.get().map(|before| before.handler()) {
        Some(SigHandler::Handler(handler)) => handler(signal),
        Some(SigHandler::SigAction(handler)) => handler(signal, info, context),
        _ => {
            let action = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
            #[expect(unsafe_code, reason = "changing a handler is unsafe in general")]
            // SAFETY: the default action runs no handler.
            let _ = unsafe { sigaction(Signal::SIGBUS, &action) };
            if !by_kernel {
                // A fault comes again by itself when this returns.
                let _ = raise(Signal::SIGBUS);
            }
        }
    }
}

/// Puts zeros in place of the pages from that of `address` on, up to `end`.
fn blank(address: usize, end: usize) -> bool {
    // Smaller than a page where pages are larger: then the kernel refuses, and the fault ends the process.
    let first = address & !(tinyres_format::PAGE - 1);
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
    let place = std::ptr::with_exposed_provenance_mut(first);
    #[expect(unsafe_code, reason = "malloc must not be called in a signal handler")]
    // SAFETY: the pages belong to a live map of ours, and this fault shows that some of them cannot be read. Whoever
    // reads others of them in the meantime reads zeros from then on, and learns it from `settle`. They can be written
    // to, as a private map can.
    unsafe {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        libc::mmap(place, end - first, access, flags, -1, 0) != libc::MAP_FAILED
    }
}

/// Raises the exception for a view, in Python's main thread.
extern "C" fn raise_lost(watched: *mut c_void) -> c_int {
    #[expect(
        unsafe_code,
        reason = "Python passes back the pointer that it was given"
    )]
    // SAFETY: `on_fault` gave it an entry, which is never freed.
    let watched = unsafe { &*watched.cast_const().cast::<Watched>() };
    Python::attach(|py| error::lost(&watched.path).restore(py));
    -1
}
