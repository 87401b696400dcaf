//! Batches of an epoch for Python. `tinyres/loader.py` decides which epoch comes and from which batch on; this module
//! gathers the batches ahead and makes arrays of them.

use std::num::NonZeroUsize;
use std::process;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::available_parallelism;
use std::time::Duration;

use numpy::IntoPyArray;
use numpy::ndarray::{Array2, Ix4};
use once_cell::race::OnceBox;
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyTuple;
use tinyres_load::{
    Batch, Batches as Cut, Dataset as Loaded, Error, FlipShift, Form, Layout, Normalization,
    Prefetch, Rank, shuffled,
};

use crate::dataset::Dataset;
use crate::error;
use crate::faults;
use crate::memory::{Pool, Slot};

/// Threads that gather by default, at most: two copy as fast as most memories let them.
const THREADS: usize = 4;
/// How long the interpreter waits for a batch before it looks whether Ctrl-C was pressed.
const PATIENCE: Duration = Duration::from_millis(50);

/// A part of a batch.
#[derive(Clone, Copy)]
enum Field {
    Image,
    Label,
    Box,
    Index,
}

/// Settings of the batches of a split.
#[derive(Clone)]
struct Settings {
    data: Arc<Loaded>,
    /// Images of a batch, over all ranks.
    batch: NonZeroUsize,
    drop_last: bool,
    rank: Rank,
    shuffle: bool,
    seed: u64,
    /// `None` for `u8`.
    normalization: Option<Normalization>,
    layout: Layout,
    flip: bool,
    shift: u32,
    threads: usize,
    fields: Vec<Field>,
}

/// Batches of a split, an epoch at a time. `tinyres.Loader` has the documentation.
#[pyclass(frozen, module = "tinyres._native")]
pub(crate) struct Loader {
    settings: Settings,
    pool: Arc<Pool>,
    /// Gives the memory of each batch, if that of the pool will not do.
    alloc: Option<Py<PyAny>>,
    /// The labels of all images, side by side. In the shards, most of those of a batch are a miss of all caches each.
    labels: Arc<OnceBox<Vec<i64>>>,
}

#[pymethods]
impl Loader {
    #[new]
    #[pyo3(signature = (dataset, batch, *, drop_last, rank, world_size, shuffle, seed, normalize, channels_last, flip, shift,
        threads, fields, alloc))]
    #[expect(clippy::too_many_arguments, reason = "keyword arguments of Python")]
    fn new(
        dataset: &Dataset,
        batch: usize,
        drop_last: bool,
        rank: usize,
        world_size: usize,
        shuffle: bool,
        seed: u64,
        normalize: Option<([f64; 3], [f64; 3])>,
        channels_last: bool,
        flip: bool,
        shift: u32,
        threads: Option<usize>,
        fields: Vec<String>,
        alloc: Option<Py<PyAny>>,
    ) -> PyResult<Self> {
        let nonzero =
            |n| NonZeroUsize::new(n).ok_or_else(|| PyValueError::new_err("a number is 0"));
        let count = nonzero(world_size)?;
        let data = Arc::clone(dataset.data());
        let shape = data.shape();
        let side = shape.height.min(shape.width);
        if shift >= side {
            return Err(error::load(Error::Shift { shift, side }));
        }
        let fields = fields.iter().map(|name| match name.as_str() {
            "image" => Ok(Field::Image),
            "label" => Ok(Field::Label),
            "box" => Ok(Field::Box),
            "index" => Ok(Field::Index),
            _ => Err(PyValueError::new_err(format!(
                "field is {name:?}, expected image, label, box or index"
            ))),
        });
        let cores = || {
            available_parallelism()
                .map_or(1, NonZeroUsize::get)
                .min(THREADS)
        };
        let batch = batch
            .checked_mul(world_size)
            .ok_or_else(|| PyValueError::new_err("a batch is too large"))?;
        let mut settings = Settings {
            batch: nonzero(batch)?,
            drop_last,
            rank: Rank { index: rank, count },
            shuffle,
            seed,
            normalization: normalize.map(|(mean, std)| Normalization::new(mean, std)),
            layout: if channels_last {
                Layout::ChannelsLast
            } else {
                Layout::ChannelsFirst
            },
            flip,
            shift,
            threads: threads.unwrap_or_else(cores),
            fields: fields.collect::<PyResult<_>>()?,
            data,
        };
        let cut = settings.cut((0..settings.data.len()).collect());
        settings.threads = settings.threads.clamp(1, cut.len().max(1));
        let largest = if settings.pixels() { cut.max_len() } else { 0 };
        let bytes = largest
            * shape.image_len()
            * if settings.normalization.is_some() {
                4
            } else {
                1
            };
        Ok(Self {
            // Enough for an epoch at work and a caller who holds a batch or two.
            pool: Pool::new(bytes, settings.ahead() + 2),
            settings,
            alloc,
            labels: Arc::default(),
        })
    }

    /// Starts epoch number `epoch` at batch `first`.
    fn begin(&self, py: Python<'_>, epoch: u64, first: usize) -> PyResult<Batches> {
        let settings = self.settings.clone();
        let (len, seed) = (settings.data.len(), settings.seed);
        let order = py.detach(|| {
            if settings.shuffle {
                shuffled(len, seed, epoch)
            } else {
                (0..len).collect()
            }
        });
        let moves = FlipShift::new(settings.flip, settings.shift, seed, epoch);
        let form = Form {
            layout: settings.layout,
            moves: (settings.flip || settings.shift > 0).then_some(moves),
        };
        let (data, normalization) = (Arc::clone(&settings.data), settings.normalization);
        let wanted = settings.pixels();
        let fill = move |images: &[u32], slot: &mut Slot| {
            if !wanted {
                return Ok(());
            }
            let bytes = images.len() * data.shape().image_len();
            match &normalization {
                None => data.gather_in(images, &form, &mut slot.as_mut()[..bytes]),
                Some(normalization) => {
                    let numbers: &mut [f32] = bytemuck::cast_slice_mut(slot.as_mut());
                    data.gather_f32_in(images, &form, normalization, &mut numbers[..bytes])
                }
            }
        };
        let slots = (0..settings.ahead()).map(|_| self.slot(py));
        let slots = slots.collect::<PyResult<Vec<_>>>()?;
        let cut = Arc::new(settings.cut(order));
        let prefetch =
            Prefetch::with(fill, cut, first, slots, settings.threads).map_err(error::load)?;
        Ok(Batches {
            loader: Self {
                settings,
                pool: Arc::clone(&self.pool),
                alloc: self.alloc.as_ref().map(|alloc| alloc.clone_ref(py)),
                labels: Arc::clone(&self.labels),
            },
            moves: form.moves,
            prefetch: Mutex::new(Some(prefetch)),
            place: Arc::new(Place {
                next: AtomicUsize::new(first),
                ended: AtomicBool::new(false),
            }),
            process: process::id(),
        })
    }
}

impl Settings {
    fn cut(&self, order: Vec<u32>) -> Cut {
        Cut::new(order, self.batch, self.drop_last, self.rank)
    }

    /// True if the pixels are wanted.
    fn pixels(&self) -> bool {
        self.fields
            .iter()
            .any(|field| matches!(field, Field::Image))
    }

    /// Shape of the pixels of so many images.
    fn shape(&self, images: usize) -> Ix4 {
        let shape = self.data.shape();
        let [c, h, w] = [shape.channels, shape.height, shape.width].map(|side| side as usize);
        match self.layout {
            Layout::ChannelsFirst => Ix4(images, c, h, w),
            Layout::ChannelsLast => Ix4(images, h, w, c),
        }
    }

    /// Batches that are gathered before the caller asks for them: one for each thread at work, and two that are ready.
    fn ahead(&self) -> usize {
        self.threads + 2
    }
}

impl Loader {
    fn slot(&self, py: Python<'_>) -> PyResult<Slot> {
        match &self.alloc {
            Some(alloc) => self.pool.lend(py, alloc),
            None => self.pool.take(),
        }
    }

    fn labels(&self, py: Python<'_>) -> PyResult<&[i64]> {
        if let Some(labels) = self.labels.get() {
            return Ok(labels);
        }
        let data = &self.settings.data;
        let labels = faults::settle(data, py.detach(|| data.labels()))?;
        // Those of another thread, if it was first.
        Ok(self.labels.get_or_init(|| Box::new(labels)))
    }
}

/// The position of an epoch.
struct Place {
    /// Number of the next batch.
    next: AtomicUsize,
    ended: AtomicBool,
}

/// The position of an epoch. It does not keep its threads.
#[pyclass(frozen, module = "tinyres._native")]
pub(crate) struct Progress(Arc<Place>);

#[pymethods]
impl Progress {
    /// Number of the next batch.
    #[getter]
    fn batch(&self) -> usize {
        self.0.next.load(Ordering::Relaxed)
    }

    /// True once the epoch has said that no batch is left, or has failed.
    #[getter]
    fn ended(&self) -> bool {
        self.0.ended.load(Ordering::Relaxed)
    }
}

/// Iterator over the batches of an epoch.
#[pyclass(frozen, module = "tinyres._native")]
pub(crate) struct Batches {
    loader: Loader,
    moves: Option<FlipShift>,
    /// `None` once the epoch has ended. Waited for without the interpreter's lock.
    prefetch: Mutex<Option<Prefetch<Slot>>>,
    place: Arc<Place>,
    /// The process that the threads belong to.
    process: u32,
}

#[pymethods]
impl Batches {
    /// The position of the epoch.
    #[getter]
    fn progress(&self) -> Progress {
        Progress(Arc::clone(&self.place))
    }

    fn __iter__(this: PyRef<'_, Self>) -> PyRef<'_, Self> {
        this
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyTuple>>> {
        // Before the lock, which a thread of the parent may have held when this process was made.
        if process::id() != self.process {
            return Err(PyRuntimeError::new_err(
                "this epoch was begun in another process, which made this one by fork: begin one here, by iter(loader)",
            ));
        }
        // Each batch takes a slot with it.
        let mut fresh = Some(self.loader.slot(py)?);
        loop {
            match py.detach(|| self.poll(&mut fresh)) {
                Poll::Batch(batch) => {
                    faults::settle(&self.loader.settings.data, Ok(()))?;
                    return self.arrays(py, batch).map(Some);
                }
                Poll::End => return Ok(None),
                Poll::Failed(failed) => {
                    return faults::settle(&self.loader.settings.data, Err(failed));
                }
                Poll::NotYet => {}
            }
            py.check_signals()?;
        }
    }
}

/// Outcome of waiting for a batch for a while.
enum Poll {
    Batch(Batch<Slot>),
    End,
    Failed(Error),
    NotYet,
}

impl Batches {
    /// Waits for the next batch for a while, and replaces its slot by `fresh`.
    fn poll(&self, fresh: &mut Option<Slot>) -> Poll {
        let mut prefetch = self.prefetch.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(running) = &mut *prefetch else {
            return Poll::End;
        };
        // Before the wait: it is the slot that was freed last, of which most is in the caches. But not where that of another
        // wait is there, which Ctrl-C ended, or which another thread of Python still waits for.
        if running.slots() <= self.loader.settings.ahead()
            && let Some(fresh) = fresh.take()
        {
            running.give_back(fresh);
        }
        if !running.wait(PATIENCE) {
            return Poll::NotYet;
        }
        match running.next_batch() {
            Some(Ok(batch)) => {
                if let Some(fresh) = fresh.take() {
                    running.give_back(fresh);
                }
                self.place.next.store(batch.index + 1, Ordering::Relaxed);
                Poll::Batch(batch)
            }
            Some(Err(failed)) => {
                *prefetch = None;
                Poll::Failed(failed)
            }
            None => {
                *prefetch = None;
                self.place.ended.store(true, Ordering::Relaxed);
                Poll::End
            }
        }
    }

    /// The fields of a batch as arrays.
    fn arrays<'py>(&self, py: Python<'py>, batch: Batch<Slot>) -> PyResult<Bound<'py, PyTuple>> {
        let Batch { images, slot, .. } = batch;
        let settings = &self.loader.settings;
        let data = &settings.data;
        let mut slot = Some(slot);
        let mut fields = Vec::with_capacity(settings.fields.len());
        for field in &settings.fields {
            fields.push(match field {
                Field::Image => {
                    let slot = slot
                        .take()
                        .ok_or_else(|| PyValueError::new_err("two fields are image"))?;
                    let shape = settings.shape(images.len());
                    match settings.normalization {
                        None => slot.into_array::<u8, _>(py, shape)?.into_any(),
                        Some(_) => slot.into_array::<f32, _>(py, shape)?.into_any(),
                    }
                }
                Field::Label => {
                    let labels = self.loader.labels(py)?;
                    let labels = images.iter().map(|&image| labels[image as usize]);
                    labels.collect::<Vec<_>>().into_pyarray(py).into_any()
                }
                Field::Box => {
                    let moved = |&image: &u32| {
                        let bbox = data.bbox(image)?;
                        let own = self.moves.map(|moves| moves.of(image));
                        Ok(own.map_or(bbox, |own| own.bbox(bbox, data.shape())))
                    };
                    let boxes = images.iter().map(moved).collect::<Result<Vec<_>, _>>();
                    let boxes = faults::settle(data, boxes)?;
                    Array2::from(boxes).into_pyarray(py).into_any()
                }
                Field::Index => {
                    let images = images.iter().copied().map(i64::from);
                    images.collect::<Vec<_>>().into_pyarray(py).into_any()
                }
            });
        }
        PyTuple::new(py, fields)
    }
}
