"""Calls of all public functions of pgjax with arguments of every wrong kind, and what each of them led to.

A function is first called with arguments that fit, by the names of its parameters; then one or two are replaced.
"""

import collections
import contextlib
import dis
import functools
import importlib
import inspect
import math
import pathlib
import random
import signal
import time
import types
import typing
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import pgjax
from pgjax import environments, estimators, exact, networks, rollouts
from pgjax.distributions import categorical

OURS = str(pathlib.Path(pgjax.__file__).parent)
T, B = 5, 4
RAISE = dis.opmap["RAISE_VARARGS"]
# These write, train for long, or take words that name code.
LEFT_OUT = ("save", "write", "append", "load", "render", "show", "import")


MOST_SECONDS = 5.0  # of CPU time for one call


class TooSlow(BaseException):
    """A call has taken too long; no `except Exception` on the way stops it."""


@contextlib.contextmanager
def limited() -> Iterator[None]:
    """Raise `TooSlow` in Python code that still runs after `MOST_SECONDS`."""

    def end(number: int, frame: types.FrameType | None) -> None:
        raise TooSlow

    before = signal.signal(signal.SIGVTALRM, end)
    signal.setitimer(signal.ITIMER_VIRTUAL, MOST_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


class Outcome(NamedTuple):
    """What a call led to: `fault` is empty if it returned, or raised an error that it should raise."""

    function: str
    replaced: str
    fault: str
    said: str
    seconds: float


def public_functions() -> dict[str, Callable]:
    """Name → function, of every public function in a room of pgjax."""
    found: dict[str, Callable] = {}
    for room in pgjax._MODULES:
        pending = [importlib.import_module(f"pgjax.{room}")]
        while pending:
            module = pending.pop()
            names = getattr(module, "__all__", None) or [n for n in vars(module) if not n.startswith("_")]
            for name in names:
                value = getattr(module, name)
                if inspect.ismodule(value) and value.__name__.startswith(module.__name__ + "."):
                    pending.append(value)
                own = inspect.isfunction(value) and value.__module__.startswith(module.__name__)
                if own and not any(word in name for word in LEFT_OUT):
                    found[f"{value.__module__}.{name}"] = value
    return dict(sorted(found.items()))


@functools.cache
def fitting() -> Mapping[str, Any]:
    """Values that fit, by the name of the parameter."""
    environment = environments.make("corridor", horizon=T, observe_state=True)
    policy = networks.make_policy(environment, hidden=(2,))
    _, obs = environment.reset(jax.random.key(0), environment.params)
    params = policy.init(jax.random.key(1), obs)
    keys = jax.random.split(jax.random.key(2), B)
    trajectory = rollouts.episodes(environment, policy, params, keys, record_log_probs=True)
    mdp = exact.random_mdp(jax.random.key(0), 3, 2, 2, 3)
    steps = jnp.asarray(np.random.default_rng(0).normal(size=(T, B)), jnp.float32)
    flags = jnp.zeros((T, B), bool)
    return {
        "environment": environment, "policy": policy, "params": params, "reference": params, "obs": obs,
        "key": jax.random.key(3), "keys": keys, "trajectory": trajectory, "mdp": mdp, "x": steps,
        "rewards": steps, "values": steps, "next_values": steps, "log_probs": -jnp.abs(steps),
        "reference_log_probs": -jnp.abs(steps), "behaviour_log_probs": -jnp.abs(steps), "returns": steps[0],
        "mask": ~flags, "alive": ~flags, "terminated": flags, "truncated": flags, "discount": 0.9, "lambda_": 0.9,
        "decay": 0.9, "group_size": 2, "kl_coef": 0.1, "clip": 0.2, "apply": policy.apply, "horizon": 4, "n": 2,
        "num_episodes": B, "num_steps": T, "num_groups": 2, "batch_size": 2, "vocabulary": 4, "eos": 0, "value": 1.0,
        "weights": jnp.ones(B), "logits": jnp.zeros(3), "action": jnp.int32(1), "actions": jnp.zeros(B, jnp.int32),
        "gradients": jnp.ones((6, 3)), "confidence": 0.95, "optimizer": optax.sgd(0.1), "name": "corridor",
        "estimator": estimators.make_estimator(policy, returns=estimators.reward_to_go()), "hidden": (4,),
        "size": 2, "limit": 100, "observation_space": environment.observation_space, "group_ids": jnp.zeros(B, int),
        "action_space": environment.action_space, "space": environment.action_space, "tokens": [1, 2],
        "distribution": categorical, "tree": {"a": steps}, "labels": steps, "scores": steps, "function": jnp.sum,
        "num_states": 3, "num_actions": 2, "num_outcomes": 2, "rows": {"a": steps}, "answers": steps,
    }  # fmt: skip


def replacements(value: Any) -> dict[str, Any]:
    """Description → value, of every wrong kind."""
    found: dict[str, Any] = {
        "None": None, "text": "nonsense", "empty text": "", "negative": -1, "zero": 0, "huge": 2**40, "NaN": math.nan,
        "infinity": math.inf, "fraction": 0.5, "True": True, "list": [1, 2], "dict": {"a": 1}, "object": object(),
        "function": len, "key": jax.random.key(0), "empty array": jnp.zeros(0), "scalar array": jnp.ones(()),
        "long array": jnp.ones(7), "matrix": jnp.ones((3, 7)), "cube": jnp.ones((2, 3, 4)), "bytes": b"x",
        "array of texts": np.array(["a"]), "array of objects": np.array([None]), "complex": 1j, "set": {1},
    }  # fmt: skip
    if isinstance(value, jax.Array | np.ndarray) and not jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
        found |= {"swapped axes": value.T, "one axis more": value[..., None], "integers": value.astype(jnp.int32)}
        found |= {"booleans": value.astype(bool), "half": value[: max(1, len(value) // 2)] if value.ndim else value}
        found |= {"float16": value.astype(jnp.float16), "numpy": np.asarray(value)}
    return found


# Functions of the user for the public functions that call one, where `jnp.sum` does not fit.
OF_USER = {
    "pgjax.rows.over_rows": lambda piece, mask, *shared: (jnp.sum(mask), ()),
    "pgjax.rows.sum_over_rows": lambda piece, mask, *shared: jnp.sum(mask),
}


def plausible(parameter: inspect.Parameter) -> Any:
    """A value that fits a parameter: by its name, its default, or its annotation."""
    if parameter.name in fitting():
        return fitting()[parameter.name]
    if parameter.default is not inspect.Parameter.empty:
        return parameter.default
    kind = parameter.annotation
    if typing.get_origin(kind) is typing.Literal:
        return typing.get_args(kind)[0]
    simple = {int: 2, float: 0.5, str: "corridor", bool: True, jax.Array: fitting()["rewards"]}
    return simple.get(kind, fitting()["rewards"])


def arguments_of(function: Callable) -> dict[str, Any]:
    usual = inspect.signature(function).parameters.values()
    fits = {p.name: plausible(p) for p in usual if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    own = OF_USER.get(f"{function.__module__}.{function.__name__}")
    return fits | ({} if own is None else {"function": own})


def call(name: str, function: Callable, arguments: Mapping[str, Any], replaced: str) -> Outcome:
    """The outcome of one call."""
    start, fault, said = time.process_time(), "", ""
    try:
        with warnings.catch_warnings(), limited():
            warnings.simplefilter("ignore")
            jax.block_until_ready(function(**arguments))
    except Exception as error:
        said = f"{type(error).__name__}: {error}"
        fault = judged(error)
    except TooSlow:
        fault = f"more than {MOST_SECONDS:g} s of CPU time"
    return Outcome(name, replaced, fault, " ".join(said.split())[:400], time.process_time() - start)


def judged(error: Exception) -> str:
    """Empty if the error is one line of ours, or Python's own about the signature."""
    frames = list(_frames(error.__traceback__))[1:]
    exhausted = isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error)
    missing = isinstance(error, ImportError) and "pip install" in str(error)
    if isinstance(error, OSError) or exhausted or missing:  # they name the file, the bytes, or the package
        return ""
    if not isinstance(error, ValueError | TypeError):
        return f"{type(error).__name__}"
    if not frames:
        return ""
    code, last = frames[-1]
    if not code.co_filename.startswith(OURS) or code.co_code[last] != RAISE:
        return f"{type(error).__name__} from the depths"
    return "" if str(error) else "an error without a message"


def _frames(trace: types.TracebackType | None):
    while trace is not None:
        yield trace.tb_frame.f_code, trace.tb_lasti
        trace = trace.tb_next


def generate(draw: random.Random, total: int, most_seconds: float):
    """Outcomes of about `total` calls, spread over all functions; a slow function is called less often."""
    functions = public_functions()
    each = -(-total // len(functions))
    for name, function in functions.items():
        usual, spent = arguments_of(function), 0.0
        for number in range(each):
            changed = dict(usual)
            chosen = draw.sample(sorted(changed), min(len(changed), draw.choice((1, 1, 1, 2)))) if number else []
            words = []
            for argument in chosen:
                what, changed[argument] = draw.choice(sorted(replacements(usual[argument]).items(), key=lambda x: x[0]))
                words.append(f"{argument}={what}")
            outcome = call(name, function, changed, ", ".join(words) or "nothing")
            yield outcome
            spent += outcome.seconds
            if spent > most_seconds or not changed:
                break


def table(outcomes: list[Outcome]) -> collections.Counter:
    return collections.Counter(outcome.fault or "refused or returned" for outcome in outcomes)
