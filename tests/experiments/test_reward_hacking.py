"""The experiment on reward hacking: its score, its reward models, its exact values, and a tiny run."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import reward_hacking
from experiments.harness import runner
from experiments.reward_hacking import findings, learning, task
from pgjax import automata, exact
from pgjax.preferences import reward_models


@pytest.fixture(scope="module")
def small():
    return task.make_task(5, 2)


def test_gold_wants_three_words_and_an_end():
    words = ("the", "cat")
    wanted, others = task.word_features(words)
    read = lambda automaton, text: float(automata.score(automaton, np.array(task.encode(text)), len(text)))
    for text, count, more in (
        ("the cat", 2, 0),
        ("the cat the cat", 3, 1),  # the fourth word is not wanted
        ("thecat the", 1, 1),
        (" th  a ", 0, 2),
        ("", 0, 0),
    ):
        assert (read(wanted, text), read(others, text)) == (count, more), text
    ended = np.array([*task.encode("the"), task.EOS, 0, 0])
    assert float(automata.score(wanted, ended, 4)) == 1.0 and float(automata.score(others, ended, 4)) == 0.0


def test_the_features_of_a_buffer_add_up_to_gold(small):
    drawn = exact.sample_answers(jax.random.key(0), small.reference, learning.reference_table(small), 50)
    features = reward_models.features_of(task.features_of(small), task.buffers_of(drawn))
    gold = jax.vmap(automata.score, (None, 0, 0))(small.reference.score, drawn.tokens, drawn.lengths)
    np.testing.assert_allclose(features @ task.GOLD, gold, atol=1e-5)
    np.testing.assert_array_equal(features[:, task.LENGTH], drawn.lengths - drawn.ended)
    np.testing.assert_array_equal(features[:, 2], drawn.ended)
    assert len(set(np.asarray(gold).tolist())) > 2


def test_a_reward_model_is_the_score_of_its_task(small):
    params = reward_models.Normalised(jnp.array([0.5, -2.0, 0.3, 0.1]), jnp.float32(2.0), jnp.float32(-0.7))
    model = reward_models.on_features(reward_models.normalised(reward_models.linear()), task.features_of(small))
    drawn = exact.sample_answers(jax.random.key(1), small.reference, learning.reference_table(small), 20)
    score = learning.proxy_task(small, params).score
    paid = jax.vmap(automata.score, (None, 0, 0))(score, drawn.tokens, drawn.lengths)
    of_model = jax.vmap(model.apply, (None, 0))(params, task.buffers_of(drawn))
    np.testing.assert_allclose(paid, of_model, rtol=1e-4, atol=1e-5)


def test_a_policy_begins_as_the_reference_and_shares_words_between_states(small):
    policy, table_of = learning.word_policy(small)
    params = policy.init(jax.random.key(0), None)
    values = jax.jit(lambda table: task.quality(small.reference, table, 0.0))(table_of(params))
    np.testing.assert_allclose(values.kl, 0.0, atol=1e-5)
    assert small.reading.shape == small.reference.score.next.shape[:1]
    starts = task.starts_of(small.words)
    assert set(small.reading.tolist()) <= set(starts.values()) and len(set(small.reading.tolist())) > 3
    taught = params | {"word": params["word"].at[starts[""], 5].set(3.0)}
    gained = np.asarray(table_of(taught) - table_of(params))[0, :, 5] > 0.1
    np.testing.assert_array_equal(gained, small.reading == starts[""])


def test_the_bits_of_the_reference_are_its_entropy(small):
    values = task.quality(small.reference, learning.reference_table(small), 0.0)
    tokens = values.length + exact.table_policy_values(small.reference, learning.reference_table(small)).ended
    np.testing.assert_allclose(values.bits, values.entropy / tokens / np.log(2), rtol=1e-5)


def test_a_quantity_at_a_distance_starts_at_the_reference():
    before = task.Quality(*(np.float32(2.0) for _ in task.Quality._fields))
    kl = np.array([[[1.0, 4.0]]])
    frontiers = task.Quality(*(kl if name == "kl" else np.array([[[4.0, 8.0]]]) for name in task.Quality._fields))
    for distance, value in ((0.0, 2.0), (0.5, 3.0), (1.5, 6.0), (9.0, 8.0)):
        assert findings.at_distance(frontiers, "gold", before, distance).tolist() == [[value]]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"length": 1}, "--length 1"),
        ({"taste": 0.0}, "--taste 0.0: must be a finite number above 0"),
        ({"kl_coef": 0.0}, "--kl-coef 0.0"),
        ({"seeds": 1}, "--seeds 1: must be at least 2"),
    ],
)
def test_options_that_do_not_fit_are_refused(options, said):
    with pytest.raises(runner.UsageError, match=said):
        dataclasses.replace(reward_hacking.Config(), **options).validate()


@pytest.mark.slow
def test_a_tiny_run_records_and_draws_everything(tmp_path):
    run, plot = reward_hacking.run, reward_hacking.plot
    directory = runner.execute("reward_hacking", reward_hacking.TINY, run, plot, output_dir=tmp_path, tiny=True)
    assert (directory / "reward_hacking.png").is_file()
    rows = json.loads((directory / "summary.json").read_text())["rows"]
    identity = next(row for row in rows if row["quantity"].startswith("greatest |ρ"))
    assert identity["verdict"] == "agrees"
    assert not any((row["verdict"] or "").startswith("wrong") for row in rows)
    assert {row["variant"] for row in rows if row["quantity"] == "gold"} >= {"before training, exact"}
