//! The safe interface of `ranks.cpp` and `exchange.cpp`: stores, groups of processes, and what is under way between them.
//!
//! Stores and groups are never freed, nor what an error has broken off: c10d waits for what is under way when it is
//! destroyed, and the process ends with them.

use std::ffi::{CString, c_char};
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::ptr::{self, NonNull};
use std::time::Duration;

use tch::Tensor;
use torch_sys::C_tensor;

use super::{check, cuda_index};
use crate::{Error, Result};

/// `Store`, `Group`, `Exchange` and `Copies` of the shim, opaque types.
#[repr(C)]
struct RawStore {
    _opaque: [u8; 0],
}

#[repr(C)]
struct RawGroup {
    _opaque: [u8; 0],
}

#[repr(C)]
struct RawExchange {
    _opaque: [u8; 0],
}

#[repr(C)]
struct RawCopies {
    _opaque: [u8; 0],
}

// SAFETY: each signature is the one that the shim defines, with `size_t` as `usize`.
unsafe extern "C" {
    fn tinyres_store_open(
        host: *const c_char,
        port: u16,
        serve: bool,
        timeout_ms: u64,
        prefix: *const c_char,
        out: *mut *mut RawStore,
    ) -> *mut c_char;
    fn tinyres_store_clone(store: *const RawStore, out: *mut *mut RawStore) -> *mut c_char;
    fn tinyres_store_set(
        store: *const RawStore,
        key: *const c_char,
        data: *const u8,
        len: usize,
    ) -> *mut c_char;
    fn tinyres_store_claim(
        store: *const RawStore,
        key: *const c_char,
        data: *const u8,
        len: usize,
        first: *mut bool,
    ) -> *mut c_char;
    fn tinyres_store_check(
        store: *const RawStore,
        key: *const c_char,
        out: *mut bool,
    ) -> *mut c_char;
    fn tinyres_store_get(
        store: *const RawStore,
        key: *const c_char,
        out: *mut *mut u8,
        len: *mut usize,
    ) -> *mut c_char;
    fn tinyres_bytes_free(data: *mut u8);
    fn tinyres_group_open(
        store: *const RawStore,
        name: *const c_char,
        address: *const c_char,
        rank: i32,
        size: i32,
        timeout_ms: u64,
        out: *mut *mut RawGroup,
    ) -> *mut c_char;
    fn tinyres_group_open_cuda(
        store: *const RawStore,
        name: *const c_char,
        device: i8,
        rank: i32,
        size: i32,
        timeout_ms: u64,
        out: *mut *mut RawGroup,
    ) -> *mut c_char;
    fn tinyres_find_nccl() -> *mut c_char;
    fn tinyres_group_sum(group: *mut RawGroup, tensor: *const C_tensor) -> *mut c_char;
    fn tinyres_group_copy(group: *mut RawGroup, tensor: *const C_tensor, from: i32) -> *mut c_char;
    fn tinyres_exchange_begin(
        group: *mut RawGroup,
        params: *const *const C_tensor,
        owners: *const i32,
        count: usize,
        groups: usize,
        out: *mut *mut RawExchange,
    ) -> *mut c_char;
    fn tinyres_exchange_listen(
        exchange: *mut RawExchange,
        leaves: *const *const C_tensor,
        count: usize,
        at: usize,
    ) -> *mut c_char;
    fn tinyres_exchange_heard(
        exchange: *mut RawExchange,
        leaves: *const *const C_tensor,
        count: usize,
        at: usize,
    ) -> *mut c_char;
    fn tinyres_exchange_arrive(exchange: *mut RawExchange, slot: usize) -> *mut c_char;
    fn tinyres_exchange_finish(exchange: *mut RawExchange) -> *mut c_char;
    fn tinyres_exchange_give_up(exchange: *mut RawExchange);
    fn tinyres_copies_begin(
        group: *mut RawGroup,
        weights: *const *const C_tensor,
        owners: *const i32,
        count: usize,
        out: *mut *mut RawCopies,
    ) -> *mut c_char;
    fn tinyres_copies_send(copies: *mut RawCopies, at: usize) -> *mut c_char;
    fn tinyres_copies_finish(copies: *mut RawCopies) -> *mut c_char;
}

fn text(text: &str) -> Result<CString> {
    CString::new(text).map_err(|_| Error::Torch(format!("{text:?} has a zero in it")))
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn int(number: usize) -> Result<i32> {
    i32::try_from(number).map_err(|_| Error::Torch(format!("there is no rank {number}")))
}

/// Keys and values that all ranks see: libtorch's `TCPStore`.
#[derive(Debug)]
pub(crate) struct Store(NonNull<RawStore>);

// SAFETY: c10d's client locks itself for each call, and the value has no ties to the thread that made it.
unsafe impl Send for Store {}

impl Store {
    /// Opens the store at `host` and `port`, which this process serves if `serve`. Its keys begin with `prefix`.
    ///
    /// # Errors
    /// Nobody answers within `timeout`, or the port to be served is taken.
    pub(crate) fn open(
        host: &str,
        port: u16,
        serve: bool,
        timeout: Duration,
        prefix: &str,
    ) -> Result<Self> {
        let (host, prefix, mut out) = (text(host)?, text(prefix)?, ptr::null_mut());
        // SAFETY: both strings end in a zero, and the shim writes one pointer to `out`.
        check(unsafe {
            tinyres_store_open(
                host.as_ptr(),
                port,
                serve,
                millis(timeout),
                prefix.as_ptr(),
                &raw mut out,
            )
        })?;
        Self::made(out)
    }

    fn made(out: *mut RawStore) -> Result<Self> {
        let made = NonNull::new(out).map(Self);
        made.ok_or_else(|| Error::Torch("no store".to_owned()))
    }

    /// Another connection to the same store, for another thread.
    pub(crate) fn share(&self) -> Result<Self> {
        let mut out = ptr::null_mut();
        // SAFETY: the store is live, and the shim writes one pointer to `out`.
        check(unsafe { tinyres_store_clone(self.0.as_ptr(), &raw mut out) })?;
        Self::made(out)
    }

    /// Sets `key` to `value`.
    pub(crate) fn set(&self, key: &str, value: &[u8]) -> Result<()> {
        let key = text(key)?;
        // SAFETY: store and key are live, and `value` has that many bytes, which the shim copies.
        check(unsafe {
            tinyres_store_set(self.0.as_ptr(), key.as_ptr(), value.as_ptr(), value.len())
        })
    }

    /// Sets `key` to `value`, which is not empty, unless it is set. Returns false if another process has set it to
    /// something else.
    pub(crate) fn claim(&self, key: &str, value: &[u8]) -> Result<bool> {
        let (key, mut first) = (text(key)?, false);
        // SAFETY: as in `set`; the shim writes one value to `first`.
        check(unsafe {
            tinyres_store_claim(
                self.0.as_ptr(),
                key.as_ptr(),
                value.as_ptr(),
                value.len(),
                &raw mut first,
            )
        })?;
        Ok(first)
    }

    /// The value of `key`, if it is set.
    pub(crate) fn get(&self, key: &str) -> Result<Option<Vec<u8>>> {
        let (key, mut is_set) = (text(key)?, false);
        // SAFETY: store and key are live, and the shim writes one value to `is_set`.
        check(unsafe { tinyres_store_check(self.0.as_ptr(), key.as_ptr(), &raw mut is_set) })?;
        if !is_set {
            return Ok(None);
        }
        let (mut out, mut len) = (ptr::null_mut(), 0);
        // SAFETY: the shim writes one pointer and one length.
        check(unsafe {
            tinyres_store_get(self.0.as_ptr(), key.as_ptr(), &raw mut out, &raw mut len)
        })?;
        // SAFETY: without an error `out` points to `len` bytes of the shim's, which nobody else frees.
        let value = unsafe { std::slice::from_raw_parts(out, len) }.to_vec();
        // SAFETY: `out` came from the shim, and nothing points into it any more.
        unsafe { tinyres_bytes_free(out) };
        Ok(Some(value))
    }
}

/// Checks that libtorch has the NCCL that [`Group::open_cuda`] takes, if CUDA is loaded.
pub(crate) fn find_nccl() -> Result<()> {
    // SAFETY: looks for two symbols.
    check(unsafe { tinyres_find_nccl() })
}

/// Ranks that compute together: libtorch's `ProcessGroupGloo` for tensors on the CPU, or its `ProcessGroupNCCL` for those on a
/// GPU. All of them call the same functions in the same order.
#[derive(Debug)]
pub(crate) struct Group(NonNull<RawGroup>);

impl Group {
    /// The group `name` of `size` ranks, of which this is number `rank`. Connections are made from `address`, one of this
    /// host's, or by gloo's own choice if it is empty. A call that waits for longer than `timeout` fails.
    pub(crate) fn open(
        store: &Store,
        name: &str,
        address: &str,
        rank: usize,
        size: usize,
        timeout: Duration,
    ) -> Result<Self> {
        let (name, address, mut out) = (text(name)?, text(address)?, ptr::null_mut());
        let (rank, size) = (int(rank)?, int(size)?);
        // SAFETY: the store and both strings are live, and the shim writes one pointer to `out`.
        check(unsafe {
            tinyres_group_open(
                store.0.as_ptr(),
                name.as_ptr(),
                address.as_ptr(),
                rank,
                size,
                millis(timeout),
                &raw mut out,
            )
        })?;
        Self::made(out)
    }

    /// The same for tensors on the CUDA device `device`. Its first sum connects. With libtorch's own watch, a call that waits
    /// for longer than `timeout` ends the process.
    ///
    /// # Errors
    /// libtorch has no NCCL, or finds no GPU.
    pub(crate) fn open_cuda(
        store: &Store,
        name: &str,
        device: usize,
        rank: usize,
        size: usize,
        timeout: Duration,
    ) -> Result<Self> {
        let (name, device, mut out) = (text(name)?, cuda_index(device)?, ptr::null_mut());
        let (rank, size) = (int(rank)?, int(size)?);
        // SAFETY: store and name are live, and the shim writes one pointer to `out`.
        check(unsafe {
            tinyres_group_open_cuda(
                store.0.as_ptr(),
                name.as_ptr(),
                device,
                rank,
                size,
                millis(timeout),
                &raw mut out,
            )
        })?;
        Self::made(out)
    }

    fn made(out: *mut RawGroup) -> Result<Self> {
        let made = NonNull::new(out).map(Self);
        made.ok_or_else(|| Error::Torch("no group".to_owned()))
    }

    /// Makes `tensor` the sum over the ranks, the same bits on each. Exact if all but one have 0 at each place.
    pub(crate) fn sum(&self, tensor: &mut Tensor) -> Result<()> {
        // SAFETY: both are live; the tensor, which the shim writes to, is borrowed mutably. It checks the layout.
        check(unsafe { tinyres_group_sum(self.0.as_ptr(), tensor.as_ptr()) })
    }

    /// Makes `tensor` that of rank `from`.
    pub(crate) fn copy(&self, tensor: &mut Tensor, from: usize) -> Result<()> {
        // SAFETY: as in `sum`.
        check(unsafe { tinyres_group_copy(self.0.as_ptr(), tensor.as_ptr(), int(from)?) })
    }

    /// Begins to add up the gradients of `params` over all ranks, in this `order`. `owners` has the rank that needs the sum of
    /// each; `None` if all do. All ranks give the same parameters and owners in the same order, those first whose gradients
    /// come first.
    pub(crate) fn exchange(
        &self,
        params: &[Tensor],
        owners: &[Option<usize>],
        order: Order,
    ) -> Result<Exchange<'_>> {
        const ALL: i32 = -1;
        assert_eq!(params.len(), owners.len(), "an owner of each sum");
        let owners = owners.iter().map(|owner| owner.map_or(Ok(ALL), int));
        let owners = owners.collect::<Result<Vec<_>>>()?;
        let (params, mut out) = (addresses(params), ptr::null_mut());
        let (in_order, groups) = match order {
            Order::OfGroups(count) => (count, count),
            Order::Any => (0, 1),
        };
        // SAFETY: the group and the tensors are live, and there are as many owners; the shim keeps handles of the tensors.
        check(unsafe {
            tinyres_exchange_begin(
                self.0.as_ptr(),
                params.as_ptr(),
                owners.as_ptr(),
                params.len(),
                in_order,
                &raw mut out,
            )
        })?;
        let raw = NonNull::new(out).ok_or_else(|| Error::Torch("no exchange".to_owned()))?;
        let (count, group) = (params.len(), PhantomData);
        Ok(Exchange {
            raw,
            count,
            groups,
            group,
        })
    }

    /// Begins to receive those of `weights` that other ranks compute: `owners` has the rank of each.
    pub(crate) fn copies(&self, weights: &[Tensor], owners: &[usize]) -> Result<Copies<'_>> {
        assert_eq!(
            weights.len(),
            owners.len(),
            "an owner of each of the weights"
        );
        let owners = owners.iter().map(|&rank| int(rank));
        let owners = owners.collect::<Result<Vec<_>>>()?;
        let (weights, mut out) = (addresses(weights), ptr::null_mut());
        // SAFETY: the group and the tensors are live, and there are as many owners. The shim keeps handles of the tensors,
        // and the caller uses none before `finish` that this rank does not own.
        check(unsafe {
            tinyres_copies_begin(
                self.0.as_ptr(),
                weights.as_ptr(),
                owners.as_ptr(),
                weights.len(),
                &raw mut out,
            )
        })?;
        let raw = NonNull::new(out).ok_or_else(|| Error::Torch("no copies".to_owned()))?;
        let (count, group) = (weights.len(), PhantomData);
        Ok(Copies { raw, count, group })
    }
}

/// The order in which gradients are added up.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Order {
    /// By ranks, and by the groups of each, of which this one has so many: one process with all groups would add them so,
    /// and the sums are the same to the bit.
    OfGroups(usize),
    /// An order that libtorch chooses for the number of ranks. Each of them has one group.
    Any,
}

fn addresses(tensors: &[Tensor]) -> Vec<*const C_tensor> {
    tensors.iter().map(|tensor| tensor.as_ptr()).collect()
}

/// Sums of gradients over all ranks, under way while the gradients are computed. One that is dropped before it is finished
/// is given up, and the group with it.
#[derive(Debug)]
pub(crate) struct Exchange<'a> {
    raw: NonNull<RawExchange>,
    count: usize,
    groups: usize,
    group: PhantomData<&'a Group>,
}

// SAFETY: the shim locks what `during` and `arrive` change, which is all that is called through a reference.
unsafe impl Sync for Exchange<'_> {}

impl Exchange<'_> {
    /// Calls `backward`, and takes the gradients that it computes for `leaves` as those of the group at `at`, each as soon as
    /// it is there. The leaves are views of the parameters, in the same order, and have no gradient afterwards.
    ///
    /// # Errors
    /// Those of `backward`; a leaf gets no gradient.
    pub(crate) fn during(
        &self,
        leaves: &[Tensor],
        at: usize,
        backward: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        assert!(
            leaves.len() == self.count && at < self.groups,
            "the leaves of a group"
        );
        let leaves = addresses(leaves);
        let (raw, leaves, count) = (self.raw.as_ptr(), leaves.as_ptr(), leaves.len());
        // SAFETY: the exchange and the leaves are live until this returns, and with them what the hooks point to, which the
        // second call takes away again.
        let heard = check(unsafe { tinyres_exchange_listen(raw, leaves, count, at) });
        let done = heard.and_then(|()| backward());
        // SAFETY: as above.
        let heard = check(unsafe { tinyres_exchange_heard(raw, leaves, count, at) });
        done.and(heard)
    }

    /// Waits for the sum of the parameter at `slot`, and makes it its gradient. One thread asks for a parameter.
    ///
    /// # Errors
    /// Another rank is gone, or alone has this sum.
    pub(crate) fn arrive(&self, slot: usize) -> Result<()> {
        // SAFETY: the exchange is live. The gradient is a view of the group's own memory, which libtorch counts references
        // to; the shim checks the slot.
        check(unsafe { tinyres_exchange_arrive(self.raw.as_ptr(), slot) })
    }

    /// Waits until all sums are there, and this rank has passed them on.
    ///
    /// # Errors
    /// Another rank is gone.
    pub(crate) fn finish(self) -> Result<()> {
        let exchange = ManuallyDrop::new(self);
        // SAFETY: nobody uses the exchange after this, which frees it.
        check(unsafe { tinyres_exchange_finish(exchange.raw.as_ptr()) })
    }
}

impl Drop for Exchange<'_> {
    fn drop(&mut self) {
        // SAFETY: nobody uses the exchange after this but its own thread, for which the shim keeps it.
        unsafe { tinyres_exchange_give_up(self.raw.as_ptr()) }
    }
}

/// Weights that one rank computes and the others receive, under way.
#[derive(Debug)]
pub(crate) struct Copies<'a> {
    raw: NonNull<RawCopies>,
    count: usize,
    group: PhantomData<&'a Group>,
}

// SAFETY: the shim locks what `send` changes, which is all that is called through a reference.
unsafe impl Sync for Copies<'_> {}

impl Copies<'_> {
    /// Sends the weights at `at`, which this rank has computed, to the others.
    pub(crate) fn send(&self, at: usize) -> Result<()> {
        assert!(at < self.count, "weights {at} of {}", self.count);
        // SAFETY: the copies are live.
        check(unsafe { tinyres_copies_send(self.raw.as_ptr(), at) })
    }

    /// Waits until all weights are there.
    ///
    /// # Errors
    /// Another rank is gone.
    pub(crate) fn finish(self) -> Result<()> {
        // SAFETY: nobody uses the copies after this, which frees them.
        check(unsafe { tinyres_copies_finish(self.raw.as_ptr()) })
    }
}
