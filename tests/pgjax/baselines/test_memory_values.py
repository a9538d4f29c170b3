"""A value with a memory: one pass over a whole answer, unbiased as a baseline, in any unit, and its own parameters."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from closeness import close, far
from memory_conformance import assert_memory_conforms
from policies import drawn

from pgjax import baselines, environments, estimators, networks, registry, rollouts
from pgjax.environments.text import make_text
from pgjax.types import Trajectory

EOS, T = 2, 3
ENVIRONMENT = make_text(
    [[0]],
    score=lambda buffer, params: jnp.sum(jnp.sin(buffer.tokens * 1.0 + jnp.arange(T + 1.0))) + 1.0,
    max_new_tokens=T,
    vocabulary=3,
    eos=EOS,
)
CONFIG = networks.GPT2Config(vocabulary=3, width=4, layers=1, heads=2, context=T + 1)
POLICY = networks.make_language_policy(ENVIRONMENT, CONFIG)
ADAM = optax.adam(0.02)
VALUE = networks.make_language_value(ENVIRONMENT, CONFIG)
RECALL = environments.make("recall", cues=2, delay=2)
GRU_VALUE = networks.make_value_network(RECALL, network="gru", hidden=(), network_options={"memory_size": 3})


def value_of(memory=VALUE.memory, apply=VALUE.apply, **options):
    return baselines.value_function(VALUE.init, apply, ADAM, memory=memory, **options)


def all_answers():
    """A batch that holds every answer once."""
    answers = [
        a for a in itertools.product(range(3), repeat=T) if not any(a[list(a).index(EOS) + 1 :] if EOS in a else ())
    ]

    def play(actions):
        state, obs = ENVIRONMENT.reset(jax.random.key(0), ENVIRONMENT.params)

        def one(carry, action):
            state, obs, alive = carry
            state, step = ENVIRONMENT.step(jax.random.key(0), state, action, ENVIRONMENT.params)
            after = jax.tree.map(lambda new, old: jnp.where(alive, new, old), step.obs, obs)
            row = {"obs": obs, "rewards": jnp.where(alive, step.reward, 0.0), "alive": alive}
            return (state, after, alive & ~step.terminated), row | {"terminated": alive & step.terminated}

        (_, final, _), rows = jax.lax.scan(one, (state, obs, jnp.asarray(True)), actions)
        return rows, final

    actions = jnp.asarray(answers).T
    rows, final = jax.jit(jax.vmap(play, 1, (1, 0)))(actions)
    return Trajectory(**rows, actions=actions, truncated=jnp.zeros_like(rows["alive"]), final_obs=final)


@pytest.fixture(scope="module")
def problem():
    """The batch of all answers, θ, φ, and values that have seen a batch: m = 0.3 and s = 2."""
    with jax.enable_x64(True):
        batch = all_answers()
        first = jax.tree.map(lambda x: x[0, 0], batch.obs)
        params = drawn(POLICY.init, first, "float64")
        phi = jax.tree.map(lambda x: x[..., ::-1] * 1.5, drawn(VALUE.init, first, "float64"))
        state = baselines.value_function(lambda key, obs: phi, VALUE.apply, ADAM).init(jax.random.key(0), batch)
        yield batch, params, state._replace(mean=jnp.float64(0.3), scale=jnp.float64(2.0))


def log_f(params, batch):
    """ln f(X_t, θ)_{A_t} `[T, N]`, from each buffer alone; 0 where not alive."""
    logits = jax.vmap(jax.vmap(POLICY.apply, (None, 0)), (None, 0))(params, batch.obs)
    of_actions = jnp.take_along_axis(jax.nn.log_softmax(logits), batch.actions[..., None], -1)[..., 0]
    return jnp.where(batch.alive, of_actions, 0.0)


def peeking(params, carry, obs, starts):
    """The wrong twin: row t reads the buffer after A_t."""
    after = jax.tree.map(lambda x: jnp.concatenate([x[1:], x[-1:]]), obs)
    return VALUE.memory.unroll(params, carry, after, starts)


def test_a_value_of_the_answer_leaves_the_gradient_unbiased_and_one_that_sees_the_token_does_not(problem):
    batch, params, state = problem

    @jax.jit
    def found(params, state):
        chances = lambda params: jnp.exp(jnp.sum(log_f(params, batch), axis=0))
        exact = jax.grad(lambda params: chances(params) @ jnp.sum(batch.rewards, axis=0))(params)
        p = chances(params)
        mean = lambda tree: jax.tree.map(lambda x: jnp.tensordot(p, x, 1), tree)
        of = lambda value: registry.make("gpomdp_value", registry.Parts(policy=POLICY, value=value))
        spying = value_of(VALUE.memory._replace(unroll=peeking))
        means = [mean(of(value).episode_gradients(params, state, batch)) for value in (value_of(), spying)]
        seen = spying.predict(state, batch)
        weighed = lambda params: p @ jnp.sum(seen * log_f(params, batch), axis=0)
        return exact, *means, jax.grad(weighed)(params), jnp.sum(p)

    exact, unbiased, biased, predicted, total = found(params, state)
    close(total, 1.0)
    close(unbiased, exact)
    # E Σ v(X_t, A_t) ∇ ln f is not 0, and the twin is wrong by just that.
    close(jax.tree.map(jnp.subtract, exact, biased), predicted)
    far(predicted["tokens"], 0.0)


def test_one_pass_gives_the_values_and_the_fit_that_row_after_row_gives(problem):
    batch, _, state = problem
    to_go = estimators.reward_to_go().compute(batch, None, None)

    @jax.jit
    def learn(state, unit):
        results = {}
        for name, memory in (("episodes", VALUE.memory), ("rows", None)):
            value, new, values = value_of(memory, num_steps=2, rows_per_piece=7), state, []
            for _ in range(2):
                used, new, metrics = value.predict_and_update(new, batch, to_go * unit)
                values.append(used)
            results[name] = (jnp.stack([*values, value.predict(new, batch)]), new, metrics)
        return results

    found = learn(state, 1.0)
    close(found["episodes"], found["rows"], atol=1e-9)
    values = np.asarray(found["episodes"][0])
    assert (values[:, ~np.asarray(batch.alive)] == 0).all() and np.abs(values[2] - values[1]).max() > 1e-2
    # A factor on all rewards is a factor on all values, and on nothing else.
    scaled = state._replace(mean=state.mean * 1e6, scale=state.scale * 1e6)
    values_scaled, _, metrics = learn(scaled, 1e6)["episodes"]
    np.testing.assert_allclose(values_scaled, 1e6 * values, rtol=1e-9)
    close(metrics, found["episodes"][2], atol=1e-9)


@pytest.mark.parametrize("name", ["language", "gru"])
def test_a_value_unrolls_as_it_steps(name, problem):
    with jax.enable_x64(True):
        if name == "language":
            batch, _, state = problem
            obs = jax.tree.map(lambda x: x[:, 0], batch.obs)
            values = assert_memory_conforms(VALUE, state.params, obs)
        else:
            obs = jnp.asarray(np.random.default_rng(0).standard_normal((T, 3)))
            values = assert_memory_conforms(GRU_VALUE, drawn(GRU_VALUE.init, obs[0], "float64"), obs)
    assert values.shape == (T,) and np.ptp(values) > 1e-3


def test_a_value_starts_from_the_body_of_a_language_model_with_a_head_of_its_own(problem):
    batch, params, _ = problem
    first = jax.tree.map(lambda x: x[0, 0], batch.obs)
    init = networks.make_language_value(ENVIRONMENT, CONFIG, params).init
    found = init(jax.random.key(0), first)
    assert jax.tree.structure(found) == jax.tree.structure(VALUE.init(jax.random.key(0), first))
    assert "head" not in params and found["head"]["kernel"].shape == (CONFIG.width, 1)
    assert all(found[name] is params[name] for name in params)
    assert np.abs(found["head"]["kernel"]).max() < 0.1
    with pytest.raises(ValueError, match="must have the 3 tokens of the language model"):
        networks.make_language_value(environments.make("reverse"), CONFIG)


def test_a_value_that_remembers_weighs_a_gru_and_refuses_what_needs_one_observation():
    policy = networks.make_policy(RECALL, network="gru", hidden=(), network_options={"memory_size": 3})
    value = baselines.value_function(GRU_VALUE.init, GRU_VALUE.apply, optax.adam(0.1), memory=GRU_VALUE.memory)
    parts = registry.Parts(policy=policy, value=value)
    estimator = registry.make("gpomdp_value", parts)

    @jax.jit
    def run(key):
        params = policy.init(key, jnp.zeros(3))
        batch = rollouts.episodes(RECALL, policy, params, jax.random.split(key, 16))
        batch = batch._replace(rewards=jnp.where(batch.alive, batch.obs[:1, :, 0], 0.0))  # the cue decides
        state = estimator.init(key, batch)
        state, metrics = jax.lax.scan(lambda s, _: estimator.gradient(params, s, batch)[1:], state, length=200)
        return metrics["unexplained_variance"]

    unexplained = run(jax.random.key(0))
    # A value of the last observation alone cannot know the cue later on.
    assert unexplained[-1] < 0.05
    with pytest.raises(ValueError, match="baseline must be a function of the observation"):
        registry.make("ppo_gae", parts)
    row = jnp.zeros((2, 1))
    window = Trajectory(row, row, row, row > 0, row > 0, row > 0, row[0], next_obs=row)
    with pytest.raises(ValueError, match="needs complete episodes, got a window"):
        value.predict((), window)
    with pytest.raises(ValueError, match="must have apply or memory, got None for both"):
        baselines.value_function(GRU_VALUE.init, None, optax.adam(0.1))
