"""Bits per byte of general compressors on held-out text, the baselines of a language model."""

import lzma
import zlib
from collections.abc import Sequence
from typing import NamedTuple

from pgjax._doors import readable
from pgjax.datasets.text.documents import Document

END = b"\xff"  # never part of UTF-8; it ends a document as EOS does


class CompressedSizes(NamedTuple):
    """Bits per byte of the held-out text, each with the best setting of the compressor.

    Attributes:
        zlib: level 9, the held-out text alone.
        lzma: preset 9 extreme, the held-out text alone.
        lzma_after_training: what the held-out text adds to the compressed training text.
    """

    zlib: float
    lzma: float
    lzma_after_training: float


@readable
def as_bytes(documents: Sequence[Document]) -> bytes:
    """The documents one after another in UTF-8, each with one byte that ends it."""
    return b"".join(document.text.encode() + END for document in documents)


@readable
def num_bytes(documents: Sequence[Document]) -> int:
    """The number of UTF-8 bytes of the documents, without their ends: the denominator of bits per byte."""
    return sum(len(document.text.encode()) for document in documents)


@readable
def compressed_sizes(train: Sequence[Document], held_out: Sequence[Document]) -> CompressedSizes:
    """Bits per byte of zlib and lzma on the held-out documents.

        lzma_after_training = 8 (|lzma(train + held out)| − |lzma(train)|) / bytes of held out

    The dictionary of lzma holds the whole training text. Ends of documents are coded, but do not count as bytes; a
    language model codes them as EOS, so its bits per byte are counted in the same way.

    Example:
        >>> from pgjax.datasets import text
        >>> train, held_out = [text.Document("a", "a cat sat " * 9)], [text.Document("b", "a cat sat")]
        >>> found = text.compressed_sizes(train, held_out)
        >>> found.lzma_after_training < found.lzma
        True
    """
    before, text = as_bytes(train), as_bytes(held_out)
    after = _lzma(before + text) - _lzma(before)
    bits = lambda size: 8 * size / num_bytes(held_out)
    return CompressedSizes(
        zlib=bits(len(zlib.compress(text, 9))), lzma=bits(_lzma(text)), lzma_after_training=bits(after)
    )


def _lzma(text: bytes) -> int:
    """The size of the compressed text without the container, whose headers would count as text."""
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "dict_size": max(4096, len(text))}]
    return len(lzma.compress(text, format=lzma.FORMAT_RAW, filters=filters))
