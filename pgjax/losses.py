"""Losses, elementwise and to be minimised: the caller masks and reduces, and how it does is the estimator.

Sums and means over time, over episodes and over live steps are different estimators of different things; none
of them is hidden here. All arrays of a call have one shape, `[...]`, any axes; no broadcasting between them.

*Weights are constants of the gradient.* They are numbers that multiply ∇ ln f, and they usually depend on
parameters: a baseline that shares layers with the policy, a standardised return, a value that was just
predicted. Were the gradient to flow through them, w ∇ ln f would gain the term ln f ∇w, which is no part of
any policy gradient. So `stop_gradient` is applied here, to weights, targets and the log-probabilities of
other policies, once and always.
"""

import chex
import jax
import jax.numpy as jnp

from pgjax._checks import require_in_range


def _loss(objective: jax.Array) -> jax.Array:
    """loss = −objective, here and nowhere else: maximising becomes minimising."""
    return -objective


def score_function_objective(log_probs: jax.Array, weights: jax.Array) -> jax.Array:
    """w ln f(X_t, θ)_{A_t} `[...]`, to be maximised; arguments as in `score_function_loss`."""
    chex.assert_equal_shape([log_probs, weights])
    return jax.lax.stop_gradient(weights) * log_probs


def score_function_loss(log_probs: jax.Array, weights: jax.Array) -> jax.Array:
    """Minus the weighted log-likelihood; its gradient is −w ∇ ln f.

    objective = w ln f(X_t, θ)_{A_t}

    REINFORCE, reward-to-go, baselines, behavioural cloning and next-token prediction (w = 1) differ only in
    w. Only the gradient means something: the value is not a measure of performance.

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
    return jnp.exp(log_probs - jax.lax.stop_gradient(behaviour_log_probs))


def importance_weighted_objective(
    log_probs: jax.Array, behaviour_log_probs: jax.Array, weights: jax.Array
) -> jax.Array:
    """w ratio `[...]`, to be maximised; arguments as in `importance_weighted_loss`."""
    chex.assert_equal_shape([log_probs, behaviour_log_probs, weights])
    return jax.lax.stop_gradient(weights) * _ratios(log_probs, behaviour_log_probs)


def importance_weighted_loss(log_probs: jax.Array, behaviour_log_probs: jax.Array, weights: jax.Array) -> jax.Array:
    """Minus the weighted importance ratio; its gradient is −w ratio ∇ ln f.

    objective = w ratio,    ratio = f(X_t, θ)_{A_t} / f(X_t, θ_old)_{A_t}

    At θ_old the ratio is 1 and the gradient that of `score_function_loss`. The ratio of one action corrects
    the choice at X_t, not how often θ_old came to X_t.

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


def clipped_surrogate_objective(
    log_probs: jax.Array,
    behaviour_log_probs: jax.Array,
    weights: jax.Array,
    *,
    clip: jax.typing.ArrayLike,
) -> jax.Array:
    """min(ratio w, clip(ratio, 1 − ε, 1 + ε) w) `[...]`, to be maximised; as `clipped_surrogate_loss`."""
    chex.assert_equal_shape([log_probs, behaviour_log_probs, weights])
    require_in_range("clip", clip, 0.0, None)
    clip = jnp.asarray(clip, log_probs.dtype)
    weights = jax.lax.stop_gradient(weights)
    ratios = _ratios(log_probs, behaviour_log_probs)
    return jnp.minimum(ratios * weights, jnp.clip(ratios, 1.0 - clip, 1.0 + clip) * weights)


def clipped_surrogate_loss(
    log_probs: jax.Array,
    behaviour_log_probs: jax.Array,
    weights: jax.Array,
    *,
    clip: jax.typing.ArrayLike,
) -> jax.Array:
    """Minus the clipped surrogate of PPO: no reward for moving a ratio further than ε in the direction of w.

    objective = min(ratio w, clip(ratio, 1 − ε, 1 + ε) w)

    A lower bound of the importance-weighted objective, equal to it with its gradient where |ratio − 1| < ε.
    The gradient is zero where w > 0 and ratio > 1 + ε, and where w < 0 and ratio < 1 − ε.

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


def value_loss(values: jax.Array, targets: jax.Array) -> jax.Array:
    """Half the squared error of a value; its gradient is (v − G) ∇v.

    loss = ½ (v(X_t) − G_t)²

    Targets that bootstrap from v are constants all the same: the semi-gradient of temporal-difference
    learning.

    Args:
        values: v(X_t) `[...]`.
        targets: G_t `[...]`, constants of the gradient.

    Returns:
        ½ (v − G)² `[...]`.

    Source: Sutton & Barto 2018, section 9.3 (semi-gradient methods).
    """
    chex.assert_equal_shape([values, targets])
    return 0.5 * jnp.square(values - jax.lax.stop_gradient(targets))


def entropy_loss(entropies: jax.Array) -> jax.Array:
    """Minus the entropy, to be scaled by the caller: an entropy bonus changes the objective.

    objective = H(f(X_t, θ))

    Args:
        entropies: H(f(X_t, θ)) `[...]`, in nats, differentiable.

    Returns:
        −H `[...]`.

    Source: Williams & Peng 1991.
    """
    return _loss(entropies)


def _log_ratios(log_probs: jax.Array, reference_log_probs: jax.Array) -> jax.Array:
    """ln π(a) − ln π_ref(a), the reference held fixed."""
    chex.assert_equal_shape([log_probs, reference_log_probs])
    return log_probs - jax.lax.stop_gradient(reference_log_probs)


def kl_k1(log_probs: jax.Array, reference_log_probs: jax.Array) -> jax.Array:
    """The plain estimate of KL(π ‖ π_ref) from one action a ~ π: unbiased, of either sign, useless as a loss.

    k1 = ln π(a) − ln π_ref(a),    E k1 = KL(π ‖ π_ref),    E ∇k1 = E ∇ ln π = 0

    Its place is in the reward (`rewards.kl_regularised`): weighing the score function by it does give ∇KL.

    Args:
        log_probs: ln π(a) `[...]`, a ~ π.
        reference_log_probs: ln π_ref(a) `[...]`, constants of the gradient.

    Returns:
        k1 `[...]`, in nats.

    Source: Schulman 2020, "Approximating KL divergence".
    """
    return _log_ratios(log_probs, reference_log_probs)


def kl_k2(log_probs: jax.Array, reference_log_probs: jax.Array) -> jax.Array:
    """The squared estimate: never negative, its value biased, its gradient right.

    k2 = ½ (ln π(a) − ln π_ref(a))²,    E ∇k2 = E[k1 ∇ ln π] = ∇KL(π ‖ π_ref)

    Args:
        log_probs: ln π(a) `[...]`, a ~ π.
        reference_log_probs: ln π_ref(a) `[...]`, constants of the gradient.

    Returns:
        k2 `[...]`, in nats².

    Source: Schulman 2020, "Approximating KL divergence".
    """
    return 0.5 * jnp.square(_log_ratios(log_probs, reference_log_probs))


def kl_k3(log_probs: jax.Array, reference_log_probs: jax.Array) -> jax.Array:
    """The estimate with a control variate: never negative, of unbiased value, with the other KL's gradient.

    k3 = (r − 1) − ln r,    r = π_ref(a) / π(a),    E k3 = KL(π ‖ π_ref),    E ∇k3 = ∇KL(π_ref ‖ π)

    Unbiased where π(a) > 0 wherever π_ref(a) > 0, so that E r = 1.

    Args:
        log_probs: ln π(a) `[...]`, a ~ π.
        reference_log_probs: ln π_ref(a) `[...]`, constants of the gradient.

    Returns:
        k3 `[...]`, in nats.

    Source: Schulman 2020, "Approximating KL divergence".
    """
    log_ratios = _log_ratios(log_probs, reference_log_probs)
    return jnp.expm1(-log_ratios) + log_ratios


def kl_penalty_loss(
    log_probs: jax.Array, reference_log_probs: jax.Array, *, kl_coef: jax.typing.ArrayLike
) -> jax.Array:
    """β k2, the estimate of a KL penalty that has the penalty's gradient.

    loss = β ½ (ln π(a) − ln π_ref(a))²,    E ∇loss = β ∇KL(π ‖ π_ref) at X_t, over a ~ π

    Step by step it leaves out that the action at t changes the divergence met later; `rewards.kl_regularised`
    or log-probabilities summed over the whole sequence keep that.

    Args:
        log_probs: ln π(a) `[...]`, a ~ π.
        reference_log_probs: ln π_ref(a) `[...]`, constants of the gradient.
        kl_coef: β ≥ 0, in units of reward per nat.

    Returns:
        β k2 `[...]`.

    Raises:
        ValueError: if kl_coef is negative, which would pay for leaving the reference.
    """
    require_in_range("kl_coef", kl_coef, 0.0, None)
    return jnp.asarray(kl_coef, log_probs.dtype) * kl_k2(log_probs, reference_log_probs)
