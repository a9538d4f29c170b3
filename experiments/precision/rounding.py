"""(b), (c) The gradient of one batch of CartPole-v1 in each precision, minus that of the same batch in float64.

Axes: T time, B episodes of a batch, N episodes in all, M batches, P parameters.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.shared import problems
from pgjax import acting, networks, returns, rollouts
from pgjax._platform import platform
from pgjax.estimators import hot_path
from pgjax.types import Policy, PyTree, Trajectory

ENVIRONMENT = "CartPole-v1"
ALL_BFLOAT16 = "bfloat16 parameters and sums"
WARM_BATCHES, WARM_EPISODES = 20, 64


class Setting(NamedTuple):
    """A trained policy and the rows of N episodes `[T, N]`; the weights are G_t − v(X_t) in float32."""

    policy: Policy
    params: PyTree
    obs: np.ndarray
    actions: np.ndarray
    weights: np.ndarray
    alive: np.ndarray


class Errors(NamedTuple):
    """The errors of gradients at several batch sizes, all relative to ‖∇ρ‖.

    Attributes:
        batches: B, in ascending order.
        noise: √(tr Var ĝ / B), the standard error of the float64 gradient of B episodes.
        rounding: variant → for each B, ‖ĝ − ĝ_float64‖ of every measured batch.
        rows: the mean number of live rows in a batch of each size.
    """

    batches: tuple[int, ...]
    noise: np.ndarray
    rounding: dict[str, list[np.ndarray]]
    rows: list[float]

    def mean_square(self, variant: str) -> np.ndarray:
        return np.array([np.mean(np.square(errors)) for errors in self.rounding[variant]])

    def floor(self, variant: str) -> tuple[float, float]:
        """(a, b) of the squared rounding error a + b / B, from the smallest and the largest B; both at least 0."""
        first, last = self.mean_square(variant)[[0, -1]]
        small, large = self.batches[0], self.batches[-1]
        slope = max((first - last) / (1 / small - 1 / large), 0.0)
        return max(last - slope / large, 0.0), slope

    def crossing(self, variant: str) -> float:
        """B* = (σ² − b) / a, the batch size at which rounding and noise are equal; infinite if a is 0."""
        floor, slope = self.floor(variant)
        power = self.noise[0] ** 2 * self.batches[0]
        return (power - slope) / floor if floor > 0 else np.inf


def variants() -> dict[str, Callable[[Policy], Policy]]:
    """Name → the policy with its products. On a GPU the emulation stands beside the units of the device."""
    made = {word: lambda policy, word=word: networks.with_precision(policy, word) for word in networks.PRECISIONS}
    if platform() == "gpu":
        for word in networks.PRECISIONS[1:]:
            made[f"{word}, emulated"] = lambda policy, word=word: networks.with_precision(policy, word, emulate=True)
    return made | {ALL_BFLOAT16: lambda policy: policy}


def make_setting(hidden: tuple[int, ...], practice: int, episodes: int, seed: int) -> Setting:
    problem = problems.make_problem(ENVIRONMENT, "trained" if practice else "fresh", seed, hidden, practice)
    warm_key, key = jax.random.split(jax.random.key(seed + 1))
    keys = jax.random.split(warm_key, (WARM_BATCHES, WARM_EPISODES))
    play = lambda keys: rollouts.episodes(problem.environment, problem.policy, problem.params, keys)
    to_go = jax.vmap(returns.reward_to_go, in_axes=1, out_axes=1)
    value = problem.parts.value
    assert value is not None, "every problem of networks has a value"

    def see(state: PyTree, keys: jax.Array):
        batch = play(keys)
        return value.update(state, batch, to_go(batch.rewards))[0], None

    def rows(key: jax.Array) -> tuple[Trajectory, jax.Array]:
        state = jax.lax.scan(see, value.init(key, play(keys[0])), keys)[0]
        batch = play(jax.random.split(key, episodes))
        weights = to_go(batch.rewards) - value.predict(state, batch)
        return batch, jnp.where(batch.alive, weights, 0.0)

    batch, weights = jax.device_get(jax.jit(rows)(key))
    longest = int(batch.alive.sum(axis=0).max())
    arrays = (x[:longest] for x in (batch.obs, batch.actions, weights, batch.alive))
    return Setting(problem.policy, problem.params, *arrays)


def _gradients(setting: Setting, policy: Policy, dtype: jnp.dtype, size: int, count: int) -> np.ndarray:
    """The gradients of the first `count` batches of `size` episodes, float64 `[M, P]`; all numbers are of `dtype`."""
    params = jax.tree.map(lambda x: jnp.asarray(x, dtype), setting.params)

    @jax.jit
    def gradient(params: PyTree, obs: jax.Array, actions: jax.Array, weights: jax.Array, alive: jax.Array) -> PyTree:
        rows = actions, weights
        return hot_path.batch_gradient(
            policy, hot_path.weighted_log_likelihood(policy), params, acting.Inputs(obs=obs), rows, alive
        )[0]

    found = []
    for k in range(count):
        part = slice(k * size, (k + 1) * size)
        cut = lambda x, part=part: x[:, part]
        obs, weights = (jnp.asarray(cut(x), dtype) for x in (setting.obs, setting.weights))
        estimate = gradient(params, obs, cut(setting.actions), weights, cut(setting.alive))
        found.append(np.concatenate([np.ravel(np.asarray(x, np.float64)) for x in jax.tree.leaves(estimate)]))
    return np.array(found)


def measure(setting: Setting, batches: Sequence[int], most: int, heard: Callable[[str], None]) -> Errors:
    """The noise and the rounding errors; `heard` is called with the name of every variant that is done."""
    batches = tuple(sorted(set(batches)))
    total = batches[-1]
    with jax.enable_x64(True):
        parts = _gradients(setting, setting.policy, jnp.float64, batches[0], total // batches[0])
    gradient = parts.mean(axis=0)
    length = np.linalg.norm(gradient)
    power = batches[0] * np.sum(np.var(parts, axis=0, ddof=1))
    # Batches have equal sizes, so the gradient of a larger one is a mean of those of the smaller ones.
    known = {size: parts.reshape(-1, size // batches[0], parts.shape[1]).mean(axis=1) for size in batches}
    rounding = {}
    for name, change in variants().items():
        dtype = jnp.bfloat16 if name == ALL_BFLOAT16 else jnp.float32
        policy, rounding[name] = change(setting.policy), []
        for size in batches:
            count = min(most, total // size)
            found = _gradients(setting, policy, dtype, size, count)
            rounding[name].append(np.linalg.norm(found - known[size][:count], axis=1) / length)
        heard(name)
    return Errors(
        batches=batches,
        noise=np.sqrt(power / np.array(batches)) / length,
        rounding=rounding,
        rows=[float(setting.alive.sum()) * size / total for size in batches],
    )
