"""JSON from strangers: limits are looked at before Python reads it, and no content makes that slow."""

import time

import pytest

from pgjax import _json, _limits


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[" * 100_000, "at most 64 nested"),
        (b'"' + b"[" * 100, "valid syntax"),
        (b'{"a": 1, "a": 2}', "a: expected one entry of this name"),
        (b"[NaN]", "finite numbers, found NaN"),
        (b"[1e400]", "numbers that a float can hold"),
        (b"9" * 5000, "at most 4300 digits"),
        (b'{"x": "\xff"}', "encoding: expected UTF-8, found the byte 0xff at byte 7"),
        (b"[" + b"{}," * 5_000_000 + b"{}]", "at most 4194304 values"),
        (b'["' + b"\\" * 4_000_000, "valid syntax"),
        (b'"\\' * 1_000_000, "valid syntax"),
        (b"", "valid syntax"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_what_is_beyond_a_limit_is_refused_soon(content, message):
    began = time.process_time()
    with pytest.raises(_json.JsonError, match=message):
        _json.loads(content)
    assert time.process_time() - began < 2.0


def test_brackets_in_texts_are_not_depth():
    assert _json.loads(b'["' + b"[" * 1000 + b'\\"]"]') == ["[" * 1000 + '"]']
    assert _json.loads("[" * 64 + "]" * 64) is not None
    assert _json.loads(b"[Infinity]", infinite=True) == [float("inf")]


def test_a_file_is_named(tmp_path):
    (tmp_path / "x.json").write_text("[1]")
    with pytest.raises(ValueError, match=r"x\.json must hold a JSON object, got \[1\]"):
        _json.read_object(tmp_path / "x.json")
    with pytest.raises(ValueError, match=r"x\.json must have at most 2 bytes, got 3"):
        _json.read_object(tmp_path / "x.json", most_bytes=2)
    with pytest.raises(ValueError, match="none is not a file"):
        _json.read_object(tmp_path / "none")
    with pytest.raises(ValueError, match="is not a file"):
        _json.read_object(tmp_path)


def test_a_small_file_may_expand_to_a_fixed_size_and_a_large_one_by_a_factor():
    assert _limits.most_expanded(1000) == _limits.FREE_BYTES
    assert _limits.most_expanded(10**6) == 200 * 10**6
    assert _limits.most_expanded(10**9) == _limits.DATA_BYTES
