"""The figures: proxy and gold against √KL, what labels and sizes change, and trained policies on the exact frontier."""

from typing import Any

import numpy as np

from experiments.harness import plots
from experiments.harness.runner import Recorder
from experiments.overoptimization import proxies
from experiments.overoptimization.task import NETWORK
from pgjax import diagnostics, exact

DISTANCE = "√KL(π ‖ π_ref), √nats"
GOLD = "E[gold], standard deviations"


def draw_frontiers(results: dict, recorder: Recorder) -> None:
    """Gold and proxy against √KL for each number of labels; where gold is highest; the loss above its floor."""
    config, fits = results["config"], results["fits"]
    few, many = config.labels[0], config.labels[-1]
    gold = proxies.at_distances(fits[NETWORK].frontier, "gold")
    places, _ = proxies.peak_places(gold, proxies.DISTANCES)
    figure, (left, middle, right) = plots.figure(
        f"The harder a reward model is optimised, the more it promises, but the true score peaks at √KL = "
        f"{places[0]:.1f} with {few} labels and at {places[-1]:.1f} with {many:,}",
        f"Exact optima π_ref e^(r̂/β) / Z for all β, no training; all 4^{config.length} answers are listed. Gold and "
        f"proxies have mean 0 and standard deviation 1 under π_ref. Left: reward model “{NETWORK}”; solid: gold, "
        "dotted: proxy, black: the best gold that any policy of that KL has; a curve goes on level where the optimum "
        "is one answer. Middle: the peak of the mean gold, with bootstrap intervals of 95 %. Right: loss on new pairs "
        f"minus the entropy of their labels. {config.seeds} seeds, {plots.bands(config.seeds, 'seeds')}.",
        columns=3,
        width=15,
        height=5.6,
    )
    _draw_curves(left, config, fits[NETWORK], gold, results["gold"])
    _draw_peaks(middle, config, fits)
    excess = {name: np.asarray(fitted.test["excess_loss"]) for name, fitted in fits.items()}
    right.set(xscale="log", xlabel="number of labels", ylabel="loss above its entropy floor, nats")
    plots.learning_curves(right, np.array(config.labels), excess, named=False)
    right.set_ylim(bottom=0)
    right.legend(frameon=False)
    for axes in (middle, right):
        axes.set_xticks(config.labels, [f"{count:,}" for count in config.labels])
        axes.minorticks_off()
    recorder.figure(figure, "overoptimization")


def _draw_curves(axes: Any, config: Any, fitted: proxies.Fitted, gold: np.ndarray, best: exact.Frontier) -> None:
    proxy = proxies.at_distances(fitted.frontier, "proxy")
    names = {column: f"{count:,} labels" for column, count in enumerate(config.labels)}
    colour_of = plots.colours(names.values())
    axes.set(xlabel=DISTANCE, ylabel="E[gold] (solid), E[proxy] (dotted), standard deviations")
    curves = {name: gold[:, column] for column, name in names.items()}
    ends = plots.learning_curves(axes, proxies.DISTANCES, curves, colour_of=colour_of, named=False)
    for column, name in names.items():
        axes.plot(proxies.DISTANCES, proxy[:, column].mean(axis=0), ":", color=colour_of[name], label=f"proxy, {name}")
    axes.plot(proxies.DISTANCES, proxies.at_distances(best, "gold"), color=plots.INK, label="best gold")
    axes.annotate("best gold", (1.0, float(np.interp(1.0, proxies.DISTANCES, proxies.at_distances(best, "gold")))),
                  (-6, 8), ha="right", **plots.SMALL_TEXT)  # fmt: skip
    axes.axhline(0.0, color=plots.GREY, linewidth=1, linestyle=(0, (4, 3)), label="_π_ref")
    plots.label_ends(axes, ends)


def _draw_peaks(axes: Any, config: Any, fits: dict[str, proxies.Fitted]) -> None:
    colour_of = plots.colours(fits)
    shift = np.geomspace(0.93, 1.075, len(fits))
    for factor, (name, fitted) in zip(shift, fits.items(), strict=True):
        places, again = proxies.peak_places(proxies.at_distances(fitted.frontier, "gold"), proxies.DISTANCES)
        low, high = np.quantile(again, [0.025, 0.975], axis=0)
        x = factor * np.array(config.labels)
        axes.vlines(x, low, high, color=colour_of[name], linewidth=1.5)
        axes.plot(x, places, "o-", color=colour_of[name], label=name)
    axes.set(xscale="log", xlabel="number of labels", ylabel="√KL at the peak of gold, √nats")
    axes.set_ylim(0, 1.04 * proxies.DISTANCES[-1])
    axes.legend(frameon=False, loc="lower right")


def draw_policies(results: dict, recorder: Recorder) -> None:
    """Trained policies and best-of-n on the exact frontier, and their entropy."""
    config, trained, fitted = results["config"], results["trained"], results["fits"][NETWORK]
    entropy, gold = trained.paths.entropy[0].mean(axis=0), trained.paths.gold[0].mean(axis=0)
    end = np.sqrt(trained.paths.kl[0, :, 1, -1].mean())
    column, seeds = config.labels.index(trained.labels[0]), slice(config.trained_seeds)
    frontier = proxies.at_distances(fitted.frontier, "gold")[seeds, column].mean(axis=0)
    best = np.interp(end, proxies.DISTANCES, frontier)
    shown = lambda value: f"{value:.1f}".replace("-", "−")
    figure, panels = plots.figure(
        f"Trained on {trained.labels[0]} labels with a KL penalty of β = {config.kl_coefs[1]:g}, the policy ends at a "
        f"gold of {shown(gold[1, -1])}, beside {shown(best)} on the exact frontier; without a penalty it ends at "
        f"{shown(gold[0, -1])} and keeps {shown(entropy[0, -1])} of {shown(entropy[0, 0])} nats of entropy",
        f"Reward model “{NETWORK}”; RLOO, {config.episodes} answers an update, {config.updates} updates; exact sums "
        f"over all answers, mean over {config.trained_seeds} seeds. Bars: 95 % t intervals of the end. The frontier "
        "needs no training; its band is over the same seeds. Best-of-n: n = 1, 2, 4, …, 1 024.",
        columns=len(trained.labels) + 1,
        width=5 * (len(trained.labels) + 1),
        height=5.4,
    )
    for row, count in enumerate(trained.labels):
        _draw_paths(panels[row], config, row, count, trained, fitted)
        panels[row].legend(frameon=False, fontsize=8)
    _draw_entropy(panels[-1], config, trained, fitted)
    recorder.figure(figure, "overoptimization_policies")


def _draw_paths(axes: Any, config: Any, row: int, count: int, trained: Any, fitted: proxies.Fitted) -> None:
    column = config.labels.index(count)
    some = lambda curve, name: proxies.at_distances(curve, name)[: config.trained_seeds, column]
    axes.set(xlabel=DISTANCE, ylabel=GOLD, title=f"{count:,} labels")
    frontier = {"exact frontier": some(fitted.frontier, "gold")}
    plots.learning_curves(axes, proxies.DISTANCES, frontier, colour_of={"exact frontier": plots.GREY}, named=False)
    best = fitted.best_of_n
    x = np.sqrt(np.maximum(np.asarray(best.kl)[: config.trained_seeds, column].mean(axis=0), 0.0))
    y = np.asarray(best.gold)[: config.trained_seeds, column].mean(axis=0)
    axes.plot(x, y, "x", color=plots.INK, markersize=5, label="best-of-n")
    for colour, (place, beta) in zip(plots.PALETTE, enumerate(config.kl_coefs)):
        kl, gold = (x[row, :, place] for x in (trained.paths.kl, trained.paths.gold))
        distance = np.sqrt(np.maximum(kl, 0.0))
        axes.plot(distance.mean(axis=0), gold.mean(axis=0), ".-", color=colour, label=f"trained, β = {beta:g}")
        end_x, end_y = diagnostics.mean_interval(distance[:, -1]), diagnostics.mean_interval(gold[:, -1])
        axes.errorbar(
            end_x.value,
            end_y.value,
            xerr=end_x.high - end_x.value,
            yerr=end_y.high - end_y.value,
            fmt="o",
            color=colour,
            capsize=3,
            label=f"_end, β = {beta:g}",
        )
    axes.axhline(0.0, color=plots.GREY, linewidth=1, linestyle=(0, (4, 3)), label="_π_ref")


def _draw_entropy(axes: Any, config: Any, trained: Any, fitted: proxies.Fitted) -> None:
    entropy = proxies.at_distances(fitted.frontier, "entropy")
    columns = [config.labels.index(count) for count in trained.labels]
    names = [f"{count:,} labels" for count in trained.labels]
    colour_of = plots.colours(names)
    axes.set(xlabel=DISTANCE, ylabel="entropy H(π), nats", title="diversity")
    curves = {name: entropy[: config.trained_seeds, column] for name, column in zip(names, columns, strict=True)}
    plots.learning_curves(axes, proxies.DISTANCES, curves, colour_of=colour_of, named=False)
    for row, name in enumerate(names):
        distance = np.sqrt(np.maximum(trained.paths.kl[row, :, 0], 0.0)).mean(axis=0)
        mean = trained.paths.entropy[row, :, 0].mean(axis=0)
        axes.plot(distance, mean, ".--", color=colour_of[name], label=f"trained, β = 0, {name}")
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False)
