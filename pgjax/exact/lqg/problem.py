"""The linear-quadratic-Gaussian problem, its policies, and the point mass of Tucker et al. (2018).

X_{t+1} = A X_t + B A_t + W_t with W_t ~ N(0, Σ_W), and R_{t+1} = −(X_tᵀ Q X_t + A_tᵀ R A_t). The reward after A_t
depends on the state in which A_t was taken, so X_T has no reward. Episodes last exactly T steps.

Axes: T time (the horizon), D state, A action.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from pgjax._checks import is_traced, require_in_range, require_integer
from pgjax._doors import readable


@dataclasses.dataclass(frozen=True, eq=False)
class LinearGaussian:
    """A linear-quadratic-Gaussian problem; build it with `make_linear_gaussian`, which checks it.

    A pytree: the arrays and the discount are leaves, `horizon` is static.

    Attributes:
        transition: A, `[D, D]`.
        control: B, `[D, A]`.
        state_cost: Q, symmetric `[D, D]`.
        action_cost: R, symmetric `[A, A]`.
        initial_mean, initial_covariance: of X_0 ~ N(m_0, S_0), `[D]` and `[D, D]`.
        noise_covariance: Σ_W of each transition, `[D, D]`; may be singular or zero.
        discount: γ in [0, 1] of every value and return; the rewards themselves are not discounted.
        horizon: T.
    """

    transition: jax.Array
    control: jax.Array
    state_cost: jax.Array
    action_cost: jax.Array
    initial_mean: jax.Array
    initial_covariance: jax.Array
    noise_covariance: jax.Array
    discount: jax.Array
    horizon: int

    @property
    def state_size(self) -> int:
        return self.control.shape[0]

    @property
    def action_size(self) -> int:
        return self.control.shape[1]


_ARRAYS = tuple(field.name for field in dataclasses.fields(LinearGaussian) if field.name != "horizon")
jax.tree_util.register_dataclass(LinearGaussian, data_fields=list(_ARRAYS), meta_fields=["horizon"])


class LinearGaussianPolicy(NamedTuple):
    """A_t ~ N(K_t X_t + μ_t, Σ_π); if all gains are 0 it is an open-loop policy. The gradient of ρ has the same fields.

    Attributes:
        means: μ_t, `[T, A]`.
        gains: K_t, `[T, A, D]`.
        covariance: Σ_π, `[A, A]`, positive definite.
    """

    means: jax.Array
    gains: jax.Array
    covariance: jax.Array


@readable
def make_linear_gaussian(*, horizon: int, **arrays: ArrayLike) -> LinearGaussian:
    """A checked `LinearGaussian`; the arguments are its attributes, and arrays get JAX's default float type.

    Raises:
        ValueError: for a missing or unknown attribute, shapes that do not fit, a cost or covariance that is not
            symmetric, a covariance with a negative eigenvalue, a discount outside [0, 1], a horizon below 1.
    """
    if set(arrays) != set(_ARRAYS):
        wrong = sorted(set(arrays) ^ set(_ARRAYS))
        raise ValueError(
            f"the arguments must be {', '.join(_ARRAYS)} and horizon; missing or unknown: {', '.join(wrong)}"
        )
    require_integer("horizon", horizon, 1, None)
    require_in_range("discount", arrays["discount"], 0.0, 1.0)
    problem = LinearGaussian(**{name: jnp.asarray(x, float) for name, x in arrays.items()}, horizon=horizon)
    if problem.control.ndim != 2:
        raise ValueError(f"control has shape {problem.control.shape}, must be [D, A]")
    states, actions = problem.control.shape
    shapes = dict.fromkeys(("transition", "state_cost", "initial_covariance", "noise_covariance"), (states, states))
    shapes |= {"action_cost": (actions, actions), "initial_mean": (states,), "discount": ()}
    for name, shape in shapes.items():
        if getattr(problem, name).shape != shape:
            raise ValueError(f"{name} has shape {getattr(problem, name).shape}, must be {shape} as control")
    for name in ("state_cost", "action_cost", "initial_covariance", "noise_covariance"):
        _check_symmetric(name, getattr(problem, name), positive=name.endswith("covariance"))
    return problem


def _check_symmetric(name: str, matrix: jax.Array, positive: bool) -> None:
    if is_traced(matrix):
        return
    values = np.asarray(matrix, np.float64)
    size = np.abs(values).max(initial=0.0)
    if not np.all(np.isfinite(values)) or np.abs(values - values.T).max(initial=0.0) > 1e-6 * size:
        raise ValueError(f"{name} must be finite and symmetric, got {values.tolist()}")
    if positive and np.linalg.eigvalsh(values).min() < -1e-6 * size:
        raise ValueError(f"{name} has the eigenvalue {np.linalg.eigvalsh(values).min():.3g}, must not be negative")


@readable
def linear_gaussian_policy(
    problem: LinearGaussian, means: ArrayLike, covariance: ArrayLike, gains: ArrayLike = 0.0
) -> LinearGaussianPolicy:
    """A_t ~ N(K_t X_t + μ_t, Σ_π) for `problem`; μ and K broadcast to `[T, A]` and `[T, A, D]`, Σ_π is `[A, A]`.

    Raises:
        ValueError: for shapes that do not broadcast, or a covariance that is not symmetric and positive definite.
    """
    steps, actions, states = problem.horizon, problem.action_size, problem.state_size
    shapes = {"means": (steps, actions), "gains": (steps, actions, states), "covariance": (actions, actions)}
    given = {"means": means, "gains": gains, "covariance": covariance}
    given = {name: jnp.asarray(x, problem.control.dtype) for name, x in given.items()}
    if given["covariance"].shape != shapes["covariance"]:
        raise ValueError(f"covariance has shape {given['covariance'].shape}, must be {shapes['covariance']}")
    _check_symmetric("covariance", given["covariance"], positive=True)
    return LinearGaussianPolicy(**{name: jnp.broadcast_to(given[name], shape) for name, shape in shapes.items()})


@readable
def point_mass(horizon: int = 100) -> LinearGaussian:
    """A point of mass 1 in the plane that a force A pushes towards the origin, X = (x, y, ẋ, ẏ).

    Steps of .05 by Euler's rule, Q = I, R = .01 I, γ = .99, X_0 ~ N((3, 4, .5, −.5), 10⁻⁵ I), Σ_W = 10⁻⁵ I. The paper's
    first policy for it is open-loop with Σ_π = 10⁻⁴ I and means μ_t ~ N(0, .3 I), where .3 is the variance.

    Source: Tucker et al. (2018, The mirage of action-dependent baselines), section 3.1 and their released code.
    """
    step, identity, zero = 0.05, np.eye(2), np.zeros((2, 2))
    return make_linear_gaussian(
        transition=np.block([[identity, step * identity], [zero, identity]]),
        control=np.concatenate([zero, step * identity]),
        state_cost=np.eye(4),
        action_cost=0.01 * identity,
        initial_mean=np.array([3.0, 4.0, 0.5, -0.5]),
        initial_covariance=1e-5 * np.eye(4),
        noise_covariance=1e-5 * np.eye(4),
        discount=0.99,
        horizon=horizon,
    )
