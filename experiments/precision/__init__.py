"""What do TF32 and bfloat16 products cost the gradient? Their error beside the exact gradient and beside its noise.

Claim    TF32 and bfloat16 round the operands of every matrix product. This gives the gradient an error that more
         episodes do not remove, while the noise of sampling falls as 1/√B. So there is a batch size B* beyond which
         the rounding is the larger of the two.
Source   NVIDIA 2020, "A100 tensor core GPU architecture" (TF32); Kalamkar et al. 2019, "A study of BFLOAT16 for deep
         learning training".
Command  python -m experiments.precision
         python -m experiments.precision --batches 64 1024 --seeds 0     (without the trainings, less than a minute)
Shows    (a) Small tabular problems with a network as policy. The mean of the low-precision estimate over all
         trajectories, exactly, with episodes of the float64 policy and with episodes of the low-precision policy. Its
         distance from the exact gradient ∇ρ, relative to ‖∇ρ‖, and 1 − cosine.
         (b) CartPole-v1 at a trained policy. The gradient of one batch in each precision minus that of the same batch
         in float64, beside the standard error of the gradient, for several batch sizes B, and the crossing point B*.
         (c) The same with everything in bfloat16, also the parameters and the sums over rows.
         (d) Trainings of CartPole-v1 in each precision from the same seeds, and the return that they reach.
Expect   On CPUs, seed 0: (a) On the random problem the bias is 0.0006 of ‖∇ρ‖ in TF32 and 0.005 in bfloat16. On the
         corridor, whose gradient is small beside its terms, it is 0.005 and 0.040, and the baseline v lowers it to
         0.003 and 0.020. In float64 it is 0. (b) The rounding error does not fall with B: it is 0.0018 of ‖∇ρ‖ in TF32,
         0.015 in bfloat16 and 8e−7 in float32. The standard error of 16 384 episodes is 0.064. B* is 290 000 episodes
         in bfloat16 and 20 million in TF32. At a solved policy (--practice 30) ∇ρ is nearly 0, and B* is 2.8 million
         and 140 million. (c) With 16 384 episodes the error is 2.9 times that of bfloat16 products. (d) The returns are
         499.2, 499.5 and 496.7 in float32, TF32 and bfloat16; no difference is resolved with five seeds. About two
         minutes of CPU time.
Departs  On a CPU the operands are rounded by the program, to the nearest number and ties to even, and the products are
         added in float32. On a GPU its own units compute, and (b) shows the emulation beside them. The returns, the
         baseline and the weights are float32 in every precision: they are not products of the policy.
"""

import dataclasses
from typing import Literal

from experiments.harness import runner
from experiments.precision import enumerated, learning, rounding, tables


@dataclasses.dataclass(frozen=True)
class Config:
    """The options of this experiment. The defaults give the results that experiments/README.md shows."""

    problems: tuple[Literal["corridor", "random"], ...] = ("corridor", "random")
    """The tabular problems of (a): a corridor of eight steps, and a random problem of four states and three steps."""
    policies: int = 20
    """The number of random policies for each problem of (a)."""
    batches: tuple[int, ...] = (64, 1024, 16384)
    """The batch sizes B of (b) and (c), in episodes. Each must be a multiple of the smallest one."""
    most: int = 8
    """The largest number of batches of each size on which the error is measured. The largest size has one batch."""
    practice: int = 10
    """The number of updates of 32 episodes that train the policy of (b) and (c), in float32. After some thirty
    updates every episode has 500 steps, and ∇ρ is nearly 0."""
    hidden: tuple[int, ...] = (64, 64)
    """The widths of the dense layers for CartPole-v1."""
    seeds: int = 5
    """The number of trainings in each precision for (d); 0 leaves them out."""
    updates: int = 60
    """The number of updates of 32 episodes in each training of (d)."""
    seed: int = 0
    """The seed of every random number in this experiment."""

    def validate(self) -> None:
        runner.require_counts(self, "policies", "batches", "most", "hidden", "updates")
        runner.require_counts(self, "seeds", "practice", least=0)
        least = min(self.batches)
        runner.require(least >= 2, "--batches", least, "at least 2 episodes")
        for size in self.batches:
            runner.require(size % least == 0, "--batches", size, f"a multiple of the smallest size, {least}")
            fits = max(self.batches) % size == 0
            runner.require(fits, "--batches", size, f"a divisor of the largest size, {max(self.batches)}")
        runner.require(max(self.batches) >= 2 * least, "--batches", self.batches, "at least two different sizes")
        runner.require(len(self.problems) > 0, "--problems", self.problems, "at least one problem")
        runner.require(self.seeds != 1, "--seeds", self.seeds, "0, or at least 2, which give an interval")
        runner.require(0 <= self.seed <= 2**30, "--seed", self.seed, "in [0, 2³⁰]")


TINY = Config(problems=("random",), policies=2, batches=(4, 8), most=2, practice=0, hidden=(8,), seeds=0)


def run(config: Config, recorder: runner.Recorder) -> dict:
    biases = {}
    with recorder.timed("enumerated"), recorder.progress(len(config.problems), "enumerating", "problems") as done:
        for name in config.problems:
            biases[name] = enumerated.measure(name, config.policies, config.seed)
            done.advance(1, name)
    tables.report_biases(biases, recorder)
    with recorder.timed("one batch"):
        setting = rounding.make_setting(config.hidden, config.practice, max(config.batches), config.seed)
        names = rounding.variants()
        with recorder.progress(len(names), "rounding", "precisions") as done:
            found = rounding.measure(setting, config.batches, config.most, lambda name: done.advance(1, name))
    tables.report_errors(found, recorder)
    learned = {}
    if config.seeds:
        with recorder.timed("trainings"), recorder.progress(len(learning.PRECISIONS), "training", "precisions") as done:
            for word in learning.PRECISIONS:
                learned[word] = learning.train(word, config.seeds, config.updates, config.hidden, config.seed)
                done.advance(1, word)
        tables.report_trainings(learned, recorder)
    return {"biases": biases, "found": found, "learned": learned}


def plot(results: dict, recorder: runner.Recorder) -> None:
    from experiments.precision import figure

    figure.draw(results["found"], recorder)
