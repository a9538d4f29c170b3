"""A finite MDP: one definition that is solved exactly and sampled as an `Environment`.

Axes: T time (the horizon), S states, A actions, K outcomes of one action in one state.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from pgjax._checks import is_traced, require_in_range
from pgjax._doors import readable
from pgjax.types import Box, Discrete, Environment, PyTree, Step


@dataclasses.dataclass(frozen=True, eq=False)
class TabularMDP:
    """A finite-horizon MDP with sparse outcomes; build it with `make_tabular_mdp`, which checks it.

    Action a in state s has outcome k with probability P(k | s, a): the next state is s' = successors[s, a, k]
    and the reward R = rewards[s, a, k]. The record is a pytree: the arrays are leaves, `horizon` and `name` are static.

    Attributes:
        initial: d_0(s), float `[S]`.
        successors: s', int32 `[S, A, K]`.
        probabilities: P(k | s, a), float `[S, A, K]`; unused outcomes have probability 0.
        rewards: R, float `[S, A, K]`, paid on every step, the last one included.
        terminal: bool `[S]`; a step into a terminal state ends the episode, and its own rows are unused.
        observations: what the policy sees of each state, `[S, ...]`, or a dict or NamedTuple of such arrays; equal rows
            are aliased states.
        horizon: T, the greatest number of steps of an episode.
        name: the name of the problem.
    """

    initial: jax.Array
    successors: jax.Array
    probabilities: jax.Array
    rewards: jax.Array
    terminal: jax.Array
    observations: PyTree
    horizon: int
    name: str

    @property
    def num_states(self) -> int:
        return self.successors.shape[0]

    @property
    def num_actions(self) -> int:
        return self.successors.shape[1]


jax.tree_util.register_dataclass(
    TabularMDP,
    data_fields=["initial", "successors", "probabilities", "rewards", "terminal", "observations"],
    meta_fields=["horizon", "name"],
)


def checked_discount(mdp: TabularMDP, discount: ArrayLike) -> jax.Array:
    """γ in the MDP's float type; raises a ValueError if it is outside [0, 1]."""
    require_in_range("discount", discount, 0.0, 1.0)
    return jnp.asarray(discount, mdp.rewards.dtype)


@readable
def make_tabular_mdp(
    *,
    initial: ArrayLike,
    successors: ArrayLike,
    probabilities: ArrayLike,
    rewards: ArrayLike,
    terminal: ArrayLike,
    horizon: int,
    observations: PyTree | None = None,
    name: str = "tabular",
) -> TabularMDP:
    """A checked `TabularMDP`; the arguments are its attributes, and floats get JAX's default float type.

    `observations` defaults to one-hot rows `[S, S]`; integer observations stay integers, and lists and plain tuples
    become arrays. Values are checked only if they are not traced.

    Raises:
        ValueError: for shapes that do not fit, a horizon below 1, a successor not in 0, …, S − 1, an entry
            that is not finite, a negative probability, a distribution that does not sum to 1 within 1e-6, or
            an episode that would begin in a terminal state.

    Example: one step from state 0 to the terminal state 1; action 0 pays 0 or 2 with equal probability.

        >>> from pgjax import exact
        >>> mdp = exact.make_tabular_mdp(
        ...     initial=[1.0, 0.0],
        ...     successors=[[[1, 1], [1, 1]], [[1, 1], [1, 1]]],  # [S, A, K]
        ...     probabilities=[[[0.5, 0.5], [1.0, 0.0]], [[1.0, 0.0], [1.0, 0.0]]],
        ...     rewards=[[[0.0, 2.0], [0.5, 0.0]], [[0.0, 0.0], [0.0, 0.0]]],
        ...     terminal=[False, True],
        ...     horizon=1,
        ... )
        >>> exact.optimal_action_values(mdp)[0, 0].tolist()
        [1.0, 0.5]
    """
    successors = jnp.asarray(successors)
    if successors.ndim != 3 or 0 in successors.shape:
        raise ValueError(f"successors has shape {successors.shape}, must be [S, A, K] with no empty axis")
    if not jnp.issubdtype(successors.dtype, jnp.integer):
        raise ValueError(f"successors has dtype {successors.dtype}, must be an integer type")
    observations = np.eye(successors.shape[0]) if observations is None else observations
    mdp = TabularMDP(
        initial=jnp.asarray(initial, float),
        successors=successors.astype(jnp.int32),
        probabilities=jnp.asarray(probabilities, float),
        rewards=jnp.asarray(rewards, float),
        terminal=jnp.asarray(terminal, bool),
        observations=jax.tree.map(_seen, observations, is_leaf=lambda x: type(x) in (list, tuple)),
        horizon=horizon,
        name=name,
    )
    _check_shapes(mdp)
    if not any(map(is_traced, jax.tree.leaves(mdp))):
        _check_values(mdp)
    return mdp


def _seen(observations: ArrayLike) -> jax.Array:
    observations = jnp.asarray(observations)
    return observations if jnp.issubdtype(observations.dtype, jnp.integer) else observations.astype(float)


_MOST_NUMBERS = 2**28  # of one array


def _check_shapes(mdp: TabularMDP) -> None:
    outcomes, states = mdp.successors.shape, mdp.successors.shape[:1]
    allowed = {"probabilities": outcomes, "rewards": outcomes, "initial": states, "terminal": states}
    for name, shape in allowed.items():
        if getattr(mdp, name).shape != shape:
            raise ValueError(f"{name} has shape {getattr(mdp, name).shape}, must be {shape} as successors")
    for leaf in jax.tree.leaves(mdp.observations):
        if leaf.shape[:1] != states:
            raise ValueError(f"observations has shape {leaf.shape}, must have {states[0]} rows")
    if isinstance(mdp.horizon, bool) or not isinstance(mdp.horizon, int) or mdp.horizon < 1:
        raise ValueError(f"horizon is {mdp.horizon!r}, must be an integer of at least 1")


def _check_values(mdp: TabularMDP) -> None:
    jax.block_until_ready(mdp)  # so that a failed allocation raises an exception here and does not end the process
    for name in ("initial", "probabilities", "rewards", "observations"):
        if not all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(getattr(mdp, name))):
            raise ValueError(f"{name} holds an entry that is not finite")
    successors = np.asarray(mdp.successors)
    outside = (successors < 0) | (successors >= mdp.num_states)
    if outside.any():
        where = _first(outside)
        found, last = successors[tuple(where)], mdp.num_states - 1
        raise ValueError(f"successors{where} is {found}, must be in 0, …, {last}")
    for name in ("initial", "probabilities"):
        values = np.asarray(getattr(mdp, name), np.float64)
        if (values < 0).any():
            where = _first(values < 0)
            raise ValueError(f"{name}{where} is {values[tuple(where)]}, must not be negative")
        sums = values.sum(-1)
        wrong = np.abs(sums - 1) > 1e-6
        if wrong.any():
            where = _first(wrong) if values.ndim > 1 else ""
            raise ValueError(f"{name}{where} sums to {sums[wrong].flat[0]:.9g}, must sum to 1")
    started = np.asarray(mdp.terminal) & (np.asarray(mdp.initial) > 0)
    if started.any():
        raise ValueError(f"initial{_first(started)} is positive in a terminal state, must be 0 there")


def _first(found: np.ndarray) -> list[int]:
    """The index of the first true entry, to be printed after the name of an array."""
    return np.argwhere(found)[0].tolist()


@readable
def make_bandit(rewards: ArrayLike, probabilities: ArrayLike | None = None, *, name: str = "bandit") -> TabularMDP:
    """A bandit, an MDP of one step: state 0, whose observation is `[1]`, then the terminal state 1, `[0]`.

    Args:
        rewards: R of each arm, `[A]`, or of each outcome of each arm, `[A, K]`.
        probabilities: the probabilities of the outcomes, `[A, K]`; only with rewards `[A, K]`.
        name: the name of the problem.

    Raises:
        ValueError: for rewards `[A, K]` without probabilities, or as in `make_tabular_mdp`.

    Example:
        >>> from pgjax import exact
        >>> bandit = exact.make_bandit([0.0, 0.5, 1.0])
        >>> bandit.num_actions, bandit.num_states, bandit.horizon
        (3, 2, 1)
    """
    rewards = jnp.asarray(rewards, float)
    probabilities = None if probabilities is None else jnp.asarray(probabilities, float)
    if rewards.ndim == 1 and probabilities is None:
        rewards, probabilities = rewards[:, None], jnp.ones((rewards.shape[0], 1))
    if rewards.ndim != 2 or probabilities is None or probabilities.shape != rewards.shape:
        found = None if probabilities is None else probabilities.shape
        raise ValueError(
            f"rewards has shape {rewards.shape} and probabilities {found}, must be [A] and None or both [A, K]"
        )
    twice = lambda x: jnp.stack([x, x])
    return make_tabular_mdp(
        initial=np.array([1.0, 0.0]),
        successors=jnp.ones((2, *rewards.shape), jnp.int32),
        probabilities=twice(probabilities),
        rewards=twice(rewards),
        terminal=np.array([False, True]),
        observations=[[1.0], [0.0]],
        horizon=1,
        name=name,
    )


@readable
def random_mdp(key: jax.Array, num_states: int, num_actions: int, num_outcomes: int, horizon: int) -> TabularMDP:
    """A random MDP with uniform successors, Dirichlet(1) probabilities and normal rewards.

    The last state is terminal, and observations are one-hot. The unused rows of the terminal state are random, too, so
    that tests find a solver which reads them.

    Raises:
        ValueError: for fewer than two states, an empty axis, or more than 2²⁸ outcomes in all.
    """
    if num_states < 2:
        raise ValueError(f"num_states is {num_states}, must be at least 2: one is terminal")
    if num_states * max(num_states, num_actions * num_outcomes) > _MOST_NUMBERS:
        raise ValueError(
            f"num_states · num_actions · num_outcomes, and num_states squared, must be at most {_MOST_NUMBERS}, "
            f"got {num_states}, {num_actions} and {num_outcomes}"
        )
    successor_key, probability_key, reward_key, initial_key = jax.random.split(key, 4)
    shape = (num_states, num_actions, num_outcomes)
    return make_tabular_mdp(
        initial=jnp.append(_random_distribution(initial_key, (num_states - 1,)), 0.0),
        successors=jax.random.randint(successor_key, shape, 0, num_states, jnp.int32),
        probabilities=_random_distribution(probability_key, shape),
        rewards=jax.random.normal(reward_key, shape),
        terminal=np.arange(num_states) == num_states - 1,
        horizon=horizon,
        name="random",
    )


def _random_distribution(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Dirichlet(1) along the last axis, as normalised exponentials, because gamma variates take long to compile."""
    weights = jax.random.exponential(key, shape)
    return weights / jnp.sum(weights, axis=-1, keepdims=True)


class TabularState(NamedTuple):
    """The state of the environment: `index` is the number of the state, int32 scalar."""

    index: jax.Array


@readable
def to_environment(
    mdp: TabularMDP, *, render: Callable[[PyTree, PyTree, PyTree], np.ndarray] | None = None
) -> Environment:
    """The MDP as a sampled `Environment`: S_1 ~ d_0, (S_{t+1}, R_{t+1}) ~ P(S_t, A_t); X_t is the row of S_t.

    `params` is the MDP itself in float32, so its leaves may be vmapped; the state is a `TabularState`. The MDP must not
    be traced, because the bounds of the observation space come from its values. `render` is the environment's `render`.

    Example:
        >>> from pgjax import exact
        >>> exact.to_environment(exact.make_bandit([0.0, 1.0]))
        Environment(name='bandit', horizon=1, observation_space=Box(0.0, 1.0, shape=(1,)), action_space=Discrete(2))
    """
    params = jax.tree.map(_in_float32, mdp)

    def see(params: TabularMDP, state: jax.Array) -> PyTree:
        return jax.tree.map(lambda rows: rows[state], params.observations)

    def reset(key: jax.Array, params: TabularMDP) -> tuple[TabularState, PyTree]:
        state = TabularState(index=_draw(key, params.initial))
        return state, see(params, state.index)

    def step(key: jax.Array, state: TabularState, action: jax.Array, params: TabularMDP) -> tuple[TabularState, Step]:
        outcome = _draw(key, params.probabilities[state.index, action])
        successor = params.successors[state.index, action, outcome]
        return TabularState(index=successor), Step(
            obs=see(params, successor),
            reward=params.rewards[state.index, action, outcome],
            terminated=params.terminal[successor],
        )

    return Environment(
        name=mdp.name,
        reset=reset,
        step=step,
        params=params,
        observation_space=jax.tree.map(_smallest_box, params.observations),
        action_space=Discrete(mdp.num_actions),
        horizon=mdp.horizon,
        render=render,
    )


def _smallest_box(rows: jax.Array) -> Box:
    seen = np.asarray(rows)
    return Box(low=seen.min().item(), high=seen.max().item(), shape=seen.shape[1:], dtype=seen.dtype.type)


def _in_float32(leaf: jax.Array) -> jax.Array:
    return leaf.astype(jnp.float32) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf


def _draw(key: jax.Array, probabilities: jax.Array) -> jax.Array:
    """k ~ `probabilities [K]` by inverse CDF, int32: the first k with u·F(K) < F(k), u ~ U[0, 1)."""
    # An outcome of probability zero is never drawn, however the sums are rounded.
    cumulative = jnp.where(probabilities > 0, jnp.cumsum(probabilities), 0.0)
    uniform = jax.random.uniform(key, (), probabilities.dtype)
    return jnp.argmax(uniform * jnp.max(cumulative) < cumulative).astype(jnp.int32)
