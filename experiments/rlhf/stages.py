"""The stages of all runs in order, each compiled once, with a checkpoint after each: a killed run goes on bit for bit.

Axes: R runs (every β with every number of pairs and every seed), n rounds, U updates of a round.
"""

import functools
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.rlhf.loop import Labelled, Loop, State
from pgjax import saving
from pgjax.environments.text import TextBuffer
from pgjax.training.sharding import Shares, choose_devices
from pgjax.types import PyTree

STATE = "state.safetensors"
CURVES = ("gold", "proxy", "kl", "length")


class Saved(NamedTuple):
    """Everything after a stage.

    Attributes:
        states: `State` with leaves `[R, ...]`.
        curves: name → float32 `[R, n U]`, of the batch of each update; NaN for those to come.
        fits: name → float32 `[R, n]`, of each reward model; NaN where nothing is held out.
        numbers: name → float32 `[R, n + 1]`, before the first round and after each.
        answers: the answers to the prompts of the evaluation, leaves `[R, n + 1, B, ...]`.
        pairs: the answers that were compared in each round, leaves `[R, n, 2 (P + H), ...]`: neighbours are a pair.
        log_probs: ln π of these answers, `[R, n, 2 (P + H)]`.
    """

    states: State
    curves: dict[str, np.ndarray]
    fits: dict[str, np.ndarray]
    numbers: dict[str, np.ndarray]
    answers: TextBuffer
    pairs: TextBuffer
    log_probs: np.ndarray


class Stage(NamedTuple):
    """One stage: its name and the number of its round; `begin` makes the states and has no round."""

    name: str
    round: int


def plan(rounds: int) -> list[Stage]:
    """All stages in order: the start is evaluated, and then every round samples, fits, optimises and evaluates."""
    of_round = lambda n: [Stage(name, n) for name in ("sample", "fit", "optimise", "evaluate")]
    return [Stage("begin", -1), Stage("evaluate", -1), *(stage for n in range(rounds) for stage in of_round(n))]


class Runs:
    """All runs of a loop, on all devices.

    Args:
        loop: the stages of one run.
        keys: typed keys `[R]`.
        kl_coefs: β `[R]`.
        num_pairs: the number of pairs of a round to which the reward model of each run is fitted `[R]`.
    """

    def __init__(self, loop: Loop, keys: jax.Array, kl_coefs: np.ndarray, num_pairs: np.ndarray):
        self.sizes, self.keys = loop.sizes, keys
        self._own = keys, jnp.asarray(kl_coefs, jnp.float32), jnp.asarray(num_pairs, jnp.int32)
        self.shares = Shares.of(choose_devices(None), len(keys))
        self._begin = jax.jit(self.shares.each(loop.begin, "auto", num_shared=2))
        # Each is traced once: the number of the round is an argument; β, the number of pairs and the reward model are
        # state.
        self._programs: dict[str, Callable] = {
            name: jax.jit(self.shares.each(getattr(loop, name), "auto", num_shared=1))
            for name in ("sample", "fit", "optimise", "evaluate")
        }

    def begin(self, params: PyTree, comparisons: Labelled | None) -> Saved:
        """The states before the first round; `comparisons` are those of a person, the same for all runs."""
        states = self.shares.gather(self._begin(*self.shares.scatter(self._own), params, comparisons))
        arguments = self.shares.scatter(states), jnp.int32(0)
        found = [jax.eval_shape(self._programs[name], *arguments)[1] for name in ("evaluate", "sample", "fit")]
        shapes, sampled, fitted = found
        runs, rounds = len(self.keys), self.sizes.rounds
        nothing = lambda *shape: np.full((runs, *shape), np.nan, np.float32)
        return Saved(
            states=states,
            curves={name: nothing(rounds * self.sizes.updates) for name in CURVES},
            fits={name: nothing(rounds) for name in fitted},
            numbers={name: nothing(rounds + 1) for name in shapes["numbers"]},
            answers=jax.tree.map(lambda x: np.zeros((runs, rounds + 1, *x.shape[1:]), x.dtype), shapes["answers"]),
            pairs=jax.tree.map(lambda x: np.zeros((runs, rounds, *x.shape[1:]), x.dtype), sampled["answers"]),
            log_probs=nothing(rounds, 2 * self.sizes.compared),
        )

    def advance(self, saved: Saved, stage: Stage) -> Saved:
        """The state after one more stage."""
        states, found = self._programs[stage.name](self.shares.scatter(saved.states), jnp.int32(max(stage.round, 0)))
        states, found = self.shares.gather(states), jax.tree.map(np.asarray, self.shares.gather(found))
        saved = saved._replace(states=states)
        if stage.name == "sample":
            put = functools.partial(_put, place=stage.round)
            pairs = jax.tree.map(put, saved.pairs, found["answers"])
            saved = saved._replace(pairs=pairs, log_probs=put(saved.log_probs, found["log_probs"]))
        if stage.name == "fit":
            saved = saved._replace(fits=_with(saved.fits, found, stage.round))
        if stage.name == "optimise":
            first = stage.round * self.sizes.updates
            saved = saved._replace(curves=_with(saved.curves, found, slice(first, first + self.sizes.updates)))
        if stage.name == "evaluate":
            put = functools.partial(_put, place=stage.round + 1)
            answers = jax.tree.map(put, saved.answers, found["answers"])
            saved = saved._replace(numbers=_with(saved.numbers, found["numbers"], stage.round + 1), answers=answers)
        return saved


def _put(old: np.ndarray, new: np.ndarray, place: int | slice) -> np.ndarray:
    changed = np.array(old)
    changed[:, place] = new
    return changed


def _with(old: dict[str, np.ndarray], new: dict[str, np.ndarray], place: int | slice) -> dict[str, np.ndarray]:
    return {name: _put(values, new[name], place) for name, values in old.items()}


def save(path: pathlib.Path, saved: Saved, done: int, options: dict[str, Any]) -> None:
    """Write the state after `done` stages; a kill leaves either the old file or the new one."""
    saving.save(path, saved, {"done": done, "options": options})


def restore(path: pathlib.Path, like: Saved, options: dict[str, Any]) -> tuple[Saved, int]:
    """The saved state and the number of stages that are done.

    Raises:
        ValueError: if the file is damaged, or belongs to a run with other options.
    """
    checkpoint = saving.read(path)
    if (found := checkpoint.metadata.get("options")) != saving_options(options):
        found = found if isinstance(found, dict) else {}
        changed = sorted(name for name in options if found.get(name) != saving_options(options)[name])
        raise ValueError(f"{path} belongs to a run with other options: {', '.join(changed)}")
    if type(done := checkpoint.metadata.get("done")) is not int or done < 1:
        raise ValueError(f"{path} must hold the number of stages that are done, got {done!r}")
    saved = checkpoint.restore(like)
    arrays = jax.tree.map(np.asarray, saved._replace(states=None))
    return arrays._replace(states=saved.states), done


def saving_options(options: dict[str, Any]) -> dict[str, Any]:
    """Options as a file of JSON gives them back."""
    import json

    return json.loads(json.dumps(options, default=str))
