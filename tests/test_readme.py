"""The README's Python runs, in the order in which a reader meets it, and its examples stay short."""

import dataclasses
import json
import os
import pathlib
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import gradient_lab
from experiments.__main__ import summaries
from experiments.harness import runner
from pgjax import environments, networks
from pgjax.saving import policies

README = pathlib.Path(__file__).resolve().parents[1] / "README.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```$", README.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def session():
    namespace = {"__name__": "readme"}
    for block in BLOCKS[:3]:
        exec(compile(block, "README.md", "exec"), namespace)
    return namespace


def test_there_are_six_examples_of_at_most_25_lines():
    assert len(BLOCKS) == 6
    assert all(len(block.splitlines()) <= 25 for block in BLOCKS)


def test_the_estimator_example_is_unbiased_and_learns(session):
    wanted = session["exact"].exact_gradient(session["apply"], session["params"], session["mdp"])
    np.testing.assert_allclose(session["found"].mean, wanted, atol=1e-5)
    returns = session["metrics"]["mean_return"]
    assert jnp.mean(returns[-5:]) > jnp.mean(returns[:5])


def test_the_baseline_example_learns_the_median(session):
    # Means of 32 episodes stand for the median: G_1 is in {−3, …, −6}.
    wanted = jnp.median(session["metrics"]["mean_return"][-5:])
    assert abs(session["state"].estimator_state - wanted) < 1.0


def test_the_experiment_example_runs(tmp_path):
    path = tmp_path / "median.py"
    path.write_text(BLOCKS[4], encoding="utf-8")
    command = [sys.executable, path, "--episodes", "3", "--output-dir", tmp_path / "results", "--run-name", "one"]
    subprocess.run(command, check=True, cwd=README.parent, timeout=120, capture_output=True, env=environment())
    assert "episodes asked for" in (tmp_path / "results" / "median" / "one" / "summary.md").read_text(encoding="utf-8")


def test_the_saved_policy_example_loads_what_was_saved(tmp_path, monkeypatch):
    name = "results/train/RUN/policy.safetensors"
    (tmp_path / name).parent.mkdir(parents=True)
    made = networks.make_policy(environments.make("corridor"), hidden=(4,))
    params = made.init(jax.random.key(0), jnp.zeros(1))
    policies.save_policy(tmp_path / name, params, environment="corridor", hidden=(4,))
    monkeypatch.chdir(tmp_path)
    namespace = {}
    exec(compile(BLOCKS[5], "README.md", "exec"), namespace)
    assert name in BLOCKS[5] and namespace["environment"].name == "corridor"
    assert jax.tree.all(jax.tree.map(lambda a, b: (a == b).all(), namespace["params"], params))


def test_the_laboratory_takes_the_example_and_finds_it_unbiased(tmp_path, monkeypatch):
    (tmp_path / "shrunk.py").write_text(BLOCKS[3], encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    assert len(BLOCKS[3].splitlines()) <= 15
    config = dataclasses.replace(gradient_lab.TINY, estimator=("reinforce", "shrunk:shrunk"))
    directory = runner.execute("gradient_lab", config, gradient_lab.run, output_dir=tmp_path)
    rows = json.loads((directory / "summary.json").read_text())["rows"]
    assert next(row["verdict"] for row in rows if row["variant"] == "shrunk:shrunk") == "unbiased"


def test_every_picture_and_experiment_it_names_exists():
    text = README.read_text(encoding="utf-8")
    pictures = re.findall(r"!\[.*?\]\((.*?)\)", text)
    named = set(re.findall(r"python -m experiments\.(\w+)", text))
    assert len(pictures) >= 4 and {"variance_reduction", "train", "throughput"} <= named
    assert all((README.parent / picture).is_file() for picture in pictures)
    assert named <= set(summaries(README.parent / "experiments"))


def environment():
    return os.environ | {"PYTHONPATH": str(README.parent)}
