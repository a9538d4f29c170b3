"""The experiment on overoptimisation: its task, its statistics of curves, its bound, and a tiny run."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import overoptimization
from experiments.harness import runner
from experiments.overoptimization import policies, proxies, task
from experiments.overoptimization.corrections import corrected_reference
from pgjax import automata, exact


@pytest.fixture(scope="module")
def small():
    return task.make_task(3)


def test_gold_pays_for_ab_and_closed_brackets_and_subtracts_for_pairs_that_come_again():
    gold = task.raw_gold()
    score = lambda text: float(automata.score(gold, np.array([task.ALPHABET.index(c) for c in text]), len(text)))
    assert score("ab()") == 2.0  # ab, closed
    assert score("ab((") == 1.0  # ab
    assert score("abab") == 2.0  # ab twice, closed, ab comes again
    assert score("aaab") == 1.0  # ab, closed, aa comes again
    assert score(")(bb") == 0.0


def test_the_reference_and_gold_are_standardised_and_all_answers_are_listed(small):
    assert small.answers.num_answers == 64
    probabilities = np.exp(np.asarray(small.log_probs, float))
    np.testing.assert_allclose(probabilities.sum(), 1.0, rtol=1e-5)
    np.testing.assert_allclose(probabilities @ small.gold, 0.0, atol=1e-5)
    np.testing.assert_allclose(probabilities @ np.square(small.gold), 1.0, rtol=1e-5)
    np.testing.assert_allclose(exact.answer_scores(small.answers, small.automaton), small.gold, atol=1e-5)


def test_the_features_of_letters_show_what_is_written_and_nothing_else(small):
    features = task.letters_of(3)
    obs = task.observe(small)(small.answers.tokens[27], jnp.int32(2))  # "bcd" of the alphabet, two written
    assert np.asarray(features(obs)).reshape(3, 4).argmax(1).tolist()[:2] == [1, 2]
    assert np.asarray(features(obs)).sum() == 2.0


def test_a_policy_begins_as_the_reference(small):
    reference = lambda obs: small.reference[task.prefix_number(obs)]
    policy = corrected_reference(reference, task.VOCABULARY, task.letters_of(3), (4,))
    obs = task.observe(small)(small.answers.tokens[0], jnp.int32(0))
    params = policy.init(jax.random.key(0), obs)
    table = exact.prefix_log_probs(policy, params, small.answers, task.observe(small))
    np.testing.assert_allclose(exact.answer_log_probs(small.answers, table), small.log_probs, atol=1e-5)
    moved = jax.tree.map(lambda x: x + 0.1 * jax.random.normal(jax.random.key(1), x.shape), params)
    table = exact.prefix_log_probs(policy, moved, small.answers, task.observe(small))
    assert np.abs(exact.answer_log_probs(small.answers, table) - small.log_probs).max() > 0.01


def test_rise_and_fall_do_not_come_from_noise():
    noise = np.random.default_rng(0).normal(size=(4000, 11))
    noise[:, 0] = 0.0
    found = proxies.rise_and_fall(noise)
    for values in found:
        assert abs(values.mean()) < 4.5 * values.std() / np.sqrt(4000)
    hill = np.array([0.0, 1.0, 3.0, 2.0]) + np.zeros((5, 1))
    assert proxies.rise_and_fall(hill).rise.tolist() == [3.0] * 5
    assert proxies.rise_and_fall(hill).fall.tolist() == [1.0] * 5


def test_the_place_of_a_peak_and_its_bootstrap():
    x = np.linspace(0.0, 2.0, 21)
    curves = -np.square(x - np.array([0.5, 1.5])[:, None]) + np.zeros((6, 1, 1))
    places, again = proxies.peak_places(curves, x, resamples=10)
    np.testing.assert_allclose(places, [0.5, 1.5])
    assert np.ptp(again, axis=0).tolist() == [0.0, 0.0]
    curves[:3, 0] = -np.square(x - 1.0)
    assert np.ptp(proxies.peak_places(curves, x)[1][:, 0]) > 0


@pytest.mark.parametrize("logarithmic", [False, True])
def test_a_published_form_is_found_again(logarithmic):
    d = np.linspace(0.0, 3.0, 13)
    with np.errstate(divide="ignore", invalid="ignore"):
        gold = np.where(d > 0, d * (1.2 - 0.3 * (np.log(d) if logarithmic else d)), 0.0)
    np.testing.assert_allclose(proxies.fit_form(d, gold, logarithmic), (1.2, 0.3, 1.0), rtol=1e-9)
    assert proxies.fit_form(d, gold, not logarithmic)[2] < 0.999


def test_no_policy_is_better_than_the_optimum_and_a_wrong_one_would_be_seen(small):
    proxy, betas = small.gold, jnp.array([0.3, 1.0, 3.0])
    curve = jax.jit(exact.goodhart_frontier)(small.log_probs, proxy, proxy, betas)
    frontier = jax.tree.map(lambda x: x[None], curve)
    log_probs = jax.nn.log_softmax(small.log_probs + 0.7 * proxy + 0.3 * jnp.cos(jnp.arange(64.0)))
    numbers = (exact.kl_divergence(log_probs, small.log_probs), exact.expected(log_probs, proxy))
    kl, reached = (np.asarray(x).reshape(1, 1) for x in numbers)
    paths = policies.Paths(kl=kl, proxy=reached, gold=reached, entropy=kl)
    assert policies.beyond_the_optimum(paths, frontier) < 0
    assert policies.beyond_the_optimum(paths._replace(proxy=reached + 1.0), frontier) > 0


def test_gold_on_the_way_is_read_between_two_evaluations():
    path = policies.Paths(*(np.array([[0.0, 1.0, 3.0], [0.0, 0.5, 1.0]]), None, np.array([[0.0, 2.0, 0.0]] * 2), None))
    assert policies.gold_on_the_way(path, np.array([2.0, 9.0])).tolist() == [1.0, 0.0]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"length": 12}, "--length 12"),
        ({"labels": (100, 50)}, "--labels 100 50: must be at least two numbers in ascending order"),
        ({"trained_labels": (50, 60)}, "--trained-labels 50 60: must be among --labels"),
        ({"kl_coefs": (0.1, 0.2)}, "with 0 as its first number"),
        ({"trained_seeds": 99}, "--trained-seeds 99: must be at most --seeds"),
    ],
)
def test_options_that_do_not_fit_are_refused(options, said):
    with pytest.raises(runner.UsageError, match=said):
        dataclasses.replace(overoptimization.Config(), **options).validate()


@pytest.mark.slow
def test_a_tiny_run_records_and_draws_everything(tmp_path):
    run, plot = overoptimization.run, overoptimization.plot
    directory = runner.execute("overoptimization", overoptimization.TINY, run, plot, output_dir=tmp_path, tiny=True)
    assert {path.stem for path in directory.glob("*.png")} == {"overoptimization", "overoptimization_policies"}
    rows = json.loads((directory / "summary.json").read_text())["rows"]
    bound = next(row for row in rows if "cannot exceed 0" in row["quantity"])
    assert bound["verdict"] == "agrees" and bound["ours"] <= 1e-3
    excess = [row["ours"] for row in rows if "above its entropy floor" in row["quantity"] and row["exact"] is None]
    assert len(excess) >= 6
    assert not any(row["verdict"].startswith("wrong") for row in rows)
