//! Shards of any content whose lengths and checksums agree, so that the checks behind these run.

/// Bytes of the header page before its reserved rest.
pub const FIELDS: usize = 232;
const FILE_LEN: usize = 16;
const SECTIONS: std::ops::Range<usize> = 64..FIELDS;
const ENTRY: usize = 24;
const CRC: usize = 16;
const HEADER_CRC: usize = 4092;

/// A file of `count` images whose sections lie one behind the other, as long as they are.
pub fn shard(count: usize, [height, width]: [u32; 2], sections: [&[u8]; 7]) -> Vec<u8> {
    let mut file = vec![0; 4096];
    file[..8].copy_from_slice(b"\x89TRS\r\n\x1a\n");
    put(&mut file, 24, &(count as u64).to_le_bytes());
    for (at, field) in [
        (8, 1),
        (32, 3),
        (36, height),
        (40, width),
        (48, 16),
        (52, 7),
    ] {
        put(&mut file, at, &field.to_le_bytes());
    }
    for (entry, section) in SECTIONS.step_by(ENTRY).zip(sections) {
        file.resize(file.len().next_multiple_of(64), 0);
        let offset = file.len() as u64;
        put(&mut file, entry, &offset.to_le_bytes());
        put(&mut file, entry + 8, &(section.len() as u64).to_le_bytes());
        file.extend(section);
    }
    measure(&mut file);
    mend(&mut file);
    file
}

/// States the true length of the file.
pub fn measure(file: &mut [u8]) {
    let len = file.len() as u64;
    if file.len() >= FIELDS {
        put(file, FILE_LEN, &len.to_le_bytes());
    }
}

/// Makes each checksum good whose bytes and place lie in the file.
pub fn mend(file: &mut [u8]) {
    if file.len() < 4096 {
        return;
    }
    if let (Some(images), Some(crcs)) = (section(file, 0), section(file, 1)) {
        let crcs = crcs.step_by(4);
        let blocks = file[images].chunks(block_len(file).unwrap_or(1).max(1));
        let mended: Vec<_> = blocks.map(crc32fast::hash).zip(crcs).collect();
        for (crc, at) in mended {
            put(file, at, &crc.to_le_bytes());
        }
    }
    for at in 1..7 {
        if let Some(range) = section(file, at) {
            let crc = crc32fast::hash(&file[range]);
            put(file, SECTIONS.start + at * ENTRY + CRC, &crc.to_le_bytes());
        }
    }
    let crc = crc32fast::hash(&file[..HEADER_CRC]);
    put(file, HEADER_CRC, &crc.to_le_bytes());
}

/// Bytes of a block of images, by the header.
pub fn block_len(file: &[u8]) -> Option<usize> {
    [32, 36, 40]
        .into_iter()
        .try_fold(16, |size: usize, at| size.checked_mul(number(file, at, 4)?))
}

/// Overwrites as much of `value` as the file has room for.
pub fn put(file: &mut [u8], at: usize, value: &[u8]) {
    for (byte, &value) in file.iter_mut().skip(at).zip(value) {
        *byte = value;
    }
}

/// Where the table says that section `at` lies, if that is in the file.
pub fn section(file: &[u8], at: usize) -> Option<std::ops::Range<usize>> {
    let entry = SECTIONS.start + at * ENTRY;
    let start = number(file, entry, 8)?;
    let end = start.checked_add(number(file, entry + 8, 8)?)?;
    file.get(start..end).map(|_| start..end)
}

fn number(file: &[u8], at: usize, size: usize) -> Option<usize> {
    let bytes = file.get(at..at + size)?;
    let number = bytes
        .iter()
        .rev()
        .fold(0, |n: u64, &byte| n << 8 | u64::from(byte));
    usize::try_from(number).ok()
}
