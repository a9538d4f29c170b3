"""Policies of the state space of a `MarkovTask`, by dynamic programming: exact values, divergences and samples.

A policy is a table ln π(a | c, q, t). Axes: T places, C contexts, S states, V tokens, B sampled answers.
"""

from collections.abc import Callable
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from pgjax._doors import readable
from pgjax.distributions import categorical
from pgjax.exact.text.markov_tasks import MarkovTask, ahead, last_place, paid, state_after
from pgjax.exact.text.tilting import expected, log_ratio
from pgjax.types import Policy, PyTree


class SoftOptimum(NamedTuple):
    """The policy π* of the greatest ρ for one β.

    Attributes:
        task: the task that it is best for.
        kl_coef: β.
        log_partitions: ln Z_t(c, q), `[T + 1, C, S]`.
        objective: ρ(π*) = β ln Z of the start, `[]`.
        expected_reward: E_π*[score].
        kl: KL(π* ‖ π_ref) in nats.
        entropy: H(π*) in nats.
    """

    task: MarkovTask
    kl_coef: jax.Array
    log_partitions: jax.Array
    objective: jax.Array
    expected_reward: jax.Array
    kl: jax.Array
    entropy: jax.Array


# ln π(a | c, q, t): the optimum of a task with the same states, or an array that broadcasts to `[T, C, S, V]`.
TablePolicy = SoftOptimum | jax.Array


def summands(task: MarkovTask, beta: jax.Array, following: jax.Array, last: jax.Array) -> jax.Array:
    """ln of the summands of Z_t, `[C, S, V]`."""
    return task.reference.log_probs[:, None, :] + paid(task, last) / beta + ahead(task, following)


def tables_of(task: MarkovTask, policy: TablePolicy) -> tuple[PyTree, Callable]:
    """Rows for a scan over t, and the function of one row that gives ln π `[C, S, V]`."""
    contexts, (states, vocabulary) = task.reference.next.shape[0], task.score.next.shape
    shape = (contexts, states, vocabulary)
    if isinstance(policy, SoftOptimum):
        own = policy.task
        chex.assert_shape(policy.log_partitions, (task.max_new_tokens + 1, contexts, states))
        best = lambda row: jax.nn.log_softmax(summands(own, policy.kl_coef, *row), axis=-1)
        return (policy.log_partitions[1:], last_place(own)), best
    table = jnp.asarray(policy)
    if table.ndim == 4 and table.shape[0] == task.max_new_tokens:
        return table, lambda row: jnp.broadcast_to(row, shape)
    return jnp.arange(task.max_new_tokens), lambda t: jnp.broadcast_to(table.reshape(table.shape[-3:]), shape)


@readable
def table_policy(task: MarkovTask, *, over_time: bool = False) -> Policy:
    """A softmax policy of text buffers whose parameters are logits of the state space, so that it can be trained.

    It reads the answer so far (`tokens`, `length` and `prompt_length` of the observation) with the Markov model and the
    automaton, and looks up its logits. It begins at π_ref. `log_softmax(params)` is its table for
    `table_policy_values`, so ρ of the trained policy is known exactly.

    Args:
        task: the state space.
        over_time: whether the logits depend on the place, too, `[T, C, S, V]`; `[C, S, V]` otherwise.
    """
    reference, score = task.reference, task.score

    def init(key: jax.Array, obs: PyTree) -> jax.Array:
        del key, obs
        shape = (reference.next.shape[0], *score.next.shape)
        table = jnp.broadcast_to(reference.log_probs[:, None, :], shape)
        return jnp.broadcast_to(table, (task.max_new_tokens, *shape)) if over_time else table

    def logits(params: jax.Array, obs: PyTree) -> jax.Array:
        tokens, place = obs.tokens.astype(jnp.int32), obs.length - obs.prompt_length
        answer = jnp.roll(tokens, -obs.prompt_length)[: task.max_new_tokens]
        state = state_after(task, answer, place)
        return params[(jnp.minimum(place, task.max_new_tokens - 1), *state) if over_time else state]

    return Policy(init=init, apply=logits, distribution=categorical)


@readable
def table_log_probs(task: MarkovTask, policy: TablePolicy) -> jax.Array:
    """ln π(a | c, q, t), `[T, C, S, V]`, of a `SoftOptimum` or of an array that broadcasts to this shape."""
    rows, table = tables_of(task, policy)
    return jax.lax.map(table, rows)


class TableValues(NamedTuple):
    """Exact values of a policy of the state space; all `[]`.

    Attributes:
        expected_reward: E_π[score].
        kl: KL(π ‖ π_ref) in nats; ρ(π) = expected_reward − β kl.
        entropy: H(π) in nats.
        length: the expected number of tokens, EOS included.
        ended: the probability that an answer ends with EOS.
    """

    expected_reward: jax.Array
    kl: jax.Array
    entropy: jax.Array
    length: jax.Array
    ended: jax.Array


@readable
def table_policy_values(task: MarkovTask, policy: TablePolicy) -> TableValues:
    """E[score], KL(π ‖ π_ref), entropy and length of any policy of the state space, differentiable in the policy.

    Args:
        task: it gives the score, the reference and the rules. The policy may be the optimum of another task with the
            same states, such as one for a proxy of the score (`automata.aligned` gives two scores the same states).
        policy: a `SoftOptimum`, or ln π, an array that broadcasts to `[T, C, S, V]`.
    """
    reference = task.reference.log_probs[:, None, :]
    ends = jnp.arange(task.score.next.shape[1]) == (-1 if task.eos is None else task.eos)

    def of_row(log_probs: jax.Array, last: jax.Array) -> TableValues:
        own = jnp.where(jnp.exp(log_probs) > 0, log_probs, 0.0)
        return TableValues(
            expected_reward=paid(task, last),
            kl=log_ratio(log_probs, jnp.broadcast_to(reference, log_probs.shape)),
            entropy=-own,
            length=jnp.ones_like(own),
            ended=jnp.broadcast_to(ends.astype(own.dtype), own.shape),
        )

    return _backward(task, policy, of_row)


@readable
def table_kl(task: MarkovTask, policy: TablePolicy, other: TablePolicy) -> jax.Array:
    """KL(π ‖ π') over answers in nats, `[]`, of two policies of the state space; ρ(π*) − ρ(π) = β KL(π ‖ π*)."""
    tables = table_log_probs(task, other)
    return _backward(task, policy, lambda log_probs, last, row: log_ratio(log_probs, row), tables)


def _backward(task: MarkovTask, policy: TablePolicy, of_row: Callable, *more: jax.Array):
    """E_π[Σ_t f_t(c, q, a)] of the start, for a pytree f = of_row(ln π_t, last, …) with leaves that broadcast."""
    rows, table = tables_of(task, policy)

    def one_step_back(following, row):
        here, last, *others = row
        log_probs = table(here)
        terms = of_row(log_probs, last, *others)
        back = lambda term, after: expected(log_probs, term + ahead(task, after))
        values = jax.tree.map(back, terms, following)
        return values, None

    xs = (rows, last_place(task), *more)
    first = jax.tree.map(lambda x: x[0], xs)
    terms = jax.eval_shape(lambda row: of_row(table(row[0]), *row[1:]), first)
    shape = (task.reference.next.shape[0], task.score.next.shape[0])
    end = jax.tree.map(lambda term: jnp.zeros(shape, term.dtype), terms)
    values, _ = jax.lax.scan(one_step_back, end, xs, reverse=True)
    return jax.tree.map(lambda x: x[task.reference.start, task.score.start], values)


class SampledAnswers(NamedTuple):
    """Independent answers: `tokens [B, T]`, 0 behind an answer; `lengths [B]`; `ended [B]`, whether EOS ends it."""

    tokens: jax.Array
    lengths: jax.Array
    ended: jax.Array


@readable
def sample_answers(key: jax.Array, task: MarkovTask, policy: TablePolicy, num_answers: int) -> SampledAnswers:
    """Exact independent samples from a policy of the state space, such as π*.

    Args:
        key: the key of all random numbers.
        task: the state space and the rules.
        policy: a `SoftOptimum`, or ln π, an array that broadcasts to `[T, C, S, V]`.
        num_answers: B.
    """
    rows, table = tables_of(task, policy)
    first = lambda start: jnp.full(num_answers, start, jnp.int32)

    def write(state, at):
        context, automaton, running = state
        row, token_key = at
        token = jax.random.categorical(token_key, table(row)[context, automaton]).astype(jnp.int32)
        ends = running & (token == (-1 if task.eos is None else task.eos))
        after = (task.reference.next[context, token], task.score.next[automaton, token], running & ~ends)
        return after, (jnp.where(running, token, 0), running)

    start = (first(task.reference.start), first(task.score.start), jnp.ones(num_answers, bool))
    (_, _, running), (tokens, alive) = jax.lax.scan(write, start, (rows, jax.random.split(key, task.max_new_tokens)))
    return SampledAnswers(tokens=tokens.T, lengths=jnp.sum(alive, axis=0, dtype=jnp.int32), ended=~running)
