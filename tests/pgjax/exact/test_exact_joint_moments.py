"""Exact moments by dynamic programming against enumeration with the estimators that train, on ten random MDPs."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from policies import draw_params, perceptron, tabular

from pgjax import baselines, estimators, exact
from pgjax.distributions import categorical
from pgjax.exact.moments import step_sums
from pgjax.types import Policy

pytestmark = pytest.mark.usefixtures("exact_arithmetic")

HORIZON, STATES, DISCOUNT, LAMBDA = 3, 4, 0.8, 0.6
# What a perceptron is asked for, to compile less: the programs know a policy by its table of scores alone.
FEW = ("total, discounted", "lambda")
VALUES = np.array([0.7, -1.2, 0.4, 2.0])


def stack(trees):
    return jax.tree.map(lambda *leaves: jnp.asarray(np.stack(leaves)), *trees)


def padded(enumeration, size):
    """The same distribution with `size` trajectories: the first one is repeated, with probability zero."""
    missing = size - enumeration.environment_probabilities.size

    def repeat(x, axis):
        x = np.asarray(x)
        return np.concatenate([x, np.repeat(np.take(x, [0], axis), missing, axis)], axis)

    batch = enumeration.trajectories
    rows = jax.tree.map(lambda x: repeat(x, 1), batch._replace(final_obs=None))
    return enumeration._replace(
        trajectories=rows._replace(final_obs=repeat(batch.final_obs, 0)),
        states=repeat(enumeration.states, 1),
        environment_probabilities=np.pad(np.asarray(enumeration.environment_probabilities), (0, missing)),
    )


@pytest.fixture(scope="module")
def mdps():
    """Ten random MDPs of one shape; in the last five, states 0 and 1 look alike."""
    drawn = [exact.random_mdp(jax.random.key(seed), STATES, 2, 2, HORIZON) for seed in range(10)]
    alike = jnp.eye(STATES)[jnp.array([0, 0, 2, 3])]
    return drawn[:5] + [dataclasses.replace(mdp, observations=alike) for mdp in drawn[5:]]


@pytest.fixture(scope="module")
def enumerations(mdps):
    each = [exact.enumerate_trajectories(mdp) for mdp in mdps]
    size = max(one.environment_probabilities.size for one in each)
    return stack([padded(one, size) for one in each])


@pytest.fixture(scope="module")
def ends(mdps, enumerations):
    """The state in which each trajectory ends, `[10, N]`: which one, observations that look alike do not tell."""
    size = enumerations.states.shape[-1]
    told_apart = [dataclasses.replace(mdp, observations=jnp.eye(STATES)) for mdp in mdps]
    rows = [padded(exact.enumerate_trajectories(mdp), size).trajectories.final_obs for mdp in told_apart]
    return jnp.asarray(np.argmax(np.stack(rows), axis=-1), jnp.int32)


def tables(apply, params, mdp):
    """Values of a state's observation [S], of time and state [T + 1, S], and of the action too [T, S, A]."""
    seen = mdp.observations @ jnp.asarray(VALUES)
    q = exact.action_values(mdp, exact.policy_probabilities(apply, params, mdp), DISCOUNT)
    timed = jnp.linspace(-1.0, 1.0, (HORIZON + 1) * STATES).reshape(HORIZON + 1, STATES)
    return seen, timed, q + 0.5 * jnp.cos(jnp.arange(q.size, dtype=q.dtype)).reshape(q.shape)


def by_dynamic_programming(apply, params, mdp):
    """All members by name; those that differ in numbers alone are one vmapped program, which compiles once."""
    seen, timed, acted = tables(apply, params, mdp)
    wide = lambda b: step_sums.per_step("baseline", b, mdp)
    weighted = {"discount": DISCOUNT, "time_weights": "discount", "covariance": True}

    def vmapped(names, family, *stacked):
        moments = jax.vmap(family)(*stacked)
        return {name: jax.tree.map(lambda x: x[i], moments) for i, name in enumerate(names)}

    bootstrapped = exact.lambda_return_moments(apply, params, mdp, seen, lambda_=LAMBDA, discount=DISCOUNT)
    if apply is perceptron:
        total = exact.total_return_moments(apply, params, mdp, baseline=0.9, discount=DISCOUNT)
        return {"total, discounted": total, "lambda": bootstrapped}

    number = jax.tree.map(lambda x: jnp.full_like(x, 0.9), params)
    per_parameter = jax.tree.map(lambda x: jnp.sin(jnp.arange(x.size, dtype=x.dtype)).reshape(x.shape), params)
    found = vmapped(
        ("total", "total, discounted", "total, b per parameter"),
        lambda b, discount: exact.total_return_moments(
            apply, params, mdp, baseline=b, discount=discount, covariance=True
        ),
        jax.tree.map(lambda *x: jnp.stack(x), number, number, per_parameter),
        jnp.array([1.0, DISCOUNT, 1.0]),
    )
    found |= vmapped(
        ("to go", "to go, constant", "to go, b(s)"),
        lambda b, discount: exact.reward_to_go_moments(apply, params, mdp, baseline=b, discount=discount),
        jnp.stack([wide(None), wide(1.3), wide(seen)]),
        jnp.array([1.0, DISCOUNT, DISCOUNT]),
    )
    found |= vmapped(
        ("to go, b(s), weighted", "to go, b(s, t)", "to go, b(s, a) uncorrected"),
        lambda b: exact.reward_to_go_moments(apply, params, mdp, baseline=b, **weighted),
        jnp.stack([wide(seen), wide(timed[:-1]), acted]),
    )
    found["to go, b(s, a) corrected"] = exact.reward_to_go_moments(
        apply, params, mdp, baseline=acted, correction="expected", **weighted
    )
    found["exact Q"] = exact.action_value_moments(apply, params, mdp, baseline=seen, **weighted)
    found["all actions"] = exact.all_action_moments(apply, params, mdp, **weighted)
    found["lambda"] = bootstrapped
    found["lambda, b apart, weighted"] = exact.lambda_return_moments(
        apply, params, mdp, timed, lambda_=LAMBDA, baseline=seen, **weighted
    )
    return found


def by_estimators(apply, params, enumeration):
    """Moments of the estimators that train, one episode each, over every trajectory."""
    policy = Policy(init=None, apply=apply, distribution=categorical)
    seen = baselines.state_values(lambda obs: obs @ jnp.asarray(VALUES))
    to_go, weighted = estimators.reward_to_go(DISCOUNT), {"time_weights": "discount"}
    make = lambda **kwargs: estimators.make_estimator(policy, **kwargs)
    declared = {
        "total": make(returns=estimators.total_return(), baseline=baselines.constant(0.9)),
        "total, discounted": make(returns=estimators.total_return(DISCOUNT), baseline=baselines.constant(0.9)),
        "to go": make(returns=estimators.reward_to_go(), baseline=baselines.none()),
        "to go, constant": make(returns=to_go, baseline=baselines.constant(1.3)),
        "to go, b(s)": make(returns=to_go, baseline=seen),
        "to go, b(s), weighted": make(returns=to_go, baseline=seen, **weighted),
        "lambda": make(returns=estimators.lambda_return(LAMBDA, DISCOUNT), baseline=seen),
    }
    declared = {name: one for name, one in declared.items() if apply is tabular or name in FEW}
    estimate = lambda trajectory: {
        name: estimator.gradient(params, (), trajectory)[0] for name, estimator in declared.items()
    }
    probabilities = exact.trajectory_probabilities(apply, params, enumeration)
    joint = exact.estimator_moments(estimate, enumeration, probabilities, num_episodes=1)
    return {name: (joint.mean[name], joint.variance[name]) for name in declared}


def returns_to_go(rewards, discount):
    rows, total = [], jnp.zeros_like(rewards[0])
    for reward in rewards[::-1]:
        total = reward + discount * total
        rows.append(total)
    return jnp.stack(rows[::-1])


def by_formula(apply, params, given):
    """Moments, covariance included, of the members that no estimator declares, from their definitions."""
    enumeration, ends = given
    mdp, batch, states = enumeration.mdp, enumeration.trajectories, enumeration.states
    probabilities = exact.trajectory_probabilities(apply, params, enumeration)
    seen, timed, acted = tables(apply, params, mdp)
    policy, scores = exact.policy_probabilities(apply, params, mdp), exact.score_table(apply, params, mdp)
    psi = jnp.where(batch.alive[..., None], scores[states, batch.actions], 0.0)
    when = jnp.arange(HORIZON)[:, None]
    expected = lambda table: jnp.einsum("sa,sap,tsa->tsp", policy, scores, table)[when, states]
    expected_alive = lambda table: jnp.where(batch.alive[..., None], expected(table), 0.0)
    factors = (DISCOUNT ** jnp.arange(HORIZON, dtype=float))[:, None, None]
    g = returns_to_go(batch.rewards, DISCOUNT)
    q = exact.action_values(mdp, policy, DISCOUNT)
    taken = lambda table: table[when, states, batch.actions]
    # λ-returns from their definition as a sum of TD errors over the rows that are alive.
    final = jnp.argmax(batch.terminated | batch.truncated, axis=0)
    following = jnp.where(when == final[None], ends[None], jnp.roll(states, -1, axis=0))
    bootstrap = jnp.where(batch.terminated, 0.0, timed[when + 1, following])
    td = jnp.where(batch.alive, batch.rewards + DISCOUNT * bootstrap - timed[when, states], 0.0)
    lambda_weights = returns_to_go(td, DISCOUNT * LAMBDA) + timed[when, states] - seen[states]

    per_parameter = jnp.concatenate([jnp.sin(jnp.arange(x.size, dtype=x.dtype)) for x in jax.tree.leaves(params)])
    weigh = lambda weights, offset=0.0: jnp.sum(factors * (psi * weights[..., None] + offset), axis=0)
    estimates = {
        "total, b per parameter": (jnp.sum(batch.rewards, 0)[:, None] - per_parameter[None]) * jnp.sum(psi, axis=0),
        "to go, b(s, t)": weigh(g - timed[when, states]),
        "to go, b(s, a) uncorrected": weigh(g - taken(acted)),
        "to go, b(s, a) corrected": weigh(g - taken(acted), expected_alive(acted)),
        "exact Q": weigh(taken(q) - seen[states]),
        "all actions": weigh(jnp.zeros_like(g), expected_alive(q)),
        "lambda, b apart, weighted": weigh(lambda_weights),
    }
    estimates = {name: x for name, x in estimates.items() if apply is tabular or name in FEW}
    means = {name: probabilities @ x for name, x in estimates.items()}
    return {
        name: (means[name], jnp.einsum("n,ni,nj->ij", probabilities, x - means[name][None], x - means[name][None]))
        for name, x in estimates.items()
    }


def flattened(tree):
    return np.concatenate([np.asarray(x).reshape(x.shape[0], -1) for x in jax.tree.leaves(tree)], axis=1)


def assert_relative(found, expected, what):
    scale = np.max(np.abs(expected), axis=tuple(range(1, expected.ndim)), keepdims=True)
    assert np.all(np.abs(found - expected) <= 1e-10 * scale + 1e-14), what
    assert np.all(scale > 1e-5), what


TABLE = pytest.param(tabular, id="softmax table")
PERCEPTRON = pytest.param(perceptron, id="perceptron", marks=pytest.mark.slow)


@pytest.fixture(scope="module", params=[TABLE, PERCEPTRON])
def found(request, mdps, enumerations, ends):
    apply = request.param
    params = stack([draw_params(apply, seed) for seed in range(10)])
    batched = lambda function: jax.jit(jax.vmap(lambda theta, given: function(apply, theta, given)))
    return (
        jax.tree.map(np.asarray, batched(by_dynamic_programming)(params, stack(mdps))),
        batched(by_estimators)(params, enumerations),
        batched(by_formula)(params, (enumerations, ends)),
        batched(lambda f, theta, mdp: exact.exact_gradient(f, theta, mdp, DISCOUNT))(params, stack(mdps)),
    )


def test_dynamic_programs_equal_enumeration(found):
    programmed, estimated, formulas, _ = found
    for name, (mean, variance) in estimated.items():
        assert_relative(flattened(programmed[name].mean), flattened(mean), name)
        assert_relative(flattened(programmed[name].variance), flattened(variance), name)
    for name, (mean, covariance) in formulas.items():
        assert_relative(flattened(programmed[name].mean), np.asarray(mean), name)
        assert_relative(programmed[name].covariance, np.asarray(covariance), name)
    assert estimated.keys() | formulas.keys() == programmed.keys()


def test_traces_and_diagonals_are_consistent(found):
    for name, one in found[0].items():
        variance = flattened(one.variance)
        if one.covariance is not None:
            diagonal = np.diagonal(one.covariance, axis1=1, axis2=2)
            np.testing.assert_allclose(variance, diagonal, atol=1e-12, err_msg=name)
        np.testing.assert_allclose(one.total_variance, variance.sum(1), rtol=1e-10, atol=1e-12)
        excess = one.second_moment - one.total_variance
        np.testing.assert_allclose(excess, np.sum(flattened(one.mean) ** 2, axis=1), rtol=1e-9)


def test_biased_and_unbiased_members(found):
    """The corrected baseline, exact Q and all actions are unbiased; three named departures are not."""
    programmed, _, _, gradient = found
    truth = flattened(gradient)
    errors = {name: np.max(np.abs(flattened(one.mean) - truth), axis=1) for name, one in programmed.items()}
    unbiased = {"total, discounted", "to go, b(s), weighted", "to go, b(s, t)", "to go, b(s, a) corrected"}
    for name in (unbiased | {"exact Q", "all actions"}) & errors.keys():
        assert np.all(errors[name] < 1e-12), name
    # The action's baseline left uncorrected, γᵗ left out, and a wrong v.
    for name in {"to go, b(s, a) uncorrected", "to go, b(s)", "lambda"} & errors.keys():
        assert np.all(errors[name] > 1e-4) and np.any(errors[name] > 1e-2), name


def test_a_terminal_state_adds_nothing(mdps):
    """Twin: with no terminal state the same problem has other moments; the rows of a terminal one are not read."""
    params, mdp = draw_params(tabular, 0), mdps[0]
    variance = jax.jit(lambda problem: exact.reward_to_go_moments(tabular, params, problem).total_variance)
    changed = dataclasses.replace(mdp, rewards=mdp.rewards.at[-1].set(50.0))
    np.testing.assert_allclose(variance(changed), variance(mdp), rtol=1e-14)
    endless = dataclasses.replace(mdp, terminal=jnp.zeros_like(mdp.terminal))
    assert abs(variance(endless) / variance(mdp) - 1) > 1e-2


def test_problems_too_long_to_enumerate():
    """20 states, 4 actions, 50 steps: more than 10⁴⁰ trajectories."""
    mdp = exact.random_mdp(jax.random.key(1), 20, 4, 2, horizon=50)
    params = jnp.asarray(np.random.default_rng(0).standard_normal((20, 4)))
    total, to_go = jax.jit(
        lambda theta: (
            exact.total_return_moments(tabular, theta, mdp, baseline=0.3),
            exact.reward_to_go_moments(tabular, theta, mdp, baseline=0.3),
        )
    )(params)
    spreads = np.array([total.total_variance, to_go.total_variance])
    assert np.all(np.isfinite(spreads)) and np.all(spreads > 0) and np.all(total.variance[:-1] > 0)
    np.testing.assert_allclose(total.mean, to_go.mean, atol=1e-12)
    np.testing.assert_allclose(total.mean, exact.exact_gradient(tabular, params, mdp), atol=1e-12)


def test_baselines_of_fewer_axes_are_repeated(mdps):
    numbers = np.arange(HORIZON * STATES * 2.0).reshape(HORIZON, STATES, 2)
    for given in (2.5, numbers[0, :, 0], numbers[:, :, 0], numbers):
        found = step_sums.per_step("baseline", given, mdps[0])
        missing = 3 - np.ndim(given) if np.ndim(given) != 1 else 1
        by_hand = np.expand_dims(given, tuple(range(np.ndim(given), np.ndim(given) + missing)))
        np.testing.assert_array_equal(found, np.broadcast_to(by_hand, numbers.shape))
    np.testing.assert_array_equal(step_sums.per_step("baseline", None, mdps[0]), np.zeros_like(numbers))


@pytest.mark.parametrize("constant", [1e6, 1e9])
@pytest.mark.parametrize("covariance", [False, True])
def test_a_constant_on_rewards_and_baseline_does_not_drown_the_variance(constant, covariance):
    """(G + c − (b + c)) ψ is (G − b) ψ. From E[G²], E[G] and b, the wrong twin, 10⁶ costs three digits and 10⁹ all."""
    params = jnp.asarray([[0.0, 1.0, 2.0]])
    arms = np.array([1.0, 0.7, 0.0])
    probabilities = np.exp(params[0]) / np.exp(params[0]).sum()
    each = (arms - 0.4)[:, None] * (np.eye(3) - probabilities)
    wanted = probabilities @ (each - probabilities @ each) ** 2
    for moments in (exact.total_return_moments, exact.reward_to_go_moments):
        mdp = exact.make_bandit(arms + constant)
        found = moments(tabular, params, mdp, baseline=0.4 + constant, covariance=covariance)
        # The constant itself takes its digits from the rewards.
        np.testing.assert_allclose(found.variance[0], wanted, rtol=10 * constant * np.finfo(float).eps)


def test_a_baseline_that_is_the_return_leaves_no_variance():
    """Squares of deviations vanish with them; κ² E[H²] − 2 κ b h + b², the wrong twin, leaves roundings of b²."""
    arms = np.array([1.0, 0.7, 0.1]) / 3
    given = np.broadcast_to(arms, (1, 2, 3))
    params = jnp.asarray([[0.3, 1.0, 2.0]])
    found = exact.reward_to_go_moments(tabular, params, exact.make_bandit(arms), baseline=given)
    assert found.total_variance < 1e-30


@pytest.mark.slow
def test_differentiable_in_the_parameters(mdps):
    """The variance is smooth in θ: its derivative equals finite differences."""
    params = draw_params(tabular, 0)
    spread = jax.jit(lambda theta: exact.total_return_moments(tabular, theta, mdps[0]).total_variance)
    step = jnp.zeros_like(params).at[1, 0].set(1e-5)
    numeric = (spread(params + step) - spread(params - step)) / 2e-5
    np.testing.assert_allclose(jax.grad(spread)(params)[1, 0], numeric, rtol=1e-6)


def test_impossible_arguments_are_refused(mdps):
    params, mdp = draw_params(tabular, 0), mdps[0]
    with pytest.raises(ValueError, match=r"baseline has shape \(3,\), must be a number, \[S\], \[T, S\] or"):
        exact.reward_to_go_moments(tabular, params, mdp, baseline=np.zeros(3))
    with pytest.raises(ValueError, match="correction must be one of 'none', 'expected'"):
        exact.reward_to_go_moments(tabular, params, mdp, correction="yes")
    with pytest.raises(ValueError, match="time_weights must be one of"):
        exact.all_action_moments(tabular, params, mdp, time_weights="yes")
    with pytest.raises(ValueError, match=r"values has shape \(3, 4\), must be \[S\] = \(4,\) or"):
        exact.lambda_return_moments(tabular, params, mdp, np.zeros((3, 4)))
    with pytest.raises(ValueError, match=r"lambda_ must be in \[0, 1\], got 1.5"):
        exact.lambda_return_moments(tabular, params, mdp, np.zeros(4), lambda_=1.5)
    with pytest.raises(ValueError, match="baseline must be a number or shaped as params"):
        exact.total_return_moments(tabular, params, mdp, baseline=np.zeros(4))
    with pytest.raises(ValueError, match=r"discount must be in \[0, 1\], got -1"):
        exact.total_return_moments(tabular, params, mdp, discount=-1)
