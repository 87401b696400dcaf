//! Threads that gather batches ahead of whoever takes them. What a batch holds, and in which order
//! batches come, is decided by the caller.

use std::collections::BTreeMap;
use std::mem::{forget, take};
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use memmap2::MmapMut;

use super::{Batches, Dataset, Error, Result};

/// Allocates page-aligned memory for a batch of `bytes` bytes, in huge pages where the system has them.
///
/// Page alignment: `malloc` places a large buffer 16 bytes past a page boundary, where copies take up to
/// five times as long. Huge pages: 1,500 first touches of small pages take as long as gathering a
/// batch twice.
///
/// # Errors
/// The system has no such memory.
pub fn alloc_slot(bytes: usize) -> std::io::Result<MmapMut> {
    let slot = MmapMut::map_anon(bytes)?;
    #[cfg(target_os = "linux")]
    // A kernel without huge pages refuses; small ones will do.
    let _ = slot.advise(memmap2::Advice::HugePage);
    Ok(slot)
}

/// A batch whose pixels have been gathered.
#[derive(Debug)]
pub struct Batch<S> {
    /// Its number in the epoch.
    pub index: usize,
    /// Its images, by their number in the split.
    pub images: Vec<u32>,
    /// The memory that holds its pixels, from the start on: `u8 [n, C, H, W]`, or what the caller's own
    /// function makes of them.
    pub slot: S,
}

/// Threads that gather the batches of an epoch ahead of whoever takes them.
///
/// Batches come in order, whatever the number of threads. The memory is the caller's: each batch
/// arrives in one of the slots given at the start, and a slot is used again only after
/// [`give_back`](Self::give_back). Dropping a `Prefetch` joins its threads and drops their slots. In a process
/// that `fork` made from the one that started it, there are no threads: dropping leaves the slots as they are.
#[derive(Debug)]
pub struct Prefetch<S> {
    next: usize,
    end: usize,
    /// Slots that the caller does not hold.
    slots: usize,
    /// Batches that were gathered before their turn.
    early: BTreeMap<usize, Result<Batch<S>>>,
    /// `None` in a process that `fork` has made, once this is dropped.
    intake: Option<Arc<Intake<S>>>,
    done: Option<Receiver<(usize, Result<Batch<S>>)>>,
    threads: Vec<JoinHandle<()>>,
    /// The process that started the threads.
    process: u32,
    waited: Duration,
}

/// The threads take slots and batches from it.
#[derive(Debug)]
struct Intake<S> {
    open: Mutex<Open<S>>,
    /// Says that a slot has come, or that no batch is left.
    changed: Condvar,
}

/// Slot and batch number are taken under one lock, so that the earliest batch not begun always gets a slot.
#[derive(Debug)]
struct Open<S> {
    /// The slot that came last is taken first: more of it is in the caches.
    slots: Vec<S>,
    /// Numbers of the batches that no thread has begun.
    batches: Range<usize>,
}

impl<S> Intake<S> {
    fn lock(&self) -> MutexGuard<'_, Open<S>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A batch and a slot for it, as soon as there is one. `None` if no batch is left.
    fn take_up(&self) -> Option<(usize, S)> {
        let mut open = self.lock();
        loop {
            if open.batches.is_empty() {
                return None;
            }
            if let Some(slot) = open.slots.pop() {
                return open.batches.next().map(|batch| (batch, slot));
            }
            let woken = self.changed.wait(open);
            open = woken.unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Takes back a slot, and drops it if no batch needs it.
    fn give_back(&self, slot: S) {
        let mut open = self.lock();
        if open.batches.is_empty() {
            // Not under the lock: to drop a slot is the caller's own code.
            drop(open);
            drop(slot);
            return;
        }
        open.slots.push(slot);
        self.changed.notify_one();
    }

    /// Lets the threads end after the batches that they have begun.
    fn close(&self) {
        let slots = {
            let mut open = self.lock();
            open.batches = 0..0;
            take(&mut open.slots)
        };
        self.changed.notify_all();
        drop(slots);
    }
}

impl<S: Send + 'static> Prefetch<S> {
    /// Starts `threads` threads (at least one) that gather the batches from number `first` on into
    /// `slots`, each of which must have room for the largest batch.
    ///
    /// Threads without a slot wait. Two slots let one fill while the other is used.
    ///
    /// # Errors
    /// No thread could be started. Fewer than `threads` will do.
    pub fn start(
        data: Arc<Dataset>,
        batches: Arc<Batches>,
        first: usize,
        slots: impl IntoIterator<Item = S>,
        threads: usize,
    ) -> Result<Self>
    where
        S: AsMut<[u8]>,
    {
        let len = data.shape().image_len();
        let fill = move |images: &[u32], slot: &mut S| {
            let (room, expected) = (slot.as_mut(), images.len() * len);
            let got = room.len();
            let out = room.get_mut(..expected);
            data.gather(images, out.ok_or(Error::Slot { got, expected })?)
        };
        Self::with(fill, batches, first, slots, threads)
    }

    /// Starts threads like [`start`](Self::start), but fills slots by the caller's own function, for
    /// example [`Dataset::gather_f32`]. A panic of `fill` becomes an error of its batch.
    ///
    /// # Errors
    /// No thread could be started. Fewer than `threads` will do.
    pub fn with(
        fill: impl Fn(&[u32], &mut S) -> Result<()> + Send + Sync + 'static,
        batches: Arc<Batches>,
        first: usize,
        slots: impl IntoIterator<Item = S>,
        threads: usize,
    ) -> Result<Self> {
        let end = batches.len();
        let slots: Vec<_> = slots.into_iter().collect();
        let fill = Arc::new(fill);
        let (results, done) = channel();
        let count = slots.len();
        let intake = Arc::new(Intake {
            open: Mutex::new(Open {
                slots,
                batches: first..end,
            }),
            changed: Condvar::new(),
        });
        let mut prefetch = Self {
            next: first,
            end,
            slots: count,
            early: BTreeMap::new(),
            intake: Some(Arc::clone(&intake)),
            done: Some(done),
            threads: Vec::new(),
            process: process::id(),
            waited: Duration::ZERO,
        };
        for started in 0..threads.max(1) {
            let (fill, batches) = (Arc::clone(&fill), Arc::clone(&batches));
            let (intake, results) = (Arc::clone(&intake), results.clone());
            let spawned = std::thread::Builder::new()
                .name("gather".to_owned())
                .spawn(move || gather_all(&*fill, &batches, &intake, &results));
            match spawned {
                Ok(thread) => prefetch.threads.push(thread),
                Err(error) if started == 0 => return Err(Error::Thread(error)),
                // Those that have started gather all batches.
                Err(_) => break,
            }
        }
        Ok(prefetch)
    }

    /// The next batch, or `None` after the last. Waits until it is gathered.
    ///
    /// An error ends the epoch. If the caller holds every slot, no batch can come: that is
    /// [`Error::NoSlot`], after which a slot that is given back lets the epoch go on.
    pub fn next_batch(&mut self) -> Option<Result<Batch<S>>> {
        if self.next >= self.end {
            return None;
        }
        if let Some(error) = self.forked() {
            return Some(Err(error));
        }
        if self.slots == 0 {
            return Some(Err(Error::NoSlot));
        }
        let began = Instant::now();
        let result = loop {
            if let Some(result) = self.early.remove(&self.next) {
                break result;
            }
            match self.done.as_ref().map(Receiver::recv) {
                Some(Ok((index, result))) => self.early.insert(index, result),
                // Every thread sends a result for each batch that it takes, so no thread is left.
                _ => break Err(Error::Panicked { batch: self.next }),
            };
        };
        self.waited += began.elapsed();
        self.next = if result.is_ok() {
            self.next + 1
        } else {
            self.end
        };
        self.slots -= 1;
        Some(result)
    }

    /// Waits for the next batch, but no longer than `timeout`. True if [`next_batch`](Self::next_batch) will not wait:
    /// the batch is there, or an error, or the epoch has ended.
    pub fn wait(&mut self, timeout: Duration) -> bool {
        let began = Instant::now();
        let nothing_comes = self.next >= self.end || self.slots == 0 || self.forked().is_some();
        let ready = loop {
            if nothing_comes || self.early.contains_key(&self.next) {
                break true;
            }
            let Some(done) = &self.done else { break true };
            match done.recv_timeout(timeout.saturating_sub(began.elapsed())) {
                Ok((index, result)) => self.early.insert(index, result),
                Err(RecvTimeoutError::Timeout) => break false,
                Err(RecvTimeoutError::Disconnected) => break true,
            };
        };
        self.waited += began.elapsed();
        ready
    }

    /// Slots that the caller does not hold: those that are free, being filled, or filled. If there are few, batches
    /// are not gathered far ahead. [`give_back`](Self::give_back) also takes slots that are new.
    #[must_use]
    pub fn slots(&self) -> usize {
        self.slots
    }

    /// Returns the memory of a batch for a later one.
    pub fn give_back(&mut self, slot: S) {
        if self.forked().is_some() {
            return;
        }
        self.slots += 1;
        if let Some(intake) = &self.intake {
            intake.give_back(slot);
        }
    }

    /// Total time that [`next_batch`](Self::next_batch) and [`wait`](Self::wait) have waited.
    #[must_use]
    pub fn waited(&self) -> Duration {
        self.waited
    }
}

impl<S> Prefetch<S> {
    /// An error if this process is not the one that started the threads.
    fn forked(&self) -> Option<Error> {
        let (started, here) = (self.process, process::id());
        (started != here).then_some(Error::Forked { started, here })
    }
}

impl<S> Drop for Prefetch<S> {
    fn drop(&mut self) {
        if self.forked().is_some() {
            // Threads of the parent held their locks, or were writing to the channel, when this process was made.
            forget((self.intake.take(), self.done.take()));
            forget((take(&mut self.threads), take(&mut self.early)));
            return;
        }
        if let Some(intake) = &self.intake {
            intake.close();
        }
        // Nobody waits for what they still gather.
        self.done = None;
        for thread in self.threads.drain(..) {
            // A panic was reported as the error of its batch, unless nobody asked for that batch.
            let _ = thread.join();
        }
    }
}

fn gather_all<S>(
    fill: &impl Fn(&[u32], &mut S) -> Result<()>,
    batches: &Batches,
    intake: &Intake<S>,
    results: &Sender<(usize, Result<Batch<S>>)>,
) {
    while let Some((index, mut slot)) = intake.take_up() {
        let images = batches.get(index).unwrap_or_default().to_vec();
        let filled = catch_unwind(AssertUnwindSafe(|| fill(&images, &mut slot)));
        let result = filled
            .unwrap_or(Err(Error::Panicked { batch: index }))
            .map(|()| Batch {
                index,
                images,
                slot,
            });
        if results.send((index, result)).is_err() {
            return;
        }
    }
}
