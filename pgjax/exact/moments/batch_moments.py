"""The exact mean and variance of any estimate from a batch of episodes, by a sum over all possible batches.

Axes: N trajectories, B episodes of a batch, k episodes of a group that share a start, P numbers of an estimate,
n batches that are evaluated at the same time.
"""

from collections.abc import Callable
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from pgjax._checks import require_integer
from pgjax._doors import readable
from pgjax.exact.mdp.enumeration import Enumeration, refuse_beyond, select_episodes
from pgjax.exact.moments.summary import Moments, Sums, merged, moments_of_sums, sums_of
from pgjax.types import PyTree, Trajectory

_BATCH_NUMBERS = 2**31 - 1  # batches are counted in int32


@readable
def groups(num_trajectories: int, size: int, *, limit: int = 10**6) -> jax.Array:
    """All ordered groups of `size` trajectories out of N, with repetition: indices, int32 `[N^size, size]`.

    Independent episodes form group g with probability Π_b f(τ_{g_b}, θ).

    Raises:
        ValueError: for a number of trajectories below 1, a size outside [1, 1024], or more than `limit` groups.
    """
    require_integer("num_trajectories", num_trajectories, 1, None)
    require_integer("size", size, 1, 1024)
    refuse_beyond(limit, num_trajectories**size, f"groups of {size} of {num_trajectories} trajectories")
    return jnp.asarray(np.indices((num_trajectories,) * size, np.int32).reshape(size, -1).T)


class _Starts(NamedTuple):
    """Trajectories sorted by their start; those that start in s are `order[first[s] : first[s] + count[s]]`.

    Attributes:
        order: `[N]`.
        first, count: `[S]`.
        probabilities: d_0(s), `[S]`.
        of_trajectory: d_0 of each trajectory's own start, `[N]`, in the order of the enumeration.
    """

    order: np.ndarray
    first: np.ndarray
    count: np.ndarray
    probabilities: np.ndarray
    of_trajectory: np.ndarray


def _starts(enumeration: Enumeration, group_size: int) -> _Starts:
    """The starts. Groups of one episode need none: all trajectories then count as one block of probability 1."""
    if group_size == 1:
        states, initial = np.zeros(enumeration.environment_probabilities.shape[0], int), np.ones(1)
    else:
        states, initial = np.asarray(enumeration.states)[0], np.asarray(enumeration.mdp.initial)
    found, inverse, count = np.unique(states, return_inverse=True, return_counts=True)
    return _Starts(
        order=np.argsort(states, kind="stable").astype(np.int32),
        first=(np.cumsum(count) - count).astype(np.int32),
        count=count.astype(np.int32),
        probabilities=initial[found],
        of_trajectory=initial[found][inverse],
    )


@readable
def count_batches(enumeration: Enumeration, num_episodes: int, *, group_size: int = 1) -> int:
    """The number of batches, (Σ_s n_s^k)^{B/k}, where n_s trajectories start in s; N^B if k = 1.

    Args:
        enumeration: all trajectories.
        num_episodes: B.
        group_size: k, the number of episodes that share a start; it divides B.

    Raises:
        ValueError: for a number below 1, or a group size that does not divide B.
    """
    require_integer("num_episodes", num_episodes, 1, None)
    require_integer("group_size", group_size, 1, None)
    if num_episodes % group_size:
        raise ValueError(f"group_size must divide num_episodes={num_episodes}, got {group_size}")
    fans = _starts(enumeration, group_size).count
    return sum(int(fan) ** group_size for fan in fans) ** (num_episodes // group_size)


def _draw(starts: _Starts, num_groups: int, group_size: int) -> Callable[[jax.Array], tuple[jax.Array, jax.Array]]:
    """A function of a batch's number: the indices of its episodes `[B]`, and the product of d_0 over its groups."""
    fans = np.array([int(fan) ** group_size for fan in starts.count])
    ends = np.cumsum(fans)
    group_powers = np.array([int(ends[-1]) ** i for i in reversed(range(num_groups))])
    member_powers = np.array([[int(fan) ** j for j in reversed(range(group_size))] for fan in starts.count])
    order, first, count, begins, group_powers, member_powers = (
        jnp.asarray(x, jnp.int32) for x in (*starts[:3], ends - fans, group_powers, member_powers)
    )

    def draw(number: jax.Array) -> tuple[jax.Array, jax.Array]:
        group = number // group_powers % int(ends[-1])
        start = jnp.searchsorted(begins, group, side="right") - 1
        rest = (group - begins[start])[:, None]
        digits = rest // member_powers[start] % count[start][:, None]
        indices = order[first[start][:, None] + digits]
        return indices.reshape(-1), jnp.prod(jnp.asarray(starts.probabilities)[start])

    return draw


def _program(
    gradient_fn: Callable[[Trajectory], PyTree],
    enumeration: Enumeration,
    num_episodes: int,
    group_size: int,
    batch_size: int,
    covariance: bool,
    limit: int,
) -> tuple[int, Callable[[Trajectory, jax.Array], Moments]]:
    """The number of batches, and the jitted function `(trajectories, probabilities) → Moments`."""
    require_integer("batch_size", batch_size, 1, None)
    require_integer("limit", limit, 1, _BATCH_NUMBERS)
    count = count_batches(enumeration, num_episodes, group_size=group_size)
    shared = f" in groups of {group_size} that share a start" if group_size > 1 else ""
    num_trajectories = enumeration.environment_probabilities.shape[0]
    refuse_beyond(limit, count, f"batches of {num_episodes} of {num_trajectories} trajectories{shared}")
    starts = _starts(enumeration, group_size)
    draw = _draw(starts, num_episodes // group_size, group_size)
    num_blocks = -(-count // batch_size)
    size = -(-count // num_blocks)

    @jax.jit
    def measure(trajectories: Trajectory, probabilities: jax.Array) -> Moments:
        conditional = probabilities / jnp.asarray(starts.of_trajectory, probabilities.dtype)
        estimate = jax.jit(lambda indices: gradient_fn(select_episodes(trajectories, indices)))
        shapes = jax.eval_shape(estimate, jax.ShapeDtypeStruct((num_episodes,), jnp.int32))
        dtype = jnp.result_type(probabilities, *jax.tree.leaves(shapes))
        as_one = lambda tree: ravel_pytree(jax.tree.map(lambda x: x.astype(dtype), tree))[0]
        flat, unravel = ravel_pytree(jax.tree.map(lambda x: jnp.zeros(x.shape, dtype), shapes))

        # Checkpointed, so that reverse mode stores the running sums of a block and not its estimates.
        @jax.checkpoint
        def add_block(sums: Sums, block: jax.Array) -> tuple[Sums, None]:
            numbers = block * size + jnp.arange(size, dtype=jnp.int32)
            # The last block repeats the last batch with weight 0.
            indices, chances = jax.vmap(draw)(jnp.minimum(numbers, count - 1))
            weights = chances.astype(dtype) * jnp.prod(conditional[indices], axis=1).astype(dtype)
            weights = jnp.where(numbers < count, weights, jnp.zeros_like(weights))
            values = jax.vmap(lambda one: as_one(estimate(one)))(indices)
            return merged(sums, sums_of(weights, values, covariance), covariance), None

        spread = jnp.zeros((flat.size, flat.size) if covariance else flat.shape, dtype)
        nothing = Sums(weight=jnp.zeros((), dtype), mean=flat, spread=spread)
        sums, _ = jax.lax.scan(add_block, nothing, jnp.arange(num_blocks, dtype=jnp.int32))
        return moments_of_sums(sums, unravel)

    return count, measure


@readable
def estimator_moments(
    gradient_fn: Callable[[Trajectory], PyTree],
    enumeration: Enumeration,
    probabilities: jax.Array,
    num_episodes: int,
    *,
    group_size: int = 1,
    covariance: bool = False,
    batch_size: int = 1024,
    limit: int = 10**6,
) -> Moments:
    """Exact moments of an estimate from a batch of B = `num_episodes` episodes, by a sum over all possible batches.

    The batch is B/k independent groups of k = `group_size` consecutive episodes, and the episodes of a group are
    independent given the start S_0 that they share, the state after the reset:

        E[ĝ] = Σ_batches [Π_groups d_0(s) Π_{b in group} f(τ_b, θ | s)] ĝ(τ_1, …, τ_B),   f(τ, θ | s) = f(τ, θ) / d_0(s)

    and likewise the variance. With k = 1 all episodes are independent.

    Batches are summed in blocks of `batch_size`: the mean and spread of a block are merged into the running ones (Chan
    et al. 1979), so the memory holds only the estimates of one block, and no large numbers cancel. The relative error
    of the variance is within a few ε √(E‖ĝ‖² / tr Var ĝ) times the number of blocks; the error of E‖ĝ‖² − ‖E ĝ‖² would
    be ε E‖ĝ‖² / tr Var ĝ. Estimates that are all equal have a variance of exactly 0.

    Args:
        gradient_fn: `trajectory [T, B] → ĝ`, any pytree; it is called for each batch alone.
        enumeration: all trajectories.
        probabilities: the probabilities of the trajectories, `[N]`, from `trajectory_probabilities`.
        num_episodes: B.
        group_size: k, the number of consecutive episodes that share a start; it divides B. If k > 1 the enumeration
            must not be traced.
        covariance: whether to return the covariance matrix, too; it takes P² numbers.
        batch_size: n, the number of batches that are evaluated at the same time under vmap. It bounds the memory to n
            times what `gradient_fn` needs for one batch, also in reverse mode, which computes each block twice.
        limit: the greatest number of batches, at most 2³¹ − 1.

    Returns:
        Moments of ĝ; differentiable in what `gradient_fn` and `probabilities` depend on.

    Raises:
        ValueError: for more than `limit` batches, a number below 1, or a group size that does not divide B.

    Source: Chan, Golub & LeVeque (1979) for the merging of means and spreads.
    """
    chex.assert_shape(probabilities, enumeration.environment_probabilities.shape)
    _, measure = _program(gradient_fn, enumeration, num_episodes, group_size, batch_size, covariance, limit)
    return measure(enumeration.trajectories, probabilities)


class MomentsPlan(NamedTuple):
    """`estimator_moments`, compiled but not yet run.

    Attributes:
        num_batches: the number of batches that will be evaluated.
        num_bytes: the memory that the compiled program takes for arguments, results and temporary arrays; None if the
            compiler does not report it. The process needs more: JAX and its compiler take hundreds of MB, and this
            number contains neither the arrays that `gradient_fn` holds nor the workspaces of LAPACK's solvers.
        run: `probabilities [N] → Moments`.
    """

    num_batches: int
    num_bytes: int | None
    run: Callable[[jax.Array], Moments]


@readable
def plan_moments(
    gradient_fn: Callable[[Trajectory], PyTree],
    enumeration: Enumeration,
    num_episodes: int,
    *,
    group_size: int = 1,
    covariance: bool = False,
    batch_size: int = 1024,
    limit: int = 10**6,
    memory_limit: int = 2**32,
) -> MomentsPlan:
    """Compile `estimator_moments`, so that its work and its memory are known before it runs.

    The arguments are those of `estimator_moments`, and `memory_limit`, the greatest number of bytes that the program
    may take (4 GiB).

    Raises:
        ValueError: as in `estimator_moments`, and if the program would take more than `memory_limit` bytes.
    """
    count, measure = _program(gradient_fn, enumeration, num_episodes, group_size, batch_size, covariance, limit)
    probabilities = enumeration.environment_probabilities
    compiled = measure.lower(enumeration.trajectories, probabilities).compile()
    sizes, num_bytes = compiled.memory_analysis(), None
    if sizes is not None:
        num_bytes = sizes.argument_size_in_bytes + sizes.output_size_in_bytes + sizes.temp_size_in_bytes
    if num_bytes is not None and num_bytes > memory_limit:
        raise ValueError(
            f"the moments over {count} batches of {num_episodes} episodes take {num_bytes / 2**30:.3g} GiB with "
            f"batch_size={batch_size}, memory_limit is {memory_limit / 2**30:.3g} GiB: lower batch_size"
        )
    run = lambda probabilities: compiled(enumeration.trajectories, probabilities)
    return MomentsPlan(num_batches=count, num_bytes=num_bytes, run=run)
