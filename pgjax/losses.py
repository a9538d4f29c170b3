"""Elementwise losses, to be minimised; the caller applies the mask and adds them up.

Sums and means over time, over episodes and over live steps give different estimators, so no function here hides one.
All arrays of a call have the same shape `[...]` with any axes; the functions do not broadcast.

*Weights are constants of the gradient.* They multiply ∇ ln f, and they often depend on parameters: a baseline may share
layers with the policy, or a value was just predicted. If the gradient flowed through the weights, w ∇ ln f would gain
the term ln f ∇w, which belongs to no policy gradient. So all functions here apply `stop_gradient` to weights, targets
and the log-probabilities of other policies.

Log-probabilities, values and entropies must have a float type (ValueError otherwise); the loss has the same type.
"""

from typing import Literal

import chex
import jax
import jax.numpy as jnp

from pgjax._checks import require_float, require_in_range, require_one_of
from pgjax._doors import readable

SampledKL = Literal["k1", "k2", "k3"]
KLKind = Literal["k1", "k2", "k3", "full"]
KLLevel = Literal["token", "sequence"]


def _loss(objective: jax.Array) -> jax.Array:
    """loss = −objective; the sign changes in this function only."""
    return -objective


@readable
def score_function_objective(log_probs: jax.Array, weights: jax.Array) -> jax.Array:
    """w ln f(X_t, θ)_{A_t} `[...]`, to be maximised; the arguments are those of `score_function_loss`."""
    chex.assert_equal_shape([log_probs, weights])
    require_float("log_probs", log_probs)
    return jax.lax.stop_gradient(weights) * log_probs


@readable
def score_function_loss(log_probs: jax.Array, weights: jax.Array) -> jax.Array:
    """Minus the weighted log-likelihood; its gradient is −w ∇ ln f.

    objective = w ln f(X_t, θ)_{A_t}

    REINFORCE, reward-to-go, baselines, behavioural cloning and next-token prediction (w = 1) differ only in w. Use only
    the gradient of this loss: its value does not measure the performance of the policy.

    Args:
        log_probs: ln f(X_t, θ)_{A_t} `[...]`.
        weights: w `[...]`, constants of the gradient.

    Returns:
        −w ln f `[...]`.

    Source: Williams 1992.
    """
    return _loss(score_function_objective(log_probs, weights))


def _ratios(log_probs: jax.Array, behaviour_log_probs: jax.Array) -> jax.Array:
    """f(X_t, θ)_{A_t} / f(X_t, θ_old)_{A_t}."""
    require_float("log_probs", log_probs)
    require_float("behaviour_log_probs", behaviour_log_probs)
    return jnp.exp(log_probs - jax.lax.stop_gradient(behaviour_log_probs))


@readable
def importance_weighted_objective(
    log_probs: jax.Array, behaviour_log_probs: jax.Array, weights: jax.Array
) -> jax.Array:
    """w ratio `[...]`, to be maximised; the arguments are those of `importance_weighted_loss`."""
    chex.assert_equal_shape([log_probs, behaviour_log_probs, weights])
    return jax.lax.stop_gradient(weights) * _ratios(log_probs, behaviour_log_probs)


@readable
def importance_weighted_loss(log_probs: jax.Array, behaviour_log_probs: jax.Array, weights: jax.Array) -> jax.Array:
    """Minus the weighted importance ratio; its gradient is −w ratio ∇ ln f.

    objective = w ratio,    ratio = f(X_t, θ)_{A_t} / f(X_t, θ_old)_{A_t}

    At θ_old the ratio is 1 and the gradient is that of `score_function_loss`. The ratio of one action corrects for the
    choice at X_t; it does not correct for how often θ_old visited X_t.

    Args:
        log_probs: ln f(X_t, θ)_{A_t} `[...]`.
        behaviour_log_probs: ln f(X_t, θ_old)_{A_t} `[...]` of the policy that acted, constants of the
            gradient.
        weights: w `[...]`, constants of the gradient.

    Returns:
        −w ratio `[...]`.

    Source: Schulman, Wolski, Dhariwal, Radford & Klimov 2017, eq. 6.
    """
    return _loss(importance_weighted_objective(log_probs, behaviour_log_probs, weights))


@readable
def clipped_surrogate_objective(
    log_probs: jax.Array,
    behaviour_log_probs: jax.Array,
    weights: jax.Array,
    *,
    clip: jax.typing.ArrayLike,
) -> jax.Array:
    """min(ratio w, clip(ratio, 1 − ε, 1 + ε) w) `[...]`, to be maximised; see `clipped_surrogate_loss`."""
    chex.assert_equal_shape([log_probs, behaviour_log_probs, weights])
    require_in_range("clip", clip, 0.0, None)
    clip = jnp.asarray(clip, log_probs.dtype)
    weights = jax.lax.stop_gradient(weights)
    ratios = _ratios(log_probs, behaviour_log_probs)
    surrogate, clipped = ratios * weights, jnp.clip(ratios, 1.0 - clip, 1.0 + clip) * weights
    # Not jnp.minimum: if both are equal, its gradient is half of each.
    return jnp.where(surrogate <= clipped, surrogate, clipped)


@readable
def clipped_surrogate_loss(
    log_probs: jax.Array,
    behaviour_log_probs: jax.Array,
    weights: jax.Array,
    *,
    clip: jax.typing.ArrayLike,
) -> jax.Array:
    """Minus the clipped surrogate of PPO, which does not reward a ratio for moving more than ε in the direction of w.

    objective = min(ratio w, clip(ratio, 1 − ε, 1 + ε) w)

    The objective is a lower bound of the importance-weighted objective. Where |ratio − 1| ≤ ε both have the same value
    and the same gradient. This includes the edges, so with ε = 0 the gradient at θ_old is that of the score function.
    The gradient is 0 where w > 0 and ratio > 1 + ε, and where w < 0 and ratio < 1 − ε.

    Args:
        log_probs: ln f(X_t, θ)_{A_t} `[...]`.
        behaviour_log_probs: ln f(X_t, θ_old)_{A_t} `[...]` of the policy that acted, constants of the
            gradient.
        weights: w `[...]`, an advantage, constants of the gradient.
        clip: ε ≥ 0.

    Returns:
        −min(…) `[...]`.

    Raises:
        ValueError: if clip is negative.

    Source: Schulman, Wolski, Dhariwal, Radford & Klimov 2017, eq. 7.
    """
    return _loss(clipped_surrogate_objective(log_probs, behaviour_log_probs, weights, clip=clip))


@readable
def value_loss(values: jax.Array, targets: jax.Array) -> jax.Array:
    """Half the squared error of a value; its gradient is (v − G) ∇v.

    loss = ½ (v(X_t) − G_t)²

    Targets that bootstrap from v are constants too. This gives the semi-gradient of temporal-difference learning.

    Args:
        values: v(X_t) `[...]`.
        targets: G_t `[...]`, constants of the gradient.

    Returns:
        ½ (v − G)² `[...]`.

    Source: Sutton & Barto 2018, section 9.3 (semi-gradient methods).
    """
    chex.assert_equal_shape([values, targets])
    require_float("values", values)
    return 0.5 * jnp.square(values - jax.lax.stop_gradient(targets))


@readable
def entropy_loss(entropies: jax.Array) -> jax.Array:
    """Minus the entropy. The caller multiplies it by a coefficient; an entropy bonus changes the objective.

    objective = H(f(X_t, θ))

    Args:
        entropies: H(f(X_t, θ)) `[...]`, in nats, differentiable.

    Returns:
        −H `[...]`.

    Source: Williams & Peng 1991.
    """
    require_float("entropies", entropies)
    return _loss(entropies)


def _log_ratios(log_probs: jax.Array, reference_log_probs: jax.Array) -> jax.Array:
    """ln π(a) − ln π_ref(a), where the reference is a constant of the gradient."""
    chex.assert_equal_shape([log_probs, reference_log_probs])
    require_float("log_probs", log_probs)
    require_float("reference_log_probs", reference_log_probs)
    return log_probs - jax.lax.stop_gradient(reference_log_probs)


@readable
def kl_k1(log_probs: jax.Array, reference_log_probs: jax.Array) -> jax.Array:
    """k1, the plain estimate of KL(π ‖ π_ref) from one action a ~ π. Its value is unbiased and may be negative.

    k1 = ln π(a) − ln π_ref(a),    E k1 = KL(π ‖ π_ref),    E ∇k1 = E ∇ ln π = 0

    Do not use it as a loss, because its expected gradient is 0. Use it in the reward (`rewards.kl_regularised`): as the
    weight of the score function it does give ∇KL.

    Args:
        log_probs: ln π(a) `[...]`, a ~ π.
        reference_log_probs: ln π_ref(a) `[...]`, constants of the gradient.

    Returns:
        k1 `[...]`, in nats.

    Source: Schulman 2020, "Approximating KL divergence".
    """
    return _log_ratios(log_probs, reference_log_probs)


@readable
def kl_k2(log_probs: jax.Array, reference_log_probs: jax.Array) -> jax.Array:
    """k2, the squared estimate of KL(π ‖ π_ref). Its value is biased and never negative; its gradient is unbiased.

    k2 = ½ (ln π(a) − ln π_ref(a))²,    E ∇k2 = E[k1 ∇ ln π] = ∇KL(π ‖ π_ref)

    Args:
        log_probs: ln π(a) `[...]`, a ~ π.
        reference_log_probs: ln π_ref(a) `[...]`, constants of the gradient.

    Returns:
        k2 `[...]`, in nats².

    Source: Schulman 2020, "Approximating KL divergence".
    """
    return 0.5 * jnp.square(_log_ratios(log_probs, reference_log_probs))


@readable
def kl_k3(log_probs: jax.Array, reference_log_probs: jax.Array) -> jax.Array:
    """k3, the estimate of KL(π ‖ π_ref) with a control variate. Its value is unbiased and never negative.

    k3 = (r − 1) − ln r,    r = π_ref(a) / π(a),    E k3 = KL(π ‖ π_ref),    E ∇k3 = ∇KL(π_ref ‖ π)

    Its gradient is that of the other divergence, KL(π_ref ‖ π). The value is unbiased if π(a) > 0 for all a with
    π_ref(a) > 0, so that E r = 1.

    Args:
        log_probs: ln π(a) `[...]`, a ~ π.
        reference_log_probs: ln π_ref(a) `[...]`, constants of the gradient.

    Returns:
        k3 `[...]`, in nats.

    Source: Schulman 2020, "Approximating KL divergence".
    """
    log_ratios = _log_ratios(log_probs, reference_log_probs)
    return jnp.expm1(-log_ratios) + log_ratios


_SAMPLED_KL = {"k1": kl_k1, "k2": kl_k2, "k3": kl_k3}


@readable
def kl_estimate(kind: SampledKL, log_probs: jax.Array, reference_log_probs: jax.Array) -> jax.Array:
    """The estimate of KL(π ‖ π_ref) from one action that the word `kind` names: `kl_k1`, `kl_k2` or `kl_k3`.

    Args:
        kind: `"k1"`, `"k2"` or `"k3"`.
        log_probs: ln π(a) `[...]`, a ~ π; or ln π of a whole answer, for an estimate from the answer.
        reference_log_probs: ln π_ref of the same `[...]`, constants of the gradient.

    Returns:
        k `[...]`.

    Raises:
        ValueError: if the word is unknown.

    Example:
        >>> import jax.numpy as jnp
        >>> from pgjax import losses
        >>> round(float(losses.kl_estimate("k2", jnp.log(0.5), jnp.log(0.25))), 3)
        0.24
    """
    require_one_of("kind", kind, tuple(_SAMPLED_KL))
    return _SAMPLED_KL[kind](log_probs, reference_log_probs)


@readable
def kl_penalty_loss(
    log_probs: jax.Array, reference_log_probs: jax.Array, *, kl_coef: jax.typing.ArrayLike
) -> jax.Array:
    """β k2, whose expected gradient is that of the penalty β KL(π ‖ π_ref).

    loss = β ½ (ln π(a) − ln π_ref(a))²,    E ∇loss = β ∇KL(π ‖ π_ref) at X_t, over a ~ π

    The loss of single steps ignores that the action at t changes the divergence at later steps. To include this, use
    `rewards.kl_regularised`, or pass log-probabilities that are summed over the whole sequence. `estimators.kl_loss`
    is this loss, with other kinds and levels, as an estimator.

    Args:
        log_probs: ln π(a) `[...]`, a ~ π.
        reference_log_probs: ln π_ref(a) `[...]`, constants of the gradient.
        kl_coef: β ≥ 0, in units of reward per nat.

    Returns:
        β k2 `[...]`.

    Raises:
        ValueError: if kl_coef is negative, because it would then reward leaving the reference.
    """
    require_in_range("kl_coef", kl_coef, 0.0, None)
    return jnp.asarray(kl_coef, log_probs.dtype) * kl_k2(log_probs, reference_log_probs)
