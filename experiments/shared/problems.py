"""Problems with a policy at a fixed θ, on which gradient estimates are measured; with an oracle where there is one."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from pgjax import baselines, environments, exact, networks, registry, training
from pgjax.baselines import critics
from pgjax.distributions import categorical
from pgjax.environments.corridor import corridor_mdp
from pgjax.environments.maze import TINY_LAYOUT, maze_mdp
from pgjax.exact import TabularMDP
from pgjax.saving import policies
from pgjax.spaces import Discrete
from pgjax.types import Environment, Estimator, Policy, PyTree

POLICIES = ("fresh", "random", "trained")


class Truth(NamedTuple):
    """The exact numbers of a tabular problem at θ, in float64, with which estimates are compared.

    Attributes:
        objective: ρ(θ).
        gradient: ∇ρ(θ), flat `[P]`.
        natural_gradient: F⁺ ∇ρ(θ), flat `[P]`.
        largest_term: T max|R| √tr F, the size of G S before anything is subtracted from G; F is the Fisher information.
    """

    objective: float
    gradient: np.ndarray
    natural_gradient: np.ndarray
    largest_term: float


class Problem(NamedTuple):
    """A policy at θ in an environment.

    Attributes:
        params: θ in float32.
        parts: the parts from which estimators are built. v(X_t) and q(X_t, ·) are those of the oracle, or networks that
            are fitted first.
        truth: the exact numbers; None if there is no oracle.
    """

    name: str
    environment: Environment
    params: PyTree
    parts: registry.Parts
    truth: Truth | None

    @property
    def policy(self) -> Policy:
        return self.parts.policy

    def estimator(self, entry: registry.Entry) -> Estimator:
        return registry.make(entry, self.parts)

    def in_groups(self, group_size: int) -> "Problem":
        """The problem whose episodes share a start, `group_size` at a time."""
        return self._replace(parts=self.parts._replace(group_size=group_size))


def _bandit() -> TabularMDP:
    """Three arms that pay 1, 0.7 and 0 (Chung et al. 2021)."""
    return exact.make_bandit(np.array([1.0, 0.7, 0.0]))


TABULAR: dict[str, Callable[[], TabularMDP]] = {
    "corridor": lambda: corridor_mdp(horizon=8, observe_state=True),
    "bandit": _bandit,
    "maze": lambda: maze_mdp(TINY_LAYOUT, horizon=8),
    "random": lambda: exact.random_mdp(jax.random.key(0), 4, 2, 2, 3),
    "large": lambda: exact.random_mdp(jax.random.key(0), 20, 4, 3, 50),
}


def make_problem(name: str, policy: str, seed: int, hidden: tuple[int, ...], updates: int) -> Problem:
    """One of `TABULAR` with a softmax table as policy, or any environment by its name with a network.

    Args:
        policy: `"fresh"` is the initial θ; `"random"` a table θ ~ N(0, 0.7²) (tabular problems); `"trained"` is θ after
            `updates` updates of 32 episodes with G_t − v(X_t).

    Raises:
        ValueError: for an unknown environment, or a random policy where there is no table.
    """
    if name in TABULAR:
        with jax.enable_x64(True):
            environment = exact.to_environment(TABULAR[name]())
        shape = (environment.observation_space.shape[0], environment.action_space.n)
        table = Policy(
            init=lambda key, obs: jnp.zeros(shape), apply=lambda params, obs: obs @ params, distribution=categorical
        )
        params = 0.7 * jax.random.normal(jax.random.key(seed), shape) if policy == "random" else jnp.zeros(shape)
    else:
        environment = environments.make(name)
        if policy == "random":
            raise ValueError(f"--policy random: must be fresh or trained for {name}, whose policy is a network")
        table = networks.make_policy(environment, hidden=hidden)
        _, obs = environment.reset(jax.random.key(0), environment.params)
        params = table.init(jax.random.key(seed), obs)
    if policy == "trained":
        params = _train(environment, table, hidden, seed, updates)
    return with_oracle(name, environment, table, params, hidden)


def _train(environment: Environment, policy: Policy, hidden: tuple[int, ...], seed: int, updates: int) -> PyTree:
    init, apply = networks.make_value(environment, hidden=hidden)
    value = baselines.value_function(init, apply, optax.adam(0.01), num_steps=4)
    estimator = registry.make("gpomdp_value", registry.Parts(policy=policy, value=value))
    trainer = training.make_trainer(environment, policy, estimator, optax.adam(0.01), num_episodes=32)
    state = trainer.init(jax.random.key(seed))
    return jax.jit(lambda s: jax.lax.fori_loop(0, updates, lambda _, s: trainer.update(s)[0], s))(state).params


def with_oracle(
    name: str, environment: Environment, policy: Policy, params: PyTree, hidden: tuple[int, ...]
) -> Problem:
    """The problem at θ. An environment whose parameters are a `TabularMDP` has an oracle."""
    if isinstance(environment.params, TabularMDP) and isinstance(environment.action_space, Discrete):
        return _tabular(name, environment, policy, params)
    return _of_networks(name, environment, policy, params, hidden)


def make_network_problem(name: str, seed: int, hidden: tuple[int, ...], updates: int) -> Problem:
    """Any environment with networks for policy, v and q, also if it is tabular, after `updates` updates of training."""
    environment = environments.make(name)
    policy = networks.make_policy(environment, hidden=hidden)
    params = _train(environment, policy, hidden, seed, updates)
    return _of_networks(name, environment, policy, params, hidden)


def _of_networks(
    name: str, environment: Environment, policy: Policy, params: PyTree, hidden: tuple[int, ...]
) -> Problem:
    init, apply = networks.make_value(environment, hidden=hidden)
    discrete = isinstance(environment.action_space, Discrete)
    q_init, q_apply = networks.make_action_values(environment, hidden=hidden) if discrete else (None, None)
    critic = critics.action_value_function(q_init, q_apply, optax.adam(0.01), num_steps=4) if discrete else None
    value = baselines.value_function(init, apply, optax.adam(0.01), num_steps=4)
    parts = registry.Parts(policy=policy, value=value, critic=critic)
    return Problem(name=name, environment=environment, params=params, parts=parts, truth=None)


def _tabular(name: str, environment: Environment, policy: Policy, params: PyTree) -> Problem:
    with jax.enable_x64(True):
        mdp = jax.tree.map(in_float64, environment.params)
        # Probabilities were rounded to float32 for sampling, and sum to one again only after this.
        total = lambda x: x / jnp.sum(x, axis=-1, keepdims=True)
        mdp = dataclasses.replace(mdp, probabilities=total(mdp.probabilities), initial=total(mdp.initial))
        oracle, truth = _solve(mdp, policy, jax.tree.map(in_float64, params))
    states = registry.states_of(mdp)
    first = np.array([int(states.index_of(obs)) for obs in np.asarray(mdp.observations)])
    values, action_values = oracle.values[first], oracle.action_values[first]
    parts = registry.Parts(
        policy=policy,
        value=baselines.state_values(lambda obs: jnp.asarray(values.astype(obs.dtype))[states.index_of(obs)]),
        critic=critics.action_values(lambda obs: jnp.asarray(action_values.astype(obs.dtype))[states.index_of(obs)]),
        states=states,
        oracle=oracle._replace(values=values, action_values=action_values),
    )
    return Problem(name=name, environment=environment, params=params, parts=parts, truth=truth)


def in_float64(x: jax.Array) -> jax.Array:
    """Floating-point leaves in float64, with 64-bit numbers enabled; keys and integers as they are."""
    return jnp.asarray(np.asarray(x, np.float64)) if jnp.issubdtype(x.dtype, jnp.floating) else x


def _solve(mdp: TabularMDP, policy: Policy, params: PyTree) -> tuple[registry.Oracle, Truth]:
    flat = lambda tree: np.concatenate([np.ravel(x) for x in jax.tree.leaves(tree)])
    # One program: compiled one by one, some hundred operations would leave more memory behind than they need.
    solved = jax.jit(functools.partial(_exact_numbers, policy.apply))(params, mdp)
    visits, values = np.asarray(solved["visits"]), solved["values"]
    # States with equal observations share one number, because v and q are functions of the observation.
    observations = np.asarray(mdp.observations).reshape(mdp.num_states, -1)
    alike = np.all(observations[:, None] == observations[None], axis=2).astype(float)
    weights = np.maximum(alike @ visits.sum(0), 1e-300)
    average = lambda x: np.tensordot(alike, np.einsum("ts,ts...->s...", visits, np.asarray(x)), 1)
    shaped = lambda x: average(x) / weights.reshape(-1, *[1] * (np.ndim(x) - 2))
    oracle = registry.Oracle(
        mdp=mdp,
        values=shaped(values),
        values_in_time=np.asarray(values),
        action_values=shaped(solved["action_values"]),
        best_constant=float(solved["best_constant"]),
    )
    truth = Truth(
        objective=float(solved["objective"]),
        gradient=flat(solved["gradient"]),
        natural_gradient=flat(solved["natural_gradient"]),
        largest_term=mdp.horizon * float(jnp.max(jnp.abs(mdp.rewards))) * float(solved["information"]) ** 0.5,
    )
    return oracle, truth


def _exact_numbers(apply: Callable, params: PyTree, mdp: TabularMDP) -> dict[str, Any]:
    """The exact numbers of the oracle; `information` is tr F."""
    table = exact.policy_probabilities(apply, params, mdp)
    visits = exact.visitation(mdp, table)
    squared_scores = jnp.sum(jnp.square(exact.score_table(apply, params, mdp)), axis=-1)
    return {
        "visits": visits,
        "values": exact.state_values(mdp, table)[:-1],
        "action_values": exact.action_values(mdp, table),
        "objective": exact.objective(apply, params, mdp),
        "gradient": exact.exact_gradient(apply, params, mdp),
        "natural_gradient": exact.natural_gradient(apply, params, mdp),
        "best_constant": exact.optimal_constant_baseline(apply, params, mdp),
        "information": jnp.sum(visits.sum(axis=0) * jnp.sum(table * squared_scores, axis=1)),
    }


def load_problem(path: pathlib.Path, env: str | None, hidden: tuple[int, ...]) -> Problem:
    """The problem of a policy that `experiments.train` has saved, in the environment `env` or the one that it names."""
    environment, policy, params = policies.load_policy(path, env)
    return with_oracle(environment.name, environment, policy, params, hidden)
