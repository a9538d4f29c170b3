"""Spell a word backward: the smallest task of language models that has real words and answers of different lengths.

Axes: N words, P = n_max + 1 places of a prompt, T = n_max + 1 new tokens, n letters of a word.
"""

import hashlib
import pathlib
import string
from collections.abc import Sequence
from typing import Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np

from pgjax import tokens
from pgjax._checks import require_integer, require_one_of
from pgjax._limits import read_whole
from pgjax.environments.right_answers import Paid, Reward, make_right_answer_text
from pgjax.environments.text import TextBuffer
from pgjax.types import Environment

Part = Literal["train", "held_out"]
Prompts = Literal["strings", "train", "held_out"]
Padding = Literal["front", "back"]
LETTERS = tokens.alphabet(string.ascii_lowercase)
EOS = len(string.ascii_lowercase)
_HELD_OUT_OF = 4  # every fourth word is held out, on average
_STRINGS = 2048


def english_words() -> tuple[str, ...]:
    """The 2048 words of the English list of BIP-39 (MIT licence), of 3 to 8 letters each.

    The list is public and will not change, because the keys of many people depend on it, so that another program can
    use the very same words.

    Example:
        >>> from pgjax.environments.spell_backward import english_words
        >>> english_words()[:3]
        ('abandon', 'ability', 'able')
    """
    return read_words(pathlib.Path(__file__).with_name("words.txt"))


def read_words(path: str | pathlib.Path) -> tuple[str, ...]:
    """The words of a file with one word a line; it leaves out empty lines, and lines that begin with #.

    Raises:
        ValueError: if the file is missing, larger than 16 MiB, or is not UTF-8.
    """
    path = pathlib.Path(path)
    try:
        text = read_whole(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"path {path} must be UTF-8 text, got another byte at offset {error.start}") from error
    lines = (line.strip() for line in text.splitlines())
    return tuple(line for line in lines if line and not line.startswith("#"))


def part_of(words: Sequence[str], part: Part) -> tuple[str, ...]:
    """The words of one part: `"held_out"`, about a quarter of them, or `"train"`, all others.

    A hash of the word decides. A word and its reverse (evil and live) are always in one part, so that no right answer
    of one part is a prompt of the other.

    Example:
        >>> from pgjax.environments.spell_backward import english_words, part_of
        >>> len(part_of(english_words(), "train")), len(part_of(english_words(), "held_out"))
        (1547, 501)
    """
    require_one_of("part", part, get_args(Part))
    return tuple(word for word in words if _is_held_out(word) == (part == "held_out"))


def _is_held_out(word: str) -> bool:
    digest = hashlib.sha256(min(word, word[::-1]).encode()).digest()
    return digest[0] % _HELD_OUT_OF == 0


def random_strings(count: int, words: Sequence[str], seed: int = 0) -> tuple[str, ...]:
    """Strings of random letters, none of which is one of the words, and as short or as long as these are.

    All lengths from the shortest word to the longest are equally probable, and so are all 26 letters.

    Raises:
        ValueError: for a number below one, or no words.

    Example:
        >>> from pgjax.environments.spell_backward import english_words, random_strings
        >>> random_strings(3, english_words())
        ('qnhibbae', 'qxnpzsq', 'oyhvra')
    """
    require_integer("count", count, 1, None)
    if not words:
        raise ValueError("words must be at least one, got none")
    rng, known, found = np.random.default_rng(seed), set(words), []
    shortest, longest = min(map(len, words)), max(map(len, words))
    while len(found) < count:
        letters = rng.integers(26, size=rng.integers(shortest, longest + 1))
        text = "".join(string.ascii_lowercase[letter] for letter in letters)
        if text not in known:
            found.append(text)
    return tuple(found)


def encode_words(words: Sequence[str], places: int, padding: Padding = "front") -> np.ndarray:
    """The prompts uint8 `[N, places]` of the words: letters are 0 … 25, and PAD (27) fills the other places.

    Raises:
        ValueError: for no word, an unknown padding, a character that is not one of a … z, or a word of no letter or of
            more than `places` − 1 letters, because at least one PAD marks where the word begins or ends.
    """
    require_one_of("padding", padding, get_args(Padding))
    if not words:
        raise ValueError("words must be at least one, got none")
    prompts = np.full((len(words), places), LETTERS.pad, np.uint8)
    for row, word in zip(prompts, words):
        if not 1 <= len(word) < places:
            raise ValueError(f"words must have from 1 to {places - 1} letters, got {word!r}")
        row[slice(-len(word), None) if padding == "front" else slice(len(word))] = LETTERS.encode(word)
    return prompts


def make_spell_backward(
    words: Sequence[str] | Prompts = "strings",
    reward: Reward = "share",
    paid: Paid = "each",
    padding: Padding = "front",
    max_letters: int = 8,
) -> Environment:
    """Write the letters of a word in the opposite order, and then EOS.

    X_1 is a `TextBuffer` with a word, drawn uniformly from a list. A_t is a letter or EOS; the answer ends with EOS or
    after n_max + 1 tokens. The right answer has n + 1 tokens: the letters of the word from its last to its first, and
    EOS. The score and the metrics are those of `make_right_answer_text`; `all_right` is the measure of success.

    The prompt always has n_max + 1 places, and PAD fills those that the word leaves free. With the padding in front,
    which is the usual choice where a language model answers several prompts at once, every answer begins in the same
    place, and its j-th letter is always the copy of one place. With the padding behind the word, the place to copy
    depends on n as well, and the same network learns much more slowly.

    Args:
        words: the words; or `"strings"`, 2048 `random_strings`, none of which is in `english_words`; or `"train"` or
            `"held_out"`, a part of `english_words`. In English words j, q, x and z are so rare that a policy learns
            them much later than the others. In random strings all letters are equally frequent, which is why they are
            the default for training.
        reward: `"share"` or `"all"`, see `make_right_answer_text`.
        paid: `"end"` or `"each"`, see `make_right_answer_text`.
        padding: `"front"` or `"back"`.
        max_letters: n_max, the number of letters of the longest word that fits. It fixes the shapes, so environments of
            other words can share a policy.

    Raises:
        ValueError: for words that `encode_words` refuses, or an unknown choice.

    Example:
        >>> from pgjax import environments
        >>> environments.make("spell_backward").action_space
        Discrete(28)
    """
    require_integer("max_letters", max_letters, 1, None)
    if isinstance(words, str):
        require_one_of("words", words, get_args(Prompts))
        known = english_words()
        parts = {part: part_of(known, part) for part in get_args(Part)}
        words = random_strings(_STRINGS, known) if words == "strings" else parts[words]
    places, vocabulary = max_letters + 1, LETTERS.vocabulary

    def right_answer(buffer: TextBuffer) -> tuple[jax.Array, jax.Array]:
        prompt = buffer.tokens[:places]
        count = jnp.sum(prompt != LETTERS.pad)
        at = jnp.arange(places)
        last = places if padding == "front" else count
        return jnp.where(at < count, prompt[jnp.clip(last - 1 - at, 0, places - 1)], EOS), count + 1

    return make_right_answer_text(
        "spell_backward",
        encode_words(words, places, padding),
        right_answer,
        reward=reward,
        paid=paid,
        max_new_tokens=places,
        vocabulary=vocabulary,
        eos=EOS,
        allowed=np.arange(vocabulary) != LETTERS.pad,
    )
