"""Tasks with one right answer: what is right, what is paid for it, and words that training never draws."""

import hashlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pgjax import environments
from pgjax.environments import spell_backward as spelling
from pgjax.environments.addition import DIGITS, make_addition

EOS, PAD = spelling.LETTERS.eos, spelling.LETTERS.pad


def play(environment, actions):
    """The rewards and ends of one episode, and the metrics at its end."""
    state, _ = environment.reset(jax.random.key(0), environment.params)
    steps = []
    for action in actions:
        state, step = environment.step(jax.random.key(1), state, jnp.int32(action), environment.params)
        steps.append(step)
    rewards, ends = [float(step.reward) for step in steps], [bool(step.terminated) for step in steps]
    return (
        rewards,
        ends,
        {k: float(x) for k, x in environment.metrics(state, steps[-1].obs, environment.params).items()},
    )


@pytest.mark.parametrize("name", ["spell_backward", "addition"])
def test_they_conform(name):
    report = environments.check(environments.make(name), num_steps=30, num_lanes=8)
    assert report.random_reset and not report.random_step and report.terminations > 0


@pytest.mark.parametrize("padding", ["front", "back"])
@pytest.mark.parametrize(
    ("written", "right"),
    [
        ("tac.", (1, 1, 1, 1)),
        ("tax.", (1, 1, 0, 1)),
        # EOS forgoes what follows; letters after the end of the word and an early EOS are wrong.
        ("t.", (1, 0)),
        ("tacos", (1, 1, 1, 0, 0)),
        ("aaaa.", (0, 1, 0, 0, 0)),
    ],
)
def test_a_letter_is_right_in_its_own_place_only(written, right, padding):
    actions = [EOS if letter == "." else ord(letter) - ord("a") for letter in written]
    make = lambda **options: spelling.make_spell_backward(("cat",), padding=padding, max_letters=4, **options)
    share, whole = sum(right) / 4, float(sum(right) == 4)
    rewards, ends, metrics = play(make(), actions)
    np.testing.assert_allclose(rewards, np.array(right) / 4, atol=1e-6)
    assert ends == [False] * (len(actions) - 1) + [written[-1] == "." or len(written) == 5]
    assert metrics["share_right"] == pytest.approx(share) and metrics["all_right"] == whole
    for options, paid in (({"paid": "end"}, share), ({"paid": "end", "reward": "all"}, whole)):
        rewards, _, _ = play(make(**options), actions)
        np.testing.assert_allclose(rewards, [0.0] * (len(actions) - 1) + [paid], atol=1e-6)


def test_prompts_have_the_padding_in_the_place_that_was_asked_for():
    words = ("cab", "a")
    np.testing.assert_array_equal(spelling.encode_words(words, 4), [[PAD, 2, 0, 1], [PAD, PAD, PAD, 0]])
    np.testing.assert_array_equal(spelling.encode_words(words, 4, "back"), [[2, 0, 1, PAD], [0, PAD, PAD, PAD]])


def test_the_word_list_is_that_of_bip_39_and_no_answer_of_a_part_is_a_prompt_of_the_other():
    words = spelling.english_words()
    digest = hashlib.sha256("".join(f"{word}\n" for word in words).encode()).hexdigest()
    assert digest == "2f5eed53a4727b4bf8880d8f3f199efc90e58503646d9ff8eff3a2ed3b24dbda"
    assert len(words) == 2048 and {len(word) for word in words} == set(range(3, 9))
    train, held_out = (set(spelling.part_of(words, part)) for part in ("train", "held_out"))
    assert train | held_out == set(words) and not train & held_out and 0.2 < len(held_out) / 2048 < 0.3
    assert not {word[::-1] for word in train} & held_out
    assert {"evil", "live"} <= train or {"evil", "live"} <= held_out
    # The environment draws from the same parts.
    of = lambda part: {tuple(row) for row in np.asarray(spelling.make_spell_backward(part).params.prompts)}
    assert len(of("train")) == len(train) and len(of("held_out")) == len(held_out)
    assert not of("train") & of("held_out") and not of("strings") & (of("train") | of("held_out"))


def test_random_strings_are_no_words_and_have_all_letters_and_lengths_equally_often():
    words = spelling.english_words()
    strings = spelling.random_strings(4000, words)
    assert not set(strings) & set(words)
    letters = np.bincount([ord(letter) - ord("a") for letter in "".join(strings)], minlength=26)
    lengths = np.bincount([len(text) for text in strings], minlength=9)[3:]
    assert len(lengths) == 6
    for counts in (letters, lengths):
        assert np.abs(counts - counts.mean()).max() < 4.5 * np.sqrt(counts.mean())
    assert spelling.random_strings(5, ("a",)) == tuple(spelling.random_strings(5, ("a",)))
    assert all(len(text) == 1 and text != "a" for text in spelling.random_strings(50, ("a",)))


def test_addition_carries():
    for lowest_first, right in ((False, "112"), (True, "211")):
        environment = make_addition(2, lowest_first=lowest_first)
        params = environment.params._replace(
            prompts=jnp.asarray(DIGITS.encode("37+75="))[None], prompt_lengths=jnp.full(1, 6)
        )
        state, _ = environment.reset(jax.random.key(0), params)
        for digit in right:
            state, step = environment.step(jax.random.key(0), state, jnp.int32(digit), params)
            assert float(step.reward) == pytest.approx(1 / 3)
        assert bool(step.terminated) and float(environment.metrics(state, step.obs, params)["all_right"]) == 1


@pytest.mark.parametrize("digits", [1, 2])
def test_held_out_sums_are_like_those_of_training(digits):
    every, train, held_out = (
        np.asarray(make_addition(digits, sums=sums).params.prompts).astype(int)
        for sums in ("every", "train", "held_out")
    )
    rows = [{tuple(row) for row in part} for part in (every, train, held_out)]
    assert len(rows[0]) == 100**digits and rows[1] | rows[2] == rows[0] and not rows[1] & rows[2]
    swapped = held_out[:, [*range(digits + 1, 2 * digits + 1), digits, *range(digits), 2 * digits + 1]]
    assert {tuple(row) for row in swapped} == rows[2]
    assert abs(len(held_out) / len(every) - 1 / 8) < 3 * np.sqrt(2 * 7 / 64 / len(every))
    if digits == 1:
        return
    # A pair and its exchange are one draw, hence the 2. A split by (a + 3 b) mod 8 would skew the parity of the sum.
    for of in (_digits_of_the_sum, _carries, lambda prompts: prompts[:, [0, 1, 3, 4]]):
        ours, theirs = of(held_out), of(every)
        for place in range(ours.shape[1]):
            for digit in range(10):
                share = (theirs[:, place] == digit).mean()
                error = np.sqrt(2 * share * (1 - share) / len(held_out))
                assert abs((ours[:, place] == digit).mean() - share) <= 4 * error


def _digits_of_the_sum(prompts):
    total = prompts[:, :2] @ [10, 1] + prompts[:, 3:5] @ [10, 1]
    return np.stack([total // 100, total // 10 % 10, total % 10, total % 2], 1)


def _carries(prompts):
    low = prompts[:, 1] + prompts[:, 4] > 9
    return np.stack([low, prompts[:, 0] + prompts[:, 3] + low > 9], 1).astype(int)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: spelling.make_spell_backward(("naïve",)), "must use the characters"),
        (lambda: spelling.make_spell_backward(("abcdefghi",)), "from 1 to 8 letters, got 'abcdefghi'"),
        (lambda: spelling.make_spell_backward(()), "at least one"),
        (lambda: spelling.make_spell_backward("test"), "words must be"),
        (lambda: spelling.make_spell_backward(reward="all"), "paid must be 'end' with reward='all'"),
        (lambda: make_addition(4), "digits must be"),
        (lambda: make_addition(sums="test"), "sums must be"),
    ],
)
def test_bad_arguments_are_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()
