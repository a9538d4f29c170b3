"""The memory of small language models in experiments, estimated before they run; bytes on all devices together."""

import jax
import jax.numpy as jnp

from experiments.shared import language
from pgjax import imitation, networks
from pgjax.training.memory import bytes_of, peak_bytes
from pgjax.types import PyTree

# θ, its gradient, the two moments of the optimiser, its update, and the best θ so far.
COPIES_OF_A_FIT = 6


def params_of(model: networks.LlamaConfig) -> PyTree:
    """The shapes of θ of a language model."""
    return jax.eval_shape(networks.make_language_model(model).init, jax.eval_shape(lambda: jax.random.key(0)))


def of_pretraining(model: networks.LlamaConfig, batch_size: int) -> dict[str, float]:
    """The parts of a fit of next tokens to windows of `model.context` places."""
    policy = networks.make_language_policy(language.make_reader(model.context), model)
    params = params_of(model)
    rows = {
        "tokens": jax.ShapeDtypeStruct((batch_size, model.context), jnp.int16),
        "counted": jax.ShapeDtypeStruct((batch_size, model.context - 1), jnp.bool_),
    }
    loss = imitation.next_token_loss(policy)
    step = jax.value_and_grad(lambda params, rows: jnp.mean(loss(params, rows)))
    return {
        "the language model and its optimiser": COPIES_OF_A_FIT * bytes_of(params),
        f"the gradient of {batch_size} windows": peak_bytes(step, params, rows),
    }


def of_answers(model: networks.LlamaConfig, num_episodes: int, places: int, new_tokens: int) -> float:
    """The bytes of answers that a language model writes at once: buffers, its cache of keys and values, and outputs."""
    buffers = new_tokens * (2 * places + 64)
    cache = 2 * 2 * 4 * model.layers * model.width * places
    outputs = 3 * 4 * model.vocabulary * new_tokens
    return float(num_episodes) * (buffers + cache + outputs)
