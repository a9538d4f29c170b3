"""Estimators with a critic q(X_t, ·) of discrete actions: expected gradients, and control variates that see the action.

    Σ_a f(x, θ)_a ∇ ln f(x, θ)_a q(x, a) = ∇ Σ_a f(x, θ)_a q(x, a)

This sum over all actions needs no sampling. An estimator may therefore subtract q(X_t, A_t) from the weights, although
q depends on the action, and add this sum to correct the expectation. Axes: T time, B episodes, A actions.
"""

from typing import Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp

from pgjax import acting, baselines
from pgjax import returns as return_functions
from pgjax._checks import require_one_of
from pgjax._doors import readable
from pgjax.estimators._monte_carlo import require_monte_carlo, time_factors
from pgjax.estimators.hot_path import assemble, entropies
from pgjax.estimators.rules import ReturnRule, reward_to_go
from pgjax.rows import map_over_rows
from pgjax.types import Baseline, Critic, Estimator, Policy, PyTree, TimeWeights, Trajectory

CriticForm = Literal["all_action", "action_dependent", "uncorrected", "trajectory_wise"]


class CriticEstimatorState(NamedTuple):
    """The state of the `critic` and the state of the `baseline`."""

    critic: PyTree
    baseline: PyTree


def _all_log_probs(policy: Policy, outputs: PyTree, num_actions: int) -> jax.Array:
    """ln f(x, θ)_a of every action, `[N, A]`, from the policy's outputs `[N, ...]`."""
    of_row = jax.vmap(policy.distribution.log_prob, (None, 0))
    return jax.vmap(of_row, (0, None))(outputs, jnp.arange(num_actions))


def _of_action_taken(q: jax.Array, actions: jax.Array) -> jax.Array:
    """q(X_t, A_t), `[...]`, from `q [..., A]`."""
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
    """Σ_{k>t} γ^{k−t} (q_k − v_k), `[T, B]`, with v_k = Σ_a f(X_k, θ)_a q(X_k, a).

    Given X_t and A_t, the expectation of this sum is 0.
    """

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


@readable
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
    """An estimator of ∇ρ(θ) that uses a critic q(X_t, ·) for all actions of a discrete space.

    With ψ_t = ∇ ln f(X_t, θ)_{A_t}, q_t = q(X_t, A_t), v_t = Σ_a f(X_t, θ)_a q(X_t, a) and g_t = ∇ Σ_a f(X_t, θ)_a
    q(X_t, a) (q held fixed), the summand of one episode is

        all_action         Σ_t g_t
        action_dependent   Σ_t ψ_t (G_t − q_t − b_t) + g_t
        uncorrected        Σ_t ψ_t (G_t − q_t − b_t)
        trajectory_wise    Σ_t ψ_t (G_t − q_t − Σ_{k>t} γ^{k−t} (q_k − v_k) − b_t) + g_t

    - `"all_action"` samples the states only. Its expectation is Σ_t E ∇Σ_a f q. It is unbiased if q is the action value
      Q of the policy (with a finite horizon: the Q for the remaining time). Any error of q becomes a bias.
    - `"action_dependent"` and `"trajectory_wise"` are unbiased for every q that does not depend on the batch.
      `"action_dependent"` keeps the variance that later actions put into G_t; `"trajectory_wise"` removes that too.
      With the exact Q and deterministic transitions and rewards, the weights of `"trajectory_wise"` are 0, so it equals
      `"all_action"`. Only the variance of Σ_t g_t remains, which comes from the visited states.
    - `"uncorrected"` is a negative control: its bias is exactly −E Σ_t g_t.

    With γ < 1 all of this holds for the discounted objective if `time_weights="discount"`; for the two unbiased forms
    also with `total_return(γ)`. In all other cases the rows have the weights of `reward_to_go`.
    The estimator costs a pass of the critic over the rows and the A log-probabilities of each row. `"trajectory_wise"`
    also costs a second pass of the policy.

    Args:
        policy: f(x, θ) whose actions are the integers 0, …, A − 1 (categorical).
        critic: q (`baselines.action_values`, `baselines.action_value_function`), fitted to G. The shape of its
            predictions `[T, B, A]` gives A.
        form: one of the four forms above.
        returns: G, a Monte-Carlo rule; `reward_to_go()` if None. `"all_action"` uses it to fit the critic only.
        baseline: b, fitted to the part of the return that q leaves, G_t − q_t − …; `baselines.none()` if None.
            `"all_action"` takes no baseline, because Σ_a ∇f_a b = 0.
        time_weights: `"none"`, or `"discount"` for the factor γᵗ on row t, as in `make_estimator`.
        rows_per_piece: the number of rows that the gradient is computed for at a time; chosen by the device if None.

    Raises:
        ValueError: if a word is unknown, `returns` bootstraps, `baseline` needs scores, `baseline` is given with
            `"all_action"`, or `time_weights="discount"` is combined with `total_return`.

    Source: Sutton, McAllester, Singh & Mansour 2000, Ciosek & Whiteson 2018 (all actions); Gu et al. 2017, Liu et al.
        2018, Wu et al. 2018 (action-dependent), Tucker et al. 2018 (the missing term); Cheng, Yan & Boots 2020
        (trajectory-wise).

    Example:
        >>> import jax.numpy as jnp
        >>> from pgjax import baselines, environments, estimators, networks
        >>> policy = networks.make_policy(environments.make("corridor"))
        >>> critic = baselines.action_values(lambda obs: jnp.array([-1.0, 1.0]))  # q(x, a) of its two actions
        >>> estimators.make_critic_estimator(policy, critic, form="action_dependent")
        Estimator(make_critic_estimator, fits_windows=False)
    """
    require_one_of("form", form, get_args(CriticForm))
    returns = reward_to_go() if returns is None else returns
    if baseline is not None and form == "all_action":
        raise ValueError(f"baseline must be None with form='all_action', because Σ_a ∇f_a b = 0, got {baseline!r}")
    baseline = baselines.none() if baseline is None else baseline
    require_monte_carlo(returns, baseline, time_weights)

    def init(key: jax.Array, sample: Trajectory) -> CriticEstimatorState:
        critic_key, baseline_key = jax.random.split(key)
        return CriticEstimatorState(
            critic=critic.init(critic_key, sample), baseline=baseline.init(baseline_key, sample)
        )

    def weigh(params: PyTree, state: CriticEstimatorState, q: jax.Array, trajectory: Trajectory):
        """The weights w, the factors of g_t, the targets of b, and G; each `[T, B]`."""
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
