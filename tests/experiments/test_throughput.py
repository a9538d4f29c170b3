"""The measurements measure what they say: live steps only, operations of every row, a process of its own."""

import dataclasses
import json
import os
import pathlib
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest

from experiments import throughput
from experiments.harness import runner
from experiments.throughput import (
    gpu_page,
    measuring,
    peer_tables,
    saved,
    solve,
    token_programs,
    workloads,
)
from experiments.throughput.limits import HALF, NARROW, SQUARE, TRIAD, Limits
from pgjax import environments, networks


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A tiny run, which is compared with an earlier run that was a thousand times as fast."""
    directory = tmp_path_factory.mktemp("results")
    name = f"maze, {workloads.ROLLOUT}, 2"
    earlier = {"format": saved.FORMAT, "rates": {name: [1e9, 2e9]}, "environment": saved.reports.environment()}
    (directory / "earlier.json").write_text(json.dumps(earlier))
    files = {"json": directory / "today.json", "compare": directory / "earlier.json"}
    config = dataclasses.replace(throughput.TINY, **files)
    return runner.execute("throughput", config, throughput.run, throughput.plot, output_dir=directory, tiny=True)


def test_every_number_is_in_the_table(finished):
    summary = json.loads((finished / "summary.json").read_text())
    rates = {row["variant"]: row["ours"] for row in summary["rows"] if row["quantity"] == "(b) 10⁶ live steps/s"}
    assert len(rates) == 3 and min(rates.values()) > 0
    limits = [row for row in summary["rows"] if row["quantity"].startswith("(c) limit")]
    assert len(limits) == 4 and min(row["ours"] for row in limits) > 0
    table = next(table for table in summary["tables"] if table["title"] == "Rates")
    assert [line[1] for line in table["lines"]] == [workloads.BARE, workloads.ROLLOUT, workloads.ACTOR_CRITIC]
    assert all(all(line) for line in table["lines"]), "every cell is filled"
    assert peer_tables.SKIPPED in summary["notes"]
    assert (finished / "throughput.png").exists() and (finished / "throughput_problems.png").exists()


def test_the_file_holds_everything_and_a_loss_is_flagged(finished):
    content = saved.read(finished.parent.parent / "today.json")
    assert {"environment", "config", "load", "limits", "programs", "bare", "peers"} <= set(content)
    assert len(content["rates"]) == 3 and all(len(rates) == 2 for rates in content["rates"].values())
    tables = json.loads((finished / "summary.json").read_text())["tables"]
    (line,) = next(table for table in tables if table["title"].startswith("Today beside"))["lines"]
    assert line[0] == f"maze, {workloads.ROLLOUT}, 2" and line[-1] == saved.LOSS


@pytest.mark.parametrize(
    ("earlier", "today", "verdict"),
    [
        ([5.0, 6.0], [4.0, 4.9], saved.LOSS),
        # The wrong twin compares medians alone.
        ([5.0, 6.0, 6.1], [4.0, 4.5, 5.1], saved.SAME),
        ([5.0, 6.0], [6.5, 7.0], saved.GAIN),
    ],
)
def test_a_loss_is_beyond_the_noise_of_both_runs(earlier, today, verdict):
    assert saved.judged(earlier, today) == verdict


def test_the_nearer_limit_is_the_one_that_takes_longer():
    limits = Limits(products={NARROW: 50.0, SQUARE: 100.0, HALF: 900.0}, bandwidths={TRIAD: 10.0})
    # 20 operations take 0.2 s in float32 (not at the rate of bfloat16), 1 byte takes 0.1 s.
    assert limits.share(2.5, 20.0, 1.0) == (pytest.approx(0.5), "arithmetic")
    assert limits.share(2.5, 20.0, 4.0) == (pytest.approx(1.0), "memory")


@pytest.mark.slow
def test_every_workload_is_measured_at_its_tiny_size(tmp_path):
    config = dataclasses.replace(throughput.TINY, workloads=throughput.WORKLOADS, problems=())
    finished = runner.execute("throughput", config, throughput.run, throughput.plot, output_dir=tmp_path, tiny=True)
    rows = json.loads((finished / "summary.json").read_text())["rows"]
    measured = [
        row["variant"] for row in rows if row["quantity"].startswith("(b) 10⁶ live") and ", 2 at once" in row["variant"]
    ]
    assert len(measured) == 4 + 3 + 3 + 3
    assert {row["quantity"] for row in rows} >= {
        "ratio of sampling",
        "ratio of an update",
        "(b) 10⁶ live steps/s, best",
    }


def test_the_page_of_a_gpu_shows_every_program(finished, tmp_path):
    (tmp_path / "maze.json").write_text((finished.parent.parent / "today.json").read_text())
    (tmp_path / "exactness.txt").write_text("....\n12 passed in 3.4s\n")
    (tmp_path / "kernel.txt").write_text("| 16 | 1 | 2 | 2.00 |\n\nthe kernel plays 2.00 times as many\n")
    page = gpu_page.write(tmp_path).read_text()
    assert "One kernel for CartPole-v1: the kernel plays 2.00 times as many.\n\n| 16 | 1 | 2 | 2.00 |" in page
    assert "products in these programs is 'highest'" in page and "stopped" not in page
    rows = [line for line in page.splitlines() if line.startswith("| maze")]
    assert len(rows) == 3 and "12 passed in 3.4s." in page and "CartPole-v1 was not measured" in page
    assert json.loads((tmp_path / "gpu.json").read_text())["runs"]["maze"]["rates"]
    gpu_page.write(tmp_path)  # it does not read its own file as a run


def test_the_script_for_a_gpu_has_no_error_of_syntax_and_keeps_to_eight_minutes():
    script = pathlib.Path(__file__).parents[1] / "gpu_check.sh"
    subprocess.run(["bash", "-n", str(script)], check=True)
    whole = script.read_text().partition("\nelse\n")[2]
    limits = [int(number) for number in re.findall(r"^    (?:measure|part) \w+ (\d+) ", whole, re.MULTILINE)]
    page = [int(number) for number in re.findall(r"^timeout -k 5 (\d+) .*gpu_page", script.read_text(), re.MULTILINE)]
    assert len(limits) == 5 and len(page) == 1
    # `timeout -k 5` gives a part that does not stop 5 s more.
    assert "timeout -s INT -k 5 " in script.read_text()
    assert sum(seconds + 5 for seconds in limits + page) <= 8 * 60


@pytest.mark.slow
def test_the_script_for_a_gpu_runs_anywhere_at_its_tiny_size(tmp_path):
    script = pathlib.Path(__file__).parents[1] / "gpu_check.sh"
    environment = os.environ | {"PYTHON": sys.executable}
    done = subprocess.run(
        ["bash", str(script), "--tiny", str(tmp_path)], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stdout + done.stderr
    page = (tmp_path / "gpu.md").read_text()
    assert "| maze | rollout | 2 |" in page and " passed in " in page


def child(solved=True, seconds=1.0):
    times = {"seconds": seconds, "learning_seconds": 0.2, "compile_seconds": 0.5, "evaluation_seconds": 0.25}
    return times | {"solved": solved, "updates": 9, "steps": 100}


@pytest.mark.parametrize(
    ("unsolved", "seconds", "verdicts"),
    [
        ((), 2.0, {"seeds": "agrees", "seconds from": "agrees", "seconds of": "agrees"}),
        ((), 7.0, {"seeds": "agrees", "seconds from": "not as expected", "seconds of": "agrees"}),
        # The wrong twin takes the median over those that solved.
        ((1,), 2.0, {"seeds": "not as expected", "seconds from": "not as expected", "seconds of": "not as expected"}),
    ],
)
def test_aims_are_met_by_all_seeds_or_missed(monkeypatch, tmp_path, unsolved, seconds, verdicts):
    pretend = lambda arguments, cache, optimise=True: child(arguments["seed"] not in unsolved, seconds)
    monkeypatch.setattr(solve, "solve_in_a_new_process", pretend)
    config = dataclasses.replace(throughput.TINY, seeds=3)
    with runner.Recorder("throughput", config, output_dir=tmp_path) as recorder:
        solve.time_to_solve(range(3), {}, recorder)
    rows = json.loads((recorder.directory / "summary.json").read_text())["rows"]
    for beginning, verdict in verdicts.items():
        row = next(row for row in rows if row["quantity"].startswith(f"(a) {beginning}"))
        assert row["verdict"].startswith(verdict)


@pytest.mark.slow
def test_a_new_process_learns_and_says_what_it_took(tmp_path):
    options = {"seed": 0, "hidden": (4,), "episodes": 2, "learning_rate": 0.01, "max_updates": 2}
    found = solve.solve_in_a_new_process(options, str(tmp_path))
    assert not found["solved"] and found["updates"] == 2 and 0 < found["score"] < 475
    assert found["seconds"] > found["compile_seconds"] + found["learning_seconds"] > 0
    assert any(tmp_path.iterdir()), "the compilation cache is where it was asked for"


def test_a_process_that_fails_says_why(tmp_path):
    with pytest.raises(RuntimeError, match=r"seed 3 failed(.|\n)*unexpected keyword argument 'colour'"):
        solve.solve_in_a_new_process({"seed": 3, "colour": 1}, str(tmp_path))


def test_padding_is_not_counted():
    """Random play lasts 22 steps on average: the wrong twin counts all 500 rows of every episode."""
    policy = networks.make_policy(environments.make("CartPole-v1"), hidden=())
    params = policy.init(jax.random.key(0), jnp.zeros(4))
    programs = workloads.cartpole_programs((), params, 0, 8)
    assert tuple(programs) == token_programs.PROGRAMS["CartPole-v1"]
    program = programs[workloads.BARE]
    _, num_steps, trajectory = jax.jit(program.run)(program.carry)
    assert num_steps == trajectory.alive.sum() and num_steps < trajectory.alive.size / 5


def test_a_repetition_calls_the_program_for_its_time_and_counts_its_steps():
    program = measuring.Program(run=lambda carry: (carry + 1, jnp.int32(7), ()), carry=jnp.zeros(()))
    running = measuring.Running(program, 1)
    rate = running.repeat(0.05)
    assert running.total > 7 and running.total % 7 == 0
    # It stops soon after 0.05 seconds, so that the steps give the rate.
    assert 0.05 * rate == pytest.approx(running.total, rel=0.5)
    assert program.carry == 0, "the first carry is not changed"


def test_the_operations_of_a_step_are_those_of_its_matrix_products():
    """Two operations for each weight, forward; as many for ∂W and for ∂x, which the first layer does not need."""
    hidden = (64, 64)
    policy = networks.make_policy(environments.make("CartPole-v1"), hidden=hidden)
    found = workloads.cartpole_counts(hidden, policy.init(jax.random.key(0), jnp.zeros(4)))
    sizes = lambda outputs: (4 * 64, 64 * 64, 64 * outputs)
    forward = lambda outputs: 2 * sum(sizes(outputs))
    gradient = lambda outputs: 3 * forward(outputs) - 2 * sizes(outputs)[0]
    plain, critic = (found[name].operations for name in throughput.rates.AIMS)
    bare = found[workloads.BARE].operations
    assert 0 < bare < 1000
    assert found[workloads.ROLLOUT].operations - bare == pytest.approx(forward(2), rel=0.05)
    assert plain - bare == pytest.approx(forward(2) + gradient(2), rel=0.05)
    # The fit computes the values too, so that its forward pass is counted once.
    assert critic - plain == pytest.approx(gradient(1), rel=0.05)
    # The rollout stores observation, action, reward and three masks; the gradient reads observation, action and weight.
    assert found[workloads.PLAIN].moved == (16 + 4 + 4 + 3) + (16 + 4 + 4)


def test_the_operations_of_a_token_grow_with_the_number_of_blocks():
    """The blocks are scanned, and the compiler counts a loop once: the wrong twin counts one block, however many."""
    count = lambda layers: token_programs.count_of(
        dataclasses.replace(token_programs.SMALL, layers=layers), params(layers), 8, gradient=False
    )
    small = token_programs.SMALL
    params = lambda layers: networks.make_language_model(dataclasses.replace(small, layers=layers)).init(
        jax.random.key(0)
    )
    one, three = count(1).operations, count(3).operations
    head = 2 * small.vocabulary * small.width
    assert three - head == pytest.approx(3 * (one - head), rel=0.01) and one > head


@pytest.mark.parametrize(
    "options",
    [
        {"batches": ()},
        {"batches": (0,)},
        {"workloads": ("chess",)},
        {"answers": (12,)},
        {"peers": pathlib.Path("no/such/python")},
        {"window": 0},
        {"max_updates": 0},
        {"learning_rate": 0.0},
        {"learning_rate": float("inf")},
        {"measure_seconds": float("inf")},
        {"measure_seconds": float("nan")},
        {"hidden": (-1,)},
        {"seed": -1},
    ],
)
def test_what_cannot_be_measured_is_refused(options):
    with pytest.raises(runner.UsageError, match="must be"):
        throughput.Config(**options).validate()


@pytest.mark.parametrize("content", ["", "[]", '{"format": 0, "rates": {}}', '{"format": 1}'])
def test_a_file_that_is_no_earlier_run_is_refused(tmp_path, content):
    (tmp_path / "earlier.json").write_text(content)
    with pytest.raises(runner.UsageError, match=r"--compare .*earlier.json"):
        throughput.Config(compare=tmp_path / "earlier.json").validate()
