//! Loss of power while `train` works: whatever of the unforced changes of the run reaches the disk, no file under its
//! name is half written, and the run goes on. `TINYRES_POWER=all` tries all states.
#![cfg(feature = "torch")]

mod common;
#[path = "common/fixture.rs"]
mod fixture;
#[path = "../../tests/common/inject.rs"]
mod inject;
#[path = "../../tests/common/power.rs"]
mod power;
#[path = "../../tests/common/sets.rs"]
mod sets;

use std::collections::HashSet;
use std::fs;
use std::path::Path;

use fixture::{Fixture, LAST};
use power::{State, Trace};
use tinyres_torch::run::Run;
use tinyres_torch::run::checkpoint::Checkpoint;

/// Files of a run that resuming it looks at.
const READ: [&str; 3] = ["config.toml", "metrics.jsonl", LAST];

#[test]
fn without_power_a_run_keeps_whole_files_and_goes_on() {
    let fixture = Fixture::new();
    let dir = fixture.dir.path();
    let trace = Trace::record(&mut fixture.train(), dir, "run");
    assert!(trace.output.status.success(), "{:?}", trace.output);
    let (mut weights, mut resumed, mut went_on) = (HashSet::new(), HashSet::new(), 0);
    let tried = trace.states(2, |state| {
        for (path, content) in state {
            let Some(content) = content.as_ref().filter(|_| is_weights(path)) else {
                continue;
            };
            if weights.insert(content.hash) {
                fs::write(dir.join("weights"), &*content.bytes).unwrap();
                let loaded = Checkpoint::load(&dir.join("weights"));
                loaded.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            }
        }
        let hash = |name| {
            state
                .get(&Path::new("run").join(name))
                .map(|it| it.as_ref().unwrap().hash)
        };
        if !resumed.insert(READ.map(hash)) {
            return;
        }
        let read: State = (state.iter())
            .filter(|(path, _)| {
                READ.iter().any(|name| path.ends_with(name)) || path.ends_with("run")
            })
            .map(|(path, content)| (path.clone(), content.clone()))
            .collect();
        power::write(&read, dir, "run");
        let has_config = read.contains_key(Path::new("run/config.toml"));
        match Run::resume(&fixture.run()) {
            Ok((_, checkpoint)) => {
                let epoch = checkpoint.map_or(0, |it| u64::from(it.about.position.epoch));
                let epochs = epochs(&fixture.run().join("metrics.jsonl"));
                assert_eq!(epochs, (0..epoch).collect::<Vec<_>>(), "its figures");
            }
            Err(_) if !has_config => {}
            Err(error) => panic!("it does not go on: {error}"),
        }
        if resumed.len() % 12 == 1 {
            power::write(&read, dir, "run");
            if let Err(wrong) = fixture.check() {
                panic!("it does not go on: {wrong}");
            }
            went_on += 1;
        }
    });
    let (weights, resumed) = (weights.len(), resumed.len());
    println!(
        "{tried:?}: {weights} files of weights loaded, {resumed} runs resumed, {went_on} went on to the same weights"
    );
    assert!(tried.states > 50 && weights > 2 && resumed > 5 && went_on > 1);
}

/// True for weights under the name by which others find them.
fn is_weights(path: &Path) -> bool {
    let hidden = path
        .file_name()
        .is_some_and(|name| name.to_string_lossy().starts_with('.'));
    path.extension().is_some_and(|it| it == "safetensors") && !hidden
}

/// The epochs whose figures are in the metrics, in order.
fn epochs(metrics: &Path) -> Vec<u64> {
    let text = fs::read_to_string(metrics).unwrap_or_default();
    let lines = text
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    lines
        .filter_map(|line| line["train_loss"].as_f64().and(line["epoch"].as_u64()))
        .collect()
}
