"""The divergence from a reference policy as a term of the loss, and sums of estimators.

    ∇̂ = (1/B) Σ_b Σ_t w_t ∇ ln f(X_t, θ)_{A_t} − β ∇ (1/B) Σ_b Σ_t c_t k_t

The second sum is `kl_loss`, an estimator by itself; `sum_of` adds it to any other. Axes: T time, B episodes.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp

from pgjax import acting, distributions, losses
from pgjax._checks import require_in_range, require_one_of
from pgjax._doors import readable
from pgjax.advantages.steps import OverTime
from pgjax.estimators.hot_path import RowObjective, assemble
from pgjax.estimators.weighting import time_scale
from pgjax.rewards.transforms import over_episode
from pgjax.rows import map_over_rows
from pgjax.types import Estimator, Policy, PyTree, Trajectory

KLRatio = Literal["none", "importance"]


class KLLossState(NamedTuple):
    """`kl_coef` is β, a scalar; `reference` is θ_ref, the parameters of the reference policy."""

    kl_coef: jax.Array
    reference: PyTree


@readable
def kl_loss(
    policy: Policy,
    kl_coef: jax.typing.ArrayLike,
    reference: PyTree,
    *,
    kind: losses.KLKind,
    level: losses.KLLevel = "token",
    over_time: OverTime = "sum",
    ratio: KLRatio = "none",
    rows_per_piece: int | None = None,
) -> Estimator:
    """−β times the gradient of an estimate of the divergence from a reference policy, with the episodes held fixed.

        ĝ = −β (1/B) Σ_b Σ_t c_t ∇k(ℓ_t),    ℓ_t = ln f(X_t, θ)_{A_t} − ln f(X_t, θ_ref)_{A_t}

    Add it to an estimator with `sum_of`. The state holds β and θ_ref, so you may change both without compiling again.
    What the expectation of ĝ is depends on the words. KL is the divergence over whole episodes, and KL_t that of the
    actions at X_t:

    | kind | level "token", the sum over t | level "sequence" |
    |---|---|---|
    | `"k1"` | 0: this loss does nothing | 0 |
    | `"k2"`, `"full"` | −β E[Σ_t ∇KL_t(f ‖ f_ref)] | `"k2"`: −β ∇KL(f ‖ f_ref), exact |
    | `"k3"` | −β E[Σ_t ∇KL_t(f_ref ‖ f)], the other divergence | −β ∇KL(f_ref ‖ f) |

    A loss of single steps ignores that the action at t changes the divergences at later steps, and so it is biased for
    episodes of more than one step. The exact forms are k1 in the reward (`rewards.kl_penalty`), k2 at the level
    `"sequence"`, and a kind in the reward and in the loss together (k3 or full).

    Args:
        policy: f(x, θ), which is also the reference policy with θ_ref.
        kl_coef: β ≥ 0, in units of reward per nat.
        reference: θ_ref.
        kind: `"k1"`, `"k2"` or `"k3"` (`losses.kl_estimate`); or `"full"`, the divergence over all actions at X_t.
        level: `"token"` estimates from each action. `"sequence"` estimates from the ratio of the whole episode,
            k(Σ_t ℓ_t); `"full"` has no such form.
        over_time: how the steps are added up, which gives c_t; as in `make_estimator`.
        ratio: `"importance"` multiplies k by f(X_t, θ)_{A_t} / f(X_t, θ_old)_{A_t}, the ratio to the policy that acted
            (of the whole episode at the level `"sequence"`). At θ = θ_old its value is 1, but its gradient is not 0: it
            adds k ∇ ln f, so that the expectation at each step is ∇E[k | X_t], which is ∇KL_t for k1 and for k3.
        rows_per_piece: the number of rows that the gradient is computed for at a time; chosen by the device if None.

    Returns:
        The estimator. Its metric `kl_loss` is the mean of k over live steps, or over episodes at the level
        `"sequence"`.

    Raises:
        ValueError: if `kl_coef` is negative, a word is unknown, or `"full"` is combined with the level `"sequence"` or
            with a ratio.

    Source: Schulman 2020 (k1, k2, k3); Shao et al. 2024, eqs. 3 and 4 (k3 as a loss); Tang & Munos 2025,
    arXiv:2506.09477 (the gradients).

    Example: RLOO with the loss k2, whose β is raised later.

        >>> import jax.numpy as jnp
        >>> from pgjax import baselines, distributions, estimators
        >>> from pgjax.types import Policy
        >>> policy = Policy(init=lambda key, obs: jnp.zeros((4, 2)), apply=lambda params, obs: obs @ params,
        ...                 distribution=distributions.categorical)
        >>> rloo = estimators.make_estimator(policy, returns=estimators.total_return(),
        ...                                  baseline=baselines.leave_one_out(group_size=4))
        >>> estimators.sum_of(rloo, estimators.kl_loss(policy, 0.1, jnp.zeros((4, 2)), kind="k2"))
        Estimator(sum_of, fits_windows=False, needs=Needs(group_size=4))
    """
    require_in_range("kl_coef", kl_coef, 0.0, None)
    words = {"kind": (kind, losses.KLKind), "level": (level, losses.KLLevel)}
    words |= {"over_time": (over_time, OverTime), "ratio": (ratio, KLRatio)}
    for name, (word, allowed) in words.items():
        require_one_of(name, word, get_args(allowed))
    if kind == "full" and (level, ratio) != ("token", "none"):
        raise ValueError(
            f"kind 'full' must have level='token' and ratio='none', because it is a divergence over all actions at one "
            f"step and not an estimate from actions, got level={level!r} and ratio={ratio!r}"
        )

    def init(key: jax.Array, sample: Trajectory) -> KLLossState:
        del key, sample
        # The reference is a copy: the training state is donated, and no array may be donated twice.
        return KLLossState(kl_coef=jnp.asarray(kl_coef, float), reference=jax.tree.map(jnp.copy, reference))

    if kind == "full":
        form = _over_all_actions(policy, rows_per_piece)
    else:
        make = _of_each_action if level == "token" else _of_whole_episodes
        form = make(policy, _estimate(kind, ratio), rows_per_piece)

    def weigh(params: PyTree, state: KLLossState, trajectory: Trajectory):
        factors = time_scale(over_time, trajectory.alive, trajectory.rewards.dtype)
        scale = jnp.broadcast_to(-state.kl_coef.astype(factors.dtype) * factors, trajectory.alive.shape)
        rows, metrics = form.rows(params, state.reference, trajectory, scale)
        return rows, state, metrics

    return assemble(
        policy,
        init=init,
        weigh=weigh,
        row_objective=form.row_objective,
        fits_windows=level == "token" and over_time != "episode_mean",
        rows_per_piece=rows_per_piece,
    )


Estimate = Callable[[jax.Array, jax.Array | None, jax.Array], jax.Array]


def _estimate(kind: losses.SampledKL, ratio: KLRatio) -> Estimate:
    """`(ln f, ln f_old, ln f_ref) → k`, or the ratio times k; ln f_old is None if θ itself acted."""

    def of(log_probs: jax.Array, behaviour: jax.Array | None, reference: jax.Array) -> jax.Array:
        k = losses.kl_estimate(kind, log_probs, reference)
        if ratio == "none":
            return k
        acted = log_probs if behaviour is None else behaviour
        return jnp.exp(log_probs - jax.lax.stop_gradient(acted)) * k

    return of


class _Form(NamedTuple):
    """What `assemble` needs: the rows from `(params, reference, trajectory, scale [T, B]) → (rows, metrics)`."""

    rows: Callable[[PyTree, PyTree, Trajectory, jax.Array], tuple[PyTree, dict[str, jax.Array]]]
    row_objective: RowObjective


def _of_each_action(policy: Policy, estimate: Estimate, rows_per_piece: int | None) -> _Form:
    """Σ_t scale_t k(ℓ_t)."""

    def rows(params: PyTree, reference: PyTree, trajectory: Trajectory, scale: jax.Array):
        del params
        of_reference = acting.log_probs(policy, reference, trajectory, rows_per_piece)
        behaviour, alive = trajectory.behaviour_log_probs, trajectory.alive
        behaviour = None if behaviour is None else jnp.where(alive, behaviour, 0.0)
        return (trajectory.actions, behaviour, of_reference, scale, alive), {}

    def row_objective(outputs: PyTree, rows: tuple) -> tuple[jax.Array, dict[str, jax.Array]]:
        actions, behaviour, of_reference, scale, alive = rows
        log_probs = jax.vmap(policy.distribution.log_prob)(outputs, actions)
        # In padding the action may be impossible, and exp(−ℓ) would overflow.
        k = estimate(jnp.where(alive, log_probs, 0.0), behaviour, of_reference)
        return scale * k, {"kl_loss": k}

    return _Form(rows=rows, row_objective=row_objective)


def _of_whole_episodes(policy: Policy, estimate: Estimate, rows_per_piece: int | None) -> _Form:
    """scale k(L), L = Σ_t ℓ_t. Its gradient is scale k'(L) Σ_t ∇ ln f, a weighted log-likelihood."""

    def rows(params: PyTree, reference: PyTree, trajectory: Trajectory, scale: jax.Array):
        of = lambda theta: over_episode(trajectory, acting.log_probs(policy, theta, trajectory, rows_per_piece))
        behaviour = trajectory.behaviour_log_probs
        behaviour = None if behaviour is None else over_episode(trajectory, behaviour)
        log_probs, of_reference = of(params), of(reference)
        value = lambda x: estimate(x, behaviour, of_reference)
        slopes = jax.grad(lambda x: jnp.sum(value(x)))(log_probs)
        return (trajectory.actions, scale * slopes[None]), {"kl_loss": jnp.mean(value(log_probs))}

    def row_objective(outputs: PyTree, rows: tuple[PyTree, jax.Array]) -> tuple[jax.Array, dict[str, jax.Array]]:
        actions, weight = rows
        return weight * jax.vmap(policy.distribution.log_prob)(outputs, actions), {}

    return _Form(rows=rows, row_objective=row_objective)


def _over_all_actions(policy: Policy, rows_per_piece: int | None) -> _Form:
    """Σ_t scale_t KL(f(X_t, θ) ‖ f(X_t, θ_ref))."""
    kl = distributions.require(policy.distribution, "kl", "the loss of the divergence over all actions")

    def rows(params: PyTree, reference: PyTree, trajectory: Trajectory, scale: jax.Array):
        del params
        found = map_over_rows(
            lambda seen: acting.outputs(policy, reference, seen),
            acting.inputs(policy, trajectory),
            trajectory.alive,
            rows_per_piece,
            whole_episodes=policy.memory is not None,
        )
        return (found, scale), {}

    def row_objective(outputs: PyTree, rows: tuple[PyTree, jax.Array]) -> tuple[jax.Array, dict[str, jax.Array]]:
        of_reference, scale = rows
        found = jax.vmap(kl)(outputs, of_reference)
        return scale * found, {"kl_loss": found}

    return _Form(rows=rows, row_objective=row_objective)
