"""A mistyped command line gets one sentence with the right form, and long help begins with what most people need."""

import dataclasses
import pathlib
import re
import subprocess
import sys
from typing import Annotated, Literal

import pytest
import tyro

from experiments import __main__ as listing
from experiments import gradient_lab, sweep, train
from experiments.harness import command_line, mistyped, runner

ROOT = pathlib.Path(__file__).resolve().parents[2]


def refused(module, words, capsys):
    with pytest.raises(SystemExit) as stop:
        runner.start(module, arguments=words.split())
    said = capsys.readouterr()
    assert stop.value.code == 2 and said.out == ""
    (line,) = said.err.splitlines()
    return line


@pytest.mark.parametrize(
    ("module", "words", "right"),
    [
        (train, "--sed 3", "--sed: there is no such option; did you mean --seed?"),
        (train, "-seed 3", "did you mean --seed?"),
        (train, "--num_seds 3", "did you mean --num-seeds"),
        (train, "--estimators a,b", "python -m experiments.sweep --estimators NAME NAME"),
        (train, "--estimator a,b", "python -m experiments.sweep --estimators NAME NAME"),
        (train, "--estimator rloo gae", "python -m experiments.sweep --estimators NAME NAME"),
        (train, "--lr 0.1,0.2", "type --lr 0.1 0.2"),
        (train, "--hidden=64,64", "type --hidden 64 64"),
        (train, "--figures pdf,svg", "type --figures pdf svg"),
        (train, "--lr a,b", "--lr a,b: must be a number"),
        (train, "--seed abc", "--seed abc: must be a whole number"),
        (train, "--network conf", "did you mean conv?"),
        (train, "--cache True", "type --cache or --no-cache"),
        (train, "CartPole-v1", "an option must stand before its value"),
        (train, "--env", "--env: needs one value"),
        (sweep, "--estimators rloo,gae", "--estimators: no estimator is called 'rloo,gae'; names have spaces"),
        (sweep, "--lr 0.1,0.2", "type --vary lr=0.003,0.01"),
        (sweep, "--vary lr=0.1 0.2", "--vary lr=0.1 0.2: takes one value"),
        (gradient_lab, "--seeds 3", "did you mean --seed?"),
    ],
)
def test_one_sentence_says_the_right_form(module, words, right, capsys):
    assert right in refused(module, words, capsys)


def test_words_that_are_right_are_not_blamed():
    forms = {
        "lr": mistyped.form(tuple[float, ...] | None),
        "vary": mistyped.form(Annotated[tuple[str, ...], tyro.conf.UseAppendAction]),
        "cache": mistyped.form(bool),
        "network": mistyped.form(Literal["mlp", "gru"] | None),
        "seed": mistyped.form(int),
    }
    words = [
        "--lr",
        "0.1",
        "-2e-3",
        "--vary",
        "a=1,2",
        "--vary",
        "b=3",
        "--no-cache",
        "--network",
        "None",
        "--seed=4",
        "--help",
    ]
    assert mistyped.sentence(words, forms, {}) is None


@pytest.mark.parametrize(
    ("arguments", "right"),
    [
        (["-m", "experiments.trian"], "did you mean python -m experiments.train?"),
        (["-m", "experiments.four-rooms"], "did you mean python -m experiments.four_rooms?"),
        (["-m", "experiments.xyzzy"], "python -m experiments lists all"),
    ],
)
def test_a_question_that_does_not_exist_is_not_a_riddle(arguments, right):
    ended = subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 2 and right in ended.stderr and len(ended.stderr.splitlines()) == 1


def test_the_list_knows_what_was_meant(capsys):
    for word, right in {"trian": "python -m experiments.train?", "runz": "python -m experiments runs?"}.items():
        with pytest.raises(SystemExit):
            listing.main([word])
        assert right in capsys.readouterr().err


NEEDED = ["--env", "--num-updates", "--num-episodes", "--num-seeds", "--seed", "--output-dir", "--run-name", "--tiny"]


@pytest.mark.parametrize(("module", "more"), [(train, ["--lr", "--estimator"]), (sweep, ["--estimators", "--vary"])])
def test_the_first_screen_has_what_most_people_need(module, more, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        runner.start(module, arguments=["--help"])
    lines = capsys.readouterr().out.splitlines()
    first = "\n".join(lines[:64])
    assert [option for option in NEEDED + more if option not in first] == []
    assert next(i for i, line in enumerate(lines) if "learning options" in line) < 64
    found = [re.fullmatch(r"\W*((?:\w+ )?options)\W*", line) for line in lines]
    headings = [match[1] for match in found if match]
    names = ("learning", "estimator", "network", "evaluation")
    assert headings[:5] == ["options", *(f"{name} options" for name in names)]
    assert headings[-1] == "general options"
    shown = "\n".join(lines)
    fields = [field.name for field in dataclasses.fields(module.Config) if field.name != "typed"]
    fields += ["devices", "cache", "dry_run", "debug_nans", "figures", "figure_width"]
    options = {"--" + name.rstrip("_").replace("_", "-") for name in fields}
    listed = {match[1] for line in lines if (match := re.match(r"\W*?(--[a-z-]+)", line))}
    assert options - listed == set()
    assert shown.index("general options") < shown.index("Departs")


def test_groups_change_no_value():
    words = [
        "--env",
        "maze",
        "--lr",
        "0.1",
        "0.2",
        "--seed",
        "7",
        "--devices",
        "2",
        "--figures",
        "pdf",
        "--run-name",
        "a",
        "--lambda",
        "0.9",
        "--no-gif",
    ]
    read = command_line.parse("train", train.__doc__, train.Config, words, tiny=train.TINY)
    wanted = train.Config(env="maze", lr=(0.1, 0.2), seed=7, lambda_=0.9, gif=False)
    assert dataclasses.replace(read.config, typed=()) == wanted
    assert set(read.config.typed) == {"env", "lr", "seed", "lambda_", "gif"}
    assert (read.devices, read.run_name, read.paper.formats) == (2, "a", ("pdf",))
