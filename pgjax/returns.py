"""Returns of one stream of T steps, from arrays; use `jax.vmap(f, in_axes=1, out_axes=1)` for many streams.

Row t holds R_{t+1}, the reward that A_t caused. Rewards must be 0 after the end of an episode, so that padding adds
nothing to the rows before it. The results in rows of padding have no meaning; the caller must mask them.

*Two masks do two jobs.* `terminated` stops the bootstrap: the problem is over, so v(X_{t+1}) counts as 0, whatever its
number is. `terminated | truncated` stops the trace: row t + 1 belongs to another episode, so its return does not flow
back into row t. So a truncated row bootstraps, and a terminated row does not. `next_values[t]` = v(X_{t+1}) is the
value of the observation before any reset. The last row of a stream always bootstraps from `next_values[T − 1]`, unless
it is terminated.

Each hyper-parameter may be a traced scalar: a `jax.vmap` over many values compiles once.

Sums run from the last step to the first. They carry the rounding error of each addition along (Kahan 1965). So without
a discount a sum of any length has the error of one rounding, in float32 6·10⁻⁸ of the largest partial sum. Products
with γ or γλ are rounded at every step. After 10 000 rewards of 0.1 or 1.1, relative errors of 1 to 2·10⁻⁶ were measured
for γ = 0.99 and of 10⁻⁶ for γ = 0.9999. Sums of integers below 2²⁴ are exact. Axis: T time.
"""

import chex
import jax
import jax.numpy as jnp

from pgjax._checks import is_traced, require_in_range, require_integer
from pgjax._doors import readable


@readable
def total_return(rewards: jax.Array) -> jax.Array:
    """The undiscounted return of the whole episode.

    G_1 = Σ_t R_{t+1}

    Args:
        rewards: R_{t+1} `[T]`.

    Returns:
        G_1 `[]`, in units of reward.
    """
    chex.assert_rank(rewards, 1)
    chex.assert_type(rewards, float)
    return jnp.sum(rewards)


@readable
def discount_weights(num_steps: int, discount: jax.typing.ArrayLike) -> jax.Array:
    """The powers of the discount, in the default float type.

    w_t = γᵗ, t = 0, …, T − 1, with γ⁰ = 1 also for γ = 0

    Args:
        num_steps: T.
        discount: γ in [0, 1].

    Returns:
        w `[T]`.

    Raises:
        ValueError: if the discount is outside [0, 1].
    """
    require_in_range("discount", discount, 0.0, 1.0)
    discount = jnp.asarray(discount, jnp.result_type(float))
    chex.assert_rank(discount, 0)
    return discount ** jnp.arange(num_steps, dtype=discount.dtype)


@readable
def discounted_return(rewards: jax.Array, *, discount: jax.typing.ArrayLike) -> jax.Array:
    """The discounted return of the whole episode.

    G_1 = Σ_t γᵗ R_{t+1}, t from 0

    Args:
        rewards: R_{t+1} `[T]`.
        discount: γ in [0, 1].

    Returns:
        G_1 `[]`, in units of reward.

    Raises:
        ValueError: if the discount is outside [0, 1].
    """
    chex.assert_rank(rewards, 1)
    chex.assert_type(rewards, float)
    weights = discount_weights(rewards.shape[0], discount).astype(rewards.dtype)
    return jnp.sum(weights * rewards)


def _sum_back(
    terms: jax.Array, factor: jax.Array, *, cut: jax.Array | None = None, last: jax.Array | None = None
) -> jax.Array:
    """S_t = x_t + f S_{t+1} `[T]`, without the product where `cut` is true; S_T is `last`, or 0."""

    def step(following: tuple[jax.Array, jax.Array], row: tuple[jax.Array, jax.Array | None]):
        term, ends = row
        kept = following if ends is None else jax.tree.map(lambda x: jnp.where(ends, 0.0, x), following)
        scaled, rest = (factor * x for x in kept)
        added = term + rest
        current = scaled + added
        return (current, added - (current - scaled)), current

    # On a CPU a scan is ten times as fast as a reversed cumulative sum, and it works for every factor.
    zero = jnp.zeros((), terms.dtype)
    return jax.lax.scan(step, (zero if last is None else last, zero), (terms, cut), reverse=True)[1]


@readable
def reward_to_go(rewards: jax.Array, *, discount: jax.typing.ArrayLike = 1.0) -> jax.Array:
    """The reward-to-go: the sum of the rewards from each step on.

    G_t = R_{t+1} + γ G_{t+1} = Σ_k γᵏ R_{t+k+1}

    Args:
        rewards: R_{t+1} `[T]` of one episode. If the stream held two episodes, the function would add them up.
        discount: γ in [0, 1].

    Returns:
        G_t `[T]`, in units of reward; G_t carries no factor γᵗ.

    Raises:
        ValueError: if the discount is outside [0, 1].

    Source: Sutton & Barto 2018, eq. 3.9.
    """
    chex.assert_rank(rewards, 1)
    chex.assert_type(rewards, float)
    require_in_range("discount", discount, 0.0, 1.0)
    return _sum_back(rewards, jnp.asarray(discount, rewards.dtype))


def _assert_stream(floats: list[jax.Array], masks: list[jax.Array]) -> None:
    """Check the arrays `[T]` of one stream: rewards and values have a float type, masks are bool."""
    chex.assert_rank([*floats, *masks], 1)
    chex.assert_equal_shape([*floats, *masks])
    chex.assert_type(floats, float)
    chex.assert_type(masks, bool)


@readable
def n_step_returns(
    rewards: jax.Array,
    next_values: jax.Array,
    terminated: jax.Array,
    truncated: jax.Array,
    *,
    n: int | jax.Array,
    discount: jax.typing.ArrayLike,
) -> jax.Array:
    """The n-step return: the sum of n rewards and the value after them.

    G_t⁽ⁿ⁾ = R_{t+1} + γ G_{t+1}⁽ⁿ⁻¹⁾ = Σ_{k<n} γᵏ R_{t+k+1} + γⁿ v(X_{t+n}),    G_t⁽⁰⁾ = v(X_t)

    If a cut or the end of the stream comes in fewer than n steps, the row bootstraps there. n = 1 is TD(0), and every
    n ≥ T gives the λ-return with λ = 1. The work is proportional to n T.

    Args:
        rewards: R_{t+1} `[T]`.
        next_values: v(X_{t+1}) `[T]`, before any reset; not used where terminated.
        terminated: bool `[T]`, stops the bootstrap and the trace.
        truncated: bool `[T]`, stops the trace.
        n: number of rewards, an integer of at least 1.
        discount: γ in [0, 1].

    Returns:
        G_t⁽ⁿ⁾ `[T]`, in units of reward.

    Raises:
        ValueError: if n is not an integer of at least 1, or the discount is outside [0, 1].

    Source: Sutton & Barto 2018, eq. 7.1.
    """
    _assert_stream([rewards, next_values], [terminated, truncated])
    require_integer("n", n, 1, None)
    require_in_range("discount", discount, 0.0, 1.0)
    discount = jnp.asarray(discount, rewards.dtype)
    num_steps = rewards.shape[0]
    bootstraps = jnp.where(terminated, 0.0, next_values)
    last = jnp.arange(num_steps) == num_steps - 1
    cut = terminated | truncated | last

    def lengthen(_, shorter: jax.Array) -> jax.Array:
        following = jnp.where(cut, bootstraps, jnp.roll(shorter, -1))
        return rewards + discount * following

    # A known n keeps the trip count static, which reverse-mode differentiation needs.
    longest = jnp.minimum(n, num_steps) if is_traced(n) else min(n, num_steps)
    return jax.lax.fori_loop(1, longest, lengthen, rewards + discount * bootstraps)


@readable
def lambda_returns(
    rewards: jax.Array,
    next_values: jax.Array,
    terminated: jax.Array,
    truncated: jax.Array,
    *,
    discount: jax.typing.ArrayLike,
    lambda_: jax.typing.ArrayLike,
) -> jax.Array:
    """The λ-return: the mean of all n-step returns with the weights (1 − λ) λⁿ⁻¹.

    G_t^λ = R_{t+1} + γ [(1 − λ) v(X_{t+1}) + λ G_{t+1}^λ]

    At a cut and at the end of the stream the bracket is v(X_{t+1}), or 0 where terminated. λ = 0 is TD(0), and λ = 1 is
    the Monte-Carlo return plus the bootstrapped value at the cut.

    Args:
        rewards: R_{t+1} `[T]`.
        next_values: v(X_{t+1}) `[T]`, before any reset; not used where terminated.
        terminated: bool `[T]`, stops the bootstrap and the trace.
        truncated: bool `[T]`, stops the trace.
        discount: γ in [0, 1].
        lambda_: λ in [0, 1].

    Returns:
        G_t^λ `[T]`, in units of reward.

    Raises:
        ValueError: if the discount or lambda_ is outside [0, 1].

    Source: Sutton & Barto 2018, eq. 12.18 with constant λ.
    """
    _assert_stream([rewards, next_values], [terminated, truncated])
    require_in_range("discount", discount, 0.0, 1.0)
    require_in_range("lambda_", lambda_, 0.0, 1.0)
    discount, lambda_ = jnp.asarray(discount, rewards.dtype), jnp.asarray(lambda_, rewards.dtype)
    bootstraps, cut = jnp.where(terminated, 0.0, next_values), terminated | truncated
    bootstrapped = jnp.where(cut, bootstraps, (1.0 - lambda_) * bootstraps)
    return _sum_back(rewards + discount * bootstrapped, discount * lambda_, cut=cut, last=bootstraps[-1])


@readable
def gae(
    rewards: jax.Array,
    values: jax.Array,
    next_values: jax.Array,
    terminated: jax.Array,
    truncated: jax.Array,
    *,
    discount: jax.typing.ArrayLike,
    lambda_: jax.typing.ArrayLike,
) -> jax.Array:
    """Generalised advantage estimates (GAE): discounted sums of TD errors.

    A_t = δ_t + γλ A_{t+1} = Σ_k (γλ)ᵏ δ_{t+k},    δ_t = R_{t+1} + γ v(X_{t+1}) − v(X_t)

    A_t = G_t^λ − v(X_t) if, inside an episode, `next_values[t]` equals `values[t + 1]`. v(X_{t+1}) counts as 0 where
    terminated; the sum stops after a cut.

    Args:
        rewards: R_{t+1} `[T]`.
        values: v(X_t) `[T]`.
        next_values: v(X_{t+1}) `[T]`, before any reset; not used where terminated.
        terminated: bool `[T]`, stops the bootstrap and the trace.
        truncated: bool `[T]`, stops the trace.
        discount: γ in [0, 1].
        lambda_: λ in [0, 1].

    Returns:
        A_t `[T]`, in units of reward.

    Raises:
        ValueError: if the discount or lambda_ is outside [0, 1].

    Source: Schulman, Moritz, Levine, Jordan & Abbeel 2016, eq. 16.
    """
    _assert_stream([rewards, values, next_values], [terminated, truncated])
    require_in_range("discount", discount, 0.0, 1.0)
    require_in_range("lambda_", lambda_, 0.0, 1.0)
    discount, lambda_ = jnp.asarray(discount, rewards.dtype), jnp.asarray(lambda_, rewards.dtype)
    errors = rewards + discount * jnp.where(terminated, 0.0, next_values) - values
    return _sum_back(errors, discount * lambda_, cut=terminated | truncated)
