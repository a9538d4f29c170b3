"""Reward hacking: an annotator with a taste for length gets longer and worse text, and the exact optimum says so first.

Claim    Where annotators prefer longer answers beyond what these are worth, the reward model learns the taste together
         with the score, and a policy that is optimised against it writes longer and worse text than one that is
         optimised against labels without the taste. Rewarding length alone makes text worse than before training.
Source   Stiennon et al. 2020, arXiv 2009.01325 (length and preferences); Singhal, Goyal, Xu & Durrett 2023, arXiv
         2310.03716 (length correlations in RLHF).
Command  python -m experiments.reward_hacking
Shows    Phrases of up to 32 symbols: letters, spaces and an end. The reference is a bigram model of three-word phrases
         from the help topics of Python. Gold wants three words of a dictionary: each of the first three pays 1, every
         other word costs ½, and a finished phrase pays 1. Synthetic annotators compare pairs by gold, with noise. One
         kind of annotator also adds a value for every character. The reward model is linear, and it can represent gold
         and the taste exactly. The best policies for all penalties β come from dynamic programming; on top stand
         policies trained by RLOO, with and without a penalty. Their length, gold and bits per byte under the reference
         are exact, too.
Expect   Without the taste the policy writes `the the the.`, which is all that this gold wants. With the taste it fills
         the whole length: after the three words it writes one endless word, which costs ½, because its letters pay
         more. At the same KL its gold is lower. Length alone ends in nonsense that is never finished. One to two
         minutes on two CPU cores.
Departs  Labels are synthetic and the taste is put in by hand, so that its effect can be told from all others. The task,
         sizes and rates were chosen with seeds of 100 and more: where other words cost 1, trained policies ended the
         phrase after one word, because they learnt to stop before they could spell.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from experiments.harness import runner
from experiments.reward_hacking import findings, learning
from experiments.reward_hacking.findings import REWARDS
from experiments.reward_hacking.task import FEATURES, make_task, quality
from pgjax import diagnostics

__all__ = ["REWARDS", "TINY", "Config", "plot", "run"]


@dataclasses.dataclass(frozen=True)
class Config:
    """Options of this experiment. The defaults give the results that experiments/README.md shows."""

    length: int = 32
    """The greatest number of symbols of an answer, the end symbol included."""
    dictionary: int = 20
    """The number of words that gold wants: the most common ones of at least three letters."""
    labels: int = 2000
    """The number of pairs that annotators compare."""
    taste: float = 0.1
    """What a character is worth to the annotators with a taste for length, in nats."""
    seeds: int = 8
    """The number of independent sets of labels, and of training runs."""
    kl_coef: float = 0.05
    """The weight β of the KL penalty of the policies that are trained with one."""
    smallest_kl_coef: float = 0.02
    """The smallest β of the exact frontier."""
    points: int = 12
    """The number of values of β on the exact frontier."""
    updates: int = 300
    """The number of updates of each policy."""
    episodes: int = 64
    """The number of answers in an update."""
    learning_rate: float = 0.02
    """The learning rate of the policies."""
    seed: int = 0
    """The first seed. The other seeds count up from it."""

    def validate(self) -> None:
        runner.require(2 <= self.length <= 64, "--length", self.length, "in [2, 64]")
        runner.require(1 <= self.dictionary <= 200, "--dictionary", self.dictionary, "in [1, 200]")
        runner.require_counts(self, "labels", "updates")
        runner.require_counts(self, "seeds", "points", "episodes", least=2)
        runner.require(0 < self.taste < np.inf, "--taste", self.taste, "a finite number above 0")
        for option, beta in (("--kl-coef", self.kl_coef), ("--smallest-kl-coef", self.smallest_kl_coef)):
            runner.require(1e-3 <= beta <= 10, option, beta, "in [0.001, 10]")
        runner.require_rate("--learning-rate", self.learning_rate)
        runner.require(0 <= self.seed <= 2**19, "--seed", self.seed, "in [0, 2¹⁹]")


TINY = Config(length=6, dictionary=3, labels=20, seeds=2, points=2, updates=2, episodes=4)
LARGEST_KL_COEF = 3.0


def run(config: Config, recorder: runner.Recorder) -> dict:
    with recorder.timed("task"):
        task = make_task(config.length, config.dictionary)
        before = jax.jit(lambda table: quality(task.reference, table, 0.0))(learning.reference_table(task))
    seeds, shape = config.seed + jnp.arange(config.seeds), (config.seeds, len(REWARDS))
    with recorder.timed("reward models"):
        tastes = jnp.array([0.0, config.taste])
        models = learning.fit_reward_models(task, seeds, labels=config.labels, tastes=tastes)
    with recorder.timed("exact frontiers"):
        flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), models)
        betas = np.geomspace(LARGEST_KL_COEF, config.smallest_kl_coef, config.points)
        frontiers = learning.frontiers(task, flat, jnp.asarray(betas, float), recorder)
        frontiers = jax.tree.map(lambda x: x.reshape(*shape, -1), frontiers)
    with recorder.timed("policies"):
        trained = _train(config, task, flat, seeds, recorder)
    results = {"config": config, "before": jax.device_get(before), "frontiers": frontiers, "trained": trained}
    findings.record(config, task, results, np.asarray(models.params), recorder)
    for row, name in enumerate(REWARDS):
        curves = {key: values[:, row].mean(axis=0) for key, values in frontiers._asdict().items()}
        recorder.metrics({"reward": name, "kl_coef": betas} | curves)
    recorder.note(f"The reward models have {len(FEATURES)} features: {'; '.join(FEATURES)}.")
    if few := diagnostics.few_runs(config.seeds, "seeds"):
        recorder.note(few)
    return results


def _train(config: Config, task, models, seeds: jax.Array, recorder: runner.Recorder) -> learning.Trained:
    """Policies for each seed, reward, and β of (0, `kl_coef`); leaves `[S, rewards, 2]`."""
    shape = (config.seeds, len(REWARDS), 2)
    seed, _, beta = (axis.ravel() for axis in np.indices(shape))
    runs = jax.tree.map(lambda x: jnp.repeat(x, 2, axis=0), models)
    kl_coefs = jnp.asarray(np.array([0.0, config.kl_coef])[beta], float)
    # A number that no fit of this seed folds in; policies of one seed share their random numbers.
    keys = jax.vmap(lambda seed: jax.random.fold_in(jax.random.key(seed), 2**31 - 1))(seeds[seed])
    recipe = learning.Recipe(updates=config.updates, episodes=config.episodes, learning_rate=config.learning_rate)
    found = learning.train(task, runs, kl_coefs, keys, recipe, recorder)
    return jax.tree.map(lambda x: x.reshape(*shape, *x.shape[1:]), found)


def plot(results: dict, recorder: runner.Recorder) -> None:
    from experiments.reward_hacking import drawing

    drawing.draw(results, recorder)
