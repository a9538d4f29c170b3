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


def first_dead_updates(gradient_norms: np.ndarray, first: int) -> dict[int, int]:
    """Run → the number of the update from which on its gradient is exactly 0, where that holds to the end.

    Args:
        gradient_norms: `[S, U]`.
        first: the number of the first of these updates.
    """
    zero = gradient_norms == 0
    least = max(2, round(SHARE * zero.shape[1]))
    found = {}
    for run in range(len(zero)):
        length = int(np.argmin(zero[run, ::-1])) if not zero[run].all() else zero.shape[1]
        if length >= least:
            found[run] = first + zero.shape[1] - length
    return found


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
    states: Any,
    metrics: Mapping[str, np.ndarray],
    rates: np.ndarray,
    failures: Mapping[int, str],
    recorder: runner.Recorder,
) -> None:
    """Add a note for each run whose policy is dead: the update, the metrics, and the options that may help."""
    if "gradient_norm" not in metrics or isinstance(environment, HostEnvironment):
        return
    norms = metrics["gradient_norm"]
    first = int(np.min(np.asarray(states.update))) - norms.shape[1]
    for run, update in first_dead_updates(norms, first).items():
        params = jax.tree.map(lambda x: x[run], states.params)
        if run in failures or policy.distribution.entropy is None or entropy_at_starts(environment, policy, params) > 0:
            continue
        recorder.note(
            f"{report.run_name(options, rates, run)}: from update {update} on, gradient_norm is 0, and the entropy of "
            "the actions is 0 too. No update changes this policy any more. If its return is low, a step was too "
            "large: choose a smaller --lr, limit the step with --max-grad-norm, or keep the entropy up with "
            "--entropy-coef."
        )
