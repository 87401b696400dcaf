//! The network as a list of operations, for the formats that hold code.

use crate::net::ResNet18;

/// What an operation works on: 0 is the normalised images, and `n` what operation `n - 1` gives.
pub(super) type Value = usize;

/// One operation of a network that is not trained.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Op {
    /// A convolution without bias, and the batch normalisation after it.
    Conv {
        /// The tensors' names begin with these.
        conv: String,
        norm: String,
        stride: i64,
        pad: i64,
        of: Value,
    },
    /// What is negative becomes 0.
    Relu(Value),
    /// The largest of 3x3, at every second place.
    MaxPool(Value),
    /// The sum of two values.
    Add(Value, Value),
    /// The mean of each map: `[B, C, h, w]` to `[B, C]`.
    Mean(Value),
    /// A linear layer, whose tensors' names begin so.
    Linear(&'static str, Value),
}

/// The operations of `network`, the last of which gives the logits.
pub(super) fn operations(network: &ResNet18) -> Vec<Op> {
    let mut graph = Graph {
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

struct Graph<'a> {
    network: &'a ResNet18,
    ops: Vec<Op>,
}

impl Graph<'_> {
    fn push(&mut self, op: Op) -> Value {
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

    fn conv(&mut self, conv: &str, norm: &str, stride: i64, of: Value) -> Value {
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

    fn block(&mut self, name: &str, of: Value) -> Value {
        let part = |part: &str| format!("{name}.{part}");
        let (down, down_norm) = (part("downsample.0"), part("downsample.1"));
        // Whether a block halves the maps and whether it has a convolution beside it are one thing.
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
