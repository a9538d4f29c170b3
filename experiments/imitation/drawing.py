"""The figures of `experiments.imitation`."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.harness import plots, runner
from experiments.imitation.copying import Curve
from experiments.imitation.passing import COPY, Gone

ALGORITHMS = ("cloning", "dagger", "dart")


def _number(value: float) -> str:
    return runner.format_number(value, digits=3)


def draw_copies(results: dict[str, Any]) -> Figure:
    """The measures of the copies against the number of episodes, with a line at the expert."""
    config, curves, experts = results["config"], results["curves"], results["expert"]
    shown = config.plan.shown
    first, name = next(iter(curves.values())), shown[0]
    few, many = first.values[name].mean(axis=0)[[0, -1]]
    fewest, most = first.episodes[[0, -1]]
    expert = experts.get(name, np.nan)
    title = (
        f"{config.problem}: {name} {_number(few)} for a copy of {fewest} episode{'s' if fewest > 1 else ''}, "
        f"{_number(many)} for one of {most}" + (f", {_number(expert)} for the expert" if np.isfinite(expert) else "")
    )
    caption = f"Mean over {config.seeds} seeds, {plots.bands(config.seeds, 'seeds')}; "
    caption += f"greedy copies on {config.eval_episodes} episodes."
    figure, panels = plots.figure(title, caption, columns=len(shown), width=8.5 if len(shown) == 1 else 11.0)
    for axes, measure in zip(np.atleast_1d(panels), shown, strict=True):
        _draw_measure(axes, measure, config.episodes, curves, experts.get(measure, np.nan))
    return figure


def _draw_measure(axes: Axes, measure: str, sizes: tuple[int, ...], curves: dict[str, Curve], expert: float) -> None:
    label = "return of an episode" if measure == "return" else measure
    axes.set(xlabel="episodes of the expert, or labelled by it", ylabel=label, xscale="log")
    axes.set_xticks(sizes, list(map(str, sizes)))
    axes.minorticks_off()
    if np.isfinite(expert):
        plots.reference_line(axes, expert, "the expert")
    colour_of, ends = plots.colours(ALGORITHMS), {}
    for name, curve in curves.items():
        runs = {name: curve.values[measure]}
        ends |= plots.learning_curves(axes, curve.episodes, runs, colour_of=colour_of, named=False)
    plots.label_ends(axes, ends)


def ended(gone: dict[str, Gone]) -> np.ndarray:
    """The updates in which episodes of every run ended, bool `[U]`; the first windows may end before any episode."""
    return np.all([np.isfinite(run.returns).all(axis=0) for run in gone.values()], axis=0)


def draw_passing(gone: dict[str, Gone], expert: float, title: str, caption: str, label: str, limits=None) -> Figure:
    """The returns of the policy gradient from the copy and from scratch, with a line at the expert."""
    counted = ended(gone)
    returns = {name: run.returns[:, counted] for name, run in gone.items()}
    figure, axes = plots.figure(title, caption, width=8.5)
    axes.set(xlabel="updates", ylabel="return of an episode")
    if limits is not None:
        axes.set_ylim(limits)
    plots.reference_line(axes, expert, label)
    plots.learning_curves(axes, 1 + np.flatnonzero(counted), returns)
    return figure


def draw_all(results: dict[str, Any], recorder: runner.Recorder) -> None:
    config = results["config"]
    recorder.figure(draw_copies(results), f"imitation_{config.problem}")
    if results["gone"] is None:
        return
    gone = results["gone"]
    if ended(gone).sum() < 2:
        recorder.note("There is no learning curve, because in hardly any update an episode ended in every run.")
        return
    seeds = len(gone[COPY].returns)
    bands = f"mean over {seeds} seeds, {plots.bands(seeds, 'seeds')}."
    if config.problem == "cartpole":
        start, end = gone[COPY].returns.mean(axis=0)[[0, -1]]
        expert = results["mediocre"]
        title = f"A copy of an expert of {expert:.0f} starts at {start:.0f}; REINFORCE takes it to {end:.0f}"
        caption = f"CartPole-v1, 32 episodes an update; {bands}"
        figure = draw_passing(gone, expert, title, caption, "the mediocre expert", (0, 520))
        figure.axes[0].set_ylabel("return of an episode (steps)")
        recorder.figure(figure, "passing_the_expert")
        return
    at_end = {name: values["return"].mean() for name, values in results["passed"].items()}
    scratch = next(value for name, value in at_end.items() if name != COPY)
    expert = results["expert"]["return"]
    title = (
        f"{config.problem}: in {config.pass_updates} updates a copy reaches a return of {_number(at_end[COPY])}, and a "
        f"policy from scratch {_number(scratch)}; the expert has {_number(expert)}"
    )
    caption = (
        f"Curves: the training episodes, whose actions are sampled; {bands} In the first "
        f"{config.plan.ascent.num_held(config.pass_updates)} updates only the value network learns. The title gives "
        f"greedy policies on {config.eval_episodes} episodes."
    )
    figure = draw_passing(gone, expert, title, caption, "the expert")
    recorder.figure(figure, f"passing_{config.problem}")
