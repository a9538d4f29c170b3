"""The figure: length, gold and bits per byte against √KL, exact frontiers with trained policies on top."""

from typing import Any

import numpy as np

from experiments.harness import plots
from experiments.harness.runner import Recorder
from experiments.reward_hacking.findings import ALONE, PLAIN, REWARDS, TASTE
from pgjax import diagnostics

PANELS = {
    "length": "characters of an answer",
    "gold": "E[gold]",
    "bits": "bits per byte under the reference",
}


def draw(results: dict, recorder: Recorder) -> None:
    config, before, trained = results["config"], results["before"], results["trained"]
    shown = lambda value: f"{value:.1f}".replace("-", "−")
    mean = lambda name, reward: shown(getattr(trained.values, name)[:, REWARDS.index(reward), 0].mean())
    figure, panels = plots.figure(
        f"A taste for length of {config.taste:g} nats a character: answers of {mean('length', TASTE)} instead of "
        f"{mean('length', PLAIN)} characters, and gold of {mean('gold', TASTE)} instead of {mean('gold', PLAIN)}; "
        f"length alone: {mean('length', ALONE)} characters, gold {mean('gold', ALONE)} (before training "
        f"{shown(float(before.gold))})",
        "Lines: exact optima for falling penalties β, by dynamic programming, from the reference (dot at √KL = 0) on. "
        f"Markers: policies trained by RLOO, ○ without a penalty, □ with β = {config.kl_coef:g}; exact, too. Gold: "
        f"1 for each of the first three dictionary words, −½ for every other word, 1 for an end. {config.seeds} seeds; "
        f"bars and bands: {plots.bands(config.seeds, 'seeds')}. The title is about training without a penalty.",
        columns=3,
        width=15,
        height=5.6,
    )
    colour_of = plots.colours(REWARDS)
    for axes, (name, label) in zip(panels, PANELS.items(), strict=True):
        axes.set(xlabel="√KL(π ‖ π_ref), √nats", ylabel=label)
        for row, reward in enumerate(REWARDS):
            _draw_frontier(axes, results, name, row, colour_of[reward])
            for column, marker in enumerate("os"):
                _draw_trained(axes, trained.values, name, (row, column), marker, colour_of[reward])
        axes.plot(0.0, float(getattr(before, name)), "o", color=plots.INK, label="before training")
    panels[0].legend(frameon=False)
    recorder.figure(figure, "reward_hacking")


def _draw_frontier(axes: Any, results: dict, name: str, row: int, colour: str) -> None:
    """The mean over seeds for each β, from the reference on, and the interval of the mean."""
    frontiers, start = results["frontiers"], float(getattr(results["before"], name))
    distance = np.sqrt(np.maximum(frontiers.kl[:, row], 0.0)).mean(axis=0)
    found = diagnostics.mean_interval(getattr(frontiers, name)[:, row])
    begin = lambda values, first: np.concatenate([[first], values])
    x = begin(distance, 0.0)
    axes.plot(x, begin(found.value, start), color=colour, linewidth=2, label=REWARDS[row])
    axes.fill_between(x, begin(found.low, start), begin(found.high, start), color=colour, alpha=0.18, linewidth=0)


def _draw_trained(axes: Any, values: Any, name: str, place: tuple[int, int], marker: str, colour: str) -> None:
    of = lambda which: diagnostics.mean_interval(getattr(values, which)[:, place[0], place[1]])
    distances = np.sqrt(np.maximum(values.kl[:, place[0], place[1]], 0.0))
    x, y = diagnostics.mean_interval(distances), of(name)
    axes.errorbar(
        x.value,
        y.value,
        xerr=x.high - x.value,
        yerr=y.high - y.value,
        fmt=marker,
        color=colour,
        markerfacecolor="white",
        capsize=3,
        zorder=3,
        label=f"_trained, {REWARDS[place[0]]}, {'penalty' if place[1] else 'no penalty'}",
    )
