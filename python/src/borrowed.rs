//! Memory of NumPy arrays that the packer's threads read in place: a set of arrays is packed without a copy of them.

use std::sync::Arc;

use numpy::{Element, PyReadonlyArray, ndarray::Dimension};
use pyo3::prelude::*;
use tinyres::source::Lent;

/// Bytes of an array, which lives as long as this.
struct Borrowed {
    bytes: *const [u8],
    _array: Py<PyAny>,
}

#[expect(
    unsafe_code,
    reason = "the bytes are only read, and any thread may drop an object"
)]
// SAFETY: `bytes` is only read, and only as a whole is it given out, behind a shared reference. PyO3 defers the release
// of `_array` until a thread is attached to the interpreter.
unsafe impl Send for Borrowed {}
#[expect(unsafe_code, reason = "as for Send")]
// SAFETY: as above: nothing here writes.
unsafe impl Sync for Borrowed {}

impl AsRef<[u8]> for Borrowed {
    #[expect(
        unsafe_code,
        reason = "the lifetime of NumPy's memory is that of the array"
    )]
    fn as_ref(&self) -> &[u8] {
        // SAFETY: the pointer came from a slice of `_array`, whose memory NumPy keeps where it is while the object
        // lives: it refuses to resize an array that others refer to. The documentation of `tinyres.pack` asks that
        // nobody write to the array meanwhile.
        unsafe { &*self.bytes }
    }
}

/// The bytes of `array`, which is contiguous.
///
/// # Errors
/// A `ValueError` if it is not.
pub(crate) fn lend<D: Dimension>(array: PyReadonlyArray<'_, u8, D>) -> PyResult<Lent>
where
    u8: Element,
{
    let bytes: *const [u8] = array.as_slice()?;
    let array = array.as_any().clone().unbind();
    Ok(Lent(Arc::new(Borrowed {
        bytes,
        _array: array,
    })))
}
