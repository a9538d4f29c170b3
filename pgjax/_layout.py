"""The axes of each field of a trajectory, and their checks by shape and dtype, which accept tracers.

Axes: T time, B episodes. `pgjax.types.Trajectory` explains the fields.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from pgjax._records import PyTree

# The axes and the type of each array; for pytrees, the first axes of each leaf.
_ARRAYS = {
    "alive": ("TB", "bool"),
    "rewards": ("TB", "float"),
    "terminated": ("TB", "bool"),
    "truncated": ("TB", "bool"),
    "returns": ("TB", "float"),
    "score_norms": ("TB", "float"),
    "behaviour_log_probs": ("TB", "float"),
    "greedy_returns": ("TB", "float"),
}
_TREES = {"obs": "TB", "actions": "TB", "final_obs": "B", "next_obs": "TB", "carry": "B"}
_REQUIRED = ("alive", "rewards", "terminated", "truncated")
_KINDS = {"bool": jnp.bool_, "float": jnp.floating}


def time_major(fields: Mapping[str, PyTree]) -> dict[str, PyTree]:
    """The fields with the axes B and T exchanged; fields without a time axis do not change."""
    axes = {name: axes for name, (axes, _) in _ARRAYS.items()} | _TREES
    swap = lambda tree: jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), tree)
    return {name: swap(value) if axes[name] == "TB" else value for name, value in fields.items()}


def require_layout(fields: Mapping[str, PyTree], *, batch_major: bool = False) -> None:
    """Require that each field has its axes and its type.

    T and B come from the shape that most of `alive`, `rewards`, `terminated` and `truncated` have, so that the error
    names the field that differs. Fields that are None are not checked.

    Args:
        fields: the fields of a trajectory by their names.
        batch_major: whether the axes are `[B, T, ...]` instead of `[T, B, ...]`.

    Raises:
        ValueError: for the first field with a wrong shape or type.
    """
    for name in _REQUIRED:
        if not _is_array(fields[name]):
            raise ValueError(f"trajectory.{name} must be an array, got {type(fields[name]).__name__}")
    shape = Counter(jnp.shape(fields[name]) for name in _REQUIRED).most_common(1)[0][0]
    order = "BT" if batch_major else "TB"
    if len(shape) != 2:
        raise ValueError(f"trajectory.alive must be bool [{', '.join(order)}], got {_type_of(fields['alive'])}")
    sizes = dict(zip(order, shape))
    if not batch_major:
        _refuse_batch_major(fields, sizes)
    for name, (axes, kind) in _ARRAYS.items():
        if fields.get(name) is not None:
            _require_array(name, fields[name], _ordered(axes, order), sizes, kind)
    for name, axes in _TREES.items():
        if fields.get(name) is not None:
            _require_leading(name, fields[name], _ordered(axes, order), sizes)
    _require_alike(fields)


def _ordered(axes: str, order: str) -> str:
    return order if axes == "TB" else axes


def _refuse_batch_major(fields: Mapping[str, PyTree], sizes: dict[str, int]) -> None:
    """Raise an error for batch-major fields: `final_obs [B, ...]` shows which axis holds the episodes, unless T = B."""
    lengths = {jnp.shape(leaf)[:1] for leaf in jax.tree.leaves(fields["final_obs"])}
    if sizes["T"] != sizes["B"] and lengths == {(sizes["T"],)}:
        raise ValueError(
            f"trajectory.final_obs must be [B, ...] = [{sizes['B']}, ...] beside alive [T, B] = {[*sizes.values()]}, "
            f"got {sizes['T']} episodes: the fields look batch-major, which Trajectory.from_batch_major converts"
        )


def _require_array(name: str, value: Any, axes: str, sizes: dict[str, int], kind: str) -> None:
    allowed = [tuple(sizes[axis] for axis in axes)]
    if name == "score_norms":  # norms of whole episodes have one row
        allowed.append(tuple(1 if axis == "T" else sizes[axis] for axis in axes))
    if not (_is_array(value) and jnp.shape(value) in allowed and jnp.issubdtype(value.dtype, _KINDS[kind])):
        choices = " or ".join(str(list(shape)) for shape in allowed)
        raise ValueError(f"trajectory.{name} must be {kind} [{', '.join(axes)}] = {choices}, got {_type_of(value)}")


def _require_leading(name: str, tree: PyTree, axes: str, sizes: dict[str, int]) -> None:
    wanted = tuple(sizes[axis] for axis in axes)
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if not (_is_array(leaf) and jnp.shape(leaf)[: len(wanted)] == wanted):
            place, right = f"{name}{jax.tree_util.keystr(path)}", f"[{', '.join([*axes, '...'])}]"
            numbers = f"[{', '.join([*map(str, wanted), '...'])}]"
            raise ValueError(f"trajectory.{place} must be {right} = {numbers}, got {_type_of(leaf)}")


def _require_alike(fields: Mapping[str, PyTree]) -> None:
    """Require that `final_obs` and `next_obs` have the structure and shapes of the observations in `obs`."""
    for name in ("final_obs", "next_obs"):
        if fields.get(name) is None:
            continue
        ours, theirs = (jax.tree.structure(fields[which]) for which in (name, "obs"))
        if ours != theirs:
            raise ValueError(f"trajectory.{name} must have the structure of trajectory.obs, {theirs}, got {ours}")
        leading = len(_TREES[name])
        pairs = zip(jax.tree_util.tree_leaves_with_path(fields[name]), jax.tree.leaves(fields["obs"]))
        for (path, leaf), like in pairs:
            if jnp.shape(leaf)[leading:] != jnp.shape(like)[2:]:
                place = f"{name}{jax.tree_util.keystr(path)}"
                right = [*jnp.shape(leaf)[:leading], *jnp.shape(like)[2:]]
                raise ValueError(
                    f"trajectory.{place} must be {right}, one observation as in trajectory.obs, got {_type_of(leaf)}"
                )


def _is_array(value: Any) -> bool:
    return hasattr(value, "shape") and hasattr(value, "dtype")


def _type_of(value: Any) -> str:
    return f"{value.dtype} {list(value.shape)}" if _is_array(value) else type(value).__name__
