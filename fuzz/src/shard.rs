use arbitrary::{Arbitrary, Result, Unstructured};
use tinyres_format::{Part, Shard};

use super::{forge, spec};

/// Any bytes as a shard: as they are, then with the length and the checksums that they should have.
pub fn shard(data: &[u8]) -> bool {
    let plain = examine(data);
    let mut mended = data.to_vec();
    forge::measure(&mut mended);
    forge::mend(&mut mended);
    examine(&mended) || plain
}

/// A small whole shard, then what the bytes have changed in it: before its checksums were
/// computed, or after.
pub fn forged(data: &[u8]) -> bool {
    draw(&mut Unstructured::new(data)).is_ok_and(|file| examine(&file))
}

/// Opens `file` and calls all that a shard offers, next to a reader written from `SPEC.md`: both
/// must take it and see the same, or neither. One more flipped bit must then be found.
fn examine(file: &[u8]) -> bool {
    let opened = Shard::new(file);
    if let Ok(shard) = &opened {
        touch(shard);
    }
    let verified = opened.and_then(|shard| shard.verify().map(|()| shard));
    let (shard, twin) = match (verified, spec::read(file)) {
        (Ok(shard), Ok(twin)) => (shard, twin),
        (Err(error), Err(_)) => {
            assert!(!error.to_string().is_empty());
            return false;
        }
        (Ok(_), Err(rule)) => panic!("accepted against the rule for {rule}"),
        (Err(error), Ok(_)) => panic!("refused a good shard: {error}"),
    };
    assert_eq!(shard.len(), twin.images.len());
    assert_eq!(shard.is_empty(), twin.images.is_empty());
    for (image, &pixels) in twin.images.iter().enumerate() {
        assert_eq!(shard.image(image), Some(pixels));
        assert_eq!(shard.labels()[image].get(), twin.labels[image]);
        assert_eq!(
            shard.boxes()[image].map(|side| side.get()),
            twin.boxes[image]
        );
        assert!(matches!(shard.name(image), Some(Ok(name)) if name == twin.names[image]));
    }
    assert_eq!(shard.metadata(), &twin.metadata);

    let mut damaged = file.to_vec();
    let at = crc32fast::hash(file) as usize % (8 * file.len());
    damaged[at / 8] ^= 1 << (at % 8);
    let found = Shard::new(damaged).and_then(|shard| shard.verify());
    assert!(
        found.is_err(),
        "bit {} of byte {} is not checked",
        at % 8,
        at / 8
    );
    true
}

/// Calls whatever may be called on a shard that is open, but not verified.
fn touch(shard: &Shard<&[u8]>) {
    let len = shard.len();
    let sections: usize = Part::SECTIONS
        .iter()
        .map(|&part| shard.part(part).len())
        .sum();
    assert!(sections + shard.part(Part::Header).len() <= shard.bytes().len());
    assert_eq!(shard.images().len(), len * shard.shape().image_len());
    assert_eq!((shard.labels().len(), shard.boxes().len()), (len, len));
    let past = [len, len + 1, usize::MAX];
    for image in (0..len.min(200)).chain(past) {
        assert_eq!(shard.image(image).is_some(), image < len);
        assert_eq!(shard.name(image).is_some(), image < len);
        assert!(image >= len || Shard::<&[u8]>::block_of(image) < shard.blocks());
    }
    for block in [shard.blocks(), u64::MAX / 16, u64::MAX] {
        assert!(shard.part(Part::Block(block)).is_empty());
        assert!(shard.verify_block(block).is_err());
    }
    let blocks = (0..shard.blocks()).map(|block| shard.part(Part::Block(block)).len());
    assert_eq!(blocks.sum::<usize>(), shard.images().len());
    assert_eq!(shard.digest().to_string().len(), 64);
}

/// A change to the bytes of a shard.
#[derive(Arbitrary)]
pub enum Edit {
    /// A number of the header gets another value.
    Field { word: u8, value: u32 },
    /// A number of the header changes by a little.
    Nudge { word: u8, by: i8 },
    /// A number in a section gets another value.
    Section { section: u8, at: u16, value: u32 },
    /// Any byte changes.
    Byte { at: u16, value: u8 },
    /// The file is cut, or grows by zeros.
    Resize { by: i8 },
}

impl Edit {
    pub fn apply(&self, file: &mut Vec<u8>) {
        let word = |word: u8| usize::from(word) % (forge::FIELDS / 4) * 4;
        match *self {
            Self::Field { word: at, value } => forge::put(file, word(at), &value.to_le_bytes()),
            Self::Nudge { word: at, by } => {
                if let Some(byte) = file.get_mut(word(at)) {
                    *byte = byte.wrapping_add_signed(by);
                }
            }
            Self::Section { section, at, value } => {
                let range = forge::section(file, usize::from(section) % 7).unwrap_or_default();
                if !range.is_empty() {
                    let at = range.start + usize::from(at) % range.len();
                    forge::put(file, at, &value.to_le_bytes());
                }
            }
            Self::Byte { at, value } => forge::put(file, usize::from(at), &[value]),
            Self::Resize { by } => file.resize(file.len().saturating_add_signed(by.into()), 0),
        }
    }
}

/// One time in eight; never when the bytes are used up, so that they end in a whole shard.
fn seldom(u: &mut Unstructured<'_>) -> Result<bool> {
    Ok(u.arbitrary::<u8>()? >= 224)
}

/// Builds the shard that `u` describes.
pub fn draw(u: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    let edits: Vec<Edit> = (0..u.int_in_range(0..=3)?)
        .map(|_| u.arbitrary())
        .collect::<Result<_>>()?;
    let later: Option<Edit> = if seldom(u)? {
        Some(u.arbitrary()?)
    } else {
        None
    };
    let (height, width) = (u.int_in_range(1..=3)?, u.int_in_range(1..=3)?);
    let most = if seldom(u)? { 34 } else { 3 }; // images: a block holds 16
    let count = u.int_in_range(0..=most)?;
    let classes = u.int_in_range(0..=3)?;

    let (mut labels, mut boxes) = (Vec::new(), Vec::new());
    let (mut offsets, mut names) = (vec![0; 4], Vec::new());
    let mut images = vec![0; count * 3 * height as usize * width as usize];
    u.fill_buffer(&mut images)?;
    for _ in 0..count {
        labels.extend(u.int_in_range(-1..=classes - 1i64)?.to_le_bytes());
        let (x1, y1) = (
            u.int_in_range(0..=width - 1)?,
            u.int_in_range(0..=height - 1)?,
        );
        let sides = [u.int_in_range(0..=x1)?, u.int_in_range(0..=y1)?, x1, y1];
        let sides = if seldom(u)? { [u32::MAX; 4] } else { sides };
        boxes.extend(sides.iter().flat_map(|side| side.to_le_bytes()));
        let name = u.int_in_range(0..=3)?.min(u.len());
        names.extend(u.bytes(name)?);
        offsets.extend(u32::try_from(names.len()).unwrap_or_default().to_le_bytes());
    }
    let class = |at| format!(r#"{{"id":"{at}","name":""}}"#);
    let classes: Vec<_> = (0..classes).map(class).collect();
    let metadata = format!(
        r#"{{"creator":"","fingerprint":"{:064}","split":"val","shard":0,"shards":1,"grey":{},"refused":[],"classes":[{}]}}"#,
        0,
        u.int_in_range(0..=count)?,
        classes.join(","),
    );
    let block_crcs = vec![0; 4 * count.div_ceil(16)];
    let sections = [
        &images,
        &block_crcs,
        &labels,
        &boxes,
        &offsets,
        &names,
        metadata.as_bytes(),
    ];
    let mut file = forge::shard(count, [height, width], sections);

    edits.iter().for_each(|edit| edit.apply(&mut file));
    if !seldom(u)? {
        forge::measure(&mut file);
    }
    forge::mend(&mut file);
    later.iter().for_each(|edit| edit.apply(&mut file));
    Ok(file)
}
