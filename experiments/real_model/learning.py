"""RLOO with a KL penalty on the language model: one update at a time, saved as it goes, judged on held-out prompts.

Axes: B answers of an update, N answers of an evaluation, k answers of a prompt, U updates.
"""

import dataclasses
import pathlib
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.harness import runner
from pgjax import acting, baselines, estimators, rewards, rollouts, training
from pgjax._shown import shown
from pgjax.saving import checkpoints
from pgjax.types import Environment, Policy, PyTree, Rewards, TrainState, Trajectory

REPORTED = ("scores", "kls", "mean_length", "entropy", "gradient_norm")
STATE = "state.safetensors"
# Updates fold small numbers into the key of a run. They never reach this number.
_EVALUATION = 2**31 - 1


class Recipe(NamedTuple):
    """How the model learns; the fields are those of the experiment's `Config`."""

    prompts: int
    group_size: int
    max_new_tokens: int
    kl_coef: float
    learning_rate: float
    answers_per_piece: int


def for_each_answer(stage: Rewards, kl_coef: float) -> Rewards:
    """A KL penalty that also reports the score and Σ_t ln π/π_ref of every answer, `[B]` each."""

    def relabel(params: PyTree, state: PyTree, trajectory: Trajectory) -> tuple[Trajectory, dict[str, jax.Array]]:
        charged, found = stage.relabel(params, state, trajectory)
        kls = jnp.sum(trajectory.rewards - charged.rewards, axis=0) / kl_coef
        return charged, {**found, "scores": jnp.sum(trajectory.rewards, axis=0), "kls": kls}

    return stage._replace(relabel=relabel)


def make_trainer(environment: Environment, policy: Policy, recipe: Recipe) -> training.Trainer:
    """RLOO: each answer's score, less the penalty, is compared with the other answers to the same prompt."""
    rows = recipe.answers_per_piece * recipe.max_new_tokens
    estimator = estimators.make_estimator(
        policy,
        returns=estimators.total_return(),
        baseline=baselines.leave_one_out(group_size=recipe.group_size),
        rows_per_piece=rows,
    )
    penalty = rewards.kl_penalty(policy, recipe.kl_coef, rows_per_piece=rows)
    return training.make_trainer(
        environment,
        policy,
        estimator,
        optax.adam(recipe.learning_rate),
        num_episodes=recipe.prompts * recipe.group_size,
        rewards=for_each_answer(penalty, recipe.kl_coef),
    )


class Judged(NamedTuple):
    """N answers to held-out prompts, consecutive answers to one prompt in a row.

    Attributes:
        scores, kls, lengths: the score, Σ_t ln π/π_ref and the number of tokens of each answer, `[N]`.
        buffers: the texts, leaves `[N, ...]`.
    """

    scores: jax.Array
    kls: jax.Array
    lengths: jax.Array
    buffers: PyTree


def make_judge(
    environment: Environment, policy: Policy, count: int, group_size: int, rows_per_piece: int
) -> Callable[[PyTree, PyTree, jax.Array], Judged]:
    """`(θ, θ_ref, key) → Judged`: the same key draws the same prompts, so two θ can be compared in pairs."""

    def judge(params: PyTree, reference: PyTree, key: jax.Array) -> Judged:
        keys = jax.random.split(jax.random.fold_in(key, _EVALUATION), count)
        played = rollouts.episodes(environment, policy, params, keys, group_size=group_size, record_log_probs=True)
        of_reference = acting.log_probs(policy, reference, played, rows_per_piece)
        return Judged(
            scores=jnp.sum(played.rewards, axis=0),
            kls=jnp.sum(jnp.where(played.alive, played.behaviour_log_probs - of_reference, 0.0), axis=0),
            lengths=jnp.sum(played.alive, axis=0),
            buffers=played.final_obs,
        )

    return jax.jit(judge)


# The state of a run, without the reference: the file of the model holds that.


def _kept(state: TrainState) -> TrainState:
    return state._replace(reward_state=())


def save(path: pathlib.Path, state: TrainState, history: list[dict[str, Any]]) -> None:
    """Write what `restore` reads: θ, the state of Adam, the key and the records of all updates so far."""
    checkpoints.save(path, _kept(state), {"history": history})


def restore(path: pathlib.Path, fresh: TrainState) -> tuple[TrainState, list[dict[str, Any]]]:
    """The saved state with the reference of a fresh one, and the records.

    Raises:
        ValueError: the file is missing or damaged, or belongs to another model.
    """
    like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), _kept(fresh))
    saved = checkpoints.read(path)
    history = saved.metadata.get("history")
    if not isinstance(history, list) or not all(isinstance(record, dict) for record in history):
        raise ValueError(f"path {path} must hold the records of its updates, got {shown(history)}")
    return saved.restore(like)._replace(reward_state=fresh.reward_state), history


def memory_of(compiled: jax.stages.Compiled) -> int:
    """The bytes that a compiled program holds while it runs: its arguments, its results and its temporary arrays."""
    found = compiled.memory_analysis()
    sizes = ("argument_size_in_bytes", "output_size_in_bytes", "temp_size_in_bytes")
    return sum(getattr(found, name) for name in sizes) - found.alias_size_in_bytes


@dataclasses.dataclass
class Learned:
    """A trained model.

    Attributes:
        state: the last state; its `reward_state.reference` is θ at the start.
        history: a record of every update: `scores` and `kls` `[B]`, `seconds`, `gradient_norm`.
    """

    state: TrainState
    history: list[dict[str, Any]]


def _one(compiled: Callable, state: TrainState, update: int) -> tuple[TrainState, dict[str, Any]]:
    start = time.perf_counter()
    state, metrics = jax.block_until_ready(compiled(state))
    record = {name: np.asarray(metrics[name]).tolist() for name in REPORTED}
    return state, {"update": update + 1, "seconds": time.perf_counter() - start, **record}


def learn(
    trainer: training.Trainer,
    key: jax.Array,
    updates: int,
    recorder: runner.Recorder,
    *,
    save_every: int,
    earlier: pathlib.Path | None,
    note: Callable[[dict[str, Any]], str],
) -> Learned:
    """Make the updates one after another; every `save_every` of them the state is saved.

    Args:
        earlier: the file of a state from which the run continues.
        note: `record → text` for the line of progress.
    """
    # Not under jit: the parameters of the file would become constants of the program.
    state, history = trainer.init(key), []
    if earlier is not None:
        with runner.usage_errors():
            state, history = restore(earlier, state)
    for record in history:
        recorder.metrics(record)
    compiled = jax.jit(trainer.update, donate_argnums=0).lower(state).compile()
    recorder.say(f"An update holds {memory_of(compiled) / 1e9:.1f} GB of arrays while it runs.")
    recorder.resumable()
    with recorder.progress(updates - len(history), "learning", "updates") as progress:
        for update in range(len(history), updates):
            state, record = _one(compiled, state, update)
            history.append(record)
            recorder.metrics(record)
            if (update + 1) % save_every == 0 or update + 1 == updates:
                save(recorder.path(STATE), state, history)
            progress.advance(1, note(record))
    return Learned(state=state, history=history)


def discard(recorder: runner.Recorder) -> None:
    """Remove the saved state, three times the size of the model, once nothing is left to resume."""
    recorder.path(STATE).unlink(missing_ok=True)
