"""The figure of the gradient meter: noise scale and cosine over a training. Axes: N lines of the log."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments.harness import figure_data, runner
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
    bands = plots.bands(num_runs, "seeds", "intervals") if num_runs > 1 else "95 % t intervals over the measurements"
    figure, (above, below) = plots.figure(
        _finding(of_rates, options),
        f"Means over {num_runs} seed{'s' * (num_runs > 1)}; {bands}. The noise scale tr Σ / ‖g‖² is the number of "
        f"{unit} at which noise and signal of a gradient are equal. An upright line without a point is its interval "
        "where the signal is not resolved, and one that reaches the upper edge has no upper bound, or one beyond the "
        "edge. Below: the cosine between the gradients of the two halves of one batch.",
        rows=2,
        width=7.5,
        height=6.0,
    )
    above.set(yscale="log", xlabel="update", ylabel=f"noise scale in {unit}")
    below.set(xlabel="update", ylabel="cosine of two halves", ylim=(-1.05, 1.05))
    for axes in (above, below):
        axes.set_xlim(0, options["num_updates"])
    colour_of = plots.colours([f"lr {rate:g}" for rate in of_rates])
    noise = {
        rate: [meter.noise_of(_rows(found, rows), size) for rows in _bins(found)] for rate, found in of_rates.items()
    }
    above.set_ylim(_limits([[n.noise_scale for n in at] for at in noise.values()], size))
    for rate, at in noise.items():
        found, label = of_rates[rate], f"lr {rate:g}"
        x = np.array([found.updates[rows].mean() for rows in _bins(found)])
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
    """A line through the finite values, broken where there is none, and an upright line for each interval.

    An interval without an upper bound is drawn to the upper edge. The data file has its true bounds.
    """
    value, low, high = (np.array([getattr(e, name) for e in estimates], float) for name in ("value", "low", "high"))
    axes.plot(
        x, np.where(np.isfinite(value), value, np.nan), "o-", color=colour, markersize=4, linewidth=1.6, label=label
    )
    shown = np.isfinite(low)
    edge = axes.get_ylim()[1]
    bars = axes.vlines(x[shown], low[shown], np.minimum(high[shown], edge), color=colour, alpha=0.5, linewidth=1.2)
    figure_data.remember(bars, label, x[shown], low[shown], high[shown])


def _limits(of_rates: Sequence[Sequence[Estimate]], size: int) -> tuple[float, float]:
    """The ends of the logarithmic axis: all values, the size of the batch, and bounds up to 30 times as far."""
    values = np.array([e.value for estimates in of_rates for e in estimates] + [size], float)
    values = values[np.isfinite(values) & (values > 0)]
    bounds = np.array([b for estimates in of_rates for e in estimates for b in (e.low, e.high)], float)
    near = bounds[np.isfinite(bounds) & (bounds > values.min() / 30) & (bounds < values.max() * 30)]
    shown = np.concatenate([values, near])
    return shown.min() / 2, shown.max() * 2


def _finding(of_rates: Mapping[float, meter.Measurements], options: Mapping[str, Any]) -> str:
    """The noise scale at the beginning and at the end of training, of the first learning rate."""
    found, size, unit = next(iter(of_rates.values())), options["num_episodes"], meter.unit_of(options)
    said = []
    for phase, rows in meter.phases(found, options["num_updates"]).items():
        scale = meter.noise_of(_rows(found, rows), size).noise_scale
        shown = meter.unresolved(scale.value)
        if math.isfinite(scale.value):
            shown = f"{scale.value:.3g} {unit}"
        elif math.isfinite(scale.low):
            shown = f"above {scale.low:.3g} {unit}"
        where = phase if phase == meter.WHOLE else f"the {phase.removesuffix(' of the updates')}"
        said.append(f"{shown} in {where}")
    how = registry.find(options["estimator"]).label
    return f"{options['env']}: the noise scale is {' and '.join(said)}; a batch has {size} ({how})"
