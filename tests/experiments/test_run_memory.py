"""Before a run: --dry-run prints what would run, and a run that does not fit is refused with the batch that would."""

import dataclasses
import math
import pathlib
import subprocess
import sys
import types
from typing import ClassVar

import jax
import pytest

from experiments import train
from experiments.harness import memory, runner
from experiments.shared.training import sizing

ROOT = pathlib.Path(__file__).resolve().parents[2]
FILE, DESCRIPTION = "/somewhere/toy.py", "A toy.\n\nClaim: it fits."


@dataclasses.dataclass(frozen=True)
class Config:
    batch_size: int = 4
    """The batch."""
    several: tuple[int, ...] = (1, 2)
    """Several numbers."""
    BATCH: ClassVar[str] = "batch_size"

    def memory(self):
        if self.batch_size % 2:
            raise ValueError("--batch-size: must be even")
        return {"parameters": 1e9, "episodes": 1e6 * self.batch_size}


def run(config, recorder):
    raise AssertionError("nothing may run")


def main(*arguments, folder, of=Config):
    runner.main(FILE, DESCRIPTION, of, run, arguments=["--output-dir", str(folder / "out"), *arguments])


@pytest.fixture(autouse=True)
def free(monkeypatch):
    monkeypatch.setattr(memory, "available", lambda: 20e9)
    monkeypatch.setattr(memory, "_of_process", lambda name: 0.0)


def test_a_dry_run_prints_the_options_and_the_memory_and_leaves_nothing(tmp_path, capsys):
    main("--dry-run", "--batch-size", "200", folder=tmp_path)
    lines = capsys.readouterr().out.splitlines()
    assert lines[:3] == ["--batch-size 200", "--several 1 2", "memory: about 2 GB, and 20 GB are available"]
    assert lines[3:] == [
        "  Python, JAX and the compiled program, beside what is loaded: 800 MB",
        "  parameters: 1 GB",
        "  episodes: 200 MB",
    ]
    assert not list(tmp_path.iterdir())


def test_a_run_that_does_not_fit_is_refused_with_the_batch_that_would(tmp_path, capsys):
    for more in ([], ["--dry-run"]):
        with pytest.raises(SystemExit) as end:
            main("--batch-size", "1000000", *more, folder=tmp_path)
        (line,) = capsys.readouterr().err.splitlines()
        assert end.value.code == 2 and not list(tmp_path.iterdir())
        assert line.endswith(
            "error: --batch-size 1000000: needs about 1 TB of memory, and 20 GB are available; "
            "--batch-size 16384 would fit"
        )


def test_parts_that_do_not_fit_each_other_are_refused_and_named(tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        main("--batch-size", "3", "--dry-run", folder=tmp_path)
    assert end.value.code == 2 and "--batch-size: must be even" in capsys.readouterr().err


def test_without_a_batch_that_fits_the_largest_part_is_named(monkeypatch):
    monkeypatch.setattr(memory, "available", lambda: 1e9)
    with pytest.raises(runner.UsageError, match="no --batch-size would fit; the largest part: parameters, 1 GB"):
        memory.require_fitting(Config(), memory.estimate(Config()))


def test_an_experiment_without_an_estimate_says_so(tmp_path, capsys):
    bare = dataclasses.make_dataclass("Bare", [("steps", int, 3)], frozen=True)
    main("--dry-run", folder=tmp_path, of=bare)
    assert capsys.readouterr().out.splitlines() == ["--steps 3", "memory: this experiment gives no estimate"]


@dataclasses.dataclass(frozen=True)
class Counted:
    runs: int = 2000
    """Runs."""
    hidden: tuple[int, ...] = (64, 32)
    """Widths."""
    seed: int = 0
    """Seed."""
    most: int | None = None
    """No default."""


@pytest.mark.parametrize(
    ("option", "value", "most"), [("runs", 2_000_001, 2_000_000), ("hidden", (8, 1_000_001), 1_000_000)]
)
def test_counts_that_must_be_typing_errors_are_refused(option, value, most):
    with pytest.raises(runner.UsageError, match=f"--{option} .*: must be at most {most}, a thousand times"):
        memory.require_moderate(Counted(**{option: value}))


def test_counts_up_to_their_bound_and_seeds_are_allowed():
    memory.require_moderate(Counted(runs=2_000_000, hidden=(1_000_000,), seed=2**30, most=2**30))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits of Linux")
def test_an_allocation_beyond_the_machine_fails_and_does_not_kill_the_process():
    program = (
        "import numpy as np\n"
        "from experiments.harness import memory\n"
        "memory._meminfo = lambda name, file='': 2e8 if name != 'SwapFree' else 0\n"
        "memory.limit_to_machine()\n"
        "try:\n    np.ones(10**8)\nexcept MemoryError as error:\n    print(memory.is_exhausted(error))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "True\n", done.stderr


@pytest.mark.parametrize(("number", "text"), [(1.8e9, "1.8 GB"), (5e3, "5 kB"), (math.inf, "8 EB or more")])
def test_bytes_are_written_with_three_digits(number, text):
    assert memory.in_words(number) == text


AVAILABLE = memory.available  # the fixture `free` replaces it


@pytest.mark.parametrize(("on_devices", "expected"), [(104e9, 104e9), (8e9, 8e9), (None, 24e9)])
def test_arrays_lie_on_accelerators_if_there_are_any(monkeypatch, on_devices, expected):
    """The wrong twin takes the least of all memories: a host with 24 GB would refuse what a GPU with 104 GB holds."""
    monkeypatch.setattr(memory, "_meminfo", lambda name, file="": 24e9)
    monkeypatch.setattr(memory, "_of_group", lambda: None)
    monkeypatch.setattr(memory, "_of_devices", lambda: on_devices)
    assert AVAILABLE() == expected


def test_the_memory_of_accelerators_is_what_jax_may_use_and_has_not_used(monkeypatch):
    def device(kind, **stats):
        return types.SimpleNamespace(platform=kind, memory_stats=lambda: stats or None)

    free = lambda *devices: monkeypatch.setattr(jax, "local_devices", lambda: list(devices)) or memory._of_devices()
    two = device("gpu", bytes_limit=100, bytes_in_use=30), device("gpu", bytes_limit=100)
    assert free(*two) == 170 and free(device("cpu", bytes_limit=1)) is None and free(device("gpu")) is None


def test_the_limit_of_a_control_group_counts_and_its_cached_files_do_not(tmp_path, monkeypatch):
    (tmp_path / "memory.max").write_text("3000\n")
    (tmp_path / "memory.current").write_text("1500\n")
    (tmp_path / "memory.stat").write_text("anon 900\ninactive_file 500\n")
    monkeypatch.setattr(memory, "_groups", lambda: [tmp_path / "absent", tmp_path])
    assert memory._of_group() == 2000
    (tmp_path / "memory.max").write_text("max\n")
    assert memory._of_group() is None


def test_the_estimate_of_a_training_does_not_grow_with_its_length():
    total = lambda updates: sum(
        sizing.memory(train.resolve(train.Config(env="corridor", num_updates=updates))).values()
    )
    assert total(10**6) == total(2 * 10**8)


def test_what_the_process_has_taken_is_not_asked_for_again(monkeypatch):
    taken = lambda rss: monkeypatch.setattr(memory, "_of_process", lambda name: rss)
    config = types.SimpleNamespace(memory=lambda: {"arrays": 1e6})
    taken(0.3e9)
    assert sum(memory.estimate(config).values()) == memory.PROGRAM - 0.3e9 + 1e6
    taken(2e9)
    assert sum(memory.estimate(config).values()) == 1e6
