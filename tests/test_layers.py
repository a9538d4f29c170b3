"""The direction of imports is a law: a module imports only modules above it in this listing."""

import ast
import pathlib
import subprocess
import sys

import pytest

import pgjax

ROOT = pathlib.Path(__file__).resolve().parents[1]

# Losses stand above baselines: an elementwise loss needs nothing, and a value baseline is fitted by one.
ORDER = (
    "_checks",
    "_layout",
    "spaces",
    "types",
    "contracts",
    "_linear",
    "_spread",
    "_shards",
    "distributions",
    "returns",
    "advantages",
    "losses",
    "pieces",
    "acting",
    "rewards",
    "baselines",
    "critics",
    "estimators",
    "imitation",
    "diagnostics",
    "exact",
    "networks",
    "environments",
    "rollouts",
    "restarts",
    "decomposition",
    "evaluation",
    "experts",
    "parameter_exploring",
    "_leaves",
    "checkpoints",
    "_space_descriptions",
    "policies",
    "training",
    "datasets",
    "interactive",
)
RING_1 = ORDER[: ORDER.index("networks")]
RING_1_PACKAGES = {"jax", "numpy", "chex"}
HEAVY = {"gymnax", "matplotlib", "orbax"}


def imports_of(source: str, package: str) -> set[str]:
    """The absolute dotted names a module imports anywhere, `package` resolving relative imports."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*parents, *([node.module] if node.module else [])])
            found |= {f"{base}.{alias.name}" for alias in node.names}
    return found


def room_of(dotted: str) -> str | None:
    """`pgjax.exact.tabular.X` → `exact`; None for anything outside pgjax."""
    parts = dotted.split(".")
    return parts[1] if parts[0] == "pgjax" and len(parts) > 1 else None


def violations(room: str, source: str, package: str) -> list[str]:
    imported = imports_of(source, package)
    upward = [name for name in imported if (r := room_of(name)) and r != room and ORDER.index(r) > ORDER.index(room)]
    foreign = [name for name in imported if name.split(".")[0] in {"experiments", "matplotlib"}]
    if room in RING_1:
        outside = {name.split(".")[0] for name in imported} - RING_1_PACKAGES - {"pgjax"} - sys.stdlib_module_names
        foreign += sorted(outside)
    return upward + foreign


def modules():
    for path in sorted((ROOT / "pgjax").rglob("*.py")):
        relative = path.relative_to(ROOT / "pgjax")
        if relative.parts[0] != "__init__.py":
            package = ".".join(path.parent.relative_to(ROOT).parts)
            yield pytest.param(relative.parts[0].removesuffix(".py"), path, package, id=str(relative))


@pytest.mark.parametrize(("room", "path", "package"), list(modules()))
def test_imports_point_upwards(room, path, package):
    assert room in ORDER, f"{path.name} has no place in the order of dependence"
    assert violations(room, path.read_text(), package) == []


@pytest.mark.parametrize(
    ("room", "source"),
    [
        ("returns", "from pgjax import estimators"),
        ("baselines", "import optax"),
        ("rollouts", "import experiments._runner"),
        ("exact", "from pgjax.training import train"),
        ("losses", "def f():\n    import flax.linen"),
    ],
)
def test_a_wrong_import_is_seen(room, source):
    assert violations(room, source, "pgjax")


def records_of(name: str) -> set[str]:
    """The public classes that a module defines itself."""
    tree = ast.parse((ROOT / "pgjax" / name).read_text())
    return {node.name for node in tree.body if isinstance(node, ast.ClassDef) and not node.name.startswith("_")}


def test_pgjax_lists_all_its_modules_and_records():
    """`import pgjax` loads nothing, so its lists are all that tells an editor and `dir` what there is."""
    public = [path for path in (ROOT / "pgjax").iterdir() if not path.name.startswith(("_", "."))]
    rooms = {path.name.removesuffix(".py") for path in public if path.suffix == ".py" or path.is_dir()}
    assert set(pgjax._MODULES) == rooms
    assert set(pgjax._TYPES) == records_of("types.py") | records_of("spaces/kinds.py")
    for name in pgjax.__all__:
        assert getattr(pgjax, name) is not None
    assert dir(pgjax) == sorted(pgjax.__all__)


def test_import_pgjax_is_light():
    code = f"""
import sys, pgjax
from pgjax import baselines, estimators, networks, rollouts, training, environments, evaluation
environments.make("CartPole-v1")
heavy = sorted(set(sys.modules) & {HEAVY!r})
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
