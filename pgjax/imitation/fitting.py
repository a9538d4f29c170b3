"""Fits of a learner to the expert's answers: functions `(key, params, demonstrations) → params`.

Axes: N rows, S states, A actions.
"""

from collections.abc import Callable
from typing import Literal, get_args

import jax
import jax.numpy as jnp
import optax

from pgjax._checks import require_one_of
from pgjax._doors import readable
from pgjax.acting import require_memoryless
from pgjax.imitation import cloning_losses
from pgjax.imitation.collecting import Demonstrations
from pgjax.training.fit import fit as minimise
from pgjax.types import Policy, PyTree

Divergence = Literal["cross_entropy", "forward_kl", "reverse_kl", "total_variation"]
Loss = Literal["negative_log_likelihood", "squared_error", Divergence]
DIVERGENCES: dict[Divergence, Callable[[jax.Array, jax.Array], jax.Array]] = {
    "cross_entropy": cloning_losses.cross_entropy,
    "forward_kl": cloning_losses.forward_kl,
    "reverse_kl": cloning_losses.reverse_kl,
    "total_variation": cloning_losses.total_variation,
}

Fitter = Callable[[jax.Array, PyTree, Demonstrations], PyTree]


@readable
def table_fit(num_actions: int) -> Fitter:
    """The fit of a table by counting: maximum likelihood for logits `obs @ params` on one-hot observations.

    θ(s, a) = ln(n(s, a) / Σ_b n(s, b)). In a state that was never seen all actions have the same θ, and an answer that
    was never given has the logarithm of the smallest positive float.

    Example: in the only state the expert took action 0 three times and action 1 once.

        >>> import jax, jax.numpy as jnp
        >>> from pgjax import imitation
        >>> data = imitation.Demonstrations(obs=jnp.ones((4, 1)), actions=jnp.array([0, 0, 0, 1]), weights=jnp.ones(4),
        ...                                 groups=jnp.arange(4), log_probs=None)
        >>> theta = imitation.table_fit(num_actions=2)(jax.random.key(0), jnp.zeros((1, 2)), data)
        >>> [round(float(p), 3) for p in jnp.exp(theta)[0]]
        [0.75, 0.25]
    """

    def fit(key: jax.Array, params: jax.Array, data: Demonstrations) -> jax.Array:
        del key
        answers = jax.nn.one_hot(data.actions, num_actions, dtype=params.dtype)
        counts = jnp.einsum("n,ns,na->sa", data.weights, data.obs, answers).astype(params.dtype)
        total = jnp.sum(counts, axis=1, keepdims=True)
        shares = jnp.where(total > 0, counts / jnp.where(total > 0, total, 1.0), 1.0 / num_actions)
        return jnp.log(jnp.maximum(shares, jnp.finfo(params.dtype).tiny))

    return fit


@readable
def gradient_fit(
    policy: Policy,
    optimizer: optax.GradientTransformation,
    *,
    num_epochs: int,
    batch_size: int,
    loss: Loss = "negative_log_likelihood",
    validation_fraction: float = 0.0,
    patience: int | None = None,
) -> Fitter:
    """A fit by gradient descent; `training.fit` explains the other arguments and does the work.

    Args:
        policy: the learner; a loss on probabilities needs a policy whose outputs are logits of `categorical`.
        loss: a loss on the expert's actions, `"negative_log_likelihood"` or `"squared_error"` (of the policy's mode);
            or, if the expert knows its probabilities of discrete actions, a loss on these, `"cross_entropy"`,
            `"forward_kl"`, `"reverse_kl"` or `"total_variation"`. The functions of these names explain them.

    Raises:
        ValueError: for an unknown name, a loss on the probabilities of an expert that does not know them, or as `fit`.
        NonFiniteError: as `fit`; `"reverse_kl"` is infinite for an expert that gives an action probability 0.
    """
    apply = require_memoryless(policy, "imitation.gradient_fit")
    require_one_of("loss", loss, get_args(Loss))

    def losses(params: PyTree, rows: dict[str, jax.Array]) -> jax.Array:
        outputs = jax.vmap(lambda obs: apply(params, obs))(rows["obs"])
        if loss in DIVERGENCES:
            known = rows["log_probs"]
            known = jnp.where(known <= jnp.finfo(known.dtype).min, -jnp.inf, known)
            return DIVERGENCES[loss](jax.nn.log_softmax(outputs), known)
        if loss == "squared_error":
            return cloning_losses.squared_error(jax.vmap(policy.distribution.mode)(outputs), rows["actions"])
        return cloning_losses.negative_log_likelihood(policy.distribution, outputs, rows["actions"])

    def fit(key: jax.Array, params: PyTree, data: Demonstrations) -> PyTree:
        rows = {"obs": data.obs, "actions": data.actions}
        if loss in DIVERGENCES:
            if data.log_probs is None:
                raise ValueError(f"loss must not be {loss!r}: the expert's log-probabilities are not known")
            # `fit` refuses −∞ in the data, so the smallest float stands for probability 0.
            rows["log_probs"] = jnp.maximum(data.log_probs, jnp.finfo(data.log_probs.dtype).min)
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
