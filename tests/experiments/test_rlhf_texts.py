"""The scores, features, prompts and counts of the loop on text, each on texts that are written out here."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.rlhf import gold, report
from experiments.rlhf.problem import make_features
from experiments.shared import language
from pgjax.datasets.text import Document
from pgjax.environments.text import TextBuffer


def test_the_gold_score_is_what_it_says():
    found = gold.good_sentence([b"the", b"cat", b"sat"])
    buffer = lambda prompt, answer: TextBuffer(
        tokens=np.frombuffer((prompt + answer).ljust(64, b"\0"), np.uint8),
        length=np.int32(len(prompt + answer)),
        prompt_length=np.int32(len(prompt)),
    )
    judge = jax.jit(found.parts)
    parts = lambda answer: {k: float(v) for k, v in judge(buffer(b"\xfethe ", answer), found.params).items()}
    assert parts(b"the cat sat the cat sat.\xff")["words"] == 1.0
    assert parts(b"the cat sat the cat sat.\xff")["closed"] == 1.0
    assert parts(b"the dog sat.")["words"] == pytest.approx(2 / 6) and parts(b"the dog sat.")["closed"] == 0.0
    assert parts(b"one two three four five six the the")["words"] == pytest.approx(2 / 8)
    assert parts(b"abcdabcd")["fresh"] == pytest.approx(1 - 1 / 5) and parts(b"aaaaaa")["fresh"] == pytest.approx(1 / 3)
    # The prompt has no influence, and the score is the sum.
    other = judge(buffer(b"\xfexyz xyz ", b"the cat.\xff"), found.params)
    assert {k: float(v) for k, v in other.items()} == parts(b"the cat.\xff")
    total = float(jax.jit(found.score)(buffer(b"\xfe", b"the cat.\xff"), found.params))
    assert total == pytest.approx(sum(parts(b"the cat.\xff").values()))


def test_a_score_of_a_user_is_imported_and_a_wrong_one_refused(tmp_path, monkeypatch):
    (tmp_path / "my_score.py").write_text("def length(buffer):\n    return buffer.length - buffer.prompt_length\n")
    monkeypatch.syspath_prepend(tmp_path)
    buffer = TextBuffer(tokens=jnp.zeros(4), length=jnp.int32(3), prompt_length=jnp.int32(1))
    assert gold.of_user("my_score:length").score(buffer, ()) == 2
    for wrong in ("my_score:no", "no_module:x", "sentences"):
        with pytest.raises(ValueError, match=f"--gold {wrong}"):
            gold.of_user(wrong)


def test_features_tell_classes_of_bytes_apart():
    features = make_features(10)
    count = lambda text: np.asarray(
        features(TextBuffer(np.frombuffer(text.ljust(12), np.uint8), np.int32(len(text)), np.int32(0)))
    )
    assert count(b"ab.").shape == (1025,)
    np.testing.assert_array_equal(count(b"AB1 x"), count(b"QZ7 x"))
    assert (count(b"ab.") != count(b"ac.")).any() and (count(b"ab.") != count(b"ab,")).any()


def test_prompts_begin_with_bos_and_end_with_a_word():
    documents = [
        Document(str(n), text) for n, text in enumerate(("One two three.", "One two four.", "Short.", "Nospacehere"))
    ]
    found = language.make_prompts(documents, 9, whole_words=True)
    assert found.tokens.shape == (1, 10) and found.lengths.tolist() == [9]
    assert bytes(found.tokens[0]) == b"\xfeOne two \0"
    assert len(language.make_prompts(documents, 9).lengths) == 3
    with pytest.raises(ValueError, match="documents of more than 99 bytes"):
        language.make_prompts(documents, 99)


def test_distinct_counts_pairs_of_words():
    assert report.distinct(["a b a b", "a b"], 2) == pytest.approx(2 / 4)
    assert report.distinct(["a", ""], 2) == 0.0
