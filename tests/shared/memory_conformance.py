"""What every policy with memory promises: all rows at once are one row after another, values and gradients alike."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from pgjax import acting

_TOLERANCE = {"float32": 1e-6, "float64": 1e-12}


def assert_memory_conforms(policy, params, obs, starts=None, carry=None, alive=None, gradients=True):
    """`unroll` = a scan of `step` (= `apply` of every row, if there is one), and so are the gradients in θ.

    Args:
        params: θ; its float type decides the tolerance, relative to the largest number compared.
        obs: X_t of one sequence, leaves `[T, ...]`.
        starts: bool `[T]`, where new episodes begin, or None.
        carry: the memory at row 0, or None where `memory.start` makes it from row 0.
        alive: bool `[T]`, the rows that are compared; all of them if None.
        gradients: whether they are compared too, those of a mean over the rows with weights that are all different.

    Returns:
        The outputs of the compared rows, by `unroll`.
    """
    alive = jnp.ones(jax.tree.leaves(obs)[0].shape[0], bool) if alive is None else jnp.asarray(alive)
    by_unroll = _asked(policy, "unroll", gradients)(params, obs, alive, starts, carry)
    # Without a start after row 0, so that one program serves whole episodes and windows.
    marked = jnp.zeros_like(alive) if starts is None else starts
    wanted = {"step": _asked(policy, "step", gradients)(params, obs, alive, marked, carry)}
    if policy.apply is not None:
        wanted["apply"] = _asked(policy, "apply", gradients)(params, obs, alive, None, None)
    tolerance = _TOLERANCE[jax.tree.leaves(params)[0].dtype.name]
    for name, values in wanted.items():
        jax.tree.map(lambda a, b: _assert_close(f"unroll and {name}", a, b, tolerance), by_unroll, values)
    return jax.tree.map(lambda x: np.asarray(x)[np.asarray(alive)], by_unroll[0])


@functools.cache
def _asked(policy, way, gradients):
    """(θ, obs, alive, starts, carry) → the outputs, zero where not alive, and their gradient."""
    asked = policy._replace(memory=policy.memory._replace(unroll=None)) if way == "step" else policy
    asked = policy._replace(memory=None) if way == "apply" else asked

    def weighted(params, obs, alive, starts, carry):
        rows = acting.unroll(asked, params, obs, starts, carry)
        rows = jax.tree.map(lambda x: jnp.where(alive.reshape(-1, *(1 for _ in x.shape[1:])), x, 0), rows)
        weigh = lambda x: jnp.mean(x * jnp.cos(1.0 + jnp.arange(x.size, dtype=x.dtype)).reshape(x.shape))
        return jax.tree.reduce(jnp.add, jax.tree.map(weigh, rows)), rows

    if not gradients:
        return jax.jit(lambda *arguments: (weighted(*arguments)[1], ()))
    return jax.jit(lambda *arguments: jax.grad(weighted, has_aux=True)(*arguments)[::-1])


def _assert_close(what, got, wanted, tolerance):
    got, wanted = np.asarray(got), np.asarray(wanted)
    assert got.dtype == wanted.dtype and np.isfinite(wanted).all(), what
    np.testing.assert_allclose(got, wanted, rtol=0, atol=tolerance * max(1.0, np.abs(wanted).max()), err_msg=what)
