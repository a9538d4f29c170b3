"""Linear dynamics, quadratic rewards, Gaussian noise: values, gradients and variances in closed form.

`problem` has the record of such a problem. Every value below is a quadratic and every expectation a Gaussian moment of
quadratics, so nothing is sampled and nothing is approximated.

Axes: T time (the horizon), D state, A action, N = D + A (the state, then the action).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from pgjax._checks import require_in_range
from pgjax._doors import readable
from pgjax.exact.lqg.problem import LinearGaussian, LinearGaussianPolicy
from pgjax.exact.lqg.quadratics import Quadratic, averaged, combine, moment, substitute, variance


class LinearGaussianValues(NamedTuple):
    """Quadratics of the state x or of z = (x, a), one per time step, leading axis `[T]`.

    Attributes:
        state: V_t(x) = E[G_t | X_t = x].
        action: Q_t(x, a) = E[G_t | X_t = x, A_t = a].
        action_variance: Var[Ĝ_t | X_t = x, A_t = a].
        state_variance: Var[Ĝ_t | X_t = x].
    """

    state: Quadratic
    action: Quadratic
    action_variance: Quadratic
    state_variance: Quadratic


class LinearGaussianVariances(NamedTuple):
    """The terms of tr Var[ψ_t (Ĝ_t − b_t(X_t))], each `[T]`, as `linear_gaussian_variances` defines them.

    Attributes:
        trajectory: Σ_τ, from the future given (X_t, A_t).
        action: Σ_a⁰, from A_t given X_t, without a baseline.
        action_with_values: Σ_a^V, the same with b_t = V_t.
        state: Σ_s, from X_t.
        squared_mean: ‖E[ψ_t Ĝ_t]‖².
    """

    trajectory: jax.Array
    action: jax.Array
    action_with_values: jax.Array
    state: jax.Array
    squared_mean: jax.Array


@readable
def linear_gaussian_values(
    problem: LinearGaussian, policy: LinearGaussianPolicy, lambda_: ArrayLike = 1.0
) -> LinearGaussianValues:
    """V_t, Q_t and the variances of the return given X_t and (X_t, A_t), by one backward recursion of quadratics.

    Q_t(x, a) = −(xᵀQx + aᵀRa) + γ E V_{t+1}(X'),                 V_t(x) = E_a Q_t(x, a),     V_T = 0,
    U_t(x, a) = γ² {λ² E N_{t+1}(X') + Var V_{t+1}(X')},  N_t(x) = E_a U_t(x, a) + Var_a Q_t(x, a),  N_T = 0,

    with X' = A x + B a + W. U and N are the variances of Ĝ_t = R_{t+1} + γ [(1 − λ) V_{t+1}(X_{t+1}) + λ Ĝ_{t+1}], the
    λ-return with the exact V; λ = 1 is the Monte-Carlo return G_t. The discount of all of them counts from t.

    Raises:
        ValueError: for λ outside [0, 1].

    Source: the law of total variance; Sobel (1982) for the second moment of a return.
    """
    require_in_range("lambda_", lambda_, 0.0, 1.0)
    gamma, states = problem.discount, problem.state_size
    move = jnp.concatenate([problem.transition, problem.control], axis=1)
    cost = jax.scipy.linalg.block_diag(problem.state_cost, problem.action_cost)
    reward = Quadratic(matrix=-cost, vector=jnp.zeros_like(cost[0]), constant=jnp.zeros_like(gamma))
    own_noise = _padded(policy.covariance, states)
    noise = problem.noise_covariance

    def one_step_back(following: tuple[Quadratic, Quadratic], row: tuple[jax.Array, jax.Array]):
        v, spread = following
        q = combine((1.0, reward), (gamma, substitute(averaged(v, noise), move)))
        both = combine((lambda_**2, averaged(spread, noise)), (1.0, variance(v, noise)))
        u = combine((gamma**2, substitute(both, move)))
        gain, mean = row
        act, shift = jnp.concatenate([jnp.eye(states, dtype=gain.dtype), gain]), jnp.pad(mean, (states, 0))
        v = substitute(averaged(q, own_noise), act, shift)
        spread = substitute(combine((1.0, averaged(u, own_noise)), (1.0, variance(q, own_noise))), act, shift)
        return (v, spread), LinearGaussianValues(state=v, action=q, action_variance=u, state_variance=spread)

    zero = jax.tree.map(jnp.zeros_like, Quadratic(problem.transition, problem.initial_mean, gamma))
    return jax.lax.scan(one_step_back, (zero, zero), (policy.gains, policy.means), reverse=True)[1]


@readable
def linear_gaussian_states(problem: LinearGaussian, policy: LinearGaussianPolicy) -> tuple[jax.Array, jax.Array]:
    """Mean `[T, D]` and covariance `[T, D, D]` of X_t: m ← (A + BK) m + Bμ, S ← (A + BK) S (A + BK)ᵀ + BΣ_πBᵀ + Σ_W."""
    noise = problem.control @ policy.covariance @ problem.control.T + problem.noise_covariance

    def one_step_on(moments: tuple[jax.Array, jax.Array], row: tuple[jax.Array, jax.Array]):
        closed_loop = problem.transition + problem.control @ row[0]
        mean, covariance = moments
        following = closed_loop @ mean + problem.control @ row[1], closed_loop @ covariance @ closed_loop.T + noise
        return following, moments

    start = problem.initial_mean, problem.initial_covariance
    return jax.lax.scan(one_step_on, start, (policy.gains, policy.means))[1]


@readable
def linear_gaussian_objective(problem: LinearGaussian, policy: LinearGaussianPolicy) -> jax.Array:
    """ρ = E[Σ_t γᵗ R_{t+1}] = E V_0(X_0), a scalar."""
    start = jax.tree.map(lambda x: x[0], linear_gaussian_values(problem, policy).state)
    return moment(problem.initial_mean, problem.initial_covariance, start)


@readable
def linear_gaussian_gradient(problem: LinearGaussian, policy: LinearGaussianPolicy) -> LinearGaussianPolicy:
    """∇ρ with respect to μ, K and Σ_π, by differentiating the recursion; fields and shapes of the policy.

    ∇_{μ_t} ρ = γᵗ E[ψ_t G_t], ψ_t = ∇_{μ_t} ln π(A_t | X_t).
    """
    return jax.grad(linear_gaussian_objective, argnums=1)(problem, policy)


@readable
def linear_gaussian_variances(
    problem: LinearGaussian, policy: LinearGaussianPolicy, lambda_: ArrayLike = 1.0
) -> LinearGaussianVariances:
    """The variance of the one-step estimate ψ_t (Ĝ_t − b_t(X_t)) at each t, split by its sources, in closed form.

    ψ_t = ∇_{μ_t} ln π(A_t | X_t) = Σ_π⁻¹ (A_t − K_t X_t − μ_t), Ĝ_t the discounted return from t on (the λ-return of
    `linear_gaussian_values` for λ < 1), without a factor γᵗ. By the law of total variance, with traces throughout,

        Σ_τ = E[ tr Var(ψ_t (Ĝ_t − b_t) | X_t, A_t) ] = E[‖ψ_t‖² U_t(X_t, A_t)]
        Σ_a = E[ tr Var( E[ψ_t (Ĝ_t − b_t) | X_t, A_t] | X_t ) ] = E[‖ψ_t‖² (Q_t − b_t)²] − E‖h_t(X_t)‖²
        Σ_s = tr Var( E[ψ_t (Ĝ_t − b_t) | X_t] ) = tr Var(h_t(X_t)),   h_t(x) = E[ψ_t Q_t | X_t = x] = E_a ∇_a Q_t(x, a)

    where (X_t, A_t) has its marginal distribution at t under the policy: one step of one fresh episode, without an
    average over t. Given X_t only A_t varies in Σ_a; given (X_t, A_t) the noise and all later actions vary in Σ_τ. A
    baseline of the state changes Σ_a alone. The sum of the three terms is tr Var[ψ_t (Ĝ_t − b_t)]. On the point mass
    the error of each term in float32 is at most 2e-6.

    Raises:
        ValueError: for λ outside [0, 1].

    Source: Tucker et al. (2018), section 3; Isserlis' theorem for the moments.
    """
    values = linear_gaussian_values(problem, policy, lambda_)
    states, actions = problem.state_size, problem.action_size
    precision = jnp.linalg.inv(policy.covariance)
    zero = jnp.zeros(states + actions, precision.dtype)
    squared_score = Quadratic(matrix=_padded(precision @ precision, states), vector=zero, constant=zero[0])

    def terms(row: tuple) -> LinearGaussianVariances:
        (v, q, u, _), gain, mean, state_mean, state_covariance = row
        # In y = (x, ε) with a = K x + μ + ε, the score depends on ε alone and the two are independent.
        unmix = jnp.eye(states + actions, dtype=gain.dtype).at[states:, :states].set(gain)
        shift = jnp.pad(mean, (states, 0))
        q_y, u_y, v_y = substitute(q, unmix, shift), substitute(u, unmix, shift), substitute(v, unmix[:states])
        where = jnp.pad(state_mean, (0, actions)), jax.scipy.linalg.block_diag(state_covariance, policy.covariance)
        advantage = combine((1.0, q_y), (-1.0, v_y))
        slope = 2.0 * q.matrix[states:] @ unmix[:, :states]
        expected = slope @ state_mean + 2.0 * q.matrix[states:, states:] @ mean + q.vector[states:]
        state, squared_mean = jnp.trace(slope @ state_covariance @ slope.T), jnp.sum(expected**2)
        return LinearGaussianVariances(
            trajectory=moment(*where, squared_score, u_y),
            action=moment(*where, squared_score, q_y, q_y) - state - squared_mean,
            action_with_values=moment(*where, squared_score, advantage, advantage) - state - squared_mean,
            state=state,
            squared_mean=squared_mean,
        )

    rows = (tuple(values), policy.gains, policy.means, *linear_gaussian_states(problem, policy))
    return jax.vmap(terms)(rows)


def _padded(matrix: jax.Array, states: int) -> jax.Array:
    """The covariance of (0, ε), `[N, N]`."""
    return jnp.pad(matrix, ((states, 0), (states, 0)))
