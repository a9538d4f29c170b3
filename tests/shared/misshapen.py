"""Trajectories that are wrong in one field: what each is called, how it is made of a right one, what its error says."""

import jax
import jax.numpy as jnp

from pgjax.types import Trajectory


def of(name, change):
    """The trajectory with one field changed; a field that is absent is made of the rewards first."""

    def misshape(trajectory):
        present = getattr(trajectory, name)
        made = trajectory.obs if name == "next_obs" else trajectory.rewards
        return trajectory._replace(**{name: jax.tree.map(change, made if present is None else present)})

    return misshape


def swapped(x):
    return jnp.swapaxes(x, 0, 1)


def batch_major(trajectory):
    swap = lambda name, tree: tree if name in ("final_obs", "carry") else jax.tree.map(swapped, tree)
    return Trajectory(**{name: swap(name, tree) for name, tree in trajectory._asdict().items()})


def without_lanes(x):
    return x[:, 0]


def first_step(x):
    return x[0]


def as_column(x):
    return x[:, :1]


def as_row(x):
    return x[:1]


def twice_the_lanes(x):
    return jnp.concatenate([x, x], axis=1)


def one_step_more(x):
    return jnp.concatenate([x, x[:1]])


def flat(x):
    return x.reshape((-1, *x.shape[2:]))


FLOATS, MASKS = "must be float [T, B] = ", "must be bool [T, B] = "
LEAVES, LANES = "must be [T, B, ...] = ", "must be [B, ...] = "

# (what it is called, trajectory → misshapen trajectory, what the error says after "trajectory."). T ≠ B is assumed.
MISSHAPEN = [
    ("everything batch-major", batch_major, "final_obs must be [B, ...]"),
    ("obs batch-major", of("obs", swapped), f"obs {LEAVES}"),
    ("obs of a larger batch", of("obs", twice_the_lanes), f"obs {LEAVES}"),
    ("obs laid flat", of("obs", flat), f"obs {LEAVES}"),
    ("obs of one step", of("obs", first_step), f"obs {LEAVES}"),
    ("obs with the last one too", of("obs", one_step_more), f"obs {LEAVES}"),
    ("actions batch-major", of("actions", swapped), f"actions {LEAVES}"),
    ("actions without lanes", of("actions", without_lanes), f"actions {LEAVES}"),
    ("actions one step short", of("actions", lambda x: x[:-1]), f"actions {LEAVES}"),
    ("rewards batch-major", of("rewards", swapped), f"rewards {FLOATS}"),
    ("rewards as a column", of("rewards", as_column), f"rewards {FLOATS}"),
    ("rewards as a row", of("rewards", as_row), f"rewards {FLOATS}"),
    ("rewards without lanes", of("rewards", without_lanes), f"rewards {FLOATS}"),
    ("rewards with a third axis", of("rewards", lambda x: x[..., None]), f"rewards {FLOATS}"),
    ("rewards as integers", of("rewards", lambda x: x.astype(jnp.int32)), f"rewards {FLOATS}"),
    ("no rewards", lambda trajectory: trajectory._replace(rewards=None), "rewards must be an array"),
    ("alive batch-major", of("alive", swapped), f"alive {MASKS}"),
    ("alive as a column", of("alive", as_column), f"alive {MASKS}"),
    ("alive as a row", of("alive", as_row), f"alive {MASKS}"),
    ("alive as a float", of("alive", lambda x: x.astype(jnp.float32)), f"alive {MASKS}"),
    ("terminated as a column", of("terminated", as_column), f"terminated {MASKS}"),
    ("terminated as an integer", of("terminated", lambda x: x.astype(jnp.int32)), f"terminated {MASKS}"),
    ("truncated of whole episodes", of("truncated", first_step), f"truncated {MASKS}"),
    ("truncated as a float", of("truncated", lambda x: x.astype(jnp.float32)), f"truncated {MASKS}"),
    ("final_obs of every step", lambda trajectory: trajectory._replace(final_obs=trajectory.obs), f"final_obs {LANES}"),
    ("final_obs of two lanes", of("final_obs", lambda x: x[:2]), f"final_obs {LANES}"),
    ("final_obs with a third axis", of("final_obs", lambda x: x[..., None]), "final_obs must be ["),
    ("final_obs of another structure", of("final_obs", lambda x: {"x": x}), "final_obs must have the structure"),
    ("next_obs batch-major", of("next_obs", swapped), f"next_obs {LEAVES}"),
    ("next_obs with a third axis", of("next_obs", lambda x: x[..., None]), "next_obs must be ["),
    ("returns of whole episodes", of("returns", first_step), f"returns {FLOATS}"),
    ("returns without lanes", of("returns", without_lanes), f"returns {FLOATS}"),
    ("score_norms as a column", of("score_norms", as_column), f"score_norms {FLOATS}"),
    ("score_norms of whole episodes without a row", of("score_norms", first_step), f"score_norms {FLOATS}"),
    ("behaviour_log_probs batch-major", of("behaviour_log_probs", swapped), f"behaviour_log_probs {FLOATS}"),
    ("behaviour_log_probs as a column", of("behaviour_log_probs", as_column), f"behaviour_log_probs {FLOATS}"),
    ("greedy_returns of whole episodes", of("greedy_returns", first_step), f"greedy_returns {FLOATS}"),
    ("carry of every step", lambda trajectory: trajectory._replace(carry=trajectory.obs), f"carry {LANES}"),
]
