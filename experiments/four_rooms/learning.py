"""The actor-critic of four rooms: true action values, and in each state the best baseline plus ε.

Axes: T time, S states, A actions, H rows of action values: one if they do not depend on the time, otherwise T.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from pgjax import baselines, distributions, estimators, exact, rollouts
from pgjax.environments.four_rooms import four_rooms_mdp
from pgjax.exact import TabularMDP
from pgjax.types import Estimator, Policy

DISCOUNT = 0.99
# Where a gradient is taken, no logit is further than this below the largest of its state, so 1/π² fits float64.
DEPTH = 300.0

POLICY = Policy(
    init=lambda key, obs: jnp.zeros((100, 4)),
    apply=lambda params, obs: params[obs],
    distribution=distributions.categorical,
)


class Course(NamedTuple):
    """Exact numbers of the policies of one run, `[N]` each, one for each time that the run was measured.

    Attributes:
        objective: E[Σ_t γᵗ R_{t+1}] without a horizon, to which the endless action values belong.
        cut_objective: the same for episodes cut at the horizon.
        action_entropy: the entropy of the policy, averaged over the steps of an episode, in nats.
        state_entropy: the entropy of the shares of an episode's steps in each cell, in nats.
    """

    objective: jax.Array
    cut_objective: jax.Array
    action_entropy: jax.Array
    state_entropy: jax.Array


def numbered(geometry: str, horizon: int) -> TabularMDP:
    """Return four rooms whose observation is the number of the cell, int32 `[]`, with which a table is indexed."""
    mdp = four_rooms_mdp(geometry, horizon)
    return dataclasses.replace(mdp, observations=jnp.arange(mdp.num_states, dtype=jnp.int32))


def true_values(params: jax.Array, mdp: TabularMDP, values: str) -> jax.Array:
    """Return Q(s, a) `[H, S, A]` of the policy: `"endless"`, H = 1, or `"time left"` until the horizon, H = T."""
    probabilities = exact.policy_probabilities(POLICY.apply, params, mdp)
    if values == "endless":
        return exact.stationary_action_values(mdp, probabilities, DISCOUNT)[None]
    return exact.action_values(mdp, probabilities, DISCOUNT)


def best_baseline(params: jax.Array, q: jax.Array, mdp: TabularMDP, natural: jax.Array) -> jax.Array:
    """b*(s) = E[‖ψ‖² Q(s, A)] / E[‖ψ‖²], `[H, S]`, ψ the score of s alone; F_s⁺ ψ if `natural`, a bool scalar.

    In coordinates φ with θ = θ_0 + (F_s⁺)ᵀ φ the plain score at φ = 0 is F_s⁺ ψ, so the oracle's plain baseline
    of a game of one step that pays Q serves both.
    """

    def apply(shift: jax.Array, state: jax.Array) -> jax.Array:
        logits = params[state]
        inverse = lambda gradient: estimators.softmax_inverse_fisher(logits, gradient)
        return logits + jnp.where(natural, jax.linear_transpose(inverse, shift)(shift)[0], shift)

    def of_row(q: jax.Array) -> jax.Array:
        game = dataclasses.replace(mdp, rewards=q[:, :, None], horizon=1)
        return exact.one_step_baseline(apply, jnp.zeros(mdp.num_actions, q.dtype), game)[0]

    return jax.vmap(of_row)(q)


def weighting(
    params: jax.Array, epsilon: ArrayLike, natural: jax.Array, mdp: TabularMDP, values: str
) -> estimators.Weighting:
    """The weights γᵗ (Q(X_t, A_t) − b*(X_t) − ε), with Q and b* of `params`."""
    q = true_values(params, mdp, values)
    b = best_baseline(params, q, mdp, natural)
    times = lambda trajectory: jnp.minimum(jnp.arange(trajectory.alive.shape[0]), q.shape[0] - 1)[:, None]
    returns = estimators.ReturnRule(
        compute=lambda trajectory, *_: q[times(trajectory), trajectory.obs, trajectory.actions],
        bootstraps=False,
        discount=DISCOUNT,
    )
    best = baselines.stateless(lambda trajectory: b[times(trajectory), trajectory.obs])
    return estimators.make_weighting(
        returns=returns, baseline=baselines.shifted(best, epsilon), time_weights="discount"
    )


def actor_critic(params: jax.Array, epsilon: ArrayLike, natural: jax.Array, mdp: TabularMDP, values: str) -> Estimator:
    """Σ_t γᵗ (Q(X_t, A_t) − b*(X_t) − ε) ∇ ln f(X_t, θ)_{A_t}, times F_s⁺ if `natural`.

    `natural` may be traced, so that both gradients are one program.
    """
    weights = weighting(params, epsilon, natural, mdp, values)
    estimator = estimators.make_estimator(
        POLICY, returns=weights.returns, baseline=weights.baseline, time_weights="discount"
    )
    solve = lambda logits, gradient: jnp.where(natural, estimators.softmax_inverse_fisher(logits, gradient), gradient)
    return estimators.natural(estimator, POLICY, solve=solve)


@jax.jit
def look(params: jax.Array, mdp: TabularMDP) -> Course:
    """Return exact numbers of policies θ `[runs, N, S, A]`, leaves `[runs, N]`."""
    entropy = POLICY.distribution.entropy

    def one(params: jax.Array) -> Course:
        probabilities = exact.policy_probabilities(POLICY.apply, params, mdp)
        visits = jnp.sum(exact.visitation(mdp, probabilities), axis=0)
        shares = visits / jnp.sum(visits)
        return Course(
            objective=exact.stationary_objective(POLICY.apply, params, mdp, DISCOUNT),
            cut_objective=exact.objective(POLICY.apply, params, mdp, DISCOUNT),
            action_entropy=jnp.sum(shares * jax.vmap(entropy)(params)),
            state_entropy=entropy(jnp.log(shares)),
        )

    return jax.lax.map(jax.vmap(one), params)


def make_training(horizon: int, runs: int, episodes: int, every: int, values: str):
    """Return `train(key, curve, ε, step size, natural, mdp) → θ [runs, N, S, A]`, N = episodes / every + 1.

    θ is 0 at first. Each of `episodes` updates plays one episode and takes one step along the estimate. `curve` numbers
    the curves that share a key. One program serves all ε, both gradients and both geometries.
    """
    environment = exact.to_environment(numbered("described", horizon))

    def one_run(key: jax.Array, epsilon: jax.Array, step_size: jax.Array, natural: jax.Array, mdp: TabularMDP):
        def update(params: jax.Array, key: jax.Array) -> tuple[jax.Array, None]:
            trajectory = rollouts.episodes(environment, POLICY, params, key[None], env_params=mdp)
            bounded = jnp.maximum(params, jnp.max(params, axis=-1, keepdims=True) - DEPTH)
            estimator = actor_critic(bounded, epsilon, natural, mdp, values)
            gradient, _, _ = estimator.gradient(bounded, (), trajectory)
            return params + step_size * gradient, None

        def block(params: jax.Array, keys: jax.Array) -> tuple[jax.Array, jax.Array]:
            params, _ = jax.lax.scan(update, params, keys)
            return params, params

        start = jnp.zeros((mdp.num_states, mdp.num_actions))
        keys = jax.random.split(key, episodes).reshape(episodes // every, every)
        return jnp.concatenate([start[None], jax.lax.scan(block, start, keys)[1]])

    @jax.jit
    def train(key, curve, epsilon, step_size, natural, mdp):
        keys = jax.random.split(jax.random.fold_in(key, curve), runs)
        return jax.vmap(lambda key: one_run(key, epsilon, step_size, natural, mdp))(keys)

    return train
