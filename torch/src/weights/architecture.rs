//! Recognises common image networks by the names and shapes of their tensors, to say in an error what a file
//! holds. The names are those of torchvision, timm, transformers and well-known repositories.

use super::resnet::plain;
use crate::tensor_file::TensorEntry;

/// The network that `entries` are of, such as `a ResNet50`, if it is a known one.
pub(super) fn recognise(entries: &[TensorEntry]) -> Option<String> {
    let names: Vec<_> = entries.iter().map(|entry| plain(&entry.name)).collect();
    let has = |part: &str| names.iter().any(|name| name.contains(part));
    let shape = |end: &str| {
        let mut found = names.iter().zip(entries);
        let (_, entry) = found.find(|(name, _)| ends_at_part(name, end))?;
        Some(&entry.shape[..])
    };
    if has("layer1.0.conv1.weight") {
        return resnet(&names, &shape);
    }
    let convolutions = (names.iter().zip(entries))
        .filter(|(name, entry)| name.contains("features.") && entry.shape.len() == 4)
        .count();
    // Each row: parts that some name contains, all of them, and the network.
    let known: &[(&[&str], &str)] = &[
        (
            &["encoder.stages.", "embedder.embedder.convolution"],
            "another ResNet of transformers",
        ),
        (&["conv2_x.", "residual_function.6"], "a ResNet50 or deeper"),
        (&["conv2_x.", "residual_function"], "another ResNet"),
        (&["denseblock1.denselayer1"], "a DenseNet"),
        (&["inception3a."], "a GoogLeNet"),
        (&["Mixed_5b."], "an Inception"),
        (&["squeeze.weight", "expand1x1.weight"], "a SqueezeNet"),
        (&["relative_position_bias_table"], "a Swin Transformer"),
        (&["visual.", "token_embedding.weight"], "a CLIP model"),
        (
            &["encoder_layer_0.self_attention"],
            "a Vision Transformer (ViT)",
        ),
        (
            &["attn.qkv.weight", "patch_embed.proj"],
            "a Vision Transformer (ViT)",
        ),
        (
            &["encoder.layer.0.attention", "patch_embeddings"],
            "a Vision Transformer (ViT)",
        ),
        (&["trunk_output.block1"], "a RegNet"),
        (&["stage2.0.branch1."], "a ShuffleNet"),
        (&["_conv_stem.weight"], "an EfficientNet"),
        (&["features.1.0.block.0.0.weight"], "an EfficientNet"),
        (&["features.1.0.block.5.weight"], "a ConvNeXt"),
        (&["stages.0.blocks.0.conv_dw"], "a ConvNeXt"),
        (&["features.1.conv.0.0.weight"], "a MobileNetV2"),
        (
            &["features.1.block.0.0.weight", "features.0.0.weight"],
            "a MobileNetV3",
        ),
        (&["model.0.conv.weight", "model.1.conv.weight"], "a YOLO"),
    ];
    let of_all = |parts: &&[&str]| parts.iter().all(|part| has(part));
    if let Some((_, network)) = known.iter().find(|(parts, _)| of_all(parts)) {
        return Some((*network).to_owned());
    }
    if has("blocks.0.0.conv_dw.weight") {
        return Some(match shape("conv_stem.weight") {
            Some([16, ..]) => "a MobileNetV3".into(),
            _ => "an EfficientNet".into(),
        });
    }
    match (shape("features.0.weight"), convolutions) {
        (Some([64, 3, 11, 11]), _) => Some("an AlexNet".into()),
        (Some([64, 3, 3, 3]), convolutions @ (8 | 10 | 13 | 16)) => {
            Some(format!("a VGG{}", convolutions + 3))
        }
        _ => None,
    }
}

/// True if `name` ends with `end`, as whole parts between dots.
fn ends_at_part(name: &str, end: &str) -> bool {
    (name.strip_suffix(end)).is_some_and(|before| before.is_empty() || before.ends_with('.'))
}

/// The ResNet with these names, by the number and the kind of its blocks; `None` if it is a ResNet18.
fn resnet<'a>(names: &[String], shape: &impl Fn(&str) -> Option<&'a [i64]>) -> Option<String> {
    let blocks: Vec<_> = (1..=4)
        .map(|stage| {
            let of_stage = |name: &String| {
                let (_, rest) = name.rsplit_once(&format!("layer{stage}."))?;
                rest.split('.').next()?.parse::<usize>().ok()
            };
            names
                .iter()
                .filter_map(of_stage)
                .max()
                .map_or(0, |last| last + 1)
        })
        .collect();
    let bottleneck = shape("layer1.0.conv3.weight").is_some();
    let depth = 2 + blocks.iter().sum::<usize>() * if bottleneck { 3 } else { 2 };
    let family = match shape("layer1.0.conv2.weight") {
        _ if names.iter().any(|name| name.contains("layer1.0.se.")) => "SE-ResNet",
        _ if names.iter().any(|name| name.contains("layer1.0.convs.0.")) => "Res2Net",
        Some([outputs, inputs, ..]) if bottleneck && inputs < outputs => "ResNeXt",
        Some([outputs, ..]) if bottleneck && *outputs > 64 => "Wide ResNet",
        _ => "ResNet",
    };
    let article = match family {
        "SE-ResNet" => "an",
        _ => "a",
    };
    let more = match (blocks[3], shape("conv1.0.weight"), depth) {
        (0, ..) => " for CIFAR",
        (_, Some(_), _) => " with a deep stem, such as timm's resnet18d",
        (_, None, 18) if family == "ResNet" => match shape("conv1.weight") {
            Some([64, 3, ..]) => return None,
            Some([64, channels, ..]) => {
                return Some(format!("a ResNet18 for images of {channels} channels"));
            }
            _ => " of other widths",
        },
        _ => "",
    };
    Some(format!("{article} {family}{depth}{more}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_of_torchvision_are_recognised() {
        let golden = include_str!("../../golden/architectures.txt");
        let entry = |(at, line): (usize, &str)| {
            let (name, shape) = line.split_once(' ').unwrap();
            let shape = shape.split(' ').map(|side| side.parse().unwrap());
            TensorEntry {
                name: name.to_owned(),
                shape: shape.collect(),
                at,
            }
        };
        let mut seen = 0;
        for network in golden.split("= ").skip(1) {
            let (name, tensors) = network.split_once('\n').unwrap();
            let entries: Vec<_> = tensors.lines().enumerate().map(entry).collect();
            let expected = match name {
                "resnet34" => "a ResNet34",
                "resnet50" => "a ResNet50",
                "resnet101" => "a ResNet101",
                "resnet152" => "a ResNet152",
                "wide_resnet50_2" => "a Wide ResNet50",
                "resnext50_32x4d" => "a ResNeXt50",
                "vgg11" => "a VGG11",
                "vgg16_bn" => "a VGG16",
                "alexnet" => "an AlexNet",
                "mobilenet_v2" => "a MobileNetV2",
                "mobilenet_v3_small" => "a MobileNetV3",
                "efficientnet_b0" => "an EfficientNet",
                "densenet121" => "a DenseNet",
                "vit_b_16" => "a Vision Transformer (ViT)",
                "swin_t" => "a Swin Transformer",
                "convnext_tiny" => "a ConvNeXt",
                "squeezenet1_0" => "a SqueezeNet",
                "shufflenet_v2_x1_0" => "a ShuffleNet",
                "regnet_y_400mf" => "a RegNet",
                "googlenet" => "a GoogLeNet",
                other => panic!("{other}"),
            };
            assert_eq!(recognise(&entries).as_deref(), Some(expected), "{name}");
            seen += 1;
        }
        assert_eq!(seen, 20);
    }

    #[test]
    fn networks_of_other_programs_are_recognised() {
        for (names, expected) in [
            (
                &[
                    ("blocks.0.attn.qkv.weight", &[576, 192][..]),
                    ("patch_embed.proj.weight", &[192, 3, 16, 16]),
                ][..],
                "a Vision Transformer (ViT)",
            ),
            (
                &[
                    ("conv_stem.weight", &[32, 3, 3, 3]),
                    ("blocks.0.0.conv_dw.weight", &[32, 1, 3, 3]),
                ],
                "an EfficientNet",
            ),
            (
                &[
                    ("conv_stem.weight", &[16, 3, 3, 3]),
                    ("blocks.0.0.conv_dw.weight", &[16, 1, 3, 3]),
                ],
                "a MobileNetV3",
            ),
            (
                &[
                    ("layer1.0.conv1.weight", &[16, 16, 3, 3]),
                    ("layer2.2.conv1.weight", &[32, 32, 3, 3]),
                    ("layer1.2.conv1.weight", &[16, 16, 3, 3]),
                    ("layer3.2.conv1.weight", &[64, 64, 3, 3]),
                ],
                "a ResNet20 for CIFAR",
            ),
            (
                &[
                    ("conv1.weight", &[64, 1, 7, 7]),
                    ("layer1.1.conv1.weight", &[64]),
                    ("layer1.0.conv1.weight", &[64]),
                    ("layer2.1.conv1.weight", &[64]),
                    ("layer3.1.conv1.weight", &[64]),
                    ("layer4.1.conv1.weight", &[64]),
                ],
                "a ResNet18 for images of 1 channels",
            ),
        ] {
            let entries: Vec<_> = (names.iter())
                .map(|(name, shape)| TensorEntry {
                    name: (*name).to_owned(),
                    shape: shape.to_vec(),
                    at: 0,
                })
                .collect();
            assert_eq!(recognise(&entries).as_deref(), Some(expected));
        }
        assert_eq!(recognise(&[]), None);
    }
}
