//! `tinyres export`: a trained network as a file of another tool.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, ensure};
use serde::Serialize;
use tinyres::text::Bytes;
use tinyres::ui::Ui;
use tinyres_format::publish;
use tinyres_torch::infer::export::{OPSET, Target, export};
use tinyres_torch::run::Run;
use tinyres_torch::weights::Place;

/// Write a trained network in the format of another tool
///
/// torchscript: a module for torch.jit.load, in Python or C++. Takes RGB images [B, 3, H, W], u8 or floating
/// point from 0 to 1, and normalises them itself. Its parameters have torchvision's names and can be trained
/// further. Its attributes side, class_ids and class_names describe the training set.
///
/// onnx: a model of opset 13 for onnxruntime and others. Takes RGB images, u8 [batch, 3, side, side], and
/// returns logits, f32 [batch, classes]. Normalisation is part of the model. Batch normalisations are folded
/// into the convolutions. The metadata entry `model` is JSON with the classes.
///
/// safetensors: the tensors alone, for torchvision.models.resnet18(num_classes=N).load_state_dict, strictly.
/// The metadata entry `model` is JSON with the classes, and the mean and std to normalise by.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Directory of a run, or a file of weights, .safetensors or .pth; FILE#KEY names one network of several
    #[arg(value_name = "RUN|WEIGHTS")]
    weights: PathBuf,
    /// Format to write
    #[arg(long, value_name = "FORMAT", value_parser = super::name_of::<Target>())]
    to: Target,
    /// File to write or replace [default: next to the weights, with the extension .pt, .onnx or
    /// .torchvision.safetensors]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Classes of weights of another program: a line for each, ID, or ID, a tab and NAME [default: numbers]
    #[arg(long, value_name = "FILE")]
    classes: Option<PathBuf>,
    /// Width and height of the images of weights of another program [default: 64]
    #[arg(long, value_name = "PIXELS", value_parser = clap::value_parser!(u32).range(1..=4096))]
    size: Option<u32>,
}

const EXAMPLES: &str = "\
Examples:
  tinyres export runs/default-1 --to onnx
  tinyres export runs/default-1/best.safetensors --to torchscript -o best.pt
  python3 -c 'import torch; print(torch.jit.load(\"best.pt\").class_names)'";

pub fn run(args: Args, ui: &mut Ui) -> anyhow::Result<ExitCode> {
    super::expect_alone("export")?;
    let weights = Run::weights(&args.weights)?;
    let checkpoint = super::described(&weights, args.classes.as_deref(), args.size, ui)?;
    let weights = Place::parse(&weights).file;
    let default = || weights.with_extension(args.to.extension());
    let output = args.output.unwrap_or_else(default);
    ensure!(
        !same(&output, &weights),
        "{} is the file to export from: choose another --output",
        output.display()
    );
    let file = export(&checkpoint, args.to, ui)?;
    publish::write_output(&output, &file).with_context(|| output.display().to_string())?;
    ui.result(&Exported {
        file: output,
        to: args.to,
        bytes: file.len(),
        side: checkpoint.about.position.size,
        classes: checkpoint.about.classes.len(),
    })?;
    Ok(ExitCode::SUCCESS)
}

/// True if both paths lead to one file.
fn same(a: &Path, b: &Path) -> bool {
    matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b)
}

/// The file that was written.
#[derive(Serialize)]
struct Exported {
    #[serde(serialize_with = "tinyres::text::path")]
    file: PathBuf,
    to: Target,
    bytes: usize,
    /// Width and height of the images that the network was trained on, in pixels.
    side: u32,
    classes: usize,
}

impl fmt::Display for Exported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (side, classes) = (self.side, self.classes);
        write!(f, "{}: {}, ", self.file.display(), Bytes(self.bytes as u64))?;
        match self.to {
            Target::TorchScript => write!(
                f,
                "TorchScript; takes [B, 3, H, W] RGB, u8 or 0..1, trained at {side}x{side}; gives logits [B, {classes}]"
            ),
            Target::Safetensors => write!(
                f,
                "for torchvision.models.resnet18(num_classes={classes}), trained at {side}x{side}"
            ),
            Target::Onnx => write!(
                f,
                "ONNX, opset {OPSET}; takes images u8 [batch, 3, {side}, {side}] RGB, gives logits [batch, {classes}]"
            ),
        }
    }
}
