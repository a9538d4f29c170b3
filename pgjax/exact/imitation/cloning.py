"""Tables that imitate an expert: from infinite data, or from the counted answers in sampled episodes.

A policy is a table of probabilities, `[S, A]` or, if it depends on the time, `[T, S, A]`.

Axes: T time (the horizon), S states, A actions.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from pgjax._checks import require_in_range, require_integer
from pgjax._doors import readable
from pgjax.distributions import categorical_quantile
from pgjax.exact.imitation.costs import expert_support, table_with_time, with_errors
from pgjax.exact.mdp.tabular import TabularMDP


@readable
def population_dagger(
    mdp: TabularMDP, expert_probabilities: jax.Array, error: ArrayLike, num_rounds: int, *, elsewhere: ArrayLike = 1.0
) -> jax.Array:
    """The learners π_1 … π_R of R rounds of DAgger with infinite data, `[R, S, A]`.

    A learner errs with probability ε in states that the data contain, and with probability `elsewhere` in all others.
    The data of round 1 are the states of the expert, so π_1 is behavioural cloning; round i + 1 adds the states of π_i.

    Args:
        expert_probabilities: π*(a|s) `[S, A]`.
        error: ε, the error in a state that the data contain.
        num_rounds: R.
        elsewhere: the error in a state that the data do not contain; 1 is the worst case.
    """
    require_integer("num_rounds", num_rounds, 1, None)
    learners, seen = [], expert_support(mdp, expert_probabilities)
    for _ in range(num_rounds):
        learner = with_errors(expert_probabilities, jnp.where(seen, error, elsewhere))
        learners.append(learner)
        seen = seen | expert_support(mdp, learner)
    return jnp.stack(learners)


@readable
def label_counts(
    key: jax.Array, mdp: TabularMDP, acting: jax.Array, expert_probabilities: jax.Array, num_episodes: int
) -> jax.Array:
    """n_t(s, a), `[T, S, A]`: how often the expert answers a in s at t, in N sampled episodes.

    The policy `acting` acts, and the expert's answer ~ π*(·|S_t) is drawn separately in every state that is visited. In
    behavioural cloning the expert acts; in interactive imitation the learner acts. Only steps of running episodes are
    counted.

    Args:
        key: consumed.
        acting: the policy that acts, `[S, A]` or `[T, S, A]`.
        num_episodes: N.
    """
    require_integer("num_episodes", num_episodes, 1, None)
    expert = table_with_time(mdp, expert_probabilities, "expert_probabilities")
    return _label_counts(key, mdp, table_with_time(mdp, acting, "acting"), expert, num_episodes)


@partial(jax.jit, static_argnames="num_episodes")
def _label_counts(
    key: jax.Array, mdp: TabularMDP, acting: jax.Array, expert: jax.Array, num_episodes: int
) -> jax.Array:
    draw = jax.vmap(lambda probabilities, u: categorical_quantile(jnp.log(probabilities), u))
    start_key, walk_key = jax.random.split(key)
    dtype = mdp.rewards.dtype
    initial = jnp.broadcast_to(mdp.initial, (num_episodes, mdp.num_states))
    start = draw(initial, jax.random.uniform(start_key, (num_episodes,), dtype))

    def step(carry: tuple[jax.Array, jax.Array], row: tuple[jax.Array, jax.Array, jax.Array]):
        states, alive = carry
        u = jax.random.uniform(row[0], (3, num_episodes), dtype)
        actions, labels = draw(row[1][states], u[0]), draw(row[2][states], u[1])
        counts = jnp.zeros_like(row[1]).at[states, labels].add(alive.astype(dtype))
        successors = mdp.successors[states, actions, draw(mdp.probabilities[states, actions], u[2])]
        return (successors, alive & ~mdp.terminal[successors]), counts

    rows = (jax.random.split(walk_key, mdp.horizon), acting, expert)
    return jax.lax.scan(step, (start, jnp.ones((num_episodes,), bool)), rows)[1]


@readable
def cloned_probabilities(counts: jax.Array, *, pooled: bool = False) -> jax.Array:
    """π(a|s) = n(s, a) / Σ_b n(s, b), the maximum-likelihood table; uniform in states that were never seen.

    Args:
        counts: n_t(s, a) `[..., T, S, A]`.
        pooled: whether the counts are first summed over time, which gives one stationary policy instead of T tables.

    Returns:
        `[..., T, S, A]`, or `[..., S, A]` if pooled.

    Example: two answers in one state at one time.

        >>> import jax.numpy as jnp
        >>> from pgjax import exact
        >>> exact.cloned_probabilities(jnp.array([[[1.0, 3.0]]])).tolist()  # [T, S, A]
        [[[0.25, 0.75]]]
    """
    counts = jnp.sum(counts, axis=-3) if pooled else counts
    total = jnp.sum(counts, axis=-1, keepdims=True)
    return jnp.where(total > 0, counts / jnp.where(total > 0, total, 1.0), 1.0 / counts.shape[-1])


@readable
def tabular_dagger(
    key: jax.Array,
    mdp: TabularMDP,
    expert_probabilities: jax.Array,
    betas: jax.Array,
    num_episodes: int,
    *,
    labels: jax.Array | None = None,
    pooled: bool = False,
) -> jax.Array:
    """The tables that R rounds of DAgger learn, π_2 … π_{R+1}, `[R, T, S, A]` (`[R, S, A]` if pooled).

    Round i acts with β_i π* + (1 − β_i) π_i in every state, the expert answers in every state that is visited, and
    π_{i+1} is the maximum-likelihood table of all answers so far. With all β_i = 1 it is behavioural cloning of i N
    episodes.

    Args:
        key: consumed.
        betas: β_i `[R]`.
        num_episodes: N, the number of episodes of a round.
        labels: a table, `[S, A]` or `[T, S, A]`, from which the answers are drawn instead of π*; π* still acts.
        pooled: see `cloned_probabilities`.

    Source: Ross, Gordon & Bagnell (2011), algorithm 3.1.
    """
    require_in_range("betas", betas, 0.0, 1.0)
    expert = table_with_time(mdp, expert_probabilities, "expert_probabilities")
    answers = expert if labels is None else table_with_time(mdp, labels, "labels")
    betas = jnp.asarray(betas, expert.dtype)

    def one_round(counts: jax.Array, row: tuple[jax.Array, jax.Array]):
        learner = jnp.broadcast_to(cloned_probabilities(counts, pooled=pooled), expert.shape)
        acting = row[1] * expert + (1.0 - row[1]) * learner
        counts = counts + label_counts(row[0], mdp, acting, answers, num_episodes)
        return counts, cloned_probabilities(counts, pooled=pooled)

    keys = jax.random.split(key, betas.shape[0])
    return jax.lax.scan(one_round, jnp.zeros_like(expert), (keys, betas))[1]
