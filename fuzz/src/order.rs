use std::num::NonZeroUsize;

use arbitrary::{Result, Unstructured};
use tinyres_load::{Batches, Rank, shuffled};

/// Any seed, length, batch size and number of ranks: the order is that of `SPEC.md`, section 7, and
/// the ranks' slices join to it.
pub fn order(data: &[u8]) -> bool {
    check(&mut Unstructured::new(data)).is_ok()
}

fn check(u: &mut Unstructured<'_>) -> Result<()> {
    let (seed, epoch) = (u.arbitrary()?, u.arbitrary()?);
    let len = u.int_in_range(0..=300)?;
    let (batch, drop_last) = (u.arbitrary::<NonZeroUsize>()?, u.arbitrary()?);
    let batch = if u.arbitrary()? {
        batch
    } else {
        NonZeroUsize::MIN.saturating_add(batch.get() % 64)
    };
    let count = NonZeroUsize::MIN.saturating_add(u.int_in_range(0..=8)?);

    let order = shuffled(len, seed, epoch);
    assert_eq!(order, twin(len, seed, epoch));
    let mut sorted = order.clone();
    sorted.sort_unstable();
    assert!(sorted.into_iter().eq(0..len));

    let of = |index| Batches::new(order.clone(), batch, drop_last, Rank { index, count });
    let ranks: Vec<_> = (0..count.get()).map(of).collect();
    let mut expected = order.chunks(batch.get());
    if drop_last && order.len() % batch != 0 {
        expected.next_back();
    }
    for rank in &ranks {
        assert_eq!(rank.len(), expected.len());
        assert!(rank.get(rank.len()).is_none() && rank.get(usize::MAX).is_none());
    }
    for (at, global) in expected.enumerate() {
        let slices: Vec<_> = ranks
            .iter()
            .map(|rank| rank.get(at).expect("as many"))
            .collect();
        assert_eq!(slices.concat(), global);
        let lens = || slices.iter().map(|slice| slice.len());
        assert!(lens().max() <= lens().min().map(|least| least + 1));
        assert!(
            ranks
                .iter()
                .zip(&slices)
                .all(|(rank, slice)| slice.len() <= rank.max_len())
        );
    }
    Ok(())
}

/// The order by the rule of `SPEC.md`, in wider numbers.
fn twin(len: u32, seed: u64, epoch: u64) -> Vec<u32> {
    const GAMMA: u128 = 0x9E37_79B9_7F4A_7C15;
    let word = |number: u128| number & u128::from(u64::MAX);
    let mix = |z: u128| {
        let z = word((z ^ (z >> 30)) * 0xBF58_476D_1CE4_E5B9);
        let z = word((z ^ (z >> 27)) * 0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    };
    let absorb = |key: u128, with: u64| mix(word((key ^ u128::from(with)) + GAMMA));
    let key = absorb(absorb(absorb(0, seed), 0), epoch);
    let mut order: Vec<u32> = (0..len).collect();
    for i in 0..order.len() {
        let draw = mix(word(key + word((i as u128 + 1) * GAMMA)));
        let ahead = (draw * (order.len() - i) as u128) >> 64;
        order.swap(i, i + usize::try_from(ahead).expect("below the length"));
    }
    order
}
