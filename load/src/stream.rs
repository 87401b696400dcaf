//! Non-temporal stores: which batches they write, and how they copy an image.

use std::fs;
use std::sync::OnceLock;

/// True if a batch of `bytes` is written by non-temporal stores. One that the caches keep until it is read is not. One that
/// they do not keep is, as an ordinary store first fetches the line that it overwrites.
pub(super) fn is_streamed(bytes: usize) -> bool {
    static LIMIT: OnceLock<usize> = OnceLock::new();
    bytes >= *LIMIT.get_or_init(|| streamed_from(last_cache()))
}

/// Bytes from which on a batch is streamed, for a last cache of so many.
///
/// Some six batches are on their way at a time: at work, ready, and held by who reads them. On a Zen 3 with 32 MiB of cache,
/// two threads made 1.1 times (`u8`) and 1.3 times (`f32`) as many batches of 6.3 MB by non-temporal stores, each batch read
/// back, and 0.8 to 1.2 times as many of 3.1 MB. On a Xeon with much more, non-temporal stores were slower for 12.6 MB, and
/// faster for 18.9 MB.
fn streamed_from(cache: Option<usize>) -> usize {
    const ON_THEIR_WAY: usize = 6;
    const SMALLEST: usize = 4 << 20;
    const LARGEST: usize = 16 << 20;
    cache.map_or(LARGEST, |cache| {
        (cache / ON_THEIR_WAY).clamp(SMALLEST, LARGEST)
    })
}

/// Size of the last cache of the first processor, as Linux has it. `None` elsewhere.
fn last_cache() -> Option<usize> {
    let cache = |index| format!("/sys/devices/system/cpu/cpu0/cache/index{index}/size");
    let sizes = (0..).map_while(|index| fs::read_to_string(cache(index)).ok());
    kibibytes(&sizes.last()?)
}

/// The bytes of a size such as `32768K`.
fn kibibytes(size: &str) -> Option<usize> {
    let number = size.trim_end().strip_suffix('K')?;
    number.parse::<usize>().ok()?.checked_mul(1024)
}

/// Bytes of a non-temporal store of AVX2.
#[cfg(target_arch = "x86_64")]
const WIDTH: usize = 32;

/// True if `out` begins and ends at the bounds of non-temporal stores, as [`copy`] takes it.
#[cfg(target_arch = "x86_64")]
pub(super) fn is_aligned(out: &[u8]) -> bool {
    out.as_ptr().addr().is_multiple_of(WIDTH) && out.len().is_multiple_of(WIDTH)
}

/// Copies `from` to `to`, which [`is_aligned`], by non-temporal stores. Stores of 16 bytes, which every x86-64 has, are a
/// fourteenth slower on a Zen 3.
///
/// # Panics
/// Their lengths differ, or `to` is not aligned.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
pub(super) fn copy(from: &[u8], to: &mut [u8]) {
    use std::arch::x86_64::{__m256i, _mm_sfence, _mm256_loadu_si256, _mm256_stream_si256};
    assert!(is_aligned(to) && from.len() == to.len());
    let to = to.as_chunks_mut::<WIDTH>().0;
    for (from, to) in from.as_chunks::<WIDTH>().0.iter().zip(to) {
        #[expect(unsafe_code, reason = "vector loads and stores take pointers")]
        // SAFETY: both are memory of 32 bytes. That of the store is aligned to 32 bytes, as the first is, and a fence ends
        // the function.
        unsafe {
            let bytes = _mm256_loadu_si256(from.as_ptr().cast::<__m256i>());
            _mm256_stream_si256(to.as_mut_ptr().cast::<__m256i>(), bytes);
        }
    }
    _mm_sfence();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_that_the_last_cache_does_not_keep_are_streamed() {
        const IMAGE: usize = 3 * 64 * 64;
        let zen_3 = streamed_from(kibibytes("32768K\n"));
        assert!((256 * IMAGE..512 * IMAGE).contains(&zen_3));
        // Much cache, an unknown one, and one too small for any batch.
        let xeon = streamed_from(kibibytes("107520K\n"));
        assert!((1024 * IMAGE..1536 * IMAGE).contains(&xeon));
        assert_eq!(streamed_from(None), xeon);
        assert_eq!(streamed_from(Some(1 << 20)), 4 << 20);
        for size in ["", "K", "32M", "-1K"] {
            assert_eq!(kibibytes(size), None);
        }
    }
}
