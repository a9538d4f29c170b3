"""Fixtures that every test module may ask for; how the suite compiles its programs, and where it keeps them.

The quick tests run most programs once or twice, so that XLA would take longer to optimise them than to run them. The
suite therefore compiles them with few optimisations (`compile_quickly`). `JAX_DISABLE_MOST_OPTIMIZATIONS=0 pytest`
compiles them as experiments do, and so does every run that selects slow tests (`pytest -m slow`).

Compiled programs are kept in the directory that experiments use (`experiments/harness/runtime.py`), so that a second
run of the suite compiles nothing again. `PGJAX_TESTS_NO_CACHE=1 pytest` compiles everything anew and leaves the
directory alone.
"""

import experiments  # noqa: F401  before jax, whose log level it sets

# isort: split
import os
import warnings

import jax
import oracle
import pytest
from policies import draw_params, tabular

from experiments.harness import runner, runtime
from pgjax import exact

# Recent GPUs multiply matrices in TF32 unless told otherwise, which no exact or statistical test would survive.
jax.config.update("jax_default_matmul_precision", "highest")
# An experiment that a test runs in this process would otherwise choose the number for all tests after it.
jax.config.update("jax_num_cpu_devices", 1)


def compile_quickly():
    """Let XLA optimise little, here and in the processes that tests start.

    The environment variable that the caller has set, and the caller's flags of XLA, come before these.
    """
    if "JAX_DISABLE_MOST_OPTIMIZATIONS" in os.environ:
        return
    os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
    jax.config.update("jax_disable_most_optimizations", True)
    # XLA reads its flags when it compiles its first program.
    given = os.environ.get("XLA_FLAGS", "")
    flags = {"xla_cpu_parallel_codegen_split_count": "1"}
    if jax.__version_info__ < (0, 11):  # The flag of older versions halves the time; a later XLA stops at it.
        flags["xla_cpu_use_fusion_emitters"] = "false"
    ours = (f"--{name}={value}" for name, value in flags.items() if name not in given)
    os.environ["XLA_FLAGS"] = " ".join([given, *ours]).strip()


def pytest_configure(config):
    runner.FIGURES_MAY_FAIL = False
    if config.option.markexpr == "not slow":
        compile_quickly()
    if os.environ.get("PGJAX_TESTS_NO_CACHE", "0") not in ("", "0"):
        jax.config.update("jax_enable_compilation_cache", False)
    else:
        runtime.use_cache()
        # pytest has filters of its own. Another worker may still be writing the file that this one reads.
        config.addinivalue_line("filterwarnings", f"ignore:{runtime.HARMLESS}")


@pytest.fixture
def strict():
    """No silent promotion of dtypes or ranks: `[B]` against `[B, 1]` is an error. For the mathematics only."""
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        yield


@pytest.fixture
def x64():
    """Float64 on, for exact tests."""
    with jax.enable_x64(True):
        yield


@pytest.fixture
def float64(x64, strict):
    """For exact tests of the mathematics: float64 without silent promotion."""


@pytest.fixture(scope="module")
def exact_arithmetic():
    """`float64` for a whole module, so that fixtures of the module have it too."""
    with jax.enable_x64(True), jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        yield


@pytest.fixture(scope="session")
def small_problem():
    """A random MDP (S 4, A 2, two outcomes, T 3) in float64, and a random θ of a softmax table `[4, 2]`."""
    with jax.enable_x64(True):
        return oracle.random_mdp(0), draw_params(tabular, seed=1)


@pytest.fixture(scope="session")
def small_enumeration(small_problem):
    """All trajectories of the small problem and their probabilities under its θ."""
    mdp, params = small_problem
    with jax.enable_x64(True):
        enumeration = exact.enumerate_trajectories(mdp)
        return enumeration, oracle.trajectory_probabilities(tabular, params, enumeration)


@pytest.fixture(scope="session")
def rlax():
    """An independent reference, whose imports warn."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("rlax")
