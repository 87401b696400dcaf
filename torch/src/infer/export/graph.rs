//! The network as a list of operations, for the formats that contain code. They write each operation down;
//! nothing is computed here.

use crate::net::ResNet18;

/// A value in the network: 0 is the normalised images, and `n` the result of operation `n - 1`.
pub(super) type ValueId = usize;

/// One operation of the network in evaluation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Op {
    /// A convolution without bias, followed by a batch normalisation.
    Conv {
        /// Prefix of the names of the convolution's tensors.
        conv: String,
        /// The same for the batch normalisation.
        norm: String,
        stride: i64,
        pad: i64,
        of: ValueId,
    },
    /// `max(x, 0)`.
    Relu(ValueId),
    /// Max pooling, 3x3 with stride 2 and padding 1.
    MaxPool(ValueId),
    /// The sum of two values.
    Add(ValueId, ValueId),
    /// The mean over height and width: `[B, C, h, w]` to `[B, C]`.
    Mean(ValueId),
    /// A linear layer, with the prefix of its tensors' names.
    Linear(&'static str, ValueId),
}

/// The operations of `network`, the last of which gives the logits.
pub(super) fn operations(network: &ResNet18) -> Vec<Op> {
    let mut graph = GraphBuilder {
        network,
        ops: Vec::new(),
    };
    let stem = network.spec().stem;
    let mut x = graph.conv("conv1", "bn1", stem.stride(), 0);
    x = graph.push(Op::Relu(x));
    if stem.has_pool() {
        x = graph.push(Op::MaxPool(x));
    }
    for block in graph.blocks() {
        x = graph.block(&block, x);
    }
    x = graph.push(Op::Mean(x));
    graph.push(Op::Linear("fc", x));
    graph.ops
}

struct GraphBuilder<'a> {
    network: &'a ResNet18,
    ops: Vec<Op>,
}

impl GraphBuilder<'_> {
    /// Appends `op`, and returns its result.
    fn push(&mut self, op: Op) -> ValueId {
        self.ops.push(op);
        self.ops.len()
    }

    /// The names of the residual blocks, such as `layer1.0`, in order.
    fn blocks(&self) -> Vec<String> {
        let names = self.network.named().iter();
        names
            .filter_map(|named| named.name.strip_suffix(".conv1.weight"))
            .map(str::to_owned)
            .collect()
    }

    /// The shape of the tensor `name`.
    fn shape(&self, name: &str) -> Option<Vec<i64>> {
        let mut named = self.network.named().iter();
        named
            .find(|named| named.name == name)
            .map(|named| named.tensor.size())
    }

    /// Appends a convolution, padded so that stride 1 keeps the size, and its batch normalisation.
    fn conv(&mut self, conv: &str, norm: &str, stride: i64, of: ValueId) -> ValueId {
        let shape = self.shape(&format!("{conv}.weight"));
        let size = shape.map_or(1, |shape| shape[2]);
        self.push(Op::Conv {
            conv: conv.to_owned(),
            norm: norm.to_owned(),
            stride,
            pad: size / 2,
            of,
        })
    }

    /// Appends a residual block.
    fn block(&mut self, name: &str, of: ValueId) -> ValueId {
        let part = |part: &str| format!("{name}.{part}");
        let (down, down_norm) = (part("downsample.0"), part("downsample.1"));
        // The blocks with a convolution in the shortcut are those that halve height and width.
        let halves = self.shape(&format!("{down}.weight")).is_some();
        let stride = if halves { 2 } else { 1 };
        let mut x = self.conv(&part("conv1"), &part("bn1"), stride, of);
        x = self.push(Op::Relu(x));
        x = self.conv(&part("conv2"), &part("bn2"), 1, x);
        let shortcut = if halves {
            self.conv(&down, &down_norm, stride, of)
        } else {
            of
        };
        x = self.push(Op::Add(x, shortcut));
        self.push(Op::Relu(x))
    }
}
