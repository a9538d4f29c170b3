"""The order of the pairs, the agreement of answers, and the forecast of the labels that are needed."""

import math
import random

import numpy as np
import pytest

from experiments.preferences import examples, labels, pairs, planning, plans, trials, wording
from experiments.preferences.agreement import agreement, wilson
from pgjax.preferences import Preference

PAIRS = [pairs.Pair(prompt="p", answers=(f"a {number}", f"b {number}")) for number in range(200)]


def test_the_order_is_random_in_places_and_sides_and_fixed_by_the_seed():
    ordered = trials.order(PAIRS, 3, 0.08)
    assert ordered == trials.order(PAIRS[::-1], 3, 0.08) != trials.order(PAIRS, 4, 0.08)
    first = [trial for trial in ordered if trial.occurrence == 0]
    assert {trial.pair for trial in first} == set(PAIRS) and len(first) == 200
    ranks = [PAIRS.index(trial.pair) for trial in first]
    assert abs(np.corrcoef(ranks, np.arange(200))[0, 1]) < 0.2
    assert 70 < sum(trial.exchanged for trial in first) < 130  # 100 ± 4 standard deviations of 7
    # The side belongs to the answer: it is the same if the file lists the answers the other way round.
    swapped = [pairs.Pair(prompt=pair.prompt, answers=pair.answers[::-1]) for pair in PAIRS]
    assert [trial.shown for trial in trials.order(swapped, 3, 0.08)] == [trial.shown for trial in ordered]


def test_repeats_are_as_many_as_asked_and_exchange_the_sides():
    ordered = trials.order(PAIRS, 0, 0.1)
    place = {trial.name: number for number, trial in enumerate(ordered)}
    repeats = [trial for trial in ordered if trial.occurrence]
    assert len(repeats) == 20
    for trial in repeats:
        original = ordered[place[f"{trial.pair.name}-0"]]
        assert original.shown == trial.shown[::-1]
        assert place[trial.name] - place[original.name] >= 5
    assert not any(trial.occurrence for trial in trials.order(PAIRS, 0, 0.0))


def test_more_pairs_keep_the_order_and_the_sides_of_the_others():
    known = trials.order(PAIRS[:50], 0, 0.0)
    kept = [trial for trial in trials.order(PAIRS, 0, 0.0) if trial.pair in PAIRS[:50]]
    assert kept == known


def test_wilsons_interval_has_the_published_values():
    """Newcombe 1998 (Two-sided confidence intervals for the single proportion), table I: 81 of 263 and 0 of 20."""
    found = wilson(81, 263)
    assert (round(found.low, 4), round(found.high, 4)) == (0.2553, 0.3662)
    found = wilson(0, 20)
    assert (round(found.low, 4), round(found.high, 4)) == (0.0, 0.1611)
    with pytest.raises(ValueError, match="got 3 of 2"):
        wilson(3, 2)


def test_kappa_is_that_of_a_worked_example():
    """20 and 15 equal judgements of 50, 5 and 10 unequal ones: p_o = 0.7, p_e = 0.5, κ = 0.4."""
    first = [0] * 25 + [1] * 25
    second = [0] * 20 + [1] * 5 + [0] * 10 + [1] * 15
    found = agreement(first, second)
    assert (found.count, found.share.value, round(found.kappa.value, 12)) == (50, 0.7, 0.4)
    assert found.kappa.low < 0.4 < found.kappa.high < 1
    assert agreement([0, 1, 2], [0, 1, 2]).kappa.value == 1 and agreement([0, 1, 2], [0, 1, 2]).kappa.low < 0.9
    # Which answer is called 0 has no meaning: to choose it always is no more agreement by chance than to choose either.
    assert agreement([0, 0, 0, 1], [0, 0, 1, 0]).kappa == agreement([0, 1, 0, 1], [0, 1, 1, 0]).kappa
    assert agreement([2, 2], [2, 2]).kappa is None and agreement([], []).share is None
    with pytest.raises(ValueError, match="alike"):
        agreement([1], [1, 2])


def test_kappas_interval_covers():
    """Judges who copy 60 % of the answers and else judge by chance have κ = 0.6; the interval should cover it."""
    generator, hits = np.random.default_rng(0), 0
    for _ in range(300):
        first = generator.choice(4, p=[0.3, 0.3, 0.3, 0.1], size=30)
        second = np.where(generator.random(30) < 0.6, first, generator.choice(4, p=[0.3, 0.3, 0.3, 0.1], size=30))
        found = agreement(list(first), list(second)).kappa
        hits += found.low <= 0.6 <= found.high
    assert 0.9 * 300 < hits < 300


def test_the_self_agreement_is_that_of_simulated_answers():
    for scale in (0.5, 2.0, 10.0):
        generator = np.random.default_rng(1)
        p = 1 / (1 + np.exp(-scale * generator.normal(size=200_000)))
        same = (generator.random(p.size) < p) == (generator.random(p.size) < p)
        assert abs(same.mean() - planning.self_agreement(scale)) < 4 * 0.5 / math.sqrt(p.size)
    assert planning.self_agreement(0.0) == pytest.approx(0.5, abs=1e-9)
    for wanted in (0.6, 0.9):
        assert planning.self_agreement(planning.scale_of(wanted)) == pytest.approx(wanted, abs=1e-9)
    assert planning.scale_of(0.2) == planning.scale_of(0.51) and planning.scale_of(1.0) == planning.scale_of(0.98)


def test_the_fit_is_the_maximum_of_its_posterior():
    generator = np.random.default_rng(0)
    x, scale = generator.normal(size=(3, 40, 4)), 2.0
    first = generator.random((3, 40)) < 0.5
    w = planning.fit(x, first, scale)
    sign = np.where(first, 1.0, -1.0)

    def objective(w):
        return -np.logaddexp(0, -sign * np.einsum("rnd,rd->rn", x, w)).sum(1) - 4 / (2 * scale**2) * (w**2).sum(1)

    best = objective(w)
    for direction in np.eye(4):
        for step in (1e-3, -1e-3):
            assert (objective(w + step * direction) < best).all()


def test_the_accuracy_is_that_of_new_pairs():
    """The formula 1 − arccos(ρ)/π and the chance to match the next answer, against simulated pairs."""
    generator = np.random.default_rng(0)
    for cosine, scale in ((0.5, 1.0), (0.9, 3.0)):
        z, other = generator.normal(size=(2, 200_000))
        predicted = cosine * z + math.sqrt(1 - cosine**2) * other > 0
        assert np.mean(predicted == (z > 0)) == pytest.approx(1 - math.acos(cosine) / math.pi, abs=0.005)
        answer = generator.random(z.size) < 1 / (1 + np.exp(-scale * z))
        assert np.mean(predicted == answer) == pytest.approx(planning._matched(cosine, scale), abs=0.005)


def test_more_labels_more_agreement_and_fewer_features_help():
    accuracy = [point.accuracy for point in planning.curve(0.8, 8, sizes=(25, 100, 400))]
    assert 0.6 < accuracy[0] < accuracy[1] < accuracy[2] < 1
    for point in planning.curve(0.8, 8, sizes=(25, 400)):
        assert point.matched < point.ceiling < 1 and point.matched < point.accuracy
    assert planning.needed(0.9, 0.9, 8) < planning.needed(0.7, 0.9, 8)
    assert planning.needed(0.8, 0.9, 4) < planning.needed(0.8, 0.9, 32)
    assert planning.needed(0.6, 0.999, 32, sizes=(25, 50)) is None and planning.needed(0.98, 0.51, 1) == 25
    number = planning.needed(0.8, 0.9, 8)
    assert planning.forecast(0.8, number, 8).accuracy == pytest.approx(0.9, abs=0.02)


def test_the_plan_is_an_assumption_until_there_are_repeats():
    assumed = plans.plan([0] * 4, [0] * 4, 0.9, 8)
    assert (assumed.share, assumed.low, assumed.repeats) == (plans.ASSUMED, None, 4)
    assert "assumes that you make the same choice in 80%" in wording.plan(assumed, 3, 0.9)
    measured = plans.plan([0, 1] * 20, [0, 1] * 18 + [1, 0] * 2, 0.9, 8)
    assert measured.share == 0.9 and measured.fewest <= measured.needed <= measured.most_needed
    text = wording.plan(measured, 10_000, 0.9)
    assert "You made the same choice in 90% of the 40 pairs" in text and text.endswith(", which is enough.")
    ties = plans.plan([0, 1, 2, 3, 2] * 8, [0, 1, 2, 0, 1] * 8, 0.9, 8)
    assert (ties.repeats, ties.share) == (16, 1.0)
    hopeless = plans.plan([0, 1] * 20, [0, 1] * 10 + [1, 0] * 10, 0.999, 16)
    assert hopeless.needed is None and "more than 3200 choices" in wording.plan(hopeless, 5, 0.999)


def test_a_category_does_not_depend_on_the_order_of_the_answers():
    record = lambda chosen, rejected, tie=None: Preference(prompt="p", chosen=chosen, rejected=rejected, tie=tie)
    assert labels.category(record("a", "b")) == 0 and labels.category(record("b", "a")) == 1
    assert labels.category(record("b", "a", "equal")) == 2 and labels.category(record("a", "b", "both_bad")) == 3
    assert labels.name_of(record("a", "b")) == labels.name_of(record("b", "a"))


def test_example_pairs_are_the_same_for_a_seed_and_their_models_know_the_text():
    made = list(examples.make(3, 0))
    assert made == list(examples.make(3, 0))
    assert all(len(list(pairs.pairs_of(record))) == 1 for record in made)
    text = "abcabd" * 20
    models = examples.CharacterModels(text, 3)
    sample = models.sample(random.Random(0), 3, "ab", 50)
    assert len(sample) == 50 and all(("ab" + sample)[i : i + 4] in text for i in range(48))
    with pytest.raises(ValueError, match="'z'"):
        models.sample(random.Random(0), 3, "z", 5)
    follow = models.sample(random.Random(1), 1, "b", 1000)
    after_b = [after for before, after in zip("b" + follow, follow) if before == "b"]
    assert 0.4 < after_b.count("c") / len(after_b) < 0.6  # half of the time in the text
