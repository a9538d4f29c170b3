"""Tucker et al.'s point mass: closed forms, and rollouts whose noise and rewards can be exchanged.

Axes: T time (the horizon), D state, N rollouts.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.harness.targets import Measured
from pgjax import estimators, exact, rollouts
from pgjax.environments.linear_gaussian import LQGParams, make_lqg, make_lqg_policy, time_step
from pgjax.exact import LinearGaussian, Quadratic
from pgjax.types import Environment, Policy, Step
from pgjax.variance import decomposition

VARIANCE = 1e-4  # of the policy, Σ_π = 10⁻⁴ I
NO_BASELINE, FUTURE, BOOTSTRAPPED, WITH_VALUES, STATE = "Σ_a⁰", "Σ_τ", "Σ_τ, λ = 0", "Σ_a^φ(s)", "Σ_s"
LADDER = (NO_BASELINE, FUTURE, WITH_VALUES, STATE)
SOURCES = (NO_BASELINE, FUTURE, BOOTSTRAPPED, WITH_VALUES, STATE)
RELEASED = "Σ_τ, as released"


class RolloutParams(NamedTuple):
    """The parameters of a rollout; every leaf is traced, so one program serves all rollouts.

    Attributes:
        lqg: the parameters of the problem.
        noise_factors: L_t with L_t L_tᵀ the covariance of the noise between t and t + 1, `[T, D, D]`.
        values, action_values: V_t and Q_t, leading axis `[T]`.
        of_reward, of_value, of_action_value: the weights of the reward's parts, see `make_rollout_environment`.
        last: the episode ends after this step.
    """

    lqg: LQGParams
    noise_factors: jax.Array
    values: Quadratic
    action_values: Quadratic
    of_reward: jax.Array
    of_value: jax.Array
    of_action_value: jax.Array
    last: jax.Array


def make_rollout_environment(problem: LinearGaussian) -> Environment:
    """The problem with each step's noise as a parameter, and the reward c_1 R_{t+1} + c_2 V_{t+1}(X_{t+1}) + c_3 Q_t.

    (1, 0, 0) with the discount γ gives the return; (1, γ(1 − λ), 0) with γλ gives the λ-return
    Σ_i (γλ)ⁱ [R + γ(1 − λ) V] with the exact V; (0, 0, 1) with the discount 0 gives Q_t in place of the return.
    """
    base = make_lqg(problem)
    horizon = problem.horizon

    def reset(key: jax.Array, params: RolloutParams) -> tuple[Any, jax.Array]:
        return base.reset(key, params.lqg)

    def step(key: jax.Array, state: Any, action: jax.Array, params: RolloutParams) -> tuple[Any, Step]:
        following, found = base.step(
            key, state, action, params.lqg._replace(noise_factor=params.noise_factors[state.time])
        )
        value = _at(params.values, jnp.minimum(following.time, horizon - 1))(following.position)
        value = jnp.where(following.time < horizon, value, 0.0)
        action_value = _at(params.action_values, state.time)(jnp.concatenate([state.position, action]))
        reward = params.of_reward * found.reward + params.of_value * value + params.of_action_value * action_value
        return following, found._replace(reward=reward, terminated=state.time >= params.last)

    return dataclasses.replace(base, name="rollouts of the point mass", reset=reset, step=step, params=None)


class Solved(NamedTuple):
    """The closed forms of a policy of means μ `[T, 2]`, at every t; with a leading axis for several policies.

    Attributes:
        means: μ.
        objective: ρ, a scalar.
        values, action_values: V_t and Q_t.
        covariances: the covariances of X_t, `[T, D, D]`.
        terms, bootstrapped: the variances of one step's estimate with λ = 1 (the return) and with λ = 0.
    """

    means: jax.Array
    objective: jax.Array
    values: Quadratic
    action_values: Quadratic
    covariances: jax.Array
    terms: exact.LinearGaussianVariances
    bootstrapped: exact.LinearGaussianVariances


def solve(problem: LinearGaussian, means: jax.Array) -> Solved:
    policy = exact.linear_gaussian_policy(problem, means, VARIANCE * jnp.eye(problem.action_size))
    values = exact.linear_gaussian_values(problem, policy)
    terms = jax.vmap(lambda x: exact.linear_gaussian_variances(problem, policy, x))(jnp.asarray([1.0, 0.0]))
    return Solved(
        means=means,
        objective=exact.linear_gaussian_objective(problem, policy),
        values=values.state,
        action_values=values.action,
        covariances=exact.linear_gaussian_states(problem, policy)[1],
        terms=jax.tree.map(lambda x: x[0], terms),
        bootstrapped=jax.tree.map(lambda x: x[1], terms),
    )


@functools.partial(jax.jit, static_argnums=0)
def snapshots(
    updates: tuple[int, ...], problem: LinearGaussian, means: jax.Array, rate: jax.Array, momentum: jax.Array
) -> Solved:
    """Return the closed forms after each of `updates`, `[U]`; the ascent follows a moving average of E[ψ_t G_t]."""
    optimizer = optax.chain(optax.ema(momentum), optax.scale(rate))
    without_discount = problem.discount ** -jnp.arange(problem.horizon, dtype=means.dtype)[:, None]

    def update(carry: tuple, _: None) -> tuple[tuple, jax.Array]:
        means, state = carry
        policy = exact.linear_gaussian_policy(problem, means, VARIANCE * jnp.eye(problem.action_size))
        gradient = without_discount * exact.linear_gaussian_gradient(problem, policy).means
        ascent, state = optimizer.update(gradient, state)
        return (optax.apply_updates(means, ascent), state), means

    carry, visited = jax.lax.scan(update, (means, optimizer.init(means)), None, length=max(updates))
    chosen = jnp.concatenate([visited, carry[0][None]])[jnp.asarray(updates)]
    return jax.lax.map(lambda each: solve(problem, each), chosen)


def logarithms(solved: Solved) -> dict[str, np.ndarray]:
    """Return ln tr Σ of every source, −∞ where Σ is 0; the axes are the leading ones of `solved`."""
    terms = solved.terms
    found = (terms.action, terms.trajectory, solved.bootstrapped.trajectory, terms.action_with_values, terms.state)
    with np.errstate(divide="ignore"):
        return {source: np.log(np.asarray(each)) for source, each in zip(SOURCES, found, strict=True)}


def gaps(lines: dict[str, np.ndarray]) -> np.ndarray:
    """Return ln of each source of the ladder over the next one, in nats, `[3, ..., T]`."""
    return -np.diff(np.stack([lines[source] for source in LADDER]), axis=0)


def least_gap(sampled: dict, update: int) -> Measured:
    """Return the least of ln(Σ_a⁰ / Σ_τ) and ln(Σ_τ / Σ_a^φ(s)) over the sampled t."""
    ladder = ((NO_BASELINE, FUTURE), (FUTURE, WITH_VALUES))
    times = [t for u, t, source in sampled if (u, source) == (update, FUTURE)]
    pairs = [(sampled[update, t, above], sampled[update, t, below]) for t in times for above, below in ladder]
    return min((Measured(a - b, float(np.hypot(e, f))) for (a, e), (b, f) in pairs), key=lambda gap: gap.value)


def released_mean_error(problem: LinearGaussian, solved: Solved, time: int) -> float:
    """E[G_t − Q_t(X_t, A_t)] of released rollouts: Σ_{i>t} γ^{i−t} tr M_i (Cov(X_i) − Σ_W), V_i(x) = xᵀ M_i x + …"""
    excess = solved.covariances - np.asarray(problem.noise_covariance)
    costs = np.einsum("tij,tji->t", solved.values.matrix, excess)[time + 1 :]
    return float(np.sum(float(problem.discount) ** np.arange(1, len(costs) + 1) * costs))


def rollout_params(
    problem: LinearGaussian, solved: Solved, time: int, *, noise: str, kind: str
) -> tuple[RolloutParams, float]:
    """Return the parameters and the discount of rollouts from X_t, t = `time`.

    Args:
        noise: `"transition"`, Σ_W at every step; or `"as released"`: after t the noise has the covariance of the state
            that it leads to, Cov(X_{i+1}) in place of Σ_W.
        kind: `"return"`, `"bootstrap"` (λ = 0) or `"action value"` (Q_t in place of the return).
    """
    covariances = np.array(np.broadcast_to(problem.noise_covariance, solved.covariances.shape))
    if noise == "as released":
        covariances[time:-1] = solved.covariances[time + 1 :]
    gamma = float(problem.discount)
    reward, value, action_value, discount = {
        "return": (1.0, 0.0, 0.0, gamma),
        "bootstrap": (1.0, gamma, 0.0, 0.0),
        "action value": (0.0, 0.0, 1.0, 0.0),
    }[kind]
    narrow = lambda tree: jax.tree.map(lambda x: np.asarray(x, np.float32), tree)
    return RolloutParams(
        lqg=make_lqg(problem).params,
        noise_factors=narrow(np.linalg.cholesky(covariances)),
        values=narrow(solved.values),
        action_values=narrow(solved.action_values),
        of_reward=np.float32(reward),
        of_value=np.float32(value),
        of_action_value=np.float32(action_value),
        last=np.int32(problem.horizon - 1 if kind == "return" else time),
    ), discount


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def decompose(
    environment: Environment,
    policy: Policy,
    num_states: int,
    key: jax.Array,
    params: Any,
    env_params: RolloutParams,
    time: jax.Array,
    discount: jax.Array,
    value_weight: jax.Array,
) -> decomposition.VarianceDecomposition:
    """Return the decomposition at step `time` by restarts, with the baseline `value_weight` · V_t(X_t)."""
    baseline = lambda obs: value_weight * _at(env_params.values, time_step(obs, environment.horizon))(obs[:-1])
    options = {"discount": discount, "baseline": baseline, "time": time, "env_params": env_params}
    return decomposition.variance_decomposition(environment, policy, params, key, num_states, **options)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def return_errors(
    environment: Environment,
    policy: Policy,
    num_rollouts: int,
    key: jax.Array,
    params: Any,
    env_params: RolloutParams,
    time: jax.Array,
    discount: jax.Array,
) -> jax.Array:
    """Return G_t − Q_t(X_t, A_t) of independent rollouts, `[N]`: 0 on average if Q is that of the rollouts."""
    keys = jax.random.split(key, num_rollouts)
    trajectory = rollouts.episodes(environment, policy, params, keys, env_params=env_params)
    found = estimators.reward_to_go(discount).compute(trajectory, None, None)[time]
    position, action = trajectory.obs[time, :, :-1], trajectory.actions[time]
    return found - jax.vmap(_at(env_params.action_values, time))(jnp.concatenate([position, action], axis=1))


# Noise, kind of return and weight of V_t as baseline → which sources are read off these rollouts.
ROLLOUTS = {
    ("transition", "return", 0.0): {FUTURE: "trajectory", NO_BASELINE: "action"},
    ("transition", "bootstrap", 0.0): {BOOTSTRAPPED: "trajectory"},
    ("transition", "action value", 1.0): {WITH_VALUES: "action"},
    ("as released", "return", 0.0): {RELEASED: "trajectory"},
}


class Sampler:
    """Samples one problem: its compiled programs serve every policy, step and kind of rollout."""

    def __init__(self, problem: LinearGaussian, seed: int):
        self.problem, self.key = problem, jax.random.key(seed)
        self.environment = make_rollout_environment(problem)
        self.policy = make_lqg_policy(problem, VARIANCE**0.5)

    def _arguments(self, size: int, solved: Solved, time: int, index: int, noise: str, kind: str) -> tuple:
        options, discount = rollout_params(self.problem, solved, time, noise=noise, kind=kind)
        params = {"means": np.asarray(solved.means, np.float32)}
        key = jax.random.fold_in(self.key, index)
        return self.environment, self.policy, size, key, params, options, np.int32(time), np.float32(discount)

    def sources(self, num_states: int, solved: Solved, time: int, index: int) -> dict[str, tuple[float, float]]:
        """Return source → (ln tr Σ, its standard error) at step `time`; `index` must differ from call to call."""
        found = {}
        for number, ((noise, kind, weight), read) in enumerate(ROLLOUTS.items()):
            index_of_kind = index * len(ROLLOUTS) + number
            arguments = self._arguments(num_states, solved, time, index_of_kind, noise, kind)
            measured = decompose(*arguments, np.float32(weight))
            for source, field in read.items():
                term = getattr(measured, field)
                value = max(float(term.value), 1e-300)
                found[source] = float(np.log(value)), float(term.stderr) / value
        return found

    def errors(self, num_rollouts: int, solved: Solved, time: int, index: int, noise: str) -> np.ndarray:
        """Return G_t − Q_t(X_t, A_t), `[N]`, of rollouts with this noise."""
        arguments = self._arguments(num_rollouts, solved, time, index, noise, "return")
        return np.asarray(return_errors(*arguments), np.float64)


def _at(quadratics: Quadratic, time: jax.Array) -> Quadratic:
    return jax.tree.map(lambda x: jnp.asarray(x)[time], quadratics)
