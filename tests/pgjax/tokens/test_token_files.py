"""Tokenisers from files: texts are cut as GPT-2 cuts them, joins come in order, and what is damaged is refused."""

import json

import numpy as np
import pytest
from gguf_files import gguf_bytes

from pgjax import tokens
from pgjax.tokens._bpe import byte_characters, bytes_of, pieces

CHARACTERS = list(byte_characters().values())
JOINS = ["h e", "l l", "he ll", "hell o", "Ġ w", "Ġw o", "1 2"]
SPECIAL = ["<end>", "<start>"]
NAMES = SPECIAL + CHARACTERS + [join.replace(" ", "") for join in JOINS] + ["<tool>"]
KINDS = np.asarray([3, 3] + [1] * (len(CHARACTERS) + len(JOINS)) + [4])
METADATA = {
    "tokenizer.ggml.model": "gpt2",
    "tokenizer.ggml.pre": "smollm",
    "tokenizer.ggml.tokens": NAMES,
    "tokenizer.ggml.token_type": KINDS,
    "tokenizer.ggml.merges": JOINS,
    "tokenizer.ggml.bos_token_id": 1,
    "tokenizer.ggml.eos_token_id": 0,
    "tokenizer.ggml.padding_token_id": 0,
}


def written(tmp_path, **changes):
    path = tmp_path / "model.gguf"
    metadata = METADATA | {f"tokenizer.ggml.{name}": x for name, x in changes.items()}
    path.write_bytes(gguf_bytes({name: x for name, x in metadata.items() if x is not None}, {}))
    return path


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("Hello world", ["Hello", " world"]),
        ("it's  12 x", ["it", "'s", " ", " 12", " x"]),
        ("a\n\n b\t", ["a", "\n\n", " b", "\t"]),
        ("a \n b ", ["a", " \n", " b", " "]),
        ("naïve Ωmega №5", ["naïve", " Ωmega", " №", "5"]),
        ("½x ４ Ⅷ", ["½", "x", " ４", " Ⅷ"]),
        # U+001C is no white space for Unicode, although Python says so; U+3000 is.
        ("a\x1c\u3000b", ["a", "\x1c", "\u3000", "b"]),
        ("", []),
    ],
)
def test_a_text_is_cut_as_gpt2_cuts_it(text, wanted):
    assert list(pieces(text, single_digits=False)) == wanted


def test_every_digit_can_be_a_piece_of_its_own():
    assert list(pieces("a 12½", single_digits=True)) == ["a", " ", "1", "2", "½"]


def test_every_byte_has_a_character_of_its_own():
    assert len(set(CHARACTERS)) == 256 and all(c.isprintable() and c != " " for c in CHARACTERS)
    assert byte_characters()[32] == "Ġ" and bytes_of("Ġhé") == b" h\xe9" and bytes_of("漢") is None


def test_the_tokeniser_of_a_gguf_file_joins_in_order_and_gives_every_text_back(tmp_path):
    tokeniser = tokens.from_gguf(written(tmp_path))
    named = lambda text: [NAMES[i] for i in tokeniser.encode(text)]
    assert named("hello world") == ["hello", "Ġwo", "r", "l", "d"]
    assert named("hellll 12") == ["hell", "ll", "Ġ", "1", "2"]
    assert named("<end><tool>") == ["<", "e", "n", "d", ">", "<tool>"]
    assert (tokeniser.vocabulary, tokeniser.bos, tokeniser.eos, tokeniser.pad) == (len(NAMES), 1, 0, None)
    assert tokeniser.token_bytes[:2] == (b"", b"") and tokeniser.token_bytes[-1] == b"<tool>"
    for text in ("hello wörld\n漢字 \x00", "", "<tool> <end>"):
        found = tokeniser.encode(text)
        assert found.dtype == np.uint16 and tokeniser.decode(found) == text
        assert b"".join(tokeniser.token_bytes[i] for i in found) == text.encode()
    assert tokeniser.decode(np.asarray([1, *tokeniser.encode("he"), 0, 5])) == "he"


def test_special_tokens_are_read_only_where_asked(tmp_path):
    tokeniser = tokens.from_gguf(written(tmp_path), read_special=True)
    assert [NAMES[i] for i in tokeniser.encode("<start>he<end>")] == ["<start>", "he", "<end>"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "llama"}, r"tokenizer.ggml.model must be 'gpt2', got llama"),
        ({"pre": "qwen2"}, r"tokenizer.ggml.pre must be 'gpt-2' or 'smollm', got qwen2"),
        ({"tokens": None}, r"must have tokenizer.ggml.tokens of type list, got None"),
        ({"tokens": ["a", "a"]}, r"must be different and as many as their types, got 1 different ones of 2, and 266"),
        ({"token_type": KINDS[:-1]}, r"and 265 types"),
        ({"merges": ["he"]}, r"tokenizer.ggml.merges must be pairs with one space between, got \('he',\)"),
        ({"eos_token_id": 266}, r"tokenizer.ggml.eos_token_id must be in \[0, 265\], got 266"),
    ],
)
def test_a_damaged_tokeniser_is_refused_by_name(tmp_path, changes, message):
    path = written(tmp_path, **changes)
    with pytest.raises(ValueError, match=message) as caught:
        tokens.from_gguf(path)
    assert str(path) in str(caught.value)


def test_a_byte_without_a_token_is_named(tmp_path):
    kinds = KINDS.copy()
    kinds[2 + CHARACTERS.index("x")] = 3
    with pytest.raises(ValueError, match=r"only bytes with a token, got b'x' in ' xh'"):
        tokens.from_gguf(written(tmp_path, token_type=kinds)).encode("he xh")


def json_file(tmp_path):
    path = tmp_path / "tokenizer.json"
    vocabulary = {
        token: i for i, token in enumerate([*SPECIAL, *CHARACTERS, *(join.replace(" ", "") for join in JOINS)])
    }
    added = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    cut = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    digits = {"type": "Digits", "individual_digits": True}
    described = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": i, "content": name} | added for i, name in enumerate(SPECIAL)],
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [digits, cut]},
        "post_processor": None,
        "decoder": cut,
        "model": {"type": "BPE", "vocab": vocabulary, "merges": JOINS, "dropout": None, "unk_token": None},
    }
    path.write_text(json.dumps(described))
    return path


def test_a_tokenizer_json_encodes_as_the_gguf_file(tmp_path):
    pytest.importorskip("tokenizers")
    ours = tokens.from_gguf(written(tmp_path))
    theirs = tokens.from_json(json_file(tmp_path), eos="<end>", bos="<start>")
    assert theirs.token_bytes == ours.token_bytes[:-1] and (theirs.eos, theirs.bos, theirs.pad) == (0, 1, None)
    for text in ("hello world 12", "naïve 漢字½ \n\n x's <end>", "hellllo  \x1c\u3000"):
        np.testing.assert_array_equal(theirs.encode(text), ours.encode(text))
        assert theirs.decode(theirs.encode(text)) == text
    with pytest.raises(ValueError, match="has no token '<stop>' for eos"):
        tokens.from_json(json_file(tmp_path), eos="<stop>")
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ValueError, match=r"is no tokenizer.json that can be read"):
        tokens.from_json(tmp_path / "tokenizer.json")


def test_a_tokenizer_json_without_the_package_names_it(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "tokenizers", None)
    with pytest.raises(ImportError, match="needs the package tokenizers"):
        tokens.from_json(json_file(tmp_path))
