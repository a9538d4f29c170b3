"""(a) The mean of low-precision estimates over all trajectories of a small problem, beside the exact gradient.

Axes: N trajectories, P parameters, K policies.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from experiments.shared import problems
from pgjax import baselines, estimators, exact, networks
from pgjax.types import Policy, PyTree

HIDDEN = (16, 16)
# The weights of the estimator. v is the exact value of the first step, a table that no precision changes.
ESTIMATORS = ("Gₜ", "Gₜ − v(Xₜ)")


class Bias(NamedTuple):
    """The error of the mean estimate in one precision, for each of K policies, `[K]` each.

    Attributes:
        same: ‖E ĝ − ∇ρ‖ / ‖∇ρ‖ where the float64 policy plays the episodes.
        own: the same where the policy plays them in its own precision, as in a training.
        own_angle: 1 − cosine of that mean with ∇ρ.
    """

    same: np.ndarray
    own: np.ndarray
    own_angle: np.ndarray


def measure(name: str, count: int, seed: int) -> dict[tuple[str, str], Bias]:
    """(estimator, precision) → bias of the estimator for `count` random policies; `float64` is a control."""
    with jax.enable_x64(True):
        mdp = problems.TABULAR[name]()
        every = exact.enumerate_trajectories(mdp)
        policy = networks.make_policy(exact.to_environment(mdp), hidden=HIDDEN)
        keys = jax.random.split(jax.random.key(seed), count)
        shape = jax.eval_shape(policy.init, keys[0], mdp.observations[0])
        flat_of = lambda key: 0.5 * jax.random.normal(key, (sum(x.size for x in jax.tree.leaves(shape)),), jnp.float32)
        _, restore = ravel_pytree(jax.tree.map(lambda x: jnp.zeros(x.shape, jnp.float32), shape))
        thetas = [restore(flat_of(key)) for key in keys]
        numbers = {
            word: jax.jit(functools.partial(_numbers, policy, word, every))
            for word in ("float64", *networks.PRECISIONS)
        }
        found = {word: [jax.device_get(number(theta)) for theta in thetas] for word, number in numbers.items()}
    gradients = [known["gradient"] for known in found["float64"]]
    probabilities = [known["probabilities"] for known in found["float64"]]
    return {
        (estimator, word): _bias(
            [one[estimator] for one in each], [one["probabilities"] for one in each], probabilities, gradients
        )
        for estimator in ESTIMATORS
        for word, each in found.items()
    }


def _numbers(policy: Policy, word: str, every: exact.Enumeration, params: PyTree) -> dict[str, jax.Array]:
    """Each estimator's estimate of each trajectory `[N, P]`, their probabilities `[N]`; in float64 also ∇ρ `[P]`."""
    wide = lambda tree: jax.tree.map(lambda x: x.astype(jnp.float64), tree)
    narrow = lambda x: x.astype(jnp.float32) if jnp.issubdtype(x.dtype, jnp.floating) else x
    made = policy if word == "float64" else networks.with_precision(policy, word)
    theta, episodes = (wide(params), every.trajectories) if word == "float64" else (
        params, jax.tree.map(narrow, every.trajectories)
    )  # fmt: skip
    logits = lambda theta, obs: made.apply(theta, obs if word == "float64" else narrow(obs)).astype(jnp.float64)
    table = exact.policy_probabilities(policy.apply, wide(params), every.mdp)
    values = exact.state_values(every.mdp, table)[0].astype(episodes.rewards.dtype)
    # Observations are one-hot, so that this is v(X_t).
    of_weights = {"Gₜ": baselines.none(), "Gₜ − v(Xₜ)": baselines.state_values(lambda obs: jnp.sum(obs * values, -1))}
    numbers = {"probabilities": exact.trajectory_probabilities(logits, theta, every)}
    for name, baseline in of_weights.items():
        estimator = estimators.make_estimator(made, returns=estimators.reward_to_go(), baseline=baseline)
        each = wide(estimator.episode_gradients(theta, estimator.init(jax.random.key(0), episodes), episodes))
        numbers[name] = jax.vmap(lambda tree: ravel_pytree(tree)[0])(each)
    if word == "float64":
        numbers["gradient"] = ravel_pytree(exact.exact_gradient(logits, theta, every.mdp))[0]
    return numbers


def _bias(
    estimates: list[np.ndarray], own_weights: list[np.ndarray], weights: list[np.ndarray], gradients: list[np.ndarray]
) -> Bias:
    numbers = []
    for each, of_own, of_exact, gradient in zip(estimates, own_weights, weights, gradients, strict=True):
        same, own = of_exact @ each, of_own @ each
        length = np.linalg.norm(gradient)
        # 1 − cosine as half the squared distance of unit vectors, which does not cancel.
        apart = own / np.linalg.norm(own) - gradient / length
        numbers.append(
            (np.linalg.norm(same - gradient) / length, np.linalg.norm(own - gradient) / length, apart @ apart / 2)
        )
    same, own, angle = np.array(numbers).T
    return Bias(same=same, own=own, own_angle=angle)
