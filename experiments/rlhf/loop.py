"""The loop of one run as pure functions of its state: sample, compare, fit, optimise, evaluate.

A run's state holds θ, the reference, the reward model, β and all comparisons so far, so one compiled program for each
stage serves every round, every seed and every β. Axes: N comparisons of all rounds, M reference answers, U updates.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.rlhf.gold import Gold
from experiments.shared import language
from pgjax import acting, networks, preferences, registry, rewards, rollouts, training
from pgjax.datasets.text import Document, Windows
from pgjax.environments.text import TextBuffer
from pgjax.preferences import annotators, fitting, reward_models
from pgjax.types import Environment, Policy, PyTree, Rewards, TrainState, Trajectory

Found = dict[str, jax.Array]
Labelled = tuple[preferences.Comparisons, jax.Array]  # comparisons and their weights `[N]`


class State(NamedTuple):
    """One run between two stages; saved and restored whole.

    Attributes:
        train: θ, the optimiser, and in `reward_state` the reward model, β and θ_ref.
        comparisons: N comparisons of all rounds; those that are not yet made have weight 0.
        weights: float `[N]`.
        reference: M answers of the reference policy, on which reward models are normalised; leaves `[M, ...]`.
        key: the key of the run; each stage folds its number into it.
    """

    train: TrainState
    comparisons: preferences.Comparisons
    weights: jax.Array
    reference: TextBuffer
    key: jax.Array


@dataclasses.dataclass(frozen=True)
class Sizes:
    """The sizes and numbers of the loop that are fixed while it is compiled."""

    rounds: int
    pairs: int
    updates: int
    episodes: int
    group_size: int
    evaluated: int
    reference: int
    estimator: str
    learning_rate: float
    temperature: float
    reward_width: int
    reward_epochs: int


class Problem(NamedTuple):
    """The text of the loop: prompts for training and for evaluation, held-out windows, the gold score.

    Attributes:
        train, test: text environments, whose reward is the gold score.
        policy: f(x, θ) of both.
        windows: held-out text, and its number of bytes.
        gold: the score.
    """

    train: Environment
    test: Environment
    policy: Policy
    windows: Windows
    num_bytes: int
    gold: Gold


class Loop(NamedTuple):
    """The stages of one run.

    Attributes:
        begin: `(key, β, θ, Labelled | None) → State`.
        sample: `(State, round) → (State, found)`: pairs of answers, and their comparisons.
        fit: `(State, round) → (State, found)`: a new reward model, normalised.
        optimise: `(State, round) → (State, found [U])`.
        evaluate: `(State, round) → (State, found)`: numbers, and the answers.
        scored: the normalised reward model of buffers, whose φ is in the state.
    """

    begin: Callable[..., State]
    sample: Callable[[State, jax.Array], tuple[State, PyTree]]
    fit: Callable[[State, jax.Array], tuple[State, Found]]
    optimise: Callable[[State, jax.Array], tuple[State, Found]]
    evaluate: Callable[[State, jax.Array], tuple[State, PyTree]]
    scored: preferences.RewardModel


# Bytes by what a reward model tells apart: 26 letters, capitals, white space, ends of sentences, digits, EOS, the rest.
CLASSES = 32
_CLASS_OF = np.full(256, 26, np.int32)
for _byte in range(256):
    if chr(_byte).isascii() and chr(_byte).isalpha():
        _CLASS_OF[_byte] = _byte - 97 if _byte >= 97 else 27
    elif chr(_byte) in " \n\t":
        _CLASS_OF[_byte] = 28
    elif chr(_byte) in ".!?":
        _CLASS_OF[_byte] = 29
    elif chr(_byte).isascii() and chr(_byte).isdigit():
        _CLASS_OF[_byte] = 30
_CLASS_OF[language.BYTES.eos] = 31


def make_features(max_new_tokens: int) -> reward_models.Features:
    """The features `[1 + 32²]` of an answer: its length, and how often each pair of classes of bytes occurs in it."""
    pairs = reward_models.ngrams(CLASSES, n=2, scale=4.0)
    of_classes = lambda buffer: pairs(buffer._replace(tokens=jnp.asarray(_CLASS_OF)[buffer.tokens.astype(jnp.int32)]))
    return reward_models.joined(reward_models.length(max_new_tokens), of_classes)


def meter(name: str) -> Rewards:
    """A stage that changes nothing and reports the mean return at its place."""

    def read(params: PyTree, state: PyTree, trajectory: Trajectory):
        return trajectory, {name: jnp.mean(jnp.sum(trajectory.rewards, axis=0))}

    return rewards.transform(lambda trajectory: trajectory)._replace(relabel=read)


def make_loop(problem: Problem, sizes: Sizes, *, labelled: bool) -> Loop:
    """The stages as functions.

    Args:
        problem: the text.
        sizes: the sizes.
        labelled: whether the comparisons are given, so that `sample` adds none.

    Raises:
        ValueError: if the estimator is unknown, or needs more than a policy and groups.
    """
    policy = problem.policy
    features = make_features(problem.train.horizon)
    base = reward_models.mlp(hidden=(sizes.reward_width,))
    model = reward_models.normalised(base)
    scored = reward_models.on_features(model, features)
    num_pairs = sizes.rounds * sizes.pairs
    shape = jax.eval_shape(lambda: problem.train.reset(jax.random.key(0), problem.train.params)[1])
    empty = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shape)
    repeated = lambda count: jax.tree.map(lambda x: jnp.zeros((count, *x.shape), x.dtype), shape)
    trainer = _make_trainer(problem, sizes, scored, scored.init(jax.random.key(0), empty))

    def play(environment: Environment, params: PyTree, key: jax.Array, count: int, group_size: int = 1) -> Trajectory:
        keys = jax.random.split(key, count)
        return rollouts.episodes(environment, policy, params, keys, group_size=group_size, record_log_probs=True)

    def begin(key: jax.Array, kl_coef: jax.Array, params: PyTree, given: Labelled | None) -> State:
        run_key, trainer_key, reference_key = jax.random.split(key, 3)
        train = trainer.init(trainer_key)
        model_state, meter_state, penalty = train.reward_state
        penalty = penalty._replace(kl_coef=kl_coef, reference=params)
        if given is None:
            outcomes, margins = jnp.zeros(num_pairs, jnp.int32), jnp.zeros(num_pairs)
            comparisons = preferences.Comparisons(repeated(num_pairs), repeated(num_pairs), outcomes, margins)
            weights = jnp.zeros(num_pairs)
        else:
            comparisons, weights = given
        return State(
            train=train._replace(params=params, reward_state=(model_state, meter_state, penalty)),
            comparisons=comparisons,
            weights=weights,
            reference=play(problem.train, params, reference_key, sizes.reference).final_obs,
            key=run_key,
        )

    def sample(state: State, number: jax.Array) -> tuple[State, PyTree]:
        play_key, label_key = jax.random.split(_key(state, number, 0))
        played = play(problem.train, state.train.params, play_key, 2 * sizes.pairs, group_size=2)
        golds = jnp.sum(played.rewards, axis=0).reshape(-1, 2)
        outcomes = annotators.compare(label_key, annotators.Annotator(temperature=sizes.temperature), golds)
        log_probs = jnp.sum(played.behaviour_log_probs, axis=0)
        found = {"answers": played.final_obs, "log_probs": log_probs}
        if labelled:
            return state, found
        side = lambda i: jax.tree.map(lambda x: x[i::2], played.final_obs)
        new = preferences.Comparisons(side(0), side(1), outcomes, jnp.zeros(sizes.pairs))
        put = lambda old, rows: jax.lax.dynamic_update_slice_in_dim(
            old, rows.astype(old.dtype), number * sizes.pairs, 0
        )
        comparisons = jax.tree.map(put, state.comparisons, new)
        return state._replace(comparisons=comparisons, weights=put(state.weights, jnp.ones(sizes.pairs))), found

    def fit(state: State, number: jax.Array) -> tuple[State, Found]:
        described = lambda buffers: reward_models.features_of(features, buffers)
        labels = state.comparisons._replace(
            first=described(state.comparisons.first), second=described(state.comparisons.second)
        )
        found = fitting.fit(
            _key(state, number, 1),
            base,
            labels,
            REWARD_OPTIMIZER,
            num_epochs=sizes.reward_epochs,
            batch_size=64,
            weights=state.weights,
        )
        fitted = reward_models.normalise(base, found.params, described(state.reference))
        judged = fitting.evaluate(base, found.params, labels, weights=state.weights)
        model_state, *others = state.train.reward_state
        train = state.train._replace(reward_state=(model_state._replace(params=fitted), *others))
        return state._replace(train=train), {name: judged[name] for name in ("loss", "accuracy")}

    def optimise(state: State, number: jax.Array) -> tuple[State, Found]:
        del number  # the trainer counts its updates itself
        train, metrics = jax.lax.scan(lambda s, _: trainer.update(s), state.train, length=sizes.updates)
        kept = {"gold": "mean_return", "proxy": "proxy", "kl": "kl", "length": "mean_length"}
        return state._replace(train=train), {name: metrics[source] for name, source in kept.items()}

    def evaluate(state: State, number: jax.Array) -> tuple[State, PyTree]:
        # The same prompts and random numbers in every round: differences between rounds are then those of θ.
        del number
        params = state.train.params
        played = play(problem.test, params, _key(state, jnp.int32(0), 2), sizes.evaluated)
        model_state, _, penalty = state.train.reward_state
        proxies = jax.vmap(scored.apply, (None, 0))(model_state.params, played.final_obs)
        golds = jnp.sum(played.rewards, axis=0)
        log_ratios = played.behaviour_log_probs - acting.log_probs(policy, penalty.reference, played)
        found = _answers(problem, played) | {
            "gold": jnp.mean(golds),
            "proxy": jnp.mean(proxies),
            "correlation": _correlation(golds, proxies),
            "kl": jnp.mean(jnp.sum(jnp.where(played.alive, log_ratios, 0.0), axis=0)),
            "entropy": _entropy(policy, params, played),
            "bits_per_byte": _bits(policy, params, problem),
        }
        return state, {"numbers": found, "answers": played.final_obs}

    return Loop(begin=begin, sample=sample, fit=fit, optimise=optimise, evaluate=evaluate, scored=scored)


# One object: the fit compiles once for each.
REWARD_OPTIMIZER = optax.adamw(3e-3, weight_decay=1.0)


def _key(state: State, number: jax.Array, stage: int) -> jax.Array:
    return jax.random.fold_in(jax.random.fold_in(state.key, number), stage)


def _make_trainer(
    problem: Problem, sizes: Sizes, scored: preferences.RewardModel, reward_params: PyTree
) -> training.Trainer:
    stages = rewards.in_turn(
        reward_models.stage(scored, reward_params), meter("proxy"), rewards.kl_penalty(problem.policy, kl_coef=0.0)
    )
    parts = registry.Parts(policy=problem.policy, group_size=sizes.group_size)
    return training.make_trainer(
        problem.train,
        problem.policy,
        registry.make(sizes.estimator, parts),
        optax.chain(optax.clip_by_global_norm(1.0), optax.adam(sizes.learning_rate)),
        num_episodes=sizes.episodes,
        group_size=sizes.group_size,
        rewards=stages,
    )


def _answers(problem: Problem, played: Trajectory) -> Found:
    """Means over the answers: their length, the share with EOS, and the parts of the gold score."""
    parts = jax.vmap(problem.gold.parts, (0, None))(played.final_obs, problem.gold.params)
    length = jnp.sum(played.alive, axis=0)
    last = played.final_obs.tokens[jnp.arange(length.shape[0]), played.final_obs.length - 1]
    more = {"length": length.astype(float), "ended": (last == language.BYTES.eos).astype(float)}
    return jax.tree.map(jnp.mean, {**parts, **more})


def _correlation(x: jax.Array, y: jax.Array) -> jax.Array:
    """The correlation of two scores over answers; 0 if one of them is the same for all."""
    x, y = x - jnp.mean(x), y - jnp.mean(y)
    size = jnp.sqrt(jnp.sum(x * x) * jnp.sum(y * y))
    return jnp.where(size > 0, jnp.sum(x * y) / jnp.where(size > 0, size, 1.0), 0.0)


def _entropy(policy: Policy, params: PyTree, played: Trajectory) -> jax.Array:
    """The mean entropy of f(X_t, θ) over the tokens that were written, in nats."""
    outputs = acting.outputs(policy, params, acting.inputs(policy, played))
    entropies = jax.vmap(policy.distribution.entropy)(outputs)
    alive = acting.rows_of(policy, played.alive)
    return jnp.sum(jnp.where(alive, entropies, 0.0)) / jnp.sum(alive)


def _bits(policy: Policy, params: PyTree, problem: Problem) -> jax.Array:
    """Bits per byte of the held-out sentences with their EOS."""
    return language.count_bits(policy, params, language.as_data(problem.windows)) / problem.num_bytes


def make_problem(
    model: networks.LlamaConfig,
    prompts: tuple[language.Prompts, language.Prompts],
    held_out: tuple[Document, ...],
    gold: Gold,
    max_new_tokens: int,
) -> Problem:
    """The problem of prompts for training and for evaluation."""
    make = lambda chosen: language.make_writer(chosen, max_new_tokens, gold.score, gold.params)
    train, test = map(make, prompts)
    return Problem(
        train=train,
        test=test,
        policy=networks.make_language_policy(train, model),
        windows=language.held_out_windows(held_out, model.context),
        num_bytes=language.text.num_bytes(held_out),
        gold=gold,
    )
