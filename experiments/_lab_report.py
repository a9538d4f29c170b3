"""What the gradient laboratory shows: one line for each estimator, its verdict, the table and the two figures."""

import dataclasses

import numpy as np

from experiments import _catalogue as catalogue
from experiments import _laboratory as laboratory
from experiments import _runner as runner
from pgjax import diagnostics


@dataclasses.dataclass(frozen=True)
class Line:
    """One estimator's numbers; lengths are relative to the target's, variances to its square."""

    entry: catalogue.Entry
    exact: laboratory.Exact | None
    found: laboratory.Measured
    target: np.ndarray
    reference_error: float
    ratio: diagnostics.Estimate | None
    gain: tuple[float, float] | None

    @property
    def scale(self) -> float:
        return float(self.target @ self.target)

    @property
    def bias(self) -> float:
        """‖E ∇̂ρ − ∇ρ‖ / ‖∇ρ‖; without enumeration, corrected for both samples' noise and zero where they explain it."""
        if self.exact is not None:
            return float(np.linalg.norm(self.exact.mean - self.target)) / self.scale**0.5
        squared = float(self.found.statistics.squared_bias.value) - self.reference_error
        return max(squared, 0.0) ** 0.5 / self.scale**0.5

    @property
    def z(self) -> float:
        """The largest |bias| over its standard error of any coordinate."""
        statistics = self.found.statistics
        stderr = np.sqrt(np.square(statistics.mean_stderr) + self.reference_error / len(self.target))
        return float(np.max(np.abs(statistics.bias) / np.maximum(stderr, 1e-12)))

    @property
    def variance(self) -> float:
        return self.exact.variance if self.exact is not None else float(self.found.statistics.variance.value)

    @property
    def biased(self) -> bool:
        return self.bias > 1e-9 if self.exact is not None else self.z > 5.0

    def verdict(self) -> str:
        how = "" if self.exact is not None else f" (max |z| {self.z:.1f})"
        if self.entry.bias == "not stated":
            return ("biased" if self.biased else "unbiased") + how
        if not self.biased:
            return ("unbiased here" if self.entry.bias else "unbiased") + how
        return f"biased: {self.entry.bias}" if self.entry.bias else f"DIFFERS: claims to be unbiased{how}"


HEADERS = (
    "estimator", "bias", "tr Var", "measured", "÷ first", "cosine", "MSE", "noise scale", "gain", "verdict"
)  # fmt: skip


def cells(name: str, line: Line, batch: int) -> list[str]:
    statistics, cosine = line.found.statistics, line.found.cosine
    number = runner.format_number
    relative = lambda x: f"{x:.3g}" if x > 1e-9 else "0"
    return [
        name,
        relative(line.bias),
        f"{line.exact.variance:.4g}" if line.exact else "",
        number(float(statistics.variance.value), float(statistics.variance.stderr)),
        number(float(line.ratio.value), float(line.ratio.stderr)) if line.ratio else "",
        f"{float(cosine.value):.3f}",
        f"{line.variance / line.scale + line.bias**2:.3g}",
        f"{batch * line.variance / line.scale:.3g}",
        number(*line.gain) if line.gain else "",
        line.verdict(),
    ]


def record(problem: str, batch: int, first: str, lines: dict[str, Line], recorder: runner.Recorder) -> None:
    worth = lambda line: -line.gain[0] if line.gain else line.variance / line.scale + line.bias**2
    ordered = dict(sorted(lines.items(), key=lambda item: worth(item[1])))
    shown = [cells(name, line, batch) for name, line in ordered.items()]
    kept = [i for i in range(len(HEADERS)) if any(row[i] for row in shown)]
    order = "gain of one step" if any(line.gain for line in lines.values()) else "smallest mean squared error"
    title = f"{problem}, B = {batch} episodes an estimate; best first, by the {order}"
    headers = [HEADERS[i].replace("first", first) for i in kept]
    recorder.table(title, headers, [[row[i] for i in kept] for row in shown])
    for name, line in lines.items():
        statistics = line.found.statistics
        recorder.row(
            quantity="relative bias", variant=name, ours=line.bias, exact=0.0 if not line.entry.bias else None,
            verdict=line.verdict(),
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
            known = line.exact.variance if quantity == "tr Var" and line.exact else None
            agrees = known and runner.verdict(float(measured.value), float(measured.stderr), known, z=4.5)
            recorder.row(
                quantity=quantity,
                variant=name,
                ours=float(measured.value),
                stderr=float(measured.stderr),
                exact=known,
                verdict=agrees or None,
            )
    recorder.note(
        f"÷ {first}: tr Var over that of “{first}”, paired on the same episodes; bias = ‖E ĝ − ∇ρ‖/‖∇ρ‖; MSE = (tr Var "
        "+ bias²)/‖∇ρ‖²; noise scale: episodes at which noise equals signal; "
        "gain of ρ by one step of the best size; ± is one standard error. The natural gradient is held against F⁺∇ρ."
    )


def plot_plane(problem: str, batch: int, lines: dict[str, Line], recorder: runner.Recorder) -> None:
    """Relative bias² against relative variance; the unbiased stand on the left edge."""
    from experiments import _plots as plots

    variances = {name: line.variance / line.scale for name, line in lines.items() if line.variance > 0}
    biases = {name: lines[name].bias ** 2 for name in variances if lines[name].biased and lines[name].bias > 0}
    edge = min([*biases.values(), 0.1]) / 30
    unbiased = {name: variance for name, variance in variances.items() if name not in biases}
    title = f"{len(unbiased)} of {len(variances)} estimators are unbiased"
    if unbiased:
        quietest, noisiest = (choose(unbiased, key=unbiased.get) for choose in (min, max))
        ratio = unbiased[noisiest] / unbiased[quietest]
        title += f"; “{quietest}” has 1/{ratio:.3g} of the variance of “{noisiest}”"
    caption = (
        f"{problem}, B = {batch}. Dots, at the left edge: no bias. Crosses: biased. Dashed lines join "
        "equal mean squared errors, variance plus squared bias."
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
    """Total variance against B, with the 1/B line of each."""
    from experiments import _plots as plots

    falls = {name: (rows[0][1] / max(rows[-1][1], 1e-30)) for name, rows in curves.items()}
    ideal = next(iter(curves.values()))
    expected = ideal[-1][0] / ideal[0][0]
    slow = max(falls, key=lambda name: abs(np.log(falls[name] / expected)))
    title = f"{expected:.0f} times the episodes: variance falls by {expected:.0f}; for “{slow}” by {falls[slow]:.3g}"
    caption = f"{problem}; 95 % intervals. Dashed: 1/B from the first point of each."
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
