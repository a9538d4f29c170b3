"""A million updates of a tiny problem: memory and speed stay flat, and the logs stay small. Minutes, hence slow."""

import json
import os
import pathlib
import textwrap
import time

import numpy as np
import pytest

from experiments import train
from experiments.harness import runner
from experiments.train import keeping

# One step, two arms: arm 1 pays 1.
BANDIT = """
    import jax.numpy as jnp
    from pgjax.types import Box, Discrete, Environment, Step

    def make():
        return Environment(
            name="two arms",
            reset=lambda key, params: (jnp.zeros(()), jnp.zeros(1)),
            step=lambda key, state, action, params: (
                state, Step(obs=jnp.zeros(1), reward=action.astype(jnp.float32), terminated=jnp.ones((), bool))
            ),
            params=(),
            observation_space=Box(0.0, 1.0, (1,)),
            action_space=Discrete(2),
            horizon=1,
        )
"""
UPDATES = int(os.environ.get("PGJAX_MANY_UPDATES", 10**6))
LIMIT = 20 * 2**20


def resident():
    """The memory of this process, in MiB."""
    pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


@pytest.mark.slow
@pytest.mark.skipif(not pathlib.Path("/proc/self/statm").exists(), reason="needs /proc")
def test_a_million_updates_take_no_more_memory_than_a_few(tmp_path, monkeypatch):
    (tmp_path / "own_arms.py").write_text(textwrap.dedent(BANDIT))
    monkeypatch.syspath_prepend(tmp_path)
    seen, hear = [], keeping.Keeper.hear

    def hear_and_look(self, metrics, states):
        hear(self, metrics, states)
        seen.append((self.thinned.done, time.process_time(), resident()))

    monkeypatch.setattr(keeping.Keeper, "hear", hear_and_look)
    config = train.Config(
        env="own_arms:make",
        estimator="reinforce_moving_average",
        num_seeds=1,
        num_updates=UPDATES,
        num_episodes=2,
        hidden=(),
        lr=(1e-5,),
        eval_episodes=4,
        references=False,
        checkpoint_every=5.0,
    )
    directory = runner.execute("train", config, train.run, train.plot, output_dir=tmp_path)
    ended = time.process_time()
    done, seconds, memory = map(np.array, zip(*seen, strict=True))
    first, second = (np.searchsorted(done, share * UPDATES) for share in (0.2, 0.6))
    assert memory[-1] < memory[first] + 32, memory
    speeds = [
        np.diff(done[part])[1:].sum() / np.diff(seconds[part])[1:].sum()
        for part in (slice(first, second), slice(second, None))
    ]
    assert speeds[1] > 0.8 * speeds[0], speeds
    sizes = {path.name: path.stat().st_size for path in directory.iterdir()}
    assert sum(sizes.values()) < LIMIT, sizes
    lines = (directory / "metrics.jsonl").read_text().splitlines()
    assert len(lines) < 3500 and json.loads(lines[-1])["update"] == UPDATES
    assert ended - seconds[-1] < 20
    print(
        f"{UPDATES} updates: {1e6 / speeds[0]:.1f} and {1e6 / speeds[1]:.1f} µs, {memory[first]:.0f} and "
        f"{memory[-1]:.0f} MiB, {sum(sizes.values()) / 2**20:.1f} MiB of files, {len(lines)} lines, the end "
        f"{ended - seconds[-1]:.1f} s"
    )
