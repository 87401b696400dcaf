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

mod arrays;
mod error;
mod predictions;

pub use arrays::{Features, Logits};
pub use error::{Error, Result};
pub use predictions::{Boxes, Lists, Origin, Predictions};
