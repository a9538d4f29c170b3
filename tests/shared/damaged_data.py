"""Damages made by hand of files that hold data: npz, HDF5, lines of JSON, text, and the folders of runs."""

import io
import json
import pathlib
import struct
import zipfile
from collections.abc import Callable
from typing import Any

import h5py
import numpy as np
from damaged_tensors import BYTES, DEEP, Change, content, sparse

from pgjax import _sealed
from pgjax.datasets import npz

GIGA = 1 << 30
SECRET = pathlib.Path("/etc/passwd")


def rezipped(edit: Callable[[dict[str, bytes]], dict[str, bytes] | None], method: int = zipfile.ZIP_STORED) -> Change:
    """Edit the entries of a zip file."""

    def change(path: pathlib.Path) -> None:
        with zipfile.ZipFile(path) as archive:
            entries = {name: archive.read(name) for name in archive.namelist()}
        entries = edit(entries) or entries
        with zipfile.ZipFile(path, "w", method) as archive:
            for name, raw in entries.items():
                archive.writestr(name, raw)

    return change


def array(value: np.ndarray, **options: Any) -> bytes:
    found = io.BytesIO()
    np.lib.format.write_array(found, np.asanyarray(value), **options)
    return found.getvalue()


def npy(header: str, data: bytes = b"") -> bytes:
    text = header.encode() + b"\n"
    return b"\x93NUMPY\x01\0" + struct.pack("<H", len(text)) + text + data


def put(name: str, raw: bytes) -> Change:
    return rezipped(lambda entries: entries | {f"{name}.npy": raw})


def sealed(edit: Callable[[dict[str, np.ndarray], dict[str, Any]], Any]) -> Change:
    """Edit arrays and header, and give them a digest that fits."""

    def change(path: pathlib.Path) -> None:
        with np.load(path) as stored:
            arrays = {name: stored[name] for name in stored.files}
        header = json.loads(arrays.pop("header").tobytes())
        edit(arrays, header)
        header["sha256"] = _sealed.digest(arrays, header["metadata"])
        npz._write(path, arrays, header)

    return change


def sealed_array(name: str, value: Callable[[np.ndarray], Any]) -> Change:
    return sealed(lambda arrays, header: arrays.update({name: np.asarray(value(arrays[name]))}))


def bomb(path: pathlib.Path) -> None:
    """A deflated array of 2.6 GB in a file of some megabytes."""
    count = 650_000_000
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("observations.npy", "w", force_zip64=True) as stream,
    ):
        stream.write(npy(f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({count},), }}"))
        for _ in range(4 * count >> 24):
            stream.write(bytes(1 << 24))


def zip_field(offset: int, value: int, width: int) -> Change:
    """Edit a field of the first entry in the list of a zip file."""

    def edit(whole: bytes) -> bytes:
        at = whole.index(b"PK\x01\x02") + offset
        return whole[:at] + value.to_bytes(width, "little") + whole[at + width :]

    return content(edit)


F4 = "'descr': '<f4', 'fortran_order': False"
NPZ: dict[str, Change] = BYTES | {
    "a bomb of 2.6 GB": bomb,
    "a hole of 8 GiB behind it": sparse(8 * GIGA),
    "objects": put("actions", array(np.array([{"a": 1}], object), allow_pickle=True)),
    "a header of objects": put("header", array(np.array([None], object), allow_pickle=True)),
    "structured": put("actions", array(np.zeros(3, [("a", "i4")]))),
    "complex": put("actions", array(np.zeros(40, complex))),
    "strings": put("actions", array(np.array(["a"] * 40))),
    "long double": put("rewards", array(np.zeros(40, np.longdouble))),
    "shape of 2⁶²": put("actions", npy(f"{{{F4}, 'shape': (4611686018427387904,), }}")),
    "shape of −1": put("actions", npy(f"{{{F4}, 'shape': (-1,), }}", bytes(4))),
    "shape of many axes": put("actions", npy(f"{{{F4}, 'shape': ({'1,' * 70}), }}", bytes(4))),
    "shape of floats": put("actions", npy(f"{{{F4}, 'shape': (1e9,), }}")),
    "shape larger than the data": put("actions", npy(f"{{{F4}, 'shape': (1000,), }}", bytes(16))),
    "data larger than the shape": put("actions", npy(f"{{{F4}, 'shape': (2,), }}", bytes(16))),
    "npy header is code": put("actions", npy("__import__('os').system('true')")),
    "npy header is deep": put("actions", npy("(" * 5000)),
    "npy header is long": put("actions", npy(f"{{{F4}, 'shape': (2,), {'#' * 60_000}}}")),
    "npy version 9": put("actions", b"\x93NUMPY\x09\0" + bytes(100)),
    "an entry that is no array": rezipped(lambda entries: entries | {"evil.py": b"import os"}),
    "names with a path": rezipped(lambda entries: entries | {"../../x.npy": entries["actions.npy"]}),
    "a thousand entries": rezipped(lambda entries: entries | {f"x{n}.npy": b"" for n in range(1000)}),
    "encrypted": zip_field(8, 1, 2),
    "method 99": zip_field(10, 99, 2),
    "entry announces 4 GiB": zip_field(24, (1 << 32) - 2, 4),
    "entry begins behind the end": zip_field(42, 1 << 30, 4),
    "header missing": rezipped(lambda entries: {k: v for k, v in entries.items() if k != "header.npy"}),
    "header no JSON": put("header", array(np.frombuffer(b"{", np.uint8))),
    "header deep": put("header", array(np.frombuffer(DEEP.encode(), np.uint8))),
    "header a list": put("header", array(np.frombuffer(b"[1]", np.uint8))),
    "sealed: version 2": sealed(lambda arrays, header: header.update(version=2)),
    "sealed: metadata a list": sealed(lambda arrays, header: header.update(metadata=[1])),
    "sealed: unknown array": sealed(lambda arrays, header: arrays.update(more=np.zeros(2))),
    "sealed: actions missing": sealed(lambda arrays, header: arrays.pop("actions")),
    "sealed: NaN": sealed_array("rewards", lambda x: np.full_like(x, np.nan)),
    "sealed: rows missing": sealed_array("actions", lambda x: x[:-1]),
    "sealed: rewards [N, 1]": sealed_array("rewards", lambda x: x[:, None]),
    "sealed: no end": sealed_array("episode_ends", np.zeros_like),
    "sealed: ends as integers": sealed_array("episode_ends", lambda x: x.astype(int)),
    "sealed: a scalar": sealed_array("actions", lambda x: np.int32(3)),
    "sealed: no row": sealed(lambda arrays, header: arrays.update({k: v[:0] for k, v in arrays.items()})),
}  # fmt: skip


def hdf5(edit: Callable[[h5py.File], Any]) -> Change:
    def change(path: pathlib.Path) -> None:
        with h5py.File(path / "data" / "main_data.hdf5", "r+") as file:
            edit(file)

    return change


def on_file(change: Change) -> Change:
    """A damage of the HDF5 file of a folder."""
    return lambda path: change(path / "data" / "main_data.hdf5")


def dataset(name: str, **options: Any) -> Change:
    """Replace a data set of the first episode."""

    def edit(file: h5py.File) -> None:
        del file["episode_0"][name]
        file["episode_0"].create_dataset(name, **options)

    return hdf5(edit)


def link(name: str, target: Any) -> Change:
    def edit(file: h5py.File) -> None:
        del file["episode_0"][name]
        file["episode_0"][name] = target

    return hdf5(edit)


def external_storage(path: pathlib.Path) -> None:
    dataset("actions", shape=(10,), dtype="u1", external=[(str(SECRET), 0, 10)])(path)


def virtual(path: pathlib.Path) -> None:
    def edit(file: h5py.File) -> None:
        del file["episode_0"]["actions"]
        layout = h5py.VirtualLayout((10,), "i8")
        layout[:] = h5py.VirtualSource(file["episode_1"]["actions"])
        file["episode_0"].create_virtual_dataset("actions", layout)

    hdf5(edit)(path)


def bomb_in_chunk(path: pathlib.Path) -> None:
    """A chunk of 80 bytes whose deflated stream expands to 2 GB."""
    import zlib

    def edit(file: h5py.File) -> None:
        del file["episode_0"]["actions"]
        made = file["episode_0"].create_dataset("actions", (10,), "i8", chunks=(10,), compression="gzip")
        packed = zlib.compressobj(9)
        stream = b"".join(packed.compress(bytes(1 << 24)) for _ in range(128)) + packed.flush()
        made.id.write_direct_chunk((0,), stream)

    hdf5(edit)(path)


def own_loop(file: h5py.File) -> None:
    del file["episode_0"]["observations"]
    file["episode_0"]["observations"] = file["episode_0"]


def many_links(file: h5py.File) -> None:
    """Every episode is one large array of a few bytes in the file."""
    del file["episode_0"]["observations"]
    made = file["episode_0"].create_dataset("observations", (11, 3_000_000), "f4", chunks=(1, 10_000), compression=9)
    made[:] = 0
    for number in range(1, 4):
        del file[f"episode_{number}"]["observations"]
        file[f"episode_{number}"]["observations"] = made


def attribute(name: str, value: Any) -> Change:
    return hdf5(lambda file: file["episode_0"].attrs.__setitem__(name, value))


HDF5: dict[str, Change] = {name: on_file(change) for name, change in BYTES.items()} | {
    "external link": link("observations", h5py.ExternalLink("/tmp/other.h5", "/x")),
    "soft link": link("observations", h5py.SoftLink("/episode_1/observations")),
    "dangling link": link("actions", h5py.SoftLink("/nowhere")),
    "episode as external link": hdf5(
        lambda file: (file.__delitem__("episode_0"), file.__setitem__("episode_0", h5py.ExternalLink("x.h5", "/")))
    ),
    "external raw storage": external_storage,
    "virtual": virtual,
    "chunks that were never written": dataset("actions", shape=(10,), dtype="i8", chunks=(5,)),
    "10¹² rows that were never written": dataset("actions", shape=(10**12,), dtype="i8", chunks=(10**6,)),
    "contiguous and never written": dataset("actions", shape=(10**9,), dtype="i8"),
    "a bomb in a chunk": bomb_in_chunk,
    "large arrays of zeros, many times": hdf5(many_links),
    "a group in itself": hdf5(own_loop),
    "text": dataset("actions", data=np.array([b"x"] * 10)),
    "texts of any length": dataset("actions", data=["x"] * 10, dtype=h5py.string_dtype()),
    "references": dataset("actions", shape=(10,), dtype=h5py.ref_dtype),
    "compound": dataset("actions", data=np.zeros(10, [("a", "i4")])),
    "a scalar": dataset("actions", data=3),
    "nothing": dataset("actions", data=h5py.Empty("f")),
    "floats for actions": dataset("actions", data=np.zeros(10)),
    "actions outside their space": dataset("actions", data=np.full(10, 7)),
    "observations NaN": dataset("observations", data=np.full((11, 3), np.nan, np.float32)),
    "observations outside their space": dataset("observations", data=np.full((11, 3), 1e30, np.float32)),
    "rewards infinite": dataset("rewards", data=np.full(10, np.inf)),
    "rewards [T, 1]": dataset("rewards", data=np.zeros((10, 1))),
    "rows missing": dataset("actions", data=np.zeros(9, int)),
    "ends in the middle": dataset("terminations", data=np.ones(10, bool)),
    "ends as integers": dataset("terminations", data=np.zeros(10, int)),
    "lzf": dataset("actions", data=np.zeros(10, int), compression="lzf"),
    "rewards missing": hdf5(lambda file: file["episode_0"].__delitem__("rewards")),
    "episode missing": hdf5(lambda file: file.__delitem__("episode_2")),
    "an episode more": hdf5(lambda file: file.create_group("episode_9")),
    "an array for an episode": hdf5(
        lambda file: (file.__delitem__("episode_0"), file.create_dataset("episode_0", data=np.zeros(3)))
    ),
    "id of another episode": attribute("id", 3),
    "id a text": attribute("id", "x"),
    "id of a million numbers": attribute("id", np.zeros(8000)),
    "total_steps too large": attribute("total_steps", 10**12),
}


def metadata(**changes: Any) -> Change:
    def change(path: pathlib.Path) -> None:
        file = path / "data" / "metadata.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))

    return change


def metadata_text(text: str) -> Change:
    return lambda path: (path / "data" / "metadata.json").write_text(text) and None


def box(**changes: Any) -> str:
    return json.dumps({"type": "Box", "dtype": "float32", "shape": [3], "low": [-1.0] * 3, "high": [1.0] * 3} | changes)


METADATA: dict[str, Change] = {
    "null": metadata_text("null"),
    "deep": metadata_text(DEEP),
    "20 MiB": metadata_text(" " * (20 << 20)),
    "10³⁰ episodes": metadata(total_episodes=10**30),
    "−1 episodes": metadata(total_episodes=-1),
    "half an episode": metadata(total_episodes=3.5),
    "episodes a text": metadata(total_episodes="4"),
    "10¹² steps": metadata(total_steps=10**12),
    "unknown version": metadata(minari_version="9.9"),
    "version a list": metadata(minari_version=["0.5.4"]),
    "another format": metadata(data_format="arrow"),
    "space no JSON": metadata(action_space="{"),
    "space deep": metadata(action_space=DEEP),
    "space a number": metadata(action_space=5),
    "n of 1e400": metadata(action_space='{"type": "Discrete", "n": 1e400}'),
    "n of 10³⁰": metadata(action_space='{"type": "Discrete", "n": 1' + "0" * 30 + "}"),
    "n of −1": metadata(action_space='{"type": "Discrete", "n": -1}'),
    "n of 2": metadata(action_space='{"type": "Discrete", "n": 2}'),
    "Box of unknown dtype": metadata(observation_space=box(dtype="float99"), action_space=box(dtype="float99")),
    "Box of shape 2⁴⁰": metadata(action_space=box(shape=[2**40], low=0, high=1)),
    "Box with low above high": metadata(action_space=box(low=[2.0] * 3)),
    "Box of texts": metadata(observation_space=box(low="x")),
    "Box of another shape": metadata(observation_space=box(shape=[4], low=[-1.0] * 4, high=[1.0] * 4)),
    "Box that is smaller": metadata(observation_space=box(low=[-0.1] * 3, high=[0.1] * 3)),
    "space that is unknown": metadata(action_space='{"type": "Graph"}'),
}
LABEL = {"prompt": "p", "chosen": "a", "rejected": "b"}


def line(value: Any) -> Change:
    """Add a line that has to be refused."""
    raw = value if isinstance(value, bytes) else (json.dumps(value) + "\n").encode()
    return content(lambda whole: whole + raw)


LABELS: dict[str, Change] = {
    "half a line": content(lambda x: x[:-20]),
    "UTF-16": content(lambda x: x.decode().encode("utf-16")),
    "a zip file": content(lambda x: b"PK\x03\x04" + x),
    "NUL bytes": line(bytes(100) + b"\n"),
    "not UTF-8": line(b'{"prompt": "\xff"}\n'),
    "deep": line(DEEP.encode() + b"\n"),
    "a line of 2 MiB": line(LABEL | {"prompt": "x" * (2 << 20)}),
    "a number": line(b"5\n"),
    "an entry twice": line(b'{"prompt": "p", "prompt": "q", "chosen": "a", "rejected": "b"}\n'),
    "margin NaN": line(b'{"prompt": "p", "chosen": "a", "rejected": "b", "margin": NaN}\n'),
    "margin 1e400": line(b'{"prompt": "p", "chosen": "a", "rejected": "b", "margin": 1e400}\n'),
    "margin a text": line(LABEL | {"margin": "x"}),
    "seed of 10³⁰": line(LABEL | {"seed": 10**30}),
    "seed of 5000 digits": line(b'{"prompt": "p", "chosen": "a", "rejected": "b", "seed": ' + b"9" * 5000 + b"}\n"),
    "no chosen": line({"prompt": "p", "rejected": "b"}),
    "chosen a number": line(LABEL | {"chosen": 3}),
    "half a character": line(LABEL | {"chosen": "\ud800"}),
    "unknown tie": line(LABEL | {"tie": "neither"}),
    "ranking of numbers": line(LABEL | {"ranking": [1, 2]}),
    "ranking without chosen": line(LABEL | {"ranking": ["x", "y"]}),
    "a hole of 1 GiB behind it": sparse(GIGA),
}
ARRAYS: dict[str, Change] = {
    "cut": content(lambda x: x[:-30]),
    "millions of empty objects": content(lambda x: b"[" + b"{}," * 8_000_000 + b"{}]"),
    "millions of backslashes": content(lambda x: b'["' + b"\\" * (30 << 20)),
    "40 MiB": content(lambda x: b"[" + b" " * (40 << 20) + b"]"),
    "numbers": content(lambda x: b"[1, 2]"),
    "deep": content(lambda x: DEEP.encode()),
    "an object in it is null": content(lambda x: b"[null]"),
}
PAIRS: dict[str, Change] = {
    "half a line": content(lambda x: x[:-20]),
    "deep": line(DEEP.encode() + b"\n"),
    "100 000 answers": line({"prompt": "p", "answers": ["x"] * 100_000}),
    "one answer": line({"prompt": "p", "answers": ["x"]}),
    "answers a text": line({"prompt": "p", "answers": "ab"}),
    "logp NaN": line(b'{"prompt": "p", "answers": ["a", "b"], "logp": [NaN, 1]}\n'),
    "logp of 10⁴⁰⁰": line(b'{"prompt": "p", "answers": ["a", "b"], "logp": [1' + b"0" * 400 + b", 1]}\n"),
    "not UTF-8": line(b"\xff\n"),
}
DOCUMENTS: dict[str, Change] = {
    "half a line": content(lambda x: x[:-20]),
    "deep": line(DEEP.encode() + b"\n"),
    "not UTF-8": line(b'{"text": "\xff"}\n'),
    "NUL": line(b'{"text": "\0"}\n'),
    "no text": line({"body": "x"}),
    "a number": line({"text": 3}),
    "half a character": line({"text": "\ud800"}),
    "empty": content(lambda x: b""),
    "two million lines": content(lambda x: b'{"text":"a"}\n' * 2_000_000),
    "a hole of 1 GiB behind it": sparse(GIGA),
}
TEXTS: dict[str, Change] = {
    "empty": content(lambda x: b""),
    "white space": content(lambda x: b" \n\t"),
    "UTF-16": content(lambda x: x.decode().encode("utf-16")),
    "UTF-16 without a mark": content(lambda x: "plain".encode("utf-16-le")),
    "latin-1": content(lambda x: x.decode().encode("latin-1")),
    "a hole of 1 GiB behind it": sparse(GIGA),
    "a folder": BYTES["a folder"],
    "missing": BYTES["missing"],
}
