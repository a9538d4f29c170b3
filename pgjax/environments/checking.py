"""The conformance suite: what every `Environment` promises, checked on one of them."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pgjax import spaces
from pgjax.types import Environment, PyTree, Step


class ConformanceError(ValueError):
    """An environment breaks its contract: `property` is the part, the message what was seen and wanted."""

    def __init__(self, name: str, property: str, seen: str, wanted: str):
        super().__init__(f"{name}: {property}: saw {seen}, wanted {wanted}")
        self.property = property


class CheckReport(NamedTuple):
    """What `check` saw of an environment that conforms.

    Attributes:
        name: the environment's.
        transitions: how many random steps were examined.
        terminations: how many of them ended their episode.
        random_reset: whether episodes under different keys started differently.
        random_step: whether the same actions under different keys led to different results.
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


def check(
    env: Environment,
    *,
    params: PyTree = None,
    num_steps: int = 128,
    num_lanes: int = 16,
    key: jax.Array | None = None,
    tolerance: float = 1e-5,
) -> CheckReport:
    """Check with random actions that `env` keeps the contract of `Environment`, and report what was seen.

    The properties, in order: the horizon is a positive integer; `reset` and `step` can be traced; state and
    observation keep one structure, shape and strong dtype, so that a scan can carry them; reward is a
    floating scalar and `terminated` a boolean one; observations and rewards are finite and no state holds a
    NaN; observations and sampled actions lie in their spaces; episodes are not over before they start (all
    ending unpaid at their first step); the same key gives the same result, bit for bit; jit = no jit and
    vmap = loop; a picture is uint8 `[H, W, 3]`. Where rounding enters, at the bounds of a space and between
    two compilations, a float x may be off by `tolerance` · (1 + |x|). Steps are compared one by one from the
    same state, so that rounding cannot grow along an episode.

    Args:
        env: the environment.
        params: of the environment; default `env.params`.
        num_steps: of each lane; an episode restarts at its end and at the horizon.
        num_lanes: the number of lanes, vmapped.
        key: of resets, actions and steps; default `jax.random.key(0)`.
        tolerance: for rounding, as above.

    Raises:
        ConformanceError: at the first property that fails.
    """
    params = env.params if params is None else params
    _check_types(env, params)
    key = jax.random.key(0) if key is None else key
    reset_keys, action_keys, step_keys, other_keys = jax.random.split(key, (4, num_steps, num_lanes))
    walk = jax.jit(lambda *arguments: _walk(env, *arguments))
    # Outside of the walk: what jax compiles for this sampling is found again by the next environment.
    actions = jax.vmap(jax.vmap(functools.partial(spaces.sample, env.action_space)))(action_keys)
    rows = walk(params, reset_keys, step_keys, actions)
    again = walk(params, reset_keys, step_keys, actions)
    other = walk(params, reset_keys, other_keys, actions)

    values = _host(rows)
    _check_values(env, values, tolerance)
    _require_equal(env, "same key, same trajectory", _host(again), values)
    _check_alone(env, params, rows, tolerance)
    _check_picture(env, values.obs)
    starts = [leaf.reshape(-1, *leaf.shape[2:]) for leaf in jax.tree.leaves(values.fresh)]
    seen = zip(jax.tree.leaves(_host(other.seen)), jax.tree.leaves(values.seen))
    return CheckReport(
        name=env.name,
        transitions=num_steps * num_lanes,
        terminations=int(values.seen.terminated.sum()),
        random_reset=any(bool((leaf != leaf[0]).any()) for leaf in starts),
        random_step=any(bool((a != b).any()) for a, b in seen),
    )


def _check_types(env: Environment, params: PyTree) -> None:
    """Everything that tracing alone can tell."""
    if not isinstance(env.horizon, int) or isinstance(env.horizon, bool) or env.horizon < 1:
        raise ConformanceError(env.name, "horizon", repr(env.horizon), "a positive int")
    key = jax.eval_shape(lambda: jax.random.key(0))
    start = _traced(env, "reset", env.reset, key, params)
    if not isinstance(start, tuple) or len(start) != 2:
        raise ConformanceError(env.name, "reset", type(start).__name__, "a pair (state, obs)")
    state, obs = start
    _require_strong(env, "state of reset", state)
    _require_strong(env, "observation of reset", obs)
    _require_space(env, "observation space", env.observation_space)
    _require_element_types(env, "observation space", env.observation_space, obs)
    _require_space(env, "action space", env.action_space)
    action = _traced(env, "action space", functools.partial(spaces.sample, env.action_space), key)
    _require_element_types(env, "action space", env.action_space, action)
    transition = _traced(env, "step", env.step, key, state, action, params)
    if not (isinstance(transition, tuple) and len(transition) == 2 and isinstance(transition[1], Step)):
        raise ConformanceError(env.name, "step", type(transition).__name__, "a pair (state, Step)")
    new_state, seen = transition
    _require_same_types(env, "state as a scan carry", new_state, state)
    _require_same_types(env, "observation as a scan carry", seen.obs, obs)
    _require_strong(env, "reward", seen.reward)
    if seen.reward.shape != () or not jnp.issubdtype(seen.reward.dtype, jnp.floating):
        raise ConformanceError(env.name, "reward", _type_of(seen.reward), "a floating scalar")
    if seen.terminated.shape != () or seen.terminated.dtype != bool:
        raise ConformanceError(env.name, "terminated", _type_of(seen.terminated), "a boolean scalar")


def _walk(
    env: Environment, params: PyTree, reset_keys: jax.Array, step_keys: jax.Array, actions: PyTree
) -> _Walk:
    """Take the actions `[steps, lanes, ...]`, starting afresh wherever an episode ended."""
    fresh = jax.vmap(jax.vmap(lambda key: env.reset(key, params)))(reset_keys)

    def step(carry: tuple, inputs: tuple) -> tuple[tuple, tuple]:
        state, obs, time = carry
        start, key, action = inputs
        first = time == 0
        state, obs = jax.tree.map(lambda new, old: jnp.where(first, new, old), start, (state, obs))
        new_state, seen = env.step(key, state, action, params)
        time = jnp.where(seen.terminated | (time + 1 >= env.horizon), 0, time + 1)
        return (new_state, seen.obs, time), (state, obs, new_state, seen, first)

    carry = (*jax.tree.map(lambda x: x[0], fresh), jnp.zeros(step_keys.shape[1], jnp.int32))
    _, (state, obs, new_state, seen, first) = jax.lax.scan(jax.vmap(step), carry, (fresh, step_keys, actions))
    given = {"reset_key": reset_keys, "fresh": fresh, "step_key": step_keys, "action": actions}
    return _Walk(**given, state=state, obs=obs, new_state=new_state, seen=seen, first=first)


def _check_values(env: Environment, rows: _Walk, tolerance: float) -> None:
    """Finite, inside the spaces, and not over before the start."""
    for what, tree in (("observation", (rows.obs, rows.seen.obs)), ("reward", rows.seen.reward)):
        for _, leaf in _leaves(tree):
            _require_all(env, f"finite {what}", leaf, np.isfinite(leaf), "finite numbers")
    for path, leaf in _leaves(rows.new_state):
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


def _check_picture(env: Environment, obs: PyTree) -> None:
    if env.render is None:
        return
    picture = env.render(jax.tree.map(lambda x: x[0, 0], obs))
    if not (isinstance(picture, np.ndarray) and picture.dtype == np.uint8 and picture.shape[2:] == (3,)):
        seen = _type_of(picture) if hasattr(picture, "shape") else type(picture).__name__
        raise ConformanceError(env.name, "render", seen, "a NumPy array uint8 [H, W, 3]")


def _traced(env: Environment, what: str, function: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return jax.eval_shape(function, *arguments)
    except (jax.errors.JAXTypeError, jax.errors.JAXIndexError) as error:
        seen, wanted = f"{type(error).__name__} ({error})", "no Python branch on the value of an array"
        raise ConformanceError(env.name, f"{what} can be traced", seen, wanted) from error


def _require_strong(env: Environment, property: str, tree: PyTree) -> None:
    for path, leaf in _leaves(tree):
        if leaf.weak_type:
            raise ConformanceError(env.name, property + path, _type_of(leaf), f"a strong {leaf.dtype}")


def _require_same_types(env: Environment, property: str, tree: PyTree, wanted: PyTree) -> None:
    seen, structure = jax.tree.structure(tree), jax.tree.structure(wanted)
    if seen != structure:
        raise ConformanceError(env.name, property, f"{seen} from step", f"{structure} as from reset")
    for (path, leaf), (_, like) in zip(_leaves(tree), _leaves(wanted)):
        if _type_of(leaf) != _type_of(like):
            wanted_type = f"{_type_of(like)} as from reset"
            raise ConformanceError(env.name, property + path, f"{_type_of(leaf)} from step", wanted_type)


def _require_space(env: Environment, property: str, space: PyTree) -> None:
    try:
        spaces.leaves(space)
    except ValueError as error:
        wanted = "a Discrete, Box, MultiDiscrete or Slate of pgjax.spaces, or a tree of them (spaces.as_space)"
        raise ConformanceError(env.name, property, repr(space), wanted) from error


def _require_element_types(env: Environment, property: str, space: PyTree, tree: PyTree) -> None:
    declared, seen = jax.tree.structure(space, is_leaf=spaces.is_space), jax.tree.structure(tree)
    if declared != seen:
        raise ConformanceError(env.name, property, f"{seen}", f"{declared} as declared")
    for (_, one), (path, leaf) in zip(spaces.leaves(space), _leaves(tree)):
        declared = f"{one.dtype} {list(one.shape)}"
        if _type_of(leaf) != declared:
            raise ConformanceError(env.name, property + path, _type_of(leaf), f"{declared} as declared")


def _require_all(env: Environment, property: str, values: Any, good: np.ndarray, wanted: str) -> None:
    if not good.all():
        time, lane, *place = np.argwhere(~good)[0].tolist()
        where = f"step {time} of lane {lane}" + (f", element {place}" if place else "")
        raise ConformanceError(env.name, property, f"{values[(time, lane, *place)]} at {where}", wanted)


def _require_equal(
    env: Environment, property: str, tree: PyTree, wanted: PyTree, tolerance: float = 0.0
) -> None:
    for (path, leaf), (_, like) in zip(_leaves(tree), _leaves(wanted)):
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


def _leaves(tree: PyTree) -> list[tuple[str, Any]]:
    return [(jax.tree_util.keystr(path), leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)]


def _type_of(leaf: Any) -> str:
    return f"{'weak ' if getattr(leaf, 'weak_type', False) else ''}{leaf.dtype} {list(leaf.shape)}"


def _one_if_equal(bound: np.ndarray) -> Any:
    return bound.flat[0] if bound.size and (bound == bound.flat[0]).all() else bound


def _host(tree: PyTree) -> PyTree:
    """NumPy arrays, keys as their numbers."""
    is_key = lambda x: isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
    return jax.tree.map(lambda x: np.asarray(jax.random.key_data(x) if is_key(x) else x), tree)
