"""The workload of tokens: a small transformer answers prompts, and learns by RLOO.

The operations of a token are those of one block times the number of blocks, plus those of the last product, because the
blocks are scanned, and the compiler counts a loop once. Attention reads the cache of all earlier tokens.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp

from experiments.shared import token_speed
from experiments.throughput import counting, workloads
from experiments.throughput.counting import Count
from experiments.throughput.measuring import Program
from experiments.throughput.workloads import BARE, ROLLOUT, STILL, Workload, episodes_of, update_of
from pgjax import environments, networks
from pgjax.networks.language_models import LlamaConfig
from pgjax.types import PyTree

TOKENS, RLOO = "tokens", "RLOO"
# Workload → the names of its programs.
PROGRAMS = {
    workloads.CARTPOLE: workloads.CARTPOLE_PROGRAMS,
    workloads.BREAKOUT: workloads.WINDOW_PROGRAMS,
    workloads.MAZE: workloads.WINDOW_PROGRAMS,
    TOKENS: (BARE, ROLLOUT, RLOO),
}
SMALL = LlamaConfig(vocabulary=256, width=8, layers=1, heads=2, kv_heads=1, inner=16, context=16)
GROUP, PROMPT, NEW = 8, 24, 32


def shapes_of(answers: int, prompt: int = PROMPT, new: int = NEW) -> token_speed.Shapes:
    """`answers` answers of `new` tokens, in groups of 8; a smaller number is one group."""
    group = min(GROUP, answers)
    return token_speed.Shapes(answers // group, group, prompt, new)


def token_workload(config: LlamaConfig, seed: int, *, prompt: int = PROMPT, new: int = NEW) -> Workload:
    """`config` with random parameters; a batch is a number of answers, a multiple of 8 or less than 8."""
    params = jax.jit(networks.make_language_model(config).init)(jax.random.key(seed))
    key = jax.random.key(seed + 1)

    def programs(answers: int) -> dict[str, Program]:
        shapes = shapes_of(answers, prompt, new)
        environment, policy = token_speed.make_task(config, params, shapes)
        of = lambda policy, params: episodes_of(environment, policy, params, key, answers, shapes.group_size)
        trainer = token_speed.make_trainer(environment, policy, shapes, STILL)
        return {
            BARE: of(environments.random_policy(environment), ()),
            ROLLOUT: of(policy, params),
            RLOO: update_of(trainer, params, key),
        }

    forward = count_of(config, params, prompt + new, gradient=False)
    gradient = count_of(config, params, prompt + new, gradient=True)
    # The prompt is read once for a group, and its share of the gradient once for an answer.
    rollout = forward.times(1 + prompt / (GROUP * new))
    return Workload(
        name=TOKENS,
        unit="tokens",
        programs=programs,
        counts={ROLLOUT: rollout, RLOO: rollout + gradient.times(1 + prompt / new)},
        updates=(RLOO,),
        note=f"{TOKENS}: prompts of {prompt} tokens, each with {GROUP} answers of {new} tokens; {config.layers} blocks "
        f"of width {config.width}, {config.vocabulary} tokens. Only sampled tokens are counted.",
    )


def count_of(config: LlamaConfig, params: PyTree, length: int, gradient: bool) -> Count:
    """The count of one token in a sequence of `length` tokens, forward or in the gradient of its log-probability."""
    one = dataclasses.replace(config, layers=1)
    block = jax.tree.map(lambda x: x[:1], params["layers"])
    whole = _piece(networks.make_language_model(one).logits, params | {"layers": block}, length, gradient)
    head = _piece(lambda p, tokens: _last_product(p, tokens), params, length, gradient)
    return head + (whole + head.times(-1.0)).times(config.layers)


def _last_product(params: PyTree, tokens: jax.Array) -> jax.Array:
    table = params["tokens"]
    x = jnp.broadcast_to(jnp.mean(table, axis=0), (*tokens.shape, table.shape[1]))
    return x @ (params["head"]["kernel"] if "head" in params else table.T)


def _piece(logits: Callable, params: PyTree, length: int, gradient: bool) -> Count:
    tokens, lanes = jnp.zeros((4, length), jnp.int32), 4

    def score(params: PyTree, tokens: jax.Array) -> jax.Array:
        log_probs = jax.nn.log_softmax(logits(params, tokens))
        return jnp.sum(jnp.take_along_axis(log_probs, tokens[..., None], 2))

    return counting.piece(jax.grad(score) if gradient else logits, params, tokens, rows=lanes * length)
