"""The sum of several estimators: a gradient of a return and a term of the loss, as one estimator."""

import functools

import jax
import jax.numpy as jnp

from pgjax._checks import require_kind
from pgjax._doors import readable
from pgjax.estimators import parts
from pgjax.types import Estimator, Needs, PyTree, ScoreNorm, Trajectory


@readable
def sum_of(*estimators: Estimator) -> Estimator:
    """The estimator whose estimate is the sum of several estimates from the same batch: ĝ_1 + ĝ_2 + …

    Its state is the tuple of their states, in their order, and each of them updates its own. So the diagnostics measure
    the sum as one estimator, with the covariance of its parts, and training uses it. If two estimators have a metric of
    the same name, the first one counts. The cost is the sum of the costs.

    Args:
        *estimators: the terms, such as `make_estimator(policy, …)` and `kl_loss(policy, …)`.

    Raises:
        ValueError: if there is no estimator, if they need groups of different sizes, or if they need different norms of
            scores.

    Example: REINFORCE and a loss, the divergence from the uniform policy over all actions.

        >>> import jax.numpy as jnp
        >>> from pgjax import distributions, estimators
        >>> from pgjax.types import Policy
        >>> policy = Policy(init=lambda key, obs: jnp.zeros((4, 2)), apply=lambda params, obs: obs @ params,
        ...                 distribution=distributions.categorical)
        >>> estimators.sum_of(estimators.make_estimator(policy),
        ...                   estimators.kl_loss(policy, 0.1, jnp.zeros((4, 2)), kind="full"))
        Estimator(sum_of, fits_windows=False)
    """
    if not estimators:
        raise ValueError("sum_of needs at least one estimator, got none")
    for estimator in estimators:
        require_kind("estimators", estimator, Estimator, "estimators.make_estimator(policy)")
    needs = _needs_of_all([estimator.needs for estimator in estimators])
    add = lambda trees: functools.reduce(lambda a, b: jax.tree.map(jnp.add, a, b), trees)

    def init(key: jax.Array, sample: Trajectory) -> tuple[PyTree, ...]:
        keys = jax.random.split(key, len(estimators))
        return tuple(estimator.init(one, sample) for estimator, one in zip(estimators, keys, strict=True))

    def gradient(params: PyTree, state: tuple[PyTree, ...], trajectory: Trajectory):
        found = [one.gradient(params, own, trajectory) for one, own in zip(estimators, state, strict=True)]
        gradients, states, metrics = zip(*found, strict=True)
        together = {name: value for each in reversed(metrics) for name, value in each.items()}
        return add(gradients), tuple(states), together

    def episode_gradients(params: PyTree, state: tuple[PyTree, ...], trajectory: Trajectory) -> PyTree:
        return add([one.episode_gradients(params, own, trajectory) for one, own in zip(estimators, state, strict=True)])

    def part_gradients(params: PyTree, state: tuple[PyTree, ...], trajectory: Trajectory, num_parts: int) -> PyTree:
        terms = zip(estimators, state, strict=True)
        return add([parts.part_gradients(one, params, own, trajectory, num_parts) for one, own in terms])

    return Estimator(
        init=init,
        gradient=gradient,
        episode_gradients=episode_gradients,
        part_gradients=part_gradients,
        fits_windows=all(estimator.fits_windows for estimator in estimators),
        needs=needs,
    )


def _needs_of_all(needs: list[Needs]) -> Needs:
    sizes = {one.group_size for one in needs if one.group_size is not None}
    norms: set[ScoreNorm] = {one.scores for one in needs if one.scores != "none"}
    if len(sizes) > 1:
        raise ValueError(f"the estimators of sum_of must need the same group size, got {sorted(sizes)}")
    if len(norms) > 1:
        raise ValueError(f"the estimators of sum_of must need the same norm of scores, got {sorted(norms)}")
    return Needs(
        scores=norms.pop() if norms else "none",
        greedy_returns=any(one.greedy_returns for one in needs),
        group_size=next(iter(sizes), None),
    )
