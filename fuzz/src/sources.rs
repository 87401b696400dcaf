//! Files that hold many images, fed anything: every image that opening finds is read.

use super::tree::unpacked;

/// Any bytes as a Parquet file.
pub fn parquet(data: &[u8]) -> bool {
    let whole = [b"PAR1", data.get(4..).unwrap_or_default()].concat();
    read_all(&whole)
}

fn read_all(data: &[u8]) -> bool {
    let Some(source) = unpacked(data) else {
        return false;
    };
    let mut reader = source.reader();
    for (_, items) in &source.splits {
        for item in items {
            assert!(
                item.label
                    .is_none_or(|label| (label as usize) < source.classes.len())
            );
            if let Err(error) = reader.read(item) {
                assert!(!error.to_string().is_empty());
            }
        }
    }
    true
}
