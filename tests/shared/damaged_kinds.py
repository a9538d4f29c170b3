"""The kinds of files that pgjax reads: each with an undamaged example, its reader, and the damages that suit it."""

import hashlib
import json
import pathlib
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import damage
import gguf_files
import gymnax  # noqa: F401  the reader of policies looks names up in it
import h5py
import jax
import jax.numpy as jnp
import language_files
import numpy as np
from damage import Damage

from experiments.harness import comparing, runs, saved_files
from experiments.preferences import pairs
from pgjax import datasets, networks, saving, tokens
from pgjax.datasets import text
from pgjax.preferences import records
from pgjax.saving import weights
from pgjax.spaces import Box, Discrete


class Kind(NamedTuple):
    """A kind of files.

    Attributes:
        make: writes an undamaged example into a folder, and returns the path that the reader takes.
        read: the reader.
        part: the file below that path which is damaged; "" is the path itself.
        damages: the damages of a seeded program that suit the file.
        has_digest: whether the file holds a digest of its content, so that nothing else than the content may be loaded.
    """

    make: Callable[[pathlib.Path], pathlib.Path]
    read: Callable[[pathlib.Path], Any]
    part: str
    damages: tuple[Damage, ...]
    has_digest: bool

    def load(self, path: pathlib.Path) -> str:
        """A fingerprint of what is read."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return fingerprint(self.read(path))

    def file(self, path: pathlib.Path) -> pathlib.Path:
        return (path.parent if self.part.startswith("../") else path).joinpath(*filter(None, [self.part.lstrip("./")]))


def fingerprint(value: Any) -> str:
    """The same text for equal content: of arrays their types, shapes and bytes."""
    found = hashlib.sha256()
    leaves, structure = jax.tree.flatten(value)
    found.update(repr(structure).encode(errors="replace"))
    for leaf in leaves:
        if hasattr(leaf, "dtype"):
            array = np.asarray(jax.random.key_data(leaf) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf)
            found.update(f"{leaf.dtype} {leaf.shape}".encode() + array.tobytes())
        else:
            found.update(repr(leaf).encode(errors="replace"))
    return found.hexdigest()[:16]


STATE = {
    "key": jax.random.key(7),
    "n": jnp.int32(3),
    "flags": jnp.array([True, False]),
    "θ": {"w": jnp.linspace(-1, 1, 24).reshape(4, 6), "b": jnp.zeros(6, jnp.bfloat16)},
}


def make_checkpoint(folder: pathlib.Path) -> pathlib.Path:
    folder.mkdir(parents=True, exist_ok=True)
    saving.save(folder / "state.safetensors", STATE, {"update": 3, "options": {"env": "corridor", "lr": 0.1}})
    return folder / "state.safetensors"


def read_checkpoint(path: pathlib.Path) -> Any:
    found = saving.read(path)
    return found.restore(STATE), found.metadata


def make_policy(folder: pathlib.Path) -> pathlib.Path:
    folder.mkdir(parents=True, exist_ok=True)
    params = networks.make_policy(_corridor(), hidden=(4,)).init(jax.random.key(0), jnp.zeros(1))
    saving.save_policy(folder / "policy.safetensors", params, environment="corridor", hidden=(4,))
    return folder / "policy.safetensors"


def _corridor() -> Any:
    from pgjax import environments

    return environments.make_shipped("corridor")


def read_policy(path: pathlib.Path) -> Any:
    environment, policy, params = saving.load_policy(path)
    return environment.name, repr(policy), params


def expert(rows: int = 40) -> datasets.ExpertDataset:
    rng = np.random.default_rng(0)
    return datasets.ExpertDataset(
        observations=rng.uniform(-1, 1, (rows, 3)).astype(np.float32),
        actions=rng.integers(0, 3, rows),
        episode_ends=datasets.ends_of_lengths([rows // 4] * 4),
        rewards=rng.uniform(0, 1, rows),
        final_observations=rng.uniform(-1, 1, (4, 3)).astype(np.float32),
        terminated=np.array([True, False, True, False]),
        metadata={"env": "maze", "seed": 3},
    )


def _of_dataset(data: datasets.ExpertDataset) -> Any:
    return {name: getattr(data, name) for name in datasets.npz.ARRAYS}, repr(data.metadata)


def make_npz(folder: pathlib.Path) -> pathlib.Path:
    folder.mkdir(parents=True, exist_ok=True)
    datasets.save_npz(folder / "expert.npz", expert())
    return folder / "expert.npz"


def make_minari(folder: pathlib.Path) -> pathlib.Path:
    folder.mkdir(parents=True, exist_ok=True)
    spaces = {"observation_space": Box(-1.0, 1.0, (3,)), "action_space": Discrete(3)}
    datasets.save_minari(folder / "set", expert(), dataset_id="made/maze-v0", **spaces)
    return folder / "set"


def make_foreign_minari(folder: pathlib.Path) -> pathlib.Path:
    """As Minari writes it: no digest, no checksums; with compression."""
    path, data = folder / "set" / "data", expert()
    path.mkdir(parents=True)
    box = {"type": "Box", "dtype": "float32", "shape": [3], "low": [-1.0] * 3, "high": [1.0] * 3}
    described = {
        "total_episodes": 4, "total_steps": 40, "data_format": "hdf5", "dataset_id": "made/by-hand-v0",
        "observation_space": json.dumps(box), "minari_version": "0.5.4",
        "action_space": json.dumps({"type": "Discrete", "dtype": "int64", "start": 0, "n": 3}),
    }  # fmt: skip
    (path / "metadata.json").write_text(json.dumps(described))
    with h5py.File(path / "main_data.hdf5", "w", track_order=True) as file:
        for number, episode in enumerate(data.episodes()):
            group = file.create_group(f"episode_{number}")
            group.attrs.update({"id": number, "total_steps": episode.num_rows, "seed": number})
            ends = episode.episode_ends
            for name, array in {
                "observations": np.concatenate([episode.observations, episode.final_observations]),
                "actions": episode.actions,
                "rewards": episode.rewards,
                "terminations": ends & bool(episode.terminated[0]),
                "truncations": ends & (not episode.terminated[0]),
            }.items():
                packed = {"compression": "gzip", "shuffle": True} if name == "observations" else {}
                group.create_dataset(name, data=array, chunks=True, maxshape=(None, *array.shape[1:]), **packed)
    return folder / "set"


def make_labels(folder: pathlib.Path) -> pathlib.Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "labels.jsonl"
    lines = [{"prompt": f"p{n}", "chosen": "good é", "rejected": "bad", "margin": 0.5, "seed": n} for n in range(6)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def make_array(folder: pathlib.Path) -> pathlib.Path:
    path = make_labels(folder).with_name("labels.json")
    lines = make_labels(folder).read_text(encoding="utf-8").splitlines()
    path.write_text(f"[{','.join(lines)}]", encoding="utf-8")
    return path


def make_pairs(folder: pathlib.Path) -> pathlib.Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "pairs.jsonl"
    lines = [{"prompt": f"p{n}", "answers": ["a", "b", "c"], "seed": n, "logp": [-1.0, -2.5, -3.0]} for n in range(5)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def make_documents(folder: pathlib.Path) -> pathlib.Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "corpus.jsonl"
    lines = [{"name": f"d{n}", "text": f"Line {n} of a text é.\nAnd more."} for n in range(6)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def make_text(folder: pathlib.Path) -> pathlib.Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "corpus.txt").write_text("Once upon a time é.\n" * 20, encoding="utf-8")
    return folder / "corpus.txt"


def make_gguf(folder: pathlib.Path) -> pathlib.Path:
    """A whole small model of Llama with a tokeniser."""
    folder.mkdir(parents=True, exist_ok=True)
    draw = np.random.default_rng(0).standard_normal
    width, inner, vocabulary = 8, 16, 4
    shapes = {"token_embd.weight": (vocabulary, width), "output_norm.weight": (width,)}
    for name, shape in {
        "attn_norm": (width,), "attn_q": (width, width), "attn_k": (width, width), "attn_v": (width, width),
        "attn_output": (width, width), "ffn_norm": (width,), "ffn_gate": (inner, width), "ffn_up": (inner, width),
        "ffn_down": (width, inner),
    }.items():  # fmt: skip
        shapes[f"blk.0.{name}.weight"] = shape
    tensors = {name: ("F32", shape, draw(shape).astype("<f4").tobytes()) for name, shape in shapes.items()}
    metadata = {
        "general.architecture": "llama", "llama.block_count": 1, "llama.context_length": 16,
        "llama.embedding_length": width, "llama.feed_forward_length": inner, "llama.attention.head_count": 2,
        "llama.attention.layer_norm_rms_epsilon": 1e-6, "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm", "tokenizer.ggml.tokens": ["a", "b", "ab", "<end>"],
        "tokenizer.ggml.token_type": np.asarray([1, 1, 1, 3]), "tokenizer.ggml.merges": ["a b"],
        "tokenizer.ggml.eos_token_id": 3,
    }  # fmt: skip
    (folder / "model.gguf").write_bytes(gguf_files.gguf_bytes(metadata, tensors))
    return folder / "model.gguf"


def read_gguf(path: pathlib.Path) -> Any:
    found, tokeniser = weights.load(path), tokens.from_gguf(path)
    return found.config.__dict__, found.params, tokeniser.token_bytes, tokeniser.eos, tokeniser.encode("abab")


def make_weights(folder: pathlib.Path) -> pathlib.Path:
    """As `weights.save` writes it."""
    folder.mkdir(parents=True, exist_ok=True)
    config = networks.GPT2Config(vocabulary=11, width=8, layers=1, heads=2, context=9)
    params = networks.make_language_model(config).init(jax.random.key(0))
    weights.save(folder / "model.safetensors", config, params)
    return folder / "model.safetensors"


def make_foreign_weights(folder: pathlib.Path) -> pathlib.Path:
    """As another program writes it, with a config.json beside it and no digest."""
    folder.mkdir(parents=True, exist_ok=True)
    content = language_files.saved(language_files.stored(language_files.gpt2_weights(), "F32"))
    return language_files.written(folder, content, weights.config_json(language_files.GPT2))


def read_weights(path: pathlib.Path) -> Any:
    found = weights.load(path)
    return found.config.__dict__, found.params


def make_run(folder: pathlib.Path) -> pathlib.Path:
    """The folder of a run with the files that `runs` and `compare` read."""
    path = folder / "results" / "toy" / "one"
    path.mkdir(parents=True)
    row = {"quantity": "return", "variant": "a", "ours": 2.0, "stderr": 0.1, "seconds": 1.5}
    summary = {"experiment": "toy", "run": "one", "status": "complete", "error": None, "seconds": 2.5, "rows": [row]}
    environment = {"date": "2026-11-28T10:00:00+00:00", "commit": "abc", "versions": {"jax": "0.10.1"}}
    for name, value in (("summary", summary), ("environment", environment), ("config", {"lr": 0.1, "env": "maze"})):
        (path / f"{name}.json").write_text(json.dumps(value))
    lines = [{"update": n, "mean_return": [1.0 * n, 2.0 * n]} for n in range(4)]
    (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def read_run(path: pathlib.Path) -> Any:
    found = runs.read(path)
    console = comparing.result_table([found, found], ["a", "b"]), comparing.option_table([found, found], ["a", "b"])
    curves = comparing.curves(path / "metrics.jsonl")
    return found.status, found.headline, console, {name: (c.clock, c.x, c.values) for name, c in curves.items()}


def read_object(path: pathlib.Path) -> Any:
    return repr(saved_files.read_object(path / "summary.json"))


_JSON = (*damage.ANY, damage.edit_json, damage.edit_json, damage.edit_json)
_LINES = (*damage.ANY, damage.edit_line, damage.edit_line, damage.edit_line)
_HEADS = (*damage.ANY, damage.edit_head, damage.edit_head, damage.edit_head)
_DATA = "data/main_data.hdf5"
_labels = lambda path: [repr(record) for record in records.read(path)]
_minari = lambda path: _of_dataset(datasets.load_minari(path))
_documents = lambda path: text.read_documents([path])

KINDS = {
    "checkpoint": Kind(make_checkpoint, read_checkpoint, "", _HEADS, True),
    "policy": Kind(make_policy, read_policy, "", _HEADS, True),
    "npz": Kind(make_npz, lambda path: _of_dataset(datasets.load_npz(path)), "", damage.ANY, True),
    "HDF5": Kind(make_minari, _minari, _DATA, damage.ANY, True),
    "HDF5 metadata": Kind(make_minari, _minari, "data/metadata.json", _JSON, True),
    "foreign HDF5": Kind(make_foreign_minari, _minari, _DATA, damage.ANY, False),
    "foreign HDF5 metadata": Kind(make_foreign_minari, _minari, "data/metadata.json", _JSON, False),
    "JSON lines": Kind(make_labels, _labels, "", _LINES, False),
    "JSON array": Kind(make_array, _labels, "", _JSON, False),
    "pairs": Kind(make_pairs, lambda path: [repr(pair) for pair in pairs.read(path)], "", _LINES, False),
    "documents": Kind(make_documents, _documents, "", _LINES, False),
    "text": Kind(make_text, _documents, "", damage.ANY, False),
    "GGUF": Kind(make_gguf, read_gguf, "", damage.ANY, False),
    "safetensors": Kind(make_weights, read_weights, "", _HEADS, True),
    "foreign safetensors": Kind(make_foreign_weights, read_weights, "", _HEADS, False),
    "model's config.json": Kind(make_foreign_weights, read_weights, "../config.json", _JSON, False),
    "run": Kind(make_run, read_run, "summary.json", _JSON, False),
    "run's log": Kind(make_run, read_run, "metrics.jsonl", _LINES, False),
    "run's environment": Kind(make_run, read_run, "environment.json", _JSON, False),
}
