"""What is saved comes back equal; what is wrong is named: file, key, row, expected and found."""

import jax.numpy as jnp
import numpy as np
import pytest
from expert_datasets import LENGTHS, equal, make

from pgjax import datasets
from pgjax.datasets import DatasetError
from pgjax.spaces import Box, Discrete, MultiDiscrete, Slate
from pgjax.types import Trajectory

SPACES = {"observation_space": Box(-10.0, 10.0, (2,)), "action_space": Discrete(3)}


class TestRecord:
    def test_episodes(self):
        dataset = make()
        assert (dataset.num_rows, dataset.num_episodes) == (6, 3)
        assert dataset.episode_lengths.tolist() == LENGTHS
        assert dataset.episode_numbers.tolist() == [0, 0, 1, 2, 2, 2]
        parts = list(dataset.episodes())
        assert [part.num_rows for part in parts] == LENGTHS
        equal(datasets.concatenate(parts, metadata=dataset.metadata), dataset)
        picked = dataset.select_episodes([2, 0])
        assert picked.rewards.tolist() == [3, 4, 5, 0, 1] and picked.terminated.tolist() == [True, True]
        assert picked.episode_ends.tolist() == [False, False, True, False, True]
        equal(dataset.select_episodes(np.asarray([True, False, True])), dataset.select_episodes([0, 2]))

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"episode_ends": np.zeros(0, bool)}, r"episode_ends: expected shape .N. with N at least 1"),
            ({"episode_ends": np.asarray([0, 1, 1, 0, 0, 0], bool)}, "episode_ends, row 5: expected the last row"),
            ({"episode_ends": np.ones(6)}, "episode_ends: expected bool, found float64"),
            ({"actions": np.zeros(5, int)}, "actions: expected 6 rows, found 5"),
            ({"actions": np.zeros(6, complex)}, "actions: expected integers or unsigned integers or floats"),
            ({"observations": np.full((6, 2), None)}, "observations: .* found object"),
            ({"observations": np.where(np.arange(6) == 4, np.nan, 1.0)}, "observations, row 4: expected finite"),
            ({"rewards": np.asarray([0, 1, 2, np.inf, 4, 5])}, "rewards, row 3: expected finite numbers, found inf"),
            ({"rewards": np.zeros((6, 1))}, "rewards: expected shape .6., found .6, 1."),
            ({"terminated": np.ones(2, bool)}, "terminated: expected 3 episodes, found 2"),
            ({"final_observations": np.ones((3, 4), np.float32)}, "final_observations: expected shape .3, 2."),
            ({"final_observations": np.ones((3, 2))}, "final_observations: expected float32, found float64"),
            ({"expert_log_probs": np.zeros((6, 3))}, "expert_log_probs, row 0: .* sum to 1"),
            ({"expert_log_probs": np.full((6, 1), np.nan)}, "expert_log_probs, row 0: .* found nan"),
            ({"metadata": {"space": {1, 2}}}, "metadata: expected a dict that JSON"),
            ({"metadata": {"x": (1, 2)}}, "metadata: expected a dict that JSON"),
        ],
    )
    def test_what_is_wrong_is_named(self, changes, message):
        with pytest.raises(DatasetError, match=message):
            make(**changes)

    def test_selections_and_parts_that_do_not_fit(self):
        with pytest.raises(DatasetError, match=r"episodes, row 1: expected numbers in \[0, 2\], found 3"):
            make().select_episodes([0, 3])
        with pytest.raises(DatasetError, match="at least one episode"):
            make().select_episodes([])
        with pytest.raises(DatasetError, match="datasets: expected at least one"):
            datasets.concatenate([])
        with pytest.raises(DatasetError, match=r"rewards, row 1: expected float32.* found None"):
            datasets.concatenate([make(), make(rewards=None)])
        with pytest.raises(DatasetError, match="episode_lengths, row 1: expected at least 1, found 0"):
            datasets.ends_of_lengths([2, 0])

    def test_actions_in_their_space(self):
        make().require_actions_in(Discrete(3))
        with pytest.raises(DatasetError, match=r"actions, row 1: expected actions in \[0, 1\], found 2"):
            make(expert_log_probs=None).require_actions_in(Discrete(2))
        with pytest.raises(DatasetError, match=r"expert_log_probs: expected shape \[6, 4\]"):
            make().require_actions_in(Discrete(4))
        box = make(actions=np.linspace(-1, 1.5, 6, dtype=np.float32)[:, None], expert_log_probs=None)
        with pytest.raises(DatasetError, match=r"actions, row 5: expected actions in \[-1.0, 1.0\], found 1.5"):
            box.require_actions_in(Box(-1.0, 1.0, (1,)))
        with pytest.raises(DatasetError, match="actions: expected floats, found int32"):
            make().require_actions_in(Box(-1.0, 1.0, ()))
        make().require_actions_in(Box(0, 2, (), dtype=np.int32))
        slates = make(actions=np.array([[0, 1], [2, 0], [1, 2]] * 2, np.int32), expert_log_probs=None)
        slates.require_actions_in(Slate(3, 2))
        slates.require_actions_in(MultiDiscrete((3, 3)))
        with pytest.raises(DatasetError, match=r"actions, row 1: expected actions in \[0, 2\], found 2"):
            slates.require_actions_in(MultiDiscrete((2, 3)))
        with pytest.raises(DatasetError, match=r"actions, row 2: expected different items in a slate, found \[1 1\]"):
            make(actions=np.array([[0, 1], [2, 0], [1, 1]] * 2, np.int32), expert_log_probs=None).require_actions_in(
                Slate(3, 2)
            )
        with pytest.raises(DatasetError, match=r"action space: expected one Discrete, .*, found None"):
            make().require_actions_in(None)


class TestFromTrajectory:
    def test_live_rows_episode_by_episode(self):
        lengths, horizon = np.asarray([3, 1, 4]), 4
        time, lane = np.arange(horizon)[:, None], np.arange(3)
        alive = time < lengths
        last = time == lengths - 1
        trajectory = Trajectory(
            obs=jnp.asarray(np.where(alive, 10.0 * lane + time, np.nan)[..., None]),
            actions=jnp.asarray(np.where(alive, time % 2, -1)),
            rewards=jnp.asarray(np.where(alive, 1.0 + lane, 0.0)),
            alive=jnp.asarray(alive),
            terminated=jnp.asarray(last & (lengths < horizon)),
            truncated=jnp.asarray(last & (lengths == horizon)),
            final_obs=jnp.asarray([[100.0], [101.0], [102.0]]),
        )
        got = datasets.from_trajectory(trajectory, metadata={"env": "made"})
        assert got.observations[:, 0].tolist() == [0, 1, 2, 10, 20, 21, 22, 23]
        assert got.actions.tolist() == [0, 1, 0, 0, 0, 1, 0, 1]
        assert got.rewards.tolist() == [1, 1, 1, 2, 3, 3, 3, 3]
        assert got.episode_lengths.tolist() == [3, 1, 4]
        assert got.final_observations[:, 0].tolist() == [100, 101, 102]
        assert got.terminated.tolist() == [True, True, False]
        with pytest.raises(DatasetError, match="obs: expected one array, found dict"):
            datasets.from_trajectory(trajectory._replace(obs={"x": trajectory.obs}))
        with pytest.raises(DatasetError, match="at least one live row"):
            datasets.from_trajectory(trajectory._replace(alive=jnp.zeros((4, 3), bool)))
        two = jnp.asarray(last).at[0, 0].set(True)
        with pytest.raises(DatasetError, match="next_obs, row 0"):
            datasets.from_trajectory(trajectory._replace(terminated=two))

    def test_windows_end_episodes_inside_and_at_the_edge(self):
        flags = np.zeros((4, 2), bool)
        terminated, truncated = flags.copy(), flags.copy()
        terminated[1, 0], truncated[2, 1] = True, True
        obs = jnp.arange(8.0).reshape(4, 2)
        window = Trajectory(
            obs=obs, actions=jnp.zeros((4, 2), int), rewards=obs, alive=jnp.asarray(~flags), final_obs=obs[-1],
            terminated=jnp.asarray(terminated), truncated=jnp.asarray(truncated), next_obs=obs + 100.0,
        )  # fmt: skip
        got = datasets.from_trajectory(window)
        assert got.observations.tolist() == [0, 2, 4, 6, 1, 3, 5, 7]
        assert got.episode_lengths.tolist() == [2, 2, 3, 1]
        assert got.final_observations.tolist() == [102, 106, 105, 107]
        assert got.terminated.tolist() == [True, False, False, False]
