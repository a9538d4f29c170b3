"""Policies that no update changes any more, because their gradient and the entropy of their actions are 0."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.harness import runner
from experiments.train import report
from pgjax import acting
from pgjax.environments import HostEnvironment
from pgjax.types import Environment, Policy, PyTree

STARTS = 16
# Of the last updates, this share must have no gradient: a batch of equal returns has none either.
SHARE = 0.1


class Watch:
    """The last update of each run whose gradient was not exactly 0, from the metrics of all updates since `first`.

    Args:
        num_runs: S.
        first: the number of updates before those that are watched.
    """

    def __init__(self, num_runs: int, first: int):
        self.first = self.done = first
        self._last = np.full(num_runs, first)

    def see(self, metrics: Mapping[str, np.ndarray]) -> None:
        """Look at the metrics `[S, n]` of the next n updates."""
        norms = metrics.get("gradient_norm")
        moved = np.ones(metrics["num_steps"].shape, bool) if norms is None else norms != 0
        count = moved.shape[1]
        newest = self.done + count - np.argmax(moved[:, ::-1], axis=1)
        self._last = np.where(moved.any(axis=1), newest, self._last)
        self.done += count

    def dead(self) -> dict[int, int]:
        """Run → the number of the update from which on its gradient is exactly 0, where that holds to the end."""
        least = max(2, round(SHARE * (self.done - self.first)))
        return {run: int(last) for run, last in enumerate(self._last) if self.done - last >= least}


def entropy_at_starts(environment: Environment, policy: Policy, params: PyTree) -> float:
    """The largest entropy of the action in nats, over several starts."""

    def of(key: jax.Array) -> jax.Array:
        _, obs = environment.reset(key, environment.params)
        _, outputs = acting.step(policy, params, acting.start(policy, params, obs), obs)
        return policy.distribution.entropy(outputs)

    return float(jnp.max(jax.vmap(of)(jax.random.split(jax.random.key(0), STARTS))))


def note_dead(
    options: Mapping[str, Any],
    environment: Environment,
    policy: Policy,
    params: PyTree,
    watch: Watch,
    rates: np.ndarray,
    failures: Mapping[int, str],
    recorder: runner.Recorder,
) -> None:
    """Add a note for each run whose policy is dead: the update, the metrics, and the options that may help.

    `params` has leaves `[S, ...]`.
    """
    if isinstance(environment, HostEnvironment):
        return
    for run, update in watch.dead().items():
        of_run = jax.tree.map(lambda x: x[run], params)
        if run in failures or policy.distribution.entropy is None or entropy_at_starts(environment, policy, of_run) > 0:
            continue
        recorder.note(
            f"{report.run_name(options, rates, run)}: from update {update} on, gradient_norm is 0, and the entropy of "
            "the actions is 0 too. No update changes this policy any more. If its return is low, a step was too "
            "large: choose a smaller --lr, limit the step with --max-grad-norm, or keep the entropy up with "
            "--entropy-coef."
        )
