"""What the presets must reach. Minutes, hence slow: `pytest -m slow`."""

import json

import jax
import numpy as np
import pytest

from experiments import _runner as runner
from experiments import train
from pgjax import environments, networks

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


def same_mean(a, b, floor=0.5):
    """Within three standard errors; `floor` for the case of two samples that are all 500."""
    error = np.hypot(a.std(ddof=1) / len(a) ** 0.5, b.std(ddof=1) / len(b) ** 0.5)
    return abs(a.mean() - b.mean()) <= 3 * error + floor


def test_cartpole_is_solved_and_gymnasium_agrees(tmp_path):
    directory, rows = trained(tmp_path)
    assert sum(row["ours"] >= 475 for row in rows) >= 9
    _, policy, params = train.load_policy(directory / "policy.safetensors")
    apply = jax.jit(lambda obs: policy.apply(params, obs))
    ours = [row for row in rows if row["ours"] == max(row["ours"] for row in rows)][0]
    theirs = gymnasium_returns(apply, 100)
    error = np.hypot(ours["stderr"], theirs.std(ddof=1) / 10)
    assert abs(theirs.mean() - ours["ours"]) <= 3 * error + 0.5


def test_a_mediocre_policy_has_the_same_mean_in_gymnasium(tmp_path):
    """Where returns vary, the comparison has teeth."""
    from pgjax import evaluation

    directory, _ = trained(tmp_path, num_seeds=1, num_updates=10, seed=3)
    environment, policy, params = train.load_policy(directory / "policy.safetensors")
    theirs = gymnasium_returns(jax.jit(lambda obs: policy.apply(params, obs)), 100)
    ours = evaluation.evaluate(environment, policy, params, jax.random.key(5), num_episodes=1000).returns
    assert theirs.std() > 10 and same_mean(ours, theirs, floor=0.0)


def test_pendulum_improves(tmp_path):
    _, rows = trained(tmp_path, env="Pendulum-v1", num_seeds=3)
    assert all(row["ours"] > -400 for row in rows)


def test_breakout_improves(tmp_path):
    environment = environments.make("Breakout-MinAtar")
    policy = networks.make_policy(environment, hidden=(64,))
    from pgjax import evaluation

    params = policy.init(jax.random.key(0), np.zeros((10, 10, 4), np.float32))
    fresh = evaluation.evaluate(environment, policy, params, jax.random.key(1), num_episodes=200)
    assert fresh.mean < 1.0
    _, rows = trained(tmp_path, env="Breakout-MinAtar", num_seeds=1)
    assert rows[0]["ours"] > 5.0
