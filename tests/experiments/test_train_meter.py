"""`--meter N` measures the gradient that trains, changes no number of the training, and says what it found."""

import csv
import dataclasses
import json
import math
import types

import jax.numpy as jnp
import numpy as np
import pytest
from trainings import newest_arrays, summary, tiny_training, without_times

from experiments import train
from experiments.harness import figure_data, runner
from experiments.shared.training import build
from experiments.train import meter, meter_figure, report, resume
from pgjax import diagnostics


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return tiny_training(tmp_path_factory.mktemp("results"))


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    config = dataclasses.replace(train.TINY, meter=2)
    folder = tmp_path_factory.mktemp("results")
    return runner.execute("train", config, train.run, report.plot, output_dir=folder, run_name="measured")


def states(directory):
    return {name: x for name, x in newest_arrays(directory).items() if name.startswith("['states']")}


def test_the_meter_changes_no_bit_of_the_training(plain, measured):
    one, other = states(plain), states(measured)
    assert len(one) > 5 and one.keys() == other.keys()
    for name, array in one.items():
        np.testing.assert_array_equal(array, other[name], err_msg=name)
    without_meter = [{n: x for n, x in line.items() if not n.startswith("meter_")} for line in without_times(measured)]
    assert without_meter == without_times(plain)


def test_the_log_holds_the_measured_updates(measured):
    lines = without_times(measured)
    assert [line["meter_measured"] for line in lines] == [[1.0] * 4, [0.0] * 4, [1.0] * 4, [0.0] * 4]
    for line in lines:
        if line["meter_measured"][0]:
            total = np.add(line["meter_variance"], line["meter_squared_norm"])
            np.testing.assert_allclose(total, np.square(line["gradient_norm"]), rtol=1e-4)
        else:
            assert line["meter_variance"] == [None] * 4


def test_the_report_has_a_table_a_sentence_and_a_figure(plain, measured):
    found = summary(measured)
    rows = {(row["quantity"], row["variant"]): row for row in found["rows"]}
    lines = [line for line in without_times(measured) if line["meter_measured"][0]]
    of_rate = lambda name: np.sum([line[f"meter_{name}"][:2] for line in lines])
    row = rows["signal-to-noise ratio of a batch, ‖E ḡ‖² / tr Var ḡ", f"lr 0.01, {meter.WHOLE}"]
    np.testing.assert_allclose(row["ours"], of_rate("squared_norm") / of_rate("variance"), rtol=1e-6)
    assert any("a batch of 4 episodes" in note for note in found["notes"])
    assert (measured / "meter.png").stat().st_size > 10_000
    assert not (plain / "meter.png").exists() and "Noise of the gradient" not in json.dumps(summary(plain)["tables"])


def test_a_resumed_run_may_have_another_meter(plain):
    options = train.resolve(train.Config(resume=plain, meter=3, num_updates=6))
    assert options["meter"] == 3 and "meter" not in resume.results_options(options)
    assert train.resolve(train.Config(resume=plain))["meter"] is None


def test_none_switches_the_meter_of_a_resumed_run_off(measured):
    assert train.resolve(train.Config(resume=measured))["meter"] == 2
    assert train.resolve(train.Config(resume=measured, typed=("meter",)))["meter"] is None


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"meter": 2, "num_episodes": 5}, "--meter 2: needs a batch that can be cut into two halves, got"),
        ({"meter": 2, "estimator": "rloo", "group_size": 4}, "two parts of whole groups of --group-size 4, got"),
        ({"meter": 0}, "--meter 0: must be at least 1"),
    ],
)
def test_a_meter_that_does_not_fit_is_refused(changes, sentence, tmp_path):
    config = dataclasses.replace(train.TINY, **changes)
    with pytest.raises((ValueError, runner.UsageError), match=sentence):
        config.validate()
        options = train.resolve(config)
        build.make_build(options, *build.make_policy(options))


def test_what_was_not_measured_is_nan_also_while_nan_is_forbidden():
    """The trainer then writes 0 between the measurements; its updates 0, 3 and 6 are measured."""
    metrics = {name: np.ones((2, 4)) for name in ("num_steps", "meter_variance")}
    found = meter.only_measured(metrics, 2, 3)
    np.testing.assert_array_equal(found["meter_variance"][0], [np.nan, 1.0, np.nan, np.nan])
    np.testing.assert_array_equal(found["num_steps"], 1.0)
    np.testing.assert_array_equal(meter.only_measured(metrics, 2, None)["meter_variance"], 1.0)


def known(runs=6, count=80, ratio=0.5):
    """Measurements with the signal-to-noise ratio `ratio`, of which every other line holds none."""
    rng = np.random.default_rng(0)
    counts = np.tile([[2.0], [0.0]], (count // 2, runs))
    variance = counts * rng.gamma(2.0, 0.5, (count, runs))
    sums = {"variance": variance, "squared_norm": counts * rng.normal(ratio, 1.0, (count, runs))}
    return meter.Measurements(np.arange(count), counts, sums | {"half_cosine": 0.5 * counts})


def test_ratios_are_those_of_means_with_intervals_over_runs():
    found = known()
    noise = meter.noise_of(found, 64)
    of_runs = {name: x.sum(axis=0) for name, x in found.sums.items()}
    ratio = of_runs["squared_norm"].sum() / of_runs["variance"].sum()
    np.testing.assert_allclose(noise.signal_to_noise.value, ratio)
    np.testing.assert_allclose(noise.noise_scale.value, 64 / ratio)
    # The delta method: Var(a − r b) / E[b]².
    rest = of_runs["squared_norm"] - ratio * of_runs["variance"]
    delta = rest.std(ddof=1) / np.sqrt(6) / of_runs["variance"].mean()
    np.testing.assert_allclose(noise.signal_to_noise.stderr, delta, rtol=0.1)
    assert noise.noise_scale.low < 64 / ratio < noise.noise_scale.high
    assert noise.means["half_cosine"].value == 0.5
    # The mean of the ratios of single measurements, the wrong twin, is far from it.
    measured = found.counts > 0
    twin = np.mean(found.sums["squared_norm"][measured] / found.sums["variance"][measured])
    assert abs(twin - ratio) > 2 * noise.signal_to_noise.stderr


def test_sentences_compare_the_batch_with_the_noise_scale():
    said = meter.sentence(meter.noise_of(known(ratio=0.25), 64), 64, "last third of the updates", "episodes")
    assert "times smaller than the noise scale of" in said and "a batch twice as large would gain 1." in said
    said = meter.sentence(meter.noise_of(known(ratio=4.0), 64), 64, meter.WHOLE, "windows")
    assert "Over all measured updates, a batch of 64 windows is" in said
    assert "times larger than the noise scale of" in said
    noise = meter.noise_of(known(ratio=0.25), 64)
    wide = noise._replace(noise_scale=noise.noise_scale._replace(value=96.9, low=9.02, high=np.inf))
    said = meter.sentence(wide, 32, meter.WHOLE, "episodes")
    assert "the interval holds 32" in said and "not resolved" in said and "than signal" not in said
    assert "is above" in meter.sentence(meter.noise_of(known(ratio=-0.3, count=12), 64), 64, meter.WHOLE, "windows")


def dying():
    """Two runs, one with a noisy gradient. Both end with gradients of 0, whose cosine the log gives as 0."""
    rng = np.random.default_rng(2)
    alive = (np.arange(8) < 4)[:, None] * np.ones((8, 2))
    sums = {"variance": alive * [1.0, 30.0], "squared_norm": alive * rng.normal([3.0, -20.0], 1.0, (8, 2))}
    return meter.Measurements(np.arange(1, 9), np.ones((8, 2)), sums | {"half_cosine": alive * [0.9, -0.2]})


def within(found, low, high):
    return math.isnan(found.low) or low <= found.low <= found.high <= high


def test_no_interval_leaves_the_range_of_its_number():
    for rows in (slice(0, 4), slice(0, 1), slice(2, 8)):
        noise = meter.noise_of(dying().part(np.arange(8)[rows], [0, 1]), 32)
        for name, (low, high) in meter.BOUNDS.items():
            assert within(noise.means[name], low, high), (name, noise.means[name])
        assert within(noise.signal_to_noise, 0.0, math.inf) and within(noise.noise_scale, 0.0, math.inf)
    assert meter.noise_of(dying().part(np.arange(4), [0, 1]), 32).noise_scale.high == math.inf


def test_gradients_of_0_have_neither_a_direction_nor_a_noise_scale():
    noise = meter.noise_of(dying().part(np.arange(4, 8), [0, 1]), 32)
    assert math.isnan(noise.means["half_cosine"].value) and math.isnan(noise.noise_scale.value)
    assert "gradients of 0 only" in meter.sentence(noise, 32, meter.WHOLE, "episodes")
    # The zeros that stand for cosines of such gradients do not count.
    np.testing.assert_allclose(meter.noise_of(dying(), 32).means["half_cosine"].value, 0.35)


def test_the_data_of_the_figure_are_the_estimates(tmp_path):
    """The figure is cut at its edge; its data are not, and they have no row that mixes bounds with estimates."""
    options = {"num_episodes": 32, "num_steps": None, "num_updates": 8, "env": "corridor", "estimator": "rloo"}
    drawn = {}
    recorder = types.SimpleNamespace(figure=lambda figure, name: drawn.update({name: figure}))
    meter_figure.draw({0.1: dying()}, options, recorder)
    upper, lower = figure_data.write(drawn["meter"], tmp_path / "meter.png")
    titles = ["update", "noise scale in episodes", "low", "high"], ["update", "cosine of two halves", "low", "high"]
    for path, names, title in zip((upper, lower), ("noise_scale", "half_cosine"), titles, strict=True):
        header, *rows = csv.reader(path.read_text(encoding="utf-8").splitlines())
        assert header[1:] == title
        rows = [row for row in rows if row[0] == "lr 0.1"]
        assert len(rows) == 8
        for number, row in enumerate(rows):
            noise = meter.noise_of(dying().part(np.array([number]), [0, 1]), 32)
            found = noise.noise_scale if names == "noise_scale" else noise.means[names]
            value, low, high = (float(cell or "nan") for cell in row[2:])
            wanted = found.value if math.isfinite(found.value) else math.nan
            np.testing.assert_allclose([value, low, high], [wanted, found.low, found.high])


def test_the_meter_is_the_pair_of_batches_of_mccandlish():
    """Their appendix A.1, with the parts as small batches and the whole as the large one."""
    parts = np.random.default_rng(1).normal(0.3, 1.0, (8, 5))
    small, large = 16 / 8, 16
    of_small, of_large = np.mean(np.sum(parts**2, axis=1)), np.sum(parts.mean(axis=0) ** 2)
    signal = (large * of_large - small * of_small) / (large - small)
    spread = (of_small - of_large) / (1 / small - 1 / large)
    found = diagnostics.batch_noise(jnp.asarray(parts))
    np.testing.assert_allclose(found.squared_norm, signal, rtol=1e-4)
    np.testing.assert_allclose(found.noise_scale(16), spread / signal, rtol=1e-4)
