"""Along the steps of an episode: what is still to come, GAE, standardising, adding up. Axes: B episodes, T steps."""

import functools
from typing import Literal, get_args

import jax
import jax.numpy as jnp

from pgjax import returns as return_functions
from pgjax._checks import require_integer, require_one_of
from pgjax._spread import standardised
from pgjax.advantages._arrays import as_bools, as_floats, as_mask, live_first

OverTime = Literal["sum", "mean", "episode_mean"]


def reward_to_go(
    rewards: jax.Array, mask: jax.Array | None = None, *, discount: jax.typing.ArrayLike = 1.0
) -> jax.Array:
    """What is still to come from each step on, one episode a row.

    G_t = R_{t+1} + γ G_{t+1}, t over the steps that count

    Args:
        rewards: R_{t+1} `[B, T]`; a reward outside the mask does not count.
        mask: bool `[B, T]`, the steps that count; all if None. Gaps in it are no steps: they discount nothing, and
            what comes behind them is still to come.
        discount: γ in [0, 1].

    Returns:
        G_t `[B, T]`, in units of reward; 0 outside the mask.

    Raises:
        ValueError: for a wrong type or shape, or a discount outside [0, 1].

    Source: Sutton & Barto 2018, eq. 3.9.
    """
    rewards = as_floats("rewards", rewards, (2,))
    rows = live_first(as_mask(mask, rewards.shape))
    one = functools.partial(return_functions.reward_to_go, discount=discount)
    return rows.unpack(jax.vmap(one)(rows.pack(rewards)))


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
    last step that counts. In whole episodes with γ = 1 the gradient is unbiased for λ = 1, whatever the values,
    and for every λ where the values are exact; otherwise their errors make its bias.

    Args:
        rewards: R_{t+1} `[B, T]`.
        values: v(X_t) `[B, T]`.
        next_values: v(X_{t+1}) before any reset, `[B, T]`; or `[B]`, only the one after the last step that counts,
            where a row holds one episode: inside it v(X_{t+1}) is the value of the next step that counts.
        terminated: bool `[B, T]`; or `[B]`, whether the row's last step that counts is the end of its episode. The last
            step bootstraps from `next_values` where it is not (a time limit, a window's end).
        truncated: bool `[B, T]`, where a row goes on with another episode behind a time limit, which needs `next_values
            [B, T]`; None where no row does.
        mask: bool `[B, T]`, the steps that count; all if None. Gaps in it are no steps.
        discount: γ in [0, 1].
        lambda_: λ in [0, 1].

    Returns:
        A_t `[B, T]`, in units of reward; 0 outside the mask.

    Raises:
        ValueError: for a wrong type or shape, `truncated` with `next_values [B]`, or a discount or lambda_ outside
            [0, 1].

    Source: Schulman, Moritz, Levine, Jordan & Abbeel 2016, eq. 16.
    """
    rewards = as_floats("rewards", rewards, (2,))
    values = as_floats("values", values, (2,), rewards.shape)
    next_values = as_floats("next_values", next_values, (1, 2), rewards.shape)
    terminated = as_bools("terminated", terminated, rewards.shape, (1, 2))
    if truncated is not None and next_values.ndim == 1:
        raise ValueError("next_values must have the shape [B, T] where truncated is given, got [B]")
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


def standardise(x: jax.Array, mask: jax.Array | None = None, *, ddof: int = 0) -> jax.Array:
    """(x − m) / s over all entries that count; exactly 0 where they are all equal.

    m = (1/n) Σ x,    s² = Σ (x − m)² / (n − ddof)

    Biased as an advantage: m contains the episode's own return, and the factor 1/s is random and depends on it too.

    Args:
        x: numbers of a float type, any axes.
        mask: bool of the shape of x, the n entries that count; all if None.
        ddof: 0 for the divisor n, 1 for n − 1.

    Returns:
        An array of the shape of x, without a unit; 0 outside the mask.

    Raises:
        ValueError: for a wrong type or shape, or a ddof other than 0 and 1.
    """
    require_integer("ddof", ddof, 0, 1)
    x = as_floats("x", x)
    return standardised(x, as_mask(mask, x.shape), ddof=ddof)


def step_weights(mask: jax.Array, *, over_time: OverTime = "sum", dtype: jax.typing.DTypeLike = float) -> jax.Array:
    """The weight of each step in a mean over episodes; B is the number of episodes with a step that counts.

    `"sum"`: 1/B    `"mean"`: 1 / Σ_i |o_i|    `"episode_mean"`: 1 / (B |o_i|)

    |o_i| is the number of steps of episode i that count.

    Args:
        mask: bool `[B, T]`, the steps that count.
        over_time: the word; `aggregate` says what each does to the gradient.
        dtype: the float type of the weights.

    Returns:
        The weights `[B, T]`; 0 outside the mask.

    Raises:
        ValueError: for an unknown word, or a mask of a wrong type or shape.
    """
    require_one_of("over_time", over_time, get_args(OverTime))
    mask = as_bools("mask", mask, jnp.shape(mask), (2,))
    lengths = jnp.sum(mask, axis=1, keepdims=True)
    if over_time == "mean":
        divisor = jnp.sum(lengths, keepdims=True)
    else:
        divisor = jnp.sum(lengths > 0, keepdims=True) * (lengths if over_time == "episode_mean" else 1)
    return mask.astype(dtype) / jnp.maximum(divisor, 1).astype(dtype)


def aggregate(terms: jax.Array, mask: jax.Array, *, over_time: OverTime = "sum") -> jax.Array:
    """The terms of a loss, added up over the steps and averaged over the episodes.

    `"sum"`: (1/B) Σ_i Σ_t x    `"mean"`: Σ_i Σ_t x / Σ_i |o_i|    `"episode_mean"`: (1/B) Σ_i (1/|o_i|) Σ_t x

    B is the number of episodes with a step that counts, |o_i| the number of steps of episode i that count.

    `"sum"` leaves the expected gradient as it is (Dr. GRPO, up to a constant; verl's seq-mean-token-sum). `"mean"` is a
    rescaling by B / Σ_i |o_i|, which is random (DAPO; verl's token-mean). `"episode_mean"` is biased towards short
    right answers and long wrong ones (GRPO; verl's seq-mean-token-mean).

    Args:
        terms: x `[B, T]`, such as `losses.score_function_loss(log_probs, advantages)`.
        mask: bool `[B, T]`, the steps that count.
        over_time: the word.

    Returns:
        A scalar.

    Raises:
        ValueError: for an unknown word, a wrong type or a wrong shape.

    Source: Shao et al. 2024, eq. 3 (1/|o_i|); Liu et al. 2025 (without it).
    """
    terms = as_floats("terms", terms, (2,))
    mask = as_mask(mask, terms.shape)
    return jnp.sum(step_weights(mask, over_time=over_time, dtype=terms.dtype) * jnp.where(mask, terms, 0.0))
