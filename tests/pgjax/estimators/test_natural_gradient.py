"""Natural gradients against dense solves by hand, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from closeness import close
from enumerated import Problem
from policies import TABULAR, tabular

from pgjax import baselines, estimators, exact
from pgjax.types import Policy

pytestmark = pytest.mark.usefixtures("float64")

PLAIN = estimators.make_estimator(TABULAR, baseline=baselines.constant(0.4))


@pytest.fixture(scope="module")
def problem():
    with jax.enable_x64(True):
        yield Problem()


def information(table, visits):
    """Σ_s d(s) Σ_a π ψ ψᵀ of a softmax table, `[S A, S A]`: block by block d (diag π − π πᵀ)."""
    size = table.shape[1]
    matrix = np.zeros((table.size, table.size))
    for s, p in enumerate(np.asarray(table)):
        block = slice(s * size, (s + 1) * size)
        matrix[block, block] = visits[s] * (np.diag(p) - np.outer(p, p))
    return matrix


def of_batch(problem):
    visits = np.asarray(problem.batch.obs)[np.asarray(problem.batch.alive)].sum(axis=0)
    return information(problem.table, visits / problem.batch.rewards.shape[1])


def of_episode(problem):
    return information(problem.table, problem.visits.sum(axis=0))


def test_products_are_those_of_the_batch_and_of_the_episode(problem):
    vector = jax.random.normal(jax.random.key(2), (3, 2))
    product = lambda trajectory: estimators.fisher_vector_product(TABULAR, problem.params, trajectory, vector)
    got = jax.jit(product)(problem.batch)
    close(got.ravel(), of_batch(problem) @ vector.ravel())
    mean = exact.estimator_moments(product, problem.enumeration, problem.probabilities, 1).mean
    close(mean.ravel(), of_episode(problem) @ vector.ravel())
    # A mean over steps instead of their sum would be smaller by the mean length.
    assert 1.5 < float(problem.visits.sum()) < 3


@pytest.fixture(scope="module")
def solved():
    """By conjugate gradients, and the episodes' plain gradients; one compilation for every damping."""

    @jax.jit
    def run(params, batch, damping):
        natural = estimators.natural(PLAIN, TABULAR, damping=damping, rows_per_piece=64)
        each = natural.episode_gradients(params, (), batch)
        return *natural.gradient(params, (), batch), each, PLAIN.episode_gradients(params, (), batch)

    return run


@pytest.mark.parametrize("damping", [0.0, 0.1])
def test_conjugate_gradients_are_the_dense_solution(problem, solved, damping):
    estimate, _, metrics, each, plain_each = jax.device_get(solved(problem.params, problem.batch, damping))
    inverse = np.linalg.pinv(of_batch(problem) + damping * np.eye(6), hermitian=True)
    wanted = np.asarray(plain_each).reshape(-1, 6) @ inverse
    close(each.reshape(-1, 6), wanted)
    close(estimate.ravel(), wanted.mean(axis=0))
    assert metrics["natural_residual"] < 1e-10 and "entropy" in metrics
    assert np.abs(wanted.mean(axis=0) - plain_each.mean(axis=0).ravel()).max() > 0.1


def test_too_few_iterations_are_seen_in_the_residual(problem):
    one = estimators.natural(PLAIN, TABULAR, iterations=1)
    _, _, metrics = jax.jit(one.gradient)(problem.params, (), problem.batch)
    assert metrics["natural_residual"] > 1e-2


@pytest.mark.parametrize("damping", [0.0, 0.1])
def test_with_the_exact_information_it_is_unbiased(problem, damping):
    exactly = jnp.asarray(of_episode(problem))
    natural = estimators.natural(PLAIN, TABULAR, damping=damping, fisher=lambda params: exactly)
    each = problem.each({"natural": natural}, checked=())["natural"]
    wanted = np.linalg.pinv(of_episode(problem) + damping * np.eye(6), hermitian=True) @ problem.gradient.ravel()
    close(problem.mean(each).ravel(), wanted)


def bandit():
    return exact.make_tabular_mdp(
        initial=[1.0, 0.0],
        successors=np.ones((2, 3, 1), int),
        probabilities=np.ones((2, 3, 1)),
        rewards=np.array([[1.0, 0.7, 0.0]] * 2)[..., None],
        terminal=[False, True],
        observations=[[1.0], [0.0]],
        horizon=1,
    )


def test_on_a_bandit_it_is_the_advantage():
    """F⁺ ∇ρ = A − mean A, and a step α gives π exp(α A) / Z; the vanilla gradient does not."""
    mdp, alpha = bandit(), 0.8
    params = jnp.asarray([[0.0, 1.0, 2.0]])
    enumeration = exact.enumerate_trajectories(mdp)
    table = np.asarray(exact.policy_probabilities(tabular, params, mdp))[0]
    fisher = lambda params: jnp.asarray(information(table[None], np.ones(1)))
    vanilla = estimators.make_estimator(TABULAR)
    natural = estimators.natural(vanilla, TABULAR, fisher=fisher)
    closed = estimators.natural(vanilla, TABULAR, solve=estimators.softmax_inverse_fisher)
    probabilities = exact.trajectory_probabilities(tabular, params, enumeration)

    @jax.jit
    def means(params, batch):
        found = [e.episode_gradients(params, (), batch) for e in (vanilla, natural, closed)]
        return found, [jnp.tensordot(probabilities, each, 1) for each in found[:2]], closed.gradient(params, (), batch)

    found, (by_vanilla, by_natural), whole = means(params, enumeration.trajectories)
    each, metrics = found[2], whole[2]
    close(each, found[1], atol=1e-12)
    close(whole[0], jnp.mean(found[1], axis=0), atol=1e-12)
    # As printed: w (e_a − 1/A) / π_a; with e_a − π in the place of e_a − 1/A it is no solution of F x = ∇ρ̂.
    arms = np.asarray(enumeration.trajectories.actions)[0]
    weights = np.array([1.0, 0.7, 0.0])[arms] / table[arms]
    close(each[:, 0], weights[:, None] * (np.eye(3)[arms] - 1 / 3))
    assert np.abs(each[:, 0] - weights[:, None] * (np.eye(3)[arms] - table)).max() > 0.1
    assert "natural_residual" not in metrics
    rewards = np.array([1.0, 0.7, 0.0])
    advantages = rewards - table @ rewards
    close(by_natural[0], advantages - advantages.mean())
    wanted = table * np.exp(alpha * advantages)
    after = lambda direction: jax.nn.softmax((params + alpha * direction)[0])
    close(after(by_natural), wanted / wanted.sum())
    assert np.abs(after(by_vanilla) - wanted / wanted.sum()).max() > 0.01


def test_softmax_tables_are_solved_row_by_row():
    """Each row by the pseudo-inverse of its own diag π − π πᵀ; a mean over all rows would mix the states."""
    logits, weights = jax.random.normal(jax.random.key(5), (2, 3, 4))
    table = jax.nn.softmax(logits)
    gradient = weights * table - table * jnp.sum(weights * table, axis=1, keepdims=True)
    wanted = [np.linalg.pinv(information(row[None], np.ones(1)), hermitian=True) @ g for row, g in zip(table, gradient)]
    close(estimators.softmax_inverse_fisher(logits, gradient), np.stack(wanted))


def test_the_change_of_the_policy_does_not_depend_on_the_parameters(problem, solved):
    """θ = M φ: M δφ moves every probability as δθ does; the vanilla M Mᵀ ∇ρ does not."""
    mixing = jnp.eye(6) + 0.4 * jax.random.normal(jax.random.key(4), (6, 6))
    to_theta = lambda phi: (mixing @ phi["phi"]).reshape(3, 2)
    mixed = Policy(
        init=lambda key, obs: {"phi": jnp.zeros(6)},
        apply=lambda phi, obs: tabular(to_theta(phi), obs),
        distribution=TABULAR.distribution,
    )
    phi = {"phi": jnp.linalg.solve(mixing, problem.params.ravel())}

    def change(direction):
        log_probs = lambda theta: jax.nn.log_softmax(problem.mdp.observations[:2] @ theta)
        return jax.jvp(log_probs, (problem.params,), (direction,))[1]

    @jax.jit
    def directions(phi, batch):
        in_phi = estimators.make_estimator(mixed, baseline=baselines.constant(0.4))
        plain = in_phi.gradient(phi, (), batch)[0]
        return to_theta(plain), to_theta(estimators.natural(in_phi, mixed).gradient(phi, (), batch)[0])

    ours, _, _, _, plain_each = solved(problem.params, problem.batch, 0.0)
    theirs_plain, theirs = directions(phi, problem.batch)
    close(change(theirs), change(ours), atol=1e-9)
    assert np.abs(change(theirs_plain) - change(jnp.mean(plain_each, axis=0))).max() > 0.05


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"damping": -1.0}, "damping.*-1"),
        ({"iterations": 0}, "iterations.*0"),
        ({"damping": 0.1, "solve": estimators.softmax_inverse_fisher}, "solve must be given without"),
        ({"fisher": jnp.diag, "solve": estimators.softmax_inverse_fisher}, "solve must be given without"),
    ],
)
def test_bad_arguments_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        estimators.natural(PLAIN, TABULAR, **options)
