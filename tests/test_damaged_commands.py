"""A damaged file on a command line: one line that names the file, exit code 2, and nothing left behind."""

import importlib
import json
import shutil

import damaged_by_hand
import damaged_tensors
import jax
import pytest
from damaged_kinds import KINDS

from experiments import preferences
from experiments.harness import records, runner

BY_HAND = damaged_by_hand.DAMAGES
POLICIES = (
    "empty", "half", "a pickle", "missing", "sealed: env 'http.server:test'", "sealed: env 5", "sealed: θ is NaN",
    "sealed: hidden [-1]", "sealed: θ is large float64", "sealed: n of 1e400",
)  # fmt: skip
SETS = ("empty", "half", "external link", "external raw storage", "observations NaN", "chunks that were never written")
# Option → the experiment, its other options, the kind of the file, and damages of it.
COMMANDS = {
    "train --render": ("train", ["--no-gif"], "policy", POLICIES),
    "gradient_lab --checkpoint": ("gradient_lab", [], "policy", POLICIES),
    "rlhf --policy": ("rlhf", ["--tiny"], "policy", (*POLICIES[:4], "sealed: no arguments")),
    "imitation --dataset": ("imitation", ["--problem", "cartpole"], "npz", ("empty", "a bomb of 2.6 GB", "objects")),
    "imitation --dataset (folder)": ("imitation", ["--problem", "cartpole"], "foreign HDF5", SETS),
    "rlhf --preferences": ("rlhf", ["--tiny"], "JSON lines", ("half a line", "deep", "not UTF-8", "margin NaN")),
    "pretraining --text": ("pretraining", ["--tiny"], "documents", ("half a line", "deep", "not UTF-8", "no text")),
    "spell_backward --words": ("spell_backward", ["--tiny"], "text", ("UTF-16", "a folder", "missing")),
    "real_model --model": (
        "real_model",
        ["--tiny"],
        "GGUF",
        ("half", "2⁶³ tensors", "NaN", "millions of empty strings"),
    ),
}
QUICK = {"train --render": 2, "imitation --dataset (folder)": 2, "spell_backward --words": 1}


def refused(capsys, call):
    """The line on the standard error of a call that ends with exit code 2."""
    with pytest.raises(SystemExit) as left:
        call()
    error = capsys.readouterr().err
    assert left.value.code == 2 and "Traceback" not in error, error
    lines = [line for line in error.splitlines() if line.strip()]
    assert len(lines) <= 8 and len(error) < 3000, error
    return error


def require_refused(tmp_path, capsys, command, damage):
    name, others, kind, _ = COMMANDS[command]
    path = KINDS[kind].make(tmp_path / "file")
    BY_HAND[kind][damage](path)
    option = command.split()[1]
    question = importlib.import_module(f"experiments.{name}")
    arguments = [option, str(path), *others, "--output-dir", str(tmp_path / "results")]
    error = refused(capsys, lambda: runner.start(question, arguments=arguments, cache=False))
    assert path.name in error
    assert not [left for left in (tmp_path / "results").rglob("*") if left.is_file()]


CASES = [(command, damage) for command, (*_, damages) in COMMANDS.items() for damage in damages]
SAMPLE = [(command, damage) for command, count in QUICK.items() for damage in COMMANDS[command][3][:count]]


@pytest.mark.parametrize(("command", "damage"), SAMPLE)
def test_a_damaged_file_ends_a_command_with_one_line(tmp_path, capsys, command, damage):
    require_refused(tmp_path, capsys, command, damage)


@pytest.mark.slow
@pytest.mark.parametrize(("command", "damage"), CASES)
def test_every_damaged_file_ends_a_command_with_one_line(tmp_path, capsys, command, damage):
    require_refused(tmp_path, capsys, command, damage)


OPTIONS = ("", "null", "[]", "{}", "[" * 5000, '{"seed": "x"}', '{"unknown": 1}', '{"kl_coefs": [NaN]}', '{"pairs": 5}')


@pytest.mark.parametrize("text", OPTIONS)
@pytest.mark.parametrize("name", ["rlhf", "papers", "real_model"])
def test_damaged_options_of_a_resumed_run_are_refused(tmp_path, capsys, name, text):
    run = tmp_path / "results" / name / "one-incomplete"
    run.mkdir(parents=True)
    for file in ("options.json", "config.json"):
        (run / file).write_text(text)
    (run / "state.safetensors").write_bytes(b"")
    question = importlib.import_module(f"experiments.{name}")
    arguments = ["--resume", str(run), "--output-dir", str(tmp_path / "results")]
    if (name, text) in (("rlhf", "{}"), ("real_model", "{}"), ("real_model", '{"pairs": 5}')):
        pytest.skip("these options are valid: those that are missing have their default")
    refused(capsys, lambda: runner.start(question, arguments=arguments, cache=False))


@pytest.mark.parametrize("text", ["", "null", "{}", "[" * 5000, '{"rows": 5, "status": [1]}', '{"seconds": 1e999}'])
def test_damaged_runs_are_listed_and_compared(tmp_path, capsys, text):
    path = KINDS["run"].make(tmp_path)
    shutil.copytree(path, path.with_name("two"))
    for name in ("summary.json", "environment.json", "config.json", "metrics.jsonl"):
        (path / name).write_text(text)
    results = ["--output-dir", str(tmp_path / "results")]
    records.main("runs", results)
    records.main("compare", ["toy/one", "toy/two", *results])
    assert "damaged" in capsys.readouterr().out


def test_a_name_in_a_log_is_no_formula(tmp_path, capsys):
    path = KINDS["run"].make(tmp_path)
    (path / "metrics.jsonl").write_text("".join(json.dumps({"update": n, r"$\frac{": n}) + "\n" for n in range(3)))
    shutil.copytree(path, path.with_name("two"))
    records.main("compare", ["toy/one", "toy/two", "--output-dir", str(tmp_path / "results")])
    assert "curves:" in capsys.readouterr().out


@pytest.mark.parametrize("damage", BY_HAND["pairs"])
def test_damaged_pairs_are_refused(tmp_path, capsys, damage):
    path = KINDS["pairs"].make(tmp_path)
    BY_HAND["pairs"][damage](path)
    arguments = ["collect", "--pairs", str(path), "--labels", str(tmp_path / "labels.jsonl")]
    assert path.name in refused(capsys, lambda: preferences.main(arguments))


def test_a_policy_of_another_generator_of_numbers_is_refused(tmp_path):
    """The keys of a state are those of their own generator only."""
    path = KINDS["checkpoint"].make(tmp_path)
    damaged_tensors.CHECKPOINT["sealed: other generator"](path)
    with pytest.raises(ValueError, match=r"state\.safetensors"):
        KINDS["checkpoint"].load(path)
    assert jax.random.key_impl(jax.random.key(0)) == "threefry2x32"
