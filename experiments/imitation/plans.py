"""The values that `experiments.imitation` uses for options that the command line leaves out, and how each copy goes on.

The numbers were chosen with the seeds 100 and 101, which no result uses.
"""

import dataclasses
from typing import Any, Literal

import optax

from pgjax import baselines, networks, registry, training
from pgjax.types import Environment, Policy

Name = Literal["cartpole", "pendulum", "maze", "random_maze", "navigation", "cooling"]


@dataclasses.dataclass(frozen=True)
class Ascent:
    """The policy gradient that goes on from a copy.

    Attributes:
        estimator, settings: a name of `pgjax.registry`, and its settings.
        learning_rate: η of Adam.
        lr_left: the fraction of η that is left at the end.
        held: the share of the updates, at the start, in which θ does not move. In them v(X_t) learns the values of the
            copy, so that the weights of an untrained v cannot move it.
        value_lr, value_steps: the learning rate and the number of gradient steps of v in each update.
        num_episodes, num_steps: B and the length of a window; None for complete episodes.
        epochs: the number of gradient steps on each batch.
        max_grad_norm: the largest norm of the gradient, or None.
        least_std: the least σ of a Gaussian copy at the start. A copy of 20 days of cooling has σ = 0.06; with σ = 0.2
            the same 60 updates reached a PUE of 1.211 instead of 1.225.
    """

    estimator: str
    settings: dict[str, Any]
    learning_rate: float
    lr_left: float = 0.1
    held: float = 0.0
    value_lr: float = 0.001
    value_steps: int = 2
    num_episodes: int = 64
    num_steps: int | None = None
    epochs: int = 1
    max_grad_norm: float | None = 0.5
    least_std: float = 0.0

    def num_held(self, num_updates: int) -> int:
        """The number of updates in which θ does not move."""
        return int(self.held * num_updates)

    def schedule(self, num_updates: int) -> optax.Schedule:
        """The learning rate of each gradient step: 0 in the updates that are held, then falling from η."""
        rate, held = self.learning_rate, self.num_held(num_updates)
        falling = optax.linear_schedule(rate, self.lr_left * rate, (num_updates - held) * self.epochs)
        return optax.join_schedules([optax.constant_schedule(0.0), falling], [held * self.epochs])

    def trainer(self, environment: Environment, policy: Policy, hidden, num_updates: int) -> training.Trainer:
        """The trainer of `num_updates` updates, with a value network of the policy's width."""
        init, apply = networks.make_value(environment, hidden=hidden)
        value = baselines.value_function(init, apply, optax.adam(self.value_lr), num_steps=self.value_steps)
        parts = registry.Parts(policy=policy, value=value, settings=registry.Settings(**self.settings))
        most = self.max_grad_norm
        before = optax.identity() if most is None else optax.clip_by_global_norm(most)
        return training.make_trainer(
            environment,
            policy,
            registry.make(self.estimator, parts),
            optax.chain(before, optax.adam(self.schedule(num_updates))),
            num_episodes=self.num_episodes,
            num_steps=self.num_steps,
            epochs=self.epochs,
        )


@dataclasses.dataclass(frozen=True)
class Plan:
    """The options of one problem.

    Attributes:
        env: the name of the environment in `pgjax.environments`.
        episodes, seeds, eval_episodes, epochs, hidden, algorithms: options of `Config`.
        pass_seeds, pass_updates: options of `Config`; no updates where no policy gradient goes on.
        ascent: how the copy goes on, or None.
        shown: the measures in the figure.
    """

    env: str
    episodes: tuple[int, ...] = (1, 2, 5, 10, 20)
    seeds: int = 20
    eval_episodes: int = 50
    epochs: int = 40
    hidden: tuple[int, ...] = (64, 64)
    algorithms: tuple[str, ...] = ("cloning", "dagger", "dart")
    pass_seeds: int = 10
    pass_updates: int = 0
    ascent: Ascent | None = None
    shown: tuple[str, ...] = ("return",)


_WINDOWS = {"over_time": "mean", "standardise": "population"}

PLANS: dict[str, Plan] = {
    "cartpole": Plan(
        env="CartPole-v1",
        pass_updates=60,
        ascent=Ascent(
            "gpomdp_value", {}, 0.003, lr_left=1.0, value_lr=0.01, value_steps=4, num_episodes=32, max_grad_norm=None
        ),
    ),
    "pendulum": Plan(env="Pendulum-v1", episodes=(5, 10, 20, 50, 100)),
    # The expert is the best policy, so the policy gradient can reach it and not pass it.
    "maze": Plan(
        env="maze",
        pass_updates=200,
        ascent=Ascent(
            "gae",
            _WINDOWS | {"discount": 0.97, "lambda_": 0.95, "entropy_coef": 0.01},
            0.005,
            held=0.1,
            value_lr=0.01,
            num_steps=32,
        ),
    ),
    # A convolution reads the way from the walls. It is slow, so the policy gradient is short: the preset of
    # experiments.train makes fifty times as many updates.
    "random_maze": Plan(
        env="random_maze",
        episodes=(20, 100, 500),
        seeds=3,
        eval_episodes=500,
        epochs=15,
        hidden=(128,),
        algorithms=("cloning", "dagger"),
        pass_seeds=3,
        pass_updates=60,
        ascent=Ascent(
            "gae",
            _WINDOWS | {"discount": 0.97, "lambda_": 0.9, "entropy_coef": 0.01},
            0.001,
            held=0.1,
            value_steps=1,
            num_episodes=64,
            num_steps=32,
        ),
        shown=("success", "return"),
    ),
    "navigation": Plan(
        env="navigation",
        episodes=(5, 20, 100),
        seeds=5,
        eval_episodes=500,
        algorithms=("cloning", "dagger"),
        pass_seeds=5,
        pass_updates=300,
        ascent=Ascent(
            "gae",
            _WINDOWS | {"discount": 0.99, "lambda_": 0.95},
            0.001,
            held=0.1,
            num_episodes=128,
            num_steps=32,
        ),
        shown=("success", "return"),
    ),
    "cooling": Plan(
        env="cooling",
        episodes=(1, 5, 20),
        seeds=5,
        eval_episodes=100,
        algorithms=("cloning", "dagger"),
        pass_seeds=5,
        pass_updates=100,
        ascent=Ascent(
            "ppo_gae",
            _WINDOWS | {"discount": 0.9, "lambda_": 0.9},
            0.001,
            held=0.1,
            value_lr=0.003,
            value_steps=4,
            num_episodes=16,
            epochs=4,
            least_std=0.2,
        ),
        shown=("PUE", "share of the time above 27 °C"),
    ),
}
