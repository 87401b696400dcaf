//! The columns of a predictions file.
//!
//! With `z` the logits of an image, `p = softmax(z)` and `y` its label:
//!
//! | column | type | content |
//! |---|---|---|
//! | `image` | i32 | number of the image in the split |
//! | `shard`, `shard_image` | text, i32 | file of its shard, and its number there |
//! | `name` | text | its name in the source |
//! | `label`, `class` | i32, text | `y`, and the class's identifier |
//! | `predicted`, `predicted_class` | i32, text | the likeliest class, and its identifier |
//! | `confidence` | f32 | the probability of the likeliest class |
//! | `label_prob` | f32 | `p[y]` |
//! | `loss` | f32 | cross-entropy, `-ln p[y]` |
//! | `margin` | f32 | `z[y]` minus the largest other logit, of which the area under the margin is the mean over epochs (Pleiss et al. 2020) |
//! | `entropy` | f32 | of `p`, in nats |
//! | `rank` | i32 | 1 if `y` is the likeliest class, 2 if it is the second, ... |
//! | `top5`, `top5_prob` | lists of i32 and f32 | the likeliest five classes (all, if there are fewer) with probabilities |
//! | `box_x0`, `box_y0`, `box_x1`, `box_y1` | i32 | the image's box in inclusive pixels, or -1 |
//!
//! If the network predicts boxes, also:
//!
//! | column | type | content |
//! |---|---|---|
//! | `predicted_x0`, `predicted_y0`, `predicted_x1`, `predicted_y1` | f32 | the predicted box in inclusive pixels, so that it is comparable with the image's: left and top edge, right and bottom edge minus 1 |
//! | `iou` | f32 | its intersection over union with the image's box; NaN for an image without one |
//!
//! No column is nullable: programs turn nullable integers to floats.

use parquet::data_type::ByteArray;
use tch::{Device, Kind, Tensor};
use tinyres_load::Dataset;

use crate::Result;
use crate::infer::evaluate::SplitOutputs;
use crate::net::{self, boxes};

/// Values of a column, a row after the other.
#[derive(Debug, PartialEq)]
pub(super) enum Values {
    Integers(Vec<i32>),
    Floats(Vec<f32>),
    Texts(Vec<ByteArray>),
    /// The lists of all rows one after the other, each of so many elements.
    IntegerLists(Vec<i32>, usize),
    FloatLists(Vec<f32>, usize),
}

pub(super) type Column = (&'static str, Values);

/// The columns for `data`, all of whose images have labels.
pub(super) fn columns(data: &Dataset, outputs: &SplitOutputs) -> Result<Vec<Column>> {
    let labels = data.labels()?;
    let class = |label: &i64| {
        let class = usize::try_from(*label).ok();
        let class = class.and_then(|label| data.classes().get(label));
        text(class.map_or("", |class| class.id.as_str()))
    };
    let mut columns = places(data)?;
    classes(&mut columns, &outputs.logits, &labels, class)?;
    boxes_of(&mut columns, data, outputs.boxes.as_ref())?;
    Ok(columns)
}

fn text(text: &str) -> ByteArray {
    ByteArray::from(text)
}

/// The place and the name of each image.
fn places(data: &Dataset) -> Result<Vec<Column>> {
    let (mut shards, mut numbers, mut names) = (Vec::new(), Vec::new(), Vec::new());
    for image in 0..data.len() {
        let (shard, number) = data.place(image)?;
        let file = shard.file_name().unwrap_or_default();
        shards.push(ByteArray::from(file.as_encoded_bytes().to_vec()));
        numbers.push(number.cast_signed());
        names.push(text(data.name(image)?));
    }
    let images = (0..data.len()).map(u32::cast_signed).collect();
    Ok(vec![
        ("image", Values::Integers(images)),
        ("shard", Values::Texts(shards)),
        ("shard_image", Values::Integers(numbers)),
        ("name", Values::Texts(names)),
    ])
}

/// Adds the columns that follow from `logits`, `[N, C]`, and `labels`, one for each of `N`. `class` gives the identifier
/// of a class.
fn classes(
    columns: &mut Vec<Column>,
    logits: &Tensor,
    labels: &[i64],
    class: impl Fn(&i64) -> ByteArray,
) -> Result<()> {
    let logits = logits.f_to_device(Device::Cpu)?;
    let label = Tensor::f_from_slice(labels)?.f_unsqueeze(1)?;
    let log_probabilities = logits.f_log_softmax(1, Kind::Float)?;
    let probabilities = log_probabilities.f_exp()?;
    let first = logits.size()[1].min(5);
    let (_, top) = logits.f_topk(first, 1, true, true)?;
    let top_probabilities = probabilities.f_gather(1, &top, false)?;
    let likeliest = Vec::<i64>::try_from(top.f_select(1, 0)?.f_contiguous()?)?;
    let texts = |classes: &[i64]| Values::Texts(classes.iter().map(&class).collect());
    let of_label = log_probabilities.f_gather(1, &label, false)?;
    let logit = logits.f_gather(1, &label, false)?;
    let margin = net::margins(&logits, &label.f_squeeze_dim(1)?)?;
    let entropy = (probabilities.f_mul(&log_probabilities)?)
        .f_sum_dim_intlist([1].as_slice(), false, Kind::Float)?
        .f_neg()?;
    let above = logits.f_gt_tensor(&logit)?;
    let rank = (above.f_sum_dim_intlist([1].as_slice(), false, Kind::Int64)?).f_add_scalar(1)?;
    let width = usize::try_from(first).unwrap_or(0);
    columns.extend([
        ("label", Values::Integers(integers(&label)?)),
        ("class", texts(labels)),
        (
            "predicted",
            Values::Integers(integers(&top.f_select(1, 0)?)?),
        ),
        ("predicted_class", texts(&likeliest)),
        (
            "confidence",
            Values::Floats(floats(&top_probabilities.f_select(1, 0)?)?),
        ),
        ("label_prob", Values::Floats(floats(&of_label.f_exp()?)?)),
        ("loss", Values::Floats(floats(&of_label.f_neg()?)?)),
        ("margin", Values::Floats(floats(&margin)?)),
        ("entropy", Values::Floats(floats(&entropy)?)),
        ("rank", Values::Integers(integers(&rank)?)),
        ("top5", Values::IntegerLists(integers(&top)?, width)),
        (
            "top5_prob",
            Values::FloatLists(floats(&top_probabilities)?, width),
        ),
    ]);
    Ok(())
}

/// Adds the boxes of `data`, and `predicted`, edges `[N, 4]`, if there are predicted ones.
fn boxes_of(columns: &mut Vec<Column>, data: &Dataset, predicted: Option<&Tensor>) -> Result<()> {
    let boxes = (0..data.len()).map(|image| Ok(data.bbox(image)?));
    let boxes = boxes.collect::<Result<Vec<_>>>()?;
    let names = ["box_x0", "box_y0", "box_x1", "box_y1"];
    for (side, name) in names.into_iter().enumerate() {
        let values = boxes.iter().map(|inclusive| inclusive[side]);
        columns.push((name, Values::Integers(values.collect())));
    }
    let Some(predicted) = predicted else {
        return Ok(());
    };
    let predicted = predicted.f_to_device(Device::Cpu)?;
    let truth = boxes::of(data)?;
    let edges = Tensor::f_from_slice(truth.as_flattened())?.f_view([-1, 4])?;
    let mut iou = floats(&boxes::iou(&predicted, &edges)?)?;
    for (iou, truth) in iou.iter_mut().zip(&truth) {
        if !boxes::is_box(truth) {
            *iou = f32::NAN;
        }
    }
    let shape = data.shape();
    let (width, height) = (f64::from(shape.width), f64::from(shape.height));
    let sides = [
        ("predicted_x0", width, 0.0),
        ("predicted_y0", height, 0.0),
        ("predicted_x1", width, -1.0),
        ("predicted_y1", height, -1.0),
    ];
    for (side, (name, length, beyond)) in (0..).zip(sides) {
        let edge = predicted.f_select(1, side)?;
        let pixels = edge.f_mul_scalar(length)?.f_add_scalar(beyond)?;
        columns.push((name, Values::Floats(floats(&pixels)?)));
    }
    columns.push(("iou", Values::Floats(iou)));
    Ok(())
}

fn integers(tensor: &Tensor) -> Result<Vec<i32>> {
    let flat = tensor.f_to_kind(Kind::Int)?.f_reshape([-1])?;
    Ok(Vec::try_from(&flat)?)
}

fn floats(tensor: &Tensor) -> Result<Vec<f32>> {
    let flat = tensor.f_to_kind(Kind::Float)?.f_reshape([-1])?;
    Ok(Vec::try_from(&flat)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_agree_with_values_worked_out_by_hand() {
        // e^ln4 = 4, e^ln2 = 2, 1, 1: probabilities of a half, a quarter and two eighths.
        let (two, four) = (2_f32.ln(), 4_f32.ln());
        let logits = Tensor::from_slice(&[four, two, 0.0, 0.0, 0.0, four, two, 0.0]).view([2, 4]);
        let mut columns = Vec::new();
        let id = |class: &i64| text(&format!("n{class}"));
        classes(&mut columns, &logits, &[0, 2], id).unwrap();
        for (name, ids) in [("class", ["n0", "n2"]), ("predicted_class", ["n0", "n1"])] {
            let at = columns.iter().position(|(other, _)| *other == name);
            let (_, values) = columns.remove(at.unwrap());
            assert_eq!(values, Values::Texts(ids.map(text).to_vec()), "{name}");
        }
        let entropy = 0.5 * two + 0.25 * four + 0.25 * 8_f32.ln();
        let near = |values: &[f32], expected: &[f32]| {
            let off = |(a, b): (&f32, &f32)| (a - b).abs();
            values.len() == expected.len()
                && values.iter().zip(expected).map(off).all(|off| off < 1e-6)
        };
        let expected: [(&str, &[f32]); 8] = [
            ("label", &[0.0, 2.0]),
            ("predicted", &[0.0, 1.0]),
            ("confidence", &[0.5, 0.5]),
            ("label_prob", &[0.5, 0.25]),
            ("loss", &[two, four]),
            ("margin", &[four - two, two - four]),
            ("entropy", &[entropy, entropy]),
            ("rank", &[1.0, 2.0]),
        ];
        for ((name, values), (expected_name, expected)) in columns.iter().zip(expected) {
            assert_eq!(*name, expected_name);
            let values = match values {
                Values::Integers(values) => values.iter().map(|&value| value as f32).collect(),
                Values::Floats(values) => values.clone(),
                other => panic!("{name}: {other:?}"),
            };
            assert!(near(&values, expected), "{name}: {values:?}");
        }
        let (_, Values::IntegerLists(top, 4)) = &columns[8] else {
            panic!("{:?}", columns[8]);
        };
        assert_eq!(
            (top[..2].to_vec(), top[4..6].to_vec()),
            (vec![0, 1], vec![1, 2])
        );
        let (_, Values::FloatLists(probabilities, 4)) = &columns[9] else {
            panic!("{:?}", columns[9]);
        };
        assert!(near(&probabilities[4..], &[0.5, 0.25, 0.125, 0.125]));
    }
}
