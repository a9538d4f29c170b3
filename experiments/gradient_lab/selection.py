"""Which estimators of the registry the gradient laboratory measures on a problem."""

import contextlib
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp

from experiments.harness.runner import UsageError
from experiments.shared.problems import Problem
from pgjax import evaluation, registry, rollouts
from pgjax.registry import Entry
from pgjax.types import PyTree


@contextlib.contextmanager
def _of_option() -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise UsageError(f"--estimator: {error}") from error


def check_names(names: Sequence[str]) -> None:
    """Refuse a name that no estimator has. A `module:function` is not imported yet.

    Raises:
        UsageError: no estimator has the name; the message suggests similar names.
    """
    wanted([name for name in names if ":" not in name])


def wanted(names: Sequence[str]) -> dict[str, Entry]:
    """Label → entry, for the names and for every `module:function`; without a name, for the whole registry.

    Raises:
        UsageError: no estimator has the name, or a `module:function` cannot be imported.
    """
    with _of_option():
        found = {name: registry.find(name) for name in names}
    named = [entry for entry in found.values() if not entry.is_own]
    own = [entry for entry in found.values() if entry.is_own]
    return {entry.label: entry for entry in [*(named or registry.ENTRIES.values()), *own]}


def chosen(problem: Problem, batch: int, names: Sequence[str]) -> tuple[dict[str, Entry], dict[str, str]]:
    """The wanted entries that can be measured on the problem, and label → reason for those that cannot.

    Raises:
        UsageError: an estimator that was named cannot be measured, or an estimator of the user's cannot be used.
    """
    found, left_out = {}, {}
    for label, entry in wanted(names).items():
        reason = _lacking(problem, entry, batch)
        if reason and entry.name in names:
            raise UsageError(f"--estimator {entry.name}: {reason}")
        if reason:
            left_out[label] = reason
        else:
            found[label] = entry
    for entry in found.values():
        if entry.is_own:
            _check(problem, entry, batch)
    return found, left_out


def _lacking(problem: Problem, entry: Entry, batch: int) -> str:
    # Without an oracle there is no θ_old, and no F⁺∇ρ to compare with.
    needs_oracle = entry.behaviour or entry.natural or entry.lacking(problem.parts) in ("oracle", "states")
    if needs_oracle and problem.truth is None:
        return "needs a tabular problem"
    if entry.lacking(problem.parts) == "critic":
        return "needs discrete actions"
    return "needs --batch 2 or more" if entry.joint and not entry.is_own and batch < 2 else ""


def _check(problem: Problem, entry: Entry, batch: int) -> None:
    """Build and trace the estimator once, so that one that fails is refused before the long measurements."""
    with _of_option():
        estimator = problem.estimator(entry)
    group_size = problem.parts.group_size
    needed = estimator.needs.group_size or group_size
    if needed != group_size:
        raise UsageError(
            f"--estimator {entry.name}: needs --group-size {needed} (groups share a start), got {group_size}"
        )

    def estimate(keys: jax.Array) -> PyTree:
        episodes = rollouts.episodes(problem.environment, problem.policy, problem.params, keys, group_size=group_size)
        if estimator.needs.greedy_returns:
            episodes = evaluation.with_greedy_returns(
                problem.environment, problem.policy, problem.params, keys, episodes, group_size=group_size
            )
        return estimator.gradient(problem.params, estimator.init(jax.random.key(0), episodes), episodes)[0]

    keys = jax.random.split(jax.random.key(0), batch)
    with _of_option():
        found = jax.eval_shape(estimate, keys)
    shapes = [jax.tree.map(jnp.shape, tree) for tree in (found, problem.params)]
    if shapes[0] != shapes[1]:
        raise UsageError(
            f"--estimator {entry.name}: its gradient must be shaped as the parameters, {shapes[1]}, got {shapes[0]}"
        )
