"""pgjax: a laboratory for policy gradients in JAX.

    environments ─► rollouts ─► rewards ─► returns ─► baselines ─► losses ─► estimators ─► training ─► experiments
     X_t, A_t, R_t+1  Trajectory  relabel     G_t        b(X_t)     surrogate   ∇̂ρ         optax, scan   tables, plots

One idea carries it: the estimator that is measured is the estimator that trains. A user declares an estimator once
(`estimators.make_estimator`); the same object is checked against an exact gradient (`exact`), has its variance
measured (`diagnostics`), and trains a policy across thousands of parallel episodes (`training`).

The modules are loaded when they are first used: `import pgjax` costs little beyond jax, and nothing here imports gymnax
or matplotlib before it is needed.
"""

import importlib

_MODULES = (
    "acting",
    "advantages",
    "baselines",
    "contracts",
    "datasets",
    "diagnostics",
    "distributions",
    "environments",
    "estimators",
    "evaluation",
    "exact",
    "imitation",
    "losses",
    "networks",
    "parameter_exploring",
    "registry",
    "returns",
    "rewards",
    "rollouts",
    "rows",
    "saving",
    "spaces",
    "training",
    "types",
    "variance",
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

__all__ = [*_MODULES, *_TYPES]


def __getattr__(name: str):
    if name in _MODULES:
        return importlib.import_module(f"pgjax.{name}")
    if name in _TYPES:
        return getattr(importlib.import_module(f"pgjax.{_TYPES[name]}"), name)
    raise AttributeError(f"module 'pgjax' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
