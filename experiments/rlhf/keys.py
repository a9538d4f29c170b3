"""The random keys of the experiment: each purpose has a key of its own, so that no two uses share random numbers.

The root of a seed is `jax.random.key(seed)`. Only this module reads it, and it only folds the number of a purpose in.
"""

import enum
from typing import Any

import jax
import numpy as np


class Purpose(enum.IntEnum):
    """What a key is for; the number is folded into the root."""

    LOOP = 0
    PRETRAINING = 1
    BEST_OF_N = 2
    DPO = 3


def of_seed(seed: int | jax.Array, purpose: Purpose) -> jax.Array:
    """The key of a purpose and a seed."""
    return jax.random.fold_in(jax.random.key(seed), int(purpose))


def of_runs(config: Any, purpose: Purpose, repeats: int) -> jax.Array:
    """Typed keys `[repeats · seeds]` of a purpose: the keys of all seeds in their order, `repeats` times."""
    seeds = np.tile(config.seed + np.arange(config.seeds), repeats)
    return jax.vmap(lambda seed: of_seed(seed, purpose))(seeds)
