"""Tokenisers from local files: the one inside a GGUF file, and a JSON file of the package `tokenizers`.

Reading a file runs nothing that it holds, and nothing is downloaded.
"""

import os
import pathlib
import re
from collections.abc import Callable
from typing import Any

import numpy as np

from pgjax import _gguf, _json
from pgjax._checks import shown
from pgjax._doors import readable
from pgjax._limits import read_whole
from pgjax.tokens._bpe import Bpe, bytes_of
from pgjax.tokens.tokeniser import Tokeniser, until_eos

_NORMAL, _UNKNOWN, _CONTROL, _USER = 1, 2, 3, 4
# How a GGUF file names the way in which texts are cut → whether every digit is a piece of its own.
_CUTS = {"gpt-2": False, "smollm": True}
_MOST_JSON_BYTES = 1 << 26
_MOST_VALUES = 1 << 23


@readable
def from_gguf(path: str | os.PathLike, *, read_special: bool = False) -> Tokeniser:
    """The byte-level tokeniser inside a GGUF file.

    Args:
        path: the file.
        read_special: whether `encode` reads the names of special tokens in a text, such as "<|im_end|>", as these
            tokens. A text from outside must not be able to write them, so the default is False.

    Returns:
        The tokeniser. BOS and EOS are those of the file; PAD is None if the file uses EOS for it.

    Raises:
        ValueError: if the file is damaged or holds no tokeniser of this kind ("gpt2", cut as in "gpt-2" or "smollm").
            `encode` raises it for a text with a byte that has no token.
    """
    gguf = _gguf.read(path)
    for name, allowed in (("tokenizer.ggml.model", ("gpt2",)), ("tokenizer.ggml.pre", tuple(_CUTS))):
        if (found := gguf.require(name, str)) not in allowed:
            raise ValueError(f"path {path}: {name} must be {' or '.join(map(repr, allowed))}, got {shown(found)}")
    tokens = [_text(path, token) for token in gguf.require("tokenizer.ggml.tokens", list)]
    kinds = gguf.require("tokenizer.ggml.token_type", np.ndarray)
    joins: list[Any] = [tuple(_text(path, join).split(" ")) for join in gguf.require("tokenizer.ggml.merges", list)]
    if len(kinds) != len(tokens) or len(set(tokens)) < len(tokens) or not tokens:
        raise ValueError(
            f"path {path}: tokenizer.ggml.tokens must be different and as many as their types, got {len(set(tokens))} "
            f"different ones of {len(tokens)}, and {len(kinds)} types"
        )
    if wrong := next((join for join in joins if len(join) != 2), None):
        raise ValueError(f"path {path}: tokenizer.ggml.merges must be pairs with one space between, got {shown(wrong)}")
    numbers = {token: i for i, (token, kind) in enumerate(zip(tokens, kinds)) if kind not in (_UNKNOWN, _CONTROL)}
    bpe = Bpe(numbers, joins, single_digits=_CUTS[gguf.metadata["tokenizer.ggml.pre"]])
    whole = (_USER, _UNKNOWN, _CONTROL) if read_special else (_USER,)
    whole = {token: i for i, (token, kind) in enumerate(zip(tokens, kinds)) if kind in whole}
    bos, eos, pad = (_special(gguf, word, len(tokens)) for word in ("bos", "eos", "padding"))
    return _made(
        encode=_with_whole_tokens(whole, bpe.encode),
        token_bytes=tuple(_token_bytes(token, kind) for token, kind in zip(tokens, kinds)),
        bos=bos,
        eos=eos,
        pad=pad,
    )


def _text(path: Any, token: Any) -> str:
    if not isinstance(token, bytes):
        raise ValueError(f"path {path}: the tokens and merges of a tokeniser must be strings, got {shown(token)}")
    return token.decode(errors="surrogateescape")


def _token_bytes(token: str, kind: int) -> bytes:
    if kind in (_UNKNOWN, _CONTROL):
        return b""
    found = None if kind == _USER else bytes_of(token)
    return token.encode(errors="surrogateescape") if found is None else found


def _special(gguf: _gguf.Gguf, word: str, vocabulary: int) -> int | None:
    name = f"tokenizer.ggml.{word}_token_id"
    if name not in gguf.metadata:
        return None
    number = gguf.require(name, int)
    if not 0 <= number < vocabulary:
        raise ValueError(f"path {gguf.path}: {name} must be in [0, {vocabulary - 1}], got {number}")
    return number


def _with_whole_tokens(whole: dict[str, int], encode: Callable[[str], list[int]]) -> Callable[[str], list[int]]:
    """`encode` for the text between the tokens of `whole`, of which the longest are found first."""
    if not whole:
        return encode
    pattern = re.compile("(" + "|".join(map(re.escape, sorted(whole, key=len, reverse=True))) + ")")

    def encode_all(text: str) -> list[int]:
        parts = pattern.split(text)
        return [number for part in parts for number in ([whole[part]] if part in whole else encode(part))]

    return encode_all


def _made(*, encode, token_bytes: tuple[bytes, ...], bos: int | None, eos: int | None, pad: int | None) -> Tokeniser:
    pad = None if pad == eos else pad

    def decode(tokens: np.ndarray) -> str:
        kept = until_eos(tokens, eos)
        special = {token for token in (bos, pad) if token is not None}
        written = b"".join(token_bytes[int(token)] for token in kept if int(token) not in special)
        return written.decode(errors="replace")

    tokeniser = Tokeniser(
        # A lone surrogate has no UTF-8 form.
        encode=lambda text: np.asarray(encode(text.encode(errors="replace").decode()), tokeniser.dtype),
        decode=decode,
        token_bytes=token_bytes,
        eos=eos,
        bos=bos,
        pad=pad,
    )
    return tokeniser


@readable
def from_json(
    path: str | os.PathLike,
    *,
    eos: str | None = None,
    bos: str | None = None,
    pad: str | None = None,
    read_special: bool = False,
) -> Tokeniser:
    """The tokeniser of a local `tokenizer.json`, which the package `tokenizers` reads.

    Args:
        path: the file.
        eos, bos, pad: the tokens with these roles, as they are written in the file, such as "<|endoftext|>"; the file
            does not tell them.
        read_special: see `from_gguf`.

    Raises:
        ValueError: if the file is missing, larger than 64 MiB or no such file, has no byte-level or SentencePiece-like
            tokens, or lacks one of the special tokens.
        ImportError: if the package is missing.
    """
    try:
        import tokenizers  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ImportError("a tokenizer.json needs the package tokenizers: pip install tokenizers") from error
    path = pathlib.Path(path)
    content = read_whole(path, _MOST_JSON_BYTES)
    try:
        described = _json.loads(content, values=_MOST_VALUES)
        # The package raises a bare Exception.
        found = tokenizers.Tokenizer.from_str(content.decode())
        special = {token["id"] for token in described.get("added_tokens") or () if token.get("special")}
        bytes_of_piece = _bytes_of_piece(path, described)
    except Exception as error:
        raise ValueError(f"path {path} is no tokenizer.json that can be read: {shown(str(error))}") from error
    found.encode_special_tokens = not read_special
    number = lambda role, token: None if token is None else _number(path, found, role, token)
    roles = {role: number(role, token) for role, token in (("bos", bos), ("eos", eos), ("pad", pad))}
    pieces = (found.id_to_token(i) for i in range(found.get_vocab_size(with_added_tokens=True)))
    token_bytes = tuple(b"" if i in special or not x else bytes_of_piece(x) for i, x in enumerate(pieces))
    return _made(
        encode=lambda text: found.encode(text, add_special_tokens=False).ids,
        token_bytes=token_bytes,
        **roles,
    )


def _number(path: pathlib.Path, tokenizer: Any, role: str, token: str) -> int:
    number = tokenizer.token_to_id(token)
    if number is None:
        raise ValueError(f"path {path} has no token {token!r} for {role}")
    return number


def _bytes_of_piece(path: pathlib.Path, described: dict) -> Callable[[str], bytes]:
    """The bytes of a token, by the decoder that the file names."""
    decoder = described.get("decoder") or {}
    kinds = {part.get("type") for part in (decoder, *decoder.get("decoders", ()))}
    if "ByteLevel" in kinds:
        return lambda piece: piece.encode() if (found := bytes_of(piece)) is None else found
    if kinds & {"Metaspace", "ByteFallback"}:
        as_byte = lambda piece: bytes([int(piece[3:5], 16)]) if re.fullmatch("<0x[0-9A-Fa-f]{2}>", piece) else None
        return lambda piece: piece.replace("▁", " ").encode() if (found := as_byte(piece)) is None else found
    raise ValueError(
        f"path {path} must have a decoder of the type ByteLevel, Metaspace or ByteFallback, got {shown(decoder)}"
    )
