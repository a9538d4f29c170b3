"""The direction of imports is a law: a module imports only modules above it in this listing."""

import ast
import pathlib
import subprocess
import sys

import pytest

import pgjax
from pgjax import exact

ROOT = pathlib.Path(__file__).resolve().parents[1]

# An elementwise loss needs nothing, and a value baseline is fitted by one: losses come before baselines.
ORDER = (
    "_shown",
    "_limits",
    "_json",
    "_checks",
    "_records",
    "_doors",
    "writing",
    "_layout",
    "spaces",
    "types",
    "contracts",
    "_linear",
    "_platform",
    "_shards",
    "_spread",
    "_stored",
    "_gguf",
    "distributions",
    "returns",
    "advantages",
    "losses",
    "automata",
    "_pieces",
    "rows",
    "acting",
    "rewards",
    "baselines",
    "estimators",
    "exact",
    "diagnostics",
    "variance",
    "tokens",
    "networks",
    "environments",
    "rollouts",
    "evaluation",
    "parameter_exploring",
    "registry",
    "_leaves",
    "_safetensors",
    "_sealed",
    "exported",
    "training",
    "saving",
    "imitation",
    "preferences",
    "datasets",
)
RING_1 = ORDER[: ORDER.index("tokens")]
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
        ("rollouts", "import experiments.harness.runner"),
        ("exact", "from pgjax.training import train"),
        ("losses", "def f():\n    import flax.linen"),
    ],
)
def test_a_wrong_import_is_seen(room, source):
    assert violations(room, source, "pgjax")


# The parts of `experiments` in the order of dependence; all that is not named here is a question.
FLOORS = ("harness", "shared")


def experiment_parts():
    for path in sorted((ROOT / "experiments").rglob("*.py")):
        relative = path.relative_to(ROOT / "experiments")
        if len(relative.parts) > 1 or not relative.stem.startswith("__"):
            package = ".".join(path.parent.relative_to(ROOT).parts)
            yield pytest.param(relative.parts[0].removesuffix(".py"), path, package, id=str(relative))


def wrong_in_experiments(part: str, source: str, package: str) -> list[str]:
    """What a part of `experiments` imports from parts that it must not know."""
    parts = {name: name.split(".")[1] for name in imports_of(source, package) if name.startswith("experiments.")}
    allowed = {part, *(FLOORS[: FLOORS.index(part)] if part in FLOORS else FLOORS)}
    return [name for name, other in parts.items() if other not in allowed]


@pytest.mark.parametrize(("part", "path", "package"), list(experiment_parts()))
def test_a_question_imports_no_other_question(part, path, package):
    assert wrong_in_experiments(part, path.read_text(), package) == []


@pytest.mark.parametrize(
    ("part", "source"),
    [
        ("train", "from experiments import gradient_lab"),
        ("harness", "from experiments.shared import measure"),
        ("shared", "from experiments.train import report"),
    ],
)
def test_a_wrong_import_between_questions_is_seen(part, source):
    assert wrong_in_experiments(part, source, f"experiments.{part}")


def records_of(name: str) -> set[str]:
    """The public classes that a module defines itself."""
    tree = ast.parse((ROOT / "pgjax" / name).read_text())
    return {node.name for node in tree.body if isinstance(node, ast.ClassDef) and not node.name.startswith("_")}


def test_pgjax_lists_all_its_modules_and_records():
    """`import pgjax` loads nothing, so its lists are all that tells an editor and `dir` what there is."""
    public = [path for path in (ROOT / "pgjax").iterdir() if not path.name.startswith(("_", "."))]
    modules = {path.stem for path in public if path.suffix == ".py"}
    rooms = modules | {path.name for path in public if (path / "__init__.py").exists()}
    assert set(pgjax._MODULES) == rooms
    assert set(pgjax._TYPES) == records_of("types.py") | records_of("spaces/kinds.py")
    for name in pgjax.__all__:
        assert getattr(pgjax, name) is not None
    assert dir(pgjax) == sorted(pgjax.__all__)


def loaded_with(module: str, seen: set[str]) -> set[str]:
    """The modules of `experiments` and the foreign packages that load when a module of `experiments` is imported."""
    path = ROOT.joinpath(*module.split("."))
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    if module in seen or not path.exists():
        return seen
    seen.add(module)
    package = module if path.stem == "__init__" else module.rpartition(".")[0]
    top = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.Import | ast.ImportFrom)]
    for name in imports_of("\n".join(map(ast.unparse, top)), package):
        if name.startswith("experiments."):
            for part in (name, name.rpartition(".")[0]):
                loaded_with(part, seen)
        else:
            seen.add(name.split(".")[0])
    return seen


QUESTIONS = sorted({part.values[0] for part in experiment_parts()} - {*FLOORS})


@pytest.mark.parametrize("question", QUESTIONS)
def test_a_question_loads_matplotlib_only_when_it_draws(question):
    """`--help` of a question, and its run without figures, are then a third of a second shorter."""
    loaded = loaded_with(f"experiments.{question}", set())
    assert not {"matplotlib", "experiments.harness.plots"} & loaded


# What a new process imports, and what it must not load with it: seconds of every start depend on it.
RARE = {
    *HEAVY,
    "PIL",
    "h5py",
    "jax.experimental.pallas",
    "pgjax.exact._names",
    "pgjax.exact.text",
    "scipy",
    "tokenizers",
}
LIGHT = {
    "pgjax": ("import pgjax", {"jax", "numpy", *HEAVY}),
    "an exported training": (
        "from pgjax import exported",
        {"chex", "flax", "optax", "safetensors", "scipy", "pgjax.types", "pgjax.training", *HEAVY},
    ),
    "a training": (
        "from pgjax import baselines, estimators, networks, rollouts, training, environments, evaluation; "
        "environments.make('CartPole-v1')",
        {"pgjax.exact", *RARE},
    ),
    "the registry": ("from pgjax import registry", RARE),
    "a tabular problem": ("from pgjax import environments; environments.make('corridor')", RARE),
    "the command of training": (
        "import experiments.train",
        {"experiments.shared.references", "pgjax.imitation", *RARE},
    ),
}


@pytest.mark.parametrize(("imports", "heavy"), LIGHT.values(), ids=LIGHT)
def test_imports_are_light(imports, heavy):
    code = f"import sys; {imports}; found = sorted(set(sys.modules) & {heavy!r}); assert not found, found"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_names_that_load_at_their_first_use_are_there_and_others_are_not():
    assert callable(exact.random_mdp) and exact.TabularMDP.__module__ in sys.modules
    with pytest.raises(AttributeError, match=r"^module 'pgjax.exact' has no attribute 'random_mpd'$"):
        _ = exact.random_mpd


@pytest.mark.parametrize("collects", [True, False])
def test_the_garbage_collector_is_as_before_after_an_import(collects):
    code = f"import gc; ({'gc.enable' if collects else 'gc.disable'})(); from pgjax import returns, types; "
    code += f"assert gc.isenabled() is {collects}; import pgjax\ntry: pgjax.nothing\nexcept AttributeError: pass\n"
    code += f"assert gc.isenabled() is {collects}"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_no_garbage_is_collected_during_an_import():
    code = "import gc, importlib; seen, real = [], importlib.import_module\n"
    code += "importlib.import_module = lambda *given, **more: (seen.append(gc.isenabled()), real(*given, **more))[1]\n"
    code += "from pgjax import returns\nassert seen and not any(seen), seen"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
