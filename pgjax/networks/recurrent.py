"""A gated recurrent unit: a network that remembers what it saw earlier in the episode.

Axes: T time, F numbers of an observation, M numbers of memory, O outputs.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from pgjax import spaces
from pgjax._checks import require_integer
from pgjax.networks import inputs
from pgjax.networks._layers import HEAD_SCALE, dense, init_dense
from pgjax.networks.bodies import ACTIVATIONS, Activation
from pgjax.networks.network import Network
from pgjax.types import Memory, PyTree


def _remember(params: PyTree, memory: jax.Array, projected: jax.Array) -> jax.Array:
    """m ← (1 − z) n + z m, `[M]`; `projected` is what the observation adds to the three gates."""
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


def make_gru(
    space: PyTree, outputs: int, *, hidden: Sequence[int], activation: Activation | None, memory_size: int = 64
) -> Network:
    """A gated recurrent unit: it has a `memory` and no `apply`.

    x = e(X_t),   r = σ(W_r x + U_r m + b_r),   z = σ(W_z x + U_z m + b_z),
    n = tanh(W_n x + b_n + r ⊙ (U_n m + c_n)),   m ← (1 − z) ⊙ n + z ⊙ m,   outputs for A_t = W m + b

    e stands for dense layers of the widths `hidden`. The memory m `[M]` is zero at X_1. θ starts in float32, and the
    outputs start near zero; if θ has another float type, all computations use it. `unroll` computes e and the products
    W x of all T rows at once.

    Args:
        space: the space of the observations, a tree of spaces.
        outputs: O.
        hidden: the widths of e; `()` for no dense layers.
        activation: the activation of e; None takes tanh.
        memory_size: M.

    Raises:
        ValueError: if `memory_size` is below 1.

    Source: Cho et al. (2014), with the reset gate after the product as in cuDNN.
    """
    require_integer("memory_size", memory_size, 1, None)
    activate = ACTIVATIONS[activation or "tanh"]
    features = sum(x.size for x in jax.eval_shape(lambda: inputs.encode(space, _zeros(space))))

    def init(key: jax.Array, obs: PyTree) -> PyTree:
        del obs
        return _init(key, features, outputs, tuple(hidden), memory_size)

    def encode(params: PyTree, obs: PyTree) -> jax.Array:
        """What X_t adds to the three gates, `[3 M]`; it does not depend on the memory."""
        x = inputs.flat(inputs.encode(space, obs, inputs.float_type_of(params)))
        for layer in params["encoder"]:
            x = activate(dense(layer, x))
        return dense(params["input"], x)

    def start(params: PyTree, obs: PyTree) -> jax.Array:
        del obs
        return jnp.zeros(memory_size, params["head"]["kernel"].dtype)

    def step(params: PyTree, memory: jax.Array, obs: PyTree) -> tuple[jax.Array, jax.Array]:
        memory = _remember(params, memory, encode(params, obs))
        return memory, dense(params["head"], memory)

    def unroll(params: PyTree, carry: jax.Array | None, obs: PyTree, starts: jax.Array | None) -> jax.Array:
        # What does not depend on the memory is one product over all rows; the scan computes only the gates.
        projected = jax.vmap(encode, (None, 0))(params, obs)
        fresh = start(params, obs)

        def one(memory: jax.Array, row: tuple[jax.Array, jax.Array | None]) -> tuple[jax.Array, jax.Array]:
            x, begins = row
            memory = memory if begins is None else jnp.where(begins, fresh, memory)
            memory = _remember(params, memory, x)
            return memory, memory

        _, memories = jax.lax.scan(one, fresh if carry is None else carry, (projected, starts))
        return dense(params["head"], memories)

    return Network(init=init, apply=None, memory=Memory(start=start, step=step, unroll=unroll))


def _zeros(space: PyTree) -> PyTree:
    return jax.tree.map(lambda part: jnp.zeros(part.shape, part.dtype), space, is_leaf=spaces.is_space)
