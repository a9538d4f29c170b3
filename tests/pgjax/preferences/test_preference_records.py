"""Files of preferences: what is written is read again, what is wrong is named, and a kill loses no answer."""

import json

import pytest

from pgjax.preferences import Preference, RecordError, records

PLAIN = Preference(prompt="The sky is", chosen=" blue.", rejected=" green.")
FULL = Preference(
    prompt="a\u2028b",
    chosen="é",
    rejected="",
    margin=0.5,
    tie="both_bad",
    annotator="ada",
    time_s=2.5,
    seed=2**63,
    step=3,
    policy="gru",
    logp_chosen=-1.5,
    logp_rejected=-2,
    ranking=("é", "c", ""),
    places=2,
    extra={"left": "chosen", "list": [{"deep": None}]},
)


def test_records_come_back_as_they_were(tmp_path):
    path = tmp_path / "labels.jsonl"
    for record in (PLAIN, FULL):
        records.append(path, record)
    assert records.read(path) == [PLAIN, FULL]
    records.write(path, [FULL, PLAIN])
    assert records.read(path) == [FULL, PLAIN]
    assert len({PLAIN, FULL}) == 2


def test_an_empty_file_and_blank_lines_and_a_byte_order_mark_are_no_errors(tmp_path):
    path = tmp_path / "labels.jsonl"
    path.write_bytes(b"")
    assert records.read(path) == []
    line = json.dumps(PLAIN.as_json()).encode()
    path.write_bytes(b"\xef\xbb\xbf" + line + b"\r\n\n" + line)
    assert records.read(path) == [PLAIN, PLAIN]
    # The last line is whole and lacks only its end.
    records.append(path, FULL)
    assert records.read(path) == [PLAIN, PLAIN, FULL]


GOOD = '"prompt": "", "chosen": "a", "rejected": "b"'


@pytest.mark.parametrize(
    ("line", "key", "found"),
    [
        (b'{"prompt": "", "chosen": "a"}', "rejected", "none"),
        (b'{"prompt": 3, "chosen": "a", "rejected": "b"}', "prompt", "int 3"),
        (b'{"prompt": "", "chosen": "\\ud800", "rejected": "b"}', "chosen", "surrogate"),
        (b'{"prompt": "", "chosen": "\xe9", "rejected": "b"}', "encoding", "0xe9"),
        (b"\xff\xfe{", "encoding", "UTF-16"),
        (f'{{{GOOD}, "margin": NaN}}'.encode(), "JSON", "NaN"),
        (f'{{{GOOD}, "margin": 1e999}}'.encode(), "JSON", "1e999"),
        (f'{{{GOOD}, "margin": "1"}}'.encode(), "margin", "str 1"),
        (f'{{{GOOD}, "margin": {"9" * 5000}}}'.encode(), "JSON", "5000"),
        (f'{{{GOOD}, "tie": "maybe"}}'.encode(), "tie", "maybe"),
        (f'{{{GOOD}, "step": true}}'.encode(), "step", "True"),
        (f'{{{GOOD}, "time_s": -1}}'.encode(), "time_s", "-1"),
        (f'{{{GOOD}, "ranking": ["b", "a"]}}'.encode(), "ranking[0]", "b"),
        (f'{{{GOOD}, "ranking": ["a"]}}'.encode(), "ranking", "1"),
        (f'{{{GOOD}, "ranking": ["a", "b"], "places": 2}}'.encode(), "places", "2"),
        (f'{{{GOOD}, "places": 1}}'.encode(), "places", "none"),
        (f'{{{GOOD}, "chosen": "b"}}'.encode(), "chosen", "several"),
        (f'{{{GOOD}, "x": {"[" * 100}{"]" * 100}}}'.encode(), "JSON", "more"),
        (b"[" * 100_000, "JSON", "more"),
        (b'"text"', "JSON", "str"),
        (b'{"text": "a"}', "entries", "text"),
        (b"{'prompt': ''}", "JSON", "property name"),
    ],
)
def test_a_wrong_line_is_refused_by_name(tmp_path, line, key, found):
    path = tmp_path / "labels.jsonl"
    first = b"" if line[:1] in (b"\xff", b"[") else json.dumps(PLAIN.as_json()).encode() + b"\n"
    path.write_bytes(first + line + b"\n")
    with pytest.raises(RecordError) as caught:
        records.read(path, repair=True)
    assert (caught.value.key, caught.value.file) == (key, path)
    assert found in caught.value.found
    if first:
        assert caught.value.line == 2
        assert "line 2" in str(caught.value) and str(path) in str(caught.value)


def test_limits_are_kept(tmp_path):
    path = tmp_path / "labels.jsonl"
    for _ in range(3):
        records.append(path, PLAIN)
    with pytest.raises(RecordError, match="at most 2 lines"):
        records.read(path, limits=records.Limits(lines=2))
    with pytest.raises(RecordError, match="line 1, length: expected at most 20 bytes"):
        records.read(path, limits=records.Limits(line_bytes=20))
    with pytest.raises(RecordError, match="fewer than 20 bytes"):
        records.append(path, PLAIN, limits=records.Limits(line_bytes=20))
    path.write_text("[" + ",".join([json.dumps(PLAIN.as_json())] * 3) + "]")
    assert records.read(path) == [PLAIN] * 3
    with pytest.raises(RecordError, match="at most 50 bytes"):
        records.read(path, limits=records.Limits(array_bytes=50))
    with pytest.raises(RecordError, match="at most 2 objects"):
        records.read(path, limits=records.Limits(lines=2))


def test_a_line_cut_short_by_a_kill_is_set_aside_and_not_lost(tmp_path):
    path = tmp_path / "labels.jsonl"
    records.append(path, FULL)
    whole = path.read_bytes()
    records.append(path, PLAIN)
    both = path.read_bytes()
    for end in range(len(whole) + 1, len(both) - 1):
        path.write_bytes(both[:end])
        with pytest.raises(RecordError, match="cut short"):
            records.read(path)
        with pytest.raises(RecordError, match="cut short"):
            records.append(path, PLAIN)
        assert path.read_bytes() == both[:end]
    cut = path.read_bytes()[len(whole) :]
    with pytest.warns(records.CutLineWarning, match="line 2 was cut short"):
        assert records.read(path, repair=True) == [FULL]
    assert path.read_bytes() == whole
    assert (tmp_path / "labels.jsonl.cut").read_bytes() == cut + b"\n"
    records.append(path, PLAIN)
    assert path.read_bytes() == both


def test_a_full_disk_leaves_the_file_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / "labels.jsonl"
    records.append(path, FULL)
    before = path.read_bytes()
    real = records.json_files.os.write

    def half(descriptor, content):
        real(descriptor, content[: len(content) // 2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(records.json_files.os, "write", half)
    with pytest.raises(OSError, match="No space"):
        records.append(path, PLAIN)
    assert path.read_bytes() == before


def test_wrong_paths_are_named(tmp_path):
    with pytest.raises(RecordError, match="found no such file"):
        records.read(tmp_path / "none.jsonl")
    with pytest.raises(RecordError, match="found a folder"):
        records.read(tmp_path)
    with pytest.raises(RecordError, match="no such folder"):
        records.append(tmp_path / "none" / "a.jsonl", PLAIN)
    with pytest.raises(RecordError, match="found a folder"):
        records.append(tmp_path, PLAIN)


@pytest.mark.parametrize("extra", [{"prompt": ""}, {"x": float("nan")}, {"x": {1, 2}}, {3: 4}, [1]])
def test_extra_entries_must_be_json(extra):
    with pytest.raises(RecordError):
        Preference(prompt="", chosen="a", rejected="b", extra=extra)
