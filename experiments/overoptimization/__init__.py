"""Overoptimisation: a reward model that is optimised too hard makes answers worse, exactly, and labels postpone it.

Claim    A policy that is optimised against a fitted reward model (the proxy) first gets better by the true score (gold)
         and then worse. More labels move the peak to a greater KL. The fault lies in the proxy, and not in the
         optimiser: the exact optima of the proxy, which need no training, rise and fall alike.
Source   Gao, Schulman & Hilton 2023, arXiv 2210.10760 (proxy and gold against √KL; the forms of the curves); Coste,
         Anwar, Kirk & Krueger 2024, arXiv 2310.02743 (ensembles).
Command  python -m experiments.overoptimization
Shows    All 4⁸ answers of eight characters of the alphabet a b ( ). Gold pays for `ab` and for closed brackets, and
         subtracts for repetitions. The reference writes mostly good answers, and a noisy annotator compares pairs of
         them. Reward models of three sizes are fitted to 50 … 2 000 of these labels. The policies π_ref e^{r̂/β} / Z,
         for all β, are computed exactly; they are the frontier, above which no policy has more proxy for its KL.
         Best-of-n is exact, too. On top stand policies that RLOO trained with the reward model, with and without a KL
         penalty; their KL, gold and entropy are sums over all answers.
Expect   Gold rises and then falls while the proxy only rises. With more labels gold rises higher; its peak moves to the
         right for the smallest and the largest reward model, and not for the one of triples. Policies that are trained
         with a penalty end on the frontier, further to the left the greater the penalty is, and entropy falls. One to
         two minutes on two CPU cores.
Departs  The task is a laboratory: gold is an automaton, labels are synthetic, answers have eight characters. The
         numbers of the papers, which use language models, are not reproduced; their forms d(α − β d) and
         d(α − β ln d) with d = √KL are fitted to our curves. The task, sizes and rates were chosen with seeds of 100
         and more, and the reference once after seeds 0 to 23: with a bigram model, which writes repetitions more often,
         gold rose, and its fall under the network was within the error. The present reference rarely writes them.
"""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np

from experiments.harness import runner
from experiments.overoptimization import findings, policies, proxies
from experiments.overoptimization.task import NETWORK, Task, make_task, proxy_models
from pgjax import diagnostics


@dataclasses.dataclass(frozen=True)
class Config:
    """Options of this experiment. The defaults give the results that experiments/README.md shows."""

    length: int = 8
    """The number of characters of an answer. There are 4 to this power answers, and all of them are listed."""
    labels: tuple[int, ...] = (50, 150, 500, 2000)
    """The numbers of labels that reward models are fitted to, in ascending order."""
    seeds: int = 24
    """The number of independent sets of labels."""
    temperature: float = 1.0
    """How noisy the annotator is, in standard deviations of gold."""
    width: int = 64
    """The width of the reward model that is a network."""
    fit_learning_rate: float = 0.02
    """The learning rate of the fits."""
    epochs: int = 60
    """The greatest number of passes of a fit over its labels. A fit ends early by its held-out labels."""
    test_pairs: int = 2000
    """The number of new pairs on which each reward model is tested."""
    ensemble_labels: int = 150
    """The number of labels that the ensembles are fitted to."""
    members: int = 4
    """The number of reward models in an ensemble."""
    penalty: float = 1.0
    """How much an ensemble subtracts for the variance of its members, in units of 1/reward."""
    trained_labels: tuple[int, ...] = (150, 2000)
    """The numbers of labels whose reward models train policies. Each is one of --labels."""
    trained_seeds: int = 8
    """The number of seeds whose reward models train policies."""
    kl_coefs: tuple[float, ...] = (0.0, 0.2, 0.5)
    """The weights β of the KL penalty in training, in ascending order. The first is 0, which is no penalty."""
    updates: int = 400
    """The number of updates of each policy."""
    evaluations: int = 20
    """The number of exact evaluations of each policy during its training."""
    episodes: int = 128
    """The number of answers in an update."""
    policy_learning_rate: float = 0.003
    """The learning rate of the policies."""
    seed: int = 0
    """The first seed. The other seeds count up from it."""

    def preferences(self, labels: tuple[int, ...]) -> proxies.Recipe:
        return proxies.Recipe(
            labels=labels,
            temperature=self.temperature,
            learning_rate=self.fit_learning_rate,
            epochs=self.epochs,
            test_pairs=self.test_pairs,
        )

    def validate(self) -> None:
        runner.require(2 <= self.length <= 9, "--length", self.length, "in [2, 9]")
        for name in ("labels", "trained_labels", "kl_coefs"):
            several = getattr(self, name)
            rising = len(several) >= 2 and all(a < b for a, b in itertools.pairwise(several))
            shown = " ".join(map(str, several))
            runner.require(rising, f"--{name.replace('_', '-')}", shown, "at least two numbers in ascending order")
        runner.require_counts(self, "labels", "ensemble_labels", least=5)
        known = set(self.trained_labels) <= set(self.labels)
        runner.require(known, "--trained-labels", " ".join(map(str, self.trained_labels)), "among --labels")
        runner.require_counts(self, "seeds", "trained_seeds", "members", least=2)
        allowed = self.trained_seeds <= self.seeds
        runner.require(allowed, "--trained-seeds", self.trained_seeds, f"at most --seeds {self.seeds}")
        runner.require_counts(self, "width", "epochs", "test_pairs", "updates", "evaluations")
        runner.require_counts(self, "episodes", least=2)
        runner.require(self.evaluations <= self.updates, "--evaluations", self.evaluations, "at most --updates")
        for option, rate in (("--fit-learning-rate", self.fit_learning_rate), ("--temperature", self.temperature)):
            runner.require_rate(option, rate)
        runner.require_rate("--policy-learning-rate", self.policy_learning_rate)
        runner.require(0 <= self.penalty < np.inf, "--penalty", self.penalty, "a finite number of at least 0")
        starts = self.kl_coefs[0] == 0 and np.isfinite(self.kl_coefs[-1])
        runner.require(starts, "--kl-coefs", " ".join(map(str, self.kl_coefs)), "finite, with 0 as its first number")
        runner.require(0 <= self.seed <= 2**19, "--seed", self.seed, "in [0, 2¹⁹]")


TINY = Config(
    length=3,
    labels=(6, 12),
    seeds=2,
    width=4,
    epochs=2,
    test_pairs=20,
    ensemble_labels=12,
    members=2,
    trained_labels=(6, 12),
    trained_seeds=2,
    kl_coefs=(0.0, 0.5),
    updates=4,
    evaluations=2,
    episodes=8,
)


def fit_models(config: Config, task: Task, recorder: runner.Recorder) -> tuple[dict, dict]:
    """Name → the fits of each reward model, and name → the frontier of each ensemble."""
    models, fits = proxy_models(config.length, config.width), {}
    seeds = range(config.seed, config.seed + config.seeds)
    with recorder.progress(len(models) + 1, "reward models", "sizes") as progress:
        for name, proxy in models.items():
            fits[name] = proxies.fit_all(task, proxy, config.preferences(config.labels), seeds)
            progress.advance(1, name)
        ensembles = proxies.fit_ensembles(
            task,
            models[NETWORK],
            config.preferences((config.ensemble_labels,)),
            seeds,
            members=config.members,
            penalty=config.penalty,
        )
        progress.advance(1, "ensembles")
    return fits, ensembles


def train_policies(config: Config, task: Task, fitted: proxies.Fitted, recorder: runner.Recorder) -> findings.Trained:
    """One policy for each number of labels, seed and β, all in one program; axes `[L, S, B]` of the results."""
    shape = (len(config.trained_labels), config.trained_seeds, len(config.kl_coefs))
    label, seed, beta = (axis.ravel() for axis in np.indices(shape))
    column = np.array([config.labels.index(count) for count in config.trained_labels])[label]
    chosen = lambda tree: jax.tree.map(lambda x: x[seed, column], tree)
    runs = policies.Runs(
        params=chosen(fitted.params),
        rewards=fitted.rewards[seed, column],
        kl_coefs=jnp.asarray(np.array(config.kl_coefs)[beta], float),
    )
    recipe = policies.Recipe(
        updates=config.updates,
        evaluations=config.evaluations,
        episodes=config.episodes,
        learning_rate=config.policy_learning_rate,
        width=config.width,
    )
    # A number that no fit of this seed folds in; policies of one seed share their random numbers.
    keys = jax.vmap(lambda seed: jax.random.fold_in(jax.random.key(seed), 2**31 - 1))(config.seed + jnp.asarray(seed))
    proxy = proxy_models(config.length, config.width)[NETWORK]
    paths = policies.train(task, proxy, runs, keys, recipe, recorder)
    beyond = policies.beyond_the_optimum(paths, chosen(fitted.frontier))
    return findings.Trained(
        paths=policies.Paths(*(x.reshape(*shape, -1) for x in paths)), beyond=beyond, labels=config.trained_labels
    )


def run(config: Config, recorder: runner.Recorder) -> dict:
    with recorder.timed("task"):
        task = jax.jit(lambda task: task)(make_task(config.length))
    with recorder.timed("reward models"):
        fits, ensembles = fit_models(config, task, recorder)
    with recorder.timed("policies"):
        trained = train_policies(config, task, fits[NETWORK], recorder)
    gold = proxies.gold_frontier(task)
    findings.record(config, task, fits, ensembles, trained, recorder)
    for name, fitted in fits.items():
        for column, count in enumerate(config.labels):
            mean = lambda values: np.asarray(values)[:, column].mean(axis=0)
            curves = {key: mean(proxies.at_distances(fitted.frontier, key)) for key in ("gold", "proxy", "entropy")}
            recorder.metrics({"model": name, "labels": count, "sqrt_kl": proxies.DISTANCES} | curves)
    if few := diagnostics.few_runs(config.trained_seeds, "seeds"):
        recorder.note(few)
    return {"config": config, "fits": fits, "ensembles": ensembles, "trained": trained, "gold": gold}


def plot(results: dict, recorder: runner.Recorder) -> None:
    from experiments.overoptimization import drawing

    drawing.draw_frontiers(results, recorder)
    drawing.draw_policies(results, recorder)
