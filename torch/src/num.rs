//! Conversions between number types that lose something. Each says what.
//!
//! Counts and sides become `f64` with a plain `as`: they are far below 2^53, so nothing is lost.

/// The nearest `f32`.
#[expect(clippy::cast_possible_truncation, reason = "rounding is the purpose")]
pub(crate) fn to_f32(x: f64) -> f32 {
    x as f32
}

/// The integer part.
#[expect(
    clippy::cast_possible_truncation,
    reason = "dropping the fraction is the purpose"
)]
pub(crate) fn to_i64(x: f64) -> i64 {
    x as i64
}
