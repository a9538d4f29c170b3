"""A sample of the generated command lines and calls, and the judge that must see what is wrong."""

import random

import generated_calls
import generated_commands
import generated_input
import jax.numpy as jnp
import pytest

import pgjax
from pgjax import returns


def faults(outcomes):
    return [(outcome[0], outcome[1], outcome.fault, outcome.said[-200:]) for outcome in outcomes if outcome.fault]


def test_command_lines_are_accepted_or_refused_in_one_line():
    found = generated_input.command_outcomes(seed=5, commands=40, processes=0)
    assert not faults(found)
    assert {outcome.code for outcome in found} == {0, 2}


def test_calls_return_or_raise_a_readable_error(monkeypatch):
    chosen = {name: f for name, f in generated_calls.public_functions().items() if name.startswith("pgjax.returns")}
    monkeypatch.setattr(generated_calls, "public_functions", lambda: chosen)
    found = generated_input.call_outcomes(seed=5, calls=45)
    assert len(found) >= 45 and not faults(found)
    assert any(outcome.said for outcome in found) and not all(outcome.said for outcome in found)


def test_every_room_has_functions_that_are_called():
    names = generated_calls.public_functions()
    assert len(names) > 300
    rooms = {name.split(".")[1] for name in names}
    assert set(pgjax._MODULES) - rooms <= {"types", "saving"}


def test_the_judge_sees_errors_from_the_depths():
    wrong = {
        "AttributeError": lambda x: x.nothing,
        "TypeError from the depths": lambda x: jnp.ones(3) + jnp.ones(4),
        "ValueError from the depths": lambda x: int("x"),
    }
    for fault, function in wrong.items():
        assert generated_calls.call("f", function, {"x": 1}, "").fault == fault
    assert generated_calls.call("f", returns.total_return, {"rewards": "x"}, "").fault == ""


@pytest.mark.parametrize(
    ("code", "said", "left", "fault"),
    [
        (1, "Traceback (most recent call last):", set(), "traceback"),
        (1, "oops", set(), "exit code 1"),
        (2, "error: it failed", set(), "the refusal names neither option nor value"),
        (2, "error: --seed 3\nand more", set(), "the refusal has several lines"),
        (2, "error: --seed 3: must be less", {"results"}, "left behind: ['results']"),
        (2, "error: --seed 3: must be less", set(), ""),
    ],
)
def test_the_judge_sees_bad_refusals(code, said, left, fault):
    assert generated_commands._judged("e", ["--seed", "3"], code, 0.1, "", said, left).fault == fault


def test_the_same_seed_gives_the_same_command_lines():
    config = generated_commands.questions()["gradient_lab"].Config
    lines = [[generated_commands.generate(random.Random(s), config, has_tiny=True) for s in range(20)] for _ in "ab"]
    assert lines[0] == lines[1]


@pytest.mark.slow
def test_thousands_of_command_lines_and_calls():
    assert not faults(generated_input.command_outcomes(seed=0, commands=2000, processes=60))
    assert not faults(generated_input.call_outcomes(seed=0, calls=10_000))
