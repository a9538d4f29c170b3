"""The workloads: what is played, with which network, and which of its programs are measured.

CartPole-v1 is learnt from complete episodes by REINFORCE. Breakout and the maze are learnt from windows of a fixed
number of steps by an actor-critic with GAE, whose entropy bonus, mean over steps and standardised weights are those of
PPO. Tokens are in `token_programs`.
"""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from experiments.harness import runner
from experiments.throughput import counting
from experiments.throughput.counting import Count
from experiments.throughput.measuring import Program
from experiments.throughput.solve import make_trainer
from pgjax import baselines, environments, estimators, networks, rollouts, training
from pgjax.types import Baseline, Environment, Policy, PyTree, Trajectory

CARTPOLE, BREAKOUT, MAZE = "CartPole-v1", "Breakout-MinAtar", "maze"
BARE, ROLLOUT = "environment, random actions", "rollout"
UNEVEN, UNEVEN_WIDE = "rollout, uneven episodes", "rollout, uneven episodes, all lanes to the end"
UNEVEN_PLAIN = "REINFORCE, uneven episodes"
PLAIN, CRITIC = "REINFORCE", "REINFORCE with a value network"
ACTOR_CRITIC = "actor-critic (GAE)"
CARTPOLE_PROGRAMS = (BARE, ROLLOUT, UNEVEN, UNEVEN_WIDE, UNEVEN_PLAIN, PLAIN, CRITIC)
WINDOW_PROGRAMS = (BARE, ROLLOUT, ACTOR_CRITIC)
# An update must do all its work, but must not change the policy, whose episodes would become longer.
STILL = optax.adam(1e-12)


class Workload(NamedTuple):
    """One problem with its network.

    Attributes:
        name: its name.
        unit: the unit of what is counted, "steps" or "tokens".
        programs: `(number of episodes or lanes at once) → name → program`.
        counts: the cost of a step in each program.
        updates: the names of the programs that learn.
        note: a sentence about the size of the networks and of the batches.
    """

    name: str
    unit: str
    programs: Callable[[int], Mapping[str, Program]]
    counts: Mapping[str, Count]
    updates: tuple[str, ...]
    note: str


def require_programs(chosen: Sequence[str], programs: Mapping[str, Sequence[str]]) -> None:
    """Refuse a choice of --programs with which nothing would be measured for a name or for a workload.

    Args:
        chosen: the names; none means all programs.
        programs: the names of the programs of each chosen workload.

    Raises:
        UsageError: no chosen workload has a program of a name, or a workload has none of the chosen programs.
    """
    known = dict.fromkeys(name for names in programs.values() for name in names)
    for name in chosen:
        allowed = f"among the programs of {', '.join(programs)}: {'; '.join(known)}"
        runner.require(name in known, "--programs", name, allowed)
    for workload, names in programs.items():
        allowed = f"at least one of the programs of {workload}, {'; '.join(names)}, or --workloads without {workload}"
        runner.require(not chosen or bool({*chosen} & {*names}), "--programs", "; ".join(chosen), allowed)


def make_value(environment: Environment, hidden: tuple[int, ...]) -> tuple[Callable, Callable]:
    """`(init, apply)` of a value network with the layers of the policy's network."""
    return networks.make_value(environment, hidden=hidden)


def update_of(trainer: training.Trainer, params: PyTree, key: jax.Array) -> Program:
    """The update of a trainer, whose policy starts from `params`."""

    def run(state: Any) -> tuple[Any, jax.Array, tuple]:
        state, metrics = trainer.update(state)
        return state, metrics["num_steps"], ()

    # One program: operation by operation it would be some fifty programs, which a GPU compiles slowly.
    return Program(run=run, carry=jax.jit(trainer.init)(key)._replace(params=params), group=trainer.group_size)


def episodes_of(
    environment: Environment, policy: Policy, params: PyTree, key: jax.Array, count: int, group_size: int = 1, **options
) -> Program:
    """`count` complete episodes, in groups of which each stays on one device.

    Args:
        **options: further arguments of `rollouts.episodes`.
    """
    play = functools.partial(rollouts.episodes, environment, policy, group_size=group_size, **options)
    return played_by(play, params, key, count)._replace(group=group_size)


def played_by(play: Callable[[PyTree, jax.Array], Trajectory], params: PyTree, key: jax.Array, count: int) -> Program:
    """`play(params, keys)` of `count` new keys. The carry holds θ, and a key that changes from call to call."""

    def run(carry: tuple[PyTree, jax.Array]) -> tuple[Any, jax.Array, Any]:
        params, key = carry
        key, episodes_key = jax.random.split(key)
        played = play(params, jax.random.split(episodes_key, count))
        return (params, key), jnp.sum(played.alive), played

    return Program(run=run, carry=(params, key))


def window_of(
    environment: Environment, policy: Policy, params: PyTree, key: jax.Array, lanes: int, length: int
) -> Program:
    """A window of `length` steps of every lane. The trajectory is a result, so that all of its work is done."""

    def run(carry: tuple[PyTree, rollouts.Lanes]) -> tuple[Any, jax.Array, Any]:
        params, lanes = carry
        lanes, played, _ = rollouts.window(environment, policy, params, lanes, length)
        return (params, lanes), jnp.sum(played.alive), played

    begin = lambda params, key: rollouts.start_lanes(environment, policy, params, jax.random.split(key, lanes))
    return Program(run=run, carry=(params, jax.jit(begin)(params, key)))


# CartPole-v1: complete episodes.


def practised(hidden: tuple[int, ...], updates: int, seed: int) -> tuple[PyTree, float]:
    """The parameters of a policy whose episodes are long, and the mean length of 64 of its episodes."""
    policy = networks.make_policy(environments.make(CARTPOLE), hidden=hidden)
    trainer = make_trainer(policy, optax.adam(0.01), 64)
    state, metrics = jax.jit(trainer.init)(jax.random.key(seed)), {}
    update = jax.jit(trainer.update)
    for _ in range(updates):
        state, metrics = update(state)
    return state.params, float(metrics["mean_length"]) if updates else math.nan


def cartpole_programs(hidden: tuple[int, ...], params: PyTree, seed: int, batch: int) -> dict[str, Program]:
    environment, key = environments.make(CARTPOLE), jax.random.key(seed + 1)
    policy = networks.make_policy(environment, hidden=hidden)
    value = baselines.value_function(*make_value(environment, hidden), optax.adam(1e-3))
    # A policy that has not learnt has many short episodes and a few long ones.
    fresh = jax.jit(lambda key: policy.init(key, environment.reset(key, environment.params)[1]))(key)
    return {
        BARE: episodes_of(environment, environments.random_policy(environment), (), key, batch),
        ROLLOUT: episodes_of(environment, policy, params, key, batch),
        UNEVEN: episodes_of(environment, policy, fresh, key, batch),
        UNEVEN_WIDE: episodes_of(environment, policy, fresh, key, batch, tile=batch),
        UNEVEN_PLAIN: update_of(make_trainer(policy, STILL, batch), fresh, key),
        PLAIN: update_of(make_trainer(policy, STILL, batch), params, key),
        CRITIC: update_of(make_trainer(policy, STILL, batch, value), params, key),
    }


def cartpole_counts(hidden: tuple[int, ...], params: PyTree) -> dict[str, Count]:
    """The values of REINFORCE's baseline come from the forward pass of its fit, so `predict` is not counted."""
    environment = environments.make(CARTPOLE)
    policy = networks.make_policy(environment, hidden=hidden)
    found = counting.pieces(environment, policy, params, make_value(environment, hidden), window=False)
    rollout = found.step + found.forward
    plain = rollout + found.gradient
    return {BARE: found.step, ROLLOUT: rollout, PLAIN: plain, CRITIC: plain + found.fit}


def cartpole(hidden: tuple[int, ...], practice: int, seed: int) -> Workload:
    params, length = practised(hidden, practice, seed)
    return Workload(
        name=CARTPOLE,
        unit="steps",
        programs=functools.partial(cartpole_programs, hidden, params, seed),
        counts=cartpole_counts(hidden, params),
        updates=(PLAIN, CRITIC),
        note=f"{CARTPOLE}: complete episodes; after {practice} updates of practice they last {length:.0f} steps, "
        "and with random actions about 22.",
    )


# Breakout and the maze: windows.


def actor_critic(
    environment: Environment, policy: Policy, value: Baseline, lanes: int, length: int
) -> training.Trainer:
    estimator = estimators.make_estimator(
        policy,
        returns=estimators.lambda_return(0.95, 0.99),
        baseline=value,
        over_time="mean",
        standardise="population",
        entropy_coef=0.01,
    )
    return training.make_trainer(environment, policy, estimator, STILL, num_episodes=lanes, num_steps=length)


def window_workload(name: str, hidden: tuple[int, ...], length: int, seed: int) -> Workload:
    """A problem that is played in windows of `length` steps, with the network that fits its observation."""
    environment, key = environments.make(name), jax.random.key(seed + 1)
    policy, value = networks.make_policy(environment, hidden=hidden), make_value(environment, hidden)
    obs = environment.reset(key, environment.params)[1]
    params = policy.init(jax.random.key(seed), obs)
    found = counting.pieces(environment, policy, params, value, window=True)

    def programs(lanes: int) -> dict[str, Program]:
        fitted = baselines.value_function(*value, optax.adam(1e-3))
        random = environments.random_policy(environment)
        return {
            BARE: window_of(environment, random, (), key, lanes, length),
            ROLLOUT: window_of(environment, policy, params, key, lanes, length),
            ACTOR_CRITIC: update_of(actor_critic(environment, policy, fitted, lanes, length), params, key),
        }

    widths, convolution = " × ".join(map(str, hidden)), " behind a 3 × 3 convolution with 16 channels"
    rollout = found.step + found.forward
    return Workload(
        name=name,
        unit="steps",
        programs=programs,
        counts={
            BARE: found.step,
            ROLLOUT: rollout,
            ACTOR_CRITIC: rollout + found.gradient + found.predict + found.fit,
        },
        updates=(ACTOR_CRITIC,),
        note=f"{name}: windows of {length} steps; dense layers of {widths}{convolution * (obs.ndim == 3)}.",
    )
