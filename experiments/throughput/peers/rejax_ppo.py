"""The PPO of the package rejax itself, on gymnax 1.0 or later.

rejax expects that a step of gymnax returns five values, of which one is `done`. From gymnax 1.0 on a step returns six,
so `Adapted` puts the two ends of an episode together.
"""

from typing import Any

import gymnax
import jax
import jax.numpy as jnp
import serving
from rejax import PPO


class Adapted:
    """An environment of gymnax whose step returns `(obs, state, reward, done, info)`."""

    def __init__(self, env: Any):
        self._env = env

    def __getattr__(self, name: str) -> Any:
        return getattr(self._env, name)

    def __deepcopy__(self, memo: dict) -> "Adapted":
        return self

    def step(self, key, state, action, params):
        obs, state, reward, terminated, truncated, _ = self._env.step(key, state, action, params)
        return obs, state, reward, terminated | truncated, {}


def main(given: dict[str, Any]) -> None:
    env, env_params = gymnax.make(given["environment"])
    algorithm = PPO.create(
        env=Adapted(env),
        env_params=env_params,
        agent_kwargs={"activation": "tanh", "hidden_layer_sizes": tuple(given["hidden"])},
        num_envs=given["environments"],
        num_steps=given["steps"],
        num_epochs=given["epochs"],
        num_minibatches=given["minibatches"],
        learning_rate=given["learning_rate"],
        max_grad_norm=0.5,
        gamma=given["discount"],
        gae_lambda=given["lambda"],
        clip_eps=given["clip"],
        ent_coef=given["entropy"],
    )
    state = jax.jit(algorithm.init_state)(jax.random.key(given["seed"]))
    of_call = max(1, given["steps_per_call"] // (given["environments"] * given["steps"]))
    train = lambda state: jax.lax.fori_loop(0, of_call, lambda _, s: algorithm.train_iteration(s), state)
    many = jax.jit(train)
    used = serving.versions("jax", "gymnax", "rejax")

    def advance() -> int:
        nonlocal state
        state = jax.block_until_ready(many(state))
        return of_call * given["environments"] * given["steps"]

    logits = jax.jit(lambda params, obs: algorithm.actor.apply(params, obs, method="_action_dist").logits)
    serving.work(given, advance, lambda obs: jnp.argmax(logits(state.actor_ts.params, obs), -1), used)


if __name__ == "__main__":
    main(serving.options())
