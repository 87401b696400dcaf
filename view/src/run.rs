//! A run that is shown: its figures, its predictions, and what follows from them.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::UNIX_EPOCH;

use axum::body::Bytes;
use serde::Serialize;
use serde_json::{Value, json};
use tinyres::runs::RunSummary;
use tinyres_format::{Digest, Split};
use tinyres_results::{Calibration, Confusion, Features, Logits, Pca, Predictions};
use tinyres_results::{areas_under_margin, by_class, suspects, umap};

use crate::error::{Error, Result};
use crate::table::Table;

const SPLITS: [Split; 3] = [Split::Train, Split::Val, Split::Test];
/// The ends of the names of the files of predictions.
const FILES: [&str; 3] = ["parquet", "logits.npy", "features.npy"];

/// Held while a map is made: one at a time.
static ARRANGING: Mutex<()> = Mutex::new(());
/// Seed of each map: that of the same features is the same.
const SEED: u64 = 0;
/// Parts in which progress is told.
const MILLION: f64 = 1e6;

/// A run.
pub struct Run {
    pub dir: PathBuf,
    /// The predictions that were read last for each split.
    read: Mutex<Vec<(Stamp, Arc<Predicted>)>>,
}

/// The predictions of a split and the arrays next to them, as files: when each was written, in nanoseconds, and its bytes.
/// A run that ends, or `tinyres eval`, writes others.
#[derive(PartialEq, Serialize)]
pub struct Stamp {
    split: Split,
    files: [Option<(u128, u64)>; 3],
}

/// The predictions for a split, and what follows from them and from the arrays next to them, which are large: logits are
/// read for the analysis alone, and features when they are first asked for.
pub struct Predicted {
    pub table: Predictions,
    columns: OnceLock<Bytes>,
    features: Mutex<Option<Arc<Features>>>,
    analysis: Mutex<Option<Arc<Value>>>,
    map: OnceLock<Vec<u8>>,
    arranging: Mutex<Option<Arranging>>,
}

/// A map by neighbours: a thread makes it, and tells how many of a million parts are done.
enum Arranging {
    Thread(JoinHandle<Vec<u8>>, Arc<AtomicU32>),
    Ready(Bytes),
}

/// A map by neighbours: its columns, or the fraction that is done.
pub enum Arranged {
    Ready(Bytes),
    Working(f64),
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
        value["margins"] = self.dir.join("margins/epoch-0001.npy").exists().into();
        value
    }

    /// The file of its figures.
    pub fn metrics(&self) -> PathBuf {
        self.dir.join("metrics.jsonl")
    }

    fn file(&self, split: Split, kind: &str) -> PathBuf {
        self.dir.join("eval").join(format!("{split}.{kind}"))
    }

    fn stamp(&self, split: Split) -> Stamp {
        let about = |kind: &str| {
            let about = fs::metadata(self.file(split, kind)).ok()?;
            let written = about.modified().ok()?.duration_since(UNIX_EPOCH);
            Some((written.unwrap_or_default().as_nanos(), about.len()))
        };
        Stamp {
            split,
            files: FILES.map(about),
        }
    }

    /// The stamps of all splits.
    pub fn stamps(&self) -> [Stamp; 3] {
        SPLITS.map(|split| self.stamp(split))
    }

    /// The area under the margin of each of the `images` of train of the set with this fingerprint, as a column; NaN for
    /// an image without one.
    pub fn margins(&self, set: Digest, images: u64) -> Result<Vec<u8>> {
        let config = tinyres::runs::config(&self.dir)?;
        let trained_on = config.get("run").and_then(|run| run.get("fingerprint"));
        if trained_on.is_some_and(|other| other.as_str() != Some(&set.to_string())) {
            let dir = self.dir.display();
            let what = format!("{dir}: this run was trained on another set: show that one");
            return Err(Error::NotFound(what));
        }
        let rows = usize::try_from(images).unwrap_or(usize::MAX);
        let areas = areas_under_margin(&self.dir, rows)?;
        let none = "this run has no margins: tinyres train --track records them";
        let areas = areas.ok_or_else(|| Error::NotFound(none.to_owned()))?;
        #[expect(
            clippy::cast_possible_truncation,
            reason = "a mean of half-precision numbers"
        )]
        let area = |area: Option<f64>| area.map_or(f32::NAN, |area| area as f32);
        let areas: Vec<f32> = areas.into_iter().map(area).collect();
        let mut table = Table::new(rows);
        table.numbers("area", 1, &areas);
        Ok(table.encode())
    }

    /// Its predictions for a split of the set with this fingerprint, which has so many images.
    pub fn predicted(&self, split: Split, set: Digest, images: u64) -> Result<Arc<Predicted>> {
        let path = self.file(split, "parquet");
        let stamp = self.stamp(split);
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, predicted)) = read.iter().find(|(other, _)| *other == stamp) {
            return Ok(Arc::clone(predicted));
        }
        let table = Predictions::read(&path)?;
        if table.origin.fingerprint != set || table.len() as u64 != images {
            return Err(Error::NotFound(format!(
                "{}: these predictions are for another set: run tinyres eval on this one",
                path.display()
            )));
        }
        let predicted = Arc::new(Predicted {
            columns: OnceLock::new(),
            features: Mutex::default(),
            analysis: Mutex::default(),
            map: OnceLock::new(),
            arranging: Mutex::default(),
            table,
        });
        read.retain(|(other, _)| other.split != split);
        read.push((stamp, Arc::clone(&predicted)));
        Ok(predicted)
    }
}

impl Predicted {
    /// The columns that the page filters by and shows. Kept: each page asks for them.
    pub fn columns(&self) -> Bytes {
        self.columns.get_or_init(|| self.encode().into()).clone()
    }

    fn encode(&self) -> Vec<u8> {
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
    pub fn analysis(&self) -> Result<Arc<Value>> {
        once(&self.analysis, || {
            Ok(self.analyse(self.table.logits()?.as_ref()))
        })
    }

    fn analyse(&self, logits: Option<&Logits>) -> Value {
        let all = &self.table;
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
            let pca = Pca::of(&features);
            #[expect(clippy::cast_possible_truncation, reason = "shown as a percentage")]
            let explained = pca.explained as f32;
            let mut table = Table::new(pca.places.len());
            table.numbers("xy", 2, pca.places.as_flattened());
            table.numbers("explained", 0, &[explained]);
            table.encode()
        }))
    }

    /// Places of the images on a map by their neighbours, as columns. The first call starts a thread that makes it.
    pub fn arranged(&self) -> Result<Arranged> {
        let features = self.features()?;
        let mut arranging = (self.arranging.lock()).unwrap_or_else(PoisonError::into_inner);
        match arranging.take() {
            None => {
                let done = Arc::new(AtomicU32::new(0));
                let told = Arc::clone(&done);
                let thread = Builder::new().spawn(move || Self::arrange(&features, &told));
                let thread = thread.map_err(|error| Error::Broken(error.to_string()))?;
                *arranging = Some(Arranging::Thread(thread, done));
                Ok(Arranged::Working(0.0))
            }
            Some(Arranging::Thread(thread, done)) if !thread.is_finished() => {
                let fraction = f64::from(done.load(Ordering::Relaxed)) / MILLION;
                *arranging = Some(Arranging::Thread(thread, done));
                Ok(Arranged::Working(fraction))
            }
            Some(Arranging::Thread(thread, _)) => {
                let columns = thread
                    .join()
                    .map_err(|_| Error::Broken("no map was made".into()))?;
                let columns = Bytes::from(columns);
                *arranging = Some(Arranging::Ready(columns.clone()));
                Ok(Arranged::Ready(columns))
            }
            Some(Arranging::Ready(columns)) => {
                *arranging = Some(Arranging::Ready(columns.clone()));
                Ok(Arranged::Ready(columns))
            }
        }
    }

    /// Makes the map by neighbours.
    fn arrange(features: &Features, told: &AtomicU32) -> Vec<u8> {
        let _turn = ARRANGING.lock().unwrap_or_else(PoisonError::into_inner);
        let places = umap(features, SEED, &|done| {
            #[expect(clippy::cast_possible_truncation, reason = "at most a million")]
            #[expect(clippy::cast_sign_loss, reason = "a fraction is not negative")]
            told.fetch_max((MILLION * done) as u32, Ordering::Relaxed);
        });
        let mut table = Table::new(places.len());
        table.numbers("xy", 2, places.as_flattened());
        table.encode()
    }

    fn features(&self) -> Result<Arc<Features>> {
        once(&self.features, || {
            let none = "this run has no features: tinyres eval --features writes them";
            let features = Features::next_to(&self.table.path, self.table.len())?;
            features.ok_or_else(|| Error::NotFound(none.to_owned()))
        })
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

/// The value that `place` holds, made by `make` if there is none yet. A failure is not kept.
fn once<T>(place: &Mutex<Option<Arc<T>>>, make: impl FnOnce() -> Result<T>) -> Result<Arc<T>> {
    let mut place = place.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(made) = &*place {
        return Ok(Arc::clone(made));
    }
    let made = Arc::new(make()?);
    *place = Some(Arc::clone(&made));
    Ok(made)
}
