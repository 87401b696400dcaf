//! Facts that a decoder learns about an image along with its pixels, whatever its format.

use super::orientation::Orientation;

/// Facts about an image that its file tells.
pub(super) struct Facts {
    /// True if its three channels are equal.
    pub grey: bool,
    /// How the stored image is turned upright.
    pub orientation: Orientation,
}
