"""Critics q(X_t, ·), which predict the return of every action: a given function, or a network fitted to returns.

*Use, then update*, as with baselines: q is computed before it has seen the batch that it weighs. Axes: T time,
B episodes, A actions.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from pgjax._doors import readable
from pgjax.baselines.value import ValueFunctionState, fitted
from pgjax.rows import map_over_rows
from pgjax.types import Critic, PyTree, Trajectory


@readable
def action_values(function: Callable[[PyTree], jax.Array], *, rows_per_piece: int | None = None) -> Critic:
    """q(X_t, ·) from a given function of one observation, such as an exact table; the critic learns nothing.

    Args:
        function: `obs → q [A]`.
        rows_per_piece: the number of rows that are computed at a time; chosen by the device if None.

    Example:
        >>> import jax.numpy as jnp
        >>> from pgjax import baselines
        >>> baselines.action_values(lambda obs: jnp.array([0.0, 1.0]))  # q of two actions
        Critic(action_values)
    """
    return Critic(
        init=lambda key, sample: (),
        predict=lambda state, trajectory: map_over_rows(
            jax.vmap(function), trajectory.obs, trajectory.alive, rows_per_piece
        ),
        update=lambda state, trajectory, returns: (state, {}),
    )


@readable
def action_value_function(
    init_params: Callable[[jax.Array, PyTree], PyTree],
    apply: Callable[[PyTree, PyTree], jax.Array],
    optimizer: Any,
    *,
    num_steps: int = 1,
    decay: float = 0.9,
    rows_per_piece: int | None = None,
) -> Critic:
    """q(x, a) = m + s · network(x)_a, fitted to the returns by ½ (q(X_t, A_t) − G_t)², averaged over live steps.

    m and s are moving averages of the targets' mean and standard deviation, as in `baselines.value_function`. Only the
    taken action has a target. For the other actions q relies on the generalisation of the network.

    Args:
        init_params: `(key, obs) → params`, for one observation.
        apply: `(params, obs) → [A]`, for one observation.
        optimizer: an optax gradient transformation, or any object with its `init` and `update`.
        num_steps: the number of gradient steps per update; each uses the whole batch.
        decay: the decay of the moving averages m and s, in [0, 1].
        rows_per_piece: the number of rows that are computed at a time; chosen by the device if None.

    Raises:
        ValueError: if `num_steps` < 1 or `decay` is outside [0, 1].

    Source: Sutton, McAllester, Singh & Mansour 2000 (a fitted q in the gradient).

    Example: a linear critic of two actions, and observations with four features.

        >>> import jax.numpy as jnp, optax
        >>> from pgjax import baselines
        >>> baselines.action_value_function(
        ...     init_params=lambda key, obs: jnp.zeros((4, 2)),
        ...     apply=lambda params, obs: obs @ params,
        ...     optimizer=optax.adam(1e-2),
        ... )
        Critic(action_value_function, fitted)
    """

    def of_action_taken(params: PyTree, row: tuple[PyTree, jax.Array]) -> jax.Array:
        obs, action = row
        values = apply(params, obs)
        return jnp.sum(jnp.where(jnp.arange(values.shape[0], dtype=action.dtype) == action, values, 0.0))

    init, use_and_fit = fitted(
        init_params,
        lambda trajectory: (trajectory.obs, trajectory.actions),
        jax.vmap(of_action_taken, (None, 0)),
        optimizer,
        num_steps=num_steps,
        decay=decay,
        rows_per_piece=rows_per_piece,
    )

    def fit(state: ValueFunctionState, trajectory: Trajectory, returns: jax.Array):
        _, state, metrics = use_and_fit(state, trajectory, returns)
        return state, {f"critic_{name}": value for name, value in metrics.items()}

    def predict(state: ValueFunctionState, trajectory: Trajectory) -> jax.Array:
        values = jax.vmap(lambda obs: state.mean + state.scale * apply(state.params, obs))
        return map_over_rows(values, trajectory.obs, trajectory.alive, rows_per_piece)

    return Critic(init=init, predict=predict, update=fit)
