"""The gradients whose noise is known exactly: problems, parametrisations of the policy, estimators and batch sizes.

Axes: T time, B episodes of a batch, k episodes of a group that share a start, P parameters.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.shared import problems
from experiments.shared.problems import Problem
from pgjax import baselines, estimators, exact, networks
from pgjax.distributions import categorical
from pgjax.types import Estimator, Policy, PyTree

VOCABULARY, TOKENS = 3, 3


class Case(NamedTuple):
    """One gradient: a problem with a policy at θ, the weights of the estimator, and the size of its batch.

    Attributes:
        weights: the arguments of `estimators.make_weighting`, which are also those of `make_estimator`.
        batch, group: B and k.
        joint: whether the weights compare all episodes of the batch, so that its parts depend on each other.
        over_time: how the steps of an episode are combined, as in `estimators.make_estimator`.
    """

    name: str
    problem: Problem
    weights: dict[str, Any]
    batch: int
    group: int = 1
    joint: bool = False
    over_time: str = "sum"

    @property
    def policy(self) -> Policy:
        """The policy, whose first parameters are θ."""
        params = self.problem.params

        def init(key: jax.Array, obs: PyTree) -> PyTree:
            del key, obs
            return params

        return self.problem.policy._replace(init=init)

    @property
    def estimator(self) -> Estimator:
        return estimators.make_estimator(self.policy, over_time=self.over_time, **self.weights)


def _weights(name: str, problem: Problem, group: int) -> dict[str, Any]:
    """The arguments that make the estimator of this name in the registry."""
    total, to_go = estimators.total_return(), estimators.reward_to_go()
    made: dict[str, Callable[[], dict[str, Any]]] = {
        "reinforce": lambda: {"returns": total},
        "gpomdp": lambda: {"returns": to_go},
        "gpomdp_value": lambda: {"returns": to_go, "baseline": problem.parts.value},
        "rloo": lambda: {
            "returns": total,
            "baseline": baselines.leave_one_out(group_size=group if group > 1 else None),
        },
    }
    return made[name]()


def make_case(name: str, problem: Problem, estimator: str, batch: int, group: int = 1, over_time: str = "sum") -> Case:
    joint = estimator == "rloo" and group == 1
    weights = _weights(estimator, problem, group)
    return Case(name=name, problem=problem, weights=weights, batch=batch, group=group, joint=joint, over_time=over_time)


def graded(seed: int, bandit: bool) -> list[Case]:
    """The gradients on which the meter is graded; `bandit` leaves out all problems of more than one step."""
    names = ("bandit",) if bandit else ("bandit", "corridor", "random")
    made = {name: problems.make_problem(name, "random", seed, (), 0) for name in names}
    chosen = [
        ("bandit", "reinforce", 8, 1),
        ("bandit", "rloo", 8, 4),
        ("bandit", "reinforce", 64, 1),
        ("corridor", "reinforce", 8, 1),
        ("corridor", "gpomdp", 8, 1),
        ("corridor", "gpomdp", 64, 1),
        ("corridor", "gpomdp_value", 8, 1),
        ("random", "gpomdp", 2, 1),
        ("random", "gpomdp", 8, 1),
        ("random", "gpomdp_value", 64, 1),
        ("random", "rloo", 8, 2),
        ("random", "rloo", 64, 2),
        ("bandit", "rloo", 8, 1),
    ]
    return [
        make_case(
            f"{problem}, {estimator}{f' in groups of {group}' if group > 1 else ''}, B = {batch}",
            made[problem],
            estimator,
            batch,
            group,
        )
        for problem, estimator, batch, group in chosen
        if problem in made
    ]


def compared(seed: int, bandit: bool) -> list[Case]:
    """The gradients on which the meter stands beside verl's proxies; `bandit` as in `graded`."""
    table = lambda name: problems.make_problem(name, "random", seed, (), 0)
    arms = table("bandit")
    cases = [
        make_case("bandit, one logit for each arm; REINFORCE", arms, "reinforce", 8),
        make_case("bandit, network of 16 units; REINFORCE", _network(arms, seed), "reinforce", 8),
        make_case("bandit, one logit for each arm; RLOO in groups of 4", arms, "rloo", 8, 4),
    ]
    if bandit:
        return cases
    each, shared = text(seed, shared=False), text(seed, shared=True)
    corridor, random = table("corridor"), table("random")
    return [
        *cases,
        make_case("3 tokens, logits for each prefix; REINFORCE", each, "reinforce", 8),
        make_case("3 tokens, logits for each prefix; token mean", each, "reinforce", 8, over_time="mean"),
        make_case("3 tokens, logits for the last token; REINFORCE", shared, "reinforce", 8),
        make_case("corridor, logits for each state; REINFORCE", corridor, "reinforce", 8),
        make_case("corridor, logits for each state; Gₜ − v(Xₜ)", corridor, "gpomdp_value", 8),
        make_case("random, logits for each state; Gₜ − v(Xₜ)", random, "gpomdp_value", 8),
    ]


def _network(problem: Problem, seed: int) -> Problem:
    """The problem with a network as policy."""
    environment = problem.environment
    policy = networks.make_policy(environment, hidden=(16,))
    _, obs = environment.reset(jax.random.key(0), environment.params)
    # The last layer begins near 0; larger weights make the arms differ.
    params = jax.tree.map(lambda x: x + 0.5 * jax.random.normal(jax.random.key(seed), x.shape), policy.init(
        jax.random.key(seed), obs
    ))  # fmt: skip
    return problems.with_oracle(problem.name, environment, policy, params, ())


def text(seed: int, *, shared: bool) -> Problem:
    """Answers of three tokens out of three, with random rewards.

    Args:
        shared: whether the policy sees the last token alone, so that places share their logits; otherwise each prefix
            has logits of its own, which an episode meets at most once.
    """
    answers = exact.enumerate_answers(VOCABULARY, TOKENS)
    powers = VOCABULARY ** np.arange(TOKENS)

    def prefix(tokens: jax.Array, length: jax.Array) -> jax.Array:
        number = jnp.sum(jnp.where(jnp.arange(TOKENS) < length, tokens * powers, 0))
        first = (VOCABULARY**length - 1) // (VOCABULARY - 1)  # the number of shorter prefixes
        return jax.nn.one_hot(first + number, answers.num_prefixes)

    def last(tokens: jax.Array, length: jax.Array) -> jax.Array:
        return jax.nn.one_hot(jnp.where(length > 0, tokens[length - 1], VOCABULARY), VOCABULARY + 1)

    rewards = np.random.default_rng(seed).normal(0.5, 1.0, answers.num_answers)
    with jax.enable_x64(True):
        environment = exact.to_environment(exact.text_mdp(answers, last if shared else prefix, rewards))
    shape = (environment.observation_space.shape[0], VOCABULARY)
    policy = Policy(
        init=lambda key, obs: jnp.zeros(shape), apply=lambda params, obs: obs @ params, distribution=categorical
    )
    params = 0.7 * jax.random.normal(jax.random.key(seed), shape)
    return problems.with_oracle("text", environment, policy, params, ())
