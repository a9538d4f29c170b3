"""The figure of the gradient meter: noise scale and cosine over a training. Axes: N lines of the log."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments.harness import runner
from experiments.train import meter
from pgjax import registry
from pgjax.diagnostics import Estimate

POINTS = 12  # of a curve, at most


def draw(of_rates: Mapping[float, meter.Measurements], options: Mapping[str, Any], recorder: runner.Recorder) -> None:
    """Draw `meter.png`: the noise scale and the cosine between halves of a batch, against the update."""
    if not of_rates:
        return
    from experiments.harness import plots

    size, unit = options["num_episodes"], meter.unit_of(options)
    num_runs = max(found.counts.shape[1] for found in of_rates.values())
    bands = plots.bands(num_runs, "seeds") if num_runs > 1 else "bands: 95 % t intervals over the measurements"
    figure, (above, below) = plots.figure(
        _finding(of_rates, options),
        f"Means over {num_runs} seed{'s' * (num_runs > 1)}; {bands}. The noise scale tr Σ / ‖g‖² is the number of "
        f"{unit} at which noise and signal of a gradient are equal. A triangle is its lower bound where the signal is "
        "not resolved. Below: the cosine between the gradients of the two halves of one batch.",
        rows=2,
        width=7.5,
        height=6.0,
    )
    above.set(yscale="log", ylabel=f"noise scale in {unit}")
    below.set(xlabel="update", ylabel="cosine of two halves", ylim=(-1.05, 1.05))
    for axes in (above, below):
        axes.set_xlim(0, options["num_updates"])
    colour_of = plots.colours([f"lr {rate:g}" for rate in of_rates])
    for rate, found in of_rates.items():
        bins = _bins(found)
        at = [meter.noise_of(_rows(found, rows), size) for rows in bins]
        x = np.array([found.updates[rows].mean() for rows in bins])
        label = f"lr {rate:g}"
        for axes, estimates in ((above, [n.noise_scale for n in at]), (below, [n.means["half_cosine"] for n in at])):
            _curve(axes, x, estimates, colour_of[label], label)
    plots.reference_line(above, size, f"batch of {size} {unit}")
    plots.reference_line(below, 0.0, "halves without a common direction")
    if len(of_rates) > 1:
        above.legend(frameon=False)
    recorder.figure(figure, "meter")


def _bins(found: meter.Measurements) -> list[np.ndarray]:
    """Neighbouring lines, at most `POINTS` groups of them."""
    return [rows for rows in np.array_split(np.arange(found.updates.size), POINTS) if rows.size]


def _rows(found: meter.Measurements, rows: np.ndarray) -> meter.Measurements:
    return found.part(rows, range(found.counts.shape[1]))


def _curve(axes: Any, x: np.ndarray, estimates: Sequence[Estimate], colour: str, label: str) -> None:
    """A line through the finite values, and a band where the interval is finite; above a log axis it may be open."""
    value, low, high = (np.array([getattr(e, name) for e in estimates]) for name in ("value", "low", "high"))
    kept = np.isfinite(value)
    axes.plot(x[kept], value[kept], "o-", color=colour, markersize=4, linewidth=1.6, label=label)
    top = np.nanmax(value[kept], initial=1.0) * 3.0
    bounded = ~kept & np.isfinite(low)
    axes.plot(x[bounded], low[bounded], "^", color=colour, markersize=6)
    banded = kept & np.isfinite(low)
    axes.fill_between(x[banded], low[banded], np.minimum(high, top)[banded], color=colour, alpha=0.18, linewidth=0)


def _finding(of_rates: Mapping[float, meter.Measurements], options: Mapping[str, Any]) -> str:
    """The noise scale at the beginning and at the end of training, of the first learning rate."""
    found, size, unit = next(iter(of_rates.values())), options["num_episodes"], meter.unit_of(options)
    said = []
    for phase, rows in meter.phases(found, options["num_updates"]).items():
        scale = meter.noise_of(_rows(found, rows), size).noise_scale
        shown = f"{scale.value:.3g} {unit}" if math.isfinite(scale.value) else f"above {scale.low:.3g} {unit}"
        where = phase if phase == meter.WHOLE else f"the {phase.removesuffix(' of the updates')}"
        said.append(f"{shown} in {where}")
    how = registry.find(options["estimator"]).label
    return f"{options['env']}: the noise scale is {' and '.join(said)}; a batch has {size} ({how})"
