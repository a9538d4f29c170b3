"""Tokens per second of sampling and of an update, beside a hand-written JAX program in the same process.

Axes: B answers, P tokens of a prompt, T new tokens, V vocabulary.
"""

import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.harness import runner, verdicts
from experiments.shared.language_peer import make_peer
from pgjax import automata, baselines, estimators, networks, rollouts, training
from pgjax.environments.text import make_text
from pgjax.networks.language_models import LlamaConfig
from pgjax.types import Environment, Policy, PyTree

PGJAX, PEER = "pgjax", "hand-written JAX"
SAMPLING, UPDATE = "sampling", "an update"
AIM = 1.0  # of the ratio pgjax / hand-written JAX

BYTE_MODEL = LlamaConfig(vocabulary=256, width=128, layers=4, heads=4, kv_heads=2, inner=336, context=128)


class Shapes(NamedTuple):
    """B / k prompts of P tokens with k answers of T tokens each."""

    prompts: int
    group_size: int
    prompt_tokens: int
    max_new_tokens: int

    @property
    def answers(self) -> int:
        return self.prompts * self.group_size

    @property
    def tokens(self) -> int:
        """The number of tokens that one program samples."""
        return self.answers * self.max_new_tokens


class Rates(NamedTuple):
    """(work, program) → new tokens per second of every repetition; work → the ratios of the pairs."""

    tokens: dict[tuple[str, str], list[float]]
    ratios: dict[str, list[float]]


class _Program(NamedTuple):
    """`run(state, key) → state` as compiled, and its state; the state is donated."""

    run: Callable[[Any, jax.Array], Any]
    state: Any


def _random_prompts(config: LlamaConfig, shapes: Shapes) -> np.ndarray:
    return np.random.default_rng(0).integers(0, config.vocabulary, (shapes.prompts, shapes.prompt_tokens))


def _environment(config: LlamaConfig, shapes: Shapes) -> Environment:
    """Random prompts, and answers of exactly T tokens, whose score is the share of tokens with an even number."""
    even = automata.count(range(0, config.vocabulary, 2), config.vocabulary, value=1.0 / shapes.max_new_tokens)
    how = {"max_new_tokens": shapes.max_new_tokens, "vocabulary": config.vocabulary}
    return make_text(_random_prompts(config, shapes), score=even, **how)


def make_task(config: LlamaConfig, params: PyTree, shapes: Shapes) -> tuple[Environment, Policy]:
    """The environment, and a policy whose first parameters are `params`."""
    environment = _environment(config, shapes)
    return environment, networks.make_language_policy(environment, config, params, recompute=True)


def make_trainer(
    environment: Environment, policy: Policy, shapes: Shapes, optimizer: optax.GradientTransformation
) -> training.Trainer:
    """RLOO: the return of an answer less the mean return of the other answers to its prompt."""
    estimator = estimators.make_estimator(
        policy,
        returns=estimators.total_return(),
        baseline=baselines.leave_one_out(group_size=shapes.group_size),
    )
    return training.make_trainer(environment, policy, estimator, optimizer, num_episodes=shapes.answers)


def _ours(config: LlamaConfig, params: PyTree, shapes: Shapes, work: str, optimizer) -> _Program:
    environment, policy = make_task(config, params, shapes)
    if work == SAMPLING:

        def sample(state: tuple, key: jax.Array) -> tuple:
            keys = jax.random.split(key, shapes.answers)
            played = rollouts.episodes(environment, policy, state[0], keys, group_size=shapes.group_size)
            return state[0], played.final_obs.tokens

        return _compiled(sample, (params, jnp.zeros(_sampled(shapes), environment.observation_space.tokens.dtype)))
    trainer = make_trainer(environment, policy, shapes, optimizer)
    # The trainer counts its updates and draws the keys from that count.
    return _compiled(lambda state, key: trainer.update(state)[0], trainer.init(jax.random.key(0)))


def _theirs(config: LlamaConfig, params: PyTree, shapes: Shapes, work: str, optimizer) -> _Program:
    score = lambda answers: jnp.mean(answers % 2 == 0, axis=1)
    how = {"group_size": shapes.group_size, "max_new_tokens": shapes.max_new_tokens}
    peer = make_peer(config, score=score, optimizer=optimizer, **how)
    prompts = jnp.asarray(_random_prompts(config, shapes))
    if work == SAMPLING:
        sample = lambda state, key: (state[0], peer.sample(state[0], prompts, key))
        return _compiled(sample, (params, jnp.zeros(_sampled(shapes), jnp.int32)))
    return _compiled(lambda state, key: peer.update(state, prompts, key), (params, optimizer.init(params)))


def _sampled(shapes: Shapes) -> tuple[int, int]:
    return shapes.answers, shapes.prompt_tokens + shapes.max_new_tokens


def _compiled(run: Callable, state: Any) -> _Program:
    return _Program(run=jax.jit(run, donate_argnums=0).lower(state, jax.random.key(0)).compile(), state=state)


def measure(
    config: LlamaConfig,
    params: PyTree,
    shapes: Shapes,
    repetitions: int,
    advance: Callable[[str], None] = lambda text: None,
) -> Rates:
    """Both programs take turns, in sampling alone and in whole updates; the first repetition does not count.

    `params` is used up: its arrays are donated. `advance` is called after every repetition with the last ratio.
    """
    optimizer, found = optax.adam(1e-6), Rates(tokens={}, ratios={})
    for work in (SAMPLING, UPDATE):
        copied = jax.tree.map(jnp.copy, params)
        # Nobody reads `params` after the updates, so the second work donates them.
        own = jax.tree.map(jnp.copy, params) if work == SAMPLING else params
        programs = {
            PGJAX: _ours(config, own, shapes, work, optimizer),
            PEER: _theirs(config, copied, shapes, work, optimizer),
        }
        states = {name: program.state for name, program in programs.items()}
        runs = {name: program.run for name, program in programs.items()}
        del programs, copied, own
        rates = {name: [] for name in runs}
        for repetition in range(repetitions + 1):
            # The programs also take turns in going first, so that a machine that slows down favours neither.
            for name in (PGJAX, PEER) if repetition % 2 else (PEER, PGJAX):
                start = time.perf_counter()
                states[name] = jax.block_until_ready(runs[name](states[name], jax.random.key(repetition)))
                rates[name].append(shapes.tokens / (time.perf_counter() - start))
            advance(f"{work}: ratio {rates[PGJAX][-1] / rates[PEER][-1]:.2f}")
        for name, values in rates.items():
            found.tokens[work, name] = values[1:]
        pairs = zip(rates[PGJAX][1:], rates[PEER][1:], strict=True)
        found.ratios[work] = [ours / theirs for ours, theirs in pairs]
    return found


def record(found: dict[str, Rates], shapes: dict[str, Shapes], recorder: runner.Recorder, aim: float = AIM) -> None:
    """Rows: medians with ranges over repetitions, and the ratio, which is judged by `aim`."""
    spread = lambda x, digits: f"{min(x):.{digits}f} to {max(x):.{digits}f}"
    tiny = verdicts.is_tiny(recorder)
    for model, rates in found.items():
        size = f"{shapes[model].answers} answers of {shapes[model].max_new_tokens} tokens"
        for work, ratios in rates.ratios.items():
            for program in (PGJAX, PEER):
                values = rates.tokens[work, program]
                recorder.row(
                    quantity=f"tokens/s of {work}, {size}",
                    variant=f"{model}, {program}",
                    ours=statistics.median(values),
                    verdict=verdicts.say(verdicts.Verdict.NOT_JUDGED, spread(values, 0)),
                )
            ratio = statistics.median(ratios)
            recorder.row(
                quantity=f"ratio of {work}",
                variant=f"{model}, {PGJAX} / {PEER}",
                ours=ratio,
                verdict=verdicts.of_aim(ratio >= aim, f"≥ {aim:g}", spread(ratios, 2), tiny=tiny),
            )
    recorder.note(
        "Only sampled tokens are counted, not those of the prompts. An update is sampling, gradient of RLOO and Adam, "
        "without a penalty. Medians and ranges are over repetitions, in which the two programs take turns."
    )
