"""Baselines that know more than X_t: the input that drives the problem, a greedy episode; and any baseline, shifted.

Axes: T time, B episodes.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from pgjax._checks import require_kind
from pgjax.baselines.simple import stateless
from pgjax.types import Baseline, Needs, PyTree, Trajectory


def input_dependent(
    inputs_of: Callable[[PyTree], PyTree], function: Callable[[PyTree, PyTree, jax.Array], jax.Array]
) -> Baseline:
    """b_t = b(X_t, z_{1:T}, t): may look ahead at the exogenous input z, because no action moves it. Unbiased.

    E[b(X_t, z) ∇ ln f(X_t, θ)_{A_t}] = 0 because A_t and z are independent given X_t, whatever of z the policy sees in
    X_t. What the input alone makes of the return is then no longer noise. An "input" that actions move, such as a
    position, biases the estimate by −E[Σ_t b_t ∇ ln f(X_t, θ)_{A_t}].

    Args:
        inputs_of: `obs of one row → z` of that row. Observations must carry the input on every live row; rows past an
            episode's end repeat the last one.
        function: `(obs, inputs [T, ...], t) → scalar` for one row; `inputs` is the whole episode's.

    Source: Mao, Venkatakrishnan, Schwarzkopf & Alizadeh 2019.
    """

    def of_episode(obs: PyTree) -> jax.Array:
        inputs = jax.vmap(inputs_of)(obs)
        times = jnp.arange(jax.tree.leaves(obs)[0].shape[0])
        return jax.vmap(function, (0, None, 0))(obs, inputs, times)

    def predict(trajectory: Trajectory) -> jax.Array:
        values = jax.vmap(of_episode, in_axes=1, out_axes=1)(trajectory.obs)
        return jnp.where(trajectory.alive, values, jnp.zeros((), values.dtype))

    return stateless(predict)


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
