"""What is saved comes back equal, and nothing else comes back."""

import json

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import optax
import pytest
from safetensors.numpy import save as serialise

from pgjax import _sealed, writing
from pgjax.saving import checkpoints


@pytest.fixture
def tree():
    params = {"w": jnp.arange(6.0).reshape(2, 3), "b": jnp.zeros(3, jnp.bfloat16)}
    return {"params": params, "optimizer": optax.adam(0.1).init(params), "key": jax.random.key(3), "n": jnp.int32(4)}


@pytest.fixture
def path(tmp_path, tree):
    checkpoints.save(tmp_path / "state.safetensors", tree, {"env": "maze", "hidden": [64, 64]})
    return tmp_path / "state.safetensors"


def raw(leaf):
    is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return np.asarray(jax.random.key_data(leaf) if is_key else leaf)


def assert_equal(got, tree):
    assert jax.tree.structure(got) == jax.tree.structure(tree)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(tree), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(raw(a), raw(b))


def test_round_trip(path, tree):
    assert_equal(checkpoints.restore(path, tree), tree)
    assert_equal(checkpoints.restore(path, jax.eval_shape(lambda: tree)), tree)
    assert checkpoints.metadata(path) == {"env": "maze", "hidden": [64, 64]}
    assert [file.name for file in path.parent.iterdir()] == ["state.safetensors"]


VALUES = {np.int64: 2**40 + 7, np.uint64: 2**63 + 1, np.float64: 1e300, np.complex64: 1 + 2j}


@pytest.mark.parametrize("dtype", _sealed.DTYPES.values(), ids=str)
def test_every_dtype_comes_back_and_no_other_is_taken_for_it(tmp_path, dtype):
    array = np.asarray([VALUES.get(dtype.type, 1)] * 2, dtype)
    checkpoints.save(tmp_path / "x", {"x": array})
    with jax.enable_x64(True):
        got = checkpoints.restore(tmp_path / "x", {"x": array})["x"]
        assert got.dtype == dtype
        np.testing.assert_array_equal(np.asarray(got), array)
    for other in _sealed.DTYPES.values():
        if other != dtype:
            with pytest.raises(ValueError, match=rf"x holds \['x'\] of {dtype}\[2\], wanted {other}\[2\]"):
                checkpoints.restore(tmp_path / "x", {"x": jax.ShapeDtypeStruct((2,), other)})


@pytest.mark.parametrize("dtype", [np.int64, np.uint64, np.float64])
def test_64_bits_are_not_narrowed_where_jax_has_32(tmp_path, dtype):
    array = np.asarray(VALUES[dtype], dtype)
    checkpoints.save(tmp_path / "x", {"x": array})
    with pytest.raises(ValueError, match=r"\['x'\] of \w+64, which JAX narrows to \w+32 .* JAX_ENABLE_X64=1"):
        checkpoints.restore(tmp_path / "x", {"x": array})


def test_python_numbers_are_saved_as_jax_takes_them(tmp_path):
    tree = {"n": 4, "x": 0.5, "on": True}
    checkpoints.save(tmp_path / "x", tree)
    assert_equal(checkpoints.restore(tmp_path / "x", tree), jax.tree.map(jnp.asarray, tree))
    with pytest.raises(ValueError, match=r"\['n'\] must be a number that fits JAX's integers, got 1099511627776"):
        checkpoints.save(tmp_path / "x", {"n": 2**40})


def test_foreign_byte_order_comes_back_exactly(tmp_path):
    tree = {"x": np.array([1.5, -2.0], ">f4"), "n": np.array([1, 256], ">i4")}
    checkpoints.save(tmp_path / "x", tree)
    got = checkpoints.restore(tmp_path / "x", tree)
    assert got["x"].tolist() == [1.5, -2.0] and got["n"].tolist() == [1, 256]


@pytest.mark.parametrize(
    "leaf",
    [
        np.ones(2, ml_dtypes.float8_e4m3fn),
        np.ones(2, ml_dtypes.int4),
        np.ones(2, np.complex128),
        np.ones(2, np.longdouble),
        np.array(["text"]),
        "text",
        print,
    ],
    ids=repr,
)
def test_what_a_file_cannot_give_back_is_not_saved(tmp_path, leaf):
    with pytest.raises(ValueError, match=r"tree \['x'\] must be an array of bool, int8, .*, got"):
        checkpoints.save(tmp_path / "x", {"x": leaf})
    assert not list(tmp_path.iterdir())


def test_leaves_whose_paths_read_alike_are_not_saved(tmp_path):
    class Key:
        def __init__(self, number):
            self.number = number

        def __lt__(self, other):
            return self.number < other.number

        def __repr__(self):
            return "key"

    with pytest.raises(ValueError, match="paths read alike"):
        checkpoints.save(tmp_path / "x", {Key(0): 1.0, Key(1): 2.0})


@pytest.mark.parametrize("generator", ["threefry2x32", "rbg", "unsafe_rbg"])
def test_keys_come_back_with_their_own_generator_only(tmp_path, generator):
    keys = {"one": jax.random.key(3, impl=generator), "many": jax.random.split(jax.random.key(4, impl=generator), 3)}
    checkpoints.save(tmp_path / "x", keys)
    assert_equal(checkpoints.restore(tmp_path / "x", keys), keys)
    other = "rbg" if generator != "rbg" else "unsafe_rbg"
    likes = [
        {"one": jax.random.key(3, impl=other), "many": keys["many"]},
        {"one": jax.random.key_data(keys["one"]), "many": keys["many"]},
    ]
    for like in likes:
        with pytest.raises(ValueError, match=r"holds \['one'\] of key<\w+>\[\], wanted"):
            checkpoints.restore(tmp_path / "x", like)
    words = {"one": jax.random.key_data(keys["one"])}
    checkpoints.save(tmp_path / "words", words)
    with pytest.raises(ValueError, match=r"of uint32\[\d\], wanted key<"):
        checkpoints.restore(tmp_path / "words", {"one": keys["one"]})


def test_a_file_of_format_1_is_read(tmp_path):
    arrays = {"['key']": np.array([1, 2], np.uint32), "['x']": np.ones(2, np.float32)}
    header = {"metadata": {"n": 1}, "sha256": _sealed.digest(arrays, {"n": 1})}
    (tmp_path / "old").write_bytes(serialise(arrays, {"pgjax": json.dumps(header)}))
    assert checkpoints.metadata(tmp_path / "old") == {"n": 1}
    got = checkpoints.restore(tmp_path / "old", {"key": jax.random.key(0), "x": jnp.zeros(2)})
    assert raw(got["key"]).tolist() == [1, 2] and got["x"].tolist() == [1.0, 1.0]
    with pytest.raises(ValueError, match=r"\['key'\] of key<fry>\[\], wanted key<rbg>"):
        checkpoints.restore(tmp_path / "old", {"key": jax.random.key(0, impl="rbg"), "x": jnp.zeros(2)})


def test_a_flipped_bit_anywhere_is_refused(tmp_path):
    tree = {"k": jax.random.key(3), "x": jnp.arange(2, dtype=jnp.int8)}
    checkpoints.save(tmp_path / "x", tree, {"env": "maze"})
    whole = (tmp_path / "x").read_bytes()
    for position in range(len(whole)):
        (tmp_path / "x").write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
        with pytest.raises(ValueError, match=r"path .*x "):
            checkpoints.restore(tmp_path / "x", tree)
    numbers = slice(8 + int.from_bytes(whole[:8], "little"), None)
    (tmp_path / "x").write_bytes(whole[: numbers.start] + bytes(byte ^ 16 for byte in whole[numbers]))
    with pytest.raises(ValueError, match="damaged: its digest does not match"):
        checkpoints.metadata(tmp_path / "x")


@pytest.mark.parametrize("length", [0, 5, 100, -1])
def test_a_file_cut_short_is_refused(path, tree, length):
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(ValueError, match=r"path .* is damaged"):
        checkpoints.restore(path, tree)


@pytest.mark.parametrize("start", [b"\xff" * 8, (10**9).to_bytes(8, "little"), (2).to_bytes(8, "little") + b"[]"])
def test_a_header_of_impossible_size_or_kind_is_refused(tmp_path, start):
    (tmp_path / "x").write_bytes(start + b"{}")
    with pytest.raises(ValueError, match=r"path .*x is damaged"):
        checkpoints.metadata(tmp_path / "x")


DIGEST = _sealed.digest({}, {})


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("[" * 100_000, "not JSON that can be read"),
        ("{", "not JSON that can be read"),
        ('{"n": ' + "9" * 10_000 + "}", "not JSON that can be read"),
        ("null", "its header must be an object, got None"),
        ("[1]", r"its header must be an object, got \[1\]"),
        ("{}", "'metadata' in its header must be an object, got None"),
        ('{"metadata": [], "sha256": ""}', r"'metadata' in its header must be an object, got \[\]"),
        ('{"metadata": {}, "sha256": 5}', "'sha256' in its header must be a string, got 5"),
        ('{"metadata": {}, "sha256": "\\u001b[31m"}', "its digest does not match"),
        ('{"metadata": {}, "sha256": "", "format": null}', "'format' in its header must be an integer, got None"),
        ('{"metadata": {}, "sha256": "", "format": 2, "generators": []}', "'generators' in its header must be an obj"),
        ('{"metadata": {}, "sha256": "", "format": 3, "generators": {}}', "format 3, and this pgjax reads formats 1"),
        (f'{{"metadata": {{}}, "sha256": "{DIGEST[:-1]}"}}', "its digest does not match"),
    ],
)
def test_a_bad_header_is_one_error_that_names_file_and_key(tmp_path, header, message):
    (tmp_path / "x").write_bytes(serialise({}, {"pgjax": header}))
    for read in (checkpoints.metadata, lambda path: checkpoints.restore(path, {})):
        with pytest.raises(ValueError, match=f"path .*x .*{message}") as caught:
            read(tmp_path / "x")
        assert str(caught.value).isprintable()


def test_deep_metadata_are_one_error_or_come_back(tmp_path):
    for depth in range(300, 1100, 20):
        text = '{"metadata": {"x": ' + "[" * depth + "]" * depth + f'}}, "sha256": "{DIGEST}"}}'
        (tmp_path / "x").write_bytes(serialise({}, {"pgjax": text}))
        with pytest.raises(ValueError, match="damaged"):
            checkpoints.metadata(tmp_path / "x")


@pytest.mark.parametrize("generator", ["nothing", None, 5, "rbg"])
def test_keys_of_an_odd_generator_are_refused(tmp_path, generator):
    arrays = {"['key']": np.array([1, 2], np.uint32)}
    covered = {"format": 2, "generators": {"['key']": generator}, "metadata": {}}
    header = json.dumps(covered | {"sha256": _sealed.digest(arrays, covered)})
    (tmp_path / "x").write_bytes(serialise(arrays, {"pgjax": header}))
    with pytest.raises(ValueError, match=r"x holds \['key'\] of uint32\[2\], which are no keys of the generator"):
        checkpoints.restore(tmp_path / "x", {"key": jax.random.key(0)})


def test_a_dtype_that_pgjax_does_not_read_is_refused(tmp_path):
    content = serialise({"x": np.ones(2, ml_dtypes.float8_e5m2)}, {"pgjax": "{}"})
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(ValueError, match="x holds x of F8_E5M2, which pgjax does not read"):
        checkpoints.metadata(tmp_path / "x")


@pytest.mark.parametrize("metadata", [{"x": float("nan")}, {"x": print}, {"x": {(1, 2): 3}}, ["x"]], ids=str)
def test_metadata_that_are_no_json_are_not_saved(tmp_path, metadata):
    with pytest.raises(ValueError, match=r"metadata must be .*JSON"):
        checkpoints.save(tmp_path / "x", {}, metadata)


def test_metadata_come_back_as_json_gives_them(tmp_path):
    # As texts, 10 stands before 9: a digest of the numbers would not be that of the texts.
    checkpoints.save(tmp_path / "x", {}, {"sizes": (1, 2), "named": {9: 0, 10: 1}})
    assert checkpoints.metadata(tmp_path / "x") == {"sizes": [1, 2], "named": {"9": 0, "10": 1}}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tree: tree | {"n": jnp.float32(4)}, r"holds \['n'\] of int32\[\], wanted float32\[\]"),
        (lambda tree: tree | {"n": jnp.zeros(2, jnp.int32)}, r"wanted int32\[2\]"),
        (lambda tree: tree | {"m": jnp.int32(4)}, r"it lacks \['m'\]"),
        (lambda tree: {k: v for k, v in tree.items() if k != "n"}, r"unasked, \['n'\]"),
    ],
)
def test_another_shape_dtype_or_structure_is_named(path, tree, change, message):
    with pytest.raises(ValueError, match=message):
        checkpoints.restore(path, change(tree))


def test_a_write_that_fails_leaves_nothing_beside_its_place(path, tree, monkeypatch):
    before = path.read_bytes()
    with pytest.raises(OSError):
        writing.replace_file(path.parent, b"onto a folder")
    with pytest.raises(writing.WriteError, match=r"cannot write .*missing.*: No such file"):
        writing.replace_file(path.parent / "missing" / "file", b"")
    monkeypatch.setattr(writing.os, "fsync", lambda _: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        writing.replace_file(path, b"other")
    assert list(path.parent.iterdir()) == [path] and path.read_bytes() == before
    assert not path.parent.with_name(path.parent.name + ".partial").exists()


def test_strangers_are_refused(tmp_path, tree):
    from safetensors.numpy import save_file

    with pytest.raises(ValueError, match="is not a file"):
        checkpoints.metadata(tmp_path / "nothing")
    save_file({"x": np.zeros(2)}, tmp_path / "other")
    with pytest.raises(ValueError, match="not written by pgjax"):
        checkpoints.restore(tmp_path / "other", tree)
