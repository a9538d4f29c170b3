"""Complete episodes from one kernel. Axes: T time, B lanes, n lanes of a block."""

import functools

import jax
import jax.numpy as jnp

from pgjax import acting
from pgjax._checks import require_integer
from pgjax._doors import readable
from pgjax._platform import platform
from pgjax.contracts import require_environment
from pgjax.rollouts._fused_kernel import Lane, Plan, Row, arrays_in, play
from pgjax.rollouts._lane_program import DRAWN, LANE, SHARED, evaluate, is_key, make_program
from pgjax.rollouts._steps import act, require_keys
from pgjax.rollouts.complete import _step_keys
from pgjax.types import Environment, Policy, PyTree, Trajectory


@readable
def fused(
    environment: Environment,
    policy: Policy,
    params: PyTree,
    keys: jax.Array,
    *,
    env_params: PyTree | None = None,
    record_log_probs: bool = False,
    block: int = 128,
    interpret: bool | None = None,
) -> Trajectory:
    """The episodes of `rollouts.episodes` from one kernel: A_t ~ f(X_t, θ), (X_{t+1}, R_{t+1}) ~ p(X_t, A_t).

    It is meant for small policies and environments on a GPU. There a step of `episodes` starts several kernels, and
    each start costs a few microseconds, however small the work is. Here one kernel holds the loop over time: a block of
    n lanes keeps its states on the chip, computes the policy, samples, steps, and writes its rows. A block stops when
    its own lanes have ended, and the rows after the end of an episode hold zeros and are not `alive`.

    The environment and the policy are the same pure functions of one lane as elsewhere. Their operations are rewritten
    for a block of lanes (Pallas, lowered by Triton). All random numbers are drawn before the kernel from the keys of
    `episodes`, by the same operations. So the episodes are equal to those of `episodes`, except that sums may be
    rounded in another order; a number that lies within this rounding of the border between two actions may give the
    other action. The kernel computes products that ask for no precision in float32, and JAX computes those of
    `episodes` in TF32 on recent NVIDIA GPUs; `networks.with_precision(policy, "float32")` makes them alike.

    A program is refused, and the error names the operation, if it has no form in the kernel: convolutions, sorting,
    loops inside of a step, products of two matrices, writing at an index, and operations on the single numbers of a
    value that has more than 64 of them, such as the gates of a recurrent network. So are random numbers whose keys
    depend on the state or the action. `episodes` plays all of these. There are no groups, no environment parameters per
    lane, and no gradients; all lanes are on one device. The drawn numbers of all T steps are held at once
    (`fused_bytes`).

    Args:
        params: the policy's θ.
        keys: typed keys `[B]`, one per episode.
        env_params: the environment's parameters; None takes `environment.params`.
        record_log_probs: whether `behaviour_log_probs` are recorded as the actions are drawn.
        block: n, the number of lanes of a block, a power of two and at least 16. If n does not divide B, the last block
            is filled with copies of the last lane, which are dropped afterwards.
        interpret: whether JAX plays the kernel operation by operation, on any device and slowly, as tests do. None
            means False on a GPU and True elsewhere.

    Returns:
        A `Trajectory` `[T, B, ...]`.

    Raises:
        ValueError: if the environment breaks its contract, the keys are not typed keys `[B]`, `block` is not allowed,
            an operation of the environment or of the policy has no form in the kernel, or an array of truth values or
            of other numbers of one byte, such as `alive [T, B]`, has more than 2³¹ of them.

    Source: the language of the kernel is Pallas, `jax.experimental.pallas`, with its lowering by Triton.
    """
    require_environment(environment, env_params)
    _require(keys, block)
    env_params = environment.params if env_params is None else env_params
    interpret = platform() != "gpu" if interpret is None else interpret
    num_lanes = keys.shape[0]
    keys = keys[jnp.minimum(jnp.arange(-(-num_lanes // block) * block), num_lanes - 1)]
    lanes = jax.vmap(functools.partial(_begin, environment, policy, params, env_params))(keys)
    plan = _make_plan(environment, policy, params, env_params, lanes, record_log_probs, block)
    shared, drawn = _inputs(plan, params, env_params, keys)
    obs, row, alive, final_obs = play(plan, shared, drawn, lanes, interpret)
    last = jnp.arange(environment.horizon)[:, None] == environment.horizon - 1
    trajectory = Trajectory(
        obs=obs,
        actions=row.actions,
        rewards=row.rewards,
        alive=alive,
        terminated=row.terminated,
        truncated=alive & ~row.terminated & last,
        final_obs=None,
        behaviour_log_probs=row.log_probs,
    )
    kept = jax.tree.map(lambda x: x[:, :num_lanes], trajectory)
    return kept._replace(final_obs=jax.tree.map(lambda x: x[:num_lanes], final_obs))


@readable
def fused_bytes(
    environment: Environment,
    policy: Policy,
    params: PyTree,
    num_episodes: int,
    *,
    env_params: PyTree | None = None,
    record_log_probs: bool = False,
    block: int = 128,
) -> int:
    """The bytes of the largest arrays of `fused`: the drawn numbers and the trajectory, of all steps and lanes.

    The arrays are planned and not allocated. The lanes that fill the last block are counted. The states of the lanes
    and the keys of the episodes come on top; they have no axis of time.

    Args:
        params: the policy's θ, or their shapes and dtypes.
        num_episodes: B.
        env_params, record_log_probs, block: as for `fused`.

    Raises:
        ValueError: as `fused`.

    Example: CartPole draws one number of 4 bytes per step, and its trajectory holds 27 bytes per step.

        >>> import jax, jax.numpy as jnp
        >>> from pgjax import environments, networks, rollouts
        >>> environment = environments.make("CartPole-v1")
        >>> policy = networks.make_policy(environment)
        >>> params = policy.init(jax.random.key(0), jnp.zeros(4))
        >>> rollouts.fused_bytes(environment, policy, params, 1024) / (500 * 1024)
        31.032
    """
    require_environment(environment, env_params)
    require_integer("num_episodes", num_episodes, 1, None)
    env_params = environment.params if env_params is None else env_params
    how = {"env_params": env_params, "record_log_probs": record_log_probs, "block": block}
    require_integer("block", block, 16, None)
    num_lanes = -(-num_episodes // block) * block
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), num_lanes))

    def all_arrays(params: PyTree, keys: jax.Array) -> tuple[list[jax.Array], Trajectory]:
        trajectory = fused(environment, policy, params, keys, interpret=True, **how)
        lanes = jax.vmap(functools.partial(_begin, environment, policy, params, env_params))(keys)
        plan = _make_plan(environment, policy, params, env_params, lanes, record_log_probs, block)
        return _inputs(plan, params, env_params, keys)[1], trajectory

    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(jax.eval_shape(all_arrays, params, keys)))


def _require(keys: jax.Array, block: int) -> None:
    require_keys(keys)
    require_integer("block", block, 16, None)
    if block & (block - 1):
        raise ValueError(f"block must be a power of two, at least 16, got {block}")


def _begin(environment: Environment, policy: Policy, params: PyTree, env_params: PyTree, key: jax.Array) -> Lane:
    state, obs = environment.reset(jax.random.split(key)[0], env_params)
    return Lane(state=state, obs=obs, carry=acting.start(policy, params, obs))


def _make_plan(
    environment: Environment,
    policy: Policy,
    params: PyTree,
    env_params: PyTree,
    lanes: Lane,
    record_log_probs: bool,
    block: int,
) -> Plan:
    def step(
        action_key: jax.Array, step_key: jax.Array, params: PyTree, env_params: PyTree, lane: Lane
    ) -> tuple[Lane, Row]:
        action, carry, log_prob = act(policy, params, action_key, lane.carry, lane.obs, record_log_probs)
        state, found = environment.step(step_key, lane.state, action, env_params)
        after = Lane(state=state, obs=found.obs, carry=carry)
        return after, Row(actions=action, rewards=found.reward, terminated=found.terminated, log_probs=log_prob)

    who = f"rollouts.fused: {environment.name!r}"
    lane = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), lanes)
    if any(map(is_key, jax.tree.leaves(lane))):
        raise ValueError(f"{who}: the state must not hold random keys; use rollouts.episodes")
    key = jax.eval_shape(lambda: jax.random.key(0))
    arguments = (key, key, params, env_params, lane)
    return Plan(
        program=make_program(step, (DRAWN, DRAWN, SHARED, SHARED, LANE), arguments, who),
        lane=lane,
        row=jax.eval_shape(step, *arguments)[1],
        horizon=environment.horizon,
        block=block,
        who=who,
    )


def _inputs(plan: Plan, params: PyTree, env_params: PyTree, keys: jax.Array) -> tuple[list[jax.Array], list[jax.Array]]:
    """The shared values `[size]` and the drawn values `[T, B, size]` that the kernel reads."""
    program = plan.program
    leaves = jax.tree.leaves((params, env_params))
    names = program.inputs[:2], program.inputs[2 : 2 + len(leaves)]
    known = evaluate(program.of_kind[SHARED], program.constants | dict(zip(names[1], leaves)))
    shared = [jnp.ravel(jnp.asarray(known[x], program.shapes[x].dtype)) for x in program.shared]

    def draw(*both: jax.Array) -> list[jax.Array]:
        found = evaluate(program.of_kind[DRAWN], known | dict(zip(names[0], both)))
        return [arrays_in(found[x]) for x in program.drawn]

    episode_keys = jax.vmap(lambda key: jax.random.split(key)[1])(keys)
    return shared, jax.vmap(jax.vmap(draw))(*_step_keys(episode_keys, jnp.arange(plan.horizon)))
