"""Part (e): training on longer answers, 4⁸ of them, that an automaton scores; the dynamic program knows the optimum.

The policy is a table of logits over (place, last token, state of the automaton), which holds π*, because the future of
an answer depends on nothing else. Axes: T places, C contexts (the last token), S states of the automaton, V tokens.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.harness.progress import Progress
from experiments.kl_placement.learning import Learned, Recipe, Start, summarised, train_forms
from pgjax import automata, exact
from pgjax.automata import Automaton
from pgjax.environments.text import make_text

VOCABULARY = 4
# The right form, and the two that stall.
TRAINED = ("k1 in the reward", "k3 in the reward", "k1 in the loss")
SCORE = "1 for each string abc, 1 if no token stands directly after itself, and 0.5 for d at the end"


def make_score() -> Automaton:
    """The automaton of `SCORE` over the tokens a, b, c, d."""
    words = automata.pattern([0, 1, 2], VOCABULARY)
    varied = automata.no_repetition(VOCABULARY, window=1)
    end = automata.ends_with([3], VOCABULARY, value=0.5)
    return automata.minimised(automata.weighted_sum([words, varied, end]))


def make_task(length: int, spread: float, seed: int) -> exact.MarkovTask:
    """The task of answers of `length` tokens near a random model in which a token depends on the last one.

    Args:
        length: T.
        spread: the standard deviation of the logits of the reference.
        seed: the seed of these logits.
    """
    logits = spread * np.random.default_rng([seed, length]).standard_normal((VOCABULARY + 1, VOCABULARY))
    reference = exact.MarkovModel(
        start=np.int32(VOCABULARY),
        next=np.tile(np.arange(VOCABULARY, dtype=np.int32), (VOCABULARY + 1, 1)),
        log_probs=np.asarray(jax.nn.log_softmax(logits)),
    )
    return exact.make_markov_task(reference, make_score(), max_new_tokens=length)


def enumerated_best(task: exact.MarkovTask, kl_coef: float) -> float:
    """J* = β ln Σ π_ref e^{r/β} by a sum over all answers, to check the dynamic program. Needs 64-bit numbers."""
    answers = exact.enumerate_answers(VOCABULARY, task.max_new_tokens)
    contexts, _ = exact.prefix_states(task, answers)
    of_reference = exact.answer_log_probs(answers, task.reference.log_probs[contexts])
    scores = exact.answer_scores(answers, task.score).astype(of_reference.dtype)
    return float(kl_coef * exact.log_partition(of_reference, scores, kl_coef))


class LongAnswers(NamedTuple):
    """The results of part (e): training, J* by a sum over all answers, and the number of states of the table."""

    learned: Learned
    enumerated: float
    num_answers: int
    num_states: int


def learn_long(length: int, spread: float, seed: int, recipe: Recipe, seeds: range, progress: Progress) -> LongAnswers:
    """Train the forms of `TRAINED` in the text environment with every seed, and evaluate θ exactly, in float64."""
    task = make_task(length, spread, seed)
    environment = make_text([[0]], score=task.score, max_new_tokens=length, vocabulary=VOCABULARY)
    policy = exact.table_policy(task, over_time=True)
    start = Start(environment=environment, policy=policy, reference=policy.init(jax.random.key(0), None))
    runs = train_forms(start, recipe, TRAINED, seeds, progress)
    with jax.enable_x64(True):
        task = make_task(length, spread, seed)
        best = exact.soft_optimum(task, recipe.kl_coef)

        def of(params: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
            table = jax.nn.log_softmax(params)
            values = exact.table_policy_values(task, table)
            regret = best.objective - (values.expected_reward - recipe.kl_coef * values.kl)
            return regret, values.kl, jnp.abs(regret - recipe.kl_coef * exact.table_kl(task, table, best))

        learned = summarised(runs, TRAINED, of, best=float(best.objective), best_divergence=float(best.kl))
        enumerated = enumerated_best(task, recipe.kl_coef)
    return LongAnswers(
        learned=learned,
        enumerated=enumerated,
        num_answers=VOCABULARY**length,
        num_states=int(np.prod(start.reference.shape[:-1])),
    )
