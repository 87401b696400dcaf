//! Results of training runs: the predictions of a network for each image of a split, analyses of them, pictures and
//! reports. Reads what `tinyres train` and `tinyres eval` write; computes with no network, and prints nothing.
//!
//! ```no_run
//! use std::path::Path;
//! use tinyres_results::Predictions;
//!
//! let predictions = Predictions::read(Path::new("runs/default-1/eval/val.parquet"))?;
//! let mut worst: Vec<usize> = (0..predictions.len()).collect();
//! worst.sort_by(|&a, &b| predictions.loss[b].total_cmp(&predictions.loss[a]));
//! for row in worst.into_iter().take(10) {
//!     println!("{}: {}", predictions.name[row], predictions.loss[row]);
//! }
//! # Ok::<(), tinyres_results::Error>(())
//! ```

mod analysis;
mod arrays;
mod calibration;
mod classes;
mod compare;
mod confusion;
mod draw;
pub mod duplicates;
mod error;
mod html;
mod margins;
mod nearest;
mod num;
mod pca;
pub mod pictures;
mod predictions;
pub mod report;
mod suspects;
mod umap;

pub use analysis::Analysis;
pub use arrays::{Features, Logits};
pub use calibration::{BINS, Bin, Calibration};
pub use classes::{ClassFigures, by_class};
pub use compare::Agreement;
pub use confusion::{Confused, Confusion, MAX_ORDERED};
pub use duplicates::Duplicates;
pub use error::{Error, Result};
pub use margins::areas_under_margin;
pub use pca::Pca;
pub use pictures::Subject;
pub use predictions::{Boxes, Lists, Origin, Predictions};
pub use suspects::{Suspect, suspects};
pub use umap::umap;
