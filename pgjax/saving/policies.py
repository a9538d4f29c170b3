"""Saved policies: a file holds θ, the arguments of the network and the spaces, so one call loads a policy that acts.

A file never makes the program import or call anything except what pgjax and gymnax ship. It may name an environment of
pgjax or gymnax; any other environment comes from the caller, and its spaces must be those of the file.
"""

import json
import os
import pathlib
from typing import Any

import jax

from pgjax import environments, networks
from pgjax._checks import shown
from pgjax._doors import readable
from pgjax._leaves import named_leaves, require_finite, require_same_layout
from pgjax._sealed import as_json
from pgjax.networks.words import SCANNED
from pgjax.saving import checkpoints
from pgjax.saving._space_descriptions import alike, describe
from pgjax.types import Environment, Policy, PyTree

FILE_NAME = "policy.safetensors"
"""The name of the file in the folder of a run."""

_VERSION = 2
_SPACES = ("observation_space", "action_space")
_KEYS_OF_VERSION_1 = ("env", "distribution", "hidden")


@readable
def policy_header(environment: Environment | str, **arguments: Any) -> dict[str, Any]:
    """The header that `save_policy` writes; call this before a long training to find refused arguments early.

    It holds `version`, `env` (the name that was given, or null), `observation_space` and `action_space` as JSON
    descriptions, and the `arguments` of `networks.make_policy`.

    Raises:
        ValueError: if the arguments make no policy, or a space or an argument cannot be written as JSON.

    Example:
        >>> from pgjax import saving
        >>> saving.policy_header("CartPole-v1", hidden=(32, 32))["arguments"]
        {'hidden': [32, 32]}
    """
    return _header_and_shapes(environment, arguments)[0]


@readable
def save_policy(path: str | os.PathLike, params: PyTree, *, environment: Environment | str, **arguments: Any) -> None:
    """Write θ of `networks.make_policy(environment, **arguments)`, with the spaces and the arguments in the header.

    Args:
        path: the file.
        params: θ, finite.
        environment: a name for `environments.make`, or a record. `load_policy` can make an environment that pgjax ships
            from its name. For any other name and for a record, `load_policy` must be given the environment, because two
            records of one name may have different options.
        **arguments: the arguments of `networks.make_policy` with which the policy was made, JSON values.

    Raises:
        ValueError: if `networks.make_policy` refuses the arguments, `params` are not the θ of this policy or are not
            finite, or a space or an argument cannot be written as JSON; nothing is written.
        OSError: if the file cannot be written; an older file at `path` is then untouched.

    Example: the arguments of the policy are given once more, so that `load_policy` can make it.

        >>> import pathlib, tempfile
        >>> import jax, jax.numpy as jnp
        >>> from pgjax import environments, networks, saving
        >>> policy = networks.make_policy(environments.make("CartPole-v1"), hidden=(8,))
        >>> params = policy.init(jax.random.key(0), jnp.zeros(4))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = pathlib.Path(folder) / "policy.safetensors"
        ...     saving.save_policy(path, params, environment="CartPole-v1", hidden=(8,))
        ...     environment, policy, params = saving.load_policy(path)
        >>> environment.name, policy
        ('CartPole-v1', Policy(policy_for_spaces, distribution=Distribution(categorical)))
    """
    header, shapes = _header_and_shapes(environment, arguments)
    require_same_layout("params", named_leaves(params)[0], named_leaves(shapes)[0])
    require_finite("params", params)
    checkpoints.save(path, params, header)


@readable
def load_policy(
    path: str | os.PathLike, environment: Environment | str | None = None
) -> tuple[Environment, Policy, PyTree]:
    """`(environment, policy, params)` of a file that `save_policy` or `python -m experiments.train` wrote.

    Args:
        path: the file, or the folder of a run that holds `policy.safetensors`.
        environment: a record, or a name for `environments.make` ("package.module:name" runs the code of that module).
            None takes the environment that the file names, which must be one that pgjax ships.

    Raises:
        ValueError: if the file is missing, damaged or holds no policy; if `environment` is None and the file names no
            environment that pgjax ships; if the spaces of the environment are not those of the file; or if θ is not
            finite.
    """
    path, checkpoint, header = _read(path)
    made = _shipped(path, header["env"]) if environment is None else _made(environment)
    _require_spaces(path, header, made)
    _refuse_long_lists(path, header["arguments"], len(checkpoint.arrays))
    try:
        policy, shapes = _policy_and_shapes(made, header["arguments"])
    except (TypeError, ValueError, ArithmeticError, AttributeError) as error:
        arguments = shown(header["arguments"])
        raise ValueError(f"path {path}: 'arguments' of its header, {arguments}, make no policy: {error}") from error
    params = checkpoint.restore(shapes)
    require_finite(f"path {path}: θ", params)
    return made, policy, params


@readable
def read_header(path: str | os.PathLike) -> dict[str, Any]:
    """The header of a file that `save_policy` wrote, without making an environment or a network.

    It has the fields of `policy_header`; a file of version 1 has no `version` and no spaces.

    Args:
        path: the file, or the folder of a run that holds `policy.safetensors`.

    Raises:
        ValueError: if the file is missing, damaged or holds no policy.
    """
    return _read(path)[2]


def _read(path: str | os.PathLike) -> tuple[pathlib.Path, checkpoints.Checkpoint, dict[str, Any]]:
    """The file, what it holds, and its header with the types checked."""
    path = pathlib.Path(path)
    path = path / FILE_NAME if path.is_dir() else path
    checkpoint = checkpoints.read(path)
    return path, checkpoint, _checked_header(path, checkpoint.metadata)


def _made(environment: Environment | str) -> Environment:
    made = environments.make(environment) if isinstance(environment, str) else environment
    if not isinstance(made, Environment):
        raise ValueError(f"environment must be a name or a pgjax.types.Environment, got {shown(environment)}")
    return made


def _policy_and_shapes(environment: Environment, arguments: dict[str, Any]) -> tuple[Policy, PyTree]:
    """The policy, and the shapes and dtypes of θ."""
    if arguments.get("action_mask") is not None:
        raise ValueError(
            "action_mask must be left out, because a file cannot hold a function: save θ with pgjax.saving.save, "
            "and make the policy anew before pgjax.saving.restore"
        )
    policy = networks.make_policy(environment, **arguments)
    _, obs = jax.eval_shape(lambda: environment.reset(jax.random.key(0), environment.params))
    return policy, jax.eval_shape(policy.init, jax.random.key(0), obs)


def _header_and_shapes(environment: Environment | str, arguments: dict[str, Any]) -> tuple[dict[str, Any], PyTree]:
    made = _made(environment)
    _, shapes = _policy_and_shapes(made, arguments)
    name = environment if isinstance(environment, str) else None
    spaces = {space: describe(getattr(made, space), space) for space in _SPACES}
    return as_json({"version": _VERSION, "env": name, **spaces, "arguments": arguments}), shapes


def _checked_header(path: pathlib.Path, metadata: dict[str, Any]) -> dict[str, Any]:
    """The header with its types checked; in version 1 it has neither spaces nor a `version`."""
    keys = ("env", *_SPACES, "arguments") if "version" in metadata else _KEYS_OF_VERSION_1
    if metadata.get("version", _VERSION) != _VERSION:
        version = shown(metadata["version"])
        raise ValueError(f"path {path} holds a policy of version {version}; this pgjax reads versions 1 and {_VERSION}")
    if lacking := [key for key in keys if key not in metadata]:
        raise ValueError(f"path {path} holds no saved policy: its header lacks {', '.join(lacking)}")
    header = dict(metadata)
    if "version" not in metadata:
        header["arguments"] = {key: metadata[key] for key in ("distribution", "hidden")}
    for key, allowed, name in (("env", str | None, "a name or null"), ("arguments", dict, "an object")):
        if not isinstance(header[key], allowed):
            raise ValueError(f"path {path}: {key!r} in its header must be {name}, got {shown(header[key])}")
    return header


def _shipped(path: pathlib.Path, name: str | None) -> Environment:
    """The environment that a file names; only environments that pgjax ships are looked up."""
    how = "give load_policy the environment, on the command line --env NAME or --env package.module:name"
    if name is None:
        raise ValueError(f"path {path} names no environment: {how}")
    try:
        return environments.make_shipped(name)
    except ValueError as error:
        raise ValueError(
            f"path {path} names the environment {shown(name)}, which pgjax does not ship, and pgjax never imports code "
            f"that a file names: {how}"
        ) from error


def _require_spaces(path: pathlib.Path, header: dict[str, Any], environment: Environment) -> None:
    for name in _SPACES:
        if name not in header:
            continue
        saved, found = header[name], describe(getattr(environment, name), f"{environment.name}: {name}")
        if not alike(saved, found):
            raise ValueError(
                f"path {path} holds a policy for the {name} {shown(json.dumps(saved))}, but the environment "
                f"{environment.name} has {shown(json.dumps(found))}"
            )


def _refuse_long_lists(path: pathlib.Path, arguments: dict[str, Any], num_arrays: int) -> None:
    """Refuse lists longer than the number of arrays: each layer has an array, and tracing thousands takes minutes.

    The blocks of a language model are one array, and tracing them costs the same for any number.
    """
    scanned = arguments.get("network") in SCANNED
    for key, value in arguments.items():
        if key == "hidden" and scanned:
            continue
        if isinstance(value, list) and len(value) > num_arrays:
            raise ValueError(
                f"path {path}: {shown(key)} in its header has {len(value)} entries, more than the file's "
                f"{num_arrays} arrays"
            )
