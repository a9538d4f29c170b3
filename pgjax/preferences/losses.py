"""Losses of preferences, elementwise and to be minimised; the caller weighs them and adds them up.

Rewards are those of a reward model, r(x, y) for an answer y to a prompt x. All losses are those of a choice among
answers to one prompt, so a constant c(x) added to all rewards of a prompt changes nothing, and only differences of
rewards can be learned. All losses are at least 0. Rewards and log-probabilities must have a float type (ValueError
otherwise); the loss has the same type. Axes: `[...]` any axes of comparisons, k answers to a prompt.
"""

import chex
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from pgjax._checks import require_float, require_in_range
from pgjax._doors import readable


@readable
def bradley_terry_loss(chosen: jax.Array, rejected: jax.Array, margins: ArrayLike = 0.0) -> jax.Array:
    """Minus the log-probability that the chosen answer wins.

        loss = −ln σ(Δ) = ln(1 + e^{−Δ}),    Δ = r(x, y_w) − r(x, y_l) − m

    It is ln 2 where all rewards are equal and m = 0, and its derivative by Δ is −(1 − σ(Δ)).

    Args:
        chosen: r(x, y_w) `[...]` of the better answers.
        rejected: r(x, y_l) `[...]` of the worse answers.
        margins: m `[...]` or `[]`, by how much the better answers should be better.

    Returns:
        −ln σ(Δ) `[...]`.

    Source: Bradley & Terry 1952; Christiano et al. 2017; with a margin Touvron et al. 2023, eq. 2.
    """
    chex.assert_equal_shape([chosen, rejected])
    _require_floats(chosen=chosen, rejected=rejected)
    return jax.nn.softplus(rejected - chosen + jnp.asarray(margins, chosen.dtype))


@readable
def plackett_luce_loss(rewards: jax.Array, mask: jax.Array | None = None, places: jax.Array | None = None) -> jax.Array:
    """Minus the log-probability of a ranking, whose places are filled one after the other from the best on.

        loss = −Σ_{i = 1 … p} [r_i − ln Σ_{j ≥ i} e^{r_j}]

    For k = 2 this is `bradley_terry_loss`, and for p = 1 it is `best_of_k_loss` of the first answer.

    Args:
        rewards: r(x, y_i) `[..., k]`, the best answer first.
        mask: bool `[..., k]`, true for the answers that exist; None if all do. Rewards elsewhere have no influence.
        places: p, integers `[...]`, how many first places are known, the later answers being in no order. None means
            all.

    Returns:
        The loss `[...]`; 0 for a ranking of fewer than two answers.

    Source: Plackett 1975; Luce 1959.
    """
    _require_floats(rewards=rewards)
    live = _masked(rewards, mask)
    rewards = jnp.where(live, rewards, jnp.zeros_like(rewards))
    k = rewards.shape[-1]
    # k is small, and the sums over j ≥ i as a [k, k] table compile faster than a cumulative sum. The diagonal keeps the
    # sums of absent answers finite.
    later = jnp.triu(jnp.ones((k, k), bool), 1)
    counted = jnp.broadcast_to(jnp.expand_dims(live, -2), (*live.shape, k))
    counted = (counted & jnp.broadcast_to(later, counted.shape)) | jnp.broadcast_to(
        jnp.eye(k, dtype=bool), counted.shape
    )
    rest = jax.nn.logsumexp(jnp.broadcast_to(jnp.expand_dims(rewards, -2), counted.shape), axis=-1, where=counted)
    known = live
    if places is not None:
        chex.assert_shape(places, rewards.shape[:-1])
        known = live & (jax.lax.broadcasted_iota(places.dtype, rewards.shape, rewards.ndim - 1) < places[..., None])
    return jnp.sum(jnp.where(known, rest - rewards, jnp.zeros_like(rewards)), axis=-1)


@readable
def best_of_k_loss(rewards: jax.Array, best: jax.Array, mask: jax.Array | None = None) -> jax.Array:
    """Minus the log-probability that one of k answers is called the best.

        loss = −ln(e^{r_b} / Σ_i e^{r_i})

    Args:
        rewards: r(x, y_i) `[..., k]`.
        best: b, integers `[...]` in 0 … k − 1.
        mask: bool `[..., k]`, true for the answers that exist; None if all do.

    Returns:
        The loss `[...]`.

    Source: Ziegler et al. 2019, eq. 1 (printed there without the minus sign).
    """
    _require_floats(rewards=rewards)
    chex.assert_shape(best, rewards.shape[:-1])
    live = _masked(rewards, mask)
    of_best = jnp.take_along_axis(rewards, jnp.expand_dims(best, -1), axis=-1)[..., 0]
    return jax.nn.logsumexp(rewards, axis=-1, where=live) - of_best


@readable
def davidson_log_probs(first: jax.Array, second: jax.Array, log_tie: ArrayLike) -> jax.Array:
    """Log-probabilities `[..., 3]` that the first answer is better, that the second is better, and that they tie.

        P(tie) = ν √(π_1 π_2) / (π_1 + π_2 + ν √(π_1 π_2)),    P(1 better) = π_1 / (the same),    π_i = e^{r_i}

    A tie is likeliest where the rewards are equal. There its probability is ν / (2 + ν). With ν = 0 there are no ties,
    and the rest is Bradley–Terry.

    Args:
        first, second: r(x, y_1) and r(x, y_2) `[...]`.
        log_tie: ln ν, `[...]` or `[]`; −∞ for no ties.

    Source: Davidson 1970, "On extending the Bradley–Terry model to accommodate ties".
    """
    chex.assert_equal_shape([first, second])
    _require_floats(first=first, second=second)
    half = 0.5 * (first - second)
    # A difference of rewards is enough: the mean of both rewards is taken as 0.
    tie = jnp.broadcast_to(jnp.asarray(log_tie, first.dtype), half.shape)
    return jax.nn.log_softmax(jnp.stack([half, -half, tie], axis=-1), axis=-1)


@readable
def davidson_loss(first: jax.Array, second: jax.Array, outcomes: jax.Array, log_tie: ArrayLike) -> jax.Array:
    """Minus the log-probability of an outcome that may be a tie; see `davidson_log_probs`.

    Args:
        first, second: r(x, y_1) and r(x, y_2) `[...]`.
        outcomes: integers `[...]`: 0 if the first answer is better, 1 if the second is, 2 for a tie. A larger number
            counts as a tie, so that a label such as "both bad" need not be dropped.
        log_tie: ln ν, finite if there are ties.

    Returns:
        The loss `[...]`.

    Source: Davidson 1970.
    """
    chex.assert_equal_shape([first, outcomes])
    of_outcomes = davidson_log_probs(first, second, log_tie)
    outcomes = jnp.clip(outcomes, 0, 2)
    # A zero weight times −∞ would be NaN, so the entry is taken and not multiplied.
    return -jnp.take_along_axis(of_outcomes, outcomes[..., None], axis=-1)[..., 0]


@readable
def half_win_loss(first: jax.Array, second: jax.Array, outcomes: jax.Array, margins: ArrayLike = 0.0) -> jax.Array:
    """`bradley_terry_loss` of an outcome, where a tie counts as half a win of each answer.

        loss = ½ [−ln σ(r_1 − r_2) − ln σ(r_2 − r_1)] for a tie

    Args:
        first, second: r(x, y_1) and r(x, y_2) `[...]`.
        outcomes: integers `[...]`, as in `davidson_loss`.
        margins: m `[...]` or `[]`, which a tie does not have.

    Returns:
        The loss `[...]`.
    """
    chex.assert_equal_shape([first, outcomes])
    wins = bradley_terry_loss(first, second, margins), bradley_terry_loss(second, first, margins)
    tie = 0.5 * (bradley_terry_loss(first, second) + bradley_terry_loss(second, first))
    return jnp.where(outcomes == 0, wins[0], jnp.where(outcomes == 1, wins[1], tie))


@readable
def dpo_loss(
    chosen: jax.Array,
    rejected: jax.Array,
    reference_chosen: jax.Array,
    reference_rejected: jax.Array,
    *,
    kl_coef: ArrayLike,
) -> jax.Array:
    """Direct preference optimisation (DPO): the Bradley–Terry loss, where β ln(π/π_ref) is the reward.

        loss = −ln σ(β [ln π(y_w|x) − ln π_ref(y_w|x)] − β [ln π(y_l|x) − ln π_ref(y_l|x)])

    If the preferences are those of Bradley–Terry for a reward r and every pair of answers is compared, the minimiser is
    the optimum of E[r] − β KL(π ‖ π_ref), which is π* ∝ π_ref e^{r/β}.

    Args:
        chosen, rejected: ln π(y_w|x) and ln π(y_l|x) `[...]`, sums over the tokens of the answer, EOS included.
        reference_chosen, reference_rejected: the same of π_ref `[...]`, constants of the gradient.
        kl_coef: β > 0, in units of reward per nat.

    Returns:
        The loss `[...]`.

    Raises:
        ValueError: if kl_coef is negative.

    Source: Rafailov et al. 2023, eq. 7.
    """
    chex.assert_equal_shape([chosen, rejected, reference_chosen, reference_rejected])
    require_in_range("kl_coef", kl_coef, 0.0, None)
    return bradley_terry_loss(
        implicit_rewards(chosen, reference_chosen, kl_coef=kl_coef),
        implicit_rewards(rejected, reference_rejected, kl_coef=kl_coef),
    )


@readable
def implicit_rewards(log_probs: jax.Array, reference_log_probs: jax.Array, *, kl_coef: ArrayLike) -> jax.Array:
    """β [ln π(y|x) − ln π_ref(y|x)] `[...]`, the reward for which π is the optimum, up to a constant for each prompt.

    Args:
        log_probs: ln π(y|x) `[...]`, of whole answers.
        reference_log_probs: ln π_ref(y|x) `[...]`, constants of the gradient.
        kl_coef: β.

    Source: Rafailov et al. 2023, eq. 5.
    """
    _require_floats(log_probs=log_probs, reference_log_probs=reference_log_probs)
    return jnp.asarray(kl_coef, log_probs.dtype) * (log_probs - jax.lax.stop_gradient(reference_log_probs))


def _require_floats(**arrays: jax.Array) -> None:
    for name, array in arrays.items():
        require_float(name, array)


def _masked(rewards: jax.Array, mask: jax.Array | None) -> jax.Array:
    if mask is None:
        return jnp.ones(rewards.shape, bool)
    chex.assert_equal_shape([rewards, mask])
    chex.assert_type(mask, bool)
    return mask
