"""A training as a file that another process loads and runs without tracing anything: see `pgjax.exported`."""

import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, get_args

import jax
import jaxlib.version
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

import pgjax
from pgjax import _sealed, exported
from pgjax._checks import is_typed_key, require_integer, require_one_of
from pgjax._doors import readable
from pgjax._leaves import generator, named_leaves, named_words
from pgjax.training._program import make_chunk, make_init, sizes_of
from pgjax.training.loop import require_runs
from pgjax.training.sharding import Device, RunMapping, SharedEpisodes, Shares, choose_devices, choose_layout
from pgjax.training.trainer import Metrics, Trainer
from pgjax.types import PyTree


@readable
def export(
    path: str | os.PathLike,
    build: Callable[[PyTree], Trainer],
    hyperparams: PyTree = (),
    *,
    chunk: int,
    num_runs: int | None = None,
    mapping: RunMapping = "auto",
    devices: Sequence[Device] | int | None = None,
    deterministic: bool = True,
) -> None:
    """Save a training of S runs as a file, which `pgjax.exported.load` runs without the code that made it.

    The file holds the two programs of `train`: one makes the states, the other makes up to `chunk` updates. So on the
    same devices an exported training gives bit for bit the numbers of `train`. Another version of JAX can run the file
    too, within the limits that the documentation of `jax.export` states, and may round differently.

    Args:
        path: the file; an older one is replaced.
        build: as in `train`.
        hyperparams: an example of the hyper-parameters, a pytree with leaves `[S]`. Their values do not matter.
        chunk: the largest number of updates of one call.
        num_runs: S; None takes the number of rows of the hyper-parameters, or 1 if there are none.
        mapping, devices, deterministic: as in `train`. The training can be loaded on as many devices of the same kind.
            They must share the episodes of one run after another, or have equal numbers of runs.

    Raises:
        ImportError: if the package flatbuffers is missing.
        ValueError: for arguments that `train` would refuse, for devices that cannot have equal numbers of runs, and for
            operations that no exported program may have, such as calls of Python functions, and for programs that
            are too large because they contain large arrays.
        OSError: if the file cannot be written.
    """
    require_integer("chunk", chunk, 1, None)
    require_one_of("mapping", mapping, get_args(RunMapping))
    exported.require_export()
    if jax.process_count() > 1:
        raise ValueError(f"training.export must be called in a single process, got {jax.process_count()} processes")
    keys = _keys(hyperparams, num_runs)
    shares = choose_layout(choose_devices(devices), len(keys), *sizes_of(build, hyperparams), deterministic)
    if isinstance(shares, Shares) and shares.rows != len(keys):
        raise ValueError(f"num_runs must be a multiple of the {shares.mesh.size} devices, got {len(keys)}")
    found = _Programs.of(build, keys, hyperparams, shares, mapping, chunk)
    for name, program in found.programs.items():
        exported.require_computing(f"the exported program {name}", program)
    arrays = {name: np.frombuffer(program.serialize(), np.uint8) for name, program in found.programs.items()}
    if (size := sum(array.size for array in arrays.values())) > exported.MOST_BYTES:
        raise ValueError(f"the exported programs must have at most {exported.MOST_BYTES} bytes, got {size}")
    axis, platforms = shares.mesh.axis_names[0], found.programs["init"].platforms
    layout = {"platforms": platforms, "devices": shares.mesh.size, "axis": axis, "runs": len(keys), "chunk": chunk}
    versions = {"pgjax": pgjax.__version__, "jax": jax.__version__, "jaxlib": jaxlib.version.__version__}
    generators = {"keys": generator("keys", keys), "generators": found.generators}
    known = {"kind": exported.KIND, "version": exported.VERSION}
    _sealed.write(path, arrays, generators={}, metadata={**known, **layout, **generators, **versions})


def _keys(hyperparams: PyTree, num_runs: int | None) -> jax.Array:
    """Keys `[S]`, whose values do not matter, if the hyper-parameters have S rows too."""
    if num_runs is None:
        num_runs = next((len(leaf) for leaf in jax.tree.leaves(hyperparams) if np.ndim(leaf)), 1)
    require_integer("num_runs", num_runs, 1, None)
    keys = jax.random.split(jax.random.key(0), num_runs)
    require_runs(keys, hyperparams=hyperparams)
    return keys


class _Named(NamedTuple):
    """A pytree as arrays by their names, in which the raw words of typed keys stand for the keys.

    Attributes:
        shapes: the shapes and dtypes of the arrays by their names, in the order of the leaves.
        generators: the random-number generators of the arrays that stand for typed keys, by their names.
        structure: the structure of the pytree.
    """

    shapes: dict[str, jax.ShapeDtypeStruct]
    generators: dict[str, str]
    structure: Any

    @classmethod
    def of(cls, tree: PyTree) -> "_Named":
        generators = {}

        def look(tree: PyTree) -> dict[str, jax.Array]:
            named = named_leaves(tree)[0]
            generators.update({name: generator(name, leaf) for name, leaf in named.items() if is_typed_key(leaf)})
            return named_words(tree)

        named, structure = named_leaves(tree)
        shapes = jax.eval_shape(look, tree)
        return cls(shapes={name: shapes[name] for name in named}, generators=generators, structure=structure)

    def tree(self, named: dict[str, jax.Array]) -> PyTree:
        """The pytree of these arrays."""
        keys = {name: jax.random.wrap_key_data(named[name], impl=impl) for name, impl in self.generators.items()}
        return jax.tree.unflatten(self.structure, [(named | keys)[name] for name in self.shapes])


class _Programs(NamedTuple):
    """The programs of a training, which take and make arrays by their names.

    Attributes:
        programs: name → `jax.export.Exported`.
        generators: `_Named.generators` of the states.
    """

    programs: dict[str, Any]
    generators: dict[str, str]

    @classmethod
    def of(
        cls,
        build: Callable[[PyTree], Trainer],
        keys: jax.Array,
        hyperparams: PyTree,
        shares: Shares | SharedEpisodes,
        mapping: RunMapping,
        chunk: int,
    ) -> "_Programs":
        initialise = shares.each(make_init(build), mapping)
        advance = shares.each(make_chunk(build, chunk), mapping, num_shared=1)
        with shares.tracing():
            state = _Named.of(jax.eval_shape(initialise, keys, hyperparams))
        settings, of_keys = _Named.of(hyperparams), generator("keys", keys)

        def init(words: jax.Array, by_name: exported.State) -> exported.State:
            return named_words(initialise(jax.random.wrap_key_data(words, impl=of_keys), settings.tree(by_name)))

        def update(states: exported.State, by_name: exported.State, count: jax.Array) -> tuple[exported.State, Metrics]:
            after, (metrics, finite) = advance(state.tree(states), settings.tree(by_name), count)
            return named_words(after), {**metrics, exported.FINITE: finite}

        words, split = jax.eval_shape(jax.random.key_data, keys), shares.split
        whole = NamedSharding(shares.mesh, PartitionSpec())
        jitted = {
            "init": jax.jit(init, in_shardings=split, out_shardings=split),
            "update": jax.jit(update, in_shardings=(split, split, whole), out_shardings=split, donate_argnums=0),
        }
        arguments = {"init": (words, settings.shapes), "update": (state.shapes, settings.shapes, np.int32(chunk))}
        write, platforms = exported.require_export().export, [_platform(shares.mesh.devices.flat[0])]
        try:
            with shares.tracing():
                programs = {name: write(jitted[name], platforms=platforms)(*arguments[name]) for name in jitted}
        except NotImplementedError as error:
            raise ValueError(f"build must make a trainer that calls no Python function, got: {error}") from error
        return cls(programs=programs, generators=state.generators)


def _platform(device: Device) -> str:
    """The name by which `jax.export` knows the platform of a device."""
    return exported.require_export().default_export_platform() if device.platform == "gpu" else device.platform
