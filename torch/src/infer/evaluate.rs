//! How a network does on a split.

use std::fmt;
use std::num::NonZeroUsize;

use serde::Serialize;
use tch::{Kind, Reduction, Tensor};
use tinyres::event::{Event, Observer, Score};

use crate::infer::tta::Tta;
use crate::input::feed::Feed;
use crate::input::inputs::Inputs;
use crate::net::ResNet18;
use crate::net::boxes;
use crate::net::boxes::Localisation;
use crate::{Error, Result};

/// The scores of a network on a split.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Evaluation {
    /// The split.
    pub split: String,
    /// Its images.
    pub images: usize,
    /// Mean cross-entropy.
    pub loss: f64,
    /// Share of images whose label is the likeliest class, 0 to 1.
    pub top1: f64,
    /// Share of images whose label is among the five likeliest classes, 0 to 1.
    pub top5: f64,
    /// How the boxes do, where the network predicts them and images have them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub boxes: Option<Localisation>,
    /// Top-1 for each class, in label order.
    pub classes: Vec<ClassScore>,
}

/// How a network does on the images of one class.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ClassScore {
    /// What the source calls it.
    pub id: String,
    /// What people call it.
    pub name: String,
    /// Its images.
    pub images: usize,
    /// How many of them have it as their likeliest class.
    pub correct: usize,
}

impl ClassScore {
    /// Share of its images that have it as their likeliest class; none for a class without images.
    #[must_use]
    pub fn top1(&self) -> Option<f64> {
        (self.images > 0).then(|| self.correct as f64 / self.images as f64)
    }
}

impl Evaluation {
    /// What an epoch reports.
    #[must_use]
    pub fn score(&self) -> Score {
        Score {
            val_loss: self.loss,
            top1: self.top1,
            top5: self.top5,
            boxes: self.boxes.as_ref().map(|boxes| boxes.score),
        }
    }

    /// The classes that have images, worst first.
    #[must_use]
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

/// Scores `model` on all images of `feed`, which `inputs` prepares and `tta` shows it in several views,
/// `batch` at a time.
///
/// # Errors
/// Those of the data and of libtorch.
pub fn evaluate(
    model: &ResNet18,
    feed: &Feed,
    inputs: &Inputs,
    tta: Tta,
    batch: NonZeroUsize,
    watch: &mut dyn Observer,
) -> Result<Evaluation> {
    let data = feed.data();
    watch.on(&Event::Begin {
        task: format!("scoring {}", data.split()),
        unit: "img",
        total: data.len() as u64,
    });
    // One row an image: loss, whether it is right, whether it is among the first five, and how much
    // the box overlaps the image's.
    let mut rows = Vec::new();
    let mut done = 0;
    tch::no_grad(|| {
        feed.in_order(batch, |batch| {
            let x = inputs.apply(&batch)?;
            let outputs = tta.outputs(model, &x)?;
            let mut row = outcomes(&outputs.logits, &batch.labels)?;
            if let (Some(predicted), Some(truth)) = (&outputs.boxes, &batch.boxes) {
                let iou = boxes::iou(&boxes::to_edges(predicted)?, truth)?;
                row = Tensor::f_cat(&[row, iou.f_unsqueeze(1)?], 1)?;
            }
            rows.push(row);
            done += batch.labels.size()[0].unsigned_abs();
            watch.on(&Event::Advance { done });
            Ok(())
        })
    })?;
    let all = Tensor::f_cat(&rows, 0)?.f_to_kind(Kind::Double)?;
    watch.on(&Event::End);
    let mean = |column| all.f_select(1, column)?.f_mean(None)?.f_double_value(&[]);
    let column = |column| Ok::<_, Error>(Vec::<f64>::try_from(all.f_select(1, column)?)?);
    let right: Vec<_> = column(1)?.into_iter().map(|right| right > 0.5).collect();
    let boxes = match all.size()[1] {
        3 => None,
        _ => Localisation::new(&boxes::of(data)?, &right, &column(3)?),
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
    for (label, right) in data.labels()?.into_iter().zip(right) {
        if let Some(class) = usize::try_from(label)
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

/// `f32 [B, 3]` of logits `[B, C]` and labels `[B]`: loss, right or not, among the first five or not.
fn outcomes(logits: &Tensor, labels: &Tensor) -> Result<Tensor> {
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
            "{}: {} images, loss {:.4}, top-1 {:.2}%, top-5 {:.2}%",
            self.split,
            tinyres::text::Count(self.images as u64),
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
            // Names are lists of synonyms: as many characters as fit a line.
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
    fn outcomes_are_those_of_hand() {
        // Six classes, so that one of them is not among the first five.
        let logits = Tensor::from_slice(&[
            5.0_f32, 4.0, 3.0, 2.0, 1.0, 0.0, //
            5.0, 4.0, 3.0, 2.0, 1.0, 0.0, //
            5.0, 4.0, 3.0, 2.0, 1.0, 0.0,
        ])
        .view([3, 6]);
        let rows = outcomes(&logits, &Tensor::from_slice(&[0_i64, 4, 5])).unwrap();
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
