"""The smallest batch near the best rate, and what a measurement leaves that is stopped or fails."""

import dataclasses
import json
import os
import pathlib
import subprocess

import jax
import pytest

from experiments import precision, throughput
from experiments.harness import command_line, runner
from experiments.throughput import gpu_page, measuring, rates, saturation, saved, workloads
from experiments.throughput.limits import NARROW, SQUARE, TRIAD, Limits
from experiments.throughput.saturation import Point

SCRIPT = pathlib.Path(__file__).parents[1] / "gpu_check.sh"


def points(program, by_batch, workload="CartPole-v1"):
    return [Point(workload, program, batch, rate) for batch, rate in by_batch.items()]


def test_saturation_is_the_smallest_batch_within_five_percent_of_the_best():
    # The wrong twins take the batch with the best rate, 4 096, or the first one of the list.
    (found,) = saturation.saturations(points("REINFORCE", {4096: 100.0, 64: 20.0, 1024: 95.0, 256: 94.9, 8192: 96.0}))
    assert (found.batch, found.rate, found.best_batch, found.best_rate) == (1024, 95.0, 4096, 100.0)
    assert not found.grows
    said = saturation.sentence(found)
    assert said == (
        "CartPole-v1, REINFORCE: --num-episodes 1024 of experiments.train is the smallest measured batch whose rate is "
        "within 5 % of the best one."
    )


def test_a_rate_that_still_grows_is_said_to_and_one_batch_says_nothing():
    found = saturation.saturations(points("rollout", {64: 1.0, 128: 2.0}) + points("REINFORCE", {64: 3.0}))
    (only,) = found
    assert only.program == "rollout" and only.grows and "a larger one may be faster" in saturation.sentence(only)
    assert saturation.cells(only) == ["CartPole-v1", "rollout", "128", "2e-06", "2e-06", "128"]


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
    fake([1e6, 2e6, 3e6, 4e6], programs=(workloads.ACTOR_CRITIC, workloads.PLAIN, workloads.BARE))
    names = [one["program"] for one in saved.read(tmp_path / "today.json")["programs"]]
    assert names == [workloads.ACTOR_CRITIC, workloads.BARE] * 2
    with pytest.raises(runner.UsageError, match="--programs walk: must be among"):
        throughput.Config(programs=("walk",)).validate()


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
    subprocess.run(["bash", str(SCRIPT), str(out)], env=os.environ | settings, check=True, capture_output=True)
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
        known = {*workloads.PROGRAMS, "RLOO"}
        assert set(config.programs) <= known and len(config.programs) == 3
