"""Supervised fits: known answers, the split by groups, early stopping, and weights as subsets."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from pgjax.training import NonFiniteError, fit

NUM_ROWS, NUM_GROUPS = 24, 6
RNG = np.random.default_rng(0)
X = RNG.normal(size=(NUM_ROWS, 2)).astype(np.float32)
Y = (X @ [1.0, -2.0] + RNG.normal(size=NUM_ROWS)).astype(np.float32)
DATA = {"x": jnp.asarray(X), "y": jnp.asarray(Y)}
GROUPS = np.repeat(np.arange(NUM_GROUPS), 4)
KEY = jax.random.key(0)
ZERO = jnp.zeros(2)
ADAM, SGD, SGD_1 = optax.adam(0.1), optax.sgd(0.2), optax.sgd(1.0)


def squares(params, batch):
    return 0.5 * jnp.square(batch["x"] @ params - batch["y"])


def logistic(params, batch):
    return jax.nn.softplus(-jnp.where(batch["y"] > 0, 1.0, -1.0) * (batch["x"] @ params))


def run(**options):
    settings = {"num_epochs": 3, "batch_size": 5} | options
    data, key, optimizer = settings.pop("data", DATA), settings.pop("key", KEY), settings.pop("optimizer", ADAM)
    return fit(key, settings.pop("params", ZERO), settings.pop("loss", squares), data, optimizer, **settings)


def equal(got, wanted):
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_array_equal(a, b)


def close(got, wanted, tolerance=1e-6):
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


@pytest.mark.usefixtures("x64")
def test_weighted_least_squares_and_logistic_regression_find_the_minimum():
    x, y, w = X.astype(np.float64), Y.astype(np.float64), RNG.uniform(0.2, 2.0, NUM_ROWS)
    data = {"x": jnp.asarray(x), "y": jnp.asarray(y)}
    settings = {"num_epochs": 400, "batch_size": NUM_ROWS, "data": data, "params": jnp.zeros(2)}
    settings |= {"optimizer": optax.sgd(0.5)}
    found = run(**settings, weights=w)
    wanted = np.linalg.solve((x.T * w) @ x, (x.T * w) @ y)
    np.testing.assert_allclose(found.params, wanted, atol=1e-10)
    # The twin that leaves the weights out goes elsewhere.
    assert np.abs(np.linalg.solve(x.T @ x, x.T @ y) - wanted).max() > 1e-2
    loss = 0.5 * np.average((x @ wanted - y) ** 2, weights=w)
    np.testing.assert_allclose(found.metrics["train_loss"][-1], loss, atol=1e-12)
    assert found.best_epoch == 399 and found.num_epochs == 400
    assert np.isnan(found.metrics["validation_loss"]).all() and not found.held_out.any()

    found = run(**settings | {"loss": logistic, "num_epochs": 3000}).params
    probability = 1 / (1 + np.exp(-x @ found))
    # The mean of the features weighed by the error is zero at the maximum of the likelihood.
    np.testing.assert_allclose(x.T @ ((y > 0) - probability), 0.0, atol=1e-8)


def test_every_row_is_met_once_in_every_epoch():
    # The optimiser only records: θ ← θ − gradient of Σ θ_row, so that each row shows how often, how heavily it was met.
    mark = lambda params, batch: params[batch]
    rows = jnp.arange(7)
    w = jnp.asarray([1.0, 2.0, 1.0, 1.0, 0.0, 3.0, 1.0])
    met = lambda **options: np.asarray(fit(KEY, jnp.zeros(7), mark, rows, SGD_1, batch_size=3, **options).params)
    weighted = met(num_epochs=2, weights=w)
    # Six rows with weight in two minibatches: each has −1 in total, split as the weights are.
    np.testing.assert_allclose(weighted.sum(), -4.0, rtol=1e-6)
    assert weighted[4] == 0 and (np.delete(weighted, 4) < 0).all()
    one, two = met(num_epochs=1), met(num_epochs=2)
    np.testing.assert_allclose(sorted(one), [-1, *[-1 / 3] * 6], rtol=1e-6)
    # Another order in the second epoch: the row that was alone is another.
    assert np.argmin(one) != np.argmin(two - one)


def test_whole_groups_are_held_out():
    seen = {}
    for seed in range(8):
        held = np.asarray(run(key=jax.random.key(seed), groups=GROUPS, validation_fraction=0.35).held_out)
        by_group = held.reshape(NUM_GROUPS, 4)
        assert (by_group.all(axis=1) == by_group.any(axis=1)).all()
        assert by_group.all(axis=1).sum() == 2  # round(0.35 · 6)
        seen[tuple(np.flatnonzero(by_group[:, 0]))] = seed
    assert len(seen) >= 4
    # Interleaved rows of the same groups: the same groups are held out, wherever their rows are.
    order = RNG.permutation(NUM_ROWS)
    mixed = run(data=jax.tree.map(lambda x: x[order], DATA), groups=GROUPS[order], validation_fraction=0.35)
    equal(mixed.held_out, run(groups=GROUPS, validation_fraction=0.35).held_out[order])
    for fraction, count in ((0.01, 1), (0.99, 5)):
        held = run(groups=GROUPS, validation_fraction=fraction).held_out
        assert held.sum() == 4 * count


def test_held_out_rows_are_never_trained_on():
    first = run(groups=GROUPS, validation_fraction=0.35)
    held = np.asarray(first.held_out)
    other = jax.tree.map(lambda x: jnp.where(held.reshape(-1, *[1] * (x.ndim - 1)), x + 9.0, x), DATA)
    second = run(data=other, groups=GROUPS, validation_fraction=0.35)
    equal(first.metrics["train_loss"], second.metrics["train_loss"])
    assert (np.abs(first.metrics["validation_loss"] - second.metrics["validation_loss"]) > 1.0).all()
    # The held-out loss is the mean over just those rows, at the parameters after the epoch.
    best = int(first.best_epoch)
    wanted = np.asarray(squares(first.params, DATA))[held].mean()
    np.testing.assert_allclose(first.metrics["validation_loss"][best], wanted, rtol=1e-5)
    assert best == np.argmin(first.metrics["validation_loss"])


def table_loss(params, batch):
    return jnp.square(params[batch["observation"]] - batch["action"])


def test_a_split_by_row_leaks():
    """One observation an episode, labels of pure noise: what is learned of one episode says nothing of another."""
    noise = np.random.default_rng(3).choice([-1.0, 1.0], 40)
    data = {"observation": jnp.repeat(jnp.arange(40), 6), "action": jnp.repeat(jnp.asarray(noise, jnp.float32), 6)}
    settings = {"num_epochs": 20, "batch_size": 240, "validation_fraction": 0.25, "data": data, "loss": table_loss}
    settings |= {"params": jnp.zeros(40), "optimizer": optax.sgd(20.0)}
    honest = run(**settings, groups=np.repeat(np.arange(40), 6)).metrics["validation_loss"]
    leaking = run(**settings).metrics["validation_loss"]
    np.testing.assert_allclose(honest, 1.0, rtol=1e-6)
    assert leaking[-1] < 0.1


def test_early_stopping_returns_the_best_of_an_overfit():
    """16 rows, 12 features, noise: the held-out loss falls, then rises."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(16, 12)) / np.arange(1, 13) ** 0.5
    y = 1.5 * x[:, 0] + rng.normal(size=16)
    data = {"x": jnp.asarray(x, jnp.float32), "y": jnp.asarray(y, jnp.float32)}
    settings = {"num_epochs": 300, "batch_size": 16, "data": data, "params": jnp.zeros(12), "optimizer": SGD}
    settings |= {"validation_fraction": 0.4}
    whole, stopped = run(**settings), run(**settings, patience=5)
    curve = np.asarray(whole.metrics["validation_loss"])
    held = np.asarray(whole.held_out)

    # An independent loop: full-batch descent on the rows that are not held out.
    params, wanted, history = np.zeros(12), [], []
    for _ in range(300):
        error = x[~held] @ params - y[~held]
        params = params - 0.2 * x[~held].T @ error / (~held).sum()
        history.append(params)
        wanted.append(0.5 * np.mean((x[held] @ params - y[held]) ** 2))
    np.testing.assert_allclose(curve, wanted, rtol=1e-3)
    best = int(np.argmin(curve))
    assert 0 < best < 100 and curve[-1] > 1.05 * curve[best]
    assert whole.num_epochs == 300 and whole.best_epoch == best
    np.testing.assert_allclose(whole.params, history[best], atol=1e-4)

    assert stopped.best_epoch == best and stopped.num_epochs == best + 1 + 5
    equal(stopped.params, whole.params)
    for name, values in stopped.metrics.items():
        equal(values[: best + 6], whole.metrics[name][: best + 6])
        assert np.isnan(values[best + 6 :]).all()


def test_a_fit_is_a_function_of_its_key():
    again, other = run(validation_fraction=0.3), run(validation_fraction=0.3, key=jax.random.key(1))
    equal(run(validation_fraction=0.3), again)
    assert np.abs(again.params - other.params).max() > 1e-4


def test_seeds_and_data_set_sizes_are_batch_axes():
    keys = jax.random.split(KEY, 3)
    sizes = jnp.asarray([8, 16, 24])
    settings = {"num_epochs": 6, "patience": 2, "validation_fraction": 0.3, "groups": GROUPS}
    settings |= {"optimizer": optax.adam(0.5)}
    one = lambda key, size: run(key=key, weights=(jnp.arange(NUM_ROWS) < size).astype(float), **settings)
    together = jax.vmap(one)(keys, sizes)
    alone = [one(key, size) for key, size in zip(keys, sizes)]
    close(together, jax.tree.map(lambda *xs: jnp.stack(xs), *alone), 1e-5)
    assert len({int(x) for x in together.num_epochs}) > 1, "some stop earlier than others, or the mask is not tested"


def test_weights_choose_a_subset():
    """Rows of weight 0 change nothing, and neither minibatches nor split nor optimiser notice that they are there."""
    num_kept = 13
    kept = np.arange(NUM_ROWS) < num_kept
    poisoned = jax.tree.map(lambda x: jnp.where(kept.reshape(-1, *[1] * (x.ndim - 1)), x, jnp.nan), DATA)
    # 13 rows leave room in a minibatch of 5, which rows that hold no numbers fill up.
    equal(run(weights=kept.astype(float), data=poisoned), run(weights=kept.astype(float)))
    by_weights = run(weights=kept.astype(float), data=poisoned, groups=GROUPS, validation_fraction=0.4)
    sliced = run(data=jax.tree.map(lambda x: x[:num_kept], DATA), groups=GROUPS[:num_kept], validation_fraction=0.4)
    equal(by_weights.held_out[:num_kept], sliced.held_out)
    assert not by_weights.held_out[num_kept:].any()
    close(by_weights._replace(held_out=0), sliced._replace(held_out=0))


@pytest.mark.usefixtures("x64")
def test_a_full_batch_with_weights_is_the_full_batch_of_the_subset():
    kept = RNG.permutation(NUM_ROWS) < 11
    data = jax.tree.map(lambda x: x.astype(float), DATA)
    settings = {"num_epochs": 4, "batch_size": NUM_ROWS, "params": jnp.zeros(2), "optimizer": SGD}
    by_weights = run(**settings, data=data, weights=kept.astype(float)).params

    def descend(count):
        x, y, params = X[kept].astype(float), Y[kept].astype(float), np.zeros(2)
        for _ in range(4):
            params = params - 0.2 * x.T @ (x @ params - y) / count
        return params

    np.testing.assert_allclose(by_weights, descend(11), atol=1e-14)
    # The twin that divides by all N rows takes steps 11/24 as long.
    assert np.abs(by_weights - descend(NUM_ROWS)).max() > 1e-2


def test_the_same_fit_compiles_once():
    traces = []

    def counted(params, batch):
        traces.append(1)
        return squares(params, batch)

    for seed in range(3):
        run(loss=counted, key=jax.random.key(seed))
    first = len(traces)
    run(loss=counted, key=jax.random.key(9), weights=jnp.asarray(GROUPS % 2, float))
    assert len(traces) == first


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"data": {"x": jnp.zeros((0, 2)), "y": jnp.zeros(0)}}, r"data\['x'\] must have at least one row"),
        ({"data": {}}, "data must have at least one array"),
        ({"data": DATA | {"y": DATA["y"][:5]}}, r"data\['y'\] must have as many rows as data\['x'\], 24, got 5"),
        ({"data": DATA | {"y": DATA["y"].at[3].set(jnp.inf)}}, r"data\['y'\] must be finite, got inf in row 3"),
        ({"weights": np.ones(3)}, "weights must have as many rows"),
        ({"weights": np.ones((24, 1))}, "weights must have one number for each row"),
        ({"weights": np.full(24, np.nan)}, "weights must be finite"),
        ({"weights": -np.ones(24)}, "weights must be finite, at least 0"),
        ({"weights": np.zeros(24)}, "not all 0"),
        ({"groups": np.zeros(24)}, "groups must be integers"),
        ({"groups": np.zeros(24, int), "validation_fraction": 0.5}, "fewer than two groups"),
        ({"groups": GROUPS, "weights": GROUPS == 2, "validation_fraction": 0.5}, "fewer than two groups"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"num_epochs": 0}, "num_epochs must be"),
        ({"validation_fraction": 1.0}, "validation_fraction must be less than 1"),
        ({"validation_fraction": -0.1}, r"validation_fraction must be in \[0, 1\]"),
        ({"patience": 3}, "patience must be None without held-out rows"),
        ({"patience": 0, "validation_fraction": 0.5}, "patience must be at least 1, got 0"),
        ({"loss": lambda params, batch: jnp.mean(squares(params, batch))}, r"loss must return one number for each row"),
    ],
)
def test_errors_come_at_once(options, message):
    with pytest.raises(ValueError, match=message):
        run(**options)


def test_a_fit_that_diverges_says_so():
    with pytest.raises(NonFiniteError, match=r"train_loss must be finite, got (inf|nan) in epoch"):
        run(optimizer=optax.sgd(1e6), num_epochs=30)


def test_parts_of_epochs_make_the_same_steps_and_count_evaluations():
    # 24 rows in minibatches of 5 are 5 minibatches; 2 parts of an epoch meet each row once, too.
    mark = lambda params, batch: params[batch]
    settings = {"data": jnp.arange(24), "params": jnp.zeros(24), "loss": mark, "optimizer": SGD_1}
    met = lambda params: -np.asarray(params) > 0
    seen = []
    found = run(
        **settings,
        evaluations_per_epoch=2,
        num_epochs=1,
        on_evaluation=lambda done, metrics, params: seen.append((done, metrics, met(params))),
    )
    assert [done for done, *_ in seen] == [1, 2] and found.num_epochs == 2 and found.metrics["train_loss"].shape == (2,)
    assert 10 <= seen[0][2].sum() <= 15 and seen[1][2].all()
    # The twin without the host in between has the same numbers.
    equal(found, run(**settings, evaluations_per_epoch=2, num_epochs=1))
    with pytest.raises(ValueError, match="evaluations_per_epoch must be at most the 5 minibatches, got 6"):
        run(evaluations_per_epoch=6)


def test_the_caller_may_choose_the_held_out_rows():
    held_out = jnp.arange(NUM_ROWS) % 4 == 0
    found = run(held_out=held_out, patience=2, num_epochs=4)
    equal(found.held_out, held_out)
    equal(found.params, run(held_out=held_out, num_epochs=int(found.best_epoch) + 1).params)
    # Rows that are held out are not trained on: other answers there change nothing but the held-out loss.
    other = DATA | {"y": jnp.where(held_out, 0.0, DATA["y"])}
    last = lambda data: run(held_out=held_out, num_epochs=1, data=data)
    equal(last(DATA).params, last(other).params)
    assert last(DATA).metrics["validation_loss"][0] != last(other).metrics["validation_loss"][0]
    for wrong, message in (
        ({"held_out": jnp.ones(NUM_ROWS, bool)}, "on both sides"),
        ({"held_out": held_out, "validation_fraction": 0.5}, "must be 0 if held_out is given"),
        ({"held_out": held_out.astype(int)}, "must be bool"),
    ):
        with pytest.raises(ValueError, match=message):
            run(**wrong)


def test_noise_of_the_training_loss_is_new_in_every_minibatch_and_never_in_the_held_out_loss():
    # The gradient is the noise itself, so that SGD with rate 1 adds up the noise.
    noise = lambda key, params, batch: params[0] * jax.random.normal(key, batch["y"].shape)
    settings = {"num_epochs": 1, "params": jnp.zeros(1), "optimizer": SGD_1, "loss": lambda p, b: p[0] + 0.0 * b["y"]}
    steps = []
    run(
        **settings,
        batch_size=4,
        training_loss=noise,
        evaluations_per_epoch=6,
        on_evaluation=lambda n, m, p: steps.append(p[0]),
    )
    assert np.unique(np.diff(np.array([0.0, *steps]))).size == 6
    found = run(**settings, training_loss=noise, validation_fraction=0.5)
    close(found.metrics["validation_loss"][0], found.params[0])


def test_a_schedule_counts_minibatches():
    schedule = optax.piecewise_constant_schedule(1.0, {2: 0.0})  # two steps of 1, then none
    sum_of = lambda params, batch: params[0] + 0.0 * batch["y"]
    found = run(params=jnp.zeros(1), loss=sum_of, optimizer=optax.sgd(schedule), batch_size=8, num_epochs=4)
    close(found.params, [-2.0])
