"""The runs on the short corridor that diverge: how many, when, and what they earn if they are not stopped."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.harness import runner
from experiments.harness.targets import Measured
from experiments.short_corridor import learning as training
from experiments.short_corridor import targets
from experiments.short_corridor.measurements import Curves, add_row, mean
from experiments.short_corridor.targets import PUBLISHED, WINDOWS
from pgjax.environments.corridor import LEFT, RIGHT

GONE = 1e-5
FAST, SLOW = targets.STEPS[:2]


class Ended(NamedTuple):
    """Where the stopped runs of a method end, `[S]`: v(p) with episodes cut, and whether p left (10⁻⁵, 1 − 10⁻⁵)."""

    value: np.ndarray
    gone: np.ndarray


def played_on(key: jax.Array, shares: Curves, cap: int, episodes: int) -> dict[str, Ended]:
    """Return method → where its stopped runs end, for the two larger steps; episodes are cut after `cap` steps.

    A run plays on until p has left (10⁻⁵, 1 − 10⁻⁵), where an episode hardly ever ends before the cap and the next
    updates lead further out, or for as many `episodes` as a run has.
    """
    stopped = {method: shares.rows(method)[shares.stopped[method] > 0] for method in (FAST, SLOW)}
    rows = np.concatenate(list(stopped.values()))
    if not len(rows):
        return {method: Ended(value=np.zeros(0), gone=np.zeros(0, bool)) for method in stopped}
    settings, runs = jax.tree.map(lambda x: x[rows], (shares.settings, shares.runs))
    settings = settings._replace(stop=np.full(len(rows), training.log_odds(1 - GONE), np.float32))
    runs = runs._replace(stopped=jnp.abs(runs.params[:, RIGHT] - runs.params[:, LEFT]) > settings.stop)
    for episode in range(episodes):
        if bool(runs.stopped.all()):
            break
        runs, _ = training.play(
            key, settings, runs, np.int32(episode), environment=training.corridor(cap), update=training.PER_STEP
        )
    with jax.enable_x64(True):
        values = np.asarray(training.capped_value(jnp.asarray(np.asarray(runs.params, float)), cap))
    ends = np.cumsum([len(each) for each in stopped.values()])[:-1]
    parts = zip(stopped, np.split(values, ends), np.split(np.asarray(runs.stopped), ends), strict=True)
    return {method: Ended(value=value, gone=gone) for method, value, gone in parts}


def over_all_runs(survivors: Measured, share: Measured, diverged: Measured) -> Measured:
    """(1 − q) S + q D, where q is the share of diverged runs, and S and D are the means of the others and of these."""
    q, lost = share.value, diverged.value - survivors.value
    error = math.hypot((1 - q) * survivors.stderr, q * diverged.stderr, lost * share.stderr)
    return Measured(survivors.value + q * lost, error)


def everybody(found: Curves, shares: Curves, ends: dict[str, Ended], cap: int) -> dict[str, Measured]:
    """Return method → the mean return of the last 100 episodes over all runs; empty if the runs are too short."""
    means = {}
    for method, ended in ends.items():
        survivors = found.window(method, WINDOWS[-1])
        if survivors is not None:
            # If no run diverged, the share of diverged runs is still uncertain, and a diverged run would return −cap.
            lost = mean(ended.value) if len(ended.value) else Measured(-float(cap))
            means[method] = over_all_runs(mean(survivors), Measured.share(shares.stopped[method] > 0), lost)
    return means


def divergence(found: Curves, shares: Curves, ends: dict[str, Ended], cap: int) -> dict[str, Measured]:
    """Shares of diverged runs, when they diverge, and the means over all runs, diverged ones included.

    Numbers that need longer runs than these are left out. Numbers about diverged runs are NaN if no run diverged.

    Args:
        found: the curves of the published variant.
        shares: the curves of more and shorter runs, in which diverged runs are counted.
        ends: method → where the diverged runs of `shares` end, from `played_on` with this `cap`.
    """
    measured = {}
    if shares.total_reward[FAST].shape[1] >= WINDOWS[1][1]:
        share = {method: Measured.share(shares.stopped[method] > 0) for method in targets.DIVERGED}
        measured |= {f"diverged {method}": each for method, each in share.items()}
        measured["diverged more"] = share[FAST].minus(share[SLOW])
    if everyone := everybody(found, shares, ends, cap):
        measured["early"] = Measured(100.0 - (int(found.stopped[FAST].max()) or math.nan))
        measured["stuck"] = mean(ends[FAST].value[ends[FAST].gone])
        survivors = mean(found.window(FAST, WINDOWS[-1]))
        measured["all runs"] = over_all_runs(survivors, Measured(targets.STUCK), measured["stuck"])
        measured["best step"] = everyone[SLOW].minus(everyone[FAST])
    return measured


def record(found: Curves, shares: Curves, ends: dict[str, Ended], cap: int, recorder: runner.Recorder) -> None:
    """Record the mean over all runs at our share of diverged runs, and the share of stopped runs that come back."""
    for method, ours in everybody(found, shares, ends, cap).items():
        quantity, name = f"return, all runs, cap {cap}, at our share of diverged runs", f"{PUBLISHED}, {method}"
        add_row(recorder, quantity, name, ours)
    if len(ends[FAST].gone) and len(found.total_reward[FAST][0]) >= WINDOWS[-1][1]:
        quantity = "share of the stopped runs that come back if they play on"
        add_row(recorder, quantity, f"{PUBLISHED}, {FAST}", Measured.share(~ends[FAST].gone))
