//! Comparison of a finished set in the output directory with the one that is about to be packed, so that
//! packing twice does no work. Decodes only a few images.

use std::collections::HashSet;
use std::fs;
use std::path::Path;

use rayon::prelude::*;
use tinyres_format::{Form, MANIFEST, Manifest, Shape};

use super::decode_shard::ImageReader;
use super::finished::FinishedShard;
use super::left_out;
use super::{Error, PackReport, Plan, Result, SplitReport, creator, threads};
use crate::source::Item;
use crate::text::counted;

/// Number of images of a shard whose pixels are compared.
const COMPARED: usize = 16;

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
/// - the pixels of [`COMPARED`] images of each shard, evenly spaced, are those of the source; those of all images,
///   if some of them are in no file.
///
/// The last two are for each other: a change time says nothing of another copy of the source. One that differs in
/// a few images only, all older than the set, is taken for the one that the set was packed from.
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
    let mut readers: Vec<_> = (0..threads(plan.config.threads))
        .map(|_| ImageReader::new(plan.source, plan.config.resize))
        .collect();
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
                return Err(format!(
                    "without {} of {split}",
                    counted(left_out, "bad image")
                ));
            }
            let written = fs::metadata(&path).map_err(|error| in_file(&path, error.to_string()))?;
            let mut compared = COMPARED;
            for item in items {
                match plan.source.stamp(item) {
                    Ok(Some(stamp)) if !stamp.is_newer_than(&written) => {}
                    Ok(None) => compared = items.len(),
                    _ => return Err(format!("{} was changed after it was packed", item.name)),
                }
            }
            if let Some(item) = other_pixels(&mut readers, plan.shape, &shard, items, compared)? {
                return Err(format!("{} has other pixels there", item.name));
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
            .map_err(|_| format!("without {}", counted(refused.len(), "bad image")))?;
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

/// The first of `compared` images of `items` whose pixels are not those in their shard, if there is one.
fn other_pixels<'a>(
    readers: &mut [ImageReader<'_>],
    shape: Shape,
    shard: &FinishedShard,
    items: &'a [Item],
    compared: usize,
) -> std::result::Result<Option<&'a Item>, String> {
    let refused = shard.metadata().refused.iter();
    let refused: HashSet<&str> = refused.map(|image| image.name.as_str()).collect();
    let packed = items.iter().filter(|item| !refused.contains(&*item.name));
    let packed: Vec<&Item> = packed.collect();
    let count = packed.len().min(compared);
    let places: Vec<usize> = (0..count).map(|at| at * packed.len() / count).collect();
    let first_other = |reader: &mut ImageReader<'_>, places: &[usize]| {
        let mut pixels = Vec::new();
        for &at in places {
            let images = reader.decode(shape, &packed[at..=at], &mut pixels);
            let images = images.map_err(|error| error.to_string())?;
            let there = shard.image(at).map_err(|error| error.to_string())?;
            if images[0].decoded.is_err() || there.is_none_or(|there| there != pixels) {
                return Ok(Some(packed[at]));
            }
        }
        Ok(None)
    };
    let each = places.len().div_ceil(readers.len()).max(COMPARED);
    let found: Vec<_> = (places.par_chunks(each).zip(readers.par_iter_mut()))
        .map(|(places, reader)| first_other(reader, places))
        .collect();
    let found: std::result::Result<Vec<_>, String> = found.into_iter().collect();
    Ok(found?.into_iter().flatten().next())
}

/// Names the file, unless the error does.
fn in_file(path: &Path, error: String) -> String {
    let name = path.display().to_string();
    match error.starts_with(&name) {
        true => error,
        false => format!("{name}: {error}"),
    }
}
