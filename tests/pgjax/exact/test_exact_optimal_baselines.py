"""Baselines of least variance: each formula is the minimiser of the exact variance, found without the formula."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracle import fisher_matrix
from policies import tabular

from pgjax import exact

pytestmark = pytest.mark.usefixtures("exact_arithmetic")

HORIZON, STATES, DISCOUNT = 3, 4, 0.8


@pytest.fixture(scope="module")
def natural(small_problem):
    """F⁺ at the weights γᵗ, and at none."""
    mdp, params = small_problem
    inverse = lambda discount: exact.pseudo_inverse(fisher_matrix(tabular, params, mdp, discount=discount))
    return {"discount": inverse(DISCOUNT), "none": inverse(1.0)}


def chung():
    """Three arms, rewards 1, 0.7, 0, at θ = (0, 3, 5)."""
    return lambda params, obs: params, jnp.array([0.0, 3.0, 5.0]), exact.make_bandit([1.0, 0.7, 0.0])


def test_three_armed_bandit_of_chung_et_al():
    """The figures of Chung, Thomas, Machado & Le Roux (2021)'s problem, to the digits in which they were computed."""
    apply, params, mdp = chung()

    @jax.jit
    def measure(params):
        best = exact.optimal_constant_baseline(apply, params, mdp)
        value = exact.objective(apply, params, mdp)
        spread = lambda b: exact.total_return_moments(apply, params, mdp, baseline=b).total_variance
        spreads = jax.vmap(spread)(jnp.stack([jnp.zeros_like(best), value, best, best - 0.5, best + 0.5]))
        natural = exact.optimal_constant_baseline(apply, params, mdp, norm="natural")
        same = [exact.optimal_step_baseline(apply, params, mdp, depends_on="constant")]
        same.append(exact.one_step_baseline(apply, params, mdp)[0, 0])
        same_natural = exact.one_step_baseline(apply, params, mdp, norm="natural")[0, 0]
        return best, value, spreads, natural, same, same_natural

    best, value, spreads, natural, same, same_natural = measure(params)
    np.testing.assert_allclose(value, 0.08885, atol=5e-6)
    np.testing.assert_allclose(best, 0.63166, atol=5e-6)
    np.testing.assert_allclose(natural, 0.97949, atol=5e-6)
    np.testing.assert_allclose(spreads, [0.08875, 0.06587, 0.00127, 0.05608, 0.05608], atol=5e-6)
    np.testing.assert_allclose(spreads[3], spreads[4], rtol=1e-12)
    # In one step all the rules are one.
    np.testing.assert_allclose(same, [best] * 2, rtol=1e-12)
    np.testing.assert_allclose(same_natural, natural, rtol=1e-12)


def test_uniform_policy_makes_the_value_optimal():
    apply, _, mdp = chung()
    best = exact.optimal_constant_baseline(apply, jnp.zeros(3), mdp)
    np.testing.assert_allclose(best, 1.7 / 3, rtol=1e-13)


def test_random_rewards_move_the_spread_not_the_baseline():
    apply, params, mdp = chung()
    noisy = exact.make_bandit([[0.0, 2.0], [0.7, 0.7], [-1.0, 1.0]], np.full((3, 2), 0.5))
    best = exact.optimal_constant_baseline(apply, params, noisy)
    np.testing.assert_allclose(best, exact.optimal_constant_baseline(apply, params, mdp), rtol=1e-13)
    spread = lambda mdp: exact.total_return_moments(apply, params, mdp, baseline=best).total_variance
    assert spread(noisy) > 2 * spread(mdp)


@pytest.mark.parametrize(
    ("rewards", "chances"), [(np.zeros((2, 2)), None), (np.zeros(2), np.ones((2, 1))), (np.zeros((2, 2, 1)), None)]
)
def test_impossible_bandits_are_refused(rewards, chances):
    with pytest.raises(ValueError, match=r"must be \[A\] and None or both \[A, K\]"):
        exact.make_bandit(rewards, chances)


@pytest.mark.parametrize("norm", ["vanilla", "natural"])
def test_total_return_baselines_minimise_the_exact_variance(small_problem, natural, norm):
    mdp, params = small_problem
    metric = natural["discount"] if norm == "natural" else jnp.eye(params.size)
    joint = exact.return_score_moments(tabular, params, mdp, discount=DISCOUNT, full=True)

    def variances(b):
        """Of each coordinate of M (G − b) S."""
        moments = exact.total_return_moments(tabular, params, mdp, baseline=b, discount=DISCOUNT, covariance=True)
        return np.diagonal(metric @ moments.covariance @ metric)

    best = float(exact.optimal_constant_baseline(tabular, params, mdp, discount=DISCOUNT, norm=norm))
    each = exact.optimal_parameter_baseline(tabular, params, mdp, discount=DISCOUNT, norm=norm)
    below, centre, above = variances(-1.0), variances(0.0), variances(1.0)
    minimiser = lambda low, middle, high: 0.5 * (low - high) / (low - 2 * middle + high)
    np.testing.assert_allclose(best, minimiser(below.sum(), centre.sum(), above.sum()), rtol=1e-9)
    moving = np.ravel(each) != 0
    np.testing.assert_array_equal(moving, np.repeat([True, True, True, False], 2))
    parabolas = [spread[moving] for spread in (below, centre, above)]
    np.testing.assert_allclose(np.ravel(each)[moving], minimiser(*parabolas), rtol=1e-9)

    # tr Var(b) = tr Var(b*) + (b − b*)² E‖M S‖²: b* ± ε tie.
    curvature = np.trace(metric @ joint.squares[0] @ metric)
    least = variances(best).sum()
    np.testing.assert_allclose(centre.sum(), least + best**2 * curvature, rtol=1e-10)
    np.testing.assert_allclose(variances(best + 0.5).sum(), variances(best - 0.5).sum(), rtol=1e-12)
    value = float(exact.objective(tabular, params, mdp, DISCOUNT))
    assert variances(value).sum() > 1.001 * least  # twin: the expected return instead


def test_one_number_per_parameter_beats_one_number(small_problem):
    mdp, params = small_problem
    spread = lambda b: exact.total_return_moments(tabular, params, mdp, baseline=b).total_variance
    each = exact.optimal_parameter_baseline(tabular, params, mdp)
    best = exact.optimal_constant_baseline(tabular, params, mdp)
    assert spread(each) < 0.999 * spread(best) < spread(best + 0.01)


@pytest.fixture(scope="module")
def quadratic(small_problem):
    """tr Var(M g) of the reward-to-go with baseline b `[T, S]`, and its derivative in b."""
    mdp, params = small_problem

    def spread(b, metric, time_weights):
        moments = exact.reward_to_go_moments(
            tabular, params, mdp, baseline=b, discount=DISCOUNT, time_weights=time_weights, covariance=True
        )
        return jnp.trace(metric @ moments.covariance @ metric)

    return jax.jit(jax.value_and_grad(spread), static_argnums=2)


@pytest.mark.parametrize("time_weights", ["none", "discount"])
@pytest.mark.parametrize("norm", ["vanilla", "natural"])
def test_step_baselines_minimise_the_exact_variance(small_problem, natural, quadratic, time_weights, norm):
    """tr Var is a quadratic in b `[T, S]`: its gradient at b* vanishes, along whatever b may depend on."""
    mdp, params = small_problem
    metric = natural[time_weights] if norm == "natural" else jnp.eye(params.size)
    options = {"discount": DISCOUNT, "time_weights": time_weights}

    spread, slope = (lambda b, part=part: quadratic(b, metric, time_weights)[part] for part in (0, 1))
    best = lambda depends_on: np.asarray(
        exact.optimal_step_baseline(tabular, params, mdp, depends_on=depends_on, norm=norm, **options)
    )
    shape = (HORIZON, STATES)
    free, timed, stated, constant = best("time_state"), best("time"), best("state"), best("constant")
    assert (free.shape, timed.shape, stated.shape, constant.shape) == (shape, shape[:1], shape[1:], ())
    wide = lambda b: jnp.asarray(np.broadcast_to(b, shape))
    scale = np.max(np.abs(slope(wide(0.0))))
    assert np.max(np.abs(slope(wide(free)))) < 1e-11 * scale
    assert np.max(np.abs(slope(wide(timed[:, None])).sum(1))) < 1e-11 * scale
    assert np.max(np.abs(slope(wide(stated)).sum(0))) < 1e-11 * scale
    assert np.abs(slope(wide(constant)).sum()) < 1e-11 * scale
    least = [float(spread(wide(b))) for b in (free, stated, constant, 0.0)]
    assert least == sorted(least) and least[0] < least[1] < least[2]

    # Twin: the rule for each step alone forgets what A_t does to the other steps' returns.
    alone = np.asarray(exact.one_step_baseline(tabular, params, mdp, discount=DISCOUNT, norm=norm))
    assert spread(wide(alone)) > 1.0001 * least[0]
    assert np.max(np.abs(slope(wide(alone)))) > 1e-3 * scale


def test_the_two_rules_agree_on_the_last_step_of_a_memoryless_episode(small_problem):
    """With γ = 0 there is nothing but R_{t+1}, and each step does stand alone."""
    mdp, params = small_problem
    whole = exact.optimal_step_baseline(tabular, params, mdp, discount=0.0)
    alone = exact.one_step_baseline(tabular, params, mdp, discount=0.0)
    # E[ψ_t · ψ_i R_{i+1} | s] is not 0 for i > t: the state at i moves with A_t.
    np.testing.assert_allclose(whole[-1], np.where(np.asarray(whole[-1]) == 0, 0.0, alone[-1]), atol=1e-13)
    assert np.max(np.abs(whole[0, :-1] - alone[0, :-1])) > 1e-3
    weighted = exact.optimal_step_baseline(tabular, params, mdp, discount=0.0, time_weights="discount")
    np.testing.assert_allclose(weighted[0], alone[0], atol=1e-13)
    np.testing.assert_array_equal(weighted[1:], 0.0)


def test_unknown_conventions_are_refused(small_problem):
    mdp, params = small_problem
    with pytest.raises(ValueError, match="norm must be one of 'vanilla', 'natural', got 'l2'"):
        exact.optimal_constant_baseline(tabular, params, mdp, norm="l2")
    with pytest.raises(ValueError, match="depends_on must be one of"):
        exact.optimal_step_baseline(tabular, params, mdp, depends_on="action")
    with pytest.raises(ValueError, match=r"discount must be in \[0, 1\], got 2"):
        exact.one_step_baseline(tabular, params, mdp, discount=2, norm="natural")
