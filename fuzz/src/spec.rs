//! A reader of shards as `SPEC.md` has it: no fast path, no number that could overflow. It shares
//! with the crate's own the CRC and the reading of JSON, which are other crates' work, and no more.

use tinyres_format::Metadata;

/// A whole shard: [`read`] has checked every byte.
pub struct Contents<'a> {
    pub images: Vec<&'a [u8]>,
    pub labels: Vec<i64>,
    pub boxes: Vec<[i32; 4]>,
    pub names: Vec<&'a str>,
    pub metadata: Metadata,
}

/// Reads `file`, or says which rule it breaks.
pub fn read(file: &[u8]) -> Result<Contents<'_>, &'static str> {
    must(file.len() >= 4096, "a header page")?;
    let number = |at: usize, size: usize| uint(&file[at..at + size]);
    let zero = |from: usize, to: usize| file[from..to] == [0; 4096][..to - from];
    must(&file[..8] == b"\x89TRS\r\n\x1a\n", "magic")?;
    must(number(8, 4) == 1, "version")?;
    must(number(12, 4) == 0, "flags")?;
    must(number(16, 8) == file.len() as u128, "file_len")?;
    let count = number(24, 8);
    let [channels, height, width] = [32, 36, 40].map(|at| number(at, 4));
    must(channels == 3, "channels")?;
    must((1..=65_535).contains(&height), "height")?;
    must((1..=65_535).contains(&width), "width")?;
    let fixed = [44, 48, 52].map(|at| number(at, 4));
    must(fixed == [0, 16, 7], "dtype, block_images, section_count")?;
    must(zero(56, 64) && zero(232, 4092), "reserved")?;
    must(number(4092, 4) == crc(&file[..4092]), "header_crc")?;

    let image = channels * height * width;
    let (blocks, exact) = (count.div_ceil(16), Some);
    let lens = [
        exact(count * image),
        exact(blocks * 4),
        exact(count * 8),
        exact(count * 16),
        exact((count + 1) * 4),
        None,
        None,
    ];
    let mut end = 4096;
    let mut sections = [&file[..0]; 7];
    for (at, (section, expected)) in sections.iter_mut().zip(lens).enumerate() {
        let entry = 64 + 24 * at;
        let (offset, len) = (number(entry, 8), number(entry + 8, 8));
        must(offset == (end as u128).next_multiple_of(64), "offset")?;
        must(expected.is_none_or(|expected| len == expected), "length")?;
        must(offset + len <= file.len() as u128, "end")?;
        let (start, stop) = (size(offset), size(offset + len));
        must(zero(end, start), "gap")?;
        *section = &file[start..stop];
        let expected = if at == 0 { 0 } else { crc(section) };
        must(number(entry + 16, 4) == expected, "section crc")?;
        must(number(entry + 20, 4) == 0, "reserved of a section")?;
        end = stop;
    }
    must(end == file.len(), "the end of the metadata")?;

    let [images, block_crcs, labels, boxes, offsets, names, metadata] = sections;
    for (block, expected) in images.chunks(16 * size(image)).zip(block_crcs.chunks(4)) {
        must(crc(block) == uint(expected), "block crc")?;
    }
    must(metadata.len() <= 16 << 20, "length of the metadata")?;
    let text = std::str::from_utf8(metadata).map_err(|_| "text")?;
    let metadata: Metadata = serde_json::from_str(text).map_err(|_| "metadata")?;
    must(metadata.shard < metadata.shards, "shard")?;
    must(u128::from(metadata.grey) <= count, "grey")?;

    let labels: Vec<_> = labels
        .as_chunks()
        .0
        .iter()
        .map(|b| i64::from_le_bytes(*b))
        .collect();
    for &label in &labels {
        let known = usize::try_from(label).is_ok_and(|label| label < metadata.classes.len());
        must(label == -1 || known, "label")?;
    }
    let sides: Vec<_> = boxes
        .as_chunks()
        .0
        .iter()
        .map(|b| i32::from_le_bytes(*b))
        .collect();
    let boxes = sides.as_chunks::<4>().0.to_vec();
    for sides in &boxes {
        let [x0, y0, x1, y1] = sides.map(i128::from);
        let (width, height) = (width.cast_signed(), height.cast_signed());
        let inside = 0 <= x0 && x0 <= x1 && x1 < width && 0 <= y0 && y0 <= y1 && y1 < height;
        must(*sides == [-1; 4] || inside, "box")?;
    }
    let ends: Vec<_> = offsets.chunks(4).map(|end| size(uint(end))).collect();
    must(ends[0] == 0, "first name offset")?;
    must(ends.is_sorted(), "name offsets")?;
    must(ends[ends.len() - 1] == names.len(), "last name offset")?;
    let name = |pair: &[usize]| std::str::from_utf8(&names[pair[0]..pair[1]]);
    Ok(Contents {
        images: images.chunks(size(image)).collect(),
        labels,
        boxes,
        names: ends
            .windows(2)
            .map(name)
            .collect::<Result<_, _>>()
            .map_err(|_| "name")?,
        metadata,
    })
}

fn must(kept: bool, rule: &'static str) -> Result<(), &'static str> {
    if kept { Ok(()) } else { Err(rule) }
}

fn uint(bytes: &[u8]) -> u128 {
    bytes
        .iter()
        .rev()
        .fold(0, |number, &byte| number << 8 | u128::from(byte))
}

fn crc(bytes: &[u8]) -> u128 {
    crc32fast::hash(bytes).into()
}

fn size(number: u128) -> usize {
    usize::try_from(number).expect("inside a file that is in memory")
}
