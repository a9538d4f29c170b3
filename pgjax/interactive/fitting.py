"""What a learner does with the expert's answers: `(key, params, demonstrations) → params`.

Axes: N rows, S states, A actions.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from pgjax import imitation
from pgjax._checks import require_one_of
from pgjax.interactive.collecting import Demonstrations
from pgjax.training.fit import fit as minimise
from pgjax.types import Policy, PyTree

LOSSES = ("negative_log_likelihood", "cross_entropy", "squared_error")

Fit = Callable[[jax.Array, PyTree, Demonstrations], PyTree]


def table_fit(num_actions: int) -> Fit:
    """The maximum-likelihood table of a policy with logits `obs @ params` on one-hot observations: frequencies.

    θ(s, a) = ln(n(s, a) / Σ_b n(s, b)), 0 where s was never seen, and the logarithm of the smallest float for answers
    never given.
    """

    def fit(key: jax.Array, params: jax.Array, data: Demonstrations) -> jax.Array:
        del key
        answers = jax.nn.one_hot(data.actions, num_actions, dtype=params.dtype)
        counts = jnp.einsum("n,ns,na->sa", data.weights, data.obs, answers).astype(params.dtype)
        total = jnp.sum(counts, axis=1, keepdims=True)
        shares = jnp.where(total > 0, counts / jnp.where(total > 0, total, 1.0), 1.0 / num_actions)
        return jnp.log(jnp.maximum(shares, jnp.finfo(params.dtype).tiny))

    return fit


def gradient_fit(
    policy: Policy,
    optimizer: optax.GradientTransformation,
    *,
    num_epochs: int,
    batch_size: int,
    loss: str = "negative_log_likelihood",
    validation_fraction: float = 0.0,
    patience: int | None = None,
) -> Fit:
    """A fit by gradient descent, see `pgjax.training.fit`.

    Args:
        loss: `"negative_log_likelihood"` of the expert's actions, `"cross_entropy"` with its log-probabilities, or
            `"squared_error"` of the policy's mode; see `pgjax.imitation`.

    Raises:
        ValueError: for an unknown word, cross-entropy with an expert whose log-probabilities are unknown, or as `fit`.
    """
    require_one_of("loss", loss, LOSSES)

    def losses(params: PyTree, rows: dict[str, jax.Array]) -> jax.Array:
        outputs = jax.vmap(lambda obs: policy.apply(params, obs))(rows["obs"])
        if loss == "cross_entropy":
            return imitation.cross_entropy(jax.nn.log_softmax(outputs), rows["log_probs"])
        if loss == "squared_error":
            return imitation.squared_error(jax.vmap(policy.distribution.mode)(outputs), rows["actions"])
        return imitation.negative_log_likelihood(policy.distribution, outputs, rows["actions"])

    def fit(key: jax.Array, params: PyTree, data: Demonstrations) -> PyTree:
        rows = {"obs": data.obs, "actions": data.actions}
        if loss == "cross_entropy":
            if data.log_probs is None:
                raise ValueError("loss must not be 'cross_entropy': the expert's log-probabilities are not known")
            rows["log_probs"] = data.log_probs
        return minimise(
            key,
            params,
            losses,
            rows,
            optimizer,
            num_epochs=num_epochs,
            batch_size=batch_size,
            weights=data.weights,
            groups=data.groups,
            validation_fraction=validation_fraction,
            patience=patience,
        ).params

    return fit
