"""Many runs of one-episode updates on a bandit, in one program, and what their policies are like.

Axes: N updates, S runs, A arms.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from experiments.shared import one_step
from pgjax import baselines, estimators, exact
from pgjax.distributions import categorical_quantile
from pgjax.types import Baseline, Estimator, Trajectory

REWARDS = (1.0, 0.7, 0.0)
START = ((0.0, 3.0, 5.0),)  # θ₀ of Chung et al. 2021: the likeliest arm is the one that pays nothing
POLICY = one_step.table(len(REWARDS))
FLOOR = 1e-8


class Bandit(NamedTuple):
    """A bandit and all its episodes, one of each arm."""

    mdp: exact.TabularMDP
    episodes: exact.Enumeration

    def probabilities(self, logits: jax.Array) -> jax.Array:
        """f(τ, θ) of the episodes, `[A]`."""
        return exact.trajectory_probabilities(POLICY.apply, logits, self.episodes)

    def value(self, logits: jax.Array) -> jax.Array:
        """ρ(θ) = E[R]."""
        return exact.objective(POLICY.apply, logits, self.mdp)

    def draw(self, logits: jax.Array, uniform: jax.Array) -> Trajectory:
        """One episode, `[1, 1]`, decided by a uniform number."""
        index = categorical_quantile(jnp.log(self.probabilities(logits)), uniform)
        return exact.select_episodes(self.episodes.trajectories, index[None])


def make_bandit(rewards: Any = REWARDS) -> Bandit:
    mdp = exact.make_bandit(rewards)
    return Bandit(mdp=mdp, episodes=exact.enumerate_trajectories(mdp))


def shift_rewards(bandit: Bandit, shift: jax.Array | float) -> Bandit:
    """The bandit whose every reward is greater by `shift`, which may be traced."""
    mdp = dataclasses.replace(bandit.mdp, rewards=bandit.mdp.rewards + shift)
    played = bandit.episodes.trajectories
    shifted = played._replace(rewards=played.rewards + shift)
    return Bandit(mdp=mdp, episodes=bandit.episodes._replace(mdp=mdp, trajectories=shifted))


def reinforce(baseline: Baseline) -> Estimator:
    """(R − b) ∇ ln π_A."""
    return estimators.make_estimator(POLICY, returns=estimators.total_return(), baseline=baseline)


def natural_reinforce(baseline: Baseline) -> Estimator:
    """F⁺ (R − b) ∇ ln π_A = (R − b) (e_A − 1/3) / π_A."""
    return estimators.natural(reinforce(baseline), POLICY, solve=estimators.softmax_inverse_fisher)


def either_reinforce(baseline: Baseline, natural: jax.Array) -> Estimator:
    """`natural_reinforce` where `natural`, which may be traced, is true, else `reinforce`: one program for both."""

    def solve(logits: jax.Array, gradient: jax.Array) -> jax.Array:
        return jnp.where(natural, estimators.softmax_inverse_fisher(logits, gradient), gradient)

    return estimators.natural(reinforce(baseline), POLICY, solve=solve)


def one_of(options: Sequence[Baseline], choice: jax.Array) -> Baseline:
    """The baseline of number `choice`, which may be traced: one program for all. Their states must be alike."""
    call = lambda name: lambda *given: jax.lax.switch(choice, [getattr(each, name) for each in options], *given)
    return Baseline(init=call("init"), predict=call("predict"), update=call("update"))


def clipped(theta: jax.Array) -> jax.Array:
    """ln of π_θ, cut to [10⁻⁸, 1 − 10⁻⁸]: the table that is played, and at which the gradient is taken."""
    return jnp.log(jnp.clip(jax.nn.softmax(theta), FLOOR, 1.0 - FLOOR))


def least_variance(make: Callable[[Baseline], Estimator], bandit: Bandit, logits: jax.Array) -> jax.Array:
    """b* = E[‖g‖² R] / E[‖g‖²], g what the estimator `make(b)` makes of an episode that is worth 1.

    The oracle's `optimal_constant_baseline` of the same norm; without its eigenvectors, to be asked at every update.
    """
    episodes = bandit.episodes.trajectories
    worth_one = episodes._replace(rewards=jnp.ones_like(episodes.rewards))
    each = make(baselines.none()).episode_gradients(logits, (), worth_one)
    weights = bandit.probabilities(logits) * jnp.sum(each**2, axis=(1, 2))
    return jnp.sum(weights * episodes.rewards[0]) / jnp.sum(weights)


def train(
    update: Callable[[Any, jax.Array], Any],
    start: Any,
    key: jax.Array,
    *,
    runs: int,
    updates: int,
    keep: Callable[[Any], Any],
) -> tuple[Any, Any]:
    """S runs of `carry ← update(carry, uniform)` side by side.

    Returns:
        The last carries, leaves `[S, ...]`, and `keep(carries)` before the first update and after each, `[N + 1, ...]`.
    """
    together = jax.vmap(update)

    def one(carries: Any, key: jax.Array) -> tuple[Any, Any]:
        carries = together(carries, jax.random.uniform(key, (runs,)))
        return carries, keep(carries)

    first = jax.tree.map(lambda x: jnp.broadcast_to(x, (runs, *jnp.shape(x))), start)
    last, kept = jax.lax.scan(one, first, jax.random.split(key, updates))
    return last, jax.tree.map(lambda x, rest: jnp.concatenate([x[None], rest]), keep(first), kept)


def spread_out(policies: jax.Array) -> dict[str, jax.Array]:
    """How far a policy is from having decided, of `policies [S, A]`: entropy (nats) and largest probability, `[S]`."""
    entropy = -jnp.sum(jax.scipy.special.xlogy(policies, policies), axis=-1)
    return {"entropy": entropy, "largest": jnp.max(policies, axis=-1)}


def mean_over_runs(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Mean and standard error of `x [S]`, traceable."""
    return jnp.mean(x), jnp.std(x, ddof=1) / x.shape[0] ** 0.5
