"""All trajectories of a small MDP, their probabilities under a policy, and ρ(θ) and ∇ρ(θ) as sums over them.

Axes: T time (the horizon), N trajectories, S states, A actions.
"""

from decimal import Decimal
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from pgjax import acting
from pgjax._doors import readable
from pgjax.exact.mdp.dynamic_programming import Apply, policy_log_probabilities
from pgjax.exact.mdp.tabular import TabularMDP, checked_discount
from pgjax.types import Policy, PyTree, Trajectory

# The number of trajectories whose policy memory is unrolled at the same time, which bounds the use of memory.
_AT_ONCE = 1024


class Enumeration(NamedTuple):
    """All N trajectories that a policy can produce if it gives every action a positive probability.

    Attributes:
        mdp: the MDP that was enumerated.
        trajectories: one `Trajectory` of N episodes. After the end of an episode the state does not change, action 0 is
            recorded, and rewards are zero.
        states: S_t, int32 `[T, N]`.
        environment_probabilities: d_0(S_0) Π_t P(R_{t+1}, S_{t+1} | S_t, A_t), `[N]`: the factors that do not depend on
            the policy.
    """

    mdp: TabularMDP
    trajectories: Trajectory
    states: jax.Array
    environment_probabilities: jax.Array


class _Branches(NamedTuple):
    """The distinct outcomes of all actions, flat and sorted by state; the outcomes of s begin at `first[s]`."""

    states: np.ndarray
    actions: np.ndarray
    successors: np.ndarray
    rewards: np.ndarray
    probabilities: np.ndarray
    first: np.ndarray
    count: np.ndarray


@readable
def enumerate_trajectories(mdp: TabularMDP, *, limit: int = 10**6) -> Enumeration:
    """All distinct sequences (S_0, A_0, R_1, S_1, …) that have a positive probability under some policy.

    Outcomes of one action with the same successor and reward count as one. The sequences are found on the host, so the
    MDP must not be traced; `trajectory_probabilities` then depends on the policy's parameters.

    Raises:
        ValueError: if there are more than `limit` trajectories; they are counted before they are listed.

    Example: two arms and one step make two trajectories; with probabilities 1/4 and 3/4 they pay 0 and 1.

        >>> import jax.numpy as jnp
        >>> from pgjax import exact
        >>> every = exact.enumerate_trajectories(exact.make_bandit([0.0, 1.0]))
        >>> logits_of = lambda params, obs: params  # a policy without state: θ holds the logits
        >>> exact.trajectory_probabilities(logits_of, jnp.log(jnp.array([1.0, 3.0])), every).round(4).tolist()
        [0.25, 0.75]
        >>> every.trajectories.rewards.tolist()  # [T, N]
        [[0.0, 1.0]]
    """
    branches = _find_branches(mdp)
    terminal = np.asarray(mdp.terminal)
    starts = np.flatnonzero(np.asarray(mdp.initial) > 0)
    count = _count_trajectories(branches, starts, terminal, mdp.horizon)
    refuse_beyond(limit, count, f"trajectories of {mdp.name!r} with horizon {mdp.horizon}")
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
    """The number of trajectories, by counting the running ones in each state (with exact integers)."""
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
    """The outcome that each trajectory takes at each step, `[T, N]` (0 after the end), and alive `[T, N]`."""
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

    # From the last step back to the first: trajectories that reach the horizon, and at each step those that end there.
    path, nodes = [], parents
    for ancestors, taken in reversed(levels):
        nodes = np.concatenate([nodes, np.flatnonzero(terminal[branches.successors[taken]])])
        path.append(taken[nodes])
        nodes = ancestors[nodes]
    padded = [np.pad(row, (0, nodes.size - row.size), constant_values=-1) for row in reversed(path)]
    alive = np.stack(padded) >= 0
    return np.where(alive, np.stack(padded), 0), alive


@readable
def trajectory_probabilities(policy: Policy | Apply, params: PyTree, enumeration: Enumeration) -> jax.Array:
    """f(τ, θ) = d_0(S_0) Π_t π(A_t | X_1, …, X_t) P(R_{t+1}, S_{t+1} | S_t, A_t), `[N]`; differentiable in `params`.

    Args:
        policy: a `Policy`, with memory or without, or `apply(params, obs) → logits [A]` of a softmax policy.
        params: θ.
        enumeration: all trajectories.
    """
    if isinstance(policy, Policy) and policy.apply is None:
        taken = _unrolled(policy, params, enumeration)
    else:
        taken = _looked_up(policy, params, enumeration)
    score = jnp.sum(jnp.where(enumeration.trajectories.alive, taken, 0.0), axis=0)
    return enumeration.environment_probabilities * jnp.exp(score)


def _looked_up(policy: Policy | Apply, params: PyTree, enumeration: Enumeration) -> jax.Array:
    """ln π(A_t | S_t) of every row, `[T, N]`, from one table of all states and actions."""
    log_probabilities = policy_log_probabilities(policy, params, enumeration.mdp)
    return log_probabilities[enumeration.states, enumeration.trajectories.actions]


def _unrolled(policy: Policy, params: PyTree, enumeration: Enumeration) -> jax.Array:
    """ln π(A_t | X_1, …, X_t) of every row, `[T, N]`; `_AT_ONCE` trajectories at a time, also when differentiated."""

    @jax.checkpoint
    def of_episode(episode: tuple[PyTree, jax.Array]) -> jax.Array:
        obs, actions = episode
        return jax.vmap(policy.distribution.log_prob)(acting.unroll(policy, params, obs), actions)

    trajectories = enumeration.trajectories
    episodes = jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), (trajectories.obs, trajectories.actions))
    return jax.lax.map(of_episode, episodes, batch_size=_AT_ONCE).T


@readable
def enumerated_objective(
    policy: Policy | Apply, params: PyTree, enumeration: Enumeration, discount: ArrayLike = 1.0
) -> jax.Array:
    """ρ(θ) = Σ_τ f(τ, θ) Σ_t γ^t R_{t+1}, a scalar, t from 0; unlike `objective` also for policies with memory.

    Args:
        policy, params, enumeration: as in `trajectory_probabilities`.
        discount: γ in [0, 1].

    Raises:
        ValueError: for a discount outside [0, 1].
    """
    gamma = checked_discount(enumeration.mdp, discount)
    rewards = enumeration.trajectories.rewards
    weights = gamma ** jnp.arange(rewards.shape[0], dtype=gamma.dtype)
    returns = jnp.sum(weights[:, None] * rewards, axis=0)
    return jnp.sum(trajectory_probabilities(policy, params, enumeration) * returns)


@readable
def enumerated_gradient(
    policy: Policy | Apply, params: PyTree, enumeration: Enumeration, discount: ArrayLike = 1.0
) -> PyTree:
    """∇ρ(θ), shaped as `params`, by differentiating `enumerated_objective`; arguments and errors as there."""
    return jax.grad(enumerated_objective, argnums=1)(policy, params, enumeration, discount)


@readable
def select_episodes(trajectory: Trajectory, indices: jax.Array) -> Trajectory:
    """The batch `[T, B]` of the episodes `indices [B]` of a time-major trajectory `[T, N]`, in that order."""
    batch = jax.tree.map(lambda x: x[:, indices], trajectory._replace(final_obs=None, carry=None))
    final_obs, carry = jax.tree.map(lambda x: x[indices], (trajectory.final_obs, trajectory.carry))
    return batch._replace(final_obs=final_obs, carry=carry)


def refuse_beyond(limit: int, count: int, things: str) -> None:
    """Refuse to list more than `limit` things; the count is an exact integer and may be huge.

    Raises:
        ValueError: if `count` exceeds `limit`; the error shows both numbers.
    """
    if count > limit:
        shown = str(count) if count < 10**15 else f"{Decimal(count):.2e}"
        raise ValueError(f"there are {shown} {things}, the limit is {limit}: make the problem smaller")
