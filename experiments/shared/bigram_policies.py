"""Policies that begin as a bigram model of text and learn a correction of it."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from pgjax import exact
from pgjax.distributions import categorical
from pgjax.environments.text import TextBuffer
from pgjax.networks.bodies import MLP
from pgjax.types import Policy, PyTree


def corrected_bigrams(
    reference: exact.MarkovModel, features: Callable[[TextBuffer], jax.Array], hidden: tuple[int, ...] = (64,)
) -> Policy:
    """A policy of text buffers whose logits are ln π_ref(· | last token) + network(features(buffer)).

    The last layer of the network starts at zero, so the policy at the start of training is exactly the reference, and
    `rewards.kl_penalty` without a reference of its own measures the divergence from π_ref.

    Args:
        reference: a model of `exact.fit_markov_model(..., order=1)`.
        features: `buffer → [F]`, what the network sees.
        hidden: the widths of its layers.
    """
    log_probs, following = jnp.asarray(reference.log_probs), jnp.asarray(reference.next)
    module = MLP(hidden=hidden, outputs=log_probs.shape[1])
    last = f"Dense_{len(hidden)}"

    def init(key: jax.Array, obs: TextBuffer) -> PyTree:
        layers = module.init(key, features(obs))["params"]
        return {"params": layers | {last: jax.tree.map(jnp.zeros_like, layers[last])}}

    def apply(params: PyTree, obs: TextBuffer) -> jax.Array:
        token = obs.tokens[obs.length - 1].astype(jnp.int32)
        context = jnp.where(obs.length > obs.prompt_length, following[reference.start, token], reference.start)
        return log_probs[context] + module.apply(params, features(obs))

    return Policy(init=init, apply=apply, distribution=categorical)
