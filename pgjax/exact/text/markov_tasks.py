"""Long answers near a Markov model that an automaton scores: the task, and one step of its dynamic programs.

The state (context of the model c, state of the automaton q, place t) is all that the future of an answer depends on.
Axes: T places, C contexts, S states, V tokens, M prefixes.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from pgjax import automata
from pgjax._checks import is_traced, require_integer
from pgjax._doors import readable
from pgjax.automata import Automaton, MissingEos
from pgjax.exact.text.answers import Answers
from pgjax.exact.text.markov import MarkovModel


@dataclasses.dataclass(frozen=True, eq=False)
class MarkovTask:
    """Write an answer that a score likes, near a Markov model; build it with `make_markov_task`, which checks it.

    The record is a pytree: `reference`, `score` and `missing_eos_value` hold leaves, the others are static.
    """

    reference: MarkovModel
    score: Automaton
    missing_eos_value: jax.Array
    max_new_tokens: int
    eos: int | None
    missing_eos: MissingEos


jax.tree_util.register_dataclass(
    MarkovTask,
    data_fields=["reference", "score", "missing_eos_value"],
    meta_fields=["max_new_tokens", "eos", "missing_eos"],
)


@readable
def make_markov_task(
    reference: MarkovModel,
    score: Automaton,
    *,
    max_new_tokens: int,
    eos: int | None = None,
    missing_eos: MissingEos = "keep",
    missing_eos_value: float = 0.0,
) -> MarkovTask:
    """The task with the rules of `environments.text.make_text`; answers end with EOS or after T tokens.

    Args:
        reference: π_ref, with the context behind the prompt as its start (`after_tokens`).
        score: the automaton that reads the answer.
        max_new_tokens: T.
        eos, missing_eos, missing_eos_value: as in `make_text`. `"replace"` needs an automaton that pays at the end
            alone, because what was paid before would have to be remembered.

    Raises:
        ValueError: for different vocabularies, a number out of range, or a rule that does not fit.
    """
    vocabulary = np.shape(reference.next)[-1]
    require_integer("max_new_tokens", max_new_tokens, 1, None)
    automata.require_reads("score", score, vocabulary)
    if eos is not None:
        require_integer("eos", eos, 0, vocabulary - 1)
    automata.require_missing_eos(eos, missing_eos, missing_eos_value)
    if missing_eos == "replace" and not is_traced(score.rewards) and np.any(np.asarray(score.rewards)):
        raise ValueError("missing_eos='replace' needs a score that is paid at the end alone, got rewards for tokens")
    numbers = lambda x: jnp.asarray(x, jnp.int32 if jnp.issubdtype(jnp.result_type(x), jnp.integer) else float)
    return MarkovTask(
        reference=jax.tree.map(numbers, reference),
        score=jax.tree.map(numbers, score),
        missing_eos_value=jnp.asarray(missing_eos_value, float),
        max_new_tokens=max_new_tokens,
        eos=eos,
        missing_eos=missing_eos,
    )


def paid(task: MarkovTask, last: jax.Array) -> jax.Array:
    """r_t(q, a) `[1, S, V]`: the reward of the token, and the final score if the answer ends with it."""
    vocabulary = task.score.next.shape[1]
    ends = jnp.zeros(vocabulary, bool) if task.eos is None else jnp.arange(vocabulary) == task.eos
    at_end = task.score.final[task.score.next]
    at_end = automata.at_the_limit(
        at_end, jnp.broadcast_to(ends, at_end.shape), task.missing_eos, task.missing_eos_value
    )
    return (task.score.rewards + jnp.where(ends[None] | last, at_end, 0.0))[None]


def ahead(task: MarkovTask, values: jax.Array) -> jax.Array:
    """values[c', q'] of the state after each token, `[C, S, V]`; 0 after EOS."""
    found = values[task.reference.next[:, None, :], task.score.next[None, :, :]]
    return found if task.eos is None else found.at[:, :, task.eos].set(0.0)


def last_place(task: MarkovTask) -> jax.Array:
    """Bool `[T]`, true at the last place."""
    return jnp.arange(task.max_new_tokens) == task.max_new_tokens - 1


def state_after(task: MarkovTask, tokens: jax.Array, length: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The context and the automaton's state after the first `length` tokens of an answer `[T]`, both int32 `[]`."""

    def read(state: tuple[jax.Array, jax.Array], at: tuple[jax.Array, jax.Array]):
        place, token = at
        context, automaton = state
        after = (task.reference.next[context, token], task.score.next[automaton, token])
        return jax.tree.map(lambda new, old: jnp.where(place < length, new, old), after, state), None

    start = (jnp.asarray(task.reference.start, jnp.int32), jnp.asarray(task.score.start, jnp.int32))
    places = jnp.arange(tokens.shape[0], dtype=jnp.int32)
    return jax.lax.scan(read, start, (places, tokens.astype(jnp.int32)))[0]


@readable
def prefix_states(task: MarkovTask, answers: Answers) -> tuple[jax.Array, jax.Array]:
    """The context and the state of the automaton after each prefix of a small task, both int32 `[M]`.

    For a policy `[T, C, S, V]`, `policy[answers.prefix_lengths, contexts, states]` is the table `[M, V]` that
    `answer_log_probs` takes. So a task of few places can be checked against all of its answers.
    """
    return jax.vmap(lambda tokens, length: state_after(task, tokens, length))(answers.prefixes, answers.prefix_lengths)
