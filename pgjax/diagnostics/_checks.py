"""Checks shared by both kinds of statistics."""

import jax
import numpy as np


def require_probability(confidence: float) -> float:
    """`confidence`, strictly between 0 and 1; ValueError otherwise."""
    if not 0 < confidence < 1:
        raise ValueError(f"confidence: must lie strictly between 0 and 1, got {confidence}")
    return confidence


def at_least(name: str, rows: jax.Array | np.ndarray, least: int) -> int:
    """N, the rows on the first axis of the argument `name`; ValueError if there are fewer than `least`."""
    if rows.shape[0] < least:
        raise ValueError(f"{name}: needs at least {least} rows on its first axis, got the shape {rows.shape}")
    return rows.shape[0]
