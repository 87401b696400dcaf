//! TorchScript: a module that `torch.jit.load` runs, with its parameters under torchvision's names.

use std::fmt::Write;

use tch::Tensor;

use super::graph::{Op, ValueId, operations};
use crate::Result;
use crate::libtorch::ffi::Script;
use crate::net::{EPSILON, ResNet18, Role, STATISTICS_MOMENTUM};
use crate::run::checkpoint::About;

/// The content of the file.
pub(super) fn encode(
    about: &About,
    network: &ResNet18,
    state: &[(String, Tensor)],
) -> Result<Vec<u8>> {
    let mut script = Script::new("ResNet18")?;
    for (name, tensor) in state {
        let mut named = network.named().iter();
        let trained = named.any(|named| named.name == *name && named.role != Role::Buffer);
        script.tensor(name, tensor, trained)?;
    }
    script.int("side", about.position.size.into())?;
    let classes = || about.classes.iter();
    script.strings("class_ids", classes().map(|class| class.id.as_str()))?;
    script.strings("class_names", classes().map(|class| class.name.as_str()))?;
    script.save(&forward(about, network))
}

/// The code of the module's `forward`.
fn forward(about: &About, network: &ResNet18) -> String {
    let mut code = "\
def forward(self, images: Tensor) -> Tensor:
    x0 = images.float()
    if not images.is_floating_point():
        x0 = x0 / 255.0
"
    .to_owned();
    let (mean, std) = about.config.normalize.statistics();
    // Channel by channel: a constant tensor would have to be moved to the module's device.
    let channels: Vec<_> = (0..3)
        .map(|c| format!("(x0[:, {c}] - {:?}) / {:?}", mean[c], std[c]))
        .collect();
    line(
        &mut code,
        0,
        &format!("torch.stack([{}], 1)", channels.join(", ")),
    );
    let ops = operations(network);
    for (at, op) in ops.iter().enumerate() {
        line(&mut code, at + 1, &expression(op));
    }
    let _ = writeln!(code, "    return x{}", ops.len());
    code
}

/// Appends the line that assigns `expression` to a value.
fn line(code: &mut String, value: ValueId, expression: &str) {
    let _ = writeln!(code, "    x{value} = {expression}");
}

/// The TorchScript expression of an operation.
fn expression(op: &Op) -> String {
    match op {
        Op::Conv {
            conv,
            norm,
            stride,
            pad,
            of,
        } => {
            let [weight, scale, bias, mean, variance] = [
                (conv, "weight"),
                (norm, "weight"),
                (norm, "bias"),
                (norm, "running_mean"),
                (norm, "running_var"),
            ]
            .map(|(module, name)| format!("{}.{name}", submodule(module)));
            format!(
                "torch.batch_norm(torch.conv2d(x{of}, {weight}, None, [{stride}, {stride}], [{pad}, {pad}]), \
                 {scale}, {bias}, {mean}, {variance}, self.training, {STATISTICS_MOMENTUM:?}, {EPSILON:?}, True)"
            )
        }
        Op::Relu(of) => format!("torch.relu(x{of})"),
        Op::MaxPool(of) => format!("torch.max_pool2d(x{of}, [3, 3], [2, 2], [1, 1])"),
        Op::Add(a, b) => format!("x{a} + x{b}"),
        Op::Mean(of) => format!("torch.flatten(torch.adaptive_avg_pool2d(x{of}, [1, 1]), 1)"),
        Op::Linear(name, of) => {
            let module = submodule(name);
            format!("torch.linear(x{of}, {module}.weight, {module}.bias)")
        }
    }
}

/// The TorchScript expression of a submodule: numbers, as in `layer1.0.conv1`, need `getattr`.
fn submodule(path: &str) -> String {
    path.split('.').fold("self".to_owned(), |module, name| {
        if name.starts_with(|first: char| first.is_ascii_digit()) {
            format!("getattr({module}, {name:?})")
        } else {
            format!("{module}.{name}")
        }
    })
}
