//! Conversions of floating-point numbers that are cut to what fits.

/// The nearest `f32`.
#[expect(
    clippy::cast_possible_truncation,
    reason = "rounds, and becomes infinite"
)]
pub(crate) fn narrow(value: f64) -> f32 {
    value as f32
}

/// The nearest whole number that is not negative; 0 for NaN.
#[expect(
    clippy::cast_possible_truncation,
    reason = "rounded before, and cut to the range"
)]
#[expect(clippy::cast_sign_loss, reason = "not negative")]
pub(crate) fn whole(value: f64) -> usize {
    value.round().max(0.0) as usize
}
