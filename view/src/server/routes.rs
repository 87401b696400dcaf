//! The answers below `/api/`.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse as _, Response};
use futures_util::stream::{self, Stream};
use serde::Deserialize;
use serde_json::{Value, json};
use tinyres_results::Agreement;
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use super::Site;
use crate::error::{Error, Result};
use crate::follow::{Follower, News};
use crate::run::Arranged;
use crate::table::Table;

/// Time between two looks at the figures of a run.
const POLL: Duration = Duration::from_millis(500);

/// Pictures that are shown as like another one.
const NEIGHBOURS: usize = 12;

type Shared = State<Arc<Site>>;

/// Carries out `work`, which reads files, on a thread of its own.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let done = spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(Error::Broken(error.to_string())))
}

fn binary(bytes: impl Into<Body>) -> Response {
    let kind = [(header::CONTENT_TYPE, "application/octet-stream")];
    (kind, bytes.into()).into_response()
}

/// The set, its splits and classes, and the runs.
pub async fn set(State(site): Shared) -> Result<Json<Value>> {
    blocking(move || {
        let manifest = &site.manifest;
        let splits = manifest.splits.iter();
        let splits: Vec<_> = (splits.clone())
            .map(|entry| json!({ "name": entry.split, "images": entry.images }))
            .collect();
        // All shards name the same classes.
        let smallest = (manifest.splits.iter())
            .filter(|entry| entry.images > 0)
            .min_by_key(|entry| entry.images);
        let classes = match smallest {
            Some(entry) => site.split(&entry.split.to_string())?.classes.clone(),
            None => Vec::new(),
        };
        let runs: Vec<Value> = site.runs.iter().map(|run| run.summary()).collect();
        Ok(Json(json!({
            "version": env!("CARGO_PKG_VERSION"),
            "dir": tinyres::text::escaped(site.dir.as_os_str().as_encoded_bytes()),
            "fingerprint": manifest.fingerprint,
            "shape": manifest.shape,
            "splits": splits,
            "classes": classes,
            "runs": runs,
        })))
    })
    .await
}

/// Labels and boxes of a split.
pub async fn columns(State(site): Shared, Path(split): Path<String>) -> Result<Response> {
    blocking(move || Ok(binary(site.split(&split)?.columns()))).await
}

/// Names of the images of a split.
pub async fn names(State(site): Shared, Path(split): Path<String>) -> Result<Response> {
    blocking(move || Ok(binary(site.split(&split)?.name_column()))).await
}

/// Which images of a split are grey. Reads every pixel.
pub async fn grey(State(site): Shared, Path(split): Path<String>) -> Result<Response> {
    blocking(move || {
        let split = site.split(&split)?;
        let mut table = Table::new(split.labels.len());
        table.numbers("grey", 1, &split.grey()?);
        Ok(binary(table.encode()))
    })
    .await
}

/// Images by number: from `first` on `count` of them, or `ids`, separated by commas.
#[derive(Deserialize)]
pub struct Wanted {
    first: Option<u32>,
    count: Option<u32>,
    ids: Option<String>,
}

impl Wanted {
    fn images(&self) -> Result<Vec<u32>> {
        let bad = |what: &str| Err(Error::Bad(what.to_owned()));
        match (self.first, self.count, &self.ids) {
            (Some(first), Some(count @ ..=65_536), None) => match first.checked_add(count) {
                Some(end) => Ok((first..end).collect()),
                None => bad("there are no images of such numbers"),
            },
            (None, None, Some(ids)) => {
                let ids: std::result::Result<Vec<u32>, _> =
                    ids.split(',').map(str::parse).collect();
                ids.or_else(|_| bad("ids are numbers of images, separated by commas"))
            }
            _ => bad("ask for first and count, at most 65536, or for ids"),
        }
    }
}

/// Pixels of images, `u8 [n, 3, H, W]`.
pub async fn pixels(
    State(site): Shared,
    Path(split): Path<String>,
    Query(wanted): Query<Wanted>,
) -> Result<Response> {
    blocking(move || {
        let images = wanted.images()?;
        Ok(binary(site.split(&split)?.pixels(&images)?))
    })
    .await
}

/// The summary of a run as it is now.
pub async fn run(State(site): Shared, Path(run): Path<usize>) -> Result<Json<Value>> {
    blocking(move || Ok(Json(site.run(run)?.summary()))).await
}

/// The figures of all runs, as events: those that are there, then new ones as they are written. One stream for all, since
/// a browser keeps few connections to a server.
pub async fn metrics(
    State(site): Shared,
) -> Sse<impl Stream<Item = std::result::Result<Event, Infallible>>> {
    let runs = site.runs.iter().map(|run| Follower::new(run.metrics()));
    let start = (runs.collect::<Vec<_>>(), VecDeque::new());
    let events = stream::unfold(start, |(mut runs, mut news)| async move {
        loop {
            if let Some((run, news_of_run)) = news.pop_front() {
                let data = json!({ "run": run, "news": news_of_run });
                let event = Event::default().json_data(data).ok()?;
                return Some((Ok(event), (runs, news)));
            }
            (runs, news) = spawn_blocking(move || {
                let polled = runs.iter_mut().enumerate();
                let news: VecDeque<(usize, News)> = polled
                    .filter_map(|(at, run)| Some((at, run.poll()?)))
                    .collect();
                (runs, news)
            })
            .await
            .ok()?;
            if news.is_empty() {
                sleep(POLL).await;
            }
        }
    });
    Sse::new(events).keep_alive(KeepAlive::default())
}

/// What a run predicts for the images of a split, as columns.
pub async fn predictions(
    State(site): Shared,
    Path((run, split)): Path<(usize, String)>,
) -> Result<Response> {
    blocking(move || Ok(binary(site.predicted(run, &split)?.columns()))).await
}

/// Images with features like those of an image.
pub async fn neighbours(
    State(site): Shared,
    Path((run, split, image)): Path<(usize, String, usize)>,
) -> Result<Json<Value>> {
    blocking(move || {
        let alike = site.predicted(run, &split)?.neighbours(image, NEIGHBOURS)?;
        let alike = (alike.into_iter())
            .map(|(image, similarity)| json!({ "image": image, "similarity": similarity }));
        Ok(Json(json!({ "neighbours": alike.collect::<Vec<_>>() })))
    })
    .await
}

/// What follows from the predictions of a run for a split.
pub async fn analysis(
    State(site): Shared,
    Path((run, split)): Path<(usize, String)>,
) -> Result<Json<Value>> {
    blocking(move || {
        Ok(Json(Value::clone(
            &*site.predicted(run, &split)?.analysis()?,
        )))
    })
    .await
}

/// How far two runs agree on a split, and which values of their configurations differ.
pub async fn compare(
    State(site): Shared,
    Path((a, b, split)): Path<(usize, usize, String)>,
) -> Result<Json<Value>> {
    blocking(move || {
        let (first, second) = (site.predicted(a, &split)?, site.predicted(b, &split)?);
        let agreement = Agreement::of(&first.table, &second.table);
        let agreement = agreement.map(|all| {
            json!({
                "both": all.both,
                "only_first": all.only_first,
                "only_second": all.only_second,
                "neither": all.neither,
                "p_value": all.p_value,
            })
        });
        let dirs = [a, b].map(|run| site.run(run).map(|run| run.dir.clone()));
        let [first, second] = dirs;
        let comparison = tinyres::runs::compare(&[first?, second?])?;
        Ok(Json(
            json!({ "agreement": agreement, "differs": comparison.differs }),
        ))
    })
    .await
}

/// Places of the images of a split on a map of their features, as columns.
pub async fn map(
    State(site): Shared,
    Path((run, split)): Path<(usize, String)>,
) -> Result<Response> {
    blocking(move || Ok(binary(site.predicted(run, &split)?.map()?.to_vec()))).await
}

/// Places of the images on a map by their neighbours, as columns. While it is made: the fraction that is done, with the
/// status 202.
pub async fn umap(
    State(site): Shared,
    Path((run, split)): Path<(usize, String)>,
) -> Result<Response> {
    blocking(move || {
        Ok(match site.predicted(run, &split)?.arranged()? {
            Arranged::Ready(columns) => binary(columns),
            Arranged::Working(done) => {
                (StatusCode::ACCEPTED, Json(json!({ "done": done }))).into_response()
            }
        })
    })
    .await
}

/// The area under the margin of each image of train, as a column.
pub async fn margins(State(site): Shared, Path(run): Path<usize>) -> Result<Response> {
    blocking(move || Ok(binary(site.margins(run)?))).await
}

/// A list that differs once a run has other results than before.
pub async fn changes(State(site): Shared) -> Result<Json<Value>> {
    blocking(move || {
        let runs = site.runs.iter().map(|run| run.stamps());
        Ok(Json(json!(runs.collect::<Vec<_>>())))
    })
    .await
}

/// The pictures that are in the set more than once. Compares every one with every other.
pub async fn duplicates(State(site): Shared) -> Result<Json<Value>> {
    blocking(move || Ok(Json(site.duplicates()?))).await
}
