"""The mean of each exhibit, from dynamic programming and binomial sums, without enumeration.

Nearly all predictions follow from two identities. For any function Y of an episode E[Y Σ_t ∇ ln f(X_t, θ)_{A_t}] =
∇E[Y], so code that multiplies the score of the whole episode by Y climbs E[Y]. And
E[Σ_t ∇ℓ(X_t, A_t) G_t] = Σ_t Σ_s d_t(s) Σ_a f_a Q_t ∇ℓ.

Axes: T time, S states, A actions, K outcomes.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from experiments.shared.exact_room import GOAL, Room
from pgjax import exact

Prediction = Callable[[Room], jax.Array]


def sum_of_episode(
    room: Room,
    params: jax.Array,
    *,
    of_length: jax.Array,
    of_step: jax.Array | None = None,
    rewards: jax.Array | None = None,
    offset: float = 0.0,
) -> jax.Array:
    """E[h(L) (offset + Σ_t c_t R_{t+1})] of the limited walk by one forward pass; differentiable in θ.

    Args:
        of_length: h of the lengths 1, …, T, `[T]`.
        of_step: c, `[T]`; all 1 if None.
        rewards: instead of the walk's, `[S, A, K]`.
    """
    mdp = room.mdp
    rewards = mdp.rewards if rewards is None else rewards
    of_step = jnp.ones(mdp.horizon) if of_step is None else of_step
    policy = exact.policy_probabilities(room.apply, params, mdp)[:, :, None] * mdp.probabilities
    reached, collected, total = mdp.initial, offset * mdp.initial, 0.0
    for step in range(mdp.horizon):
        flow = reached[:, None, None] * policy
        carried = collected[:, None, None] * policy + of_step[step] * rewards * flow
        ends = mdp.terminal[mdp.successors] | (step == mdp.horizon - 1)
        total += of_length[step] * jnp.sum(jnp.where(ends, carried, 0.0))
        land = lambda mass, ends=ends: jnp.zeros(mdp.num_states).at[mdp.successors].add(jnp.where(ends, 0.0, mass))
        reached, collected = land(flow), land(carried)
    return total


def climbs(**arguments) -> Prediction:
    """∇E[h(L) (offset + Σ_t c_t R_{t+1})]; arguments as of `sum_of_episode`."""
    return lambda room: jax.grad(lambda params: sum_of_episode(room, params, **arguments))(room.params)


def steps(room: Room) -> jax.Array:
    return jnp.arange(room.mdp.horizon, dtype=room.params.dtype)


def step_gradient(
    room: Room,
    weights: Callable[[jax.Array], jax.Array],
    log_score: Callable[[jax.Array], jax.Array] = jax.nn.log_softmax,
    play: Callable[[jax.Array, jax.Array], jax.Array] | None = None,
) -> jax.Array:
    """Σ_t Σ_s d_t(s) Σ_a f_a W_t(s, a) ∇ℓ(s, a).

    Args:
        weights: Q `[T, S, A]` → W `[T, S, A]`.
        log_score: logits `[S, A]` → ℓ `[S, A]`; ln f by default.
        play: the policy that acts, as an `apply`; f by default.
    """
    mdp = room.mdp
    policy = exact.policy_probabilities(play or room.apply, room.params, mdp)
    visits = exact.visitation(mdp, policy)[:, :, None] * policy
    constants = visits * weights(exact.action_values(mdp, policy))
    score = lambda params: jnp.sum(constants * log_score(room.apply(params, mdp.observations)))
    return jax.grad(score)(room.params)


def gradient(room: Room) -> jax.Array:
    return exact.exact_gradient(room.apply, room.params, room.mdp)


def scaled(factor: Callable[[Room], float]) -> Prediction:
    return lambda room: factor(room) * gradient(room)


def immediate_rewards(room: Room) -> jax.Array:
    """r(s, a), `[S, A]`."""
    return jnp.sum(room.mdp.probabilities * room.mdp.rewards, axis=2)


def mean_log_prob(room: Room) -> jax.Array:
    count = steps(room) + 1
    return climbs(of_length=1 / count, of_step=count)(room)


def multiplied(room: Room) -> jax.Array:
    count = steps(room) + 1
    return climbs(of_length=jnp.ones_like(count), of_step=count)(room)


def per_step(room: Room) -> jax.Array:
    return climbs(of_length=1 / (steps(room) + 1))(room)


def per_batch_step(room: Room) -> jax.Array:
    """Σ_b S_b G_b / (L + L′) of two episodes: 2 ∇E[G h(L)] with h(l) = E[1/(l + L′)], the other's length as it is."""
    count, nothing = steps(room) + 1, jnp.zeros_like(room.mdp.rewards)
    chance = lambda of_length: sum_of_episode(room, room.params, of_length=of_length, rewards=nothing, offset=1.0)
    other = jnp.stack([chance(exactly) for exactly in jnp.eye(len(count))])
    return climbs(of_length=jnp.sum(other / (count[:, None] + count), axis=1) * 2)(room)


def centred(room: Room) -> jax.Array:
    return gradient(room) - mean_log_prob(room)


def discounted_rewards(room: Room) -> jax.Array:
    powers = room.discount ** steps(room)
    return step_gradient(room, lambda q: powers[:, None, None] * immediate_rewards(room))


def without_immediate(room: Room) -> jax.Array:
    return step_gradient(room, lambda q: q - immediate_rewards(room))


def without_powers(room: Room) -> jax.Array:
    policy = exact.policy_probabilities(room.apply, room.params, room.mdp)
    discounted = exact.action_values(room.mdp, policy, room.discount)
    return step_gradient(room, lambda q: discounted)


def learned_inside(room: Room) -> jax.Array:
    """w_t has taken in the share 1 − (1 − α)^t of the effect of A_t on G_t, so step t keeps the factor (1 − α)^t."""
    kept = (1 - room.step_size) ** steps(room)
    return step_gradient(room, lambda q: kept[:, None, None] * q)


def through_advantage(room: Room) -> jax.Array:
    """∇ρ + Σ_t Σ_s d_t(s) H(f(s)) ∇v(s): the critic is pushed up in states where the policy is undecided."""
    policy = exact.policy_probabilities(room.apply, room.params, room.mdp)
    entropy = -jnp.sum(policy * jnp.log(policy), axis=1)
    visits = jnp.sum(exact.visitation(room.mdp, policy), axis=0)
    values = lambda params: room.apply(params, room.mdp.observations) @ room.head
    return gradient(room) + jax.grad(lambda params: jnp.sum(visits * entropy * values(params)))(room.params)


def greedy(room: Room) -> jax.Array:
    best = lambda logits: jnp.max(jax.nn.log_softmax(logits), axis=1, keepdims=True)
    return step_gradient(room, lambda q: q, best)


def probability(room: Room) -> jax.Array:
    return step_gradient(room, lambda q: q, jax.nn.softmax)


def twice(room: Room) -> jax.Array:
    return step_gradient(room, lambda q: q, lambda logits: jax.nn.log_softmax(jax.nn.softmax(logits)))


def padded(room: Room) -> jax.Array:
    """∇ρ + E[(T − L) G] ∇ ln f(goal)_0: the padding shows the goal and action 0, T − L times."""
    idle = sum_of_episode(room, room.params, of_length=room.mdp.horizon - 1 - steps(room))
    score = jax.grad(lambda params: jax.nn.log_softmax(room.apply(params, room.mdp.observations[GOAL]))[0])
    return gradient(room) + idle * score(room.params)


def past_the_end(room: Room) -> jax.Array:
    ends = jnp.sum(room.mdp.probabilities * room.mdp.terminal[room.mdp.successors], axis=2)
    return step_gradient(room, lambda q: q + room.network_values[GOAL] * ends)


def run_on(room: Room) -> jax.Array:
    """The first of two episodes adds γ^L ρ: ∇ρ + ½ ρ ∇E[γ^L], all discounted."""
    powers = room.discount ** (steps(room) + 1)
    end = climbs(of_length=powers, offset=1.0, rewards=jnp.zeros_like(room.mdp.rewards))(room)
    objective = exact.objective(room.apply, room.params, room.mdp, room.discount)
    return discounted(room) + 0.5 * objective * end


def broadcast(room: Room) -> jax.Array:
    """∇ρ − ∇E[mean of v(X_t) over the episode], v fixed: the baseline depends on where the actions led."""
    values = jnp.broadcast_to(room.values[:, None, None], room.mdp.rewards.shape)
    return gradient(room) - climbs(of_length=1 / (steps(room) + 1), rewards=values)(room)


def discounted(room: Room) -> jax.Array:
    return exact.exact_gradient(room.apply, room.params, room.mdp, room.discount)


def exploring(room: Room) -> jax.Array:
    return step_gradient(room, lambda q: q, play=room.played)


def group_deviation(room: Room) -> jax.Array:
    """E[√(j/G (1 − j/G))] (1, −1), j ~ Binomial(G, p): what j right answers give; ∇p is p (1 − p) (1, −1).

    At G = 2 this is ∇p itself; for large G it is ∇p / √(p (1 − p)).
    """
    size, p = room.group, room.success
    chance = lambda j: math.comb(size, j) * p**j * (1 - p) ** (size - j)
    mean = sum(chance(j) * math.sqrt(j / size * (1 - j / size)) for j in range(size + 1))
    return mean * jnp.asarray([[1.0, -1.0]])
