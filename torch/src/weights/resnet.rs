//! Finds the ResNet18s among the tensors of a file, by the names and shapes of their layers: under any prefix
//! of names, and in the ways of naming that other programs have. Reads no values.

use crate::tensor_file::{Group, TensorEntry};

/// A way to name the layers of a ResNet18.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Naming {
    /// torchvision's, which timm, mmpretrain and most others share.
    Torchvision,
    /// That of github.com/kuangliu/pytorch-cifar: `shortcut` for `downsample`.
    Shortcut,
    /// That of github.com/weiaicunzai/pytorch-cifar100: `conv2_x.0.residual_function.0`.
    Residual,
    /// `nn.Sequential(*resnet18.children())`: numbers for the first parts of the names.
    Children,
    /// That of Hugging Face's transformers: `encoder.stages.0.layers.0.layer.0.convolution`.
    Stages,
}

impl Naming {
    const ALL: [Self; 5] = [
        Self::Torchvision,
        Self::Shortcut,
        Self::Residual,
        Self::Children,
        Self::Stages,
    ];

    /// The name here of the layer that torchvision calls `name`, such as `layer2.0.downsample.1`.
    fn of(self, name: &str) -> String {
        let parts: Vec<_> = name.split('.').collect();
        let stage = parts[0]
            .strip_prefix("layer")
            .map(|digit| digit.parse().unwrap_or(0_u8));
        match (self, stage, &parts[1..]) {
            (Self::Torchvision, ..) => name.to_owned(),
            (Self::Shortcut, ..) => name.replace("downsample", "shortcut"),
            (Self::Residual, None, _) => match name {
                "conv1" => "conv1.0".to_owned(),
                _ => "conv1.1".to_owned(),
            },
            (Self::Residual, Some(stage), [block, layer, rest @ ..]) => {
                let layer = match (*layer, rest) {
                    ("conv1", _) => "residual_function.0".to_owned(),
                    ("bn1", _) => "residual_function.1".to_owned(),
                    ("conv2", _) => "residual_function.3".to_owned(),
                    ("bn2", _) => "residual_function.4".to_owned(),
                    (_, rest) => format!("shortcut.{}", rest.join(".")),
                };
                format!("conv{}_x.{block}.{layer}", stage + 1)
            }
            (Self::Children, None, _) => match name {
                "conv1" => "0".to_owned(),
                _ => "1".to_owned(),
            },
            (Self::Children, Some(stage), rest) => format!("{}.{}", stage + 3, rest.join(".")),
            (Self::Stages, None, _) => match name {
                "conv1" => "embedder.embedder.convolution".to_owned(),
                _ => "embedder.embedder.normalization".to_owned(),
            },
            (Self::Stages, Some(stage), [block, layer, rest @ ..]) => {
                let layer = match (*layer, rest) {
                    ("conv1", _) => "layer.0.convolution",
                    ("bn1", _) => "layer.0.normalization",
                    ("conv2", _) => "layer.1.convolution",
                    ("bn2", _) => "layer.1.normalization",
                    (_, ["0"]) => "shortcut.convolution",
                    _ => "shortcut.normalization",
                };
                format!("encoder.stages.{}.layers.{block}.{layer}", stage - 1)
            }
            _ => name.to_owned(),
        }
    }
}

/// Parts of names that wrappers add inside a network: `torch.compile`, FSDP and checkpointing of activations.
const WRAPPERS: [&str; 3] = [
    "_orig_mod.",
    "_fsdp_wrapped_module.",
    "_checkpoint_wrapped_module.",
];

/// A ResNet18, or a network that begins as one, among the tensors of a group.
#[derive(Debug)]
pub(super) struct Candidate<'a> {
    pub group: &'a Group,
    /// Place in the file: the keys of the dictionaries, then the prefix of the names.
    pub key: String,
    prefix: String,
    /// Torchvision's name, and the tensor, for each that the network has.
    pub body: Vec<(String, &'a TensorEntry)>,
    /// The first tensor that is missing, with its expected shape; or that has another shape.
    pub unfit: Option<Unfit>,
    /// The other tensors of the group.
    pub rest: Vec<&'a TensorEntry>,
}

/// A reason why a candidate is not a ResNet18.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Unfit {
    Missing(String),
    Shape {
        name: String,
        got: Vec<i64>,
        expected: Vec<i64>,
    },
    /// A tensor in the residual layers that a ResNet18 does not have.
    Unknown(String),
}

impl std::fmt::Display for Unfit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Missing(name) => write!(f, "has no {name}: it is not of a ResNet18"),
            Self::Shape {
                name,
                got,
                expected,
            } => {
                let expected = format!("{expected:?}").replace("0, 0]", "k, k]");
                write!(
                    f,
                    "has a {name} of shape {got:?}, expected {expected}: it is of another network"
                )
            }
            Self::Unknown(name) => write!(f, "holds {name}, which a ResNet18 does not have"),
        }
    }
}

/// Kernel of a first convolution of any size.
const ANY: i64 = 0;

/// The layers without the classifier, by torchvision's names: of each convolution its name and shape, and of
/// its normalisation the name.
fn layers() -> Vec<(String, [i64; 4], String)> {
    let mut layers = vec![("conv1".to_owned(), [64, 3, ANY, ANY], "bn1".to_owned())];
    let mut inputs = 64;
    for (stage, outputs) in [(1, 64), (2, 128), (3, 256), (4, 512)] {
        for block in 0..2 {
            let at = format!("layer{stage}.{block}");
            let mut add = |conv: &str, shape, norm: &str| {
                layers.push((format!("{at}.{conv}"), shape, format!("{at}.{norm}")));
            };
            add("conv1", [outputs, inputs, 3, 3], "bn1");
            add("conv2", [outputs, outputs, 3, 3], "bn2");
            if inputs != outputs {
                add("downsample.0", [outputs, inputs, 1, 1], "downsample.1");
            }
            inputs = outputs;
        }
    }
    layers
}

/// Every network in `groups` that has the first convolution and the first residual block of a ResNet.
pub(super) fn candidates(groups: &[Group]) -> Vec<Candidate<'_>> {
    let mut found = Vec::new();
    for group in groups {
        for naming in Naming::ALL {
            let first = naming.of("conv1") + ".weight";
            let block = naming.of("layer1.0.conv1") + ".weight";
            let has = |name: &str| group.entries.iter().any(|entry| plain(&entry.name) == name);
            for entry in &group.entries {
                let name = plain(&entry.name);
                let Some(prefix) = name.strip_suffix(&first) else {
                    continue;
                };
                // Only the names of the shortcuts tell these two namings apart.
                let shortcut = has(&format!("{prefix}layer2.0.shortcut.0.weight"));
                let excluded = match naming {
                    Naming::Torchvision => shortcut,
                    Naming::Shortcut => !shortcut,
                    _ => false,
                };
                let whole = prefix.is_empty() || prefix.ends_with('.');
                if whole && !excluded && has(&format!("{prefix}{block}")) {
                    found.push(candidate(group, prefix, naming));
                }
            }
        }
    }
    found
}

/// A name without the parts that wrappers add.
pub(super) fn plain(name: &str) -> String {
    (WRAPPERS.iter()).fold(name.to_owned(), |name, wrapper| name.replace(wrapper, ""))
}

fn candidate<'a>(group: &'a Group, prefix: &str, naming: Naming) -> Candidate<'a> {
    let mut rest: Vec<_> = (group.entries.iter())
        .map(|entry| (plain(&entry.name), entry))
        .collect();
    let mut body = Vec::new();
    let mut unfit = None;
    let mut take = |layer: &str, part: &str, expected: &[i64], required: bool| {
        let own = format!("{prefix}{}.{part}", naming.of(layer));
        let name = format!("{layer}.{part}");
        let Some(at) = rest.iter().position(|(other, _)| *other == own) else {
            if required {
                unfit.get_or_insert(Unfit::Missing(own));
            }
            return;
        };
        let (_, entry) = rest.remove(at);
        let got = &entry.shape;
        let fits = got.len() == expected.len()
            && (got.iter().zip(expected))
                .all(|(got, expected)| got == expected || *expected == ANY);
        if !fits {
            unfit.get_or_insert(Unfit::Shape {
                name: own,
                got: got.clone(),
                expected: expected.to_vec(),
            });
        }
        body.push((name, entry));
    };
    for (conv, shape, norm) in layers() {
        take(&conv, "weight", &shape, true);
        for part in ["weight", "bias", "running_mean", "running_var"] {
            take(&norm, part, &shape[..1], true);
        }
        // PyTorch before 0.4.1 does not have this count, and no result depends on it.
        take(&norm, "num_batches_tracked", &[], false);
    }
    let in_stages = |name: &str| {
        let stage = |digit: char| naming.of(&format!("layer{digit}.0.conv1"));
        let starts = ['1', '2', '3', '4'].map(|digit| {
            let name = stage(digit);
            let first_block = name.find(".0.").map_or(0, |at| at + 1);
            name[..first_block].to_owned()
        });
        name.strip_prefix(prefix)
            .is_some_and(|name| starts.iter().any(|start| name.starts_with(start)))
    };
    if let Some((name, _)) = rest.iter().find(|(name, _)| in_stages(name)) {
        // Names another network better than a tensor that is missing.
        if !matches!(unfit, Some(Unfit::Shape { .. })) {
            unfit = Some(Unfit::Unknown(name.clone()));
        }
    }
    let key = match (group.key.as_str(), prefix.trim_end_matches('.')) {
        ("", prefix) => prefix.to_owned(),
        (key, "") => key.to_owned(),
        (key, prefix) => format!("{key}.{prefix}"),
    };
    Candidate {
        group,
        key,
        prefix: prefix.to_owned(),
        body,
        unfit,
        rest: rest.into_iter().map(|(_, entry)| entry).collect(),
    }
}

/// The classifier of a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Head<'a> {
    /// There is no linear layer.
    None,
    /// The one linear layer on 512 features, its bias if it has one.
    Linear {
        weight: &'a TensorEntry,
        bias: Option<&'a TensorEntry>,
    },
    /// Several linear layers, by name.
    Several(Vec<String>),
}

impl<'a> Candidate<'a> {
    /// The classifier, found by its shape: first among the names that have the network's prefix, then among
    /// all of the group.
    pub(super) fn head(&self) -> Head<'a> {
        let is_matrix = |entry: &&'a TensorEntry| {
            matches!(entry.shape[..], [_, _])
                && entry.name.ends_with(".weight")
                && !entry.name.contains(crate::net::BOX_HEAD)
        };
        let all: Vec<_> = self.rest.iter().copied().filter(is_matrix).collect();
        let own = all.iter().copied();
        let own: Vec<_> = own
            .filter(|entry| plain(&entry.name).starts_with(&self.prefix))
            .collect();
        let mut layers = if own.is_empty() { all } else { own };
        let is_fc =
            |entry: &&TensorEntry| self.short(&entry.name) == "fc.weight" && entry.shape[1] == 512;
        if layers.iter().any(is_fc) {
            layers.retain(is_fc);
        }
        match layers[..] {
            [] => Head::None,
            [weight] if weight.shape[1] == 512 => {
                let name = weight.name.trim_end_matches("weight").to_owned() + "bias";
                let bias = self.rest.iter().copied().find(|entry| entry.name == name);
                Head::Linear { weight, bias }
            }
            _ => Head::Several(layers.iter().map(|entry| entry.name.clone()).collect()),
        }
    }

    /// A name without wrappers and the network's prefix.
    pub(super) fn short(&self, name: &str) -> String {
        let name = plain(name);
        let short = name.strip_prefix(&self.prefix).map(str::to_owned);
        short.unwrap_or(name)
    }
}
