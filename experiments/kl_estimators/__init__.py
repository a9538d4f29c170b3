"""Which estimate of a KL divergence? The bias and spread of Schulman's three, exactly, and what their gradients do.

Claim    From x ~ q and r = p(x)/q(x), KL(q ‖ p) is estimated by k1 = −ln r, which is unbiased and noisy; by k2 = (ln
         r)²/2, which has little bias and little noise; and by k3 = (r − 1) − ln r, which is unbiased, never negative,
         and as quiet as k2. k3 is k1 with a control variate.
Source   Schulman 2020 (Approximating KL divergence, a blog post).
Command  python -m experiments.kl_estimators
Shows    The post's table for q = N(0, 1) and p = N(μ, 1), μ = 0.1 and 1: bias and standard deviation of k1, k2 and k3,
         divided by the KL, by Gauss–Hermite quadrature. Beside each number stand a closed form and a sample. Then what
         happens when the estimates are used, by enumeration of four actions: E∇k as a loss, with the samples held
         fixed, and −β k as a reward of the score function. Both are compared with ∇KL(π ‖ ref), which comes from
         differentiating the divergence.
Expect   The published table, digit for digit. As a loss, k1 has the gradient 0, k2 has the right gradient, and k3 has
         the gradient of the other divergence, KL(ref ‖ π). As a reward, k1 is right, and k2 and k3 are wrong. The
         advantage of k3 holds for small divergences: beyond μ ≈ 1.12, a KL of 0.63 nats, it is noisier than k1. Six
         seconds on two CPU cores.
Departs  The post sampled its numbers (ten million draws, as we remember; `--full` does the same). Here they are
         integrals, and the sample is a check. The facts about gradients are not in the post. Public code goes wrong
         there: k1 as a loss does nothing, and the loss of GRPO uses k3, whose gradient is not that of the KL which the
         papers write.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from experiments.harness import runner, verdicts
from experiments.harness import targets as papers
from experiments.harness.targets import Digits, Measured, Target
from experiments.kl_estimators.uses import ESTIMATORS, by_quadrature, by_sampling, divergence, gradients, in_closed_form

MEANS = (0.1, 1.0)
# (bias, standard deviation) / KL as printed, and to more digits by an independent quadrature.
PUBLISHED = {
    0.1: {"k1": ("0", "20"), "k2": ("0.002", "1.42"), "k3": ("0", "1.42")},
    1.0: {"k1": ("0", "2"), "k2": ("0.25", "1.73"), "k3": ("0", "1.7")},
}
REFERENCE = {
    0.1: {"k1": (None, "20.000"), "k2": ("0.0025", "1.4177"), "k3": (None, "1.4166")},
    1.0: {"k1": (None, "2.000"), "k2": ("0.2500", "1.7321"), "k3": (None, "1.6950")},
}
DIVERGENCE = {0.1: "0.005", 1.0: "0.5"}
WORDS = ("bias", "standard deviation")
DISTANCE = "‖{} − {}‖ / ‖∇KL(π ‖ ref)‖"
GRADIENTS = {
    "k1 loss": "‖E∇k1‖ / ‖∇KL(π ‖ ref)‖",
    "k2 loss": DISTANCE.format("E∇k2", "∇KL(π ‖ ref)"),
    "k3 loss": DISTANCE.format("E∇k3", "∇KL(ref ‖ π)"),
    "k1 reward": DISTANCE.format("score function with −β k1, / −β", "∇KL(π ‖ ref)"),
}


def _targets() -> tuple[Target, ...]:
    targets = []
    for mean in MEANS:
        targets.append(Target(f"kl {mean:g}", f"KL(q ‖ p), μ = {mean:g}", Digits(), DIVERGENCE[mean], "card"))
        for name in ESTIMATORS:
            for word, printed, known in zip(WORDS, PUBLISHED[mean][name], REFERENCE[mean][name], strict=True):
                key, quantity = f"{name} {word} {mean:g}", f"{word} of {name} / KL, μ = {mean:g}"
                headline = f"std of {name} / KL, μ = .1" if (word, mean) == (WORDS[1], 0.1) else ""
                targets.append(Target(key, quantity, Digits(), printed, "card", "as printed", headline=headline))
                if known is not None:
                    targets.append(Target(f"{key} digits", quantity, Digits(), known, "own", "more digits"))
    for key, quantity in GRADIENTS.items():
        targets.append(Target(key, quantity, Digits(), exact=0.0, headline="E∇k2 off ∇KL" if key == "k2 loss" else ""))
    targets.append(Target("k3 wrong", DISTANCE.format("E∇k3", "∇KL(π ‖ ref)"), Digits()))
    return tuple(targets)


PAPER = papers.Paper(
    citation="Schulman 2020, Approximating KL divergence",
    claim="k3 is unbiased like k1 and has the low variance of k2.",
    targets=_targets(),
    pitfalls=(
        "k1 as a loss does nothing: E∇k1 = E∇ ln π = 0. It belongs in the reward.",
        "GRPO's loss uses k3. Its mean value is KL(π ‖ ref), and its mean gradient is that of KL(ref ‖ π).",
    ),
)


@dataclasses.dataclass(frozen=True)
class Config:
    """The options of this experiment. The results page shows the default sizes."""

    draws: int = 1_000_000
    """How many samples are drawn to check the integrals."""
    nodes: int = 64
    """How many nodes the Gauss–Hermite quadrature has."""
    full: bool = False
    """Use ten million samples, which is the post's number as far as we remember."""
    seed: int = 0
    """The seed of the samples; the integrals and gradients do not depend on it."""

    def validate(self) -> None:
        runner.require(self.draws >= 1000, "--draws", self.draws, "at least 1000")
        runner.require(40 <= self.nodes <= 200, "--nodes", self.nodes, "from 40 to 200")
        runner.require(0 <= self.seed <= 2**30, "--seed", self.seed, "in [0, 2³⁰]")
        papers.full_size(self, {"draws": 10_000_000})


TINY = Config(draws=20_000)


def away(found: dict[str, np.ndarray], name: str, target: str = "forward") -> float:
    """Return the distance of a gradient from another, by default ∇KL(π ‖ ref), over the length of ∇KL(π ‖ ref)."""
    return float(np.linalg.norm(found[name] - found[target]) / np.linalg.norm(found["forward"]))


def distances(found: dict[str, np.ndarray]) -> dict[str, float]:
    """Return the relative distance from ∇KL(π ‖ ref) of every estimate in every use."""
    return {f"{name} {use}": away(found, f"{name} {use}") for use in ("loss", "reward") for name in ESTIMATORS}


def measure(table: np.ndarray, found: dict[str, np.ndarray]) -> dict[str, Measured]:
    known, measured = in_closed_form(np.array(MEANS)), {}
    for m, mean in enumerate(MEANS):
        measured[f"kl {mean:g}"] = Measured(float(divergence(jnp.asarray(mean))), exact=mean**2 / 2)
        for i, name in enumerate(ESTIMATORS):
            for j, word in enumerate(WORDS):
                key, ours = f"{name} {word} {mean:g}", Measured(table[j, i, m], exact=known[j, i, m])
                measured[key] = ours
                if REFERENCE[mean][name][j] is not None:
                    measured[f"{key} digits"] = ours
    measured["k1 loss"] = Measured(float(np.linalg.norm(found["k1 loss"]) / np.linalg.norm(found["forward"])))
    measured["k3 loss"] = Measured(away(found, "k3 loss", "backward"))
    for key in ("k2 loss", "k1 reward"):
        measured[key] = Measured(away(found, key))
    return measured | {"k3 wrong": Measured(away(found, "k3 loss"), exact=away(found, "backward"))}


def record(config: Config, table: np.ndarray, known: np.ndarray, found: dict, recorder: runner.Recorder) -> None:
    """Record what is not in the post: the sample, and k2 and k3 as rewards."""
    values, errors = by_sampling(MEANS, config.draws, config.seed)
    for m, mean in enumerate(MEANS):
        for i, name in enumerate(ESTIMATORS):
            for j, word in enumerate(WORDS):
                ours, stderr, true = (float(x[j, i, m]) for x in (values, errors, known))
                recorder.row(
                    quantity=f"{word} of {name} / KL, μ = {mean:g}",
                    variant=f"{config.draws:,} draws",
                    ours=ours,
                    stderr=stderr,
                    exact=true,
                    verdict=verdicts.against_exact(ours, stderr, true, z=4.5, tiny=verdicts.is_tiny(recorder)),
                )
    # ∇E k = E[k ∇ ln π] + E∇k, and E k3 is the KL, so k3 as a reward lacks the gradient that it has as a loss.
    predicted = {"k3": np.linalg.norm(found["backward"]) / np.linalg.norm(found["forward"])}
    for name in ("k2", "k3"):
        quantity = DISTANCE.format(f"score function with −β {name}, / −β", "∇KL(π ‖ ref)")
        ours, true = distances(found)[f"{name} reward"], predicted.get(name)
        agreed = None if true is None else verdicts.against_exact(ours, 0.0, float(true), tolerance=1e-9)
        recorder.row(quantity=quantity, ours=ours, exact=true, verdict=agreed)


def run(config: Config, recorder: runner.Recorder) -> dict:
    config = papers.full_size(config, {"draws": 10_000_000})
    grid = np.geomspace(0.05, 2.0, 41)
    with jax.enable_x64(True):
        with recorder.timed("integrals and gradients"):
            curves = by_quadrature(np.concatenate([MEANS, grid]), config.nodes)
            table, curves = curves[..., : len(MEANS)], curves[..., len(MEANS) :]
            found = gradients()
            papers.check(recorder, PAPER, measure(table, found))
        with recorder.timed(f"{config.draws:,} draws"):
            record(config, table, in_closed_form(np.array(MEANS)), found, recorder)
    for i, name in enumerate(ESTIMATORS):
        recorder.metrics({"estimator": name, "mean": grid, "bias": curves[0, i], "standard_deviation": curves[1, i]})
    # From μ = 0.5 on, the ratio of the two standard deviations grows with μ.
    far = grid > 0.5
    crossing = np.interp(0.0, np.log(curves[1, 2] / curves[1, 0])[far], np.log(grid[far]))
    recorder.row(quantity="μ beyond which k3 has a greater standard deviation than k1", ours=float(np.exp(crossing)))
    return {"grid": grid, "curves": curves, "distances": distances(found)}


def plot(results: dict, recorder: runner.Recorder) -> None:
    from experiments.harness import plots

    grid, curves, far = results["grid"], results["curves"], results["distances"]
    figure, (left, middle, right) = plots.figure(
        "k3 is unbiased like k1 and, for small divergences, as quiet as k2; but as a loss only k2 has the right "
        "gradient",
        "Lines: exact, by quadrature, for q = N(0, 1), p = N(μ, 1). Rings: the published table (its 0.002 is 0.0025, "
        "rounded). Right: exact, for four actions; the distance of the mean gradient from ∇KL(π ‖ ref), over the "
        "length of ∇KL(π ‖ ref), when k is a loss and when −β k is a reward.",
        columns=3,
        width=13,
        height=4.6,
    )
    colour_of = plots.colours(ESTIMATORS)
    for ax, word, values in ((left, WORDS[1], curves[1]), (middle, WORDS[0], curves[0])):
        ax.set(xscale="log", yscale="log", xlabel="μ (the KL is μ²/2 nats)", ylabel=f"{word} / KL")
        ends = {}
        for i, name in enumerate(ESTIMATORS):
            if word == "bias" and name != "k2":
                continue
            ax.plot(grid, values[i], color=colour_of[name], linewidth=2)
            ends[name] = (grid[-1], values[i, -1], colour_of[name])
            printed = [papers.number(PUBLISHED[mean][name][WORDS.index(word)]) for mean in MEANS]
            ax.plot(MEANS, printed, "o", markersize=8, markerfacecolor="none", color=plots.INK, zorder=4)
        ax.set_xticks([0.05, 0.1, 0.2, 0.5, 1, 2], ["0.05", "0.1", "0.2", "0.5", "1", "2"])
        ax.minorticks_off()
        plots.label_ends(ax, ends)
    middle.text(0.06, 0.6, "k1, k3: exactly 0", color=plots.GREY, fontsize=9)
    width = 0.38
    for shift, use in ((-width / 2, "loss"), (width / 2, "reward")):
        heights = [far[f"{name} {use}"] for name in ESTIMATORS]
        hatch = "" if use == "loss" else "///"
        face = [colour_of[name] if use == "loss" else "white" for name in ESTIMATORS]
        edge = [colour_of[name] for name in ESTIMATORS]
        bars = right.bar(np.arange(3) + shift, heights, width, color=face, edgecolor=edge, hatch=hatch)
        right.bar_label(bars, [f"{use}\n{0 if height < 1e-9 else height:.2g}" for height in heights], fontsize=8)
    right.set_xticks(range(3), list(ESTIMATORS))
    right.set_ylabel("relative error of the gradient")
    right.margins(y=0.15)
    recorder.figure(figure, "kl_estimators")
