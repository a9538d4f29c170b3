"""Next-token learning: the log-probabilities that a policy of text gives to the tokens of whole windows.

A window of tokens is an episode whose actions are known, so this is behavioural cloning of the text, and the θ that it
finds is the policy that `rollouts.episodes` plays on `environments.text.make_text`. One pass of the policy's memory
reads all places of a window at once. Axes: n windows, L places, V tokens.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from pgjax import acting
from pgjax._doors import readable
from pgjax.environments.text import TextBuffer
from pgjax.types import Policy, PyTree


@readable
def token_log_probs(policy: Policy, params: PyTree, tokens: jax.Array) -> jax.Array:
    """ln f(a_1 … a_i, θ)_{a_{i+1}} for every place i of windows, float `[n, L − 1]`.

    X_i is the buffer in which the places up to i are written, and A_i is the token at place i + 1. A policy with
    `memory.unroll` reads a window in one pass.

    Args:
        policy: f(x, θ), whose observation is a `TextBuffer` of L places.
        params: θ.
        tokens: integers `[n, L]`.
    """
    places = tokens.shape[1] - 1
    lengths = jnp.arange(1, places + 1, dtype=jnp.int32)

    def of_window(window: jax.Array) -> jax.Array:
        obs = TextBuffer(
            # A policy that is not causal would read the answer in the places behind.
            tokens=jnp.where(jnp.arange(places + 1) < lengths[:, None], window, jnp.zeros_like(window)),
            length=lengths,
            prompt_length=jnp.ones(places, jnp.int32),
        )
        outputs = acting.unroll(policy, params, obs)
        return jax.vmap(policy.distribution.log_prob)(outputs, window[1:].astype(jnp.int32))

    return jax.vmap(of_window)(tokens)


@readable
def next_token_loss(policy: Policy) -> Callable[[PyTree, PyTree], jax.Array]:
    """The loss of `training.fit` for rows with the fields `tokens` `[n, L]` and `counted` bool `[n, L − 1]`.

        loss = − Σ_i c_i ln f(a_1 … a_i, θ)_{a_{i+1}} / Σ_i c_i,  in nats per token; 0 if nothing is counted

    With the weights w = Σ_i c_i of the rows, the mean of `fit` is the mean over all counted tokens.

    Args:
        policy: as in `token_log_probs`.

    Example: two tokens, one window "0 1 1"; equal logits give ln 2 nats for each token.

        >>> import jax, jax.numpy as jnp, numpy as np
        >>> from pgjax import automata, imitation, networks
        >>> from pgjax.environments.text import make_text
        >>> score = automata.make_automaton(np.zeros((1, 2), int))
        >>> environment = make_text([[0]], score=score, max_new_tokens=2, vocabulary=2)
        >>> policy = networks.make_policy(environment, network="transformer", hidden=(4,))
        >>> _, obs = environment.reset(jax.random.key(0), environment.params)
        >>> params = jax.tree.map(jnp.zeros_like, policy.init(jax.random.key(0), obs))
        >>> row = {"tokens": jnp.array([[0, 1, 1]]), "counted": jnp.array([[True, True]])}
        >>> round(float(imitation.next_token_loss(policy)(params, row)[0]), 3)
        0.693
    """

    def loss(params: PyTree, rows: PyTree) -> jax.Array:
        tokens, counted = rows["tokens"], rows["counted"]
        log_probs = jnp.where(counted, token_log_probs(policy, params, tokens), 0.0)
        return -jnp.sum(log_probs, axis=1) / jnp.maximum(jnp.sum(counted, axis=1), 1)

    return loss
