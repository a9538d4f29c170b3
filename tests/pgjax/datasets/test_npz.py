"""One file of arrays: it comes back equal, and a damaged one is refused by name."""

import json
import pickle

import numpy as np
import pytest
from expert_datasets import equal, make

from pgjax import _sealed, datasets
from pgjax.datasets import DatasetError, npz
from pgjax.spaces import Discrete


def rewritten(path, change):
    """The saved file with `change(arrays, header)` applied and a digest that fits."""
    with np.load(path) as stored:
        arrays = {name: stored[name] for name in stored.files}
    header = json.loads(arrays.pop("header").tobytes())
    change(arrays, header)
    if header.get("sha256"):
        header["sha256"] = _sealed.digest(arrays, header["metadata"])
    npz._write(path, arrays, header)


def put(key, value):
    return lambda path: rewritten(path, lambda arrays, header: arrays.update({key: np.asarray(value)}))


def in_header(key, value):
    return lambda path: rewritten(path, lambda arrays, header: header.update({key: value}))


def drop(key):
    return lambda path: rewritten(path, lambda arrays, header: arrays.pop(key))


def cut(path):
    path.write_bytes(path.read_bytes()[:-40])


def pickled_objects(path):
    np.savez(path, header=np.asarray([{"a": 1}, None], object))


def change_behind_the_digest(path):
    with np.load(path) as stored:
        arrays = {name: stored[name].copy() for name in stored.files}
    arrays["rewards"][2] += 1
    np.savez(path, **arrays)


class TestNpz:
    @pytest.fixture
    def path(self, tmp_path):
        datasets.save_npz(tmp_path / "expert.npz", make())
        return tmp_path / "expert.npz"

    def test_round_trip(self, path):
        equal(datasets.load_npz(path, action_space=Discrete(3)), make())
        assert [file.name for file in path.parent.iterdir()] == ["expert.npz"]
        small = make(rewards=None, expert_log_probs=None, final_observations=None, terminated=None, metadata={})
        datasets.save_npz(path, small)
        equal(datasets.load_npz(path), small)

    @pytest.mark.parametrize(
        ("damage", "message"),
        [
            (lambda path: path.unlink(), "file: expected an npz file, found no such file"),
            (lambda path: path.write_bytes(b""), "file: expected a whole npz file"),
            (lambda path: path.write_text("not arrays"), "file: expected a whole npz file"),
            (cut, "file: expected a whole npz file"),
            (lambda path: path.write_bytes(pickle.dumps({"actions": 1})), "file: expected a whole npz file"),
            (pickled_objects, "header: expected plain arrays .* allow_pickle=False"),
            (lambda path: np.savez(path, actions=np.zeros(3)), "header: expected the header of pgjax.ExpertDataset"),
            (change_behind_the_digest, "sha256: expected .* the data were changed"),
            (in_header("version", 2), "header: expected pgjax.ExpertDataset version 1, found .* version 2"),
            (in_header("schema", "other"), "header: expected pgjax.ExpertDataset version 1, found other"),
            (in_header("metadata", {"changed": 1}), None),
            (drop("actions"), "actions: expected an array, found keys"),
            (put("extra", 1.0), "extra: expected no other keys than"),
            (put("actions", ["a"] * 6), "actions: expected plain arrays of bool, integers or floats, found <U1"),
            (put("actions", np.zeros(7, int)), "actions: expected 6 rows, found 7"),
            (put("actions", [0, 1, 2, 3, 0, 0]), r"actions, row 3: expected actions in \[0, 2\], found 3"),
            (put("actions", [0, 1, 2, -1, 0, 0]), r"actions, row 3: expected actions in \[0, 2\], found -1"),
            (put("rewards", [0.0, np.nan, 0, 0, 0, 0]), "rewards, row 1: expected finite numbers, found nan"),
            (put("episode_ends", [True, False, False, False, False, False]), "episode_ends, row 5"),
            (put("episode_ends", [True] * 6), "final_observations: expected 6 episodes, found 3"),
            (put("episode_ends", np.zeros(0, bool)), "episode_ends: expected shape"),
        ],
    )
    def test_damaged_files_are_refused(self, path, damage, message):
        damage(path)
        if message is None:
            assert datasets.load_npz(path).metadata == {"changed": 1}
            return
        with pytest.raises(DatasetError, match=message) as caught:
            datasets.load_npz(path, action_space=Discrete(3))
        assert str(caught.value).startswith(f"{path}: ") and caught.value.file == path

    def test_a_flipped_bit_is_refused_or_changes_nothing(self, path):
        """Parts of a zip (dates, attributes) mean nothing here; everywhere else a flip is an error, and ours."""
        whole, refused = path.read_bytes(), 0
        positions = range(0, len(whole), 7)
        for position in positions:
            path.write_bytes(whole[:position] + bytes([whole[position] ^ (1 << position % 8)]) + whole[position + 1 :])
            try:
                equal(datasets.load_npz(path), make())
            except DatasetError:
                refused += 1
        assert refused > 0.6 * len(positions)

    def test_a_crash_leaves_the_old_file(self, path, monkeypatch):
        monkeypatch.setattr(npz.os, "fsync", lambda _: (_ for _ in ()).throw(OSError("disk full")))
        with pytest.raises(OSError, match="disk full"):
            datasets.save_npz(path, make(metadata={}))
        equal(datasets.load_npz(path), make())
        assert list(path.parent.iterdir()) == [path]

    def test_places_where_no_file_can_be(self, tmp_path):
        for place, message in ((".", "expected a file, found a folder"), ("none/d.npz", "found no such folder")):
            with pytest.raises(DatasetError, match=f"path: .*{message}") as caught:
                datasets.save_npz(tmp_path / place, make())
            assert caught.value.file == tmp_path / place
        assert not list(tmp_path.iterdir())
