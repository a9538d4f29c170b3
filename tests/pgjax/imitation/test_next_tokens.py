"""Next-token learning and sampling are one policy: the same log-probabilities, places and conventions."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from pgjax import automata, imitation, networks, rollouts, tokens, training
from pgjax.datasets import text
from pgjax.distributions import categorical
from pgjax.environments.text import make_text
from pgjax.types import Policy

LETTERS = tokens.Tokeniser(
    encode=lambda s: np.array(["ab".index(c) for c in s], np.uint8),
    decode=lambda x: "".join("ab"[i] for i in x if i < 2),
    token_bytes=(b"a", b"b", b"", b"", b""),
    eos=2,
    bos=3,
    pad=4,
)
PLACES = 7


@pytest.fixture(scope="module")
def written():
    """Episodes of a policy with random θ, with the log-probabilities that the rollout recorded."""
    score = automata.make_automaton(np.zeros((1, 5), int))
    environment = make_text([[3, 0], [3, 1]], score=score, max_new_tokens=5, vocabulary=5, eos=2)
    policy = networks.make_policy(environment, network="transformer", hidden=(8, 8), network_options={"heads": 2})
    _, obs = environment.reset(jax.random.key(0), environment.params)
    params = policy.init(jax.random.key(1), obs)
    params = jax.tree.map(lambda x: x + 0.3 * jax.random.normal(jax.random.key(2), x.shape), params)
    keys = jax.random.split(jax.random.key(3), 16)
    play = jax.jit(lambda: rollouts.episodes(environment, policy, params, keys, record_log_probs=True))
    return policy, params, play()


def test_the_log_probabilities_are_those_with_which_rollouts_wrote(written):
    policy, params, played = written
    buffers = np.asarray(played.final_obs.tokens)  # [B, L]
    lengths = np.asarray(played.alive).sum(axis=0)
    assert 1 <= lengths.min() < lengths.max() == 5
    full = buffers.copy()
    for lane, length in enumerate(lengths):
        full[lane, 2 : 2 + length] = np.asarray(played.actions)[:length, lane]
    found = np.asarray(jax.jit(lambda x: imitation.token_log_probs(policy, params, x))(full))
    for lane, length in enumerate(lengths):
        wanted = np.asarray(played.behaviour_log_probs)[:length, lane]
        np.testing.assert_allclose(found[lane, 1 : 1 + length], wanted, atol=1e-5)
    # The twin that is off by one place is seen.
    assert np.abs(found[:, 0] - np.asarray(played.behaviour_log_probs)[0]).max() > 0.01


def test_a_window_is_read_in_one_pass_as_apply_reads_its_prefixes(written):
    policy, params, _ = written
    window = jnp.array([[3, 0, 1, 1, 0, 2, 4]], jnp.uint8)
    found = imitation.token_log_probs(policy, params, window)[0]
    from pgjax.environments.text import TextBuffer

    for place in range(1, PLACES):
        written_so_far = jnp.where(jnp.arange(PLACES) < place, window[0], 0)
        obs = TextBuffer(tokens=written_so_far, length=jnp.int32(place), prompt_length=jnp.int32(1))
        logits = policy.apply(params, obs)
        np.testing.assert_allclose(found[place - 1], jax.nn.log_softmax(logits)[window[0, place]], atol=1e-5)


def test_next_token_learning_finds_the_text(written):
    policy, params, _ = written
    made = text.make_windows([text.Document("x", "abba"), text.Document("y", "ba")], LETTERS, PLACES)
    data = {"tokens": made.tokens, "counted": made.counted}
    loss = imitation.next_token_loss(policy)
    found = training.fit(
        jax.random.key(0), params, loss, data, optax.adam(0.03), num_epochs=150, batch_size=2, weights=made.weights
    )
    # Two texts, which differ from the first token on: ln 2 nats for the choice, spread over (5 + 3) tokens of both.
    np.testing.assert_allclose(found.metrics["train_loss"][-1], 2 * np.log(2) / 8, atol=0.02)
    # Padding is masked: its log-probabilities have no influence on the loss.
    other = {**data, "tokens": np.where(made.tokens == 4, 0, made.tokens)}
    np.testing.assert_allclose(loss(found.params, data), loss(found.params, other), atol=1e-6)


def test_a_policy_that_looks_behind_the_written_places_finds_nothing_there():
    peeking = Policy(
        init=lambda key, obs: (),
        apply=lambda params, obs: 5.0 * jax.nn.one_hot(obs.tokens[obs.length].astype(jnp.int32), 3),
        distribution=categorical,
    )
    window = jnp.array([[0, 1, 2, 1, 2]], jnp.uint8)
    assert (imitation.token_log_probs(peeking, (), window) < -5.0).all()
