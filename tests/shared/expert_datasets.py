"""A small data set of an expert, and when two are equal."""

import numpy as np

from pgjax import datasets
from pgjax.datasets import ExpertDataset, npz

LENGTHS = [2, 1, 3]


def make(**changes) -> ExpertDataset:
    """Six rows of three episodes."""
    log_probs = np.log(np.full((6, 3), 1 / 3, np.float32))
    log_probs[0] = [0.0, -np.inf, -np.inf]
    arrays = {
        "observations": np.arange(12, dtype=np.float32).reshape(6, 2),
        "actions": np.asarray([0, 2, 1, 1, 0, 2], np.int32),
        "episode_ends": datasets.ends_of_lengths(LENGTHS),
        "rewards": np.arange(6, dtype=np.float32),
        "expert_log_probs": log_probs,
        "final_observations": np.full((3, 2), 7, np.float32),
        "terminated": np.asarray([True, False, True]),
        "metadata": {"env": "maze", "seed": 3},
    }
    return ExpertDataset(**arrays | changes)


def equal(got: ExpertDataset, wanted: ExpertDataset) -> None:
    for name in npz.ARRAYS:
        a, b = getattr(got, name), getattr(wanted, name)
        assert (a is None) == (b is None), name
        if a is not None:
            assert a.dtype == b.dtype, name
            np.testing.assert_array_equal(a, b, name)
    assert got.metadata == wanted.metadata
