"""Joint moments of estimates three ways: dynamic programming, the estimators that train, and one formula each."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from policies import perceptron, tabular

from pgjax import baselines, estimators, exact
from pgjax.distributions import categorical
from pgjax.exact.moments import step_sums
from pgjax.types import Policy

pytestmark = pytest.mark.usefixtures("exact_arithmetic")

HORIZON, STATES, DISCOUNT, LAMBDA = 3, 4, 0.8, 0.6
# What a perceptron is asked for, to compile less: the programs know a policy by its table of scores alone.
FEW = ("total, discounted", "lambda")
VALUES = np.array([0.7, -1.2, 0.4, 2.0])


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
