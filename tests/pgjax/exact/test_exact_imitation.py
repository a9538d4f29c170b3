"""Exact imitation: regret, its bounds, and the two problems that meet them."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from closeness import log_slope

from pgjax import exact


@pytest.fixture(scope="module")
def random_mdp():
    """S 6, A 3, K 2, T 7; episodes differ in length."""
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        return exact.make_tabular_mdp(
            initial=[0.5, 0.2, 0.2, 0.1, 0.0, 0.0],
            successors=rng.integers(0, 6, (6, 3, 2)),
            probabilities=rng.dirichlet([1.0, 1.0], (6, 3)),
            rewards=rng.standard_normal((6, 3, 2)),
            terminal=np.arange(6) == 5,
            horizon=7,
        )


def random_table(seed, mdp, with_time):
    shape = (mdp.horizon, mdp.num_states) if with_time else (mdp.num_states,)
    return jnp.asarray(np.random.default_rng(seed).dirichlet([0.5] * mdp.num_actions, shape))


@pytest.mark.parametrize("with_time", [False, True])
def test_regret_is_a_difference_of_values(x64, strict, random_mdp, with_time):
    """By the dynamic program for tables without time; with time equal tables at all times give the same."""
    mdp = random_mdp
    expert, learner = random_table(1, mdp, False), random_table(2, mdp, False)
    value = lambda table: jnp.sum(mdp.initial * exact.state_values(mdp, table)[0])
    over_time = lambda table: jnp.broadcast_to(table, (mdp.horizon, *table.shape)) if with_time else table
    found = exact.regret(mdp, over_time(expert), over_time(learner))
    np.testing.assert_allclose(found, value(expert) - value(learner), atol=1e-10)


def test_tables_of_another_shape_are_refused(x64):
    mdp = exact.compounding_chain(4, recoverable=True)
    with pytest.raises(ValueError, match=r"learner_probabilities must have the shape \(2, 2\)"):
        exact.regret(mdp, exact.first_action(mdp), jnp.ones((4, 2)))
    with pytest.raises(ValueError, match=r"errors must be in \[0, 1\], got 1.5"):
        exact.with_errors(exact.first_action(mdp), 1.5)
    with pytest.raises(ValueError, match="num_good_states must be"):
        exact.reset_cliff(3, 8)


def test_with_errors_is_the_error_of_a_deterministic_expert(x64, random_mdp):
    mdp = random_mdp
    errors = jnp.array([0.0, 0.1, 0.5, 1.0, 0.3, 0.2])
    table = exact.with_errors(exact.first_action(mdp), errors)
    np.testing.assert_allclose(table.sum(-1), 1.0, atol=1e-12)
    found = exact.disagreement(mdp, exact.first_action(mdp), table)
    np.testing.assert_allclose(found, jnp.where(mdp.terminal, 0.0, errors) * jnp.ones((7, 1)), atol=1e-12)
    # The mixture β π* + (1 − β) π errs 1 − β times as often in every state.
    mixture = 0.3 * exact.first_action(mdp) + 0.7 * table
    np.testing.assert_allclose(exact.disagreement(mdp, exact.first_action(mdp), mixture), 0.7 * found, atol=1e-12)


STATED = {10: 0.271, 20: 1.018, 50: 5.884, 100: 21.55, 200: 74.02}

EPSILON = 0.005

HORIZONS = (10, 50, 200)


@pytest.fixture(scope="module")
def chain():
    """T → the exact gaps of round 1 (cloning) and round 2 of DAgger on either chain, and what explains them."""

    @jax.jit
    def measure(mdp):
        expert = exact.first_action(mdp)
        learners = exact.population_dagger(mdp, expert, EPSILON, 2)
        one = lambda learner: (exact.regret(mdp, expert, learner), exact.imitation_errors(mdp, expert, learner))
        return jax.vmap(one)(learners), exact.recovery_cost(mdp, expert)

    with jax.enable_x64(True):
        cases = [(horizon, recoverable) for horizon in HORIZONS for recoverable in (True, False)]
        found = {(h, r): jax.device_get(measure(exact.compounding_chain(h, recoverable=r))) for h, r in cases}
    take = lambda measured, i: jax.tree.map(lambda x: x[i], measured)
    return {case: ([take(rounds, 0), take(rounds, 1)], recovery) for case, (rounds, recovery) in found.items()}


def test_an_error_that_lasts_costs_the_stated_numbers(x64, chain):
    """Set-up 1 to its digits, in both variants: cloning knows nothing of where its error leads."""
    for (horizon, _), (found, _) in chain.items():
        gap = found[0][0]
        closed = np.sum(1 - (1 - EPSILON) ** np.arange(1, horizon + 1))
        np.testing.assert_allclose(gap, closed, rtol=1e-10)
        assert abs(gap - EPSILON * horizon**2 / 2) > 1e-3  # its small-ε limit is told apart
    for horizon, stated in STATED.items():
        # Within 0.6 of their last digit: 1.01749 is stated as 1.018.
        assert abs(exact.compounding_cost(EPSILON, horizon) - stated) < (0.0006 if horizon < 100 else 0.006)


def test_dagger_removes_the_square_only_where_the_expert_recovers(chain):
    """Round 2 has seen the states off the road: ε T where an error can be mended, no gain where it cannot."""
    for horizon in HORIZONS:
        recoverable, lasting = chain[horizon, True], chain[horizon, False]
        np.testing.assert_allclose(recoverable[0][1][0], EPSILON * horizon, rtol=1e-10)
        np.testing.assert_allclose(lasting[0][1][0], lasting[0][0][0], rtol=1e-10)
        np.testing.assert_allclose([recoverable[1], lasting[1]], [1.0, horizon], atol=1e-10)
    short = (10, 50)
    gaps = lambda recoverable, round_: [chain[h, recoverable][0][round_][0] for h in short]
    assert 1.85 < log_slope(short, gaps(True, 0)) < 2.0
    assert log_slope(short, gaps(True, 1)) == pytest.approx(1.0, abs=1e-9)
    assert log_slope(short, gaps(False, 1)) == pytest.approx(log_slope(short, gaps(False, 0)), abs=1e-9)


def test_bounds_on_the_chain(chain):
    """BC: T² ε with ε on the expert's states, and T ε is no bound. DAgger: u T ε with ε on the learner's own."""
    for (horizon, _), (found, recovery) in chain.items():
        (cloned, errors), (interactive, later) = found
        np.testing.assert_allclose(errors.expert_error, EPSILON, rtol=1e-10)
        assert cloned <= horizon**2 * errors.expert_error
        assert cloned > 2 * horizon * errors.expert_error
        assert interactive <= recovery * horizon * later.learner_error + 1e-12


def test_errors_are_split_by_what_the_expert_knows(chain):
    for (horizon, _), ((cloned, interactive), _) in chain.items():
        errors = cloned[1]
        off = np.sum(1 - (1 - EPSILON) ** np.arange(horizon)) / horizon
        np.testing.assert_allclose(errors.known_fraction, 1 - off, rtol=1e-10)
        np.testing.assert_allclose([errors.known_error, errors.unknown_error], [EPSILON, 1.0], rtol=1e-10)
        np.testing.assert_allclose(errors.learner_error, (1 - off) * EPSILON + off, rtol=1e-10)
        np.testing.assert_allclose([errors.learner_steps, errors.expert_steps], horizon)
        # The learner that has seen both states errs with ε in either: its own error is then what a test would show.
        np.testing.assert_allclose(interactive[1].learner_error, EPSILON, rtol=1e-10)


def test_bounds_on_random_problems(x64, random_mdp):
    """T² ε and u Σ_t E e_t for 100 random problems with rewards in [0, 1] and an optimal, deterministic expert."""
    rng = np.random.default_rng(0)

    def one(rewards, successors, error):
        mdp = dataclasses.replace(random_mdp, rewards=rewards, successors=successors, terminal=jnp.zeros(6, bool))
        expert = jax.nn.one_hot(jnp.argmax(exact.optimal_action_values(mdp), axis=-1), 3, dtype=rewards.dtype)
        learner = exact.with_errors(expert, error)
        errors = exact.imitation_errors(mdp, expert, learner)
        return exact.regret(mdp, expert, learner), errors, exact.recovery_cost(mdp, expert)

    shape = (100, *random_mdp.rewards.shape)
    gap, errors, recovery = jax.jit(jax.vmap(one))(
        rng.uniform(size=shape), rng.integers(0, 6, shape).astype(np.int32), rng.uniform(size=(100, 7, 6)) ** 4
    )
    assert np.all(gap > 0)
    assert np.all(gap <= 49 * errors.expert_error + 1e-12)
    assert np.all(gap <= recovery * 7 * errors.learner_error + 1e-12)
    assert np.max(gap / (recovery * 7 * errors.learner_error)) > 0.3  # not idle


def test_label_counts(x64, random_mdp):
    """Expected counts are N d_t(s) π*(a|s) whoever acts; the twin that labels with the acting policy is seen."""
    mdp = random_mdp
    expert, acting = random_table(1, mdp, False), random_table(2, mdp, True)
    number = 20_000
    counts = np.asarray(exact.label_counts(jax.random.key(3), mdp, acting, expert, number))
    visits = _visits(mdp, np.asarray(acting))
    expected = number * visits[..., None] * np.asarray(expert)
    z = lambda expected: np.abs(counts - expected) / np.sqrt(np.maximum(expected * (1 - expected / number), 1.0))
    assert z(expected).max() < 4.5
    assert z(number * visits[..., None] * np.asarray(acting)).max() > 20
    assert counts[:, np.asarray(mdp.terminal)].sum() == 0


def test_answers_may_come_from_another_table(x64, random_mdp):
    """By default they are the expert's. Another's answers are learned where the expert acts, and move nobody."""
    mdp, betas = random_mdp, np.ones(2)
    expert, sure = random_table(1, mdp, False), jnp.broadcast_to(jnp.eye(3)[2], (6, 3))
    run = lambda **options: exact.tabular_dagger(jax.random.key(0), mdp, expert, betas, 50, pooled=True, **options)
    default, asked = run(), jax.jit(lambda labels: run(labels=labels))
    np.testing.assert_allclose(asked(expert), default, atol=1e-15)
    found = np.asarray(asked(sure))
    # A state that is never met stays uniform; met are those of the expert's walk, whoever answers.
    met = np.asarray(jnp.any(default != 1 / 3, axis=-1))
    assert met[1].sum() == 5
    np.testing.assert_allclose(found, np.where(met[..., None], np.asarray(sure), 1 / 3), atol=1e-12)
    with pytest.raises(ValueError, match="labels must have the shape"):
        run(labels=sure[:4])


def _visits(mdp, table):
    """d_t(s) by a plain loop."""
    alive, rows = np.asarray(mdp.initial), []
    for probabilities in table:
        rows.append(alive)
        flow = alive[:, None, None] * probabilities[..., None] * np.asarray(mdp.probabilities)
        alive = np.zeros_like(alive)
        np.add.at(alive, np.asarray(mdp.successors), flow)
        alive = np.where(mdp.terminal, 0.0, alive)
    return np.stack(rows)


def test_maximum_likelihood_is_the_frequencies(x64):
    """The gradient of the likelihood at the cloned table's logits is zero, and only there."""
    counts = jax.random.randint(jax.random.key(0), (3, 4, 2), 1, 9).astype(float)
    likelihood = lambda logits: jnp.sum(counts * jax.nn.log_softmax(logits))
    table = exact.cloned_probabilities(counts)
    np.testing.assert_allclose(table, counts / counts.sum(-1, keepdims=True), atol=1e-15)
    np.testing.assert_allclose(jax.grad(likelihood)(jnp.log(table)), 0.0, atol=1e-12)
    smoothed = (counts + 1) / (counts + 1).sum(-1, keepdims=True)
    assert np.abs(jax.grad(likelihood)(jnp.log(smoothed))).max() > 0.01
    np.testing.assert_allclose(exact.cloned_probabilities(jnp.zeros((3, 4, 2))), 0.5)
