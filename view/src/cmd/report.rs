//! `tinyres report`: finds the photographs, and writes the page.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use serde::Serialize;
use tinyres::cache;
use tinyres::cli::Report;
use tinyres::event::{Event, Observer as _};
use tinyres::text::Bytes;
use tinyres::ui::Ui;
use tinyres_format::{Digest, MANIFEST, Manifest, publish};
use tinyres_load::{Dataset, Verify};
use tinyres_results::report;

/// Result that the command prints.
#[derive(Serialize)]
struct Written {
    #[serde(serialize_with = "tinyres::text::path")]
    report: PathBuf,
    bytes: u64,
}

impl fmt::Display for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.report.display(), Bytes(self.bytes))
    }
}

pub fn run(args: &Report, ui: &mut Ui) -> anyhow::Result<()> {
    let sets = match (&args.data, args.runs.first()) {
        (Some(data), _) => {
            let dir = cache::ready(data, &[], cache::cache_dir().as_deref(), ui)?;
            splits(&dir)?
        }
        (None, Some(first)) => trained_on(first, ui)?,
        (None, None) => Vec::new(),
    };
    let runs = report::read(&args.runs, args.split, &sets)?;
    for run in &runs {
        match &run.analysis {
            None => ui.on(&Event::Notice(format!(
                "{} has no predictions for {}: `tinyres eval RUN SHARDS --split {}` makes them",
                run.dir.display(),
                args.split,
                args.split
            ))),
            Some(_) if run.sets.is_empty() => ui.on(&Event::Notice(format!(
                "no photographs of {}: name its shards with --data",
                run.dir.display()
            ))),
            Some(_) => {}
        }
    }
    let page = report::page(&runs)?;
    let path = &args.output;
    publish::write_output(path, page.as_bytes())
        .with_context(|| format!("cannot write {}", path.display()))?;
    ui.result(&Written {
        report: path.clone(),
        bytes: page.len() as u64,
    })?;
    Ok(())
}

/// The splits of the set that the run in `dir` was trained on, if they are where they were, or in the cache.
fn trained_on(dir: &Path, ui: &mut Ui) -> anyhow::Result<Vec<Arc<Dataset>>> {
    let config = tinyres::runs::config(dir)?;
    let text = |key: &str| config.get("run")?.get(key)?.as_str().map(str::to_owned);
    let data = text("data").map(PathBuf::from);
    if let Some(data) = data.filter(|data| data.join(MANIFEST).exists()) {
        // Other shards may lie there by now, or damaged ones: then there are no photographs.
        return Ok(splits(&data).unwrap_or_default());
    }
    let fingerprint = text("fingerprint").map(serde_json::Value::from);
    let fingerprint = fingerprint.and_then(|text| serde_json::from_value::<Digest>(text).ok());
    let found = cache::cache_dir()
        .zip(fingerprint)
        .and_then(|(cache, fingerprint)| {
            cache::find(&cache, fingerprint, |dir| splits(dir).ok(), ui)
        });
    Ok(found.unwrap_or_default())
}

/// All splits of the set in `dir`.
fn splits(dir: &Path) -> tinyres_load::Result<Vec<Arc<Dataset>>> {
    let manifest = Manifest::load(dir)?;
    let open = |entry: &tinyres_format::SplitEntry| {
        #[expect(unsafe_code, reason = "the command's help states the rule of the map")]
        // SAFETY: nothing in tinyres writes to or truncates a shard in place, and the help of the command tells the user
        // that no other program may.
        let data = unsafe { Dataset::open(dir, entry.split, Verify::Lazy) };
        data.map(Arc::new)
    };
    manifest.splits.iter().map(open).collect()
}
