"""All answers of T tokens from V symbols, whose states are the prefixes; by hand in NumPy, and as an MDP."""

import itertools
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from pgjax import exact


class Tree(NamedTuple):
    """N = V^T answers.

    Attributes:
        answers: `[N, T]`.
        states: the number of the prefix before each token, `[N, T]`; shorter prefixes come first.
        mdp: the same as an MDP, whose last state is the end. The score is paid for the last token.
        scores: the score of each answer, `[N]`.
    """

    answers: np.ndarray
    states: np.ndarray
    mdp: exact.TabularMDP
    scores: np.ndarray


def make_tree(vocabulary, length, scores):
    """The tree of answers with their scores `[N]`, in the order of `itertools.product`."""
    answers = np.array(list(itertools.product(range(vocabulary), repeat=length)))
    first = np.cumsum([0, *(vocabulary**t for t in range(length))])
    codes = np.stack([answers[:, :t] @ vocabulary ** np.arange(t)[::-1] for t in range(length)], axis=1)
    states, end = first[:length] + codes, int(first[-1])
    successors = np.full((end + 1, vocabulary, 1), end)
    rewards = np.zeros((end + 1, vocabulary, 1))
    for t in range(length - 1):
        successors[states[:, t], answers[:, t], 0] = states[:, t + 1]
    rewards[states[:, -1], answers[:, -1], 0] = scores
    mdp = exact.make_tabular_mdp(
        initial=np.eye(end + 1)[0],
        successors=successors,
        probabilities=np.ones_like(rewards),
        rewards=rewards,
        terminal=np.arange(end + 1) == end,
        horizon=length,
        name="answers",
    )
    return Tree(answers=answers, states=states, mdp=mdp, scores=np.asarray(scores))


class ByHand:
    """Expected gradients of penalties, as sums over answers with scores that are written out."""

    def __init__(self, tree, params, reference):
        self.tree = tree
        self.log_f, self.log_ref = (x - np.log(np.exp(x).sum(-1, keepdims=True)) for x in (params, reference))
        taken = (tree.states, tree.answers)
        self.ratios = self.log_f[taken] - self.log_ref[taken]
        self.probabilities = np.exp(self.log_f[taken].sum(1))
        # ψ_t of each step, [N, T, S, A]
        rows = np.eye(len(params))[tree.states]
        choice = np.eye(params.shape[1])[tree.answers] - np.exp(self.log_f)[tree.states]
        self.scores = rows[..., None] * choice[..., None, :]
        self.divergence = self.probabilities @ self.ratios.sum(1)
        self.gradient = self.weighted(self.ratios.sum(1, keepdims=True))

    def weighted(self, weights):
        """E Σ_t w_t ψ_t for w `[N, T]` or `[N, 1]`."""
        return np.einsum("n,nt,ntsa->sa", self.probabilities, np.broadcast_to(weights, self.ratios.shape), self.scores)

    def of_states(self, p, q):
        """Σ_s P(s) ∂KL(p_s ‖ q_s)/∂θ_s where θ holds the logits of p, or of q if it is the policy."""
        visits = np.zeros(len(p))
        np.add.at(visits, self.tree.states, self.probabilities[:, None])
        if q is self.log_f:
            return visits[:, None] * (np.exp(q) - np.exp(p))
        inner = p - q
        return visits[:, None] * np.exp(p) * (inner - (np.exp(p) * inner).sum(-1, keepdims=True))


def values(kind, ratio):
    """k of a log-ratio."""
    return {"k1": ratio, "k2": ratio**2 / 2, "k3": np.exp(-ratio) - 1 + ratio}[kind]


def slopes(kind, ratio):
    """dk/dℓ."""
    return {"k1": np.ones_like(ratio), "k2": ratio, "k3": 1 - np.exp(-ratio)}[kind]


def as_params(table):
    """θ of the tabular policy from the logits of the prefixes: one more row, for the end."""
    return jnp.asarray(np.concatenate([table, np.zeros_like(table[:1])]))
