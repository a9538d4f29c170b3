"""Layers in plain JAX: a layer is a dict of arrays, and it computes in the float type of these arrays."""

import jax
import jax.numpy as jnp

from pgjax.types import PyTree

# The variance of the last layer's first weights is small, so a new policy is nearly uniform.
HEAD_SCALE = 1e-4


def init_dense(key: jax.Array, inputs: int, outputs: int, scale: float = 1.0) -> PyTree:
    """Normal weights `[inputs, outputs]` of variance `scale` / inputs, cut at two deviations, and biases 0; float32."""
    kernel = jax.nn.initializers.variance_scaling(scale, "fan_in", "truncated_normal")
    return {"kernel": kernel(key, (inputs, outputs), jnp.float32), "bias": jnp.zeros(outputs, jnp.float32)}


def init_linear(key: jax.Array, inputs: int, outputs: int, scale: float = 1.0) -> PyTree:
    """The layer of `init_dense` without biases."""
    return {"kernel": init_dense(key, inputs, outputs, scale)["kernel"]}


def dense(layer: PyTree, x: jax.Array) -> jax.Array:
    """x W + b over the last axis of x; a layer without biases gives x W."""
    product = x @ layer["kernel"]
    return product + layer["bias"] if "bias" in layer else product


def init_norm(width: int) -> PyTree:
    """The initial parameters of `norm`: scale 1 and shift 0."""
    return {"scale": jnp.ones(width, jnp.float32), "bias": jnp.zeros(width, jnp.float32)}


def norm(layer: PyTree, x: jax.Array, epsilon: float = 1e-5) -> jax.Array:
    """(x − mean) / √(variance + ε) over the last axis, then a scale and a shift.

    Source: Ba, Kiros & Hinton (2016), layer normalisation.
    """
    centred = x - jnp.mean(x, axis=-1, keepdims=True)
    variance = jnp.mean(jnp.square(centred), axis=-1, keepdims=True)
    return centred * jax.lax.rsqrt(variance + epsilon) * layer["scale"] + layer["bias"]


def rms_norm(layer: PyTree, x: jax.Array, epsilon: float) -> jax.Array:
    """x / √(mean of x² + ε) over the last axis, then a scale; there is no shift.

    Source: Zhang & Sennrich (2019), root mean square layer normalisation.
    """
    return x * jax.lax.rsqrt(jnp.mean(jnp.square(x), axis=-1, keepdims=True) + epsilon) * layer["scale"]


def rows(table: jax.Array, indices: jax.Array) -> jax.Array:
    """table[indices] as a product with one-hot rows, `[N, W]`; zero for an index outside of the table.

    The backward pass of a gather is a scatter, which is slow. The product costs no more than a dense layer with as many
    outputs. The highest precision keeps the rows exact on devices that round products by default.
    """
    chosen = jax.nn.one_hot(indices, table.shape[0], dtype=table.dtype)
    return jnp.matmul(chosen, table, precision=jax.lax.Precision.HIGHEST)


# With more rows than this a product with one-hot rows costs more than the scatter of the backward pass.
_FEW_ROWS = 1024


def look_up(table: jax.Array, indices: jax.Array) -> jax.Array:
    """table[indices] `[N, W]` for indices inside of the table, by the faster of two ways: `rows`, or a gather."""
    if table.shape[0] <= _FEW_ROWS:
        return rows(table, indices)
    return jnp.take(table, indices.astype(jnp.int32), axis=0, mode="clip")
