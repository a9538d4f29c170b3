"""`agreement`: self-agreement, agreement between annotators, and the number of labels that a reward model needs."""

import itertools
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments.harness import figures, plots, terminal
from experiments.harness.directories import UsageError
from experiments.preferences import labels, planning, wording
from experiments.preferences.agreement import Agreement, agreement
from experiments.preferences.collecting import validate_plan
from experiments.preferences.plans import Plan, plan
from experiments.preferences.summary import Table, read_all
from pgjax.diagnostics import Estimate

Judged = dict[str, dict[str, list[int]]]
COLUMNS = (
    "accuracy: the share of new pairs in which the model picks the answer of the larger true reward; from, to: its "
    "values at the ends of the interval of the self-agreement. next answer: the share in which the model picks the "
    "answer that the annotator will choose; at most: this share for the true rewards, which no model exceeds."
)


def report(files: Sequence[pathlib.Path], target: float, features: int, figure: pathlib.Path | None) -> None:
    """Print the tables, and draw the figure if there is a place for it."""
    validate_plan(target, features)
    if figure is not None and figure.suffix != ".png":
        raise UsageError(f"--figure {figure}: must end in .png")
    judged = labels.by_annotator(read_all(files))
    console = terminal.make_console()
    headers, cells = agreements(judged)
    terminal.show_table(
        console,
        "Agreement (95 % intervals; κ is 1 for perfect and 0 for chance agreement)",
        headers,
        cells,
        right=["pairs"],
    )
    found = planned(judged, target, features)
    every = (category for pairs_of in judged.values() for categories in pairs_of.values() for category in categories)
    count = sum(category < 2 for category in every)
    headers, cells = forecast(found, features)
    title = f"Predicted accuracy of a reward model with {features} features"
    terminal.show_table(console, title, headers, cells, right=headers)
    console.print(COLUMNS, markup=False, soft_wrap=True)
    console.print(wording.plan(found, count, target, who="the annotators"), markup=False, soft_wrap=True)
    if figure is not None:
        with labels.refused():
            figure.parent.mkdir(parents=True, exist_ok=True)
            figures.save(draw(found, target, features, count), figure)
        console.print(f"figure: {figure}", markup=False)


def agreements(judged: Judged) -> Table:
    """A line for each annotator with repeated pairs, and for each two annotators with common pairs."""
    cells = []
    for name, pairs_of in judged.items():
        cells.append([f"{name} with himself or herself", *_cells(agreement(*labels.twice(pairs_of)))])
    for one, other in itertools.combinations(judged, 2):
        common = [name for name in judged[one] if name in judged[other]]
        found = agreement([judged[one][name][0] for name in common], [judged[other][name][0] for name in common])
        cells.append([f"{one} with {other}", *_cells(found)])
    return ["judgements", "pairs", "equal", "Cohen's κ"], cells


def _cells(found: Agreement) -> list[str]:
    if found.share is None:
        return ["0", "no pair was judged twice", ""]
    share = f"{found.share.value:.0%} ({found.share.low:.0%} to {found.share.high:.0%})"
    return [str(found.count), share, _kappa(found.kappa)]


def _kappa(kappa: Estimate | None) -> str:
    if kappa is None:
        return "not defined: all judgements are the same kind of tie"
    return f"{kappa.value:.2f} ({kappa.low:.2f} to {kappa.high:.2f})"


def planned(judged: Judged, target: float, features: int) -> Plan:
    """The plan from the repeated pairs of all annotators together."""
    both = [labels.twice(pairs_of) for pairs_of in judged.values()]
    first, second = ([x for one in both for x in one[place]] for place in (0, 1))
    return plan(first, second, target, features)


def _curves(found: Plan, features: int) -> list[list[planning.Forecast]]:
    """The forecast for the self-agreement, and for the low and the high end of its interval where there is one."""
    shares = [found.share] if found.low is None or found.high is None else [found.share, found.low, found.high]
    return [planning.curve(share, features) for share in shares]


def forecast(found: Plan, features: int) -> Table:
    """A line for each number of labels."""
    curves = _curves(found, features)
    measured = len(curves) == 3
    headers = ["choices", "accuracy"] + ["from", "to"] * measured + ["next answer", "at most"]
    cells = []
    for index, point in enumerate(curves[0]):
        between = [f"{curve[index].accuracy:.1%}" for curve in curves[1:]]
        numbers = [f"{point.accuracy:.1%}", *between, f"{point.matched:.1%}", f"{point.ceiling:.1%}"]
        cells.append([str(point.labels), *numbers])
    return headers, cells


def draw(found: Plan, target: float, features: int, count: int) -> Any:
    """Predicted accuracy over the number of labels."""
    curves = _curves(found, features)
    x = np.array([point.labels for point in curves[0]])
    accuracy = np.array([[point.accuracy for point in curve] for curve in curves])
    rate = f"{found.share:.0%} self-agreement"
    basis = f"measured on {found.repeats} pairs with two choices" if len(curves) == 3 else "assumed"
    needed = f"more than {found.most}" if found.needed is None else str(found.needed)
    title = f"With {rate}, a reward model should reach {target:.0%} accuracy with {needed} choices"
    band = " The band is the 95 % interval of the self-agreement." if len(curves) == 3 else ""
    caption = (
        f"Simulated fits of a linear Bradley–Terry model with {features} features; the self-agreement is {basis}."
        f"{band} Accuracy is the share of new pairs in which the model picks the answer of the larger true reward. "
        f"The annotators have made {count} choices."
    )
    figure, axes = plots.figure(title, caption)
    axes.set_xscale("log")
    axes.set_xticks(x, [str(number) for number in x])
    axes.minorticks_off()
    axes.plot(x, 100 * accuracy[0], "-o", color=plots.PALETTE[0], linewidth=2, markersize=4, label="predicted accuracy")
    if len(curves) == 3:
        axes.fill_between(x, 100 * accuracy[1], 100 * accuracy[2], color=plots.PALETTE[0], alpha=0.18, linewidth=0)
    axes.axhline(100 * target, color=plots.GREY, linestyle="--", linewidth=1)
    axes.annotate("target", (x[-1], 100 * target), (-4, 4), ha="right", **plots.SMALL_TEXT)
    axes.set_xlabel("number of choices between two answers")
    axes.set_ylabel("accuracy on new pairs (%)")
    axes.set_ylim(50, 100)
    return figure
