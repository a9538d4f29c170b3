"""A gated recurrent unit as a policy: it remembers what it saw earlier in the episode.

Axes: T time, D features of an observation, M numbers of memory, A outputs of the head.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pgjax import distributions
from pgjax._checks import require_integer, require_one_of
from pgjax.networks._layers import HEAD_SCALE, dense, init_dense
from pgjax.types import Distribution, Environment, Memory, Policy

PyTree = Any


class _Head(NamedTuple):
    """How A numbers become the parameters of a distribution, with parameters of its own."""

    outputs: int
    family: Distribution
    params: PyTree
    finish: Callable[[PyTree, jax.Array], PyTree]


def _make_head(space: Any, distribution: str, initial_log_std: float) -> _Head:
    discrete = hasattr(space, "n") and tuple(space.shape) == ()
    if not discrete and not hasattr(space, "low"):
        raise ValueError(f"network='gru' needs actions of one Discrete or Box, got the action space {space}")
    require_one_of("distribution", distribution, ("auto", "categorical", "gaussian", "squashed_gaussian"))
    if distribution == "auto":
        distribution = "categorical" if discrete else "gaussian"
    if discrete != (distribution == "categorical"):
        allowed = "'categorical'" if discrete else "'gaussian' or 'squashed_gaussian'"
        raise ValueError(f"distribution={distribution!r} does not fit the action space {space}: use {allowed}")
    if discrete:
        return _Head(outputs=space.n, family=distributions.categorical, params=(), finish=lambda params, x: x)
    squashed = distribution == "squashed_gaussian"
    return _Head(
        outputs=int(np.prod(space.shape)),
        family=distributions.squashed_gaussian(space.low, space.high) if squashed else distributions.diagonal_gaussian,
        params=jnp.full(space.shape, initial_log_std, jnp.float32),
        finish=lambda log_std, x: distributions.GaussianParameters(mean=x.reshape(space.shape), log_std=log_std),
    )


def _encode(params: PyTree, obs_shape: tuple[int, ...], obs: jax.Array) -> jax.Array:
    """What X_t adds to the three gates, `[3 M]`: tanh layers, then a projection. No memory enters."""
    if jnp.shape(obs) != obs_shape:
        shape = jnp.shape(obs)
        raise ValueError(f"obs must have the shape {obs_shape} of one observation (vmap for more), got {shape}")
    x = jnp.ravel(obs).astype(params["input"]["kernel"].dtype)
    for layer in params["encoder"]:
        x = jnp.tanh(dense(layer, x))
    return dense(params["input"], x)


def _remember(params: PyTree, memory: jax.Array, projected: jax.Array) -> jax.Array:
    """m ← (1 − z) n + z m, `[M]`, from what `_encode` gave."""
    reset, update, new = jnp.split(projected, 3)
    old_reset, old_update, old_new = jnp.split(dense(params["recurrent"], memory), 3)
    update = jax.nn.sigmoid(update + old_update)
    candidate = jnp.tanh(new + jax.nn.sigmoid(reset + old_reset) * old_new)
    return (1 - update) * candidate + update * memory


def _init(key: jax.Array, features: int, outputs: int, hidden: tuple[int, ...], size: int) -> PyTree:
    input_key, recurrent_key, head_key, *encoder_keys = jax.random.split(key, 3 + len(hidden))
    widths = (features, *hidden)
    orthogonal = jax.nn.initializers.orthogonal()
    gates = [orthogonal(gate_key, (size, size), jnp.float32) for gate_key in jax.random.split(recurrent_key, 3)]
    return {
        "encoder": tuple(init_dense(*layer) for layer in zip(encoder_keys, widths, hidden)),
        "input": init_dense(input_key, widths[-1], 3 * size),
        "recurrent": {"kernel": jnp.concatenate(gates, axis=1), "bias": jnp.zeros(3 * size, jnp.float32)},
        "head": init_dense(head_key, size, outputs, HEAD_SCALE),
    }


def _make_memory(obs_shape: tuple[int, ...], size: int, outputs_of: Callable[[PyTree, jax.Array], PyTree]) -> Memory:
    def start(params: PyTree, obs: jax.Array) -> jax.Array:
        return jnp.zeros(size, params["head"]["kernel"].dtype)

    def step(params: PyTree, memory: jax.Array, obs: jax.Array) -> tuple[jax.Array, PyTree]:
        memory = _remember(params, memory, _encode(params, obs_shape, obs))
        return memory, outputs_of(params, memory)

    def unroll(params: PyTree, carry: jax.Array | None, obs: jax.Array, starts: jax.Array | None) -> PyTree:
        # All that does not depend on the memory is one product over all rows; only the gates are left to the scan.
        projected = jax.vmap(lambda x: _encode(params, obs_shape, x))(obs)
        fresh = start(params, obs)

        def one(memory: jax.Array, row: tuple[jax.Array, jax.Array | None]) -> tuple[jax.Array, jax.Array]:
            x, begins = row
            memory = memory if begins is None else jnp.where(begins, fresh, memory)
            memory = _remember(params, memory, x)
            return memory, memory

        _, memories = jax.lax.scan(one, fresh if carry is None else carry, (projected, starts))
        return jax.vmap(outputs_of, (None, 0))(params, memories)

    return Memory(start=start, step=step, unroll=unroll)


def gru_policy(
    observation_space: Any,
    action_space: Any,
    *,
    distribution: str = "auto",
    hidden: Sequence[int] = (64,),
    memory_size: int = 64,
    initial_log_std: float = 0.0,
) -> Policy:
    """`make_gru_policy` from the two spaces."""
    if not hasattr(observation_space, "low"):
        raise ValueError(f"network='gru' needs one array as observation (a Box), got the space {observation_space}")
    for name, value in (("memory_size", memory_size), *(("hidden", width) for width in hidden)):
        require_integer(name, value, 1, None)
    obs_shape, hidden = tuple(observation_space.shape), tuple(hidden)
    head = _make_head(action_space, distribution, initial_log_std)

    def init(key: jax.Array, obs: jax.Array) -> PyTree:
        body = _init(key, int(np.prod(obs_shape)), head.outputs, hidden, memory_size)
        return {**body, "distribution": head.params}

    def outputs_of(params: PyTree, memory: jax.Array) -> PyTree:
        return head.finish(params["distribution"], dense(params["head"], memory))

    memory = _make_memory(obs_shape, memory_size, outputs_of)
    return Policy(init=init, apply=None, distribution=head.family, memory=memory)


def make_gru_policy(
    environment: Environment,
    *,
    distribution: str = "auto",
    hidden: Sequence[int] = (64,),
    memory_size: int = 64,
    initial_log_std: float = 0.0,
) -> Policy:
    """A policy with a gated recurrent unit: it has a `memory` and no `apply`.

    x = e(X_t),   r = σ(W_r x + U_r m + b_r),   z = σ(W_z x + U_z m + b_z),
    n = tanh(W_n x + b_n + r ⊙ (U_n m + c_n)),   m ← (1 − z) ⊙ n + z ⊙ m,   parameters for A_t = W m + b

    e are tanh layers. The memory m `[M]` is zero at X_1. θ starts in float32 and near uniform; if θ has another float
    type, everything is computed in that. `unroll` computes e and the products W x of all T rows at once.

    Args:
        environment: its observations are arrays of one shape.
        distribution: as in `pgjax.networks.make_policy`.
        hidden: the widths of e; `()` for none.
        memory_size: M.
        initial_log_std: ln σ of a Gaussian policy at the start.

    Raises:
        ValueError: if the spaces or the distribution do not fit, or a width is below 1.

    Source: Cho et al. (2014), with the reset gate after the product as in cuDNN.
    """
    return gru_policy(
        environment.observation_space,
        environment.action_space,
        distribution=distribution,
        hidden=hidden,
        memory_size=memory_size,
        initial_log_std=initial_log_std,
    )
