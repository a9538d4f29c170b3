"""The baseline of a greedy episode, and any baseline shifted by a constant. Axes: T time, B episodes."""

import jax
import jax.numpy as jnp

from pgjax._checks import require_kind
from pgjax.baselines.simple import stateless
from pgjax.types import Baseline, Needs, PyTree, Trajectory


def greedy_rollout() -> Baseline:
    """b = the return of the greedy policy from the same start, under the same randomness of the problem. Unbiased.

    Reads `trajectory.greedy_returns`, which it declares in `needs`: training and the laboratory fill them in by
    `evaluation.with_greedy_returns`. Costs a second episode for each.

    Raises:
        ValueError: when the trajectory has none.

    Source: Rennie et al. 2017 (self-critical training); Kool, van Hoof & Welling 2019.
    """

    def predict(trajectory: Trajectory) -> jax.Array:
        if trajectory.greedy_returns is None:
            raise ValueError(
                "greedy_rollout needs trajectory.greedy_returns, got None: fill them in with "
                "evaluation.with_greedy_returns"
            )
        return trajectory.greedy_returns

    return stateless(predict, needs=Needs(greedy_returns=True))


def shifted(baseline: Baseline, epsilon: float | jax.Array) -> Baseline:
    """b + ε for any baseline b. As unbiased as b; tr Var grows by ε² E‖score‖² around the best b and the sign of ε
    decides whether tried actions are pushed up or down.

    Source: Chung, Thomas, Machado & Le Roux 2021.
    """
    require_kind("baseline", baseline, Baseline, "baselines.leave_one_out()")

    def predict(state: PyTree, trajectory: Trajectory) -> jax.Array:
        values = baseline.predict(state, trajectory)
        return values + jnp.asarray(epsilon, values.dtype)

    return baseline._replace(predict=predict, predict_and_update=None)
