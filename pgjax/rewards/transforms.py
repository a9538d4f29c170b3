"""Pure functions that replace the rewards of a collected trajectory, before any return is computed.

Each function takes a `Trajectory` and returns it with new rewards, which are 0 where not `alive`. The numbers in rows
of padding have no effect, even if they are NaN. Axes: T time, B episodes.

Rewards are data: no gradient flows through them. They must have a float type, and so do the results (ValueError
otherwise).
"""

from typing import get_args

import chex
import jax
import jax.numpy as jnp

from pgjax import losses
from pgjax._checks import require_float, require_in_range, require_one_of
from pgjax._doors import readable
from pgjax._spread import centre_and_spread, standardised
from pgjax.types import Trajectory


@readable
def relabel(trajectory: Trajectory, rewards: jax.Array) -> Trajectory:
    """The trajectory with given rewards.

    R_{t+1} ← rewards[t] where alive, else 0

    Args:
        trajectory: T steps of B episodes.
        rewards: the new R_{t+1} `[T, B]`, for example those of a reward model.

    Returns:
        The trajectory, rewards `[T, B]`.
    """
    chex.assert_rank(rewards, 2)
    chex.assert_equal_shape([rewards, trajectory.alive])
    require_float("rewards", rewards)
    return trajectory._replace(rewards=jax.lax.stop_gradient(jnp.where(trajectory.alive, rewards, 0.0)))


@readable
def scale(trajectory: Trajectory, factor: jax.typing.ArrayLike) -> Trajectory:
    """Rewards times a factor, which also multiplies the objective and its gradient.

    R ← c R

    Args:
        trajectory: T steps of B episodes.
        factor: c `[]`, of either sign; a negative one turns rewards into costs.

    Returns:
        The trajectory, rewards `[T, B]`.
    """
    require_float("trajectory.rewards", trajectory.rewards)
    return relabel(trajectory, jnp.asarray(factor, trajectory.rewards.dtype) * trajectory.rewards)


@readable
def centre(trajectory: Trajectory) -> Trajectory:
    """Rewards minus their mean m over the live steps of the batch.

    R ← R − m

    This changes the objective if the policy influences the length of an episode: Σ_t R loses m times the length. If the
    length is fixed, the gradient is still biased, because m depends on the actions that it weighs. Equal rewards become
    exactly 0.

    Args:
        trajectory: T steps of B episodes.

    Returns:
        The trajectory, rewards `[T, B]`.
    """
    require_float("trajectory.rewards", trajectory.rewards)
    _, deviations, _ = centre_and_spread(trajectory.rewards, trajectory.alive)
    return relabel(trajectory, deviations)


@readable
def whiten(trajectory: Trajectory) -> Trajectory:
    """Rewards with mean 0 and variance 1 over the N live steps of the batch.

    R ← (R − m) / s,    m = (1/N) Σ R,    s² = (1/N) Σ (R − m)²  (with the divisor N)

    This changes the objective: by the shift, as `centre` does, and by the scale, which is random for each batch. The
    unit of the rewards does not matter.

    Args:
        trajectory: T steps of B episodes.

    Returns:
        The trajectory, rewards `[T, B]`; exactly 0 if all live rewards are equal.
    """
    require_float("trajectory.rewards", trajectory.rewards)
    return relabel(trajectory, standardised(trajectory.rewards, trajectory.alive))


@readable
def kl_regularised(
    trajectory: Trajectory,
    log_probs: jax.Array,
    reference_log_probs: jax.Array,
    *,
    kl_coef: jax.typing.ArrayLike,
    kind: losses.SampledKL = "k1",
    level: losses.KLLevel = "token",
) -> Trajectory:
    """Rewards minus a penalty for leaving the reference policy.

    R_{t+1} ← R_{t+1} − β k(ℓ_t),    ℓ_t = ln π(A_t | X_t) − ln π_ref(A_t | X_t),    k1(ℓ) = ℓ

    The term is *subtracted*, because its expectation E ln(π/π_ref) is the divergence, which is never negative. A larger
    β keeps the policy closer to the reference. The objective becomes E[Σ R] − β KL(π ‖ π_ref) over trajectories. ln π
    depends on θ, but this adds nothing to the gradient of the objective, because E_π ∇ ln π = 0. So the
    log-probabilities are constants, and the expectation of the score function with these rewards is the exact gradient.

    This holds for k1 only. With k2 or k3 the gradient lacks E ∇k, which is not 0. `estimators.kl_loss` of the same kind
    adds what is missing: the two together give the exact gradient of E[Σ R] − β E[Σ_t k(ℓ_t)]. For k3 that is again the
    penalised objective, because E k3 is the divergence.

    Args:
        trajectory: T steps of B episodes, drawn from π.
        log_probs: ln π(A_t | X_t) `[T, B]`.
        reference_log_probs: ln π_ref(A_t | X_t) `[T, B]`.
        kl_coef: β ≥ 0, in units of reward per nat.
        kind: the estimate k, see `losses.kl_estimate`.
        level: `"token"` pays −β k(ℓ_t) at each step. `"sequence"` pays −β k(Σ_t ℓ_t), the estimate from the whole
            episode, at its last step. For k1 both give the same return of the episode.

    Returns:
        The trajectory, rewards `[T, B]`.

    Raises:
        ValueError: if kl_coef is negative, a word is unknown, or `"sequence"` meets a window, which cuts episodes.

    Source: Ziegler et al. 2019, eq. 2 (k1).
    """
    chex.assert_equal_shape([trajectory.rewards, log_probs, reference_log_probs])
    require_float("log_probs", log_probs)
    require_float("reference_log_probs", reference_log_probs)
    require_one_of("level", level, get_args(losses.KLLevel))
    if level == "sequence":
        log_probs, reference_log_probs = (
            at_last_step(trajectory, over_episode(trajectory, x)) for x in (log_probs, reference_log_probs)
        )
    # k(0) = 0, so that an estimate from whole episodes is 0 before the last step.
    return minus_penalty(trajectory, losses.kl_estimate(kind, log_probs, reference_log_probs), kl_coef)


def minus_penalty(trajectory: Trajectory, penalties: jax.Array, coefficient: jax.typing.ArrayLike) -> Trajectory:
    """R ← R − β x for penalties x `[T, B]` and a coefficient β ≥ 0.

    Raises:
        ValueError: if the coefficient is negative, or the rewards have no float type.
    """
    require_float("trajectory.rewards", trajectory.rewards)
    require_in_range("kl_coef", coefficient, 0.0, None)
    coefficient = jnp.asarray(coefficient, trajectory.rewards.dtype)
    return relabel(trajectory, trajectory.rewards - coefficient * penalties)


def over_episode(trajectory: Trajectory, x: jax.Array) -> jax.Array:
    """Σ_t x over the live steps of each episode, `[B]`, for x `[T, B]`.

    Raises:
        ValueError: if the trajectory is a window, which cuts episodes.
    """
    if trajectory.next_obs is not None:
        raise ValueError("level must be 'token' in windows, because a window cuts episodes, got 'sequence'")
    return jnp.sum(jnp.where(trajectory.alive, x, 0.0), axis=0)


def at_last_step(trajectory: Trajectory, x: jax.Array) -> jax.Array:
    """x `[B]` in the last live row of each episode and 0 in all other rows, `[T, B]`."""
    following = jnp.concatenate([trajectory.alive[1:], jnp.zeros_like(trajectory.alive[:1])])
    return jnp.where(trajectory.alive & ~following, x[None], 0.0)
