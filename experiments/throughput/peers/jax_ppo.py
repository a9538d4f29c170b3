"""PPO in JAX on gymnax, in the two styles in which people write it.

"purejaxrl": one optimiser for both networks, whose step clips the norm of the gradient (Lu et al. 2022). "rejax": an
optimiser for each network, with clipped components (Liesen et al. 2024). Both collect windows with the auto-reset of
gymnax in a scan, compute GAE in a reversed scan, shuffle the batch in every epoch, and compile the whole training. They
were written for this comparison from the descriptions of these programs. Statistics of episodes are kept as there;
other entries of gymnax's `info` are not stored, which favours the peer.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import optax
import serving
from flax import linen as nn


class Torso(nn.Module):
    """The layers of one network: dense layers, or a convolution and a dense layer for images."""

    hidden: tuple[int, ...]
    outputs: int
    scale: float

    @nn.compact
    def __call__(self, x):
        act = nn.tanh
        if x.ndim > 2:  # a batch of images
            act = nn.relu
            x = act(nn.Conv(16, (3, 3), padding="VALID")(x.astype(jnp.float32)))
            x = x.reshape(x.shape[0], -1)
        for width in self.hidden:
            x = act(nn.Dense(width, kernel_init=nn.initializers.orthogonal(np.sqrt(2)))(x))
        return nn.Dense(self.outputs, kernel_init=nn.initializers.orthogonal(self.scale))(x)


class Row(NamedTuple):
    obs: Any
    action: Any
    log_prob: Any
    value: Any
    reward: Any
    done: Any


class State(NamedTuple):
    params: Any
    optimizer_state: Any
    lanes: Any
    obs: Any
    episode: Any  # the return and the length of the running episodes, and of the last finished ones
    key: Any


def make_optimizer(given: dict[str, Any]) -> optax.GradientTransformation:
    """One Adam, or one for each network, whose learning rate may fall to zero over the whole training."""
    separate, per_update = given["style"] == "rejax", given["epochs"] * given["minibatches"]
    falling = lambda n: given["learning_rate"] * jnp.maximum(0.0, 1 - (n // per_update) / given["updates"])
    rate = falling if given.get("updates") else given["learning_rate"]
    clip = optax.clip if separate else optax.clip_by_global_norm
    one = optax.chain(clip(0.5), optax.adam(rate, eps=1e-8 if separate else 1e-5))
    if not separate:
        return one
    return optax.multi_transform({"actor": one, "critic": one}, {"actor": "actor", "critic": "critic"})


def advantages(given: dict[str, Any], rows: Row, last_value: jax.Array) -> jax.Array:
    """Generalised advantage estimates of a window, `[T, B]`."""

    def back(carry, row):
        advantage, next_value = carry
        running = 1.0 - row.done
        delta = row.reward + given["discount"] * next_value * running - row.value
        advantage = delta + given["discount"] * given["lambda"] * running * advantage
        return (advantage, row.value), advantage

    first = (jnp.zeros_like(last_value), last_value)
    return jax.lax.scan(back, first, rows, reverse=True, unroll=16)[1]


def make_loss(given: dict[str, Any], actor: Torso, values: Callable) -> Callable:
    """`loss(params, (rows, advantages, targets))` of PPO, with clipped values and a bonus on entropy."""

    def loss(params, batch):
        rows, gae, targets = batch
        log_probs = jax.nn.log_softmax(actor.apply(params["actor"], rows.obs))
        ratio = jnp.exp(jnp.take_along_axis(log_probs, rows.action[:, None], 1)[:, 0] - rows.log_prob)
        gae = (gae - gae.mean()) / (gae.std() + 1e-8)
        clipped = jnp.clip(ratio, 1 - given["clip"], 1 + given["clip"])
        entropy = -jnp.sum(jnp.exp(log_probs) * log_probs, -1).mean()
        policy = -jnp.minimum(ratio * gae, clipped * gae).mean() - given["entropy"] * entropy
        value = values(params, rows.obs)
        near = rows.value + jnp.clip(value - rows.value, -given["clip"], given["clip"])
        error = 0.5 * jnp.maximum(jnp.square(value - targets), jnp.square(near - targets)).mean()
        return policy + 0.5 * error

    return loss


def make(given: dict[str, Any]) -> tuple[Callable, Callable, Callable]:
    """`init(key) → state`, `update(state) → (state, metrics)` and `greedy(params, obs) → actions`."""
    env, env_params = gymnax.make(given["environment"])
    count, steps = given["environments"], given["steps"]
    actor = Torso(tuple(given["hidden"]), env.action_space(env_params).n, 0.01)
    critic = Torso(tuple(given["hidden"]), 1, 1.0)
    optimizer = make_optimizer(given)
    values = lambda params, obs: critic.apply(params["critic"], obs)[..., 0]
    loss = make_loss(given, actor, values)

    def init(key):
        actor_key, critic_key, reset_key, run_key = jax.random.split(key, 4)
        obs, lanes = jax.vmap(env.reset, (0, None))(jax.random.split(reset_key, count), env_params)
        params = {"actor": actor.init(actor_key, obs), "critic": critic.init(critic_key, obs)}
        return State(params, optimizer.init(params), lanes, obs, jnp.zeros((4, count)), run_key)

    def env_step(state, _):
        key, action_key, step_key = jax.random.split(state.key, 3)
        log_probs = jax.nn.log_softmax(actor.apply(state.params["actor"], state.obs))
        action = jax.random.categorical(action_key, log_probs)
        log_prob = jnp.take_along_axis(log_probs, action[:, None], 1)[:, 0]
        value = values(state.params, state.obs)
        keys = jax.random.split(step_key, count)
        found = jax.vmap(env.step, (0, 0, 0, None))(keys, state.lanes, action, env_params)
        obs, lanes, reward, terminated, truncated, _ = found
        done = terminated | truncated
        total, length, last_total, last_length = state.episode
        total, length = total + reward, length + 1
        kept = [jnp.where(done, 0, total), jnp.where(done, 0, length)]
        ended = [jnp.where(done, total, last_total), jnp.where(done, length, last_length)]
        row = Row(state.obs, action, log_prob, value, reward, done)
        state = state._replace(lanes=lanes, obs=obs, episode=jnp.stack([*kept, *ended]), key=key)
        return state, (row, ended[0])

    def minibatch(carry, batch):
        params, optimizer_state = carry
        found, gradient = jax.value_and_grad(loss)(params, batch)
        updates, optimizer_state = optimizer.update(gradient, optimizer_state, params)
        return (optax.apply_updates(params, updates), optimizer_state), found

    def update(state):
        state, (rows, last_returns) = jax.lax.scan(env_step, state, None, steps)
        gae = advantages(given, rows, values(state.params, state.obs))
        batch = jax.tree.map(lambda x: x.reshape(count * steps, *x.shape[2:]), (rows, gae, gae + rows.value))

        def epoch(carry, key):
            order = jax.random.permutation(key, count * steps)
            cut = lambda x: jnp.take(x, order, axis=0).reshape(given["minibatches"], -1, *x.shape[1:])
            return jax.lax.scan(minibatch, carry, jax.tree.map(cut, batch))

        key, *keys = jax.random.split(state.key, given["epochs"] + 1)
        carry, losses = jax.lax.scan(epoch, (state.params, state.optimizer_state), jnp.stack(keys))
        state = state._replace(params=carry[0], optimizer_state=carry[1], key=key)
        return state, (losses.mean(), last_returns.mean())

    greedy = lambda params, obs: jnp.argmax(actor.apply(params["actor"], obs), -1)
    return init, update, greedy


def main(given: dict[str, Any]) -> None:
    init, update, greedy = make(given)
    state = jax.jit(init)(jax.random.key(given["seed"]))
    of_call = max(1, given["steps_per_call"] // (given["environments"] * given["steps"]))
    many = jax.jit(lambda state: jax.lax.scan(lambda s, _: update(s), state, None, of_call), donate_argnums=0)
    used = serving.versions("jax", "gymnax", "flax", "optax")

    def advance() -> int:
        nonlocal state
        state, _ = jax.block_until_ready(many(state))
        return of_call * given["environments"] * given["steps"]

    act = jax.jit(greedy)
    serving.work(given, advance, lambda obs: act(state.params, obs), used)


if __name__ == "__main__":
    main(serving.options())
