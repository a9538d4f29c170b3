"""The sampled pipeline and the oracle see one definition: 400 000 episodes of every estimator against enumeration.

One comparison of one coordinate raises a false alarm once in 150 000 times (|z| < 4.5, two-sided normal). All of them
together raise one with a probability of about 2.0e-3 for 36 estimators with 8 coordinates each (288 × 6.8e-6, an upper
bound whatever their dependence); each further estimator adds 5e-5, and each interval of a variance 6.8e-6. That was the
chance before the seed was fixed; with it the outcome is fixed too, and an alarm means that something has changed.
"""

import jax
import numpy as np
import pytest

from experiments.gradient_lab import exact_part, problems, selection
from experiments.gradient_lab import laboratory as lab
from pgjax import diagnostics, registry

EPISODES, BATCH = 400_000, 2


@pytest.fixture(scope="module")
def laboratory():
    problem = problems.make_problem("corridor", "random", seed=0, hidden=(), updates=0)
    entries, _ = selection.chosen(problem, BATCH, ())
    keys = jax.random.split(jax.random.key(7))
    episodes = lab.sample(problem, keys[0], EPISODES, greedy=True)
    warm = lab.sample(problem, keys[1], lab.WARM_BATCHES * BATCH, greedy=True)
    target = lambda entry: np.asarray(
        problem.truth.natural_gradient if entry.natural else problem.truth.gradient, np.float32
    )
    found, states = lab.measured(problem, entries, episodes, warm, BATCH, target, lambda name: None)
    exact = exact_part.exact_moments(problem, entries, states, BATCH, 10**6)
    return problem, entries, found, exact


@pytest.mark.slow
@pytest.mark.parametrize("label", [entry.label for entry in registry.ENTRIES.values()], ids=list(registry.ENTRIES))
def test_the_sample_has_the_enumerated_mean_and_variance(laboratory, label):
    problem, entries, found, exact = laboratory
    estimates = found[label].estimates.astype(np.float64)
    enumerable = not problem.estimator(entries[label]).needs.greedy_returns
    mean = exact[label].mean if enumerable else problem.truth.gradient
    stderr = estimates.std(axis=0, ddof=1) / len(estimates) ** 0.5
    # An episode that never leaves a state gives its parameters no gradient: nothing to compare, and no error either.
    moves = stderr > 1e-9
    z = (estimates.mean(axis=0) - mean)[moves] / stderr[moves]
    assert np.max(np.abs(z)) < 4.5
    np.testing.assert_allclose(estimates.mean(axis=0)[~moves], mean[~moves], atol=1e-6)
    if enumerable:
        with jax.enable_x64(True):
            variance = diagnostics.gradient_statistics(estimates, confidence=1 - 6.8e-6).variance
            low, high = float(variance.low), float(variance.high)
        assert low < exact[label].variance < high


@pytest.mark.slow
def test_the_same_comparison_catches_the_batch_mean_with_the_own_episode(laboratory):
    problem, _, found, _ = laboratory
    estimates = found[registry.ENTRIES["dr_grpo"].label].estimates
    stderr = estimates.std(axis=0) / len(estimates) ** 0.5
    moves = stderr > 1e-9
    z = (estimates.mean(axis=0) - problem.truth.gradient)[moves] / stderr[moves]
    assert np.max(np.abs(z)) > 45.0
