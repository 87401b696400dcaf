//! Comparison of a finished set in the output directory with the one that is about to be packed, so that
//! packing twice does no work. Decodes no image.

use std::fs;
use std::path::Path;

use tinyres_format::{Form, MANIFEST, Manifest};

use super::finished::FinishedShard;
use super::left_out;
use super::{Error, PackReport, Plan, Result, SplitReport, creator};

/// Report of the set in the output directory if it is exactly the set of `plan`; `None` without a set.
///
/// It is the same set if all of this holds:
/// - it was packed by this version from the same listing with the same settings: `dataset.json` has
///   the same fingerprint (classes, names, labels, boxes, image shape, resize, images in a shard),
///   creator and form (raw or zstd, whose level is not known);
/// - no image was left out of it, unless bad images may be left out now;
/// - its shards are all there, each with the length, header and columns that `dataset.json` lists;
/// - no image, or the archive of the images, was changed after its shard was written, by the
///   file's change time.
///
/// Pixels are not compared. A source that has other images under the same names, all older than the
/// set, is taken for the one that the set was packed from.
///
/// # Errors
/// [`Error::Occupied`] if there is another set, or a damaged one.
pub(super) fn existing(plan: &Plan<'_>) -> Result<Option<PackReport>> {
    let output = &plan.config.output;
    if !output.join(MANIFEST).exists() {
        return Ok(None);
    }
    let occupied = |holds| Error::Occupied {
        output: output.clone(),
        holds,
    };
    let manifest = Manifest::load_any(output).map_err(|error| occupied(error.to_string()))?;
    compare(plan, &manifest).map(Some).map_err(occupied)
}

/// The report, or how the set of `manifest` differs from the one of `plan`.
fn compare(plan: &Plan<'_>, manifest: &Manifest) -> std::result::Result<PackReport, String> {
    let fingerprint = *plan.fingerprint;
    if manifest.fingerprint != fingerprint {
        let [there, here] = [manifest.fingerprint, fingerprint].map(|digest| digest.to_string());
        return Err(format!("fingerprint {there:.12}, expected {here:.12}"));
    }
    if manifest.creator != creator() {
        let (there, here) = (&manifest.creator, creator());
        return Err(format!("by {there}, expected {here}"));
    }
    let form = plan.config.zstd.map(|_| Form::Zstd);
    if manifest.transport != form {
        let shown = |form: Option<Form>| form.map_or("raw", |_| "compressed");
        let (there, here) = (shown(manifest.transport), shown(form));
        return Err(format!("{there} shards, expected {here} ones"));
    }
    let (mut refused, mut warned) = (Vec::new(), Vec::new());
    let mut splits = Vec::new();
    if manifest.splits.len() != plan.source.splits.len() {
        return Err("other splits".to_owned());
    }
    for (entry, (split, items)) in manifest.splits.iter().zip(&plan.source.splits) {
        let shards = items.chunks(plan.shard_images());
        if entry.split != *split || entry.shards.len() != shards.len() {
            return Err(format!("other shards of {split}"));
        }
        let mut report = SplitReport::new(*split, plan.source.classes.len());
        for ((index, listed), items) in entry.shards.iter().enumerate().zip(shards) {
            let path = plan.config.output.join(&*manifest.file(listed));
            let shard = FinishedShard::open(&path, form.is_some())
                .and_then(|shard| {
                    shard.check(manifest, entry, index)?;
                    shard.verify_columns()?;
                    Ok(shard)
                })
                .map_err(|error| in_file(&path, error.to_string()))?;
            let metadata = shard.metadata();
            let left_out = metadata.refused.len();
            if left_out > 0 && plan.config.skip_bad.is_none() {
                return Err(format!("without {left_out} bad images of {split}"));
            }
            let written = fs::metadata(&path).map_err(|error| in_file(&path, error.to_string()))?;
            let newer = items.iter().find(|item| {
                let stamp = plan.source.stamp(item);
                stamp.map_or(true, |stamp| stamp.is_newer_than(&written))
            });
            if let Some(item) = newer {
                return Err(format!("{} was changed after it was packed", item.name));
            }
            let warnings = metadata.warned.len();
            report.count(shard.labels(), metadata.grey, left_out, warnings);
            refused.extend_from_slice(&metadata.refused);
            warned.extend_from_slice(&metadata.warned);
        }
        report.close(entry);
        splits.push(report);
    }
    if let Some(bound) = plan.config.skip_bad {
        left_out::check(plan.source, &refused, bound)
            .map_err(|_| format!("without {} bad images", refused.len()))?;
    }
    Ok(PackReport {
        output: plan.config.output.clone(),
        fingerprint,
        shape: plan.shape,
        classes: manifest.classes,
        splits,
        layout: plan.source.layout.clone(),
        notes: plan.notes(),
        passed_over: plan.source.passed_over.clone(),
        refused,
        warned,
        zstd: None,
        unchanged: true,
        seconds: 0.0,
    })
}

/// Names the file, unless the error does.
fn in_file(path: &Path, error: String) -> String {
    let name = path.display().to_string();
    match error.starts_with(&name) {
        true => error,
        false => format!("{name}: {error}"),
    }
}
