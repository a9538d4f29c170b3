"""The smallest batch near the best rate, and what a measurement leaves that is stopped or fails."""

import dataclasses
import json
import os
import pathlib
import re
import subprocess

import jax
import pytest

from experiments import precision, throughput
from experiments.harness import command_line, runner
from experiments.throughput import (
    counting,
    gpu_page,
    measuring,
    rates,
    saturation,
    saved,
    token_programs,
    workloads,
)
from experiments.throughput.limits import NARROW, SQUARE, TRIAD, Limits
from experiments.throughput.saturation import Point

SCRIPT = pathlib.Path(__file__).parents[1] / "gpu_check.sh"


def points(program, by_batch, workload="CartPole-v1"):
    """Points with one repetition for a number, and with several for a list."""
    rates = {batch: found if isinstance(found, list) else [found] for batch, found in by_batch.items()}
    return [Point(workload, program, batch, found) for batch, found in rates.items()]


def test_saturation_is_the_smallest_batch_within_five_percent_of_the_best():
    # The wrong twins take the batch with the best rate, 4 096, or the first one of the list.
    (found,) = saturation.saturations(points("REINFORCE", {4096: 100.0, 64: 20.0, 1024: 95.0, 256: 94.9, 8192: 96.0}))
    assert (found.first, found.batch, found.rates, found.best_batch) == (1024, 1024, [95.0], 4096)
    assert not found.grows
    said = saturation.sentence(found)
    assert said == (
        "CartPole-v1, REINFORCE: --num-episodes 1024 of experiments.train is the smallest measured batch whose rate is "
        "within 5 % of the best one, in all repetitions."
    )


@pytest.mark.parametrize(
    ("rates", "bounds"),
    [
        # The wrong twin compares medians, and says 1 024 each time.
        ({64: [20.0, 21.0], 1024: [96.0, 98.0, 99.0], 4096: [99.0, 100.0, 101.0]}, "1,024"),
        ({64: [20.0, 21.0], 1024: [80.0, 98.0, 99.0], 4096: [99.0, 100.0, 101.0]}, "1,024 to 4,096"),
        # No batch surely is near the best rate, but the first one surely is not.
        ({64: [20.0, 21.0], 1024: [80.0, 98.0, 120.0], 4096: [80.0, 100.0, 125.0]}, "1,024 to 4,096"),
        ({64: [20.0, 21.0], 1024: [80.0, 100.0, 125.0], 4096: [60.0, 65.0, 70.0]}, "1,024"),
    ],
)
def test_repetitions_that_do_not_decide_are_said_to(rates, bounds):
    (found,) = saturation.saturations(points("REINFORCE", rates))
    assert saturation.bounds(found) == bounds and not found.grows
    assert ("repetitions differ too much" in saturation.sentence(found)) == ("to" in bounds)


def test_a_rate_that_still_grows_is_said_to_and_one_batch_says_nothing():
    found = saturation.saturations(points("rollout", {64: 1.0, 128: 2.0}) + points("REINFORCE", {64: 3.0}))
    (only,) = found
    assert only.program == "rollout" and only.grows and "a larger one may be faster" in saturation.sentence(only)
    assert saturation.cells(only) == ["CartPole-v1", "rollout", "128", *["2e-06 (2e-06 to 2e-06)"] * 2, "128"]


def test_workloads_are_kept_apart():
    found = saturation.saturations(points("rollout", {1: 1.0, 2: 1.0}) + points("rollout", {1: 1.0, 2: 9.0}, "maze"))
    assert [(one.workload, one.batch) for one in found] == [("CartPole-v1", 1), ("maze", 2)]


def measured(rate=2e6):
    return measuring.Measured([rate] * 2, 1.0, 1.0, 1.0, None, 1e-6)


LIMITS = Limits(products={NARROW: 1e12, SQUARE: 2e12}, bandwidths={TRIAD: 1e11})
FAKE = workloads.Workload(
    name=workloads.MAZE,
    unit="steps",
    programs=lambda batch: dict.fromkeys((workloads.BARE, workloads.ROLLOUT, workloads.ACTOR_CRITIC), None),
    counts={},
    updates=(workloads.ACTOR_CRITIC,),
    note="A workload without arrays.",
)


@pytest.fixture
def fake(monkeypatch, tmp_path):
    """A run whose programs are not compiled; `outcomes` are the rates, or the errors, of the programs in turn."""

    def start(outcomes, **options):
        answers = iter(outcomes)

        def measure(program, batch, seconds, repetitions):
            answer = next(answers)
            if isinstance(answer, BaseException):
                raise answer
            return measured(answer)

        monkeypatch.setattr(rates, "measure", measure)
        monkeypatch.setattr(throughput, "measure_limits", lambda tiny: LIMITS)
        monkeypatch.setattr(throughput, "make_workload", lambda name, config, tiny: FAKE)
        options = {"problems": (), "lanes": (2, 4), "json": tmp_path / "today.json", **options}
        config = dataclasses.replace(throughput.TINY, **options)
        return runner.execute("throughput", config, throughput.run, None, output_dir=tmp_path / "runs", tiny=True)

    return start


def test_the_saturation_is_in_the_report_and_in_the_file(fake, tmp_path):
    directory = fake([1e6, 2e6, 3e6, 1e6, 4e6, 3.1e6])
    summary = json.loads((directory / "summary.json").read_text())
    table = next(table for table in summary["tables"] if table["title"] == "Saturation")
    assert [line[2] for line in table["lines"]] == ["2", "4", "2"]
    (said,) = [note for note in summary["notes"] if "--num-episodes" in note]
    assert said.startswith(f"maze, {workloads.ACTOR_CRITIC}: --num-episodes 2 of experiments.train")
    content = saved.read(tmp_path / "today.json")
    assert content["complete"] and [one["batch"] for one in content["saturation"]] == [2, 4, 2]


def test_a_run_that_is_stopped_leaves_what_it_has_measured(fake, tmp_path):
    """The wrong twin writes its file at the end."""
    with pytest.raises(KeyboardInterrupt):
        fake([1e6, 2e6, KeyboardInterrupt()])
    content = saved.read(tmp_path / "today.json")
    assert not content["complete"] and list(content["rates"]) == [
        f"maze, {name}, 2" for name in (workloads.BARE, workloads.ROLLOUT)
    ]
    assert saved.read_limits(tmp_path / "today.json") == LIMITS
    page = gpu_page.write(tmp_path).read_text()
    assert "The measurement of maze was stopped before its end." in page and page.count("| maze |") == 2


def test_a_program_that_fails_leaves_the_others_and_the_run_fails_afterwards(fake, tmp_path):
    broken, exhausted = (jax.errors.JaxRuntimeError(text) for text in ("INTERNAL: no kernel", "RESOURCE_EXHAUSTED"))
    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL: no kernel"):
        fake([1e6, broken, 3e6, exhausted, 4e6, 5e6])
    assert len(saved.read(tmp_path / "today.json")["rates"]) == 4


def test_programs_are_chosen_and_come_in_their_order(fake, tmp_path):
    fake([1e6, 2e6, 3e6, 4e6], programs=(workloads.ACTOR_CRITIC, workloads.BARE))
    names = [one["program"] for one in saved.read(tmp_path / "today.json")["programs"]]
    assert names == [workloads.ACTOR_CRITIC, workloads.BARE] * 2


@pytest.mark.parametrize(
    ("chosen", "programs", "said"),
    [
        (("maze",), ("walk",), "--programs walk: must be among the programs of maze: environment, random actions; "),
        (("maze",), ("rollout", "RLOO"), "--programs RLOO: must be among the programs of maze: "),
        (("maze", "tokens"), ("RLOO",), "--programs RLOO: must be at least one of the programs of maze, environment,"),
    ],
)
def test_a_choice_that_measures_nothing_is_refused(chosen, programs, said):
    """The wrong twins leave out a name, or a workload, without a word."""
    with pytest.raises(runner.UsageError) as refused:
        throughput.Config(workloads=chosen, programs=programs).validate()
    assert str(refused.value).startswith(said)
    throughput.Config(workloads=("maze", "tokens"), programs=("rollout", "RLOO")).validate()


def test_the_names_of_the_programs_are_those_that_a_workload_has(monkeypatch):
    for module, name in ((counting, "pieces"), (token_programs, "count_of")):
        nothing = counting.Count(1.0, 1.0)
        pieces = counting.Pieces(*[nothing] * len(counting.Pieces._fields))
        monkeypatch.setattr(module, name, lambda *_, found=pieces if name == "pieces" else nothing, **__: found)
    names = token_programs.PROGRAMS
    tokens = token_programs.token_workload(token_programs.SMALL, 0, prompt=2, new=2)
    assert tuple(tokens.programs(2)) == names["tokens"]
    assert (
        tuple(workloads.window_workload("maze", (4,), 2, 0).programs(2)) == names["maze"] == names[workloads.BREAKOUT]
    )
    assert set(names) == set(throughput.WORKLOADS)


def test_limits_of_another_machine_are_refused_with_both_values(fake, tmp_path):
    """The wrong twin takes every file that has limits."""
    fake([1e6] * 6)
    today = tmp_path / "today.json"
    assert saved.limits_of_this_machine(today, tiny=True) == LIMITS
    with pytest.raises(runner.UsageError, match="today's: tiny was True, and is False today"):
        saved.limits_of_this_machine(today, tiny=False)
    other = tmp_path / "other.json"
    for name, value in {"device_kind": "NVIDIA H200", "device_count": 8, "matmul_precision": "tensorfloat32"}.items():
        content = json.loads(today.read_text())
        here, content["environment"][name] = content["environment"][name], value
        other.write_text(json.dumps(content))
        with pytest.raises(runner.UsageError, match=f"--limits .*: {name} was {value}, and is {here} today"):
            fake([], limits=other)


def test_a_page_is_of_one_machine_commit_and_kind_of_run(fake, tmp_path):
    fake([1e6] * 6)
    folder = tmp_path / "gpu"
    folder.mkdir()
    content = json.loads((tmp_path / "today.json").read_text())
    (folder / "a.json").write_text(json.dumps(content))
    (folder / "notes.json").write_text("[]")
    (folder / "part.json").write_text(json.dumps({"format": saved.FORMAT, "rates": {}}))
    page = gpu_page.write(folder).read_text()
    assert "because --json did not write them: notes.json, part.json." in page and "This is a tiny run" in page
    environment = content["environment"]
    for name, other in {
        "machine": {"environment": environment | {"device_kind": "NVIDIA H200"}},
        "commit": {"environment": environment | {"commit": "0123456789"}},
        "matmul precision": {"environment": environment | {"matmul_precision": "bfloat16"}},
        "tiny": {"tiny": False},
    }.items():
        (folder / "b.json").write_text(json.dumps(content | other))
        with pytest.raises(runner.UsageError, match=f"a.json and b.json must have the same {name}, which is .* in the"):
            gpu_page.write(folder)


@pytest.mark.parametrize("limits", [None, {}, {"products": {NARROW: 0}, "bandwidths": {"x": 1.0}}, {"products": 1}])
def test_limits_come_from_a_file_of_this_experiment(tmp_path, limits):
    (tmp_path / "other.json").write_text(json.dumps({"format": saved.FORMAT, "rates": {}, "limits": limits}))
    with pytest.raises(runner.UsageError, match=r"--limits .*other.json: must hold the limits"):
        throughput.Config(limits=tmp_path / "other.json").validate()


QUESTIONS = {"experiments.throughput": throughput, "experiments.precision": precision}
STUB = """#!/bin/bash
# In place of Python: it notes its arguments, and leaves the file that --json asks for.
printf '%s\\t' "$@" >> "$CALLS"
printf '\\n' >> "$CALLS"
while [ $# -gt 1 ]; do
    [ "$1" = --json ] && cp "$ANSWER" "$2"
    shift
done
"""


def test_the_commands_of_the_script_for_a_gpu_can_be_read(fake, tmp_path):
    """The script calls a stub instead of Python, so that its options are checked without a GPU."""
    fake([1e6] * 6)
    stub, calls, out = tmp_path / "stub", tmp_path / "calls", tmp_path / "a folder"
    stub.write_text(STUB)
    stub.chmod(0o755)
    settings = {"PYTHON": str(stub), "CALLS": str(calls), "ANSWER": str(tmp_path / "today.json")}
    parts = set(re.findall(r"^    (?:measure|part) (\w+) \d", SCRIPT.read_text(), re.MULTILINE))
    assert len(parts) == 6
    out.mkdir()
    left = [out / f"{name}.{ending}" for name in (*parts, "gpu") for ending in ("json", "txt")] + [out / "gpu.md"]
    for path in left:
        path.write_text("of an earlier run")
    subprocess.run(["bash", str(SCRIPT), str(out)], env=os.environ | settings, check=True, capture_output=True)
    assert not any(path.exists() and path.read_text() == "of an earlier run" for path in left)
    assert not (out / "maze.json").exists()
    commands = [line.split("\t")[1:-1] for line in calls.read_text().splitlines()]
    names = [command[0] for command in commands]
    assert names[:2] == ["experiments.throughput"] * 2 and names[-1] == "experiments.throughput.gpu_page"
    configs = []
    for module, *words in commands:
        if module == "pytest":
            files = [word for word in words if word.startswith("tests/")]
            assert len(files) > 2 and all((SCRIPT.parents[1] / file).exists() for file in files)
        elif module in QUESTIONS:
            found = command_line.parse(module, "A description.", QUESTIONS[module].Config, words)
            found.config.validate()
            configs.append(found.config)
    assert configs[0].batches[0] < max(configs[0].batches), "the first batch fits into the time in any case"
    assert configs[0].programs[0] == workloads.PLAIN and configs[1].limits == out / "cartpole.json"
    for config in configs[:2]:  # a part of the names would measure nothing
        assert len(config.programs) == 3
