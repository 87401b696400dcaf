//! Evaluation: loss, top-1, top-5 and box scores of a network on a split, and its text report.

use std::fmt;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use serde::Serialize;
use tch::{Device, Kind, Reduction, Tensor};
use tinyres::event::{Event, Observer};

use crate::infer::box_score::{BoxScore, Localisation};
use crate::infer::tta::Tta;
use crate::input::{Feed, Pipeline};
use crate::libtorch::{PerWorker, Workers, equal_parts};
use crate::net::{Outputs, ResNet18, boxes};
use crate::ranks::Ranks;
use crate::{Error, Result};

/// Images of a batch that one thread of a CPU computes at a time, at most: the same for any number of threads, and so are
/// the scores.
const PART: i64 = 64;
/// Inputs of the classifier.
const FEATURES: i64 = 512;

/// Scores of a network on a split, as an epoch reports them.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Score {
    /// Mean cross-entropy, without label smoothing.
    pub val_loss: f64,
    /// Fraction of the images whose label is the likeliest class.
    pub top1: f64,
    /// Fraction of the images whose label is among the five likeliest classes.
    pub top5: f64,
    /// Scores of the boxes, if the network predicts any.
    #[serde(flatten)]
    pub boxes: Option<BoxScore>,
}

/// The scores of a network on a split, and on each class.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Evaluation {
    /// The split.
    pub split: String,
    /// Number of images in it.
    pub images: usize,
    /// Mean cross-entropy.
    pub loss: f64,
    /// Fraction of images whose label is the likeliest class.
    pub top1: f64,
    /// Fraction of images whose label is among the five likeliest classes.
    pub top5: f64,
    /// Scores of the boxes, if the network predicts boxes and images have them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub boxes: Option<Localisation>,
    /// Top-1 for each class, in label order.
    pub classes: Vec<ClassScore>,
    /// The file of predictions, if one was written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub predictions: Option<PathBuf>,
}

/// The top-1 score on the images of one class.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ClassScore {
    /// The identifier of the class in the source.
    pub id: String,
    /// The name of the class for people.
    pub name: String,
    /// Number of images of the class.
    pub images: usize,
    /// Number of these for which it is the likeliest class.
    pub correct: usize,
}

impl ClassScore {
    /// `correct / images`; `None` for a class without images.
    pub fn top1(&self) -> Option<f64> {
        (self.images > 0).then(|| self.correct as f64 / self.images as f64)
    }
}

impl Evaluation {
    /// The scores that the report of an epoch has.
    pub fn score(&self) -> Score {
        Score {
            val_loss: self.loss,
            top1: self.top1,
            top5: self.top5,
            boxes: self.boxes.as_ref().map(|boxes| boxes.score),
        }
    }

    /// The classes that have images, by top-1, the lowest first.
    pub fn worst(&self) -> Vec<&ClassScore> {
        let mut classes: Vec<_> = self
            .classes
            .iter()
            .filter(|class| class.images > 0)
            .collect();
        classes.sort_by(|a, b| {
            a.top1()
                .partial_cmp(&b.top1())
                .unwrap_or(std::cmp::Ordering::Equal)
        });
        classes
    }
}

/// The outputs of a network for each image of a split, in the split's order, on the network's device.
#[derive(Debug)]
pub struct SplitOutputs {
    /// Logits, `f32 [N, C]`.
    pub logits: Tensor,
    /// Edges of the predicted boxes, `f32 [N, 4]`, if the network predicts any.
    pub boxes: Option<Tensor>,
    /// The inputs of the classifier, `f32 [N, 512]`, if they were asked for.
    pub features: Option<Tensor>,
}

/// The network's outputs that [`outputs`] gathers.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wanted {
    /// Views of an image that are averaged.
    pub tta: Tta,
    /// True to gather the features, too.
    pub features: bool,
}

/// Runs `model` on all images of `feed`, in batches of `batch`. `pipeline` resizes and normalises them. On a CPU, each
/// thread takes parts of a batch. Of as many batches as there are `ranks`, each computes one. All get all outputs.
///
/// # Errors
/// [`Error::Load`] if the data cannot be read or is damaged, or a rank has failed.
pub fn outputs(
    ranks: &Ranks,
    model: &ResNet18,
    feed: &Feed,
    pipeline: &Pipeline,
    wanted: Wanted,
    batch: NonZeroUsize,
    watch: &mut dyn Observer,
) -> Result<SplitOutputs> {
    let data = feed.data();
    watch.on(&Event::Begin {
        task: format!("evaluating {}", data.split()),
        unit: "img",
        total: data.len() as u64,
    });
    // They stay on the device until the end, so that no batch waits for it.
    let mut parts_done = Vec::new();
    let mut done = 0;
    let workers = Workers::on(model.device());
    let networks = PerWorker::new(&workers, || model.share())?;
    // The places of the images that are done, for several ranks.
    let mut places = Vec::new();
    feed.in_order(batch, |batch| {
        let images = batch.labels.size()[0];
        done += images.unsigned_abs();
        if batch.number % ranks.count() as u64 != ranks.rank() as u64 {
            return Ok(());
        }
        places.extend(batch.at.clone());
        let parts = match model.device() {
            Device::Cpu => (images + PART - 1) / PART,
            _ => 1,
        };
        let parts = equal_parts(images, parts);
        let parts = parts.iter().map(|part| pipeline.part(&batch, part));
        parts_done.extend(workers.each(parts.collect::<Result<_>>()?, |worker, part| {
            let images = part.apply()?.images;
            tch::no_grad(|| wanted.tta.outputs(&networks.of(worker), &images))
        })?);
        watch.on(&Event::Advance { done });
        Ok(())
    })?;
    watch.on(&Event::End);
    let count = i64::from(data.len());
    let all = |part: &dyn Fn(&Outputs) -> Option<Tensor>| -> Result<Option<Tensor>> {
        let parts: Option<Vec<_>> = parts_done.iter().map(part).collect();
        let own = parts.filter(|parts| !parts.is_empty());
        Ok(own.map(|parts| Tensor::f_cat(&parts, 0)).transpose()?)
    };
    // Rows of `columns` numbers for all images, from those that this rank has computed.
    let gather = |own: Option<Tensor>, columns: i64| -> Result<Option<Tensor>> {
        if ranks.count() == 1 {
            return Ok(own);
        }
        let mut rows = Tensor::f_zeros([count, columns], (Kind::Float, model.device()))?;
        if let Some(own) = own {
            let own = own.f_to_kind(Kind::Float)?;
            let places = Tensor::f_from_slice(&places)?.f_to_device(model.device())?;
            let _ = rows.f_index_copy_(0, &places, &own)?;
        }
        // Each is 0 on all ranks but one.
        ranks.sum(&mut rows)?;
        Ok(Some(rows))
    };
    let logits = all(&|part| Some(part.logits.shallow_clone()))?;
    let logits = gather(logits, model.spec().classes)?;
    let mut boxes = all(&|part| part.boxes.as_ref().map(Tensor::shallow_clone))?;
    if model.spec().boxes {
        boxes = gather(boxes, 4)?;
    }
    let features = |part: &Outputs| wanted.features.then(|| part.features.shallow_clone());
    let mut features = all(&features)?;
    if wanted.features {
        features = gather(features, FEATURES)?;
    }
    Ok(SplitOutputs {
        logits: logits.ok_or_else(|| Error::Torch("a split without images".to_owned()))?,
        boxes: boxes.map(|centres| boxes::to_edges(&centres)).transpose()?,
        features,
    })
}

/// Scores `model` on all images of `feed`, as one process. The arguments are those of [`outputs`].
///
/// # Errors
/// Those of [`outputs`].
pub fn evaluate(
    model: &ResNet18,
    feed: &Feed,
    pipeline: &Pipeline,
    tta: Tta,
    batch: NonZeroUsize,
    watch: &mut dyn Observer,
) -> Result<Evaluation> {
    let wanted = Wanted {
        tta,
        ..Wanted::default()
    };
    let alone = Ranks::alone();
    let outputs = outputs(&alone, model, feed, pipeline, wanted, batch, watch)?;
    score(feed, &outputs)
}

/// The scores of `outputs`, which are for the images of `feed`.
///
/// # Errors
/// libtorch is out of memory.
pub fn score(feed: &Feed, outputs: &SplitOutputs) -> Result<Evaluation> {
    let (data, targets) = (feed.data(), feed.targets());
    let device = outputs.logits.device();
    let labels = Tensor::f_from_slice(&targets.labels)?.f_to_device(device)?;
    let all = class_outcomes(&outputs.logits, &labels)?.f_to_kind(Kind::Double)?;
    let mean = |column| all.f_select(1, column)?.f_mean(None)?.f_double_value(&[]);
    let right = Vec::<f64>::try_from(all.f_select(1, 1)?)?;
    let right: Vec<_> = right.into_iter().map(|right| right > 0.5).collect();
    let boxes = match (&outputs.boxes, &targets.boxes) {
        (Some(predicted), Some(truth)) => {
            let edges = Tensor::f_from_slice(truth.as_flattened())?.f_view([-1, 4])?;
            let iou = boxes::iou(predicted, &edges.f_to_device(device)?)?;
            Localisation::new(truth, &right, &Vec::try_from(iou.f_to_kind(Kind::Double)?)?)
        }
        _ => None,
    };
    let mut classes: Vec<_> = data
        .classes()
        .iter()
        .map(|class| ClassScore {
            id: class.id.clone(),
            name: class.name.clone(),
            images: 0,
            correct: 0,
        })
        .collect();
    for (label, right) in targets.labels.iter().zip(right) {
        if let Some(class) = usize::try_from(*label)
            .ok()
            .and_then(|label| classes.get_mut(label))
        {
            class.images += 1;
            class.correct += usize::from(right);
        }
    }
    Ok(Evaluation {
        split: data.split().to_string(),
        images: data.len() as usize,
        loss: mean(0)?,
        top1: mean(1)?,
        top5: mean(2)?,
        boxes,
        classes,
        predictions: None,
    })
}

/// Loss, top-1 (0 or 1) and top-5 (0 or 1) of each image, `f32 [B, 3]`, from logits `[B, C]` and labels `[B]`.
fn class_outcomes(logits: &Tensor, labels: &Tensor) -> Result<Tensor> {
    let loss = logits.f_cross_entropy_loss::<Tensor>(labels, None, Reduction::None, -100, 0.0)?;
    let first = logits.size()[1].min(5);
    let (_, likeliest) = logits.f_topk(first, 1, true, true)?;
    let hits = likeliest.f_eq_tensor(&labels.f_unsqueeze(1)?)?;
    let top1 = hits.f_select(1, 0)?.f_to_kind(Kind::Float)?;
    let top5 = hits.f_any_dim(1, false)?.f_to_kind(Kind::Float)?;
    Ok(Tensor::f_stack(&[loss, top1, top5], 1)?)
}

impl fmt::Display for Evaluation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{}: {}, loss {:.4}, top-1 {:.2}%, top-5 {:.2}%",
            self.split,
            tinyres::text::counted(self.images, "image"),
            self.loss,
            100.0 * self.top1,
            100.0 * self.top5
        )?;
        if let Some(boxes) = &self.boxes {
            writeln!(f, "{boxes}")?;
        }
        write!(f, "worst classes, by top-1:")?;
        for class in self.worst().iter().take(10) {
            let top1 = 100.0 * class.top1().unwrap_or_default();
            let (right, images) = (class.correct, class.images);
            write!(
                f,
                "\n  {top1:5.1}%  {right:>3} of {images:<3}  {}  ",
                class.id
            )?;
            // Names are lists of synonyms, cut to fit a line.
            let name: String = class.name.chars().take(40).collect();
            write!(f, "{name}")?;
        }
        match &self.predictions {
            Some(path) => write!(f, "\npredictions for each image: {}", path.display()),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loss_top1_and_top5_agree_with_values_worked_out_by_hand() {
        // Six classes, so that one of them is not in the top 5.
        let logits = Tensor::from_slice(&[
            5.0_f32, 4.0, 3.0, 2.0, 1.0, 0.0, //
            5.0, 4.0, 3.0, 2.0, 1.0, 0.0, //
            5.0, 4.0, 3.0, 2.0, 1.0, 0.0,
        ])
        .view([3, 6]);
        let rows = class_outcomes(&logits, &Tensor::from_slice(&[0_i64, 4, 5])).unwrap();
        let rows = Vec::<Vec<f32>>::try_from(rows).unwrap();
        // The logarithm of e^5 + e^4 + e^3 + e^2 + e + 1.
        let log_sum = 5.456_193_f32;
        for (row, (logit, top1, top5)) in
            rows.iter()
                .zip([(5.0, 1.0, 1.0), (1.0, 0.0, 1.0), (0.0, 0.0, 0.0)])
        {
            assert!((row[0] - (log_sum - logit)).abs() < 1e-5, "{row:?}");
            assert_eq!(row[1..], [top1, top5]);
        }
    }
}
