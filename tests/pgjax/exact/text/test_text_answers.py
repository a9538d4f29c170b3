"""All answers of small text tasks: each once, with the probability and the pay that the environment gives it."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from closeness import close, far

from pgjax import automata, exact, networks, rollouts
from pgjax.distributions import categorical
from pgjax.environments.text import after_prompt, make_text
from pgjax.types import Policy

VOCABULARY, LIMIT, EOS = 3, 3, 1
PROMPTS = np.array([[2, 0], [1, 2]], np.uint8)
SCORE = automata.make_automaton(
    np.array([[0, 0, 1], [1, 0, 0]]), rewards=np.array([[0.3, 0.1, 0.0], [1.0, -0.2, 0.7]]), final=np.array([0.0, 0.5])
)


def logits_of(params, buffer):
    """A softmax policy that sees the whole buffer through a table of (token, place)."""
    written = jnp.arange(buffer.tokens.shape[0]) < buffer.length
    features = jnp.where(written[:, None], jax.nn.one_hot(buffer.tokens, VOCABULARY, dtype=params.dtype), 0.0)
    return jnp.tanh(jnp.einsum("lv,lva->a", features, params[:-1])) + params[-1, 0]


@pytest.fixture
def params(x64):
    return jnp.asarray(np.random.default_rng(0).normal(size=(2 + LIMIT + 1, VOCABULARY, VOCABULARY)))


def by_hand(vocabulary, limit, eos):
    """Every answer once, from all strings of tokens."""
    found = set()
    for tokens in itertools.product(range(vocabulary), repeat=limit):
        end = tokens.index(eos) + 1 if eos in tokens else limit
        found.add(tokens[:end])
    return found


@pytest.mark.parametrize("eos", [None, 0, 1, 2])
def test_each_answer_is_listed_once_with_its_prefixes(eos):
    answers = exact.enumerate_answers(VOCABULARY, LIMIT, eos=eos)
    listed = [tuple(tokens[:length]) for tokens, length in zip(answers.tokens.tolist(), answers.lengths.tolist())]
    assert len(listed) == len(set(listed))
    assert set(listed) == by_hand(VOCABULARY, LIMIT, eos)
    assert answers.ended.tolist() == [eos is not None and answer[-1] == eos for answer in listed]
    prefixes = [tuple(row[:n]) for row, n in zip(answers.prefixes.tolist(), answers.prefix_lengths.tolist())]
    assert len(prefixes) == len(set(prefixes))
    assert set(prefixes) == {answer[:n] for answer in listed for n in range(len(answer))}


def test_sizes_of_the_tasks_and_their_limits():
    answers = exact.enumerate_answers(4, 8)
    assert (answers.num_answers, answers.num_prefixes) == (65536, 21845)
    assert len(jax.tree.leaves(answers)) == 5
    with pytest.raises(ValueError, match="there are 16777216 answers of at most 8 of 8 tokens"):
        exact.enumerate_answers(8, 8)
    with pytest.raises(ValueError, match=r"allowed must be bool \[2\]"):
        exact.enumerate_answers(2, 2, allowed=[False, False])


def test_tokens_that_are_not_allowed_are_not_written():
    answers = exact.enumerate_answers(4, 2, eos=3, allowed=[True, False, True, True])
    assert sorted(zip(answers.tokens.tolist(), answers.lengths.tolist())) == sorted(
        [([3, 0], 1), ([0, 3], 2), ([2, 3], 2), ([0, 0], 2), ([0, 2], 2), ([2, 0], 2), ([2, 2], 2)]
    )
    never = exact.enumerate_answers(3, 2, eos=2, allowed=[True, True, False])
    assert never.num_answers == 4
    assert not never.ended.any()


@pytest.mark.parametrize("eos", [None, EOS])
def test_probabilities_are_products_over_the_steps(params, eos):
    answers = exact.enumerate_answers(VOCABULARY, LIMIT, eos=eos)
    observe = after_prompt(PROMPTS[0], LIMIT)
    table = jax.jit(partial(exact.prefix_log_probs, logits_of, answers=answers, observe=observe))(params)
    log_probs = exact.answer_log_probs(answers, table)
    close(jnp.sum(jnp.exp(log_probs)), 1.0)
    prefixes = [tuple(row[:n]) for row, n in zip(answers.prefixes.tolist(), answers.prefix_lengths.tolist())]
    reach = np.asarray(exact.prefix_reach(answers, table))
    for number, (tokens, length) in enumerate(zip(answers.tokens.tolist(), answers.lengths.tolist())):
        rows = [prefixes.index(tuple(tokens[:place])) for place in range(length)]
        steps = [float(table[row, token]) for row, token in zip(rows, tokens)]
        close(log_probs[number], sum(steps))
        close(reach[rows], np.cumsum([0.0, *steps[:-1]]))
    close(np.sum(np.exp(reach)), np.sum(np.exp(log_probs) * answers.lengths), atol=1e-10)


def test_pieces_and_policies_with_a_distribution_give_the_same(params):
    answers = exact.enumerate_answers(VOCABULARY, LIMIT, eos=EOS)
    observe = after_prompt(PROMPTS[1], LIMIT)
    policy = Policy(init=lambda key, obs: params, apply=logits_of, distribution=categorical)
    whole = lambda theta: exact.prefix_log_probs(logits_of, theta, answers, observe)
    cut = lambda theta: exact.prefix_log_probs(policy, theta, answers, observe, batch_size=3)
    weights = jnp.asarray(np.random.default_rng(1).normal(size=(answers.num_prefixes, VOCABULARY)))
    of = lambda table: jax.jit(jax.value_and_grad(lambda theta: jnp.sum(weights * table(theta))))(params)
    close(of(whole), of(cut), atol=1e-10)


def test_buffers_after_a_prompt_are_those_of_the_environment():
    buffer = after_prompt(np.array([2, 1, 0], np.uint8), 4, prompt_length=2)(np.array([1, 2, 7, 7], np.uint8), 2)
    assert buffer.tokens.tolist() == [2, 1, 1, 2, 0, 0, 0]
    assert buffer.tokens.dtype == np.uint8
    assert (int(buffer.length), int(buffer.prompt_length)) == (4, 2)


@pytest.mark.parametrize("rule", ["keep", "subtract", "replace"])
def test_every_answer_is_paid_as_in_the_environment(rule, x64):
    limit = {"missing_eos": rule, "missing_eos_value": 2.0}
    environment = make_text(PROMPTS, score=SCORE, max_new_tokens=LIMIT, vocabulary=VOCABULARY, eos=EOS, **limit)
    answers = exact.enumerate_answers(VOCABULARY, LIMIT, eos=EOS)
    state, _ = environment.reset(jax.random.key(0), environment.params)

    @jax.jit
    @jax.vmap
    def play(tokens, length):
        def write(carry, at):
            state, total = carry
            place, token = at
            after, step = environment.step(jax.random.key(1), state, token, environment.params)
            inside = place < length
            state = jax.tree.map(lambda new, old: jnp.where(inside, new, old), after, state)
            return (state, total + jnp.where(inside, step.reward, 0.0)), inside & step.terminated

        (_, total), ends = jax.lax.scan(write, (state, jnp.zeros(())), (jnp.arange(LIMIT), tokens.astype(jnp.int32)))
        return total, jnp.argmax(ends) + 1

    paid, lengths = play(answers.tokens, answers.lengths)
    scores = exact.answer_scores(answers, SCORE, **limit)
    np.testing.assert_array_equal(lengths, answers.lengths)
    close(scores, paid)
    if rule != "keep":
        far(exact.answer_scores(answers, SCORE), paid)


def test_scores_of_another_vocabulary_are_refused():
    answers = exact.enumerate_answers(4, 2)
    with pytest.raises(ValueError, match="must read a vocabulary of 4 tokens, got 3"):
        exact.answer_scores(answers, SCORE)
    with pytest.raises(ValueError, match="missing_eos must be 'keep' if eos is None"):
        exact.answer_scores(exact.enumerate_answers(3, 2), SCORE, missing_eos="replace")


def test_a_network_of_buffers_has_the_probabilities_that_rollouts_record():
    environment = make_text(PROMPTS[:1], score=SCORE, max_new_tokens=LIMIT, vocabulary=VOCABULARY, eos=EOS)
    policy = networks.make_policy(environment, network="transformer", hidden=(8,), network_options={"heads": 2})
    answers = exact.enumerate_answers(VOCABULARY, LIMIT, eos=EOS)
    observe = after_prompt(PROMPTS[0], LIMIT)

    @jax.jit
    def run(key):
        params_key, key = jax.random.split(key)
        params = policy.init(params_key, observe(answers.prefixes[0], 0))
        batch = rollouts.episodes(environment, policy, params, jax.random.split(key, 32), record_log_probs=True)
        log_probs = exact.answer_log_probs(answers, exact.prefix_log_probs(policy, params, answers, observe))
        return log_probs, batch, jnp.sum(batch.behaviour_log_probs, axis=0)

    log_probs, batch, recorded = run(jax.random.key(0))
    rows = answers.tokens.tolist()
    written = np.asarray(batch.final_obs.tokens)[:, PROMPTS.shape[1] :].tolist()
    number = np.array([rows.index(row) for row in written])
    assert len(set(number.tolist())) > 5
    close(log_probs[number], recorded, atol=1e-5)
    close(batch.rewards.sum(0), exact.answer_scores(answers, SCORE)[number], atol=1e-6)
    assert np.ptp(log_probs) > 1e-3
