"""`tinyres.open` on sets that are there and on some that are not."""

import pickle

import pytest

import tinyres


def test_missing_set_is_file_not_found(tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        tinyres.open(tmp_path / "none")
    assert isinstance(caught.value, tinyres.Error)
    with pytest.raises(tinyres.NotFoundError, match="dataset.json"):
        tinyres.open(tmp_path)


def test_exceptions_survive_pickling():
    error = tinyres.ChecksumError("wrong", path="a.bin", part="image block 2", block=2, images=(32, 48))
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is tinyres.ChecksumError
    assert (str(again), vars(again)) == (str(error), vars(error))
    assert again.images == range(32, 48)
