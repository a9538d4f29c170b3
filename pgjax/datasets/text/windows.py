"""Documents as windows of tokens for next-token learning, and sentences as short documents.

A window is what a text environment shows: BOS at place 0, then tokens of one document, EOS behind the last token of the
document, PAD behind that. Axes: N windows, L places.
"""

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from pgjax._checks import require_integer
from pgjax._doors import readable
from pgjax.datasets.text.documents import Document
from pgjax.tokens import Tokeniser


class Windows(NamedTuple):
    """Windows of documents; every place i with `counted[:, i]` asks for the token at place i + 1.

    Attributes:
        tokens: uint8 or uint16 `[N, L]`.
        counted: bool `[N, L − 1]`; false for padding, and for tokens that an earlier window counts.
    """

    tokens: np.ndarray
    counted: np.ndarray

    @property
    def weights(self) -> np.ndarray:
        """The number of counted tokens of each window, float32 `[N]`: `weights` of `training.fit`."""
        return self.counted.sum(axis=1).astype(np.float32)


@readable
def make_windows(
    documents: Sequence[Document],
    tokeniser: Tokeniser,
    length: int,
    *,
    stride: int | None = None,
    count_once: bool = False,
) -> Windows:
    """Cut documents into windows of L places.

    Window j of a document with tokens a_1 … a_n, a_{n+1} = EOS, holds BOS, a_{js+1} … a_{js+L−1}, then PAD. The stride
    s is L − 1 if windows do not overlap. A smaller one gives training more places where a window may begin. With
    `count_once` every token is counted in the first window that holds it, so that all later windows give their tokens
    at least L − 1 − s tokens of context: this is how held-out text is judged.

    Args:
        documents: at least one.
        tokeniser: with BOS, EOS and PAD.
        length: L, at least 2.
        stride: s in [1, L − 1]; L − 1 if None.
        count_once: whether a token is counted in one window only.

    Raises:
        ValueError: for a number out of range, no document, or a tokeniser without BOS, EOS or PAD.

    Example:
        >>> from pgjax import tokens
        >>> from pgjax.datasets import text
        >>> text.make_windows([text.Document("a", "abc")], tokens.bytes_(), 3).tokens
        array([[254,  97,  98],
               [254,  99, 255]], dtype=uint8)
    """
    require_integer("length", length, 2, None)
    stride = length - 1 if stride is None else stride
    require_integer("stride", stride, 1, length - 1)
    if tokeniser.bos is None or tokeniser.eos is None or tokeniser.pad is None:
        raise ValueError(f"tokeniser must have BOS, EOS and PAD, got {tokeniser!r}")
    if not documents:
        raise ValueError("documents must be at least one, got none")
    held = length - 1
    tokens, counted = [], []
    for document in documents:
        sequence = np.append(tokeniser.encode(document.text), tokeniser.eos).astype(tokeniser.dtype)
        for start in range(0, max(1, len(sequence) - held + stride), stride):
            part = sequence[start : start + held]
            row = np.full(length, tokeniser.pad, tokeniser.dtype)
            row[0], row[1 : 1 + len(part)] = tokeniser.bos, part
            tokens.append(row)
            first = held - stride if count_once and start else 0
            counted.append((np.arange(held) >= first) & (np.arange(held) < len(part)))
    return Windows(tokens=np.stack(tokens), counted=np.stack(counted))


_BULLET = re.compile(r"^\s*(?:[*+-]|\d+\.)\s+")
_END = re.compile(r"""(?<=[.!?])["')\]]*\s+(?=["']*[A-Z])""")


@readable
def sentences(documents: Iterable[Document], *, shortest: int = 20, longest: int = 160) -> tuple[Document, ...]:
    r"""The sentences of documents, each a document of its own, with white space made single spaces.

    A sentence begins with a capital letter, ends with ".", "!" or "?" before white space and a capital letter, or at
    the end of a paragraph. A paragraph whose lines are not indented alike is taken for code and left out; a list's
    bullet is not part of its text. Equal sentences are kept once, in the order of their first places.

    Args:
        documents: the text.
        shortest, longest: the allowed number of bytes of a sentence.

    Example:
        >>> from pgjax.datasets import text
        >>> found = text.sentences([text.Document("a", "One is here.  Two is\nthere!")], shortest=5)
        >>> [sentence.text for sentence in found]
        ['One is here.', 'Two is there!']
    """
    found: dict[str, str] = {}
    for document in documents:
        for paragraph in re.split(r"\n\s*\n", document.text):
            lines = _BULLET.sub(lambda found: " " * len(found.group()), paragraph.strip("\n")).split("\n")
            if len({len(line) - len(line.lstrip()) for line in lines}) > 1:
                continue
            for sentence in _END.split(" ".join(" ".join(lines).split())):
                whole = re.match(r"""["']*[A-Z]""", sentence) and re.search(r"""[.!?]["')\]]*$""", sentence)
                if whole and shortest <= len(sentence.encode()) <= longest:
                    found.setdefault(sentence, document.name)
    return tuple(Document(name=name, text=sentence) for sentence, name in found.items())
