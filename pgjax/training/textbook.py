"""REINFORCE as textbooks write it, in one function."""

import jax
import optax

from pgjax import baselines, estimators
from pgjax._checks import require_in_range, require_integer
from pgjax._doors import readable
from pgjax.baselines.simple import Initial
from pgjax.training.trainer import Metrics, make_trainer
from pgjax.types import Environment, Policy, TrainState


@readable
def reinforce(
    environment: Environment,
    policy: Policy,
    key: jax.Array,
    *,
    learning_rate: float,
    decay: float = 0.9,
    max_iters: int,
    num_episodes: int = 1,
    initial: Initial | float = "zero",
) -> tuple[TrainState, Metrics]:
    """REINFORCE(θ, η, β, max_iters) with a moving-average baseline (Williams 1992). One jit-able function.

        for each iteration: collect an episode;  ∇̂ = (G_1 − ρ̂) Σ_t ∇ ln f(X_t, θ)_{A_t};
                            θ ← θ + η ∇̂;  then  ρ̂ ← β ρ̂ + (1 − β) G_1

    With B = `num_episodes` > 1, ∇̂ and G_1 are means over B episodes; their expectations are the same.

    Args:
        learning_rate: η.
        decay: β.
        max_iters: the number of iterations.
        num_episodes: B, the number of episodes of each iteration.
        initial: the first value of ρ̂, see `pgjax.baselines.moving_average`.

    Returns:
        The final state and the metrics of every iteration, leaves `[max_iters]`.
    """
    require_in_range("learning_rate", learning_rate, 0.0, None)
    require_integer("max_iters", max_iters, 1, None)
    estimator = estimators.make_estimator(
        policy, returns=estimators.total_return(), baseline=baselines.moving_average(decay, initial)
    )
    trainer = make_trainer(environment, policy, estimator, optax.sgd(learning_rate), num_episodes=num_episodes)
    return jax.lax.scan(lambda state, _: trainer.update(state), trainer.init(key), length=max_iters)
