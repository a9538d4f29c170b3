"""Readers with one fault each, for the test of the process that watches readers."""

import os
import pathlib
import subprocess
import sys
import time
from collections.abc import Callable
from typing import NamedTuple


class Faulty(NamedTuple):
    """A reader whose fault shows in a file of the name `bad`."""

    fault: Callable[[], object]

    def make(self, folder: pathlib.Path) -> pathlib.Path:
        folder.mkdir(parents=True)
        (folder / "good").touch()
        return folder / "good"

    def load(self, path: pathlib.Path) -> str:
        if path.name == "bad":
            self.fault()
        return path.name


def _refuse(text: str) -> None:
    raise ValueError(text)


KINDS = {
    "raises": Faulty(lambda: [][1]),
    "runs": Faulty(lambda: subprocess.run([sys.executable, "-c", ""], check=True)),
    "imports": Faulty(lambda: __import__("this")),
    "waits": Faulty(lambda: time.sleep(60)),
    "computes": Faulty(lambda: sum(range(100_000_000))),
    "grows": Faulty(lambda: bytearray(2 << 30)),
    "dies": Faulty(os.abort),
    "differs": Faulty(lambda: None),
    "is vague": Faulty(lambda: _refuse("something is wrong")),
    "tells too much": Faulty(lambda: _refuse("bad:\nmany lines")),
}
