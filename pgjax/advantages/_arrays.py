"""Checks of types and shapes, and rows whose live steps stand in front. Axes: B episodes, T steps."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

SHAPES = {1: "[B]", 2: "[B, T]"}


def _require_shape(name: str, shape: tuple[int, ...], ranks: tuple[int, ...], like: tuple[int, ...] | None) -> None:
    allowed = " or ".join(SHAPES[rank] for rank in ranks)
    if len(shape) not in ranks:
        raise ValueError(f"{name} must have the shape {allowed}, got {shape}")
    if like is not None and shape != like[: len(shape)]:
        raise ValueError(f"{name} must have the shape {allowed} of rewards {like}, got {shape}")


def as_floats(
    name: str, x: jax.typing.ArrayLike, ranks: tuple[int, ...] | None = None, like: tuple[int, ...] | None = None
) -> jax.Array:
    """`x` as an array of a float type.

    Args:
        name: the name of `x` in an error.
        x: the numbers.
        ranks: the allowed numbers of axes; any number if None.
        like: the shape `[B, T]` of the rewards, which `x` must have too; any shape if None.

    Raises:
        ValueError: if the type is not a float type (integers would round quotients) or the shape is wrong.
    """
    x = jnp.asarray(x)
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise ValueError(f"{name} must be of a float type, got {x.dtype}")
    if ranks is not None:
        _require_shape(name, x.shape, ranks, like)
    return x


def as_bools(name: str, x: jax.Array, shape: tuple[int, ...], ranks: tuple[int, ...]) -> jax.Array:
    """`x` as a bool array of `shape`, or of the first axes of `shape` if `ranks` allows fewer axes.

    Raises:
        ValueError: if the type is not bool or the shape is wrong.
    """
    x = jnp.asarray(x)
    if x.dtype != jnp.bool_:
        raise ValueError(f"{name} must be bool, got {x.dtype}")
    _require_shape(name, x.shape, ranks, shape)
    return x


def as_mask(mask: jax.Array | None, shape: tuple[int, ...]) -> jax.Array:
    """The mask as a bool array of the given shape; all entries count if `mask` is None.

    Raises:
        ValueError: if the type is not bool or the shape is wrong.
    """
    if mask is None:
        return jnp.ones(shape, jnp.bool_)
    mask = jnp.asarray(mask)
    if mask.dtype != jnp.bool_ or mask.shape != shape:
        raise ValueError(f"mask must be bool of the shape {shape}, got {mask.dtype} {mask.shape}")
    return mask


class LiveFirst(NamedTuple):
    """Rows `[B, T]` with the steps that count in front, in the same order, and zeros (False) after them.

    Attributes:
        pack: `x [B, T] → [B, T]`, moves the columns of the caller into this order.
        unpack: moves them back; 0 outside the mask.
        live: bool `[B, T]`, the mask in this order: first only True, then only False.
        ends: bool `[B, T]`, true at the last step that counts of each row.
    """

    pack: Callable[[jax.Array], jax.Array]
    unpack: Callable[[jax.Array], jax.Array]
    live: jax.Array
    ends: jax.Array


def live_first(mask: jax.Array) -> LiveFirst:
    """The order without gaps: it skips what `mask [B, T]` leaves out, such as a prompt or the output of a tool."""
    order = jnp.argsort(~mask, axis=1, stable=True)
    back = jnp.argsort(order, axis=1)
    live = jnp.take_along_axis(mask, order, axis=1)
    following = jnp.pad(live[:, 1:], ((0, 0), (0, 1)))
    select = lambda where, x, index: jnp.where(where, jnp.take_along_axis(x, index, axis=1), jnp.zeros_like(x))
    return LiveFirst(
        pack=lambda x: select(live, x, order),
        unpack=lambda x: select(mask, x, back),
        live=live,
        ends=live & ~following,
    )
