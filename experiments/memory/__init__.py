"""Policies that remember: recall a cue, reverse a string from reward alone, and tokens per second.

Claim    A policy with memory learns, from one reward at the end, a task that no policy without memory can do; the
         estimator is the same. A transformer learns to reverse a string in seconds.
Source   RLOO: Kool, van Hoof & Welling 2019; memory: Cho et al. 2014 (GRU), Vaswani et al. 2017 (transformer).
Command  python -m experiments.memory
         python -m experiments.memory --parts reverse --lengths 6
Shows    (a) Recall: a cue is shown once, and the policy must name it after a delay. A GRU and a network without memory
         are trained in the same way, and compared with the exact best values with and without memory. (b) Reverse: the
         policy writes a string of random symbols backwards. The share of greedy answers that are right in every symbol
         is measured on prompts that training never draws. (c) Tokens per second: sampling, gradient and Adam of pgjax,
         and of the same training written by hand, in turns on the same device.
Expect   (a) The GRU names every cue, and the network without memory 1 in K. (b) 99 % of the answers are right for all
         seeds, after some seconds for each seed. (c) The ratio of pgjax to the hand-written program is above 1 for 6
         symbols and for 16. Three to five minutes on two CPU cores.
Departs  (b) trains on the strings whose symbols do not add up to a multiple of the vocabulary's size, and is judged on
         the others. (b) and (c) reward the share of right symbols, not only whole answers. Hyper-parameters were chosen
         with seeds of 100 and more (twelve were solved by 70 updates). A rare run stays on a plateau for longer; the
         number of updates leaves time for it. (c) pgjax reads the prompt of a group once, the hand-written program once
         for each episode. The last block of pgjax passes over the places whose logits no action needs; the hand-written
         program leaves out the logits alone. That is why the ratio may exceed 1.
"""

import dataclasses
import statistics
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.harness import runner
from experiments.memory import strings
from experiments.shared import learning_curves, ranges
from pgjax import diagnostics, evaluation, exact, networks, rollouts, training
from pgjax.environments.recall import make_recall, recall_mdp
from pgjax.types import Environment, Policy, PyTree

PARTS = ("recall", "reverse", "tokens")
GRU, MLP = "GRU", "no memory"
SOLVED = strings.SOLVED


@dataclasses.dataclass(frozen=True)
class Config:
    """Options of this experiment. The defaults give the results that experiments/README.md shows."""

    parts: tuple[str, ...] = PARTS
    """The parts of the experiment that run, among recall, reverse and tokens."""
    cues: int = 4
    """Recall: K, the number of cues. It is at most 5, because all policies without memory are evaluated."""
    delay: int = 8
    """Recall: the number of blank steps between the cue and the question."""
    recall_seeds: int = 10
    """Recall: the number of runs of each network, all in one program."""
    recall_updates: int = 500
    """Recall: the number of updates of each run."""
    recall_episodes: int = 256
    """Recall: the number of episodes in an update."""
    recall_learning_rate: float = 0.002
    """Recall: the learning rate η of Adam."""
    memory_size: int = 32
    """Recall: the size of the GRU's memory, a vector of so many numbers."""
    lengths: tuple[int, ...] = (5, 6)
    """Reverse: the lengths of the strings, in symbols. There is one training for each length."""
    seeds: int = 10
    """Reverse: the number of runs, one after another."""
    updates: int = 150
    """Reverse: the number of updates of each run."""
    evaluate_every: int = 5
    """Reverse: the number of updates between two evaluations."""
    episodes: int = 256
    """Reverse: the number of episodes in an update."""
    group_size: int = 4
    """Reverse and tokens: the number of episodes that share a prompt."""
    learning_rate: float = 0.002
    """Reverse and tokens: the learning rate η of Adam."""
    hidden: tuple[int, ...] = (64, 64)
    """Reverse and tokens: the width of the transformer, written once for each block."""
    heads: int = 4
    """Reverse and tokens: the number of attention heads, a divisor of the width."""
    eval_prompts: int = 1024
    """Recall and reverse: the number of episodes of an evaluation. Reverse uses prompts that training never draws."""
    token_lengths: tuple[int, ...] = (6, 16)
    """Tokens: the lengths of the strings, in symbols. There is one measurement for each length."""
    token_episodes: tuple[int, ...] = (256, 64)
    """Tokens: the number of episodes in an update, one number for each of --token-lengths."""
    repetitions: int = 15
    """Tokens: the number of measurements of each program; the programs take turns."""
    repeated_updates: int = 5
    """Tokens: the number of updates in each measurement."""
    seed: int = 0
    """The first seed. The other seeds count up from it."""

    def recipe(self) -> strings.Recipe:
        return strings.Recipe(
            hidden=self.hidden, heads=self.heads, learning_rate=self.learning_rate, group_size=self.group_size
        )

    def validate(self) -> None:
        one_each = 0 < len(self.parts) == len(set(self.parts)) and set(self.parts) <= set(PARTS)
        runner.require(one_each, "--parts", " ".join(self.parts), f"among {', '.join(PARTS)}, each once")
        runner.require(2 <= self.cues <= 5, "--cues", self.cues, "in [2, 5]")
        more = ("recall_seeds", "seeds", "eval_prompts", "recall_episodes", "group_size")
        runner.require_counts(self, *more, least=2)
        several = ("delay", "recall_updates", "memory_size", "evaluate_every", "repetitions", "repeated_updates")
        runner.require_counts(self, *several, "updates", "episodes", "hidden", "lengths", "token_episodes")
        whole = self.updates >= 1 and self.updates % self.evaluate_every == 0
        runner.require(whole, "--updates", self.updates, f"a multiple of --evaluate-every {self.evaluate_every}")
        for name in ("recall_learning_rate", "learning_rate"):
            runner.require_rate(_option(name), getattr(self, name))
        for name in ("lengths", "token_lengths"):
            several = getattr(self, name)
            fits = len(several) == len(set(several)) > 0 and min(several) >= 2
            runner.require(fits, _option(name), " ".join(map(str, several)), "different numbers, at least 2 each")
        for name, several in (("episodes", (self.episodes,)), ("token_episodes", self.token_episodes)):
            fits = all(number >= 1 and number % self.group_size == 0 for number in several)
            shown = " ".join(map(str, several))
            runner.require(fits, _option(name), shown, f"a multiple of --group-size {self.group_size}")
        shown = " ".join(map(str, self.token_episodes))
        alike = len(self.token_episodes) == len(self.token_lengths)
        runner.require(alike, "--token-episodes", shown, "one number for each of --token-lengths")
        shown = " ".join(map(str, self.hidden))
        one_width = len(set(self.hidden)) == 1 and min(self.hidden) >= 1
        runner.require(one_width, "--hidden", shown, "one width, at least 1, for every block")
        divides = self.heads >= 1 and self.hidden[0] % self.heads == 0
        runner.require(divides, "--heads", self.heads, f"a divisor of the width {self.hidden[0]}")
        runner.require(0 <= self.seed <= 2**30, "--seed", self.seed, "in [0, 2³⁰]")


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


TINY = Config(
    cues=2,
    delay=1,
    recall_seeds=2,
    recall_updates=2,
    recall_episodes=4,
    memory_size=2,
    lengths=(2,),
    seeds=2,
    updates=2,
    evaluate_every=1,
    episodes=4,
    group_size=2,
    hidden=(4,),
    heads=2,
    eval_prompts=4,
    token_lengths=(2,),
    token_episodes=(4,),
    repetitions=2,
    repeated_updates=1,
)


# (a) Recall.


class Recall(NamedTuple):
    """Network → mean returns `[S, U]` of the episodes of each update; the exact best values without and with memory."""

    curves: dict[str, np.ndarray]
    without: float
    with_memory: float


def best_values(mdp: exact.TabularMDP) -> tuple[float, float]:
    """The exact best value of recall without memory, over all deterministic policies f(x), and with memory.

    A policy without memory draws its answer from f(blank, θ), so that its value is linear in f(blank, θ) and no
    stochastic one is better than the best deterministic one.
    """
    cues, seen = mdp.num_actions, jnp.argmax(mdp.observations, axis=1)
    actions = np.indices((cues,) * (cues + 1)).reshape(cues + 1, -1).T

    def value(chosen: jax.Array) -> jax.Array:
        probabilities = jax.nn.one_hot(chosen[seen], cues, dtype=mdp.rewards.dtype)
        return mdp.initial @ exact.state_values(mdp, probabilities)[0]

    values = jax.jit(lambda actions: jax.lax.map(value, actions, batch_size=1024))(jnp.asarray(actions))
    best = mdp.initial @ exact.optimal_action_values(mdp)[0].max(-1)
    return float(values.max()), float(best)


def recall(config: Config, recorder: runner.Recorder) -> Recall:
    environment, mdp = make_recall(config.cues, config.delay), recall_mdp(config.cues, config.delay)
    without, with_memory = best_values(mdp)
    keys = jax.vmap(jax.random.key)(config.seed + jnp.arange(config.recall_seeds))
    gru_options = {"memory_size": config.memory_size}
    policies = {
        GRU: networks.make_policy(environment, network="gru", hidden=(), network_options=gru_options),
        MLP: networks.make_policy(environment),
    }
    curves, how = {}, (config.recall_learning_rate, config.recall_episodes)
    with recorder.progress(len(policies) * keys.size * config.recall_updates, "recall", "updates") as progress:
        for name, policy in policies.items():
            build = lambda _, policy=policy: strings.make_rloo_trainer(environment, policy, *how)
            heard = lambda done, metrics, states, name=name: progress.advance(
                metrics["mean_return"].size, f"{name}: {metrics['mean_return'][:, -1].mean():.0%} named"
            )
            trained = training.train(build, keys, num_updates=config.recall_updates, on_chunk=heard)
            curves[name], params = trained.metrics["mean_return"], trained.states.params
            learning_curves.row_of_runs(
                recorder,
                greedy_returns(environment, policy, params, keys, config.eval_prompts),
                ranges.SHARE,
                quantity=f"(a) share of cues named, delay {config.delay}, greedy",
                variant=name,
                exact=with_memory if name == GRU else without,
                seconds=trained.seconds,
            )
    values = jax.jit(jax.vmap(lambda params: exact.objective(policies[MLP].apply, params, mdp)))(params)
    learning_curves.row_of_runs(
        recorder, values, ranges.SHARE, quantity="(a) ρ(θ) of what training found", variant=MLP, exact=without
    )
    recorder.note(
        f"(a) The exact values are the best one with memory, and the best one of all {config.cues}^{config.cues + 1} "
        "deterministic policies without memory. Seconds are those of all seeds together, without compilation."
    )
    return Recall(curves=curves, without=without, with_memory=with_memory)


def greedy_returns(environment: Environment, policy: Policy, params: PyTree, keys: jax.Array, count: int) -> np.ndarray:
    """Mean returns of `count` greedy episodes of each run, `[S]`; parameters and keys have leading axes `[S]`."""

    def mean(run: tuple[PyTree, jax.Array]) -> jax.Array:
        params, key = run
        # Updates fold small numbers into the key of a run. They never reach this number.
        episode_keys = jax.random.split(jax.random.fold_in(key, 2**31 - 1), count)
        played = rollouts.episodes(environment, evaluation.greedy(policy), params, episode_keys)
        return jnp.mean(evaluation.episode_returns(played)[0])

    return np.asarray(jax.jit(lambda runs: jax.lax.map(mean, runs))((params, keys)))


# (b) Reverse.


def reverse(config: Config, recorder: runner.Recorder) -> dict[int, learning_curves.Learnt]:
    """Length → the results of its training. Rows go to the recorder."""
    how = {"episodes": config.episodes, "num_updates": config.updates, "every": config.evaluate_every}
    how |= {"seeds": range(config.seed, config.seed + config.seeds), "num_prompts": config.eval_prompts}
    learn = lambda length: strings.learn_to_reverse(config.recipe(), length, recorder, **how)
    found = {length: learn(length) for length in config.lengths}
    strings.record_reversed(found, recorder)
    return found


def run(config: Config, recorder: runner.Recorder) -> dict:
    results: dict = {"config": config}
    if "recall" in config.parts:
        with recorder.timed("(a) recall"):
            results["recall"] = recall(config, recorder)
    if "reverse" in config.parts:
        with recorder.timed("(b) reverse"):
            results["reverse"] = reverse(config, recorder)
    if "tokens" in config.parts:
        with recorder.timed("(c) tokens per second"):
            results["tokens"] = measure_tokens(config, recorder)
    for count in sorted({config.recall_seeds, config.seeds}):
        if few := diagnostics.few_runs(count, "seeds"):
            recorder.note(few)
    return results


def measure_tokens(config: Config, recorder: runner.Recorder) -> dict[tuple[int, int], strings.Rates]:
    """(Symbols, episodes) → the measurements of part (c)."""
    found, how = {}, (config.repeated_updates, config.repetitions, config.seed)
    with recorder.progress(len(config.token_lengths), "tokens per second", "problems") as progress:
        for problem in zip(config.token_lengths, config.token_episodes, strict=True):
            found[problem] = strings.measure(config.recipe(), *problem, *how)
            progress.advance(1, f"ratio {statistics.median(found[problem].ratios):.2f}")
    strings.record_rates(found, recorder)
    return found


def plot(results: dict, recorder: runner.Recorder) -> None:
    from experiments.memory import drawing

    drawn = {"recall": drawing.plot_recall, "reverse": drawing.plot_reverse, "tokens": drawing.plot_tokens}
    for part, draw in drawn.items():
        if part in results:
            draw(results["config"], results[part], recorder)
