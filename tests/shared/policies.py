"""Policies of two actions and more over the states of small MDPs."""

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


TABULAR = Policy(init=lambda key, obs: jnp.zeros((obs.shape[0], 2)), apply=tabular, distribution=categorical)
