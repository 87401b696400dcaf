//! NumPy's `.npy` files of version 1.0 (`numpy.lib.format`), which `np.load(path, mmap_mode="r")` maps.

use tch::{Kind, Tensor};

use crate::Result;
use crate::libtorch::tensors;

/// The file starts with these bytes, and its header ends at a multiple of [`ALIGN`].
const MAGIC: &[u8] = b"\x93NUMPY\x01\x00";
const ALIGN: usize = 64;

/// The file of `tensor`, `f32` or `f16`, of one dimension or more.
pub(crate) fn encode(tensor: &Tensor) -> Result<Vec<u8>> {
    let dtype = match tensor.kind() {
        Kind::Half => "<f2",
        _ => "<f4",
    };
    let mut sides: Vec<_> = tensor.size().iter().map(i64::to_string).collect();
    if let [_] = sides[..] {
        // A comma ends a tuple of one in Python: `(3,)`.
        sides.push(String::new());
    }
    let mut header = format!(
        "{{'descr': '{dtype}', 'fortran_order': False, 'shape': ({}), }}",
        sides.join(", ").trim_end()
    );
    let start = MAGIC.len() + 2;
    let padding = (start + header.len() + 1).next_multiple_of(ALIGN) - (start + header.len() + 1);
    header.push_str(&" ".repeat(padding));
    header.push('\n');
    // A header of some hundred bytes.
    let len = u16::try_from(header.len()).unwrap_or(u16::MAX);
    let data = tensors::bytes(tensor)?;
    Ok([MAGIC, &len.to_le_bytes(), header.as_bytes(), &data].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_those_that_numpy_saves() {
        // np.save(file, np.array([[1, -2, 0.5]], "<f2"))
        let tensor = Tensor::from_slice(&[1.0_f32, -2.0, 0.5]).view([1, 3]);
        let file = encode(&tensor.to_kind(Kind::Half)).unwrap();
        let mut expected =
            b"\x93NUMPY\x01\x00v\x00{'descr': '<f2', 'fortran_order': False, 'shape': (1, 3), }"
                .to_vec();
        expected.resize(127, b' ');
        expected.push(b'\n');
        expected.extend([0x00, 0x3c, 0x00, 0xc0, 0x00, 0x38]);
        assert_eq!(file, expected);
    }
}
