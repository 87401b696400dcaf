use std::cell::RefCell;

use arbitrary::{Result, Unstructured};
use tinyres_format::transport::Expander;
use tinyres_format::{Part, ZstdShard};
use zstd::bulk::Compressor;

use super::shard::{Edit, draw};
use super::{forge, spec};

/// Any bytes as a shard's transport form; then a small shard, whole or not, compressed, and what
/// the bytes have changed in that.
pub fn transport(data: &[u8]) -> bool {
    expand(data).is_some() || forged(&mut Unstructured::new(data)).unwrap_or(false)
}

fn forged(u: &mut Unstructured<'_>) -> Result<bool> {
    let edits: Vec<Edit> = (0..u.int_in_range(0..=3)?)
        .map(|_| u.arbitrary())
        .collect::<Result<_>>()?;
    let raw = draw(u)?;
    let mut file = compress(&raw);
    // Counted from the end, so that those of the header are of the seek table here.
    file.reverse();
    edits.iter().for_each(|edit| edit.apply(&mut file));
    file.reverse();

    let expanded = expand(&file);
    if let Some(expanded) = &expanded {
        let rule = spec::read(expanded).err();
        assert!(rule.is_none(), "accepted against the rule for {rule:?}");
    } else {
        assert!(
            !edits.is_empty() || spec::read(&raw).is_err(),
            "refused a good shard"
        );
    }
    Ok(expanded.is_some())
}

/// The raw shard, if all of it is whole. Nothing that a shard in this form offers may panic.
fn expand(file: &[u8]) -> Option<Vec<u8>> {
    let found = || {
        let shard = ZstdShard::open(file)?;
        shard.verify_columns()?;
        assert_eq!(shard.inner().compressed_len(), file.len() as u64);
        let mut expander = Expander::new()?;
        assert!(shard.expand_block(shard.blocks(), &mut expander).is_err());
        assert!(shard.expand_block(u64::MAX, &mut expander).is_err());
        let mut raw = shard.part(Part::Header).to_vec();
        for block in 0..shard.blocks() {
            raw.extend(shard.expand_block(block, &mut expander)?);
        }
        raw.extend(shard.part(Part::Tail));
        Ok::<_, tinyres_format::Error>(raw)
    };
    found()
        .map_err(|error| assert!(!error.to_string().is_empty()))
        .ok()
}

thread_local!(static ZSTD: RefCell<Compressor<'static>> =
    RefCell::new(Compressor::new(1).expect("memory")));

/// The transport form of `raw`, by section 9 of `SPEC.md`, as far as its header makes sense.
fn compress(raw: &[u8]) -> Vec<u8> {
    let (header, rest) = raw.split_at(raw.len().min(4096));
    let images = forge::section(raw, 0).map_or(0, |images| images.len());
    let (images, tail) = rest.split_at(images.min(rest.len()));
    let blocks = images.chunks(forge::block_len(raw).unwrap_or(1).clamp(1, 1 << 20));
    let (mut file, mut table) = (Vec::new(), Vec::new());
    for part in [header].into_iter().chain(blocks).chain([tail]) {
        let frame = ZSTD.with_borrow_mut(|zstd| zstd.compress(part).expect("memory"));
        for len in [frame.len(), part.len()] {
            table.extend(u32::try_from(len).expect("small").to_le_bytes());
        }
        file.extend(frame);
    }
    let word = |file: &mut Vec<u8>, word: usize| {
        file.extend(u32::try_from(word).expect("32 bits").to_le_bytes());
    };
    word(&mut file, 0x184D_2A5E);
    word(&mut file, table.len() + 9);
    file.extend(&table);
    word(&mut file, table.len() / 8);
    file.push(0);
    word(&mut file, 0x8F92_EAB1);
    file
}
