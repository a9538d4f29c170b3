"""Language models from files and to files: safetensors in the layouts of GPT-2 and Llama, and GGUF of Llama.

Reading a file runs nothing that it holds, and checks its head before anything is allocated.
"""

import json
import math
import os
import pathlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pgjax import _gguf, _safetensors, writing
from pgjax._checks import shown
from pgjax._doors import readable
from pgjax._leaves import named_leaves, require_finite, require_same_layout
from pgjax._records import one_line
from pgjax._sealed import digest, stored_digest
from pgjax._stored import Tensor
from pgjax.networks import GPT2Config, LlamaConfig
from pgjax.networks.language_models import Config, make_language_model
from pgjax.saving.weights import _configs
from pgjax.saving.weights._layouts import (
    GPT2,
    LLAMA,
    LLAMA_GGUF,
    Entry,
    Layout,
    entries,
    is_transposed,
    layout_of,
    shape_of,
)
from pgjax.saving.weights._numbers import numbers, require_floats
from pgjax.types import PyTree

_CONFIG, _SHA256 = "pgjax_config", "pgjax_sha256"
_MOST_LAYERS = 1000
MOST_BYTES = 1 << 33
"""The largest θ that `load` makes if nothing else is said: 8 GiB."""


class Loaded(NamedTuple):
    """A language model that was read from a file.

    Attributes:
        config: the sizes.
        params: θ, as `networks.make_language_model(config)` and `networks.make_language_policy` take it.
        path: the file.
    """

    config: Config
    params: PyTree
    path: pathlib.Path

    def __repr__(self) -> str:
        return one_line(self)


@readable
def load(
    path: str | os.PathLike, *, config: Config | None = None, dtype: Any = jnp.float32, most_bytes: int = MOST_BYTES
) -> Loaded:
    """Read a language model from a safetensors file (GPT-2 or Llama) or a GGUF file (Llama).

    A safetensors file holds F64, F32, F16 or BF16. Its names may begin with "transformer." in GPT-2's layout; masks and
    rotary frequencies are skipped. A GGUF file holds F32, F16, BF16, Q8_0, Q4_0 or Q4_1. One with `rope_freqs.weight`,
    the changed rotary frequencies of Llama 3, is refused as an unknown tensor, because pgjax does not compute them.

    A file that `save` wrote holds a digest of its numbers and of its sizes, so a flipped bit is found. Files of other
    programs and GGUF files hold none: a flipped bit that changes a number into another finite one is not noticed.

    Args:
        path: the file; the first bytes tell which kind it is.
        config: the sizes. If it is None, they come from the head of a file that `save` wrote, from the `config.json` in
            the same folder, or from the metadata of a GGUF file.
        dtype: the float type of θ.
        most_bytes: the largest size of θ in memory.

    Raises:
        ValueError: if the file is missing, cut short or damaged, or θ is larger than `most_bytes`; if the file has
            another layout; if no configuration is found, or one that pgjax does not compute; if a tensor is missing,
            unknown, or of another kind or shape, where the error names the file, the tensor, what was expected and what
            was found; or if a number is NaN or infinite.

    Example:
        >>> import pathlib, tempfile
        >>> import jax
        >>> from pgjax import networks
        >>> from pgjax.saving import weights
        >>> config = networks.GPT2Config(vocabulary=256, width=16, layers=2, heads=2, context=32)
        >>> params = networks.make_language_model(config).init(jax.random.key(0))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = pathlib.Path(folder) / "model.safetensors"
        ...     weights.save(path, config, params)
        ...     found = weights.load(path)
        >>> found.config == config
        True
    """
    path, dtype = pathlib.Path(path), np.dtype(dtype)
    if not jnp.issubdtype(dtype, jnp.floating) or jax.dtypes.canonicalize_dtype(dtype) != dtype:
        raise ValueError(f"dtype must be a float type that JAX has turned on, got {dtype}")
    if path.is_file() and _gguf.is_gguf(path):
        head = _gguf.read(path)
        layout, tensors = LLAMA_GGUF, head.tensors
        config = _configs.from_gguf(head) if config is None else config
    else:
        stored = _safetensors.read(path)
        _require_digest(stored)
        layout, tensors = _layout(path, stored.tensors)
        config = _config_of(stored, layout.head in tensors) if config is None else config
    _require_layout(path, layout, config)
    tensors, config = _without_twin_of_table(path, layout, tensors, config)
    _require_tensors(path, layout, tensors, config)
    if (size := dtype.itemsize * sum(math.prod(tensor.shape) for tensor in tensors.values())) > most_bytes:
        raise ValueError(f"path {path} must hold a θ of at most {most_bytes} bytes (most_bytes), got {size} in {dtype}")
    return Loaded(config=config, params=_params(path, layout, tensors, config, dtype), path=path)


def _require_digest(stored: _safetensors.Safetensors) -> None:
    """Require the digest of a file that `save` wrote; other programs write neither it nor `_CONFIG`."""
    if not {_SHA256, _CONFIG} & set(stored.metadata):
        return
    with stored.path.open("rb") as file:
        found = stored_digest(file, stored.tensors, {_CONFIG: stored.metadata.get(_CONFIG)})
    if found != stored.metadata.get(_SHA256):
        raise ValueError(f"path {stored.path} is damaged: its digest does not match what it holds")


def _layout(path: pathlib.Path, tensors: dict[str, Tensor]) -> tuple[Layout, dict[str, Tensor]]:
    """The layout, and the tensors by their names in it, without those that are skipped."""
    names = {name.removeprefix("transformer."): tensor for name, tensor in tensors.items()}
    found = next((x for x, key in ((GPT2, "wte.weight"), (LLAMA, "model.embed_tokens.weight")) if key in names), None)
    if found is None or len(names) < len(tensors):
        raise ValueError(
            f"path {path} must have the layout of GPT-2 (with 'wte.weight') or of Llama (with "
            f"'model.embed_tokens.weight'), got the tensors {shown(sorted(tensors)[:4])}"
        )
    return found, {name: tensor for name, tensor in names.items() if not found.skipped.fullmatch(name)}


def _config_of(stored: _safetensors.Safetensors, has_head: bool) -> Config:
    if _CONFIG in stored.metadata:
        values = _configs.parsed(stored.path, stored.metadata[_CONFIG])
        return _configs.from_json(stored.path, values, has_head)
    beside = stored.path.with_name("config.json")
    if not beside.is_file():
        raise ValueError(
            f"path {stored.path} needs the sizes of its model: put its config.json beside it, or give load a config"
        )
    return _configs.from_json(beside, _configs.read_json(beside), has_head)


def _require_layout(path: pathlib.Path, layout: Layout, config: Config) -> None:
    if isinstance(config, GPT2Config) is not (layout is GPT2):
        raise ValueError(f"path {path} has the layout of {layout.name}, but the sizes are a {type(config).__name__}")
    if config.layers > _MOST_LAYERS:
        raise ValueError(f"path {path} must have at most {_MOST_LAYERS} blocks, got {config.layers}")


def _without_twin_of_table(
    path: pathlib.Path, layout: Layout, tensors: dict[str, Tensor], config: Config
) -> tuple[dict[str, Tensor], Config]:
    """Some files of tied models hold the table a second time as the head; it must then be the same, and is left out."""
    if not config.tied or layout.head not in tensors:
        return tensors, config
    table = next(name for name, entry in layout.whole.items() if entry.place == ("tokens",))
    file = _mapped(path)
    one, other = (tensors.get(name) for name in (layout.head, table))
    if (
        one is None
        or other is None
        or one[:2] != other[:2]
        or not np.array_equal(file[slice(*one[2:])], file[slice(*other[2:])])
    ):
        raise ValueError(f"path {path}: {layout.head} must equal {table}, since the model is tied")
    return {name: tensor for name, tensor in tensors.items() if name != layout.head}, config


def _mapped(path: pathlib.Path) -> np.ndarray:
    try:
        return np.memmap(path, np.uint8, "r")
    except OSError as error:
        raise ValueError(f"path {path} cannot be read: {error.strerror}") from error


def _require_tensors(path: pathlib.Path, layout: Layout, tensors: dict[str, Tensor], config: Config) -> None:
    wanted = entries(layout, config)
    if missing := sorted(wanted.keys() - tensors.keys()):
        raise ValueError(f"path {path} lacks the tensor {shown(missing[0])} of the layout of {layout.name}")
    if unknown := sorted(tensors.keys() - wanted.keys()):
        raise ValueError(
            f"path {path} holds the tensor {shown(unknown[0])}, which the layout of {layout.name} with {config.layers} "
            "blocks does not have"
        )
    for name, (entry, _) in wanted.items():
        shape = shape_of(entry, config)
        if tensors[name].shape != shape:
            raise ValueError(f"path {path}: {shown(name)} must have the shape {list(shape)}, got {tensors[name]}")
        require_floats(path, name, tensors[name])


def _params(path: pathlib.Path, layout: Layout, tensors: dict[str, Tensor], config: Config, dtype: np.dtype) -> PyTree:
    file, found = _mapped(path), {}
    for name, (entry, block) in entries(layout, config).items():
        with np.errstate(over="ignore"):
            values = _oriented(layout, entry, config, numbers(file, tensors[name])).astype(dtype, copy=False)
        if not np.isfinite(values).all():
            bad = np.size(values) - np.isfinite(values).sum()
            raise ValueError(
                f"path {path}: {shown(name)} must be finite in {dtype}, got {bad} NaN or infinite of {values.size}"
            )
        if block is None:
            _put(found, entry.place, values)
        else:
            place = ("layers", *entry.place)
            if block == 0:
                _put(found, place, np.empty((config.layers, *values.shape), dtype))
            _get(found, place)[block] = values
    return jax.tree.map(jnp.asarray, found)


def _oriented(layout: Layout, entry: Entry, config: Config, values: np.ndarray) -> np.ndarray:
    """The numbers as θ holds them."""
    if layout is LLAMA_GGUF and entry.heads and isinstance(config, LlamaConfig):
        # GGUF writes the rows of a head as x_0, x_{D/2}, x_1, x_{D/2 + 1}, …: undo that.
        heads = config.heads if entry.heads == "H" else config.groups
        values = values.reshape(heads, -1, 2, values.shape[1]).swapaxes(1, 2).reshape(values.shape)
    return values.T if is_transposed(layout, entry) else values


def _put(tree: dict, place: tuple[str, ...], value: np.ndarray) -> None:
    for name in place[:-1]:
        tree = tree.setdefault(name, {})
    tree[place[-1]] = value


def _get(tree: dict, place: tuple[str, ...]) -> np.ndarray:
    found: Any = tree
    for name in place:
        found = found[name]
    return found


@readable
def save(path: str | os.PathLike, config: Config, params: PyTree) -> None:
    """Write a language model as a safetensors file with the names, the shapes and the orientation of its layout.

    The sizes stand in the head of the file, under the names of a config.json, so `load` needs no second file. Other
    programs read the file with a config.json beside it, which `config_json` gives.

    Raises:
        ValueError: if `params` is no θ of this model, or not finite; nothing is written.
        OSError: if the file cannot be written; an older file at `path` is then untouched.
    """
    from safetensors.numpy import save as serialise

    model = make_language_model(config)
    like = named_leaves(jax.eval_shape(model.init, jax.random.key(0)))[0]
    given = named_leaves(params)[0]
    dtypes = {np.dtype(leaf.dtype) for leaf in given.values()}
    dtype = dtypes.pop() if len(dtypes) == 1 else np.dtype(np.float32)
    wanted = {name: jax.ShapeDtypeStruct(leaf.shape, dtype) for name, leaf in like.items()}
    require_same_layout("params", given, wanted)
    require_finite("params", params)
    layout, arrays = layout_of(config), {}
    for name, (entry, block) in entries(layout, config).items():
        leaf = _get(params, entry.place if block is None else ("layers", *entry.place))
        values = np.asarray(leaf if block is None else leaf[block])
        arrays[name] = np.ascontiguousarray(values.T if is_transposed(layout, entry) else values)
    covered = {_CONFIG: json.dumps(config_json(config))}
    metadata = {"format": "pt", **covered, _SHA256: digest(arrays, covered)}
    writing.replace_file(path, serialise(arrays, metadata))


@readable
def config_json(config: Config) -> dict[str, Any]:
    """The sizes under the names of a config.json of `GPT2LMHeadModel` or `LlamaForCausalLM`, as a JSON object."""
    return _configs.to_json(config)
