"""The rules by which a published number is judged, and the list of papers."""

import dataclasses
import json

import pytest

from experiments import _papers as papers
from experiments import _runner as runner
from experiments._papers import Above, Digits, Measured, Near, Target, Within


@pytest.mark.parametrize(
    ("rule", "published", "ours", "verdict"),
    [
        (Digits(), "−11.657", Measured(-11.65685), "agrees"),
        (Digits(), "−11.6", Measured(-11.65685), "differs"),  # cut off, not rounded
        (Digits(), "20", Measured(20.4), "agrees"),
        (Digits(), "20", Measured(20.6), "differs"),
        (Digits(), "1.0", Measured(1.06), "differs"),
        (Within(3), "0.53", Measured(0.55, 0.006), "agrees"),
        (Within(3), "0.53", Measured(0.55, 0.004), "differs"),
        (Within(3, published_stderr=0.006), "0.53", Measured(0.55, 0.004), "agrees"),
        (Within(3, published_stderr=None), "0.53", Measured(0.55, 0.005), "agrees"),
        (Within(3, published_stderr=None), "0.53", Measured(0.57, 0.005), "differs"),
        (Near(0.1), "−1", Measured(-1.09), "agrees"),
        (Near(0.1), "−1", Measured(-0.89), "differs"),
        (Digits(), "1", Measured(float("nan")), "differs"),
        (Near(9.0), "1", Measured(float("nan")), "differs"),
        (Within(9), "1", Measured(float("nan"), 1.0), "differs"),
    ],
)
def test_a_published_number_is_judged_by_its_rule(rule, published, ours, verdict):
    assert papers.judge(Target("x", "x", rule, published, "text"), ours) == verdict


def test_an_ordering_holds_by_standard_errors():
    target = Target("x", "x", Above(errors=3), provenance="text")
    assert papers.judge(target, Measured(0.31, 0.1)) == "holds"
    assert papers.judge(target, Measured(0.29, 0.1)) == "fails"
    assert papers.judge(target, Measured(float("nan"), 0.1)) == "fails"
    assert papers.judge(Target("x", "x", Above(30.0)), Measured(30.1)) == "holds"


def test_being_wrong_is_not_excused_by_agreeing_with_the_paper():
    target = Target("x", "x", Digits(), "1.0", "text", exact=1.0)
    assert papers.judge(target, Measured(1.01)) == "differs from the exact value"
    assert papers.judge(target, Measured(1.01, 0.01)) == "agrees"
    assert papers.judge(target, Measured(1.01, exact=1.01)) == "agrees"
    assert papers.judge(Target("x", "x", Digits(), exact=1.0), Measured(1.0 + 1e-12)) == "agrees"
    assert papers.judge(Target("x", "x", Digits(), exact=1.0), Measured(1.0 + 1e-6)) != "agrees"
    with pytest.raises(ValueError, match="neither a published nor an exact"):
        papers.judge(Target("x", "x", Digits()), Measured(1.0))
    with pytest.raises(ValueError, match="without a standard error"):
        papers.judge(Target("x", "x", Within(), "1", "text"), Measured(1.0))


PAPER = papers.Paper(
    citation="Nobody 2021",
    claim="Everything is fine.",
    targets=(
        Target("value", "v*", Digits(), "−11.6", "text", headline=True, why="It is cut off."),
        Target("lost", "gap", Digits(), "0.1", "mem"),
        Target("order", "a − b", Above(), provenance="text"),
    ),
    pitfalls=("The last reward is forgotten.",),
)


def run(config, recorder):
    papers.check(recorder, PAPER, {"value": Measured(-11.65685), "order": Measured(2.0, 0.1)})


def test_every_target_gets_a_row_and_every_difference_its_reason(tmp_path):
    directory = runner.execute("nobody", None, run, output_dir=tmp_path)
    summary = json.loads((directory / "summary.json").read_text())
    assert [row["verdict"] for row in summary["rows"]] == ["differs", papers.NOT_MEASURED, "holds"]
    assert summary["rows"][0]["paper"] == -11.6 and summary["rows"][0]["provenance"] == "text"
    assert summary["notes"] == ["v*: differs. It is cut off.", "The last reward is forgotten."]
    described = json.loads((directory / "paper.json").read_text())
    assert described["headline"][0] == {"quantity": "v*", "published": "−11.6", "ours": "-11.657", "verdict": "differs"}


def test_a_number_that_nobody_asked_for_is_an_error():
    with pytest.raises(ValueError, match="no target is called speed"):
        papers.check(None, PAPER, {"speed": Measured(1.0)})
    with pytest.raises(ValueError, match="keys must differ"):
        papers.Paper("x", "y", (PAPER.targets[0], PAPER.targets[0]))


@dataclasses.dataclass(frozen=True)
class Sizes:
    runs: int = 20
    full: bool = False


def test_the_papers_own_size_is_asked_for_alone():
    assert papers.full_size(Sizes(runs=7), {"runs": 100}).runs == 7
    assert papers.full_size(Sizes(full=True), {"runs": 100}).runs == 100
    with pytest.raises(runner.UsageError, match="--runs 7: --full sets it"):
        papers.full_size(Sizes(runs=7, full=True), {"runs": 100})
