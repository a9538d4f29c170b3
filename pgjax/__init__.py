"""pgjax: a laboratory for policy gradients in JAX.

    environments ─► rollouts ─► rewards ─► returns ─► baselines ─► losses ─► estimators ─► training ─► experiments
     X_t, A_t, R_t+1  Trajectory  relabel     G_t        b(X_t)     surrogate   ∇̂ρ         optax, scan   tables, plots

The main idea: the estimator that is measured is the estimator that trains. You declare an estimator once
(`estimators.make_estimator`). Then `exact` checks this object against an exact gradient, `diagnostics` measures its
variance, and `training` uses it to train a policy on thousands of parallel episodes.

Each module is loaded when it is first used. So `import pgjax` itself loads neither jax nor flax nor gymnax.
"""

import gc
import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# The names that `__getattr__` below loads, for editors and type checkers; a test compares the two lists.
if TYPE_CHECKING:
    from pgjax import acting as acting
    from pgjax import advantages as advantages
    from pgjax import automata as automata
    from pgjax import baselines as baselines
    from pgjax import contracts as contracts
    from pgjax import datasets as datasets
    from pgjax import diagnostics as diagnostics
    from pgjax import distributions as distributions
    from pgjax import environments as environments
    from pgjax import estimators as estimators
    from pgjax import evaluation as evaluation
    from pgjax import exact as exact
    from pgjax import exported as exported
    from pgjax import imitation as imitation
    from pgjax import losses as losses
    from pgjax import networks as networks
    from pgjax import parameter_exploring as parameter_exploring
    from pgjax import preferences as preferences
    from pgjax import registry as registry
    from pgjax import returns as returns
    from pgjax import rewards as rewards
    from pgjax import rollouts as rollouts
    from pgjax import rows as rows
    from pgjax import saving as saving
    from pgjax import spaces as spaces
    from pgjax import tokens as tokens
    from pgjax import training as training
    from pgjax import types as types
    from pgjax import variance as variance
    from pgjax import writing as writing
    from pgjax.spaces import Box as Box
    from pgjax.spaces import Discrete as Discrete
    from pgjax.spaces import MultiDiscrete as MultiDiscrete
    from pgjax.spaces import Slate as Slate
    from pgjax.types import Baseline as Baseline
    from pgjax.types import Critic as Critic
    from pgjax.types import Distribution as Distribution
    from pgjax.types import Environment as Environment
    from pgjax.types import Estimator as Estimator
    from pgjax.types import Memory as Memory
    from pgjax.types import Needs as Needs
    from pgjax.types import Policy as Policy
    from pgjax.types import Rewards as Rewards
    from pgjax.types import Step as Step
    from pgjax.types import TrainState as TrainState
    from pgjax.types import Trajectory as Trajectory

_MODULES = (
    "acting",
    "advantages",
    "automata",
    "baselines",
    "contracts",
    "datasets",
    "diagnostics",
    "distributions",
    "environments",
    "estimators",
    "evaluation",
    "exact",
    "exported",
    "imitation",
    "losses",
    "networks",
    "parameter_exploring",
    "preferences",
    "registry",
    "returns",
    "rewards",
    "rollouts",
    "rows",
    "saving",
    "spaces",
    "tokens",
    "training",
    "types",
    "variance",
    "writing",
)
# The records that most programs need, each with the module that defines it.
_TYPES = {
    "Baseline": "types",
    "Box": "spaces",
    "Critic": "types",
    "Discrete": "spaces",
    "Distribution": "types",
    "Environment": "types",
    "Estimator": "types",
    "Memory": "types",
    "MultiDiscrete": "spaces",
    "Needs": "types",
    "Policy": "types",
    "Rewards": "types",
    "Slate": "spaces",
    "Step": "types",
    "TrainState": "types",
    "Trajectory": "types",
}

# pyright reads the block above.
__all__ = [*_MODULES, *_TYPES]  # pyright: ignore[reportUnsupportedDunderAll]


# Type checkers do not see this function: with it, every misspelled name would have the type Any.
if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        if name in _MODULES:
            return _imported(name)
        if name in _TYPES:
            return getattr(_imported(_TYPES[name]), name)
        raise AttributeError(f"module 'pgjax' has no attribute {name!r}")


def _imported(name: str) -> Any:
    """A module of pgjax, imported while the garbage collector pauses.

    Imports make some hundred thousand objects that stay, and the collector would go over them many times.
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        return importlib.import_module(f"pgjax.{name}")
    finally:
        if collects:
            gc.enable()


def __dir__() -> list[str]:
    return sorted(__all__)
