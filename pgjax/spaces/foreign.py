"""Conversion of spaces of gymnax and Gymnasium to spaces of pgjax."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from pgjax._doors import readable
from pgjax._records import PyTree
from pgjax.spaces.kinds import Box, Discrete, MultiDiscrete
from pgjax.spaces.trees import is_space


@readable
def as_space(space: Any) -> PyTree:
    """A space of pgjax, gymnax or Gymnasium as a tree of spaces of pgjax.

    Discrete, Box, MultiDiscrete, Dict and Tuple become the spaces of pgjax with the same elements; MultiBinary(n)
    becomes a MultiDiscrete with n sizes of 2. The function imports neither gymnax nor Gymnasium: it recognises their
    classes by the names of the class and its bases.

    Raises:
        ValueError: for any other class, and for a Discrete or MultiDiscrete that does not start at 0.
    """
    if is_space(space):
        return space
    if isinstance(space, Mapping):
        return {name: as_space(part) for name, part in space.items()}
    if isinstance(space, tuple | list):
        parts = [as_space(part) for part in space]
        return type(space)(*parts) if hasattr(space, "_fields") else type(space)(parts)
    names = [kind.__name__ for kind in type(space).__mro__]
    known = next((name for name in names if name in _FOREIGN), None)
    if known is None:
        raise ValueError(
            f"a space must be one of {', '.join(_FOREIGN)}, or a dict or tuple of spaces, got {names[0]}: {space!r}"
        )
    return _FOREIGN[known](space)


def _from_multi_discrete(space: Any) -> MultiDiscrete:
    _require_start(space)
    return MultiDiscrete(sizes=_vector(space, space.nvec), dtype=_foreign_type(space))


def _from_box(space: Any) -> Box:
    dtype = _foreign_type(space)

    def bound_of(given: Any) -> np.ndarray:
        bound = np.asarray(given)
        if bound.dtype.kind in "iu" and dtype.kind in "iu":
            return np.clip(bound, np.iinfo(dtype).min, np.iinfo(dtype).max)
        # gymnax uses the largest float32 number for infinity.
        infinite = np.abs(bound.astype(np.float64)) >= np.finfo(np.float32).max
        return np.where(infinite, np.copysign(np.inf, bound), bound)

    return Box(low=bound_of(space.low), high=bound_of(space.high), shape=tuple(space.shape), dtype=dtype)


def _from_discrete(space: Any) -> Discrete:
    _require_start(space)
    return Discrete(n=int(space.n), dtype=_foreign_type(space))


def _require_start(space: Any) -> None:
    if np.any(getattr(space, "start", 0)):
        raise ValueError(
            f"a space of integers must start at 0, got {space!r}: let the environment add the start to its actions"
        )


def _vector(space: Any, sizes: Any) -> tuple[int, ...]:
    if np.ndim(sizes) != 1:
        raise ValueError(f"a space of several integers must have one axis, got {space!r}")
    return tuple(int(n) for n in sizes)


def _foreign_type(space: Any) -> np.dtype:
    return np.dtype(jax.dtypes.canonicalize_dtype(space.dtype))


_FOREIGN = {
    "Discrete": _from_discrete,
    "Box": _from_box,
    "MultiDiscrete": _from_multi_discrete,
    "MultiBinary": lambda space: MultiDiscrete(sizes=(2,) * _vector(space, [space.n])[0], dtype=_foreign_type(space)),
    "Dict": lambda space: {name: as_space(part) for name, part in space.spaces.items()},
    "Tuple": lambda space: tuple(as_space(part) for part in space.spaces),
}
