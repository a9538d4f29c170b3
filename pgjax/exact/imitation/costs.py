"""What imitation costs, exactly: regret, errors on and off the expert's states, and cloning from counted data.

Objectives are undiscounted sums over the horizon, J(π) = E[Σ_t R_{t+1}]. A policy is a table of probabilities, `[S, A]`
or, where it depends on the time, `[T, S, A]`; every function takes both.

Axes: T time (the horizon), S states, A actions.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from pgjax._checks import require_in_range, require_integer
from pgjax.distributions import categorical_quantile
from pgjax.exact.mdp.averages import over_outcomes
from pgjax.exact.mdp.tabular import TabularMDP


def _table(mdp: TabularMDP, probabilities: jax.Array, name: str) -> jax.Array:
    """π `[T, S, A]` of a table with or without time."""
    shape = (mdp.horizon, mdp.num_states, mdp.num_actions)
    found = jnp.shape(probabilities)
    if found not in (shape, shape[1:]):
        raise ValueError(f"{name} must have the shape {shape[1:]} or, with time, {shape}, got {found}")
    return jnp.broadcast_to(jnp.asarray(probabilities, mdp.rewards.dtype), shape)


@jax.jit
def _action_values(mdp: TabularMDP, table: jax.Array) -> jax.Array:
    """Q_t(s, a) `[T, S, A]` of a policy that depends on time."""

    def one_step_back(next_values: jax.Array, probabilities: jax.Array):
        q = over_outcomes(mdp, mdp.rewards + next_values[mdp.successors])
        q = jnp.where(mdp.terminal[:, None], 0.0, q)
        return jnp.sum(probabilities * q, axis=-1), q

    return jax.lax.scan(one_step_back, jnp.zeros_like(mdp.initial), table, reverse=True)[1]


@jax.jit
def _visitation(mdp: TabularMDP, table: jax.Array) -> jax.Array:
    """d_t(s) `[T, S]` of a policy that depends on time."""

    def one_step_on(alive: jax.Array, probabilities: jax.Array):
        flow = (alive[:, None] * probabilities)[:, :, None] * mdp.probabilities
        arrived = jnp.zeros_like(alive).at[mdp.successors].add(flow)
        return jnp.where(mdp.terminal, 0.0, arrived), alive

    return jax.lax.scan(one_step_on, mdp.initial, table)[1]


def _objective(mdp: TabularMDP, table: jax.Array) -> jax.Array:
    return jnp.sum(mdp.initial * jnp.sum(table[0] * _action_values(mdp, table)[0], axis=-1))


def regret(mdp: TabularMDP, expert_probabilities: jax.Array, learner_probabilities: jax.Array) -> jax.Array:
    """J(π*) − J(π), a scalar: what is lost by following the learner π in place of the expert π*.

    Negative where the learner is the better one, which an expert that is not optimal allows.

    Raises:
        ValueError: for a table of another shape than `[S, A]` or `[T, S, A]`.
    """
    expert, learner = _tables(mdp, expert_probabilities, learner_probabilities)
    return _objective(mdp, expert) - _objective(mdp, learner)


def _tables(mdp: TabularMDP, expert: jax.Array, learner: jax.Array) -> tuple[jax.Array, jax.Array]:
    return _table(mdp, expert, "expert_probabilities"), _table(mdp, learner, "learner_probabilities")


class PerformanceDifference(NamedTuple):
    """J(π*) − J(π) in three ways that agree, scalars.

    Attributes:
        direct: by two dynamic programs.
        on_learner_states: Σ_t Σ_s d^π_t(s) Σ_a (π*(a|s) − π(a|s)) Q*_t(s, a), the learner's states and the expert's
            values: what an interactive learner, who sees its own states labelled, can make small.
        on_expert_states: Σ_t Σ_s d*_t(s) Σ_a (π*(a|s) − π(a|s)) Q^π_t(s, a), the expert's states and the learner's
            values: a small error there is multiplied by what the learner loses later.
    """

    direct: jax.Array
    on_learner_states: jax.Array
    on_expert_states: jax.Array


def performance_difference(
    mdp: TabularMDP, expert_probabilities: jax.Array, learner_probabilities: jax.Array
) -> PerformanceDifference:
    """Both sides of the performance-difference lemma, with either policy's states; arguments as in `regret`.

    Source: Kakade & Langford (2002), lemma 6.1; with a horizon, Ross & Bagnell (2010).
    """
    expert, learner = _tables(mdp, expert_probabilities, learner_probabilities)
    gained = lambda by, to: jnp.sum(_visitation(mdp, by)[..., None] * (expert - learner) * _action_values(mdp, to))
    return PerformanceDifference(
        direct=_objective(mdp, expert) - _objective(mdp, learner),
        on_learner_states=gained(learner, expert),
        on_expert_states=gained(expert, learner),
    )


def disagreement(mdp: TabularMDP, expert_probabilities: jax.Array, learner_probabilities: jax.Array) -> jax.Array:
    """e_t(s) = ½ Σ_a |π(a|s) − π*(a|s)|, the total variation, `[T, S]`; 0 in terminal states.

    Where the expert is deterministic it is the 0–1 error, the probability that the learner does something else.
    """
    expert, learner = _tables(mdp, expert_probabilities, learner_probabilities)
    return jnp.where(mdp.terminal, 0.0, 0.5 * jnp.sum(jnp.abs(learner - expert), axis=-1))


class ImitationErrors(NamedTuple):
    """Where a learner errs, scalars. Means are per running step.

    Attributes:
        expert_error: mean e over the states where the expert comes: the loss of behavioural cloning.
        learner_error: mean e over the states where the learner comes: the loss of interactive imitation.
        known_fraction: of the learner's steps, those in states that the expert visits at all.
        known_error, unknown_error: mean e over the learner's steps in states that the expert visits, and in those that
            it never visits; 0 where there are none.
        expert_steps, learner_steps: expected lengths of an episode.
    """

    expert_error: jax.Array
    learner_error: jax.Array
    known_fraction: jax.Array
    known_error: jax.Array
    unknown_error: jax.Array
    expert_steps: jax.Array
    learner_steps: jax.Array


def imitation_errors(
    mdp: TabularMDP,
    expert_probabilities: jax.Array,
    learner_probabilities: jax.Array,
    *,
    known: jax.Array | None = None,
) -> ImitationErrors:
    """The `disagreement` averaged over either policy's visitation, and split by whether the expert knows the state.

    A state counts as known if the expert visits it at some time; or as `known`, bool `[S]`, says, where noise takes the
    expert everywhere. The other arguments as in `regret`.
    """
    expert, learner = _tables(mdp, expert_probabilities, learner_probabilities)
    errors = disagreement(mdp, expert, learner)
    by_expert, by_learner = _visitation(mdp, expert), _visitation(mdp, learner)
    known = expert_support(mdp, expert) if known is None else known
    mean = lambda weights: jnp.sum(weights * errors) / jnp.where(jnp.sum(weights) > 0, jnp.sum(weights), 1.0)
    return ImitationErrors(
        expert_error=mean(by_expert),
        learner_error=mean(by_learner),
        known_fraction=jnp.sum(jnp.where(known, by_learner, 0.0)) / jnp.sum(by_learner),
        known_error=mean(jnp.where(known, by_learner, 0.0)),
        unknown_error=mean(jnp.where(known, 0.0, by_learner)),
        expert_steps=jnp.sum(by_expert),
        learner_steps=jnp.sum(by_learner),
    )


def expert_support(mdp: TabularMDP, probabilities: jax.Array) -> jax.Array:
    """Bool `[S]`: the states that a policy visits with positive probability at some time."""
    return jnp.any(_visitation(mdp, _table(mdp, probabilities, "probabilities")) > 0, axis=0)


def recovery_cost(mdp: TabularMDP, expert_probabilities: jax.Array) -> jax.Array:
    """u = max_{t,s,a} V*_t(s) − Q*_t(s, a): the greatest loss by one wrong action, after which the expert goes on.

    J(π*) − J(π) ≤ u Σ_t Σ_s d^π_t(s) e_t(s) for a deterministic expert: u T ε, ε being the learner's error on its own
    states. Where an error cannot be mended u grows with T, and the bound is T² ε once more.

    Source: Ross, Gordon & Bagnell (2011), theorem 3.2.
    """
    expert = _table(mdp, expert_probabilities, "expert_probabilities")
    q = _action_values(mdp, expert)
    losses = jnp.sum(expert * q, axis=-1, keepdims=True) - q
    return jnp.max(jnp.where(mdp.terminal[:, None], 0.0, losses))


def with_errors(probabilities: jax.Array, errors: ArrayLike) -> jax.Array:
    """π(a|s) = (1 − ε) π*(a|s) + ε (1 − π*(a|s)) / (A − 1), shaped as `probabilities [..., S, A]`.

    Of a deterministic expert: its action with probability 1 − ε(s), each other one with ε(s) / (A − 1).

    Args:
        errors: ε(s), broadcast to `[..., S]`.

    Raises:
        ValueError: for errors outside [0, 1], or a single action, which cannot be missed.
    """
    require_in_range("errors", errors, 0.0, 1.0)
    require_integer("the number of actions", probabilities.shape[-1], 2, None)
    errors = jnp.broadcast_to(jnp.asarray(errors, probabilities.dtype), probabilities.shape[:-1])[..., None]
    return (1.0 - errors) * probabilities + errors * (1.0 - probabilities) / (probabilities.shape[-1] - 1)


def population_dagger(
    mdp: TabularMDP, expert_probabilities: jax.Array, error: ArrayLike, num_rounds: int, *, elsewhere: ArrayLike = 1.0
) -> jax.Array:
    """The learners of R rounds on infinite data, π_1 … π_R, `[R, S, A]`: error ε where data is, `elsewhere` where not.

    Round 1 sees the states of the expert, so π_1 is behavioural cloning; round i + 1 sees those of π_i too.

    Args:
        expert_probabilities: π*(a|s) `[S, A]`.
        error: ε, the error that is left in a state of which there is data.
        num_rounds: R.
        elsewhere: the error in a state of which there is none; 1 is the worst case.
    """
    require_integer("num_rounds", num_rounds, 1, None)
    learners, seen = [], expert_support(mdp, expert_probabilities)
    for _ in range(num_rounds):
        learner = with_errors(expert_probabilities, jnp.where(seen, error, elsewhere))
        learners.append(learner)
        seen = seen | expert_support(mdp, learner)
    return jnp.stack(learners)


def label_counts(
    key: jax.Array, mdp: TabularMDP, acting: jax.Array, expert_probabilities: jax.Array, num_episodes: int
) -> jax.Array:
    """n_t(s, a), `[T, S, A]`: how often the expert names a in s at t, in N sampled episodes.

    A_t ~ `acting` moves the problem, and a label ~ π*(·|S_t) is drawn by itself for every state on the way. Behavioural
    cloning acts with the expert; an interactive learner acts itself. Running steps alone are counted.

    Args:
        key: consumed.
        acting: the policy that acts, `[S, A]` or `[T, S, A]`.
        num_episodes: N.
    """
    require_integer("num_episodes", num_episodes, 1, None)
    expert = _table(mdp, expert_probabilities, "expert_probabilities")
    return _label_counts(key, mdp, _table(mdp, acting, "acting"), expert, num_episodes)


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


def cloned_probabilities(counts: jax.Array, *, pooled: bool = False) -> jax.Array:
    """π(a|s) = n(s, a) / Σ_b n(s, b), the maximum-likelihood table; uniform where nothing was seen.

    Args:
        counts: n_t(s, a) `[..., T, S, A]`.
        pooled: sums the counts over time first: one stationary policy, which shares what it saw, in place of T of them.

    Returns:
        `[..., T, S, A]`, or `[..., S, A]` if pooled.
    """
    counts = jnp.sum(counts, axis=-3) if pooled else counts
    total = jnp.sum(counts, axis=-1, keepdims=True)
    return jnp.where(total > 0, counts / jnp.where(total > 0, total, 1.0), 1.0 / counts.shape[-1])


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

    Round i acts with β_i π* + (1 − β_i) π_i in every state, the expert labels the states that come, and π_{i+1} is the
    maximum-likelihood table of all labels so far. With all β_i = 1 it is behavioural cloning on i N episodes.

    Args:
        key: consumed.
        betas: β_i `[R]`.
        num_episodes: N, episodes a round.
        labels: the answers are drawn from this table, `[S, A]` or `[T, S, A]`, in place of π*, who acts still.

    Source: Ross, Gordon & Bagnell (2011), algorithm 3.1.
    """
    require_in_range("betas", betas, 0.0, 1.0)
    expert = _table(mdp, expert_probabilities, "expert_probabilities")
    answers = expert if labels is None else _table(mdp, labels, "labels")
    betas = jnp.asarray(betas, expert.dtype)

    def one_round(counts: jax.Array, row: tuple[jax.Array, jax.Array]):
        learner = jnp.broadcast_to(cloned_probabilities(counts, pooled=pooled), expert.shape)
        acting = row[1] * expert + (1.0 - row[1]) * learner
        counts = counts + label_counts(row[0], mdp, acting, answers, num_episodes)
        return counts, cloned_probabilities(counts, pooled=pooled)

    keys = jax.random.split(key, betas.shape[0])
    return jax.lax.scan(one_round, jnp.zeros_like(expert), (keys, betas))[1]
