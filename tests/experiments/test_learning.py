"""What the presets must reach. Minutes, hence slow: `pytest -m slow`."""

import json

import jax
import numpy as np
import optax
import pytest

from experiments import train
from experiments.harness import runner
from pgjax import environments, estimators, evaluation, imitation, networks, training
from pgjax.environments import swimmer_gaits
from pgjax.environments.maze import LAYOUT, parse_layout, shortest_path_lengths
from pgjax.saving import policies

pytestmark = pytest.mark.slow


def trained(tmp_path, **options):
    directory = runner.execute("train", train.Config(gif=False, **options), train.run, output_dir=tmp_path)
    rows = json.loads((directory / "summary.json").read_text())["rows"]
    return directory, [row for row in rows if row["quantity"] == "evaluated return"]


def gymnasium_returns(apply, num_episodes):
    """Sampled actions in Gymnasium's own CartPole-v1."""
    import gymnasium

    env, generator, returns = gymnasium.make("CartPole-v1"), np.random.default_rng(0), []
    for episode in range(num_episodes):
        obs, _ = env.reset(seed=episode)
        total, over = 0.0, False
        while not over:
            logits = np.asarray(apply(obs), np.float64)
            probabilities = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
            obs, reward, terminated, truncated, _ = env.step(generator.choice(2, p=probabilities))
            total, over = total + reward, terminated or truncated
        returns.append(total)
    return np.asarray(returns)


def same_mean(a, b):
    """Within three standard errors of the difference."""
    error = np.hypot(a.std(ddof=1) / len(a) ** 0.5, b.std(ddof=1) / len(b) ** 0.5)
    return abs(a.mean() - b.mean()) <= 3 * error


def test_cartpole_is_solved_and_gymnasium_agrees(tmp_path):
    directory, rows = trained(tmp_path)
    assert sum(row["ours"] >= 475 for row in rows) >= 9
    environment, policy, params = policies.load_policy(directory / "policy.safetensors")
    theirs = gymnasium_returns(jax.jit(lambda obs: policy.apply(params, obs)), 100)
    assert same_mean(evaluation.evaluate(environment, policy, params, jax.random.key(5)).returns, theirs)


def test_a_mediocre_policy_has_the_same_mean_in_gymnasium(tmp_path):
    """Where returns vary, the comparison has teeth."""
    directory, _ = trained(tmp_path, num_seeds=1, num_updates=10, seed=3)
    environment, policy, params = policies.load_policy(directory / "policy.safetensors")
    theirs = gymnasium_returns(jax.jit(lambda obs: policy.apply(params, obs)), 100)
    ours = evaluation.evaluate(environment, policy, params, jax.random.key(5), num_episodes=1000).returns
    assert theirs.std() > 10 and same_mean(ours, theirs)


def test_pendulum_improves(tmp_path):
    _, rows = trained(tmp_path, env="Pendulum-v1", num_seeds=3)
    assert all(row["ours"] > -400 for row in rows)


def test_breakout_improves(tmp_path):
    environment = environments.make("Breakout-MinAtar")
    policy = networks.make_policy(environment, hidden=(64,))
    params = policy.init(jax.random.key(0), np.zeros((10, 10, 4), np.float32))
    fresh = evaluation.evaluate(environment, policy, params, jax.random.key(1), num_episodes=200)
    assert fresh.mean < 1.0
    _, rows = trained(tmp_path, env="Breakout-MinAtar", num_seeds=1)
    assert rows[0]["ours"] > 5.0


def test_the_fixed_maze_is_solved_within_two_percent(tmp_path):
    _, rows = trained(tmp_path, env="maze", num_seeds=3, seed=20)
    best = shortest_path_lengths()[parse_layout(LAYOUT).start]
    assert all(-1.02 * best <= row["ours"] <= -best for row in rows)


def test_navigation_arrives_more_often_than_the_potential_field(tmp_path):
    directory, rows = trained(tmp_path, env="navigation", num_seeds=2, seed=20)
    environment, policy, params = policies.load_policy(directory / "policy.safetensors")
    field = imitation.as_policy(imitation.potential_field())
    ours, reference = (
        evaluation.evaluate(environment, acting, theta, jax.random.key(5), num_episodes=1000)
        for acting, theta in ((policy, params), (field, ()))
    )
    assert all(row["ours"] > reference.mean for row in rows)
    assert ours.metrics["success"].final.value > max(0.97, reference.metrics["success"].final.value)


def test_the_swimmer_is_twice_as_fast_as_the_best_wave_of_a_grid(tmp_path):
    _, rows = trained(tmp_path, env="swimmer", num_seeds=2, seed=20)
    waves = swimmer_gaits.grid(np.arange(1, 9) / 8, np.arange(1, 17) / 16, np.arange(-8, 8) * np.pi / 8)
    best = swimmer_gaits.mean_returns(environments.make("swimmer"), waves, jax.random.key(0)).max()
    assert all(row["ours"] > 2 * best for row in rows)


GYMNAX = (
    "Acrobot-v1",
    "Asterix-MinAtar",
    "BernoulliBandit-misc",
    "Breakout-MinAtar",
    "CartPole-v1",
    "Catch-bsuite",
    "DeepSea-bsuite",
    "DiscountingChain-bsuite",
    "FourRooms-misc",
    "Freeway-MinAtar",
    "FrozenLake-misc",
    "GaussianBandit-misc",
    "MemoryChain-bsuite",
    "MetaMaze-misc",
    "MountainCar-v0",
    "MountainCarContinuous-v0",
    "Pendulum-v1",
    "PointRobot-misc",
    "Pong-misc",
    "Reacher-misc",
    "Seaquest-MinAtar",
    "SimpleBandit-bsuite",
    "SpaceInvaders-MinAtar",
    "Swimmer-misc",
    "UmbrellaChain-bsuite",
)


@pytest.mark.parametrize("name", GYMNAX)
def test_every_gymnax_environment_trains(name):
    environment = environments.make(f"gymnax:{name}", horizon=8)
    policy = networks.make_policy(environment, hidden=(4,))
    trainer = training.make_trainer(
        environment, policy, estimators.make_estimator(policy), optax.adam(0.01), num_episodes=4
    )
    start = trainer.init(jax.random.key(0))
    state, metrics = jax.jit(trainer.update)(start)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves((state.params, metrics)))
    assert metrics["num_steps"] >= 4 and metrics["entropy"] > 0
