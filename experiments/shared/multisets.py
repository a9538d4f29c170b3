"""Exact moments of what a group of k episodes gives, whatever their order: multisets in the place of all N^k groups."""

import itertools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from pgjax import exact
from pgjax.types import PyTree, Trajectory


def multisets(num_trajectories: int, size: int, *, limit: int = 100_000) -> tuple[np.ndarray, np.ndarray]:
    """All multisets of `size` of the N trajectories: indices `[M, size]`, and how many groups each stands for `[M]`.

    M = (N + size − 1 over size); a multiset in which n is found c_n times is size! / Π c_n! ordered groups.

    Raises:
        ValueError: for more than `limit` multisets.
    """
    count = math.comb(num_trajectories + size - 1, size)
    if count > limit:
        raise ValueError(f"there are {count} multisets of {size} of {num_trajectories}, the limit is {limit}")
    chosen = list(itertools.combinations_with_replacement(range(num_trajectories), size))
    indices = np.array(chosen, np.int32).reshape(count, size)
    found = np.stack([(indices == n).sum(axis=1) for n in range(num_trajectories)], axis=1)
    factorials = np.array([math.factorial(n) for n in range(size + 1)], object)
    ways = math.factorial(size) // factorials[found].prod(axis=1)
    return indices, ways.astype(np.float64)


def group_means(summands: PyTree, group_size: int) -> PyTree:
    """The estimate of each group of k consecutive episodes, leaves `[B / k, ...]`, from an estimator's
    `episode_gradients`, leaves `[B, ...]`: of one group alone it is the estimator's `gradient`."""
    return jax.tree.map(lambda x: x.reshape(-1, group_size, *x.shape[1:]).mean(axis=1), summands)


def multiset_moments(
    episode_gradients: Callable[[Trajectory], PyTree],
    enumeration: exact.Enumeration,
    probabilities: jax.Array,
    group_size: int,
) -> exact.Moments:
    """`exact.estimator_moments` of an estimate ĝ that does not depend on the order of its group's k episodes.

    E[ĝ] = Σ_m ways_m (Π_b p_{m_b}) ĝ(τ_{m_1}, …, τ_{m_k}), and likewise the variance.

    Args:
        episode_gradients: batch of M groups, `[T, M k]` → the summand of each episode, leaves `[M k, ...]`, of an
            estimator with `group_size` k; a dict of several estimators costs one compilation.
        enumeration, probabilities: every trajectory and its probability, `[N]`.
        group_size: k.
    """
    indices, ways = multisets(probabilities.shape[0], group_size)
    batch = exact.select_episodes(enumeration.trajectories, jnp.asarray(indices.ravel()))
    estimates = group_means(episode_gradients(batch), group_size)
    return exact.moments_of(estimates, jnp.asarray(ways) * jnp.prod(probabilities[indices], axis=1))
