"""Games of Pgx for one player, or against an opponent that is part of the environment.

The package is imported at the first call.

Source: Koyamada et al. (2023), Pgx: hardware-accelerated parallel game simulators for reinforcement learning.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from pgjax._doors import readable
from pgjax.distributions import masked_logits
from pgjax.environments.foreign import shared
from pgjax.spaces import Box, Discrete
from pgjax.types import Environment, PyTree, Step

Opponent = Callable[[jax.Array, PyTree, jax.Array], jax.Array]


def random_opponent(key: jax.Array, obs: PyTree, mask: jax.Array) -> jax.Array:
    """An action drawn uniformly from those that the mask `[A]` allows."""
    return jax.random.categorical(key, masked_logits(jnp.zeros(mask.shape), mask))


@readable
def from_pgx(
    env_or_id: Any, *, horizon: int = shared.DEFAULT_HORIZON, opponent: Opponent = random_opponent
) -> Environment:
    """Turn a game of Pgx into an `Environment` of one player.

    A game of several players becomes a decision problem when the other players are fixed. The policy is player 0. After
    each of its actions the opponent moves until it is the turn of player 0 again or the game is over, and the reward is
    the sum of what player 0 was paid meanwhile. Pgx draws who begins; if another player does, `reset` plays its first
    moves. The opponent sees what its player sees. A policy that beats one opponent need not beat another.

    What differs from the package: nothing is reset automatically, which Pgx does not do either; `legal_action_mask` is
    a part of the observation, so that `Environment.action_mask` can read it.

    Args:
        env_or_id: an id such as "2048", "minatar-breakout" or "tic_tac_toe", or a game.
        horizon: T. Pgx has no time limit of its own.
        opponent: `(key, obs, mask [A]) → action` for the other players; it is not used in games of one player.

    Raises:
        MissingPackageError: if Pgx is not installed.
        ValueError: for an unknown id, or a `horizon` below 1.

    Example:
        >>> from pgjax import environments
        >>> environments.from_pgx("2048").action_space  # doctest: +SKIP
        Discrete(4)
    """
    name = env_or_id if isinstance(env_or_id, str) else env_or_id.id
    pgx = shared.imported("pgx", package="pgx", extra="pgx", wanted_by=f"pgx:{name}")
    if isinstance(env_or_id, str):
        shared.require_known(name, pgx.available_envs(), "pgx")
    env = pgx.make(env_or_id) if isinstance(env_or_id, str) else env_or_id
    start = jax.eval_shape(env.init, jax.random.key(0))
    board = jax.tree.map(shared.observed_as, start.observation)
    (num_actions,) = start.legal_action_mask.shape
    return shared.as_environment(
        f"pgx:{name}",
        _raw(env, opponent),
        action_space=Discrete(num_actions),
        observation_space={
            "action_mask": Box(low=False, high=True, shape=(num_actions,), dtype=bool),
            "observation": shared.unbounded(board),
        },
        action_mask=lambda obs: obs["action_mask"],
        horizon=horizon,
    )


def _raw(env: Any, opponent: Opponent) -> shared.Raw:
    def others(key: jax.Array, state: Any) -> tuple[Any, jax.Array]:
        """The state at the next turn of player 0 or at the end, and what player 0 was paid on the way."""

        def move(carry: tuple) -> tuple:
            key, state, paid = carry
            key, opponent_key, step_key = jax.random.split(key, 3)
            action = opponent(opponent_key, state.observation, state.legal_action_mask)
            state = env.step(state, action, step_key)
            return key, state, paid + state.rewards[0]

        waiting = lambda carry: (carry[1].current_player != 0) & ~carry[1].terminated
        _, state, paid = jax.lax.while_loop(waiting, move, (key, state, jnp.zeros_like(state.rewards[0])))
        return state, paid

    def seen(state: Any) -> PyTree:
        # At the end it may be the turn of another player, but the observation is that of player 0.
        observation = env._observe(state, jnp.zeros_like(state.current_player)) if env.num_players > 1 else None
        return {
            "action_mask": state.legal_action_mask,
            "observation": state.observation if observation is None else observation,
        }

    def reset(key: jax.Array, params: PyTree) -> tuple[PyTree, PyTree]:
        reset_key, opponent_key = jax.random.split(key)
        state = jax.tree.map(shared.strong, env.init(reset_key))
        if env.num_players > 1:
            state, _ = others(opponent_key, state)
        return state, seen(state)

    def step(key: jax.Array, state: Any, action: jax.Array, params: PyTree) -> tuple[PyTree, Step]:
        step_key, opponent_key = jax.random.split(key)
        like, state = state, env.step(state, action, step_key)
        state, reward = jax.tree.map(shared.cast_like, state, like), state.rewards[0]
        if env.num_players > 1:
            state, paid = others(opponent_key, state)
            reward = reward + paid
        return state, Step(obs=seen(state), reward=reward, terminated=state.terminated)

    return shared.Raw(reset=reset, step=step)
