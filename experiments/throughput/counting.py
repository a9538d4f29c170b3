"""Operations and bytes for one live step, counted from compiled pieces without loops.

The compiler counts the body of a loop once, however often it runs, so its count of a whole program is too low. The
forward pass, the gradient and the step of the environment are therefore compiled alone for many rows, and their counts
are divided by the number of rows.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from pgjax import spaces
from pgjax.environments import random_policy
from pgjax.types import Environment, Policy, PyTree

ROWS = 256


class Count(NamedTuple):
    """What one live step costs.

    Attributes:
        operations: floating-point operations.
        accessed: the bytes that all compiled loops read and write, as the compiler counts them; most of them stay in
            the caches.
        moved: the bytes that must pass the memory: what the step stores in the trajectory, and what the gradient reads
            of it. The parameters are left out, because they stay in the caches.
    """

    operations: float
    accessed: float = 0.0
    moved: float = 0.0

    def __add__(self, other: "Count") -> "Count":
        return Count(*(a + b for a, b in zip(self, other, strict=True)))

    def times(self, factor: float) -> "Count":
        return Count(*(factor * x for x in self))


def piece(function: Callable, *arguments: Any, rows: int = ROWS) -> Count:
    """Operations and accessed bytes for a row of a function without loops over `rows` rows."""
    costs = jax.jit(function).lower(*arguments).compile().cost_analysis()
    return Count(operations=costs.get("flops", 0.0) / rows, accessed=costs.get("bytes accessed", 0.0) / rows)


def size_of(*trees: PyTree) -> float:
    """The bytes of one row, given trees of arrays or shapes without an axis of rows."""
    return float(sum(x.size * x.dtype.itemsize for tree in trees for x in jax.tree.leaves(tree)))


class Pieces(NamedTuple):
    """The counts of which those of the programs are sums.

    Attributes:
        step: a random action, and the environment's step with it; stores the row of the trajectory.
        forward: the policy's outputs; nothing is moved, because the step stores them.
        gradient: the gradient of Σ w ln f(x, θ)_a over the rows, which reads observations, actions and weights.
        predict, fit: the values of the observations, and the gradient of the squared error of a value network.
    """

    step: Count
    forward: Count
    gradient: Count
    predict: Count = Count(0.0)
    fit: Count = Count(0.0)


def _repeated(tree: PyTree) -> PyTree:
    """`ROWS` copies of one row."""
    return jax.tree.map(lambda x: jnp.broadcast_to(x, (ROWS, *jnp.shape(x))), tree)


def pieces(environment: Environment, policy: Policy, params: PyTree, value: tuple | None, window: bool) -> Pieces:
    """The counts of one environment and of its networks; `value` is `(init, apply)` of a value network.

    A row of a window also stores the next observation.
    """
    state, obs = environment.reset(jax.random.key(0), environment.params)
    action = spaces.sample(environment.action_space, jax.random.key(0))
    random, keys = random_policy(environment), jax.random.split(jax.random.key(1), ROWS)

    def step(key: jax.Array, state: PyTree, obs: PyTree):
        action_key, step_key = jax.random.split(key)
        return environment.step(step_key, state, random.distribution.sample(action_key, obs), environment.params)

    many_obs, many_actions, many_weights = _repeated(obs), _repeated(action), jnp.ones(ROWS)
    outputs = jax.vmap(policy.apply, (None, 0))
    log_prob = jax.vmap(policy.distribution.log_prob)
    weighted = lambda p, x, a, w: jnp.sum(w * log_prob(outputs(p, x), a))
    mask_and_reward = 4 + 3  # float32, and three masks of one byte
    stored = size_of(obs, action) + mask_and_reward + window * size_of(obs)
    read = size_of(obs, action) + 4
    found = Pieces(
        step=piece(jax.vmap(step), keys, _repeated(state), many_obs)._replace(moved=stored),
        forward=piece(outputs, params, many_obs),
        gradient=piece(jax.grad(weighted), params, many_obs, many_actions, many_weights)._replace(moved=read),
    )
    if value is None:
        return found
    init, apply = value
    value_params, values = init(jax.random.key(2), obs), jax.vmap(apply, (None, 0))
    error = lambda p, x, y: jnp.sum(jnp.square(values(p, x) - y))
    return found._replace(
        predict=piece(values, value_params, many_obs)._replace(moved=(1 + window) * size_of(obs) + 4),
        fit=piece(jax.grad(error), value_params, many_obs, many_weights)._replace(moved=size_of(obs) + 4),
    )
