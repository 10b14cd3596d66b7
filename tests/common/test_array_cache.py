import json
import os
import shutil
from collections import namedtuple

import numpy as np
import pytest

from multitask.common import array_cache
from multitask.common.array_cache import ArrayCache, check_disk_space, digest, free_bytes
from multitask.common.errors import InputError

KEY = digest("a")
FIXED = {
    "matrix": np.arange(12, dtype=np.int32).reshape(3, 4),
    "half": np.array([1, 2, 3], np.uint16),
    "empty": np.zeros((0, 5), np.float32),
}
APPENDED = {
    "words": [np.arange(5), np.arange(0), np.arange(9)],
    "tensor": [np.ones((2, 3, 2), np.float16), np.zeros((1, 3, 2), np.float16)],
    "flags": [np.array([True, False])],
    "none": [np.zeros((0, 2), np.int64), np.zeros((0, 2), np.int64)],
    "text": [np.frombuffer(json.dumps(["ü"]).encode(), np.uint8)],
}
WHOLE = FIXED | {name: np.concatenate(pieces) for name, pieces in APPENDED.items()}


def fill(store, key=KEY):
    with store.create(key) as writer:
        for name, array in FIXED.items():
            writer.array(name, array.dtype, array.shape)[:] = array
        for number in range(max(map(len, APPENDED.values()))):
            for name, pieces in APPENDED.items():
                for piece in pieces[number : number + 1]:
                    writer.append(name, piece)


@pytest.fixture
def store(tmp_path):
    store = ArrayCache(tmp_path / "cache")
    fill(store)
    return store


def assert_whole(arrays):
    assert arrays.keys() == WHOLE.keys()
    for name, array in arrays.items():
        assert array.dtype == WHOLE[name].dtype
        np.testing.assert_array_equal(array, WHOLE[name])


def test_arrays_are_read_as_they_were_written_and_memory_mapped(store):
    arrays = store.load(KEY)
    assert_whole(arrays)
    for array in arrays.values():
        assert isinstance(array, np.memmap)
        assert not array.flags.writeable
    assert [path.name for path in store.folder.iterdir()] == [KEY]


def test_a_missing_entry_is_none_without_a_warning(store, capfd):
    assert store.load(digest("b")) is None
    assert ArrayCache(store.folder / "no").load(KEY) is None
    assert capfd.readouterr().err == ""


def test_a_flipped_bit_anywhere_is_detected(store, capfd):
    for path in sorted((store.folder / KEY).iterdir()):
        whole = path.read_bytes()
        for at in range(0, len(whole), 3):
            path.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << at % 8]) + whole[at + 1 :])
            assert store.load(KEY) is None, (path.name, at)
            assert capfd.readouterr().err.startswith(f"{store.folder / KEY}: can't be used and is made")
        path.write_bytes(whole)
    assert_whole(store.load(KEY))


@pytest.mark.parametrize("name", [*WHOLE, "manifest"])
def test_a_file_that_is_cut_extended_or_missing_is_detected(store, capfd, name):
    path = store.folder / KEY / (f"{name}.npy" if name in WHOLE else "manifest.json")
    whole = path.read_bytes()
    for content in (whole[:-1], whole[: len(whole) // 2], b"", whole + b"0", b"[1]", b"[" * 100_000, None):
        path.unlink() if content is None else path.write_bytes(content)
        assert store.load(KEY) is None
        lines = capfd.readouterr().err.splitlines()
        assert len(lines) == 1 and "made anew" in lines[0]


def test_an_entry_with_another_name_or_an_extra_file_is_not_used(store):
    other = digest("b")
    shutil.copytree(store.folder / KEY, store.folder / other)
    assert store.load(other) is None
    shutil.copy(store.folder / KEY / "half.npy", store.folder / KEY / "more.npy")
    assert store.load(KEY) is None


def test_an_entry_can_be_replaced_while_its_arrays_are_in_use(store):
    (store.folder / KEY / "half.npy").write_bytes(b"")
    assert store.load(KEY) is None
    fill(store)
    arrays = store.load(KEY)
    fill(store)
    assert_whole(arrays)
    assert_whole(store.load(KEY))


@pytest.mark.parametrize("error", [KeyboardInterrupt, InputError])
def test_an_interrupted_entry_leaves_nothing(tmp_path, error):
    store = ArrayCache(tmp_path / "cache")
    with pytest.raises(error), store.create(KEY) as writer:
        writer.array("a", np.int32, (3,))
        writer.append("b", np.arange(3))
        raise error
    assert list(tmp_path.iterdir()) == []
    fill(store)
    with pytest.raises(error), store.create(KEY) as writer:
        raise error
    assert_whole(store.load(KEY))
    assert [path.name for path in store.folder.iterdir()] == [KEY]


def test_pieces_of_another_shape_or_dtype_and_repeated_names_are_refused(tmp_path):
    for piece in (np.zeros((1, 3), np.int32), np.zeros((1, 2), np.int64)):
        with pytest.raises(ValueError, match="after rows of"), ArrayCache(tmp_path).create(KEY) as writer:
            writer.append("a", np.zeros((1, 2), np.int32))
            writer.append("a", piece)
    with pytest.raises(ValueError, match="a: written twice"), ArrayCache(tmp_path).create(KEY) as writer:
        writer.array("a", np.int32, (1,))
        writer.append("a", np.zeros(1, np.int32))


def test_a_folder_that_is_not_writable_raises_one_clear_line(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    for folder in ("no/cache", "file", "file/cache"):
        with pytest.raises(InputError, match=f"{folder}: can't be written to"):
            fill(ArrayCache(tmp_path / folder))
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write everywhere
    with pytest.raises(InputError, match="not writable"):
        fill(ArrayCache(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_different_lists_have_different_keys_even_if_their_concatenations_are_equal():
    array = np.arange(6)
    lists = [
        *([], [""], ["", ""], ["ab"], ["a", "b"], [b"ab"], ["1"], [1], [True], [None], ["None"], [1.0]),
        *([array], [array[::2]], [array.astype(np.int32)], [array.reshape(2, 3)], [array.tobytes()]),
        *([np.zeros((0, 2))], [np.zeros((0, 3))], ["\ud800"]),
    ]
    assert len({digest(*parts) for parts in lists}) == len(lists)
    assert digest("a", array, 3) == digest("a", array.copy(), 3)
    assert digest(np.arange(12)[::2]) == digest(np.arange(0, 12, 2))


def test_content_that_does_not_fit_on_the_disk_is_refused(tmp_path, monkeypatch):
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(array_cache.shutil, "disk_usage", lambda path: usage(5 << 30))
    assert free_bytes(tmp_path / "not/there") == 5 << 30
    check_disk_space(tmp_path, 4 << 30, "features")
    with pytest.raises(InputError, match=r"features take about 4.3 GB in .*; the disk has 5.4 GB: make"):
        check_disk_space(tmp_path, (4 << 30) + 1, "features")
