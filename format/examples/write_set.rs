//! Writes a set of shards: squares of three colours, with their boxes.
//!
//!     cargo run -p tinyres-format --example write_set -- colours
//!
//! `tinyres train colours` learns from it, and the example `read_batches` of tinyres-load reads it.

use std::error::Error;
use std::num::NonZeroU32;
use std::path::Path;

use tinyres_format::{Class, Digest, Manifest, SetOptions, SetWriter, Shape, Split};

/// Width and height of the images, in pixels.
const SIDE: u32 = 32;
/// Width and height of the squares.
const SQUARE: u32 = 12;
const COLOURS: [(&str, [u8; 3]); 3] = [
    ("red", [220, 40, 40]),
    ("green", [40, 200, 40]),
    ("blue", [40, 40, 220]),
];

fn main() -> Result<(), Box<dyn Error>> {
    let dir = std::env::args_os().nth(1).ok_or("usage: write_set DIR")?;
    for split in write(Path::new(&dir))?.splits {
        let (name, shards) = (split.split, split.shards.len());
        println!("{name}: {} images in {shards} shards", split.images);
    }
    Ok(())
}

/// Writes the set to `dir`, which must hold no other set.
pub fn write(dir: &Path) -> Result<Manifest, Box<dyn Error>> {
    let class = |(name, _): (&str, _)| Class {
        id: name.to_owned(),
        name: name.to_owned(),
    };
    let options = SetOptions {
        shape: Shape::rgb(SIDE),
        classes: COLOURS.map(class).to_vec(),
        creator: "write_set".to_owned(),
        // Identifies the content: another content needs another fingerprint.
        fingerprint: Digest::of(b"write_set, version 1"),
        shard_images: NonZeroU32::new(256).ok_or("a shard has images")?,
    };
    let mut set = SetWriter::create(dir, options)?;
    for (split, images) in [(Split::Train, 600), (Split::Val, 60)] {
        for image in 0..images {
            let label = image as usize % COLOURS.len();
            let (x, y) = (image % (SIDE - SQUARE), image / 7 % (SIDE - SQUARE));
            let pixels = draw(COLOURS[label].1, x, y);
            // The box has inclusive corners.
            let corners = [x, y, x + SQUARE - 1, y + SQUARE - 1];
            let bbox = corners.map(u32::cast_signed);
            let name = format!("{split}/{image}");
            set.image(split, &pixels, i64::try_from(label)?, bbox, &name)?;
        }
    }
    Ok(set.finish()?)
}

/// A square of `colour` on black whose top left pixel is (x, y): `u8 [3, SIDE, SIDE]`, channel by channel.
fn draw(colour: [u8; 3], x: u32, y: u32) -> Vec<u8> {
    let mut pixels = Vec::new();
    for value in colour {
        for row in 0..SIDE {
            for column in 0..SIDE {
                let inside = (x..x + SQUARE).contains(&column) && (y..y + SQUARE).contains(&row);
                pixels.push(if inside { value } else { 0 });
            }
        }
    }
    pixels
}
