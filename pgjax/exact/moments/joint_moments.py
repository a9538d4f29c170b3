"""Exact moments of (G_1 − b) Σ_t ψ_t, one episode's total return times its score, without enumeration.

A backward dynamic program computes the joint moments of return and score, so mean and variance cost O(T S² A P), while
enumeration costs a sum over all trajectories.

Axes: T time (the horizon), S states, A actions, K outcomes, P parameters in the order of `ravel_pytree`.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jax.typing import ArrayLike

from pgjax._doors import readable
from pgjax.exact.mdp.averages import outcome_matrix, outer_average, running_probabilities, symmetric_average
from pgjax.exact.mdp.dynamic_programming import Apply, state_values
from pgjax.exact.mdp.fisher import score_table
from pgjax.exact.mdp.tabular import TabularMDP, checked_discount
from pgjax.exact.moments.summary import Moments, to_moments
from pgjax.types import PyTree


class JointMoments(NamedTuple):
    """Joint moments of one episode's return G = Σ_t γᵗ R_{t+1} and score S = Σ_t ψ(S_t, A_t); row i is Gⁱ.

    Attributes:
        returns: E[Gⁱ], i = 0, 1, 2, `[3]`.
        scores: E[Gⁱ S], `[3, P]`; row 0 is 0 and row 1 is ∇ρ.
        squares: E[Gⁱ S_j²], `[3, P]`, or E[Gⁱ S Sᵀ], `[3, P, P]`; row 0 of the latter is the Fisher matrix.
    """

    returns: jax.Array
    scores: jax.Array
    squares: jax.Array


@readable
def total_return_moments(
    apply: Apply,
    params: PyTree,
    mdp: TabularMDP,
    *,
    baseline: ArrayLike | PyTree = 0.0,
    discount: ArrayLike = 1.0,
    covariance: bool = False,
) -> Moments:
    """Exact moments of g = (G_1 − b) Σ_t ψ_t, G_1 = Σ_t γᵗ R_{t+1}: REINFORCE from one episode.

    The mean of B independent episodes has the same mean and 1/B of the variance.

    Args:
        apply, params, mdp: the policy and the problem.
        baseline: b, a number, or a pytree as `params` with one number per parameter.
        discount: γ in [0, 1].
        covariance: whether to return the covariance matrix, too; it takes O(S P²) numbers of memory.

    Returns:
        `Moments` of g, shaped as `params`.

    Raises:
        ValueError: for a discount outside [0, 1], or a baseline that is neither a number nor shaped as `params`.

    Source: Williams (1992) for the estimate; Sobel (1982) for moments of the return by dynamic programming.
    """
    gamma = checked_discount(mdp, discount)
    probabilities = running_probabilities(apply, params, mdp)
    joint, values = _centred_moments(mdp, probabilities, score_table(apply, params, mdp), gamma, full=covariance)
    # G − b = (G − v) + (v − b), with v = E[G | s]: if b is near G, neither term is large.
    shift = values[:, None] - _per_parameter(baseline, params).astype(values.dtype)[None, :]
    over_starts = lambda x: jnp.einsum("s,s...->...", mdp.initial, x)
    mean = over_starts(joint.scores[1] + shift * joint.scores[0])
    if covariance:
        crossed, squared = shift[:, :, None] + shift[:, None, :], shift[:, :, None] * shift[:, None, :]
    else:
        crossed, squared = 2 * shift, shift**2
    second = over_starts(joint.squares[2] + crossed * joint.squares[1] + squared * joint.squares[0])
    return to_moments(params, mean, second)


@readable
def return_score_moments(
    apply: Apply, params: PyTree, mdp: TabularMDP, *, discount: ArrayLike = 1.0, full: bool = False
) -> JointMoments:
    """E[Gⁱ], E[Gⁱ S] and E[Gⁱ S_j²] (or E[Gⁱ S Sᵀ] if `full`) for i = 0, 1, 2, of one episode.

    Raises:
        ValueError: for a discount outside [0, 1].
    """
    gamma = checked_discount(mdp, discount)
    probabilities = running_probabilities(apply, params, mdp)
    return backward_joint_moments(mdp, probabilities, score_table(apply, params, mdp), gamma, full=full)


@functools.partial(jax.jit, static_argnames="full")
def backward_joint_moments(
    mdp: TabularMDP, probabilities: jax.Array, scores: jax.Array, discount: jax.Array, *, full: bool
) -> JointMoments:
    """`JointMoments` for any table ψ `[S, A, P]` instead of the scores; `probabilities` are 0 in terminal states."""
    joint, values = _centred_moments(mdp, probabilities, scores, discount, full=full)
    of_values = jnp.stack([jnp.ones_like(values), values, values**2])
    # E[(H + v)ⁱ f | s] = Σ_l (i over l) v^{i−l} E[Hˡ f | s].
    binomials = jnp.array([[1.0, 0.0, 0.0], [1.0, 1.0, 0.0], [1.0, 2.0, 1.0]], values.dtype)
    powers = jnp.array([[0, 0, 0], [1, 0, 0], [2, 1, 0]])
    weights = binomials[..., None] * of_values[powers] * mdp.initial[None, None, :]
    return jax.tree.map(lambda x: jnp.einsum("ils,ls...->i...", weights, x), joint)


@functools.partial(jax.jit, static_argnames="full")
def _centred_moments(
    mdp: TabularMDP, probabilities: jax.Array, scores: jax.Array, discount: jax.Array, *, full: bool
) -> tuple[JointMoments, jax.Array]:
    """`JointMoments` of H = G − v(s) instead of G, given the start s (an axis `[S]` after the first); and v `[S]`.

    v_t(s) = E[G_t | S_t = s], so the squares are those of deviations, which stay accurate if a constant is added to all
    rewards. With H_t = X_t + γ H_{t+1}, X = R + γ v_{t+1}(s') − v_t(s), and S = ψ + S', where a prime marks the moments
    of the successor,

        E[Hⁱ f' | s, a] = Σ_l (i over l) γˡ Σ_k P(k|s, a) X^{i−l} E'[H'ˡ f'](s').
    """
    values = state_values(mdp, probabilities, discount)
    average = jax.vmap(functools.partial(outer_average, full=full), (0, None, None))
    symmetric = jax.vmap(functools.partial(symmetric_average, full=full), (None, None, 0))

    def shifts(here: jax.Array, ahead: jax.Array) -> jax.Array:
        """Entry [i, l] maps the successor's E'[H'ˡ f'] to its part of E[Hⁱ f' | s, a]."""
        surprise = mdp.rewards + discount * ahead[mdp.successors] - here[:, None, None]
        powers = [outcome_matrix(mdp, surprise**n) for n in range(3)]
        none = jnp.zeros_like(powers[0])
        return jnp.stack(
            [
                jnp.stack([powers[0], none, none]),
                jnp.stack([powers[1], discount * powers[0], none]),
                jnp.stack([powers[2], 2 * discount * powers[1], discount**2 * powers[0]]),
            ]
        )

    def one_step_back(following: JointMoments, row: tuple) -> tuple[JointMoments, None]:
        shift = shifts(*row)
        state_shift = jnp.einsum("sa,ilsaz->ilsz", probabilities, shift)
        returns = jnp.einsum("ilsaz,lz->isa", shift, following.returns)
        carried = jnp.einsum("ilsaz,lzp->isap", shift, following.scores)
        new_scores = scores[None] * returns[..., None] + carried
        squares = average(probabilities[None] * returns, scores, scores)
        squares += symmetric(probabilities, scores, carried)
        squares += jnp.einsum("ilsz,lz...->is...", state_shift, following.squares)
        return JointMoments(
            returns=jnp.einsum("sa,isa->is", probabilities, returns).at[0].set(1.0),
            scores=jnp.einsum("sa,isap->isp", probabilities, new_scores),
            squares=squares,
        ), None

    num_states, num_parameters = scores.shape[0], scores.shape[-1]
    dtype = jnp.result_type(probabilities, scores)
    shape = (3, num_states, *([num_parameters] * (2 if full else 1)))
    end = JointMoments(
        returns=jnp.zeros((3, num_states), dtype).at[0].set(1.0),
        scores=jnp.zeros((3, num_states, num_parameters), dtype),
        squares=jnp.zeros(shape, dtype),
    )
    start, _ = jax.lax.scan(one_step_back, end, (values[:-1], values[1:]), reverse=True)
    return start, values[0]


def _per_parameter(baseline: ArrayLike | PyTree, params: PyTree) -> jax.Array:
    """b as one number per parameter, `[P]`."""
    flat, _ = ravel_pytree(params)
    if len(jax.tree.leaves(baseline)) == 1 and jnp.ndim(jax.tree.leaves(baseline)[0]) == 0:
        return jnp.full(flat.shape, jax.tree.leaves(baseline)[0], flat.dtype)
    shapes = lambda tree: jax.tree.map(jnp.shape, tree)
    if jax.tree.structure(baseline) != jax.tree.structure(params) or shapes(baseline) != shapes(params):
        raise ValueError(f"baseline must be a number or shaped as params, {shapes(params)}, got {shapes(baseline)}")
    return ravel_pytree(baseline)[0]
