import numpy as np
import pytest

from pgjax import tokens


def test_bytes_lose_nothing_and_special_tokens_are_no_text():
    tokeniser = tokens.bytes_()
    text = "naïve “text” \x00 🐍\n"
    encoded = tokeniser.encode(text)
    assert tokeniser.decode(encoded) == text
    assert encoded.dtype == tokeniser.dtype == np.uint8
    assert not set(encoded) & set(tokeniser.special)
    assert len(set(tokeniser.special)) == 3
    assert b"".join(tokeniser.token_bytes[token] for token in encoded) == text.encode()


def test_decoding_stops_at_eos_skips_padding_and_shows_broken_bytes():
    tokeniser = tokens.bytes_()
    ended = [tokeniser.bos, *b"ab", tokeniser.pad, ord("c"), tokeniser.eos, *b"rest"]
    assert tokeniser.decode(np.array(ended)) == "abc"
    assert tokeniser.decode(np.array([0xC3, ord("x")])) == "\ufffdx"


def test_an_alphabet_has_one_token_a_character():
    letters = tokens.alphabet("xyz ")
    assert (letters.vocabulary, letters.eos, letters.pad, letters.bos) == (6, 4, 5, None)
    assert letters.decode(letters.encode("zy x")) == "zy x"
    assert letters.decode(np.array([0, 5, 1, 4, 2])) == "xy"
    with pytest.raises(ValueError, match="must use the characters 'xyz ', got 'q'"):
        letters.encode("xyq")
    with pytest.raises(ValueError, match="all different, got 'aba'"):
        tokens.alphabet("aba")
