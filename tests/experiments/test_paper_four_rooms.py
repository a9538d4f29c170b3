"""Four rooms: the paper's comparison at a tiny size, and the actor-critic against the oracle."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import four_rooms
from experiments.four_rooms import learning as training
from experiments.four_rooms import targets as paper
from experiments.harness import runner
from experiments.harness import targets as papers
from experiments.harness.verdicts import Verdict, otherwise
from pgjax import estimators, exact

NAME = "four_rooms"


def verdicts_of(directory):
    return json.loads((directory / "paper.json").read_text())["verdicts"]


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return runner.execute(
        NAME, four_rooms.TINY, four_rooms.run, four_rooms.plot, output_dir=tmp_path_factory.mktemp("results")
    )


def test_what_is_exact_agrees_and_one_reference_is_unfinished(directory):
    verdicts = verdicts_of(directory)
    facts = {key for key in verdicts if key.startswith(("value (", "steps ("))} | {"changed", "rooms", "no rooms"}
    assert len(facts) == 9 and {verdicts[key] for key in facts} == {"agrees"}
    assert {key for key, verdict in verdicts.items() if otherwise(verdict)} == {"uniform"}
    assert {verdicts[paper.key_of("natural", epsilon, 100)] for epsilon in (-0.5, 0.5)} == {"agrees"}
    assert verdicts["value"] == Verdict.NOT_MEASURED  # too early for an order
    assert (directory / "four_rooms.png").stat().st_size > 10_000


def test_curves_are_recorded(directory):
    raw = np.load(directory / "curves.npz")
    assert raw["released_natural_endless_-0.5_objective"].shape == (8, 3)
    for geometry, before in (("described", 0.152), ("released", 0.230)):
        np.testing.assert_allclose(raw[f"{geometry}_natural_endless_0.5_objective"][:, 0], before, atol=5e-4)
    np.testing.assert_allclose(raw["described_vanilla_endless_0.5_action_entropy"][:, 0], np.log(4))
    lines = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    assert len(lines) == 3 * 2 * 3 and lines[0]["objective"] == pytest.approx(0.15194478, abs=1e-8)
    # Cut at 100 steps the same policy is worth less.
    assert lines[0]["cut_objective"] == pytest.approx(0.10030118, abs=1e-8)


def test_the_reference_before_learning_is_a_dynamic_program_of_59_sweeps(x64):
    """V_n = the value of n steps + γⁿ P(still running) / 2: 0.2831 at n = 59, and with one sweep more not 0.283."""
    mdp = training.numbered("described", 61)
    visits = np.asarray(exact.visitation(mdp, jnp.full((100, 4), 0.25)))
    powers = training.DISCOUNT ** np.arange(61)
    gained = np.cumsum(powers * (visits @ np.asarray(mdp.rewards).mean(axis=(1, 2))))
    after = lambda sweeps: gained[sweeps - 1] + 0.5 * powers[sweeps] * visits[sweeps].sum()
    assert round(after(59), 4) == 0.2831 and round(after(60), 3) != 0.283


@pytest.fixture(scope="module")
def small():
    """A deterministic problem of four states, three actions and four steps that seldom ends; a table, not uniform."""
    with jax.enable_x64(True):
        mdp = exact.make_tabular_mdp(
            initial=[0.5, 0.3, 0.2, 0.0],
            successors=np.array([[1, 0, 2], [2, 1, 0], [0, 2, 3], [3, 3, 3]])[:, :, None],
            probabilities=np.ones((4, 3, 1)),
            rewards=np.array([[0.3, -0.2, 0.5], [1.0, 0.1, -0.6], [0.2, 0.7, 1.0], [9.0, 9.0, 9.0]])[:, :, None],
            terminal=[False, False, False, True],
            observations=np.arange(4, dtype=np.int32),
            horizon=4,
        )
        yield mdp, jnp.asarray([[1.0, -0.5, 0.2], [-1.2, 0.4, 0.3], [0.1, 0.9, -0.8], [0.0, 0.0, 0.0]])


def test_entropies_are_those_of_the_steps_of_an_episode(small, x64):
    """Twins: action entropies not weighted by the visits; the shares of visits taken for their logarithms."""
    mdp, params = small
    policy = np.exp(params) / np.exp(params).sum(axis=1, keepdims=True)
    successors, running = np.asarray(mdp.successors)[..., 0], ~np.asarray(mdp.terminal)
    here, visits = np.asarray(mdp.initial), np.zeros(4)
    for _ in range(mdp.horizon):
        here = here * running
        visits += here
        here = np.bincount(successors.ravel(), (here[:, None] * policy).ravel(), minlength=4)
    shares = visits / visits.sum()
    entropy = lambda p: -np.sum(p * np.log(np.where(p > 0, p, 1.0)), axis=-1)
    found = training.look(params[None, None], mdp)
    np.testing.assert_allclose(found.state_entropy, [[entropy(shares)]], rtol=1e-12)
    np.testing.assert_allclose(found.action_entropy, [[shares @ entropy(policy)]], rtol=1e-12)
    as_logits = np.exp(shares) / np.exp(shares).sum()
    assert entropy(as_logits) > 1.05 * entropy(shares)
    assert abs(entropy(policy).mean() - shares @ entropy(policy)) > 0.01


def test_each_geometry_is_learned_in_by_itself(x64):
    """Runs move the table of cells that they come to: with no rooms, some that rooms put out of reach."""
    horizon = 10
    train = training.make_training(horizon, 400, 1, 1, "endless")
    reached, within = {}, {}
    for geometry in ("described", "released"):
        mdp = training.numbered(geometry, horizon)
        moved = np.asarray(train(jax.random.key(0), 0, 0.5, 0.1, False, mdp))[:, -1] != 0
        reached[geometry] = moved.any(axis=(0, 2))
        within[geometry] = np.asarray(exact.visitation(mdp, jnp.full((100, 4), 0.25))).sum(axis=0) > 0
        assert not (reached[geometry] & ~within[geometry]).any()
    assert np.sum(reached["released"] & ~within["described"]) >= 2


def test_the_mean_is_the_theorem_s_whatever_epsilon(small, x64):
    """Of endless values: Σ_t γᵗ Σ_s d_t(s) Σ_a ∇π Q. Twin: the gradient of episodes that are cut, 10 % off or more."""
    mdp, params = small
    enumeration = exact.enumerate_trajectories(mdp)
    chances = exact.trajectory_probabilities(training.POLICY.apply, params, enumeration)

    @jax.jit
    def mean(epsilon, natural):
        estimator = training.actor_critic(params, epsilon, natural, mdp, "endless")
        return exact.moments_of(estimator.episode_gradients(params, (), enumeration.trajectories), chances).mean

    @jax.jit
    def theorem(theta):
        probabilities, pull_back = jax.vjp(
            lambda theta: exact.policy_probabilities(training.POLICY.apply, theta, mdp), theta
        )
        visits = training.DISCOUNT ** jnp.arange(4) @ exact.visitation(mdp, probabilities)
        q = exact.stationary_action_values(mdp, probabilities, training.DISCOUNT)
        plain = pull_back(visits[:, None] * q)[0]
        cut = exact.exact_gradient(training.POLICY.apply, theta, mdp, training.DISCOUNT)
        return plain, estimators.softmax_inverse_fisher(theta, plain), cut

    plain, natural, cut = theorem(params)
    for epsilon in (-0.5, 0.5):
        np.testing.assert_allclose(mean(epsilon, False), plain, atol=1e-12)
        np.testing.assert_allclose(mean(epsilon, True), natural, atol=1e-12)
    assert np.linalg.norm(plain - cut) > 0.1 * np.linalg.norm(plain)


def test_values_of_the_time_left_weigh_each_step_with_its_own(small, x64):
    """w_t = γᵗ (Q_t(S_t, A_t) − b_t(S_t) − ε). Twin: the first step's Q and b throughout."""
    mdp, params = small
    episodes = exact.enumerate_trajectories(mdp).trajectories

    @jax.jit
    def tables(theta):
        q = training.true_values(theta, mdp, "time left")
        weights, _ = training.weighting(theta, 0.5, False, mdp, "time left").weigh((), episodes)
        return q, training.best_baseline(theta, q, mdp, False), weights

    q, b, weights = map(np.asarray, tables(params))
    states, actions, alive = map(np.asarray, (episodes.obs, episodes.actions, episodes.alive))
    times = np.arange(4)[:, None]
    expected = lambda t: alive * training.DISCOUNT**times * (q[t, states, actions] - b[t, states] - 0.5)
    np.testing.assert_allclose(weights, expected(times), atol=1e-12)
    assert np.abs(weights - expected(0 * times)).max() > 0.1


def test_the_baseline_is_the_oracle_s_and_epsilon_is_symmetric_about_it(small, x64):
    """E‖ψ (Q − b)‖² at b* ± ε is the same. Twin: the other gradient's b*, where it differs by 4 ε (b − b*) E‖ψ‖²."""
    mdp, params = small

    @jax.jit
    def baselines(theta):
        q = training.true_values(theta, mdp, "time left")
        ours = {natural: training.best_baseline(theta, q, mdp, natural) for natural in (False, True)}
        known = {
            norm == "natural": exact.one_step_baseline(
                training.POLICY.apply, theta, mdp, discount=training.DISCOUNT, norm=norm
            )
            for norm in ("vanilla", "natural")
        }
        return q, ours, known

    q, ours, known = jax.tree.map(np.asarray, baselines(params))
    pi, values = np.asarray(jax.nn.softmax(params[0])), q[0, 0]
    for natural, scores in ((False, np.eye(3) - pi), (True, (np.eye(3) - 1 / 3) / pi[:, None])):
        np.testing.assert_allclose(ours[natural], known[natural], atol=1e-10)
        squares = pi * (scores**2).sum(axis=1)
        spread = lambda b, squares=squares: squares @ (values - b) ** 2
        b, twin = ours[natural][0, 0], ours[not natural][0, 0]
        assert spread(b + 0.5) == pytest.approx(spread(b - 0.5), rel=1e-12)
        asymmetry = spread(twin + 0.5) - spread(twin - 0.5)
        assert asymmetry == pytest.approx(4 * 0.5 * (twin - b) * squares.sum(), rel=1e-9)
        assert abs(asymmetry) > 0.1 * spread(b + 0.5)


def test_the_best_baseline_is_finite_at_the_deepest_table(small, x64):
    """1/π of the rarest action outweighs all others, so that b* of the natural gradient is its Q."""
    mdp, _ = small
    params = jnp.broadcast_to(-jnp.asarray([0.0, 40.0, training.DEPTH]), (4, 3))

    @jax.jit
    def both(theta):
        q = training.true_values(theta, mdp, "endless")
        return q, training.best_baseline(theta, q, mdp, True)

    q, b = both(params)
    np.testing.assert_allclose(b[0], q[0, :, 2], atol=1e-9)


def test_orders_need_the_sizes_that_were_published_and_can_fail():
    config = four_rooms.Config()
    looks = config.episodes // config.every + 1
    course = lambda end: training.Course(
        *(np.linspace(0.1, end, looks) + np.array([[-0.01], [0.01]]) for _ in training.Course._fields)
    )
    curves = {
        ("described", method, "endless"): {epsilon: course(end) for epsilon, end in zip(config.epsilons, ends)}
        for method, ends in (("natural", (0.2, 0.8, 0.6)), ("vanilla", (0.6, 0.8, 0.6)))
    }
    targets = {target.key: target for target in four_rooms.PAPER.targets}
    orders = ("value", "actions", "states", "weak")

    def judged(curves, config=config):
        measured = four_rooms.compare(config, curves)
        return {key: papers.judge(targets[key], measured[key]).overall for key in orders if key in measured}

    assert judged(curves) == dict.fromkeys(orders, "agrees")
    twin = {variant: {-epsilon: course for epsilon, course in found.items()} for variant, found in curves.items()}
    assert judged(twin) == dict.fromkeys(orders, "not as expected")
    assert judged(curves, dataclasses.replace(config, natural_step=0.2)) == {}


def test_bad_options_are_refused(tmp_path):
    for config, words in (
        (four_rooms.Config(runs=1), "--runs 1: must be at least 2"),
        (four_rooms.Config(episodes=110), "--episodes 110: must be a multiple of --every, 25"),
        (four_rooms.Config(horizon=13), "--horizon 13: must be at least 14"),
        (four_rooms.Config(seed=-1), r"--seed -1: must be in \[0, 2³⁰\]"),
        (four_rooms.Config(full=True, runs=5), "--runs 5 and --full exclude each other"),
    ):
        with pytest.raises(runner.UsageError, match=words):
            runner.execute(NAME, config, four_rooms.run, output_dir=tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_the_default_run_finds_the_paper_s_orders(tmp_path):
    verdicts = verdicts_of(runner.execute(NAME, four_rooms.Config(), four_rooms.run, output_dir=tmp_path))
    assert {verdicts[key] for key in ("value", "actions", "states", "weak")} == {"agrees"}
    bad = {key for key, verdict in verdicts.items() if otherwise(verdict)}
    assert bad == {"uniform", paper.key_of("natural", 0.5, 300)}
    assert Verdict.NOT_MEASURED not in verdicts.values()
