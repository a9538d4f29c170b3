"""The predicted return v(X_t): a network fitted to the returns. Axes: T time, B episodes."""

from collections.abc import Callable
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp

from pgjax import acting
from pgjax._checks import require_in_range, require_integer
from pgjax._doors import readable
from pgjax._spread import centre_and_spread
from pgjax.losses import value_loss
from pgjax.rows import map_over_rows, over_rows
from pgjax.types import Baseline, Memory, PyTree, Trajectory


class ValueFunctionState(NamedTuple):
    """The state of a fitted value.

    Attributes:
        params: the parameters of the network.
        optimizer_state: the state of its optimizer.
        mean, scale: m and s, the moving averages of the targets' mean and standard deviation, scalars.
        num_updates: the number of batches seen, int32.
    """

    params: PyTree
    optimizer_state: PyTree
    mean: jax.Array
    scale: jax.Array
    num_updates: jax.Array


class _Moments(NamedTuple):
    """m and s after the batch, the unit of the targets, and the standard deviation of this batch's targets; scalars."""

    mean: jax.Array
    scale: jax.Array
    unit: jax.Array
    spread: jax.Array


def fitted(
    init_params: Callable[[jax.Array, PyTree], PyTree],
    rows_of: Callable[[Trajectory], PyTree],
    outputs_of: Callable[[PyTree, PyTree], jax.Array],
    optimizer: Any,
    *,
    num_steps: int,
    decay: float,
    rows_per_piece: int | None,
    whole_episodes: bool = False,
) -> tuple[Callable, Callable]:
    """`init`, and `(state, trajectory, returns) → (values [T, B], state, metrics)`, of a network fitted to returns.

    v = m + s · network(row), fitted by ½ (v − G_t)² / s² over live steps. m and s are moving averages of the targets'
    mean and standard deviation, so the output of the network has order one in every unit of the rewards. Both start at
    0, where every value is 0; s starts with the first batch whose targets differ. So a factor c on all rewards becomes
    a factor c on all values and changes nothing else.

    The metric `unexplained_variance` is E(v − G_t)² / Var(G_t), where v are the values that weighed this batch. It is 1
    for the best constant and above 1 for values that are worse. It is infinite if the values are wrong although the
    targets do not vary.

    Args:
        init_params: `(key, obs) → params`, for one observation.
        rows_of: `trajectory → rows`, the inputs of the network, leaves `[T, B, ...]`.
        outputs_of: `(params, rows) → outputs`, of a piece of rows `[N, ...] → [N]`, or of whole episodes
            `[T, n, ...] → [T, n]`.
        optimizer: an optax gradient transformation, or any object with its `init` and `update`.
        num_steps: the number of gradient steps per update; each uses the whole batch.
        decay: the decay of the moving averages m and s, in [0, 1].
        rows_per_piece: the number of rows that are computed at a time; chosen by the device if None.
        whole_episodes: whether a piece must hold whole episodes, because a row needs those before it.

    Raises:
        ValueError: if `num_steps` < 1 or `decay` is outside [0, 1].
    """
    require_integer("num_steps", num_steps, 1, None)
    require_in_range("decay", decay, 0.0, 1.0)

    def init(key: jax.Array, sample: Trajectory) -> ValueFunctionState:
        params = init_params(key, jax.tree.map(lambda x: x[0, 0], sample.obs))
        dtype = sample.rewards.dtype
        return ValueFunctionState(
            params=params,
            optimizer_state=optimizer.init(params),
            mean=jnp.zeros((), dtype),
            scale=jnp.zeros((), dtype),
            num_updates=jnp.zeros((), jnp.int32),
        )

    def step(state: ValueFunctionState, gradient: PyTree) -> ValueFunctionState:
        updates, optimizer_state = optimizer.update(gradient, state.optimizer_state, state.params)
        return state._replace(params=jax.tree.map(jnp.add, state.params, updates), optimizer_state=optimizer_state)

    def use_and_fit(state: ValueFunctionState, trajectory: Trajectory, returns: jax.Array):
        alive, moments = trajectory.alive, _moved(state, trajectory, returns, decay)
        num_live = jnp.maximum(jnp.sum(alive), 1).astype(returns.dtype)
        targets = jnp.where(moments.scale > 0, (returns - moments.mean) / moments.unit, 0.0)

        def of_piece(params: PyTree, rows: tuple[PyTree, jax.Array, jax.Array], mask: jax.Array):
            """The loss; and the values before this update with their squared error in the same unit."""
            inputs, target, given = rows
            outputs = outputs_of(params, inputs)
            values = state.mean + state.scale * outputs
            average = lambda x: jnp.sum(jnp.where(mask, x, 0.0)) / num_live
            error = average(jnp.square((values - given) / moments.unit))
            return average(value_loss(outputs, target)), (error, values.reshape(-1))

        def one_pass(params: PyTree) -> tuple[tuple[jax.Array, jax.Array, PyTree], jax.Array]:
            def sums_and_values(rows: PyTree, mask: jax.Array, params: PyTree):
                (loss, (error, values)), gradient = jax.value_and_grad(of_piece, has_aux=True)(params, rows, mask)
                return (loss, error, gradient), values

            rows = (rows_of(trajectory), targets, returns)
            how = {"whole_episodes": whole_episodes, "shared": (params,)}
            return over_rows(sums_and_values, rows, alive, rows_per_piece, **how)

        # The first pass uses the parameters before the update, so its values are those that weigh this batch.
        (loss, error, gradient), values = one_pass(state.params)

        def one_more(carry: tuple[ValueFunctionState, PyTree], _):
            new = step(*carry)
            return (new, one_pass(new.params)[0][2]), None

        new = state
        if num_steps > 1:
            (new, gradient), _ = jax.lax.scan(one_more, (state, gradient), length=num_steps - 1)
        new = step(new, gradient)._replace(
            mean=moments.mean.astype(state.mean.dtype),
            scale=moments.scale.astype(state.scale.dtype),
            num_updates=state.num_updates + 1,
        )
        return values, new, {"value_loss": loss, "unexplained_variance": _unexplained(error, moments)}

    return init, use_and_fit


def _moved(state: ValueFunctionState, trajectory: Trajectory, returns: jax.Array, decay: float) -> _Moments:
    """m and s after one more batch."""
    batch_mean, _, spread = (jnp.squeeze(x) for x in centre_and_spread(returns, trajectory.alive))
    averaged = lambda old, new, known: jnp.where(known, new + decay * (old - new), new)
    mean = averaged(state.mean, batch_mean, state.num_updates > 0)
    scale = averaged(state.scale, spread, state.scale > 0)
    return _Moments(mean=mean, scale=scale, unit=jnp.where(scale > 0, scale, 1.0), spread=spread)


def _unexplained(error: jax.Array, moments: _Moments) -> jax.Array:
    """E(v − G_t)² / Var(G_t), where `error` is E(v − G_t)² in the square of the unit of the targets."""
    ratio = error * jnp.square(moments.unit / jnp.where(moments.spread > 0, moments.spread, 1.0))
    return jnp.where((moments.spread > 0) | (error == 0), ratio, jnp.inf)


@readable
def value_function(
    init_params: Callable[[jax.Array, PyTree], PyTree],
    apply: Callable[[PyTree, PyTree], jax.Array] | None,
    optimizer: Any,
    *,
    memory: Memory | None = None,
    num_steps: int = 1,
    decay: float = 0.9,
    rows_per_piece: int | None = None,
) -> Baseline:
    """b = v(X_t), a network fitted to the returns by ½ (v(X_t) − G_t)², averaged over live steps. Unbiased.

    v(x) = m + s · network(x), where m and s are moving averages of the targets' mean and standard deviation. So the
    output of the network has order one in every unit of the rewards. v = 0 before the first update.

    A network with a memory gives v(X_1, …, X_t). It reads a complete episode once, and that pass gives the values of
    all rows and the gradient of the fit. If the network has `apply` too, as a language model has, both compute the same
    function v(X_t) of the observation, and windows use `apply`. If it has a memory alone, as a recurrent unit has, v is
    no function of the observation, so returns that bootstrap refuse it, and windows cannot use it.

    Args:
        init_params: `(key, obs) → params`, for one observation.
        apply: `(params, obs) → scalar`, for one observation; None for a network that cannot work without its memory.
        optimizer: an optax gradient transformation, or any object with its `init` and `update`.
        memory: the functions of a network with a memory, whose outputs are scalars, such as those of
            `networks.make_value_network`; None for a network without one.
        num_steps: the number of gradient steps per update; each uses the whole batch.
        decay: the decay of the moving averages m and s, in [0, 1].
        rows_per_piece: the number of rows that are computed at a time; chosen by the device if None. A network with a
            memory computes at least one whole episode.

    Raises:
        ValueError: if `num_steps` < 1, `decay` is outside [0, 1], or both `apply` and `memory` are None; when it is
            used, if a window comes to a network that has a memory alone.

    Example: a linear value of observations with four features.

        >>> import jax.numpy as jnp, optax
        >>> from pgjax import baselines
        >>> baselines.value_function(
        ...     init_params=lambda key, obs: jnp.zeros(4),
        ...     apply=lambda params, obs: obs @ params,
        ...     optimizer=optax.adam(1e-2),
        ...     num_steps=5,
        ... )
        Baseline(value_function, fitted, of_observation=True)
    """
    if apply is None and memory is None:
        raise ValueError("a value must have apply or memory, got None for both")
    rows, episodes = _row_outputs(apply), _episode_outputs(memory)
    fit = lambda outputs_of, whole: fitted(
        init_params,
        lambda trajectory: trajectory.obs,
        outputs_of,
        optimizer,
        num_steps=num_steps,
        decay=decay,
        rows_per_piece=rows_per_piece,
        whole_episodes=whole,
    )
    (init, fit_rows), (_, fit_episodes) = fit(rows, False), fit(episodes, True)

    def by_episodes(trajectory: Trajectory) -> bool:
        if memory is None or trajectory.next_obs is None:
            return memory is not None
        if apply is None:
            raise ValueError("a value that has only a memory needs complete episodes, got a window")
        return False

    def use_and_fit(state: ValueFunctionState, trajectory: Trajectory, returns: jax.Array):
        return (fit_episodes if by_episodes(trajectory) else fit_rows)(state, trajectory, returns)

    def predict(state: ValueFunctionState, trajectory: Trajectory) -> jax.Array:
        whole = by_episodes(trajectory)
        outputs_of = episodes if whole else rows
        values = lambda obs: (state.mean + state.scale * outputs_of(state.params, obs)).reshape(-1)
        return map_over_rows(values, trajectory.obs, trajectory.alive, rows_per_piece, whole_episodes=whole)

    return Baseline(
        init=init,
        predict=predict,
        update=lambda state, trajectory, returns: use_and_fit(state, trajectory, returns)[1:],
        of_observation=apply is not None,
        predict_and_update=use_and_fit,
    )


def _row_outputs(apply: Callable | None) -> Callable[[PyTree, PyTree], jax.Array]:
    """The outputs `[N]` of rows `[N, ...]`."""
    return lambda params, obs: jax.vmap(cast(Callable, apply), (None, 0))(params, obs)


def _episode_outputs(memory: Memory | None) -> Callable[[PyTree, PyTree], jax.Array]:
    """The outputs `[T, n]` of complete episodes `[T, n, ...]`."""
    one = lambda params, obs: acting.unroll_memory(cast(Memory, memory), params, obs)
    return jax.vmap(one, (None, 1), 1)
