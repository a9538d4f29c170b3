"""Reward models of text: features, normalisation, ensembles, and how they pay."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pgjax import environments, networks, rewards, rollouts
from pgjax.environments.text import TextBuffer, make_text
from pgjax.preferences import reward_models
from pgjax.preferences.reward_models import combine, joined, length, linear, mlp, ngrams, normalise, normalised
from pgjax.types import Trajectory

BUFFER = TextBuffer(
    tokens=jnp.array([1, 1, 1, 0, 1, 1, 2, 0], jnp.uint8), length=jnp.int32(7), prompt_length=jnp.int32(2)
)


def test_features_are_of_the_answer_alone():
    assert length(5.0)(BUFFER).tolist() == [1.0]
    assert ngrams(3)(BUFFER).tolist() == [1.0, 3.0, 1.0]
    pairs = np.zeros((3, 3))
    for a, b in [(1, 0), (0, 1), (1, 1), (1, 2)]:
        pairs[a, b] += 0.5
    assert ngrams(3, n=2, scale=2.0)(BUFFER).tolist() == pairs.ravel().tolist()
    assert joined(length(), ngrams(3))(BUFFER).tolist() == [5.0, 1.0, 3.0, 1.0]
    assert ngrams(2, n=12)(BUFFER).shape == (4096,)
    empty = BUFFER._replace(length=BUFFER.prompt_length)
    assert not joined(length(), ngrams(3, n=2))(empty).any()
    with pytest.raises(ValueError, match="at most 65536 features, got 256\\^3"):
        ngrams(256, n=3)
    both = jax.tree.map(lambda x: jnp.stack([x, x])[None], BUFFER)
    assert reward_models.features_of(ngrams(3), both).shape == (1, 2, 3)


def test_normalised_rewards_have_mean_0_and_standard_deviation_1_on_the_reference():
    model, observations = mlp((4,)), jax.random.normal(jax.random.key(0), (50, 3))
    params = jax.tree.map(lambda x: x + 0.3, model.init(jax.random.key(1), observations[0]))
    chances = jax.random.uniform(jax.random.key(2), (50,)) * jnp.arange(50) % 2
    found = normalise(model, params, observations, chances)
    r = jax.vmap(normalised(model).apply, (None, 0))(found, observations)
    mean = jnp.average(r, weights=chances)
    np.testing.assert_allclose([mean, jnp.average((r - mean) ** 2, weights=chances)], [0, 1], atol=1e-5)
    before = jax.vmap(model.apply, (None, 0))(params, observations)
    np.testing.assert_allclose(jnp.corrcoef(r, before)[0, 1], 1.0, rtol=1e-5)
    slopes = jax.grad(normalised(model).apply)(found, observations[0])
    assert slopes.gain == 0 and slopes.bias == 0
    constant = normalise(linear(), jnp.zeros(3), observations)
    assert (constant.gain, constant.bias) == (1, 0)
    # The mean of these equal rewards is rounded, so their variance is not 0.
    rounded = normalise(linear(), jnp.array([0.1]), jnp.ones((1000, 1)))
    assert rounded.gain == 1 and abs(rounded.bias + 0.1) < 1e-6


def test_combinations_of_an_ensemble():
    scores = jnp.array([[1.0, 0.0], [3.0, 0.0]])
    assert combine(scores).tolist() == [2.0, 0.0]
    assert combine(scores, "worst").tolist() == [1.0, 0.0]
    assert combine(scores, "penalised", 0.5).tolist() == [1.5, 0.0]
    model = reward_models.ensemble(mlp((4,)), 3, "worst")
    params = model.init(jax.random.key(0), jnp.zeros(2))
    x = jnp.array([1.0, -2.0])
    members = [mlp((4,)).apply(jax.tree.map(lambda p: p[i], params), x) for i in range(3)]
    assert len(set(map(float, members))) == 3
    np.testing.assert_allclose(model.apply(params, x), min(members), rtol=1e-5)
    with pytest.raises(ValueError, match="'mean', 'worst', 'penalised', got 'median'"):
        combine(scores, "median")
    with pytest.raises(ValueError, match="penalty must be at least 0, got -1"):
        combine(scores, "penalised", -1.0)


def trajectory(alive, **more):
    alive = jnp.array(alive)
    false = jnp.zeros_like(alive)
    obs = jnp.ones((*alive.shape, 1))
    fields = {"obs": obs, "actions": alive.astype(int), "rewards": jnp.full(alive.shape, 9.0), "alive": alive}
    final = jnp.arange(1.0, alive.shape[1] + 1)[:, None]
    return Trajectory(**fields, terminated=false, truncated=false, final_obs=final, **more)


def test_the_score_is_paid_once_at_the_last_live_step():
    stage = reward_models.stage(linear(), jnp.array([2.0]))
    episodes = trajectory([[True, True, True], [True, False, True], [False, False, True]])
    paid, metrics = stage.relabel((), stage.init(jax.random.key(0), ()), episodes)
    assert paid.rewards.tolist() == [[0.0, 4.0, 0.0], [2.0, 0.0, 0.0], [0.0, 0.0, 6.0]]
    assert metrics["environment_return"] == 27.0
    with pytest.raises(ValueError, match="complete episodes, got a window"):
        stage.relabel(
            (), rewards.RewardModelState(params=jnp.array([2.0])), trajectory([[True]], next_obs=jnp.ones((1, 1, 1)))
        )


def test_the_same_model_as_the_score_of_a_text_environment_and_as_a_stage_pays_the_same():
    """Answers that end with EOS, and answers that the limit cuts off."""
    model = reward_models.on_features(linear(), joined(length(), ngrams(4)))
    phi = jnp.array([1.0, 0.5, -0.5, 2.0, 10.0])
    text = make_text(
        [[0, 1], [2, 0]],
        score=reward_models.as_score(model),
        score_params=phi,
        max_new_tokens=4,
        vocabulary=4,
        eos=3,
        prompt_lengths=[2, 1],
    )
    policy = networks.make_policy(text, hidden=())
    params = policy.init(jax.random.key(0), text.reset(jax.random.key(0), text.params)[1])
    found = rollouts.episodes(text, policy, params, jax.random.split(jax.random.key(1), 32))
    lengths = found.alive.sum(0)
    assert lengths.min() < 4 and (found.final_obs.tokens.max(-1) < 3).any()
    np.testing.assert_allclose(reward_models.terminal_rewards(model)(phi, found), found.rewards, rtol=1e-6)
    assert (jnp.abs(found.rewards).sum(0) > 0).all()


def test_a_value_network_is_a_reward_model():
    corridor = environments.make("corridor")
    model = reward_models.from_network(networks.make_value(corridor, hidden=(4,)))
    obs = corridor.reset(jax.random.key(0), corridor.params)[1]
    params = model.init(jax.random.key(0), obs)
    assert model.apply(params, obs).shape == ()
    assert max(jnp.abs(x).max() for x in jax.tree.leaves(jax.grad(model.apply)(params, obs))) > 0
