//! The safe interface of `script.cpp`: builds a TorchScript module and gives its file. It does not run modules.

use std::ffi::{CString, c_char};
use std::ptr;

use tch::Tensor;
use torch_sys::C_tensor;

use super::check;
use crate::{Error, Result};

/// `torch::jit::Module`, an opaque type.
#[repr(C)]
struct Module {
    _opaque: [u8; 0],
}

// SAFETY: each signature is the one that `script.cpp` defines, with `size_t` as `usize`.
unsafe extern "C" {
    fn tinyres_script_new(name: *const c_char, out: *mut *mut Module) -> *mut c_char;
    fn tinyres_script_free(module: *mut Module);
    fn tinyres_script_tensor(
        module: *mut Module,
        path: *const c_char,
        tensor: *const C_tensor,
        parameter: bool,
    ) -> *mut c_char;
    fn tinyres_script_int(module: *mut Module, name: *const c_char, value: i64) -> *mut c_char;
    fn tinyres_script_strings(
        module: *mut Module,
        name: *const c_char,
        texts: *const *const c_char,
        count: usize,
    ) -> *mut c_char;
    fn tinyres_script_save(
        module: *mut Module,
        code: *const c_char,
        out: *mut *mut C_tensor,
    ) -> *mut c_char;
}

/// A TorchScript module under construction: add tensors and attributes, then the code that uses them.
pub(crate) struct Script(*mut Module);

impl Script {
    /// An empty module of the class `name`.
    pub(crate) fn new(name: &str) -> Result<Self> {
        let (name, mut module) = (text(name)?, ptr::null_mut());
        // SAFETY: `name` ends in a zero, and the shim writes one pointer to `module`.
        check(unsafe { tinyres_script_new(name.as_ptr(), &raw mut module) })?;
        Ok(Self(module))
    }

    /// Adds a handle to `tensor` under a path such as `layer1.0.conv1.weight`, as a parameter or a buffer.
    /// Submodules on the path are created.
    pub(crate) fn tensor(&mut self, path: &str, tensor: &Tensor, parameter: bool) -> Result<()> {
        let path = text(path)?;
        // SAFETY: the module is live until `self` is dropped, `tensor` is live during the call and then
        // reference counted by the module, and `path` ends in a zero.
        check(unsafe { tinyres_script_tensor(self.0, path.as_ptr(), tensor.as_ptr(), parameter) })
    }

    /// Adds an integer attribute.
    pub(crate) fn int(&mut self, name: &str, value: i64) -> Result<()> {
        let name = text(name)?;
        // SAFETY: the module is live, and `name` ends in a zero.
        check(unsafe { tinyres_script_int(self.0, name.as_ptr(), value) })
    }

    /// Adds an attribute that is a list of strings.
    pub(crate) fn strings<'a>(
        &mut self,
        name: &str,
        texts: impl Iterator<Item = &'a str>,
    ) -> Result<()> {
        let name = text(name)?;
        let texts = texts.map(text).collect::<Result<Vec<_>>>()?;
        let addresses: Vec<_> = texts.iter().map(|text| text.as_ptr()).collect();
        // SAFETY: the module is live. `addresses` holds `count` strings that end in a zero and outlive the
        // call; the shim copies them.
        check(unsafe {
            tinyres_script_strings(self.0, name.as_ptr(), addresses.as_ptr(), addresses.len())
        })
    }

    /// Compiles `code`, the source of the module's methods, and returns the file for `torch.jit.load`.
    pub(crate) fn save(self, code: &str) -> Result<Vec<u8>> {
        let (code, mut out) = (text(code)?, ptr::null_mut());
        // SAFETY: the module is live, `code` ends in a zero, and the shim writes one pointer to `out`.
        check(unsafe { tinyres_script_save(self.0, code.as_ptr(), &raw mut out) })?;
        // SAFETY: without an error `out` is an `at::Tensor` from `new`, ours alone, as `tch` makes them.
        let bytes = unsafe { Tensor::from_ptr(out) };
        Ok(Vec::<u8>::try_from(bytes)?)
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        // SAFETY: the module came from `new` in the shim, and nobody else frees it.
        unsafe { tinyres_script_free(self.0) }
    }
}

fn text(text: &str) -> Result<CString> {
    CString::new(text).map_err(|_| Error::Torch(format!("a zero byte in {text:?}")))
}
