//! Duplicates among images that were made for it.

mod common;

use common::{SIDE, image};
use tinyres_format::Split;
use tinyres_results::Duplicates;
use tinyres_results::duplicates::{Likeness, Pair, Place};

/// A picture of its own for each seed: smooth waves and fine grain, different in each colour.
#[expect(clippy::cast_possible_truncation, reason = "between 15 and 234")]
fn photo(seed: u32) -> Vec<u8> {
    let wave = |colour: u32, y: u32, x: u32| {
        let phase = f64::from(seed * 7 + colour * 3);
        let across = (f64::from(x) * (0.05 + 0.013 * f64::from(seed % 11)) + phase).sin();
        let down = (f64::from(y) * (0.04 + 0.017 * f64::from(seed % 7)) + 2.0 * phase).cos();
        let grain = f64::from((x * 31 + y * 17 + seed * 101 + colour * 7) * 37 % 29);
        (110.0 + 50.0 * across + 45.0 * down + grain) as u32
    };
    image(wave)
}

fn mirrored(pixels: &[u8]) -> Vec<u8> {
    let rows = pixels.chunks_exact(SIDE as usize);
    rows.flat_map(|row| row.iter().rev().copied()).collect()
}

#[test]
fn copies_near_ones_and_mirrored_ones_are_found_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let mut train: Vec<_> = (0..60).map(|seed| (photo(seed), 0)).collect();
    // Another round of JPEG does the same: every value is off by up to 3.
    let noise = |at: usize, value: u8| {
        value
            .saturating_add(u8::try_from(at * 7919 % 7).unwrap())
            .saturating_sub(3)
    };
    let near = photo(20)
        .into_iter()
        .enumerate()
        .map(|(at, value)| noise(at, value))
        .collect();
    let val = vec![
        (photo(10), 1),
        (near, 0),
        (mirrored(&photo(30)), 0),
        (photo(1000), 0),
        // Plain ones are not alike, though their greys are.
        (image(|colour, _, _| [100, 100, 100][colour as usize]), 0),
        (image(|colour, _, _| [101, 100, 98][colour as usize]), 1),
    ];
    train.push((photo(10), 0));
    let sets = common::set(dir.path(), &[(Split::Train, train), (Split::Val, val)]);
    let found = Duplicates::find(&sets).unwrap();
    assert!(found.complete);
    let place = |set: usize, image: u32| Place { set, image };
    let brief = |pair: &Pair| (pair.a, pair.b, pair.likeness);
    let mut pairs: Vec<_> = found.pairs.iter().map(brief).collect();
    pairs.sort();
    assert_eq!(
        pairs,
        [
            (place(0, 10), place(0, 60), Likeness::Exact),
            (place(0, 10), place(1, 0), Likeness::Exact),
            (place(0, 20), place(1, 1), Likeness::Near),
            (place(0, 30), place(1, 2), Likeness::Mirrored),
        ]
    );
    assert!(found.pairs[..2].iter().all(|pair| pair.difference == 0.0));
}
