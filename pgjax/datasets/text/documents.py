"""Documents: the record, the readers of .txt and .jsonl files, and the split into train, valid and test."""

import codecs
import hashlib
import os
import pathlib
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from pgjax import _json
from pgjax._checks import require_in_range
from pgjax._doors import readable
from pgjax.datasets.record import DatasetError

MOST_BYTES = 128 * 2**20
"""The largest file that `read_documents` takes if nothing else is said: 128 MiB."""
MOST_LINES = 1_000_000
"""The largest number of documents in a .jsonl file."""
ENDINGS = (".txt", ".jsonl")


class Document(NamedTuple):
    """A text that is read as a whole; no window of tokens reaches from one document into another.

    Attributes:
        name: where it comes from, for messages.
        text: its characters.
    """

    name: str
    text: str


class Split(NamedTuple):
    """Three parts of a corpus without a common document."""

    train: tuple[Document, ...]
    valid: tuple[Document, ...]
    test: tuple[Document, ...]


@readable
def read_documents(paths: Iterable[str | os.PathLike], *, most_bytes: int = MOST_BYTES) -> tuple[Document, ...]:
    """The documents of text files: a .txt file is one document, and each line of a .jsonl file is one.

    A line of a .jsonl file is a JSON object whose field `text` holds the document; a field `name` names it, and other
    fields are ignored. Blank lines are skipped. Text is UTF-8, with or without a byte order mark; line ends become
    "\\n". Text holds no checksum: a changed character that leaves it text is not noticed.

    Args:
        paths: the files, at least one.
        most_bytes: the largest size of a file.

    Raises:
        DatasetError: names the file, the line and the key, what was expected and what was found: if a file is missing,
            empty, too large, has another ending, is not UTF-8 or holds the character NUL, or a line is not such an
            object.
    """
    paths = [pathlib.Path(path) for path in paths]
    if not paths:
        raise DatasetError("files", expected="at least one .txt or .jsonl file", found="none")
    return tuple(document for path in paths for document in _read(path, most_bytes))


def _read(path: pathlib.Path, most_bytes: int) -> Iterator[Document]:
    if path.suffix not in ENDINGS:
        raise DatasetError("file", expected=f"a name that ends in {' or '.join(ENDINGS)}", found=path.name, file=path)
    if not path.is_file():
        raise DatasetError("file", expected="a file", found="a folder" if path.is_dir() else "no such file", file=path)
    if (size := path.stat().st_size) > most_bytes:
        raise DatasetError("file", expected=f"at most {most_bytes} bytes", found=f"{size} bytes", file=path)
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise DatasetError("file", expected="a file that can be read", found=error.strerror, file=path) from error
    raw = raw.removeprefix(codecs.BOM_UTF8)
    if not raw.strip():
        raise DatasetError("file", expected="text", found="only white space" if raw else "an empty file", file=path)
    if (place := raw.find(b"\0")) >= 0:
        line = raw.count(b"\n", 0, place) + 1
        raise DatasetError(f"line {line}", expected="UTF-8 text", found=f"a NUL at offset {place}", file=path)
    if b"\r" in raw:
        raw = raw.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    if path.suffix == ".txt":
        text = _decoded(path, raw, 1, 0)
        if not text.strip():
            raise DatasetError("file", expected="text", found="only white space", file=path)
        yield Document(name=path.name, text=text)
        return
    if (most := raw.count(b"\n")) > MOST_LINES:
        raise DatasetError("file", expected=f"at most {MOST_LINES} lines", found=most, file=path)
    # `splitlines` would also cut at characters such as U+2028, which may stand inside a JSON string.
    for number, start, end in _lines(raw):
        if line := raw[start:end].strip():
            yield of_json(_decoded(path, line, number, start), path, number)


def _lines(raw: bytes) -> Iterator[tuple[int, int, int]]:
    """`(number, start, end)` of each line; the lines are not all in memory at once."""
    number, start = 0, 0
    while start < len(raw):
        number, end = number + 1, raw.find(b"\n", start)
        end = len(raw) if end < 0 else end
        yield number, start, end
        start = end + 1


def _decoded(path: pathlib.Path, raw: bytes, first_line: int, offset: int) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + first_line
        found = f"the byte 0x{raw[error.start]:02x} at offset {offset + error.start}"
        raise DatasetError(f"line {line}", expected="UTF-8", found=found, file=path) from error


@readable
def of_json(line: str, path: os.PathLike | str, number: int) -> Document:
    """The document of one line of a .jsonl file.

    Raises:
        DatasetError: if the line is not an object with a text in its field `text`.
    """
    wrong = lambda key, expected, found: DatasetError(
        f"line {number}{f', key {key!r}' if key else ''}", expected=expected, found=found, file=path
    )
    try:
        found = _json.loads(line, infinite=True)
    except _json.JsonError as error:
        raise wrong("", "a JSON object", str(error)) from error
    if not isinstance(found, dict):
        raise wrong("", "a JSON object", f"a JSON value of type {type(found).__name__}")
    if "text" not in found:
        raise wrong("text", "a text", f"only the keys {', '.join(map(repr, sorted(found)[:8])) or '(none)'}")
    text, name = found["text"], found.get("name")
    if not isinstance(text, str):
        raise wrong("text", "a text", f"a value of type {type(text).__name__}")
    if not text.strip():
        raise wrong("text", "a text", "only white space" if text else "an empty text")
    if any(0xD800 <= ord(character) <= 0xDFFF for character in text if character >= "\ud800"):
        raise wrong("text", "characters that UTF-8 can hold", "half of a surrogate pair")
    return Document(name=name if isinstance(name, str) else f"{pathlib.Path(path).name}:{number}", text=text)


@readable
def split_documents(documents: Sequence[Document], *, held_out: float = 0.1) -> Split:
    """Split a corpus into train, valid and test, in whole documents where that is possible.

    The documents are taken in the order of the SHA-256 of their text, which depends neither on the order of the files
    nor on a seed. Each goes to test while test stays within `held_out` of all bytes, else to valid under the same rule,
    else to train. Documents of equal text are in the same part.

    If a part would have no document, as with a single file, then every document is cut at ends of lines (or of words,
    or anywhere) into its first part for train, the next for valid and the last for test.

    Args:
        documents: at least one.
        held_out: the share of the bytes that valid and test take each, above 0 and below 0.5.

    Raises:
        ValueError: if there is no document, or `held_out` is out of range.
        DatasetError: if the text is too short to be cut into three parts.

    Example:
        >>> from pgjax.datasets import text
        >>> split = text.split_documents([text.Document(str(n), "word " * (n + 40)) for n in range(40)])
        >>> len(split.train), len(split.valid), len(split.test)
        (33, 3, 4)
    """
    if not documents:
        raise ValueError("documents must be at least one, got none")
    require_in_range("held_out", held_out, 0.001, 0.499)
    sizes: dict[str, int] = {}
    for document in documents:
        sizes[document.text] = sizes.get(document.text, 0) + len(document.text.encode())
    budget = held_out * sum(sizes.values())
    part_of: dict[str, str] = {}
    filled = {"test": 0, "valid": 0}
    for text in sorted(sizes, key=lambda text: hashlib.sha256(text.encode()).digest()):
        fitting = [part for part, size in filled.items() if size + sizes[text] <= budget]
        part_of[text] = fitting[0] if fitting else "train"
        if fitting:
            filled[fitting[0]] += sizes[text]
    if set(part_of.values()) != set(Split._fields):
        return _cut(documents, held_out)
    return Split(**{part: tuple(d for d in documents if part_of[d.text] == part) for part in Split._fields})


def _cut(documents: Sequence[Document], held_out: float) -> Split:
    """The first, the next and the last part of every document."""
    parts: tuple[list[Document], ...] = ([], [], [])
    for document in documents:
        first = _end_near(document.text, round((1 - 2 * held_out) * len(document.text)))
        second = _end_near(document.text, round((1 - held_out) * len(document.text)))
        for part, piece in zip(parts, (document.text[:first], document.text[first:second], document.text[second:])):
            if piece.strip():
                part.append(document._replace(text=piece))
    if not all(parts):
        found = f"{sum(len(document.text) for document in documents)} characters"
        raise DatasetError("text", expected="enough text for train, valid and test", found=found)
    return Split(*map(tuple, parts))


def _end_near(text: str, place: int) -> int:
    """The end of a line, else of a word, at most 2 000 characters before a place, else the place itself."""
    for end in ("\n", " "):
        if (found := text.rfind(end, max(0, place - 2000), place)) >= 0:
            return found + 1
    return place
