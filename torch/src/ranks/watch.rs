//! The watch of a rank over the others. c10d tells a rank that a connection has broken or that it waits in vain, and not
//! who is at fault; and where the host of the store is stopped, it waits without an end.
//!
//! So a thread of each rank writes a *beat* to the store every second, and looks at the beats of the next rank, and at
//! the *fault*: the one key that tells all ranks who has failed first. A second thread counts how often the first has
//! had an answer. Both count their own seconds instead of reading a clock: processes that are stopped together and go on
//! together find nothing amiss.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::RankError;
use super::pace::Slow;
use crate::libtorch::ffi::Store;
use crate::{Error, Result};

/// Time from beat to beat.
const BEAT: Duration = Duration::from_secs(1);
/// Beats after which a rank that does not change its own is stopped or cut off.
const SILENT: u32 = 20;
/// The same when a connection has just broken: then it is gone.
const GONE: u32 = 6;
/// The same until a rank that goes on without the others, which wait for it in vain, is at fault.
const LATE: u32 = 12;
/// Beats without an answer of the store after which its host is stopped or cut off.
const UNANSWERED: u32 = 20;
/// Beats that the main thread has to act on a fault by itself.
const GRACE: u32 = 4;
/// Time that the main thread waits, after a connection has broken, for the watch to say why.
const EXPLAIN: Duration = Duration::from_secs(30);

/// Beats from one look of rank 0 at the paces of all ranks to the next.
const LOOK: u64 = 5;

/// The key of the first fault.
const FAULT: &str = "fault";

fn beat(rank: usize) -> String {
    format!("beat/{rank}")
}

/// A fault of a rank, which ends all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// The rank.
    pub rank: usize,
    /// Its host.
    pub host: String,
    /// What has happened to it.
    pub what: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rank {} ({}): {}", self.rank, self.host, self.what)
    }
}

/// What a program does if the watch finds a fault while the main thread waits for the ranks: it should say it and end.
pub type OnFault = Box<dyn Fn(&Fault) + Send + Sync>;

/// The watch of this rank.
#[derive(Clone, Debug)]
pub(super) struct Watch(Arc<Shared>);

struct Shared {
    rank: usize,
    /// The host of each rank.
    hosts: Vec<String>,
    /// Host and port of the store.
    address: String,
    /// True if a launcher serves the store, and not rank 0.
    served: bool,
    on_fault: OnFault,
    step: AtomicU64,
    /// Nanoseconds for an image; 0 if they are not known.
    pace: AtomicU64,
    /// Sentences for rank 0 to print.
    warnings: Mutex<Vec<String>>,
    /// How often the store has answered.
    answers: AtomicU64,
    /// True if a connection has broken: who is gone is to be found.
    broken: AtomicBool,
    ended: AtomicBool,
    fault: Mutex<Option<Fault>>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("rank", &self.rank)
            .finish_non_exhaustive()
    }
}

/// How long the beat of a rank has not changed.
#[derive(Default)]
struct Pulse {
    last: Option<Vec<u8>>,
    silent: u32,
    /// Beats since a connection broke.
    broken: u32,
}

/// The text of a beat.
fn beat_text(round: u64, is_waiting: bool, step: u64, pace: u64) -> String {
    format!("{round} {} {step} {pace}", u8::from(is_waiting))
}

/// The pace in the text of a beat.
fn pace_in(beat: &[u8]) -> u64 {
    let text = String::from_utf8_lossy(beat);
    let pace = text.split(' ').nth(3).map(str::parse);
    pace.and_then(std::result::Result::ok).unwrap_or(0)
}

impl Pulse {
    fn note(&mut self, beat: Option<Vec<u8>>) {
        self.silent = if beat == self.last {
            self.silent + 1
        } else {
            0
        };
        self.last = beat;
    }

    fn word(&self, at: usize) -> String {
        let text = self.last.as_deref().map(String::from_utf8_lossy);
        let word = text.and_then(|text| text.split(' ').nth(at).map(str::to_owned));
        word.unwrap_or_else(|| "0".to_owned())
    }

    /// True if the rank has lost a connection, or waited for too long.
    fn is_waiting(&self) -> bool {
        self.word(1) == "1"
    }

    /// The step of the last beat.
    fn step(&self) -> String {
        self.word(2)
    }

    /// What is wrong with the rank, if this one is `broken`: has lost a connection, or waited for too long.
    fn fault(&self, broken: bool) -> Option<String> {
        let step = self.step();
        match self.silent {
            GONE.. if broken => Some(format!("it is gone; its last step was {step}")),
            SILENT.. => Some(format!(
                "it has not answered for {} s: it is stopped, or cut off; its last step was {step}",
                u64::from(SILENT) * BEAT.as_secs()
            )),
            _ if self.broken >= LATE && !self.is_waiting() => Some(format!(
                "the others have waited for it for too long; its last step was {step}"
            )),
            _ => None,
        }
    }
}

impl Watch {
    /// Begins to watch over the ranks on `hosts`, of which this is number `rank`, with a connection to the store at
    /// `address` for itself.
    pub(super) fn begin(
        store: Store,
        rank: usize,
        hosts: Vec<String>,
        address: String,
        served: bool,
        on_fault: OnFault,
    ) -> Result<Self> {
        let shared = Arc::new(Shared {
            rank,
            hosts,
            address,
            served,
            on_fault,
            step: AtomicU64::new(0),
            pace: AtomicU64::new(0),
            warnings: Mutex::default(),
            answers: AtomicU64::new(0),
            broken: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            fault: Mutex::new(None),
        });
        let (watching, counting) = (Arc::clone(&shared), Arc::clone(&shared));
        let spawned = thread::Builder::new().spawn(move || watching.watch(&store));
        spawned.map_err(Error::Threads)?;
        let spawned = thread::Builder::new().spawn(move || counting.count_answers());
        spawned.map_err(Error::Threads)?;
        Ok(Self(shared))
    }

    pub(super) fn at_step(&self, step: u64, pace: u64) {
        self.0.step.store(step, Ordering::Relaxed);
        self.0.pace.store(pace, Ordering::Relaxed);
    }

    /// The sentences that were not taken yet.
    pub(super) fn warnings(&self) -> Vec<String> {
        let mut warnings = (self.0.warnings.lock()).unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut warnings)
    }

    /// Ends the watch: what happens to other ranks from here on does not matter.
    pub(super) fn end(&self) {
        self.0.ended.store(true, Ordering::Relaxed);
    }

    /// The first fault of a rank that is known here.
    pub(super) fn fault(&self) -> Option<Fault> {
        self.0.known()
    }

    /// What is behind `error`, which libtorch met while this rank computed with others.
    pub(super) fn explain(&self, error: Error) -> Error {
        let Error::Torch(text) = error else {
            return error;
        };
        self.0.broken.store(true, Ordering::Relaxed);
        let began = Instant::now();
        while began.elapsed() < EXPLAIN {
            if let Some(fault) = self.fault() {
                return RankError::Fault(fault).into();
            }
            thread::sleep(Duration::from_millis(50));
        }
        RankError::Broken(text).into()
    }
}

/// Tells all ranks of `fault`, unless they know of another one.
pub(super) fn report(store: &Store, fault: &Fault) -> Result<()> {
    let text = serde_json::to_vec(fault).unwrap_or_default();
    store.claim(FAULT, &text).map(drop)
}

impl Shared {
    fn known(&self) -> Option<Fault> {
        self.fault
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn host(&self, rank: usize) -> String {
        self.hosts.get(rank).cloned().unwrap_or_default()
    }

    fn fault(&self, rank: usize, what: String) -> Fault {
        Fault {
            rank,
            host: self.host(rank),
            what,
        }
    }

    /// Takes note of `fault`, and acts on it if the main thread does not.
    fn act(&self, fault: Fault) {
        let mut known = self.fault.lock().unwrap_or_else(PoisonError::into_inner);
        let fault = known.get_or_insert(fault).clone();
        drop(known);
        for _ in 0..GRACE {
            thread::sleep(BEAT);
            if self.ended.load(Ordering::Relaxed) {
                return;
            }
        }
        (self.on_fault)(&fault);
    }

    fn watch(&self, store: &Store) {
        let mut pulses: Vec<_> = self.hosts.iter().map(|_| Pulse::default()).collect();
        let mut slow = Slow::default();
        for round in 0_u64.. {
            if self.ended.load(Ordering::Relaxed) {
                return;
            }
            match self.round(store, round, &mut pulses) {
                Ok(None) => {
                    self.answers.fetch_add(1, Ordering::Relaxed);
                    if self.rank == 0 && round % LOOK == 0 {
                        // A store that is gone is met in the next round.
                        let _ = self.compare_paces(store, &mut slow);
                    }
                }
                Ok(Some(fault)) => return self.act(fault),
                Err(_) if self.ended.load(Ordering::Relaxed) => return,
                Err(_) => {
                    let fault = match self.served {
                        true => self.fault(
                            self.rank,
                            format!(
                                "the launcher at {} is gone, so this rank ends",
                                self.address
                            ),
                        ),
                        false => self.fault(0, "it has ended, and the store with it".to_owned()),
                    };
                    return self.act(fault);
                }
            }
            thread::sleep(BEAT);
        }
    }

    /// Writes a beat, and looks for a fault.
    fn round(&self, store: &Store, round: u64, pulses: &mut [Pulse]) -> Result<Option<Fault>> {
        let step = self.step.load(Ordering::Relaxed);
        let broken = self.broken.load(Ordering::Relaxed);
        let text = beat_text(round, broken, step, self.pace.load(Ordering::Relaxed));
        store.set(&beat(self.rank), text.as_bytes())?;
        if let Some(found) = store.get(FAULT)? {
            return Ok(serde_json::from_slice(&found).ok());
        }
        let next = (self.rank + 1) % self.hosts.len();
        for (rank, pulse) in pulses.iter_mut().enumerate() {
            if rank == self.rank || !(broken || rank == next) {
                continue;
            }
            pulse.note(store.get(&beat(rank))?);
            pulse.broken += u32::from(broken);
            let Some(what) = pulse.fault(broken) else {
                continue;
            };
            report(store, &self.fault(rank, what))?;
            let first = store.get(FAULT)?.unwrap_or_default();
            return Ok(serde_json::from_slice(&first).ok());
        }
        Ok(None)
    }

    /// Looks for a rank that the others wait for.
    fn compare_paces(&self, store: &Store, slow: &mut Slow) -> Result<()> {
        let pace = |rank| Ok(store.get(&beat(rank))?.map_or(0, |beat| pace_in(&beat)));
        let paces: Vec<_> = (0..self.hosts.len()).map(pace).collect::<Result<_>>()?;
        let Some((rank, times)) = slow.look(&paces) else {
            return Ok(());
        };
        let mut warnings = self.warnings.lock().unwrap_or_else(PoisonError::into_inner);
        warnings.push(format!(
            "all wait for rank {rank} ({}), which takes {times:.1} times as long for an image as the others: see what else its host does",
            self.host(rank)
        ));
        Ok(())
    }

    /// Finds out that the store does not answer, which the thread that asks it cannot.
    fn count_answers(&self) {
        let (mut last, mut unanswered) = (0, 0);
        while unanswered < UNANSWERED {
            thread::sleep(BEAT);
            if self.ended.load(Ordering::Relaxed) || self.known().is_some() {
                return;
            }
            let answers = self.answers.load(Ordering::Relaxed);
            unanswered = if answers == last { unanswered + 1 } else { 0 };
            last = answers;
        }
        let seconds = u64::from(UNANSWERED) * BEAT.as_secs();
        let what = format!(
            "{}, where the ranks meet, has not answered for {seconds} s: its host is stopped, or cut off",
            self.address
        );
        self.act(self.fault(if self.served { self.rank } else { 0 }, what));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pulse_counts_the_beats_that_do_not_change() {
        let mut pulse = Pulse::default();
        let is_waiting = false;
        for (round, silent) in [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)] {
            pulse.note(Some(beat_text(round, is_waiting, 17, 900).into_bytes()));
            assert_eq!(pulse.silent, silent, "round {round}");
        }
        assert_eq!(pulse.step(), "17");
        assert_eq!(pace_in(pulse.last.as_deref().unwrap()), 900);
    }

    #[test]
    fn fault_of_a_rank_follows_from_its_beats() {
        let beat = |round: u32, waiting| Some(beat_text(round.into(), waiting, 17, 0).into_bytes());
        // Rounds of this rank, how many of them the other has beaten, whether this one and the other wait in vain.
        for (rounds, beats, broken, waiting, said) in [
            (SILENT, 1, false, false, None),
            (
                SILENT + 1,
                1,
                false,
                false,
                Some("it has not answered for 20 s"),
            ),
            (
                GONE + 1,
                1,
                true,
                true,
                Some("it is gone; its last step was 17"),
            ),
            (SILENT + 9, SILENT + 9, false, false, None),
            (LATE - 1, LATE, true, false, None),
            (
                LATE,
                LATE,
                true,
                false,
                Some("the others have waited for it"),
            ),
            (2 * LATE, 2 * LATE, true, true, None),
        ] {
            let mut pulse = Pulse::default();
            for round in 0..rounds {
                pulse.note(beat(round.min(beats - 1), waiting));
                pulse.broken += u32::from(broken);
            }
            let found = pulse.fault(broken);
            let is_it = match (&found, said) {
                (Some(found), Some(said)) => found.starts_with(said),
                (found, said) => found.is_none() && said.is_none(),
            };
            assert!(is_it, "{rounds} rounds, {beats} beats: {found:?}");
        }
    }
}
