"""The divergence in the reward and in the loss: the expected gradient of every form, on all 4⁴ answers."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from closeness import close, far
from policies import tabular
from token_trees import ByHand, as_params, make_tree, slopes, values

from pgjax import advantages, baselines, estimators, exact, losses, rewards, training
from pgjax.distributions import categorical
from pgjax.estimators.natural import softmax_inverse_fisher
from pgjax.types import Memory, Policy, Trajectory

KEY = jax.random.key(0)
POLICY = Policy(init=lambda key, obs: jnp.zeros((obs.shape[0], 4)), apply=tabular, distribution=categorical)
KINDS, SAMPLED = ("k1", "k2", "k3", "full"), ("k1", "k2", "k3")
LEVELS = ("token", "sequence")
COEF = 0.3
LOSSES = [(kind, level, "none") for kind in SAMPLED for level in LEVELS]
LOSSES += [("full", "token", "none"), *((kind, level, "importance") for kind in ("k1", "k3") for level in LEVELS)]


def name_of(*words):
    return " ".join(words)


@pytest.fixture(scope="module")
def x64_module():
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="module")
def by_hand(x64_module):
    draw = np.random.default_rng(4).standard_normal
    tree = make_tree(4, 4, draw(256))
    return ByHand(tree, 0.5 * draw((85, 4)), 0.5 * draw((85, 4)))


@pytest.fixture(scope="module")
def found(by_hand):
    """Placement and form → the expected gradient of the penalty alone, over −β: what should be ∇KL."""
    every = exact.enumerate_trajectories(by_hand.tree.mdp)
    params, reference = as_params(by_hand.log_f), as_params(by_hand.log_ref)
    no_rewards = rewards.relabel(every.trajectories, jnp.zeros_like(every.trajectories.rewards))

    @jax.jit
    def run(params, reference, coef):
        p = exact.trajectory_probabilities(tabular, params, every)
        expect = lambda summands: jnp.tensordot(p, summands, 1)[:-1] / -coef
        acted = estimators.record_behaviour(POLICY, params, no_rewards)
        paid, means = {}, {}
        for kind in KINDS:
            for level in LEVELS:
                stage = rewards.kl_penalty(POLICY, COEF, reference, kind=kind, level=level)
                batch, _ = stage.relabel(params, stage.init(KEY, params)._replace(kl_coef=coef), acted)
                paid[name_of("reward", kind, level)] = batch.rewards
        to_go = estimators.make_estimator(POLICY, returns=estimators.reward_to_go())
        each = lambda paid: to_go.episode_gradients(params, (), acted._replace(rewards=paid))
        stacked = jax.vmap(each)(jnp.stack(list(paid.values())))
        means |= {name: expect(stacked[i]) for i, name in enumerate(paid)}
        for kind, level, ratio in LOSSES:
            made = estimators.kl_loss(POLICY, COEF, reference, kind=kind, level=level, ratio=ratio)
            state = made.init(KEY, acted)._replace(kl_coef=coef)
            summands = made.episode_gradients(params, state, acted)
            means[name_of("loss", kind, level, ratio)] = expect(summands)
            gradient, _, metrics = made.gradient(params, state, acted)
            means[name_of("gap", kind, level, ratio)] = jnp.abs(jnp.mean(summands, axis=0) - gradient).max()
            means[name_of("metric", kind, level, ratio)] = metrics["kl_loss"]
        means["paid"] = paid
        return means

    return jax.tree.map(np.asarray, run(params, reference, jnp.asarray(COEF)))


def norm_and_cosine(x, y):
    lengths = np.linalg.norm(x), np.linalg.norm(y)
    return lengths[0] / lengths[1], np.vdot(x, y) / lengths[0] / lengths[1]


def test_the_exact_forms_are_exact(by_hand, found):
    right = by_hand.gradient
    assert np.abs(right).max() > 0.02
    for level in LEVELS:
        close(found[name_of("reward", "k1", level)], right)
    close(found[name_of("loss", "k2", "sequence", "none")], right)
    # In the reward and in the loss together.
    for kind, level in (("full", "token"), ("k3", "token"), ("k3", "sequence"), ("k1", "token")):
        close(found[name_of("reward", kind, level)] + found[name_of("loss", kind, level, "none")], right)
    for kind in ("k1", "k3"):
        close(found[name_of("loss", kind, "sequence", "importance")], right)


@pytest.mark.parametrize("kind", SAMPLED)
def test_each_sampled_form_is_what_its_formula_says(kind, by_hand, found):
    steps, whole = by_hand.ratios, by_hand.ratios.sum(1, keepdims=True)
    close(found[name_of("loss", kind, "token", "none")], by_hand.weighted(slopes(kind, steps)))
    close(found[name_of("loss", kind, "sequence", "none")], by_hand.weighted(slopes(kind, whole)))
    close(found[name_of("reward", kind, "token")], by_hand.weighted(values(kind, steps).sum(1, keepdims=True)))
    close(found[name_of("reward", kind, "sequence")], by_hand.weighted(values(kind, whole)))
    paid = found["paid"][name_of("reward", kind, "sequence")]
    assert not paid[:-1].any() and np.ptp(paid[-1]) > 0.1


def test_losses_of_single_steps_follow_the_divergences_of_states(by_hand, found):
    of_states = by_hand.of_states(by_hand.log_f, by_hand.log_ref)
    for kind, ratio in (("k2", "none"), ("full", "none"), ("k1", "importance"), ("k3", "importance")):
        close(found[name_of("loss", kind, "token", ratio)], of_states)
    close(found[name_of("loss", "k3", "token", "none")], by_hand.of_states(by_hand.log_ref, by_hand.log_f))
    for level in LEVELS:
        close(found[name_of("loss", "k1", level, "none")], np.zeros((85, 4)))
    # The reverse divergence of whole answers, by the scores of the reference's own answers.
    taken = (by_hand.tree.states, by_hand.tree.answers)
    drawn = np.exp(by_hand.log_ref[taken].sum(1))
    close(found[name_of("loss", "k3", "sequence", "none")], -np.einsum("n,ntsa->sa", drawn, by_hand.scores))


def test_the_wrong_forms_are_wrong(by_hand, found):
    """The digits depend on the logits, and k3 in the reward may even point away from ∇KL."""
    right = by_hand.gradient
    assert 0.5 < by_hand.divergence < 1.2
    k2, k3, paid = (
        norm_and_cosine(found[name_of(*form)], right)
        for form in (("loss", "k2", "token", "none"), ("loss", "k3", "token", "none"), ("reward", "k3", "token"))
    )
    assert all(0.9 < cosine < 0.995 for _, cosine in (k2, k3)) and paid[1] < 0.8 and paid[0] < 0.9
    # A penalty with the other sign is off by exactly −2 ∇KL.
    close(-found[name_of("reward", "k1", "token")] - right, -2 * right)


def test_episodes_average_to_the_gradient_and_the_metric_is_the_mean_of_k(by_hand, found):
    assert max(gap for name, gap in found.items() if name.startswith("gap")) < 1e-13
    steps, whole = by_hand.ratios, by_hand.ratios.sum(1)
    for kind in SAMPLED:
        close(found[name_of("metric", kind, "token", "none")], values(kind, steps).mean())
        close(found[name_of("metric", kind, "sequence", "none")], values(kind, whole).mean())


def ragged(draw):
    """Six episodes of 1 to 4 steps, with padding that holds nonsense."""
    alive = np.arange(4)[:, None] < np.array([1, 4, 2, 3, 4, 1])
    ends = alive & ~np.concatenate([alive[1:], np.zeros((1, 6), bool)])
    return Trajectory(
        obs=jnp.asarray(np.where(alive[..., None], draw((4, 6, 3)), 1e3)),
        actions=jnp.asarray(np.abs(100 * draw((4, 6))).astype(np.int32) % 4),
        rewards=jnp.asarray(np.where(alive, draw((4, 6)), 0.0)),
        alive=jnp.asarray(alive),
        terminated=jnp.asarray(ends),
        truncated=jnp.asarray(np.zeros((4, 6), bool)),
        final_obs=jnp.asarray(draw((6, 3))),
    )


def test_the_loss_is_added_up_over_steps_as_it_says(x64):
    draw = np.random.default_rng(2).standard_normal
    batch, params, reference = ragged(draw), jnp.asarray(draw((3, 4))), jnp.asarray(draw((3, 4)))
    words = ("sum", "mean", "episode_mean", "horizon")

    @jax.jit
    def run(params, reference):
        obs = jnp.where(batch.alive[..., None], batch.obs, 0.0)
        of = lambda theta: jax.vmap(jax.vmap(categorical.log_prob))(obs @ theta, batch.actions)
        loss = lambda theta, word: advantages.aggregate(
            losses.kl_k3(of(theta), of(reference)).T, batch.alive.T, over_time=word
        )
        wanted = {word: -COEF * jax.grad(loss)(params, word) for word in words}
        made = {word: estimators.kl_loss(POLICY, COEF, reference, kind="k3", over_time=word) for word in words}
        found = {word: one.gradient(params, one.init(KEY, batch), batch)[0] for word, one in made.items()}
        plain = {word: estimators.make_estimator(POLICY, over_time=word) for word in ("sum", "horizon")}
        return wanted, found, {word: one.gradient(params, (), batch)[0] for word, one in plain.items()}

    wanted, found, plain = run(params, reference)
    close(found, wanted)
    close(found["horizon"], found["sum"] / 4)
    close(plain["horizon"], plain["sum"] / 4)
    far(found["mean"], found["episode_mean"])
    far(found["mean"], found["horizon"])


def test_a_sum_of_estimators_is_their_sum(x64):
    draw = np.random.default_rng(3).standard_normal
    batch, params, reference = ragged(draw), jnp.asarray(draw((3, 4))), jnp.asarray(draw((3, 4)))
    base = estimators.make_estimator(POLICY, baseline=baselines.moving_average(0.5))
    term = estimators.kl_loss(POLICY, COEF, reference, kind="k2")
    both = estimators.sum_of(base, term)
    state = both.init(KEY, batch)
    assert both.needs == base.needs and not both.fits_windows

    @jax.jit
    def run(state):
        one, other = base.gradient(params, state[0], batch), term.gradient(params, state[1], batch)
        return one, other, both.gradient(params, state, batch), both.episode_gradients(params, state, batch)

    (one, moved, _), (other, _, metrics), (together, new, more), each = run(state)
    close(together, one + other)
    close(jnp.mean(each, axis=0), together)
    close(new[0], moved)
    assert more["kl_loss"] == metrics["kl_loss"] and "entropy" in more
    # β and θ_ref are state: at the reference itself, and with β = 0, nothing is left of the term.
    for changed in (state[1]._replace(kl_coef=jnp.zeros(())), state[1]._replace(reference=params)):
        close(run((state[0], changed))[2][0], one)


def test_a_policy_with_memory_has_the_gradient_of_its_twin_without(x64):
    """The memory is the sum of the observations; the twin sees that sum."""
    draw = np.random.default_rng(5).standard_normal
    batch, params, reference = ragged(draw), jnp.asarray(draw((3, 4))), jnp.asarray(draw((3, 4)))
    batch = batch._replace(obs=jnp.asarray(draw((4, 6, 3))))
    step = lambda params, carry, obs: (carry + obs, (carry + obs) @ params)
    remembering = Policy(
        init=POLICY.init,
        apply=None,
        distribution=categorical,
        memory=Memory(start=lambda params, obs: jnp.zeros(3), step=step, unroll=None),
    )
    forms = ({"kind": "full"}, {"kind": "k3"}, {"kind": "k2", "level": "sequence"})

    @jax.jit
    def run(params, reference):
        found = []
        for policy, seen in ((remembering, batch), (POLICY, batch._replace(obs=jnp.cumsum(batch.obs, axis=0)))):
            made = [estimators.kl_loss(policy, COEF, reference, **form) for form in forms]
            found.append([one.gradient(params, one.init(KEY, seen), seen)[0] for one in made])
        return found

    with_memory, without = run(params, reference)
    close(with_memory, without)
    assert min(float(jnp.abs(x).max()) for x in without) > 0.01


def test_the_coefficient_and_the_reference_change_between_updates_without_compiling():
    environment = exact.to_environment(exact.make_bandit([1.0, 0.5, 0.0, 0.9]))
    policy = POLICY._replace(apply=lambda table, obs: obs @ table, init=lambda key, obs: jnp.zeros((1, 4)))
    reference = jnp.asarray([[1.0, 0.0, 0.0, 0.0]])
    both = estimators.sum_of(estimators.make_estimator(policy), estimators.kl_loss(policy, 0.1, reference, kind="full"))
    trainer = training.make_trainer(environment, policy, both, optax.sgd(0.1), num_episodes=8)
    chex.clear_trace_counter()
    update = jax.jit(chex.assert_max_traces(trainer.update, n=1))
    start = trainer.init(KEY)

    def after(kl_coef, reference):
        own = start.estimator_state[1]
        own = own._replace(kl_coef=jnp.full_like(own.kl_coef, kl_coef), reference=reference)
        state, metrics = update(start._replace(estimator_state=(start.estimator_state[0], own)))
        return np.asarray(state.params[0]), float(metrics["kl_loss"])

    (free, kl), (pulled, _), (there, nothing) = after(0.0, reference), after(2.0, reference), after(2.0, start.params)
    assert kl > 0.1 and nothing == 0.0
    # The step of SGD is linear in the gradient: η β times −∇KL(π ‖ π_ref) at the uniform policy.
    of_kl = jax.grad(categorical.kl)(start.params[0], reference[0])
    np.testing.assert_allclose(pulled - free, -0.1 * 2.0 * of_kl, atol=1e-6)
    np.testing.assert_allclose(there, free, atol=1e-6)


def divergences_after(kl_coefs, gradient_of, start, reference, steps, natural):
    """KL(π ‖ π_ref) of four arms after ascent on the expected gradient, for each β, in one program."""

    def ascend(kl_coef):
        step = lambda x: (
            softmax_inverse_fisher(x, gradient_of(x, kl_coef)) * 0.5 / kl_coef
            if natural
            else (0.2 * gradient_of(x, kl_coef))
        )
        theta = jax.lax.fori_loop(0, steps, lambda _, x: x + step(x), start)
        return categorical.kl(theta[0], reference[0])

    return np.asarray(jax.jit(jax.vmap(ascend))(jnp.asarray(kl_coefs)))


def test_a_larger_coefficient_lowers_the_divergence_and_the_sign_of_the_lecture_raises_it(x64):
    """E[r − β ln(π/π_ref)] against E[r + β ln(π/π_ref)], which is what the lecture prints."""
    every = exact.enumerate_trajectories(exact.make_bandit([1.0, 0.5, 0.0, 0.9]))
    reference = jnp.log(jnp.asarray([[0.1, 0.2, 0.4, 0.3]]))
    stage = rewards.kl_penalty(POLICY, 1.0, reference)
    score = estimators.make_estimator(POLICY, returns=estimators.total_return())
    loss = estimators.kl_loss(POLICY, 1.0, reference, kind="k2")

    def by_reward(theta, kl_coef):
        batch = estimators.record_behaviour(POLICY, theta, every.trajectories)
        batch, _ = stage.relabel(theta, stage.init(KEY, theta)._replace(kl_coef=kl_coef), batch)
        p = exact.trajectory_probabilities(tabular, theta, every)
        return jnp.tensordot(p, score.episode_gradients(theta, (), batch), 1)

    def by_loss(theta, kl_coef):
        both, p = estimators.sum_of(score, loss), exact.trajectory_probabilities(tabular, theta, every)
        own = loss.init(KEY, every.trajectories)._replace(kl_coef=kl_coef)
        return jnp.tensordot(p, both.episode_gradients(theta, ((), own), every.trajectories), 1)

    coefs = (0.2, 0.4, 1.0)
    wanted = []
    for kl_coef in coefs:
        best = np.exp(np.asarray(reference[0]) + np.array([1.0, 0.5, 0.0, 0.9]) / kl_coef)
        wanted.append(np.sum(best / best.sum() * (np.log(best / best.sum()) - np.asarray(reference[0]))))
    for gradient_of in (by_reward, by_loss):
        found = divergences_after(coefs, gradient_of, reference, reference, steps=80, natural=True)
        close(found, np.array(wanted), atol=1e-6)
        assert found[0] > found[1] > found[2] > 0
    # The printed sign is ours with −β: from near the reference, it goes away from it the faster the larger β is.
    start = reference.at[0, 0].add(0.01)
    away = divergences_after((0.0, -0.3, -1.0), by_reward, start, reference, steps=60, natural=False)
    assert away[2] > away[1] > away[0] > 0.1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"kind": "k4"}, "kind must be one of 'k1', 'k2', 'k3', 'full', got 'k4'"),
        ({"kind": "k1", "level": "answer"}, "level must be one of 'token', 'sequence', got 'answer'"),
        ({"kind": "k1", "over_time": "max"}, "over_time must be one of"),
        ({"kind": "k1", "ratio": "own"}, "ratio must be one of"),
        ({"kind": "full", "level": "sequence"}, "kind 'full' must have level='token'"),
        ({"kind": "k1", "kl_coef": -1.0}, "kl_coef must be at least 0"),
    ],
)
def test_bad_words_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        estimators.kl_loss(POLICY, **({"kl_coef": 0.1, "reference": jnp.zeros((2, 4))} | options))


def test_terms_that_need_different_groups_are_refused():
    made = [estimators.make_estimator(POLICY, baseline=baselines.leave_one_out(group_size=k)) for k in (2, 3)]
    with pytest.raises(ValueError, match=r"must need the same group size, got \[2, 3\]"):
        estimators.sum_of(*made)
    with pytest.raises(ValueError, match="at least one estimator"):
        estimators.sum_of()
