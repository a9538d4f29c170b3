"""The baseline of a greedy episode, and any baseline shifted by a constant. Axes: T time, B episodes."""

import jax
import jax.numpy as jnp

from pgjax._checks import require_kind
from pgjax._doors import readable
from pgjax.baselines.simple import stateless
from pgjax.types import Baseline, Needs, PyTree, Trajectory


@readable
def greedy_rollout() -> Baseline:
    """b = the return of a greedy episode from the same start and with the same randomness of the problem. Unbiased.

    The baseline reads `trajectory.greedy_returns` and says so in `needs`; training and the diagnostics fill them in
    with `evaluation.with_greedy_returns`. It costs one more episode for each episode.

    Raises:
        ValueError: when the baseline is used, if the trajectory has no `greedy_returns`.

    Source: Rennie et al. 2017 (self-critical training); Kool, van Hoof & Welling 2019.

    Example:
        >>> from pgjax import baselines
        >>> baselines.greedy_rollout()
        Baseline(greedy_rollout, needs=Needs(greedy_returns=True))
    """

    def predict(trajectory: Trajectory) -> jax.Array:
        if trajectory.greedy_returns is None:
            raise ValueError(
                "greedy_rollout needs trajectory.greedy_returns, got None: fill them in with "
                "evaluation.with_greedy_returns"
            )
        return trajectory.greedy_returns

    return stateless(predict, needs=Needs(greedy_returns=True))


@readable
def shifted(baseline: Baseline, epsilon: float | jax.Array) -> Baseline:
    """b + ε for any baseline b, with the same bias as b.

    Around the best b, tr Var grows by ε² E‖score‖². With ε < 0 every weight is larger, which makes the tried actions
    more probable; with ε > 0 every weight is smaller, which makes them less probable.

    Source: Chung, Thomas, Machado & Le Roux 2021.

    Example:
        >>> from pgjax import baselines
        >>> baselines.shifted(baselines.leave_one_out(), epsilon=-1.0)
        Baseline(shifted, leave_one_out)
    """
    require_kind("baseline", baseline, Baseline, "baselines.leave_one_out()")

    def predict(state: PyTree, trajectory: Trajectory) -> jax.Array:
        values = baseline.predict(state, trajectory)
        return values + jnp.asarray(epsilon, values.dtype)

    return baseline._replace(predict=predict, predict_and_update=None)
