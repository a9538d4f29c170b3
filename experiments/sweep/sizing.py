"""What is trained, and in which way: all estimators in one program, or one after another."""

import functools
from typing import TYPE_CHECKING, Any, NamedTuple

from experiments.harness import memory
from experiments.shared.training import build as build_options
from experiments.shared.training.sizing import METRIC_BYTES
from pgjax import environments, training
from pgjax.training._chunks import Pace
from pgjax.types import Environment, Policy

if TYPE_CHECKING:
    from experiments.sweep.options import Config


class Problem(NamedTuple):
    """What a sweep trains.

    Attributes:
        environment, evaluated: the environment of the training and that of the evaluation.
        policy: the policy that every run trains.
        options: estimator → every option of its training.
        builds: estimator → a function from the varied values of one run to its Trainer.
    """

    environment: Environment
    evaluated: Environment
    policy: Policy
    options: dict[str, dict[str, Any]]
    builds: dict[str, Any]


class Plan(NamedTuple):
    """The way in which a sweep trains.

    Attributes:
        together: whether all estimators train in one program.
        reason: why they do not; empty if they do.
        parts: the bytes of each part of the memory.
    """

    together: bool
    reason: str
    parts: dict[str, float]


@functools.lru_cache(maxsize=2)
def problem(config: "Config") -> Problem:
    """The environment, the policy, and the builds of all estimators.

    Raises:
        ValueError: options do not fit each other.
    """
    options = config.options_of()
    first = next(iter(options.values()))
    environment, policy = build_options.make_policy(first)
    builds = {name: build_options.make_varied_build(of, environment, policy) for name, of in options.items()}
    evaluated = build_options.evaluation_environment(first, environment)
    return Problem(environment=environment, evaluated=evaluated, policy=policy, options=options, builds=builds)


@functools.lru_cache(maxsize=32)
def plan(config: "Config") -> Plan:
    """How the sweep is trained, with its estimated memory.

    Raises:
        ValueError: options do not fit each other.
    """
    made, grid = problem(config), config.grid()
    on_host = isinstance(made.environment, environments.HostEnvironment)
    values = {name: x[0] for name, x in grid.hyperparams().items()}
    trainers = {name: build(values) for name, build in made.builds.items()}
    devices = 1 if on_host else None
    found = {name: training.estimate_memory(t, grid.num_runs, devices=devices) for name, t in trainers.items()}
    together, one_by_one = (_parts(config, list(found.values()), num) for num in (len(found), 1))
    sizes = {(trainer.num_episodes, trainer.group_size) for trainer in trainers.values()}
    if config.sequential:
        return Plan(together=False, reason="--sequential asks for it", parts=one_by_one)
    if on_host:
        reason = f"{made.environment.name} runs on the host, which plays for one run at a time"
        return Plan(together=False, reason=reason, parts=one_by_one)
    if len(sizes) > 1:
        reason = "an estimator has another number of episodes or another group size than the others"
        return Plan(together=False, reason=reason, parts=one_by_one)
    needed, free = memory.program() + sum(together.values()), memory.available()
    if free is not None and needed > free:
        shown, there = memory.in_words(needed), memory.in_words(free)
        reason = f"together they need about {shown} of memory, and {there} are available"
        return Plan(together=False, reason=reason, parts=one_by_one)
    return Plan(together=True, reason="", parts=together)


def _parts(config: "Config", found: list[training.MemoryEstimate], at_once: int) -> dict[str, float]:
    """The memory of `at_once` estimators in one program: all of them, or each of them alone.

    One estimator after another makes its updates, so only one of them has episodes and gradients at a time.
    """
    num_runs, num_updates = config.grid().num_runs, next(iter(config.options_of().values()))["num_updates"]
    states = [estimate.states for estimate in found]
    most = Pace(num_updates, num_runs * at_once, None, build_options.CHUNK_SECONDS).most
    # The host keeps two numbers of each update of each run.
    kept = 8 * num_updates * num_runs * len(found)
    return {
        f"parameters, optimiser and baseline of {num_runs * at_once} runs": sum(states) if at_once > 1 else max(states),
        "episodes and gradients of an update": max(estimate.update for estimate in found),
        "metrics": float(METRIC_BYTES * num_runs * at_once * most + kept),
    }
