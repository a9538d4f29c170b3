"""The gold score of an answer: a rule that needs no person, or a user's function. It is synthetic, and says so."""

import collections
import importlib
import re
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from experiments.shared.language import BYTES
from pgjax import automata
from pgjax.datasets.text import Document
from pgjax.environments.text import TextBuffer, answer
from pgjax.types import PyTree

LETTERS = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz'")
SEPARATORS = [byte for byte in range(256) if byte not in LETTERS]
FEWEST_WORDS = 6  # an answer of fewer words is judged as if its missing words were unknown
GRAM = 4
Score = Callable[[TextBuffer, PyTree], jax.Array]


class Gold(NamedTuple):
    """A gold score as `make_text` takes it.

    Attributes:
        score: `(buffer, params) → []`.
        params: what the score takes as its second argument.
        parts: `(buffer, params) → {name: []}`, what the score is made of.
    """

    score: Score
    params: PyTree
    parts: Callable[[TextBuffer, PyTree], dict[str, jax.Array]]


def common_words(documents: Iterable[Document], count: int) -> list[bytes]:
    """The most frequent words of the documents, in ASCII letters; those of equal frequency in alphabetical order."""
    found = collections.Counter(word for document in documents for word in re.findall(r"[A-Za-z']+", document.text))
    return [word.encode() for word, _ in sorted(found.items(), key=lambda item: (-item[1], item[0]))[:count]]


def repeated_share(tokens: jax.Array, length: jax.Array) -> jax.Array:
    """The share of the 4-grams of the first `length` tokens that occurred before among them; 0 without a 4-gram."""
    places = tokens.shape[0] - GRAM + 1
    grams = jnp.stack([tokens[i : i + places] for i in range(GRAM)], axis=-1)
    inside = jnp.arange(places) + GRAM <= length
    equal = jnp.all(grams[:, None] == grams[None], axis=-1)
    before = jnp.arange(places)[None] < jnp.arange(places)[:, None]
    repeated = jnp.any(equal & before & inside[None], axis=1) & inside
    return jnp.sum(repeated) / jnp.maximum(jnp.sum(inside), 1)


def good_sentence(words: Sequence[bytes]) -> Gold:
    """words + closed + fresh, each from 0 to 1, by automata over the bytes of the answer.

    words:   the words of the dictionary over all words, or over 6 if there are fewer words
    closed:  1 if the answer ends with ".", "!" or "?" and then EOS
    fresh:   1 − the share of 4-grams of bytes that occurred before in the answer

    Args:
        words: the dictionary.
    """
    how = {"vocabulary": BYTES.vocabulary, "separators": SEPARATORS}
    tables = {
        "known": automata.word_count(words, **how),
        "all": automata.word_count([b"a"], unknown=1.0, **how),
        "closed": automata.ends_with(b".!?", BYTES.vocabulary, eos=BYTES.eos),
    }

    def parts(buffer: TextBuffer, params: PyTree) -> dict[str, jax.Array]:
        tokens, length = answer(buffer)
        known, total, closed = (automata.score(params[name], tokens, length) for name in ("known", "all", "closed"))
        fresh = 1.0 - repeated_share(tokens, length)
        return {"words": known / jnp.maximum(total, FEWEST_WORDS), "closed": closed, "fresh": fresh}

    tables = jax.tree.map(jnp.asarray, tables)
    return Gold(score=lambda buffer, params: sum(parts(buffer, params).values()), params=tables, parts=parts)


def of_user(path: str) -> Gold:
    """The score `module:function` of a user; the function takes a `TextBuffer` and returns a number, in `jax.numpy`.

    Raises:
        ValueError: if the module cannot be imported, or has no such function.
    """
    module, _, name = path.partition(":")
    try:
        function = getattr(importlib.import_module(module), name)
    except Exception as error:  # whatever the user's module raises
        raise ValueError(
            f"--gold {path}: must be module:function, and the import failed: {type(error).__name__}: {error}"
        ) from error
    if not callable(function):
        raise ValueError(f"--gold {path}: must name a function of a TextBuffer, got {function!r}")
    return Gold(score=lambda buffer, params: function(buffer), params=(), parts=lambda buffer, params: {})
