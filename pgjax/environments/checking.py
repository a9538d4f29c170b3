"""The conformance suite: checks whether an environment has the properties that every `Environment` promises."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pgjax import spaces
from pgjax._checks import is_typed_key
from pgjax._doors import readable
from pgjax.contracts import ConformanceError, named_leaves, require_environment
from pgjax.environments.random_actions import sample_action
from pgjax.types import Environment, PyTree, Step


class CheckReport(NamedTuple):
    """What `check` found in an environment that passed.

    Attributes:
        name: the name of the environment.
        transitions: the number of random steps that were checked.
        terminations: the number of these steps that ended their episode.
        random_reset: whether different keys gave different starts.
        random_step: whether the same actions with different keys gave different results.
    """

    name: str
    transitions: int
    terminations: int
    random_reset: bool
    random_step: bool

    def __str__(self) -> str:
        starts, steps = ("random" if r else "always the same" for r in (self.random_reset, self.random_step))
        return (
            f"{self.name} passed: it keeps the contract of an Environment in {self.transitions} random steps, of which "
            f"{self.terminations} ended their episode (starts: {starts}; what an action leads to: {steps})"
        )


class _Walk(NamedTuple):
    """Random transitions, leaves `[steps, lanes, ...]`; `fresh` is the (state, obs) of a reset for each."""

    reset_key: jax.Array
    fresh: PyTree
    step_key: jax.Array
    state: PyTree
    obs: PyTree
    action: PyTree
    new_state: PyTree
    seen: Step
    first: jax.Array


@readable
def check(
    env: Environment,
    *,
    params: PyTree = None,
    num_steps: int = 128,
    num_lanes: int = 16,
    key: jax.Array | None = None,
    tolerance: float = 1e-5,
) -> CheckReport:
    """Check with random actions that `env` keeps the contract of `Environment`, and report what was found.

    It checks these properties, in this order: what `contracts.require_environment` checks by tracing; observations,
    rewards and metrics are finite and no state holds a NaN; observations and sampled actions lie in their spaces; the
    mask allows an action everywhere; episodes do not all end at their first step without a reward; the same key gives
    the same result, bit for bit; jit = no jit and vmap = loop; a picture is uint8 `[H, W, 3]`. Because of rounding a
    float x may be wrong by `tolerance` · (1 + |x|) at the bounds of a space and between two compilations. Each step is
    compared alone, from the same state, so rounding cannot grow along an episode. The random actions obey the mask.

    Args:
        env: the environment.
        params: the environment's parameters; None takes `env.params`.
        num_steps: the number of steps of each lane; an episode restarts at its end and at the horizon.
        num_lanes: the number of lanes, which are vmapped.
        key: the key of resets, actions and steps; None takes `jax.random.key(0)`.
        tolerance: the tolerance for rounding, as above.

    Raises:
        ConformanceError: at the first property that fails.
    """
    require_environment(env, params)
    params = env.params if params is None else params
    key = jax.random.key(0) if key is None else key
    reset_keys, action_keys, step_keys, other_keys = jax.random.split(key, (4, num_steps, num_lanes))
    walk = jax.jit(lambda *arguments: _walk(env, *arguments))
    draws = action_keys
    if env.action_mask is None:
        # Sampled outside of the walk, so that the next environment can use the same compiled program.
        draws = jax.vmap(jax.vmap(lambda key: sample_action(env, key, None)))(action_keys)
    rows = walk(params, reset_keys, step_keys, draws)
    again = walk(params, reset_keys, step_keys, draws)
    other = walk(params, reset_keys, other_keys, draws)

    values = _host(rows)
    _check_values(env, values, tolerance)
    _check_extras(env, params, rows)
    _require_equal(env, "same key, same trajectory", _host(again), values)
    _check_alone(env, params, rows, tolerance)
    _check_picture(env, params, rows)
    starts = [leaf.reshape(num_steps * num_lanes, *leaf.shape[2:]) for leaf in jax.tree.leaves(values.fresh)]
    seen = zip(jax.tree.leaves(_host(other.seen)), jax.tree.leaves(values.seen))
    return CheckReport(
        name=env.name,
        transitions=num_steps * num_lanes,
        terminations=int(values.seen.terminated.sum()),
        random_reset=any(bool((leaf != leaf[0]).any()) for leaf in starts),
        random_step=any(bool((a != b).any()) for a, b in seen),
    )


def _walk(env: Environment, params: PyTree, reset_keys: jax.Array, step_keys: jax.Array, draws: jax.Array) -> _Walk:
    """Take the actions `[steps, lanes, ...]` from `draws`, and start a new episode wherever one ended.

    If the environment has a mask, `draws` are keys, with which the allowed actions are sampled.
    """
    fresh = jax.vmap(jax.vmap(lambda key: env.reset(key, params)))(reset_keys)

    def step(carry: tuple, inputs: tuple) -> tuple[tuple, tuple]:
        state, obs, time = carry
        start, key, draw = inputs
        first = time == 0
        state, obs = jax.tree.map(lambda new, old: jnp.where(first, new, old), start, (state, obs))
        action = draw if env.action_mask is None else sample_action(env, draw, obs)
        new_state, seen = env.step(key, state, action, params)
        time = jnp.where(seen.terminated | (time + 1 >= env.horizon), 0, time + 1)
        return (new_state, seen.obs, time), (state, obs, action, new_state, seen, first)

    carry = (*jax.tree.map(lambda x: x[0], fresh), jnp.zeros(step_keys.shape[1], jnp.int32))
    _, rows = jax.lax.scan(jax.vmap(step), carry, (fresh, step_keys, draws))
    state, obs, action, new_state, seen, first = rows
    given = {"reset_key": reset_keys, "fresh": fresh, "step_key": step_keys}
    return _Walk(**given, state=state, obs=obs, action=action, new_state=new_state, seen=seen, first=first)


def _check_values(env: Environment, rows: _Walk, tolerance: float) -> None:
    """Check that values are finite and inside their spaces, and that episodes do not end before they start."""
    for what, tree in (("observation", (rows.obs, rows.seen.obs)), ("reward", rows.seen.reward)):
        for _, leaf in named_leaves(tree):
            _require_all(env, f"finite {what}", leaf, np.isfinite(leaf), "finite numbers")
    for path, leaf in named_leaves(rows.new_state):
        _require_all(env, f"finite state{path}", leaf, ~np.isnan(leaf), "no NaN")

    for what, space, tree in (
        ("observation in its space", env.observation_space, rows.obs),
        ("observation in its space", env.observation_space, rows.seen.obs),
        ("action in its space", env.action_space, rows.action),
    ):
        for (path, one), leaf in zip(spaces.leaves(space), jax.tree.leaves(tree)):
            low, high = one.bounds
            slack = tolerance * (1.0 + np.abs(leaf)) if leaf.dtype.kind == "f" else 0
            inside = (leaf >= low - slack) & (leaf <= high + slack)
            _require_all(env, what + path, leaf, inside, f"from {_one_if_equal(low)} to {_one_if_equal(high)}")
            if isinstance(one, spaces.Slate):
                _require_all(env, what + path, leaf, spaces.all_different(leaf), "different items")

    ended, reward = rows.seen.terminated[rows.first], rows.seen.reward[rows.first]
    if env.horizon > 1 and ended.all() and (reward == 0).all():
        seen = "every episode ending unpaid at its first step"
        raise ConformanceError(env.name, "not over before it starts", seen, "a reward or a second step")


def _check_extras(env: Environment, params: PyTree, rows: _Walk) -> None:
    """Check that the mask allows an action everywhere, and that metrics are finite."""
    everywhere = lambda function: jax.jit(jax.vmap(jax.vmap(function)))
    if env.action_mask is not None:
        allowed = np.asarray(everywhere(env.action_mask)(rows.obs)).any(axis=-1)
        _require_all(env, "action_mask", allowed, allowed, "at least one action that is allowed")
    if (metrics_of := env.metrics) is not None:
        metrics = everywhere(lambda state, obs: metrics_of(state, obs, params))(rows.new_state, rows.seen.obs)
        for name, values in _host(metrics).items():
            _require_all(env, f"metrics[{name!r}]", values, np.isfinite(values), "finite numbers")


def _check_alone(env: Environment, params: PyTree, rows: _Walk, tolerance: float) -> None:
    """Repeat single resets and steps of the walk, one at a time and without compilation."""
    num_steps, num_lanes = rows.first.shape
    for index, time in enumerate(np.linspace(0, num_steps - 1, 4).astype(int)):
        row = jax.tree.map(lambda x, time=time, lane=index % num_lanes: x[time, lane], rows)
        for what, function, arguments, batched in (
            ("reset", env.reset, (row.reset_key,), row.fresh),
            ("step", env.step, (row.step_key, row.state, row.action), (row.new_state, row.seen)),
        ):
            plain = _host(function(*arguments, params))
            if index == 0:
                _require_equal(env, f"same key, same {what}", _host(function(*arguments, params)), plain)
            if not _equal(_host(batched), plain, tolerance):
                alone = _host(jax.jit(function)(*arguments, params))
                _require_equal(env, f"jit = no jit of {what}", alone, plain, tolerance)
                _require_equal(env, f"vmap = loop of {what}", _host(batched), plain, tolerance)


def _check_picture(env: Environment, params: PyTree, rows: _Walk) -> None:
    if env.render is None:
        return
    state, obs = jax.tree.map(lambda x: x[0, 0], (rows.state, rows.obs))
    picture = env.render(state, obs, params)
    if not (isinstance(picture, np.ndarray) and picture.dtype == np.uint8 and picture.shape[2:] == (3,)):
        seen = f"{picture.dtype} {list(picture.shape)}" if hasattr(picture, "shape") else type(picture).__name__
        raise ConformanceError(env.name, "render", seen, "a NumPy array uint8 [H, W, 3]")


def _require_all(env: Environment, property: str, values: Any, good: Any, wanted: str) -> None:
    if not good.all():
        time, lane, *place = np.argwhere(~good)[0].tolist()
        where = f"step {time} of lane {lane}" + (f", element {place}" if place else "")
        raise ConformanceError(env.name, property, f"{values[(time, lane, *place)]} at {where}", wanted)


def _require_equal(env: Environment, property: str, tree: PyTree, wanted: PyTree, tolerance: float = 0.0) -> None:
    for (path, leaf), (_, like) in zip(named_leaves(tree), named_leaves(wanted)):
        if not _equal(leaf, like, tolerance):
            index = np.unravel_index(np.argmax(leaf != like), leaf.shape)
            raise ConformanceError(env.name, property + path, f"{leaf[index]}", f"{like[index]}")


def _equal(tree: PyTree, wanted: PyTree, tolerance: float) -> bool:
    """Whether two trees of NumPy arrays agree, floats x to `tolerance` · (1 + |x|) and the rest exactly."""

    def leaf_equal(a: np.ndarray, b: np.ndarray) -> bool:
        if a.dtype.kind != "f":
            return np.array_equal(a, b)
        with np.errstate(invalid="ignore"):
            return bool(((a == b) | (np.abs(a - b) <= tolerance * (1.0 + np.abs(b)))).all())

    return all(jax.tree.leaves(jax.tree.map(leaf_equal, tree, wanted)))


def _one_if_equal(bound: np.ndarray) -> Any:
    return bound.flat[0] if bound.size and (bound == bound.flat[0]).all() else bound


def _host(tree: PyTree) -> PyTree:
    """The leaves as NumPy arrays; typed keys become their raw numbers."""
    return jax.tree.map(lambda x: np.asarray(jax.random.key_data(x) if is_typed_key(x) else x), tree)
