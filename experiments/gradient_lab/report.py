"""The report of the gradient laboratory: one line for each estimator, its verdict, the table and the two figures."""

import dataclasses

import numpy as np

from experiments.gradient_lab import exact_part as lab_exact
from experiments.gradient_lab import laboratory
from experiments.harness import runner, verdicts
from pgjax import diagnostics
from pgjax.registry import NOT_STATED, Entry


@dataclasses.dataclass(frozen=True)
class Line:
    """The numbers of one estimator. Lengths are relative to that of the target, variances to its square.

    Attributes:
        reference_errors: squared standard errors of the target `[P]`; zero if it is exact.
    """

    entry: Entry
    exact: lab_exact.Exact | None
    found: laboratory.Measured
    target: np.ndarray
    reference_errors: np.ndarray
    ratio: diagnostics.Estimate | None
    gain: tuple[float, float] | None

    @property
    def finite(self) -> bool:
        means = [self.found.statistics.mean] + ([self.exact.mean] if self.exact else [])
        return bool(all(np.isfinite(mean).all() for mean in means) and np.isfinite(self.variance))

    @property
    def vanishes(self) -> bool:
        """Whether the target is zero up to rounding. Lengths are then relative to √tr Var."""
        rounding = 1e-9 * self.variance**0.5 if self.exact is None else self.exact.rounding
        return bool(float(np.linalg.norm(self.target)) <= rounding)

    @property
    def scale(self) -> float:
        return (self.variance or 1.0) if self.vanishes else float(self.target @ self.target)

    @property
    def variance(self) -> float:
        known = self.exact is not None and self.exact.variance is not None
        return self.exact.variance if known else float(self.found.statistics.variance.value)

    @property
    def bias(self) -> float:
        """‖E ∇̂ρ − ∇ρ‖ / ‖∇ρ‖. From a sample, the noise of the sample and of the reference is subtracted first."""
        if self.exact is not None:
            return self._exact_bias / self.scale**0.5
        squared = float(self.found.statistics.squared_bias.value) - self.reference_errors.sum()
        return float(np.maximum(squared, 0.0) ** 0.5 / self.scale**0.5)

    @property
    def _exact_bias(self) -> float:
        return float(np.linalg.norm(self.exact.mean - self.target))

    @property
    def _single(self) -> float:
        """The length that float32, in which policies train, cannot distinguish from zero."""
        statistics = self.found.statistics
        second_moment = float(statistics.variance.value) + float(np.square(statistics.mean).sum())
        return float(8.0 * np.finfo(np.float32).eps * (second_moment + self.target @ self.target) ** 0.5)

    @property
    def _stderr(self) -> np.ndarray:
        sampled = np.sqrt(np.square(self.found.statistics.mean_stderr) + self.reference_errors)
        return np.maximum(sampled, self._single)

    @property
    def z(self) -> float:
        """The largest ratio, over all coordinates, of |bias| to its standard error."""
        return float(np.max(np.abs(self.found.statistics.bias) / self._stderr))

    @property
    def resolution(self) -> float:
        """The smallest relative bias that the sample can show above its noise."""
        return float(5.0 * np.max(self._stderr) / self.scale**0.5)

    @property
    def biased(self) -> bool:
        if self.exact is None:
            return not self.z <= 5.0
        return not self._exact_bias <= max(self._single, self.exact.rounding)

    @property
    def rounded(self) -> bool:
        """Whether the exact mean misses the target by more than its own rounding, but by less than float32 can show.
        The cause is then a constant in float32, and not a bias."""
        return self.exact is not None and not self.biased and self._exact_bias > self.exact.rounding

    def verdict(self) -> str:
        if not self.finite:
            return "NOT FINITE"
        if self.exact is not None and not self.exact.consistent:
            return "DIFFERS: enumeration and what is predicted contradict each other"
        stated = self.entry.bias
        how = "" if self.exact is not None else f" (max |z| {self.z:.1f})"
        if self.biased:
            reason = f": {stated}" if stated != NOT_STATED else ""
            return f"biased{reason}{how}" if stated else f"DIFFERS: claims to be unbiased{how}"
        if self.exact is None:
            return ("stated bias not resolved" if stated not in ("", NOT_STATED) else "no bias seen") + how
        word = "unbiased here" if stated not in ("", NOT_STATED) else "unbiased"
        return f"{word} but for float32's rounding, {self.bias:.0e}" if self.rounded else word

    def bias_cell(self) -> str:
        if not self.finite:
            return "nan"
        if self.exact is None and not self.biased:
            return f"< {self.resolution:.2g}"
        return f"{self.bias:.3g}" if self.biased or self.rounded else "0"


HEADERS = (
    "estimator", "bias", "tr Var", "measured", "÷ first", "cosine", "MSE", "noise scale", "gain", "finding"
)  # fmt: skip


def cells(name: str, line: Line, batch: int) -> list[str]:
    statistics, cosine = line.found.statistics, line.found.cosine
    number = runner.format_number
    return [
        name,
        line.bias_cell(),
        f"{line.exact.variance:.4g}" if line.exact and line.exact.variance is not None else "",
        number(float(statistics.variance.value), float(statistics.variance.stderr)),
        number(float(line.ratio.value), float(line.ratio.stderr)) if line.ratio else "",
        number(float(cosine.value), float(cosine.stderr)),
        f"{line.variance / line.scale + line.bias**2:.3g}",
        f"{batch * line.variance / line.scale:.3g}",
        number(*line.gain) if line.gain else "",
        line.verdict(),
    ]


def exact_number(quantity: str, line: Line, batch: int) -> float | None:
    """A measured quantity computed from the exact mean and variance; None if they do not determine it."""
    if line.exact is None or line.exact.variance is None:
        return None
    signal, variance = float(line.exact.mean @ line.exact.mean), line.exact.variance
    known = {
        "tr Var": variance,
        "mean squared error": variance + float(np.sum(np.square(line.exact.mean - line.target))),
        "signal-to-noise ratio": signal / variance if variance > 0 else None,
        "noise scale (estimates)": variance / signal if signal > 1e-18 * variance else None,
    }
    return known.get(quantity)


def _in_groups(group_size: int) -> str:
    return f", in groups of {group_size} that share a start" if group_size > 1 else ""


def record(
    problem: str, batch: int, first: str, lines: dict[str, Line], recorder: runner.Recorder, group_size: int = 1
) -> None:
    worth = lambda line: -line.gain[0] if line.gain else line.variance / line.scale + line.bias**2
    ordered = dict(sorted(lines.items(), key=lambda item: worth(item[1])))
    shown = [cells(name, line, batch) for name, line in ordered.items()]
    kept = [i for i in range(len(HEADERS)) if any(row[i] for row in shown)]
    order = "gain of one step" if any(line.gain for line in lines.values()) else "smallest mean squared error"
    title = f"{problem}, B = {batch} episodes an estimate{_in_groups(group_size)}; best first, by the {order}"
    headers = [HEADERS[i].replace("first", first) for i in kept]
    recorder.table(title, headers, [[row[i] for i in kept] for row in shown], numeric=headers[1:-1])
    for name, line in lines.items():
        statistics = line.found.statistics
        recorder.row(
            quantity="relative bias", variant=name, ours=line.bias, exact=0.0 if not line.entry.bias else None,
            verdict=verdicts.of_bias(line.verdict(), tiny=verdicts.is_tiny(recorder) and line.exact is None),
        )  # fmt: skip
        for quantity, measured in (
            ("tr Var", statistics.variance),
            ("signal-to-noise ratio", statistics.signal_to_noise),
            ("noise scale (estimates)", statistics.noise_scale),
            ("mean squared error", statistics.mean_squared_error),
            ("cosine", line.found.cosine),
            (f"tr Var / tr Var of {first}, paired", line.ratio),
        ):
            if measured is None:
                continue
            known = exact_number(quantity, line, batch)
            value, stderr = float(measured.value), float(measured.stderr)
            # Below what float32 can tell from zero nothing disagrees.
            rounding = 1e-5 * abs(known or 0.0) + (1e-12 * line.scale if quantity == "tr Var" else 0.0)
            tiny = verdicts.is_tiny(recorder)
            how = {"z": 4.5, "tolerance": rounding, "tiny": tiny}
            agrees = None if known is None else verdicts.against_exact(value, stderr, known, **how)
            recorder.row(
                quantity=quantity,
                variant=name,
                ours=value,
                stderr=stderr,
                exact=known,
                verdict=agrees if quantity == "tr Var" else None,
            )
    if any(line.vanishes for line in lines.values()):
        recorder.note("∇ρ is zero here, so lengths are relative to √tr Var of the estimate.")
    paired = f"The column ÷ {first} is tr Var over that of “{first}”, paired on the same episodes. " if first else ""
    recorder.note(
        f"{paired}The bias is ‖E ĝ − ∇ρ‖/‖∇ρ‖; < x means that a bias below x could not be seen. MSE is the mean "
        "squared error over ‖∇ρ‖². The noise scale is the number of episodes at which noise equals signal. The gain "
        "is that of ρ by one step of the best size. The number after ± is one standard error. The natural gradient is "
        "compared with F⁺∇ρ. `python -m experiments.estimators` lists the names that --estimator takes."
    )
    if any(line.exact for line in lines.values()):
        recorder.note(
            "v and q are the oracle's Vₜ and Qₜ, averaged over the visits of a state; with this average “all actions, "
            "q” is unbiased. With a subscript t they depend on the time that is left."
        )


def plot_plane(
    problem: str, batch: int, lines: dict[str, Line], recorder: runner.Recorder, group_size: int = 1
) -> None:
    """Draw the relative squared bias against the relative variance; unbiased estimators are at the left edge."""
    from experiments.harness import plots

    variances = {name: line.variance / line.scale for name, line in lines.items() if line.finite and line.variance > 0}
    if not variances:
        return
    biases = {name: lines[name].bias ** 2 for name in variances if lines[name].biased and lines[name].bias > 0}
    edge = min([*biases.values(), 0.1]) / 30
    unbiased = {name: variance for name, variance in variances.items() if name not in biases}
    sure = all(line.exact is not None for line in lines.values())
    title = f"{len(unbiased)} of {len(variances)} estimators {'are unbiased' if sure else 'show no bias'}"
    if unbiased:
        quietest, noisiest = (choose(unbiased, key=unbiased.get) for choose in (min, max))
        ratio = unbiased[noisiest] / unbiased[quietest]
        title += f"; “{quietest}” has 1/{ratio:.3g} of the variance of “{noisiest}”"
    caption = (
        f"{problem}, B = {batch}{_in_groups(group_size)}. Dots at the left edge have no bias; crosses are biased. "
        "Dashed lines join equal mean squared errors, variance plus squared bias."
    )
    figure, axes = plots.figure(title, caption, width=10.0, height=7.5)
    axes.set(xscale="log", yscale="log", xlabel="squared bias, relative to ‖∇ρ‖²")
    axes.set_ylabel("total variance of one estimate, relative to ‖∇ρ‖²")
    low, high = min(variances.values()) / 3, max(variances.values()) * 3
    axes.set(xlim=(edge / 1.6, max([*biases.values(), 1.0]) * 300), ylim=(low, high))
    for level in 10.0 ** np.arange(np.floor(np.log10(low)), np.ceil(np.log10(high)) + 1):
        x = np.geomspace(edge / 1.6, level * (1 - 1e-9), 300)
        axes.plot(x, level - x, "--", color=plots.GREY, linewidth=0.6, zorder=1)
    ticks = 10.0 ** np.arange(np.ceil(np.log10(edge * 3)), np.log10(max([*biases.values(), 1.0])) + 1)
    axes.set_xticks([edge, *ticks], ["0", *(f"{tick:g}" for tick in ticks)])
    axes.minorticks_off()
    points = {name: (biases.get(name, edge), variance) for name, variance in variances.items()}
    plots.labelled_points(axes, points, {name: "X" if name in biases else "o" for name in points})
    recorder.figure(figure, "bias_variance")


def plot_batches(problem: str, lines: dict[str, Line], curves: dict[str, list], recorder: runner.Recorder) -> None:
    """Draw the total variance against B, with the line 1/B of each estimator."""
    from experiments.harness import plots

    falls = {name: (rows[0][1] / max(rows[-1][1], 1e-30)) for name, rows in curves.items()}
    ideal = next(iter(curves.values()))
    expected = ideal[-1][0] / ideal[0][0]
    slow = max(falls, key=lambda name: abs(np.log(falls[name] / expected)))
    title = f"{expected:.0f} times the episodes: variance falls by {expected:.0f}; for “{slow}” by {falls[slow]:.3g}"
    caption = f"{problem}. Bars are 95 % intervals. Dashed lines fall as 1/B from the first point of each."
    figure, axes = plots.figure(title, caption, width=9.0, height=5.2)
    axes.set(xscale="log", yscale="log", xlabel="B, episodes of one estimate")
    axes.set_ylabel("total variance of the estimate")
    colour_of = plots.colours(curves)
    for name, rows in curves.items():
        sizes, values, low, high = map(np.array, zip(*rows, strict=True))
        known = lines[name].exact
        start = known.variance if known else values[0]
        axes.plot(sizes, start * sizes[0] / sizes, "--", color=colour_of[name], linewidth=1)
        axes.errorbar(sizes, values, yerr=(values - low, high - values), fmt="o", color=colour_of[name], capsize=3)
    ends = {name: (rows[-1][0], rows[-1][1], colour_of[name]) for name, rows in curves.items()}
    axes.set_xticks([row[0] for row in ideal], [str(row[0]) for row in ideal])
    axes.minorticks_off()
    plots.label_ends(axes, ends)
    recorder.figure(figure, "variance_against_batch")
