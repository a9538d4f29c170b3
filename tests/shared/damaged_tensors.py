"""Damages made by hand of files that hold tensors: checkpoints, policies, safetensors and GGUF."""

import json
import pathlib
import struct
from collections.abc import Callable
from typing import Any

import gguf_files
import jax
import jax.numpy as jnp
import numpy as np
from safetensors.numpy import save as serialise

from pgjax import _sealed, networks
from pgjax.networks import GPT2Config
from pgjax.saving import checkpoints, weights

Change = Callable[[pathlib.Path], None]
GIGA = 1 << 30


def content(edit: Callable[[bytes], bytes]) -> Change:
    """Replace the bytes of a file."""
    return lambda path: path.write_bytes(edit(path.read_bytes())) and None


def sparse(size: int) -> Change:
    """Let the file end with a hole, so that it looks large and takes no disk."""

    def change(path: pathlib.Path) -> None:
        with path.open("r+b") as file:
            file.truncate(size)

    return change


def both(one: Change, other: Change) -> Change:
    def change(path: pathlib.Path) -> None:
        one(path)
        other(path)

    return change


def as_folder(path: pathlib.Path) -> None:
    path.unlink()
    path.mkdir()


def parts_of(whole: bytes) -> tuple[dict[str, Any], bytes]:
    length = int.from_bytes(whole[:8], "little")
    return json.loads(whole[8 : 8 + length]), whole[8 + length :]


def joined(head: Any, data: bytes) -> bytes:
    text = head if isinstance(head, bytes) else json.dumps(head).encode()
    return len(text).to_bytes(8, "little") + text + data


def head(edit: Callable[[dict[str, Any]], Any]) -> Change:
    """Edit the head of a safetensors file; `edit` changes it or returns another one."""

    def change(whole: bytes) -> bytes:
        found, data = parts_of(whole)
        edited = edit(found)
        return joined(found if edited is None else edited, data)

    return content(change)


def tensor(**fields: Any) -> Change:
    """Edit the description of the first tensor."""
    return head(lambda found: found[next(name for name in found if name != "__metadata__")].update(fields))


def sealed(edit: Callable[[dict[str, np.ndarray], dict[str, Any]], Any]) -> Change:
    """Edit the arrays and the header of a checkpoint, and give it a digest that fits, as an attacker can."""

    def change(path: pathlib.Path) -> None:
        found = checkpoints.read(path)
        arrays, covered = (
            dict(found.arrays),
            {
                "format": 2,
                "generators": found.generators,
                "metadata": json.loads(json.dumps(found.metadata)),
            },
        )
        edit(arrays, covered)
        text = json.dumps(covered | {"sha256": _sealed.digest(arrays, covered)})
        path.write_bytes(serialise(arrays, {"pgjax": text}))

    return change


def own_header(text: str) -> Change:
    return lambda path: path.write_bytes(serialise({}, {"pgjax": text})) and None


def with_metadata(**changes: Any) -> Change:
    return sealed(lambda arrays, covered: covered["metadata"].update(changes))


def with_arguments(**changes: Any) -> Change:
    return sealed(lambda arrays, covered: covered["metadata"]["arguments"].update(changes))


def first_array(edit: Callable[[np.ndarray], np.ndarray]) -> Change:
    def change(arrays: dict[str, np.ndarray], covered: dict[str, Any]) -> None:
        name = max(arrays, key=lambda name: arrays[name].size)
        arrays[name] = edit(arrays[name])

    return sealed(change)


def bad_bool(path: pathlib.Path) -> None:
    def change(arrays: dict[str, np.ndarray], covered: dict[str, Any]) -> None:
        name = next(name for name, array in arrays.items() if array.dtype == bool)
        arrays[name] = np.array([2, 0], np.uint8).view(bool)

    sealed(change)(path)


DEEP = "[" * 100_000
BYTES: dict[str, Change] = {
    "empty": content(lambda x: b""),
    "five bytes": content(lambda x: x[:5]),
    "half": content(lambda x: x[: len(x) // 2]),
    "one byte short": content(lambda x: x[:-1]),
    "one byte more": content(lambda x: x + b"\0"),
    "zeros": content(lambda x: bytes(len(x))),
    "random": content(lambda x: np.random.default_rng(0).bytes(len(x))),
    "a pickle": content(lambda x: b"\x80\x04\x95\x15\0\0\0\0\0\0\0\x8c\x05posix\x8c\x06system\x93\x8c\x04true\x85R."),
    "a folder": as_folder,
    "missing": lambda path: path.unlink(),
}
HEADS: dict[str, Change] = {
    "head of 2⁶⁴ bytes": content(lambda x: b"\xff" * 8 + x[8:]),
    "head of a gigabyte in a sparse file": both(
        content(lambda x: GIGA.to_bytes(8, "little") + x[8:]), sparse(2 * GIGA)
    ),
    "a hole of 8 GiB behind it": sparse(8 * GIGA),
    "head is null": head(lambda found: b"null"),
    "head is a list": head(lambda found: b"[1, 2]"),
    "head is deep": head(lambda found: DEEP.encode()),
    "head is not UTF-8": head(lambda found: b'{"\xff": 1}'),
    "head with millions of values": head(lambda found: b"[" + b"{}," * 8_000_000 + b"{}]"),
    "a name twice": content(lambda x: joined(x[8 : x.index(b"}", 8) + 1][:-1] + b', "a": 1, "a": 2}', b"")),
    "shape of −1": tensor(shape=[-1]),
    "shape of 2⁶²": tensor(shape=[2**62, 2**62]),
    "shape of floats": tensor(shape=[1e400]),
    "shape of 1000 axes": tensor(shape=[1] * 1000),
    "unknown dtype": tensor(dtype="F65"),
    "float8": tensor(dtype="F8_E5M2"),
    "offsets behind the end": tensor(data_offsets=[0, 2**40]),
    "offsets that begin in the head": tensor(data_offsets=[-8, 0]),
    "offsets in the wrong order": tensor(data_offsets=[8, 0]),
    "all tensors at one place": head(
        lambda found: [x.update(data_offsets=[0, 4]) for name, x in found.items() if name != "__metadata__"] and None
    ),
    "200 000 tensors": head(
        lambda found: found | {f"x{n}": {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]} for n in range(200_000)}
    ),
    "a name of 100 000 letters": head(
        lambda found: found | {"x" * 100_000: {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}}
    ),
    "metadata are a list": head(lambda found: found | {"__metadata__": [1]}),
    "no metadata": head(lambda found: {k: v for k, v in found.items() if k != "__metadata__"} | {"x": 1}),
}
CHECKPOINT: dict[str, Change] = {
    "header null": own_header("null"),
    "header a list": own_header("[]"),
    "header deep": own_header('{"metadata": ' + DEEP),
    "header with long integer": own_header('{"n": ' + "9" * 10_000 + "}"),
    "header of a newer format": own_header('{"metadata": {}, "sha256": "", "format": 9, "generators": {}}'),
    "header without digest": own_header('{"metadata": {}, "format": 2, "generators": {}}'),
    "digest of other content": head(
        lambda x: x["__metadata__"].update(pgjax=x["__metadata__"]["pgjax"].replace("corridor", "corridoR"))
    ),
    "sealed: metadata deep": sealed(lambda a, c: c["metadata"].update(x=json.loads("[" * 200 + "]" * 200))),
    "sealed: unknown generator": sealed(lambda a, c: c["generators"].update(dict.fromkeys(c["generators"], "nothing"))),
    "sealed: generator a number": sealed(lambda a, c: c["generators"].update(dict.fromkeys(c["generators"], 5))),
    "sealed: other generator": sealed(lambda a, c: c["generators"].update(dict.fromkeys(c["generators"], "rbg"))),
    "sealed: no generator": sealed(lambda a, c: c["generators"].clear()),
    "sealed: float64": first_array(lambda x: x.astype(np.float64)),
    "sealed: float16": first_array(lambda x: x.astype(np.float16)),
    "sealed: other shape": first_array(lambda x: x.reshape(-1)),
    "sealed: leaf missing": sealed(lambda a, c: a.pop("['n']")),
    "sealed: leaf more": sealed(lambda a, c: a.update({"['more']": np.zeros(2)})),
    "sealed: names exchanged": sealed(lambda a, c: a.update({"['n']": a["['flags']"], "['flags']": a["['n']"]})),
    "sealed: truth value 2": bad_bool,
}
POLICY: dict[str, Change] = {
    f"sealed: env {env!r:.40}": with_metadata(env=env)
    for env in (
        "http.server:test", "os:getcwd", "posix:system", "pgjax.environments:make", "brax:ant", "jumanji:Snake-v1", "",
        "nosuch", "../corridor", "corridor\0", "CartPole-v1", 5, ["corridor"], {"a": 1}, None, "x" * 100_000,
    )
} | {
    f"sealed: {name} {str(value)[:30]}": with_arguments(**{name: value})
    for name, value in (
        ("hidden", [-1]), ("hidden", [0]), ("hidden", [10**9, 10**9]), ("hidden", [10**30]), ("hidden", [4] * 10_000),
        ("hidden", "abc"), ("hidden", [None]), ("hidden", [[4]]), ("hidden", 4), ("hidden", {"a": 1}),
        ("network", "os:system"), ("network", "conv"), ("network", "transformer"), ("activation", "eval"),
        ("distribution", "gaussian"), ("distribution", "builtins:print"), ("network_options", {"heads": 10**9}),
        ("network_options", [1]), ("action_mask", "os:getcwd"), ("environment", "maze"), ("unknown", 1),
    )
} | {
    "sealed: millions of heads": with_arguments(network="transformer", network_options={"heads": 10**7}),
    "sealed: a thousand blocks": with_arguments(network="llama", hidden=[4] * 1000, network_options={"heads": 1}),
    "sealed: θ is NaN": first_array(lambda x: np.full_like(x, np.nan)),
    "sealed: θ is infinite": first_array(lambda x: np.full_like(x, -np.inf)),
    "sealed: θ is float64": first_array(lambda x: x.astype(np.float64)),
    "sealed: θ is large float64": first_array(lambda x: np.full(x.shape, 1e300)),
    "sealed: θ is bfloat16": first_array(lambda x: x.astype(jnp.bfloat16)),
    "sealed: θ of another size": first_array(lambda x: np.zeros((*x.shape[:-1], 99), x.dtype)),
    "sealed: no arguments": sealed(lambda a, c: c["metadata"].pop("arguments")),
    "sealed: version 9": with_metadata(version=9),
    "sealed: space of 5": with_metadata(action_space=5),
    "sealed: Box of unknown dtype": with_metadata(
        observation_space={"type": "Box", "low": 0, "high": 1, "shape": [2**40], "dtype": "float99"}
    ),
}  # fmt: skip


def infinite_n(path: pathlib.Path) -> None:
    """A header whose JSON says `"n": 1e400`."""
    sealed(lambda arrays, covered: covered["metadata"].update(action_space={"type": "Discrete", "n": 1e400}))(path)


POLICY["sealed: n of 1e400"] = infinite_n


def own_weights(config: GPT2Config, scale: float) -> Change:
    def change(path: pathlib.Path) -> None:
        params = networks.make_language_model(config).init(jax.random.key(1))
        weights.save(path, config, jax.tree.map(lambda x: x * scale, params))
        found, data = parts_of(path.read_bytes())
        found["wte.weight"]["dtype"] = "I32"
        path.write_bytes(joined(found, data))

    return change


SMALL = GPT2Config(vocabulary=11, width=8, layers=1, heads=2, context=9)
WEIGHTS: dict[str, Change] = {
    "NaN behind the digest": content(lambda x: x[:-4] + struct.pack("<f", float("nan"))),
    "a number behind the digest": content(lambda x: x[:-4] + struct.pack("<f", 1.5)),
    "sizes behind the digest": head(
        lambda x: x["__metadata__"].update(
            pgjax_config=x["__metadata__"]["pgjax_config"].replace('"n_head": 2', '"n_head": 4')
        )
    ),
    "sizes that are no JSON": head(lambda x: x["__metadata__"].update(pgjax_config="{")),
    "integers": own_weights(SMALL, 1.0),
}
FOREIGN_WEIGHTS: dict[str, Change] = {
    "NaN": content(lambda x: x[:-4] + struct.pack("<f", float("nan"))),
    "infinite": content(lambda x: x[:-4] + struct.pack("<f", float("inf"))),
    "no config.json": lambda path: path.with_name("config.json").unlink(),
}


def config(**changes: Any) -> Change:
    def change(path: pathlib.Path) -> None:
        file = path.with_name("config.json")
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))

    return change


def config_text(text: str) -> Change:
    return lambda path: path.with_name("config.json").write_text(text) and None


CONFIGS: dict[str, Change] = {
    "null": config_text("null"),
    "deep": config_text(DEEP),
    "two megabytes": config_text(" " * (2 << 20)),
    "auto_map to code": config(model_type="x", auto_map={"AutoModel": "evil.py--Model"}),
    "10⁹ blocks": config(n_layer=10**9),
    "10¹² symbols": config(vocab_size=10**12),
    "width 0": config(n_embd=0),
    "heads of −1": config(n_head=-1),
    "ε of 1e400": config_text(json.dumps({"model_type": "gpt2"})[:-1] + ', "layer_norm_epsilon": 1e400}'),
    "texts for numbers": config(n_layer="2"),
    "another activation": config(activation_function="relu"),
}
TENSORS = "token_embd.weight"


def gguf_head(tensors: int, entries: int, *rest: bytes) -> Change:
    return lambda path: path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, tensors, entries) + b"".join(rest)) and None


def replaced(old: bytes, new: bytes) -> Change:
    def edit(whole: bytes) -> bytes:
        assert old in whole
        return whole.replace(old, new, 1)

    return content(edit)


GGUF: dict[str, Change] = {
    "version 1": content(lambda x: x[:4] + struct.pack("<I", 1) + x[8:]),
    "big-endian": content(lambda x: x[:4] + struct.pack(">I", 3) + x[8:]),
    "2⁶³ tensors": content(lambda x: x[:8] + struct.pack("<Q", 1 << 63) + x[16:]),
    "2⁶³ entries": content(lambda x: x[:16] + struct.pack("<Q", 1 << 63) + x[24:]),
    "a name of 2⁶² bytes": gguf_head(0, 1, struct.pack("<Q", 1 << 62)),
    "a name of 100 000 bytes": gguf_head(0, 1, struct.pack("<Q", 100_000), b"x" * 100_000),
    "2⁵⁰ numbers in a list": gguf_head(0, 1, gguf_files.string("a"), struct.pack("<IIQ", 9, 10, 1 << 50)),
    "lists in lists": gguf_head(0, 1, gguf_files.string("a"), struct.pack("<IIQ", 9, 9, 1) * 1000),
    "millions of empty strings": gguf_head(
        0, 1, gguf_files.string("a"), struct.pack("<IIQ", 9, 8, 5_000_000), bytes(40_000_000)
    ),
    "a type of 77": gguf_head(0, 1, gguf_files.string("a"), struct.pack("<I", 77)),
    "alignment of 0": gguf_head(0, 1, gguf_files.string("general.alignment"), struct.pack("<II", 4, 0)),
    "another architecture": replaced(b"llama", b"llamb"),
    "blocks of 2³¹": replaced(b"block_count\x04\0\0\0\x01", b"block_count\x04\0\0\0\xff"),
    "tensor missing": replaced(b"blk.0.attn_q.weight", b"blk.1.attn_q.weight"),
    "tensor twice": replaced(b"blk.0.attn_q.weight", b"blk.0.attn_k.weight"),
    "NaN": content(lambda x: x[:-4] + struct.pack("<f", float("nan"))),
    "a hole of 8 GiB behind half of it": both(content(lambda x: x[:300]), sparse(8 * GIGA)),
}
