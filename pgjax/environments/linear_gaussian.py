"""The linear-quadratic-Gaussian problem of `exact.lqg` as an environment: one definition, solved and sampled."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from pgjax.distributions import GaussianParameters, diagonal_gaussian
from pgjax.exact.lqg.problem import LinearGaussian, point_mass
from pgjax.types import Box, Environment, Policy, PyTree, Step


class LQGParams(NamedTuple):
    """A `LinearGaussian` in float32 for sampling; every leaf may be vmapped.

    Attributes:
        transition, control, state_cost, action_cost: A `[D, D]`, B `[D, A]`, Q `[D, D]`, R `[A, A]`.
        initial_mean: the mean of X_0, `[D]`.
        initial_factor, noise_factor: L with L Lᵀ the covariance of X_0 and of the noise of a step, `[D, D]`.
    """

    transition: jax.Array
    control: jax.Array
    state_cost: jax.Array
    action_cost: jax.Array
    initial_mean: jax.Array
    initial_factor: jax.Array
    noise_factor: jax.Array


class LQGState(NamedTuple):
    """The state: `position` is X_t `[D]`, and `time` is t, int32, from 0."""

    position: jax.Array
    time: jax.Array


def make_lqg(problem: LinearGaussian | None = None) -> Environment:
    """X_{t+1} = A X_t + B A_t + W_t, R_{t+1} = −(X_tᵀ Q X_t + A_tᵀ R A_t), for exactly T steps.

    The observation is float32 `[D + 1]`: X_t, then t / T, so that a policy can depend on the time, and an open-loop
    policy on the time alone (`time_step` computes t from an observation). Actions are float32 `[A]`, unbounded and not
    clipped. Only the horizon ends an episode. Rewards are not discounted; the estimator applies the problem's γ.

    Args:
        problem: a `LinearGaussian` that is not traced; None takes `exact.point_mass()`.
    """
    problem = point_mass() if problem is None else problem
    names = ("transition", "control", "state_cost", "action_cost", "initial_mean")
    params = LQGParams(
        **{name: jnp.asarray(getattr(problem, name), jnp.float32) for name in names},
        initial_factor=_factor(problem.initial_covariance),
        noise_factor=_factor(problem.noise_covariance),
    )
    horizon, states = problem.horizon, problem.state_size

    def show(state: LQGState) -> jax.Array:
        return jnp.append(state.position, state.time.astype(jnp.float32) / horizon)

    def reset(key: jax.Array, params: LQGParams) -> tuple[LQGState, jax.Array]:
        noise = jax.random.normal(key, (states,), jnp.float32)
        position = params.initial_mean + params.initial_factor @ noise
        state = LQGState(position=position, time=jnp.zeros((), jnp.int32))
        return state, show(state)

    def step(key: jax.Array, state: LQGState, action: jax.Array, params: LQGParams) -> tuple[LQGState, Step]:
        x, noise = state.position, jax.random.normal(key, (states,), jnp.float32)
        reward = -(x @ params.state_cost @ x + action @ params.action_cost @ action)
        position = params.transition @ x + params.control @ action + params.noise_factor @ noise
        following = LQGState(position=position, time=state.time + 1)
        return following, Step(obs=show(following), reward=reward, terminated=jnp.zeros((), jnp.bool_))

    return Environment(
        name="lqg",
        reset=reset,
        step=step,
        params=params,
        observation_space=Box(
            low=(-math.inf,) * states + (0.0,), high=(math.inf,) * states + (1.0,), shape=(states + 1,)
        ),
        action_space=Box(low=-math.inf, high=math.inf, shape=(problem.action_size,)),
        horizon=horizon,
    )


def _factor(covariance: jax.Array) -> jax.Array:
    """The symmetric square root of a covariance; unlike Cholesky's factor it exists for singular covariances, too."""
    values, vectors = np.linalg.eigh(np.asarray(covariance, np.float64))
    return jnp.asarray((vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T, jnp.float32)


def time_step(obs: jax.Array, horizon: int) -> jax.Array:
    """t, int32, of an observation `[D + 1]` of the environment with that horizon."""
    return jnp.round(obs[-1] * horizon).astype(jnp.int32)


def make_lqg_policy(problem: LinearGaussian, scale: ArrayLike, *, feedback: bool = False) -> Policy:
    """A_t ~ N(μ_t + K_t X_t, diag σ²) for `make_lqg(problem)`: the policy of `exact.lqg` in a form that is sampled.

    The parameters are {"means": μ `[T, A]`}, and with `feedback` also "gains": K `[T, A, D]`. All start at zero.

    Args:
        scale: σ > 0, a number or `[A]`; it is fixed and not a parameter.
        feedback: whether the action depends on the state; an open-loop policy depends on the time alone.

    Raises:
        ValueError: for a scale that is not positive.
    """
    if not np.all(np.asarray(scale) > 0):
        raise ValueError(f"scale must be positive, got {scale}")
    log_std = np.broadcast_to(np.log(np.asarray(scale, np.float64)), (problem.action_size,))
    steps, actions, states = problem.horizon, problem.action_size, problem.state_size

    def init(key: jax.Array, obs: jax.Array) -> PyTree:
        del key
        means = {"means": jnp.zeros((steps, actions), obs.dtype)}
        return means | ({"gains": jnp.zeros((steps, actions, states), obs.dtype)} if feedback else {})

    def apply(params: PyTree, obs: jax.Array) -> GaussianParameters:
        t = time_step(obs, steps)
        mean = jnp.asarray(params["means"])[t]
        if feedback:
            mean = mean + jnp.asarray(params["gains"])[t] @ obs[:-1]
        return GaussianParameters(mean=mean, log_std=jnp.asarray(log_std, mean.dtype))

    return Policy(init=init, apply=apply, distribution=diagonal_gaussian)
