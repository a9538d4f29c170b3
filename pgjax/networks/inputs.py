"""Observations as inputs of a network: the numbers that represent an element of a space."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pgjax import spaces
from pgjax.spaces import Box, Discrete, MultiDiscrete, Slate, Space
from pgjax.types import PyTree


def is_image(space: Space) -> bool:
    """Whether a 3 × 3 convolution fits the space: a box of shape `[H, W, C]` with H and W at least 3."""
    return isinstance(space, Box) and len(space.shape) == 3 and min(space.shape[:2]) >= 3


def encode(space: PyTree, obs: PyTree, dtype: Any = jnp.float32) -> list[jax.Array]:
    """The numbers of every leaf of one observation, in the order of `spaces.leaves`.

    The integers of a `Discrete`, a `MultiDiscrete` and a `Slate` become one-hot vectors, because these integers are
    names and their order means nothing. The numbers of a `Box` are used unchanged, except that uint8 is divided by the
    box's greatest bound: a picture's 0 … 255 becomes 0 … 1.

    Args:
        space: a tree of spaces.
        obs: an element of the space.
        dtype: the float type of the result.

    Returns:
        Arrays `[n]` for `Discrete(n)`, `[Σ sizes]` for `MultiDiscrete(sizes)`, `[k n]` for `Slate(n, k)`, and of the
        space's shape for a `Box`.

    Example:
        >>> from pgjax import spaces
        >>> from pgjax.networks import inputs
        >>> inputs.encode(spaces.Discrete(3), 2)[0].tolist()
        [0.0, 0.0, 1.0]
    """
    parts = [part for _, part in spaces.leaves(space)]
    return [_encode(part, jnp.asarray(x), dtype) for part, x in zip(parts, jax.tree.leaves(obs))]


def _encode(space: Space, x: jax.Array, dtype: Any) -> jax.Array:
    match space:
        case Discrete():
            return jax.nn.one_hot(x, space.n, dtype=dtype)
        case MultiDiscrete():
            return jnp.concatenate([jax.nn.one_hot(x[i], n, dtype=dtype) for i, n in enumerate(space.sizes)])
        case Slate():
            return jax.nn.one_hot(x, space.n, dtype=dtype).ravel()
    is_bytes = space.dtype == np.uint8
    return x.astype(dtype) / np.max(space.bounds[1], initial=1).item() if is_bytes else x.astype(dtype)


def flat(arrays: list[jax.Array], dtype: Any = jnp.float32) -> jax.Array:
    """All numbers of the arrays in one vector `[F]`; F = 0 if there are no arrays."""
    return jnp.concatenate([x.ravel() for x in arrays]) if arrays else jnp.zeros(0, dtype)


def centred(image: jax.Array, channel: int) -> jax.Array:
    """The image `[H, W, C]` seen from the place of the greatest number of a channel, without this channel.

    Returns:
        An image `[2 H − 1, 2 W − 1, C − 1]` with that place in the middle, and 0 outside of the image.

    Example:
        >>> import jax.numpy as jnp
        >>> from pgjax.networks import inputs
        >>> walls, agent = jnp.asarray([[5, 6], [7, 8]]), jnp.asarray([[0, 0], [1, 0]])
        >>> inputs.centred(jnp.stack([walls, agent], axis=-1), channel=1)[..., 0].tolist()
        [[0, 5, 6], [0, 7, 8], [0, 0, 0]]
    """
    height, width, channels = image.shape
    row, column = jnp.divmod(jnp.argmax(image[..., channel]), width)
    others = jnp.delete(image, channel, axis=-1, assume_unique_indices=True)
    around = jnp.pad(others, ((height - 1, height - 1), (width - 1, width - 1), (0, 0)))
    return jax.lax.dynamic_slice(around, (row, column, 0), (2 * height - 1, 2 * width - 1, channels - 1))


def float_type_of(params: PyTree) -> np.dtype:
    """The float type of θ, in which a network computes; float32 if θ has no floats."""
    types = [x.dtype for x in jax.tree.leaves(params) if jnp.issubdtype(x.dtype, jnp.floating)]
    return jnp.result_type(*types) if types else jnp.dtype(jnp.float32)


def checked(space: PyTree, function: Callable) -> Callable:
    """`function(…, obs)` that refuses everything but a single observation of the space.

    Raises:
        ValueError: when the result is called with an observation of another structure, or with a leaf of another shape,
            which the error names.
    """
    wanted, parts = jax.tree.structure(space, is_leaf=spaces.is_space), spaces.leaves(space)

    def of_checked(*arguments: PyTree) -> PyTree:
        obs = arguments[-1]
        if jax.tree.structure(obs) != wanted:
            raise ValueError(f"obs must have the structure {wanted} of its space, got {jax.tree.structure(obs)}")
        for (path, part), x in zip(parts, jax.tree.leaves(obs)):
            if jnp.shape(x) != part.shape:
                raise ValueError(
                    f"obs{path} must have the shape {part.shape} of one observation (vmap for more), got {jnp.shape(x)}"
                )
        return function(*arguments)

    return of_checked
