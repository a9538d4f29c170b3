"""Experts: whoever can be asked what to do, as pure functions of one observation.

An expert needs no parameters and no network: a table that dynamic programming found, a controller written by hand, a
policy that was trained, or one of these made worse on purpose. Axes: A actions, S states.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from pgjax import distributions, evaluation
from pgjax._checks import require_in_range, require_integer
from pgjax._records import one_line
from pgjax.acting import require_memoryless
from pgjax.exact import TabularMDP, optimal_probabilities
from pgjax.exact.mdp.optimal_policies import Ties
from pgjax.types import Policy, PyTree


class Expert(NamedTuple):
    """`act(key, obs) → action` for one observation; vmap outside.

    Attributes:
        act: draws an action; one that is sure of itself leaves the key unused.
        log_probs: `obs → ln π*(·|obs) [A]`, −∞ for what it never does; None for continuous actions, or where unknown.
    """

    act: Callable[[jax.Array, PyTree], jax.Array]
    log_probs: Callable[[PyTree], jax.Array] | None = None

    def __repr__(self) -> str:
        return one_line(self)


def from_log_probs(log_probs: Callable[[PyTree], jax.Array]) -> Expert:
    """The expert of discrete actions that draws from `log_probs(obs) [A]`."""
    return Expert(act=lambda key, obs: distributions.categorical.sample(key, log_probs(obs)), log_probs=log_probs)


def as_policy(expert: Expert) -> Policy:
    """The expert as a policy without parameters, `()`, for rollouts and evaluation.

    Its distribution can only be sampled; the other functions raise NotImplementedError.
    """
    reason = "an expert's actions can be drawn, but their distribution has no parameters"
    return Policy(
        init=lambda key, obs: (),
        apply=lambda params, obs: obs,
        distribution=distributions.sampled_only(expert.act, reason),
    )


def from_table(mdp: TabularMDP, probabilities: jax.Array) -> Expert:
    """The expert that looks its observation up in π*(a|s) `[S, A]` of a tabular problem.

    An observation that is no state's is treated as that of the first running state.

    Raises:
        ValueError: for another shape, or if two states that can be acted in look the same and are treated differently.
    """
    table, observations = np.asarray(probabilities), np.asarray(mdp.observations)
    shape = (mdp.num_states, mdp.num_actions)
    if table.shape != shape:
        raise ValueError(f"probabilities must have the shape {shape} of states and actions, got {table.shape}")
    flat = observations.reshape(len(observations), -1)
    running = np.flatnonzero(~np.asarray(mdp.terminal))
    for state in running:
        alike = running[(flat[running] == flat[state]).all(axis=1)]
        differs = np.abs(table[alike] - table[state]).max(axis=1) > 1e-6
        if differs.any():
            raise ValueError(
                f"probabilities must be equal in states {state} and {alike[differs][0]} of {mdp.name}, which look alike"
            )
    with np.errstate(divide="ignore"):
        seen, chosen = observations[running], np.log(table[running])

    def log_probs(obs: jax.Array) -> jax.Array:
        axes = tuple(range(1, seen.ndim))
        state = jnp.argmax(jnp.all(obs[None] == jnp.asarray(seen, obs.dtype), axis=axes))
        return jnp.asarray(chosen, float)[state]

    return from_log_probs(log_probs)


def optimal_expert(
    mdp: TabularMDP, discount: ArrayLike = 1.0, *, softness: float = 0.0, ties: Ties = "lowest"
) -> Expert:
    """The best stationary policy of a tabular problem, or a softly optimal one; see `optimal_probabilities`.

    It disregards the horizon: at the end of a short one the best action may be another.
    """
    return from_table(mdp, optimal_probabilities(mdp, discount, softness=softness, ties=ties))


def from_policy(policy: Policy, params: PyTree, *, greedy: bool = False) -> Expert:
    """A trained policy at θ; with `greedy` its mode, not a sample. `log_probs` are known if it is categorical.

    Raises:
        ValueError: for a policy that has memory only: an expert is asked about single observations.
    """
    apply = require_memoryless(policy, "experts.from_policy")
    categorical = policy.distribution is distributions.categorical
    shown = evaluation.greedy(policy) if greedy else policy

    def log_probs(obs: PyTree) -> jax.Array:
        logits = apply(params, obs)
        if greedy:
            best = jnp.arange(logits.shape[0]) == policy.distribution.mode(logits)
            return jnp.where(best, 0.0, -jnp.inf).astype(logits.dtype)
        return jax.nn.log_softmax(logits)

    return Expert(
        act=lambda key, obs: shown.distribution.sample(key, apply(params, obs)),
        log_probs=log_probs if categorical else None,
    )


def noisy(expert: Expert, epsilon: ArrayLike, num_actions: int) -> Expert:
    """(1 − ε) π*(a|x) + ε / A: with probability ε an action at random, the expert's own among them.

    Args:
        epsilon: ε in [0, 1].
        num_actions: A.
    """
    require_in_range("epsilon", epsilon, 0.0, 1.0)
    require_integer("num_actions", num_actions, 1, None)

    def act(key: jax.Array, obs: PyTree) -> jax.Array:
        coin_key, action_key, expert_key = jax.random.split(key, 3)
        action = expert.act(expert_key, obs)
        at_random = jax.random.randint(action_key, (), 0, num_actions, action.dtype)
        return jnp.where(jax.random.uniform(coin_key) < epsilon, at_random, action)

    if (known := expert.log_probs) is None:
        return Expert(act=act)
    return Expert(act=act, log_probs=lambda obs: jnp.log((1.0 - epsilon) * jnp.exp(known(obs)) + epsilon / num_actions))


def perturbed(expert: Expert, std: ArrayLike, *, low: ArrayLike = -math.inf, high: ArrayLike = math.inf) -> Expert:
    """Continuous actions with Gaussian noise, clip(A* + σ z, low, high), z ~ N(0, I).

    Args:
        std: σ ≥ 0, a number or one for each dimension of the action.
        low, high: bounds of the action.
    """
    require_in_range("std", std, 0.0, None)

    def act(key: jax.Array, obs: PyTree) -> jax.Array:
        noise_key, expert_key = jax.random.split(key)
        action = expert.act(expert_key, obs)
        return jnp.clip(action + std * jax.random.normal(noise_key, action.shape, action.dtype), low, high)

    return Expert(act=act)


def partial(expert: Expert, known: Callable[[PyTree], jax.Array], num_actions: int) -> Expert:
    """The expert where `known(obs)` holds, and an action at random, each with 1 / A, elsewhere."""
    require_integer("num_actions", num_actions, 1, None)

    def act(key: jax.Array, obs: PyTree) -> jax.Array:
        random_key, expert_key = jax.random.split(key)
        action = expert.act(expert_key, obs)
        return jnp.where(known(obs), action, jax.random.randint(random_key, (), 0, num_actions, action.dtype))

    if (log_probs := expert.log_probs) is None:
        return Expert(act=act)
    return Expert(act=act, log_probs=lambda obs: jnp.where(known(obs), log_probs(obs), -math.log(num_actions)))


def pendulum_swing_up(
    *,
    angle_gain: float = 10.0,
    speed_gain: float = 2.5,
    energy_gain: float = 1.0,
    capture: float = 4.0,
    max_torque: float = 2.0,
    gravity: float = 10.0,
    length: float = 1.0,
) -> Expert:
    """Swings Pendulum-v1 up by its energy and holds it there by a linear law; X = (cos θ, sin θ, θ̇), θ = 0 upright.

    A rod of length ℓ: θ̈ = (3g / 2ℓ) sin θ + (3 / mℓ²) u. With E = θ̇²/2 + (3g / 2ℓ)(cos θ − 1), which is 0 at rest
    upright, dE/dt ∝ u θ̇, so u = −k_E E sign θ̇ drives E to 0; and where ℓ(θ, θ̇) = −k_θ θ − k_ω θ̇ is small,
    |ℓ| ≤ capture · u_max, the pendulum is held by it:

        u = clip(ℓ(θ, θ̇) if it is small, else −k_E E sign θ̇, −u_max, u_max).

    Args:
        angle_gain, speed_gain: k_θ in N m / rad and k_ω in N m s / rad.
        energy_gain: k_E, N m s² / rad².
        capture: in units of u_max.
        max_torque: u_max, N m.
        gravity: g, m/s².
        length: ℓ, m.

    Returns:
        An expert whose action is u `[1]`, float32; deterministic.

    Source: Åström & Furuta (2000), "Swinging up a pendulum by energy control".
    """
    for name, value in (("capture", capture), ("max_torque", max_torque), ("length", length)):
        require_in_range(name, value, 0.0, None)
    pull = 3.0 * gravity / (2.0 * length)

    def act(key: jax.Array, obs: jax.Array) -> jax.Array:
        del key
        cos, sin, speed = obs[0], obs[1], obs[2]
        hold = -angle_gain * jnp.arctan2(sin, cos) - speed_gain * speed
        energy = 0.5 * speed**2 + pull * (cos - 1.0)
        pump = -energy_gain * energy * jnp.where(speed >= 0.0, 1.0, -1.0)
        torque = jnp.where(jnp.abs(hold) <= capture * max_torque, hold, pump)
        return jnp.clip(torque, -max_torque, max_torque)[None].astype(jnp.float32)

    return Expert(act=act)
