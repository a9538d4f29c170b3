"""The newest two checkpoints of a run, and what they must have in common with the program that goes on."""

import itertools

import jax
import numpy as np
import pytest

from pgjax import writing
from pgjax.saving import identity, rotation

TREE = {"x": np.arange(3.0, dtype=np.float32)}


def test_the_newest_two_are_kept_and_a_damaged_one_gives_way(tmp_path):
    for number in (0, 5, 10, 9_999):
        rotation.save(tmp_path, number, TREE | {"n": np.int32(number)}, {"number": number})
    assert list(rotation.numbered(tmp_path)) == [10, 9_999]
    heard, newest = [], rotation.numbered(tmp_path)[9_999]
    assert rotation.newest(tmp_path).metadata == {"number": 9_999}
    newest.write_bytes(newest.read_bytes()[:-1])
    found = rotation.newest(tmp_path, lambda path, reason: heard.append((path, reason)))
    assert found.metadata == {"number": 10} and found.arrays["['n']"] == 10
    assert heard[0][0] == newest and "damaged or cut short" in heard[0][1]
    # The run goes on from 10: what was saved after it is set aside, and is never read again.
    rotation.save(tmp_path, 11, TREE)
    assert {path.name for path in tmp_path.iterdir()} == {
        "state-10.safetensors", "state-11.safetensors", "damaged-state-9999.safetensors",
    }  # fmt: skip
    for path in rotation.numbered(tmp_path).values():
        path.write_bytes(b"")
    with pytest.raises(ValueError, match=r"state-11.*; .*state-10"):
        rotation.newest(tmp_path)


def test_nothing_to_read_and_bad_numbers_are_named(tmp_path):
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(ValueError, match=r"holds no file state-NUMBER\.safetensors"):
            rotation.newest(folder)
    with pytest.raises(ValueError, match="number must be at least 0"):
        rotation.save(tmp_path, -1, TREE)


def test_a_kill_at_any_step_leaves_a_checkpoint_that_can_be_read(tmp_path, monkeypatch):
    for stop in itertools.count():
        folder = tmp_path / str(stop)
        folder.mkdir()
        rotation.save(folder, 1, TREE)
        rotation.save(folder, 2, TREE)
        left = itertools.count()

        def step(name, path, left=left, stop=stop):
            if next(left) == stop:
                raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(writing, "on_step", step)
            try:
                rotation.save(folder, 3, TREE)
                break
            except KeyboardInterrupt:
                pass
        assert max(rotation.numbered(folder)) in (2, 3) and rotation.newest(folder).arrays.keys() == {"['x']"}
        rotation.save(folder, 4, TREE)
        assert len(rotation.numbered(folder)) == 2 == len(list(folder.iterdir()))
    assert stop == 6 and list(rotation.numbered(folder)) == [2, 3]


def test_differences_are_named_with_both_values_and_allowed_by_name():
    saved = identity.identity({"lr": (0.1,), "env": "maze"}, {"code of mine": "aa"})
    assert not identity.differences(saved, identity.identity({"env": "maze", "lr": [0.1]}, {"code of mine": "aa"}))
    with jax.default_matmul_precision("bfloat16"), jax.threefry_partitionable(False):
        present = identity.identity({"lr": (0.2,), "env": "maze", "new": 1}, {"code of mine": "bb"})
    present |= {"versions": present["versions"] | {"numpy": "1.0"}}
    found = identity.differences(saved, present)
    assert [str(each) for each in found[:2]] == ["lr (saved [0.1], now [0.2])", "new (saved nothing, now 1)"]
    assert [each.field for each in found[2:]] == [
        "numpy", "jax_default_matmul_precision", "jax_threefry_partitionable", "code of mine",
    ]  # fmt: skip
    assert [each.field for each in identity.refused(found, {"lr", "numerics", "versions", "code"})] == ["new"]
    assert identity.refused(found, {"lr", "new", "numpy", "numerics", "code"}) == []
