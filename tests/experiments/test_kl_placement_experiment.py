"""The experiment on the place of the KL term: its problem, its exact grades, and its training."""

import csv
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from closeness import close

from experiments import kl_placement
from experiments.harness import runner
from experiments.kl_placement import cell_moments, cells, forms, learning, long_answers, records
from experiments.kl_placement.answers import log_probs, make_problem, regularised
from pgjax import automata, estimators, exact, registry

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


@pytest.fixture(scope="module")
def cell_table(short):
    """The cells of three estimators, added up, over all pairs of answers."""
    problem, (params, reference) = short
    with jax.enable_x64(True):
        setting = cells.make_setting(problem, params, reference, 0.4, 2)
        table = cell_moments.measure(setting, ("rloo", "dr_grpo", "grpo"), ("sum",), batch_size=49)
    return setting, table


def test_cells_have_the_means_that_theory_knows_and_the_others_are_biased(cell_table):
    _, table = cell_table
    grades = cell_moments.grades_of(table)
    known = [cell for cell, found in grades.items() if not np.isnan(found.gap)]
    assert len(known) == 8 + 6 and max(grades[cell].gap for cell in known) < 1e-12
    for form, found in forms.FORMS.items():
        if form in cells.FORMS and found.expected == "biased":
            assert grades["rloo", "sum", form].bias > 1e-3, form
    # Dr. GRPO keeps half of the gradient of two answers, and only of what its weights see.
    half = grades["dr_grpo", "sum", "k1 in the reward"]
    assert abs(half.cosine - 1) < 1e-12 and abs(half.norm_ratio - 0.5) < 1e-12
    assert grades["dr_grpo", "sum", "k2 in the loss, sequence"].cosine < 0.999
    # With two answers GRPO knows only which one is better.
    assert grades["grpo", "sum", "k1 in the reward"].bias > 0.1


def test_covariances_are_those_of_the_listed_pairs(cell_table):
    """Var ĝ of RLOO with k1 in the reward from two answers, by a sum over the 49 pairs in NumPy."""
    setting, table = cell_table
    problem = setting.problem
    with jax.enable_x64(True):
        every = problem.every.trajectories
        acted = estimators.record_behaviour(problem.policy, setting.params, every)
        paid = np.asarray(cells.paid_by(setting, forms.Part("reward", "k1"), acted)).sum(0)
        one = every._replace(rewards=jnp.where(jnp.arange(2)[:, None] == 0, 1.0, 0.0) * jnp.ones_like(every.rewards))
        reinforce = estimators.make_estimator(problem.policy, returns=estimators.total_return())
        scores = np.asarray(reinforce.episode_gradients(setting.params, (), one)).reshape(len(paid), -1)
    p = np.asarray(setting.probabilities)
    apart = paid[:, None] - paid[None]
    pairs = 0.5 * apart[..., None] * (scores[:, None] - scores[None])
    weights = p[:, None] * p[None]
    mean = np.einsum("ij,ijp->p", weights, pairs)
    wanted = np.einsum("ij,ijp,ijq->pq", weights, pairs - mean, pairs - mean)
    close(table.means[cells.BASE], mean)
    close(table.covariances[cells.BASE], wanted)


def test_sampled_batches_agree_with_their_cell_and_not_with_another(cell_table):
    setting, table = cell_table
    right, wrong = ("grpo", "sum", "k3 in the loss"), ("dr_grpo", "sum", "k3 in the loss")
    with jax.enable_x64(True):
        found = cell_moments.sample_cell(setting, table, jax.random.key(3), 4000, right)
    assert abs(found.mean - found.exact_mean) < 4 * found.mean_stderr
    assert abs(found.variance - found.exact_variance) < 4 * found.variance_stderr
    direction = table.means[right] / np.linalg.norm(table.means[right])
    assert abs(found.mean - direction @ table.means[wrong]) > 4 * found.mean_stderr


def test_the_first_epoch_of_clipping_is_the_score_function(short):
    problem, (params, reference) = short
    with jax.enable_x64(True):
        setting = cells.make_setting(problem, params, reference, 0.4, 2)
        acted = estimators.record_behaviour(problem.policy, params, problem.every.trajectories)
        paid = cells.paid_by(setting, forms.Part("reward", "k1"), acted)
        batch = acted._replace(rewards=paid)
        found = [
            estimator.episode_gradients(params, state, batch)
            for estimator, state in (cells.made_for(setting, name, "sum", paid) for name in ("ppo", "gpomdp_value"))
        ]
    close(*found)
    assert np.abs(found[0]).max() > 0.1


def test_the_estimators_of_the_table_are_in_the_registry():
    assert set(cells.ESTIMATORS) <= set(registry.ENTRIES)


@pytest.mark.parametrize(
    ("text", "score"), [("abcd", 2.5), ("abca", 2.0), ("aabc", 1.0), ("dddd", 0.5), ("abcabc", 3.0), ("acbd", 1.5)]
)
def test_the_score_of_long_answers(text, score):
    tokens = np.array(["abcd".index(letter) for letter in text])
    assert float(automata.score(long_answers.make_score(), tokens, len(text))) == score


def test_the_dynamic_program_and_the_list_of_answers_have_the_same_optimum():
    with jax.enable_x64(True):
        task = long_answers.make_task(4, 0.5, 0)
        best = exact.soft_optimum(task, 0.5)
        close(long_answers.enumerated_best(task, 0.5), best.objective)
        # The table over places, last tokens and states of the automaton holds π*.
        values = exact.table_policy_values(task, exact.table_log_probs(task, best))
        close(values.expected_reward - 0.5 * values.kl, best.objective)


def test_every_run_has_its_own_coefficients():
    with jax.enable_x64(True):
        problem = make_problem(2, 2, eos=False, seed=0)
    recipe = learning.Recipe(kl_coef=0.3, episodes=4, updates=2, every=1, learning_rate=0.1)
    start = learning.Start(exact.to_environment(problem.every.mdp), problem.policy, jnp.zeros((3, 2)))
    _, coefficients = learning.make_builder(start, recipe)
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
        ({"group_size": 5}, r"--group-size 5: must be smaller: there are 759375 batches"),
        ({"long_length": 10}, r"--long-length 10: must be in \[2, 9\]"),
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
    assert [curve["form"] for curve in curves] == [*learning.TRAINED, *long_answers.TRAINED]
    # All runs of a part start at the reference.
    for part in ("(c)", "(e)"):
        starts = np.array([np.array(curve["regret"])[:, 0] for curve in curves if curve["part"] == part])
        assert np.ptp(starts) < 1e-12 and starts.min() > 0
    with (folder / "all_cells.csv").open(encoding="utf-8") as file:
        assert len(list(csv.DictReader(file))) == len(cells.ESTIMATORS) * 4 * len(cells.FORMS)
    with np.load(folder / "all_cells.npz") as saved:
        assert saved["covariances"].shape == (648, 9, 9)


@pytest.mark.slow
def test_at_its_defaults_k1_in_the_reward_reaches_the_optimum_and_the_wrong_forms_stall(tmp_path):
    config = kl_placement.Config()
    rows = rows_of(runner.execute(NAME, config, kl_placement.run, kl_placement.plot, output_dir=tmp_path))
    left = {name: rows["(c) (J* − J) / J* after 400 updates", name] for name in learning.TRAINED}
    assert left[records.BASE]["ours"] < 0.01 and left[records.BASE]["verdict"].startswith("agrees")
    for name in records.STALLED:
        assert left[name]["ours"] > 0.15 and left[name]["verdict"].startswith("agrees")
    assert 0.05 < left["k3 in the loss"]["ours"] < 0.5
    long = {name: rows["(e) (J* − J) / J* after 400 updates", name] for name in long_answers.TRAINED}
    assert long[records.BASE]["ours"] < 1e-3 and all(row["verdict"].startswith("agrees") for row in long.values())
    assert not [row for row in rows.values() if row["verdict"].startswith(("wrong", "differs"))]
