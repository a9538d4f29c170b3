"""An estimator with one baseline for each parameter, g_j = (G_1 − b_j) S_j. Axes: T time, B episodes, P parameters."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from pgjax import acting
from pgjax._checks import require_in_range
from pgjax._doors import readable
from pgjax._linear import ratio_or_zero
from pgjax.estimators.hot_path import assemble, batch_gradient, each_episode, weighted_log_likelihood
from pgjax.estimators.rules import total_return
from pgjax.types import Estimator, Policy, PyTree, Trajectory


class PerParameterState(NamedTuple):
    """Running averages of S_j² G_1 in `weighted` and of S_j² in `squares`: pytrees like the parameters."""

    weighted: PyTree
    squares: PyTree


@readable
def per_parameter(
    policy: Policy,
    *,
    decay: float = 0.9,
    values: PyTree | None = None,
    discount: ArrayLike = 1.0,
    rows_per_piece: int | None = None,
) -> Estimator:
    """g_j = (G_1 − b_j) S_j with b_j = E[S_j² G_1] / E[S_j²] and the episode's score S = Σ_t ∇ ln f(X_t, θ)_{A_t}.

    The estimator is unbiased. Each coordinate has the best constant baseline for itself: no other constant b has a
    smaller variance, because Var g_j(b) = Var g_j(b_j) + (b − b_j)² E[S_j²]. Both expectations
    are running averages, updated after use by m ← β m + (1 − β) (mean over the batch). b_j = 0 while the average of
    S_j² is 0: before the first batch, and for a parameter that has not changed the probability of any action yet.

    The gradient takes two passes over the rows, for Σ_b G_1 S and for Σ_b S. To learn b, the estimator also needs the
    score of each episode: a third pass, and memory for B P numbers.

    Args:
        policy: f(x, θ).
        decay: β in [0, 1].
        values: fixed b_j, a pytree like the parameters. Nothing is learned if they are given.
        discount: γ in [0, 1] of G_1 = Σ_t γ^{t−1} R_{t+1}.
        rows_per_piece: the number of rows that the gradient is computed for at a time; chosen by the device if None.

    Raises:
        ValueError: if `decay` or `discount` is outside [0, 1]; when the estimator is used, if `values` does not have
            the structure and shapes of the parameters.

    Source: Peters & Schaal 2008, section 3.1 (episodic REINFORCE with the optimal baseline).

    Example:
        >>> from pgjax import environments, estimators, networks
        >>> policy = networks.make_policy(environments.make("corridor"))
        >>> estimators.per_parameter(policy, decay=0.95)
        Estimator(per_parameter, fits_windows=False)
    """
    require_in_range("decay", decay, 0.0, 1.0)
    returns = total_return(discount)
    row_objective = weighted_log_likelihood(policy)

    def score_rows(trajectory: Trajectory) -> tuple[jax.Array, jax.Array]:
        return trajectory.actions, jnp.ones_like(trajectory.rewards)

    def each_score(params: PyTree, trajectory: Trajectory) -> PyTree:
        seen = acting.inputs(policy, trajectory)
        return each_episode(policy, row_objective, params, seen, score_rows(trajectory), trajectory.alive)

    def weigh(params: PyTree, state: PyTree, trajectory: Trajectory):
        total = returns.compute(trajectory, None, None)
        if values is None:
            state = learn(state, each_score(params, trajectory), total[0])
        return (trajectory.actions, jnp.where(trajectory.alive, total, 0.0)), state, {}

    def subtract(params: PyTree, state: PyTree, with_return: PyTree, score: PyTree) -> PyTree:
        learned = lambda: jax.tree.map(ratio_or_zero, state.weighted, state.squares)
        baseline = learned() if values is None else _checked(values, params)
        return jax.tree.map(lambda g, b, s: g - b * s, with_return, baseline, score)

    def learn(state: PerParameterState, scores: PyTree, total: jax.Array) -> PerParameterState:
        move = lambda old, new: (decay * old + (1.0 - decay) * new).astype(old.dtype)
        squared = jax.tree.map(jnp.square, scores)
        of_each = lambda g, s: g.astype(s.dtype) * s
        weighted = jax.tree.map(lambda s: jnp.mean(jax.vmap(of_each)(total, s), axis=0), squared)
        squares = jax.tree.map(lambda s: jnp.mean(s, axis=0), squared)
        return jax.tree.map(move, state, PerParameterState(weighted=weighted, squares=squares))

    plain = assemble(policy, init=lambda key, sample: (), weigh=weigh, rows_per_piece=rows_per_piece)

    def init(key: jax.Array, sample: Trajectory) -> PyTree:
        if values is not None:
            return ()
        # Only the shapes of the parameters matter here.
        obs = jax.tree.map(lambda x: x[0, 0], sample.obs)
        shapes = jax.eval_shape(policy.init, key, obs)
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        return PerParameterState(weighted=zeros, squares=zeros)

    def gradient(params: PyTree, state: PyTree, trajectory: Trajectory):
        with_return, new_state, metrics = plain.gradient(params, state, trajectory)
        seen = acting.inputs(policy, trajectory)
        score, _ = batch_gradient(
            policy, row_objective, params, seen, score_rows(trajectory), trajectory.alive, rows_per_piece
        )
        return subtract(params, state, with_return, score), new_state, metrics

    def episode_gradients(params: PyTree, state: PyTree, trajectory: Trajectory) -> PyTree:
        with_return = plain.episode_gradients(params, state, trajectory)
        one = lambda with_return, score: subtract(params, state, with_return, score)
        return jax.vmap(one)(with_return, each_score(params, trajectory))

    return plain._replace(init=init, gradient=gradient, episode_gradients=episode_gradients, part_gradients=None)


def _checked(values: PyTree, params: PyTree) -> PyTree:
    shapes = [jax.tree.map(jnp.shape, tree) for tree in (values, params)]
    if shapes[0] != shapes[1]:
        raise ValueError(f"values must have the shapes of the parameters, {shapes[1]}, got {shapes[0]}")
    return jax.tree.map(lambda b, p: jnp.asarray(b, p.dtype), values, params)
