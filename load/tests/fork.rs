//! The loader in processes that `fork` made while its threads were at work, or had not been started. A child that
//! waits without end is killed, and fails the test.
//!
//! `TINYRES_FORKS` is the number of forks of each kind.

use std::num::{NonZeroU32, NonZeroUsize};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tinyres_format::{Class, Digest, SetOptions, SetWriter, Shape, Split};
use tinyres_load::{Batches, Dataset, Error, Prefetch, Rank, Verify, alloc_slot, pool, shuffled};

const SHAPE: Shape = Shape::rgb(5);
const LEN: usize = SHAPE.image_len();
const IMAGES: usize = 300;
/// No child takes a tenth of this, even on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

fn write_set(dir: &Path) {
    let options = SetOptions {
        shape: SHAPE,
        classes: vec![Class {
            id: "n0".into(),
            name: "thing".into(),
        }],
        creator: "test".into(),
        fingerprint: Digest::of(b"set"),
        shard_images: NonZeroU32::new(100).unwrap(),
    };
    let mut set = SetWriter::create(dir, options).unwrap();
    for image in 0..IMAGES {
        let pixels = [u8::try_from(image % 256).unwrap(); LEN];
        set.image(Split::Train, &pixels, 0, [-1; 4], "x.png")
            .unwrap();
    }
    set.finish().unwrap();
}

#[expect(unsafe_code, reason = "nobody writes to the set of a test")]
fn open(dir: &Path) -> Arc<Dataset> {
    // SAFETY: see above.
    Arc::new(unsafe { Dataset::open(dir, Split::Train, Verify::Lazy) }.unwrap())
}

/// Runs `work` in a child and waits until it has ended.
///
/// # Panics
/// `work` panics, or does not end.
#[expect(unsafe_code, reason = "fork is what is tested")]
fn in_child(work: impl FnOnce()) {
    // SAFETY: the child runs `work` alone, which needs no lock that another thread could have held (this is what the
    // test is about; malloc's are made free by the C library), and ends without running what the parent registered.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let ended = catch_unwind(AssertUnwindSafe(work));
        // SAFETY: `_exit` may be called anywhere.
        unsafe { libc::_exit(i32::from(ended.is_err())) }
    }
    assert!(child > 0, "no process");
    let (began, mut status) = (Instant::now(), -1);
    // SAFETY: the process is our own child, and `status` outlives the call.
    while unsafe { libc::waitpid(child, &raw mut status, libc::WNOHANG) } == 0 {
        if began.elapsed() > PATIENCE {
            // SAFETY: the process is our own child, which nobody has waited for yet.
            unsafe {
                libc::kill(child, libc::SIGKILL);
                libc::waitpid(child, &raw mut status, 0);
            }
            panic!("a child waits without end");
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(status, 0, "the child failed");
}

/// Reads the whole split in two ways.
fn read(data: &Arc<Dataset>) {
    let order: Vec<u32> = (0..data.len()).rev().collect();
    let mut out = vec![0; order.len() * LEN];
    data.gather(&order, &mut out).unwrap();
    assert_eq!(usize::from(out[0]), (IMAGES - 1) % 256);
    assert_eq!(data.labels().unwrap(), [0; IMAGES]);
    let mut epoch = data.epoch(1, 2, NonZeroUsize::new(32).unwrap()).unwrap();
    let mut seen = 0;
    while let Some(batch) = epoch.next_batch() {
        let (images, pixels) = batch.unwrap();
        for (image, pixels) in images.iter().zip(pixels.chunks_exact(LEN)) {
            assert_eq!(u32::from(pixels[7]), image % 256);
        }
        seen += images.len();
    }
    assert_eq!(seen, IMAGES);
}

fn prefetch(data: &Arc<Dataset>) -> Prefetch<memmap2::MmapMut> {
    let size = NonZeroUsize::new(8).unwrap();
    let batches = Arc::new(Batches::new(
        shuffled(data.len(), 0, 0),
        size,
        false,
        Rank::ONLY,
    ));
    let slots = (0..4).map(|_| alloc_slot(8 * LEN).unwrap());
    Prefetch::start(Arc::clone(data), batches, 0, slots, 2).unwrap()
}

#[test]
fn children_read_whatever_their_parent_was_doing() {
    let forks = std::env::var("TINYRES_FORKS").map_or(5, |forks| forks.parse().unwrap());
    let dir = tempfile::tempdir().unwrap();
    write_set(dir.path());
    // The pool has not been used. This comes first, since there is one for all that follows.
    in_child(|| read(&open(dir.path())));
    let used = open(dir.path());
    pool::install(|| ());
    for _ in 0..forks {
        // Not yet checked: the child's pool has work to do.
        let fresh = open(dir.path());
        in_child(|| read(&fresh));
        // A child's child, which has the pools of both to pass over.
        in_child(|| {
            read(&fresh);
            in_child(|| read(&open(dir.path())));
        });
    }
    for _ in 0..forks {
        let fresh = open(dir.path());
        let mut begun = prefetch(&fresh);
        let batch = begun.next_batch().unwrap().unwrap();
        let mut slot = Some(batch.slot);
        in_child(|| {
            assert!(matches!(
                begun.next_batch(),
                Some(Err(Error::Forked { .. }))
            ));
            begun.give_back(slot.take().unwrap());
            drop(prefetch(&fresh));
            read(&fresh);
            drop(begun);
        });
    }
    // Threads of the parent hold locks and write to channels at the moment of the fork.
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    read(&open(dir.path()));
                }
            });
        }
        let forked = catch_unwind(AssertUnwindSafe(|| {
            for _ in 0..forks {
                let begun = prefetch(&used);
                in_child(|| {
                    drop(begun);
                    read(&used);
                });
            }
        }));
        stop.store(true, Ordering::Relaxed);
        forked.unwrap();
    });
    read(&used);
}
