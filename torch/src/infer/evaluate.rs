//! Evaluation: loss, top-1, top-5 and box scores of a network on a split, and its text report.

use std::fmt;
use std::num::NonZeroUsize;

use serde::Serialize;
use tch::{Device, Kind, Reduction, Tensor};
use tinyres::event::{Event, Observer};

use crate::infer::box_score::{BoxScore, Localisation};
use crate::infer::tta::Tta;
use crate::input::{Examples, Feed, Pipeline};
use crate::libtorch::{PerWorker, Workers, equal_parts};
use crate::net::ResNet18;
use crate::net::boxes;
use crate::{Error, Result};

/// Images of a batch that one thread of a CPU computes at a time, at most: the same for any number of threads, and so are
/// the scores.
const PART: i64 = 64;

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

/// Scores `model` on all images of `feed`, in batches of `batch`. `pipeline` resizes and normalises them,
/// and `tta` says which views of an image are averaged. On a CPU, each thread takes parts of a batch.
///
/// # Errors
/// [`Error::Load`] if the data cannot be read or is damaged.
pub fn evaluate(
    model: &ResNet18,
    feed: &Feed,
    pipeline: &Pipeline,
    tta: Tta,
    batch: NonZeroUsize,
    watch: &mut dyn Observer,
) -> Result<Evaluation> {
    let data = feed.data();
    watch.on(&Event::Begin {
        task: format!("evaluating {}", data.split()),
        unit: "img",
        total: data.len() as u64,
    });
    // Rows stay on the device until the end, so that no batch waits for it.
    let mut rows = Vec::new();
    let mut done = 0;
    let workers = Workers::on(model.device());
    let networks = PerWorker::new(&workers, || model.share())?;
    feed.in_order(batch, |batch| {
        let images = batch.labels.size()[0];
        let parts = match model.device() {
            Device::Cpu => (images + PART - 1) / PART,
            _ => 1,
        };
        let parts = equal_parts(images, parts);
        let parts = parts.iter().map(|part| pipeline.part(&batch, part));
        rows.extend(workers.each(parts.collect::<Result<_>>()?, |worker, part| {
            tch::no_grad(|| outcomes(&networks.of(worker), tta, &part.apply()?))
        })?);
        done += images.unsigned_abs();
        watch.on(&Event::Advance { done });
        Ok(())
    })?;
    let all = Tensor::f_cat(&rows, 0)?.f_to_kind(Kind::Double)?;
    watch.on(&Event::End);
    let mean = |column| all.f_select(1, column)?.f_mean(None)?.f_double_value(&[]);
    let column = |column| Ok::<_, Error>(Vec::<f64>::try_from(all.f_select(1, column)?)?);
    let right: Vec<_> = column(1)?.into_iter().map(|right| right > 0.5).collect();
    let targets = feed.targets();
    let boxes = match (all.size()[1], &targets.boxes) {
        (4, Some(truth)) => Localisation::new(truth, &right, &column(3)?),
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
    })
}

/// A row for each image, `f32 [B, 3 or 4]`: those of [`class_outcomes`], and the IoU of the predicted box if the network
/// predicts any and there are some to predict.
fn outcomes(network: &ResNet18, tta: Tta, examples: &Examples) -> Result<Tensor> {
    let outputs = tta.outputs(network, &examples.images)?;
    let row = class_outcomes(&outputs.logits, &examples.labels)?;
    let (Some(predicted), Some(truth)) = (&outputs.boxes, &examples.boxes) else {
        return Ok(row);
    };
    let iou = boxes::iou(&boxes::to_edges(predicted)?, truth)?;
    Ok(Tensor::f_cat(&[row, iou.f_unsqueeze(1)?], 1)?)
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
        Ok(())
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
