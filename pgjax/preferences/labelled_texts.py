"""Records of preferences as arrays of token buffers, for fits and for the direct optimisation of a policy.

The buffers are those of `environments.text`: a prompt, the answer directly behind it, and EOS at its end if it fits. So
a reward model is fitted to what it will score. Axes: N comparisons or rankings, k answers, L = P + T places.
"""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from pgjax._checks import require_integer, shown
from pgjax._doors import readable
from pgjax.environments.text import TextBuffer
from pgjax.preferences.fitting import Comparisons, Rankings
from pgjax.preferences.preference import TIES, Preference
from pgjax.tokens import Tokeniser


class BufferSize(NamedTuple):
    """The size of a text environment: P places for the prompt and T new tokens.

    Attributes:
        prompt_places: P ≥ 1.
        max_new_tokens: T ≥ 1, EOS included.
        bos: whether every prompt begins with the tokeniser's BOS token.
    """

    prompt_places: int
    max_new_tokens: int
    bos: bool = False


@readable
def text_buffers(prompts: Sequence[str], answers: Sequence[str], tokeniser: Tokeniser, size: BufferSize) -> TextBuffer:
    """Prompts and answers as NumPy buffers, leaves `[N, ...]`.

    An answer of fewer than T tokens gets an EOS, if the tokeniser has one. An answer of exactly T tokens is one that
    the limit cut off, and gets none.

    Raises:
        ValueError: if there is no text, or a prompt or an answer is too long; the error names its number and its
            length.
    """
    places, limit, bos = size
    require_integer("prompt_places", places, 1, None)
    require_integer("max_new_tokens", limit, 1, None)
    if not prompts or len(prompts) != len(answers):
        raise ValueError(
            f"there must be as many answers as prompts, and at least one, got {len(prompts), len(answers)}"
        )
    if bos and tokeniser.bos is None:
        raise ValueError(f"bos must be False for a tokeniser without BOS, got {bos}")
    tokens = np.zeros((len(prompts), places + limit), tokeniser.dtype)
    lengths, prompt_lengths = (np.zeros(len(prompts), np.int32) for _ in range(2))
    for row, texts in enumerate(zip(prompts, answers)):
        prompt, answer = (list(tokeniser.encode(text)) for text in texts)
        prompt = [tokeniser.bos, *prompt] if bos else prompt
        for name, found, most in (("prompt", prompt, places), ("answer", answer, limit)):
            if len(found) > most:
                text = shown(texts[name == "answer"])
                raise ValueError(f"{name} {row} must have at most {most} tokens, got {len(found)}: {text}")
        if len(answer) < limit and tokeniser.eos is not None:
            answer.append(tokeniser.eos)
        whole = prompt + answer
        tokens[row, : len(whole)] = whole
        lengths[row], prompt_lengths[row] = len(whole), len(prompt)
    return TextBuffer(tokens=tokens, length=lengths, prompt_length=prompt_lengths)


@readable
def fits(record: Preference, tokeniser: Tokeniser, size: BufferSize) -> bool:
    """Whether the prompt and all answers of a record have no more tokens than the buffers have places."""
    answers = record.ranking or (record.chosen, record.rejected)
    room = size.prompt_places - bool(size.bos)
    within = lambda text, most: len(tokeniser.encode(text)) <= most
    return within(record.prompt, room) and all(within(answer, size.max_new_tokens) for answer in answers)


@readable
def groups_of(records: Sequence[Preference]) -> np.ndarray:
    """int32 `[number of records]`: records of the same prompt have the same number, for the split of `fit`."""
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(record.prompt, len(numbers)) for record in records], np.int32)


class LabelledTexts(NamedTuple):
    """What `comparisons_of` returns, for `fit(key, model, labels, …, weights=weights, groups=groups)`.

    Attributes:
        labels: `Comparisons` of N pairs.
        weights: float `[N]`, 1 / (the number of pairs of the record), so that every record counts once.
        groups: int32 `[N]`, a number for each prompt.
    """

    labels: Comparisons
    weights: np.ndarray
    groups: np.ndarray


@readable
def comparisons_of(records: Sequence[Preference], tokeniser: Tokeniser, size: BufferSize) -> LabelledTexts:
    """All pairs that the records decide, and their ties.

    A ranking of k answers gives k (k − 1) / 2 pairs, and a choice of the best of k gives k − 1.

    Raises:
        ValueError: as `text_buffers`; take out the records that do not fit with `fits`.

    Source: for the weights of the pairs of a ranking, Ouyang et al. 2022, section 3.5.

    Example:
        >>> from pgjax import tokens
        >>> from pgjax.preferences import Preference, labelled_texts
        >>> record = Preference(prompt="a", chosen="b", rejected="d", ranking=["b", "c", "d"])
        >>> size = labelled_texts.BufferSize(prompt_places=2, max_new_tokens=4)
        >>> found = labelled_texts.comparisons_of([record], tokens.bytes_(), size)
        >>> print(found.labels.outcomes, found.weights.round(2))
        [0 0 0] [0.33 0.33 0.33]
    """
    pairs, rows, outcomes = [], [], []
    for row, record in enumerate(records):
        own = _pairs(record)
        pairs += own
        rows += [row] * len(own)
        outcomes += [0 if record.tie is None else 2 + TIES.index(record.tie)] * len(own)
    prompts = [records[row].prompt for row in rows]
    first, second = (text_buffers(prompts, [pair[i] for pair in pairs], tokeniser, size) for i in range(2))
    margins = jnp.array([records[row].margin or 0.0 for row in rows], float)
    labels = Comparisons(first=first, second=second, outcomes=jnp.array(outcomes, jnp.int32), margins=margins)
    weights = 1.0 / np.bincount(rows, minlength=len(records))[rows]
    return LabelledTexts(labels=labels, weights=weights.astype(np.float32), groups=groups_of(records)[rows])


def _pairs(record: Preference) -> list[tuple[str, str]]:
    if record.ranking is None or record.tie is not None:
        return [(record.chosen, record.rejected)]
    places = len(record.ranking) - 1 if record.places is None else record.places
    numbered = itertools.combinations(enumerate(record.ranking), 2)
    return [(better, worse) for (place, better), (_, worse) in numbered if place < places]


@readable
def rankings_of(records: Sequence[Preference], tokeniser: Tokeniser, size: BufferSize) -> Rankings:
    """The records as rankings of up to k answers, for the Plackett–Luce loss; a pair is a ranking of two.

    Raises:
        ValueError: if a record is a tie, which a ranking cannot express, or as `text_buffers`.
    """
    for row, record in enumerate(records):
        if record.tie is not None:
            raise ValueError(f"record {row} must not be a tie to be a ranking, got {record.tie!r}; use comparisons_of")
    answers = [record.ranking or (record.chosen, record.rejected) for record in records]
    k = max(map(len, answers), default=0)
    # Places without an answer hold the prompt alone; the mask hides them.
    padded = [[*own, *[""] * (k - len(own))] for own in answers]
    prompts = [record.prompt for record in records for _ in range(k)]
    flat = text_buffers(prompts, [answer for own in padded for answer in own], tokeniser, size)
    split = lambda x: x.reshape(len(records), k, *x.shape[1:])
    counts = np.array([len(own) for own in answers])
    places = [record.places or len(own) for record, own in zip(records, answers)]
    return Rankings(
        answers=TextBuffer(*map(split, flat)),
        mask=jnp.asarray(np.arange(k) < counts[:, None]),
        places=jnp.array(places, jnp.int32),
    )
