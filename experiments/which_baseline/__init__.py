"""Which baseline pays where? The variance of the ladder of estimates on seven problems, beside that of G_1 on each.

Claim    No estimate is the least noisy everywhere. A constant baseline removes nearly all noise where the returns are
         large beside their spread; reward-to-go pays where actions act early and rewards come all along the way. After
         a few updates v(X_t) is nowhere clearly less noisy than b_t, the mean return of each time.
Source   Williams 1992 (REINFORCE); Baxter & Bartlett 2001 (reward-to-go); Sutton et al. 2000 (v(X_t)); Kool et al. 2019
         (leave-one-out). We know of no table of one ladder over problems as different as these.
Command  python -m experiments.which_baseline
         python -m experiments.which_baseline --problems maze cooling --batch 16
Shows    For each problem and each estimate: tr Var of the estimate divided by tr Var of the estimate with G_1, on the
         same episodes, with 95 % intervals. Three numbers about the returns explain the differences: the mean length
         of an episode; E[G_1]² / E[G_1²], the most that a constant baseline could take away if scores and returns were
         independent; and R², the share of the variance of G_t over all steps that the fitted v(X_t) explains.
Expect   Read a row from left to right. All estimates have one mean, so a smaller variance is a smaller error. Maze,
         slates and cooling pay nearly the same in every episode: E[G_1]² / E[G_1²] is above 0.95, and ρ̂ leaves less
         than 2 % of the variance of G_1. Navigation, ads, Breakout and text pay some episodes and not others: a
         constant then leaves half or more, and on the first three it is the past rewards that G_t leaves out. Where
         episodes have a common course, as a day of cooling or a swim, b_t takes away what every episode has at that
         time. v(X_t) has to be learned from the same few batches. About ten minutes on two CPU cores.
Departs  The policies are networks after a few updates with G_t − v(X_t), neither fresh nor fully trained; each baseline
         has seen twenty batches of the same policy and is then kept fixed. Text is the task of writing a sequence in
         reverse; its policy here reads the buffer with dense layers.
"""

import dataclasses

from experiments.harness import runner, verdicts
from experiments.harness.reports import format_number
from experiments.which_baseline import drawing
from experiments.which_baseline.measuring import LADDER, PROBLEMS, Sizes, measure_problem
from experiments.which_baseline.measuring import Measured as Measured
from pgjax import environments, registry

FIRST = "reinforce"


@dataclasses.dataclass(frozen=True)
class Config:
    """Options of this experiment."""

    problems: tuple[str, ...] = tuple(PROBLEMS)
    """The problems: names of environments, or package.module:name for an environment of your own, which is imported
    and whose code runs."""
    batch: int = 8
    """B, the number of episodes of one estimate."""
    estimates: int = 200
    """The number of estimates of each kind, all from the same episodes."""
    updates: int = 10
    """The number of updates of 32 episodes before the measurement."""
    hidden: tuple[int, ...] = (32, 32)
    """The widths of the dense layers of policy and value."""
    seed: int = 0
    """The seed of every random number in this experiment."""

    def validate(self) -> None:
        runner.require_counts(self, "hidden")
        runner.require_counts(self, "batch", least=2)
        runner.require_counts(self, "estimates", least=10)
        runner.require_counts(self, "updates", least=0)
        runner.require(len(set(self.problems)) == len(self.problems) > 0, "--problems", self.problems, "each once")
        runner.require(0 <= self.seed <= 2**30, "--seed", self.seed, "in [0, 2³⁰]")

    def sizes(self) -> Sizes:
        return Sizes(batch=self.batch, estimates=self.estimates, updates=self.updates, hidden=self.hidden)


TINY = Config(problems=("maze", "text"), batch=2, estimates=10, updates=1, hidden=(4,))


def run(config: Config, recorder: runner.Recorder) -> dict:
    with runner.usage_errors():
        for name in config.problems:  # not in `validate`: gymnax starts JAX when it is imported
            environments.make(PROBLEMS.get(name, name))
    found = {}
    with recorder.progress(len(config.problems), "which baseline", "problems") as progress:
        for name in config.problems:
            with recorder.timed(name):
                found[name] = measure_problem(PROBLEMS.get(name, name), config.sizes(), config.seed)
            record_problem(name, found[name], recorder)
            progress.advance(1, name)
    record_table(found, recorder)
    return {"config": config, "found": found}


def record_problem(name: str, found: Measured, recorder: runner.Recorder) -> None:
    for estimator, ratio in found.ratios.items():
        if estimator != FIRST:
            recorder.row(
                quantity=f"tr Var / tr Var with G₁, {name}",
                variant=registry.ENTRIES[estimator].label,
                ours=float(ratio.value),
                stderr=float(ratio.stderr),
                verdict=verdicts.say(verdicts.Verdict.NOT_JUDGED, f"95 %: {ratio.low:.3g} to {ratio.high:.3g}"),
            )


def record_table(found: dict[str, Measured], recorder: runner.Recorder) -> None:
    labels = [registry.ENTRIES[name].label for name in LADDER]
    headers = ("problem", "steps", "E[G₁]²/E[G₁²]", "R² of v", *labels[1:])
    lines = []
    for name, one in found.items():
        numbers = [format_number(one.length, digits=3), f"{one.constant_share:.2f}", f"{one.explained:.2f}"]
        ratios = [format_number(float(r.value), float(r.stderr)) for k, r in one.ratios.items() if k != FIRST]
        lines.append([name, *numbers, *ratios])
    recorder.table("tr Var of each estimate beside that of G₁ on the same episodes", headers, lines, headers[1:])
    for name, one in found.items():
        recorder.note(drawing.sentence(name, one))


def plot(results: dict, recorder: runner.Recorder) -> None:
    drawing.draw(results["config"].batch, results["found"], recorder)
