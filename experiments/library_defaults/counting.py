"""A task with prompts, groups and answers of different lengths, small enough to list every batch.

Axes: N answers to all prompts, T tokens of the longest answer, k answers of a group, G groups of a batch, B = G k,
M batches, S states.
"""

import itertools
import math
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from experiments.shared.multisets import multisets
from pgjax import exact
from pgjax.distributions import categorical
from pgjax.types import Policy

LETTER, END = 0, 1


def counting_mdp(asked: tuple[int, ...], length: int) -> exact.TabularMDP:
    """Write the number of letters that the prompt asks for, then the end token. The score is 1 if that is done, else 0.

    A token is a letter or the end. An answer that has no end token after T tokens is cut and scores 0. State p T + t
    belongs to prompt p and t letters; the prompts are equally likely.

    Args:
        asked: the number of letters that each prompt asks for, from 0 to T − 1.
        length: T.
    """
    last = len(asked) * length
    successors = np.full((last + 1, 2, 1), last)
    rewards = np.zeros((last + 1, 2, 1))
    for prompt, letters in enumerate(asked):
        states = prompt * length + np.arange(length)
        successors[states[:-1], LETTER, 0] = states[1:]
        rewards[states[letters], END] = 1.0
    initial = np.zeros(last + 1)
    initial[np.arange(len(asked)) * length] = 1 / len(asked)
    return exact.make_tabular_mdp(
        initial=initial,
        successors=successors,
        probabilities=np.ones_like(rewards),
        rewards=rewards,
        terminal=np.arange(last + 1) == last,
        horizon=length,
        name="counting",
    )


class Batches(NamedTuple):
    """All batches of G groups of k answers to one prompt each, whatever their order.

    Attributes:
        indices: the answers of each batch, int32 `[M, B]`; a group's answers are consecutive.
        weights: the probability of each batch `[M]`; they sum to 1.
    """

    indices: np.ndarray
    weights: np.ndarray


def all_batches(every: exact.Enumeration, probabilities: np.ndarray, group_size: int, num_groups: int) -> Batches:
    """List the batches; estimates must not depend on the order of groups, nor of the answers in a group."""
    starts, initial = np.asarray(every.states)[0], np.asarray(every.mdp.initial)
    groups, chances = [], []
    for start in np.unique(starts):
        members = np.flatnonzero(starts == start)
        chosen, ways = multisets(members.size, group_size)
        given = np.asarray(probabilities)[members] / initial[start]
        groups.append(members[chosen])
        chances.append(initial[start] * ways * given[chosen].prod(axis=1))
    groups, chances = np.concatenate(groups), np.concatenate(chances)
    several = np.array(list(itertools.combinations_with_replacement(range(len(groups)), num_groups)), np.int32)
    orders = [math.factorial(num_groups) / math.prod(math.factorial(n) for n in np.bincount(row)) for row in several]
    return Batches(
        indices=groups[several].reshape(len(several), -1).astype(np.int32),
        weights=np.array(orders) * chances[several].prod(axis=1),
    )


class Task(NamedTuple):
    """The task at a fixed policy.

    Attributes:
        every: all answers to all prompts.
        policy: a table of logits `[S, 2]`.
        params, reference: θ and θ_ref.
        probabilities: of each answer, with its prompt, `[N]`.
    """

    every: exact.Enumeration
    policy: Policy
    params: jnp.ndarray
    reference: jnp.ndarray
    probabilities: np.ndarray


def make_task(asked: tuple[int, ...], length: int, spread: float, seed: int) -> Task:
    """Draw a reference with logits of the given spread, and a policy that has moved from it by as much again."""
    mdp = counting_mdp(asked, length)
    every = exact.enumerate_trajectories(mdp)
    draw = np.random.default_rng(seed).standard_normal
    reference = spread * draw((mdp.num_states, 2))
    params = jnp.asarray(reference + spread * draw((mdp.num_states, 2)))
    policy = Policy(init=lambda key, obs: params, apply=lambda table, obs: obs @ table, distribution=categorical)
    probabilities = exact.trajectory_probabilities(policy.apply, params, every)
    return Task(
        every=every,
        policy=policy,
        params=params,
        reference=jnp.asarray(reference),
        probabilities=np.asarray(probabilities),
    )


def divergence(task: Task, params: jnp.ndarray) -> jnp.ndarray:
    """KL(π ‖ π_ref) of an answer, the mean over prompts."""
    of = lambda theta: exact.trajectory_probabilities(task.policy.apply, theta, task.every)
    p = of(params)
    return jnp.sum(p * (jnp.log(p) - jnp.log(of(task.reference))))


def values_of(task: Task, rewards: jnp.ndarray) -> jnp.ndarray:
    """E[Σ_{l≥t} R_{l+1} | state] of each state `[S]` for rewards `[T, N]` of all answers; 0 where there is no token."""
    alive, states = np.asarray(task.every.trajectories.alive), np.asarray(task.every.states)
    to_go = jnp.cumsum(rewards[::-1], axis=0)[::-1]
    weights = np.where(alive, task.probabilities[None], 0.0)
    count = task.every.mdp.num_states
    total = jnp.zeros(count).at[states].add(weights * to_go)
    visits = jnp.zeros(count).at[states].add(weights)
    return total / jnp.where(visits > 0, visits, 1.0)
