//! ResNet18 as torchvision has it: the same names, shapes and initial values, with a choice of stems and an
//! optional head that predicts a box. Weights and maps are channels last.
//!
//! `layers` has the parts and their initial values, `box_head` the head. Nothing here trains: see `optim`
//! and `train`.

mod box_head;
pub mod boxes;
mod layers;

use std::cell::Cell;
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use strum::{Display, EnumIter, EnumString, VariantNames};
use tch::{Device, Kind, Tensor};

use crate::libtorch::device::{self, Precision};
use crate::libtorch::tensors;
use crate::{Error, Result};

use box_head::BoxHead;
pub(crate) use box_head::PREFIX as BOX_HEAD;
use layers::{BatchNorm, Block, Conv, Maker, Origin};
pub(crate) use layers::{EPSILON, STATISTICS_MOMENTUM};

/// The layers before the residual blocks. They decide how large a map the blocks see.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Display,
    EnumIter,
    EnumString,
    VariantNames,
    Serialize,
    Deserialize,
)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum Stem {
    /// torchvision's: 7x7 with stride 2, then a pool with stride 2. 64 pixels become 16.
    Imagenet,
    /// 3x3 with stride 2, no pool. 64 pixels become 32.
    Half,
    /// 3x3 with stride 1, no pool. 64 pixels stay 64.
    Small,
}

impl Stem {
    /// Side of the first convolution's kernel, in pixels. Its padding is half of that.
    pub(crate) fn kernel(self) -> i64 {
        match self {
            Self::Imagenet => 7,
            Self::Half | Self::Small => 3,
        }
    }

    /// Stride of the first convolution.
    pub(crate) fn stride(self) -> i64 {
        match self {
            Self::Imagenet | Self::Half => 2,
            Self::Small => 1,
        }
    }

    /// True if a 3x3 max pool with stride 2 follows the first convolution.
    pub(crate) fn has_pool(self) -> bool {
        self == Self::Imagenet
    }
}

/// A part of a network that can be frozen, in the order of a forward pass.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, EnumIter, EnumString, VariantNames, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum Layer {
    /// The first convolution and its normalisation.
    Stem,
    /// Blocks 1 and 2.
    Layer1,
    /// Blocks 3 and 4.
    Layer2,
    /// Blocks 5 and 6.
    Layer3,
    /// Blocks 7 and 8.
    Layer4,
    /// The classifier.
    Fc,
}

impl Layer {
    /// The layer that the tensor `name` belongs to. `None` for the box head.
    fn of(name: &str) -> Option<Self> {
        match name.split('.').next()? {
            "conv1" | "bn1" => Some(Self::Stem),
            layer => layer.parse().ok(),
        }
    }

    /// The layers made of residual blocks, two each.
    const BLOCKS: [Self; 4] = [Self::Layer1, Self::Layer2, Self::Layer3, Self::Layer4];
}

/// The variant of the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spec {
    /// The layers before the residual blocks.
    pub stem: Stem,
    /// Outputs of the classifier.
    pub classes: i64,
    /// True if there is a box head.
    pub boxes: bool,
}

/// How a tensor of a network is trained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Trained with weight decay: the weights of convolutions and linear layers.
    Weight,
    /// Trained without weight decay: biases, and the weights of normalisations.
    NoDecay,
    /// Not trained: running statistics, and frozen parameters.
    Buffer,
}

/// A tensor of a network, under torchvision's name.
#[derive(Debug)]
pub struct NamedTensor {
    /// Name such as `layer1.0.bn1.running_mean`.
    pub name: String,
    /// Handle to the tensor that the network uses: changing it changes the network.
    pub tensor: Tensor,
    /// How it is trained.
    pub role: Role,
}

/// Predictions for a batch.
#[derive(Debug)]
pub struct Outputs {
    /// Logits, `f32 [B, classes]`.
    pub logits: Tensor,
    /// Boxes, `f32 [B, 4]`: centre x, centre y, width, height, as fractions of the image's sides. `None`
    /// without a box head.
    pub boxes: Option<Tensor>,
    /// What the classifier is given, the mean of the last feature map, `f32 [B, 512]`.
    pub features: Tensor,
}

/// Margin of each image, `f32 [B]`: the logit of its label minus the largest other one, of `logits` `[B, classes]` and
/// `labels` `i64 [B]`. Its mean over the epochs of a training is the area under the margin (Pleiss et al. 2020,
/// <https://arxiv.org/abs/2001.10528>), low for wrong labels.
pub(crate) fn margins(logits: &Tensor, labels: &Tensor) -> Result<Tensor> {
    let logits = logits.f_to_kind(Kind::Float)?;
    let label = labels.f_unsqueeze(1)?;
    let others = logits.f_scatter_value(1, &label, f64::NEG_INFINITY)?;
    let of_label = logits.f_gather(1, &label, false)?.f_squeeze_dim(1)?;
    Ok(of_label.f_sub(&others.f_amax([1], false)?)?)
}

/// ResNet18.
#[derive(Debug)]
pub struct ResNet18 {
    spec: Spec,
    precision: Precision,
    named: Vec<NamedTensor>,
    conv1: Conv,
    bn1: BatchNorm,
    blocks: Vec<Block>,
    fc: (Tensor, Tensor),
    box_head: Option<BoxHead>,
    /// Batches seen in training: `num_batches_tracked` of every normalisation.
    batches: Cell<i64>,
    frozen: Vec<Layer>,
}

/// Last part of the name of a normalisation's count of batches.
pub(crate) const BATCHES_TRACKED: &str = "num_batches_tracked";
/// Name of the first convolution's weight, `[64, 3, R, R]`. Its shape tells the stem.
pub(crate) const FIRST_WEIGHT: &str = "conv1.weight";

impl ResNet18 {
    /// A network with torchvision's initial values. They are drawn on the CPU from libtorch's global
    /// generator, seeded with `seed`, so they are the same for every device.
    ///
    /// # Errors
    /// libtorch is out of memory.
    pub fn new(spec: Spec, seed: u64, device: Device) -> Result<Self> {
        // All threads share the generator: two networks must not draw from it at the same time.
        static DRAWING: Mutex<()> = Mutex::new(());
        let _drawing = DRAWING.lock().unwrap_or_else(PoisonError::into_inner);
        tch::manual_seed(seed.cast_signed());
        Self::make(spec, Maker::new(Origin::Drawn(device), STATISTICS_MOMENTUM))
    }

    /// The same network, for another thread: all its tensors are views of this one's, but gradients are its own.
    ///
    /// # Errors
    /// libtorch is out of memory.
    pub(crate) fn share(&self) -> Result<Self> {
        self.views(STATISTICS_MOMENTUM, &|_| false)
    }

    /// Shares as [`share`](Self::share) does, but the running statistics that training updates are its own: after a pass in
    /// training they are those of that pass alone, as if its batch were the first and `momentum` 1.
    ///
    /// # Errors
    /// libtorch is out of memory.
    pub(crate) fn replica(&self) -> Result<Self> {
        self.views(1.0, &|named| self.is_updated(named))
    }

    fn views(&self, momentum: f64, is_new: &dyn Fn(&NamedTensor) -> bool) -> Result<Self> {
        let make = Maker::new(Origin::Views(&self.named, is_new), momentum);
        Ok(Self {
            precision: self.precision,
            batches: self.batches.clone(),
            frozen: self.frozen.clone(),
            ..Self::make(self.spec, make)?
        })
    }

    fn make(spec: Spec, mut make: Maker<'_>) -> Result<Self> {
        let conv1 = make.conv("conv1", 3, 64, spec.stem.kernel(), spec.stem.stride())?;
        let bn1 = make.batch_norm("bn1", 64)?;
        let mut blocks = Vec::new();
        for (layer, inputs, outputs, stride) in [
            (1, 64, 64, 1),
            (2, 64, 128, 2),
            (3, 128, 256, 2),
            (4, 256, 512, 2),
        ] {
            blocks.push(make.block(&format!("layer{layer}.0"), inputs, outputs, stride)?);
            blocks.push(make.block(&format!("layer{layer}.1"), outputs, outputs, 1)?);
        }
        let fc = make.linear("fc", 512, spec.classes)?;
        // Drawn last, so that the other layers start the same with and without it.
        let box_head = match spec.boxes {
            true => Some(BoxHead::new(&mut make, 512)?),
            false => None,
        };
        Ok(Self {
            spec,
            precision: Precision::F32,
            named: make.named,
            conv1,
            bn1,
            blocks,
            fc,
            box_head,
            batches: Cell::new(0),
            frozen: Vec::new(),
        })
    }

    /// Sets what a forward pass computes in. A new network computes in `f32`.
    #[must_use]
    pub fn with_precision(mut self, precision: Precision) -> Self {
        self.precision = precision;
        self
    }

    /// What a forward pass computes in.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// True for a running statistic that a pass in training updates.
    fn is_updated(&self, named: &NamedTensor) -> bool {
        let is_frozen = |layer| self.frozen.contains(&layer);
        let last = named.name.rsplit('.').next();
        matches!(last, Some("running_mean" | "running_var"))
            && !Layer::of(&named.name).is_some_and(is_frozen)
    }

    /// The running statistics that training updates, one after the other: a copy, `f32 [S]`.
    pub(crate) fn statistics(&self) -> Result<Tensor> {
        let updated = self.named.iter().filter(|named| self.is_updated(named));
        let updated: Vec<_> = updated.map(|named| &named.tensor).collect();
        match updated[..] {
            // Every normalisation is frozen.
            [] => layers::zeros(&[0]),
            _ => Ok(Tensor::f_cat(&updated, 0)?),
        }
    }

    /// Updates the running statistics as a pass in training does, with `batch` for what
    /// [`statistics`](Self::statistics) lists.
    pub(crate) fn update_statistics(&self, batch: &Tensor) -> Result<()> {
        self.batches.set(self.batches.get() + 1);
        let mut at = 0;
        for named in self.named.iter().filter(|named| self.is_updated(named)) {
            let mut running = named.tensor.shallow_clone();
            let own = batch.f_narrow(0, at, running.size()[0])?;
            let _ = running.f_lerp_(&own, STATISTICS_MOMENTUM)?;
            at += running.size()[0];
        }
        Ok(())
    }

    /// Makes every block the identity, by setting the weight of its last normalisation to 0.
    pub(crate) fn zero_init_residual(&mut self) -> Result<()> {
        for block in &self.blocks {
            let _ = tch::no_grad(|| block.bn2.weight.shallow_clone().f_zero_())?;
        }
        Ok(())
    }

    /// Makes an untrained box head predict `mean` (centre x, centre y, width, height) for every image.
    pub fn start_boxes_at(&mut self, mean: [f64; 4]) -> Result<()> {
        if let Some(head) = &self.box_head {
            head.mean().f_copy_(&Tensor::f_from_slice(&mean)?)?;
        }
        Ok(())
    }

    /// Excludes the parameters of `layers` from training. Their normalisations use the running
    /// statistics in training, too, and do not update them, so the layers keep computing the same.
    pub fn freeze(&mut self, layers: &[Layer]) -> Result<()> {
        self.frozen = layers.to_vec();
        for named in &mut self.named {
            if Layer::of(&named.name).is_some_and(|layer| layers.contains(&layer)) {
                let _ = named.tensor.f_set_requires_grad(false)?;
                named.role = Role::Buffer;
            }
        }
        Ok(())
    }

    /// The mean box of the training split: centre x, centre y, width, height. `None` without a box head.
    pub fn mean_box(&self) -> Result<Option<[f64; 4]>> {
        let Some(head) = &self.box_head else {
            return Ok(None);
        };
        let mut mean = [0.0; 4];
        let host = head
            .mean()
            .f_to_device(Device::Cpu)?
            .f_to_kind(Kind::Double)?;
        host.f_copy_data(&mut mean, 4)?;
        Ok(Some(mean))
    }

    /// The variant of this network.
    pub fn spec(&self) -> Spec {
        self.spec
    }

    /// The device of its tensors.
    pub(crate) fn device(&self) -> Device {
        self.fc.0.device()
    }

    /// Every tensor except `num_batches_tracked`, in torchvision's order.
    pub fn named(&self) -> &[NamedTensor] {
        &self.named
    }

    /// CRC-32 of the values of all tensors: networks of two hosts with the same one compute the same.
    ///
    /// # Errors
    /// libtorch is out of memory.
    pub fn checksum(&self) -> Result<u32> {
        let mut crc = crc32fast::Hasher::new();
        for named in self.named() {
            crc.update(&tensors::bytes(&named.tensor)?);
        }
        Ok(crc.finalize())
    }

    /// Logits, `f32 [B, classes]`, of `images`, `f32 [B, 3, H, W]`, normalised and channels last. With
    /// `train`, batch norm uses the statistics of the batch and updates the running ones.
    ///
    /// # Errors
    /// libtorch rejects the shape or is out of memory.
    pub fn forward(&self, images: &Tensor, train: bool) -> Result<Tensor> {
        Ok(self.outputs(images, train)?.logits)
    }

    /// Logits and boxes of images, which are as for [`forward`](Self::forward).
    ///
    /// # Errors
    /// The same as those of [`forward`](Self::forward).
    pub fn outputs(&self, images: &Tensor, train: bool) -> Result<Outputs> {
        let outputs = device::mixed(self.precision, images, |images| {
            let map = self.features(images, train)?;
            let (logits, features) = self.classify(&map)?;
            let boxes = self.box_head.as_ref();
            Ok(Outputs {
                logits,
                boxes: boxes.map(|head| head.forward(&map, train)).transpose()?,
                features,
            })
        })?;
        Ok(Outputs {
            logits: outputs.logits.f_to_kind(Kind::Float)?,
            ..outputs
        })
    }

    /// The last feature map, `[B, 512, h, w]` in the dtype of the images, which are as for
    /// [`forward`](Self::forward).
    ///
    /// # Errors
    /// The same as those of [`forward`](Self::forward).
    pub fn features(&self, images: &Tensor, train: bool) -> Result<Tensor> {
        if train {
            self.batches.set(self.batches.get() + 1);
        }
        let trains = |layer| train && !self.frozen.contains(&layer);
        let mut x = self.conv1.forward(images)?;
        x = self.bn1.forward_relu(&x, None, trains(Layer::Stem))?;
        if self.spec.stem.has_pool() {
            x = x.f_max_pool2d([3, 3], [2, 2], [1, 1], [1, 1], false)?;
        }
        for (pair, layer) in self.blocks.chunks(2).zip(Layer::BLOCKS) {
            for block in pair {
                x = block.forward(&x, trains(layer))?;
            }
        }
        Ok(x)
    }

    /// Logits, and the mean of `map`, the last feature map.
    fn classify(&self, map: &Tensor) -> Result<(Tensor, Tensor)> {
        let (weight, bias) = &self.fc;
        let pooled = map.f_adaptive_avg_pool2d([1, 1])?.f_flatten(1, -1)?;
        // On a CPU the maps may be bfloat16. This product is small enough for f32.
        let pooled = pooled.f_to_kind(weight.kind())?;
        Ok((pooled.f_linear(weight, Some(bias))?, pooled))
    }

    /// Names and tensors of `torchvision.models.resnet18().state_dict()`, and those of the box head.
    pub fn state(&self) -> Result<Vec<(String, Tensor)>> {
        let mut state = Vec::new();
        for named in &self.named {
            state.push((named.name.clone(), named.tensor.f_detach()?));
            if let Some(norm) = named.name.strip_suffix("running_var") {
                let batches = Tensor::f_from_slice(&[self.batches.get()])?.f_squeeze()?;
                state.push((format!("{norm}{BATCHES_TRACKED}"), batches));
            }
        }
        Ok(state)
    }

    /// Copies the values of `state`, which must have exactly the names and shapes of
    /// [`state`](Self::state).
    ///
    /// # Errors
    /// [`Error::Weights`] names the first tensor that is missing, unknown or of another shape.
    pub fn load(&mut self, state: &[(String, Tensor)]) -> Result<()> {
        let own = self.state()?;
        let is_known = |name: &String| own.iter().any(|(known, _)| known == name);
        if let Some((name, _)) = state.iter().find(|(name, _)| !is_known(name)) {
            return Err(Error::weights(name, "is not in this network"));
        }
        tensors::restore(&own, state)?;
        // All normalisations have seen the same batches.
        let count = own
            .iter()
            .rfind(|(name, _)| name.ends_with(BATCHES_TRACKED));
        if let Some((_, batches)) = count {
            self.batches.set(batches.f_int64_value(&[])?);
        }
        Ok(())
    }
}
