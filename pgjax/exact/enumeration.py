"""Every trajectory of a small MDP, and with them the exact mean and variance of any estimator.

Axes: T time (the horizon), N trajectories, B episodes of one batch, S states, A actions.
"""

import operator
from collections.abc import Callable
from decimal import Decimal
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from pgjax.exact.dynamic_programming import Apply, policy_log_probabilities
from pgjax.exact.tabular import TabularMDP
from pgjax.types import PyTree, Trajectory


class Enumeration(NamedTuple):
    """All N trajectories that a policy of full support can produce.

    Attributes:
        mdp: the MDP that was enumerated.
        trajectories: one `Trajectory` of N episodes. After an episode's end the state stays where it ended,
            action 0 is recorded, and rewards are zero.
        states: S_t, int32 `[T, N]`.
        environment_probabilities: d_0(S_0) Π_t P(R_{t+1}, S_{t+1} | S_t, A_t), `[N]`: all but the policy.
    """

    mdp: TabularMDP
    trajectories: Trajectory
    states: jax.Array
    environment_probabilities: jax.Array


class _Branches(NamedTuple):
    """The distinct outcomes of all actions, flat and sorted by state; those of s begin at `first[s]`."""

    states: np.ndarray
    actions: np.ndarray
    successors: np.ndarray
    rewards: np.ndarray
    probabilities: np.ndarray
    first: np.ndarray
    count: np.ndarray


def enumerate_trajectories(mdp: TabularMDP, *, limit: int = 10**6) -> Enumeration:
    """All distinct sequences (S_0, A_0, R_1, S_1, …) that have positive probability under some policy.

    Outcomes of one action with the same successor and reward are one branch. The structure is laid out on the
    host, so the MDP must be concrete; `trajectory_probabilities` is a function of the policy's parameters.

    Raises:
        ValueError: if there are more than `limit` trajectories; they are counted first.
    """
    branches = _find_branches(mdp)
    terminal = np.asarray(mdp.terminal)
    starts = np.flatnonzero(np.asarray(mdp.initial) > 0)
    count = _count_trajectories(branches, starts, terminal, mdp.horizon)
    _refuse_beyond(limit, count, f"trajectories of {mdp.name!r} with horizon {mdp.horizon}")
    path, alive = _lay_out(branches, starts, terminal, mdp.horizon)

    ends = branches.successors[path[alive.sum(0) - 1, np.arange(count)]]
    states = np.where(alive, branches.states[path], ends)
    terminated = alive & terminal[branches.successors[path]]
    cut = alive & ~terminated & (np.arange(mdp.horizon) == mdp.horizon - 1)[:, None]
    outcomes = np.where(alive, branches.probabilities[path], 1.0)
    probabilities = np.asarray(mdp.initial, np.float64)[states[0]] * outcomes.prod(0)
    seen = lambda states: jax.tree.map(lambda rows: jnp.asarray(np.asarray(rows)[states]), mdp.observations)
    dtype = mdp.rewards.dtype
    return Enumeration(
        mdp=mdp,
        trajectories=Trajectory(
            obs=seen(states),
            actions=jnp.asarray(np.where(alive, branches.actions[path], 0), jnp.int32),
            rewards=jnp.asarray(np.where(alive, branches.rewards[path], 0.0), dtype),
            alive=jnp.asarray(alive),
            terminated=jnp.asarray(terminated),
            truncated=jnp.asarray(cut),
            final_obs=seen(ends),
        ),
        states=jnp.asarray(states, jnp.int32),
        environment_probabilities=jnp.asarray(probabilities, dtype),
    )


def _find_branches(mdp: TabularMDP) -> _Branches:
    possible = np.asarray(mdp.probabilities) > 0
    states, actions, _ = np.nonzero(possible)
    columns = [states, actions, np.asarray(mdp.successors)[possible], np.asarray(mdp.rewards)[possible]]
    table = np.stack([column.astype(np.float64) for column in columns], axis=1)
    rows, merged = np.unique(table, axis=0, return_inverse=True)
    probabilities = np.bincount(merged.ravel(), np.asarray(mdp.probabilities, np.float64)[possible])
    states = rows[:, 0].astype(np.int64)
    count = np.bincount(states, minlength=mdp.num_states)
    return _Branches(
        states=states,
        actions=rows[:, 1].astype(np.int64),
        successors=rows[:, 2].astype(np.int64),
        rewards=rows[:, 3],
        probabilities=probabilities,
        first=np.cumsum(count) - count,
        count=count,
    )


def _count_trajectories(branches: _Branches, starts: np.ndarray, terminal: np.ndarray, horizon: int) -> int:
    """How many trajectories there are, by counting the running ones of each state (exact integers)."""
    running = np.zeros(terminal.size, object)
    running[starts] = 1
    total = 0
    for _ in range(horizon):
        arrived = np.zeros(terminal.size, object)
        np.add.at(arrived, branches.successors, running[branches.states])
        total += arrived[terminal].sum()
        running = np.where(terminal, 0, arrived)
    return int(total + running.sum())


def _lay_out(
    branches: _Branches, starts: np.ndarray, terminal: np.ndarray, horizon: int
) -> tuple[np.ndarray, np.ndarray]:
    """The branch that each trajectory takes at each step, `[T, N]` (0 after the end), and alive `[T, N]`."""
    levels = []
    parents, current = np.arange(starts.size), starts
    for _ in range(horizon):
        fan = branches.count[current]
        sibling = np.arange(fan.sum()) - np.repeat(np.cumsum(fan) - fan, fan)
        taken = np.repeat(branches.first[current], fan) + sibling
        levels.append((np.repeat(parents, fan), taken))
        successors = branches.successors[taken]
        parents = np.flatnonzero(~terminal[successors])
        current = successors[parents]

    # Back from the leaves: those that reach the horizon, joined at each level by those that terminate there.
    path, nodes = [], parents
    for ancestors, taken in reversed(levels):
        nodes = np.concatenate([nodes, np.flatnonzero(terminal[branches.successors[taken]])])
        path.append(taken[nodes])
        nodes = ancestors[nodes]
    padded = [np.pad(row, (0, nodes.size - row.size), constant_values=-1) for row in reversed(path)]
    alive = np.stack(padded) >= 0
    return np.where(alive, np.stack(padded), 0), alive


def trajectory_probabilities(apply: Apply, params: PyTree, enumeration: Enumeration) -> jax.Array:
    """f(τ, θ) = d_0(S_0) Π_t π(A_t|S_t) P(R_{t+1}, S_{t+1} | S_t, A_t), `[N]`; differentiable in `params`."""
    log_probabilities = policy_log_probabilities(apply, params, enumeration.mdp)
    taken = log_probabilities[enumeration.states, enumeration.trajectories.actions]
    score = jnp.sum(jnp.where(enumeration.trajectories.alive, taken, 0.0), axis=0)
    return enumeration.environment_probabilities * jnp.exp(score)


def groups(num_trajectories: int, size: int, *, limit: int = 10**6) -> jax.Array:
    """All ordered groups of `size` of the N trajectories, with repetition: indices, int32 `[N^size, size]`.

    Independent episodes form group g with probability Π_b f(τ_{g_b}, θ).

    Raises:
        ValueError: for a size or a number of trajectories below 1, or more than `limit` groups.
    """
    for name, value in (("num_trajectories", num_trajectories), ("size", size)):
        if value < 1:
            raise ValueError(f"{name} is {value}, must be at least 1")
    _refuse_beyond(limit, num_trajectories**size, f"groups of {size} of {num_trajectories} trajectories")
    return jnp.asarray(np.indices((num_trajectories,) * size, np.int32).reshape(size, -1).T)


def select_episodes(trajectory: Trajectory, indices: jax.Array) -> Trajectory:
    """The batch `[T, B]` of the episodes `indices [B]` of a time-major trajectory `[T, N]`, in that order."""
    batch = jax.tree.map(lambda x: x[:, indices], trajectory._replace(final_obs=None))
    return batch._replace(final_obs=jax.tree.map(lambda x: x[indices], trajectory.final_obs))


class Moments(NamedTuple):
    """Exact moments of a random pytree X.

    Attributes:
        mean: E[X], a pytree as X.
        variance: E[(X − E[X])²] of each coordinate, a pytree as X.
        total_variance: tr Var(X) = E‖X − E[X]‖², a scalar, the sum of `variance`.
        second_moment: E‖X‖² = tr Var(X) + ‖E[X]‖², a scalar.
        covariance: of the flattened X, `[P, P]`, or None where it was not asked for.
    """

    mean: PyTree
    variance: PyTree
    total_variance: jax.Array
    second_moment: jax.Array
    covariance: jax.Array | None = None


def moments(estimates: PyTree, probabilities: jax.Array) -> Moments:
    """The moments of X that takes the value `estimates[n]` (leaves `[N, ...]`) with `probabilities [N]`.

    Probabilities must sum to 1; the mean is Σ_n p_n X_n.
    """
    chex.assert_rank(probabilities, 1)
    chex.assert_equal_shape_prefix([probabilities, *jax.tree.leaves(estimates)], 1)

    def expect(values: jax.Array) -> jax.Array:
        weights = jnp.expand_dims(probabilities, tuple(range(1, values.ndim)))
        return jnp.sum(weights * values, axis=0)

    mean = jax.tree.map(expect, estimates)
    variance = jax.tree.map(lambda x, m: expect((x - m[None]) ** 2), estimates, mean)
    return Moments(
        mean=mean,
        variance=variance,
        total_variance=_sum_of_leaves(variance),
        second_moment=_sum_of_leaves(jax.tree.map(lambda x: expect(x**2), estimates)),
    )


def _sum_of_leaves(tree: PyTree) -> jax.Array:
    return jax.tree.reduce(operator.add, jax.tree.map(jnp.sum, tree))


def estimator_moments(
    gradient_fn: Callable[[Trajectory], PyTree],
    enumeration: Enumeration,
    probabilities: jax.Array,
    group_size: int,
    *,
    batch_size: int = 1024,
    limit: int = 10**6,
) -> Moments:
    """Exact moments of an estimate from B = `group_size` independent episodes, over all N^B batches.

    E[ĝ] = Σ_g (Π_b p_{g_b}) ĝ(τ_{g_1}, …, τ_{g_B}), and likewise the variance.

    Args:
        gradient_fn: `trajectory [T, B] → ĝ`, any pytree; it sees each batch without knowing the others.
        enumeration: all trajectories.
        probabilities: of the trajectories, `[N]`, as `trajectory_probabilities` gives them.
        group_size: B.
        batch_size: how many groups are evaluated at a time under vmap; bounds the memory, changes no value.
        limit: the greatest number of groups.

    Returns:
        Moments of ĝ; differentiable in what `gradient_fn` and `probabilities` depend on.

    Raises:
        ValueError: for more than `limit` groups, or a group size below 1.
    """
    chex.assert_shape(probabilities, enumeration.environment_probabilities.shape)
    indices = groups(probabilities.shape[0], group_size, limit=limit)

    @jax.jit
    def measure(trajectories: Trajectory, indices: jax.Array, probabilities: jax.Array) -> Moments:
        estimates = jax.lax.map(
            lambda group: gradient_fn(select_episodes(trajectories, group)), indices, batch_size=batch_size
        )
        return moments(estimates, jnp.prod(probabilities[indices], axis=1))

    return measure(enumeration.trajectories, indices, probabilities)


def _refuse_beyond(limit: int, count: int, things: str) -> None:
    if count > limit:
        shown = str(count) if count < 10**15 else f"{Decimal(count):.2e}"
        raise ValueError(f"there are {shown} {things}, the limit is {limit}: make the problem smaller")
