//! Memory of batches that NumPy arrays show without a copy. It belongs to an array as long as that array lives, and
//! then to a later batch.

use std::ptr::NonNull;
use std::slice;
use std::sync::{Arc, Mutex};

use bytemuck::Pod;
use memmap2::MmapMut;
use numpy::ndarray::{ArrayView, Dimension};
use numpy::{Element, PyArray, PyArray1, PyArrayMethods, PyUntypedArrayMethods};
use pyo3::exceptions::{PyMemoryError, PyValueError};
use pyo3::prelude::*;
use tinyres_load::alloc_slot;

/// Slots for batches of one size that no batch uses.
pub(crate) struct Pool {
    /// Bytes of a slot.
    bytes: usize,
    /// Slots kept at most: what is beyond was needed by a caller who held many batches.
    keep: usize,
    /// Never waited for: another thread may have held the lock when this process was made by `fork`.
    free: Mutex<Vec<MmapMut>>,
}

/// Memory for one batch.
pub(crate) struct Slot {
    memory: Option<Memory>,
    pool: Arc<Pool>,
}

enum Memory {
    Own(MmapMut),
    /// Memory of a Python object, for one batch.
    Lent {
        start: NonNull<u8>,
        len: usize,
        owner: Py<PyAny>,
    },
}

#[expect(unsafe_code, reason = "a pointer that is the only one to its memory")]
// SAFETY: `start` points to memory that `owner` keeps, and only the slot accesses it.
unsafe impl Send for Memory {}
#[expect(unsafe_code, reason = "a pointer that is the only one to its memory")]
// SAFETY: the memory is accessed by a mutable reference to the slot alone.
unsafe impl Sync for Memory {}

impl Pool {
    pub(crate) fn new(bytes: usize, keep: usize) -> Arc<Self> {
        Arc::new(Self {
            bytes: bytes.max(1),
            keep,
            free: Mutex::new(Vec::new()),
        })
    }

    /// A slot that was used before, or a new one.
    pub(crate) fn take(self: &Arc<Self>) -> PyResult<Slot> {
        let free = self.free.try_lock().ok().and_then(|mut free| free.pop());
        let memory = free.map_or_else(|| alloc_slot(self.bytes), Ok);
        let memory = memory
            .map_err(|error| PyMemoryError::new_err(format!("no memory for a batch: {error}")))?;
        Ok(Slot {
            memory: Some(Memory::Own(memory)),
            pool: Arc::clone(self),
        })
    }

    /// A slot in the memory of what `alloc(bytes)` returns: a NumPy array of bytes that nobody else uses.
    pub(crate) fn lend(self: &Arc<Self>, py: Python<'_>, alloc: &Py<PyAny>) -> PyResult<Slot> {
        let array = alloc.call1(py, (self.bytes,))?;
        let array = array.bind(py).cast::<PyArray1<u8>>()?;
        let start = NonNull::new(array.data())
            .filter(|_| array.len() >= self.bytes && array.is_c_contiguous());
        let start = start.ok_or_else(|| {
            PyValueError::new_err(format!(
                "memory for a batch has {} bytes, expected {}",
                array.len(),
                self.bytes
            ))
        })?;
        Ok(Slot {
            memory: Some(Memory::Lent {
                start,
                len: self.bytes,
                owner: array.clone().into_any().unbind(),
            }),
            pool: Arc::clone(self),
        })
    }

    fn give_back(&self, memory: MmapMut) {
        if let Ok(mut free) = self.free.try_lock()
            && free.len() < self.keep
        {
            free.push(memory);
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Some(Memory::Own(memory)) = self.memory.take() {
            self.pool.give_back(memory);
        }
    }
}

impl AsMut<[u8]> for Slot {
    fn as_mut(&mut self) -> &mut [u8] {
        match &mut self.memory {
            Some(Memory::Own(memory)) => memory,
            #[expect(unsafe_code, reason = "memory of a Python object")]
            // SAFETY: `lend` has checked that there are so many bytes. `owner` keeps them, and nobody else uses them.
            Some(Memory::Lent { start, len, .. }) => unsafe {
                slice::from_raw_parts_mut(start.as_ptr(), *len)
            },
            None => &mut [],
        }
    }
}

/// Keeps the memory of an array.
#[pyclass(frozen, module = "tinyres._native")]
struct Keeper {
    _slot: Slot,
}

impl Slot {
    /// An array of the first numbers of the slot, writable. The slot is free again when the array and all views of it
    /// have died.
    pub(crate) fn into_array<T: Element + Pod, D: Dimension>(
        mut self,
        py: Python<'_>,
        shape: D,
    ) -> PyResult<Bound<'_, PyArray<T, D>>> {
        let numbers: &mut [T] = bytemuck::cast_slice_mut(self.as_mut());
        if numbers.len() < shape.size() {
            let got = self.as_mut().len();
            return Err(PyValueError::new_err(format!(
                "a batch of {shape:?} numbers does not fit into memory of {got} bytes"
            )));
        }
        let start: *const T = numbers.as_mut_ptr();
        let keeper = match &self.memory {
            Some(Memory::Lent { owner, .. }) => owner.bind(py).clone(),
            _ => Bound::new(py, Keeper { _slot: self })?.into_any(),
        };
        #[expect(unsafe_code, reason = "an array over memory that another object keeps")]
        // SAFETY: `start` points to as many numbers as `shape` has. They stay where they are while `keeper` lives,
        // which the array holds. Nobody else accesses them: the slot was the only one to do so, and is in the keeper,
        // or gone.
        unsafe {
            let view = ArrayView::from_shape_ptr(shape, start);
            Ok(PyArray::borrow_from_array(&view, keeper))
        }
    }
}
