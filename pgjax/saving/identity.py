"""What a checkpoint must have in common with the program that goes on from it, so that the numbers stay the same."""

import hashlib
import json
import platform
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import jax
import jaxlib.version
import numpy as np

import pgjax
from pgjax._doors import readable
from pgjax._sealed import as_json

# Settings of JAX that change random numbers or rounding.
NUMERICS = ("jax_threefry_partitionable", "jax_default_prng_impl", "jax_enable_x64", "jax_default_matmul_precision")
GROUPS = ("options", "versions", "numerics", "code")


class Difference(NamedTuple):
    """A field in which a checkpoint and the present program differ.

    Attributes:
        group: one of `GROUPS`.
        field: its name in the group.
        saved, present: its two values; None where there is none.
    """

    group: str
    field: str
    saved: Any
    present: Any

    def __str__(self) -> str:
        return f"{self.field} (saved {_word(self.saved)}, now {_word(self.present)})"


def _word(value: Any) -> str:
    return "nothing" if value is None else json.dumps(value, ensure_ascii=False)


@readable
def identity(options: Mapping[str, Any], code: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The identity of this program: a JSON object for the metadata of a checkpoint.

    Args:
        options: the options that change results.
        code: name → digest of each file of the user that takes part.

    Returns:
        The groups of `GROUPS`, and in `digest` the SHA-256 of all of them.
    """
    versions = {"jax": jax.__version__, "jaxlib": jaxlib.version.__version__, "numpy": np.__version__}
    versions |= {"pgjax": pgjax.__version__, "python": platform.python_version()}
    numerics = {name: getattr(jax.config, name) for name in NUMERICS}
    groups = as_json({"options": dict(options), "versions": versions, "numerics": numerics, "code": dict(code or {})})
    return groups | {"digest": hashlib.sha256(json.dumps(groups, sort_keys=True).encode()).hexdigest()}


@readable
def differences(saved: Mapping[str, Any], present: Mapping[str, Any]) -> list[Difference]:
    """The fields in which two identities differ; a field that one of them lacks differs from every value but None."""
    if saved.get("digest") == present.get("digest"):
        return []
    found = []
    for group in GROUPS:
        one, other = saved.get(group) or {}, present.get(group) or {}
        names = sorted({*one, *other})
        found += [Difference(group, n, one.get(n), other.get(n)) for n in names if one.get(n) != other.get(n)]
    return found


@readable
def refused(found: Collection[Difference], allowed: Collection[str]) -> list[Difference]:
    """The differences that are not allowed, each by its field or by its group (`versions`, `numerics`, `code`)."""
    return [each for each in found if each.field not in allowed and each.group not in allowed]
