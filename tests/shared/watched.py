"""A process that loads files and tells how it went: outcome, seconds, memory, and whether code of a file ran.

The process may take one GiB more memory than it has before the first file. `Watched` starts it, ends it when a file
takes too long, and starts it anew when a file ends it.
"""

import json
import os
import pathlib
import re
import resource
import select
import signal
import subprocess
import sys
import time
from typing import Any, NamedTuple

ROOT = pathlib.Path(__file__).resolve().parents[2]
MOST_BYTES = 1 << 30
MOST_SECONDS = 5.0
# What no reader of data may do.
FORBIDDEN = (
    "pickle.find_class", "subprocess.Popen", "os.system", "os.exec", "os.fork", "os.posix_spawn", "socket.connect",
    "socket.bind", "socket.getaddrinfo", "urllib.Request", "webbrowser.open",
)  # fmt: skip
# Modules that readers of pgjax load themselves when they are first needed.
OWN = (
    "pgjax", "gymnax", "jax", "jaxlib", "flax", "numpy", "h5py", "encodings", "optax", "chex", "experiments",
    "zoneinfo", "_strptime", "_bisect", "bisect", "difflib", "msgpack", "ml_dtypes", "unicodedata", "_tokenize",
    "tokenize", "gymnasium", "farama_notifications",
)  # fmt: skip


class Report(NamedTuple):
    """How the loading of one file went.

    Attributes:
        outcome: "refused", "loaded", "raised", "hung" or "died".
        told: the error, or the fingerprint of what was loaded.
        seconds: the time; of the processor, but the wall time of a process that did not answer.
        mebibytes: the largest memory above that before the file.
        ran: what the file made the process do that no reader may do.
    """

    outcome: str
    told: str
    seconds: float
    mebibytes: float
    ran: tuple[str, ...]


class Watched:
    """The process that loads.

    Args:
        kinds: the module whose `KINDS` it loads.
        patience: the seconds in which it has to answer; a machine may be busy with other things, too.
    """

    def __init__(self, kinds: str = "damaged_kinds", patience: float = 6 * MOST_SECONDS) -> None:
        self._kinds, self._patience = kinds, patience
        self._process: subprocess.Popen | None = None

    def load(self, kind: str, path: pathlib.Path) -> Report:
        process = self._process or self._start()
        assert process.stdin is not None and process.stdout is not None
        began = time.perf_counter()
        process.stdin.write(json.dumps([kind, str(path)]) + "\n")
        process.stdin.flush()
        ready, _, _ = select.select([process.stdout], [], [], self._patience)
        line = process.stdout.readline() if ready else ""
        seconds = time.perf_counter() - began
        if line:
            return Report(*(tuple(value) if isinstance(value, list) else value for value in json.loads(line)))
        self.close()
        if ready:
            return Report("died", f"exit code {process.returncode}", seconds, 0.0, ())
        return Report("hung", f"no answer in {seconds:.0f} s", seconds, 0.0, ())

    def _start(self) -> subprocess.Popen:
        path = os.pathsep.join([str(ROOT), str(ROOT / "tests" / "shared"), os.environ.get("PYTHONPATH", "")])
        environment = os.environ | {"PYTHONPATH": path, "JAX_PLATFORMS": "cpu"}
        command = [sys.executable, __file__, self._kinds]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, cwd=ROOT
        )
        assert self._process.stdout is not None
        if self._process.stdout.readline().strip() != "ready":
            raise RuntimeError("the process that loads files did not start")
        return self._process

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout):
                if pipe is not None:
                    pipe.close()
            self._process = None


def _memory(name: str) -> int:
    return 1024 * int(re.search(rf"{name}:\s+(\d+)", pathlib.Path("/proc/self/status").read_text())[1])  # type: ignore


class _Events:
    """What happens while a file is loaded."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.on = False
        sys.addaudithook(self._hear)

    def _hear(self, event: str, arguments: tuple) -> None:
        if not self.on:
            return
        if event in FORBIDDEN:
            self.seen.append(f"{event} {arguments!r}"[:200])
        elif event == "import" and self._is_foreign(str(arguments[0])):
            self.seen.append(f"import {arguments[0]}")

    def _is_foreign(self, module: str) -> bool:
        known = module in sys.modules or module in sys.builtin_module_names
        return not known and module.partition(".")[0] not in OWN


def _answer(kinds: Any, kind: str, path: pathlib.Path, events: _Events) -> list[Any]:
    pathlib.Path("/proc/self/clear_refs").write_text("5")
    before, began = _memory("VmRSS"), time.process_time()
    events.seen.clear()
    events.on = True
    try:
        outcome, told = "loaded", kinds[kind].load(path)
    except ValueError as error:
        outcome, told = "refused", str(error)
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        outcome, told = "raised", f"{type(error).__name__}: {error}"
    events.on = False
    seconds = time.process_time() - began
    mebibytes = (_memory("VmHWM") - before) / 2**20
    return [outcome, told, seconds, max(0.0, mebibytes), events.seen[:5]]


def main() -> None:
    """Answer one line for each line of the standard input."""
    import importlib
    import tempfile

    kinds = importlib.import_module(sys.argv[1]).KINDS
    answers, sys.stdout = sys.stdout, sys.stderr
    with tempfile.TemporaryDirectory() as folder:
        for name, kind in kinds.items():  # the imports and caches of the first use
            kind.load(kind.make(pathlib.Path(folder) / name))
    most = _memory("VmSize") + MOST_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    events = _Events()
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        kind, path = json.loads(line)
        print(json.dumps(_answer(kinds, kind, pathlib.Path(path), events)), file=answers, flush=True)


if __name__ == "__main__":
    main()
