//! ONNX: a model that onnxruntime runs.
//!
//! Batch normalisations are folded into the convolutions before them, as exporters of trained networks do. The
//! meaning of the operators that are left has not changed since [`OPSET`].

mod schema;

use prost::Message;
use tch::{Kind, Tensor};
use tinyres_load::Normalization;

use self::schema::{
    AttributeProto, Dim, GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto,
};
use super::Model;
use super::graph::{Op, ValueId, operations};
use crate::libtorch::tensors::bytes;
use crate::net::{EPSILON, ResNet18};
use crate::run::checkpoint::About;
use crate::{Error, Result};

/// The version of the operator set. 13, of 2020, is the oldest in which all operators used here have today's
/// meaning, so that old and new runtimes read the file.
pub const OPSET: i64 = 13;

/// The version of the file format that came with [`OPSET`].
const IR_VERSION: i64 = 7;

/// The content of the file.
pub(super) fn encode(about: &About, network: &ResNet18) -> Result<Vec<u8>> {
    let mut model = Builder {
        network,
        nodes: Vec::new(),
        weights: Vec::new(),
    };
    model.normalize(about)?;
    let ops = operations(network);
    let last = ops.len();
    for (at, op) in ops.iter().enumerate() {
        let to = if at + 1 == last {
            LOGITS.to_owned()
        } else {
            name(at + 1)
        };
        model.add(op, to)?;
    }
    let (side, classes) = (about.position.size.into(), network.spec().classes);
    let images = [
        Dim::named("batch"),
        Dim::of(3),
        Dim::of(side),
        Dim::of(side),
    ];
    let model = ModelProto {
        ir_version: IR_VERSION,
        opset: vec![schema::Opset {
            domain: String::new(),
            version: OPSET,
        }],
        producer_name: "tinyres".to_owned(),
        producer_version: env!("CARGO_PKG_VERSION").to_owned(),
        graph: Some(GraphProto {
            nodes: model.nodes,
            name: "resnet18".to_owned(),
            weights: model.weights,
            inputs: vec![ValueInfoProto::new(
                IMAGES,
                schema::UINT8,
                images,
                "RGB, planar, 0 to 255; normalisation is part of the model",
            )],
            outputs: vec![ValueInfoProto::new(
                LOGITS,
                schema::FLOAT,
                [Dim::named("batch"), Dim::of(classes)],
                "their softmax is the probability of each class",
            )],
        }),
        metadata: vec![schema::Property {
            key: Model::KEY.to_owned(),
            value: Model::of(about).json(),
        }],
    };
    Ok(model.encode_to_vec())
}

const IMAGES: &str = "images";
const LOGITS: &str = "logits";

/// The name of a value.
fn name(value: ValueId) -> String {
    format!("x{value}")
}

struct Builder<'a> {
    network: &'a ResNet18,
    nodes: Vec<NodeProto>,
    weights: Vec<TensorProto>,
}

impl Builder<'_> {
    fn node(&mut self, op: &str, inputs: &[&str], output: &str, attributes: Vec<AttributeProto>) {
        self.nodes.push(NodeProto {
            inputs: inputs.iter().map(|&name| name.to_owned()).collect(),
            outputs: vec![output.to_owned()],
            name: format!("{op}_{}", self.nodes.len()),
            op: op.to_owned(),
            attributes,
        });
    }

    /// Adds a tensor, and returns its name.
    fn weight(&mut self, name: String, tensor: &Tensor) -> Result<String> {
        self.weights.push(TensorProto {
            dims: tensor.size(),
            kind: schema::FLOAT,
            name: name.clone(),
            raw: bytes(tensor)?,
        });
        Ok(name)
    }

    /// Adds the normalisation of pixels to value 0: `pixel * scale + offset`, as in training.
    fn normalize(&mut self, about: &About) -> Result<()> {
        let (mean, std) = about.config.normalize.statistics();
        let by = Normalization::new(mean, std);
        let constant = |values: [f32; 3]| Tensor::from_slice(&values).f_view([1, 3, 1, 1]);
        let scale = self.weight("normalize.scale".to_owned(), &constant(by.scale)?)?;
        let offset = self.weight("normalize.offset".to_owned(), &constant(by.offset)?)?;
        let to = AttributeProto::int("to", schema::FLOAT.into());
        self.node("Cast", &[IMAGES], "levels", vec![to]);
        self.node("Mul", &["levels", &scale], "scaled", Vec::new());
        self.node("Add", &["scaled", &offset], &name(0), Vec::new());
        Ok(())
    }

    /// Adds the nodes of `op`, the last of which gives the value `to`.
    fn add(&mut self, op: &Op, to: String) -> Result<()> {
        match op {
            Op::Conv {
                conv,
                norm,
                stride,
                pad,
                of,
            } => {
                let (weight, bias) = self.folded(conv, norm)?;
                let attributes = vec![
                    AttributeProto::ints("strides", vec![*stride; 2]),
                    AttributeProto::ints("pads", vec![*pad; 4]),
                ];
                let weight = self.weight(format!("{conv}.weight"), &weight)?;
                let bias = self.weight(format!("{conv}.bias"), &bias)?;
                self.node("Conv", &[&name(*of), &weight, &bias], &to, attributes);
            }
            Op::Relu(of) => self.node("Relu", &[&name(*of)], &to, Vec::new()),
            Op::MaxPool(of) => {
                let attributes = vec![
                    AttributeProto::ints("kernel_shape", vec![3; 2]),
                    AttributeProto::ints("strides", vec![2; 2]),
                    AttributeProto::ints("pads", vec![1; 4]),
                ];
                self.node("MaxPool", &[&name(*of)], &to, attributes);
            }
            Op::Add(a, b) => self.node("Add", &[&name(*a), &name(*b)], &to, Vec::new()),
            Op::Mean(of) => {
                let pooled = format!("{to}_pooled");
                self.node("GlobalAveragePool", &[&name(*of)], &pooled, Vec::new());
                self.node("Flatten", &[&pooled], &to, Vec::new());
            }
            Op::Linear(layer, of) => {
                let [weight, bias] = ["weight", "bias"].map(|part| format!("{layer}.{part}"));
                let weight = self.weight(weight.clone(), &self.tensor(&weight)?)?;
                let bias = self.weight(bias.clone(), &self.tensor(&bias)?)?;
                let transposed = vec![AttributeProto::int("transB", 1)];
                self.node("Gemm", &[&name(*of), &weight, &bias], &to, transposed);
            }
        }
        Ok(())
    }

    /// Weight and bias of one convolution that computes `norm(conv(x))`. With `s = gamma / sqrt(var + eps)`
    /// they are `w * s` and `beta - mean * s`, computed in `f64` and rounded once.
    fn folded(&self, conv: &str, norm: &str) -> Result<(Tensor, Tensor)> {
        let of = |part: &str| Ok(self.tensor(part)?.f_to_kind(Kind::Double)?);
        let norm = |part: &str| -> Result<Tensor> { of(&format!("{norm}.{part}")) };
        let weight: Tensor = of(&format!("{conv}.weight"))?;
        let std = norm("running_var")?.f_add_scalar(EPSILON)?.f_sqrt()?;
        let scale = norm("weight")?.f_div(&std)?;
        let bias = norm("bias")?.f_sub(&norm("running_mean")?.f_mul(&scale)?)?;
        let weight = weight.f_mul(&scale.f_view([-1, 1, 1, 1])?)?;
        Ok((weight.f_to_kind(Kind::Float)?, bias.f_to_kind(Kind::Float)?))
    }

    fn tensor(&self, name: &str) -> Result<Tensor> {
        let mut named = self.network.named().iter();
        let named = named.find(|named| named.name == name);
        let named = named.ok_or_else(|| Error::weights(name, "is missing"))?;
        Ok(named.tensor.f_detach()?)
    }
}
