"""The numbers of a tensor in a file as a float array, whatever kind they were written in."""

import pathlib

import jax.numpy as jnp
import numpy as np

from pgjax._checks import shown
from pgjax._stored import Tensor

_FLOATS = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype(jnp.bfloat16),
}
_QUANTISED = ("Q4_0", "Q4_1", "Q8_0")


def require_floats(path: pathlib.Path, name: str, tensor: Tensor) -> None:
    """Require a kind that `numbers` reads.

    Raises:
        ValueError: if the tensor has another one, such as integers.
    """
    if tensor.kind not in (*_FLOATS, *_QUANTISED):
        allowed = ", ".join((*_FLOATS, *_QUANTISED))
        raise ValueError(f"path {path}: {shown(name)} must be of a kind among {allowed}, got {tensor.kind}")


def numbers(file: np.ndarray, tensor: Tensor) -> np.ndarray:
    """The tensor in its shape; a quantised one in float32.

    A block of 32 numbers has a scale d, in Q4_1 also a minimum m, both float16:

    x = d q in Q8_0 (q int8),   x = d (q − 8) in Q4_0,   x = d q + m in Q4_1 (q of 4 bits)

    The low halves of 16 bytes are the first 16 numbers q of the block, and the high halves are the other 16.

    Args:
        file: all bytes of the file, uint8.
        tensor: a tensor of one of the kinds of `require_floats`.
    """
    raw = file[tensor.start : tensor.stop]
    if tensor.kind in _FLOATS:
        return np.frombuffer(raw.tobytes(), _FLOATS[tensor.kind]).reshape(tensor.shape)
    size = {"Q4_0": 18, "Q4_1": 20, "Q8_0": 34}[tensor.kind]
    blocks = np.asarray(raw).reshape(-1, size)
    half = lambda at: np.ascontiguousarray(blocks[:, at : at + 2]).view("<f2").astype(np.float32)
    if tensor.kind == "Q8_0":
        return (half(0) * blocks[:, 2:].view(np.int8)).reshape(tensor.shape)
    codes = blocks[:, size - 16 :]
    codes = np.concatenate([codes & 15, codes >> 4], axis=1).astype(np.float32)
    found = half(0) * (codes - 8.0) if tensor.kind == "Q4_0" else half(0) * codes + half(2)
    return found.reshape(tensor.shape)
