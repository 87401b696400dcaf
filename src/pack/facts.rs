//! Facts that a decoder learns about an image along with its pixels, whatever its format.

use super::orientation::Orientation;

/// Facts about an image that its file tells.
pub(super) struct Facts {
    /// True if its three channels are equal.
    pub grey: bool,
    /// How the stored image is turned upright.
    pub orientation: Orientation,
    /// A conversion to RGB that a person may want to know of.
    pub conversion: Option<Conversion>,
}

/// A conversion to 8-bit RGB, as Pillow does it, that gives other colours than a person may expect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Conversion {
    /// CMYK by a formula, whatever the file's colour profile says.
    Cmyk,
    /// Grey levels of more than 8 bits, cut off instead of scaled.
    CutOff,
}

impl Conversion {
    pub const ALL: [Self; 2] = [Self::Cmyk, Self::CutOff];

    /// The level that a measured value becomes: cut off at 0 and 255, and without its fraction. 0 for what is not a
    /// number.
    pub fn cut_off(value: f32) -> u8 {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "between 0 and 255; no number becomes 0"
        )]
        let level = value.clamp(0.0, 255.0) as u8;
        level
    }

    /// The conversion in words.
    pub fn text(self) -> &'static str {
        match self {
            Self::Cmyk => "CMYK, converted to RGB without a colour profile",
            Self::CutOff => "grey levels of more than 8 bits, of which those above 255 became 255",
        }
    }
}
