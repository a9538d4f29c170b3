"""Behavioural cloning, DAgger and DART: one loop of rounds; the algorithms differ in who acts.

Axes: T time, B episodes a round, R rounds, N = R T B rows.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from pgjax import evaluation
from pgjax._checks import require_in_range, require_integer, require_one_of
from pgjax._doors import readable
from pgjax.acting import require_memoryless
from pgjax.imitation import cloning_losses, experts
from pgjax.imitation.collecting import Demonstrations, Labelled, Mixing, collect, demonstrations
from pgjax.imitation.experts import Expert
from pgjax.imitation.fitting import Fitter
from pgjax.spaces import Discrete
from pgjax.types import Environment, Policy, PyTree

Refit = Literal["anew", "continue"]


_WHO = "learning from an expert"


class ImitationRun(NamedTuple):
    """R rounds of imitation.

    Attributes:
        params: θ after the last round.
        round_params: θ after each round, leaves `[R, ...]`.
        demonstrations: the expert's answers of all rounds, one round after another, N = R T B rows.
        mean_returns: the mean return of the episodes collected in each round, `[R]`, whoever acted in them.
        levels: the expert's share β in each round (DAgger), or the size of the expert's noise (DART), `[R, ...]`.
    """

    params: PyTree
    round_params: PyTree
    demonstrations: Demonstrations
    mean_returns: jax.Array
    levels: jax.Array


def _rounds(
    key: jax.Array,
    environment: Environment,
    policy: Policy,
    fit: Fitter,
    gather: Callable[..., Labelled],
    next_level: Callable[..., jax.Array],
    level: jax.Array,
    num_rounds: int,
    refit: Refit,
) -> ImitationRun:
    """The loop of all algorithms: `gather(key, params, level)`, add to the data, `next_level(key, …)`, and fit."""
    require_memoryless(policy, _WHO)
    require_integer("num_rounds", num_rounds, 1, None)
    require_one_of("refit", refit, get_args(Refit))
    init_key, run_key = jax.random.split(key)
    start = policy.init(init_key, environment.reset(jax.random.key(0), environment.params)[1])
    shapes = jax.eval_shape(lambda: demonstrations(gather(run_key, start, level)))
    buffers = jax.tree.map(lambda x: jnp.zeros((num_rounds, *x.shape), x.dtype), shapes)
    together = lambda buffers: jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), buffers)

    def one(carry, i: jax.Array):
        params, level, buffers = carry
        gather_key, level_key, fit_key = jax.random.split(jax.random.fold_in(run_key, i), 3)
        labelled = gather(gather_key, params, level)
        new = demonstrations(labelled)
        num_episodes = labelled.trajectory.alive.shape[1]
        new = new._replace(groups=new.groups + i * num_episodes)
        buffers = jax.tree.map(lambda buffer, x: buffer.at[i].set(x), buffers, new)
        following = next_level(level_key, i, params, new, level)
        params = fit(fit_key, start if refit == "anew" else params, together(buffers))
        mean_return = jnp.mean(evaluation.episode_returns(labelled.trajectory)[0])
        return (params, following, buffers), (params, mean_return, level)

    carry = (start, level, buffers)
    (params, _, buffers), (round_params, mean_returns, levels) = jax.lax.scan(one, carry, jnp.arange(num_rounds))
    return ImitationRun(
        params=params,
        round_params=round_params,
        demonstrations=together(buffers),
        mean_returns=mean_returns,
        levels=levels,
    )


@readable
def dagger(
    key: jax.Array,
    environment: Environment,
    expert: Expert,
    policy: Policy,
    fit: Fitter,
    *,
    num_rounds: int,
    num_episodes: int,
    schedule: Callable[[ArrayLike], ArrayLike] | None = None,
    mixing: Mixing = "step",
    refit: Refit = "anew",
) -> ImitationRun:
    """DAgger: D ← D ∪ {(X, π*(X)) of episodes of β_i π* + (1 − β_i) π_i}, then π_{i+1} ← fit(D), for R rounds.

    Args:
        key: the run is a function of it; vmap over keys for several seeds.
        fit: `(key, params, demonstrations) → params`, such as `gradient_fit` or `table_fit`.
        num_rounds: R.
        num_episodes: B, the number of episodes of a round.
        schedule: the function from the round (from 0) to β, such as `linear_schedule`; None lets the expert act in the
            first round and the learner in all others.
        mixing: see `collect`.
        refit: where each fit starts: `"anew"` from the same initial θ, as in the theory, or `"continue"` from the last
            θ.

    Returns:
        An `ImitationRun`, whose `levels` are β_i.

    Raises:
        ValueError: for a number below 1 or an unknown name.

    Source: Ross, Gordon & Bagnell (2011), algorithm 3.1.
    """
    schedule = cloning_losses.indicator_schedule() if schedule is None else schedule
    gather = lambda key, params, beta: collect(
        key, environment, policy, params, expert, num_episodes, beta=beta, mixing=mixing
    )
    share = lambda i: jnp.asarray(schedule(i), float)
    next_level = lambda key, i, params, new, level: share(i + 1)
    return _rounds(key, environment, policy, fit, gather, next_level, share(jnp.int32(0)), num_rounds, refit)


@readable
def behavioural_cloning(
    key: jax.Array, environment: Environment, expert: Expert, policy: Policy, fit: Fitter, *, num_episodes: int
) -> ImitationRun:
    """A fit to B episodes in which the expert acts: one round of `dagger` with β = 1.

    Source: Pomerleau (1989).
    """
    always = lambda _: 1.0
    return dagger(key, environment, expert, policy, fit, num_rounds=1, num_episodes=num_episodes, schedule=always)


@readable
def dart(
    key: jax.Array,
    environment: Environment,
    expert: Expert,
    policy: Policy,
    fit: Fitter,
    *,
    num_rounds: int,
    num_episodes: int,
    level: ArrayLike,
    fitted: bool = True,
    refit: Refit = "anew",
) -> ImitationRun:
    """DART: the expert acts with noise and answers without noise, so its answers show how to recover from errors.

    The size of the noise follows the learner's errors. A discrete action is replaced by a random one with probability
    ε, where ε (1 − 1/A) = P(A ≠ A*). A continuous action becomes A* + σ z, clipped to the bounds of the action space,
    where σ² = E (A − A*)² for each dimension. A ~ f(X, θ) is the learner's action, so pass `evaluation.greedy(policy)`
    for a learner that will act greedily. ε and σ are measured on the demonstrations of a round before the fit to them,
    and used in the next round, so from the third round on. If the learner makes no errors in the states of a round, the
    next round has no noise.

    Args:
        level: ε or σ of the first two rounds, or of all rounds if `fitted` is false; σ may have the action's shape.
        fitted: whether the level follows the learner's errors.
        key, fit, num_rounds, num_episodes, refit: as in `dagger`.

    Returns:
        An `ImitationRun`, whose `levels` are ε `[R]`, or σ `[R, ...]` for continuous actions.

    Raises:
        ValueError: for a level below 0, for ε above 1, and as `dagger`.

    Source: Laskey, Lee, Fox, Dragan & Goldberg (2017), algorithm 1, without its prior scale of the noise.
    """
    apply, space = require_memoryless(policy, _WHO), environment.action_space
    discrete = isinstance(space, Discrete)
    require_in_range("level", level, 0.0, 1.0 if discrete else None)
    level = jnp.broadcast_to(jnp.asarray(level, float), () if discrete else tuple(space.shape))

    def gather(key: jax.Array, params: PyTree, level: jax.Array) -> Labelled:
        if discrete:
            noisy = experts.noisy(expert, level, space.n)
        else:
            noisy = experts.perturbed(expert, level, low=np.asarray(space.low), high=np.asarray(space.high))
        return collect(key, environment, policy, params, expert, num_episodes, beta=1.0, acting_expert=noisy)

    def next_level(key: jax.Array, i: jax.Array, params: PyTree, new: Demonstrations, level: jax.Array) -> jax.Array:
        if not fitted:
            return level
        act = lambda key, obs: policy.distribution.sample(key, apply(params, obs))
        actions = jax.vmap(act)(jax.random.split(key, new.weights.shape[0]), new.obs)
        mean = lambda x: jnp.tensordot(new.weights, x, 1) / jnp.sum(new.weights)
        if discrete:
            missed = mean((actions != new.actions).astype(new.weights.dtype))
            found = jnp.minimum(missed * space.n / max(space.n - 1, 1), 1.0)
        else:
            found = jnp.sqrt(mean(jnp.square(actions - new.actions)))
        # Before the first fit the learner's errors are those of its random initial θ, so they are not used.
        return jnp.where(i == 0, level, found).astype(level.dtype)

    return _rounds(key, environment, policy, fit, gather, next_level, level, num_rounds, refit)
