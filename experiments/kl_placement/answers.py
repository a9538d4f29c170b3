"""Answers that can be enumerated: every sequence of tokens, its score, and the exact optimum with a KL penalty.

Axes: N answers, T tokens of the longest answer, V tokens of the vocabulary, S states (prefixes and the end).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pgjax import exact
from pgjax.distributions import categorical
from pgjax.types import Policy


class Answers(NamedTuple):
    """All answers to one prompt.

    Attributes:
        mdp: a state for each unfinished answer, observed one-hot, and one for the end. The score is paid with the last
            token.
        every: all answers as trajectories.
        scores: r of each answer `[N]`, in the order of `every`.
        policy: a table of logits `[S, V]`, one row for each unfinished answer.
    """

    mdp: exact.TabularMDP
    every: exact.Enumeration
    scores: np.ndarray
    policy: Policy


def make_answers(vocabulary: int, length: int, *, eos: bool, seed: int) -> Answers:
    """All answers of `length` tokens; with `eos` the last token of the vocabulary ends an answer earlier.

    The scores are standard normal numbers, drawn with `seed`.
    """
    prefixes, successors = [()], []
    finished = 0
    for prefix in prefixes:
        row = []
        for token in range(vocabulary):
            if len(prefix) + 1 == length or (eos and token == vocabulary - 1):
                finished += 1
                row.append(-finished)
            else:
                prefixes.append((*prefix, token))
                row.append(len(prefixes) - 1)
        successors.append(row)
    table, end = np.array(successors), len(prefixes)
    drawn = np.random.default_rng(seed).standard_normal(finished + 1)
    rewards = np.where(table < 0, drawn[-np.minimum(table, 0)], 0.0)
    close = lambda x, last: np.concatenate([x, np.full((1, vocabulary), last)])[..., None]
    mdp = exact.make_tabular_mdp(
        initial=np.eye(end + 1)[0],
        successors=close(np.where(table < 0, end, table), end),
        probabilities=np.ones((end + 1, vocabulary, 1)),
        rewards=close(rewards, 0.0),
        terminal=np.arange(end + 1) == end,
        horizon=length,
        name="answers",
    )
    every = exact.enumerate_trajectories(mdp)
    policy = Policy(
        init=lambda key, obs: jnp.zeros((end + 1, vocabulary)),
        apply=lambda table, obs: obs @ table,
        distribution=categorical,
    )
    return Answers(mdp=mdp, every=every, scores=np.asarray(every.trajectories.rewards.sum(0)), policy=policy)


def log_probabilities(answers: Answers, params: jax.Array) -> jax.Array:
    """Return ln π of each answer, `[N]`."""
    return jnp.log(exact.trajectory_probabilities(answers.policy.apply, params, answers.every))


def divergence(answers: Answers, params: jax.Array, reference: jax.Array) -> jax.Array:
    """Return KL(π ‖ π_ref) = E ln(π/π_ref) over whole answers."""
    log_pi = log_probabilities(answers, params)
    return jnp.sum(jnp.exp(log_pi) * (log_pi - log_probabilities(answers, reference)))


def objective(answers: Answers, params: jax.Array, reference: jax.Array, kl_coef: jax.Array) -> jax.Array:
    """Return J = E[r] − β KL(π ‖ π_ref)."""
    mean = jnp.sum(jnp.exp(log_probabilities(answers, params)) * answers.scores)
    return mean - kl_coef * divergence(answers, params, reference)


class Optimum(NamedTuple):
    """The best policy π* ∝ π_ref e^{r/β}: ln π* of each answer `[N]`, and its value J* = β ln Σ π_ref e^{r/β}."""

    log_probabilities: jax.Array
    value: jax.Array


def optimum(answers: Answers, reference: jax.Array, kl_coef: jax.Array) -> Optimum:
    """Return the optimum of J over all distributions of answers."""
    tilted = log_probabilities(answers, reference) + answers.scores / kl_coef
    log_z = jax.nn.logsumexp(tilted)
    return Optimum(log_probabilities=tilted - log_z, value=kl_coef * log_z)


def regret(answers: Answers, params: jax.Array, reference: jax.Array, kl_coef: jax.Array) -> jax.Array:
    """Return β KL(π ‖ π*), which equals J* − J(π)."""
    log_pi = log_probabilities(answers, params)
    best = optimum(answers, reference, kl_coef)
    return kl_coef * jnp.sum(jnp.exp(log_pi) * (log_pi - best.log_probabilities))
