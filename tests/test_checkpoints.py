"""What is saved comes back equal, and nothing else comes back."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from pgjax import checkpoints


@pytest.fixture
def tree():
    params = {"w": jnp.arange(6.0).reshape(2, 3), "b": jnp.zeros(3, jnp.bfloat16)}
    return {"params": params, "optimizer": optax.adam(0.1).init(params), "key": jax.random.key(3), "n": jnp.int32(4)}


@pytest.fixture
def path(tmp_path, tree):
    checkpoints.save(tmp_path / "state.safetensors", tree, {"env": "maze", "hidden": [64, 64]})
    return tmp_path / "state.safetensors"


def test_round_trip(path, tree):
    shapes = jax.eval_shape(lambda: tree)
    for like in (tree, shapes):
        got = checkpoints.restore(path, like)
        assert jax.tree.structure(got) == jax.tree.structure(tree)
        raw = lambda x: jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x
        for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(tree), strict=True):
            assert a.dtype == b.dtype
            np.testing.assert_array_equal(raw(a), raw(b))
    assert checkpoints.metadata(path) == {"env": "maze", "hidden": [64, 64]}
    assert [file.name for file in path.parent.iterdir()] == ["state.safetensors"]


def test_any_flipped_bit_is_refused(path, tree):
    whole = path.read_bytes()
    start = 8 + int.from_bytes(whole[:8], "little")
    metadata = whole.index(b"maze")
    for position in (metadata, start, (start + len(whole)) // 2, len(whole) - 1):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
        with pytest.raises(ValueError, match="damaged"):
            checkpoints.restore(path, tree)
        with pytest.raises(ValueError, match="damaged"):
            checkpoints.metadata(path)


@pytest.mark.parametrize("length", [0, 5, 100, -1])
def test_a_file_cut_short_is_refused(path, tree, length):
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(ValueError, match="not a whole safetensors file"):
        checkpoints.restore(path, tree)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tree: tree | {"n": jnp.float32(4)}, r"written with \['n'\] of int32"),
        (lambda tree: tree | {"n": jnp.zeros(2, jnp.int32)}, r"wanted int32\[2\]"),
        (lambda tree: tree | {"m": jnp.int32(4)}, r"the file lacks \['m'\]"),
        (lambda tree: {k: v for k, v in tree.items() if k != "n"}, r"unasked, \['n'\]"),
    ],
)
def test_another_shape_dtype_or_structure_is_named(path, tree, change, message):
    with pytest.raises(ValueError, match=message):
        checkpoints.restore(path, change(tree))


def test_a_write_that_fails_leaves_nothing_beside_its_place(path, tree, monkeypatch):
    before = path.read_bytes()
    with pytest.raises(OSError):
        checkpoints.replace_file(path.parent, b"onto a folder")
    with pytest.raises(FileNotFoundError):
        checkpoints.replace_file(path.parent / "missing" / "file", b"")
    monkeypatch.setattr(checkpoints.os, "fsync", lambda _: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        checkpoints.replace_file(path, b"other")
    assert list(path.parent.iterdir()) == [path] and path.read_bytes() == before
    assert not path.parent.with_name(path.parent.name + ".partial").exists()


def test_strangers_are_refused(tmp_path, tree):
    from safetensors.numpy import save_file

    with pytest.raises(ValueError, match="is not a file"):
        checkpoints.metadata(tmp_path / "nothing")
    save_file({"x": np.zeros(2)}, tmp_path / "other")
    with pytest.raises(ValueError, match="not written by pgjax"):
        checkpoints.restore(tmp_path / "other", tree)
