//! The sheet of validation images that TensorBoard shows next to the figures: each in a frame that says whether its
//! class was predicted.

use tch::{Kind, Tensor};
use tinyres::picture::{Panel, Picture, Verdict};

use super::setup::Setup;
use super::state::State;
use crate::Result;
use crate::input::Batch;
use crate::libtorch::device;

/// Images of the sheet, at most.
const SHOWN: u32 = 64;

/// Draws validation images and what the network predicts for them now.
pub(super) fn sheet(setup: &Setup, state: &State) -> Result<Picture> {
    let data = setup.val.data();
    let (shape, images) = (data.shape(), data.len());
    // From all over the split, which may be sorted by class; the same in every epoch.
    let shown = images.min(SHOWN);
    let place = |at: u32| u64::from(at) * u64::from(images) / u64::from(shown);
    let picks: Vec<u32> = (0..shown)
        .filter_map(|at| u32::try_from(place(at)).ok())
        .collect();
    let mut pixels = vec![0; picks.len() * shape.image_len()];
    data.gather(&picks, &mut pixels)?;
    let count = i64::from(shown);
    let [c, h, w] = [shape.channels, shape.height, shape.width].map(i64::from);
    let host = Tensor::f_from_slice(&pixels)?.f_view([count, c, h, w])?;
    let batch = Batch {
        pixels: &device::upload(&host, setup.device)?,
        labels: Tensor::new(),
        boxes: None,
        at: 0..count,
        number: 0,
    };
    let examples = setup.evaluation(state.at.size)?.apply(&batch)?;
    let logits = tch::no_grad(|| state.model.forward(&examples.images, false))?;
    let predicted = logits.f_argmax(1, false)?.f_to_kind(Kind::Int64)?;
    let predicted = Vec::<i64>::try_from(predicted)?;
    let class = |label: i64| data.classes().get(usize::try_from(label).ok()?);
    let (mut panels, mut verdicts) = (Vec::new(), Vec::new());
    let drawn = pixels.chunks_exact(shape.image_len());
    for ((&image, pixels), predicted) in picks.iter().zip(drawn).zip(predicted) {
        let label = data.label(image)?;
        let words = match class(label) {
            Some(class) => &class.name,
            None => data.name(image)?,
        };
        panels.push(Panel::new(shape, pixels, words));
        verdicts.push(match class(predicted) {
            _ if label == predicted => Verdict::Right,
            Some(class) => Verdict::Wrong(&class.name),
            None => Verdict::Wrong(""),
        });
    }
    Ok(Picture::graded(&panels, &verdicts))
}
