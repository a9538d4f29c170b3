"""The museum: every wrong loss is caught, every right twin passes, and a museum that errs says so."""

import dataclasses
import inspect
import json

import jax.numpy as jnp
import numpy as np
import pytest

from experiments import wrong_reinforce
from experiments.harness import runner
from experiments.shared import exact_room as rooms
from experiments.wrong_reinforce import measurements as measure
from experiments.wrong_reinforce import wrong_losses as losses
from experiments.wrong_reinforce.museum import EXHIBITS
from experiments.wrong_reinforce.twins import TWINS

WRONG = [name for name, exhibit in EXHIBITS.items() if not exhibit.innocent]
FACTORS = {
    "minus sign forgotten": -1.0,
    "batch mean that contains the sample": 0.5,
    "ρ̂ refreshed before use": 0.9,
    "baseline that knows the action": 0.0,
}


@pytest.fixture(scope="module")
def visit(tmp_path_factory):
    """The run's directory and its results: one enumeration for all tests."""
    kept = []

    def run(config, recorder):
        kept.append(wrong_reinforce.run(config, recorder))
        return kept[0]

    directory = runner.execute(
        "wrong_reinforce",
        wrong_reinforce.Config(),
        run,
        wrong_reinforce.plot,
        output_dir=tmp_path_factory.mktemp("results"),
    )
    return directory, kept[0]


@pytest.mark.parametrize("name", WRONG)
def test_the_wrong_one_is_caught_as_predicted(visit, name):
    found = visit[1].found[name]
    assert visit[1].verdicts()[name] == measure.CAUGHT and found.bias > 0.05
    if found.miss is None:
        assert name == "standardised over the episode's own time"
    else:
        assert found.miss < 1e-10
        assert found.ratio == pytest.approx(found.predicted_ratio, abs=1e-10)


@pytest.mark.parametrize("name", [name for name in EXHIBITS if name not in WRONG])
def test_the_innocent_is_right_on_average(visit, name):
    assert visit[1].verdicts()[name] == measure.PASSES and visit[1].found[name].bias < 1e-10


@pytest.mark.parametrize("key", TWINS)
def test_the_right_twin_passes(visit, key):
    twin = visit[1].twins[key]
    assert visit[1].verdicts()[TWINS[key].label] == measure.PASSES
    assert twin.bias < 1e-10 and twin.ratio == pytest.approx(1.0, abs=1e-10)


def test_factors_that_are_known_by_heart(visit):
    for name, factor in FACTORS.items():
        found = visit[1].found[name]
        assert found.ratio == pytest.approx(factor, abs=1e-10) and found.bias == pytest.approx(abs(1 - factor))
    # Of four answers, each right with probability 0.2, one or three are right: σ = √3/4; two: σ = 1/2; else 0.
    factor = ((4 * 0.2 * 0.8**3 + 4 * 0.2**3 * 0.8) * np.sqrt(3) / 4 + 6 * 0.2**2 * 0.8**2 / 2) / (0.2 * 0.8)
    assert visit[1].found["divided by the group's deviation"].ratio == pytest.approx(factor, abs=1e-10)


def test_the_innocent_may_be_noisy(visit):
    run_on, twin = visit[1].found["returns run on, γ = 1"], visit[1].twins["to_go_of_two"]
    assert run_on.variance > 2 * twin.variance


def test_every_loss_and_every_twin_is_on_show(visit):
    functions = {
        function
        for name, function in inspect.getmembers(losses, inspect.isfunction)
        if function.__module__ == losses.__name__ and name not in ("marked_line", "source")
    }
    assert functions == {exhibit.loss for exhibit in EXHIBITS.values()}
    assert set(visit[1].twins) == set(TWINS) and len(WRONG) >= 14
    labels = [twin.label for twin in TWINS.values()]
    assert len(set(labels)) == len(labels) and not set(labels) & set(EXHIBITS)
    assert all(label.count("B =") == (twin.batch != 1) for label, twin in zip(labels, TWINS.values(), strict=True))


def test_the_museum_has_the_numbers_of_the_readme(visit):
    verdicts = list(visit[1].verdicts().values())
    assert len(WRONG) == verdicts.count(measure.CAUGHT) == 25
    assert sum(visit[1].found[name].miss is not None for name in WRONG) == 24
    assert len(EXHIBITS) - len(WRONG) == 3 and len(TWINS) == 15
    assert verdicts.count(measure.PASSES) == 3 + 15 and len(verdicts) == 25 + 3 + 15


def test_the_page_shows_every_line_and_where_it_was(visit):
    directory, _ = visit
    page = (directory / "museum.md").read_text(encoding="utf-8")
    for name, exhibit in EXHIBITS.items():
        assert f"### {name}\n" in page and exhibit.source in page and exhibit.seen in page
        assert exhibit.line in exhibit.source and exhibit.line.replace("|", "\\|") in page


def test_the_run_writes_its_rows_and_its_figure(visit):
    directory, _ = visit
    summary = json.loads((directory / "summary.json").read_text())
    verdicts = [row["verdict"] for row in summary["rows"]]
    assert verdicts.count(measure.CAUGHT) == 2 * len(WRONG) and set(verdicts) == {measure.CAUGHT, measure.PASSES}
    assert (directory / "wrong_reinforce.png").is_file()
    assert len((directory / "metrics.jsonl").read_text().splitlines()) == len(EXHIBITS)


def test_a_museum_that_errs_fails_loudly_and_keeps_its_table(tmp_path, monkeypatch):
    right = dataclasses.replace(EXHIBITS["γᵗ on top of discounted returns"], innocent=False)
    monkeypatch.setattr(wrong_reinforce, "VARIANTS", dict.fromkeys(wrong_reinforce.TINY.exhibits[:1], right))
    config = dataclasses.replace(wrong_reinforce.TINY, exhibits=wrong_reinforce.TINY.exhibits[:1])
    with pytest.raises(RuntimeError, match="minus sign forgotten: the verdict is wrong: not caught"):
        runner.execute("wrong_reinforce", config, wrong_reinforce.run, output_dir=tmp_path, run_name="liar")
    summary = json.loads((tmp_path / "wrong_reinforce" / "liar-incomplete" / "summary.json").read_text())
    assert summary["status"] == "failed" and summary["rows"][0]["verdict"] == "wrong: not caught"


def test_verdicts():
    target = jnp.asarray([3.0, 4.0])
    facts = lambda mean, predicted=None: measure.facts(jnp.asarray(mean), 1.0, target, predicted)
    assert measure.verdict(facts([3.0, 4.0]), wrong=False) == measure.PASSES
    assert measure.verdict(facts([3.0, 4.0]), wrong=True) == "wrong: not caught"
    assert measure.verdict(facts([3.0, 4.1]), wrong=False) == "wrong: does not pass"
    assert measure.verdict(facts([3.0, 4.1]), wrong=True) == measure.CAUGHT
    assert measure.verdict(facts([3.0, 4.1], target), wrong=True) == "wrong: not as predicted"
    assert measure.verdict(facts([jnp.nan, 4.0]), wrong=False) == "wrong: does not pass"
    assert measure.verdict(facts([jnp.nan, 4.0]), wrong=True) == "wrong: not caught"
    assert measure.verdict(facts([jnp.nan, 4.0], target), wrong=True) == "wrong: not as predicted"
    opposite = facts([-6.0, -8.0])
    assert (opposite.ratio, opposite.cosine, opposite.bias) == pytest.approx((-2.0, -1.0, 3.0))
    assert facts([0.0, 0.0]).cosine == 0.0


def test_standardising_over_time_praises_the_early_whatever_happened():
    """Returns 3, 2, 1 become √1.5, 0, −√1.5, and so do ten times as much."""
    fields = dict.fromkeys(rooms.Episodes._fields)
    for size in (1.0, 10.0):
        e = rooms.Episodes(
            **fields
            | {
                "rewards": size * np.ones(3),
                "alive": np.ones(3, bool),
                "length": 3.0,
                "log_probs": np.asarray([1.0, 10.0, 100.0]),
            }
        )
        loss = losses.standardised_over_own_time(e, None)
        assert float(loss) == pytest.approx(99 * np.sqrt(1.5), rel=1e-5)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"exhibits": ("nothing",)}, "--exhibits nothing: must be among mean log-prob"),
        ({"discount": 1.0}, "--discount 1.0: must be in"),
        ({"decay": float("nan")}, "--decay nan: must be in"),
        ({"step_size": 0.0}, "--step-size 0.0: must be in"),
        ({"group": 2}, "--group 2: must be in 3"),
        ({"seed": -1}, "--seed -1: must be in"),
    ],
)
def test_options_are_refused(options, words):
    with pytest.raises(runner.UsageError) as refused:
        wrong_reinforce.Config(**options).validate()
    assert words in str(refused.value)
