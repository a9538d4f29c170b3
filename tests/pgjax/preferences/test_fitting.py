"""Fits of reward models: the right optimum, subsets and ensembles in one program, and held-out metrics."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from pgjax import tokens
from pgjax.environments.text import TextBuffer
from pgjax.preferences import Annotator, Comparisons, Preference, annotators, fitting, labelled_texts, reward_models
from pgjax.preferences.labelled_texts import BufferSize, comparisons_of, groups_of, rankings_of, text_buffers

ADAM = optax.adam(0.05)
TRUTH = jnp.array([1.0, -2.0, 0.5])
MODEL = reward_models.linear()


@functools.partial(jax.jit, static_argnums=1)
def draw(key, n):
    first_key, second_key, label_key = jax.random.split(key, 3)
    first, second = (jax.random.normal(k, (n, 3)) for k in (first_key, second_key))
    scores = jnp.stack([first @ TRUTH, second @ TRUTH], -1)
    outcomes = annotators.compare(label_key, Annotator(), scores)
    return Comparisons(first, second, outcomes, jnp.zeros(n)), annotators.probabilities(Annotator(), scores)


@pytest.fixture(scope="module")
def found():
    """One program: two numbers of labels, and the held-out metrics of both."""
    (labels, _), (test, chances) = draw(jax.random.key(0), 512), draw(jax.random.key(1), 512)

    @jax.jit
    @jax.vmap
    def run(count):
        weights = (jnp.arange(512) < count).astype(float)
        result = fitting.fit(jax.random.key(2), MODEL, labels, ADAM, num_epochs=25, batch_size=64, weights=weights)
        return result.params, fitting.evaluate(MODEL, result.params, test, chances=chances)

    return run(jnp.array([16, 512]))


def test_more_labels_give_a_better_model_above_its_entropy_floor(found):
    params, metrics = found
    assert jnp.linalg.norm(params[1] - TRUTH) < 0.5
    assert 0 < metrics["excess_loss"][1] < 0.01 < metrics["excess_loss"][0]
    assert metrics["accuracy"][1] > metrics["accuracy"][0]
    np.testing.assert_allclose(metrics["expected_loss"] - metrics["entropy_floor"], metrics["excess_loss"], rtol=1e-5)
    assert abs(metrics["loss"][1] - metrics["expected_loss"][1]) < 0.1


def test_the_truth_has_no_excess_loss():
    labels, chances = draw(jax.random.key(4), 64)
    found = fitting.evaluate(MODEL, TRUTH, labels, chances=chances)
    assert abs(found["excess_loss"]) < 1e-5
    ties = annotators.probabilities(
        Annotator(log_tie=0.0), jnp.stack([labels.first @ TRUTH, labels.second @ TRUTH], -1)
    )
    assert abs(fitting.evaluate(MODEL, TRUTH, labels, chances=ties, log_tie=0.0)["excess_loss"]) < 1e-5


def test_members_are_different_fits_and_combine_to_one_reward():
    labels, _ = draw(jax.random.key(0), 32)
    model = reward_models.mlp((4,))
    found = fitting.fit_ensemble(jax.random.key(3), model, labels, ADAM, num_members=2, num_epochs=3, batch_size=16)
    members = [jax.tree.map(lambda x: x[i], found.params) for i in range(2)]
    # The last bias is a constant of the reward, which preferences do not move.
    assert max(jnp.abs(x - y).max() for x, y in zip(*map(jax.tree.leaves, members))) > 1e-3
    obs = jnp.ones(3)
    reward = reward_models.ensemble(model, 2, "worst").apply(found.params, obs)
    np.testing.assert_allclose(reward, min(model.apply(member, obs) for member in members), rtol=1e-5)
    train_loss = found.metrics["train_loss"]
    assert train_loss.shape == (2, 3) and (train_loss[:, -1] < train_loss[:, 0]).all()


def test_ties_pull_rewards_together_and_do_not_count_for_the_accuracy():
    one, zero = jnp.ones((2, 1)), jnp.zeros((2, 1))
    labels = Comparisons(one, zero, jnp.array([0, 2]), jnp.zeros(2))
    phi = jnp.array([0.4])
    half = jax.jit(lambda x: fitting.losses(MODEL, x, labels))
    davidson = jax.jit(lambda x: fitting.losses(MODEL, x, labels, log_tie=0.0))
    for loss in (half, davidson):
        # The win pulls the reward up, and the tie pulls it down.
        higher, lower = loss(phi + 0.1), loss(phi - 0.1)
        assert higher[0] < lower[0] and higher[1] > lower[1]
    assert (half(phi) != davidson(phi)).all()
    accuracy = jax.jit(lambda x: fitting.evaluate(MODEL, x, labels)["accuracy"])
    assert accuracy(phi) == 1.0
    assert accuracy(0 * phi) == 0.5


RECORDS = [
    Preference(prompt="p", chosen="aa", rejected="b", margin=0.5),
    Preference(prompt="q", chosen="a", rejected="bbb", tie="both_bad"),
    Preference(prompt="p", chosen="a", rejected="c", ranking=("a", "b", "c"), places=1),
]
SIZE = BufferSize(prompt_places=2, max_new_tokens=3)


def test_records_become_buffers_with_the_environments_rule_for_the_end():
    text = text_buffers(["p", "", "pq"], ["a", "abc", ""], tokens.bytes_(), SIZE)
    a, b, c, p, q = b"abcpq"
    assert text.tokens.tolist() == [[p, a, 255, 0, 0], [a, b, c, 0, 0], [p, q, 255, 0, 0]]
    assert (text.length.tolist(), text.prompt_length.tolist()) == ([3, 3, 3], [1, 0, 2])
    begun = text_buffers(["p"], ["a"], tokens.bytes_(), SIZE._replace(bos=True))
    assert begun.tokens.tolist() == [[254, p, a, 255, 0]]
    with pytest.raises(ValueError, match="answer 1 must have at most 3 tokens, got 4: abcd"):
        text_buffers(["p", "p"], ["a", "abcd"], tokens.bytes_(), SIZE)
    with pytest.raises(ValueError, match="prompt 0 must have at most 2 tokens, got 3"):
        text_buffers(["pq"], ["a"], tokens.bytes_(), SIZE._replace(bos=True))
    wrong = Preference(prompt="p", chosen="a", rejected="four")
    assert [labelled_texts.fits(record, tokens.bytes_(), SIZE) for record in (*RECORDS, wrong)] == [True] * 3 + [False]


def test_records_become_comparisons_and_rankings():
    found = comparisons_of(RECORDS, tokens.bytes_(), SIZE)
    assert found.labels.outcomes.tolist() == [0, 3, 0, 0]
    assert found.labels.margins.tolist() == [0.5, 0, 0, 0]
    assert found.weights.tolist() == [1, 1, 0.5, 0.5]
    assert found.groups.tolist() == [0, 1, 0, 0]
    assert groups_of(RECORDS).tolist() == [0, 1, 0]
    assert bytes(found.labels.second.tokens[2:, 1]) == b"bc"
    ranked = rankings_of([RECORDS[0], RECORDS[2]], tokens.bytes_(), SIZE)
    assert ranked.mask.tolist() == [[True, True, False], [True, True, True]]
    assert ranked.places.tolist() == [2, 1]
    assert ranked.answers.tokens.shape == (2, 3, 5)
    with pytest.raises(ValueError, match="record 1 must not be a tie"):
        rankings_of(RECORDS, tokens.bytes_(), SIZE)


def test_a_fit_to_records_learns_what_they_prefer():
    """The preferred answer is always the longer one."""
    model = reward_models.on_features(MODEL, reward_models.length(3.0))
    found = comparisons_of([RECORDS[0], RECORDS[0]], tokens.bytes_(), SIZE)
    result = fitting.fit(
        jax.random.key(0), model, found.labels, ADAM, num_epochs=20, batch_size=4, weights=found.weights
    )
    assert result.params[0] > 0.1
    ranked = rankings_of([RECORDS[0]], tokens.bytes_(), SIZE)
    loss = fitting.losses(model, result.params, ranked)
    pair = jax.tree.map(lambda x: x[:1], found.labels)._replace(margins=jnp.zeros(1))
    np.testing.assert_allclose(loss, fitting.losses(model, result.params, pair), rtol=1e-5)
    assert fitting.evaluate(model, result.params, ranked)["accuracy"] == 1.0
    assert isinstance(found.labels.first, TextBuffer)
