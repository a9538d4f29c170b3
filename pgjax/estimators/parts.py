"""The gradients of parts of a batch, from which the noise of the gradient that trains is measured.

g = (1/M) Σ_m g_m,   g_m the mean summand of the episodes of part m. Axes: B episodes, M parts.
"""

import jax

from pgjax._checks import require_integer
from pgjax._doors import readable
from pgjax.contracts import require_trajectory
from pgjax.types import Estimator, PyTree, Trajectory


@readable
def part_gradients(
    estimator: Estimator, params: PyTree, state: PyTree, trajectory: Trajectory, num_parts: int
) -> PyTree:
    """g_m of M parts of B/M consecutive episodes, leaves `[M, ...]`; their mean is `estimator.gradient`.

    The weights are those of the whole batch: a baseline from other episodes and standardised weights stay as they are
    in training. For most estimators this costs as much as one gradient. `per_parameter` needs the summand of each
    episode, and so the memory of B gradients.

    Args:
        estimator, params, state, trajectory: the arguments of `Estimator.gradient`.
        num_parts: M, which divides B; for an estimator with groups, whole groups must fit into a part.

    Raises:
        ValueError: if M does not divide the episodes, or cuts a group.

    Example: two parts of a batch of four episodes.

        >>> import jax
        >>> from pgjax import environments, estimators, networks, rollouts
        >>> environment = environments.make("corridor")
        >>> policy = networks.make_policy(environment)
        >>> params = policy.init(jax.random.key(0), environment.reset(jax.random.key(1), environment.params)[1])
        >>> episodes = rollouts.episodes(environment, policy, params, jax.random.split(jax.random.key(2), 4))
        >>> estimator = estimators.make_estimator(policy)
        >>> state = estimator.init(jax.random.key(3), episodes)
        >>> parts = estimators.part_gradients(estimator, params, state, episodes, num_parts=2)
        >>> jax.tree.leaves(parts)[0].shape[0]
        2
    """
    require_trajectory(trajectory)
    require_fitting_parts(num_parts, trajectory.alive.shape[1], estimator.needs.group_size or 1)
    if estimator.part_gradients is not None:
        return estimator.part_gradients(params, state, trajectory, num_parts)
    each = estimator.episode_gradients(params, state, trajectory)
    return jax.tree.map(lambda x: x.reshape(num_parts, -1, *x.shape[1:]).mean(axis=1), each)


def require_fitting_parts(num_parts: int, num_episodes: int, group_size: int = 1) -> None:
    """Refuse a number of parts into which whole groups of episodes do not fit."""
    require_integer("num_parts", num_parts, 1, None)
    groups = num_episodes // group_size
    if groups % num_parts:
        of_groups = f" in whole groups of {group_size}" if group_size > 1 else ""
        raise ValueError(f"num_parts must divide {num_episodes} episodes{of_groups}, got {num_parts}")
