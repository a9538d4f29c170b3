"""Exact facts, by enumeration, about a moving average that weighs returns: the targets of `baseline_start`.

Axes: n episodes of the past, A arms.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.harness import targets as papers
from experiments.shared import exact_room as room
from experiments.shared import one_step
from experiments.shared import three_arms as arms
from pgjax import baselines, estimators, exact
from pgjax.types import Estimator, Trajectory

DECAY = 0.9  # β of this part
PAST = 4  # episodes; all 3⁴ pasts of this length are enumerated
PUSHES = 600  # the weights' excess is summed over this many updates; β⁶⁰⁰ is below rounding
THETA = ((0.4, -0.3, 0.1),)
WORDS = ("zero", "first", "debiased")
DISCOUNT = 0.5


def in_both_orders(estimator: Estimator, params: jax.Array, state: Any, batch: Trajectory) -> dict[str, jax.Array]:
    """Return ĝ with the state before it sees the batch, "used", and in the wrong order, "refreshed"."""
    after = estimator.gradient(params, state, batch)[1]
    states = jax.tree.map(lambda *x: jnp.stack(x), state, after)
    found = jax.vmap(lambda state: estimator.gradient(params, state, batch)[0])(states)
    return {"used": found[0], "refreshed": found[1]}


def of_all_pasts(word: jax.Array, bandit: arms.Bandit, params: jax.Array) -> dict[str, jax.Array]:
    """Return E b `[n]`, E[refreshed] `[n, A]` and the worst bias `[]` at fixed θ, after n = 0 … `PAST` episodes.

    ρ̂ starts at `WORDS[word]`.
    """
    baseline = arms.one_of([baselines.moving_average(DECAY, initial) for initial in WORDS], word)
    estimator = arms.reinforce(baseline)
    probabilities = bandit.probabilities(params)
    everything = bandit.episodes.trajectories
    pick = lambda arm: exact.select_episodes(everything, arm[None])
    all_arms = jnp.arange(len(arms.REWARDS))

    def look(state: Any) -> dict[str, jax.Array]:
        each = jax.vmap(lambda arm: in_both_orders(estimator, params, state, pick(arm)))(all_arms)
        return exact.moments_of(each, probabilities).mean | {"b": baseline.predict(state, everything)[0, 0]}

    def along(past: jax.Array) -> dict[str, jax.Array]:
        start = estimator.init(jax.random.key(0), pick(past[0]))
        step = lambda state, arm: (estimator.gradient(params, state, pick(arm))[1], state)
        last, before = jax.lax.scan(step, start, past)
        return jax.vmap(look)(jax.tree.map(lambda x, end: jnp.concatenate([x, end[None]]), before, last))

    pasts = exact.groups(len(arms.REWARDS), PAST)
    found = jax.vmap(along)(pasts)
    likelihood = jnp.prod(probabilities[pasts], axis=1)
    gradient = exact.exact_gradient(arms.POLICY.apply, params, bandit.mdp)
    return {
        "b": jnp.tensordot(likelihood, found["b"], 1),
        "bias": jnp.max(jnp.abs(found["used"] - gradient)),
        "refreshed": jnp.tensordot(likelihood, found["refreshed"], 1)[:, 0],
        "gradient": gradient[0],
    }


def pushes(start: jax.Array, bandit: arms.Bandit) -> jax.Array:
    """Return how much each weight R_n − b_n grows, `[N]`, if every reward grows by 1, along fixed episodes.

    ρ̂ starts at `WORDS[start]`; the number after them means a start that moves with the rewards, as ρ(θ₀) does.
    """

    def weights(shift: jax.Array) -> jax.Array:
        averages = [baselines.moving_average(DECAY, initial) for initial in (*WORDS, 0.3 + shift)]
        baseline = arms.one_of(averages, start)
        estimator = arms.reinforce(baseline)
        weighting = estimators.make_weighting(returns=estimators.total_return(), baseline=baseline)
        shifted = arms.shift_rewards(bandit, shift).episodes.trajectories

        def step(state: Any, arm: jax.Array) -> tuple[Any, jax.Array]:
            episode = exact.select_episodes(shifted, arm[None])
            state_after = estimator.gradient(jnp.asarray(THETA), state, episode)[1]
            return state_after, weighting.weigh(state, episode)[0][0, 0]

        row = jnp.arange(PUSHES) ** 2 % len(arms.REWARDS)
        return jax.lax.scan(step, estimator.init(jax.random.key(0), shifted), row)[1]

    without, more = jax.vmap(weights)(jnp.asarray([0.0, 1.0]))
    return more - without


def several_steps(episodes: exact.Enumeration, discount: jax.Array) -> dict[str, jax.Array]:
    """Return E[estimate] of reward-to-go over all episodes of a walk, in both orders, and ∇ρ_γ, `[9, 2]` each."""
    policy = one_step.table(2)
    params = jnp.asarray(np.sin(np.arange(18.0)).reshape(9, 2))
    probabilities = exact.trajectory_probabilities(policy.apply, params, episodes)
    average = baselines.moving_average(DECAY, 0.7)
    estimator = estimators.make_estimator(policy, returns=estimators.reward_to_go(discount), baseline=average)
    state = estimator.init(jax.random.key(0), episodes.trajectories)
    both = lambda batch: in_both_orders(estimator, params, state, batch)
    found = exact.estimator_moments(both, episodes, probabilities, 1).mean
    return found | {"gradient": exact.exact_gradient(policy.apply, params, episodes.mdp, discount)}


def noise(bandit: arms.Bandit, shift: jax.Array) -> jax.Array:
    """Return tr Var of the first gradient, with b = 0 and uniform π, if all rewards grow by `shift`."""
    theta, shifted = jnp.zeros((1, len(arms.REWARDS))), arms.shift_rewards(bandit, shift)
    estimator = arms.reinforce(baselines.moving_average(DECAY))
    state = estimator.init(jax.random.key(0), shifted.episodes.trajectories)
    each = estimator.episode_gradients(theta, state, shifted.episodes.trajectories)
    return exact.moments_of(each, shifted.probabilities(theta)).total_variance


def noise_known(rewards: np.ndarray) -> float:
    """Return the same in closed form for A rewards of equal probability: (1 − 1/A) E R² − ‖∇ρ‖²."""
    gradient = (rewards - rewards.mean()) / rewards.size
    return float((1 - 1 / rewards.size) * np.mean(rewards**2) - np.sum(gradient**2))


def factor(estimate: np.ndarray, gradient: np.ndarray) -> float:
    """Return c of E[estimate] = c ∇ρ, or NaN if the two are not parallel."""
    ratio = float(np.vdot(estimate, gradient) / np.vdot(gradient, gradient))
    return ratio if np.max(np.abs(estimate - ratio * gradient)) < 1e-12 else float("nan")


def angle(a: np.ndarray, b: np.ndarray) -> float:
    """Return the angle between two vectors in degrees."""
    return float(np.degrees(np.arccos(np.vdot(a, b) / (np.linalg.norm(a) * np.linalg.norm(b)))))


def facts(bandit: arms.Bandit, shift: float) -> dict[str, papers.Measured]:
    """Compute all exact facts in float64 for `papers.check`; `shift` is added to the rewards, and subtracted."""
    params, measure = jnp.asarray(THETA), papers.Measured
    walk = exact.enumerate_trajectories(room.walk(room.HORIZON))
    found = jax.jit(
        lambda: {
            "pasts": jax.lax.map(lambda word: of_all_pasts(word, bandit, params), jnp.arange(len(WORDS))),
            "pushes": jax.lax.map(lambda start: pushes(start, bandit), jnp.arange(len(WORDS) + 1)),
            "steps": jax.lax.map(lambda discount: several_steps(walk, discount), jnp.asarray([1.0, DISCOUNT])),
            "noise": jax.vmap(lambda shift: noise(bandit, shift))(jnp.asarray([-shift, shift])),
            "value": bandit.value(params),
        }
    )()
    found = jax.tree.map(np.asarray, found)
    measured = {}
    for name, gained in zip((*WORDS, "known"), found["pushes"], strict=True):
        measured[f"pushes {name}"] = measure(float(gained.sum()))
        if name != "zero":
            measured[f"later {name}"] = measure(float(np.max(np.abs(gained[1:]))))
    for index, word in enumerate(WORDS):
        past = {name: x[index] for name, x in found["pasts"].items()}
        lag = 1 - DECAY**PAST if word == "zero" else 1.0
        measured[f"mean {word}"] = measure(float(past["b"][PAST]), exact=float(found["value"]) * lag)
        measured[f"bias {word}"] = measure(float(past["bias"]))
        measured[f"refreshed {word}"] = measure(factor(past["refreshed"][PAST], past["gradient"]))
        measured[f"at once {word}"] = measure(factor(past["refreshed"][0], past["gradient"]))
    plain, discounted = ({name: x[index] for name, x in found["steps"].items()} for index in (0, 1))
    measured["refreshed reward-to-go"] = measure(factor(plain["refreshed"], plain["gradient"]))
    used, refreshed = discounted["used"], discounted["refreshed"]
    predicted = used - (1 - DECAY) * discounted["gradient"]
    measured["discounted"] = measure(float(np.max(np.abs(refreshed - predicted))))
    measured["angle"] = measure(angle(used, refreshed))
    rewards = np.asarray(bandit.episodes.trajectories.rewards[0])
    for sign, added, ours in zip("-+", (-shift, shift), found["noise"], strict=True):
        measured[f"noise {sign}"] = measure(float(ours), exact=noise_known(rewards + added))
    return measured
