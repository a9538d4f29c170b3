"""Byte-level byte-pair encoding as GPT-2 does it, in plain Python.

A text is cut into pieces by a pattern, the bytes of a piece are written as 256 printable characters, and neighbours are
joined in the order in which the joins were learnt.

Source: Sennrich, Haddow & Birch (2016); the pattern and the characters are those of GPT-2 (Radford et al. 2019).
"""

import functools
import itertools
import re
import unicodedata
from collections.abc import Iterable

# The characters that Unicode calls white space; `\s` of Python has four more.
_SPACE = r"\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"


@functools.cache
def byte_characters() -> dict[int, str]:
    """Byte → the printable character that stands for it: itself if it is printable, else one from U+0100 on."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + i) for i, byte in enumerate(others)}


def bytes_of(token: str) -> bytes | None:
    """The bytes that the characters of a token stand for; None if one of them stands for no byte."""
    found = _character_bytes()
    return bytes(found[c] for c in token) if all(c in found for c in token) else None


@functools.cache
def _character_bytes() -> dict[str, int]:
    return {character: byte for byte, character in byte_characters().items()}


@functools.cache
def _class(category: str) -> str:
    """The inside of a character class with the characters of a Unicode category, "L" letters or "N" numbers."""
    codes = (code for code in range(0x110000) if unicodedata.category(chr(code))[0] == category)
    # Neighbouring codes have the same distance from their position in the list.
    runs = (list(run) for _, run in itertools.groupby(enumerate(codes), lambda item: item[1] - item[0]))
    return "".join(f"\\U{run[0][1]:08x}-\\U{run[-1][1]:08x}" for run in runs)


@functools.cache
def _patterns() -> tuple[re.Pattern, re.Pattern]:
    """One digit; and a piece of a text."""
    letters, numbers = _class("L"), _class("N")
    piece = (
        rf"'s|'t|'re|'ve|'m|'ll|'d| ?[{letters}]+| ?[{numbers}]+| ?[^{_SPACE}{letters}{numbers}]+"
        rf"|[{_SPACE}]+(?![^{_SPACE}])|[{_SPACE}]+"
    )
    return re.compile(f"([{numbers}])"), re.compile(piece)


def pieces(text: str, *, single_digits: bool) -> Iterable[str]:
    """The pieces of a text, which together are the text; `single_digits` first cuts at every digit."""
    digit, piece = _patterns()
    parts = digit.split(text) if single_digits else (text,)
    return itertools.chain.from_iterable(piece.findall(part) for part in parts)


class Bpe:
    """The joins and the numbers of the tokens.

    Args:
        numbers: token, written with `byte_characters`, → its number.
        joins: the pairs that are joined, the first first.
        single_digits: see `pieces`.
    """

    def __init__(self, numbers: dict[str, int], joins: Iterable[tuple[str, str]], *, single_digits: bool) -> None:
        self.numbers, self.single_digits = numbers, single_digits
        self.ranks = {pair: rank for rank, pair in enumerate(joins)}
        self.known: dict[str, list[int]] = {}

    def encode(self, text: str) -> list[int]:
        """The tokens of a text.

        Raises:
            ValueError: if the text has a byte for which there is no token.
        """
        return [number for piece in pieces(text, single_digits=self.single_digits) for number in self._of_piece(piece)]

    def _of_piece(self, piece: str) -> list[int]:
        if piece not in self.known:
            if len(self.known) > 100_000:
                self.known.clear()
            self.known[piece] = self._numbers(piece)
        return self.known[piece]

    def _numbers(self, piece: str) -> list[int]:
        characters = byte_characters()
        parts = [characters[byte] for byte in piece.encode()]
        while len(parts) > 1:
            best = min(itertools.pairwise(parts), key=lambda pair: self.ranks.get(pair, len(self.ranks)))
            if best not in self.ranks:
                break
            parts = _joined(parts, best)
        unknown = next((part for part in parts if part not in self.numbers), None)
        if unknown is not None:
            raise ValueError(f"text must have only bytes with a token, got {bytes_of(unknown)!r} in {piece!r}")
        return [self.numbers[part] for part in parts]


def _joined(parts: list[str], pair: tuple[str, str]) -> list[str]:
    """The parts with this pair joined wherever it stands, from the left."""
    found, i = [], 0
    while i < len(parts):
        if i + 1 < len(parts) and (parts[i], parts[i + 1]) == pair:
            found.append(parts[i] + parts[i + 1])
            i += 2
        else:
            found.append(parts[i])
            i += 1
    return found
