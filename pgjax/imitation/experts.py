"""Experts, which can be asked what to do: pure functions of one observation.

An expert may be a table that dynamic programming found, a controller written by hand, a trained policy, or one of these
made worse on purpose. Axes: A actions, S states.
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
from pgjax._doors import readable
from pgjax._records import one_line
from pgjax.acting import require_memoryless
from pgjax.exact.mdp.optimal_policies import Ties, optimal_probabilities
from pgjax.exact.mdp.tabular import TabularMDP
from pgjax.types import Policy, PyTree


class Expert(NamedTuple):
    """An expert, asked about one observation at a time; use `jax.vmap` for many.

    Attributes:
        act: `(key, obs) → action`; a deterministic expert does not use the key.
        log_probs: `obs → ln π*(·|obs) [A]`, −∞ for actions that it never takes; None for continuous actions, or if the
            probabilities are unknown.
    """

    act: Callable[[jax.Array, PyTree], jax.Array]
    log_probs: Callable[[PyTree], jax.Array] | None = None

    def __repr__(self) -> str:
        return one_line(self)


@readable
def from_log_probs(log_probs: Callable[[PyTree], jax.Array]) -> Expert:
    """The expert of discrete actions that draws from `log_probs(obs) [A]`.

    Example: an expert that always takes action 1 of two.

        >>> import jax, jax.numpy as jnp
        >>> from pgjax import imitation
        >>> expert = imitation.from_log_probs(lambda obs: jnp.array([-jnp.inf, 0.0]))
        >>> int(expert.act(jax.random.key(0), jnp.zeros(4)))
        1
    """
    return Expert(act=lambda key, obs: distributions.categorical.sample(key, log_probs(obs)), log_probs=log_probs)


@readable
def as_policy(expert: Expert) -> Policy:
    """The expert as a policy without parameters, for rollouts and evaluation; pass `()` as its θ.

    Its distribution can only be sampled; the other functions raise NotImplementedError.

    Example:
        >>> from pgjax import imitation
        >>> imitation.as_policy(imitation.pendulum_swing_up())
        Policy(as_policy, distribution=Distribution(pendulum_swing_up, sampled_only))
    """
    reason = "an expert's actions can be drawn, but their distribution has no parameters"
    return Policy(
        init=lambda key, obs: (),
        apply=lambda params, obs: obs,
        distribution=distributions.sampled_only(expert.act, reason),
    )


@readable
def from_table(mdp: TabularMDP, probabilities: jax.Array) -> Expert:
    """The expert that looks up its observation in a table π*(a|s) `[S, A]` of a tabular problem.

    An observation that belongs to no state is treated as the observation of the first state that is not terminal.

    Raises:
        ValueError: for a table of another shape, or if two states that are not terminal have the same observation and
            different probabilities.

    Example: a maze with two ways of two steps; action 1 moves right and action 2 down.

        >>> import jax, jax.numpy as jnp
        >>> from pgjax import imitation
        >>> from pgjax.environments.maze import maze_mdp
        >>> maze = maze_mdp(layout="S.\\n.G")
        >>> always_right = jnp.zeros((maze.num_states, maze.num_actions)).at[:, 1].set(1.0)
        >>> expert = imitation.from_table(maze, always_right)
        >>> int(expert.act(jax.random.key(0), maze.observations[0]))
        1
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


@readable
def optimal_expert(
    mdp: TabularMDP, discount: ArrayLike = 1.0, *, softness: float = 0.0, ties: Ties = "lowest"
) -> Expert:
    """The best stationary policy of a tabular problem, or a softly optimal one; see `exact.optimal_probabilities`.

    It ignores the horizon: near the end of a short horizon another action may be better.

    Example: the second arm pays 1 and the first pays 0.

        >>> import jax
        >>> from pgjax import exact, imitation
        >>> bandit = exact.make_bandit([0.0, 1.0])
        >>> expert = imitation.optimal_expert(bandit)
        >>> int(expert.act(jax.random.key(0), bandit.observations[0]))
        1
    """
    return from_table(mdp, optimal_probabilities(mdp, discount, softness=softness, ties=ties))


@readable
def from_policy(policy: Policy, params: PyTree, *, greedy: bool = False) -> Expert:
    """A trained policy at θ as an expert; its `log_probs` are known if its distribution is `categorical`.

    Args:
        params: θ.
        greedy: whether the expert takes the mode of its distribution instead of a sample.

    Raises:
        ValueError: for a policy that needs its memory, because an expert is asked about single observations.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from pgjax import distributions, imitation
        >>> from pgjax.types import Policy
        >>> policy = Policy(init=lambda key, obs: jnp.zeros(2), apply=lambda params, obs: params,
        ...                 distribution=distributions.categorical)
        >>> expert = imitation.from_policy(policy, params=jnp.array([0.0, 3.0]), greedy=True)
        >>> int(expert.act(jax.random.key(0), jnp.zeros(4)))
        1
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


@readable
def noisy(expert: Expert, epsilon: ArrayLike, num_actions: int) -> Expert:
    """The expert (1 − ε) π*(a|x) + ε / A, which draws from all actions, the best included, with probability ε.

    Args:
        epsilon: ε in [0, 1].
        num_actions: A.

    Example: an expert that always takes action 1 of two then does so with probability 0.95.

        >>> import jax.numpy as jnp
        >>> from pgjax import imitation
        >>> sure = imitation.from_log_probs(lambda obs: jnp.array([-jnp.inf, 0.0]))
        >>> unsure = imitation.noisy(sure, epsilon=0.1, num_actions=2)
        >>> round(float(jnp.exp(unsure.log_probs(jnp.zeros(4)))[1]), 3)
        0.95
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


@readable
def perturbed(expert: Expert, std: ArrayLike, *, low: ArrayLike = -math.inf, high: ArrayLike = math.inf) -> Expert:
    """An expert of continuous actions with Gaussian noise: clip(A* + σ z, low, high), z ~ N(0, I).

    Args:
        std: σ ≥ 0, a number or one number for each dimension of the action.
        low, high: the bounds of the action.

    Example:
        >>> from pgjax import imitation
        >>> imitation.perturbed(imitation.pendulum_swing_up(), std=0.3, low=-2.0, high=2.0)
        Expert(perturbed)
    """
    require_in_range("std", std, 0.0, None)

    def act(key: jax.Array, obs: PyTree) -> jax.Array:
        noise_key, expert_key = jax.random.split(key)
        action = expert.act(expert_key, obs)
        return jnp.clip(action + std * jax.random.normal(noise_key, action.shape, action.dtype), low, high)

    return Expert(act=act)


@readable
def partial(expert: Expert, known: Callable[[PyTree], jax.Array], num_actions: int) -> Expert:
    """The expert where `known(obs)` is true; elsewhere each of the A actions with probability 1 / A.

    Example: an expert that knows what to do only where the first number of the observation is positive.

        >>> import jax.numpy as jnp
        >>> from pgjax import imitation
        >>> sure = imitation.from_log_probs(lambda obs: jnp.array([-jnp.inf, 0.0]))
        >>> expert = imitation.partial(sure, known=lambda obs: obs[0] > 0, num_actions=2)
        >>> jnp.exp(expert.log_probs(jnp.array([1.0]))).tolist(), jnp.exp(expert.log_probs(jnp.array([-1.0]))).tolist()
        ([0.0, 1.0], [0.5, 0.5])
    """
    require_integer("num_actions", num_actions, 1, None)

    def act(key: jax.Array, obs: PyTree) -> jax.Array:
        random_key, expert_key = jax.random.split(key)
        action = expert.act(expert_key, obs)
        return jnp.where(known(obs), action, jax.random.randint(random_key, (), 0, num_actions, action.dtype))

    if (log_probs := expert.log_probs) is None:
        return Expert(act=act)
    return Expert(act=act, log_probs=lambda obs: jnp.where(known(obs), log_probs(obs), -math.log(num_actions)))


@readable
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
    """A controller that swings Pendulum-v1 up by its energy and holds it upright by a linear law.

    The observation is X = (cos θ, sin θ, θ̇), with θ = 0 upright. A rod of length ℓ obeys
    θ̈ = (3g / 2ℓ) sin θ + (3 / mℓ²) u. The energy E = θ̇²/2 + (3g / 2ℓ)(cos θ − 1) is 0 at rest upright, and
    dE/dt ∝ u θ̇, so u = −k_E E sign θ̇ drives E to 0. Where h(θ, θ̇) = −k_θ θ − k_ω θ̇ is small,
    |h| ≤ capture · u_max, the torque is h, which holds the pendulum upright:

        u = clip(h(θ, θ̇) if it is small, else −k_E E sign θ̇, −u_max, u_max).

    Args:
        angle_gain, speed_gain: k_θ in N m / rad and k_ω in N m s / rad.
        energy_gain: k_E, N m s² / rad².
        capture: the bound on |h| in units of u_max.
        max_torque: u_max, N m.
        gravity: g, m/s².
        length: ℓ, m.

    Returns:
        A deterministic expert whose action is u `[1]`, float32.

    Source: Åström & Furuta (2000), "Swinging up a pendulum by energy control".

    Example: at rest upright there is nothing to do.

        >>> import jax, jax.numpy as jnp
        >>> from pgjax import imitation
        >>> expert = imitation.pendulum_swing_up(max_torque=2.0)
        >>> abs(float(expert.act(jax.random.key(0), jnp.array([1.0, 0.0, 0.0]))[0]))
        0.0
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
