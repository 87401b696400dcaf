//! [`Normalization`] by AVX2, eight pixels at a time. It gives the same bits as the portable loop.

use std::arch::x86_64::{
    __m256, _mm_cvtsi64_si128, _mm_sfence, _mm256_add_ps, _mm256_blend_ps, _mm256_cvtepi32_ps,
    _mm256_cvtepu8_epi32, _mm256_mul_ps, _mm256_permutevar8x32_ps, _mm256_set1_ps,
    _mm256_setr_epi32, _mm256_stream_ps,
};

use super::Normalization;

/// Converts the pixels that fill whole registers and returns their number; 0 on a processor without
/// AVX2. Uses non-temporal stores if `streaming` and if `out` is aligned to 32 bytes.
pub(super) fn apply(
    how: &Normalization,
    planes: [&[u8]; 3],
    out: &mut [f32],
    streaming: bool,
) -> usize {
    if !is_x86_feature_detected!("avx2") {
        return 0;
    }
    #[expect(unsafe_code, reason = "AVX2 is detected at run time")]
    // SAFETY: the processor has AVX2, as was just checked.
    unsafe {
        convert(how, planes, out, streaming);
    }
    planes[0].len() / 8 * 8
}

/// Converts the pixels of one plane that fill whole registers, to numbers of one channel, and returns their number; 0
/// on a processor without AVX2. Uses non-temporal stores like [`apply`].
pub(super) fn apply_plane(
    (scale, offset): (f32, f32),
    plane: &[u8],
    out: &mut [f32],
    streaming: bool,
) -> usize {
    if !is_x86_feature_detected!("avx2") {
        return 0;
    }
    #[expect(unsafe_code, reason = "AVX2 is detected at run time")]
    // SAFETY: the processor has AVX2, as was just checked.
    unsafe {
        convert_plane(scale, offset, plane, out, streaming);
    }
    plane.len() / 8 * 8
}

/// Converts the first `len / 8 * 8` pixels.
#[target_feature(enable = "avx2")]
fn convert(how: &Normalization, planes: [&[u8]; 3], out: &mut [f32], streaming: bool) {
    // A non-temporal store writes 32 aligned bytes. One iteration writes 96 bytes, so if the first store is
    // aligned, all are.
    let stream = streaming && out.as_ptr().cast::<__m256>().is_aligned();
    // Eight pixels make 24 interleaved numbers, three registers. Pixel p of channel c goes to number 3p + c,
    // that is to lane (3p + c) % 8 of register (3p + c) / 8. The lanes of one channel differ for all p, so
    // `places[c]` first moves each pixel to its lane; two blends a register then pick the channels.
    let places = [
        _mm256_setr_epi32(0, 3, 6, 1, 4, 7, 2, 5),
        _mm256_setr_epi32(5, 0, 3, 6, 1, 4, 7, 2),
        _mm256_setr_epi32(2, 5, 0, 3, 6, 1, 4, 7),
    ];
    let scale = how.scale.map(|scale| _mm256_set1_ps(scale));
    let offset = how.offset.map(|offset| _mm256_set1_ps(offset));
    let numbers = |channel: usize, pixels: &[u8; 8]| {
        let numbers = affine(pixels, scale[channel], offset[channel]);
        _mm256_permutevar8x32_ps(numbers, places[channel])
    };
    let [red, green, blue] = planes.map(|plane| plane.as_chunks().0);
    let eights = out.as_chunks_mut::<24>().0.iter_mut();
    for (((out, red), green), blue) in eights.zip(red).zip(green).zip(blue) {
        let (r, g, b) = (numbers(0, red), numbers(1, green), numbers(2, blue));
        let thirds = [
            _mm256_blend_ps::<0b0010_0100>(_mm256_blend_ps::<0b1001_0010>(r, g), b),
            _mm256_blend_ps::<0b0100_1001>(_mm256_blend_ps::<0b0010_0100>(r, g), b),
            _mm256_blend_ps::<0b1001_0010>(_mm256_blend_ps::<0b0100_1001>(r, g), b),
        ];
        for (out, third) in out.as_chunks_mut::<8>().0.iter_mut().zip(thirds) {
            store(third, out, stream);
        }
    }
    if stream {
        _mm_sfence();
    }
}

/// Converts the first `len / 8 * 8` pixels of a plane.
#[target_feature(enable = "avx2")]
fn convert_plane(scale: f32, offset: f32, plane: &[u8], out: &mut [f32], streaming: bool) {
    // One iteration writes 32 bytes, so if the first store is aligned, all are.
    let stream = streaming && out.as_ptr().cast::<__m256>().is_aligned();
    let (scale, offset) = (_mm256_set1_ps(scale), _mm256_set1_ps(offset));
    let eights = out.as_chunks_mut::<8>().0.iter_mut();
    for (out, pixels) in eights.zip(plane.as_chunks::<8>().0) {
        store(affine(pixels, scale, offset), out, stream);
    }
    if stream {
        _mm_sfence();
    }
}

/// Eight pixels as numbers, times `scale`, plus `offset`.
#[target_feature(enable = "avx2")]
fn affine(pixels: &[u8; 8], scale: __m256, offset: __m256) -> __m256 {
    let pixels = _mm_cvtsi64_si128(i64::from_le_bytes(*pixels));
    let pixels = _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(pixels));
    _mm256_add_ps(_mm256_mul_ps(pixels, scale), offset)
}

/// Writes eight numbers, by a non-temporal store if `stream`: then `out` is aligned to 32 bytes, and the caller
/// ends with a fence.
#[target_feature(enable = "avx2")]
fn store(numbers: __m256, out: &mut [f32; 8], stream: bool) {
    if !stream {
        *out = bytemuck::cast(numbers);
        return;
    }
    debug_assert!(out.as_ptr().cast::<__m256>().is_aligned());
    #[expect(unsafe_code, reason = "non-temporal stores have no safe form")]
    // SAFETY: `out` is borrowed mutably, has room for eight numbers and, as both callers have checked, is aligned to
    // 32 bytes. Their fence orders these stores before anything that their caller does next.
    unsafe {
        _mm256_stream_ps(out.as_mut_ptr(), numbers);
    }
}
