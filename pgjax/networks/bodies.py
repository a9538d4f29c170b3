"""The layers of the networks without memory, as Flax linen modules."""

from collections.abc import Callable, Sequence
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

Activation = Literal["tanh", "relu", "silu", "gelu"]
ACTIVATIONS: dict[Activation, Callable[[jax.Array], jax.Array]] = {
    "tanh": jnp.tanh,
    "relu": jax.nn.relu,
    "silu": jax.nn.silu,
    "gelu": jax.nn.gelu,
}
_small = nn.initializers.variance_scaling(1e-4, "fan_in", "truncated_normal")


class MLP(nn.Module):
    """Dense layers of the widths `hidden`, each followed by `activation`, then a linear layer of `outputs` numbers.

    The last layer starts near zero, so a new policy is nearly uniform and a new value is nearly zero.
    """

    hidden: Sequence[int]
    outputs: int
    activation: Activation = "tanh"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = jnp.ravel(x)
        for width in self.hidden:
            x = ACTIVATIONS[self.activation](nn.Dense(width)(x))
        return nn.Dense(self.outputs, kernel_init=_small)(x)


class Convolution(nn.Module):
    """A `size` × `size` convolution with `channels` features over `[H, W, C]`, without padding, as one matrix product.

    Shifted copies of the image are the columns of the product. Training on 10 × 10 images with XLA's own convolution,
    whose gradient is slow on CPUs, measured thirty times slower.
    """

    channels: int
    size: int = 3

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        height, width = (n - self.size + 1 for n in x.shape[:2])
        shifts = [x[i : i + height, j : j + width] for i in range(self.size) for j in range(self.size)]
        return nn.Dense(self.channels)(jnp.concatenate(shifts, axis=-1))


class ConvNet(nn.Module):
    """One 3 × 3 convolution over every image `[H, W, C]`, then an `MLP` over its features and all other numbers `[F]`.

    The convolution has `channels` features. This is the network of MinAtar's agents.

    Source: Young & Tian (2019).
    """

    hidden: Sequence[int]
    outputs: int
    channels: int = 16
    activation: Activation = "relu"

    @nn.compact
    def __call__(self, images: Sequence[jax.Array], numbers: jax.Array) -> jax.Array:
        features = [ACTIVATIONS[self.activation](Convolution(self.channels)(image)).ravel() for image in images]
        x = jnp.concatenate([*features, numbers])
        return MLP(hidden=self.hidden, outputs=self.outputs, activation=self.activation)(x)


class RowScores(nn.Module):
    """One `MLP` that scores every row of a matrix `[n, F]`, beside numbers `[C]` that all rows share; `[n]`.

    If the rows are exchanged, the scores are exchanged likewise.

    Source: Zaheer et al. (2017), "Deep sets", equivariant functions.
    """

    hidden: Sequence[int]
    activation: Activation = "tanh"

    @nn.compact
    def __call__(self, rows: jax.Array, shared: jax.Array) -> jax.Array:
        repeated = jnp.broadcast_to(shared, (rows.shape[0], *shared.shape))
        layers = nn.vmap(MLP, variable_axes={"params": None}, split_rngs={"params": False})
        scored = layers(hidden=self.hidden, outputs=1, activation=self.activation)
        return scored(jnp.concatenate([rows, repeated], axis=1))[:, 0]
