"""The cost of the meter on CartPole-v1: the same updates with and without it, one after the other, many times."""

import time
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from pgjax import baselines, environments, networks, registry, training
from pgjax.training import Trainer
from pgjax.types import TrainState

ENVIRONMENT = "CartPole-v1"


class Cost(NamedTuple):
    """The cost of the meter at every `every`-th update.

    Attributes:
        wall, cpu: the time with the meter divided by the time without, of each repetition.
        seconds: the median wall seconds of an update without the meter.
        same: whether θ after these updates is the same bit for bit.
    """

    estimator: str
    num_episodes: int
    every: int
    wall: np.ndarray
    cpu: np.ndarray
    seconds: float
    same: bool


def make_trainer(estimator: str, num_episodes: int, every: int | None, hidden: tuple[int, ...]) -> Trainer:
    """The trainer of `experiments.train` with its common preset."""
    environment = environments.make(ENVIRONMENT)
    policy = networks.make_policy(environment, hidden=hidden)
    value = baselines.value_function(*networks.make_value(environment, hidden=hidden), optax.adam(0.01), num_steps=4)
    made = registry.make(estimator, registry.Parts(policy=policy, value=value))
    return training.make_trainer(environment, policy, made, optax.adam(0.01), num_episodes=num_episodes, meter=every)


def practised(estimator: str, hidden: tuple[int, ...], practice: int, seed: int) -> TrainState:
    """The state after `practice` updates of 64 episodes, so that episodes are long."""
    trainer = make_trainer(estimator, 64, None, hidden)
    learn = jax.jit(lambda s: jax.lax.fori_loop(0, practice, lambda _, s: trainer.update(s)[0], s))
    # The meter measures update 0, 10, 20, …
    return learn(trainer.init(jax.random.key(seed)))._replace(update=jnp.zeros((), jnp.int32))


def measure(
    estimator: str,
    num_episodes: int,
    every: Sequence[int],
    updates: int,
    repetitions: int,
    hidden: tuple[int, ...],
    state: TrainState,
) -> list[Cost]:
    """The cost of each interval in `every`, over `updates` updates that begin at `state` in every repetition."""
    compiled = {}
    for chosen in (None, *every):
        trainer = make_trainer(estimator, num_episodes, chosen, hidden)
        run = jax.jit(lambda s, trainer=trainer: jax.lax.scan(lambda s, _: trainer.update(s), s, length=updates))
        compiled[chosen] = run.lower(state).compile()
    params = {chosen: jax.device_get(run(state)[0].params) for chosen, run in compiled.items()}
    times = {chosen: np.zeros((repetitions, 2)) for chosen in compiled}
    for repetition in range(repetitions):
        order = list(compiled)
        shift = repetition % len(order)
        for chosen in order[shift:] + order[:shift]:
            wall, cpu = time.perf_counter(), time.process_time()
            jax.block_until_ready(compiled[chosen](state))
            times[chosen][repetition] = time.perf_counter() - wall, time.process_time() - cpu
    same = lambda chosen: all(
        np.array_equal(a, b) for a, b in zip(*map(jax.tree.leaves, (params[None], params[chosen])), strict=True)
    )
    ratio = {chosen: times[chosen] / times[None] for chosen in every}
    return [
        Cost(
            estimator=estimator,
            num_episodes=num_episodes,
            every=chosen,
            wall=ratio[chosen][:, 0],
            cpu=ratio[chosen][:, 1],
            seconds=float(np.median(times[None][:, 0])) / updates,
            same=same(chosen),
        )
        for chosen in every
    ]
