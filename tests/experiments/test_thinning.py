"""The intervals of logs and curves follow from the number of the update, and no number depends on chunks."""

import numpy as np
import pytest

from experiments.train.thinning import Thinned, ends, points


def metrics_of(rng, runs, updates):
    counts = rng.integers(0, 3, (runs, updates)).astype(np.int32)
    returns = np.where(counts > 0, rng.normal(size=(runs, updates)), np.nan).astype(np.float32)
    steps = rng.integers(1, 9, (runs, updates)).astype(np.int32)
    norms = rng.normal(size=(runs, updates)).astype(np.float32)
    return {"mean_return": returns, "num_finished": counts, "num_steps": steps, "gradient_norm": norms}


def added(metrics, cuts):
    """All lines, and the arrays, if the metrics come in chunks and everything is saved and read between them."""
    made, lines, updates = Thinned(2), [], metrics["num_steps"].shape[1]
    for start, end in zip([0, *cuts], [*cuts, updates], strict=True):
        lines += made.add({name: x[:, start:end] for name, x in metrics.items()})
        made = Thinned.of(made.arrays(), made.done)
    return lines, made


@pytest.mark.parametrize("cuts", [[1], [255, 256, 257], list(range(1, 1999)), [700, 1403, 1404]])
def test_chunks_change_no_bit(cuts):
    metrics = metrics_of(np.random.default_rng(0), 2, 2003)
    lines, whole = added(metrics, [])
    found, other = added(metrics, cuts)
    assert len(lines) == len(found) and [line["update"] for line in lines] == whole.updates == other.updates
    for one, two in zip(lines, found, strict=True):
        assert all(np.array_equal(one[name], two[name], equal_nan=True) for name in one)
    for name, array in whole.arrays().items():
        if name != "sums":
            np.testing.assert_array_equal(array, other.arrays()[name])
    last, rest = whole.last_line(), other.last_line()
    assert last[0]["update"] == 2003 and np.array_equal(last[0]["gradient_norm"], rest[0]["gradient_norm"])


def test_the_means_are_those_of_the_interval():
    metrics = metrics_of(np.random.default_rng(1), 2, 300)
    lines, _ = added(metrics, [17])
    assert [line["update"] for line in lines] == [*range(1, 257), *range(258, 301, 2)]
    for line, part in ((lines[99], slice(99, 100)), (lines[256], slice(256, 258)), (lines[-1], slice(298, 300))):
        of = {name: x[:, part].astype(float) for name, x in metrics.items()}
        count = of["num_finished"].sum(axis=1)
        total = np.nansum(of["mean_return"] * of["num_finished"], axis=1)
        with np.errstate(invalid="ignore"):
            np.testing.assert_allclose(line["mean_return"], total / count)
        np.testing.assert_allclose(line["gradient_norm"], of["gradient_norm"].mean(axis=1))


@pytest.mark.parametrize(("runs", "most"), [(1, 3400), (16, 3400), (100, 700), (10_000, 300)])
def test_a_million_updates_have_few_intervals_whose_widths_double(runs, most):
    every = ends(0, 10**6, points(runs))
    assert (
        len(every) < most
        and (np.diff(every) > 0).all()
        and set(np.diff(every)) == {1 << level for level in range(int(np.diff(every).max()).bit_length())}
    )
    parts = np.concatenate([ends(done, 1000, points(runs)) for done in range(0, 10**6, 1000)])
    np.testing.assert_array_equal(every, parts)


def test_a_run_that_failed_is_nan_from_then_on_and_the_others_are_not():
    metrics = metrics_of(np.random.default_rng(2), 2, 20)
    for name in ("mean_return", "gradient_norm"):
        metrics[name][1, 10:] = np.nan
    lines, _ = added(metrics, [5, 13])
    norms = np.array([line["gradient_norm"] for line in lines])
    assert np.isfinite(norms[:, 0]).all() and np.isnan(norms[10:, 1]).all() and np.isfinite(norms[:10, 1]).all()


def with_meter(metrics, rng, every):
    """The metrics, with a meter that measures every `every`-th update and is NaN in the others."""
    runs, updates = metrics["num_steps"].shape
    skipped = np.arange(updates) % every != 0
    measured = {
        f"meter_{name}": np.where(skipped, np.nan, rng.normal(size=(runs, updates))).astype(np.float32)
        for name in ("variance", "squared_norm", "half_cosine")
    }
    return metrics | measured


@pytest.mark.parametrize("cuts", [[], [1], [255, 256, 257, 601], list(range(1, 999, 7))])
def test_measured_updates_are_kept_and_those_between_do_not_count(cuts):
    rng = np.random.default_rng(3)
    metrics = with_meter(metrics_of(rng, 2, 1000), rng, 3)
    lines, whole = added(metrics, cuts)
    lines += whole.last_line()
    variance, past, total = metrics["meter_variance"].astype(float), 0, 0
    for line in lines:
        part, past = variance[:, past : line["update"]], line["update"]
        count = np.isfinite(part).sum(axis=1)
        np.testing.assert_array_equal(line["meter_measured"], count)
        total += count
        if count[0]:
            np.testing.assert_allclose(line["meter_variance"], np.nanmean(part, axis=1))
            # The wrong twin divides by the width of the interval.
            assert part.shape[1] == count[0] or not np.allclose(line["meter_variance"], np.nansum(part, 1) / 3)
        else:
            assert np.isnan(line["meter_variance"]).all() and np.isfinite(line["gradient_norm"]).all()
    np.testing.assert_array_equal(total, 334)


def test_a_meter_that_is_switched_on_within_an_interval_leaves_the_other_sums_as_they_are():
    rng = np.random.default_rng(4)
    plain = metrics_of(rng, 2, 300)
    metrics = with_meter(plain, rng, 3)
    made = Thinned(2)
    made.add({name: x[:, :273] for name, x in plain.items()})  # 273 is in the middle of an interval of two updates
    lines = made.add({name: x[:, 273:] for name, x in metrics.items()})
    expected = added(plain, [])[0][-len(lines) :]
    for line, known in zip(lines, expected, strict=True):
        np.testing.assert_array_equal(line["gradient_norm"], known["gradient_norm"])
        np.testing.assert_array_equal(line["mean_return"], known["mean_return"])
    assert lines[0]["meter_measured"].tolist() == [1, 1]
