"""Runs over devices, the same bit for bit on however many; devices and the compilation cache of experiments."""

import os
import pathlib
import subprocess
import sys

import pytest

from experiments.harness import runtime

ROOT = pathlib.Path(__file__).resolve().parents[3]


def python(code: str, **environment: str) -> subprocess.CompletedProcess:
    """Runs `code` in a new process, from the checkout."""
    command = [sys.executable, "-W", "error", "-c", code]
    return subprocess.run(command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, timeout=300)


# Optimised programs order their sums by the shapes that a device has, so that equal bits are a claim about these.
OPTIMISED = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "0", "XLA_FLAGS": ""}


def passes(code: str, **environment: str) -> None:
    done = python(code, **environment)
    assert done.returncode == 0, done.stderr[-4000:]


RUNS = """
import jax
jax.config.update("jax_num_cpu_devices", 8)
import functools, re
import jax.numpy as jnp, numpy as np, optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from pgjax import baselines, environments, estimators, networks, training
from pgjax.training.sharding import Shares

corridor = environments.make("corridor", horizon=12)
policy = networks.make_policy(corridor, hidden=(8,))
estimator = estimators.make_estimator(policy, baseline=baselines.moving_average())
build = lambda rate: training.make_trainer(corridor, policy, estimator, optax.adam(rate), num_episodes=3)
keys, rates = jax.random.split(jax.random.key(0), 16), jnp.geomspace(1e-3, 1.0, 16)
train = functools.partial(training.train, build, num_updates=4, chunk=2)
alone = train(keys, rates, devices=1)


def leaves(trained, runs=16):
    states = trained.states._replace(key=jax.random.key_data(trained.states.key))
    return [np.asarray(x)[:runs] for x in jax.tree.leaves((states, trained.metrics))]


def same(trained, runs=16):
    for x, y in zip(leaves(alone, runs), leaves(trained), strict=True):
        np.testing.assert_array_equal(x, y, strict=True)


"""


def test_runs_are_the_same_bit_for_bit_on_however_many_devices():
    passes(
        RUNS
        + """
for count in (2, 4, 8):
    same(train(keys, rates, devices=count))
# The updates of one run, one after another, without anything of train's.
init, update = jax.jit(lambda key, rate: build(rate).init(key)), jax.jit(lambda state, rate: build(rate).update(state))
state = init(keys[15], rates[15])
for u in range(4):
    state, metrics = update(state, rates[15])
    assert metrics["mean_return"] == alone.metrics["mean_return"][15, u]
jax.tree.map(np.testing.assert_array_equal, state.params, jax.tree.map(lambda x: x[15], alone.states.params))
# A wrong twin would be seen: no two runs are the same.
assert len(set(alone.metrics["gradient_norm"][:, 0])) == 16
""",
        **OPTIMISED,
    )


@pytest.mark.slow
def test_any_number_of_runs_goes_on_on_any_devices():
    passes(
        RUNS
        + """
heard = []
hear = lambda done, metrics, states: heard.append((done, states.update.shape, metrics["mean_return"].shape))
half = train(keys[:5], rates[:5], num_updates=2, devices=2, on_chunk=hear)  # 3 and 3: one of them twice, and dropped
assert heard == [(2, (5,), (5, 2))] and half.states.update.shape == (5,), heard
# Keys and rates may lie on devices already; these are five runs on five of eight.
mesh = Mesh(np.asarray(jax.devices()), ("mine",))
placed = jax.device_put((keys, rates), NamedSharding(mesh, PartitionSpec("mine")))
five = [x[:5] for x in placed]
rest = train(*five, num_updates=2, states=half.states)
whole = {name: np.concatenate([half.metrics[name], x], axis=1) for name, x in rest.metrics.items()}
same(rest._replace(metrics=whole), runs=5)
same(train(*placed))
with jax.default_device(jax.devices()[5]):
    assert train(keys[:1], rates[:1], num_updates=1).states.update.devices() == {jax.devices()[5]}
refused = {0: r"devices must be in \\[1, 8\\], got 0", 9: "got 9", 2.5: "got 2.5", (): "at least one"}
for devices, words in refused.items():
    try:
        train(keys, rates, devices=devices)
    except ValueError as error:
        assert re.search(words, str(error)), error
    else:
        raise AssertionError(devices)
"""
    )


def test_devices_exchange_nothing_and_all_of_them_work():
    passes(
        RUNS
        + """
shares = Shares.of(jax.devices(), 16)
state = jax.jit(shares.each(lambda key, rate: build(rate).init(key), "auto"))(*shares.scatter((keys, rates)))
program = jax.jit(shares.each(lambda state, rate: build(rate).update(state), "auto"))
text = program.lower(state, shares.scatter(rates)).compile().as_text()
assert "f32[2,1,8]" in text and "f32[16,1,8]" not in text, "each device has two runs"
exchanges = ("all-gather", "all-reduce", "all-to-all", "collective-permute", "reduce-scatter")
assert not [word for word in exchanges if word in text]
assert len(state.update.devices()) == 8
# A wrong twin, which the words give away.
mean = jax.shard_map(
    lambda x: jax.lax.pmean(x, "shares"), mesh=shares.mesh, in_specs=PartitionSpec("shares"), out_specs=PartitionSpec()
)
assert "all-reduce" in jax.jit(mean).lower(rates).compile().as_text()
""",
        **OPTIMISED,
    )


@pytest.mark.slow
def test_devices_share_the_episodes_of_a_policy_that_remembers():
    """A GRU is a scan, whose gradient has to go on where devices share the episodes of one run."""
    passes(
        """
import jax
jax.config.update("jax_num_cpu_devices", 2)
import jax.numpy as jnp, numpy as np, optax
from pgjax import baselines, environments, estimators, networks, training

recall = environments.make("recall", cues=2, delay=1)
policy = networks.make_policy(recall, network="gru", hidden=(), network_options={"memory_size": 2})
plain = estimators.make_estimator(policy, baseline=baselines.leave_one_out())
clipped = estimators.make_estimator(policy, objective=estimators.clipped_surrogate(0.2))
for estimator, epochs in ((plain, 1), (estimators.natural(plain, policy, damping=0.1), 1), (clipped, 2)):
    build = lambda rate: training.make_trainer(
        recall, policy, estimator, optax.sgd(rate), num_episodes=8, epochs=epochs
    )
    runs = [
        training.train(build, jax.random.split(jax.random.key(0), 1), jnp.full(1, 0.1), num_updates=2, devices=count)
        for count in (1, 2)
    ]
    for one, two in zip(*(jax.tree.leaves(run.states.params) for run in runs), strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-5, atol=1e-7)
"""
    )


def test_no_experiment_starts_jax_when_it_is_imported_or_its_options_are_checked():
    """A command that shows its options must not take the accelerator; devices are chosen after the checks."""
    passes(
        """
import importlib, pathlib
import jax
found = pathlib.Path("experiments").rglob("*.py")
# Scripts: those of another environment, and those that run from top to bottom.
files = [path.with_suffix("") for path in found if not {"peers", "examples"} & set(path.parts)]
names = {".".join(file.parts).removesuffix(".__init__") for file in files}
assert "experiments.step_size" in names and len(names) > 60
for name in sorted(names):
    module = importlib.import_module(name)
    if hasattr(getattr(module, "Config", None), "validate"):
        module.Config().validate()
    # JAX refuses this once it has started.
    try:
        # The same number would not be refused.
        jax.config.update("jax_num_cpu_devices", 2 + (jax.config.jax_num_cpu_devices + 1) % 2)
    except RuntimeError:
        raise AssertionError(f"{name} starts JAX when it is imported or its options are checked")
# A wrong twin would be seen.
jax.numpy.zeros(())
try:
    jax.config.update("jax_num_cpu_devices", 5)
except RuntimeError:
    raise SystemExit(0)
raise AssertionError("JAX has started, and takes another number of devices")
"""
    )


TOY = """
import dataclasses, json, pathlib, sys
from experiments.harness import runner
@dataclasses.dataclass(frozen=True)
class Config:
    size: int = 3
def run(config, recorder):
    import jax
    import jax.numpy as jnp
    x = jax.jit(lambda x: jnp.tanh(x @ x).sum())(jnp.eye(config.size))
    recorder.row(quantity="x", ours=float(x))
    print("devices", jax.device_count())
runner.main("toy.py", "A toy.", Config, run, arguments=sys.argv[1:])
"""


def toy(tmp_path, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
    """Runs the toy with a cache folder of its own."""
    code = TOY.replace("sys.argv[1:]", repr(["--output-dir", str(tmp_path / "results"), *arguments]))
    settings = {"XDG_CACHE_HOME": str(tmp_path / "cache"), "JAX_COMPILATION_CACHE_DIR": "", "JAX_NUM_CPU_DEVICES": "-1"}
    return python(code, **settings | environment)


def kept(tmp_path) -> list[pathlib.Path]:
    return sorted((tmp_path / "cache").rglob("*-cache"))


def test_an_experiment_has_one_device_a_core_and_keeps_its_programs(tmp_path):
    cores = runtime.usable_cores()
    first = toy(tmp_path)
    assert first.returncode == 0 and f"devices {cores}\n" in first.stdout and f"{cores} × cpu" in first.stdout
    assert first.stderr == "" and kept(tmp_path)
    written = {path: path.stat().st_mtime_ns for path in kept(tmp_path)}
    again = toy(tmp_path)
    # XLA would say on standard error that the programs are a foreign machine's.
    assert again.returncode == 0 and again.stderr == ""
    assert {path: path.stat().st_mtime_ns for path in kept(tmp_path)} == written


def test_devices_are_chosen_and_programs_need_not_be_kept(tmp_path):
    done = toy(tmp_path, "--devices", "3", "--no-cache")
    assert "devices 3\n" in done.stdout and "3 × cpu" in done.stdout and not kept(tmp_path)
    assert "devices 5\n" in toy(tmp_path, "--no-cache", JAX_NUM_CPU_DEVICES="5").stdout
    refused = toy(tmp_path, "--devices", "0")
    assert refused.returncode == 2 and "error: --devices 0: must be from 1 to 1024\n" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1
    for count in (-1, 1025):
        with pytest.raises(ValueError, match=f"--devices {count}: must be from 1 to 1024"):
            runtime.start(count, cache=False)


def test_the_users_own_folder_comes_first(tmp_path):
    done = toy(tmp_path, JAX_COMPILATION_CACHE_DIR=str(tmp_path / "mine"))
    assert done.returncode == 0 and list((tmp_path / "mine").glob("*-cache")) and not kept(tmp_path)


@pytest.mark.parametrize("trouble", ["a file in its place", "no home", "a damaged file"])
def test_a_cache_that_cannot_be_used_does_no_harm(tmp_path, trouble):
    environment = {}
    if trouble == "a file in its place":
        (tmp_path / "cache").write_text("")
    elif trouble == "no home":
        environment = {"XDG_CACHE_HOME": "", "HOME": "relative"}
    else:
        assert toy(tmp_path).returncode == 0
        for path in kept(tmp_path):
            path.write_bytes(path.read_bytes()[:100])  # as another process leaves it that is still writing
    done = toy(tmp_path, **environment)
    assert done.returncode == 0 and done.stderr == ""


def test_what_was_used_longest_ago_is_removed_first(tmp_path):
    for name, age in (("old", 300), ("read", 200), ("below/young", 100)):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(bytes(10))
        now = path.stat().st_mtime
        os.utime(path, (now - (50 if name == "read" else age), now - age))
    runtime._prune(tmp_path, 30)
    assert sorted(p.name for p in tmp_path.rglob("*") if p.is_file()) == ["old", "read", "young"]
    runtime._prune(tmp_path, 29)
    assert sorted(p.name for p in tmp_path.rglob("*") if p.is_file()) == ["read", "young"]
    runtime._prune(tmp_path, 10)
    assert sorted(p.name for p in tmp_path.rglob("*") if p.is_file()) == ["read"]
