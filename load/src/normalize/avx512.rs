//! [`Normalization`] by AVX-512, sixteen pixels at a time: a non-temporal store then writes a whole line of the caches.
//! It gives the same bits as the portable loop.

use std::arch::x86_64::{
    __m512, __m512i, _mm_sfence, _mm512_add_ps, _mm512_cvtepi32_ps, _mm512_cvtepu8_epi32,
    _mm512_mask_permutexvar_ps, _mm512_mul_ps, _mm512_permutex2var_ps, _mm512_set1_ps,
    _mm512_stream_ps,
};

use super::Normalization;

/// Pixels of a register.
const PIXELS: usize = 16;

/// Converts the pixels that fill whole registers and returns their number; 0 on a processor without AVX-512. Uses
/// non-temporal stores if `streaming` and if `out` is aligned to 64 bytes.
pub(super) fn apply(
    how: &Normalization,
    planes: [&[u8]; 3],
    out: &mut [f32],
    streaming: bool,
) -> usize {
    if !is_x86_feature_detected!("avx512f") {
        return 0;
    }
    #[expect(unsafe_code, reason = "AVX-512 is detected at run time")]
    // SAFETY: the processor has AVX-512, as was just checked.
    unsafe {
        convert(how, planes, out, streaming);
    }
    planes[0].len() / PIXELS * PIXELS
}

/// Converts the pixels of one plane that fill whole registers, to numbers of one channel, and returns their number; 0
/// on a processor without AVX-512. Uses non-temporal stores like [`apply`].
pub(super) fn apply_plane(
    (scale, offset): (f32, f32),
    plane: &[u8],
    out: &mut [f32],
    streaming: bool,
) -> usize {
    if !is_x86_feature_detected!("avx512f") {
        return 0;
    }
    #[expect(unsafe_code, reason = "AVX-512 is detected at run time")]
    // SAFETY: the processor has AVX-512, as was just checked.
    unsafe {
        convert_plane(scale, offset, plane, out, streaming);
    }
    plane.len() / PIXELS * PIXELS
}

/// A third of the 48 numbers that sixteen pixels make, of which number n is channel n % 3 of pixel n / 3.
struct Third {
    /// Lanes of red and, from 16 on, of green.
    red_green: [i32; PIXELS],
    /// Lanes of blue, for those numbers that `is_blue` has a bit for.
    blue: [i32; PIXELS],
    is_blue: u16,
}

const THIRDS: [Third; 3] = [third(0), third(1), third(2)];

const fn third(place: i32) -> Third {
    let mut third = Third {
        red_green: [0; PIXELS],
        blue: [0; PIXELS],
        is_blue: 0,
    };
    let mut number = 16 * place;
    // A constant function has no `for`.
    let mut lane = 0;
    while lane < PIXELS {
        let pixel = number / 3;
        match number % 3 {
            0 => third.red_green[lane] = pixel,
            1 => third.red_green[lane] = 16 + pixel,
            _ => {
                third.blue[lane] = pixel;
                third.is_blue |= 1 << lane;
            }
        }
        number += 1;
        lane += 1;
    }
    third
}

/// Converts the first `len / 16 * 16` pixels.
#[target_feature(enable = "avx512f")]
fn convert(how: &Normalization, planes: [&[u8]; 3], out: &mut [f32], streaming: bool) {
    // One iteration writes 192 bytes, so if the first store is aligned, all are.
    let stream = streaming && out.as_ptr().cast::<__m512>().is_aligned();
    let scale = how.scale.map(|scale| _mm512_set1_ps(scale));
    let offset = how.offset.map(|offset| _mm512_set1_ps(offset));
    let places = THIRDS.map(|third| {
        let lanes: [__m512i; 2] = [third.red_green, third.blue].map(bytemuck::cast);
        (lanes, third.is_blue)
    });
    let [red, green, blue] = planes.map(|plane| plane.as_chunks::<PIXELS>().0);
    let blocks = out.as_chunks_mut::<{ 3 * PIXELS }>().0.iter_mut();
    for (((out, red), green), blue) in blocks.zip(red).zip(green).zip(blue) {
        let r = affine(red, scale[0], offset[0]);
        let g = affine(green, scale[1], offset[1]);
        let b = affine(blue, scale[2], offset[2]);
        let thirds = out.as_chunks_mut::<PIXELS>().0.iter_mut();
        for (out, ([red_green, blue], is_blue)) in thirds.zip(places) {
            let numbers = _mm512_permutex2var_ps(r, red_green, g);
            let numbers = _mm512_mask_permutexvar_ps(numbers, is_blue, blue, b);
            store(numbers, out, stream);
        }
    }
    if stream {
        _mm_sfence();
    }
}

/// Converts the first `len / 16 * 16` pixels of a plane.
#[target_feature(enable = "avx512f")]
fn convert_plane(scale: f32, offset: f32, plane: &[u8], out: &mut [f32], streaming: bool) {
    // One iteration writes 64 bytes, so if the first store is aligned, all are.
    let stream = streaming && out.as_ptr().cast::<__m512>().is_aligned();
    let (scale, offset) = (_mm512_set1_ps(scale), _mm512_set1_ps(offset));
    let blocks = out.as_chunks_mut::<PIXELS>().0.iter_mut();
    for (out, pixels) in blocks.zip(plane.as_chunks::<PIXELS>().0) {
        store(affine(pixels, scale, offset), out, stream);
    }
    if stream {
        _mm_sfence();
    }
}

/// Sixteen pixels as numbers, times `scale`, plus `offset`.
#[target_feature(enable = "avx512f")]
fn affine(pixels: &[u8; PIXELS], scale: __m512, offset: __m512) -> __m512 {
    let pixels = _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(bytemuck::cast(*pixels)));
    _mm512_add_ps(_mm512_mul_ps(pixels, scale), offset)
}

/// Writes sixteen numbers, by a non-temporal store if `stream`: then `out` is aligned to 64 bytes, and the caller ends
/// with a fence.
#[target_feature(enable = "avx512f")]
fn store(numbers: __m512, out: &mut [f32; PIXELS], stream: bool) {
    if !stream {
        *out = bytemuck::cast(numbers);
        return;
    }
    debug_assert!(out.as_ptr().cast::<__m512>().is_aligned());
    #[expect(unsafe_code, reason = "non-temporal stores have no safe form")]
    // SAFETY: `out` is borrowed mutably, has room for sixteen numbers and, as both callers have checked, is aligned to
    // 64 bytes. Their fence orders these stores before anything that their caller does next.
    unsafe {
        _mm512_stream_ps(out.as_mut_ptr(), numbers);
    }
}
