"""What the presets must reach. Minutes, hence slow: `pytest -m slow`."""

import json

import jax
import numpy as np
import optax
import pytest

from experiments import train
from experiments.harness import runner
from pgjax import environments, estimators, evaluation, networks, training
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


def test_breakout_clears_twenty_bricks(tmp_path):
    environment = environments.make("Breakout-MinAtar")
    policy = networks.make_policy(environment, network="mlp")
    params = policy.init(jax.random.key(0), np.zeros((10, 10, 4), np.float32))
    fresh = evaluation.evaluate(environment, policy, params, jax.random.key(1), num_episodes=200)
    assert fresh.mean < 1.0
    _, rows = trained(tmp_path, env="Breakout-MinAtar", num_seeds=1, seed=20)
    assert rows[0]["ours"] > 20.0


def test_the_fixed_maze_is_solved_within_two_percent(tmp_path):
    _, rows = trained(tmp_path, env="maze", num_seeds=3, seed=20)
    best = shortest_path_lengths()[parse_layout(LAYOUT).start]
    assert all(-1.02 * best <= row["ours"] <= -best for row in rows)


def beside(tmp_path, **options):
    """Train two seeds by the preset: measure → policy → mean on the same starts. Seeds are those of no official run."""
    directory = runner.execute(
        "train", train.Config(gif=False, num_seeds=2, seed=20, **options), train.run, output_dir=tmp_path
    )
    rows, found = json.loads((directory / "summary.json").read_text())["rows"], {}
    for row in rows:
        found.setdefault(row["quantity"], {})[row["variant"]] = row["ours"]
    return found


def of_seeds(policies):
    found = [mean for name, mean in policies.items() if name.startswith("trained, lr")]
    assert len(found) == 2
    return np.array(found)


def test_navigation_arrives_more_often_and_by_shorter_ways_than_the_potential_field(tmp_path):
    found = beside(tmp_path, env="navigation")
    success, way = found["success"], found["driven way / distance, if arrived"]
    assert (of_seeds(success) > max(0.96, success["potential field"])).all() and of_seeds(success).mean() >= 0.97
    assert (of_seeds(way) < way["potential field"]).all()


def test_the_swimmer_is_twice_as_fast_as_the_best_wave_of_a_grid(tmp_path):
    found = beside(tmp_path, env="swimmer")["return"]
    assert (of_seeds(found) > 2 * found["best travelling wave"]).all()


def test_slates_are_watched_longer_than_what_is_liked_best(tmp_path):
    found = beside(tmp_path, env="slates")["return"]
    assert (of_seeds(found) >= 240).all() and found["random"] < found["myopic"] < 175


def test_the_regret_of_ads_is_a_tenth_of_that_of_random_ads(tmp_path):
    found = beside(tmp_path, env="ads")["regret of a session, clicks"]
    assert (of_seeds(found) < 0.1 * found["random"]).all()


def test_most_fresh_mazes_are_left(tmp_path):
    found = beside(tmp_path, env="random_maze")["success"]
    assert (of_seeds(found) > 0.85).all() and found["random"] < 0.35 and found["shortest way"] == 1.0


def test_most_held_out_sums_are_right(tmp_path):
    found = beside(tmp_path, env="addition")["held-out prompts answered right (greedy policy)"]
    assert min(found["lr 0.002, seed 20"], found["lr 0.002, seed 21"]) > 0.8


def test_cooling_saves_power_without_overheating(tmp_path):
    found = beside(tmp_path, env="cooling")
    pue, above = found["PUE"], found["share of the time above 27 °C"]
    loop = next(name for name in pue if name.startswith("PI loop"))
    assert (of_seeds(pue) < pue[loop]).all() and pue[loop] == pytest.approx(1.226, abs=0.003)
    assert (of_seeds(above) <= 0.001).all()


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
