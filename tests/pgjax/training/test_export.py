"""A training that was saved as a program gives the numbers of `train`, in a process that imports almost nothing."""

import dataclasses
import importlib.util
import json
import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from pgjax import _sealed, baselines, environments, estimators, exported, networks, training
from pgjax._leaves import named_words
from pgjax.saving import checkpoints

pytest.importorskip("flatbuffers", reason="exported programs need flatbuffers")

ROOT = pathlib.Path(__file__).resolve().parents[3]
RATES = np.asarray([0.05, 0.1], np.float32)
HEAVY = ("chex", "distrax", "flax", "gymnax", "matplotlib", "optax", "orbax", "safetensors")


def make_build():
    corridor = environments.make("corridor", horizon=6)
    policy = networks.make_policy(corridor, hidden=(4,))
    estimator = estimators.make_estimator(policy, baseline=baselines.moving_average())
    return lambda rate: training.make_trainer(corridor, policy, estimator, optax.adam(rate), num_episodes=4)


@pytest.fixture(scope="module")
def keys():
    return jax.random.split(jax.random.key(3), 2)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("exported") / "corridor.safetensors"
    training.export(path, make_build(), RATES, chunk=3, devices=1)
    return path


@pytest.fixture(scope="module")
def program(path):
    return exported.load(path)


@pytest.fixture(scope="module")
def ran(program, keys):
    """The state and the metrics after 3 and 2 updates."""
    state, first = program.update(program.init(keys, RATES), RATES, 3)
    state, second = program.update(state, RATES, 2)
    return state, {name: np.concatenate([first[name], second[name]], axis=1) for name in first}


@pytest.fixture(scope="module")
def trained(keys):
    return training.train(make_build(), keys, RATES, num_updates=5, chunk=3, devices=1)


def same(one, other):
    assert one.keys() == other.keys()
    return [name for name in one if not np.array_equal(one[name], other[name], equal_nan=True)] == []


def test_it_gives_bit_for_bit_the_numbers_of_train(ran, trained):
    state, metrics = ran
    assert metrics.pop(exported.FINITE).all() and metrics["mean_return"].shape == (2, 5)
    assert same(metrics, trained.metrics)
    assert same(state, named_words(trained.states))


def test_a_state_becomes_a_training_state_again(ran, trained, program, path):
    generators = program.header["generators"]
    found = checkpoints.Checkpoint(arrays=ran[0], metadata={}, generators=generators, path=path).restore(trained.states)
    assert jnp.array_equal(found.key, trained.states.key) and int(found.update[0]) == 5


ALONE = """
import json, sys
import jax
from pgjax import exported
import numpy as np
program = exported.load(sys.argv[1])
rates = np.asarray([0.05, 0.1], np.float32)
state, metrics = program.update(program.init(jax.random.split(jax.random.key(3), 2), rates), rates, 3)
heavy = sorted({name.partition(".")[0] for name in sys.modules} & set(sys.argv[2].split()))
print(json.dumps({"mean_return": metrics["gradient_norm"].tolist(), "heavy": heavy}))
"""


def test_a_process_needs_jax_alone(path, ran):
    command = [sys.executable, "-W", "error", "-c", ALONE, str(path), " ".join(HEAVY)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, env=dict(os.environ))
    assert done.returncode == 0, done.stderr[-4000:]
    found = json.loads(done.stdout)
    assert found["heavy"] == []
    assert np.array_equal(np.asarray(found["mean_return"], np.float32), ran[1]["gradient_norm"][:, :3])


def test_wrong_arguments_are_named(program, keys):
    with pytest.raises(ValueError, match="keys must be 2 typed keys of threefry2x32"):
        program.init(keys[:1], RATES)
    with pytest.raises(ValueError, match="keys must be 2 typed keys of threefry2x32"):
        program.init(jax.random.key_data(keys), RATES)
    with pytest.raises(ValueError, match=r"hyperparams holds float64\[2\], wanted float32\[2\]"):
        program.init(keys, RATES.astype(np.float64))
    state = program.init(keys, RATES)
    with pytest.raises(ValueError, match=r"count must be in \[1, 3\], got 4"):
        program.update(state, RATES, 4)
    with pytest.raises(ValueError, match=r"state holds another structure: it lacks \.key"):
        program.update({name: leaf for name, leaf in state.items() if name != ".key"}, RATES, 1)
    with pytest.raises(ValueError, match="chunk must be at least 1, got 0"):
        training.export("nowhere", make_build(), RATES, chunk=0)
    with pytest.raises(ValueError, match="hyperparams must have 3 rows in every leaf"):
        training.export("nowhere", make_build(), RATES, chunk=1, num_runs=3)


def test_a_program_gives_the_same_numbers_whether_or_not_64_bits_are_on(path, keys, ran):
    """Inside a program the types stay as they were exported."""
    with jax.enable_x64(True):
        program = exported.load(path)
        _, metrics = program.update(program.init(keys, RATES), RATES, 3)
    found = {name: metrics[name] for name in ran[1]}
    assert same(found, {name: values[:, :3] for name, values in ran[1].items()})


def test_arrays_of_64_bits_need_the_option_that_allows_them(tmp_path, keys):
    with jax.enable_x64(True):
        training.export(tmp_path / "wide", make_build(), RATES.astype(np.float64), chunk=1, devices=1)
        training.export(tmp_path / "narrow", make_build(), RATES, chunk=1, devices=1)
        exported.load(tmp_path / "wide")
    program = exported.load(tmp_path / "narrow")
    assert program.update(program.init(keys, RATES), RATES, 1)[1]["num_steps"].dtype == np.int64
    message = r"holds a training that takes arrays of float64, which .*: call jax.config.update"
    with pytest.raises(ValueError, match=message):
        exported.load(tmp_path / "wide")


def changed(path, target, **changes):
    """The file with other arrays, or with other entries in its header, under a correct digest."""
    arrays, sealed = _sealed.read_checked(path)
    programs = {name: changes.pop(name) for name in exported.PROGRAMS if name in changes}
    metadata = {name: value for name, value in (sealed["metadata"] | changes).items() if value is not None}
    _sealed.write(target, arrays | programs, generators={}, metadata=metadata)
    return target


JUNK = np.arange(64, dtype=np.uint8)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": None}, "holds no exported training"),
        ({"version": 2}, "is of version 2; this pgjax reads 1"),
        ({"axis": "x"}, "'axis' in its header cannot be x"),
        ({"chunk": "3"}, "'chunk' in its header cannot be 3"),
        ({"chunk": 10**6}, "its programs are not for the runs and the chunk of its header"),
        ({"runs": 3}, "its programs are not for the runs and the chunk of its header"),
        ({"devices": 2}, "the program init is for other devices than its header says"),
        ({"platforms": ["cuda"]}, "the program init is for other devices than its header says"),
        ({"init": JUNK.astype(np.int16)}, "it must hold bytes named init and update"),
        ({"init": JUNK}, "cannot read the program init, which JAX .* wrote"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(path, tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        exported.load(changed(path, tmp_path / "it", **changes))


def test_two_programs_of_different_trainings_are_refused(path, tmp_path):
    arrays, _ = _sealed.read_checked(path)
    with pytest.raises(ValueError, match="its programs do not take and make what a training does"):
        exported.load(changed(path, tmp_path / "it", init=arrays["update"]))


def test_a_flipped_bit_is_found(path, tmp_path):
    content = bytearray(path.read_bytes())
    content[-1000] ^= 1
    (tmp_path / "flipped").write_bytes(content)
    with pytest.raises(ValueError, match="is damaged: its digest does not match"):
        exported.load(tmp_path / "flipped")


def test_a_program_that_does_more_than_compute_is_refused():
    export, number = jax.export, jax.ShapeDtypeStruct((2, 2), np.float32)
    unchecked = [export.DisabledSafetyCheck.custom_call("open_door")]
    harmful = export.export(jax.jit(jax.ffi.ffi_call("open_door", number)), disabled_checks=unchecked)(number)
    with pytest.raises(ValueError, match=r"it must only compute with arrays, got .*custom_call @open_door"):
        exported.require_computing("it", harmful)
    # As text, in which a name may be escaped.
    text = harmful.mlir_module().replace("stablehlo.custom_call @open_door(", '"stablehlo.custom\\5Fcall"(')
    head, _, rest = text.partition('"stablehlo.custom\\5Fcall"(')
    call = '"stablehlo.custom\\5Fcall"() <{call_target_name = "open_door", api_version = 4 : i32}>'
    call += " : () -> tensor<2x2xf32>"
    hidden = f"{head}{call}{rest[rest.index(chr(10)) :]}".encode()
    with pytest.raises(ValueError, match=r"it must only compute with arrays, got .*custom_call @open_door"):
        exported.require_computing("it", dataclasses.replace(harmful, mlir_module_serialized=hidden))
    solved = export.export(jax.jit(jnp.linalg.cholesky))(number)
    assert b"custom_call" in solved.mlir_module_serialized
    exported.require_computing("it", solved)


def test_a_training_that_calls_python_is_not_saved(tmp_path):
    made = make_build()

    def build(rate):
        trainer = made(rate)
        shape = jax.ShapeDtypeStruct((), np.float32)
        metrics = lambda: {"seen": jax.pure_callback(lambda: np.float32(1), shape)}
        return trainer._replace(update=lambda state: (trainer.update(state)[0], metrics()))

    with pytest.raises(ValueError, match="build must make a trainer that calls no Python function"):
        training.export(tmp_path / "it", build, RATES, chunk=1, devices=1)
    assert not list(tmp_path.iterdir())


def test_without_flatbuffers_the_error_names_the_extra(path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for use in (lambda: exported.load(path), lambda: training.export("nowhere", make_build(), RATES, chunk=1)):
        with pytest.raises(ImportError, match=r"pip install 'pgjax\[export\]'"):
            use()


def test_programs_that_are_too_large_are_not_saved(monkeypatch, tmp_path):
    monkeypatch.setattr(exported, "MOST_BYTES", 10_000)
    with pytest.raises(ValueError, match=r"the exported programs must have at most 10000 bytes, got \d{5}"):
        training.export(tmp_path / "it", make_build(), RATES, chunk=1, devices=1)


@pytest.mark.slow
def test_two_devices_share_runs_or_episodes(tmp_path):
    done = subprocess.run([sys.executable, "-c", TWO], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stdout.split() == ["shares", "episodes"]


TWO = """
import jax
jax.config.update("jax_num_cpu_devices", 2)
import sys, tempfile
sys.path.insert(0, "tests/pgjax/training")
import numpy as np
from test_export import RATES, exported, make_build, named_words, same, training
for rates in RATES, RATES[:1]:
    keys = jax.random.split(jax.random.key(0), len(rates))
    with tempfile.NamedTemporaryFile() as file:
        training.export(file.name, make_build(), rates, chunk=2, devices=2)
        program = exported.load(file.name)
    state, metrics = program.update(program.init(keys, rates), rates, 2)
    trained = training.train(make_build(), keys, rates, num_updates=2, chunk=2, devices=2)
    metrics.pop(exported.FINITE)
    assert same(state, named_words(trained.states)) and same(metrics, trained.metrics)
    print(program.header["axis"])
"""
