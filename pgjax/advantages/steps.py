"""Functions along the steps of an episode: reward-to-go, GAE, standardising, sums. Axes: B episodes, T steps."""

import functools
from typing import Literal, get_args

import jax
import jax.numpy as jnp

from pgjax import returns as return_functions
from pgjax._checks import require_integer, require_one_of
from pgjax._doors import readable
from pgjax._spread import standardised
from pgjax.advantages._arrays import as_bools, as_floats, as_mask, live_first

OverTime = Literal["sum", "mean", "episode_mean", "horizon"]


def time_factors(
    lengths: jax.Array,
    num_steps: int,
    num_episodes: jax.typing.ArrayLike,
    over_time: OverTime,
    dtype: jax.typing.DTypeLike,
) -> jax.Array:
    """The factor of the steps of each episode in a mean over episodes, in the shape of the lengths or a scalar.

    `"sum"`: 1    `"mean"`: B / Σ_i |o_i|    `"episode_mean"`: 1/|o_i|    `"horizon"`: 1/T

    Args:
        lengths: |o_i|, int `[...]`; 0 for an empty episode.
        num_steps: T, the greatest possible length.
        num_episodes: B.
        over_time: one of the four words.
        dtype: the float type of the factors.
    """
    if over_time == "sum":
        return jnp.ones((), dtype)
    if over_time == "horizon":
        return jnp.asarray(1 / num_steps, dtype)
    if over_time == "mean":
        return jnp.asarray(num_episodes, dtype) / jnp.maximum(jnp.sum(lengths), 1).astype(dtype)
    return 1.0 / jnp.maximum(lengths, 1).astype(dtype)


@readable
def reward_to_go(
    rewards: jax.Array, mask: jax.Array | None = None, *, discount: jax.typing.ArrayLike = 1.0
) -> jax.Array:
    """The sum of the rewards from each step on; each row is one episode.

    G_t = R_{t+1} + γ G_{t+1}, t over the steps that count

    Args:
        rewards: R_{t+1} `[B, T]`; a reward outside the mask does not count.
        mask: bool `[B, T]`, true for the steps that count; all count if None. A gap in the mask is skipped: it does not
            discount, and the rewards after it count for the steps before it.
        discount: γ in [0, 1].

    Returns:
        G_t `[B, T]`, in units of reward; 0 outside the mask.

    Raises:
        ValueError: if a type or shape is wrong, or the discount is outside [0, 1].

    Source: Sutton & Barto 2018, eq. 3.9.

    Example:
        >>> import jax.numpy as jnp
        >>> from pgjax import advantages
        >>> print(advantages.reward_to_go(jnp.array([[0.0, 1.0, 4.0]]), discount=0.5))
        [[1.5 3.  4. ]]
    """
    rewards = as_floats("rewards", rewards, (2,))
    rows = live_first(as_mask(mask, rewards.shape))
    one = functools.partial(return_functions.reward_to_go, discount=discount)
    return rows.unpack(jax.vmap(one)(rows.pack(rewards)))


@readable
def gae(
    rewards: jax.Array,
    values: jax.Array,
    next_values: jax.Array,
    terminated: jax.Array,
    truncated: jax.Array | None = None,
    mask: jax.Array | None = None,
    *,
    discount: jax.typing.ArrayLike,
    lambda_: jax.typing.ArrayLike,
) -> jax.Array:
    """Generalised advantage estimates, row by row: `returns.gae` of each row.

    A_t = δ_t + γλ A_{t+1},    δ_t = R_{t+1} + γ v(X_{t+1}) − v(X_t)

    v(X_{t+1}) counts as 0 where terminated. The sum stops after a step that is terminated or truncated, and after the
    last step that counts. In whole episodes with γ = 1 the gradient is unbiased for λ = 1 with any values, and for
    every λ with exact values. In all other cases the errors of the values cause a bias.

    Args:
        rewards: R_{t+1} `[B, T]`.
        values: v(X_t) `[B, T]`.
        next_values: v(X_{t+1}) before any reset, `[B, T]`. Or `[B]`, only the value after the last step that counts, if
            each row holds one episode; inside the row v(X_{t+1}) is then the value of the next step that counts.
        terminated: bool `[B, T]`. Or `[B]`, whether the last step that counts of a row ends its episode; if not (a time
            limit, the end of a window), the last step bootstraps from `next_values`.
        truncated: bool `[B, T]`, true where a time limit ends an episode and the row continues with another episode;
            this needs `next_values [B, T]`. None if no row does so.
        mask: bool `[B, T]`, true for the steps that count; all count if None. Gaps in the mask are skipped.
        discount: γ in [0, 1].
        lambda_: λ in [0, 1].

    Returns:
        A_t `[B, T]`, in units of reward; 0 outside the mask.

    Raises:
        ValueError: if a type or shape is wrong, `truncated` is given with `next_values [B]`, or the discount or lambda_
            is outside [0, 1].

    Source: Schulman, Moritz, Levine, Jordan & Abbeel 2016, eq. 16.
    """
    rewards = as_floats("rewards", rewards, (2,))
    values = as_floats("values", values, (2,), rewards.shape)
    next_values = as_floats("next_values", next_values, (1, 2), rewards.shape)
    terminated = as_bools("terminated", terminated, rewards.shape, (1, 2))
    if truncated is not None and next_values.ndim == 1:
        raise ValueError("next_values must have the shape [B, T] if truncated is given, got [B]")
    rows = live_first(as_mask(mask, rewards.shape))
    rewards, values = rows.pack(rewards), rows.pack(values)
    if next_values.ndim == 1:
        next_values = jnp.where(rows.ends, next_values[:, None], jnp.roll(values, -1, axis=1))
    else:
        next_values = rows.pack(next_values)
    terminated = rows.ends & terminated[:, None] if terminated.ndim == 1 else rows.pack(terminated)
    cuts = rows.ends
    if truncated is not None:
        cuts = cuts | rows.pack(as_bools("truncated", truncated, rewards.shape, (2,)))
    one = functools.partial(return_functions.gae, discount=discount, lambda_=lambda_)
    return rows.unpack(jax.vmap(one)(rewards, values, next_values, terminated, cuts))


@readable
def standardise(x: jax.Array, mask: jax.Array | None = None, *, ddof: int = 0) -> jax.Array:
    """(x − m) / s over all entries that count; exactly 0 if all of them are equal.

    m = (1/n) Σ x,    s² = Σ (x − m)² / (n − ddof)

    As an advantage it is biased: m contains the episode's own return, and the factor 1/s is random and depends on that
    return too.

    Args:
        x: numbers of a float type, any axes.
        mask: bool of the shape of x, true for the n entries that count; all count if None.
        ddof: 0 for the divisor n, 1 for n − 1.

    Returns:
        An array of the shape of x, without a unit; 0 outside the mask.

    Raises:
        ValueError: if a type or shape is wrong, or ddof is neither 0 nor 1.
    """
    require_integer("ddof", ddof, 0, 1)
    x = as_floats("x", x)
    return standardised(x, as_mask(mask, x.shape), ddof=ddof)


@readable
def step_weights(mask: jax.Array, *, over_time: OverTime = "sum", dtype: jax.typing.DTypeLike = float) -> jax.Array:
    """The weight of each step in a mean over episodes.

    `"sum"`: 1/B    `"mean"`: 1 / Σ_i |o_i|    `"episode_mean"`: 1 / (B |o_i|)    `"horizon"`: 1 / (B T)

    |o_i| is the number of steps of episode i that count, and B is the number of episodes with at least one such step.

    Args:
        mask: bool `[B, T]`, true for the steps that count.
        over_time: one of the four words; `aggregate` says what each does to the gradient.
        dtype: the float type of the weights.

    Returns:
        The weights `[B, T]`; 0 outside the mask.

    Raises:
        ValueError: if the word is unknown, or the mask has a wrong type or shape.

    Example: one answer of two tokens and one of a single token.

        >>> import jax.numpy as jnp
        >>> from pgjax import advantages
        >>> mask = jnp.array([[True, True], [True, False]])
        >>> print(advantages.step_weights(mask, over_time="episode_mean"))
        [[0.25 0.25]
         [0.5  0.  ]]
    """
    require_one_of("over_time", over_time, get_args(OverTime))
    mask = as_bools("mask", mask, jnp.shape(mask), (2,))
    lengths = jnp.sum(mask, axis=1, keepdims=True)
    num_episodes = jnp.maximum(jnp.sum(lengths > 0), 1)
    factors = time_factors(lengths, mask.shape[1], num_episodes, over_time, dtype)
    return mask.astype(dtype) * (factors / num_episodes.astype(dtype))


@readable
def aggregate(terms: jax.Array, mask: jax.Array, *, over_time: OverTime = "sum") -> jax.Array:
    """The terms of a loss, added up over the steps and averaged over the episodes.

    `"sum"`: (1/B) Σ_i Σ_t x    `"mean"`: Σ_i Σ_t x / Σ_i |o_i|
    `"episode_mean"`: (1/B) Σ_i (1/|o_i|) Σ_t x    `"horizon"`: (1/(B T)) Σ_i Σ_t x

    |o_i| is the number of steps of episode i that count, and B is the number of episodes with at least one such step.

    `"sum"` does not change the expected gradient (seq-mean-token-sum in verl). `"horizon"` divides it by T, the number
    of columns, which is the greatest length if the batch is padded to it (Dr. GRPO as released;
    seq-mean-token-sum-norm in verl); T is a constant, so a larger learning rate compensates for it. `"mean"` multiplies
    the sum by B / Σ_i |o_i|, which is random (DAPO; token-mean in verl). `"episode_mean"` is biased towards short right
    answers and long wrong answers (GRPO; seq-mean-token-mean in verl).

    Args:
        terms: x `[B, T]`, such as `losses.score_function_loss(log_probs, advantages)`.
        mask: bool `[B, T]`, true for the steps that count.
        over_time: one of the four words.

    Returns:
        A scalar.

    Raises:
        ValueError: if the word is unknown, or a type or shape is wrong.

    Source: Shao et al. 2024, eq. 3 (1/|o_i|); Liu et al. 2025 (without it).
    """
    terms = as_floats("terms", terms, (2,))
    mask = as_mask(mask, terms.shape)
    return jnp.sum(step_weights(mask, over_time=over_time, dtype=terms.dtype) * jnp.where(mask, terms, 0.0))
