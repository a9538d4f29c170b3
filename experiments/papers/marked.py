"""Runs a paper's module as its own command does, and marks the run as a tiny one, which judges no sampled number.

Command  python -m experiments.papers.marked -m experiments.NAME OPTIONS
"""

import contextlib
import runpy
import sys
from collections.abc import Iterator

from experiments.harness.recorder import Recorder


@contextlib.contextmanager
def tiny(mark: bool = True) -> Iterator[None]:
    """Within it the runs that begin are tiny ones, if `mark`."""
    before, Recorder.tiny = getattr(Recorder, "tiny", False), mark
    try:
        yield
    finally:
        Recorder.tiny = before


if __name__ == "__main__":
    sys.argv = sys.argv[2:]
    with tiny():
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
