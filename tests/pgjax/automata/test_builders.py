"""Every builder against a plain scorer in Python on random strings, and what is made from other automata."""

import itertools

import numpy as np
import pytest

from pgjax import automata
from pgjax.tokens import alphabet, bytes_

EOS = 5


def walk(automaton, tokens):
    """The score of a string, read table by table."""
    state, total = int(automaton.start), 0.0
    for token in tokens:
        total += automaton.rewards[state, token]
        state = automaton.next[state, token]
    return total + automaton.final[state]


def strings(vocabulary, longest, seed=0, number=400):
    """Random strings; the tokens are drawn from a few at a time, so that repetitions and matches are frequent."""
    draw = np.random.default_rng(seed)
    for _ in range(number):
        some = draw.choice(vocabulary, size=draw.integers(1, vocabulary + 1), replace=False)
        yield tuple(draw.choice(some, size=draw.integers(0, longest + 1)).tolist())


def agree(automaton, scorer, longest=9, seed=0):
    vocabulary = automaton.next.shape[1]
    scores = {text: scorer(text) for text in strings(vocabulary, longest, seed)}
    assert len(set(scores.values())) > 1, "a constant score tests nothing"
    for text, wanted in scores.items():
        np.testing.assert_allclose(walk(automaton, text), wanted, err_msg=str(text))


def content(text):
    return [token for token in text if token != EOS]


def test_lengths_and_counts():
    values = [3.0, -1.0, 2.0, 0.5]
    agree(automata.length(values, 6, eos=EOS), lambda text: values[min(len(content(text)), 3)])
    agree(automata.length(values, 6), lambda text: values[min(len(text), 3)])
    agree(automata.count([0, 2], 6, value=0.5), lambda text: 0.5 * sum(token in (0, 2) for token in text))


@pytest.mark.parametrize("wanted", [(0,), (0, 1), (0, 0), (0, 1, 0, 0), (1, 1, 0, 1, 1)])
def test_patterns(wanted):
    found = lambda text: sum(text[k : k + len(wanted)] == wanted for k in range(len(text)))
    counting = automata.pattern(wanted, 2)
    assert counting.next.shape == (len(wanted), 2)
    agree(counting, found, longest=12)
    agree(automata.ever(counting), lambda text: float(found(text) > 0), longest=12)
    agree(automata.never(counting, value=2.0), lambda text: 2.0 * (found(text) == 0), longest=12)


def well_formed(text, pairs, quotes, depth):
    opens, closes, stack = dict(pairs), {b: a for a, b in pairs}, []
    for token in text:
        if stack and token in quotes and stack[-1] == token:
            stack.pop()
        elif token in opens or token in quotes:
            stack.append(token)
            if len(stack) > depth:
                return 0.0
        elif token in closes and (not stack or stack.pop() != closes[token]):
            return 0.0
    return float(not stack)


@pytest.mark.parametrize(("pairs", "quotes"), [([(0, 1)], ()), ([(0, 1), (2, 3)], ()), ([(0, 1)], (2,)), ((), (1, 2))])
def test_balanced_brackets_and_quotes(pairs, quotes):
    for depth in (1, 2, 3):
        automaton = automata.balanced(pairs, 5, depth=depth, quotes=quotes)
        agree(automaton, lambda text, depth=depth: well_formed(text, pairs, quotes, depth), longest=6)
    kinds = len(pairs) + len(quotes)
    # A quote of one kind cannot be nested directly in itself, so fewer stacks than k^depth may be reached.
    assert automaton.next.shape[0] <= 2 + sum(kinds**d for d in (1, 2, 3))


def repeated(text, size, window):
    """The places whose n-gram has occurred before, at most `window` places earlier."""
    grams = [text[k : k + size] for k in range(len(text) - size + 1)]
    return sum(
        any(grams[k] == grams[i] for k in range(i) if window is None or i - k <= window) for i in range(len(grams))
    )


@pytest.mark.parametrize(("size", "window"), [(1, 1), (1, 3), (2, 2), (2, 4), (1, None), (2, None), (3, 1)])
def test_repetitions(size, window):
    eos = 2
    counting = automata.repetitions(3, size=size, window=window, ignored=[eos], value=-0.5)
    kept = lambda text: tuple(token for token in text if token != eos)
    agree(counting, lambda text: -0.5 * repeated(kept(text), size, window))
    none = automata.no_repetition(3, size=size, window=window, ignored=[eos])
    agree(none, lambda text: float(repeated(kept(text), size, window) == 0))


def test_the_end_of_a_sentence():
    agree(automata.ends_with([0, 2], 6), lambda text: float(bool(text) and text[-1] in (0, 2)))
    closed = lambda text: float(len(text) > 1 and text[-1] == EOS and text[-2] in (0, 2))
    automaton = automata.ends_with([0, 2], 6, eos=EOS)
    for text in strings(6, 6):
        text = (*content(text), *[EOS] * (len(text) % 2))
        assert walk(automaton, text) == closed(text)
    assert walk(automaton, (0, EOS)) == 1.0


WORDS = [(0,), (0, 1), (1, 1, 0)]


def words_of(text, separators):
    runs = itertools.groupby(text, lambda token: token in separators)
    return [tuple(run) for separates, run in runs if not separates]


def test_dictionary_words():
    separators = (2, 3)
    good = lambda text: [word in WORDS for word in words_of(text, separators)]
    count = automata.word_count(WORDS, 4, separators=separators, unknown=-0.25)
    agree(count, lambda text: sum(1.0 if known else -0.25 for known in good(text)), longest=10)
    for most in (1, 2, 5):
        share = automata.word_share(WORDS, 4, separators=separators, most_words=most, empty=0.3)
        agree(share, lambda text, most=most: np.mean(good(text)[:most]) if good(text) else 0.3, longest=10)


def test_sums_and_aligned_automata_share_their_states():
    parts = [automata.pattern((0, 1), 3), automata.length([0.0, 1.0, 5.0], 3), automata.ends_with([2], 3)]
    total = automata.weighted_sum(parts, [2.0, -1.0, 0.5])
    by_hand = lambda text: sum(w * walk(part, text) for w, part in zip((2.0, -1.0, 0.5), parts))
    agree(total, by_hand)
    assert total.next.shape[0] <= np.prod([part.next.shape[0] for part in parts])
    for same, part in zip(automata.aligned(*parts), parts):
        np.testing.assert_array_equal(same.next, total.next)
        agree(same, lambda text, part=part: walk(part, text))


def test_tokens_of_several_bytes_score_the_text_that_they_spell():
    token_bytes = (b"a", b"ab", b"aab", b"b", b"", b"")
    eos = 4
    over_bytes = automata.weighted_sum([automata.pattern(b"ab", 256), automata.ends_with(b"b", 256, eos=255)])
    lifted = automata.over_tokens(over_bytes, token_bytes, special={eos: 255})
    assert lifted.next.shape == (over_bytes.next.shape[0], 6)
    spelled = lambda text: b"".join(b"\xff" if token == eos else token_bytes[token] for token in text)
    agree(lifted, lambda text: walk(over_bytes, spelled(text)))
    unread = automata.over_tokens(over_bytes, token_bytes)
    assert walk(unread, (0, eos, 3)) == 1.0


def test_bytes_and_alphabets_are_strings_of_tokens():
    automaton = automata.balanced([b"()", b"[]"], 256, depth=3)
    for text, wanted in (("f(x[1])", 1.0), ("f(x[1)]", 0.0), ("(", 0.0), ("((((", 0.0), ("", 1.0)):
        assert walk(automaton, bytes_().encode(text)) == wanted
    letters = alphabet("abc .")
    words = [letters.encode(word) for word in ("a", "cab")]
    share = automata.word_share(
        words, letters.vocabulary, separators=[*letters.encode(" ."), letters.eos], most_words=4
    )
    assert walk(share, [*letters.encode("a cab ba."), letters.eos]) == pytest.approx(2 / 3)


def test_minimised_automata_score_the_same_with_fewer_states():
    wide = automata.weighted_sum([automata.length([0.0, 1.0, 1.0, 1.0, 1.0], 3), automata.pattern((0, 1), 3)])
    small = automata.minimised(wide)
    assert small.next.shape[0] == 3 < wide.next.shape[0]
    agree(small, lambda text: walk(wide, text))
    unreachable = automata.make_automaton(np.array([[1, 1], [1, 1], [0, 0]]), final=np.array([0.0, 1.0, 2.0]))
    assert automata.minimised(unreachable).next.tolist() == [[1, 1], [1, 1]]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (
            lambda: automata.repetitions(4, size=2, limit=1000),
            "repetitions of 2 of 4 tokens anywhere needs",
        ),
        (lambda: automata.balanced([(0, 0)], 3, depth=1), "each token once"),
        (lambda: automata.balanced([(0, 7)], 3, depth=1), r"tokens in \[0, 2\], got 7"),
        (lambda: automata.balanced([(0, 1)], 3, depth=0), "depth must be at least 1, got 0"),
        (lambda: automata.pattern((), 3), "at least one token, got none"),
        (lambda: automata.length([], 3), "the score of each length"),
        (lambda: automata.word_count([(0, 2)], 3, separators=[2]), "words must hold one or more tokens"),
        (lambda: automata.word_share([(0,)], 3, separators=[], most_words=2), "at least one entry"),
        (lambda: automata.aligned(automata.count([0], 2), automata.count([0], 3)), r"vocabularies of \[2, 3\] tokens"),
        (lambda: automata.weighted_sum([automata.count([0], 2)], [1.0, 2.0]), "weights must hold 1 numbers"),
        (lambda: automata.over_tokens(automata.count([0], 2), (b"a",)), "bytes below 2, got byte 97"),
    ],
)
def test_bad_arguments_are_refused(make, said):
    with pytest.raises(ValueError, match=said):
        make()
