"""FFCV: raw pixels in one .beton file, gathered and normalised by compiled Python on threads.

As its performance guide says for data that fits into memory: raw images, os_cache, random order.
"""

import numpy
from ffcv.fields import IntField, RGBImageField
from ffcv.fields.decoders import IntDecoder, SimpleRGBImageDecoder
from ffcv.loader import Loader, OrderOption
from ffcv.transforms import NormalizeImage, ToTensor, ToTorchImage
from ffcv.writer import DatasetWriter

from peer import BATCH, MEAN, STD, WORKERS, main, samples, turbo


class Images:
    def __init__(self, src):
        self.samples = samples(src)

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, index):
        path, label = self.samples[index]
        return turbo(path), label


def pack(src, dst):
    dst.mkdir()
    fields = {"image": RGBImageField(write_mode="raw"), "label": IntField()}
    writer = DatasetWriter(str(dst / "train.beton"), fields, num_workers=WORKERS)
    writer.from_indexed_dataset(Images(src))


def epochs(dst, dtype):
    image = [SimpleRGBImageDecoder()]
    if dtype == "f32":
        mean, std = (255 * numpy.array(values) for values in (MEAN, STD))
        image.append(NormalizeImage(mean, std, numpy.float32))
    image += [ToTensor(), ToTorchImage()]
    loader = Loader(
        str(dst / "train.beton"),
        BATCH,
        num_workers=WORKERS,
        os_cache=True,
        order=OrderOption.RANDOM,
        pipelines={"image": image, "label": [IntDecoder(), ToTensor()]},
        drop_last=False,
    )
    while True:
        yield loader


main(pack, epochs)
