"""The measurements measure what they say: live steps only, operations of every row, a process of its own."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import pytest

from experiments import throughput
from experiments.harness import runner
from experiments.throughput import solve
from pgjax import environments, networks


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    directory = tmp_path_factory.mktemp("results")
    return runner.execute("throughput", throughput.TINY, throughput.run, throughput.plot, output_dir=directory)


@pytest.mark.slow
def test_every_number_is_in_the_table(finished):
    rows = json.loads((finished / "summary.json").read_text())["rows"]
    quantities = {row["quantity"] for row in rows}
    assert {"(b) 10⁶ live steps/s", "(b) memory, MiB", "(c) share of the matrix-product rate"} <= quantities
    assert (finished / "throughput.png").exists()
    rates = {row["variant"]: row["ours"] for row in rows if row["quantity"] == "(b) 10⁶ live steps/s"}
    assert len(rates) == 4 and min(rates.values()) > 0
    verdicts = [row["verdict"].partition(":")[0] for row in rows if row["quantity"] == "(b) 10⁶ live steps/s, best"]
    assert len(verdicts) == 2 and set(verdicts) <= {"agrees", "not as expected"}


def child(solved=True, seconds=1.0):
    return {"solved": solved, "seconds": seconds, "learning_seconds": 0.2, "compile_seconds": 0.5, "updates": 9}


@pytest.mark.parametrize(
    ("unsolved", "seconds", "verdicts"),
    [
        ((), 2.0, {"seeds": "agrees", "seconds from": "agrees", "seconds of": "agrees"}),
        ((), 7.0, {"seeds": "agrees", "seconds from": "not as expected", "seconds of": "agrees"}),
        # The wrong twin takes the median over those that solved.
        ((1,), 2.0, {"seeds": "not as expected", "seconds from": "not as expected", "seconds of": "not as expected"}),
    ],
)
def test_aims_are_met_by_all_seeds_or_missed(monkeypatch, tmp_path, unsolved, seconds, verdicts):
    pretend = lambda arguments, cache: child(arguments["seed"] not in unsolved, seconds)
    monkeypatch.setattr(solve, "solve_in_a_new_process", pretend)
    config = dataclasses.replace(throughput.TINY, seeds=3)
    with runner.Recorder("throughput", config, output_dir=tmp_path) as recorder:
        solve.time_to_solve(range(3), {}, recorder)
    rows = json.loads((recorder.directory / "summary.json").read_text())["rows"]
    for beginning, verdict in verdicts.items():
        row = next(row for row in rows if row["quantity"].startswith(f"(a) {beginning}"))
        assert row["verdict"].startswith(verdict)


@pytest.mark.slow
def test_a_new_process_learns_and_says_what_it_took(tmp_path):
    options = {"seed": 0, "hidden": (4,), "episodes": 2, "learning_rate": 0.01, "max_updates": 2}
    found = solve.solve_in_a_new_process(options, str(tmp_path))
    assert not found["solved"] and found["updates"] == 2 and 0 < found["score"] < 475
    assert found["seconds"] > found["compile_seconds"] + found["learning_seconds"] > 0
    assert any(tmp_path.iterdir()), "the compilation cache is where it was asked for"


def test_a_process_that_fails_says_why(tmp_path):
    with pytest.raises(RuntimeError, match=r"seed 3 failed(.|\n)*unexpected keyword argument 'colour'"):
        solve.solve_in_a_new_process({"seed": 3, "colour": 1}, str(tmp_path))


def test_padding_is_not_counted():
    """Random play lasts 22 steps on average: the wrong twin counts all 500 rows of every episode."""
    policy = networks.make_policy(environments.make("CartPole-v1"), hidden=())
    params = policy.init(jax.random.key(0), jnp.zeros(4))
    program, carry = throughput.programs(throughput.TINY, policy, params, 8)[throughput.BARE]
    _, num_steps, trajectory = jax.jit(program)(carry)
    assert num_steps == trajectory.alive.sum() and num_steps < trajectory.alive.size / 5


def test_the_operations_of_a_step_are_those_of_its_matrix_products():
    """Two operations for each weight, forward; as many for ∂W and for ∂x, which the first layer does not need."""
    config = throughput.Config(hidden=(64, 64))
    policy = networks.make_policy(environments.make("CartPole-v1"), hidden=config.hidden)
    found = throughput.operations_per_step(config, policy, policy.init(jax.random.key(0), jnp.zeros(4)))
    sizes = lambda outputs: (4 * 64, 64 * 64, 64 * outputs)
    forward = lambda outputs: 2 * sum(sizes(outputs))
    gradient = lambda outputs: 3 * forward(outputs) - 2 * sizes(outputs)[0]
    plain, critic = throughput.AIMS
    assert found[throughput.ROLLOUT] == pytest.approx(forward(2), rel=0.05)
    assert found[plain] == pytest.approx(forward(2) + gradient(2), rel=0.05)
    assert found[critic] - found[plain] == pytest.approx(forward(1) + gradient(1), rel=0.05)


@pytest.mark.parametrize(
    "options",
    [
        {"batches": ()},
        {"batches": (0,)},
        {"max_updates": 0},
        {"learning_rate": 0.0},
        {"learning_rate": float("inf")},
        {"measure_seconds": float("inf")},
        {"measure_seconds": float("nan")},
        {"hidden": (-1,)},
        {"seed": -1},
    ],
)
def test_what_cannot_be_measured_is_refused(options):
    with pytest.raises(runner.UsageError, match="must be"):
        throughput.Config(**options).validate()
