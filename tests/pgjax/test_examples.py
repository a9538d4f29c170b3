"""The examples in docstrings run, and every public function that builds a record has one."""

import doctest
import importlib
import inspect
import pkgutil

import pytest

import pgjax

ROOMS = (
    "baselines",
    "distributions",
    "estimators",
    "imitation",
    "networks",
    "preferences",
    "registry",
    "rewards",
    "training",
)
RECORDS = [
    "Baseline",
    "Critic",
    "Distribution",
    "Environment",
    "Estimator",
    "Expert",
    "Fitter",
    "Memory",
    "Policy",
    "ReturnRule",
    "RewardModel",
    "Rewards",
    "Trainer",
    "Weighting",
]
MODULES = [module.name for module in pkgutil.walk_packages(pgjax.__path__, "pgjax.")]


def builders():
    """The public functions that return a record, by their annotation."""
    for room in (*ROOMS, "environments"):
        module = importlib.import_module(f"pgjax.{room}")
        for name in module.__all__:
            function = getattr(module, name)
            returned = inspect.signature(function).return_annotation if inspect.isfunction(function) else None
            if getattr(returned, "__name__", returned) in RECORDS:
                yield pytest.param(function, id=f"{room}.{name}")


def test_there_are_builders():
    assert len(list(builders())) > 40


@pytest.mark.parametrize("function", list(builders()))
def test_every_builder_has_an_example(function):
    assert ">>> " in (function.__doc__ or "")


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name):
    if name == "pgjax.exported":
        pytest.importorskip("flatbuffers", reason="exported programs need flatbuffers")
    found = doctest.testmod(importlib.import_module(name), optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
    assert found.failed == 0
