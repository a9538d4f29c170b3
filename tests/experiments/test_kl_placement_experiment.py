"""The experiment on the place of the KL term: its problem, its exact grades, and its training."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from closeness import close

from experiments import kl_placement
from experiments.harness import runner
from experiments.kl_placement import forms, learning
from experiments.kl_placement.answers import log_probs, make_problem, regularised
from pgjax import exact

NAME = "kl_placement"


@pytest.fixture(scope="module")
def short():
    """Answers of at most two tokens, and the logits of a policy and of a reference."""
    with jax.enable_x64(True):
        problem = make_problem(3, 2, eos=True, seed=0)
        return problem, jnp.asarray(np.random.default_rng(1).standard_normal((2, 3, 3)))


def test_the_trajectories_are_the_answers(short):
    """Each prefix has its own logits, and both listings give an answer of a score the same probability."""
    problem, (params, _) = short
    trajectories = problem.every.trajectories
    lengths = np.asarray(trajectories.alive).sum(0)
    assert sorted(lengths) == [1, 2, 2, 2, 2, 2, 2]
    seen = np.asarray(trajectories.obs)[np.asarray(trajectories.alive)]
    assert set(seen.tolist()) == {0, 1, 2}
    with jax.enable_x64(True):
        p = np.asarray(exact.trajectory_probabilities(problem.policy.apply, params, problem.every))
        wanted = np.exp(np.asarray(log_probs(problem, params)))
    paid, scores = np.asarray(trajectories.rewards).sum(0), np.asarray(problem.scores)
    close(p[np.argsort(paid)], wanted[np.argsort(scores)])
    close(np.sort(paid), np.sort(scores))
    close(wanted.sum(), 1.0)


def test_what_the_best_policy_leaves_is_its_divergence(short):
    problem, (params, reference) = short
    with jax.enable_x64(True):
        found = regularised(problem, params, reference, 0.4)
        close(found.regret, 0.4 * found.kl_to_optimum)
        assert found.regret > 0.01


def test_forms_are_exact_zero_or_biased_as_declared(short):
    problem, (params, reference) = short
    with jax.enable_x64(True):
        found = jax.jit(lambda x, y: forms.grade(problem, x, y)[0])(params, reference)
        found, gap = jax.tree.map(float, (found, forms.inverse_length_gap(problem, params, reference)))
    for name, form in forms.FORMS.items():
        grades = found[name]
        if form.expected == "exact":
            assert grades.error < 1e-12 and abs(grades.cosine - 1) < 1e-12, name
        elif form.expected == "zero":
            assert grades.norm_ratio < 1e-12 and np.isnan(grades.cosine), name
        else:
            assert grades.error > 1e-3, name
    assert gap < 1e-12
    # The divergence over all tokens has no noise of its own.
    assert found["full in reward and loss"].variance < found["k3 in reward and loss"].variance


def test_every_run_has_its_own_coefficients():
    with jax.enable_x64(True):
        problem = make_problem(2, 2, eos=False, seed=0)
    recipe = learning.Recipe(kl_coef=0.3, episodes=4, updates=2, every=1, learning_rate=0.1)
    _, coefficients = learning.make_builder(problem, jnp.zeros((3, 2)), recipe)
    assert len({tuple(row) for row in coefficients.values()}) == len(learning.TRAINED)
    for name, row in coefficients.items():
        assert (row > 0).sum() == len(forms.FORMS[name].parts) and set(row.tolist()) <= {0.0, np.float32(0.3)}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"vocabulary": 1}, r"--vocabulary 1: must be at least 2"),
        ({"length": 7}, r"--length 7: must be shorter: V\^T is 16384"),
        ({"updates": 30}, r"--updates 30: must be a multiple of --evaluate-every 20"),
        ({"kl_coef": 0.0}, r"--kl-coef 0.0: must be in \[0.01, 100\]"),
        ({"spread": float("nan")}, r"--spread nan: must be in \(0, 3\]"),
    ],
)
def test_bad_options_are_refused(tmp_path, options, words):
    with pytest.raises(runner.UsageError, match=words):
        runner.execute(NAME, kl_placement.Config(**options), kl_placement.run, output_dir=tmp_path)
    assert not list(tmp_path.iterdir())


def rows_of(folder):
    return {(row["quantity"], row["variant"]): row for row in json.loads((folder / "summary.json").read_text())["rows"]}


@pytest.mark.slow
def test_a_tiny_run_writes_everything(tmp_path):
    config = kl_placement.TINY
    folder = runner.execute(NAME, config, kl_placement.run, kl_placement.plot, output_dir=tmp_path, tiny=True)
    rows = rows_of(folder)
    assert (folder / "kl_placement.png").is_file()
    assert not [row for row in rows.values() if row["verdict"].startswith(("wrong", "differs"))]
    curves = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [curve["form"] for curve in curves] == list(learning.TRAINED)
    # All runs of a seed start at the reference.
    starts = np.array([np.array(curve["regret"])[:, 0] for curve in curves])
    assert np.ptp(starts) < 1e-12 and starts.min() > 0


@pytest.mark.slow
def test_at_its_defaults_k1_in_the_reward_reaches_the_optimum_and_the_wrong_forms_stall(tmp_path):
    config = kl_placement.Config()
    rows = rows_of(runner.execute(NAME, config, kl_placement.run, kl_placement.plot, output_dir=tmp_path))
    left = {name: rows["(c) (J* − J) / J* after 400 updates", name] for name in learning.TRAINED}
    assert left[kl_placement.BASE]["ours"] < 0.01 and left[kl_placement.BASE]["verdict"].startswith("agrees")
    for name in kl_placement.STALLED:
        assert left[name]["ours"] > 0.15 and left[name]["verdict"].startswith("agrees")
    assert 0.05 < left["k3 in the loss"]["ours"] < 0.5
    assert not [row for row in rows.values() if row["verdict"].startswith(("wrong", "differs"))]
