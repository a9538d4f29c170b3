"""Answers that can be enumerated, their scores, and a policy with logits of its own after every prefix.

Axes: N answers, T tokens of the longest answer, V tokens of the vocabulary, M prefixes.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pgjax import exact
from pgjax.distributions import categorical
from pgjax.types import Policy


class Problem(NamedTuple):
    """All answers to one prompt.

    Attributes:
        answers: all answers and prefixes.
        scores: r of each answer `[N]`, in the order of `answers`.
        every: the same answers as trajectories, in the order of the enumeration. The score is paid with the last token,
            and the observation is the number of the prefix.
        policy: a table of logits `[M, V]`.
    """

    answers: exact.Answers
    scores: jax.Array
    every: exact.Enumeration
    policy: Policy


def make_problem(vocabulary: int, length: int, *, eos: bool, seed: int) -> Problem:
    """All answers of `length` tokens; with `eos` the last token of the vocabulary ends an answer earlier.

    The scores are standard normal numbers, drawn with `seed`.
    """
    answers = exact.enumerate_answers(vocabulary, length, eos=vocabulary - 1 if eos else None)
    scores = np.random.default_rng(seed).standard_normal(answers.num_answers)
    mdp = exact.text_mdp(answers, lambda tokens, length: length, scores, name="answers")
    prefixes = answers.num_prefixes
    # The prefixes are the first states. Nothing is written in the others.
    mdp = dataclasses.replace(mdp, observations=jnp.minimum(jnp.arange(mdp.num_states, dtype=jnp.int32), prefixes - 1))
    policy = Policy(
        init=lambda key, obs: jnp.zeros((prefixes, vocabulary)),
        apply=lambda table, prefix: table[prefix],
        distribution=categorical,
    )
    every = exact.enumerate_trajectories(mdp)
    return Problem(answers=answers, scores=jnp.asarray(scores), every=every, policy=policy)


def log_probs(problem: Problem, params: jax.Array) -> jax.Array:
    """Return ln π of each answer, `[N]`, in the order of `answers`."""
    return exact.answer_log_probs(problem.answers, jax.nn.log_softmax(params))


def divergence(problem: Problem, params: jax.Array, reference: jax.Array) -> jax.Array:
    """Return KL(π ‖ π_ref) over whole answers."""
    return exact.kl_divergence(log_probs(problem, params), log_probs(problem, reference))


def regularised(problem: Problem, params: jax.Array, reference: jax.Array, kl_coef: float) -> exact.Regularised:
    """Return what is known of π beside π_ref and the best policy π* ∝ π_ref e^{r/β}."""
    return exact.regularised(log_probs(problem, params), log_probs(problem, reference), problem.scores, kl_coef)
