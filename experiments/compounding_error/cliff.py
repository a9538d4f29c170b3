"""The reset cliff of `compounding_error`: copies of N demonstrations of H steps, over many data sets.

Axes: D data sets, N settings.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.compounding_error.slippery_maze import random_at_times
from experiments.compounding_error.targets import CLIFF, ON_CLIFF, ONE_TABLE, RANGES, range_slope
from experiments.harness import runner, verdicts
from pgjax import diagnostics, exact

Setting = tuple[int, int]
ROUNDS = 4


def regrets(config: Any, name: str, setting: Setting, key: jax.Array) -> np.ndarray:
    """Return exact regrets `[D]` of the copies that algorithm `name` learns, one program for all data sets."""
    size, horizon = setting
    mdp = exact.reset_cliff(size, horizon)
    expert = exact.first_action(mdp)
    noisy = random_at_times(expert, config.injected)

    def copy(key: jax.Array) -> jax.Array:
        if name == "DAgger":
            betas = jnp.zeros(ROUNDS).at[0].set(1.0)
            return exact.tabular_dagger(key, mdp, expert, betas, size // ROUNDS)[-1]
        counts = exact.label_counts(key, mdp, noisy if name == "DART" else expert, expert, size)
        return exact.cloned_probabilities(counts, pooled=name == ONE_TABLE)

    of_data = jax.jit(jax.vmap(lambda key: exact.regret(mdp, expert, copy(key))))
    found = np.asarray(of_data(jax.random.split(key, config.data_sets)))
    return np.where(np.abs(found) < 1e-12 * horizon, 0.0, found)  # removes rounding errors


def measure(config: Any, recorder: runner.Recorder) -> dict:
    """(b) Return "H" and "N" → (axis, name → regrets `[D, N]`, exact mean of cloning `[N]`); "fixed" → (N, H)."""
    middle, fixed = config.sizes[1], config.horizons[len(config.horizons) // 2]
    settings = {"H": [(middle, horizon) for horizon in config.horizons], "N": [(size, fixed) for size in config.sizes]}
    found: dict[tuple[str, Setting], np.ndarray] = {}
    total = len(config.copies) * len(config.horizons) + len(config.sizes) - 1

    def line(name: str, which: str, first_index: int) -> np.ndarray:
        for index, setting in enumerate(settings[which], first_index):
            if (name, setting) not in found:
                key = jax.random.key(config.seed + 100 + index)
                found[name, setting] = regrets(config, name, setting, key)
                _record(name, setting, found[name, setting], recorder)
                progress.advance(1, f"{name}, N = {setting[0]}, H = {setting[1]}")
        return np.stack([found[name, setting] for setting in settings[which]], axis=1)

    with recorder.progress(total, "copies on the cliff", "settings") as progress:
        curves = {"H": {name: line(name, "H", 0) for name in config.copies}, "N": {"cloning": line("cloning", "N", 10)}}
    known = {name: np.array([float(exact.reset_cliff_regret(*each)) for each in settings[name]]) for name in settings}
    axes = {"H": config.horizons, "N": config.sizes}
    for name, x in axes.items():
        if (x[0], x[-1]) != RANGES[name]:  # a target has the other slope
            quantity = f"(b) slope of ln regret in ln {name}, from {name} = {x[0]} to {x[-1]}"
            ours = range_slope(x, curves[name]["cloning"].mean(axis=0))
            recorder.row(quantity=quantity, variant="cloning", ours=ours, exact=range_slope(x, known[name]))
    return {name: (axes[name], curves[name], known[name]) for name in axes} | {"fixed": (middle, fixed)}


def _record(name: str, setting: Setting, values: np.ndarray, recorder: runner.Recorder) -> None:
    """Record a regret that no target shows."""
    if name == "cloning" and setting in CLIFF:
        return
    mean, stderr = map(float, diagnostics.mean_and_stderr(values))
    known = float(exact.reset_cliff_regret(*setting)) if name == "cloning" else None
    recorder.row(
        quantity="(b) regret on the cliff, N = {}, H = {}".format(*setting),
        variant=name,
        ours=mean,
        stderr=stderr,
        exact=known,
        verdict=None if known is None else verdicts.against_exact(mean, stderr, known, tiny=verdicts.is_tiny(recorder)),
    )


def _power(name: str, cliff: dict) -> str:
    x, curves, _ = cliff[name]
    value = f"{range_slope(x, curves['cloning'].mean(axis=0)):.2f}".replace("-", "−")
    return f"{name} to the power {value} ({name} = {x[0]} to {x[-1]})"


def plot(config: Any, cliff: dict, recorder: runner.Recorder) -> None:
    from experiments.harness import plots

    title = f"On the reset cliff cloning's regret grows as {_power('H', cliff)} and falls as {_power('N', cliff)}"
    if "DAgger" in cliff["H"][1]:
        ahead = cliff["H"][1]["DAgger"][:, -1].mean() < cliff["H"][1]["cloning"][:, -1].mean()
        title += "; asking the expert helps" if ahead else "; asking the expert does not help"
    lossy = {name: values for name, values in cliff["H"][1].items() if values.mean() > 0}
    caption = (
        f"Means over {config.data_sets} data sets, {plots.bands(config.data_sets)}. Dashed: the exact mean of cloning."
    )
    if ONE_TABLE in cliff["H"][1] and ONE_TABLE not in lossy:
        caption += " With one table for all times no copy has any regret, so its line is not drawn."
    figure, both = plots.figure(title, caption, columns=2, width=13, height=4.6)
    middle, fixed = cliff["fixed"]
    labels = {"H": f"H, steps (N = {middle})", "N": f"N, demonstrations (H = {fixed})"}
    for axes, name, curves in zip(both, ("H", "N"), (lossy, cliff["N"][1]), strict=True):
        x, _, known = cliff[name]
        axes.set(xscale="log", yscale="log", xlabel=labels[name], ylabel="regret (reward)")
        means = np.concatenate([known, *(values.mean(axis=0) for values in curves.values())])
        axes.set_ylim(0.8 * means[means > 0].min(), 1.25 * means.max())
        axes.plot(x, known, "--", color=plots.INK, linewidth=1, zorder=3)
        plots.learning_curves(axes, np.array(x), curves, colour_of=plots.colours(ON_CLIFF))
        axes.set_xticks(x, list(map(str, x)))
        low, high = axes.get_ylim()
        ticks = [each for each in (a * 10.0**n for n in range(-4, 4) for a in (1, 2, 5)) if low <= each <= high]
        axes.set_yticks(ticks, [f"{each:g}" for each in ticks])
        axes.minorticks_off()
    recorder.figure(figure, "cliff")
