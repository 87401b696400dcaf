"""`tinyres.torch` with the real torch and torchvision: against `tinyres.Loader`, `ImageFolder` and `DataLoader`."""

import copy
import gc
import multiprocessing
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import spec

import tinyres

torch = pytest.importorskip("torch", reason="torch is not installed")
torchvision = pytest.importorskip("torchvision", reason="torchvision is not installed")
import tinyres.torch  # noqa: E402
from torch.utils.data import DataLoader, Subset, default_collate, random_split  # noqa: E402
from torchvision import transforms, tv_tensors  # noqa: E402
from torchvision.transforms import v2  # noqa: E402

# What torch itself warns of when it starts workers.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*pin_memory"),
]

ALL = ("image", "label", "box", "index")


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", ["uint8", torch.float32])
def test_tensors_are_the_arrays_of_the_loader(ds, dtype, memory_format):
    options = dict(seed=3, epoch=2, flip=True, shift=2, fields=ALL)
    arrays = tinyres.Loader(ds, 32, dtype=str(dtype).removeprefix("torch."), **options)
    tensors = tinyres.torch.Loader(ds, 32, dtype=dtype, memory_format=memory_format, **options)
    assert len(tensors) == len(arrays)
    held = list(tensors)
    for got, expected in zip(held, arrays, strict=True):
        assert [type(one) for one in got] == [torch.Tensor] * 4
        assert all(np.array_equal(one.numpy(), array) for one, array in zip(got, expected))
        assert got[0].is_contiguous(memory_format=memory_format)
        assert got[0].shape == (32, 3, 8, 8)
    assert tensors.state_dict() == arrays.state_dict()


def test_states_resume_tensors(ds):
    loader = tinyres.torch.Loader(ds, 32, seed=5, fields=("index",))
    whole = [index.tolist() for (index,) in loader]
    loader.set_epoch(0)
    batches = iter(loader)
    next(batches), next(batches)
    again = tinyres.torch.Loader(ds, 32, seed=5, fields=("index",))
    again.load_state_dict(loader.state_dict())
    assert [index.tolist() for (index,) in again] == whole[2:]


def test_device_takes_the_batch(ds):
    images, labels = next(iter(tinyres.torch.Loader(ds, 32, device="meta")))
    assert (images.device.type, labels.device.type) == ("meta", "meta")
    images, _ = next(iter(tinyres.torch.Loader(ds, 32, device="cpu", pin_memory=True)))
    assert images.is_pinned() == torch.cuda.is_available()


def test_pinned_batches_lie_in_memory_of_torch(ds, monkeypatch):
    """Without a GPU, memory that is not pinned stands in: each batch has its own, and goes back to torch alone."""
    given = []

    def alloc(size):
        given.append(torch.empty(size, dtype=torch.uint8))
        return given[-1].numpy()

    if not torch.cuda.is_available():
        monkeypatch.setattr(tinyres.torch, "_pinned", alloc)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: self.clone())
    for dtype in ("uint8", "float32"):
        for memory_format in (torch.contiguous_format, torch.channels_last):
            options = dict(seed=1, dtype=dtype, fields=ALL, flip=True)
            loader = tinyres.torch.Loader(
                ds, 64, pin_memory=True, drop_last=False, memory_format=memory_format, **options
            )
            plain = tinyres.Loader(ds, 64, drop_last=False, **options)
            held = list(loader)
            starts = {images.untyped_storage().data_ptr() for images, *_ in held}
            assert len(starts) == len(held) == 5
            del loader
            gc.collect()
            for got, expected in zip(held, plain, strict=True):
                assert all(np.array_equal(one.numpy(), array) for one, array in zip(got, expected))
            if given:
                assert starts < {memory.data_ptr() for memory in given}


def rank_of(rank, world_size, store, path, send):
    torch.distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world_size)
    loader = tinyres.torch.Loader(tinyres.open(path, "train"), 16, fields=("index",))
    send.send((loader.rank, loader.world_size, [index.tolist() for (index,) in loader]))
    torch.distributed.destroy_process_group()


def test_rank_and_world_size_are_those_of_torch_distributed(ds, shards, tmp_path):
    context = multiprocessing.get_context("spawn")
    pipes = [context.Pipe(duplex=False) for _ in range(2)]
    children = [
        context.Process(target=rank_of, args=(rank, 2, str(tmp_path / "store"), shards, send))
        for rank, (_, send) in enumerate(pipes)
    ]
    for child in children:
        child.start()
    got = [receive.recv() if receive.poll(240) else None for receive, _ in pipes]
    for child in children:
        child.join()
    assert [ranks[:2] for ranks in got] == [(0, 2), (1, 2)]
    whole = [index.tolist() for (index,) in tinyres.torch.Loader(ds, 32, fields=("index",))]
    assert [first + second for first, second in zip(got[0][2], got[1][2])] == whole


def test_tensor_is_a_map_that_keeps_what_is_written(ds, split):
    images = tinyres.torch.tensor(ds)
    assert (images.shape, images.dtype) == ((300, 3, 8, 8), torch.uint8)
    assert np.array_equal(images.numpy(), split[0])
    with open("/proc/self/maps") as maps:
        starts = {int(line.split("-")[0], 16): line for line in maps}
    assert "train-00000.bin" in starts[images.data_ptr()]
    images[7] = 0
    images[299] = 1
    assert images[7].sum() == 0
    assert np.array_equal(ds.images, split[0])
    assert np.array_equal(tinyres.torch.Dataset(ds).tensor().numpy(), split[0])
    assert np.array_equal(tinyres.open(ds.path, "train").images, split[0])
    del ds
    gc.collect()
    assert torch.equal(torch.index_select(images, 0, torch.tensor([5, 9])), torch.from_numpy(split[0][[5, 9]]))


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Images as ImageFolder reads them, and a set of the same: (directory, shards)."""
    from PIL import Image

    directory = tmp_path_factory.mktemp("folders")
    images, labels, boxes, _ = spec.drawn(60, size=16)
    labels = np.sort(np.abs(labels))
    names = [f"n{label:02}/{at:03}.png" for at, label in enumerate(labels)]
    for name, image in zip(names, images):
        path = directory / "train" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0))).save(path)
    shards = spec.write_set(directory / "shards", {"train": (images, labels, boxes, names)})
    return directory / "train", shards


def test_dataset_replaces_image_folder_by_one_line(folders):
    directory, shards = folders
    transform = transforms.Compose(
        [
            transforms.RandomCrop(16, padding=4),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
    )
    theirs = torchvision.datasets.ImageFolder(directory, transform)
    ours = tinyres.torch.Dataset(shards, "train", transform, image="pil")
    assert len(ours) == len(theirs)
    for name in ("classes", "class_to_idx", "targets"):
        assert getattr(ours, name) == getattr(theirs, name)
    assert [label for _, label in ours.samples] == [label for _, label in theirs.samples]
    assert [Path(name).name for name, _ in ours.imgs] == [Path(name).name for name, _ in theirs.imgs]
    batches = []
    for data in (theirs, ours):
        torch.manual_seed(7)
        batches.append(list(DataLoader(data, 16, shuffle=True)))
    for theirs_batch, ours_batch in zip(*batches, strict=True):
        assert all(torch.equal(one, other) for one, other in zip(theirs_batch, ours_batch))
    theirs = torchvision.datasets.ImageFolder(directory, target_transform=lambda label: label + 100)
    ours = tinyres.torch.Dataset(shards, target_transform=lambda label: label + 100, image="pil")
    for (image, label), (other, other_label) in zip(theirs, ours, strict=True):
        assert (image.tobytes(), label) == (other.tobytes(), other_label)


def test_transforms_v2_take_the_tensors(ds, split):
    transform = v2.Compose(
        [
            v2.ToImage(),
            v2.RandomHorizontalFlip(p=1),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize([0.5] * 3, [0.5] * 3),
        ]
    )
    data = tinyres.torch.Dataset(ds, transform=transform)
    images, labels = default_collate([data[at] for at in (3, 299, -1)])
    expected = split[0][[3, 299, 299], :, :, ::-1].astype(np.float32) / 127.5 - 1
    assert np.allclose(images.numpy(), expected, atol=1e-6)
    assert labels.tolist() == split[1][[3, 299, 299]].tolist()
    mixed = v2.MixUp(num_classes=3)(torch.rand(4, 3, 8, 8), torch.tensor([0, 1, 2, 0]))
    assert mixed[1].shape == (4, 3)


def test_boxes_are_tv_tensors_and_move_with_images(ds, split):
    images, labels, boxes, _ = split
    plain = tinyres.torch.Dataset(ds, boxes=True)
    flip = v2.Compose([v2.RandomHorizontalFlip(p=1), v2.SanitizeBoundingBoxes()])
    flipped = tinyres.torch.Dataset(ds, boxes=True, transforms=flip)
    with_box = 0
    for at in range(40):
        image, target = plain[at]
        assert type(image) is tv_tensors.Image and type(target["boxes"]) is tv_tensors.BoundingBoxes
        assert target["boxes"].canvas_size == (8, 8)
        mirrored, moved = flipped[at]
        assert np.array_equal(mirrored.numpy(), images[at][:, :, ::-1])
        x0, y0, x1, y1 = boxes[at].tolist()
        if x0 < 0:
            assert target["boxes"].shape == moved["boxes"].shape == (0, 4)
            assert len(target["labels"]) == 0
            continue
        with_box += 1
        assert target["boxes"].tolist() == [[x0, y0, x1 + 1, y1 + 1]]
        assert moved["boxes"].tolist() == [[8 - (x1 + 1), y0, 8 - x0, y1 + 1]]
        assert target["labels"].tolist() == moved["labels"].tolist() == [labels[at]]
    assert 20 < with_box < 40
    loaded = next(iter(DataLoader(flipped, 8, collate_fn=tinyres.torch.collate)))
    assert loaded[0].shape == (8, 3, 8, 8) and len(loaded[1]) == 8
    assert loaded[1][0]["boxes"].shape[1] == 4


def brighten(image):
    return image // 2


@pytest.mark.parametrize("start", [None, "fork", "forkserver", "spawn"])
def test_data_loader_gives_the_images_asked_for(ds, split, start):
    images, labels = split[:2]
    ds.images, ds.gather([1, 2])  # The pool of threads is in use before the workers start.
    settings = [(None, tinyres.torch.collate), (brighten, None), (None, None), (brighten, tinyres.torch.collate)]
    # Each worker of the slow ones imports torch.
    for transform, collate in settings if start in (None, "fork") else settings[:2]:
        data = tinyres.torch.Dataset(ds, transform=transform)
        workers = dict(num_workers=2, multiprocessing_context=start, timeout=240) if start else {}
        loader = DataLoader(data, 64, shuffle=True, collate_fn=collate, **workers)
        torch.manual_seed(3)
        batches = list(loader)
        torch.manual_seed(3)
        order = torch.cat(list(DataLoader(range(300), 64, shuffle=True))).numpy()
        got = torch.cat([batch for batch, _ in batches]).numpy()
        assert np.array_equal(got, images[order] // (2 if transform else 1))
        assert torch.cat([label for _, label in batches]).tolist() == labels[order].tolist()
        assert batches[0][0].dtype == torch.uint8


def test_batches_without_transforms_are_read_at_once(ds, split):
    data = tinyres.torch.Dataset(ds)
    samples = data.__getitems__([5, 1, 5])
    assert len(samples) == 3
    assert [label for _, label in samples] == split[1][[5, 1, 5]].tolist()
    assert torch.equal(samples[1][0], data[1][0]) and samples[-1][1] == data[5][1]
    assert [type(label) for _, label in samples] == [int] * 3
    images, labels = tinyres.torch.collate(samples)
    assert images.data_ptr() == next(iter(samples))[0].data_ptr()
    assert np.array_equal(images.numpy(), split[0][[5, 1, 5]])
    part = tinyres.torch.collate(samples[1:])
    assert torch.equal(part[0], images[1:]) and torch.equal(part[1], labels[1:])


def test_subsets_copies_and_pickles_read_the_same(ds, split):
    data = tinyres.torch.Dataset(ds, transform=brighten)
    for again in (pickle.loads(pickle.dumps(data)), copy.deepcopy(data)):
        assert torch.equal(again[9][0], data[9][0])
    first, second = random_split(data, [200, 100])
    assert len(first) + len(second) == 300
    half = Subset(tinyres.torch.Dataset(ds), range(0, 300, 2))
    images = torch.cat([images for images, _ in DataLoader(half, 50)])
    assert np.array_equal(images.numpy(), split[0][::2])


def test_wrong_arguments_say_what_is_expected(ds, shards):
    data = tinyres.torch.Dataset(shards, transform=transforms.ToTensor())
    with pytest.raises(TypeError) as caught:
        data[0]
    assert 'image="pil"' in caught.value.__notes__[0]
    for wrong in (dict(image="array"), dict(transforms=flip_both, transform=brighten)):
        with pytest.raises(ValueError, match="image is|transforms goes without"):
            tinyres.torch.Dataset(ds, **wrong)
    with pytest.raises(ValueError, match="memory_format"):
        tinyres.torch.Loader(ds, 8, memory_format=torch.channels_last_3d)
    with pytest.raises(ValueError, match="dtype"):
        tinyres.torch.Loader(ds, 8, dtype=torch.float16)
    with pytest.raises(IndexError):
        data[300]
    with pytest.raises(FileNotFoundError):
        tinyres.torch.Dataset("no such set")


def flip_both(image, target):
    return image, target


def test_repr_is_like_that_of_torchvision(ds):
    text = repr(tinyres.torch.Dataset(ds, transform=v2.RandomHorizontalFlip()))
    assert text.startswith("Dataset Dataset\n    Number of datapoints: 300\n    Root location: ")
    assert re.search(r"transform: RandomHorizontalFlip\(p=0.5\)", text)
