//! Decodes images as `tinyres pack` does, without a set: prints a line of JSON for each file that is named on the
//! standard input, with the size and the SHA-256 of its planar RGB bytes, or why it cannot be packed.
//!
//!     ls photos/*.jpg | cargo run --example decode
//!
//! `tools/witness/pillow_own.py` compares this with what Pillow makes of the files.

use std::io::BufRead as _;

use serde_json::json;
use sha2::{Digest as _, Sha256};
use tinyres::pack::{Decoded, Decoder, ImageError};
use tinyres::source::Image;
use tinyres_format::Shape;

/// The planar RGB bytes of the image in `bytes`, and what the decoder says about it.
fn decode(bytes: &[u8]) -> Result<(Decoded, Vec<u8>), ImageError> {
    let mut decoder = Decoder::new(None);
    let image = Image::Encoded(bytes);
    let [width, height] = decoder.size(image)?;
    let shape = Shape {
        channels: 3,
        height,
        width,
    };
    let mut pixels = vec![0; shape.image_len()];
    let decoded = decoder.decode(image, None, shape, &mut pixels)?;
    Ok((decoded, pixels))
}

fn main() -> std::io::Result<()> {
    for name in std::io::stdin().lock().lines() {
        let name = name?;
        let found = match decode(&std::fs::read(&name)?) {
            Ok((Decoded { size, warning, .. }, pixels)) => {
                let digest = Sha256::digest(&pixels);
                let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
                json!({ "file": name, "size": size, "sha256": digest, "warning": warning })
            }
            Err(error) => json!({ "file": name, "error": error.to_string() }),
        };
        println!("{found}");
    }
    Ok(())
}
