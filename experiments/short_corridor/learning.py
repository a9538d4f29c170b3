"""REINFORCE on the short corridor, many runs at once: updated at every step of the finished episode, or once after it.

Axes: L runs side by side, E episodes, T time.
"""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pgjax import baselines, distributions, estimators, exact, rollouts
from pgjax.environments.corridor import LEFT, RIGHT, corridor_mdp, make_corridor
from pgjax.rows import largest_of_runs
from pgjax.types import Environment, Estimator, Policy, PyTree, Trajectory

PER_STEP, PER_EPISODE = "per_step", "per_episode"
BEFORE_THE_GOAL = 2
corridor = functools.cache(make_corridor)


class Settings(NamedTuple):
    """The numbers in which runs differ, leaves `[L]`, so that one program serves all runs.

    Attributes:
        step: the step size α_θ.
        keep: 1 − α_w in w ← w + α_w (G − w); 1 means no baseline, w = 0.
        limit: the greatest distance between the logits by which the policy acts; ∞ means no clipping.
        stop: a run is stopped once its logits are further apart than this.
        last_reward: the reward of the step onto the goal.
        moves: whether ∇ ln f of a row is taken at the moved θ, as in the boxed algorithm, or at the θ that acted.
    """

    step: jax.Array
    keep: jax.Array
    limit: jax.Array
    stop: jax.Array
    last_reward: jax.Array
    moves: jax.Array


class Runs(NamedTuple):
    """The state of the runs: θ `[L, 2]`, the estimators' states (w), and whether a run was stopped, bool `[L]`."""

    params: jax.Array
    state: PyTree
    stopped: jax.Array


class Played(NamedTuple):
    """One episode of every run, `[L]`: G_1 (NaN once stopped), ln p/(1 − p) of the acting policy, if it was cut."""

    total_reward: jax.Array
    log_odds: jax.Array
    cut: jax.Array


def log_odds(probability: float) -> float:
    """Return ln p/(1 − p), which is ∞ for p = 1."""
    return float(np.log(probability) - np.log1p(-probability)) if probability < 1 else np.inf


def logits_at(probability: float) -> np.ndarray:
    """Return the logits `[2]` with P(right) = p whose sum is 0."""
    return log_odds(probability) / 2 * np.where(np.arange(2) == RIGHT, 1.0, -1.0)


def clipped_policy(limit: jax.typing.ArrayLike) -> Policy:
    """softmax(θ); where the entries of θ are further apart than `limit`, the softmax of two logits that far apart.

    The score is e_a − π with the clipped probabilities π, also where the clip binds. There it is no gradient of ln π.
    """

    def apply(params: jax.Array, obs: jax.Array) -> jax.Array:
        del obs
        gap = params[RIGHT] - params[LEFT]
        shift = (jnp.clip(gap, -limit, limit) - gap) / 2
        return params + jax.lax.stop_gradient(jnp.where(jnp.arange(2) == RIGHT, shift, -shift))

    return Policy(init=lambda key, obs: jnp.zeros(2), apply=apply, distribution=distributions.categorical)


def make_estimator(update: str, keep: jax.typing.ArrayLike, limit: jax.typing.ArrayLike) -> Estimator:
    """Return the estimator of one row that pays G_t (`"per_step"`), or of an episode with rewards to go."""
    rule = estimators.total_return() if update == PER_STEP else estimators.reward_to_go()
    return estimators.make_estimator(clipped_policy(limit), returns=rule, baseline=baselines.moving_average(keep))


def in_episode(
    estimator: Estimator, params: jax.Array, state: PyTree, trajectory: Trajectory, settings: Settings
) -> tuple[jax.Array, PyTree]:
    """Return (θ + α Σ_t ∇̂_t, w), where each row t of a finished episode is an episode whose only reward is G_t.

    *Use, then update* by row is the boxed algorithm: δ = G_t − w; w ← w + α_w δ; θ ← θ + α δ ∇ ln f. The baseline of a
    row has seen G_0 … G_{t−1}, which A_t helps to make.

    Args:
        estimator: the estimator of one row.
        trajectory: one episode, `[T, 1, ...]`.
        settings: the settings of one run.
    """
    rows = trajectory._replace(rewards=estimators.reward_to_go().compute(trajectory, None, None), final_obs=None)
    length = jnp.sum(trajectory.alive)
    longest = largest_of_runs(length)

    def one(carry):
        t, moved, state = carry
        row = jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, t, 1), rows)._replace(
            final_obs=trajectory.final_obs
        )
        gradient, seen, _ = estimator.gradient(jnp.where(settings.moves, moved, params), state, row)
        new = (moved + settings.step * gradient, seen)
        return t + 1, *jax.tree.map(lambda a, b: jnp.where(t < length, a, b), new, (moved, state))

    return jax.lax.while_loop(lambda carry: carry[0] < longest, one, (jnp.int32(0), params, state))[1:]


def start(params: jax.Array) -> Runs:
    """Return runs before their first episode, with w = 0 and θ = `params`, `[L, 2]`."""
    environment, policy = corridor(1), clipped_policy(np.inf)
    sample = jax.eval_shape(lambda key: rollouts.episodes(environment, policy, params[0], key[None]), jax.random.key(0))
    one = make_estimator(PER_STEP, 1.0, np.inf).init(jax.random.key(0), sample)
    several = params.shape[:1]
    state = jax.tree.map(lambda x: jnp.broadcast_to(x, (*several, *x.shape)), one)
    return Runs(params=jnp.asarray(params), state=state, stopped=jnp.zeros(several, bool))


@functools.partial(jax.jit, static_argnames=("environment", "update"))
def play(
    key: jax.Array, settings: Settings, runs: Runs, episode: jax.Array, *, environment: Environment, update: str
) -> tuple[Runs, Played]:
    """Play one more episode of all runs; `episode` counts those before and makes the keys."""

    def one_run(key: jax.Array, settings: Settings, runs: Runs):
        estimator = make_estimator(update, settings.keep, settings.limit)
        paid = environment.params.rewards.at[BEFORE_THE_GOAL, RIGHT].set(settings.last_reward)
        # A stopped run plays short episodes, which are ignored, because all runs wait for the longest episode.
        acting = jnp.where(runs.stopped, 0.0, runs.params)
        trajectory = rollouts.episodes(
            environment,
            clipped_policy(settings.limit),
            acting,
            key[None],
            env_params=dataclasses.replace(environment.params, rewards=paid),
        )
        if update == PER_STEP:
            params, state = in_episode(estimator, acting, runs.state, trajectory, settings)
        else:
            gradient, state, _ = estimator.gradient(acting, runs.state, trajectory)
            params = acting + settings.step * gradient
        params, state = jax.tree.map(
            lambda new, old: jnp.where(runs.stopped, old, new), (params, state), (runs.params, runs.state)
        )
        gap = params[RIGHT] - params[LEFT]
        row = Played(
            total_reward=jnp.where(runs.stopped, jnp.nan, jnp.sum(trajectory.rewards)),
            log_odds=jnp.clip(runs.params[RIGHT] - runs.params[LEFT], -settings.limit, settings.limit),
            cut=jnp.any(trajectory.truncated) & ~runs.stopped,
        )
        return Runs(params=params, state=state, stopped=runs.stopped | ~(jnp.abs(gap) <= settings.stop)), row

    keys = jax.random.split(jax.random.fold_in(key, episode), runs.stopped.shape[0])
    return jax.vmap(one_run)(keys, settings, runs)


def expected_update(params: jax.Array, baseline_step: jax.typing.ArrayLike) -> jax.Array:
    """E Σ_t (G_t − w_t) ∇ ln f(A_t) of the boxed algorithm at fixed θ, exactly, `[2]`, for any w_0; ∇ρ(θ) at α_w = 0.

    In w_t = (1 − α_w)ᵗ w_0 + α_w Σ_{k<t} (1 − α_w)^{t−1−k} G_k every G_k is G_t plus what was paid before A_t, so that
    E[w_t ∇ ln f] = (1 − (1 − α_w)ᵗ) E[G_t ∇ ln f]: step t of the gradient is multiplied by (1 − α_w)ᵗ. Hence

        Σ_s d(s) Σ_a ∇π(a|s) Q(s, a),    d(s) = Σ_t (1 − α_w)ᵗ P(S_t = s),    Q undiscounted.
    """
    apply = clipped_policy(np.inf).apply
    return exact.stationary_policy_gradient_theorem(
        apply, params, corridor_mdp(), visitation_discount=1.0 - baseline_step
    )


def capped_value(params: jax.Array, horizon: int) -> jax.Array:
    """Return v(p) `[L]` of θ `[L, 2]` when episodes are cut after `horizon` steps."""
    mdp, apply = corridor_mdp(horizon), clipped_policy(np.inf).apply
    return jax.vmap(lambda theta: exact.objective(apply, theta, mdp))(params)
