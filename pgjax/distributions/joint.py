"""Actions of several parts, each with a distribution of its own."""

from collections.abc import Callable
from typing import Any, Literal

import jax

from pgjax.types import Distribution, PyTree


def joint(families: PyTree) -> Distribution:
    """Independent parts: parameters and actions are trees whose leaves belong to those of a tree of distributions.

    ln p(a) = Σ_i ln p_i(a_i),   H = Σ_i H_i,   KL = Σ_i KL_i

    The parts are independent given the observation. `entropy` and `kl` are None if one part's is.

    Args:
        families: a dict, tuple or other tree of `Distribution`, such as `{"buy": categorical, "price":
            diagonal_gaussian}`.

    Returns:
        The distribution.

    Raises:
        ValueError: if the tree has no distribution or a leaf is none; when used, if a tree of parameters or actions has
            another structure.
    """
    is_family = lambda node: isinstance(node, Distribution)
    parts, structure = jax.tree.flatten(families, is_leaf=is_family)
    if not parts or not all(map(is_family, parts)):
        raise ValueError(f"families must be a tree of at least one Distribution and nothing else, got {families!r}")

    def sample(key: jax.Array, parameters: PyTree) -> PyTree:
        keys = jax.random.split(key, len(parts))
        drawn = [part.sample(k, p) for part, k, p in zip(parts, keys, structure.flatten_up_to(parameters))]
        return structure.unflatten(drawn)

    def total(name: str) -> Any:
        functions = [getattr(part, name) for part in parts]
        if None in functions:
            return None
        return lambda *trees: sum(f(*leaves) for f, *leaves in zip(functions, *map(structure.flatten_up_to, trees)))

    def mode(parameters: PyTree) -> PyTree:
        return structure.unflatten([part.mode(p) for part, p in zip(parts, structure.flatten_up_to(parameters))])

    return Distribution(sample=sample, log_prob=total("log_prob"), entropy=total("entropy"), kl=total("kl"), mode=mode)


def require(distribution: Distribution, name: Literal["entropy", "kl"], who: str) -> Callable[..., jax.Array]:
    """`distribution.entropy` or `distribution.kl`; refuses a distribution that has it not.

    Args:
        name: `"entropy"` or `"kl"`.
        who: what needs it, such as "an entropy bonus (entropy_coef)" or "the natural gradient".

    Raises:
        ValueError: if `distribution` has None there.
    """
    function = getattr(distribution, name)
    if function is None:
        raise ValueError(
            f"{who} needs Distribution.{name}, which this family of actions does not have (it is None): a Plackett–Luce"
            " distribution over slates has it only for few items and short slates"
        )
    return function
