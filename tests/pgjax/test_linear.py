"""Solutions of symmetric systems against NumPy's in float64, in the float32 that trains."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pgjax._linear import conjugate_gradients, pseudo_inverse, pseudo_inverse_of_rows


def information(table, visits):
    """Σ_s d(s) (diag π − π πᵀ) of a softmax table, `[S A, S A]`."""
    size = table.shape[1]
    matrix = np.zeros((table.size, table.size))
    for s, p in enumerate(table):
        block = slice(s * size, (s + 1) * size)
        matrix[block, block] = visits[s] * (np.diag(p) - np.outer(p, p))
    return matrix


def problem(visits, num_actions=3, seed=0):
    """F, a gradient F y, and the shortest x with F x = F y."""
    rng = np.random.default_rng(seed)
    matrix = information(rng.dirichlet(np.ones(num_actions), len(visits)), visits)
    gradient = matrix @ rng.normal(size=len(matrix))
    return matrix, gradient, np.linalg.pinv(matrix, rcond=1e-14, hermitian=True) @ gradient


@pytest.mark.parametrize("visits", [(1.0, 1e-6), (1.0, 0.3, 1e-4, 1e-8), (1.0, 0.0, 1e-6), (3e9, 2.0), (1e-12, 1e-15)])
def test_a_state_that_is_rarely_visited_is_solved_as_well_as_the_others(visits):
    """A cutoff relative to the largest eigenvalue, the wrong twin, takes 10⁻⁶ for nothing in float32."""
    matrix, gradient, wanted = problem(visits)
    single = jnp.asarray(matrix, jnp.float32)
    inverse = jax.jit(pseudo_inverse)(single)
    np.testing.assert_allclose(inverse @ gradient.astype(np.float32), wanted, atol=5e-4)
    eigenvalues, vectors = np.linalg.eigh(np.asarray(single))
    kept = eigenvalues > 10 * len(matrix) * np.finfo(np.float32).eps * eigenvalues.max()
    twin = (vectors * np.where(kept, 1 / np.where(kept, eigenvalues, 1), 0)) @ vectors.T
    assert np.abs(twin @ gradient - wanted).max() > 0.1


@pytest.mark.parametrize("damping", [0.0, 1e-3, 10.0])
def test_the_pseudo_inverse_is_moore_and_penroses(damping):
    """Also where null directions are no block of their own: (F + c I)⁻¹ on the range of F, 0 beside it."""
    factor = np.random.default_rng(1).normal(size=(6, 3)) * np.array([[1], [1], [1e-2], [1], [10], [1]])
    matrix = factor @ factor.T
    eigenvalues, vectors = np.linalg.eigh(matrix)
    kept = eigenvalues > 1e-10 * eigenvalues.max()
    wanted = (vectors[:, kept] / (eigenvalues[kept] + damping)) @ vectors[:, kept].T
    with jax.enable_x64(True):
        np.testing.assert_allclose(jax.jit(pseudo_inverse)(matrix, damping), wanted, rtol=0, atol=1e-11)


@pytest.mark.parametrize("damping", [0.0, 1e-3, 10.0])
def test_few_rows_have_the_pseudo_inverse_of_their_sum_of_squares(damping):
    """Rows that depend on each other or differ in length, a row and columns of zeros. Sums of squares know less."""
    rng = np.random.default_rng(2)
    rows = rng.normal(size=(6, 40)) * np.array([[1], [1e-3], [1], [10], [0], [1]])
    rows[5] = rows[0] - 2.0 * rows[2]
    rows[:, 7:10] = 0.0
    _, singular, vectors = np.linalg.svd(rows, full_matrices=False)
    kept = singular > 1e-9
    wanted = (vectors[kept].T / (singular[kept] ** 2 + damping)) @ vectors[kept]
    with jax.enable_x64(True):
        basis, inverse = map(np.asarray, jax.jit(pseudo_inverse_of_rows)(jnp.asarray(rows), damping))
        whole = np.asarray(jax.jit(pseudo_inverse)(rows.T @ rows, damping))
    assert basis.shape == (40, 6) and inverse.shape == (6, 6)
    np.testing.assert_allclose(basis @ inverse @ basis.T, wanted, rtol=0, atol=1e-12 * np.abs(wanted).max())
    assert np.abs(whole - wanted).max() > 1e-10 * np.abs(wanted).max()


def test_nothing_has_the_inverse_nothing():
    inverse = jax.jit(pseudo_inverse)
    np.testing.assert_array_equal(inverse(np.zeros((3, 3), np.float32)), 0.0)
    np.testing.assert_array_equal(jax.jit(pseudo_inverse_of_rows)(np.zeros((2, 3), np.float32))[1], 0.0)
    found = inverse(np.diag(np.float32([2.0, 0.0, 4.0])))
    np.testing.assert_allclose(found, np.diag([0.5, 0.0, 0.25]), rtol=1e-6)


def rare_arm(seed, num_actions=10):
    """One state; π from 10⁻⁴ to 1, whose smallest is 10⁻⁴; π and the gradient in float32, and the shortest solution."""
    rng = np.random.default_rng(seed)
    p = np.exp(rng.uniform(np.log(1e-4), 0.0, num_actions))
    p[0] = 1e-4
    p /= p.sum()
    gradient = p * (advantage := rng.normal(size=num_actions)) - p * (p @ advantage)
    single = p.astype(np.float32)
    wanted = np.linalg.pinv(np.diag(p) - np.outer(p, p), hermitian=True) @ gradient
    return single, gradient.astype(np.float32), wanted


def of_covariance(p):
    """v ↦ (diag p − p pᵀ) v."""
    return lambda v: p * (v - p @ v)


conjugate = jax.jit(lambda p, g: conjugate_gradients(of_covariance(p), g, 40))


@functools.partial(jax.jit, static_argnames="tol")
def of_jax(p, g, tol):
    """The solution by the conjugate gradients of JAX, which stop by the residual alone."""
    return jax.scipy.sparse.linalg.cg(of_covariance(p), g, tol=tol, maxiter=40)[0]


def error(x, wanted):
    return np.linalg.norm(np.asarray(x) - wanted) / np.linalg.norm(wanted)


def test_more_iterations_do_not_spoil_the_solution():
    """Without a stop the later of 40 directions lie in the null space, and the error grows to 10² times x."""
    errors, endless = [], []
    for seed in range(20):
        p, gradient, wanted = rare_arm(seed)
        errors.append(error(conjugate(p, gradient), wanted))
        endless.append(error(of_jax(p, gradient, tol=0.0), wanted))
    assert np.median(errors) < 1e-3 and np.max(errors) < 0.02
    assert np.median(endless) > 0.1


def test_a_gradient_with_rounding_in_the_null_space_is_solved_as_far_as_it_goes():
    """10⁻⁶ of the gradient along (1, …, 1), as float32 sums leave it: the residual cannot say when to stop."""
    errors, by_residual = [], []
    for seed in range(20):
        p, gradient, wanted = rare_arm(seed)
        noisy = gradient + np.float32(3e-6 * np.linalg.norm(gradient) / gradient.size**0.5)
        errors.append(error(conjugate(p, noisy), wanted))
        by_residual.append(error(of_jax(p, noisy, tol=1.2e-6), wanted))
    assert np.median(errors) < 0.05 and np.max(errors) < 1.0
    assert np.median(by_residual) > 1.0


@pytest.mark.parametrize("unit", [1e-25, 1.0, 1e19])
def test_conjugate_gradients_do_not_ask_for_the_unit(unit):
    p, gradient, wanted = rare_arm(1)
    assert error(conjugate(p, gradient * np.float32(unit)) / unit, wanted) < 5e-3
    np.testing.assert_array_equal(conjugate(p, np.zeros(10, np.float32)), 0.0)


def test_as_many_iterations_as_distinct_eigenvalues_are_exact():
    """And one fewer is not; batches of systems are solved one by one."""
    with jax.enable_x64(True):
        diagonal = jnp.asarray([1.0, 2.0, 2.0, 5.0, 0.0])
        targets = jnp.asarray([[1.0, 1.0, 3.0, 2.0, 0.0], [4.0, 2.0, 6.0, 5.0, 0.0]])
        wanted = np.where(diagonal > 0, targets / np.where(diagonal > 0, diagonal, 1.0), 0.0)
        solve = lambda n: jax.jit(jax.vmap(lambda g: conjugate_gradients(lambda v: diagonal * v, g, n)))(targets)
        np.testing.assert_allclose(solve(3), wanted, rtol=1e-12)
        assert np.abs(solve(2) - wanted).max() > 0.01
