"""Scores that know a dictionary: the number of its words in a text, and their share.

A word is a longest run of tokens that are not separators. A word counts when a separator ends it, or when the answer
ends. Axes: S states, V tokens.
"""

from collections.abc import Iterable, Sequence

from pgjax._checks import require_integer
from pgjax._doors import readable
from pgjax.automata.automaton import Automaton
from pgjax.automata.building import MOST_STATES, explore

# The state inside a word that cannot become a word of the dictionary any more.
_UNKNOWN = -1


class _Dictionary:
    """The trie of a dictionary: a node is a number, 0 is the place between words."""

    def __init__(self, words: Iterable[Sequence[int]], separators: Iterable[int], vocabulary: int):
        self.separators = frozenset(int(token) for token in separators)
        self.children, self.words = {}, set()
        size = 1
        for word in words:
            node = 0
            if len(word) == 0 or self.separators & set(word) or not all(0 <= token < vocabulary for token in word):
                raise ValueError(
                    f"words must hold one or more tokens in [0, {vocabulary - 1}] that are not separators, got {word!r}"
                )
            for token in word:
                if (node, token) not in self.children:
                    self.children[node, token] = size
                    size += 1
                node = self.children[node, token]
            self.words.add(node)
        if not self.words or not self.separators or not all(0 <= token < vocabulary for token in self.separators):
            raise ValueError(
                f"words and separators must each hold at least one entry, with tokens in [0, {vocabulary - 1}], got "
                f"{len(self.words)} words and separators {sorted(self.separators)}"
            )

    def read(self, node: int, token: int) -> tuple[int, bool, bool]:
        """The node after a token, whether the token ends a word, and whether that word is in the dictionary."""
        if token in self.separators:
            return 0, node != 0, node in self.words
        return self.children.get((node, token), _UNKNOWN), False, False


@readable
def word_count(
    words: Iterable[Sequence[int]],
    vocabulary: int,
    *,
    separators: Iterable[int],
    known: float = 1.0,
    unknown: float = 0.0,
    limit: int = MOST_STATES,
) -> Automaton:
    """`known` for each word of the dictionary, and `unknown` for each other word. S = 1 + the nodes of a trie.

    Args:
        words: the dictionary, strings of tokens, such as `[b"the", b"cat"]` for texts of bytes.
        vocabulary: V.
        separators: the tokens between words; EOS belongs to them.
        known, unknown: the scores of one word.
        limit: the greatest number of states.

    Raises:
        ValueError: for an empty dictionary, no separator, a word with a separator or a token outside the vocabulary, or
            too many states.
    """
    trie = _Dictionary(words, separators, vocabulary)
    paid = lambda ends, right: (known if right else unknown) if ends else 0.0

    def read(node: int, token: int) -> tuple[int, float]:
        after, ends, right = trie.read(node, token)
        return after, paid(ends, right)

    final = lambda node: paid(node != 0, node in trie.words)
    return explore(0, read, final, vocabulary, limit=limit, name="the count of dictionary words")


@readable
def word_share(
    words: Iterable[Sequence[int]],
    vocabulary: int,
    *,
    separators: Iterable[int],
    most_words: int,
    empty: float = 0.0,
    limit: int = MOST_STATES,
) -> Automaton:
    """The share of the words of an answer that stand in the dictionary, from 0 to 1.

    A share is not a sum over tokens, so the state counts: (node of the trie, words of the dictionary so far, words so
    far). It is exact for answers of at most `most_words` words; of a longer answer it is the share among the first
    `most_words` words. There are at most (1 + nodes) (W + 1)(W + 2)/2 states for W = `most_words`.

    Args:
        words, vocabulary, separators, limit: as in `word_count`.
        most_words: W.
        empty: the score of an answer without any word.

    Raises:
        ValueError: as in `word_count`, and for W below 1.
    """
    require_integer("most_words", most_words, 1, None)
    trie = _Dictionary(words, separators, vocabulary)

    def counted(right: int, total: int, ends: bool, known: bool) -> tuple[int, int]:
        return (right + known, total + 1) if ends and total < most_words else (right, total)

    def read(state: tuple[int, int, int], token: int) -> tuple[tuple[int, int, int], float]:
        node, right, total = state
        if total == most_words:
            return (0, right, total), 0.0
        after, ends, known = trie.read(node, token)
        right, total = counted(right, total, ends, known)
        return (0 if total == most_words else after, right, total), 0.0

    def final(state: tuple[int, int, int]) -> float:
        node, right, total = state
        right, total = counted(right, total, node != 0, node in trie.words)
        return right / total if total else empty

    name = f"the share of dictionary words among {most_words} words"
    return explore((0, 0, 0), read, final, vocabulary, limit=limit, name=name)
