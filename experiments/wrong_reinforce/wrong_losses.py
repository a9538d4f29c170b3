"""The wrong code itself: each function is a loss to be minimised, as teaching code and libraries write it.

The estimate is minus the gradient of the loss with respect to θ, so a right loss would be −Σ_t ln f(X_t, θ)_{A_t} G_t.
In each function one line is marked: it is wrong, or was called wrong. `e` is one finished episode with arrays `[T]`, or
a batch `[T, B]` where the function says so; `room` holds the constants.
"""

import inspect
import textwrap
from collections.abc import Callable

import jax
import jax.numpy as jnp

from experiments.shared.exact_room import Episodes, Room, taken, to_go

MARK = "  # ←"
Loss = Callable[[Episodes, Room], jax.Array]


def marked_line(loss: Loss) -> str:
    """The line of `loss` that carries the mark."""
    (line,) = [line for line in inspect.getsource(loss).splitlines() if line.endswith(MARK)]
    return line.removesuffix(MARK).strip()


def source(loss: Loss) -> str:
    """The code of `loss` below its signature and docstring, the mark included."""
    lines = inspect.getsource(loss).splitlines()
    body = [line for line in lines if not line.startswith("def ") and not line.strip().startswith('"""')]
    return textwrap.dedent("\n".join(body))


def mean_log_prob_times_summed_returns(e: Episodes, room: Room) -> jax.Array:
    deltas = to_go(e.rewards)
    log_prob_mean = e.log_probs.sum() / e.length  # ←
    return -(log_prob_mean * deltas).sum()


def sums_multiplied(e: Episodes, room: Room) -> jax.Array:
    returns = to_go(e.rewards)
    return -e.log_probs.sum() * returns.sum()  # ←


def mean_over_steps(e: Episodes, room: Room) -> jax.Array:
    total_reward = e.rewards.sum()
    return -(e.log_probs * total_reward).sum() / e.length  # ←


def mean_over_batch_steps(e: Episodes, room: Room) -> jax.Array:
    """A batch."""
    total_rewards = e.rewards.sum(axis=0)
    return -(e.log_probs * total_rewards).sum() / e.length.sum()  # ←


def discounted_rewards_as_returns(e: Episodes, room: Room) -> jax.Array:
    discounts = room.discount ** jnp.arange(len(e.rewards))
    returns = discounts * e.rewards  # ←
    return -(e.log_probs * returns).sum()


def immediate_reward_left_out(e: Episodes, room: Room) -> jax.Array:
    returns = jnp.append(to_go(e.rewards)[1:], 0.0)  # ←
    return -(e.log_probs * returns).sum()


def discount_power_dropped(e: Episodes, room: Room) -> jax.Array:
    returns = to_go(e.rewards, room.discount)
    return -(e.log_probs * returns).sum()  # ←


def centred_over_own_time(e: Episodes, room: Room) -> jax.Array:
    returns = to_go(e.rewards)
    advantages = returns - returns.sum() / e.length  # ←
    return -(e.log_probs * advantages).sum()


def standardised_over_own_time(e: Episodes, room: Room) -> jax.Array:
    returns = to_go(e.rewards)
    mean = returns.sum() / e.length
    std = jnp.sqrt((e.alive * (returns - mean) ** 2).sum() / e.length)
    advantages = (returns - mean) / (std + 1e-8)  # ←
    return -(e.log_probs * advantages).sum()


def own_sample_in_batch_mean(e: Episodes, room: Room) -> jax.Array:
    """A batch."""
    returns = to_go(e.rewards)
    baseline = returns.mean(axis=1, keepdims=True)  # ←
    return -(e.log_probs * (returns - baseline)).sum(axis=0).mean()


def average_refreshed_first(e: Episodes, room: Room) -> jax.Array:
    total_return = e.rewards.sum()
    average = room.decay * room.average + (1 - room.decay) * total_return  # ←
    return -(e.log_probs * (total_return - average)).sum()


def value_learned_inside_the_episode(e: Episodes, room: Room) -> jax.Array:
    w, loss = room.average, 0.0
    for log_prob, G in zip(e.log_probs, to_go(e.rewards), strict=True):
        delta = G - w
        loss = loss - log_prob * delta
        w = w + room.step_size * delta  # ←
    return loss


def baseline_of_the_action(e: Episodes, room: Room) -> jax.Array:
    q_values = e.obs[:, :-1] @ room.action_values
    advantages = to_go(e.rewards) - taken(q_values, e.actions)  # ←
    return -(e.log_probs * advantages).sum()


def minus_sign_forgotten(e: Episodes, room: Room) -> jax.Array:
    returns = to_go(e.rewards)
    return (e.log_probs * returns).sum()  # ←


def gradient_through_the_advantage(e: Episodes, room: Room) -> jax.Array:
    values = e.logits @ room.head
    advantages = to_go(e.rewards) - values  # ←
    return -(e.log_probs * advantages).sum()


def greedy_action_scored(e: Episodes, room: Room) -> jax.Array:
    log_probs = jax.nn.log_softmax(e.logits).max(axis=-1)  # ←
    return -(log_probs * to_go(e.rewards)).sum()


def probability_for_log_probability(e: Episodes, room: Room) -> jax.Array:
    returns = to_go(e.rewards)
    return -(jnp.exp(e.log_probs) * returns).sum()  # ←


def softmax_twice(e: Episodes, room: Room) -> jax.Array:
    probs = jax.nn.softmax(e.logits)
    log_probs = taken(jax.nn.log_softmax(probs), e.actions)  # ←
    return -(log_probs * to_go(e.rewards)).sum()


def padding_counted(e: Episodes, room: Room) -> jax.Array:
    log_probs = taken(jax.nn.log_softmax(e.logits), e.actions)  # ←
    return -(log_probs * e.rewards.sum()).sum()


def time_limit_as_terminal(e: Episodes, room: Room) -> jax.Array:
    done = (e.terminated | e.truncated).any()  # ←
    last_value = room.value(room.long_values, e.next_obs[-1])
    returns = to_go(e.rewards) + jnp.where(done, 0.0, last_value)
    return -(e.log_probs * (returns - room.value(room.long_values, e.obs))).sum()


def bootstrap_past_the_end(e: Episodes, room: Room) -> jax.Array:
    values, next_values = (room.value(room.network_values, obs) for obs in (e.obs, e.next_obs))
    targets = e.rewards + next_values  # ←
    return -(e.log_probs * (targets - values)).sum()


def returns_run_on(e: Episodes, room: Room, discount: float | None = None) -> jax.Array:
    """A batch, its episodes one after the other in one list."""
    discount = room.discount if discount is None else discount
    R, flat = 0.0, []
    for reward, alive in zip(e.rewards.T.ravel()[::-1], e.alive.T.ravel()[::-1], strict=True):
        R = jnp.where(alive, reward + discount * R, R)  # ←
        flat.insert(0, R)
    returns = jnp.stack(flat).reshape(e.rewards.T.shape).T
    powers = discount ** jnp.arange(len(e.rewards))[:, None]
    return -(e.log_probs * powers * returns).sum(axis=0).mean()


def shapes_broadcast(e: Episodes, room: Room) -> jax.Array:
    values = room.value(room.values, e.obs)[:, None]
    advantages = to_go(e.rewards) - values  # ←
    return -(e.alive[:, None] * e.log_probs * advantages).sum() / e.length


def divided_by_group_deviation(e: Episodes, room: Room) -> jax.Array:
    """A batch of episodes of one step."""
    rewards = e.rewards[0]
    spread = jnp.where(rewards.max() > rewards.min(), rewards.std(), 1.0)
    advantages = (rewards - rewards.mean()) / spread  # ←
    return -(e.log_probs[0] * advantages).mean()


def exploration_not_scored(e: Episodes, room: Room) -> jax.Array:
    """Episodes that the ε-greedy policy has played."""
    log_probs = taken(jax.nn.log_softmax(e.logits), e.actions)  # ←
    return -(log_probs * to_go(e.rewards)).sum()


def first_return_everywhere(e: Episodes, room: Room) -> jax.Array:
    discounts = room.discount ** jnp.arange(len(e.rewards))
    R = (discounts * e.rewards).sum()  # ←
    return -(e.log_probs * R).sum()


def discounts_twice(e: Episodes, room: Room) -> jax.Array:
    returns = to_go(e.rewards, room.discount)
    discounts = room.discount ** jnp.arange(len(e.rewards))
    return -(discounts * returns * e.log_probs).sum()  # ←


def returns_run_on_undiscounted(e: Episodes, room: Room) -> jax.Array:
    """A batch, its episodes one after the other in one list."""
    tail = jnp.cumsum(e.rewards.sum(axis=0)[::-1])[::-1]
    returns = to_go(e.rewards) + jnp.append(tail[1:], 0.0)  # ←
    return -(e.log_probs * returns).sum(axis=0).mean()
