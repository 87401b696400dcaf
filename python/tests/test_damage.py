"""Sets that are damaged, cut or replaced, before and while they are in use."""

import faulthandler
import os
import signal
import subprocess
import sys
import textwrap
import threading

import numpy as np
import pytest
import spec

import tinyres

LEN = 3 * 8 * 8


@pytest.fixture
def own(tmp_path):
    """A set that a test may damage."""
    return spec.write_set(tmp_path / "own", {"train": spec.drawn(300)}, shard_images=128)


def flip(path, offset):
    with open(path, "r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 4]))


def test_damaged_block_is_named(own):
    flip(own / "train-00001.bin", 4096 + 40 * LEN)
    ds = tinyres.open(own, "train")
    ds.gather(range(128))
    for read in (lambda: ds[128 + 40], lambda: ds.gather(range(300)), lambda: ds.images, ds.verify):
        with pytest.raises(tinyres.ChecksumError) as caught:
            read()
        error = caught.value
        assert (error.path, error.shard) == (str(own / "train-00001.bin"), "train-00001.bin")
        assert (error.part, error.block, error.images) == ("image block 2", 2, range(128 + 32, 128 + 48))
        assert isinstance(error, tinyres.FormatError) and isinstance(error, ValueError)
    with pytest.raises(tinyres.ChecksumError):
        tinyres.open(own, "train", verify="full")
    off = tinyres.open(own, "train", verify="off")
    assert off.images.shape == (300, 3, 8, 8)
    with pytest.raises(tinyres.ChecksumError):
        off.verify()


def test_last_block_of_a_shard_is_as_long_as_it_is(own):
    flip(own / "train-00002.bin", 4096 + 43 * LEN)
    with pytest.raises(tinyres.ChecksumError) as caught:
        tinyres.open(own, "train")[-1]
    assert caught.value.images == range(256 + 32, 300)


@pytest.mark.parametrize(
    ("part", "use"),
    [(2, lambda ds: ds.labels), (2, lambda ds: ds[200]), (3, lambda ds: ds.boxes), (5, lambda ds: ds.names[200])],
)
def test_damaged_column_is_named(own, part, use):
    path = own / "train-00001.bin"
    offset, _ = np.fromfile(path, "<u8", 2, offset=64 + 24 * part)
    flip(path, int(offset))
    ds = tinyres.open(own, "train")
    ds.gather([200])
    with pytest.raises(tinyres.ChecksumError) as caught:
        use(ds)
    assert caught.value.part == {2: "labels", 3: "boxes", 5: "names"}[part]
    assert caught.value.block is None and caught.value.images is None


def test_what_is_not_a_set_says_so(own, tmp_path):
    with pytest.raises(ValueError, match="expected train, val or test"):
        tinyres.open(own, "valid")
    with pytest.raises(ValueError, match="no val split here, only train"):
        tinyres.open(own, "val")
    with pytest.raises(ValueError, match="verify is"):
        tinyres.open(own, "train", verify="some")
    shard = own / "train-00001.bin"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-1])
    with pytest.raises(tinyres.FormatError, match="cut short") as caught:
        tinyres.open(own, "train")
    assert caught.value.path == str(shard)
    shard.unlink()
    with pytest.raises(FileNotFoundError) as missing:
        tinyres.open(own, "train")
    assert os.fspath(missing.value.filename) == str(shard)
    (own / "dataset.json").write_text("{")
    with pytest.raises(tinyres.FormatError, match="dataset.json") as caught:
        tinyres.open(own)
    assert caught.value.shard is None
    with pytest.raises(NotADirectoryError):
        tinyres.open(shard.with_name("dataset.json"))
    if os.geteuid():
        own.chmod(0)
        with pytest.raises(PermissionError):
            tinyres.open(own)
        own.chmod(0o700)


def test_set_packed_again_is_not_taken_for_the_old_one(own, tmp_path):
    ds = tinyres.open(own, "train")
    before = ds.gather(range(300))
    other = spec.write_set(tmp_path / "other", {"train": spec.drawn(300, seed=5)}, shard_images=128)
    for file in other.iterdir():
        file.rename(own / file.name)
    assert np.array_equal(ds.gather(range(300)), before)
    with pytest.raises(tinyres.FormatError, match="replaced by another file"):
        ds.images


def test_cut_shard_is_an_error_and_the_interpreter_lives(own):
    path = own / "train-00001.bin"
    ds = tinyres.open(own, "train")
    ds.gather(range(300))
    whole = path.read_bytes()
    os.truncate(path, 8192)
    for read in (lambda: ds[250], lambda: ds.gather([250]), lambda: ds[0], lambda: ds.labels, ds.verify):
        with pytest.raises(tinyres.ReadError) as caught:
            read()
        assert isinstance(caught.value, OSError)
        assert os.fspath(caught.value.filename) == str(path)
        assert "cut while in use" in str(caught.value)
    path.write_bytes(whole)
    assert len(tinyres.open(own, "train").gather(range(300))) == 300


def test_cut_shard_under_a_view_raises_too(own):
    ds = tinyres.open(own, "train")
    images = ds.images
    os.truncate(own / "train-00001.bin", 8192)
    with pytest.raises(tinyres.ReadError):
        images.sum()
        for _ in range(1000):  # the exception comes between two instructions of Python
            pass
    with pytest.raises(tinyres.ReadError):
        ds.images


def test_cut_shard_is_an_error_in_every_thread(own):
    ds = tinyres.open(own, "train", verify="off")
    os.truncate(own / "train-00001.bin", 8192)
    raised = []

    def use(seed):
        draw = np.random.default_rng(seed)
        for _ in range(20):
            try:
                ds.gather(draw.integers(140, 256, 50))
            except tinyres.ReadError:
                raised.append(seed)

    threads = [threading.Thread(target=use, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(raised) == 6 * 20


def test_set_opened_again_and_again_after_a_cut(own):
    path = own / "train-00001.bin"
    whole = path.read_bytes()
    for _ in range(30):
        ds = tinyres.open(own, "train", verify="off")
        images = ds.images
        path.write_bytes(whole)  # in place: the old maps see it
        assert ds.gather([250]).any() and images[250].any()
        os.truncate(path, 8192)
        with pytest.raises(tinyres.ReadError):
            ds.gather([250])
        path.unlink()
        path.write_bytes(whole)
    other = tinyres.open(own, "train")
    assert other.gather(range(300)).any()
    with pytest.raises(tinyres.ReadError):
        ds.gather([0])


def test_cut_shard_under_a_private_map_raises_too(own):
    images = tinyres.open(own, "train").private_images()
    images[5] = 7
    os.truncate(own / "train-00001.bin", 8192)
    with pytest.raises(tinyres.ReadError):
        images[250] += 1
        for _ in range(1000):
            pass
    images[250] = 9
    assert (images[5] == 7).all() and (images[250] == 9).all()


def test_cut_shard_under_a_loader_raises_too(own):
    loader = tinyres.Loader(tinyres.open(own, "train"), 4, drop_last=False, shuffle=False)
    batches = iter(loader)
    next(batches)
    os.truncate(own / "train-00002.bin", 8192)
    with pytest.raises(tinyres.ReadError, match="train-00002"):
        list(batches)


def test_damage_under_a_loader_names_its_images(own):
    flip(own / "train-00001.bin", 4096 + 40 * LEN)
    with pytest.raises(tinyres.ChecksumError) as caught:
        list(tinyres.Loader(tinyres.open(own, "train"), 4))
    assert caught.value.images == range(128 + 32, 128 + 48)


def run(code, *arguments):
    code = "import faulthandler, os, signal, sys\nimport tinyres\n" + textwrap.dedent(code)
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True, timeout=120
    )


@pytest.mark.parametrize("before", [True, False])
def test_other_bus_errors_are_left_to_faulthandler(own, before):
    calls = ["faulthandler.enable()", "ds = tinyres.open(sys.argv[1], 'train')"]
    calls = calls if before else calls[::-1]
    done = run("\n".join(calls) + "\nos.kill(os.getpid(), signal.SIGBUS)", own)
    assert done.returncode == -signal.SIGBUS
    assert "Fatal Python error: Bus error" in done.stderr
    assert "<string>" in done.stderr


def test_faulthandler_enabled_first_does_not_see_a_cut_shard(own):
    done = run(
        """
        faulthandler.enable()
        ds = tinyres.open(sys.argv[1], "train")
        os.truncate(sys.argv[1] + "/train-00000.bin", 8192)
        try:
            ds.gather(range(128))
        except tinyres.ReadError:
            print("caught")
        """,
        own,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "caught\n", "")
    assert faulthandler.is_enabled()


def test_other_bus_errors_end_the_process_as_before(own):
    done = run(
        """
        import mmap
        tinyres.open(sys.argv[1], "train")
        with open(sys.argv[1] + "/other", "w+b") as file:
            file.truncate(8192)
            map = mmap.mmap(file.fileno(), 8192)
            file.truncate(0)
            map[5000]
        """,
        own,
    )
    assert done.returncode == -signal.SIGBUS


def test_interrupt_ends_long_work(own):
    done = run(
        """
        import threading, time
        ds = tinyres.open(sys.argv[1], "train")
        index = [0] * 2_000_000
        threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT)).start()
        try:
            while True:
                ds.gather(index)
        except KeyboardInterrupt:
            print("stopped")
        """,
        own,
    )
    assert done.stdout == "stopped\n", done.stderr
