//! Maps of files, and what becomes of a fault in one.

use std::ffi::{c_int, c_void};
use std::fs::File;
use std::io;
use std::ops::{Deref, Range};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use memmap2::Mmap;
use nix::libc;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, raise, sigaction, signal};
use nix::unistd::{pause, write};

/// A file mapped into memory, to be read.
///
/// A page that cannot be read when it is touched, since the disk failed or the file was cut
/// meanwhile, raises SIGBUS, which ends the program, unless that has called [`report_faults`].
#[derive(Debug)]
pub struct Map {
    // Dropped before the bytes: the system may give their range to another map.
    _watch: Watch,
    bytes: Mmap,
}

impl Map {
    /// Maps the file at `path`.
    ///
    /// # Errors
    /// Those of the operating system.
    ///
    /// # Safety
    /// Nobody may write to or truncate the file while the map lives.
    #[expect(unsafe_code, reason = "only the caller can keep others off the file")]
    pub unsafe fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        // SAFETY: `Mmap::map` asks that the file not change under the map; our caller promises it.
        let bytes = unsafe { Mmap::map(&file)? };
        let range = bytes.as_ptr_range();
        Ok(Self {
            _watch: Watch::begin(range.start.addr()..range.end.addr(), path),
            bytes,
        })
    }
}

impl AsRef<[u8]> for Map {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Deref for Map {
    type Target = Mmap;

    fn deref(&self) -> &Mmap {
        &self.bytes
    }
}

/// Makes a fault in a [`Map`] an error message that names the file, after `prefix` on stderr, and
/// exit code 1. Any other SIGBUS ends the program as ever.
///
/// For programs, at their start: it replaces the handler of SIGBUS for the whole process, and covers
/// the maps made after it. For each of those it keeps a message of some 200 bytes for ever. The first
/// call decides, later ones do nothing.
///
/// # Panics
/// Never: the system refuses a handler only for signals that cannot be caught.
pub fn report_faults(prefix: &str) {
    if PREFIX.set(prefix.to_owned()).is_err() {
        return;
    }
    // On the alternate stack where a thread has one; its own will do. No other signal interrupts the
    // writing of the message.
    let flags = SaFlags::SA_SIGINFO | SaFlags::SA_ONSTACK;
    let action = SigAction::new(SigHandler::SigAction(on_fault), flags, SigSet::all());
    #[expect(unsafe_code, reason = "a handler may do little")]
    // SAFETY: `on_fault` does nothing but what may be done in a handler of signals: it reads atomics and
    // memory that is never freed, and calls write, pause, signal, raise and _exit. It takes no lock
    // and no memory.
    let installed = unsafe { sigaction(Signal::SIGBUS, &action) };
    installed.expect("SIGBUS can be caught");
}

/// What comes before the message on stderr; there once [`report_faults`] has been called.
static PREFIX: OnceLock<String> = OnceLock::new();
/// Where the list of watched ranges begins.
static FIRST: Watched = Watched {
    range: 0..0,
    message: String::new(),
    live: AtomicBool::new(false),
    next: OnceLock::new(),
};
/// Where it ends. The lock is for those who add to it; the handler goes through it without.
static LAST: Mutex<&Watched> = Mutex::new(&FIRST);

/// A range of addresses in which a fault is reported.
///
/// Never freed, since a handler in another thread may be looking at it.
#[derive(Debug)]
struct Watched {
    range: Range<usize>,
    /// The whole of what is written, as there is no memory to be had in the handler.
    message: String,
    live: AtomicBool,
    next: OnceLock<&'static Watched>,
}

/// Keeps a range watched, where faults are reported at all.
#[derive(Debug)]
struct Watch(Option<&'static Watched>);

impl Watch {
    /// Watches `range`, into which the file at `path` is mapped.
    fn begin(range: Range<usize>, path: &Path) -> Self {
        let watched = PREFIX.get().map(|prefix| {
            let message = format!(
                "{prefix}{}: its bytes can no longer be read: the disk failed, or the file was cut while in use; copy or pack it again\n",
                path.display()
            );
            let watched: &Watched = Box::leak(Box::new(Watched {
                range,
                message,
                live: AtomicBool::new(true),
                next: OnceLock::new(),
            }));
            let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
            // The last one has no next one yet: both change under the lock alone.
            let _ = last.next.set(watched);
            *last = watched;
            watched
        });
        Self(watched)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if let Some(watched) = self.0 {
            watched.live.store(false, Ordering::Release);
        }
    }
}

/// The live map that `address` is in. If a thread has just faulted there it is borrowing the map,
/// which therefore neither begins nor ends meanwhile.
fn find(address: usize) -> Option<&'static Watched> {
    std::iter::successors(Some(&FIRST), |watched| watched.next.get().copied())
        .find(|watched| watched.range.contains(&address) && watched.live.load(Ordering::Acquire))
}

extern "C" fn on_fault(_: c_int, info: *mut libc::siginfo_t, _: *mut c_void) {
    #[expect(unsafe_code, reason = "the kernel says where the fault is by pointer")]
    // SAFETY: with SA_SIGINFO the kernel gives every handler a siginfo_t, and for SIGBUS it has the
    // address filled in, unless a process sent the signal: then any bytes will do for a number.
    let (by_kernel, address) = unsafe { ((*info).si_code > 0, (*info).si_addr().addr()) };
    if by_kernel && let Some(watched) = find(address) {
        static REPORTED: AtomicBool = AtomicBool::new(false);
        if REPORTED.swap(true, Ordering::AcqRel) {
            // Another thread has met the cut, too, and ends the program as soon as it has said so.
            loop {
                pause();
            }
        }
        let mut message = watched.message.as_bytes();
        while let Ok(written @ 1..) = write(io::stderr(), message) {
            message = &message[written..];
        }
        #[expect(
            unsafe_code,
            reason = "`std::process::exit` runs what is no handler's to run"
        )]
        // SAFETY: `_exit` may be called anywhere.
        unsafe {
            libc::_exit(1);
        }
    }
    #[expect(unsafe_code, reason = "the default action has no handler")]
    // SAFETY: as no handler is installed, none can do what a handler must not.
    let _ = unsafe { signal(Signal::SIGBUS, SigHandler::SigDfl) };
    if !by_kernel {
        // A fault comes again by itself when this returns.
        let _ = raise(Signal::SIGBUS);
    }
}
