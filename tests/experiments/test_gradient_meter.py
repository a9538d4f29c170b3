"""The question about the gradient meter: its grades, verl's proxies against enumeration, and its options."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import gradient_meter
from experiments.gradient_meter import cases, graded, proxies, tables
from experiments.harness import runner
from experiments.harness.verdicts import otherwise

NAME = "gradient_meter"


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    seen = {}

    def plot(found, recorder):
        seen.update(found)
        gradient_meter.plot(found, recorder)

    folder = tmp_path_factory.mktemp("results")
    directory = runner.execute(NAME, gradient_meter.TINY, gradient_meter.run, plot, output_dir=folder)
    return directory, json.loads((directory / "summary.json").read_text()), seen


def test_the_tiny_run_records_every_part(results):
    directory, summary, seen = results
    assert not [row for row in summary["rows"] if row["verdict"] and otherwise(row["verdict"])]
    assert {row["quantity"][:3] for row in summary["rows"]} == {"(a)", "(b)", "(c)"}
    assert len(summary["tables"]) == 4 and (directory / "gradient_meter.png").stat().st_size > 10_000
    assert all(abs(one.z) < 4.5 for one in seen["grades"])
    assert all(row["ours"] == 1.0 for row in summary["rows"] if "bit for bit" in row["quantity"])


def test_a_wrong_meter_is_caught(results):
    """With 200 batches of eight parts it is off by 1/8, which is some standard errors."""
    caught = [one for one in results[2]["grades"] if one.case == "bandit, reinforce, B = 8" and one.twin is not None]
    assert len(caught) == 3 and max(abs(one.twin_z) for one in caught) > 4.0


def test_dependent_parts_have_a_known_share_of_the_variance():
    case = cases.graded(0, True)[-1]
    assert case.joint
    known = graded.exact_noise(case, 7000)
    assert abs(known.expected["variance"] / known.variance - 1.0) > 0.01
    # ‖ḡ‖² is the sum of both, so what the variance misses is in the signal.
    total = known.expected["variance"] + known.expected["squared_norm"]
    np.testing.assert_allclose(total, known.variance + known.squared_norm, rtol=1e-10)


def test_the_proxies_are_exact_for_one_step_with_logits_as_parameters(results):
    found = results[2]["beside"]["bandit, one logit for each arm; REINFORCE"]
    np.testing.assert_allclose(found.proxies.power, found.power, rtol=1e-12)
    np.testing.assert_allclose(found.proxies.unclipped, found.noise, rtol=1e-11)
    np.testing.assert_allclose(found.proxies.signal, found.signal + found.noise, rtol=1e-11)
    assert found.proxies.noise >= found.proxies.unclipped


def test_the_proxies_of_a_network_are_not(results):
    found = results[2]["beside"]["bandit, network of 16 units; REINFORCE"]
    assert abs(found.proxies.power / found.power - 1.0) > 0.1
    np.testing.assert_allclose(found.factors["logits in place of parameters"], found.proxies.power / found.power)


def test_the_proxies_are_those_of_the_formulas():
    rng = np.random.default_rng(0)
    logits, actions = rng.normal(size=(4, 3, 5)), rng.integers(0, 5, (4, 3))
    lengths, advantages = np.array([4, 2, 1]), rng.normal(size=(4, 3))
    power = 0.0
    for i, length in enumerate(lengths):
        energy = 0.0
        for t in range(length):
            pi = np.exp(logits[t, i]) / np.exp(logits[t, i]).sum()
            energy += np.sum((np.eye(5)[actions[t, i]] - pi) ** 2)
        power += advantages[:length, i].mean() ** 2 * energy / 3
    alive = np.arange(4)[:, None] < lengths
    found = proxies.verl_proxies(jnp.asarray(logits), jnp.asarray(actions), alive, jnp.asarray(advantages), 0.25)
    np.testing.assert_allclose(found.power, power, rtol=1e-5)
    np.testing.assert_allclose(found.noise, (power - 0.25) / 2, rtol=1e-5)
    found = proxies.verl_proxies(jnp.asarray(logits), jnp.asarray(actions), alive, jnp.asarray(advantages), 1e6)
    assert found.noise == 0.0 and found.unclipped < 0.0


def test_products_between_steps_vanish_only_if_each_prefix_has_its_own_logits():
    shared = proxies.compare(cases.make_case("text", cases.text(0, shared=True), "reinforce", 8), 1, 100, 0)
    assert abs(shared.factors["products between steps left out"] - 1.0) > 0.05
    # With a mean over tokens only the square of the length is left.
    case = cases.make_case("text", cases.text(0, shared=False), "reinforce", 8, over_time="mean")
    found = proxies.compare(case, 1, 2000, 0)
    np.testing.assert_allclose([shared.dependence, found.dependence], 1.0, rtol=1e-10)
    # The maximum with 0 changes nothing here.
    assert found.noise_stderr > 0 and abs(found.proxies.noise - found.proxies.unclipped) < 4 * found.noise_stderr
    np.testing.assert_allclose(list(found.factors.values()), [1, 1, 1, cases.TOKENS**2], rtol=1e-10)
    np.testing.assert_allclose(found.proxies.power / found.power, cases.TOKENS**2, rtol=1e-10)


def test_every_trainer_measures_at_the_same_parameters():
    case = cases.graded(0, True)[0]
    drawn = graded.measure(case, 3, 0)
    again = graded.measure(case, 3, 0)
    assert drawn.num_parts == 8 and drawn.values["variance"].shape == (3,)
    np.testing.assert_array_equal(drawn.values["variance"], again.values["variance"])
    for one, other in zip(*map(jax.tree.leaves, (case.policy.init(None, None), case.problem.params)), strict=True):
        np.testing.assert_array_equal(one, other)


def test_bad_options_are_refused(tmp_path):
    for options, sentence in (
        ({"episodes": (3,)}, "--episodes 3: must be an even number"),
        ({"estimators": ("all_action",)}, "--estimators all_action: must be the name"),
        ({"estimators": ("nothing",)}, "--estimators nothing: must be the name"),
        ({"batches": 2}, "--batches 2: must be at least 10"),
    ):
        with pytest.raises(runner.UsageError, match=sentence):
            runner.execute(NAME, gradient_meter.Config(**options), gradient_meter.run, output_dir=tmp_path)


@pytest.mark.slow
def test_the_default_gradients_agree(tmp_path):
    config = gradient_meter.Config(repetitions=0)
    directory = runner.execute(NAME, config, gradient_meter.run, gradient_meter.plot, output_dir=tmp_path)
    rows = json.loads((directory / "summary.json").read_text())["rows"]
    assert not [row for row in rows if row["verdict"] and otherwise(row["verdict"])]
    assert sum(row["quantity"] == "(a) tr Var ḡ" for row in rows) == 13
    assert tables.MOST_ERRORS == 4.0
