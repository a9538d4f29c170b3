"""How good is the gradient meter? Graded against exact values, beside the variance proxies of verl, and its cost.

Claim    `--meter N` of experiments.train measures the variance of the gradient that trains and the squared norm of its
         mean without bias. Proxies that are computed from probabilities alone are right for one step and logits as
         parameters, and off by known factors elsewhere.
Source   McCandlish et al. 2018 (the noise scale, equations 2.8 and 2.9, and its unbiased parts, appendix A.1);
         verl, commit b178a3c, `compute_variance_proxy_metrics` and docs/algo/otb.md (the proxies).
Command  python -m experiments.gradient_meter
         python -m experiments.gradient_meter --repetitions 0      (without the cost)
Shows    (a) Tabular problems whose gradients have exactly known moments. A trainer whose steps have length 0 measures
         thousands of batches at the same θ. The mean of each quantity stands beside its exact value, and a wrong meter,
         which divides by M² instead of M (M − 1), beside both.
         (b) The exact expectations of verl's three proxies beside the exact numbers that they stand for and beside the
         meter, and the exact factor of each approximation: one advantage for the episode, logits in place of
         parameters, products between steps left out, a mean over tokens ignored, dependent episodes.
         (c) The time of the same updates of CartPole-v1 with and without the meter.
Expect   All numbers of (a) agree within four standard errors. The ratio of two means (the noise scale) is consistent,
         not unbiased; the cosine is compared with its own exact expectation. RLOO over the whole batch makes the parts
         depend on each other, so the meter misses a share of its variance (3 % with 8 episodes). In (b) proxy2 is exact
         where the logits are the parameters and no two steps share logits. Elsewhere E[proxy2] / E‖ĝ‖² is 0.086 for a
         small network in place of logits, 1.7 for tokens that share their logits, 9 for a mean over three tokens, and
         0.082 for advantages that change within an episode; E[proxy3] / tr Var ḡ goes from 0.0077 to 11. The aim of (c)
         is a ratio below 1.05 at N = 20. It is 1.01 to 1.05 of the CPU time, and at N = 1, where
         every update computes one more gradient, 1.5 to 1.7 without a value network and 1.3 with one. Ten minutes of
         CPU time in all.
Departs  verl's proxies are recomputed from their formulas. verl averages the norm of the gradient over the mini-batches
         of an update; here the batch is one mini-batch.
"""

import dataclasses
from typing import Literal

from experiments.gradient_meter import cases as gradients
from experiments.gradient_meter import cost, figure, graded, proxies, tables
from experiments.harness import runner


@dataclasses.dataclass(frozen=True)
class Config:
    """The options of this experiment. The defaults give the results that experiments/README.md shows."""

    batches: int = 20_000
    """The number of independent batches that the meter measures for each gradient. As many are drawn for proxy3 where
    they cannot be enumerated."""
    problems: Literal["all", "bandit"] = "all"
    """The problems of (a) and (b). bandit leaves out all problems of more than one step, for a quick look."""
    limit: int = 70_000
    """The largest number of batches that are enumerated, for the exact expectations of the cosine and of proxy3."""
    estimators: tuple[str, ...] = ("gpomdp_value", "gpomdp")
    """The estimators whose updates of CartPole-v1 are timed, by their names in experiments.estimators. gpomdp_value
    also fits a value network."""
    episodes: tuple[int, ...] = (64, 1024)
    """The numbers of episodes in the timed updates."""
    every: tuple[int, ...] = (20, 1)
    """The intervals N of the meter in the timed updates."""
    updates: int = 20
    """The number of updates that are timed together."""
    repetitions: int = 5
    """The number of repetitions of the timed updates; 0 leaves them out."""
    practice: int = 20
    """The number of updates of 64 episodes before the timed ones. They train a policy whose episodes are long."""
    hidden: tuple[int, ...] = (64, 64)
    """The widths of the dense layers for CartPole-v1."""
    seed: int = 0
    """The seed of every random number in this experiment."""

    def validate(self) -> None:
        from pgjax import registry

        runner.require_counts(self, "batches", least=10)
        runner.require_counts(self, "limit", most=10**6)
        runner.require_counts(self, "episodes", "every", "updates", "hidden")
        runner.require_counts(self, "repetitions", "practice", least=0)
        for size in self.episodes:
            runner.require(size % 2 == 0, "--episodes", size, "an even number, whose halves the meter compares")
        for number in self.every:
            fits = self.updates % number == 0
            runner.require(fits, "--every", number, f"a divisor of --updates {self.updates}, which are measured alike")
        for name in self.estimators:
            known = name in registry.ENTRIES and not {"critic", "states", "oracle"} & set(registry.ENTRIES[name].needs)
            runner.require(known, "--estimators", name, "the name of an estimator that needs no critic and no oracle")
        runner.require(0 <= self.seed <= 2**30, "--seed", self.seed, "in [0, 2³⁰]")


TINY = Config(
    batches=500,
    problems="bandit",
    estimators=("gpomdp",),
    episodes=(2,),
    every=(1,),
    updates=2,
    repetitions=2,
    practice=1,
    hidden=(4,),
)


def run(config: Config, recorder: runner.Recorder) -> dict:
    bandit = config.problems == "bandit"
    known, measured = {}, {}
    chosen = gradients.graded(config.seed, bandit)
    with recorder.timed("graded"), recorder.progress(len(chosen), "gradients", "gradients") as progress:
        for index, case in enumerate(chosen):
            known[case.name] = graded.exact_noise(case, config.limit)
            measured[case.name] = graded.measure(case, config.batches, config.seed + 1000 + index)
            progress.advance(1, case.name)
    grades = tables.grade(chosen, known, measured, recorder)
    beside, meters = {}, {}
    chosen = gradients.compared(config.seed, bandit)
    with recorder.timed("proxies"), recorder.progress(len(chosen), "proxies", "gradients") as progress:
        for index, case in enumerate(chosen):
            beside[case.name] = proxies.compare(case, config.limit, config.batches, config.seed + 3000 + index)
            meters[case.name] = graded.measure(case, config.batches, config.seed + 2000 + index)
            progress.advance(1, case.name)
    tables.set_beside(chosen, beside, meters, recorder)
    with recorder.timed("cost"):
        tables.report_cost(timed(config, recorder), recorder)
    return {"grades": grades, "beside": beside, "meters": meters, "batches": config.batches}


def timed(config: Config, recorder: runner.Recorder) -> list[cost.Cost]:
    """The cost of the meter for every estimator and number of episodes."""
    found, total = [], len(config.estimators) * len(config.episodes)
    if not config.repetitions:
        return found
    with recorder.progress(total, "timing", "programs") as progress:
        for name in config.estimators:
            state = cost.practised(name, config.hidden, config.practice, config.seed)
            for size in config.episodes:
                found += cost.measure(
                    name, size, config.every, config.updates, config.repetitions, config.hidden, state
                )
                progress.advance(1, f"{name}, {size} episodes")
    return found


def plot(results: dict, recorder: runner.Recorder) -> None:
    figure.draw(results, recorder)
