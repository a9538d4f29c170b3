"""Policies of small MDPs, and parameters that are drawn without compiling a network's initialisation."""

import jax
import jax.numpy as jnp
import numpy as np

from pgjax.distributions import categorical
from pgjax.types import Policy


def tabular(params, obs):
    """A row of logits for each state, `params [D, A]`; the state is seen one-hot."""
    return obs @ params


def perceptron(params, obs):
    """Logits with one hidden layer, so that θ is a tree and states share parameters."""
    return jnp.tanh(obs @ params["in"] + params["bias"]) @ params["out"]


def draw_params(apply, seed, num_states=4, num_actions=2):
    """A random θ of `tabular` or `perceptron`."""
    draw = np.random.default_rng(seed).standard_normal
    if apply is tabular:
        return jnp.asarray(draw((num_states, num_actions)))
    shapes = {"in": (num_states, 3), "bias": (3,), "out": (3, num_actions)}
    return {name: jnp.asarray(draw(shape)) for name, shape in shapes.items()}


def drawn(init, sample, dtype="float32"):
    """Parameters of `init(key, sample)` as they may be after training: no bias is zero, and the head is not small."""
    draw = np.random.default_rng(1).standard_normal
    like = jax.eval_shape(init, jax.random.key(0), sample)
    return jax.tree.map(lambda x: jnp.asarray(0.5 * draw(x.shape), dtype), like)


TABULAR = Policy(init=lambda key, obs: jnp.zeros((obs.shape[0], 2)), apply=tabular, distribution=categorical)
