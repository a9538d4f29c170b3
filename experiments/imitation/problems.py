"""The problems of `experiments.imitation`: an environment, a policy to fit, and an expert or a file of its episodes."""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.imitation.plans import PLANS
from pgjax import datasets, environments, evaluation, exact, imitation, networks, rollouts
from pgjax.environments import cooling_controllers
from pgjax.environments.maze import maze_mdp
from pgjax.imitation import Demonstrations, Labelled, experts
from pgjax.types import Environment, Policy, PyTree

SLIP = 0.1


class Problem(NamedTuple):
    """An expert and the policy that copies it.

    Attributes:
        name: the name of the environment in `pgjax.environments`.
        policy: the copy's f(x, θ), a network with the layers `hidden`.
        expert: the expert, who can be asked for actions; None if there is only a file.
        expert_name: who the expert is.
        controller: the expert's name among the reference controllers of the environment; None if it is not among them.
        loss: the loss of `imitation.gradient_fit`.
        noise: the first noise level of DART.
        collect: `(key, n) → Labelled`, n of the expert's episodes; None if there is only a file.
        demonstrate: `(key, n) → Demonstrations`, n episodes of the expert, numbered from 0 in `groups`.
        expert_return: `(episodes, key) → (mean, standard error)`.
    """

    name: str
    environment: Environment
    policy: Policy
    hidden: tuple[int, ...]
    expert: experts.Expert | None
    expert_name: str
    controller: str | None
    loss: str
    noise: float
    collect: Callable[[jax.Array, int], Labelled] | None
    demonstrate: Callable[[jax.Array, int], Demonstrations]
    expert_return: Callable[[int, jax.Array], tuple[float, float]]


class _Teacher(NamedTuple):
    """An expert for a problem, and what `Problem` says about it."""

    expert: experts.Expert
    expert_name: str
    loss: str = "negative_log_likelihood"
    noise: float = 0.1
    controller: str | None = None


def with_expert(name: str, environment: Environment, hidden: tuple[int, ...], teacher: _Teacher) -> Problem:
    policy = networks.make_policy(environment, hidden=hidden)

    def collect(key: jax.Array, num_episodes: int) -> Labelled:
        start = policy.init(key, environment.reset(key, environment.params)[1])
        return imitation.collect(key, environment, policy, start, teacher.expert, num_episodes, beta=1.0)

    def expert_return(num_episodes: int, key: jax.Array) -> tuple[float, float]:
        found = evaluation.evaluate(environment, experts.as_policy(teacher.expert), (), key, num_episodes=num_episodes)
        return found.mean, found.stderr

    return Problem(
        name=PLANS[name].env,
        environment=environment,
        policy=policy,
        hidden=hidden,
        collect=collect,
        demonstrate=lambda key, num_episodes: imitation.demonstrations(collect(key, num_episodes)),
        expert_return=expert_return,
        **teacher._asdict(),
    )


def _environment(name: str) -> Environment:
    if name == "maze":
        return exact.to_environment(maze_mdp(slip=SLIP))
    return environments.make(PLANS[name].env)


_PI_LOOP = "PI loop on the fans (24 °C, inlet 25.5 °C)"


def _teacher(name: str, environment: Environment, hidden: tuple[int, ...], seed: int) -> _Teacher:
    if name == "pendulum":
        return _Teacher(experts.pendulum_swing_up(), "swing-up controller", loss="squared_error", noise=0.5)
    if name == "maze":
        return _Teacher(experts.optimal_expert(maze_mdp(slip=SLIP)), "best policy")
    if name == "random_maze":
        return _Teacher(imitation.shortest_way(), "shortest way", controller="shortest way")
    if name == "navigation":
        return _Teacher(imitation.potential_field(), "potential field", controller="potential field")
    if name == "cooling":
        expert = experts.Expert(act=cooling_controllers.pi_fan(24.0, 25.5))
        return _Teacher(expert, _PI_LOOP, noise=0.3, controller=_PI_LOOP)
    policy = networks.make_policy(environment, hidden=hidden)
    last = jax.tree.map(lambda x: x[-1], _train_cartpole(environment, policy, hidden, seed))
    return _Teacher(experts.from_policy(policy, last, greedy=True), "trained policy")


def make_problem(name: str, hidden: tuple[int, ...], seed: int) -> Problem:
    """The problem of that name with its expert.

    CartPole has a trained policy, Pendulum the energy-shaping controller, the fixed maze its best policy, fresh mazes a
    search of the map, navigation the potential field, and cooling a PI loop.
    """
    environment = _environment(name)
    return with_expert(name, environment, hidden, _teacher(name, environment, hidden, seed))


def mediocre_cartpole(hidden: tuple[int, ...], seed: int) -> tuple[Problem, tuple[float, float]]:
    """CartPole with the policy that came nearest to a return of 200 during training, and its return on new episodes."""
    environment = _environment("cartpole")
    policy = networks.make_policy(environment, hidden=hidden)
    every = _train_cartpole(environment, policy, hidden, seed)
    keys = jax.random.split(jax.random.key(seed + 30_000), 200)

    def mean_return(params: PyTree) -> jax.Array:
        return jnp.mean(evaluation.episode_returns(rollouts.episodes(environment, policy, params, keys))[0])

    returns = jax.jit(lambda every: jax.lax.map(mean_return, every))(every)
    chosen = int(jnp.argmin(jnp.abs(returns - 200.0)))
    expert = experts.from_policy(policy, jax.tree.map(lambda x: x[chosen], every))
    problem = with_expert("cartpole", environment, hidden, _Teacher(expert, "mediocre expert"))
    return problem, problem.expert_return(400, jax.random.key(seed + 20_000))


def _train_cartpole(environment: Environment, policy: Policy, hidden, seed: int, updates: int = 60):
    """θ before each of 60 updates and after the last, leaves `[61, ...]`."""
    ascent = dataclasses.replace(PLANS["cartpole"].ascent, learning_rate=0.01, lr_left=0.1)
    trainer = ascent.trainer(environment, policy, hidden, updates)

    def one(state, _):
        return trainer.update(state)[0], state.params

    @jax.jit
    def learn(key: jax.Array):
        last, every = jax.lax.scan(one, trainer.init(key), length=updates)
        return jax.tree.map(lambda rows, end: jnp.concatenate([rows, end[None]]), every, last.params)

    return learn(jax.random.key(seed))


def of_dataset(name: str, data: datasets.ExpertDataset, hidden: tuple[int, ...], num_episodes: int) -> Problem:
    """The problem with the episodes of a file instead of an expert. Every seed uses them in another order.

    Raises:
        ValueError: the file has too few episodes, or does not fit the environment.
    """
    environment = _environment(name)
    policy = networks.make_policy(environment, hidden=hidden)
    try:
        data.require_actions_in(environment.action_space)
    except datasets.DatasetError as error:
        raise ValueError(f"--dataset does not fit {name}: {error}") from error
    shape = tuple(environment.observation_space.shape)
    if data.observations.shape[1:] != shape:
        raise ValueError(
            f"--dataset: its observations have shape {data.observations.shape[1:]}, but those of {name} have {shape}"
        )
    with np.errstate(over="ignore"):
        observations = data.observations.astype(np.float32)
    if not np.isfinite(observations).all():
        raise ValueError("--dataset: its observations must fit float32, which has no number above 3.4e38")
    if data.num_episodes < num_episodes:
        raise ValueError(
            f"--episodes {num_episodes}: must be at most {data.num_episodes}, the number of episodes in the data set"
        )
    numbers = jnp.asarray(data.episode_numbers)
    rows = Demonstrations(
        obs=jnp.asarray(observations),
        actions=jnp.asarray(data.actions),
        weights=jnp.ones(data.num_rows),
        groups=numbers,
    )

    def demonstrate(key: jax.Array, num_episodes: int) -> Demonstrations:
        order = jax.random.permutation(key, data.num_episodes)
        groups = order[numbers].astype(jnp.int32)
        return rows._replace(groups=groups, weights=(groups < num_episodes).astype(rows.weights.dtype))

    def expert_return(num_episodes: int, key: jax.Array) -> tuple[float, float]:
        if data.rewards is None:
            return float("nan"), float("nan")
        totals = np.add.reduceat(data.rewards, np.append(0, np.flatnonzero(data.episode_ends)[:-1] + 1))
        return float(totals.mean()), float(totals.std(ddof=1) / len(totals) ** 0.5) if len(totals) > 1 else float("nan")

    return Problem(
        name=PLANS[name].env,
        environment=environment,
        policy=policy,
        hidden=hidden,
        expert=None,
        expert_name="the file",
        controller=None,
        loss="squared_error" if name == "pendulum" else "negative_log_likelihood",
        noise=0.0,
        collect=None,
        demonstrate=demonstrate,
        expert_return=expert_return,
    )
