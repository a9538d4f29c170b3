"""The defaults of libraries: their rules by hand, the list of batches, and grades that theory knows."""

import csv
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from closeness import close

from experiments import library_defaults
from experiments.harness import runner
from experiments.library_defaults import counting, rules
from experiments.library_defaults.entry import UNBIASED
from experiments.library_defaults.grading import grade
from experiments.library_defaults.libraries import LIBRARIES
from pgjax import exact, rewards
from pgjax.distributions import categorical
from pgjax.types import Policy, Trajectory

NAME = "library_defaults"
GRADED = ("nanochat chat_rl", "NeMo-RL GRPO", "TRL RLOO", "tunix GRPO")


def batch_of(scores, lengths, log_probs=None):
    """Two groups of three answers; the score is paid with the last token."""
    lengths, steps = np.asarray(lengths), np.arange(3)[:, None]
    last = steps == lengths - 1
    alive = steps < lengths
    return Trajectory(
        obs=jnp.ones((3, 6, 1)),
        actions=jnp.zeros((3, 6), jnp.int32),
        rewards=jnp.asarray(np.where(last, scores, 0.0)),
        alive=jnp.asarray(alive),
        terminated=jnp.asarray(last),
        truncated=jnp.zeros((3, 6), bool),
        final_obs=jnp.ones((6, 1)),
        behaviour_log_probs=log_probs,
    )


def test_rules_are_what_the_sources_say(x64):
    scores, lengths = np.array([0.0, 1.0, 3.0, 1.0, 1.0, 0.0]), np.array([1, 2, 3, 3, 3, 1])
    batch = batch_of(scores, lengths)
    means = np.repeat(scores.reshape(2, 3).mean(1), 3)
    found = rules.centred_per_token(3).compute(batch, None, None)
    close(found[0], (scores - means) * 3 / np.repeat([6, 7], 3))

    wanted = []
    for group in scores.reshape(2, 3):
        for i in range(3):
            others = np.delete(group, i)
            spread = others.std(ddof=1)
            wanted.append((group[i] - others.mean()) / (spread if spread > 0 else 1.0))
    found = rules.standardised_by_others(3).compute(batch, None, None)
    close(found[0], wanted)
    # The two others of the last answer score the same, and so its advantage is not divided.
    close(found[0, 5], -1.0)
    # The size of the scores does not matter where there is a spread, and equal scores of any size have none.
    small = rules.standardised_by_others(3).compute(batch_of(1e-12 * scores, lengths), None, None)
    close(small[0, :5], found[0, :5])
    equal = rules.standardised_by_others(3).compute(batch_of(np.full(6, 0.1), lengths), None, None)
    assert not np.any(equal)

    policy = Policy(init=None, apply=lambda table, obs: obs @ table, distribution=categorical)
    log_probs = jnp.log(jnp.asarray(np.random.default_rng(0).uniform(0.1, 0.9, (3, 6))))
    stage = rewards.kl_penalty(policy, 0.1, jnp.zeros((1, 2)))
    found = rules.scores_then_penalties(3, stage).compute(batch_of(scores, lengths, log_probs), None, None)
    paid = np.where(np.arange(3)[:, None] < lengths, -0.1 * (np.asarray(log_probs) - np.log(0.5)), 0.0)
    leave_one_out = [scores[i] - np.delete(scores.reshape(2, 3)[i // 3], i % 3).mean() for i in range(6)]
    alive = np.arange(3)[:, None] < lengths
    close(np.where(alive, found, 0.0), np.where(alive, leave_one_out + paid[::-1].cumsum(axis=0)[::-1], 0.0))


@pytest.fixture(scope="module")
def graded():
    with jax.enable_x64(True):
        task = counting.make_task((0, 1), 2, 1.0, 0)
        batches = counting.all_batches(task.every, task.probabilities, 3, 2)
        chosen = tuple(library for library in LIBRARIES if library.name in GRADED)
        return task, batches, grade(chosen, task, batches, 3)


def test_the_batches_are_all_batches(graded):
    task, batches, _ = graded
    assert batches.indices.shape == (210, 6) and abs(batches.weights.sum() - 1) < 1e-12
    starts = np.asarray(task.every.states)[0][batches.indices]
    assert (starts[:, :3] == starts[:, :1]).all() and (starts[:, 3:] == starts[:, 3:4]).all()
    # The mean of any function of one answer.
    scores = np.asarray(task.every.trajectories.rewards).sum(0)
    np.testing.assert_allclose(batches.weights @ scores[batches.indices].mean(1), task.probabilities @ scores)


def test_only_the_unbiased_default_is_unbiased(graded):
    _, _, found = graded
    assert found["TRL RLOO"].bias < 1e-12 and abs(found["TRL RLOO"].kl_cosine - 1) < 1e-12
    for library in LIBRARIES:
        if library.name in GRADED:
            assert (found[library.name].bias < 1e-10) == (library.claim == UNBIASED), library.name
            assert library_defaults.finding(library, found[library.name]) == library.claim


def test_the_loss_k1_over_the_length_follows_the_inverse_length(graded):
    task, _, found = graded

    def inverse_length(params):
        p = exact.trajectory_probabilities(task.policy.apply, params, task.every)
        return jnp.sum(p / np.asarray(task.every.trajectories.alive).sum(0))

    with jax.enable_x64(True):
        followed = np.asarray(jax.grad(inverse_length)(task.params))
        of_kl = np.asarray(jax.grad(counting.divergence, argnums=1)(task, task.params))
    cosine = np.vdot(followed, of_kl) / np.linalg.norm(followed) / np.linalg.norm(of_kl)
    close(found["tunix GRPO"].kl_cosine, cosine)
    close(found["tunix GRPO"].kl_norm_ratio, np.linalg.norm(followed) / np.linalg.norm(of_kl))
    assert np.isnan(found["nanochat chat_rl"].kl_cosine)


def test_the_order_is_alphabetical_and_every_entry_has_its_source():
    names = [library.name for library in LIBRARIES]
    assert names == sorted(names, key=str.casefold)
    for library in LIBRARIES:
        assert library.sources and library.version and library.left_out and library.claim
        assert all(any(digit.isdigit() for digit in source) for source in library.sources)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"group_size": 2}, r"--group-size 2: must be in \[3, 6\]"),
        ({"asked": (4,)}, r"--asked 4: must be one to three numbers below --length 4"),
        ({"prompts": 3}, r"--prompts 3: must be smaller: there are 467180 batches"),
        ({"spread": 0.0}, r"--spread 0.0: must be in \(0, 3\]"),
    ],
)
def test_bad_options_are_refused(tmp_path, options, words):
    with pytest.raises(runner.UsageError, match=words):
        runner.execute(NAME, library_defaults.Config(**options), library_defaults.run, output_dir=tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_the_default_run_agrees_with_theory(tmp_path):
    config = library_defaults.Config()
    folder = runner.execute(NAME, config, library_defaults.run, library_defaults.plot, output_dir=tmp_path)
    rows = json.loads((folder / "summary.json").read_text())["rows"]
    judged = [row["verdict"] for row in rows if row["quantity"].startswith("‖E ĝ − ∇J‖")]
    assert len(judged) == len(LIBRARIES) and all(verdict.startswith("agrees") for verdict in judged)
    assert (folder / "library_defaults.png").is_file()
    with (folder / "sources.csv").open(encoding="utf-8") as file:
        assert [line["default"] for line in csv.DictReader(file)] == [library.name for library in LIBRARIES]
