"""RLOO, GRPO, Dr. GRPO: what does a group of answers estimate? Every mean exactly, on prompts that can be enumerated.

Claim    RLOO is unbiased. GRPO divides by the standard deviation of the group and by the length of the answer. The
         first division changes the weights of prompts; the second prefers short right answers and long wrong ones. Dr.
         GRPO drops both, and its mean is (G − 1)/G of the gradient.
Source   Ahmadian et al. 2024 (RLOO); Shao et al. 2024 (DeepSeekMath, GRPO); Liu et al. 2025 (Dr. GRPO).
Command  python -m experiments.group_baselines
Shows    A prompt whose answer is right with probability p = σ(θ): E[estimate] / ∇p over all groups of G answers,
         against p, with both definitions of the standard deviation. How near GRPO comes, at G = 128, to ∇ 2 arcsin √p,
         which is its limit for many answers. A sample through the environment. A prompt with short and long answers of
         the same rewards, whose exact gradient does not depend on the length: the pull towards short answers that the
         division by the length |o| adds.
Expect   E[GRPO] / ∇p with divisor G is exactly 1 for G = 2, 1.616 to 1.710 for G = 4, and up to 2.473 for G = 8. With
         128 answers it is 0.978 of its limit 4.588 at p = 0.05. So hard and easy prompts weigh more. RLOO gives 1, and
         Dr. GRPO gives (G − 1)/G. Ten seconds on two CPU cores.
Departs  Only the estimators are studied: one on-policy step, without clipping and without a KL. The formula of the
         paper does not say which standard deviation it means; public trainers take torch's, with divisor G − 1, and add
         1e−4 to it, which is left out here. No language model is trained, so there is no `--full`; the win rates of the
         first paper are quoted as context.
"""

import dataclasses

import jax
import numpy as np

from experiments.group_baselines import prompts
from experiments.group_baselines.prompts import DR_GRPO, GRPO, GRPO_SAMPLE, RLOO, RLOO_PER_TOKEN
from experiments.harness import runner, verdicts
from experiments.harness import targets as papers
from experiments.harness.targets import Above, Digits, Measured, Target
from pgjax import diagnostics

PROBABILITIES = (0.05, 0.2, 0.5)
GROUPS = (2, 4, 8)
MANY, LIMIT = 128, "limit"
# Computed independently of this code, by enumeration of groups.
REFERENCE = {
    2: ("1.0", "1.0", "1.0"),
    4: ("1.710", "1.658", "1.616"),
    8: ("2.473", "2.107", "1.856"),
    LIMIT: ("4.588", "2.5", "2.0"),
}
AS_PUBLISHED, AS_RELEASED = "GRPO as published (divisor G)", "GRPO as released (divisor G − 1)"
RATIO = "E[estimate] / ∇p"
PULL = {"right": "right answers", "wrong": "wrong answers"}


def _targets() -> tuple[Target, ...]:
    targets = []
    for size, printed in REFERENCE.items():
        for p, published in zip(PROBABILITIES, printed, strict=True):
            what, variant = (f"{RATIO}, G = {size}", AS_PUBLISHED) if size != LIMIT else ("∇ 2 arcsin √p / ∇p", None)
            headline = "GRPO, G = 8, p = .05" if (size, p) == (8, 0.05) else ""
            key, quantity = f"{size} {p}", f"{what}, p = {p}"
            targets.append(Target(key, quantity, Digits(), published, "own", variant, headline=headline))
    for p in PROBABILITIES:
        headline = "GRPO / ∇ 2 arcsin √p, G = 128, p = .05" if p == 0.05 else ""
        quantity = f"E[estimate] / ∇ 2 arcsin √p, G = {MANY}, p = {p}"
        targets.append(Target(f"many {p}", quantity, Digits(), variant=AS_PUBLISHED, headline=headline))
    for size in GROUPS:
        for p in PROBABILITIES:
            quantity = f"{RATIO}, G = {size}, p = {p}"
            targets.append(Target(f"released {size} {p}", quantity, Digits(), variant=AS_RELEASED))
    quantity = f"greatest difference of {RATIO} between p and 1 − p, G = 8"
    targets.append(Target("mirror", quantity, Digits(), variant=AS_PUBLISHED, exact=0.0))
    targets.append(Target("rloo", f"{RATIO}, farthest from 1", Digits(), variant=RLOO, exact=1.0))
    for size in GROUPS:
        quantity = f"{RATIO}, G = {size}, farthest from (G − 1)/G"
        targets.append(Target(f"dr {size}", quantity, Digits(), variant=DR_GRPO, exact=(size - 1) / size))
    for which, words in PULL.items():
        quantity = f"pull of {words} towards {'short' if which == 'right' else 'long'}"
        for name in (GRPO, RLOO_PER_TOKEN):
            targets.append(Target(f"{which} {name}", quantity, Above(), None, "card", name))
        for name in (RLOO, DR_GRPO):
            targets.append(Target(f"{which} {name}", quantity, Digits(), variant=name, exact=0.0))
    quantity = "‖E[estimate] − ∇ρ‖ / ‖∇ρ‖, choice of length"
    targets.append(Target("length rloo", quantity, Digits(), variant=RLOO, exact=0.0))
    return tuple(targets)


PAPER = papers.Paper(
    citation="Ahmadian et al. 2024; Shao et al. 2024; Liu et al. 2025: the estimators",
    claim="RLOO is unbiased; GRPO changes the weights of prompts and prefers lengths; Dr. GRPO does neither.",
    targets=_targets(),
    pitfalls=(
        "Which standard deviation is taken matters: with divisor G − 1, torch's default and that of public trainers, "
        "every mean of GRPO is √((G − 1)/G) of that with divisor G.",
        "Groups whose answers have equal rewards give no gradient. Their standard deviation is 0, and rounding must "
        "not make it 1e−9.",
        "For context, and not reproduced here because they need language models: the win rates of Ahmadian et al. "
        "2024, table 1 (quoted alike in three places), for TL;DR / HH Pythia / HH Llama. RLOO k = 4 77.9/43.7/64.1, "
        "RAFT k = 4 73.2/42.1/63.3, RLOO k = 2 74.2/47.6/62.2, RAFT k = 2 72.1/37.7/58.4, REINFORCE with baseline "
        "70.7/37.9/55.3, vanilla policy gradient 70.4/36.4/52.3, PPO 67.6/29.2/32.0, DPO 66.6/39.0/61.9.",
    ),
)


@dataclasses.dataclass(frozen=True)
class Config:
    """The options of this experiment. The results page shows the default sizes; only the sample depends on them."""

    points: int = 25
    """How many probabilities of a right answer, between 0.02 and 0.98, the enumeration has."""
    sampled_groups: int = 20_000
    """How many groups of 8 answers are sampled at p = 0.2."""
    length_groups: int = 4
    """The group size G on the prompt with a choice of length."""
    long: float = 0.5
    """The probability of a long answer on that prompt."""
    right: float = 0.2
    """The probability of a right answer on that prompt."""
    seed: int = 0
    """The seed of the sampled groups; everything else is exact."""

    def validate(self) -> None:
        runner.require(5 <= self.points <= 201, "--points", self.points, "from 5 to 201")
        runner.require(self.sampled_groups >= 100, "--sampled-groups", self.sampled_groups, "at least 100")
        runner.require(2 <= self.length_groups <= 6, "--length-groups", self.length_groups, "from 2 to 6")
        for option, value in (("--long", self.long), ("--right", self.right)):
            runner.require(0 < value < 1, option, value, "in (0, 1)")
        runner.require(0 <= self.seed <= 2**30, "--seed", self.seed, "in [0, 2³⁰]")


TINY = Config(points=5, sampled_groups=500, length_groups=2)


def farthest(values: np.ndarray, known: float) -> float:
    return float(values[np.argmax(np.abs(values - known))])


def measure(grid: np.ndarray, found: dict, limit: np.ndarray, config: Config, lengths: dict) -> dict[str, Measured]:
    """Return our numbers by enumeration, beside exact ones by binomial sums and by differentiating the limit."""
    own, measured = slice(0, len(PROBABILITIES)), {}
    for i, p in enumerate(PROBABILITIES):
        slope = p * (1 - p)
        measured[f"{LIMIT} {p}"] = Measured(float(limit[i]), exact=slope**-0.5)
        known = float(prompts.mean_spread(p, MANY) / np.sqrt(slope))
        measured[f"many {p}"] = Measured(float(found[MANY][GRPO][own][i] / limit[i]), exact=known)
        for size in GROUPS:
            known = float(prompts.mean_spread(p, size) / slope)
            measured[f"{size} {p}"] = Measured(float(found[size][GRPO][own][i]), exact=known)
            sample = known * ((size - 1) / size) ** 0.5
            measured[f"released {size} {p}"] = Measured(float(found[size][GRPO_SAMPLE][own][i]), exact=sample)
    on_grid = found[8][GRPO][len(PROBABILITIES) :]
    measured["mirror"] = Measured(float(np.max(np.abs(on_grid - on_grid[::-1]))))
    measured["rloo"] = Measured(farthest(np.concatenate([found[size][RLOO] for size in GROUPS]), 1.0))
    for size in GROUPS:
        measured[f"dr {size}"] = Measured(farthest(found[size][DR_GRPO], (size - 1) / size))
    factors = {
        GRPO: float(prompts.mean_spread(config.right, config.length_groups)),
        RLOO_PER_TOKEN: config.right * (1 - config.right),
    }
    for name, (right, wrong) in prompts.pulls(lengths).items():
        if name in (GRPO, RLOO, DR_GRPO, RLOO_PER_TOKEN):
            known = prompts.pull_in_closed_form(factors.get(name, 0.0), config.long)
            measured[f"right {name}"] = Measured(right, exact=known)
            measured[f"wrong {name}"] = Measured(-wrong, exact=known)
    distance = np.linalg.norm(lengths[RLOO] - lengths["exact"]) / np.linalg.norm(lengths["exact"])
    return measured | {"length rloo": Measured(float(distance))}


def record(config: Config, found: dict, lengths: dict, recorder: runner.Recorder) -> None:
    """Record what no paper prints: the sample, and what 1/|o| does to the gradient."""
    index = PROBABILITIES.index(0.2)
    for name, values in prompts.sampled_ratios(0.2, 8, config.sampled_groups, config.seed).items():
        mean, stderr, known = *map(float, diagnostics.mean_and_stderr(values)), float(found[8][name][index])
        recorder.row(
            quantity=f"{RATIO}, G = 8, p = 0.2, {config.sampled_groups:,} groups sampled",
            variant=name,
            ours=mean,
            stderr=stderr,
            exact=known,
            verdict=verdicts.against_exact(mean, stderr, known, z=4.5, tiny=verdicts.is_tiny(recorder)),
        )
    truth = lengths["exact"]
    for name in (RLOO_PER_TOKEN, DR_GRPO, GRPO):
        cosine = np.sum(lengths[name] * truth) / np.linalg.norm(lengths[name]) / np.linalg.norm(truth)
        recorder.row(quantity="cosine of E[estimate] with ∇ρ, choice of length", variant=name, ours=float(cosine))
    per_token = np.linalg.norm(lengths[RLOO_PER_TOKEN] - lengths["per token"])
    recorder.row(
        quantity="‖E[estimate] − ∇E[(R − ρ)/|o|]‖, ρ held fixed, choice of length",
        variant=RLOO_PER_TOKEN,
        ours=float(per_token),
        exact=0.0,
        verdict=verdicts.against_exact(float(per_token), 0.0, 0.0, tolerance=1e-9),
    )


def run(config: Config, recorder: runner.Recorder) -> dict:
    grid = np.linspace(0.02, 0.98, config.points)
    p = np.concatenate([PROBABILITIES, grid])
    with jax.enable_x64(True):
        every, found = prompts.one_token(), {}
        with recorder.timed("right or wrong"), recorder.progress(len(GROUPS) + 1, "groups", "sizes") as progress:
            for size in (*GROUPS, MANY):
                names = (GRPO, GRPO_SAMPLE, RLOO, DR_GRPO) if size in GROUPS else (GRPO,)
                found[size] = prompts.ratios(every, p, size, names)
                progress.advance(1, f"G = {size}")
            limit = prompts.arcsine_ratio(every, p)
        with recorder.timed("choice of length"):
            lengths = prompts.length_gradients(config.right, config.long, config.length_groups)
    papers.check(recorder, PAPER, measure(grid, found, limit, config, lengths))
    with recorder.timed("sample"):
        record(config, found, lengths, recorder)
    for size, ratios in found.items():
        for name, values in ratios.items():
            recorder.metrics({"estimator": name, "group_size": size, "p": p, "ratio": values})
    return {"config": config, "p": p, "found": found, "pulls": prompts.pulls(lengths)}


def plot(results: dict, recorder: runner.Recorder) -> None:
    from experiments.harness import plots

    config, p, found = results["config"], results["p"], results["found"]
    figure, (left, right) = plots.figure(
        "GRPO gives hard and easy prompts more weight, and pushes right answers to be short and wrong ones to be long; "
        "RLOO does neither",
        "∇p is the exact gradient. Left: lines are closed forms, dots enumerate every group of G answers (GRPO's "
        "standard deviation has divisor G). Right: a prompt whose short and long answers have the same rewards, G = "
        f"{config.length_groups}; the bars are E[estimate] in the logit of stopping, where the exact gradient is 0.",
        columns=2,
        width=13,
        height=5,
    )
    names = [f"GRPO, G = {size}" for size in GROUPS]
    colour_of = plots.colours([*names, "GRPO, G → ∞", RLOO, "Dr. GRPO, G = 8"])
    fine = np.linspace(0.02, 0.98, 193)
    slope = fine * (1 - fine)
    lines = {name: prompts.mean_spread(fine, size) / slope for name, size in zip(names, GROUPS, strict=True)}
    lines |= {"GRPO, G → ∞": slope**-0.5, RLOO: np.ones_like(fine), "Dr. GRPO, G = 8": np.full_like(fine, 7 / 8)}
    dots = {name: found[size][GRPO] for name, size in zip(names, GROUPS, strict=True)}
    dots |= {RLOO: found[8][RLOO], "Dr. GRPO, G = 8": found[8][DR_GRPO]}
    for name, line in lines.items():
        hidden = name == names[0]  # the same as RLOO's
        style = (0, (4, 4)) if hidden else "-"
        left.plot(fine, line, linestyle=style, color=colour_of[name], linewidth=2, zorder=2 + hidden)
        if name in dots and not hidden:
            left.plot(p, dots[name], "o", color=colour_of[name], markersize=4)
    ends = {name: (fine[-1], line[-1], colour_of[name]) for name, line in lines.items()}
    left.set(yscale="log", xlabel="p, probability of a right answer", ylabel="E[estimate] / ∇p")
    left.set_yticks([0.875, 1, 1.5, 2, 3, 5], ["0.875", "1", "1.5", "2", "3", "5"])
    left.minorticks_off()
    plots.label_ends(left, ends)
    _draw_pulls(right, results["pulls"])
    recorder.figure(figure, "group_baselines")


def _draw_pulls(axes, pulls: dict[str, tuple[float, float]]) -> None:
    """Draw a row for each estimator: the pull of right answers to one side, of wrong answers to the other."""
    from experiments.harness import plots

    names = (RLOO, DR_GRPO, RLOO_PER_TOKEN, GRPO)
    for which, (label, side) in enumerate((("right answers", 1), ("wrong answers", -1))):
        colour = plots.PALETTE[2 if side > 0 else 1]
        lengths = [pulls[name][which] for name in names]
        axes.barh(np.arange(4), lengths, 0.6, color=colour, label=label)
        for row, length in enumerate(lengths):
            zero = abs(length) < 1e-9
            text = "0" if zero else f"{length:.3f}".replace("-", "−")
            style = plots.SMALL_TEXT | {"va": "center", "ha": "left" if side > 0 else "right"}
            axes.annotate(text, (0 if zero else length, row), (4 * side, 0), **style)
        place = {"xycoords": "axes fraction", "ha": "right" if side > 0 else "left"}
        corner = (0.99 if side > 0 else 0.01, 1)
        axes.annotate(label, corner, (0, 4), **plots.SMALL_TEXT | place | {"color": colour, "fontweight": "bold"})
    axes.set_yticks(range(4), names)
    axes.set_ylim(3.5, -0.5)
    axes.margins(x=0.42)
    axes.axvline(0, color=plots.GREY, linewidth=1)
    axes.set_xlabel("pull towards short answers (below 0: towards long ones)")
