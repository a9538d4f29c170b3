"""The record of a tokeniser, and the two tokenisers that need no file."""

import dataclasses
from collections.abc import Callable

import numpy as np

from pgjax._doors import readable


@dataclasses.dataclass(frozen=True, eq=False)
class Tokeniser:
    """Text to token numbers 0 … V − 1 and back.

    Attributes:
        encode: `str → integers [n]`, without special tokens.
        decode: `integers [n] → str`; special tokens and what follows an EOS are left out.
        token_bytes: the UTF-8 bytes of each token, V of them; empty for a special token.
        eos: the token that ends a text, or None.
        bos: the token that begins a text, or None.
        pad: the token that fills unused places, or None; it differs from EOS.
        dtype: the smallest unsigned type that holds every token.
    """

    encode: Callable[[str], np.ndarray]
    decode: Callable[[np.ndarray], str]
    token_bytes: tuple[bytes, ...]
    eos: int | None
    bos: int | None = None
    pad: int | None = None

    @property
    def vocabulary(self) -> int:
        """V, the number of tokens."""
        return len(self.token_bytes)

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(np.uint8 if self.vocabulary <= 256 else np.uint16 if self.vocabulary <= 65536 else np.uint32)

    @property
    def special(self) -> tuple[int, ...]:
        """The tokens that stand for no text."""
        return tuple(token for token in (self.eos, self.bos, self.pad) if token is not None)

    def __repr__(self) -> str:
        return f"Tokeniser(vocabulary={self.vocabulary}, eos={self.eos}, bos={self.bos}, pad={self.pad})"


@readable
def until_eos(tokens: np.ndarray, eos: int | None) -> np.ndarray:
    """The tokens before the first EOS, or all of them if there is none."""
    tokens = np.asarray(tokens)
    ends = np.flatnonzero(tokens == eos) if eos is not None else np.zeros(0, int)
    return tokens[: ends[0]] if ends.size else tokens


_EOS, _BOS, _PAD = 0xFF, 0xFE, 0xFD


@readable
def bytes_() -> Tokeniser:
    """One token for each byte of UTF-8: 256 tokens, and no text is unknown.

    UTF-8 never contains the bytes 0xF8 … 0xFF, so the last three of them serve as EOS (255), BOS (254) and PAD (253).
    `decode` replaces byte sequences that are not UTF-8, as a model may write them, by the character U+FFFD.

    Example:
        >>> from pgjax import tokens
        >>> tokens.bytes_().encode("né")
        array([110, 195, 169], dtype=uint8)
    """

    def encode(text: str) -> np.ndarray:
        # A lone surrogate has no UTF-8 form.
        return np.frombuffer(text.encode("utf-8", errors="replace"), np.uint8).copy()

    def decode(tokens: np.ndarray) -> str:
        kept = until_eos(tokens, _EOS)
        return bytes(int(token) for token in kept if token not in (_BOS, _PAD)).decode("utf-8", errors="replace")

    special = (_EOS, _BOS, _PAD)
    return Tokeniser(
        encode=encode,
        decode=decode,
        token_bytes=tuple(b"" if token in special else bytes([token]) for token in range(256)),
        eos=_EOS,
        bos=_BOS,
        pad=_PAD,
    )


@readable
def alphabet(characters: str) -> Tokeniser:
    """One token for each character of a small alphabet, in its order, then EOS and PAD: V = n + 2.

    Args:
        characters: n different characters.

    Raises:
        ValueError: if there is no character or one occurs twice; `encode` raises it for a character outside.

    Example:
        >>> from pgjax import tokens
        >>> letters = tokens.alphabet("abc")
        >>> letters.encode("cab"), letters.eos, letters.pad
        (array([2, 0, 1], dtype=uint8), 3, 4)
    """
    twice = sorted({c for c in characters if characters.count(c) > 1})
    if not characters or twice:
        raise ValueError(f"characters must be at least one, all different, got {characters!r}")
    numbers = {character: number for number, character in enumerate(characters)}
    eos, pad = len(characters), len(characters) + 1
    dtype = np.uint8 if pad < 256 else np.uint16

    def encode(text: str) -> np.ndarray:
        unknown = sorted(set(text) - set(numbers))
        if unknown:
            raise ValueError(f"text must use the characters {characters!r}, got {unknown[0]!r}")
        return np.array([numbers[character] for character in text], dtype)

    def decode(tokens: np.ndarray) -> str:
        return "".join(characters[token] for token in until_eos(tokens, eos) if token < eos)

    token_bytes = (*(character.encode() for character in characters), b"", b"")
    return Tokeniser(encode=encode, decode=decode, token_bytes=token_bytes, eos=eos, pad=pad)
