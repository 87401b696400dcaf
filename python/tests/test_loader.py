"""`tinyres.Loader` against a NumPy twin of SPEC section 7 (tools/witness/section7.py), and how it lives: batches that
are held, epochs broken off, states, ranks, threads, processes, Ctrl-C."""

import copy
import gc
import itertools
import json
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import spec

import tinyres

sys.path.append(str(Path(__file__).parents[2] / "tools" / "witness"))
import section7  # noqa: E402

ALL = ("image", "label", "box", "index")
MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


def twin(split, batch, seed, epoch, *, flip=False, shift=0, shuffle=True, drop_last=True):
    """Batches of an epoch as the specification says: (image u8, label, box, index)."""
    images, labels, boxes, _ = split
    count = len(images)
    order = section7.order(count, seed, epoch) if shuffle else list(range(count))
    for start in range(0, count - batch + 1 if drop_last else count, batch):
        own = order[start : start + batch]
        moves = [section7.move(image, seed, epoch, flip, shift) for image in own]
        yield (
            np.stack([section7.move_pixels(images[i], *move) for i, move in zip(own, moves)]),
            labels[own],
            np.array([section7.move_box(boxes[i], images.shape[2:], *move) for i, move in zip(own, moves)]),
            np.array(own),
        )


def same(got, expected):
    got, expected = list(got), list(expected)
    assert len(got) == len(expected)
    for one, other in zip(got, expected):
        assert len(one) == len(other)
        for array, exact in zip(one, other):
            assert array.shape == exact.shape
            assert np.array_equal(array, exact)


def copies(batches):
    return [tuple(array.copy() for array in batch) for batch in batches]


def test_twin_gives_the_golden_moves():
    golden = Path(__file__).parents[2] / "load" / "tests" / "golden" / "moved.bin"
    moved = [
        section7.move_pixels(image, *section7.move(at, 7, 3, True, 3)) for at, image in enumerate(section7.golden())
    ]
    assert np.stack(moved).tobytes() == golden.read_bytes()


@pytest.mark.parametrize("flip, shift", [(False, 0), (True, 0), (False, 3), (True, 7)])
@pytest.mark.parametrize("seed, epoch", [(0, 0), (2**64 - 1, 3)])
def test_batches_are_those_of_the_specification(ds, split, flip, shift, seed, epoch):
    loader = tinyres.Loader(ds, 32, seed=seed, epoch=epoch, flip=flip, shift=shift, fields=ALL)
    assert len(loader) == 9
    batches = list(loader)
    same(batches, twin(split, 32, seed, epoch, flip=flip, shift=shift))
    kinds = [array.dtype for array in batches[0]]
    assert kinds == [np.uint8, np.int64, np.int32, np.int64]
    # The next epoch comes by itself, and another loader that begins there gives the same.
    following = list(loader)
    same(following, twin(split, 32, seed, epoch + 1, flip=flip, shift=shift))


@pytest.mark.parametrize("layout, axes", [("NCHW", (0, 1, 2, 3)), ("NHWC", (0, 2, 3, 1))])
def test_floats_are_the_moved_pixels_normalised(ds, split, layout, axes):
    options = dict(seed=5, flip=True, shift=2)
    expected = [batch[0] for batch in twin(split, 64, 5, 0, flip=True, shift=2)]
    for normalize, mean, std in [
        ("imagenet", MEAN, STD),
        (None, np.zeros(3), np.ones(3)),
        ((np.array([0.1, 0.2, 0.3]), [1, 2, 3]), np.array([0.1, 0.2, 0.3]), np.array([1, 2, 3])),
    ]:
        scale = (1 / (255 * std)).astype(np.float32)[:, None, None]
        offset = (-mean / std).astype(np.float32)[:, None, None]
        loader = tinyres.Loader(ds, 64, dtype=np.float32, normalize=normalize, layout=layout, **options)
        for (got, _), pixels in zip(loader, expected, strict=True):
            exact = pixels.astype(np.float32) * scale + offset
            assert got.dtype == np.float32
            assert got.flags.c_contiguous
            assert np.array_equal(got, exact.transpose(axes))
            close = (pixels / 255 - mean[:, None, None]) / std[:, None, None]
            assert np.allclose(got, close.transpose(axes), atol=1e-5)
    loader = tinyres.Loader(ds, 64, layout=layout, **options)
    for (got, _), pixels in zip(loader, expected, strict=True):
        assert got.dtype == np.uint8 and np.array_equal(got, pixels.transpose(axes))


def test_order_of_the_file_and_small_last_batches(ds, split):
    for shuffle, drop_last in itertools.product([True, False], repeat=2):
        loader = tinyres.Loader(ds, 64, shuffle=shuffle, drop_last=drop_last, fields=ALL)
        expected = list(twin(split, 64, 0, 0, shuffle=shuffle, drop_last=drop_last))
        assert len(loader) == len(expected) == (4 if drop_last else 5)
        same(loader, expected)
    larger = tinyres.Loader(ds, 1000)
    assert (len(larger), list(larger)) == (0, [])
    ((images, labels),) = tinyres.Loader(ds, 1000, drop_last=False)
    assert (len(images), len(labels)) == (300, 300)


def test_fields_come_in_the_order_asked_for(ds):
    for fields in [("index",), ("box", "image"), ["label", "index", "image"]]:
        batch = next(iter(tinyres.Loader(ds, 8, fields=fields)))
        whole = dict(zip(ALL, next(iter(tinyres.Loader(ds, 8, fields=ALL)))))
        assert isinstance(batch, tuple)
        same([batch], [[whole[field] for field in fields]])


@pytest.mark.parametrize("world_size", [2, 3, 7])
@pytest.mark.parametrize("drop_last", [True, False])
def test_ranks_join_to_the_batches_of_one_process(ds, split, world_size, drop_last):
    options = dict(seed=3, flip=True, shift=1, fields=ALL, drop_last=drop_last)
    ranks = [tinyres.Loader(ds, 13, rank=rank, world_size=world_size, **options) for rank in range(world_size)]
    whole = tinyres.Loader(ds, 13 * world_size, **options)
    assert {len(rank) for rank in ranks} == {len(whole)}
    joined = [tuple(map(np.concatenate, zip(*parts))) for parts in zip(*ranks, strict=True)]
    same(joined, twin(split, 13 * world_size, 3, 0, flip=True, shift=1, drop_last=drop_last))
    for part in next(zip(*ranks)):
        assert len(part[0]) == 13


def test_states_resume_at_each_batch(ds, split):
    options = dict(seed=9, epoch=4, flip=True, shift=2, fields=ALL, drop_last=False)
    whole = list(twin(split, 32, 9, 4, flip=True, shift=2, drop_last=False))
    following = list(twin(split, 32, 9, 5, flip=True, shift=2, drop_last=False))
    loader = tinyres.Loader(ds, 32, **options)
    assert loader.state_dict()["batch"] == 0 and loader.epoch == 4
    states = [loader.state_dict()]
    for _ in loader:
        assert loader.epoch == 4
        states.append(loader.state_dict())
    assert [state["batch"] for state in states] == list(range(len(whole) + 1))
    for at, state in enumerate(states):
        resumed = tinyres.Loader(ds, 32, **(options | {"epoch": 0}))
        resumed.load_state_dict(json.loads(json.dumps(state)))
        assert resumed.state_dict() == state
        same(resumed, whole[at:])
        same(resumed, following)
    # After the end, the next epoch is to come.
    state = loader.state_dict()
    assert (state["epoch"], state["batch"]) == (5, 0)
    loader.load_state_dict(states[2])
    same(loader, whole[2:])
    # A state of two ranks serves one process.
    rank = tinyres.Loader(ds, 16, rank=1, world_size=2, **options)
    running = iter(rank)
    next(running)
    loader.load_state_dict(rank.state_dict())
    same(loader, whole[1:])


def test_states_of_other_batches_are_refused(ds, shards):
    state = tinyres.Loader(ds, 32, seed=1).state_dict()
    for other in [
        tinyres.Loader(ds, 32, seed=2),
        tinyres.Loader(ds, 31, seed=1),
        tinyres.Loader(ds, 32, seed=1, shuffle=False),
        tinyres.Loader(ds, 32, seed=1, drop_last=False),
        tinyres.Loader(tinyres.open(shards, "val"), 32, seed=1),
    ]:
        before = other.state_dict()
        with pytest.raises(ValueError, match="make the loader with the arguments that it had"):
            other.load_state_dict(state)
        assert other.state_dict() == before
    loader = tinyres.Loader(ds, 32, seed=1)
    with pytest.raises(ValueError, match="batch is 10"):
        loader.load_state_dict(state | {"batch": 10})
    with pytest.raises(ValueError, match="not the state"):
        loader.load_state_dict({"epoch": 1})


def test_epochs_follow_each_other_and_set_epoch_chooses(ds, split):
    loader = tinyres.Loader(ds, 64, seed=2)
    first = lambda epoch: next(twin(split, 64, 2, epoch))[:2]  # noqa: E731
    same([next(iter(loader))], [first(0)])
    same([next(iter(loader))], [first(1)])
    loader.set_epoch(7)
    assert loader.epoch == 7
    same([next(iter(loader))], [first(7)])
    assert (loader.epoch, loader.state_dict()["batch"]) == (7, 1)
    same([next(iter(loader))], [first(8)])


def test_pickles_and_copies_go_on_where_the_loader_is(ds, split):
    loader = tinyres.Loader(ds, 64, seed=4, flip=True, shift=3, fields=ALL)
    running = iter(loader)
    next(running)
    for again in (pickle.loads(pickle.dumps(loader)), copy.deepcopy(loader)):
        assert again.state_dict() == loader.state_dict()
        same(again, list(twin(split, 64, 4, 0, flip=True, shift=3))[1:])
        same(again, twin(split, 64, 4, 1, flip=True, shift=3))
    assert loader.state_dict()["batch"] == 1


def test_held_batches_stay_as_they_are(ds, split):
    loader = tinyres.Loader(ds, 16, seed=1, fields=ALL)
    held = [batch for _ in range(3) for batch in loader]
    expected = [batch for epoch in range(3) for batch in twin(split, 16, 1, epoch)]
    same(held, expected)
    # Views keep the memory, too, also when the loader has died.
    views = [batch[0][1:3] for batch in loader]
    del loader
    gc.collect()
    same([views], [[batch[0][1:3] for batch in twin(split, 16, 1, 3)]])
    # What is written to a batch is nobody else's.
    loader = tinyres.Loader(ds, 16, seed=1, fields=ALL)
    for (images, *_), expected in zip(loader, twin(split, 16, 1, 0), strict=True):
        assert np.array_equal(images, expected[0])
        images[:] = 0
    assert np.array_equal(tinyres.open(ds.path, "train").images, split[0])


def test_memory_of_dead_batches_is_used_again(ds):
    loader = tinyres.Loader(ds, 16, seed=1)
    places = {images.__array_interface__["data"][0] for _ in range(20) for images, _ in loader}
    assert len(places) <= 8


def threads():
    return len(os.listdir("/proc/self/task"))


def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_epochs_broken_off_leave_nothing(tmp_path):
    path = spec.write_set(tmp_path / "big", {"train": spec.drawn(512, size=64)})
    loader = tinyres.Loader(tinyres.open(path, "train"), 128, dtype="float32", flip=True, shift=4)

    def broken():
        for _ in loader:
            break

    broken()
    gc.collect()
    before = threads()
    for _ in range(30):
        broken()
    memory = resident()
    for _ in range(1000):
        broken()
    assert threads() == before
    # One batch has 6.3 MB.
    assert resident() - memory < 8e6


def test_several_threads_take_each_batch_once(ds, split):
    loader = tinyres.Loader(ds, 4, seed=6, fields=ALL)
    for epoch in range(5):
        batches, taken = iter(loader), []

        def take():
            for batch in batches:
                taken.append(batch)

        workers = [threading.Thread(target=take) for _ in range(8)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        expected = {batch[3].tobytes(): batch for batch in twin(split, 4, 6, epoch)}
        assert len(taken) == len(expected) == 75
        same(taken, [expected[batch[3].tobytes()] for batch in taken])
        assert loader.state_dict()["epoch"] == epoch + 1


def in_child(target, *arguments):
    """Runs a function in a forked process, and returns what it returns."""
    context = multiprocessing.get_context("fork")
    receive, send = context.Pipe(duplex=False)
    child = context.Process(target=lambda: send.send(target(*arguments)))
    child.start()
    assert receive.poll(60), "the forked process hangs"
    result = receive.recv()
    child.join(60)
    assert child.exitcode == 0
    return result


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_process_can_begin_an_epoch_and_not_go_on_with_one(ds, split):
    loader = tinyres.Loader(ds, 32, fields=ALL)
    running = iter(loader)
    held = next(running)

    def child():
        with pytest.raises(RuntimeError, match="iter\\(loader\\)"):
            next(running)
        return copies(loader)

    for _ in range(5):
        same(in_child(child), twin(split, 32, 0, 1))
    # The parent's epoch goes on.
    same([held, *running], twin(split, 32, 0, 0))


def test_damaged_images_end_the_epoch_with_their_place(tmp_path):
    path = spec.write_set(tmp_path / "set", {"train": spec.drawn(64)})
    shard = path / "train-00000.bin"
    content = bytearray(shard.read_bytes())
    content[4096 + 40 * 192] ^= 1
    shard.write_bytes(content)
    loader = tinyres.Loader(tinyres.open(path, "train"), 16, shuffle=False, fields=("index",))
    assert len(list(loader)) == 4, "images that are not wanted are not read"
    batches = iter(tinyres.Loader(tinyres.open(path, "train"), 16, shuffle=False))
    next(batches), next(batches)
    with pytest.raises(tinyres.ChecksumError, match="train-00000.bin") as caught:
        next(batches)
    assert caught.value.block == 2
    assert list(batches) == []


def test_arguments_out_of_range_are_value_errors(ds, shards):
    for wrong, message in [
        (dict(batch_size=0), "batch_size is 0, expected from 1 to"),
        (dict(seed=-1), "seed is -1"),
        (dict(seed=2**64), "seed"),
        (dict(epoch=-1), "epoch"),
        (dict(rank=2, world_size=2), "rank is 2, expected from 0 to 1"),
        (dict(threads=0), "threads"),
        (dict(shift=8), "shift by at most 7"),
        (dict(shift=-1), "shift"),
        (dict(dtype="int64"), "dtype"),
        (dict(layout="HWC"), "layout"),
        (dict(normalize="cifar", dtype="float32"), "normalize"),
        (dict(normalize=([0, 0, 0], [1, 1, 0]), dtype="float32"), "std above 0"),
        (dict(normalize=([0, 0], [1, 1]), dtype="float32"), "three numbers"),
        (dict(normalize=3, dtype="float32"), "normalize"),
        (dict(normalize=([0, 0, 0], [1, 1, 1])), 'for dtype="float32"'),
        (dict(fields=()), "at least one"),
        (dict(fields="image"), "a sequence"),
        (dict(fields=("image", "image")), "each once"),
        (dict(fields=("images",)), "expected image, label, box or index"),
    ]:
        with pytest.raises(ValueError, match=message):
            tinyres.Loader(ds, **({"batch_size": 8} | wrong))
    with pytest.raises(TypeError, match="one split of a set"):
        tinyres.Loader(tinyres.open(shards), 8)
    for wrong in (dict(batch_size=2.5), dict(flip=0.5)):
        with pytest.raises(TypeError):
            tinyres.Loader(ds, **({"batch_size": 8} | wrong))


def test_extremes_give_what_there_is(ds, split, tmp_path):
    assert len(list(tinyres.Loader(ds, 100, threads=2**31 - 1))) == 3
    same(tinyres.Loader(ds, 1, fields=ALL, threads=7), twin(split, 1, 0, 0))
    assert list(tinyres.Loader(ds, 2**31 - 1, world_size=2**31 - 1)) == []
    nothing = spec.write_set(tmp_path / "set", {"train": tuple(part[:0] for part in split), "val": split})
    empty = tinyres.open(nothing, "train")
    for drop_last in (True, False):
        loader = tinyres.Loader(empty, 8, drop_last=drop_last, fields=ALL)
        assert (len(loader), list(loader)) == (0, [])


def test_ctrl_c_ends_an_epoch_and_the_loader_lives_on(tmp_path):
    path = spec.write_set(tmp_path / "set", {"train": spec.drawn(64)})
    program = textwrap.dedent(
        """
        import sys
        import tinyres
        loader = tinyres.Loader(tinyres.open(sys.argv[1], "train"), 16)
        print("ready", flush=True)
        try:
            while True:
                for _ in loader:
                    pass
        except KeyboardInterrupt:
            print("interrupted", flush=True)
        print(len(list(loader)), flush=True)
        """
    )
    child = subprocess.Popen([sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE, text=True)
    assert child.stdout.readline() == "ready\n"
    time.sleep(0.2)
    child.send_signal(signal.SIGINT)
    out, _ = child.communicate(timeout=60)
    assert (out, child.returncode) == ("interrupted\n4\n", 0)


def test_waiting_releases_the_interpreter(ds):
    """Another thread runs while one loads: a counter goes up during a call of `next`."""
    loader = tinyres.Loader(ds, 300, dtype="float32", flip=True, shift=4, threads=1)
    counted, stop = 0, threading.Event()

    def count():
        nonlocal counted
        while not stop.is_set():
            counted += 1

    worker = threading.Thread(target=count)
    worker.start()
    try:
        seen = set()
        for _ in range(20000):
            list(loader)
            seen.add(counted)
            if len(seen) > 20:
                break
        assert len(seen) > 20
    finally:
        stop.set()
        worker.join()


def test_repr_says_what_it_is(ds):
    text = repr(tinyres.Loader(ds, 64, seed=4, dtype="float32"))
    assert text.startswith("Loader(") and "64, seed=4, epoch=0, dtype='float32': 4 batches" in text
