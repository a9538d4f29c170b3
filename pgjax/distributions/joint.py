"""Distributions of actions with several parts, where each part has its own distribution."""

from collections.abc import Callable
from typing import Any, Literal

import jax

from pgjax._doors import readable
from pgjax.types import Distribution, PyTree


@readable
def joint(families: PyTree) -> Distribution:
    """A distribution with independent parts; its parameters and actions are trees like the tree `families`.

    ln p(a) = Σ_i ln p_i(a_i),   H = Σ_i H_i,   KL = Σ_i KL_i

    The parts are independent given the observation. `entropy` is None if one part has no entropy, and likewise `kl`.

    Args:
        families: a dict, tuple or other tree of `Distribution`.

    Returns:
        The distribution.

    Raises:
        ValueError: if the tree is empty or a leaf is not a `Distribution`; when the distribution is used, if a tree of
            parameters or actions has another structure.

    Example: an action with a choice and a price.

        >>> from pgjax import distributions
        >>> distributions.joint({"buy": distributions.categorical, "price": distributions.diagonal_gaussian})
        Distribution(joint)
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


@readable
def require(distribution: Distribution, name: Literal["entropy", "kl"], who: str) -> Callable[..., jax.Array]:
    """`distribution.entropy` or `distribution.kl`; an error if the distribution does not have this function.

    Args:
        distribution: the distribution.
        name: `"entropy"` or `"kl"`.
        who: the subject of the error, which needs the function, such as "an entropy bonus (entropy_coef)".

    Raises:
        ValueError: if the function is None.
    """
    function = getattr(distribution, name)
    if function is None:
        raise ValueError(
            f"{who} needs Distribution.{name}, but it is None in this distribution: a Plackett–Luce distribution over "
            "slates has it only for few items and short slates"
        )
    return function
