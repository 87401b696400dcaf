//! What a training shows TensorBoard beside its figures: a sheet of validation images.

use tch::{Kind, Tensor};
use tinyres::inspect::{Picture, Sample};
use tinyres_format::Split;

use super::Trainer;
use super::trust::Output;
use crate::input::feed::Batch;
use crate::libtorch::device;
use crate::run::tensorboard::EventFile;
use crate::{Error, Result};

/// Images of the sheet, at most.
const SHOWN: u32 = 64;

impl Trainer<'_> {
    /// Begins an event file, where that is wanted and the disk lets it.
    pub(super) fn open_board(&mut self) -> Result<()> {
        if !self.config.tensorboard {
            return Ok(());
        }
        // The epoch's figures will be of this step, too, if there is no other to come.
        let whole = self.at.batch == self.train.data().len() as usize / self.batch;
        let created = EventFile::create(self.run.dir(), self.at.step + u64::from(!whole));
        let opened = created.map(|events| self.board = Some(events));
        self.failing
            .pass(Output::Events, opened, self.at.step, self.watch)
    }

    /// Shows the validation images that a sheet is made of, as the network sees them now.
    pub(super) fn show_sheet(&mut self, step: u64) -> Result<()> {
        let Some(mut board) = self.board.take() else {
            return Ok(());
        };
        let picture = self.sheet()?;
        let png = picture
            .png()
            .map_err(|error| Error::Picture(error.to_string()))?;
        let shown = board.image(step, "val", png, [picture.width, picture.height]);
        self.board = Some(board);
        self.failing.pass(Output::Events, shown, step, self.watch)
    }

    fn sheet(&self) -> Result<Picture> {
        let data = self.val.data();
        let (shape, images) = (data.shape(), data.len());
        // From all over the split, which may be in the order of its classes; the same in every epoch.
        let shown = images.min(SHOWN);
        let place = |at: u32| u64::from(at) * u64::from(images) / u64::from(shown);
        let picks: Vec<u32> = (0..shown)
            .filter_map(|at| u32::try_from(place(at)).ok())
            .collect();
        let mut pixels = vec![0; picks.len() * shape.image_len()];
        data.gather(&picks, &mut pixels)?;
        let side = |side: u32| i64::from(side);
        let dims = [
            i64::from(shown),
            side(shape.channels),
            side(shape.height),
            side(shape.width),
        ];
        let host = Tensor::f_from_slice(&pixels)?.f_view(dims)?;
        let batch = Batch {
            pixels: &device::upload(&host, self.device)?,
            labels: Tensor::new(),
            boxes: None,
            at: 0..dims[0],
        };
        let x = self.about().inputs(shape, self.device)?.apply(&batch)?;
        let logits = tch::no_grad(|| self.model.forward(&x, false))?;
        let guesses = logits.f_argmax(1, false)?.f_to_kind(Kind::Int64)?;
        let guesses = Vec::<i64>::try_from(guesses)?;
        let classes = data.classes();
        let class = |label: i64| usize::try_from(label).ok().and_then(|at| classes.get(at));
        let mut samples = Vec::new();
        for (&image, pixels) in picks.iter().zip(pixels.chunks_exact(shape.image_len())) {
            let label = data.label(image)?;
            samples.push(Sample {
                split: Split::Val,
                image: u64::from(image),
                shard: std::path::PathBuf::new(),
                in_shard: 0,
                label: usize::try_from(label).ok(),
                class: class(label),
                bbox: None,
                name: data.name(image)?,
                shape,
                pixels: pixels.into(),
            });
        }
        let guesses: Vec<_> = guesses.into_iter().map(class).collect();
        Ok(Picture::graded(&samples, &guesses))
    }
}
