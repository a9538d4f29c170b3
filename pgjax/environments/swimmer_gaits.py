"""Travelling waves for the swimmer: the gait of eels as an open-loop controller, and a search for the best one."""

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from pgjax._checks import require_integer
from pgjax.distributions import sampled_only
from pgjax.types import Environment, Memory, Policy, PyTree


class Wave(NamedTuple):
    """The parameters of a travelling wave, scalars or arrays of one shape.

    Attributes:
        amplitude: a, the greatest action, in [0, 1].
        frequency: f, Hz.
        lag: δ, the phase by which each joint is behind the joint before it, rad.
    """

    amplitude: Any
    frequency: Any
    lag: Any


def travelling_wave(environment: Environment) -> Policy:
    """The policy A_t = a sin(2π f t Δt − δ (i − 1)) of joint i = 1 … n − 1, whose θ is a `Wave`.

    It does not look at the swimmer; its memory is t. The actions of a given θ are deterministic, so its distribution
    can only be sampled. Δt comes from `environment.params`.

    Args:
        environment: a swimmer.

    Example:
        >>> import jax
        >>> from pgjax import environments, evaluation
        >>> from pgjax.environments import swimmer_gaits
        >>> swimmer = environments.make("swimmer", horizon=20)
        >>> policy, wave = swimmer_gaits.travelling_wave(swimmer), swimmer_gaits.Wave(0.5, 0.5, 1.6)
        >>> found = evaluation.evaluate(swimmer, policy, wave, jax.random.key(0), num_episodes=2)
        >>> found.lengths.tolist()
        [20, 20]
    """
    joints = environment.action_space.shape[0]
    time_step = float(environment.params.time_step)

    def step(wave: Wave, time: jax.Array, obs: PyTree) -> tuple[jax.Array, jax.Array]:
        del obs
        phase = 2.0 * jnp.pi * wave.frequency * time_step * time.astype(jnp.float32)
        action = wave.amplitude * jnp.sin(phase - wave.lag * jnp.arange(joints, dtype=jnp.float32))
        return time + 1, action.astype(jnp.float32)

    return Policy(
        init=lambda key, obs: Wave(amplitude=jnp.float32(0.5), frequency=jnp.float32(0.5), lag=jnp.float32(1.6)),
        apply=None,
        distribution=sampled_only(lambda key, action: action, "a travelling wave is deterministic and has no density"),
        memory=Memory(start=lambda wave, obs: jnp.zeros((), jnp.int32), step=step),
    )


def grid(amplitudes: Sequence[float], frequencies: Sequence[float], lags: Sequence[float]) -> Wave:
    """All combinations of the given numbers, as one `Wave` of arrays `[N]`."""
    columns = zip(*itertools.product(amplitudes, frequencies, lags))
    return Wave(*(jnp.asarray(column, jnp.float32) for column in columns))


def mean_returns(environment: Environment, waves: Wave, key: jax.Array, num_episodes: int = 4) -> jax.Array:
    """The mean return of each wave over complete episodes, `[N]`; all waves have the same starts.

    Args:
        waves: N waves, arrays `[N]`.
        key: consumed.
        num_episodes: the number of episodes of each wave, at least 1.

    Raises:
        ValueError: if `num_episodes` is below 1.
    """
    require_integer("num_episodes", num_episodes, 1, None)
    policy = travelling_wave(environment)
    assert policy.memory is not None
    act, params = policy.memory.step, environment.params

    def play(wave: Wave, key: jax.Array) -> jax.Array:
        def step(now: tuple, _: None) -> tuple[tuple, jax.Array]:
            state, time = now
            time, action = act(wave, time, None)
            state, seen = environment.step(key, state, action, params)
            return (state, time), seen.reward

        state, _ = environment.reset(key, params)
        _, rewards = jax.lax.scan(step, (state, jnp.zeros((), jnp.int32)), length=environment.horizon)
        return jnp.sum(rewards)

    keys = jax.random.split(key, num_episodes)
    return jnp.mean(jax.jit(jax.vmap(jax.vmap(play, (None, 0)), (0, None)))(waves, keys), axis=1)
