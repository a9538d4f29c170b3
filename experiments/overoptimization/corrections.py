"""Policies that begin as a reference and learn a correction of it."""

from collections.abc import Callable

import jax

from pgjax.distributions import categorical
from pgjax.environments.text import TextBuffer
from pgjax.networks.bodies import MLP
from pgjax.types import Policy, PyTree


def corrected_reference(
    reference: Callable[[TextBuffer], jax.Array],
    vocabulary: int,
    features: Callable[[TextBuffer], jax.Array],
    hidden: tuple[int, ...] = (64,),
) -> Policy:
    """A policy of text buffers whose logits are ln π_ref(· | buffer) + network(features(buffer)).

    The last layer of the network starts at zero, so the policy at the start of training is exactly the reference, and
    `rewards.kl_penalty` without a reference of its own measures the divergence from π_ref.

    Args:
        reference: `buffer → ln π_ref [V]`.
        vocabulary: V.
        features: `buffer → [F]`, what the network sees.
        hidden: the widths of its layers.
    """
    module, last = MLP(hidden=hidden, outputs=vocabulary), f"Dense_{len(hidden)}"

    def init(key: jax.Array, obs: TextBuffer) -> PyTree:
        layers = module.init(key, features(obs))["params"]
        return {"params": layers | {last: jax.tree.map(jax.numpy.zeros_like, layers[last])}}

    apply = lambda params, obs: reference(obs) + module.apply(params, features(obs))
    return Policy(init=init, apply=apply, distribution=categorical)
