"""The exported training of the benchmark is the one that pgjax trains, and its evaluation acts as the policy does."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import throughput
from experiments.harness import runner
from experiments.throughput import beside, from_file, solve
from pgjax import environments, networks
from pgjax._leaves import named_words


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(str(beside.FOLDER))
    import exported_training

    return exported_training


def test_the_network_in_numpy_acts_as_the_policy(script):
    policy = networks.make_policy(environments.make("CartPole-v1"), hidden=(8, 4))
    drawn = policy.init(jax.random.key(0), jnp.zeros(4))
    keys = iter(jax.random.split(jax.random.key(1), 6))
    params = jax.tree.map(lambda x: jax.random.normal(next(keys), x.shape), drawn)
    obs = jax.random.normal(jax.random.key(2), (200, 4))
    wanted = jnp.argmax(jax.vmap(policy.apply, (None, 0))(params, obs), axis=-1)
    state = {f".params{name}": leaf[None] for name, leaf in named_words(params).items()}
    assert 0 < wanted.sum() < 200
    assert np.array_equal(script.make_greedy(state | {".key": jnp.zeros(2)})(np.asarray(obs)), wanted)


def test_the_key_of_a_seed_is_that_of_jax(script):
    assert jnp.array_equal(script.key_of(123456789)[0], jax.random.key(123456789))


def child(solved=True, seconds=1.5):
    times = {"seconds": seconds, "learning_seconds": 0.2, "compile_seconds": 0.2, "evaluation_seconds": 0.2}
    times |= {"import_seconds": 0.6, "cpu_seconds": 1.4, "import_cpu_seconds": 0.5}
    return times | {"solved": solved, "updates": 9, "steps": 100}


@pytest.mark.parametrize(
    ("runs", "beyond", "verdict"),
    [
        ([child(), child()], 0.9, "agrees"),
        ([child(seconds=1.7), child(seconds=1.7)], 1.1, "not as expected"),
        ([child(), child(solved=False)], 0.9, "not as expected"),
    ],
)
def test_the_aim_counts_the_seconds_beyond_the_import(tmp_path, runs, beyond, verdict):
    config = dataclasses.replace(throughput.TINY, seeds=2)
    with runner.Recorder("throughput", config, output_dir=tmp_path) as recorder:
        from_file.record(runs, recorder)
    rows = json.loads((recorder.directory / "summary.json").read_text())["rows"]
    assert {row["variant"] for row in rows} == {solve.EXPORTED}
    assert rows[0]["ours"] == pytest.approx(beyond) and rows[0]["verdict"].startswith(verdict)
    assert rows[2]["ours"] == pytest.approx(0.9)


def test_without_the_package_the_solver_is_left_out(monkeypatch, tmp_path):
    monkeypatch.setattr(from_file.importlib.util, "find_spec", lambda name: None)
    assert from_file.make_solver({}, tmp_path) is None


@pytest.mark.slow
def test_a_process_learns_what_train_learns(tmp_path):
    pytest.importorskip("flatbuffers", reason="exported programs need flatbuffers")
    options = {"hidden": (4,), "episodes": 2, "learning_rate": 0.01, "max_updates": 3}
    found = from_file.make_solver(options, tmp_path)(1)
    same = solve.solve_in_a_new_process({"seed": 1, **options}, str(tmp_path / "cache"))
    assert found["steps"] == same["steps"] and found["updates"] == 3 and not found["solved"]
    assert found["score"] == pytest.approx(same["score"])
    assert found["seconds"] > found["import_seconds"] > 0 and found["cpu_seconds"] > found["import_cpu_seconds"] > 0
