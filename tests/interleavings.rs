//! Two packs into the same directory, interleaved as a seed says. `TINYRES_INTERLEAVINGS` sets how often,
//! `TINYRES_CRASH_SEED` how.

mod common;
#[path = "common/inject.rs"]
mod inject;
#[path = "common/interleave.rs"]
mod interleave;
#[path = "common/packing.rs"]
mod packing;

use interleave::interleave;
use packing::{Fixture, Found, Operation};
use tinyres_format::{Draws, Stream};

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |value| value.parse().unwrap())
}

#[test]
fn interleaved_packs_leave_one_whole_set_or_what_was_there() {
    let fixture = Fixture::small(Operation::Pack);
    let calls = |over| {
        fixture.begin(over);
        let run = inject::run(&mut fixture.command(over), &fixture.out(), "");
        run.calls.len() as u64
    };
    let calls = calls(false).max(calls(true));
    let rounds = number("TINYRES_INTERLEAVINGS", 16);
    let seed = number("TINYRES_CRASH_SEED", 1);
    let mut seen = std::collections::BTreeMap::<_, u64>::new();
    for round in 0..rounds {
        let draws = Draws::new(seed, Stream::Sample, round);
        let over = draws.below(1000, 2) == 0;
        fixture.begin(over);
        let force: &[&str] = if over { &["--force"] } else { &[] };
        let other = ["new", "old"][usize::from(draws.below(1001, 2) == 0)];
        let packs = [fixture.pack("new", force), fixture.pack(other, force)];
        let ended = interleave(packs, &fixture.out(), [calls; 2], &draws);
        let check = || -> Result<Found, String> {
            let found = fixture.found()?;
            let succeeded = [ended[0].succeeded()?, ended[1].succeeded()?];
            let killed = ended.iter().any(interleave::Ended::was_killed);
            if !killed && !succeeded.contains(&true) {
                return Err("each gave way to the other".into());
            }
            if succeeded.contains(&true) && found == Found::None {
                return Err("the set of one that succeeded is gone".into());
            }
            fixture.complete().or_else(|wrong| match (over, found) {
                // Without --force the set of the other stays.
                (false, Found::Old) => Ok(()),
                _ => Err(wrong),
            })?;
            Ok(found)
        };
        match check() {
            Ok(found) => *seen.entry((over, found)).or_default() += 1,
            Err(wrong) => panic!("seed {seed}, round {round}: {wrong}\\n{ended:#?}"),
        }
    }
    println!("{rounds} interleavings, over a set or not, found: {seen:?}");
}
