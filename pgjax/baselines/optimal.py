"""Baselines of least variance, E[‖score‖² G] / E[‖score‖²].

A return that is multiplied by a long score changes the estimate much, so it must count more than in a plain mean: the
constant of least variance is E[‖S‖² G_1] / E[‖S‖²] and not ρ(θ). Both expectations are running averages, updated after
use, so the estimate stays unbiased for all their values. Axes: T time, B episodes, S states.

The estimator decides which score is used. With `total_return` it is the score of the whole episode, S = Σ_t ψ_t with
ψ_t = ∇ ln f(X_t, θ)_{A_t}, which multiplies G_1. With `reward_to_go` it is ψ_t, which multiplies G_t. The second rule
minimises the variance of each term ψ_t (G_t − b). The sum over t also has covariances between its terms; so the best b
of the sum is a different one, unless episodes have a single step. Factors γᵗ (`time_weights`) are no part of the norms.

The two averages start at 0; their ratio needs no correction for it. b = 0 while the average of ‖score‖² is 0, because
nothing was seen yet or no action there changed the policy. A batch without information about a time step or a state
leaves the averages of that step or state unchanged. Single scores cost a second backward pass.
"""

from collections.abc import Callable
from typing import NamedTuple, get_args

import jax
import jax.numpy as jnp

from pgjax._checks import require_in_range, require_integer, require_one_of
from pgjax._doors import readable
from pgjax._linear import ratio_or_zero
from pgjax._records import print_as_made_by
from pgjax.baselines.group_means import split_groups
from pgjax.baselines.simple import returns_of
from pgjax.types import Baseline, Needs, PyTree, ScoreNorm, Trajectory


class OptimalState(NamedTuple):
    """Running averages of ‖score‖² G in `weighted` and of ‖score‖² in `norms`: scalars, or arrays `[T]` or `[S]`."""

    weighted: jax.Array
    norms: jax.Array


def _score_norms(trajectory: Trajectory) -> jax.Array:
    if trajectory.score_norms is None:
        raise ValueError("an optimal baseline needs trajectory.score_norms, got None: make_estimator fills them in")
    return trajectory.score_norms


def _optimal(
    decay: float,
    norm: ScoreNorm,
    shape: Callable[[Trajectory], tuple[int, ...]],
    spread: Callable[[jax.Array, Trajectory], jax.Array],
    collect: Callable[[jax.Array, Trajectory], jax.Array],
) -> Baseline:
    """An optimal baseline: `spread` broadcasts b to `[T, B]`, `collect` sums rows `[T, B]` or `[1, B]` for each b."""
    require_in_range("decay", decay, 0.0, 1.0)
    require_one_of("norm", norm, get_args(ScoreNorm))

    def init(key: jax.Array, sample: Trajectory) -> OptimalState:
        del key
        zeros = jnp.zeros(shape(sample), sample.rewards.dtype)
        return OptimalState(weighted=zeros, norms=zeros)

    def predict(state: OptimalState, trajectory: Trajectory) -> jax.Array:
        ratio = ratio_or_zero(state.weighted, state.norms)
        return jnp.broadcast_to(spread(ratio, trajectory), trajectory.rewards.shape)

    def update(state: OptimalState, trajectory: Trajectory, returns: jax.Array):
        norms = _score_norms(trajectory).astype(returns.dtype)
        num_episodes = returns.shape[1]
        fresh = OptimalState(
            weighted=collect(norms * returns[: norms.shape[0]], trajectory) / num_episodes,
            norms=collect(norms, trajectory) / num_episodes,
        )
        move = lambda old, new: jnp.where(fresh.norms > 0, decay * old + (1.0 - decay) * new, old).astype(old.dtype)
        return jax.tree.map(move, state, fresh), {}

    print_as_made_by(spread, init, predict, update)
    return Baseline(init=init, predict=predict, update=update, needs=Needs(scores=norm))


@readable
def optimal_constant(decay: float = 0.9, norm: ScoreNorm = "vanilla") -> Baseline:
    """b = E[‖S‖² G_1] / E[‖S‖²] with `total_return`, E[Σ_t ‖ψ_t‖² G_t] / E[Σ_t ‖ψ_t‖²] with `reward_to_go`. Unbiased.

    With `total_return` no constant has a smaller variance: tr Var(b) = tr Var(b*) + (b − b*)² E‖S‖². Each of the two
    expectations is a running average, updated after use by m ← β m + (1 − β) (mean over the batch). b = 0 before the
    first batch.

    Args:
        decay: β in [0, 1].
        norm: the vector whose variance is to be small. `"vanilla"`: the gradient, with the norm ‖S‖. `"natural"`: the
            step of the natural gradient, with the norm ‖F̂⁺ S‖, where F̂ is the Fisher matrix of the batch; this takes
            memory of order P² and time of order P³ for P parameters.

    Raises:
        ValueError: if `decay` is outside [0, 1] or `norm` is an unknown word.

    Source: Weaver & Tao 2001; Greensmith, Bartlett & Baxter 2004. Natural norm: Chung, Thomas, Machado & Le Roux 2021.

    Example:
        >>> from pgjax import baselines
        >>> baselines.optimal_constant(decay=0.95, norm="vanilla")
        Baseline(optimal_constant, needs=Needs(scores='vanilla'))
    """
    return _optimal(decay, norm, lambda sample: (), lambda b, trajectory: b, lambda x, trajectory: jnp.sum(x))


def _of_others(x: jax.Array) -> jax.Array:
    """Σ_{j≠i} x_j over the last axis.

    The sum of all entries minus x_i would round the others away if x_i were much larger.
    """
    shift = lambda sums: jnp.pad(sums[..., :-1], [(0, 0), (0, 0), (1, 0)])
    after = jnp.flip(shift(jnp.cumsum(jnp.flip(x, axis=2), axis=2)), axis=2)
    return shift(jnp.cumsum(x, axis=2)) + after


@readable
def optimal_leave_one_out(group_size: int | None = None, norm: ScoreNorm = "vanilla") -> Baseline:
    """b^i = Σ_{j≠i} ‖S^j‖² G_1^j / Σ_{j≠i} ‖S^j‖² over the other episodes j of the group. Unbiased.

    The baseline learns nothing. With `total_return` it estimates E[‖S‖² G_1] / E[‖S‖²], the constant of least variance,
    from this batch alone. With `reward_to_go` it is b^i_t = Σ_{j≠i} ‖ψ_t^j‖² G_t^j / Σ_{j≠i} ‖ψ_t^j‖², row by row over
    the other episodes that still run at t. b = 0 if the scores of the others are 0. No episode is part of its own b, so
    the estimate stays unbiased.

    Args:
        group_size: k, the number of consecutive episodes that form a group and share a start; the whole batch if None.
        norm: as in `optimal_constant`. With `"natural"` the Fisher matrix contains the episode itself, which adds a
            bias of order 1/B.

    Raises:
        ValueError: if `norm` is an unknown word or `group_size` < 2; when the baseline is used, if a group has a single
            episode or `group_size` does not divide the batch.

    Source: Greensmith, Bartlett & Baxter 2004 (the weights); Kool, van Hoof & Welling 2019 (leaving one out).

    Example:
        >>> from pgjax import baselines
        >>> baselines.optimal_leave_one_out(group_size=4)
        Baseline(optimal_leave_one_out, needs=Needs(scores='vanilla', group_size=4))
    """
    require_one_of("norm", norm, get_args(ScoreNorm))
    if group_size is not None:
        require_integer("group_size", group_size, 2, None)

    def predict(state: tuple, trajectory: Trajectory) -> jax.Array:
        del state
        norms = _score_norms(trajectory).astype(trajectory.rewards.dtype)
        norms = split_groups(jnp.where(trajectory.alive[: norms.shape[0]], norms, 0.0), group_size)
        returns = split_groups(returns_of(trajectory)[: norms.shape[0]], group_size)
        if norms.shape[2] < 2:
            raise ValueError("optimal_leave_one_out needs at least 2 episodes in a group, got 1")
        values = ratio_or_zero(_of_others(norms * returns), _of_others(norms))
        return jnp.broadcast_to(values.reshape(norms.shape[0], -1), trajectory.rewards.shape)

    return Baseline(
        init=lambda key, sample: (),
        predict=predict,
        update=lambda state, trajectory, returns: (state, {}),
        needs=Needs(scores=norm, group_size=group_size),
    )


@readable
def optimal_time_dependent(decay: float = 0.9, norm: ScoreNorm = "vanilla") -> Baseline:
    """b_t = E[‖ψ_t‖² G_t] / E[‖ψ_t‖²] over the episodes that still run at t, one number per time step. Unbiased.

    With `total_return` it is E[‖S‖² G_1] / E[‖S‖²] over the episodes that still run at t. The arguments and errors are
    those of `optimal_constant`. All batches must have the same horizon T.

    Source: Greensmith, Bartlett & Baxter 2004; Peters & Schaal 2008.

    Example:
        >>> from pgjax import baselines
        >>> baselines.optimal_time_dependent(decay=0.95)
        Baseline(optimal_time_dependent, needs=Needs(scores='vanilla'))
    """

    def collect(x: jax.Array, trajectory: Trajectory) -> jax.Array:
        return jnp.sum(jnp.where(trajectory.alive, x, 0.0), axis=1)

    return _optimal(decay, norm, lambda sample: sample.rewards.shape[:1], lambda b, trajectory: b[:, None], collect)


@readable
def optimal_state(
    index_of: Callable[[PyTree], jax.Array], num_states: int, decay: float = 0.9, norm: ScoreNorm = "vanilla"
) -> Baseline:
    """b(x) = E[‖ψ_t‖² G_t | X_t = x] / E[‖ψ_t‖² | X_t = x], a table over states. Unbiased.

    In general b(x) is not the value v(x). They are equal if the length of the score does not depend on the action, as
    for a uniform softmax policy. With `total_return` it is E[‖S‖² G_1 | X_t = x] / E[‖S‖² | X_t = x].

    Args:
        index_of: `obs of one row → integer` in 0, …, S − 1. For every other integer b = 0, and nothing is learned.
        num_states: S.
        decay, norm: as in `optimal_constant`.

    Raises:
        ValueError: if `num_states` < 1, or as in `optimal_constant`.

    Source: Dayan 1991 (two actions, one state); Greensmith, Bartlett & Baxter 2004.

    Example: observations that mark one of five states by a 1.

        >>> import jax.numpy as jnp
        >>> from pgjax import baselines
        >>> baselines.optimal_state(index_of=lambda obs: jnp.argmax(obs), num_states=5)
        Baseline(optimal_state, needs=Needs(scores='vanilla'))
    """
    require_integer("num_states", num_states, 1, None)

    def indices(trajectory: Trajectory) -> jax.Array:
        index = jax.vmap(jax.vmap(index_of))(trajectory.obs)
        # JAX reads negative indices from the end.
        return jnp.where(trajectory.alive & (index >= 0), index, num_states)

    def spread(table: jax.Array, trajectory: Trajectory) -> jax.Array:
        return table.at[indices(trajectory)].get(mode="fill", fill_value=0.0)

    def collect(x: jax.Array, trajectory: Trajectory) -> jax.Array:
        rows = jnp.broadcast_to(x, trajectory.alive.shape)
        return jnp.zeros(num_states, x.dtype).at[indices(trajectory)].add(rows, mode="drop")

    return _optimal(decay, norm, lambda sample: (num_states,), spread, collect)
