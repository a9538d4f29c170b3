"""What do k samples buy? Leave-one-out on three coin flips: every variance exact, and the published gradient −0.0450.

Claim    k samples give each other a baseline at no cost. REINFORCE whose baseline for each sample is the mean of the
         other k − 1 losses is unbiased, and has far less variance than the mean of k samples without a baseline.
Source   Kool, van Hoof & Welling 2019 (Buy 4 REINFORCE samples, get a baseline for free!); Kool, van Hoof & Welling
         2020 (sampling without replacement), whose toy problem this is; the idea is first in Liu, Regier, Tripuraneni,
         Jordan & McAuliffe 2018.
Command  python -m experiments.leave_one_out
Shows    Three bits share one logit η and have the loss f(x) = Σ_i (x_i − p_i)², p = (0.6, 0.51, 0.48). This is a bandit
         of eight arms whose reward is the loss, so ρ(η) = E f, and all printed gradients are ∇E f, which is to be
         descended. The mean and the variance of each estimate, by enumeration of every group of k samples, and from
         1000 draws as in the paper, with standard errors. Beside them stand two constant baselines that are unknown in
         practice: E f and the best constant, b*.
Expect   With leave-one-out the mean is ∇E f for every k, and at η = 0 and k = 2 the variance is a thirtieth of that
         without a baseline. If the mean contains the sample itself, the expected gradient is exactly (k − 1)/k of the
         true one. At η = −4 leave-one-out with two samples has only 7 % more variance than the exact E f as baseline.
         Twelve seconds on two CPU cores.
Departs  Sampling without replacement is left out, because its importance weights are not in the library. A group is
         enumerated as a multiset, since its estimate does not depend on the order. The closed form of a U-statistic
         (Hoeffding 1948) confirms each variance. The plots of the code of 2020 call leave-one-out by another name,
         VIMCO.
"""

import dataclasses

import jax
import numpy as np

from experiments.harness import runner, verdicts
from experiments.harness import targets as papers
from experiments.harness.targets import Digits, Measured, Target
from experiments.leave_one_out.toy import (
    CENTRES,
    LOGITS,
    enumerated,
    kernel_parts,
    problem,
    sampled,
    truth,
    u_statistic_variance,
)

GROUPS = (2, 3, 4)
# Computed independently of this code, by enumeration.
REFERENCE = {
    0.0: {
        "gradient": "−0.045000",
        "loss": "0.76050",
        "none": ("0.43842", "0.21921", "0.14614", "0.10961"),
        "leave_one_out": ("0.007275", "0.003200", "0.0019875"),
        "mean": "0.00465",
        "best": "0.00465",
        "b": "0.76050",
    },
    -4.0: {
        "gradient": "−0.003179",
        "loss": "0.84726",
        "none": ("0.033557", "0.016778", "0.011186", "0.008389"),
        "leave_one_out": ("3.8103e−4", "2.4578e−4", "1.8228e−4"),
        "mean": "7.126e−4",
        "best": "5.353e−4",
        "b": "0.78942",
    },
}
SLIPS = {
    "3.8103e−4": "The exact value is 3.81024697e−4, also with 40 digits; the reference was rounded twice.",
    "5.353e−4": "The exact value is 5.35353086e−4, also with 40 digits; the reference was cut off, not rounded.",
}
GROUP_MEAN = ("0.5000", "0.6667", "0.7500")


def _targets() -> tuple[Target, ...]:
    targets = [Target("gradient", "∇E f, η = 0", Digits(), "−0.0450", "code", headline="∇E f")]
    for logit in LOGITS:
        at, known = f", η = {logit:g}", REFERENCE[logit]

        def add(key, quantity, published, variant=None, headline="", at=at, logit=logit):
            key, quantity, why = f"{key} {logit:g}", quantity + at, SLIPS.get(published, "")
            targets.append(Target(key, quantity, Digits(), published, "own", variant, headline=headline, why=why))

        add("gradient", "∇E f", known["gradient"])
        add("loss", "E f", known["loss"])
        for k, published in enumerate(known["none"], 1):
            add(f"none {k}", f"Var of the estimate, k = {k}", published, "no baseline")
        for k, published in zip(GROUPS, known["leave_one_out"], strict=True):
            headline = "Var, two samples" if logit == 0 and k == 2 else ""
            add(f"leave_one_out {k}", f"Var of the estimate, k = {k}", published, "leave-one-out", headline)
        add("mean", "Var of the estimate, k = 1", known["mean"], "b = E f")
        add("best", "Var of the estimate, k = 1", known["best"], "b = b*")
        add("b", "b*", known["b"])
        quantity = "E[estimate] / ∇E f, at the k where it is farthest from 1"
        targets.append(Target(f"unbiased {logit:g}", quantity + at, Digits(), variant="leave-one-out", exact=1.0))
        for k, published in zip(GROUPS, GROUP_MEAN, strict=True):
            add(f"group {k}", f"E[estimate] / ∇E f, k = {k}", published, "mean with the sample itself (biased)")
    quantity = "Var without a baseline / Var with leave-one-out, k = 2, η = 0"
    targets.append(Target("times", quantity, Digits(), "30", "own"))
    return tuple(targets)


PAPER = papers.Paper(
    citation="Kool, van Hoof & Welling 2019 and 2020, Bernoulli toy",
    claim="The mean loss of the other samples is a baseline at no cost: no bias, and a small part of the variance.",
    targets=_targets(),
    pitfalls=(
        "The plots of the code of 2020 call leave-one-out by the name VIMCO (built-in bl).",
        "If the mean contains the sample itself, every expected gradient is (k − 1)/k of the true one, whatever η is.",
    ),
)


@dataclasses.dataclass(frozen=True)
class Config:
    """The options of this experiment. The results page shows the default sizes, which are the paper's."""

    evaluations: int = 8
    """The greatest number k of evaluations of f for one estimate, which is the largest group."""
    draws: int = 1000
    """How many estimates are drawn for each k. The default is the paper's number."""
    seed: int = 0
    """The seed of the draws; everything else is exact."""

    def validate(self) -> None:
        runner.require(4 <= self.evaluations <= 12, "--evaluations", self.evaluations, "from 4 to 12")
        runner.require(self.draws >= 100, "--draws", self.draws, "at least 100")
        runner.require(0 <= self.seed <= 2**30, "--seed", self.seed, "in [0, 2³⁰]")


TINY = Config(evaluations=4, draws=200)


def measure(found: dict, parts: np.ndarray, known: dict[str, np.ndarray]) -> dict[str, Measured]:
    """Return our numbers by enumeration of the estimator, beside those of dynamic programs and closed forms."""
    measured = {}
    for i, logit in enumerate(LOGITS):
        at, true = f" {logit:g}", {name: float(values[i]) for name, values in known.items()}
        ours = lambda k, name, what, i=i: float(found[k][name][what][i])
        mean = 1 / (1 + np.exp(-logit))
        closed = sum(p**2 + mean * (1 - 2 * p) for p in CENTRES)
        measured["gradient" + at] = Measured(ours(1, "none", "mean"), exact=true["gradient"])
        measured["loss" + at] = Measured(true["loss"], exact=closed)
        measured["b" + at] = Measured(true["b"], exact=true["vertex"])
        for name in ("mean", "best"):
            measured[name + at] = Measured(ours(1, name, "var"), exact=true[f"var {name}"])
        for k in (1, *GROUPS):
            measured[f"none {k}" + at] = Measured(ours(k, "none", "var"), exact=true["var none"] / k)
        for k in GROUPS:
            in_closed_form = float(u_statistic_variance(parts, k)[i])
            measured[f"leave_one_out {k}" + at] = Measured(ours(k, "leave_one_out", "var"), exact=in_closed_form)
            ratio = ours(k, "group", "mean") / true["gradient"]
            measured[f"group {k}" + at] = Measured(ratio, exact=(k - 1) / k)
        ratios = [ours(k, "leave_one_out", "mean") / true["gradient"] for k in found if k > 1]
        measured["unbiased" + at] = Measured(max(ratios, key=lambda ratio: abs(ratio - 1)))
    measured["gradient"] = measured["gradient 0"]
    two, two_without = measured["leave_one_out 2 0"], measured["none 2 0"]
    return measured | {"times": Measured(two_without.value / two.value, exact=two_without.exact / two.exact)}


NAMES = {"none": "no baseline", "leave_one_out": "leave-one-out", "mean": "b = E f", "best": "b = b*"}


def record_draws(draws: dict, curves: dict, gradient: np.ndarray, recorder: runner.Recorder) -> None:
    """Add rows for the smallest and the greatest k, and write every k to the metrics."""
    for k, found in draws.items():
        for name, drawn in found.items():
            for i, logit in enumerate(LOGITS):
                pairs = {
                    "E[estimate]": (drawn.mean[i, 0], drawn.mean_stderr[i, 0], gradient[i]),
                    "Var": (drawn.variance.value[i], drawn.variance.stderr[i], curves[name][i, k - 1]),
                }
                for quantity, (ours, stderr, known) in pairs.items():
                    found_so = {"ours": float(ours), "stderr": float(stderr), "exact": float(known)}
                    about = {"quantity": f"{quantity} by sampling, k = {k}, η = {logit:g}", "variant": NAMES[name]}
                    recorder.metrics(about | found_so)
                    if k in (2, max(draws)):
                        agreed = verdicts.against_exact(**found_so, z=4.5, tiny=verdicts.is_tiny(recorder))
                        recorder.row(**about, **found_so, verdict=agreed)


def run(config: Config, recorder: runner.Recorder) -> dict:
    with jax.enable_x64(True):
        every = problem()
        sizes = range(1, config.evaluations + 1)
        with recorder.timed("enumeration"), recorder.progress(len(sizes), "groups of k", "sizes") as progress:
            known, parts, found = truth(every), kernel_parts(every), {}
            for k in sizes:
                found[k] = enumerated(every, k, known)
                progress.advance(1, f"k = {k}")
        with recorder.timed("sampling"):
            draws = sampled(every, sizes, config.draws, config.seed)
    papers.check(recorder, PAPER, measure(found, parts, known))
    counts = np.arange(1, config.evaluations + 1)
    alone = {name: found[1][name]["var"][:, None] / counts for name in ("none", "mean", "best")}
    others = np.stack([np.full(len(LOGITS), np.nan), *(found[k]["leave_one_out"]["var"] for k in counts[1:])], axis=1)
    curves = alone | {"leave_one_out": others}
    record_draws(draws, curves, known["gradient"], recorder)
    for i, logit in enumerate(LOGITS):
        for name, values in curves.items():
            recorder.metrics({"logit": logit, "baseline": NAMES[name], "variance_of_k": values[i]})
    return {"config": config, "curves": curves, "draws": draws}


def plot(results: dict, recorder: runner.Recorder) -> None:
    from experiments.harness import plots

    config, curves, draws = results["config"], results["curves"], results["draws"]
    times = curves["none"][0, 1] / curves["leave_one_out"][0, 1]
    figure, axes = plots.figure(
        f"Two samples that are each other's baseline have {times:.0f} times less variance than two without a baseline "
        "at η = 0, and no bias",
        f"Lines: exact variances, by enumeration of every group of k samples. Dots: variances of {config.draws} drawn "
        "estimates, with 95 % intervals. b = E f and b = b* are constants that are unknown in practice.",
        columns=2,
        width=12,
        height=4.8,
    )
    colour_of = plots.colours(NAMES)
    counts = np.arange(1, config.evaluations + 1)
    for i, (ax, logit) in enumerate(zip(axes, LOGITS, strict=True)):
        ax.set(yscale="log", xlabel="k, evaluations of f", ylabel="variance of the estimate of ∇E f")
        ax.set_title(
            f"η = {logit:g}, P(x = 1) = {runner.format_number(1 / (1 + np.exp(-logit)), digits=3)}".replace("-", "−"),
            loc="left",
            fontsize=10,
        )
        ends = {}
        for name, values in curves.items():
            style = {"none": "-", "leave_one_out": "-", "mean": "-", "best": (0, (3, 3))}[name]
            ax.plot(counts, values[i], linestyle=style, color=colour_of[name], linewidth=2)
            ends[NAMES[name]] = (counts[-1], values[i, -1], colour_of[name])
        for name in ("none", "leave_one_out"):
            of = [k for k in counts if name in draws[k]]
            found = [jax.tree.map(lambda x: x[i], draws[k][name].variance) for k in of]
            middle, low, high = (np.array([getattr(x, end) for x in found]) for end in ("value", "low", "high"))
            style = {"fmt": "o", "color": colour_of[name], "markersize": 4, "capsize": 3}
            ax.errorbar(of, middle, yerr=(middle - low, high - middle), **style)
        ax.set_xticks(counts)
        ax.set_ylim(bottom=0.7 * np.nanmin([values[i] for values in curves.values()]))
        plots.label_ends(ax, ends)
    recorder.figure(figure, "leave_one_out")
