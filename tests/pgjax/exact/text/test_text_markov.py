"""Long answers by dynamic programming: equal to the sum over all answers where both are possible."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from closeness import close, far

from pgjax import automata, exact
from pgjax.environments.text import after_prompt

VOCABULARY, LIMIT, BETA, EOS = 3, 4, 0.4, 2
RULES = {
    "no eos": {"eos": None},
    "keep": {"eos": EOS},
    "subtract": {"eos": EOS, "missing_eos": "subtract", "missing_eos_value": 1.5},
    "replace": {"eos": EOS, "missing_eos": "replace", "missing_eos_value": -1.0},
}


def make_task(rule, places=LIMIT, vocabulary=VOCABULARY, states=4, allowed=None, seed=0):
    draw = np.random.default_rng(seed)
    kept = np.arange(vocabulary) if allowed is None else np.flatnonzero(allowed)
    documents = [draw.choice(kept, size=30) for _ in range(3)]
    model = exact.fit_markov_model(documents, vocabulary, order=2, eos=RULES[rule]["eos"], allowed=allowed)
    paid = None if rule == "replace" else draw.normal(size=(states, vocabulary))
    score = automata.make_automaton(
        draw.integers(0, states, (states, vocabulary)), rewards=paid, final=draw.normal(size=states), start=1
    )
    return exact.make_markov_task(
        exact.after_tokens(model, documents[0][:5]), score, max_new_tokens=places, **RULES[rule]
    )


@pytest.fixture(scope="module", params=RULES)
def case(request):
    """A task, its answers with scores and probabilities, and a policy of its states that changes over time."""
    with jax.enable_x64(True):
        task = make_task(request.param)
        rule = RULES[request.param]
        answers = exact.enumerate_answers(VOCABULARY, LIMIT, eos=rule["eos"])
        contexts, states = exact.prefix_states(task, answers)
        scores = exact.answer_scores(
            answers,
            task.score,
            missing_eos=task.missing_eos,
            missing_eos_value=rule.get("missing_eos_value", 0.0),
        )
        table = np.random.default_rng(5).normal(size=(LIMIT, task.reference.next.shape[0], 4, VOCABULARY))
        of_table = lambda table: exact.answer_log_probs(answers, table[answers.prefix_lengths, contexts, states])
        reference = exact.answer_log_probs(answers, task.reference.log_probs[contexts])
        yield task, answers, scores, reference, of_table, jnp.asarray(table)


def test_the_optimum_is_that_of_the_enumeration(case):
    task, _, scores, reference, of_table, _ = case
    best = jax.jit(exact.soft_optimum)(task, BETA)
    wanted = exact.tilted_log_probs(reference, scores, BETA)
    known = exact.regularised(wanted, reference, scores, BETA)
    got = (best.objective, best.expected_reward, best.kl, best.entropy)
    close(got, (known.optimum, known.expected_reward, known.kl, known.entropy), atol=1e-10)
    close(of_table(exact.table_log_probs(task, best)), wanted, atol=1e-10)
    if task.missing_eos == "subtract":
        # A dynamic program that forgets the rule of the limit solves another problem.
        forgetful = jax.jit(exact.soft_optimum)(dataclasses.replace(task, missing_eos="keep"), BETA)
        far(forgetful.objective, known.optimum)


def test_the_values_of_any_policy_are_those_of_the_enumeration(case):
    task, answers, scores, reference, of_table, logits = case

    @jax.jit
    def run(task, logits):
        best, policy = exact.soft_optimum(task, BETA), jax.nn.log_softmax(logits)

        def objective(logits):
            values = exact.table_policy_values(task, jax.nn.log_softmax(logits))
            return values.expected_reward - BETA * values.kl, values

        return best.objective, exact.table_kl(task, policy, best), jax.value_and_grad(objective, has_aux=True)(logits)

    @jax.jit
    def by_answers(logits):
        log_probs = of_table(jax.nn.log_softmax(logits))
        known = exact.regularised(log_probs, reference, scores, BETA)
        weights = jnp.exp(log_probs)
        return known.objective, (known, weights @ answers.lengths, weights @ answers.ended)

    optimum, kl_to_optimum, ((objective, values), gradient) = run(task, logits)
    (_, (known, length, ended)), wanted = jax.value_and_grad(by_answers, has_aux=True)(logits)
    close(
        (values.expected_reward, values.kl, values.entropy, values.length, values.ended),
        (known.expected_reward, known.kl, known.entropy, length, ended),
        atol=1e-10,
    )
    close(optimum - objective, BETA * kl_to_optimum, atol=1e-10)
    assert kl_to_optimum > 0.1
    close(gradient, wanted, atol=1e-10)


@pytest.mark.parametrize("over_time", [False, True])
def test_a_table_is_a_policy_of_buffers(case, over_time):
    task, answers, *_, logits = case
    policy, observe = exact.table_policy(task, over_time=over_time), after_prompt(np.array([1, 0], np.uint8), LIMIT)
    params = policy.init(jax.random.key(0), observe(answers.prefixes[0], 0))
    contexts, states = exact.prefix_states(task, answers)

    @jax.jit
    def run(params):
        return exact.prefix_log_probs(policy, params, answers, observe)

    close(run(params), task.reference.log_probs[contexts])
    params = logits if over_time else logits[0]
    rows = (answers.prefix_lengths, contexts, states) if over_time else (contexts, states)
    close(run(params), jax.nn.log_softmax(params)[rows])


def test_forbidden_tokens_stay_forbidden(x64):
    allowed = np.array([True, False, True, True])
    task = make_task("keep", vocabulary=4, allowed=allowed)

    @jax.jit
    def run(beta):
        best = exact.soft_optimum(task, beta)
        gradient = jax.grad(lambda beta: exact.soft_optimum(task, beta).objective)(beta)
        return best, exact.table_log_probs(task, best), gradient

    best, table, gradient = run(BETA)
    assert np.isfinite([best.objective, best.expected_reward, best.kl, best.entropy, gradient]).all()
    close(np.exp(table).sum(-1), np.ones(table.shape[:-1]), atol=1e-10)
    assert np.all(np.exp(table[..., 1]) == 0)
    answers = exact.enumerate_answers(4, LIMIT, eos=EOS, allowed=allowed)
    contexts, _ = exact.prefix_states(task, answers)
    reference = exact.answer_log_probs(answers, task.reference.log_probs[contexts])
    scores = exact.answer_scores(answers, task.score)
    close(best.objective, BETA * exact.log_partition(reference, scores, BETA), atol=1e-10)


def test_64_places_and_samples_from_the_optimum():
    """In float32, as a training program would: the identity holds, and the samples have the exact mean."""
    task = make_task("subtract", places=64, vocabulary=8, states=6, seed=2)

    @jax.jit
    def run(key, beta):
        best = exact.soft_optimum(task, beta)
        reference = jnp.broadcast_to(task.reference.log_probs[:, None], (task.reference.next.shape[0], 6, 8))
        of_reference = exact.table_policy_values(task, reference)
        drawn = exact.sample_answers(key, task, best, 2000)
        scores = jax.vmap(automata.score, (None, 0, 0))(task.score, drawn.tokens, drawn.lengths)
        return best, of_reference, exact.table_kl(task, reference, best), drawn, scores - 1.5 * ~drawn.ended

    best, of_reference, regret_kl, drawn, scores = run(jax.random.key(0), 2.0)
    close(of_reference.kl, 0.0, atol=1e-5)
    np.testing.assert_allclose(best.objective - of_reference.expected_reward, 2.0 * regret_kl, rtol=1e-4)
    z = lambda mean: (np.mean(scores) - mean) / (np.std(scores) / np.sqrt(2000))
    assert abs(z(best.expected_reward)) < 4
    assert abs(z(of_reference.expected_reward)) > 10
    stops = np.argmax(np.asarray(drawn.tokens) == EOS, axis=1)
    np.testing.assert_array_equal(np.where(drawn.ended, stops + 1, 64), drawn.lengths)
    assert 0 < np.mean(drawn.ended) < 1


def test_a_frontier_over_long_answers(x64):
    reference = exact.fit_markov_model([[0, 1, 1, 0, 2, 1, 0]], 3, order=1)
    proxy, gold = automata.aligned(automata.count([0], 3), automata.length(-np.abs(np.arange(13) - 4.0), 3, eos=EOS))
    tasks = [exact.make_markov_task(reference, score, max_new_tokens=12, eos=EOS) for score in (proxy, gold)]
    betas = [4.0, 1.0, 0.25]

    @jax.jit
    def run():
        best = exact.soft_optimum(tasks[0], 1.0)
        as_table = exact.table_log_probs(tasks[0], best)
        return exact.long_frontier(*tasks, betas), exact.table_policy_values(tasks[1], as_table).expected_reward

    curve, at_one = run()
    assert np.all(np.diff(curve.kl) > 0)
    assert np.all(np.diff(curve.proxy) > 0)
    close(curve.gold[1], at_one)
    other = exact.make_markov_task(reference, automata.count([0], 3), max_new_tokens=12)
    with pytest.raises(ValueError, match=r"use automata\.aligned"):
        exact.long_frontier(tasks[0], other, betas)


def test_the_model_has_the_smoothed_frequencies_of_its_text(x64):
    text, smoothing = [0, 1, 0, 0, 1, 0, 1, 2], 0.5
    model = exact.fit_markov_model([text, [1, 0]], 3, order=2, smoothing=smoothing, eos=EOS)
    padded = [[-1, *text, EOS], [-1, 1, 0, EOS]]

    def by_hand(context, token):
        if context is None:
            return 1 / 3
        size = len(context)
        places = [(doc[i - size : i], doc[i]) for doc in padded for i in range(max(size, 1), len(doc))]
        total = sum(before == context for before, _ in places)
        times = sum(before == context and after == token for before, after in places)
        return (times + smoothing * by_hand(context[1:] if context else None, token)) / (total + smoothing)

    for tokens in ([], [0], [1, 0], [0, 1, 0], [2, 2], [1, 1, 1, 2], [0, 0]):
        context = exact.after_tokens(model, np.array(tokens, int)).start
        for token in range(3):
            close(jnp.exp(model.log_probs)[context, token], by_hand([-1, *tokens][-2:], token))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: exact.fit_markov_model([[0, 5]], 3), "documents must hold tokens that are allowed, got 5"),
        (lambda: exact.fit_markov_model([[]], 3), "at least one token, got none"),
        (lambda: exact.fit_markov_model([[0]], 3, smoothing=0.0), "smoothing must be above 0"),
        (lambda: exact.fit_markov_model([[0]], 3, order=-1), r"order must be in \[0, 1024\]"),
        (lambda: exact.fit_markov_model([range(9)], 9, order=3, limit=10), "contexts of 3 tokens, the limit is 10"),
    ],
)
def test_models_that_cannot_be_fitted_are_refused(make, said):
    with pytest.raises(ValueError, match=said):
        make()


def test_tasks_that_do_not_fit_are_refused():
    model = exact.fit_markov_model([[0, 1, 2]], 3)
    with pytest.raises(ValueError, match="score must read a vocabulary of 3 tokens, got 4"):
        exact.make_markov_task(model, automata.count([0], 4), max_new_tokens=2)
    with pytest.raises(ValueError, match="needs a score that is paid at the end alone"):
        exact.make_markov_task(model, automata.count([0], 3), max_new_tokens=2, eos=2, missing_eos="replace")
    task = exact.make_markov_task(model, automata.count([0], 3), max_new_tokens=2)
    with pytest.raises(ValueError, match="kl_coef must be above 0"):
        exact.soft_optimum(task, -1.0)
