"""The exact cost of imitation: regret, and errors on and off the expert's states.

Objectives are undiscounted sums over the horizon, J(π) = E[Σ_t R_{t+1}]. A policy is a table of probabilities, `[S, A]`
or, if it depends on the time, `[T, S, A]`; every function takes both.

Axes: T time (the horizon), S states, A actions.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from pgjax._checks import require_in_range, require_integer
from pgjax._doors import readable
from pgjax.exact.mdp.averages import over_outcomes
from pgjax.exact.mdp.tabular import TabularMDP


def table_with_time(mdp: TabularMDP, probabilities: jax.Array, name: str) -> jax.Array:
    """π `[T, S, A]`, from a table with or without time.

    Raises:
        ValueError: for another shape; the error names the argument `name`.
    """
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


@readable
def regret(mdp: TabularMDP, expert_probabilities: jax.Array, learner_probabilities: jax.Array) -> jax.Array:
    """J(π*) − J(π), a scalar: the expected return that is lost if the learner π acts instead of the expert π*.

    It is negative if the learner is better than an expert that is not optimal.

    Raises:
        ValueError: for a table of another shape than `[S, A]` or `[T, S, A]`.

    Example: the expert always takes the arm that pays 1, and the learner takes it with probability 0.9.

        >>> import jax.numpy as jnp
        >>> from pgjax import exact
        >>> bandit = exact.make_bandit([1.0, 0.0])  # state 0, then the terminal state 1
        >>> expert = exact.first_action(bandit)
        >>> learner = exact.with_errors(expert, errors=0.1)
        >>> round(float(exact.regret(bandit, expert, learner)), 4)
        0.1
    """
    expert, learner = _tables(mdp, expert_probabilities, learner_probabilities)
    return _objective(mdp, expert) - _objective(mdp, learner)


def _tables(mdp: TabularMDP, expert: jax.Array, learner: jax.Array) -> tuple[jax.Array, jax.Array]:
    return table_with_time(mdp, expert, "expert_probabilities"), table_with_time(mdp, learner, "learner_probabilities")


@readable
def disagreement(mdp: TabularMDP, expert_probabilities: jax.Array, learner_probabilities: jax.Array) -> jax.Array:
    """e_t(s) = ½ Σ_a |π(a|s) − π*(a|s)|, the total variation, `[T, S]`; 0 in terminal states.

    For a deterministic expert it is the 0–1 error, the probability that the learner takes another action.
    """
    expert, learner = _tables(mdp, expert_probabilities, learner_probabilities)
    return jnp.where(mdp.terminal, 0.0, 0.5 * jnp.sum(jnp.abs(learner - expert), axis=-1))


class ImitationErrors(NamedTuple):
    """Where a learner errs, in scalars. Means are over the steps of running episodes, and e is the `disagreement`.

    Attributes:
        expert_error: the mean of e over the states that the expert visits, which behavioural cloning minimises.
        learner_error: the mean of e over the states that the learner visits, which interactive imitation minimises.
        known_fraction: the share of the learner's steps in states that the expert visits at some time.
        known_error, unknown_error: the mean of e over the learner's steps in states that the expert visits, and in
            states that it never visits; 0 if there are no such steps.
        expert_steps, learner_steps: the expected lengths of an episode.
    """

    expert_error: jax.Array
    learner_error: jax.Array
    known_fraction: jax.Array
    known_error: jax.Array
    unknown_error: jax.Array
    expert_steps: jax.Array
    learner_steps: jax.Array


@readable
def imitation_errors(
    mdp: TabularMDP,
    expert_probabilities: jax.Array,
    learner_probabilities: jax.Array,
    *,
    known: jax.Array | None = None,
) -> ImitationErrors:
    """The `disagreement` averaged over the visitation of either policy, and split by whether the expert visits a state.

    The expert knows a state if it visits the state at some time. If noise takes the expert everywhere, `known`, bool
    `[S]`, can say instead which states count as known. The other arguments are those of `regret`.
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


@readable
def expert_support(mdp: TabularMDP, probabilities: jax.Array) -> jax.Array:
    """Bool `[S]`: the states that a policy visits with positive probability at some time."""
    return jnp.any(_visitation(mdp, table_with_time(mdp, probabilities, "probabilities")) > 0, axis=0)


@readable
def recovery_cost(mdp: TabularMDP, expert_probabilities: jax.Array) -> jax.Array:
    """u = max_{t,s,a} V*_t(s) − Q*_t(s, a): the greatest loss by one wrong action if the expert acts afterwards.

    J(π*) − J(π) ≤ u Σ_t Σ_s d^π_t(s) e_t(s) for a deterministic expert. The bound is u T ε, where ε is the learner's
    error on the states that it visits. If an error cannot be mended, u grows with T, and the bound is again T² ε.

    Source: Ross, Gordon & Bagnell (2011), theorem 3.2.
    """
    expert = table_with_time(mdp, expert_probabilities, "expert_probabilities")
    q = _action_values(mdp, expert)
    losses = jnp.sum(expert * q, axis=-1, keepdims=True) - q
    return jnp.max(jnp.where(mdp.terminal[:, None], 0.0, losses))


@readable
def with_errors(probabilities: jax.Array, errors: ArrayLike) -> jax.Array:
    """π(a|s) = (1 − ε) π*(a|s) + ε (1 − π*(a|s)) / (A − 1), shaped as `probabilities [..., S, A]`.

    If the expert is deterministic, the learner takes its action with probability 1 − ε(s), and each other action with
    probability ε(s) / (A − 1).

    Args:
        errors: ε(s), broadcast to `[..., S]`.

    Raises:
        ValueError: for errors outside [0, 1], or if there is only one action, which no learner can miss.
    """
    require_in_range("errors", errors, 0.0, 1.0)
    require_integer("the number of actions", probabilities.shape[-1], 2, None)
    errors = jnp.broadcast_to(jnp.asarray(errors, probabilities.dtype), probabilities.shape[:-1])[..., None]
    return (1.0 - errors) * probabilities + errors * (1.0 - probabilities) / (probabilities.shape[-1] - 1)
