"""The contracts of pgjax: the records that every other module takes and returns.

Row t of every time-major array holds X_t, A_t and R_{t+1}, the reward that A_t caused (t counts from 0 in
code, from 1 in the mathematics). Axes: T time, B episodes, A actions, D features.
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

# The words of conventions that several modules share; the modules check them against these.
ScoreNorm = Literal["vanilla", "natural"]
TimeWeights = Literal["none", "discount"]


class Step(NamedTuple):
    """What one transition shows: X_{t+1}, R_{t+1}, and whether the problem itself ended there."""

    obs: PyTree
    reward: jax.Array
    terminated: jax.Array

    def __repr__(self) -> str:
        return one_line(self)


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Environment:
    """A problem as a record of pure functions, (X_{t+1}, R_{t+1}) ~ p(X_t, A_t).

    `reset(key, params) → (state, obs)` draws X_1 ~ d_0. `step(key, state, action, params) → (state, Step)` is
    the raw transition: no auto-reset and no time limit inside. The rollout alone produces `truncated`, at
    `horizon`. State and observation have the same structure, shape and dtype from `reset` and `step`; the reward is a
    float scalar and `terminated` a bool scalar. `pgjax.contracts.require_environment` checks it.

    Attributes:
        name: what `pgjax.environments.make` calls it.
        reset, step: pure functions of one episode; batch them with `jax.vmap`.
        params: the default parameters, a pytree whose leaves may be vmapped (domain randomisation).
        observation_space, action_space: trees of `pgjax.spaces`; `spaces.as_space` takes other libraries' spaces.
        horizon: T, the greatest number of steps of an episode.
        render: `(state, obs, params) → uint8 [H, W, 3]`, a picture of one state drawn on the host, or None.
        action_mask: `obs → bool [A]`, which discrete actions are allowed at X_t, at least one; None if all are.
        metrics: `(state, obs, params) → {name: scalar}`, numbers of a state that `evaluation.evaluate` reports beside
            the return (success, violations, clicks) and that nothing learns from; None if there are none.
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

    `sample(key, parameters)`, `log_prob(parameters, action)`, `entropy(parameters)`, `kl(p, q)` and
    `mode(parameters)`; `parameters` is what a policy's `apply` returns. `entropy` or `kl` is None where it cannot be
    computed: who reports it leaves it out, and who needs it calls `distributions.require`.
    """

    sample: Callable[[jax.Array, PyTree], PyTree]
    log_prob: Callable[[PyTree, PyTree], jax.Array]
    entropy: Callable[[PyTree], jax.Array] | None
    kl: Callable[[PyTree, PyTree], jax.Array] | None
    mode: Callable[[PyTree], PyTree]

    def __repr__(self) -> str:
        return one_line(self)


class Memory(NamedTuple):
    """What a policy remembers of the episode so far, for one episode; vmap outside.

    Attributes:
        start: `(params, obs) → carry` at X_1: the memory before the first action. A transformer reads its prompt here.
        step: `(params, carry, obs) → (carry, outputs)`: looks at X_t, and gives the distribution's parameters for A_t.
        unroll: `(params, carry | None, obs [T, ...], starts bool [T] | None) → outputs [T, ...]`, the outputs of all
            rows at once. A carry of None means that row 0 is X_1; `starts` marks the rows that are the X_1 of a new
            episode (None: no row after row 0). If the field is None, `unroll` is a scan of `step`.
    """

    start: Callable[[PyTree, PyTree], PyTree]
    step: Callable[[PyTree, PyTree, PyTree], tuple[PyTree, PyTree]]
    unroll: Callable[[PyTree, PyTree | None, PyTree, jax.Array | None], PyTree] | None = None

    def __repr__(self) -> str:
        return one_line(self)


class Policy(NamedTuple):
    """f(x, θ): `init(key, obs) → params` and `apply(params, obs) → parameters` of `distribution`.

    Both see one observation; vmap outside. Plain functions, so linen, nnx and raw JAX all fit.

    Attributes:
        init: draws θ.
        apply: the distribution's parameters as a function of X_t alone; None for a policy that has to remember.
        distribution: the family of action distributions.
        memory: how the policy remembers; None for a policy that does not. A policy that has both `apply` and `memory`
            computes the same function twice: `apply` serves the oracle, and `memory` is the fast path of rollouts.
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
        rewards: R_{t+1}, `[T, B]`, zero where not `alive`.
        alive: bool `[T, B]`, true while the episode runs; every other row is padding.
        terminated: bool `[T, B]`, the problem ended at this step: nothing is left to bootstrap.
        truncated: bool `[T, B]`, the horizon cut the episode here: v(`next_obs`) may be bootstrapped.
        final_obs: the observation after each lane's last live step, before any reset, leaves `[B, ...]`.
        next_obs: X_{t+1} before any reset, `[T, B, ...]`; only in windows, where lanes reset inside.
        returns: G_t `[T, B]`, filled in by an estimator before its baseline sees the trajectory.
        score_norms: squared norms of the scores, `[T, B]`, or `[1, B]` of whole episodes where those multiply G_1;
            filled in before `predict` for a baseline that needs them.
        behaviour_log_probs: ln f(X_t, θ_old)_{A_t} of the policy that acted, `[T, B]`; None where nothing was recorded,
            which means that θ itself acted.
        greedy_returns: G_1 of a greedy episode from the same start, in every row, `[T, B]`, if it was played.
        carry: what a policy with memory remembered at row 0 of a window, leaves `[B, ...]`; None in complete episodes,
            which begin with `Memory.start`. It was computed with the θ of earlier windows.
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
        """The trajectory of fields whose axes are `[B, T, ...]`, as many training loops have them.

        Every field but `final_obs` and `carry`, `[B, ...]`, has its first two axes exchanged. A trajectory that was
        built batch-major by mistake is mended by `Trajectory.from_batch_major(**trajectory._asdict())`.

        Args:
            **fields: the attributes of a trajectory by their names, `[B, T, ...]`.

        Raises:
            ValueError: if a field has another shape or type, with the right one.
            TypeError: if a field is missing or unknown.
        """
        given = cls(**fields)._asdict()
        require_layout(given, batch_major=True)
        return cls(**time_major(given))


class Rewards(NamedTuple):
    """The reward stage: what stands for the rewards of a collected trajectory, with parameters and state of its own.

    A penalty for leaving a reference policy, a reward model that learns and a running scale are such stages
    (`pgjax.rewards`). No gradient flows through them.

    Attributes:
        init: `(key, params) → state`; `params` is the policy's θ at the start of training, such as a reference.
        relabel: `(params, state, trajectory) → (trajectory, metrics)`: the trajectory with other rewards.
        update: `(state, trajectory) → state`, after the estimator used the relabelled trajectory.
        needs_log_probs: whether `relabel` reads `trajectory.behaviour_log_probs`, which the rollout then records.
    """

    init: Callable[[jax.Array, PyTree], PyTree]
    relabel: Callable[[PyTree, PyTree, Trajectory], tuple[Trajectory, dict[str, jax.Array]]]
    update: Callable[[PyTree, Trajectory], PyTree]
    needs_log_probs: bool = False

    def __repr__(self) -> str:
        return one_line(self)


class Needs(NamedTuple):
    """What an estimator or a baseline must be given beyond the trajectory; whoever collects the episodes provides it.

    Attributes:
        scores: the norm (`"vanilla"`, `"natural"`) in which `trajectory.score_norms` are wanted, or `"none"`.
        greedy_returns: whether `trajectory.greedy_returns` is wanted, a second episode for each.
        group_size: k, how many consecutive episodes share a start; None where any start will do.
    """

    scores: ScoreNorm | Literal["none"] = "none"
    greedy_returns: bool = False
    group_size: int | None = None

    def __repr__(self) -> str:
        return one_line(self)


class Baseline(NamedTuple):
    """b(X_t), what an estimator subtracts from the return. *Use, then update.*

    `init(key, sample) → state`, `predict(state, trajectory) → b [T, B]` and
    `update(state, trajectory, returns) → (state, metrics)`. `predict` runs before `update` sees the same
    episodes, so b never depends on the action that it weighs, or its docstring says by which factor it fails.

    Attributes:
        of_observation: true if row t of `predict` is a function of row t of `obs` alone, a v(X_t): such a
            baseline predicts what is still to come, and can be asked about X_{t+1}, which bootstrapped returns need.
        needs: what `predict` and `update` read of the trajectory beyond what a rollout records.
        predict_and_update: `(state, trajectory, returns) → (b [T, B], state, metrics)`, what `predict` and `update`
            give, in one pass over the rows: a network's forward pass is not done again for its fit. None where nothing
            is saved by it; who replaces `predict` or `update` replaces it too.
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
    """q(X_t, ·), a prediction of the return for every action of a discrete space. *Use, then update*, as a baseline.

    `init(key, sample) → state`, `predict(state, trajectory) → q [T, B, A]` (zero where not alive) and
    `update(state, trajectory, returns) → (state, metrics)`. Row t of `predict` is a function of row t of `obs` alone.
    """

    init: Callable[[jax.Array, Trajectory], PyTree]
    predict: Callable[[PyTree, Trajectory], jax.Array]
    update: Callable[[PyTree, Trajectory, jax.Array], tuple[PyTree, dict[str, jax.Array]]]

    def __repr__(self) -> str:
        return one_line(self)


class Estimator(NamedTuple):
    """An estimate of ∇ρ(θ) from a batch of episodes; the laboratory measures this object and training uses it.

    Attributes:
        init: `(key, sample) → state`.
        gradient: `(params, state, trajectory) → (∇̂ρ, state, metrics)`: the estimate weighs with the old state;
            the new state has seen the batch.
        episode_gradients: `(params, state, trajectory)` → the summand of each episode, leaves `[B, ...]`; their
            mean is `gradient`.
        fits_windows: whether it can learn from windows, which cut episodes: its returns bootstrap, and no factor
            depends on the time since an episode began.
        needs: what the collected batch must hold or how it must be collected.
    """

    init: Callable[[jax.Array, Trajectory], PyTree]
    gradient: Callable[[PyTree, PyTree, Trajectory], tuple[PyTree, PyTree, dict[str, jax.Array]]]
    episode_gradients: Callable[[PyTree, PyTree, Trajectory], PyTree]
    fits_windows: bool
    needs: Needs = Needs()

    def __repr__(self) -> str:
        return one_line(self)


class TrainState(NamedTuple):
    """Everything that is needed to go on; one pytree, saved and restored whole.

    Attributes:
        params: θ.
        optimizer_state: optax's.
        estimator_state: the baseline's.
        lanes: running episodes of auto-reset windows, or `()` when every update collects complete episodes.
        key: the run's key; update u uses `fold_in(key, u)`, so a resumed run continues bit for bit.
        update: int32, the number of updates done.
        reward_state: the reward stage's (reference θ, β, reward model), `()` without one. Another state of the same
            shapes may be put here between two updates: nothing is compiled again.
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
