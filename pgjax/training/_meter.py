"""The gradient meter of a trainer: at every Nth update it measures the noise of the gradient that trains."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from pgjax import diagnostics, estimators
from pgjax._checks import nothing as missing
from pgjax._checks import require_integer
from pgjax._shards import num_shards
from pgjax.types import Estimator, TrainState, Trajectory

Meter = Callable[[TrainState, Trajectory], dict[str, jax.Array]]
PREFIX = "meter_"
_PARTS = (8, 4, 2)


def part_counts(num_episodes: int, group_size: int) -> list[int]:
    """The numbers of parts into which whole groups of the batch fit; on one device the meter takes the first."""
    return [count for count in _PARTS if num_episodes // group_size % count == 0]


def make_meter(estimator: Estimator, every: int, num_episodes: int, group_size: int, microbatches: int) -> Meter:
    """`(state before the update, trajectory with the rewards that were used) → metrics`.

    Args:
        every: N, the number of updates from one measurement to the next.

    Raises:
        ValueError: if N is below 1, or if the batch has no two parts of whole groups.
    """
    require_integer("meter", every, 1, None)
    if microbatches > 1:
        raise ValueError(f"meter must be None with microbatches={microbatches}, got {every}")
    groups, fitting = num_episodes // group_size, part_counts(num_episodes, group_size)
    if not fitting:
        raise ValueError(
            f"meter must be None unless the batch can be cut into two parts of whole groups, got {every} with "
            f"num_episodes={num_episodes} and group_size={group_size}"
        )

    def measure(state: TrainState, trajectory: Trajectory) -> diagnostics.BatchNoise:
        # Each device takes its share of each part, if some number of parts allows it.
        count = next((c for c in fitting if (groups // c) % num_shards() == 0), fitting[-1])
        parts = estimators.part_gradients(estimator, state.params, state.estimator_state, trajectory, count)
        return diagnostics.batch_noise(parts)

    def look(state: TrainState, trajectory: Trajectory) -> dict[str, jax.Array]:
        nothing = lambda state, trajectory: jax.tree.map(
            lambda x: jnp.full(x.shape, missing(), x.dtype), jax.eval_shape(measure, state, trajectory)
        )
        found = jax.lax.cond(state.update % every == 0, measure, nothing, state, trajectory)
        return {PREFIX + name: value for name, value in found._asdict().items()}

    return look
