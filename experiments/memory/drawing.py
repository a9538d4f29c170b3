"""The figures of the three parts of the experiment."""

import statistics

import numpy as np

from experiments.harness import plots, runner
from experiments.memory import GRU, MLP, SOLVED, Config, Recall, strings
from experiments.shared import learning_curves, ranges


def plot_recall(config: Config, found: Recall, recorder: runner.Recorder) -> None:
    last = {name: curve[:, -max(1, curve.shape[1] // 20) :].mean() for name, curve in found.curves.items()}
    title = (
        f"Recall: a GRU names the cue of {config.delay + 1} steps ago in {last[GRU]:.0%} of the episodes; without "
        f"memory none can do better than {found.without:.0%}, and {last[MLP]:.0%} is what training finds"
    )
    caption = (
        f"{config.cues} cues; RLOO and Adam, {config.recall_episodes} episodes an update; mean over "
        f"{config.recall_seeds} seeds, {plots.bands(config.recall_seeds, 'seeds')}. Dashed lines: exact best values."
    )
    figure, axes = plots.figure(title, caption, width=8.5)
    axes.set(xlabel="updates", ylabel="cues named (share of episodes)", ylim=(0, 1.08))
    plots.reference_line(axes, found.without, "best without memory")
    plots.reference_line(axes, found.with_memory, "best with memory")
    plots.learning_curves(axes, np.arange(config.recall_updates), found.curves, bounds=ranges.SHARE)
    recorder.figure(figure, "memory_recall")


def plot_reverse(config: Config, found: dict[int, learning_curves.Learnt], recorder: runner.Recorder) -> None:
    solved = {length: int((one.shares[:, -1] >= SOLVED).sum()) for length, one in found.items()}
    counts = ", ".join(f"of {n} symbols by {count} of {config.seeds} seeds" for n, count in solved.items())
    title = f"Learned from reward alone: {SOLVED:.0%} of unseen strings are written backwards, {counts}"
    caption = (
        f"Share of {config.eval_prompts} held-out prompts whose greedy answer is right everywhere; transformer, RLOO "
        f"in groups of {config.group_size}, {config.episodes} episodes an update; mean over {config.seeds} seeds, "
        f"{plots.bands(config.seeds, 'seeds')}; thin lines: each seed."
    )
    figure, axes = plots.figure(title, caption, width=8.5)
    axes.set(xlabel="updates", ylabel="answers right everywhere (share)", ylim=(0, 1.08))
    plots.reference_line(axes, SOLVED, f"{SOLVED:.0%}")
    names = {n: f"{n} symbols" for n in found}
    colour_of, ends = plots.colours(names.values()), {}
    for n, one in found.items():
        axes.plot(one.updates, one.shares.T, color=colour_of[names[n]], linewidth=0.5, alpha=0.4)
        curve = {names[n]: one.shares}
        style = {"colour_of": colour_of, "named": False, "bounds": ranges.SHARE}
        ends |= plots.learning_curves(axes, one.updates, curve, **style)
    plots.label_ends(axes, ends)
    recorder.figure(figure, "memory_reverse")


def plot_tokens(config: Config, found: dict[tuple[int, int], strings.Rates], recorder: runner.Recorder) -> None:
    ratios = ", ".join(f"{statistics.median(one.ratios):.2f} at {n} symbols" for (n, _), one in found.items())
    title = f"Tokens per second of pgjax over those of hand-written JAX: {ratios}"
    caption = (
        f"Sampling, gradient and Adam of a transformer on reverse; medians with ranges of {config.repetitions} "
        f"repetitions of {config.repeated_updates} updates."
    )
    rates = {
        f"{name}: {n} symbols, {episodes} episodes": [value / 1e3 for value in values]
        for (n, episodes), one in found.items()
        for name, values in one.tokens.items()
    }
    figure, axes = plots.figure(title, caption, width=9, height=1.6 + 0.45 * len(rates))
    of_program = plots.colours((strings.PGJAX, strings.PEER, strings.ALL))
    colour_of = {name: of_program[name.split(":")[0]] for name in rates}
    bars = {name: (statistics.median(x), min(x), max(x)) for name, x in rates.items()}
    plots.bars_with_intervals(axes, bars, colour_of=colour_of)
    axes.set_xlabel("10³ sampled tokens per second")
    recorder.figure(figure, "memory_tokens")
