"""GGUF files for tests, written from the specification byte by byte."""

import struct

import numpy as np

KIND_NUMBERS = {"F32": 0, "F16": 1, "Q4_0": 2, "Q4_1": 3, "Q8_0": 8}


def string(text):
    text = text.encode() if isinstance(text, str) else text
    return struct.pack("<Q", len(text)) + text


def value(x):
    """A value of metadata with its type in front."""
    match x:
        case bool():
            return struct.pack("<IB", 7, x)
        case int():
            return struct.pack("<II", 4, x)
        case float():
            return struct.pack("<If", 6, x)
        case str():
            return struct.pack("<I", 8) + string(x)
        case np.ndarray():
            return struct.pack("<IIQ", 9, 5, len(x)) + x.astype("<i4").tobytes()
    return struct.pack("<IIQ", 9, 8, len(x)) + b"".join(map(string, x))


def gguf_bytes(metadata, tensors, version=3, alignment=32):
    """The file of `metadata` and of `tensors`, name → (kind, shape in the order of NumPy, bytes)."""
    head = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(metadata))
    head += b"".join(string(name) + value(x) for name, x in metadata.items())
    data = b""
    for name, (kind, shape, raw) in tensors.items():
        data += bytes(-len(data) % alignment)
        head += string(name) + struct.pack(f"<I{len(shape)}Q", len(shape), *shape[::-1])
        head += struct.pack("<IQ", KIND_NUMBERS[kind], len(data))
        data += raw
    return head + bytes(-len(head) % alignment) + data


def quantised(kind, shape, seed):
    """Random blocks of this kind: their bytes, and the numbers that they stand for, one after another."""
    draw, raw, numbers = np.random.default_rng(seed), b"", []
    for _ in range(int(np.prod(shape)) // 32):
        scale, least = draw.normal(0.0, 0.02), draw.normal(0.0, 0.1)
        d, m = struct.pack("<e", scale), struct.pack("<e", least)
        scale, least = struct.unpack("<ee", d + m)
        if kind == "Q8_0":
            codes = draw.integers(-128, 128, 32)
            raw += d + struct.pack("<32b", *codes)
            numbers += [scale * code for code in codes]
            continue
        codes = draw.integers(0, 16, 32)
        packed = bytes(int(codes[i]) | int(codes[i + 16]) << 4 for i in range(16))
        raw += d + (m if kind == "Q4_1" else b"") + packed
        numbers += [scale * code + least if kind == "Q4_1" else scale * (code - 8) for code in codes]
    return raw, np.asarray(numbers).reshape(shape)
