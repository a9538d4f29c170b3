"""Damages of files by a seeded program: flipped bits, cuts, splices, edited lengths, and edited JSON."""

import json
import pathlib
import random
from collections.abc import Callable, Iterator

Damage = Callable[[bytes, random.Random], bytes]
HUGE = (0, 1, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**62, 2**63, 2**64 - 1)


def flip_bit(content: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(content))
    return content[:at] + bytes([content[at] ^ (1 << rng.randrange(8))]) + content[at + 1 :]


def flip_bits(content: bytes, rng: random.Random) -> bytes:
    for _ in range(rng.randrange(2, 20)):
        content = flip_bit(content, rng)
    return content


def cut(content: bytes, rng: random.Random) -> bytes:
    return content[: rng.randrange(len(content))]


def drop_piece(content: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(content))
    return content[:start] + content[start + rng.randrange(1, 65) :]


def repeat_piece(content: bytes, rng: random.Random) -> bytes:
    start, to = rng.randrange(len(content)), rng.randrange(len(content))
    return content[:to] + content[start : start + rng.randrange(1, 257)] + content[to:]


def overwrite(content: bytes, rng: random.Random) -> bytes:
    at, length = rng.randrange(len(content)), rng.randrange(1, 33)
    filler = rng.choice((bytes(length), b"\xff" * length, rng.randbytes(length)))
    return content[:at] + filler + content[at + length :]


def edit_length(content: bytes, rng: random.Random) -> bytes:
    """Put a large or an odd integer where a length may stand."""
    width = rng.choice((2, 4, 8))
    at = rng.randrange(max(1, len(content) - width))
    number = rng.choice((*HUGE, len(content), rng.randrange(1 << 16))) % (1 << (8 * width))
    return content[:at] + number.to_bytes(width, "little") + content[at + width :]


def append(content: bytes, rng: random.Random) -> bytes:
    return content + rng.randbytes(rng.randrange(1, 200))


ANY = (flip_bit, flip_bits, cut, drop_piece, repeat_piece, overwrite, edit_length, append)
VALUES = (
    "null", "true", "-1", "0", "1e400", "1e308", "NaN", "-Infinity", "0.5", "9" * 30, "9" * 5000, '""', '"x"',
    '"\\ud800"', '"\\u001b[31m"', "[]", "{}", "[[]]", "[null]", '{"x": 1, "x": 2}', "[" * 5000 + "]" * 5000,
    '"http.server:test"', "[1e9]", "[4294967296, 4294967296]", "[" + "1," * 3000 + "1]",
)  # fmt: skip


def edit_json(text: bytes, rng: random.Random) -> bytes:
    """Put an odd value in the place of a value of JSON, or drop or double an entry."""
    try:
        found = json.loads(text)
    except ValueError:
        return flip_bit(text, rng) if text else b"{"
    places = list(_places(found))
    if not places:
        return rng.choice(VALUES).encode()
    parent, key = rng.choice(places)
    action = rng.randrange(6)
    if action == 0 and isinstance(parent, dict):
        del parent[key]
    elif action == 1 and isinstance(parent, list):
        parent.append(parent[key])
    else:
        parent[key] = "@@PLACE@@"
    return json.dumps(found).replace('"@@PLACE@@"', rng.choice(VALUES)).encode()


def _places(value: object) -> Iterator[tuple]:
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in list(entries):
        yield value, key
        yield from _places(inner)


def edit_line(text: bytes, rng: random.Random) -> bytes:
    """`edit_json` of one line."""
    lines = text.split(b"\n")
    number = rng.randrange(len(lines))
    lines[number] = edit_json(lines[number], rng)
    return b"\n".join(lines)


def edit_head(content: bytes, rng: random.Random) -> bytes:
    """`edit_json` of the head of a safetensors file, whose length is made to fit."""
    length = int.from_bytes(content[:8], "little")
    head = edit_json(content[8 : 8 + length], rng)
    return len(head).to_bytes(8, "little") + head + content[8 + length :]


def apply(path: pathlib.Path, damage: Damage, rng: random.Random) -> None:
    path.write_bytes(damage(path.read_bytes(), rng))
