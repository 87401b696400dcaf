//! Files of tensors, fed anything: every tensor that is listed is read. Not in `lib.rs`, since it needs the torch crate.

#![allow(dead_code, reason = "each target uses one of them")]

use std::io::{Cursor, Write};

use tinyres_torch::tensor_file::TensorFile;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

/// Any bytes as a file: safetensors, or `torch.save` before PyTorch 1.6.
pub fn tensors(data: &[u8]) -> bool {
    read(data)
}

/// Any bytes as the pickle in a zip of `torch.save`, which has small storages `0` to `3`. The zip's own checksum would
/// refuse any change.
pub fn pth(data: &[u8]) -> bool {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    let storage: Vec<u8> = (0..=255).collect();
    let files = [("data.pkl", data), ("byteorder", b"little")]
        .into_iter()
        .chain(["data/0", "data/1", "data/2", "data/3"].map(|name| (name, &storage[..])));
    for (name, bytes) in files {
        let options = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
        zip.start_file(format!("archive/{name}"), options)
            .expect("a short name");
        zip.write_all(bytes).expect("memory");
    }
    read(&zip.finish().expect("memory").into_inner())
}

fn read(bytes: &[u8]) -> bool {
    let Ok(mut file) = TensorFile::open(bytes) else {
        return false;
    };
    let _ = file.root_class();
    let Ok(groups) = file.groups() else {
        return false;
    };
    let mut taken = false;
    for entry in groups.iter().flat_map(|group| &group.entries) {
        let Ok(data) = file.tensor(entry) else {
            continue;
        };
        assert_eq!(data.shape, entry.shape);
        assert_eq!(data.shape.len(), data.stride.len());
        // The last element is there.
        let last: i64 = (data.shape.iter().zip(&data.stride))
            .map(|(side, stride)| (side - 1) * stride)
            .sum();
        let bits = data.dtype.bitsize() as i64;
        assert!(last < 0 || (last + 1) * bits <= data.bytes.len() as i64 * 8);
        taken = true;
    }
    taken
}
