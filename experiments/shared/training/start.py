"""A training that starts from a saved policy: its network, its environment and its θ come from the file."""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from pgjax.saving import policies
from pgjax.types import Environment, Policy, PyTree

# The options that describe a policy's network.
OF_NETWORK = ("distribution", "network", "hidden", "activation", "network_options")
# What a file may say of the first θ, which the training then does not use.
_OF_FIRST_PARAMS = ("initial_log_std",)


def options(path: pathlib.Path, given: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """The options that the file decides: those of the network, and `env` if the file names it.

    Args:
        given: the options of the command line.
        defaults: the options of a policy whose file says nothing about them.

    Raises:
        ValueError: an option of the network is given beside the file, or the file is missing, damaged, holds no policy,
            or has an argument that no option can express.
    """
    for name in OF_NETWORK:
        if name in given:
            shown = " ".join(map(str, given[name])) if isinstance(given[name], tuple) else given[name]
            option = "--" + name.replace("_", "-")
            raise ValueError(f"{option} {shown}: must be left out with --start-from, whose file describes the network")
    try:
        header = policies.read_header(path)
    except ValueError as error:
        raise ValueError(f"--start-from: {error}") from error
    arguments = {key: value for key, value in header["arguments"].items() if key not in _OF_FIRST_PARAMS}
    if unknown := sorted(set(arguments) - set(OF_NETWORK)):
        raise ValueError(
            f"--start-from {path}: its network has the arguments {', '.join(unknown)}, which experiments.train has no "
            "options for"
        )
    found = {name: defaults[name] for name in OF_NETWORK} | arguments
    found["hidden"] = tuple(found["hidden"])
    if isinstance(found["network_options"], dict):
        pairs = found["network_options"].items()
        found["network_options"] = tuple(f"{key}={json.dumps(value)}" for key, value in pairs)
    found["network_options"] = found["network_options"] or ()
    return found | ({} if header["env"] is None else {"env": header["env"]})


def carried(path: pathlib.Path) -> pathlib.Path:
    """The file from which another process can start.

    Raises:
        ValueError: there is no such file.
    """
    file = path / policies.FILE_NAME if path.is_dir() else path
    policies.read_header(file)
    return file


def policy(path: pathlib.Path, environment: Environment) -> Policy:
    """The saved policy, whose `init` gives the saved θ for every key.

    Raises:
        ValueError: as `policies.load_policy`; for example, the policy is for other observations or actions.
    """
    try:
        _, saved, params = policies.load_policy(path, environment)
    except ValueError as error:
        raise ValueError(f"--start-from: {error}") from error

    def init(key: jax.Array, obs: PyTree) -> PyTree:
        del key, obs
        return jax.tree.map(jnp.asarray, params)

    return saved._replace(init=init)
