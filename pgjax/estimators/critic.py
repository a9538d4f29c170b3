"""Estimators with a critic q(X_t, ·) of discrete actions: expected gradients and control variates that see the action.

    Σ_a f(x, θ)_a ∇ ln f(x, θ)_a q(x, a) = ∇ Σ_a f(x, θ)_a q(x, a)

is known without sampling, so what q explains of the return may be taken out of the weights, A_t and all, and put back
as this term. Axes: T time, B episodes, A actions.
"""

from typing import Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp

from pgjax import acting, baselines
from pgjax import returns as return_functions
from pgjax._checks import require_one_of
from pgjax.estimators._monte_carlo import require_monte_carlo, time_factors
from pgjax.estimators.hot_path import assemble, entropies
from pgjax.estimators.rules import ReturnRule, reward_to_go
from pgjax.rows import map_over_rows
from pgjax.types import Baseline, Critic, Estimator, Policy, PyTree, TimeWeights, Trajectory

CriticForm = Literal["all_action", "action_dependent", "uncorrected", "trajectory_wise"]


class CriticEstimatorState(NamedTuple):
    """What the `critic` and the state `baseline` have learnt."""

    critic: PyTree
    baseline: PyTree


def _all_log_probs(policy: Policy, outputs: PyTree, num_actions: int) -> jax.Array:
    """ln f(x, θ)_a of every action, `[N, A]`, of outputs `[N, ...]`."""
    of_row = jax.vmap(policy.distribution.log_prob, (None, 0))
    return jax.vmap(of_row, (0, None))(outputs, jnp.arange(num_actions))


def _of_action_taken(q: jax.Array, actions: jax.Array) -> jax.Array:
    """q(X_t, A_t), `[...]`, of `q [..., A]`."""
    taken = jax.nn.one_hot(actions, q.shape[-1], dtype=jnp.bool_)
    return jnp.sum(jnp.where(taken, q, 0.0), axis=-1)


def _later_surprises(
    policy: Policy,
    params: PyTree,
    q: jax.Array,
    trajectory: Trajectory,
    discount: jax.typing.ArrayLike,
    rows_per_piece: int | None,
) -> jax.Array:
    """Σ_{k>t} γ^{k−t} (q_k − v_k), `[T, B]`, with v_k = Σ_a f(X_k, θ)_a q(X_k, a); its mean given X_t, A_t is 0."""

    def expected(piece: tuple[acting.Inputs, jax.Array]) -> jax.Array:
        seen, values = piece
        probabilities = jnp.exp(_all_log_probs(policy, acting.outputs(policy, params, seen), q.shape[-1]))
        return jnp.sum(probabilities * acting.rows_of(policy, values), axis=-1)

    v = map_over_rows(
        expected,
        (acting.inputs(policy, trajectory), q),
        trajectory.alive,
        rows_per_piece,
        whole_episodes=policy.memory is not None,
    )
    surprises = jnp.where(trajectory.alive, _of_action_taken(q, trajectory.actions) - v, 0.0)
    to_go = lambda x: return_functions.reward_to_go(x, discount=discount)
    return jax.vmap(to_go, in_axes=1, out_axes=1)(surprises) - surprises


def make_critic_estimator(
    policy: Policy,
    critic: Critic,
    *,
    form: CriticForm,
    returns: ReturnRule | None = None,
    baseline: Baseline | None = None,
    time_weights: TimeWeights = "none",
    rows_per_piece: int | None = None,
) -> Estimator:
    """An estimator of ∇ρ(θ) that knows a q(X_t, ·) for every action of a discrete space.

    With ψ_t = ∇ ln f(X_t, θ)_{A_t}, q_t = q(X_t, A_t), v_t = Σ_a f(X_t, θ)_a q(X_t, a) and g_t = ∇ Σ_a f(X_t, θ)_a
    q(X_t, a) (q held fixed), the summand of one episode is

        all_action         Σ_t g_t
        action_dependent   Σ_t ψ_t (G_t − q_t − b_t) + g_t
        uncorrected        Σ_t ψ_t (G_t − q_t − b_t)
        trajectory_wise    Σ_t ψ_t (G_t − q_t − Σ_{k>t} γ^{k−t} (q_k − v_k) − b_t) + g_t

    - `"all_action"` samples states only: its mean is Σ_t E ∇Σ_a f q, so it is unbiased if q is the Q of the policy
      (of the time left, where the horizon is finite) and otherwise as wrong as q is.
    - `"action_dependent"` and `"trajectory_wise"` are unbiased for every q that does not depend on the batch. The
      first leaves what later actions do to G_t; the second removes that too. With the exact Q and deterministic
      transitions and rewards its weights are 0 and it equals `"all_action"`: what remains is the variance of Σ_t g_t,
      that of the states visited.
    - `"uncorrected"` is a negative control: biased by exactly −E Σ_t g_t.

    With γ < 1 all of this holds for the discounted objective under `time_weights="discount"`, or with
    `total_return(γ)` for the two unbiased forms; without, rows are weighed as in `reward_to_go`.
    Costs a pass of the critic over the rows, the A log-probabilities of each row, and for `"trajectory_wise"` a second
    pass of the policy.

    Args:
        policy: f(x, θ) whose actions are the integers 0, …, A − 1 (categorical).
        critic: q, whose predictions tell A (`critics.action_values`, `critics.action_value_function`); fitted to G.
        form: one of the above.
        returns: G, a Monte-Carlo rule; `reward_to_go()` if None. `"all_action"` uses it for the critic alone.
        baseline: b, fitted to what the weights leave for it, G_t − q_t − …; `baselines.none()` if None. No part of
            `"all_action"`, where Σ_a ∇f_a b = 0.
        time_weights: `"none"`, or `"discount"`: the factor γᵗ on row t, as in `make_estimator`.
        rows_per_piece: how many rows the hot path works on at a time.

    Raises:
        ValueError: for an unknown word, returns that bootstrap, a baseline that weighs by scores or has nothing to
            subtract from, or γᵗ twice.

    Source: Sutton, McAllester, Singh & Mansour 2000, Ciosek & Whiteson 2018 (all actions); Gu et al. 2017, Liu et al.
        2018, Wu et al. 2018 (action-dependent), Tucker et al. 2018 (the missing term); Cheng, Yan & Boots 2020
        (trajectory-wise).
    """
    require_one_of("form", form, get_args(CriticForm))
    returns = reward_to_go() if returns is None else returns
    if baseline is not None and form == "all_action":
        raise ValueError("baseline must be None with form='all_action', where Σ_a ∇f_a b = 0, got one")
    baseline = baselines.none() if baseline is None else baseline
    require_monte_carlo(returns, baseline, time_weights)

    def init(key: jax.Array, sample: Trajectory) -> CriticEstimatorState:
        critic_key, baseline_key = jax.random.split(key)
        return CriticEstimatorState(
            critic=critic.init(critic_key, sample), baseline=baseline.init(baseline_key, sample)
        )

    def weigh(params: PyTree, state: CriticEstimatorState, q: jax.Array, trajectory: Trajectory):
        """w, the factor of g_t, what b is fitted to and G, each `[T, B]`."""
        targets = returns.compute(trajectory, None, None)
        factors = time_factors(returns, time_weights, targets)
        if form == "all_action":
            return jnp.zeros_like(targets), factors, targets, targets
        left = targets - _of_action_taken(q, trajectory.actions)
        if form == "trajectory_wise":
            left = left - _later_surprises(policy, params, q, trajectory, returns.discount, rows_per_piece)
        values = baseline.predict(state.baseline, trajectory._replace(returns=left))
        factors_of_g = jnp.zeros_like(factors) if form == "uncorrected" else factors
        return jnp.where(trajectory.alive, factors * (left - values), 0.0), factors_of_g, left, targets

    def rows_and_update(params: PyTree, state: CriticEstimatorState, trajectory: Trajectory):
        q = critic.predict(state.critic, trajectory)
        weight, factors, left, targets = weigh(params, state, q, trajectory)
        new_critic, metrics = critic.update(state.critic, trajectory._replace(returns=targets), targets)
        new_baseline, more = baseline.update(state.baseline, trajectory._replace(returns=left), left)
        new = CriticEstimatorState(critic=new_critic, baseline=new_baseline)
        return (trajectory.actions, weight, factors[..., None] * q), new, {**metrics, **more}

    def row_objective(outputs: PyTree, rows: tuple) -> tuple[jax.Array, dict[str, jax.Array]]:
        """w ln f_{A_t} + Σ_a f_a q_a, and the entropy."""
        actions, weight, q = rows
        log_probs = _all_log_probs(policy, outputs, q.shape[-1])
        objective = weight * _of_action_taken(log_probs, actions) + jnp.sum(jnp.exp(log_probs) * q, axis=-1)
        return objective, entropies(policy, outputs)

    return assemble(
        policy,
        init=init,
        weigh=rows_and_update,
        row_objective=row_objective,
        needs=baseline.needs,
        rows_per_piece=rows_per_piece,
    )
