"""What editors and type checkers are told agrees with what runs."""

import ast
import importlib.metadata
import pathlib
import tomllib
from typing import get_args

import pytest

import pgjax
from pgjax.environments import reverse
from pgjax.exact.moments import optimal_baselines
from pgjax.imitation import fitting
from pgjax.networks import NETWORKS, bodies, policy_networks, words

ROOT = pathlib.Path(pgjax.__file__).parent


def imported_for_editors(source: str) -> dict[str, str]:
    """Name → module of the imports under `if TYPE_CHECKING:`."""
    blocks = [node for node in ast.parse(source).body if isinstance(node, ast.If)]
    blocks = [block for block in blocks if isinstance(block.test, ast.Name) and block.test.id == "TYPE_CHECKING"]
    imports = [node for block in blocks for node in block.body if isinstance(node, ast.ImportFrom)]
    # `import X as X` is what exports a name from a typed package.
    return {alias.name: node.module for node in imports for alias in node.names if alias.asname == alias.name}


def test_editors_see_the_names_that_are_loaded_lazily():
    modules = dict.fromkeys(pgjax._MODULES, "pgjax")
    records = {name: f"pgjax.{module}" for name, module in pgjax._TYPES.items()}
    assert imported_for_editors((ROOT / "__init__.py").read_text()) == modules | records


def test_all_names_of_exact_load_at_their_first_use():
    names = pgjax.exact.__all__
    assert "TabularMDP" in names and all(hasattr(pgjax.exact, name) for name in names)
    assert set(names) <= set(dir(pgjax.exact))


def test_no_other_package_is_lazy():
    """Another module with `__getattr__` would need such a block of imports, and such a test."""
    lazy = {path.relative_to(ROOT).as_posix() for path in ROOT.rglob("*.py") if "__getattr__" in path.read_text()}
    assert lazy == {"__init__.py", "exact/__init__.py"}


def test_the_package_says_that_it_is_typed_and_which_version_it_is():
    assert (ROOT / "py.typed").exists()
    project = tomllib.loads((ROOT.parent / "pyproject.toml").read_text())
    assert "py.typed" in project["tool"]["setuptools"]["package-data"]["pgjax"]
    assert project["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "pgjax.__version__"}
    assert "version" not in project["project"]


def test_an_installed_pgjax_has_the_version_of_the_module():
    try:
        installed = importlib.metadata.version("pgjax")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("pgjax is imported from a checkout and is not installed")
    assert installed == pgjax.__version__


@pytest.mark.parametrize(
    ("choices", "table"),
    [
        (words.NetworkWord, {"auto", *NETWORKS}),
        (bodies.Activation, bodies.ACTIVATIONS),
        (policy_networks.DistributionWord, {"auto"}.union(*policy_networks._WORDS.values())),
        (reverse.Paid, reverse._REWARDS),
        (optimal_baselines.DependsOn, optimal_baselines._GROUPS),
        (fitting.Divergence, fitting.DIVERGENCES),
    ],
    ids=["networks", "activations", "distributions", "rewards of reverse", "groups of baselines", "divergences"],
)
def test_the_words_that_editors_offer_are_those_of_the_table(choices, table):
    assert set(get_args(choices)) == set(table)
