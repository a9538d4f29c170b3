"""The rules of an answer: where it ends, what is paid and when, and what nobody may see."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from policies import drawn

from pgjax import automata, environments, networks, rollouts
from pgjax.environments.text import answer, make_text

EOS, VOCABULARY, LIMIT = 3, 5, 4
PROMPTS = np.array([[0, 1, 2], [2, 4, 4]])
# One point for each 1, a tenth for EOS, and 7 if the last token is a 2.
SCORE = automata.make_automaton(
    np.tile(np.array([0, 0, 1, 0, 0]), (2, 1)),
    rewards=np.tile(np.array([0.0, 1.0, 0.0, 0.1, 0.0]), (2, 1)),
    final=np.array([0.0, 7.0]),
)


def make(**options):
    arguments = {"score": SCORE, "max_new_tokens": LIMIT, "vocabulary": VOCABULARY, "eos": EOS} | options
    return make_text(PROMPTS, prompt_lengths=[3, 1], **arguments)


def play(environment, actions):
    """The steps of one episode with these actions."""
    state, _ = environment.reset(jax.random.key(0), environment.params)
    steps = []
    for action in actions:
        state, step = environment.step(jax.random.key(1), state, jnp.int32(action), environment.params)
        steps.append(step)
    return steps


def written_by_a_transformer(environment, num_episodes, **options):
    """A batch of a random transformer."""
    policy = networks.make_policy(environment, network="transformer", hidden=(8,), network_options={"heads": 2})
    obs = environment.reset(jax.random.key(0), environment.params)[1]
    params = drawn(policy.init, obs)
    play_all = jax.jit(lambda keys: rollouts.episodes(environment, policy, params, keys, **options))
    return jax.device_get(play_all(jax.random.split(jax.random.key(1), num_episodes)))


def test_the_environment_keeps_the_contract():
    assert environments.check(make()).terminations > 0
    assert environments.check(make(eos=None, allowed=[True, True, False, False, True])).random_reset


@pytest.mark.parametrize(
    ("actions", "paid"),
    [([1, 1, EOS], 2.1), ([EOS], 0.1), ([1, 0, 0, 2], 8.0), ([1, 1, 1, EOS], 3.1)],
)
def test_the_score_is_paid_once_at_the_end(actions, paid):
    steps = play(make(), actions)
    assert [bool(step.terminated) for step in steps] == [False] * (len(actions) - 1) + [True]
    np.testing.assert_allclose([step.reward for step in steps], [0.0] * (len(actions) - 1) + [paid], rtol=1e-6)


@pytest.mark.parametrize(("rule", "cut_off"), [("keep", 4.0), ("subtract", 1.5), ("replace", 2.5)])
def test_the_rule_for_a_missing_eos_touches_only_answers_without_one(rule, cut_off):
    environment = make(missing_eos=rule, missing_eos_value=2.5)
    np.testing.assert_allclose(play(environment, [1, 1, 1, 1])[-1].reward, cut_off)
    np.testing.assert_allclose(play(environment, [1, EOS])[-1].reward, 1.1, rtol=1e-6)


def test_a_score_function_sees_the_whole_buffer_and_pays_the_same():
    def of_buffer(buffer, automaton):
        return automata.score(automaton, *answer(buffer))

    by_function = make(score=of_buffer, score_params=jax.tree.map(jnp.asarray, SCORE))
    for actions in ([1, 2, EOS], [1, 2, 2, 2]):
        np.testing.assert_allclose(play(by_function, actions)[-1].reward, play(make(), actions)[-1].reward)


def test_prompts_are_followed_directly_by_answers_and_groups_share_them():
    batch = written_by_a_transformer(make(), 16, group_size=4)
    final = batch.final_obs
    starts = np.asarray(final.prompt_length).reshape(4, 4)
    assert (starts == starts[:, :1]).all()
    assert set(starts.ravel()) == {1, 3}
    for lane in range(16):
        first, length = int(final.prompt_length[lane]), int(final.length[lane])
        written = np.asarray(final.tokens[lane, first:length])
        alive = np.asarray(batch.alive[:, lane])
        np.testing.assert_array_equal(written, np.asarray(batch.actions[alive, lane]))
        assert EOS not in written[:-1]
        assert (np.asarray(final.tokens[lane, length:]) == 0).all()
        # The reward stands in the row of the last token, EOS included.
        assert np.flatnonzero(np.asarray(batch.rewards[:, lane]) != 0).tolist() in ([alive.sum() - 1], [])
        assert bool(batch.terminated[alive.sum() - 1, lane])
    assert not np.asarray(batch.truncated).any()


def test_masked_tokens_are_never_written():
    environment = make(allowed=np.array([True, True, False, True, False]))
    batch = written_by_a_transformer(environment, 32)
    assert not np.isin(np.asarray(batch.actions)[np.asarray(batch.alive)], [2, 4]).any()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"eos": 5}, r"eos must be in \[0, 4\], got 5"),
        ({"eos": None, "missing_eos": "replace"}, "missing_eos must be 'keep' if eos is None"),
        ({"missing_eos": "drop"}, "missing_eos must be"),
        ({"vocabulary": 4}, r"prompts must hold tokens in \[0, 3\], got 4"),
        ({"vocabulary": 6}, "score must read a vocabulary of 6 tokens, got 5"),
        ({"max_new_tokens": 0}, "max_new_tokens must be at least 1, got 0"),
        ({"allowed": np.zeros(5, bool)}, "at least one true entry"),
        ({"score": 3}, "score must be an Automaton or a function"),
    ],
)
def test_bad_arguments_are_refused(options, said):
    with pytest.raises(ValueError, match=said):
        make(**options)
