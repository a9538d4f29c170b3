"""The update and the loop around it: literal REINFORCE, seeds, sweeps, resumption, microbatches, one compilation."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from policies import TABULAR

from pgjax import baselines, environments, estimators, networks, rollouts, training
from pgjax.types import Box, Discrete, Environment, Step


@pytest.fixture(scope="module")
def corridor():
    return environments.make("corridor", horizon=16)


def sgd(learning_rate=0.05, **kwargs):
    return lambda corridor: training.make_trainer(
        corridor,
        TABULAR,
        estimators.make_estimator(TABULAR, baseline=baselines.moving_average()),
        optax.sgd(learning_rate),
        **kwargs,
    )


def runs_of(trainer, num_updates):
    """`seed → (state, metrics)` of a run, compiled once for all seeds."""
    run = jax.jit(lambda key: jax.lax.scan(lambda s, _: trainer.update(s), trainer.init(key), length=num_updates))
    return lambda seed: run(jax.random.key(seed))


def same(a, b, **tolerance):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            x, y = jax.random.key_data(x), jax.random.key_data(y)
        np.testing.assert_allclose(x, y, **tolerance)


def test_reinforce_is_the_algorithm_as_written(corridor):
    """θ ← θ + η (G_1 − ρ̂) Σ_t ∇ ln f, then ρ̂ ← β ρ̂ + (1 − β) G_1, in plain Python."""
    eta, beta = 0.05, 0.8
    state, metrics = training.reinforce(
        corridor, TABULAR, jax.random.key(0), learning_rate=eta, decay=beta, max_iters=5, initial=-3.0
    )
    _, _, _, run_key = jax.random.split(jax.random.key(0), 4)
    theta, rho = np.zeros((1, 2)), -3.0

    @jax.jit
    def play(theta, iteration):
        keys = jax.random.split(jax.random.fold_in(run_key, iteration), 1)
        return rollouts.episodes(corridor, TABULAR, theta, keys)

    for iteration in range(5):
        episode = play(theta.astype(np.float32), iteration)
        alive = np.asarray(episode.alive)[:, 0]
        actions = np.asarray(episode.actions)[alive, 0]
        total = np.asarray(episode.rewards).sum()
        p = np.exp(theta[0]) / np.exp(theta[0]).sum()
        score = (np.eye(2)[actions] - p).sum(axis=0)
        np.testing.assert_allclose(metrics["mean_return"][iteration], total)
        theta = theta + eta * (total - rho) * score
        rho = beta * rho + (1 - beta) * total
    np.testing.assert_allclose(state.params, theta, rtol=1e-4)
    np.testing.assert_allclose(state.estimator_state.estimate, rho, rtol=1e-5)


def test_learning_on_the_corridor():
    """From p(right) = 0.05, v = −82, to within one of the best value −11.66."""
    corridor = environments.make("corridor", horizon=200)
    policy = TABULAR._replace(init=lambda key, obs: jnp.asarray([[1.47, -1.47]]))
    state, metrics = jax.jit(
        lambda key: training.reinforce(
            corridor, policy, key, learning_rate=2e-3, decay=0.9, max_iters=200, num_episodes=64, initial="first"
        )
    )(jax.random.key(0))
    assert metrics["mean_return"][0] < -50 and metrics["mean_return"][-50:].mean() > -12.7
    assert abs(jax.nn.softmax(state.params[0])[1] - 0.586) < 0.1


def test_runs_are_mapped_or_vmapped_over_seeds_and_hyperparameters(corridor):
    build = lambda rate: sgd(rate, num_episodes=4)(corridor)
    keys, rates = jax.random.split(jax.random.key(0), 3), jnp.asarray([0.01, 0.03, 0.1])
    mapped, vmapped = (
        training.train(build, keys, rates, num_updates=5, chunk=2, mapping=mapping) for mapping in ("map", "vmap")
    )
    assert mapped.metrics["mean_return"].shape == (3, 5)
    np.testing.assert_allclose(mapped.metrics["mean_return"], vmapped.metrics["mean_return"], rtol=1e-5)

    @jax.jit
    def alone(key, rate):
        trainer = build(rate)
        return jax.lax.scan(lambda state, _: trainer.update(state), trainer.init(key), length=5)[0]

    for s in range(3):
        same(jax.tree.map(lambda x, s=s: x[s], mapped.states), alone(keys[s], rates[s]), rtol=1e-6)
    with pytest.raises(AssertionError):
        same(mapped.states.params[0], mapped.states.params[2], rtol=1e-3)


def test_going_on_equals_never_having_stopped(corridor):
    build = lambda _: sgd(num_episodes=4)(corridor)
    keys = jax.random.split(jax.random.key(0), 2)
    whole = training.train(build, keys, num_updates=6, chunk=3)
    half = training.train(build, keys, num_updates=3, chunk=3)
    rest = training.train(build, keys, num_updates=3, chunk=3, states=half.states)
    same(whole.states, rest.states, rtol=0)
    np.testing.assert_array_equal(whole.metrics["mean_return"][:, 3:], rest.metrics["mean_return"])


def test_the_host_hears_between_chunks(corridor):
    heard = []
    training.train(
        lambda _: sgd(num_episodes=2)(corridor),
        jax.random.split(jax.random.key(0), 2),
        num_updates=5,
        chunk=2,
        on_chunk=lambda done, metrics, states: heard.append((done, metrics["mean_return"].shape)),
    )
    assert heard == [(2, (2, 2)), (4, (2, 2)), (5, (2, 1))]


def test_chunks_by_the_clock_change_no_number_and_compile_once(corridor):
    chex.clear_trace_counter()
    trainer = sgd(num_episodes=2)(corridor)
    counted = trainer._replace(update=chex.assert_max_traces(trainer.update, n=2))
    keys = jax.random.split(jax.random.key(0), 2)
    whole = training.train(lambda _: trainer, keys, num_updates=40, chunk=40)
    begun, heard, returns = [], [], []

    def hear(done, metrics, states):
        heard.append(done)
        returns.append(metrics["mean_return"])

    timed = training.train(
        lambda _: counted,
        keys,
        num_updates=40,
        chunk_seconds=30.0,
        on_start=lambda states: begun.append(np.asarray(states.update)),
        on_compiled=lambda: heard.append("compiled"),
        on_chunk=hear,
        keep_metrics=False,
    )
    assert heard == ["compiled", 1, 9, 40] and begun[0].tolist() == [0, 0] and timed.metrics == {}
    np.testing.assert_array_equal(np.concatenate(returns, axis=1), whole.metrics["mean_return"])
    same(whole.states, timed.states, rtol=0)
    heard.clear()
    training.train(lambda _: trainer, keys, num_updates=3, chunk_seconds=1e-9, on_chunk=hear)
    assert heard == [1, 2, 3]
    with pytest.raises(ValueError, match="chunk_seconds must be None or above 0, got 0"):
        training.train(lambda _: trainer, keys, num_updates=3, chunk_seconds=0)


def test_an_update_compiles_once(corridor):
    chex.clear_trace_counter()
    trainer = sgd(num_episodes=2)(corridor)
    counted = trainer._replace(update=chex.assert_max_traces(trainer.update, n=2))
    # One trace finds the metrics' shapes, one compiles; five chunks add none.
    keys = jax.random.split(jax.random.key(0), 2)
    training.train(lambda _: counted, keys, num_updates=10, chunk=2)
    with pytest.raises(AssertionError, match="traced"):
        training.train(lambda _: counted, keys, num_updates=10, chunk=3)


def test_microbatches_add_up_to_the_batch(corridor):
    """Four parts of two episodes are the mean of four gradients of two, taken with the parts' own keys."""
    estimator = estimators.make_estimator(TABULAR)
    parts = training.make_trainer(corridor, TABULAR, estimator, optax.sgd(0.05), num_episodes=8, microbatches=4)
    state, metrics = runs_of(parts, 1)(0)
    start = parts.init(jax.random.key(0))

    @jax.jit
    def of_part(number):
        key = jax.random.split(jax.random.fold_in(start.key, 0), 4)[number]
        batch = rollouts.episodes(corridor, TABULAR, start.params, jax.random.split(key, 2))
        return estimator.gradient(start.params, (), batch)[0], batch.alive.sum()

    gradients, num_steps = zip(*(jax.device_get(of_part(number)) for number in range(4)))
    np.testing.assert_allclose(state.params, start.params + 0.05 * sum(gradients) / 4, rtol=1e-5)
    assert metrics["num_steps"][0] == sum(num_steps)


def test_windows_continue_where_they_stopped(corridor):
    policy = TABULAR
    baseline = baselines.value_function(lambda key, obs: jnp.zeros(1), lambda params, obs: obs @ params, optax.sgd(0.1))
    estimator = estimators.make_estimator(
        policy, returns=estimators.lambda_return(0.9, 0.9), baseline=baseline, over_time="mean"
    )
    trainer = training.make_trainer(corridor, policy, estimator, optax.sgd(0.5), num_episodes=32, num_steps=8)
    state, metrics = runs_of(trainer, 200)(0)
    assert state.lanes.clock[0] == 1600 and (metrics["num_steps"] == 256).all()
    assert np.nanmean(metrics["mean_return"][-50:]) > -13.0
    assert state.params[0, 1] > state.params[0, 0]


def poisoned():
    """Pays NaN at the third step."""

    def step(key, state, action, params):
        reward = jnp.where(state >= 2, jnp.nan, 1.0).astype(jnp.float32)
        return state + 1, Step(obs=jnp.zeros(1), reward=reward, terminated=jnp.zeros((), bool))

    return Environment(
        name="poisoned",
        reset=lambda key, params: (jnp.zeros((), jnp.int32), jnp.zeros(1)),
        step=step,
        params=(),
        observation_space=Box(0.0, 1.0, (1,)),
        action_space=Discrete(2),
        horizon=4,
    )


def test_nan_rewards_stop_the_run_and_are_named():
    with pytest.raises(training.NonFiniteError, match=r"rewards must be finite.*run 0 at update 0"):
        training.train(lambda _: sgd()(poisoned()), jax.random.split(jax.random.key(0), 1), num_updates=4, chunk=1)


def flat(corridor, rates, num_updates=4, **options):
    """θ ← θ + η ∇̂ρ without a baseline; η = 0 stands still and ∞ leaves the numbers at once."""
    build = lambda rate: training.make_trainer(
        corridor, TABULAR, estimators.make_estimator(TABULAR), optax.sgd(rate), num_episodes=2
    )
    keys = jax.random.split(jax.random.key(0), len(rates))
    return training.train(build, keys, jnp.asarray(rates), num_updates=num_updates, **options)


def test_divergence_is_named_also_after_the_last_update(corridor):
    for num_updates in (1, 4):
        with pytest.raises(training.NonFiniteError, match=r"parameters must be finite.*run 0 at update 0: .*the step"):
            flat(corridor, [jnp.inf], num_updates)


def test_a_gradient_of_nans_is_not_called_a_step_too_large():
    """The observations are NaN and the rewards are not: the environment is named, and not the step."""
    shown = jnp.full(1, jnp.nan, jnp.float32)
    nan_obs = dataclasses.replace(poisoned(), reset=lambda key, params: (jnp.int32(-9), shown))
    message = r"^observations must be finite.* at update 0: as the environment shows"
    with pytest.raises(training.NonFiniteError, match=message):
        training.train(lambda _: sgd()(nan_obs), jax.random.split(jax.random.key(0), 1), num_updates=1)


def test_one_run_that_fails_does_not_end_the_others(corridor):
    heard = []
    options = {"chunk": 2, "on_chunk": lambda done, metrics, states: heard.append(done)}
    with pytest.raises(training.NonFiniteError, match=r"^1 of 3 runs failed .*run 1 at update 0") as caught:
        flat(corridor, [0.1, jnp.inf, 0.2], **options)
    assert heard == [2, 4] and list(caught.value.failures) == [1]
    trained, good = caught.value.trained, flat(corridor, [0.1, 0.0, 0.2], **options)
    for run in (0, 2):
        one = lambda states, run=run: jax.tree.map(lambda x: x[run], states)
        same(one(trained.states), one(good.states), rtol=0)
        np.testing.assert_array_equal(trained.metrics["mean_return"][run], good.metrics["mean_return"][run])
    # A policy of NaNs plays on; its returns would look healthy.
    bad = trained.metrics["mean_return"][1]
    assert np.isfinite(bad[0]) and np.isnan(bad[1:]).all()


def test_where_no_run_is_left_training_ends(corridor):
    heard = []
    with pytest.raises(training.NonFiniteError, match=r"^2 of 2 runs failed: ") as caught:
        flat(corridor, [jnp.inf, jnp.inf], chunk=2, on_chunk=lambda done, *_: heard.append(done))
    assert heard == [] and caught.value.trained.metrics["mean_return"].shape == (2, 2)


def test_a_run_that_goes_on_counts_its_updates_from_its_start(corridor):
    states = flat(corridor, [0.1], num_updates=3).states
    with pytest.raises(training.NonFiniteError, match="run 0 at update 3:"):
        flat(corridor, [jnp.inf], states=states)


@pytest.mark.parametrize(
    ("keys", "more", "message"),
    [
        (jax.random.key(0), {}, r"keys must be typed keys of shape \[S\].*of shape \[\]; jax.random.split"),
        (jax.random.PRNGKey(0), {}, r"keys must be typed keys"),
        (3, {}, r"keys must be typed keys.*got int of shape \[\]"),
        (jax.random.split(jax.random.key(0), 0), {}, r"S ≥ 1 runs.*\[0\]"),
        (jax.random.split(jax.random.key(0), 2), {"hyperparams": 0.1}, r"hyperparams must have 2 rows.*\[\]"),
        (jax.random.split(jax.random.key(0), 2), {"hyperparams": np.ones(3)}, r"hyperparams must have 2 rows.*\[3\]"),
        (jax.random.split(jax.random.key(0), 2), {"states": np.ones(3)}, r"states must have 2 rows.*\[3\]"),
    ],
)
def test_what_does_not_belong_to_s_runs_is_refused(corridor, keys, more, message):
    with pytest.raises(ValueError, match=message):
        training.train(lambda _: sgd()(corridor), keys, num_updates=1, **more)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_episodes": 0}, "num_episodes.*0"),
        ({"num_episodes": 6, "microbatches": 4}, "microbatches must divide num_episodes=6, got 4"),
        ({"num_steps": 0}, "num_steps.*0"),
        ({"num_steps": 4, "microbatches": 2}, "microbatches must be 1"),
    ],
)
def test_bad_sizes_are_named(corridor, options, message):
    with pytest.raises(ValueError, match=message):
        sgd(**options)(corridor)


def test_seeds_differ_and_repeat(corridor):
    policy = networks.make_policy(corridor, hidden=(4,))
    trainer = training.make_trainer(
        corridor, policy, estimators.make_estimator(policy), optax.adam(0.01), num_episodes=4
    )
    run = runs_of(trainer, 2)
    first, again, other = (run(seed)[0].params for seed in (0, 0, 1))
    same(first, again, rtol=0)
    with pytest.raises(AssertionError):
        same(first, other, rtol=1e-3)
