"""What the gradient meter found in a training (`--meter N`): a table, and a sentence about the size of the batch.

    signal-to-noise ratio = ‖E ḡ‖² / tr Var ḡ,    noise scale = tr Σ / ‖g‖² = B tr Var ḡ / ‖E ḡ‖²

ḡ is the gradient of one batch of B episodes, g = E ḡ, and Σ is the covariance of one episode's share of ḡ. Both parts
of a ratio are unbiased in each measurement. They are averaged over measurements before the ratio is taken, because the
mean of ratios would be biased.

Source: McCandlish et al. 2018, equations 2.8 and 2.9, and appendix A.1. Axes: N lines of the log, S runs.
"""

import json
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from experiments.harness import runner
from experiments.train.thinning import MEASURED, METER
from pgjax import diagnostics, registry
from pgjax.diagnostics import Estimate

WHOLE = "all measured updates"
# The numbers of a measurement, and the range in which the number that each of them estimates must lie.
BOUNDS = {"variance": (0.0, math.inf), "squared_norm": (0.0, math.inf), "half_cosine": (-1.0, 1.0)}
NAMES = tuple(BOUNDS)
MISSED = "the parts of a batch then depend on each other, and the numbers here miss that dependence."


def only_measured(metrics: Mapping[str, np.ndarray], done: int, every: int | None) -> dict[str, np.ndarray]:
    """The metrics `[S, n]` of the updates after `done`, with NaN for the meter in updates that it did not measure.

    They are NaN already, except while `jax_debug_nans` forbids NaN and the trainer writes 0.
    """
    if not every:
        return dict(metrics)
    skipped = np.arange(done, done + metrics["num_steps"].shape[1]) % every != 0
    blank = lambda x: np.where(skipped, np.nan, x)
    return {name: blank(x) if name.startswith(METER) else x for name, x in metrics.items()}


class Measurements(NamedTuple):
    """The measurements of S runs in the N lines of a log that hold one.

    Attributes:
        updates: the update of each line, `[N]`.
        counts: the number of measurements in a line, `[N, S]`.
        sums: name → the sum over these measurements, `[N, S]`.
    """

    updates: np.ndarray
    counts: np.ndarray
    sums: Mapping[str, np.ndarray]

    def part(self, rows: np.ndarray, runs: Sequence[int]) -> "Measurements":
        """The measurements of the lines `rows` and of `runs`."""
        cut = lambda x: x[rows][:, runs]
        sums = {name: cut(x) for name, x in self.sums.items()}
        return Measurements(updates=self.updates[rows], counts=cut(self.counts), sums=sums)


def read(path: pathlib.Path) -> Measurements | None:
    """The measurements in a `metrics.jsonl`; None if there are none."""
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    lines = [line for line in lines if any(line.get(MEASURED) or ())]
    if not lines:
        return None
    counts = np.array([line[MEASURED] for line in lines], float)
    means = {name: np.array([line[METER + name] for line in lines], float) for name in NAMES}
    return Measurements(
        updates=np.array([line["update"] for line in lines]),
        counts=counts,
        sums={name: np.where(counts > 0, mean * counts, 0.0) for name, mean in means.items()},
    )


class Noise(NamedTuple):
    """The noise of the gradient in a part of a training; each is an `Estimate`, whose interval is in the known range.

    Attributes:
        signal_to_noise: ‖E ḡ‖² / tr Var ḡ; NaN where every gradient is 0, which has neither signal nor noise.
        noise_scale: tr Σ / ‖g‖² in episodes; ∞ where the signal is not above 0, NaN where every gradient is 0. `low`
            and `high` are those of the signal-to-noise ratio, inverted, and `high` is ∞ if that ratio may be 0.
        means: name → its mean, for the names of `NAMES`. Gradients of 0 have no direction, so the cosine leaves out the
            lines of the log whose gradients are all 0; it is NaN if there are no others.
    """

    signal_to_noise: Estimate
    noise_scale: Estimate
    means: Mapping[str, Estimate]


def noise_of(found: Measurements, num_episodes: int) -> Noise:
    """The noise in all measurements together. Intervals are over runs, or over the lines of a single run."""
    over = 1 if found.counts.shape[1] == 1 else 0
    counts = found.counts.sum(axis=over)
    kept = counts > 0
    sums = {name: x.sum(axis=over)[kept] for name, x in found.sums.items()}
    pointing = (found.sums["variance"] != 0) | (found.sums["squared_norm"] != 0)
    of = dict.fromkeys(NAMES, counts[kept]) | {"half_cosine": (found.counts * pointing).sum(axis=over)[kept]}
    means = {name: _ratio(x, of[name], BOUNDS[name]) for name, x in sums.items()}
    snr = _ratio(sums["squared_norm"], sums["variance"], (0.0, math.inf))
    scale_at = lambda ratio: math.nan if math.isnan(ratio) else num_episodes / ratio if ratio > 0 else math.inf
    scale = Estimate(
        value=scale_at(snr.value),
        stderr=num_episodes * snr.stderr / snr.value**2 if snr.value > 0 else abs(scale_at(snr.value)),
        low=scale_at(snr.high),
        high=scale_at(snr.low),
    )
    return Noise(signal_to_noise=snr, noise_scale=scale, means=means)


def _ratio(above: np.ndarray, below: np.ndarray, bounds: tuple[float, float]) -> Estimate:
    """Σ_i a_i / Σ_i b_i ∈ `bounds` with the jackknife's standard error and a t interval; one unit shows no spread.

    A unit with a_i = b_i = 0 says nothing about the ratio and is left out.
    """
    kept = (above != 0) | (below != 0)
    above, below = above[kept], below[kept]
    count = above.size
    if not count:
        return Estimate(*(math.nan,) * 4)
    with np.errstate(divide="ignore", invalid="ignore"):
        value = float(above.sum() / below.sum())
        left = (above.sum() - above) / (below.sum() - below)
    stderr = float(np.sqrt((count - 1) * np.var(left))) if count > 1 else math.nan
    found = diagnostics.t_interval(value, stderr, max(count - 1, 1), bounds=bounds)
    return Estimate(*map(float, found))


def phases(found: Measurements, num_updates: int) -> dict[str, np.ndarray]:
    """The lines of the first and of the last third of the updates, or all lines if there are few: name → bool `[N]`."""
    first, last = found.updates <= num_updates / 3, found.updates > 2 * num_updates / 3
    if first.sum() < 2 or last.sum() < 2:
        return {WHOLE: np.ones(found.updates.shape, bool)}
    return {"first third of the updates": first, "last third of the updates": last}


def report(options: Mapping[str, Any], good: Sequence[int], rates: np.ndarray, recorder: runner.Recorder) -> dict:
    """Record rows, a table and notes on the measurements in the log, of the runs that did not fail.

    Returns:
        η → its measurements, for the figure; empty if nothing was measured.
    """
    found = read(recorder.metric_log().log.path) if options.get("meter") else None
    if found is None:
        return {}
    lines, of_rates, size = [], {}, options["num_episodes"]
    for rate in options["lr"]:
        runs = [run for run in good if rates[run] == np.float32(rate)]
        if not runs:
            continue
        of_rates[rate] = found.part(np.ones(found.updates.shape, bool), runs)
        at = f"lr {rate:g}, " if len(options["lr"]) > 1 else ""
        for phase, rows in phases(found, options["num_updates"]).items():
            noise = noise_of(found.part(rows, runs), size)
            lines += _lines(noise, at + phase, unit_of(options), recorder)
        recorder.note(sentence(noise, size, at + phase, unit_of(options)))
    headers = ["quantity", "updates", "value ± s.e.", "95 % interval"]
    recorder.table("Noise of the gradient", headers, lines, numeric=headers[2:])
    recorder.note(how_to_read(options, len(good)))
    return of_rates


def unit_of(options: Mapping[str, Any]) -> str:
    """What a batch consists of: windows of the environments side by side, or complete episodes."""
    return "episodes" if options["num_steps"] is None else "windows"


def _lines(noise: Noise, where: str, unit: str, recorder: runner.Recorder) -> list[tuple[str, str, str, str]]:
    quantities = {
        "signal-to-noise ratio of a batch, ‖E ḡ‖² / tr Var ḡ": noise.signal_to_noise,
        f"noise scale in {unit}, tr Σ / ‖g‖²": noise.noise_scale,
        "variance of a batch gradient, tr Var ḡ": noise.means["variance"],
        "squared norm of the mean gradient, ‖E ḡ‖²": noise.means["squared_norm"],
        "cosine between the gradients of two halves of a batch": noise.means["half_cosine"],
    }
    lines = []
    for quantity, found in quantities.items():
        finite = math.isfinite(found.value)
        recorder.row(
            quantity=quantity,
            variant=where,
            ours=found.value if finite else None,
            stderr=found.stderr if math.isfinite(found.stderr) else None,
        )
        shown = runner.format_number(found.value, found.stderr) if finite else unresolved(found.value)
        lines.append((quantity, where, shown, _interval(found)))
    return lines


def unresolved(value: float) -> str:
    """What stands for a number that is not finite."""
    return "undefined (every gradient is 0)" if math.isnan(value) else "not resolved"


def _interval(found: Estimate) -> str:
    if math.isinf(found.high) and math.isfinite(found.low):
        return f"above {found.low:.3g}"
    return runner.format_interval(found.low, found.high) if math.isfinite(found.low) else ""


def sentence(noise: Noise, size: int, where: str, unit: str) -> str:
    """What the noise scale says about a batch of `size` episodes (or another unit), in plain words."""
    scale, batch = noise.noise_scale, f"Over {WHOLE}, " if where == WHOLE else f"In the {where}, "
    batch += f"a batch of {size} {unit}"
    if math.isnan(scale.value):
        return f"{batch} has gradients of 0 only, which have no noise scale: the estimator gives all actions weight 0."
    if not math.isfinite(scale.value):
        least = f" It is above {scale.low:.3g} {unit}." if math.isfinite(scale.low) else ""
        return f"{batch} does not show the signal of the gradient: the noise scale is not resolved.{least}"
    ratio, between = scale.value / size, _interval(scale)
    if math.isfinite(scale.high):
        between = f"{scale.low:.3g} to {scale.high:.3g}"
    of = f"the noise scale of {scale.value:.3g} {unit}" + (f" (95 % interval: {between})" if between else "")
    if not (scale.low > size or scale.high < size):
        return (
            f"{batch} is {'smaller' if ratio >= 1 else 'larger'} than {of}, but the interval holds {size}: whether a "
            "gradient is more signal or more noise is not resolved. More measurements (a smaller --meter) narrow it."
        )
    # A step of the best length gains 1 / (1 + noise scale / B) of what the exact gradient gains (their equation 2.7).
    if ratio >= 1:
        return (
            f"{batch} is {ratio:.3g} times smaller than {of}. A gradient is more noise than signal: with steps of the "
            f"best length, a batch twice as large would gain {(1 + ratio) / (1 + ratio / 2):.3g} times as much a step."
        )
    return (
        f"{batch} is {1 / ratio:.3g} times larger than {of}. A gradient is more signal than noise: with steps of the "
        f"best length, half the batch would gain {(1 + ratio) / (1 + 2 * ratio):.3g} times as much a step."
    )


def how_to_read(options: Mapping[str, Any], num_runs: int) -> str:
    """A note that says which gradient was measured, what ± means, and where the numbers are biased."""
    of_units = "over runs" if num_runs > 1 else "over the measurements of one run, and says nothing about other seeds"
    said = [
        f"The meter measured ḡ, the policy's gradient from one batch, at one of every {options['meter']} updates: with "
        "the weights, the rewards and the entropy bonus of the training, and before --max-grad-norm. Σ is the "
        "covariance of one episode's share of ḡ, and g is E ḡ. A batch as large as the noise scale has as much noise "
        "as signal (McCandlish et al. 2018). That holds for plain gradient ascent; Adam rescales each parameter.",
        f"The number after ± is a standard error {of_units}. Intervals are those of Student's t, and end where the "
        "number cannot lie: below 0, or for a cosine outside −1 to 1. The estimate of ‖E ḡ‖² has no bias, so it is "
        "sometimes negative.",
    ]
    if options["epochs"] > 1:
        said.append(f"ḡ is the gradient of the first of the {options['epochs']} epochs of each batch.")
    if registry.find(options["estimator"]).is_own:
        said.append(f"If the weights of your estimator depend on the whole batch: {MISSED}")
    elif _shares_weights(options):
        said.append(f"The weights of this estimator depend on the whole batch: {MISSED}")
    return " ".join(said)


def _shares_weights(options: Mapping[str, Any]) -> bool:
    """Whether the weight of an episode depends on episodes of other parts of the batch."""
    entry = registry.find(options["estimator"])
    in_groups = entry.compares and options["group_size"] > 1
    over_batch = options["standardise"] == "population" or options["over_time"] == "mean"
    return over_batch or (entry.joint and not in_groups)
