"""Estimators that gave the same numbers under the options of a run, and a note that says so."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from pgjax.registry import Entry
from pgjax.types import PyTree

CLOSE = 1e-5  # relative: what rounding may change in a sum


def fingerprint(params: PyTree) -> np.ndarray:
    """The sum and the sum of squares of each leaf `[S, ...]` of the parameters of S runs, float64 `[S, 2 × leaves]`."""
    columns = []
    for leaf in jax.tree.leaves(jax.device_get(params)):
        rows = np.asarray(leaf, np.float64).reshape(len(leaf), -1)
        columns += [rows.sum(axis=1), np.square(rows).sum(axis=1)]
    return np.stack(columns, axis=1)


def groups(numbers: Mapping[str, np.ndarray]) -> list[list[str]]:
    """The names whose arrays hold the same numbers, up to rounding: groups of two or more.

    Arrays of zeros, and arrays with NaN or infinity, as failed runs have them, say nothing and are left out.
    """
    found: list[list[str]] = []
    for name, array in numbers.items():
        if not (np.all(np.isfinite(array)) and np.any(array)):
            continue
        for group in found:
            other = numbers[group[0]]
            scale = np.max(np.abs(other))
            if array.shape == other.shape and np.allclose(array, other, CLOSE, CLOSE * scale * 1e-2):
                group.append(name)
                break
        else:
            found.append([name])
    return [group for group in found if len(group) > 1]


def sentence(group: Sequence[str], entries: Mapping[str, Entry], options: Mapping[str, Any], what: str) -> str:
    """A note on a group of estimators that gave the same numbers, with the reason if the options tell it.

    Args:
        group: names of estimators.
        entries: name → its entry.
        options: the options that all of them share; `epochs` is read.
        what: what is the same, such as `parameters in every run`.
    """
    ratios = [name for name in group if entries[name].behaviour]
    others = [name for name in group if not entries[name].behaviour]
    said = f"{', '.join(group[:-1])} and {group[-1]} gave the same {what}, so this run cannot tell them apart."
    if ratios and others and options.get("epochs", 1) == 1:
        said += (
            f" Each batch is used for one gradient step (--epochs 1), by the policy that acted, so the ratio of "
            f"probabilities in {' and '.join(ratios)} is 1 and clipping changes nothing. They differ with more epochs."
        )
    return said
