"""Rules for the return G in an estimator's weights, and the v(X_{t+1}) that bootstrapped returns need.

Axes: T time, B episodes.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from pgjax import returns as return_functions
from pgjax._checks import require_in_range, require_integer
from pgjax._doors import readable
from pgjax._records import one_line
from pgjax.types import Baseline, PyTree, Trajectory


class ReturnRule(NamedTuple):
    """A rule that computes the return G in the weights of an estimator; `pgjax.returns` has the arithmetic.

    Attributes:
        compute: `(trajectory, values [T, B], next_values [T, B]) → G [T, B]`; Monte-Carlo rules ignore the values.
        bootstraps: whether the rule uses the values. Only such a rule can learn from windows, which cut episodes.
        discount: γ.
        from_start: whether the rule discounts from the first step of the episode, so that no further factor γᵗ is
            allowed.
    """

    compute: Callable[[Trajectory, jax.Array | None, jax.Array | None], jax.Array]
    bootstraps: bool
    discount: ArrayLike
    from_start: bool = False

    def __repr__(self) -> str:
        return one_line(self)


_over_episodes = lambda function: jax.vmap(function, in_axes=1, out_axes=1)


@readable
def total_return(discount: ArrayLike = 1.0) -> ReturnRule:
    """G_1 = Σ_t γ^{t−1} R_{t+1} in every row, the return of REINFORCE (Williams 1992).

    Example:
        >>> from pgjax import estimators
        >>> estimators.total_return(discount=0.99)
        ReturnRule(total_return, bootstraps=False, discount=0.99, from_start=True)
    """
    require_in_range("discount", discount, 0.0, 1.0)

    def compute(trajectory: Trajectory, values, next_values) -> jax.Array:
        del values, next_values
        total = jax.vmap(lambda rewards: return_functions.discounted_return(rewards, discount=discount), in_axes=1)(
            trajectory.rewards
        )
        return jnp.broadcast_to(total, trajectory.rewards.shape)

    return ReturnRule(compute=compute, bootstraps=False, discount=discount, from_start=True)


@readable
def reward_to_go(discount: ArrayLike = 1.0) -> ReturnRule:
    """G_t = Σ_k γ^k R_{t+k+1}, which leaves out the rewards that A_t cannot have caused.

    At γ = 1 the expected gradient is that of `total_return`. With γ < 1 and no factor γᵗ (`time_weights="none"`) the
    variance is smaller, but the estimate is biased: its direction favours early rewards and is the gradient of no
    objective (Nota & Thomas 2020).

    Example:
        >>> from pgjax import estimators
        >>> estimators.reward_to_go(discount=0.99)
        ReturnRule(reward_to_go, bootstraps=False, discount=0.99)
    """
    require_in_range("discount", discount, 0.0, 1.0)

    def compute(trajectory: Trajectory, values, next_values) -> jax.Array:
        del values, next_values
        return _over_episodes(lambda rewards: return_functions.reward_to_go(rewards, discount=discount))(
            trajectory.rewards
        )

    return ReturnRule(compute=compute, bootstraps=False, discount=discount)


@readable
def n_step(n: int, discount: ArrayLike = 1.0) -> ReturnRule:
    """G_t^{(n)}, the sum of n rewards and the baseline's v(X_{t+n}). The error of v makes it biased.

    Example:
        >>> from pgjax import estimators
        >>> estimators.n_step(n=5, discount=0.99)
        ReturnRule(n_step, bootstraps=True, discount=0.99)
    """
    require_integer("n", n, 1, None)
    require_in_range("discount", discount, 0.0, 1.0)

    def compute(trajectory: Trajectory, values, next_values) -> jax.Array:
        del values
        rule = lambda rewards, following, terminated, truncated: return_functions.n_step_returns(
            rewards, following, terminated, truncated, n=n, discount=discount
        )
        return _over_episodes(rule)(trajectory.rewards, next_values, trajectory.terminated, trajectory.truncated)

    return ReturnRule(compute=compute, bootstraps=True, discount=discount)


@readable
def lambda_return(lambda_: float = 0.95, discount: ArrayLike = 1.0) -> ReturnRule:
    """The λ-return G_t^λ; G_t^λ − v(X_t) is the generalised advantage estimate, GAE (Schulman et al. 2016).

    The error of v makes it biased for λ < 1, and for every λ where the horizon truncates an episode.

    Example:
        >>> from pgjax import estimators
        >>> estimators.lambda_return(lambda_=0.95, discount=0.99)
        ReturnRule(lambda_return, bootstraps=True, discount=0.99)
    """
    require_in_range("lambda_", lambda_, 0.0, 1.0)
    require_in_range("discount", discount, 0.0, 1.0)

    def compute(trajectory: Trajectory, values, next_values) -> jax.Array:
        del values
        rule = lambda rewards, following, terminated, truncated: return_functions.lambda_returns(
            rewards, following, terminated, truncated, discount=discount, lambda_=lambda_
        )
        return _over_episodes(rule)(trajectory.rewards, next_values, trajectory.terminated, trajectory.truncated)

    return ReturnRule(compute=compute, bootstraps=True, discount=discount)


@readable
def next_values(baseline: Baseline, state: PyTree, trajectory: Trajectory, values: jax.Array) -> jax.Array:
    """v(X_{t+1}) before any reset, `[T, B]`, from a baseline that is a function of the observation.

    In complete episodes X_{t+1} is the observation of the next row. After the last live row it is `final_obs`.
    """
    if trajectory.next_obs is not None:
        return baseline.predict(state, trajectory._replace(obs=trajectory.next_obs))
    as_row = lambda x: x[None]
    last = Trajectory(
        obs=jax.tree.map(as_row, trajectory.final_obs),
        actions=trajectory.actions[:1],
        rewards=trajectory.rewards[:1],
        alive=jnp.ones_like(trajectory.alive[:1]),
        terminated=trajectory.terminated[:1],
        truncated=trajectory.truncated[:1],
        final_obs=trajectory.final_obs,
    )
    final = baseline.predict(state, last)
    alive_next = jnp.concatenate([trajectory.alive[1:], jnp.zeros_like(trajectory.alive[:1])])
    following = jnp.concatenate([values[1:], final])
    return jnp.where(alive_next, following, final)
