//! Loss of power: whatever of the unforced changes of `pack`, `expand` and `sample` reaches the disk, a reader finds
//! the older set, the new one, or none, and the same command completes the set. `TINYRES_POWER=all` tries all states.

mod common;
#[path = "common/inject.rs"]
mod inject;
#[path = "common/packing.rs"]
mod packing;
#[path = "common/power.rs"]
mod power;

use std::collections::BTreeMap;
use std::process::Command;

use packing::{Fixture, Found, Operation, tinyres};
use power::Trace;

/// After so many states, one is completed.
const COMPLETED: usize = 40;

fn loses_power(operation: Operation, over: bool) {
    let fixture = Fixture::small(operation);
    let (dir, out) = (fixture.dir.path(), fixture.out());
    fixture.begin(over);
    let trace = Trace::record(&mut fixture.command(over), dir, "out");
    assert!(trace.output.status.success(), "{:?}", trace.output);
    assert_eq!(fixture.found(), Ok(Found::New));
    let (mut found, mut completed) = (BTreeMap::<Found, usize>::new(), 0);
    let mut number = 0;
    let tried = trace.states(20, |state| {
        power::write(state, dir, "out");
        let seen = fixture.found().and_then(|seen| match (seen, over) {
            (Found::None, true) if operation == Operation::Expand => Err("no set".to_owned()),
            (Found::Old, false) => Err("a set has come from nowhere".to_owned()),
            _ => Ok(seen),
        });
        let checked = seen.and_then(|seen| {
            *found.entry(seen).or_default() += 1;
            number += 1;
            if number % COMPLETED == 0 {
                completed += 1;
                fixture.complete()?;
            }
            Ok(())
        });
        let names: Vec<_> = state.keys().collect();
        checked.unwrap_or_else(|wrong| panic!("state {number}: {wrong}\n{names:#?}"));
    });
    println!(
        "{operation:?}, over an older set: {over}: {tried:?}, found {found:?}, {completed} completed"
    );
    assert!(found.len() > 1 && tried.states > 50 && out.exists());
}

#[test]
fn pack_without_power_leaves_no_set_or_the_older_one() {
    loses_power(Operation::Pack, false);
    loses_power(Operation::Pack, true);
}

#[test]
fn pack_zstd_without_power_leaves_no_set_or_the_older_one() {
    loses_power(Operation::PackZstd, false);
    loses_power(Operation::PackZstd, true);
}

#[test]
fn expand_without_power_leaves_the_set_in_one_form() {
    loses_power(Operation::Expand, true);
}

#[test]
fn sample_without_power_leaves_no_set_or_all_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let sample = || -> Command {
        let mut sample = tinyres();
        sample.arg("sample").arg(dir.path().join("set"));
        sample.args([
            "--classes",
            "2",
            "--train-per-class",
            "2",
            "--val-per-class",
            "1",
            "--test",
            "1",
        ]);
        sample.args(["--threads", "1"]);
        sample
    };
    let trace = Trace::record(&mut sample(), dir.path(), "set");
    assert!(trace.output.status.success(), "{:?}", trace.output);
    let whole = power::read(dir.path(), "set");
    let (mut there, mut gone) = (0, 0);
    let tried = trace.states(20, |state| {
        let set = || state.iter().filter(|(path, _)| path.starts_with("set"));
        if set().next().is_none() {
            gone += 1;
        } else {
            let names: Vec<_> = set().map(|(path, _)| path).collect();
            assert!(set().eq(&whole), "a part of the set: {names:#?}");
            there += 1;
        }
    });
    println!("sample: {tried:?}, whole {there}, none {gone}");
    assert!(there > 0 && gone > 0);
}
