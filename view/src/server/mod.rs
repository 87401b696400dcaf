//! The server of the page: embedded files, and what they ask for below `/api/`. It reads, and writes nothing. A path of a
//! request never becomes a path of a file.

mod access;
mod assets;
mod routes;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::middleware::from_fn_with_state;
use axum::routing::get;
use serde_json::{Value, json};
use tinyres_format::Manifest;
use tinyres_results::Duplicates;
use tinyres_results::duplicates::{Likeness, Place};
use tokio::net::TcpListener;

pub use access::{Access, Token};

use crate::error::{Error, Result};
use crate::run::{Predicted, Run};
use crate::split::Split;

/// What is shown.
pub struct Site {
    dir: PathBuf,
    manifest: Manifest,
    /// The splits that were asked for.
    splits: Mutex<Vec<(tinyres_format::Split, Arc<Split>)>>,
    runs: Vec<Run>,
    /// The pictures that are there more than once, once they were looked for.
    duplicates: Mutex<Option<Value>>,
}

impl Site {
    /// The set in `dir`, whose manifest is `manifest`, and the runs.
    pub fn new(dir: PathBuf, manifest: Manifest, runs: Vec<Run>) -> Self {
        Self {
            dir,
            manifest,
            splits: Mutex::default(),
            duplicates: Mutex::default(),
            runs,
        }
    }

    /// A split of the set, which is opened when it is first asked for.
    fn split(&self, name: &str) -> Result<Arc<Split>> {
        let none = || Error::NotFound(format!("the set has no split {name:?}"));
        let split = name.parse().map_err(|_| none())?;
        let entry = self.manifest.split(split).ok_or_else(none)?;
        let mut splits = self.splits.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, open)) = splits.iter().find(|(other, _)| *other == split) {
            return Ok(Arc::clone(open));
        }
        let open = Arc::new(Split::open(&self.dir, &self.manifest, entry)?);
        splits.push((split, Arc::clone(&open)));
        Ok(open)
    }

    /// Pairs of pictures that are alike, over all splits; of each the split and its number there.
    fn duplicates(&self) -> Result<Value> {
        let mut found = (self.duplicates.lock()).unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = &*found {
            return Ok(found.clone());
        }
        let entries = self.manifest.splits.iter().filter(|entry| entry.images > 0);
        let names: Vec<_> = entries.map(|entry| entry.split).collect();
        let sets = names.iter().map(|name| self.split(&name.to_string()));
        let all = Duplicates::find(&sets.collect::<Result<Vec<_>>>()?)?;
        let place = |place: Place| json!([names[place.set], place.image]);
        let pairs = all.pairs.iter().map(|pair| {
            let likeness = match pair.likeness {
                Likeness::Exact => "exact",
                Likeness::Near => "near",
                Likeness::Mirrored => "mirrored",
            };
            json!({
                "a": place(pair.a),
                "b": place(pair.b),
                "likeness": likeness,
                "difference": pair.difference,
            })
        });
        let pairs: Vec<Value> = pairs.collect();
        let value = json!({ "pairs": pairs, "complete": all.complete });
        *found = Some(value.clone());
        Ok(value)
    }

    /// The predictions of a run for a split of this set.
    fn predicted(&self, run: usize, split: &str) -> Result<Arc<Predicted>> {
        let none = || Error::NotFound(format!("the set has no split {split:?}"));
        let entry = split
            .parse()
            .ok()
            .and_then(|split| self.manifest.split(split));
        let entry = entry.ok_or_else(none)?;
        let run = self.run(run)?;
        run.predicted(entry.split, self.manifest.fingerprint, entry.images)
    }

    /// The areas under the margins of a run for the train split of this set.
    fn margins(&self, run: usize) -> Result<Vec<u8>> {
        let train = self.manifest.split(tinyres_format::Split::Train);
        let images = train.map_or(0, |entry| entry.images);
        self.run(run)?.margins(self.manifest.fingerprint, images)
    }

    fn run(&self, index: usize) -> Result<&Run> {
        let none = || Error::NotFound(format!("there is no run {index}"));
        self.runs.get(index).ok_or_else(none)
    }
}

/// Serves `site` to whom `access` lets in, until the process ends.
pub async fn serve(listener: TcpListener, site: Site, access: Access) -> anyhow::Result<()> {
    let router = Router::new()
        .route("/api/set", get(routes::set))
        .route("/api/split/{split}/columns", get(routes::columns))
        .route("/api/split/{split}/names", get(routes::names))
        .route("/api/split/{split}/grey", get(routes::grey))
        .route("/api/split/{split}/pixels", get(routes::pixels))
        .route("/api/run/{run}", get(routes::run))
        .route("/api/metrics", get(routes::metrics))
        .route(
            "/api/run/{run}/predictions/{split}",
            get(routes::predictions),
        )
        .route(
            "/api/run/{run}/neighbours/{split}/{image}",
            get(routes::neighbours),
        )
        .route("/api/run/{run}/analysis/{split}", get(routes::analysis))
        .route("/api/run/{run}/map/{split}", get(routes::map))
        .route("/api/run/{run}/umap/{split}", get(routes::umap))
        .route("/api/run/{run}/margins", get(routes::margins))
        .route("/api/changes", get(routes::changes))
        .route("/api/compare/{a}/{b}/{split}", get(routes::compare))
        .route("/api/duplicates", get(routes::duplicates))
        .fallback(assets::asset)
        .with_state(Arc::new(site))
        .layer(from_fn_with_state(Arc::new(access), access::check));
    Ok(axum::serve(listener, router).await?)
}
