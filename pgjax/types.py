"""The records that all modules of pgjax take and return.

Row t of each time-major array holds X_t, A_t and R_{t+1}, the reward that A_t caused. The time t starts at 0 in the
code and at 1 in the mathematics. Axes: T time, B episodes, A actions, D features.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import numpy as np

from pgjax._layout import require_layout, time_major
from pgjax._records import PyTree as PyTree
from pgjax._records import one_line
from pgjax.spaces import Box as Box
from pgjax.spaces import Discrete as Discrete

# The words for conventions that several modules share and check.
ScoreNorm = Literal["vanilla", "natural"]
TimeWeights = Literal["none", "discount"]


class Step(NamedTuple):
    """The visible part of one transition: X_{t+1}, R_{t+1}, and whether the problem itself ended there."""

    obs: PyTree
    reward: jax.Array
    terminated: jax.Array

    def __repr__(self) -> str:
        return one_line(self)


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Environment:
    """A problem as a record of pure functions, (X_{t+1}, R_{t+1}) ~ p(X_t, A_t).

    `reset(key, params) → (state, obs)` draws X_1 ~ d_0. `step(key, state, action, params) → (state, Step)` is the plain
    transition, without an automatic reset and without a time limit. Only the rollout sets `truncated`, at `horizon`.
    `reset` and `step` return states and observations of the same structure, shapes and dtypes. The reward is a float
    scalar and `terminated` is a bool scalar. `pgjax.contracts.require_environment` checks all this.

    Attributes:
        name: the name in `pgjax.environments.make`.
        reset, step: pure functions of one episode; `jax.vmap` makes them functions of many.
        params: the default parameters, a pytree. Its leaves may be vmapped, so that episodes have different parameters
            (domain randomisation).
        observation_space, action_space: trees of `pgjax.spaces`; `spaces.as_space` converts the spaces of gymnax and
            Gymnasium.
        horizon: T, the greatest number of steps of an episode.
        render: `(state, obs, params) → uint8 [H, W, 3]`, a picture of one state that is drawn on the host; or None.
        action_mask: `obs → bool [A]`, true for the discrete actions that are allowed at X_t, at least one; None if all
            actions are always allowed.
        metrics: `(state, obs, params) → {name: scalar}`, numbers about a state, such as success, violations or clicks.
            `evaluation.evaluate` reports them together with the return; no estimator learns from them. None if there
            are none.
    """

    name: str
    reset: Callable[..., tuple[PyTree, PyTree]]
    step: Callable[..., tuple[PyTree, Step]]
    params: PyTree
    observation_space: Any
    action_space: Any
    horizon: int
    render: Callable[[PyTree, PyTree, PyTree], np.ndarray] | None = None
    action_mask: Callable[[PyTree], jax.Array] | None = None
    metrics: Callable[[PyTree, PyTree, PyTree], dict[str, jax.Array]] | None = None

    def __repr__(self) -> str:
        names = ("name", "horizon", "observation_space", "action_space")
        return f"Environment({', '.join(f'{name}={getattr(self, name)!r}' for name in names)})"


class Distribution(NamedTuple):
    """A family of action distributions as pure functions of its parameters, for one observation.

    The functions are `sample(key, parameters)`, `log_prob(parameters, action)`, `entropy(parameters)`, `kl(p, q)` and
    `mode(parameters)`; `parameters` is what `apply` of a policy returns. `entropy` or `kl` is None if it cannot be
    computed. Reports then leave it out; a function that needs it calls `distributions.require`, which raises an error.
    """

    sample: Callable[[jax.Array, PyTree], PyTree]
    log_prob: Callable[[PyTree, PyTree], jax.Array]
    entropy: Callable[[PyTree], jax.Array] | None
    kl: Callable[[PyTree, PyTree], jax.Array] | None
    mode: Callable[[PyTree], PyTree]

    def __repr__(self) -> str:
        return one_line(self)


class Memory(NamedTuple):
    """The memory of a policy within an episode, as functions of one episode; use `jax.vmap` for many.

    Attributes:
        start: `(params, obs) → carry` at X_1, the memory before the first action. A transformer reads its prompt here.
        step: `(params, carry, obs) → (carry, outputs)`; it reads X_t and returns the distribution's parameters for A_t.
        unroll: `(params, carry | None, obs [T, ...], starts bool [T] | None) → outputs [T, ...]`, the outputs of all
            rows at once. If carry is None, row 0 is X_1. `starts` marks the rows that are the X_1 of a new episode; if
            it is None, no row after row 0 is one. If the field `unroll` is None, a scan of `step` replaces it.
    """

    start: Callable[[PyTree, PyTree], PyTree]
    step: Callable[[PyTree, PyTree, PyTree], tuple[PyTree, PyTree]]
    unroll: Callable[[PyTree, PyTree | None, PyTree, jax.Array | None], PyTree] | None = None

    def __repr__(self) -> str:
        return one_line(self)


class Policy(NamedTuple):
    """f(x, θ): `init(key, obs) → params` and `apply(params, obs) → parameters` of `distribution`.

    Both functions take one observation; use `jax.vmap` for many. They are plain functions, so they can be made with
    flax.linen, flax.nnx or JAX alone.

    Attributes:
        init: draws θ.
        apply: the distribution's parameters as a function of X_t alone; None for a policy that needs its memory.
        distribution: the family of action distributions.
        memory: the memory of the policy; None for a policy without memory. If a policy has both `apply` and `memory`,
            both compute the same function: `exact` uses `apply`, and rollouts use `memory`, which is faster.
    """

    init: Callable[[jax.Array, PyTree], PyTree]
    apply: Callable[[PyTree, PyTree], PyTree] | None
    distribution: Distribution
    memory: Memory | None = None

    def __repr__(self) -> str:
        return one_line(self)


class Trajectory(NamedTuple):
    """B streams of T transitions, time-major.

    Attributes:
        obs: X_t, leaves `[T, B, ...]`.
        actions: A_t, leaves `[T, B, ...]`.
        rewards: R_{t+1}, `[T, B]`, 0 where not `alive`.
        alive: bool `[T, B]`, true while the episode runs; all other rows are padding, which nothing may depend on
            (`rollouts.episodes` fills it with zeros).
        terminated: bool `[T, B]`, true where the problem ended at this step, so that the value after it is 0.
        truncated: bool `[T, B]`, true where the horizon cut the episode, so that returns may bootstrap from
            v(`next_obs`).
        final_obs: the observation after the last live step of each stream, before any reset, leaves `[B, ...]`.
        next_obs: X_{t+1} before any reset, `[T, B, ...]`; only in windows, in which new episodes may begin.
        returns: G_t `[T, B]`; the estimator fills it in before its baseline sees the trajectory.
        score_norms: squared norms of the scores ∇ ln f(X_t, θ)_{A_t}, `[T, B]`; or of whole episodes, `[1, B]`, where
            those multiply G_1. The estimator fills it in for a baseline that needs it.
        behaviour_log_probs: ln f(X_t, θ_old)_{A_t} of the policy that acted, `[T, B]`. None means that θ itself acted.
        greedy_returns: G_1 of a greedy episode from the same start, the same in all rows, `[T, B]`; None if no such
            episode was played.
        carry: the memory of the policy at row 0 of a window, leaves `[B, ...]`, computed with the θ of earlier windows.
            None in complete episodes, which begin with `Memory.start`.
    """

    obs: PyTree
    actions: PyTree
    rewards: jax.Array
    alive: jax.Array
    terminated: jax.Array
    truncated: jax.Array
    final_obs: PyTree
    next_obs: PyTree | None = None
    returns: jax.Array | None = None
    score_norms: jax.Array | None = None
    behaviour_log_probs: jax.Array | None = None
    greedy_returns: jax.Array | None = None
    carry: PyTree | None = None

    def __repr__(self) -> str:
        shape = getattr(self.alive, "shape", ())
        size = f"T={shape[0]}, B={shape[1]}, " if len(shape) == 2 else ""
        return f"Trajectory({size}{one_line(self).removeprefix('Trajectory(')}"

    @classmethod
    def from_batch_major(cls, **fields: PyTree) -> "Trajectory":
        """A trajectory from fields with the axes `[B, T, ...]`, which many training loops use.

        The function exchanges the first two axes of all fields except `final_obs` and `carry`, which are `[B, ...]`. If
        you built a trajectory batch-major by mistake, use `Trajectory.from_batch_major(**trajectory._asdict())`.

        Args:
            **fields: the attributes of a trajectory by their names, `[B, T, ...]`.

        Raises:
            ValueError: if a field has a wrong shape or type; the message gives the right one.
            TypeError: if a field is missing or unknown.
        """
        given = cls(**fields)._asdict()
        require_layout(given, batch_major=True)
        return cls(**time_major(given))


class Rewards(NamedTuple):
    """The reward stage: it replaces the rewards of a collected trajectory and may have parameters and a state.

    Examples are a penalty for leaving a reference policy, a reward model that learns and a running scale
    (`pgjax.rewards`). No gradient flows through the stage.

    Attributes:
        init: `(key, params) → state`; `params` is the policy's θ at the start of training, for example for a reference.
        relabel: `(params, state, trajectory) → (trajectory, metrics)`, the trajectory with the new rewards.
        update: `(state, trajectory) → state`, called after the estimator has used the relabelled trajectory.
        needs_log_probs: whether `relabel` reads `trajectory.behaviour_log_probs`; the rollout then records them.
    """

    init: Callable[[jax.Array, PyTree], PyTree]
    relabel: Callable[[PyTree, PyTree, Trajectory], tuple[Trajectory, dict[str, jax.Array]]]
    update: Callable[[PyTree, Trajectory], PyTree]
    needs_log_probs: bool = False

    def __repr__(self) -> str:
        return one_line(self)


class Needs(NamedTuple):
    """What an estimator or a baseline needs beyond a plain trajectory; training and the diagnostics provide it.

    Attributes:
        scores: the norm of `trajectory.score_norms`, `"vanilla"` or `"natural"`; `"none"` if they are not needed.
        greedy_returns: whether `trajectory.greedy_returns` are needed, which cost a second episode for each episode.
        group_size: k, the number of consecutive episodes that share a start; None if the starts do not matter.
    """

    scores: ScoreNorm | Literal["none"] = "none"
    greedy_returns: bool = False
    group_size: int | None = None

    def __repr__(self) -> str:
        return one_line(self)


class Baseline(NamedTuple):
    """b(X_t), which an estimator subtracts from the return. *Use, then update.*

    The functions are `init(key, sample) → state`, `predict(state, trajectory) → b [T, B]` and
    `update(state, trajectory, returns) → (state, metrics)`. `predict` runs before `update` sees the same episodes. So b
    does not depend on the action that it weighs; a baseline that breaks this rule says so in its docstring.

    Attributes:
        of_observation: true if row t of `predict` is a function of row t of `obs` alone, a v(X_t). Such a baseline can
            also predict v(X_{t+1}), which bootstrapped returns need.
        needs: what `predict` and `update` read from the trajectory beyond what a rollout records.
        predict_and_update: `(state, trajectory, returns) → (b [T, B], state, metrics)`, the results of `predict` and
            `update` in one pass over the rows, so that the forward pass of a network is not repeated for its fit. None
            if that saves nothing. If you replace `predict` or `update`, replace this function too.
    """

    init: Callable[[jax.Array, Trajectory], PyTree]
    predict: Callable[[PyTree, Trajectory], jax.Array]
    update: Callable[[PyTree, Trajectory, jax.Array], tuple[PyTree, dict[str, jax.Array]]]
    of_observation: bool = False
    needs: Needs = Needs()
    predict_and_update: (
        Callable[[PyTree, Trajectory, jax.Array], tuple[jax.Array, PyTree, dict[str, jax.Array]]] | None
    ) = None

    def __repr__(self) -> str:
        return one_line(self)


class Critic(NamedTuple):
    """q(X_t, ·), a prediction of the return for each action of a discrete space. *Use, then update*, as for a baseline.

    The functions are `init(key, sample) → state`, `predict(state, trajectory) → q [T, B, A]` (0 where not alive) and
    `update(state, trajectory, returns) → (state, metrics)`. Row t of `predict` is a function of row t of `obs` alone.
    """

    init: Callable[[jax.Array, Trajectory], PyTree]
    predict: Callable[[PyTree, Trajectory], jax.Array]
    update: Callable[[PyTree, Trajectory, jax.Array], tuple[PyTree, dict[str, jax.Array]]]

    def __repr__(self) -> str:
        return one_line(self)


class Estimator(NamedTuple):
    """An estimator of ∇ρ(θ) from a batch of episodes; the diagnostics measure this object and training uses it.

    Attributes:
        init: `(key, sample) → state`.
        gradient: `(params, state, trajectory) → (∇̂ρ, state, metrics)`. The estimate uses the old state; the new state
            has seen the batch.
        episode_gradients: `(params, state, trajectory)` → the summand of each episode, leaves `[B, ...]`. Their mean is
            `gradient`.
        fits_windows: whether the estimator can learn from windows, which cut episodes. Its returns must then bootstrap,
            and no factor may depend on the time since the start of an episode.
        needs: what the estimator needs of the batch and of the way it is collected.
        part_gradients: `(params, state, trajectory, M)` → the mean summand of each of M parts of B/M consecutive
            episodes, leaves `[M, ...]`, with the weights of the whole batch. Their mean is `gradient`. None if the
            estimator has only `episode_gradients`; `estimators.part_gradients` accepts both.
    """

    init: Callable[[jax.Array, Trajectory], PyTree]
    gradient: Callable[[PyTree, PyTree, Trajectory], tuple[PyTree, PyTree, dict[str, jax.Array]]]
    episode_gradients: Callable[[PyTree, PyTree, Trajectory], PyTree]
    fits_windows: bool
    needs: Needs = Needs()
    part_gradients: Callable[[PyTree, PyTree, Trajectory, int], PyTree] | None = None

    def __repr__(self) -> str:
        return one_line(self)


class TrainState(NamedTuple):
    """Everything that a run needs to continue, as one pytree that is saved and restored as a whole.

    Attributes:
        params: θ.
        optimizer_state: the state of the optax optimizer.
        estimator_state: the state of the estimator, which holds that of its baseline.
        lanes: the running episodes of windows, or `()` if each update collects complete episodes.
        key: the key of the run. Update u uses `fold_in(key, u)`, so a resumed run gives bit for bit the same numbers.
        update: int32, the number of updates done.
        reward_state: the state of the reward stage (reference θ, β, reward model), or `()` without one. Between two
            updates you may put another state of the same shapes here; nothing is compiled again.
    """

    params: PyTree
    optimizer_state: PyTree
    estimator_state: PyTree
    lanes: PyTree
    key: jax.Array
    update: jax.Array
    reward_state: PyTree = ()

    def __repr__(self) -> str:
        return one_line(self)
