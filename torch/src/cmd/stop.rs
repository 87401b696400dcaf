//! The signals that ask a training to stop: Ctrl-C, TERM, HUP and USR1. The first one lets it finish its step and save, the
//! second one ends it at once.

use std::ffi::c_int;
use std::io;
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use anyhow::Context;
use nix::errno::Errno;
use nix::libc;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use nix::unistd::write;

/// What a shell takes for a program that Ctrl-C ended.
pub const STOPPED: u8 = 130;

const NOTICE: &[u8] = b"\nstopping after this step; once more to stop at once, without saving\n";

static STOP: AtomicBool = AtomicBool::new(false);
/// Seconds in which further signals are taken for the first one, which a launcher may send in several forms.
static PATIENCE: AtomicI64 = AtomicI64::new(-1);
/// Another process says that the training stops.
static SILENT: AtomicBool = AtomicBool::new(false);
/// When the first one came, in seconds since 1970.
static FIRST: AtomicI64 = AtomicI64::new(0);

/// A flag that the first of these signals sets; the second one ends the process. Those that this process was started to
/// ignore stay ignored: `nohup` is how people keep a training from ending when they log out.
pub fn on_signal() -> anyhow::Result<&'static AtomicBool> {
    // The second one must arrive even if the handler still waits for the first one's notice to be read.
    let flags = SaFlags::SA_RESTART | SaFlags::SA_NODEFER;
    let action = SigAction::new(SigHandler::Handler(stop), flags, SigSet::empty());
    for signal in [
        Signal::SIGINT,
        Signal::SIGTERM,
        Signal::SIGHUP,
        Signal::SIGUSR1,
    ] {
        if is_ignored(signal).context("asking which signals are ignored")? {
            continue;
        }
        #[expect(unsafe_code, reason = "a signal handler may do little")]
        // SAFETY: `stop` only reads and writes atomics and `errno`, and calls time, write and _exit.
        unsafe { sigaction(signal, &action) }.with_context(|| format!("watching for {signal}"))?;
    }
    Ok(&STOP)
}

fn is_ignored(signal: Signal) -> nix::Result<bool> {
    let mut old = MaybeUninit::<libc::sigaction>::uninit();
    #[expect(unsafe_code, reason = "nix can only ask by changing the action")]
    // SAFETY: without a new action this only writes the present one to `old`, unless it fails.
    let old = unsafe {
        Errno::result(libc::sigaction(
            signal as c_int,
            ptr::null(),
            old.as_mut_ptr(),
        ))?;
        old.assume_init()
    };
    Ok(old.sa_sigaction == libc::SIG_IGN)
}

/// Ends the process with `code`, at once, whatever other threads do.
pub fn leave(code: i32) -> ! {
    #[expect(
        unsafe_code,
        reason = "`std::process::exit` takes CUDA down beneath a thread that computes with it"
    )]
    // SAFETY: `_exit` may be called anywhere.
    unsafe {
        libc::_exit(code);
    }
}

/// Makes this one of several processes, all of which a launcher may send several signals when it ends: those that come within
/// 2 seconds of the first one are taken for the same. `speaks` for the one that says that the training stops.
pub fn with_others(speaks: bool) {
    PATIENCE.store(2, Ordering::Relaxed);
    SILENT.store(!speaks, Ordering::Relaxed);
}

extern "C" fn stop(_: c_int) {
    #[expect(unsafe_code, reason = "`std::time` says nothing of signal handlers")]
    // SAFETY: `time` may be called in a handler, and writes nothing for null.
    let now = unsafe { libc::time(ptr::null_mut()) };
    if STOP.swap(true, Ordering::Relaxed) {
        if now - FIRST.load(Ordering::Relaxed) > PATIENCE.load(Ordering::Relaxed) {
            leave(STOPPED.into());
        }
        return;
    }
    FIRST.store(now, Ordering::Relaxed);
    if SILENT.load(Ordering::Relaxed) {
        return;
    }
    let errno = Errno::last_raw();
    // If nobody can read it, the training stops all the same.
    let _ = write(io::stderr(), NOTICE);
    Errno::set_raw(errno);
}
