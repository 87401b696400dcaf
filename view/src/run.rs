//! A run that is shown: its figures, its predictions, and what follows from them.

use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::SystemTime;

use serde_json::{Value, json};
use tinyres::runs::RunSummary;
use tinyres_format::{Digest, Split};
use tinyres_results::{Calibration, Confusion, Features, Logits, Pca, Predictions};
use tinyres_results::{by_class, suspects};

use crate::error::{Error, Result};
use crate::table::Table;

const SPLITS: [Split; 3] = [Split::Train, Split::Val, Split::Test];

/// A run.
pub struct Run {
    pub dir: PathBuf,
    /// The predictions that were read last for each split.
    read: Mutex<Vec<(Stamp, Arc<Predicted>)>>,
}

/// Which file was read: a run that ends, or `tinyres eval`, writes another one.
#[derive(PartialEq)]
struct Stamp {
    path: PathBuf,
    modified: Option<SystemTime>,
    len: u64,
}

/// The predictions for a split, and the arrays next to them.
pub struct Predicted {
    pub table: Predictions,
    logits: Option<Logits>,
    features: Option<Features>,
    analysis: OnceLock<Value>,
    map: OnceLock<Vec<u8>>,
}

impl Run {
    /// The runs in `dirs`, each of which must hold one now. Later it may vanish.
    pub fn all(dirs: &[PathBuf]) -> tinyres::runs::Result<Vec<Self>> {
        let open = |dir: &PathBuf| {
            RunSummary::read(dir)?;
            Ok(Self {
                dir: dir.clone(),
                read: Mutex::default(),
            })
        };
        dirs.iter().map(open).collect()
    }

    /// What the page shows of it in lists. For a run that vanished it has `error`.
    pub fn summary(&self) -> Value {
        let name = tinyres::text::escaped(self.dir.as_os_str().as_encoded_bytes());
        let mut value = match RunSummary::read(&self.dir) {
            Ok(summary) => json!(summary),
            Err(error) => json!({ "error": error.to_string() }),
        };
        let having = |kind: &str| -> Vec<Split> {
            let has = |split: &&Split| self.file(**split, kind).exists();
            SPLITS.iter().filter(has).copied().collect()
        };
        value["name"] = name.into();
        value["predictions"] = json!(having("parquet"));
        value["features"] = json!(having("features.npy"));
        value
    }

    /// The file of its figures.
    pub fn metrics(&self) -> PathBuf {
        self.dir.join("metrics.jsonl")
    }

    fn file(&self, split: Split, kind: &str) -> PathBuf {
        self.dir.join("eval").join(format!("{split}.{kind}"))
    }

    /// Its predictions for a split of the set with this fingerprint, which has so many images.
    pub fn predicted(&self, split: Split, set: Digest, images: u64) -> Result<Arc<Predicted>> {
        let path = self.file(split, "parquet");
        let about = fs::metadata(&path).ok();
        let stamp = Stamp {
            modified: about.as_ref().and_then(|about| about.modified().ok()),
            len: about.map_or(0, |about| about.len()),
            path,
        };
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, predicted)) = read.iter().find(|(other, _)| *other == stamp) {
            return Ok(Arc::clone(predicted));
        }
        let table = Predictions::read(&stamp.path)?;
        if table.origin.fingerprint != set || table.len() as u64 != images {
            return Err(Error::NotFound(format!(
                "{}: these predictions are for another set: run tinyres eval on this one",
                stamp.path.display()
            )));
        }
        let predicted = Arc::new(Predicted {
            logits: Logits::next_to(&stamp.path, table.len(), table.classes())?,
            analysis: OnceLock::new(),
            map: OnceLock::new(),
            features: Features::next_to(&stamp.path, table.len())?,
            table,
        });
        read.retain(|(other, _)| other.path != stamp.path);
        read.push((stamp, Arc::clone(&predicted)));
        Ok(predicted)
    }
}

impl Predicted {
    /// The columns that the page filters by and shows.
    pub fn columns(&self) -> Vec<u8> {
        let all = &self.table;
        let mut table = Table::new(all.len());
        table.numbers("predicted", 1, &all.predicted);
        table.numbers("confidence", 1, &all.confidence);
        table.numbers("label_prob", 1, &all.label_prob);
        table.numbers("loss", 1, &all.loss);
        table.numbers("margin", 1, &all.margin);
        table.numbers("entropy", 1, &all.entropy);
        table.numbers("rank", 1, &all.rank);
        table.numbers("top5", all.top5.width(), all.top5.values());
        table.numbers("top5_prob", all.top5_prob.width(), all.top5_prob.values());
        if let Some(boxes) = &all.boxes {
            table.numbers("predicted_box", 4, boxes.predicted.as_flattened());
            table.numbers("iou", 1, &boxes.iou);
        }
        table.encode()
    }

    /// What follows from the predictions: confusion, figures of classes, calibration, suspected labels. Computed once.
    pub fn analysis(&self) -> &Value {
        self.analysis.get_or_init(|| self.analyse())
    }

    fn analyse(&self) -> Value {
        let (all, logits) = (&self.table, self.logits.as_ref());
        let confusion = Confusion::of(all);
        let confused = confusion.confused();
        let pairs = confused
            .iter()
            .take(200)
            .map(|pair| json!([pair.a, pair.b, pair.a_as_b, pair.b_as_a]));
        let classes = by_class(all)
            .into_iter()
            .map(|class| json!([class.images, class.predicted, class.right]));
        let calibration = Calibration::of(all);
        let bins = calibration
            .bins
            .iter()
            .map(|bin| json!([bin.images, bin.confidence, bin.accuracy]));
        let suspected = logits.map(|logits| suspects(all, logits));
        let suspected = suspected.unwrap_or_default();
        let suspected = suspected
            .iter()
            .map(|suspect| json!([suspect.row, suspect.class, suspect.label_prob]));
        let mean = |values: &mut dyn Iterator<Item = f64>| values.sum::<f64>() / all.len() as f64;
        json!({
            "images": all.len(),
            "top1": mean(&mut all.rank.iter().map(|&rank| f64::from(u8::from(rank == 1)))),
            "top5": mean(&mut all.rank.iter().map(|&rank| f64::from(u8::from(rank <= 5)))),
            "loss": mean(&mut all.loss.iter().map(|&loss| f64::from(loss))),
            "order": confusion.order(all, logits),
            "cells": confusion.cells().collect::<Vec<_>>(),
            "confused": pairs.collect::<Vec<_>>(),
            "classes": classes.collect::<Vec<_>>(),
            "calibration": { "error": calibration.expected_error, "bins": bins.collect::<Vec<_>>() },
            "suspects": suspected.collect::<Vec<_>>(),
            "has_logits": logits.is_some(),
        })
    }

    /// Places of the images on a map of their features, as columns.
    pub fn map(&self) -> Result<&[u8]> {
        let features = self.features()?;
        Ok(self.map.get_or_init(|| {
            let pca = Pca::of(features);
            #[expect(clippy::cast_possible_truncation, reason = "shown as a percentage")]
            let explained = pca.explained as f32;
            let mut table = Table::new(pca.places.len());
            table.numbers("xy", 2, pca.places.as_flattened());
            table.numbers("explained", 0, &[explained]);
            table.encode()
        }))
    }

    fn features(&self) -> Result<&Features> {
        let none = "this run has no features: tinyres eval --features writes them";
        (self.features.as_ref()).ok_or_else(|| Error::NotFound(none.to_owned()))
    }

    /// The images whose features are most like those of `image`, by the cosine, the most alike first, with it.
    pub fn neighbours(&self, image: usize, count: usize) -> Result<Vec<(usize, f32)>> {
        let features = self.features()?;
        if image >= self.table.len() {
            return Err(Error::NotFound(format!("there is no image {image}")));
        }
        let own = features.row(image);
        let dot = |a: &[f32], b: &[f32]| -> f32 { a.iter().zip(b).map(|(a, b)| a * b).sum() };
        let length = |row: &[f32]| dot(row, row).sqrt().max(f32::MIN_POSITIVE);
        let own_length = length(own);
        let mut alike: Vec<(usize, f32)> = (features.values().chunks_exact(features.width()))
            .enumerate()
            .filter(|(row, _)| *row != image)
            .map(|(row, other)| (row, dot(own, other) / (own_length * length(other))))
            .collect();
        alike.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        alike.truncate(count);
        Ok(alike)
    }
}
