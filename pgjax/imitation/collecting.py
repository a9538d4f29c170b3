"""Episodes in which a mixture of expert and learner acts, and what the expert would do at every visited state.

Axes: T time, B episodes, N = T B rows, A actions.
"""

from typing import Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from pgjax import rollouts
from pgjax._checks import require_in_range, require_integer, require_one_of
from pgjax._doors import readable
from pgjax.acting import require_memoryless
from pgjax.imitation import cloning_losses
from pgjax.imitation.experts import Expert
from pgjax.types import Box, Environment, Policy, PyTree, Trajectory

Mixing = Literal["step", "episode"]


class Demonstrations(NamedTuple):
    """What the expert would do in N states; the expert or the learner may have visited them.

    Attributes:
        obs: X, leaves `[N, ...]`.
        actions: the expert's actions A*, `[N, ...]`.
        weights: float `[N]`, 1 for a state of a running episode and 0 for padding.
        groups: int32 `[N]`, the number of the episode, so that a split can keep episodes whole.
        log_probs: ln π*(·|X) `[N, A]`, or None if the expert does not know them.
    """

    obs: PyTree
    actions: jax.Array
    weights: jax.Array
    groups: jax.Array
    log_probs: jax.Array | None = None


class Labelled(NamedTuple):
    """A trajectory `[T, B]` with the expert's `actions` `[T, B, ...]` and `log_probs` `[T, B, A]` or None."""

    trajectory: Trajectory
    actions: jax.Array
    log_probs: jax.Array | None


@readable
def label(key: jax.Array, expert: Expert, trajectory: Trajectory) -> Labelled:
    """Ask the expert at every state of a trajectory. Its answers are drawn anew, apart from the executed actions."""
    keys = jax.random.split(key, trajectory.alive.shape)
    twice = lambda function: jax.vmap(jax.vmap(function))
    log_probs = None if expert.log_probs is None else twice(expert.log_probs)(trajectory.obs)
    return Labelled(trajectory=trajectory, actions=twice(expert.act)(keys, trajectory.obs), log_probs=log_probs)


@readable
def collect(
    key: jax.Array,
    environment: Environment,
    policy: Policy,
    params: PyTree,
    expert: Expert,
    num_episodes: int,
    *,
    beta: ArrayLike = 0.0,
    mixing: Mixing = "step",
    acting_expert: Expert | None = None,
) -> Labelled:
    """B episodes of the mixture β π* + (1 − β) π_θ, with the expert's answer at every visited state.

    Args:
        key: consumed.
        beta: β in [0, 1]; may be traced.
        mixing: how often it is decided at random who acts: at each `"step"`, as in the mixture of Ross et al., or once
            for each `"episode"`.
        acting_expert: an expert that acts in the place of `expert`, such as a noisy copy; the answers are still those
            of `expert`.

    Raises:
        ValueError: for β outside [0, 1], B < 1, an unknown name, or a policy that needs its memory.

    Source: Ross, Gordon & Bagnell (2011), algorithm 3.1.
    """
    apply = require_memoryless(policy, "imitation.collect")
    require_in_range("beta", beta, 0.0, 1.0)
    require_integer("num_episodes", num_episodes, 1, None)
    require_one_of("mixing", mixing, get_args(Mixing))
    acting_expert = expert if acting_expert is None else acting_expert
    rollout_key, label_key = jax.random.split(key)

    def sample(key: jax.Array, outputs: tuple) -> jax.Array:
        mix_key, expert_key, learner_key = jax.random.split(key, 3)
        parameters, obs, share = outputs
        action = policy.distribution.sample(learner_key, parameters)
        by_expert = acting_expert.act(expert_key, obs)
        return cloning_losses.mix(mix_key, share, jnp.asarray(by_expert, action.dtype), action)

    mixture = policy._replace(
        apply=lambda params, seen: (apply(params, seen[0]), *seen),
        memory=None,
        distribution=policy.distribution._replace(sample=sample),
    )
    shared = _with_share(environment, jnp.asarray(beta, float), mixing)
    trajectory = rollouts.episodes(shared, mixture, params, jax.random.split(rollout_key, num_episodes))
    trajectory = trajectory._replace(obs=trajectory.obs[0], final_obs=trajectory.final_obs[0])
    return label(label_key, expert, trajectory)


def _with_share(environment: Environment, beta: jax.Array, mixing: Mixing) -> Environment:
    """The environment that shows X_t and the expert's share in this episode: β, or 1 with probability β and else 0."""

    def reset(key: jax.Array, params: PyTree):
        reset_key, coin_key = jax.random.split(key)
        state, obs = environment.reset(reset_key, params)
        share = beta if mixing == "step" else jnp.asarray(jax.random.uniform(coin_key) < beta, beta.dtype)
        return (state, share), (obs, share)

    def step(key: jax.Array, state: PyTree, action: jax.Array, params: PyTree):
        inner, seen = environment.step(key, state[0], action, params)
        return (inner, state[1]), seen._replace(obs=(seen.obs, state[1]))

    return Environment(
        name=environment.name,
        reset=reset,
        step=step,
        params=environment.params,
        observation_space=(environment.observation_space, Box(low=0.0, high=1.0, shape=(), dtype=beta.dtype)),
        action_space=environment.action_space,
        horizon=environment.horizon,
    )


@readable
def demonstrations(labelled: Labelled) -> Demonstrations:
    """The T B rows of a labelled trajectory; rows of padding are included and have weight 0."""
    alive = labelled.trajectory.alive
    flat = lambda x: x.reshape(alive.size, *x.shape[2:])
    return Demonstrations(
        obs=jax.tree.map(flat, labelled.trajectory.obs),
        actions=flat(labelled.actions),
        weights=flat(alive).astype(float),
        groups=flat(jnp.broadcast_to(jnp.arange(alive.shape[1], dtype=jnp.int32), alive.shape)),
        log_probs=None if labelled.log_probs is None else flat(labelled.log_probs),
    )
