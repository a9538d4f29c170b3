"""Training programs in files: load a training that `training.export` saved, and run it without the code that made it.

    training.export: build ─► trace ─► StableHLO ─► file        exported.load: file ─► XLA ─► init, update

This module needs JAX and NumPy alone. A process that loads a training imports no flax, optax or gymnax and traces
nothing, so it starts in a fraction of the time. With a warm compilation cache of JAX it compiles nothing either.

A file holds no Python code and no pickle, but its programs are programs: XLA compiles and runs them. StableHLO computes
with arrays, and reaches neither files nor the network except through custom calls, which run functions of the process.
`load` refuses every custom call that is not a known routine of linear algebra, of random numbers or of several devices.
A hostile program can still take all time and memory, and XLA was not built to withstand one: load only files of people
whom you trust. JAX reads and writes programs with the package flatbuffers: `pip install 'pgjax[export]'`.
"""

import dataclasses
import importlib.util
import os
import pathlib
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from pgjax import _sealed
from pgjax._checks import is_typed_key, require_integer, shown
from pgjax._doors import readable
from pgjax._leaves import named_words, require_same_layout
from pgjax._limits import DATA_BYTES, HEAD_BYTES, file_size
from pgjax._records import PyTree
from pgjax._shards import EPISODES_AXIS, SHARES_AXIS

State = dict[str, jax.Array]
"""The leaves of a `TrainState` by their paths, such as `.params['params']['Dense_0']['bias']`, each `[S, ...]`.

The raw words of typed keys stand for the keys.
"""

KIND, VERSION = "exported training", 1
PROGRAMS = ("init", "update")
MOST_BYTES = DATA_BYTES
"""The largest size of the programs of a file in bytes."""
FINITE = "finite_parameters"
"""The metric that says for each update whether θ is finite after it."""

# Operations that leave a program, as StableHLO is stored and as it is printed, and calls that only compute.
_BYTECODE = b"ML\xefR"
_LEAVING = re.compile(rb"custom_call|infeed|outfeed|send|recv")
_LEFT = re.compile(r"(?:stablehlo|mhlo)\.(?:custom_call|infeed|outfeed|send|recv)\b(?: @([\w.$]+)\()?")
_COMPUTING = re.compile(
    "Sharding|SPMDFullToShardShape|SPMDShardToFullShape|annotate_device_placement|ApproxTopK|Qr|Eigh|LuDecomposition"
    "|ProductOfElementaryHouseholderReflectors|lapack_[a-z0-9]+_ffi|(cu|hip)solver_[a-z0-9]+_ffi"
    "|(cu|hip)_threefry2x32_ffi|(cu|hip)_lu_pivots_to_permutation"
)
_PLATFORMS = {"cuda": "gpu", "rocm": "gpu"}  # as devices call them
_FIELDS = {"devices": int, "platforms": list, "chunk": int, "runs": int, "keys": str, "generators": dict}


class Exported(NamedTuple):
    """A training of S runs that was read from a file, on the devices for which it was loaded.

    Attributes:
        init: `(keys [S], hyperparams) → State`. The hyper-parameters are a pytree of the structure that was exported,
            with leaves `[S]`.
        update: `(State, hyperparams, count) → (State, metrics)`: `count` updates of every run, at most `chunk`. The
            metrics are NumPy arrays `[S, count]`. The given state is donated and cannot be used afterwards.
        chunk: the largest number of updates of one call.
        num_runs: S.
        header: what the file says of itself: versions, platforms, devices, chunk and runs, the random-number generator
            of the `keys`, and in `generators` those of the keys of a state, by their names.
    """

    init: Callable[..., State]
    update: Callable[..., tuple[State, dict[str, np.ndarray]]]
    chunk: int
    num_runs: int
    header: dict[str, Any]

    def __repr__(self) -> str:
        return f"Exported(num_runs={self.num_runs}, chunk={self.chunk}, devices={self.header['devices']})"


@readable
def load(path: str | os.PathLike, devices: Sequence[Any] | None = None) -> Exported:
    """Load a training that `training.export` saved, and compile it, or take it from JAX's compilation cache.

    Args:
        path: the file.
        devices: as many devices as the training was exported for; None takes the first ones of this process.

    Raises:
        ImportError: if the package flatbuffers is missing, which JAX needs for this.
        ValueError: if the file is missing, cut short or damaged, holds no exported training, has a program that this
            version of JAX cannot read or that does more than compute, or needs more devices, another platform or
            types of 64 bits, which are off.

    Example:
        >>> import pathlib, tempfile
        >>> import jax, optax
        >>> from pgjax import environments, estimators, exported, networks, training
        >>> environment = environments.make("corridor")
        >>> policy = networks.make_policy(environment, hidden=(4,))
        >>> build = lambda rate: training.make_trainer(
        ...     environment, policy, estimators.make_estimator(policy), optax.sgd(rate), num_episodes=2
        ... )
        >>> rates = jax.numpy.asarray([0.1, 0.2])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = pathlib.Path(folder) / "corridor.safetensors"
        ...     training.export(path, build, rates, chunk=3, devices=1)
        ...     program = exported.load(path)
        >>> state = program.init(jax.random.split(jax.random.key(0), 2), rates)
        >>> state, metrics = program.update(state, rates, 3)
        >>> metrics["mean_return"].shape
        (2, 3)
    """
    path = pathlib.Path(path)
    arrays, header = _read(path)
    programs = [_program(path, name, arrays[name], header) for name in PROGRAMS]
    inputs, outputs = zip(*(_signature(path, program) for program in programs))
    _require_one_training(path, inputs, outputs, (header["runs"], header["chunk"]))
    _require_types(path, inputs)
    split, whole = _shardings(path, header, devices)
    initialise, advance = _compiled(programs, inputs, split, whole)
    hyperparams_like = inputs[0][1]

    def placed(hyperparams: PyTree) -> PyTree:
        named = named_words(hyperparams)
        require_same_layout("hyperparams", named, hyperparams_like)
        return jax.device_put(named, split)

    def init(keys: jax.Array, hyperparams: PyTree = ()) -> State:
        if not is_typed_key(keys) or jax.random.key_impl(keys) != header["keys"] or keys.shape != (header["runs"],):
            raise ValueError(f"keys must be {header['runs']} typed keys of {header['keys']}, got {shown(keys)}")
        return initialise(jax.device_put(jax.random.key_data(keys), split), placed(hyperparams))

    def update(state: State, hyperparams: PyTree, count: int) -> tuple[State, dict[str, np.ndarray]]:
        require_integer("count", count, 1, header["chunk"])
        require_same_layout("state", state, outputs[0])
        # Wait first, so that a failed allocation raises an exception here and does not end the process.
        state, found = jax.block_until_ready(
            advance(jax.device_put(state, split), placed(hyperparams), np.int32(count))
        )
        return state, {name: np.asarray(x)[:, :count] for name, x in found.items()}

    return Exported(init=init, update=update, chunk=header["chunk"], num_runs=header["runs"], header=header)


def require_export() -> Any:
    """The module `jax.export`, if it can read and write programs here.

    Raises:
        ImportError: if the package that it needs is missing; the error names the extra of pgjax.
    """
    if importlib.util.find_spec("flatbuffers") is None:
        raise ImportError(
            "exported trainings need the package flatbuffers, which JAX does not install: pip install 'pgjax[export]'"
        )
    from jax import export

    return export


def require_computing(what: str, program: Any) -> bool:
    """Require that a program only computes: it calls no function of the process but known routines.

    Returns:
        Whether it may call such routines.

    Raises:
        ValueError: if it does more; the error names `what` and the first other operation.
    """
    if not hasattr(program, "mlir_module_serialized"):
        raise ValueError(f"{what} must be a program of jax.export, got {shown(program)}")
    if effects := [*program.ordered_effects, *program.unordered_effects]:
        raise ValueError(f"{what} must only compute with arrays, got the effects {shown(effects)}")
    # Only bytecode has the names of operations as they are; text may write them with escapes.
    if program.mlir_module_serialized.startswith(_BYTECODE) and not _LEAVING.search(program.mlir_module_serialized):
        return False
    for found in _LEFT.finditer(program.mlir_module()):
        if found[1] is None or not _COMPUTING.fullmatch(found[1]):
            raise ValueError(f"{what} must only compute with arrays, got the operation {shown(found[0])}")
    return True


def _read(path: pathlib.Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The programs and the header of a file, with the types of the header checked."""
    file_size(path, MOST_BYTES + HEAD_BYTES)
    arrays, sealed = _sealed.read_checked(path)
    header = sealed["metadata"]
    if header.get("kind") != KIND:
        raise ValueError(f"path {path} holds no exported training; training.export saves one")
    if header.get("version") != VERSION:
        raise ValueError(f"path {path} is of version {shown(header.get('version'))}; this pgjax reads {VERSION}")
    wrong = [name for name, kind in _FIELDS.items() if not isinstance(header.get(name), kind)]
    wrong += ["axis"] if header.get("axis") not in (EPISODES_AXIS, SHARES_AXIS) else []
    if wrong:
        found = shown(header.get(wrong[0]))
        raise ValueError(f"path {path} is damaged: {wrong[0]!r} in its header cannot be {found}")
    if set(arrays) != set(PROGRAMS) or any(array.dtype != np.uint8 or array.ndim != 1 for array in arrays.values()):
        raise ValueError(f"path {path} is damaged: it must hold bytes named {' and '.join(PROGRAMS)}, got other arrays")
    return arrays, header


def _program(path: pathlib.Path, name: str, content: np.ndarray, header: dict[str, Any]) -> Any:
    """The program of that name, as `jax.export.Exported`; it is not compiled."""
    export = require_export()
    try:
        program = export.deserialize(bytearray(content))
    except Exception as error:  # A reader of flatbuffers raises errors of many kinds.
        raise ValueError(
            f"path {path}: JAX {jax.__version__} cannot read the program {name}, which JAX {shown(header.get('jax'))} "
            f"wrote: {type(error).__name__}: {shown(str(error))}"
        ) from error
    leaves = require_computing(f"path {path}: the program {name}", program)
    if (program.nr_devices, list(program.platforms)) != (header["devices"], header["platforms"]):
        raise ValueError(f"path {path} is damaged: the program {name} is for other devices than its header says")
    if leaves:
        return program
    # JAX imports SciPy, for LAPACK, before it calls any program for CPUs. A program without calls needs none of it,
    # and `_shardings` checks the platform.
    unchecked = (*program.disabled_safety_checks, export.DisabledSafetyCheck.platform())
    return dataclasses.replace(program, platforms=(), disabled_safety_checks=unchecked)


def _signature(path: pathlib.Path, program: Any) -> tuple[tuple, Any]:
    """The arguments and the results of a program, with abstract values as leaves."""
    arguments, options = jax.tree.unflatten(program.in_tree, program.in_avals)
    if options:
        raise ValueError(f"path {path} is damaged: one of its programs has the options {shown(list(options))}")
    return arguments, jax.tree.unflatten(program.out_tree, program.out_avals)


def _require_one_training(
    path: pathlib.Path, inputs: Sequence[tuple], outputs: Sequence[Any], sizes: tuple[int, int]
) -> None:
    """Require that the update takes what `init` makes, and makes it again, for the runs and the chunk of the header."""
    try:
        (keys, hyperparams), (given, same_hyperparams, _) = inputs
        made, (after, metrics) = outputs
    except (TypeError, ValueError) as error:
        raise ValueError(f"path {path} is damaged: its programs do not take and make what a training does") from error
    if not all(isinstance(tree, dict) for tree in (hyperparams, given, same_hyperparams, made, after, metrics)):
        raise ValueError(f"path {path} is damaged: its programs must take and make arrays by their names")
    for one, other in ((made, given), (made, after), (hyperparams, same_hyperparams)):
        require_same_layout(f"path {path}: one of its programs", one, other)
    found = {leaf.shape[:2] for leaf in metrics.values()} | {(*getattr(keys, "shape", ())[:1], sizes[1])}
    if found != {sizes} or any(isinstance(size, bool) for size in sizes):
        raise ValueError(f"path {path} is damaged: its programs are not for the runs and the chunk of its header")


def _require_types(path: pathlib.Path, inputs: Sequence[tuple]) -> None:
    """Require that this process can make the arrays that the programs take.

    All else is as it was exported: the programs compute and return the same under both values of `jax_enable_x64`.
    """
    dtypes = {leaf.dtype for leaf in jax.tree.leaves(inputs)}
    if wide := sorted(str(dtype) for dtype in dtypes if jax.dtypes.canonicalize_dtype(dtype) != dtype):
        raise ValueError(
            f"path {path} holds a training that takes arrays of {', '.join(wide)}, which JAX makes only with "
            'jax_enable_x64: call jax.config.update("jax_enable_x64", True) before exported.load'
        )


def _shardings(
    path: pathlib.Path, header: dict[str, Any], devices: Sequence[Any] | None
) -> tuple[NamedSharding, NamedSharding]:
    """How the runs lie on the devices, and how an array lies of which every device has a copy."""
    count, axis = header["devices"], header["axis"]
    used = jax.local_devices()[:count] if devices is None else list(devices)
    if len(used) != count:
        raise ValueError(f"path {path} holds a training for {count} devices, got {len(used)}")
    platforms = [_PLATFORMS.get(name, name) for name in header["platforms"] if isinstance(name, str)]
    if odd := [device for device in used if device.platform not in platforms]:
        raise ValueError(f"path {path} holds a training for {', '.join(platforms)}, got the device {odd[0]}")
    mesh = Mesh(np.asarray(used), (axis,))
    whole = NamedSharding(mesh, PartitionSpec())
    return NamedSharding(mesh, PartitionSpec(axis)) if axis == SHARES_AXIS else whole, whole


def _compiled(
    programs: Sequence[Any], inputs: Sequence[tuple], split: NamedSharding, whole: NamedSharding
) -> list[Callable]:
    """The compiled programs. XLA compiles one, or loads it, while Python lowers the next one."""

    def shaped(tree: PyTree, sharding: NamedSharding) -> PyTree:
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree)

    with ThreadPoolExecutor() as pool:
        pending = []
        for program, arguments in zip(programs, inputs):
            # The third argument is the number of updates, the same for all runs.
            shapes = [shaped(tree, whole if number == 2 else split) for number, tree in enumerate(arguments)]
            donated = 0 if len(arguments) == 3 else ()
            called = jax.jit(program.call, out_shardings=split, donate_argnums=donated)
            pending.append(pool.submit(called.lower(*shapes).compile))
        return [one.result() for one in pending]
