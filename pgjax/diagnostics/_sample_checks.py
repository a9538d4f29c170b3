"""Checks shared by both kinds of statistics."""

import jax
import numpy as np


def require_probability(value: float, name: str = "confidence") -> float:
    """Return `value` if it is strictly between 0 and 1; raise a ValueError otherwise."""
    if not 0 < value < 1:
        raise ValueError(f"{name}: must lie strictly between 0 and 1, got {value}")
    return value


def at_least(name: str, rows: jax.Array | np.ndarray, least: int) -> int:
    """N, the number of rows on the first axis of the argument `name`; raises a ValueError if N is below `least`."""
    if rows.shape[0] < least:
        raise ValueError(f"{name}: needs at least {least} rows on its first axis, got the shape {rows.shape}")
    return rows.shape[0]
