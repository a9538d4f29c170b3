"""Distributions over a finite set of answers, and the best distribution that pays for leaving a reference.

    ρ(π) = E_π[r] − β KL(π ‖ π_ref),    π* = π_ref e^{r/β} / Z,    ln Z = ln Σ_y π_ref(y) e^{r(y)/β},    ρ(π*) = β ln Z

All functions take log-probabilities over the last axis and reduce it; earlier axes, such as prompts, stay. All are
differentiable. An answer whose log-probability is −∞, or that has probability 0, adds nothing to a sum over π. Axis: N
answers.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from pgjax._checks import is_traced, require_in_range
from pgjax._doors import readable


@readable
def expected(log_probs: jax.Array, values: jax.Array) -> jax.Array:
    """E_π[f] = Σ_y π(y) f(y), `[...]`, of ln π `[..., N]` and f `[..., N]`."""
    probabilities = jnp.exp(log_probs)
    return jnp.sum(probabilities * jnp.where(probabilities > 0, values, 0.0), axis=-1)


def log_ratio(log_p: jax.Array, log_q: jax.Array) -> jax.Array:
    """ln p − ln q where p > 0, and 0 elsewhere, so that neither it nor its gradient is NaN where p is 0."""
    inside = jnp.exp(log_p) > 0
    return jnp.where(inside, log_p, 0.0) - jnp.where(inside, log_q, 0.0)


@readable
def kl_divergence(log_p: jax.Array, log_q: jax.Array) -> jax.Array:
    """KL(p ‖ q) = Σ_y p(y) ln(p(y) / q(y)) in nats, `[...]`, of ln p and ln q `[..., N]`."""
    return expected(log_p, log_ratio(log_p, log_q))


@readable
def entropy(log_probs: jax.Array) -> jax.Array:
    """H(π) = −Σ_y π(y) ln π(y) in nats, `[...]`; exp(H) is the effective number of answers."""
    return -expected(log_probs, jnp.where(jnp.exp(log_probs) > 0, log_probs, 0.0))


@readable
def log_partition(reference_log_probs: jax.Array, rewards: jax.Array, kl_coef: ArrayLike) -> jax.Array:
    """ln Z = ln Σ_y π_ref(y) e^{r(y)/β}, `[...]`; the greatest value of ρ is β ln Z.

    Args:
        reference_log_probs: ln π_ref `[..., N]`.
        rewards: r `[..., N]`.
        kl_coef: β > 0, in units of reward per nat.

    Raises:
        ValueError: for β ≤ 0.
    """
    return jax.nn.logsumexp(reference_log_probs + rewards / positive(kl_coef, rewards), axis=-1)


@readable
def tilted_log_probs(reference_log_probs: jax.Array, rewards: jax.Array, kl_coef: ArrayLike) -> jax.Array:
    """ln π* = ln π_ref + r/β − ln Z, `[..., N]`: the policy of the greatest ρ; arguments as in `log_partition`.

    Example: two answers of equal probability, of which one is paid 1.

        >>> import jax.numpy as jnp
        >>> from pgjax import exact
        >>> best = exact.tilted_log_probs(jnp.log(jnp.array([0.5, 0.5])), jnp.array([0.0, 1.0]), kl_coef=1.0)
        >>> round(float(jnp.exp(best[1])), 4)  # e / (1 + e)
        0.7311
    """
    return jax.nn.log_softmax(reference_log_probs + rewards / positive(kl_coef, rewards), axis=-1)


@readable
def regularised_objective(
    log_probs: jax.Array, reference_log_probs: jax.Array, rewards: jax.Array, kl_coef: ArrayLike
) -> jax.Array:
    """ρ(π) = E_π[r] − β KL(π ‖ π_ref), `[...]`; its gradient in θ is that of `jax.grad` through ln π.

    Args:
        log_probs: ln π `[..., N]`.
        reference_log_probs, rewards: as in `log_partition`.
        kl_coef: β ≥ 0.

    Raises:
        ValueError: for β < 0.
    """
    require_in_range("kl_coef", kl_coef, 0.0, None)
    beta = jnp.asarray(kl_coef, rewards.dtype)
    return expected(log_probs, rewards) - beta * kl_divergence(log_probs, reference_log_probs)


class Regularised(NamedTuple):
    """Everything that is known of a policy π beside the reference π_ref and the best policy π*; all `[...]`.

    Attributes:
        objective: ρ(π) = E_π[r] − β KL(π ‖ π_ref).
        optimum: ρ(π*) = β ln Z.
        regret: ρ(π*) − ρ(π), which equals β KL(π ‖ π*).
        expected_reward: E_π[r].
        kl: KL(π ‖ π_ref) in nats.
        reverse_kl: KL(π_ref ‖ π).
        kl_to_optimum: KL(π ‖ π*).
        reverse_kl_to_optimum: KL(π* ‖ π).
        entropy: H(π) in nats.
        effective_answers: exp(H(π)), the number of equally probable answers of the same entropy.
    """

    objective: jax.Array
    optimum: jax.Array
    regret: jax.Array
    expected_reward: jax.Array
    kl: jax.Array
    reverse_kl: jax.Array
    kl_to_optimum: jax.Array
    reverse_kl_to_optimum: jax.Array
    entropy: jax.Array
    effective_answers: jax.Array


@readable
def regularised(
    log_probs: jax.Array, reference_log_probs: jax.Array, rewards: jax.Array, kl_coef: ArrayLike
) -> Regularised:
    """The values of a policy beside the reference and the optimum; arguments as in `regularised_objective`, β > 0.

    Raises:
        ValueError: for β ≤ 0.

    Source: Ziegler et al. 2019, eq. 2 for ρ; Korbak et al. 2022 for ρ(π*) − ρ(π) = β KL(π ‖ π*).
    """
    best = tilted_log_probs(reference_log_probs, rewards, kl_coef)
    optimum = positive(kl_coef, rewards) * log_partition(reference_log_probs, rewards, kl_coef)
    objective = regularised_objective(log_probs, reference_log_probs, rewards, kl_coef)
    uncertainty = entropy(log_probs)
    return Regularised(
        objective=objective,
        optimum=optimum,
        regret=optimum - objective,
        expected_reward=expected(log_probs, rewards),
        kl=kl_divergence(log_probs, reference_log_probs),
        reverse_kl=kl_divergence(reference_log_probs, log_probs),
        kl_to_optimum=kl_divergence(log_probs, best),
        reverse_kl_to_optimum=kl_divergence(best, log_probs),
        entropy=uncertainty,
        effective_answers=jnp.exp(uncertainty),
    )


def positive(kl_coef: ArrayLike, like: jax.Array) -> jax.Array:
    """β in the float type of another array; raises a ValueError for β ≤ 0."""
    beta = jnp.asarray(kl_coef, like.dtype)
    # NumPy, because a comparison by JAX would be traced inside `jit` even if β is known.
    if not is_traced(beta) and not np.all(np.asarray(beta) > 0):
        raise ValueError(f"kl_coef must be above 0, got {kl_coef}")
    return beta
