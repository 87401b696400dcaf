//! Fingerprint of a set: the SHA-256 of its listing and settings. It does not cover the pixels.

use std::borrow::Cow;
use std::num::NonZeroU32;

use sha2::{Digest as _, Sha256};
use tinyres_format::{Digest, Shape};

use super::Resize;
use crate::source::Source;

/// Fingerprint of the set that `source` is packed to, by the rule in section 6 of the format's
/// `SPEC.md`.
#[must_use]
pub fn fingerprint(
    source: &Source,
    shape: Shape,
    resize: Option<Resize>,
    shard_images: NonZeroU32,
) -> Digest {
    let mut lines = Lines::default();
    lines.add(&["tinyres 1"]);
    let [channels, height, width] = <[u32; 3]>::from(shape).map(|size| size.to_string());
    lines.add(&["shape", &channels, &height, &width]);
    if let Some(resize) = resize {
        let fit = if resize.squash { "squash" } else { "crop" };
        lines.add(&["resize", fit, "triangle"]);
    }
    lines.add(&["shard_images", &shard_images.to_string()]);
    lines.add_listing(source);
    lines.finish()
}

/// Digest of the listing alone: classes, splits, and each image with its name, label and box.
pub(crate) fn listing(source: &Source) -> Digest {
    let mut lines = Lines::default();
    lines.add_listing(source);
    lines.finish()
}

/// Lines of fields separated by tabs. They are hashed 4 KiB at a time: hashing each field takes twice
/// as long.
#[derive(Default)]
struct Lines {
    text: String,
    hash: Sha256,
}

impl Lines {
    fn add(&mut self, fields: &[&str]) {
        for (at, field) in fields.iter().enumerate() {
            if at > 0 {
                self.text.push('\t');
            }
            self.text.push_str(&escape(field));
        }
        self.text.push('\n');
        if self.text.len() >= 4096 {
            self.hash();
        }
    }

    fn add_listing(&mut self, source: &Source) {
        for class in &source.classes {
            self.add(&["class", &class.id, &class.name]);
        }
        for (split, items) in &source.splits {
            self.add(&["split", split.name(), &items.len().to_string()]);
            for item in items {
                let label = item
                    .label
                    .map_or_else(|| "-".to_owned(), |label| label.to_string());
                let [x0, y0, x1, y1] = match item.bbox {
                    Some(sides) => sides.map(|side| side.to_string()),
                    None => [const { String::new() }; 4],
                };
                match item.bbox {
                    Some(_) => self.add(&["image", &item.name, &label, &x0, &y0, &x1, &y1]),
                    None => self.add(&["image", &item.name, &label, "-"]),
                }
            }
        }
    }

    fn finish(mut self) -> Digest {
        self.hash();
        Digest::from(<[u8; 32]>::from(self.hash.finalize()))
    }

    fn hash(&mut self) {
        self.hash.update(self.text.as_bytes());
        self.text.clear();
    }
}

fn escape(field: &str) -> Cow<'_, str> {
    if field.contains(['\\', '\t', '\n']) {
        field
            .replace('\\', "\\\\")
            .replace('\t', "\\t")
            .replace('\n', "\\n")
            .into()
    } else {
        field.into()
    }
}
