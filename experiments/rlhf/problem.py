"""The text of the loop, the features of its reward model, and what an evaluation measures on answers."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.rlhf.gold import Gold
from experiments.shared import language
from pgjax import acting, networks, rollouts
from pgjax.datasets.text import Document, Windows
from pgjax.environments.text import TextBuffer
from pgjax.preferences import reward_models
from pgjax.types import Environment, Policy, PyTree, Trajectory


class Problem(NamedTuple):
    """The text of the loop: prompts for training and for evaluation, held-out windows, the gold score.

    Attributes:
        model: the sizes of the language model.
        train, test: text environments, whose reward is the gold score.
        policy: f(x, θ) of both.
        windows: held-out text, and its number of bytes.
        gold: the score.
    """

    model: networks.LlamaConfig
    train: Environment
    test: Environment
    policy: Policy
    windows: Windows
    num_bytes: int
    gold: Gold


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
        model=model,
        train=train,
        test=test,
        policy=networks.make_language_policy(train, model),
        windows=language.held_out_windows(held_out, model.context),
        num_bytes=language.text.num_bytes(held_out),
        gold=gold,
    )


# The reward model does not tell bytes of one class apart. The classes are: each small letter alone (0 to 25), all other
# bytes (26), capitals (27), white space (28), ends of sentences (29), digits (30), and EOS (31).
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


def play(
    problem: Problem, environment: Environment, params: PyTree, key: jax.Array, count: int, group_size: int = 1
) -> Trajectory:
    """Answers of the policy to random prompts, with their log-probabilities; those of a group share their prompt."""
    keys = jax.random.split(key, count)
    return rollouts.episodes(environment, problem.policy, params, keys, group_size=group_size, record_log_probs=True)


def measure(
    problem: Problem, params: PyTree, reference: PyTree, proxies: jax.Array, played: Trajectory
) -> dict[str, jax.Array]:
    """The numbers of an evaluation, means over the answers.

    Args:
        params, reference: θ and θ_ref.
        proxies: the scores of a reward model `[B]`.
        played: answers of θ to the prompts of the evaluation.
    """
    golds = jnp.sum(played.rewards, axis=0)
    log_ratios = played.behaviour_log_probs - acting.log_probs(problem.policy, reference, played)
    return _of_answers(problem, played) | {
        "gold": jnp.mean(golds),
        "proxy": jnp.mean(proxies),
        "correlation": _correlation(golds, proxies),
        "kl": jnp.mean(jnp.sum(jnp.where(played.alive, log_ratios, 0.0), axis=0)),
        "entropy": _entropy(problem.policy, params, played),
        "bits_per_byte": _bits(problem, params),
    }


def _of_answers(problem: Problem, played: Trajectory) -> dict[str, jax.Array]:
    """Means over the answers: their length, the share with EOS, and the parts of the gold score."""
    buffers: TextBuffer = played.final_obs
    parts = jax.vmap(problem.gold.parts, (0, None))(buffers, problem.gold.params)
    length = jnp.sum(played.alive, axis=0)
    last = buffers.tokens[jnp.arange(length.shape[0]), buffers.length - 1]
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


def _bits(problem: Problem, params: PyTree) -> jax.Array:
    """Bits per byte of the held-out sentences with their EOS."""
    return language.count_bits(problem.policy, params, language.as_data(problem.windows)) / problem.num_bytes
