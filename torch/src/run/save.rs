//! The files that a run saves at one of its steps, from a copy: another thread may write them while training goes on.

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::checkpoint::{About, Snapshot};
use super::{BEST, LAST, METRICS, Run};
use crate::{Error, Result};

/// A checkpoint, and weights that are the best so far, to be written.
#[derive(Debug)]
pub(crate) struct Save {
    dir: PathBuf,
    metrics: Option<Arc<File>>,
    best: Option<Best>,
    /// Its position has the best top-1 before this save.
    about: About,
    state: Snapshot,
}

/// The weights of a checkpoint, if they are the best so far.
#[derive(Debug)]
pub(crate) struct Best {
    /// Their description.
    pub about: About,
    /// Their top-1 on the validation split.
    pub top1: f64,
}

/// How a [`Save`] ended.
#[derive(Debug)]
pub(crate) struct Saved {
    /// Steps of the run that the checkpoint has.
    pub step: u64,
    /// Time that writing it took.
    pub took: Duration,
    /// The best top-1 of weights that were saved.
    pub top1: Option<f64>,
    /// Outcome of the best weights, if there were some.
    pub best: Option<Result<()>>,
    /// Outcome of the metrics, which are forced to the disk.
    pub metrics: Result<()>,
    /// Outcome of the checkpoint.
    pub last: Result<()>,
}

impl Run {
    /// The save of the checkpoint `state` with the description `about`, and of its weights if they are `best`.
    pub(crate) fn save(&self, about: About, state: Snapshot, best: Option<Best>) -> Save {
        Save {
            dir: self.dir.path.clone(),
            metrics: self.metrics.clone(),
            best,
            about,
            state,
        }
    }
}

impl Save {
    /// Writes all of it. Each file is on the disk before the next one is begun, the checkpoint last: a crash leaves none
    /// without the best weights that it knows of, or without the figures of its past.
    pub(crate) fn write(mut self) -> Saved {
        let began = Instant::now();
        let position = &mut self.about.position;
        let best = self.best.map(|best| {
            let saved = (self.state.weights()).save(&self.dir.join(BEST), &best.about);
            if saved.is_ok() {
                // Otherwise the next weights that beat the file that is there are saved, also if they are worse than these.
                position.best = Some(best.top1);
            }
            saved
        });
        let metrics = self.metrics.map_or(Ok(()), |file| file.sync_data());
        let last = self.state.save(&self.dir.join(LAST), &self.about);
        Saved {
            step: self.about.position.step,
            top1: self.about.position.best,
            best,
            metrics: metrics.map_err(Error::io(&self.dir.join(METRICS))),
            last,
            took: began.elapsed(),
        }
    }
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind, Tensor};
    use tinyres_format::Digest;

    use super::*;
    use crate::config::Config;
    use crate::net::ResNet18;
    use crate::run::checkpoint::{Checkpoint, Position};

    fn about(config: &Config) -> About {
        About {
            version: "0.1.0".to_owned(),
            classes: Vec::new(),
            fingerprint: Digest::of(b"data"),
            shards: None,
            side: None,
            config: config.clone(),
            new: Vec::new(),
            position: Position {
                size: 64,
                step: 3,
                best: Some(0.2),
                ..Position::default()
            },
        }
    }

    #[test]
    fn save_holds_the_state_from_when_it_was_made() {
        let dir = tempfile::tempdir().unwrap();
        let config = Config::layered(None, toml::Table::new(), false).unwrap();
        let run = Run::create(
            &dir.path().join("run"),
            config.clone(),
            dir.path(),
            Digest::of(b"data"),
        )
        .unwrap();
        let network = ResNet18::new(config.spec(3), 5, Device::Cpu).unwrap();
        let weight = |state: &[(String, Tensor)]| {
            let is_first = |(name, _): &&(String, Tensor)| name == "conv1.weight";
            state.iter().find(is_first).unwrap().1.copy()
        };
        let before = weight(&network.state().unwrap());
        let mut momentum = Tensor::ones([4], (Kind::Float, Device::Cpu));
        let average = Tensor::full([3], 0.25, (Kind::Float, Device::Cpu));
        let rest = vec![
            ("optimizer/momentum".to_owned(), momentum.shallow_clone()),
            ("ema/fc.bias".to_owned(), average.copy()),
        ];
        let best = || {
            Some(Best {
                about: about(&config),
                top1: 0.5,
            })
        };
        let state = |rest| Snapshot::new(&network, rest).unwrap();
        let first = run.save(about(&config), state(rest), best());
        tch::no_grad(|| {
            for named in network.named() {
                let _ = named.tensor.shallow_clone().zero_();
            }
            let _ = momentum.zero_();
        });
        // No file can take the place of a directory.
        let second = run.save(about(&config), state(Vec::new()), best());

        let saved = first.write();
        assert!(saved.best.unwrap().is_ok() && saved.metrics.is_ok() && saved.last.is_ok());
        assert_eq!((saved.step, saved.top1), (3, Some(0.5)));
        for name in [BEST, LAST] {
            let read = Checkpoint::load(&run.dir().join(name)).unwrap();
            assert!(weight(read.weights()) == before, "{name}");
        }
        let last = Checkpoint::load(&run.dir().join(LAST)).unwrap();
        assert_eq!(last.about.position.best, Some(0.5));
        let tensor = |state: &[(String, Tensor)], name: &str| {
            let found = state.iter().find(|(other, _)| other == name);
            found.unwrap().1.copy()
        };
        let momentum = tensor(last.training_state(), "optimizer/momentum");
        assert_eq!(momentum.sum(Kind::Float).double_value(&[]), 4.0);
        assert!(tensor(last.weights(), "fc.bias") != average);
        // The best weights are those that were evaluated: of an averaged tensor, the average.
        let best = Checkpoint::load(&run.dir().join(BEST)).unwrap();
        assert!(tensor(best.weights(), "fc.bias") == average);
        assert!(best.training_state().is_empty());

        std::fs::remove_file(run.dir().join(BEST)).unwrap();
        std::fs::create_dir(run.dir().join(BEST)).unwrap();
        let saved = second.write();
        assert!(matches!(saved.best, Some(Err(Error::Io { .. }))));
        assert!(saved.last.is_ok());
        assert_eq!(saved.top1, Some(0.2));
        let last = Checkpoint::load(&run.dir().join(LAST)).unwrap();
        assert_eq!(last.about.position.best, Some(0.2));
    }
}
