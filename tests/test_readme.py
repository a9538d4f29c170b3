"""The documents: their Python runs in the order in which a reader meets it, and what they name exists."""

import contextlib
import dataclasses
import importlib
import importlib.util
import io
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

from experiments import estimators as estimators_page
from experiments import gallery, gradient_lab
from experiments.__main__ import summaries
from experiments.gallery import page, reliability
from experiments.harness import runner
from pgjax import environments, networks, registry
from pgjax.saving import policies

ROOT = pathlib.Path(__file__).resolve().parents[1]
README, MAP = ROOT / "README.md", ROOT / "pgjax" / "README.md"
PAGES = (README, MAP, ROOT / "experiments" / "README.md")

# What stands for a name, and commands that are no questions of this tree.
NOT_HERE = {"my_question", "NAME"}


def blocks(path: pathlib.Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", path.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


(PRIMITIVES,) = blocks(README)
ENVIRONMENT, BASELINE, SHRUNK, ESTIMATOR, SAVED, EXPERIMENT = blocks(MAP)


def run(*examples: str) -> dict:
    namespace = {"__name__": "readme"}
    for example in examples:
        exec(compile(example, "README.md", "exec"), namespace)
    return namespace


@pytest.fixture(scope="module")
def session():
    return run(ENVIRONMENT, BASELINE, ESTIMATOR)


def test_readme_is_short_and_its_examples_too():
    assert len(README.read_text(encoding="utf-8").splitlines()) <= 150
    assert all(len(example.splitlines()) <= 25 for example in (*blocks(README), *blocks(MAP)))


def test_readme_has_one_main_command_and_the_test_command():
    text = README.read_text(encoding="utf-8")
    first, second = re.findall(r"^```bash\n(.*?)\n```$", text, re.MULTILINE | re.DOTALL)
    assert first.endswith("python -m experiments.variance_reduction") and second.endswith("python -m pytest")
    assert f"<!-- test command -->\n```bash\n{second}\n```" in text


def test_the_primitives_of_the_readme_are_unbiased_and_learn():
    found = run(PRIMITIVES)
    wanted = found["exact"].exact_gradient(found["apply"], found["theta"], found["mdp"])
    np.testing.assert_allclose(found["found"].mean, wanted, atol=1e-5)
    returns = found["metrics"]["mean_return"]
    assert jnp.mean(returns[-5:]) > jnp.mean(returns[:5])


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
    path.write_text(EXPERIMENT, encoding="utf-8")
    command = [sys.executable, path, "--episodes", "3", "--output-dir", tmp_path / "results", "--run-name", "one"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    subprocess.run(command, check=True, cwd=ROOT, timeout=120, capture_output=True, env=environment)
    assert "episodes asked for" in (tmp_path / "results" / "median" / "one" / "summary.md").read_text(encoding="utf-8")


def test_the_saved_policy_example_loads_what_was_saved(tmp_path, monkeypatch):
    name = "results/train/RUN/policy.safetensors"
    (tmp_path / name).parent.mkdir(parents=True)
    made = networks.make_policy(environments.make("corridor"), hidden=(4,))
    params = made.init(jax.random.key(0), jnp.zeros(1))
    policies.save_policy(tmp_path / name, params, environment="corridor", hidden=(4,))
    monkeypatch.chdir(tmp_path)
    namespace = run(SAVED)
    assert name in SAVED and namespace["environment"].name == "corridor"
    assert jax.tree.all(jax.tree.map(lambda a, b: (a == b).all(), namespace["params"], params))


def test_the_laboratory_takes_the_example_and_finds_it_unbiased(tmp_path, monkeypatch):
    (tmp_path / "shrunk.py").write_text(SHRUNK, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    config = dataclasses.replace(gradient_lab.TINY, estimator=("reinforce", "shrunk:shrunk"))
    directory = runner.execute("gradient_lab", config, gradient_lab.run, output_dir=tmp_path)
    rows = json.loads((directory / "summary.json").read_text())["rows"]
    assert next(row["verdict"] for row in rows if row["variant"] == "shrunk:shrunk") == "agrees: unbiased"


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_picture_and_experiment_that_a_page_names_exists(path):
    text = path.read_text(encoding="utf-8")
    assert all(links_to_something(path, link) for link in re.findall(r"\]\(([^)]*)\)", text))
    named = set(re.findall(r"python -m experiments\.(\w+)", text)) - NOT_HERE
    assert named and named <= set(summaries(ROOT / "experiments"))


def links_to_something(page_path: pathlib.Path, link: str) -> bool:
    """Whether a link leads to a file, and its anchor to a heading or a named place there."""
    file, _, anchor = link.partition("#")
    target = page_path.parent / file if file else page_path
    if not target.exists():
        return False
    text = target.read_text(encoding="utf-8") if anchor else ""
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    places = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
    return not anchor or anchor in places | set(re.findall(r'<a name="([^"]*)">', text))


@pytest.mark.parametrize("link", ["nowhere.md", "pgjax/README.md#a-nothing"])
def test_a_broken_link_is_seen(link):
    assert not links_to_something(README, link)


def options_used() -> dict[str, set[str]]:
    """Question → the options that the pages use with it."""
    found = {}
    for path in PAGES:
        for name, rest in re.findall(r"python -m experiments\.(\w+)([^`\n|·#]*)", path.read_text(encoding="utf-8")):
            found.setdefault(name, set()).update(re.findall(r"--[a-z][a-z-]*", rest))
    return {name: options for name, options in found.items() if options and name not in NOT_HERE}


@pytest.mark.parametrize("name", sorted(options_used()))
def test_every_option_that_a_page_uses_exists(name):
    question = importlib.import_module(f"experiments.{name}")
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown), pytest.raises(SystemExit) as ended:
        if hasattr(question, "Config"):
            runner.start(question, arguments=["--help"])
        else:
            question.main(["--help"])
    assert ended.value.code == 0
    assert {option for option in options_used()[name] if option not in shown.getvalue()} == set()


def test_the_results_page_is_what_its_data_make():
    written = (ROOT / "experiments" / "README.md").read_text(encoding="utf-8")
    wanted = page.write(gallery.GROUPS, ROOT / "experiments")
    assert written == wanted, "write it with: python -m experiments.gallery"


def test_every_figure_and_data_file_is_shown():
    records = [record for group in gallery.GROUPS for section in group.sections for record in section.records]
    shown = {f"{one.name}.json" for one in (*records, *reliability.SCRIPTS)}
    shown |= {f"{figure}.png" for record in records for figure in (*record.figures, *record.frames)}
    assert {path.name for path in (ROOT / "experiments" / "figures").iterdir()} <= shown


@pytest.mark.slow
def test_the_loop_of_your_own_estimates_the_exact_gradient_and_learns():
    found = importlib.import_module("experiments.examples.your_own_loop")
    assert jnp.abs(found.distances).max() < 4.5 and found.objective > -3.2


@pytest.mark.slow
def test_models_of_your_own_and_tokens_learn():
    found = importlib.import_module("experiments.examples.your_own_model")
    assert found.nnx_returns[-1] > 2 * found.nnx_returns[0] and found.token_rewards[-1] > 0.8
    assert (found.equinox_returns is None) == (importlib.util.find_spec("equinox") is None)
    assert found.equinox_returns is None or found.equinox_returns[-1] > 2 * found.equinox_returns[0]


def test_the_table_of_estimators_is_the_registrys():
    text = (ROOT / "pgjax" / "README.md").read_text(encoding="utf-8")
    shown = re.search(r"<!-- estimators -->\n(.*?)\n<!-- /estimators -->", text, re.DOTALL).group(1)
    assert shown == estimators_page.markdown(list(registry.ENTRIES.values())).strip()
