"""A name means the same object everywhere: what is listed, what trains and what is measured."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from experiments import estimators as listing
from experiments import gradient_lab, train
from experiments.gradient_lab import exact_part, problems
from experiments.shared.training import build
from pgjax import estimators, evaluation, exact, registry, rollouts

# Three states, two actions and two steps: every state leads to others, and the time that is left counts.
TABULAR = lambda: exact.random_mdp(jax.random.key(5), 3, 2, 2, 2)


@pytest.fixture(scope="module")
def problem():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(problems.TABULAR, "bandit", TABULAR)
        return problems.make_problem("bandit", "random", 0, (4,), 0)


def batch(problem, num_episodes=4):
    """Episodes of θ with all that an estimator may need, as if another policy had played them."""
    keys = jax.random.split(jax.random.key(1), num_episodes)
    environment, policy, params = problem.environment, problem.policy, problem.params
    episodes = rollouts.episodes(environment, policy, params, keys)
    episodes = evaluation.with_greedy_returns(environment, policy, params, keys, episodes)
    return estimators.record_behaviour(policy, jax.tree.map(lambda x: 0.5 * x, params), episodes)


def one_estimate(estimator, problem, episodes):
    """Of a state in which every running average has moved."""
    state = estimator.init(jax.random.key(2), episodes)
    moved = lambda x: x + 0.5 if jnp.issubdtype(x.dtype, jnp.floating) else x
    return ravel_pytree(estimator.gradient(problem.params, jax.tree.map(moved, state), episodes)[0])[0]


def trained(name, problem, monkeypatch):
    """The estimator that `train --estimator NAME` hands to its trainer, where its parts are the laboratory's."""
    parts = problem.parts
    monkeypatch.setattr(build, "value_baseline", lambda options, environment: parts.value)
    monkeypatch.setattr(build, "critic", lambda options, environment: parts.critic)
    handed = []
    monkeypatch.setattr(
        build.training, "make_trainer", lambda env, policy, estimator, *rest, **how: handed.append(estimator)
    )
    options = train.resolve(train.Config(env="corridor", estimator=name))
    build.make_build(options, problem.environment, problem.policy)(0.1)
    return handed[0]


def test_what_train_trains_is_what_the_laboratory_measures(problem, monkeypatch):
    """For every name, on one batch. What needs the oracle's values at one θ is refused in training, where θ moves."""
    pairs = {}
    for name, entry in registry.ENTRIES.items():
        if "oracle" in entry.needs:
            with pytest.raises(ValueError, match=f"{name} needs exact values"):
                trained(name, problem, monkeypatch)
        else:
            pairs[name] = trained(name, problem, monkeypatch), problem.estimator(entry)
    assert len(pairs) == len(registry.ENTRIES) - 3
    look = jax.jit(
        lambda episodes: {name: [one_estimate(x, problem, episodes) for x in pair] for name, pair in pairs.items()}
    )
    found = look(batch(problem))
    for name, (theirs, ours) in found.items():
        np.testing.assert_array_equal(theirs, ours, err_msg=name)
        assert np.linalg.norm(ours) > 0, name
    # The comparison can fail: other estimators give other estimates.
    estimates = {tuple(np.round(np.asarray(ours), 4)) for _, ours in found.values()}
    assert len(estimates) > 0.8 * len(found)


def test_every_entry_states_its_bias_truly(problem):
    """All batches of two episodes, enumerated: who claims to be unbiased is, and who does not is not."""
    entries = {name: entry for name, entry in registry.ENTRIES.items() if "greedy" not in entry.needs}
    episodes = batch(problem, 2)
    states = {name: problem.estimator(entry).init(jax.random.key(0), episodes) for name, entry in entries.items()}
    found = exact_part.exact_moments(problem, entries, states, 2, 10**5)
    assert found.keys() == entries.keys()
    wrong = {}
    for name, one in found.items():
        truth = problem.truth.natural_gradient if entries[name].natural else problem.truth.gradient
        error = np.linalg.norm(one.mean - truth)
        assert one.consistent, name
        if (error > max(one.rounding, 1e-6 * np.linalg.norm(truth))) != bool(entries[name].bias):
            wrong[name] = error
    # The oracle's q is the mean of Q_t over the visits of a state, which leaves no error in the mean of Σ_a ∇f_a q.
    assert wrong.keys() == {"all_action"}, wrong


def test_the_listing_names_all_and_its_markdown_is_one_table(capsys):
    listing.main([])
    shown = capsys.readouterr().out
    assert all(f"{name} " in shown for name in registry.ENTRIES) and "unbiased" in shown
    assert max(map(len, shown.splitlines())) <= listing.WIDTH
    listing.main(["--markdown"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 + len(registry.ENTRIES) and all(line.count("|") == 7 for line in lines)
    assert lines[0] == "| name | label | needs | stated bias | exact moments | source |"
    listing.main(["gae"])
    assert "--lambda 0.9" in capsys.readouterr().out


def test_the_listing_suggests_a_close_name(capsys):
    with pytest.raises(SystemExit) as left:
        listing.main(["loo"])
    assert left.value.code == 2 and "did you mean rloo" in capsys.readouterr().err


def test_names_are_checked_before_any_work(monkeypatch):
    """A wrong name must not be found out after the policy has been trained."""
    monkeypatch.setattr(gradient_lab, "make_problem", lambda config: pytest.fail("the work has begun"))
    with pytest.raises(ValueError, match="did you mean rloo"):
        gradient_lab.Config(estimator=("loo",)).validate()
    with pytest.raises(ValueError, match="did you mean rloo"):
        train.Config(estimator="loo").validate()
    with pytest.raises(ValueError, match="nowhere:f must be module:function"):
        gradient_lab.run(gradient_lab.Config(estimator=("nowhere:f",)), None)


def test_states_that_look_alike_have_one_number():
    mdp = TABULAR()
    states = registry.states_of(mdp)
    assert jnp.array_equal(jax.vmap(states.index_of)(mdp.observations), jnp.arange(states.count))
