"""Library defaults: what do TRL, verl, tunix, NeMo-RL, OpenRLHF and nanochat estimate, against the exact gradient?

Claim    The default settings of libraries for reinforcement learning of language models combine a loss, a KL term, a
         way of adding up over tokens and a baseline. Each combination has an expected gradient that can be compared
         with the exact gradient of the objective E[score] − β KL(π ‖ π_ref), with the library's own default β.
Source   The sources of the libraries; file, lines, version and commit stand in the table and in sources.csv.
Command  python -m experiments.library_defaults
Shows    A task whose batches can be listed: prompts ask for a number of letters and then the end token; the score is 1
         for the right number. For each default, expressed in the estimators of pgjax: the norm of its expected gradient
         over that of the exact one, their cosine, the relative bias, tr Var of a batch, and tr Var over ‖E ĝ‖². Then
         the KL term alone against ∇KL.
Expect   Only TRL RLOO is exactly unbiased. A norm ratio other than 1 is harmless, because a learning rate compensates
         for it, and so the cosine and tr Var / ‖E ĝ‖² are the numbers to compare. The cosines of the whole gradients
         are close to 1 here, because β is small by default. The KL terms alone differ more: k1 in the loss divided by
         the answer's length follows E[1/|o|] and not the KL, and k3 in the reward may point away from ∇KL. Under a
         minute on two CPU cores.
Departs  One first step on fresh answers: no clipping, no stale samples and no sampler mismatch, so that clipping ranges
         do not matter. All groups have the same size, --group-size, whatever the library's default. Batches are far
         smaller than real ones, and statistics of the batch (whitening, the number of its tokens) therefore weigh more
         here; --prompts 1 and --prompts 2 show how this changes with the size of the batch. Critics are exact.
         What the estimators of pgjax do not express stands in the column "left out". The order is alphabetical. No
         library was run; each was read.
"""

import csv
import dataclasses
import io
import math

import jax
import numpy as np

from experiments.harness import runner, verdicts
from experiments.harness.reports import format_number
from experiments.harness.verdicts import Verdict
from experiments.library_defaults import counting
from experiments.library_defaults.entry import UNBIASED, Library
from experiments.library_defaults.grading import Grades, grade
from experiments.library_defaults.libraries import LIBRARIES

TOLERANCE = 1e-10


@dataclasses.dataclass(frozen=True)
class Config:
    """The options of this experiment. The results page shows the default sizes."""

    group_size: int = 4
    """k, the number of answers to a prompt, for every library."""
    prompts: int = 2
    """G, the number of prompts in a batch, drawn independently."""
    length: int = 4
    """T, the number of tokens of the longest answer."""
    asked: tuple[int, ...] = (1, 3)
    """The numbers of letters that the prompts ask for, each below --length."""
    spread: float = 1.0
    """The standard deviation of the reference's logits, and of the policy's distance from it."""
    seed: int = 0
    """The seed of the logits. All other numbers are exact."""

    def validate(self) -> None:
        runner.require(3 <= self.group_size <= 6, "--group-size", self.group_size, "in [3, 6]")
        runner.require(1 <= self.prompts <= 3, "--prompts", self.prompts, "in [1, 3]")
        runner.require(2 <= self.length <= 6, "--length", self.length, "in [2, 6]")
        fits = 0 < len(self.asked) <= 3 and all(0 <= n < self.length for n in self.asked)
        shown = " ".join(map(str, self.asked))
        runner.require(fits, "--asked", shown, f"one to three numbers below --length {self.length}")
        runner.require(0 < self.spread <= 3, "--spread", self.spread, "in (0, 3]")
        runner.require(0 <= self.seed <= 2**30, "--seed", self.seed, "in [0, 2³⁰]")
        count = self.num_batches()
        runner.require(count <= 60_000, "--prompts", self.prompts, f"smaller: there are {count} batches, at most 60000")

    def num_batches(self) -> int:
        """The number of batches, whatever the order of groups and answers."""
        groups = len(self.asked) * math.comb(self.length + self.group_size, self.group_size)
        return math.comb(groups + self.prompts - 1, self.prompts)


TINY = Config(group_size=3, prompts=1, length=2, asked=(1,))


def finding(library: Library, grades: Grades) -> str:
    """What the numbers say of the library's claim, in the words of `verdicts.of_bias`."""
    unbiased = grades.bias < TOLERANCE
    if unbiased == (library.claim == UNBIASED):
        return library.claim
    return f"DIFFERS: {'unbiased' if unbiased else 'biased'}, expected {library.claim}"


def in_words(library: Library) -> str:
    kl = library.kl
    if kl is None:
        return "none"
    ratio = " × ratio" if kl.ratio == "importance" else ""
    return f"{kl.kind} in the {kl.placement}{ratio}, " + (f"β = {kl.kl_coef:g}" if kl.on else "off by default")


def number(x: float, digits: int = 3) -> str:
    return "–" if np.isnan(x) else format_number(0.0 if abs(x) < 1e-9 else float(x), digits=digits)


def degrees(cosine: float) -> float:
    """The angle of a cosine, which tells small deviations apart; 0 for a cosine that is 1 up to rounding."""
    return 0.0 if cosine > 1 - 1e-12 else math.degrees(math.acos(cosine))


def record(found: dict[str, Grades], recorder: runner.Recorder) -> None:
    choices, lines = [], []
    for library in LIBRARIES:
        grades = found[library.name]
        choices.append([library.name, library.loss, library.baseline, library.aggregation, in_words(library)])
        cells = (grades.bias, grades.variance, grades.noise, grades.kl_norm_ratio)
        cells = [number(grades.norm_ratio), number(grades.cosine, 5), *map(number, cells), number(grades.kl_cosine, 5)]
        lines.append([library.name, *cells, verdicts.of_bias(finding(library, grades))])
        recorder.row(
            quantity="‖E ĝ − ∇J‖ / ‖∇J‖",
            variant=library.name,
            ours=grades.bias,
            exact=0.0 if library.claim == UNBIASED else None,
            verdict=verdicts.of_bias(finding(library, grades)),
        )
    for library in LIBRARIES:
        grades = found[library.name]
        for quantity, value in (
            ("cosine of E ĝ with ∇J", grades.cosine),
            ("tr Var ĝ", grades.variance),
            ("tr Var ĝ / ‖E ĝ‖²", grades.noise),
            ("KL term alone: cosine with ∇KL", grades.kl_cosine),
        ):
            known = None if np.isnan(value) else value
            recorder.row(quantity=quantity, variant=library.name, ours=known, verdict=str(Verdict.NOT_JUDGED))
    headers = ("default", "loss", "baseline", "added up", "KL term")
    recorder.table("The defaults, as read in the sources", headers, choices, ())
    headers = ("default", "norm ratio", "cosine", "bias", "tr Var", "tr Var / ‖E ĝ‖²", "KL: norm ratio", "KL: cosine")
    title = "E ĝ of each default against the exact ∇J, and its KL term alone against ∇KL"
    recorder.table(title, (*headers, "theory and numbers"), lines, headers[1:])


def write_sources(recorder: runner.Recorder) -> None:
    """Write sources.csv: what was read of each library, and what is left out."""
    headers = ("default", "version", "answers to a prompt", "sources", "expected", "left out")
    lines = [(x.name, x.version, x.group_size, "; ".join(x.sources), x.claim, x.left_out) for x in LIBRARIES]
    content = io.StringIO(newline="")
    csv.writer(content).writerows([headers, *lines])
    recorder.write("sources.csv", content.getvalue())
    recorder.table("Sources", ("default", "version", "files and lines"), [[*x[:2], x[3]] for x in lines], ())
    recorder.table("What the comparison leaves out", ("default", "left out"), [[x[0], x[5]] for x in lines], ())


def run(config: Config, recorder: runner.Recorder) -> dict:
    with jax.enable_x64(True), recorder.timed("grades"):
        task = counting.make_task(config.asked, config.length, config.spread, config.seed)
        batches = counting.all_batches(task.every, task.probabilities, config.group_size, config.prompts)
        found = grade(LIBRARIES, task, batches, config.group_size)
        divergence = float(counting.divergence(task, task.params))
        objective = float(jax.numpy.sum(task.probabilities * task.every.trajectories.rewards.sum(0)))
    record(found, recorder)
    write_sources(recorder)
    recorder.note(
        f"{len(batches.weights):,} batches of {config.prompts} prompts with {config.group_size} answers each were "
        f"listed. The policy scores {objective:.3f} on average and has KL(π ‖ π_ref) = {divergence:.3f} nats."
    )
    recorder.note(
        "A norm ratio other than 1 is a factor of the learning rate. The KL term alone is graded with β = 1, added up "
        "as in the library, without baseline and whitening; a dash means that there is no term, or no direction."
    )
    return {"config": config, "found": found}


def plot(results: dict, recorder: runner.Recorder) -> None:
    from experiments.harness import plots

    config, found = results["config"], results["found"]
    names = [library.name for library in LIBRARIES]
    exact_ones = [library.name for library in LIBRARIES if found[library.name].bias < TOLERANCE]
    turned = sorted(degrees(found[name].cosine) for name in names if name not in exact_ones)
    terms = [found[name].kl_cosine for name in names if not np.isnan(found[name].kl_cosine)]
    exact_names = ", ".join(exact_ones) or "no default"
    figure, (left, middle, right) = plots.figure(
        f"Against the exact gradient: {exact_names} has no bias, the others are {turned[0]:.1f} to {turned[-1]:.1f} "
        f"degrees off; the cosines of the KL terms alone go from {min(terms):.2f} to {max(terms):.2f}",
        f"Exact, over all batches of {config.prompts} prompts with {config.group_size} answers each. Left: angle "
        "between the expected gradient and ∇J, each with its own default β; 0 is right. Middle: tr Var of a batch over "
        "‖E ĝ‖², lower is better. Right: cosine of the KL term alone with ∇KL; 1 is right. Alphabetical order.",
        columns=3,
        width=14,
        height=4.8,
    )
    colour = plots.colours(["defaults"])["defaults"]
    parts = (
        (left, "angle between E ĝ and ∇J, degrees", lambda grades: degrees(grades.cosine)),
        (middle, "tr Var ĝ / ‖E ĝ‖²", lambda grades: grades.noise),
        (right, "cosine of the KL term with ∇KL", lambda grades: grades.kl_cosine),
    )
    for axes, label, value_of in parts:
        values = np.array([value_of(found[name]) for name in names])
        axes.barh(range(len(names)), np.nan_to_num(values), 0.62, color=colour, alpha=0.85)
        for row, value in enumerate(values):
            text = "none" if np.isnan(value) else format_number(value, digits=3)
            style = plots.SMALL_TEXT | {"va": "center"}
            axes.annotate(text, (max(np.nan_to_num(value), 0.0), row), (4, 0), **style)
        axes.set_yticks(range(len(names)), names if axes is left else [""] * len(names))
        axes.set(ylim=(len(names) - 0.5, -0.5), xlabel=label)
        axes.axvline(0, color=plots.GREY, linewidth=1)
        axes.grid(axis="y", visible=False)
        axes.margins(x=0.2)
    plots.reference_line(right, 1.0, "exact", axis="x")
    recorder.figure(figure, "library_defaults")
