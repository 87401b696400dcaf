//! Numbers of images in Python's brackets: integers, slices, sequences and arrays of integers or bools.

use numpy::{PyArray1, PyArrayMethods, PyUntypedArray, PyUntypedArrayMethods};
use pyo3::exceptions::{PyIndexError, PyTypeError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBool, PyList, PySlice};

/// Numbers of images that exist.
pub(crate) enum Index {
    One(u32),
    Many(Vec<u32>),
}

/// Reads an index into `len` images as NumPy does along one axis.
pub(crate) fn of(index: &Bound<'_, PyAny>, len: u32) -> PyResult<Index> {
    if let Ok(slice) = index.cast::<PySlice>() {
        return Ok(Index::Many(range(slice, len)?));
    }
    let single = !index.is_instance_of::<PyBool>()
        && !index.is_instance_of::<PyList>()
        && index
            .cast::<PyUntypedArray>()
            .map_or(true, |array| array.ndim() == 0);
    // NumPy's integers, and others that are not `int`; arrays of no dimension are, too.
    if single {
        match index.extract::<i64>() {
            Ok(number) => {
                let found = place(number, len).ok_or_else(|| missing(&number.to_string(), len));
                return found.map(Index::One);
            }
            Err(error) if error.is_instance_of::<PyTypeError>(index.py()) => {}
            // A number that does not fit is not that of an image either.
            Err(_) => return Err(missing(&index.to_string(), len)),
        }
    }
    many(index, len).map(Index::Many)
}

/// The image that a number means: a negative one counts from the end.
fn place(number: i64, len: u32) -> Option<u32> {
    let number = if number < 0 {
        number + i64::from(len)
    } else {
        number
    };
    u32::try_from(number).ok().filter(|&number| number < len)
}

fn missing(number: &str, len: u32) -> PyErr {
    PyIndexError::new_err(format!(
        "image {number} asked for, but there are {len}, counted from 0"
    ))
}

/// The numbers that a slice takes of `len`.
pub(crate) fn range(slice: &Bound<'_, PySlice>, len: u32) -> PyResult<Vec<u32>> {
    let taken = slice.indices(len as isize)?;
    let numbers = (0..taken.slicelength).map(|at| taken.start + at.cast_signed() * taken.step);
    // Cannot fail: Python has clipped them to `len`.
    Ok(numbers
        .filter_map(|number| u32::try_from(number).ok())
        .collect())
}

fn many(index: &Bound<'_, PyAny>, len: u32) -> PyResult<Vec<u32>> {
    if let Ok(numbers) = index.cast::<PyArray1<i64>>() {
        return signed(numbers, len);
    }
    static AS_ARRAY: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let array = AS_ARRAY
        .import(index.py(), "numpy", "asarray")?
        .call1((index,))?;
    let kind: char = array.getattr("dtype")?.getattr("kind")?.extract()?;
    let shape: Vec<usize> = array.getattr("shape")?.extract()?;
    let [count] = shape[..] else {
        return Err(PyIndexError::new_err(format!(
            "an index has the shape {shape:?}, expected one dimension"
        )));
    };
    match kind {
        'b' if count == len as usize => {
            let mask = array.cast_into::<PyArray1<bool>>()?;
            let mask = mask.try_readonly()?;
            let chosen = (0..).zip(mask.as_array()).filter(|&(_, &chosen)| chosen);
            Ok(chosen.map(|(image, _)| image).collect())
        }
        'b' => Err(PyIndexError::new_err(format!(
            "a mask of {count} bools for {len} images"
        ))),
        'i' | 'u' => {
            let wide = array.call_method1("astype", ("int64",))?;
            let wide = wide.cast_into::<PyArray1<i64>>()?;
            // A number of more than 63 bits has become negative, and means no image.
            match (kind == 'u')
                .then(|| negative(&wide))
                .transpose()?
                .flatten()
            {
                Some(number) => Err(missing(&number.cast_unsigned().to_string(), len)),
                None => signed(&wide, len),
            }
        }
        // NumPy takes an empty list for one of floats.
        _ if count == 0 => Ok(Vec::new()),
        _ => Err(PyTypeError::new_err(
            "an index is an integer, a slice, or a sequence or an array of integers or bools",
        )),
    }
}

fn signed(numbers: &Bound<'_, PyArray1<i64>>, len: u32) -> PyResult<Vec<u32>> {
    let numbers = numbers.try_readonly()?;
    let found = numbers
        .as_array()
        .into_iter()
        .map(|&number| place(number, len).ok_or_else(|| missing(&number.to_string(), len)));
    found.collect()
}

/// The first negative number.
fn negative(numbers: &Bound<'_, PyArray1<i64>>) -> PyResult<Option<i64>> {
    let numbers = numbers.try_readonly()?;
    Ok(numbers
        .as_array()
        .into_iter()
        .copied()
        .find(|&number| number < 0))
}
