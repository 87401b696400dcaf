//! Every kind of damage is found: first with its checksum mended, so that the check behind the
//! checksum runs, then any flipped bit, any cut and any byte too many.

use proptest::prelude::*;
use tinyres_format::{Error, Part, Shard};

const GOLDEN: &[u8] = include_bytes!("golden/train-00001.bin");
const HEADER_CRC: usize = 4092;

/// The golden shard after `change`, with the checksums of header and sections made good again.
fn forged(change: impl FnOnce(&mut Vec<u8>)) -> Result<(), Error> {
    let mut bytes = GOLDEN.to_vec();
    change(&mut bytes);
    for entry in (64..64 + 7 * 24).step_by(24).skip(1) {
        let number = |at: usize| usize::try_from(u64_at(&bytes, at)).unwrap_or(usize::MAX);
        let (offset, len) = (number(entry), number(entry + 8));
        if let Some(section) = offset
            .checked_add(len)
            .and_then(|end| bytes.get(offset..end))
        {
            let crc = crc32fast::hash(section);
            bytes[entry + 16..entry + 20].copy_from_slice(&crc.to_le_bytes());
        }
    }
    seal(&mut bytes);
    Shard::new(bytes)?.verify()
}

fn seal(bytes: &mut [u8]) {
    let crc = crc32fast::hash(&bytes[..HEADER_CRC]);
    bytes[HEADER_CRC..HEADER_CRC + 4].copy_from_slice(&crc.to_le_bytes());
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

/// Where section `index` begins.
fn section(index: usize) -> usize {
    usize::try_from(u64_at(GOLDEN, 64 + 24 * index)).unwrap()
}

macro_rules! assert_error {
    ($change:expr, $pattern:pat $(if $guard:expr)?) => {{
        let result = forged($change);
        assert!(matches!(&result, Err($pattern) $(if $guard)?), "{result:?}");
    }};
}

#[test]
fn forging_nothing_is_no_damage() {
    forged(|_| ()).unwrap();
}

#[test]
fn header_fields() {
    assert_error!(|b| put(b, 0, b"\x89TRS\n\x1a\n\n"), Error::Magic { got, .. } if got[4] == b'\n');
    assert_error!(
        |b| put(b, 8, &[2]),
        Error::Version {
            what: "shard",
            got: 2,
            max: 1
        }
    );
    assert_error!(|b| put(b, 8, &[0]), Error::Version { got: 0, .. });
    assert_error!(
        |b| put(b, 12, &[0, 0, 0, 0x80]),
        Error::Flags {
            unknown: 0x8000_0000
        }
    );
    assert_error!(|b| put(b, 16, &[0]), Error::Length { .. });
    assert_error!(
        |b| put(b, 32, &[1]),
        Error::Field {
            field: "channels",
            got: 1,
            ..
        }
    );
    assert_error!(
        |b| put(b, 36, &[0]),
        Error::Field {
            field: "height",
            got: 0,
            ..
        }
    );
    assert_error!(
        |b| put(b, 40, &[0, 0, 1]),
        Error::Field {
            field: "width",
            got: 65_536,
            ..
        }
    );
    assert_error!(
        |b| put(b, 44, &[1]),
        Error::Field {
            field: "dtype",
            got: 1,
            ..
        }
    );
    assert_error!(
        |b| put(b, 48, &[32]),
        Error::Field {
            field: "block_images",
            got: 32,
            ..
        }
    );
    assert_error!(
        |b| put(b, 52, &[8]),
        Error::Field {
            field: "section_count",
            got: 8,
            ..
        }
    );
    assert_error!(|b| put(b, 63, &[1]), Error::Reserved { offset: 63, got: 1 });
    assert_error!(
        |b| put(b, 232, &[9]),
        Error::Reserved {
            offset: 232,
            got: 9
        }
    );
    assert_error!(|b| put(b, 4091, &[9]), Error::Reserved { offset: 4091, .. });
    assert_error!(
        |b| put(b, 64 + 16, &[1]),
        Error::Field {
            field: "images crc",
            ..
        }
    );
}

#[test]
fn extents() {
    // One image less or more than the sections were written for.
    assert_error!(
        |b| put(b, 24, &[17]),
        Error::Extent {
            part: Part::Images,
            what: "has length",
            ..
        }
    );
    assert_error!(
        |b| put(b, 24, &[19]),
        Error::Extent {
            part: Part::Images,
            ..
        }
    );
    // Counts whose products overflow.
    for count in [u64::MAX, u64::MAX / 30 + 1, 1 << 63, u64::MAX / 8] {
        assert_error!(
            |b| put(b, 24, &count.to_le_bytes()),
            Error::Field { field: "count", .. } | Error::Extent { .. }
        );
    }
    for (index, part) in [
        Part::Images,
        Part::BlockCrcs,
        Part::Labels,
        Part::Boxes,
        Part::NameOffsets,
        Part::Names,
        Part::Metadata,
    ]
    .into_iter()
    .enumerate()
    {
        let entry = 64 + 24 * index;
        let offset = u64_at(GOLDEN, entry);
        // A hole, an overlap, an offset near the end of the address space.
        for moved in [offset + 64, offset - 64, offset + 1, u64::MAX - 63, 0] {
            assert_error!(
                |b| put(b, entry, &moved.to_le_bytes()),
                Error::Extent { part: p, what: "begins at", got, expected } if *p == part && *got == moved && *expected == offset
            );
        }
        let exact = !matches!(part, Part::Names | Part::Metadata);
        let endless = |b: &mut Vec<u8>| put(b, entry + 8, &u64::MAX.to_le_bytes());
        if exact {
            assert_error!(endless, Error::Extent { part: p, what: "has length", .. } if *p == part);
        } else {
            assert_error!(endless, Error::ExtentLimit { part: p, what: "has length", .. } if *p == part);
        }
        assert_error!(|b| put(b, entry + 20, &[1]), Error::Extent { part: p, what: "has reserved bits", .. } if *p == part);
    }
    // A shorter file ends before the metadata does.
    assert_error!(
        |b| {
            let len = u64_at(b, 64 + 24 * 6 + 8) - 1;
            put(b, 64 + 24 * 6 + 8, &len.to_le_bytes());
        },
        Error::Length { .. }
    );
}

#[test]
fn a_section_that_ends_after_the_file_states_its_own_end() {
    let longer = |b: &mut Vec<u8>| put(b, 64 + 24 * 5 + 8, &65_536_u64.to_le_bytes());
    let error = forged(longer).unwrap_err().to_string();
    let (end, len) = (section(5) + 65_536, GOLDEN.len());
    assert_eq!(
        error,
        format!("names ends at {end}, expected at most {len}")
    );
}

#[test]
fn metadata_too_large_for_the_format_states_its_limit() {
    let large = |b: &mut Vec<u8>| put(b, 64 + 24 * 6 + 8, &16_777_217_u64.to_le_bytes());
    assert_eq!(
        forged(large).unwrap_err().to_string(),
        "metadata has length 16777217, expected at most 16777216"
    );
}

/// Holds with and without the cargo feature `transport`.
#[test]
fn a_compressed_shard_is_told_from_a_damaged_one() {
    let compressed = include_bytes!("golden/train-00001.bin.zst");
    assert!(matches!(Shard::new(compressed), Err(Error::Compressed)));
}

#[test]
fn bytes_between_sections() {
    let labels_end = section(2) + 8 * 18;
    assert!(labels_end < section(3));
    assert_error!(|b| b[labels_end] = 1, Error::Reserved { offset, got: 1 } if *offset == labels_end as u64);
}

#[test]
fn columns() {
    assert_error!(
        |b| put(b, section(2) + 8 * 9, &3i64.to_le_bytes()),
        Error::Label {
            image: 9,
            got: 3,
            classes: 3
        }
    );
    assert_error!(
        |b| put(b, section(2), &(-2i64).to_le_bytes()),
        Error::Label {
            image: 0,
            got: -2,
            ..
        }
    );
    for bad in [
        [0, 0, 5, 1],
        [0, 0, 4, 2],
        [3, 0, 2, 1],
        [0, 1, 4, 0],
        [-1, 0, 4, 1],
        [-1, -1, -1, 0],
        [0, 0, i32::MAX, 1],
    ] {
        let bytes: Vec<u8> = bad
            .iter()
            .flat_map(|side: &i32| side.to_le_bytes())
            .collect();
        assert_error!(|b| put(b, section(3) + 16 * 6, &bytes), Error::Box { image: 6, got, .. } if *got == bad);
    }
    let offset = |image: usize| section(4) + 4 * image;
    assert_error!(
        |b| put(b, offset(3), &u32::MAX.to_le_bytes()),
        Error::Name {
            image: 2,
            end: u32::MAX,
            ..
        }
    );
    assert_error!(
        |b| put(b, offset(18), &[0, 0, 0, 0]),
        Error::Name { image: 17, .. }
    );
    assert_error!(
        |b| put(b, offset(0), &[1, 0, 0, 0]),
        Error::Mismatch {
            what: "first name offset",
            got: 1,
            expected: 0,
        }
    );
    // The two bytes of `é` apart.
    assert_error!(
        |b| b[section(5) + 6] = b'x',
        Error::Name {
            image: 0,
            start: 0,
            ..
        }
    );
}

#[test]
fn metadata() {
    let replace = |from: &'static str, to: &'static str| {
        move |b: &mut Vec<u8>| {
            assert_eq!(from.len(), to.len());
            let at = section(6)
                + String::from_utf8_lossy(&GOLDEN[section(6)..])
                    .find(from)
                    .unwrap();
            put(b, at, to.as_bytes());
        }
    };
    let says = |error: &Error, text: &str| error.to_string().contains(text);
    assert_error!(replace("{\"creator", "[\"creator"), Error::Metadata { .. });
    assert_error!(replace("\"shard\":1", "\"shard\":3"), e @ Error::Metadata { .. } if says(e, "shard 3 of 3"));
    assert_error!(
        replace("\"grey\":5 ".trim(), "\"grey\":x"),
        Error::Metadata { .. }
    );
    assert_error!(replace("\"split\":\"train\"", "\"split\":\"tests\""), e @ Error::Metadata { .. } if says(e, "tests"));
    assert_error!(replace("89abcdef", "89ABCDEF"), e @ Error::Metadata { .. } if says(e, "SHA-256"));
    assert_error!(replace("\"fingerprint\"", "\"fingerprant\""), e @ Error::Metadata { .. } if says(e, "fingerprint"));
}

#[test]
fn checksums_name_the_part() {
    let mut bytes = GOLDEN.to_vec();
    bytes[4096 + 16 * 30] ^= 1;
    let shard = Shard::new(&bytes[..]).unwrap();
    shard.verify_columns().unwrap();
    shard.verify_block(0).unwrap();
    assert!(matches!(
        shard.verify_block(1),
        Err(Error::Checksum {
            part: Part::Block(1),
            ..
        })
    ));
    assert_eq!(
        shard.verify_block(2).unwrap_err().to_string(),
        "image block 2 was asked for, but the shard has 2 blocks (0 to 1)"
    );
    assert!(matches!(
        shard.verify(),
        Err(Error::Checksum {
            part: Part::Block(1),
            ..
        })
    ));
}

#[test]
fn any_flipped_bit_is_found() {
    for bit in 0..8 * GOLDEN.len() {
        let mut bytes = GOLDEN.to_vec();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let found = Shard::new(bytes).and_then(|shard| shard.verify());
        assert!(found.is_err(), "bit {bit}");
    }
}

#[test]
fn any_other_length_is_found() {
    for len in 0..GOLDEN.len() {
        assert!(Shard::new(&GOLDEN[..len]).is_err(), "cut to {len}");
    }
    for extra in [1, 64, 4096] {
        let mut bytes = GOLDEN.to_vec();
        bytes.resize(GOLDEN.len() + extra, 0);
        assert!(matches!(Shard::new(bytes), Err(Error::Length { .. })));
    }
}

proptest! {
    /// Whatever the bytes, with the header's checksum right: an error or a shard whose every read is in bounds.
    #[test]
    fn forged_headers_never_panic(changes in prop::collection::vec((0usize..240, any::<u8>()), 1..8)) {
        let mut bytes = GOLDEN.to_vec();
        for (at, value) in changes {
            bytes[at] = value;
        }
        seal(&mut bytes);
        read_all(&bytes);
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..9000), magic: bool) {
        let mut bytes = bytes;
        if magic && bytes.len() >= 4096 {
            put(&mut bytes, 0, &GOLDEN[..64]);
            seal(&mut bytes);
        }
        read_all(&bytes);
    }
}

fn read_all(bytes: &[u8]) {
    let Ok(shard) = Shard::new(bytes) else { return };
    let _ = shard.verify();
    for image in 0..=shard.len() {
        let _ = (shard.image(image), shard.name(image));
    }
    let _ = (shard.labels().len(), shard.boxes().len(), shard.digest());
}
