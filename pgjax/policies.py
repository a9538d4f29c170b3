"""Policies on disk: a file that knows its environment and network, so that one call brings all three back."""

import os
from typing import Any

import jax

from pgjax import checkpoints, environments, networks
from pgjax.types import Environment, Policy

PyTree = Any


def save_policy(
    path: str | os.PathLike, params: PyTree, *, env: str, distribution: str = "auto", hidden: tuple[int, ...] = (64, 64)
) -> None:
    """Writes θ of `networks.make_policy(environments.make(env), distribution=distribution, hidden=hidden)`.

    Raises:
        OSError: if the file cannot be written; an older one at `path` is then untouched.
    """
    checkpoints.save(path, params, {"env": env, "distribution": distribution, "hidden": list(hidden)})


def load_policy(path: str | os.PathLike) -> tuple[Environment, Policy, PyTree]:
    """`(environment, policy, params)` of a file that `save_policy` or `python -m experiments.train` wrote.

    Raises:
        ValueError: if the file is missing, damaged or no policy's, or its environment cannot be made here.
    """
    header = checkpoints.metadata(path)
    lacking = sorted({"env", "distribution", "hidden"} - header.keys())
    if lacking:
        raise ValueError(f"path {path} is no policy's: its metadata lack {', '.join(lacking)}")
    environment = environments.make(header["env"])
    policy = networks.make_policy(environment, distribution=header["distribution"], hidden=header["hidden"])
    _, obs = jax.eval_shape(lambda: environment.reset(jax.random.key(0), environment.params))
    like = jax.eval_shape(policy.init, jax.random.key(0), obs)
    return environment, policy, checkpoints.restore(path, like)
